/*
 * bind: where what a record names lies on the device, and the sizes of its grids. Internal to
 * kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_BIND_H
#define CP_KERNELS_CUDA_BIND_H

#include "kernels/cuda/cuda.h"

/* From row to row of a matrix; 0: it is none. */
static inline int32_t cp_cuda_ld(const cuda_run *run, cp_mat m)
{
    return m >= 0 ? (int32_t)run->p->ld[m] : 0;
}

static inline cp_addr cp_cuda_mat(const cuda_run *run, cp_mat m)
{
    return m >= 0 ? run->p->mats[m] : 0;
}

static inline cp_addr cp_cuda_vector(const cuda_run *run, cp_wref w)
{
    return w >= 0 ? run->p->vectors[w] : 0;
}

/* The layer's part of state slot 0. */
static inline cp_addr cp_cuda_state(const cuda_run *run, int group, int layer)
{
    const cp_prepared *p = run->p;
    return p->states.at + p->state_off[group] + (size_t)layer * p->prog->groups[group].state_bytes;
}

/* n things, `each` a block. */
static inline unsigned cp_cuda_blocks(int n, int each)
{
    return (unsigned)((n + each - 1) / each);
}

/* Rows of the sequence that has most. */
static inline int cp_cuda_most_rows(const cp_batch *batch)
{
    int most = 0;
    for (int s = 0; s < batch->n_seqs; s++)
        most = batch->seqs[s].n_rows > most ? batch->seqs[s].n_rows : most;
    return most;
}

#endif
