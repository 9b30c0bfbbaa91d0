/*
 * metrics: counters, gauges and histograms count what one model, or the process, does.
 *
 * The rows stand in base/metrics.def; a CP_M_<ID> indexes one series, which is counted once and may
 * be printed under two names. Whoever made a cp_metrics owns it, and it must outlive those who
 * count in it. Any thread counts, by relaxed atomics, without locks and without allocation; every
 * function here takes NULL for "nobody counts". Reading (cp_metrics_write) asks no other thread:
 * values of one scrape are each exact, not of a common instant.
 */
#ifndef CP_BASE_METRICS_H
#define CP_BASE_METRICS_H

#include "base/code.h"
#include "base/mem.h"

#include <stdint.h>

typedef enum cp_metric {
#define X(id, type, scope, name, label, doc) CP_M_##id,
#include "base/metrics.def"
    CP_METRIC_COUNT
} cp_metric;

typedef struct cp_metric_row {
    const char *id;    /* "KV_PAGES_FREE" */
    const char *type;  /* what Prometheus calls it: counter, gauge, histogram */
    const char *name;  /* family; "": shown by second names only */
    const char *label; /* fixed label of the series, or "" */
    const char *doc;
    bool per_model; /* a label `model` is added */
} cp_metric_row;

/* The row of a series; never NULL for id < CP_METRIC_COUNT. */
const cp_metric_row *cp_metric_info(cp_metric id);
/* The second name of row i = 0, 1, ..., with the label, type and text that stand there; false:
 * there is no such row. */
bool cp_metric_second(int i, cp_metric_row *out);

typedef struct cp_metrics cp_metrics;
/* model NULL: the process's own, which may be made once. Never NULL. */
cp_metrics *cp_metrics_new(const char *model);
void cp_metrics_free(cp_metrics *m);

/* Counters and gauges go up by n (n < 0 for gauges only). */
void cp_metric_add(cp_metrics *m, cp_metric id, int64_t n);
/* Gauges are set; an age and a stamp to a cp_now_ns() time, a span to microseconds. */
void cp_metric_set(cp_metrics *m, cp_metric id, int64_t value);
/* Histograms take one observation: seconds, or a count of tokens. */
void cp_metric_observe(cp_metrics *m, cp_metric id, double value);
/* As observe, n equal observations (a step that gave n sequences their next token). */
void cp_metric_observe_n(cp_metrics *m, cp_metric id, double value, uint64_t n);
/* One answered HTTP request of that status (capstan_requests_total). */
void cp_metric_request(cp_metrics *process, int http_status);
/* One failed request (capstan_request_errors_total); codes that share a slug are one series. */
void cp_metric_error(cp_metrics *process, cp_code code);
/* Labels of an info row, e.g. version="0.1.0",commit="abc", once; it is absent before. Any thread.
 */
void cp_metrics_set_info(cp_metrics *m, cp_metric id, const char *labels);
/* Append key="value" to labels, with a comma where something stands there already. */
void cp_metrics_add_label(cp_buf *labels, const char *key, const char *value);
/* The model's context: ladders of tokens end there. Any thread; before: the longest ladder. */
void cp_metrics_set_context(cp_metrics *m, int tokens);
/* The value of a counter or gauge; observations of a histogram. For tests and reports. */
int64_t cp_metric_get(const cp_metrics *m, cp_metric id);

/* Whether a family is asked for; NULL: all are. */
typedef bool cp_metrics_filter(void *arg, const char *family);

/* Append the Prometheus text of n handles (at most one of them the process's) to out; families come
 * once each, and only those of which there is a series. Any thread. Also reads the process's CPU
 * time, memory and descriptors, where they are asked for. */
void cp_metrics_write(cp_buf *out, cp_metrics *const *list, int n, cp_metrics_filter *filter,
                      void *arg);

#endif
