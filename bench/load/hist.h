/*
 * cp_load_hist: how often a time was seen, in buckets that are 1/1024 of an octave: whatever the
 * time, 1 us or an hour, a bucket's middle is within 0.05 % of what fell into it. Mean, least and
 * most are exact. Counts of two histograms can be added, so that parts of a run can be measured
 * apart. A caller-owned value of one thread; 270 KB once it holds something. Times above 73 minutes
 * are counted in the last bucket.
 */
#ifndef CP_BENCH_LOAD_HIST_H
#define CP_BENCH_LOAD_HIST_H

#include "bench/load/report.h"

typedef struct cp_load_hist {
    uint64_t *n; /* by bucket; NULL: nothing yet */
    uint64_t count;
    double sum_ns;
    int64_t min_ns, max_ns;
} cp_load_hist;

/* A time below 0 counts as 0. */
void cp_load_hist_add(cp_load_hist *h, int64_t ns);
void cp_load_hist_merge(cp_load_hist *h, const cp_load_hist *other);
/* Empty, memory kept. */
void cp_load_hist_clear(cp_load_hist *h);
void cp_load_hist_fini(cp_load_hist *h);

/* The percentile, 0 to 100, in ms: between the two nearest ranks in proportion, as numpy's default
 * has it. NAN: nothing was counted. */
double cp_load_hist_percentile(const cp_load_hist *h, double percent);
/* All figures; buckets lie in the arena. */
void cp_load_hist_figures(const cp_load_hist *h, cp_arena *arena, cp_load_figures *out);

#endif
