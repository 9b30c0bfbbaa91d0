/*
 * act: inputs of linears as int8 blocks, in words that C and CUDA share. Internal to kernels/cuda.
 *
 * Eight rows are a tile. Of each a cuda_act holds 32 inputs in the order of mma.m16n8k32's B
 * fragment, and what offsets and minima of the weights want of them (quant.h's cp_act8). A matrix
 * of inputs is [tiles][k / 32] of these; rows that a step does not have hold anything.
 */
#ifndef CP_KERNELS_CUDA_ACT_H
#define CP_KERNELS_CUDA_ACT_H

#include <stdint.h>

enum { CUDA_TILE = 8, CUDA_BLOCK = 32 };

typedef struct cuda_act {
    uint32_t q[CUDA_TILE][4][2]; /* q[row][t][h]: four int8, of inputs 16 h + 4 t and on */
    float d[CUDA_TILE];          /* amax / 127 */
    int32_t sum[CUDA_TILE];      /* of all 32 */
    float dsum[CUDA_TILE];       /* d * (float)sum */
    int32_t sum16[CUDA_TILE];    /* two int16: of the first 16, and of the others above them */
} cuda_act;

#endif
