/*
 * cuda: what the files of the CUDA backend share. Internal to kernels/cuda.
 *
 * A cuda_run is one prepared program on a device: its weights, a scratch region, the step at its
 * fixed address, and what each record was bound to. Records are bound once (arguments and function
 * are fixed from then on) and enqueued in each step on the program's one stream. The file of an
 * operation has three functions: measure says what scratch it wants, bind fills its cuda_op, and
 * enqueue launches. They run on the thread that the program has at the time. What an operation
 * needs of a step beside its batch (plans, rows of SAMPLE) is put by its file's fill, before the
 * step's first launch.
 */
#ifndef CP_KERNELS_CUDA_CUDA_H
#define CP_KERNELS_CUDA_CUDA_H

#include "kernels/backend.h"
#include "kernels/cuda/step.h"
#include "kernels/panels.h"
#include "kernels/plan.h"
#include "kernels/unpack.h"

/* A weight of role LINEAR or EMBED in device memory: n_matrices of one shape, one behind another,
 * in panels as unpack.h says, or, where it is float, rows in file order, each of row_bytes: k
 * elements, and zeroes up to a multiple of 16 bytes. An embedding lies where a LINEAR of the same
 * tensor does. */
typedef struct cuda_weight {
    const cp_tensor *t; /* NULL: a vector, or a weight that no record names */
    cp_addr at;         /* since bind; 0: stays in its file */
    bool in_file; /* a table that no record but an EMBED that mixes has: it stays in its file */
    cp_panel_kind kind;
    bool file_order;
    int64_t k, m, n_matrices;
    int64_t panels; /* of a matrix: ceil(m / 16); 0 in file order */
    size_t panel_bytes;
    size_t row_bytes; /* 0 in panels */
    size_t matrix_bytes;
    int owner; /* upload.c: the weight that lies there; its place among all; whether it was sent */
    size_t offset;
    bool sent;
} cuda_weight;

typedef struct cuda_gpu cuda_gpu;      /* gpu.h */
typedef struct CUfunc_st *cuda_kernel; /* CUfunction */

typedef struct cuda_op {
    void *own; /* of the operation's file; it is freed by free() */
} cuda_op;

typedef struct cuda_run {
    cp_prepared *p;
    cuda_gpu *gpu;
    bool exact;                     /* --numerics exact: every record has the bits of ref */
    cuda_weight *weights;           /* [n_weights] */
    cuda_op *ops;                   /* [p->n_ops] */
    cp_mem scratch;                 /* what a record leaves there the next one may overwrite */
    size_t scratch_bytes;           /* measure: the largest wish so far */
    cp_addr step;                   /* of the cuda_step */
    cuda_step host;                 /* this step's, as it is copied */
    cp_mem kept;                    /* what operations keep from step to step */
    size_t kept_bytes, fetch_bytes; /* measure: of it; what a step copies back */
    cp_mem last_mem;
    cp_addr last;      /* [max_seqs] i32: the id that each slot sampled last; CP_TOK_PREV: none */
    int32_t *last_ids; /* [max_seqs] the same for the host, of steps that were collected */
    cuda_kernel pages; /* of pages.c */
    struct cuda_stream *stream;
    void *attention;            /* attention.c: plans by geometry */
    void *sample;               /* sample.c */
    struct cuda_blob *blob;     /* blob.c */
    struct cuda_products *blas; /* blas.c; NULL: nothing goes to cuBLAS */
    const cp_batch *batch;      /* of the step in flight */
    cp_mem weight_mem;
    size_t put_bytes;    /* measure: what operations put in a step */
    size_t weight_bytes; /* of all weights */
    uint64_t fails_from; /* the step from which on the device fails by CAPSTAN_FAULT */
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

/* Bound with the records. Nothing is looked up in a step: what is not loaded yet may have to be
 * compiled first. */
cp_code cp_cuda_pages_bind(cuda_run *run, cp_err *err);
/* Once a step each, not of a record. fill: puts what the step's records will read, before its first
 * launch (sample's, with masks_later, before the launches of SAMPLE). pages_enqueue: zeroes and
 * copies of pages and states, before the records. collect: after the step's end. fini: what is
 * behind run->attention and run->sample, of a prepare that failed half-way, too. */
cp_code cp_cuda_embed_fill(cuda_run *run, const cp_batch *batch, cp_err *err);
cp_code cp_cuda_attention_fill(cuda_run *run, const cp_batch *batch, cp_err *err);
cp_code cp_cuda_sample_fill(cuda_run *run, const cp_batch *batch, cp_err *err);
cp_code cp_cuda_pages_enqueue(cuda_run *run, const cp_batch *batch, cp_err *err);
cp_code cp_cuda_sample_collect(cuda_run *run, const cp_batch *batch, cp_err *err);
void cp_cuda_attention_fini(cuda_run *run);
void cp_cuda_sample_fini(cuda_run *run);

/* Raise the scratch to at least n bytes (a record's own measure). */
static inline void cp_cuda_want(cuda_run *run, size_t n)
{
    if (n > run->scratch_bytes)
        run->scratch_bytes = n;
}

/* Put so many bytes more in a step at most (measure). What is more than all have said is put all
 * the same, where kernels read it from the host's memory. */
static inline void cp_cuda_want_put(cuda_run *run, size_t n)
{
    run->put_bytes += (n + 15) / 16 * 16;
}

/* Wish for n bytes of the device that live as long as the run (measure): from bind on they lie at
 * run->kept.at plus what this returns, zeroed. */
static inline size_t cp_cuda_keep(cuda_run *run, size_t n)
{
    size_t at = run->kept_bytes;
    run->kept_bytes += (n + 255) / 256 * 256;
    return at;
}

/* Wish to fetch n bytes in a step (measure). */
static inline void cp_cuda_want_fetch(cuda_run *run, size_t n)
{
    run->fetch_bytes += (n + 15) / 16 * 16;
}

/* The kernel of that name, which every build has. While a program is prepared. */
cp_code cp_cuda_kernel(cuda_run *run, const char *name, cuda_kernel *out, cp_err *err);
typedef struct cuda_dim {
    unsigned x, y, z;
} cuda_dim;
/* Every kernel has one parameter, a struct by value, of which args is a copy. shared: dynamic
 * shared memory. CP_DEVICE_FAILED. */
cp_code cp_cuda_launch(cuda_run *run, cuda_kernel f, cuda_dim grid, cuda_dim block, size_t shared,
                       const void *args, cp_err *err);
/* n bytes of from are copied to the device before the launches that follow the fill; returns where
 * they will lie (a multiple of 16), to be written in run->host. In a fill only. Where there is no
 * memory for them the step fails behind the fill. */
uint64_t cp_cuda_put(cuda_run *run, const void *from, size_t n);
/* The same, to be written in place before the fill ends; 16-byte aligned, never NULL. */
void *cp_cuda_room(cuda_run *run, size_t n, uint64_t *at);
/* Copy n bytes to the host behind what was launched so far (enqueue): they are at *to when the step
 * has ended, until its collect returns. No more than was wished for. */
cp_code cp_cuda_fetch(cuda_run *run, cp_addr from, size_t n, const void **to, cp_err *err);
/* What a slot sampled last, of a step that was collected. */
static inline int32_t cp_cuda_last_id(const cuda_run *run, int slot)
{
    return run->last_ids[slot];
}

/* Does cuBLAS multiply so many rows with w: it was asked for (--gemm cublas), w is BF16 or F16, and
 * the rows are many enough for it to be worth it. */
bool cp_cuda_gemm_takes(const cuda_run *run, const cuda_weight *w, int rows);
/* out[rows][ld_out] f32 = x[rows][ld_x], of w's type, times matrix `matrix` of w. */
cp_code cp_cuda_gemm(cuda_run *run, const cuda_weight *w, int64_t matrix, cp_addr x, int64_t ld_x,
                     int rows, cp_addr out, int64_t ld_out, cp_err *err);

#endif
