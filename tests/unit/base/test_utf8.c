/* The decoder against what UTF-8 is: every character, and every sequence of up to three bytes. */
#include "tests/unit/base/suites.h"

#include "base/utf8.h"

#include <string.h>

/* Every scalar value comes back, and no shorter piece of it is anything. */
static void test_every_character(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        char b[4];
        uint32_t got = 0xFFFFFFFF;
        size_t n = cp_utf8_encode(c, b);
        if (c >= 0xD800 && c <= 0xDFFF) {
            assert_int_equal(cp_utf8_decode(b, n, &got), 0);
            assert_int_equal(got, 0xFFFFFFFF); /* left alone */
            continue;
        }
        assert_int_equal(n, c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
        assert_int_equal(cp_utf8_need((uint8_t)b[0]), n);
        assert_int_equal(cp_utf8_decode(b, n, &got), n);
        assert_int_equal(got, c);
        for (size_t cut = 0; cut < n; cut++)
            assert_int_equal(cp_utf8_len(b, cut), 0);
    }
}

/* As all characters come back, counts of what is taken leave no room for anything else. */
static void test_nothing_else(void **state)
{
    (void)state;
    size_t two = 0, three = 0, four = 0;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        const char b[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
        size_t n = cp_utf8_len(b, 3);
        two += n == 2 && b[2] == 0;
        three += n == 3;
    }
    static const uint8_t ends[] = {0x7F, 0x80, 0xBF, 0xC0};
    for (uint32_t v = 0; v < 1u << 20; v++) { /* any two bytes, four of either behind them */
        const char b[4] = {(char)(v >> 12), (char)(v >> 4), (char)ends[v & 3],
                           (char)ends[v >> 2 & 3]};
        four += cp_utf8_len(b, 4) == 4;
    }
    assert_int_equal(two, 0x800 - 0x80);
    assert_int_equal(three, 0x10000 - 0x800 - 0x800);
    assert_int_equal(four, (0x110000 - 0x10000) / 64 / 64 * 4);
}

static void test_texts(void **state)
{
    (void)state;
    static const char good[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";
    size_t n = sizeof(good) - 1;
    assert_true(cp_utf8_valid(good, n));
    assert_int_equal(cp_utf8_count(good, n), 5);
    assert_true(cp_utf8_valid("", 0));
    for (size_t i = 0; i < n; i++) { /* a stray byte before each */
        char bad[sizeof(good) + 1];
        memcpy(bad, good, i);
        bad[i] = (char)0xFF;
        memcpy(bad + i + 1, good + i, n - i);
        assert_false(cp_utf8_valid(bad, n + 1));
        assert_true(cp_utf8_valid_n(bad, n + 1) <= i);
    }
    assert_int_equal(cp_utf8_valid_n(good, n - 2), n - 5); /* cut inside of the last but one */
}

int suite_utf8(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_nothing_else),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
