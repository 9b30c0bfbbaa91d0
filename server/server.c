/*
 * This file opens, drains and closes a server, lets models in and out, and has the hooks that the
 * loop calls.
 *
 * Draining is a small state machine that the loop's tick moves on: run, grace (it still serves, and
 * says that it is not ready), refuse (what runs goes on), cut (what is left gets an error),
 * drained.
 */
#include "server/server.h"

#include "base/clock.h"
#include "base/log.h"
#include "server/events.h"
#include "server/json.h"
#include "server/life.h"
#include "server/meter.h"
#include "server/profile.h"
#include "server/routes.h"
#include "server/spans.h"
#include "server/trace.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MS(x) ((int64_t)(x)*1000000)
enum {
    HEADER_DEADLINE_MS = 10000,
    BODY_DEADLINE_MS = 60000,
    IDLE_MS = 75000,
    COMMENT_MS = 15000,
    BODY_BYTES = 256 << 20,
    SLOW_READER_MS = 30000,
    FLUSH_MS = 500, /* after the cut, for the error events to leave */
    CLOSE_MS = 1000 /* for the engine to let go */
};

cp_sampling_defaults cp_sampling_defaults_off(void)
{
    return (cp_sampling_defaults){
        .temperature = 1, .top_p = 1, .repetition_penalty = 1, .max_tokens = -1};
}

/* ---- rules ---- */

static char **copy_list(const char *const *list, size_t n)
{
    char **copy = cp_xcalloc(n + 1, sizeof(char *));
    for (size_t i = 0; i < n; i++)
        copy[i] = cp_xstrdup(list[i]);
    return copy;
}

static void free_list(char **list)
{
    for (char **p = list; *p; p++)
        free(*p);
    free(list);
}

static cp_rules *new_rules(const cp_server_config *cfg)
{
    cp_rules *r = cp_xcalloc(1, sizeof(*r));
    r->n_keys = cfg->n_keys;
    r->keys = cp_xcalloc(cfg->n_keys + 1, sizeof(*r->keys));
    if (cfg->n_keys > 0)
        memcpy(r->keys, cfg->keys, cfg->n_keys * sizeof(*r->keys));
    r->n_cors_origins = cfg->n_cors_origins;
    r->cors_origins = copy_list(cfg->cors_origins, cfg->n_cors_origins);
    r->n_allowed_hosts = cfg->n_allowed_hosts;
    r->allowed_hosts = copy_list(cfg->allowed_hosts, cfg->n_allowed_hosts);
    r->grace_ns = MS(cfg->drain_grace_ms);
    r->timeout_ns = MS(cfg->drain_timeout_ms);
    return r;
}

static void free_rules(cp_rules *r)
{
    free(r->keys);
    free_list(r->cors_origins);
    free_list(r->allowed_hosts);
    free(r);
}

static void take_rules(cp_server *s)
{
    cp_rules *next = atomic_exchange(&s->rules_to_come, NULL);
    if (!next)
        return;
    free_rules(s->rules);
    s->rules = next;
    sem_post(&s->taken);
}

/* ---- hooks: loop thread ---- */

static void on_gone(void *arg, cp_http_req *q)
{
    (void)arg;
    cp_call_left(cp_http_user(q));
}

static void on_drained(void *arg, cp_http_req *q)
{
    (void)arg;
    cp_call_drain(cp_http_user(q));
}

static void on_done(void *arg, cp_http_req *q)
{
    (void)arg;
    cp_call *c = cp_http_user(q);
    if (c)
        cp_call_done(c);
}

static cp_call *call_of(cp_mpsc_node *n)
{
    return (cp_call *)(void *)((char *)n - offsetof(cp_call, parsed_link));
}

static cp_request *request_of(cp_mpsc_node *n)
{
    return (cp_request *)(void *)((char *)n - offsetof(cp_request, ready_link));
}

/* Every call that is still answered gets an error, everything else is cancelled. */
static void cut_all(cp_server *s)
{
    cp_err err;
    cp_fail(&err, CP_OVERLOADED, "the server is shutting down");
    for (cp_call *c = s->calls, *next; c; c = next) {
        next = c->next;
        cp_call_cut(c, &err);
    }
}

/* A drain does not wait for what only looks on: it is answered with what it has seen. */
static void end_windows(cp_server *s, int64_t now)
{
    for (cp_call *c = s->calls, *next; c; c = next) {
        next = c->next;
        if (c->profile)
            cp_profile_tick(c, now);
    }
}

static void move_drain(cp_server *s, int64_t now)
{
    int state = atomic_load(&s->drain);
    if (state == CP_RUN)
        return;
    if (s->drain_since == 0) {
        s->drain_since = now;
        end_windows(s, now);
    }
    bool cut = atomic_load(&s->cut_asked);
    if (state == CP_GRACE && (cut || now - s->drain_since >= s->rules->grace_ns))
        state = CP_REFUSE;
    if (state == CP_REFUSE) {
        if (atomic_load(&s->n_active) == 0) {
            atomic_store(&s->clean, true);
            state = CP_DRAINED;
        } else if (cut || now - s->drain_since >= s->rules->grace_ns + s->rules->timeout_ns) {
            state = CP_CUT;
            s->cut_since = now;
            cut_all(s);
        }
    }
    if (state == CP_CUT && (atomic_load(&s->n_active) == 0 || now - s->cut_since >= MS(FLUSH_MS)))
        state = CP_DRAINED;
    atomic_store(&s->drain, state);
}

static void on_wake(void *arg)
{
    cp_server *s = arg;
    cp_mpsc_node *n;
    take_rules(s);
    while ((n = cp_mpsc_pop(&s->ready)))
        cp_call_ready(request_of(n));
    while ((n = cp_mpsc_pop(&s->parsed)))
        cp_call_parsed(call_of(n));
    if (atomic_load(&s->closing))
        cut_all(s);
    move_drain(s, cp_now_ns());
}

/* Small blocks of a tree that is gone stay with the allocator, page by page, until it is asked. */
static void give_memory_back(void *arg)
{
    (void)arg;
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

static void on_tick(void *arg, int64_t now)
{
    cp_server *s = arg;
    cp_meter_tick(s, now);
    cp_log_flush(now);
    cp_spans_flush(s);
    cp_trace_collect(s->trace_fd, s->metrics); /* the socket has room for some hundred reports */
    if (cp_budget_ebbed(s->budget))
        (void)cp_jobs_submit(s->jobs, give_memory_back, NULL); /* full: the next ebb does it */
    /* A push that was half done when the queue was last read is whole by now. */
    on_wake(s);
    for (cp_call *c = s->calls, *next; c; c = next) {
        next = c->next;
        cp_call_tick(c, now);
    }
}

/* ---- open ---- */

static void wake(void *arg)
{
    cp_http_wake(arg);
}

static void free_server(cp_server *s)
{
    cp_served_fini(&s->models);
    for (int i = 0; i < s->n_unknown; i++)
        free(s->unknown[i]);
    cp_buf_fini(&s->scratch);
    cp_buf_fini(&s->spans);
    cp_budget_free(s->budget);
    free_rules(s->rules);
    sem_destroy(&s->taken);
    free(s->version);
    free(s);
}

cp_code cp_server_open(cp_server **out, const cp_server_config *cfg, cp_err *err)
{
    *out = NULL;
    cp_json_setup();
    cp_server *s = cp_xcalloc(1, sizeof(*s));
    cp_served_init(&s->models);
    s->engine = *cfg->engine;
    CP_ASSERT(cfg->jobs);
    s->jobs = cfg->jobs;
    s->rules = new_rules(cfg);
    CP_ASSERT(sem_init(&s->taken, 0, 0) == 0);
    s->version = cp_xstrdup(cfg->version ? cfg->version : "");
    atomic_init(&s->deadline_ns, MS(cfg->deadline_ms));
    s->comment_ns = MS(cfg->keepalive_comment_ms > 0 ? cfg->keepalive_comment_ms : COMMENT_MS);
    s->slow_ns = MS(cfg->slow_reader_ms > 0 ? cfg->slow_reader_ms : SLOW_READER_MS);
    s->metrics = cfg->metrics;
    s->trace_fd = cfg->trace_fd > 0 ? cfg->trace_fd : -1;
    s->audit = cfg->audit;
    s->energy = cfg->energy;
    s->budget = cp_budget_new(cfg->body_bytes > 0 ? cfg->body_bytes : BODY_BYTES);
    atomic_init(&s->phase, "starting");
    cp_mpsc_init(&s->ready);
    cp_mpsc_init(&s->parsed);
    cp_http_config hc = {
        .host = cfg->host,
        .port = cfg->port,
        .uds = cfg->uds,
        .listener = cfg->listener,
        .header_deadline_ms =
            cfg->header_deadline_ms > 0 ? cfg->header_deadline_ms : HEADER_DEADLINE_MS,
        .body_deadline_ms = BODY_DEADLINE_MS,
        .idle_ms = IDLE_MS,
        .max_connections = cfg->max_connections > 0 ? cfg->max_connections : CP_SERVER_CONNECTIONS,
        .budget = s->budget,
        .hooks = {.arg = s,
                  .head = cp_route_head,
                  .request = cp_route_request,
                  .gone = on_gone,
                  .drained = on_drained,
                  .done = on_done,
                  .wake = on_wake,
                  .tick = on_tick},
    };
    cp_code code = cp_http_open(&s->http, &hc, err);
    if (code == CP_OK) {
        s->engine.set_front(s->engine.self, &s->ready, wake, s->http);
        code = cp_http_start(s->http, err);
    }
    if (code != CP_OK) {
        s->engine.set_front(s->engine.self, NULL, NULL, NULL);
        cp_http_close(s->http);
        free_server(s);
        return code;
    }
    *out = s;
    return CP_OK;
}

const char *cp_server_url(const cp_server *s)
{
    return cp_http_url(s->http);
}

int cp_server_port(const cp_server *s)
{
    return cp_http_port(s->http);
}

bool cp_server_exposed(const cp_server *s)
{
    return cp_http_port(s->http) != 0 && !cp_http_loopback(s->http);
}

void cp_server_phase(cp_server *s, cp_served *x, const char *phase, uint64_t done, uint64_t total,
                     uint64_t rate)
{
    if (x)
        cp_served_phase(x, phase, done, total, rate);
    /* Each value is exact; a probe that falls between two of them shows two moments. */
    atomic_store(&s->phase, phase);
    atomic_store(&s->load_done, done);
    atomic_store(&s->load_total, total);
    atomic_store(&s->load_rate, rate);
    cp_metric_set(s->metrics, CP_M_LOAD_BYTES, (int64_t)done);
    cp_metric_set(s->metrics, CP_M_LOAD_SIZE, (int64_t)total);
    cp_metric_set(s->metrics, CP_M_LOAD_RATE, (int64_t)rate);
}

void cp_server_change(cp_server *s, const cp_server_config *cfg)
{
    atomic_store(&s->deadline_ns, MS(cfg->deadline_ms));
    cp_budget_set_limit(s->budget, cfg->body_bytes > 0 ? cfg->body_bytes : BODY_BYTES);
    CP_ASSERT(atomic_exchange(&s->rules_to_come, new_rules(cfg)) == NULL);
    cp_http_wake(s->http);
    while (sem_wait(&s->taken) != 0) { /* EINTR */
    }
}

cp_code cp_server_shadow_model(cp_server *s, const char *const *ids, size_t n_ids, cp_served **out,
                               cp_err *err)
{
    return cp_served_shadow(&s->models, ids, n_ids, out, err);
}

cp_code cp_server_move_models(cp_server *s, const cp_server_move *moves, size_t n, bool dry,
                              cp_err *err)
{
    return cp_served_move(&s->models, moves, n, dry, err);
}

cp_code cp_server_reserve_model(cp_server *s, const char *const *ids, size_t n_ids, cp_served **out,
                                cp_err *err)
{
    return cp_served_reserve(&s->models, ids, n_ids, out, err);
}

cp_code cp_server_publish_model(cp_server *s, cp_served *x, const cp_server_model *m, cp_err *err)
{
    return cp_served_publish(&s->models, x, m, &s->engine, err);
}

void cp_server_unload_model(cp_server *s, cp_served *x, int64_t end_ns)
{
    cp_served_unload(&s->models, x, end_ns);
}

void cp_server_forget_model(cp_server *s, cp_served *x)
{
    cp_served_forget(&s->models, x);
}

void cp_server_ready(cp_server *s)
{
    atomic_store(&s->ready_to_serve, true);
    cp_server_phase(s, NULL, "serving", 0, 0, 0);
}

void cp_server_hasten(cp_server *s, const char *name, int64_t end_ns)
{
    cp_served_hasten(&s->models, name, end_ns);
}

void cp_server_set_host(cp_server *s, const cp_server_host *host)
{
    CP_ASSERT(!atomic_load(&s->ready_to_serve));
    s->host = *host;
}

/* ---- drain and close ---- */

void cp_server_drain_begin(cp_server *s)
{
    cp_http_drain(s->http);
    int run = CP_RUN;
    if (atomic_compare_exchange_strong(&s->drain, &run, CP_GRACE))
        cp_http_wake(s->http);
}

void cp_server_drain_now(cp_server *s)
{
    atomic_store(&s->cut_asked, true);
    cp_server_drain_begin(s);
    cp_http_wake(s->http);
}

bool cp_server_drain_poll(const cp_server *s, bool *clean)
{
    *clean = atomic_load(&s->clean);
    return atomic_load(&s->drain) == CP_DRAINED;
}

int cp_server_active(const cp_server *s)
{
    return atomic_load(&s->n_active);
}

void cp_server_close(cp_server *s)
{
    if (!s)
        return;
    atomic_store(&s->closing, true);
    cp_http_wake(s->http);
    const struct timespec nap = {.tv_nsec = 5000000};
    int64_t end = cp_now_ns() + MS(CLOSE_MS);
    /* A job is bounded in time and comes back to this server: it is waited for to its end. */
    while (atomic_load_explicit(&s->n_jobs, memory_order_acquire) > 0 ||
           (cp_now_ns() < end && atomic_load(&s->n_active) > 0)) {
        nanosleep(&nap, NULL);
        cp_http_wake(s->http);
    }
    /* From here on the engine, stopped or not, queues nothing here, wakes nobody, and drops what it
     * would hand back. */
    s->engine.set_front(s->engine.self, NULL, NULL, NULL);
    cp_http_close(s->http);
    cp_spans_flush(s);
    for (cp_mpsc_node *n; (n = cp_mpsc_pop(&s->ready));)
        cp_call_ready(request_of(n));
    for (cp_mpsc_node *n; (n = cp_mpsc_pop(&s->parsed));)
        cp_call_parsed(call_of(n));
    if (s->calls) {
        cp_log(CP_LOG_WARN, "server: the engine holds requests at the end; their memory is left");
        return;
    }
    free_server(s);
}
