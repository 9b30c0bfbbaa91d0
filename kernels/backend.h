/*
 * backend: what the backends share behind kernels.h. Internal to kernels and to its tests.
 *
 * A backend is a row of functions. cp_backend_prepare() checks the program once for all backends,
 * lays out the step arena, the page pool and the state slots, then lets the row add its own part
 * (impl). Slots are rows of `ld` floats, ld = width rounded up to 16. Bound to the engine thread,
 * except where a backend's own workers read it during a step.
 */
#ifndef CP_KERNELS_BACKEND_H
#define CP_KERNELS_BACKEND_H

#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct cp_backend_row {
    const char *name;
    /* Choose the level; may keep things in b->impl. */
    cp_code (*open)(cp_backend *b, cp_err *err);
    void (*close)(cp_backend *b);
    const char *(*level)(const cp_backend *b);
    cp_code (*prepare)(cp_prepared *p, cp_err *err);
    void (*fini)(cp_prepared *p); /* of a prepare that failed half-way, too */
    void (*step)(cp_prepared *p, const cp_batch *batch);
    /* CP_MODEL_FAILED: what the step read was lost. NULL: nothing can be. */
    cp_code (*lost)(const cp_prepared *p, cp_err *err);
} cp_backend_row;

struct cp_backend {
    const cp_backend_row *row;
    cp_backend_config cfg;
    void *impl;
};

struct cp_prepared {
    cp_backend *b;
    const cp_program *prog;
    cp_prepare_config cfg;
    cp_op *ops; /* the program's, and SAMPLE behind them when it has logits and no SAMPLE */
    int n_ops;
    float **slots; /* [n_slots][max rows][ld] */
    size_t *ld;
    const float **vectors; /* [n_weights] weights of role VECTOR as f32; else NULL */
    float **owned;         /* [n_weights] those that had to be converted */
    uint8_t *pages;        /* [n_pages][page_bytes] */
    size_t page_bytes;
    uint8_t *states; /* [n_state_slots][state_bytes]: the STATE groups one after another */
    size_t state_bytes;
    size_t state_off[CP_MAX_GROUPS];
    uint8_t *arena;
    size_t arena_bytes;
    size_t bytes; /* all memory taken */
    uint64_t op_ns[CP_OP_COUNT];
    uint64_t barriers; /* of the last step */
    bool in_flight;
    void *impl;
};

extern const cp_backend_row cp_backend_cpu, cp_backend_ref;

/* CP_OK when prog can run with cfg: indices, widths, shapes, aliasing, types. */
cp_code cp_program_check(const cp_program *prog, const cp_prepare_config *cfg, cp_err *err);

/* Zeroed pages straight from the system, touched lazily; NULL when there are none, or n == 0. */
void *cp_anon_map(size_t n);
void cp_anon_unmap(void *p, size_t n);

/* Rows that op runs over in this batch. */
static inline int cp_op_rows(const cp_op *op, const cp_batch *b)
{
    return op->rows == CP_ROWS_OUT ? b->n_out : b->n_rows;
}

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

/* State of a layer of group `group` in a slot. */
static inline float *cp_state_at(const cp_prepared *p, uint32_t slot, int group, int layer)
{
    return (float *)(void *)(p->states + (size_t)slot * p->state_bytes + p->state_off[group] +
                             (size_t)layer * p->prog->groups[group].state_bytes);
}

#endif
