/*
 * See plan.h.
 */
#include "kernels/plan.h"

/* Results and merges that a plan has given out so far. */
typedef struct given {
    int results, merges;
} given;

/* The row of `all` as an item a split, the last split first. */
static int cut_row(cp_attn_item all, given *g, cp_attn_item *items)
{
    int n = all.split1 - all.split0;
    for (int i = 0; i < n; i++) {
        int split = all.split1 - 1 - i;
        items[i] = all;
        items[i].split0 = split;
        items[i].split1 = split + 1;
        items[i].merge = g->merges;
        items[i].result0 = g->results;
        items[i].result = g->results + split - all.split0;
        items[i].n_results = n;
    }
    g->merges++;
    g->results += n;
    return n;
}

int cp_attn_plan(const cp_attn_shape *s, const cp_batch *b, cp_attn_item *items)
{
    given g = {0, 0};
    int tiles = 0, n = 0;
    for (int i = 0; i < b->n_seqs; i++)
        tiles += (b->seqs[i].n_rows + s->tile_rows - 1) / s->tile_rows;
    bool cut = tiles * s->n_kv < s->wanted;
    for (int i = 0; i < b->n_seqs; i++) {
        const cp_batch_seq *q = &b->seqs[i];
        for (int r = (q->n_rows - 1) / s->tile_rows * s->tile_rows; r >= 0; r -= s->tile_rows) {
            int rows = q->n_rows - r < s->tile_rows ? q->n_rows - r : s->tile_rows;
            int pos = q->pos0 + r;
            cp_attn_item all = {.seq = i,
                                .row0 = q->row0 + r,
                                .n_rows = rows,
                                .split0 = cp_attn_first_visible(s->window, pos) / CP_SPLIT,
                                .split1 = (pos + rows - 1) / CP_SPLIT + 1,
                                .merge = -1};
            int splits = all.split1 - all.split0;
            if (cut && q->n_rows == 1 && splits > 1 && g.results + splits <= s->max_results)
                n += cut_row(all, &g, items + n);
            else
                items[n++] = all;
        }
    }
    return n;
}
