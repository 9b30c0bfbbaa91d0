/*
 * math: the transcendental functions and number formats of the kernels, written out so that every
 * backend and ISA level gives the same bits (ARCHITECTURE §5, rule 8: no libm but fmaf). Scalar
 * here; kernels/cpu/v16_*.h repeat the same operations in the same order sixteen lanes wide.
 *
 * All functions pass NaN through. Rounding steps are spelled: fmaf where one rounding is meant,
 * plain * and + elsewhere (the build says -ffp-contract=off, and -fmad=false to nvcc, whose / and
 * sqrtf round correctly by default). To CUDA they are functions of the device.
 */
#ifndef CP_KERNELS_MATH_H
#define CP_KERNELS_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define CP_MATH_FN static __device__ __forceinline__
#else
#define CP_MATH_FN static inline
#endif

/* exp: below the first bound 0, above the second infinity; between, n = rint(x log2 e) is normal.
 */
#define CP_EXP_MIN   (-87.33654f)
#define CP_EXP_MAX   88.37626f
#define CP_EXP_LOG2E 0x1.715476p+0f
#define CP_EXP_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, nearest even */
#define CP_EXP_LN2HI 0x1.62e400p-1f
#define CP_EXP_LN2LO 0x1.7f7d1cp-20f
/* exp(r) = 1 + (r + r^2 P(r)), |r| <= ln2 / 2: Cephes expf's P, highest power first */
#define CP_EXP_P0 1.9875691500e-4f
#define CP_EXP_P1 1.3981999507e-3f
#define CP_EXP_P2 8.3334519073e-3f
#define CP_EXP_P3 4.1665795894e-2f
#define CP_EXP_P4 1.6666665459e-1f
#define CP_EXP_P5 5.0000001201e-1f
/* tanh(x) = x + x^3 T(x^2) for |x| < CP_TANH_SMALL (Cephes tanhf), else from exp */
#define CP_TANH_SMALL 0.625f
#define CP_TANH_P0    (-5.70498872745e-3f)
#define CP_TANH_P1    2.06390887954e-2f
#define CP_TANH_P2    (-5.37397155531e-2f)
#define CP_TANH_P3    1.33314422036e-1f
#define CP_TANH_P4    (-3.33332819422e-1f)
/* gpt-oss: the bound of gate and up, and the slope within the sigmoid */
#define CP_SWIGLU_LIMIT 7.0f
#define CP_SWIGLU_ALPHA 1.702f
/* gelu_tanh(x) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3) = x (A + B x^2) */
#define CP_GELU_2A 1.5957691216f
#define CP_GELU_2B 0.0713548162726f

CP_MATH_FN uint32_t cp_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof(u));
    return u;
}

CP_MATH_FN float cp_f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof(x));
    return x;
}

/* e^x to about 1 ulp; exp(0) == 1, exp(-inf) == 0; results below 2^-126 are 0. */
CP_MATH_FN float cp_expf(float x)
{
    float t = fmaf(x, CP_EXP_LOG2E, CP_EXP_MAGIC);
    float n = t - CP_EXP_MAGIC;
    float r = fmaf(n, -CP_EXP_LN2HI, x);
    r = fmaf(n, -CP_EXP_LN2LO, r);
    float p = fmaf(CP_EXP_P0, r, CP_EXP_P1);
    p = fmaf(p, r, CP_EXP_P2);
    p = fmaf(p, r, CP_EXP_P3);
    p = fmaf(p, r, CP_EXP_P4);
    p = fmaf(p, r, CP_EXP_P5);
    p = fmaf(p, r * r, r) + 1.0f;
    /* bits(t) ends in n; exponent field n + 127 */
    float s = cp_f32_from_bits((cp_f32_bits(t) << 23) + 0x3f800000u);
    p = p * s;
    p = x > CP_EXP_MAX ? INFINITY : p;
    return x < CP_EXP_MIN ? 0.0f : p;
}

/* Natural logarithm of a normal positive x (Cephes logf), about 1 ulp. */
CP_MATH_FN float cp_logf(float x)
{
    uint32_t u = cp_f32_bits(x);
    int e = (int)(u >> 23) - 126;
    float m = cp_f32_from_bits((u & 0x7fffffu) | 0x3f000000u); /* [0.5, 1) */
    if (m < 0.70710678f) {
        e--;
        m = m + m;
    }
    m = m - 1.0f;
    float z = m * m;
    float y = fmaf(7.0376836292e-2f, m, -1.1514610310e-1f);
    y = fmaf(y, m, 1.1676998740e-1f);
    y = fmaf(y, m, -1.2420140846e-1f);
    y = fmaf(y, m, 1.4249322787e-1f);
    y = fmaf(y, m, -1.6668057665e-1f);
    y = fmaf(y, m, 2.0000714765e-1f);
    y = fmaf(y, m, -2.4999993993e-1f);
    y = fmaf(y, m, 3.3333331174e-1f);
    y = y * m * z;
    float fe = (float)e;
    y = fmaf(fe, -2.12194440e-4f, y);
    y = fmaf(z, -0.5f, y);
    return fmaf(fe, 0.693359375f, m + y);
}

CP_MATH_FN float cp_tanhf(float x)
{
    float z = x * x;
    float p = fmaf(CP_TANH_P0, z, CP_TANH_P1);
    p = fmaf(p, z, CP_TANH_P2);
    p = fmaf(p, z, CP_TANH_P3);
    p = fmaf(p, z, CP_TANH_P4);
    float small = fmaf(p * z, x, x);
    float a = cp_f32_from_bits(cp_f32_bits(x) & 0x7fffffffu);
    float big = 1.0f - 2.0f / (cp_expf(a + a) + 1.0f);
    big = cp_f32_from_bits(cp_f32_bits(big) | (cp_f32_bits(x) & 0x80000000u));
    return a < CP_TANH_SMALL ? small : big;
}

/* x * sigmoid(x) */
CP_MATH_FN float cp_siluf(float x)
{
    return x / (1.0f + cp_expf(-x));
}

CP_MATH_FN float cp_sigmoidf(float x)
{
    return 1.0f / (1.0f + cp_expf(-x));
}

/* log(1 + e^x) = max(x, 0) + log(1 + u), u = e^-|x|. What rounding 1 + u to w lost is given back:
 * log(w) u / (w - 1), so that small results keep their digits. */
CP_MATH_FN float cp_softplusf(float x)
{
    float u = cp_expf(-cp_f32_from_bits(cp_f32_bits(x) & 0x7fffffffu)), w = 1.0f + u;
    float l = w == 1.0f ? u : cp_logf(w) * (u / (w - 1.0f));
    return (x > 0.0f ? x : 0.0f) + l;
}

/* The tanh approximation of GELU, as x / (1 + exp(-2u)): the same function without the tanh. */
CP_MATH_FN float cp_gelu_tanhf(float x)
{
    float u = x * fmaf(CP_GELU_2B, x * x, CP_GELU_2A);
    return x / (1.0f + cp_expf(-u));
}

/* gpt-oss: (up + 1) gate sigmoid(alpha gate), the gate bounded above, up on both sides. */
CP_MATH_FN float cp_swiglu_clampf(float gate, float up)
{
    gate = CP_SWIGLU_LIMIT < gate ? CP_SWIGLU_LIMIT : gate;
    up = CP_SWIGLU_LIMIT < up ? CP_SWIGLU_LIMIT : up;
    up = up < -CP_SWIGLU_LIMIT ? -CP_SWIGLU_LIMIT : up;
    return gate / (1.0f + cp_expf(gate * -CP_SWIGLU_ALPHA)) * (up + 1.0f);
}

/*
 * sin and cos of a f32 angle, |a| < 2^28: reduced by pi/2 in double (two parts, the first product
 * exact), double polynomials (musl's __sindf, __cosdf), rounded once to f32. Branch-free, so that
 * loops over it vectorize; no fma, so that every level gives the same bits.
 */
CP_MATH_FN void cp_sincosf(float a, float *sine, float *cosine)
{
    double x = (double)a;
    double t = x * 6.36619772367581382433e-01 + 0x1.8p52;
    double n = t - 0x1.8p52;
    uint64_t q;
    memcpy(&q, &t, sizeof(q));
    double r = (x - n * 1.57079631090164184570e+00) - n * 1.58932547735281966916e-08;
    double z = r * r;
    double w = z * z;
    double s = -0x15555554cbac77.0p-55 + z * 0x111110896efbb2.0p-59;
    s = (r + z * r * s) + z * r * w * (-0x1a00f9e2cae774.0p-65 + z * 0x16cd878c3b46a7.0p-71);
    double c = ((1.0 + z * -0x1ffffffd0c5e81.0p-54) + w * 0x155553e1053a42.0p-57) +
               (w * z) * (-0x16c087e80f1e27.0p-62 + z * 0x199342e0ee5069.0p-68);
    float fs = (float)((q & 1) ? c : s);
    float fc = (float)((q & 1) ? s : c);
    *sine = (q & 2) ? -fs : fs;
    *cosine = ((q + 1) & 2) ? -fc : fc;
}

/* SAMPLE's integer weight of w in [0, 1]: rint(w * 2^30), nearest even. */
CP_MATH_FN uint64_t cp_sample_weight(float w)
{
    float y = w * 0x1p30f;
    if (y < 0x1p23f)
        y = (y + 0x1p23f) - 0x1p23f;
    return (uint64_t)y;
}

CP_MATH_FN float cp_f32_from_bf16(uint16_t h)
{
    return cp_f32_from_bits((uint32_t)h << 16);
}

/* Nearest even; NaN stays NaN. */
CP_MATH_FN uint16_t cp_bf16_from_f32(float x)
{
    uint32_t u = cp_f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

CP_MATH_FN float cp_f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t em = h & 0x7fffu;
    if (em >= 0x7c00u) /* infinity, NaN (made quiet, as the hardware does) */
        return cp_f32_from_bits(sign | 0x7f800000u | ((em & 0x3ffu) << 13) |
                                (em > 0x7c00u ? 0x400000u : 0u));
    if (em >= 0x400u)
        return cp_f32_from_bits(sign | ((em << 13) + (112u << 23)));
    /* subnormal: em * 2^-24, exact */
    return cp_f32_from_bits(sign | cp_f32_bits((float)em * 0x1p-24f));
}

/* 2^(e - 128): half of an E8M0 scale. */
CP_MATH_FN float cp_e8m0_half(uint8_t e)
{
    return cp_f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* Half of a UE4M3 scale: read as 16 bits it is 2^-7 of that. Bit 7 is not looked at. */
CP_MATH_FN float cp_ue4m3_half(uint8_t x)
{
    return cp_f32_from_f16((uint16_t)((x & 0x7f) << 7)) * 128.0f;
}

/* Nearest even; overflow to infinity, subnormals kept, NaN stays NaN. */
CP_MATH_FN uint16_t cp_f16_from_f32(float x)
{
    uint32_t u = cp_f32_bits(x);
    uint32_t sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((u >> 13) & 0x1ffu));
    if (u >= 0x47800000u) /* 65536 and above */
        return (uint16_t)(sign | 0x7c00u);
    if (u < 0x38800000u) { /* below 2^-14: the sum's last bit is 2^-24, and it rounds */
        float f = cp_f32_from_bits(u) + 0.5f;
        return (uint16_t)(sign | (cp_f32_bits(f) - 0x3f000000u));
    }
    u += 0xc8000000u + 0xfffu + ((u >> 13) & 1u);
    return (uint16_t)(sign | (u >> 13));
}

#endif
