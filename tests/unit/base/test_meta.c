/*
 * The metadata view: order, duplicates, many keys, conversions that fit and those that do not,
 * unaligned arrays.
 */
#include "tests/unit/base/suites.h"

#include "base/meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cp_str str(const char *s)
{
    return (cp_str){s, strlen(s)};
}

static cp_meta_kv scalar(const char *key, cp_meta_type type)
{
    return (cp_meta_kv){.key = str(key), .type = type, .count = 1};
}

static void keys_are_found_in_order(void **state)
{
    (void)state;
    enum { N = 5000 };
    char(*names)[16] = calloc(N, sizeof(*names));
    cp_meta *m = cp_meta_new();
    assert_null(cp_meta_find(m, "x"));
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof(names[i]), "key.%d", i);
        cp_meta_kv kv = scalar(names[i], CP_META_U32);
        kv.v.u = (uint64_t)i;
        assert_true(cp_meta_put(m, &kv));
        assert_false(cp_meta_put(m, &kv));
    }
    assert_int_equal(cp_meta_count(m), N);
    for (int i = 0; i < N; i++) {
        uint64_t v = 0;
        assert_true(cp_meta_u64(m, names[i], &v));
        assert_int_equal(v, i);
        assert_ptr_equal(cp_meta_at(m, (size_t)i), cp_meta_find(m, names[i]));
    }
    assert_null(cp_meta_at(m, N));
    assert_null(cp_meta_find(m, "key."));
    cp_meta_free(m);
    cp_meta_free(NULL);
    free(names);
}

static void getters_convert_what_fits(void **state)
{
    (void)state;
    cp_meta *m = cp_meta_new();
    cp_meta_kv kv = scalar("big", CP_META_U64);
    kv.v.u = UINT64_MAX;
    cp_meta_put(m, &kv);
    kv = scalar("minus", CP_META_I8);
    kv.v.i = -5;
    cp_meta_put(m, &kv);
    kv = scalar("half", CP_META_F32);
    kv.v.f = 0.5;
    cp_meta_put(m, &kv);
    kv = scalar("yes", CP_META_BOOL);
    kv.v.u = 1;
    cp_meta_put(m, &kv);
    kv = scalar("text", CP_META_STRING);
    kv.v.s = str("abc");
    cp_meta_put(m, &kv);
    uint64_t u = 1;
    int64_t i = 1;
    double f = 1;
    bool b = false;
    cp_str s = {0};
    assert_true(cp_meta_u64(m, "big", &u) && u == UINT64_MAX);
    assert_false(cp_meta_i64(m, "big", &i));
    assert_true(cp_meta_i64(m, "minus", &i) && i == -5);
    assert_false(cp_meta_u64(m, "minus", &u));
    assert_true(cp_meta_f64(m, "minus", &f) && f == -5);
    assert_true(cp_meta_f64(m, "half", &f) && f == 0.5);
    assert_false(cp_meta_i64(m, "half", &i));
    assert_true(cp_meta_bool(m, "yes", &b) && b);
    assert_false(cp_meta_u64(m, "yes", &u));
    assert_false(cp_meta_bool(m, "half", &b));
    assert_true(cp_meta_str(m, "text", &s) && s.n == 3);
    assert_false(cp_meta_f64(m, "text", &f));
    assert_false(cp_meta_str(m, "none", &s));
    cp_meta_free(m);
}

static void arrays_are_read_unaligned(void **state)
{
    (void)state;
    static const unsigned char bytes[] = {0xAA, 0xFE, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x80, 0x3F};
    cp_meta_kv kv = {.type = CP_META_ARRAY, .elem = CP_META_I32, .count = 2, .v.a = bytes + 1};
    int64_t i = 0;
    double f = 0;
    cp_str s = {0};
    assert_true(cp_meta_arr_i64(&kv, 0, &i) && i == -2);
    assert_true(cp_meta_arr_f64(&kv, 0, &f) && f == -2);
    assert_false(cp_meta_arr_i64(&kv, 2, &i));
    assert_false(cp_meta_arr_str(&kv, 0, &s));
    kv.elem = CP_META_F32;
    assert_true(cp_meta_arr_f64(&kv, 1, &f) && f == 1.0);
    assert_false(cp_meta_arr_i64(&kv, 1, &i));
    kv.elem = CP_META_U16;
    assert_true(cp_meta_arr_i64(&kv, 0, &i) && i == 0xFFFE);
    kv.elem = CP_META_I16;
    assert_true(cp_meta_arr_i64(&kv, 0, &i) && i == -2);
    kv.elem = CP_META_I8;
    assert_true(cp_meta_arr_i64(&kv, 0, &i) && i == -2);
    kv.elem = CP_META_BOOL;
    assert_true(cp_meta_arr_i64(&kv, 0, &i) && i == 1);
    assert_false(cp_meta_arr_f64(&kv, 0, &f));
    static const unsigned char max[8] = {255, 255, 255, 255, 255, 255, 255, 255};
    cp_meta_kv wide = {.type = CP_META_ARRAY, .elem = CP_META_U64, .count = 1, .v.a = max};
    assert_false(cp_meta_arr_i64(&wide, 0, &i));
    assert_true(cp_meta_arr_f64(&wide, 0, &f) && f > 1.8e19);
    wide.elem = CP_META_I64;
    assert_true(cp_meta_arr_i64(&wide, 0, &i) && i == -1);
    wide.type = CP_META_I64; /* not an array */
    assert_false(cp_meta_arr_i64(&wide, 0, &i));
    const cp_str strings[] = {str("a"), str("bc")};
    cp_meta_kv text = {.type = CP_META_ARRAY, .elem = CP_META_STRING, .count = 2, .v.a = strings};
    assert_true(cp_meta_arr_str(&text, 1, &s) && s.n == 2);
    assert_false(cp_meta_arr_str(&text, 2, &s));
    assert_false(cp_meta_arr_i64(&text, 0, &i));
}

int suite_meta(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_found_in_order),
        cmocka_unit_test(getters_convert_what_fits),
        cmocka_unit_test(arrays_are_read_unaligned),
    };
    return cmocka_run_group_tests_name("meta", tests, NULL, NULL);
}
