/*
 * time: an engine whose steps take long. The time is the fake backend's: a step of n rows moves its
 * clock on by n rows' time, as one operation; nothing waits, and nothing is measured.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine/bed.h"

#define MS     INT64_C(1000000)
#define MINUTE (60000 * MS)
enum { STEP_MS = 250, WARM_STEPS = 3 };

/* 512 rows take a minute; so a step has time for two. */
static const bed_options slow = {.step_ms = STEP_MS,
                                 .row_ns = MINUTE / 512,
                                 .rows = 512,
                                 .chunk = 128,
                                 .ctx = 600,
                                 .pages = 400};
enum { SLOW_ROWS = 2 };

static void slow_open(bed *b)
{
    bed_open(b, slow);
    b->f.api = b->api;
}

/* All steps were short, and the engine was alive after each. */
static void slow_close(bed *b)
{
    assert_int_equal(b->f.dead, 0);
    bed_close(b);
}

static void a_cancel_ends_a_slow_prompt_with_its_step(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    slow_open(&b);
    b.f.longest_ns = 0; /* of the warm-up */
    fake_gate(&b.f, true);
    fake_req_init(&q, 512, 100, 40, 64);
    bed_submit(&b, &q);
    fake_pass(&b.f, 3);
    fake_await_gate(&b.f); /* the fourth step is under way */
    int64_t then = atomic_load(&b.f.clock_ns);
    b.api->cancel(b.api->self, &q.r);
    fake_gate(&b.f, false);
    front_wait(&b.fr, &q);
    assert_int_equal(q.finish[0], CP_FINISH_CANCELLED);
    assert_int_equal(fake_steps(&b.f), WARM_STEPS + 4);
    assert_true(atomic_load(&b.f.clock_ns) - then <= STEP_MS * MS);
    assert_true(b.f.longest_ns <= STEP_MS * MS);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_STEP_ROW_BUDGET), SLOW_ROWS);
    slow_close(&b);
}

static void a_deadline_ends_a_slow_prompt_with_its_step(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    slow_open(&b);
    fake_req_init(&q, 512, 100, 40, 64);
    int64_t then = atomic_load(&b.f.clock_ns);
    q.r.deadline_ns = then + 2 * STEP_MS * MS;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(q.code, CP_DEADLINE);
    assert_int_equal(fake_steps(&b.f), WARM_STEPS + 3); /* it passed in the third */
    assert_true(atomic_load(&b.f.clock_ns) <= q.r.deadline_ns + STEP_MS * MS);
    slow_close(&b);
}

/* Two decode beside a prompt of many steps: each has its row in each, the prompt what is left. */
static void decoders_go_on_beside_a_slow_prompt(void **state)
{
    (void)state;
    bed b;
    fake_req q[3];
    slow_open(&b);
    for (int i = 0; i < 2; i++) {
        fake_req_init(&q[i], 1, 100 + i, 40, 64);
        bed_submit(&b, &q[i]);
    }
    fake_req_init(&q[2], 300, 300, 3, 64);
    fake_gate(&b.f, true);
    bed_submit(&b, &q[2]);
    b.f.most_rows = 0;
    fake_gate(&b.f, false);
    for (int i = 0; i < 3; i++)
        front_wait(&b.fr, &q[i]);
    for (int i = 0; i < 3; i++)
        expect_tokens(&q[i], 0, i < 2 ? 40 : 3);
    assert_int_equal(b.f.most_rows, 2 + 1);
    slow_close(&b);
}

/* A machine that becomes slower, and fast again, is followed. */
static void the_budget_follows_the_machine(void **state)
{
    (void)state;
    static const struct {
        int64_t row_ns;
        int least, most;
    } times[] = {{2 * MS, 120, 126}, {20 * MS, 10, 18}, {MS, 100, 250}};
    bed b;
    bed_options o = slow;
    o.row_ns = times[0].row_ns;
    bed_open(&b, o);
    for (int i = 0; i < 3; i++) {
        fake_req q;
        b.f.row_ns = times[i].row_ns;
        fake_req_init(&q, 500, 1 + 100 * i, 20, 64);
        bed_submit(&b, &q);
        front_wait(&b.fr, &q);
        expect_tokens(&q, 0, 20);
        assert_in_range(cp_metric_get(b.metrics, CP_M_STEP_ROW_BUDGET), times[i].least,
                        times[i].most);
    }
    bed_close(&b);
}

static void without_step_ms_rows_alone_limit(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_options o = slow;
    o.step_ms = 0;
    bed_open(&b, o);
    assert_int_equal(fake_steps(&b.f), 0); /* nothing is measured */
    assert_int_equal(cp_metric_get(b.metrics, CP_M_STEP_ROW_BUDGET), 512);
    fake_req_init(&q, 512, 100, 2, 64);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(b.f.most_rows, 512);
    bed_close(&b);
}

/* What beats while models are loaded does not make an engine dead that has not been started. */
static void an_engine_that_loads_is_alive(void **state)
{
    (void)state;
    bed b;
    bed_options o = slow;
    o.not_started = true;
    bed_open(&b, o);
    atomic_fetch_add(&b.f.clock_ns, 10 * MINUTE);
    assert_true(b.api->alive(b.api->self));
    cp_err err;
    assert_int_equal(cp_engine_start(b.e, &err), CP_OK);
    assert_true(b.api->alive(b.api->self));
    bed_close(&b);
}

int suite_time(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cancel_ends_a_slow_prompt_with_its_step),
        cmocka_unit_test(a_deadline_ends_a_slow_prompt_with_its_step),
        cmocka_unit_test(decoders_go_on_beside_a_slow_prompt),
        cmocka_unit_test(the_budget_follows_the_machine),
        cmocka_unit_test(without_step_ms_rows_alone_limit),
        cmocka_unit_test(an_engine_that_loads_is_alive),
    };
    return cmocka_run_group_tests_name("time", tests, NULL, NULL);
}
