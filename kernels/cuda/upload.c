/*
 * upload: weights come to the device once, when a program is prepared: quantized ones as the panels
 * that every backend reads, out of the mapped file that all processes share; float ones as rows of
 * the model's file. They go through a ring of two pieces of pinned memory on a stream of their own,
 * so that one piece is read from the disk while the other is copied.
 */
#include "kernels/cuda/run.h"

#include "base/map.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { WEIGHT_ALIGN = 256, ROW_ALIGN = 16, PIECES = 2, MOST_DIM = INT32_MAX / 64 };
static const size_t piece_most = (size_t)64 << 20, piece_least = 4096;

/* ---- which weights, and where ---- */

static cp_code describe(cuda_weight *w, const cp_tensor *t, cp_err *err)
{
    const cp_dtype_row *info = cp_dtype_info((uint32_t)t->type);
    cp_panel_kind kind = cp_panel_kind_of(t->type);
    if (!info || kind == CP_PANEL_COUNT)
        return cp_fail(err, CP_UNSUPPORTED, "tensor %s: weight type %s is not supported", t->name,
                       info ? info->name : "(unknown)");
    if (t->ne[0] < 1 || t->ne[0] > MOST_DIM || t->ne[0] % info->block || t->ne[1] < 1 ||
        t->ne[1] > MOST_DIM || t->ne[2] < 1 || t->ne[2] > CP_EXPERTS_MAX || t->ne[3] != 1)
        return cp_fail(err, CP_UNSUPPORTED,
                       "tensor %s: shape %lld x %lld x %lld x %lld is no matrix of %s", t->name,
                       (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                       (long long)t->ne[3], info->name);
    *w = (cuda_weight){.t = t,
                       .kind = kind,
                       .file_order = cp_panel_is_float(kind),
                       .k = t->ne[0],
                       .m = t->ne[1],
                       .n_matrices = t->ne[2]};
    size_t rows = (size_t)w->m, row = (size_t)w->k * (size_t)info->bytes;
    if (w->file_order) {
        w->row_bytes = (row + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
    } else {
        w->panels = (w->m + CP_LANES - 1) / CP_LANES;
        w->panel_bytes = cp_panel_bytes(kind, w->k);
        rows = (size_t)w->panels;
    }
    if (!cp_mul(rows, w->file_order ? w->row_bytes : w->panel_bytes, &w->matrix_bytes) ||
        w->matrix_bytes == 0 || w->matrix_bytes > SIZE_MAX / 4 / CP_EXPERTS_MAX)
        return cp_fail(err, CP_NO_MEMORY, "tensor %s: its bytes overflow", t->name);
    return CP_OK;
}

static bool same_tensor(const cp_tensor *a, const cp_tensor *b)
{
    return a->data == b->data && a->type == b->type && a->ne[0] == b->ne[0] &&
           a->ne[1] == b->ne[1] && a->ne[2] == b->ne[2];
}

/* The weight before w that has its bytes on the device, or w itself. */
static int owner_of(const cuda_run *run, int w)
{
    for (int i = 0; i < run->p->prog->n_weights; i++)
        if (i != w && run->weights[i].t && !run->weights[i].in_file && run->weights[i].owner == i &&
            same_tensor(run->weights[i].t, run->weights[w].t))
            return i;
    return w;
}

/* A record names w. */
static cp_code name_weight(cuda_run *run, cp_wref w, bool in_file, cp_err *err)
{
    cuda_weight *x = &run->weights[w];
    if (x->t)
        return CP_OK;
    cp_code rc = describe(x, run->p->prog->weights[w].t, err);
    if (rc != CP_OK)
        return rc;
    x->owner = in_file ? w : owner_of(run, w);
    x->in_file = in_file;
    if (x->owner != w || x->in_file)
        return CP_OK;
    x->offset = run->weight_bytes;
    size_t n = (size_t)x->n_matrices * x->matrix_bytes;
    if (!cp_add(x->offset, n + WEIGHT_ALIGN - 1, &run->weight_bytes))
        return cp_fail(err, CP_NO_MEMORY, "tensor %s: the weights' bytes overflow", x->t->name);
    run->weight_bytes = run->weight_bytes / WEIGHT_ALIGN * WEIGHT_ALIGN;
    return CP_OK;
}

/* Those of matrices first, so that a table which one of them is lies there once. Tables that EMBED
 * mixes into what it has stay in their file: they are as large as they are seldom read. */
cp_code cp_cuda_weights_bind(cuda_run *run, cp_err *err)
{
    const cp_prepared *p = run->p;
    cp_code rc = CP_OK;
    run->weights = cp_xcalloc((size_t)p->prog->n_weights + 1, sizeof(*run->weights));
    for (int pass = 0; pass < 3; pass++)
        for (int i = 0; i < p->n_ops && rc == CP_OK; i++) {
            const cp_op *op = &p->ops[i];
            bool mixed = op->kind == CP_OP_EMBED && op->u.embed.in >= 0;
            for (int k = 0; op->kind == CP_OP_LINEAR && pass == 0 && k < op->u.linear.n_w; k++)
                rc = rc ? rc : name_weight(run, op->u.linear.w[k].w, false, err);
            for (int k = 0; op->kind == CP_OP_EXPERTS && pass == 0 &&
                            k < (op->u.experts.act == CP_ACT_NONE ? 1 : 2);
                 k++)
                rc = rc ? rc : name_weight(run, op->u.experts.w[k].w, false, err);
            if (op->kind == CP_OP_EMBED && pass == (mixed ? 2 : 1))
                rc = name_weight(run, op->u.embed.table, mixed, err);
        }
    return rc;
}

/* ---- the ring ---- */

typedef struct ring {
    cuda_run *run;
    cuda_stream *stream;
    uint8_t *pinned[PIECES];
    CUevent copied[PIECES];
    bool marked[PIECES];
    int next;
    size_t bytes; /* of a piece */
} ring;

/* Some pieces for all there is, of one row at least. */
static size_t ring_bytes(const cuda_run *run)
{
    size_t n = run->weight_bytes / (2 * PIECES);
    n = n < piece_least ? piece_least : n < piece_most ? n : piece_most;
    for (int i = 0; i < run->p->prog->n_weights; i++)
        n = run->weights[i].row_bytes > n ? run->weights[i].row_bytes : n;
    return n;
}

static cp_code ring_open(ring *r, cuda_run *run, cp_err *err)
{
    *r = (ring){.run = run, .bytes = ring_bytes(run)};
    cp_code rc = cp_cuda_stream_new(run->gpu, &r->stream, err);
    for (int i = 0; i < PIECES && rc == CP_OK; i++) {
        rc = cp_cuda_pinned_take(run->gpu, (void **)&r->pinned[i], r->bytes, err);
        if (rc == CP_OK)
            CUDA_TRY(run->gpu, event_new(&r->copied[i], CU_EVENT_DISABLE_TIMING), err);
    }
    return rc;
}

static void ring_close(ring *r)
{
    cuda_gpu *gpu = r->run->gpu;
    if (r->stream)
        gpu->api.stream_wait(r->stream->stream); /* nothing reads what goes now */
    for (int i = 0; i < PIECES; i++) {
        cp_cuda_pinned_give(gpu, r->pinned[i]);
        if (r->copied[i])
            gpu->api.event_free(r->copied[i]);
    }
    cp_cuda_stream_free(gpu, r->stream);
}

static bool cancelled(const cuda_run *run)
{
    const _Atomic bool *cancel = run->p->cfg.cancel;
    /* relaxed: it orders nothing, and is looked at again */
    return cancel && atomic_load_explicit(cancel, memory_order_relaxed);
}

/* The next piece, which nothing reads any more. */
static cp_code ring_piece(ring *r, uint8_t **to, cp_err *err)
{
    if (cancelled(r->run))
        return cp_fail(err, CP_CANCELLED, "the upload of weights was given up");
    if (r->marked[r->next])
        CUDA_TRY(r->run->gpu, event_wait(r->copied[r->next]), err);
    *to = r->pinned[r->next];
    return CP_OK;
}

static cp_code ring_send(ring *r, cp_addr to, size_t n, cp_err *err)
{
    const cuda_gpu *gpu = r->run->gpu;
    CUDA_TRY(gpu, copy_in(to, r->pinned[r->next], n, r->stream->stream), err);
    CUDA_TRY(gpu, event_record(r->copied[r->next], r->stream->stream), err);
    r->marked[r->next] = true;
    r->next = (r->next + 1) % PIECES;
    return CP_OK;
}

/* ---- upload ---- */

static cp_code send_bytes(ring *r, cp_addr to, const uint8_t *from, size_t n, cp_err *err)
{
    cp_code rc = CP_OK;
    for (size_t at = 0; at < n && rc == CP_OK;) {
        size_t some = n - at < r->bytes ? n - at : r->bytes;
        uint8_t *piece = NULL;
        rc = ring_piece(r, &piece, err);
        if (rc == CP_OK) {
            memcpy(piece, from + at, some);
            rc = ring_send(r, to + at, some, err);
        }
        at += some;
    }
    return rc;
}

/* Rows that are no multiple of 16 bytes get zeroes behind them. */
static cp_code send_rows(ring *r, const cuda_weight *w, cp_err *err)
{
    const uint8_t *from = w->t->data;
    size_t row = cp_tensor_row_bytes(w->t), n = (size_t)(w->m * w->n_matrices);
    size_t most = r->bytes / w->row_bytes;
    cp_code rc = CP_OK;
    if (row == w->row_bytes)
        return send_bytes(r, w->at, from, n * row, err);
    for (size_t at = 0; at < n && rc == CP_OK;) {
        size_t some = n - at < most ? n - at : most;
        uint8_t *piece = NULL;
        rc = ring_piece(r, &piece, err);
        if (rc != CP_OK)
            return rc;
        for (size_t i = 0; i < some; i++) {
            memcpy(piece + i * w->row_bytes, from + (at + i) * row, row);
            memset(piece + i * w->row_bytes + row, 0, w->row_bytes - row);
        }
        rc = ring_send(r, w->at + at * w->row_bytes, some * w->row_bytes, err);
        at += some;
    }
    return rc;
}

/* Where the panels of a list of weights lie: the sink's. */
typedef struct packing {
    const cp_tensor **tensors;
    const uint8_t **panels; /* NULL: told of none */
    int *weights;           /* by number */
    int n;
} packing;

static void note_panels(void *arg, int i, const uint8_t *panels)
{
    packing *k = arg;
    k->panels[i] = panels;
}

static void packing_init(packing *k, int most)
{
    *k = (packing){.tensors = cp_xcalloc((size_t)most + 1, sizeof(*k->tensors)),
                   .panels = cp_xcalloc((size_t)most + 1, sizeof(*k->panels)),
                   .weights = cp_xcalloc((size_t)most + 1, sizeof(*k->weights))};
}

static void packing_fini(packing *k)
{
    free(k->tensors);
    free(k->panels);
    free(k->weights);
}

static void packing_add(packing *k, const cuda_run *run, cp_wref w)
{
    k->tensors[k->n] = run->weights[w].t;
    k->weights[k->n++] = w;
}

/* What the cpu packs of a program, in its order, so that both read one file. */
static void list_matrices(packing *k, const cuda_run *run)
{
    const cp_prepared *p = run->p;
    for (int i = 0; i < p->n_ops; i++) {
        const cp_op *op = &p->ops[i];
        for (int j = 0; op->kind == CP_OP_LINEAR && j < op->u.linear.n_w; j++)
            packing_add(k, run, op->u.linear.w[j].w);
        for (int j = 0; op->kind == CP_OP_EXPERTS && j < (op->u.experts.act == CP_ACT_NONE ? 1 : 2);
             j++)
            packing_add(k, run, op->u.experts.w[j].w);
    }
}

/* Quantized tables that are no matrix, too. */
static void list_tables(packing *k, const cuda_run *run)
{
    for (int i = 0; i < run->p->prog->n_weights; i++) {
        const cuda_weight *w = &run->weights[i];
        if (w->t && run->p->prog->weights[i].role == CP_ROLE_EMBED && w->owner == i &&
            !w->in_file && !w->file_order)
            packing_add(k, run, (cp_wref)i);
    }
}

static bool any_panels(const packing *k, const cuda_run *run)
{
    bool any = false;
    for (int i = 0; i < k->n; i++)
        any |= !run->weights[k->weights[i]].file_order;
    return any;
}

/* Pack the list and send the panels of those that own their place. Where nothing is quantized there
 * is nothing to be packed. */
static cp_code send_panels(ring *r, cp_panels *panels, packing *k, cp_err *err)
{
    cuda_run *run = r->run;
    if (!any_panels(k, run))
        return CP_OK;
    cp_code rc = cp_panels_pack(panels, k->tensors, k->n, run->p->b->cfg.pool, note_panels, k, err);
    for (int i = 0; i < k->n && rc == CP_OK; i++) {
        cuda_weight *w = &run->weights[k->weights[i]];
        if (w->file_order || w->owner != k->weights[i] || w->sent)
            continue;
        if (!k->panels[i])
            return cp_fail(err, CP_UNSUPPORTED,
                           "packed weights are checked without a device: --device cpu");
        rc = send_bytes(r, w->at, k->panels[i], (size_t)w->n_matrices * w->matrix_bytes, err);
        w->sent = true;
    }
    return rc == CP_OK ? cp_panels_lost(panels, err) : rc;
}

static cp_code send_floats(ring *r, cp_err *err)
{
    cuda_run *run = r->run;
    cp_code rc = CP_OK;
    for (int i = 0; i < run->p->prog->n_weights && rc == CP_OK; i++) {
        const cuda_weight *w = &run->weights[i];
        if (!w->t || !w->file_order || w->in_file || w->owner != i)
            continue;
        rc = send_rows(r, w, err);
        if (rc == CP_OK && cp_map_lost(w->t->data))
            rc = cp_fail(err, CP_CORRUPT, "%s: the model's file shrank or cannot be read any more",
                         w->t->name);
    }
    return rc;
}

static cp_code send_all(ring *r, cp_err *err)
{
    cuda_run *run = r->run;
    const cp_prepare_config *cfg = &run->p->cfg;
    packing matrices, tables;
    cp_panels *panels;
    packing_init(&matrices, 4 * run->p->n_ops);
    packing_init(&tables, run->p->prog->n_weights);
    list_matrices(&matrices, run);
    list_tables(&tables, run);
    cp_panels_open(&panels, &(cp_panels_config){.read_dir = cfg->cache_read_dir,
                                                .dir = cfg->cache_dir,
                                                .key = cfg->cache_key,
                                                .check = cfg->cache_check,
                                                .cancel = cfg->cancel,
                                                .door = run->p->b->cfg.panels});
    cp_code rc = send_panels(r, panels, &matrices, err);
    if (rc == CP_OK)
        rc = send_panels(r, panels, &tables, err);
    if (rc == CP_OK)
        rc = send_floats(r, err);
    if (rc == CP_OK)
        rc = cp_cuda_stream_drain(run->gpu, r->stream, err);
    cp_panels_close(panels);
    packing_fini(&matrices);
    packing_fini(&tables);
    return rc;
}

cp_code cp_cuda_weights_upload(cuda_run *run, cp_err *err)
{
    ring r;
    if (run->weight_bytes == 0)
        return CP_OK;
    for (int i = 0; i < run->p->prog->n_weights; i++) {
        cuda_weight *w = &run->weights[i];
        if (w->t && !w->in_file)
            w->at = run->weight_mem.at + run->weights[w->owner].offset;
    }
    cp_code rc = ring_open(&r, run, err);
    if (rc == CP_OK)
        rc = send_all(&r, err);
    ring_close(&r);
    return rc;
}
