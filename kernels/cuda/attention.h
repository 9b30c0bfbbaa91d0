/*
 * attention: arguments of the ATTENTION kernels, in words that C and CUDA share. Internal to
 * kernels/cuda.
 *
 * A unit of work is an item of the step's plan (cuda_item), a kv head, and a tile of that head's
 * queries: query i of an item is head i % q_heads of its row i / q_heads. A tile holds
 * CUDA_EXACT_QUERIES or CUDA_ATTEND_QUERIES of them; where a kv head has more, its item is one row
 * and several tiles.
 */
#ifndef CP_KERNELS_CUDA_ATTENTION_H
#define CP_KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/act.h"

enum {
    CUDA_ATTENTION_THREADS = 128,
    CUDA_EXACT_QUERIES = 8,
    CUDA_ATTEND_QUERIES = 16,
    CUDA_HEAD_MAX = 1024, /* widths of a head */
    CUDA_KEY_TILE = 32,   /* keys that the mma form takes at once */
    CUDA_SPLIT = 512,     /* CP_SPLIT */
    CUDA_RESULT_PAD = 4   /* behind o[v_dim] of a split result: m, l, and two for alignment */
};

typedef enum cuda_rope { CUDA_ROPE_NONE, CUDA_ROPE_NORM, CUDA_ROPE_NEOX } cuda_rope;

/* Of k_kv_append, k_attend*, k_merge: an ATTENTION record, bound. */
typedef struct cuda_attention_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) q; /* rows of ld_q; k, v, rope and out alike */
    CUDA_PTR(const float) k; /* 0: K and V are only read */
    CUDA_PTR(const float) v;
    CUDA_PTR(const float) rope; /* cos | sin */
    CUDA_PTR(float) out;
    CUDA_PTR(const float) q_norm; /* 0: none; k_norm and sinks alike */
    CUDA_PTR(const float) k_norm;
    CUDA_PTR(const float) sinks;
    CUDA_PTR(uint8_t) pages;                   /* page 0, head 0 of the layer */
    CUDA_PTR(float) results;                   /* [result][n_heads][v_dim + CUDA_RESULT_PAD] */
    uint64_t page_bytes;                       /* from page to page */
    uint64_t head_bytes;                       /* from kv head to kv head of a page */
    int32_t ld_q, ld_k, ld_v, ld_rope, ld_out; /* floats from row to row */
    int32_t n_heads, n_kv, q_heads;            /* q_heads of a kv head */
    int32_t tiles;                             /* of an item's queries; units = items n_kv tiles */
    int32_t k_dim, v_dim, q_width, n_rot, rope_kind;
    int32_t window, group, plan, page_shift; /* P = 1 << page_shift */
    int32_t f16, v_norm, gated, rows_out;
    cuda_handed handed;
    float eps, scale, softcap;
    float unit; /* a split's maximum times this is in units of e: 1, or ln 2 */
} cuda_attention_args;

#endif
