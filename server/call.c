/*
 * A call's life on the loop thread. The engine's rings are drained when it says so; a stream whose
 * client does not read stops being drained, its ring fills, and the engine stops scheduling it.
 *
 * A request ends twice, in either order: its last record is taken, and the engine hands its own
 * reference back (cp_request_popped). A reference goes with each; with the second one the call is
 * let go of.
 */
#include "server/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "server/origin.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const char TYPE_JSON[] = "application/json";

/* ---- memory ---- */

void cp_call_unref(cp_call *c)
{
    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 0; i < c->n_choices; i++) {
        cp_stop_state_fini(&c->choices[i].stop);
        cp_buf_fini(&c->choices[i].text);
        cp_buf_fini(&c->choices[i].records);
    }
    for (int i = 0; i < (c->parts ? c->n_parts : 0); i++)
        cp_buf_fini(&c->parts[i].prompt_records);
    cp_buf_fini(&c->body);
    cp_buf_fini(&c->reply);
    cp_buf_fini(&c->chunk_head);
    if (c->arena)
        cp_arena_free(c->arena);
    cp_account_close(&c->account);
    free(c);
}

static void random_id(const char *prefix, char *out, size_t cap)
{
    unsigned char r[12];
    if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r)) {
        int64_t now = cp_now_ns();
        memcpy(r, &now, sizeof(now));
    }
    size_t at = cp_snprintf(out, cap, "%s", prefix);
    for (size_t i = 0; i < sizeof(r); i++)
        at += cp_snprintf(out + at, cap - at, "%02x", r[i]);
}

/* The client's own id where it is one word of harmless characters. */
static void take_request_id(cp_call *c)
{
    const char *given = cp_http_header(c->q, "X-Request-Id");
    size_t n = given ? strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789._:-")
                     : 0;
    if (n == 0 || n > 128 || given[n])
        random_id("req-", c->request_id, sizeof(c->request_id));
    else
        cp_strcopy(c->request_id, sizeof(c->request_id), given);
}

cp_call *cp_call_new(cp_server *s, cp_http_req *q)
{
    cp_call *c = cp_xcalloc(1, sizeof(*c));
    c->s = s;
    c->q = q;
    c->account.budget = s->budget;
    atomic_init(&c->refs, 1);
    take_request_id(c);
    cp_strcopy(c->path, sizeof(c->path), cp_http_path(q));
    c->next = s->calls;
    if (c->next)
        c->next->prev = c;
    s->calls = c;
    cp_http_set_user(q, c);
    cp_metric_add(s->metrics, CP_M_REQUESTS_ACTIVE, 1);
    return c;
}

/* The loop's reference goes when HTTP, jobs and the engine are done with the call. */
static void maybe_free(cp_call *c)
{
    if (c->q || c->in_job || c->n_open > 0)
        return;
    cp_server *s = c->s;
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->calls = c->next;
    if (c->counted)
        atomic_fetch_sub(&s->n_active, 1);
    cp_call_unref(c);
}

/* ---- answers ---- */

static void common_headers(cp_call *c)
{
    cp_http_add_header(c->q, "X-Request-Id", c->request_id);
    const cp_server *s = c->s;
    const char *origin =
        cp_origin_allowed(cp_http_header(c->q, "Origin"), s->cors_origins, s->n_cors_origins);
    if (s->n_cors_origins > 0)
        cp_http_add_header(c->q, "Vary", "Origin");
    if (origin) {
        cp_http_add_header(c->q, "Access-Control-Allow-Origin", origin);
        cp_http_add_header(c->q, "Access-Control-Expose-Headers",
                           "X-Request-Id, X-Should-Retry, Retry-After");
    }
}

void cp_call_reply(cp_call *c, int status, const char *type, cp_buf *body)
{
    if (!c->q || c->gone || cp_http_answered(c->q))
        return;
    common_headers(c);
    cp_http_reply(c->q, status, type, body);
}

void cp_call_error(cp_call *c, int status, cp_code code, const cp_err *err)
{
    cp_metric_error(c->s->metrics, code);
    /* while a job has the call its account is not ours to read */
    if (c->q && ((!c->in_job && c->account.refused) || cp_http_account(c->q)->refused))
        cp_metric_add(c->s->metrics, CP_M_BUDGET_REFUSED_BODIES, 1);
    if (cp_code_info(code)->http == 500)
        cp_log(CP_LOG_ERROR, "request id=%s failed: %s: %s", c->request_id,
               cp_code_info(code)->name, err ? err->msg : "");
    if (!c->q || c->gone || cp_http_answered(c->q))
        return;
    if (status == 0)
        status = cp_code_info(code)->http;
    cp_buf b = {0};
    if (c->in_job) /* what the job writes is not ours to read */
        cp_emit_error(&b, code, err, 0, 0);
    else
        cp_emit_error(&b, code, err, c->n_prompt_tokens, c->n_ctx_shown);
    if (status == 503 || status == 429)
        cp_http_add_header(c->q, "Retry-After", code == CP_LOADING ? "5" : "1");
    else if (status < 500)
        cp_http_add_header(c->q, "X-Should-Retry", "false");
    if (status == 401)
        cp_http_add_header(c->q, "WWW-Authenticate", "Bearer");
    cp_call_reply(c, status, TYPE_JSON, &b);
}

/* The stream's buffer, begun at the first use; NULL when nobody reads. */
static cp_buf *stream(cp_call *c)
{
    if (!c->q || c->gone || c->failed)
        return NULL;
    if (!cp_http_answered(c->q)) {
        common_headers(c);
        cp_http_add_header(c->q, "Cache-Control", "no-cache");
        cp_http_add_header(c->q, "X-Accel-Buffering", "no");
        cp_http_stream_begin(c->q, 200, "text/event-stream");
    }
    return cp_http_stream(c->q);
}

void cp_call_cancel(cp_call *c)
{
    if (c->in_job)
        return; /* nothing was submitted; what comes back is dropped */
    for (int i = 0; i < c->n_parts; i++) {
        cp_part *p = &c->parts[i];
        if (!p->submitted || p->ended || p->cancelled)
            continue;
        p->cancelled = true;
        c->s->engine.cancel(c->s->engine.self, &p->r);
    }
}

void cp_call_fail(cp_call *c, cp_code code, const cp_err *err)
{
    if (c->failed)
        return;
    if (!c->in_job && c->q && !c->gone && c->streaming && cp_http_answered(c->q)) {
        cp_metric_error(c->s->metrics, code);
        cp_buf *out = cp_http_stream(c->q);
        if (out) {
            cp_buf_adds(out, "data: ");
            cp_emit_error(out, code, err, 0, 0);
            cp_buf_adds(out, "\n\n");
            cp_http_stream_kick(c->q);
            cp_http_stream_end(c->q, false);
        }
    } else {
        cp_call_error(c, 0, code, err);
    }
    c->failed = true;
    cp_call_cancel(c);
}

static void complete(cp_call *c)
{
    if (c->failed || c->gone || !c->q)
        return;
    cp_buf b = {.account = &c->account};
    if (c->streaming) {
        cp_buf *out = stream(c);
        if (out) {
            cp_answer_stream_end(c, out);
            cp_http_stream_kick(c->q);
            cp_http_stream_end(c->q, false);
        }
        return;
    }
    cp_answer_whole(c, &b);
    if (b.failed) {
        cp_buf_fini(&b);
        cp_err err;
        cp_call_error(c, 0, cp_call_no_memory(c, false, &err), &err);
        return;
    }
    cp_call_reply(c, 200, TYPE_JSON, &b);
}

/* ---- events ---- */

static const char *reason_name(int reason)
{
    return reason == CP_FINISH_LENGTH ? "length" : "stop";
}

static void write_chunk(cp_part *p, int index, bool last)
{
    cp_call *c = p->call;
    if (!c->streaming || (!last && c->choices[index].text.n == 0))
        return;
    cp_buf *out = stream(c);
    if (!out)
        return;
    cp_answer_chunk(c, p, index, last, out);
    if (out->failed) {
        c->account.refused = c->account.refused || cp_http_account(c->q)->refused;
        cp_err err;
        cp_call_fail(c, cp_call_no_memory(c, false, &err), &err);
    }
}

/* A text or a record did not fit: an answer without it would be wrong. */
static void check_kept(cp_part *p, const cp_choice *ch)
{
    if (!p->prompt_records.failed && (!ch || (!ch->text.failed && !ch->records.failed)))
        return;
    cp_err err;
    cp_call_fail(p->call, cp_call_no_memory(p->call, false, &err), &err);
}

static void on_event(cp_part *p, const cp_event *ev)
{
    cp_call *c = p->call;
    bool dropped = c->gone || c->failed;
    int index = p->first + ev->choice;
    cp_choice *ch = NULL;
    if (ev->type == CP_EV_TOKEN || ev->type == CP_EV_FINISH) {
        CP_ASSERT(ev->choice < p->r.n);
        ch = &c->choices[index];
    }
    switch (ev->type) {
    case CP_EV_TOKEN:
        if (dropped || ch->closed)
            break;
        cp_choice_token(p, ch, ev);
        check_kept(p, ch);
        write_chunk(p, index, ch->closed);
        break;
    case CP_EV_PROMPT:
        if (!dropped) {
            cp_prompt_record(p, ev);
            check_kept(p, NULL);
        }
        break;
    case CP_EV_FINISH:
        if (ev->n_cached > p->n_cached)
            p->n_cached = ev->n_cached;
        if (dropped || ch->closed)
            break;
        cp_choice_end(p, ch, reason_name(ev->reason));
        ch->n_tokens += ev->reason == CP_FINISH_STOP; /* the end was sampled, too */
        check_kept(p, ch);
        write_chunk(p, index, true);
        break;
    case CP_EV_ERROR: {
        p->ended = true;
        cp_err err;
        cp_code code =
            ev->code > CP_OK && ev->code < CP_CODE_COUNT ? (cp_code)ev->code : CP_INTERNAL;
        const char *words = code == CP_DEADLINE       ? "the request's deadline has passed"
                            : code == CP_NO_MEMORY    ? "not enough memory for the sequence"
                            : code == CP_MODEL_FAILED ? "the model has failed"
                            : code == CP_OVERLOADED   ? "the server is shutting down"
                                                      : "the request was ended by the engine";
        cp_call_fail(c, cp_fail(&err, code, "%s", words), &err);
        break;
    }
    default:
        p->ended = true;
    }
}

static bool stalled(const cp_call *c)
{
    return c->streaming && c->q && !c->gone && !c->failed &&
           cp_http_stream_pending(c->q) > CP_STREAM_MAX;
}

static void part_ended(cp_part *p)
{
    cp_call *c = p->call;
    cp_server *s = c->s;
    c->n_open--;
    if (c->n_open == 0)
        complete(c);
    s->engine.release(s->engine.self, &p->r); /* the loop's reference to the call is still there */
    maybe_free(c);
}

static void drain_part(cp_part *p)
{
    cp_call *c = p->call;
    if (!p->submitted || p->ended)
        return;
    cp_event ev;
    memset(&ev, 0, sizeof(ev));
    bool any = false;
    while (!p->ended && !stalled(c) && cp_ring_pop(&p->r.ring, &ev)) {
        on_event(p, &ev);
        any = true;
    }
    if (any)
        c->last_write = cp_now_ns();
    /* Every choice has met its stop string: the rest is not wanted. */
    if (!p->ended && !p->cancelled && p->n_closed == p->r.n) {
        p->cancelled = true;
        c->s->engine.cancel(c->s->engine.self, &p->r);
    }
    if (any && c->streaming && c->q && !c->gone && cp_http_answered(c->q))
        cp_http_stream_kick(c->q);
    if (p->ended)
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

/* ---- start ---- */

/* Nothing to compute: the prompt is echoed, no token and no log-probability is asked for. */
static bool is_echo_only(const cp_part *p)
{
    return p->r.max_tokens == 0 && p->r.n_prompt_top < 0;
}

static void submit(cp_call *c)
{
    cp_server *s = c->s;
    random_id(c->route->where == CP_AT_CHAT ? "chatcmpl-" : "cmpl-", c->id, sizeof(c->id));
    c->created = cp_wall_sec();
    c->last_write = cp_now_ns();
    cp_answer_prepare(c);
    for (int i = 0; i < c->n_parts; i++) {
        cp_part *p = &c->parts[i];
        if (is_echo_only(p)) {
            p->ended = true;
            for (int k = 0; k < p->r.n; k++) {
                cp_choice_end(p, &c->choices[p->first + k], "length");
                write_chunk(p, p->first + k, true);
            }
            continue;
        }
        atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
        p->submitted = true;
        c->n_open++;
        cp_err err;
        cp_code code = s->engine.submit(s->engine.self, &p->r, &err);
        if (code == CP_OK)
            continue;
        p->submitted = false;
        p->ended = true;
        c->n_open--;
        cp_call_unref(c);
        cp_call_fail(c, code, &err);
        break;
    }
    if (c->n_open == 0)
        complete(c);
    if (c->streaming && c->q && !c->gone && cp_http_answered(c->q))
        cp_http_stream_kick(c->q);
}

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
        cp_log(CP_LOG_WARN, "request field \"%s\" is unknown and ignored", c->p.unknown[i]);
    }
}

static void go_on(cp_call *c)
{
    log_unknown(c);
    if (c->code != CP_OK)
        cp_call_error(c, 0, c->code, &c->err);
    else if (c->route->generates)
        submit(c);
    else
        cp_call_reply(c, 200, TYPE_JSON, &c->reply);
}

static void job(void *arg)
{
    cp_call *c = arg;
    cp_server *s = c->s;
    if (!atomic_load_explicit(&c->gone, memory_order_relaxed))
        cp_call_prepare(c);
    cp_mpsc_push(&s->parsed, &c->parsed_link);
    cp_http_wake(s->http);
    atomic_fetch_sub_explicit(&s->n_jobs, 1, memory_order_release);
}

void cp_call_start(cp_call *c)
{
    cp_server *s = c->s;
    if (c->failed)
        return; /* cut off while its body arrived: it has its answer */
    cp_buf *body = cp_http_body(c->q);
    cp_account_move(&c->account, cp_http_account(c->q));
    c->body = *body;
    c->body.account = &c->account;
    memset(body, 0, sizeof(*body));
    c->in_job = true;
    atomic_fetch_add(&s->n_jobs, 1);
    if (cp_jobs_submit(s->jobs, job, c))
        return;
    c->in_job = false;
    atomic_fetch_sub(&s->n_jobs, 1);
    cp_err err;
    cp_call_error(c, 0, cp_fail(&err, CP_OVERLOADED, "too many requests are being parsed"), &err);
}

void cp_call_parsed(cp_call *c)
{
    c->in_job = false;
    if (c->q && !c->gone && !c->failed)
        go_on(c);
    maybe_free(c);
}

/* ---- time, and the end ---- */

void cp_call_tick(cp_call *c, int64_t now_ns)
{
    if (c->in_job || !c->streaming || c->gone || c->failed || !c->q || c->n_open == 0)
        return;
    if (stalled(c)) {
        if (now_ns - cp_http_stream_moved(c->q) > c->s->slow_ns) {
            cp_log(CP_LOG_INFO, "request id=%s slow_reader: nothing read for %d s", c->request_id,
                   (int)(c->s->slow_ns / 1000000000));
            c->failed = true;
            cp_call_cancel(c);
            cp_http_stream_end(c->q, true);
        }
        return;
    }
    if (now_ns - c->last_write < c->s->comment_ns)
        return;
    c->last_write = now_ns;
    cp_buf *out = stream(c);
    if (out) {
        cp_buf_adds(out, ":\n\n");
        cp_http_stream_kick(c->q);
    }
}

void cp_call_done(cp_call *c)
{
    cp_http_req *q = c->q;
    int status = cp_http_status(q);
    bool left = c->gone;
    if (status == 0)
        status = 499;
    double ms = (double)(cp_now_ns() - cp_http_since(q)) / 1e6;
    static const char *const methods[CP_METHOD_COUNT] = {"GET",   "HEAD",   "POST",   "PUT",
                                                         "PATCH", "DELETE", "OPTIONS"};
    if (c->counted && c->route->generates && !c->in_job && c->m) {
        int completion = 0, cached = 0;
        for (int i = 0; i < c->n_choices; i++)
            completion += c->choices[i].n_tokens;
        for (int i = 0; i < (c->parts ? c->n_parts : 0); i++)
            cached += c->parts[i].n_cached;
        cp_log(CP_LOG_INFO,
               "access id=%s method=%s path=%s status=%d ms=%.1f bytes=%llu model=%s prompt=%lld "
               "cached=%d completion=%d stream=%d%s",
               c->request_id, methods[cp_http_method(q)], c->path, status, ms,
               (unsigned long long)cp_http_sent(q), c->m->ids[0], (long long)c->n_prompt_tokens,
               cached, completion, c->streaming, left ? " client=gone" : "");
    } else {
        cp_log(CP_LOG_INFO, "access id=%s method=%s path=%s status=%d ms=%.1f bytes=%llu%s",
               c->request_id, methods[cp_http_method(q)], c->path, status, ms,
               (unsigned long long)cp_http_sent(q), left ? " client=gone" : "");
    }
    cp_metric_request(c->s->metrics, left && !cp_http_answered(q) ? 499 : status);
    cp_metric_add(c->s->metrics, CP_M_REQUESTS_ACTIVE, -1);
    c->q = NULL;
    cp_call_cancel(c);
    /* What a stalled stream has left in its ring may hold the end: the engine says it once. */
    if (c->n_open > 0)
        cp_call_drain(c);
    else
        maybe_free(c);
}
