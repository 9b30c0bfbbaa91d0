/*
 * grant: the rows of a step, and the pages that go with them.
 */
#ifndef CP_ENGINE_GRANT_H
#define CP_ENGINE_GRANT_H

#include "engine/state.h"

/* Schedule q: a chunk of rows at most, with their pages, at the cost of others if need be. Without
 * pages q is preempted, or its task fails where it had the whole pool. */
void cp_seq_schedule(cp_sched *s, cp_seq *q);
/* One pass over those that run and have no rows yet: decoding ones (one row to go), or prompts. */
void cp_grant_pass(cp_sched *s, bool decode);
/* Whether the plan so far has a row of a sequence that has produced a token and makes the next. */
bool cp_grant_decodes(const cp_sched *s);
/* Nobody's next token waits for this step: prompts take what is left of it, the oldest first. */
void cp_grant_rest(cp_sched *s);
/* Drafts take rows that nobody else had use for, up to a chunk a sequence. */
void cp_grant_drafts(cp_sched *s);
/* q stands at n_prompt - 1: the other choices share all it has computed. True if it did. */
bool cp_seq_fork(cp_sched *s, cp_seq *q);

#endif
