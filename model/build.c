/*
 * What all layers are made of: matrices, weights and records. A residual add is never an operation
 * by itself: a branch is written to a matrix of its own, and the next LINEAR's prologue adds (and
 * norms) it.
 */
#include "model/build.h"

#include "base/mem.h"
#include "model/arch.h"

#include <string.h>

cp_mat cp_build_mat(cp_build *b, const char *tag, int width)
{
    cp_program *g = b->g;
    for (int i = 0; i < g->n_mats; i++) {
        if (strcmp(b->tags[i], tag) == 0 && g->mats[i].width == width &&
            g->mats[i].rows == b->rows) {
            return (cp_mat)i;
        }
    }
    if (g->n_mats == CP_BUILD_MATS) {
        if (!b->rc) {
            b->rc = cp_fail(b->err, CP_UNSUPPORTED,
                            "layer shapes differ too much: more than %d buffers", CP_BUILD_MATS);
        }
        return 0;
    }
    b->tags[g->n_mats] = tag;
    g->mats[g->n_mats].width = width;
    g->mats[g->n_mats].rows = b->rows;
    return (cp_mat)g->n_mats++;
}

/* Weight `name` of ne2 matrices. */
static cp_wref take_weight(cp_build *b, const char *name, cp_role role, int64_t ne0, int64_t ne1,
                           int64_t ne2, bool required)
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
    if (t->ne[0] != ne0 || t->ne[1] != want1 || t->ne[2] != ne2 || t->ne[3] != 1) {
        char want[64] = "";
        if (ne2 != 1) {
            cp_snprintf(want, sizeof want, ", %lld", (long long)ne2);
        }
        b->rc = cp_fail(b->err, CP_CORRUPT,
                        "tensor '%s' has shape [%lld, %lld, %lld, %lld], expected [%lld, %lld%s]",
                        name, (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                        (long long)t->ne[3], (long long)ne0, (long long)want1, want);
        return -1;
    }
    if (role == CP_ROLE_VECTOR && t->type != CP_DTYPE_F32) {
        b->rc = cp_fail(b->err, CP_UNSUPPORTED, "tensor '%s' is %s; vectors must be F32", name,
                        cp_dtype_info((uint32_t)t->type)->name);
        return -1;
    }
    cp_program *g = b->g;
    if (g->n_weights == CP_BUILD_WEIGHTS) {
        b->rc = cp_fail(b->err, CP_UNSUPPORTED, "tensor '%s': more than %d weights in the layers",
                        name, CP_BUILD_WEIGHTS);
        return -1;
    }
    g->weights[g->n_weights] = (cp_weight){t, role};
    return (cp_wref)g->n_weights++;
}

cp_wref cp_build_weight(cp_build *b, const char *name, cp_role role, int64_t ne0, int64_t ne1,
                        bool required)
{
    return take_weight(b, name, role, ne0, ne1, 1, required);
}

cp_wref cp_build_layer_weight(cp_build *b, const char *suffix, cp_role role, int64_t ne0,
                              int64_t ne1, bool required)
{
    char name[96];
    cp_snprintf(name, sizeof name, "blk.%d.%s", b->layer, suffix);
    return cp_build_weight(b, name, role, ne0, ne1, required);
}

float cp_build_layer_scalar(cp_build *b, const char *suffix)
{
    cp_wref w = cp_build_layer_weight(b, suffix, CP_ROLE_VECTOR, 1, 0, false);
    return w < 0 ? 1.0f : *(const float *)b->g->weights[w].t->data;
}

cp_wref cp_build_expert_weight(cp_build *b, const char *suffix, int64_t ne0, int64_t ne1,
                               bool required)
{
    char name[96];
    cp_snprintf(name, sizeof name, "blk.%d.%s", b->layer, suffix);
    return take_weight(b, name, CP_ROLE_LINEAR, ne0, ne1, b->p->pub.n_experts, required);
}

cp_op *cp_build_op(cp_build *b, cp_op_kind kind)
{
    CP_ASSERT(b->g->n_ops < CP_BUILD_OPS);
    cp_op *o = &b->g->ops[b->g->n_ops++];
    memset(o, 0, sizeof *o);
    o->kind = kind;
    o->rows = b->rows;
    o->layer = b->layer;
    if (kind == CP_OP_SUM) {
        o->u.sum.norm = o->u.sum.shared_norm = -1;
    }
    return o;
}

cp_op *cp_build_linear(cp_build *b, cp_mat in)
{
    cp_op *o = cp_build_op(b, CP_OP_LINEAR);
    o->u.linear.in = in;
    o->u.linear.add = o->u.linear.x_out = -1;
    o->u.linear.add_norm = o->u.linear.norm = -1;
    o->u.linear.mul = -1;
    o->u.linear.eps = b->p->eps;
    o->u.linear.in_scale = o->u.linear.scale = 1.0f;
    return o;
}

cp_op *cp_build_stream_linear(cp_build *b, cp_wref norm)
{
    cp_op *o = cp_build_linear(b, b->x);
    o->u.linear.norm = norm;
    if (b->branch >= 0) {
        o->u.linear.add = b->branch;
        o->u.linear.add_norm = b->branch_norm;
        o->u.linear.in_scale = b->stream_scale;
        o->u.linear.x_out = b->other;
        cp_mat t = b->x;
        b->x = b->other;
        b->other = t;
        b->branch = -1;
        b->branch_norm = -1;
        b->stream_scale = 1.0f;
    }
    return o;
}

void cp_build_add_weight(cp_build *b, cp_op *o, const char *name, int64_t k, int64_t n, cp_mat out)
{
    char full[64];
    cp_snprintf(full, sizeof full, "%s.weight", name);
    int i = o->u.linear.n_w++;
    o->u.linear.w[i].w = cp_build_layer_weight(b, full, CP_ROLE_LINEAR, k, n, true);
    cp_snprintf(full, sizeof full, "%s.bias", name);
    o->u.linear.w[i].bias = cp_build_layer_weight(b, full, CP_ROLE_VECTOR, n, 0, false);
    o->u.linear.w[i].out = out;
}
