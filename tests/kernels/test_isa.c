/*
 * test_isa: which level contains which, which one a machine gets when nobody asks, and what is said
 * of one that is not there.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Which level contains which: a level beside another is not over it. */
static void levels_stand_on_others(void **state)
{
    (void)state;
    static const struct {
        cp_isa isa;
        unsigned over; /* bit 1 << level */
    } rows[] = {
#define B(x) (1u << CP_ISA_##x)
        {CP_ISA_BASE, B(BASE)},
        {CP_ISA_AVX2, B(BASE) | B(AVX2)},
        {CP_ISA_AVXVNNI, B(BASE) | B(AVX2) | B(AVXVNNI)},
        {CP_ISA_AVX512, B(BASE) | B(AVX2) | B(AVX512)},
        {CP_ISA_VNNI, B(BASE) | B(AVX2) | B(AVX512) | B(VNNI)},
        {CP_ISA_BF16, B(BASE) | B(AVX2) | B(AVX512) | B(VNNI) | B(BF16)},
        {CP_ISA_AMX, B(BASE) | B(AVX2) | B(AVX512) | B(VNNI) | B(AMX)},
#undef B
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cp_cpu cpu = {.adds = rows[i].over};
        assert_int_equal(rows[i].isa, i);
        assert_true(cp_isa_on(&cpu, rows[i].isa));
        for (int below = 0; below < CP_ISA_COUNT; below++) {
            bool over = rows[i].over >> below & 1;
            assert_true(cp_isa_over(rows[i].isa, (cp_isa)below) == over);
            cpu.adds = rows[i].over & ~(1u << below); /* without a bit it stands on */
            assert_true(cp_isa_on(&cpu, rows[i].isa) == !over);
        }
    }
}

static void levels_by_name(void **state)
{
    (void)state;
    cp_isa isa;
    cp_err err = {0};
    assert_int_equal(setenv("CAPSTAN_CPU", "base", 1), 0);
    assert_int_equal(cp_isa_detect(NULL, &isa, &err), CP_OK);
    assert_int_equal(isa, CP_ISA_BASE);
    assert_int_equal(setenv("CAPSTAN_CPU", "", 1), 0);
    assert_int_equal(cp_isa_detect(NULL, &isa, &err), CP_OK);
    cp_cpu cpu = cp_isa_this_cpu();
    const cp_isa_default_row *row;
    assert_int_equal(isa, cp_isa_default(&cpu, &row));
    assert_int_equal(cp_isa_detect("base", &isa, &err), CP_OK);
    assert_int_equal(isa, CP_ISA_BASE);
    assert_int_equal(cp_isa_detect("sse9", &isa, &err), CP_USAGE);
    assert_non_null(strstr(err.msg, "'sse9' is unknown; take one of: base"));
    for (int i = 0; i < CP_ISA_COUNT; i++) {
        const char *name = cp_isa_name((cp_isa)i);
        char listed[16];
        snprintf(listed, sizeof listed, " %s", name);
        assert_int_equal(cp_isa_detect("sse9", &isa, &err), CP_USAGE);
        const char *at = strstr(err.msg, "take one of:");
        at = strstr(at, listed);
        bool in_list = at && (at[strlen(listed)] == ' ' || !at[strlen(listed)]);
        assert_true(in_list == cp_isa_there((cp_isa)i));
        if (cp_isa_there((cp_isa)i)) {
            assert_int_equal(cp_isa_detect(name, &isa, &err), CP_OK);
            assert_int_equal(isa, i);
        } else {
            assert_int_equal(setenv("CAPSTAN_CPU", name, 1), 0);
            assert_int_equal(cp_isa_detect(NULL, &isa, &err), CP_USAGE);
            assert_int_equal(strncmp(err.msg, "CAPSTAN_CPU '", 13), 0);
            assert_non_null(strstr(err.msg, "' is not on this machine"));
            assert_non_null(strstr(err.msg, "; take one of: base"));
            assert_true(!strstr(err.msg, "Linux 5.16") == (i != CP_ISA_AMX));
        }
    }
}

/* A machine of all levels, and one of some. */
static void levels_in_words(void **state)
{
    (void)state;
    char text[96];
    cp_cpu cpu = {.adds = (1u << CP_ISA_COUNT) - 1};
    cp_isa_describe_levels(&cpu, text, sizeof text);
    assert_string_equal(text, "base avx2 avxvnni avx512 vnni bf16 amx");
    cpu.adds = 1u << CP_ISA_BASE | 1u << CP_ISA_AVX2 | 1u << CP_ISA_AMX; /* on nothing below */
    cp_isa_describe_levels(&cpu, text, sizeof text);
    assert_string_equal(text, "base avx2; not on this machine: avxvnni avx512 vnni bf16 amx");
}

#define B(x)   (1u << CP_ISA_##x)
#define AVX2   (B(BASE) | B(AVX2))
#define AVX512 (AVX2 | B(AVX512))
#define VNNI   (AVX512 | B(VNNI))
#define BF16   (VNNI | B(BF16))

/* Processors made up for the test, and what they get. */
static void defaults(void **state)
{
    (void)state;
    static const struct {
        cp_cpu cpu;
        cp_isa level;
        bool row;
    } rows[] = {
        {{"AuthenticAMD", 25, 0x11, BF16}, CP_ISA_BF16, true},  /* measured */
        {{"AuthenticAMD", 25, 0x10, BF16}, CP_ISA_BF16, true},  /* the row's ends */
        {{"AuthenticAMD", 25, 0x1f, BF16}, CP_ISA_BF16, true},  /* and beyond them */
        {{"AuthenticAMD", 25, 0x0f, BF16}, CP_ISA_VNNI, false}, /* nobody measured */
        {{"AuthenticAMD", 25, 0x20, BF16}, CP_ISA_VNNI, false}, /* nobody measured */
        {{"AuthenticAMD", 24, 0x11, BF16}, CP_ISA_VNNI, false}, /* another family */
        {{"HygonGenuine", 25, 0x11, BF16}, CP_ISA_VNNI, false}, /* another vendor */
        {{"AuthenticAMD", 25, 0x11, VNNI}, CP_ISA_VNNI, false}, /* a guest sees less */
        {{"AuthenticAMD", 25, 0x11, AVX2}, CP_ISA_AVX2, false}, /* no zmm state */
        {{"AuthenticAMD", 25, 0x21, AVX2}, CP_ISA_AVX2, false}, /* Zen 3 */
        {{"AuthenticAMD", 26, 0x02, BF16 | B(AVXVNNI)}, CP_ISA_VNNI, false},
        {{"GenuineIntel", 6, 0xa7, BF16 | B(AVXVNNI) | B(AMX)}, CP_ISA_AMX, true}, /* measured */
        {{"GenuineIntel", 6, 0x8f, VNNI | B(AMX)}, CP_ISA_AMX, true}, /* the row's ends */
        {{"GenuineIntel", 6, 0xcf, VNNI | B(AMX)}, CP_ISA_AMX, true}, /* and beyond them */
        {{"GenuineIntel", 6, 0x8e, VNNI | B(AMX)}, CP_ISA_VNNI, false},
        {{"GenuineIntel", 6, 0xd0, VNNI | B(AMX)}, CP_ISA_VNNI, false},
        {{"GenuineIntel", 6, 0x8f, BF16 | B(AVXVNNI)}, CP_ISA_VNNI, false},    /* no tiles saved */
        {{"GenuineIntel", 6, 0x97, AVX2 | B(AVXVNNI)}, CP_ISA_AVXVNNI, false}, /* Alder Lake */
        {{"GenuineIntel", 6, 0x55, AVX512}, CP_ISA_AVX512, false},
        {{"GenuineIntel", 6, 0x3c, AVX2}, CP_ISA_AVX2, false},
        {{"GenuineIntel", 6, 0x2a, B(BASE)}, CP_ISA_BASE, false},
        {{"", 0, 0, B(BASE) | B(VNNI) | B(BF16)}, CP_ISA_BASE, false}, /* on nothing below */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const cp_isa_default_row *row = NULL;
        char text[256];
        cp_isa got = cp_isa_default(&rows[i].cpu, &row);
        if (got != rows[i].level || (row != NULL) != rows[i].row)
            fail_msg("%s family %d model %#x: %s, %s row", rows[i].cpu.vendor, rows[i].cpu.family,
                     (unsigned)rows[i].cpu.model, cp_isa_name(got), row ? "a" : "no");
        cp_isa_describe_default(&rows[i].cpu, text, sizeof text);
        assert_int_equal(strncmp(text, cp_isa_name(got), strlen(cp_isa_name(got))), 0);
        assert_non_null(strstr(text, !row ? "the highest of base avx2 avxvnni avx512 vnni)"
                                     : got == CP_ISA_AMX
                                         ? "(row GenuineIntel family 6 models 143 to 207, 2"
                                         : "(row AuthenticAMD family 25 models 16 to 31, 2"));
        if (row)
            assert_non_null(strstr(text, row->reason));
    }
}

/* First of all, so that nobody asked the kernel for tiles before. */
static void the_default_may_be_used(void **state)
{
    (void)state;
    cp_isa isa;
    cp_err err = {0};
    assert_int_equal(unsetenv("CAPSTAN_CPU"), 0);
    assert_int_equal(cp_isa_detect(NULL, &isa, &err), CP_OK);
    enum { K = 32, STRIDE = 4 * K };
    static const uint8_t panel[64 * K] __attribute__((aligned(64))),
        act[16 * STRIDE] __attribute__((aligned(64)));
    float tile[CP_LANES];
    cp_gemm_table t;
    cp_isa_gemm(&t, isa);
    cp_isa_enter(isa);
    t.gemm[CP_PANEL_BF16](panel, K, act, STRIDE, 1, tile);
    cp_isa_leave(isa);
    for (int i = 0; i < CP_LANES; i++)
        assert_float_equal(tile[i], 0.0f, 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_may_be_used),
        cmocka_unit_test(levels_stand_on_others),
        cmocka_unit_test(levels_by_name),
        cmocka_unit_test(levels_in_words),
        cmocka_unit_test(defaults),
    };
    return cmocka_run_group_tests_name("isa", tests, NULL, NULL);
}
