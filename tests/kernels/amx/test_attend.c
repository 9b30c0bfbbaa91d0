/*
 * test_attend: attention at level amx on the tile unit of tiles.h. Its bits are those of ref by
 * that level's law, at heads that are whole tiles and at others, whatever lies where no row sees;
 * and a row's bits are its own: in any chunk, and whatever the keys are that others see.
 */
#include "kernels/cpu/isa.h"
#include "kernels/math.h"
#include "tests/kernels/attention.h"
#include "tests/support/cmocka.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 40 };

static const int rows[] = {1, 2, 4, 5, 16, 17, MOST};
static const attention_shape shapes[] = {
    {1, 1, 64, 64, 0},   {4, 2, 64, 64, 0},      {3, 1, 72, 72, 0},     {16, 1, 80, 80, 100},
    {2, 2, 96, 96, 0},   {17, 1, 128, 128, 200}, {8, 1, 128, 64, 512},  {1, 1, 256, 256, 0},
    {2, 1, 34, 50, 5},   {30, 1, 2, 6, 0},       {3, 1, 576, 512, 300}, {1, 2, 62, 66, 16},
    {5, 1, 160, 176, 0}, {1, 1, 128, 128, 1},    {24, 1, 64, 64, 33},   {2, 1, 30, 14, 64},
};
enum { SHAPES = sizeof(shapes) / sizeof(*shapes), COUNTS = sizeof(rows) / sizeof(*rows) };

/* A case of bf16 pages and one sequence, of odd inputs where the seed is odd. */
static void open_case(attention_case *c, uint64_t seed, const attention_shape *s, int pos0, int n)
{
    attention_case_init(c, seed, s);
    c->r.cfg.kv_type = CP_DTYPE_BF16;
    c->r.odd = seed % 2;
    rig_batch_init(&c->b, &c->r, &(rig_seq){.pos0 = pos0, .n_rows = n}, 1, true);
}

/* Lengths around the ends of tiles, of pages and of splits. */
static int length(rig *r)
{
    static const int ends[] = {0, 16, 32, 64, 480, 512, 544, 1024};
    int at = ends[rig_random(r, 8)] + (int)rig_random(r, 5) - 2;
    return at < 0 || rig_random(r, 3) == 0 ? (int)rig_random(r, 1200) : at;
}

static void has_refs_bits(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES * COUNTS; i++) {
        attention_case c;
        rig pick;
        char what[64];
        const attention_shape *s = &shapes[i / COUNTS];
        uint64_t seed = (uint64_t)(1 + i);
        rig_init(&pick, seed);
        open_case(&c, seed, s, length(&pick), rows[i % COUNTS]);
        machine ref = machine_open_on(&c.r, "ref", "amx", 1);
        machine amx = machine_open(&c.r, "amx", 1 + i % 2);
        machine_fill(&ref, seed);
        machine_fill(&amx, seed);
        attention_case_spoil(&c, &ref);
        attention_case_spoil(&c, &amx);
        machine_step(&ref, &c.b.b);
        machine_step(&amx, &c.b.b);
        cp_snprintf(what, sizeof(what), "heads of %d and %d, %d rows at %d", s->k_dim, s->v_dim,
                    c.b.b.n_rows, c.b.b.seqs[0].pos0);
        for (int o = 0; c.outs[o] >= 0; o++)
            machines_equal(&ref, &amx, c.outs[o], c.b.b.n_rows, what);
        machine_close(&amx);
        machine_close(&ref);
        attention_case_fini(&c);
        rig_fini(&pick);
    }
}

static void copy_row(const machine *from, int r, machine *to, int at, cp_mat s)
{
    float *x = machine_row(from, s, r);
    machine_put_row(to, s, at, x);
    free(x);
}

/* Rows [first, first + n) of the step as a step of their own. */
static void step_part(const attention_case *c, const machine *whole, machine *m, int first, int n)
{
    const cp_op *op = c->op;
    const cp_mat ins[] = {op->u.attention.q, op->u.attention.k, op->u.attention.v,
                          op->u.attention.rope};
    cp_batch b = c->b.b;
    cp_batch_seq q = b.seqs[0];
    q.pos0 += first;
    q.n_rows = b.n_rows = n;
    b.seqs = &q;
    b.pos += first;
    b.n_out = 0;
    for (int r = 0; r < n; r++)
        for (size_t i = 0; i < sizeof(ins) / sizeof(*ins); i++)
            copy_row(whole, first + r, m, r, ins[i]);
    machine_step(m, &b);
}

/* Steps of at most `chunk` rows leave what one step leaves of all. */
static void check_chunks(const attention_case *c, const machine *whole, machine *m, int chunk)
{
    cp_mat out = c->op->u.attention.out;
    size_t width = (size_t)c->r.mats[out].width;
    for (int first = 0; first < c->b.b.n_rows; first += chunk) {
        int n = c->b.b.n_rows - first < chunk ? c->b.b.n_rows - first : chunk;
        step_part(c, whole, m, first, n);
        for (int r = 0; r < n; r++) {
            float *want = machine_row(whole, out, first + r), *got = machine_row(m, out, r);
            if (memcmp(want, got, width * sizeof(*got)))
                fail_msg("heads of %d and %d: row %d of %d, in steps of %d, differs",
                         c->op->u.attention.k_dim, c->op->u.attention.v_dim, first + r,
                         c->b.b.n_rows, chunk);
            free(want);
            free(got);
        }
    }
}

/* V of the last but one of 32 positions, and K of the row after the next, are no finite numbers:
 * rows before them do not see that. */
static void no_numbers(const attention_case *c, machine *m)
{
    static const float values[] = {INFINITY, -INFINITY, NAN};
    int at = (30 - c->b.b.seqs[0].pos0 % 32 + 32) % 32;
    for (int r = at; r <= at + 2; r += 2) {
        cp_mat s = r == at ? c->op->u.attention.v : c->op->u.attention.k;
        float *x = machine_row(m, s, r);
        for (int i = 0; i < c->r.mats[s].width; i++)
            x[i] = values[(r + i) % 3];
        machine_put_row(m, s, r, x);
        free(x);
    }
}

static void a_rows_bits_are_its_own(void **state)
{
    (void)state;
    static const int chunks[] = {1, 4, 5, 16};
    for (int i = 0; i < 2 * SHAPES; i++) {
        attention_case c;
        uint64_t seed = (uint64_t)(1 + i);
        open_case(&c, seed, &shapes[i / 2], 32 * i + 4 + i / 2, MOST);
        machine whole = machine_open(&c.r, "amx", 2);
        machine_fill(&whole, seed);
        if (i % 2)
            no_numbers(&c, &whole);
        machine m = machine_open(&c.r, "amx", 1);
        machine_fill(&m, seed);
        machine_step(&whole, &c.b.b);
        for (size_t n = 0; n < sizeof(chunks) / sizeof(*chunks); n++)
            check_chunks(&c, &whole, &m, chunks[n]);
        machine_close(&m);
        machine_close(&whole);
        attention_case_fini(&c);
    }
}

/* f16 pages: the bits of the level below, which are those of ref without the law. */
static void f16_pages_have_the_bits_below(void **state)
{
    (void)state;
    attention_case c;
    open_case(&c, 3, &shapes[1], 100, MOST);
    c.r.cfg.kv_type = CP_DTYPE_F16;
    machine ref = machine_open(&c.r, NULL, 1), amx = machine_open(&c.r, "amx", 2);
    machine_fill(&ref, 3);
    machine_fill(&amx, 3);
    machine_step(&ref, &c.b.b);
    machine_step(&amx, &c.b.b);
    for (int o = 0; c.outs[o] >= 0; o++)
        machines_equal(&ref, &amx, c.outs[o], MOST, "f16 pages");
    machine_close(&amx);
    machine_close(&ref);
    attention_case_fini(&c);
}

static int there(void **state)
{
    (void)state;
    if (cp_isa_there(CP_ISA_AMX))
        return 0;
    print_message("SKIPPED: the tile unit needs AVX2 beside it\n");
    return -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_refs_bits),
        cmocka_unit_test(a_rows_bits_are_its_own),
        cmocka_unit_test(f16_pages_have_the_bits_below),
    };
    return cmocka_run_group_tests_name("attend", tests, there, NULL);
}
