/* Prompts by index, recorded conversations in both forms, and files that are neither. */
#include "tests/unit/load/suites.h"

#include "bench/load/ask.h"
#include "bench/load/trace.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[64];

static void write_file(const char *text, size_t n)
{
    snprintf(path, sizeof(path), "/tmp/capstan-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), (ssize_t)n);
    close(fd);
}

static cp_load_config config(cp_load_dataset dataset, const char *file)
{
    return (cp_load_config){.model = "m",
                            .dataset = dataset,
                            .dataset_file = file,
                            .input_len = "uniform:20:40",
                            .output_len = "16",
                            .prefix_len = 100,
                            .prefix_groups = 2,
                            .turns = 3,
                            .seed = 7};
}

static cp_load_prompts *prompts(const cp_load_config *cfg)
{
    cp_load_prompts *p = NULL;
    cp_err err = {0};
    if (cp_load_prompts_open(&p, cfg, &err))
        fail_msg("%s", err.msg);
    return p;
}

/* The request of a turn as JSON; history goes on. */
static json_t *request(const cp_load_config *cfg, const cp_load_prompts *p, uint64_t talk,
                       uint32_t turn, cp_buf *history, cp_load_ask *ask)
{
    static const cp_load_shape shape = {.ignore_eos = true, .include_usage = true};
    cp_buf body = {0};
    cp_load_prompts_turn(p, talk, turn, history, ask);
    cp_load_body(&body, cfg, &shape, history, ask);
    json_t *doc = json_loadb(body.p, body.n, 0, NULL);
    assert_non_null(doc);
    cp_buf_fini(&body);
    return doc;
}

static json_t *message(const json_t *request, size_t i)
{
    return json_array_get(json_object_get(request, "messages"), i);
}

static const char *content(const json_t *request, size_t i)
{
    return json_string_value(json_object_get(message(request, i), "content"));
}

static size_t words_in(const char *s)
{
    size_t n = *s != '\0';
    for (; *s; s++)
        n += *s == ' ';
    return n;
}

static void random_prompts(void **state)
{
    (void)state;
    cp_load_config cfg = config(CP_LOAD_RANDOM, NULL);
    cp_load_prompts *p = prompts(&cfg), *again = prompts(&cfg);
    cfg.seed = 8;
    cp_load_prompts *other = prompts(&cfg);
    cp_load_ask ask, same;
    int differ = 0;
    for (uint64_t i = 0; i < 50; i++) {
        cp_buf a = {0}, b = {0}, c = {0};
        json_t *doc = request(&cfg, p, i, 0, &a, &ask);
        assert_in_range(ask.input_tokens, 20, 40);
        assert_int_equal(words_in(content(doc, 0)), ask.input_tokens);
        assert_int_equal(json_integer_value(json_object_get(doc, "max_tokens")), 16);
        assert_true(json_is_true(json_object_get(doc, "ignore_eos")));
        assert_true(json_is_true(json_object_get(doc, "stream")));
        cp_load_prompts_turn(again, i, 0, &b, &same);
        assert_string_equal(a.p, b.p);
        cp_load_prompts_turn(other, i, 0, &c, &same);
        differ += strcmp(a.p, c.p) != 0;
        json_decref(doc);
        cp_buf_fini(&a);
        cp_buf_fini(&b);
        cp_buf_fini(&c);
    }
    assert_int_equal(differ, 50);
    cp_load_prompts_rate(p, 2); /* words that cost two tokens: half as many */
    cp_buf h = {0};
    json_t *doc = request(&cfg, p, 3, 0, &h, &ask);
    assert_int_equal(words_in(content(doc, 0)), (ask.input_tokens + 1) / 2);
    json_decref(doc);
    cp_buf_fini(&h);
    cp_load_prompts_close(p);
    cp_load_prompts_close(again);
    cp_load_prompts_close(other);
}

static void groups_share_a_prefix(void **state)
{
    (void)state;
    cp_load_config cfg = config(CP_LOAD_SHARED_PREFIX, NULL);
    cfg.completions = true;
    cp_load_prompts *p = prompts(&cfg);
    char *texts[20];
    for (uint64_t i = 0; i < 20; i++) {
        cp_load_ask ask;
        cp_buf h = {0};
        json_t *doc = request(&cfg, p, i, 0, &h, &ask);
        texts[i] = cp_xstrdup(json_string_value(json_object_get(doc, "prompt")));
        assert_int_equal(words_in(texts[i]), ask.input_tokens);
        assert_in_range(ask.input_tokens, 120, 140);
        json_decref(doc);
        cp_buf_fini(&h);
    }
    int shared = 0, apart = 0;
    for (int i = 0; i < 20; i++) {
        for (int j = 0; j < i; j++) {
            size_t n = 0, words = 0;
            for (; texts[i][n] && texts[i][n] == texts[j][n]; n++)
                words += texts[i][n] == ' ';
            assert_true(words < 3 || (words >= 100 && words < 106));
            shared += words >= 100;
            apart += words < 3;
        }
    }
    assert_true(shared > 40 && apart > 40); /* two groups */
    for (int i = 0; i < 20; i++)
        free(texts[i]);
    cp_load_prompts_close(p);
}

static void turns_carry_what_was_said(void **state)
{
    (void)state;
    cp_load_config cfg = config(CP_LOAD_TURNS, NULL);
    cp_load_prompts *p = prompts(&cfg);
    cp_load_ask ask;
    cp_buf history = {0}, said = {0};
    assert_int_equal(cp_load_prompts_turns(p, 5), 3);
    cp_buf_adds(&said, "so \\\"it\\\" is");
    for (uint32_t turn = 0; turn < 3; turn++) {
        json_t *doc = request(&cfg, p, 5, turn, &history, &ask);
        assert_int_equal(json_array_size(json_object_get(doc, "messages")), 2 * turn + 1);
        if (turn > 0)
            assert_string_equal(content(doc, 2 * turn - 1), "so \"it\" is");
        json_decref(doc);
        cp_load_prompts_answer(p, 5, turn, &said, &history);
    }
    cp_buf_fini(&history);
    cp_buf_fini(&said);
    cp_load_prompts_close(p);
}

static const char trace[] =
    "[{\"id\":\"1\",\"conversations\":[{\"from\":\"human\",\"value\":\"h\\u00e9 \\\"q\\\"\\n\"},"
    "{\"from\":\"gpt\",\"value\":\"12345678\"},{\"from\":\"human\",\"value\":\"more\"},"
    "{\"from\":\"gpt\",\"value\":\"yes\"}]},\n"
    " {\"conversations\":[{\"from\":\"human\",\"value\":\"nobody answers\"}]},\n"
    " {\"conversations\":[{\"from\":\"gpt\",\"value\":\"nobody asked\"}]},\n"
    " {\"conversations\":[]}, {\"other\":1},\n"
    " {\"conversations\":[{\"from\":\"alien\",\"value\":\"?\"},{\"from\":\"gpt\",\"value\":\"!\"}]}"
    "]";

static void sharegpt(void **state)
{
    (void)state;
    write_file(trace, sizeof(trace) - 1);
    cp_load_config cfg = config(CP_LOAD_SHAREGPT, path);
    cfg.output_len = NULL;
    cp_load_prompts *p = prompts(&cfg);
    cp_load_ask ask;
    cp_buf h = {0};
    assert_int_equal(cp_load_prompts_turns(p, 0), 1);
    json_t *doc = request(&cfg, p, 123, 0, &h, &ask); /* the one that can be asked */
    assert_int_equal(json_array_size(json_object_get(doc, "messages")), 1);
    assert_string_equal(content(doc, 0), "h\xC3\xA9 \"q\"\n");
    assert_int_equal(ask.max_tokens, 2); /* of 8 bytes */
    assert_null(json_object_get(doc, "ignore_eos"));
    assert_null(json_object_get(doc, "tools"));
    json_decref(doc);
    cp_buf_clear(&h);
    cp_load_prompts_close(p);
    cfg.completions = true;
    p = prompts(&cfg);
    doc = request(&cfg, p, 0, 0, &h, &ask);
    assert_string_equal(json_string_value(json_object_get(doc, "prompt")), "h\xC3\xA9 \"q\"\n");
    json_decref(doc);
    cp_buf_fini(&h);
    cp_load_prompts_close(p);
    unlink(path);
}

static const char agent[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"be short\"},{\"role\":\"user\",\"content\":"
    "\"weather?\",\"timestamp\":1},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{"
    "\"id\":"
    "\"c1\",\"type\":\"function\",\"function\":{\"name\":\"w\",\"arguments\":\"{}\"}}]},{\"role\":"
    "\"tool\",\"tool_call_id\":\"c1\",\"content\":\"rain\"},{\"role\":\"assistant\",\"content\":"
    "\"It rains.\"},{\"role\":\"user\",\"content\":\"thanks\"},{\"role\":\"assistant\",\"content\":"
    "\"Bye.\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"w\"}}]}\n\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}\n";

static void agent_traces(void **state)
{
    (void)state;
    write_file(agent, sizeof(agent) - 1);
    cp_load_config cfg = config(CP_LOAD_TURNS, path);
    cp_load_prompts *p = prompts(&cfg);
    cp_load_ask ask;
    cp_buf history = {0}, said = {0};
    cp_buf_adds(&said, "SAID");
    assert_int_equal(cp_load_prompts_turns(p, 0), 3);
    static const size_t sizes[] = {2, 4, 6};
    for (uint32_t turn = 0; turn < 3; turn++) {
        json_t *doc = request(&cfg, p, 0, turn, &history, &ask);
        assert_int_equal(json_array_size(json_object_get(doc, "messages")), sizes[turn]);
        assert_int_equal(json_array_size(json_object_get(doc, "tools")), 1);
        if (turn > 0) { /* tool calls are as recorded, so that their results belong to something */
            assert_true(json_is_null(json_object_get(message(doc, 2), "content")));
            assert_int_equal(json_array_size(json_object_get(message(doc, 2), "tool_calls")), 1);
            assert_string_equal(json_string_value(json_object_get(message(doc, 3), "tool_call_id")),
                                "c1");
        }
        if (turn > 1)
            assert_string_equal(content(doc, 4), "SAID");
        assert_null(json_object_get(message(doc, 1), "timestamp"));
        json_decref(doc);
        cp_load_prompts_answer(p, 0, turn, &said, &history);
    }
    cp_buf_fini(&history);
    cp_buf_fini(&said);
    cp_load_prompts_close(p);
    unlink(path);
}

/* Two answers in a row are one turn: nobody asked for the second. */
static void answers_in_a_row(void **state)
{
    (void)state;
    static const char text[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":"
        "\"b\"},{\"role\":\"assistant\",\"content\":\"c\"},{\"role\":\"user\",\"content\":\"d\"},"
        "{\"role\":\"assistant\",\"content\":\"e\"}]}";
    write_file(text, sizeof(text) - 1);
    cp_load_config cfg = config(CP_LOAD_TURNS, path);
    cp_load_prompts *p = prompts(&cfg);
    cp_load_ask ask;
    cp_buf history = {0}, said = {0};
    cp_buf_adds(&said, "SAID");
    assert_int_equal(cp_load_prompts_turns(p, 0), 2);
    json_decref(request(&cfg, p, 0, 0, &history, &ask));
    cp_load_prompts_answer(p, 0, 0, &said, &history);
    json_t *doc = request(&cfg, p, 0, 1, &history, &ask);
    assert_int_equal(json_array_size(json_object_get(doc, "messages")), 4);
    assert_string_equal(content(doc, 1), "SAID");
    assert_string_equal(content(doc, 2), "c");
    json_decref(doc);
    cp_buf_fini(&history);
    cp_buf_fini(&said);
    cp_load_prompts_close(p);
    unlink(path);
}

static void files_that_are_neither(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"", ":1: no record with a message and an answer"},
        {"[]", "no record with"},
        {"\n\n{\"messages\":[", ":3: "},
        {"[{\"a\":1} {\"b\":2}]", "no ',' or ']' behind a record"},
        {"[1,2]", "'{' expected near '1'"},
        {"[[1]]", "a record is no object"},
        {"nonsense", ":1: "},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", ":1: "},
        {"{\"messages\":[{\"role\":\"user\"},{\"role\":1}]}", "no record with"},
        {"{\"messages\":\"x\"}\n{\"conversations\":{}}", "no record with"},
        {"[{\"messages\":[{\"role\":\"user\"},{\"role\":\"assistant\"}]}", "no ',' or ']'"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_load_trace *t = NULL;
        cp_err err = {0};
        write_file(rows[i].text, strlen(rows[i].text));
        assert_int_equal(cp_load_trace_open(&t, path, &err), CP_USAGE);
        if (!strstr(err.msg, rows[i].error) || !strstr(err.msg, path))
            fail_msg("row %zu: %s", i, err.msg);
        unlink(path);
    }
    cp_load_trace *t = NULL;
    cp_err err = {0};
    assert_int_equal(cp_load_trace_open(&t, "/nonexistent/file", &err), CP_NOT_FOUND);
    assert_non_null(strstr(err.msg, "--dataset-file: "));
}

/* A file cut at any byte is taken or refused, and nothing else. */
static void a_file_cut_anywhere(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof(agent) - 1; n += 3) {
        cp_load_trace *t = NULL;
        write_file(agent, n);
        cp_code code = cp_load_trace_open(&t, path, NULL);
        assert_true(code == CP_OK || code == CP_USAGE);
        cp_load_trace_close(t);
        unlink(path);
    }
}

static void what_does_not_go_together(void **state)
{
    (void)state;
    cp_load_prompts *p = NULL;
    cp_err err = {0};
    cp_load_config cfg = config(CP_LOAD_SHAREGPT, NULL);
    assert_int_equal(cp_load_prompts_open(&p, &cfg, &err), CP_USAGE);
    assert_non_null(strstr(err.msg, "needs --dataset-file"));
    cfg = config(CP_LOAD_RANDOM, "x");
    assert_int_equal(cp_load_prompts_open(&p, &cfg, &err), CP_USAGE);
    assert_non_null(strstr(err.msg, "--dataset-file: got 'x'"));
    cfg = config(CP_LOAD_TURNS, NULL);
    cfg.completions = true;
    assert_int_equal(cp_load_prompts_open(&p, &cfg, &err), CP_USAGE);
    assert_non_null(strstr(err.msg, "--endpoint completions"));
    cfg = config(CP_LOAD_RANDOM, NULL);
    cfg.output_len = "x";
    assert_int_equal(cp_load_prompts_open(&p, &cfg, &err), CP_USAGE);
    assert_non_null(strstr(err.msg, "--output-len: got 'x'"));
}

static void tokens_of_answers(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        uint64_t want;
    } rows[] = {{"{\"count\":7,\"tokens\":[1]}", 7},
                {"{\"tokens\":[1,2,3]}", 3},
                {"{}", 0},
                {"", 0},
                {"{\"count\":-1}", 0},
                {"[1]", 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(cp_load_tokens_read(rows[i].json, strlen(rows[i].json)), rows[i].want);
}

int suite_prompts(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_prompts),
        cmocka_unit_test(groups_share_a_prefix),
        cmocka_unit_test(turns_carry_what_was_said),
        cmocka_unit_test(sharegpt),
        cmocka_unit_test(agent_traces),
        cmocka_unit_test(answers_in_a_row),
        cmocka_unit_test(files_that_are_neither),
        cmocka_unit_test(a_file_cut_anywhere),
        cmocka_unit_test(what_does_not_go_together),
        cmocka_unit_test(tokens_of_answers),
    };
    return cmocka_run_group_tests_name("prompts", tests, NULL, NULL);
}
