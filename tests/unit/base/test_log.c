/*
 * Log lines as they reach stderr: one line a record whatever the message holds, levels, JSON, rate
 * limits.
 */
#include "base/io.h"
#include "tests/unit/base/suites.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What fn writes to stderr. */
static char *capture(void (*fn)(void), cp_buf *out)
{
    char path[64];
    temp_file(path, "");
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    FILE *f = freopen(path, "a", stderr);
    assert_non_null(f);
    fn();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_int_equal(cp_file_read(path, 1 << 20, out, NULL), CP_OK);
    unlink(path);
    cp_log_setup(CP_LOG_INFO, false);
    return out->p;
}

static int count_lines(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += *s == '\n';
    return n;
}

static void log_levels(void)
{
    cp_log_setup(CP_LOG_WARN, false);
    cp_log(CP_LOG_ERROR, "one %d", 1);
    cp_log(CP_LOG_WARN, "two");
    cp_log(CP_LOG_INFO, "three");
}

static void levels_filter(void **state)
{
    (void)state;
    cp_buf b = {0};
    char *s = capture(log_levels, &b);
    assert_int_equal(count_lines(s), 2);
    assert_non_null(strstr(s, "Z error one 1\n"));
    assert_non_null(strstr(s, "Z warn two\n"));
    cp_buf_fini(&b);
}

static void log_hostile(void)
{
    cp_log(CP_LOG_INFO, "%s", "a\nb\"\x01\xFF\xC3\xA9\xED\xA0\x80\\\xC2\x9B\xC2\xA0");
}

static void log_hostile_json(void)
{
    cp_log_setup(CP_LOG_INFO, true);
    log_hostile();
}

/* A message from outside must not forge a second record or break a JSON reader. */
static void control_bytes_are_escaped(void **state)
{
    (void)state;
    cp_buf b = {0}, j = {0};
    char *s = capture(log_hostile, &b);
    assert_int_equal(count_lines(s), 1);
    assert_non_null(strstr(s, "info a\\x0ab\"\\x01\\xff\xC3\xA9\\xed\\xa0\\x80\\\\x9b\xC2\xA0\n"));
    s = capture(log_hostile_json, &j);
    assert_int_equal(count_lines(s), 1);
    assert_non_null(strstr(s, "\"level\":\"info\",\"msg\":\"a\\u000ab\\\"\\u0001\\ufffd\xC3\xA9"
                              "\\ufffd\\ufffd\\ufffd\\\\\\u009b\xC2\xA0\"}\n"));
    cp_buf_fini(&b);
    cp_buf_fini(&j);
}

static void log_long(void)
{
    cp_log_setup(CP_LOG_INFO, true);
    char text[5000];
    memset(text, '"', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    cp_log(CP_LOG_INFO, "%s", text);
}

static void long_messages_are_cut_whole(void **state)
{
    (void)state;
    cp_buf b = {0};
    char *s = capture(log_long, &b);
    assert_int_equal(count_lines(s), 1);
    assert_memory_equal(s + b.n - 5, "\\\"\"}\n", 5);
    cp_buf_fini(&b);
}

static void log_limited(void)
{
    for (int i = 0; i < 2000; i++)
        CP_LOG_LIMITED(CP_LOG_INFO, 5, "line");
}

static void limited_lines_stop_at_the_burst(void **state)
{
    (void)state;
    cp_buf b = {0};
    char *s = capture(log_limited, &b);
    int n = count_lines(s);
    assert_true(n >= 5 && n < 2000);
    cp_buf_fini(&b);
}

int suite_log(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_filter),
        cmocka_unit_test(control_bytes_are_escaped),
        cmocka_unit_test(long_messages_are_cut_whole),
        cmocka_unit_test(limited_lines_stop_at_the_burst),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
