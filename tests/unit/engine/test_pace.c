/*
 * pace: rows for a step from the times of steps before. Machines here are formulas: nothing is
 * measured.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/pace.h"
#include "tests/unit/engine/fake.h"

enum { MAX_ROWS = 512, TARGET = 250 };
#define MS INT64_C(1000000)

/* Milliseconds of a step: its fixed part, and a thousandth part of row_us a row. */
typedef struct machine {
    int step_ms, row_us;
} machine;

static int64_t takes(machine m, int rows)
{
    return m.step_ms * MS + (int64_t)m.row_us * rows * 1000;
}

static cp_pace warmed(machine m)
{
    cp_pace p;
    cp_pace_init(&p, TARGET * MS, MAX_ROWS);
    cp_pace_begin(&p, 1, takes(m, 1), 16, takes(m, 16));
    return p;
}

/* Steps as full as they may be; how long the last one took, in ms. */
static int full_steps(cp_pace *p, machine m, int steps)
{
    int64_t ns = 0;
    for (int i = 0; i < steps; i++) {
        int rows = cp_pace_rows(p);
        assert_in_range(rows, 1, MAX_ROWS);
        ns = takes(m, rows);
        cp_pace_note(p, rows, ns);
    }
    return (int)(ns / MS);
}

static void small_steps(cp_pace *p, machine m, int rows, int steps)
{
    for (int i = 0; i < steps; i++)
        cp_pace_note(p, rows, takes(m, rows));
}

static void without_a_target_or_a_measure_rows_alone_limit(void **state)
{
    (void)state;
    cp_pace p;
    cp_pace_init(&p, 0, MAX_ROWS);
    cp_pace_begin(&p, 1, MS, 16, 100000 * MS);
    assert_int_equal(cp_pace_rows(&p), MAX_ROWS);
    cp_pace_init(&p, TARGET * MS, MAX_ROWS);
    assert_int_equal(cp_pace_rows(&p), MAX_ROWS);
    cp_pace_note(&p, 10, 100 * MS); /* the first one is all there is */
    assert_int_equal(cp_pace_rows(&p), 25);
}

static void two_steps_give_the_budget(void **state)
{
    (void)state;
    static const struct row {
        machine m;
        int first, rows;
    } rows[] = {
        {{0, 117188}, 2, 2},    /* 512 rows in a minute */
        {{6, 1400}, 174, 174},  /* a small model on two cores */
        {{0, 100}, 512, 512},   /* all rows are there before the time is up */
        {{60, 2000}, 95, 95},   /* the fixed part is paid first */
        {{100, 1000}, 90, 150}, /* where 16 rows take hardly longer than one, it begins with less */
        {{200, 1000}, 49, 109}, /* from half of the time on rows may take as long as the rest */
        {{400, 10000}, 41, 41}, /* also where the rest takes longer than the target */
        {{137, 88000}, 2, 2},   /* by as many whole rows as that is */
        {{0, 600000}, 1, 1},    /* never less than one */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        cp_pace p = warmed(rows[i].m);
        assert_in_range(cp_pace_rows(&p), rows[i].first - 1, rows[i].first + 1);
        full_steps(&p, rows[i].m, 100);
        assert_in_range(cp_pace_rows(&p), rows[i].rows - 1, rows[i].rows + 1);
    }
}

static void a_slower_machine_is_met_within_a_few_steps(void **state)
{
    (void)state;
    machine m = {6, 1400}, slow = {24, 5600};
    cp_pace p = warmed(m);
    assert_in_range(full_steps(&p, m, 10), 240, 255);
    assert_in_range(full_steps(&p, slow, 1), 900, 1100); /* the first one cannot know */
    assert_in_range(full_steps(&p, slow, 3), 150, TARGET * 5 / 4);
    assert_in_range(full_steps(&p, slow, 10), 200, 255);
    /* And what was slow for a while is tried in small steps: twice as much in ten. */
    int before = cp_pace_rows(&p);
    full_steps(&p, m, 10);
    assert_in_range(cp_pace_rows(&p), before * 3 / 2, before * 3);
    assert_in_range(full_steps(&p, m, 60), 225, 255);
}

static void one_step_that_was_held_up_is_forgotten(void **state)
{
    (void)state;
    machine m = {6, 1400};
    cp_pace p = warmed(m);
    cp_pace_note(&p, cp_pace_rows(&p), 3600 * 1000 * MS); /* the machine was suspended */
    assert_in_range(cp_pace_rows(&p), 50, 150);
    assert_in_range(full_steps(&p, m, 40), 200, 255);
}

/* A night of decoding leaves what was known of prompts, and keeps what a step costs. */
static void single_rows_say_little_of_many(void **state)
{
    (void)state;
    machine m = {6, 1400}, slow = {60, 1400};
    cp_pace p = warmed(m);
    small_steps(&p, m, 1, 100000);
    assert_in_range(cp_pace_rows(&p), 165, 185);
    small_steps(&p, slow, 1, 100000);
    assert_in_range(cp_pace_rows(&p), 110, 150); /* (250 - 60) / 1.4 = 135 */
}

/* A measure that cannot be (16 rows sooner than one): wrong, but in range, and mended by steps. */
static void nonsense_is_mended(void **state)
{
    (void)state;
    static const int64_t few[] = {200 * MS, 0, -5, 1, INT64_MAX / 2};
    static const int64_t many[] = {20 * MS, 0, -5, INT64_MAX / 2, 1};
    machine m = {6, 1400};
    for (size_t i = 0; i < sizeof(few) / sizeof(*few); i++) {
        cp_pace p;
        cp_pace_init(&p, TARGET * MS, MAX_ROWS);
        cp_pace_begin(&p, 1, few[i], 16, many[i]);
        assert_in_range(full_steps(&p, m, 400), 200, 255);
    }
}

int suite_pace(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_target_or_a_measure_rows_alone_limit),
        cmocka_unit_test(two_steps_give_the_budget),
        cmocka_unit_test(a_slower_machine_is_met_within_a_few_steps),
        cmocka_unit_test(one_step_that_was_held_up_is_forgotten),
        cmocka_unit_test(single_rows_say_little_of_many),
        cmocka_unit_test(nonsense_is_mended),
    };
    return cmocka_run_group_tests_name("pace", tests, NULL, NULL);
}
