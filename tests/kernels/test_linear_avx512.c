/*
 * test_linear_avx512: the avx512 micro-kernels and epilogue on any x86-64 machine, emulated by
 * SIMDe (Debian: libsimde-dev): the bits of the base level. Skips, aloud, without SIMDe or gcc.
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

#define cp_gemm_fill_avx512 emulated_fill
static void emulated_fill(cp_gemm_table *t);
#include "kernels/cpu/gemm_avx512.c"

#include "tests/kernels/wide.inc"

static void test_panels(void **state)
{
    (void)state;
    cp_gemm_table base, wide;
    cp_isa_gemm(&base, CP_ISA_BASE);
    wide = base;
    emulated_fill(&wide);
    for (int i = 0; cp_test_types[i] >= 0; i++)
        check_type(&base, &wide, (cp_dtype)cp_test_types[i]);
}

static void test_epilogue(void **state)
{
    (void)state;
    cp_gemm_table base, wide;
    cp_isa_gemm(&base, CP_ISA_BASE);
    wide = base;
    emulated_fill(&wide);
    uint64_t s = 4;
    float tile[7 * 16], up[7 * 16], bias[16], want[7 * 20], got[7 * 20];
    for (int i = 0; i < 7 * 16; i++) {
        tile[i] = cp_test_uniform(&s) * 20.0f;
        up[i] = cp_test_uniform(&s);
        bias[i % 16] = cp_test_uniform(&s);
    }
    for (int act = CP_ACT_NONE; act <= CP_ACT_SWIGLU_CLAMP; act++)
        for (int lanes = 1; lanes <= 16; lanes += 5) {
            cp_epilogue e = {(cp_act)act, 0.5f, act ? 0.0f : 3.0f};
            memset(want, 0, sizeof want);
            memset(got, 0, sizeof got);
            base.finish(&e, tile, bias, up, NULL, 7, lanes, want, 20);
            wide.finish(&e, tile, bias, up, NULL, 7, lanes, got, 20);
            assert_memory_equal(want, got, sizeof want);
        }
}

#else

static void test_panels(void **state)
{
    (void)state;
    print_message("SKIPPED: needs gcc, x86-64 and SIMDe (libsimde-dev)\n");
    skip();
}

static void test_epilogue(void **state)
{
    test_panels(state);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_panels),
                                       cmocka_unit_test(test_epilogue)};
    return cmocka_run_group_tests_name("linear avx512", tests, NULL, NULL);
}
