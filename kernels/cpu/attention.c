/*
 * ATTENTION on the cpu backend: one record holds qk-norm, rope, the K/V write and the attention
 * itself, cut into items of (tile of rows of a sequence, kv head[, split]).
 *
 * When every sequence has one row (decode), the item that owns the row's last split writes K and V
 * first: no other item of this step reads that position, so no barrier is needed. Otherwise rows
 * are written by ticket, a barrier follows, then the items. A record without K and V writes
 * nothing. A tile normally does all its splits in
 * ascending order; when there are too few tiles for the workers, single rows are cut into splits,
 * and whoever finishes a row's last one merges, in ascending order. Either way the same operations
 * meet in the same order, so the bits are the same.
 */
#include "kernels/cpu/run.h"

#include "base/mem.h"
#include "kernels/pages.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Cut rows into splits when there are fewer than this many items a worker. */
enum { ITEMS_PER_WORKER = 4 };

static cpu_plan *plan_of(cpu_run *run, const cp_op *op, int *index)
{
    for (int i = 0; i < run->n_plans; i++) {
        cpu_plan *a = &run->plans[i];
        if (a->rows == op->rows && a->shape.window == op->u.attention.window &&
            a->n_heads == op->u.attention.n_heads && a->shape.n_kv == op->u.attention.n_kv &&
            a->k_dim == op->u.attention.k_dim && a->v_dim == op->u.attention.v_dim) {
            *index = i;
            return a;
        }
    }
    *index = run->n_plans;
    cpu_plan *a = &run->plans[run->n_plans++];
    *a = (cpu_plan){.rows = op->rows,
                    .n_heads = op->u.attention.n_heads,
                    .k_dim = op->u.attention.k_dim,
                    .v_dim = op->u.attention.v_dim,
                    .q_heads = op->u.attention.n_heads / op->u.attention.n_kv};
    a->shape = (cp_attn_shape){.window = op->u.attention.window,
                               .n_kv = op->u.attention.n_kv,
                               .tile_rows = CPU_TILE_QUERIES / a->q_heads,
                               .max_results = CPU_RESULTS,
                               .wanted = run->threads > 1 ? ITEMS_PER_WORKER * run->threads : 0};
    int *rows = &a->shape.tile_rows;
    *rows = *rows < 1 ? 1 : *rows > CPU_TILE_ROWS ? CPU_TILE_ROWS : *rows;
    a->items = cp_xcalloc(cp_attn_max_items(&a->shape, run->p->cfg.max_rows), sizeof(*a->items));
    return a;
}

void cp_cpu_attention_bind(cpu_run *run)
{
    cp_prepared *p = run->p;
    run->plans = cp_xcalloc((size_t)p->n_ops + 1, sizeof(*run->plans));
    for (int i = 0; i < p->n_ops; i++) {
        if (p->ops[i].kind != CP_OP_ATTENTION)
            continue;
        const cpu_plan *a = plan_of(run, &p->ops[i], &run->ops[i].plan);
        size_t floats = (size_t)a->n_heads * (size_t)(a->v_dim + 2);
        run->result_floats = floats > run->result_floats ? floats : run->result_floats;
        run->max_kv = a->shape.n_kv > run->max_kv ? a->shape.n_kv : run->max_kv;
        if (a->rows == CP_ROWS_OUT && !run->out_seqs) {
            run->out_seqs = cp_xcalloc((size_t)p->cfg.max_out + 1, sizeof(*run->out_seqs));
            run->out_pos = cp_xcalloc((size_t)p->cfg.max_out + 1, sizeof(*run->out_pos));
        }
    }
}

/* The output rows of a batch: rows that follow one another are a sequence of their own. */
static void keep_output_rows(cpu_run *run, const cp_batch *batch)
{
    int n = 0;
    for (int i = 0; i < batch->n_out; i++) {
        int r = batch->out_rows[i];
        const cp_batch_seq *q = &batch->seqs[batch->row_seq[r]];
        run->out_pos[i] = batch->pos[r];
        if (i == 0 || batch->out_rows[i - 1] != r - 1 || r == q->row0)
            run->out_seqs[n++] =
                (cp_batch_seq){.row0 = i, .pos0 = batch->pos[r], .pages = q->pages};
        run->out_seqs[n - 1].n_rows++;
    }
    run->out =
        (cp_batch){.n_rows = batch->n_out, .n_seqs = n, .seqs = run->out_seqs, .pos = run->out_pos};
}

void cp_cpu_attention_plan(cpu_run *run, const cp_batch *batch)
{
    if (run->out_seqs)
        keep_output_rows(run, batch);
    run->fused = true;
    for (int s = 0; s < batch->n_seqs; s++)
        run->fused = run->fused && batch->seqs[s].n_rows == 1;
    for (int i = 0; i < run->n_plans; i++) {
        cpu_plan *a = &run->plans[i];
        a->batch = a->rows == CP_ROWS_OUT ? &run->out : batch;
        a->n_items = cp_attn_plan(&a->shape, a->batch, a->items);
    }
}

/* dst = one head's vector, which begins at `at` of the row, after norm and rope. */
static void load_head(const cpu_worker *w, const cp_op *op, float *dst, cp_mat from, cp_wref norm,
                      int r, int at)
{
    const cp_prepared *p = w->run->p;
    const cp_vec *v = w->run->vec;
    int kd = op->u.attention.k_dim;
    const float *x = cp_host_row(p, from, r) + at;
    if (norm >= 0)
        v->rmsnorm(dst, x, cp_host_vector(p, norm), NULL, kd, op->u.attention.eps);
    else
        memcpy(dst, x, (size_t)kd * sizeof(float));
    if (op->u.attention.rope_kind != CP_ROPE_NONE)
        v->rotate(dst, cp_host_row(p, op->u.attention.rope, r), op->u.attention.n_rot,
                  op->u.attention.rope_kind);
}

/* K and V of row r, kv head h into the row's page. */
static void write_head(const cpu_worker *w, const cp_op *op, int r, int h)
{
    const cp_prepared *p = w->run->p;
    int group = op->u.attention.group, positions = p->cfg.page_positions;
    const cp_kv_group *g = &p->prog->groups[group];
    int pos = w->batch->pos[r];
    const uint32_t *table = w->batch->seqs[w->batch->row_seq[r]].pages[group];
    uint8_t *page = cp_host_page(p, table[pos / positions]);
    uint8_t *head = page + cp_kv_head_offset(g, positions, op->u.attention.layer_in_group, h);
    load_head(w, op, w->s->row[0], op->u.attention.k, op->u.attention.k_norm, r, h * g->k_dim);
    const float *v = cp_host_row(p, op->u.attention.v, r) + (size_t)h * (size_t)g->v_dim;
    if (op->u.attention.v_norm) {
        w->run->vec->rmsnorm(w->s->row[1], v, NULL, NULL, g->v_dim, op->u.attention.eps);
        v = w->s->row[1];
    }
    w->run->vec->store_kv((uint16_t *)(void *)head, w->s->row[0], v, g->k_dim, g->v_dim, positions,
                          pos % positions, p->cfg.kv_type == CP_DTYPE_F16);
}

/* Rows of the item that see keys of the split, and what each of their queries sees. */
static bool split_rows(const cpu_worker *w, const cp_attn_item *it, const cpu_plan *a, int split,
                       int *first, int *count)
{
    int base = split * CP_SPLIT, n = 0;
    *first = it->n_rows;
    *count = 0;
    for (int r = 0; r < it->n_rows; r++) {
        int pos = a->batch->pos[it->row0 + r], lo = cp_attn_first_visible(a->shape.window, pos);
        if (pos < base || lo >= base + CP_SPLIT)
            continue;
        if (!*count)
            *first = r;
        (*count)++;
        for (int h = 0; h < a->q_heads; h++, n++) {
            w->s->lo[n] = lo > base ? lo : base;
            w->s->hi[n] = pos + 1 < base + CP_SPLIT ? pos + 1 : base + CP_SPLIT;
        }
    }
    return *count > 0;
}

/* out rows of queries: finish[i] = o / l. */
static void finish_head(const cpu_worker *w, const cp_op *op, int r, int head, const float *o,
                        float m, float l)
{
    const cp_prepared *p = w->run->p;
    const float *sinks =
        op->u.attention.sinks >= 0 ? cp_host_vector(p, op->u.attention.sinks) : NULL;
    int vd = op->u.attention.v_dim;
    float *out = cp_host_row(p, op->u.attention.out, r) + head * vd;
    w->run->vec->finish(out, o, m, l, sinks ? sinks + head : NULL, vd);
    if (op->u.attention.gated)
        w->run->vec->gate_out(out,
                              cp_host_row(p, op->u.attention.q, r) +
                                  head * cp_attention_q_width(op) + op->u.attention.k_dim,
                              vd);
}

/* o[v_dim], m, l of query head h of kv head kv in a split result. */
static float *result_at(const cpu_run *run, const cpu_plan *a, int result, int kv, int h)
{
    int head = kv * a->q_heads + h;
    return run->results + (size_t)result * run->result_floats +
           (size_t)head * (size_t)(a->v_dim + 2);
}

/* The last split of a row to arrive merges them all. */
static void merge_results(cpu_worker *w, const cp_op *op, const cpu_plan *a, const cp_attn_item *it,
                          int kv)
{
    cpu_run *run = w->run;
    int vd = a->v_dim;
    for (int h = 0; h < a->q_heads; h++) {
        float *o = result_at(run, a, it->result0, kv, h);
        for (int i = 1; i < it->n_results; i++) {
            const float *next = result_at(run, a, it->result0 + i, kv, h);
            run->vec->merge(&o[vd], &o[vd + 1], o, next[vd], next[vd + 1], next, vd);
        }
        finish_head(w, op, it->row0, kv * a->q_heads + h, o, o[vd], o[vd + 1]);
    }
}

/* Running (m, l, o) of the rows that the split touched: the first split of a row is copied. */
static void merge_split(cpu_worker *w, const cpu_plan *a, const cp_attn_item *it, int split,
                        int first, int count)
{
    const cpu_scratch *s = w->s;
    int vd = a->v_dim;
    for (int i = 0; i < count * a->q_heads; i++) {
        int q = first * a->q_heads + i, pos = a->batch->pos[it->row0 + first + i / a->q_heads];
        float *o = s->o + (size_t)q * (size_t)vd;
        const float *os = s->os + (size_t)i * (size_t)vd;
        if (split == cp_attn_first_visible(a->shape.window, pos) / CP_SPLIT) {
            memcpy(o, os, (size_t)vd * sizeof(float));
            s->m[q] = s->ms[i];
            s->l[q] = s->ls[i];
        } else {
            w->run->vec->merge(&s->m[q], &s->l[q], o, s->ms[i], s->ls[i], os, vd);
        }
    }
}

static void store_result(cpu_worker *w, const cp_op *op, const cpu_plan *a, const cp_attn_item *it,
                         int kv)
{
    cpu_run *run = w->run;
    int vd = a->v_dim;
    for (int h = 0; h < a->q_heads; h++) {
        float *o = result_at(run, a, it->result, kv, h);
        memcpy(o, w->s->os + (size_t)h * (size_t)vd, (size_t)vd * sizeof(float));
        o[vd] = w->s->ms[h];
        o[vd + 1] = w->s->ls[h];
    }
    /* acq_rel: the last arrival sees every result; it leaves the counter at rest. */
    _Atomic int *done = &run->merges[it->merge * a->shape.n_kv + kv];
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 == it->n_results) {
        atomic_store_explicit(done, 0, memory_order_relaxed);
        merge_results(w, op, a, it, kv);
    }
}

static void do_item(cpu_worker *w, const cp_op *op, const cpu_plan *a, const cp_attn_item *it,
                    int kv)
{
    cpu_run *run = w->run;
    cp_prepared *p = run->p;
    int q_heads = a->q_heads, kd = a->k_dim, first, count;
    for (int r = 0; r < it->n_rows; r++)
        for (int h = 0; h < q_heads; h++)
            load_head(w, op, w->s->q + (size_t)(r * q_heads + h) * (size_t)kd, op->u.attention.q,
                      op->u.attention.q_norm, it->row0 + r,
                      (kv * q_heads + h) * cp_attention_q_width(op));
    bool last = it->merge < 0 || it->result == it->result0 + it->n_results - 1;
    if (run->fused && last && op->u.attention.k >= 0)
        write_head(w, op, it->row0, kv);
    const cp_kv_group *g = &p->prog->groups[op->u.attention.group];
    cp_attend t = {
        .k_dim = kd,
        .v_dim = a->v_dim,
        .lo = w->s->lo,
        .hi = w->s->hi,
        .scale = op->u.attention.scale,
        .softcap = op->u.attention.softcap,
        .f16 = p->cfg.kv_type == CP_DTYPE_F16,
        .pages = cp_host_page(p, 0),
        .page_bytes = p->page_bytes,
        .head_off = cp_kv_head_offset(g, p->cfg.page_positions, op->u.attention.layer_in_group, kv),
        .table = a->batch->seqs[it->seq].pages[op->u.attention.group],
        .positions = p->cfg.page_positions,
        .s = w->s->s,
        .half = w->s->half,
        .o = w->s->os,
        .m = w->s->ms,
        .l = w->s->ls};
    for (int split = it->split0; split < it->split1; split++) {
        if (!split_rows(w, it, a, split, &first, &count))
            continue;
        t.q = w->s->q + (size_t)(first * q_heads) * (size_t)kd;
        t.n = count * q_heads;
        run->attend(&t);
        if (it->merge >= 0) {
            store_result(w, op, a, it, kv);
            return;
        }
        merge_split(w, a, it, split, first, count);
    }
    for (int i = 0; i < it->n_rows * q_heads; i++)
        finish_head(w, op, it->row0 + i / q_heads, kv * q_heads + i % q_heads,
                    w->s->o + (size_t)i * (size_t)a->v_dim, w->s->m[i], w->s->l[i]);
}

bool cp_cpu_attention(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    cpu_run *run = w->run;
    const cpu_plan *a = &run->plans[bound->plan];
    if (!run->fused && op->u.attention.k >= 0) {
        int64_t r, n = w->batch->n_rows;
        while ((r = cp_cpu_item(w, n)) < n)
            for (int h = 0; h < a->shape.n_kv; h++)
                write_head(w, op, (int)r, h);
        if (!cp_pool_barrier(w->pool, w->id))
            return false;
    }
    int64_t i, n = (int64_t)a->n_items * a->shape.n_kv;
    while ((i = cp_cpu_item(w, n)) < n)
        do_item(w, op, a, &a->items[i / a->shape.n_kv], (int)(i % a->shape.n_kv));
    return true;
}
