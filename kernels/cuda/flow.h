/*
 * flow: which records hand their output on as inputs of a LINEAR, and where these lie. Internal to
 * kernels/cuda.
 *
 * Where all that reads the output of a LINEAR or of an ATTENTION is the LINEAR behind it, which
 * takes it as it is and in one form (int8 blocks, bf16, f16), the record writes that in the place
 * of its f32 rows, and the LINEAR has no prologue. Records' scratch lies as follows: inputs that a
 * record makes for itself, and the results of attention's splits, at the start; those it is handed
 * at the other end than what its giver used; what it hands on at the end that its own are not at.
 */
#ifndef CP_KERNELS_CUDA_FLOW_H
#define CP_KERNELS_CUDA_FLOW_H

#include "kernels/cuda/act.h"
#include "kernels/cuda/cuda.h"

/* Was the record handed its input by the one before it? op: of run->p->ops. Pure. */
bool cp_cuda_is_handed(const cuda_run *run, const cp_op *op);
/* Bytes of what the record hands on, for all rows; 0: it does not. */
size_t cp_cuda_handed_bytes(const cuda_run *run, const cp_op *op);
/* Where it writes what it hands on; since bind. */
cuda_handed cp_cuda_handed_to(const cuda_run *run, const cp_op *op);
/* Do the record's inputs lie at the end of the scratch? */
bool cp_cuda_inputs_at_end(const cuda_run *run, const cp_op *op);

#endif
