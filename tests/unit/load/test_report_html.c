/* The HTML report of made results: what it says, what it escapes, how large it gets. */
#include "tests/support/cmocka.h"
#include "tests/unit/load/made.h"

#include "bench/load/html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char *page(made_kind kind)
{
    cp_buf b = {0};
    cp_load_result *r = made_new(kind);
    cp_load_report_html(r, &b);
    assert_false(b.failed);
    made_free(r);
    return b.p;
}

static size_t count(const char *page, const char *what)
{
    size_t n = 0;
    for (const char *at = page; (at = strstr(at, what)); at += strlen(what))
        n++;
    return n;
}

static void every_page_is_whole(void **state)
{
    (void)state;
    for (int k = 0; k < MADE_KINDS; k++) {
        char *p = page((made_kind)k);
        assert_ptr_equal(strstr(p, "<!DOCTYPE html>"), p);
        assert_non_null(strstr(p, "</main></body></html>\n"));
        assert_int_equal(count(p, "<svg"), count(p, "</svg>"));
        assert_int_equal(count(p, "<script"), 0);
        /* a figure that is not there is a dash, in a plot it is nothing */
        assert_null(strstr(p, "nan"));
        assert_null(strstr(p, "inf\""));
        free(p);
    }
}

static void plots_are_there(void **state)
{
    (void)state;
    char *usual = page(MADE_USUAL), *empty = page(MADE_EMPTY), *sweep = page(MADE_SWEEP);
    /* four distributions, four time lines, two clouds of requests; lag is small */
    assert_int_equal(count(usual, "role=\"img\""), 10);
    assert_int_equal(count(empty, "role=\"img\""), 0);
    assert_int_equal(count(empty, "no request came so far"), 4);
    assert_int_equal(count(sweep, "role=\"img\""), 4 + 9 * 10);
    assert_non_null(strstr(sweep, "gave way at 40/s"));
    assert_non_null(strstr(sweep, "The highest load that the server held, 32 requests a second"));
    assert_non_null(
        strstr(sweep, "The server kept up with 32 requests a second and gave way at 40."));
    free(usual);
    free(empty);
    free(sweep);
}

static void figures_are_those_of_the_run(void **state)
{
    (void)state;
    cp_load_result *r = made_new(MADE_USUAL);
    const cp_load_run *run = r->runs;
    const double v[] = {run->ttft.mean, run->ttft.p50, run->ttft.p99, run->itl.p95,
                        run->tpot.p90,  run->e2e.max,  run->lag.p50};
    cp_buf want = {0}, got = {0};
    cp_load_report_html(r, &got);
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        cp_buf_clear(&want);
        cp_html_cell(&want, v[i], 2);
        assert_non_null(strstr(got.p, want.p));
    }
    for (int o = 0; o < CP_LOAD_OUTCOME_COUNT; o++) {
        assert_true(run->by_outcome[o] > 0);
        assert_non_null(strstr(got.p, cp_load_outcome_words((cp_load_outcome)o)));
    }
    cp_buf_fini(&want);
    cp_buf_fini(&got);
    made_free(r);
}

/* Nothing of a hostile string is read as HTML, and no invisible character is left of it. */
static void strings_stay_text(void **state)
{
    (void)state;
    char *p = page(MADE_HOSTILE);
    assert_null(strstr(p, "<img"));
    assert_null(strstr(p, "<!--"));
    assert_null(strstr(p, "\" onload"));
    assert_int_equal(count(p, "</title>"), count(p, "<title>"));
    assert_int_equal(count(p, "</style>"), 1);
    assert_int_equal(count(p, "<h1"), 1);
    assert_null(strstr(p, "\xE2\x80\xAE"));
    assert_null(strchr(p, '\x1B'));
    assert_null(strchr(p, '\xFF'));
    assert_non_null(strstr(p, "&lt;script&gt;alert(1)"));
    assert_non_null(strstr(p, "&amp;lt;"));
    free(p);
}

static void sizes_are_bounded(void **state)
{
    (void)state;
    char *many = page(MADE_MANY), *usual = page(MADE_USUAL);
    assert_true(strlen(many) < 400 << 10);
    assert_non_null(strstr(many, "Shown are, of each kind: ok one in "));
    assert_non_null(strstr(many, "A point is 15 seconds"));
    assert_null(strstr(usual, "Shown are"));
    assert_null(strstr(usual, "A point is"));
    free(many);
    free(usual);
}

static void numbers_for_people(void **state)
{
    (void)state;
#define NBSP "\xC2\xA0"
    static const struct {
        double v;
        cp_html_unit unit;
        const char *want;
    } rows[] = {{0, CP_HTML_PLAIN, "0"},
                {1234567, CP_HTML_PLAIN, "1,234,567"},
                {-1234, CP_HTML_PLAIN, "-1,234"},
                {56.72, CP_HTML_PLAIN, "56.7"},
                {0.12345, CP_HTML_PLAIN, "0.123"},
                {999.6, CP_HTML_PLAIN, "1,000"},
                {4.2, CP_HTML_MS, "4.2" NBSP "ms"},
                {824.4, CP_HTML_MS, "824" NBSP "ms"},
                {1240, CP_HTML_MS, "1.24" NBSP "s"},
                {150000, CP_HTML_MS, "2.5" NBSP "min"},
                {0.973, CP_HTML_SHARE, "97.3" NBSP "%"},
                {90, CP_HTML_SECONDS, "90" NBSP "s"},
                {0, CP_HTML_NINES, "p0"},
                {2, CP_HTML_NINES, "p99"},
                {3, CP_HTML_NINES, "p99.9"},
                {(double)NAN, CP_HTML_MS, "\xE2\x80\x93"},
                {(double)INFINITY, CP_HTML_PLAIN, "\xE2\x80\x93"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_buf b = {0};
        cp_html_number(&b, rows[i].v, rows[i].unit);
        assert_string_equal(b.p, rows[i].want);
        cp_buf_fini(&b);
    }
    cp_buf b = {0};
    cp_html_fixed(&b, 1234567.891, 2);
    assert_string_equal(b.p, "1,234,567.89");
    cp_buf_clear(&b);
    cp_html_fixed(&b, -123.4, 1);
    assert_string_equal(b.p, "-123.4");
    cp_buf_fini(&b);
}

static void long_strings_end(void **state)
{
    (void)state;
    char *s = cp_xcalloc(1, 1 << 20);
    memset(s, '<', (1 << 20) - 1);
    cp_buf b = {0};
    cp_html_text(&b, s);
    assert_true(b.n < 1100);
    assert_true(cp_has_suffix(b.p, "&lt;\xE2\x80\xA6"));
    cp_buf_fini(&b);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_is_whole),
        cmocka_unit_test(plots_are_there),
        cmocka_unit_test(figures_are_those_of_the_run),
        cmocka_unit_test(strings_stay_text),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(numbers_for_people),
        cmocka_unit_test(long_strings_end),
    };
    return cmocka_run_group_tests_name("report_html", tests, NULL, NULL);
}
