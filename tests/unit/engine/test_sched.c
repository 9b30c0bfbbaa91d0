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
    int n_groups, rows, depth;
    uint32_t n_states;
    bool in_order, prefix_cache;
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
                       .n_state_slots = h->n_states,
                       .max_seqs = max_seqs,
                       .max_positions = ctx,
                       .depth = h->depth,
                       .prefix_cache = h->prefix_cache};
    cp_sched_config sc = {.page_positions = P,
                          .checkpoint_every = 8 * P,
                          .prefix_cache = h->prefix_cache,
                          .ctx = ctx,
                          .max_seqs = max_seqs,
                          .prefill_chunk = chunk,
                          .max_out = 64,
                          .max_tasks = REQS,
                          .in_order = h->in_order};
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

/* ---- steps in flight ---- */

/* Plans a step and sends it; returns its rows. */
static int send(hand *h)
{
    int rows = plan(h);
    if (rows > 0) {
        cp_step_build(&h->step, h->s);
        cp_sched_sent(h->s);
    }
    cp_sched_check(h->s, false);
    cp_kv_check(h->kv);
    return rows;
}

/* The oldest step in flight ran: ids of its output rows. */
static void land(hand *h, int n, const int32_t *ids)
{
    cp_sample_out results[16] = {0};
    for (int o = 0; o < n; o++)
        results[o] = (cp_sample_out){.id = ids[o], .finite = true};
    cp_sched_commit(h->s, results, ++h->now);
    cp_tasks_flush(h->s, NULL);
    cp_sched_check(h->s, false);
    cp_kv_check(h->kv);
}

static void land_one(hand *h, int32_t id)
{
    land(h, 1, &id);
}

/* The ids that request i has been sent, up to n; returns how many there were. */
static int ids_of(hand *h, int i, int32_t *out, int n)
{
    cp_event ev;
    int k = 0;
    while (cp_ring_pop(&h->q[i].r.ring, &ev)) {
        if (ev.type == CP_EV_TOKEN && k < n)
            out[k++] = ev.id;
    }
    return k;
}

static hand *hand_in_flight(int max_seqs)
{
    hand *h = hand_new();
    h->depth = 2;
    hand_open(h, 4, 60 + 1, 160, 16, max_seqs);
    return h;
}

/* The row of a token whose value is not here, and the commit one step late. */
static void a_row_follows_a_pending_token(void **state)
{
    (void)state;
    hand *h = hand_in_flight(4);
    int32_t ids[8];
    put(h, ask(h, 0, 9, 3, 64));
    assert_int_equal(send(h), 9);
    const cp_seq *q = seq_of(h, 0);
    assert_int_equal(q->n_known, 9);
    assert_int_equal(q->n_pending, 1);
    assert_int_equal(q->n_done, 9);
    assert_int_equal(send(h), 1);
    assert_int_equal(h->step.batch.tok[0], CP_TOK_PREV);
    assert_int_equal(h->step.batch.pos[0], 9);
    assert_int_equal(h->step.batch.seqs[0].n_tokens, 10);
    assert_int_equal(h->step.samples[0].n_tokens, 10);
    assert_int_equal(h->step.samples[0].position, 1); /* it makes the choice's second token */
    assert_int_equal(q->n_pending, 2);
    land_one(h, 30);
    assert_int_equal(q->n_known, 10);
    assert_int_equal(q->n_pending, 1);
    assert_int_equal(cp_kv_firm(h->kv, q->kv), 9);
    assert_int_equal(send(h), 1);
    land_one(h, 31);
    assert_int_equal(send(h), 0); /* its third and last token is pending: nothing comes after it */
    land_one(h, 32);
    assert_int_equal(ids_of(h, 0, ids, 8), 3);
    assert_int_equal(ids[0], 30);
    assert_int_equal(ids[1], 31);
    assert_int_equal(ids[2], 32);
    assert_null(seq_of(h, 0));
    assert_int_equal(h->s->stats.discarded, 0);
    hand_close(h);
}

/* Its end is found when the next row is in flight: that row is nobody's, its page parked. */
static void a_row_after_the_end_is_discarded(void **state)
{
    (void)state;
    hand *h = hand_in_flight(1);
    int32_t ids[8];
    put(h, ask(h, 0, 7, 9, 64));
    assert_int_equal(send(h), 7);
    assert_int_equal(send(h), 1);
    land_one(h, STOP_ID);
    assert_null(seq_of(h, 0));
    assert_int_equal(h->s->stats.finished_stop, 1);
    assert_int_equal(cp_kv_parked(h->kv), 2);
    put(h, ask(h, 1, 5, 1, 64)); /* the slot's next tenant, beside the row that is in flight */
    assert_int_equal(send(h), 5);
    land_one(h, 99);
    assert_int_equal(h->s->stats.discarded, 1);
    assert_int_equal(cp_kv_parked(h->kv), 0);
    land_one(h, 40);
    assert_int_equal(ids_of(h, 0, ids, 8), 0);
    assert_int_equal(ids_of(h, 1, ids, 8), 1);
    assert_int_equal(ids[0], 40);
    cp_sched_check_idle(h->s);
    hand_close(h);
}

/* Cancelled, and preempted, while steps are in flight: no result of theirs is used. */
static void who_goes_leaves_its_results_behind(void **state)
{
    (void)state;
    hand *h = hand_in_flight(4);
    int32_t ids[8];
    put(h, ask(h, 0, 6, 9, 64));
    put(h, ask(h, 1, 6, 2, 64));
    assert_int_equal(send(h), 12);
    atomic_store(&h->q[0].r.cancel, true);
    assert_int_equal(send(h), 1);
    land(h, 2, (const int32_t[]){50, 60});
    assert_int_equal(ids_of(h, 0, ids, 8), 0);
    cp_seq *q = &h->s->seqs[seq_of(h, 1)->slot];
    uint64_t gen = q->gen;
    cp_seq_preempt(h->s, q);
    assert_int_equal(q->n_pending, 0);
    assert_int_equal(q->n_known, 7);
    land_one(h, 61); /* it would have been its second token */
    assert_int_equal(h->s->stats.discarded, 2);
    assert_int_equal(send(h), 7); /* all over again: the same token comes */
    assert_int_equal(q->gen, gen + 1);
    land_one(h, 61);
    assert_int_equal(ids_of(h, 1, ids, 8), 2);
    assert_int_equal(ids[0], 60);
    assert_int_equal(ids[1], 61);
    hand_close(h);
}

/* Where a mask depends on the token before, there is no row until the host has seen it. */
static void masks_are_not_overlapped(void **state)
{
    (void)state;
    hand *h = hand_in_flight(4);
    cp_request *r = ask(h, 0, 6, 9, 64);
    r->no_overlap = true;
    put(h, r);
    assert_int_equal(send(h), 6);
    assert_int_equal(send(h), 0);
    land_one(h, 50);
    assert_int_equal(send(h), 1);
    assert_int_equal(h->step.batch.tok[0], 50);
    land_one(h, 51);
    assert_int_equal(h->s->stats.pending, 0);
    hand_close(h);
}

/* Four drafts, of which two are right: the rows up to the first wrong one make three tokens. */
static void drafts_are_kept_as_far_as_they_are_right(void **state)
{
    (void)state;
    hand *h = hand_in_flight(4);
    int32_t ids[16];
    put(h, ask(h, 0, 6, 20, 64));
    send(h);
    land_one(h, 50);
    cp_seq *q = &h->s->seqs[seq_of(h, 0)->slot];
    assert_int_equal(cp_seq_draft(h->s, q, (const int32_t[]){51, 52, 99, 54}, 4), 4);
    assert_int_equal(send(h), 5);
    for (int k = 0; k < 5; k++) {
        assert_int_equal(h->step.samples[k].target,
                         -1); /* nothing of it is a prompt to be scored */
        assert_int_equal(h->step.samples[k].position, 1 + k);
        assert_int_equal(h->step.samples[k].n_tokens, 7 + k);
    }
    assert_int_equal(h->step.batch.tok[3], 99);
    assert_int_equal(cp_kv_held(h->kv, q->kv), 3); /* 11 positions */
    assert_int_equal(send(h), 0); /* how many stay is not known: no row meanwhile */
    land(h, 5, (const int32_t[]){51, 52, 53, 77, 78});
    assert_int_equal(q->n_known, 10);
    assert_int_equal(q->n_done, 9);
    assert_int_equal(q->n_spec, 0);
    assert_int_equal(cp_kv_firm(h->kv, q->kv), 9);
    assert_int_equal(h->s->stats.drafted, 4);
    assert_int_equal(h->s->stats.accepted, 2);
    assert_int_equal(cp_seq_draft(h->s, q, (const int32_t[]){60, 61}, 2), 2); /* both right */
    assert_int_equal(send(h), 3);
    assert_int_equal(h->step.batch.tok[0], 53);
    land(h, 3, (const int32_t[]){60, 61, 62});
    assert_int_equal(q->n_known, 13);
    assert_int_equal(q->n_done, 12);
    assert_int_equal(cp_seq_draft(h->s, q, (const int32_t[]){70}, 1),
                     1); /* the end is among them */
    assert_int_equal(send(h), 2);
    land(h, 2, (const int32_t[]){70, STOP_ID});
    assert_int_equal(h->s->stats.finished_stop, 1);
    assert_int_equal(ids_of(h, 0, ids, 16), 8);
    const int32_t all[7] = {50, 51, 52, 53, 60, 61, 62};
    for (int k = 0; k < 7; k++)
        assert_int_equal(ids[k], all[k]);
    hand_close(h);
}

/* Nobody goes without a row for another's drafts; no more are taken than there are tokens to come.
 */
static void drafts_take_what_is_left(void **state)
{
    (void)state;
    hand *h = hand_in_flight(4);
    const int32_t ids[8] = {51, 52, 53, 54, 55, 56, 57, 58};
    put(h, ask(h, 0, 6, 4, 64));
    put(h, ask(h, 1, 6, 20, 64));
    send(h);
    land(h, 2, (const int32_t[]){50, 60});
    cp_seq *a = &h->s->seqs[seq_of(h, 0)->slot], *b = &h->s->seqs[seq_of(h, 1)->slot];
    assert_int_equal(cp_seq_draft(h->s, a, ids, 8), 2); /* 3 tokens to come */
    assert_int_equal(cp_seq_draft(h->s, b, ids, 8), 8);
    h->rows = 3;
    assert_int_equal(send(h), 3);
    assert_int_equal(h->step.batch.seqs[0].n_rows, 2);
    assert_int_equal(h->step.batch.seqs[1].n_rows, 1);
    assert_int_equal(a->n_spec + b->n_spec, 1);         /* those that got no row are forgotten */
    assert_int_equal(cp_seq_draft(h->s, b, ids, 8), 0); /* it has a token in flight */
    land(h, 3, (const int32_t[]){51, 52, 61});
    assert_int_equal(a->n_known, 9);
    assert_int_equal(b->n_known, 8);
    hand_close(h);
}

/* ---- states ---- */

/* Pages of 4, a checkpoint every 32 positions beside those at the borders; `slots` state slots. */
static hand *hand_hybrid(uint32_t slots)
{
    hand *h = hand_new();
    h->groups[h->n_groups++] = (cp_kv_group){.kind = CP_GROUP_STATE, .state_bytes = 64};
    h->n_states = slots + 1;
    h->prefix_cache = true;
    hand_open(h, 4, 60 + 1, 160, 16, 4);
    return h;
}

static cp_kv_stats kv_stats(const hand *h)
{
    cp_kv_stats st;
    cp_kv_stats_get(h->kv, &st);
    return st;
}

/* Steps until request i has ended. */
static void run_out(hand *h, int i)
{
    int steps = 0;
    do {
        step(h);
        read_all(h, i);
        assert_true(++steps < 200);
    } while (seq_of(h, i));
}

/* How far a prompt of request i's and n tokens of its answer, and one more, would be hit. */
static int would_hit(const hand *h, int i, int n)
{
    int32_t tok[160];
    int all = h->q[i].r.n_prompt + n;
    memcpy(tok, h->q[i].prompt, sizeof(*tok) * (size_t)h->q[i].r.n_prompt);
    for (int k = h->q[i].r.n_prompt; k <= all; k++)
        tok[k] = h->answer;
    return cp_kv_peek(h->kv, NULL, tok, all + 1, all);
}

/* A prompt of 10 and an answer of 21: its last token is in no state, so 30 positions are, and the
 * next turn computes 2 of them again. Of the borders that the answer passed the last alone is left.
 */
static void the_next_turn_begins_at_the_answers_last_border(void **state)
{
    (void)state;
    hand *h = hand_hybrid(20);
    put(h, ask(h, 0, 10, 21, 64));
    run_out(h, 0);
    assert_int_equal(would_hit(h, 0, 21), 28);
    assert_int_equal(would_hit(h, 0, 0), 8);  /* the prompt alone, with another answer */
    assert_int_equal(would_hit(h, 0, 13), 8); /* half of the answer: at 20 there is none any more */
    assert_int_equal(kv_stats(h).checkpoints_held, 2);
    assert_int_equal(kv_stats(h).checkpoints_passed, 4);
    cp_request *next = ask(h, 1, 45, 1, 64);
    for (int k = 0; k < 45; k++)
        h->q[1].prompt[k] = k < 10 ? h->q[0].prompt[k] : h->answer;
    put(h, next);
    plan(h);
    assert_int_equal(seq_of(h, 1)->n_done, 28);
    assert_int_equal(seq_of(h, 1)->rows, 4); /* 32 is one of every so many */
    commit(h);
    run_out(h, 1);
    assert_int_equal(h->s->stats.checkpoint_hits, 1);
    assert_int_equal(would_hit(h, 0, 21),
                     28); /* it was hit, so it lasts: another turn like this one */
    assert_int_equal(would_hit(h, 1, 0), 44);
    assert_int_equal(kv_stats(h).checkpoints_held, 5); /* at 36 before what opens an answer */
    hand_close(h);
}

/* History without the last two tokens of the prompt, which ended one after a border: it is hit at
 * the border before. */
static void what_opens_an_answer_may_be_left_out(void **state)
{
    (void)state;
    hand *h = hand_hybrid(20);
    put(h, ask(h, 0, 29, 21, 64));
    run_out(h, 0);
    int32_t tok[60];
    memcpy(tok, h->q[0].prompt, sizeof(*tok) * 27);
    for (int k = 27; k < 60; k++)
        tok[k] = h->answer;
    assert_int_equal(cp_kv_peek(h->kv, NULL, tok, 60, 59), 20);
    assert_int_equal(would_hit(h, 0, 0), 28);
    hand_close(h);
}

/* A client that goes leaves what its answer had come to; so does a stop. */
static void a_cancelled_answer_leaves_its_last_border(void **state)
{
    (void)state;
    hand *h = hand_hybrid(20);
    put(h, ask(h, 0, 10, 40, 64));
    for (int i = 0; i < 14; i++)
        step(h);
    int done = seq_of(h, 0)->n_done;
    atomic_store(&h->q[0].r.cancel, true);
    step(h);
    assert_null(seq_of(h, 0));
    assert_int_equal(would_hit(h, 0, 30), done / 4 * 4);
    assert_true(done / 4 * 4 > 16);
    hand_close(h);
}

/* Who was preempted goes on from the last border of what it had computed, its answer included. */
static void a_preempted_answer_goes_on_from_its_last_border(void **state)
{
    (void)state;
    hand *h = hand_hybrid(20);
    put(h, ask(h, 0, 10, 60, 64));
    for (int i = 0; i < 17; i++)
        step(h);
    cp_seq *q = &h->s->seqs[seq_of(h, 0)->slot];
    int done = q->n_done;
    cp_seq_preempt(h->s, q);
    plan(h);
    assert_int_equal(q->state, CP_SEQ_RUNNING);
    assert_int_equal(q->n_done, done / 4 * 4);
    commit(h);
    run_out(h, 0);
    assert_int_equal(would_hit(h, 0, 60), 68); /* 69 positions are done */
    hand_close(h);
}

/* Choices that say the same leave one checkpoint a border; as each knows it, none takes it away. */
static void choices_share_their_borders(void **state)
{
    (void)state;
    hand *h = hand_hybrid(20);
    cp_request *r = ask(h, 0, 10, 11, 64);
    r->n = 3;
    put(h, r);
    run_out(h, 0);
    assert_int_equal(would_hit(h, 0, 11), 20);
    assert_int_equal(would_hit(h, 0, 0), 8);
    assert_int_equal(kv_stats(h).checkpoints_held, 4);
    assert_int_equal(kv_stats(h).states_used, 0);
    hand_close(h);
}

/* With two slots there is none for a checkpoint beside two that run, and both come to their end. */
static void short_slots_cost_checkpoints_only(void **state)
{
    (void)state;
    hand *h = hand_hybrid(2);
    put(h, ask(h, 0, 10, 20, 64));
    put(h, ask(h, 1, 11, 20, 64));
    step(h);
    assert_true(runs(h, 0) && runs(h, 1));
    run_out(h, 0);
    run_out(h, 1);
    assert_int_equal(h->s->stats.preemptions, 0);
    assert_int_equal(h->s->stats.finished_length, 2);
    hand_close(h);
}

/* A recurrent state cannot be rolled back: nothing is drafted. */
static void states_take_no_drafts(void **state)
{
    (void)state;
    hand *h = hand_hybrid(9);
    put(h, ask(h, 0, 6, 9, 64));
    step(h); /* to its prompt's border */
    step(h);
    cp_seq *q = &h->s->seqs[seq_of(h, 0)->slot];
    assert_int_equal(q->n_known, 7);
    assert_int_equal(cp_seq_draft(h->s, q, (const int32_t[]){51}, 1), 0);
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
        cmocka_unit_test(a_row_follows_a_pending_token),
        cmocka_unit_test(a_row_after_the_end_is_discarded),
        cmocka_unit_test(who_goes_leaves_its_results_behind),
        cmocka_unit_test(masks_are_not_overlapped),
        cmocka_unit_test(drafts_are_kept_as_far_as_they_are_right),
        cmocka_unit_test(drafts_take_what_is_left),
        cmocka_unit_test(the_next_turn_begins_at_the_answers_last_border),
        cmocka_unit_test(what_opens_an_answer_may_be_left_out),
        cmocka_unit_test(a_cancelled_answer_leaves_its_last_border),
        cmocka_unit_test(a_preempted_answer_goes_on_from_its_last_border),
        cmocka_unit_test(choices_share_their_borders),
        cmocka_unit_test(short_slots_cost_checkpoints_only),
        cmocka_unit_test(states_take_no_drafts),
        cmocka_unit_test(each_choice_ends_under_one_reason),
    };
    return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
