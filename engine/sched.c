/*
 * sched: the transaction of one step, over everything below it.
 *
 * A plan gives every decoding sequence its row, then prompts their chunks, then admits; where
 * nothing decodes, prompts take the rows that are left. Who needs pages takes them from the
 * youngest (or from one whose client does not read); the oldest can therefore always go on, and if
 * it cannot with the whole pool to itself, its request fails: no plan ever waits for a page that
 * nobody will give back.
 */
#include "engine/sched.h"
#include "base/mem.h"
#include "engine/admit.h"
#include "engine/engine_metrics.h"
#include "engine/events.h"
#include "engine/goal.h"
#include "engine/grant.h"
#include "engine/sampler.h"
#include "engine/seqs.h"
#include "engine/tasks.h"

#include <stdlib.h>
#include <string.h>

/* ---- open, close ---- */

static bool alloc_seqs(cp_sched *s)
{
    size_t n = (size_t)s->cfg.max_seqs;
    s->seqs = calloc(n, sizeof(*s->seqs));
    s->run = calloc(n, sizeof(cp_seq *));
    s->plan = calloc(n, sizeof(cp_seq *));
    s->order = calloc(n, sizeof(cp_seq *));
    s->takes = calloc(n, sizeof(*s->takes));
    if (!s->seqs || !s->run || !s->plan || !s->order || !s->takes)
        return false;
    for (int k = 0; k < s->depth; k++) {
        s->flights[k].parts = calloc(n, sizeof(cp_seq_step));
        if (!s->flights[k].parts)
            return false;
    }
    for (int i = 0; i < s->cfg.max_seqs; i++) {
        s->seqs[i].slot = i;
        s->seqs[i].kv = -1;
        s->seqs[i].tokens = calloc((size_t)s->cfg.ctx, sizeof(int32_t));
        if (!s->seqs[i].tokens)
            return false;
    }
    return true;
}

cp_code cp_sched_open(cp_sched **out, const cp_sched_config *cfg, cp_err *err)
{
    if (cfg->ctx < 1 || cfg->max_seqs < 1 || cfg->prefill_chunk < 1 || cfg->max_tasks < 1 ||
        cfg->max_out < 1)
        return cp_fail(err, CP_INVALID_VALUE,
                       "scheduler: ctx %d, max_seqs %d, prefill_chunk %d must be >= 1", cfg->ctx,
                       cfg->max_seqs, cfg->prefill_chunk);
    CP_ASSERT(!cp_kv_has_state(cfg->kv) ||
              (cfg->checkpoint_every > 0 && cfg->checkpoint_every % cfg->page_positions == 0));
    cp_sched *s = cp_xcalloc(1, sizeof(*s));
    s->cfg = *cfg;
    s->kv = cfg->kv;
    s->depth = cp_kv_depth(s->kv);
    s->n_free_slots = cfg->max_seqs;
    s->waiting.prev = s->waiting.next = &s->waiting;
    s->all.prev = s->all.next = &s->all;
    s->tasks = calloc((size_t)cfg->max_tasks, sizeof(*s->tasks));
    if (!s->tasks || !alloc_seqs(s)) {
        cp_sched_close(s);
        return cp_fail(err, CP_NO_MEMORY, "no memory for %d sequences of %d positions",
                       cfg->max_seqs, cfg->ctx);
    }
    for (int i = cfg->max_tasks; i-- > 0;) {
        s->tasks[i].next = s->free_tasks;
        s->free_tasks = &s->tasks[i];
    }
    *out = s;
    return CP_OK;
}

void cp_sched_close(cp_sched *s)
{
    if (!s)
        return;
    CP_ASSERT(s->n_tasks == 0);
    for (int k = 0; k < CP_KV_MAX_DEPTH; k++)
        free(s->flights[k].parts);
    for (int i = 0; s->seqs && i < s->cfg.max_seqs; i++)
        free(s->seqs[i].tokens);
    free(s->seqs);
    free(s->run);
    free(s->plan);
    free(s->order);
    free(s->takes);
    free(s->tasks);
    free(s);
}

/* ---- cancel flags and deadlines ---- */

void cp_sched_sweep(cp_sched *s, int64_t now_ns)
{
    s->now_ns = now_ns;
    for (cp_task *t = s->all.next, *next; t != &s->all; t = next) {
        next = t->next;
        if (t->ended)
            continue;
        /* relaxed: the flag carries no data, and the next step reads it again */
        if (atomic_load_explicit(&t->r->cancel, memory_order_relaxed)) {
            cp_task_cancel(s, t);
        } else if (t->r->deadline_ns && now_ns >= t->r->deadline_ns) {
            s->stats.cancelled += (uint64_t)(t->r->n - t->n_finished);
            if (CP_PLANTED(122))
                s->stats.finished_cancelled += (uint64_t)(t->r->n - t->n_finished);
            cp_task_fail(s, t, CP_DEADLINE); /* an error, counted there */
        }
    }
}

int64_t cp_sched_deadline(const cp_sched *s)
{
    int64_t earliest = 0;
    for (const cp_task *t = s->all.next; t != &s->all; t = t->next) {
        int64_t deadline = t->ended ? 0 : t->r->deadline_ns;
        if (deadline && (earliest == 0 || deadline < earliest))
            earliest = deadline;
    }
    return earliest;
}

/* ---- the plan ---- */

static void plan_begin(cp_sched *s)
{
    s->rows_left = 0;
    s->outs_left = s->cfg.max_out;
    s->preempted_now = false;
    s->refused = NULL;
    s->n_deferred = 0;
    s->n_plan = s->plan_rows = s->plan_outs = 0;
}

static void fork_all(cp_sched *s)
{
    memcpy(s->order, s->run, sizeof(cp_seq *) * (size_t)s->n_run);
    for (int i = 0, n = s->n_run; i < n; i++)
        cp_seq_fork(s, s->order[i]);
}

/* A ring that is full but for what steps in flight may need says nothing about its reader. */
static void mark_blocked(cp_sched *s)
{
    for (int i = 0; i < s->n_run; i++) {
        cp_seq *q = s->run[i];
        q->blocked = cp_seq_out_first(q) <= q->n_done && cp_events_room(q->task) < 1 &&
                     q->task->reserved == 0;
    }
}

/* What the caller has time for, but a row for each that has one to go, and one for prompts. */
static int rows_to_give(const cp_sched *s, int row_budget)
{
    int least = 1;
    for (int i = 0; i < s->n_run; i++)
        least += !s->run[i]->blocked && cp_seq_one_to_go(s->run[i]);
    if (least > s->cfg.max_seqs) /* all of them decode: there is no prompt */
        least = s->cfg.max_seqs;
    return row_budget < least && !CP_PLANTED(124) ? least : row_budget;
}

/* Rows are final now: who has some is in the plan, and takes a slot for the checkpoint that its
 * last row leaves. (Earlier, newcomers would find fewer slots.) */
static void plan_end(cp_sched *s)
{
    for (int i = 0; i < s->n_run; i++) {
        cp_seq *q = s->run[i];
        int end = q->n_done + q->rows;
        if (q->rows == 0)
            continue;
        if (cp_seq_wants_checkpoint(s, q, end))
            cp_kv_checkpoint(s->kv, q->kv, end, cp_seq_checkpoint_lasts(s, q, end));
        if (q->n_spec > 0)
            q->n_spec = q->rows - 1; /* the others would come too late */
        q->out0 = s->plan_outs;
        s->plan[s->n_plan++] = q;
        s->plan_rows += q->rows;
        s->plan_outs += q->outs;
    }
    if (s->plan_rows > 0) {
        s->stats.steps++;
        s->stats.rows += (uint64_t)s->plan_rows;
    }
}

int cp_sched_plan(cp_sched *s, int row_budget)
{
    CP_ASSERT(row_budget >= 1);
    plan_begin(s);
    fork_all(s);
    mark_blocked(s);
    int rows = s->rows_left = rows_to_give(s, row_budget);
    cp_grant_pass(s, true);
    cp_grant_pass(s, false);
    if (!s->preempted_now || s->n_run == 0)
        cp_admit(s);
    s->spare = (int64_t)cp_kv_available(s->kv) - (int64_t)s->outstanding;
    if (cp_grant_decodes(s))
        cp_grant_drafts(s);
    else
        cp_grant_rest(s);
    s->spare_states = cp_kv_states_available(s->kv);
    plan_end(s);
    CP_ASSERT(s->plan_rows + s->rows_left == rows && s->rows_left >= 0 && "sched-2");
    CP_ASSERT(s->plan_outs + s->outs_left == s->cfg.max_out && s->outs_left >= 0 && "sched-2");
    if (CP_PLANTED(113) && s->cfg.queue && s->arrivals % 16 == 0)
        atomic_fetch_sub(&s->cfg.queue->requests, 1);
    return s->plan_rows;
}

bool cp_sched_busy(const cp_sched *s)
{
    return s->n_run > 0 || s->n_waiting > 0;
}

/* ---- results ---- */

static void append(cp_sched *s, cp_seq *q, const cp_sample_out *res)
{
    CP_ASSERT(q->n_known < s->cfg.ctx && "sched-1");
    cp_events_token(s, q, res);
    q->tokens[q->n_known++] = res->id;
    cp_metrics_token(s, q);
    q->last_ns = s->now_ns;
    if (!q->first_ns)
        q->first_ns = s->now_ns;
    if (!q->task->first_ns)
        q->task->first_ns = s->now_ns;
}

/* An output row of q; false: q is gone. */
static bool commit_row(cp_sched *s, cp_seq *q, const cp_sample_out *res, int pos)
{
    cp_task *t = q->task;
    if (!res->finite) {
        s->stats.corrupted++;
        cp_task_fail(s, t, CP_MODEL_FAILED);
        return false;
    }
    if (pos + 1 < q->n_prompt) {
        cp_events_prompt(s, t, res);
        t->n_scored++;
        return true;
    }
    s->stats.generated++; /* one that stops was sampled, too, and is not shown */
    t->n_generated++;
    if (++q->n_generated > t->n_longest)
        t->n_longest = q->n_generated;
    if (cp_sample_stops(q, res->id)) {
        cp_task_finish_seq(s, q, CP_FINISH_STOP);
        return false;
    }
    append(s, q, res);
    if (q->n_known - q->n_prompt >= t->r->max_tokens || q->n_known >= s->cfg.ctx) {
        cp_task_finish_seq(s, q, CP_FINISH_LENGTH);
        return false;
    }
    return true;
}

/* How many rows of the part's outputs are to be used: those of drafts up to the first that differs
 * from the sample before it. */
static int judge(const cp_seq_step *part, const cp_sample_out *results)
{
    const int32_t *drafts = part->seq->tokens + part->seq->n_known;
    int right = 0;
    while (right < part->n_spec && results[part->out0 + right].finite &&
           (results[part->out0 + right].id == drafts[right] || CP_PLANTED(128)))
        right++;
    return part->outs - part->n_spec + right;
}

/* The positions of the part's rows stay, but for those of drafts that were not right. */
static void keep_rows(cp_sched *s, cp_seq *q, int end, int n_keep)
{
    if (n_keep < end) {
        bool truncated = cp_kv_truncate(s->kv, q->kv, n_keep);
        CP_ASSERT(truncated && q->n_done == end && "sched-28");
        q->n_done = n_keep;
    }
    cp_kv_commit(s->kv, q->kv, q->tokens, n_keep);
}

static void commit_part(cp_sched *s, const cp_seq_step *part, const cp_sample_out *results)
{
    cp_seq *q = part->seq;
    int end = part->pos0 + part->rows, outs = judge(part, results);
    s->stats.drafted += (uint64_t)part->n_spec;
    s->stats.accepted += (uint64_t)(part->n_spec - (part->outs - outs));
    keep_rows(s, q, end, end - (part->outs - outs));
    q->n_spec = 0;
    for (int k = 0; k < outs; k++) {
        if (!commit_row(s, q, &results[part->out0 + k], end - part->outs + k))
            return;
    }
    if (q->task->r->max_tokens == 0 && end >= cp_seq_goal(q))
        cp_task_finish_all(s, q->task, q);
    else
        cp_seq_count_outstanding(s, q);
}

static void plan_over(cp_sched *s)
{
    s->n_plan = s->plan_rows = s->plan_outs = 0;
}

void cp_sched_sent(cp_sched *s)
{
    CP_ASSERT(s->n_flights < s->depth && s->n_plan > 0);
    struct cp_flight *f = &s->flights[s->n_flights++];
    f->n_parts = s->n_plan;
    cp_kv_step_sent(s->kv);
    for (int i = 0; i < s->n_plan; i++) {
        cp_seq *q = s->plan[i];
        s->stats.pending += q->n_pending > 0;
        f->parts[i] = cp_seq_sent(q);
        cp_kv_advance(s->kv, q->kv, f->parts[i].pos0 + f->parts[i].rows);
    }
    if (s->cfg.in_order)
        cp_kv_step_done(s->kv);
    plan_over(s);
}

/* The oldest step in flight is over. */
static void flight_over(cp_sched *s)
{
    struct cp_flight first = s->flights[0];
    memmove(s->flights, s->flights + 1, sizeof(first) * (size_t)--s->n_flights);
    s->flights[s->n_flights].parts = first.parts;
}

void cp_sched_commit(cp_sched *s, const cp_sample_out *results, int64_t now_ns)
{
    s->now_ns = now_ns;
    if (s->n_plan > 0)
        cp_sched_sent(s);
    CP_ASSERT(s->n_flights > 0);
    if (!s->cfg.in_order)
        cp_kv_step_done(s->kv);
    struct cp_flight *f = &s->flights[0];
    for (int i = 0; i < f->n_parts; i++) {
        cp_seq_step part = f->parts[i];
        if (!part.seq) {
            s->stats.discarded++;
            continue;
        }
        CP_ASSERT(part.seq->state == CP_SEQ_RUNNING && "sched-27");
        cp_seq_landed(&part);
        f->parts[i].seq = NULL;
        commit_part(s, &part, results);
    }
    flight_over(s);
}

void cp_sched_fail_plan(cp_sched *s, cp_code code)
{
    struct cp_flight *f = &s->flights[0];
    if (s->n_plan > 0) {
        for (int i = 0; i < s->n_plan; i++) {
            if (s->plan[i]->state == CP_SEQ_RUNNING && !s->plan[i]->task->ended)
                cp_task_fail(s, s->plan[i]->task, code);
        }
        plan_over(s);
        return;
    }
    CP_ASSERT(s->n_flights > 0);
    if (!s->cfg.in_order)
        cp_kv_step_done(s->kv);
    for (int i = 0; i < f->n_parts; i++) {
        if (f->parts[i].seq) /* it and its other choices disown their parts */
            cp_task_fail(s, f->parts[i].seq->task, code);
    }
    flight_over(s);
}
