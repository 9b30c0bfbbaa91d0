/*
 * v16, base level: sixteen f32 lanes as plain C, the pattern that v16_avx2.h and v16_avx512.h
 * follow. Code written on v16 (*.inc) gives the same bits at every level: each operation is one
 * IEEE operation a lane, and sums across lanes exist only as the fixed tree 8, 4, 2, 1.
 */
#ifndef CP_KERNELS_CPU_V16_H
#define CP_KERNELS_CPU_V16_H

#include "kernels/math.h"

#include <stdint.h>

typedef struct v16 {
    float v[16];
} v16;

/* Query vectors that share one K or V load: as many accumulators as registers hold. */
#define V16_QUERIES 4

#define V16_EACH(expr)                                                                             \
    do {                                                                                           \
        v16 r_;                                                                                    \
        for (int i = 0; i < 16; i++)                                                               \
            r_.v[i] = (expr);                                                                      \
        return r_;                                                                                 \
    } while (0)

static inline v16 v16_load(const float *p)
{
    V16_EACH(p[i]);
}

static inline void v16_store(float *p, v16 a)
{
    for (int i = 0; i < 16; i++)
        p[i] = a.v[i];
}

static inline v16 v16_set1(float x)
{
    V16_EACH(x);
}

static inline v16 v16_add(v16 a, v16 b)
{
    V16_EACH(a.v[i] + b.v[i]);
}

static inline v16 v16_sub(v16 a, v16 b)
{
    V16_EACH(a.v[i] - b.v[i]);
}

static inline v16 v16_mul(v16 a, v16 b)
{
    V16_EACH(a.v[i] * b.v[i]);
}

static inline v16 v16_div(v16 a, v16 b)
{
    V16_EACH(a.v[i] / b.v[i]);
}

/* a * b + c, rounded once */
static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    V16_EACH(fmaf(a.v[i], b.v[i], c.v[i]));
}

/* a > b ? a : b, so b when either is NaN */
static inline v16 v16_max(v16 a, v16 b)
{
    V16_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}

/* a < b ? x : y; a NaN compares false */
static inline v16 v16_lt_select(v16 a, v16 b, v16 x, v16 y)
{
    V16_EACH(a.v[i] < b.v[i] ? x.v[i] : y.v[i]);
}

/* Bit i: a[i] >= b[i] */
static inline uint32_t v16_ge_mask(v16 a, v16 b)
{
    uint32_t m = 0;
    for (int i = 0; i < 16; i++)
        m |= (uint32_t)(a.v[i] >= b.v[i]) << i;
    return m;
}

/* Bit i: a[i] is NaN */
static inline uint32_t v16_nan_mask(v16 a)
{
    uint32_t m = 0;
    for (int i = 0; i < 16; i++)
        m |= (uint32_t)(a.v[i] != a.v[i]) << i;
    return m;
}

static inline v16 v16_abs(v16 a)
{
    V16_EACH(cp_f32_from_bits(cp_f32_bits(a.v[i]) & 0x7fffffffu));
}

/* |a| with the sign bit of s or-ed in */
static inline v16 v16_or_sign(v16 a, v16 s)
{
    V16_EACH(cp_f32_from_bits(cp_f32_bits(a.v[i]) | (cp_f32_bits(s.v[i]) & 0x80000000u)));
}

/* 2^n from the bits of n + CP_EXP_MAGIC */
static inline v16 v16_exp_scale(v16 t)
{
    V16_EACH(cp_f32_from_bits((cp_f32_bits(t.v[i]) << 23) + 0x3f800000u));
}

/* Lane numbers from base on, as floats: exact up to 2^24. */
static inline v16 v16_iota(float base)
{
    V16_EACH(base + (float)i);
}

/* p[j] += p[j + h], h = 8, 4, 2, 1 */
static inline float v16_tree(v16 a)
{
    for (int h = 8; h; h >>= 1)
        for (int j = 0; j < h; j++)
            a.v[j] = a.v[j] + a.v[j + h];
    return a.v[0];
}

static inline float v16_hmax(v16 a)
{
    for (int h = 8; h; h >>= 1)
        for (int j = 0; j < h; j++)
            a.v[j] = a.v[j] > a.v[j + h] ? a.v[j] : a.v[j + h];
    return a.v[0];
}

/* Sum over lanes of rint(a * 2^30), a in [0, 1]: the integer weights of SAMPLE. */
static inline uint64_t v16_weight_sum(v16 a)
{
    uint64_t s = 0;
    for (int i = 0; i < 16; i++)
        s += cp_sample_weight(a.v[i]);
    return s;
}

/* Sixteen lanes of a page block, [16][2] 16-bit: the even or the odd element of each pair. */
static inline v16 v16_kv_even(const uint16_t *p, int f16)
{
    V16_EACH(f16 ? cp_f32_from_f16(p[2 * i]) : cp_f32_from_bf16(p[2 * i]));
}

static inline v16 v16_kv_odd(const uint16_t *p, int f16)
{
    V16_EACH(f16 ? cp_f32_from_f16(p[2 * i + 1]) : cp_f32_from_bf16(p[2 * i + 1]));
}

#endif
