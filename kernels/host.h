/*
 * host: what the rows share whose memory is this process's own. Internal to kernels/cpu,
 * kernels/ref and tests.
 *
 * So far: the ids that slots sampled last, for rows that ask for them (CP_TOK_PREV).
 */
#ifndef CP_KERNELS_HOST_H
#define CP_KERNELS_HOST_H

#include "kernels/backend.h"

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
