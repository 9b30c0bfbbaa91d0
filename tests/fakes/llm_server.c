/*
 * A fake OpenAI-compatible server with known delays, for tests of the load generator.
 *
 *     fake_llm ttft=300,400 gap=20 fault=429@3 log=FILE      (llm_plan.c has all options)
 *
 * It listens on a free port of loopback, prints the port on stdout, and ends when its standard
 * input ends or its time is up. It writes down what it really did, with CLOCK_MONOTONIC in
 * nanoseconds, so that a test computes what a perfect client would have seen:
 *
 *     NS REQUEST received chat|completions PROMPT_TOKENS
 *     NS REQUEST begun 0              the service begins: the wait in its own line is over
 *     NS REQUEST role 0
 *     NS REQUEST chunk TOKENS         so many tokens are out now; the answer, if not streamed
 *     NS REQUEST end 0                finish, usage and [DONE] are out
 *     NS REQUEST refused STATUS | cut rst|fin TOKENS | error TOKENS | nodone 0 | never 0
 *     NS REQUEST gone 0               the client left before the end
 *     NS 0 late MAX_US                at the program's end: its worst timer
 *
 * A chunk's time is taken right before it is sent. One thread, one epoll, one timerfd over a heap
 * of the times at which each connection has something to do. A connection has one request at a
 * time, in bounded memory; requests are numbered from 1 as they arrive, those of /v1/models,
 * /tokenize (a word is a token) and /metrics are not counted.
 */
#include "tests/fakes/llm_http.h"
#include "tests/fakes/llm_plan.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { EVENTS = 256, PENDING = 1 << 20, MAX_TOKENS = 1000000 };

typedef enum phase { READING, QUEUED, SERVED, NEVER } phase;

typedef struct conn {
    int fd, place;   /* place in the heap, -1: no time is set */
    int64_t due;     /* ns of the monotonic clock */
    bool writing;    /* EPOLLOUT is wanted: `out` waits for room */
    bool shut, dead; /* close when out is empty; to be freed after this round of events */
    phase phase;
    cp_buf in, out;
    fake_head head;
    fake_body body;
    bool chat;
    uint64_t id, draws; /* the request's number; gaps drawn for it */
    int total, sent;    /* tokens */
    int cut_at;         /* tokens after which the fault happens; -1: none */
    const fake_fault *fault;
    struct conn *next; /* in line, or among the dead */
} conn;

typedef struct fake {
    fake_plan plan;
    int epoll, listener, timer;
    FILE *log;
    conn **heap;
    int n_heap, n_conns;
    int64_t armed, late, first; /* worst lateness; when the first request came, 0: none yet */
    int64_t next_begin;         /* when the rate lets the next one begin */
    conn *line, **line_end;     /* who waits to be served */
    conn *dead;
    int running, silent, waiting; /* silent: of those that run, never to be answered */
    uint64_t requests, prompt_tokens, output_tokens;
} fake;

/* Timers: a binary heap by due. */

static void heap_put(fake *f, conn *c, int i)
{
    f->heap[i] = c;
    c->place = i;
}

static void heap_up(fake *f, conn *c, int i)
{
    for (; i > 0 && f->heap[(i - 1) / 2]->due > c->due; i = (i - 1) / 2)
        heap_put(f, f->heap[(i - 1) / 2], i);
    heap_put(f, c, i);
}

static void heap_down(fake *f, conn *c, int i)
{
    for (int child; (child = 2 * i + 1) < f->n_heap; i = child) {
        if (child + 1 < f->n_heap && f->heap[child + 1]->due < f->heap[child]->due)
            child++;
        if (f->heap[child]->due >= c->due)
            break;
        heap_put(f, f->heap[child], i);
    }
    heap_put(f, c, i);
}

static void unset_time(fake *f, conn *c)
{
    int i = c->place;
    if (i < 0)
        return;
    c->place = -1;
    conn *last = f->heap[--f->n_heap];
    if (last == c)
        return;
    heap_down(f, last, i);
    heap_up(f, last, last->place);
}

/* c has something to do at `due`, or at the end of the stall in which that lies. */
static void set_time(fake *f, conn *c, int64_t due)
{
    unset_time(f, c);
    c->due = f->first + fake_after_stall(&f->plan, due - f->first);
    heap_up(f, c, f->n_heap++);
}

static void arm(fake *f)
{
    int64_t due = f->n_heap > 0 ? f->heap[0]->due : 0;
    if (due == f->armed)
        return;
    f->armed = due;
    struct itimerspec at = {.it_value = {due / 1000000000, due % 1000000000}};
    timerfd_settime(f->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void note(fake *f, int64_t t, uint64_t id, const char *event, const char *word, int n)
{
    if (f->log && word)
        fprintf(f->log, "%" PRId64 " %" PRIu64 " %s %s %d\n", t, id, event, word, n);
    else if (f->log)
        fprintf(f->log, "%" PRId64 " %" PRIu64 " %s %d\n", t, id, event, n);
}

/* Connections. */

static void watch(fake *f, conn *c, bool writing)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | (writing ? EPOLLOUT : 0),
                            .data = {.ptr = c}};
    if (c->writing != writing)
        epoll_ctl(f->epoll, EPOLL_CTL_MOD, c->fd, &e);
    c->writing = writing;
}

static void leave_line(fake *f, conn *c)
{
    for (conn **at = &f->line; *at; at = &(*at)->next) {
        if (*at != c)
            continue;
        *at = c->next;
        if (!c->next)
            f->line_end = at;
        break;
    }
    f->waiting--;
}

/* The request is over, whichever way. */
static void leave(fake *f, conn *c)
{
    unset_time(f, c);
    if (c->phase == QUEUED)
        leave_line(f, c);
    if (c->phase == SERVED || c->phase == NEVER)
        f->running--;
    f->silent -= c->phase == NEVER;
    c->phase = READING;
}

static void drop(fake *f, conn *c)
{
    if (c->dead)
        return;
    leave(f, c);
    close(c->fd);
    c->dead = true;
    c->next = f->dead;
    f->dead = c;
}

static void bury(fake *f)
{
    for (conn *c; (c = f->dead);) {
        f->dead = c->next;
        f->n_conns--;
        cp_buf_fini(&c->in);
        cp_buf_fini(&c->out);
        free(c);
    }
}

/* Send what is in out; what has no room waits. A client that reads nothing for too long is cut. */
static void flush(fake *f, conn *c)
{
    while (!c->dead && c->out.n > 0) {
        ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno != EAGAIN || c->out.n > PENDING)) {
            if (c->phase != READING)
                note(f, cp_now_ns(), c->id, "gone", NULL, 0);
            drop(f, c);
            return;
        }
        if (n < 0)
            break;
        cp_buf_consume(&c->out, (size_t)n);
    }
    if (c->dead)
        return;
    watch(f, c, c->out.n > 0);
    if (c->shut && c->out.n == 0)
        drop(f, c);
}

static const char *reason(int status)
{
    return status == 200 ? "OK" : status == 429 ? "Too Many Requests" : "Trouble";
}

/* An answer with a length; the connection stays open unless the client wants it closed. */
static void answer(fake *f, conn *c, int status, const char *type, const char *body)
{
    c->shut = c->shut || c->head.close;
    cp_buf_printf(
        &c->out,
        "HTTP/1.1 %d %s\r\nServer: %s\r\nContent-Type: %s\r\n%s%sContent-Length: %zu\r\n\r\n%s",
        status, reason(status), f->plan.server, type,
        status == 429 || status == 503 ? "Retry-After: 1\r\n" : "",
        c->shut ? "Connection: close\r\n" : "", strlen(body), body);
    flush(f, c);
}

static void answer_error(fake *f, conn *c, int status, const char *code)
{
    char body[256];
    cp_snprintf(body, sizeof(body),
                "{\"error\":{\"message\":\"the fake server was told "
                "to\",\"type\":\"fake\",\"param\":null,\"code\":\"%s\"}}",
                code);
    answer(f, c, status, "application/json", body);
}

/* A chunk of the chunked body, which is one event of the stream. */
static void event(conn *c, const char *data)
{
    cp_buf_printf(&c->out, "%zx\r\ndata: %s\n\n\r\n", strlen(data) + 8, data);
}

/* The head of a chunk's JSON, up to its choices. */
static size_t chunk_head(const fake *f, const conn *c, char *p, size_t cap)
{
    return cp_snprintf(
        p, cap, "{\"id\":\"fake-%" PRIu64 "\",\"object\":\"%s\",\"created\":1,\"model\":\"%s\",%s",
        c->id, c->chat ? "chat.completion.chunk" : "text_completion", f->plan.model,
        c->body.usage ? "\"usage\":null," : "");
}

static void role(fake *f, conn *c)
{
    char p[512];
    if (!c->chat)
        return;
    size_t n = chunk_head(f, c, p, sizeof(p));
    cp_snprintf(p + n, sizeof(p) - n,
                "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                "\"finish_reason\":null}]}");
    event(c, p);
    note(f, cp_now_ns(), c->id, "role", NULL, 0);
}

static void tokens(fake *f, conn *c)
{
    char p[512], text[64] = "";
    int k = c->total - c->sent < f->plan.per_chunk ? c->total - c->sent : f->plan.per_chunk;
    size_t n = chunk_head(f, c, p, sizeof(p)), at = 0;
    for (int i = 0; i < k && at + 8 < sizeof(text); i++)
        at += cp_snprintf(text + at, sizeof(text) - at, " %d", (c->sent + i) % 1000);
    if (c->chat)
        cp_snprintf(
            p + n, sizeof(p) - n,
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_reason\":null}]}",
            text);
    else
        cp_snprintf(p + n, sizeof(p) - n,
                    "\"choices\":[{\"index\":0,\"text\":\"%s\",\"finish_reason\":null}]}", text);
    c->sent += k;
    f->output_tokens += (uint64_t)k;
    event(c, p);
}

static size_t usage(const conn *c, char *p, size_t cap)
{
    return cp_snprintf(
        p, cap, "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}",
        c->body.prompt_tokens, c->total, c->body.prompt_tokens + c->total);
}

static const char *finish_reason(const conn *c)
{
    return c->body.max_tokens > 0 && c->total >= c->body.max_tokens ? "length" : "stop";
}

/* The chunks after the last token, and the end of the body. */
static void finish(fake *f, conn *c, bool done)
{
    char p[512], u[128];
    size_t n = chunk_head(f, c, p, sizeof(p));
    cp_snprintf(p + n, sizeof(p) - n, "\"choices\":[{\"index\":0,%s,\"finish_reason\":\"%s\"}]}",
                c->chat ? "\"delta\":{}" : "\"text\":\"\"", finish_reason(c));
    event(c, p);
    if (c->body.usage && done) {
        usage(c, u, sizeof(u));
        cp_snprintf(p, sizeof(p),
                    "{\"id\":\"fake-%" PRIu64
                    "\",\"object\":\"%s\",\"created\":1,\"model\":\"%s\",\"choices\":[],%s}",
                    c->id, c->chat ? "chat.completion.chunk" : "text_completion", f->plan.model, u);
        event(c, p);
    }
    if (done)
        event(c, "[DONE]");
    cp_buf_adds(&c->out, "0\r\n\r\n");
}

/* What a request is told that does not want a stream. */
static void whole_answer(fake *f, conn *c)
{
    cp_buf b = {0};
    char u[128];
    usage(c, u, sizeof(u));
    cp_buf_printf(
        &b,
        "{\"id\":\"fake-%" PRIu64
        "\",\"object\":\"%s\",\"created\":1,\"model\":\"%s\",%s,\"choices\":[{\"index\":0,%s",
        c->id, c->chat ? "chat.completion" : "text_completion", f->plan.model, u,
        c->chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"");
    for (int i = 0; i < c->total; i++)
        cp_buf_printf(&b, " %d", i % 1000);
    cp_buf_printf(&b, "\"%s,\"finish_reason\":\"%s\"}]}", c->chat ? "}" : "", finish_reason(c));
    note(f, cp_now_ns(), c->id, "chunk", NULL, c->total);
    f->output_tokens += (uint64_t)c->total;
    leave(f, c);
    answer(f, c, 200, "application/json", b.failed ? "{}" : b.p);
    cp_buf_fini(&b);
    note(f, cp_now_ns(), c->id, "end", NULL, 0);
}

/* Requests: the line, the service, its end. */

static void begin(fake *f, conn *c, int64_t now)
{
    c->phase = SERVED;
    f->running++;
    note(f, now, c->id, "begun", NULL, 0);
    double wait = fake_draw(&f->plan.ttft, c->id - 1);
    if (!c->body.stream) {
        for (int i = f->plan.per_chunk; i < c->total; i += f->plan.per_chunk)
            wait += fake_draw(&f->plan.gap, c->id - 1 + c->draws++);
    } else {
        cp_buf_printf(&c->out,
                      "HTTP/1.1 200 OK\r\nServer: %s\r\nContent-Type: "
                      "text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                      f->plan.server);
        if (!f->plan.role_late)
            role(f, c);
        flush(f, c);
    }
    if (!c->dead)
        set_time(f, c, now + (int64_t)(wait * 1e6));
}

/* Those in line whose turn it is. */
static void serve_line(fake *f)
{
    while (f->line && (f->plan.concurrent == 0 || f->running - f->silent < f->plan.concurrent)) {
        conn *c = f->line;
        int64_t now = cp_now_ns();
        if (f->plan.rate > 0 && f->next_begin > now) {
            if (c->place < 0)
                set_time(f, c, f->next_begin);
            return;
        }
        int64_t step = f->plan.rate > 0 ? (int64_t)(1e9 / f->plan.rate) : 0;
        f->next_begin = (f->next_begin + step < now ? now : f->next_begin) + step;
        leave(f, c);
        begin(f, c, now);
    }
}

static void enqueue(fake *f, conn *c)
{
    c->phase = QUEUED;
    c->next = NULL;
    *f->line_end = c;
    f->line_end = &c->next;
    f->waiting++;
    serve_line(f);
}

/* The fault of a stream, which is over then. */
static void cut(fake *f, conn *c, int64_t now)
{
    fake_kind kind = c->fault->kind;
    if (kind == FAKE_ERROR)
        note(f, now, c->id, "error", NULL, c->sent);
    else
        note(f, now, c->id, "cut", kind == FAKE_RST ? "rst" : "fin", c->sent);
    if (kind == FAKE_ERROR) {
        event(c, "{\"error\":{\"message\":\"the fake server was told "
                 "to\",\"type\":\"server_error\",\"param\":null,\"code\":\"internal_error\"}}");
        cp_buf_adds(&c->out, "0\r\n\r\n");
        leave(f, c);
        flush(f, c);
        return;
    }
    if (kind == FAKE_RST) {
        struct linger hard = {.l_onoff = 1};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    }
    drop(f, c);
}

/* A stream's next chunk is due. */
static void step(fake *f, conn *c, int64_t now)
{
    if (!c->body.stream) {
        whole_answer(f, c);
        return;
    }
    if (c->cut_at >= 0 && c->sent >= c->cut_at) {
        cut(f, c, now);
        return;
    }
    if (c->sent == 0 && f->plan.role_late)
        role(f, c);
    int64_t t = cp_now_ns();
    tokens(f, c);
    bool last = c->sent >= c->total, done = !c->fault || c->fault->kind != FAKE_NODONE;
    if (last && c->cut_at < 0)
        finish(f, c, done);
    note(f, t, c->id, "chunk", NULL, c->sent);
    flush(f, c);
    if (c->dead)
        return;
    if (last && c->cut_at < 0) {
        note(f, cp_now_ns(), c->id, done ? "end" : "nodone", NULL, 0);
        leave(f, c);
        c->shut = c->head.close;
        flush(f, c);
        return;
    }
    set_time(f, c, c->due + (int64_t)(fake_draw(&f->plan.gap, c->id - 1 + c->draws++) * 1e6));
}

static void generate(fake *f, conn *c)
{
    const char *body = c->in.p + c->head.head_bytes;
    if (!fake_parse_body(body, c->head.body_bytes, &c->body)) {
        answer_error(f, c, 400, "invalid_json");
        return;
    }
    int64_t now = cp_now_ns();
    if (f->first == 0)
        f->first = now;
    c->id = ++f->requests;
    c->draws = 0;
    c->sent = 0;
    c->fault = fake_fault_of(&f->plan, c->id);
    f->prompt_tokens += (uint64_t)c->body.prompt_tokens;
    double n = f->plan.tokens.n > 0     ? fake_draw(&f->plan.tokens, c->id - 1)
               : c->body.max_tokens > 0 ? c->body.max_tokens
                                        : 16;
    if (c->body.max_tokens > 0 && n > c->body.max_tokens)
        n = c->body.max_tokens;
    c->total = n < 1 ? 1 : n > MAX_TOKENS ? MAX_TOKENS : (int)n;
    note(f, now, c->id, "received", c->chat ? "chat" : "completions", c->body.prompt_tokens);
    c->cut_at = -1;
    fake_kind kind = c->fault ? c->fault->kind : FAKE_NONE;
    if (kind == FAKE_STATUS) {
        note(f, now, c->id, "refused", NULL, c->fault->status);
        answer_error(f, c, c->fault->status, "refused");
        return;
    }
    if (kind == FAKE_NEVER) {
        note(f, now, c->id, "never", NULL, 0);
        c->phase = NEVER;
        f->running++;
        f->silent++;
        return;
    }
    if (kind == FAKE_RST || kind == FAKE_FIN || kind == FAKE_ERROR)
        c->cut_at = c->fault->tokens >= 0 ? c->fault->tokens : c->total / 2;
    enqueue(f, c);
}

static void metrics(fake *f, conn *c)
{
    static const struct {
        const char *family, *running, *waiting, *usage, *prompt, *output;
    } rows[] = {{"vllm", "vllm:num_requests_running{model_name=\"%s\"}",
                 "vllm:num_requests_waiting{model_name=\"%s\"}",
                 "vllm:kv_cache_usage_perc{model_name=\"%s\"}",
                 "vllm:prompt_tokens_total{model_name=\"%s\"}",
                 "vllm:generation_tokens_total{model_name=\"%s\"}"},
                {"capstan", "capstan_sequences{model=\"%s\",state=\"decode\"}",
                 "capstan_sequences{model=\"%s\",state=\"waiting\"}",
                 "capstan_kv_pages{model=\"%s\",state=\"used\"}",
                 "capstan_prompt_tokens_total{model=\"%s\"}",
                 "capstan_generation_tokens_total{model=\"%s\"}"},
                {"llamacpp", "llamacpp:requests_processing", "llamacpp:requests_deferred",
                 "llamacpp:kv_cache_usage_ratio", "llamacpp:prompt_tokens_total",
                 "llamacpp:tokens_predicted_total"}};
    cp_buf b = {0};
    double full = f->plan.concurrent > 0 ? f->plan.concurrent : f->plan.connections;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].family, f->plan.metrics) != 0)
            continue;
        bool pages = strcmp(f->plan.metrics, "capstan") == 0;
        const char *name[] = {rows[i].running, rows[i].waiting, rows[i].usage, rows[i].prompt,
                              rows[i].output};
        double v[] = {f->running, f->waiting, pages ? f->running : f->running / full,
                      (double)f->prompt_tokens, (double)f->output_tokens};
        for (size_t k = 0; k < 5; k++) {
            const char *s = strstr(name[k], "%s");
            cp_buf_add(&b, name[k], s ? (size_t)(s - name[k]) : strlen(name[k]));
            if (s) {
                cp_buf_adds(&b, f->plan.model);
                cp_buf_adds(&b, s + 2);
            }
            cp_buf_printf(&b, " %.17g\n", v[k]);
        }
        if (pages)
            cp_buf_printf(&b, "capstan_kv_pages{model=\"%s\",state=\"free\"} %.17g\n",
                          f->plan.model, full - f->running);
    }
    bool any = b.n > 0;
    cp_buf_printf(&b, "fake_requests_silent %d\n", f->silent);
    answer(f, c, any ? 200 : 404, "text/plain", any ? b.p : "none\n");
    cp_buf_fini(&b);
}

/* A token is a word here, as in usage. */
static void tokenize(fake *f, conn *c)
{
    cp_buf b = {0};
    if (!fake_parse_body(c->in.p + c->head.head_bytes, c->head.body_bytes, &c->body)) {
        answer_error(f, c, 400, "invalid_json");
        return;
    }
    cp_buf_printf(&b, "{\"count\":%d,\"tokens\":[", c->body.prompt_tokens);
    for (int i = 0; i < c->body.prompt_tokens; i++)
        cp_buf_printf(&b, "%s%d", i > 0 ? "," : "", i);
    cp_buf_adds(&b, "]}");
    answer(f, c, 200, "application/json", b.p);
    cp_buf_fini(&b);
}

static void models(fake *f, conn *c)
{
    char body[512];
    cp_snprintf(body, sizeof(body),
                "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":1,"
                "\"owned_by\":\"fake\"}]}",
                f->plan.model);
    answer(f, c, 200, "application/json", body);
}

/* A whole request is in the buffer. */
static void route(fake *f, conn *c)
{
    const fake_head *h = &c->head;
    bool post = strcmp(h->method, "POST") == 0;
    c->chat = strcmp(h->path, "/v1/chat/completions") == 0;
    if (f->plan.key && strcmp(h->key, f->plan.key) != 0)
        answer_error(f, c, 401, "invalid_api_key");
    else if (post && (c->chat || strcmp(h->path, "/v1/completions") == 0))
        generate(f, c);
    else if (post && strcmp(h->path, "/tokenize") == 0)
        tokenize(f, c);
    else if (!post && strcmp(h->path, "/v1/models") == 0)
        models(f, c);
    else if (!post && strcmp(h->path, "/metrics") == 0)
        metrics(f, c);
    else if (!post && strcmp(h->path, "/health") == 0)
        answer(f, c, 200, "application/json", "{}");
    else
        answer_error(f, c, 404, "not_found");
}

/* Requests that are whole, one after the other. */
static void take(fake *f, conn *c)
{
    while (!c->dead && !c->shut && c->phase == READING && c->in.n > 0) {
        fake_parse r = fake_parse_head(c->in.p, c->in.n, &c->head);
        if (r == FAKE_MORE ||
            (r == FAKE_READY && c->in.n - c->head.head_bytes < c->head.body_bytes))
            return;
        if (r == FAKE_BAD) {
            c->shut = true;
            answer_error(f, c, 400, "bad_request");
            return;
        }
        size_t n = c->head.head_bytes + c->head.body_bytes;
        route(f, c);
        if (!c->dead)
            cp_buf_consume(&c->in, n);
    }
}

static void readable(fake *f, conn *c)
{
    char p[16 << 10];
    for (;;) {
        ssize_t n = recv(c->fd, p, sizeof(p), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            if (c->phase != READING)
                note(f, cp_now_ns(), c->id, "gone", NULL, 0);
            drop(f, c);
            return;
        }
        if (!cp_buf_add(&c->in, p, (size_t)n)) {
            drop(f, c);
            return;
        }
        if ((size_t)n < sizeof(p))
            break;
    }
    take(f, c);
}

static void take_conns(fake *f)
{
    int fd, one = 1;
    while ((fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        conn *c = f->n_conns < f->plan.connections ? calloc(1, sizeof(*c)) : NULL;
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data = {.ptr = c}};
        if (!c || epoll_ctl(f->epoll, EPOLL_CTL_ADD, fd, &e) != 0) {
            free(c);
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        c->fd = fd;
        c->place = -1;
        c->in.max = FAKE_HEAD + FAKE_BODY;
        f->n_conns++;
    }
}

/* Everything whose time has come. */
static void due(fake *f)
{
    uint64_t count;
    if (read(f->timer, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return;
    f->armed = 0;
    for (int64_t now = cp_now_ns(); f->n_heap > 0 && f->heap[0]->due <= now; now = cp_now_ns()) {
        conn *c = f->heap[0];
        f->late = now - c->due > f->late ? now - c->due : f->late;
        unset_time(f, c);
        if (c->phase == SERVED)
            step(f, c, now);
        if (!c->dead)
            take(f, c);
        serve_line(f);
    }
}

static bool add(int epoll, int fd, void *what)
{
    struct epoll_event e = {.events = EPOLLIN, .data = {.ptr = what}};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

static bool setup(fake *f, int *port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(sa);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    f->line_end = &f->line;
    f->heap = calloc((size_t)f->plan.connections + 1, sizeof(f->heap[0]));
    f->log = f->plan.log ? fopen(f->plan.log, "we") : NULL;
    f->epoll = epoll_create1(EPOLL_CLOEXEC);
    f->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (!f->heap || (f->plan.log && !f->log) || f->epoll < 0 || f->timer < 0 || f->listener < 0 ||
        bind(f->listener, (const struct sockaddr *)&sa, sizeof(sa)) != 0 ||
        listen(f->listener, 4096) != 0 ||
        getsockname(f->listener, (struct sockaddr *)&sa, &len) != 0)
        return false;
    *port = ntohs(sa.sin_port);
    return add(f->epoll, f->listener, &f->listener) && add(f->epoll, f->timer, &f->timer);
}

static void loop(fake *f)
{
    struct epoll_event e[EVENTS];
    int64_t end = cp_now_ns() + (int64_t)(f->plan.seconds * 1e9), left;
    int input = STDIN_FILENO;
    char junk[64];
    /* a file or /dev/null cannot be waited for: then only the time ends this program */
    add(f->epoll, STDIN_FILENO, &input);
    while ((left = end - cp_now_ns()) > 0) {
        arm(f);
        int n = epoll_wait(f->epoll, e, EVENTS, (int)(left / 1000000) + 1);
        for (int i = 0; i < n; i++) {
            void *what = e[i].data.ptr;
            conn *c = what;
            if (what == &input) {
                if (read(STDIN_FILENO, junk, sizeof(junk)) <= 0)
                    return;
            } else if (what == &f->listener) {
                take_conns(f);
            } else if (what == &f->timer) {
                due(f);
            } else if (!c->dead) {
                if (e[i].events & EPOLLOUT)
                    flush(f, c);
                if (!c->dead && (e[i].events & ~(uint32_t)EPOLLOUT))
                    readable(f, c);
            }
        }
        serve_line(f); /* who left has made room */
        bury(f);
    }
}

int main(int argc, char **argv)
{
    fake f = {0};
    int port;
    signal(SIGPIPE, SIG_IGN);
    if (!fake_plan_parse(&f.plan, argc, argv))
        return 2;
    if (!setup(&f, &port)) {
        perror("fake_llm");
        return 1;
    }
    if (f.log)
        setvbuf(f.log, NULL, _IOFBF, 1 << 20);
    printf("%d\n", port);
    fflush(stdout);
    loop(&f);
    note(&f, cp_now_ns(), 0, "late", NULL, (int)(f.late / 1000));
    if (f.log)
        fclose(f.log);
    return 0;
}
