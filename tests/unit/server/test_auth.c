/* Keys: every route with none, a wrong and a right one; the key file's lines. */
#include "harness.h"

#include "base/digest.h"
#include "server/admin.h"
#include "server/auth.h"

#include <pthread.h>

#include <string.h>
#include <unistd.h>

static void two_keys(cp_api_key keys[2])
{
    cp_err err;
    assert_int_equal(cp_api_key_parse("sk-use", &keys[0], &err), CP_OK);
    assert_int_equal(cp_api_key_parse("sk-admin scopes=admin", &keys[1], &err), CP_OK);
}

static const char *body_for(const cp_route *r)
{
    if (r->api == &cp_api_infer)
        return "{\"inputs\":[{\"name\":\"text_input\",\"datatype\":\"BYTES\",\"shape\":[1],"
               "\"data\":[\"x\"]}]}";
    switch (r->api ? r->api->at : 0) {
    case CP_AT_TEXT:
        return "{\"prompt\":\"x\"}";
    case CP_AT_TOKENIZE:
        return "{\"content\":\"x\"}";
    case CP_AT_DETOKENIZE:
        return "{\"tokens\":[65]}";
    case CP_AT_LOAD:
        return "{\"ref\":\"smol\"}";
    case CP_AT_UNLOAD:
        return "{\"model\":\"smol\"}";
    case 0:
        return NULL;
    default:
        return "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    }
}

/* Errors of the Open Inference Protocol are words alone. */
static void has_code(const cp_route *r, h_answer *a, const char *code)
{
    if (r->words != &cp_api_infer) {
        assert_string_equal(h_error_code(a), code);
        return;
    }
    json_t *v = h_json(a);
    assert_true(json_string_length(json_object_get(v, "error")) > 0);
    json_decref(v);
}

static void check(harness *h, const cp_route *r, const char *header, int want)
{
    char path[64];
    h_path(r, path, sizeof(path));
    const char *method = r->method == CP_GET ? "GET" : "POST";
    h_answer a = h_call(h, method, path, header, body_for(r));
    if (a.status != want)
        fail_msg("%s %s with '%s': %d, wanted %d", method, path, header, a.status, want);
    if (want == 401) {
        char v[64];
        has_code(r, &a, "invalid_api_key");
        assert_non_null(h_header(&a, "WWW-Authenticate", v, sizeof(v)));
    }
    if (want == 403)
        has_code(r, &a, "permission_denied");
    h_answer_fini(&a);
}

/* A host to which everything is done at once. */
static bool run_at_once(void *self, void (*fn)(void *arg), void *arg)
{
    (void)self;
    fn(arg);
    return true;
}

static cp_code load_nothing(void *self, const cp_model_options *mo, cp_err *err)
{
    (void)self;
    (void)mo;
    (void)err;
    return CP_OK;
}

static cp_code unload_nothing(void *self, const char *name, int64_t drain_ms, cp_err *err)
{
    (void)self;
    (void)name;
    (void)drain_ms;
    (void)err;
    return CP_OK;
}

static void test_every_route_with_every_key(void **state)
{
    (void)state;
    cp_api_key keys[2];
    two_keys(keys);
    harness h;
    cp_server_host done = {&h, run_at_once, load_nothing, unload_nothing};
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2, .loader = &done});
    const cp_route *r;
    size_t i = 0;
    for (; (r = cp_route_at(i)); i++) {
        bool open = r->scope == 0;
        check(&h, r, "", open ? 200 : 401);
        check(&h, r, "Authorization: Bearer sk-wrong\r\n", open ? 200 : 401);
        check(&h, r, "Authorization: Bearer\r\n", open ? 200 : 401);
        check(&h, r, "Authorization: Basic sk-use\r\n", open ? 200 : 401);
        check(&h, r, "X-Api-Key: sk-us\r\n", open ? 200 : 401);
        int use = open || (r->scope & CP_SCOPE_INFERENCE) ? 200 : 403;
        check(&h, r, "Authorization: Bearer sk-use\r\n", use);
        check(&h, r, "authorization: bearer  sk-use\r\n", use);
        check(&h, r, "X-Api-Key: sk-use\r\n", use);
        check(&h, r, "X-Api-Key: sk-admin\r\n", open || (r->scope & CP_SCOPE_ADMIN) ? 200 : 403);
    }
    assert_int_equal(i, 25);
    h_close(&h);
}

static void test_only_probes_are_open(void **state)
{
    (void)state;
    static const char *const open[] = {"/health",   "/livez",          "/readyz",
                                       "/startupz", "/v2/health/live", "/v2/health/ready"};
    size_t n = 0;
    for (size_t i = 0; cp_route_at(i); i++) {
        if (cp_route_at(i)->scope != 0)
            continue;
        assert_true(n < 6);
        assert_string_equal(cp_route_at(i)->path, open[n++]);
    }
    assert_int_equal(n, 6);
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
                                          "/v1//models",
                                          "/v1/models//",
                                          "/v1/chat/completions//",
                                          "/v1/embeddings",
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
    expect(&h, "GET", "/v1/chat/completions/", key, 405, "method_not_allowed");
    expect(&h, "GET", "/v1/models/", key, 200, "");
    expect(&h, "GET", "/v1/models/smol/", key, 200, "");
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
    char long_path[4000] = "/v1/models/";
    memset(long_path + strlen(long_path), 'a', sizeof(long_path) - 1 - strlen(long_path));
    const struct {
        const char *path;
        int status;
        const char *words;
    } cases[] = {{"/v1/models/smol", 200, "smol"},
                 {"/v1/models/second%20name", 200, "smol"},
                 {"/v1/models/org/model:tag", 200, "smol"},
                 {"/v1/models/org%2Fmodel%3atag", 200, "smol"},
                 {"/v1/models/second%2520name", 404, "'second%20name' does not exist"},
                 {long_path, 404, "aaa' does not exist"},
                 {"/v1/models/%zz", 404, "'%zz' is no model's name: a byte after % is two"},
                 {"/v1/models/smol%", 404, "'smol%' is no model's name"},
                 {"/v1/models/smol%2", 404, "'smol%2' is no model's name"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        h_answer a = h_call(&h, "GET", cases[i].path, "", NULL);
        assert_int_equal(a.status, cases[i].status);
        assert_non_null(strstr(a.body.p, cases[i].words));
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
                                      ("sha256:zz00000000000000000000000000000000000000000000000000"
                                       "0000000000000"),
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

/* The allowed origin that asks is returned, to nobody else; a preflight is the same everywhere. */
static void test_cors(void **state)
{
    (void)state;
    cp_api_key keys[2];
    two_keys(keys);
    harness h;
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2, .cors = {"https://app.example"}});
    static const char *const paths[] = {"/v1/chat/completions", "/health", "/nothing", "/v1//x"};
    char v[64], names[64];
    h_answer a;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        a = h_call(&h, "OPTIONS", paths[i],
                   "Origin: https://app.example\r\nAccess-Control-Request-Headers: x-a, x-b\r\n",
                   NULL);
        assert_int_equal(a.status, 204);
        assert_string_equal(h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v)),
                            "https://app.example");
        assert_string_equal(h_header(&a, "Access-Control-Allow-Headers", names, sizeof(names)),
                            "x-a, x-b");
        h_answer_fini(&a);
        a = h_call(&h, "OPTIONS", paths[i], "", NULL);
        assert_int_equal(a.status, 204);
        h_answer_fini(&a);
    }
    static const char *const others[] = {"", "Origin: https://app.example.evil\r\n",
                                         "Origin: http://app.example\r\n", "Origin: null\r\n"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        a = h_call(&h, "GET", "/health", others[i], NULL);
        assert_null(h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v)));
        assert_string_equal(h_header(&a, "Vary", v, sizeof(v)), "Origin");
        h_answer_fini(&a);
    }
    a = h_call(&h, "GET", "/health", "Origin: HTTPS://app.example\r\n", NULL);
    assert_non_null(h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v)));
    h_answer_fini(&a);
    h_close(&h);
    h_open(&h, &(h_config){.cors = {"*"}});
    a = h_call(&h, "GET", "/health", "Origin: x\r\n", NULL);
    assert_string_equal(h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v)), "*");
    h_answer_fini(&a);
    h_close(&h);
    /* Off: no headers, and without a key every path looks alike. */
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2});
    a = h_call(&h, "GET", "/health", "Origin: x\r\n", NULL);
    assert_null(h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v)));
    h_answer_fini(&a);
    expect(&h, "OPTIONS", "/v1/models", "", 401, "invalid_api_key");
    expect(&h, "OPTIONS", "/nothing", "", 401, "invalid_api_key");
    h_close(&h);
}

/* A browser's preflight: names as SDKs send them, and what else may stand there. */
static void test_preflight(void **state)
{
    (void)state;
#define STAINLESS                                                                                  \
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,"                 \
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"                     \
    "x-stainless-runtime-version"
    static const struct {
        const char *asked, *allowed;
    } rows[] = {
        {"authorization,content-type,x-stainless-os,x-stainless-lang",
         "authorization,content-type,x-stainless-os,x-stainless-lang"},
        {STAINLESS, STAINLESS},
        {STAINLESS ",x-stainless-timeout,anthropic-version", "*, authorization"},
        {"X-A ,\tx_b", "X-A ,\tx_b"},
        {NULL, "*, authorization"},
        {"", "*, authorization"},
        {"a b,c:d", "*, authorization"},
        {",", "*, authorization"},
        {"a,,b", "*, authorization"},
        {"a,", "*, authorization"},
        {"<script>", "*, authorization"},
    };
#undef STAINLESS
    static const char *const origins[] = {"http://localhost:5173", "app://obsidian.md",
                                          "https://other.example"};
    cp_api_key keys[2];
    two_keys(keys);
    harness h;
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2, .cors = {origins[0], origins[1]}});
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (int k = 0; k < 3; k++) {
            char head[512], v[256];
            size_t n =
                cp_snprintf(head, sizeof(head),
                            "Origin: %s\r\nAccess-Control-Request-Method: POST\r\n", origins[k]);
            if (rows[i].asked)
                cp_snprintf(head + n, sizeof(head) - n, "Access-Control-Request-Headers: %s\r\n",
                            rows[i].asked);
            h_answer a = h_call(&h, "OPTIONS", "/v1/chat/completions", head, NULL);
            assert_int_equal(a.status, 204);
            assert_string_equal(h_header(&a, "Access-Control-Allow-Headers", v, sizeof(v)),
                                rows[i].allowed);
            assert_non_null(strstr(a.head, "Vary: Origin"));
            assert_non_null(strstr(a.head, "Vary: Access-Control-Request-Headers"));
            const char *origin = h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v));
            if (k < 2)
                assert_string_equal(origin, origins[k]);
            else
                assert_null(origin);
            h_answer_fini(&a);
        }
    /* The answer itself, and an error, may be read, too. */
    char v[256];
    static const char *const key[] = {"Authorization: Bearer sk-use\r\n", ""};
    for (int i = 0; i < 2; i++) {
        char head[256];
        cp_snprintf(head, sizeof(head), "Origin: %s\r\n%s", origins[1], key[i]);
        h_answer a = h_call(&h, "POST", "/v1/completions", head, "{\"prompt\":\"x\"}");
        assert_int_equal(a.status, i ? 401 : 200);
        assert_string_equal(h_header(&a, "Access-Control-Allow-Origin", v, sizeof(v)), origins[1]);
        assert_non_null(
            strstr(h_header(&a, "Access-Control-Expose-Headers", v, sizeof(v)), "X-Request-Id"));
        h_answer_fini(&a);
    }
    h_close(&h);
}

/* ---- pages of other sites ---- */

static h_answer call_from(const harness *h, const cp_route *r, const char *headers)
{
    char path[64];
    h_path(r, path, sizeof(path));
    return h_call(h, r->method == CP_GET ? "GET" : "POST", path, headers, body_for(r));
}

#define EVIL "Origin: https://evil.example\r\n"

/* What a page can send without a preflight reaches no route that takes a body; what needs one, and
 * what no browser sent, does. */
static void test_other_sites_cannot_post(void **state)
{
    (void)state;
    static const struct {
        const char *headers;
        bool refused;
    } cases[] = {
        {"", false},
        {"Content-Type: text/plain\r\n", false},
        {"Content-Type: application/x-www-form-urlencoded\r\n", false},
        {EVIL, true},
        {EVIL "Content-Type:\r\n", true},
        {EVIL "Content-Type: text/plain\r\n", true},
        {EVIL "Content-Type: text/plain; charset=utf-8\r\n", true},
        {EVIL "Content-Type: text/plain;application/json\r\n", true},
        {EVIL "Content-Type: application/x-www-form-urlencoded\r\n", true},
        {EVIL "Content-Type: multipart/form-data; boundary=x\r\n", true},
        {EVIL "Content-Type: application/json, text/plain\r\n", true},
        {EVIL "Content-Type: text/plain, application/json\r\n", true},
        {EVIL "Content-Type: application/jsonx\r\n", true},
        {EVIL "Content-Type: +json\r\n", true},
        {EVIL "Content-Type: application/json\r\n", false},
        {EVIL "Content-Type: Application/JSON ; charset=utf-8\r\n", false},
        {EVIL "Content-Type: application/vnd.api+json\r\n", false},
        {"Origin: null\r\nContent-Type: text/plain\r\n", true},
        {"Origin:\r\nContent-Type: text/plain\r\n", true},
        {"Origin: http://localhost\r\nContent-Type: text/plain\r\n", false},
        {"Origin: http://LOCALHOST\r\nContent-Type: text/plain\r\n", false},
        {"Origin: http://localhost:3000\r\nContent-Type: text/plain\r\n", true},
        {"Origin: http://localhost.evil.example\r\nContent-Type: text/plain\r\n", true},
        {"Origin: http://evil.example/?://localhost\r\nContent-Type: text/plain\r\n", true},
        {"Sec-Fetch-Site: cross-site\r\nContent-Type: text/plain\r\n", true},
        {"Sec-Fetch-Site: same-site\r\n", true},
        {"Sec-Fetch-Site: same-origin\r\nContent-Type: text/plain\r\n", false},
        {"Sec-Fetch-Site: none\r\n", false},
        {"Sec-Fetch-Site: cross-site\r\nContent-Type: application/json\r\n", false},
        {"Origin: https://app.example\r\nContent-Type: text/plain\r\n", false},
    };
    harness h;
    h_open(&h, &(h_config){.cors = {"https://app.example"}});
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const cp_route *r;
        for (size_t k = 0; (r = cp_route_at(k)); k++) {
            if (r->scope == CP_SCOPE_ADMIN)
                continue; /* there is no key: refused in any case */
            bool refused = cases[i].refused && r->api;
            h_answer a = call_from(&h, r, cases[i].headers);
            if (a.status != (refused ? 403 : 200))
                fail_msg("%s with '%s': %d", r->path, cases[i].headers, a.status);
            if (refused) {
                has_code(r, &a, "permission_denied");
                assert_non_null(strstr(a.body.p, "--cors-origin"));
            }
            h_answer_fini(&a);
        }
    }
    h_close(&h);
}

static int status_for_host(const harness *h, const char *line, const char *target)
{
    int fd = h_connect(h);
    cp_buf b = {0};
    cp_buf_printf(&b, "GET %s HTTP/1.%d\r\n%sConnection: close\r\n\r\n", target, *line != 0, line);
    h_send(fd, b.p, b.n);
    h_answer a = {0};
    assert_true(h_read(fd, &a));
    if (a.status == 403) {
        if (strncmp(target, "/v2", 3) != 0) /* whose errors are words alone */
            assert_string_equal(h_error_code(&a), "permission_denied");
        assert_non_null(strstr(a.body.p, "--allowed-host"));
    }
    int status = a.status;
    h_answer_fini(&a);
    cp_buf_fini(&b);
    close(fd);
    return status;
}

static void test_rebound_names_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int status;
    } cases[] = {
        {"Host: localhost\r\n", 200},
        {"Host: localhost:8080\r\n", 200},
        {"Host: localhost:\r\n", 200},
        {"Host: LocalHost\r\n", 200},
        {"Host: localhost.\r\n", 200},
        {"Host: localhost.:8080\r\n", 200},
        {"Host: 127.0.0.1\r\n", 200},
        {"Host: 127.0.0.1:1\r\n", 200},
        {"Host: 127.255.255.254\r\n", 200},
        {"Host: 127.1\r\n", 200},
        {"Host: [::1]\r\n", 200},
        {"Host: [::1]:8080\r\n", 200},
        {"Host: [0:0:0:0:0:0:0:1]\r\n", 200},
        {"Host: [::ffff:127.0.0.1]\r\n", 200},
        {"Host: Model.Internal:8080\r\n", 200}, /* --allowed-host */
        {"Host: model.internal.\r\n", 200},
        {"Host: model.internal.evil.example\r\n", 403},
        {"Host: xmodel.internal\r\n", 403},
        {"Host: evil.example\r\n", 403},
        {"Host: localhost.evil.example\r\n", 403},
        {"Host: evil-localhost\r\n", 403},
        {"Host: localhost..\r\n", 403},
        {"Host: .localhost\r\n", 403},
        {"Host: 127.0.0.1.evil.example\r\n", 403},
        {"Host: 127.0.0.1.nip.io\r\n", 403},
        {"Host: 127.evil.example\r\n", 403},
        {"Host: 128.0.0.1\r\n", 403},
        {"Host: 0.0.0.0\r\n", 403},
        {"Host: [::]\r\n", 403},
        {"Host: [::2]\r\n", 403},
        {"Host: ::1\r\n", 400},
        {"Host: [::1\r\n", 400},
        {"Host: [::1]x\r\n", 400},
        {"Host:\r\n", 403},
        {"", 403}, /* HTTP/1.0 */
    };
    static const char *const paths[] = {"/version", "/livez", "/nothing"};
    cp_api_key keys[2];
    two_keys(keys);
    harness h;
    h_open(&h, &(h_config){.allowed_host = "model.internal"});
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int k = 0; k < 3; k++) {
            int want = cases[i].status == 200 && k == 2 ? 404 : cases[i].status;
            int status = status_for_host(&h, cases[i].line, paths[k]);
            if (status != want)
                fail_msg("%s %s: %d, wanted %d", paths[k], cases[i].line, status, want);
        }
    /* The absolute form's authority counts, Host does not. */
    assert_int_equal(status_for_host(&h, "Host: localhost\r\n", "http://evil.example/version"),
                     403);
    assert_int_equal(status_for_host(&h, "Host: evil.example\r\n", "http://127.0.0.1:80/version"),
                     200);
    h_close(&h);
    /* Every route, and a preflight. */
    h_open(&h, &(h_config){.cors = {"*"}});
    const cp_route *r;
    for (size_t i = 0; (r = cp_route_at(i)); i++)
        assert_int_equal(status_for_host(&h, "Host: evil.example\r\n", r->path), 403);
    h_close(&h);
    /* With a key, or bound elsewhere, names do not matter. */
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2});
    assert_int_equal(status_for_host(&h, "Host: evil.example\r\n", "/livez"), 200);
    assert_int_equal(status_for_host(&h, "", "/livez"), 200);
    h_close(&h);
    h_open(&h, &(h_config){.host = "0.0.0.0"});
    assert_int_equal(status_for_host(&h, "Host: evil.example\r\n", "/version"), 200);
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
        cmocka_unit_test(test_preflight),
        cmocka_unit_test(test_other_sites_cannot_post),
        cmocka_unit_test(test_rebound_names_are_refused),
    };
    return cmocka_run_group_tests_name("auth", tests, NULL, NULL);
}
