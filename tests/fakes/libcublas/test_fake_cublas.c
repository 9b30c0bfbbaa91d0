/*
 * test_fake_cublas: what a product is refused for, that it is one, that it is work of its stream,
 * and that its bits are not to be leaned on.
 */
#include "tests/fakes/libcublas/libcublas_fake.h"

#include "tests/fakes/libcuda/api.h"
#include "tests/fakes/libcuda/libcuda_fake.h"

#include "tests/support/cmocka.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { M = 40, N = 9, K = 555, LD = 560 };

typedef struct fixture {
    void *h;
    CUstream s;
    CUdeviceptr a, b, c;
    uint16_t *host_a, *host_b;
    float *host_c, alpha, beta;
} fixture;

static uint16_t bf16_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float of_bf16(uint16_t v)
{
    uint32_t u = (uint32_t)v << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static void open_fixture(fixture *f, const char *fail)
{
    unsetenv("FAKE_FAIL");
    setenv("FAKE_MODE", "lazy", 1);
    if (fail)
        setenv("FAKE_FAIL", fail, 1);
    fake_reset();
    *f = (fixture){.alpha = 1.0f};
    CUcontext context;
    assert_int_equal(cuInit(0), 0);
    assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), 0);
    assert_int_equal(cuCtxSetCurrent(context), 0);
    assert_int_equal(cuStreamCreate(&f->s, CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(cuMemAlloc_v2(&f->a, M * LD * 2), 0);
    assert_int_equal(cuMemAlloc_v2(&f->b, N * LD * 2), 0);
    assert_int_equal(cuMemAlloc_v2(&f->c, M * N * 4), 0);
    f->host_a = calloc(M * LD, 2);
    f->host_b = calloc(N * LD, 2);
    f->host_c = calloc(M * N, 4);
    uint32_t seed = 7;
    for (int i = 0; i < (M + N) * LD; i++) {
        seed = seed * 1664525 + 1013904223;
        uint16_t v = bf16_of((float)(int)(seed >> 8) * 0x1p-24f - 0.5f);
        *(i < M * LD ? &f->host_a[i] : &f->host_b[i - M * LD]) = v;
    }
    assert_int_equal(cuMemcpyHtoDAsync_v2(f->a, f->host_a, M * LD * 2, f->s), 0);
    assert_int_equal(cuMemcpyHtoDAsync_v2(f->b, f->host_b, N * LD * 2, f->s), 0);
    int r = cublasCreate_v2(&f->h);
    if (!r)
        assert_int_equal(cublasSetStream_v2(f->h, f->s), 0);
}

static void close_fixture(fixture *f)
{
    cuStreamSynchronize(f->s);
    cublasDestroy_v2(f->h);
    cuMemFree_v2(f->a);
    cuMemFree_v2(f->b);
    cuMemFree_v2(f->c);
    cuStreamDestroy_v2(f->s);
    cuDevicePrimaryCtxRelease_v2(0);
    free(f->host_a);
    free(f->host_b);
    free(f->host_c);
    assert_int_equal(fake_leaks(), 0);
}

/* C[n][m] = rows of b times rows of a, K long: as a linear asks for it. */
static int linear(const fixture *f, int n)
{
    return cublasGemmEx(f->h, BLAS_OP_T, BLAS_OP_N, M, n, K, &f->alpha, (void *)(uintptr_t)f->a,
                        BLAS_R_16BF, LD, (void *)(uintptr_t)f->b, BLAS_R_16BF, LD, &f->beta,
                        (void *)(uintptr_t)f->c, BLAS_R_32F, M, BLAS_COMPUTE_32F,
                        BLAS_GEMM_DEFAULT);
}

static void products_are_right_and_have_no_bits_of_their_own(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, NULL);
    float first[M * N];
    for (int round = 0; round < 2; round++) {
        assert_int_equal(linear(&f, N), 0);
        assert_int_equal(cuMemcpyDtoHAsync_v2(f.host_c, f.c, M * N * 4, f.s), 0);
        int differ = 0;
        for (int j = 0; j < N; j++) {
            for (int i = 0; i < M; i++) {
                double want = 0;
                for (int k = 0; k < K; k++)
                    want += (double)of_bf16(f.host_a[i * LD + k]) *
                            (double)of_bf16(f.host_b[j * LD + k]);
                assert_true(fabs(want - (double)f.host_c[j * M + i]) < 1e-4);
                differ += round && f.host_c[j * M + i] != first[j * M + i];
            }
        }
        assert_true(!round || differ > M * N / 2);
        memcpy(first, f.host_c, sizeof first);
    }
    assert_int_equal(fake_count("gemms"), 2);
    assert_int_equal(fake_count("gemms_own_workspace"), 2);
    close_fixture(&f);
}

static void types_and_turns(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, NULL);
    /* 2 x 3 times 3 x 2, by columns, of F32 and F16, each turned and not */
    const float a[] = {1, 4, 2, 5, 3, 6}, at[] = {1, 2, 3, 4, 5, 6};
    const float b[] = {7, 9, 11, 8, 10, 12}, bt[] = {7, 8, 9, 10, 11, 12};
    const uint16_t a16[] = {0x3c00, 0x4400, 0x4000, 0x4500, 0x4200, 0x4600};
    const uint16_t b16[] = {0x4700, 0x4880, 0x4980, 0x4800, 0x4900, 0x4a00};
    const float want[] = {58, 139, 64, 154};
    for (int turn = 0; turn < 5; turn++) {
        bool half = turn == 4;
        int ta = turn & 1, tb = turn >> 1 & 1;
        const void *from_a = half ? (const void *)a16 : ta ? at : a;
        const void *from_b = half ? (const void *)b16 : tb ? bt : b;
        size_t n = half ? sizeof a16 : sizeof a;
        int type = half ? BLAS_R_16F : BLAS_R_32F;
        float c[4], beta = 2.0f, old[4] = {1, 1, 1, 1};
        assert_int_equal(cuMemcpyHtoDAsync_v2(f.a, from_a, n, f.s), 0);
        assert_int_equal(cuMemcpyHtoDAsync_v2(f.b, from_b, n, f.s), 0);
        assert_int_equal(cuMemcpyHtoDAsync_v2(f.c, old, sizeof old, f.s), 0);
        assert_int_equal(cublasGemmEx(f.h, ta, tb, 2, 2, 3, &f.alpha, (void *)(uintptr_t)f.a, type,
                                      ta ? 3 : 2, (void *)(uintptr_t)f.b, type, tb ? 2 : 3, &beta,
                                      (void *)(uintptr_t)f.c, BLAS_R_32F, 2, BLAS_COMPUTE_32F,
                                      BLAS_GEMM_DEFAULT),
                         0);
        assert_int_equal(cuMemcpyDtoHAsync_v2(c, f.c, sizeof c, f.s), 0);
        for (int i = 0; i < 4; i++)
            assert_true(c[i] == want[i] + 2.0f);
    }
    close_fixture(&f);
}

typedef struct call {
    int op_a, op_b, m, n, k, type_a, lda, type_b, ldb, type_c, ldc, compute, algo;
} call;

static int make(const fixture *f, call c, const void *alpha)
{
    return cublasGemmEx(f->h, c.op_a, c.op_b, c.m, c.n, c.k, alpha, (void *)(uintptr_t)f->a,
                        c.type_a, c.lda, (void *)(uintptr_t)f->b, c.type_b, c.ldb, &f->beta,
                        (void *)(uintptr_t)f->c, c.type_c, c.ldc, c.compute, c.algo);
}

static void arguments_are_looked_at(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, NULL);
    const call good = {BLAS_OP_T,
                       BLAS_OP_N,
                       M,
                       N,
                       K,
                       BLAS_R_16BF,
                       LD,
                       BLAS_R_16BF,
                       LD,
                       BLAS_R_32F,
                       M,
                       BLAS_COMPUTE_32F,
                       BLAS_GEMM_DEFAULT};
    assert_int_equal(make(&f, good, &f.alpha), 0);
#define REFUSED(field, value, status)                                                              \
    do {                                                                                           \
        call bad = good;                                                                           \
        bad.field = value;                                                                         \
        assert_int_equal(make(&f, bad, &f.alpha), status);                                         \
    } while (0)
    REFUSED(op_a, 3, BLAS_INVALID_VALUE);
    REFUSED(op_b, -1, BLAS_INVALID_VALUE);
    REFUSED(m, -1, BLAS_INVALID_VALUE);
    REFUSED(n, -1, BLAS_INVALID_VALUE);
    REFUSED(k, -1, BLAS_INVALID_VALUE);
    REFUSED(lda, K - 1, BLAS_INVALID_VALUE);
    REFUSED(ldb, K - 1, BLAS_INVALID_VALUE);
    REFUSED(ldc, M - 1, BLAS_INVALID_VALUE);
    REFUSED(op_a, BLAS_OP_N, 0); /* lda is enough for M rows */
    REFUSED(type_a, BLAS_R_16F, BLAS_NOT_SUPPORTED);
    REFUSED(type_b, BLAS_R_8I, BLAS_NOT_SUPPORTED);
    REFUSED(type_c, BLAS_R_16F, BLAS_NOT_SUPPORTED);
    REFUSED(compute, BLAS_COMPUTE_16F, BLAS_NOT_SUPPORTED);
    REFUSED(algo, 7, BLAS_NOT_SUPPORTED);
    REFUSED(m, 0, 0);
    assert_int_equal(make(&f, good, NULL), BLAS_INVALID_VALUE);
    assert_int_equal(cublasSetWorkspace_v2(f.h, (void *)(uintptr_t)(f.a + 16), 64),
                     BLAS_INVALID_VALUE);
    assert_int_equal(cublasSetWorkspace_v2(f.h, (void *)(uintptr_t)f.a, 1 << 20),
                     BLAS_INVALID_VALUE);
    assert_int_equal(cublasSetWorkspace_v2(f.h, (void *)(uintptr_t)f.a, 1 << 10), 0);
    int version;
    assert_int_equal(cublasGetVersion_v2(f.h, &version), 0);
    assert_int_equal(version, 130000);
    assert_string_equal(cublasGetStatusName(15), "CUBLAS_STATUS_NOT_SUPPORTED");
    call outside = good;
    outside.op_a = BLAS_OP_N; /* K columns of LD each: A has M */
    int before = (int)fake_count("faults");
    assert_int_equal(make(&f, outside, &f.alpha), 0);
    assert_int_equal(cuStreamSynchronize(f.s), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_true((int)fake_count("faults") > before);
    assert_int_equal(make(&f, good, &f.alpha), BLAS_EXECUTION_FAILED);
    close_fixture(&f);
}

/* It reads what its stream has put there before, and not a moment earlier than it must. */
static void products_are_work_of_a_stream(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, NULL);
    assert_int_equal(linear(&f, 1), 0);
    assert_int_equal(cuMemsetD8Async(f.b, 0, N * LD * 2, f.s), 0);
    assert_int_equal(linear(&f, N), 0);
    uint32_t first;
    CUstream other;
    assert_int_equal(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(cuMemcpyDtoHAsync_v2(&first, f.c, 4, other), 0);
    assert_int_equal(first, 0xffffffffu);
    assert_int_equal(cuMemcpyDtoHAsync_v2(f.host_c, f.c, M * N * 4, f.s), 0);
    for (int i = 0; i < M * N; i++)
        assert_true(f.host_c[i] == 0.0f);
    cuStreamDestroy_v2(other);
    close_fixture(&f);
}

static void they_fail_on_demand(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, "cublasGemmEx:2");
    assert_int_equal(linear(&f, N), 0);
    assert_int_equal(linear(&f, N), BLAS_EXECUTION_FAILED);
    assert_int_equal(linear(&f, N), 0);
    close_fixture(&f);
    open_fixture(&f, "enqueue:1");
    assert_int_equal(linear(&f, N), BLAS_EXECUTION_FAILED);
    assert_int_equal(cuStreamSynchronize(f.s), CUDA_ERROR_LAUNCH_FAILED);
    close_fixture(&f);
    open_fixture(&f, "cublasCreate_v2:1");
    assert_null(f.h);
    assert_int_equal(cublasCreate_v2(&f.h), 0);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_right_and_have_no_bits_of_their_own),
        cmocka_unit_test(types_and_turns),
        cmocka_unit_test(arguments_are_looked_at),
        cmocka_unit_test(products_are_work_of_a_stream),
        cmocka_unit_test(they_fail_on_demand),
    };
    return cmocka_run_group_tests_name("fake cublas", tests, NULL, NULL);
}
