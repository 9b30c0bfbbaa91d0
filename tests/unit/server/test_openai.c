/* What clients see of generation: shapes of answers, streams, usage, log-probabilities, errors. */
#include "harness.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"

static json_t *ok(const harness *h, const char *path, const char *body)
{
    h_answer a = h_call(h, "POST", path, "", body);
    if (a.status != 200)
        fail_msg("%s: %d %s", body, a.status, a.body.p ? a.body.p : "");
    json_t *v = h_json(&a);
    h_answer_fini(&a);
    return v;
}

static void refused(const harness *h, const char *path, const char *body, int status,
                    const char *code)
{
    h_answer a = h_call(h, "POST", path, "", body);
    if (a.status != status || strcmp(h_error_code(&a), code) != 0)
        fail_msg("%s: %d %s, wanted %d %s", body, a.status, a.body.p ? a.body.p : "", status, code);
    h_answer_fini(&a);
}

static h_answer stream(const harness *h, const char *path, const char *body)
{
    h_answer a = h_call(h, "POST", path, "", body);
    assert_int_equal(a.status, 200);
    assert_true(a.chunked && a.whole);
    return a;
}

/* "choices[0].message.content" and the like. */
static json_t *at(json_t *v, const char *path)
{
    char key[64];
    while (v && *path) {
        size_t n = strcspn(path, ".[");
        if (n > 0) {
            cp_snprintf(key, sizeof(key), "%.*s", (int)n, path);
            v = json_object_get(v, key);
            path += n;
        }
        if (*path == '[') {
            char *end;
            v = json_array_get(v, strtoul(path + 1, &end, 10));
            path = end + 1;
        }
        path += *path == '.';
    }
    return v;
}

static const char *str_at(json_t *v, const char *path)
{
    const char *s = json_string_value(at(v, path));
    return s ? s : "(none)";
}

static long long int_at(json_t *v, const char *path)
{
    json_t *x = at(v, path);
    return json_is_integer(x) ? json_integer_value(x) : -999;
}

static void test_chat_answer(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    json_t *v = ok(&h, CHAT, "{" USER "}");
    assert_int_equal(strncmp(str_at(v, "id"), "chatcmpl-", 9), 0);
    assert_string_equal(str_at(v, "object"), "chat.completion");
    assert_string_equal(str_at(v, "model"), "smol");
    assert_string_equal(str_at(v, "system_fingerprint"), "fp-test");
    assert_true(int_at(v, "created") > 1700000000);
    assert_string_equal(str_at(v, "choices[0].message.role"), "assistant");
    assert_string_equal(str_at(v, "choices[0].message.content"), "Hello");
    assert_string_equal(str_at(v, "choices[0].finish_reason"), "stop");
    assert_true(json_is_null(at(v, "choices[0].logprobs")));
    /* <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n */
    assert_int_equal(int_at(v, "usage.prompt_tokens"), 1 + 5 + 2 + 1 + 1 + 1 + 10);
    assert_int_equal(int_at(v, "usage.completion_tokens"), 6); /* with the end */
    assert_int_equal(int_at(v, "usage.total_tokens"), 27);
    assert_int_equal(int_at(v, "usage.prompt_tokens_details.cached_tokens"), 10);
    json_decref(v);
    v = ok(&h, CHAT, "{" USER ",\"max_tokens\":3}");
    assert_string_equal(str_at(v, "choices[0].message.content"), "Hel");
    assert_string_equal(str_at(v, "choices[0].finish_reason"), "length");
    json_decref(v);
    h_close(&h);
}

static void test_chat_stream(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "Hi\xC3\xA9");
    h_answer a =
        stream(&h, CHAT, "{" USER ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    char v[64];
    assert_string_equal(h_header(&a, "Content-Type", v, sizeof(v)), "text/event-stream");
    assert_string_equal(h_header(&a, "Cache-Control", v, sizeof(v)), "no-cache");
    /* role, H, i, é (two tokens, one chunk), finish, usage, [DONE] */
    assert_int_equal(h_events(&a), 7);
    static const char *const text[] = {"", "H", "i", "\xC3\xA9"};
    char id[64] = "";
    for (int i = 0; i < 6; i++) {
        json_t *e = json_loads(h_event(&a, i), 0, NULL);
        assert_non_null(e);
        assert_string_equal(str_at(e, "object"), "chat.completion.chunk");
        if (i == 0)
            cp_strcopy(id, sizeof(id), str_at(e, "id"));
        assert_string_equal(str_at(e, "id"), id);
        if (i == 0)
            assert_string_equal(str_at(e, "choices[0].delta.role"), "assistant");
        if (i < 4) {
            assert_string_equal(str_at(e, "choices[0].delta.content"), text[i]);
            assert_true(json_is_null(at(e, "choices[0].finish_reason")));
        }
        if (i == 4) {
            assert_int_equal(json_object_size(at(e, "choices[0].delta")), 0);
            assert_string_equal(str_at(e, "choices[0].finish_reason"), "stop");
        }
        if (i < 5) {
            assert_true(json_is_null(json_object_get(e, "usage")));
        } else {
            assert_int_equal(json_array_size(at(e, "choices")), 0);
            assert_int_equal(int_at(e, "usage.completion_tokens"), 5);
        }
        json_decref(e);
    }
    assert_string_equal(h_event(&a, 6), "[DONE]");
    h_answer_fini(&a);
    /* Without the option no chunk has a usage member. */
    a = stream(&h, CHAT, "{" USER ",\"stream\":true}");
    assert_null(strstr(a.body.p, "usage"));
    assert_int_equal(h_events(&a), 6);
    h_answer_fini(&a);
    h_close(&h);
}

static void test_text_answer_and_stream(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    json_t *v = ok(&h, TEXT, "{\"prompt\":\"ab\"}");
    assert_string_equal(str_at(v, "object"), "text_completion");
    assert_string_equal(str_at(v, "choices[0].text"), "Hello");
    assert_int_equal(strncmp(str_at(v, "id"), "cmpl-", 5), 0);
    assert_int_equal(int_at(v, "usage.prompt_tokens"), 2);
    json_decref(v);
    h.script.endless = true;
    v = ok(&h, TEXT, "{\"prompt\":\"ab\"}");
    assert_int_equal(int_at(v, "usage.completion_tokens"), 16);
    assert_string_equal(str_at(v, "choices[0].finish_reason"), "length");
    json_decref(v);
    h_say(&h, "xy");
    h_answer a = stream(&h, TEXT, "{\"prompt\":\"ab\",\"stream\":true,\"echo\":true}");
    static const char *const text[] = {"ab", "x", "y", ""};
    assert_int_equal(h_events(&a), 5);
    for (int i = 0; i < 4; i++) {
        json_t *e = json_loads(h_event(&a, i), 0, NULL);
        assert_string_equal(str_at(e, "choices[0].text"), text[i]);
        json_decref(e);
    }
    h_answer_fini(&a);
    h_close(&h);
}

static void test_choices_and_prompts(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    json_t *v = ok(&h, TEXT, "{\"prompt\":[\"a\",\"bcd\",[70,71]],\"n\":2,\"echo\":true}");
    static const char *const text[] = {"aHello",   "aHello",  "bcdHello",
                                       "bcdHello", "FGHello", "FGHello"};
    assert_int_equal(json_array_size(at(v, "choices")), 6);
    for (int i = 0; i < 6; i++) {
        json_t *c = json_array_get(at(v, "choices"), (size_t)i);
        assert_int_equal(int_at(c, "index"), i);
        assert_string_equal(str_at(c, "text"), text[i]);
    }
    assert_int_equal(int_at(v, "usage.prompt_tokens"), 6);
    assert_int_equal(int_at(v, "usage.completion_tokens"), 36);
    json_decref(v);
    assert_int_equal(cp_fake_read(h.fake).submitted, 3);
    h_answer a = stream(&h, CHAT, "{" USER ",\"stream\":true,\"n\":3}");
    char got[3][16] = {"", "", ""};
    int finished = 0;
    for (int i = 0; i < h_events(&a) - 1; i++) {
        json_t *e = json_loads(h_event(&a, i), 0, NULL);
        long long k = int_at(e, "choices[0].index");
        assert_in_range(k, 0, 2);
        const char *s = json_string_value(at(e, "choices[0].delta.content"));
        size_t n = strlen(got[k]);
        cp_snprintf(got[k] + n, sizeof(got[k]) - n, "%s", s ? s : "");
        finished += json_is_string(at(e, "choices[0].finish_reason"));
        json_decref(e);
    }
    assert_int_equal(finished, 3);
    for (int k = 0; k < 3; k++)
        assert_string_equal(got[k], "Hello");
    h_answer_fini(&a);
    h_close(&h);
}

/* Tokens are bytes here, so a stop string is cut by every token boundary there is. */
static void test_stop_strings(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "one STO two STOP three");
    json_t *v = ok(&h, CHAT, "{" USER ",\"stop\":\"STOP\"}");
    assert_string_equal(str_at(v, "choices[0].message.content"), "one STO two ");
    assert_string_equal(str_at(v, "choices[0].finish_reason"), "stop");
    assert_int_equal(int_at(v, "usage.completion_tokens"), 16);
    json_decref(v);
    v = ok(&h, CHAT, "{" USER ",\"stop\":[\"zzz\",\"STOP\"],\"include_stop_str_in_output\":true}");
    assert_string_equal(str_at(v, "choices[0].message.content"), "one STO two STOP");
    json_decref(v);
    v = ok(&h, CHAT, "{" USER ",\"stop\":\"STOP\",\"min_tokens\":20}");
    assert_string_equal(str_at(v, "choices[0].message.content"), "one STO two STOP three");
    json_decref(v);
    h_answer a = stream(&h, CHAT, "{" USER ",\"stream\":true,\"stop\":[\"STOP\",\"x\"],\"n\":2}");
    char got[2][64] = {"", ""};
    for (int i = 0; i < h_events(&a) - 1; i++) {
        json_t *e = json_loads(h_event(&a, i), 0, NULL);
        long long k = int_at(e, "choices[0].index");
        const char *s = json_string_value(at(e, "choices[0].delta.content"));
        size_t n = strlen(got[k]);
        cp_snprintf(got[k] + n, sizeof(got[k]) - n, "%s", s ? s : "");
        json_decref(e);
    }
    assert_string_equal(got[0], "one STO two ");
    assert_string_equal(got[1], "one STO two ");
    assert_string_equal(h_event(&a, h_events(&a) - 1), "[DONE]");
    h_answer_fini(&a);
    /* What is held when the text ends is shown. */
    h_say(&h, "so STO");
    v = ok(&h, CHAT, "{" USER ",\"stop\":\"STOP\"}");
    assert_string_equal(str_at(v, "choices[0].message.content"), "so STO");
    json_decref(v);
    h_close(&h);
}

/* A choice without end is cancelled once its stop string has been met. */
static void test_stop_string_ends_the_request(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "abSTOPx");
    h.script.endless = true;
    json_t *v = ok(&h, CHAT, "{" USER ",\"stop\":\"STOP\"}");
    assert_string_equal(str_at(v, "choices[0].message.content"), "ab");
    assert_int_equal(int_at(v, "usage.completion_tokens"), 6);
    json_decref(v);
    h_wait_idle(&h);
    assert_int_equal(cp_fake_read(h.fake).cancelled, 1);
    h_close(&h);
}

static void test_stop_ids_and_special_tokens(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h.script.n = 4;
    h.script.id[0] = 'a';
    h.script.id[1] = CP_FAKE_START;
    h.script.id[2] = 'b';
    h.script.id[3] = 'c';
    json_t *v = ok(&h, TEXT, "{\"prompt\":\"x\"}");
    assert_string_equal(str_at(v, "choices[0].text"), "abc");
    json_decref(v);
    v = ok(&h, TEXT, "{\"prompt\":\"x\",\"skip_special_tokens\":false}");
    assert_string_equal(str_at(v, "choices[0].text"), "a<|im_start|>bc");
    json_decref(v);
    v = ok(&h, TEXT, "{\"prompt\":\"x\",\"stop_token_ids\":[98]}");
    assert_string_equal(str_at(v, "choices[0].text"), "a");
    assert_string_equal(str_at(v, "choices[0].finish_reason"), "stop");
    json_decref(v);
    h_close(&h);
}

static void test_bytes_that_are_not_utf8(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h.script.n = 3;
    h.script.id[0] = 'a';
    h.script.id[1] = 0xE2;
    h.script.id[2] = 0x82;
    json_t *v = ok(&h, TEXT, "{\"prompt\":\"x\",\"logprobs\":1}");
    assert_string_equal(str_at(v, "choices[0].text"), "a\xEF\xBF\xBD");
    assert_string_equal(str_at(v, "choices[0].logprobs.tokens[1]"), "bytes:\\xe2");
    json_decref(v);
    v = ok(&h, CHAT, "{" USER ",\"logprobs\":true}");
    assert_int_equal(int_at(v, "choices[0].logprobs.content[1].bytes[0]"), 0xE2);
    json_decref(v);
    h_close(&h);
}

static void test_chat_logprobs(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "HiSTOP");
    json_t *v = ok(&h, CHAT, "{" USER ",\"logprobs\":true,\"top_logprobs\":2,\"stop\":\"STOP\"}");
    json_t *c = at(v, "choices[0].logprobs.content");
    assert_int_equal(json_array_size(c), 2); /* the stop string's tokens are left out */
    assert_string_equal(str_at(c, "[0].token"), "H");
    assert_int_equal(int_at(c, "[0].bytes[0]"), 'H');
    assert_true(fabs(json_real_value(at(c, "[0].logprob")) + 0.25) < 1e-6); /* 'H' % 8 == 0 */
    assert_int_equal(json_array_size(at(c, "[0].top_logprobs")), 2);
    assert_string_equal(str_at(c, "[0].top_logprobs[1].token"), "I");
    json_decref(v);
    v = ok(&h, CHAT, "{" USER ",\"logprobs\":true}");
    assert_int_equal(json_array_size(at(v, "choices[0].logprobs.content")), 6);
    assert_int_equal(json_array_size(at(v, "choices[0].logprobs.content[0].top_logprobs")), 0);
    json_decref(v);
    h_answer a = stream(&h, CHAT, "{" USER ",\"logprobs\":true,\"stream\":true,\"stop\":\"SX\"}");
    int tokens = 0;
    for (int i = 0; i < h_events(&a) - 1; i++) {
        json_t *e = json_loads(h_event(&a, i), 0, NULL);
        tokens += (int)json_array_size(at(e, "choices[0].logprobs.content"));
        json_decref(e);
    }
    assert_int_equal(tokens, 6);
    h_answer_fini(&a);
    h_close(&h);
}

static void test_legacy_logprobs_and_echo(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "x\xC3\xA9y");
    json_t *v = ok(&h, TEXT,
                   "{\"prompt\":\"\xC3\xA9"
                   "b\",\"logprobs\":2,\"echo\":true}");
    assert_string_equal(str_at(v, "choices[0].text"), "\xC3\xA9"
                                                      "bx\xC3\xA9y");
    json_t *l = at(v, "choices[0].logprobs");
    /* prompt: C3 A9 b; output: x C3 A9 y */
    static const int offset[] = {0, 0, 1, 2, 3, 3, 4};
    assert_int_equal(json_array_size(at(l, "tokens")), 7);
    assert_int_equal(json_array_size(at(l, "token_logprobs")), 7);
    assert_int_equal(json_array_size(at(l, "top_logprobs")), 7);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(json_integer_value(json_array_get(at(l, "text_offset"), i)), offset[i]);
    assert_true(json_is_null(at(l, "token_logprobs[0]")));
    assert_true(json_is_null(at(l, "top_logprobs[0]")));
    assert_true(json_is_real(at(l, "token_logprobs[1]")));
    assert_string_equal(str_at(l, "tokens[2]"), "b");
    assert_int_equal(json_object_size(at(l, "top_logprobs[2]")), 2);
    assert_non_null(json_object_get(at(l, "top_logprobs[2]"), "b"));
    json_decref(v);
    /* Scoring: no token is generated. */
    v = ok(&h, TEXT, "{\"prompt\":\"abc\",\"logprobs\":0,\"echo\":true,\"max_tokens\":0}");
    assert_string_equal(str_at(v, "choices[0].text"), "abc");
    assert_string_equal(str_at(v, "choices[0].finish_reason"), "length");
    assert_int_equal(json_array_size(at(v, "choices[0].logprobs.tokens")), 3);
    assert_int_equal(json_object_size(at(v, "choices[0].logprobs.top_logprobs[1]")), 1);
    assert_int_equal(int_at(v, "usage.completion_tokens"), 0);
    json_decref(v);
    v = ok(&h, TEXT, "{\"prompt\":\"abc\",\"echo\":true,\"max_tokens\":0}");
    assert_string_equal(str_at(v, "choices[0].text"), "abc");
    json_decref(v);
    h_answer a = stream(&h, TEXT,
                        "{\"prompt\":\"abc\",\"echo\":true,\"max_tokens\":0,"
                        "\"stream\":true}");
    assert_int_equal(h_events(&a), 3);
    h_answer_fini(&a);
    /* A prompt longer than the ring: scored in parts. */
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"logprobs\":5,\"echo\":true,\"max_tokens\":1,\"prompt\":\"");
    for (int i = 0; i < 1500; i++)
        cp_buf_addc(&b, 'q');
    cp_buf_adds(&b, "\"}");
    v = ok(&h, TEXT, b.p);
    assert_int_equal(json_array_size(at(v, "choices[0].logprobs.tokens")), 1501);
    json_decref(v);
    cp_buf_fini(&b);
    h_close(&h);
}

static bool tells_nothing(void *self, const cp_resident *model, cp_engine_limits *out)
{
    (void)self;
    (void)model;
    (void)out;
    return false;
}

static void test_errors(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.ctx = 64, .max_queue = 1});
    refused(&h, CHAT, "{" USER ",\"model\":\"gpt-4\"}", 404, "model_not_found");
    refused(&h, CHAT, "{nope", 400, "invalid_json");
    refused(&h, CHAT, "{" USER ",\"temperature\":3}", 400, "invalid_value");
    refused(&h, CHAT, "{\"model\":\"smol\"}", 400, "missing_field");
    refused(&h, CHAT, "{" USER ",\"tools\":[{\"type\":\"function\"}]}", 400, "unsupported_field");
    refused(&h, TEXT, "{\"prompt\":\"x\",\"max_tokens\":64}", 400, "context_length_exceeded");
    refused(&h, TEXT, "{\"prompt\":\"\"}", 400, "invalid_value");
    h_answer a = h_call(&h, "POST", CHAT, "", "{" USER ",\"max_tokens\":50}");
    json_t *v = h_json(&a);
    assert_int_equal(a.status, 400);
    assert_string_equal(str_at(v, "error.type"), "invalid_request_error");
    assert_string_equal(str_at(v, "error.param"), "messages");
    assert_int_equal(int_at(v, "error.n_prompt_tokens"), 21);
    assert_int_equal(int_at(v, "error.n_ctx"), 64);
    assert_non_null(strstr(str_at(v, "error.message"),
                           "maximum context length is 64 tokens. However, you requested 71"));
    char header[16];
    assert_string_equal(h_header(&a, "X-Should-Retry", header, sizeof(header)), "false");
    json_decref(v);
    h_answer_fini(&a);
    /* The whole rest of the context is the chat's default. */
    h.script.endless = true;
    v = ok(&h, CHAT, "{" USER "}");
    assert_int_equal(int_at(v, "usage.total_tokens"), 64);
    json_decref(v);
    /* More prompts than may ever wait; a full queue, of several prompts those before are taken
     * back. */
    refused(&h, TEXT, "{\"prompt\":[\"a\",\"b\",\"c\"],\"max_tokens\":3}", 400, "invalid_value");
    h.model->limits.max_queue = 0; /* not told: what the engine refuses itself */
    h.s->engine.limits = tells_nothing;
    refused(&h, TEXT, "{\"prompt\":[\"a\",\"b\",\"c\"],\"max_tokens\":3}", 503, "overloaded");
    a = h_call(&h, "POST", TEXT, "", "{\"prompt\":[\"a\",\"b\"],\"stream\":true}");
    assert_int_equal(a.status, 503);
    assert_non_null(h_header(&a, "Retry-After", header, sizeof(header)));
    h_answer_fini(&a);
    h_close(&h);
}

static void test_templates(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.template_ = ""});
    refused(&h, CHAT, "{" USER "}", 400, "chat_template_missing");
    h_close(&h);
    h_open(&h, &(h_config){.template_ = "{{ raise_exception('no \"way\"') }}"});
    h_answer a = h_call(&h, "POST", CHAT, "", "{" USER "}");
    json_t *v = h_json(&a);
    assert_int_equal(a.status, 400);
    assert_string_equal(str_at(v, "error.code"), "template_error");
    assert_non_null(strstr(str_at(v, "error.message"), "no \"way\""));
    json_decref(v);
    h_answer_fini(&a);
    h_close(&h);
    h_open(&h, &(h_config){.template_ = "{{ bos_token }}{{ tools is none }}{{ enable_thinking }}"
                                        "{{ style }}{{ messages[0].content }}|{{ eos_token }}"});
    v = ok(&h, "/apply-template",
           "{" USER ",\"enable_thinking\":true,\"chat_template_kwargs\":{\"style\":\"s\"}}");
    assert_string_equal(str_at(v, "prompt"), "<|bos|>TrueTrueshi|<|eos|>");
    json_decref(v);
    v = ok(&h, "/apply-template",
           "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
           "{\"type\":\"text\",\"text\":\"b\"}]}]}");
    assert_non_null(strstr(str_at(v, "prompt"), "a\nb|"));
    json_decref(v);
    h_close(&h);
}

/* A special token spelled in a message must not become one, nor a user-defined marker; the
 * template's own do, and a plain text is one's own. */
static void test_special_tokens_in_content(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.template_ = "<|im_start|><think>{{ messages[0].content }}"
                                        "{{ style }}"});
    json_t *v = ok(&h, "/tokenize",
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"<|im_end|><think>\"}],"
                   "\"chat_template_kwargs\":{\"style\":\"<|eos|><think>\"}}");
    json_t *t = at(v, "tokens");
    assert_int_equal(json_integer_value(json_array_get(t, 0)), CP_FAKE_START);
    assert_int_equal(json_integer_value(json_array_get(t, 1)), CP_FAKE_THINK);
    for (size_t i = 2; i < json_array_size(t); i++)
        assert_true(json_integer_value(json_array_get(t, i)) < 256);
    assert_int_equal(json_array_size(t), 2 + 10 + 7 + 7 + 7);
    json_decref(v);
    v = ok(&h, "/tokenize", "{\"content\":\"<think>\"}");
    assert_int_equal(int_at(v, "tokens[0]"), CP_FAKE_THINK);
    json_decref(v);
    h_close(&h);
}

static void test_tokenize_routes(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    json_t *v = ok(&h, "/tokenize", "{\"content\":\"a<|eos|>\"}");
    assert_int_equal(int_at(v, "count"), 8);
    assert_int_equal(int_at(v, "max_model_len"), 4096);
    json_decref(v);
    v = ok(&h, "/tokenize", "{\"prompt\":\"a<|eos|>\",\"parse_special\":true}");
    assert_int_equal(int_at(v, "count"), 2);
    assert_int_equal(int_at(v, "tokens[1]"), CP_FAKE_EOS);
    json_decref(v);
    v = ok(&h, "/detokenize", "{\"tokens\":[72,105,257]}");
    assert_string_equal(str_at(v, "content"), "Hi<|eos|>");
    assert_string_equal(str_at(v, "prompt"), "Hi<|eos|>");
    json_decref(v);
    refused(&h, "/tokenize", "{}", 400, "missing_field");
    refused(&h, "/detokenize", "{\"tokens\":[999]}", 400, "invalid_value");
    refused(&h, "/detokenize", "{\"tokens\":\"x\"}", 400, "invalid_value");
    refused(&h, "/tokenize", "{\"content\":\"x\",\"model\":\"other\"}", 404, "model_not_found");
    /* A large body. */
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"content\":\"");
    for (int i = 0; i < 40000; i++)
        cp_buf_addc(&b, 'a');
    cp_buf_adds(&b, "\"}");
    v = ok(&h, "/tokenize", b.p);
    assert_int_equal(int_at(v, "count"), 40000);
    json_decref(v);
    cp_buf_fini(&b);
    h_close(&h);
}

static void test_models_version_metrics(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h_answer a = h_call(&h, "GET", "/v1/models", "", NULL);
    json_t *v = h_json(&a);
    assert_string_equal(str_at(v, "object"), "list");
    assert_string_equal(str_at(v, "data[0].id"), "smol");
    assert_int_equal(int_at(v, "data[0].created"), 1700000000);
    json_decref(v);
    h_answer_fini(&a);
    a = h_call(&h, "GET", "/version", "", NULL);
    v = h_json(&a);
    assert_string_equal(str_at(v, "version"), "1.2.3 (test)");
    json_decref(v);
    h_answer_fini(&a);
    refused(&h, CHAT, "{nope", 400, "invalid_json");
    a = h_call(&h, "GET", "/metrics", "", NULL);
    assert_non_null(strstr(a.body.p, "capstan_requests_total{code=\"200\"} 2"));
    assert_non_null(strstr(a.body.p, "capstan_requests_total{code=\"400\"} 1"));
    assert_non_null(strstr(a.body.p, "capstan_request_errors_total{error=\"invalid_json\"} 1"));
    assert_non_null(strstr(a.body.p, "capstan_cancelled_total{model=\"smol\"}"));
    h_answer_fini(&a);
    /* Any of a model's names; the answer shows the first. */
    v = ok(&h, CHAT, "{" USER ",\"model\":\"org/model:tag\"}");
    assert_string_equal(str_at(v, "model"), "smol");
    json_decref(v);
    h_close(&h);
}

/* One message of history, as a template that joins content with text gets it; the same verdict on
 * all routes that take messages. */
static void test_messages_of_history(void **state)
{
    (void)state;
#define CALL(arguments)                                                                            \
    "\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\"," \
    "\"function\":{\"name\":\"f\"" arguments "}}]"
    static const struct {
        const char *message, *rendered;
    } rows[] = {
        {"\"role\":\"assistant\"", "assistant:"},
        {"\"role\":\"assistant\",\"content\":null", "assistant:"},
        {"\"role\":\"assistant\",\"content\":[]", "assistant:"},
        {"\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":null", "assistant:"},
        {"\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]", "assistant:"},
        {"\"role\":\"assistant\",\"content\":null,\"refusal\":\"no\"", "assistant:(no)"},
        {"\"role\":\"assistant\",\"content\":null,\"refusal\":null,\"audio\":null", "assistant:"},
        {"\"role\":\"assistant\",\"reasoning_content\":\"h\"", "assistant:"},
        {"\"role\":\"assistant\",\"function_call\":{\"name\":\"f\",\"arguments\":\"{}\"}",
         "assistant:"},
        {"\"role\":\"user\",\"name\":\"n\",\"content\":\"a\"", "user:a"},
        {"\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"12\"", "tool:12"},
        {"\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\",\"refusal\":\"no\"}]",
         "assistant:no"},
        {"\"role\":\"user\",\"content\":[\"a\",{\"type\":\"input_text\",\"text\":\"b\"},"
         "{\"type\":\"output_text\",\"text\":\"c\",\"annotations\":[]},{\"type\":\"text\","
         "\"text\":\"d\",\"cache_control\":{}}]",
         "user:a\nb\nc\nd"},
        {CALL(",\"arguments\":\"{\\\"a\\\": 1}\""), "assistant:<f {\"a\": 1}>"},
        {CALL(",\"arguments\":{\"a\":1}"), "assistant:<f {\"a\": 1}>"},
        {CALL(",\"arguments\":\"\""), "assistant:<f {}>"},
        {CALL(",\"arguments\":\" \""), "assistant:<f {}>"},
        {CALL(",\"arguments\":null"), "assistant:<f {}>"},
        {CALL(""), "assistant:<f {}>"},
        {CALL(",\"arguments\":\"{\\\"a\\\": \""), "assistant:<f {}>"},
        {CALL(",\"arguments\":\"{\\\"a\\\": NaN}\""), "assistant:<f {}>"},
        {CALL(",\"arguments\":\"[]\""), "assistant:<f []>"},
        {CALL(",\"arguments\":\"[1,2]\""), "assistant:<f [1, 2]>"},
        {CALL(",\"arguments\":\"\\\"x\\\"\""), "assistant:<f \"x\">"},
        {CALL(",\"arguments\":\"7\""), "assistant:<f 7>"},
        {CALL(",\"arguments\":\"true\""), "assistant:<f true>"},
        {CALL(",\"arguments\":\"null\""), "assistant:<f null>"},
        {CALL(",\"arguments\":[7]"), "assistant:<f [7]>"},
        {CALL(",\"arguments\":\"{\\\"a\\\":\\\"\\\\ud83d\\\"}\""),
         "assistant:<f {\"a\": \"\xEF\xBF\xBD\"}>"},
    };
    harness h;
    h_open(&h, &(h_config){.template_ = "{% for m in messages %}{{ m.role + ':' + m.content }}"
                                        "{% for t in m.tool_calls %}<{{ t.function.name }} "
                                        "{{ t.function.arguments | tojson }}>{% endfor %}"
                                        "{% if m.refusal %}({{ m.refusal }}){% endif %}"
                                        "{% endfor %}"});
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char body[512];
        cp_snprintf(body, sizeof(body), "{\"messages\":[{%s}],\"max_tokens\":1}", rows[i].message);
        json_t *v = ok(&h, "/apply-template", body);
        if (strcmp(str_at(v, "prompt"), rows[i].rendered) != 0)
            fail_msg("%s: '%s', wanted '%s'", body, str_at(v, "prompt"), rows[i].rendered);
        json_decref(v);
        json_t *t = ok(&h, "/tokenize", body), *c = ok(&h, CHAT, body);
        assert_int_equal(int_at(t, "count"), strlen(rows[i].rendered));
        assert_int_equal(int_at(c, "usage.prompt_tokens"), strlen(rows[i].rendered));
        json_decref(t);
        json_decref(c);
    }
#undef CALL
    h_close(&h);
}

/* What is sampled counts, the token that ends a choice too, whatever it is; nothing else does. */
static void test_usage_counts_the_end(void **state)
{
    (void)state;
    static const struct {
        const char *more;
        int n_tokens;
        const char *finish;
    } rows[] = {
        {"", 6, "stop"},
        {",\"n\":3", 18, "stop"},
        {",\"max_tokens\":6", 6, "stop"},
        {",\"max_tokens\":5", 5, "length"},
        {",\"stop_token_ids\":[108]", 3, "stop"},
        {",\"stop_token_ids\":[72]", 1, "stop"},
        {",\"stop\":\"ll\"", 4, "stop"},
        {",\"stop\":\"lx\"", 6, "stop"},
        {",\"max_tokens\":3,\"stop_token_ids\":[111]", 3, "length"},
    };
    harness h;
    h_open(&h, &(h_config){0});
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char body[256];
        cp_snprintf(body, sizeof(body), "{\"prompt\":\"ab\"%s}", rows[i].more);
        json_t *v = ok(&h, TEXT, body);
        if (int_at(v, "usage.completion_tokens") != rows[i].n_tokens)
            fail_msg("%s: %lld, wanted %d", body, int_at(v, "usage.completion_tokens"),
                     rows[i].n_tokens);
        assert_int_equal(int_at(v, "usage.total_tokens"), 2 + rows[i].n_tokens);
        assert_string_equal(str_at(v, "choices[0].finish_reason"), rows[i].finish);
        json_decref(v);
    }
    h_close(&h);
}

/* Every chunk says how many tokens its choice has so far; the last one, all of them. */
static void check_continuous(const harness *h, const char *path, const char *what, int n,
                             int n_prompt)
{
    char body[256];
    cp_snprintf(body, sizeof(body),
                "{%s,\"n\":%d,\"stream\":true,\"stream_options\":{\"include_usage\":true,"
                "\"continuous_usage_stats\":true}}",
                what, n);
    h_answer a = stream(h, path, body);
    int events = h_events(&a), seen[3] = {0};
    for (int i = 0; i < events - 1; i++) {
        json_t *e = json_loads(h_event(&a, i), 0, NULL);
        long long done = int_at(e, "usage.completion_tokens");
        bool last = i == events - 2;
        assert_int_equal(int_at(e, "usage.prompt_tokens"), n_prompt);
        assert_int_equal(int_at(e, "usage.total_tokens"), n_prompt + done);
        if (last) {
            assert_int_equal(json_array_size(at(e, "choices")), 0);
            assert_int_equal(done, 6 * n);
        } else {
            int *k = &seen[int_at(e, "choices[0].index")];
            assert_true(done == *k || done == *k + 1);
            *k = (int)done;
            if (json_is_string(at(e, "choices[0].finish_reason")))
                assert_int_equal(done, 6);
        }
        json_decref(e);
    }
    for (int k = 0; k < n; k++)
        assert_int_equal(seen[k], 6);
    h_answer_fini(&a);
}

static void test_usage_in_every_chunk(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    check_continuous(&h, CHAT, USER, 1, 21);
    check_continuous(&h, CHAT, USER, 3, 21);
    check_continuous(&h, TEXT, "\"prompt\":\"ab\"", 2, 2);
    check_continuous(&h, TEXT, "\"prompt\":\"ab\",\"echo\":true", 1, 2);
    /* It is a way of include_usage, and nothing without it. */
    static const char *const none[] = {"null", "{}", "{\"continuous_usage_stats\":true}",
                                       "{\"include_usage\":false,\"continuous_usage_stats\":true}",
                                       "{\"include_usage\":null,\"continuous_usage_stats\":null}"};
    char body[256];
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        cp_snprintf(body, sizeof(body), "{\"prompt\":\"a\",\"stream\":true,\"stream_options\":%s}",
                    none[i]);
        h_answer a = stream(&h, TEXT, body);
        assert_null(strstr(a.body.p, "usage"));
        h_answer_fini(&a);
    }
    h_answer a = stream(&h, TEXT,
                        "{\"prompt\":\"a\",\"stream\":true,\"stream_options\":{\"include_usage\":"
                        "true,\"continuous_usage_stats\":false}}");
    assert_non_null(strstr(a.body.p, "\"usage\":null"));
    h_answer_fini(&a);
    h_close(&h);
}

/* The model's max_tokens gives way to what is left, and to min_tokens; a request's own does not. */
static void test_default_max_tokens_never_refuse(void **state)
{
    (void)state;
    static const struct {
        const char *more;
        int max_tokens; /* that the model's is */
        int n_tokens;   /* of the answer; 0: refused */
    } rows[] = {
        {"", 512, 54},
        {"", 5, 5},
        {"", 54, 54},
        {",\"min_tokens\":20", 5, 20},
        {",\"min_tokens\":60", 5, 54},
        {",\"max_tokens\":54", 5, 54},
        {",\"max_tokens\":55", 5, 0},
        {",\"max_tokens\":10", 512, 10},
        {",\"max_tokens\":null", 512, 54},
        {",\"max_tokens\":3,\"min_tokens\":4", 512, 0},
    };
    char body[256];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        harness h;
        h_open(&h, &(h_config){.ctx = 64, .default_max_tokens = rows[i].max_tokens});
        h.script.endless = true;
        cp_snprintf(body, sizeof(body), "{\"prompt\":\"0123456789\"%s}", rows[i].more);
        h_answer a = h_call(&h, "POST", TEXT, "", body);
        assert_int_equal(a.status, rows[i].n_tokens ? 200 : 400);
        if (rows[i].n_tokens) {
            json_t *v = h_json(&a);
            if (int_at(v, "usage.completion_tokens") != rows[i].n_tokens)
                fail_msg("%s of %d: %lld, wanted %d", body, rows[i].max_tokens,
                         int_at(v, "usage.completion_tokens"), rows[i].n_tokens);
            json_decref(v);
        }
        h_answer_fini(&a);
        h_close(&h);
    }
    harness h;
    h_open(&h, &(h_config){.ctx = 64});
    h.script.endless = true;
    json_t *v =
        ok(&h, TEXT, "{\"prompt\":\"01234567890123456789012345678901234567890123456789012345\"}");
    assert_int_equal(int_at(v, "usage.completion_tokens"), 8); /* 16 do not fit */
    json_decref(v);
    v = ok(&h, TEXT, "{\"prompt\":\"a\",\"min_tokens\":30}");
    assert_int_equal(int_at(v, "usage.completion_tokens"), 30);
    json_decref(v);
    refused(&h, TEXT,
            "{\"prompt\":\"0123456789012345678901234567890123456789012345678901234567890123\"}",
            400, "context_length_exceeded");
    h_close(&h);
}

/* ---- text_offset against a slow reference ---- */

/* Can bytes follow so that s[0, n) and they are a character? */
static bool begins_char(const unsigned char *s, size_t n)
{
    static const char more[] = {(char)0x80, (char)0x8F, (char)0x90,
                                (char)0x9F, (char)0xA0, (char)0xBF};
    char c[4] = {0};
    memcpy(c, s, n);
    for (size_t len = n + 1; len <= 4; len++)
        for (int k = 0; k < 6 * 6 * 6; k++) {
            int rest = k;
            for (size_t i = n; i < len; i++, rest /= 6)
                c[i] = more[rest % 6];
            if (cp_utf8_len(c, len) == len)
                return true;
        }
    return false;
}

/* Ids to the text that they are alone, and for each the number of characters before the one that
 * its first byte is in. */
static void slow_text(const int32_t *ids, int n, cp_buf *text, cp_buf *offsets, int base)
{
    unsigned char bytes[64], owner_chr[65];
    int first[64], n_bytes = 0;
    for (int i = 0; i < n; i++) {
        first[i] = n_bytes;
        if (ids[i] < 256)
            bytes[n_bytes++] = (unsigned char)ids[i];
    }
    int chr = 0;
    for (int at = 0; at < n_bytes; chr++) {
        int len = (int)cp_utf8_len((const char *)bytes + at, (size_t)(n_bytes - at));
        if (len > 0) {
            cp_buf_add(text, bytes + at, (size_t)len);
        } else {
            cp_buf_adds(text, "\xEF\xBF\xBD");
            for (len = 3; len > 1; len--)
                if (at + len <= n_bytes && begins_char(bytes + at, (size_t)len))
                    break;
        }
        for (int k = 0; k < len; k++)
            owner_chr[at + k] = (unsigned char)chr;
        at += len;
    }
    owner_chr[n_bytes] = (unsigned char)chr;
    for (int i = 0; i < n; i++)
        cp_buf_printf(offsets, "%d ", base + owner_chr[first[i]]);
}

static void list_of(json_t *logprobs, cp_buf *out)
{
    const json_t *l = json_object_get(logprobs, "text_offset");
    for (size_t i = 0; i < json_array_size(l); i++)
        cp_buf_printf(out, "%d ", (int)json_integer_value(json_array_get(l, i)));
}

static void test_offsets_of_broken_characters(void **state)
{
    (void)state;
    static const unsigned char bytes[] = {'a',  'b',  0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F,
                                          0x98, 0x80, 0xED, 0xA0, 0xFF, 0xEF, 0xBF, 0xBD};
    harness h;
    h_open(&h, &(h_config){0});
    uint32_t random = 1;
    for (int round = 0; round < 400; round++) {
        int32_t prompt[12];
        int n_prompt = 1 + round % 8;
        h.script.n = 1 + round / 8 % 8;
        for (int i = 0; i < n_prompt + h.script.n; i++) {
            random = random * 1664525 + 1013904223;
            int32_t id = bytes[(random >> 16) % sizeof(bytes)];
            *(i < n_prompt ? &prompt[i] : &h.script.id[i - n_prompt]) = id;
        }
        cp_buf body = {0}, text = {0}, offsets = {0}, got = {0}, got_text = {0};
        cp_buf_adds(&body, "{\"echo\":true,\"logprobs\":1,\"prompt\":[");
        for (int i = 0; i < n_prompt; i++)
            cp_buf_printf(&body, "%s%d", i ? "," : "", (int)prompt[i]);
        cp_buf_adds(&body, "]");
        slow_text(prompt, n_prompt, &text, &offsets, 0);
        slow_text(h.script.id, h.script.n, &text, &offsets, (int)cp_utf8_count(text.p, text.n));
        size_t n = body.n;
        cp_buf_adds(&body, "}");
        json_t *v = ok(&h, TEXT, body.p);
        list_of(at(v, "choices[0].logprobs"), &got);
        if (strcmp(str_at(v, "choices[0].text"), text.p) != 0 || strcmp(got.p, offsets.p) != 0)
            fail_msg("%s: '%s' %s, wanted '%s' %s", body.p, str_at(v, "choices[0].text"), got.p,
                     text.p, offsets.p);
        json_decref(v);
        body.n = n;
        cp_buf_clear(&got);
        cp_buf_adds(&body, ",\"stream\":true}");
        h_answer a = stream(&h, TEXT, body.p);
        for (int i = 0; i < h_events(&a) - 1; i++) {
            json_t *e = json_loads(h_event(&a, i), 0, NULL);
            cp_buf_adds(&got_text, str_at(e, "choices[0].text"));
            list_of(at(e, "choices[0].logprobs"), &got);
            json_decref(e);
        }
        assert_string_equal(got_text.p, text.p);
        assert_string_equal(got.p, offsets.p);
        h_answer_fini(&a);
        cp_buf_fini(&body);
        cp_buf_fini(&text);
        cp_buf_fini(&offsets);
        cp_buf_fini(&got);
        cp_buf_fini(&got_text);
    }
    h_close(&h);
}

/* Special tokens of a prompt that is a string are in the text that is echoed, the one that
 * add_special puts in front is not. */
static void test_offsets_of_special_tokens(void **state)
{
    (void)state;
    static const struct {
        bool add_bos;
        const char *prompt, *offsets; /* the answer is "ok" */
    } rows[] = {
        {false, "\"<|im_start|>a<|im_end|>\"", "0 12 13 23 24 "},
        {true, "\"<|im_start|>a<|im_end|>\"", "0 0 12 13 23 24 "},
        {true, "\"a\\u00e9\"", "0 0 1 1 2 3 "},
        {true, "\"<|bos|>a\"", "0 0 7 8 9 "},
        {true, "\"<|bos|>a\",\"add_special_tokens\":false", "0 7 8 9 "},
        {false, "\" a <|eos|> \"", "0 1 2 3 10 11 12 "},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (int skip = 0; skip < 2; skip++) {
            harness h;
            h_open(&h, &(h_config){.add_bos = rows[i].add_bos});
            h_say(&h, "ok");
            char body[256];
            cp_snprintf(body, sizeof(body),
                        "{\"echo\":true,\"logprobs\":0,\"skip_special_tokens\":%s,\"prompt\":%s}",
                        skip ? "true" : "false", rows[i].prompt);
            json_t *v = ok(&h, TEXT, body);
            cp_buf got = {0};
            list_of(at(v, "choices[0].logprobs"), &got);
            if (strcmp(got.p, rows[i].offsets) != 0)
                fail_msg("%s: %s, wanted %s", body, got.p, rows[i].offsets);
            json_decref(v);
            cp_buf_fini(&got);
            h_close(&h);
        }
}

int run_openai_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_answer),
        cmocka_unit_test(test_chat_stream),
        cmocka_unit_test(test_messages_of_history),
        cmocka_unit_test(test_usage_counts_the_end),
        cmocka_unit_test(test_usage_in_every_chunk),
        cmocka_unit_test(test_default_max_tokens_never_refuse),
        cmocka_unit_test(test_offsets_of_broken_characters),
        cmocka_unit_test(test_offsets_of_special_tokens),
        cmocka_unit_test(test_text_answer_and_stream),
        cmocka_unit_test(test_choices_and_prompts),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_stop_string_ends_the_request),
        cmocka_unit_test(test_stop_ids_and_special_tokens),
        cmocka_unit_test(test_bytes_that_are_not_utf8),
        cmocka_unit_test(test_chat_logprobs),
        cmocka_unit_test(test_legacy_logprobs_and_echo),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_templates),
        cmocka_unit_test(test_special_tokens_in_content),
        cmocka_unit_test(test_tokenize_routes),
        cmocka_unit_test(test_models_version_metrics),
    };
    return cmocka_run_group_tests_name("openai", tests, NULL, NULL);
}
