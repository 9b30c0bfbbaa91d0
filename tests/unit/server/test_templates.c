/*
 * What a request gives to chat templates: tools and documents, a last message that is gone on with,
 * and which of a model's templates renders it.
 */
#include "harness.h"

#include <string.h>

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
#define TOOL                                                                                       \
    "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"b\":1,\"a\":null}}}"

/* The prompt that /apply-template makes of the body; the same is what /tokenize counts, as one byte
 * is one token here. */
static void renders(const harness *h, const char *body, const char *want)
{
    h_answer a = h_call(h, "POST", "/apply-template", "", body);
    json_t *v = h_json(&a);
    const char *got = json_string_value(json_object_get(v, "prompt"));
    if (a.status != 200 || !got || strcmp(got, want) != 0)
        fail_msg("%s: %d, '%.*s', wanted '%s'", body, a.status, (int)a.body.n, a.body.p, want);
    json_decref(v);
    h_answer_fini(&a);
    a = h_call(h, "POST", "/tokenize", "", body);
    v = h_json(&a);
    assert_int_equal(json_integer_value(json_object_get(v, "count")), strlen(want));
    json_decref(v);
    h_answer_fini(&a);
}

/* 400 at every route that takes a chat, with this code, field, and words. */
static void refused(const harness *h, const char *body, const char *code, const char *param,
                    const char *words)
{
    static const char *const paths[] = {"/apply-template", "/tokenize", "/v1/chat/completions"};
    for (int i = 0; i < 3; i++) {
        h_answer a = h_call(h, "POST", paths[i], "", body);
        json_t *v = h_json(&a);
        const json_t *e = json_object_get(v, "error"), *p = json_object_get(e, "param");
        const char *said = json_string_value(json_object_get(e, "message"));
        if (a.status != 400 || strcmp(h_error_code(&a), code) != 0 || !strstr(said, words) ||
            (param && (!json_is_string(p) || strcmp(json_string_value(p), param) != 0)))
            fail_msg("%s %s: %d, %.*s", paths[i], body, a.status, (int)a.body.n, a.body.p);
        json_decref(v);
        h_answer_fini(&a);
    }
}

static void test_tools_and_documents_reach_the_template(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.template_ = "{{ tools|tojson }}|{{ documents|tojson }}"});
    renders(&h, "{" USER "}", "null|null");
    renders(&h, "{" USER ",\"tools\":[],\"documents\":[]}", "null|null");
    renders(&h, "{" USER ",\"tools\":null,\"documents\":null}", "null|null");
    renders(&h, "{" USER ",\"tools\":[" TOOL "]}",
            "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"b\": 1, "
            "\"a\": null}}}]|null");
    renders(&h, "{" USER ",\"documents\":[{\"title\":\"t\",\"n\":1.0}],\"tool_choice\":\"none\"}",
            "null|[{\"title\": \"t\", \"n\": 1.0}]");
    renders(&h, "{" USER ",\"tools\":[{\"type\":\"web_search\"},{\"name\":\"g\"}]}",
            "[{\"type\": \"web_search\"}, {\"name\": \"g\"}]|null");
    h_close(&h);
}

static void test_tools_of_another_shape_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *field, *value, *code, *param, *words;
    } rows[] = {
        {"tools", "{\"a\":1}", "invalid_value", "tools", "a list of objects"},
        {"tools", "\"x\"", "invalid_value", "tools", "a list of objects"},
        {"tools", "[" TOOL ",1]", "invalid_value", "tools[1]", "an object"},
        {"tools", "[{\"type\":\"function\"}]", "missing_field", "tools[0].function", "missing"},
        {"tools", "[{\"type\":\"function\",\"function\":\"f\"}]", "invalid_value",
         "tools[0].function", "an object"},
        {"documents", "[\"x\"]", "invalid_value", "documents[0]", "an object"},
        {"documents", "true", "invalid_value", "documents", "a list of objects"},
    };
    harness h;
    h_open(&h, &(h_config){0});
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char body[512];
        cp_snprintf(body, sizeof(body), "{" USER ",\"%s\":%s}", rows[i].field, rows[i].value);
        h_answer a = h_call(&h, "POST", "/apply-template", "", body);
        json_t *v = h_json(&a);
        const json_t *e = json_object_get(v, "error");
        assert_int_equal(a.status, 400);
        assert_string_equal(h_error_code(&a), rows[i].code);
        assert_string_equal(json_string_value(json_object_get(e, "param")), rows[i].param);
        assert_non_null(strstr(json_string_value(json_object_get(e, "message")), rows[i].words));
        json_decref(v);
        h_answer_fini(&a);
    }
    h_close(&h);
}

#define GO_ON(content, more)                                                                       \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":"    \
    "\"" content "\"}],\"continue_final_message\":true" more "}"

static void test_the_last_message_is_gone_on_with(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.template_ = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>"
                                        "{% endfor %}{% if add_generation_prompt %}>{% endif %}"});
    renders(&h, GO_ON("It is ", ""), "<user>q</><assistant>It is ");
    renders(&h, GO_ON("It is\\n", ",\"add_generation_prompt\":false"),
            "<user>q</><assistant>It is\n");
    renders(&h, GO_ON("", ""), "<user>q</><assistant>");
    renders(&h, GO_ON("a CONTINUE_FINAL_MESSAGE_TAG b", ""),
            "<user>q</><assistant>a CONTINUE_FINAL_MESSAGE_TAG b");
    renders(&h, "{" USER ",\"continue_final_message\":true}", "<user>x");
    renders(&h, "{" USER ",\"continue_final_message\":false}", "<user>x</>>");
    refused(&h, GO_ON("a", ",\"add_generation_prompt\":true"), "invalid_value",
            "continue_final_message", "both true");
    refused(&h,
            "{\"messages\":[{\"role\":\"assistant\",\"content\":null}],"
            "\"continue_final_message\":true}",
            "missing_field", "messages[0].content", "goes on");
    h_close(&h);
    h_open(&h, &(h_config){.template_ = "{{ messages[-1].content|trim }}</>"});
    renders(&h, GO_ON(" It is  ", ""), "It is");
    h_close(&h);
    h_open(&h, &(h_config){.template_ = "{{ messages[0].content }}{{ messages[-1].role }}"});
    refused(&h, GO_ON("a", ""), "invalid_value", "continue_final_message", "does not show");
    h_close(&h);
    h_open(&h, &(h_config){.template_ = "{{ messages[-1].content|replace('a', 'b') }}"});
    refused(&h, GO_ON("a", ""), "invalid_value", "continue_final_message", "does not show");
    h_close(&h);
}

static void test_the_request_chooses_among_templates(void **state)
{
    (void)state;
    harness h;
    const h_config all = {.template_ = "default", .tool_use = "tool_use", .rag = "rag"};
    h_open(&h, &all);
    renders(&h, "{" USER "}", "default");
    renders(&h, "{" USER ",\"tools\":[],\"documents\":[]}", "default");
    renders(&h, "{" USER ",\"tools\":[" TOOL "]}", "tool_use");
    renders(&h, "{" USER ",\"documents\":[{\"text\":\"d\"}]}", "rag");
    renders(&h, "{" USER ",\"documents\":[{\"text\":\"d\"}],\"tools\":[" TOOL "]}", "tool_use");
    h_close(&h);
    h_open(&h, &(h_config){.template_ = "default", .rag = "rag"});
    renders(&h, "{" USER ",\"tools\":[" TOOL "]}", "default");
    renders(&h, "{" USER ",\"documents\":[{\"text\":\"d\"}],\"tools\":[" TOOL "]}", "rag");
    h_close(&h);
    h_open(&h, &(h_config){.template_ = "", .tool_use = "tool_use"});
    renders(&h, "{" USER ",\"tools\":[" TOOL "]}", "tool_use");
    refused(&h, "{" USER "}", "chat_template_missing", NULL, "only one for tools or documents");
    h_close(&h);
}

static void test_a_thought_has_every_name(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.template_ = "{% set m = messages[0] %}{{ m.reasoning_content }}|"
                                        "{{ m.thinking }}|{{ m.reasoning }}"});
    static const char *const rows[][2] = {
        {"\"reasoning_content\":\"a\"", "a|a|"},
        {"\"reasoning\":\"a\",\"thinking\":null", "a|a|a"},
        {"\"thinking\":\"a\"", "a|a|"},
        {"\"reasoning_content\":\"a\",\"thinking\":\"b\",\"reasoning\":\"c\"", "a|b|c"},
        {"\"name\":\"x\"", "||"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char body[256];
        cp_snprintf(body, sizeof(body),
                    "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",%s}]}", rows[i][0]);
        renders(&h, body, rows[i][1]);
    }
    h_close(&h);
}

int run_template_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tools_and_documents_reach_the_template),
        cmocka_unit_test(test_tools_of_another_shape_are_refused),
        cmocka_unit_test(test_the_last_message_is_gone_on_with),
        cmocka_unit_test(test_the_request_chooses_among_templates),
        cmocka_unit_test(test_a_thought_has_every_name),
    };
    return cmocka_run_group_tests_name("templates", tests, NULL, NULL);
}
