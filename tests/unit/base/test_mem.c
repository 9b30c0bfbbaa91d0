/*
 * Memory: overflow, caps, alignment, sticky failure of buffers, file reads and bounded cursors.
 */
#include "tests/unit/base/suites.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void sizes_are_checked(void **state)
{
    (void)state;
    size_t r = 7;
    assert_false(cp_mul(SIZE_MAX, 2, &r));
    assert_int_equal(r, 7);
    assert_false(cp_add(SIZE_MAX, 1, &r));
    assert_int_equal(r, 7);
    assert_true(cp_mul(6, 7, &r));
    assert_int_equal(r, 42);
    assert_null(cp_alloc_aligned(SIZE_MAX - 10));
    unsigned char *p = cp_alloc_aligned(65);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (int i = 0; i < 128; i++)
        assert_int_equal(p[i], 0);
    free(p);
    char *s = cp_xstrdup("abc");
    assert_string_equal(s, "abc");
    s = cp_xrealloc(s, 100);
    assert_string_equal(s, "abc");
    free(s);
}

static void arena_aligns_zeroes_and_caps(void **state)
{
    (void)state;
    cp_arena *a = cp_arena_new(100000);
    size_t sum = 0;
    for (size_t n = 0; n < 300; n++) {
        unsigned char *p = cp_arena_alloc(a, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xAA, n); /* the next ones must not overlap it */
        sum += ((n ? n : 1) + 15) / 16 * 16;
    }
    assert_int_equal(cp_arena_used(a), sum);
    assert_null(cp_arena_alloc(a, 100000));
    assert_null(cp_arena_alloc(a, SIZE_MAX));
    assert_null(cp_arena_strndup(a, "x", SIZE_MAX));
    assert_int_equal(cp_arena_used(a), sum);
    /* exactly what is left fits, a byte more does not */
    size_t left = (100000 - sum) / 16 * 16;
    assert_null(cp_arena_alloc(a, left + 1));
    assert_non_null(cp_arena_alloc(a, left));
    assert_null(cp_arena_alloc(a, 1));
    cp_arena_free(a);
    cp_arena_free(NULL);
}

static void arena_survives_big_blocks(void **state)
{
    (void)state;
    cp_arena *a = cp_arena_new((size_t)8 << 20);
    char *small = cp_arena_strndup(a, "small", 5);
    char *big = cp_arena_alloc(a, (size_t)3 << 20);
    assert_non_null(big);
    memset(big, 'x', (size_t)3 << 20);
    char *after = cp_arena_printf(a, "%s-%d", "after", 1);
    assert_string_equal(small, "small");
    assert_string_equal(after, "after-1");
    assert_true(after > small && after < small + 4096); /* the block before is still being filled */
    cp_arena_free(a);
}

static void buffer_appends(void **state)
{
    (void)state;
    cp_buf b = {0};
    assert_true(cp_buf_adds(&b, "ab") && cp_buf_addc(&b, 'c') && cp_buf_printf(&b, "%d", 45));
    assert_string_equal(b.p, "abc45");
    cp_buf_consume(&b, 2);
    assert_string_equal(b.p, "c45");
    assert_int_equal(b.n, 3);
    for (int i = 0; i < 10000; i++)
        cp_buf_printf(&b, "%04d", i);
    assert_int_equal(b.n, 40003);
    assert_memory_equal(b.p + b.n - 4, "9999", 5);
    cp_buf_clear(&b);
    assert_string_equal(b.p, "");
    assert_true(b.cap > 0);
    cp_buf_fini(&b);
    assert_null(b.p);
}

/* Formatted text that just fits, that does not fit into what is allocated, and that may not grow.
 */
static void formatted_text_finds_its_room(void **state)
{
    (void)state;
    for (int room = 0; room < 70; room++) {
        for (int n = 0; n < 70; n++) {
            cp_buf b = {.max = 100};
            cp_buf_reserve(&b, 63);
            for (int i = 0; i < 63 - room; i++)
                cp_buf_addc(&b, '-');
            size_t before = b.n;
            bool ok = cp_buf_printf(&b, "%*d", n, 7);
            size_t want = n ? (size_t)n : 1;
            assert_int_equal(ok, before + want <= 100);
            assert_int_equal(b.n, ok ? before + want : before);
            assert_int_equal(strlen(b.p), b.n);
            assert_int_equal(b.p[b.n - 1], ok ? '7' : '-');
            cp_buf_fini(&b);
        }
    }
}

/* A chain of appends is checked once at its end: no later append may succeed after one that did not
 * fit. */
static void buffer_failure_is_sticky(void **state)
{
    (void)state;
    cp_buf b = {.max = 10};
    assert_true(cp_buf_adds(&b, "12345678"));
    assert_false(cp_buf_adds(&b, "abc"));
    assert_true(b.failed);
    assert_false(cp_buf_addc(&b, 'x'));
    assert_false(cp_buf_printf(&b, "%d", 1));
    assert_string_equal(b.p, "12345678");
    cp_buf_clear(&b);
    assert_true(cp_buf_adds(&b, "1234567890"));
    assert_false(cp_buf_reserve(&b, SIZE_MAX));
    cp_buf_fini(&b);
}

static void strings_are_bounded(void **state)
{
    (void)state;
    char d[4];
    assert_int_equal(cp_snprintf(d, sizeof(d), "%s", "abcdef"), 3);
    assert_string_equal(d, "abc");
    assert_int_equal(cp_snprintf(d, 0, "x"), 0);
    assert_false(cp_strcopy(d, sizeof(d), "wxyz"));
    assert_string_equal(d, "wxy");
    assert_true(cp_strcopy(d, sizeof(d), "abc"));
    assert_false(cp_strcopy(d, 0, ""));
}

/* What would steer a terminal is seen; other bytes stay as they are, also where they are cut. */
static void beginnings_and_ends(void **state)
{
    (void)state;
    assert_true(cp_has_prefix("abc", "ab") && cp_has_prefix("abc", "") && cp_has_prefix("", ""));
    assert_false(cp_has_prefix("ab", "abc"));
    assert_false(cp_has_prefix("Abc", "ab"));
    assert_true(cp_has_suffix("abc", "bc") && cp_has_suffix("abc", "abc") &&
                cp_has_suffix("a", ""));
    assert_false(cp_has_suffix("bc", "abc"));
    assert_false(cp_has_suffix("abcd", "abc"));
    assert_true(cp_lower('A') == 'a' && cp_lower('Z') == 'z' && cp_lower('a') == 'a');
    assert_true(cp_lower('@') == '@' && cp_lower('[') == '[' && cp_lower('\xc4') == '\xc4');
}

static void text_for_a_terminal(void **state)
{
    (void)state;
    char text[] = "a\x1b]0;b\x07\n\x7f\xC2\x9B\xC2\xA0\xC3\xA9\xFF\xC2";
    assert_true(cp_control("\x1b") == 1 && cp_control("\xC2\x80") == 2 && cp_control("\xC2") == 0);
    assert_true(cp_control("") == 0 && cp_control(" ") == 0 && cp_control("\xC2\xA0") == 0);
    cp_printable(text);
    assert_string_equal(text, "a?]0;b?????\xC2\xA0\xC3\xA9\xFF\xC2");
}

static void cursor_never_reads_past_the_end(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    for (size_t n = 0; n <= sizeof(bytes); n++) {
        uint8_t *exact = malloc(n ? n : 1); /* a sanitizer sees any byte past it */
        memcpy(exact, bytes, n);
        uint8_t b = 0;
        uint16_t h = 0;
        uint32_t w = 0;
        uint64_t d = 0;
        const uint8_t *p;
        cp_cursor c = {exact, n, 0};
        assert_int_equal(cp_cur_u8(&c, &b), n >= 1);
        c.off = 0;
        assert_int_equal(cp_cur_u16(&c, &h), n >= 2);
        assert_int_equal(c.off, n >= 2 ? 2 : 0);
        c.off = 0;
        assert_int_equal(cp_cur_u32(&c, &w), n >= 4);
        c.off = 0;
        assert_int_equal(cp_cur_u64(&c, &d), n >= 8);
        assert_int_equal(h, n >= 2 ? 0x0201 : 0);
        assert_int_equal(w, n >= 4 ? 0x04030201 : 0);
        assert_true(d == (n >= 8 ? UINT64_C(0x0807060504030201) : 0));
        c.off = 0;
        assert_true(cp_cur_bytes(&c, n, &p));
        assert_false(cp_cur_bytes(&c, 1, &p));
        assert_false(cp_cur_bytes(&c, SIZE_MAX, &p));
        c.off = n + 5; /* a cursor that was moved past its end has nothing left */
        assert_false(cp_cur_bytes(&c, 1, &p));
        free(exact);
    }
}

int suite_mem(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(arena_aligns_zeroes_and_caps),
        cmocka_unit_test(arena_survives_big_blocks),
        cmocka_unit_test(buffer_appends),
        cmocka_unit_test(formatted_text_finds_its_room),
        cmocka_unit_test(buffer_failure_is_sticky),
        cmocka_unit_test(strings_are_bounded),
        cmocka_unit_test(beginnings_and_ends),
        cmocka_unit_test(text_for_a_terminal),
        cmocka_unit_test(cursor_never_reads_past_the_end),
    };
    return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
