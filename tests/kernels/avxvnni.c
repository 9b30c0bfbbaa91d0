/*
 * The avxvnni micro-kernels as they are compiled for machines that have them, but for vpdpbusd
 * itself, spelled here in AVX2: what test_linear_avxvnni.c runs where AVX2 is all there is.
 */
#include "tests/kernels/avxvnni.h"

#if defined(__x86_64__)

#include <immintrin.h>

/* Four products of unsigned and signed bytes added to each int32, without saturation. */
static inline __m256i emulated_dpbusd(__m256i acc, __m256i w, __m256i a)
{
    __m256i low = _mm256_set1_epi16(0xff);
    __m256i even =
        _mm256_madd_epi16(_mm256_and_si256(w, low), _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(a, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}

#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32(acc, w, a) emulated_dpbusd(acc, w, a)
#define cp_gemm_fill_avxvnni               rig_fill_avxvnni

#include "kernels/cpu/gemm_avxvnni.c"

#endif
