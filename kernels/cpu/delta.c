/*
 * DELTAPREP and DELTANET on the cpu backend.
 *
 * An item of DELTAPREP is (sequence, head of q, k or v), or a sequence's decays and betas. One of
 * DELTANET is (sequence, v head, CPU_DELTA_COLUMNS columns of its state): all rows of the step pass
 * through these columns while they lie in L1. The head's norm needs all columns, so whoever
 * finishes the last of them norms and gates the head's rows; no barrier is in between.
 */
#include "kernels/cpu/run.h"

#include <string.h>

static int parts_of(const cp_delta_shape *s)
{
    return (s->v_dim + CPU_DELTA_COLUMNS - 1) / CPU_DELTA_COLUMNS;
}

void cp_cpu_delta_bind(cpu_run *run)
{
    const cp_prepared *p = run->p;
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == CP_OP_DELTANET && p->ops[i].u.deltanet.shape.n_v > run->max_delta)
            run->max_delta = p->ops[i].u.deltanet.shape.n_v;
}

static void prep_head(cpu_worker *w, const cp_op *op, const cp_batch_seq *q, int h)
{
    const cp_prepared *p = w->run->p;
    const cp_delta_shape *s = &op->u.deltaprep.shape;
    int group = op->u.deltaprep.group, layer = op->u.deltaprep.layer_in_group, qk = 2 * s->n_k;
    cp_delta_prep a = {.d = (int)cp_delta_channels(s),
                       .taps = s->taps,
                       .n_rows = q->n_rows,
                       .c0 = h < qk ? h * s->k_dim : qk * s->k_dim + (h - qk) * s->v_dim,
                       .n = h < qk ? s->k_dim : s->v_dim,
                       .w = cp_host_vector(p, op->u.deltaprep.conv),
                       .x = cp_host_row(p, op->u.deltaprep.in, q->row0),
                       .y = cp_host_row(p, op->u.deltaprep.out, q->row0),
                       .ld = p->ld[op->u.deltaprep.in], /* of equal width */
                       .unit = h < qk,
                       .eps = op->u.deltaprep.eps,
                       .scale = h < s->n_k ? op->u.deltaprep.scale : 1.0f};
    if (q->state_in)
        a.in = cp_host_state(p, q->state_in, group, layer);
    if (q->state_out)
        a.out = cp_host_state(p, q->state_out, group, layer);
    if (q->state_save)
        a.save = cp_host_state(p, q->state_save, group, layer);
    w->run->vec->delta_prep(&a);
}

static void prep_gates(cpu_worker *w, const cp_op *op, const cp_batch_seq *q)
{
    const cp_prepared *p = w->run->p;
    for (int r = q->row0; r < q->row0 + q->n_rows; r++)
        w->run->vec->delta_gates(
            cp_host_row(p, op->u.deltaprep.gates, r), cp_host_row(p, op->u.deltaprep.alpha, r),
            cp_host_row(p, op->u.deltaprep.beta, r), cp_host_vector(p, op->u.deltaprep.a),
            cp_host_vector(p, op->u.deltaprep.dt), op->u.deltaprep.shape.n_v);
}

bool cp_cpu_deltaprep(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    (void)bound;
    const cp_delta_shape *s = &op->u.deltaprep.shape;
    int heads = 2 * s->n_k + s->n_v;
    int64_t i, n = (int64_t)w->batch->n_seqs * (heads + 1);
    while ((i = cp_cpu_item(w, n)) < n) {
        const cp_batch_seq *q = &w->batch->seqs[i / (heads + 1)];
        int h = (int)(i % (heads + 1));
        if (h < heads)
            prep_head(w, op, q, h);
        else
            prep_gates(w, op, q);
    }
    return true;
}

/* The rows of a sequence through columns [c0, c0 + n) of v head h. */
static void columns(cpu_worker *w, const cp_op *op, const cp_batch_seq *q, int h, int c0)
{
    const cp_prepared *p = w->run->p;
    const cp_delta_shape *s = &op->u.deltanet.shape;
    int group = op->u.deltanet.group, layer = op->u.deltanet.layer_in_group;
    int n = s->v_dim - c0 < CPU_DELTA_COLUMNS ? s->v_dim - c0 : CPU_DELTA_COLUMNS;
    size_t tiles = (size_t)(n + CP_DELTA_COLUMNS - 1) / CP_DELTA_COLUMNS;
    size_t tile = (size_t)s->k_dim * CP_DELTA_COLUMNS, bytes = tiles * tile * sizeof(float);
    size_t at = cp_delta_state_at(s) / sizeof(float) +
                ((size_t)h * (size_t)cp_delta_tiles(s) + (size_t)(c0 / CP_DELTA_COLUMNS)) * tile;
    const float *qkv = cp_host_row(p, op->u.deltanet.in, q->row0);
    const float *gates = cp_host_row(p, op->u.deltanet.gates, q->row0);
    float *state = q->state_out ? cp_host_state(p, q->state_out, group, layer) + at : w->s->delta;
    if (!q->state_in)
        memset(state, 0, bytes);
    else if (q->state_in != q->state_out)
        memcpy(state, cp_host_state(p, q->state_in, group, layer) + at, bytes);
    w->run->vec->delta_rows(
        &(cp_delta){.k_dim = s->k_dim,
                    .n_rows = q->n_rows,
                    .n = n,
                    .q = qkv + h % s->n_k * s->k_dim,
                    .k = qkv + (s->n_k + h % s->n_k) * s->k_dim,
                    .v = qkv + 2 * s->n_k * s->k_dim + h * s->v_dim + c0,
                    .ld = p->ld[op->u.deltanet.in],
                    .decay = gates + h,
                    .beta = gates + s->n_v + h,
                    .ld_g = p->ld[op->u.deltanet.gates],
                    .s = state,
                    .o = cp_host_row(p, op->u.deltanet.out, q->row0) + h * s->v_dim + c0,
                    .ld_o = p->ld[op->u.deltanet.out]});
    if (q->state_save)
        memcpy(cp_host_state(p, q->state_save, group, layer) + at, state, bytes);
}

static void finish_head(cpu_worker *w, const cp_op *op, const cp_batch_seq *q, int h)
{
    const cp_prepared *p = w->run->p;
    int dim = op->u.deltanet.shape.v_dim;
    for (int r = q->row0; r < q->row0 + q->n_rows; r++)
        w->run->vec->delta_finish(
            cp_host_row(p, op->u.deltanet.out, r) + h * dim, cp_host_vector(p, op->u.deltanet.norm),
            cp_host_row(p, op->u.deltanet.z, r) + h * dim, dim, op->u.deltanet.eps);
}

bool cp_cpu_deltanet(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    (void)bound;
    const cp_delta_shape *s = &op->u.deltanet.shape;
    int parts = parts_of(s);
    int64_t i, n = (int64_t)w->batch->n_seqs * s->n_v * parts;
    while ((i = cp_cpu_item(w, n)) < n) {
        int64_t head = i / parts;
        const cp_batch_seq *q = &w->batch->seqs[head / s->n_v];
        int h = (int)(head % s->n_v);
        columns(w, op, q, h, (int)(i % parts) * CPU_DELTA_COLUMNS);
        /* acq_rel: the last to arrive sees every column; it leaves the counter at rest. */
        _Atomic int *done = &w->run->delta_done[head];
        if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 == parts) {
            atomic_store_explicit(done, 0, memory_order_relaxed);
            finish_head(w, op, q, h);
        }
    }
    return true;
}
