/*
 * Reference ATTENTION: qk-norm, rope, K and V of every row into the pages, then each (row, head)
 * alone, reading K and V back from the pages. Splits start at absolute multiples of CP_SPLIT, the
 * softmax restarts in each, partial results merge in ascending order (program.h).
 */
#include "base/mem.h"
#include "kernels/pages.h"
#include "kernels/ref/ref.h"

#include <stdlib.h>
#include <string.h>

typedef struct pages {
    const cp_prepared *p;
    const cp_kv_group *g;
    const uint32_t *table;
    int positions, layer;
    bool f16;
    bool tiles; /* by level amx's law */
    float *k;   /* scratch [k_dim] */
} pages;

static uint16_t *head_of(const pages *a, int pos, int h)
{
    uint8_t *page = cp_host_page(a->p, a->table[pos / a->positions]);
    return (uint16_t *)(void *)(page + cp_kv_head_offset(a->g, a->positions, a->layer, h));
}

static float from_kv(const pages *a, uint16_t x)
{
    return a->f16 ? cp_f32_from_f16(x) : cp_f32_from_bf16(x);
}

static uint16_t to_kv(const pages *a, float x)
{
    return a->f16 ? cp_f16_from_f32(x) : cp_bf16_from_f32(x);
}

static float key(const pages *a, int pos, int h, int d)
{
    return from_kv(a, head_of(a, pos, h)[cp_kv_k_index(a->g->k_dim, pos % a->positions, d)]);
}

static uint16_t *value_at(const pages *a, int pos, int h, int d)
{
    uint16_t *v = head_of(a, pos, h) + (size_t)a->g->k_dim * (size_t)a->positions;
    return v + cp_kv_v_index(a->g->v_dim, pos % a->positions, d);
}

/* x0' = x0 cos - x1 sin, x1' = x0 sin + x1 cos, each product and sum rounded. */
static void rotate(float *x, const float *cs, int n_rot, cp_rope_kind kind)
{
    int half = n_rot / 2;
    for (int i = 0; i < half; i++) {
        float *a = kind == CP_ROPE_NEOX ? &x[i] : &x[2 * i];
        float *b = kind == CP_ROPE_NEOX ? &x[half + i] : &x[2 * i + 1];
        float x0 = *a, x1 = *b;
        *a = x0 * cs[i] - x1 * cs[half + i];
        *b = x0 * cs[half + i] + x1 * cs[i];
    }
}

/* A head of Q or K. */
static void norm_rope(const cp_prepared *p, const cp_op *op, float *x, cp_wref norm, int r)
{
    if (norm >= 0)
        cp_ref_rmsnorm(x, x, cp_host_vector(p, norm), op->u.attention.k_dim, op->u.attention.eps);
    if (op->u.attention.rope_kind != CP_ROPE_NONE)
        rotate(x, cp_host_row(p, op->u.attention.rope, r), op->u.attention.n_rot,
               op->u.attention.rope_kind);
}

static void write_kv(const pages *a, const cp_op *op, int r, int pos, float *x)
{
    int kd = a->g->k_dim, vd = a->g->v_dim;
    for (int h = 0; h < a->g->n_kv; h++) {
        memcpy(x, cp_host_row(a->p, op->u.attention.k, r) + (size_t)h * (size_t)kd,
               (size_t)kd * sizeof(float));
        norm_rope(a->p, op, x, op->u.attention.k_norm, r);
        for (int d = 0; d < kd; d++)
            head_of(a, pos, h)[cp_kv_k_index(kd, pos % a->positions, d)] = to_kv(a, x[d]);
        memcpy(x, cp_host_row(a->p, op->u.attention.v, r) + (size_t)h * (size_t)vd,
               (size_t)vd * sizeof(float));
        if (op->u.attention.v_norm)
            cp_ref_rmsnorm(x, x, NULL, vd, op->u.attention.eps);
        for (int d = 0; d < vd; d++)
            *value_at(a, pos, h, d) = to_kv(a, x[d]);
    }
}

/* q times K of a position. */
static float score(const pages *a, const float *q, int pos, int h)
{
    int kd = a->g->k_dim;
    float dot = 0.0f;
    for (int d = 0; d < kd; d++)
        a->k[d] = key(a, pos, h, d);
    if (a->tiles)
        return cp_ref_dot_tiles(q, a->k, 0, kd);
    for (int d = 0; d < kd; d++)
        dot = fmaf(q[d], a->k[d], dot);
    return dot;
}

/* Dim d of p times V over positions [from, to) of the split at base. */
static float weighed(const pages *a, const float *p, int base, int from, int to, int h, int d)
{
    float v[CP_SPLIT] = {0}, sum = 0.0f;
    for (int j = from; j < to; j++)
        v[j - base] = from_kv(a, *value_at(a, j, h, d));
    if (a->tiles)
        return cp_ref_dot_tiles(p, v, (from - base) / CP_TILE_INPUTS * CP_TILE_INPUTS, to - base);
    for (int j = from - base; j < to - base; j++)
        sum = fmaf(p[j], v[j], sum);
    return sum;
}

/* One (row, head): q[k_dim] ready, out[v_dim]. */
static void attend(const pages *a, const cp_op *op, const float *q, int pos, int head, float *out,
                   float *os)
{
    int vd = a->g->v_dim, h = head / (op->u.attention.n_heads / a->g->n_kv);
    int window = op->u.attention.window, lo = window && pos >= window ? pos - window + 1 : 0;
    float m = -INFINITY, l = 0.0f, s[CP_SPLIT], cap = op->u.attention.softcap;
    memset(out, 0, (size_t)vd * sizeof(float));
    for (int base = lo / CP_SPLIT * CP_SPLIT; base <= pos; base += CP_SPLIT) {
        int from = lo > base ? lo : base,
            to = pos + 1 < base + CP_SPLIT ? pos + 1 : base + CP_SPLIT;
        float ms = -INFINITY, sums[CP_PARTIALS] = {0}, e[CP_SPLIT] = {0};
        for (int j = from; j < to; j++) {
            s[j - base] = score(a, q, j, h) * op->u.attention.scale;
            if (cap != 0.0f)
                s[j - base] = cap * cp_tanhf(s[j - base] / cap);
            ms = s[j - base] > ms ? s[j - base] : ms;
        }
        for (int j = from; j < to; j++) {
            e[j - base] = cp_expf(s[j - base] - ms);
            sums[j % CP_PARTIALS] += e[j - base];
        }
        for (int d = 0; d < vd; d++)
            os[d] = weighed(a, e, base, from, to, h, d);
        float ls = cp_ref_tree(sums), mm = m > ms ? m : ms;
        float e0 = cp_expf(m - mm), e1 = cp_expf(ms - mm);
        for (int d = 0; d < vd; d++)
            out[d] = out[d] * e0 + os[d] * e1;
        l = l * e0 + ls * e1;
        m = mm;
    }
    if (op->u.attention.sinks >= 0) {
        float sink = cp_host_vector(a->p, op->u.attention.sinks)[head], mm = m > sink ? m : sink;
        float e0 = cp_expf(m - mm);
        for (int d = 0; d < vd; d++)
            out[d] = out[d] * e0;
        l = l * e0 + cp_expf(sink - mm);
    }
    for (int d = 0; d < vd; d++)
        out[d] = out[d] / l + 0.0f; /* no negative zeroes */
}

void cp_ref_attention(cp_prepared *p, const cp_op *op, const cp_batch *batch)
{
    pages a = {.p = p,
               .g = &p->prog->groups[op->u.attention.group],
               .positions = p->cfg.page_positions,
               .layer = op->u.attention.layer_in_group,
               .f16 = p->cfg.kv_type == CP_DTYPE_F16,
               .tiles = p->cfg.kv_type == CP_DTYPE_BF16 && cp_ref_by_tiles(p, CP_DTYPE_BF16)};
    int kd = a.g->k_dim, vd = a.g->v_dim;
    float *x = cp_xcalloc((size_t)(2 * kd + vd), sizeof(float));
    a.k = x + kd + vd;
    for (int r = 0; r < batch->n_rows && op->u.attention.k >= 0; r++) {
        a.table = batch->seqs[batch->row_seq[r]].pages[op->u.attention.group];
        write_kv(&a, op, r, batch->pos[r], x);
    }
    for (int r = 0; r < cp_op_rows(op, batch); r++) {
        int row = op->rows == CP_ROWS_OUT ? batch->out_rows[r] : r;
        a.table = batch->seqs[batch->row_seq[row]].pages[op->u.attention.group];
        for (int h = 0; h < op->u.attention.n_heads; h++) {
            const float *q = cp_host_row(p, op->u.attention.q, r) + h * cp_attention_q_width(op);
            float *out = cp_host_row(p, op->u.attention.out, r) + h * vd;
            memcpy(x, q, (size_t)kd * sizeof(float));
            norm_rope(p, op, x, op->u.attention.q_norm, r);
            attend(&a, op, x, batch->pos[row], h, out, x + kd);
            for (int d = 0; op->u.attention.gated && d < vd; d++)
                out[d] = out[d] * cp_sigmoidf(q[kd + d]);
        }
    }
    free(x);
}
