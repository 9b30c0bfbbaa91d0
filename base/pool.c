/*
 * The compute pool. Between runs the workers sleep on a futex (`epoch`); inside a run they meet at
 * a barrier that spins for a bounded number of pauses and then yields.
 *
 * The barrier is a sense-reversing one with a generation counter for the sense: whoever arrives
 * last resets the arrival count and the ticket counter, then moves the generation on. While it does
 * so every other worker stands in the barrier, so one ticket counter serves all operations. Cost:
 * one atomic add a worker and one shared line read. With one thread nothing here is an atomic
 * read-modify-write.
 */
#include "base/pool.h"

#include "base/mem.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    POOL_THREADS_MAX = 1024,
    BARRIER_SPINS =
        2000,         /* pauses before the first yield: some 30 us, an operation of a small model */
    IDLE_SPINS = 500, /* pauses before a worker sleeps between runs */
    LINE = 64,
};

typedef struct worker {
    cp_pool *pool;
    int id;
    pthread_t thread;
} worker;

struct cp_pool {
    int threads;
    pthread_mutex_t turn; /* held through a run: there is one at a time */
    cp_pool_fn *fn;       /* of this run; published by epoch */
    void *arg;
    bool stop; /* published by epoch */
    worker *workers;

    _Alignas(LINE) _Atomic uint32_t epoch;      /* runs started; the futex word */
    _Atomic int sleepers;                       /* workers in, or on their way into, the futex */
    _Alignas(LINE) _Atomic int running;         /* workers that have not finished this run */
    _Alignas(LINE) _Atomic int arrived;         /* at the current barrier */
    _Alignas(LINE) _Atomic uint64_t generation; /* barriers passed */
    _Alignas(LINE) _Atomic int64_t ticket;      /* next item of the current operation */
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Wait until the next run (or the end) is published; returns its epoch. */
static uint32_t wait_epoch(cp_pool *p, uint32_t seen)
{
    for (int i = 0; i < IDLE_SPINS; i++) {
        uint32_t now = atomic_load_explicit(&p->epoch, memory_order_acquire);
        if (now != seen)
            return now;
        cpu_pause();
    }
    for (;;) {
        /* seq_cst, with start_run: either it sees this sleeper, or the futex sees its epoch. */
        atomic_fetch_add(&p->sleepers, 1);
        futex_wait(&p->epoch, seen);
        atomic_fetch_sub(&p->sleepers, 1);
        uint32_t now = atomic_load_explicit(&p->epoch, memory_order_acquire);
        if (now != seen)
            return now;
    }
}

static void start_run(cp_pool *p)
{
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->sleepers) > 0)
        futex_wake_all(&p->epoch);
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    cp_pool *p = w->pool;
    char name[16];
    cp_snprintf(name, sizeof(name), "cp-worker-%d", w->id);
    pthread_setname_np(pthread_self(), name);
    uint32_t epoch = 0;
    for (;;) {
        epoch = wait_epoch(p, epoch);
        if (p->stop)
            return NULL;
        p->fn(p, w->id, p->arg);
        /* release: what this worker wrote is visible to worker 0 when it sees the count at 0 */
        atomic_fetch_sub_explicit(&p->running, 1, memory_order_release);
    }
}

cp_code cp_pool_open(cp_pool **out, int threads, cp_err *err)
{
    if (threads < 1 || threads > POOL_THREADS_MAX)
        return cp_fail(err, CP_INVALID_VALUE, "compute pool: %d threads; allowed: 1 to %d", threads,
                       POOL_THREADS_MAX);
    cp_pool *p = cp_alloc_aligned(sizeof(*p));
    if (!p)
        return cp_fail(err, CP_NO_MEMORY, "compute pool: no memory");
    p->threads = threads;
    pthread_mutex_init(&p->turn, NULL);
    p->workers = cp_xcalloc((size_t)threads, sizeof(*p->workers));
    /* Signals are for the main thread. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0, made = 1;
    while (made < threads && !rc) {
        worker *w = &p->workers[made];
        w->pool = p;
        w->id = made;
        rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (!rc)
            made++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        p->threads = made;
        cp_pool_close(p);
        return cp_fail(err, CP_NO_MEMORY, "compute pool: thread %d of %d: %s", made + 1, threads,
                       strerror(rc));
    }
    *out = p;
    return CP_OK;
}

void cp_pool_close(cp_pool *p)
{
    if (!p)
        return;
    CP_ASSERT(atomic_load(&p->running) == 0);
    p->stop = true;
    start_run(p);
    for (int i = 1; i < p->threads; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->turn);
    free(p->workers);
    free(p);
}

int cp_pool_threads(const cp_pool *p)
{
    return p->threads;
}

void cp_pool_run(cp_pool *p, cp_pool_fn *fn, void *arg)
{
    /* Nearly always free: it waits only where a model is packed while others are served. */
    pthread_mutex_lock(&p->turn);
    CP_ASSERT(atomic_load_explicit(&p->running, memory_order_relaxed) == 0);
    atomic_store_explicit(&p->ticket, 0, memory_order_relaxed);
    if (p->threads == 1) {
        fn(p, 0, arg);
        pthread_mutex_unlock(&p->turn);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->running, p->threads - 1, memory_order_relaxed);
    start_run(p);
    fn(p, 0, arg);
    for (int i = 0; atomic_load_explicit(&p->running, memory_order_acquire) != 0; i++) {
        if (i < BARRIER_SPINS)
            cpu_pause();
        else
            sched_yield();
    }
    pthread_mutex_unlock(&p->turn);
}

void cp_pool_barrier(cp_pool *p, int id)
{
    CP_ASSERT(id >= 0 && id < p->threads);
    /* Cannot move before this worker has arrived. */
    uint64_t gen = atomic_load_explicit(&p->generation, memory_order_relaxed);
    if (p->threads == 1) {
        atomic_store_explicit(&p->ticket, 0, memory_order_relaxed);
        atomic_store_explicit(&p->generation, gen + 1, memory_order_relaxed);
        return;
    }
    /* acq_rel: the last arrival has seen all that the others wrote before theirs ... */
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == p->threads - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&p->ticket, 0, memory_order_relaxed);
        /* ... and passes it on with the resets. */
        atomic_store_explicit(&p->generation, gen + 1, memory_order_release);
        return;
    }
    for (int i = 0; atomic_load_explicit(&p->generation, memory_order_acquire) == gen; i++) {
        if (i < BARRIER_SPINS)
            cpu_pause();
        else
            sched_yield();
    }
}

int64_t cp_pool_ticket(cp_pool *p, int64_t n, int64_t grain)
{
    if (p->threads == 1) {
        int64_t at = atomic_load_explicit(&p->ticket, memory_order_relaxed);
        if (at < n)
            atomic_store_explicit(&p->ticket, at + grain, memory_order_relaxed);
        return at;
    }
    /* relaxed: the ticket carries no data, barriers order the items' content */
    return atomic_fetch_add_explicit(&p->ticket, grain, memory_order_relaxed);
}

uint64_t cp_pool_barriers(const cp_pool *p)
{
    return atomic_load_explicit(&p->generation, memory_order_relaxed);
}
