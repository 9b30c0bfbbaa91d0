/* Models that come and go at a client's word: who may, what a body may say, what is answered. */
#include "harness.h"

#include "server/admin.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#define LOAD   "/admin/models/load"
#define UNLOAD "/admin/models/unload"
#define KEY    "X-Api-Key: sk-admin\r\n"

/* A host that writes down what it is asked for, and says what the test wants it to. */
typedef struct scene {
    harness h;
    cp_api_key key;
    bool refuses;      /* run: too many */
    _Atomic bool held; /* load waits while it is */
    _Atomic int loads, ended;
    cp_code says;
    cp_model_options mo;
    char text[256], model[64];
    int64_t drain_ms;
    cp_server_host host;
} scene;

typedef struct work {
    void (*fn)(void *arg);
    void *arg;
} work;

static void *begin(void *arg)
{
    work w = *(work *)arg;
    free(arg);
    w.fn(w.arg);
    return NULL;
}

static bool run(void *self, void (*fn)(void *arg), void *arg)
{
    scene *s = self;
    pthread_t t;
    if (s->refuses)
        return false;
    work *w = malloc(sizeof(*w));
    *w = (work){fn, arg};
    assert_int_equal(pthread_create(&t, NULL, begin, w), 0);
    pthread_detach(t);
    return true;
}

/* Strings of mo are the call's: what a test looks at is copied. */
static cp_code load(void *self, const cp_model_options *mo, cp_err *err)
{
    scene *s = self;
    atomic_fetch_add(&s->loads, 1);
    while (atomic_load(&s->held))
        sched_yield();
    s->mo = *mo;
    int n = (int)cp_snprintf(s->text, sizeof(s->text), "%s|%s|%s|", mo->ref,
                             mo->chat_template_file ? mo->chat_template_file : "",
                             mo->variant ? mo->variant : "");
    for (int i = 0; i < mo->alias.n; i++)
        n += (int)cp_snprintf(s->text + n, sizeof(s->text) - (size_t)n, "%s,", mo->alias.p[i]);
    atomic_fetch_add(&s->ended, 1);
    return s->says ? cp_fail(err, s->says, "what it says") : CP_OK;
}

static cp_code unload(void *self, const char *name, int64_t drain_ms, cp_err *err)
{
    scene *s = self;
    cp_snprintf(s->model, sizeof(s->model), "%s", name);
    s->drain_ms = drain_ms;
    return s->says ? cp_fail_param(err, s->says, "model", "what it says") : CP_OK;
}

static void scene_open(scene *s)
{
    cp_err err;
    memset(s, 0, sizeof(*s));
    s->host = (cp_server_host){s, run, load, unload};
    assert_int_equal(cp_api_key_parse("sk-admin scopes=admin", &s->key, &err), CP_OK);
    h_open(&s->h, &(h_config){.keys = &s->key, .n_keys = 1, .loader = &s->host});
}

static void expect(const harness *h, const char *method, const char *path, const char *key,
                   const char *body, int status, const char *words)
{
    h_answer a = h_call(h, method, path, key, body);
    if (a.status != status || !strstr(a.body.p, words))
        fail_msg("%s %s: %d %.*s, wanted %d and %s", path, body ? body : "", a.status,
                 (int)a.body.n, a.body.p, status, words);
    h_answer_fini(&a);
}

/* Loopback without keys opens nothing of it, whether or not there is such a path. */
static void test_nothing_without_an_admin_key(void **state)
{
    (void)state;
    static const char *const paths[] = {"/admin/models", LOAD, "/admin/x", "/debug/x"};
    harness h;
    cp_err err;
    cp_api_key keys[2];
    assert_int_equal(cp_api_key_parse("sk-use", &keys[0], &err), CP_OK);
    assert_int_equal(cp_api_key_parse("sk-admin scopes=admin", &keys[1], &err), CP_OK);
    for (int n_keys = 0; n_keys < 3; n_keys += 2) {
        h_open(&h, &(h_config){.keys = keys, .n_keys = (size_t)n_keys});
        for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
            bool post = strcmp(paths[i], LOAD) == 0;
            expect(&h, post ? "POST" : "GET", paths[i], "X-Api-Key: sk-use\r\n",
                   post ? "{\"ref\":\"x\"}" : NULL, 403, "permission_denied");
        }
        h_close(&h);
    }
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2});
    expect(&h, "GET", "/admin/x", KEY, NULL, 404, "not_found");
    expect(&h, "GET", "/admin/x", "", NULL, 401, "invalid_api_key");
    expect(&h, "GET", LOAD, KEY, NULL, 405, "method_not_allowed");
    expect(&h, "POST", LOAD, KEY, "{\"ref\":\"x\"}", 404, "this server's models do not change");
    h_close(&h);
    h_open(&h, &(h_config){0}); /* and other paths stay as they are */
    expect(&h, "GET", "/administer", "", NULL, 404, "not_found");
    h_close(&h);
}

static void test_keys_of_a_load(void **state)
{
    (void)state;
    scene s;
    scene_open(&s);
    expect(&s.h, "POST", LOAD, KEY,
           "{\"ref\":\"smol\",\"alias\":[\"smol\",\"b\"],\"ctx\":128,\"kv_bytes\":\"8MiB\","
           "\"kv_type\":\"f16\",\"chat_template_file\":\"t\",\"variant\":\"Q4\",\"max_seqs\":4.0,"
           "\"max_batch_rows\":null,\"sampling\":{\"temperature\":0.5,\"top_k\":3,\"seed\":null},"
           "\"what\":1}",
           200, "\"id\":\"smol\",\"object\":\"model\",\"aliases\":[\"smol\",\"second name\",");
    assert_string_equal(s.text, "smol|t|Q4|smol,b,");
    assert_int_equal(s.mo.ctx, 128);
    assert_int_equal(s.mo.kv_bytes, 8 << 20);
    assert_int_equal(s.mo.kv_type, CP_KV_TYPE_F16);
    assert_int_equal(s.mo.max_seqs, 4);
    assert_int_equal(s.mo.given & 1u << CP_MODEL_max_batch_rows, 0);
    assert_int_equal(s.mo.sampling.given, 1u << CP_SAMPLING_temperature | 1u << CP_SAMPLING_top_k);
    assert_true(s.mo.sampling.temperature > 0.49 && s.mo.sampling.temperature < 0.51);
    expect(&s.h, "POST", LOAD, KEY, "{\"ref\":\"smol\",\"alias\":\"smol,c\"}", 200, "ready");
    assert_string_equal(s.text, "smol|||smol,c,");
    expect(&s.h, "POST", LOAD, KEY, "{\"ref\":\"smol\",\"alias\":[]}", 200, "ready");
    assert_string_equal(s.text, "smol|||");
    h_close(&s.h);
}

static void test_wrong_keys(void **state)
{
    (void)state;
    static const struct {
        const char *path, *body, *words;
    } cases[] = {
        {LOAD, "{}", "missing_field"},
        {LOAD, "{\"ref\":null,\"alias\":\"x\"}", "'ref' is missing"},
        {LOAD, "{\"ref\":\"\"}", "'ref': got ''; allowed: text, not empty"},
        {LOAD, "{\"ref\":7}", "'ref': got the integer 7; allowed: text, not empty"},
        {LOAD, "{\"ref\":\"a\\u0000b\"}", "\"param\":\"ref\""},
        {LOAD, "{\"ref\":[\"a\"]}", "'ref': got the array"},
        {LOAD, "{\"ref\":{}}", "'ref' is an object"},
        {LOAD, "{\"ref\":\"m\",\"ctx\":0}", "'ctx': got '0'; allowed: an integer, 1..16777216"},
        {LOAD, "{\"ref\":\"m\",\"ctx\":1.5}", "'ctx': got the float 1.5; allowed: an integer"},
        {LOAD, "{\"ref\":\"m\",\"ctx\":\"9\"}", "'ctx': got the string '9'"},
        {LOAD, "{\"ref\":\"m\",\"kv_bytes\":\"1KiB\"}", "'kv_bytes': got '1KiB'; allowed: a size"},
        {LOAD, "{\"ref\":\"m\",\"kv_type\":\"f8\"}", "'kv_type': got 'f8'; allowed: bf16, f16"},
        {LOAD, "{\"ref\":\"m\",\"max_seqs\":4097}", "'max_seqs': got '4097'; allowed: an integer"},
        {LOAD, "{\"ref\":\"m\",\"alias\":[\"a\",[]]}", "'alias' is a list of 0; allowed"},
        {LOAD, "{\"ref\":\"m\",\"alias\":\"\"}", "'alias': got ''"},
        {LOAD, "{\"ref\":\"m\",\"sampling\":[]}", "'sampling' is a list of 0; allowed: an object"},
        {LOAD, "{\"ref\":\"m\",\"sampling\":{\"top_p\":2}}",
         "\"param\":\"sampling.top_p\",\"code\":\"invalid_value\""},
        {LOAD, "{\"ref\":\"m\",\"sampling\":{\"topp\":2}}",
         "'sampling.topp' is no key of a model\",\"type\":\"invalid_request_error\",\"param\":"
         "\"sampling.topp\",\"code\":\"unsupported_field\""},
        {UNLOAD, "{}", "missing_field"},
        {UNLOAD, "{\"model\":\"\"}", "'model' is missing"},
        {UNLOAD, "{\"model\":[]}", "'model' is a list of 0; allowed: a string"},
        {UNLOAD, "{\"model\":\"m\",\"drain_ms\":-1}", "'drain_ms' is -1; allowed: an integer from"},
        {UNLOAD, "{\"model\":\"m\",\"drain_ms\":86400001}", "'drain_ms' is 86400001"},
        {UNLOAD, "{\"model\":\"m\",\"drain_ms\":\"x\"}", "'drain_ms' is a string"},
    };
    scene s;
    scene_open(&s);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        expect(&s.h, "POST", cases[i].path, KEY, cases[i].body, 400, cases[i].words);
    assert_int_equal(atomic_load(&s.loads), 0);
    assert_string_equal(s.model, "");
    h_close(&s.h);
}

static void test_what_the_host_says(void **state)
{
    (void)state;
    scene s;
    scene_open(&s);
    expect(&s.h, "POST", UNLOAD, KEY, "{\"model\":\"m\",\"drain_ms\":7}", 200,
           "{\"id\":\"m\",\"object\":\"model\",\"state\":\"unloaded\"}");
    assert_string_equal(s.model, "m");
    assert_int_equal(s.drain_ms, 7);
    /* It came and went again before it could be shown. */
    expect(&s.h, "POST", LOAD, KEY, "{\"ref\":\"gone\"}", 404, "gone was unloaded again");
    s.says = CP_NO_MEMORY;
    expect(&s.h, "POST", LOAD, KEY, "{\"ref\":\"m\"}", 503, "out_of_memory");
    s.says = CP_MODEL_NOT_FOUND;
    expect(&s.h, "POST", UNLOAD, KEY, "{\"model\":\"m\"}", 404, "\"param\":\"model\"");
    s.refuses = true;
    expect(&s.h, "POST", LOAD, KEY, "{\"ref\":\"m\"}", 503, "overloaded");
    h_close(&s.h);
}

static void test_models_are_shown(void **state)
{
    (void)state;
    static const char *const ids[] = {"two"};
    scene s;
    cp_err err;
    cp_served *x;
    scene_open(&s);
    assert_int_equal(cp_server_reserve_model(s.h.s, ids, 1, &x, &err), CP_OK);
    expect(&s.h, "GET", "/admin/models", KEY, NULL, 200,
           "{\"id\":\"two\",\"object\":\"model\",\"aliases\":[\"two\"],\"state\":\"loading\","
           "\"phase\":\"waiting\",\"bytes_done\":0,\"bytes_total\":0,\"bytes_per_second\":0}]}");
    cp_server_phase(s.h.s, x, "pulling", 3, 10, 7);
    expect(&s.h, "GET", "/admin/models", KEY, NULL, 200,
           "\"phase\":\"pulling\",\"bytes_done\":3,\"bytes_total\":10,\"bytes_per_second\":7}]}");
    cp_server_model m = {.tokenizer = s.h.tok,
                         .digest = "d",
                         .quantization = "q",
                         .ref = "./r",
                         .kv_bytes = 5,
                         .defaults = cp_sampling_defaults_off(),
                         .created = 9};
    assert_int_equal(cp_server_publish_model(s.h.s, x, &m, &err), CP_OK);
    expect(&s.h, "GET", "/admin/models", KEY, NULL, 200,
           "\"state\":\"ready\",\"ref\":\"./r\",\"quantization\":\"q\",\"digest\":\"d\","
           "\"created\":9,\"max_model_len\":");
    cp_server_unload_model(s.h.s, x, 0);
    expect(&s.h, "GET", "/admin/models", KEY, NULL, 200, "\"state\":\"draining\",\"ref\"");
    cp_server_forget_model(s.h.s, x);
    h_close(&s.h);
}

/* The loop does not wait for a load, and a client that leaves does not end it. */
static void test_a_load_goes_on_without_its_client(void **state)
{
    (void)state;
    scene s;
    scene_open(&s);
    atomic_store(&s.held, true);
    int fd = h_connect(&s.h);
    h_request(fd, "POST", LOAD, KEY, "{\"ref\":\"smol\"}");
    while (atomic_load(&s.loads) == 0)
        sched_yield();
    expect(&s.h, "GET", "/admin/models", KEY, NULL, 200, "ready");
    close(fd);
    while (cp_metric_get(s.h.process, CP_M_REQUESTS_499) == 0)
        sched_yield();
    assert_int_equal(atomic_load(&s.ended), 0);
    atomic_store(&s.held, false);
    while (atomic_load(&s.ended) == 0)
        sched_yield();
    h_close(&s.h);
}

static void test_nothing_is_loaded_while_the_server_drains(void **state)
{
    (void)state;
    scene s;
    scene_open(&s);
    s.h.s->rules->grace_ns = INT64_MAX / 2;
    cp_server_drain_begin(s.h.s);
    expect(&s.h, "POST", LOAD, KEY, "{\"ref\":\"smol\"}", 503, "the server is shutting down");
    assert_int_equal(atomic_load(&s.loads), 0);
    h_close(&s.h);
}

/* A name whose model drains without an end gets one, and never a later one. */
static void test_a_drain_is_hastened(void **state)
{
    (void)state;
    static const char *const ids[] = {"two"};
    scene s;
    cp_err err;
    cp_served *x;
    scene_open(&s);
    assert_int_equal(cp_server_reserve_model(s.h.s, ids, 1, &x, &err), CP_OK);
    cp_server_hasten(s.h.s, "two", 1);
    assert_int_equal(x->end_ns, 0);
    cp_server_unload_model(s.h.s, x, 0);
    cp_server_hasten(s.h.s, "nobody", 3);
    cp_server_hasten(s.h.s, "two", 9);
    assert_int_equal(x->end_ns, 9);
    cp_server_hasten(s.h.s, "two", 5);
    cp_server_hasten(s.h.s, "two", 8);
    assert_int_equal(x->end_ns, 5);
    cp_server_forget_model(s.h.s, x);
    h_close(&s.h);
}

/* Other keys, origins and hosts count for the next request, on a connection that is open, too. */
static void test_rules_change(void **state)
{
    (void)state;
    static const char *const origins[] = {"http://b.example"};
    scene s;
    cp_err err;
    cp_api_key other;
    scene_open(&s);
    int fd = h_connect(&s.h);
    h_answer a = {0};
    h_request(fd, "GET", "/admin/models", KEY, NULL);
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 200);
    h_answer_fini(&a);
    assert_int_equal(cp_api_key_parse("sk-other scopes=admin", &other, &err), CP_OK);
    const cp_server_config cfg = {.keys = &other,
                                  .n_keys = 1,
                                  .cors_origins = origins,
                                  .n_cors_origins = 1,
                                  .body_bytes = 8 << 20,
                                  .deadline_ms = 7};
    cp_server_change(s.h.s, &cfg);
    a = (h_answer){0};
    h_request(fd, "GET", "/admin/models", KEY, NULL);
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 401);
    h_answer_fini(&a);
    close(fd);
    char origin[64];
    a = h_call(&s.h, "GET", "/admin/models", "X-Api-Key: sk-other\r\nOrigin: http://b.example\r\n",
               NULL);
    assert_int_equal(a.status, 200);
    assert_string_equal(h_header(&a, "Access-Control-Allow-Origin", origin, sizeof(origin)),
                        "http://b.example");
    h_answer_fini(&a);
    assert_int_equal(cp_budget_limit(s.h.s->budget), 8 << 20);
    assert_int_equal(atomic_load(&s.h.s->deadline_ns), 7000000);
    h_close(&s.h);
}

int run_admin_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_without_an_admin_key),
        cmocka_unit_test(test_keys_of_a_load),
        cmocka_unit_test(test_wrong_keys),
        cmocka_unit_test(test_what_the_host_says),
        cmocka_unit_test(test_models_are_shown),
        cmocka_unit_test(test_a_load_goes_on_without_its_client),
        cmocka_unit_test(test_nothing_is_loaded_while_the_server_drains),
        cmocka_unit_test(test_a_drain_is_hastened),
        cmocka_unit_test(test_rules_change),
    };
    return cmocka_run_group_tests_name("admin", tests, NULL, NULL);
}
