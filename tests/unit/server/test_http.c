/* Below the routes: framing, limits, deadlines, connections, hostile clients. */
#include "harness.h"

#include <dirent.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BYTES(s) s, sizeof(s) - 1
#define OK_HEAD  "GET /health HTTP/1.1\r\nHost: localhost\r\n"
#define POST     "POST /tokenize HTTP/1.1\r\nHost: localhost\r\n"
#define CHUNKED  POST "Transfer-Encoding: chunked\r\n\r\n"
#define BODY     "{\"content\":\"a\"}" /* 15 bytes */
#define NEXT     "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"

/* Everything until the server closes. */
static cp_buf read_all(int fd)
{
    cp_buf all = {0};
    char buf[4096];
    ssize_t n;
    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
        cp_buf_add(&all, buf, (size_t)n);
    assert_int_equal(n, 0); /* closed, and not by a reset that could lose the answer */
    return all;
}

/* Exactly these answers, each of a status below 400 or with our JSON error, and the last says that
 * the connection closes. */
static void check_answers(const char *what, const cp_buf *all, int first, int second)
{
    const int want[2] = {first, second};
    int n = 0;
    const char *at = all->p ? all->p : "", *last = at;
    while ((at = strstr(at, "HTTP/1.1 "))) {
        int status = (int)strtol(at + 9, NULL, 10);
        if (n == 2 || status != want[n])
            fail_msg("%s: answer %d is %d, wanted %d:\n%s", what, n, status, n < 2 ? want[n] : 0,
                     all->p);
        const char *body = strstr(at, "\r\n\r\n");
        if (status >= 400 && !(body && strncmp(body, "\r\n\r\n{\"error\":{\"message\":", 24) == 0))
            fail_msg("%s: not a JSON error:\n%s", what, all->p);
        last = at;
        at += 9;
        n++;
    }
    if (n != (second ? 2 : 1))
        fail_msg("%s: %d answers:\n%s", what, n, all->p ? all->p : "");
    if (!strstr(last, "Connection: close\r\n"))
        fail_msg("%s: does not say that it closes:\n%s", what, all->p);
}

typedef struct framing_case {
    const char *bytes;
    size_t n;
    int status;
} framing_case;

/* Refused at once, once, as JSON, and closed. None of the unfinished ones may wait for more. */
static const framing_case refused[] = {
    /* two lengths */
    {BYTES(POST "Content-Length: 15\r\nContent-Length: 15\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 15\r\nContent-Length: 0\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 0\r\nContent-Length: 15\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: identity\r\nContent-Length: 15\r\n\r\n" BODY), 501},
    /* no length */
    {BYTES(POST "Content-Length: +15\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: -1\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 1 5\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 15, 15\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 15,\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 0xf\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 15abc\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: \r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 15\0\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 15\0"
                "9\r\n\r\n" BODY),
     400},
    {BYTES(POST "Content-Length: 18446744073709551616\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 18446744073709551631\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 9223372036854775808\r\n\r\n" BODY), 400},
    {BYTES(POST "Content-Length: 8388609\r\n\r\n" BODY), 413},
    {BYTES(POST "Content-Length: 999999999999999999\r\n\r\n"), 413},
    {BYTES(POST "Expect: 100-continue\r\nContent-Length: 8388609\r\n\r\n"), 413},
    {BYTES(POST "Expect: 200-ok\r\nContent-Length: 15\r\n\r\n" BODY), 417},
    /* codings */
    {BYTES(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: chunked\0, identity\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: chunked\r\n , identity\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: ,\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding:\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), 501},
    {BYTES(POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), 501},
    {BYTES(POST "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), 501},
    {BYTES(POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501},
    {BYTES(POST "Transfer-Encoding: gzip\r\n\r\n"), 501},
    {BYTES(POST "Transfer-Encoding: identity\r\n\r\n"), 501},
    {BYTES("POST /tokenize HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {BYTES(POST "Transfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"), 400},
    /* lines */
    {BYTES("GET /health HTTP/1.1\nHost: localhost\n\n"), 400},
    {BYTES("GET /health HTTP/1.1\r\nHost: localhost\n\r\n"), 400},
    {BYTES(OK_HEAD "\n"), 400},
    {BYTES(OK_HEAD "A: b\rc\r\n\r\n"), 400},
    {BYTES(OK_HEAD "A: b\r\r\n\r\n"), 400},
    {BYTES(OK_HEAD "A: b\r\n c\r\n\r\n"), 400},
    {BYTES(OK_HEAD "A: b\r\n\tc\r\n\r\n"), 400},
    {BYTES("GET /health HTTP/1.1\r\n A: b\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES(OK_HEAD "A: b\x01"
                   "c\r\n\r\n"),
     400},
    {BYTES(OK_HEAD "A: b\0c\r\n\r\n"), 400},
    {BYTES(OK_HEAD "A: b\x7f\r\n\r\n"), 400},
    {BYTES(OK_HEAD "A\0b: c\r\n\r\n"), 400},
    {BYTES(OK_HEAD "A(b: c\r\n\r\n"), 400},
    {BYTES(OK_HEAD "A b: c\r\n\r\n"), 400},
    {BYTES(OK_HEAD "A : c\r\n"), 400}, /* not finished */
    {BYTES(OK_HEAD "\xc3\xa4: c\r\n"), 400},
    {BYTES(OK_HEAD ": c\r\n\r\n"), 400},
    {BYTES(OK_HEAD "garbage\r\n\r\n"), 400},
    /* who it is for */
    {BYTES("GET /health HTTP/1.1\r\n\r\n"), 400},
    {BYTES(OK_HEAD "Host: localhost\r\n\r\n"), 400},
    {BYTES("GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n"), 400},
    {BYTES("GET /health HTTP/1.1\r\nHost: localhost, localhost\r\n\r\n"), 400},
    {BYTES("GET /health HTTP/1.1\r\nHost: u@localhost\r\n\r\n"), 400},
    {BYTES("GET /health HTTP/1.1\r\nHost: localhost/x\r\n\r\n"), 400},
    {BYTES("GET /health HTTP/1.1\r\nHost: localhost:x\r\n\r\n"), 400},
    /* the request line */
    {BYTES("GET /hea%00lth HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET /health?a=%00 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET /hea\0lth HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET /hea\x01lth HTTP/1.1\r\n"), 400}, /* not finished */
    {BYTES("GET /hea\x7flth HTTP/1.1\r\n"), 400},
    {BYTES("GET /he\xc3\xa4lth HTTP/1.1\r\n"), 400},
    {BYTES("GET /health x HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET  /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET /health  HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET /health HTTP/1.1 \r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET\t/health\tHTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES(" GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET /health#x HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET health HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET http:///health HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET http://u@localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET ftp://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET /health\r\n\r\n"), 400},
    {BYTES("GET /health http/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET /health HTTP/1.10\r\nHost: localhost\r\n\r\n"), 400},
    {BYTES("GET /health HTTP/1.2\r\nHost: localhost\r\n\r\n"), 505},
    {BYTES("GET /health HTTP/0.9\r\nHost: localhost\r\n\r\n"), 505},
    {BYTES("GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n"), 505},
    {BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505},
    {BYTES("get /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), 501},
    {BYTES("BREW /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), 501},
    {BYTES("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 501},
    {BYTES("\x16\x03\x01\x02"), 400}, /* TLS, not finished */
    {BYTES("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"), 400},
    /* chunks */
    {BYTES(CHUNKED "fffffffffffffffff\r\n" BODY), 400},
    {BYTES(CHUNKED "10000000000000000f\r\n" BODY), 400},
    {BYTES(CHUNKED "-1\r\n" BODY "\r\n0\r\n\r\n"), 400},
    {BYTES(CHUNKED "+f\r\n" BODY "\r\n0\r\n\r\n"), 400},
    {BYTES(CHUNKED "0xf\r\n" BODY "\r\n0\r\n\r\n"), 400},
    {BYTES(CHUNKED " f\r\n" BODY "\r\n0\r\n\r\n"), 400},
    {BYTES(CHUNKED "f \r\n" BODY "\r\n0\r\n\r\n"), 400},
    {BYTES(CHUNKED "g\r\n"), 400},
    {BYTES(CHUNKED "\r\n"), 400},
    {BYTES(CHUNKED ";x\r\n"), 400},
    {BYTES(CHUNKED "f\n" BODY "\n0\n\n"), 400},
    {BYTES(CHUNKED "f\r\n" BODY "X0\r\n\r\n"), 400},
    {BYTES(CHUNKED "f\r\n" BODY "0\r\n\r\n"), 400},
    {BYTES(CHUNKED "f\r\n" BODY "\n0\r\n\r\n"), 400},
    {BYTES(CHUNKED "f;a\0b\r\n" BODY "\r\n0\r\n\r\n"), 400},
    {BYTES(CHUNKED "f\r\n" BODY "\r\n0\r\nA : b\r\n\r\n"), 400},
    {BYTES(CHUNKED "f\r\n" BODY "\r\n0\r\nA: b\n\r\n"), 400},
    {BYTES(CHUNKED "f\r\n" BODY "\r\n0\r\n A: b\r\n\r\n"), 400},
    {BYTES(CHUNKED "f\r\n" BODY "\r\n0\r\n\rX"), 400},
};

/* Legal, however odd; the connection goes on. */
static const framing_case accepted[] = {
    {BYTES(OK_HEAD "\r\n"), 200},
    {BYTES("\r\n" OK_HEAD "\r\n"), 200},
    {BYTES(OK_HEAD "A:\t b \t\r\nB:\r\nC: \xff\r\n\r\n"), 200},
    {BYTES("GET /health HTTP/1.1\r\nhOST:localhost:80\r\n\r\n"), 200},
    {BYTES("GET /health/ HTTP/1.1\r\nHost: localhost\r\n\r\n"), 200},
    {BYTES("GET /health?a=b//%20 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 200},
    {BYTES("GET http://localhost/health HTTP/1.1\r\nHost: elsewhere\r\n\r\n"), 200},
    {BYTES("GET HTTP://localhost:80/health?x HTTP/1.1\r\nHost: localhost\r\n\r\n"), 200},
    {BYTES("GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n"), 404},
    {BYTES("GET http://localhost?x HTTP/1.1\r\nHost: localhost\r\n\r\n"), 404},
    {BYTES("GET //health HTTP/1.1\r\nHost: localhost\r\n\r\n"), 404},
    {BYTES("GET /health// HTTP/1.1\r\nHost: localhost\r\n\r\n"), 404},
    {BYTES("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"), 404},
    {BYTES(OK_HEAD "Content-Length: 5\r\n\r\nhello"), 200},
    {BYTES(POST "Content-Length: 15\r\n\r\n" BODY), 200},
    {BYTES(POST "Content-Length: 00015\r\n\r\n" BODY), 200},
    {BYTES(POST "Transfer-Encoding:\tChUnKeD \r\n\r\nf\r\n" BODY "\r\n0\r\n\r\n"), 200},
    {BYTES(CHUNKED "000000000F\r\n" BODY "\r\n000\r\n\r\n"), 200},
    {BYTES(CHUNKED "f;a=\"b;c\";d\r\n" BODY "\r\n0;e\r\nTrailer: x\r\nB:\r\n\r\n"), 200},
    {BYTES(CHUNKED "1\r\n{\r\ne\r\n\"content\":\"a\"}\r\n0\r\n\r\n"), 200},
};

/* The bytes of a case, whole or in single bytes, alone or behind a request that is served. */
static void try_refused(const harness *h, const framing_case *f, size_t i, bool whole, bool behind)
{
    char what[48];
    int fd = h_connect(h);
    cp_snprintf(what, sizeof(what), "refused %zu%s%s", i, whole ? "" : ", by bytes",
                behind ? ", behind one" : "");
    if (behind)
        h_sends(fd, OK_HEAD "\r\n");
    for (size_t at = 0, n; at < f->n; at += n) {
        n = whole ? f->n : 1;
        h_send(fd, f->bytes + at, n);
    }
    h_sends(fd, NEXT);
    cp_buf all = read_all(fd);
    if (behind)
        check_answers(what, &all, 200, f->status);
    else
        check_answers(what, &all, f->status, 0);
    cp_buf_fini(&all);
    close(fd);
}

static void test_ambiguous_framing_is_refused(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        for (int how = 0; how < 3; how++)
            try_refused(&h, &refused[i], i, how != 1, how == 2);
    h_close(&h);
}

static void test_legal_framing_is_accepted(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        for (int whole = 0; whole < 2; whole++) {
            char what[32];
            int fd = h_connect(&h);
            const framing_case *f = &accepted[i];
            for (size_t at = 0, n; at < f->n; at += n) {
                n = whole ? f->n : 1;
                h_send(fd, f->bytes + at, n);
            }
            h_sends(fd, OK_HEAD "Connection: close\r\n\r\n");
            cp_buf all = read_all(fd);
            cp_snprintf(what, sizeof(what), "accepted %zu", i);
            check_answers(what, &all, f->status, 200);
            cp_buf_fini(&all);
            close(fd);
        }
    }
    h_close(&h);
}

static void repeat(cp_buf *b, const char *s, int n)
{
    while (n-- > 0)
        cp_buf_adds(b, s);
}

/* Too long, and never finished: refused as soon as that is clear. */
static void test_endless_heads_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *begin, *more;
        int n, status;
    } cases[] = {
        {"GET /", "abcdefgh", 1100, 414},
        {"GET /health?", "abcdefgh", 8000, 414},
        {"ABCDEFGH", "abcdefgh", 1100, 400},
        {"", "abcdefgh", 4, 501},
        {OK_HEAD "A: ", "abcdefgh", 5000, 431},
        {OK_HEAD, "A: bcdefgh\r\n", 101, 431},
        {CHUNKED "f;", "abcdefgh", 5000, 400},
        {CHUNKED "f;", "abcdefgh", 200, 400},
        {CHUNKED "0\r\nA: ", "abcdefgh", 5000, 400},
        {CHUNKED "0\r\n", "A: bcdefgh\r\n", 5000, 400},
    };
    harness h;
    h_open(&h, &(h_config){0});
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char what[32];
        cp_buf b = {0};
        cp_buf_adds(&b, cases[i].begin);
        repeat(&b, cases[i].more, cases[i].n);
        if (cases[i].status == 501)
            cp_buf_adds(&b, " / HTTP/1.1\r\n");
        int fd = h_connect(&h);
        h_send(fd, b.p, b.n);
        cp_buf all = read_all(fd);
        cp_snprintf(what, sizeof(what), "endless %zu", i);
        check_answers(what, &all, cases[i].status, 0);
        cp_buf_fini(&all);
        cp_buf_fini(&b);
        close(fd);
    }
    /* Just below the limits. */
    cp_buf b = {0};
    cp_buf_adds(&b, "GET /health?");
    repeat(&b, "abcdefgh", 1020);
    cp_buf_adds(&b, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (int i = 0; i < 5; i++) {
        cp_buf_adds(&b, "A: ");
        repeat(&b, "abcdefgh", 500);
        cp_buf_adds(&b, "\r\n");
    }
    cp_buf_adds(&b, "\r\n");
    int fd = h_connect(&h);
    h_send(fd, b.p, b.n);
    cp_buf all = read_all(fd);
    check_answers("below the limits", &all, 200, 0);
    cp_buf_fini(&all);
    cp_buf_fini(&b);
    close(fd);
    h_close(&h);
}

static void test_number_of_headers(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    for (int n = 98; n <= 99; n++) {
        cp_buf b = {0};
        cp_buf_adds(&b, OK_HEAD "Connection: close\r\n");
        for (int i = 0; i < n; i++)
            cp_buf_printf(&b, "X-%d: y\r\n", i);
        cp_buf_adds(&b, "\r\n");
        int fd = h_connect(&h);
        h_send(fd, b.p, b.n);
        cp_buf all = read_all(fd);
        check_answers("headers", &all, n == 98 ? 200 : 431, 0);
        cp_buf_fini(&all);
        cp_buf_fini(&b);
        close(fd);
    }
    h_close(&h);
}

/* Far more than the library's memory has room for, were it to read them. */
static void test_many_cookies(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    cp_buf b = {0};
    cp_buf_adds(&b, OK_HEAD "Connection: close\r\nCookie: ");
    repeat(&b, "a;", 15000);
    cp_buf_adds(&b, "\r\n\r\n");
    int fd = h_connect(&h);
    h_send(fd, b.p, b.n);
    cp_buf all = read_all(fd);
    check_answers("cookies", &all, 200, 0);
    cp_buf_fini(&all);
    cp_buf_fini(&b);
    close(fd);
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
    /* Sent without asking: answered before it is read, dropped, and the connection ends. */
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
    assert_false(h_read(fd, &a));
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

static int open_files(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* What the library holds for a connection (memory, a socket pair) goes when it is idle, and comes
 * back with its next request. */
static void test_idle_connection_holds_little(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    int idle = open_files() + 2; /* both ends of a connection */
    int fd = h_connect(&h);
    h_answer a;
    for (int i = 0; i < 2; i++) {
        h_request(fd, "GET", "/health", "", NULL);
        assert_true(h_read(fd, &a));
        assert_int_equal(a.status, 200);
        h_answer_fini(&a);
        for (int k = 0; k < 3000 && open_files() != idle; k++)
            usleep(10000);
        assert_int_equal(open_files(), idle);
    }
    close(fd);
    h_close(&h);
}

/* A get on a new connection: its status, and that the connection is kept or closed. */
static int get(const harness *h, const char *path, const char *extra, int *keep)
{
    int fd = h_connect(h), status = 0;
    h_answer a;
    h_request(fd, "GET", path, extra, NULL);
    if (h_read(fd, &a)) {
        status = a.status;
        if (status == 503) {
            char v[16];
            assert_string_equal(h_error_code(&a), "overloaded");
            assert_non_null(h_header(&a, "Retry-After", v, sizeof(v)));
        }
        h_answer_fini(&a);
    }
    if (keep)
        *keep = fd;
    else
        close(fd);
    return status;
}

/* Idle connections make room, the longest idle first: none of these sees a 503. */
static void test_idle_connections_make_room(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.max_connections = 4});
    int fd[12];
    for (int i = 0; i < 12; i++) {
        if (i % 3 == 0) {
            fd[i] = h_connect(&h); /* silent */
        } else if (i % 3 == 1) {
            fd[i] = h_connect(&h);
            h_sends(fd[i], "GET /version HT"); /* half a head */
        } else {
            assert_int_equal(get(&h, "/version", "", &fd[i]), 200); /* kept alive */
        }
        usleep(60000); /* old enough to be closed for another */
    }
    for (int i = 0; i < 8; i++) {
        char ch;
        assert_true(recv(fd[i], &ch, 1, 0) <= 0);
    }
    /* As many as there may be are served still: nobody was closed before another one came. */
    for (int i = 8; i < 10; i++) {
        h_request(fd[i], "GET", "/version", "", NULL);
        h_answer a;
        assert_true(h_read(fd[i], &a));
        assert_int_equal(a.status, 200);
        h_answer_fini(&a);
    }
    for (int i = 0; i < 12; i++)
        close(fd[i]);
    h_close(&h);
}

/* Where every connection has a request in flight, probes are answered, and nothing else is. */
static void test_full_connections_answer_probes(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.max_connections = 4});
    cp_fake_set_hold(h.fake, CP_FAKE_PREFILL);
    int fd[4], kept;
    for (int i = 0; i < 4; i++) {
        fd[i] = h_connect(&h);
        if (i < 2)
            h_request(fd[i], "POST", "/v1/completions", "", "{\"prompt\":\"x\"}");
        else
            h_sends(fd[i], POST "Content-Length: 100\r\n\r\n{"); /* half a body */
    }
    h_wait_submitted(&h, 2);
    for (int i = 0; i < 20; i++) {
        static const char *const probes[] = {"/livez", "/readyz", "/health", "/startupz"};
        assert_int_equal(get(&h, probes[i % 4], "", NULL), 200);
        assert_int_equal(get(&h, "/version", "", NULL), 503);
    }
    assert_int_equal(get(&h, "/livez", "Content-Length: 10\r\n", NULL), 503);
    assert_int_equal(get(&h, "/livez", "Transfer-Encoding: chunked\r\n", NULL), 503);
    h_answer a = h_call(&h, "POST", "/livez", "", NULL);
    assert_int_equal(a.status, 503);
    h_answer_fini(&a);
    /* A probe's connection goes at once, so that the reserve is free again. */
    assert_int_equal(get(&h, "/livez", "", &kept), 200);
    cp_buf rest = read_all(kept);
    assert_int_equal(rest.n, 0);
    close(kept);
    /* Silent connections beyond the limit do not keep probes out. */
    int silent[40];
    for (int i = 0; i < 40; i++)
        silent[i] = h_connect(&h);
    for (int i = 0; i < 20; i++)
        assert_int_equal(get(&h, "/livez", "", NULL), 200);
    for (int i = 0; i < 40; i++)
        close(silent[i]);
    /* What is in flight was not touched. */
    cp_fake_set_hold(h.fake, CP_FAKE_RUN);
    for (int i = 0; i < 4; i++) {
        if (i < 2) {
            assert_true(h_read(fd[i], &a));
            assert_int_equal(a.status, 200);
            h_answer_fini(&a);
        }
        close(fd[i]);
    }
    h_close(&h);
}

/* A client that has closed its side and asks nothing is closed at once; what is refused already is
 * answered, however much of its body is missing. */
static void test_half_closed_connections_end(void **state)
{
    (void)state;
    static const char *const sent[] = {
        "", "GET /hea", POST "Content-Length: 15\r\n\r\n{", CHUNKED "f\r\n{",
        /* answered: */
        OK_HEAD "\r\nGET /hea",
        "POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n{"};
    harness h;
    h_open(&h, &(h_config){0});
    for (size_t i = 0; i < 2 * sizeof(sent) / sizeof(sent[0]); i++) {
        int fd = h_connect(&h);
        h_sends(fd, sent[i / 2]);
        if (i & 1)
            usleep(20000); /* the end on its own, else together with the bytes */
        shutdown(fd, SHUT_WR);
        cp_buf all = read_all(fd);
        assert_int_equal(all.n > 0, i / 2 >= 4);
        cp_buf_fini(&all);
        close(fd);
    }
    h_close(&h);
}

/* The end of the client's side counts as gone while a request is answered: whole answers and
 * streams, together with the request's bytes or later, queued or under way. */
static void test_client_end_cancels(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h.script.endless = true;
    for (int i = 0; i < 16; i++) {
        cp_fake_hold phase = i & 1 ? CP_FAKE_PREFILL : CP_FAKE_QUEUE;
        const char *body = i & 2 ? "{\"prompt\":\"x\",\"stream\":true}" : "{\"prompt\":\"x\"}";
        cp_fake_stats before = cp_fake_read(h.fake);
        cp_fake_set_hold(h.fake, phase);
        int fd = h_connect(&h);
        if (i & 4) { /* behind an answered one */
            h_answer a;
            h_request(fd, "GET", "/health", "", NULL);
            assert_true(h_read(fd, &a));
            h_answer_fini(&a);
        }
        h_request(fd, "POST", "/v1/completions", "", body);
        if (i & 8)
            h_wait_submitted(&h, before.submitted + 1);
        shutdown(fd, SHUT_WR);
        cp_buf all = read_all(fd);
        assert_int_equal(all.n, 0);
        cp_buf_fini(&all);
        close(fd);
        /* Submitted before the end was seen, or not at all; nothing runs on. */
        h_wait_idle(&h);
        cp_fake_stats after = cp_fake_read(h.fake);
        assert_int_equal(after.cancelled - before.cancelled, after.submitted - before.submitted);
    }
    cp_fake_set_hold(h.fake, CP_FAKE_RUN);
    h_close(&h);
}

static void test_draining_answers_close(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.grace_ms = 60000});
    int fd[4];
    h_answer a;
    for (int i = 0; i < 4; i++)
        assert_int_equal(get(&h, "/health", "", &fd[i]), 200);
    cp_server_drain_begin(h.s);
    static const char *const paths[] = {"/livez", "/readyz", "/nothing", "/v1/completions"};
    for (int i = 0; i < 4; i++) {
        char v[16];
        h_request(fd[i], i < 3 ? "GET" : "POST", paths[i], "",
                  i < 3 ? NULL : "{\"prompt\":\"x\",\"stream\":true}");
        assert_true(h_read(fd[i], &a));
        assert_int_equal(a.status, i == 0 || i == 3 ? 200 : i == 1 ? 503 : 404);
        assert_string_equal(h_header(&a, "Connection", v, sizeof(v)), "close");
        h_answer_fini(&a);
        assert_false(h_read(fd[i], &a));
        close(fd[i]);
    }
    cp_server_drain_now(h.s);
    h_close(&h);
}

static void test_ipv6_in_brackets(void **state)
{
    (void)state;
    int s = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool can = s >= 0 && bind(s, (const struct sockaddr *)&sa, sizeof(sa)) == 0;
    close(s);
    if (!can)
        skip(); /* no IPv6 here */
    static const char *const hosts[] = {"[::1]", "::1"};
    for (int i = 0; i < 2; i++) {
        harness h;
        h_open(&h, &(h_config){.host = hosts[i]});
        assert_int_equal(strncmp(cp_server_url(h.s), "http://[::1]:", 13), 0);
        h_close(&h);
    }
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
    h_sends(fd, "HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    char all[2048];
    ssize_t n = recv(fd, all, sizeof(all) - 1, MSG_WAITALL);
    assert_true(n > 0);
    all[n] = '\0';
    assert_non_null(strstr(all, "200 OK"));
    assert_string_equal(all + n - 4, "\r\n\r\n");
    close(fd);
    h_close(&h);
}

/* One request over a Unix socket: its status. Who it is for does not matter there. */
static int get_unix(const char *path)
{
    static const char request[] =
        "GET /version HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    cp_strcopy(sa.sun_path, sizeof(sa.sun_path), path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
    h_sends(fd, request);
    cp_buf all = read_all(fd);
    int status = all.p ? (int)strtol(all.p + 9, NULL, 10) : 0;
    cp_buf_fini(&all);
    close(fd);
    return status;
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
        assert_int_equal(get_unix(path), 200);
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
        cmocka_unit_test(test_legal_framing_is_accepted),
        cmocka_unit_test(test_endless_heads_are_refused),
        cmocka_unit_test(test_number_of_headers),
        cmocka_unit_test(test_many_cookies),
        cmocka_unit_test(test_body_limit),
        cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_refused_body_keeps_the_connection),
        cmocka_unit_test(test_slow_heads_are_cut),
        cmocka_unit_test(test_idle_connection_is_kept),
        cmocka_unit_test(test_idle_connection_holds_little),
        cmocka_unit_test(test_idle_connections_make_room),
        cmocka_unit_test(test_full_connections_answer_probes),
        cmocka_unit_test(test_half_closed_connections_end),
        cmocka_unit_test(test_client_end_cancels),
        cmocka_unit_test(test_draining_answers_close),
        cmocka_unit_test(test_ipv6_in_brackets),
        cmocka_unit_test(test_pipelined_requests_keep_their_order),
        cmocka_unit_test(test_request_ids),
        cmocka_unit_test(test_head_has_no_body),
        cmocka_unit_test(test_unix_socket_and_busy_port),
    };
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
