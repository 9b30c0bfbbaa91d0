/*
 * gemm_few_amx: quantized panels for fewer rows than fill a tile: vnni's kernels, but that panels
 * are asked for ahead into the L2, which on the processors that have AMX takes more of them at a
 * time than the first cache does, and that one row takes two panels at a time (docs/BENCHMARKS.md,
 * AMX).
 */
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include "kernels/cpu/v16_avx512.h"

#define DOT_U8        1
#define MAX_COLS      12
#define PREFETCH      2304
#define PREFETCH_HINT _MM_HINT_T1

#include "kernels/cpu/gemm_wide.inc"

#define vi_dot(acc, w, a) _mm512_dpbusd_epi32(acc, w, a)

#include "kernels/cpu/gemm_int.inc"

/* One column of two panels, block by block in turn: two streams from memory, each with what is
 * asked for ahead, are read faster than one. Each panel's sum is that of a panel alone. */
INLINE void int_pair(int bits, cp_codes codes, cp_form form, int off, int block_bytes,
                     int head_bytes, const uint8_t *const panel[2], int k, const uint8_t *act,
                     float *const tile[2])
{
    int nb = k / CP_QBLOCK;
    cursor p[2] = {{panel[0], panel[0]}, {panel[1], panel[1]}};
    for (int s = 0; s < nb; s += SEGMENT_BLOCKS) {
        vf acc[2][MAX_COLS][HALVES];
        UNROLL for (int i = 0; i < 2; i++) clear_sums(1, acc[i]);
        for (int b = 0; b < SEGMENT_BLOCKS && s + b < nb; b++, act += sizeof(cp_act8)) {
            UNROLL for (int i = 0; i < 2; i++) int_block(
                bits, codes, form, off, block_bytes, head_bytes, 1, &p[i], b, act, 0, true, acc[i]);
        }
        UNROLL for (int i = 0; i < 2; i++) put_sums(1, acc[i], s == 0, tile[i]);
    }
}

#define X(name, bits, codes, form, off, bytes, head)                                               \
    static void pair_##name(const uint8_t *const panel[2], int k, const uint8_t *act,              \
                            float *const tile[2])                                                  \
    {                                                                                              \
        int_pair(bits, codes, form, off, bytes, head, panel, k, act, tile);                        \
    }
CP_INT_PANELS(X)
#undef X

void cp_gemm_fill_few_amx(cp_gemm_table *t)
{
#define X(name, bits, codes, form, off, bytes, head)                                               \
    t->gemm[CP_PANEL_##name] = gemm_##name;                                                        \
    t->pair[CP_PANEL_##name] = pair_##name;
    CP_INT_PANELS(X)
#undef X
}
