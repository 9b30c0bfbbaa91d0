/*
 * ref: every operation in plain C, one record after another on the caller's thread. It is the
 * definition of right: nothing here is fast, nothing is clever, and program.h's paragraphs can be
 * read beside it line by line. Internal to kernels/ref.
 */
#ifndef CP_KERNELS_REF_REF_H
#define CP_KERNELS_REF_REF_H

#include "kernels/backend.h"
#include "kernels/math.h"

/* Row r of a slot. */
static inline float *cp_ref_row(const cp_prepared *p, cp_slot s, int r)
{
    return p->slots[s] + (size_t)r * p->ld[s];
}

/* The lane tree's last steps: the partial sums to one. */
float cp_ref_tree(float partials[CP_PARTIALS]);
/* y[n] = rmsnorm(x[n]) * w[n]; y may be x. */
void cp_ref_rmsnorm(float *y, const float *x, const float *w, int n, float eps);

void cp_ref_linear(cp_prepared *p, const cp_op *op, int n_rows);
void cp_ref_attention(cp_prepared *p, const cp_op *op, const cp_batch *batch);
void cp_ref_sample(cp_prepared *p, const cp_op *op, const cp_batch *batch);

#endif
