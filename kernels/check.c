/*
 * The one check of a program before any backend runs it. The builder in model/ makes programs, so a
 * failure here is a bug or a shape that kernels cannot do; either way it must be found at load and
 * named, not in a step. Checked: every index, the widths that meet, weight shapes and roles, that
 * no record writes a matrix it reads (workers of the cpu backend may still read it), and page
 * geometry.
 */
#include "kernels/backend.h"

typedef struct check {
    const cp_backend *b;
    const cp_program *p;
    const cp_prepare_config *cfg;
    int op; /* index, for messages */
    cp_err *err;
} check;

const char *const cp_op_names[CP_OP_COUNT] = {
#define X(kind, name) [CP_OP_##kind] = #name,
    CP_OPS(X)
#undef X
};

static cp_code bad(const check *c, const char *what, long got, long want)
{
    const cp_op *op = &c->p->ops[c->op];
    return cp_fail(c->err, CP_UNSUPPORTED,
                   "program: record %d (%s, layer %d): %s is %ld; wanted %ld", c->op,
                   cp_op_names[op->kind], op->layer, what, got, want);
}

/* Matrix m exists, is `width` wide and has the record's rows. width < 0: any. */
static cp_code mat_is(const check *c, cp_mat m, long width, cp_rows rows, const char *what)
{
    if (m < 0 || m >= c->p->n_mats)
        return bad(c, what, m, c->p->n_mats - 1);
    if (width >= 0 && c->p->mats[m].width != width)
        return bad(c, what, c->p->mats[m].width, width);
    if (c->p->mats[m].rows != rows)
        return bad(c, what, (long)c->p->mats[m].rows, (long)rows);
    return CP_OK;
}

/* Weight w exists and is a vector of n (times rows) elements; -1 passes. */
static cp_code vector_is(const check *c, cp_wref w, long n, long rows, const char *what)
{
    if (w == -1)
        return CP_OK;
    if (w < 0 || w >= c->p->n_weights)
        return bad(c, what, w, c->p->n_weights - 1);
    const cp_weight *x = &c->p->weights[w];
    if (x->role != CP_ROLE_VECTOR)
        return bad(c, what, (long)x->role, (long)CP_ROLE_VECTOR);
    if (x->t->ne[0] != n)
        return bad(c, what, (long)x->t->ne[0], n);
    if (x->t->ne[1] * x->t->ne[2] * x->t->ne[3] != rows)
        return bad(c, what, (long)(x->t->ne[1] * x->t->ne[2] * x->t->ne[3]), rows);
    return CP_OK;
}

#define TRY(e)                                                                                     \
    do {                                                                                           \
        cp_code rc_ = (e);                                                                         \
        if (rc_ != CP_OK)                                                                          \
            return rc_;                                                                            \
    } while (0)

/* A gate that a matrix is multiplied with, in the place of a second weight. */
static cp_code check_mul(const check *c, const cp_op *op)
{
    cp_mat mul = op->u.linear.mul, out = op->u.linear.w[0].out;
    TRY(mat_is(c, mul, -1, op->rows, "mul"));
    if (op->u.linear.act == CP_ACT_NONE || op->u.linear.n_w != 1)
        return bad(c, "n_w of a gate with mul", op->u.linear.n_w, 1);
    if (op->u.linear.scale != 1.0f || op->u.linear.softcap != 0.0f)
        return bad(c, "scale and softcap beside mul", 1, 0);
    if (mul == out || mul == op->u.linear.x_out)
        return bad(c, "mul (it aliases out or x_out)", mul, -1);
    long width = c->p->mats[mul].width, at = op->u.linear.mul_at;
    if (out < 0 || out >= c->p->n_mats)
        return bad(c, "out", out, c->p->n_mats - 1);
    if (at < 0 || at > width - c->p->mats[out].width)
        return bad(c, "mul_at", at, width - c->p->mats[out].width);
    return CP_OK;
}

static cp_code check_linear(const check *c, const cp_op *op)
{
    long k = 0, width = 0;
    TRY(mat_is(c, op->u.linear.in, -1, op->rows, "in"));
    k = c->p->mats[op->u.linear.in].width;
    if (op->u.linear.add >= 0)
        TRY(mat_is(c, op->u.linear.add, k, op->rows, "add"));
    if (op->u.linear.x_out >= 0) {
        TRY(mat_is(c, op->u.linear.x_out, k, op->rows, "x_out"));
        if (op->u.linear.x_out == op->u.linear.in || op->u.linear.x_out == op->u.linear.add)
            return bad(c, "x_out (it aliases in or add)", op->u.linear.x_out, -1);
    }
    TRY(vector_is(c, op->u.linear.add_norm, k, 1, "add_norm"));
    TRY(vector_is(c, op->u.linear.norm, k, 1, "norm"));
    int n_w = op->u.linear.n_w;
    if (n_w < 1 || n_w > 4)
        return bad(c, "n_w", n_w, 4);
    bool glu = op->u.linear.act != CP_ACT_NONE;
    if (op->u.linear.mul >= 0)
        TRY(check_mul(c, op));
    else if (glu && n_w != 2)
        return bad(c, "n_w of a gated record", n_w, 2);
    for (int i = 0; i < n_w; i++) {
        cp_wref w = op->u.linear.w[i].w;
        if (w < 0 || w >= c->p->n_weights)
            return bad(c, "weight", w, c->p->n_weights - 1);
        const cp_weight *x = &c->p->weights[w];
        if (x->role != CP_ROLE_LINEAR)
            return bad(c, "weight role", (long)x->role, (long)CP_ROLE_LINEAR);
        if (!cp_backend_supports(c->b, CP_ROLE_LINEAR, x->t->type))
            return cp_fail(c->err, CP_UNSUPPORTED, "tensor %s: type %d is not supported",
                           x->t->name, (int)x->t->type);
        if (x->t->ne[0] != k)
            return bad(c, "weight inputs", (long)x->t->ne[0], k);
        if (x->t->ne[2] != 1 || x->t->ne[3] != 1)
            return bad(c, "matrices of a weight", (long)(x->t->ne[2] * x->t->ne[3]), 1);
        TRY(vector_is(c, op->u.linear.w[i].bias, (long)x->t->ne[1], 1, "bias"));
        if (glu && i == 1) {
            if (x->t->ne[1] != width)
                return bad(c, "up outputs", (long)x->t->ne[1], width);
            continue;
        }
        width = (long)x->t->ne[1];
        cp_mat out = op->u.linear.w[i].out;
        TRY(mat_is(c, out, width, op->rows, "out"));
        if (out == op->u.linear.in || out == op->u.linear.add || out == op->u.linear.x_out)
            return bad(c, "out (it aliases in, add or x_out)", out, -1);
        for (int j = 0; j < i; j++)
            if (op->u.linear.w[j].out == out)
                return bad(c, "out (it aliases another out)", out, -1);
    }
    return CP_OK;
}

/* Does an earlier record write K and V of the place that op reads? */
static bool written_before(const check *c, const cp_op *op)
{
    for (int i = 0; i < c->op; i++) {
        const cp_op *o = &c->p->ops[i];
        if (o->kind == CP_OP_ATTENTION && o->u.attention.k >= 0 &&
            o->u.attention.group == op->u.attention.group &&
            o->u.attention.layer_in_group == op->u.attention.layer_in_group)
            return true;
    }
    return false;
}

static cp_code check_attention(const check *c, const cp_op *op)
{
    long heads = op->u.attention.n_heads, kv = op->u.attention.n_kv;
    long kd = op->u.attention.k_dim, vd = op->u.attention.v_dim;
    bool writes = op->u.attention.k >= 0 || op->u.attention.v >= 0;
    if (writes && op->rows != CP_ROWS_ALL)
        return bad(c, "rows", (long)op->rows, (long)CP_ROWS_ALL);
    if (kv < 1 || heads < kv || heads % kv)
        return bad(c, "n_heads % n_kv", kv < 1 ? -1 : heads % kv, 0);
    if (kd < 2 || kd % 2 || vd < 2 || vd % 2)
        return bad(c, "head width (even)", kd % 2 || kd < 2 ? kd : vd, 2);
    TRY(mat_is(c, op->u.attention.q, heads * cp_attention_q_width(op), op->rows, "q"));
    if (writes) {
        TRY(mat_is(c, op->u.attention.k, kv * kd, CP_ROWS_ALL, "k"));
        TRY(mat_is(c, op->u.attention.v, kv * vd, CP_ROWS_ALL, "v"));
    } else if (op->u.attention.k_norm >= 0 || op->u.attention.v_norm) {
        return bad(c, "k_norm or v_norm without k and v", 1, 0);
    }
    TRY(mat_is(c, op->u.attention.out, heads * vd, op->rows, "out"));
    cp_mat out = op->u.attention.out;
    if (out == op->u.attention.q || out == op->u.attention.k || out == op->u.attention.v)
        return bad(c, "out (it aliases q, k or v)", out, -1);
    if (op->u.attention.rope_kind != CP_ROPE_NONE) {
        if (op->u.attention.n_rot < 2 || op->u.attention.n_rot > kd || op->u.attention.n_rot % 2)
            return bad(c, "n_rot", op->u.attention.n_rot, kd);
        TRY(mat_is(c, op->u.attention.rope, op->u.attention.n_rot, op->rows, "rope"));
    }
    TRY(vector_is(c, op->u.attention.q_norm, kd, 1, "q_norm"));
    TRY(vector_is(c, op->u.attention.k_norm, kd, 1, "k_norm"));
    TRY(vector_is(c, op->u.attention.sinks, heads, 1, "sinks"));
    int group = op->u.attention.group;
    if (group < 0 || group >= c->p->n_groups)
        return bad(c, "group", group, c->p->n_groups - 1);
    const cp_kv_group *g = &c->p->groups[group];
    if (g->kind == CP_GROUP_STATE || g->n_kv != kv || g->k_dim != kd || g->v_dim != vd)
        return bad(c, "group's n_kv", g->n_kv, kv);
    if (g->kind == CP_GROUP_WINDOW && op->u.attention.window != g->window)
        return bad(c, "window", op->u.attention.window, g->window);
    if (op->u.attention.window < 0)
        return bad(c, "window", op->u.attention.window, 0);
    if (op->u.attention.layer_in_group < 0 || op->u.attention.layer_in_group >= g->n_layers)
        return bad(c, "layer_in_group", op->u.attention.layer_in_group, g->n_layers - 1);
    if (!writes && !written_before(c, op))
        return bad(c, "layer_in_group (nothing writes it before)", op->u.attention.layer_in_group,
                   -1);
    return CP_OK;
}

/* The layer's part of a STATE group, of at least `bytes`. */
static cp_code state_is(const check *c, int group, int layer, size_t bytes)
{
    if (group < 0 || group >= c->p->n_groups || c->p->groups[group].kind != CP_GROUP_STATE)
        return bad(c, "group", group, c->p->n_groups - 1);
    const cp_kv_group *g = &c->p->groups[group];
    if (layer < 0 || layer >= g->n_layers)
        return bad(c, "layer_in_group", layer, g->n_layers - 1);
    if (g->state_bytes % 64 || g->state_bytes < bytes)
        return bad(c, "state_bytes", (long)g->state_bytes, (long)bytes);
    return CP_OK;
}

static cp_code check_shortconv(const check *c, const cp_op *op)
{
    int d = op->u.shortconv.d, taps = op->u.shortconv.l_cache;
    if (op->rows != CP_ROWS_ALL)
        return bad(c, "rows", (long)op->rows, (long)CP_ROWS_ALL);
    if (taps < 1 || taps > CP_CONV_TAPS_MAX)
        return bad(c, "l_cache", taps, CP_CONV_TAPS_MAX);
    TRY(mat_is(c, op->u.shortconv.in, 3L * d, CP_ROWS_ALL, "in"));
    TRY(mat_is(c, op->u.shortconv.out, d, CP_ROWS_ALL, "out"));
    if (op->u.shortconv.conv < 0)
        return bad(c, "conv", op->u.shortconv.conv, 0);
    TRY(vector_is(c, op->u.shortconv.conv, taps, d, "conv"));
    return state_is(c, op->u.shortconv.group, op->u.shortconv.layer_in_group,
                    (size_t)(taps - 1) * (size_t)d * sizeof(float));
}

static cp_code shape_is(const check *c, const cp_delta_shape *s)
{
    if (s->n_k < 1 || s->n_v < s->n_k || s->n_v % s->n_k)
        return bad(c, "n_v % n_k", s->n_k < 1 ? -1 : s->n_v % s->n_k, 0);
    if (s->k_dim < 1 || s->k_dim > CP_DELTA_DIM_MAX)
        return bad(c, "k_dim", s->k_dim, CP_DELTA_DIM_MAX);
    if (s->v_dim < 1 || s->v_dim > CP_DELTA_DIM_MAX)
        return bad(c, "v_dim", s->v_dim, CP_DELTA_DIM_MAX);
    if (s->taps < 1 || s->taps > CP_CONV_TAPS_MAX)
        return bad(c, "taps", s->taps, CP_CONV_TAPS_MAX);
    return CP_OK;
}

static cp_code check_route(const check *c, const cp_op *op)
{
    long n = 0, n_used = 0, groups = op->u.route.n_groups, kept = op->u.route.n_groups_used;
    TRY(mat_is(c, op->u.route.in, -1, op->rows, "in"));
    n = c->p->mats[op->u.route.in].width;
    if (n < 1 || n > CP_EXPERTS_MAX)
        return bad(c, "experts", n, CP_EXPERTS_MAX);
    TRY(mat_is(c, op->u.route.ids, -1, op->rows, "ids"));
    n_used = c->p->mats[op->u.route.ids].width;
    TRY(mat_is(c, op->u.route.weights, n_used, op->rows, "weights"));
    if (op->u.route.ids == op->u.route.in || op->u.route.weights == op->u.route.in ||
        op->u.route.weights == op->u.route.ids)
        return bad(c, "weights or ids (they alias)", op->u.route.weights, -1);
    if (groups < 1 || n % groups)
        return bad(c, "groups, experts left over", groups < 1 ? groups : n % groups, 0);
    if (kept < 1 || kept > groups)
        return bad(c, "groups used", kept, groups);
    if (n_used < 1 || n_used > n / groups * kept)
        return bad(c, "experts used", n_used, n / groups * kept);
    if (op->u.route.gate < CP_GATE_SOFTMAX || op->u.route.gate > CP_GATE_SQRT_SOFTPLUS)
        return bad(c, "gate", (long)op->u.route.gate, CP_GATE_SOFTMAX);
    TRY(vector_is(c, op->u.route.bias, n, 1, "bias"));
    return vector_is(c, op->u.route.expert_scale, n, 1, "expert_scale");
}

/* Weight i of EXPERTS: k inputs, at least m outputs after the first. */
static cp_code check_expert_weight(const check *c, const cp_op *op, int i, long k, long m)
{
    cp_wref w = op->u.experts.w[i].w;
    long first = op->u.experts.w[i].first;
    if (w < 0 || w >= c->p->n_weights)
        return bad(c, "weight", w, c->p->n_weights - 1);
    const cp_weight *x = &c->p->weights[w];
    if (x->role != CP_ROLE_LINEAR)
        return bad(c, "weight role", (long)x->role, (long)CP_ROLE_LINEAR);
    if (!cp_backend_supports(c->b, CP_ROLE_LINEAR, x->t->type))
        return cp_fail(c->err, CP_UNSUPPORTED, "tensor %s: type %d is not supported", x->t->name,
                       (int)x->t->type);
    if (x->t->ne[0] != k)
        return bad(c, "weight inputs", (long)x->t->ne[0], k);
    if (x->t->ne[2] < 1 || x->t->ne[2] > CP_EXPERTS_MAX || x->t->ne[3] != 1)
        return bad(c, "experts of a weight", (long)x->t->ne[2], CP_EXPERTS_MAX);
    if (first < 0 || first % 16 || first > x->t->ne[1] || m > x->t->ne[1] - first)
        return bad(c, "weight outputs", (long)x->t->ne[1] - first, m);
    return vector_is(c, op->u.experts.w[i].bias, (long)x->t->ne[1], (long)x->t->ne[2], "bias");
}

static cp_code check_experts(const check *c, const cp_op *op)
{
    const struct cp_mat_desc *mats = c->p->mats;
    cp_mat in = op->u.experts.in, ids = op->u.experts.ids, out = op->u.experts.out;
    TRY(mat_is(c, in, -1, op->rows, "in"));
    TRY(mat_is(c, ids, -1, op->rows, "ids"));
    TRY(mat_is(c, out, -1, op->rows, "out"));
    if (out == in || out == ids)
        return bad(c, "out (it aliases in or ids)", out, -1);
    int n_used = mats[ids].width;
    if (n_used < 1)
        return bad(c, "ids' width", n_used, 1);
    if (mats[out].width % n_used)
        return bad(c, "out's width, left over", mats[out].width % n_used, 0);
    if (op->u.experts.by_rank && mats[in].width % n_used)
        return bad(c, "in's width, left over", mats[in].width % n_used, 0);
    int k = mats[in].width / (op->u.experts.by_rank ? n_used : 1), m = mats[out].width / n_used;
    if (op->u.experts.norm >= 0 && op->u.experts.by_rank)
        return bad(c, "norm (in has a part a rank)", op->u.experts.norm, -1);
    TRY(vector_is(c, op->u.experts.norm, k, 1, "norm"));
    for (int i = 0; i < (op->u.experts.act == CP_ACT_NONE ? 1 : 2); i++) {
        TRY(check_expert_weight(c, op, i, k, m));
        long n = (long)c->p->weights[op->u.experts.w[i].w].t->ne[2];
        long n0 = (long)c->p->weights[op->u.experts.w[0].w].t->ne[2];
        if (n != n0 || n < n_used)
            return bad(c, "experts of a weight", n, n != n0 ? n0 : n_used);
    }
    return CP_OK;
}

static cp_code check_sum(const check *c, const cp_op *op)
{
    cp_mat in = op->u.sum.in, weights = op->u.sum.weights, out = op->u.sum.out;
    TRY(mat_is(c, out, -1, op->rows, "out"));
    TRY(mat_is(c, weights, -1, op->rows, "weights"));
    TRY(mat_is(c, in, (long)c->p->mats[weights].width * c->p->mats[out].width, op->rows, "in"));
    if (op->u.sum.shared >= 0)
        TRY(mat_is(c, op->u.sum.shared, c->p->mats[out].width, op->rows, "shared"));
    if (op->u.sum.gate >= 0)
        TRY(mat_is(c, op->u.sum.gate, 1, op->rows, "gate"));
    if (op->u.sum.gate >= 0 && op->u.sum.shared < 0)
        return bad(c, "shared (there is a gate)", op->u.sum.shared, 0);
    bool norms = op->u.sum.norm >= 0;
    if (norms != (op->u.sum.shared_norm >= 0))
        return bad(c, "norm beside shared_norm", op->u.sum.norm, op->u.sum.shared_norm);
    if (norms && (op->u.sum.shared < 0 || op->u.sum.gate >= 0))
        return bad(c, "gate (there are norms of two summands)", op->u.sum.gate, -1);
    TRY(vector_is(c, op->u.sum.norm, c->p->mats[out].width, 1, "norm"));
    TRY(vector_is(c, op->u.sum.shared_norm, c->p->mats[out].width, 1, "shared_norm"));
    if (out == in || out == weights || out == op->u.sum.shared || out == op->u.sum.gate)
        return bad(c, "out (it aliases what is read)", out, -1);
    return CP_OK;
}

/* A vector that must be there. */
static cp_code has_vector(const check *c, cp_wref w, long n, long rows, const char *what)
{
    return w == -1 ? bad(c, what, w, 0) : vector_is(c, w, n, rows, what);
}

static cp_code check_deltaprep(const check *c, const cp_op *op)
{
    const cp_delta_shape *s = &op->u.deltaprep.shape;
    if (op->rows != CP_ROWS_ALL)
        return bad(c, "rows", (long)op->rows, (long)CP_ROWS_ALL);
    TRY(shape_is(c, s));
    long d = (long)cp_delta_channels(s);
    TRY(mat_is(c, op->u.deltaprep.in, d, CP_ROWS_ALL, "in"));
    TRY(mat_is(c, op->u.deltaprep.alpha, s->n_v, CP_ROWS_ALL, "alpha"));
    TRY(mat_is(c, op->u.deltaprep.beta, s->n_v, CP_ROWS_ALL, "beta"));
    TRY(mat_is(c, op->u.deltaprep.out, d, CP_ROWS_ALL, "out"));
    TRY(mat_is(c, op->u.deltaprep.gates, 2L * s->n_v, CP_ROWS_ALL, "gates"));
    TRY(has_vector(c, op->u.deltaprep.conv, s->taps, d, "conv"));
    TRY(has_vector(c, op->u.deltaprep.a, s->n_v, 1, "a"));
    TRY(has_vector(c, op->u.deltaprep.dt, s->n_v, 1, "dt"));
    cp_mat out = op->u.deltaprep.out;
    if (out == op->u.deltaprep.in)
        return bad(c, "out (it aliases in)", out, -1);
    return state_is(c, op->u.deltaprep.group, op->u.deltaprep.layer_in_group, cp_delta_state_at(s));
}

static cp_code check_deltanet(const check *c, const cp_op *op)
{
    const cp_delta_shape *s = &op->u.deltanet.shape;
    if (op->rows != CP_ROWS_ALL)
        return bad(c, "rows", (long)op->rows, (long)CP_ROWS_ALL);
    TRY(shape_is(c, s));
    TRY(mat_is(c, op->u.deltanet.in, (long)cp_delta_channels(s), CP_ROWS_ALL, "in"));
    TRY(mat_is(c, op->u.deltanet.gates, 2L * s->n_v, CP_ROWS_ALL, "gates"));
    TRY(mat_is(c, op->u.deltanet.z, (long)s->n_v * s->v_dim, CP_ROWS_ALL, "z"));
    TRY(mat_is(c, op->u.deltanet.out, (long)s->n_v * s->v_dim, CP_ROWS_ALL, "out"));
    TRY(has_vector(c, op->u.deltanet.norm, s->v_dim, 1, "norm"));
    cp_mat out = op->u.deltanet.out;
    if (out == op->u.deltanet.in || out == op->u.deltanet.z || out == op->u.deltanet.gates)
        return bad(c, "out (it aliases in, gates or z)", out, -1);
    return state_is(c, op->u.deltanet.group, op->u.deltanet.layer_in_group,
                    cp_delta_state_bytes(s));
}

static cp_code check_embed(const check *c, const cp_op *op)
{
    cp_wref w = op->u.embed.table;
    if (w < 0 || w >= c->p->n_weights)
        return bad(c, "table", w, c->p->n_weights - 1);
    const cp_tensor *t = c->p->weights[w].t;
    if (!cp_backend_supports(c->b, CP_ROLE_EMBED, t->type))
        return cp_fail(c->err, CP_UNSUPPORTED, "tensor %s: type %d is not supported", t->name,
                       (int)t->type);
    TRY(mat_is(c, op->u.embed.out, (long)t->ne[0], CP_ROWS_ALL, "out"));
    if (op->u.embed.in < 0)
        return CP_OK;
    TRY(mat_is(c, op->u.embed.in, (long)t->ne[0], CP_ROWS_ALL, "in"));
    if (op->u.embed.in == op->u.embed.out)
        return bad(c, "out (it aliases in)", op->u.embed.out, -1);
    w = op->u.embed.norm;
    if (w < 0 || w >= c->p->n_weights)
        return bad(c, "norm", w, c->p->n_weights - 1);
    long span = (long)c->p->weights[w].t->ne[0];
    if (span < 1 || t->ne[0] % span)
        return bad(c, "columns beyond whole spans of norm", span < 1 ? span : t->ne[0] % span, 0);
    return vector_is(c, w, span, 1, "norm");
}

static cp_code check_rope(const check *c, const cp_op *op)
{
    if (op->u.rope.n_rot < 2 || op->u.rope.n_rot % 2)
        return bad(c, "n_rot", op->u.rope.n_rot, 2);
    return mat_is(c, op->u.rope.out, op->u.rope.n_rot, CP_ROWS_ALL, "out");
}

static cp_code check_gather(const check *c, const cp_op *op)
{
    TRY(mat_is(c, op->u.gather.in, -1, CP_ROWS_ALL, "in"));
    return mat_is(c, op->u.gather.out, c->p->mats[op->u.gather.in].width, CP_ROWS_OUT, "out");
}

/* Backends put it behind the program. */
static cp_code check_sample(const check *c, const cp_op *op)
{
    return bad(c, "its place (behind all programs)", (long)(op - c->p->ops), c->p->n_ops);
}

static cp_code (*const checks[CP_OP_COUNT])(const check *c, const cp_op *op) = {
#define X(kind, name) [CP_OP_##kind] = check_##name,
    CP_OPS(X)
#undef X
};

static cp_code check_op(const check *c, const cp_op *op)
{
    if ((unsigned)op->kind >= CP_OP_COUNT)
        return cp_fail(c->err, CP_UNSUPPORTED, "program: record %d has unknown kind %d", c->op,
                       (int)op->kind);
    return checks[op->kind](c, op);
}

cp_code cp_program_check(const cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                         cp_err *err)
{
    if (cfg->max_rows < 1 || cfg->max_out < 0 || cfg->max_seqs < 1)
        return cp_fail(err, CP_INVALID_VALUE, "prepare: %d rows, %d outputs, %d sequences",
                       cfg->max_rows, cfg->max_out, cfg->max_seqs);
    if (cfg->kv_type != CP_DTYPE_BF16 && cfg->kv_type != CP_DTYPE_F16)
        return cp_fail(err, CP_UNSUPPORTED, "prepare: KV type %d; built: BF16, F16",
                       (int)cfg->kv_type);
    if (prog->n_groups < 0 || prog->n_groups > CP_MAX_GROUPS)
        return cp_fail(err, CP_UNSUPPORTED, "program: %d layer groups; allowed: up to %d",
                       prog->n_groups, CP_MAX_GROUPS);
    int P = cfg->page_positions;
    for (int i = 0; i < prog->n_groups; i++) {
        const cp_kv_group *g = &prog->groups[i];
        if (g->kind == CP_GROUP_STATE)
            continue;
        if (P < 16 || P > CP_SPLIT || CP_SPLIT % P)
            return cp_fail(err, CP_INVALID_VALUE,
                           "prepare: %d positions a page; allowed: 16 to %d, dividing it", P,
                           CP_SPLIT);
    }
    check c = {b, prog, cfg, 0, err};
    for (int i = 0; i < prog->n_ops; i++) {
        c.op = i;
        TRY(check_op(&c, &prog->ops[i]));
    }
    if (prog->logits >= prog->n_mats ||
        (prog->logits >= 0 && (prog->mats[prog->logits].width != prog->n_vocab ||
                               prog->mats[prog->logits].rows != CP_ROWS_OUT)))
        return cp_fail(err, CP_UNSUPPORTED,
                       "program: logits matrix %d is not %d wide, a row an output", prog->logits,
                       prog->n_vocab);
    return CP_OK;
}
