/*
 * route: the argument of ROUTE's kernel. Internal to kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_ROUTE_H
#define CP_KERNELS_CUDA_ROUTE_H

#include "kernels/cuda/step.h"

#define CUDA_ROUTE_WARPS 4 /* of a block, each with a row */

typedef struct cuda_route_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) in; /* [rows, ld_in]: router logits */
    CUDA_PTR(float) ids;
    CUDA_PTR(float) weights;
    CUDA_PTR(const float) bias;         /* [n] or none */
    CUDA_PTR(const float) expert_scale; /* [n] or none */
    int32_t ld_in, ld_ids, ld_weights;
    int32_t n, n_used, n_groups, n_groups_used;
    int32_t gate; /* cp_gate */
    int32_t normalize, of_out_rows;
    float scale;
} cuda_route_args;

#endif
