/* linear_m4: linears of quantized weights of several kinds, 4 tiles of eight rows a block. */
#define CUDA_NT   4
#define CUDA_NAME k_linear_m4

#include "kernels/cuda/linear_m.cuh"
