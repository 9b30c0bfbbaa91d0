/*
 * gemm_avxvnni: quantized panels with the VEX form of vpdpbusd, for machines that have it without
 * AVX-512. The same exact integers as every other level; the rest is avx2's.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include "kernels/cpu/v16_avx2.h"

#define DOT_U8   1
#define MAX_COLS 4

#include "kernels/cpu/gemm_narrow.inc"

#define vi_dot(acc, w, a) _mm256_dpbusd_avx_epi32(acc, w, a)

#include "kernels/cpu/gemm_int.inc"

void cp_gemm_fill_avxvnni(cp_gemm_table *t)
{
#define X(name, bits, codes, form, off, bytes, head) t->gemm[CP_PANEL_##name] = gemm_##name;
    CP_INT_PANELS(X)
#undef X
}
