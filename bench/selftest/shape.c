/* shape: see shape.h. */
#include "bench/selftest/shape.h"

#include "base/mem.h"
#include "kernels/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t draw(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Are the numbers that n bytes of weights begin with finite and of ordinary size? */
static bool ordinary(cp_dtype type, const uint8_t *block)
{
    const cp_dtype_row *row = cp_dtype_info((uint32_t)type);
    float x[256];
    cp_tensor t = {.name = "block", .type = type, .n_dims = 1, .ne = {row->block, 1, 1, 1}};
    t.bytes = (size_t)row->bytes;
    t.data = block;
    cp_dequant_row(&t, 0, x);
    for (int i = 0; i < row->block; i++)
        if (!(fabsf(x[i]) < 4.0f))
            return false;
    return true;
}

/* Random blocks of a type; where one holds what no model has (a huge scale, NaN), bytes whose
 * fields are small in every type. */
static void fill(cp_dtype type, uint8_t *p, size_t n, uint64_t seed)
{
    size_t bytes = (size_t)cp_dtype_info((uint32_t)type)->bytes;
    uint64_t s = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t at = 0; at + bytes <= n; at += bytes) {
        for (size_t i = 0; i < bytes; i++)
            p[at + i] = (uint8_t)(draw(&s) >> 32);
        for (size_t i = 0; i < bytes && !ordinary(type, p + at); i++)
            p[at + i] = (uint8_t)(0x20 | (p[at + i] & 0x0f));
    }
}

enum {
    FILLED = 1 << 22, /* bytes that are drawn; larger tensors repeat them */
    APART = 64        /* blocks from the bytes of a tensor to those of the next */
};

/* Backends keep what is one tensor once. Weights that so many bytes of others lie between may be
 * one: no cache has them still. */
static const size_t past_caches = (size_t)512 << 20;

static size_t apart(cp_dtype type)
{
    return APART * (size_t)cp_dtype_info((uint32_t)type)->bytes;
}

/* The next weights may be those of the start again, where enough lies between. */
static void begin_layer(self_model *m)
{
    if (m->laid < past_caches)
        return;
    m->laid = 0;
    m->place = 0;
}

static cp_code make_bytes(self_model *m, cp_dtype type, size_t n, uint64_t seed, cp_err *err)
{
    size_t block = (size_t)cp_dtype_info((uint32_t)type)->bytes, some = FILLED / block * block;
    some = n < some ? n : some;
    m->bytes = cp_alloc_aligned(n);
    if (!m->bytes)
        return cp_fail(err, CP_NO_MEMORY, "a tensor of %zu bytes: no memory", n);
    fill(type, m->bytes, some, seed);
    for (size_t at = some; at < n; at += some)
        memcpy((uint8_t *)m->bytes + at, m->bytes, n - at < some ? n - at : some);
    return CP_OK;
}

static cp_mat mat(self_model *m, int width, cp_rows rows)
{
    m->prog.mats[m->prog.n_mats] = (struct cp_mat_desc){width, rows};
    return (cp_mat)m->prog.n_mats++;
}

static cp_wref weight(self_model *m, cp_dtype type, int k, int outputs, cp_role role)
{
    int i = m->prog.n_weights++;
    cp_tensor *t = &m->tensors[i];
    *t = (cp_tensor){.name = "random", .type = type, .n_dims = 2, .ne = {k, outputs, 1, 1}};
    t->bytes = (size_t)outputs * cp_tensor_row_bytes(t);
    t->data = m->floats;
    if (role != CP_ROLE_VECTOR) {
        t->data = (const uint8_t *)m->bytes + (size_t)m->place++ * apart(type);
        m->laid += t->bytes;
    }
    m->prog.weights[i] = (cp_weight){t, role};
    return (cp_wref)i;
}

static cp_op *record(self_model *m, cp_op_kind kind, cp_rows rows)
{
    cp_op *op = &m->prog.ops[m->prog.n_ops++];
    memset(op, 0, sizeof(*op));
    op->kind = kind;
    op->rows = rows;
    return op;
}

static cp_op *linear(self_model *m, cp_mat in, cp_rows rows)
{
    cp_op *op = record(m, CP_OP_LINEAR, rows);
    op->u.linear.in = in;
    op->u.linear.add = op->u.linear.x_out = op->u.linear.mul = -1;
    op->u.linear.add_norm = op->u.linear.norm = -1;
    op->u.linear.eps = 1e-5f;
    op->u.linear.in_scale = op->u.linear.scale = 1.0f;
    return op;
}

static void product(cp_op *op, cp_wref w, cp_mat out)
{
    int i = op->u.linear.n_w++;
    op->u.linear.w[i].w = w;
    op->u.linear.w[i].bias = -1;
    op->u.linear.w[i].out = out;
}

static void embed(self_model *m, cp_dtype type, cp_mat out, int d, int vocab)
{
    cp_op *op = record(m, CP_OP_EMBED, CP_ROWS_ALL);
    op->u.embed.out = out;
    op->u.embed.table = weight(m, type, d, vocab, CP_ROLE_EMBED);
    op->u.embed.scale = 1.0f;
    op->u.embed.in = op->u.embed.norm = -1;
}

static void rope(self_model *m, cp_mat out, int n_rot)
{
    cp_op *op = record(m, CP_OP_ROPE, CP_ROWS_ALL);
    for (int i = 0; i < n_rot / 2; i++)
        m->inv_freq[i] = powf(10000.0f, -2.0f * (float)i / (float)n_rot);
    op->u.rope.out = out;
    op->u.rope.n_rot = n_rot;
    op->u.rope.inv_freq = m->inv_freq;
    op->u.rope.mscale = 1.0f;
}

/* The tables of a program of at most so many records, matrices and weights; vectors of ones. */
static void open_program(self_model *m, int ops, int mats, int weights, int floats)
{
    m->prog.ops = cp_xcalloc((size_t)ops, sizeof(cp_op));
    m->prog.mats = cp_xcalloc((size_t)mats, sizeof(*m->prog.mats));
    m->prog.weights = cp_xcalloc((size_t)weights, sizeof(cp_weight));
    m->tensors = cp_xcalloc((size_t)weights, sizeof(cp_tensor));
    m->prog.logits = -1;
    float *f = cp_xcalloc((size_t)floats, sizeof(float));
    for (int i = 0; i < floats; i++)
        f[i] = 1.0f + 0.01f * (float)(i % 7);
    m->floats = f;
}

/* One layer, from the residual x and the branch y (not yet added where first) to the next y. */
static void layer(self_model *m, cp_dtype type, int l, cp_mat x[2], cp_mat y, cp_mat angles)
{
    const self_shape *s = &m->shape;
    begin_layer(m);
    int q_width = s->n_heads * s->head, kv_width = s->n_kv * s->head;
    cp_mat q = mat(m, q_width, CP_ROWS_ALL), k = mat(m, kv_width, CP_ROWS_ALL),
           v = mat(m, kv_width, CP_ROWS_ALL), att = mat(m, q_width, CP_ROWS_ALL),
           ff = mat(m, s->ff, CP_ROWS_ALL);
    for (int half = 0; half < 2; half++) {
        cp_op *op = linear(m, x[0], CP_ROWS_ALL);
        op->u.linear.norm = weight(m, CP_DTYPE_F32, s->d, 1, CP_ROLE_VECTOR);
        if (l || half) {
            op->u.linear.add = y;
            op->u.linear.x_out = x[1];
            x[1] = x[0];
            x[0] = op->u.linear.x_out;
        }
        if (half) {
            op->u.linear.act = CP_ACT_SILU;
            product(op, weight(m, type, s->d, s->ff, CP_ROLE_LINEAR), ff);
            product(op, weight(m, type, s->d, s->ff, CP_ROLE_LINEAR), -1);
            product(linear(m, ff, CP_ROWS_ALL), weight(m, type, s->ff, s->d, CP_ROLE_LINEAR), y);
            return;
        }
        product(op, weight(m, type, s->d, q_width, CP_ROLE_LINEAR), q);
        product(op, weight(m, type, s->d, kv_width, CP_ROLE_LINEAR), k);
        product(op, weight(m, type, s->d, kv_width, CP_ROLE_LINEAR), v);
        op = record(m, CP_OP_ATTENTION, CP_ROWS_ALL);
        op->u.attention.q = q;
        op->u.attention.k = k;
        op->u.attention.v = v;
        op->u.attention.out = att;
        op->u.attention.rope = angles;
        op->u.attention.rope_kind = CP_ROPE_NEOX;
        op->u.attention.n_rot = s->head;
        op->u.attention.sinks = -1;
        /* normed heads: random ones would all look at a single key */
        op->u.attention.q_norm = weight(m, CP_DTYPE_F32, s->head, 1, CP_ROLE_VECTOR);
        op->u.attention.k_norm = weight(m, CP_DTYPE_F32, s->head, 1, CP_ROLE_VECTOR);
        op->u.attention.eps = 1e-5f;
        op->u.attention.scale = 1.0f / (float)s->head;
        op->u.attention.n_heads = s->n_heads;
        op->u.attention.n_kv = s->n_kv;
        op->u.attention.k_dim = op->u.attention.v_dim = s->head;
        op->u.attention.layer_in_group = l;
        product(linear(m, att, CP_ROWS_ALL), weight(m, type, q_width, s->d, CP_ROLE_LINEAR), y);
    }
}

static void head(self_model *m, cp_dtype type, cp_mat x, cp_mat y)
{
    const self_shape *s = &m->shape;
    cp_mat at[2] = {mat(m, s->d, CP_ROWS_OUT), mat(m, s->d, CP_ROWS_OUT)};
    for (int i = 0; i < 2; i++) {
        cp_op *op = record(m, CP_OP_GATHER, CP_ROWS_OUT);
        op->u.gather.in = i ? y : x;
        op->u.gather.out = at[i];
    }
    m->prog.n_vocab = s->vocab;
    m->prog.logits = mat(m, s->vocab, CP_ROWS_OUT);
    cp_op *op = linear(m, at[0], CP_ROWS_OUT);
    op->u.linear.add = at[1];
    op->u.linear.norm = weight(m, CP_DTYPE_F32, s->d, 1, CP_ROLE_VECTOR);
    product(op, weight(m, type, s->d, s->vocab, CP_ROLE_LINEAR), m->prog.logits);
}

/* Bytes of the largest matrix. */
static size_t most_bytes(const self_shape *s, cp_dtype type)
{
    size_t most = 0;
    const int shapes[][2] = {{s->d, s->vocab},
                             {s->d, s->ff},
                             {s->ff, s->d},
                             {s->n_heads * s->head, s->d},
                             {s->d, s->n_heads * s->head}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        cp_tensor t = {.type = type, .ne = {shapes[i][0], shapes[i][1], 1, 1}};
        size_t n = (size_t)shapes[i][1] * cp_tensor_row_bytes(&t);
        most = n > most ? n : most;
    }
    return most;
}

cp_code cp_self_model_new(self_model *m, const self_shape *s, cp_dtype type, uint64_t seed,
                          cp_err *err)
{
    memset(m, 0, sizeof(*m));
    m->shape = *s;
    int weights = 11 * s->n_layers + 4;
    open_program(m, 5 * s->n_layers + 6, 5 * s->n_layers + 8, weights, s->d);
    cp_code rc =
        make_bytes(m, type, most_bytes(s, type) + (size_t)weights * apart(type), seed, err);
    if (rc != CP_OK)
        return rc;
    m->prog.groups[m->prog.n_groups++] =
        (cp_kv_group){CP_GROUP_FULL, s->n_layers, s->n_kv, s->head, s->head, 0, 0};
    cp_mat x[2] = {mat(m, s->d, CP_ROWS_ALL), mat(m, s->d, CP_ROWS_ALL)};
    cp_mat y = mat(m, s->d, CP_ROWS_ALL), angles = mat(m, s->head, CP_ROWS_ALL);
    embed(m, type, x[0], s->d, s->vocab);
    rope(m, angles, s->head);
    for (int l = 0; l < s->n_layers; l++)
        layer(m, type, l, x, y, angles);
    head(m, type, x[0], y);
    return CP_OK;
}

cp_code cp_self_linears_new(self_model *m, cp_dtype type, int k, int outputs, int n, uint64_t seed,
                            cp_err *err)
{
    memset(m, 0, sizeof(*m));
    m->shape.vocab = 256;
    open_program(m, n + 1, 2, n + 1, 1);
    cp_tensor t = {.type = type, .ne = {k, outputs > 256 ? outputs : 256, 1, 1}};
    size_t bytes = (size_t)t.ne[1] * cp_tensor_row_bytes(&t) + (size_t)(n + 1) * apart(type);
    cp_code rc = make_bytes(m, type, bytes, seed, err);
    if (rc != CP_OK)
        return rc;
    cp_mat in = mat(m, k, CP_ROWS_ALL), out = mat(m, outputs, CP_ROWS_ALL);
    embed(m, type, in, k, 256);
    for (int i = 0; i < n; i++)
        product(linear(m, in, CP_ROWS_ALL), weight(m, type, k, outputs, CP_ROLE_LINEAR), out);
    return CP_OK;
}

void cp_self_ropes_new(self_model *m, int n)
{
    memset(m, 0, sizeof(*m));
    open_program(m, n, 1, 1, 1);
    cp_mat out = mat(m, 64, CP_ROWS_ALL);
    for (int i = 0; i < n; i++)
        rope(m, out, 64);
}

void cp_self_model_free(self_model *m)
{
    free(m->prog.ops);
    free(m->prog.mats);
    free(m->prog.weights);
    free(m->tensors);
    free(m->bytes);
    free(m->floats);
    memset(m, 0, sizeof(*m));
}
