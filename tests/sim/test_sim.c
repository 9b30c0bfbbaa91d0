/*
 * test_sim: the scheduler and the kv-cache by seed, every invariant checked every step, and the
 * kv-cache alone.
 *
 * CP_SIM_STEPS sets the steps of all shapes together (default 1,000,000),
 * CP_SIM_SEED the seed. Prints what happened and asserts that enough of everything did.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/sim/pages.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int64_t env_number(const char *name, int64_t otherwise)
{
    const char *v = getenv(name);
    return v ? strtoll(v, NULL, 10) : otherwise;
}

static void print(const char *name, const sim_result *r)
{
    print_message("%-10s steps %" PRId64 " rows %" PRIu64 " requests %" PRId64 " tokens %" PRId64
                  " preemptions %" PRIu64 " evictions %" PRIu64 " hits %" PRIu64
                  " window releases %" PRIu64 " waits %" PRIu64 " cancels %" PRId64
                  " forks %" PRIu64 " copies %" PRIu64 " checkpoints %" PRIu64 " (hit %" PRIu64
                  " passed %" PRIu64 " cut %" PRIu64 " evicted %" PRIu64 ") deadlines %" PRId64
                  " scores %" PRId64 "\n",
                  name, r->steps, r->sched.rows, r->requests, r->tokens, r->sched.preemptions,
                  r->kv.evictions, r->kv.hits, r->kv.window_releases, r->sched.waits, r->cancelled,
                  r->sched.forks, r->kv.copies, r->kv.checkpoints, r->sched.checkpoint_hits,
                  r->kv.checkpoints_passed, r->kv.checkpoints_cut, r->kv.state_evictions,
                  r->expired, r->prompt_scores);
}

static void checkpoints_came_and_went(const sim_result *r)
{
    assert_true(r->kv.checkpoints >= 1000 && r->sched.checkpoint_hits >= 1000);
    assert_true(r->kv.checkpoints_passed >= 1000 && r->kv.checkpoints_cut >= 1000);
    assert_true(r->kv.state_evictions >= 1000);
}

static void run_all_shapes(void **state)
{
    (void)state;
    int64_t steps = env_number("CP_SIM_STEPS", 1000000);
    uint64_t seed = (uint64_t)env_number("CP_SIM_SEED", 1), releases = 0;
    int n = 0;
    while (sim_shape(n))
        n++;
    for (int i = 0; i < n; i++) {
        sim_config cfg = *sim_shape(i);
        sim_result r;
        cfg.seed = seed + (uint64_t)i;
        cfg.n_steps = steps / n + 1;
        sim_run(&cfg, &r);
        print(cfg.name, &r);
        releases += r.kv.window_releases;
        if (cfg.n_steps < 90000)
            continue;
        if (cfg.n_states > 0)
            checkpoints_came_and_went(&r);
        assert_true(r.sched.preemptions >= 1000);
        assert_true(r.kv.evictions >= 1000);
        assert_true(r.kv.hits >= 1000);
        assert_true(r.sched.waits >= 1000);
        assert_true(r.cancelled >= 1000);
        assert_true(r.sched.forks >= 1000);
        assert_true(r.kv.copies >= 1000);
        assert_int_equal(r.out_of_memory, 0);
    }
    assert_true(steps < 270000 || releases >= 1000);
}

/* All shapes with pending tokens and drafts, where the backend keeps the order of steps and where
 * it does not. */
static void steps_in_flight(void **state)
{
    (void)state;
    int64_t steps = env_number("CP_SIM_STEPS", 1000000);
    uint64_t seed = (uint64_t)env_number("CP_SIM_SEED", 1);
    int n = 0;
    while (sim_shape(n))
        n++;
    for (int i = 0; i < 2 * n; i++) {
        sim_config cfg = *sim_shape(i / 2);
        sim_result r;
        sim_overlap(&cfg, i % 2);
        if (i % 2)
            sim_many_states(&cfg);
        cfg.seed = seed + 100 + (uint64_t)i;
        cfg.n_steps = steps / (2 * n) + 1;
        sim_run(&cfg, &r);
        print(cfg.name, &r);
        print_message("%-10s %s pending %" PRIu64 " discarded %" PRIu64 " drafted %" PRIu64
                      " accepted %" PRIu64 " truncations %" PRIu64 " parked %" PRIu64 "\n",
                      "", cfg.in_order ? "in order" : "late", r.sched.pending, r.sched.discarded,
                      r.sched.drafted, r.sched.accepted, r.kv.truncations, r.kv.parked);
        assert_int_equal(r.out_of_memory, 0);
        if (cfg.n_steps < 100000)
            continue;
        assert_true(r.sched.pending >= 1000 && r.sched.discarded >= 1000);
        assert_true(r.sched.preemptions >= 1000 && r.kv.hits >= 1000 && r.cancelled >= 1000);
        assert_true(cfg.in_order || r.kv.parked >= 1000);
        if (cfg.n_states == 0) /* else nothing can be rolled back, and nothing is drafted */
            assert_true(r.sched.accepted >= 1000 && r.kv.truncations >= 1000);
    }
}

/* The kv-cache alone, two steps in flight: done in the order of sending at once, or later. */
static void pages_with_steps_in_flight(void **state)
{
    (void)state;
    int64_t steps = env_number("CP_SIM_STEPS", 1000000) / 30 + 1000;
    uint64_t seed = (uint64_t)env_number("CP_SIM_SEED", 1);
    for (int i = 0; sim_shape(i); i++) {
        for (int in_order = 0; in_order < 2; in_order++) {
            pages_result r;
            pages_run(sim_shape(i), in_order, seed, steps, &r);
            print_message(
                "%-10s %s steps %" PRId64 " truncations %" PRIu64 " parked %" PRIu64
                " hits %" PRId64 " forks %" PRId64 " copies %" PRIu64 " evictions %" PRIu64 "\n",
                sim_shape(i)->name, in_order ? "in order" : "late    ", steps, r.kv.truncations,
                r.kv.parked, r.hits, r.forks, r.kv.copies, r.kv.evictions);
            if (steps < 20000)
                continue;
            assert_true(r.hits >= 1000 && r.forks >= 1000 && r.kv.evictions >= 1000);
            assert_true(r.kv.truncations >= 1000 || sim_shape(i)->n_states > 0);
            assert_true(in_order || r.kv.parked >= 1000);
        }
    }
}

enum { N_MODES = 3 };

/* One step at a time; two in flight, done late; two in the backend's own order. */
static void set_mode(sim_config *cfg, int mode)
{
    if (mode > 0)
        sim_overlap(cfg, mode == 2);
}

/* Without the prefix cache nothing is hit, and everything still comes out right. */
static void no_prefix_cache(void **state)
{
    (void)state;
    for (int k = 0; sim_shape(k / N_MODES); k++) {
        sim_config cfg = *sim_shape(k / N_MODES);
        sim_result r;
        set_mode(&cfg, k % N_MODES);
        cfg.seed = 77;
        cfg.n_steps = 5000;
        cfg.prefix_cache = false;
        sim_run(&cfg, &r);
        assert_int_equal(r.kv.hits, 0);
        assert_int_equal(r.sched.waits, 0);
        assert_true(r.sched.preemptions > 0);
    }
}

/* Requests larger than the pool fail with out-of-memory, and only those. */
static void pool_too_small(void **state)
{
    (void)state;
    for (int k = 0; sim_shape(k / N_MODES); k++) {
        sim_config cfg = *sim_shape(k / N_MODES);
        sim_result r;
        set_mode(&cfg, k % N_MODES);
        cfg.seed = 5;
        cfg.n_steps = 20000;
        cfg.may_run_out = true;
        cfg.n_pages = sim_pages_for(&cfg, k / N_MODES == 1 ? 20 : 48);
        sim_run(&cfg, &r);
        print_message("%s: out of memory %" PRId64 ", finished %" PRId64 "\n", cfg.name,
                      r.out_of_memory, r.finished);
        assert_true(r.out_of_memory > 10);
        assert_true(r.finished > 100);
    }
}

/* 64 requests in a pool for barely one of them: none lost, the same tokens (the simulation compares
 * each with what it would be alone). */
static void tiny_pool_loses_nothing(void **state)
{
    (void)state;
    for (int k = 0; sim_shape(k / N_MODES); k++) {
        sim_config cfg = *sim_shape(k / N_MODES);
        sim_result r;
        set_mode(&cfg, k % N_MODES);
        cfg.seed = 9;
        cfg.n_steps = 1000000;
        cfg.n_requests = 64;
        cfg.max_tasks = 64;
        cfg.per_1000_cancel = cfg.per_1000_deadline = 0;
        cfg.max_choices = 1;
        cfg.n_pages = sim_pages_for(&cfg, cfg.ctx);
        sim_run(&cfg, &r);
        assert_int_equal(r.requests, 64);
        assert_int_equal(r.finished, 64);
        assert_true(r.sched.preemptions > 0);
    }
}

/* gemma-3-270m's groups at 4,096 tokens: a window group holds at most ceil((window + rows) / P) +
 * 2 pages, rows being those of a step (asserted in every step by the simulation). */
static void gemma_window_pages(void **state)
{
    (void)state;
    sim_config cfg = *sim_shape(1);
    sim_result r;
    for (int g = 1; g < cfg.n_groups; g++)
        cfg.groups[g].window = 512;
    cfg.P = 32;
    cfg.ctx = 4160;
    cfg.max_prompt = 4096;
    cfg.max_seqs = 4;
    cfg.max_tasks = 6;
    cfg.prefill_chunk = 128;
    cfg.max_batch_rows = 512;
    cfg.max_out = 64;
    cfg.n_pages = 700;
    cfg.n_requests = 12;
    cfg.n_steps = 1000000;
    cfg.seed = 3;
    cfg.per_1000_cancel = cfg.per_1000_deadline = 0;
    sim_run(&cfg, &r);
    print("gemma-3", &r);
    print_message("most pages of a window group: %u, allowed %d\n", r.max_window_pages,
                  (512 + 512 + 31) / 32 + 2);
    assert_in_range(r.max_window_pages, 17, (512 + 512 + 31) / 32 + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_all_shapes),
        cmocka_unit_test(steps_in_flight),
        cmocka_unit_test(pages_with_steps_in_flight),
        cmocka_unit_test(no_prefix_cache),
        cmocka_unit_test(pool_too_small),
        cmocka_unit_test(tiny_pool_loses_nothing),
        cmocka_unit_test(gemma_window_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
