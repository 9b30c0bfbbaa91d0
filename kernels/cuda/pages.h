/*
 * pages: arguments of k_pages, in words that C and CUDA share. Internal to kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_PAGES_H
#define CP_KERNELS_CUDA_PAGES_H

#include "kernels/cuda/step.h"

enum { CUDA_PAGES_THREADS = 256 };

typedef struct cuda_pages_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(uint8_t) pages;
    CUDA_PTR(uint8_t) states;
    uint64_t page_bytes, state_bytes; /* multiples of 16 */
} cuda_pages_args;

#endif
