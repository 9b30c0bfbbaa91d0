/* This file submits calls to the engine and turns its events into answers: see events.h. */
#include "server/events.h"

#include "base/clock.h"
#include "server/meter.h"
#include "server/reply.h"
#include "server/stream.h"

#include <string.h>

/* ---- what goes out ---- */

/* What is new of a choice goes to its API; `last`: it has ended. */
static void say(cp_part *p, int index, bool last)
{
    cp_call *c = p->call;
    cp_choice *ch = &c->choices[index];
    if (!c->streaming || (!last && ch->shown.n == 0))
        return;
    cp_buf *out = cp_call_stream(c);
    if (!out)
        return;
    if (ch->shown.n > 0) {
        const cp_said said = {.kind = CP_SAID_CONTENT, .text = ch->shown.p, .n = ch->shown.n};
        c->api->event(c, p, index, &said, out);
        cp_buf_clear(&ch->shown);
    }
    if (last)
        c->api->event(c, p, index, &(cp_said){.kind = CP_SAID_FINISH}, out);
    if (ch->records_at == ch->records.n) {
        cp_buf_clear(&ch->records);
        ch->records_at = 0;
    }
    if (out->failed) {
        c->account.refused = c->account.refused || cp_http_account(c->q)->refused;
        cp_err err;
        cp_call_fail(c, cp_call_no_memory(c, false, &err), &err);
    }
}

/* Every part has ended: what is left to say. */
static void complete(cp_call *c)
{
    if (cp_call_state_of(c) != CP_CALL_RUNNING)
        return;
    if (c->streaming) {
        cp_buf *out = cp_call_stream(c);
        if (!out)
            return;
        c->api->end(c, out);
        cp_http_stream_kick(c->q);
        cp_call_stream_end(c, false);
        return;
    }
    cp_buf b = {.account = &c->account};
    c->api->whole(c, &b);
    if (b.failed) {
        cp_buf_fini(&b);
        cp_err err;
        cp_call_error(c, 0, cp_call_no_memory(c, false, &err), &err);
        return;
    }
    cp_call_json(c, &b);
}

/* ---- what comes in ---- */

/* A text or a record did not fit: an answer without it would be wrong. */
static void check_kept(cp_part *p, const cp_choice *ch)
{
    if (!p->prompt_records.failed && (!ch || (!ch->shown.failed && !ch->records.failed)))
        return;
    cp_err err;
    cp_call_fail(p->call, cp_call_no_memory(p->call, false, &err), &err);
}

/* never_began: the engine has computed nothing for it. */
static void on_error(cp_part *p, int reported, bool never_began)
{
    cp_part_move(p, CP_PART_ENDED);
    cp_err err;
    cp_code code = reported > CP_OK && reported < CP_CODE_COUNT ? (cp_code)reported : CP_INTERNAL;
    const char *words = code == CP_DEADLINE          ? "the request's deadline has passed"
                        : code == CP_NO_MEMORY       ? "not enough memory for the sequence"
                        : code == CP_MODEL_FAILED    ? "the model has failed"
                        : code == CP_DEVICE_FAILED   ? "the device has failed"
                        : code == CP_OVERLOADED      ? "the server is shutting down"
                        : code == CP_MODEL_NOT_FOUND ? "the model was unloaded"
                                                     : "the request was ended by the engine";
    if (code == CP_DEADLINE && never_began)
        cp_call_count_rejected(p->call, CP_M_REJECTED_DEADLINE);
    cp_call_fail(p->call, cp_fail(&err, code, "%s", words), &err);
}

static void on_event(cp_part *p, const cp_event *ev)
{
    bool wanted = cp_call_wanted(p->call);
    int index = p->first + ev->choice;
    cp_choice *ch = NULL;
    if (ev->type == CP_EV_TOKEN || ev->type == CP_EV_FINISH) {
        CP_ASSERT(ev->choice < p->r.n);
        ch = &p->call->choices[index];
        wanted = wanted && ch->finish == CP_FINISH_NONE;
    }
    switch (ev->type) {
    case CP_EV_TOKEN:
        if (!wanted)
            break;
        cp_choice_token(p, ch, ev);
        check_kept(p, ch);
        say(p, index, ch->finish != CP_FINISH_NONE);
        break;
    case CP_EV_PROMPT:
        if (!wanted)
            break;
        cp_prompt_record(p, ev);
        check_kept(p, NULL);
        break;
    case CP_EV_FINISH:
        if (ev->n_cached > p->n_cached)
            p->n_cached = ev->n_cached;
        if (!wanted)
            break;
        cp_choice_end(p, ch, ev->reason == CP_FINISH_LENGTH ? CP_FINISH_LENGTH : CP_FINISH_STOP);
        ch->n_tokens += ev->reason == CP_FINISH_STOP; /* the end was sampled, too */
        check_kept(p, ch);
        say(p, index, true);
        break;
    case CP_EV_ERROR:
        on_error(p, ev->code, ev->n_cached < 0);
        break;
    default:
        cp_part_move(p, CP_PART_ENDED);
    }
}

bool cp_call_stalled(const cp_call *c)
{
    return c->streaming && cp_call_state_of(c) == CP_CALL_RUNNING &&
           cp_http_stream_pending(c->q) > CP_STREAM_MAX;
}

static void part_ended(cp_part *p)
{
    cp_call *c = p->call;
    cp_server *s = c->s;
    c->n_open--;
    if (c->n_open == 0) {
        cp_meter_end(c);
        complete(c);
    }
    s->engine.release(s->engine.self, &p->r); /* the loop's reference to the call is still there */
    cp_call_let_go(c);
}

static void drain_part(cp_part *p)
{
    cp_call *c = p->call;
    if (p->state != CP_PART_LIVE && p->state != CP_PART_CANCELLED)
        return;
    cp_event ev;
    memset(&ev, 0, sizeof(ev));
    bool any = false;
    while (p->state != CP_PART_ENDED && !cp_call_stalled(c) && cp_ring_pop(&p->r.ring, &ev)) {
        on_event(p, &ev);
        any = true;
    }
    if (any) {
        c->last_write = cp_now_ns();
        c->first_ns = c->first_ns ? c->first_ns : c->last_write;
    }
    /* Every choice has met its stop string: the rest is not wanted. */
    if (p->state == CP_PART_LIVE && p->n_closed == p->r.n) {
        cp_part_move(p, CP_PART_CANCELLED);
        c->s->engine.cancel(c->s->engine.self, &p->r);
    }
    if (any)
        cp_call_kick(c);
    if (p->state == CP_PART_ENDED)
        part_ended(p);
}

void cp_call_ready(cp_request *r)
{
    cp_part *p = r->user;
    const cp_engine_api *e = &p->call->s->engine;
    bool last = cp_request_popped(r); /* before the ring is read */
    drain_part(p);
    if (last)
        e->release(e->self, r);
}

void cp_call_drain(cp_call *c)
{
    /* A part's end may free the call; the loop's reference is held meanwhile. */
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    for (int i = 0; i < c->n_parts; i++)
        drain_part(&c->parts[i]);
    cp_call_unref(c);
}

/* ---- submitting ---- */

/* Nothing to compute: the prompt is echoed, no token and no log-probability is asked for. */
static bool is_echo_only(const cp_part *p)
{
    return p->r.max_tokens == 0 && p->r.n_prompt_top < 0;
}

static void echo(cp_part *p)
{
    cp_part_move(p, CP_PART_ENDED);
    for (int k = 0; k < p->r.n; k++) {
        cp_choice_end(p, &p->call->choices[p->first + k], CP_FINISH_LENGTH);
        say(p, p->first + k, true);
    }
}

static cp_code submit_part(cp_part *p, cp_err *err)
{
    cp_call *c = p->call;
    const cp_engine_api *e = &c->s->engine;
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    cp_part_move(p, CP_PART_LIVE);
    c->n_open++;
    cp_code code = e->submit(e->self, &p->r, err);
    if (code == CP_OK)
        return code;
    cp_part_move(p, CP_PART_ENDED);
    c->n_open--;
    cp_call_unref(c);
    return code;
}

void cp_call_submit(cp_call *c)
{
    cp_call_move(c, CP_CALL_RUNNING);
    cp_call_fresh_id(c->api->id_prefix, c->id, sizeof(c->id));
    c->created = cp_wall_sec();
    c->last_write = c->submit_ns = cp_now_ns();
    cp_meter_begin(c);
    c->api->begin(c);
    for (int i = 0; i < c->n_parts; i++) {
        cp_part *p = &c->parts[i];
        cp_err err;
        cp_code code = CP_OK;
        if (is_echo_only(p))
            echo(p);
        else
            code = submit_part(p, &err);
        if (code == CP_OVERLOADED)
            cp_call_count_rejected(c, CP_M_REJECTED_QUEUE);
        if (code != CP_OK) {
            cp_call_fail(c, code, &err);
            break;
        }
    }
    if (c->n_open == 0)
        complete(c);
    cp_call_kick(c);
}
