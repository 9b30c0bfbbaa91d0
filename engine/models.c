/*
 * models: see models.h. A model's life is a walk through four states (model-* in
 * docs/INVARIANTS.md): LOADING on the loader's thread, where nobody else knows it; READY from the
 * moment it is pushed on `arrivals`, from which the engine thread takes it between two turns;
 * DRAINING once it is to be unloaded; GONE when the engine thread, again between turns, has found
 * that no request refers to it any more. A request refers to its model from cp_engine_api.submit
 * on: first in `entering`, then as a task of its scheduler.
 */
#include "engine/models.h"
#include "base/mem.h"
#include "engine/engine_metrics.h"
#include "engine/resident.h"
#include "engine/sched_check.h"
#include "engine/step.h"
#include "engine/tasks.h"
#include "engine/wake.h"

/* ---- load: the loader's thread ---- */

static cp_code check_config(const cp_engine_model *cfg, cp_err *err)
{
    if (cfg->max_seqs >= 1 && cfg->max_seqs <= 4096 && cfg->max_batch_rows >= cfg->max_seqs &&
        cfg->prefill_chunk >= 1)
        return CP_OK;
    return cp_fail(err, CP_INVALID_VALUE,
                   "%s: max_seqs %d (1..4096), max_batch_rows %d (>= max_seqs), "
                   "prefill_chunk %d (>= 1)",
                   cfg->name, cfg->max_seqs, cfg->max_batch_rows, cfg->prefill_chunk);
}

/* A stop of the load: it may end here. */
static cp_code goes_on(const cp_engine *e, const cp_engine_model *cfg, cp_err *err)
{
    /* relaxed, both: they order nothing, and are looked at again */
    if (atomic_load_explicit(&e->device_failed, memory_order_relaxed))
        return cp_fail(err, CP_DEVICE_FAILED, "%s: the device has failed", cfg->name);
    if (!cfg->cancel || !atomic_load_explicit(cfg->cancel, memory_order_relaxed))
        return CP_OK;
    return cp_fail(err, CP_CANCELLED, "%s: unloaded while it was loading", cfg->name);
}

/* Rows of the larger step of a warm-up: many would take long on a slow machine. */
enum { WARM_ROWS = 16 };

/* A step of `rows` tokens. Nothing of it is counted, and its page is not full, so not cached. */
static cp_code warm_step(cp_engine *e, cp_resident *m, int rows, cp_err *err)
{
    cp_event ring[4];
    const int32_t ids[WARM_ROWS] = {0};
    cp_request r = {.model = m, .prompt = ids, .n_prompt = rows, .max_tokens = 1, .n = 1};
    r.n_prompt_top = r.sampling.n_top = -1;
    r.sampling.top_p = r.sampling.repetition = 1;
    r.no_prefix_reads = true;
    cp_ring_init(&r.ring, ring, sizeof(*ring), 4);
    cp_sched_config *cfg = &m->sched->cfg, kept = *cfg;
    cp_metrics *metrics = m->metrics;
    atomic_init(&r.refs, 2);
    cfg->queue = NULL;
    m->metrics = cfg->metrics = NULL;
    CP_ASSERT(cp_tasks_submit(m->sched, &r, 0));
    cp_resident_begin_step(e, m);
    cp_resident_end_step(e, m);
    cp_tasks_fail_all(m->sched, CP_CANCELLED); /* where the step has failed or waits */
    cp_tasks_flush(m->sched, NULL);
    *cfg = kept;
    m->metrics = metrics;
    m->sched->stats = (cp_sched_stats){0};
    return m->code == CP_OK ? CP_OK : cp_fail(err, m->code, "%s: %s", m->name, m->err.msg);
}

static int warm_rows(const cp_resident *m)
{
    int most[] = {m->sched->cfg.page_positions - 1, m->max_batch_rows, m->mem.ctx - 1};
    int rows = WARM_ROWS;
    for (size_t i = 0; i < sizeof(most) / sizeof(*most); i++)
        rows = most[i] < rows ? most[i] : rows;
    return rows > 1 ? rows : 1;
}

/* Steps of one row, of some and of one, so that the first request finds weights and pages touched,
 * and the pace known. The time of the very first step says nothing. */
static cp_code warm_up(cp_engine *e, cp_resident *m, const cp_engine_model *cfg, cp_err *err)
{
    struct {
        int rows;
        int64_t ns;
    } step[3] = {{.rows = 1}, {.rows = warm_rows(m)}, {.rows = 1}};
    for (int i = 0; i < 3; i++) {
        cp_code code = goes_on(e, cfg, err);
        if (code == CP_OK)
            code = warm_step(e, m, step[i].rows, err);
        if (code != CP_OK)
            return code;
        step[i].rows = m->step.batch.n_rows; /* a small pool may have had pages for fewer */
        step[i].ns = m->took_ns;
    }
    if (step[1].rows > step[2].rows)
        cp_pace_begin(&m->pace, step[2].rows, step[2].ns, step[1].rows, step[1].ns);
    return CP_OK;
}

static cp_code open_warm(cp_engine *e, const cp_engine_model *cfg, const cp_engine_desc *desc,
                         cp_resident **out, cp_err *err)
{
    cp_code code = check_config(cfg, err);
    if (code == CP_OK)
        code = goes_on(e, cfg, err);
    if (code == CP_OK)
        code = cp_resident_open(e, out, cfg, desc, err);
    if (code != CP_OK)
        return code;
    code = goes_on(e, cfg, err);
    if (code == CP_OK && cfg->step_ms > 0)
        code = warm_up(e, *out, cfg, err);
    if (code == CP_OK)
        code = goes_on(e, cfg, err);
    if (code != CP_OK)
        cp_resident_free(e, *out);
    return code;
}

cp_code cp_engine_load_program(cp_engine *e, const cp_engine_model *cfg, const cp_engine_desc *desc,
                               cp_resident **out, cp_err *err)
{
    cp_resident *m = NULL;
    *out = NULL;
    cp_code code = open_warm(e, cfg, desc, &m, err);
    if (code != CP_OK)
        return code;
    cp_metrics_publish(m->sched, m->n_late, &m->seen, &m->seen_kv);
    cp_metrics_row_budget(m->metrics, cp_pace_rows(&m->pace));
    *out = m;
    atomic_store_explicit(&m->state, CP_MODEL_READY, memory_order_release);
    m->next = atomic_load_explicit(&e->arrivals, memory_order_relaxed);
    /* release: the engine thread finds the model complete */
    while (!atomic_compare_exchange_weak_explicit(&e->arrivals, &m->next, m, memory_order_release,
                                                  memory_order_relaxed)) {
    }
    cp_engine_wake(e);
    return CP_OK;
}

void cp_engine_describe(const cp_resident *m, cp_engine_memory *out)
{
    *out = (cp_engine_memory){.ctx = m->mem.ctx,
                              .kv_bytes = m->mem.kv_bytes,
                              .full_seqs = m->mem.full_seqs,
                              .state_slots = m->mem.n_states ? m->mem.n_states - 1 : 0,
                              .state_bytes = m->mem.state_bytes,
                              .checkpoint_every = m->mem.checkpoint_every};
}

void cp_engine_set_pace(cp_resident *m, int step_ms)
{
    CP_ASSERT(step_ms > 0);
    atomic_store_explicit(&m->step_ns, step_ms * INT64_C(1000000), memory_order_relaxed);
}

/* ---- unload: any thread ---- */

cp_model_state cp_engine_state(const cp_resident *m)
{
    return (cp_model_state)atomic_load_explicit(&m->state, memory_order_acquire);
}

void cp_engine_unload(cp_engine *e, cp_resident *m, int64_t end_ns)
{
    int ready = CP_MODEL_READY;
    atomic_store_explicit(&m->drain_end_ns, end_ns, memory_order_relaxed);
    /* seq_cst pairs with submit: see `entering` */
    atomic_compare_exchange_strong(&m->state, &ready, CP_MODEL_DRAINING);
    cp_engine_wake(e);
}

/* ---- the table: the engine's thread ---- */

void cp_models_arrive(cp_engine *e)
{
    cp_resident *stack = NULL;
    /* acquire: pairs with the push; the youngest is on top */
    if (atomic_load_explicit(&e->arrivals, memory_order_relaxed))
        stack = atomic_exchange_explicit(&e->arrivals, NULL, memory_order_acquire);
    cp_resident **end = &e->models;
    while (*end)
        end = &(*end)->next;
    for (cp_resident *m = stack, *next; m; m = next) {
        next = m->next;
        m->next = *end;
        *end = m;
    }
}

/* Whether nothing refers to a draining model any more. */
static bool is_drained(const cp_resident *m)
{
    return atomic_load(&m->state) == CP_MODEL_DRAINING && atomic_load(&m->entering) == 0 &&
           m->sched->n_tasks == 0;
}

static bool any_drained(const cp_engine *e)
{
    const cp_resident *m = e->models;
    while (m && !is_drained(m))
        m = m->next;
    return m != NULL;
}

/* With the lock, or where no thread runs. */
static void take_out_drained(cp_engine *e)
{
    for (cp_resident **at = &e->models; *at;) {
        cp_resident *m = *at;
        if (!is_drained(m)) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        cp_sched_check_idle(m->sched);
        atomic_store(&m->state, CP_MODEL_GONE); /* whoever waits for it frees it */
    }
}

void cp_models_retire(cp_engine *e)
{
    if (!any_drained(e))
        return;
    pthread_mutex_lock(&e->gone_lock);
    take_out_drained(e);
    pthread_cond_broadcast(&e->gone);
    pthread_mutex_unlock(&e->gone_lock);
}

void cp_models_free(cp_engine *e)
{
    cp_models_arrive(e);
    for (cp_resident *m = e->models, *next; m; m = next) {
        next = m->next;
        cp_resident_free(e, m);
    }
    e->models = NULL;
}

/* ---- the end of a model ---- */

void cp_engine_forget(cp_engine *e, cp_resident *m)
{
    CP_ASSERT(cp_engine_state(m) >= CP_MODEL_DRAINING && "model-4");
    pthread_mutex_lock(&e->gone_lock);
    while (e->running && cp_engine_state(m) != CP_MODEL_GONE)
        pthread_cond_wait(&e->gone, &e->gone_lock);
    if (cp_engine_state(m) != CP_MODEL_GONE) { /* no thread: its part is done here */
        cp_models_arrive(e);
        take_out_drained(e);
        CP_ASSERT(cp_engine_state(m) == CP_MODEL_GONE && "model-3");
    }
    pthread_mutex_unlock(&e->gone_lock);
    cp_resident_free(e, m);
}
