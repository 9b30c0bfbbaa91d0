/*
 * sched_check: the scheduler's books, counted again from scratch.
 */
#ifndef CP_ENGINE_SCHED_CHECK_H
#define CP_ENGINE_SCHED_CHECK_H

#include "engine/state.h"

/* Invariants sched-*, O(sequences + waiting); aborts with the number. planned: between plan and
 * commit. */
void cp_sched_check(const cp_sched *s, bool planned);
/* The last request has gone: nothing is held any more (kv-3, sched-16, sched-20). O(1). */
void cp_sched_check_idle(const cp_sched *s);

#endif
