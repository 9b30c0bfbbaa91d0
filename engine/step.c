/*
 * step: see step.h. A model whose weights were lost, or that is draining past its time, runs no
 * more: all that it has ends. So it is with every model when the device has failed.
 */
#include "engine/step.h"
#include "base/log.h"
#include "engine/engine_metrics.h"
#include "engine/sched.h"
#include "engine/tasks.h"

#include <stdlib.h>

static cp_code submit(cp_engine *e, cp_resident *m, cp_err *err)
{
    cp_step_build(&m->step, m->sched);
    cp_batch *batch = &m->step.batch;
    bool loading = atomic_load_explicit(&m->state, memory_order_relaxed) == CP_MODEL_LOADING;
    bool probed = e->probe && !loading; /* then the thread is not the engine's */
    if (probed && !m->probe_logits)
        m->probe_logits = malloc(sizeof(float) * (size_t)m->step.max_out * (size_t)m->n_vocab);
    batch->logits_copy = probed ? m->probe_logits : NULL;
    /* A model that is warmed up beats, too: as long as its step lasts, the engine's thread may have
     * to wait for the pool. */
    batch->beat = &e->beat_ns;
    m->waited_ns = 0;
    batch->waited_ns = loading ? &m->waited_ns : NULL;
    return e->backend->submit(m->prepared, batch, err);
}

/* The steps of a warm-up do not count. */
static void note_times(const cp_engine *e, cp_resident *m)
{
    bool counted = atomic_load_explicit(&m->state, memory_order_relaxed) != CP_MODEL_LOADING;
    for (int k = 0; k < CP_OP_COUNT && e->backend->op_time; k++) {
        cp_op_time now = e->backend->op_time(m->prepared, (cp_op_kind)k);
        cp_profile_op(&m->profile, (cp_op_kind)k, &now, counted);
    }
    if (counted)
        cp_profile_step(&m->profile, m->took_ns);
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
        e->probe(e->probe_arg, m, batch, m->step.out_request, m->step.out_choice,
                 batch->logits_copy);
    return code;
}

/* Why the model may not run; CP_OK: it may. Words where a warm-up may need them. */
static cp_code held_back(const cp_engine *e, const cp_resident *m, int64_t now, cp_err *err)
{
    if (atomic_load_explicit(&e->device_failed, memory_order_relaxed))
        return cp_fail(err, CP_DEVICE_FAILED, "the device has failed");
    if (atomic_load_explicit(&m->failed, memory_order_relaxed))
        return CP_MODEL_FAILED;
    if (atomic_load_explicit(&m->state, memory_order_acquire) != CP_MODEL_DRAINING)
        return CP_OK;
    int64_t end = atomic_load_explicit(&m->drain_end_ns, memory_order_relaxed);
    return end != 0 && now >= end ? CP_MODEL_NOT_FOUND : CP_OK;
}

void cp_resident_begin_step(cp_engine *e, cp_resident *m)
{
    int64_t start = e->backend->now_ns();
    cp_code code = held_back(e, m, start, &m->err);
    m->pace.target_ns = atomic_load_explicit(&m->step_ns, memory_order_relaxed);
    cp_sched_sweep(m->sched, start);
    if (code != CP_OK)
        cp_tasks_fail_all(m->sched, code);
    m->stepping = code == CP_OK && cp_sched_plan(m->sched, cp_pace_rows(&m->pace)) > 0;
    m->code = m->stepping ? submit(e, m, &m->err) : code;
    m->begin_ns = e->backend->now_ns() - start;
}

/* Every model learns of it when its next step is to begin. */
static void lose_device(cp_engine *e)
{
    if (atomic_exchange_explicit(&e->device_failed, true, memory_order_relaxed))
        return;
    cp_log(CP_LOG_ERROR, "the device has failed: no model runs any more");
    if (e->cfg.device_failed)
        e->cfg.device_failed(e->cfg.device_failed_arg);
}

static void fail_model(cp_resident *m)
{
    atomic_store_explicit(&m->failed, true, memory_order_relaxed);
    cp_metric_set(m->metrics, CP_M_STATE_FAILED, 1);
}

static void fail_step(cp_engine *e, cp_resident *m)
{
    cp_code code = m->code == CP_DEVICE_FAILED ? m->code : CP_MODEL_FAILED;
    cp_log(CP_LOG_ERROR, "step failed model=%s error=\"%s\"", m->name, m->err.msg);
    cp_sched_fail_plan(m->sched, code);
    if (m->code != CP_DEVICE_FAILED && m->code != CP_MODEL_FAILED)
        return;
    if (m->code == CP_DEVICE_FAILED)
        lose_device(e);
    else
        fail_model(m);
    cp_tasks_fail_all(m->sched, code);
}

bool cp_resident_end_step(cp_engine *e, cp_resident *m)
{
    bool ran = m->stepping;
    if (ran) {
        int64_t start = e->backend->now_ns();
        if (m->code == CP_OK)
            m->code = collect(e, m, &m->err);
        int64_t now = e->backend->now_ns();
        m->took_ns = m->begin_ns + now - start - m->waited_ns;
        if (m->code == CP_OK) {
            cp_pace_note(&m->pace, m->step.batch.n_rows, m->took_ns);
            cp_sched_commit(m->sched, m->step.results, now);
        } else {
            fail_step(e, m);
        }
        note_times(e, m);
        cp_metrics_step(m->metrics, m->took_ns, m->step.batch.n_rows, now);
        cp_metrics_row_budget(m->metrics, cp_pace_rows(&m->pace));
        m->stepping = false;
    }
    return ran;
}
