/* This file writes the spans of requests: see spans.h. */
#include "server/spans.h"

#include "base/clock.h"
#include "base/log.h"
#include "server/access_log.h"
#include "server/emit.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { KIND_INTERNAL = 1, KIND_SERVER = 2, STATUS_ERROR = 2, PARTS_MAX = 16, CHOICES_MAX = 128 };

/* ---- attributes ---- */

/* Attributes of a span are a list; comma before each but the first. */
static void key(cp_buf *b, const char *name)
{
    if (b->n > 0 && b->p[b->n - 1] != '[')
        cp_buf_addc(b, ',');
    cp_buf_adds(b, "{\"key\":\"");
    cp_buf_adds(b, name);
    cp_buf_adds(b, "\",\"value\":");
}

static void text(cp_buf *b, const char *name, const char *value)
{
    key(b, name);
    cp_buf_adds(b, "{\"stringValue\":");
    cp_emit_str(b, value, strlen(value));
    cp_buf_adds(b, "}}");
}

/* 64-bit integers are strings in OTLP's JSON. */
static void integer(cp_buf *b, const char *name, int64_t value)
{
    key(b, name);
    cp_buf_adds(b, "{\"intValue\":\"");
    cp_emit_int(b, value);
    cp_buf_adds(b, "\"}}");
}

static void number(cp_buf *b, const char *name, double value)
{
    key(b, name);
    cp_buf_printf(b, "{\"doubleValue\":%.9g}}", value);
}

static void seconds(cp_buf *b, const char *name, int64_t ns)
{
    key(b, name);
    cp_buf_printf(b, "{\"doubleValue\":%lld.%09d}}", (long long)(ns / 1000000000),
                  (int)(ns % 1000000000));
}

static void flag(cp_buf *b, const char *name, bool value)
{
    key(b, name);
    cp_buf_adds(b, value ? "{\"boolValue\":true}}" : "{\"boolValue\":false}}");
}

/* ---- a span ---- */

typedef struct span {
    const char *name;
    int kind;
    int64_t from, to; /* cp_now_ns() time */
} span;

static void begin_span(cp_buf *b, const cp_trace_context *t, const uint8_t *id,
                       const uint8_t *parent, const span *s)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    int64_t offset = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec - cp_now_ns();
    char trace[33], own[17], up[17];
    cp_trace_hex(t->trace, 16, trace);
    cp_trace_hex(id, 8, own);
    if (parent)
        cp_trace_hex(parent, 8, up);
    cp_buf_adds(b, b->n > 0 ? ",{\"traceId\":\"" : "{\"traceId\":\"");
    cp_buf_adds(b, trace);
    cp_buf_adds(b, "\",\"spanId\":\"");
    cp_buf_adds(b, own);
    if (parent) {
        cp_buf_adds(b, "\",\"parentSpanId\":\"");
        cp_buf_adds(b, up);
    }
    cp_buf_adds(b, "\",\"name\":");
    cp_emit_str(b, s->name, strlen(s->name));
    cp_buf_printf(b,
                  ",\"kind\":%d,\"startTimeUnixNano\":\"%lld\",\"endTimeUnixNano\":\"%lld\","
                  "\"attributes\":[",
                  s->kind, (long long)(s->from + offset), (long long)(s->to + offset));
}

/* ---- what a request was ---- */

/* Its model and parameters are known: a job has read the body, and no job has it now. */
static bool is_read(const cp_call *c)
{
    return c->api && !c->on_job && c->model_id;
}

static void asked(const cp_call *c, cp_buf *b)
{
    const cp_params *p = &c->p;
    if (p->max_tokens >= 0)
        integer(b, "gen_ai.request.max_tokens", p->max_tokens);
    number(b, "gen_ai.request.temperature", p->temperature);
    number(b, "gen_ai.request.top_p", p->top_p);
    if (p->top_k > 0)
        integer(b, "gen_ai.request.top_k", p->top_k);
    if (p->has_seed)
        integer(b, "gen_ai.request.seed", p->seed);
    if (p->n != 1)
        integer(b, "gen_ai.request.choice.count", p->n);
    number(b, "gen_ai.request.frequency_penalty", p->frequency_penalty);
    number(b, "gen_ai.request.presence_penalty", p->presence_penalty);
    flag(b, "gen_ai.request.stream", p->stream);
}

static void answered(const cp_call *c, cp_buf *b)
{
    int64_t completion = 0, cached = 0;
    for (int i = 0; i < c->n_choices; i++)
        completion += c->choices[i].n_tokens;
    for (int i = 0; i < c->n_parts; i++)
        cached += c->parts[i].n_cached;
    text(b, "gen_ai.response.id", c->id);
    text(b, "gen_ai.response.model", c->model_id);
    key(b, "gen_ai.response.finish_reasons");
    cp_buf_adds(b, "{\"arrayValue\":{\"values\":[");
    for (int i = 0; i < c->n_choices && i < CHOICES_MAX; i++)
        cp_buf_printf(b, "%s{\"stringValue\":\"%s\"}", i ? "," : "",
                      cp_access_finish(c, c->choices[i].finish));
    cp_buf_adds(b, "]}}}");
    integer(b, "gen_ai.usage.input_tokens", c->n_prompt_tokens);
    integer(b, "gen_ai.usage.output_tokens", completion);
    integer(b, "gen_ai.usage.cache_read.input_tokens", cached);
}

/* ---- its parts ---- */

static int64_t at(const _Atomic int64_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

/* What part p did when: waiting, prefill, decode; a stage that was not reached has no span. */
static void stages(const cp_call *c, const cp_part *p, int64_t end, cp_buf *b)
{
    int64_t when[] = {c->submit_ns, at(&p->r.admitted_ns), at(&p->r.first_token_ns), end};
    static const char *const names[] = {"queue", "prefill", "decode"};
    uint8_t ids[3][8];
    cp_trace_id(ids[0], sizeof(ids));
    for (int i = 0; i < 3; i++) {
        int64_t to = when[i + 1] && when[i + 1] < end ? when[i + 1] : end;
        if (when[i] == 0 || when[i] > end)
            break;
        begin_span(b, &c->trace, ids[i], c->trace.span,
                   &(span){names[i], KIND_INTERNAL, when[i], to});
        cp_buf_adds(b, "]}");
        if (to == end)
            break;
    }
}

/* vLLM's names, which dashboards look for. */
static void latencies(const cp_call *c, int64_t end, cp_buf *b)
{
    const cp_part *p = c->parts;
    int64_t admitted = at(&p->r.admitted_ns), first = at(&p->r.first_token_ns);
    seconds(b, "gen_ai.latency.e2e", end - c->submit_ns);
    if (admitted)
        seconds(b, "gen_ai.latency.time_in_queue", admitted - c->submit_ns);
    if (first)
        seconds(b, "gen_ai.latency.time_to_first_token", first - c->submit_ns);
}

static void attributes(const cp_call *c, int status, int64_t end, cp_buf *b)
{
    if (c->api && c->api->operation) {
        text(b, "gen_ai.operation.name", c->api->operation);
        text(b, "gen_ai.provider.name", "capstan");
    }
    text(b, "http.request.method", cp_method_name(cp_http_method(c->q)));
    text(b, "url.path", c->path);
    if (c->route)
        text(b, "http.route", c->route->path);
    integer(b, "http.response.status_code", status);
    text(b, "gen_ai.request.id", c->request_id);
    if (!is_read(c))
        return;
    text(b, "gen_ai.request.model", c->model_id);
    if (c->api->reply)
        return;
    asked(c, b);
    if (c->submit_ns && c->n_parts > 0) {
        answered(c, b);
        latencies(c, end, b);
    }
}

static void whole(const cp_call *c, cp_buf *b)
{
    int64_t end = cp_now_ns();
    char name[192];
    bool gone = cp_call_state_of(c) == CP_CALL_LEFT, read = is_read(c);
    int status = gone && !cp_http_answered(c->q) ? 499 : cp_http_status(c->q);
    const char *operation = c->api && c->api->operation ? c->api->operation : NULL;
    cp_snprintf(name, sizeof(name), "%s %s", operation ? operation : "POST",
                operation && read ? c->model_id
                : c->route        ? c->route->path
                                  : "unknown");
    begin_span(b, &c->trace, c->trace.span, c->trace.has_parent ? c->trace.parent : NULL,
               &(span){name, KIND_SERVER, cp_http_since(c->q), end});
    attributes(c, status, end, b);
    const char *error = gone               ? "client_gone"
                        : c->told != CP_OK ? cp_code_info(c->told)->slug
                                           : NULL;
    if (error)
        text(b, "error.type", error);
    cp_buf_addc(b, ']');
    if (c->trace.state[0]) {
        cp_buf_adds(b, ",\"traceState\":");
        cp_emit_str(b, c->trace.state, strlen(c->trace.state));
    }
    /* by the conventions a client's mistake is no error of the server's span */
    if (gone || (error && status >= 500) || (error && status == 200))
        cp_buf_printf(b, ",\"status\":{\"code\":%d}", STATUS_ERROR);
    cp_buf_addc(b, '}');
    if (read && c->submit_ns)
        for (int i = 0; i < c->n_parts && i < PARTS_MAX; i++)
            stages(c, &c->parts[i], end, b);
}

/* ---- packets ---- */

void cp_spans_flush(cp_server *s)
{
    const uint32_t n = s->n_spans;
    struct iovec parts[] = {{(void *)(uintptr_t)&n, sizeof(n)}, {s->spans.p, s->spans.n}};
    const struct msghdr packet = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent;
    if (n == 0)
        return;
    do
        sent = sendmsg(s->trace_fd, &packet, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno == EPIPE && !s->trace_gone) {
        s->trace_gone = true;
        cp_log(CP_LOG_ERROR, "the process that sends traces has ended: spans are dropped until the "
                             "server is started anew");
    }
    if (sent < 0)
        cp_metric_add(s->metrics, CP_M_TRACES_DROPPED, n);
    cp_buf_clear(&s->spans);
    s->n_spans = 0;
}

void cp_spans_add(const cp_call *c)
{
    cp_server *s = c->s;
    if (s->trace_fd < 0 || !c->trace.on || cp_http_method(c->q) != CP_POST)
        return;
    cp_buf b = {.max = CP_TRACE_PACKET - sizeof(s->n_spans)};
    whole(c, &b);
    if (b.failed) {
        cp_metric_add(s->metrics, CP_M_TRACES_DROPPED, 1);
    } else {
        if (s->spans.n + 1 + b.n > b.max)
            cp_spans_flush(s);
        if (s->n_spans > 0)
            cp_buf_addc(&s->spans, ',');
        cp_buf_add(&s->spans, b.p, b.n);
        s->n_spans++;
    }
    cp_buf_fini(&b);
}
