/* Keys: every route with none, a wrong and a right one; the key file's lines. */
#include "harness.h"

#include "base/digest.h"
#include "server/auth.h"

#include <string.h>

static void two_keys(cp_api_key keys[2])
{
    cp_err err;
    assert_int_equal(cp_api_key_parse("sk-use", &keys[0], &err), CP_OK);
    assert_int_equal(cp_api_key_parse("sk-admin scopes=admin", &keys[1], &err), CP_OK);
}

static const char *body_for(const cp_route *r)
{
    switch (r->where) {
    case CP_AT_TEXT:
        return "{\"prompt\":\"x\"}";
    case CP_AT_TOKENIZE:
        return "{\"content\":\"x\"}";
    case CP_AT_DETOKENIZE:
        return "{\"tokens\":[65]}";
    case 0:
        return NULL;
    default:
        return "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    }
}

static void check(harness *h, const cp_route *r, const char *header, int want)
{
    char path[64];
    cp_snprintf(path, sizeof(path), "%s%s", r->path, r->prefix ? "smol" : "");
    const char *method = r->method == CP_GET ? "GET" : "POST";
    h_answer a = h_call(h, method, path, header, body_for(r));
    if (a.status != want)
        fail_msg("%s %s with '%s': %d, wanted %d", method, path, header, a.status, want);
    if (want == 401) {
        char v[64];
        assert_string_equal(h_error_code(&a), "invalid_api_key");
        assert_non_null(h_header(&a, "WWW-Authenticate", v, sizeof(v)));
    }
    if (want == 403)
        assert_string_equal(h_error_code(&a), "permission_denied");
    h_answer_fini(&a);
}

static void test_every_route_with_every_key(void **state)
{
    (void)state;
    cp_api_key keys[2];
    two_keys(keys);
    harness h;
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2});
    const cp_route *r;
    size_t i = 0;
    for (; (r = cp_route_at(i)); i++) {
        bool open = r->scope == 0;
        check(&h, r, "", open ? 200 : 401);
        check(&h, r, "Authorization: Bearer sk-wrong\r\n", open ? 200 : 401);
        check(&h, r, "Authorization: Bearer\r\n", open ? 200 : 401);
        check(&h, r, "Authorization: Basic sk-use\r\n", open ? 200 : 401);
        check(&h, r, "X-Api-Key: sk-us\r\n", open ? 200 : 401);
        check(&h, r, "Authorization: Bearer sk-use\r\n", 200);
        check(&h, r, "authorization: bearer  sk-use\r\n", 200);
        check(&h, r, "X-Api-Key: sk-use\r\n", 200);
        check(&h, r, "X-Api-Key: sk-admin\r\n", open || (r->scope & CP_SCOPE_ADMIN) ? 200 : 403);
    }
    assert_int_equal(i, 13);
    h_close(&h);
}

static void test_only_probes_are_open(void **state)
{
    (void)state;
    static const char *const open[] = {"/health", "/livez", "/readyz", "/startupz"};
    size_t n = 0;
    for (size_t i = 0; cp_route_at(i); i++) {
        if (cp_route_at(i)->scope != 0)
            continue;
        assert_true(n < 4);
        assert_string_equal(cp_route_at(i)->path, open[n++]);
    }
    assert_int_equal(n, 4);
}

static void expect(const harness *h, const char *method, const char *path, const char *header,
                   int want, const char *code)
{
    h_answer a = h_call(h, method, path, header, NULL);
    if (a.status != want)
        fail_msg("%s %s: %d, wanted %d", method, path, a.status, want);
    assert_string_equal(h_error_code(&a), code);
    h_answer_fini(&a);
}

static void test_unknown_paths_and_methods(void **state)
{
    (void)state;
    cp_api_key keys[2];
    two_keys(keys);
    harness h;
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2});
    const char *key = "X-Api-Key: sk-use\r\n";
    static const char *const missing[] = {"/",
                                          "/v1",
                                          "/v1/models/",
                                          "/v1/chat/completions/",
                                          "/v1/embeddings",
                                          "/admin/models",
                                          "/Health",
                                          "/v1/%6dodels",
                                          "//health"};
    for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++) {
        expect(&h, "GET", missing[i], "", 401, "invalid_api_key");
        expect(&h, "GET", missing[i], key, 404, "not_found");
    }
    expect(&h, "GET", "/v1/chat/completions", "", 401, "invalid_api_key");
    expect(&h, "GET", "/v1/chat/completions", key, 405, "method_not_allowed");
    expect(&h, "PUT", "/v1/chat/completions", key, 405, "method_not_allowed");
    expect(&h, "DELETE", "/v1/models/smol", key, 405, "method_not_allowed");
    expect(&h, "POST", "/health", "", 405, "method_not_allowed");
    expect(&h, "OPTIONS", "/v1/models", key, 405, "method_not_allowed");
    expect(&h, "GET", "/v1/models/nope", key, 404, "model_not_found");
    h_answer a = h_call(&h, "GET", "/v1/chat/completions", key, NULL);
    char allow[32];
    assert_string_equal(h_header(&a, "Allow", allow, sizeof(allow)), "POST");
    h_answer_fini(&a);
    h_close(&h);
}

static void test_model_id_is_decoded_once(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    static const struct {
        const char *path;
        int status;
    } cases[] = {{"/v1/models/smol", 200},
                 {"/v1/models/second%20name", 200},
                 {"/v1/models/org/model:tag", 200},
                 {"/v1/models/org%2Fmodel%3atag", 200},
                 {"/v1/models/second%2520name", 404},
                 {"/v1/models/%zz", 404},
                 {"/v1/models/smol%", 404},
                 {"/v1/models/smol%2", 404}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        h_answer a = h_call(&h, "GET", cases[i].path, "", NULL);
        assert_int_equal(a.status, cases[i].status);
        h_answer_fini(&a);
    }
    h_answer a = h_call(&h, "GET", "/v1/models/smol", "", NULL);
    json_t *v = h_json(&a);
    assert_string_equal(json_string_value(json_object_get(v, "id")), "smol");
    assert_string_equal(json_string_value(json_object_get(v, "quantization")), "Q4_1");
    assert_string_equal(json_string_value(json_object_get(v, "digest")), "sha256:00");
    assert_int_equal(json_integer_value(json_object_get(v, "max_model_len")), 4096);
    json_decref(v);
    h_answer_fini(&a);
    h_close(&h);
}

static void test_key_lines(void **state)
{
    (void)state;
    cp_err err;
    cp_api_key k, hashed;
    char line[128];
    assert_int_equal(cp_api_key_parse("  secret  scopes=inference,admin # note", &k, &err), CP_OK);
    assert_int_equal(k.scopes, CP_SCOPE_INFERENCE | CP_SCOPE_ADMIN);
    uint8_t want[32];
    cp_sha256_of("secret", 6, want);
    assert_memory_equal(k.hash, want, 32);
    char digest[CP_DIGEST_STR];
    cp_digest_format(want, digest);
    cp_snprintf(line, sizeof(line), "%s\n", digest);
    assert_int_equal(cp_api_key_parse(line, &hashed, &err), CP_OK);
    assert_memory_equal(hashed.hash, want, 32);
    assert_int_equal(hashed.scopes, CP_SCOPE_INFERENCE);
    static const char *const bad[] = {"",
                                      "   ",
                                      "sha256:12",
                                      "sha256:zz00000000000000000000000000000000000000000000000000"
                                      "0000000000000",
                                      "k scopes=",
                                      "k scopes=root",
                                      "k scope=admin",
                                      "k\x01z"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(cp_api_key_parse(bad[i], &k, &err), CP_USAGE);
    cp_api_key both[2] = {hashed, hashed};
    both[1].scopes = CP_SCOPE_ADMIN;
    assert_int_equal(cp_auth_scopes(both, 2, "secret"), CP_SCOPE_INFERENCE | CP_SCOPE_ADMIN);
    assert_int_equal(cp_auth_scopes(both, 2, "secret2"), 0);
    assert_int_equal(cp_auth_scopes(both, 2, ""), 0);
}

static void test_cors(void **state)
{
    (void)state;
    cp_api_key keys[2];
    two_keys(keys);
    harness h;
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2, .cors = "https://app.example"});
    char v[64];
    h_answer a = h_call(&h, "OPTIONS", "/v1/chat/completions", "Origin: x\r\n", NULL);
    assert_int_equal(a.status, 204);
    assert_string_equal(h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v)),
                        "https://app.example");
    h_answer_fini(&a);
    a = h_call(&h, "GET", "/health", "", NULL);
    assert_non_null(h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v)));
    h_answer_fini(&a);
    h_close(&h);
    h_open(&h, &(h_config){0});
    a = h_call(&h, "GET", "/health", "", NULL);
    assert_null(h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v)));
    h_answer_fini(&a);
    h_close(&h);
}

int run_auth_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_route_with_every_key),
        cmocka_unit_test(test_only_probes_are_open),
        cmocka_unit_test(test_unknown_paths_and_methods),
        cmocka_unit_test(test_model_id_is_decoded_once),
        cmocka_unit_test(test_key_lines),
        cmocka_unit_test(test_cors),
    };
    return cmocka_run_group_tests_name("auth", tests, NULL, NULL);
}
