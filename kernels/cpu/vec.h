/*
 * vec: the table of vector functions of one ISA level, and what its larger functions take. Internal
 * to kernels/cpu. ops_<level>.c compile the same ops.inc, attend.inc, delta.inc and logits.inc over
 * v16; pure functions, any thread.
 */
#ifndef CP_KERNELS_CPU_VEC_H
#define CP_KERNELS_CPU_VEC_H

#include "kernels/program.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CPU_BLOCK = 64,      /* logits a block maximum covers */
    CPU_CONV_LANES = 64, /* channels of a short convolution item */
    /* columns of S of a DELTANET item: at 128 rows 16 KiB, which lie in L1 while all rows pass */
    CPU_DELTA_COLUMNS = 32,
};

/* Queries that cp_attend_amx takes at a time, and the inputs of a dot that it keeps of each: dims,
 * in whole tiles, or positions. */
#define CP_ATTEND_ROWS 16
static inline size_t cp_attend_inputs(int k_dim)
{
    int dims = (k_dim + CP_TILE_INPUTS - 1) / CP_TILE_INPUTS * CP_TILE_INPUTS;
    return (size_t)(dims > CP_SPLIT ? dims : CP_SPLIT);
}

/* The queries of some rows and one kv head against the keys of one split. */
typedef struct cp_attend {
    const float *q; /* [n][k_dim] after norm and rope */
    int n, k_dim, v_dim;
    const int *lo, *hi; /* [n] visible positions of each, absolute, lo < hi, inside the split */
    float scale, softcap;
    bool f16;
    const uint8_t *pages;
    size_t page_bytes, head_off; /* of this layer and kv head in a page */
    const uint32_t *table;
    int positions;  /* P */
    float *s;       /* scratch [n][CP_SPLIT] */
    uint16_t *half; /* scratch of cp_attend_amx, CP_ATTEND_ROWS * cp_attend_inputs(k_dim) */
    float *o;       /* [n][v_dim]: receives the sum of p v */
    float *m, *l;   /* [n]: receive maximum and sum of p */
} cp_attend;

typedef struct cp_conv {
    int d, taps, n_rows; /* channels of the layer, taps, rows of the sequence */
    int c0, n;           /* channels [c0, c0 + n) are done, n <= CPU_CONV_LANES */
    const float *w;      /* [d][taps] */
    const float *x;      /* first row: b | c | x; rows ld_x apart */
    float *y;            /* first row; rows ld_y apart */
    size_t ld_x, ld_y;
    const float *in; /* [taps - 1][d] or NULL */
    float *out, *save;
} cp_conv;

/* DELTAPREP, one head of q, k or v: channels [c0, c0 + n) of the layer's d. */
typedef struct cp_delta_prep {
    int d, taps, n_rows, c0, n;
    const float *w; /* [d][taps] */
    const float *x; /* first row of q | k | v; rows ld apart, those of y too */
    float *y;
    size_t ld;
    bool unit; /* q, k: divided by its length and times scale */
    float eps, scale;
    const float *in; /* [taps - 1][d] or NULL */
    float *out, *save;
} cp_delta_prep;

/* DELTANET: rows of a sequence pass through some columns of a v head's S. */
typedef struct cp_delta {
    int k_dim, n_rows;
    int n;                  /* columns, at most CPU_DELTA_COLUMNS; those of whole tiles run along */
    const float *q, *k, *v; /* of the first row; rows ld apart */
    size_t ld;
    const float *decay, *beta; /* of the first row and the head; rows ld_g apart */
    size_t ld_g;
    float *s; /* [tiles][k_dim][CP_DELTA_COLUMNS] */
    float *o; /* of the first row; rows ld_o apart */
    size_t ld_o;
} cp_delta;

/* What SAMPLE's weights depend on. */
typedef struct cp_weigh {
    float max, inv_t, z_min;
} cp_weigh;

typedef struct cp_vec {
    void (*add)(float *y, const float *a, const float *b, int n);
    /* y = rmsnorm(x) * w; y may be x. w NULL: no weight. add, when not NULL: y = add + that. */
    void (*rmsnorm)(float *y, const float *x, const float *w, const float *add, int n, float eps);
    void (*scale)(float *x, float s, int n);
    void (*rope_row)(float *cs, const float *inv_freq, int half, int pos, float mscale);
    void (*rotate)(float *x, const float *cs, int n_rot, cp_rope_kind kind);
    /* K and V of position j of a page; head: the K block's start. */
    void (*store_kv)(uint16_t *head, const float *k, const float *v, int k_dim, int v_dim,
                     int positions, int j, bool f16);
    void (*attend)(const cp_attend *a);
    /* (m, l, o) of splits so far take in the next split's. */
    void (*merge)(float *m, float *l, float *o, float ms, float ls, const float *os, int n);
    void (*finish)(float *out, const float *o, float m, float l, const float *sink, int n);
    void (*gate_out)(float *y, const float *gate, int n); /* y *= sigmoid(gate) */
    void (*conv)(const cp_conv *c);
    void (*delta_prep)(const cp_delta_prep *a);
    /* gates = decay[n] | beta[n]. */
    void (*delta_gates)(float *gates, const float *alpha, const float *beta, const float *a,
                        const float *dt, int n);
    void (*delta_rows)(const cp_delta *a);
    /* y = rmsnorm(y) * w * silu(z) */
    void (*delta_finish)(float *y, const float *w, const float *z, int n, float eps);
    /* Probabilities of n router logits; p has room for whole vectors of 16. */
    void (*gate)(float *p, const float *x, int n, cp_gate gate);
    /* y[n] = sum over j < n_used of weight[j] * x[j * ld], ascending. */
    void (*sum)(float *y, const float *x, size_t ld, const float *weight, int n_used, int n);
    void (*add_scaled)(float *y, const float *x, float s, int n); /* y = fma(s, x, y) */
    /* Maxima of blocks of CPU_BLOCK logits; returns whether there is a NaN. */
    bool (*block_max)(const float *x, int n, float *max);
    /* -inf where a bit is 0; bits: whole words of 32, ids ascending. */
    void (*mask)(float *x, const uint32_t *bits, int n);
    float (*exp_sum)(const float *x, int n, float max); /* lane tree of exp(x - max) */
    uint64_t (*weigh_sum)(const float *x, int n, const cp_weigh *w);
    void (*weigh)(const float *x, int n, const cp_weigh *w, uint32_t *weight);
    /* Append ids base + i of x[i] >= at_least; returns how many. */
    int (*collect)(const float *x, int n, float at_least, int32_t base, int32_t *ids);
} cp_vec;

/* The levels that have a table of their own; cp_isa_vec() chooses. */
extern const cp_vec cp_vec_base;
#if defined(__x86_64__)
extern const cp_vec cp_vec_avx2, cp_vec_avx512;
/* attend_amx.c: cp_vec.attend of the level amx, by its law (program.h), on lines of 64 bytes. */
void cp_attend_amx(const cp_attend *a);
#endif

#endif
