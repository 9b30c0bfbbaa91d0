/*
 * product: what LINEAR and EXPERTS share on the host: the formats in which weights want inputs, and
 * launches of products. Internal to kernels/cuda.
 */
#ifndef CP_KERNELS_CUDA_PRODUCT_H
#define CP_KERNELS_CUDA_PRODUCT_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/linear_args.h"

/* Which inputs a weight wants. */
cuda_form cp_cuda_form_of(const cuda_run *run, const cuda_weight *w);

/* Where rows of k inputs lie from `at` on, in each of the forms that are wanted. */
typedef struct cuda_inputs {
    int k, ld32, ld16;
    bool want[CUDA_FORMS];
    cp_addr at;
    size_t offset[CUDA_FORMS], scales; /* of f16 rows */
    size_t bytes;
} cuda_inputs;
void cp_cuda_inputs_lay_out(cuda_inputs *x, int64_t rows);
/* What of a prologue says where it writes. */
void cp_cuda_inputs_put(const cuda_inputs *x, cuda_prologue_args *a);

/* A launch over weights of one kind, or of several kinds of panels. */
typedef struct cuda_product {
    cuda_kernel f[3];     /* by log2 of the tiles of a block; NULL: there is no such kernel */
    cuda_kernel epilogue; /* behind cuBLAS; NULL: it is never asked */
    cuda_linear_args a;
    const cuda_weight *w[CUDA_PARTS][2]; /* of each part */
    int blocks;                          /* of CUDA_OUTPUTS outputs */
    int warps;
} cuda_product;

/* CP_UNSUPPORTED: the record has more outputs, of all its weights, than a launch has blocks for. */
cp_code cp_cuda_check_outputs(const cp_op *op, int64_t outputs, cp_err *err);
/* A product of weights like w with what x holds, without parts. mixed: of w's form will do. */
cp_code cp_cuda_product_begin(cuda_run *run, cuda_product *p, const cuda_weight *w, bool mixed,
                              const cuda_inputs *x, cp_err *err);
/* Outputs [first, ...) of a weight as a cuda_matrix. bias: -1: none. */
cuda_matrix cp_cuda_matrix_of(const cuda_run *run, const cuda_weight *w, cp_wref bias, int first);
/* Another part, of w and, where it has gate and up, up (else NULL); its block0 is set. */
void cp_cuda_product_add(cuda_product *p, const cuda_part *part, const cuda_weight *w,
                         const cuda_weight *up);
/* The width of the kernel that takes the place of `width` (as cuda_log2_tiles says). */
int cp_cuda_product_width(const cuda_product *p, int width);
/* width: as that says; items: of so many tiles. */
cp_code cp_cuda_product_launch(cuda_run *run, const cuda_product *p, int width, int items,
                               cp_err *err);
/* The same product of so many rows by cuBLAS, which cp_cuda_gemm_takes them. */
cp_code cp_cuda_product_gemm(cuda_run *run, const cuda_product *p, int rows, cp_err *err);
/* May they be in one launch? */
bool cp_cuda_products_alike(const cuda_weight *a, const cuda_weight *b);

#endif
