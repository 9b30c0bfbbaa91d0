/* Events out of bytes: cut at every byte, and one byte at a time, they are the same. */
#include "tests/unit/load/suites.h"

#include "bench/load/chunk.h"
#include "bench/load/sse.h"

#include <stdlib.h>
#include <string.h>

/* Every event as "name|data;". */
static void note(void *arg, const char *event, const char *data, size_t n)
{
    cp_buf *out = arg;
    assert_int_equal(strlen(data), n);
    cp_buf_printf(out, "%s|%s;", event, data);
}

static void feed(const char *text, size_t n, size_t first, size_t step, cp_buf *out)
{
    cp_load_sse s = {0};
    cp_buf_clear(out);
    for (size_t at = 0; at < n;) {
        size_t take = at == 0 && first ? first : step;
        take = take < n - at ? take : n - at;
        char *piece = cp_xmalloc(take); /* so that a sanitizer sees a read beyond it */
        memcpy(piece, text + at, take);
        assert_true(cp_load_sse_feed(&s, piece, take, note, out));
        free(piece);
        at += take;
    }
    cp_load_sse_end(&s, note, out);
    cp_load_sse_fini(&s);
    cp_buf_addc(out, '\0');
}

static void cut_anywhere(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"data: a\n\ndata: b\n\n", "|a;|b;"},
        {"data: a\r\n\r\ndata: b\r\n\r\n", "|a;|b;"},
        {"data: a\r\rdata: b\r\r", "|a;|b;"},
        {"data:a\n\ndata:  b\n\n", "|a;| b;"},
        {": comment\n\ndata: a\n: more\n\n", "|a;"},
        {"data: a\ndata: b\n\n", "|a\nb;"},
        {"event: error\ndata: {}\n\ndata: x\n\n", "error|{};|x;"},
        {"event: error\n\ndata: x\n\n", "|x;"},
        {"id: 7\nretry: 10\nnonsense\ndata: x\n\n", "|x;"},
        {"\xEF\xBB\xBF"
         "data: x\n\n",
         "|x;"},
        {"data\n\ndata:\n\n", "|;|;"},
        {"\n\n\ndata: x\n\n\n\n", "|x;"},
        {"data: x\n\ndata: [DONE]", "|x;|[DONE];"},
        {"data: x\n\ndata: [DONE]\n", "|x;|[DONE];"},
        {"data: a\r\ndata: b\n\r\ndata: c\r\n\n", "|a\nb;|c;"},
        {"data: \xE2\x82\xAC\n\n", "|\xE2\x82\xAC;"},
        {"", ""},
    };
    cp_buf out = {0};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t n = strlen(rows[i].text);
        for (size_t cut = 0; cut <= n; cut++) {
            feed(rows[i].text, n, cut, n + 1, &out);
            assert_string_equal(out.p, rows[i].want);
        }
        feed(rows[i].text, n, 0, 1, &out);
        assert_string_equal(out.p, rows[i].want);
    }
    cp_buf_fini(&out);
}

/* A server that never ends a line, or an event, is cut off, and costs no more than an event may. */
static void no_event_is_endless(void **state)
{
    (void)state;
    static char block[65536];
    memset(block, 'x', sizeof(block));
    for (int form = 0; form < 2; form++) {
        cp_load_sse s = {0};
        cp_buf out = {0};
        bool ok = true;
        size_t fed = 0;
        for (; ok && fed < (size_t)3 * CP_LOAD_EVENT_MAX; fed += sizeof(block)) {
            if (form == 1) {
                memcpy(block, "data: ", 6);
                block[sizeof(block) - 1] = '\n';
            }
            ok = cp_load_sse_feed(&s, block, sizeof(block), note, &out);
        }
        assert_false(ok);
        assert_true(fed <= CP_LOAD_EVENT_MAX + 2 * sizeof(block));
        assert_true(s.line.cap + s.data.cap <= (size_t)4 * CP_LOAD_EVENT_MAX);
        cp_load_sse_fini(&s);
        cp_buf_fini(&out);
    }
}

static void chunks(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        bool ok, choice, content, finished, usage, error;
        const char *text; /* of the answer, or of the error */
    } rows[] = {
        {"{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
         "\"finish_reason\":null}]}",
         true, true, false, false, false, false, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":\" a\\\"b\\u20ac\"}}]}", true, true, true, false,
         false, false, " a\\\"b\\u20ac"},
        {"{ \"choices\" : [ { \"delta\" : { \"reasoning_content\" : \"hm\" } } ] }", true, true,
         true, false, false, false, NULL},
        {"{\"choices\":[{\"delta\":{\"reasoning\":\"hm\",\"content\":null}}]}", true, true, true,
         false, false, false, NULL},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\"}"
         "}"
         "]}}]}",
         true, true, true, false, false, false, NULL},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[]}}]}", true, true, false, false, false, false,
         NULL},
        {"{\"choices\":[{\"text\":\"x\",\"finish_reason\":\"length\"}]}", true, true, true, true,
         false, false, "x"},
        {"{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}", true, true,
         false, true, false, false, NULL},
        {"{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9,\"total_tokens\":"
         "16,"
         "\"prompt_tokens_details\":{\"cached_tokens\":3}}}",
         true, false, false, false, true, false, NULL},
        {"{\"error\":{\"message\":\"no room\",\"code\":\"overloaded\"}}", true, false, false, false,
         false, true, "no room"},
        {"{\"error\":\"no room\"}", true, false, false, false, false, true, "no room"},
        {"{\"error\":null,\"choices\":[]}", true, false, false, false, false, false, NULL},
        /* the same names elsewhere mean nothing */
        {"{\"x\":{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"error\":\"b\"},\"text\":\"c\"}",
         true, false, false, false, false, false, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":{\"text\":\"x\"}},\"logprobs\":{\"content\":[{"
         "\"token\":\"a\"}]}}]}",
         true, true, false, false, false, false, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":\"a\"}}]", false, 0, 0, 0, 0, 0, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":\"a\\", false, 0, 0, 0, 0, 0, NULL},
        {"[1]", false, 0, 0, 0, 0, 0, NULL},
        {"", false, 0, 0, 0, 0, 0, NULL},
        {"{}x", false, 0, 0, 0, 0, 0, NULL},
        {"{\"a\":}", false, 0, 0, 0, 0, 0, NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_load_chunk c;
        size_t n = strlen(rows[i].json);
        char *exact = cp_xmalloc(n ? n : 1); /* not a byte more, for a sanitizer */
        memcpy(exact, rows[i].json, n);
        assert_int_equal(cp_load_chunk_read(exact, n, &c), rows[i].ok);
        if (rows[i].ok) {
            assert_int_equal(c.choice, rows[i].choice);
            assert_int_equal(c.content, rows[i].content);
            assert_int_equal(c.finished, rows[i].finished);
            assert_int_equal(c.usage, rows[i].usage);
            assert_int_equal(c.error, rows[i].error);
            cp_load_text t = c.error ? c.message : c.answer;
            assert_int_equal(t.p != NULL, rows[i].text != NULL);
            if (t.p) {
                assert_int_equal(t.n, strlen(rows[i].text));
                assert_memory_equal(t.p, rows[i].text, t.n);
            }
        }
        for (size_t cut = 0; cut < n; cut++) /* no cut is read beyond its end */
            (void)cp_load_chunk_read(exact, cut, &c);
        free(exact);
    }
    cp_load_chunk c;
    assert_true(cp_load_chunk_read("{\"usage\":{\"prompt_tokens\":99999999999999999999}}", 48, &c));
    assert_int_equal(c.prompt_tokens, UINT32_MAX);
}

static void nesting_has_an_end(void **state)
{
    (void)state;
    cp_buf deep = {0};
    cp_buf_adds(&deep, "{\"choices\":");
    for (int i = 0; i < 1000000; i++)
        cp_buf_addc(&deep, '[');
    cp_load_chunk c;
    assert_false(cp_load_chunk_read(deep.p, deep.n, &c));
    cp_buf_fini(&deep);
}

int suite_sse(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(no_event_is_endless),
        cmocka_unit_test(chunks),
        cmocka_unit_test(nesting_has_an_end),
    };
    return cmocka_run_group_tests_name("sse", tests, NULL, NULL);
}
