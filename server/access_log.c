/* This file writes the access line of a request and counts the request: see access_log.h. */
#include "server/access_log.h"

#include "base/clock.h"
#include "base/log.h"
#include "server/emit.h"

static int status_of(const cp_call *c)
{
    int status = cp_http_status(c->q);
    return status == 0 ? 499 : status;
}

static bool has_left(const cp_call *c)
{
    return cp_call_state_of(c) == CP_CALL_LEFT;
}

static double ms_of(const cp_call *c)
{
    return (double)(cp_now_ns() - cp_http_since(c->q)) / 1e6;
}

static int cached(const cp_call *c)
{
    int n = 0;
    for (int i = 0; i < c->n_parts; i++)
        n += c->parts[i].n_cached;
    return n;
}

static int completion(const cp_call *c)
{
    int n = 0;
    for (int i = 0; i < c->n_choices; i++)
        n += c->choices[i].n_tokens;
    return n;
}

bool cp_access_generates(const cp_call *c)
{
    return cp_call_generates(c) && !c->on_job && c->model_id;
}

static void log_text(const cp_call *c)
{
    cp_buf b = {0};
    if (cp_access_generates(c))
        cp_buf_printf(&b, " model=%s prompt=%lld cached=%d completion=%d stream=%d", c->model_id,
                      (long long)c->n_prompt_tokens, cached(c), completion(c), c->streaming);
    cp_buf_adds(&b, has_left(c) ? " client=gone" : "");
    cp_buf_addc(&b, '\0');
    cp_log_each(CP_LOG_INFO, "access id=%s method=%s path=%s status=%d ms=%.1f bytes=%llu%s",
                c->request_id, cp_method_name(cp_http_method(c->q)), c->path, status_of(c),
                ms_of(c), (unsigned long long)cp_http_sent(c->q), b.failed ? "" : b.p);
    cp_buf_fini(&b);
}

const char *cp_access_finish(const cp_call *c, cp_finish finish)
{
    static const char *const words[] = {
        [CP_FINISH_NONE] = "cancelled", [CP_FINISH_STOP] = "stop", [CP_FINISH_LENGTH] = "length"};
    return finish == CP_FINISH_NONE && c->told != CP_OK ? "error" : words[finish];
}

void cp_access_facts(const cp_call *c, cp_buf *b)
{
    cp_emit_member(b, "id", c->request_id);
    cp_emit_member(b, "method", cp_method_name(cp_http_method(c->q)));
    cp_buf_printf(b, ",\"status\":%d,\"ms\":%.1f,\"bytes\":%llu", status_of(c), ms_of(c),
                  (unsigned long long)cp_http_sent(c->q));
    if (has_left(c))
        cp_buf_adds(b, ",\"client_gone\":true");
    if (!c->on_job && c->model_id)
        cp_emit_member(b, "model", c->model_id);
    if (cp_access_generates(c))
        cp_buf_printf(b,
                      ",\"stream\":%s,\"prompt_tokens\":%lld,\"cached_tokens\":%d,"
                      "\"completion_tokens\":%d",
                      c->streaming ? "true" : "false", (long long)c->n_prompt_tokens, cached(c),
                      completion(c));
}

static void log_object(const cp_call *c)
{
    cp_buf b = {0};
    cp_emit_member(&b, "path", c->path);
    cp_access_facts(c, &b);
    cp_buf_addc(&b, '\0');
    cp_log_object(CP_LOG_INFO, "access", b.failed ? "" : b.p);
    cp_buf_fini(&b);
}

void cp_access_log(const cp_call *c)
{
    if (cp_log_is_json())
        log_object(c);
    else
        log_text(c);
    cp_metric_request(c->s->metrics, has_left(c) && !cp_http_answered(c->q) ? 499 : status_of(c));
    cp_metric_add(c->s->metrics, CP_M_REQUESTS_ACTIVE, -1);
}
