/*
 * pages: where the elements of a page lie (the layout stands at the end of program.h). Internal to
 * kernels; pure.
 */
#ifndef CP_KERNELS_PAGES_H
#define CP_KERNELS_PAGES_H

#include "kernels/program.h"

/* First byte of kv head h of a layer in a page: K block, then V block. */
static inline size_t cp_kv_head_offset(const cp_kv_group *g, int positions, int layer, int h)
{
    size_t head = (size_t)(g->k_dim + g->v_dim) * (size_t)positions * 2;
    return ((size_t)layer * (size_t)g->n_kv + (size_t)h) * head;
}

/* Element index of (position j of the page, dim d) in a K block of k_dim, and in a V block. */
static inline size_t cp_kv_k_index(int k_dim, int j, int d)
{
    return (size_t)(j / 16) * 16 * (size_t)k_dim + (size_t)(d / 2) * 32 + (size_t)(j % 16) * 2 +
           (size_t)(d % 2);
}

static inline size_t cp_kv_v_index(int v_dim, int j, int d)
{
    return (size_t)(j / 2) * 2 * (size_t)v_dim + (size_t)d * 2 + (size_t)(j % 2);
}

#endif
