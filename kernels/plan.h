/*
 * plan: how the ATTENTION records of one step are cut into items, for every backend alike.
 *
 * Rows of a sequence are taken in tiles, and an item is a tile with all its splits (CP_SPLIT
 * positions each, at absolute multiples), in ascending order. Where that gives fewer items than the
 * backend can use, sequences of one row are cut further: an item a split, each of which leaves a
 * split result, and whoever finishes the row's last one merges them in ascending order. Either way
 * the same operations meet in the same order, so the bits are the same. Pure; internal to kernels.
 */
#ifndef CP_KERNELS_PLAN_H
#define CP_KERNELS_PLAN_H

#include "kernels/kernels.h"

/* For each kv head: rows [row0, row0 + n_rows) of the batch, all of sequence seq, against splits
 * [split0, split1). */
typedef struct cp_attn_item {
    int seq, row0, n_rows;
    int split0, split1;
    int merge; /* -1: all splits of the rows are here; else the number of the row's merge */
    /* Of a merge: this item's result is number `result`; the row's are those from result0 on,
     * ascending with the splits. */
    int result, result0, n_results;
} cp_attn_item;

/* What the items of a batch depend on beside it. */
typedef struct cp_attn_shape {
    int window;      /* the records'; 0: all positions are seen */
    int n_kv;        /* an item is done once for each */
    int tile_rows;   /* rows of an item, at most; > 0 */
    int max_results; /* split results that the backend can hold for each kv head */
    int wanted;      /* rows are cut into splits while items x n_kv would be fewer; 0: never */
} cp_attn_shape;

/* The first position that a row at pos sees. */
static inline int cp_attn_first_visible(int window, int pos)
{
    return window && pos >= window ? pos - window + 1 : 0;
}

/* Items that batches of up to max_rows rows can need. */
static inline size_t cp_attn_max_items(const cp_attn_shape *s, int max_rows)
{
    return (size_t)max_rows + (size_t)s->max_results;
}

/* The items of a batch, those of a sequence from its last row down (they see most keys, and the
 * largest should not come last). Returns how many. */
int cp_attn_plan(const cp_attn_shape *s, const cp_batch *b, cp_attn_item *items);

#endif
