/*
 * Queues: order and completeness, alone and with real producers (TSan watches the orders).
 */
#include "tests/unit/base/suites.h"

#include "base/queue.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

static void ring_fills_wraps_and_empties(void **state)
{
    (void)state;
    uint32_t mem[4];
    cp_ring r;
    cp_ring_init(&r, mem, sizeof(uint32_t), 4);
    atomic_store(&r.head, UINT32_MAX - 1); /* the indices wrap in the middle of the test */
    atomic_store(&r.tail, UINT32_MAX - 1);
    uint32_t next_in = 0, next_out = 0, v;
    assert_false(cp_ring_pop(&r, &v));
    for (int round = 0; round < 50; round++) {
        while (cp_ring_push(&r, &next_in))
            next_in++;
        assert_int_equal(cp_ring_count(&r), 4);
        for (int i = 0; i < 1 + round % 4; i++) {
            assert_true(cp_ring_pop(&r, &v));
            assert_int_equal(v, next_out++);
        }
    }
    while (cp_ring_pop(&r, &v))
        assert_int_equal(v, next_out++);
    assert_int_equal(next_in, next_out);
    assert_int_equal(cp_ring_count(&r), 0);
}

enum { RING_RECORDS = 50000, PRODUCERS = 4, NODES = 5000 };

typedef struct record {
    uint32_t n, twice;
} record;

static void *ring_producer(void *arg)
{
    for (uint32_t i = 0; i < RING_RECORDS;) {
        record rec = {i, 2 * i};
        if (cp_ring_push(arg, &rec))
            i++;
        else
            sched_yield();
    }
    return NULL;
}

static void ring_crosses_threads(void **state)
{
    (void)state;
    record mem[8], rec;
    cp_ring r;
    cp_ring_init(&r, mem, sizeof(record), 8);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, ring_producer, &r), 0);
    for (uint32_t i = 0; i < RING_RECORDS;) {
        if (!cp_ring_pop(&r, &rec)) {
            sched_yield();
            continue;
        }
        if (rec.n != i || rec.twice != 2 * i)
            fail_msg("record %u came as %u, %u", i, rec.n, rec.twice);
        i++;
    }
    pthread_join(t, NULL);
}

typedef struct item {
    cp_mpsc_node node;
    int producer, number;
} item;

typedef struct producer {
    cp_mpsc *q;
    item *items;
    int id;
} producer;

static void *mpsc_producer(void *arg)
{
    producer *p = arg;
    for (int i = 0; i < NODES; i++) { /* written here: the push must publish it */
        p->items[i].producer = p->id;
        p->items[i].number = i;
        cp_mpsc_push(p->q, &p->items[i].node);
    }
    return NULL;
}

static void mpsc_keeps_each_producers_order(void **state)
{
    (void)state;
    cp_mpsc q;
    cp_mpsc_init(&q);
    assert_null(cp_mpsc_pop(&q));
    producer p[PRODUCERS];
    pthread_t t[PRODUCERS];
    int seen[PRODUCERS] = {0}, total = 0;
    for (int i = 0; i < PRODUCERS; i++) {
        p[i] = (producer){&q, calloc(NODES, sizeof(item)), i};
        assert_int_equal(pthread_create(&t[i], NULL, mpsc_producer, &p[i]), 0);
    }
    while (total < PRODUCERS * NODES) {
        cp_mpsc_node *n = cp_mpsc_pop(&q);
        if (!n) {
            sched_yield();
            continue;
        }
        item *it = (item *)n;
        if (it->number != seen[it->producer]++)
            fail_msg("producer %d: %d out of order", it->producer, it->number);
        total++;
    }
    assert_null(cp_mpsc_pop(&q));
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(t[i], NULL);
        free(p[i].items);
    }
}

/* A node may be pushed again as soon as it was popped: the queue keeps no link to it. */
static void mpsc_nodes_can_be_reused(void **state)
{
    (void)state;
    cp_mpsc q;
    cp_mpsc_init(&q);
    cp_mpsc_node a, b;
    for (int i = 0; i < 10; i++) {
        cp_mpsc_push(&q, &a);
        assert_ptr_equal(cp_mpsc_pop(&q), &a);
        cp_mpsc_push(&q, &b);
        cp_mpsc_push(&q, &a);
        assert_ptr_equal(cp_mpsc_pop(&q), &b);
        cp_mpsc_push(&q, &b);
        assert_ptr_equal(cp_mpsc_pop(&q), &a);
        assert_ptr_equal(cp_mpsc_pop(&q), &b);
        assert_null(cp_mpsc_pop(&q));
    }
}

int suite_queue(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_fills_wraps_and_empties),
        cmocka_unit_test(ring_crosses_threads),
        cmocka_unit_test(mpsc_keeps_each_producers_order),
        cmocka_unit_test(mpsc_nodes_can_be_reused),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
