/* This file writes the access line of a request and counts the request: see access_log.h. */
#include "server/access_log.h"

#include "base/clock.h"
#include "base/log.h"

int cp_access_status(const cp_call *c)
{
    int status = cp_http_status(c->q);
    return status == 0 ? 499 : status;
}

const char *cp_access_method(const cp_http_req *q)
{
    static const char *const methods[CP_METHOD_COUNT] = {"GET",   "HEAD",   "POST",   "PUT",
                                                         "PATCH", "DELETE", "OPTIONS"};
    return methods[cp_http_method(q)];
}

bool cp_access_tokens(const cp_call *c, cp_tokens *out)
{
    if (!cp_call_generates(c) || c->on_job || !c->model_id)
        return false;
    *out = (cp_tokens){.prompt = (long long)c->n_prompt_tokens};
    for (int i = 0; i < c->n_choices; i++)
        out->completion += c->choices[i].n_tokens;
    for (int i = 0; i < c->n_parts; i++)
        out->cached += c->parts[i].n_cached;
    return true;
}

/* " model=... prompt=... cached=... completion=... stream=..." */
static void generation(const cp_call *c, cp_buf *b)
{
    cp_tokens n;
    if (cp_access_tokens(c, &n))
        cp_buf_printf(b, " model=%s prompt=%lld cached=%d completion=%d stream=%d", c->model_id,
                      n.prompt, n.cached, n.completion, c->streaming);
}

void cp_access_log(const cp_call *c)
{
    const cp_http_req *q = c->q;
    int status = cp_access_status(c);
    bool left = cp_call_state_of(c) == CP_CALL_LEFT;
    double ms = (double)(cp_now_ns() - cp_http_since(q)) / 1e6;
    cp_buf b = {0};
    generation(c, &b);
    cp_buf_adds(&b, left ? " client=gone" : "");
    cp_buf_addc(&b, '\0');
    cp_log_each(CP_LOG_INFO, "access id=%s method=%s path=%s status=%d ms=%.1f bytes=%llu%s",
                c->request_id, cp_access_method(q), c->path, status, ms,
                (unsigned long long)cp_http_sent(q), b.failed ? "" : b.p);
    cp_buf_fini(&b);
    cp_metric_request(c->s->metrics, left && !cp_http_answered(q) ? 499 : status);
    cp_metric_add(c->s->metrics, CP_M_REQUESTS_ACTIVE, -1);
}
