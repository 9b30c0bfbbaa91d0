/*
 * gemm_vnni: quantized panels with vpdpbusd, which adds four byte products straight into int32: no
 * saturation, bytes used as they lie. The same exact integers as every other level.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include "kernels/cpu/v16_avx512.h"

#define DOT_U8   1
#define MAX_COLS 12

#include "kernels/cpu/gemm_wide.inc"

#define vi_dot(acc, w, a) _mm512_dpbusd_epi32(acc, w, a)

#include "kernels/cpu/gemm_int.inc"

void cp_gemm_fill_vnni(cp_gemm_table *t)
{
#define X(name, bits, codes, form, off, bytes, head) t->gemm[CP_PANEL_##name] = gemm_##name;
    CP_INT_PANELS(X)
#undef X
}
