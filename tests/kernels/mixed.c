/*
 * mixed: see mixed.h.
 */
#include "tests/kernels/mixed.h"

enum { D = 64, HEADS = 4, KV = 2, HEAD = 16, FF = 96, VOCAB = MIXED_VOCAB, WINDOW = MIXED_WINDOW };

static const float inv_freq[HEAD / 2] = {1.0f,  0.31623f,   0.1f,   0.031623f,
                                         0.01f, 0.0031623f, 0.001f, 0.00031623f};

/* Residual x[i] and branch y: the first LINEAR of a block adds y to x and writes the next x. */
typedef struct model {
    cp_mat x[2], y, rope, q, k, v, att, ff, conv_in, conv_out;
    int cur;
    bool has_y;
} model;

static cp_op *block_in(rig *r, model *m)
{
    cp_op *op = rig_linear(r, m->x[m->cur], 0, 0, CP_ROWS_ALL);
    op->u.linear.norm = rig_vector(r, D, 1);
    if (m->has_y) {
        op->u.linear.add = m->y;
        op->u.linear.x_out = m->x[1 - m->cur];
        m->cur = 1 - m->cur;
        if (rig_random(r, 2))
            op->u.linear.add_norm = rig_vector(r, D, 1);
    }
    m->has_y = true;
    return op;
}

/* A second row of each token, mixed into the first: a device leaves such a table in its file. */
static void embed_block(rig *r, model *m)
{
    cp_op *op = rig_op(r, CP_OP_EMBED, CP_ROWS_ALL);
    op->u.embed.in = m->x[m->cur];
    m->cur = 1 - m->cur;
    op->u.embed.out = m->x[m->cur];
    op->u.embed.table = rig_weight(r, CP_DTYPE_Q8_0, D, VOCAB, CP_ROLE_EMBED);
    op->u.embed.norm = rig_vector(r, D / 4, 1);
    op->u.embed.eps = 1e-6f;
    op->u.embed.scale = 8.0f;
    op->u.embed.mix = 0.70710678f;
}

static void attention_block(rig *r, model *m, int group, int window)
{
    cp_op *op = block_in(r, m);
    static const int widths[3] = {HEADS * HEAD, KV * HEAD, KV * HEAD};
    cp_mat outs[3] = {m->q, m->k, m->v};
    op->u.linear.n_w = 3;
    for (int i = 0; i < 3; i++) {
        op->u.linear.w[i].w =
            rig_weight(r, i == 2 ? CP_DTYPE_Q5_0 : CP_DTYPE_Q4_1, D, widths[i], CP_ROLE_LINEAR);
        op->u.linear.w[i].bias = -1;
        op->u.linear.w[i].out = outs[i];
    }
    op = rig_op(r, CP_OP_ATTENTION, CP_ROWS_ALL);
    op->u.attention.q = m->q;
    op->u.attention.k = m->k;
    op->u.attention.v = m->v;
    op->u.attention.out = m->att;
    op->u.attention.rope = m->rope;
    op->u.attention.rope_kind = window ? CP_ROPE_NEOX : CP_ROPE_NORM;
    op->u.attention.n_rot = HEAD;
    op->u.attention.q_norm = window ? rig_vector(r, HEAD, 1) : (cp_wref)-1;
    op->u.attention.k_norm = window ? rig_vector(r, HEAD, 1) : (cp_wref)-1;
    op->u.attention.sinks = -1;
    op->u.attention.eps = 1e-5f;
    op->u.attention.scale = 0.25f;
    op->u.attention.n_heads = HEADS;
    op->u.attention.n_kv = KV;
    op->u.attention.k_dim = op->u.attention.v_dim = HEAD;
    op->u.attention.window = window;
    op->u.attention.group = group;
    rig_linear(r, m->att, rig_weight(r, CP_DTYPE_Q8_0, HEADS * HEAD, D, CP_ROLE_LINEAR), m->y,
               CP_ROWS_ALL);
}

static void ffn_block(rig *r, model *m)
{
    cp_op *op = block_in(r, m);
    op->u.linear.act = CP_ACT_GELU_TANH;
    op->u.linear.n_w = 2;
    for (int i = 0; i < 2; i++) {
        op->u.linear.w[i].w = rig_weight(r, CP_DTYPE_Q4_0, D, FF, CP_ROLE_LINEAR);
        op->u.linear.w[i].bias = -1;
        op->u.linear.w[i].out = i ? (cp_mat)-1 : m->ff;
    }
    rig_linear(r, m->ff, rig_weight(r, CP_DTYPE_F32, FF, D, CP_ROLE_LINEAR), m->y, CP_ROWS_ALL);
}

/* Eight experts of which three are used, and one that all rows share, gated. */
static void experts_block(rig *r, model *m)
{
    enum { N = 8, USED = 3, FFE = 32 };
    cp_mat logits = rig_mat(r, N, CP_ROWS_ALL), gate = rig_mat(r, 1, CP_ROWS_ALL);
    cp_mat ids = rig_mat(r, USED, CP_ROWS_ALL), weights = rig_mat(r, USED, CP_ROWS_ALL);
    cp_mat ff = rig_mat(r, USED * FFE, CP_ROWS_ALL), parts = rig_mat(r, USED * D, CP_ROWS_ALL);
    cp_op *op = block_in(r, m);
    op->u.linear.n_w = 2;
    for (int i = 0; i < 2; i++) {
        op->u.linear.w[i].w = rig_weight(r, CP_DTYPE_F32, D, i ? 1 : N, CP_ROLE_LINEAR);
        op->u.linear.w[i].bias = -1;
        op->u.linear.w[i].out = i ? gate : logits;
    }
    cp_wref norm = op->u.linear.norm;
    op = rig_op(r, CP_OP_ROUTE, CP_ROWS_ALL);
    op->u.route.in = logits;
    op->u.route.ids = ids;
    op->u.route.weights = weights;
    op->u.route.bias = op->u.route.expert_scale = -1;
    op->u.route.gate = CP_GATE_SOFTMAX;
    op->u.route.n_groups = op->u.route.n_groups_used = 1;
    op->u.route.normalize = true;
    op->u.route.scale = 1.0f;
    for (int down = 0; down < 2; down++) {
        op = rig_op(r, CP_OP_EXPERTS, CP_ROWS_ALL);
        op->u.experts.in = down ? ff : m->x[m->cur];
        op->u.experts.ids = ids;
        op->u.experts.out = down ? parts : ff;
        op->u.experts.by_rank = down;
        op->u.experts.norm = down ? (cp_wref)-1 : norm;
        op->u.experts.eps = 1e-5f;
        op->u.experts.act = down ? CP_ACT_NONE : CP_ACT_SILU;
        for (int i = 0; i < 2 - down; i++) {
            op->u.experts.w[i].w = down ? rig_experts(r, CP_DTYPE_Q8_0, FFE, D, N)
                                        : rig_experts(r, CP_DTYPE_Q4_0, D, FFE, N);
            op->u.experts.w[i].bias = down ? rig_vector(r, D, N) : (cp_wref)-1;
        }
    }
    op = rig_linear(r, m->x[m->cur], rig_weight(r, CP_DTYPE_Q4_0, D, D, CP_ROLE_LINEAR),
                    m->conv_out, CP_ROWS_ALL);
    op->u.linear.norm = norm;
    op = rig_op(r, CP_OP_SUM, CP_ROWS_ALL);
    op->u.sum.in = parts;
    op->u.sum.weights = weights;
    op->u.sum.out = m->y;
    op->u.sum.shared = m->conv_out;
    op->u.sum.gate = gate;
}

static void conv_block(rig *r, model *m, int group)
{
    cp_op *op = block_in(r, m);
    op->u.linear.w[0].w = rig_weight(r, CP_DTYPE_Q8_0, D, 3 * D, CP_ROLE_LINEAR);
    op->u.linear.w[0].out = m->conv_in;
    op = rig_op(r, CP_OP_SHORTCONV, CP_ROWS_ALL);
    op->u.shortconv.in = m->conv_in;
    op->u.shortconv.out = m->conv_out;
    op->u.shortconv.conv = rig_vector(r, 3, D);
    op->u.shortconv.d = D;
    op->u.shortconv.l_cache = 3;
    op->u.shortconv.group = group;
    rig_linear(r, m->conv_out, rig_weight(r, CP_DTYPE_Q8_0, D, D, CP_ROLE_LINEAR), m->y,
               CP_ROWS_ALL);
}

void mixed_build(rig *r, int dense)
{
    model m = {.cur = 0};
    for (int i = 0; i < 2; i++)
        m.x[i] = rig_mat(r, D, CP_ROWS_ALL);
    m.y = rig_mat(r, D, CP_ROWS_ALL);
    m.rope = rig_mat(r, HEAD, CP_ROWS_ALL);
    m.q = rig_mat(r, HEADS * HEAD, CP_ROWS_ALL);
    m.k = rig_mat(r, KV * HEAD, CP_ROWS_ALL);
    m.v = rig_mat(r, KV * HEAD, CP_ROWS_ALL);
    m.att = rig_mat(r, HEADS * HEAD, CP_ROWS_ALL);
    m.ff = rig_mat(r, FF, CP_ROWS_ALL);
    m.conv_in = rig_mat(r, 3 * D, CP_ROWS_ALL);
    m.conv_out = rig_mat(r, D, CP_ROWS_ALL);
    cp_op *op = rig_op(r, CP_OP_EMBED, CP_ROWS_ALL);
    op->u.embed.out = m.x[0];
    op->u.embed.table = rig_weight(r, CP_DTYPE_Q8_0, D, VOCAB, CP_ROLE_EMBED);
    op->u.embed.scale = 8.0f;
    op = rig_op(r, CP_OP_ROPE, CP_ROWS_ALL);
    op->u.rope.out = m.rope;
    op->u.rope.n_rot = HEAD;
    op->u.rope.inv_freq = inv_freq;
    op->u.rope.mscale = 1.0f;
    for (int i = 0; i < dense; i++) {
        int g = rig_group(r, (cp_kv_group){CP_GROUP_FULL, 1, KV, HEAD, HEAD, 0, 0});
        attention_block(r, &m, g, 0);
        ffn_block(r, &m);
    }
    if (!dense) {
        int full = rig_group(r, (cp_kv_group){CP_GROUP_FULL, 1, KV, HEAD, HEAD, 0, 0});
        int window = rig_group(r, (cp_kv_group){CP_GROUP_WINDOW, 1, KV, HEAD, HEAD, WINDOW, 0});
        int state = rig_group(r, (cp_kv_group){.kind = CP_GROUP_STATE,
                                               .n_layers = 1,
                                               .state_bytes = 2 * D * sizeof(float)});
        embed_block(r, &m);
        attention_block(r, &m, window, WINDOW);
        ffn_block(r, &m);
        conv_block(r, &m, state);
        attention_block(r, &m, full, 0);
        experts_block(r, &m);
    }
    cp_mat gx = rig_mat(r, D, CP_ROWS_OUT), gy = rig_mat(r, D, CP_ROWS_OUT);
    op = rig_op(r, CP_OP_GATHER, CP_ROWS_OUT);
    op->u.gather.in = m.x[m.cur];
    op->u.gather.out = gx;
    op = rig_op(r, CP_OP_GATHER, CP_ROWS_OUT);
    op->u.gather.in = m.y;
    op->u.gather.out = gy;
    r->prog.n_vocab = VOCAB;
    r->prog.logits = rig_mat(r, VOCAB, CP_ROWS_OUT);
    op = rig_linear(r, gx, rig_weight(r, CP_DTYPE_Q8_0, D, VOCAB, CP_ROLE_LINEAR), r->prog.logits,
                    CP_ROWS_OUT);
    op->u.linear.add = gy;
    op->u.linear.norm = rig_vector(r, D, 1);
}
