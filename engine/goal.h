/*
 * goal: what a sequence is after. Questions about the state, answered without changing it.
 */
#ifndef CP_ENGINE_GOAL_H
#define CP_ENGINE_GOAL_H

#include "engine/state.h"

bool cp_seq_scoring(const cp_seq *q); /* prompt log-probabilities are still to come */
/* Whether q still has to let the request's other choices fork off, at n_prompt - 1. */
bool cp_seq_fork_pending(const cp_seq *q);
int cp_seq_goal(const cp_seq *q);       /* positions to be done before something else happens */
int cp_seq_out_first(const cp_seq *q);  /* first position whose row wants an output */
bool cp_seq_one_to_go(const cp_seq *q); /* one row, drafts aside */
/* Whether q has produced a token and lacks nothing but the row (and drafts) that makes the next. */
bool cp_seq_decoding(const cp_seq *q);
/* Drafts that q could use: 0 where its next row is not to be judged, or nothing could be rolled
 * back. */
int cp_seq_drafts_wanted(const cp_sched *s, const cp_seq *q);
/* STATE groups: whether the state after `end` positions, where rows of q end, is worth a
 * checkpoint; whether one that outlives the next; and the first position after `from` where rows
 * have to end for one. */
bool cp_seq_wants_checkpoint(const cp_sched *s, const cp_seq *q, int end);
bool cp_seq_checkpoint_lasts(const cp_sched *s, const cp_seq *q, int end);
int cp_seq_next_checkpoint(const cp_sched *s, const cp_seq *q, int from);
/* Positions of a prefix hit that a sequence of n_known tokens may use at most. */
int cp_task_max_hit(const cp_task *t, int n_known);

#endif
