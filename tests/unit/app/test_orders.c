/* orders: so many at once and no more, and an end that waits for them, but not for ever. */
#include "tests/support/cmocka.h"

#include "app/orders.h"

#include <sched.h>
#include <stdatomic.h>

typedef struct scene {
    _Atomic bool held; /* orders stand still while it is */
    _Atomic int begun, done;
} scene;

static void work(void *arg)
{
    scene *s = arg;
    atomic_fetch_add(&s->begun, 1);
    while (atomic_load(&s->held))
        sched_yield();
    atomic_fetch_add(&s->done, 1);
}

static void there_are_no_more_than_may_be(void **state)
{
    (void)state;
    scene s = {.held = true};
    cp_orders *o = cp_orders_new(3);
    for (int i = 0; i < 3; i++)
        assert_true(cp_orders_give(o, work, &s));
    assert_false(cp_orders_give(o, work, &s));
    while (atomic_load(&s.begun) < 3)
        sched_yield();
    atomic_store(&s.held, false);
    while (!cp_orders_give(o, work, &s)) /* one has ended */
        sched_yield();
    assert_true(cp_orders_end(o, 60000));
    assert_int_equal(atomic_load(&s.done), 4);
    cp_orders_free(o);
}

static void the_end_waits_and_gives_up(void **state)
{
    (void)state;
    scene s = {.held = true};
    cp_orders *o = cp_orders_new(3);
    assert_true(cp_orders_give(o, work, &s));
    assert_false(cp_orders_end(o, 1));
    assert_false(cp_orders_give(o, work, &s)); /* no more, although there is room */
    atomic_store(&s.held, false);
    assert_true(cp_orders_end(o, 60000));
    assert_int_equal(atomic_load(&s.done), 1);
    cp_orders_free(o);
    cp_orders_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_are_no_more_than_may_be),
        cmocka_unit_test(the_end_waits_and_gives_up),
    };
    return cmocka_run_group_tests_name("orders", tests, NULL, NULL);
}
