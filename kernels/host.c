/*
 * host: see host.h.
 */
#include "kernels/host.h"

#include "base/mem.h"

#include <stdlib.h>

void cp_host_ids_init(cp_host_ids *ids, const cp_prepare_config *cfg)
{
    ids->last = cp_xcalloc((size_t)cfg->max_seqs, sizeof(*ids->last));
    ids->tok = cp_xcalloc((size_t)cfg->max_rows, sizeof(*ids->tok));
    for (int i = 0; i < cfg->max_seqs; i++)
        ids->last[i] = CP_TOK_PREV;
}

void cp_host_ids_fini(cp_host_ids *ids)
{
    free(ids->last);
    free(ids->tok);
}

void cp_host_ids_begin(cp_host_ids *ids, const cp_batch *b)
{
    for (int r = 0; r < b->n_rows; r++)
        ids->tok[r] = cp_host_id(b->tok[r], ids->last[b->seqs[b->row_seq[r]].slot]);
}

void cp_host_ids_keep(cp_host_ids *ids, const cp_batch *b)
{
    for (int o = 0; o < b->n_out && b->samples; o++)
        if (b->samples[o].target < 0)
            ids->last[b->seqs[b->row_seq[b->out_rows[o]]].slot] = b->results[o].id;
}
