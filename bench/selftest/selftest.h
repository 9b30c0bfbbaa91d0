/*
 * selftest: what a backend computes, held against ref on the same machine, and how fast it is.
 *
 * For a machine with a GPU, where nothing but a program is at hand: models are random, and every
 * part prints one JSON object on a line as soon as it is done, so that a part that hangs costs
 * itself alone. One call at a time.
 */
#ifndef CP_BENCH_SELFTEST_H
#define CP_BENCH_SELFTEST_H

#include "kernels/kernels.h"

#include <stdio.h>

typedef struct cp_selftest_config {
    const char *device; /* as cp_backend_config; NULL or "auto": cuda where it opens, else cpu */
    const char *part;   /* NULL: all */
    bool small;         /* shapes that an emulated device can take */
    bool json;          /* else lines for people */
    double seconds;     /* of a part that measures, at most; 0: 60 */
    cp_pool *pool;
    FILE *out;
} cp_selftest_config;

/* The parts' names, in their order; ends with NULL. */
const char *const *cp_selftest_parts(void);
/* *ok: everything that has a right answer had it. CP_USAGE: no such part. An error of a part stands
 * in its line and makes ok false; the parts behind it run all the same. */
cp_code cp_selftest(const cp_selftest_config *cfg, bool *ok, cp_err *err);

#endif
