/*
 * ROPE and GATHER on the device: see rope.cu.
 */
#include "kernels/cuda/rope.h"

#include "base/mem.h"
#include "kernels/cuda/cuda.h"

typedef struct rope_op {
    cuda_kernel f;
    cuda_rope_args args;
} rope_op;

typedef struct gather_op {
    cuda_kernel f;
    cuda_gather_args args;
} gather_op;

cp_code cp_cuda_measure_rope(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    (void)run;
    (void)o;
    if (op->u.rope.n_rot > 2 * CUDA_ROPE_PAIRS)
        return cp_fail(err, CP_UNSUPPORTED, "cuda: rope: n_rot is %d; at most %d", op->u.rope.n_rot,
                       2 * CUDA_ROPE_PAIRS);
    return CP_OK;
}

cp_code cp_cuda_bind_rope(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cp_prepared *p = run->p;
    rope_op *x = o->own = cp_xcalloc(1, sizeof(*x));
    x->args = (cuda_rope_args){.step = run->step,
                               .out = p->mats[op->u.rope.out],
                               .ld = (int32_t)p->ld[op->u.rope.out],
                               .half = op->u.rope.n_rot / 2,
                               .mscale = op->u.rope.mscale};
    for (int i = 0; i < x->args.half; i++)
        x->args.inv_freq[i] = op->u.rope.inv_freq[i];
    return cp_cuda_kernel(run, "k_rope", &x->f, err);
}

cp_code cp_cuda_enqueue_rope(cuda_run *run, const cp_op *op, const cuda_op *o,
                             const cp_batch *batch, cp_err *err)
{
    const rope_op *x = o->own;
    (void)op;
    if (!batch->n_rows)
        return CP_OK;
    return cp_cuda_launch(run, x->f, (cuda_dim){(unsigned)batch->n_rows, 1, 1},
                          (cuda_dim){CUDA_ROPE_THREADS, 1, 1}, 0, &x->args, err);
}

cp_code cp_cuda_measure_gather(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    (void)run;
    (void)op;
    (void)o;
    (void)err;
    return CP_OK;
}

cp_code cp_cuda_bind_gather(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cp_prepared *p = run->p;
    cp_mat in = op->u.gather.in, out = op->u.gather.out;
    gather_op *x = o->own = cp_xcalloc(1, sizeof(*x));
    x->args = (cuda_gather_args){.step = run->step,
                                 .in = p->mats[in],
                                 .out = p->mats[out],
                                 .ld_in = (int32_t)p->ld[in],
                                 .ld_out = (int32_t)p->ld[out],
                                 .quads = (p->prog->mats[in].width + 3) / 4};
    return cp_cuda_kernel(run, "k_gather", &x->f, err);
}

cp_code cp_cuda_enqueue_gather(cuda_run *run, const cp_op *op, const cuda_op *o,
                               const cp_batch *batch, cp_err *err)
{
    const gather_op *x = o->own;
    (void)op;
    if (!batch->n_out)
        return CP_OK;
    return cp_cuda_launch(run, x->f, (cuda_dim){(unsigned)batch->n_out, 1, 1},
                          (cuda_dim){CUDA_GATHER_THREADS, 1, 1}, 0, &x->args, err);
}
