/* Lives and deaths of calls: disconnects in every phase, slow readers, errors, draining, closing.
 */
#include "harness.h"

#include "base/clock.h"
#include "server/call.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHAT   "/v1/chat/completions"
#define USER   "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define WHOLE  "{" USER "}"
#define STREAM "{" USER ",\"stream\":true}"

enum { CLIENTS = 10 };

/* CLIENTS clients send a request, wait for `see` bytes of the answer, and leave (by reset when
 * `reset`). Everything must be cancelled, and nothing be left. */
static void leave(harness *h, const char *body, size_t see, bool reset)
{
    cp_fake_stats before = cp_fake_read(h->fake);
    int fd[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        fd[i] = h_connect(h);
        h_request(fd[i], "POST", CHAT, "", body);
    }
    h_wait_submitted(h, before.submitted + CLIENTS);
    for (int i = 0; i < CLIENTS; i++) {
        char buf[4096];
        assert_true(see <= sizeof(buf));
        if (see > 0)
            assert_int_equal(recv(fd[i], buf, see, MSG_WAITALL), see);
        struct linger now = {.l_onoff = 1};
        if (reset)
            setsockopt(fd[i], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(fd[i]);
    }
    h_wait_cancelled(h, before.cancelled + CLIENTS);
    h_wait_idle(h);
    assert_int_equal(cp_fake_read(h->fake).cancelled, before.cancelled + CLIENTS);
}

static void test_disconnect_in_every_phase(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h.script.endless = true;
    for (int reset = 0; reset < 2; reset++) {
        cp_fake_set_hold(h.fake, CP_FAKE_QUEUE);
        leave(&h, WHOLE, 0, reset);
        leave(&h, STREAM, 0, reset);
        cp_fake_set_hold(h.fake, CP_FAKE_PREFILL);
        leave(&h, WHOLE, 0, reset);
        leave(&h, STREAM, 0, reset);
        cp_fake_set_hold(h.fake, CP_FAKE_RUN);
        leave(&h, STREAM, 600, reset); /* in mid-stream */
        /* After some tokens, then silence. */
        cp_fake_set_hold_after(h.fake, 3);
        leave(&h, STREAM, 600, reset);
        leave(&h, WHOLE, 0, reset);
        cp_fake_set_hold_after(h.fake, 0);
    }
    h_close(&h);
}

/* The client leaves while its body is on a job: the job's result goes nowhere. */
static void test_disconnect_while_parsing(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h_block_jobs(&h);
    int fd[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        fd[i] = h_connect(&h);
        h_request(fd[i], "POST", CHAT, "", i & 1 ? STREAM : WHOLE);
    }
    h_wait_jobs(&h, CLIENTS);
    assert_int_equal(cp_server_active(h.s), CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        close(fd[i]);
    for (int64_t n = 1; n > 0; usleep(1000)) /* until the server has seen them go */
        n = cp_metric_get(h.process, CP_M_REQUESTS_ACTIVE);
    assert_int_equal(atomic_load(&h.s->n_jobs), CLIENTS); /* the calls outlive their exchanges */
    h_unblock_jobs(&h);
    h_wait_alone(&h);
    assert_int_equal(cp_fake_read(h.fake).submitted, 0);
    h_answer a = h_call(&h, "POST", CHAT, "", WHOLE);
    assert_int_equal(a.status, 200);
    h_answer_fini(&a);
    h_close(&h);
}

/* With the only thread of Jobs taken, the smallest request of every route waits for it, and the
 * loop goes on answering. */
static void test_nothing_is_prepared_on_the_loop(void **state)
{
    (void)state;
    static const char *const post[][2] = {
        {"/v1/chat/completions", WHOLE},      {"/v1/completions", "{\"prompt\":\"a\"}"},
        {"/tokenize", "{\"content\":\"a\"}"}, {"/detokenize", "{\"tokens\":[65]}"},
        {"/apply-template", WHOLE},
    };
    enum { N = sizeof(post) / sizeof(post[0]) };
    harness h;
    int fd[N];
    h_open(&h, &(h_config){0});
    h_block_jobs(&h);
    for (int i = 0; i < N; i++) {
        fd[i] = h_connect(&h);
        h_request(fd[i], "POST", post[i][0], "", post[i][1]);
        h_wait_jobs(&h, i + 1);
        h_answer a = h_call(&h, "GET", "/livez", "", NULL);
        assert_int_equal(a.status, 200);
        h_answer_fini(&a);
    }
    h_unblock_jobs(&h);
    for (int i = 0; i < N; i++) {
        h_answer a = {0};
        assert_true(h_read(fd[i], &a));
        assert_int_equal(a.status, 200);
        h_answer_fini(&a);
        close(fd[i]);
    }
    h_close(&h);
}

/* A drain waits for what does not generate as well. */
static void test_drain_waits_for_jobs(void **state)
{
    (void)state;
    harness h;
    bool clean;
    h_open(&h, &(h_config){.timeout_ms = 60000});
    h_block_jobs(&h);
    int fd = h_connect(&h);
    h_request(fd, "POST", "/tokenize", "", "{\"content\":\"a\"}");
    h_wait_jobs(&h, 1);
    cp_server_drain_begin(h.s);
    while (atomic_load(&h.s->drain) != CP_REFUSE)
        usleep(1000);
    assert_false(cp_server_drain_poll(h.s, &clean));
    h_unblock_jobs(&h);
    h_answer a = {0};
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 200);
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

/* The client leaves before its request is whole: nothing of it is left, nothing was computed. */
static void test_half_heads_and_bodies(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    int fd[CLIENTS], bodies = 0;
    for (int i = 0; i < CLIENTS; i++) {
        fd[i] = h_connect(&h);
        if (i % 3 > 0)
            h_sends(fd[i], "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Le");
        if (i % 3 > 1)
            h_sends(fd[i], "ngth: 500\r\n\r\n{\"mess");
        bodies += i % 3 > 1;
    }
    h_wait_active(&h, bodies); /* the heads that are whole are calls */
    for (int64_t n = 0; n != CLIENTS; usleep(1000))
        n = cp_http_connections(h.s->http);
    for (int i = 0; i < CLIENTS; i++)
        close(fd[i]);
    h_wait_alone(&h);
    assert_int_equal(cp_fake_read(h.fake).submitted, 0);
    h_answer a = h_call(&h, "POST", CHAT, "", WHOLE);
    assert_int_equal(a.status, 200);
    h_answer_fini(&a);
    h_close(&h);
}

/* A client that does not read stops the engine, not the server; when it reads on, nothing is
 * missing. */
static void test_slow_reader_is_waited_for(void **state)
{
    (void)state;
    enum { TOKENS = 8000 }; /* more than all buffers between them hold */
    harness h;
    h_open(&h, &(h_config){.ctx = 16384});
    h.script.endless = true;
    char body[256];
    cp_snprintf(body, sizeof(body), "{" USER ",\"stream\":true,\"max_tokens\":%d}", TOKENS);
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", body);
    long seen = 0, still = 0;
    while (still < 20) { /* until no token has come for a while */
        usleep(20000);
        long now = cp_fake_read(h.fake).tokens;
        still = now == seen && now > 0 ? still + 1 : 0;
        seen = now;
    }
    assert_true(seen < TOKENS);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_true(a.whole);
    assert_int_equal(h_events(&a), TOKENS + 3);
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

/* Tokens of a stream that nobody reads, once the engine stands still. */
static long unread(harness *h, long max_tokens, int *fd)
{
    char body[256];
    cp_snprintf(body, sizeof(body), "{" USER ",\"stream\":true,\"max_tokens\":%ld}", max_tokens);
    long before = cp_fake_read(h->fake).tokens, seen = before;
    *fd = h_connect(h);
    h_request(*fd, "POST", CHAT, "", body);
    for (int still = 0; still < 10;) {
        usleep(20000);
        long now = cp_fake_read(h->fake).tokens;
        still = now == seen && now > before ? still + 1 : 0;
        seen = now;
    }
    return seen - before;
}

/* The engine has said everything, the client has not read it, and leaves: the end of the answer
 * is in the ring, is said once, and must be found there. */
static void test_finished_and_unread(void **state)
{
    (void)state;
    enum { TRIES = 10, RING = 64 }; /* prepare.c: what the ring holds */
    harness h;
    h_open(&h, &(h_config){.ctx = 1 << 20});
    h.script.endless = true;
    int fd;
    long most = unread(&h, 1000000, &fd); /* what all buffers hold, the ring's included */
    close(fd);
    h_wait_alone(&h);
    for (int i = 0; i < TRIES; i++) {
        unread(&h, most - RING / 4 - i * RING / 2, &fd);
        close(fd);
        h_wait_alone(&h);
    }
    h_close(&h);
}

/* One that never reads on is cut off: the engine is told, the answer has no end. */
static void test_slow_reader_is_cut(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.ctx = 1 << 20, .slow_ms = 100});
    h.script.endless = true;
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", "{" USER ",\"stream\":true,\"max_tokens\":1000000}");
    for (int left = 15000; cp_fake_read(h.fake).cancelled == 0; left--) {
        assert_true(left > 0); /* after a minute TCP itself would have given up */
        usleep(2000);
    }
    h_wait_alone(&h);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_false(a.whole);
    assert_null(memmem(a.body.p, a.body.n, "[DONE]", 6));
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

static void test_comments_on_silent_streams(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.comment_ms = 100});
    cp_fake_set_hold(h.fake, CP_FAKE_PREFILL);
    int fd = h_connect(&h);
    char head[1024] = "";
    h_request(fd, "POST", CHAT, "", STREAM);
    size_t n = 0;
    while (!strstr(head, "\r\n:\n\n")) {
        ssize_t k = recv(fd, head + n, sizeof(head) - 1 - n, 0);
        assert_true(k > 0);
        n += (size_t)k;
    }
    assert_non_null(strstr(head, "200 OK"));
    cp_fake_set_hold(h.fake, CP_FAKE_RUN);
    while (!strstr(head, "[DONE]")) {
        if (n > sizeof(head) / 2) {
            memmove(head, head + n - 64, 65);
            n = 64;
        }
        ssize_t k = recv(fd, head + n, sizeof(head) - 1 - n, 0);
        assert_true(k > 0);
        n += (size_t)k;
        head[n] = '\0';
    }
    close(fd);
    h_close(&h);
}

static void test_engine_errors(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h.script.endless = true;
    /* Before the first token: a status, streaming or not. */
    for (int i = 0; i < 2; i++) {
        cp_fake_set_hold(h.fake, CP_FAKE_QUEUE);
        int fd = h_connect(&h);
        h_request(fd, "POST", CHAT, "", i ? STREAM : WHOLE);
        h_wait_submitted(&h, i + 1);
        cp_fake_fail(h.fake, CP_NO_MEMORY);
        h_answer a;
        assert_true(h_read(fd, &a));
        assert_int_equal(a.status, 503);
        assert_string_equal(h_error_code(&a), "out_of_memory");
        h_answer_fini(&a);
        close(fd);
    }
    /* Afterwards: an error event, and no [DONE]. */
    cp_fake_set_hold_after(h.fake, 2);
    cp_fake_set_hold(h.fake, CP_FAKE_RUN);
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", STREAM);
    while (cp_fake_read(h.fake).tokens < 2)
        usleep(1000);
    char peek[900];
    assert_int_equal(recv(fd, peek, sizeof(peek), MSG_PEEK | MSG_WAITALL), sizeof(peek));
    cp_fake_fail(h.fake, CP_MODEL_FAILED);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_true(a.whole);
    assert_null(strstr(a.body.p, "[DONE]"));
    const char *last = h_event(&a, h_events(&a) - 1);
    assert_int_equal(strncmp(last, "{\"error\":{", 10), 0);
    assert_non_null(strstr(last, "\"code\":\"model_failed\""));
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

/* The server's part of a deadline: it goes to the engine with the request, and its error is an
 * answer. That the engine keeps it is the engine's test. */
static void test_deadline_is_handed_on(void **state)
{
    (void)state;
    for (int with = 0; with < 2; with++) {
        harness h;
        int64_t deadline_ms = with ? 3600000 : 0;
        h_open(&h, &(h_config){.deadline_ms = deadline_ms});
        cp_fake_set_hold(h.fake, CP_FAKE_QUEUE);
        int fd = h_connect(&h);
        int64_t before = cp_now_ns();
        h_request(fd, "POST", CHAT, "", STREAM);
        h_wait_submitted(&h, 1);
        int64_t due = cp_fake_read(h.fake).deadline_ns, wait = deadline_ms * 1000000;
        if (with)
            assert_true(due >= before + wait && due <= cp_now_ns() + wait);
        else
            assert_int_equal(due, 0);
        cp_fake_fail(h.fake, CP_DEADLINE);
        h_answer a;
        assert_true(h_read(fd, &a));
        assert_int_equal(a.status, 504);
        assert_string_equal(h_error_code(&a), "deadline_exceeded");
        h_answer_fini(&a);
        close(fd);
        h_close(&h);
    }
}

static void probe(const harness *h, const char *path, int status, const char *word)
{
    h_answer a = h_call(h, "GET", path, "", NULL);
    json_t *v = h_json(&a);
    assert_int_equal(a.status, status);
    assert_string_equal(json_string_value(json_object_get(v, "status")), word);
    assert_true(json_is_string(json_object_get(v, "phase")));
    json_decref(v);
    h_answer_fini(&a);
}

static void test_probes_while_loading(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.loading = true});
    cp_server_phase(h.s, NULL, "mapping", 0, 0, 0);
    h_answer a = h_call(&h, "GET", "/readyz", "", NULL);
    assert_string_equal(a.body.p, "{\"status\":\"loading\",\"phase\":\"mapping\"}");
    h_answer_fini(&a);
    cp_server_phase(h.s, NULL, "pulling", 3, 10, 7);
    a = h_call(&h, "GET", "/metrics", "", NULL);
    assert_non_null(strstr(a.body.p, "\ncapstan_load_bytes 3\n"));
    assert_non_null(strstr(a.body.p, "\ncapstan_load_size_bytes 10\n"));
    assert_non_null(strstr(a.body.p, "\ncapstan_load_bytes_per_second 7\n"));
    h_answer_fini(&a);
    a = h_call(&h, "GET", "/health", "", NULL);
    assert_string_equal(a.body.p, "{\"status\":\"loading\",\"phase\":\"pulling\",\"bytes_done\":3,"
                                  "\"bytes_total\":10,\"bytes_per_second\":7}");
    h_answer_fini(&a);
    probe(&h, "/livez", 200, "loading");
    probe(&h, "/readyz", 503, "loading");
    probe(&h, "/health", 503, "loading");
    probe(&h, "/startupz", 503, "loading");
    a = h_call(&h, "POST", CHAT, "", WHOLE);
    assert_int_equal(a.status, 503);
    assert_string_equal(h_error_code(&a), "model_loading");
    char v[16];
    assert_non_null(h_header(&a, "Retry-After", v, sizeof(v)));
    h_answer_fini(&a);
    cp_server_ready(h.s);
    a = h_call(&h, "GET", "/readyz", "", NULL);
    assert_string_equal(a.body.p, "{\"status\":\"ok\",\"phase\":\"serving\"}");
    h_answer_fini(&a);
    a = h_call(&h, "GET", "/metrics", "", NULL);
    assert_non_null(strstr(a.body.p, "\ncapstan_load_bytes 0\n"));
    h_answer_fini(&a);
    probe(&h, "/livez", 200, "ok");
    probe(&h, "/readyz", 200, "ok");
    probe(&h, "/health", 200, "ok");
    probe(&h, "/startupz", 200, "ok");
    h_close(&h);
}

static bool wait_drained(harness *h)
{
    bool clean;
    while (!cp_server_drain_poll(h->s, &clean))
        usleep(2000);
    return clean;
}

static void test_drain_waits_for_what_runs(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.grace_ms = 3600000, .timeout_ms = 3600000});
    cp_fake_set_hold(h.fake, CP_FAKE_PREFILL);
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", STREAM);
    h_wait_submitted(&h, 1);
    cp_server_drain_begin(h.s);
    probe(&h, "/readyz", 503, "draining");
    probe(&h, "/livez", 200, "draining");
    probe(&h, "/startupz", 200, "draining");
    /* In the grace new requests are taken. */
    int second = h_connect(&h);
    h_request(second, "POST", CHAT, "", WHOLE);
    h_wait_submitted(&h, 2);
    for (int status = 200; status != 503;) { /* after it they are not */
        atomic_store(&h.s->drain, CP_REFUSE);
        h_answer a = h_call(&h, "POST", "/tokenize", "", "{\"content\":\"x\"}");
        status = a.status;
        h_answer_fini(&a);
        usleep(20000);
    }
    bool clean;
    assert_false(cp_server_drain_poll(h.s, &clean));
    cp_fake_set_hold(h.fake, CP_FAKE_RUN);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_non_null(strstr(a.body.p, "[DONE]"));
    h_answer_fini(&a);
    assert_true(h_read(second, &a));
    assert_int_equal(a.status, 200);
    h_answer_fini(&a);
    assert_true(wait_drained(&h));
    close(fd);
    close(second);
    h_close(&h);
}

static void test_drain_cuts_what_outlives_it(void **state)
{
    (void)state;
    for (int by_hand = 0; by_hand < 2; by_hand++) {
        harness h;
        h_open(&h, &(h_config){.grace_ms = 0, .timeout_ms = by_hand ? 3600000 : 300});
        h.script.endless = true;
        cp_fake_set_hold_after(h.fake, 2);
        int fd = h_connect(&h), other = h_connect(&h);
        char peek[900];
        h_request(fd, "POST", CHAT, "", STREAM);
        assert_int_equal(recv(fd, peek, sizeof(peek), MSG_PEEK | MSG_WAITALL), sizeof(peek));
        h_request(other, "POST", CHAT, "", WHOLE);
        h_wait_submitted(&h, 2);
        cp_server_drain_begin(h.s);
        if (by_hand)
            cp_server_drain_now(h.s);
        h_answer a;
        assert_true(h_read(fd, &a));
        assert_null(strstr(a.body.p, "[DONE]"));
        assert_non_null(strstr(h_event(&a, h_events(&a) - 1), "\"code\":\"overloaded\""));
        h_answer_fini(&a);
        assert_true(h_read(other, &a));
        assert_int_equal(a.status, 503);
        h_answer_fini(&a);
        assert_false(wait_drained(&h));
        close(fd);
        close(other);
        h_close(&h);
    }
}

static void test_idle_drain_is_clean(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.grace_ms = 50, .timeout_ms = 1000});
    cp_server_drain_begin(h.s);
    assert_true(wait_drained(&h));
    h_close(&h);
}

/* A call that is cut while its body arrives is answered at once; what still comes of the body is
 * not worked on. */
static void test_cut_while_a_body_arrives(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.grace_ms = 3600000});
    int fd = h_connect(&h);
    char head[256];
    cp_snprintf(head, sizeof(head),
                "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n{",
                strlen(WHOLE));
    h_sends(fd, head);
    h_wait_active(&h, 1);
    cp_server_drain_now(h.s);
    assert_false(wait_drained(&h));
    h_block_jobs(&h);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 503);
    h_answer_fini(&a);
    h_sends(fd, &WHOLE[1]);
    h_answer rest;
    assert_false(h_read(fd, &rest)); /* the connection ends */
    assert_int_equal(atomic_load(&h.s->n_jobs), 0);
    h_unblock_jobs(&h);
    h_wait_idle(&h);
    assert_int_equal(cp_fake_read(h.fake).submitted, 0);
    close(fd);
    h_close(&h);
}

enum { IN_FLIGHT = 10 };

/* One of everything: running calls with tokens sent and without, a client that does not read, a
 * call on a job, half a head, half a body, a connection without a word. */
static void fill(harness *h, int fd[IN_FLIGHT])
{
    h->script.endless = true;
    for (int i = 0; i < IN_FLIGHT; i++)
        fd[i] = h_connect(h);
    for (int i = 0; i < 4; i++)
        h_request(fd[i], "POST", CHAT, "", i & 1 ? STREAM : WHOLE);
    h_request(fd[4], "POST", CHAT, "", STREAM);
    h_wait_submitted(h, 5);
    while (cp_fake_read(h->fake).tokens < 5)
        usleep(1000);
    cp_fake_set_hold(h->fake, CP_FAKE_STUCK);
    while (!cp_fake_read(h->fake).stuck)
        usleep(1000);
    h_request(fd[5], "POST", CHAT, "", STREAM); /* arrives while the step is stuck */
    h_wait_submitted(h, 6);
    h_block_jobs(h);
    h_request(fd[6], "POST", CHAT, "", STREAM);
    h_wait_jobs(h, 1);
    h_sends(fd[7], "GET /hea");
    h_sends(fd[8],
            "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{\"mess");
    h_wait_active(h, 8);
}

/* Ends the step once the engine is being stopped, and the job once the server is being closed. */
static void *let_go(void *arg)
{
    harness *h = arg;
    while (!cp_fake_read(h->fake).stopping)
        usleep(1000);
    cp_fake_set_hold(h->fake, CP_FAKE_RUN);
    while (!atomic_load(&h->s->closing))
        usleep(1000);
    usleep(1200000); /* longer than an engine would be given */
    h_unblock_jobs(h);
    return NULL;
}

/* The end of a process with everything in flight: no abort, nothing freed too early or left. */
static void test_close_with_everything_in_flight(void **state)
{
    (void)state;
    harness h;
    int fd[IN_FLIGHT];
    pthread_t helper;
    h_open(&h, &(h_config){.ctx = 1 << 20});
    fill(&h, fd);
    assert_int_equal(pthread_create(&helper, NULL, let_go, &h), 0);
    h_end(&h);
    pthread_join(helper, NULL);
    for (int i = 0; i < IN_FLIGHT; i++)
        close(fd[i]);
}

/* A second signal while a step is stuck: the answers end all the same, before the step does. */
static void test_a_cut_does_not_wait_for_the_step(void **state)
{
    (void)state;
    harness h;
    int fd[IN_FLIGHT];
    pthread_t helper;
    h_open(&h, &(h_config){.ctx = 1 << 20, .grace_ms = 3600000, .timeout_ms = 3600000});
    fill(&h, fd);
    cp_server_drain_begin(h.s);
    cp_server_drain_now(h.s);
    assert_false(wait_drained(&h));
    for (int i = 0; i < 4; i++) {
        h_answer a;
        assert_true(h_read(fd[i], &a));
        assert_int_equal(a.status, i & 1 ? 200 : 503);
        assert_non_null(memmem(a.body.p, a.body.n, "\"code\":\"overloaded\"", 19));
        h_answer_fini(&a);
    }
    assert_true(cp_fake_read(h.fake).stuck);
    assert_int_equal(pthread_create(&helper, NULL, let_go, &h), 0);
    h_end(&h);
    pthread_join(helper, NULL);
    for (int i = 0; i < IN_FLIGHT; i++)
        close(fd[i]);
}

/* The wrong order, with a step that is stuck: the engine finds nobody to wake. What it held is left
 * for good (and named here, so that no tool takes it for lost). */
static void test_close_before_the_engine_stops(void **state)
{
    (void)state;
    static cp_server *left;
    harness h;
    int fd;
    h_open(&h, &(h_config){0});
    h.script.endless = true;
    fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", STREAM);
    h_wait_submitted(&h, 1);
    cp_fake_set_hold(h.fake, CP_FAKE_STUCK);
    while (!cp_fake_read(h.fake).stuck)
        usleep(1000);
    left = h.s;
    cp_server_close(h.s);
    assert_non_null(left);
    cp_fake_set_hold(h.fake, CP_FAKE_RUN);
    cp_fake_stop(h.fake);
    assert_int_equal(cp_fake_read(h.fake).live, 0);
    cp_jobs_close(h.jobs);
    cp_fake_close(h.fake);
    h_free(&h);
    close(fd);
}

/* Does this move end the process? In a child of its own. */
static bool dies(cp_call_state from, cp_call_state to)
{
    pid_t pid = fork();
    if (pid == 0) {
        cp_call c = {0};
        atomic_init(&c.state, (int)from);
        (void)!freopen("/dev/null", "w", stderr);
        (void)signal(SIGABRT, SIG_DFL);
        cp_call_move(&c, to);
        _exit(cp_call_state_of(&c) == to ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

/* The table of call.h: no other move goes through. */
static void test_states_move_by_the_table(void **state)
{
    (void)state;
    static const char *const next[CP_CALL_STATES] = {
        [CP_CALL_READING] = "PT", [CP_CALL_PREPARING] = "RTL", [CP_CALL_RUNNING] = "TL",
        [CP_CALL_TOLD] = "",      [CP_CALL_LEFT] = "T",
    };
    static const char letters[] = "-PRTL"; /* nothing goes back to READING */
    for (cp_call_state from = CP_CALL_READING; from < CP_CALL_STATES; from++)
        for (cp_call_state to = CP_CALL_READING; to < CP_CALL_STATES; to++)
            assert_int_equal(dies(from, to), strchr(next[from], letters[to]) == NULL);
}

int run_life_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states_move_by_the_table),
        cmocka_unit_test(test_disconnect_in_every_phase),
        cmocka_unit_test(test_disconnect_while_parsing),
        cmocka_unit_test(test_nothing_is_prepared_on_the_loop),
        cmocka_unit_test(test_drain_waits_for_jobs),
        cmocka_unit_test(test_half_heads_and_bodies),
        cmocka_unit_test(test_slow_reader_is_waited_for),
        cmocka_unit_test(test_slow_reader_is_cut),
        cmocka_unit_test(test_finished_and_unread),
        cmocka_unit_test(test_comments_on_silent_streams),
        cmocka_unit_test(test_engine_errors),
        cmocka_unit_test(test_deadline_is_handed_on),
        cmocka_unit_test(test_probes_while_loading),
        cmocka_unit_test(test_drain_waits_for_what_runs),
        cmocka_unit_test(test_drain_cuts_what_outlives_it),
        cmocka_unit_test(test_idle_drain_is_clean),
        cmocka_unit_test(test_cut_while_a_body_arrives),
        cmocka_unit_test(test_close_with_everything_in_flight),
        cmocka_unit_test(test_a_cut_does_not_wait_for_the_step),
        cmocka_unit_test(test_close_before_the_engine_stops),
    };
    return cmocka_run_group_tests_name("life", tests, NULL, NULL);
}
