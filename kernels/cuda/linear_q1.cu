/* linear_q1: linears of quantized weights, 1 tile of eight rows a block. */
#define CUDA_NT         1
#define CUDA_NAME(kind) k_linear_q1_##kind

#include "kernels/cuda/linear_q.cuh"
