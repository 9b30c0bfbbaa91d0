/*
 * The cuda backend's row: a device, programs that are bound to it record by record, and steps that
 * are enqueued on a program's stream: one copy of what the step is about, zeroes and copies of
 * pages, then the records. Nothing is waited for but in collect.
 */
#include "kernels/cuda/run.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct cuda_backend {
    cuda_gpu *gpu;
    cuda_blas *blas; /* NULL: not asked for */
} cuda_backend;

typedef struct operation {
    cuda_measure_fn *measure;
    cuda_bind_fn *bind;
    cuda_enqueue_fn *enqueue;
} operation;

static const operation operations[CP_OP_COUNT] = {
#define X(kind, name)                                                                              \
    [CP_OP_##kind] = {cp_cuda_measure_##name, cp_cuda_bind_##name, cp_cuda_enqueue_##name},
    CP_OPS(X)
#undef X
};

static cuda_gpu *gpu_of(const cp_backend *b)
{
    const cuda_backend *c = b->impl;
    return c->gpu;
}

/* ---- open, close, words ---- */

static void close_cuda(cp_backend *b)
{
    cuda_backend *c = b->impl;
    cp_cuda_blas_close(c->blas);
    cp_cuda_gpu_close(c->gpu);
    free(c);
}

static cp_code open_cuda(cp_backend *b, cp_err *err)
{
    bool cublas = b->cfg.gemm == CP_GEMM_CUBLAS;
    if (cublas && b->cfg.exact)
        return cp_fail(err, CP_USAGE,
                       "--gemm cublas beside --numerics exact: cuBLAS has not the CPU's bits");
    cuda_backend *c = cp_xcalloc(1, sizeof(*c));
    b->impl = c;
    cp_code rc = cp_cuda_gpu_open(&c->gpu, b->cfg.device, b->cfg.device_bytes, err);
    if (rc == CP_OK && cublas)
        rc = cp_cuda_blas_open(&c->blas, err);
    if (rc != CP_OK)
        close_cuda(b);
    return rc;
}

static const char *level(const cp_backend *b)
{
    return gpu_of(b)->level;
}

static void device(const cp_backend *b, char *out, size_t n)
{
    cp_snprintf(out, n, "cuda:%d", gpu_of(b)->ordinal);
}

static void default_level(const cp_backend *b, char *out, size_t n)
{
    const cuda_gpu *gpu = gpu_of(b);
    cp_snprintf(out, n, "%s, cuda:%d, %s, GPU-%s, driver of CUDA %d.%d, %.1f of %.1f MiB of memory",
                gpu->level, gpu->ordinal, gpu->name, gpu->uuid, gpu->driver / 1000,
                gpu->driver % 1000 / 10, (double)gpu->cap / 1048576.0,
                (double)gpu->total / 1048576.0);
}

static bool supports(const cp_backend *b, cp_role role, cp_dtype t)
{
    (void)b;
    if (role == CP_ROLE_VECTOR)
        return t == CP_DTYPE_F32 || t == CP_DTYPE_F16 || t == CP_DTYPE_BF16;
    return cp_panel_kind_of(t) != CP_PANEL_COUNT;
}

/* ---- memory ---- */

static cp_code take(cp_backend *b, cp_mem *m, size_t n, bool zeroed, cp_err *err)
{
    cp_code rc = cp_cuda_enter(gpu_of(b), err);
    return rc == CP_OK ? cp_cuda_take(gpu_of(b), m, n, zeroed, err) : rc;
}

static void give(cp_backend *b, cp_mem *m)
{
    cp_cuda_enter(gpu_of(b), NULL); /* if it cannot be, there is nothing to give back either */
    cp_cuda_give(gpu_of(b), m);
}

static cp_code put(cp_backend *b, cp_addr to, const void *from, size_t n, cp_err *err)
{
    cp_code rc = cp_cuda_enter(gpu_of(b), err);
    return rc == CP_OK ? cp_cuda_copy_in(gpu_of(b), to, from, n, err) : rc;
}

static cp_code get(cp_backend *b, void *to, cp_addr from, size_t n, cp_err *err)
{
    cp_code rc = cp_cuda_enter(gpu_of(b), err);
    return rc == CP_OK ? cp_cuda_copy_out(gpu_of(b), to, from, n, err) : rc;
}

/* What can be had is what is left of the budget, or less: others use the device too. */
static cp_code memory(const cp_backend *b, uint64_t *total, uint64_t *available, cp_err *err)
{
    cuda_gpu *gpu = gpu_of(b);
    size_t unused = 0, all = 0;
    cp_code rc = cp_cuda_enter(gpu, err);
    if (rc != CP_OK)
        return rc;
    CUDA_TRY(gpu, memory_info(&unused, &all), err);
    uint64_t taken = atomic_load(&gpu->taken), left = gpu->cap > taken ? gpu->cap - taken : 0;
    *total = gpu->total;
    *available = unused < left ? unused : left;
    return CP_OK;
}

static cp_code kv_bytes(const cp_backend *b, uint64_t models, uint64_t *bytes, char *how, size_t n,
                        cp_err *err)
{
    uint64_t total, available;
    cp_code rc = memory(b, &total, &available, err);
    if (rc != CP_OK)
        return rc;
    cp_snprintf(how, n,
                "what of the %.1f MiB that are left of --device-bytes models leave, %.1f MiB",
                (double)available / 1048576.0, (double)models / 1048576.0);
    /* what is taken is taken in whole blocks */
    uint64_t rest = (uint64_t)64 * CUDA_MEMORY_ALIGN;
    if (available < models || available - models <= rest)
        return cp_fail(err, CP_NO_MEMORY,
                       "nothing is left for the KV cache: weights, arena and workspace take %.1f "
                       "MiB of the %.1f MiB that are left of --device-bytes %.1f MiB",
                       (double)models / 1048576.0, (double)available / 1048576.0,
                       (double)gpu_of(b)->cap / 1048576.0);
    *bytes = available - models - rest;
    return CP_OK;
}

/* ---- prepare ---- */

static cp_code measure_ops(cuda_run *run, cp_err *err)
{
    const cp_prepared *p = run->p;
    cp_code rc = CP_OK;
    run->ops = cp_xcalloc((size_t)p->n_ops + 1, sizeof(*run->ops));
    for (int i = 0; i < p->n_ops && rc == CP_OK; i++)
        rc = operations[p->ops[i].kind].measure(run, &p->ops[i], &run->ops[i], err);
    return rc;
}

static size_t last_bytes(const cuda_run *run)
{
    return (size_t)run->p->cfg.max_seqs * sizeof(int32_t);
}

static cp_own_bytes own_bytes(const cuda_run *run)
{
    return (cp_own_bytes){.weights = run->weight_bytes,
                          .scratch = run->scratch_bytes + run->kept_bytes +
                                     cp_cuda_blob_bytes(run) + last_bytes(run),
                          .workspace = cp_cuda_products_bytes(run)};
}

/* All that is known of p before memory is taken. */
static cp_code open_run(cp_prepared *p, cp_err *err)
{
    cuda_run *run = cp_xcalloc(1, sizeof(*run));
    p->impl = run;
    run->p = p;
    run->gpu = gpu_of(p->b);
    run->exact = p->b->cfg.exact;
    run->fails_from = cp_fault_fails_from("device");
    cp_code rc = cp_cuda_enter(run->gpu, err);
    if (rc == CP_OK)
        rc = cp_cuda_weights_bind(run, err);
    return rc == CP_OK ? measure_ops(run, err) : rc;
}

static cp_code measure(cp_prepared *p, cp_own_bytes *bytes, cp_err *err)
{
    cp_code rc = open_run(p, err);
    if (rc == CP_OK)
        *bytes = own_bytes(p->impl);
    return rc;
}

static cp_code take_part(cuda_run *run, cp_mem *m, size_t n, const char *what, cp_err *err)
{
    if (n == 0)
        return CP_OK;
    cp_code rc = cp_cuda_take(run->gpu, m, n, true, err);
    return rc == CP_OK ? rc : cp_err_prefix(err, "%s", what);
}

static cp_code take_memory(cuda_run *run, cp_err *err)
{
    cp_code rc = take_part(run, &run->weight_mem, run->weight_bytes, "weights", err);
    if (rc == CP_OK)
        rc = take_part(run, &run->scratch, run->scratch_bytes, "scratch", err);
    if (rc == CP_OK)
        rc = take_part(run, &run->kept, run->kept_bytes, "what operations keep", err);
    if (rc == CP_OK)
        rc = take_part(run, &run->last_mem, last_bytes(run), "ids of slots", err);
    if (rc == CP_OK)
        rc = cp_cuda_copy_in(run->gpu, run->last_mem.at, run->last_ids, last_bytes(run), err);
    if (rc == CP_OK)
        rc = cp_cuda_blob_open(run, err);
    run->last = run->last_mem.at;
    return rc;
}

static cp_code bind_ops(cuda_run *run, cp_err *err)
{
    const cp_prepared *p = run->p;
    cp_code rc = cp_cuda_pages_bind(run, err);
    for (int i = 0; i < p->n_ops && rc == CP_OK; i++)
        rc = operations[p->ops[i].kind].bind(run, &p->ops[i], &run->ops[i], err);
    return rc;
}

/* The null page and the null slot are never written, and read as zeroes. */
static cp_code clear_nulls(cuda_run *run, cp_err *err)
{
    const cp_prepared *p = run->p;
    if (p->pages.at)
        CUDA_TRY(run->gpu, fill(p->pages.at, 0, p->page_bytes, run->stream->stream), err);
    if (p->states.at)
        CUDA_TRY(run->gpu, fill(p->states.at, 0, p->state_bytes, run->stream->stream), err);
    return CP_OK;
}

static cp_code prepare(cp_prepared *p, cp_err *err)
{
    const cuda_backend *c = p->b->impl;
    cp_code rc = open_run(p, err);
    cuda_run *run = p->impl;
    if (rc != CP_OK)
        return rc;
    run->last_ids = cp_xcalloc((size_t)p->cfg.max_seqs, sizeof(*run->last_ids));
    for (int i = 0; i < p->cfg.max_seqs; i++)
        run->last_ids[i] = CP_TOK_PREV;
    rc = cp_cuda_stream_new(run->gpu, &run->stream, err);
    if (rc == CP_OK)
        rc = clear_nulls(run, err);
    if (rc == CP_OK)
        rc = take_memory(run, err);
    if (rc == CP_OK)
        rc = cp_cuda_products_open(run, c->blas, err);
    if (rc == CP_OK)
        rc = cp_cuda_weights_upload(run, err);
    if (rc == CP_OK)
        rc = bind_ops(run, err);
    cp_own_bytes own = own_bytes(run);
    p->bytes += own.weights + own.scratch + own.workspace;
    return rc;
}

static void give_part(cuda_run *run, cp_mem *m)
{
    if (m->at)
        cp_cuda_give(run->gpu, m);
}

static void fini(cp_prepared *p)
{
    cuda_run *run = p->impl;
    if (!run)
        return;
    cp_cuda_enter(run->gpu, NULL);
    if (run->stream) /* what failed half-way may have work under way, and its memory goes now */
        run->gpu->api.stream_wait(run->stream->stream);
    cp_cuda_attention_fini(run);
    cp_cuda_sample_fini(run);
    cp_cuda_products_free(run);
    cp_cuda_blob_free(run);
    give_part(run, &run->last_mem);
    give_part(run, &run->kept);
    give_part(run, &run->scratch);
    give_part(run, &run->weight_mem);
    cp_cuda_stream_free(run->gpu, run->stream);
    for (int i = 0; run->ops && i < p->n_ops; i++)
        free(run->ops[i].own);
    free(run->ops);
    free(run->weights);
    free(run->last_ids);
    free(run);
}

/* ---- for the files of operations ---- */

cp_code cp_cuda_kernel(cuda_run *run, const char *name, cuda_kernel *out, cp_err *err)
{
    return cp_cuda_function(run->gpu, name, out, err);
}

/* A grid without blocks is no launch. */
static cp_code launch(cuda_run *run, cuda_kernel f, cuda_dim grid, cuda_dim block, size_t shared,
                      const void *args, cp_err *err)
{
    const cuda_gpu *gpu = run->gpu;
    void *parameters[] = {(void *)(uintptr_t)args};
    CUDA_TRY(gpu,
             launch(f, grid.x, grid.y, grid.z, block.x, block.y, block.z, (unsigned)shared,
                    run->stream->stream, parameters, NULL),
             err);
    return CP_OK;
}

cp_code cp_cuda_launch(cuda_run *run, cuda_kernel f, cuda_dim grid, cuda_dim block, size_t shared,
                       const void *args, cp_err *err)
{
    /* 48 KB are there unasked, of which the kernel's own arrays are a part. */
    enum { WITHOUT_ASKING = 32 << 10 };
    cuda_gpu *gpu = run->gpu;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return CP_OK;
    if (shared <= WITHOUT_ASKING)
        return launch(run, f, grid, block, shared, args, err);
    pthread_mutex_lock(&gpu->sizes); /* another thread may want another size of the same kernel */
    CUresult result =
        gpu->api.function_set(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared);
    cp_code rc = cp_cuda_check(gpu, result, "function_set", err);
    if (rc == CP_OK)
        rc = launch(run, f, grid, block, shared, args, err);
    pthread_mutex_unlock(&gpu->sizes);
    return rc;
}

/* ---- steps ---- */

static bool samples(const cp_prepared *p)
{
    return p->n_ops > p->n_forward;
}

static void beat(const cp_batch *batch)
{
    if (batch->beat)
        atomic_store_explicit(batch->beat, cp_now_ns(), memory_order_relaxed);
}

static cp_code enqueue(cuda_run *run, const cp_batch *batch, int from, int to, cp_err *err)
{
    const cp_prepared *p = run->p;
    cp_code rc = CP_OK;
    for (int i = from; i < to && rc == CP_OK; i++) {
        const cp_op *op = &p->ops[i];
        rc = operations[op->kind].enqueue(run, op, &run->ops[i], batch, err);
        if (rc != CP_OK)
            cp_err_prefix(err, "%s, layer %d", cp_op_names[op->kind], op->layer);
    }
    return rc;
}

static cp_code fill(cuda_run *run, const cp_batch *batch, cp_err *err)
{
    cp_cuda_blob_fill(run, batch);
    cp_code rc = cp_cuda_embed_fill(run, batch, err);
    if (rc == CP_OK)
        rc = cp_cuda_attention_fill(run, batch, err);
    if (rc == CP_OK && samples(run->p) && !batch->masks_later)
        rc = cp_cuda_sample_fill(run, batch, err);
    return rc == CP_OK ? cp_cuda_blob_copy(run, err) : rc;
}

/* An error ends the step: nothing of it may run on and use what is the caller's again. */
static cp_code end_step(cuda_run *run, cp_code rc)
{
    if (rc != CP_OK)
        run->gpu->api.stream_wait(run->stream->stream);
    return rc;
}

static cp_code enqueue_samples(cuda_run *run, const cp_batch *batch, cp_err *err)
{
    const cp_prepared *p = run->p;
    cp_code rc = enqueue(run, batch, p->n_forward, p->n_ops, err);
    return rc == CP_OK ? cp_cuda_stream_mark(run->gpu, run->stream, err) : rc;
}

static cp_code submit(cp_prepared *p, const cp_batch *batch, cp_err *err)
{
    cuda_run *run = p->impl;
    cp_code rc = cp_cuda_enter(run->gpu, err);
    run->batch = batch;
    cp_cuda_blob_begin(run);
    if (rc == CP_OK)
        rc = fill(run, batch, err);
    if (rc == CP_OK)
        rc = cp_cuda_pages_enqueue(run, batch, err);
    if (rc == CP_OK)
        rc = enqueue(run, batch, 0, p->n_forward, err);
    if (rc == CP_OK && !batch->masks_later)
        rc = enqueue_samples(run, batch, err);
    beat(batch);
    return end_step(run, rc);
}

static cp_code sample(cp_prepared *p, const cp_batch *batch, cp_err *err)
{
    cuda_run *run = p->impl;
    cp_code rc = cp_cuda_enter(run->gpu, err);
    if (rc == CP_OK && samples(p))
        rc = cp_cuda_sample_fill(run, batch, err);
    if (rc == CP_OK)
        rc = cp_cuda_blob_copy(run, err);
    if (rc == CP_OK)
        rc = enqueue_samples(run, batch, err);
    return end_step(run, rc);
}

static cp_code copy_logits(const cuda_run *run, const cp_batch *batch, cp_err *err)
{
    const cp_prepared *p = run->p;
    size_t ld = p->ld[p->prog->logits], n = (size_t)batch->n_out * ld;
    size_t width = (size_t)p->prog->n_vocab;
    float *rows = cp_alloc_aligned(n * sizeof(*rows));
    if (!rows)
        return cp_fail(err, CP_NO_MEMORY, "%zu logits", n);
    cp_code rc = cp_cuda_copy_out(run->gpu, rows, p->mats[p->prog->logits], n * sizeof(*rows), err);
    for (size_t i = 0; i < (size_t)batch->n_out && rc == CP_OK; i++)
        memcpy(batch->logits_copy + i * width, rows + i * ld, width * sizeof(*rows));
    free(rows);
    return rc;
}

static void keep_ids(cuda_run *run, const cp_batch *b)
{
    for (int o = 0; o < b->n_out && b->samples; o++)
        if (b->samples[o].target < 0)
            run->last_ids[b->seqs[b->row_seq[b->out_rows[o]]].slot] = b->results[o].id;
}

static cp_code collect(cp_prepared *p, cp_err *err)
{
    cuda_run *run = p->impl;
    const cp_batch *batch = run->batch;
    cp_code rc = cp_cuda_enter(run->gpu, err);
    beat(batch);
    if (rc == CP_OK)
        rc = cp_cuda_stream_await(run->gpu, run->stream, batch->beat, err);
    if (rc == CP_OK && p->n_steps >= run->fails_from)
        rc = cp_fail(err, CP_DEVICE_FAILED, "step %" PRIu64 " fails by CAPSTAN_FAULT", p->n_steps);
    if (rc == CP_OK && samples(p)) {
        rc = cp_cuda_sample_collect(run, batch, err);
        if (rc == CP_OK)
            keep_ids(run, batch);
    }
    if (rc == CP_OK && batch->logits_copy && p->prog->logits >= 0 && batch->n_out > 0)
        rc = copy_logits(run, batch, err);
    beat(batch);
    return rc;
}

const cp_backend_row cp_backend_cuda = {.name = "cuda",
                                        .page_positions = 32,
                                        .depth = 1,
                                        .open = open_cuda,
                                        .close = close_cuda,
                                        .level = level,
                                        .device = device,
                                        .default_level = default_level,
                                        .supports = supports,
                                        .take = take,
                                        .give = give,
                                        .put = put,
                                        .get = get,
                                        .memory = memory,
                                        .kv_bytes = kv_bytes,
                                        .measure = measure,
                                        .prepare = prepare,
                                        .fini = fini,
                                        .submit = submit,
                                        .sample = sample,
                                        .collect = collect};
