/*
 * flow: which records hand their output on as int8 blocks, and where these lie. Internal to
 * kernels/cuda.
 *
 * Where all that reads a record's output is the LINEAR behind it, which takes it as it is and wants
 * nothing but int8, the record writes these blocks in the place of its f32 rows, and the LINEAR has
 * no prologue. Records' scratch lies as follows: inputs that a record makes for itself at the
 * start; those it is handed at the other end than what its giver used; what it hands on at the end
 * that its own inputs are not at.
 */
#ifndef CP_KERNELS_CUDA_FLOW_H
#define CP_KERNELS_CUDA_FLOW_H

#include "kernels/cuda/cuda.h"

/* Does the record hand its output to the one behind it? op: of run->p->ops. Pure. */
bool cp_cuda_hands_on(const cuda_run *run, const cp_op *op);
/* Was it handed its input? */
bool cp_cuda_is_handed(const cuda_run *run, const cp_op *op);
/* Bytes of the int8 blocks of the record's output, for all rows. */
size_t cp_cuda_handed_bytes(const cuda_run *run, const cp_op *op);
/* Where it hands them on; since bind. 0: it does not. */
cp_addr cp_cuda_handed_at(const cuda_run *run, const cp_op *op);
/* Do the record's inputs lie at the end of the scratch? */
bool cp_cuda_inputs_at_end(const cuda_run *run, const cp_op *op);

#endif
