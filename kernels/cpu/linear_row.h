/*
 * linear_row.h: the inside of a cp_linear, shared by linear.c (steps) and panels.c (packing).
 */
#ifndef CP_KERNELS_CPU_LINEAR_ROW_H
#define CP_KERNELS_CPU_LINEAR_ROW_H

#include "kernels/cpu/gemm.h"

#define CP_LINEAR_WEIGHTS 4

typedef struct cp_linear_weight {
    const cp_tensor *t;
    cp_unpack_fn *unpack;
    const uint8_t *packed; /* panels of this weight, or NULL: unpacked on read */
    float *bias;           /* [panels * 16], or NULL; owned */
    int64_t m;             /* outputs */
    int64_t panels;
    size_t panel_bytes;
    cp_panel_kind kind;
} cp_linear_weight;

struct cp_linear {
    cp_gemm_table table;
    cp_epilogue epilogue;
    int n_w, k, max_rows;
    bool want8, want32, want16; /* activation formats: int8 blocks, f32, bf16 */
    cp_linear_weight w[CP_LINEAR_WEIGHTS];
    size_t scratch_panel_bytes; /* the largest panel */
};

#endif
