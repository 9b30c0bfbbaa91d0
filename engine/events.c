/*
 * events: records of the ring. See events.h for why a push cannot fail.
 */
#include "engine/events.h"
#include "base/mem.h"

int cp_events_finish_records(const cp_task *t)
{
    return t->r->max_tokens == 0 ? t->r->n : 1;
}

int cp_events_room(const cp_task *t)
{
    const cp_ring *ring = &t->r->ring;
    if (CP_PLANTED(111))
        return 1 << 20;
    return (int)(ring->cap - cp_ring_count(ring)) - t->reserved - 1 - cp_events_finish_records(t);
}

void cp_events_news(cp_sched *s, cp_task *t)
{
    if (t->has_news)
        return;
    t->has_news = true;
    t->news_next = s->news;
    s->news = t;
}

static void push(cp_sched *s, cp_task *t, const cp_event *ev)
{
    CP_ASSERT(!t->ended && "sched-8");
    CP_ASSERT(cp_ring_push(&t->r->ring, ev) && "sched-11");
    cp_events_news(s, t);
}

static void fill_top(cp_event *ev, const cp_sample_out *res)
{
    ev->logprob = res->logprob;
    ev->n_top = res->n_top;
    for (int i = 0; i < res->n_top && i < CP_MAX_TOP; i++) {
        ev->top[i].id = res->top[i].id;
        ev->top[i].logprob = res->top[i].logprob;
    }
}

void cp_events_prompt(cp_sched *s, cp_task *t, const cp_sample_out *res)
{
    cp_event ev = {.type = CP_EV_PROMPT, .id = res->id, .pos = t->n_scored};
    fill_top(&ev, res);
    push(s, t, &ev);
}

void cp_events_token(cp_sched *s, const cp_seq *q, const cp_sample_out *res)
{
    cp_event ev = {.type = CP_EV_TOKEN,
                   .choice = (uint16_t)q->choice,
                   .id = res->id,
                   .pos = q->n_known - q->n_prompt};
    if (q->task->r->sampling.n_top >= 0)
        fill_top(&ev, res);
    push(s, q->task, &ev);
}

void cp_events_finish(cp_sched *s, cp_task *t, int choice, cp_finish reason)
{
    cp_event ev = {.type = CP_EV_FINISH,
                   .reason = (uint8_t)reason,
                   .choice = (uint16_t)choice,
                   .n_cached = t->n_cached > 0 ? t->n_cached : 0};
    push(s, t, &ev);
}

void cp_events_error(cp_sched *s, cp_task *t, cp_code code)
{
    cp_event ev = {.type = CP_EV_ERROR, .code = (int32_t)code, .n_cached = t->n_cached};
    push(s, t, &ev);
}

void cp_events_end(cp_sched *s, cp_task *t)
{
    cp_event ev = {.type = CP_EV_END};
    push(s, t, &ev);
}
