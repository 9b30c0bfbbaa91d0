/* linear_q4: linears of quantized weights, 4 tiles of eight rows a block. */
#define CUDA_NT         4
#define CUDA_NAME(kind) k_linear_q4_##kind

#include "kernels/cuda/linear_q.cuh"
