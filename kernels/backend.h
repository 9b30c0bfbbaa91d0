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
    /* Without opening it: the level that this machine would get now, and (at most n bytes) the one
     * it gets when nobody chooses, with the reason. NULL: it has no levels. */
    const char *(*level_here)(void);
    void (*default_level)(char *out, size_t n);
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
    size_t bytes;      /* all memory taken */
    struct cp_tenant { /* who has each slot, by the steps that were submitted */
        uint32_t epoch;
        bool sampled;  /* an id, in this epoch: CP_TOK_PREV has a meaning */
        uint64_t step; /* the latest one with a row of the slot */
    } * tenants;       /* [max_seqs] */
    uint64_t n_steps;  /* submitted */
    uint64_t op_ns[CP_OP_COUNT];
    uint64_t barriers; /* of the last step */
    bool in_flight;
    void *impl;
};

extern const cp_backend_row cp_backend_cpu, cp_backend_ref;

extern const char *const cp_op_names[CP_OP_COUNT]; /* "linear" */

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

/* Row r of a slot. */
static inline float *cp_slot_row(const cp_prepared *p, cp_slot s, int r)
{
    return p->slots[s] + (size_t)r * p->ld[s];
}

/* State of a layer of group `group` in a slot. */
static inline float *cp_state_at(const cp_prepared *p, uint32_t slot, int group, int layer)
{
    return (float *)(void *)(p->states + (size_t)slot * p->state_bytes + p->state_off[group] +
                             (size_t)layer * p->prog->groups[group].state_bytes);
}

#endif
