/*
 * models: how a model comes into a running engine and leaves it (model-* in docs/INVARIANTS.md).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine/bed.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

static cp_resident *load(bed *b)
{
    cp_err err;
    cp_resident *m = NULL;
    assert_int_equal(bed_load(b, (bed_options){0}, &m, &err), CP_OK);
    assert_int_equal(cp_engine_state(m), CP_MODEL_READY);
    return m;
}

static int prepared(bed *b)
{
    pthread_mutex_lock(&b->f.lock);
    int n = b->f.n_prepared;
    pthread_mutex_unlock(&b->f.lock);
    return n;
}

static void unload_and_forget(bed *b, cp_resident *m)
{
    int n = prepared(b);
    cp_engine_unload(b->e, m, 0);
    cp_engine_forget(b->e, m);
    assert_int_equal(prepared(b), n - 1);
}

/* A thread that does one thing with a model while the test goes on. */
typedef struct helper {
    bed *b;
    cp_resident *m;
    bed_options o;
    cp_code code;
    cp_err err;
    _Atomic bool done;
    pthread_t thread;
} helper;

static void *help_forget(void *arg)
{
    helper *h = arg;
    cp_engine_forget(h->b->e, h->m);
    atomic_store(&h->done, true);
    return NULL;
}

static void *help_load(void *arg)
{
    helper *h = arg;
    h->code = bed_load(h->b, h->o, &h->m, &h->err);
    return NULL;
}

static void begin(helper *h, void *(*fn)(void *))
{
    assert_int_equal(pthread_create(&h->thread, NULL, fn, h), 0);
}

static void join(helper *h)
{
    assert_int_equal(pthread_join(h->thread, NULL), 0);
}

/* ---- coming ---- */

/* The engine thread stands in a step all the while: it is not asked for anything. */
static void a_model_loads_beside_a_step(void **state)
{
    (void)state;
    bed b;
    fake_req q, p;
    bed_open(&b, (bed_options){0});
    fake_gate(&b.f, true);
    fake_req_init(&q, 3, 100, 6, 16);
    bed_submit(&b, &q);
    fake_await_gate(&b.f);
    cp_resident *m = load(&b);
    fake_req_init(&p, 3, 100, 6, 16);
    p.r.model = m;
    bed_submit(&b, &p);
    fake_gate(&b.f, false);
    front_wait(&b.fr, &q);
    front_wait(&b.fr, &p);
    expect_tokens(&q, 0, 6);
    expect_tokens(&p, 0, 6);
    unload_and_forget(&b, m);
    bed_close(&b);
}

static void a_warm_up_is_three_steps_that_nobody_sees(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){.step_ms = 250});
    assert_int_equal(fake_steps(&b.f), 3);
    assert_int_equal(b.f.n_rows, 1 + (FAKE_P - 1) + 1); /* less than a page: nothing is cached */
    assert_int_equal(cp_metric_get(b.metrics, CP_M_KV_PAGES_CACHED), 0);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_ENGINE_STEPS), 0);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_STEP_TIME), 0);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_E2E), 0);
    fake_req_init(&q, 10, 100, 5, 16);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    expect_tokens(&q, 0, 5);
    assert_int_equal(q.n_cached, 0);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_PROMPT_TOKENS), 10);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_GENERATION_TOKENS), 5);
    bed_close(&b);
}

/* Of each part of a load, that it fails; others go on, and a second try may work. */
static void a_load_that_fails_leaves_nothing(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    for (int part = 0; part < 4; part++) {
        cp_resident *m = (cp_resident *)(void *)&b;
        cp_err err = {0};
        bed_options o = {0};
        cp_code want = CP_NO_MEMORY;
        if (part == 0) { /* its own configuration */
            o.rows = 3;
            want = CP_INVALID_VALUE;
        } else if (part == 1) { /* the division of memory */
            o.pages = 1;
        } else if (part == 2) { /* the weights */
            b.f.prepare_fails = want = CP_CORRUPT;
        } else { /* the first step */
            o.step_ms = 250;
            b.f.fail_at = fake_steps(&b.f) + 1;
            want = CP_IO;
        }
        assert_int_equal(bed_load(&b, o, &m, &err), want);
        assert_null(m);
        assert_true(err.msg[0] != '\0');
        assert_int_equal(prepared(&b), 1);
        b.f.prepare_fails = CP_OK;
        b.f.fail_at = 0;
        fake_req_init(&q, 3, 100, 2, 16);
        bed_submit(&b, &q);
        front_wait(&b.fr, &q);
        expect_tokens(&q, 0, 2);
    }
    unload_and_forget(&b, load(&b));
    bed_close(&b);
}

static void a_load_can_be_given_up(void **state)
{
    (void)state;
    bed b;
    _Atomic bool cancel = false;
    bed_open(&b, (bed_options){0});
    helper h = {.b = &b, .o = {.cancel = &cancel, .step_ms = 250}};
    fake_hold_prepare(&b.f, true);
    begin(&h, help_load);
    fake_await_prepare(&b.f);
    assert_ptr_equal(b.f.cancel, &cancel); /* preparing itself may look */
    atomic_store(&cancel, true);
    fake_hold_prepare(&b.f, false);
    join(&h);
    assert_int_equal(h.code, CP_CANCELLED);
    assert_null(h.m);
    assert_int_equal(prepared(&b), 1);
    assert_int_equal(fake_steps(&b.f), 0);                           /* not even warmed up */
    assert_int_equal(bed_load(&b, h.o, &h.m, &h.err), CP_CANCELLED); /* not even begun */
    bed_close(&b);
}

/* The device fails while a model is warmed up. Who loads another one then is told at once, with or
 * without a warm-up; its weights are not even packed. */
static void a_dead_device_takes_no_model(void **state)
{
    (void)state;
    bed b;
    static const _Atomic bool untouched;
    bed_open(&b, (bed_options){0});
    b.f.device_at = 1;
    for (int i = 0; i < 3; i++) {
        cp_resident *m = NULL;
        cp_err err = {0};
        b.f.cancel = &untouched; /* preparing would put NULL here */
        assert_int_equal(bed_load(&b, (bed_options){.step_ms = i < 2 ? 250 : 0}, &m, &err),
                         CP_DEVICE_FAILED);
        assert_non_null(strstr(err.msg, i == 0 ? "no device from here on" : "device has failed"));
        assert_null(m);
        assert_int_equal(b.f.cancel == NULL, i == 0);
    }
    assert_int_equal(prepared(&b), 1);
    assert_int_equal(atomic_load(&b.f.told), 1);
    bed_close(&b);
}

/* ---- leaving ---- */

static void an_idle_model_goes_at_once(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){.two = true});
    cp_engine_unload(b.e, b.model2, 0);
    fake_req_init(&q, 3, 100, 2, 16);
    q.r.model = b.model2;
    bed_refuses(&b, &q, CP_MODEL_NOT_FOUND);
    cp_engine_forget(b.e, b.model2);
    assert_int_equal(prepared(&b), 1);
    fake_req_init(&q, 3, 100, 2, 16);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    expect_tokens(&q, 0, 2);
    bed_close(&b);
}

/* What runs and what waits for its slot come to their ends, and only then the model goes; whether
 * the front end has read them does not matter. */
static void running_and_queued_requests_finish(void **state)
{
    (void)state;
    bed b;
    fake_req run, wait, late;
    bed_open(&b, (bed_options){.max_seqs = 1});
    fake_gate(&b.f, true);
    fake_req_init(&run, 3, 100, 6, 16);
    fake_req_init(&wait, 3, 200, 6, 16);
    fake_req_init(&late, 3, 300, 6, 16);
    bed_submit(&b, &run);
    fake_await_gate(&b.f);
    bed_submit(&b, &wait);
    cp_engine_unload(b.e, b.model, 0);
    bed_refuses(&b, &late, CP_MODEL_NOT_FOUND);
    helper h = {.b = &b, .m = b.model};
    begin(&h, help_forget);
    fake_pass(&b.f, 3);
    fake_await_gate(&b.f);
    assert_int_equal(cp_engine_state(b.model), CP_MODEL_DRAINING);
    assert_false(atomic_load(&h.done));
    fake_gate(&b.f, false);
    join(&h);
    assert_int_equal(prepared(&b), 0);
    front_wait(&b.fr, &run);
    front_wait(&b.fr, &wait);
    expect_tokens(&run, 0, 6);
    expect_tokens(&wait, 0, 6);
    assert_true(b.api->alive(b.api->self)); /* without any model */
    b.model = b.f.model = load(&b);
    fake_req_init(&late, 3, 300, 6, 16);
    bed_submit(&b, &late);
    front_wait(&b.fr, &late);
    expect_tokens(&late, 0, 6);
    bed_close(&b);
}

/* It was submitted, but the engine thread, which is in a step, has not taken it yet. */
static void a_request_on_its_way_holds_its_model(void **state)
{
    (void)state;
    bed b;
    fake_req q, p;
    bed_open(&b, (bed_options){.two = true});
    fake_gate(&b.f, true);
    fake_req_init(&q, 3, 100, 6, 16);
    fake_req_init(&p, 3, 100, 6, 16);
    p.r.model = b.model2;
    bed_submit(&b, &q);
    fake_await_gate(&b.f);
    bed_submit(&b, &p);
    cp_engine_unload(b.e, b.model2, 0);
    helper h = {.b = &b, .m = b.model2};
    begin(&h, help_forget);
    fake_gate(&b.f, false);
    join(&h);
    front_wait(&b.fr, &p);
    front_wait(&b.fr, &q);
    expect_tokens(&p, 0, 6);
    expect_tokens(&q, 0, 6);
    bed_close(&b);
}

/* A client that does not read holds its model, but not beyond the end that was set. */
static void a_stream_that_nobody_reads_is_cut_at_the_end(void **state)
{
    (void)state;
    bed b;
    fake_req slow, q;
    bed_open(&b, (bed_options){.two = true});
    fake_req_init(&slow, 3, 100, 20, 4);
    slow.lazy = true;
    slow.r.model = b.model2;
    bed_submit(&b, &slow);
    cp_engine_unload(b.e, b.model2, 0);
    helper h = {.b = &b, .m = b.model2};
    begin(&h, help_forget);
    fake_req_init(&q, 3, 200, 30, 64);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q); /* many turns later */
    assert_int_equal(cp_engine_state(b.model2), CP_MODEL_DRAINING);
    assert_false(atomic_load(&h.done));
    cp_engine_unload(b.e, b.model2, cp_now_ns());
    join(&h);
    assert_int_equal(prepared(&b), 1);
    slow.lazy = false;
    front_read(&slow, &b.fr);
    front_wait(&b.fr, &slow);
    assert_int_equal(slow.code, CP_MODEL_NOT_FOUND);
    expect_tokens(&slow, 0, slow.n_tokens[0]);
    assert_true(slow.n_tokens[0] < 20);
    bed_close(&b);
}

static void a_slow_stream_that_is_read_finishes(void **state)
{
    (void)state;
    bed b;
    fake_req slow;
    bed_open(&b, (bed_options){0});
    fake_req_init(&slow, 3, 100, 20, 4);
    bed_submit(&b, &slow);
    cp_engine_unload(b.e, b.model, 0);
    helper h = {.b = &b, .m = b.model};
    begin(&h, help_forget);
    front_wait(&b.fr, &slow);
    join(&h);
    expect_tokens(&slow, 0, 20);
    assert_int_equal(slow.code, CP_OK);
    bed_close(&b);
}

static void a_model_that_has_failed_can_go(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){.file = true});
    b.f.poison_at = 2;
    fake_req_init(&q, 3, 100, 40, 64);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(q.code, CP_MODEL_FAILED);
    unload_and_forget(&b, b.model);
    bed_close(&b);
}

/* ---- the ends of the engine ---- */

static void stop_ends_a_drain(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_req_init(&q, 3, 100, 20, 4);
    q.lazy = true;
    bed_submit(&b, &q);
    cp_engine_unload(b.e, b.model, 0);
    helper h = {.b = &b, .m = b.model};
    begin(&h, help_forget);
    cp_engine_stop(b.e);
    join(&h);
    assert_int_equal(prepared(&b), 0);
    q.lazy = false;
    front_read(&q, &b.fr);
    front_wait(&b.fr, &q);
    assert_int_equal(q.code, CP_OVERLOADED);
    bed_close(&b);
}

static void an_engine_that_does_not_run_lets_models_go(void **state)
{
    (void)state;
    bed b;
    cp_err err;
    bed_open(&b, (bed_options){.two = true, .not_started = true});
    unload_and_forget(&b, b.model2);
    assert_int_equal(cp_engine_start(b.e, &err), CP_OK);
    unload_and_forget(&b, b.model);
    cp_resident *m = load(&b);
    cp_engine_stop(b.e);
    unload_and_forget(&b, m);
    load(&b); /* close frees it */
    bed_close(&b);
}

/* ---- all at once ---- */

enum { SUBMITTERS = 2, EACH = 40, ROUNDS = 20 };

typedef struct client {
    bed *b;
    cp_resident *m;
    fake_req q[EACH];
    int n; /* accepted */
    pthread_t thread;
} client;

/* Submits until it is refused. */
static void *submit_until_refused(void *arg)
{
    client *c = arg;
    cp_err err;
    for (c->n = 0; c->n < EACH; c->n++) {
        fake_req *q = &c->q[c->n];
        fake_req_init(q, 3, 10 * c->n, 4, 16);
        q->r.model = c->m;
        cp_code code = c->b->api->submit(c->b->api->self, &q->r, &err);
        if (code == CP_MODEL_NOT_FOUND)
            break;
        assert_int_equal(code, CP_OK);
    }
    return NULL;
}

/* Whatever was taken before a model drained comes to its end, on whichever side of the turn. */
static void models_come_and_go_under_load(void **state)
{
    (void)state;
    bed b;
    client *c = calloc(SUBMITTERS, sizeof(*c));
    assert_non_null(c);
    bed_open(&b, (bed_options){.max_queue = 1000, .max_queue_tokens = 100000});
    for (int round = 0; round < ROUNDS; round++) {
        cp_resident *m = load(&b);
        for (int i = 0; i < SUBMITTERS; i++) {
            c[i].b = &b;
            c[i].m = m;
            assert_int_equal(pthread_create(&c[i].thread, NULL, submit_until_refused, &c[i]), 0);
        }
        cp_engine_unload(b.e, m, 0);
        for (int i = 0; i < SUBMITTERS; i++)
            pthread_join(c[i].thread, NULL);
        cp_engine_forget(b.e, m);
        for (int i = 0; i < SUBMITTERS; i++) {
            for (int k = 0; k < c[i].n; k++) {
                front_wait(&b.fr, &c[i].q[k]);
                expect_tokens(&c[i].q[k], 0, 4);
            }
        }
        assert_int_equal(prepared(&b), 1);
    }
    bed_close(&b);
    free(c);
}

int suite_models(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_loads_beside_a_step),
        cmocka_unit_test(a_warm_up_is_three_steps_that_nobody_sees),
        cmocka_unit_test(a_load_that_fails_leaves_nothing),
        cmocka_unit_test(a_load_can_be_given_up),
        cmocka_unit_test(a_dead_device_takes_no_model),
        cmocka_unit_test(an_idle_model_goes_at_once),
        cmocka_unit_test(running_and_queued_requests_finish),
        cmocka_unit_test(a_request_on_its_way_holds_its_model),
        cmocka_unit_test(a_stream_that_nobody_reads_is_cut_at_the_end),
        cmocka_unit_test(a_slow_stream_that_is_read_finishes),
        cmocka_unit_test(a_model_that_has_failed_can_go),
        cmocka_unit_test(stop_ends_a_drain),
        cmocka_unit_test(an_engine_that_does_not_run_lets_models_go),
        cmocka_unit_test(models_come_and_go_under_load),
    };
    return cmocka_run_group_tests_name("models", tests, NULL, NULL);
}
