/*
 * rope: arguments of k_rope and k_gather, in words that C and CUDA share. Internal to kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_ROPE_H
#define CP_KERNELS_CUDA_ROPE_H

#include "kernels/cuda/step.h"

enum {
    CUDA_ROPE_THREADS = 64,
    CUDA_GATHER_THREADS = 256,
    CUDA_ROPE_PAIRS = 512 /* n_rot / 2: arguments of a kernel are 4 KB at most */
};

typedef struct cuda_rope_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(float) out; /* [rows][ld]: cos | sin */
    int32_t ld, half;    /* half: n_rot / 2 */
    float mscale;
    float inv_freq[CUDA_ROPE_PAIRS];
} cuda_rope_args;

typedef struct cuda_gather_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) in;
    CUDA_PTR(float) out;
    int32_t ld_in, ld_out; /* multiples of 4 */
    int32_t quads;         /* of a row: width / 4, rounded up */
} cuda_gather_args;

#endif
