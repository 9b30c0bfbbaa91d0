/*
 * seqs: slots, the run list and the waiting list; who enters, who leaves, what rows it has.
 *
 * Order is age: both lists are kept oldest first. What running prompts will still take in pages is
 * counted here as sequences come, get rows and go (sched-20).
 */
#ifndef CP_ENGINE_SEQS_H
#define CP_ENGINE_SEQS_H

#include "engine/state.h"

void cp_wait_insert(cp_sched *s, cp_wait *w);
void cp_wait_remove(cp_sched *s, cp_wait *w);
/* The choices of t that have not started wait for slots, as old as the first of them. */
void cp_wait_for_choices(cp_sched *s, cp_task *t);

/* A free slot for a choice of t: its prompt is copied, it runs once it has been started. */
cp_seq *cp_seq_take(cp_sched *s, cp_task *t, int choice);
void cp_seq_start(cp_sched *s, cp_seq *q);   /* into the run list */
void cp_seq_free(cp_sched *s, cp_seq *q);    /* pages, slot and list entry go */
void cp_seq_preempt(cp_sched *s, cp_seq *q); /* pages go; it waits, and keeps its tokens */

/* Drafts for q, in place of those it has: ids[0, n) are guessed to come after its known tokens.
 * Takes as many as it wants (cp_seq_drafts_wanted) and returns their number. Its next rows judge
 * them: what equals the sample is kept, and does not differ from what would have come without. */
int cp_seq_draft(cp_sched *s, cp_seq *q, const int32_t *ids, int n);

/* Rows of the plan at hand; their pages are there. */
void cp_seq_give_rows(cp_sched *s, cp_seq *q, int rows);
void cp_seq_withdraw_rows(cp_sched *s, cp_seq *q);
/* The rows that q has are sent: they count as done, and what the last of them samples as pending.
 */
cp_seq_step cp_seq_sent(cp_seq *q);
/* The step that part is of is over, or what it does for its sequence is not wanted any more. */
void cp_seq_landed(cp_seq_step *part);

/* Pages that a sequence of n_known tokens, holding `held`, will still take for its prompt. */
uint32_t cp_seqs_prompt_pages(const cp_sched *s, int n_known, uint32_t held);
/* Count again what q's prompt will still take: after whatever moved its tokens, rows or pages. */
void cp_seq_count_outstanding(cp_sched *s, cp_seq *q);

#endif
