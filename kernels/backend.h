/*
 * backend: what the backends share behind kernels.h. Internal to kernels and to its tests.
 *
 * A backend is a row of functions over memory of its own. cp_backend_prepare() checks the program
 * once for all of them, takes memory from the row for the step arena, the vectors, the page pool
 * and the state slots and says where in it everything lies; then the row adds its own part (impl).
 * A cp_addr is an address in the row's memory, and only the row may dereference it: what is common
 * counts from it and hands it back. kernels/host.h makes pointers of it, for rows whose memory is
 * this process's own (lint keeps others from it). Several threads may be in a row at once, each
 * with a program of its own: one is prepared and warmed up while others serve.
 */
#ifndef CP_KERNELS_BACKEND_H
#define CP_KERNELS_BACKEND_H

#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>

typedef uint64_t cp_addr; /* 0: none */
typedef struct cp_mem {
    cp_addr at; /* a multiple of 64 */
    size_t bytes;
} cp_mem;

/* What a row itself takes for a program: its weights; what its steps need; a library's workspace.
 */
typedef struct cp_own_bytes {
    uint64_t weights, scratch, workspace;
} cp_own_bytes;

typedef struct cp_backend_row {
    const char *name;   /* and the device's, "cuda" of "cuda:1" */
    int page_positions; /* the P it wishes: a power of two that divides CP_SPLIT */
    int depth;          /* steps that may be in flight */
    /* Take the device that cfg.device names, or refuse it (CP_USAGE: there can be no such device;
     * CP_UNSUPPORTED, CP_DEVICE_FAILED: why it cannot be had); choose the level. May keep things in
     * b->impl. */
    cp_code (*open)(cp_backend *b, cp_err *err);
    void (*close)(cp_backend *b);
    const char *(*level)(const cp_backend *b);
    /* See cp_backend_device. */
    void (*device)(const cp_backend *b, char *out, size_t n);
    /* At most n bytes: the level that there is when nobody chooses, and why. */
    void (*default_level)(const cp_backend *b, char *out, size_t n);
    bool (*supports)(const cp_backend *b, cp_role role, cp_dtype t);

    /* n > 0 bytes, zeroes where asked for; CP_NO_MEMORY says what there is. give takes back what
     * take gave. put and get copy n bytes from and to memory of this process and are done when they
     * return; no step of the memory's program is in flight. */
    cp_code (*take)(cp_backend *b, cp_mem *m, size_t n, bool zeroed, cp_err *err);
    void (*give)(cp_backend *b, cp_mem *m);
    cp_code (*put)(cp_backend *b, cp_addr to, const void *from, size_t n, cp_err *err);
    cp_code (*get)(cp_backend *b, void *to, cp_addr from, size_t n, cp_err *err);

    cp_code (*memory)(const cp_backend *b, uint64_t *total, uint64_t *available, cp_err *err);
    cp_code (*kv_bytes)(const cp_backend *b, uint64_t models, uint64_t *bytes, char *how, size_t n,
                        cp_err *err);

    /* What prepare will take of it for p, which is bare (no memory yet) and goes to fini then. */
    cp_code (*measure)(cp_prepared *p, cp_own_bytes *bytes, cp_err *err);
    cp_code (*prepare)(cp_prepared *p, cp_err *err);
    void (*fini)(cp_prepared *p); /* of a prepare that failed half-way, too */

    /*
     * A step is enqueued by submit, whose arrays live until it is collected, and is done when
     * collect, which waits for the oldest one, returns. With masks_later submit stops before SAMPLE
     * and sample enqueues the rest; samples[].mask is not read before. Each may do the work itself.
     * An error of any of them ends that step. CP_MODEL_FAILED: what this program's steps read was
     * lost, for good. CP_DEVICE_FAILED: no step of any program will come to an end any more.
     */
    cp_code (*submit)(cp_prepared *p, const cp_batch *batch, cp_err *err);
    cp_code (*sample)(cp_prepared *p, const cp_batch *batch, cp_err *err);
    cp_code (*collect)(cp_prepared *p, cp_err *err);
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
    cp_op *ops;           /* the program's, and SAMPLE behind them when it has logits */
    int n_ops, n_forward; /* n_forward: those before SAMPLE */
    cp_mem arena;
    cp_addr *mats; /* [n_mats] of [max rows][ld] f32 */
    size_t *ld;    /* [n_mats] width rounded up to 16 */
    cp_mem vector_mem;
    cp_addr *vectors; /* [n_weights] weights of role VECTOR as f32, zeroes up to 32; else 0 */
    cp_mem pages;     /* [n_pages][page_bytes] */
    size_t page_bytes;
    cp_mem states; /* [n_state_slots][state_bytes]: the STATE groups one after another */
    size_t state_bytes;
    size_t state_off[CP_MAX_GROUPS];
    size_t bytes;      /* all memory taken */
    struct cp_tenant { /* who has each slot, by the steps that were submitted */
        uint32_t epoch;
        bool sampled;          /* an id, in this epoch: CP_TOK_PREV has a meaning */
        uint64_t step;         /* the latest one with a row of the slot */
    } * tenants;               /* [max_seqs] */
    uint64_t n_steps;          /* submitted */
    int in_flight;             /* of them, not collected */
    const cp_batch *unsampled; /* the latest one, while it waits for cp_backend_sample */
    uint64_t op_ns[CP_OP_COUNT], op_records[CP_OP_COUNT];
    uint64_t barriers; /* of the last step */
    void *impl;
};

extern const cp_backend_row cp_backend_cpu, cp_backend_ref, cp_backend_cuda;

extern const char *const cp_op_names[CP_OP_COUNT]; /* "linear" */

/* CP_OK when prog can run on b with cfg: indices, widths, shapes, aliasing, types. */
cp_code cp_program_check(const cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                         cp_err *err);

/* Rows that op runs over in this batch. */
static inline int cp_op_rows(const cp_op *op, const cp_batch *b)
{
    return op->rows == CP_ROWS_OUT ? b->n_out : b->n_rows;
}

#endif
