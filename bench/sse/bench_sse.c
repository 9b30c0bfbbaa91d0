/*
 * A pair of measurements: the real server over the fake engine, then the bare server with events of
 * the same size. Everything between is counted: detokenizing, stop strings, JSON, HTTP, the fake
 * engine's own thread.
 */
#include "bench/sse/bench_sse.h"

#include "base/append.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sandbox.h"
#include "bench/sse/fake_engine.h"
#include "server/listen.h"
#include "server/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int64_t cp_sse_cpu_ns(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000 +
           ((int64_t)u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

static void nap_ms(int ms)
{
    struct timespec ts = {.tv_nsec = ms * 1000000L};
    nanosleep(&ts, NULL);
}

static int32_t script(void *arg, const cp_request *r, int choice, int index)
{
    (void)arg;
    (void)r;
    (void)choice;
    (void)index;
    return CP_FAKE_TOK;
}

/* ---- the real server ---- */

/* What of it is opened beside the fake engine, and in which order: as app/cmd_serve.c has it. */
typedef struct real {
    cp_listener listener;
    cp_fake *fake;
    cp_fake_meta *meta;
    cp_append *audit;
    cp_metrics *process, *model;
    cp_server_config cfg;
    cp_server *server;
} real;

static cp_code open_kept(void *arg, const char *path, int *fd, cp_err *err)
{
    *fd = dup(*(const int *)arg);
    return *fd >= 0 ? CP_OK : cp_fail(err, CP_IO, "%s: cannot be kept", path);
}

/* A port, then the files are given away, while there is one thread. */
static cp_code open_outside(real *r, const cp_sse_around *around, cp_err *err)
{
    const cp_sandbox_config walls = {0};
    cp_code rc = cp_listen(&r->listener, "127.0.0.1", 0, NULL, err);
    if (rc == CP_OK && around->sandbox && !cp_sandbox_files(&walls, err) && around->must)
        rc = CP_UNSUPPORTED;
    return rc;
}

static cp_code close_rest(const cp_sse_around *around, cp_err *err)
{
    const cp_sandbox_config walls = {0};
    cp_code rc = around->sandbox ? cp_sandbox_calls(&walls, err) : CP_OK;
    return around->must ? rc : CP_OK;
}

static cp_code open_inside(real *r, const cp_sse_load *load, cp_err *err)
{
    int fd = load->around.audit_fd;
    const cp_append_config audit = {
        .path = "the audit log", .bytes = 4 << 20, .open = open_kept, .arg = &fd};
    cp_fake_config fc = {
        .ctx = 65536, .max_queue = load->streams, .step_ns = load->step_ns, .script = script};
    r->fake = cp_fake_open(&fc);
    cp_fake_set_hold(r->fake, CP_FAKE_PREFILL);
    r->meta = cp_fake_meta_new();
    r->process = cp_metrics_new(NULL);
    r->model = cp_metrics_new("bench");
    r->cfg = (cp_server_config){.listener = &r->listener,
                                .engine = cp_fake_api(r->fake),
                                .version = "bench",
                                .metrics = r->process,
                                .trace_fd = load->around.trace_fd};
    cp_code rc = cp_jobs_open(&r->cfg.jobs, 2, load->streams, err);
    rc = rc || fd < 0 ? rc : cp_append_open(&r->audit, &audit, err);
    r->cfg.audit = r->audit;
    return rc ? rc : cp_server_open(&r->server, &r->cfg, err);
}

static cp_code publish(real *r, cp_err *err)
{
    static const char source[] = "{% for m in messages %}{{ m.content }}{% endfor %}";
    const char *id = "bench";
    cp_served *served;
    cp_tokenizer *tok;
    cp_template *tmpl;
    cp_code rc = cp_tokenizer_open(&tok, cp_fake_meta_view(r->meta), err);
    rc = rc ? rc : cp_template_open(&tmpl, source, sizeof(source) - 1, err);
    rc = rc ? rc : cp_server_reserve_model(r->server, &id, 1, &served, err);
    if (rc != CP_OK)
        return rc;
    cp_server_model m = {.tokenizer = tok,
                         .quantization = "none",
                         .fingerprint = "fake",
                         .defaults = cp_sampling_defaults_off(),
                         .metrics = r->model};
    m.templates.of[CP_TEMPLATE_DEFAULT] = tmpl;
    return cp_server_publish_model(r->server, served, &m, err);
}

/* In a process of its own, which ends with it: tokenizer and template go with that. */
static int64_t real_server(const cp_sse_load *load, cp_sse_ready *ready, void *arg)
{
    cp_err err = {0};
    real r = {0};
    cp_log_setup(CP_LOG_WARN, false);
    cp_code rc = open_outside(&r, &load->around, &err);
    rc = rc ? rc : open_inside(&r, load, &err);
    rc = rc ? rc : publish(&r, &err);
    rc = rc ? rc : close_rest(&load->around, &err);
    if (rc != CP_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    cp_server_ready(r.server);
    ready(arg, cp_server_port(r.server));
    while (cp_fake_read(r.fake).submitted < load->streams)
        nap_ms(1);
    int64_t start = cp_sse_cpu_ns();
    cp_fake_set_hold(r.fake, CP_FAKE_RUN);
    while (cp_server_active(r.server) > 0)
        nap_ms(5);
    int64_t cpu = cp_sse_cpu_ns() - start;
    cp_fake_stop(r.fake);
    cp_server_close(r.server);
    (void)cp_append_close(r.audit, 60000);
    cp_jobs_close(r.cfg.jobs);
    return cpu;
}

/* ---- a pair ---- */

typedef int64_t server_fn(const cp_sse_load *load, cp_sse_ready *ready, void *arg);
typedef struct result {
    double us_per_token;
    cp_sse_read read;
} result;

static void put_port(void *arg, int port)
{
    int fd = *(int *)arg;
    if (write(fd, &port, sizeof(port)) != (ssize_t)sizeof(port))
        _exit(1);
}

/* One server process, one reader process. */
static bool measure(server_fn *server, const cp_sse_load *load, result *out)
{
    int up[2], down[2], port = 0;
    int64_t cpu = -1;
    if (pipe(up) != 0 || pipe(down) != 0)
        return false;
    pid_t sp = fork();
    if (sp == 0) {
        int64_t ns = server(load, put_port, &up[1]);
        _exit(write(up[1], &ns, sizeof(ns)) == (ssize_t)sizeof(ns) ? 0 : 1);
    }
    bool ok = read(up[0], &port, sizeof(port)) == (ssize_t)sizeof(port);
    pid_t cp = fork();
    if (cp == 0) {
        cp_sse_read r = cp_sse_client(load, port);
        _exit(write(down[1], &r, sizeof(r)) == (ssize_t)sizeof(r) ? 0 : 1);
    }
    ok = ok && read(down[0], &out->read, sizeof(out->read)) == (ssize_t)sizeof(out->read);
    ok = ok && read(up[0], &cpu, sizeof(cpu)) == (ssize_t)sizeof(cpu) && cpu > 0;
    waitpid(cp, NULL, 0);
    waitpid(sp, NULL, 0);
    close(up[0]);
    close(up[1]);
    close(down[0]);
    close(down[1]);
    out->us_per_token = (double)cpu / 1e3 / ((double)load->streams * load->tokens);
    return ok && out->read.failed == 0;
}

cp_code cp_sse_measure(const cp_sse_load *load, cp_sse_pair *out, cp_err *err)
{
    cp_sse_load same = *load;
    result ours, bare;
    if (!measure(real_server, load, &ours))
        return cp_fail(err, CP_INTERNAL, "the server's run failed");
    same.event_bytes = (int)(ours.read.bytes / ((int64_t)load->streams * load->tokens));
    if (!measure(cp_sse_bare, &same, &bare))
        return cp_fail(err, CP_INTERNAL, "the bare server's run failed");
    *out = (cp_sse_pair){.server_us = ours.us_per_token,
                         .bare_us = bare.us_per_token,
                         .event_bytes = same.event_bytes,
                         .events_per_token =
                             (double)ours.read.events / ((double)load->streams * load->tokens)};
    return CP_OK;
}
