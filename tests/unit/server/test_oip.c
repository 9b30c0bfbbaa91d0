/* The Open Inference Protocol: tensors in, tensors out, what it says of models, and /openai. */
#include "harness.h"

#include <string.h>
#include <unistd.h>

#define INFER "/v2/models/smol/infer"
#define INPUT "{\"name\":\"text_input\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"x\"]}"

static void answers(const harness *h, const char *method, const char *path, const char *extra,
                    const char *body, int status, const char *want)
{
    h_answer a = h_call(h, method, path, extra, body);
    cp_buf_addc(&a.body, '\0');
    a.body.n--;
    if (a.status != status || !strstr(a.body.p, want))
        fail_msg("%s %s: %d %s, wanted %d with %s", path, body ? body : "", a.status, a.body.p,
                 status, want);
    json_t *v = h_json(&a);
    if (status != 200 && status != 503)
        assert_true(json_is_string(json_object_get(v, "error")));
    json_decref(v);
    h_answer_fini(&a);
}

static void test_what_it_says_of_models(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.loading = true});
    answers(&h, "GET", "/v2/health/live", "", NULL, 200, "{\"live\":true,\"ready\":false}");
    answers(&h, "GET", "/v2/health/ready", "", NULL, 503, "{\"live\":true,\"ready\":false}");
    cp_server_ready(h.s);
    answers(&h, "GET", "/v2/health/ready", "", NULL, 200, "{\"live\":true,\"ready\":true}");
    answers(&h, "GET", "/v2", "", NULL, 200, "{\"name\":\"capstan\",\"version\":\"");
    answers(&h, "GET", "/v2/models", "", NULL, 200, "{\"models\":[\"smol\"]}");
    static const char meta[] =
        "{\"name\":\"smol\",\"versions\":[\"1\"],\"platform\":\"capstan\",\"inputs\":[{\"name\":"
        "\"text_input\",\"datatype\":\"BYTES\",\"shape\":[-1]}],\"outputs\":[{\"name\":\"text_"
        "output\",\"datatype\":\"BYTES\",\"shape\":[-1]},";
    answers(&h, "GET", "/v2/models/smol", "", NULL, 200, meta);
    answers(&h, "GET", "/v2/models/smol/versions/1", "", NULL, 200, meta);
    answers(&h, "GET", "/v2/models/org%2Fmodel:tag", "", NULL, 200, meta);
    answers(&h, "GET", "/v2/models/smol/ready", "", NULL, 200,
            "{\"name\":\"smol\",\"ready\":true}");
    answers(&h, "GET", "/v2/models/org/model:tag/versions/1/ready", "", NULL, 200,
            "\"ready\":true");
    answers(&h, "GET", "/v2/models/nope/ready", "", NULL, 404, "'nope' does not exist");
    answers(&h, "GET", "/v2/models/smol/versions/2", "", NULL, 404, "'smol/versions/2'");
    answers(&h, "POST", "/v2/models/nope/infer", "", "{}", 404, "'nope' does not exist");
    answers(&h, "POST", "/v2/models/%zz/infer", "", "{}", 404, "two hexadecimal digits");
    answers(&h, "GET", "/v2/repository", "", NULL, 404, "{\"error\":\"there is nothing at");
    cp_server_drain_begin(h.s);
    answers(&h, "GET", "/v2/models/smol/ready", "", NULL, 503, "\"ready\":false");
    h_close(&h);
}

static void test_an_inference(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "Hi");
    answers(&h, "POST", INFER, "", "{\"id\":\"mine\",\"inputs\":[" INPUT "]}", 200,
            "{\"model_name\":\"smol\",\"model_version\":\"1\",\"id\":\"mine\",\"outputs\":[{"
            "\"name\":\"text_output\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"Hi\"]},"
            "{\"name\":\"finish_reason\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"stop\"]},"
            "{\"name\":\"prompt_tokens\",\"datatype\":\"INT64\",\"shape\":[1],\"data\":[1]},"
            "{\"name\":\"completion_tokens\",\"datatype\":\"INT64\",\"shape\":[1],\"data\":[3]}]}");
    /* fields of /v1/completions: as tensors and as parameters */
    answers(&h, "POST", INFER, "",
            "{\"parameters\":{\"temperature\":0.5,\"binary_data_output\":false},\"inputs\":[" INPUT
            ",{\"name\":\"max_tokens\",\"datatype\":\"INT32\",\"shape\":[1],\"data\":[1]}],"
            "\"outputs\":[{\"name\":\"finish_reason\"},{\"name\":\"text_output\"}]}",
            200,
            "\"outputs\":[{\"name\":\"text_output\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":["
            "\"H\"]},{\"name\":\"finish_reason\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":["
            "\"length\"]}]}");
    answers(&h, "POST", INFER, "",
            "{\"inputs\":[{\"name\":\"text_input\",\"datatype\":\"BYTES\",\"shape\":[2,1],\"data\":"
            "[[\"a\"],[\"bc\"]]},{\"name\":\"stop\",\"datatype\":\"BYTES\",\"shape\":[2],\"data\":["
            "\"z\",\"i\"]}],\"parameters\":{\"n\":2}}",
            200,
            "\"shape\":[4],\"data\":[\"H\",\"H\",\"H\",\"H\"]},{\"name\":\"finish_reason\","
            "\"datatype\":\"BYTES\",\"shape\":[4],\"data\":[\"stop\",\"stop\",\"stop\",\"stop\"]},"
            "{\"name\":\"prompt_tokens\",\"datatype\":\"INT64\",\"shape\":[4],\"data\":[1,1,2,2]}");
    h_close(&h);
}

/* Body and header of a request whose tensors follow the JSON. */
static h_answer binary(const harness *h, const char *json, const char *bytes, size_t n,
                       const char *length)
{
    char head[512], said[32];
    size_t n_json = strlen(json);
    cp_snprintf(said, sizeof(said), "%zu", n_json);
    int k = (int)cp_snprintf(head, sizeof(head),
                             "POST " INFER " HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n"
                             "Content-Type: application/octet-stream\r\n"
                             "Inference-Header-Content-Length: %s\r\n\r\n",
                             n_json + n, length ? length : said);
    int fd = h_connect(h);
    h_send(fd, head, (size_t)k);
    h_send(fd, json, n_json);
    h_send(fd, bytes, n);
    h_answer a;
    assert_true(h_read(fd, &a));
    cp_buf_addc(&a.body, '\0');
    close(fd);
    return a;
}

#define BINARY(name, type, shape, size)                                                            \
    "{\"name\":\"" name "\",\"datatype\":\"" type "\",\"shape\":" shape                            \
    ",\"parameters\":{\"binary_data_size\":" size "}}"

static void test_binary_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *json, *bytes;
        size_t n;
        const char *length;
        int status;
        const char *words;
    } rows[] = {
        {"{\"inputs\":[" BINARY("text_input", "BYTES", "[2]",
                                "11") "," BINARY("max_tokens", "INT16", "[1]", "2") "]}",
         "\1\0\0\0a\2\0\0\0bc\2\0", 13, NULL, 200,
         "\"shape\":[2],\"data\":[\"Hi\",\"Hi\"]},{\"name\":\"finish_reason\",\"datatype\":"
         "\"BYTES\",\"shape\":[2],\"data\":[\"length\",\"length\"]}"},
        {"{\"inputs\":[" INPUT "," BINARY("temperature", "FP32", "[1]", "4") "]}", "\0\0\0\x40", 4,
         NULL, 200, "Hi"},
        {"{\"inputs\":[" INPUT "," BINARY("temperature", "FP32", "[1]", "4") "]}", "\0\0\x80\x40",
         4, NULL, 400, "'temperature' is 4; allowed: a number from 0 to 2"},
        {"{\"inputs\":[" INPUT "," BINARY("temperature", "FP64", "[1]", "8") "]}",
         "\0\0\0\0\0\0\xf0\x7f", 8, NULL, 400, "are not 1 elements of FP64"},
        {"{\"inputs\":[" INPUT "," BINARY("seed", "INT8", "[1]", "1") "]}", "\xff", 1, NULL, 200,
         "Hi"},
        {"{\"inputs\":[" BINARY("text_input", "BYTES", "[1]", "5") "]}", "\1\0\0\0\xff", 5, NULL,
         400, "are not 1 elements of BYTES"},
        {"{\"inputs\":[" BINARY("text_input", "BYTES", "[1]", "5") "]}", "\2\0\0\0a", 5, NULL, 400,
         "are not 1 elements of BYTES"},
        {"{\"inputs\":[" BINARY("text_input", "BYTES", "[1]", "6") "]}", "\1\0\0\0ab", 6, NULL, 400,
         "are not 1 elements of BYTES"},
        {"{\"inputs\":[" BINARY("text_input", "BYTES", "[1]", "6") "]}", "\1\0\0\0a", 5, NULL, 400,
         "binary_data_size' is 6; allowed: the bytes of the tensor"},
        {"{\"inputs\":[" INPUT "]}", "x", 1, NULL, 400, "1 bytes after the JSON belong to no"},
        {"{\"inputs\":[" INPUT "]}", "", 0, "1000", 200, "Hi"},
        {"{\"inputs\":[" INPUT "]}", "", 0, "-1", 400, "is '-1'; allowed"},
        {"{\"inputs\":[" INPUT "]}", "", 0, "12345678901", 400, "is '12345678901'; allowed"},
        {"{\"inputs\":[" INPUT "]}", "", 0, "3", 400, "not valid JSON"},
    };
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "Hi");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        h_answer a = binary(&h, rows[i].json, rows[i].bytes, rows[i].n, rows[i].length);
        if (a.status != rows[i].status || !strstr(a.body.p, rows[i].words))
            fail_msg("%zu: %d %s", i, a.status, a.body.p);
        h_answer_fini(&a);
    }
    h_close(&h);
}

#define TENSOR(members) "{\"inputs\":[{\"name\":\"text_input\"," members "}]}"

static void test_bad_bodies(void **state)
{
    (void)state;
    static const struct {
        const char *body, *words;
        int status;
    } rows[] = {
        {"{}", "'inputs' is missing", 400},
        {"{\"inputs\":{}}", "'inputs' is an object", 400},
        {"{\"inputs\":[]}", "'inputs' is a list of 0", 400},
        {"{\"inputs\":[7]}", "'inputs[0]' is 7; allowed: a tensor", 400},
        {"{\"inputs\":[{}]}", "'inputs[0].name' is missing", 400},
        {"{\"inputs\":[{\"name\":\"prompt\"}]}", "'inputs[0].name' is a string", 400},
        {"{\"inputs\":[{\"name\":\"prompt\\u0000\"}]}", "'inputs[0].name' is a string", 400},
        {"{\"inputs\":[" INPUT "," INPUT "]}", "'inputs[1]' gives what another tensor", 400},
        {"{\"inputs\":[" INPUT
         ",{\"name\":\"n\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1]}],"
         "\"parameters\":{\"n\":1}}",
         "'inputs[1]' gives what another tensor or 'parameters' gives", 400},
        {TENSOR("\"datatype\":\"FP16\""), "'inputs[0].datatype' is a string of 4 bytes", 400},
        {TENSOR("\"datatype\":\"BYTES\""), "'inputs[0].shape' is missing", 400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[]"), "'inputs[0].shape' is a list of 0", 400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[1,-1]"),
         "'inputs[0].shape[1]' is -1; allowed: 0 to 262144", 400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[100000,100000]"),
         "'inputs[0].shape[1]' is 100000; allowed", 400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[1,1,1,1,1,1,1,1,1]"), "'inputs[0].shape'", 400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[1]"), "'inputs[0].data' is missing", 400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":\"a\""), "'inputs[0].data'", 400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[7]"), "holds what is no BYTES",
         400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[[[[[[[[[\"a\"]]]]]]]]]"),
         "holds what is no BYTES", 400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[2],\"data\":[\"a\"]"),
         "'inputs[0].shape' is of 2 elements, the data has 1", 400},
        {TENSOR("\"datatype\":\"BYTES\",\"shape\":[0],\"data\":[]"), "has 0 elements", 400},
        {TENSOR("\"datatype\":\"INT32\",\"shape\":[1],\"data\":[1]"), "1 elements of INT32", 400},
        {"{\"inputs\":[{\"name\":\"top_p\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]}]}",
         "no tensor text_input", 400},
        {"{\"inputs\":[" INPUT "],\"parameters\":7}", "'parameters' is 7", 400},
        {"{\"inputs\":[" INPUT "],\"parameters\":{\"top_p\":2}}", "'top_p' is 2; allowed", 400},
        {"{\"inputs\":[" INPUT "],\"parameters\":{\"stream\":true}}", "'stream' is not", 400},
        {"{\"inputs\":[" INPUT "],\"parameters\":{\"echo\":true}}", "'echo' is not", 400},
        {"{\"inputs\":[" INPUT "],\"parameters\":{\"logprobs\":1}}", "'logprobs' is not", 400},
        {"{\"inputs\":[" INPUT "],\"parameters\":{\"binary_data_output\":true}}",
         "'binary_data_output' is not", 400},
        {"{\"inputs\":[" INPUT "],\"outputs\":7}", "'outputs' is 7", 400},
        {"{\"inputs\":[" INPUT "],\"outputs\":[{\"name\":\"x\"}]}", "'outputs[0].name'", 400},
        {"{\"inputs\":[" INPUT "],\"outputs\":[7]}", "'outputs[0].name' is missing", 400},
        {"{\"inputs\":[" INPUT "],\"outputs\":[{\"name\":\"text_output\",\"parameters\":{"
         "\"binary_data\":true}}]}",
         "'binary_data' is not", 400},
        {"{\"inputs\":[" INPUT "],\"id\":7}", "'id' is 7", 400},
        {"{\"inputs\":[" INPUT "],\"parameters\":{\"max_tokens\":5000}}", "maximum context", 400},
    };
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "Hi");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        answers(&h, "POST", INFER, "", rows[i].body, rows[i].status, rows[i].words);
    /* members of the body and of its parameters that name a model or a prompt have no say */
    answers(&h, "POST", INFER, "",
            "{\"model\":\"nope\",\"inputs\":[" INPUT
            "],\"parameters\":{\"model\":\"nope\",\"prompt\":7}}",
            200, "\"data\":[\"Hi\"]");
    h_close(&h);
}

/* KServe's own servers have OpenAI's API below /openai. */
static void test_openai_prefix(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "Hi");
    h_answer a = h_call(&h, "POST", "/openai/v1/completions", "", "{\"prompt\":\"x\"}");
    assert_int_equal(a.status, 200);
    h_answer_fini(&a);
    a = h_call(&h, "GET", "/openai/v1/models/org%2Fmodel:tag", "", NULL);
    assert_int_equal(a.status, 200);
    json_t *v = h_json(&a);
    assert_string_equal(json_string_value(json_object_get(v, "name")), "smol");
    assert_true(json_is_true(json_object_get(v, "ready")));
    json_decref(v);
    h_answer_fini(&a);
    static const char *const missing[] = {"/openai",
                                          "/openai/",
                                          "/openai/v1",
                                          "/openai/health",
                                          "/openai/openai/v1/models",
                                          "/openaiv1/models",
                                          "/openai/v2/models"};
    for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++) {
        a = h_call(&h, "GET", missing[i], "", NULL);
        if (a.status != 404)
            fail_msg("%s: %d", missing[i], a.status);
        h_answer_fini(&a);
    }
    h_close(&h);
}

int run_oip_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_it_says_of_models), cmocka_unit_test(test_an_inference),
        cmocka_unit_test(test_binary_tensors),         cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_openai_prefix),
    };
    return cmocka_run_group_tests_name("oip", tests, NULL, NULL);
}
