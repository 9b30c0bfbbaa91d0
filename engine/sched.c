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
    cp_sched *s = cp_xcalloc(1, sizeof(*s));
    s->cfg = *cfg;
    s->kv = cfg->kv;
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
    s->n_plan = s->plan_rows = s->plan_outs = 0;
}

static void fork_all(cp_sched *s)
{
    memcpy(s->order, s->run, sizeof(cp_seq *) * (size_t)s->n_run);
    for (int i = 0, n = s->n_run; i < n; i++)
        cp_seq_fork(s, s->order[i]);
}

static void mark_blocked(cp_sched *s)
{
    for (int i = 0; i < s->n_run; i++)
        s->run[i]->task->reserved = 0;
    for (int i = 0; i < s->n_run; i++) {
        cp_seq *q = s->run[i];
        q->rows = q->outs = 0;
        q->blocked = cp_seq_out_first(q) <= q->n_done && cp_events_room(q->task) < 1;
    }
}

/* What the caller has time for, but a row for each that has one to go, and one for prompts. */
static int rows_to_give(const cp_sched *s, int row_budget)
{
    int least = 1;
    for (int i = 0; i < s->n_run; i++)
        least += !s->run[i]->blocked && cp_seq_goal(s->run[i]) - s->run[i]->n_done == 1;
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
            cp_kv_checkpoint(s->kv, q->kv, end);
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
    if (!cp_grant_decodes(s))
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
}

/* An output row of q; false: q is gone. */
static bool commit_row(cp_sched *s, cp_seq *q, const cp_sample_out *res, int pos)
{
    cp_task *t = q->task;
    if (!res->finite) {
        cp_task_fail(s, t, CP_MODEL_FAILED);
        return false;
    }
    if (pos + 1 < q->n_known) {
        cp_events_prompt(s, t, res);
        t->n_scored++;
        return true;
    }
    s->stats.generated++; /* one that stops was sampled, too, and is not shown */
    t->n_generated++;
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

static void commit_seq(cp_sched *s, cp_seq *q, const cp_sample_out *results)
{
    int rows = q->rows, outs = q->outs, end = q->n_done + rows;
    q->rows = q->outs = 0;
    cp_kv_advance(s->kv, q->kv, end);
    cp_kv_commit(s->kv, q->kv, q->tokens, end);
    q->n_done = CP_PLANTED(101) && end % 7 == 0 && end < q->n_known ? end + 1 : end;
    for (int k = 0; k < outs; k++) {
        if (!commit_row(s, q, &results[q->out0 + k], end - outs + k))
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

void cp_sched_commit(cp_sched *s, const cp_sample_out *results, int64_t now_ns)
{
    s->now_ns = now_ns;
    for (int i = 0; i < s->n_plan; i++) /* what was reserved is used now */
        s->plan[i]->task->reserved = 0;
    for (int i = 0; i < s->n_plan; i++) {
        cp_seq *q = s->plan[i];
        if (q->state == CP_SEQ_RUNNING && q->rows > 0) /* else its task ended by a row before */
            commit_seq(s, q, results);
    }
    plan_over(s);
}

void cp_sched_fail_plan(cp_sched *s, cp_code code)
{
    for (int i = 0; i < s->n_plan; i++) {
        if (s->plan[i]->state == CP_SEQ_RUNNING && !s->plan[i]->task->ended)
            cp_task_fail(s, s->plan[i]->task, code);
    }
    plan_over(s);
}
