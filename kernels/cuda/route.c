/*
 * ROUTE: see route.cu.
 */
#include "kernels/cuda/route.h"

#include "base/mem.h"
#include "kernels/cuda/bind.h"

typedef struct bound {
    cuda_kernel kernel;
    cuda_route_args args;
} bound;

cp_code cp_cuda_measure_route(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    (void)run;
    (void)op;
    (void)o;
    (void)err;
    return CP_OK;
}

cp_code cp_cuda_bind_route(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cp_prepared *p = run->p;
    bound *b = o->own = cp_xcalloc(1, sizeof(*b));
    b->args = (cuda_route_args){.step = run->step,
                                .in = p->mats[op->u.route.in],
                                .ids = p->mats[op->u.route.ids],
                                .weights = p->mats[op->u.route.weights],
                                .bias = cp_cuda_vector(run, op->u.route.bias),
                                .expert_scale = cp_cuda_vector(run, op->u.route.expert_scale),
                                .ld_in = cp_cuda_ld(run, op->u.route.in),
                                .ld_ids = cp_cuda_ld(run, op->u.route.ids),
                                .ld_weights = cp_cuda_ld(run, op->u.route.weights),
                                .n = p->prog->mats[op->u.route.in].width,
                                .n_used = p->prog->mats[op->u.route.ids].width,
                                .n_groups = op->u.route.n_groups,
                                .n_groups_used = op->u.route.n_groups_used,
                                .gate = (int32_t)op->u.route.gate,
                                .normalize = op->u.route.normalize,
                                .of_out_rows = op->rows == CP_ROWS_OUT,
                                .scale = op->u.route.scale};
    return cp_cuda_kernel(run, "k_route", &b->kernel, err);
}

cp_code cp_cuda_enqueue_route(cuda_run *run, const cp_op *op, const cuda_op *o,
                              const cp_batch *batch, cp_err *err)
{
    const bound *b = o->own;
    cuda_dim grid = {cp_cuda_blocks(cp_op_rows(op, batch), CUDA_ROUTE_WARPS), 1, 1};
    return cp_cuda_launch(run, b->kernel, grid, (cuda_dim){CUDA_ROUTE_WARPS * 32, 1, 1}, 0,
                          &b->args, err);
}
