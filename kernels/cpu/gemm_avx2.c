/*
 * gemm_avx2: panel micro-kernels for AVX2 + FMA + F16C: 8 outputs a vector, a 64-byte line as two
 * halves. Static functions and one fill function; everything else is in the shared sources.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include "kernels/cpu/v16_avx2.h"

#include "kernels/cpu/v16_math.h"

#define DOT_U8   0
#define MAX_COLS 4

#include "kernels/cpu/gemm_narrow.inc"

static inline v16 v16_f16(const uint8_t *p)
{
    return (v16){vf_half(p), vf_half(p + 16)};
}

static inline v16 v16_pair_lo(const uint8_t *p)
{
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(vi_load(p), 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(vi_load(p + 32), 16))};
}

static inline v16 v16_pair_hi(const uint8_t *p)
{
    vi mask = _mm256_set1_epi32((int)0xffff0000u);
    return (v16){_mm256_castsi256_ps(_mm256_and_si256(vi_load(p), mask)),
                 _mm256_castsi256_ps(_mm256_and_si256(vi_load(p + 32), mask))};
}

#include "kernels/cpu/gemm_int.inc"

#include "kernels/cpu/gemm_float.inc"

/* As cp_quantize_act_row: the same division, products and roundings, 32 values at a time. */
static void quantize(const float *x, int64_t k, cp_act8 *out)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int64_t b = 0; b < k / CP_QBLOCK; b++, x += CP_QBLOCK, out++) {
        __m256 v[4], m = _mm256_setzero_ps();
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            m = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), m); /* a NaN leaves m */
        }
        __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
        m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
        float amax = _mm_cvtss_f32(_mm_max_ss(m4, _mm_movehdup_ps(m4)));
        __m256 inv = _mm256_set1_ps(amax > 0.0f ? 127.0f / amax : 0.0f);
        __m256i q[4];
        for (int i = 0; i < 4; i++)
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inv));
        __m256i bytes =
            _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, order);
        _mm256_storeu_si256((__m256i_u *)(void *)out->q, bytes);
        out->d = amax / 127.0f;
        /* sums of the stored bytes (saturated ones included), 16 at a time */
        __m256i ones = _mm256_set1_epi8(1), w = _mm256_set1_epi16(1);
        __m256i lo = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, bytes), w);
        __m128i s = _mm_hadd_epi32(_mm256_castsi256_si128(lo), _mm256_extracti128_si256(lo, 1));
        s = _mm_hadd_epi32(s, s);
        int32_t sum16[2] = {_mm_cvtsi128_si32(s), _mm_extract_epi32(s, 1)};
        cp_act8_set_sums(out, sum16);
    }
}

void cp_gemm_fill_avx2(cp_gemm_table *t)
{
#define X(name, bits, codes, form, off, bytes, head) t->gemm[CP_PANEL_##name] = gemm_##name;
    CP_INT_PANELS(X)
#undef X
    t->gemm[CP_PANEL_F32] = gemm_f32;
    t->gemm[CP_PANEL_F16] = gemm_f16;
    t->gemm[CP_PANEL_BF16] = gemm_bf16;
    t->quantize = quantize;
    t->finish = finish;
}
