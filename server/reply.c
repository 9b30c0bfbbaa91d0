/* This file tells clients what they get: see reply.h. */
#include "server/reply.h"

#include "base/log.h"
#include "server/api/oip.h"
#include "server/api/openai.h"
#include "server/orca.h"
#include "server/origin.h"

#include <string.h>

static const char TYPE_JSON[] = "application/json";

static void common_headers(cp_call *c)
{
    cp_http_add_header(c->q, "X-Request-Id", c->request_id);
    if (c->api && !c->on_job)
        cp_orca_header(c);
    const cp_server *s = c->s;
    if (s->trace_fd >= 0) {
        char parent[56];
        cp_trace_header(&c->trace, parent);
        cp_http_add_header(c->q, "traceparent", parent);
    }
    const char *origin = cp_origin_allowed(cp_http_header(c->q, "Origin"), s->rules->cors_origins,
                                           s->rules->n_cors_origins);
    if (s->rules->n_cors_origins > 0)
        cp_http_add_header(c->q, "Vary", "Origin");
    if (origin) {
        cp_http_add_header(c->q, "Access-Control-Allow-Origin", origin);
        cp_http_add_header(c->q, "Access-Control-Expose-Headers",
                           "X-Request-Id, X-Should-Retry, Retry-After");
    }
}

void cp_call_reply(cp_call *c, int status, const char *type, cp_buf *body)
{
    if (!c->q || !cp_call_wanted(c)) {
        if (body)
            cp_buf_fini(body);
        return;
    }
    common_headers(c);
    cp_http_reply(c->q, status, type, body);
    cp_call_move(c, CP_CALL_TOLD);
}

void cp_call_json(cp_call *c, cp_buf *body)
{
    cp_call_reply(c, 200, TYPE_JSON, body);
}

/* ---- errors ---- */

/* In the words of the request's API; where the path is no route's, of those that lie there. */
static void write_error(const cp_call *c, const cp_told *told, cp_buf *out)
{
    bool oip = strncmp(c->path, "/v2/", 4) == 0;
    (c->api ? c->api->error : oip ? cp_api_infer.error : cp_openai_error)(told, out);
}

void cp_call_count_rejected(cp_call *c, cp_metric reason)
{
    cp_metric_add(c->s->metrics, reason, 1);
}

static void count_refused_memory(cp_call *c)
{
    cp_metric_add(c->s->metrics, CP_M_BUDGET_REFUSED_BODIES, 1);
    if (cp_call_state_of(c) < CP_CALL_RUNNING)
        cp_call_count_rejected(c, CP_M_REJECTED_MEMORY);
}

/* The reasons that the code itself tells, whoever found it. */
static void count_rejected(cp_call *c, cp_code code)
{
    if (code == CP_CONTEXT_LENGTH)
        cp_call_count_rejected(c, CP_M_REJECTED_TOO_LONG);
    else if (code == CP_LOADING)
        cp_call_count_rejected(c, CP_M_REJECTED_LOADING);
}

void cp_call_error(cp_call *c, int status, cp_code code, const cp_err *err)
{
    cp_metric_error(c->s->metrics, code);
    c->told = code;
    count_rejected(c, code);
    /* while a job has the call its account is not ours to read */
    if (c->q && ((!c->on_job && c->account.refused) || cp_http_account(c->q)->refused))
        count_refused_memory(c);
    if (cp_code_info(code)->http == 500)
        cp_log(CP_LOG_ERROR, "request id=%s failed: %s: %s", c->request_id,
               cp_code_info(code)->name, err ? err->msg : "");
    if (!c->q || !cp_call_wanted(c))
        return;
    if (status == 0)
        status = cp_code_info(code)->http;
    cp_told told = {.code = code, .err = err, .request_id = c->request_id};
    if (!c->on_job) { /* nor is what the job writes */
        told.n_prompt_tokens = c->n_prompt_tokens;
        told.n_ctx = c->n_ctx_shown;
    }
    cp_buf b = {0};
    write_error(c, &told, &b);
    if (status == 503 || status == 429)
        cp_http_add_header(c->q, "Retry-After", code == CP_LOADING ? "5" : "1");
    else if (status < 500)
        cp_http_add_header(c->q, "X-Should-Retry", "false");
    if (status == 401)
        cp_http_add_header(c->q, "WWW-Authenticate", "Bearer");
    cp_call_reply(c, status, TYPE_JSON, &b);
}

void cp_call_fail(cp_call *c, cp_code code, const cp_err *err)
{
    cp_call_state state = cp_call_state_of(c);
    if (state == CP_CALL_TOLD)
        return;
    cp_buf *out = NULL;
    if (state == CP_CALL_RUNNING && c->streaming && cp_http_answered(c->q)) {
        cp_metric_error(c->s->metrics, code);
        c->told = code;
        out = cp_http_stream(c->q);
    } else {
        cp_call_error(c, 0, code, err);
    }
    if (out) {
        const cp_told told = {
            .code = code, .err = err, .request_id = c->request_id, .streamed = true};
        write_error(c, &told, out);
        cp_http_stream_kick(c->q);
        cp_call_stream_end(c, false);
    }
    if (cp_call_state_of(c) != CP_CALL_TOLD)
        cp_call_move(c, CP_CALL_TOLD);
    cp_call_cancel(c);
}

cp_code cp_call_no_memory(const cp_call *c, bool full, cp_err *err)
{
    unsigned long long limit = cp_budget_limit(c->s->budget);
    if (c->account.never)
        return cp_fail(err, CP_TOO_LARGE,
                       "the request needs more memory than there is for all requests together "
                       "(--body-bytes, %llu bytes); send less at once, or ask for fewer choices or "
                       "log-probabilities",
                       limit);
    if (c->account.refused)
        return cp_fail(err, CP_OVERLOADED,
                       "the memory for requests (--body-bytes, %llu bytes) is in use", limit);
    if (full)
        return cp_fail_param(err, CP_INVALID_VALUE, "messages",
                             "the chat template needs more than %d MiB for these 'messages'; send "
                             "less at once",
                             CP_RENDER_ARENA >> 20);
    if (c->arena && cp_arena_full(c->arena))
        return cp_fail_param(err, CP_INVALID_VALUE, c->api->prompt_field,
                             "the texts, token ids and choices of the request need more than %d "
                             "MiB; send fewer prompts, or ask for fewer choices",
                             CP_CALL_ARENA >> 20);
    return cp_fail(err, CP_NO_MEMORY, "the server is out of memory");
}

/* ---- streams ---- */

cp_buf *cp_call_stream(cp_call *c)
{
    if (cp_call_state_of(c) != CP_CALL_RUNNING)
        return NULL;
    if (!cp_http_answered(c->q)) {
        common_headers(c);
        cp_http_add_header(c->q, "Cache-Control", "no-cache");
        cp_http_add_header(c->q, "X-Accel-Buffering", "no");
        cp_http_stream_begin(c->q, 200, c->api->stream_type);
    }
    return cp_http_stream(c->q);
}

void cp_call_kick(cp_call *c)
{
    if (c->streaming && cp_call_state_of(c) == CP_CALL_RUNNING && cp_http_answered(c->q))
        cp_http_stream_kick(c->q);
}

void cp_call_stream_end(cp_call *c, bool abort)
{
    cp_http_stream_end(c->q, abort);
    cp_call_move(c, CP_CALL_TOLD);
}
