/*
 * This file counts, and writes what was counted in Prometheus' text format 0.0.4. A handle is one
 * flat array of relaxed atomics, indexed by the rows of metrics.def.
 *
 * A histogram keeps its buckets apart (not cumulative) and its sum as a double under
 * compare-and-swap; the writer adds the buckets up, so count and +Inf agree by construction.
 * Buckets of 1, 0 and 2 values up to 1, 5 and any number are written as
 *
 *   x_bucket{le="1"} 1
 *   x_bucket{le="5"} 1
 *   x_bucket{le="+Inf"} 3
 */
#include "base/metrics.h"

#include "base/clock.h"
#include "base/sandbox.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

typedef enum kind {
    KIND_counter,
    KIND_gauge,
    KIND_micros,
    KIND_seconds,
    KIND_tokens,
    KIND_errors,
    KIND_info
} kind;

enum { SCOPE_MODEL, SCOPE_PROCESS, BUCKETS_MAX = 24 };

#define TYPE_counter "counter"
#define TYPE_gauge   "gauge"
#define TYPE_micros  "counter"
#define TYPE_seconds "histogram"
#define TYPE_tokens  "histogram"
#define TYPE_errors  "counter"
#define TYPE_info    "gauge"

static const struct {
    cp_metric_row row;
    kind kind;
} rows[CP_METRIC_COUNT] = {
#define X(id, type, scope, name, label, doc)                                                       \
    {{#id, TYPE_##type, name, label, doc, SCOPE_##scope == SCOPE_MODEL}, KIND_##type},
#include "base/metrics.def"
#undef X
};

/* Upper bounds of the buckets, ascending; the last bucket is +Inf. */
static const double seconds_bounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                        0.1,    0.25,  0.5,    1,     2.5,  5,     10,
                                        25,     50,    100,    250,   500};
static const double tokens_bounds[] = {1,   2,    4,    8,    16,   32,    64,    128,   256,
                                       512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
enum {
    SECONDS_BOUNDS = sizeof(seconds_bounds) / sizeof(seconds_bounds[0]),
    TOKENS_BOUNDS = sizeof(tokens_bounds) / sizeof(tokens_bounds[0])
};
_Static_assert((int)SECONDS_BOUNDS < (int)BUCKETS_MAX, "buckets");
_Static_assert((int)TOKENS_BOUNDS < (int)BUCKETS_MAX, "buckets");

typedef struct histogram {
    _Atomic uint64_t bucket[BUCKETS_MAX];
    _Atomic double sum;
} histogram;

struct cp_metrics {
    char *model; /* NULL: the process's own */
    char *info;
    _Atomic int64_t value[CP_METRIC_COUNT];
    _Atomic uint64_t error[CP_CODE_COUNT];
    histogram hist[CP_METRIC_COUNT];
};

static bool is_histogram(kind k)
{
    return k == KIND_seconds || k == KIND_tokens;
}

static const double *bounds_of(kind k, int *n)
{
    *n = k == KIND_seconds ? SECONDS_BOUNDS : TOKENS_BOUNDS;
    return k == KIND_seconds ? seconds_bounds : tokens_bounds;
}

const cp_metric_row *cp_metric_info(cp_metric id)
{
    CP_ASSERT((unsigned)id < CP_METRIC_COUNT);
    return &rows[id].row;
}

cp_metrics *cp_metrics_new(const char *model)
{
    cp_metrics *m = cp_xcalloc(1, sizeof(*m));
    if (model) {
        m->model = cp_xstrdup(model);
    } else {
        atomic_store_explicit(&m->value[CP_M_START_TIME], cp_wall_sec(), memory_order_relaxed);
    }
    return m;
}

void cp_metrics_free(cp_metrics *m)
{
    if (!m)
        return;
    free(m->model);
    free(m->info);
    free(m);
}

/* Every count goes through here: the series exists and belongs to this kind of handle. */
static void check(const cp_metrics *m, cp_metric id)
{
    CP_ASSERT((unsigned)id < CP_METRIC_COUNT && rows[id].row.per_model == (m->model != NULL));
}

void cp_metric_add(cp_metrics *m, cp_metric id, int64_t n)
{
    if (!m)
        return;
    check(m, id);
    CP_ASSERT(n >= 0 || rows[id].kind == KIND_gauge);
    atomic_fetch_add_explicit(&m->value[id], n, memory_order_relaxed);
}

void cp_metric_set(cp_metrics *m, cp_metric id, int64_t value)
{
    if (!m)
        return;
    check(m, id);
    CP_ASSERT(rows[id].kind == KIND_gauge);
    atomic_store_explicit(&m->value[id], value, memory_order_relaxed);
}

void cp_metric_observe_n(cp_metrics *m, cp_metric id, double value, uint64_t n)
{
    if (!m || n == 0)
        return;
    check(m, id);
    CP_ASSERT(is_histogram(rows[id].kind));
    int count, b = 0;
    const double *bounds = bounds_of(rows[id].kind, &count);
    while (b < count && value > bounds[b])
        b++;
    histogram *h = &m->hist[id];
    atomic_fetch_add_explicit(&h->bucket[b], n, memory_order_relaxed);
    double sum = atomic_load_explicit(&h->sum, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&h->sum, &sum, sum + value * (double)n,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void cp_metric_observe(cp_metrics *m, cp_metric id, double value)
{
    cp_metric_observe_n(m, id, value, 1);
}

void cp_metric_request(cp_metrics *process, int http_status)
{
    char label[32];
    cp_snprintf(label, sizeof(label), "code=\"%d\"", http_status);
    int id = CP_M_REQUESTS_200;
    while (id < CP_M_REQUESTS_OTHER && strcmp(rows[id].row.label, label) != 0)
        id++;
    cp_metric_add(process, (cp_metric)id, 1);
}

void cp_metric_error(cp_metrics *process, cp_code code)
{
    if (!process)
        return;
    check(process, CP_M_REQUEST_ERRORS);
    CP_ASSERT((unsigned)code < CP_CODE_COUNT);
    atomic_fetch_add_explicit(&process->error[code], 1, memory_order_relaxed);
}

void cp_metrics_set_info(cp_metrics *process, const char *labels)
{
    if (!process)
        return;
    check(process, CP_M_BUILD_INFO);
    free(process->info);
    process->info = cp_xstrdup(labels);
}

int64_t cp_metric_get(const cp_metrics *m, cp_metric id)
{
    if (!m)
        return 0;
    check(m, id);
    if (!is_histogram(rows[id].kind))
        return atomic_load_explicit(&m->value[id], memory_order_relaxed);
    uint64_t n = 0;
    for (int b = 0; b < BUCKETS_MAX; b++)
        n += atomic_load_explicit(&m->hist[id].bucket[b], memory_order_relaxed);
    return (int64_t)n;
}

/* ---- the process's own values, read at each scrape ---- */

static int64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    long size = 0, pages = 0;
    if (!f)
        return 0;
    int n = fscanf(f, "%ld %ld", &size, &pages);
    fclose(f);
    return n == 2 ? (int64_t)pages * sysconf(_SC_PAGESIZE) : 0;
}

static int64_t open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int64_t n = 0;
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n - 1; /* not the folder itself */
}

static void collect_process(cp_metrics *m)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) == 0) {
        int64_t us = ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
                     u.ru_utime.tv_usec + u.ru_stime.tv_usec;
        atomic_store_explicit(&m->value[CP_M_CPU_TIME], us, memory_order_relaxed);
    }
    cp_metric_set(m, CP_M_RESIDENT, resident_bytes());
    cp_metric_set(m, CP_M_OPEN_FDS, open_fds());
    atomic_store_explicit(&m->value[CP_M_SANDBOX_REFUSED], (int64_t)cp_sandbox_refused(),
                          memory_order_relaxed);
}

/* ---- text format ---- */

/* A label value: backslash, quote and line feed are escaped. */
static void write_escaped(cp_buf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '\n')
            cp_buf_adds(out, "\\n");
        else if (*s == '"' || *s == '\\')
            cp_buf_printf(out, "\\%c", *s);
        else
            cp_buf_addc(out, *s);
    }
}

/* name{model="...",label,extra} without the value. */
static void write_series(cp_buf *out, const cp_metrics *m, const char *name, const char *suffix,
                         const char *label, const char *extra)
{
    cp_buf_printf(out, "%s%s", name, suffix);
    const char *sep = "{";
    if (m->model) {
        cp_buf_adds(out, "{model=\"");
        write_escaped(out, m->model);
        cp_buf_addc(out, '"');
        sep = ",";
    }
    if (*label) {
        cp_buf_printf(out, "%s%s", sep, label);
        sep = ",";
    }
    if (*extra) {
        cp_buf_printf(out, "%s%s", sep, extra);
        sep = ",";
    }
    cp_buf_adds(out, *sep == ',' ? "} " : " ");
}

static void write_histogram(cp_buf *out, const cp_metrics *m, cp_metric id)
{
    const cp_metric_row *r = &rows[id].row;
    const histogram *h = &m->hist[id];
    int count;
    const double *bounds = bounds_of(rows[id].kind, &count);
    uint64_t total = 0;
    double sum = atomic_load_explicit(&h->sum, memory_order_relaxed);
    for (int b = 0; b <= count; b++) {
        char le[48];
        total += atomic_load_explicit(&h->bucket[b], memory_order_relaxed);
        if (b < count)
            cp_snprintf(le, sizeof(le), "le=\"%.12g\"", bounds[b]);
        else
            cp_strcopy(le, sizeof(le), "le=\"+Inf\"");
        write_series(out, m, r->name, "_bucket", r->label, le);
        cp_buf_printf(out, "%llu\n", (unsigned long long)total);
    }
    write_series(out, m, r->name, "_sum", r->label, "");
    cp_buf_printf(out, "%.9g\n", sum);
    write_series(out, m, r->name, "_count", r->label, "");
    cp_buf_printf(out, "%llu\n", (unsigned long long)total);
}

/* One series a slug: codes that share one are added up where the slug first stands. */
static void write_errors(cp_buf *out, const cp_metrics *m, const char *name)
{
    for (int c = CP_OK + 1; c < CP_CODE_COUNT; c++) {
        const char *slug = cp_code_info((cp_code)c)->slug;
        uint64_t n = 0;
        int first = CP_CODE_COUNT;
        for (int d = CP_CODE_COUNT - 1; d > CP_OK; d--) {
            if (strcmp(cp_code_info((cp_code)d)->slug, slug) != 0)
                continue;
            n += atomic_load_explicit(&m->error[d], memory_order_relaxed);
            first = d;
        }
        if (first != c)
            continue;
        char label[80];
        cp_snprintf(label, sizeof(label), "error=\"%s\"", slug);
        write_series(out, m, name, "", label, "");
        cp_buf_printf(out, "%llu\n", (unsigned long long)n);
    }
}

static void write_row(cp_buf *out, const cp_metrics *m, cp_metric id)
{
    const cp_metric_row *r = &rows[id].row;
    long long v = (long long)atomic_load_explicit(&m->value[id], memory_order_relaxed);
    switch (rows[id].kind) {
    case KIND_seconds:
    case KIND_tokens:
        write_histogram(out, m, id);
        return;
    case KIND_errors:
        write_errors(out, m, r->name);
        return;
    case KIND_info:
        write_series(out, m, r->name, "", m->info ? m->info : "", "");
        cp_buf_adds(out, "1\n");
        return;
    case KIND_micros:
        write_series(out, m, r->name, "", r->label, "");
        cp_buf_printf(out, "%lld.%06lld\n", v / 1000000, v % 1000000);
        return;
    case KIND_counter:
    case KIND_gauge:
        write_series(out, m, r->name, "", r->label, "");
        cp_buf_printf(out, "%lld\n", v);
        return;
    }
}

void cp_metrics_write(cp_buf *out, cp_metrics *const *list, int n)
{
    for (int i = 0; i < n; i++) {
        if (!list[i]->model)
            collect_process(list[i]);
    }
    for (int id = 0; id < CP_METRIC_COUNT;) {
        int end = id + 1;
        const cp_metric_row *r = &rows[id].row;
        while (end < CP_METRIC_COUNT && strcmp(rows[end].row.name, r->name) == 0)
            end++;
        cp_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", r->name, r->doc, r->name, r->type);
        for (int i = 0; i < n; i++) {
            for (int k = id; k < end && r->per_model == (list[i]->model != NULL); k++)
                write_row(out, list[i], (cp_metric)k);
        }
        id = end;
    }
}
