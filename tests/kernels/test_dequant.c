/*
 * test_dequant: rows of every GGUF type against digests of gguf/quants.py's values, and the
 * integer form of every quantized type against its own row.
 */
#include "kernels/math.h"
#include "kernels/unpack.h"
#include "tests/kernels/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct golden {
    const char *name;
    int type, n;
    uint64_t digest;
    const char *hex;
} goldens[] = {
#include "tests/kernels/generated/golden_dequant.inc"
};
#define N_GOLDENS ((int)(sizeof goldens / sizeof *goldens))

static int nibble(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static uint64_t digest(const float *x, int n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (int i = 0; i < n; i++) {
        uint32_t bits = cp_f32_bits(x[i] + 0.0f); /* -0 as 0 */
        for (int b = 0; b < 4; b++)
            h = (h ^ (bits >> (8 * b) & 255)) * 0x100000001b3u;
    }
    return h;
}

static void test_rows_equal_gguf(void **state)
{
    (void)state;
    for (int g = 0; g < N_GOLDENS; g++) {
        uint8_t raw[3 * 292];
        float x[3 * 256];
        size_t bytes = strlen(goldens[g].hex) / 2;
        const cp_dtype_row *info = cp_dtype_info((uint32_t)goldens[g].type);
        assert_non_null(info);
        assert_string_equal(info->name, goldens[g].name);
        assert_true(bytes <= sizeof raw && goldens[g].n <= 3 * 256);
        for (size_t i = 0; i < bytes; i++)
            raw[i] =
                (uint8_t)(nibble(goldens[g].hex[2 * i]) << 4 | nibble(goldens[g].hex[2 * i + 1]));
        cp_tensor t = {.name = "golden",
                       .type = (cp_dtype)goldens[g].type,
                       .ne = {goldens[g].n, 1, 1, 1},
                       .data = raw};
        cp_dequant_row(&t, 0, x);
        if (digest(x, goldens[g].n) != goldens[g].digest)
            fail_msg("%s: the values are not gguf's", goldens[g].name);
    }
}

/* Nothing that a linear accepts is without a golden. */
static void test_every_type_has_a_golden(void **state)
{
    (void)state;
    for (int i = 0; cp_test_types[i] >= 0; i++) {
        int found = 0;
        for (int g = 0; g < N_GOLDENS; g++)
            found += goldens[g].type == cp_test_types[i];
        assert_int_equal(found, 1);
    }
    for (uint32_t t = 0; t < CP_DTYPE_LIMIT; t++) {
        bool listed = false;
        for (int i = 0; cp_test_types[i] >= 0; i++)
            listed = listed || cp_test_types[i] == (int)t;
        assert_int_equal(listed,
                         cp_dtype_info(t) && cp_panel_kind_of((cp_dtype)t) != CP_PANEL_COUNT);
    }
}

/* value = wd * q (+ wm), and the traits tell what the blocks hold. */
static void test_integer_form(void **state)
{
    (void)state;
    for (int i = 0; cp_test_types[i] >= 0; i++) {
        cp_dtype type = (cp_dtype)cp_test_types[i];
        cp_quant_traits traits = cp_quant_info(type);
        if (!traits.quantized)
            continue;
        cp_tensor t = cp_test_tensor(type, 512, 1, (uint64_t)i + 40);
        float x[512];
        cp_dequant_row(&t, 0, x);
        for (int b = 0; b < 16; b++) {
            cp_qblock q;
            cp_unquant_block(type, t.data, b, &q);
            assert_int_equal(q.group16, traits.group16);
            assert_int_equal(q.has_min, traits.has_min);
            assert_true(q.group16 || (q.wd[0] == q.wd[1] && q.wm[0] == q.wm[1]));
            for (int j = 0; j < CP_QBLOCK; j++) {
                float v = q.wd[j / 16] * (float)q.q[j];
                v = q.has_min ? v + q.wm[j / 16] : v;
                assert_true(v == x[CP_QBLOCK * b + j]);
            }
        }
        cp_test_free(&t);
    }
}

static void test_plain_integers(void **state)
{
    (void)state;
    const int8_t a[3] = {-128, 0, 127};
    const int16_t b[3] = {-32768, 5, 32767};
    const int32_t c[3] = {-7, 1 << 24, 9};
    const int64_t d[3] = {-1, (int64_t)1 << 40, 3};
    const double e[3] = {0.5, -1e300, 0.1};
    const struct {
        cp_dtype type;
        const void *data;
        float want[3];
    } rows[] = {{CP_DTYPE_I8, a, {-128, 0, 127}},
                {CP_DTYPE_I16, b, {-32768, 5, 32767}},
                {CP_DTYPE_I32, c, {-7, 16777216, 9}},
                {CP_DTYPE_I64, d, {-1, 0x1p40f, 3}},
                {CP_DTYPE_F64, e, {0.5f, -INFINITY, 0.1f}}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float x[3];
        cp_tensor t = {.type = rows[i].type, .ne = {3, 1, 1, 1}, .data = rows[i].data};
        cp_dequant_row(&t, 0, x);
        assert_memory_equal(x, rows[i].want, sizeof x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_equal_gguf),
        cmocka_unit_test(test_every_type_has_a_golden),
        cmocka_unit_test(test_integer_form),
        cmocka_unit_test(test_plain_integers),
    };
    return cmocka_run_group_tests_name("dequant", tests, NULL, NULL);
}
