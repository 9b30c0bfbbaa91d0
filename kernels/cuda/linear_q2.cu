/* linear_q2: linears of quantized weights, 2 tiles of eight rows a block. */
#define CUDA_NT         2
#define CUDA_NAME(kind) k_linear_q2_##kind

#include "kernels/cuda/linear_q.cuh"
