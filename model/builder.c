/*
 * The program builder: hyper-parameters + tensors -> a flat program. One walk over the layers; what
 * differs between architectures is read from the row's traits. A residual add is never an operation
 * by itself: a branch is written to a matrix of its own, and the next LINEAR's prologue adds (and
 * norms) it, so that a dense layer is five operations: qkv, attention, o_proj, gate_up, down. After
 * the last layer's mixer only the rows that want an output go on.
 */
#include "model/builder.h"

#include "base/mem.h"
#include "model/arch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MATS    64
#define MAX_WEIGHTS (16 * CP_MAX_LAYERS)
#define MAX_OPS     (8 * CP_MAX_LAYERS)

typedef struct builder {
    cp_program *g;
    const cp_params *p;
    const cp_loaded *file;
    cp_err *err;
    cp_code rc; /* sticky: the first failure */
    const char *tags[MAX_MATS];
    cp_mat x, other, branch; /* residual stream, its twin, the branch to be added (-1: none) */
    cp_wref branch_norm;
    cp_rows rows;
    cp_mat rope_full, rope_window;
    int layer;
} builder;

/* ---- matrices, weights, operations ---- */

/* The matrix of a use: same tag, width and rows share one. */
static cp_mat mat(builder *b, const char *tag, int width)
{
    cp_program *g = b->g;
    for (int i = 0; i < g->n_mats; i++) {
        if (b->tags[i] == tag && g->mats[i].width == width && g->mats[i].rows == b->rows) {
            return (cp_mat)i;
        }
    }
    if (g->n_mats == MAX_MATS) {
        if (!b->rc) {
            b->rc = cp_fail(b->err, CP_UNSUPPORTED,
                            "layer shapes differ too much: more than %d buffers", MAX_MATS);
        }
        return 0;
    }
    b->tags[g->n_mats] = tag;
    g->mats[g->n_mats].width = width;
    g->mats[g->n_mats].rows = b->rows;
    return (cp_mat)g->n_mats++;
}

static const char *const T_X0 = "x0", *const T_X1 = "x1", *const T_Q = "q", *const T_K = "k",
                         *const T_V = "v", *const T_MIX = "mix", *const T_BRANCH = "branch",
                         *const T_FF = "ff", *const T_BCX = "bcx", *const T_ROPE_F = "rope full",
                         *const T_ROPE_W = "rope window", *const T_LOGITS = "logits";

/* Weight `name` with shape {ne0, ne1} (ne1 0: a vector); -1 and a failure when required and absent.
 */
static cp_wref weight(builder *b, const char *name, cp_role role, int64_t ne0, int64_t ne1,
                      bool required)
{
    const cp_tensor *t = cp_loaded_find(b->file, name);
    if (b->rc) {
        return -1;
    }
    if (!t) {
        if (required) {
            b->rc = cp_fail(b->err, CP_CORRUPT, "tensor '%s' is missing", name);
        }
        return -1;
    }
    int64_t want1 = ne1 ? ne1 : 1;
    if (t->ne[0] != ne0 || t->ne[1] != want1 || t->ne[2] != 1 || t->ne[3] != 1) {
        b->rc = cp_fail(b->err, CP_CORRUPT,
                        "tensor '%s' has shape [%lld, %lld, %lld, %lld], expected [%lld, %lld]",
                        name, (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                        (long long)t->ne[3], (long long)ne0, (long long)want1);
        return -1;
    }
    if (role == CP_ROLE_VECTOR && t->type != CP_DTYPE_F32) {
        b->rc = cp_fail(b->err, CP_UNSUPPORTED, "tensor '%s' is %s; vectors must be F32", name,
                        cp_dtype_info((uint32_t)t->type)->name);
        return -1;
    }
    cp_program *g = b->g;
    CP_ASSERT(g->n_weights < MAX_WEIGHTS);
    g->weights[g->n_weights] = (cp_weight){t, role};
    return (cp_wref)g->n_weights++;
}

static cp_wref layer_weight(builder *b, const char *suffix, cp_role role, int64_t ne0, int64_t ne1,
                            bool required)
{
    char name[96];
    cp_snprintf(name, sizeof name, "blk.%d.%s", b->layer, suffix);
    return weight(b, name, role, ne0, ne1, required);
}

static cp_op *op(builder *b, cp_op_kind kind)
{
    CP_ASSERT(b->g->n_ops < MAX_OPS);
    cp_op *o = &b->g->ops[b->g->n_ops++];
    memset(o, 0, sizeof *o);
    o->kind = kind;
    o->rows = b->rows;
    o->layer = b->layer;
    return o;
}

static cp_op *linear(builder *b, cp_mat in)
{
    cp_op *o = op(b, CP_OP_LINEAR);
    o->u.linear.in = in;
    o->u.linear.add = o->u.linear.x_out = -1;
    o->u.linear.add_norm = o->u.linear.norm = -1;
    o->u.linear.eps = b->p->eps;
    o->u.linear.scale = 1.0f;
    return o;
}

/* A linear over the normed residual stream; takes in the pending branch first. */
static cp_op *stream_linear(builder *b, cp_wref norm)
{
    cp_op *o = linear(b, b->x);
    o->u.linear.norm = norm;
    if (b->branch >= 0) {
        o->u.linear.add = b->branch;
        o->u.linear.add_norm = b->branch_norm;
        o->u.linear.x_out = b->other;
        cp_mat t = b->x;
        b->x = b->other;
        b->other = t;
        b->branch = -1;
        b->branch_norm = -1;
    }
    return o;
}

static void add_weight(builder *b, cp_op *o, const char *name, int64_t k, int64_t n, cp_mat out)
{
    char full[64];
    cp_snprintf(full, sizeof full, "%s.weight", name);
    int i = o->u.linear.n_w++;
    o->u.linear.w[i].w = layer_weight(b, full, CP_ROLE_LINEAR, k, n, true);
    cp_snprintf(full, sizeof full, "%s.bias", name);
    o->u.linear.w[i].bias = layer_weight(b, full, CP_ROLE_VECTOR, n, 0, false);
    o->u.linear.w[i].out = out;
}

/* ---- layers ---- */

static void rope_op(builder *b, const char *tag, const float *inv, cp_mat *out)
{
    cp_op *o = op(b, CP_OP_ROPE);
    o->u.rope.out = *out = mat(b, tag, b->p->n_rot);
    o->u.rope.n_rot = b->p->n_rot;
    o->u.rope.inv_freq = inv;
    o->u.rope.mscale = 1.0f;
}

static cp_mat attention_layer(builder *b, cp_wref norm, const int group[2])
{
    const cp_params *p = b->p;
    const cp_layer_params *l = &p->layer[b->layer];
    int64_t d = p->pub.d_model, nq = (int64_t)l->n_heads * p->head_dim_k,
            nk = (int64_t)l->n_kv * p->head_dim_k, nv = (int64_t)l->n_kv * p->head_dim_v;
    cp_mat q = mat(b, T_Q, (int)nq), k = mat(b, T_K, (int)nk), v = mat(b, T_V, (int)nv);
    cp_op *o = stream_linear(b, norm);
    add_weight(b, o, "attn_q", d, nq, q);
    add_weight(b, o, "attn_k", d, nk, k);
    add_weight(b, o, "attn_v", d, nv, v);

    cp_mat mix = mat(b, T_MIX, l->n_heads * p->head_dim_v);
    cp_op *a = op(b, CP_OP_ATTENTION);
    a->u.attention.q = q;
    a->u.attention.k = k;
    a->u.attention.v = v;
    a->u.attention.out = mix;
    a->u.attention.rope = l->window ? b->rope_window : b->rope_full;
    a->u.attention.rope_kind = a->u.attention.rope < 0 ? CP_ROPE_NONE : p->arch->rope;
    a->u.attention.n_rot = p->n_rot;
    a->u.attention.q_norm = a->u.attention.k_norm = a->u.attention.sinks = -1;
    if (p->arch->qk_norm) {
        a->u.attention.q_norm =
            layer_weight(b, "attn_q_norm.weight", CP_ROLE_VECTOR, p->head_dim_k, 0, true);
        a->u.attention.k_norm =
            layer_weight(b, "attn_k_norm.weight", CP_ROLE_VECTOR, p->head_dim_k, 0, true);
    }
    a->u.attention.eps = p->eps;
    a->u.attention.scale = p->attn_scale != 0.0f ? p->attn_scale
                           : p->arch->attn_scale ? p->arch->attn_scale(p)
                                                 : (float)(1.0 / sqrt(p->head_dim_k));
    a->u.attention.n_heads = l->n_heads;
    a->u.attention.n_kv = l->n_kv;
    a->u.attention.k_dim = p->head_dim_k;
    a->u.attention.v_dim = p->head_dim_v;
    a->u.attention.window = l->window ? p->window : 0;
    a->u.attention.group = group[0];
    a->u.attention.layer_in_group = group[1];
    return mix;
}

static cp_mat conv_layer(builder *b, cp_wref norm, const int group[2])
{
    int d = b->p->pub.d_model;
    cp_mat bcx = mat(b, T_BCX, 3 * d), mix = mat(b, T_MIX, d);
    add_weight(b, stream_linear(b, norm), "shortconv.in_proj", d, 3LL * d, bcx);
    cp_op *o = op(b, CP_OP_SHORTCONV);
    o->u.shortconv.in = bcx;
    o->u.shortconv.out = mix;
    o->u.shortconv.conv =
        layer_weight(b, "shortconv.conv.weight", CP_ROLE_VECTOR, b->p->l_cache, d, true);
    o->u.shortconv.d = d;
    o->u.shortconv.l_cache = b->p->l_cache;
    o->u.shortconv.group = group[0];
    o->u.shortconv.layer_in_group = group[1];
    return mix;
}

/* From here on only the rows that want an output: gather the mixer's output and what the residual
 * stream still needs. */
static cp_mat to_output_rows(builder *b, cp_mat mix)
{
    int d = b->p->pub.d_model, width = b->g->mats[mix].width;
    cp_mat from[2] = {mix, b->x}, to[2];
    const char *tag[2] = {T_MIX, T_X0};
    CP_ASSERT(b->branch < 0);
    for (int i = 0; i < 2; i++) {
        b->rows = CP_ROWS_OUT;
        to[i] = mat(b, tag[i], i ? d : width);
        cp_op *o = op(b, CP_OP_GATHER);
        o->u.gather.in = from[i];
        o->u.gather.out = to[i];
    }
    b->x = to[1];
    b->other = mat(b, T_X1, d);
    return to[0];
}

static void layer(builder *b, const int group[2])
{
    const cp_params *p = b->p;
    const cp_layer_params *l = &p->layer[b->layer];
    int d = p->pub.d_model;
    cp_wref norm = layer_weight(b, "attn_norm.weight", CP_ROLE_VECTOR, d, 0, true);
    bool conv = l->n_kv == 0;
    cp_mat mix = conv ? conv_layer(b, norm, group) : attention_layer(b, norm, group);
    int mix_width = b->g->mats[mix].width;
    if (b->layer == p->pub.n_layers - 1) {
        mix = to_output_rows(b, mix);
    }
    cp_mat branch = mat(b, T_BRANCH, d);
    add_weight(b, linear(b, mix), conv ? "shortconv.out_proj" : "attn_output", mix_width, d,
               branch);
    b->branch = branch;
    if (p->arch->post_norms) {
        b->branch_norm = layer_weight(b, "post_attention_norm.weight", CP_ROLE_VECTOR, d, 0, true);
    }

    cp_op *o = stream_linear(b, layer_weight(b, "ffn_norm.weight", CP_ROLE_VECTOR, d, 0, true));
    cp_mat ff = mat(b, T_FF, l->d_ff);
    o->u.linear.act = p->arch->act;
    add_weight(b, o, "ffn_gate", d, l->d_ff, ff);
    add_weight(b, o, "ffn_up", d, l->d_ff, ff);
    add_weight(b, linear(b, ff), "ffn_down", l->d_ff, d, branch);
    b->branch = branch;
    if (p->arch->post_norms) {
        b->branch_norm = layer_weight(b, "post_ffw_norm.weight", CP_ROLE_VECTOR, d, 0, true);
    }
}

/* ---- the whole ---- */

static void head(builder *b)
{
    const cp_params *p = b->p;
    char name[64];
    int d = p->pub.d_model, vocab = p->pub.n_vocab;
    b->layer = -1;
    cp_snprintf(name, sizeof name, "%s.weight", p->arch->final_norm);
    cp_op *o = stream_linear(b, weight(b, name, CP_ROLE_VECTOR, d, 0, true));
    const char *w =
        cp_loaded_find(b->file, "output.weight") ? "output.weight" : "token_embd.weight";
    b->g->logits = mat(b, T_LOGITS, vocab);
    o->u.linear.n_w = 1;
    o->u.linear.w[0].w = weight(b, w, CP_ROLE_LINEAR, d, vocab, true);
    o->u.linear.w[0].bias = -1;
    o->u.linear.w[0].out = b->g->logits;
    o->u.linear.x_out = -1; /* nobody reads the stream after the head */
}

cp_code cp_program_build(cp_program *g, const cp_params *p, const cp_loaded *file,
                         const float *inv_full, const float *inv_window, cp_err *err)
{
    memset(g, 0, sizeof *g);
    g->ops = cp_xcalloc(MAX_OPS, sizeof *g->ops);
    g->mats = cp_xcalloc(MAX_MATS, sizeof *g->mats);
    g->weights = cp_xcalloc(MAX_WEIGHTS, sizeof *g->weights);
    g->n_vocab = p->pub.n_vocab;
    builder b = {.g = g,
                 .p = p,
                 .file = file,
                 .err = err,
                 .branch = -1,
                 .branch_norm = -1,
                 .rows = CP_ROWS_ALL,
                 .rope_full = -1,
                 .rope_window = -1,
                 .layer = -1};
    int place[CP_MAX_LAYERS][2];
    cp_code rc = cp_layer_groups(g, p, place, err);
    if (rc) {
        return rc;
    }
    int d = p->pub.d_model;
    b.x = mat(&b, T_X0, d);
    b.other = mat(&b, T_X1, d);
    cp_op *o = op(&b, CP_OP_EMBED);
    o->u.embed.out = b.x;
    o->u.embed.table = weight(&b, "token_embd.weight", CP_ROLE_EMBED, d, p->pub.n_vocab, true);
    o->u.embed.scale = p->arch->embed_sqrt_d ? (float)sqrt(d) : 1.0f;
    if (p->n_rot) {
        rope_op(&b, T_ROPE_F, inv_full, &b.rope_full);
        b.rope_window = b.rope_full;
        if (p->window) {
            rope_op(&b, T_ROPE_W, inv_window, &b.rope_window);
        }
    }
    for (b.layer = 0; b.layer < p->pub.n_layers && !b.rc; b.layer++) {
        layer(&b, place[b.layer]);
    }
    if (!b.rc) {
        head(&b);
    }
    return b.rc;
}

void cp_program_fini(cp_program *g)
{
    free(g->ops);
    free(g->mats);
    free(g->weights);
    memset(g, 0, sizeof *g);
}
