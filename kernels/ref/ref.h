/*
 * ref: every operation in plain C, one record after another on the caller's thread. It is the
 * definition of right: nothing here is fast, nothing is clever, and program.h's paragraphs can be
 * read beside it line by line. Internal to kernels/ref.
 */
#ifndef CP_KERNELS_REF_REF_H
#define CP_KERNELS_REF_REF_H

#include "kernels/host.h"
#include "kernels/math.h"
#include "kernels/quant.h"

/* The lane tree's last steps: the partial sums to one. */
static inline float cp_ref_tree(float partials[CP_PARTIALS])
{
    for (int h = CP_PARTIALS / 2; h; h /= 2)
        for (int j = 0; j < h; j++)
            partials[j] += partials[j + h];
    return partials[0];
}

/* y[n] = rmsnorm(x[n]) * w[n]; y may be x; w NULL: no weight. */
static inline void cp_ref_rmsnorm(float *y, const float *x, const float *w, int n, float eps)
{
    float squares[CP_PARTIALS] = {0};
    for (int i = 0; i < n; i++)
        squares[i % CP_PARTIALS] = fmaf(x[i], x[i], squares[i % CP_PARTIALS]);
    float r = 1.0f / sqrtf(cp_ref_tree(squares) / (float)n + eps);
    for (int i = 0; i < n; i++)
        y[i] = w ? (x[i] * r) * w[i] : x[i] * r;
}

/* A row of k inputs in every form that weights ask for (linear.c). */
typedef struct cp_ref_input {
    int k;
    float *x;     /* after add and norm */
    float *t;     /* scratch [k] */
    float *w;     /* one dequantized weight row [k] */
    float *xb;    /* x rounded to bf16 */
    cp_act8 *act; /* x as int8 blocks; NULL when k is no multiple of 32 */
} cp_ref_input;
void cp_ref_input_init(cp_ref_input *a, int k);
void cp_ref_input_fini(cp_ref_input *a);
void cp_ref_input_set(cp_ref_input *a); /* the other forms, from x */
/* a times row j of t, whose rows are those of all its matrices in a row. */
float cp_ref_dot(const cp_prepared *p, const cp_tensor *t, int64_t j, const cp_ref_input *a);
/* Level amx's law of tiles, see program.h: whether a level's name asks for it where factors are of
 * type t, and the sum of a[i] * b[i] over [from, to), both rounded to bf16, 32 at a time. */
bool cp_ref_by_tiles(const cp_prepared *p, cp_dtype t);
float cp_ref_dot_tiles(const float *a, const float *b, int from, int to);
/* act(gate) * up, and what else a cp_act says. */
float cp_ref_act(cp_act act, float gate, float up);

/* A record of a step. */
typedef void cp_ref_fn(cp_prepared *p, const cp_op *op, const cp_batch *b);
#define X(kind, name) cp_ref_fn cp_ref_##name;
CP_OPS(X)
#undef X

#endif
