/*
 * test_linear_vnni: the vnni and bf16 micro-kernels on any x86-64 machine, emulated by SIMDe
 * (Debian: libsimde-dev): quantized panels give the bits of the base level; vdpbf16ps, whose order
 * differs by design, is held to its rounding. Skips, aloud, without SIMDe or gcc.
 */
#include "tests/kernels/emulated.h"

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "tests/kernels/weights.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#ifdef WIDE

#define cp_gemm_fill_vnni vnni_fill
#define cp_gemm_fill_bf16 bf16_fill
static void vnni_fill(cp_gemm_table *t);
static void bf16_fill(cp_gemm_table *t);
#include "kernels/cpu/gemm_bf16.c"
#include "kernels/cpu/gemm_vnni.c"

#include "tests/kernels/wide.inc"

static void test_panels(void **state)
{
    (void)state;
    cp_gemm_table base, wide;
    cp_isa_gemm(&base, CP_ISA_BASE);
    wide = base;
    vnni_fill(&wide);
    for (int i = 0; cp_test_types[i] >= 0; i++)
        check_type(&base, &wide, (cp_dtype)cp_test_types[i]);
}

static void test_bf16_pairs(void **state)
{
    (void)state;
    enum { K = 1101, N = 19, PAIRS = (K + 1) / 2, SEGMENT = 512 };
    cp_gemm_table wide = {0};
    bf16_fill(&wide);
    assert_true(wide.bf16_pairs);
    cp_tensor t = cp_test_tensor(CP_DTYPE_BF16, K, 16, 3);
    uint8_t *panel = cp_alloc_aligned(cp_panel_bytes(CP_PANEL_BF16, K));
    cp_unpack_of(CP_DTYPE_BF16)(&t, 0, 16, panel);
    static uint16_t act[N][2 * PAIRS + 20];
    uint64_t s = 8;
    memset(act, 0, sizeof act);
    for (int r = 0; r < N; r++)
        for (int i = 0; i < K; i++)
            act[r][i] = cp_bf16_from_f32(cp_test_uniform(&s));
    float all[N * 16], one[16], w[K];
    wide.gemm[CP_PANEL_BF16](panel, K, (const uint8_t *)act, sizeof act[0], N, all);
    for (int n = 1; n < N; n++) { /* every tile width */
        float some[N * 16];
        wide.gemm[CP_PANEL_BF16](panel, K, (const uint8_t *)act, sizeof act[0], n, some);
        assert_memory_equal(some, all, (size_t)n * sizeof one);
    }
    for (int r = 0; r < N; r++) {
        wide.gemm[CP_PANEL_BF16](panel, K, (const uint8_t *)act[r], sizeof act[0], 1, one);
        assert_memory_equal(one, all + 16 * r, sizeof one); /* not a matter of the row count */
        float want[16], add[16];
        for (int at = 0; at < K; at += SEGMENT) {
            int len = K - at < SEGMENT ? K - at : SEGMENT;
            wide.gemm[CP_PANEL_BF16](panel + 32 * at, len, (const uint8_t *)(act[r] + at),
                                     sizeof act[0], 1, at ? add : want);
            for (int o = 0; at && o < 16; o++)
                want[o] = want[o] + add[o];
        }
        assert_memory_equal(one, want, sizeof one); /* its segments' results, added */
        for (int o = 0; o < 16; o++) {
            double sum = 0, mag = 0;
            cp_dequant_row(&t, o, w);
            for (int i = 0; i < K; i++) {
                double p = (double)w[i] * (double)cp_f32_from_bf16(act[r][i]);
                sum += p;
                mag += p < 0 ? -p : p;
            }
            double e = (double)one[o] - sum;
            assert_true((e < 0 ? -e : e) <= mag * K * 0x1p-24);
        }
    }
    free(panel);
    cp_test_free(&t);
}

#else

static void test_panels(void **state)
{
    (void)state;
    print_message("SKIPPED: needs gcc, x86-64 and SIMDe (libsimde-dev)\n");
    skip();
}

static void test_bf16_pairs(void **state)
{
    test_panels(state);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_panels),
                                       cmocka_unit_test(test_bf16_pairs)};
    return cmocka_run_group_tests_name("linear vnni", tests, NULL, NULL);
}
