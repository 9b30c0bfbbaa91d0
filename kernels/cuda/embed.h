/*
 * embed: what EMBED hands to its kernels, in words that C and CUDA share. Internal to kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_EMBED_H
#define CP_KERNELS_CUDA_EMBED_H

#include "kernels/cuda/step.h"

enum { CUDA_EMBED_THREADS = 256 };

typedef struct cuda_embed_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const int32_t) last;  /* [slots] ids for CP_TOK_PREV */
    CUDA_PTR(const uint8_t) table; /* panels, or rows in file order */
    CUDA_PTR(float) out;           /* [rows][ld] */
    int64_t weight_bytes;          /* of a panel, of a row in file order */
    int32_t k, ld;
    float scale;
} cuda_embed_args;

/* Of a record that mixes. */
typedef struct cuda_mix_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(float) out;        /* [rows][ld] */
    CUDA_PTR(const float) in;   /* [rows][ld_in] */
    CUDA_PTR(const float) norm; /* [span] */
    int32_t k, ld, ld_in, span;
    int32_t gathered; /* which of the step's gathered tables */
    float scale, eps, mix;
} cuda_mix_args;

#endif
