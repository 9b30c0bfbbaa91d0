/*
 * engine: open, start, stop, close. What runs is in loop.c, what the front end calls in front.c.
 */
#include "base/mem.h"
#include "engine/front.h"
#include "engine/loop.h"
#include "engine/models.h"
#include "engine/wake.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

cp_code cp_engine_open_with(cp_engine **out, const cp_engine_config *cfg,
                            const cp_engine_backend *backend, cp_err *err)
{
    if (cfg->max_queue < 1 || cfg->max_queue_tokens < 1)
        return cp_fail(err, CP_INVALID_VALUE, "max_queue %d and max_queue_tokens %lld must be >= 1",
                       cfg->max_queue, (long long)cfg->max_queue_tokens);
    cp_engine *e = cp_xcalloc(1, sizeof(*e));
    e->cfg = *cfg;
    e->backend = backend;
    cp_engine_set_queue(e, cfg->max_queue, cfg->max_queue_tokens);
    e->api = cp_front_table(e);
    cp_mpsc_init(&e->inbox);
    pthread_mutex_init(&e->gone_lock, NULL);
    pthread_cond_init(&e->gone, NULL);
    pthread_mutex_init(&e->front_lock, NULL);
    *out = e;
    return CP_OK;
}

void cp_engine_set_queue(cp_engine *e, int max_queue, int64_t max_queue_tokens)
{
    CP_ASSERT(max_queue >= 1 && max_queue_tokens >= 1);
    atomic_store_explicit(&e->max_queue, max_queue, memory_order_relaxed);
    atomic_store_explicit(&e->max_queue_tokens, max_queue_tokens, memory_order_relaxed);
}

static void set_running(cp_engine *e, bool running)
{
    pthread_mutex_lock(&e->gone_lock);
    e->running = running;
    pthread_cond_broadcast(&e->gone);
    pthread_mutex_unlock(&e->gone_lock);
}

cp_code cp_engine_start(cp_engine *e, cp_err *err)
{
    CP_ASSERT(!e->started);
    atomic_store_explicit(&e->beat_ns, e->backend->now_ns(), memory_order_relaxed);
    atomic_store_explicit(&e->life, CP_ENGINE_STARTED, memory_order_release);
    set_running(e, true);
    int rc = pthread_create(&e->thread, NULL, cp_loop_main, e);
    if (rc != 0) {
        set_running(e, false);
        return cp_fail(err, CP_IO, "the engine thread did not start: %s", strerror(rc));
    }
    e->started = true;
    return CP_OK;
}

const cp_engine_api *cp_engine_front(cp_engine *e)
{
    return &e->api;
}

void cp_engine_set_probe(cp_engine *e, cp_step_probe *fn, void *arg)
{
    e->probe = fn;
    e->probe_arg = arg;
}

void cp_engine_stop(cp_engine *e)
{
    atomic_store(&e->stopping, true);
    while (atomic_load(&e->submitting) > 0)
        sched_yield(); /* submit is a few hundred instructions */
    cp_engine_wake(e);
    if (e->started)
        pthread_join(e->thread, NULL);
    e->started = false;
    atomic_store_explicit(&e->life, CP_ENGINE_STOPPED, memory_order_relaxed);
    cp_loop_fail_all(e, CP_OVERLOADED);
    set_running(e, false);
}

void cp_engine_close(cp_engine *e)
{
    if (!e)
        return;
    CP_ASSERT(!e->started);
    cp_models_free(e);
    pthread_mutex_destroy(&e->gone_lock);
    pthread_cond_destroy(&e->gone);
    pthread_mutex_destroy(&e->front_lock);
    free(e);
}
