/*
 * emulated.h: runs 512-bit kernels on any x86-64 machine. Include it before a kernel's source; it
 * defines WIDE where that works (gcc, SIMDe, no sanitizer: minutes of compilation). SIMDe's names
 * replace the intrinsics; what it lacks or rounds twice (half conversion, FMA) is spelled here lane
 * by lane.
 */
#ifndef CP_TESTS_KERNELS_EMULATED_H
#define CP_TESTS_KERNELS_EMULATED_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__has_include) &&   \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if __has_include(<simde/x86/avx512.h>)
#define WIDE 1
#endif
#endif

#ifdef WIDE

#pragma GCC diagnostic ignored "-Wpsabi"

/* the real ones first, so that nothing declares them after SIMDe has taken their names */
#include <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include "kernels/math.h"

static inline simde__m512 emulated_cvtph(simde__m256i h)
{
    uint16_t in[16];
    float out[16];
    memcpy(in, &h, sizeof in);
    for (int i = 0; i < 16; i++)
        out[i] = cp_f32_from_f16(in[i]);
    return simde_mm512_loadu_ps(out);
}

/* 16 lanes of FROM, converted one by one. */
#define EMULATED_CONVERT(name, result, argument, from, to)                                         \
    static inline result name(argument v)                                                          \
    {                                                                                              \
        from in[16];                                                                               \
        to out[16];                                                                                \
        result r;                                                                                  \
        memcpy(in, &v, sizeof in);                                                                 \
        for (int i = 0; i < 16; i++)                                                               \
            out[i] = (to)in[i];                                                                    \
        memcpy(&r, out, sizeof r);                                                                 \
        return r;                                                                                  \
    }
EMULATED_CONVERT(emulated_i32_f32, simde__m512, simde__m512i, int32_t, float)
EMULATED_CONVERT(emulated_u8_i32, simde__m512i, simde__m128i, uint8_t, int32_t)
EMULATED_CONVERT(emulated_s8_i32, simde__m512i, simde__m128i, int8_t, int32_t)
EMULATED_CONVERT(emulated_low16, simde__m256i, simde__m512i, int32_t, uint16_t)

static inline simde__m512 emulated_fma(simde__m512 a, simde__m512 b, simde__m512 c, float sign)
{
    float x[16], y[16], z[16];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    memcpy(z, &c, sizeof z);
    for (int i = 0; i < 16; i++)
        z[i] = fmaf(sign * x[i], y[i], z[i]);
    return simde_mm512_loadu_ps(z);
}

#undef _mm512_cvtph_ps
#undef _mm512_cvtepi32_epi16
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtepi8_epi32
#undef _mm512_madd_epi16
#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#define _mm512_cvtph_ps(h)        emulated_cvtph(h)
#define _mm512_cvtepi32_epi16(v)  emulated_low16(v)
#define _mm512_madd_epi16(a, b)   simde_mm512_madd_epi16(a, b) /* SIMDe's alias has 4 arguments */
#define _mm512_cvtepi32_ps(v)     emulated_i32_f32(v)
#define _mm512_cvtepu8_epi32(v)   emulated_u8_i32(v)
#define _mm512_cvtepi8_epi32(v)   emulated_s8_i32(v)
#define _mm512_fmadd_ps(a, b, c)  emulated_fma(a, b, c, 1.0f)
#define _mm512_fnmadd_ps(a, b, c) emulated_fma(a, b, c, -1.0f)
#define CP_EMULATED_VECTORS

#pragma GCC diagnostic ignored "-Wsign-conversion" /* SIMDe's own shift counts */

#endif
#endif
