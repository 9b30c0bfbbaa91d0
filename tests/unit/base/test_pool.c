/*
 * The compute pool: each item drawn once in each operation, writes visible past a barrier, barriers
 * counted, many runs with sleeps between; and the quota reader on made-up cgroup trees.
 */
#include "tests/unit/base/suites.h"

#include "base/mem.h"
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS_MAX = 4, OPS = 40, ITEMS_MAX = 500 };

typedef struct work {
    int drawn[OPS][ITEMS_MAX];    /* plain: one worker an item, barriers between operations */
    int64_t n[OPS], grain[OPS];   /* grain 0: in shares */
    int arrived[THREADS_MAX][16]; /* a line each: operations done, was another one behind */
} work;

static void walk(cp_pool *p, int id, void *arg)
{
    work *w = arg;
    cp_share share = {0};
    for (int op = 0; op < OPS; op++) {
        while (!w->grain[op]) {
            int64_t at = cp_pool_share(p, w->n[op], &share);
            if (at >= w->n[op])
                break;
            w->drawn[op][at] += 1 + (op > 0 ? w->drawn[op - 1][0] - 1 : 0);
        }
        for (int64_t at;
             w->grain[op] && (at = cp_pool_ticket(p, w->n[op], w->grain[op])) < w->n[op];) {
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
                w->grain[op] = op % 8;
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

static void count_run(cp_pool *p, int id, void *arg)
{
    (void)p;
    ((int *)arg)[id * 16]++;
}

/* Clocks that only the test moves. Who asks for the CPU time of the last worker is the one that
 * waits; then it looks at the wall, and the marks are taken. */
typedef struct stage {
    int threads;
    bool lose_before, lose_late, come_back;
    cp_pool *pool;
    _Atomic int64_t wall_ns, lost_ns; /* lost: by worker 0, in all */
    _Atomic bool go;
    _Atomic int64_t asked, marked; /* barriers passed when the marks were begun, and taken */
    _Atomic int joined;            /* workers that came back within a run */
    _Atomic int waits;             /* others that are at a barrier, or one line before it */
    work w;
} stage;

/* Who takes the marks may be overtaken by who takes the next ones. */
static void raise_to(_Atomic int64_t *count, int64_t to)
{
    int64_t now = atomic_load(count);
    while (now < to && !atomic_compare_exchange_weak(count, &now, to))
        continue;
}

static int64_t stage_wall(void *arg)
{
    stage *s = arg;
    int64_t now = atomic_load(&s->wall_ns);
    raise_to(&s->marked, atomic_load(&s->asked));
    return now;
}

static int64_t stage_cpu(void *arg, int id)
{
    stage *s = arg;
    if (id == s->threads - 1)
        raise_to(&s->asked, (int64_t)cp_pool_barriers(s->pool));
    return atomic_load(&s->wall_ns) - (id == 0 ? atomic_load(&s->lost_ns) : 0);
}

static void pass(stage *s, int64_t ns, bool off_the_cpu)
{
    atomic_fetch_add(&s->wall_ns, ns);
    atomic_fetch_add(&s->lost_ns, off_the_cpu ? ns : 0);
}

/* Worker 0 keeps the others waiting until one has taken the marks, and then so much longer that it
 * may be blamed. */
static void be_late(stage *s)
{
    int64_t passed = (int64_t)cp_pool_barriers(s->pool);
    while (atomic_load(&s->marked) < passed ||
           atomic_load(&s->waits) < (int)(passed + 1) * (s->threads - 1))
        sched_yield();
    pass(s, 5000000, s->lose_late);
}

static void stage_walk(cp_pool *p, int id, void *arg)
{
    stage *s = arg;
    int from = cp_pool_join_point(p);
    atomic_fetch_add(&s->joined, from > 0);
    for (int op = from; op < OPS; op++) {
        if (op == 0 && id == 0) {
            pass(s, s->lose_before ? 1000000000 : 0, true);
            atomic_store(&s->go, true);
        }
        while (op == 0 && !atomic_load(&s->go)) /* nobody waits at the barrier yet */
            sched_yield();
        if (id == 0 && op > 0 && op < OPS - 10 && cp_pool_active(p) == s->threads)
            be_late(s);
        if (id == 0 && op == OPS - 5 && s->come_back)
            pass(s, 60000000, false); /* the rest is over */
        for (int64_t at; (at = cp_pool_ticket(p, s->w.n[op], 2)) < s->w.n[op];) {
            for (int64_t i = at; i < at + 2 && i < s->w.n[op]; i++)
                s->w.drawn[op][i] += 1 + (op > 0 ? s->w.drawn[op - 1][0] - 1 : 0);
        }
        atomic_fetch_add(&s->waits, id > 0);
        if (!cp_pool_barrier_join(p, id, op + 1))
            return;
    }
}

/* Returns the workers that walk along at the end of one run; then the rest is over, and all run. */
static int run_stage(stage *s)
{
    cp_err err;
    cp_pool_clocks clocks = {stage_wall, stage_cpu, s};
    int counts[THREADS_MAX * 16] = {0};
    assert_int_equal(cp_pool_open(&s->pool, s->threads, &err), CP_OK);
    cp_pool_set_clocks(s->pool, &clocks);
    atomic_store(&s->wall_ns, INT64_C(1000000000000));
    for (int op = 0; op < OPS; op++)
        s->w.n[op] = 1 + op * 37 % ITEMS_MAX;
    cp_pool_run(s->pool, stage_walk, s);
    for (int op = 0; op < OPS; op++) {
        for (int64_t i = 0; i < s->w.n[op]; i++)
            assert_int_equal(s->w.drawn[op][i], 1);
    }
    assert_int_equal(cp_pool_barriers(s->pool), OPS);
    int active = cp_pool_active(s->pool);
    cp_pool_run(s->pool, count_run, counts);
    assert_int_equal(cp_pool_active(s->pool), active);
    pass(s, 60000000, false);
    cp_pool_run(s->pool, count_run, counts);
    for (int i = 0; i < s->threads; i++)
        assert_int_equal(counts[i * 16], i < active ? 2 : 1);
    cp_pool_close(s->pool);
    return active;
}

static stage *stage_new(int threads)
{
    stage *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->threads = threads;
    return s;
}

static void what_is_lost_while_others_wait_shrinks_the_pool(void **state)
{
    (void)state;
    for (int threads = 2; threads <= 3; threads++) {
        stage *s = stage_new(threads);
        s->lose_late = true;
        assert_int_equal(run_stage(s), threads - 1);
        free(s);
    }
}

/* An item that takes long, and what a worker lost before anybody had to wait. */
static void what_does_not_hold_others_up_shrinks_nothing(void **state)
{
    (void)state;
    for (int before = 0; before < 2; before++) {
        stage *s = stage_new(2);
        s->lose_before = before;
        assert_int_equal(run_stage(s), 2);
        free(s);
    }
}

static void a_rested_worker_comes_back_within_a_run(void **state)
{
    (void)state;
    for (int threads = 2; threads <= 3; threads++) {
        stage *s = stage_new(threads);
        s->lose_late = s->come_back = true;
        assert_int_equal(run_stage(s), threads);
        assert_int_equal(atomic_load(&s->joined), 1);
        free(s);
    }
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

enum { TURNS = 200 };

typedef struct turns {
    cp_pool *pool;
    char order[2 * TURNS]; /* who had each run */
    int n;
} turns;

typedef struct player {
    turns *t;
    char name;
    int left; /* runs; changes in a run */
    const struct player *other;
} player;

/* Holds the run until the other one waits for the next. */
static void one_turn(cp_pool *p, int id, void *arg)
{
    player *me = arg;
    if (id != 0)
        return;
    me->left--;
    me->t->order[me->t->n++] = me->name;
    while (me->other->left > 0 && cp_pool_turns_now(p).waiting == 0)
        sched_yield();
}

static void *play(void *arg)
{
    player *me = arg;
    for (int i = 0; i < TURNS; i++)
        cp_pool_run(me->t->pool, one_turn, me);
    return NULL;
}

/* Who ends a run and asks for the next at once does not get it while another waits. */
static void turns_go_in_the_order_of_coming(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        turns t = {0};
        player a = {&t, 'a', TURNS, NULL}, b = {&t, 'b', TURNS, &a};
        a.other = &b;
        pthread_t other;
        cp_err err;
        assert_int_equal(cp_pool_open(&t.pool, threads, &err), CP_OK);
        assert_int_equal(pthread_create(&other, NULL, play, &b), 0);
        play(&a);
        pthread_join(other, NULL);
        assert_int_equal(t.n, 2 * TURNS);
        for (int i = 1; i < t.n; i++)
            assert_int_not_equal(t.order[i], t.order[i - 1]);
        assert_int_equal(cp_pool_turns_now(t.pool).runs, 2 * TURNS);
        assert_int_equal(cp_pool_turns_now(t.pool).waiting, 0);
        cp_pool_close(t.pool);
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
        cmocka_unit_test(what_is_lost_while_others_wait_shrinks_the_pool),
        cmocka_unit_test(what_does_not_hold_others_up_shrinks_nothing),
        cmocka_unit_test(a_rested_worker_comes_back_within_a_run),
        cmocka_unit_test(runs_follow_each_other),
        cmocka_unit_test(threads_take_turns),
        cmocka_unit_test(turns_go_in_the_order_of_coming),
        cmocka_unit_test(bad_thread_counts_are_refused),
        cmocka_unit_test(quotas_are_read),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
