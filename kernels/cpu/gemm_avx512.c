/*
 * gemm_avx512: panel micro-kernels for AVX-512 F/BW/DQ/VL: 16 outputs a vector, byte products by
 * vpmaddubsw with the same int16 bounds as AVX2, float panels on v16.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include "kernels/cpu/v16_avx512.h"

#include "kernels/cpu/v16_math.h"

#define DOT_U8   0
#define MAX_COLS 8

#include "kernels/cpu/gemm_wide.inc"

#include "kernels/cpu/gemm_int.inc"

static inline v16 v16_f16(const uint8_t *p)
{
    return (v16){vf_half(p)};
}

static inline v16 v16_pair_lo(const uint8_t *p)
{
    return (v16){_mm512_castsi512_ps(_mm512_slli_epi32(vi_load(p), 16))};
}

static inline v16 v16_pair_hi(const uint8_t *p)
{
    return (v16){
        _mm512_castsi512_ps(_mm512_and_si512(vi_load(p), _mm512_set1_epi32((int)0xffff0000u)))};
}

#include "kernels/cpu/gemm_float.inc"

void cp_gemm_fill_avx512(cp_gemm_table *t)
{
#define X(name, bits, codes, form, off, bytes, head) t->gemm[CP_PANEL_##name] = gemm_##name;
    CP_INT_PANELS(X)
#undef X
    t->gemm[CP_PANEL_F32] = gemm_f32;
    t->gemm[CP_PANEL_F16] = gemm_f16;
    t->gemm[CP_PANEL_BF16] = gemm_bf16;
    t->finish = finish;
}
