/*
 * attention: random ATTENTION records with what they read, and batches for them. Everything
 * asserts.
 */
#ifndef CP_TESTS_KERNELS_ATTENTION_H
#define CP_TESTS_KERNELS_ATTENTION_H

#include "tests/kernels/rig.h"

typedef struct attention_shape {
    int q_heads, n_kv; /* query heads of a kv head */
    int k_dim, v_dim;
    int window; /* 0: none */
} attention_shape;

typedef struct attention_case {
    rig r;
    rig_batch b;
    cp_op *op;
    cp_mat outs[3]; /* what is written; ends with -1 */
} attention_case;

/* Small heads of any even widths, any group, any window. */
attention_shape attention_shape_random(rig *r, uint64_t seed);
/* The record, and in every other case one that reads the same K and V; norms, rope, gate, sinks and
 * a softcap as it comes. Of layer 0 or 1 of a group. */
void attention_case_init(attention_case *c, uint64_t seed, const attention_shape *s);
/* With a random shape. Up to three sequences whose lengths cross up to three splits; one row each
 * where the seed is odd. */
void attention_case_random(attention_case *c, uint64_t seed);
void attention_case_fini(attention_case *c);
/* Dim d of K or V, where *state is of a place. */
typedef float attention_value(bool v, int d, uint64_t *state);
/* Into the pages of the record's group: at keys that rows of the step see and none of them writes,
 * or, seen false, at those that none sees. */
void attention_case_fill(const attention_case *c, machine *m, bool seen, attention_value *value);
/* What no row sees is no number. */
void attention_case_spoil(const attention_case *c, machine *m);
/* The same with the shape given. */
void attention_case_shaped(attention_case *c, uint64_t seed, const attention_shape *s);

#endif
