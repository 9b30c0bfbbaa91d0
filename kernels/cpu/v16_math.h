/*
 * v16_math: kernels/math.h's functions sixteen lanes wide. Include after one of v16_<level>.h
 * (alone it takes the base level). The operations and their order are those of the scalar
 * functions, so lane i of f(v) has the bits of cp_f(v[i]).
 */
#ifndef CP_KERNELS_CPU_V16_MATH_H
#define CP_KERNELS_CPU_V16_MATH_H

#ifndef CP_KERNELS_CPU_V16_H
#include "kernels/cpu/v16_base.h"
#endif

static inline v16 v16_exp(v16 x)
{
    v16 magic = v16_set1(CP_EXP_MAGIC);
    v16 t = v16_fma(x, v16_set1(CP_EXP_LOG2E), magic);
    v16 n = v16_sub(t, magic);
    v16 r = v16_fma(n, v16_set1(-CP_EXP_LN2HI), x);
    r = v16_fma(n, v16_set1(-CP_EXP_LN2LO), r);
    v16 p = v16_fma(v16_set1(CP_EXP_P0), r, v16_set1(CP_EXP_P1));
    p = v16_fma(p, r, v16_set1(CP_EXP_P2));
    p = v16_fma(p, r, v16_set1(CP_EXP_P3));
    p = v16_fma(p, r, v16_set1(CP_EXP_P4));
    p = v16_fma(p, r, v16_set1(CP_EXP_P5));
    p = v16_add(v16_fma(p, v16_mul(r, r), r), v16_set1(1.0f));
    p = v16_mul(p, v16_exp_scale(t));
    p = v16_lt_select(v16_set1(CP_EXP_MAX), x, v16_set1(INFINITY), p);
    return v16_lt_select(x, v16_set1(CP_EXP_MIN), v16_set1(0.0f), p);
}

static inline v16 v16_neg(v16 x)
{
    return v16_mul(x, v16_set1(-1.0f));
}

static inline v16 v16_silu(v16 x)
{
    return v16_div(x, v16_add(v16_set1(1.0f), v16_exp(v16_neg(x))));
}

static inline v16 v16_sigmoid(v16 x)
{
    v16 one = v16_set1(1.0f);
    return v16_div(one, v16_add(one, v16_exp(v16_neg(x))));
}

static inline v16 v16_gelu_tanh(v16 x)
{
    v16 u = v16_fma(v16_set1(CP_GELU_2B), v16_mul(x, x), v16_set1(CP_GELU_2A));
    u = v16_mul(x, u);
    return v16_div(x, v16_add(v16_set1(1.0f), v16_exp(v16_neg(u))));
}

static inline v16 v16_swiglu_clamp(v16 gate, v16 up)
{
    v16 most = v16_set1(CP_SWIGLU_LIMIT), least = v16_set1(-CP_SWIGLU_LIMIT), one = v16_set1(1.0f);
    gate = v16_lt_select(most, gate, most, gate);
    up = v16_lt_select(most, up, most, up);
    up = v16_lt_select(up, least, least, up);
    v16 e = v16_exp(v16_mul(gate, v16_set1(-CP_SWIGLU_ALPHA)));
    return v16_mul(v16_div(gate, v16_add(one, e)), v16_add(up, one));
}

static inline v16 v16_tanh(v16 x)
{
    v16 z = v16_mul(x, x);
    v16 p = v16_fma(v16_set1(CP_TANH_P0), z, v16_set1(CP_TANH_P1));
    p = v16_fma(p, z, v16_set1(CP_TANH_P2));
    p = v16_fma(p, z, v16_set1(CP_TANH_P3));
    p = v16_fma(p, z, v16_set1(CP_TANH_P4));
    v16 small = v16_fma(v16_mul(p, z), x, x);
    v16 a = v16_abs(x);
    v16 one = v16_set1(1.0f);
    v16 big = v16_sub(one, v16_div(v16_set1(2.0f), v16_add(v16_exp(v16_add(a, a)), one)));
    return v16_lt_select(a, v16_set1(CP_TANH_SMALL), small, v16_or_sign(big, x));
}

#endif
