/*
 * models: see models.h. Models are added under a mutex and published by a release store of their
 * count.
 */
#include "engine/models.h"
#include "base/digest.h"
#include "base/mem.h"
#include "engine/engine_metrics.h"
#include "engine/sched.h"

#include <stdlib.h>

int cp_engine_page_positions(const cp_engine *e)
{
    return e->backend->page_positions(e->cfg.backend);
}

static void resident_free(cp_engine *e, cp_resident *m)
{
    if (!m)
        return;
    cp_step_fini(&m->step);
    cp_sched_close(m->sched);
    cp_kv_close(m->kv);
    if (m->prepared)
        e->backend->prepared_free(m->prepared);
    free(m->probe_logits);
    free(m->name);
    free(m);
}

/* The root of every page key: what else than tokens decides a page's bytes. */
static void identity(uint8_t out[32], const cp_engine_model *m, const cp_engine_desc *d, int P)
{
    char text[256];
    size_t n =
        cp_snprintf(text, sizeof(text), "capstan-kv-1 %s kv=%d P=%d groups=%d",
                    d->digest ? d->digest : m->name, (int)m->kv_type, P, d->program->n_groups);
    cp_sha256_of(text, n, out);
}

static cp_code resident_open(cp_engine *e, cp_resident *m, const cp_engine_model *cfg,
                             const cp_engine_desc *d, cp_err *err)
{
    int P = cp_engine_page_positions(e);
    int max_out = cfg->max_seqs > 64 ? cfg->max_seqs : 64;
    cp_code code = cp_memory_plan_make(&m->mem, cfg, d, P, err);
    if (code != CP_OK)
        return code;
    cp_prepare_config prepare = {.max_rows = cfg->max_batch_rows,
                                 .max_out = max_out,
                                 .max_seqs = cfg->max_seqs,
                                 .page_positions = P,
                                 .n_pages = m->mem.n_pages ? m->mem.n_pages : 1,
                                 .n_state_slots = m->mem.n_states ? m->mem.n_states : 1,
                                 .kv_type = cfg->kv_type,
                                 .cache_read_dir = d->cache_read_dir,
                                 .cache_dir = d->cache_dir,
                                 .cache_key = d->digest,
                                 .cache_check = cfg->cache_check};
    code = e->backend->prepare(e->cfg.backend, d->program, &prepare, &m->prepared, err);
    if (code != CP_OK)
        return code;
    cp_kv_config kv = {.groups = d->program->groups,
                       .n_groups = d->program->n_groups,
                       .page_positions = P,
                       .n_pages = m->mem.n_pages,
                       .n_state_slots = m->mem.n_states,
                       .max_seqs = cfg->max_seqs,
                       .max_positions = m->mem.ctx,
                       .prefix_cache = cfg->prefix_cache};
    identity(kv.identity, cfg, d, P);
    code = cp_kv_open(&m->kv, &kv, err);
    if (code != CP_OK)
        return code;
    cp_sched_config sc = {.kv = m->kv,
                          .groups = d->program->groups,
                          .n_groups = d->program->n_groups,
                          .page_positions = P,
                          .ctx = m->mem.ctx,
                          .max_seqs = cfg->max_seqs,
                          .prefill_chunk = cfg->prefill_chunk,
                          .max_out = max_out,
                          .max_tasks = e->cfg.max_queue + 2 * cfg->max_seqs,
                          .prefix_cache = cfg->prefix_cache,
                          .queue = &e->queue,
                          .metrics = cfg->metrics};
    code = cp_sched_open(&m->sched, &sc, err);
    if (code != CP_OK)
        return code;
    return cp_step_init(&m->step, cfg->max_batch_rows, max_out, cfg->max_seqs, err);
}

cp_code cp_engine_add_program(cp_engine *e, const cp_engine_model *cfg, const cp_engine_desc *d,
                              int *index, cp_err *err)
{
    if (cfg->max_seqs < 1 || cfg->max_seqs > 4096 || cfg->max_batch_rows < cfg->max_seqs ||
        cfg->prefill_chunk < 1)
        return cp_fail(err, CP_INVALID_VALUE,
                       "%s: max_seqs %d (1..4096), max_batch_rows %d (>= max_seqs), "
                       "prefill_chunk %d (>= 1)",
                       cfg->name, cfg->max_seqs, cfg->max_batch_rows, cfg->prefill_chunk);
    cp_resident *m = cp_xcalloc(1, sizeof(*m));
    m->name = cp_xstrdup(cfg->name);
    m->file = cfg->file;
    m->metrics = cfg->metrics;
    m->n_vocab = d->program->n_vocab;
    m->max_batch_rows = cfg->max_batch_rows;
    m->max_seqs = cfg->max_seqs;
    cp_code code = resident_open(e, m, cfg, d, err);
    if (code != CP_OK) {
        resident_free(e, m);
        return code;
    }
    cp_metrics_publish(m->sched, &m->seen, &m->seen_evictions);
    pthread_mutex_lock(&e->add_lock);
    int n = atomic_load_explicit(&e->n_models, memory_order_relaxed);
    if (n < CP_MAX_MODELS) {
        m->index = n;
        e->models[n] = m;
        atomic_store_explicit(&e->n_models, n + 1, memory_order_release);
    }
    pthread_mutex_unlock(&e->add_lock);
    if (n == CP_MAX_MODELS) {
        resident_free(e, m);
        return cp_fail(err, CP_INVALID_VALUE, "%d models are loaded already", CP_MAX_MODELS);
    }
    *index = n;
    return CP_OK;
}

void cp_engine_describe(cp_engine *e, int index, int *ctx, uint64_t *kv_bytes, int *full_seqs)
{
    const cp_resident *m = cp_models_at(e, index);
    CP_ASSERT(m);
    *ctx = m->mem.ctx;
    *kv_bytes = m->mem.kv_bytes;
    *full_seqs = m->mem.full_seqs;
}

cp_resident *cp_models_at(const cp_engine *e, int index)
{
    int n = atomic_load_explicit(&e->n_models, memory_order_acquire);
    return index >= 0 && index < n ? e->models[index] : NULL;
}

void cp_models_free(cp_engine *e)
{
    int n = atomic_load_explicit(&e->n_models, memory_order_acquire);
    for (int i = 0; i < n; i++)
        resident_free(e, e->models[i]);
}
