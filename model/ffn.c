/*
 * Feed-forwards: what a layer does within a position.
 */
#include "model/build.h"

#include "base/mem.h"
#include "model/arch.h"

#include <math.h>

static cp_wref pre_norm(cp_build *b)
{
    char name[64];
    const char *norm = b->p->arch->ffn_norm;
    cp_snprintf(name, sizeof name, "%s.weight", norm ? norm : "ffn_norm");
    return cp_build_layer_weight(b, name, CP_ROLE_VECTOR, b->p->pub.d_model, 0, true);
}

void cp_build_dense_ffn(cp_build *b, cp_mat branch)
{
    const cp_model_params *p = b->p;
    int d = p->pub.d_model, d_ff = p->layer[b->layer].d_ff;
    cp_op *o = cp_build_stream_linear(b, pre_norm(b));
    cp_mat ff = cp_build_mat(b, "ff", d_ff);
    o->u.linear.act = p->arch->act;
    cp_build_add_weight(b, o, "ffn_gate", d, d_ff, ff);
    cp_build_add_weight(b, o, "ffn_up", d, d_ff, ff);
    cp_build_add_weight(b, cp_build_linear(b, ff), "ffn_down", d_ff, d, branch);
}

/* ---- a mixture of experts: router, ROUTE, EXPERTS (gate and up, down), the shared expert, SUM
 * ----
 */

/* The router takes the branch into the stream; with a shared expert its gate as well (*gate, -1:
 * none). */
static cp_mat router(cp_build *b, cp_wref norm, cp_mat *gate)
{
    int d = b->p->pub.d_model, n = b->p->pub.n_experts;
    cp_op *o = cp_build_stream_linear(b, norm);
    cp_mat logits = cp_build_mat(b, "router", n);
    cp_build_add_weight(b, o, "ffn_gate_inp", d, n, logits);
    *gate = -1;
    char name[96];
    cp_snprintf(name, sizeof name, "blk.%d.ffn_gate_inp_shexp.weight", b->layer);
    if (b->p->experts.d_ff_shared && cp_loaded_find(b->file, name)) {
        *gate = cp_build_mat(b, "shared gate", 1);
        cp_build_add_weight(b, o, "ffn_gate_inp_shexp", d, 1, *gate);
    }
    return logits;
}

static cp_op *route(cp_build *b, cp_mat logits)
{
    const cp_expert_params *e = &b->p->experts;
    cp_op *o = cp_build_op(b, CP_OP_ROUTE);
    o->u.route.in = logits;
    o->u.route.ids = cp_build_mat(b, "expert ids", e->n_used);
    o->u.route.weights = cp_build_mat(b, "expert weights", e->n_used);
    o->u.route.bias =
        cp_build_layer_weight(b, "exp_probs_b.bias", CP_ROLE_VECTOR, b->p->pub.n_experts, 0, false);
    o->u.route.expert_scale = -1;
    o->u.route.gate = e->gate;
    o->u.route.n_groups = e->n_groups;
    o->u.route.n_groups_used = e->n_groups_used;
    o->u.route.normalize = e->normalize;
    o->u.route.scale = e->scale;
    return o;
}

static cp_op *experts(cp_build *b, cp_mat in, cp_mat ids, cp_mat out)
{
    cp_op *o = cp_build_op(b, CP_OP_EXPERTS);
    o->u.experts.in = in;
    o->u.experts.ids = ids;
    o->u.experts.out = out;
    o->u.experts.norm = -1;
    o->u.experts.eps = b->p->eps;
    return o;
}

static void add_expert_weight(cp_build *b, cp_op *o, int i, const char *name, int64_t k, int64_t n)
{
    char full[64];
    cp_snprintf(full, sizeof full, "%s.weight", name);
    o->u.experts.w[i].w = cp_build_expert_weight(b, full, k, n, true);
    cp_snprintf(full, sizeof full, "%s.bias", name);
    o->u.experts.w[i].bias =
        cp_build_layer_weight(b, full, CP_ROLE_VECTOR, n, b->p->pub.n_experts, false);
}

/* Gate and up are two tensors, or the halves of one. */
static void gate_and_up(cp_build *b, cp_op *o)
{
    int d = b->p->pub.d_model, d_ff = b->p->experts.d_ff;
    char name[96];
    cp_snprintf(name, sizeof name, "blk.%d.ffn_gate_up_exps.weight", b->layer);
    o->u.experts.act = b->p->arch->act;
    if (!cp_loaded_find(b->file, name)) {
        add_expert_weight(b, o, 0, "ffn_gate_exps", d, d_ff);
        add_expert_weight(b, o, 1, "ffn_up_exps", d, d_ff);
        return;
    }
    if (d_ff % 16 && !b->rc) {
        b->rc = cp_fail(b->err, CP_UNSUPPORTED,
                        "tensor '%s': %d outputs of gate; supported: multiples of 16", name, d_ff);
    }
    add_expert_weight(b, o, 0, "ffn_gate_up_exps", d, 2LL * d_ff);
    o->u.experts.w[1] = o->u.experts.w[0];
    o->u.experts.w[1].first = d_ff;
}

/* The expert that all rows go through; -1: none. */
static cp_mat shared_expert(cp_build *b, cp_wref norm)
{
    int d = b->p->pub.d_model, d_ff = b->p->experts.d_ff_shared;
    if (!d_ff) {
        return -1;
    }
    cp_mat ff = cp_build_mat(b, "shared ff", d_ff), out = cp_build_mat(b, "shared", d);
    cp_op *o = cp_build_linear(b, b->x);
    o->u.linear.norm = norm;
    o->u.linear.act = b->p->arch->act;
    cp_build_add_weight(b, o, "ffn_gate_shexp", d, d_ff, ff);
    cp_build_add_weight(b, o, "ffn_up_shexp", d, d_ff, ff);
    cp_build_add_weight(b, cp_build_linear(b, ff), "ffn_down_shexp", d_ff, d, out);
    return out;
}

/* What the experts that `r` chose make of the stream under `norm`, from gate to SUM, which is
 * returned. */
static cp_op *chosen(cp_build *b, const cp_op *r, cp_wref norm, cp_mat shared, cp_mat out)
{
    const cp_expert_params *e = &b->p->experts;
    int d = b->p->pub.d_model;
    cp_mat ids = r->u.route.ids, weights = r->u.route.weights;
    cp_mat ff = cp_build_mat(b, "expert ff", e->n_used * e->d_ff);
    cp_mat parts = cp_build_mat(b, "expert parts", e->n_used * d);
    cp_op *o = experts(b, b->x, ids, ff);
    o->u.experts.norm = norm;
    gate_and_up(b, o);
    o = experts(b, ff, ids, parts);
    o->u.experts.by_rank = true;
    add_expert_weight(b, o, 0, "ffn_down_exps", e->d_ff, d);
    o = cp_build_op(b, CP_OP_SUM);
    o->u.sum.in = parts;
    o->u.sum.weights = weights;
    o->u.sum.out = out;
    o->u.sum.shared = shared;
    o->u.sum.gate = -1;
    return o;
}

void cp_build_experts_ffn(cp_build *b, cp_mat branch)
{
    cp_wref norm = pre_norm(b);
    cp_mat gate, logits = router(b, norm, &gate);
    const cp_op *r = route(b, logits);
    chosen(b, r, norm, shared_expert(b, norm), branch)->u.sum.gate = gate;
}

/* ---- both: a dense feed-forward and experts over the same stream, each under norms of its own; so
 * is the router, which divides by the root of d ---- */

static cp_wref norm_of(cp_build *b, const char *name)
{
    return cp_build_layer_weight(b, name, CP_ROLE_VECTOR, b->p->pub.d_model, 0, true);
}

void cp_build_both_ffns(cp_build *b, cp_mat branch)
{
    int d = b->p->pub.d_model, n = b->p->pub.n_experts;
    cp_mat dense = cp_build_mat(b, "dense", d), logits = cp_build_mat(b, "router", n);
    cp_build_dense_ffn(b, dense);
    cp_op *o = cp_build_linear(b, b->x);
    o->u.linear.norm = norm_of(b, "ffn_gate_inp.scale");
    o->u.linear.scale = (float)(1.0 / sqrt(d));
    cp_build_add_weight(b, o, "ffn_gate_inp", d, n, logits);
    o = route(b, logits);
    o->u.route.expert_scale =
        cp_build_layer_weight(b, "ffn_down_exps.scale", CP_ROLE_VECTOR, n, 0, false);
    o = chosen(b, o, norm_of(b, "pre_ffw_norm_2.weight"), dense, branch);
    o->u.sum.norm = norm_of(b, "post_ffw_norm_2.weight");
    o->u.sum.shared_norm = norm_of(b, "post_ffw_norm_1.weight");
    o->u.sum.eps = b->p->eps;
}
