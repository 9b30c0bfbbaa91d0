/*
 * This file counts. A handle is one flat array of relaxed atomics, indexed by the rows of
 * metrics.def; a histogram keeps its sum as a double under compare-and-swap.
 */
#include "base/metrics_rows.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { SCOPE_MODEL, SCOPE_PROCESS };

#define TYPE_counter "counter"
#define TYPE_gauge   "gauge"
#define TYPE_micros  "counter"
#define TYPE_span    "gauge"
#define TYPE_age     "gauge"
#define TYPE_stamp   "gauge"
#define TYPE_joules  "counter"
#define TYPE_energy  "histogram"
#define TYPE_seconds "histogram"
#define TYPE_tokens  "histogram"
#define TYPE_errors  "counter"
#define TYPE_info    "gauge"

static const struct {
    cp_metric_row row;
    cp_metric_kind kind;
} rows[CP_METRIC_COUNT] = {
#define X(id, type, scope, name, label, doc)                                                       \
    {{#id, TYPE_##type, name, label, doc, SCOPE_##scope == SCOPE_MODEL}, CP_KIND_##type},
#include "base/metrics.def"
};

#define OWN     CP_LADDER_OWN
#define TTFT    CP_LADDER_TTFT
#define GAP     CP_LADDER_GAP
#define WAIT    CP_LADDER_WAIT
#define SIZES   CP_LADDER_SIZES
#define ROWS    CP_LADDER_ROWS
#define CHOICES CP_LADDER_CHOICES
/* clang-format off */
static const cp_bound seconds_bounds[] = {
    {0.0005, OWN},
    {0.001, OWN | TTFT},
    {0.0025, OWN},
    {0.005, OWN | TTFT},
    {0.01, OWN | TTFT | GAP},
    {0.02, TTFT},
    {0.025, OWN | GAP},
    {0.04, TTFT},
    {0.05, OWN | GAP},
    {0.06, TTFT},
    {0.075, GAP},
    {0.08, TTFT},
    {0.1, OWN | TTFT | GAP},
    {0.15, GAP},
    {0.2, GAP},
    {0.25, OWN | TTFT},
    {0.3, GAP | WAIT},
    {0.4, GAP},
    {0.5, OWN | TTFT | GAP | WAIT},
    {0.75, TTFT | GAP},
    {0.8, WAIT},
    {1, OWN | TTFT | GAP | WAIT},
    {1.5, WAIT},
    {2, WAIT},
    {2.5, OWN | TTFT | GAP | WAIT},
    {5, OWN | TTFT | GAP | WAIT},
    {7.5, TTFT | GAP},
    {10, OWN | TTFT | GAP | WAIT},
    {15, WAIT},
    {20, TTFT | GAP | WAIT},
    {25, OWN},
    {30, WAIT},
    {40, TTFT | GAP | WAIT},
    {50, OWN | WAIT},
    {60, WAIT},
    {80, TTFT | GAP},
    {100, OWN},
    {120, WAIT},
    {160, TTFT},
    {240, WAIT},
    {250, OWN},
    {480, WAIT},
    {500, OWN},
    {640, TTFT},
    {960, WAIT},
    {1920, WAIT},
    {2560, TTFT},
    {7680, WAIT},
};
static const cp_bound tokens_bounds[] = {
    {1, OWN | SIZES | ROWS | CHOICES},
    {2, OWN | SIZES | CHOICES},
    {4, OWN},
    {5, SIZES | CHOICES},
    {8, OWN | ROWS},
    {10, SIZES | CHOICES},
    {16, OWN | ROWS},
    {20, SIZES | CHOICES},
    {32, OWN | ROWS},
    {50, SIZES},
    {64, OWN | ROWS},
    {100, SIZES},
    {128, OWN | ROWS},
    {200, SIZES},
    {256, OWN | ROWS},
    {500, SIZES},
    {512, OWN | ROWS},
    {1000, SIZES},
    {1024, OWN | ROWS},
    {2000, SIZES},
    {2048, OWN | ROWS},
    {4096, OWN | ROWS},
    {5000, SIZES},
    {8192, OWN | ROWS},
    {10000, SIZES},
    {16384, OWN | ROWS},
    {20000, SIZES},
    {32768, OWN},
    {50000, SIZES},
    {65536, OWN},
    {100000, SIZES},
    {131072, OWN},
    {200000, SIZES},
    {500000, SIZES},
    {1000000, SIZES},
    {2000000, SIZES},
    {5000000, SIZES},
    {10000000, SIZES},
};
static const cp_bound energy_bounds[] = {
    {0.001, OWN}, {0.002, OWN}, {0.005, OWN}, {0.01, OWN}, {0.02, OWN}, {0.05, OWN}, {0.1, OWN},
    {0.2, OWN},   {0.5, OWN},   {1, OWN},     {2, OWN},    {5, OWN},    {10, OWN},   {20, OWN},
    {50, OWN},    {100, OWN},   {200, OWN},   {500, OWN},  {1000, OWN}, {2000, OWN}, {5000, OWN},
    {10000, OWN}};
/* clang-format on */
enum {
    ENERGY_BOUNDS = sizeof(energy_bounds) / sizeof(energy_bounds[0]),
    SECONDS_BOUNDS = sizeof(seconds_bounds) / sizeof(seconds_bounds[0]),
    TOKENS_BOUNDS = sizeof(tokens_bounds) / sizeof(tokens_bounds[0])
};
_Static_assert((int)SECONDS_BOUNDS < (int)CP_BUCKETS_MAX, "buckets");
_Static_assert((int)TOKENS_BOUNDS < (int)CP_BUCKETS_MAX, "buckets");

const cp_metric_row *cp_metric_info(cp_metric id)
{
    CP_ASSERT((unsigned)id < CP_METRIC_COUNT);
    return &rows[id].row;
}

cp_metric_kind cp_metric_kind_of(cp_metric id)
{
    return rows[id].kind;
}

bool cp_metric_is_histogram(cp_metric id)
{
    return rows[id].kind == CP_KIND_seconds || rows[id].kind == CP_KIND_tokens ||
           rows[id].kind == CP_KIND_energy;
}

const cp_bound *cp_metric_bounds(cp_metric id, int *n)
{
    switch (rows[id].kind) {
    case CP_KIND_seconds:
        *n = SECONDS_BOUNDS;
        return seconds_bounds;
    case CP_KIND_energy:
        *n = ENERGY_BOUNDS;
        return energy_bounds;
    default:
        *n = TOKENS_BOUNDS;
        return tokens_bounds;
    }
}

/* ---- handles ---- */

/* Key=value of a label; backslash, quote and line feed are escaped. */
void cp_metrics_add_label(cp_buf *labels, const char *key, const char *value)
{
    cp_buf_printf(labels, "%s%s=\"", labels->n > 0 && labels->p[labels->n - 1] != '{' ? "," : "",
                  key);
    for (const char *s = value; *s; s++) {
        if (*s == '\n')
            cp_buf_adds(labels, "\\n");
        else if (*s == '"' || *s == '\\')
            cp_buf_printf(labels, "\\%c", *s);
        else
            cp_buf_addc(labels, *s);
    }
    cp_buf_addc(labels, '"');
}

/* {model="m", or {engine="0",model_name="m" as vLLM has it: what each series of a model begins
 * with. */
static char *model_labels(const char *model, bool second)
{
    cp_buf b = {0};
    cp_buf_addc(&b, '{');
    if (second)
        cp_metrics_add_label(&b, "engine", "0");
    cp_metrics_add_label(&b, second ? "model_name" : "model", model);
    CP_ASSERT(!b.failed);
    return b.p;
}

cp_metrics *cp_metrics_new(const char *model)
{
    cp_metrics *m = cp_xcalloc(1, sizeof(*m));
    if (model) {
        m->model = cp_xstrdup(model);
        m->labels[0] = model_labels(model, false);
        m->labels[1] = model_labels(model, true);
    } else {
        m->self = cp_process_open();
        atomic_store_explicit(&m->value[CP_M_START_TIME], cp_wall_sec(), memory_order_relaxed);
    }
    return m;
}

void cp_metrics_free(cp_metrics *m)
{
    if (!m)
        return;
    for (int id = 0; id < CP_METRIC_COUNT; id++)
        free(atomic_load_explicit(&m->info[id], memory_order_relaxed));
    cp_process_close(m->self);
    free(m->labels[0]);
    free(m->labels[1]);
    free(m->model);
    free(m);
}

/* Every count goes through here: the series exists and belongs to this kind of handle. */
static void check(const cp_metrics *m, cp_metric id)
{
    CP_ASSERT((unsigned)id < CP_METRIC_COUNT && rows[id].row.per_model == (m->model != NULL));
}

void cp_metrics_set_info(cp_metrics *m, cp_metric id, const char *labels)
{
    if (!m)
        return;
    check(m, id);
    CP_ASSERT(rows[id].kind == CP_KIND_info);
    char *none = NULL, *copy = cp_xstrdup(labels);
    /* release: who prints it finds the text */
    CP_ASSERT(atomic_compare_exchange_strong_explicit(&m->info[id], &none, copy,
                                                      memory_order_release, memory_order_relaxed));
}

void cp_metrics_set_context(cp_metrics *m, int tokens)
{
    if (m)
        atomic_store_explicit(&m->context, tokens, memory_order_relaxed);
}

/* ---- counts ---- */

static bool is_gauge(cp_metric_kind kind)
{
    return kind == CP_KIND_gauge || kind == CP_KIND_span || kind == CP_KIND_age ||
           kind == CP_KIND_stamp;
}

void cp_metric_add(cp_metrics *m, cp_metric id, int64_t n)
{
    if (!m)
        return;
    check(m, id);
    CP_ASSERT(n >= 0 || is_gauge(rows[id].kind));
    atomic_fetch_add_explicit(&m->value[id], n, memory_order_relaxed);
}

void cp_metric_set(cp_metrics *m, cp_metric id, int64_t value)
{
    if (!m)
        return;
    check(m, id);
    CP_ASSERT(is_gauge(rows[id].kind));
    atomic_store_explicit(&m->value[id], value, memory_order_relaxed);
}

/* The first bucket whose bound is not below the value. */
static int bucket_of(cp_metric id, double value)
{
    int from = 0, to;
    const cp_bound *bounds = cp_metric_bounds(id, &to);
    while (from < to) {
        int half = (from + to) / 2;
        if (value > bounds[half].le)
            from = half + 1;
        else
            to = half;
    }
    return from;
}

void cp_metric_observe_n(cp_metrics *m, cp_metric id, double value, uint64_t n)
{
    if (!m || n == 0)
        return;
    check(m, id);
    CP_ASSERT(cp_metric_is_histogram(id));
    cp_histogram *h = &m->hist[id];
    atomic_fetch_add_explicit(&h->bucket[bucket_of(id, value)], n, memory_order_relaxed);
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

int64_t cp_metric_get(const cp_metrics *m, cp_metric id)
{
    if (!m)
        return 0;
    check(m, id);
    if (!cp_metric_is_histogram(id))
        return atomic_load_explicit(&m->value[id], memory_order_relaxed);
    uint64_t n = 0;
    for (int b = 0; b < CP_BUCKETS_MAX; b++)
        n += atomic_load_explicit(&m->hist[id].bucket[b], memory_order_relaxed);
    return (int64_t)n;
}
