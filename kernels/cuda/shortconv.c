/*
 * SHORTCONV: see shortconv.cu.
 */
#include "kernels/cuda/shortconv.h"

#include "base/mem.h"
#include "kernels/cuda/bind.h"

typedef struct bound {
    cuda_kernel kernel;
    cuda_shortconv_args args;
} bound;

cp_code cp_cuda_measure_shortconv(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    (void)run;
    (void)op;
    (void)o;
    (void)err;
    return CP_OK;
}

cp_code cp_cuda_bind_shortconv(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cp_prepared *p = run->p;
    bound *b = o->own = cp_xcalloc(1, sizeof(*b));
    b->args = (cuda_shortconv_args){
        .step = run->step,
        .in = p->mats[op->u.shortconv.in],
        .out = p->mats[op->u.shortconv.out],
        .conv = p->vectors[op->u.shortconv.conv],
        .states = cp_cuda_state(run, op->u.shortconv.group, op->u.shortconv.layer_in_group),
        .state_bytes = p->state_bytes,
        .ld_in = cp_cuda_ld(run, op->u.shortconv.in),
        .ld_out = cp_cuda_ld(run, op->u.shortconv.out),
        .d = op->u.shortconv.d,
        .taps = op->u.shortconv.l_cache};
    return cp_cuda_kernel(run, "k_shortconv", &b->kernel, err);
}

cp_code cp_cuda_enqueue_shortconv(cuda_run *run, const cp_op *op, const cuda_op *o,
                                  const cp_batch *batch, cp_err *err)
{
    const bound *b = o->own;
    cuda_dim grid = {cp_cuda_blocks(op->u.shortconv.d, CUDA_CONV_CHANNELS), (unsigned)batch->n_seqs,
                     cp_cuda_blocks(cp_cuda_most_rows(batch), CUDA_CONV_ROWS)};
    return cp_cuda_launch(run, b->kernel, grid, (cuda_dim){CUDA_CONV_CHANNELS, 1, 1}, 0, &b->args,
                          err);
}
