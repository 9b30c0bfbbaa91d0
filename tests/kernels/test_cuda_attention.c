/*
 * test_cuda_attention: ATTENTION in the form that a GPU uses by default, by mma. Close to ref, with
 * ref's bits where scores tie or are far apart, and the bits of a row are its own: alone, in any
 * chunk of its sequence and beside any other sequence it has the same. The exact form has ref's
 * bits with wide heads, too (with small ones: test_ops).
 */
#include "tests/kernels/attention.h"

#include "base/mem.h"
#include "kernels/math.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- close to ref ---- */

/* Mean squared error of a row of b by the mean square of a's: the largest of all rows. */
static double error_of(const machine *a, const machine *b, cp_mat s, int rows)
{
    double worst = 0;
    for (int r = 0; r < rows; r++) {
        float *x = machine_row(a, s, r), *y = machine_row(b, s, r);
        double error = 0, all = 0;
        for (int i = 0; i < a->p->prog->mats[s].width; i++) {
            double e = (double)x[i] - (double)y[i];
            error += e * e;
            all += (double)x[i] * (double)x[i];
        }
        worst = error / all <= worst ? worst : error / all;
        free(x);
        free(y);
    }
    return worst;
}

/* What a machine needs beside random inputs. */
typedef void put_inputs(const attention_case *c, machine *m);

/* A step of both. */
static void step_both(const attention_case *c, uint64_t seed, put_inputs *put, machine *ref,
                      machine *m)
{
    machine *both[] = {ref, m};
    for (int i = 0; i < 2; i++) {
        machine_fill(both[i], seed);
        attention_case_spoil(c, both[i]);
        if (put)
            put(c, both[i]);
        machine_step(both[i], &c->b.b);
    }
}

/* An error of at most so much, and the same pages. */
static void check_near(attention_case *c, uint64_t seed, put_inputs *put, double most)
{
    machine ref = machine_open(&c->r, NULL, 1), m = machine_open_on(&c->r, "cuda", NULL, 1);
    step_both(c, seed, put, &ref, &m);
    for (int i = 0; c->outs[i] >= 0; i++) {
        bool out = c->r.mats[c->outs[i]].rows == CP_ROWS_OUT;
        double e = error_of(&ref, &m, c->outs[i], out ? c->b.b.n_out : c->b.b.n_rows);
        if (!(e <= most))
            fail_msg("seed %d, heads %d and %d wide: NMSE %g", (int)seed, c->op->u.attention.k_dim,
                     c->op->u.attention.v_dim, e);
    }
    machines_equal_memory(&ref, &m, "pages");
    machine_close(&m);
    machine_close(&ref);
}

static const attention_shape shapes[] = {
    {4, 2, 64, 64, 0},    {1, 3, 128, 128, 0},  {8, 1, 128, 128, 700}, {3, 1, 96, 96, 0},
    {2, 1, 256, 256, 0},  {4, 1, 192, 128, 16}, {30, 1, 64, 64, 512},  {2, 2, 80, 80, 0},
    {2, 1, 72, 20, 100},  {5, 1, 512, 512, 0},  {16, 1, 44, 36, 0},    {3, 1, 48, 48, 0},
    {2, 1, 112, 112, 33},
};
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

/* Scores of all records, times by. */
static void sharpen(attention_case *c, float by)
{
    for (int i = 0; i < c->r.prog.n_ops; i++)
        c->r.ops[i].u.attention.scale *= by;
}

static void close_to_ref(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4 * SHAPES; seed++) {
        attention_case c;
        attention_case_shaped(&c, seed, &shapes[seed % SHAPES]);
        if (c.op->u.attention.softcap == 0.0f) /* where the lower halves of queries weigh */
            sharpen(&c, seed % 4 ? 40.0f : 1.0f);
        check_near(&c, seed, NULL, 1e-5);
        attention_case_fini(&c);
    }
    for (uint64_t seed = 0; seed < 10; seed++) { /* widths that only the exact form takes, too */
        attention_case c;
        attention_case_random(&c, seed);
        check_near(&c, seed, NULL, 1e-5);
        attention_case_fini(&c);
    }
}

/* The widest heads that the mma form takes, and any: both within the shared memory of the smallest
 * device. */
static void the_widest_heads(void **state)
{
    (void)state;
    static const attention_shape widest[] = {{1, 1, 640, 640, 0}, {2, 1, 1024, 1024, 0}};
    for (uint64_t seed = 0; seed < 2; seed++) {
        attention_case c;
        attention_case_shaped(&c, seed, &widest[seed]);
        check_near(&c, seed, NULL, 1e-5);
        attention_case_fini(&c);
    }
}

/* Sinks of some size, or so far above all scores, which are 0, that these just weigh. */
static void put_sinks(attention_case *c, float by, bool far)
{
    int n = c->op->u.attention.n_heads;
    c->op->u.attention.sinks = rig_vector(&c->r, n, 1);
    float *sinks = (float *)(uintptr_t)c->r.tensors[c->op->u.attention.sinks].data;
    for (int i = 0; i < n; i++)
        sinks[i] = far ? -CP_EXP_MIN : by * sinks[i];
    if (far)
        sharpen(c, 0.0f);
}

/* Sinks above all scores. */
static void raise_sinks(attention_case *c, bool far)
{
    put_sinks(c, 6.0f, far);
}

/* Gates at which a sigmoid changes its way, in all rows. */
static void odd_gates(const attention_case *c, machine *m)
{
    int k_dim = c->op->u.attention.k_dim, v_dim = c->op->u.attention.v_dim;
    for (int r = 0; c->op->u.attention.gated && r < c->b.b.n_rows; r++) {
        float *x = machine_row(m, c->op->u.attention.q, r);
        for (int i = 0; i < c->op->u.attention.n_heads * v_dim; i++)
            x[i / v_dim * (k_dim + v_dim) + k_dim + i % v_dim] = rig_odd((uint64_t)(r + i / 2));
        machine_put_row(m, c->op->u.attention.q, r, x);
        free(x);
    }
}

/* The bits of ref. */
static void check_bits(attention_case *c, uint64_t seed, put_inputs *put)
{
    machine ref = machine_open(&c->r, NULL, 1), m = machine_open_on(&c->r, "cuda", NULL, 1);
    step_both(c, seed, put, &ref, &m);
    for (int i = 0; c->outs[i] >= 0; i++) {
        bool out = c->r.mats[c->outs[i]].rows == CP_ROWS_OUT;
        machines_equal(&ref, &m, c->outs[i], out ? c->b.b.n_out : c->b.b.n_rows, "attention");
    }
    machines_equal_memory(&ref, &m, "attention");
    machine_close(&m);
    machine_close(&ref);
}

static void exact_as_ref(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 3 * SHAPES; seed++) {
        attention_case c;
        attention_case_shaped(&c, seed, &shapes[seed % SHAPES]);
        if (seed >= 2 * SHAPES)
            raise_sinks(&c, seed % 4 >= 2);
        c.r.exact = true;
        check_bits(&c, seed, seed >= SHAPES ? odd_gates : NULL);
        attention_case_fini(&c);
    }
}

/* A chunk over the end of a split. */
static const rig_seq over_the_end[] = {{.pos0 = 505, .n_rows = 11}};

/* Nothing but scores and values: no norms, rope, sinks or cap, and no more pages than these
 * sequences have. */
static void plain_case(attention_case *c, uint64_t seed, const attention_shape *s,
                       const rig_seq *seqs, int n_seqs)
{
    attention_case_init(c, seed, s);
    c->r.prog.n_ops = 1; /* without a reader */
    c->outs[1] = -1;
    c->op->u.attention.q_norm = c->op->u.attention.k_norm = c->op->u.attention.sinks = -1;
    c->op->u.attention.v_norm = false;
    c->op->u.attention.rope_kind = CP_ROPE_NONE;
    c->op->u.attention.softcap = 0.0f;
    int positions = c->r.cfg.page_positions;
    c->r.cfg.n_pages = 1;
    for (int i = 0; i < n_seqs; i++)
        c->r.cfg.n_pages +=
            (uint32_t)(c->r.prog.n_groups *
                       ((seqs[i].pos0 + seqs[i].n_rows + positions - 1) / positions));
    rig_batch_init(&c->b, &c->r, seqs, n_seqs, false);
}

/* A row's V is infinite at two dims, each row's at others. */
static void infinite_values(const attention_case *c, machine *m)
{
    cp_mat v = c->op->u.attention.v;
    for (int r = 0; r < c->b.b.n_rows; r++) {
        float *x = machine_row(m, v, r);
        int width = c->r.mats[v].width, at = 2 * r % width;
        x[at] = x[at + 1] = INFINITY;
        machine_put_row(m, v, r, x);
        free(x);
    }
}

/* Keys that a query does not see have a weight of 0, but are left out where 0 does not help: pages
 * of both types. */
static void unseen_infinities(void **state)
{
    static const struct {
        attention_shape s;
        int pos0[2], n_rows;
    } some[] = {
        {{3, 1, 8, 52, 0}, {494, 495}, 21},  {{1, 1, 6, 44, 5}, {496, 497}, 21},
        {{7, 1, 4, 44, 17}, {498, 499}, 21}, {{2, 1, 10, 46, 500}, {500, 501}, 21},
        {{1, 1, 6, 44, 20}, {500, 503}, 41}, /* the fourth of eight rows is the last of a split; a
                                                half of a tile that the first of four sees alone */
    };
    (void)state;
    for (uint64_t seed = 0; seed < 4 * sizeof(some) / sizeof(some[0]); seed++) {
        attention_case c;
        rig_seq q = {.pos0 = some[seed / 4].pos0[seed % 2], .n_rows = some[seed / 4].n_rows};
        plain_case(&c, seed, &some[seed / 4].s, &q, 1);
        c.r.cfg.kv_type = seed / 2 % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        c.r.exact = true;
        check_bits(&c, seed, infinite_values);
        attention_case_fini(&c);
    }
}

/* Scores that are 5 or -5, with a cap of 8: tanh is of just CP_TANH_SMALL. */
static void scores_at_the_bound(const attention_case *c, machine *m)
{
    cp_mat mats[] = {c->op->u.attention.q, c->op->u.attention.k};
    int k_dim = c->op->u.attention.k_dim;
    for (int i = 0; i < 2; i++)
        for (int r = 0; r < c->b.b.n_rows; r++) {
            float *x = machine_row(m, mats[i], r);
            int width = c->r.mats[mats[i]].width;
            for (int d = 0; d < width; d++)
                x[d] = d % k_dim ? 0.0f : i ? r % 3 ? 5.0f : -5.0f : 1.0f;
            machine_put_row(m, mats[i], r, x);
            free(x);
        }
}

static void a_cap_at_its_bound(void **state)
{
    (void)state;
    assert_true(5.0f / 8.0f == CP_TANH_SMALL);
    for (uint64_t seed = 0; seed < 4; seed++) {
        attention_case c;
        plain_case(&c, seed, &(attention_shape){seed < 2 ? 8 : 3, 1, 6, 8, 40}, over_the_end, 1);
        if (c.op->u.attention.gated)
            fail_msg("seed %d is gated", (int)seed);
        c.op->u.attention.softcap = 8.0f;
        c.op->u.attention.scale = 1.0f;
        c.r.exact = true;
        check_bits(&c, seed, scores_at_the_bound);
        attention_case_fini(&c);
    }
}

/* ---- many windows ---- */

enum { STARTS = CP_SPLIT / 32, EDGE_WINDOW = 505, EDGE_K = 64, EDGE_V = 128 };

/* Rows whose first keys are 32 apart, through all of a split. Heads and rope are whole turns of a
 * warp's lanes, so that a turn too many begins just behind their end, or less than one, or than
 * two. Of a second group of pages, with fewer outputs than rows. By the exact form, and by that of
 * mma. */
static void every_start_of_a_window(void **state)
{
    static const attention_shape some[] = {{3, 1, EDGE_K, EDGE_V, EDGE_WINDOW},
                                           {3, 1, 26, 20, EDGE_WINDOW},
                                           {3, 1, 44, 36, EDGE_WINDOW}};
    static const uint64_t seeds[] = {11, 18};
    rig_seq seqs[STARTS];
    (void)state;
    for (int i = 0; i < STARTS; i++)
        seqs[i] = (rig_seq){.pos0 = EDGE_WINDOW + 15 + 32 * i, .n_rows = 1};
    for (int i = 0; i < 16; i++) {
        attention_case c;
        const attention_shape *s = &some[i < 8 ? 0 : i / 4 - 1];
        int k_dim = s->k_dim;
        plain_case(&c, seeds[i % 2], s, seqs, STARTS);
        if (i < 8)
            assert_int_equal(c.op->u.attention.group, 1);
        c.op->u.attention.q_norm = rig_vector(&c.r, k_dim, 1);
        c.op->u.attention.k_norm = rig_vector(&c.r, k_dim, 1);
        c.op->u.attention.v_norm = true;
        c.op->u.attention.rope_kind = i % 2 ? CP_ROPE_NEOX : CP_ROPE_NORM;
        c.op->u.attention.n_rot = k_dim;
        c.op->u.attention.rope = rig_mat(&c.r, k_dim, CP_ROWS_ALL);
        c.r.cfg.kv_type = i / 2 % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        c.b.b.n_out = 1;
        c.r.exact = i < 4;
        if (c.r.exact)
            check_bits(&c, seeds[i % 2], NULL);
        else
            check_near(&c, seeds[i % 2], NULL, 1e-5);
        attention_case_fini(&c);
    }
}

/* ---- scores that are CP_EXP_MIN apart ---- */

/* Rows alone: behind several splits, in one, at its end and behind it. */
static const rig_seq decode[] = {{.pos0 = 1300, .n_rows = 1},
                                 {.pos0 = 40, .n_rows = 1},
                                 {.pos0 = 511, .n_rows = 1},
                                 {.pos0 = 512, .n_rows = 1}};

/* K is 0, or -1 where a key is to be far; near keys have a V of 0, so that what others weigh shows.
 */
static float far_or_near(bool far, bool v)
{
    return !far ? 0.0f : v ? 1024.0f : -1.0f;
}

/* What attention_case_fill has for *state, and put_far: 977 times the position, and 1. */
static float far_in_the_first_split(bool v, int d, uint64_t *state)
{
    (void)d;
    return far_or_near(*state / 977 < CP_SPLIT, v);
}

static float far_behind_the_first_split(bool v, int d, uint64_t *state)
{
    (void)d;
    return far_or_near(*state / 977 >= CP_SPLIT, v);
}

static float far_beside_near(bool v, int d, uint64_t *state)
{
    (void)d;
    return far_or_near(*state / 977 % 3 != 0, v);
}

/* The first number of a head's K is its score. */
static void put_far(const attention_case *c, machine *m, attention_value *value)
{
    cp_mat mats[] = {c->op->u.attention.q, c->op->u.attention.k, c->op->u.attention.v};
    int q_width = c->r.mats[mats[0]].width / c->op->u.attention.n_heads;
    attention_case_fill(c, m, true, value);
    for (int r = 0; r < c->b.b.n_rows; r++)
        for (int i = 0; i < 3; i++) {
            uint64_t state = (uint64_t)c->b.b.pos[r] * 977 + 1;
            float *x = machine_row(m, mats[i], r);
            for (int d = 0; d < c->r.mats[mats[i]].width; d++)
                if (i > 0)
                    x[d] = value(i == 2, d, &state);
                else if (d % q_width < c->op->u.attention.k_dim)
                    x[d] = d % q_width ? 0.0f : 1.0f;
            machine_put_row(m, mats[i], r, x);
            free(x);
        }
}

static void put_far_first(const attention_case *c, machine *m)
{
    put_far(c, m, far_in_the_first_split);
}

static void put_far_last(const attention_case *c, machine *m)
{
    put_far(c, m, far_behind_the_first_split);
}

static void put_far_beside(const attention_case *c, machine *m)
{
    put_far(c, m, far_beside_near);
}

/* e^CP_EXP_MIN is not 0: it shows where what weighs 1 is. Between keys, splits, and at last a sink
 * and all keys. */
static void scores_far_apart(void **state)
{
    static put_inputs *const puts[] = {put_far_first, put_far_last, put_far_beside, NULL};
    (void)state;
    for (uint64_t seed = 0; seed < 16; seed++) {
        attention_case c;
        bool one_each = seed % 2;
        plain_case(&c, seed, &(attention_shape){3, 1, 6, 20, 0}, one_each ? decode : over_the_end,
                   one_each ? 4 : 1);
        c.r.cfg.kv_type = seed / 2 % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        c.op->u.attention.scale = -CP_EXP_MIN;
        if (seed / 4 == 3)
            raise_sinks(&c, true);
        c.r.exact = true;
        check_bits(&c, seed, puts[seed / 4]);
        attention_case_fini(&c);
    }
}

/* ---- weights of 0 and 1 ---- */

static uint32_t bits_of(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 40);
}

/* K: 1 or -1; V: integers, whose sums are exact. */
static float one_or_less(bool v, int d, uint64_t *state)
{
    (void)d;
    uint32_t n = bits_of(state);
    return v ? (float)(int)(n % 17) - 8.0f : n % 2 ? 1.0f : -1.0f;
}

/* K: 0 or -1, so that the largest score is 0. */
static float nothing_or_less(bool v, int d, uint64_t *state)
{
    float x = one_or_less(v, d, state);
    return v || x < 0.0f ? x : 0.0f;
}

/* A row of K and V. */
static void put_values(const attention_case *c, machine *m, int row, uint64_t state,
                       attention_value *value)
{
    for (int v = 0; v < 2; v++) {
        cp_mat s = v ? c->op->u.attention.v : c->op->u.attention.k;
        int dim = v ? c->op->u.attention.v_dim : c->op->u.attention.k_dim;
        float *x = machine_row(m, s, row);
        for (int d = 0; d < c->r.mats[s].width; d++)
            x[d] = value(v, d % dim, &state);
        machine_put_row(m, s, row, x);
        free(x);
    }
}

/* Each head of a row has one dim, of a size that its lower half has a part of; the gates stay. */
static void put_query(const attention_case *c, machine *m, int row)
{
    static const float sizes[] = {0x1.001p0f,    -0x1.334p-2f,    0x1.000002p0f,
                                  CP_TANH_SMALL, -0x1.800002p-1f, 0x1.6672p-1f,
                                  0x1.4006p1f,   -CP_TANH_SMALL,  -0x1.8002p0f};
    float size = sizes[row % 9], *x = machine_row(m, c->op->u.attention.q, row);
    int n_heads = c->op->u.attention.n_heads, k_dim = c->op->u.attention.k_dim;
    int width = c->r.mats[c->op->u.attention.q].width / n_heads;
    for (int h = 0; h < n_heads; h++)
        for (int d = 0; d < k_dim; d++)
            x[h * width + d] = d != (7 * row + 5 * h) % k_dim  ? 0.0f
                               : c->op->u.attention.sinks >= 0 ? fabsf(size)
                                                               : size;
    machine_put_row(m, c->op->u.attention.q, row, x);
    free(x);
}

/* Scores of a query are one number or another, so far below that it weighs nothing. */
static void two_scores(const attention_case *c, machine *m)
{
    attention_value *value = c->op->u.attention.sinks >= 0 ? nothing_or_less : one_or_less;
    odd_gates(c, m);
    attention_case_fill(c, m, true, value);
    for (int r = 0; r < c->b.b.n_rows; r++) {
        put_query(c, m, r);
        put_values(c, m, r, (uint64_t)r * 31 + 7, value);
    }
}

/* Both forms have ref's bits where neither rounds: weights are 0 or 1, and V integers. */
static void weights_of_0_and_1(void **state)
{
    static const attention_shape some[] = {{4, 2, 64, 64, 0},    {1, 1, 112, 96, 100},
                                           {3, 1, 40, 20, 0},    {16, 1, 44, 36, 0},
                                           {20, 1, 16, 136, 40}, {2, 1, 24, 48, 505}};
    (void)state;
    for (uint64_t seed = 0; seed < 36; seed++) {
        attention_case c;
        bool one_each = seed % 12 >= 6;
        plain_case(&c, seed, &some[seed % 6], one_each ? decode : over_the_end, one_each ? 4 : 1);
        if (seed >= 24)
            raise_sinks(&c, false);
        c.op->u.attention.softcap = seed / 12 == 1 ? 65536.0f : 0.0f;
        c.op->u.attention.scale = seed / 12 == 1 ? 65536.0f : 4096.0f;
        c.r.exact = seed % 4 == 3;
        check_bits(&c, seed, two_scores);
        attention_case_fini(&c);
    }
}

/* With a scale of this, scores are in units of log 2: times CP_EXP_LOG2E it is 1. */
#define LN2 0x1.62e430p-1f

/* ---- keys that weigh the same ---- */

/* V: integers, whose sums are exact; *state stays what it is at a position. */
static float integer_at(int d, const uint64_t *state)
{
    uint64_t n = *state + (uint64_t)d * 1009;
    return (float)(int)(bits_of(&n) % 17) - 8.0f;
}

/* K is the same at all positions. */
static float same_key(bool v, int d, uint64_t *state)
{
    return v ? integer_at(d, state) : (float)((7 * d * d + 3 * d) % 31 - 15) * 0x1p-4f;
}

/* Every number of a gate has another place among the odd ones than its neighbours. */
static void put_gates(const attention_case *c, machine *m)
{
    int k_dim = c->op->u.attention.k_dim, v_dim = c->op->u.attention.v_dim;
    for (int r = 0; c->op->u.attention.gated && r < c->b.b.n_rows; r++) {
        float *x = machine_row(m, c->op->u.attention.q, r);
        for (int i = 0; i < c->op->u.attention.n_heads * v_dim; i++)
            x[i / v_dim * (k_dim + v_dim) + k_dim + i % v_dim] = rig_odd((uint64_t)(r + 4 * i));
        machine_put_row(m, c->op->u.attention.q, r, x);
        free(x);
    }
}

/* What attention_case_fill has at a row's position. */
static uint64_t state_at(const attention_case *c, int row)
{
    return (uint64_t)c->b.b.pos[row] * 977 + 1;
}

static void put_same_keys(const attention_case *c, machine *m)
{
    put_gates(c, m);
    attention_case_fill(c, m, true, same_key);
    for (int r = 0; r < c->b.b.n_rows; r++)
        put_values(c, m, r, state_at(c, r), same_key);
}

enum { TIES_WINDOW = 505, FEW = 5 };

/* Batches: a long chunk; rows whose first and last keys are 33 apart, through all of a split, and
 * the same four keys further; such rows that see FEW keys, and one whose first key is 1; rows of
 * which the second, or third, sees nothing of the first's split, and two whose first key is 1. */
typedef enum tie_rows { CHUNK, STARTS_7, STARTS_11, SINGLE, LAST_KEYS } tie_rows;

static int tie_batch(tie_rows rows, rig_seq *seqs)
{
    static const rig_seq chunk = {.pos0 = 490, .n_rows = 41};
    if (rows == CHUNK) {
        seqs[0] = chunk;
        return 1;
    }
    if (rows == LAST_KEYS) {
        seqs[0] = (rig_seq){.pos0 = TIES_WINDOW + CP_SPLIT - 2, .n_rows = 4};
        seqs[1] = (rig_seq){.pos0 = TIES_WINDOW + CP_SPLIT - 3, .n_rows = 4};
        seqs[2] = (rig_seq){.pos0 = TIES_WINDOW, .n_rows = 3};
        seqs[3] = (rig_seq){.pos0 = TIES_WINDOW, .n_rows = 1};
        return 4;
    }
    int from = rows == SINGLE ? CP_SPLIT + 6 : TIES_WINDOW + (rows == STARTS_7 ? 7 : 11);
    for (int i = 0; i < STARTS; i++)
        seqs[i] = (rig_seq){.pos0 = from + 33 * i, .n_rows = rows == SINGLE ? 1 : 4};
    if (rows == SINGLE)
        seqs[0].pos0 = FEW;
    return STARTS;
}

/* And a record that reads the same keys for the rows that want an output. */
static void add_reader(attention_case *c)
{
    cp_op *reader = rig_op(&c->r, CP_OP_ATTENTION, CP_ROWS_OUT);
    reader->u.attention = c->op->u.attention;
    reader->u.attention.k = reader->u.attention.v = -1;
    reader->u.attention.q = rig_mat(&c->r, c->r.mats[c->op->u.attention.q].width, CP_ROWS_OUT);
    reader->u.attention.out = rig_mat(&c->r, c->r.mats[c->outs[0]].width, CP_ROWS_OUT);
    c->outs[1] = reader->u.attention.out;
}

/* Whatever a query's numbers are, each key that it sees weighs as much as any other, and what
 * rounds one score in another way than the rest shows. */
static void keys_that_weigh_the_same(void **state)
{
    static const struct {
        attention_shape s;
        tie_rows rows;
        float softcap;
    } some[] = {
        {{4, 1, 18, 20, TIES_WINDOW}, STARTS_7, 0.0f},
        {{4, 1, 26, 36, TIES_WINDOW}, STARTS_11, 0.0f},
        {{1, 1, 48, 136, 0}, CHUNK, 0.0f},
        {{3, 1, 64, 128, 0}, CHUNK, 2.0f},
        {{16, 1, 16, 32, 17}, CHUNK, 0.0f},
        {{16, 1, 16, 4, 0}, CHUNK, 0.0f}, /* more units than blocks */
        {{20, 1, 40, 28, 300}, CHUNK, 5.0f},
        {{2, 2, 32, 96, 0}, CHUNK, 0.5f},
        {{5, 1, 80, 12, 0}, CHUNK, 0.0f},
        {{11, 1, 32, 20, FEW}, SINGLE, 0.0f},
        {{4, 1, 32, 24, TIES_WINDOW}, LAST_KEYS, 0.0f},
    };
    (void)state;
    for (uint64_t seed = 0; seed < 2 * sizeof(some) / sizeof(some[0]); seed++) {
        attention_case c;
        rig_seq seqs[STARTS];
        int n = tie_batch(some[seed / 2].rows, seqs);
        plain_case(&c, seed, &some[seed / 2].s, seqs, n);
        c.r.cfg.kv_type = seed % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        c.op->u.attention.softcap = some[seed / 2].softcap;
        if (some[seed / 2].rows == STARTS_7)
            add_reader(&c);
        check_bits(&c, seed, put_same_keys);
        attention_case_fini(&c);
    }
}

/* ---- dims that weigh the same ---- */

/* Numbers of a query, and of the keys that have just this dim, of the same score: of 17 bits, which
 * two BF16 numbers keep where the first is the nearest, and of 9. */
enum { WHOLE = 65793, PART = 273, PARTS = 241 };
_Static_assert(WHOLE == PART * PARTS, "the same score");

typedef enum queries { TURNED, TINY, IN_PARTS } queries;

/* A key has one dim, or none, 1 or -1. */
static float one_dim(bool v, int d, uint64_t *state)
{
    uint64_t at = *state;
    uint32_t n = bits_of(&at);
    return v ? integer_at(d, state) : d != (int)(n % 128) ? 0.0f : n / 128 % 2 ? 1.0f : -1.0f;
}

/* What a rope leaves as it is. */
static float no_key(bool v, int d, uint64_t *state)
{
    return v ? integer_at(d, state) : 0.0f;
}

/* For queries of 2^-12. */
static float one_long_dim(bool v, int d, uint64_t *state)
{
    return v ? one_dim(v, d, state) : 0x1p14f * one_dim(v, d, state);
}

/* For those of WHOLE and PART. */
static float one_dim_of_parts(bool v, int d, uint64_t *state)
{
    return v || d % 2 == 0 ? one_dim(v, d, state) : (float)PARTS * one_dim(v, d, state);
}

/* Numbers that a norm's weights make as large as each other, or that are so. */
static float query_at(queries kind, int row, int head, int d)
{
    uint64_t n = (uint64_t)((row * 64 + head) * 128 + d);
    float sign = bits_of(&n) % 2 ? 1.0f : -1.0f;
    return kind == TURNED ? ldexpf(sign, d % 3)
           : kind == TINY ? sign * (1.0f + (float)(7 * row + 5 * head) * 0x1.23p-8f) * 0x1p-12f
                          : sign * (float)(d % 2 ? PART : WHOLE) * 0x1p-9f;
}

static void put_one_dims(const attention_case *c, machine *m, queries kind)
{
    static attention_value *const values[] = {one_dim, one_long_dim, one_dim_of_parts};
    int n_heads = c->op->u.attention.n_heads, k_dim = c->op->u.attention.k_dim;
    cp_mat q = c->op->u.attention.q, rope = c->op->u.attention.rope;
    put_gates(c, m);
    attention_case_fill(c, m, true, values[kind]);
    for (int r = 0; r < c->b.b.n_rows; r++) {
        float *x = machine_row(m, q, r), *cs = machine_row(m, rope, r);
        int width = c->r.mats[q].width / n_heads, half = c->r.mats[rope].width / 2;
        for (int i = 0; i < n_heads * k_dim; i++)
            x[i / k_dim * width + i % k_dim] = query_at(kind, r, i / k_dim, i % k_dim);
        for (int i = 0; i < half; i++) { /* quarter turns */
            cs[i] = (float)((r + i) % 2) * (i % 3 ? 1.0f : -1.0f);
            cs[half + i] = (float)(1 - (r + i) % 2) * (i % 5 ? 1.0f : -1.0f);
        }
        machine_put_row(m, q, r, x);
        machine_put_row(m, rope, r, cs);
        free(x);
        free(cs);
        put_values(c, m, r, state_at(c, r), kind == TURNED ? no_key : values[kind]);
    }
}

static void put_turned(const attention_case *c, machine *m)
{
    put_one_dims(c, m, TURNED);
}

static void put_tiny(const attention_case *c, machine *m)
{
    put_one_dims(c, m, TINY);
}

static void put_in_parts(const attention_case *c, machine *m)
{
    put_one_dims(c, m, IN_PARTS);
}

/* The norm that makes numbers of query_at as large as each other. */
static void add_query_norm(attention_case *c)
{
    int k_dim = c->op->u.attention.k_dim;
    c->op->u.attention.q_norm = rig_vector(&c->r, k_dim, 1);
    float *w = (float *)(uintptr_t)c->r.tensors[c->op->u.attention.q_norm].data;
    for (int d = 0; d < k_dim; d++)
        w[d] = ldexpf(1.0f, -(d % 3));
}

/* Each dim of a query, after norm, rope and scale, in two 16-bit numbers, gives the score that each
 * other one gives: one that is off by a bit shows. */
static void dims_that_weigh_the_same(void **state)
{
    static put_inputs *const puts[] = {put_turned, put_turned, put_tiny, put_in_parts};
    static const attention_shape some[] = {
        {3, 1, 64, 20, 0}, {17, 1, 26, 36, 0}, {2, 1, 96, 12, 0}};
    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        attention_case c;
        bool f16 = seed % 2, turned = seed % 8 < 4;
        plain_case(&c, seed, &some[seed % 3], over_the_end, 1);
        if (turned) {
            add_query_norm(&c);
            c.op->u.attention.rope_kind = seed % 4 < 2 ? CP_ROPE_NEOX : CP_ROPE_NORM;
        }
        c.r.cfg.kv_type = f16 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        c.op->u.attention.scale = turned ? 4096.0f : seed % 8 < 6 ? 64.0f : LN2;
        check_bits(&c, seed, puts[seed % 8 / 2]);
        attention_case_fini(&c);
    }
}

/* ---- splits apart ---- */

/* K: two dims of a split. */
static float split_key(bool v, int d, uint64_t *state)
{
    return v ? integer_at(d, state) : (float)(d < 6 && d % 3 == (int)(*state / 977 / CP_SPLIT));
}

/* V: dims of a split. */
static float far_split_key(bool v, int d, uint64_t *state)
{
    return v ? (float)(d % 3 == (int)(*state / 977 / CP_SPLIT)) : split_key(v, d, state);
}

/* Eighths that are themselves again when they were multiplied with LN2 and divided by it. */
static float score_of(uint64_t n)
{
    float x = (float)(int)(bits_of(&n) % 41) * 0.125f - 2.5f, y = x * LN2;
    while (y / LN2 != x) {
        x += 0.125f;
        y = x * LN2;
    }
    return x;
}

/* Number d of a query: of one split, or all. */
static float split_query(bool far, int query, int d)
{
    if (!far)
        return d < 3 ? score_of((uint64_t)(1000 * query + d)) : 0.0f;
    return d >= 6 || d % 3 != query % 3 ? 0.0f : d < 3 ? -126.0f : 0x1p-17f;
}

static void put_queries(const attention_case *c, machine *m, bool far)
{
    cp_mat q = c->op->u.attention.q;
    int n_heads = c->op->u.attention.n_heads, k_dim = c->op->u.attention.k_dim;
    int width = c->r.mats[q].width / n_heads;
    attention_value *value = far ? far_split_key : split_key;
    put_gates(c, m);
    attention_case_fill(c, m, true, value);
    for (int r = 0; r < c->b.b.n_rows; r++) {
        float *x = machine_row(m, q, r);
        for (int i = 0; i < n_heads * k_dim; i++)
            x[i / k_dim * width + i % k_dim] = split_query(far, r + i / k_dim, i % k_dim);
        machine_put_row(m, q, r, x);
        free(x);
        put_values(c, m, r, state_at(c, r), value);
    }
}

static void put_splits(const attention_case *c, machine *m)
{
    put_queries(c, m, false);
}

/* One split's keys are CP_EXP_MIN below the others', and alone have a V in their dims. */
static void put_far_splits(const attention_case *c, machine *m)
{
    assert_true((126.0f - 0x1p-17f) * LN2 == -CP_EXP_MIN);
    put_queries(c, m, true);
}

/* A split's keys weigh the same, and as much as ref says: their score is a few bits, in units of
 * log 2, of which a scale of LN2 and a cap of LN2 times a power of two take none. */
static void splits_apart(void **state)
{
    static const rig_seq two_ends[] = {{.pos0 = 1008, .n_rows = 29}};
    static const attention_shape some[] = {
        {5, 1, 16, 44, 0}, {1, 1, 16, 40, 0}, {11, 1, 16, 28, 0}};
    (void)state;
    for (uint64_t seed = 0; seed < 32; seed++) {
        attention_case c;
        bool one_each = seed / 2 % 2, far = seed >= 24 && seed < 28;
        plain_case(&c, seed, &some[seed % 3], one_each ? decode : two_ends, one_each ? 4 : 1);
        c.op->u.attention.scale = LN2;
        if (seed < 24 && seed / 4 % 2)
            c.op->u.attention.softcap = c.op->u.attention.scale = 4.0f * LN2;
        if (seed >= 8 && !far)
            put_sinks(&c, seed < 16 ? 6.0f : -0.4f, seed >= 28);
        c.r.cfg.kv_type = seed % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        check_bits(&c, seed, far ? put_far_splits : put_splits);
        attention_case_fini(&c);
    }
}

/* ---- rounding ---- */

/* Key 0 weighs 1 and has a V of 0; of the others each query sees every eighth, at one dim. */
static float key_of_eight(bool v, int d, uint64_t *state)
{
    int pos = (int)(*state / 977);
    return v ? (float)(pos > 0) : d == (pos ? pos % 8 : 8) ? 1.0f : 0.0f;
}

static float long_key_of_eight(bool v, int d, uint64_t *state)
{
    return v ? key_of_eight(v, d, state) : 0x1p14f * key_of_eight(v, d, state);
}

/* Scores are 128 and, of keys that are seen, less by so much that their weight is just below a
 * number of the type: 0.987 or 0.984 of its last place. So is the query's number itself, as its two
 * halves keep it. */
static void put_just_below(const attention_case *c, machine *m)
{
    bool f16 = c->r.cfg.kv_type == CP_DTYPE_F16;
    float top = f16 ? 0x1p-7f : 128.0f;
    float seen = f16 ? 0x1p-7f - 889 * 0x1p-24f - 0x1p-29f : 128.0f - 390 * 0x1p-9f - 0x1p-14f;
    attention_case_fill(c, m, true, f16 ? long_key_of_eight : key_of_eight);
    for (int r = 0; r < c->b.b.n_rows; r++) {
        float *x = machine_row(m, c->op->u.attention.q, r);
        for (int d = 0; d < c->op->u.attention.k_dim; d++)
            x[d] = d == r % 8 ? seen : d == 8 ? top : d < 8 ? -top : 0.0f;
        machine_put_row(m, c->op->u.attention.q, r, x);
        free(x);
        put_values(c, m, r, state_at(c, r), f16 ? long_key_of_eight : key_of_eight);
    }
}

/* Where weights and queries become 16-bit numbers, they become the nearest. */
static void nearest_weights(void **state)
{
    static const rig_seq all_in_a_split[] = {{.pos0 = 480, .n_rows = 16}};
    (void)state;
    for (uint64_t seed = 1; seed < 3; seed++) {
        attention_case c;
        plain_case(&c, seed, &(attention_shape){1, 1, 16, 4, 0}, all_in_a_split, 1);
        c.op->u.attention.gated = false;
        c.op->u.attention.scale = LN2;
        c.r.cfg.kv_type = seed % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        check_near(&c, seed, put_just_below, seed % 2 ? 1e-8 : 1e-7);
        attention_case_fini(&c);
    }
}

/* ---- what is handed on ---- */

enum { ODD_K = 32, ODD_V = 288, INFINITE_NEAR = 4, INFINITE_FAR = 555, INFINITE_ONE = 700 };

/* Are the largest of a position's V infinite? From INFINITE_ONE on those of one block alone. */
static bool is_infinite(int pos, int d, int infinite)
{
    return pos == infinite ||
           (pos >= INFINITE_ONE && pos % 20 == 0 && (pos - INFINITE_ONE) / 20 == d / 32 - 1);
}

/* Dim d of a position's V: a block of zeroes, and numbers that lose bits as F16 unless a power is
 * taken out of them, which is that of one of a block alone, another one of each block. */
static float odd_v(int pos, int d, int infinite)
{
    float x = (float)(1 + (pos + d) % 7) * 0x1p-20f;
    if (d < 32 || d % 32 != 7 + d / 32)
        return d < 32 ? 0.0f : x;
    return is_infinite(pos, d, infinite) ? INFINITY : 64.0f * x;
}

static float odd_value(bool v, int d, uint64_t *state)
{
    return v ? odd_v((int)(*state / 977), d, INFINITE_FAR) : 0.0f;
}

/* All keys weigh the same. */
static void put_odd_values(const attention_case *c, machine *m)
{
    cp_mat k = c->op->u.attention.k, v = c->op->u.attention.v;
    bool narrow = c->op->u.attention.k_dim == ODD_K;
    if (narrow)
        attention_case_fill(c, m, true, odd_value);
    for (int r = 0; r < c->b.b.n_rows; r++)
        for (int i = 0; i < 2; i++) {
            float *x = machine_row(m, i ? v : k, r);
            for (int d = 0; d < c->r.mats[i ? v : k].width; d++)
                x[d] = i ? odd_v(c->b.b.pos[r], d, narrow ? INFINITE_FAR : INFINITE_NEAR) : 0.0f;
            machine_put_row(m, i ? v : k, r, x);
            free(x);
        }
}

/* A product of attention's output has the same bits where it takes what attention hands on, and
 * where it makes its inputs of f32 rows, which somebody else reads, too: by the merge; by the form
 * of mma; and by the exact one, whose heads are too wide for the other. */
static void odd_values_are_handed_on(void **state)
{
    static const cp_dtype types[] = {CP_DTYPE_F16, CP_DTYPE_BF16, CP_DTYPE_Q8_0};
    static const struct {
        attention_shape s;
        rig_seq seqs[8];
        int n_seqs;
    } some[] = {
        {{2, 1, ODD_K, ODD_V, 0}, {{.pos0 = 600, .n_rows = 1}, {.pos0 = 520, .n_rows = 1}}, 2},
        {{2, 1, ODD_K, ODD_V, 0}, {{.pos0 = 600, .n_rows = 2}, {.pos0 = 520, .n_rows = 9}}, 2},
        {{2, 1, ODD_K, ODD_V, 10}, {{.n_rows = 0}}, 8},
        {{1, 1, 1024, 288, 0}, {{.pos0 = 0, .n_rows = INFINITE_NEAR + 1}}, 1},
    };
    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        attention_case c;
        int form = (int)(seed / 3 % 4);
        rig_seq seqs[8];
        memcpy(seqs, some[form].seqs, sizeof(seqs));
        for (int i = 0; some[form].s.window && i < 8; i++) /* each sees one infinity */
            seqs[i] = (rig_seq){.pos0 = INFINITE_ONE + 20 * i + 1, .n_rows = 5};
        plain_case(&c, seed, &some[form].s, seqs, some[form].n_seqs);
        c.r.cfg.kv_type = seed / 12 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        cp_mat y = rig_mat(&c.r, 48, CP_ROWS_ALL), out = c.outs[0];
        int width = c.r.mats[out].width;
        rig_linear(&c.r, out, rig_weight(&c.r, types[seed % 3], width, 48, CP_ROLE_LINEAR), y,
                   CP_ROWS_ALL);
        machine handed = machine_open_on(&c.r, "cuda", NULL, 1);
        rig_linear(&c.r, out, rig_weight(&c.r, CP_DTYPE_F32, width, 1, CP_ROLE_LINEAR),
                   rig_mat(&c.r, 1, CP_ROWS_ALL), CP_ROWS_ALL);
        machine rows = machine_open_on(&c.r, "cuda", NULL, 1), *both[] = {&handed, &rows};
        for (int i = 0; i < 2; i++) {
            machine_fill(both[i], seed);
            put_odd_values(&c, both[i]);
            machine_step(both[i], &c.b.b);
        }
        machines_equal(&rows, &handed, y, c.b.b.n_rows, "handed on");
        machine_close(&rows);
        machine_close(&handed);
        attention_case_fini(&c);
    }
}

/* ---- a row alone ---- */

/* Rows of one sequence of a batch, at the place of an earlier one: they take its pages. */
typedef struct part {
    cp_batch b;
    cp_batch_seq seq;
    int32_t tok[64], pos[64], row_seq[64], out_rows[64];
} part;

static void part_init(part *p, const rig_batch *all, int s, int first, int n)
{
    const cp_batch_seq *q = &all->b.seqs[s];
    memset(p, 0, sizeof(*p));
    cp_batch_seq seq = {
        .slot = s, .n_rows = n, .pos0 = q->pos0 + first, .pages = q->pages, .adapter = -1};
    memcpy(&p->seq, &seq, sizeof(seq));
    for (int i = 0; i < n; i++)
        p->pos[i] = q->pos0 + first + i;
    p->b = (cp_batch){.n_rows = n,
                      .n_seqs = 1,
                      .tok = p->tok,
                      .pos = p->pos,
                      .row_seq = p->row_seq,
                      .out_rows = p->out_rows,
                      .seqs = &p->seq};
}

/* Row r of what the record reads, of one machine's fill, becomes row `to` of another's. */
static void move_row(const machine *from, machine *m, const cp_op *op, int r, int to)
{
    const cp_mat mats[] = {op->u.attention.q, op->u.attention.k, op->u.attention.v,
                           op->u.attention.rope};
    for (size_t i = 0; i < sizeof(mats) / sizeof(mats[0]); i++) {
        float *x = machine_row(from, mats[i], r);
        machine_put_row(m, mats[i], to, x);
        free(x);
    }
}

/* The rows of all sequences, chunk by chunk, one sequence after another: as all at once. */
static void check_chunks(const attention_case *c, const machine *all, const machine *inputs,
                         int chunk)
{
    rig *r = (rig *)(uintptr_t)&c->r;
    cp_mat out = c->op->u.attention.out;
    size_t width = (size_t)r->mats[out].width * sizeof(float);
    machine m = machine_open_on(r, "cuda", NULL, 1);
    machine_fill(&m, 3);
    for (int s = 0; s < c->b.b.n_seqs; s++) {
        const cp_batch_seq *q = &c->b.b.seqs[s];
        for (int first = 0; first < q->n_rows; first += chunk) {
            int n = q->n_rows - first < chunk ? q->n_rows - first : chunk;
            part p;
            part_init(&p, &c->b, s, first, n);
            for (int i = 0; i < n; i++)
                move_row(inputs, &m, c->op, q->row0 + first + i, i);
            machine_step(&m, &p.b);
            for (int i = 0; i < n; i++) {
                float *x = machine_row(all, out, q->row0 + first + i);
                float *y = machine_row(&m, out, i);
                if (memcmp(x, y, width) != 0)
                    fail_msg("sequence %d row %d of %d, in chunks of %d: other bits", s, first + i,
                             q->n_rows, chunk);
                free(x);
                free(y);
            }
        }
    }
    machines_equal_memory(all, &m, "pages");
    machine_close(&m);
}

/* A long chunk over the end of a split beside single rows, near and far. */
static const rig_seq company[] = {{.pos0 = 490, .n_rows = 41},
                                  {.pos0 = 1300, .n_rows = 1},
                                  {.pos0 = 37, .n_rows = 1},
                                  {.pos0 = 1023, .n_rows = 2}};

/* A key that is no number is of no concern to rows that do not see it: of one of the long chunk's
 * rows, which has rows before it in its tile. */
static void spoil_a_key(const attention_case *c, machine *m)
{
    cp_mat k = c->op->u.attention.k;
    int row = company[0].n_rows - 3;
    if (c->op->u.attention.v == k)
        return;
    float *x = machine_row(m, k, row);
    x[3] = INFINITY;
    machine_put_row(m, k, row, x);
    free(x);
}

static void a_row_alone(void **state)
{
    static const attention_shape some[] = {{4, 2, 64, 64, 0},
                                           {3, 1, 128, 128, 300},
                                           {2, 1, 96, 96, 0},
                                           {20, 1, 64, 64, 0}, /* f16, as the first */
                                           {1, 2, 256, 256, 0}};
    (void)state;
    for (uint64_t seed = 0; seed < sizeof(some) / sizeof(some[0]); seed++) {
        attention_case c;
        attention_case_init(&c, seed, &some[seed]);
        c.r.prog.n_ops = 1; /* without a reader */
        rig_batch_init(&c.b, &c.r, company, sizeof(company) / sizeof(company[0]), false);
        machine inputs = machine_open_on(&c.r, "cuda", NULL, 1);
        machine all = machine_open_on(&c.r, "cuda", NULL, 1);
        machine_fill(&inputs, 3);
        machine_fill(&all, 3);
        if (seed) {
            spoil_a_key(&c, &inputs);
            spoil_a_key(&c, &all);
        }
        machine_step(&all, &c.b.b);
        check_chunks(&c, &all, &inputs, 1);
        check_chunks(&c, &all, &inputs, 7);
        machine_close(&all);
        machine_close(&inputs);
        attention_case_fini(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(close_to_ref),
        cmocka_unit_test(the_widest_heads),
        cmocka_unit_test(exact_as_ref),
        cmocka_unit_test(unseen_infinities),
        cmocka_unit_test(a_cap_at_its_bound),
        cmocka_unit_test(every_start_of_a_window),
        cmocka_unit_test(scores_far_apart),
        cmocka_unit_test(weights_of_0_and_1),
        cmocka_unit_test(keys_that_weigh_the_same),
        cmocka_unit_test(dims_that_weigh_the_same),
        cmocka_unit_test(splits_apart),
        cmocka_unit_test(nearest_weights),
        cmocka_unit_test(odd_values_are_handed_on),
        cmocka_unit_test(a_row_alone),
    };
    if (!rig_has("cuda")) {
        fprintf(stderr, "skipped: no cuda backend, or no driver in CAPSTAN_LIBCUDA\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
