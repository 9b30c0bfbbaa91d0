/*
 * blas: products of float weights by cuBLAS, where --gemm cublas asks for it. The library is looked
 * for by its name, or where CAPSTAN_LIBCUBLAS says; its prototypes are the project's own, as its
 * header is in no package that a build needs. Each program has a handle and a workspace: cuBLAS
 * wants one user at a time. What it computes depends on the number of rows, so that a row's bits
 * depend on its company: the promise of ARCHITECTURE §5 is not given then.
 */
#include "kernels/cuda/run.h"

#include "base/log.h"
#include "base/mem.h"

#include <dlfcn.h>
#include <stdlib.h>

enum { WORKSPACE_BYTES = 32 << 20, LEAST_ROWS = 64 };
/* cublas_api.h and library_types.h */
enum { OP_N = 0, OP_T = 1, R_32F = 0, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68, GEMM_DEFAULT = -1 };

typedef struct cublasContext cublas_context;

/* X(member, symbol with its version, result, parameters) */
#define CUDA_BLAS(X)                                                                               \
    X(create, cublasCreate_v2, int, (cublas_context * *handle))                                    \
    X(destroy, cublasDestroy_v2, int, (cublas_context * handle))                                   \
    X(set_stream, cublasSetStream_v2, int, (cublas_context * handle, CUstream stream))             \
    X(set_workspace, cublasSetWorkspace_v2, int,                                                   \
      (cublas_context * handle, void *workspace, size_t bytes))                                    \
    X(version, cublasGetVersion_v2, int, (cublas_context * handle, int *version))                  \
    X(status, cublasGetStatusString, const char *, (int status))                                   \
    X(gemm, cublasGemmEx, int,                                                                     \
      (cublas_context * handle, int op_a, int op_b, int m, int n, int k, const void *alpha,        \
       const void *a, int type_a, int ld_a, const void *b, int type_b, int ld_b, const void *beta, \
       void *c, int type_c, int ld_c, int compute, int algorithm))

#define X(member, symbol, result, parameters) typedef result blas_##member##_fn parameters;
CUDA_BLAS(X)
#undef X

struct cuda_blas {
#define X(member, symbol, result, parameters) blas_##member##_fn *member;
    CUDA_BLAS(X)
#undef X
};

struct cuda_products {
    const cuda_blas *blas;
    cublas_context *handle;
    cp_mem workspace;
};

/* ---- the library ---- */

static void *open_library(const char **path)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};
    const char *named = getenv("CAPSTAN_LIBCUBLAS");
    if (named && *named) {
        cp_log(CP_LOG_WARN, "cuda: cuBLAS is %s, as CAPSTAN_LIBCUBLAS says", named);
        *path = named;
        return dlopen(named, RTLD_NOW | RTLD_LOCAL);
    }
    *path = "libcublas.so.13, libcublas.so.12";
    void *library = dlopen(names[0], RTLD_NOW | RTLD_LOCAL);
    return library ? library : dlopen(names[1], RTLD_NOW | RTLD_LOCAL);
}

cp_code cp_cuda_blas_open(cuda_blas **out, cp_err *err)
{
    const char *path;
    void *library = open_library(&path);
    if (!library)
        return cp_fail(err, CP_UNSUPPORTED, "--gemm cublas: none of %s can be opened: %s", path,
                       dlerror());
    cuda_blas *blas = cp_xcalloc(1, sizeof(*blas));
#define X(member, symbol, result, parameters)                                                      \
    if (!(blas->member = (blas_##member##_fn *)(uintptr_t)dlsym(library, #symbol))) {              \
        free(blas);                                                                                \
        return cp_fail(err, CP_UNSUPPORTED, "--gemm cublas: %s has no " #symbol, path);            \
    }
    CUDA_BLAS(X)
#undef X
    *out = blas;
    return CP_OK;
}

/* The library stays, as the driver's does. */
void cp_cuda_blas_close(cuda_blas *blas)
{
    free(blas);
}

/* ---- a program's products ---- */

static cp_code check(const cuda_blas *blas, int status, const char *call, cp_err *err)
{
    return status == 0 ? CP_OK
                       : cp_fail(err, status == 3 ? CP_NO_MEMORY : CP_DEVICE_FAILED, "%s: %s", call,
                                 blas->status(status));
}

static bool takes(const cuda_weight *w)
{
    return w->t && (w->kind == CP_PANEL_BF16 || w->kind == CP_PANEL_F16) && !w->in_file;
}

size_t cp_cuda_products_bytes(const cuda_run *run)
{
    bool any = false;
    for (int i = 0; i < run->p->prog->n_weights; i++)
        any |= takes(&run->weights[i]) && run->p->prog->weights[i].role == CP_ROLE_LINEAR;
    return any && run->p->b->cfg.gemm == CP_GEMM_CUBLAS ? WORKSPACE_BYTES : 0;
}

static cp_code open_handle(cuda_run *run, struct cuda_products *g, cp_err *err)
{
    cp_code rc = check(g->blas, g->blas->create(&g->handle), "cublasCreate", err);
    if (rc == CP_OK)
        rc = check(g->blas, g->blas->set_stream(g->handle, run->stream->stream), "cublasSetStream",
                   err);
    if (rc == CP_OK)
        rc = check(g->blas,
                   g->blas->set_workspace(g->handle, (void *)(uintptr_t)g->workspace.at,
                                          g->workspace.bytes),
                   "cublasSetWorkspace", err);
    int version = 0;
    if (rc == CP_OK)
        rc = check(g->blas, g->blas->version(g->handle, &version), "cublasGetVersion", err);
    if (rc == CP_OK)
        cp_log(CP_LOG_DEBUG, "cuda: cuBLAS %d multiplies float weights", version);
    return rc;
}

cp_code cp_cuda_products_open(cuda_run *run, const cuda_blas *blas, cp_err *err)
{
    size_t bytes = cp_cuda_products_bytes(run);
    if (bytes == 0)
        return CP_OK;
    struct cuda_products *g = run->blas = cp_xcalloc(1, sizeof(*g));
    g->blas = blas;
    cp_code rc = cp_cuda_take(run->gpu, &g->workspace, bytes, false, err);
    if (rc != CP_OK)
        return cp_err_prefix(err, "cuBLAS's workspace");
    return open_handle(run, g, err);
}

void cp_cuda_products_free(cuda_run *run)
{
    struct cuda_products *g = run->blas;
    if (!g)
        return;
    if (g->handle)
        g->blas->destroy(g->handle);
    if (g->workspace.at)
        cp_cuda_give(run->gpu, &g->workspace);
    free(g);
    run->blas = NULL;
}

bool cp_cuda_gemm_takes(const cuda_run *run, const cuda_weight *w, int rows)
{
    return run->blas && rows >= LEAST_ROWS && takes(w);
}

/* In cuBLAS's words, where columns lie together: out^T[m][rows] = w^T . x, of w as [k][m]. */
cp_code cp_cuda_gemm(cuda_run *run, const cuda_weight *w, int64_t matrix, cp_addr x, int64_t ld_x,
                     int rows, cp_addr out, int64_t ld_out, cp_err *err)
{
    static const float one = 1.0f, zero = 0.0f;
    const struct cuda_products *g = run->blas;
    int type = w->kind == CP_PANEL_BF16 ? R_16BF : R_16F;
    cp_addr a = w->at + (cp_addr)matrix * w->matrix_bytes;
    return check(g->blas,
                 g->blas->gemm(g->handle, OP_T, OP_N, (int)w->m, rows, (int)w->k, &one,
                               (const void *)(uintptr_t)a, type,
                               (int)(w->row_bytes / sizeof(uint16_t)), (const void *)(uintptr_t)x,
                               type, (int)ld_x, &zero, (void *)(uintptr_t)out, R_32F, (int)ld_out,
                               COMPUTE_32F, GEMM_DEFAULT),
                 "cublasGemmEx", err);
}
