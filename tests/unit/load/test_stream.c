/* Times and outcomes of one answer, without a network. */
#include "tests/unit/load/suites.h"

#include "bench/load/stream.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK(text) "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define ROLE        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
#define FINISH      "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE       "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":4}}\n\n"
#define DONE        "data: [DONE]\n\n"

enum { MS = 1000000 };

static void feed(cp_load_stream *s, int status, const char *text, int64_t ms)
{
    assert_true(cp_load_stream_feed(s, status, true, text, strlen(text), ms * MS));
}

static void count(void *arg, int64_t now_ns, int64_t gap_ns)
{
    (void)now_ns;
    int *n = arg;
    *n += gap_ns < 0 ? 1000 : 1;
}

static void times_are_of_content(void **state)
{
    (void)state;
    cp_load_stream s = {0};
    int tokens = 0;
    cp_load_stream_begin(&s, true, count, &tokens);
    feed(&s, 200, ROLE, 10); /* no token */
    feed(&s, 200, ": keep-alive\n\n", 15);
    feed(&s, 200, CHUNK("a"), 20);
    feed(&s, 200, CHUNK("b\\n") CHUNK("c"), 50); /* two at once */
    feed(&s, 200, FINISH, 60);
    feed(&s, 200, USAGE DONE, 70);
    assert_int_equal(cp_load_stream_end(&s, 200, CP_LOAD_WHOLE, ""), CP_LOAD_OK);
    assert_int_equal(s.first_ns, 20 * MS);
    assert_int_equal(s.last_ns, 50 * MS);
    assert_int_equal(s.end_ns, 60 * MS);
    assert_int_equal(s.chunks, 3);
    assert_int_equal(tokens, 1002);
    assert_int_equal(s.n_gaps, 2);
    assert_int_equal(s.gaps[0], 30000);
    assert_int_equal(s.gaps[1], 0);
    assert_true(s.usage && s.prompt_tokens == 5 && s.completion_tokens == 4);
    assert_string_equal(s.answer.p, "ab\\nc");
    cp_load_stream_begin(&s, false, NULL, NULL); /* nothing of it is left for the next */
    assert_true(!s.first_ns && !s.chunks && !s.usage && !s.n_gaps && s.answer.n == 0);
    cp_load_stream_fini(&s);
}

static void outcomes(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *body;
        cp_load_ending how;
        cp_load_outcome want;
        const char *why;
    } rows[] = {
        {200, CHUNK("a") FINISH USAGE DONE, CP_LOAD_WHOLE, CP_LOAD_OK, ""},
        {200, CHUNK("a") FINISH, CP_LOAD_WHOLE, CP_LOAD_OK, ""},
        {200, CHUNK("a") DONE, CP_LOAD_WHOLE, CP_LOAD_OK, ""},
        /* all of the answer was there when the connection went */
        {200, CHUNK("a") FINISH DONE, CP_LOAD_BROKEN, CP_LOAD_OK, ""},
        {200, CHUNK("a") "data: [DONE]", CP_LOAD_WHOLE, CP_LOAD_OK, ""},
        {200, CHUNK("a"), CP_LOAD_WHOLE, CP_LOAD_CUT, "without [DONE] or a finish_reason"},
        {200, "", CP_LOAD_WHOLE, CP_LOAD_CUT, "without [DONE]"},
        {200, CHUNK("a"), CP_LOAD_BROKEN, CP_LOAD_CUT, "the problem"},
        {200, CHUNK("a") FINISH, CP_LOAD_BROKEN, CP_LOAD_CUT, "the problem"},
        {200, CHUNK("a") "data: {\"choi", CP_LOAD_BROKEN, CP_LOAD_CUT, "the problem"},
        {200, CHUNK("a") "data: {\"choi", CP_LOAD_WHOLE, CP_LOAD_CUT, "without [DONE]"},
        {200, CHUNK("a") "data: xxx", CP_LOAD_TOO_MUCH, CP_LOAD_ERROR, "the problem"},
        {200, CHUNK("a"), CP_LOAD_OVERDUE, CP_LOAD_TIMEOUT, "the problem"},
        {200, CHUNK("a"), CP_LOAD_CALLED_OFF, CP_LOAD_CANCELLED, ""},
        {200, CHUNK("a"), CP_LOAD_TOO_MUCH, CP_LOAD_ERROR, "the problem"},
        {200, CHUNK("a") "data: {\"error\":{\"message\":\"lost\"}}\n\n", CP_LOAD_WHOLE,
         CP_LOAD_ERROR, "lost"},
        {200, CHUNK("a") "event: error\ndata: {\"x\":1}\n\n" DONE, CP_LOAD_WHOLE, CP_LOAD_ERROR,
         "{\"x\":1}"},
        {200, "data: nonsense\n\n" DONE, CP_LOAD_WHOLE, CP_LOAD_ERROR, "nonsense"},
        {429, "{\"error\":{\"message\":\"slow down\"}}", CP_LOAD_WHOLE, CP_LOAD_REFUSED,
         "slow down"},
        {503, "{\"error\":{\"message\":\"full\"}}", CP_LOAD_WHOLE, CP_LOAD_REFUSED, "full"},
        {503, "", CP_LOAD_BROKEN, CP_LOAD_REFUSED, ""},
        {529, "full\n\x1b[31m", CP_LOAD_WHOLE, CP_LOAD_REFUSED, "full??[31m"},
        {401, "{\"error\":{\"message\":\"key\"}}", CP_LOAD_WHOLE, CP_LOAD_ERROR, "key"},
        {500, "", CP_LOAD_WHOLE, CP_LOAD_ERROR, ""},
        {301, "moved", CP_LOAD_WHOLE, CP_LOAD_ERROR, "moved"},
        {0, "", CP_LOAD_BROKEN, CP_LOAD_UNREACHED, "the problem"},
        {0, "", CP_LOAD_OVERDUE, CP_LOAD_TIMEOUT, "the problem"},
        {0, "", CP_LOAD_CALLED_OFF, CP_LOAD_CANCELLED, ""},
    };
    cp_load_stream s = {0};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_load_stream_begin(&s, false, NULL, NULL);
        if (*rows[i].body)
            feed(&s, rows[i].status, rows[i].body, 1);
        cp_load_outcome got = cp_load_stream_end(&s, rows[i].status, rows[i].how, "the problem");
        if (got != rows[i].want || (*rows[i].why && !strstr(s.why, rows[i].why)))
            fail_msg("row %zu: %s, '%s'", i, cp_load_outcome_slug(got), s.why);
    }
    cp_load_stream_fini(&s);
}

static void no_stream_at_all(void **state)
{
    (void)state;
    static const char body[] = "{\"choices\":[{\"message\":{\"content\":\"a\"}}]}";
    cp_load_stream s = {0};
    cp_load_stream_begin(&s, false, NULL, NULL);
    assert_true(cp_load_stream_feed(&s, 200, false, body, sizeof(body) - 1, MS));
    assert_int_equal(cp_load_stream_end(&s, 200, CP_LOAD_WHOLE, ""), CP_LOAD_ERROR);
    assert_string_equal(s.why, "the answer is no event stream");
    cp_load_stream_fini(&s);
}

/* Whatever a server sends, a stream holds little of it. */
static void memory_is_bounded(void **state)
{
    (void)state;
    static char block[1 << 16];
    cp_load_stream s = {0};
    memset(block, 'x', sizeof(block));
    cp_load_stream_begin(&s, false, NULL, NULL);
    bool ok = true;
    for (int i = 0; i < 10 && ok; i++) /* the body of an error */
        ok = cp_load_stream_feed(&s, 500, false, block, sizeof(block), MS);
    assert_false(ok);
    assert_true(s.body.cap <= (size_t)4 * CP_LOAD_ERROR_BODY_MAX);
    assert_int_equal(cp_load_stream_end(&s, 500, CP_LOAD_TOO_MUCH, "x"), CP_LOAD_ERROR);
    assert_true(strlen(s.why) < CP_LOAD_WHY_MAX);

    cp_load_stream_begin(&s, true, NULL, NULL); /* gaps and the answer */
    for (int i = 0; i < 3 * CP_LOAD_GAPS_MAX; i++)
        feed(&s, 200, CHUNK("some more words of an answer"), i);
    assert_int_equal(s.chunks, 3 * CP_LOAD_GAPS_MAX);
    assert_int_equal(s.n_gaps, CP_LOAD_GAPS_MAX);
    assert_true(s.answer.n <= CP_LOAD_ANSWER_MAX);
    assert_true(s.gaps_ns > (3.0 * CP_LOAD_GAPS_MAX - 2) * MS);
    cp_load_stream_fini(&s);
}

int suite_stream(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_of_content),
        cmocka_unit_test(outcomes),
        cmocka_unit_test(no_stream_at_all),
        cmocka_unit_test(memory_is_bounded),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
