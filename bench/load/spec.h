/*
 * What options of `bench serve` hold beyond a number: lengths that are drawn, ramps, objectives.
 * Plain values; any thread. Every error is CP_USAGE and names option, value and what is allowed.
 */
#ifndef CP_BENCH_LOAD_SPEC_H
#define CP_BENCH_LOAD_SPEC_H

#include "base/code.h"
#include "bench/load/random.h"
#include "bench/load/report.h"

enum { CP_LOAD_LENGTH_MAX = 1 << 20 };

typedef struct cp_load_lengths {
    enum { CP_LOAD_FIXED, CP_LOAD_UNIFORM, CP_LOAD_NORMAL } kind;
    double a, b; /* the length; least and most; mean and deviation */
} cp_load_lengths;

/* "512", "uniform:128:512", "normal:512:100"; in tokens, 1 to CP_LOAD_LENGTH_MAX. */
cp_code cp_load_lengths_parse(cp_load_lengths *out, const char *option, const char *text,
                              cp_err *err);
/* 1 to CP_LOAD_LENGTH_MAX. */
uint32_t cp_load_lengths_draw(const cp_load_lengths *l, cp_load_rng *r);
double cp_load_lengths_mean(const cp_load_lengths *l);

typedef struct cp_load_ramp {
    double from, to; /* requests a second */
    double seconds;
} cp_load_ramp;

/* "1:20:60s": two rates and a time with ms, s or m. */
cp_code cp_load_ramp_parse(cp_load_ramp *out, const char *text, cp_err *err);
/* "ttft=200,tpot=50": names of latencies and milliseconds; what is not named is NAN. */
cp_code cp_load_slo_parse(cp_load_slo *out, const char *text, cp_err *err);

#endif
