/*
 * gemm_amx: AMX tiles with vectors of 512 bits beside them.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include "kernels/cpu/v16_avx512.h"

#include "kernels/cpu/gemm_wide.inc"

/* Pairs of bf16 from f16 at even and odd: nearest even; what is subnormal as f16 is not as f32. */
static inline vi pairs(const uint8_t *even, const uint8_t *odd)
{
    static const uint16_t order[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512i x = (__m512i)_mm512_cvtne2ps_pbh(vf_half(odd), vf_half(even));
    return _mm512_permutexvar_epi16(vi_load(order), x);
}
#define vi_pairs(even, odd, h) pairs(even, odd)

#include "kernels/cpu/gemm_tiles.inc"
