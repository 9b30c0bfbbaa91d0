/*
 * bench sse: measures the CPU time of one streamed token (bench/sse): of the real server over a
 * fake engine, then of a bare program that sends events of the same size, in alternating pairs.
 */
#include "app/command.h"
#include "app/exporter.h"
#include "base/append.h"
#include "bench/sse/bench_sse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PAIRS_MAX = 32 };

typedef struct argument {
    const char *name;
    int most, value;
} argument;

static cp_code read_arguments(const cp_options *o, argument *a, cp_err *err)
{
    for (int i = 0; i < o->args.n; i++) {
        const char *text = o->args.p[i];
        size_t n = strspn(text, "0123456789");
        long v = n > 0 && n < 9 && !text[n] ? strtol(text, NULL, 10) : 0;
        if (v < 1 || v > a[i].most)
            return cp_fail(err, CP_USAGE, "bench sse: %s: got '%.40s'; allowed: an integer, 1..%d",
                           a[i].name, text, a[i].most);
        a[i].value = (int)v;
    }
    return CP_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void show(const cp_options *o, int i, const cp_sse_pair *p)
{
    if (o->json)
        printf("%s{\"bytes_per_token\":%d,\"events_per_token\":%.3f,\"server_us_per_token\":%.2f,"
               "\"bare_us_per_token\":%.2f}",
               i ? "," : "", p->event_bytes, p->events_per_token, p->server_us, p->bare_us);
    else
        printf("pair %d: %.2f us a token, bare %.2f (%d bytes an event, %.3f events a token)\n",
               i + 1, p->server_us, p->bare_us, p->event_bytes, p->events_per_token);
    fflush(stdout);
}

/* What o asks for around the server. The exporter is of this process, which forks the servers. */
static cp_code open_around(const cp_options *o, cp_child *exporter, cp_sse_around *around,
                           cp_err *err)
{
    bool traces = o->otlp_endpoint && *o->otlp_endpoint, audit = o->audit_log && *o->audit_log;
    *around = (cp_sse_around){.audit_fd = -1,
                              .sandbox = o->sandbox != CP_SANDBOX_OFF,
                              .must = o->sandbox == CP_SANDBOX_ON};
    cp_code rc = CP_OK;
    if (traces) {
        rc = cp_exporter_start(exporter, o->otlp_endpoint, cp_app_version(), err);
        around->trace_fd = exporter->fd;
    }
    if (rc == CP_OK && audit)
        rc = cp_append_open_path(NULL, o->audit_log, &around->audit_fd, err);
    return rc;
}

static int compare(const cp_options *o, const cp_sse_load *load, int pairs, cp_err *err)
{
    double real_us[PAIRS_MAX], bare_us[PAIRS_MAX];
    for (int i = 0; i < pairs; i++) {
        cp_sse_pair p;
        if (cp_sse_measure(load, &p, err))
            return cp_app_fail(err);
        real_us[i] = p.server_us;
        bare_us[i] = p.bare_us;
        show(o, i, &p);
    }
    qsort(real_us, (size_t)pairs, sizeof(real_us[0]), ascending);
    qsort(bare_us, (size_t)pairs, sizeof(bare_us[0]), ascending);
    double real = real_us[pairs / 2], bare = bare_us[pairs / 2];
    printf(o->json ? "],\"server_us_per_token\":%.2f,\"bare_us_per_token\":%.2f,\"ratio\":%.2f}\n"
                   : "median: %.2f us a token, bare %.2f: ratio %.2f\n",
           real, bare, real / bare);
    return 0;
}

int cp_cmd_bench_sse(const cp_options *o)
{
    cp_err err = {0};
    argument a[] = {{"STREAMS", 8000, 1000},
                    {"TOKENS", 60000, 100},
                    {"STEPS_PER_SECOND", 1000, 20},
                    {"PAIRS", PAIRS_MAX, 3}};
    cp_sse_load load = {0};
    cp_child exporter = {0};
    if (read_arguments(o, a, &err) || open_around(o, &exporter, &load.around, &err))
        return cp_app_fail(&err);
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
    }
    load.streams = a[0].value;
    load.tokens = a[1].value;
    load.step_ns = 1000000000 / a[2].value;
    if (o->json)
        printf("{\"streams\":%d,\"tokens\":%d,\"steps_per_second\":%d,\"pairs\":[", load.streams,
               load.tokens, a[2].value);
    fflush(stdout);
    int rc = compare(o, &load, a[3].value, &err);
    if (load.around.audit_fd >= 0)
        close(load.around.audit_fd);
    cp_child_stop(&exporter, CP_EXPORTER_END_MS);
    return rc;
}
