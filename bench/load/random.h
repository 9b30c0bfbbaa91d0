/*
 * cp_load_rng: random numbers that are the same for a seed on every machine: SplitMix64, and the
 * distributions that schedules and prompts need. A caller-owned value, one thread. Streams for
 * different purposes and indices are independent, so that request 7 has the same prompt whatever
 * came before it.
 */
#ifndef CP_BENCH_LOAD_RANDOM_H
#define CP_BENCH_LOAD_RANDOM_H

#include <stdint.h>

typedef struct cp_load_rng {
    uint64_t state;
} cp_load_rng;

/* What a stream of numbers is for. */
typedef enum cp_load_purpose {
    CP_LOAD_FOR_ARRIVALS,
    CP_LOAD_FOR_LENGTHS,
    CP_LOAD_FOR_WORDS,
    CP_LOAD_FOR_PREFIXES,
    CP_LOAD_FOR_ORDER
} cp_load_purpose;

cp_load_rng cp_load_rng_for(uint64_t seed, cp_load_purpose purpose, uint64_t index);
uint64_t cp_load_rng_next(cp_load_rng *r);
/* In [0, n), n > 0. */
uint64_t cp_load_rng_below(cp_load_rng *r, uint64_t n);
/* In (0, 1). */
double cp_load_rng_unit(cp_load_rng *r);
/* Mean 0, deviation 1. */
double cp_load_rng_normal(cp_load_rng *r);
/* Gamma of this shape and scale 1: its mean is the shape. shape > 0. */
double cp_load_rng_gamma(cp_load_rng *r, double shape);

#endif
