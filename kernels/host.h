/*
 * host: what the rows share whose memory is this process's own, cpu and ref: the functions of the
 * row that deal with memory, pointers into what a prepared program took, and the ids that slots
 * sampled last. Internal to kernels/cpu, kernels/ref and tests; no other file may include it.
 */
#ifndef CP_KERNELS_HOST_H
#define CP_KERNELS_HOST_H

#include "kernels/backend.h"

/* ---- for rows ---- */

/* CP_USAGE when cfg.device names one of several devices: the host is one. */
cp_code cp_host_device(const cp_backend *b, cp_err *err);
void cp_host_name(const cp_backend *b, char *out, size_t n); /* the row's */
bool cp_host_supports(const cp_backend *b, cp_role role, cp_dtype t);
cp_code cp_host_take(cp_backend *b, cp_mem *m, size_t n, bool zeroed, cp_err *err);
void cp_host_give(cp_backend *b, cp_mem *m);
cp_code cp_host_put(cp_backend *b, cp_addr to, const void *from, size_t n, cp_err *err);
cp_code cp_host_get(cp_backend *b, void *to, cp_addr from, size_t n, cp_err *err);
cp_code cp_host_memory(const cp_backend *b, uint64_t *total, uint64_t *available, cp_err *err);
/* A quarter of what is available: weights are mapped files, which give way to whatever needs the
 * memory more. */
cp_code cp_host_kv_bytes(const cp_backend *b, uint64_t models, uint64_t *bytes, char *how, size_t n,
                         cp_err *err);

/* Zeroed pages straight from the system, touched only where something is written, so that a large
 * pool costs nothing at start; NULL when there are none, or n == 0. */
void *cp_host_map(size_t n);
void cp_host_unmap(void *p, size_t n);

/* ---- pointers ---- */

static inline void *cp_host_at(cp_addr at)
{
    return (void *)(uintptr_t)at;
}

/* Row r of a matrix. */
static inline float *cp_host_row(const cp_prepared *p, cp_mat s, int r)
{
    return (float *)cp_host_at(p->mats[s]) + (size_t)r * p->ld[s];
}

static inline const float *cp_host_vector(const cp_prepared *p, cp_wref w)
{
    return cp_host_at(p->vectors[w]);
}

static inline uint8_t *cp_host_page(const cp_prepared *p, uint32_t page)
{
    return (uint8_t *)cp_host_at(p->pages.at) + (size_t)page * p->page_bytes;
}

static inline uint8_t *cp_host_state_slot(const cp_prepared *p, uint32_t slot)
{
    return (uint8_t *)cp_host_at(p->states.at) + (size_t)slot * p->state_bytes;
}

/* State of a layer of group `group` in a state slot. */
static inline float *cp_host_state(const cp_prepared *p, uint32_t slot, int group, int layer)
{
    return (float *)(void *)(cp_host_state_slot(p, slot) + p->state_off[group] +
                             (size_t)layer * p->prog->groups[group].state_bytes);
}

/* ---- ids of slots ---- */

typedef struct cp_host_ids {
    int32_t *last; /* [max_seqs] what each slot sampled last; CP_TOK_PREV: nothing yet */
    int32_t *tok;  /* [max_rows] the step's ids, none of them CP_TOK_PREV */
} cp_host_ids;

void cp_host_ids_init(cp_host_ids *ids, const cp_prepare_config *cfg);
void cp_host_ids_fini(cp_host_ids *ids);
/* Before the forward: fill tok. After SAMPLE: keep what it sampled. */
void cp_host_ids_begin(cp_host_ids *ids, const cp_batch *b);
void cp_host_ids_keep(cp_host_ids *ids, const cp_batch *b);

/* What CP_TOK_PREV stands for in output row o of the step. */
static inline int32_t cp_host_ids_prev(const cp_host_ids *ids, const cp_batch *b, int o)
{
    return ids->last[b->seqs[b->row_seq[b->out_rows[o]]].slot];
}

/* An entry of a history. */
static inline int32_t cp_host_id(int32_t id, int32_t prev)
{
    return id == CP_TOK_PREV ? prev : id;
}

#endif
