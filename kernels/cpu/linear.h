/*
 * linear: every weight matrix product of the cpu backend, one kernel family over panels of 16
 * outputs.
 *
 * A cp_linear is one LINEAR record bound to its weights at prepare time, and immutable once its
 * panels are packed. The program walker (exec.c) calls: prep for row ranges (any worker), a
 * barrier, then items by ticket (any worker, own scratch), a barrier. Bits do not depend on which
 * worker, how many rows or whether panels were packed before (ARCHITECTURE §5). It hides weight
 * types, panels, unpack functions and the ISA.
 */
#ifndef CP_KERNELS_CPU_LINEAR_H
#define CP_KERNELS_CPU_LINEAR_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/weight.h"

typedef struct cp_linear cp_linear;

/* op must be a LINEAR record of prog. max_rows: the largest row count. */
cp_code cp_linear_open(cp_linear **out, const cp_program *prog, const cp_op *op, cp_isa isa,
                       int max_rows, cp_err *err);
void cp_linear_close(cp_linear *l);
/* Its weights, up to 4, to be packed (weight.h); returns how many. */
int cp_linear_weights(cp_linear *l, cp_gemm_weight **out);
int cp_linear_k(const cp_linear *l);
/* Bytes of activation scratch for n rows (64-byte aligned by the caller), and of scratch a worker
 * needs in item(), whose use begins with cp_gemm_scratch_begin(). */
size_t cp_linear_act_bytes(const cp_linear *l, int n);
size_t cp_linear_scratch_bytes(const cp_linear *l);
/* x[k] f32 (after add and norm) becomes row r of the activations in act (int8 blocks, f32 and/or
 * bf16, as weights want). */
void cp_linear_prep_row(const cp_linear *l, const float *x, int r, int n, void *act);
/* Work items for n rows; each item writes disjoint outputs. out[i]: base of weight i's output
 * matrix, rows ld[i] apart. mul: what a gate without a second weight is multiplied with, rows
 * ld_mul apart; else NULL. */
int64_t cp_linear_items(const cp_linear *l, int n);
void cp_linear_item(const cp_linear *l, int64_t item, int n, const void *act, void *scratch,
                    float *const out[4], const size_t ld[4], const float *mul, size_t ld_mul);

#endif
