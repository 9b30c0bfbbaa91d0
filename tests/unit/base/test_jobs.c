/*
 * Jobs: nothing is lost, order is kept, a full queue says so, closing runs what is queued.
 */
#include "tests/unit/base/suites.h"

#include "base/jobs.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

typedef struct log_of_jobs {
    pthread_mutex_t gate; /* held: jobs wait */
    _Atomic int started;
    _Atomic int order[64];
    _Atomic int n;
} log_of_jobs;

typedef struct one {
    log_of_jobs *log;
    int number;
} one;

static void run_one(void *arg)
{
    one *o = arg;
    atomic_fetch_add(&o->log->started, 1);
    pthread_mutex_lock(&o->log->gate);
    pthread_mutex_unlock(&o->log->gate);
    atomic_store(&o->log->order[atomic_fetch_add(&o->log->n, 1)], o->number);
}

static void full_queue_refuses_and_order_is_kept(void **state)
{
    (void)state;
    static log_of_jobs log = {.gate = PTHREAD_MUTEX_INITIALIZER};
    static one jobs[10];
    cp_jobs *j = NULL;
    cp_err err;
    assert_int_equal(cp_jobs_open(&j, 1, 4, &err), CP_OK);
    pthread_mutex_lock(&log.gate);
    for (int i = 0; i < 10; i++)
        jobs[i] = (one){&log, i};
    assert_true(cp_jobs_submit(j, run_one, &jobs[0]));
    while (atomic_load(&log.started) == 0)
        sched_yield(); /* the worker holds job 0, the queue is empty */
    for (int i = 1; i <= 4; i++)
        assert_true(cp_jobs_submit(j, run_one, &jobs[i]));
    assert_false(cp_jobs_submit(j, run_one, &jobs[5]));
    pthread_mutex_unlock(&log.gate);
    cp_jobs_close(j);
    assert_int_equal(atomic_load(&log.n), 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(atomic_load(&log.order[i]), i);
}

static void count_up(void *arg)
{
    atomic_fetch_add((_Atomic int *)arg, 1);
}

static void all_jobs_run_on_several_threads(void **state)
{
    (void)state;
    cp_jobs *j = NULL;
    cp_err err;
    _Atomic int n = 0;
    assert_int_equal(cp_jobs_open(&j, 3, 16, &err), CP_OK);
    for (int i = 0; i < 2000;) {
        if (cp_jobs_submit(j, count_up, &n))
            i++;
        else
            sched_yield();
    }
    cp_jobs_close(j);
    assert_int_equal(atomic_load(&n), 2000);
    cp_jobs_close(NULL);
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    cp_jobs *j = NULL;
    cp_err err;
    assert_int_equal(cp_jobs_open(&j, 0, 4, &err), CP_INVALID_VALUE);
    assert_int_equal(cp_jobs_open(&j, 1, 0, &err), CP_INVALID_VALUE);
    assert_null(j);
}

int suite_jobs(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_queue_refuses_and_order_is_kept),
        cmocka_unit_test(all_jobs_run_on_several_threads),
        cmocka_unit_test(bad_sizes_are_refused),
    };
    return cmocka_run_group_tests_name("jobs", tests, NULL, NULL);
}
