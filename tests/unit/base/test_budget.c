/*
 * Budgets: nobody takes more than there is, what arrives leaves room for work, work waits for work
 * and for nothing else, everything comes back; buffers and arenas pay for what they hold.
 */
#include "tests/unit/base/suites.h"

#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static void taking_ends_at_the_limit(void **state)
{
    (void)state;
    cp_budget *b = cp_budget_new(1000);
    cp_account x = {.budget = b}, y = {.budget = b}, none = {0};
    assert_true(cp_account_take(&x, 600));
    assert_false(cp_account_take(&y, 401));
    assert_true(y.refused);
    assert_false(y.never);
    assert_true(cp_account_take(&y, 400));
    assert_int_equal(cp_budget_used(b), 1000);
    cp_account_give(&x, 600);
    assert_false(cp_account_take(&y, 601)); /* 1,001 in all: no waiting helps */
    assert_true(y.never);
    assert_true(cp_account_take(&none, SIZE_MAX));
    cp_account_close(&x);
    cp_account_close(&y);
    assert_int_equal(cp_budget_used(b), 0);
    cp_budget_free(b);
}

static void what_arrives_has_a_quarter(void **state)
{
    (void)state;
    enum { K = 1000 }; /* so that nothing here is small */
    cp_budget *b = cp_budget_new(1000 * K);
    cp_account x = {.budget = b, .arriving = true}, y = x, z = {.budget = b}, small = x;
    assert_int_equal(cp_budget_arriving_max(b), 250 * K);
    assert_true(cp_account_take(&x, 200 * K));
    assert_false(cp_account_take(&y, 51 * K));
    assert_false(y.never);
    assert_true(cp_account_take(&y, 50 * K));
    assert_true(cp_account_take(&small, 16 << 10)); /* although the quarter is full */
    assert_false(cp_account_take(&small, 1));
    cp_account_close(&small);
    cp_account_move(&z, &x);
    assert_true(cp_account_begin(&z, 750 * K)); /* 950 for it, 50 for y */
    assert_int_equal(cp_budget_used(b), 1000 * K);
    assert_false(cp_account_take(&y, 1));      /* its quarter has room again, the whole has not */
    assert_true(cp_account_take(&z, 750 * K)); /* out of its reserve */
    assert_false(cp_account_take(&z, 1));
    cp_account_give(&z, 300 * K);
    cp_account_end(&z);
    assert_int_equal(z.held, 650 * K);
    assert_true(cp_account_take(&y, 200 * K)); /* a whole quarter */
    assert_false(cp_account_take(&y, 1));
    assert_true(y.never);
    cp_account_close(&y);
    cp_account_close(&z);
    cp_budget_free(b);
}

typedef struct waiter {
    cp_account account;
    _Atomic int ended; /* 1 begun, 2 refused */
} waiter;

static void *begin(void *arg)
{
    waiter *w = arg;
    atomic_store(&w->ended, cp_account_begin(&w->account, 700) ? 1 : 2);
    return NULL;
}

static void work_waits_for_work_only(void **state)
{
    (void)state;
    cp_budget *b = cp_budget_new(1000);
    cp_account x = {.budget = b}, y = {.budget = b};
    waiter w = {.account = {.budget = b}};
    pthread_t thread;
    /* Nobody works: there is nothing to wait for. */
    assert_true(cp_account_take(&y, 400));
    begin(&w);
    assert_int_equal(w.ended, 2);
    assert_false(w.account.never);
    /* Somebody works, and leaves room when he ends. */
    atomic_store(&w.ended, 0);
    cp_account_give(&y, 100);
    assert_true(cp_account_begin(&x, 500));
    pthread_create(&thread, NULL, begin, &w);
    for (int i = 0; i < 100; i++)
        sched_yield();
    assert_int_equal(atomic_load(&w.ended), 0);
    cp_account_end(&x);
    pthread_join(thread, NULL);
    assert_int_equal(w.ended, 1);
    cp_account_close(&w.account);
    /* Somebody works, ends, and what he made stays: refused then. */
    atomic_store(&w.ended, 0);
    assert_true(cp_account_begin(&x, 500));
    assert_true(cp_account_take(&x, 500));
    pthread_create(&thread, NULL, begin, &w);
    for (int i = 0; i < 100; i++)
        sched_yield();
    cp_account_end(&x);
    pthread_join(thread, NULL);
    assert_int_equal(w.ended, 2);
    cp_account_close(&x);
    cp_account_close(&y);
    cp_budget_free(b);
}

static void buffers_pay_for_their_memory(void **state)
{
    (void)state;
    cp_budget *b = cp_budget_new(1 << 20);
    cp_account x = {.budget = b};
    cp_buf buf = {.account = &x};
    char block[1000] = {0};
    size_t n = 0;
    while (cp_buf_add(&buf, block, sizeof(block))) {
        n += sizeof(block);
        assert_true(x.held >= buf.cap);
        assert_true(x.held <= (1 << 20));
    }
    assert_true(n > (1 << 19));
    assert_true(buf.failed && x.refused);
    cp_buf_fini(&buf);
    assert_int_equal(x.held, 0);
    /* A limit of its own is no reason to take more than the limit. */
    cp_buf small = {.account = &x, .max = 10000};
    while (cp_buf_add(&small, block, 100))
        ;
    assert_int_equal(small.n, 10000);
    assert_true(small.cap <= 10001);
    cp_buf_fini(&small);
    cp_budget_free(b);
}

static void arenas_pay_for_their_blocks(void **state)
{
    (void)state;
    cp_budget *b = cp_budget_new(1 << 20);
    cp_account x = {.budget = b};
    cp_arena *a = cp_arena_new((size_t)1 << 30);
    cp_arena_charge(a, &x);
    size_t n = 0;
    while (cp_arena_alloc(a, 4000))
        n += 4000;
    assert_true(n > (1 << 18) && n <= (1 << 20));
    assert_true(x.refused && !cp_arena_full(a));
    assert_true(x.held >= n);
    cp_arena_free(a);
    assert_int_equal(x.held, 0);
    a = cp_arena_new(1000);
    assert_null(cp_arena_alloc(a, 2000));
    assert_true(cp_arena_full(a));
    cp_arena_free(a);
    cp_budget_free(b);
}

/* A limit below what is in use takes nothing away, and gives nothing until so much has come back.
 */
static void the_limit_changes(void **state)
{
    (void)state;
    cp_budget *b = cp_budget_new(1000);
    cp_account x = {.budget = b}, y = {.budget = b};
    assert_true(cp_account_take(&x, 900));
    cp_budget_set_limit(b, 500);
    assert_int_equal(cp_budget_limit(b), 500);
    assert_int_equal(cp_budget_arriving_max(b), 125);
    assert_false(cp_account_take(&y, 1));
    assert_true(y.refused && !y.never);
    cp_account_give(&x, 399);
    assert_false(cp_account_take(&y, 1));
    cp_account_give(&x, 2);
    assert_true(cp_account_take(&y, 1));
    assert_false(cp_account_take(&y, 1));
    cp_budget_set_limit(b, 2000);
    assert_true(cp_account_take(&y, 1500));
    cp_account_close(&x);
    cp_account_close(&y);
    cp_budget_free(b);
}

int suite_budget(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taking_ends_at_the_limit),
        cmocka_unit_test(what_arrives_has_a_quarter),
        cmocka_unit_test(work_waits_for_work_only),
        cmocka_unit_test(buffers_pay_for_their_memory),
        cmocka_unit_test(arenas_pay_for_their_blocks),
        cmocka_unit_test(the_limit_changes),
    };
    return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
