/*
 * tasks: see tasks.h. A task leaves scheduling at once when it ends; its memory goes back to the
 * pool when the flush after that has announced it.
 */
#include "engine/tasks.h"
#include "base/mem.h"
#include "engine/engine_metrics.h"
#include "engine/events.h"
#include "engine/sampler.h"
#include "engine/seqs.h"

/* ---- the end ---- */

/* The task is over: no sequence and no waiting entry is left of it. */
static void end(cp_sched *s, cp_task *t)
{
    CP_ASSERT(!t->ended && "sched-8");
    if (t->waiting) {
        cp_wait_remove(s, &t->wait);
        t->waiting = false;
    }
    if (t->n_cached < 0 && s->cfg.queue) {
        atomic_fetch_sub(&s->cfg.queue->requests, 1);
        atomic_fetch_sub(&s->cfg.queue->tokens, t->r->n_prompt);
    }
    cp_metrics_ended(s, t);
    t->ended = true;
    cp_events_news(s, t);
}

static void end_well(cp_sched *s, cp_task *t)
{
    cp_events_end(s, t);
    end(s, t);
}

static bool has_finished(const cp_task *t, int choice)
{
    return t->finished[choice / 64] >> (choice % 64) & 1;
}

static void finish_choice(cp_sched *s, cp_task *t, int choice, cp_finish reason)
{
    cp_events_finish(s, t, choice, reason);
    CP_ASSERT(!has_finished(t, choice) && "sched-8");
    t->finished[choice / 64] |= UINT64_C(1) << (choice % 64);
    t->n_finished++;
    s->stats.finished_stop += reason == CP_FINISH_STOP;
    s->stats.finished_length += reason == CP_FINISH_LENGTH;
}

void cp_task_finish_seq(cp_sched *s, cp_seq *q, cp_finish reason)
{
    cp_task *t = q->task;
    finish_choice(s, t, q->choice, reason);
    cp_metrics_choice(s, q);
    cp_seq_free(s, q);
    if (t->n_finished == t->r->n && !(CP_PLANTED(108) && t->r->n > 1))
        end_well(s, t);
}

void cp_task_finish_all(cp_sched *s, cp_task *t, cp_seq *q)
{
    if (q)
        cp_seq_free(s, q);
    for (int c = 0; c < t->r->n; c++)
        finish_choice(s, t, c, CP_FINISH_LENGTH);
    end_well(s, t);
}

/* Slots and pages of all its sequences go back. */
static void free_seqs(cp_sched *s, const cp_task *t)
{
    for (int i = 0; i < s->cfg.max_seqs; i++) {
        if (s->seqs[i].state != CP_SEQ_FREE && s->seqs[i].task == t)
            cp_seq_free(s, &s->seqs[i]);
    }
}

void cp_task_cancel(cp_sched *s, cp_task *t)
{
    const cp_ring *ring = &t->r->ring;
    if (!(CP_PLANTED(110) && t->n_generated > 0))
        free_seqs(s, t);
    s->stats.cancelled += (uint64_t)(t->r->n - t->n_finished);
    s->stats.finished_cancelled += (uint64_t)(t->r->n - t->n_finished);
    for (int c = 0; c < t->r->n && cp_ring_count(ring) + 1 < ring->cap; c++) {
        if (!has_finished(t, c))
            cp_events_finish(s, t, c, CP_FINISH_CANCELLED);
    }
    end_well(s, t);
}

void cp_task_fail(cp_sched *s, cp_task *t, cp_code code)
{
    free_seqs(s, t);
    s->stats.finished_error += (uint64_t)(t->r->n - t->n_finished);
    cp_events_error(s, t, code);
    end(s, t);
}

void cp_tasks_fail_all(cp_sched *s, cp_code code)
{
    for (cp_task *t = s->all.next; t != &s->all; t = t->next) {
        if (!t->ended)
            cp_task_fail(s, t, code);
    }
}

/* ---- the pool ---- */

bool cp_tasks_full(const cp_sched *s)
{
    return !s->free_tasks;
}

bool cp_tasks_submit(cp_sched *s, cp_request *r, int64_t now_ns)
{
    cp_task *t = s->free_tasks;
    if (!t)
        return false;
    s->free_tasks = t->next;
    *t = (cp_task){.r = r, .n_cached = -1, .n_scored = 1, .submit_ns = now_ns};
    t->arrival = ++s->arrivals;
    t->prev = s->all.prev;
    t->next = &s->all;
    t->prev->next = t->next->prev = t;
    s->n_tasks++;
    r->state = t;
    cp_sample_ban(t);
    t->wait.task = t;
    cp_wait_for_choices(s, t);
    return true;
}

static void put_back(cp_sched *s, cp_task *t)
{
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->next = s->free_tasks;
    s->free_tasks = t;
    s->n_tasks--;
}

void cp_request_drop(cp_request *r)
{
    /* release: what this side wrote; acquire by the last: what the other side wrote */
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1 && r->free_fn)
        r->free_fn(r);
}

int cp_tasks_flush(cp_sched *s, cp_mpsc *ready)
{
    int n = 0;
    for (cp_task *t = s->news, *next; t; t = next, n++) {
        next = t->news_next;
        t->has_news = false;
        cp_request *r = t->r;
        bool ended = t->ended;
        if (ready)
            cp_request_announce(r, ready, ended); /* ended: r may be gone now */
        if (!ended)
            continue;
        put_back(s, t);
        if (!ready)
            cp_request_drop(r);
    }
    s->news = NULL;
    return n;
}
