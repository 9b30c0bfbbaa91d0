/*
 * build: a program while it is built, and the steps that all layers are made of. Private to model/.
 *
 * A cp_build lives as long as cp_program_build(). A step that fails leaves its error in rc, which
 * is sticky: what comes after it does nothing of worth, so that a layer need not ask after each.
 * What differs between architectures is read from the row's traits and the layer's kinds; each kind
 * is a function below, found by a table (builder.c).
 */
#ifndef CP_MODEL_BUILD_H
#define CP_MODEL_BUILD_H

#include "model/hparams.h"

#define CP_BUILD_MATS    64
#define CP_BUILD_WEIGHTS (32 * CP_MAX_LAYERS)
#define CP_BUILD_OPS     (24 * CP_MAX_LAYERS)

typedef struct cp_build {
    cp_program *g;
    const cp_model_params *p;
    const cp_loaded *file;
    cp_err *err;
    cp_code rc; /* sticky: the first failure */
    const char *tags[CP_BUILD_MATS];
    cp_mat x, other, branch; /* residual stream, its twin, the branch to be added (-1: none) */
    cp_wref branch_norm;
    float stream_scale; /* of the sum of both; 1: none */
    cp_mat per_layer;   /* what the layers' own embeddings give, side by side; -1: none */
    cp_rows rows;
    cp_mat rope_full, rope_window;
    int layer;
} cp_build;

/* The matrix of a use: same tag (by its text), width and rows share one. tag outlives the build. */
cp_mat cp_build_mat(cp_build *b, const char *tag, int width);
/* Weight `name` with shape {ne0, ne1} (ne1 0: a vector); -1 and a failure when required and absent.
 */
cp_wref cp_build_weight(cp_build *b, const char *name, cp_role role, int64_t ne0, int64_t ne1,
                        bool required);
/* The weight "blk.N.<suffix>" of the layer at hand. */
cp_wref cp_build_layer_weight(cp_build *b, const char *suffix, cp_role role, int64_t ne0,
                              int64_t ne1, bool required);
/* The one value of "blk.N.<suffix>"; 1 where the file does not have it. */
float cp_build_layer_scalar(cp_build *b, const char *suffix);
/* The weight of all experts of the layer, {ne0, ne1, n_experts}. */
cp_wref cp_build_expert_weight(cp_build *b, const char *suffix, int64_t ne0, int64_t ne1,
                               bool required);
/* The next record, zeroed, with the rows and the layer at hand. */
cp_op *cp_build_op(cp_build *b, cp_op_kind kind);
/* A LINEAR over `in` without weights yet; over the normed residual stream, which takes in the
 * pending branch first; and one more weight of it, <name>.weight and <name>.bias of the layer. */
cp_op *cp_build_linear(cp_build *b, cp_mat in);
cp_op *cp_build_stream_linear(cp_build *b, cp_wref norm);
void cp_build_add_weight(cp_build *b, cp_op *o, const char *name, int64_t k, int64_t n, cp_mat out);

/* ---- mixers.c: norm is the layer's pre-norm, place = {group, layer in group}; the result is the
 * mixer's output before its out projection, whose name is *out_proj ---- */
typedef cp_mat cp_mixer_fn(cp_build *b, cp_wref norm, const int place[2], const char **out_proj);
cp_mixer_fn cp_build_attention, cp_build_shortconv, cp_build_deltanet;

/* ---- ffn.c: appends the feed-forward over the stream and writes its output to `branch` ---- */
typedef void cp_ffn_fn(cp_build *b, cp_mat branch);
cp_ffn_fn cp_build_dense_ffn, cp_build_experts_ffn, cp_build_both_ffns;

#endif
