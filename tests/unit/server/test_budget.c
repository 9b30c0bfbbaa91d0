/*
 * Memory of requests: what is too much in itself is refused by name and never with 503; what only
 * finds no room is 503; slow senders lose their place; nothing stays taken.
 */
#include "harness.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

static void repeat(cp_buf *b, const char *what, int n, const char *between)
{
    for (int i = 0; i < n; i++) {
        if (i > 0)
            cp_buf_adds(b, between);
        cp_buf_adds(b, what);
    }
}

static void wait_used(const harness *h, uint64_t least, uint64_t most)
{
    for (int i = 0; i < 30000; i++) {
        uint64_t used = cp_budget_used(h->s->budget);
        if (used >= least && used <= most)
            return;
        usleep(2000);
    }
    fail_msg("%llu bytes in use, not %llu to %llu",
             (unsigned long long)cp_budget_used(h->s->budget), (unsigned long long)least,
             (unsigned long long)most);
}

/* before, n times `what` with `between`, after */
typedef struct too_much {
    const char *path, *before, *what, *between, *after;
    int n, status;
    const char *code, *words; /* of the answer */
} too_much;

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"
#define SAYS "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"

static void check_rows(const harness *h, const too_much *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cp_buf b = {0};
        cp_buf_adds(&b, rows[i].before);
        repeat(&b, rows[i].what, rows[i].n, rows[i].between);
        cp_buf_adds(&b, rows[i].after);
        h_answer a = h_call(h, "POST", rows[i].path, NULL, b.p);
        if (a.status != rows[i].status || strcmp(h_error_code(&a), rows[i].code) != 0 ||
            !strstr(a.body.p, rows[i].words))
            fail_msg("row %zu: %d %.300s; wanted %d %s %s", i, a.status, a.body.p, rows[i].status,
                     rows[i].code, rows[i].words);
        h_answer_fini(&a);
        cp_buf_fini(&b);
    }
    assert_int_equal(cp_metric_get(h->process, CP_M_REQUESTS_503), 0);
    wait_used(h, 0, 0);
}

static void test_too_much_is_never_503(void **state)
{
    (void)state;
    static const too_much rows[] = {
        {"/tokenize", "{\"content\":\"a\",\"x\":[", "0", ",", "]}", 262144, 400, "invalid_value",
         "262144"},
        {CHAT, SAYS "\"x\":[", "{\"\":[]}", ",", "]}", 140000, 400, "invalid_value", "262144"},
        {CHAT,
         "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"arguments\":"
         "\"{\\\"a\\\":[",
         "[]", ",", "]}\"}}]}]}", 262144, 400, "invalid_value",
         "messages[0].tool_calls[0].function.arguments"},
        {"/tokenize", "{\"content\":\"a\",\"x\":", "[", "", "", 512, 400, "invalid_value", "512"},
        {TEXT, "{\"prompt\":[", "\"a\"", ",", "]}", 1025, 400, "invalid_value", "1024"},
        {TEXT, "{\"n\":128,\"prompt\":[", "\"a\"", ",", "]}", 17, 400, "invalid_value", "2048"},
        {TEXT, "{\"prompt\":[", "\"a\"", ",", "]}", 33, 400, "invalid_value", "--max-queue"},
        {TEXT, "{\"prompt\":\"a\",\"stop\":[", "\"a\"", ",", "]}", 17, 400, "invalid_value", "16"},
        {TEXT, "{\"prompt\":\"a\",\"stop\":\"", "a", "", "\"}", 1025, 400, "invalid_value", "1024"},
        {TEXT, "{\"prompt\":\"a\",\"stop_token_ids\":[", "1", ",", "]}", 129, 400, "invalid_value",
         "128"},
        {CHAT, SAYS "\"logprobs\":true,\"top_logprobs\":20,\"max_tokens\":2000,\"n\":", "128", "",
         "}", 1, 400, "invalid_value", "'top_logprobs', 'n' or 'max_tokens'"},
        {TEXT, "{\"echo\":true,\"logprobs\":20,\"max_tokens\":1,\"n\":64,\"prompt\":[",
         "\"01234567890123456789012345678901234567890123456789012345678901234567890123456789\"",
         ",", "]}", 32, 400, "invalid_value", "32 prompts with 'n' 64 and 20 alternatives"},
        {TEXT, "{\"prompt\":\"", "a", "", "\"}", 5000, 400, "context_length_exceeded", "4096"},
        {"/tokenize", "{\"content\":\"", "a", "", "\"}", 8 * MIB, 413, "payload_too_large",
         "8388608"},
    };
    harness h;
    h_open(&h, &(h_config){.max_queue = 32});
    check_rows(&h, rows, sizeof(rows) / sizeof(rows[0]));
    /* Ids of a long logit_bias. */
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"prompt\":\"a\",\"logit_bias\":{");
    for (int i = 0; i <= 1024; i++)
        cp_buf_printf(&b, "%s\"%d\":1", i ? "," : "", i);
    cp_buf_adds(&b, "}}");
    h_answer a = h_call(&h, "POST", TEXT, NULL, b.p);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body.p, "1024"));
    h_answer_fini(&a);
    cp_buf_fini(&b);
    h_close(&h);
}

/* Of what a template makes: its result, and its memory. */
static void test_what_templates_make_is_never_503(void **state)
{
    (void)state;
    static const too_much result[] = {{"/apply-template",
                                       "{\"messages\":[{\"role\":\"user\",\"content\":\"", "a", "",
                                       "\"}]}", MIB, 400, "template_error", "8 MiB"}};
    static const too_much memory[] = {{"/apply-template",
                                       "{\"messages\":[{\"role\":\"user\",\"content\":\"", "a", "",
                                       "\"}]}", 4 * MIB, 400, "invalid_value", "128 MiB"}};
    harness h;
    h_open(&h, &(h_config){.template_ = "{% for i in range(9) %}{{ messages[0].content }}"
                                        "{% endfor %}"});
    check_rows(&h, result, 1);
    h_close(&h);
    h_open(&h, &(h_config){.template_ = "{% for i in range(60) %}{% set x = i ~ "
                                        "messages[0].content %}{% endfor %}"});
    check_rows(&h, memory, 1);
    h_close(&h);
}

/* A budget that the request alone would break. */
static void test_more_than_the_whole_budget_is_413(void **state)
{
    (void)state;
    static const too_much rows[] = {
        {"/tokenize", "{\"content\":\"", "a", "", "\"}", MIB + 1, 413, "payload_too_large",
         "1048576"},
        {"/tokenize", "{\"content\":\"a\",\"x\":[", "{}", ",", "]}", 20000, 413,
         "payload_too_large", "--body-bytes"},
        {"/tokenize", "{\"content\":\"", "0123456789", "", "\"}", 60000, 413, "payload_too_large",
         "--body-bytes"},
        {CHAT, SAYS "\"logprobs\":true,\"top_logprobs\":", "20", "", "}", 1, 413,
         "payload_too_large", "log-probabilities"},
    };
    harness h;
    h_open(&h, &(h_config){.body_bytes = 4 * MIB, .ctx = 65536});
    h.script.endless = true;
    check_rows(&h, rows, sizeof(rows) / sizeof(rows[0]));
    /* Without its length at the head, it is refused where it has grown too long. */
    int fd = h_connect(&h);
    h_sends(fd, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                "100000\r\n");
    char *pad = calloc(1, MIB + 2);
    memset(pad, ' ', MIB);
    memcpy(pad + MIB, "\r\n", 2);
    h_send(fd, pad, MIB + 2);
    h_sends(fd, "10\r\n{\"content\":\"aa\"}\r\n0\r\n\r\n");
    h_answer a = {0};
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 413);
    h_answer_fini(&a);
    free(pad);
    close(fd);
    h_close(&h);
}

/* ---- room ---- */

/* A valid body of n bytes: a word and white space. */
static char *spacious(size_t n)
{
    static const char begin[] = "{\"content\":\"a\"";
    char *p = calloc(1, n + 1);
    memset(p, ' ', n);
    memcpy(p, begin, sizeof(begin) - 1);
    p[n - 1] = '}';
    return p;
}

static int begin_body(const harness *h, const char *body, size_t n, size_t now)
{
    char head[256];
    int fd = h_connect(h);
    cp_snprintf(head, sizeof(head),
                "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                "Content-Length: %zu\r\n\r\n",
                n);
    h_sends(fd, head);
    h_send(fd, body, now);
    return fd;
}

/* What was announced costs nothing, what nobody reads is not kept, what has come is paid. */
static void test_only_what_has_come_is_paid(void **state)
{
    (void)state;
    cp_api_key key;
    assert_int_equal(cp_api_key_parse("k", &key, NULL), CP_OK);
    harness h;
    h_open(&h, &(h_config){.keys = &key, .n_keys = 1});
    static const char *const refused[] = {
        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\n",                /* 401 */
        "POST /nothing HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: k\r\n", /* 404 */
        "PUT /tokenize HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: k\r\n", /* 405 */
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n",                    /* takes none */
        "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: k\r\n",
    };
    enum { N = sizeof(refused) / sizeof(refused[0]) };
    size_t n = 2 * MIB;
    char *body = spacious(n);
    int fd[N];
    for (int i = 0; i < N; i++) {
        fd[i] = h_connect(&h);
        h_sends(fd[i], refused[i]);
        h_sends(fd[i], "Content-Length: 2097152\r\n\r\n");
        h_send(fd[i], body, MIB);
    }
    int kept = h_connect(&h);
    h_sends(kept, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: k\r\n"
                  "Content-Type: application/json\r\nContent-Length: 2097152\r\n\r\n");
    h_send(kept, body, MIB);
    wait_used(&h, MIB, MIB + MIB / 2 + 8192);
    h_send(kept, body + MIB, MIB);
    h_answer a = {0};
    assert_true(h_read(kept, &a));
    assert_int_equal(a.status, 200);
    h_answer_fini(&a);
    close(kept);
    for (int i = 0; i < N; i++)
        close(fd[i]);
    free(body);
    h_wait_idle(&h);
    wait_used(&h, 0, 0);
    h_close(&h);
}

/* Two bodies hold the part for bodies: a third finds no room, a small one does; when the two have
 * gone on, so does the third. */
static void test_a_full_budget_is_503(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.body_bytes = 64 * MIB});
    size_t n = 8 * MIB - 8192, third = 2 * MIB;
    char *body = spacious(n), *other = spacious(third);
    int a = begin_body(&h, body, n, n - 1), b = begin_body(&h, body, n, n - 1);
    wait_used(&h, 2 * (uint64_t)(n - 1), 16 * MIB);
    int c = begin_body(&h, other, third, third - 1);
    h_answer r = {0};
    char retry[64];
    assert_true(h_read(c, &r)); /* before its end */
    assert_int_equal(r.status, 503);
    assert_string_equal(h_error_code(&r), "overloaded");
    assert_non_null(strstr(r.body.p, "--body-bytes"));
    assert_non_null(h_header(&r, "Retry-After", retry, sizeof(retry)));
    h_answer_fini(&r);
    close(c);
    r = h_call(&h, "POST", "/tokenize", NULL, "{\"content\":\"ab\"}");
    assert_int_equal(r.status, 200);
    h_answer_fini(&r);
    assert_int_equal(cp_metric_get(h.process, CP_M_BUDGET_REFUSED_BODIES), 1);
    close(a);
    close(b);
    wait_used(&h, 0, 0);
    c = begin_body(&h, other, third, third);
    assert_true(h_read(c, &r));
    assert_int_equal(r.status, 200);
    h_answer_fini(&r);
    close(c);
    free(body);
    free(other);
    h_close(&h);
}

/* Who holds the part for bodies and sends nothing is answered with 503 in favour of others. */
static void test_slow_bodies_give_way(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.body_bytes = 64 * MIB});
    size_t n = 8 * MIB - 8192, third = 2 * MIB;
    char *body = spacious(n), *other = spacious(third);
    int a = begin_body(&h, body, n, n - 1), b = begin_body(&h, body, n, n - 2);
    wait_used(&h, 2 * (uint64_t)(n - 2), 16 * MIB);
    int status = 503;
    for (int i = 0; i < 600 && status == 503; i++) {
        int c = begin_body(&h, other, third, third);
        h_answer r = {0};
        assert_true(h_read(c, &r));
        status = r.status;
        h_answer_fini(&r);
        close(c);
        usleep(100000);
    }
    assert_int_equal(status, 200);
    h_answer r = {0};
    assert_true(h_read(a, &r)); /* the larger */
    assert_int_equal(r.status, 503);
    assert_string_equal(h_error_code(&r), "overloaded");
    h_answer_fini(&r);
    close(a);
    close(b);
    free(body);
    free(other);
    h_close(&h);
}

int run_budget_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_too_much_is_never_503),
        cmocka_unit_test(test_what_templates_make_is_never_503),
        cmocka_unit_test(test_more_than_the_whole_budget_is_413),
        cmocka_unit_test(test_only_what_has_come_is_paid),
        cmocka_unit_test(test_a_full_budget_is_503),
        cmocka_unit_test(test_slow_bodies_give_way),
    };
    return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
