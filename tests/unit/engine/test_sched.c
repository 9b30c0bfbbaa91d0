/*
 * sched: one scheduler driven by hand, without threads and without a backend: who is admitted when,
 * who keeps its pages, and under which reason each choice is counted. (The rules at large are the
 * simulation's, tests/sim; here are scenarios with numbers.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/sched.h"
#include "engine/sched_check.h"
#include "engine/seqs.h"
#include "engine/tasks.h"
#include "tests/unit/engine/fake.h"

#include <stdlib.h>
#include <string.h>

enum { REQS = 8, STOP_ID = 5, TOKEN = 20 };

typedef struct hand_req {
    cp_request r;
    int32_t prompt[1200];
    uint8_t ring_mem[64 * sizeof(cp_event)];
    int32_t stop;
} hand_req;

/* A scheduler, its requests, and what the next steps answer. */
typedef struct hand {
    cp_kv_group groups[6];
    int n_groups, rows;
    cp_kv *kv;
    cp_sched *s;
    cp_step step;
    hand_req q[REQS];
    int64_t now;
    int32_t answer; /* of each output row */
    bool finite;
} hand;

static void hand_open(hand *h, int P, uint32_t n_pages, int ctx, int chunk, int max_seqs)
{
    cp_err err;
    cp_kv_config kv = {.groups = h->groups,
                       .n_groups = h->n_groups,
                       .page_positions = P,
                       .n_pages = n_pages,
                       .max_seqs = max_seqs,
                       .max_positions = ctx};
    cp_sched_config sc = {.groups = h->groups,
                          .n_groups = h->n_groups,
                          .page_positions = P,
                          .ctx = ctx,
                          .max_seqs = max_seqs,
                          .prefill_chunk = chunk,
                          .max_out = 64,
                          .max_tasks = REQS};
    assert_int_equal(cp_kv_open(&h->kv, &kv, &err), CP_OK);
    sc.kv = h->kv;
    assert_int_equal(cp_sched_open(&h->s, &sc, &err), CP_OK);
    h->rows = 512;
    assert_int_equal(cp_step_init(&h->step, h->rows, 64, max_seqs, &err), CP_OK);
    h->answer = TOKEN;
    h->finite = true;
}

static void hand_close(hand *h)
{
    cp_tasks_fail_all(h->s, CP_OVERLOADED);
    cp_tasks_flush(h->s, NULL);
    cp_sched_close(h->s);
    cp_kv_close(h->kv);
    cp_step_fini(&h->step);
    free(h);
}

static hand *hand_new(void)
{
    hand *h = calloc(1, sizeof(*h));
    assert_non_null(h);
    h->groups[0] = (cp_kv_group){.kind = CP_GROUP_FULL};
    h->n_groups = 1;
    return h;
}

/* Request i of n_prompt tokens; ring records it may hold. Its prompt is like no other's. */
static cp_request *ask(hand *h, int i, int n_prompt, int max_tokens, uint32_t ring)
{
    hand_req *q = &h->q[i];
    memset(q, 0, sizeof(*q));
    for (int k = 0; k < n_prompt; k++)
        q->prompt[k] = 100 + i;
    q->stop = STOP_ID;
    q->r = (cp_request){.prompt = q->prompt,
                        .n_prompt = n_prompt,
                        .max_tokens = max_tokens,
                        .n = 1,
                        .n_prompt_top = -1,
                        .user = q};
    q->r.sampling = (cp_sampling){.top_p = 1, .n_top = -1, .stop_ids = &q->stop, .n_stop_ids = 1};
    cp_ring_init(&q->r.ring, q->ring_mem, sizeof(cp_event), ring);
    atomic_store(&q->r.refs, 2);
    return &q->r;
}

static void put(hand *h, cp_request *r)
{
    assert_true(cp_tasks_submit(h->s, r, h->now));
}

static int plan(hand *h)
{
    cp_sched_sweep(h->s, ++h->now);
    int rows = cp_sched_plan(h->s, h->rows);
    cp_sched_check(h->s, true);
    return rows;
}

static void commit(hand *h)
{
    if (h->s->plan_rows > 0) {
        cp_step_build(&h->step, h->s);
        for (int o = 0; o < h->step.batch.n_out; o++)
            h->step.results[o] = (cp_sample_out){.id = h->answer, .finite = h->finite};
        cp_kv_step_sent(h->kv);
        cp_kv_step_done(h->kv);
        cp_sched_commit(h->s, h->step.results, h->now);
    }
    cp_tasks_flush(h->s, NULL);
    cp_sched_check(h->s, false);
    cp_kv_check(h->kv);
}

static void step(hand *h)
{
    plan(h);
    commit(h);
}

static const cp_seq *seq_of(const hand *h, int i)
{
    for (int k = 0; k < h->s->cfg.max_seqs; k++) {
        const cp_seq *q = &h->s->seqs[k];
        if (q->state != CP_SEQ_FREE && q->task->r == &h->q[i].r)
            return q;
    }
    return NULL;
}

static bool runs(const hand *h, int i)
{
    const cp_seq *q = seq_of(h, i);
    return q && q->state == CP_SEQ_RUNNING;
}

static void read_all(hand *h, int i)
{
    cp_event ev;
    while (cp_ring_pop(&h->q[i].r.ring, &ev)) {
    }
}

/*
 * gemma-3-270m's groups, P 32, chunk 128. A has 1,100 tokens: an estimate of 140 pages, most of
 * which its window groups never take. W needs 108. While A has 48 of its own, 92 are put by for it
 * and W does not fit into the other 192; once A's prompt is computed it holds 120, nothing is put
 * by, and W fits into the 120 that are left, which are fewer than when it was last tried.
 */
static void who_waited_for_reservations_starts_when_they_go(void **state)
{
    (void)state;
    hand *h = hand_new();
    for (int g = 1; g < 6; g++)
        h->groups[g] = (cp_kv_group){.kind = CP_GROUP_WINDOW, .window = 512};
    h->n_groups = 6;
    hand_open(h, 32, 48 + 192 + 1, 1200, 128, 4);
    h->rows = 128;
    put(h, ask(h, 0, 1100, 60, 64));
    step(h);
    put(h, ask(h, 1, 575, 4, 64));
    plan(h);
    assert_int_equal(cp_kv_held(h->kv, seq_of(h, 0)->kv), 48);
    assert_int_equal(cp_kv_available(h->kv), 192);
    assert_false(runs(h, 1));
    commit(h);
    for (int steps = 2; steps < 9; steps++) { /* 9 chunks: the last one is planned next */
        assert_true(seq_of(h, 0)->n_done < 1100);
        assert_false(runs(h, 1));
        step(h);
    }
    read_all(h, 0);
    step(h);
    assert_non_null(seq_of(h, 0)); /* it still decodes */
    assert_true(runs(h, 1));
    hand_close(h);
}

/* 40 pages of 4. A runs on 20 of them; two slow readers hold 3 each; W needs 25 and could not have
 * them if both went. Then V, which needs 16: one of the two is enough. */
static void slow_readers_lose_no_pages_in_vain(void **state)
{
    (void)state;
    hand *h = hand_new();
    hand_open(h, 4, 40 + 1, 160, 16, 8);
    h->rows = 9 + 9 + 16;
    put(h, ask(h, 0, 9, 20, 4));
    put(h, ask(h, 1, 9, 20, 4));
    put(h, ask(h, 2, 75, 60, 64));
    for (int i = 0; i < 8; i++)
        step(h);
    assert_true(seq_of(h, 0)->blocked && seq_of(h, 1)->blocked);
    assert_int_equal(cp_kv_held(h->kv, seq_of(h, 0)->kv), 3);
    assert_int_equal(cp_kv_held(h->kv, seq_of(h, 2)->kv), 20);
    put(h, ask(h, 3, 99, 4, 64));
    step(h);
    assert_false(runs(h, 3));
    assert_int_equal(h->s->stats.preemptions, 0);
    assert_true(runs(h, 0) && runs(h, 1));
    atomic_store(&h->q[3].r.cancel, true);
    put(h, ask(h, 4, 62, 4, 64));
    step(h);
    assert_true(runs(h, 4));
    assert_int_equal(h->s->stats.preemptions, 1);
    assert_true(runs(h, 0) && !runs(h, 1)); /* the younger one */
    hand_close(h);
}

/* Chunks of 16, steps of 512 rows: a prompt alone takes what it needs, several share and the oldest
 * takes what is left; beside one that decodes each keeps to its chunk. */
static void chunks_are_for_those_who_decode(void **state)
{
    (void)state;
    hand *h = hand_new();
    hand_open(h, 32, 200 + 1, 1200, 16, 4);
    put(h, ask(h, 0, 300, 60, 64));
    assert_int_equal(plan(h), 300);
    commit(h);
    put(h, ask(h, 1, 600, 4, 64));
    put(h, ask(h, 2, 600, 4, 64));
    assert_int_equal(plan(h), 1 + 16 + 16); /* 0 decodes */
    commit(h);
    atomic_store(&h->q[0].r.cancel, true);
    assert_int_equal(plan(h), 512);
    assert_int_equal(seq_of(h, 1)->rows, 512 - 16);
    assert_int_equal(seq_of(h, 2)->rows, 16);
    commit(h);
    assert_int_equal(plan(h), 512); /* 1 has 88 to go */
    assert_int_equal(seq_of(h, 1)->rows, 88);
    commit(h);
    assert_int_equal(plan(h), 1 + 16);
    hand_close(h);
}

/* Time for few rows: those who decode have theirs all the same, prompts have one, the oldest's. */
static void short_time_takes_rows_from_prompts(void **state)
{
    (void)state;
    hand *h = hand_new();
    hand_open(h, 32, 200 + 1, 1200, 16, 6);
    put(h, ask(h, 0, 300, 60, 64));
    h->rows = 2; /* alone: all there is time for */
    assert_int_equal(plan(h), 2);
    commit(h);
    h->rows = 512;
    for (int i = 1; i < 4; i++)
        put(h, ask(h, i, 20, 60, 64));
    step(h);
    put(h, ask(h, 4, 600, 4, 64));
    put(h, ask(h, 5, 600, 4, 64));
    h->rows = 1;
    assert_int_equal(plan(h), 4 + 1); /* 0 to 3 decode */
    for (int i = 0; i < 5; i++)
        assert_int_equal(seq_of(h, i)->rows, 1);
    commit(h);
    h->rows = 10; /* the time, then the chunk is what ends it */
    assert_int_equal(plan(h), 4 + 6);
    assert_int_equal(seq_of(h, 4)->rows, 6);
    commit(h);
    h->rows = 40;
    assert_int_equal(plan(h), 4 + 16 + 16);
    commit(h);
    hand_close(h);
}

/* A window of 32, pages of 4, 38 of them. In chunks of 16 the 90 tokens of A take 23 pages of the
 * first group and at most 13 of the second, in one chunk 23 of both. It goes as far as there are
 * pages, to a page border, and nobody is preempted for it or fails. */
static void a_long_chunk_takes_no_page_that_is_put_by(void **state)
{
    (void)state;
    hand *h = hand_new();
    h->groups[1] = (cp_kv_group){.kind = CP_GROUP_WINDOW, .window = 32};
    h->n_groups = 2;
    hand_open(h, 4, 38 + 1, 160, 16, 4);
    h->rows = 100;
    put(h, ask(h, 0, 90, 8, 64));
    assert_int_equal(cp_seqs_prompt_pages(h->s, 90, 0), 23 + 13);
    plan(h);
    const cp_seq *q = seq_of(h, 0);
    assert_int_equal(q->rows, 76); /* 19 pages of each group */
    assert_int_equal(h->s->stats.preemptions, 0);
    for (int i = 0; i < 30 && seq_of(h, 0); i++) {
        commit(h);
        read_all(h, 0);
        plan(h);
    }
    assert_int_equal(h->s->stats.finished_length, 1);
    assert_int_equal(h->s->stats.out_of_memory + h->s->stats.preemptions, 0);
    hand_close(h);
}

static void count_free(cp_request *r)
{
    (*(int *)r->user)++;
}

/* The front end takes the last event, and lets go, before the engine announces it: the engine frees
 * nothing, the front end does when the request comes back. Then the other order. */
static void requests_are_freed_by_the_front_end(void **state)
{
    (void)state;
    hand *h = hand_new();
    cp_mpsc ready;
    cp_event ev = {0};
    int freed = 0;
    hand_open(h, 4, 10 + 1, 80, 16, 4);
    cp_mpsc_init(&ready);
    for (int early = 0; early < 2; early++) {
        cp_request *r = ask(h, 0, 5, 1, 64);
        r->user = &freed;
        r->free_fn = count_free;
        put(h, r);
        plan(h);
        cp_step_build(&h->step, h->s);
        h->step.results[0] = (cp_sample_out){.id = TOKEN, .finite = true};
        cp_kv_step_sent(h->kv);
        cp_kv_step_done(h->kv);
        cp_sched_commit(h->s, h->step.results, h->now);
        for (int i = 0; i < 3; i++)
            assert_true(cp_ring_pop(&r->ring, &ev));
        assert_int_equal(ev.type, CP_EV_END);
        if (early)
            cp_request_drop(r);
        assert_int_equal(cp_tasks_flush(h->s, &ready), 1);
        assert_int_equal(freed, early);
        assert_ptr_equal(cp_mpsc_pop(&ready), &r->ready_link);
        assert_true(cp_request_popped(r));
        cp_request_drop(r);
        if (!early)
            cp_request_drop(r);
        assert_int_equal(freed, early + 1);
        assert_null(cp_mpsc_pop(&ready));
    }
    hand_close(h);
}

static uint64_t ended_choices(const cp_sched *s)
{
    const cp_sched_stats *st = &s->stats;
    return st->finished_stop + st->finished_length + st->finished_cancelled + st->finished_error;
}

/* Every way to end, one after the other: each choice under one reason, once. */
static void each_choice_ends_under_one_reason(void **state)
{
    (void)state;
    hand *h = hand_new();
    hand_open(h, 4, 10 + 1, 80, 16, 4);
    const cp_sched_stats *st = &h->s->stats;
    put(h, ask(h, 0, 5, 2, 64)); /* length */
    for (int i = 0; i < 4; i++)
        step(h);
    assert_int_equal(st->finished_length, 1);
    put(h, ask(h, 0, 5, 0, 64)); /* nothing to compute, two choices */
    h->q[0].r.n = 2;
    step(h);
    assert_int_equal(st->finished_length, 3);
    put(h, ask(h, 0, 5, 9, 64)); /* stop */
    h->answer = STOP_ID;
    for (int i = 0; i < 4; i++)
        step(h);
    h->answer = TOKEN;
    assert_int_equal(st->finished_stop, 1);
    put(h, ask(h, 0, 5, 9, 64)); /* the client goes: three choices that run */
    h->q[0].r.n = 3;
    step(h);
    step(h);
    atomic_store(&h->q[0].r.cancel, true);
    put(h, ask(h, 1, 5, 9, 64)); /* and one that is still waiting */
    atomic_store(&h->q[1].r.cancel, true);
    step(h);
    assert_int_equal(st->finished_cancelled, 4);
    assert_int_equal(st->cancelled, 4);
    put(h, ask(h, 0, 5, 9, 64)); /* two choices pass their deadline */
    h->q[0].r.n = 2;
    h->q[0].r.deadline_ns = h->now + 3;
    for (int i = 0; i < 4; i++)
        step(h);
    assert_int_equal(st->finished_error, 2);
    assert_int_equal(st->finished_cancelled, 4);
    assert_int_equal(st->cancelled, 6); /* the event, not the reason */
    put(h, ask(h, 0, 60, 9, 64));       /* larger than the pool */
    for (int i = 0; i < 8; i++)
        step(h);
    assert_int_equal(st->out_of_memory, 1);
    assert_int_equal(st->finished_error, 3);
    put(h, ask(h, 0, 5, 9, 64)); /* numbers that are not finite */
    h->finite = false;
    step(h);
    h->finite = true;
    assert_int_equal(st->finished_error, 4);
    put(h, ask(h, 0, 5, 9, 64)); /* the step fails */
    plan(h);
    cp_sched_fail_plan(h->s, CP_MODEL_FAILED);
    commit(h);
    assert_int_equal(st->finished_error, 5);
    put(h, ask(h, 0, 5, 9, 64)); /* the server stops: one runs, one waits */
    put(h, ask(h, 1, 60, 9, 64));
    step(h);
    cp_tasks_fail_all(h->s, CP_OVERLOADED);
    commit(h);
    assert_int_equal(st->finished_error, 7);
    assert_int_equal(h->s->n_tasks, 0);
    assert_int_equal(ended_choices(h->s), 1 + 2 + 1 + 3 + 1 + 2 + 1 + 1 + 1 + 2);
    hand_close(h);
}

int suite_sched(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_waited_for_reservations_starts_when_they_go),
        cmocka_unit_test(slow_readers_lose_no_pages_in_vain),
        cmocka_unit_test(chunks_are_for_those_who_decode),
        cmocka_unit_test(short_time_takes_rows_from_prompts),
        cmocka_unit_test(a_long_chunk_takes_no_page_that_is_put_by),
        cmocka_unit_test(requests_are_freed_by_the_front_end),
        cmocka_unit_test(each_choice_ends_under_one_reason),
    };
    return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
