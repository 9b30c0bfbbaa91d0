/*
 * libcublas_fake: what kernels/cuda opens of cuBLAS, over the fake driver. Arguments are refused as
 * the real library documents it; a product runs as work of the handle's stream and adds in f32, in
 * an order of K that is another one in each call: nothing can lean on its bits, nor on a row's
 * being the same in another batch.
 */
#include "tests/fakes/libcublas/libcublas_fake.h"

#include "tests/fakes/libcuda/libcuda_fake.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    VERSION = 130000,
    LANES = 16,
    OUT_OF_MEMORY = 2,
    ILLEGAL_ADDRESS = 700,
    MISALIGNED_ADDRESS = 716
};

typedef struct blas_handle {
    uint32_t magic;
    void *stream;
    bool workspace; /* the caller's own */
} blas_handle;

enum { MAGIC = 0x31a5b1a5 };

static blas_handle *handle_of(void *h)
{
    blas_handle *p = h;
    return p && p->magic == MAGIC ? p : NULL;
}

/* One of our calls, with the number of handles that it adds: what cuBLAS makes of the answer. */
static int enter(const char *call, int handles)
{
    int r = fake_library(call, handles);
    return r >= 100 ? BLAS_EXECUTION_FAILED
                    : r; /* a driver's number: the context is lost, or none */
}

int cublasCreate_v2(void **out)
{
    int r = enter("cublasCreate_v2", out != NULL);
    if (r || !out)
        return r == BLAS_EXECUTION_FAILED ? BLAS_NOT_INITIALIZED : r ? r : BLAS_INVALID_VALUE;
    blas_handle *h = calloc(1, sizeof *h);
    if (!h)
        return BLAS_ALLOC_FAILED;
    h->magic = MAGIC;
    *out = h;
    return BLAS_SUCCESS;
}

int cublasDestroy_v2(void *h)
{
    blas_handle *p = handle_of(h);
    if (!p)
        return BLAS_NOT_INITIALIZED;
    p->magic = 0;
    free(p);
    return enter("cublasDestroy_v2", -1);
}

/* The workspace is the library's own again afterwards, as the real one says. */
int cublasSetStream_v2(void *h, void *stream)
{
    blas_handle *p = handle_of(h);
    int r = p ? enter("cublasSetStream_v2", 0) : BLAS_NOT_INITIALIZED;
    if (!r) {
        p->stream = stream;
        p->workspace = false;
    }
    return r;
}

int cublasSetWorkspace_v2(void *h, void *workspace, size_t n)
{
    blas_handle *p = handle_of(h);
    int r = p ? enter("cublasSetWorkspace_v2", 0) : BLAS_NOT_INITIALIZED;
    if (r)
        return r;
    if ((uintptr_t)workspace % 256 || (n && !fake_memory((uintptr_t)workspace, n, "workspace")))
        return BLAS_INVALID_VALUE;
    p->workspace = n > 0;
    return BLAS_SUCCESS;
}

int cublasGetVersion_v2(void *h, int *version)
{
    if (!handle_of(h))
        return BLAS_NOT_INITIALIZED;
    if (!version)
        return BLAS_INVALID_VALUE;
    *version = VERSION;
    return BLAS_SUCCESS;
}

static const struct {
    int status;
    const char *name, *text;
} statuses[] = {
    {BLAS_SUCCESS, "CUBLAS_STATUS_SUCCESS", "success"},
    {BLAS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {BLAS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
    {BLAS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE", "an invalid value was used as a parameter"},
    {BLAS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED",
     "the function failed to launch on the GPU"},
    {BLAS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
    {BLAS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED", "the functionality is not supported"},
};

const char *cublasGetStatusName(int status)
{
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        if (statuses[i].status == status)
            return statuses[i].name;
    }
    return "CUBLAS_STATUS_UNKNOWN";
}

const char *cublasGetStatusString(int status)
{
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        if (statuses[i].status == status)
            return statuses[i].text;
    }
    return "unknown status";
}

/* ---- products ---- */

/* C = alpha op(A) op(B) + beta C, all by columns: op(A) m x k, op(B) k x n, C m x n. */
typedef struct product {
    bool turn_a, turn_b;
    int m, n, k, lda, ldb, ldc, type;
    float alpha, beta;
    uint64_t a, b, c;
} product;

static size_t width_of(int type)
{
    return type == BLAS_R_32F ? 4 : 2;
}

static float half_of(uint16_t v)
{
    int exponent = v >> 10 & 31, sign = v >> 15;
    int mantissa = v & 1023;
    float x = exponent == 31  ? (mantissa ? NAN : INFINITY)
              : exponent == 0 ? ldexpf((float)mantissa, -24)
                              : ldexpf((float)(mantissa + 1024), exponent - 25);
    return sign ? -x : x;
}

static float value_of(const unsigned char *at, int type)
{
    uint32_t bits;
    uint16_t half;
    float x;
    if (type == BLAS_R_32F) {
        memcpy(&x, at, 4);
        return x;
    }
    memcpy(&half, at, 2);
    if (type == BLAS_R_16F)
        return half_of(half);
    bits = (uint32_t)half << 16;
    memcpy(&x, &bits, 4);
    return x;
}

/* Vector i of the two that are multiplied, its elements in the order of `order`, zeroes behind. */
static void gather(float *out, const unsigned char *from, int type, size_t first, size_t step,
                   const int *order, int k, int padded)
{
    for (int e = 0; e < padded; e++) {
        size_t at = e < k ? first + (size_t)order[e] * step : 0;
        out[e] = e < k ? value_of(from + at * width_of(type), type) : 0.0f;
    }
}

static void shuffle(int *order, int n)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)(fake_random() % (uint64_t)(i + 1)), v = order[i];
        order[i] = order[j];
        order[j] = v;
    }
}

static float dot(const float *a, const float *b, int n)
{
    float part[LANES] = {0};
    for (int i = 0; i < n; i += LANES) {
        for (int l = 0; l < LANES; l++)
            part[l] += a[i + l] * b[i + l];
    }
    for (int step = LANES / 2; step; step /= 2) {
        for (int l = 0; l < step; l++)
            part[l] += part[l + step];
    }
    return part[0];
}

/* Bytes from the first element of a matrix of rows x columns to behind its last. */
static size_t extent(int rows, int columns, int ld, size_t width)
{
    return ((size_t)(columns - 1) * (size_t)ld + (size_t)rows) * width;
}

static int multiply(const product *p, const unsigned char *a, const unsigned char *b, float *c)
{
    int padded = (p->k + LANES - 1) / LANES * LANES;
    int *order = calloc((size_t)p->k + 1, sizeof *order);
    float *va = calloc((size_t)p->m * (size_t)padded + 1, sizeof *va);
    float *vb = calloc((size_t)padded + 1, sizeof *vb);
    if (!order || !va || !vb) {
        free(order);
        free(va);
        free(vb);
        return OUT_OF_MEMORY;
    }
    shuffle(order, p->k);
    for (int i = 0; i < p->m; i++) {
        size_t lda = (size_t)p->lda, at = (size_t)i;
        gather(va + (size_t)i * (size_t)padded, a, p->type, p->turn_a ? at * lda : at,
               p->turn_a ? 1 : lda, order, p->k, padded);
    }
    for (int j = 0; j < p->n; j++) {
        size_t ldb = (size_t)p->ldb, at = (size_t)j;
        gather(vb, b, p->type, p->turn_b ? at : at * ldb, p->turn_b ? ldb : 1, order, p->k, padded);
        for (int i = 0; i < p->m; i++) {
            float *out = c + (size_t)j * (size_t)p->ldc + i;
            float v = p->alpha * dot(va + (size_t)i * (size_t)padded, vb, padded);
            *out = p->beta != 0.0f ? v + p->beta * *out : v; /* C is not read where beta is 0 */
        }
    }
    free(order);
    free(va);
    free(vb);
    return 0;
}

static int run(void *context)
{
    const product *p = context;
    size_t width = width_of(p->type);
    if (p->a % width || p->b % width || p->c % 4)
        return MISALIGNED_ADDRESS;
    const unsigned char *a = fake_memory(
        p->a, extent(p->turn_a ? p->k : p->m, p->turn_a ? p->m : p->k, p->lda, width), "A of gemm");
    const unsigned char *b = fake_memory(
        p->b, extent(p->turn_b ? p->n : p->k, p->turn_b ? p->k : p->n, p->ldb, width), "B of gemm");
    void *c = fake_memory(p->c, extent(p->m, p->n, p->ldc, 4), "C of gemm");
    if (!a || !b || !c)
        return ILLEGAL_ADDRESS;
    return multiply(p, a, b, c);
}

/* What the real one says of a leading dimension: rows of the matrix as it lies there, 1 at least.
 */
static bool leads(int ld, int rows)
{
    return ld >= (rows > 1 ? rows : 1);
}

int cublasGemmEx(void *h, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                 int type_a, int lda, const void *b, int type_b, int ldb, const void *beta, void *c,
                 int type_c, int ldc, int compute, int algo)
{
    blas_handle *handle = handle_of(h);
    int r = handle ? enter("cublasGemmEx", 0) : BLAS_NOT_INITIALIZED;
    if (r)
        return r;
    bool turn_a = op_a == BLAS_OP_T || op_a == BLAS_OP_C,
         turn_b = op_b == BLAS_OP_T || op_b == BLAS_OP_C;
    if ((op_a != BLAS_OP_N && !turn_a) || (op_b != BLAS_OP_N && !turn_b) || m < 0 || n < 0 ||
        k < 0 || !leads(lda, turn_a ? k : m) || !leads(ldb, turn_b ? n : k) || !leads(ldc, m) ||
        !alpha || !beta)
        return BLAS_INVALID_VALUE;
    if (type_a != type_b ||
        (type_a != BLAS_R_32F && type_a != BLAS_R_16F && type_a != BLAS_R_16BF) ||
        type_c != BLAS_R_32F || compute != BLAS_COMPUTE_32F ||
        (algo != BLAS_GEMM_DEFAULT && algo != BLAS_GEMM_DEFAULT_TENSOR_OP))
        return BLAS_NOT_SUPPORTED;
    if (!m || !n || !k)
        return k ? BLAS_SUCCESS
                 : BLAS_NOT_SUPPORTED; /* the real one scales C then: nobody wants it */
    product p = {turn_a,       turn_b,       m,           n, k, lda, ldb, ldc, type_a, 0.0f, 0.0f,
                 (uintptr_t)a, (uintptr_t)b, (uintptr_t)c};
    memcpy(&p.alpha, alpha, sizeof p.alpha);
    memcpy(&p.beta, beta, sizeof p.beta);
    fake_add("gemms", 1);
    fake_add("gemms_own_workspace", !handle->workspace);
    return fake_enqueue(handle->stream, run, &p, sizeof p) ? BLAS_EXECUTION_FAILED : BLAS_SUCCESS;
}
