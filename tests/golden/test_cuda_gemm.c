/*
 * test_cuda_gemm: --gemm cublas over the fake driver and the fake cuBLAS, whose sums come in a
 * drawn order: logits of models with F16 weights stay close to those of own products, from 64 rows
 * on they are not the same, below they are; quantized models have the same bits either way.
 */
#include "tests/support/forward.h"

#include "base/log.h"
#include "base/mem.h"
#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 80, FEW = 20 };

/* Logits of ROWS tokens in steps of `chunk` rows. */
static float *logits_of(const char *model, cp_gemm gemm, int chunk, size_t *n)
{
    cp_err err = {0};
    cp_forward *f;
    char path[512];
    cp_snprintf(path, sizeof path, "%s/%s.gguf", CP_GOLDEN_DIR, model);
    cp_forward_config cfg = {.path = path,
                             .backend = "cuda",
                             .gemm = gemm,
                             .kv_type = CP_DTYPE_BF16,
                             .threads = 1,
                             .max_rows = ROWS,
                             .max_positions = ROWS,
                             .seed = 7};
    if (cp_forward_open(&f, &cfg, &err)) {
        fail_msg("%s: %s", path, err.msg);
    }
    int32_t tokens[ROWS];
    int n_vocab = cp_model_hparams(cp_forward_model(f))->n_vocab;
    for (int i = 0; i < ROWS; i++) {
        tokens[i] = (i * 37 + 5) % n_vocab;
    }
    *n = (size_t)ROWS * (size_t)n_vocab;
    float *out = cp_xcalloc(*n, sizeof *out);
    if (cp_forward_run(f, tokens, ROWS, chunk, out, &err)) {
        fail_msg("%s: %s", path, err.msg);
    }
    cp_forward_close(f);
    return out;
}

static double nmse(const float *want, const float *got, size_t n)
{
    double num = 0, den = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        num += d * d;
        den += (double)want[i] * (double)want[i];
    }
    return num / den;
}

static void close_to_own_products(void **state)
{
    (void)state;
    static const struct row {
        const char *model;
        bool floats;
    } rows[] = {{"gemma3", true}, {"lfm2", true}, {"llama-q", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n, m;
        float *own = logits_of(rows[i].model, CP_GEMM_OWN, ROWS, &n);
        float *few = logits_of(rows[i].model, CP_GEMM_CUBLAS, FEW, &m);
        float *many = logits_of(rows[i].model, CP_GEMM_CUBLAS, ROWS, &m);
        assert_int_equal(n, m);
        assert_memory_equal(own, few, n * sizeof *own); /* below 64 rows nothing goes there */
        double e = nmse(own, many, n);
        if (rows[i].floats != (e > 0) || !(e <= 1e-5)) {
            fail_msg("%s: NMSE %g", rows[i].model, e);
        }
        free(own);
        free(few);
        free(many);
    }
}

int main(void)
{
    const char *const *name = cp_backend_names();
    while (*name && strcmp(*name, "cuda") != 0) {
        name++;
    }
    if (!*name) {
        printf("skipped: cuda is not built\n");
        return 77;
    }
    cp_log_setup(CP_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {cmocka_unit_test(close_to_own_products)};
    return cmocka_run_group_tests_name("cuda_gemm", tests, NULL, NULL);
}
