/*
 * Request fields: every numeric field of the table at and beside its limits and with wrong types,
 * every field that is read by hand, and JSON's own limits. test_fields.c walks the whole table.
 */
#include "harness.h"

#include "base/sampling.h"

#include <malloc.h>
#include <math.h>
#include <stdlib.h>
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
    const cp_params_env env = {.api = h_api(where), .find_model = find};
    char *copy = cp_xstrdup(body);
    r.code = cp_params_parse(copy, strlen(body), &env, r.arena, r.arena, &r.p, &r.err);
    free(copy);
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

static void walk_range(const cp_field *row, unsigned where)
{
    bool is_int = row->kind == CP_FIELD_INT;
    char v[64];
    static const char *const wrong[] = {"\"1\"", "[]", "{}", "true", "\"\""};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        expect(where, row->name, wrong[i], CP_INVALID_VALUE);
    expect(where, row->name, "null", CP_OK);
    if (is_int && row->max > 9e18) {
        expect(where, row->name, "9223372036854775807", CP_OK);
        expect(where, row->name, "-9223372036854775808", CP_OK);
        expect(where, row->name, "9223372036854775808", CP_INVALID_VALUE);
        expect(where, row->name, "-9223372036854775809", CP_INVALID_VALUE);
        expect(where, row->name, "18446744073709551615", CP_INVALID_VALUE);
        expect(where, row->name, "0.5", CP_INVALID_VALUE);
        return;
    }
    double step = is_int ? 1 : 0.001;
    cp_snprintf(v, sizeof(v), "%.15g", row->min);
    expect(where, row->name, v, CP_OK);
    cp_snprintf(v, sizeof(v), "%.15g", row->min - step);
    expect(where, row->name, v, CP_INVALID_VALUE);
    cp_snprintf(v, sizeof(v), "%.15g", row->max);
    expect(where, row->name, v, CP_OK);
    cp_snprintf(v, sizeof(v), "%.15g", row->max + step);
    expect(where, row->name, v, CP_INVALID_VALUE);
    expect(where, row->name, "-1e300", CP_INVALID_VALUE);
    expect(where, row->name, "1e300", CP_INVALID_VALUE);
    expect(where, row->name, "1e400", CP_INVALID_VALUE);
    expect(where, row->name, "-1e+99999999999999999999", CP_INVALID_VALUE);
    expect(where, row->name, "12345678901234567890", CP_INVALID_VALUE);
    expect(where, row->name, "9223372036854775807", CP_INVALID_VALUE);
    if (is_int)
        expect(where, row->name, "1.5", CP_INVALID_VALUE);
}

static void test_numeric_fields_at_their_limits(void **state)
{
    (void)state;
    int n = 0;
    for (int i = 0; i < cp_fields_openai.n; i++) {
        const cp_field *f = &cp_fields_openai.row[i];
        if (f->kind != CP_FIELD_NUM && f->kind != CP_FIELD_INT)
            continue;
        n++;
        if (f->at & CP_AT_CHAT)
            walk_range(f, CP_AT_CHAT);
        if (f->at & CP_AT_TEXT)
            walk_range(f, CP_AT_TEXT);
    }
    assert_true(n >= 12);
}

/* What models.toml may say of a parameter is what a request may. */
static void test_ranges_are_those_of_the_options(void **state)
{
    (void)state;
#define CP_SAMPLING_KEY(name, type, range, ...) {#name, range},
    static const struct {
        const char *name, *range;
    } keys[] = {
#include "base/options.def"
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const cp_field *f = cp_field_find(&cp_fields_openai, keys[i].name, CP_AT_TEXT);
        assert_non_null(f);
        if (strcmp(f->name, "max_tokens") == 0) /* the engine's, in a request the context's */
            continue;
        assert_true(strtod(keys[i].range, NULL) == f->min);
        assert_true(strtod(strstr(keys[i].range, "..") + 2, NULL) == f->max);
    }
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
    expect(CP_AT_CHAT, "logit_bias", "{\"0\":1,\"1\":1}", CP_OK);
    expect(CP_AT_CHAT, "logit_bias", "{\"01\":1}", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "logit_bias", "{\"00\":1}", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "logit_bias", "{\"1 \":1}", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "logit_bias", "{\"+1\":1}", CP_INVALID_VALUE);
    expect(CP_AT_CHAT, "logit_bias", "{\"\":1}", CP_INVALID_VALUE);
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
#define USER   "{\"role\":\"user\",\"content\":\"x\"}"

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
    code_of(CP_AT_CHAT, MSG("{\"role\":\"assistant\",\"tool_calls\":[5]}"), CP_INVALID_VALUE,
            "messages[0].tool_calls[0]");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":\"f\"}]}"),
            CP_INVALID_VALUE, "messages[0].tool_calls[0].function");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"assistant\",\"tool_calls\":{}}"), CP_INVALID_VALUE,
            "messages[0].tool_calls");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"function\",\"content\":\"x\"}"), CP_INVALID_VALUE,
            "messages[0].role");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":null}"), CP_MISSING_FIELD,
            "messages[0].content");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"tool\",\"content\":null}"), CP_MISSING_FIELD,
            "messages[0].content");
    code_of(
        CP_AT_CHAT,
        MSG("{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"h\"}]}"),
        CP_UNSUPPORTED_FIELD, "messages[0].content[0]");
    code_of(CP_AT_CHAT,
            MSG("{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\",\"text\":\"no\"}]}"),
            CP_MISSING_FIELD, "messages[0].content[0]");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":[{\"type\":7}]}"), CP_INVALID_VALUE,
            "messages[0].content[0]");
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
            "\"continuous_usage_stats\":\"yes\"}}",
            CP_INVALID_VALUE, "stream_options.continuous_usage_stats");
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"stream_options\":{\"continuous_usage_stats\":true}}",
            CP_INVALID_VALUE, "stream_options");
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"stream_options\":7}", CP_INVALID_VALUE,
            "stream_options");
    static const char *const unused[] = {"null", "{}", "{\"include_usage\":false}",
                                         "{\"include_usage\":null,\"include_obfuscation\":false}",
                                         "{\"continuous_usage_stats\":false}"};
    for (size_t i = 0; i < sizeof(unused) / sizeof(unused[0]); i++) {
        char body[128];
        cp_snprintf(body, sizeof(body), "{\"prompt\":\"x\",\"stream_options\":%s}", unused[i]);
        code_of(CP_AT_TEXT, body, CP_OK, NULL);
    }
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
    code_of(CP_AT_TEXT, "{\"prompt\":\"\xff\"}", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\"} {}", CP_INVALID_JSON, NULL);
    static const char *const bad[] = {"NaN",
                                      "Infinity",
                                      "-Infinity",
                                      "-",
                                      "01",
                                      "1.",
                                      ".5",
                                      "+1",
                                      "1e",
                                      "1e+",
                                      "0x10",
                                      "1e400x",
                                      "012345678901234567890",
                                      "-e5",
                                      "12345678901234567890.",
                                      "tru",
                                      "\"\\u12\"",
                                      "\"\\ud80\"",
                                      "\"\\x41\"",
                                      "\"\x01\"",
                                      "[1,]",
                                      "{\"a\"}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char body[128];
        cp_snprintf(body, sizeof(body), "{\"prompt\":\"x\",\"x\":%s}", bad[i]);
        code_of(CP_AT_TEXT, body, CP_INVALID_JSON, "");
    }
    code_of(CP_AT_TEXT, "{\"prompt\":\"a\",\"prompt\":\"b\\u0000c\"}", CP_OK, NULL);
}

/* What RFC 8259 allows is taken wherever it is not ours, and refused by name where it is. */
static void test_valid_json_is_never_invalid(void **state)
{
    (void)state;
    static const char *const odd[] = {
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "12345678901234567890123456789012345678901234567890",
        "1e400",
        "-1e400",
        "1.5E+309",
        "10000e99999999999999999999",
        "0.0000001e330",
        "1e-400",
        "0e400",
        "0.0e-99999999999999999999",
        "\"\\ud800\"",
        "\"a\\uDC00b\"",
        "\"\\ud83d\\ud83d\\ude00\"",
        "\"\\ud800\\n\\ud800\"",
        "{\"\\ud800\":1}",
        "{\"a\\u0000b\" : {\"\\u0000\":[1e999]}}",
        "\"\\u0000\"",
        "\"\\\\ud800\"",
    };
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        char body[256];
        static const char *const places[][2] = {
            {"{\"messages\":[" USER "],\"odd\":", "}"},
            {"{\"metadata\":{\"a\":[", "]},\"messages\":[" USER "]}"},
            {"{\"messages\":[{\"role\":\"user\",\"odd\":", ",\"content\":\"x\"}]}"},
            {"\xEF\xBB\xBF{\"messages\":[{\"content\":\"x\",\"odd\":[", "],\"role\":\"user\"}]}"},
            {"{\"messages\":[" USER "],\"chat_template_kwargs\":{\"a\":", "}}"},
        };
        for (int k = 0; k < 5; k++) {
            cp_snprintf(body, sizeof(body), "%s%s%s", places[k][0], odd[i], places[k][1]);
            code_of(CP_AT_CHAT, body, CP_OK, NULL);
        }
    }
    code_of(
        CP_AT_CHAT,
        MSG("{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"user\",\"content\":\"a\\ud800\"}"),
        CP_INVALID_VALUE, "messages[1].content");
    code_of(CP_AT_CHAT,
            MSG("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\\udc00\"}]}"),
            CP_INVALID_VALUE, "messages[0].content");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"\\udc00\",\"content\":\"\"}"), CP_INVALID_VALUE,
            "messages[0].role");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":1e400}"), CP_INVALID_VALUE,
            "messages[0].content");
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":\"x\"}],\"stop\":[\"\\ud800\""),
            CP_INVALID_VALUE, "stop");
    code_of(CP_AT_TEXT, "{\"prompt\":\"\\ud800\"}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":[\"a\",\"\\ud800\"]}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":1e400}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":[1,18446744073709551615]}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"messages\":[{\"content\":\"\\ud800\"}]}", CP_OK, NULL);
    code_of(CP_AT_TOKENIZE, "{\"content\":\"\\ud800\"}", CP_INVALID_VALUE, "content");
    /* a word that goes on behind a NUL is another one */
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\\u0000\",\"content\":\"x\"}"), CP_INVALID_VALUE,
            "messages[0].role");
    code_of(CP_AT_CHAT,
            MSG("{\"role\":\"user\",\"content\":[{\"type\":\"text\\u0000\",\"text\":\"x\"}]}"),
            CP_UNSUPPORTED_FIELD, "messages[0].content[0]");
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"response_format\":{\"type\":\"text\\u0000\"}}",
            CP_UNSUPPORTED_FIELD, "response_format");
    /* integers may be spelled 5.0 wherever they stand */
    code_of(CP_AT_TEXT, "{\"prompt\":[5.0,1e1],\"stop_token_ids\":[7.0],\"n\":2.0,\"best_of\":2.0}",
            CP_OK, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":[5.5]}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"best_of\":1.5}", CP_UNSUPPORTED_FIELD, "best_of");
    /* keys that are spelled with escapes are the same keys */
    code_of(CP_AT_TEXT, "{\"p\\u0072ompt\":\"\\ud800\"}", CP_INVALID_VALUE, "prompt");
    code_of(CP_AT_CHAT, "{\"\\u006Dessages\":[{\"role\":\"user\",\"conten\\u0074\":\"\\ud800\"}]}",
            CP_INVALID_VALUE, "messages[0].content");
    /* what has no say beside the text, or at this route */
    code_of(
        CP_AT_CHAT,
        MSG("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\",\"cache_control\":"
            "{\"text\":\"\\ud800\"},\"id\":\"\\ud800\"}]}"),
        CP_OK, NULL);
    code_of(CP_AT_CHAT, MSG("{\"role\":\"user\",\"content\":[\"x\",\"\\ud800\"]}"),
            CP_INVALID_VALUE, "messages[0].content");
    code_of(CP_AT_CHAT,
            MSG("{\"role\":\"user\",\"content\":[{\"refusal\":\"\\ud800\",\"type\":\"refusal\"}]}"),
            CP_INVALID_VALUE, "messages[0].content");
    code_of(CP_AT_APPLY, MSG("{\"role\":\"user\",\"content\":\"x\"}],\"stop\":[\"\\ud800\""), CP_OK,
            NULL);
    code_of(CP_AT_DETOKENIZE, "{\"tokens\":[5],\"content\":\"\\ud800\"}", CP_OK, NULL);
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"temperature\":1e400}", CP_INVALID_VALUE,
            "temperature");
    code_of(CP_AT_TEXT, "{\"prompt\":\"x\",\"logit_bias\":{\"1\":1e400}}", CP_INVALID_VALUE,
            "logit_bias");
    code_of(CP_AT_TEXT, "\xEF\xBB\xBF", CP_INVALID_JSON, NULL);
    code_of(CP_AT_TEXT, " \xEF\xBB\xBF{\"prompt\":\"x\"}", CP_INVALID_JSON, NULL);
}

/* Each spelling is what strtod makes of it, to a unit in the last place; beyond 1e308 it is that.
 * Integers of 64 bits stay exact. */
static void test_numbers_keep_their_values(void **state)
{
    (void)state;
    static const char *const spelled[] = {
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "-9223372036854775809",
        "12345678901234567890",
        "99999999999999999999999999999999",
        "1e308",
        "1e307",
        "9.9e307",
        "1.7e308",
        "1e309",
        "-123456e400",
        "0.00001e313",
        "0.00001e312",
        "123.456e-10",
        "1e-320",
        "0",
        "-0.0e400",
    };
    for (size_t i = 0; i < sizeof(spelled) / sizeof(spelled[0]); i++) {
        char text[64];
        size_t n = cp_snprintf(text, sizeof(text), "[%s]", spelled[i]);
        cp_json_left left = {.values = 10};
        cp_json doc;
        cp_err err;
        assert_int_equal(cp_json_load(text, n, "x", NULL, &left, &doc, &err), CP_OK);
        const json_t *v = json_array_get(doc.root, 0);
        double want = strtod(spelled[i], NULL), got = json_number_value(v);
        want = want >= 1e308 ? 1e308 : want <= -1e308 ? -1e308 : want;
        assert_true(fabs(got - want) <= fabs(want) * 2.3e-16);
        if (i < 2)
            assert_true(json_is_integer(v) &&
                        json_integer_value(v) == strtoll(spelled[i], NULL, 10));
        cp_json_free(&doc, &left);
    }
}

static cp_code scan(char *p, size_t n, cp_err *err)
{
    cp_json_use use;
    return cp_json_scan(p, n, NULL, CP_JSON_VALUES, NULL, &use, err);
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

static void test_scan_bounds_depth(void **state)
{
    (void)state;
    char body[2 * CP_JSON_DEPTH + 64];
    cp_err err;
    nest(body, CP_JSON_DEPTH);
    assert_int_equal(scan(body, strlen(body), &err), CP_OK);
    nest(body, CP_JSON_DEPTH + 1);
    assert_int_equal(scan(body, strlen(body), &err), CP_INVALID_VALUE);
    assert_non_null(strstr(err.msg, "deeper than 512"));
    assert_string_equal(err.param, "a");
    /* Brackets in strings are text. */
    char text[] = "\"[[[\\\"[[\"";
    assert_int_equal(scan(text, strlen(text), &err), CP_OK);
}

/* "[0,0,...]", which is n values. */
static void zeros(cp_buf *b, int n)
{
    cp_buf_addc(b, '[');
    for (int i = 0; i < n - 1; i++)
        cp_buf_adds(b, i ? ",0" : "0");
    cp_buf_addc(b, ']');
}

static void test_values_are_counted_exactly(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int n;
    } rows[] = {{"0", 1},
                {"[]", 1},
                {"[[],{},\"a:b,c\",-1.5e3, null ]", 6},
                {"{\"a\":1}", 2},
                {"{ \"a\" : { \"b\" : [ 1 , \"x\\\"y\" ] } , \"c\" : true }", 6}};
    cp_err err;
    cp_json_use use;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[64];
        size_t n = cp_snprintf(text, sizeof(text), "%s", rows[i].text);
        assert_int_equal(cp_json_scan(text, n, NULL, rows[i].n, NULL, &use, &err), CP_OK);
        assert_int_equal(use.values, rows[i].n);
        assert_int_equal(cp_json_scan(text, n, NULL, rows[i].n - 1, NULL, &use, &err),
                         CP_INVALID_VALUE);
    }
    cp_buf b = {0};
    zeros(&b, CP_JSON_VALUES);
    assert_int_equal(scan(b.p, b.n, &err), CP_OK);
    cp_buf_clear(&b);
    zeros(&b, CP_JSON_VALUES + 1);
    assert_int_equal(scan(b.p, b.n, &err), CP_INVALID_VALUE);
    cp_buf_fini(&b);
}

/* A chat body whose history holds n_calls tool calls, the arguments of each of n values. */
static void calls_body(cp_buf *b, int n_calls, int n)
{
    cp_buf_adds(b, "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[");
    for (int i = 0; i < n_calls; i++) {
        cp_buf_adds(b, i ? "," : "");
        cp_buf_adds(b, "{\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":");
        zeros(b, n - 1);
        cp_buf_adds(b, "}\"}}");
    }
    cp_buf_adds(b, "]}]}");
}

/* All documents of a request have one count between them. */
static void test_nested_documents_share_the_values(void **state)
{
    (void)state;
    cp_buf b = {0};
    const struct {
        int calls, values;
        cp_code want;
    } rows[] = {
        {1, 1000, CP_OK},
        {1, CP_JSON_VALUES - 20, CP_OK},
        {1, CP_JSON_VALUES + 1, CP_INVALID_VALUE},
        {2, CP_JSON_VALUES / 2, CP_INVALID_VALUE},
        {30, 10000, CP_INVALID_VALUE},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_buf_clear(&b);
        calls_body(&b, rows[i].calls, rows[i].values);
        cp_arena *a = cp_arena_new((size_t)64 << 20);
        const cp_params_env env = {.api = h_api(CP_AT_CHAT), .find_model = find};
        cp_params p;
        cp_err err = {0};
        assert_int_equal(cp_params_parse(b.p, b.n, &env, a, a, &p, &err), rows[i].want);
        if (rows[i].want != CP_OK) {
            assert_non_null(strstr(err.msg, "262144"));
            assert_non_null(strstr(err.param, ".function.arguments"));
        }
        cp_arena_free(a);
    }
    cp_buf_fini(&b);
}

/* Arguments may nest as deep as a body, however deep they stand in it. */
static void test_arguments_nest_as_deep_as_a_body(void **state)
{
    (void)state;
    char args[2 * CP_JSON_DEPTH + 64], body[2 * CP_JSON_DEPTH + 256];
    size_t n = 0;
    nest(args, CP_JSON_DEPTH);
    n += cp_snprintf(body, sizeof(body),
                     "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":"
                     "[{\"function\":{\"arguments\":\"");
    for (const char *c = args; *c; c++)
        n += cp_snprintf(body + n, sizeof(body) - n, *c == '"' ? "\\%c" : "%c", *c);
    cp_snprintf(body + n, sizeof(body) - n, "\"}}]}]}");
    parsed r = parse(CP_AT_CHAT, body);
    assert_int_equal(r.code, CP_OK);
    done(&r);
}

/* ---- what a tree weighs ---- */

static size_t weight, heaviest;

static void *weigh(size_t n)
{
    void *p = malloc(n);
    weight += malloc_usable_size(p) + 8;
    if (weight > heaviest)
        heaviest = weight;
    return p;
}

static void unweigh(void *p)
{
    weight -= p ? malloc_usable_size(p) + 8 : 0;
    free(p);
}

/* What the scan says before is never less than what the library and the values then take. */
static void test_the_scan_bounds_memory(void **state)
{
    (void)state;
    static const struct {
        const char *open, *item, *between, *close;
        int n;
    } rows[] = {
        {"[", "0", ",", "]", 100000},
        {"[", "{}", ",", "]", 100000},
        {"[", "[]", ",", "]", 100000},
        {"[", "\"\"", ",", "]", 100000},
        {"[", "\"0123456789abcdef\"", ",", "]", 100000},
        {"[", "1.5", ",", "]", 100000},
        {"[", "[[[[[[[[[[]]]]]]]]]]", ",", "]", 10000},
        {"[", "{\"\":{\"\":{\"\":{\"\":{\"\":0}}}}}", ",", "]", 20000},
        {"[", "{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5}", ",", "]", 20000},
        {"[", "{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9}", ",", "]",
         10000},
        {"{", "\"%d\":0", ",", "}", 100000},
        {"{", "\"%d\":\"\"", ",", "}", 65537},
        {"{", "\"%d\":{\"%d\":[]}", ",", "}", 50000},
        {"\"", "x", "", "\"", 4000000},
        {"\"", "\\n", "", "\"", 4000000},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_buf b = {0};
        cp_buf_adds(&b, "{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"x\":");
        cp_buf_adds(&b, rows[i].open);
        for (int k = 0; k < rows[i].n; k++) {
            char item[128];
            size_t n = 0;
            for (const char *c = rows[i].item; *c; c++)
                if (*c == '%') {
                    n += cp_snprintf(item + n, sizeof(item) - n, "%d", k);
                    c++;
                } else {
                    item[n++] = *c;
                }
            item[n] = '\0';
            cp_buf_adds(&b, k ? rows[i].between : "");
            cp_buf_adds(&b, item);
        }
        cp_buf_adds(&b, rows[i].close);
        cp_buf_adds(&b, "}]}");
        cp_json_use use;
        cp_err err;
        assert_int_equal(cp_json_scan(b.p, b.n, NULL, CP_JSON_VALUES, NULL, &use, &err), CP_OK);
        weight = heaviest = 0;
        json_set_alloc_funcs(weigh, unweigh);
        cp_arena *a = cp_arena_new((size_t)512 << 20);
        cp_params p;
        const cp_params_env env = {.api = h_api(CP_AT_CHAT), .find_model = find};
        assert_int_equal(cp_params_parse(b.p, b.n, &env, a, a, &p, &err), CP_OK);
        json_set_alloc_funcs(malloc, free);
        assert_int_equal(weight, 0);
        assert_true(heaviest <= use.tree);
        assert_true(cp_arena_used(a) <= use.vals);
        cp_arena_free(a);
        cp_buf_fini(&b);
    }
}

int run_params_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numeric_fields_at_their_limits),
        cmocka_unit_test(test_ranges_are_those_of_the_options),
        cmocka_unit_test(test_flags_take_booleans_only),
        cmocka_unit_test(test_stop_lists),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_fields_together),
        cmocka_unit_test(test_unknown_fields_are_listed),
        cmocka_unit_test(test_json_errors_say_where),
        cmocka_unit_test(test_valid_json_is_never_invalid),
        cmocka_unit_test(test_numbers_keep_their_values),
        cmocka_unit_test(test_scan_bounds_depth),
        cmocka_unit_test(test_values_are_counted_exactly),
        cmocka_unit_test(test_nested_documents_share_the_values),
        cmocka_unit_test(test_arguments_nest_as_deep_as_a_body),
        cmocka_unit_test(test_the_scan_bounds_memory),
    };
    return cmocka_run_group_tests_name("params", tests, NULL, NULL);
}
