/*
 * test_cuda_attention: ATTENTION in the form that a GPU uses by default, by mma. Close to ref, and
 * the bits of a row are its own: alone, in any chunk of its sequence and beside any other sequence
 * it has the same. The exact form has ref's bits with wide heads, too (with small ones: test_ops).
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

/* In a step after which both have the same pages. */
static void check_close(attention_case *c, uint64_t seed)
{
    machine ref = machine_open(&c->r, NULL, 1), m = machine_open_on(&c->r, "cuda", NULL, 1);
    machine_fill(&ref, seed);
    machine_fill(&m, seed);
    attention_case_spoil(c, &ref);
    attention_case_spoil(c, &m);
    machine_step(&ref, &c->b.b);
    machine_step(&m, &c->b.b);
    for (int i = 0; c->outs[i] >= 0; i++) {
        bool out = c->r.mats[c->outs[i]].rows == CP_ROWS_OUT;
        double e = error_of(&ref, &m, c->outs[i], out ? c->b.b.n_out : c->b.b.n_rows);
        if (!(e <= 1e-5))
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
        check_close(&c, seed);
        attention_case_fini(&c);
    }
    for (uint64_t seed = 0; seed < 10; seed++) { /* widths that only the exact form takes, too */
        attention_case c;
        attention_case_random(&c, seed);
        check_close(&c, seed);
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
        check_close(&c, seed);
        attention_case_fini(&c);
    }
}

/* Sinks above all scores, or so far above them, which are 0, that these just weigh. */
static void raise_sinks(attention_case *c, bool far)
{
    int n = c->op->u.attention.n_heads;
    c->op->u.attention.sinks = rig_vector(&c->r, n, 1);
    float *sinks = (float *)(uintptr_t)c->r.tensors[c->op->u.attention.sinks].data;
    for (int i = 0; i < n; i++)
        sinks[i] = far ? -CP_EXP_MIN : 6.0f * sinks[i];
    if (far)
        sharpen(c, 0.0f);
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

/* What a machine needs beside random inputs. */
typedef void put_inputs(const attention_case *c, machine *m);

/* The bits of ref. */
static void check_bits(attention_case *c, uint64_t seed, put_inputs *put)
{
    machine ref = machine_open(&c->r, NULL, 1), m = machine_open_on(&c->r, "cuda", NULL, 1);
    machine *both[] = {&ref, &m};
    for (int i = 0; i < 2; i++) {
        machine_fill(both[i], seed);
        attention_case_spoil(c, both[i]);
        if (put)
            put(c, both[i]);
        machine_step(both[i], &c->b.b);
    }
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

/* Keys that a query does not see have a weight of 0, but are left out where 0 does not help. */
static void unseen_infinities(void **state)
{
    (void)state;
    static const attention_shape some[] = {
        {3, 1, 8, 52, 0}, {1, 1, 6, 44, 5}, {7, 1, 4, 44, 17}, {2, 1, 10, 46, 500}};
    for (uint64_t seed = 0; seed < 2 * sizeof(some) / sizeof(some[0]); seed++) {
        attention_case c;
        rig_seq q = {.pos0 = 494 + (int)seed, .n_rows = 21};
        plain_case(&c, seed, &some[seed / 2], &q, 1);
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

/* ---- weights of 0 and 1 ---- */

static uint32_t bits_of(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 40);
}

/* K: 1 or -1; V: integers, whose sums are exact. */
static float one_or_less(bool v, uint64_t *state)
{
    uint32_t n = bits_of(state);
    return v ? (float)(int)(n % 17) - 8.0f : n % 2 ? 1.0f : -1.0f;
}

/* K: 0 or -1, so that the largest score is 0. */
static float nothing_or_less(bool v, uint64_t *state)
{
    float x = one_or_less(v, state);
    return v || x < 0.0f ? x : 0.0f;
}

/* A row of K or V. */
static void put_values(const attention_case *c, machine *m, int row, attention_value *value)
{
    uint64_t state = (uint64_t)row * 31 + 7;
    for (int v = 0; v < 2; v++) {
        cp_mat s = v ? c->op->u.attention.v : c->op->u.attention.k;
        float *x = machine_row(m, s, row);
        for (int d = 0; d < c->r.mats[s].width; d++)
            x[d] = value(v, &state);
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
        put_values(c, m, r, value);
    }
}

/* Both forms have ref's bits where neither rounds: weights are 0 or 1, and V integers. */
static void weights_of_0_and_1(void **state)
{
    static const attention_shape some[] = {{4, 2, 64, 64, 0},    {1, 1, 112, 96, 100},
                                           {3, 1, 40, 20, 0},    {16, 1, 44, 36, 0},
                                           {20, 1, 16, 136, 40}, {2, 1, 24, 48, 505}};
    static const rig_seq decode[] = {{.pos0 = 1300, .n_rows = 1},
                                     {.pos0 = 40, .n_rows = 1},
                                     {.pos0 = 511, .n_rows = 1},
                                     {.pos0 = 512, .n_rows = 1}};
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
        cmocka_unit_test(close_to_ref),       cmocka_unit_test(the_widest_heads),
        cmocka_unit_test(exact_as_ref),       cmocka_unit_test(unseen_infinities),
        cmocka_unit_test(a_cap_at_its_bound), cmocka_unit_test(weights_of_0_and_1),
        cmocka_unit_test(a_row_alone),
    };
    if (!rig_has("cuda")) {
        fprintf(stderr, "skipped: no cuda backend, or no driver in CAPSTAN_LIBCUDA\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
