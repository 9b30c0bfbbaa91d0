/*
 * room: who gives pages up for whom.
 *
 * A prompt that runs will take pages in the steps to come; a newcomer must leave those alone. What
 * is short is taken from sequences whose clients do not read, and for one that runs already also
 * from those younger than it. Nobody is preempted in vain: what all of them could give is counted
 * first (sched-21), and only as many go as are needed.
 */
#ifndef CP_ENGINE_ROOM_H
#define CP_ENGINE_ROOM_H

#include "engine/state.h"

/* Whether a newcomer that will take `need` pages may start beside those that run. */
bool cp_room_fits(const cp_sched *s, uint64_t need);
/* Whether it could, were those preempted whose clients do not read. Uses s->takes. */
bool cp_room_could_fit(cp_sched *s, uint64_t need);
/* Preempt of those as many as it takes, where they suffice. False: what they gave is parked, the
 * newcomer fits once steps in flight are done. */
bool cp_room_clear(cp_sched *s, uint64_t need);
/* Whether q may have the pages of positions < end without touching what running prompts, itself
 * included, will still take. */
bool cp_room_may_take(const cp_sched *s, const cp_seq *q, int end);
/* Whether q can go on once steps in flight have given back what they still touch. */
bool cp_room_is_coming(const cp_sched *s, const cp_seq *q);
/* Who is to be preempted next so that q can go on: q itself where all others that may be would not
 * suffice, NULL where it has the pool to itself. Uses s->takes. */
cp_seq *cp_room_victim(cp_sched *s, cp_seq *q);

#endif
