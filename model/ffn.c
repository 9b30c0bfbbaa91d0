/*
 * Feed-forwards: what a layer does within a position.
 */
#include "model/build.h"

#include "model/arch.h"

void cp_build_dense_ffn(cp_build *b, cp_mat branch)
{
    const cp_params *p = b->p;
    int d = p->pub.d_model, d_ff = p->layer[b->layer].d_ff;
    cp_op *o = cp_build_stream_linear(
        b, cp_build_layer_weight(b, "ffn_norm.weight", CP_ROLE_VECTOR, d, 0, true));
    cp_mat ff = cp_build_mat(b, "ff", d_ff);
    o->u.linear.act = p->arch->act;
    cp_build_add_weight(b, o, "ffn_gate", d, d_ff, ff);
    cp_build_add_weight(b, o, "ffn_up", d, d_ff, ff);
    cp_build_add_weight(b, cp_build_linear(b, ff), "ffn_down", d_ff, d, branch);
}
