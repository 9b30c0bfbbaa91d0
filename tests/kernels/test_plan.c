/*
 * test_plan: items of random batches. Every row meets every split that it sees once, results have a
 * place each, and rows are cut only where the backend asked for more items and has room for what
 * they leave.
 */
#include "kernels/plan.h"
#include "tests/kernels/weights.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEQS = 12, ROWS = 96, SPLITS = 16, RESULTS = 40 };

typedef struct plan {
    cp_attn_shape s;
    cp_batch b;
    cp_batch_seq seqs[SEQS];
    cp_attn_item items[ROWS + RESULTS];
    int n;
} plan;

static int below(uint64_t *seed, int n)
{
    return (int)((cp_test_random(seed) >> 11) % (uint64_t)n);
}

static void make(plan *p, uint64_t seed)
{
    static const int windows[] = {0, 1, 31, 512, 513, 1500};
    memset(p, 0, sizeof *p);
    p->s = (cp_attn_shape){.window = windows[below(&seed, 6)],
                           .n_kv = 1 + below(&seed, 4),
                           .tile_rows = 1 + below(&seed, 8),
                           .max_results = below(&seed, RESULTS + 1),
                           .wanted = below(&seed, 3) * 32};
    int n = 1 + below(&seed, SEQS), row = 0;
    bool decode = below(&seed, 2);
    for (int i = 0; i < n; i++) {
        int rows = decode ? 1 : 1 + below(&seed, ROWS / SEQS);
        /* half of them around the borders of splits and windows */
        int pos = below(&seed, SPLITS * CP_SPLIT - ROWS);
        if (below(&seed, 2))
            pos = pos / CP_SPLIT * CP_SPLIT + p->s.window % CP_SPLIT + below(&seed, 3);
        cp_batch_seq q = {.row0 = row, .n_rows = rows, .pos0 = pos};
        p->seqs[i] = q;
        row += rows;
    }
    p->b = (cp_batch){.n_rows = row, .n_seqs = n, .seqs = p->seqs};
    p->n = cp_attn_plan(&p->s, &p->b, p->items);
}

/* Does a row at pos see a key of the split? */
static bool sees(const plan *p, int pos, int split)
{
    for (int key = split * CP_SPLIT; key < (split + 1) * CP_SPLIT; key++)
        if (key <= pos && (!p->s.window || pos - key < p->s.window))
            return true;
    return false;
}

static void every_row_meets_every_split_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        plan p;
        int met[ROWS][SPLITS] = {0};
        make(&p, seed);
        assert_true(p.n > 0 && (size_t)p.n <= cp_attn_max_items(&p.s, p.b.n_rows));
        for (int i = 0; i < p.n; i++) {
            const cp_attn_item *it = &p.items[i];
            const cp_batch_seq *q = &p.seqs[it->seq];
            assert_true(it->n_rows > 0 && it->n_rows <= p.s.tile_rows);
            assert_true(it->row0 >= q->row0 && it->row0 + it->n_rows <= q->row0 + q->n_rows);
            assert_true(it->split0 >= 0 && it->split0 < it->split1 && it->split1 <= SPLITS);
            for (int r = it->row0; r < it->row0 + it->n_rows; r++)
                for (int k = it->split0; k < it->split1; k++)
                    met[r][k]++;
        }
        for (int s = 0; s < p.b.n_seqs; s++)
            for (int r = 0; r < p.seqs[s].n_rows; r++)
                for (int k = 0; k < SPLITS; k++) {
                    int times = met[p.seqs[s].row0 + r][k];
                    /* a tile also names splits that only others of its rows see */
                    if (sees(&p, p.seqs[s].pos0 + r, k) || p.seqs[s].n_rows == 1)
                        assert_int_equal(times, sees(&p, p.seqs[s].pos0 + r, k) ? 1 : 0);
                    else
                        assert_true(times <= 1);
                }
    }
}

static void results_have_a_place_each(void **state)
{
    (void)state;
    int cut_rows = 0;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        plan p;
        bool taken[RESULTS] = {0};
        int items = 0, merges = 0;
        make(&p, seed);
        for (int s = 0; s < p.b.n_seqs; s++)
            items += (p.seqs[s].n_rows + p.s.tile_rows - 1) / p.s.tile_rows;
        for (int i = 0; i < p.n; i++) {
            const cp_attn_item *it = &p.items[i];
            if (it->merge < 0)
                continue;
            assert_true(items * p.s.n_kv < p.s.wanted);
            assert_int_equal(p.seqs[it->seq].n_rows, 1);
            assert_int_equal(it->split1, it->split0 + 1);
            assert_true(it->result >= 0 && it->result < p.s.max_results);
            assert_false(taken[it->result]);
            taken[it->result] = true;
            if (i == 0 ||
                p.items[i - 1].merge != it->merge) { /* the row's first item: last split */
                int pos = p.seqs[it->seq].pos0;
                assert_int_equal(it->merge, merges++);
                assert_int_equal(it->split0, pos / CP_SPLIT);
                assert_int_equal(it->result, it->result0 + it->n_results - 1);
                assert_true(it->n_results > 1);
                assert_true(i + it->n_results <= p.n);
                cut_rows++;
            } else {
                const cp_attn_item *before = &p.items[i - 1];
                assert_int_equal(it->row0, before->row0);
                assert_int_equal(it->result0, before->result0);
                assert_int_equal(it->n_results, before->n_results);
                assert_int_equal(it->split0, before->split0 - 1);
                assert_int_equal(it->result, before->result - 1);
            }
        }
    }
    assert_true(cut_rows > 1000);
}

/* One row that sees 4 splits: in one item, or in four, as the backend asks and can hold. */
static void rows_are_cut_where_asked(void **state)
{
    (void)state;
    static const struct {
        int wanted, max_results, n_kv, items;
    } rows[] = {{0, 8, 1, 1}, {1, 8, 1, 1}, {2, 8, 1, 4}, {2, 4, 1, 4},
                {2, 3, 1, 1}, {2, 8, 2, 1}, {3, 8, 2, 4}};
    cp_batch_seq q = {.n_rows = 1, .pos0 = 3 * CP_SPLIT};
    cp_batch b = {.n_rows = 1, .n_seqs = 1, .seqs = &q};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cp_attn_item items[16];
        cp_attn_shape s = {.n_kv = rows[i].n_kv,
                           .tile_rows = 4,
                           .max_results = rows[i].max_results,
                           .wanted = rows[i].wanted};
        assert_int_equal(cp_attn_plan(&s, &b, items), rows[i].items);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_meets_every_split_once),
        cmocka_unit_test(results_have_a_place_each),
        cmocka_unit_test(rows_are_cut_where_asked),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
