/*
 * test_sinks: a sink counts once in the denominator of its head, however many splits a row sees.
 * With queries of zero every visible key weighs 1, so that the sink s leaves n / (n + e^s) of what
 * attention without it gives. (That the levels agree with ref for any record is test_ops'.)
 */
#include "kernels/host.h"
#include "tests/kernels/rig.h"

#include "base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { HEADS = 4, KV = 2, DIM = 18, ROWS = 20 };
static const float sinks[HEADS] = {6.0f, -40.0f, 0.0f, 100.0f};

typedef struct attention {
    rig r;
    cp_op *op;
    cp_wref sinks;
    rig_seq q;
    rig_batch b;
} attention;

static void attention_init(attention *a, int pos0, int n_rows, int window)
{
    rig_init(&a->r, 11);
    cp_op *op = a->op = rig_op(&a->r, CP_OP_ATTENTION, CP_ROWS_ALL);
    op->u.attention.q = rig_mat(&a->r, HEADS * DIM, CP_ROWS_ALL);
    op->u.attention.k = rig_mat(&a->r, KV * DIM, CP_ROWS_ALL);
    op->u.attention.v = rig_mat(&a->r, KV * DIM, CP_ROWS_ALL);
    op->u.attention.out = rig_mat(&a->r, HEADS * DIM, CP_ROWS_ALL);
    op->u.attention.rope = op->u.attention.q_norm = op->u.attention.k_norm = -1;
    op->u.attention.scale = 1.0f;
    op->u.attention.n_heads = HEADS;
    op->u.attention.n_kv = KV;
    op->u.attention.k_dim = op->u.attention.v_dim = DIM;
    op->u.attention.window = window;
    op->u.attention.group =
        rig_group(&a->r, (cp_kv_group){.kind = window ? CP_GROUP_WINDOW : CP_GROUP_FULL,
                                       .n_layers = 1,
                                       .n_kv = KV,
                                       .k_dim = DIM,
                                       .v_dim = DIM,
                                       .window = window});
    a->sinks = rig_vector(&a->r, HEADS, 1);
    memcpy((void *)(uintptr_t)a->r.tensors[a->sinks].data, sinks, sizeof sinks);
    a->r.cfg.page_positions = 32;
    a->r.cfg.n_pages = 80;
    a->q = (rig_seq){.pos0 = pos0, .n_rows = n_rows};
    rig_batch_init(&a->b, &a->r, &a->q, 1, false);
}

/* out[row][HEADS * DIM], with the sinks or without. */
static void run(attention *a, const char *level, bool with, float (*out)[HEADS * DIM])
{
    static const float zero[HEADS * DIM];
    a->op->u.attention.sinks = with ? a->sinks : (cp_wref)-1;
    machine m = machine_open(&a->r, level, 2);
    machine_fill(&m, 3);
    for (int r = 0; r < a->q.n_rows; r++)
        machine_put_row(&m, a->op->u.attention.q, r, zero);
    machine_step(&m, &a->b.b);
    for (int r = 0; r < a->q.n_rows; r++)
        memcpy(out[r], cp_host_row(m.p, a->op->u.attention.out, r), sizeof *out);
    machine_close(&m);
}

static void check(const char *level, int pos0, int n_rows, int window)
{
    static float plain[ROWS][HEADS * DIM], sunk[ROWS][HEADS * DIM];
    attention a;
    attention_init(&a, pos0, n_rows, window);
    run(&a, level, false, plain);
    run(&a, level, true, sunk);
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < HEADS * DIM; i++) {
            int seen = window && window < pos0 + r + 1 ? window : pos0 + r + 1;
            double want = (double)plain[r][i] * (seen / (seen + exp((double)sinks[i / DIM])));
            if (!(fabs((double)sunk[r][i] - want) <= 1e-6))
                fail_msg("%s: position %d, window %d, head %d: %g in place of %g",
                         level ? level : "ref", pos0 + r, window, i / DIM, (double)sunk[r][i],
                         want);
        }
    rig_batch_fini(&a.b);
    rig_fini(&a.r);
}

static void check_all(const char *level)
{
    static const int windows[] = {0, 8, 700};
    for (int i = 0; i < 3; i++) {
        check(level, 0, ROWS, windows[i]);    /* within a split */
        check(level, 505, ROWS, windows[i]);  /* over its border */
        check(level, 1100, 1, windows[i]);    /* three splits, decoding */
        check(level, 1530, ROWS, windows[i]); /* up to four */
    }
}

static void test_once_in_the_denominator(void **state)
{
    (void)state;
    check_all(NULL);
    for (const char *const *level = rig_levels(); *level; level++)
        check_all(*level);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_once_in_the_denominator)};
    return cmocka_run_group_tests_name("sinks", tests, NULL, NULL);
}
