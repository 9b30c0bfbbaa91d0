/*
 * requests: the scheduler's side of a cp_request: its life, its events, its end.
 *
 * Events go into the request's ring. One record is kept back for the last event (END or ERROR), and
 * nothing is scheduled unless the ring has room for all that the step can produce (sched-11), so a
 * push never fails. A request with news is put on the touched list; cp_sched_flush announces it and
 * lets go of what has ended.
 */
#include "base/mem.h"
#include "engine/sched.h"

#include <stdlib.h>
#include <string.h>

static void touch(cp_sched *s, cp_live *l)
{
    if (l->touched)
        return;
    l->touched = true;
    l->touch_next = s->touched;
    s->touched = l;
}

static void push(cp_sched *s, cp_live *l, const cp_event *ev)
{
    CP_ASSERT(!l->ended && "sched-8");
    CP_ASSERT(cp_ring_push(&l->r->ring, ev) && "sched-11");
    touch(s, l);
}

int cp_live_finish_records(const cp_live *l)
{
    return l->r->max_tokens == 0 ? l->r->n : 1;
}

int cp_live_room(const cp_live *l)
{
    const cp_ring *ring = &l->r->ring;
    if (CP_PLANTED(111))
        return 1 << 20;
    return (int)(ring->cap - cp_ring_count(ring)) - l->reserved - 1 - cp_live_finish_records(l);
}

/* ---- events ---- */

static void fill_top(cp_event *ev, const cp_sample_out *res)
{
    ev->logprob = res->logprob;
    ev->n_top = res->n_top;
    for (int i = 0; i < res->n_top && i < CP_MAX_TOP; i++) {
        ev->top[i].id = res->top[i].id;
        ev->top[i].logprob = res->top[i].logprob;
    }
}

void cp_live_prompt(cp_sched *s, cp_live *l, const cp_sample_out *res)
{
    cp_event ev = {.type = CP_EV_PROMPT, .id = res->id, .pos = l->n_scored};
    fill_top(&ev, res);
    push(s, l, &ev);
    l->n_scored++;
}

void cp_live_token(cp_sched *s, cp_seq *q, const cp_sample_out *res)
{
    cp_live *l = q->live;
    cp_event ev = {.type = CP_EV_TOKEN, .choice = (uint16_t)q->choice, .id = res->id};
    ev.pos = q->n_known - q->n_prompt;
    if (l->r->sampling.n_top >= 0)
        fill_top(&ev, res);
    CP_ASSERT(q->n_known < s->cfg.ctx && "sched-1");
    q->tokens[q->n_known++] = res->id;
    push(s, l, &ev);
    s->stats.generated++;
    l->n_generated++;
    cp_metrics_token(s, q);
}

/* The request is over: no sequence and no waiting entry is left of it. */
static void end(cp_sched *s, cp_live *l)
{
    CP_ASSERT(!l->ended && "sched-8");
    if (l->waiting) {
        cp_wait_remove(s, &l->wait);
        l->waiting = false;
    }
    if (l->n_cached < 0 && s->cfg.queue) {
        atomic_fetch_sub(&s->cfg.queue->requests, 1);
        atomic_fetch_sub(&s->cfg.queue->tokens, l->r->n_prompt);
    }
    cp_metrics_ended(s, l);
    l->ended = true;
    touch(s, l);
}

static void push_finish(cp_sched *s, cp_live *l, int choice, cp_finish reason)
{
    cp_event ev = {.type = CP_EV_FINISH,
                   .reason = (uint8_t)reason,
                   .choice = (uint16_t)choice,
                   .n_cached = l->n_cached > 0 ? l->n_cached : 0};
    push(s, l, &ev);
    CP_ASSERT(!(l->finished[choice / 64] >> (choice % 64) & 1) && "sched-8");
    l->finished[choice / 64] |= UINT64_C(1) << (choice % 64);
    l->n_finished++;
    if (reason == CP_FINISH_STOP) { /* its last token was sampled, too, and is not shown */
        s->stats.generated++;
        l->n_generated++;
    }
    s->stats.finished_stop += reason == CP_FINISH_STOP;
    s->stats.finished_length += reason == CP_FINISH_LENGTH;
}

static void push_end(cp_sched *s, cp_live *l)
{
    cp_event ev = {.type = CP_EV_END};
    push(s, l, &ev);
    end(s, l);
}

void cp_seq_finish(cp_sched *s, cp_seq *q, cp_finish reason)
{
    cp_live *l = q->live;
    push_finish(s, l, q->choice, reason);
    cp_seq_free(s, q);
    if (l->n_finished == l->r->n && !(CP_PLANTED(108) && l->r->n > 1))
        push_end(s, l);
}

void cp_live_finish_all(cp_sched *s, cp_live *l, cp_seq *q)
{
    if (q)
        cp_seq_free(s, q);
    for (int c = 0; c < l->r->n; c++)
        push_finish(s, l, c, CP_FINISH_LENGTH);
    push_end(s, l);
}

/* Slots and pages of all its sequences go back. */
static void free_seqs(cp_sched *s, cp_live *l)
{
    for (int i = 0; i < s->cfg.max_seqs; i++) {
        if (s->seqs[i].state != CP_SEQ_FREE && s->seqs[i].live == l)
            cp_seq_free(s, &s->seqs[i]);
    }
}

void cp_live_fail(cp_sched *s, cp_live *l, cp_code code)
{
    cp_event ev = {.type = CP_EV_ERROR, .code = (int32_t)code};
    free_seqs(s, l);
    s->stats.finished_error += (uint64_t)(l->r->n - l->n_finished);
    push(s, l, &ev);
    end(s, l);
}

/* The client wants no more: unfinished choices end as far as the ring has room to say so. */
static void cancel(cp_sched *s, cp_live *l)
{
    const cp_ring *ring = &l->r->ring;
    if (!(CP_PLANTED(110) && l->n_generated > 0))
        free_seqs(s, l);
    s->stats.cancelled += (uint64_t)(l->r->n - l->n_finished);
    s->stats.finished_cancelled += (uint64_t)(l->r->n - l->n_finished);
    for (int c = 0; c < l->r->n && cp_ring_count(ring) + 1 < ring->cap; c++) {
        cp_event ev = {.type = CP_EV_FINISH,
                       .reason = CP_FINISH_CANCELLED,
                       .choice = (uint16_t)c,
                       .n_cached = l->n_cached > 0 ? l->n_cached : 0};
        if (!(l->finished[c / 64] >> (c % 64) & 1))
            push(s, l, &ev);
    }
    push_end(s, l);
}

/* ---- life ---- */

bool cp_sched_submit(cp_sched *s, cp_request *r, int64_t now_ns)
{
    cp_live *l = s->free_lives;
    if (!l)
        return false;
    s->free_lives = l->next;
    *l = (cp_live){.r = r, .n_cached = -1, .n_scored = 1, .submit_ns = now_ns};
    l->arrival = ++s->arrivals;
    l->prev = s->all.prev;
    l->next = &s->all;
    l->prev->next = l->next->prev = l;
    s->n_lives++;
    r->state = l;
    l->wait = (cp_wait){.order = l->arrival << 8, .live = l, .needs = -1, .target = -1};
    l->waiting = true;
    cp_wait_insert(s, &l->wait);
    return true;
}

int64_t cp_sched_sweep(cp_sched *s, int64_t now_ns)
{
    int64_t earliest = 0;
    s->now_ns = now_ns;
    for (cp_live *l = s->all.next, *next; l != &s->all; l = next) {
        next = l->next;
        if (l->ended)
            continue;
        int64_t deadline = l->r->deadline_ns;
        /* relaxed: the flag carries no data, and the next step reads it again */
        if (atomic_load_explicit(&l->r->cancel, memory_order_relaxed)) {
            cancel(s, l);
        } else if (deadline && now_ns >= deadline) {
            s->stats.cancelled += (uint64_t)(l->r->n - l->n_finished);
            if (CP_PLANTED(122))
                s->stats.finished_cancelled += (uint64_t)(l->r->n - l->n_finished);
            cp_live_fail(s, l, CP_DEADLINE); /* an error, counted there */
        } else if (deadline && (earliest == 0 || deadline < earliest)) {
            earliest = deadline;
        }
    }
    return earliest;
}

void cp_sched_fail_all(cp_sched *s, cp_code code)
{
    for (cp_live *l = s->all.next; l != &s->all; l = l->next) {
        if (!l->ended)
            cp_live_fail(s, l, code);
    }
}

void cp_sched_fail_plan(cp_sched *s, cp_code code)
{
    for (int i = 0; i < s->n_plan; i++) {
        if (s->plan[i]->state == CP_SEQ_RUNNING && !s->plan[i]->live->ended)
            cp_live_fail(s, s->plan[i]->live, code);
    }
    s->n_plan = s->plan_rows = s->plan_outs = 0;
}

void cp_request_drop(cp_request *r)
{
    /* release: what this side wrote; acquire by the last: what the other side wrote */
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1 && r->free_fn)
        r->free_fn(r);
}

int cp_sched_flush(cp_sched *s, cp_mpsc *ready)
{
    int n = 0;
    for (cp_live *l = s->touched, *next; l; l = next, n++) {
        next = l->touch_next;
        l->touched = false;
        cp_request *r = l->r;
        bool ended = l->ended;
        if (ready)
            cp_request_announce(r, ready, ended); /* ended: r may be gone now */
        if (!ended)
            continue;
        l->prev->next = l->next;
        l->next->prev = l->prev;
        l->next = s->free_lives;
        s->free_lives = l;
        s->n_lives--;
        if (!ready)
            cp_request_drop(r);
    }
    s->touched = NULL;
    return n;
}
