/*
 * SUM: see sum.cu.
 */
#include "kernels/cuda/sum.h"

#include "base/mem.h"
#include "kernels/cuda/bind.h"

typedef struct bound {
    cuda_kernel kernel;
    cuda_sum_args args;
} bound;

cp_code cp_cuda_measure_sum(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    (void)run;
    (void)op;
    (void)o;
    (void)err;
    return CP_OK;
}

cp_code cp_cuda_bind_sum(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cp_prepared *p = run->p;
    bound *b = o->own = cp_xcalloc(1, sizeof(*b));
    b->args = (cuda_sum_args){.step = run->step,
                              .in = p->mats[op->u.sum.in],
                              .weights = p->mats[op->u.sum.weights],
                              .out = p->mats[op->u.sum.out],
                              .shared = cp_cuda_mat(run, op->u.sum.shared),
                              .gate = cp_cuda_mat(run, op->u.sum.gate),
                              .norm = cp_cuda_vector(run, op->u.sum.norm),
                              .shared_norm = cp_cuda_vector(run, op->u.sum.shared_norm),
                              .ld_in = cp_cuda_ld(run, op->u.sum.in),
                              .ld_weights = cp_cuda_ld(run, op->u.sum.weights),
                              .ld_out = cp_cuda_ld(run, op->u.sum.out),
                              .ld_shared = cp_cuda_ld(run, op->u.sum.shared),
                              .ld_gate = cp_cuda_ld(run, op->u.sum.gate),
                              .n = p->prog->mats[op->u.sum.out].width,
                              .n_used = p->prog->mats[op->u.sum.weights].width,
                              .of_out_rows = op->rows == CP_ROWS_OUT,
                              .eps = op->u.sum.eps};
    return cp_cuda_kernel(run, b->args.norm ? "k_sum_norm" : "k_sum", &b->kernel, err);
}

cp_code cp_cuda_enqueue_sum(cuda_run *run, const cp_op *op, const cuda_op *o, const cp_batch *batch,
                            cp_err *err)
{
    const bound *b = o->own;
    unsigned rows = (unsigned)cp_op_rows(op, batch);
    cuda_dim grid = {rows, cp_cuda_blocks(b->args.n, 4 * CUDA_SUM_THREADS), 1};
    if (b->args.norm)
        grid = (cuda_dim){rows, 1, 1};
    return cp_cuda_launch(run, b->kernel, grid, (cuda_dim){CUDA_SUM_THREADS, 1, 1}, 0, &b->args,
                          err);
}
