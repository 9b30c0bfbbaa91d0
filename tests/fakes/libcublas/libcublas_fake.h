/*
 * libcublas_fake: the calls of cuBLAS that the fake has, with cuBLAS's own numbers. For its source
 * and for its tests; kernels/cuda opens the library by dlopen.
 */
#ifndef CP_TESTS_LIBCUBLAS_FAKE_H
#define CP_TESTS_LIBCUBLAS_FAKE_H

#include <stddef.h>

enum {
    BLAS_SUCCESS = 0,
    BLAS_NOT_INITIALIZED = 1,
    BLAS_ALLOC_FAILED = 3,
    BLAS_INVALID_VALUE = 7,
    BLAS_EXECUTION_FAILED = 13,
    BLAS_INTERNAL_ERROR = 14,
    BLAS_NOT_SUPPORTED = 15
};
enum { BLAS_OP_N = 0, BLAS_OP_T = 1, BLAS_OP_C = 2 };
enum { BLAS_R_32F = 0, BLAS_R_16F = 2, BLAS_R_8I = 3, BLAS_R_16BF = 14 };
enum { BLAS_COMPUTE_16F = 64, BLAS_COMPUTE_32F = 68 };
enum { BLAS_GEMM_DEFAULT = -1, BLAS_GEMM_DEFAULT_TENSOR_OP = 99 };

#pragma GCC visibility push(default)
int cublasCreate_v2(void **out);
int cublasDestroy_v2(void *h);
int cublasSetStream_v2(void *h, void *stream);
int cublasSetWorkspace_v2(void *h, void *workspace, size_t n);
int cublasGetVersion_v2(void *h, int *version);
const char *cublasGetStatusName(int status);
const char *cublasGetStatusString(int status);
int cublasGemmEx(void *h, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                 int type_a, int lda, const void *b, int type_b, int ldb, const void *beta, void *c,
                 int type_c, int ldc, int compute, int algo);
#pragma GCC visibility pop

#endif
