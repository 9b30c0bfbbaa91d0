/*
 * The compute pool. Between runs the workers sleep on a futex (`epoch`); inside a run they meet at
 * a barrier that spins for a bounded number of pauses and then yields.
 *
 * A neighbour who takes a core costs far more than its share: whoever it puts off the CPU holds up
 * all others at the next barrier, for a time slice each time. So the pool shrinks: when a barrier
 * was late because its last arrival had been off the CPU, the worker with the highest id leaves the
 * run and rests (50 ms at first, up to 1 s while it happens again), and the kernel has a core for
 * the neighbour. Results do not depend on how many walk along (batch invariance).
 *
 * The barrier is a sense-reversing one with a generation counter for the sense: whoever arrives
 * last resets the arrival count and the ticket counter, then moves the generation on. While it does
 * so every other worker stands in the barrier, so one ticket counter serves all operations. Cost:
 * one atomic add a worker and one shared line read. With one thread nothing here is an atomic
 * read-modify-write.
 */
#include "base/pool.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/signals.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    POOL_THREADS_MAX = 1024,
    BARRIER_SPINS = 2000, /* pauses before the first look at the clock and the first yield */
    IDLE_SPINS = 500,     /* pauses before a worker sleeps between runs */
    LINE = 64,
};
#define LATE_NS     500000   /* a wait that makes the others ask why */
#define LOST_NS     1000000  /* off the CPU for so long: a neighbour */
#define REST_MIN_NS 50000000 /* how long a worker rests */
#define REST_MAX_NS 1000000000

typedef struct worker {
    cp_pool *pool;
    int id;
    pthread_t thread;
    _Atomic uint32_t seen;     /* epoch from which a recalled worker takes part; before `active` */
    int64_t wall_ns, cpu_ns;   /* its own marks: when it last looked */
    _Alignas(64) char pad[64]; /* the marks are written once a run by each worker */
} worker;

struct cp_pool {
    int threads;
    pthread_mutex_t turn; /* held through a run: there is one at a time */
    cp_pool_fn *fn;       /* of this run; published by epoch */
    void *arg;
    bool stop; /* published by epoch */
    worker *workers;
    int64_t rest_until_ns, rest_ns; /* written at a barrier's turn or between runs */
    int64_t recalled_ns;

    _Alignas(LINE) _Atomic int active;     /* ids below it take part; falls in a barrier's turn,
                                              rises between runs; release: seen comes first */
    _Atomic uint32_t recall;               /* futex word of those who rest */
    _Atomic bool impatient;                /* somebody has waited LATE_NS at this barrier */
    _Alignas(LINE) _Atomic uint32_t epoch; /* runs started; the futex word */
    _Atomic int sleepers;                  /* workers in, or on their way into, the futex */
    _Alignas(LINE) _Atomic int running;    /* workers that have not finished this run */
    _Alignas(LINE) _Atomic int arrived;    /* at the current barrier */
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

/* ---- neighbours ---- */

static int64_t thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void set_marks(worker *w)
{
    w->wall_ns = cp_now_ns();
    w->cpu_ns = thread_cpu_ns();
}

/* In a barrier's turn, by its last arrival `w`: was it off the CPU? Then one worker goes to rest.
 */
static void maybe_shrink(cp_pool *p, worker *w)
{
    int active = atomic_load_explicit(&p->active, memory_order_relaxed);
    int64_t wall = w->wall_ns, cpu = w->cpu_ns;
    set_marks(w);
    int64_t lost = (w->wall_ns - wall) - (w->cpu_ns - cpu);
    if (lost < LOST_NS || active == 1)
        return;
    bool again = w->wall_ns - p->recalled_ns < 2 * p->rest_ns;
    p->rest_ns = again && p->rest_ns > 0 ? 2 * p->rest_ns : REST_MIN_NS;
    p->rest_ns = p->rest_ns < REST_MAX_NS ? p->rest_ns : REST_MAX_NS;
    p->rest_until_ns = w->wall_ns + p->rest_ns;
    atomic_store_explicit(&p->active, active - 1, memory_order_relaxed);
}

/* Between runs: everybody comes back when the rest is over. */
static void maybe_recall(cp_pool *p)
{
    int active = atomic_load_explicit(&p->active, memory_order_relaxed);
    if (active == p->threads || cp_now_ns() < p->rest_until_ns)
        return;
    uint32_t epoch = atomic_load_explicit(&p->epoch, memory_order_relaxed);
    for (int i = active; i < p->threads; i++)
        atomic_store_explicit(&p->workers[i].seen, epoch, memory_order_relaxed);
    p->recalled_ns = cp_now_ns();
    atomic_store_explicit(&p->active, p->threads, memory_order_release);
    atomic_fetch_add(&p->recall, 1);
    futex_wake_all(&p->recall);
}

/* Sleep while this worker rests; the epoch to wait from. */
static uint32_t rest(worker *w, uint32_t epoch)
{
    cp_pool *p = w->pool;
    for (;;) {
        uint32_t recall = atomic_load(&p->recall);
        if (w->id < atomic_load_explicit(&p->active, memory_order_acquire))
            break;
        futex_wait(&p->recall, recall);
    }
    uint32_t seen = atomic_load_explicit(&w->seen, memory_order_relaxed);
    return (int32_t)(seen - epoch) > 0 ? seen : epoch;
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
        epoch = wait_epoch(p, rest(w, epoch));
        if (p->stop)
            return NULL;
        set_marks(w);
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
    atomic_store(&p->active, threads);
    pthread_mutex_init(&p->turn, NULL);
    p->workers = cp_xcalloc((size_t)threads, sizeof(*p->workers));
    sigset_t old;
    cp_signals_block(&old);
    int rc = 0, made = 1;
    while (made < threads && !rc) {
        worker *w = &p->workers[made];
        w->pool = p;
        w->id = made;
        rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (!rc)
            made++;
    }
    cp_signals_restore(&old);
    if (rc) {
        p->threads = made;
        atomic_store(&p->active, made);
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
    p->rest_until_ns = 0;
    maybe_recall(p);
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

int cp_pool_active(const cp_pool *p)
{
    return atomic_load_explicit(&p->active, memory_order_relaxed);
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
    maybe_recall(p);
    set_marks(&p->workers[0]);
    int active = cp_pool_active(p);
    atomic_store_explicit(&p->running, active - 1, memory_order_relaxed);
    if (active > 1)
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

/* Wait for the barrier's turn; says so when it takes long. */
static void wait_turn(cp_pool *p, uint64_t gen)
{
    int64_t since = 0;
    for (int i = 0; atomic_load_explicit(&p->generation, memory_order_acquire) == gen; i++) {
        if (i < BARRIER_SPINS) {
            cpu_pause();
            continue;
        }
        int64_t now = cp_now_ns();
        since = since ? since : now;
        if (now - since > LATE_NS)
            atomic_store_explicit(&p->impatient, true, memory_order_relaxed);
        sched_yield();
    }
}

bool cp_pool_barrier(cp_pool *p, int id)
{
    /* active and the generation cannot move before this worker has arrived. */
    int active = cp_pool_active(p);
    CP_ASSERT(id >= 0 && id < active);
    uint64_t gen = atomic_load_explicit(&p->generation, memory_order_relaxed);
    if (active == 1) {
        atomic_store_explicit(&p->ticket, 0, memory_order_relaxed);
        atomic_store_explicit(&p->generation, gen + 1, memory_order_relaxed);
        return true;
    }
    /* acq_rel: the last arrival has seen all that the others wrote before theirs ... */
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == active - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&p->ticket, 0, memory_order_relaxed);
        if (atomic_load_explicit(&p->impatient, memory_order_relaxed)) {
            atomic_store_explicit(&p->impatient, false, memory_order_relaxed);
            maybe_shrink(p, &p->workers[id]);
        }
        /* ... and passes it on with the resets. */
        atomic_store_explicit(&p->generation, gen + 1, memory_order_release);
    } else {
        wait_turn(p, gen);
    }
    return id < cp_pool_active(p);
}

int64_t cp_pool_ticket(cp_pool *p, int64_t n, int64_t grain)
{
    if (cp_pool_active(p) == 1) {
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
