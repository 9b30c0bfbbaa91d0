/*
 * half: the 16-bit floats of PTX, bit by bit, and the one NaN that f32 results have. Internal to
 * tests/ptxvm.
 */
#ifndef CP_PTXVM_HALF_H
#define CP_PTXVM_HALF_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline float ptx_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static inline uint32_t ptx_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* Single precision passes no NaN's payload on: every NaN that an instruction makes is this one. */
static inline float ptx_canonical(float v)
{
    return v == v ? v : ptx_float(0x7fffffffu);
}

static inline float f32_of_bf16(uint16_t h)
{
    return ptx_canonical(ptx_float((uint32_t)h << 16));
}

/* Exponents are moved by a product, which also makes denormals right. */
static inline float f32_of_f16(uint16_t h)
{
    const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
    const float finite = ptx_float(magnitude) * 0x1p112f;
    if ((h & 0x7fff) > 0x7c00)
        return ptx_float(0x7fffffffu);
    return ptx_float(((h & 0x7fff) == 0x7c00 ? 0x7f800000u : ptx_bits(finite)) | sign);
}

/* To nearest even, or toward zero; from f64, so that f32, f64 and integers of 32 bits are rounded
 * once. */
static inline uint16_t f16_of_f64(double v, bool toward_zero)
{
    if (v != v)
        return 0x7fff;
    const uint16_t sign = signbit(v) ? 0x8000 : 0;
    const double a = fabs(v);
    if (a >= 65536.0)
        return (uint16_t)(sign | (toward_zero && a < (double)INFINITY ? 0x7bff : 0x7c00));
    uint64_t bits;
    memcpy(&bits, &a, 8);
    const uint64_t least = 1023 - 14, exponent = bits >> 52 > least ? bits >> 52 : least;
    /* the value in units of the last place: times a power of two, so exact */
    const uint64_t power = (2 * 1023 + 10 - exponent) << 52;
    double scale;
    memcpy(&scale, &power, 8);
    const double n = toward_zero ? trunc(a * scale) : rint(a * scale);
    return (uint16_t)(sign | (uint16_t)(((exponent - least) << 10) + (uint64_t)n));
}

static inline uint16_t bf16_of_f32(float v, bool toward_zero)
{
    const uint32_t bits = ptx_bits(v);
    if (v != v)
        return 0x7fff;
    return (uint16_t)((toward_zero ? bits : bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
