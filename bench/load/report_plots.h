/*
 * The plots of the HTML report: sections of the page, each with a table beneath that says the same.
 *
 * They only read the run and append to a cp_buf. Any thread.
 */
#ifndef CP_BENCH_LOAD_REPORT_PLOTS_H
#define CP_BENCH_LOAD_REPORT_PLOTS_H

#include "bench/load/report.h"

/* Each latency by percentile. */
void cp_load_plot_latencies(cp_buf *out, const cp_load_run *r);
/* What was in flight, tokens and latencies by second; nothing where there is no second. */
void cp_load_plot_seconds(cp_buf *out, const cp_load_run *r);
/* Each request where it was due, with at most so many points a plot; nothing without rows. */
void cp_load_plot_requests(cp_buf *out, const cp_load_run *r, size_t points);
/* Throughput and latency by load; nothing where there is one run. */
void cp_load_plot_sweep(cp_buf *out, const cp_load_result *r);

/* The mark and the colour of an outcome. */
void cp_load_plot_swatch(cp_buf *out, cp_load_outcome o);
const char *cp_load_plot_css(cp_load_outcome o);

#endif
