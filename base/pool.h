/*
 * pool: the process has one compute pool, whose workers walk a run together.
 *
 * The caller (the engine thread) is worker 0; `threads - 1` others sleep on a futex between runs.
 * Within a run, cp_pool_barrier() spins for a bounded time, then sched_yield()s: a futex between
 * operations costs 8x on a small model, an endless spin collapses beside a competitor. There is one
 * run at a time: a thread that comes meanwhile waits, and turns go in the order of coming, so who
 * makes many short runs lets others in between. Whoever runs is worker 0 for that run, and must not
 * run again from inside it.
 */
#ifndef CP_BASE_POOL_H
#define CP_BASE_POOL_H

#include "base/code.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct cp_pool cp_pool;
/* Runs on every worker, id in [0, threads). */
typedef void cp_pool_fn(cp_pool *p, int id, void *arg);

cp_code cp_pool_open(cp_pool **out, int threads, cp_err *err);
void cp_pool_close(cp_pool *p);
int cp_pool_threads(const cp_pool *p);
void cp_pool_run(cp_pool *p, cp_pool_fn *fn, void *arg); /* returns when all workers are done */
/* Any thread: runs that have begun since open, and threads that wait for their turn. */
typedef struct cp_pool_turns {
    uint64_t runs;
    int waiting;
} cp_pool_turns;
cp_pool_turns cp_pool_turns_now(cp_pool *p);
/*
 * All workers meet. Every write before it is visible after it. Counted: see cp_pool_barriers.
 * False: this worker (never worker 0) leaves the run to make room for a neighbour on the machine;
 * it returns from its function at once and touches nothing of the run any more.
 */
bool cp_pool_barrier(cp_pool *p, int id);
/*
 * The same, and one that left may come back here: it calls the run's function anew, which then
 * begins at `at` (> 0, the same from all workers; see cp_pool_join_point). A long run thus does not
 * go on without a worker that rests for a moment.
 */
bool cp_pool_barrier_join(cp_pool *p, int id, int at);
/* What a worker asks first: 0 at the start of a run, else the `at` of the barrier behind which it
 * comes back. */
int cp_pool_join_point(const cp_pool *p);
/* Workers that walk along, ids 0 to this - 1: what may be divided statically. Changes at barriers
 * only. */
int cp_pool_active(const cp_pool *p);
/*
 * Tickets: items of the current operation are drawn by every worker. Returns the first item of the
 * next `grain` items, or >= n when there is none left. The start of a run and each barrier reset
 * the counter, so one operation may draw tickets between two barriers.
 */
int64_t cp_pool_ticket(cp_pool *p, int64_t n, int64_t grain);
/*
 * The same, an item at a time, where neighbours are cheaper for one worker than for two, as what
 * lies one behind the other in memory: a worker draws a share of what is left, so that shares get
 * smaller towards the end. own: what it has drawn; zeroed once, its own until it gets n or more, as
 * every worker does before a barrier.
 */
typedef struct cp_share {
    int64_t at, end;
} cp_share;
int64_t cp_pool_share(cp_pool *p, int64_t n, cp_share *own);
uint64_t
cp_pool_barriers(const cp_pool *p); /* barriers passed since open; worker 0 reads it between runs */
/* Tests: the clocks by which a late worker is judged, in place of the real ones; between runs. */
typedef struct cp_pool_clocks {
    int64_t (*wall_ns)(void *arg);
    int64_t (*cpu_ns)(void *arg, int id); /* CPU time that worker `id` has had; any worker asks */
    void *arg;
} cp_pool_clocks;
void cp_pool_set_clocks(cp_pool *p, const cp_pool_clocks *clocks);
int cp_pool_default_threads(void); /* cores that this process may use (affinity, cgroup quota) */
/* The quota's part of it, from a /proc/PID/cgroup file and the mount point; a large number without
 * a quota. */
int cp_pool_quota_cores(const char *proc_cgroup, const char *mount);

#endif
