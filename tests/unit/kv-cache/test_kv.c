/*
 * kv-cache, call by call: pages, hits in each kind of group, eviction order, forks, state slots.
 * The simulation (tests/sim) covers the combinations; cp_kv_check runs after every call here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kv-cache/kv.h"

#include <string.h>

enum { P = 4 };
static const cp_kv_group full = {.kind = CP_GROUP_FULL};
static const cp_kv_group window = {.kind = CP_GROUP_WINDOW, .window = 6};
static const cp_kv_group state_group = {.kind = CP_GROUP_STATE, .state_bytes = 64};

static cp_kv *open_deep(const cp_kv_group *groups, int n_groups, uint32_t pages, uint32_t states,
                        int depth)
{
    cp_kv *kv;
    cp_err err;
    cp_kv_config cfg = {.groups = groups,
                        .n_groups = n_groups,
                        .page_positions = P,
                        .n_pages = pages,
                        .n_state_slots = states,
                        .max_seqs = 4,
                        .max_positions = 64,
                        .depth = depth,
                        .prefix_cache = true};
    assert_int_equal(cp_kv_open(&kv, &cfg, &err), CP_OK);
    return kv;
}

static cp_kv *open_kv(const cp_kv_group *groups, int n_groups, uint32_t pages, uint32_t states)
{
    return open_deep(groups, n_groups, pages, states, 1);
}

static void tokens(int32_t *out, int n, int32_t first)
{
    for (int i = 0; i < n; i++)
        out[i] = first + i;
}

/* The planned step is sent, done and committed. */
static void over(cp_kv *kv, cp_kv_seq s, const int32_t *tok, int n)
{
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, s, n);
    cp_kv_step_done(kv);
    cp_kv_commit(kv, s, tok, n);
}

/* One step from done to n; the state's slots are asked for as the engine does. */
static bool step(cp_kv *kv, cp_kv_seq s, const int32_t *tok, int n)
{
    uint32_t in, out, save;
    if (!cp_kv_grow(kv, s, n))
        return false;
    cp_kv_checkpoint(kv, s, n, true);
    cp_kv_state(kv, s, &in, &out, &save);
    cp_kv_check(kv);
    over(kv, s, tok, n);
    cp_kv_check(kv);
    return true;
}

static cp_kv_stats stats(const cp_kv *kv)
{
    cp_kv_stats st;
    cp_kv_check(kv);
    cp_kv_stats_get(kv, &st);
    return st;
}

static uint32_t page(const cp_kv *kv, cp_kv_seq s, int group, int i)
{
    int n;
    const uint32_t *table = cp_kv_pages(kv, s, group, &n);
    assert_in_range(i, 0, n - 1);
    return table[i];
}

static void impossible_configurations_are_refused(void **state)
{
    (void)state;
    cp_kv *kv;
    cp_err err;
    cp_kv_group no_window = {.kind = CP_GROUP_WINDOW};
    cp_kv_config good = {.groups = &full,
                         .n_groups = 1,
                         .page_positions = P,
                         .n_pages = 2,
                         .max_seqs = 1,
                         .max_positions = 4};
    cp_kv_config bad[] = {good, good, good, good, good, good, good};
    bad[0].n_groups = 0;
    bad[1].page_positions = 3;
    bad[2].n_pages = 1;
    bad[3].max_seqs = 0;
    bad[4].groups = &no_window;
    bad[5].groups = &state_group; /* without state slots */
    bad[6].depth = CP_KV_MAX_DEPTH + 1;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(cp_kv_open(&kv, &bad[i], &err), CP_INVALID_VALUE);
}

static void pages_are_taken_and_given_back(void **state)
{
    (void)state;
    int32_t tok[64];
    tokens(tok, 64, 0);
    cp_kv *kv = open_kv(&full, 1, 9, 0);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_int_equal(cp_kv_need(kv, s, 10), 3);
    assert_true(step(kv, s, tok, 10));
    assert_int_equal(cp_kv_held(kv, s), 3);
    assert_int_equal(cp_kv_need(kv, s, 12), 0);
    assert_int_equal(cp_kv_need(kv, s, 13), 1);
    assert_false(cp_kv_grow(kv, s, 33)); /* 9 pages, and there are 8: nothing is taken */
    assert_int_equal(cp_kv_held(kv, s), 3);
    cp_kv_seq_close(kv, s);
    cp_kv_stats st = stats(kv);
    assert_int_equal(st.pages_cached, 2); /* the two full ones */
    assert_int_equal(st.pages_free, 6);
    assert_int_equal(st.pages_used, 0);
    cp_kv_close(kv);
}

static void sequences_run_out(void **state)
{
    (void)state;
    cp_kv *kv = open_kv(&full, 1, 9, 0);
    for (int i = 0; i < 4; i++)
        assert_true(cp_kv_seq_open(kv, NULL) >= 0);
    assert_int_equal(cp_kv_seq_open(kv, NULL), -1);
    assert_int_equal(cp_kv_fork(kv, 0), -1);
    cp_kv_close(kv);
}

static void a_prefix_is_hit_in_whole_pages(void **state)
{
    (void)state;
    int32_t tok[32], other[32];
    tokens(tok, 32, 100);
    cp_kv *kv = open_kv(&full, 1, 17, 0);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, a, tok, 11));
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 8);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 7), 4); /* max_hit */
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 3, 31), 0);
    memcpy(other, tok, sizeof(tok));
    other[5] = 1; /* the second page differs */
    cp_kv_seq b = cp_kv_seq_open(kv, NULL);
    assert_int_equal(cp_kv_match(kv, b, other, 32, 31), 4);
    assert_int_equal(page(kv, b, 0, 0), page(kv, a, 0, 0));
    assert_true(step(kv, b, other, 9));
    assert_int_not_equal(page(kv, b, 0, 1), page(kv, a, 0, 1));
    uint8_t salt[32] = {1};
    assert_int_equal(cp_kv_peek(kv, salt, tok, 32, 31), 0); /* another tenant */
    assert_int_equal(stats(kv).hits, 1);
    assert_int_equal(stats(kv).hit_positions, 4);
    cp_kv_close(kv);
}

static void a_window_group_needs_only_its_window(void **state)
{
    (void)state;
    int32_t tok[64];
    tokens(tok, 64, 0);
    cp_kv *kv = open_kv(&window, 1, 9, 0); /* window 6: two or three pages at a time */
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    for (int n = 4; n <= 24; n += 4)
        assert_true(step(kv, s, tok, n));
    /* position 24 sees 19..24: entries of 0..15 are null */
    for (int i = 0; i < 4; i++)
        assert_int_equal(page(kv, s, 0, i), 0);
    assert_int_not_equal(page(kv, s, 0, 4), 0);
    assert_int_equal(cp_kv_held(kv, s), 2);
    assert_int_equal(stats(kv).window_releases, 4);
    cp_kv_seq_close(kv, s);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 64, 63), 24);
    /* four new pages: two free ones, then the oldest cached, those of positions 0..7 */
    int32_t others[16];
    tokens(others, 16, 500);
    cp_kv_seq t = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, t, others, 16));
    assert_int_equal(stats(kv).evictions, 2);
    /* the beginning is gone, and yet the end can be hit: only its window is needed */
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 11, 11), 0);
    cp_kv_seq u = cp_kv_seq_open(kv, NULL);
    assert_int_equal(cp_kv_match(kv, u, tok, 64, 63), 24);
    assert_int_equal(page(kv, u, 0, 3), 0);
    cp_kv_check(kv);
    cp_kv_close(kv);
}

static void a_hit_must_be_valid_in_every_group(void **state)
{
    (void)state;
    int32_t tok[64];
    tokens(tok, 64, 0);
    cp_kv_group groups[2] = {full, window};
    cp_kv *kv = open_kv(groups, 2, 15, 0);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    for (int n = 4; n <= 24; n += 4)
        assert_true(step(kv, s, tok, n));
    cp_kv_seq_close(kv, s); /* 12 pages cached; oldest: the window group's first four */
    int32_t others[12];
    tokens(others, 12, 500);
    cp_kv_seq t = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, t, others, 12)); /* 6 pages: two free, four evicted */
    assert_int_equal(stats(kv).evictions, 4);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 64, 63), 24);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 64, 23), 0); /* 20 would need page 3 of the window */
    cp_kv_close(kv);
}

static void the_end_of_a_prefix_is_evicted_before_its_beginning(void **state)
{
    (void)state;
    int32_t tok[32], others[32];
    tokens(tok, 32, 0);
    tokens(others, 32, 500);
    cp_kv *kv = open_kv(&full, 1, 9, 0);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, s, tok, 32)); /* all 8 pages */
    cp_kv_seq_close(kv, s);
    cp_kv_seq t = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, t, others, 12));
    assert_int_equal(stats(kv).evictions, 3);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 32), 20);
    cp_kv_close(kv);
}

static void held_pages_are_never_evicted(void **state)
{
    (void)state;
    int32_t tok[32], others[32];
    tokens(tok, 32, 0);
    tokens(others, 32, 500);
    cp_kv *kv = open_kv(&full, 1, 9, 0);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, s, tok, 20));
    cp_kv_seq t = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, t, others, 12));
    assert_int_equal(cp_kv_available(kv), 0);
    assert_false(cp_kv_grow(kv, t, 13));
    assert_int_equal(stats(kv).evictions, 0);
    cp_kv_close(kv);
}

static void the_first_writer_after_a_fork_copies(void **state)
{
    (void)state;
    int32_t tok[32];
    int n;
    tokens(tok, 32, 0);
    cp_kv *kv = open_kv(&full, 1, 17, 0);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, a, tok, 6));
    cp_kv_seq b = cp_kv_fork(kv, a);
    assert_int_equal(cp_kv_done(kv, b), 6);
    assert_int_equal(stats(kv).pages_used, 2);
    uint32_t shared = page(kv, a, 0, 1);
    assert_int_equal(cp_kv_need(kv, a, 7), 1);
    assert_true(cp_kv_grow(kv, a, 7));
    const cp_page_copy *copies = cp_kv_copies(kv, &n);
    assert_int_equal(n, 1);
    assert_int_equal(copies[0].src, shared);
    assert_int_equal(copies[0].dst, page(kv, a, 0, 1));
    assert_int_equal(cp_kv_need(kv, b, 7), 0); /* b is alone with it now */
    assert_true(cp_kv_grow(kv, b, 7));
    assert_int_equal(page(kv, b, 0, 1), shared);
    cp_kv_copies(kv, &n);
    assert_int_equal(n, 1);
    cp_kv_check(kv);
    cp_kv_seq_close(kv, b); /* the copy's source is still needed */
    assert_int_equal(stats(kv).pages_used, 3);
    cp_kv_seq_close(kv, a); /* and now nobody wants the copy */
    cp_kv_copies(kv, &n);
    assert_int_equal(n, 0);
    assert_int_equal(stats(kv).pages_used, 0);
    cp_kv_close(kv);
}

static void partly_written_pages_are_named_fresh(void **state)
{
    (void)state;
    int32_t tok[32];
    uint32_t n;
    tokens(tok, 32, 0);
    cp_kv *kv = open_kv(&full, 1, 17, 0);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(cp_kv_grow(kv, s, 10));
    const uint32_t *fresh = cp_kv_fresh(kv, &n);
    assert_int_equal(n, 1); /* the first two are written whole */
    assert_int_equal(fresh[0], page(kv, s, 0, 2));
    cp_kv_step_sent(kv);
    cp_kv_fresh(kv, &n);
    assert_int_equal(n, 0);
    cp_kv_close(kv);
}

static void a_state_is_hit_only_at_a_checkpoint(void **state)
{
    (void)state;
    int32_t tok[32];
    uint32_t in, out, save;
    tokens(tok, 32, 0);
    cp_kv_group groups[2] = {full, state_group};
    cp_kv *kv = open_kv(groups, 2, 17, 7);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(cp_kv_grow(kv, s, 4));
    cp_kv_state(kv, s, &in, &out, &save);
    assert_int_equal(in, 0);
    assert_int_not_equal(out, 0);
    assert_int_equal(save, 0);
    over(kv, s, tok, 4);
    assert_true(step(kv, s, tok, 8)); /* wants a checkpoint at 8 */
    assert_true(step(kv, s, tok, 10));
    assert_int_equal(stats(kv).checkpoints, 1);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 8);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 7), 0); /* none at 4 */
    cp_kv_seq t = cp_kv_seq_open(kv, NULL);
    assert_int_equal(cp_kv_match(kv, t, tok, 32, 31), 8);
    assert_true(cp_kv_grow(kv, t, 9));
    cp_kv_state(kv, t, &in, &out, &save);
    assert_int_not_equal(in, out); /* a checkpoint is read, not written */
    cp_kv_check(kv);
    cp_kv_close(kv);
}

/* A step of s to n that leaves a passing checkpoint. */
static void pass(cp_kv *kv, cp_kv_seq s, const int32_t *tok, int n)
{
    assert_true(cp_kv_grow(kv, s, n));
    assert_true(cp_kv_checkpoint(kv, s, n, false));
    over(kv, s, tok, n);
    cp_kv_check(kv);
}

static void a_passing_checkpoint_goes_with_the_next(void **state)
{
    (void)state;
    int32_t tok[32];
    tokens(tok, 32, 0);
    cp_kv_group groups[2] = {full, state_group};
    cp_kv *kv = open_kv(groups, 2, 17, 7);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, s, tok, 4)); /* lasts */
    pass(kv, s, tok, 8);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 8);
    pass(kv, s, tok, 12);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 12);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 11), 4);
    assert_true(step(kv, s, tok, 16)); /* one that lasts takes its place, too */
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 15), 4);
    assert_int_equal(stats(kv).checkpoints_held, 2);
    assert_int_equal(stats(kv).checkpoints_passed, 2);
    pass(kv, s, tok, 20);
    cp_kv_seq_close(kv, s); /* what is the last then stays */
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 20);
    assert_int_equal(stats(kv).states_cached, 3);
    s = cp_kv_seq_open(kv, NULL);
    assert_int_equal(cp_kv_match(kv, s, tok, 32, 31), 20);
    pass(kv, s, tok, 24);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 23), 20);
    cp_kv_close(kv);
}

/* Of two that pass the same border, or where somebody goes on from it, nobody takes it away. */
static void a_passing_checkpoint_that_others_know_lasts(void **state)
{
    (void)state;
    int32_t tok[32];
    tokens(tok, 32, 0);
    cp_kv_group groups[2] = {full, state_group};
    cp_kv *kv = open_kv(groups, 2, 33, 12);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL), b = cp_kv_seq_open(kv, NULL);
    pass(kv, a, tok, 4);
    pass(kv, b, tok, 4);
    assert_int_equal(stats(kv).checkpoints_held, 1);
    pass(kv, a, tok, 8);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 7), 4);
    cp_kv_seq c = cp_kv_seq_open(kv, NULL);
    assert_int_equal(cp_kv_match(kv, c, tok, 32, 31), 8);
    pass(kv, a, tok, 12);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 11), 8);
    assert_int_equal(stats(kv).checkpoints_passed, 0);
    cp_kv_close(kv);
}

/* Pages and slots are evicted apart; a checkpoint behind a page that is gone is of no use. */
static void a_checkpoint_goes_with_its_page(void **state)
{
    (void)state;
    int32_t tok[32], other[32];
    tokens(tok, 32, 0);
    tokens(other, 32, 100);
    cp_kv_group groups[2] = {full, state_group};
    cp_kv *kv = open_kv(groups, 2, 7, 7); /* 6 pages */
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, s, tok, 4));
    assert_true(step(kv, s, tok, 8));
    cp_kv_seq_close(kv, s);
    assert_int_equal(stats(kv).states_cached, 2);
    s = cp_kv_seq_open(kv, NULL);
    assert_true(cp_kv_grow(kv, s, 20)); /* 5 pages: the page of 4..7 goes */
    assert_int_equal(stats(kv).checkpoints_cut, 1);
    assert_int_equal(stats(kv).states_cached, 1);
    assert_int_equal(stats(kv).state_evictions, 0);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 4);
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, s, 20);
    cp_kv_step_done(kv);
    cp_kv_commit(kv, s, other, 20);
    assert_int_equal(stats(kv).checkpoints_held, 1);
    cp_kv_close(kv);
}

static void a_fork_shares_its_state_until_it_steps(void **state)
{
    (void)state;
    int32_t tok[32];
    uint32_t in_a, in_b, out_a, out_b, save;
    tokens(tok, 32, 0);
    cp_kv *kv = open_kv(&state_group, 1, 0, 5);
    assert_int_equal(cp_kv_available(kv), 0); /* no pages at all */
    cp_kv_seq a = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, a, tok, 5));
    cp_kv_seq b = cp_kv_fork(kv, a);
    assert_true(cp_kv_grow(kv, a, 6) && cp_kv_grow(kv, b, 6));
    cp_kv_state(kv, a, &in_a, &out_a, &save);
    cp_kv_state(kv, b, &in_b, &out_b, &save);
    assert_int_equal(in_a, in_b);
    assert_int_not_equal(out_a, out_b);
    assert_int_not_equal(out_a, in_a);
    assert_int_not_equal(out_b, in_b);
    cp_kv_check(kv);
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, a, 6);
    cp_kv_advance(kv, b, 6);
    cp_kv_step_done(kv);
    cp_kv_commit(kv, a, tok, 6);
    cp_kv_commit(kv, b, tok, 6);
    assert_int_equal(stats(kv).states_used, 2);
    cp_kv_close(kv);
}

static void the_bound_on_pages_holds(void **state)
{
    (void)state;
    int32_t tok[64];
    tokens(tok, 64, 0);
    cp_kv_group groups[2] = {full, window};
    for (int chunk = 1; chunk <= 9; chunk++) {
        cp_kv *kv = open_kv(groups, 2, 65, 0);
        cp_kv_seq s = cp_kv_seq_open(kv, NULL);
        for (int n = 0; n < 60;) {
            n = n + chunk < 60 ? n + chunk : 60;
            assert_true(cp_kv_grow(kv, s, n));
            assert_true(cp_kv_held(kv, s) <= cp_kv_most(kv, n, chunk));
            over(kv, s, tok, n);
        }
        cp_kv_close(kv);
    }
    cp_kv_config cfg = {.groups = groups, .n_groups = 2, .page_positions = P};
    assert_int_equal(cp_kv_pages_for(&cfg, 8, 4), 4);
    assert_int_equal(cp_kv_pages_for(&cfg, 40, 4), 10 + 4);
    cfg.depth = 2; /* two chunks beyond the window */
    assert_int_equal(cp_kv_pages_for(&cfg, 40, 4), 10 + 5);
}

static void without_prefix_cache_nothing_is_kept(void **state)
{
    (void)state;
    int32_t tok[16];
    cp_kv *kv;
    cp_err err;
    tokens(tok, 16, 0);
    cp_kv_config cfg = {.groups = &full,
                        .n_groups = 1,
                        .page_positions = P,
                        .n_pages = 9,
                        .max_seqs = 2,
                        .max_positions = 16};
    assert_int_equal(cp_kv_open(&kv, &cfg, &err), CP_OK);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, s, tok, 16));
    cp_kv_seq_close(kv, s);
    assert_int_equal(stats(kv).pages_free, 8);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 16, 16), 0);
    cp_kv_close(kv);
}

static void shared_units_are_freed_by_their_last_holder(void **state)
{
    (void)state;
    cp_kv_group groups[3] = {full, window, state_group};
    cp_kv *kv = open_kv(groups, 3, 30, 9);
    int32_t tok[24];
    uint32_t pages, states;
    tokens(tok, 24, 100);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, a, tok, 18));
    cp_kv_seq b = cp_kv_fork(kv, a), both[2] = {a, b};
    cp_kv_freed_by(kv, both, 1, &pages, &states);
    assert_int_equal(pages, 0);
    assert_int_equal(states, 0);
    cp_kv_freed_by(kv, both, 2, &pages, &states);
    assert_int_equal(pages, cp_kv_held(kv, a));
    assert_int_equal(states, 1);
    assert_true(
        step(kv, b, tok, 22)); /* its own copy of the last page, and one more; a group each */
    cp_kv_freed_by(kv, both + 1, 1, &pages, &states);
    assert_int_equal(pages, 4);
    assert_int_equal(states, 1);
    uint32_t before = cp_kv_available(kv), slots = cp_kv_states_available(kv);
    cp_kv_freed_by(kv, both, 2, &pages, &states);
    cp_kv_seq_close(kv, a);
    cp_kv_seq_close(kv, b);
    assert_int_equal(cp_kv_available(kv) - before, pages);
    assert_int_equal(cp_kv_states_available(kv) - slots, states);
    cp_kv_close(kv);
}

/* What a backend copies lies in one piece: sequence by sequence, paged group by paged group. */
static void tables_are_one_slab(void **state)
{
    (void)state;
    cp_kv_group groups[3] = {full, state_group, window};
    cp_kv *kv = open_kv(groups, 3, 33, 9);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL), b = cp_kv_seq_open(kv, NULL);
    const uint32_t *const *ta = cp_kv_tables(kv, a), *const *tb = cp_kv_tables(kv, b);
    assert_null(ta[1]); /* STATE */
    assert_ptr_equal(ta[2], ta[0] + 64 / P);
    assert_ptr_equal(tb[0], ta[2] + 64 / P);
    assert_ptr_equal(tb[2], tb[0] + 64 / P);
    cp_kv_close(kv);
}

/* ---- truncation ---- */

/* The step that computes up to n is planned, sent and done; nothing of it is committed. */
static void draft(cp_kv *kv, cp_kv_seq s, int n)
{
    assert_true(cp_kv_grow(kv, s, n));
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, s, n);
    cp_kv_step_done(kv);
    cp_kv_check(kv);
}

static void drafts_are_rolled_back_and_their_pages_go(void **state)
{
    (void)state;
    int32_t tok[32];
    tokens(tok, 32, 0);
    cp_kv *kv = open_kv(&full, 1, 17, 0);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, s, tok, 6));
    draft(kv, s, 15);
    assert_int_equal(cp_kv_done(kv, s), 15);
    assert_int_equal(cp_kv_firm(kv, s), 6);
    assert_int_equal(cp_kv_held(kv, s), 4);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 4); /* drafts are in no index */
    assert_true(cp_kv_truncate(kv, s, 9));
    assert_int_equal(cp_kv_done(kv, s), 9);
    assert_int_equal(cp_kv_held(kv, s), 3);
    cp_kv_commit(kv, s, tok, 9);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 8);
    assert_true(cp_kv_truncate(kv, s, 9)); /* nothing to do */
    assert_int_equal(stats(kv).truncations, 1);
    assert_int_equal(stats(kv).pages_free, 13);
    assert_true(step(kv, s, tok, 12)); /* and on, in the page that holds what was cut off */
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 12);
    cp_kv_seq_close(kv, s);
    assert_int_equal(stats(kv).pages_cached, 3);
    cp_kv_close(kv);
}

/* A page that is in the index, or shared as one that was committed, is never written again. */
static void what_was_committed_is_not_truncated(void **state)
{
    (void)state;
    int32_t tok[32];
    tokens(tok, 32, 0);
    cp_kv *kv = open_kv(&full, 1, 17, 0);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, s, tok, 10));
    assert_false(cp_kv_truncate(kv, s, 9));
    assert_false(cp_kv_truncate(kv, s, 0));
    assert_int_equal(cp_kv_done(kv, s), 10);
    assert_int_equal(cp_kv_held(kv, s), 3);
    cp_kv_seq t = cp_kv_seq_open(kv, NULL); /* a hit is committed, too */
    assert_int_equal(cp_kv_match(kv, t, tok, 32, 31), 8);
    assert_false(cp_kv_truncate(kv, t, 7));
    assert_int_equal(stats(kv).truncations, 0);
    cp_kv_close(kv);
}

/* Drafts that run a window ahead keep what the rows before them see. */
static void a_window_reaches_back_from_what_is_committed(void **state)
{
    (void)state;
    int32_t tok[32];
    tokens(tok, 32, 0);
    cp_kv *kv = open_kv(&window, 1, 17, 0); /* window 6 */
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, s, tok, 9)); /* position 9 sees 4..9: block 0 is let go */
    assert_int_equal(page(kv, s, 0, 0), 0);
    draft(kv, s, 20); /* position 20 would see 15..20 */
    cp_kv_commit(kv, s, tok, 9);
    assert_int_not_equal(page(kv, s, 0, 1), 0);
    assert_true(cp_kv_truncate(kv, s, 9));
    assert_int_not_equal(page(kv, s, 0, 1), 0);
    assert_int_equal(cp_kv_held(kv, s), 2);
    draft(kv, s, 20);
    cp_kv_commit(kv, s, tok, 20); /* all of them are right */
    assert_int_equal(page(kv, s, 0, 2), 0);
    assert_false(cp_kv_truncate(kv, s, 19));
    cp_kv_check(kv);
    cp_kv_close(kv);
}

/* A fork in the middle of a page: whoever is rolled back there copies it before it writes. */
static void a_shared_page_is_copied_after_a_truncation(void **state)
{
    (void)state;
    int32_t tok[32];
    int n;
    tokens(tok, 32, 0);
    cp_kv *kv = open_kv(&full, 1, 17, 0);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, a, tok, 5));
    draft(kv, a, 11);
    cp_kv_seq b = cp_kv_fork(kv, a);
    assert_int_equal(cp_kv_firm(kv, b), 5);
    assert_true(cp_kv_truncate(kv, a, 6));
    assert_int_equal(cp_kv_held(kv, a), 2);
    assert_int_equal(cp_kv_held(kv, b), 3); /* b keeps what it shares */
    assert_int_equal(stats(kv).pages_used, 3);
    assert_int_equal(cp_kv_need(kv, a, 7), 1);
    assert_true(cp_kv_grow(kv, a, 7));
    cp_kv_copies(kv, &n);
    assert_int_equal(n, 1);
    assert_int_not_equal(page(kv, a, 0, 1), page(kv, b, 0, 1));
    cp_kv_check(kv);
    over(kv, a, tok, 7);
    cp_kv_commit(kv, b, tok, 11);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 8);
    cp_kv_check(kv);
    cp_kv_close(kv);
}

/* b shares drafts with a, which commits them and goes: the page is b's alone, and yet in the index.
 */
static void an_indexed_page_is_copied_after_a_truncation(void **state)
{
    (void)state;
    int32_t tok[32];
    int n;
    tokens(tok, 32, 0);
    cp_kv *kv = open_kv(&full, 1, 17, 0);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, a, tok, 5));
    draft(kv, a, 8);
    cp_kv_seq b = cp_kv_fork(kv, a);
    cp_kv_commit(kv, a, tok, 8);
    cp_kv_seq_close(kv, a);
    assert_true(cp_kv_truncate(kv, b, 6));
    assert_true(cp_kv_grow(kv, b, 7));
    cp_kv_copies(kv, &n);
    assert_int_equal(n, 1);
    cp_kv_check(kv);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 8);
    cp_kv_close(kv);
}

/* A recurrent state has only one position: the last. */
static void a_state_is_not_rolled_back(void **state)
{
    (void)state;
    int32_t tok[32];
    tokens(tok, 32, 0);
    cp_kv_group groups[2] = {full, state_group};
    cp_kv *kv = open_kv(groups, 2, 17, 7);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, s, tok, 5));
    draft(kv, s, 8);
    assert_false(cp_kv_truncate(kv, s, 6));
    assert_int_equal(cp_kv_done(kv, s), 8);
    assert_true(cp_kv_truncate(kv, s, 8));
    cp_kv_check(kv);
    cp_kv_close(kv);
}

/* ---- steps in flight ---- */

static void units_of_a_step_in_flight_are_parked(void **state)
{
    (void)state;
    int32_t tok[32], others[32];
    tokens(tok, 32, 0);
    tokens(others, 32, 500);
    cp_kv_group groups[2] = {full, state_group};
    cp_kv *kv = open_deep(groups, 2, 9, 9, 2);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, a, tok, 12));
    assert_true(cp_kv_grow(kv, a, 18));
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, a, 18);
    cp_kv_seq_close(kv, a); /* the step still touches its five pages and its slot */
    assert_int_equal(cp_kv_parked(kv), 5);
    assert_int_equal(cp_kv_states_parked(kv), 1);
    assert_int_equal(cp_kv_available(kv), 3);
    assert_int_equal(stats(kv).pages_used, 5);
    cp_kv_seq b = cp_kv_seq_open(kv, NULL);
    assert_false(cp_kv_grow(kv, b, 13));
    assert_true(cp_kv_grow(kv, b, 12));
    cp_kv_step_sent(kv); /* the second one in flight */
    cp_kv_advance(kv, b, 12);
    cp_kv_seq_close(kv, b);
    assert_int_equal(cp_kv_parked(kv), 8);
    cp_kv_step_done(kv);
    assert_int_equal(cp_kv_parked(kv), 3);
    assert_int_equal(cp_kv_available(kv), 5);
    cp_kv_step_done(kv);
    assert_int_equal(cp_kv_parked(kv), 0);
    assert_int_equal(cp_kv_states_parked(kv), 0);
    cp_kv_stats st = stats(kv);
    assert_int_equal(st.pages_used, 0);
    assert_int_equal(st.states_used, 0);
    assert_int_equal(st.pages_cached, 3); /* of 12 positions */
    cp_kv_close(kv);
}

/* Parked pages that are in the index can be hit meanwhile, and are parked anew when let go. */
static void parked_pages_can_be_hit(void **state)
{
    (void)state;
    int32_t tok[32];
    tokens(tok, 32, 0);
    cp_kv *kv = open_deep(&full, 1, 9, 0, 2);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, a, tok, 9));
    assert_true(cp_kv_grow(kv, a, 10));
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, a, 10);
    cp_kv_seq_close(kv, a);
    assert_int_equal(cp_kv_parked(kv), 3);
    cp_kv_seq b = cp_kv_seq_open(kv, NULL);
    assert_int_equal(cp_kv_match(kv, b, tok, 32, 31), 8);
    assert_int_equal(cp_kv_parked(kv), 1);
    cp_kv_check(kv);
    cp_kv_seq_close(kv, b); /* twice under the same step */
    assert_int_equal(cp_kv_parked(kv), 3);
    b = cp_kv_seq_open(kv, NULL);
    assert_int_equal(cp_kv_match(kv, b, tok, 32, 31), 8);
    assert_true(cp_kv_grow(kv, b, 9));
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, b, 9);
    cp_kv_seq_close(kv, b);
    cp_kv_check(kv);
    cp_kv_step_done(kv); /* the second step still reads them */
    assert_int_equal(cp_kv_parked(kv), 3);
    cp_kv_step_done(kv);
    assert_int_equal(stats(kv).pages_cached, 2);
    assert_int_equal(stats(kv).pages_free, 6);
    cp_kv_close(kv);
}

/* Where a backend keeps the order of steps, what is let go goes back at once. */
static void a_step_in_order_is_done_when_sent(void **state)
{
    (void)state;
    int32_t tok[32];
    tokens(tok, 32, 0);
    cp_kv *kv = open_deep(&full, 1, 9, 0, 2);
    cp_kv_seq a = cp_kv_seq_open(kv, NULL);
    assert_true(step(kv, a, tok, 6));
    cp_kv_seq b = cp_kv_fork(kv, a);
    assert_true(cp_kv_grow(kv, a, 7)); /* a copy, whose source b lets go */
    cp_kv_seq_close(kv, b);
    assert_int_equal(stats(kv).pages_used,
                     3); /* the source is pinned, the step not in flight yet */
    assert_int_equal(cp_kv_parked(kv), 0);
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, a, 7);
    assert_int_equal(cp_kv_parked(kv), 1);
    cp_kv_step_done(kv);
    assert_int_equal(cp_kv_parked(kv), 0);
    cp_kv_seq_close(kv, a);
    assert_int_equal(stats(kv).pages_used, 0);
    assert_int_equal(stats(kv).parked, 0);
    cp_kv_close(kv);
}

/* Two steps in flight, each with a checkpoint: each is published by its own commit. */
static void checkpoints_of_steps_in_flight_wait_for_their_commit(void **state)
{
    (void)state;
    int32_t tok[32];
    uint32_t in, out, first, second;
    tokens(tok, 32, 0);
    cp_kv_group groups[2] = {full, state_group};
    cp_kv *kv = open_deep(groups, 2, 17, 9, 2);
    cp_kv_seq s = cp_kv_seq_open(kv, NULL);
    assert_true(cp_kv_grow(kv, s, 4));
    assert_true(cp_kv_checkpoint(kv, s, 4, true));
    cp_kv_state(kv, s, &in, &out, &first);
    assert_int_not_equal(first, 0);
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, s, 4);
    assert_true(cp_kv_grow(kv, s, 8));
    assert_true(cp_kv_checkpoint(kv, s, 8, true));
    cp_kv_state(kv, s, &in, &out, &second);
    assert_int_equal(in, out); /* the state that the first step writes, in place */
    assert_int_not_equal(second, 0);
    assert_int_not_equal(second, first);
    cp_kv_step_sent(kv);
    cp_kv_advance(kv, s, 8);
    cp_kv_check(kv);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 0);
    cp_kv_step_done(kv);
    cp_kv_commit(kv, s, tok, 4);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 4);
    cp_kv_step_done(kv);
    cp_kv_commit(kv, s, tok, 8);
    assert_int_equal(cp_kv_peek(kv, NULL, tok, 32, 31), 8);
    assert_int_equal(stats(kv).checkpoints, 2);
    cp_kv_seq_close(kv, s);
    assert_int_equal(stats(kv).states_used, 0);
    cp_kv_close(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_one_slab),
        cmocka_unit_test(impossible_configurations_are_refused),
        cmocka_unit_test(pages_are_taken_and_given_back),
        cmocka_unit_test(sequences_run_out),
        cmocka_unit_test(a_prefix_is_hit_in_whole_pages),
        cmocka_unit_test(a_window_group_needs_only_its_window),
        cmocka_unit_test(a_hit_must_be_valid_in_every_group),
        cmocka_unit_test(the_end_of_a_prefix_is_evicted_before_its_beginning),
        cmocka_unit_test(held_pages_are_never_evicted),
        cmocka_unit_test(the_first_writer_after_a_fork_copies),
        cmocka_unit_test(partly_written_pages_are_named_fresh),
        cmocka_unit_test(a_state_is_hit_only_at_a_checkpoint),
        cmocka_unit_test(a_passing_checkpoint_goes_with_the_next),
        cmocka_unit_test(a_passing_checkpoint_that_others_know_lasts),
        cmocka_unit_test(a_checkpoint_goes_with_its_page),
        cmocka_unit_test(a_fork_shares_its_state_until_it_steps),
        cmocka_unit_test(shared_units_are_freed_by_their_last_holder),
        cmocka_unit_test(the_bound_on_pages_holds),
        cmocka_unit_test(without_prefix_cache_nothing_is_kept),
        cmocka_unit_test(drafts_are_rolled_back_and_their_pages_go),
        cmocka_unit_test(what_was_committed_is_not_truncated),
        cmocka_unit_test(a_window_reaches_back_from_what_is_committed),
        cmocka_unit_test(a_shared_page_is_copied_after_a_truncation),
        cmocka_unit_test(an_indexed_page_is_copied_after_a_truncation),
        cmocka_unit_test(a_state_is_not_rolled_back),
        cmocka_unit_test(units_of_a_step_in_flight_are_parked),
        cmocka_unit_test(parked_pages_can_be_hit),
        cmocka_unit_test(a_step_in_order_is_done_when_sent),
        cmocka_unit_test(checkpoints_of_steps_in_flight_wait_for_their_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
