/*
 * A pair of measurements: the real server over the fake engine, then the bare server with events of
 * the same size. Everything between is counted: detokenizing, stop strings, JSON, HTTP, the fake
 * engine's own thread.
 */
#include "bench/sse/bench_sse.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "bench/sse/fake_engine.h"
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

static int64_t real_server(const cp_sse_load *load, cp_sse_ready *ready, void *arg)
{
    static const char source[] = "{% for m in messages %}{{ m.content }}{% endfor %}";
    cp_err err;
    cp_fake_config fc = {
        .ctx = 65536, .max_queue = load->streams, .step_ns = load->step_ns, .script = script};
    cp_fake *fake = cp_fake_open(&fc);
    cp_fake_set_hold(fake, CP_FAKE_PREFILL);
    cp_fake_meta *meta = cp_fake_meta_new();
    cp_tokenizer *tok = NULL;
    cp_template *tmpl = NULL;
    cp_server *s = NULL;
    const char *id = "bench";
    cp_served *served;
    cp_server_model m = {
        .quantization = "none", .fingerprint = "fake", .defaults = cp_sampling_defaults_off()};
    cp_server_config sc = {.engine = cp_fake_api(fake)};
    cp_log_setup(CP_LOG_WARN, false);
    if (cp_jobs_open(&sc.jobs, 2, load->streams, &err) != CP_OK ||
        cp_tokenizer_open(&tok, cp_fake_meta_view(meta), &err) != CP_OK ||
        cp_template_open(&tmpl, source, sizeof(source) - 1, &err) != CP_OK ||
        cp_server_open(&s, &sc, &err) != CP_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    m.tokenizer = tok;
    m.templates.of[CP_TEMPLATE_DEFAULT] = tmpl;
    if (cp_server_reserve_model(s, &id, 1, &served, &err) != CP_OK ||
        cp_server_publish_model(s, served, &m, &err) != CP_OK)
        return -1;
    cp_server_ready(s);
    ready(arg, cp_server_port(s));
    while (cp_fake_read(fake).submitted < load->streams)
        nap_ms(1);
    int64_t start = cp_sse_cpu_ns();
    cp_fake_set_hold(fake, CP_FAKE_RUN);
    while (cp_server_active(s) > 0)
        nap_ms(5);
    int64_t cpu = cp_sse_cpu_ns() - start;
    cp_fake_stop(fake);
    cp_server_close(s);
    cp_jobs_close(sc.jobs);
    return cpu;
}

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
    result real, bare;
    if (!measure(real_server, load, &real))
        return cp_fail(err, CP_INTERNAL, "the server's run failed");
    same.event_bytes = (int)(real.read.bytes / ((int64_t)load->streams * load->tokens));
    if (!measure(cp_sse_bare, &same, &bare))
        return cp_fail(err, CP_INTERNAL, "the bare server's run failed");
    *out = (cp_sse_pair){.server_us = real.us_per_token,
                         .bare_us = bare.us_per_token,
                         .event_bytes = same.event_bytes,
                         .events_per_token =
                             (double)real.read.events / ((double)load->streams * load->tokens)};
    return CP_OK;
}
