/*
 * act: the formats of inputs of linears, in words that C and CUDA share. Internal to kernels/cuda.
 *
 * Rows of f32, bf16 or f16, or int8 blocks. Rows of f16 are divided by powers of two, one of each
 * 32 inputs, so that f16 holds them; these lie as [tiles][blocks][CUDA_TILE]. Of int8 eight rows
 * are a tile. Of each a cuda_act holds 32 inputs in the order of mma.m16n8k32's B fragment, and
 * what offsets and minima of the weights want of them (quant.h's cp_act8). A matrix of inputs is
 * [tiles][k / 32] of these; rows that a step does not have hold anything.
 */
#ifndef CP_KERNELS_CUDA_ACT_H
#define CP_KERNELS_CUDA_ACT_H

#include "kernels/cuda/step.h"

enum { CUDA_TILE = 8, CUDA_BLOCK = 32 };

typedef struct cuda_act {
    uint32_t q[CUDA_TILE][4][2]; /* q[row][t][h]: four int8, of inputs 16 h + 4 t and on */
    float d[CUDA_TILE];          /* amax / 127 */
    int32_t sum[CUDA_TILE];      /* of all 32 */
    float dsum[CUDA_TILE];       /* d * (float)sum */
    int32_t sum16[CUDA_TILE];    /* two int16: of the first 16, and of the others above them */
} cuda_act;

/* Which kernels a weight is multiplied by, hence which inputs it wants. */
typedef enum cuda_form {
    CUDA_INT8, /* panels of integers: cuda_act */
    CUDA_F32,  /* FMAs by the law: F32, and F16 in exact mode: rows of f32 */
    CUDA_BF16, /* rows of bf16, in both modes */
    CUDA_F16,  /* rows of f16, scaled */
    CUDA_FORMS
} cuda_form;

/* Where a record leaves its output as inputs of the LINEAR behind it, in the place of f32 rows. */
typedef struct cuda_handed {
    CUDA_PTR(void) at;      /* 0: it does not */
    CUDA_PTR(float) scales; /* of CUDA_F16 */
    int32_t form, n_blocks; /* blocks of 32 of a row, the last of which may end in zeroes */
} cuda_handed;

#endif
