/*
 * bench_sse [STREAMS] [TOKENS] [STEPS_PER_SECOND] [PAIRS]: CPU time a streamed token.
 *
 * The real server over the fake engine, then the bare server with events of the same size, in
 * alternating pairs. Everything between is counted: detokenizing, stop strings, JSON, HTTP, the
 * fake engine's own thread. Prints one JSON object a pair and one with the medians.
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
    m.template_ = tmpl;
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

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    enum { PAIRS_MAX = 32 };
    double real_us[PAIRS_MAX], bare_us[PAIRS_MAX];
    long arg[4] = {1000, 100, 20, 3};
    for (int i = 1; i < argc && i <= 4; i++)
        arg[i - 1] = strtol(argv[i], NULL, 10);
    if (argc > 5 || arg[0] < 1 || arg[0] > 8000 || arg[1] < 1 || arg[1] > 60000 || arg[2] < 1 ||
        arg[2] > 1000 || arg[3] < 1 || arg[3] > PAIRS_MAX) {
        fprintf(stderr, "usage: bench_sse [STREAMS 1..8000] [TOKENS 1..60000] "
                        "[STEPS_PER_SECOND 1..1000] [PAIRS 1..32]\n");
        return 2;
    }
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
    }
    cp_sse_load load = {
        .streams = (int)arg[0], .tokens = (int)arg[1], .step_ns = 1000000000 / arg[2]};
    size_t pairs = (size_t)arg[3];
    for (size_t i = 0; i < pairs; i++) {
        result real, bare;
        if (!measure(real_server, &load, &real)) {
            fprintf(stderr, "the server's run failed\n");
            return 1;
        }
        load.event_bytes = (int)(real.read.bytes / ((int64_t)load.streams * load.tokens));
        if (!measure(cp_sse_bare, &load, &bare)) {
            fprintf(stderr, "the bare server's run failed\n");
            return 1;
        }
        real_us[i] = real.us_per_token;
        bare_us[i] = bare.us_per_token;
        printf("{\"streams\":%d,\"tokens\":%d,\"bytes_per_token\":%d,\"events_per_token\":%.3f,"
               "\"server_us_per_token\":%.2f,\"bare_us_per_token\":%.2f}\n",
               load.streams, load.tokens, load.event_bytes,
               (double)real.read.events / ((double)load.streams * load.tokens), real.us_per_token,
               bare.us_per_token);
        fflush(stdout);
    }
    qsort(real_us, pairs, sizeof(real_us[0]), ascending);
    qsort(bare_us, pairs, sizeof(bare_us[0]), ascending);
    printf("{\"pairs\":%zu,\"median_server_us_per_token\":%.2f,"
           "\"median_bare_us_per_token\":%.2f}\n",
           pairs, real_us[pairs / 2], bare_us[pairs / 2]);
    return 0;
}
