/*
 * step: what kernels know of a step, in words that C and CUDA share. Internal to kernels/cuda.
 *
 * A cuda_step lies at one device address from prepare on, and what is behind its pointers is copied
 * there before a step's first launch. Arguments of kernels are fixed when a record is bound: all
 * that changes from step to step is read from here, so that a launch may be replayed. Grids may be
 * larger than the step: blocks beyond its counts leave at once.
 */
#ifndef CP_KERNELS_CUDA_STEP_H
#define CP_KERNELS_CUDA_STEP_H

#include <stdint.h>

/* An address in device memory: a pointer to kernels, a number to the host, eight bytes to both. */
#if defined(__CUDACC__) || defined(CP_FIBERS)
#define CUDA_PTR(type) type *
#else
#define CUDA_PTR(type) uint64_t
#endif

/* As cp_batch_seq. */
typedef struct cuda_seq {
    int32_t slot, row0, n_rows, pos0;
    uint32_t state_in, state_out, state_save;
} cuda_seq;

/* Pages or state slots, as cp_page_copy. */
typedef struct cuda_copy {
    uint32_t src, dst;
} cuda_copy;

/* Where the page ids of a sequence in a group lie: entries[at + i] holds positions [(page0 + i) P,
 * ...). What lies before page0 has passed out of the window. */
typedef struct cuda_table {
    int32_t at, page0;
} cuda_table;

/* As cp_attn_item (plan.h). */
typedef struct cuda_item {
    int32_t seq, row0, n_rows, split0, split1, merge, result, result0, n_results;
} cuda_item;

/* The items of the attention records of one geometry; behind them an item of each merge. fused: K
 * and V are written by the items that read them last. */
typedef struct cuda_plan {
    int32_t n_items, n_merges, fused, pad;
    CUDA_PTR(const cuda_item) items;
} cuda_plan;

enum { CUDA_GATHERED = 4 }; /* embeddings of a program that are gathered from their files */

typedef struct cuda_step {
    int32_t n_rows, n_seqs, n_out, n_zero_pages, n_copies, n_state_copies;
    CUDA_PTR(const int32_t) tok;      /* [n_rows]; CP_TOK_PREV: last[slot of the row's sequence] */
    CUDA_PTR(const int32_t) pos;      /* [n_rows] */
    CUDA_PTR(const int32_t) row_seq;  /* [n_rows] */
    CUDA_PTR(const int32_t) out_rows; /* [n_out] */
    CUDA_PTR(const cuda_seq) seqs;    /* [n_seqs] */
    CUDA_PTR(const uint32_t) zero_pages;
    CUDA_PTR(const cuda_copy) copies;
    CUDA_PTR(const cuda_copy) state_copies;
    CUDA_PTR(const cuda_table) tables; /* [group * n_seqs + seq] */
    CUDA_PTR(const uint32_t) entries;
    CUDA_PTR(const cuda_plan) plans;               /* by the number that a record's geometry has */
    CUDA_PTR(const void) samples;                  /* cuda_samples (sampling.h) */
    CUDA_PTR(const float) gathered[CUDA_GATHERED]; /* [n_rows][width] rows of embeddings */
} cuda_step;

#endif
