/*
 * sched: one model's scheduler, private to engine/ (and to the simulation in tests/sim).
 *
 * A cp_sched (state.h) belongs to the engine thread. It is pure: no clock (time is an argument), no
 * I/O, no allocation after open. Each step is one transaction: cp_sched_sweep (cancel flags,
 * deadlines), cp_sched_plan (fork, schedule rows, preempt, admit, take pages and state slots), then
 * the batch runs, then cp_sched_commit. Where a backend takes more than one step at a time, the
 * next is planned while others are in flight: submit, cp_sched_sent, then the commit of the oldest.
 * Requests come and go through tasks.h. The rules are numbered in docs/INVARIANTS.md (sched-*).
 */
#ifndef CP_ENGINE_SCHED_H
#define CP_ENGINE_SCHED_H

#include "engine/state.h"

cp_code cp_sched_open(cp_sched **out, const cp_sched_config *cfg, cp_err *err);
void cp_sched_close(cp_sched *s); /* every task must have ended; NULL is fine */
/* End what was cancelled or is past its deadline. */
void cp_sched_sweep(cp_sched *s, int64_t now_ns);
/* The earliest deadline of those that have not ended; 0: none. */
int64_t cp_sched_deadline(const cp_sched *s);
/* Decide the next step; returns its rows. 0: nothing can run now (see cp_sched_busy). row_budget
 * (>= 1) is what there is time for; more, max_seqs at most, where a row for each sequence that
 * decodes and one for prompts are more (sched-24). */
int cp_sched_plan(cp_sched *s, int row_budget);
/* The plan's batch was submitted, and the backend keeps copies of all that it names: another plan
 * may be made. Its rows count as done, the tokens that they sample as pending. */
void cp_sched_sent(cp_sched *s);
/* The oldest step in flight ran (the plan at hand, if it was not said that it was sent): its
 * results[n_out]. Appends tokens, emits events, ends choices; judges drafts: those that equal the
 * sample before them are kept, the rest is truncated. Results of sequences that have gone since are
 * dropped. */
void cp_sched_commit(cp_sched *s, const cp_sample_out *results, int64_t now_ns);
/* The step failed (the plan at hand, where there is one that was not sent, else the oldest in
 * flight): its requests end with `code`; no result is used. */
void cp_sched_fail_plan(cp_sched *s, cp_code code);
/* Requests exist. After a plan of 0 rows: all of them are held up by full rings, or wait for a step
 * in flight (sched-9). */
bool cp_sched_busy(const cp_sched *s);

#endif
