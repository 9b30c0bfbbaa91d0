/*
 * attention: see attention.h.
 */
#include "tests/kernels/attention.h"

#include "kernels/math.h"
#include "kernels/pages.h"

#include <math.h>
#include <stdlib.h>

/* Matrices, rope rows and norms for a record of layer 0 or 1. */
static cp_op *record(rig *r, const attention_shape *s)
{
    cp_op *op = rig_op(r, CP_OP_ATTENTION, CP_ROWS_ALL);
    int heads = s->q_heads * s->n_kv, k_dim = s->k_dim, v_dim = s->v_dim;
    op->u.attention.gated = rig_random(r, 3) == 0;
    op->u.attention.q =
        rig_mat(r, heads * (k_dim + (op->u.attention.gated ? v_dim : 0)), CP_ROWS_ALL);
    op->u.attention.k = rig_mat(r, s->n_kv * k_dim, CP_ROWS_ALL);
    op->u.attention.v = k_dim == v_dim && rig_random(r, 4) == 0
                            ? op->u.attention.k
                            : rig_mat(r, s->n_kv * v_dim, CP_ROWS_ALL);
    op->u.attention.v_norm = rig_random(r, 2);
    op->u.attention.out = rig_mat(r, heads * v_dim, CP_ROWS_ALL);
    op->u.attention.rope_kind = (cp_rope_kind)rig_random(r, 3);
    int pairs = 1 + (int)rig_random(r, (uint64_t)k_dim / 2); /* some as many as a warp's lanes */
    op->u.attention.n_rot = 2 * (pairs > 32 && pairs % 2 ? pairs / 32 * 32 : pairs);
    op->u.attention.rope = rig_mat(r, op->u.attention.n_rot, CP_ROWS_ALL);
    op->u.attention.q_norm = rig_random(r, 2) ? rig_vector(r, k_dim, 1) : (cp_wref)-1;
    op->u.attention.k_norm = rig_random(r, 2) ? rig_vector(r, k_dim, 1) : (cp_wref)-1;
    op->u.attention.sinks = rig_random(r, 3) ? (cp_wref)-1 : rig_vector(r, heads, 1);
    op->u.attention.eps = k_dim % 3 ? 0.03f : 1e-6f;
    op->u.attention.scale = 1.5f / sqrtf((float)k_dim);
    op->u.attention.softcap = rig_random(r, 3) ? 0.0f : 5.0f;
    op->u.attention.n_heads = heads;
    op->u.attention.n_kv = s->n_kv;
    op->u.attention.k_dim = k_dim;
    op->u.attention.v_dim = v_dim;
    op->u.attention.window = s->window;
    op->u.attention.layer_in_group = (int)rig_random(r, 2);
    return op;
}

/* A record after op that has queries of its own and reads op's K and V. */
static cp_mat reads_the_same(rig *r, const cp_op *op, cp_rows rows)
{
    cp_op *reader = rig_op(r, CP_OP_ATTENTION, rows);
    reader->u.attention = op->u.attention;
    reader->u.attention.k = reader->u.attention.v = -1;
    reader->u.attention.k_norm = -1;
    reader->u.attention.v_norm = false;
    reader->u.attention.rope = rig_mat(r, op->u.attention.n_rot, rows);
    reader->u.attention.q = rig_mat(r, r->mats[op->u.attention.q].width, rows);
    return reader->u.attention.out = rig_mat(r, r->mats[op->u.attention.out].width, rows);
}

/* Any of the rows want an output, perhaps none. */
static void some_outputs(rig *r, rig_batch *b)
{
    b->b.n_out = 0;
    for (int i = 0; i < b->b.n_rows; i++)
        if (rig_random(r, 3))
            b->out_rows[b->b.n_out++] = i;
}

attention_shape attention_shape_random(rig *r, uint64_t seed)
{
    static const int windows[] = {0, 0, 1, 5, 16, 100, 512, 700};
    attention_shape s = {.q_heads = 1 + (int)rig_random(r, seed % 5 ? 4 : 30),
                         .n_kv = 1 + (int)rig_random(r, 2)};
    s.k_dim = 2 * (1 + (int)rig_random(r, 24));
    s.v_dim = rig_random(r, 4) ? 2 * (1 + (int)rig_random(r, 24)) : s.k_dim;
    s.window = windows[rig_random(r, 8)];
    return s;
}

/* The rig is there. */
static void init(attention_case *c, uint64_t seed, const attention_shape *s)
{
    rig *r = &c->r;
    cp_op *op = c->op = record(r, s);
    cp_kv_group other = {CP_GROUP_FULL, 2, s->n_kv, s->k_dim + 2, s->v_dim, 0, 0};
    bool has_other = rig_random(r, 4) == 0; /* pages are larger than this group's contents */
    if (has_other && seed % 4 > 1)
        rig_group(r, other);
    op->u.attention.group =
        rig_group(r, (cp_kv_group){.kind = s->window ? CP_GROUP_WINDOW : CP_GROUP_FULL,
                                   .n_layers = 2,
                                   .n_kv = s->n_kv,
                                   .k_dim = s->k_dim,
                                   .v_dim = s->v_dim,
                                   .window = s->window});
    if (has_other && seed % 4 <= 1)
        rig_group(r, other);
    c->outs[0] = op->u.attention.out;
    c->outs[1] = c->outs[2] = -1;
    if (rig_random(r, 2))
        c->outs[1] = reads_the_same(r, op, rig_random(r, 2) ? CP_ROWS_ALL : CP_ROWS_OUT);
    r->cfg.page_positions = 16 << rig_random(r, 6);
    r->cfg.n_pages = (uint32_t)(7200 * r->prog.n_groups / r->cfg.page_positions + 8);
    r->cfg.kv_type = seed % 3 ? CP_DTYPE_BF16 : CP_DTYPE_F16;
}

void attention_case_init(attention_case *c, uint64_t seed, const attention_shape *s)
{
    rig_init(&c->r, seed);
    init(c, seed, s);
}

static void add_batch(attention_case *c, uint64_t seed)
{
    rig *r = &c->r;
    rig_seq q[4];
    int n = 1 + (int)rig_random(r, 3);
    for (int i = 0; i < n; i++)
        q[i] = (rig_seq){.pos0 = (int)rig_random(r, rig_random(r, 2) ? 1700 : 600),
                         .n_rows = seed % 2 ? 1 : 1 + (int)rig_random(r, 20)};
    rig_batch_init(&c->b, r, q, n, false);
    some_outputs(r, &c->b);
}

void attention_case_random(attention_case *c, uint64_t seed)
{
    rig_init(&c->r, seed);
    attention_shape s = attention_shape_random(&c->r, seed);
    init(c, seed, &s);
    add_batch(c, seed);
}

void attention_case_shaped(attention_case *c, uint64_t seed, const attention_shape *s)
{
    attention_case_init(c, seed, s);
    add_batch(c, seed);
}

void attention_case_fini(attention_case *c)
{
    rig_batch_fini(&c->b);
    rig_fini(&c->r);
}

/* Position j of the page that starts at a position of a sequence. */
static void fill_position(const attention_case *c, uint16_t *page, int start, int j,
                          attention_value *value)
{
    const cp_kv_group *g = &c->r.prog.groups[c->op->u.attention.group];
    int positions = c->r.cfg.page_positions;
    bool f16 = c->r.cfg.kv_type == CP_DTYPE_F16;
    uint64_t state = (uint64_t)(start + j) * 977 + 1;
    for (int n = 0; n < g->n_layers * g->n_kv; n++) {
        uint16_t *k = page + cp_kv_head_offset(g, positions, n / g->n_kv, n % g->n_kv) / 2;
        uint16_t *v = k + (size_t)g->k_dim * (size_t)positions;
        for (int d = 0; d < g->k_dim + g->v_dim; d++) {
            bool is_v = d >= g->k_dim;
            float x = value(is_v, is_v ? d - g->k_dim : d, &state);
            uint16_t *to = is_v ? v + cp_kv_v_index(g->v_dim, j, d - g->k_dim)
                                : k + cp_kv_k_index(g->k_dim, j, d);
            *to = f16 ? cp_f16_from_f32(x) : cp_bf16_from_f32(x);
        }
    }
}

void attention_case_fill(const attention_case *c, machine *m, bool seen, attention_value *value)
{
    int group = c->op->u.attention.group, window = c->op->u.attention.window;
    int positions = c->r.cfg.page_positions;
    for (int s = 0; s < c->b.b.n_seqs; s++) {
        const cp_batch_seq *q = &c->b.b.seqs[s];
        int first = window && q->pos0 >= window ? q->pos0 - window + 1 : 0;
        int end = q->pos0 + q->n_rows;
        for (int start = 0; start < end; start += positions) {
            uint32_t number = q->pages[group][start / positions];
            if (!number)
                continue; /* the null page is all zeroes */
            uint16_t *page = machine_page(m, number);
            for (int j = 0; j < positions; j++) {
                int pos = start + j;
                if (seen ? pos >= first && pos < q->pos0 : pos < first || pos >= end)
                    fill_position(c, page, start, j, value);
            }
            machine_put_page(m, number, page);
            free(page);
        }
    }
}

static float no_number(bool v, int d, uint64_t *state)
{
    (void)v;
    (void)d;
    (void)state;
    return NAN;
}

void attention_case_spoil(const attention_case *c, machine *m)
{
    attention_case_fill(c, m, false, no_number);
}
