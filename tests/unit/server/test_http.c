/* Below the routes: framing, limits, deadlines, connections, hostile clients. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Send raw bytes; status of the first answer (0: closed without one), *closed: the connection ended
 * after it. */
static int raw(const harness *h, const char *bytes, size_t n, bool *closed)
{
    int fd = h_connect(h);
    h_send(fd, bytes, n);
    h_answer a = {0};
    int status = h_read(fd, &a) ? a.status : 0;
    h_answer_fini(&a);
    shutdown(fd, SHUT_WR);
    char ch;
    *closed = status == 0 || recv(fd, &ch, 1, 0) <= 0;
    close(fd);
    return status;
}

#define OK_HEAD "GET /health HTTP/1.1\r\nHost: a\r\n"
#define POST    "POST /tokenize HTTP/1.1\r\nHost: a\r\n"

static void test_ambiguous_framing_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        int status;
    } cases[] = {
        {OK_HEAD "\r\n", 200},
        {POST "Content-Length: 15\r\n\r\n{\"content\":\"a\"}", 200},
        {POST "Transfer-Encoding: chunked\r\n\r\nf\r\n{\"content\":\"a\"}\r\n0\r\n\r\n", 200},
        {POST "Content-Length: 15\r\nContent-Length: 15\r\n\r\n{\"content\":\"a\"}", 400},
        {POST "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {POST "Transfer-Encoding: gzip\r\n\r\n", 501},
        {"POST /tokenize HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {"GET /health HTTP/1.1\r\n\r\n", 400},
        {OK_HEAD "Host: b\r\n\r\n", 400},
        {OK_HEAD "A(b: c\r\n\r\n", 400},
        {OK_HEAD "A: b\x01"
                 "c\r\n\r\n",
         400},
        {"GET /hea%00lth HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET health HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"BREW /health HTTP/1.1\r\nHost: a\r\n\r\n", 501},
    };
    harness h;
    h_open(&h, &(h_config){0});
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool closed = false;
        int status = raw(&h, cases[i].bytes, strlen(cases[i].bytes), &closed);
        if (status != cases[i].status)
            fail_msg("case %zu: %d, wanted %d", i, status, cases[i].status);
        assert_true(closed);
    }
    h_close(&h);
}

static void test_smuggled_suffix_is_not_served(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    int fd = h_connect(&h);
    h_sends(fd, POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                     "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 400);
    h_answer_fini(&a);
    assert_false(h_read(fd, &a));
    close(fd);
    h_close(&h);
}

static void test_number_of_headers(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    for (int n = 99; n <= 100; n++) {
        cp_buf b = {0};
        bool closed;
        cp_buf_adds(&b, OK_HEAD);
        for (int i = 0; i < n; i++)
            cp_buf_printf(&b, "X-%d: y\r\n", i);
        cp_buf_adds(&b, "\r\n");
        assert_int_equal(raw(&h, b.p, b.n, &closed), n == 99 ? 200 : 431);
        cp_buf_fini(&b);
    }
    h_close(&h);
}

static void test_body_limit(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    /* Named before it is sent, with Expect: refused before 100. */
    int fd = h_connect(&h);
    h_sends(fd, POST "Expect: 100-continue\r\nContent-Length: 8388609\r\n\r\n");
    char first[13] = "";
    assert_int_equal(recv(fd, first, 12, MSG_WAITALL), 12);
    assert_string_equal(first, "HTTP/1.1 413");
    close(fd);
    /* Sent without asking: read, dropped and answered; the connection lives on. */
    size_t n = CP_BODY_MAX + 1;
    char *big = malloc(n + 1);
    memset(big, ' ', n);
    big[n] = '\0';
    fd = h_connect(&h);
    h_request(fd, "POST", "/tokenize", "", big);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 413);
    assert_string_equal(h_error_code(&a), "payload_too_large");
    h_answer_fini(&a);
    h_request(fd, "GET", "/health", "", NULL);
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 200);
    h_answer_fini(&a);
    close(fd);
    /* Without a length: cut off when it is too long. */
    fd = h_connect(&h);
    h_sends(fd, POST "Transfer-Encoding: chunked\r\n\r\n");
    cp_buf chunk = {0};
    cp_buf_printf(&chunk, "%zx\r\n", n);
    h_send(fd, chunk.p, chunk.n);
    h_send(fd, big, n);
    h_sends(fd, "\r\n0\r\n\r\n");
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 413);
    h_answer_fini(&a);
    close(fd);
    cp_buf_fini(&chunk);
    /* Exactly the limit is taken (and is no JSON). */
    big[n - 1] = '\0';
    a = h_call(&h, "POST", "/tokenize", "", big);
    assert_int_equal(a.status, 400);
    assert_string_equal(h_error_code(&a), "invalid_json");
    h_answer_fini(&a);
    free(big);
    h_close(&h);
}

static void test_expect_continue(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    int fd = h_connect(&h);
    char line[26] = "";
    h_sends(fd, POST "Expect: 100-continue\r\nContent-Length: 15\r\n\r\n");
    assert_int_equal(recv(fd, line, 25, MSG_WAITALL), 25);
    assert_string_equal(line, "HTTP/1.1 100 Continue\r\n\r\n");
    h_sends(fd, "{\"content\":\"a\"}");
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 200);
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

/* The answer to a refused request must not be lost, and the connection must be usable. */
static void test_refused_body_keeps_the_connection(void **state)
{
    (void)state;
    harness h;
    cp_api_key key;
    cp_err err;
    assert_int_equal(cp_api_key_parse("k", &key, &err), CP_OK);
    h_open(&h, &(h_config){.keys = &key, .n_keys = 1});
    size_t n = 1 << 20;
    char *big = malloc(n + 1);
    memset(big, ' ', n);
    big[n] = '\0';
    int fd = h_connect(&h);
    for (int i = 0; i < 3; i++) {
        h_answer a;
        h_request(fd, "POST", "/tokenize", "", big);
        assert_true(h_read(fd, &a));
        assert_int_equal(a.status, 401);
        h_answer_fini(&a);
    }
    close(fd);
    free(big);
    h_close(&h);
}

static void test_slow_heads_are_cut(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.header_ms = 300});
    /* A drip on a new connection; no byte at all; a drip after a served request. */
    for (int i = 0; i < 3; i++) {
        int fd = h_connect(&h);
        h_answer a;
        if (i == 2) {
            h_request(fd, "GET", "/health", "", NULL);
            assert_true(h_read(fd, &a));
            h_answer_fini(&a);
        }
        if (i != 1)
            h_sends(fd, "GET /health HT");
        char ch;
        assert_true(recv(fd, &ch, 1, 0) <= 0); /* closed; the client's limit is far off */
        close(fd);
    }
    h_close(&h);
}

static void test_idle_connection_is_kept(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.header_ms = 100});
    int fd = h_connect(&h);
    for (int i = 0; i < 3; i++) {
        h_answer a;
        h_request(fd, "GET", "/health", "", NULL);
        assert_true(h_read(fd, &a));
        assert_int_equal(a.status, 200);
        h_answer_fini(&a);
        usleep(600000); /* beyond the head's deadline, far below the idle limit */
    }
    close(fd);
    h_close(&h);
}

static void test_too_many_connections(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.max_connections = 4});
    int fd[5];
    h_answer a;
    for (int i = 0; i < 4; i++) {
        fd[i] = h_connect(&h);
        h_request(fd[i], "GET", "/health", "", NULL);
        assert_true(h_read(fd[i], &a));
        assert_int_equal(a.status, 200);
        h_answer_fini(&a);
    }
    fd[4] = h_connect(&h);
    h_request(fd[4], "GET", "/health", "", NULL);
    assert_true(h_read(fd[4], &a));
    assert_int_equal(a.status, 503);
    assert_string_equal(h_error_code(&a), "overloaded");
    char v[16];
    assert_non_null(h_header(&a, "Retry-After", v, sizeof(v)));
    h_answer_fini(&a);
    for (int i = 0; i < 5; i++)
        close(fd[i]);
    h_close(&h);
}

static void test_pipelined_requests_keep_their_order(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    int fd = h_connect(&h);
    for (int i = 0; i < 8; i++) {
        h_request(fd, "POST", "/tokenize", "",
                  i & 1 ? "{\"content\":\"ab\"}" : "{\"content\":\"c\"}");
        h_request(fd, "GET", "/health", "", NULL);
    }
    for (int i = 0; i < 8; i++) {
        h_answer a;
        assert_true(h_read(fd, &a));
        assert_non_null(strstr(a.body.p, i & 1 ? "\"count\":2" : "\"count\":1"));
        h_answer_fini(&a);
        assert_true(h_read(fd, &a));
        assert_non_null(strstr(a.body.p, "\"status\":\"ok\""));
        h_answer_fini(&a);
    }
    close(fd);
    h_close(&h);
}

static void test_request_ids(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    static const struct {
        const char *given;
        bool kept;
    } cases[] = {{"X-Request-Id: abc-1_2.3:4\r\n", true},
                 {"X-Request-Id: a b\r\n", false},
                 {"X-Request-Id: a\"b\r\n", false},
                 {"", false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char v[160];
        h_answer a = h_call(&h, "GET", "/health", cases[i].given, NULL);
        assert_non_null(h_header(&a, "X-Request-Id", v, sizeof(v)));
        if (cases[i].kept)
            assert_string_equal(v, "abc-1_2.3:4");
        else
            assert_int_equal(strncmp(v, "req-", 4), 0);
        h_answer_fini(&a);
    }
    h_close(&h);
}

static void test_head_has_no_body(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    int fd = h_connect(&h);
    h_sends(fd, "HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    char all[2048];
    ssize_t n = recv(fd, all, sizeof(all) - 1, MSG_WAITALL);
    assert_true(n > 0);
    all[n] = '\0';
    assert_non_null(strstr(all, "200 OK"));
    assert_string_equal(all + n - 4, "\r\n\r\n");
    close(fd);
    h_close(&h);
}

static void test_unix_socket_and_busy_port(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    cp_server *other = NULL;
    cp_err err;
    cp_server_config sc = {
        .engine = cp_fake_api(h.fake), .jobs = h.jobs, .port = cp_server_port(h.s)};
    char port[16], path[64];
    cp_snprintf(port, sizeof(port), ":%d", sc.port);
    assert_int_equal(cp_server_open(&other, &sc, &err), CP_IO);
    assert_null(other);
    assert_non_null(strstr(err.msg, port));
    cp_snprintf(path, sizeof(path), "/tmp/cp-test-%d.sock", (int)getpid());
    cp_fake_config fc = {.ctx = 16, .max_queue = 1};
    cp_fake *fake = cp_fake_open(&fc);
    sc = (cp_server_config){.engine = cp_fake_api(fake), .jobs = h.jobs, .uds = path};
    for (int i = 0; i < 2; i++) { /* twice: the path is given back */
        assert_int_equal(cp_server_open(&other, &sc, &err), CP_OK);
        assert_int_equal(strncmp(cp_server_url(other), "unix:/tmp/cp-test-", 18), 0);
        assert_int_equal(access(path, F_OK), 0);
        cp_server_close(other);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    cp_fake_close(fake);
    h_close(&h);
}

int run_http_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ambiguous_framing_is_refused),
        cmocka_unit_test(test_smuggled_suffix_is_not_served),
        cmocka_unit_test(test_number_of_headers),
        cmocka_unit_test(test_body_limit),
        cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_refused_body_keeps_the_connection),
        cmocka_unit_test(test_slow_heads_are_cut),
        cmocka_unit_test(test_idle_connection_is_kept),
        cmocka_unit_test(test_too_many_connections),
        cmocka_unit_test(test_pipelined_requests_keep_their_order),
        cmocka_unit_test(test_request_ids),
        cmocka_unit_test(test_head_has_no_body),
        cmocka_unit_test(test_unix_socket_and_busy_port),
    };
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
