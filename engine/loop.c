/*
 * loop: the engine thread: it takes requests and gives each model a step a turn.
 *
 * A step is two halves. Begin: sweep, plan, gather, submit. End: collect, commit, announce. A turn
 * begins the steps of all models and then ends them, so that a backend which works on its own has
 * work of each; on the CPU the work is done when submit returns. With nothing to do the thread
 * sleeps on a futex: producers bump `wakes` and wake it if it said that it sleeps. It never spins:
 * full rings are looked at every 2 ms, and otherwise it sleeps up to a second. Its heart beats once
 * a turn, and in a step after each operation (cp_batch.beat).
 */
#include "engine/loop.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine_metrics.h"
#include "engine/models.h"
#include "engine/sched.h"
#include "engine/sched_check.h"
#include "engine/tasks.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKED_SLEEP_NS = 2000000, IDLE_SLEEP_NS = 1000000000 };

/* ---- sleeping and waking ---- */

void cp_loop_wake(cp_engine *e)
{
    /* seq_cst pairs with the sleeper: either it sees the bump, or we see it asleep */
    atomic_fetch_add(&e->wakes, 1);
    if (atomic_load(&e->asleep))
        syscall(SYS_futex, &e->wakes, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void sleep_until_woken(cp_engine *e, uint32_t seen, int64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    atomic_store(&e->asleep, true);
    if (atomic_load(&e->wakes) == seen)
        syscall(SYS_futex, &e->wakes, FUTEX_WAIT_PRIVATE, seen, &ts, NULL, 0);
    atomic_store(&e->asleep, false);
}

/* ---- one model's step ---- */

static cp_code submit(cp_engine *e, cp_resident *m, cp_err *err)
{
    cp_step_build(&m->step, m->sched);
    cp_batch *batch = &m->step.batch;
    uint32_t n_fresh;
    const uint32_t *fresh = cp_kv_fresh(m->kv, &n_fresh);
    for (uint32_t i = 0; i < n_fresh; i++)
        e->backend->zero_page(m->prepared, fresh[i]);
    if (e->probe && !m->probe_logits)
        m->probe_logits = malloc(sizeof(float) * (size_t)m->step.max_out * (size_t)m->n_vocab);
    batch->logits_copy = e->probe ? m->probe_logits : NULL;
    batch->beat = &e->beat_ns;
    return e->backend->submit(m->prepared, batch, err);
}

/* Anything but CP_OK: no result may be used. */
static cp_code collect(cp_engine *e, cp_resident *m, cp_err *err)
{
    const cp_batch *batch = &m->step.batch;
    cp_code code = e->backend->collect(m->prepared, err);
    if (code == CP_OK && m->file && e->backend->poisoned(m->file))
        code =
            cp_fail(err, CP_MODEL_FAILED, "%s: the mapped file changed under the server", m->name);
    if (code == CP_OK && batch->logits_copy && batch->n_out > 0)
        e->probe(e->probe_arg, m->index, batch, m->step.out_request, m->step.out_choice,
                 batch->logits_copy);
    return code;
}

static void begin_step(cp_engine *e, cp_resident *m)
{
    int64_t start = cp_now_ns();
    bool failed = atomic_load_explicit(&m->failed, memory_order_relaxed);
    cp_sched_sweep(m->sched, start);
    if (failed)
        cp_tasks_fail_all(m->sched, CP_MODEL_FAILED);
    m->stepping = !failed && cp_sched_plan(m->sched, m->max_batch_rows) > 0;
    if (m->stepping)
        m->submitted = submit(e, m, &m->err);
    m->begin_ns = cp_now_ns() - start;
}

static void fail_step(cp_resident *m, cp_code code, const cp_err *err)
{
    cp_log(CP_LOG_ERROR, "step failed model=%s error=\"%s\"", m->name, err->msg);
    cp_sched_fail_plan(m->sched, CP_MODEL_FAILED);
    if (code != CP_MODEL_FAILED)
        return;
    atomic_store_explicit(&m->failed, true, memory_order_relaxed);
    cp_tasks_fail_all(m->sched, CP_MODEL_FAILED);
}

/* Announce what happened, counted first. */
static void announce(cp_engine *e, cp_resident *m)
{
    cp_metrics_publish(m->sched, &m->seen, &m->seen_evictions);
    if (!m->sched->news)
        return;
    pthread_mutex_lock(&e->front_lock);
    int n = cp_tasks_flush(m->sched, e->ready);
    if (n > 0 && e->wake)
        e->wake(e->wake_arg);
    pthread_mutex_unlock(&e->front_lock);
    if (m->sched->n_tasks == 0)
        cp_sched_check_idle(m->sched);
}

/* True: a step ran. */
static bool end_step(cp_engine *e, cp_resident *m)
{
    bool ran = m->stepping;
    if (ran) {
        int64_t start = cp_now_ns();
        cp_code code = m->submitted == CP_OK ? collect(e, m, &m->err) : m->submitted;
        int64_t now = cp_now_ns();
        cp_kv_step_sent(m->kv); /* one step at a time: sent and done in one */
        cp_kv_step_done(m->kv);
        if (code == CP_OK)
            cp_sched_commit(m->sched, m->step.results, now);
        else
            fail_step(m, code, &m->err);
        cp_metrics_step(m->metrics, m->begin_ns + now - start);
        m->stepping = false;
    }
    announce(e, m);
    return ran;
}

/* ---- the thread ---- */

static cp_request *next_request(cp_engine *e)
{
    cp_request *r = e->held;
    e->held = NULL;
    if (r)
        return r;
    cp_mpsc_node *n = cp_mpsc_pop(&e->inbox);
    return n ? (cp_request *)(void *)((char *)n - offsetof(cp_request, submit_link)) : NULL;
}

static void take_requests(cp_engine *e)
{
    int64_t now = cp_now_ns();
    for (cp_request *r; (r = next_request(e)) != NULL;) {
        if (!cp_tasks_submit(cp_models_at(e, r->model)->sched, r, now)) {
            e->held = r; /* order is kept: nothing behind it is taken either */
            return;
        }
    }
}

static int n_models(const cp_engine *e)
{
    return atomic_load_explicit(&e->n_models, memory_order_acquire);
}

/* True: some model ran a step. */
static bool turn(cp_engine *e, int n)
{
    bool ran = false;
    for (int i = 0; i < n; i++)
        begin_step(e, e->models[i]);
    for (int i = 0; i < n; i++)
        ran |= end_step(e, e->models[i]);
    return ran;
}

/* How long there will be nothing to do unless somebody wakes us. */
static int64_t idle_ns(const cp_engine *e, int n, int64_t now)
{
    int64_t ns = IDLE_SLEEP_NS;
    for (int i = 0; i < n; i++) {
        const cp_sched *s = e->models[i]->sched;
        int64_t deadline = cp_sched_deadline(s);
        if (cp_sched_busy(s) && ns > BLOCKED_SLEEP_NS)
            ns = BLOCKED_SLEEP_NS;
        if (deadline && deadline - now < ns)
            ns = deadline > now ? deadline - now : 1;
    }
    return ns;
}

void *cp_loop_main(void *arg)
{
    cp_engine *e = arg;
    while (!atomic_load(&e->stopping)) {
        uint32_t seen = atomic_load(&e->wakes);
        take_requests(e);
        int n = n_models(e);
        bool ran = turn(e, n);
        int64_t now = cp_now_ns();
        /* relaxed: a time to look at, it orders nothing */
        atomic_store_explicit(&e->beat_ns, now, memory_order_relaxed);
        if (!ran)
            sleep_until_woken(e, seen, idle_ns(e, n, now));
    }
    return NULL;
}

void cp_loop_fail_all(cp_engine *e, cp_code code)
{
    do { /* what a scheduler had no room for comes after what it lets go */
        take_requests(e);
        for (int i = 0, n = n_models(e); i < n; i++) {
            cp_tasks_fail_all(e->models[i]->sched, code);
            announce(e, e->models[i]);
        }
    } while (e->held);
}
