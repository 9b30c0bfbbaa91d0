/*
 * EMBED on the device: from the panels of a head that shares the table, or from its rows where it
 * is of floats. A record that mixes has its rows from the file, where the host reads them as f32.
 */
#include "kernels/cuda/embed.h"

#include "base/mem.h"
#include "kernels/cuda/cuda.h"

typedef struct embed {
    cuda_kernel f;
    union {
        cuda_embed_args table;
        cuda_mix_args mix;
    } args;
} embed;

static const char *const kernels[CP_PANEL_COUNT] = {
#define X(name, bits, codes, form, off, bytes, head) [CP_PANEL_##name] = "k_embed_" #name,
    CP_INT_PANELS(X)
#undef X
        [CP_PANEL_F32] = "k_embed_F32",
    [CP_PANEL_F16] = "k_embed_F16",
    [CP_PANEL_BF16] = "k_embed_BF16",
};

static const cuda_weight *table(const cuda_run *run, const cp_op *op)
{
    return &run->weights[op->u.embed.table];
}

static bool mixes(const cp_op *op)
{
    return op->kind == CP_OP_EMBED && op->u.embed.in >= 0;
}

/* How many records before this one have gathered rows. */
static int number_of(const cuda_run *run, const cp_op *op)
{
    int n = 0;
    for (const cp_op *o = run->p->ops; o < op; o++)
        n += mixes(o);
    return n;
}

static size_t row_bytes(const cuda_weight *w)
{
    return (size_t)w->k * sizeof(float);
}

cp_code cp_cuda_measure_embed(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cuda_weight *w = table(run, op);
    o->own = cp_xcalloc(1, sizeof(embed));
    if (!mixes(op))
        return CP_OK;
    if (number_of(run, op) >= CUDA_GATHERED)
        return cp_fail(err, CP_UNSUPPORTED,
                       "%s: the embedding number %d that stays in its file; "
                       "the cuda backend gathers up to %d of a model",
                       w->t->name, number_of(run, op) + 1, CUDA_GATHERED);
    cp_cuda_want_put(run, (size_t)run->p->cfg.max_rows * row_bytes(w));
    return CP_OK;
}

static cuda_mix_args mix_args(const cuda_run *run, const cp_op *op)
{
    const cp_prepared *p = run->p;
    return (cuda_mix_args){.step = run->step,
                           .out = p->mats[op->u.embed.out],
                           .in = p->mats[op->u.embed.in],
                           .norm = p->vectors[op->u.embed.norm],
                           .k = (int32_t)table(run, op)->k,
                           .ld = (int32_t)p->ld[op->u.embed.out],
                           .ld_in = (int32_t)p->ld[op->u.embed.in],
                           .span = (int32_t)p->prog->weights[op->u.embed.norm].t->ne[0],
                           .gathered = number_of(run, op),
                           .scale = op->u.embed.scale,
                           .eps = op->u.embed.eps,
                           .mix = op->u.embed.mix};
}

static cuda_embed_args table_args(const cuda_run *run, const cp_op *op)
{
    const cuda_weight *w = table(run, op);
    return (cuda_embed_args){.step = run->step,
                             .last = run->last,
                             .table = w->at,
                             .out = run->p->mats[op->u.embed.out],
                             .weight_bytes =
                                 (int64_t)(w->file_order ? w->row_bytes : w->panel_bytes),
                             .k = (int32_t)w->k,
                             .ld = (int32_t)run->p->ld[op->u.embed.out],
                             .scale = op->u.embed.scale};
}

cp_code cp_cuda_bind_embed(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    embed *e = o->own;
    if (mixes(op))
        e->args.mix = mix_args(run, op);
    else
        e->args.table = table_args(run, op);
    return cp_cuda_kernel(run, mixes(op) ? "k_embed_mixed" : kernels[table(run, op)->kind], &e->f,
                          err);
}

static void gather(const cuda_run *run, const cuda_weight *w, const cp_batch *batch, float *rows)
{
    for (int r = 0; r < batch->n_rows; r++) {
        int32_t id = batch->tok[r];
        if (id == CP_TOK_PREV)
            id = cp_cuda_last_id(run, batch->seqs[batch->row_seq[r]].slot);
        cp_dequant_row(w->t, id, rows + (size_t)r * (size_t)w->k);
    }
}

cp_code cp_cuda_embed_fill(cuda_run *run, const cp_batch *batch, cp_err *err)
{
    const cp_prepared *p = run->p;
    (void)err;
    for (int i = 0, n = 0; i < p->n_ops; i++) {
        const cp_op *op = &p->ops[i];
        if (!mixes(op))
            continue;
        const cuda_weight *w = table(run, op);
        size_t bytes = (size_t)batch->n_rows * row_bytes(w);
        gather(run, w, batch, cp_cuda_room(run, bytes, &run->host.gathered[n++]));
    }
    return CP_OK;
}

cp_code cp_cuda_enqueue_embed(cuda_run *run, const cp_op *op, const cuda_op *o,
                              const cp_batch *batch, cp_err *err)
{
    const embed *e = o->own;
    (void)op;
    return cp_cuda_launch(run, e->f, (cuda_dim){(unsigned)batch->n_rows, 1, 1},
                          (cuda_dim){CUDA_EMBED_THREADS, 1, 1}, 0, &e->args, err);
}
