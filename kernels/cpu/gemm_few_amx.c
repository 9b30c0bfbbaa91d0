/*
 * gemm_few_amx: quantized panels for fewer rows than fill a tile: vnni's kernels, but that panels
 * are asked for further ahead and into the L2, which on the processors that have AMX takes more of
 * them at a time than the first cache does (docs/BENCHMARKS.md, Levels).
 */
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include "kernels/cpu/v16_avx512.h"

#define DOT_U8        1
#define MAX_COLS      12
#define PREFETCH      4608
#define PREFETCH_HINT _MM_HINT_T1

#include "kernels/cpu/gemm_wide.inc"

#define vi_dot(acc, w, a) _mm512_dpbusd_epi32(acc, w, a)

#include "kernels/cpu/gemm_int.inc"

void cp_gemm_fill_few_amx(cp_gemm_table *t)
{
#define X(name, bits, codes, form, off, bytes, head) t->gemm[CP_PANEL_##name] = gemm_##name;
    CP_INT_PANELS(X)
#undef X
}
