/*
 * The program builder: hyper-parameters + tensors -> a flat program. One walk over the layers; what
 * differs between architectures is read from the row's traits and from each layer's kinds
 * (build.h). A dense layer is five operations: qkv, attention, o_proj, gate_up, down. Once no layer
 * is to come that caches anything, after the last layer's mixer at the latest, only the rows that
 * want an output go on.
 */
#include "model/builder.h"

#include "base/mem.h"
#include "model/arch.h"
#include "model/build.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void rope_op(cp_build *b, const char *tag, int n_rot, const float *inv, float mscale,
                    cp_mat *out)
{
    cp_op *o = cp_build_op(b, CP_OP_ROPE);
    o->u.rope.out = *out = cp_build_mat(b, tag, n_rot);
    o->u.rope.n_rot = n_rot;
    o->u.rope.inv_freq = inv;
    o->u.rope.mscale = mscale;
}

/* out = rows of the table `name`, `width` wide, times scale. */
static cp_op *embed(cp_build *b, cp_mat out, const char *name, int width, float scale)
{
    cp_op *o = cp_build_op(b, CP_OP_EMBED);
    o->u.embed.out = out;
    o->u.embed.table = cp_build_weight(b, name, CP_ROLE_EMBED, width, b->p->pub.n_vocab, true);
    o->u.embed.scale = scale;
    o->u.embed.in = o->u.embed.norm = -1;
    return o;
}

/* What each layer adds of its own: a projection of the embedding, normed layer by layer, and a row
 * of a table that is as wide as all layers', which is why it is read where it is mapped. */
static void per_layer_inputs(cp_build *b)
{
    const cp_model_params *p = b->p;
    int d = p->pub.d_model, n = p->n_per_layer, width = n * p->pub.n_layers;
    cp_mat proj = cp_build_mat(b, "per-layer projection", width);
    cp_op *o = cp_build_linear(b, b->x);
    o->u.linear.scale = (float)(1.0 / sqrt(d));
    o->u.linear.n_w = 1;
    o->u.linear.w[0].w =
        cp_build_weight(b, "per_layer_model_proj.weight", CP_ROLE_LINEAR, d, width, true);
    o->u.linear.w[0].bias = -1;
    o->u.linear.w[0].out = proj;
    b->per_layer = cp_build_mat(b, "per-layer inputs", width);
    o = embed(b, b->per_layer, "per_layer_token_embd.weight", width, (float)sqrt(n));
    o->u.embed.in = proj;
    o->u.embed.norm = cp_build_weight(b, "per_layer_proj_norm.weight", CP_ROLE_VECTOR, n, 0, true);
    o->u.embed.eps = p->eps;
    o->u.embed.mix = (float)sqrt(0.5);
}

/* From here on only the rows that want an output: gather the mixer's output, where there is one
 * that no layer mixes again, and what is read later on. */
static void to_output_rows(cp_build *b, cp_mat *mix)
{
    cp_mat none = -1, *keep[] = {mix ? mix : &none,
                                 &b->x,
                                 &b->branch,
                                 &b->per_layer,
                                 mix ? &none : &b->rope_full,
                                 mix ? &none : &b->rope_window};
    static const char *const tag[] = {"mix",       "x0",         "branch", "per-layer inputs",
                                      "rope full", "rope window"};
    b->rows = CP_ROWS_OUT;
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        if (*keep[i] >= 0) {
            cp_op *o = cp_build_op(b, CP_OP_GATHER);
            o->u.gather.in = *keep[i];
            o->u.gather.out = *keep[i] = cp_build_mat(b, tag[i], b->g->mats[*keep[i]].width);
        }
    }
    b->other = cp_build_mat(b, "x1", b->p->pub.d_model);
}

/* By cp_mixer_kind and cp_ffn_kind. */
static cp_mixer_fn *const mixers[] = {
    [CP_MIXER_ATTENTION] = cp_build_attention,
    [CP_MIXER_SHORTCONV] = cp_build_shortconv,
    [CP_MIXER_DELTANET] = cp_build_deltanet,
};
static cp_ffn_fn *const ffns[] = {
    [CP_FFN_DENSE] = cp_build_dense_ffn,
    [CP_FFN_EXPERTS] = cp_build_experts_ffn,
    [CP_FFN_BOTH] = cp_build_both_ffns,
};

/* What was written to `branch` is the branch to be added, normed first where the row says so. */
static void pend(cp_build *b, cp_mat branch, const char *post_norm)
{
    b->branch = branch;
    if (b->p->arch->post_norms) {
        b->branch_norm =
            cp_build_layer_weight(b, post_norm, CP_ROLE_VECTOR, b->p->pub.d_model, 0, true);
    }
}

/* The branch of the layer's own embedding: gelu(gate x) times its columns, projected back. */
static void per_layer_branch(cp_build *b, cp_mat branch)
{
    const cp_model_params *p = b->p;
    int d = p->pub.d_model, n = p->n_per_layer;
    cp_mat gate = cp_build_mat(b, "per-layer gate", n);
    cp_op *o = cp_build_stream_linear(b, -1);
    o->u.linear.act = p->arch->act;
    o->u.linear.mul = b->per_layer;
    o->u.linear.mul_at = n * b->layer;
    cp_build_add_weight(b, o, "inp_gate", d, n, gate);
    cp_build_add_weight(b, cp_build_linear(b, gate), "proj", n, d, branch);
    pend(b, branch, "post_norm.weight");
}

static void layer(cp_build *b, const int place[2])
{
    const cp_model_params *p = b->p;
    const cp_layer_params *l = &p->layer[b->layer];
    int d = p->pub.d_model;
    const char *out_proj = NULL;
    if (b->layer == p->first_reader) { /* what comes now is nobody's to read but the outputs' */
        to_output_rows(b, NULL);
    }
    cp_wref norm = cp_build_layer_weight(b, "attn_norm.weight", CP_ROLE_VECTOR, d, 0, true);
    cp_mat mix = mixers[l->mixer](b, norm, place, &out_proj);
    int mix_width = b->g->mats[mix].width;
    if (b->layer == p->pub.n_layers - 1 && b->rows == CP_ROWS_ALL) {
        to_output_rows(b, &mix);
    }
    cp_mat branch = cp_build_mat(b, "branch", d);
    cp_build_add_weight(b, cp_build_linear(b, mix), out_proj, mix_width, d, branch);
    pend(b, branch, "post_attention_norm.weight");
    ffns[l->ffn](b, branch);
    pend(b, branch, "post_ffw_norm.weight");
    if (b->per_layer >= 0) {
        per_layer_branch(b, branch);
    }
    if (p->arch->layer_scale) {
        b->stream_scale = cp_build_layer_scalar(b, "layer_output_scale.weight");
    }
}

static void head(cp_build *b)
{
    const cp_model_params *p = b->p;
    char name[64];
    int d = p->pub.d_model, vocab = p->pub.n_vocab;
    b->layer = -1;
    cp_snprintf(name, sizeof name, "%s.weight", p->arch->final_norm);
    cp_op *o = cp_build_stream_linear(b, cp_build_weight(b, name, CP_ROLE_VECTOR, d, 0, true));
    const char *w =
        cp_loaded_find(b->file, "output.weight") ? "output.weight" : "token_embd.weight";
    b->g->logits = cp_build_mat(b, "logits", vocab);
    o->u.linear.n_w = 1;
    o->u.linear.w[0].w = cp_build_weight(b, w, CP_ROLE_LINEAR, d, vocab, true);
    o->u.linear.w[0].bias = -1;
    o->u.linear.w[0].out = b->g->logits;
    o->u.linear.softcap = p->final_softcap;
    o->u.linear.x_out = -1; /* nobody reads the stream after the head */
}

cp_code cp_program_build(cp_program *g, const cp_model_params *p, const cp_loaded *file,
                         const float *inv_full, const float *inv_window, cp_err *err)
{
    memset(g, 0, sizeof *g);
    g->ops = cp_xcalloc(CP_BUILD_OPS, sizeof *g->ops);
    g->mats = cp_xcalloc(CP_BUILD_MATS, sizeof *g->mats);
    g->weights = cp_xcalloc(CP_BUILD_WEIGHTS, sizeof *g->weights);
    g->n_vocab = p->pub.n_vocab;
    cp_build b = {.g = g,
                  .p = p,
                  .file = file,
                  .err = err,
                  .branch = -1,
                  .branch_norm = -1,
                  .stream_scale = 1.0f,
                  .per_layer = -1,
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
    b.x = cp_build_mat(&b, "x0", d);
    b.other = cp_build_mat(&b, "x1", d);
    embed(&b, b.x, "token_embd.weight", d, p->arch->embed_sqrt_d ? (float)sqrt(d) : 1.0f);
    if (p->n_rot) {
        rope_op(&b, "rope full", p->n_rot, inv_full, cp_rope_mscale(&p->yarn), &b.rope_full);
    }
    if (p->arch->window_as_full && p->n_rot_window == p->n_rot) {
        b.rope_window = b.rope_full;
    } else if (p->n_rot_window && p->window) {
        rope_op(&b, "rope window", p->n_rot_window, inv_window, 1.0f, &b.rope_window);
    }
    if (p->n_per_layer) {
        per_layer_inputs(&b);
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
