/*
 * v16 on AVX-512 F/BW/DQ/VL: sixteen f32 lanes as one zmm register. Same operations, same bits as
 * v16_base.h, which documents them.
 */
#ifndef CP_KERNELS_CPU_V16_H
#define CP_KERNELS_CPU_V16_H

#include <immintrin.h>
#include <stdint.h>

typedef struct v16 {
    __m512 z;
} v16;

#define V16_QUERIES 8

static inline v16 v16_load(const float *p)
{
    return (v16){_mm512_loadu_ps(p)};
}

static inline void v16_store(float *p, v16 x)
{
    _mm512_storeu_ps(p, x.z);
}

static inline v16 v16_set1(float x)
{
    return (v16){_mm512_set1_ps(x)};
}

static inline v16 v16_add(v16 x, v16 y)
{
    return (v16){_mm512_add_ps(x.z, y.z)};
}

static inline v16 v16_sub(v16 x, v16 y)
{
    return (v16){_mm512_sub_ps(x.z, y.z)};
}

static inline v16 v16_mul(v16 x, v16 y)
{
    return (v16){_mm512_mul_ps(x.z, y.z)};
}

static inline v16 v16_div(v16 x, v16 y)
{
    return (v16){_mm512_div_ps(x.z, y.z)};
}

static inline v16 v16_fma(v16 x, v16 y, v16 z)
{
    return (v16){_mm512_fmadd_ps(x.z, y.z, z.z)};
}

static inline v16 v16_max(v16 x, v16 y)
{
    return (v16){_mm512_max_ps(x.z, y.z)};
}

static inline v16 v16_lt_select(v16 x, v16 y, v16 t, v16 f)
{
    return (v16){_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.z, y.z, _CMP_LT_OQ), f.z, t.z)};
}

static inline uint32_t v16_ge_mask(v16 x, v16 y)
{
    return _mm512_cmp_ps_mask(x.z, y.z, _CMP_GE_OQ);
}

static inline uint32_t v16_nan_mask(v16 x)
{
    return _mm512_cmp_ps_mask(x.z, x.z, _CMP_UNORD_Q);
}

static inline v16 v16_abs(v16 x)
{
    return (v16){_mm512_abs_ps(x.z)};
}

static inline v16 v16_or_sign(v16 x, v16 s)
{
    __m512i sign = _mm512_and_si512(_mm512_castps_si512(s.z), _mm512_set1_epi32(INT32_MIN));
    return (v16){_mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(x.z), sign))};
}

static inline v16 v16_exp_scale(v16 t)
{
    __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t.z), 23);
    return (v16){_mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(0x3f800000)))};
}

static inline v16 v16_iota(float base)
{
    return (v16){_mm512_add_ps(_mm512_set1_ps(base), _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                                                                    10, 11, 12, 13, 14, 15))};
}

static inline float v16_tree(v16 x)
{
    __m256 e = _mm256_add_ps(_mm512_castps512_ps256(x.z), _mm512_extractf32x8_ps(x.z, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

static inline float v16_hmax(v16 x)
{
    __m256 e = _mm256_max_ps(_mm512_castps512_ps256(x.z), _mm512_extractf32x8_ps(x.z, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

static inline uint64_t v16_weight_sum(v16 x)
{
    __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(x.z, _mm512_set1_ps(0x1p30f)));
    __m512i low = _mm512_and_si512(a, _mm512_set1_epi64(0xffffffff));
    return (uint64_t)_mm512_reduce_add_epi64(_mm512_add_epi64(low, _mm512_srli_epi64(a, 32)));
}

static inline v16 v16_kv_even(const uint16_t *p, int f16)
{
    __m512i a = _mm512_loadu_si512(p);
    if (f16)
        return (v16){_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a))};
    return (v16){_mm512_castsi512_ps(_mm512_slli_epi32(a, 16))};
}

static inline v16 v16_kv_odd(const uint16_t *p, int f16)
{
    __m512i a = _mm512_loadu_si512(p);
    if (f16)
        return (v16){_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16)))};
    return (v16){_mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32((int)0xffff0000u)))};
}

#endif
