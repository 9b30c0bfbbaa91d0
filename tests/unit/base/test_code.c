/*
 * Errors, weight types, clock and version: the tables say what clients and GGUF rely on, messages
 * survive truncation.
 */
#include "tests/unit/base/suites.h"

#include "base/clock.h"
#include "base/code.h"
#include "base/dtype.h"
#include "base/version.h"

#include <string.h>

static void table_holds_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(cp_code_info(CP_OK)->exit, 0);
    assert_int_equal(cp_code_info(CP_USAGE)->exit, 2);
    assert_int_equal(cp_code_info(CP_NOT_FOUND)->exit, 3);
    assert_int_equal(cp_code_info(CP_CORRUPT)->exit, 4);
    assert_int_equal(cp_code_info(CP_NETWORK)->exit, 5);
    assert_int_equal(cp_code_info(CP_IO)->exit, 1);
    assert_int_equal(cp_code_info(CP_OVERLOADED)->http, 503);
    assert_string_equal(cp_code_info(CP_CONTEXT_LENGTH)->slug, "context_length_exceeded");
    assert_string_equal(cp_code_info(CP_RATE_LIMITED)->type, "rate_limit_error");
    assert_string_equal(cp_code_info(CP_CODE_COUNT)->name, "INTERNAL");
    for (int c = 1; c < CP_CODE_COUNT; c++) {
        const cp_code_row *r = cp_code_info((cp_code)c);
        assert_true(r->http >= 400 && r->http < 600 && r->exit >= 1 && r->exit <= 5);
        assert_true(*r->name && *r->slug && *r->type);
    }
}

static void fail_fills_the_error(void **state)
{
    (void)state;
    cp_err err;
    assert_int_equal(cp_fail(&err, CP_IO, "%d of %s", 3, "x"), CP_IO);
    assert_int_equal(err.code, CP_IO);
    assert_string_equal(err.msg, "3 of x");
    assert_string_equal(err.param, "");
    assert_int_equal(cp_fail_param(&err, CP_INVALID_VALUE, "messages[0]", "bad"), CP_INVALID_VALUE);
    assert_string_equal(err.param, "messages[0]");
    assert_int_equal(cp_err_prefix(&err, "line %d", 7), CP_INVALID_VALUE);
    assert_string_equal(err.msg, "line 7: bad");
    assert_string_equal(err.param, "messages[0]");
    assert_int_equal(cp_fail(NULL, CP_IO, "x"), CP_IO);
    assert_int_equal(cp_err_prefix(NULL, "x"), CP_INTERNAL);
}

/* A message that is cut inside a multi-byte character would be invalid UTF-8 in a JSON answer. */
static void fail_cuts_at_a_character(void **state)
{
    (void)state;
    cp_err err;
    for (size_t lead = 0; lead < 4; lead++) {
        char text[700];
        memset(text, 'a', lead);
        for (size_t i = lead; i + 4 < sizeof(text); i += 4)
            memcpy(text + i, "\xF0\x9F\x98\x80", 4);
        text[(sizeof(text) - lead - 1) / 4 * 4 + lead] = '\0';
        cp_fail_param(&err, CP_IO, text, "%s", text);
        assert_int_equal((strlen(err.msg) - lead) % 4, 0);
        assert_true(strlen(err.msg) > sizeof(err.msg) - 5);
        assert_int_equal((strlen(err.param) - lead) % 4, 0);
        cp_err_prefix(&err, "abc");
        assert_int_equal((strlen(err.msg) - lead - 5) % 4, 0);
    }
}

static void dtype_rows_are_ggufs(void **state)
{
    (void)state;
    static const struct {
        uint32_t id;
        const char *name;
        int block, bytes;
    } known[] = {{0, "F32", 1, 4},    {1, "F16", 1, 2},       {3, "Q4_1", 32, 20},
                 {8, "Q8_0", 32, 34}, {12, "Q4_K", 256, 144}, {14, "Q6_K", 256, 210},
                 {30, "BF16", 1, 2},  {39, "MXFP4", 32, 17}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        const cp_dtype_row *r = cp_dtype_info(known[i].id);
        assert_non_null(r);
        assert_string_equal(r->name, known[i].name);
        assert_int_equal(r->block, known[i].block);
        assert_int_equal(r->bytes, known[i].bytes);
    }
    static const uint32_t removed[] = {4, 5, 31, 32, 33, 36, 37, 38, 43, 63, 64, UINT32_MAX};
    for (size_t i = 0; i < sizeof(removed) / sizeof(removed[0]); i++)
        assert_null(cp_dtype_info(removed[i]));
    cp_tensor t = {.type = CP_DTYPE_Q4_K, .n_dims = 2, .ne = {512, 3, 1, 1}};
    assert_int_equal(cp_tensor_row_bytes(&t), 288);
}

static void clocks_and_version(void **state)
{
    (void)state;
    int64_t a = cp_now_ns(), b = cp_now_ns();
    assert_true(a > 0 && b >= a);
    assert_true(cp_wall_sec() > 1600000000);
    assert_non_null(strchr(cp_version(), '.'));
    assert_true(strlen(cp_version_commit()) >= 7);
}

int suite_code(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_holds_exit_codes),   cmocka_unit_test(fail_fills_the_error),
        cmocka_unit_test(fail_cuts_at_a_character), cmocka_unit_test(dtype_rows_are_ggufs),
        cmocka_unit_test(clocks_and_version),
    };
    return cmocka_run_group_tests_name("code", tests, NULL, NULL);
}
