/*
 * Mixers: what a layer does between positions. Each appends the projections of the normed stream
 * and the record that mixes them.
 */
#include "model/build.h"

#include "base/mem.h"
#include "model/arch.h"

#include <math.h>

/* Q of the layer at hand, and K and V where it has its own; returns Q. */
static cp_mat project(cp_build *b, cp_wref norm, cp_mat *k, cp_mat *v)
{
    const cp_layer_params *l = &b->p->layer[b->layer];
    int64_t d = b->p->pub.d_model,
            nq = (int64_t)l->n_heads * (l->k_dim + (b->p->arch->attn_gate ? l->v_dim : 0)),
            nk = (int64_t)l->n_kv * l->k_dim, nv = (int64_t)l->n_kv * l->v_dim;
    cp_op *o = cp_build_stream_linear(b, norm);
    cp_mat q = cp_build_mat(b, "q", (int)nq);
    cp_build_add_weight(b, o, "attn_q", d, nq, q);
    if (!k) {
        return q;
    }
    char name[64];
    *k = cp_build_mat(b, "k", (int)nk);
    cp_build_add_weight(b, o, "attn_k", d, nk, *k);
    cp_snprintf(name, sizeof name, "blk.%d.attn_v.weight", b->layer);
    if (b->p->arch->k_eq_v && nk == nv && !cp_loaded_find(b->file, name)) {
        *v = *k;
        return q;
    }
    *v = cp_build_mat(b, "v", (int)nv);
    cp_build_add_weight(b, o, "attn_v", d, nv, *v);
    return q;
}

cp_mat cp_build_attention(cp_build *b, cp_wref norm, const int place[2], const char **out_proj)
{
    const cp_model_params *p = b->p;
    const cp_layer_params *l = &p->layer[b->layer];
    bool own = l->kv_from == b->layer; /* has K and V of its own */
    cp_mat mix = cp_build_mat(b, "mix", l->n_heads * l->v_dim), k = -1, v = -1;
    cp_mat q = project(b, norm, own ? &k : NULL, &v);
    cp_op *a = cp_build_op(b, CP_OP_ATTENTION);
    a->u.attention.q = q;
    a->u.attention.k = k;
    a->u.attention.v = v;
    a->u.attention.out = mix;
    a->u.attention.rope = l->window ? b->rope_window : b->rope_full;
    a->u.attention.rope_kind = a->u.attention.rope < 0 ? CP_ROPE_NONE : p->arch->rope;
    a->u.attention.n_rot = l->window ? p->n_rot_window : p->n_rot;
    a->u.attention.gated = p->arch->attn_gate;
    a->u.attention.q_norm = a->u.attention.k_norm = a->u.attention.sinks = -1;
    if (p->arch->sinks) {
        a->u.attention.sinks =
            cp_build_layer_weight(b, "attn_sinks.weight", CP_ROLE_VECTOR, l->n_heads, 0, true);
    }
    if (p->arch->qk_norm) {
        a->u.attention.q_norm =
            cp_build_layer_weight(b, "attn_q_norm.weight", CP_ROLE_VECTOR, l->k_dim, 0, true);
    }
    if (p->arch->qk_norm && own) {
        a->u.attention.k_norm =
            cp_build_layer_weight(b, "attn_k_norm.weight", CP_ROLE_VECTOR, l->k_dim, 0, true);
    }
    a->u.attention.v_norm = p->arch->v_norm && own;
    a->u.attention.eps = p->eps;
    a->u.attention.scale = p->attn_scale != 0.0f ? p->attn_scale
                           : p->arch->attn_scale ? p->arch->attn_scale(p)
                                                 : (float)(1.0 / sqrt(l->k_dim));
    a->u.attention.n_heads = l->n_heads;
    a->u.attention.n_kv = l->n_kv;
    a->u.attention.k_dim = l->k_dim;
    a->u.attention.v_dim = l->v_dim;
    a->u.attention.window = l->window ? p->window : 0;
    a->u.attention.group = place[0];
    a->u.attention.layer_in_group = place[1];
    *out_proj = "attn_output";
    return mix;
}

cp_mat cp_build_shortconv(cp_build *b, cp_wref norm, const int place[2], const char **out_proj)
{
    int d = b->p->pub.d_model;
    cp_mat bcx = cp_build_mat(b, "bcx", 3 * d), mix = cp_build_mat(b, "mix", d);
    cp_build_add_weight(b, cp_build_stream_linear(b, norm), "shortconv.in_proj", d, 3LL * d, bcx);
    cp_op *o = cp_build_op(b, CP_OP_SHORTCONV);
    o->u.shortconv.in = bcx;
    o->u.shortconv.out = mix;
    o->u.shortconv.conv =
        cp_build_layer_weight(b, "shortconv.conv.weight", CP_ROLE_VECTOR, b->p->l_cache, d, true);
    o->u.shortconv.d = d;
    o->u.shortconv.l_cache = b->p->l_cache;
    o->u.shortconv.group = place[0];
    o->u.shortconv.layer_in_group = place[1];
    *out_proj = "shortconv.out_proj";
    return mix;
}

cp_mat cp_build_deltanet(cp_build *b, cp_wref norm, const int place[2], const char **out_proj)
{
    const cp_delta_shape *s = &b->p->delta;
    int d = b->p->pub.d_model, wide = (int)cp_delta_channels(s), n_z = s->n_v * s->v_dim;
    cp_mat qkv = cp_build_mat(b, "delta qkv", wide), z = cp_build_mat(b, "delta z", n_z),
           alpha = cp_build_mat(b, "delta alpha", s->n_v),
           beta = cp_build_mat(b, "delta beta", s->n_v);
    cp_op *o = cp_build_stream_linear(b, norm);
    cp_build_add_weight(b, o, "attn_qkv", d, wide, qkv);
    cp_build_add_weight(b, o, "attn_gate", d, n_z, z);
    cp_build_add_weight(b, o, "ssm_alpha", d, s->n_v, alpha);
    cp_build_add_weight(b, o, "ssm_beta", d, s->n_v, beta);

    cp_mat mixed = cp_build_mat(b, "delta mixed", wide),
           gates = cp_build_mat(b, "delta gates", 2 * s->n_v), mix = cp_build_mat(b, "mix", n_z);
    o = cp_build_op(b, CP_OP_DELTAPREP);
    o->u.deltaprep.in = qkv;
    o->u.deltaprep.alpha = alpha;
    o->u.deltaprep.beta = beta;
    o->u.deltaprep.out = mixed;
    o->u.deltaprep.gates = gates;
    o->u.deltaprep.conv =
        cp_build_layer_weight(b, "ssm_conv1d.weight", CP_ROLE_VECTOR, s->taps, wide, true);
    o->u.deltaprep.a = cp_build_layer_weight(b, "ssm_a", CP_ROLE_VECTOR, s->n_v, 0, true);
    o->u.deltaprep.dt = cp_build_layer_weight(b, "ssm_dt.bias", CP_ROLE_VECTOR, s->n_v, 0, true);
    o->u.deltaprep.eps = 1e-6f; /* whatever the norms' is */
    o->u.deltaprep.scale = (float)(1.0 / sqrt(s->k_dim));
    o->u.deltaprep.shape = *s;
    o->u.deltaprep.group = place[0];
    o->u.deltaprep.layer_in_group = place[1];

    o = cp_build_op(b, CP_OP_DELTANET);
    o->u.deltanet.in = mixed;
    o->u.deltanet.gates = gates;
    o->u.deltanet.z = z;
    o->u.deltanet.out = mix;
    o->u.deltanet.norm =
        cp_build_layer_weight(b, "ssm_norm.weight", CP_ROLE_VECTOR, s->v_dim, 0, true);
    o->u.deltanet.eps = b->p->eps;
    o->u.deltanet.shape = *s;
    o->u.deltanet.group = place[0];
    o->u.deltanet.layer_in_group = place[1];
    *out_proj = "ssm_out";
    return mix;
}
