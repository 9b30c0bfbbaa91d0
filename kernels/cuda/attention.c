/*
 * ATTENTION on the device: which form a record takes, the plan of a step, and the launches.
 *
 * Records of equal geometry have one plan a step (plan.h). Sequences of one row are cut into splits
 * where there are too few units for the device; k_merge joins what these leave. When every sequence
 * has one row (decode), the unit that reads a row's last key writes its K and V first; otherwise
 * k_kv_append does before.
 */
#include "kernels/cuda/attention.h"

#include "base/mem.h"
#include "kernels/cuda/flow.h"
#include "kernels/cuda/gpu.h"
#include "kernels/pages.h"

#include <stdlib.h>

_Static_assert(CUDA_SPLIT == CP_SPLIT, "one length of a split");
_Static_assert((int)CUDA_ROPE_NORM == (int)CP_ROPE_NORM && (int)CUDA_ROPE_NEOX == (int)CP_ROPE_NEOX,
               "one numbering");

enum {
    RESULTS = 1024,               /* split results that wait for a merge, of each head */
    UNITS_PER_MULTIPROCESSOR = 2, /* rows are cut into splits while there are fewer */
    BLOCKS_PER_MULTIPROCESSOR = 4,
    SHARED_BYTES = 96 << 10, /* of a block, on every device that is supported */
    ALIGN = 128,
    WARPS = CUDA_ATTENTION_THREADS / 32
};

/* Of the records of one geometry. */
typedef struct attention_plan {
    cp_rows rows;
    int tiles; /* of an item's queries, for each kv head */
    cp_attn_shape shape;
    cp_attn_item *items; /* [items_max()] of this step */
    int n_items, n_merges;
    bool fused;
} attention_plan;

/* Of a run. */
typedef struct attention_plans {
    attention_plan *of; /* [n] */
    int n;
    cp_batch out;           /* this step's output rows as a batch, where a record is about them */
    cp_batch_seq *out_seqs; /* [max_out] */
    int32_t *out_of;        /* [max_out] the sequence that each of them is */
    int32_t *out_pos;       /* [max_out] */
} attention_plans;

typedef struct attention_op {
    cuda_attention_args args;
    int plan;
    cuda_kernel append, attend, merge;
    size_t append_shared, attend_shared;
} attention_op;

/* ---- geometry ---- */

static size_t result_bytes(const cp_op *op)
{
    return (size_t)op->u.attention.n_heads * (size_t)(op->u.attention.v_dim + CUDA_RESULT_PAD) *
           sizeof(float);
}

/* Dynamic shared memory, as the kernels lay it out. */
static size_t exact_shared(const cp_op *op)
{
    return (size_t)CUDA_EXACT_QUERIES * sizeof(float) *
           (size_t)(CP_SPLIT + op->u.attention.k_dim + op->u.attention.v_dim);
}

static size_t attend_shared(const cp_op *op)
{
    size_t steps = (size_t)(op->u.attention.k_dim + 15) / 16;
    size_t groups = (size_t)(op->u.attention.v_dim + 31) / 32;
    return (size_t)CP_SPLIT * CUDA_ATTEND_QUERIES * 2 + steps * 1024 + groups * 2048;
}

/* Does the record have the mma form? It reads four dims of V at once. */
static bool takes_mma(const cuda_run *run, const cp_op *op)
{
    return !run->exact && op->u.attention.v_dim % 4 == 0 && attend_shared(op) <= SHARED_BYTES;
}

static size_t items_max(const cuda_run *run, const attention_plan *a)
{
    return cp_attn_max_items(&a->shape, run->p->cfg.max_rows) + RESULTS / 2;
}

static attention_plan *find_plan(attention_plans *all, const cp_op *op, int tiles,
                                 const cp_attn_shape *s)
{
    for (int i = 0; i < all->n; i++) {
        attention_plan *a = &all->of[i];
        if (a->rows == op->rows && a->tiles == tiles && a->shape.window == s->window &&
            a->shape.n_kv == s->n_kv && a->shape.tile_rows == s->tile_rows)
            return a;
    }
    return NULL;
}

/* The number of the record's geometry; a new one where it is the first of it. */
static int plan_of(cuda_run *run, const cp_op *op)
{
    attention_plans *all = run->attention;
    int q_heads = op->u.attention.n_heads / op->u.attention.n_kv;
    int queries = takes_mma(run, op) ? CUDA_ATTEND_QUERIES : CUDA_EXACT_QUERIES;
    int tiles = (q_heads + queries - 1) / queries;
    cp_attn_shape s = {.window = op->u.attention.window,
                       .n_kv = op->u.attention.n_kv * tiles,
                       .tile_rows = q_heads < queries ? queries / q_heads : 1,
                       .max_results = RESULTS,
                       .wanted = UNITS_PER_MULTIPROCESSOR * run->gpu->multiprocessors};
    attention_plan *a = find_plan(all, op, tiles, &s);
    if (!a) {
        a = &all->of[all->n++];
        *a = (attention_plan){.rows = op->rows, .tiles = tiles, .shape = s};
        a->items = cp_xcalloc(items_max(run, a), sizeof(*a->items));
        cp_cuda_want_put(run, items_max(run, a) * sizeof(cuda_item));
        cp_cuda_want_put(run, sizeof(cuda_plan));
    }
    if (a->rows == CP_ROWS_OUT && !all->out_seqs) {
        size_t n = (size_t)run->p->cfg.max_out + 1;
        all->out_seqs = cp_xcalloc(n, sizeof(*all->out_seqs));
        all->out_of = cp_xcalloc(n, sizeof(*all->out_of));
        all->out_pos = cp_xcalloc(n, sizeof(*all->out_pos));
    }
    return (int)(a - all->of);
}

void cp_cuda_attention_fini(cuda_run *run)
{
    attention_plans *all = run->attention;
    if (!all)
        return;
    for (int i = 0; i < all->n; i++)
        free(all->of[i].items);
    free(all->of);
    free(all->out_seqs);
    free(all->out_of);
    free(all->out_pos);
    free(all);
    run->attention = NULL;
}

/* ---- measure, bind ---- */

cp_code cp_cuda_measure_attention(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    (void)o;
    int kd = op->u.attention.k_dim, vd = op->u.attention.v_dim;
    if (kd > CUDA_HEAD_MAX || vd > CUDA_HEAD_MAX)
        return cp_fail(err, CP_UNSUPPORTED,
                       "cuda: attention, layer %d: heads of %d and %d; at most %d wide", op->layer,
                       kd, vd, CUDA_HEAD_MAX);
    if (!run->attention) {
        attention_plans *all = run->attention = cp_xcalloc(1, sizeof(*all));
        all->of = cp_xcalloc((size_t)run->p->n_ops, sizeof(*all->of));
    }
    plan_of(run, op);
    cp_cuda_want(run, RESULTS * result_bytes(op) + cp_cuda_handed_bytes(run, op) + ALIGN);
    return CP_OK;
}

static cp_addr vector_or_none(const cp_prepared *p, cp_wref w)
{
    return w >= 0 ? p->vectors[w] : 0;
}

static int32_t ld_or_none(const cp_prepared *p, cp_mat m)
{
    return m >= 0 ? (int32_t)p->ld[m] : 0;
}

static cp_addr mat_or_none(const cp_prepared *p, cp_mat m)
{
    return m >= 0 ? p->mats[m] : 0;
}

/* The record's shape. */
static void bind_shape(const cuda_run *run, const cp_op *op, cuda_attention_args *a)
{
    const cp_prepared *p = run->p;
    const cp_kv_group *g = &p->prog->groups[op->u.attention.group];
    int positions = p->cfg.page_positions;
    a->n_heads = op->u.attention.n_heads;
    a->n_kv = op->u.attention.n_kv;
    a->q_heads = a->n_heads / a->n_kv;
    a->k_dim = op->u.attention.k_dim;
    a->v_dim = op->u.attention.v_dim;
    a->q_width = cp_attention_q_width(op);
    a->n_rot = op->u.attention.n_rot;
    a->rope_kind = (int32_t)op->u.attention.rope_kind;
    a->window = op->u.attention.window;
    a->group = op->u.attention.group;
    a->f16 = p->cfg.kv_type == CP_DTYPE_F16;
    a->v_norm = op->u.attention.v_norm;
    a->gated = op->u.attention.gated;
    a->rows_out = op->rows == CP_ROWS_OUT;
    a->eps = op->u.attention.eps;
    a->scale = op->u.attention.scale;
    a->softcap = op->u.attention.softcap;
    a->page_bytes = p->page_bytes;
    a->head_bytes = cp_kv_head_offset(g, positions, 0, 1);
    a->pages = p->pages.at + cp_kv_head_offset(g, positions, op->u.attention.layer_in_group, 0);
    while (1 << a->page_shift < positions)
        a->page_shift++;
}

static void bind_places(const cuda_run *run, const cp_op *op, cuda_attention_args *a)
{
    const cp_prepared *p = run->p;
    cp_mat rope = op->u.attention.rope_kind == CP_ROPE_NONE ? -1 : op->u.attention.rope;
    a->step = run->step;
    a->results = run->scratch.at;
    a->handed = cp_cuda_handed_to(run, op);
    a->q = mat_or_none(p, op->u.attention.q);
    a->k = mat_or_none(p, op->u.attention.k);
    a->v = mat_or_none(p, op->u.attention.v);
    a->rope = mat_or_none(p, rope);
    a->out = mat_or_none(p, op->u.attention.out);
    a->ld_q = ld_or_none(p, op->u.attention.q);
    a->ld_k = ld_or_none(p, op->u.attention.k);
    a->ld_v = ld_or_none(p, op->u.attention.v);
    a->ld_rope = ld_or_none(p, rope);
    a->ld_out = ld_or_none(p, op->u.attention.out);
    a->q_norm = vector_or_none(p, op->u.attention.q_norm);
    a->k_norm = vector_or_none(p, op->u.attention.k_norm);
    a->sinks = vector_or_none(p, op->u.attention.sinks);
}

cp_code cp_cuda_bind_attention(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    static const char *const append[] = {"k_kv_append_bf16", "k_kv_append_f16"};
    static const char *const exact[] = {"k_attend_exact_bf16", "k_attend_exact_f16"};
    static const char *const fast[] = {"k_attend_bf16", "k_attend_f16"};
    attention_op *x = o->own = cp_xcalloc(1, sizeof(*x));
    bool mma = takes_mma(run, op);
    bind_shape(run, op, &x->args);
    bind_places(run, op, &x->args);
    x->plan = x->args.plan = plan_of(run, op);
    x->args.tiles = ((attention_plans *)run->attention)->of[x->plan].tiles;
    x->args.unit = mma ? 0x1.62e430p-1f : 1.0f; /* ln 2 */
    int wide = x->args.k_dim > x->args.v_dim ? x->args.k_dim : x->args.v_dim;
    x->append_shared = WARPS * (size_t)wide * sizeof(float);
    x->attend_shared = mma ? attend_shared(op) : exact_shared(op);
    cp_code rc = cp_cuda_kernel(run, append[x->args.f16], &x->append, err);
    if (rc == CP_OK)
        rc = cp_cuda_kernel(run, mma ? fast[x->args.f16] : exact[x->args.f16], &x->attend, err);
    if (rc == CP_OK)
        rc = cp_cuda_kernel(run, "k_merge", &x->merge, err);
    return rc;
}

/* ---- steps ---- */

/* The output rows of a batch: rows that follow one another are a sequence of their own. */
static void keep_output_rows(attention_plans *all, const cp_batch *batch)
{
    int n = 0;
    for (int i = 0; i < batch->n_out; i++) {
        int r = batch->out_rows[i], s = batch->row_seq[r];
        all->out_pos[i] = batch->pos[r];
        if (i == 0 || batch->out_rows[i - 1] != r - 1 || r == batch->seqs[s].row0) {
            all->out_of[n] = s;
            all->out_seqs[n++] = (cp_batch_seq){.row0 = i, .pos0 = batch->pos[r]};
        }
        all->out_seqs[n - 1].n_rows++;
    }
    all->out =
        (cp_batch){.n_rows = batch->n_out, .n_seqs = n, .seqs = all->out_seqs, .pos = all->out_pos};
}

/* An item of each row that was cut, behind the items. */
static void add_merges(attention_plan *a)
{
    int n = a->n_items;
    a->n_merges = 0;
    for (int i = 0; i < n; i++)
        if (a->items[i].merge >= 0 && a->items[i].result == a->items[i].result0)
            a->items[n + a->n_merges++] = a->items[i];
}

/* Put the items of a plan as the device reads them. */
static cuda_plan put_plan(cuda_run *run, const attention_plans *all, const attention_plan *a)
{
    cuda_plan p = {.n_items = a->n_items, .n_merges = a->n_merges, .fused = a->fused};
    size_t n = (size_t)(a->n_items + a->n_merges);
    cuda_item *items = cp_cuda_room(run, n * sizeof(*items), &p.items);
    for (size_t i = 0; i < n; i++) {
        const cp_attn_item *it = &a->items[i];
        items[i] = (cuda_item){.seq = a->rows == CP_ROWS_OUT ? all->out_of[it->seq] : it->seq,
                               .row0 = it->row0,
                               .n_rows = it->n_rows,
                               .split0 = it->split0,
                               .split1 = it->split1,
                               .merge = it->merge,
                               .result = it->result,
                               .result0 = it->result0,
                               .n_results = it->n_results};
    }
    return p;
}

cp_code cp_cuda_attention_fill(cuda_run *run, const cp_batch *batch, cp_err *err)
{
    attention_plans *all = run->attention;
    (void)err;
    if (!all)
        return CP_OK;
    if (all->out_seqs)
        keep_output_rows(all, batch);
    bool one_row = true;
    for (int s = 0; s < batch->n_seqs; s++)
        one_row = one_row && batch->seqs[s].n_rows == 1;
    cuda_plan *plans = cp_cuda_room(run, (size_t)all->n * sizeof(*plans), &run->host.plans);
    for (int i = 0; i < all->n; i++) {
        attention_plan *a = &all->of[i];
        a->n_items = cp_attn_plan(&a->shape, a->rows == CP_ROWS_OUT ? &all->out : batch, a->items);
        a->fused = one_row && a->tiles == 1;
        add_merges(a);
        plans[i] = put_plan(run, all, a);
    }
    return CP_OK;
}

/* Blocks for so many parts of `each` a block; they loop. */
static cuda_dim blocks_for(const cuda_run *run, int64_t parts, int each)
{
    int64_t n = (parts + each - 1) / each;
    int64_t most = (int64_t)BLOCKS_PER_MULTIPROCESSOR * run->gpu->multiprocessors;
    return (cuda_dim){(unsigned)(n < most ? n : most), 1, 1};
}

cp_code cp_cuda_enqueue_attention(cuda_run *run, const cp_op *op, const cuda_op *o,
                                  const cp_batch *batch, cp_err *err)
{
    const attention_op *x = o->own;
    const cuda_attention_args *a = &x->args;
    const attention_plan *plan = &((const attention_plans *)run->attention)->of[x->plan];
    cuda_dim block = {CUDA_ATTENTION_THREADS, 1, 1};
    cp_code rc = CP_OK;
    (void)op;
    if (a->k && !plan->fused && batch->n_rows) {
        unsigned n = (unsigned)(((int64_t)batch->n_rows * a->n_kv + WARPS - 1) / WARPS);
        rc = cp_cuda_launch(run, x->append, (cuda_dim){n, 1, 1}, block, x->append_shared, a, err);
    }
    if (rc == CP_OK && plan->n_items)
        rc = cp_cuda_launch(run, x->attend,
                            blocks_for(run, (int64_t)plan->n_items * a->n_kv * a->tiles, 1), block,
                            x->attend_shared, a, err);
    if (rc == CP_OK && plan->n_merges)
        rc = cp_cuda_launch(run, x->merge,
                            blocks_for(run, (int64_t)plan->n_merges * a->n_heads, WARPS), block, 0,
                            a, err);
    return rc;
}
