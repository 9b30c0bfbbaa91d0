/*
 * cp_load_arrivals: when the requests of an open loop are due. A caller-owned value, one thread;
 * the same seed gives the same times.
 *
 * Gaps are gamma distributed with shape B (burstiness; 1: exponential, a Poisson process; below 1
 * bursts, above 1 evener). A rate that changes bends the time: requests come evenly, but for their
 * gaps, in the integral of the rate.
 */
#ifndef CP_BENCH_LOAD_ARRIVALS_H
#define CP_BENCH_LOAD_ARRIVALS_H

#include "bench/load/random.h"

#include <stdbool.h>

typedef struct cp_load_arrivals {
    double rate, rate_end; /* requests a second, both > 0 */
    double ramp_s;         /* from rate to rate_end in this time, linear; 0: no ramp */
    double burstiness;     /* > 0 */
    cp_load_rng rng;
    double due; /* how many requests were due when the last one was, on average */
    bool begun;
} cp_load_arrivals;

void cp_load_arrivals_begin(cp_load_arrivals *a, double rate, double rate_end, double ramp_s,
                            double burstiness, uint64_t seed);
/* ns after the begin; the first is 0. */
int64_t cp_load_arrivals_next(cp_load_arrivals *a);

#endif
