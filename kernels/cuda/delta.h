/*
 * delta: the arguments of DELTAPREP's and DELTANET's kernels. Internal to kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_DELTA_H
#define CP_KERNELS_CUDA_DELTA_H

#include "kernels/cuda/step.h"

/* Rows of a sequence that a block of DELTAPREP takes: at least CP_CONV_TAPS_MAX - 1, so that only
 * the first block of a sequence looks at its state, which the same block writes. */
#define CUDA_PREP_ROWS    16
#define CUDA_PREP_THREADS 128
/* DELTANET: warps of a block, each with a tile of 16 columns of S, and rows that it stages at once.
 */
#define CUDA_DELTA_WARPS 8
#define CUDA_DELTA_ROWS  8
/* k_deltanet_128 is for this width of q and k heads, k_deltanet for all up to CP_DELTA_DIM_MAX. */
#define CUDA_DELTA_USUAL 128

/* States: the layer's part of slot 0, and the bytes from slot to slot. */
typedef struct cuda_deltaprep_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) in; /* [rows, ld]: q | k | v */
    CUDA_PTR(float) out;      /* [rows, ld] */
    CUDA_PTR(const float) alpha;
    CUDA_PTR(const float) beta;
    CUDA_PTR(float) gates;
    CUDA_PTR(const float) conv; /* [channels][taps] */
    CUDA_PTR(const float) a;    /* [n_v] */
    CUDA_PTR(const float) dt;
    CUDA_PTR(uint8_t) states; /* f32 [taps - 1][channels] */
    uint64_t state_bytes;
    int32_t ld, ld_alpha, ld_beta, ld_gates;
    int32_t n_k, n_v, k_dim, v_dim, taps, channels;
    float eps, scale;
} cuda_deltaprep_args;

typedef struct cuda_deltanet_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) in;    /* [rows, ld]: q | k | v */
    CUDA_PTR(const float) gates; /* [rows, ld_gates]: decay | beta */
    CUDA_PTR(const float) z;
    CUDA_PTR(float) out;
    CUDA_PTR(const float) norm; /* [v_dim] */
    CUDA_PTR(uint8_t) states;   /* S: f32 [n_v][tiles][k_dim][16] */
    uint64_t state_bytes;
    int32_t ld, ld_gates, ld_z, ld_out;
    int32_t n_k, n_v, k_dim, v_dim, tiles;
    float eps;
} cuda_deltanet_args;

#endif
