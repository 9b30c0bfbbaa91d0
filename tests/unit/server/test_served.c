/*
 * How models come into a running server and leave it (served-* in docs/INVARIANTS.md): what is
 * answered meanwhile, and who waits for whom.
 */
#include "harness.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHAT "/v1/chat/completions"
#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

static const char *const two[] = {"two", "deux"};

static cp_served *reserve(harness *h, const char *const *ids, size_t n)
{
    cp_err err;
    cp_served *x = NULL;
    assert_int_equal(cp_server_reserve_model(h->s, ids, n, &x, &err), CP_OK);
    return x;
}

static void publish(harness *h, cp_served *x, cp_metrics *metrics)
{
    cp_err err;
    cp_server_model m = {.tokenizer = h->tok,
                         .templates = h->templates,
                         .digest = "sha256:22",
                         .quantization = "Q8_0",
                         .fingerprint = "fp-two",
                         .defaults = cp_sampling_defaults_off(),
                         .metrics = metrics};
    assert_int_equal(cp_server_publish_model(h->s, x, &m, &err), CP_OK);
}

static void unload(harness *h, cp_served *x)
{
    cp_server_unload_model(h->s, x, 0);
    cp_server_forget_model(h->s, x);
}

/* A chat with the model of this name (NULL: none is named); code "": it is answered. */
static void chat(const harness *h, const char *name, int status, const char *code,
                 const char *words)
{
    char body[256], model[64] = "";
    if (name)
        cp_snprintf(model, sizeof(model), "\"model\":\"%s\",", name);
    cp_snprintf(body, sizeof(body), "{%s" USER ",\"max_tokens\":4}", model);
    h_answer a = h_call(h, "POST", CHAT, "", body);
    assert_int_equal(a.status, status);
    if (*code)
        assert_string_equal(h_error_code(&a), code);
    assert_non_null(strstr(a.body.p, words));
    h_answer_fini(&a);
}

static bool says(const harness *h, const char *path, const char *words)
{
    h_answer a = h_call(h, "GET", path, "", NULL);
    bool there = strstr(a.body.p, words) != NULL;
    h_answer_fini(&a);
    return there;
}

static void probe(const harness *h, const char *path, int status, const char *body)
{
    h_answer a = h_call(h, "GET", path, "", NULL);
    assert_int_equal(a.status, status);
    assert_string_equal(a.body.p, body);
    h_answer_fini(&a);
}

/* A thread that forgets a model while the test goes on. */
typedef struct forgetter {
    harness *h;
    cp_served *x;
    _Atomic bool done;
    pthread_t thread;
} forgetter;

static void *forget(void *arg)
{
    forgetter *f = arg;
    cp_server_forget_model(f->h->s, f->x);
    atomic_store(&f->done, true);
    return NULL;
}

static void begin_forget(forgetter *f, harness *h, cp_served *x)
{
    *f = (forgetter){.h = h, .x = x};
    assert_int_equal(pthread_create(&f->thread, NULL, forget, f), 0);
}

static void end_forget(forgetter *f)
{
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    assert_true(atomic_load(&f->done));
}

static void test_names_are_taken_before_the_model_is_there(void **state)
{
    (void)state;
    harness h;
    cp_err err;
    cp_served *other;
    static const char *const clash[] = {"three", "deux"}, *const mine[] = {"second name"};
    h_open(&h, &(h_config){0});
    cp_served *x = reserve(&h, two, 2);
    assert_int_equal(cp_server_reserve_model(h.s, clash, 2, &other, &err), CP_INVALID_VALUE);
    assert_non_null(strstr(err.msg, "deux"));
    assert_int_equal(cp_server_reserve_model(h.s, mine, 1, &other, &err), CP_INVALID_VALUE);
    chat(&h, "deux", 503, "model_loading", "still loading");
    chat(&h, "smol", 200, "", "Hell");
    chat(&h, NULL, 200, "", "Hell");
    assert_false(says(&h, "/v1/models", "two"));
    probe(&h, "/readyz", 200, "{\"status\":\"ok\",\"phase\":\"serving\"}");
    cp_server_forget_model(h.s, x); /* its load has failed */
    chat(&h, "deux", 404, "model_not_found", "does not exist");
    publish(&h, reserve(&h, clash, 2), NULL);
    chat(&h, "deux", 200, "", "Hell");
    h_close(&h);
}

static void test_a_model_leaves_nothing(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    for (int i = 0; i < 70; i++) { /* more often than there are rows */
        cp_metrics *metrics = cp_metrics_new("two");
        cp_served *x = reserve(&h, two, 2);
        publish(&h, x, metrics);
        chat(&h, "two", 200, "", "fp-two");
        chat(&h, NULL, 200, "", "fp-test");
        assert_true(says(&h, "/metrics", "model=\"two\""));
        assert_true(says(&h, "/v1/models", "\"id\":\"two\""));
        assert_true(says(&h, "/v1/models/deux", "\"id\":\"two\""));
        unload(&h, x);
        cp_metrics_free(metrics);
        chat(&h, "deux", 404, "model_not_found", "does not exist");
        assert_false(says(&h, "/metrics", "model=\"two\""));
        assert_false(says(&h, "/v1/models", "two"));
        assert_true(says(&h, "/v1/models/two", "model_not_found"));
    }
    h_close(&h);
}

static void test_the_last_model_leaves_the_server_up(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    unload(&h, h.model);
    static const char no_model[] = "{\"status\":\"loading\",\"phase\":\"no_model\"}";
    probe(&h, "/readyz", 503, no_model);
    probe(&h, "/health", 503, no_model);
    probe(&h, "/livez", 200, no_model);
    probe(&h, "/startupz", 200, no_model);
    chat(&h, "smol", 404, "model_not_found", "does not exist");
    chat(&h, NULL, 404, "model_not_found", "no model is loaded");
    assert_true(says(&h, "/v1/models", "\"data\":[]"));
    cp_served *x = reserve(&h, two, 2);
    chat(&h, NULL, 503, "model_loading", "still loading");
    probe(&h, "/readyz", 503, no_model);
    publish(&h, x, NULL);
    probe(&h, "/readyz", 200, "{\"status\":\"ok\",\"phase\":\"serving\"}");
    chat(&h, NULL, 200, "", "fp-two"); /* the first one there is */
    h_close(&h);
}

/* What has begun comes to its end, and its model stays as long as that takes. */
static void test_a_stream_holds_its_model(void **state)
{
    (void)state;
    harness h;
    forgetter f;
    h_open(&h, &(h_config){0});
    h.script.endless = true;
    cp_metrics *metrics = cp_metrics_new("two");
    cp_served *x = reserve(&h, two, 2);
    publish(&h, x, metrics);
    cp_fake_set_hold_after(h.fake, 3);
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "",
              "{\"model\":\"two\"," USER ",\"stream\":true,\"max_tokens\":10}");
    h_wait_submitted(&h, 1);
    cp_server_unload_model(h.s, x, 0);
    begin_forget(&f, &h, x);
    chat(&h, "two", 404, "model_not_found", "is being unloaded");
    assert_false(says(&h, "/v1/models", "two"));
    assert_true(says(&h, "/metrics", "model=\"two\"")); /* it still counts */
    assert_false(atomic_load(&f.done));
    cp_fake_set_hold_after(h.fake, 0);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_true(a.whole);
    assert_int_equal(h_events(&a), 10 + 3);
    h_answer_fini(&a);
    close(fd);
    end_forget(&f);
    cp_metrics_free(metrics);
    h_close(&h);
}

/* In the queue of the jobs a call has no model yet, and finds none then. */
static void test_a_call_in_the_queue_finds_none(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    cp_served *x = reserve(&h, two, 2);
    publish(&h, x, NULL);
    h_block_jobs(&h);
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", "{\"model\":\"two\"," USER "}");
    h_wait_jobs(&h, 1);
    unload(&h, x);
    h_unblock_jobs(&h);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 404);
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

/* Of an answer that is made and that nobody reads nothing is needed any more. */
static void test_who_reads_late_holds_no_model(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){.ctx = 16384});
    h.script.endless = true;
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", "{" USER ",\"stream\":true,\"max_tokens\":500}");
    h_wait_submitted(&h, 1);
    for (int left = 60000; cp_fake_read(h.fake).live > 0; left--) {
        assert_true(left > 0);
        usleep(1000);
    }
    unload(&h, h.model);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_true(a.whole);
    assert_int_equal(h_events(&a), 500 + 3);
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

/* A stream whose client does not read holds its model, but not beyond the end that was set. */
static void test_a_stalled_stream_is_cut_at_the_end(void **state)
{
    (void)state;
    harness h;
    forgetter f;
    h_open(&h, &(h_config){.ctx = 1 << 20});
    h.script.endless = true;
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", "{" USER ",\"stream\":true,\"max_tokens\":1000000}");
    long seen = 0;
    for (int still = 0; still < 20;) { /* until no token has come for a while */
        usleep(20000);
        long now = cp_fake_read(h.fake).tokens;
        still = now == seen && now > 0 ? still + 1 : 0;
        seen = now;
    }
    cp_server_unload_model(h.s, h.model, 0);
    begin_forget(&f, &h, h.model);
    chat(&h, "smol", 404, "model_not_found", "is being unloaded");
    assert_false(atomic_load(&f.done));
    cp_server_unload_model(h.s, h.model, cp_now_ns());
    end_forget(&f);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_non_null(memmem(a.body.p, a.body.n, "the model was unloaded", 22));
    assert_null(memmem(a.body.p, a.body.n, "[DONE]", 6));
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

/* The engine ends what is left of a model that goes with this code. */
static void test_what_the_engine_cut_is_said(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    cp_fake_set_hold(h.fake, CP_FAKE_PREFILL);
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", "{" USER "}");
    h_wait_submitted(&h, 1);
    cp_fake_fail(h.fake, CP_MODEL_NOT_FOUND);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 404);
    assert_non_null(strstr(a.body.p, "the model was unloaded"));
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

enum { CLIENTS = 3, ROUNDS = 30 };

typedef struct asker {
    harness *h;
    _Atomic bool stop;
    int answered, refused;
    pthread_t thread;
} asker;

static void *ask(void *arg)
{
    asker *k = arg;
    while (!atomic_load(&k->stop)) {
        h_answer a =
            h_call(k->h, "POST", CHAT, "", "{\"model\":\"two\"," USER ",\"max_tokens\":4}");
        assert_true(a.status == 200 || a.status == 404 || a.status == 503);
        k->answered += a.status == 200;
        k->refused += a.status != 200;
        h_answer_fini(&a);
        a = h_call(k->h, "GET", "/metrics", "", NULL);
        h_answer_fini(&a);
    }
    return NULL;
}

static void test_models_come_and_go_under_load(void **state)
{
    (void)state;
    harness h;
    asker k[CLIENTS] = {{0}};
    h_open(&h, &(h_config){0});
    for (int i = 0; i < CLIENTS; i++) {
        k[i].h = &h;
        assert_int_equal(pthread_create(&k[i].thread, NULL, ask, &k[i]), 0);
    }
    for (int i = 0; i < ROUNDS; i++) {
        cp_metrics *metrics = cp_metrics_new("two");
        cp_served *x = reserve(&h, two, 2);
        publish(&h, x, metrics);
        chat(&h, "smol", 200, "", "Hell");
        unload(&h, x);
        cp_metrics_free(metrics);
    }
    for (int i = 0; i < CLIENTS; i++) {
        atomic_store(&k[i].stop, true);
        pthread_join(k[i].thread, NULL);
    }
    h_close(&h);
}

/* ---- moves ---- */

static cp_served *shadow(harness *h, const char *const *ids, size_t n, cp_metrics *metrics)
{
    cp_err err;
    cp_served *x = NULL;
    assert_int_equal(cp_server_shadow_model(h->s, ids, n, &x, &err), CP_OK);
    publish(h, x, metrics);
    return x;
}

static void expect_models(const harness *h, const char *words)
{
    h_answer a = h_call(h, "GET", "/v1/models", "", NULL);
    char got[256] = "";
    for (const char *p = a.body.p; (p = strstr(p, "{\"id\":\"")); p++)
        cp_snprintf(got + strlen(got), sizeof(got) - strlen(got), "%.*s ",
                    (int)strcspn(p + 7, "\""), p + 7);
    assert_string_equal(got, words);
    h_answer_fini(&a);
}

/* A model takes another's names while that one's stream runs on: nobody is told to come again. */
static void test_a_model_takes_anothers_place(void **state)
{
    (void)state;
    static const char *const ids[] = {"smol", "new name"};
    harness h;
    cp_err err;
    cp_metrics *metrics = cp_metrics_new("smol");
    h_open(&h, &(h_config){0});
    cp_served *deux = reserve(&h, two, 1);
    publish(&h, deux, NULL);
    cp_served *x = shadow(&h, ids, 2, metrics);
    chat(&h, "new name", 404, "model_not_found", "");
    chat(&h, "second name", 200, "", "");
    expect_models(&h, "smol two ");
    cp_sampling_defaults one = cp_sampling_defaults_off();
    one.max_tokens = 1;
    const cp_server_move moves[] = {{.row = x, .ids = ids, .n_ids = 2, .defaults = &one},
                                    {.row = h.model, .goes = true}};
    assert_int_equal(cp_server_move_models(h.s, moves, 2, true, &err), CP_OK); /* dry */
    chat(&h, "new name", 404, "model_not_found", "");
    assert_int_equal(cp_server_move_models(h.s, moves, 2, false, &err), CP_OK);
    expect_models(&h, "smol two ");
    chat(&h, "new name", 200, "", "");
    chat(&h, "second name", 404, "model_not_found", "does not exist");
    h_answer a = h_call(&h, "POST", CHAT, "", "{" USER "}");
    assert_non_null(strstr(a.body.p, "\"completion_tokens\":1,"));
    h_answer_fini(&a);
    a = h_call(&h, "GET", "/metrics", "", NULL);
    const char *first = strstr(a.body.p, "\ncapstan_engine_steps_total{model=\"smol\"}");
    assert_non_null(first);
    assert_null(strstr(first + 1, "\ncapstan_engine_steps_total{model=\"smol\"}"));
    h_answer_fini(&a);
    cp_server_forget_model(h.s, h.model);
    unload(&h, deux);
    unload(&h, x);
    cp_metrics_free(metrics);
    h.model = NULL;
    h_close(&h);
}

/* All or nothing. */
static void test_moves_that_do_not_go_together(void **state)
{
    (void)state;
    static const char *const ids[] = {"x", "two"}, *const other[] = {"y", "x"};
    harness h;
    cp_err err;
    h_open(&h, &(h_config){0});
    cp_served *deux = reserve(&h, two, 1);
    publish(&h, deux, NULL);
    cp_served *x = shadow(&h, ids, 1, NULL), *y = shadow(&h, other, 1, NULL);
    const cp_server_move clash[] = {{.row = x, .ids = ids, .n_ids = 2}};
    assert_int_equal(cp_server_move_models(h.s, clash, 1, false, &err), CP_USAGE);
    assert_non_null(strstr(err.msg, "'two'"));
    const cp_server_move same[] = {{.row = x, .ids = ids, .n_ids = 1},
                                   {.row = y, .ids = other, .n_ids = 2}};
    assert_int_equal(cp_server_move_models(h.s, same, 2, false, &err), CP_USAGE);
    expect_models(&h, "smol two ");
    /* One that goes by itself keeps its names until somebody wants them. */
    cp_server_unload_model(h.s, deux, 0);
    chat(&h, "two", 404, "model_not_found", "is being unloaded");
    assert_int_equal(cp_server_move_models(h.s, clash, 1, false, &err), CP_OK);
    chat(&h, "two", 200, "", "");
    expect_models(&h, "x smol "); /* what was moved stands first */
    cp_server_forget_model(h.s, deux);
    unload(&h, x);
    unload(&h, y);
    h_close(&h);
}

int run_served_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_taken_before_the_model_is_there),
        cmocka_unit_test(test_a_model_leaves_nothing),
        cmocka_unit_test(test_the_last_model_leaves_the_server_up),
        cmocka_unit_test(test_a_stream_holds_its_model),
        cmocka_unit_test(test_a_call_in_the_queue_finds_none),
        cmocka_unit_test(test_who_reads_late_holds_no_model),
        cmocka_unit_test(test_a_stalled_stream_is_cut_at_the_end),
        cmocka_unit_test(test_what_the_engine_cut_is_said),
        cmocka_unit_test(test_models_come_and_go_under_load),
        cmocka_unit_test(test_a_model_takes_anothers_place),
        cmocka_unit_test(test_moves_that_do_not_go_together),
    };
    return cmocka_run_group_tests_name("served", tests, NULL, NULL);
}
