/*
 * engine: the thread and the front end's table over a fake backend (fake.h); memory planning.
 * Whatever depends on the order of threads is forced through the fake's gate, never by time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine/bed.h"

#include "base/clock.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the way of a request ---- */

static void a_request_gets_its_tokens_and_is_freed(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_req_init(&q, 10, 100, 5, 16);
    q.r.sampling.seed = 3;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    expect_tokens(&q, 0, 5);
    assert_int_equal(q.finish[0], CP_FINISH_LENGTH);
    assert_int_equal(q.code, CP_OK);
    assert_int_equal(atomic_load(&q.freed), 1);
    assert_int_equal(b.f.n_rows, 14);     /* the last token needs no row */
    assert_int_equal(b.f.n_steps, 1 + 4); /* alone, its prompt is one chunk, of more than 8 */
    assert_true(b.f.n_zeroed > 0);
    bed_close(&b);
}

static void a_stop_id_ends_without_a_token(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_req_init(&q, 3, 100, 20, 16);
    int32_t out[3];
    for (int i = 0; i < 3; i++)
        out[i] = fake_token(q.prompt, 3, out, i, 0, 0);
    q.stop_ids[0] = out[2];
    q.r.sampling.n_stop_ids = 1;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    expect_tokens(&q, 0, 2);
    assert_int_equal(q.finish[0], CP_FINISH_STOP);
    bed_close(&b);
}

static void choices_fork_and_share_the_prompt(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_req_init(&q, 9, 100, 4, 32);
    q.r.n = 4;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    for (int c = 0; c < 4; c++) {
        expect_tokens(&q, c, 4);
        assert_int_equal(q.finish[c], CP_FINISH_LENGTH);
    }
    assert_int_equal(b.f.n_rows, 8 + 4 * 4); /* eight rows once, then four a choice */
    assert_int_equal(cp_metric_get(b.metrics, CP_M_PROMPT_TOKENS), 9);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_GENERATION_TOKENS), 16);
    bed_close(&b);
}

static void more_choices_than_slots_all_come(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){.max_seqs = 2});
    fake_req_init(&q, 9, 100, 6, 32);
    q.r.n = 4;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    for (int c = 0; c < 4; c++)
        expect_tokens(&q, c, 6);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_PROMPT_TOKENS), 9);
    bed_close(&b);
}

static void prompt_scores_come_in_order_before_tokens(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_req_init(&q, 20, 100, 2, 64);
    q.r.n_prompt_top = 1;
    q.r.no_prefix_reads = true;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(q.n_prompt_events, 19);
    expect_tokens(&q, 0, 2);
    fake_req_init(&q, 20, 100, 0, 64); /* score only */
    q.r.n_prompt_top = 0;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(q.n_prompt_events, 19);
    assert_int_equal(q.n_tokens[0], 0);
    assert_int_equal(q.finish[0], CP_FINISH_LENGTH);
    bed_close(&b);
}

static void scores_wait_for_a_small_ring(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_req_init(&q, 40, 100, 1, 4); /* room for one or two scores at a time */
    q.r.n_prompt_top = 0;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(q.n_prompt_events, 39);
    expect_tokens(&q, 0, 1);
    bed_close(&b);
}

static void nothing_to_compute_ends_at_once(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_req_init(&q, 5, 100, 0, 16);
    q.r.n = 3;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    for (int c = 0; c < 3; c++)
        assert_int_equal(q.finish[c], CP_FINISH_LENGTH);
    assert_int_equal(b.f.n_steps, 0);
    bed_close(&b);
}

static void a_second_prompt_hits_the_cache(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    for (int i = 0; i < 2; i++) {
        fake_req_init(&q, 18, 100, 3, 16);
        bed_submit(&b, &q);
        front_wait(&b.fr, &q);
        expect_tokens(&q, 0, 3);
        assert_int_equal(q.n_cached, i * 16);
    }
    assert_int_equal(cp_metric_get(b.metrics, CP_M_PROMPT_TOKENS), 36);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_PROMPT_TOKENS_CACHED), 16);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_STEP_ROWS), 18 + 2 + 2 + 2);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_KV_PAGES_USED), 0);
    bed_close(&b);
}

static void bans_follow_min_tokens_and_ignore_eos(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    int32_t eog[1] = {5};
    bed_open(&b, (bed_options){0});
    fake_req_init(&q, 3, 100, 2, 16);
    q.stop_ids[0] = 5;
    q.stop_ids[1] = 6;
    q.r.sampling.n_stop_ids = 2;
    q.r.sampling.eog_ids = eog;
    q.r.sampling.n_eog_ids = 1;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(b.f.banned_seen, 0);
    cp_sampling with_stops = q.r.sampling;
    fake_req_init(&q, 3, 200, 2, 16);
    q.r.sampling = with_stops;
    q.r.sampling.ignore_eos = true;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(b.f.banned_seen, 1);
    fake_req_init(&q, 3, 300, 2, 16);
    q.r.sampling = with_stops;
    q.r.sampling.min_tokens = 1;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(b.f.banned_seen, 3);
    assert_int_equal(b.f.last_position, 1);
    bed_close(&b);
}

/* ---- endings ---- */

static void cancel_takes_at_most_one_more_step(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_gate(&b.f, true);
    fake_req_init(&q, 3, 100, 40, 64);
    bed_submit(&b, &q);
    fake_pass(&b.f, 4);
    fake_await_gate(&b.f); /* the fifth step is under way */
    b.api->cancel(b.api->self, &q.r);
    fake_gate(&b.f, false);
    front_wait(&b.fr, &q);
    assert_int_equal(fake_steps(&b.f), 5);
    assert_int_equal(q.finish[0], CP_FINISH_CANCELLED);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_CANCELLED), 1);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_FINISHED_CANCELLED), 1);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_FINISHED_ERROR), 0);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_KV_PAGES_USED), 0);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_SEQUENCES_DECODE), 0);
    bed_close(&b);
}

static void a_queued_request_can_be_cancelled(void **state)
{
    (void)state;
    bed b;
    fake_req a, q;
    bed_open(&b, (bed_options){.max_seqs = 1});
    fake_gate(&b.f, true);
    fake_req_init(&a, 3, 100, 4, 64);
    fake_req_init(&q, 3, 200, 4, 64);
    bed_submit(&b, &a);
    bed_submit(&b, &q);
    fake_await_gate(&b.f);
    b.api->cancel(b.api->self, &q.r);
    fake_gate(&b.f, false);
    front_wait(&b.fr, &q);
    front_wait(&b.fr, &a);
    assert_int_equal(q.finish[0], CP_FINISH_CANCELLED);
    assert_int_equal(q.n_tokens[0], 0);
    expect_tokens(&a, 0, 4);
    bed_close(&b);
}

static void a_deadline_ends_with_its_code(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_gate(&b.f, true);
    fake_req_init(&q, 3, 100, 40, 64);
    q.r.deadline_ns = cp_now_ns() + 1000000;
    bed_submit(&b, &q);
    while (cp_now_ns() < q.r.deadline_ns) {
    }
    fake_gate(&b.f, false);
    front_wait(&b.fr, &q);
    assert_int_equal(q.code, CP_DEADLINE);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_CANCELLED), 1);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_FINISHED_ERROR), 1);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_FINISHED_CANCELLED), 0);
    bed_close(&b);
}

static void a_model_that_is_lost_ends(bool file)
{
    bed b;
    fake_req q, late, other;
    bed_open(&b, (bed_options){.max_seqs = 1, .file = true});
    if (file)
        b.f.poison_at = 4;
    else
        b.f.lost_at = 4;
    fake_gate(&b.f, true);
    fake_req_init(&q, 3, 100, 40, 64);
    fake_req_init(&late, 3, 200, 40, 64);
    bed_submit(&b, &q);
    bed_submit(&b, &late);
    fake_await_gate(&b.f);
    fake_gate(&b.f, false);
    front_wait(&b.fr, &q);
    front_wait(&b.fr, &late); /* waiting ones end too */
    assert_int_equal(q.code, CP_MODEL_FAILED);
    assert_int_equal(late.code, CP_MODEL_FAILED);
    expect_tokens(&q, 0, 3);
    fake_req_init(&other, 3, 100, 40, 64);
    bed_refuses(&b, &other, CP_MODEL_FAILED);
    bed_close(&b);
}

static void a_poisoned_model_sends_no_token_of_the_damaged_step(void **state)
{
    (void)state;
    a_model_that_is_lost_ends(true);
}

static void what_the_backend_lost_ends_the_model_alike(void **state)
{
    (void)state;
    a_model_that_is_lost_ends(false);
}

/* Every model of the device ends, whoever's step it was, and for good. */
static void a_device_that_fails_ends_all(bool in_submit)
{
    bed b;
    fake_req p, q, late;
    bed_open(&b, (bed_options){.two = true, .max_seqs = 1});
    b.f.device_at = 5;
    b.f.device_in_submit = in_submit;
    fake_gate(&b.f, true);
    fake_req_init(&p, 3, 100, 40, 64);
    fake_req_init(&q, 3, 100, 40, 64);
    fake_req_init(&late, 3, 200, 40, 64);
    q.r.model = b.model2;
    bed_submit(&b, &p);
    bed_submit(&b, &q);
    bed_submit(&b, &late);
    fake_await_gate(&b.f);
    assert_true(b.api->alive(b.api->self));
    fake_gate(&b.f, false);
    front_wait(&b.fr, &p);
    front_wait(&b.fr, &q);
    front_wait(&b.fr, &late); /* it waited */
    assert_int_equal(p.code, CP_DEVICE_FAILED);
    assert_int_equal(q.code, CP_DEVICE_FAILED);
    assert_int_equal(late.code, CP_DEVICE_FAILED);
    assert_int_equal(late.n_tokens[0], 0);
    assert_true(p.n_tokens[0] + q.n_tokens[0] <= 4); /* nothing of the step that failed */
    assert_false(b.api->alive(b.api->self));
    int steps = fake_steps(&b.f);
    assert_true(steps <= 6); /* the other model's step had begun, or not */
    fake_req_init(&p, 3, 100, 4, 64);
    bed_refuses(&b, &p, CP_DEVICE_FAILED);
    fake_req_init(&q, 3, 100, 4, 64);
    q.r.model = b.model2;
    bed_refuses(&b, &q, CP_DEVICE_FAILED);
    assert_int_equal(fake_steps(&b.f), steps);
    assert_int_equal(atomic_load(&b.f.told), 1);
    bed_close(&b);
}

static void a_device_that_fails_in_submit_ends_all(void **state)
{
    (void)state;
    a_device_that_fails_ends_all(true);
}

static void a_device_that_fails_in_collect_ends_all(void **state)
{
    (void)state;
    a_device_that_fails_ends_all(false);
}

/* What another model has ends, too, though it has no step that could fail. */
static void a_model_without_a_step_ends_with_the_device(void **state)
{
    (void)state;
    bed b;
    fake_req p, q;
    bed_open(&b, (bed_options){.two = true});
    fake_gate(&b.f, true);
    fake_req_init(&p, 3, 100, 40, 64);
    fake_req_init(&q, 3, 100, 40, 8); /* six tokens, a finish and the end */
    q.r.model = b.model2;
    q.lazy = true;
    bed_submit(&b, &q);
    fake_pass(&b.f, 6);
    while (fake_steps(&b.f) < 6)
        sched_yield();
    b.f.device_at = 7;
    bed_submit(&b, &p);
    fake_await_gate(&b.f);
    fake_gate(&b.f, false);
    front_wait(&b.fr, &p);
    assert_int_equal(p.code, CP_DEVICE_FAILED);
    q.lazy = false;
    front_read(&q, &b.fr);
    front_wait(&b.fr, &q);
    assert_int_equal(q.code, CP_DEVICE_FAILED);
    expect_tokens(&q, 0, 6);
    assert_int_equal(fake_steps(&b.f), 7);
    bed_close(&b);
}

static void a_failed_step_fails_its_requests_only(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    b.f.fail_at = 3;
    fake_req_init(&q, 3, 100, 40, 64);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(q.code, CP_MODEL_FAILED);
    expect_tokens(&q, 0, 2);
    fake_req_init(&q, 3, 100, 4, 64);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    expect_tokens(&q, 0, 4);
    bed_close(&b);
}

static void logits_that_are_not_finite_fail_the_request(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    b.f.nan_at = 2;
    fake_req_init(&q, 3, 100, 40, 64);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(q.code, CP_MODEL_FAILED);
    expect_tokens(&q, 0, 1);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_CORRUPTED), 1);
    bed_close(&b);
}

static void stop_fails_what_runs_and_refuses_the_rest(void **state)
{
    (void)state;
    bed b;
    fake_req q, late;
    bed_open(&b, (bed_options){0});
    fake_gate(&b.f, true);
    fake_req_init(&q, 3, 100, 40, 64);
    bed_submit(&b, &q);
    fake_await_gate(&b.f);
    fake_pass(&b.f, 1000);
    assert_true(b.api->alive(b.api->self));
    cp_engine_stop(b.e);
    assert_false(b.api->alive(b.api->self));
    front_wait(&b.fr, &q);
    assert_true(q.code == CP_OVERLOADED || q.n_tokens[0] == 40);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_FINISHED_ERROR) +
                         cp_metric_get(b.metrics, CP_M_FINISHED_LENGTH),
                     1);
    fake_req_init(&late, 3, 100, 40, 64);
    bed_refuses(&b, &late, CP_OVERLOADED);
    bed_close(&b);
}

/* A step that lasts is alive as long as its operations end one after the other. */
static void the_heart_beats_within_a_step(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){0});
    fake_gate(&b.f, true);
    fake_req_init(&q, 3, 100, 2, 64);
    bed_submit(&b, &q);
    fake_await_gate(&b.f);
    for (int op = 0; op < 3; op++) {
        atomic_store(b.f.beat, cp_now_ns() - INT64_C(100000000000)); /* silent for 100 s */
        assert_false(b.api->alive(b.api->self));
        atomic_store(b.f.beat, cp_now_ns()); /* an operation has ended */
        assert_true(b.api->alive(b.api->self));
    }
    fake_gate(&b.f, false);
    front_wait(&b.fr, &q);
    expect_tokens(&q, 0, 2);
    bed_close(&b);
}

/* ---- limits ---- */

static void the_queue_is_bounded(void **state)
{
    (void)state;
    bed b;
    fake_req run, q[3];
    bed_open(&b, (bed_options){.max_seqs = 1, .max_queue = 2, .max_queue_tokens = 30});
    fake_gate(&b.f, true);
    fake_req_init(&run, 3, 100, 2, 16);
    bed_submit(&b, &run);
    fake_await_gate(&b.f); /* it is admitted: the queue is empty */
    for (int i = 0; i < 3; i++)
        fake_req_init(&q[i], 16, 100, 2, 16);
    bed_submit(&b, &q[0]);
    bed_refuses(&b, &q[1], CP_OVERLOADED); /* 32 tokens */
    fake_req_init(&q[1], 12, 200, 2, 16);
    bed_submit(&b, &q[1]);
    fake_req_init(&q[2], 1, 300, 2, 16);
    bed_refuses(&b, &q[2], CP_OVERLOADED); /* three requests */
    cp_engine_limits l;
    cp_engine_set_queue(b.e, 1, 1000);
    bed_refuses(&b, &q[2], CP_OVERLOADED); /* what waits stays, more than may by now */
    cp_engine_set_queue(b.e, 3, 28);
    bed_refuses(&b, &q[2], CP_OVERLOADED); /* 29 tokens */
    assert_true(cp_engine_front(b.e)->limits(b.e, b.model, &l));
    assert_true(l.max_queue == 3 && l.max_queue_tokens == 28);
    cp_engine_set_queue(b.e, 2, 30);
    fake_gate(&b.f, false);
    front_wait(&b.fr, &q[1]);
    front_wait(&b.fr, &q[0]);
    front_wait(&b.fr, &run);
    fake_req_init(&q[2], 40, 300, 2, 16);
    bed_submit(&b, &q[2]); /* alone, although it is larger than the bound */
    front_wait(&b.fr, &q[2]);
    expect_tokens(&q[2], 0, 2);
    bed_close(&b);
}

/* Until the engine has published so much. */
static void await_metric(const bed *b, cp_metric id, int64_t want)
{
    while (cp_metric_get(b->metrics, id) != want)
        usleep(1000);
}

/* Of two that wait, one for a slot and one for the prefix that the running one computes, the second
 * is deferred; the oldest's age counts until it is admitted. */
static void what_waits_is_told(void **state)
{
    (void)state;
    bed b;
    fake_req run, twin, other;
    bed_open(&b, (bed_options){.max_seqs = 2, .chunk = 16, .rows = 32, .ctx = 200});
    assert_int_equal(cp_metric_get(b.metrics, CP_M_QUEUE_OLDEST), 0);
    fake_gate(&b.f, true);
    fake_req_init(&run, 100, 100, 2, 16);
    fake_req_init(&twin, 100, 100, 2, 16);
    fake_req_init(&other, 100, 500, 2, 16);
    bed_submit(&b, &run);
    fake_await_gate(&b.f);
    bed_submit(&b, &twin);
    fake_pass(&b.f, 2); /* the second step's plan has looked at it */
    await_metric(&b, CP_M_SEQUENCES_WAITING, 1);
    await_metric(&b, CP_M_DEFERRED, 1);
    assert_int_not_equal(cp_metric_get(b.metrics, CP_M_QUEUE_OLDEST), 0);
    fake_gate(&b.f, false);
    bed_submit(&b, &other);
    front_wait(&b.fr, &run);
    front_wait(&b.fr, &twin);
    front_wait(&b.fr, &other);
    await_metric(&b, CP_M_SEQUENCES_WAITING, 0);
    await_metric(&b, CP_M_DEFERRED, 0);
    await_metric(&b, CP_M_QUEUE_OLDEST, 0);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_PREFIX_ASKED), 300);
    assert_true(cp_metric_get(b.metrics, CP_M_PROMPT_TOKENS_CACHED) > 0);
    assert_int_not_equal(cp_metric_get(b.metrics, CP_M_LAST_STEP), 0);
    bed_close(&b);
}

/* Each request and each choice is observed once, whatever becomes of it. */
static void requests_and_choices_are_observed_once(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){.max_seqs = 4});
    fake_req_init(&q, 3, 100, 4, 64);
    q.r.n = 3;
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    static const cp_metric once[] = {
        CP_M_REQUEST_PROMPT_TOKENS, CP_M_REQUEST_COMPUTED, CP_M_REQUEST_MAX_TOKENS,
        CP_M_REQUEST_CHOICES,       CP_M_LONGEST_CHOICE,   CP_M_INFERENCE_TIME,
        CP_M_PREFILL_TIME,          CP_M_DECODE_TIME,      CP_M_E2E};
    for (size_t i = 0; i < sizeof(once) / sizeof(once[0]); i++)
        assert_int_equal(cp_metric_get(b.metrics, once[i]), 1);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_CHOICE_TOKENS), 3);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_TPOT), 3);
    assert_int_equal(cp_metric_get(b.metrics, CP_M_STEP_TOKENS),
                     cp_metric_get(b.metrics, CP_M_ENGINE_STEPS));
    bed_close(&b);
}

static void bad_requests_are_refused(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    bed_open(&b, (bed_options){.ctx = 32});
    cp_engine_limits l;
    assert_true(b.api->limits(b.api->self, b.model, &l));
    assert_int_equal(l.ctx, 32);
    assert_int_equal(l.n_vocab, FAKE_VOCAB);
    assert_int_equal(l.max_seqs, 4);
    assert_false(b.api->limits(b.api->self, NULL, &l));
    fake_req_init(&q, 30, 100, 2, 16);
    bed_submit(&b, &q); /* exactly the context */
    front_wait(&b.fr, &q);
    expect_tokens(&q, 0, 2);
    fake_req_init(&q, 30, 100, 3, 16);
    bed_refuses(&b, &q, CP_CONTEXT_LENGTH);
    fake_req_init(&q, 30, 100, 2, 16);
    q.r.model = NULL;
    bed_refuses(&b, &q, CP_MODEL_NOT_FOUND);
    for (int i = 0; i < 7; i++) {
        fake_req_init(&q, 3, 100, 2, 16);
        if (i == 0)
            q.prompt[1] = -1;
        else if (i == 1)
            q.prompt[2] = FAKE_VOCAB;
        else if (i == 2)
            q.r.n = 129;
        else if (i == 3)
            q.r.n_prompt = 0;
        else if (i == 4)
            q.r.max_tokens = -1;
        else if (i == 5)
            cp_ring_init(&q.r.ring, q.ring_mem, sizeof(cp_event), 2);
        else
            cp_ring_init(&q.r.ring, q.ring_mem, CP_EVENT_BYTES(0) - 1, 16);
        bed_refuses(&b, &q, CP_INVALID_VALUE);
    }
    bed_close(&b);
}

static void a_full_ring_stops_its_request_only(void **state)
{
    (void)state;
    bed b;
    fake_req slow, q;
    bed_open(&b, (bed_options){0});
    fake_req_init(&slow, 3, 100, 20, 4);
    slow.lazy = true;
    bed_submit(&b, &slow);
    fake_req_init(&q, 3, 200, 30, 64);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    expect_tokens(&q, 0, 30);
    assert_false(slow.ended);
    assert_true(cp_ring_count(&slow.r.ring) <= 3);
    slow.lazy = false;
    front_read(&slow, &b.fr);
    front_wait(&b.fr, &slow);
    expect_tokens(&slow, 0, 20);
    bed_close(&b);
}

/* Those before it may still be in the queue, which all models share. */
static void submit_patiently(bed *b, fake_req *q)
{
    cp_err err;
    cp_code code;
    while ((code = b->api->submit(b->api->self, &q->r, &err)) == CP_OVERLOADED)
        sched_yield();
    assert_int_equal(code, CP_OK);
}

/* n requests for m of two choices each, and one slot: once the first choice has ended the ring has
 * no room for the second, so a task waits for its client and holds nothing. */
static fake_req *slow_readers(bed *b, cp_resident *m, int n)
{
    fake_req *q = calloc((size_t)n, sizeof(*q));
    assert_non_null(q);
    for (int i = 0; i < n; i++) {
        fake_req_init(&q[i], 3, 3 * i, 1, 4);
        q[i].r.model = m;
        q[i].r.n = 2;
        q[i].lazy = true;
        submit_patiently(b, &q[i]);
    }
    return q;
}

static void read_slow_readers(bed *b, fake_req *q, int n)
{
    for (int i = 0; i < n; i++) {
        q[i].lazy = false;
        front_read(&q[i], &b->fr);
    }
    for (int i = 0; i < n; i++) {
        front_wait(&b->fr, &q[i]);
        expect_tokens(&q[i], 0, 1);
        expect_tokens(&q[i], 1, 1);
    }
    free(q);
}

/* They are more than a step considers for admission. */
static void slow_readers_keep_nobody_from_starting(void **state)
{
    (void)state;
    enum { SLOW = CP_ADMIT_SCAN + 4 };
    bed b;
    fake_req p;
    bed_open(&b, (bed_options){.max_seqs = 1, .max_queue = 1000});
    fake_req *q = slow_readers(&b, b.model, SLOW);
    fake_req_init(&p, 3, 900, 4, 16);
    bed_submit(&b, &p);
    front_wait(&b.fr, &p);
    expect_tokens(&p, 0, 4);
    read_slow_readers(&b, q, SLOW);
    bed_close(&b);
}

/* They are more than there are tasks: others of their model wait, those of another one do not. */
static void slow_readers_hold_up_their_own_model_only(void **state)
{
    (void)state;
    enum { TASKS = 4 + 2, SLOW = TASKS + 3 };
    bed b;
    fake_req p;
    bed_open(&b, (bed_options){.two = true, .max_seqs = 1, .max_queue = 4});
    fake_req *q = slow_readers(&b, b.model, SLOW);
    fake_req_init(&p, 3, 900, 4, 16);
    p.r.model = b.model2;
    submit_patiently(&b, &p);
    front_wait(&b.fr, &p);
    expect_tokens(&p, 0, 4);
    read_slow_readers(&b, q, SLOW);
    bed_close(&b);
}

static void stop_ends_what_came_late(void **state)
{
    (void)state;
    enum { SLOW = 4 + 2 + 3 };
    bed b;
    bed_open(&b, (bed_options){.max_seqs = 1, .max_queue = 4});
    fake_req *q = slow_readers(&b, b.model, SLOW);
    cp_engine_stop(b.e);
    for (int i = 0; i < SLOW; i++) {
        q[i].lazy = false;
        front_read(&q[i], &b.fr);
        front_wait(&b.fr, &q[i]);
        assert_int_equal(q[i].code, CP_OVERLOADED);
    }
    free(q);
    bed_close(&b);
}

/* ---- several ---- */

static void models_take_turns(void **state)
{
    (void)state;
    bed b;
    fake_req p, q;
    bed_open(&b, (bed_options){.two = true});
    fake_gate(&b.f, true);
    fake_req_init(&p, 3, 100, 6, 16);
    fake_req_init(&q, 3, 100, 6, 16);
    q.r.model = b.model2;
    bed_submit(&b, &p);
    bed_submit(&b, &q);
    fake_await_gate(&b.f);
    fake_gate(&b.f, false);
    front_wait(&b.fr, &p);
    front_wait(&b.fr, &q);
    expect_tokens(&p, 0, 6);
    expect_tokens(&q, 0, 6);
    assert_int_equal(b.f.n_steps, 12);
    int changes = 0;
    for (int i = 1; i < 12; i++)
        changes += b.f.order[i] != b.f.order[i - 1];
    assert_true(changes >= 9); /* the first may be a step ahead */
    bed_close(&b);
}

static void pressure_preempts_and_loses_nothing(void **state)
{
    (void)state;
    bed b;
    fake_req q[12];
    bed_open(&b, (bed_options){.pages = 12, .max_seqs = 4});
    for (int i = 0; i < 12; i++) {
        fake_req_init(&q[i], 6 + i % 5, 50 * i, 20 + i, 64);
        q[i].r.sampling.seed = (uint64_t)i;
        bed_submit(&b, &q[i]);
    }
    for (int i = 0; i < 12; i++) {
        front_wait(&b.fr, &q[i]);
        expect_tokens(&q[i], 0, 20 + i);
    }
    assert_true(cp_metric_get(b.metrics, CP_M_PREEMPTIONS) > 0);
    int want = 0;
    for (int i = 0; i < 12; i++)
        want += 6 + i % 5;
    assert_int_equal(cp_metric_get(b.metrics, CP_M_PROMPT_TOKENS), want);
    bed_close(&b);
}

typedef struct probed {
    int calls, rows;
    const cp_request *r;
} probed;

static void on_probe(void *arg, const cp_resident *model, const cp_batch *batch,
                     cp_request *const *row_request, const int32_t *row_choice, const float *logits)
{
    probed *p = arg;
    p->calls++;
    for (int i = 0; i < batch->n_out; i++) {
        if (logits[(size_t)i * FAKE_VOCAB] == 42.0f && row_request[i] == p->r &&
            row_choice[i] == 0 && model == p->r->model)
            p->rows++;
    }
}

static void the_probe_sees_output_rows(void **state)
{
    (void)state;
    bed b;
    fake_req q;
    probed p = {.r = &q.r};
    bed_open(&b, (bed_options){0});
    cp_engine_set_probe(b.e, on_probe, &p);
    fake_req_init(&q, 12, 100, 5, 16);
    bed_submit(&b, &q);
    front_wait(&b.fr, &q);
    assert_int_equal(p.calls, 5);
    assert_int_equal(p.rows, 5);
    bed_close(&b);
}

typedef struct submitter {
    bed *b;
    fake_req q[20];
    int offset, overloaded;
} submitter;

static void *submit_many(void *arg)
{
    submitter *s = arg;
    for (int i = 0; i < 20; i++) {
        fake_req_init(&s->q[i], 2 + i, 10 * i + s->offset, 6, 64);
        s->q[i].r.n = 1 + i % 3;
        if (i % 7 == 6)
            atomic_store(&s->q[i].r.cancel, true);
        cp_err err;
        if (s->b->api->submit(s->b->api->self, &s->q[i].r, &err) != CP_OK)
            s->overloaded++;
        else if (i % 7 == 3)
            s->b->api->cancel(s->b->api->self, &s->q[i].r);
    }
    return NULL;
}

static void many_threads_may_submit_and_cancel(void **state)
{
    (void)state;
    bed b;
    pthread_t t[3];
    submitter *s = calloc(3, sizeof(*s));
    assert_non_null(s);
    bed_open(&b, (bed_options){.two = true, .pages = 24});
    for (int i = 0; i < 3; i++) {
        s[i].b = &b;
        s[i].offset = i;
        assert_int_equal(pthread_create(&t[i], NULL, submit_many, &s[i]), 0);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(s[i].overloaded, 0);
        for (int k = 0; k < 20; k++) {
            fake_req *q = &s[i].q[k];
            front_wait(&b.fr, q);
            assert_int_equal(q->code, CP_OK);
            for (int c = 0; c < q->r.n; c++) {
                if (q->finish[c] == CP_FINISH_LENGTH)
                    expect_tokens(q, c, 6);
                else
                    assert_true(atomic_load(&q->r.cancel));
            }
        }
    }
    assert_true(b.api->alive(b.api->self));
    bed_close(&b);
    free(s);
}

/* ---- memory ---- */

static void memory_is_divided_with_arithmetic(void **state)
{
    (void)state;
    cp_program prog = {.n_groups = 2, .n_vocab = 10};
    prog.groups[0] = (cp_kv_group){.kind = CP_GROUP_FULL};
    prog.groups[1] = (cp_kv_group){.kind = CP_GROUP_WINDOW, .window = 64};
    cp_engine_desc d = {.program = &prog, .ctx_train = 4096, .page_bytes = 1000};
    cp_engine_model m = {.name = "m", .kv_bytes = 1000000, .max_seqs = 4, .prefill_chunk = 32};
    cp_kv_config kv = {.groups = prog.groups, .n_groups = 2, .page_positions = 16};
    cp_memory_plan p;
    cp_err err = {0};
    kv.depth = 2; /* two chunks of 32 may lie beyond the window */
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_OK);
    assert_int_equal(p.full_seqs, 1000 / (256 + 9));
    kv.depth = 1;
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_OK);
    assert_int_equal(p.n_pages, 1001);
    assert_int_equal(p.n_states, 0);
    assert_int_equal(p.ctx, 4096); /* 256 pages and a window's 7 */
    assert_int_equal(p.full_seqs, 1000 / (256 + 7));
    assert_int_equal(p.kv_bytes, 1000000);
    m.kv_bytes = 100000; /* 100 pages: 93 of the full group */
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_OK);
    assert_int_equal(p.ctx, 93 * 16);
    assert_int_equal(p.full_seqs, 1);
    m.ctx_wish = 1000; /* a packaging's: a limit, not a demand */
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_OK);
    assert_int_equal(p.ctx, 1000);
    m.ctx_wish = 2000;
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_OK);
    assert_int_equal(p.ctx, 93 * 16);
    m.ctx = 2000; /* asked for: refused with the numbers */
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_NO_MEMORY);
    assert_non_null(strstr(err.msg, "2000 positions takes 132 pages of 1000 bytes"));
    m.ctx = 0;
    m.kv_bytes = 900;
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_NO_MEMORY);
}

static void states_have_a_quarter_of_the_bytes_at_most(void **state)
{
    (void)state;
    cp_program prog = {.n_groups = 2, .n_vocab = 10};
    prog.groups[0] = (cp_kv_group){.kind = CP_GROUP_FULL};
    prog.groups[1] = (cp_kv_group){.kind = CP_GROUP_STATE};
    cp_engine_desc d = {
        .program = &prog, .ctx_train = 4096, .page_bytes = 1000, .state_bytes = 2000};
    cp_engine_model m = {.name = "m", .kv_bytes = 1000000, .max_seqs = 4, .prefill_chunk = 32};
    cp_kv_config kv = {.groups = prog.groups, .n_groups = 2, .page_positions = 16};
    cp_memory_plan p;
    cp_err err = {0};
    /* 6 a sequence, and one to every 256 positions, which are 16 pages */
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_OK);
    assert_int_equal(p.checkpoint_every, 256);
    assert_int_equal(p.n_states - 1, 24 + 1000000 / 16000);
    assert_int_equal(p.n_pages, 1 + (1000000 - 86 * 2000) / 1000);
    d.state_bytes = 5000; /* they would be more than a quarter */
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_OK);
    assert_int_equal(p.n_states - 1, 50);
    m.kv_bytes = 60000;
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_OK);
    assert_int_equal(p.n_states - 1, 3);
    m.kv_bytes = 30000;
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_NO_MEMORY); /* one slot */
    m.kv_bytes = 4000000;
    d.state_bytes = 100500; /* as much as 1,608 positions: whole pages of them */
    assert_int_equal(cp_memory_plan_make(&p, &m, &d, &kv, &err), CP_OK);
    assert_int_equal(p.checkpoint_every, 1616);
    assert_int_equal(p.n_states - 1, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_gets_its_tokens_and_is_freed),
        cmocka_unit_test(a_stop_id_ends_without_a_token),
        cmocka_unit_test(choices_fork_and_share_the_prompt),
        cmocka_unit_test(more_choices_than_slots_all_come),
        cmocka_unit_test(prompt_scores_come_in_order_before_tokens),
        cmocka_unit_test(scores_wait_for_a_small_ring),
        cmocka_unit_test(nothing_to_compute_ends_at_once),
        cmocka_unit_test(a_second_prompt_hits_the_cache),
        cmocka_unit_test(bans_follow_min_tokens_and_ignore_eos),
        cmocka_unit_test(cancel_takes_at_most_one_more_step),
        cmocka_unit_test(a_queued_request_can_be_cancelled),
        cmocka_unit_test(a_deadline_ends_with_its_code),
        cmocka_unit_test(a_device_that_fails_in_submit_ends_all),
        cmocka_unit_test(a_device_that_fails_in_collect_ends_all),
        cmocka_unit_test(a_model_without_a_step_ends_with_the_device),
        cmocka_unit_test(a_poisoned_model_sends_no_token_of_the_damaged_step),
        cmocka_unit_test(what_the_backend_lost_ends_the_model_alike),
        cmocka_unit_test(a_failed_step_fails_its_requests_only),
        cmocka_unit_test(logits_that_are_not_finite_fail_the_request),
        cmocka_unit_test(stop_fails_what_runs_and_refuses_the_rest),
        cmocka_unit_test(the_heart_beats_within_a_step),
        cmocka_unit_test(what_waits_is_told),
        cmocka_unit_test(requests_and_choices_are_observed_once),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(a_full_ring_stops_its_request_only),
        cmocka_unit_test(slow_readers_keep_nobody_from_starting),
        cmocka_unit_test(slow_readers_hold_up_their_own_model_only),
        cmocka_unit_test(stop_ends_what_came_late),
        cmocka_unit_test(models_take_turns),
        cmocka_unit_test(pressure_preempts_and_loses_nothing),
        cmocka_unit_test(the_probe_sees_output_rows),
        cmocka_unit_test(many_threads_may_submit_and_cancel),
        cmocka_unit_test(memory_is_divided_with_arithmetic),
        cmocka_unit_test(states_have_a_quarter_of_the_bytes_at_most),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL) + suite_models() +
           suite_sched() + suite_pace() + suite_time();
}
