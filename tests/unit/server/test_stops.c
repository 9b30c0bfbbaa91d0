/* Stop strings: the result must not depend on where the text was cut. */
#include "harness.h"

#include "server/stops.h"

#include <stdlib.h>
#include <string.h>

/* The definition, slowly: the first end of any pattern, then the longest pattern that ends there.
 */
static size_t reference(const char *text, const cp_str *stop, int n, bool include, bool *met)
{
    size_t len = strlen(text);
    for (size_t end = 1; end <= len; end++) {
        size_t longest = 0;
        for (int i = 0; i < n; i++)
            if (stop[i].n <= end && memcmp(text + end - stop[i].n, stop[i].p, stop[i].n) == 0 &&
                stop[i].n > longest)
                longest = stop[i].n;
        if (longest > 0) {
            *met = true;
            return include ? end : end - longest;
        }
    }
    *met = false;
    return len;
}

/* Feed in pieces cut at a and b; compare with the reference. */
static void check(const char *text, const cp_str *stop, int n, size_t a, size_t b, bool include)
{
    cp_arena *arena = cp_arena_new(1 << 20);
    cp_stops *s = cp_stops_new(arena, stop, n);
    cp_stop_state st = {0};
    cp_buf out = {0};
    size_t len = strlen(text), cut[4] = {0, a, b, len};
    bool met = false, want_met;
    for (int i = 0; i < 3 && !met; i++)
        met = cp_stops_feed(s, &st, text + cut[i], cut[i + 1] - cut[i], include, &out);
    if (!met)
        cp_stops_flush(&st, &out);
    size_t want = reference(text, stop, n, include, &want_met);
    assert_int_equal(met, want_met);
    assert_int_equal(out.n, want);
    if (want > 0)
        assert_memory_equal(out.p, text, want);
    cp_buf_fini(&out);
    cp_stop_state_fini(&st);
    cp_arena_free(arena);
}

static void check_all_cuts(const char *text, const cp_str *stop, int n)
{
    size_t len = strlen(text);
    for (size_t a = 0; a <= len; a++)
        for (size_t b = a; b <= len; b++) {
            check(text, stop, n, a, b, false);
            check(text, stop, n, a, b, true);
        }
}

static void test_every_cut(void **state)
{
    (void)state;
    static const cp_str one[] = {{"STOP", 4}};
    static const cp_str self[] = {{"aab", 3}, {"abaaba", 6}};
    static const cp_str nested[] = {{"bc", 2}, {"abcd", 4}, {"c", 1}};
    static const cp_str wide[] = {{"\xC3\xA9t\xC3\xA9", 5}, {"\n\n", 2}};
    check_all_cuts("some STO then STOP and more", one, 1);
    check_all_cuts("STSTOSTOP", one, 1);
    check_all_cuts("no such word, ends in STO", one, 1);
    check_all_cuts("aaabaaabaab", self, 2);
    check_all_cuts("xxabcdxx", nested, 3);
    check_all_cuts("un \xC3\xA9t\xC3\xA9 indien\n\n", wide, 2);
}

static void test_random_against_reference(void **state)
{
    (void)state;
    unsigned seed = 1;
    for (int round = 0; round < 3000; round++) {
        char text[25], pat[4][6];
        cp_str stop[4];
        int n = 1 + rand_r(&seed) % 4;
        size_t len = (size_t)(rand_r(&seed) % 24);
        for (size_t i = 0; i < len; i++)
            text[i] = (char)('a' + rand_r(&seed) % 2);
        text[len] = '\0';
        for (int i = 0; i < n; i++) {
            stop[i] = (cp_str){pat[i], 1 + (size_t)(rand_r(&seed) % 6)};
            for (size_t k = 0; k < stop[i].n; k++)
                pat[i][k] = (char)('a' + rand_r(&seed) % 2);
        }
        size_t a = (size_t)rand_r(&seed) % (len + 1);
        check(text, stop, n, a, a + (size_t)rand_r(&seed) % (len - a + 1), round & 1);
    }
}

static void test_holds_back_prefix_only(void **state)
{
    (void)state;
    cp_arena *arena = cp_arena_new(1 << 20);
    static const cp_str stop[] = {{"STOP", 4}};
    cp_stops *s = cp_stops_new(arena, stop, 1);
    cp_stop_state st = {0};
    cp_buf out = {0};
    assert_false(cp_stops_feed(s, &st, "xyST", 4, false, &out));
    assert_string_equal(out.p, "xy");
    assert_false(cp_stops_feed(s, &st, "Az", 2, false, &out));
    assert_string_equal(out.p, "xySTAz");
    cp_buf_fini(&out);
    cp_stop_state_fini(&st);
    cp_arena_free(arena);
}

int run_stops_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_random_against_reference),
        cmocka_unit_test(test_holds_back_prefix_only),
    };
    return cmocka_run_group_tests_name("stops", tests, NULL, NULL);
}
