/*
 * sum: the argument of SUM's kernels. Internal to kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_SUM_H
#define CP_KERNELS_CUDA_SUM_H

#include "kernels/cuda/step.h"

#define CUDA_SUM_THREADS 128

typedef struct cuda_sum_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) in; /* [rows, ld_in]: n_used parts of n */
    CUDA_PTR(const float) weights;
    CUDA_PTR(float) out;
    CUDA_PTR(const float) shared;      /* or none */
    CUDA_PTR(const float) gate;        /* or none */
    CUDA_PTR(const float) norm;        /* or none: of both summands */
    CUDA_PTR(const float) shared_norm; /* beside norm */
    int32_t ld_in, ld_weights, ld_out, ld_shared, ld_gate;
    int32_t n, n_used, of_out_rows;
    float eps;
} cuda_sum_args;

#endif
