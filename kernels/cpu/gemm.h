/*
 * gemm.h: panels, the micro-kernels over them and the table that an ISA level fills. Internal to
 * kernels/cpu.
 *
 * A panel holds 16 outputs (lanes) for all of K. Quantized panels are a sequence of blocks of 32 k;
 * kinds with 8-bit scales put a header of half-precision super-scales before every 8 blocks. In a
 * block, element (lane l, k) is byte [k / 4][l][k % 4] of eight 64-byte groups; 4-bit kinds fold
 * groups g and g + 4 into the low and high nibbles of one, kinds of 5 and 6 bits add planes of high
 * bits in the same byte positions. Weights are unsigned, the offset (8, 16, 32, 128) is taken off
 * through the activations' sums. One layout serves every ISA.
 */
#ifndef CP_KERNELS_CPU_GEMM_H
#define CP_KERNELS_CPU_GEMM_H

#include "kernels/cpu/linear.h"
#include "kernels/quant.h"

/* Sanitizers multiply the size of unrolled code and the time to compile it: there, and where tests
 * emulate the vectors, loops stay loops and a tile's width is a variable. The same operations. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(CP_EMULATED_VECTORS)
#define CP_SMALL_CODE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define CP_SMALL_CODE 1
#endif
#endif

#define CP_LANES 16
#define CP_SUPER 8 /* blocks under one super-scale header */

/* X(NAME, bits, form, offset log2 or -1, block bytes, header bytes) */
#define CP_INT_PANELS(X)                                                                           \
    X(N4H, 4, CP_FORM_H, 3, 288, 0)    /* f16 wd */                                                \
    X(N4HM, 4, CP_FORM_HM, -1, 320, 0) /* f16 wd, f16 wm */                                        \
    X(N4K, 4, CP_FORM_K4, -1, 288, 64) /* u8 sc, u8 mn; header f16 d, f16 dmin */                  \
    X(N5H, 5, CP_FORM_H, 4, 352, 0)    /* nibbles, bit plane, f16 wd */                            \
    X(N5HM, 5, CP_FORM_HM, -1, 384, 0) /* nibbles, bit plane, f16 wd, f16 wm */                    \
    X(N5K, 5, CP_FORM_K4, -1, 352, 64) /* nibbles, bit plane, u8 sc, u8 mn */                      \
    X(N6K, 6, CP_FORM_K6, 5, 416, 32)  /* nibbles, two 2-bit planes, s8 sc[2]; header f16 d */     \
    X(N8H, 8, CP_FORM_H, 7, 544, 0)    /* bytes, f16 wd */                                         \
    X(N8F, 8, CP_FORM_F, 7, 576, 0)    /* bytes, f32 wd */                                         \
    X(N8G, 8, CP_FORM_G, 7, 640, 0)    /* bytes, f32 wd of 16-groups [2] */                        \
    X(N8GM, 8, CP_FORM_GM, 7, 768, 0)  /* bytes, f32 wd[2], f32 wm[2] */

/* How a block's scales are stored. */
typedef enum cp_form {
    CP_FORM_H,
    CP_FORM_HM,
    CP_FORM_K4,
    CP_FORM_K6,
    CP_FORM_F,
    CP_FORM_G,
    CP_FORM_GM
} cp_form;

typedef enum cp_panel_kind {
#define X(name, bits, form, off, bytes, head) CP_PANEL_##name,
    CP_INT_PANELS(X)
#undef X
        CP_PANEL_F32, /* [k][16] f32 */
    CP_PANEL_F16,     /* [k][16] f16 */
    CP_PANEL_BF16,    /* [k / 2][16][2] bf16, odd k padded with zero */
    CP_PANEL_COUNT
} cp_panel_kind;

/*
 * tile[n][16] = panel . columns. act: n activation columns, stride bytes apart: cp_act8 blocks for
 * quantized kinds, f32 for F32 and F16, for BF16 f32 values that are bf16 (or bf16 pairs where the
 * table says so). Overwrites tile.
 */
typedef void cp_gemm_fn(const uint8_t *panel, int k, const uint8_t *act, size_t stride, int n,
                        float *tile);

/* What happens to an output before it is stored; see program.h's LINEAR. */
typedef struct cp_epilogue {
    cp_act act;
    float scale, softcap;
} cp_epilogue;

/* out[c * ld + l] = epilogue(tile[c][l] + bias[l]) for n columns and lanes l < lanes. up: second
 * tile and bias when e->act is not NONE. bias and up_bias: [16] or NULL. */
typedef void cp_finish_fn(const cp_epilogue *e, const float *tile, const float *bias,
                          const float *up, const float *up_bias, int n, int lanes, float *out,
                          size_t ld);

typedef struct cp_gemm_table {
    cp_gemm_fn *gemm[CP_PANEL_COUNT];
    void (*quantize)(const float *x, int64_t k, cp_act8 *out); /* as cp_quantize_act_row */
    cp_finish_fn *finish;
    bool bf16_pairs; /* BF16 activations are bf16 pairs, not f32 */
} cp_gemm_table;

/* Each level overwrites what it does better than the one it stands on, called before it. */
void cp_gemm_fill_base(cp_gemm_table *t);
void cp_gemm_fill_avx2(cp_gemm_table *t);
void cp_gemm_fill_avxvnni(cp_gemm_table *t);
void cp_gemm_fill_avx512(cp_gemm_table *t);
void cp_gemm_fill_vnni(cp_gemm_table *t);
void cp_gemm_fill_bf16(cp_gemm_table *t);
/* The table of a level: base and everything it stands on (isa.c). */
void cp_gemm_table_init(cp_gemm_table *t, cp_isa isa);

/* ---- panels and how they are made (unpack.c) ---- */

/* Writes the panel of rows [row0, row0 + rows) of t, rows <= 16; missing lanes become zero. */
typedef void cp_unpack_fn(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel);

/* The panel kind of a weight type; CP_PANEL_COUNT: not usable as a matrix. */
cp_panel_kind cp_panel_kind_of(cp_dtype t);
/* Bytes of one panel with k inputs, a multiple of 64; 0 on overflow. */
size_t cp_panel_bytes(cp_panel_kind kind, int64_t k);
/* The unpack row of a type: a fast one, or the generic one through cp_unquant_block. */
cp_unpack_fn *cp_unpack_of(cp_dtype t);
/* The generic one for quantized types, into the type's own panel kind (tests compare both). */
void cp_unpack_generic(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel);

#endif
