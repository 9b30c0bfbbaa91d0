/*
 * gemm: the micro-kernels over panels (kernels/unpack.h) and the table of them that an ISA level
 * fills. Internal to kernels/cpu.
 */
#ifndef CP_KERNELS_CPU_GEMM_H
#define CP_KERNELS_CPU_GEMM_H

#include "kernels/program.h"
#include "kernels/unpack.h"

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

/*
 * tile[n][16] = panel . columns. act: n activation columns, stride bytes apart: cp_act8 blocks for
 * quantized kinds, f32 for F32 and F16, for BF16 f32 values that are bf16; bf16 pairs for BF16 and
 * F16 where the table says so. Overwrites tile.
 */
typedef void cp_gemm_fn(const uint8_t *panel, int k, const uint8_t *act, size_t stride, int n,
                        float *tile);

/* tile[i][16] = panel[i] . column for two panels of a quantized kind and one column: the bits of a
 * cp_gemm_fn for each. */
typedef void cp_gemm_pair_fn(const uint8_t *const panel[2], int k, const uint8_t *act,
                             float *const tile[2]);

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
    cp_gemm_pair_fn *pair[CP_PANEL_COUNT]; /* NULL: one by one is as fast */
    /* Quantized kinds from many_rows columns on, with the same bits; many_rows 0: gemm does all.
     * Their columns are what gather makes of n columns, chunk_rows by chunk_rows: gathered_bytes a
     * block of so many. */
    cp_gemm_fn *many[CP_PANEL_COUNT];
    int many_rows;
    void (*gather)(const uint8_t *act, size_t stride, int k, int n, uint8_t *to);
    size_t gathered_bytes;
    void (*quantize)(const float *x, int64_t k, cp_act8 *out); /* as cp_quantize_act_row */
    cp_finish_fn *finish;
    bool bf16_pairs, f16_pairs; /* BF16's, F16's activations are bf16 pairs, not f32 */
    int pair_inputs;            /* rows of pairs end in zeros, at a multiple of so many inputs */
    int chunk_rows;             /* a chunk of rows is a multiple of so many */
    int rows_beyond; /* so many columns behind the last may be read: whatever lies there */
} cp_gemm_table;

/* Each level overwrites what it does better than the one it stands on, called before it;
 * cp_isa_gemm() does that. */
void cp_gemm_fill_base(cp_gemm_table *t);
void cp_gemm_fill_avx2(cp_gemm_table *t);
void cp_gemm_fill_avxvnni(cp_gemm_table *t);
void cp_gemm_fill_avx512(cp_gemm_table *t);
void cp_gemm_fill_vnni(cp_gemm_table *t);
void cp_gemm_fill_bf16(cp_gemm_table *t);
void cp_gemm_fill_amx(cp_gemm_table *t);
void cp_gemm_fill_few_amx(cp_gemm_table *t); /* a part of amx: what is below many_rows */

/* gemm_amx.c: a thread's tile configuration, and its end. */
void cp_tiles_enter(void);
void cp_tiles_leave(void);

#endif
