/*
 * v16 on AVX2 + FMA + F16C: sixteen f32 lanes as two ymm registers. Same operations, same bits as
 * v16_base.h, which documents them.
 */
#ifndef CP_KERNELS_CPU_V16_H
#define CP_KERNELS_CPU_V16_H

#include <immintrin.h>
#include <stdint.h>

typedef struct v16 {
    __m256 a, b;
} v16;

#define V16_QUERIES 5 /* ten accumulators; with twelve gcc spills and loses a fifth */

static inline v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

static inline void v16_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}

static inline v16 v16_set1(float x)
{
    __m256 a = _mm256_set1_ps(x);
    return (v16){a, a};
}

static inline v16 v16_add(v16 x, v16 y)
{
    return (v16){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}

static inline v16 v16_sub(v16 x, v16 y)
{
    return (v16){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}

static inline v16 v16_mul(v16 x, v16 y)
{
    return (v16){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}

static inline v16 v16_div(v16 x, v16 y)
{
    return (v16){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}

static inline v16 v16_fma(v16 x, v16 y, v16 z)
{
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

static inline v16 v16_max(v16 x, v16 y)
{
    return (v16){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}

static inline v16 v16_lt_select(v16 x, v16 y, v16 t, v16 f)
{
    return (v16){_mm256_blendv_ps(f.a, t.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
                 _mm256_blendv_ps(f.b, t.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}

static inline uint32_t v16_ge_mask(v16 x, v16 y)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ)) << 8;
}

static inline uint32_t v16_nan_mask(v16 x)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q)) << 8;
}

static inline v16 v16_abs(v16 x)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}

static inline v16 v16_or_sign(v16 x, v16 s)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_or_ps(x.a, _mm256_and_ps(sign, s.a)),
                 _mm256_or_ps(x.b, _mm256_and_ps(sign, s.b))};
}

static inline __m256 v8_exp_scale(__m256 t)
{
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(t), 23),
                                                _mm256_set1_epi32(0x3f800000)));
}

static inline v16 v16_exp_scale(v16 t)
{
    return (v16){v8_exp_scale(t.a), v8_exp_scale(t.b)};
}

static inline v16 v16_iota(float base)
{
    __m256 b = _mm256_set1_ps(base);
    return (v16){_mm256_add_ps(b, _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7)),
                 _mm256_add_ps(b, _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15))};
}

static inline float v16_tree(v16 x)
{
    __m256 e = _mm256_add_ps(x.a, x.b);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

static inline float v16_hmax(v16 x)
{
    __m256 e = _mm256_max_ps(x.a, x.b);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

static inline uint64_t v16_weight_sum(v16 x)
{
    __m256 one = _mm256_set1_ps(0x1p30f);
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(x.a, one));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(x.b, one));
    __m256i s = _mm256_add_epi32(a, b); /* <= 2^31: unsigned */
    __m256i low = _mm256_and_si256(s, _mm256_set1_epi64x(0xffffffff));
    s = _mm256_add_epi64(low, _mm256_srli_epi64(s, 32));
    __m128i t = _mm_add_epi64(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    return (uint64_t)_mm_cvtsi128_si64(t) + (uint64_t)_mm_extract_epi64(t, 1);
}

/* The low halves of 2 x 8 32-bit lanes as f16 -> f32. */
static inline v16 v16_halves(__m256i a, __m256i b)
{
    __m128i x = _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i y = _mm_packus_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    return (v16){_mm256_cvtph_ps(x), _mm256_cvtph_ps(y)};
}

static inline v16 v16_kv_even(const uint16_t *p, int f16)
{
    __m256i a = _mm256_loadu_si256((const __m256i_u *)p);
    __m256i b = _mm256_loadu_si256((const __m256i_u *)(p + 16));
    if (f16) {
        __m256i low = _mm256_set1_epi32(0xffff);
        return v16_halves(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
    }
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}

static inline v16 v16_kv_odd(const uint16_t *p, int f16)
{
    __m256i a = _mm256_loadu_si256((const __m256i_u *)p);
    __m256i b = _mm256_loadu_si256((const __m256i_u *)(p + 16));
    if (f16)
        return v16_halves(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
    __m256i high = _mm256_set1_epi32((int)0xffff0000u);
    return (v16){_mm256_castsi256_ps(_mm256_and_si256(a, high)),
                 _mm256_castsi256_ps(_mm256_and_si256(b, high))};
}

#endif
