/*
 * Log lines as they reach stderr: one line a record whatever the message holds, levels, JSON, rate
 * limits.
 */
#include "base/io.h"
#include "tests/unit/base/suites.h"

#include "base/clock.h"
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

static void log_objects(void)
{
    char much[8192];
    memset(much, 'x', sizeof(much));
    cp_snprintf(much, sizeof(much), ",\"a\":\"");
    much[6] = 'x';
    memcpy(much + sizeof(much) - 2, "\"", 2);
    cp_log_setup(CP_LOG_INFO, true);
    cp_log_object(CP_LOG_INFO, "some\n\"thing", ",\"id\":7,\"b\":true");
    cp_log_object(CP_LOG_INFO, "much", much);
    cp_log_object(CP_LOG_DEBUG, "not wanted", ",\"id\":8");
}

static void objects_have_fields_of_their_own(void **state)
{
    (void)state;
    cp_buf b = {0};
    char *s = capture(log_objects, &b);
    assert_int_equal(count_lines(s), 2);
    assert_non_null(strstr(
        s, "Z\",\"level\":\"info\",\"msg\":\"some\\u000a\\\"thing\",\"id\":7,\"b\":true}\n"));
    assert_non_null(strstr(s, ",\"msg\":\"much\",\"cut\":true}\n"));
    cp_buf_fini(&b);
}

static void log_limited(void)
{
    cp_log_setup(CP_LOG_INFO, false);
    for (int i = 0; i < 2000; i++) {
        cp_log(CP_LOG_INFO, "one of many number=%d", i);
        cp_log_each(CP_LOG_INFO, "each of them");
    }
    cp_log(CP_LOG_INFO, "another kind");
    int64_t now = cp_now_ns();
    cp_log_flush(now); /* the first kind has not been quiet so far */
    cp_log(CP_LOG_INFO, "it is quiet");
    cp_log_flush(now + 60000000000);
    cp_log_flush(now + 60000000000); /* once */
}

static int count(const char *text, const char *words)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, words)); at++)
        n++;
    return n;
}

/* A kind that repeats itself is limited, the others and what is wanted each time are not. */
static void lines_of_a_kind_stop_at_the_burst(void **state)
{
    (void)state;
    cp_buf b = {0};
    uint64_t before = cp_log_dropped();
    char *s = capture(log_limited, &b);
    int n = count(s, "info one of many");
    assert_true(n >= CP_LOG_BURST && n < 2000);
    assert_int_equal(count(s, "each of them"), 2000);
    assert_int_equal(count(s, "another kind"), 1);
    const char *quiet = strstr(s, "it is quiet"), *said = strstr(s, "log lines were left out");
    assert_true(quiet && said && quiet < said);
    assert_int_equal(count(s, "log lines were left out"), 1);
    int left_out = 0;
    assert_int_equal(sscanf(strstr(said, "dropped="), "dropped=%d", &left_out), 1);
    assert_int_equal(n + left_out, 2000); /* each was written or counted */
    assert_true(cp_log_dropped() - before >= (uint64_t)(2000 - n - CP_LOG_A_SECOND));
    cp_buf_fini(&b);
}

int suite_log(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_filter),
        cmocka_unit_test(control_bytes_are_escaped),
        cmocka_unit_test(long_messages_are_cut_whole),
        cmocka_unit_test(objects_have_fields_of_their_own),
        cmocka_unit_test(lines_of_a_kind_stop_at_the_burst),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
