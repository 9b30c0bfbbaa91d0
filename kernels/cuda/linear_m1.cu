/* linear_m1: linears of quantized weights of several kinds, 1 tile of eight rows a block. */
#define CUDA_NT   1
#define CUDA_NAME k_linear_m1

#include "kernels/cuda/linear_m.cuh"
