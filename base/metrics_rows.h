/*
 * metrics_rows: what counts (metrics_count.c) and what prints (metrics_text.c) share: the kinds of
 * series, the buckets, and a handle as data. Internal to both.
 *
 * A histogram has one array of buckets, fine enough for every name it is printed under: the bounds
 * of a kind are the union of its ladders, and a ladder is the subset that one name shows. Buckets
 * are kept apart (not cumulative); the writer adds them up.
 */
#ifndef CP_BASE_METRICS_ROWS_H
#define CP_BASE_METRICS_ROWS_H

#include "base/metrics.h"
#include "base/process.h"

#include <stdatomic.h>

typedef enum cp_metric_kind {
    CP_KIND_counter,
    CP_KIND_gauge,
    CP_KIND_micros,
    CP_KIND_span,
    CP_KIND_age,
    CP_KIND_stamp,
    CP_KIND_joules,
    CP_KIND_energy,
    CP_KIND_seconds,
    CP_KIND_tokens,
    CP_KIND_errors,
    CP_KIND_info
} cp_metric_kind;

enum { CP_BUCKETS_MAX = 64 };

typedef struct cp_histogram {
    _Atomic uint64_t bucket[CP_BUCKETS_MAX];
    _Atomic double sum;
} cp_histogram;

struct cp_metrics {
    char *model;      /* NULL: the process's own */
    char *labels[2];  /* {model="m"} without the closing brace; the same as vLLM has it */
    cp_process *self; /* of the process's own */
    _Atomic int context;
    _Atomic(char *) info[CP_METRIC_COUNT]; /* labels; set once */
    _Atomic int64_t value[CP_METRIC_COUNT];
    _Atomic uint64_t error[CP_CODE_COUNT];
    cp_histogram hist[CP_METRIC_COUNT];
};

/* Ladders: who shows a bound. */
typedef enum cp_ladder {
    CP_LADDER_OWN = 1,
    CP_LADDER_TTFT = 2,
    CP_LADDER_GAP = 4,
    CP_LADDER_WAIT = 8,
    CP_LADDER_SIZES = 2, /* of the kind tokens from here on */
    CP_LADDER_ROWS = 4,
    CP_LADDER_CHOICES = 8
} cp_ladder;

typedef struct cp_bound {
    double le;
    unsigned ladders;
} cp_bound;

cp_metric_kind cp_metric_kind_of(cp_metric id);
bool cp_metric_is_histogram(cp_metric id);
/* The bounds of a histogram, ascending; behind the last one there is +Inf. */
const cp_bound *cp_metric_bounds(cp_metric id, int *n);

static inline int64_t cp_metric_value(const cp_metrics *m, cp_metric id)
{
    return atomic_load_explicit(&m->value[id], memory_order_relaxed);
}

#endif
