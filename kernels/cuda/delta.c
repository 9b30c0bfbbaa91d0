/*
 * DELTAPREP and DELTANET: see delta.cu.
 */
#include "kernels/cuda/delta.h"

#include "base/mem.h"
#include "kernels/cuda/bind.h"

typedef struct bound_prep {
    cuda_kernel kernel;
    cuda_deltaprep_args args;
} bound_prep;

typedef struct bound_net {
    cuda_kernel kernel;
    cuda_deltanet_args args;
} bound_net;

cp_code cp_cuda_measure_deltaprep(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    (void)run;
    (void)op;
    (void)o;
    (void)err;
    return CP_OK;
}

cp_code cp_cuda_bind_deltaprep(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cp_prepared *p = run->p;
    const cp_delta_shape *s = &op->u.deltaprep.shape;
    bound_prep *b = o->own = cp_xcalloc(1, sizeof(*b));
    b->args = (cuda_deltaprep_args){
        .step = run->step,
        .in = p->mats[op->u.deltaprep.in],
        .out = p->mats[op->u.deltaprep.out],
        .alpha = p->mats[op->u.deltaprep.alpha],
        .beta = p->mats[op->u.deltaprep.beta],
        .gates = p->mats[op->u.deltaprep.gates],
        .conv = p->vectors[op->u.deltaprep.conv],
        .a = p->vectors[op->u.deltaprep.a],
        .dt = p->vectors[op->u.deltaprep.dt],
        .states = cp_cuda_state(run, op->u.deltaprep.group, op->u.deltaprep.layer_in_group),
        .state_bytes = p->state_bytes,
        .ld = cp_cuda_ld(run, op->u.deltaprep.in), /* of equal width: out */
        .ld_alpha = cp_cuda_ld(run, op->u.deltaprep.alpha),
        .ld_beta = cp_cuda_ld(run, op->u.deltaprep.beta),
        .ld_gates = cp_cuda_ld(run, op->u.deltaprep.gates),
        .n_k = s->n_k,
        .n_v = s->n_v,
        .k_dim = s->k_dim,
        .v_dim = s->v_dim,
        .taps = s->taps,
        .channels = (int32_t)cp_delta_channels(s),
        .eps = op->u.deltaprep.eps,
        .scale = op->u.deltaprep.scale};
    return cp_cuda_kernel(run, "k_deltaprep", &b->kernel, err);
}

cp_code cp_cuda_enqueue_deltaprep(cuda_run *run, const cp_op *op, const cuda_op *o,
                                  const cp_batch *batch, cp_err *err)
{
    const cp_delta_shape *s = &op->u.deltaprep.shape;
    const bound_prep *b = o->own;
    cuda_dim grid = {(unsigned)(2 * s->n_k + s->n_v + 1), (unsigned)batch->n_seqs,
                     cp_cuda_blocks(cp_cuda_most_rows(batch), CUDA_PREP_ROWS)};
    return cp_cuda_launch(run, b->kernel, grid, (cuda_dim){CUDA_PREP_THREADS, 1, 1}, 0, &b->args,
                          err);
}

cp_code cp_cuda_measure_deltanet(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    (void)run;
    (void)op;
    (void)o;
    (void)err;
    return CP_OK;
}

cp_code cp_cuda_bind_deltanet(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cp_prepared *p = run->p;
    const cp_delta_shape *s = &op->u.deltanet.shape;
    bound_net *b = o->own = cp_xcalloc(1, sizeof(*b));
    b->args = (cuda_deltanet_args){
        .step = run->step,
        .in = p->mats[op->u.deltanet.in],
        .gates = p->mats[op->u.deltanet.gates],
        .z = p->mats[op->u.deltanet.z],
        .out = p->mats[op->u.deltanet.out],
        .norm = p->vectors[op->u.deltanet.norm],
        .states = cp_cuda_state(run, op->u.deltanet.group, op->u.deltanet.layer_in_group) +
                  cp_delta_state_at(s),
        .state_bytes = p->state_bytes,
        .ld = cp_cuda_ld(run, op->u.deltanet.in),
        .ld_gates = cp_cuda_ld(run, op->u.deltanet.gates),
        .ld_z = cp_cuda_ld(run, op->u.deltanet.z),
        .ld_out = cp_cuda_ld(run, op->u.deltanet.out),
        .n_k = s->n_k,
        .n_v = s->n_v,
        .k_dim = s->k_dim,
        .v_dim = s->v_dim,
        .tiles = cp_delta_tiles(s),
        .eps = op->u.deltanet.eps};
    return cp_cuda_kernel(run, s->k_dim == CUDA_DELTA_USUAL ? "k_deltanet_128" : "k_deltanet",
                          &b->kernel, err);
}

cp_code cp_cuda_enqueue_deltanet(cuda_run *run, const cp_op *op, const cuda_op *o,
                                 const cp_batch *batch, cp_err *err)
{
    const bound_net *b = o->own;
    cuda_dim grid = {(unsigned)op->u.deltanet.shape.n_v, (unsigned)batch->n_seqs, 1};
    return cp_cuda_launch(run, b->kernel, grid, (cuda_dim){CUDA_DELTA_WARPS * 32, 1, 1}, 0,
                          &b->args, err);
}
