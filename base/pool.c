/*
 * This file runs the compute pool. Between runs the workers sleep on a futex (`epoch`); inside a
 * run they meet at a barrier that spins for a bounded number of pauses and then yields.
 *
 * A neighbour who takes a core costs far more than its share: whoever it puts off the CPU holds up
 * all others at the next barrier, for a time slice each time. So the pool shrinks: when a barrier
 * was late because its last arrival had been off the CPU, the worker with the highest id leaves the
 * run and rests (50 ms at first, up to 1 s while it happens again), and the kernel has a core for
 * the neighbour. Each barrier is judged for itself: whoever waits first at it notes the CPU time
 * that each worker has had by then, before it yields, and the last arrival compares its own. What a
 * worker lost earlier in the run, or an item that takes long, makes nobody rest. Rest over, it
 * comes back at the next run, or within a long one where the function allows it
 * (cp_pool_barrier_join). Results do not depend on how many walk along (batch invariance).
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
    BARRIER_SPINS = 2000, /* pauses before the first look at the clocks and the first yield */
    IDLE_SPINS = 500,     /* pauses before a worker sleeps between runs */
    LINE = 64,
    SHARES_LEFT = 4, /* a worker draws such a part of its part of what is left */
};
#define LOST_NS     500000   /* off the CPU for so long while others wait: a neighbour */
#define REST_MIN_NS 50000000 /* how long a worker rests */
#define REST_MAX_NS 1000000000

typedef struct worker {
    _Alignas(LINE) cp_pool *pool;
    int id;
    pthread_t thread;
    clockid_t clock;         /* of its CPU time; worker 0's is set by each run */
    _Atomic int64_t mark_ns; /* its CPU time when another waited; see cp_pool.marked */
    bool left;               /* set in a barrier's turn: it goes to rest; cleared by itself */
    uint32_t seen;           /* epoch from which it takes part again; published by `back` */
    _Atomic bool back;       /* its rest is over */
} worker;

struct cp_pool {
    int threads;
    pthread_mutex_t turn_lock; /* of the next three */
    pthread_cond_t turn_moved;
    uint64_t turns_drawn, turns_over; /* a run has turn turns_over; those behind it wait */
    cp_pool_fn *fn;                   /* of this run; published by epoch */
    void *arg;
    bool stop; /* published by epoch */
    worker *workers;
    int64_t rest_until_ns, rest_ns; /* written at a barrier's turn or between runs */
    int64_t recalled_ns;
    int join_at; /* for those who come back in a run; written at a barrier's turn; 0 at its start */
    cp_pool_clocks clocks;

    _Alignas(LINE) _Atomic int active;     /* ids below it take part; moves at a barrier's turn and
                                              between runs */
    _Atomic uint32_t recall;               /* futex word of those who rest */
    _Atomic int64_t marked_ns;             /* when the workers' marks were taken ... */
    _Atomic uint64_t marked;               /* ... at the barrier before this generation; release */
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

static int64_t real_wall(void *arg)
{
    (void)arg;
    return cp_now_ns();
}

static int64_t real_cpu(void *arg, int id)
{
    const cp_pool *p = arg;
    struct timespec t;
    clock_gettime(p->workers[id].clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t wall_ns(const cp_pool *p)
{
    return p->clocks.wall_ns(p->clocks.arg);
}

/* By the first arrival at the barrier of `gen`, when it has spun for nothing. A laggard of the
 * barrier before may still be writing its own: each is an atomic, and only the latest `marked`
 * counts. */
static void set_marks(cp_pool *p, uint64_t gen)
{
    for (int i = 0; i < p->threads; i++)
        atomic_store_explicit(&p->workers[i].mark_ns, p->clocks.cpu_ns(p->clocks.arg, i),
                              memory_order_relaxed);
    /* the time last: what passes while the marks are taken is not held against anybody */
    atomic_store_explicit(&p->marked_ns, wall_ns(p), memory_order_relaxed);
    atomic_store_explicit(&p->marked, gen + 1, memory_order_release);
}

/* In a barrier's turn, by its last arrival `w`: has it been off the CPU since another began to
 * wait? Then one worker goes to rest. */
static void maybe_shrink(cp_pool *p, const worker *w, uint64_t gen)
{
    if (atomic_load_explicit(&p->marked, memory_order_acquire) != gen + 1)
        return; /* nobody had to wait for long */
    int64_t now = wall_ns(p), mark = atomic_load_explicit(&w->mark_ns, memory_order_relaxed);
    int64_t passed = now - atomic_load_explicit(&p->marked_ns, memory_order_relaxed);
    if (passed - (p->clocks.cpu_ns(p->clocks.arg, w->id) - mark) < LOST_NS)
        return;
    bool again = now - p->recalled_ns < 2 * p->rest_ns;
    p->rest_ns = again && p->rest_ns > 0 ? 2 * p->rest_ns : REST_MIN_NS;
    p->rest_ns = p->rest_ns < REST_MAX_NS ? p->rest_ns : REST_MAX_NS;
    p->rest_until_ns = now + p->rest_ns;
    int active = cp_pool_active(p) - 1;
    p->workers[active].left = true;
    atomic_store_explicit(&p->active, active, memory_order_relaxed);
}

/* Whether those who rest may come back: those with ids from cp_pool_active() on. */
static bool rested(const cp_pool *p)
{
    return cp_pool_active(p) < p->threads && wall_ns(p) >= p->rest_until_ns;
}

/* Workers from `first` on take part in the run after `seen`. What they are to find is written. */
static void call_back(cp_pool *p, int first, uint32_t seen)
{
    for (int i = first; i < p->threads; i++) {
        p->workers[i].seen = seen;
        atomic_store_explicit(&p->workers[i].back, true, memory_order_release);
    }
    atomic_fetch_add(&p->recall, 1);
    futex_wake_all(&p->recall);
}

/* Between runs: everybody comes back when the rest is over. */
static void maybe_recall(cp_pool *p)
{
    int active = cp_pool_active(p);
    if (!rested(p))
        return;
    p->recalled_ns = wall_ns(p);
    atomic_store_explicit(&p->active, p->threads, memory_order_relaxed);
    call_back(p, active, atomic_load_explicit(&p->epoch, memory_order_relaxed));
}

/* Sleep while this worker rests; the epoch to wait from. */
static uint32_t rest(worker *w, uint32_t epoch)
{
    cp_pool *p = w->pool;
    if (!w->left)
        return epoch;
    for (;;) {
        uint32_t recall = atomic_load(&p->recall);
        if (atomic_load_explicit(&w->back, memory_order_acquire))
            break;
        futex_wait(&p->recall, recall);
    }
    atomic_store_explicit(&w->back, false, memory_order_relaxed);
    w->left = false;
    return w->seen;
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
    pthread_mutex_init(&p->turn_lock, NULL);
    pthread_cond_init(&p->turn_moved, NULL);
    p->clocks = (cp_pool_clocks){real_wall, real_cpu, p};
    p->workers = cp_alloc_aligned((size_t)threads * sizeof(*p->workers));
    if (!p->workers) {
        free(p);
        return cp_fail(err, CP_NO_MEMORY, "compute pool: no memory for %d workers", threads);
    }
    CP_ASSERT((uintptr_t)p % _Alignof(cp_pool) == 0);
    CP_ASSERT((uintptr_t)p->workers % _Alignof(worker) == 0);
    sigset_t old;
    cp_signals_block(&old);
    int rc = 0, made = 1;
    while (made < threads && !rc) {
        worker *w = &p->workers[made];
        w->pool = p;
        w->id = made;
        rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (!rc) {
            made++;
            CP_ASSERT(pthread_getcpuclockid(w->thread, &w->clock) == 0);
        }
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
    pthread_cond_destroy(&p->turn_moved);
    pthread_mutex_destroy(&p->turn_lock);
    free(p->workers);
    free(p);
}

void cp_pool_set_clocks(cp_pool *p, const cp_pool_clocks *clocks)
{
    p->clocks = *clocks;
}

int cp_pool_threads(const cp_pool *p)
{
    return p->threads;
}

int cp_pool_active(const cp_pool *p)
{
    return atomic_load_explicit(&p->active, memory_order_relaxed);
}

/* Turns go in the order in which they were asked for: a mutex would give them again and again to a
 * thread that makes one run after another. Nearly always free: threads meet only where a model is
 * packed while others are served. */
static void take_turn(cp_pool *p)
{
    pthread_mutex_lock(&p->turn_lock);
    uint64_t mine = p->turns_drawn++;
    while (p->turns_over != mine)
        pthread_cond_wait(&p->turn_moved, &p->turn_lock);
    pthread_mutex_unlock(&p->turn_lock);
}

static void end_turn(cp_pool *p)
{
    pthread_mutex_lock(&p->turn_lock);
    if (++p->turns_over != p->turns_drawn)
        pthread_cond_broadcast(&p->turn_moved);
    pthread_mutex_unlock(&p->turn_lock);
}

cp_pool_turns cp_pool_turns_now(cp_pool *p)
{
    pthread_mutex_lock(&p->turn_lock);
    bool running = p->turns_over != p->turns_drawn;
    cp_pool_turns now = {.runs = p->turns_over + running,
                         .waiting = (int)(p->turns_drawn - p->turns_over) - running};
    pthread_mutex_unlock(&p->turn_lock);
    return now;
}

void cp_pool_run(cp_pool *p, cp_pool_fn *fn, void *arg)
{
    take_turn(p);
    CP_ASSERT(atomic_load_explicit(&p->running, memory_order_relaxed) == 0);
    atomic_store_explicit(&p->ticket, 0, memory_order_relaxed);
    if (p->threads == 1) {
        fn(p, 0, arg);
        end_turn(p);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->join_at = 0;
    CP_ASSERT(pthread_getcpuclockid(pthread_self(), &p->workers[0].clock) == 0);
    maybe_recall(p);
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
    end_turn(p);
}

/* Wait for the barrier's turn; the first one here takes the marks when it is not there at once. */
static void wait_turn(cp_pool *p, uint64_t gen, bool first)
{
    for (int i = 0; atomic_load_explicit(&p->generation, memory_order_acquire) == gen; i++) {
        if (i < BARRIER_SPINS) {
            cpu_pause();
            continue;
        }
        if (i == BARRIER_SPINS && first) /* before the yield, which may take long */
            set_marks(p, gen);
        sched_yield();
    }
}

bool cp_pool_barrier(cp_pool *p, int id)
{
    return cp_pool_barrier_join(p, id, 0);
}

int cp_pool_join_point(const cp_pool *p)
{
    return p->join_at;
}

bool cp_pool_barrier_join(cp_pool *p, int id, int at)
{
    /* active and the generation cannot move before this worker has arrived. */
    int active = cp_pool_active(p);
    CP_ASSERT(id >= 0 && id < active);
    uint64_t gen = atomic_load_explicit(&p->generation, memory_order_relaxed);
    /* acq_rel: the last arrival has seen all that the others wrote before theirs ... */
    int before = active == 1 ? 0 : atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel);
    if (before < active - 1) {
        wait_turn(p, gen, before == 0);
        return !p->workers[id].left;
    }
    atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&p->ticket, 0, memory_order_relaxed);
    if (active > 1)
        maybe_shrink(p, &p->workers[id], gen);
    bool join = at > 0 && rested(p);
    active = cp_pool_active(p);
    if (join) { /* the others wait for those who come back at the next barrier */
        p->join_at = at;
        p->recalled_ns = wall_ns(p);
        atomic_fetch_add_explicit(&p->running, p->threads - active, memory_order_relaxed);
        atomic_store_explicit(&p->active, p->threads, memory_order_relaxed);
    }
    /* ... and passes it on with the resets. */
    atomic_store_explicit(&p->generation, gen + 1, memory_order_release);
    if (join) /* after the generation has moved: it is theirs, too */
        call_back(p, active, atomic_load_explicit(&p->epoch, memory_order_relaxed) - 1);
    return !p->workers[id].left;
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

int64_t cp_pool_share(cp_pool *p, int64_t n, cp_share *own)
{
    if (own->at < own->end)
        return own->at++;
    if (cp_pool_active(p) == 1)
        return cp_pool_ticket(p, n, 1);
    /* relaxed, as cp_pool_ticket */
    int64_t at = atomic_load_explicit(&p->ticket, memory_order_relaxed), share;
    do {
        if (at >= n)
            return n;
        share = (n - at) / (SHARES_LEFT * cp_pool_active(p));
        share = share < 1 ? 1 : share;
    } while (!atomic_compare_exchange_weak_explicit(&p->ticket, &at, at + share,
                                                    memory_order_relaxed, memory_order_relaxed));
    *own = (cp_share){at + 1, at + share};
    return at;
}

uint64_t cp_pool_barriers(const cp_pool *p)
{
    return atomic_load_explicit(&p->generation, memory_order_relaxed);
}
