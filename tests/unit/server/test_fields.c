/*
 * The table of request fields against the parser: what each row says to each value at each route,
 * and what rows cannot say (fields together, variables of the template, texts beside ids).
 */
#include "harness.h"

#include <string.h>

static const unsigned places[] = {CP_AT_CHAT,  CP_AT_TEXT,     CP_AT_APPLY,
                                  CP_AT_COUNT, CP_AT_TOKENIZE, CP_AT_DETOKENIZE};
enum { N_PLACES = sizeof(places) / sizeof(places[0]) };
static const cp_field_table *const table = &cp_fields_openai;

static cp_code find(void *arg, cp_str name, cp_params_model *out, cp_err *err)
{
    static cp_sampling_defaults d;
    (void)arg;
    if (name.p)
        return cp_fail_param(err, CP_MODEL_NOT_FOUND, "model", "no such model");
    d = cp_sampling_defaults_off();
    *out = (cp_params_model){.defaults = &d, .n_vocab = 261};
    return CP_OK;
}

typedef struct parsed {
    cp_arena *arena;
    cp_params p;
    cp_err err;
    cp_code code;
} parsed;

/* A valid body of the place that also holds `"name":value`. */
static parsed parse(unsigned at, const char *name, const char *value)
{
    static const char *const inputs[N_PLACES][2] = {
        {"messages", "[{\"role\":\"user\",\"content\":\"a\"}]"},
        {"prompt", "\"a\""},
        {"messages", "[{\"role\":\"user\",\"content\":\"a\"}]"},
        {"messages", "[{\"role\":\"user\",\"content\":\"a\"}]"},
        {"content", "\"a\""},
        {"tokens", "[5]"}};
    parsed r = {.arena = cp_arena_new(8 << 20)};
    char body[1024];
    for (int i = 0; i < N_PLACES; i++)
        if (places[i] == at) {
            bool other = strcmp(name, inputs[i][0]) == 0 ||
                         (at == CP_AT_TOKENIZE && strcmp(name, "prompt") == 0);
            cp_snprintf(body, sizeof(body), other ? "{\"%s\":%s}" : "{\"%s\":%s,\"%s\":%s}", name,
                        value, inputs[i][0], inputs[i][1]);
        }
    const cp_params_env env = {.api = h_api(at), .find_model = find};
    r.code = cp_params_parse(body, strlen(body), &env, r.arena, r.arena, &r.p, &r.err);
    return r;
}

static void says(unsigned at, const char *name, const char *value, const char *want)
{
    parsed r = parse(at, name, value);
    const char *got = r.code ? cp_code_info(r.code)->slug : "taken";
    bool taken = strcmp(want, "accepted") == 0 || strcmp(want, "ignored") == 0;
    if (strcmp(got, taken ? "taken" : want) != 0)
        fail_msg("at %u, %s: %s is %s, the table says %s: %s", at, name, value, got, want,
                 r.code ? r.err.msg : "");
    if (strcmp(got, "unsupported_field") == 0 || strcmp(got, "invalid_value") == 0) {
        assert_memory_equal(r.err.param, name, strlen(name)); /* or an element of it */
        assert_non_null(strstr(r.err.msg, name));
    }
    assert_int_equal(r.p.n_unknown, 0);
    cp_arena_free(r.arena);
}

static void test_every_value_at_every_route(void **state)
{
    (void)state;
    int n = 0;
    for (int i = 0; i < table->n; i++) {
        const cp_field *f = &table->row[i];
        for (int k = 0; k < N_PLACES && f->kind != CP_FIELD_FAMILY; k++)
            for (cp_sample s = 0; s < CP_SAMPLES; s++) {
                const char *beside, *verdict;
                const char *value = cp_field_sample(f, places[k], s, &beside, &verdict);
                char text[256];
                bool elsewhere = !(f->at & places[k]) &&
                                 (cp_field_find(table, f->name, places[k])->at & places[k]);
                if (value && !elsewhere) {
                    cp_snprintf(text, sizeof(text), "%s%s%s", value, beside ? "," : "",
                                beside ? beside : "");
                    says(places[k], f->name, text, verdict);
                    n++;
                }
            }
    }
    assert_true(n >= 400);
}

/* One row has the say at a route; a title is no field. */
static void test_rows_do_not_overlap(void **state)
{
    (void)state;
    for (int i = 0; i < table->n; i++) {
        const cp_field *f = &table->row[i];
        if (f->kind == CP_FIELD_FAMILY) {
            assert_null(cp_field_find(table, f->name, CP_AT_CHAT));
            continue;
        }
        for (int k = 0; k < i; k++)
            if (table->row[k].kind != CP_FIELD_FAMILY && strcmp(f->name, table->row[k].name) == 0)
                assert_int_equal(f->at & table->row[k].at, 0);
        assert_int_not_equal(f->from, 0);
        assert_true((f->kind == CP_FIELD_TOLERATED) == (f->at == 0));
    }
}

static void test_no_use_of_what_is_not_built(void **state)
{
    (void)state;
    static const char *const empty[] = {"null", "\"\"", "[]", "{}"};
    for (int i = 0; i < table->n; i++) {
        const cp_field *f = &table->row[i];
        for (int k = 0; k < N_PLACES && f->kind == CP_FIELD_REFUSED; k++) {
            if (!(f->at & places[k]))
                continue;
            for (size_t e = 0; e < sizeof(empty) / sizeof(empty[0]); e++)
                says(places[k], f->name, empty[e], "ignored");
            says(places[k], f->name, "{\"x\":1}", "unsupported_field");
        }
    }
    says(CP_AT_CHAT, "tool_choice", "\"none\"", "ignored");
    says(CP_AT_TEXT, "function_call", "\"auto\"", "ignored");
    says(CP_AT_CHAT, "typical_p", "1.0", "ignored");
    says(CP_AT_CHAT, "top_n_sigma", "-3", "ignored");
    says(CP_AT_TEXT, "best_of", "2", "unsupported_field");
    says(CP_AT_TEXT, "best_of", "2,\"n\":2", "ignored");
    says(CP_AT_CHAT, "modalities", "[\"text\",\"text\"]", "unsupported_field");
}

static void test_tolerated_fields_hold_anything(void **state)
{
    (void)state;
    static const char *const any[] = {"null", "7",  "\"\"",        "true",
                                      "[]",   "{}", "[{\"a\":1}]", "{\"a\":{\"b\":[null]}}"};
    static const char *const names[] = {"metadata",
                                        "store",
                                        "user",
                                        "safety_identifier",
                                        "service_tier",
                                        "include",
                                        "client_metadata",
                                        "speed",
                                        "prompt_cache_key",
                                        "prompt_cache_options",
                                        "betas",
                                        "prediction",
                                        "verbosity",
                                        "cache_control",
                                        "diagnostics",
                                        "prompt_cache_retention",
                                        "parallel_tool_calls"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        for (int k = 0; k < N_PLACES; k++)
            for (size_t v = 0; v < sizeof(any) / sizeof(any[0]); v++)
                says(places[k], names[i], any[v], "ignored");
}

static void test_defaults_that_are_spelled_out(void **state)
{
    (void)state;
    says(CP_AT_CHAT, "logprobs", "false,\"top_logprobs\":0", "accepted");
    says(CP_AT_CHAT, "top_logprobs", "0", "accepted");
    says(CP_AT_CHAT, "top_logprobs", "3,\"logprobs\":true", "accepted");
    says(CP_AT_CHAT, "top_logprobs", "3,\"logprobs\":false", "invalid_value");
    says(CP_AT_CHAT, "tools", "[],\"tool_choice\":\"auto\",\"functions\":[]", "ignored");
    says(CP_AT_CHAT, "stream_options", "{\"include_usage\":null}", "accepted");
    says(CP_AT_TEXT, "stream_options", "{},\"stream\":false", "accepted");
    says(CP_AT_TEXT, "stream_options", "{\"include_usage\":true},\"stream\":true", "accepted");
    says(CP_AT_TEXT, "cache_salt", "null", "ignored");
    /* Not given, null and "" are the first model. */
    says(CP_AT_DETOKENIZE, "model", "null", "ignored");
    parsed r = parse(CP_AT_CHAT, "seed", "-1");
    assert_false(r.p.has_seed);
    cp_arena_free(r.arena);
    r = parse(CP_AT_CHAT, "seed", "-2");
    assert_true(r.p.has_seed);
    cp_arena_free(r.arena);
    r = parse(CP_AT_TEXT, "max_completion_tokens", "7,\"max_tokens\":3");
    assert_int_equal(r.p.max_tokens, 7);
    cp_arena_free(r.arena);
}

/* `reasoning` is a field of other APIs: ignored, and listed for the log. */
static void test_unknown_objects_are_listed(void **state)
{
    (void)state;
    static const char *const values[] = {"{}", "{\"exclude\":true}", "{\"enabled\":false}",
                                         "{\"effort\":\"none\"}"};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        parsed r = parse(CP_AT_CHAT, "reasoning", values[i]);
        assert_int_equal(r.code, CP_OK);
        assert_int_equal(r.p.n_unknown, 1);
        assert_string_equal(r.p.unknown[0], "reasoning");
        cp_arena_free(r.arena);
    }
}

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

static void renders(const harness *h, const char *fields, const char *want)
{
    char body[512];
    cp_snprintf(body, sizeof(body), "{" USER "%s}", fields);
    h_answer a = h_call(h, "POST", "/apply-template", "", body);
    json_t *v = h_json(&a);
    assert_int_equal(a.status, 200);
    assert_string_equal(json_string_value(json_object_get(v, "prompt")), want);
    json_decref(v);
    h_answer_fini(&a);
    /* The same text is what /tokenize counts; one byte is one token here. */
    a = h_call(h, "POST", "/tokenize", "", body);
    v = h_json(&a);
    assert_int_equal(json_integer_value(json_object_get(v, "count")), strlen(want));
    json_decref(v);
    h_answer_fini(&a);
}

static void test_reasoning_effort_reaches_the_template(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.template_ = "{{ reasoning_effort }}|{{ enable_thinking }}"});
    renders(&h, "", "|");
    renders(&h, ",\"reasoning_effort\":null", "|");
    renders(&h, ",\"reasoning_effort\":\"\"", "|");
    renders(&h, ",\"reasoning_effort\":\"high\"", "high|True");
    renders(&h, ",\"reasoning_effort\":\"none\"", "none|False");
    renders(&h, ",\"reasoning_effort\":0.5", "0.5|True");
    renders(&h, ",\"reasoning_effort\":5", "5|True");
    renders(&h, ",\"reasoning_effort\":\"low\",\"enable_thinking\":false", "low|False");
    renders(&h,
            ",\"reasoning_effort\":\"low\",\"chat_template_kwargs\":{\"enable_thinking\":false}",
            "low|False");
    renders(&h, ",\"chat_template_kwargs\":{\"reasoning_effort\":\"low\"}", "low|");
    h_close(&h);
}

static void test_tokenize_gives_texts(void **state)
{
    (void)state;
    static const struct {
        const char *body, *want;
    } rows[] = {
        {"{\"content\":\"ab\",\"with_pieces\":true,\"add_special\":false}",
         "{\"tokens\":[{\"id\":97,\"piece\":\"a\"},{\"id\":98,\"piece\":\"b\"}],\"count\":2,"
         "\"max_model_len\":512}"},
        {"{\"prompt\":\"ab\",\"return_token_strs\":true,\"add_special\":false}",
         "{\"tokens\":[97,98],\"count\":2,\"max_model_len\":512,\"token_strs\":[\"a\",\"b\"]}"},
        /* Halves of a character are no text. */
        {"{\"content\":\"\xC3\xA9\",\"with_pieces\":true,\"return_token_strs\":true,"
         "\"add_special\":false}",
         "{\"tokens\":[{\"id\":195,\"piece\":[195]},{\"id\":169,\"piece\":[169]}],\"count\":2,"
         "\"max_model_len\":512,\"token_strs\":[\"bytes:\\\\xc3\",\"bytes:\\\\xa9\"]}"},
        {"{" USER ",\"return_token_strs\":true}",
         "{\"tokens\":[120],\"count\":1,\"max_model_len\":512,\"token_strs\":[\"x\"]}"},
    };
    harness h;
    h_open(&h, &(h_config){.ctx = 512, .template_ = "{{ messages[0].content }}"});
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        h_answer a = h_call(&h, "POST", "/tokenize", "", rows[i].body);
        assert_int_equal(a.status, 200);
        cp_buf_addc(&a.body, '\0');
        assert_string_equal(a.body.p, rows[i].want);
        h_answer_fini(&a);
    }
    h_close(&h);
}

int run_fields_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value_at_every_route),
        cmocka_unit_test(test_rows_do_not_overlap),
        cmocka_unit_test(test_no_use_of_what_is_not_built),
        cmocka_unit_test(test_tolerated_fields_hold_anything),
        cmocka_unit_test(test_defaults_that_are_spelled_out),
        cmocka_unit_test(test_unknown_objects_are_listed),
        cmocka_unit_test(test_reasoning_effort_reaches_the_template),
        cmocka_unit_test(test_tokenize_gives_texts),
    };
    return cmocka_run_group_tests_name("fields", tests, NULL, NULL);
}
