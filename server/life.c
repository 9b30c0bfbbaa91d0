/* This file takes a call from thread to thread: see life.h. */
#include "server/life.h"

#include "base/clock.h"
#include "base/log.h"
#include "server/access_log.h"
#include "server/audit.h"
#include "server/events.h"
#include "server/prepare.h"
#include "server/profile.h"
#include "server/reply.h"
#include "server/spans.h"

#include <string.h>

/* An unknown field is named once a process. */
static void log_unknown(cp_call *c)
{
    cp_server *s = c->s;
    for (int i = 0; i < c->p.n_unknown; i++) {
        int k = 0;
        while (k < s->n_unknown && strcmp(s->unknown[k], c->p.unknown[i]) != 0)
            k++;
        if (k < s->n_unknown || k == CP_UNKNOWN_LOGGED)
            continue;
        s->unknown[s->n_unknown++] = cp_xstrdup(c->p.unknown[i]);
        cp_log_each(CP_LOG_WARN, "request field \"%s\" is unknown and ignored", c->p.unknown[i]);
    }
}

/* To the loop; its thread touches neither call nor server after this. */
static void back(cp_call *c)
{
    cp_server *s = c->s;
    cp_mpsc_push(&s->parsed, &c->parsed_link);
    cp_http_wake(s->http);
    atomic_fetch_sub_explicit(&s->n_jobs, 1, memory_order_release);
}

static void job(void *arg)
{
    cp_call *c = arg;
    if (cp_call_wanted(c))
        cp_call_prepare(c);
    back(c);
}

void cp_call_start(cp_call *c)
{
    cp_server *s = c->s;
    if (!cp_call_wanted(c))
        return; /* cut off while its body arrived: it has its answer */
    cp_buf *body = cp_http_body(c->q);
    cp_account_move(&c->account, cp_http_account(c->q));
    c->body = *body;
    c->body.account = &c->account;
    memset(body, 0, sizeof(*body));
    c->on_job = true;
    cp_call_move(c, CP_CALL_PREPARING);
    atomic_fetch_add(&s->n_jobs, 1);
    if (cp_jobs_submit(s->jobs, job, c))
        return;
    c->on_job = false;
    atomic_fetch_sub(&s->n_jobs, 1);
    cp_err err;
    cp_call_count_rejected(c, CP_M_REJECTED_QUEUE);
    cp_call_error(c, 0, cp_fail(&err, CP_OVERLOADED, "too many requests are being parsed"), &err);
}

/* On a thread of the host's. What it does is done, whether or not its client still waits. */
static void act(void *arg)
{
    cp_call *c = arg;
    c->code = c->p.api->act(c, &c->err);
    back(c);
}

/* True: a thread has it now, and it will be parsed once more. */
static bool set_to_work(cp_call *c)
{
    cp_server *s = c->s;
    if (c->code != CP_OK || !c->p.api->act || c->acted)
        return false;
    c->acted = c->on_job = true;
    atomic_fetch_add(&s->n_jobs, 1);
    if (s->host.self && s->host.run(s->host.self, act, c))
        return true;
    c->on_job = false;
    atomic_fetch_sub(&s->n_jobs, 1);
    c->code = s->host.self
                  ? cp_fail(&c->err, CP_OVERLOADED,
                            "so many loads and unloads are under way as there may be, or the "
                            "server is shutting down")
                  : cp_fail(&c->err, CP_NOT_FOUND, "this server's models do not change");
    return false;
}

void cp_call_parsed(cp_call *c)
{
    c->on_job = false;
    if (cp_call_wanted(c) && set_to_work(c))
        return;
    if (cp_call_wanted(c)) {
        log_unknown(c);
        if (c->code != CP_OK)
            cp_call_error(c, 0, c->code, &c->err);
        else if (c->p.api->reply || c->p.api->act)
            cp_call_json(c, &c->reply);
        else
            cp_call_submit(c);
    }
    cp_call_let_go(c);
}

void cp_call_left(cp_call *c)
{
    cp_call_move(c, CP_CALL_LEFT);
    cp_call_cancel(c);
}

/* Its model is to go, and its client does not read what would let the call end by itself. */
static bool outlives_model(const cp_call *c, int64_t now_ns)
{
    return cp_call_state_of(c) == CP_CALL_RUNNING && c->m &&
           cp_served_is_over(&c->s->models, c->m, now_ns);
}

void cp_call_tick(cp_call *c, int64_t now_ns)
{
    if (c->profile) {
        cp_profile_tick(c, now_ns);
        return;
    }
    if (outlives_model(c, now_ns)) {
        cp_err err;
        cp_call_fail(c, cp_fail(&err, CP_MODEL_NOT_FOUND, "the model was unloaded"), &err);
        cp_call_drain(c);
        return;
    }
    if (cp_call_state_of(c) != CP_CALL_RUNNING || !c->streaming)
        return;
    if (cp_call_stalled(c)) {
        if (now_ns - cp_http_stream_moved(c->q) > c->s->slow_ns) {
            cp_log(CP_LOG_INFO, "request id=%s slow_reader: nothing read for %d s", c->request_id,
                   (int)(c->s->slow_ns / 1000000000));
            cp_call_stream_end(c, true);
            cp_call_cancel(c);
        }
        return;
    }
    if (now_ns - c->last_write < c->s->comment_ns)
        return;
    c->last_write = now_ns;
    cp_buf *out = cp_call_stream(c);
    if (out) {
        cp_buf_adds(out, ":\n\n");
        cp_http_stream_kick(c->q);
    }
}

void cp_call_cut(cp_call *c, const cp_err *err)
{
    if (c->route && c->route->api && c->q)
        cp_call_fail(c, CP_OVERLOADED, err);
    else
        cp_call_cancel(c);
}

void cp_call_done(cp_call *c)
{
    cp_access_log(c);
    cp_spans_add(c);
    cp_audit(c);
    c->q = NULL;
    cp_call_cancel(c);
    /* What a stalled stream has left in its ring may hold the end: the engine says it once. */
    if (c->n_open > 0)
        cp_call_drain(c);
    else
        cp_call_let_go(c);
}
