/*
 * run: what backend.c, upload.c, blob.c and blas.c share of a cuda_run. Internal to these files.
 */
#ifndef CP_KERNELS_CUDA_RUN_H
#define CP_KERNELS_CUDA_RUN_H

#include "kernels/cuda/gpu.h"

/* ---- upload.c ---- */

/* Which weights lie on the device and what they take: fills run->weights and weight_bytes. */
cp_code cp_cuda_weights_bind(cuda_run *run, cp_err *err);
/* Pack them, or map what is packed, and copy all of them to run->weight_mem. */
cp_code cp_cuda_weights_upload(cuda_run *run, cp_err *err);

/* ---- blob.c ---- */

/* What steps are copied to, when all operations have measured. */
size_t cp_cuda_blob_bytes(const cuda_run *run);
/* Takes it; sets run->step. */
cp_code cp_cuda_blob_open(cuda_run *run, cp_err *err);
void cp_cuda_blob_free(cuda_run *run); /* one that was not opened, too */
/* A step begins: puts go to the pinned memory that the step before did not use. The step before
 * that has ended. */
void cp_cuda_blob_begin(cuda_run *run);
/* What batch says becomes run->host and what it points at. */
void cp_cuda_blob_fill(cuda_run *run, const cp_batch *batch);
/* Enqueue the copies of what was put since the latest of these calls, and of run->host. */
cp_code cp_cuda_blob_copy(cuda_run *run, cp_err *err);

/* ---- blas.c ---- */

/* cuBLAS's library; one a backend. CP_UNSUPPORTED: it is not there, with what was looked for. */
typedef struct cuda_blas cuda_blas;
cp_code cp_cuda_blas_open(cuda_blas **out, cp_err *err);
void cp_cuda_blas_close(cuda_blas *blas); /* NULL is fine */
/* What a program takes of the device for it: 0 where it has no weight that goes there. */
size_t cp_cuda_products_bytes(const cuda_run *run);
cp_code cp_cuda_products_open(cuda_run *run, const cuda_blas *blas, cp_err *err);
void cp_cuda_products_free(cuda_run *run);

#endif
