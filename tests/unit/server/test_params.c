/*
 * Request fields, walked from the parser's own tables: every numeric field at and beside its
 * limits and with wrong types, every field that is not built, every hand-read field.
 */
#include "harness.h"

#include <math.h>
#include <string.h>

static const cp_sampling_defaults *defaults(void)
{
    static cp_sampling_defaults d;
    d = cp_sampling_defaults_off();
    return &d;
}

static cp_code find(void *arg, cp_str name, cp_params_model *out, cp_err *err)
{
    (void)arg;
    if (name.p && !(name.n == 4 && memcmp(name.p, "smol", 4) == 0))
        return cp_fail_param(err, CP_MODEL_NOT_FOUND, "model", "no such model");
    *out = (cp_params_model){.defaults = defaults(), .n_vocab = 261};
    return CP_OK;
}

typedef struct parsed {
    cp_arena *arena;
    cp_params p;
    cp_err err;
    cp_code code;
} parsed;

static parsed parse(unsigned where, const char *body)
{
    parsed r = {.arena = cp_arena_new(8 << 20)};
    const cp_params_env env = {.where = where, .find_model = find};
    r.code = cp_params_parse(body, strlen(body), &env, r.arena, r.arena, &r.p, &r.err);
    return r;
}

static void done(parsed *r)
{
    cp_arena_free(r->arena);
}

/* A valid body of the place with `"field":value` in it, and what the field needs beside it. */
static void body_with(unsigned where, const char *field, const char *value, char *out, size_t cap)
{
    const char *more = "";
    if (strcmp(field, "top_logprobs") == 0)
        more = "\"logprobs\":true,";
    if (strcmp(field, "max_tokens") == 0 && where == CP_AT_TEXT)
        more = "\"echo\":true,";
    cp_snprintf(out, cap, "{%s%s,\"%s\":%s}", more,
                where == CP_AT_TEXT ? "\"prompt\":\"x\""
                                    : "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]",
                field, value);
}

static void expect(unsigned where, const char *field, const char *value, cp_code want)
{
    char body[512];
    body_with(where, field, value, body, sizeof(body));
    parsed r = parse(where, body);
    if (r.code != want)
        fail_msg("%s: code %s, wanted %s: %s", body, cp_code_info(r.code)->name,
                 cp_code_info(want)->name, r.code ? r.err.msg : "");
    if (want == CP_INVALID_VALUE || want == CP_UNSUPPORTED_FIELD) {
        assert_string_equal(r.err.param, field);
        assert_non_null(strstr(r.err.msg, field));
    }
    done(&r);
}

static void walk_range(const cp_param_range *row, unsigned where)
{
    char v[64];
    static const char *const wrong[] = {"\"1\"", "[]", "{}", "true", "\"\""};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        expect(where, row->name, wrong[i], CP_INVALID_VALUE);
    expect(where, row->name, "null", CP_OK);
    if (row->is_int && row->max > 9e18) {
        expect(where, row->name, "9223372036854775807", CP_OK);
        expect(where, row->name, "-9223372036854775808", CP_OK);
        expect(where, row->name, "9223372036854775808", CP_INVALID_JSON);
        expect(where, row->name, "0.5", CP_INVALID_VALUE);
        return;
    }
    double step = row->is_int ? 1 : 0.001;
    cp_snprintf(v, sizeof(v), "%.15g", row->min);
    expect(where, row->name, v, row->above_min ? CP_INVALID_VALUE : CP_OK);
    cp_snprintf(v, sizeof(v), "%.15g", row->min - step);
    expect(where, row->name, v, CP_INVALID_VALUE);
    cp_snprintf(v, sizeof(v), "%.15g", row->max);
    expect(where, row->name, v, CP_OK);
    cp_snprintf(v, sizeof(v), "%.15g", row->max + step);
    expect(where, row->name, v, CP_INVALID_VALUE);
    expect(where, row->name, "-1e300", CP_INVALID_VALUE);
    expect(where, row->name, "1e300", CP_INVALID_VALUE);
    expect(where, row->name, "9223372036854775807", CP_INVALID_VALUE);
    if (row->is_int)
        expect(where, row->name, "1.5", CP_INVALID_VALUE);
}

static void test_numeric_fields_at_their_limits(void **state)
{
    (void)state;
    cp_param_range row;
    int n = cp_param_ranges(-1, &row);
    assert_true(n >= 12);
    for (int i = 0; i < n; i++) {
        cp_param_ranges(i, &row);
        if (row.where & CP_AT_CHAT)
            walk_range(&row, CP_AT_CHAT);
        if (row.where & CP_AT_TEXT)
            walk_range(&row, CP_AT_TEXT);
    }
}

static void test_fields_not_built_are_refused(void **state)
{
    (void)state;
    unsigned where = 0;
    for (int i = 0; cp_param_unsupported(i, &where); i++) {
        const char *name = cp_param_unsupported(i, &where);
        unsigned at = where & CP_AT_CHAT ? CP_AT_CHAT : CP_AT_TEXT;
        expect(at, name, "{\"x\":1}", CP_UNSUPPORTED_FIELD);
        expect(at, name, "null", CP_OK);
    }
    /* Values that are no use of the field. */
    expect(CP_AT_CHAT, "tools", "[]", CP_OK);
    expect(CP_AT_CHAT, "tools", "[{}]", CP_UNSUPPORTED_FIELD);
    expect(CP_AT_CHAT, "tool_choice", "\"none\"", CP_OK);
    expect(CP_AT_CHAT, "tool_choice", "\"auto\"", CP_OK);
    expect(CP_AT_CHAT, "tool_choice", "\"required\"", CP_UNSUPPORTED_FIELD);
    expect(CP_AT_CHAT, "response_format", "{\"type\":\"text\"}", CP_OK);
    expect(CP_AT_CHAT, "response_format", "{\"type\":\"json_object\"}", CP_UNSUPPORTED_FIELD);
    expect(CP_AT_CHAT, "modalities", "[\"text\"]", CP_OK);
    expect(CP_AT_CHAT, "modalities", "[\"text\",\"audio\"]", CP_UNSUPPORTED_FIELD);
    expect(CP_AT_TEXT, "best_of", "1", CP_OK);
    expect(CP_AT_TEXT, "best_of", "2", CP_UNSUPPORTED_FIELD);
    expect(CP_AT_TEXT, "suffix", "\"\"", CP_OK);
    expect(CP_AT_TEXT, "suffix", "\"x\"", CP_UNSUPPORTED_FIELD);
    expect(CP_AT_CHAT, "typical_p", "1.0", CP_OK);
    expect(CP_AT_CHAT, "typical_p", "0.9", CP_UNSUPPORTED_FIELD);
    expect(CP_AT_CHAT, "top_n_sigma", "-1", CP_OK);
    expect(CP_AT_CHAT, "mirostat", "0", CP_OK);
    expect(CP_AT_CHAT, "repeat_penalty", "1.1", CP_UNSUPPORTED_FIELD);
}

static void test_flags_take_booleans_only(void **state)
{
    (void)state;
    static const char *const names[] = {"stream",
                                        "ignore_eos",
                                        "logprobs",
                                        "include_stop_str_in_output",
                                        "skip_special_tokens",
                                        "add_generation_prompt"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        expect(CP_AT_CHAT, names[i], "true", CP_OK);
        expect(CP_AT_CHAT, names[i], "null", CP_OK);
        expect(CP_AT_CHAT, names[i], "\"true\"", CP_INVALID_VALUE);
        expect(CP_AT_CHAT, names[i], "1", CP_INVALID_VALUE);
    }
    expect(CP_AT_CHAT, "enable_thinking", "false", CP_OK);
    expect(CP_AT_CHAT, "enable_thinking", "\"true\"", CP_INVALID_VALUE);
}

static void test_stop_lists(void **state)
{
    (void)state;
    char many[512] = "[\"a\"", seventeen[512];
    for (int i = 1; i < 16; i++)
        cp_snprintf(many + strlen(many), sizeof(many) - strlen(many), ",\"s%d\"", i);
    cp_snprintf(seventeen, sizeof(seventeen), "%s,\"x\"]", many);
    cp_snprintf(many + strlen(many), sizeof(many) - strlen(many), "]");
    expect(CP_AT_CHAT, "stop", "\"a\"", CP_OK);
    expect(CP_AT_CHAT, "stop", "[]", CP_OK);
    expect(CP_AT_CHAT, "stop", many, CP_OK);
    expect(CP_AT_CHAT, "stop", seventeen, CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "stop", "\"\"", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "stop", "[\"a\",1]", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "stop", "7", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "stop_token_ids", "[0,260]", CP_OK);
    expect(CP_AT_CHAT, "logit_bias", "{\"5\":-100,\"260\":100}", CP_OK);
    expect(CP_AT_CHAT, "logit_bias", "{\"5\":-101}", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "logit_bias", "{\"261\":1}", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "logit_bias", "{\"x\":1}", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "logit_bias", "{\"-1\":1}", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "logit_bias", "[]", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "cache_salt", "\"tenant\"", CP_OK);
    expect(CP_AT_CHAT, "cache_salt", "5", CP_INVALID_VALUE);
}

static void code_of(unsigned where, const char *body, cp_code want, const char *param)
{
    parsed r = parse(where, body);
    if (r.code != want)
        fail_msg("%s: code %s, wanted %s", body, cp_code_info(r.code)->name,
                 cp_code_info(want)->name);
    if (param)
        assert_string_equal(r.err.param, param);
    done(&r);
}

#define MSG(m) "{\"messages\":[" m "]}"

static void test_messages(void **state)
{
    (void)state;
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    for (size_t i = 0; i < 5; i++) {
        char body[128];
        cp_snprintf(body, sizeof(body), MSG("{\"role\":\"%s\",\"content\":\"x\"}"), roles[i]);
        code_of(CP_AT_CHAT, body, CP_OK, NULL);
    }
    code_of(CP_AT_CHAT, "{}", CP_MISSING_FIELD, "messages");
    code_of(CP_AT_CHAT, MSG(""), CP_INVALID_VALUE, "messages");
    code_of(CP_AT_CHAT, "{\"messages\":\"hi\"}", CP_INVALID_VALUE, "messages");
    code_of(CP_AT_CHAT, MSG("5"), CP_INVALID_VALUE, "messages[0]");
    code_of(CP_AT_CHAT, MSG("{\"content\":\"x\"}"), CP_MISSING_FIELD, "messages[0].role");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"root\",\"content\":\"x\"}"), CP_INVALID_VALUE,
            "messages[0].role");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\"}"), CP_MISSING_FIELD, "messages[0].content");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":3}"), CP_INVALID_VALUE,
            "messages[0].content");
    code_of(CP_AT_CHAT,
            MSG("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                "{\"type\":\"text\",\"text\":\"b\"}]}"),
            CP_OK, NULL);
    code_of(CP_AT_CHAT,
            MSG("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}"),
            CP_UNSUPPORTED_FIELD, "messages[0].content[0]");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":[{\"text\":\"a\"}]}"), CP_MISSING_FIELD,
            "messages[0].content[0]");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"),
            CP_MISSING_FIELD, "messages[0].content[0]");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":[7]}"), CP_INVALID_VALUE,
            "messages[0].content[0]");
    code_of(CP_AT_CHAT,
            MSG("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                "\"arguments\":\"{\\\"a\\\":1}\"}}]}"),
            CP_OK, NULL);
    code_of(CP_AT_CHAT,
            MSG("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                "\"arguments\":\"{\"}}]}"),
            CP_INVALID_VALUE, "messages[0].tool_calls");
    code_of(CP_AT_CHAT,
            "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
            "\"chat_template_kwargs\":{\"bos_token\":\"<s>\"}}",
            CP_INVALID_VALUE, "chat_template_kwargs");
}

static void test_prompts(void **state)
{
    (void)state;
    static const struct {
        const char *prompt;
        int n, first_ids;
    } good[] = {{"\"x\"", 1, 0},   {"\"\"", 1, 0},        {"[\"a\",\"b\"]", 2, 0},
                {"[1,2,3]", 1, 3}, {"[[1],[2,3]]", 2, 1}, {"[\"a\",[1,2]]", 2, 0}};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char body[128];
        cp_snprintf(body, sizeof(body), "{\"prompt\":%s}", good[i].prompt);
        parsed r = parse(CP_AT_TEXT, body);
        assert_int_equal(r.code, CP_OK);
        assert_int_equal(r.p.n_prompts, good[i].n);
        assert_int_equal(r.p.prompts[0].n_ids, good[i].first_ids);
        done(&r);
    }
    code_of(CP_AT_TEXT, "{}", CP_MISSING_FIELD, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":[]}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":[[]]}", CP_INVALID_VALUE, "prompt[0]");
    code_of(CP_AT_TEXT, "{\"prompt\":{}}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":[261]}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":[-1]}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":[1,\"a\"]}", CP_INVALID_VALUE, "prompt");
}

static void test_fields_together(void **state)
{
    (void)state;
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"max_tokens\":0}", CP_INVALID_VALUE, "max_tokens");
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"max_tokens\":0,\"echo\":true}", CP_OK, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"max_tokens\":3,\"min_tokens\":4}", CP_INVALID_VALUE,
            "min_tokens");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":\"x\"}],\"top_logprobs\":3,\"x\":["),
            CP_INVALID_VALUE, "top_logprobs");
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"stream_options\":{\"include_usage\":true}}",
            CP_INVALID_VALUE, "stream_options");
    code_of(CP_AT_TEXT,
            "{\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":1}}",
            CP_INVALID_VALUE, "stream_options.include_usage");
    code_of(CP_AT_TEXT,
            "{\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":true,"
            "\"continuous_usage_stats\":true}}",
            CP_UNSUPPORTED_FIELD, "stream_options.continuous_usage_stats");
    parsed r = parse(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":\"x\"}],"
                                     "\"max_tokens\":3,\"max_completion_tokens\":7,\"x\":["));
    assert_int_equal(r.code, CP_OK);
    assert_int_equal(r.p.max_tokens, 7);
    done(&r);
}

static void test_unknown_fields_are_listed(void **state)
{
    (void)state;
    parsed r = parse(CP_AT_TEXT, "{\"prompt\":\"x\",\"wat\\n\":1,\"user\":\"u\",\"other\":{}}");
    assert_int_equal(r.code, CP_OK);
    assert_int_equal(r.p.n_unknown, 2);
    assert_string_equal(r.p.unknown[0], "wat?");
    assert_string_equal(r.p.unknown[1], "other");
    done(&r);
}

static void test_json_errors_say_where(void **state)
{
    (void)state;
    parsed r = parse(CP_AT_TEXT, "{\"prompt\":\n \"x\",}");
    assert_int_equal(r.code, CP_INVALID_JSON);
    assert_non_null(strstr(r.err.msg, "line 2"));
    done(&r);
    code_of(CP_AT_TEXT, "", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, "[1]", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, "\"x\"", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":\"\\ud800\"}", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":\"\xff\"}", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\"} {}", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":1e400}", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":NaN}", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":\"a\",\"prompt\":\"b\\u0000c\"}", CP_OK, NULL);
}

static void nest(char *out, int depth)
{
    int n = 0;
    out[n++] = '{';
    memcpy(out + n, "\"a\":", 4);
    n += 4;
    for (int i = 0; i < depth - 1; i++)
        out[n++] = '[';
    for (int i = 0; i < depth - 1; i++)
        out[n++] = ']';
    out[n++] = '}';
    out[n] = '\0';
}

static void test_scan_bounds_depth_and_values(void **state)
{
    (void)state;
    char body[1024];
    cp_err err;
    nest(body, CP_JSON_DEPTH);
    assert_int_equal(cp_json_scan(body, strlen(body), &err), CP_OK);
    nest(body, CP_JSON_DEPTH + 1);
    assert_int_equal(cp_json_scan(body, strlen(body), &err), CP_INVALID_JSON);
    assert_non_null(strstr(err.msg, "deeper than 64"));
    /* Brackets in strings are text. */
    assert_int_equal(cp_json_scan("\"[[[\\\"[[\"", 9, &err), CP_OK);
    cp_buf b = {0};
    cp_buf_addc(&b, '[');
    for (int i = 0; i < CP_JSON_NODES; i++)
        cp_buf_adds(&b, "0,");
    assert_int_equal(cp_json_scan(b.p, b.n, &err), CP_INVALID_JSON);
    assert_int_equal(cp_json_scan(b.p, b.n / 2, &err), CP_OK);
    cp_buf_fini(&b);
}

int run_params_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numeric_fields_at_their_limits),
        cmocka_unit_test(test_fields_not_built_are_refused),
        cmocka_unit_test(test_flags_take_booleans_only),
        cmocka_unit_test(test_stop_lists),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_fields_together),
        cmocka_unit_test(test_unknown_fields_are_listed),
        cmocka_unit_test(test_json_errors_say_where),
        cmocka_unit_test(test_scan_bounds_depth_and_values),
    };
    return cmocka_run_group_tests_name("params", tests, NULL, NULL);
}
