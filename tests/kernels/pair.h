/*
 * pair: a rig's program on ref and on the cuda backend side by side, with the same inputs, for the
 * tests of its kernels. A step runs on both, and what either leaves is compared.
 */
#ifndef CP_TESTS_KERNELS_PAIR_H
#define CP_TESTS_KERNELS_PAIR_H

#include "tests/kernels/rig.h"

typedef struct pair {
    rig *r;
    machine ref, cuda;
} pair;

/* Rows that are given, for a matrix. */
typedef struct given {
    cp_mat m;
    int n, width;
    float *x; /* [n, width] */
} given;

/* Has this build the cuda backend? Says so where it has not. */
bool pair_is_built(void);
/* exact: with numerics exact, and inputs at which something changes. */
pair pair_open(rig *r, bool exact);
void pair_close(pair *p);
/* machine_fill, and what is given; g may be NULL. */
void given_fill(machine *m, uint64_t seed, const given *g);
void pair_batch(pair *p, const cp_batch *b, const given *g);
/* A step of n rows on both. */
void pair_step(pair *p, int n, const given *g);
/* A step with n output rows on both, and one more row, of which nothing is wanted: row n of the
 * outputs stays what it was. */
void pair_step_out(pair *p, int n, const cp_mat *outs);
/* Fails where they differ. outs ends with -1. The row behind the last has what it had. */
void pair_equal(pair *p, int n, const cp_mat *outs, const char *what);
/* Normalized mean square error of out's n rows; the one behind them has what it had. */
double pair_distance(const pair *p, cp_mat out, int n);

#endif
