/*
 * seqs: see seqs.h. Costs: a slot is searched for, lists are walked from their young end.
 */
#include "engine/seqs.h"
#include "base/mem.h"
#include "engine/events.h"
#include "engine/goal.h"

#include <string.h>

/* ---- the waiting list ---- */

void cp_wait_insert(cp_sched *s, cp_wait *w)
{
    cp_wait *at = s->waiting.prev; /* the new are young: search from the end */
    while (at != &s->waiting && at->order > w->order)
        at = at->prev;
    w->prev = at;
    w->next = at->next;
    at->next->prev = w;
    at->next = w;
    w->needs = -1;
    w->target = -1;
    s->n_waiting++;
    s->n_preempted += w->seq != NULL;
}

void cp_wait_remove(cp_sched *s, cp_wait *w)
{
    w->prev->next = w->next;
    w->next->prev = w->prev;
    s->n_waiting--;
    s->n_preempted -= w->seq != NULL;
}

void cp_wait_for_choices(cp_sched *s, cp_task *t)
{
    t->wait.order = t->arrival << 8 | (uint64_t)t->next_choice;
    t->waiting = true;
    cp_wait_insert(s, &t->wait);
}

/* ---- what prompts will still take ---- */

uint32_t cp_seqs_prompt_pages(const cp_sched *s, int n_known, uint32_t held)
{
    int n = n_known + 1 < s->cfg.ctx ? n_known + 1 : s->cfg.ctx;
    uint32_t all = cp_kv_most(s->kv, n, s->cfg.prefill_chunk);
    return all > held ? all - held : 0;
}

void cp_seq_count_outstanding(cp_sched *s, cp_seq *q)
{
    uint32_t now = 0;
    if (q->n_done + q->rows < q->n_known)
        now = cp_seqs_prompt_pages(s, q->n_known, cp_kv_held(s->kv, q->kv));
    s->outstanding = s->outstanding - q->outstanding + now;
    q->outstanding = now;
}

/* ---- rows of the plan at hand ---- */

/* Ring records that q's rows in this plan may need. */
static int records(const cp_seq *q)
{
    return q->outs > 0 ? q->outs + cp_events_finish_records(q->task) : 0;
}

static void reserve(cp_seq *q, int records)
{
    q->reserved += records;
    q->task->reserved += records;
}

void cp_seq_give_rows(cp_sched *s, cp_seq *q, int rows)
{
    int first = cp_seq_out_first(q);
    q->rows = rows;
    q->outs = q->n_done + rows > first ? q->n_done + rows - first : 0;
    s->rows_left -= q->rows;
    s->outs_left -= q->outs;
    reserve(q, records(q));
    cp_seq_count_outstanding(s, q);
}

void cp_seq_withdraw_rows(cp_sched *s, cp_seq *q)
{
    if (q->rows == 0)
        return;
    s->rows_left += q->rows;
    s->outs_left += q->outs;
    reserve(q, -records(q));
    q->rows = q->outs = 0;
}

cp_seq_step cp_seq_sent(cp_seq *q)
{
    int end = q->n_done + q->rows, all = q->n_known + q->n_pending + q->n_spec;
    cp_seq_step part = {.seq = q,
                        .pos0 = q->n_done,
                        .rows = q->rows,
                        .outs = q->outs,
                        .out0 = q->out0,
                        .n_spec = q->n_spec,
                        .samples = q->outs > 0 && end == all && q->n_spec == 0,
                        .reserved = records(q)};
    q->n_done = CP_PLANTED(101) && end % 7 == 0 && end < all ? end + 1 : end;
    if (part.samples)
        q->tokens[q->n_known + q->n_pending++] = CP_TOK_PREV;
    q->rows = q->outs = 0;
    q->in_flight++;
    return part;
}

void cp_seq_landed(cp_seq_step *part)
{
    cp_seq *q = part->seq;
    q->in_flight--;
    q->n_pending -= part->samples && !CP_PLANTED(126);
    reserve(q, -part->reserved);
}

int cp_seq_draft(cp_sched *s, cp_seq *q, const int32_t *ids, int n)
{
    int wanted = cp_seq_drafts_wanted(s, q);
    q->n_spec = n < wanted ? n : wanted;
    memcpy(q->tokens + q->n_known, ids, sizeof(*ids) * (size_t)q->n_spec);
    return q->n_spec;
}

/* ---- slots and the run list ---- */

cp_seq *cp_seq_take(cp_sched *s, cp_task *t, int choice)
{
    cp_seq *q = s->seqs;
    while (q->state != CP_SEQ_FREE)
        q++;
    CP_ASSERT(q < s->seqs + s->cfg.max_seqs && "sched-16");
    s->n_free_slots--;
    q->state = CP_SEQ_RUNNING;
    q->task = t;
    q->choice = choice;
    q->n_prompt = q->n_known = t->r->n_prompt;
    q->n_pending = q->n_spec = q->n_done = q->rows = q->outs = 0;
    q->outstanding = 0;
    q->forked = q->blocked = false;
    q->first_ns = q->last_ns = 0;
    q->n_generated = 0;
    memcpy(q->tokens, t->r->prompt, sizeof(*q->tokens) * (size_t)q->n_prompt);
    q->wait = (cp_wait){.order = t->arrival << 8 | (uint64_t)choice, .task = t, .seq = q};
    return q;
}

void cp_seq_start(cp_sched *s, cp_seq *q)
{
    int i = s->n_run++;
    q->state = CP_SEQ_RUNNING;
    q->gen++;
    while (i > 0 && s->run[i - 1]->wait.order > q->wait.order && !CP_PLANTED(105)) {
        s->run[i] = s->run[i - 1];
        i--;
    }
    s->run[i] = q;
    cp_seq_count_outstanding(s, q);
}

static void run_remove(cp_sched *s, cp_seq *q)
{
    int i = 0;
    while (s->run[i] != q)
        i++;
    memmove(s->run + i, s->run + i + 1, sizeof(cp_seq *) * (size_t)(s->n_run - i - 1));
    s->n_run--;
}

/* What steps in flight do for q is nobody's any more. */
static void disown(cp_sched *s, cp_seq *q)
{
    for (int k = 0; k < s->n_flights && q->in_flight > 0; k++) {
        for (int i = 0; i < s->flights[k].n_parts; i++) {
            cp_seq_step *part = &s->flights[k].parts[i];
            if (part->seq != q)
                continue;
            cp_seq_landed(part);
            if (!CP_PLANTED(127))
                part->seq = NULL;
        }
    }
}

/* Leaves the run list; its pages go back. */
static void stop(cp_sched *s, cp_seq *q)
{
    cp_seq_withdraw_rows(s, q);
    disown(s, q);
    q->n_spec = 0;
    if (!CP_PLANTED(120))
        s->outstanding -= q->outstanding;
    q->outstanding = 0;
    cp_kv_seq_close(s->kv, q->kv);
    q->kv = -1;
    run_remove(s, q);
}

void cp_seq_free(cp_sched *s, cp_seq *q)
{
    CP_ASSERT(q->state != CP_SEQ_FREE && "sched-16");
    if (q->state == CP_SEQ_RUNNING)
        stop(s, q);
    else
        cp_wait_remove(s, &q->wait);
    q->state = CP_SEQ_FREE;
    q->rows = q->outs = 0;
    if (!(CP_PLANTED(116) && q->choice > 0))
        s->n_free_slots++;
}

void cp_seq_preempt(cp_sched *s, cp_seq *q)
{
    stop(s, q);
    q->state = CP_SEQ_PREEMPTED;
    q->n_done = 0;
    q->blocked = false;
    if (CP_PLANTED(106) && q->n_known > q->n_prompt)
        q->n_known--;
    cp_wait_insert(s, &q->wait);
    s->stats.preemptions++;
    s->preempted_now = true;
}
