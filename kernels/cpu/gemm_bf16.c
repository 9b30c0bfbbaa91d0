/*
 * gemm_bf16: BF16 panels with vdpbf16ps: activations as bf16 pairs, two products a lane and
 * instruction. The one float kernel whose bits differ between levels (ARCHITECTURE §5).
 */
#include "kernels/cpu/gemm.h"

#include <immintrin.h>
#include <string.h>

#define BF16_COLS 12

#include "kernels/cpu/gemm_columns.inc"

/* One segment of `pairs` pairs for n <= BF16_COLS columns: stored in tile, or added to it. ahead:
 * the panel comes from memory, with which four columns keep up as they are. */
FINLINE void segment_bf16(int n, const uint8_t *panel, int pairs, columns x, bool first, bool ahead,
                          float *tile)
{
    __m512 acc[BF16_COLS];
    FUNROLL for (int c = 0; c < n; c++) acc[c] = _mm512_setzero_ps();
    for (int i = 0; i < pairs; i++, panel += 64) {
        __m512bh w = (__m512bh)_mm512_loadu_si512(panel);
        if (ahead && n > 4)
            __builtin_prefetch(panel + COLUMNS_AHEAD);
        FUNROLL for (int c = 0; c < n; c++) acc[c] =
            _mm512_dpbf16_ps(acc[c], w, (__m512bh)_mm512_set1_epi32(column_pair(&x, c)));
        next_inputs(&x, n, 4);
    }
    FUNROLL for (int c = 0; c < n; c++)
    {
        float *to = tile + 16 * c;
        _mm512_storeu_ps(to, first ? acc[c] : _mm512_add_ps(_mm512_loadu_ps(to), acc[c]));
    }
}

FINLINE void tile_bf16(int n, const uint8_t *panel, int pairs, const uint8_t *act, size_t stride,
                       bool ahead, float *tile)
{
    enum { SEGMENT = CP_SEGMENT / 2 };
    for (int at = 0; at < pairs; at += SEGMENT)
        segment_bf16(n, panel + 64 * (size_t)at, pairs - at < SEGMENT ? pairs - at : SEGMENT,
                     columns_at(n, act + 4 * (size_t)at, stride), at == 0, ahead, tile);
}

#define BF16_TILE(w)                                                                               \
    tile_bf16(w, panel, pairs, act + (size_t)c * stride, stride, c == 0, tile + 16 * c)
#define BF16_CASE(w)                                                                               \
    case w:                                                                                        \
        BF16_TILE(w);                                                                              \
        break;

/* As float_gemm: few tiles, of equal width. */
static void gemm(const uint8_t *panel, int k, const uint8_t *act, size_t stride, int n, float *tile)
{
    int pairs = (k + 1) / 2;
    int tiles = (n + BF16_COLS - 1) / BF16_COLS, width = (n + tiles - 1) / tiles;
    for (int c = 0; c < n; c += width) {
        int w = n - c < width ? n - c : width;
        switch (w) {
            BF16_CASE(1)
            BF16_CASE(2)
            BF16_CASE(3)
            BF16_CASE(4)
            BF16_CASE(5)
            BF16_CASE(6)
            BF16_CASE(7)
            BF16_CASE(8)
            BF16_CASE(9)
            BF16_CASE(10)
            BF16_CASE(11)
            BF16_CASE(12)
        }
    }
}

void cp_gemm_fill_bf16(cp_gemm_table *t)
{
    t->gemm[CP_PANEL_BF16] = gemm;
    t->bf16_pairs = true;
}
