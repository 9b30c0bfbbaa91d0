/*
 * cuda: what the files of the CUDA backend share. Internal to kernels/cuda.
 *
 * A cuda_run is one prepared program on a device: its weights, a scratch region, the step at its
 * fixed address, and what each record was bound to. Records are bound once (arguments and function
 * are fixed from then on) and enqueued in each step on the program's one stream. The file of an
 * operation has three functions: measure says what scratch it wants, bind fills its cuda_op, and
 * enqueue launches. They run on the thread that the program has at the time.
 */
#ifndef CP_KERNELS_CUDA_CUDA_H
#define CP_KERNELS_CUDA_CUDA_H

#include "kernels/backend.h"
#include "kernels/cuda/step.h"
#include "kernels/panels.h"
#include "kernels/plan.h"
#include "kernels/unpack.h"

/* A weight of role LINEAR or EMBED in device memory: n_matrices of one shape, one behind another,
 * in panels as unpack.h says, or, where it is float, rows in file order (16-byte aligned). */
typedef struct cuda_weight {
    const cp_tensor *t;
    cp_addr at; /* 0: stays in its file (an embedding that is gathered from there) */
    cp_panel_kind kind;
    bool file_order;
    int64_t k, m, n_matrices;
    int64_t panels; /* of a matrix: ceil(m / 16); 0 in file order */
    size_t panel_bytes;
    size_t matrix_bytes;
} cuda_weight;

typedef struct cuda_gpu cuda_gpu;          /* gpu.h */
typedef struct cuda_function *cuda_kernel; /* CUfunction */

typedef struct cuda_op {
    void *own; /* of the operation's file; it is freed by free() */
} cuda_op;

typedef struct cuda_run {
    cp_prepared *p;
    cuda_gpu *gpu;
    bool exact;           /* --numerics exact: every record has the bits of ref */
    cuda_weight *weights; /* [n_weights] */
    cuda_op *ops;         /* [p->n_ops] */
    cp_mem scratch;       /* what a record leaves there the next one may overwrite */
    size_t scratch_bytes; /* measure: the largest wish so far */
    cp_addr step;         /* of the cuda_step */
    cuda_step host;       /* this step's, as it is copied */
    cp_addr last;         /* [max_seqs] i32: the id that each slot sampled last */
    struct cuda_stream *stream;
    void *attention; /* attention.c: plans by geometry */
    void *sample;    /* sample.c */
    void *blob;      /* step.c */
} cuda_run;

/* ---- for the files of operations ---- */

typedef cp_code cuda_measure_fn(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err);
typedef cp_code cuda_bind_fn(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err);
typedef cp_code cuda_enqueue_fn(cuda_run *run, const cp_op *op, const cuda_op *o,
                                const cp_batch *batch, cp_err *err);
#define X(kind, name)                                                                              \
    cuda_measure_fn cp_cuda_measure_##name;                                                        \
    cuda_bind_fn cp_cuda_bind_##name;                                                              \
    cuda_enqueue_fn cp_cuda_enqueue_##name;
CP_OPS(X)
#undef X

/* Raise the scratch to at least n bytes (a record's own measure). */
static inline void cp_cuda_want(cuda_run *run, size_t n)
{
    if (n > run->scratch_bytes)
        run->scratch_bytes = n;
}

/* The kernel of that name, which every build has. */
cp_code cp_cuda_kernel(cuda_run *run, const char *name, cuda_kernel *out, cp_err *err);
typedef struct cuda_dim {
    unsigned x, y, z;
} cuda_dim;
/* Every kernel has one parameter, a struct by value, of which args is a copy. shared: dynamic
 * shared memory. CP_DEVICE_FAILED. */
cp_code cp_cuda_launch(cuda_run *run, cuda_kernel f, cuda_dim grid, cuda_dim block, size_t shared,
                       const void *args, cp_err *err);
/* n bytes of from are copied to the device before the step's first launch; returns where they will
 * lie (a multiple of 16), to be written in run->host. While a step is filled only. */
uint64_t cp_cuda_put(cuda_run *run, const void *from, size_t n);

#endif
