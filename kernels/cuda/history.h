/*
 * history: what the device knows of the tokens of slots, and what a step must bring so that it
 * knows a row's. Internal to kernels/cuda; one thread.
 *
 * The host remembers, a slot, the tokens that the device has counted. The first row of a step that
 * wants its history makes the slot's the row's, but for an id that is not known yet (CP_TOK_PREV):
 * what is new is counted, drafts that were wrong are taken back, another tenant's go. What a later
 * row of the slot has beyond that comes with the row.
 */
#ifndef CP_KERNELS_CUDA_HISTORY_H
#define CP_KERNELS_CUDA_HISTORY_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/sampling.h"

typedef struct cuda_tenant {
    int32_t *ids; /* [n] that the device has counted */
    int n, capacity, n_prompt;
    uint32_t epoch;
    uint64_t step;         /* the latest that changed it; 0: never */
    const int32_t *tokens; /* of the row that it was made for, in that step */
} cuda_tenant;

typedef struct cuda_histories {
    cuda_tenant *tenants; /* [max_seqs] */
    int max_seqs, n_vocab;
    cuda_history *changed; /* [max_seqs] of this step */
    int n_changed;
    cuda_seen *seen; /* scratch */
    size_t capacity;
    uint64_t step, collected; /* numbers of steps: begun, and come to an end */
} cuda_histories;

void cp_cuda_histories_init(cuda_histories *h, int max_seqs, int n_vocab);
void cp_cuda_histories_fini(cuda_histories *h);
/* In a fill: before its first row, of each row with penalties in order (row->penalties is set
 * already), and behind the last one; returns where the changed ones lie. */
void cp_cuda_histories_begin(cuda_histories *h);
void cp_cuda_histories_row(cuda_histories *h, cuda_run *run, const cp_batch_seq *q,
                           const cp_sample_in *in, cuda_sample *row);
/* The step came to its end: the device has counted what it brought. */
void cp_cuda_histories_end(cuda_histories *h);

#endif
