/*
 * shortconv: the argument of SHORTCONV's kernel. Internal to kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_SHORTCONV_H
#define CP_KERNELS_CUDA_SHORTCONV_H

#include "kernels/cuda/step.h"

/* Rows of a sequence that a block takes: at least CP_CONV_TAPS_MAX - 1, so that only the first
 * block of a sequence looks at its state, which the same block writes. */
#define CUDA_CONV_ROWS     16
#define CUDA_CONV_CHANNELS 128 /* of a block, a thread each */

typedef struct cuda_shortconv_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) in;   /* [rows, ld_in]: b | c | x */
    CUDA_PTR(float) out;        /* [rows, ld_out] */
    CUDA_PTR(const float) conv; /* [d][taps] */
    CUDA_PTR(uint8_t) states;   /* the layer's part of slot 0: f32 [taps - 1][d] */
    uint64_t state_bytes;       /* from slot to slot */
    int32_t ld_in, ld_out, d, taps;
} cuda_shortconv_args;

#endif
