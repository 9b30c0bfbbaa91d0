/*
 * missing: the operations that this backend has not got yet. A program that has one of them is
 * refused when it is prepared, by its name. Who builds one takes its line away.
 */
#include "kernels/cuda/cuda.h"

#define MISSING(X)                                                                                 \
    X(ROPE, rope)                                                                                  \
    X(GATHER, gather)                                                                              \
    X(ATTENTION, attention)

static cp_code refuse(const cp_op *op, cp_err *err)
{
    return cp_fail(err, CP_UNSUPPORTED,
                   "operation %s (layer %d) is not built for device cuda; --device cpu has it",
                   cp_op_names[op->kind], op->layer);
}

#define X(kind, name)                                                                              \
    cp_code cp_cuda_measure_##name(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)        \
    {                                                                                              \
        (void)run;                                                                                 \
        (void)o;                                                                                   \
        return refuse(op, err);                                                                    \
    }                                                                                              \
    cp_code cp_cuda_bind_##name(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)           \
    {                                                                                              \
        (void)run;                                                                                 \
        (void)o;                                                                                   \
        return refuse(op, err);                                                                    \
    }                                                                                              \
    cp_code cp_cuda_enqueue_##name(cuda_run *run, const cp_op *op, const cuda_op *o,               \
                                   const cp_batch *batch, cp_err *err)                             \
    {                                                                                              \
        (void)run;                                                                                 \
        (void)o;                                                                                   \
        (void)batch;                                                                               \
        return refuse(op, err);                                                                    \
    }
MISSING(X)
#undef X

/* ---- once a step ---- */

cp_code cp_cuda_attention_fill(cuda_run *run, const cp_batch *batch, cp_err *err)
{
    (void)run;
    (void)batch;
    (void)err;
    return CP_OK;
}

void cp_cuda_attention_fini(cuda_run *run)
{
    (void)run;
}

cp_code cp_cuda_pages_enqueue(cuda_run *run, const cp_batch *batch, cp_err *err)
{
    (void)run;
    if (batch->n_zero_pages || batch->n_copies || batch->n_state_copies)
        return cp_fail(err, CP_UNSUPPORTED, "zeroes and copies of pages are not built");
    return CP_OK;
}
