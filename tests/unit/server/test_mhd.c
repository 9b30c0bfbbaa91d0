/*
 * The door to libmicrohttpd: what it says for a head, and that a link can be closed in any state
 * without the library keeping it, or aborting when it stops.
 */
#include "tests/unit/server/harness.h"

#include "server/mhd.h"

#include <stdlib.h>
#include <string.h>

static const char head_get[] = "GET /x HTTP/1.1\r\nHost: h\r\nX-Asked: a b\r\n\r\n";

typedef struct room {
    cp_mhd *m;
    cp_mhd_link *l;
} room;

static void open_room(room *r)
{
    cp_err err = {0};
    assert_int_equal(cp_mhd_open(&r->m, 64, &err), CP_OK);
    r->l = cp_mhd_link_open(r->m);
    assert_non_null(r->l);
}

static void close_room(room *r)
{
    cp_mhd_link_close(r->l);
    cp_mhd_close(r->m);
}

static void ask(cp_mhd_link *l, const char *head)
{
    assert_true(cp_mhd_request(l, head, strlen(head)));
}

/* All that can be read now, into text[cap]. */
static size_t take(cp_mhd_link *l, char *text, size_t cap)
{
    size_t n = 0, k;
    while (n < cap - 1 && (k = cp_mhd_read(l, text + n, cap - 1 - n)) > 0)
        n += k;
    text[n] = '\0';
    return n;
}

static void test_plain_answers_keep_the_link(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        int status;
        const char *first, *last; /* of the answer */
    } rows[] = {
        {head_get, 200, "HTTP/1.1 200 OK\r\n", "\r\n\r\nbody"},
        {"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n", 200, "HTTP/1.1 200 OK\r\n", "\r\n\r\n"},
        {"POST /x HTTP/1.1\r\nHost: h\r\n\r\n", 404, "HTTP/1.1 404 Not Found\r\n", "body"},
        {"DELETE /x HTTP/1.1\r\nHost: h\r\n\r\n", 503, "HTTP/1.1 503 Service Unavailable\r\n",
         "body"},
        {"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 413, "HTTP/1.1 413 Content Too Large\r\n",
         "body"},
        {"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, "HTTP/1.1 200 OK\r\n", "body"},
    };
    room r;
    open_room(&r);
    for (size_t i = 0; i < 3 * sizeof(rows) / sizeof(rows[0]); i++) {
        const size_t k = i % (sizeof(rows) / sizeof(rows[0]));
        const cp_mhd_header more = {"X-More", "1"};
        const cp_mhd_answer a = {.status = rows[k].status,
                                 .content_type = "text/plain",
                                 .headers = &more,
                                 .n_headers = 1,
                                 .body = "body",
                                 .n_body = 4};
        char text[1024];
        ask(r.l, rows[k].head);
        assert_int_equal(take(r.l, text, sizeof(text)), 0);
        assert_false(cp_mhd_answer_over(r.l));
        assert_true(cp_mhd_answer_begin(r.l, &a));
        size_t n = take(r.l, text, sizeof(text)), n_last = strlen(rows[k].last);
        assert_true(cp_mhd_answer_over(r.l));
        assert_memory_equal(text, rows[k].first, strlen(rows[k].first));
        assert_string_equal(text + n - n_last, rows[k].last);
        assert_non_null(strstr(text, "\r\nX-More: 1\r\n"));
        assert_non_null(strstr(text, "\r\nContent-Type: text/plain\r\n"));
        assert_non_null(strstr(text, "\r\nContent-Length: 4\r\n"));
        assert_non_null(strstr(text, "\r\nDate: "));
        assert_null(strstr(text, "onnection: close"));
    }
    close_room(&r);
}

static void test_headers_of_a_request(void **state)
{
    (void)state;
    room r;
    open_room(&r);
    assert_null(cp_mhd_request_header(r.l, "X-Asked"));
    ask(r.l, head_get);
    assert_string_equal(cp_mhd_request_header(r.l, "x-aSKED"), "a b");
    assert_null(cp_mhd_request_header(r.l, "X-Other"));
    close_room(&r);
}

/* A body that is larger than the pair goes through in pieces, every byte once. */
static void test_large_answers_wait_for_their_reader(void **state)
{
    (void)state;
    const size_t n = 5u << 20;
    char *body = malloc(n), piece[4096];
    assert_non_null(body);
    for (size_t i = 0; i < n; i++)
        body[i] = (char)('a' + i % 23);
    room r;
    open_room(&r);
    for (int turn = 0; turn < 2; turn++) {
        const cp_mhd_answer a = {.status = 200, .body = body, .n_body = n};
        ask(r.l, head_get);
        assert_true(cp_mhd_answer_begin(r.l, &a));
        assert_false(cp_mhd_answer_over(r.l)); /* it did not take all of it */
        cp_buf all = {0};
        for (size_t k; (k = cp_mhd_read(r.l, piece, sizeof(piece))) > 0;)
            cp_buf_add(&all, piece, k);
        assert_true(cp_mhd_answer_over(r.l));
        assert_true(all.n > n);
        assert_memory_equal(all.p + all.n - n, body, n);
        assert_memory_equal(all.p + all.n - n - 4, "\r\n\r\n", 4);
        cp_buf_fini(&all);
    }
    close_room(&r);
    free(body);
}

/* The loop sends a stream's body itself: it begins behind the head and ends before the tail. */
static void test_streams_leave_room_for_their_body(void **state)
{
    (void)state;
    room r;
    open_room(&r);
    for (int v11 = 1; v11 >= 0; v11--) {
        const cp_mhd_answer a = {.status = 200, .stream = true, .close = !v11};
        char text[1024];
        ask(r.l, v11 ? head_get : "GET /x HTTP/1.0\r\n\r\n");
        assert_true(cp_mhd_answer_begin(r.l, &a));
        assert_false(cp_mhd_at_body(r.l)); /* the head is not read yet */
        size_t n = take(r.l, text, sizeof(text));
        assert_true(cp_mhd_at_body(r.l));
        assert_false(cp_mhd_answer_over(r.l));
        assert_string_equal(text + n - 4, "\r\n\r\n");
        assert_int_equal(strstr(text, "\r\nTransfer-Encoding: chunked\r\n") != NULL, v11);
        assert_int_equal(strstr(text, "\r\nConnection: close\r\n") != NULL, !v11);
        assert_int_equal(take(r.l, text, sizeof(text)), 0);
        cp_mhd_stream_end(r.l);
        take(r.l, text, sizeof(text));
        assert_string_equal(text, v11 ? "0\r\n\r\n" : "");
        assert_true(cp_mhd_answer_over(r.l));
    }
    close_room(&r);
}

/* More cookies than its memory holds: the library does not take the head, which hurts nobody else,
 * and answering it fails. */
static void test_a_refused_head(void **state)
{
    (void)state;
    const cp_mhd_answer a = {.status = 200, .body = "body", .n_body = 4};
    cp_buf cookies = {0};
    cp_buf_adds(&cookies, "GET /x HTTP/1.1\r\nHost: h\r\nCookie: ");
    for (int i = 0; i < 15000; i++)
        cp_buf_adds(&cookies, "a;");
    cp_buf_adds(&cookies, "\r\n\r\n");
    room r;
    open_room(&r);
    cp_mhd_link *l = cp_mhd_link_open(r.m);
    assert_non_null(l);
    assert_false(cp_mhd_request(l, cookies.p, cookies.n));
    assert_null(cp_mhd_request_header(l, "Host"));
    assert_false(cp_mhd_answer_begin(l, &a));
    cp_mhd_link_close(l);
    ask(r.l, head_get);
    assert_true(cp_mhd_answer_begin(r.l, &a));
    close_room(&r);
    cp_buf_fini(&cookies);
}

/* Closed at each step of a plain answer and of a stream, beside others that stay. */
static void test_close_in_every_state(void **state)
{
    (void)state;
    char *body = calloc(1, 1 << 20), piece[1024];
    assert_non_null(body);
    room r;
    open_room(&r);
    ask(r.l, head_get); /* waits meanwhile, suspended */
    for (int step = 0; step < 9; step++) {
        for (int i = 0; i < 20; i++) {
            bool stream = step >= 5;
            const cp_mhd_answer a = {.status = 200,
                                     .body = stream ? NULL : body,
                                     .n_body = stream      ? 0
                                               : step == 4 ? 10
                                                           : 1 << 20,
                                     .stream = stream};
            cp_mhd_link *l = cp_mhd_link_open(r.m);
            assert_non_null(l);
            if (step > 0)
                ask(l, head_get);
            if (step > 1)
                assert_true(cp_mhd_answer_begin(l, &a));
            if (step > 2 && step != 5)
                assert_true(cp_mhd_read(l, piece, sizeof(piece)) > 0);
            if (step == 4 || step > 6)
                assert_int_equal(cp_mhd_read(l, piece, sizeof(piece)), 0);
            if (step == 8)
                cp_mhd_stream_end(l);
            cp_mhd_link_close(l); /* asserts that the library let go of it */
        }
    }
    assert_string_equal(cp_mhd_request_header(r.l, "X-Asked"), "a b");
    close_room(&r);
    free(body);
}

/* Closed behind any history of requests and answers, whole or not, in both versions. */
static void test_close_after_any_history(void **state)
{
    (void)state;
    char *body = calloc(1, 1 << 20), *text = malloc(2 << 20);
    assert_true(body && text);
    uint32_t seed = 1;
    room r;
    open_room(&r);
    for (int i = 0; i < 4000; i++) {
        cp_mhd_link *l = cp_mhd_link_open(r.m);
        assert_non_null(l);
        for (int more = 1; more;) {
            seed = seed * 1664525u + 1013904223u;
            uint32_t dice = seed >> 8;
            bool stream = dice & 1, v10 = (dice & 6) == 0, last = stream && v10;
            const cp_mhd_answer a = {.status = 200,
                                     .body = stream ? NULL : body,
                                     .n_body = stream     ? 0
                                               : dice & 8 ? 10
                                                          : 1 << 20,
                                     .stream = stream,
                                     .close = last || (dice & 48) == 0};
            more = !a.close && (dice & 64);
            ask(l, !v10         ? head_get
                   : dice & 256 ? "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
                                : "GET /x HTTP/1.0\r\n\r\n");
            more = more && !(v10 && !(dice & 256));
            int steps = more ? 9 : (int)(dice >> 10) % 5;
            if (steps > 0)
                assert_true(cp_mhd_answer_begin(l, &a));
            if (steps > 1)
                cp_mhd_read(l, text, 1000);
            if (steps > 2)
                take(l, text, 2 << 20);
            if (steps > 3 && stream && cp_mhd_at_body(l)) {
                cp_mhd_stream_end(l);
                if (steps > 4 || (dice & 512))
                    take(l, text, 2 << 20);
            }
            if (more)
                assert_true(cp_mhd_answer_over(l));
        }
        cp_mhd_link_close(l);
    }
    close_room(&r);
    free(body);
    free(text);
}

static void test_as_many_links_as_agreed(void **state)
{
    (void)state;
    cp_mhd *m;
    cp_mhd_link *l[9];
    assert_int_equal(cp_mhd_open(&m, 8, NULL), CP_OK);
    for (int i = 0; i < 8; i++)
        assert_non_null(l[i] = cp_mhd_link_open(m));
    assert_null(cp_mhd_link_open(m));
    cp_mhd_link_close(l[3]);
    assert_non_null(l[3] = cp_mhd_link_open(m));
    for (int i = 0; i < 8; i++)
        cp_mhd_link_close(l[i]);
    cp_mhd_close(m);
}

int run_mhd_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_answers_keep_the_link),
        cmocka_unit_test(test_headers_of_a_request),
        cmocka_unit_test(test_large_answers_wait_for_their_reader),
        cmocka_unit_test(test_streams_leave_room_for_their_body),
        cmocka_unit_test(test_a_refused_head),
        cmocka_unit_test(test_close_in_every_state),
        cmocka_unit_test(test_close_after_any_history),
        cmocka_unit_test(test_as_many_links_as_agreed),
    };
    return cmocka_run_group_tests_name("mhd", tests, NULL, NULL);
}
