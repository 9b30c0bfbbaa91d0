/*
 * The compute pool: each item drawn once in each operation, writes visible past a barrier, barriers
 * counted, many runs with sleeps between; and the quota reader on made-up cgroup trees.
 */
#include "tests/unit/base/suites.h"

#include "base/mem.h"
#include "base/pool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS_MAX = 4, OPS = 40, ITEMS_MAX = 500 };

typedef struct work {
    int drawn[OPS][ITEMS_MAX]; /* plain: one worker an item, barriers between operations */
    int64_t n[OPS], grain[OPS];
    int arrived[THREADS_MAX][16]; /* a line each: operations done, was another one behind */
} work;

static void walk(cp_pool *p, int id, void *arg)
{
    work *w = arg;
    for (int op = 0; op < OPS; op++) {
        for (int64_t at; (at = cp_pool_ticket(p, w->n[op], w->grain[op])) < w->n[op];) {
            for (int64_t i = at; i < at + w->grain[op] && i < w->n[op]; i++)
                w->drawn[op][i] += 1 + (op > 0 ? w->drawn[op - 1][0] - 1 : 0);
        }
        w->arrived[id][0] = op + 1;
        if (!cp_pool_barrier(p, id))
            return;
        for (int t = 0; t < cp_pool_active(p); t++)
            w->arrived[id][1] |= w->arrived[t][0] != op + 1; /* its own line */
        if (!cp_pool_barrier(p, id))
            return;
    }
}

static void every_item_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= THREADS_MAX; threads++) {
        cp_pool *p = NULL;
        cp_err err;
        assert_int_equal(cp_pool_open(&p, threads, &err), CP_OK);
        assert_int_equal(cp_pool_threads(p), threads);
        work *w = calloc(1, sizeof(*w));
        for (int run = 0; run < 5; run++) {
            memset(w, 0, sizeof(*w));
            for (int op = 0; op < OPS; op++) {
                w->n[op] = 1 + (op * 37 + run) % ITEMS_MAX;
                w->grain[op] = 1 + op % 7;
            }
            cp_pool_run(p, walk, w);
            for (int t = 0; t < threads; t++)
                assert_int_equal(w->arrived[t][1], 0);
            for (int op = 0; op < OPS; op++) {
                for (int64_t i = 0; i < ITEMS_MAX; i++)
                    assert_int_equal(w->drawn[op][i], i < w->n[op] ? 1 : 0);
            }
            assert_int_equal(cp_pool_barriers(p), (uint64_t)(run + 1) * OPS * 2);
        }
        free(w);
        cp_pool_close(p);
    }
    cp_pool_close(NULL);
}

/* A worker that is off the CPU for long makes another one rest; nothing is lost, and it comes back.
 */
static void slow_walk(cp_pool *p, int id, void *arg)
{
    if (id == 0)
        usleep(20000);
    if (cp_pool_barrier(p, id))
        walk(p, id, arg);
}

static void a_late_worker_shrinks_the_pool(void **state)
{
    (void)state;
    cp_pool *p = NULL;
    cp_err err;
    assert_int_equal(cp_pool_open(&p, 3, &err), CP_OK);
    int least = 3, runs = 0;
    for (; runs < 1000 && (runs < 3 || cp_pool_active(p) < 3); runs++) {
        work *w = calloc(1, sizeof(*w));
        for (int op = 0; op < OPS; op++) {
            w->n[op] = 1 + (op * 31 + runs) % ITEMS_MAX;
            w->grain[op] = 3;
        }
        cp_pool_run(p, runs == 1 ? slow_walk : walk, w);
        least = cp_pool_active(p) < least ? cp_pool_active(p) : least;
        for (int t = 0; t < 3; t++)
            assert_int_equal(w->arrived[t][1], 0);
        for (int op = 0; op < OPS; op++) {
            for (int64_t i = 0; i < w->n[op]; i++)
                assert_int_equal(w->drawn[op][i], 1);
        }
        free(w);
        usleep(5000);
    }
    assert_true(least < 3);
    assert_int_equal(cp_pool_active(p), 3);
    cp_pool_close(p);
}

static void count_run(cp_pool *p, int id, void *arg)
{
    (void)p;
    ((int *)arg)[id * 16]++;
}

/* Runs without any barrier, some after a pause long enough for the workers to sleep. */
static void runs_follow_each_other(void **state)
{
    (void)state;
    cp_pool *p = NULL;
    cp_err err;
    int counts[3 * 16] = {0};
    assert_int_equal(cp_pool_open(&p, 3, &err), CP_OK);
    for (int i = 0; i < 500; i++) {
        cp_pool_run(p, count_run, counts);
        for (int t = 0; t < 3; t++)
            assert_int_equal(counts[t * 16], i + 1);
        if (i % 50 == 0)
            usleep(2000);
    }
    cp_pool_close(p);
}

typedef struct runner {
    cp_pool *pool;
    int *counts; /* plain: the pool must keep the runs apart */
} runner;

static void *run_often(void *arg)
{
    runner *r = arg;
    for (int i = 0; i < 300; i++)
        cp_pool_run(r->pool, count_run, r->counts);
    return NULL;
}

/* A model is packed by the loading thread while the engine steps. */
static void threads_take_turns(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        int counts[2 * 16] = {0};
        runner r = {NULL, counts};
        cp_err err;
        pthread_t other;
        assert_int_equal(cp_pool_open(&r.pool, threads, &err), CP_OK);
        assert_int_equal(pthread_create(&other, NULL, run_often, &r), 0);
        run_often(&r);
        pthread_join(other, NULL);
        for (int t = 0; t < threads; t++)
            assert_int_equal(counts[t * 16], 600);
        cp_pool_close(r.pool);
    }
}

static void bad_thread_counts_are_refused(void **state)
{
    (void)state;
    cp_pool *p = NULL;
    cp_err err;
    assert_int_equal(cp_pool_open(&p, 0, &err), CP_INVALID_VALUE);
    assert_int_equal(cp_pool_open(&p, 1 << 20, &err), CP_INVALID_VALUE);
    assert_null(p);
    assert_true(cp_pool_default_threads() >= 1);
}

/* Write dir/path with text, making folders. */
static void plant(const char *dir, const char *path, const char *text)
{
    char full[256];
    cp_snprintf(full, sizeof(full), "%s/%s", dir, path);
    for (char *s = full + strlen(dir) + 1; (s = strchr(s, '/')); s++) {
        *s = '\0';
        mkdir(full, 0700);
        *s = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void quotas_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *group; /* /proc/self/cgroup */
        const char *path[4], *text[4];
        int cores; /* 0: no quota */
    } cases[] = {
        {"0::/a/b\n", {"a/b/cpu.max"}, {"200000 100000\n"}, 2},
        {"0::/a/b\n", {"a/b/cpu.max", "a/cpu.max"}, {"max 100000\n", "350000 100000\n"}, 3},
        {"0::/a/b\n", {"a/b/cpu.max", "cpu.max"}, {"400000 100000\n", "150000 100000\n"}, 1},
        {"0::/a\n", {"a/cpu.max"}, {"50000 100000\n"}, 1},
        {"0::/\n", {"cpu.max"}, {"max 100000\n"}, 0},
        {"0::/gone\n", {"other"}, {"x"}, 0},
        {"0::/a\n", {"a/cpu.max"}, {"rubbish\n"}, 0},
        {"0::/a\n", {"a/cpu.max"}, {"100000 0\n"}, 0},
        {"5:cpuset:/x\n4:cpu,cpuacct:/y\n",
         {"cpu,cpuacct/y/cpu.cfs_quota_us", "cpu,cpuacct/y/cpu.cfs_period_us"},
         {"600000\n", "100000\n"},
         6},
        {"4:cpu:/y\n",
         {"cpu/y/cpu.cfs_quota_us", "cpu/y/cpu.cfs_period_us"},
         {"-1\n", "100000\n"},
         0},
        {"", {"cpu.max"}, {"100000 100000\n"}, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char dir[] = "/tmp/capstan-cgroup-XXXXXX", group[64], command[128];
        assert_non_null(mkdtemp(dir));
        for (int k = 0; k < 4 && cases[i].path[k]; k++)
            plant(dir, cases[i].path[k], cases[i].text[k]);
        temp_file(group, cases[i].group);
        int cores = cp_pool_quota_cores(group, dir);
        if (cases[i].cores)
            assert_int_equal(cores, cases[i].cores);
        else
            assert_true(cores > 1024);
        unlink(group);
        cp_snprintf(command, sizeof(command), "rm -rf '%s'", dir);
        FILE *rm = popen(command, "r");
        assert_non_null(rm);
        pclose(rm);
    }
    assert_true(cp_pool_quota_cores("/nowhere", "/nowhere") > 1024);
}

int suite_pool(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once),
        cmocka_unit_test(a_late_worker_shrinks_the_pool),
        cmocka_unit_test(runs_follow_each_other),
        cmocka_unit_test(threads_take_turns),
        cmocka_unit_test(bad_thread_counts_are_refused),
        cmocka_unit_test(quotas_are_read),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
