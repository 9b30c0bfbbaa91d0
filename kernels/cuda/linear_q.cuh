/*
 * linear_q.cuh: k_linear_q, a kernel of each kind of panels (linear_int.cuh). The file that
 * includes this says how many tiles of eight rows a block has, CUDA_NT.
 */
#include "kernels/cuda/linear_int.cuh"

#define X(name, bits, codes, form, offset, block, head)                                            \
    DEV_KERNEL_RESIDENT(CUDA_SEGMENT_WARPS *CUDA_WARP, cuda_##name::resident(CUDA_NT))             \
    CUDA_NAME(name)(const __grid_constant__ cuda_linear_args a)                                    \
    {                                                                                              \
        cuda_linear<cuda_linear_q<cuda_##name, CUDA_NT>, CUDA_NT>(a);                              \
    }
CP_INT_PANELS(X)
#undef X
