/*
 * experts: EXPERTS records bound to weights. A cp_experts is immutable once its panels are packed,
 * as a cp_linear. Internal to kernels/cpu.
 *
 * A pair is a row and a rank, the expert that the row has there. Inputs are kept in the order of
 * pairs sorted by expert, so that the rows of one lie together and a panel is read once for all of
 * them. Which place a pair has follows from the routing alone: each worker sorts for itself.
 */
#ifndef CP_KERNELS_CPU_EXPERTS_H
#define CP_KERNELS_CPU_EXPERTS_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/weight.h"

typedef struct cp_experts cp_experts;

/* The pairs of a step, sorted; a worker's own. Room for a record's most: cp_experts_pairs(). */
typedef struct cp_expert_plan {
    int32_t *place;  /* [pairs] of pair row * n_used + rank */
    int32_t *pair;   /* [pairs] at each place */
    int32_t *begin;  /* [n_expert + 1] the first place of each expert */
    int32_t *active; /* [n_expert] those that have rows, ascending */
    int64_t *item0;  /* [n_expert + 1] the first work item of each of them */
    int n_active;
} cp_expert_plan;

/* op must be an EXPERTS record of prog. max_rows: the largest row count. */
cp_code cp_experts_open(cp_experts **out, const cp_program *prog, const cp_op *op, cp_isa isa,
                        int max_rows, cp_err *err);
void cp_experts_close(cp_experts *x);
/* Its weights, up to 2, to be packed; returns how many. */
int cp_experts_weights(cp_experts *x, cp_gemm_weight **out);
int cp_experts_k(const cp_experts *x);
/* Inputs that n rows have: n, or one a pair. */
int cp_experts_inputs(const cp_experts *x, int n);
int cp_experts_count(const cp_experts *x); /* of experts */
size_t cp_experts_pairs(const cp_experts *x, int n);
/* Bytes of activations of n rows, and of scratch a worker needs in item(). */
size_t cp_experts_act_bytes(const cp_experts *x, int n);
size_t cp_experts_scratch_bytes(const cp_experts *x);
/* ids: of row 0, rows ld apart. */
void cp_experts_plan(const cp_experts *x, const float *ids, size_t ld, int n, cp_expert_plan *plan);
/* Input i of n rows (after the norm) is put where its pair or pairs are. */
void cp_experts_prep(const cp_experts *x, const cp_expert_plan *plan, const float *in, int i, int n,
                     void *act);
/* Work items; each writes disjoint outputs. out: of row 0, rows ld apart. */
int64_t cp_experts_items(const cp_expert_plan *plan);
void cp_experts_item(const cp_experts *x, const cp_expert_plan *plan, int64_t item, int n,
                     const void *act, void *scratch, float *out, size_t ld);

#endif
