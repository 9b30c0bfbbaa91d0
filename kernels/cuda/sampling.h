/*
 * sampling: what SAMPLE's kernels share with their host. Internal to kernels/cuda.
 *
 * Of each slot whose rows want penalties the device keeps how often each id came: SEEN_IN_PROMPT
 * and the count in the output. A step brings the ids that are new; what a row's history holds
 * beyond its slot's (drafts, the id that is not known yet) comes with the row.
 */
#ifndef CP_KERNELS_CUDA_SAMPLING_H
#define CP_KERNELS_CUDA_SAMPLING_H

#include "kernels/cuda/step.h"
#include "kernels/program.h"
#include "kernels/sample.h"

#define CUDA_SCAN_THREADS    256 /* of k_sample_scan, for a chunk */
#define CUDA_PICK_THREADS    512 /* of k_sample_pick, for a row */
#define CUDA_HISTORY_THREADS 256
#define CUDA_SAMPLE_BLOCK    64 /* logits of which the maximum is kept */
#define CUDA_SEEN_IN_PROMPT  0x80000000u

/* An id of a history. change 0: of the prompt; else what its count in the output changes by. */
typedef struct cuda_seen {
    int32_t id; /* CP_TOK_PREV: last of the slot */
    int32_t change;
} cuda_seen;

/* What the history of a slot becomes before the rows are looked at. */
typedef struct cuda_history {
    int32_t slot, clear, n, pad;
    CUDA_PTR(const cuda_seen) seen; /* [n] */
} cuda_history;

/* To be added to an id's logit: a bias; -inf: it must not come. */
typedef struct cuda_change {
    int32_t id;
    float add;
} cuda_change;

/* An output row, as cp_sample_in. */
typedef struct cuda_sample {
    float temperature, inv_t, z_min, top_p; /* z_min -inf: no min_p */
    float repetition, presence, frequency;
    int32_t top_k, target, n_top;
    int32_t slot;
    int32_t greedy;
    int32_t keeps;     /* the slot's last id is this row's */
    int32_t penalties; /* the history counts */
    int32_t of_slot;   /* it begins with the slot's */
    int32_t n_seen, n_changes;
    uint64_t random;
    CUDA_PTR(const cuda_seen) seen; /* [n_seen] of the history, in front of or behind the slot's */
    CUDA_PTR(const cuda_change) changes; /* [n_changes] by id; of equal ids in order */
    CUDA_PTR(const uint32_t) mask;       /* or none */
} cuda_sample;

/* What a cuda_step's samples point at. */
typedef struct cuda_samples {
    int32_t n_rows, n_histories;
    CUDA_PTR(const cuda_sample) rows;
    CUDA_PTR(const cuda_history) histories;
} cuda_samples;

typedef struct cuda_sample_out {
    int32_t id, n_top, finite;
    float logprob;
    int32_t top_id[CP_MAX_TOP];
    float top_logprob[CP_MAX_TOP];
} cuda_sample_out;

typedef struct cuda_sample_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) logits;      /* [rows, ld] */
    CUDA_PTR(float) changed;           /* [rows, ld] of rows whose logits are changed */
    CUDA_PTR(float) raw_max;           /* [rows, n_blocks] of blocks of logits */
    CUDA_PTR(float) changed_max;       /* the same of `changed` */
    CUDA_PTR(float) chunk_max;         /* [rows, n_chunks] of logits; +inf where one is NaN */
    CUDA_PTR(float) chunk_sum;         /* [rows, n_chunks] lane trees of exp(x - max) */
    CUDA_PTR(uint32_t) counts;         /* [slots, ld_counts] */
    CUDA_PTR(int32_t) last;            /* [slots] */
    CUDA_PTR(cuda_sample_out) results; /* [rows] */
    int32_t ld, ld_counts, n_vocab, n_chunks, n_blocks;
} cuda_sample_args;

#endif
