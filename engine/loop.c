/*
 * loop: the engine thread: it takes what is new and gives each model a step a turn.
 *
 * A turn begins the steps of all models and then ends them. Between turns, models that have been
 * loaded come in and drained ones go. The thread never spins: with nothing to do it sleeps until it
 * is woken, full rings are looked at every 2 ms, and otherwise it sleeps up to a second. Its heart
 * beats once a turn, and in a step after each operation (cp_batch.beat).
 */
#include "engine/loop.h"
#include "base/mem.h"
#include "engine/engine_metrics.h"
#include "engine/models.h"
#include "engine/sched.h"
#include "engine/sched_check.h"
#include "engine/step.h"
#include "engine/tasks.h"
#include "engine/wake.h"

enum { BLOCKED_SLEEP_NS = 2000000, IDLE_SLEEP_NS = 1000000000 };

static cp_request *pop(cp_mpsc *from)
{
    cp_mpsc_node *n = cp_mpsc_pop(from);
    return n ? (cp_request *)(void *)((char *)n - offsetof(cp_request, submit_link)) : NULL;
}

static void start(cp_request *r, int64_t now)
{
    CP_ASSERT(cp_tasks_submit(r->model->sched, r, now));
    atomic_fetch_sub(&r->model->entering, 1);
}

/* What was submitted becomes a task where its scheduler has room; what comes late keeps its order,
 * and holds up no other model. */
static void take_requests(cp_engine *e)
{
    int64_t now = e->backend->now_ns();
    for (cp_resident *m = e->models; m; m = m->next) {
        for (; m->n_late > 0 && !cp_tasks_full(m->sched); m->n_late--)
            start(pop(&m->late), now);
    }
    for (cp_request *r; (r = pop(&e->inbox)) != NULL;) {
        cp_resident *m = r->model;
        if (!cp_tasks_full(m->sched)) { /* then none is late */
            start(r, now);
            continue;
        }
        cp_mpsc_push(&m->late, &r->submit_link);
        m->n_late++;
    }
}

/* Announce what happened, counted first. */
static void announce(cp_engine *e, cp_resident *m)
{
    cp_metrics_publish(m->sched, m->n_late, &m->seen, &m->seen_kv);
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

/* True: some model ran a step. */
static bool turn(cp_engine *e)
{
    bool ran = false;
    for (cp_resident *m = e->models; m; m = m->next)
        cp_resident_begin_step(e, m);
    for (cp_resident *m = e->models; m; m = m->next) {
        ran |= cp_resident_end_step(e, m);
        announce(e, m);
    }
    return ran;
}

static int64_t sooner(int64_t ns, int64_t deadline, int64_t now)
{
    if (deadline == 0 || deadline - now >= ns)
        return ns;
    return deadline > now ? deadline - now : 1;
}

/* How long there will be nothing to do unless somebody wakes us. */
static int64_t idle_ns(const cp_engine *e, int64_t now)
{
    int64_t ns = IDLE_SLEEP_NS;
    for (const cp_resident *m = e->models; m; m = m->next) {
        if (cp_sched_busy(m->sched) && ns > BLOCKED_SLEEP_NS)
            ns = BLOCKED_SLEEP_NS;
        ns = sooner(ns, cp_sched_deadline(m->sched), now);
        if (m->sched->n_tasks > 0) /* 0 unless it drains */
            ns = sooner(ns, atomic_load_explicit(&m->drain_end_ns, memory_order_relaxed), now);
    }
    return ns;
}

void *cp_loop_main(void *arg)
{
    cp_engine *e = arg;
    while (!atomic_load(&e->stopping)) {
        uint32_t seen = atomic_load(&e->wakes);
        cp_models_arrive(e);
        take_requests(e);
        bool ran = turn(e);
        cp_models_retire(e);
        int64_t now = e->backend->now_ns();
        atomic_store_explicit(&e->beat_ns, now, memory_order_relaxed);
        if (!ran)
            cp_engine_sleep(e, seen, idle_ns(e, now));
    }
    return NULL;
}

static bool any_late(const cp_engine *e)
{
    const cp_resident *m = e->models;
    while (m && m->n_late == 0)
        m = m->next;
    return m != NULL;
}

void cp_loop_fail_all(cp_engine *e, cp_code code)
{
    cp_models_arrive(e);
    do { /* what a scheduler had no room for comes after what it lets go */
        take_requests(e);
        for (cp_resident *m = e->models; m; m = m->next) {
            cp_tasks_fail_all(m->sched, code);
            announce(e, m);
        }
    } while (any_late(e));
}
