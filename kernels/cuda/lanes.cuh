/*
 * lanes: what the lanes of a warp do together. Internal to kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_LANES_CUH
#define CP_KERNELS_CUDA_LANES_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/step.h"

#define CUDA_LANES 0xffffffffu /* all of a warp */

/* The lane tree of 64 partial sums of which lane l holds l (low) and l + 32 (high); every lane gets
 * it. */
DEV_FN float cuda_tree(float low, float high)
{
    float p = __fadd_rn(low, high);
    for (int h = 16; h; h /= 2)
        p = __fadd_rn(p, __shfl_xor_sync(CUDA_LANES, p, h));
    return p;
}

/* 1 / sqrt(x) as the law has it. */
DEV_FN float cuda_rsqrt(float x)
{
    return __fdiv_rn(1.0f, __fsqrt_rn(x));
}

#endif
