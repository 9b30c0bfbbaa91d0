/*
 * resident: see resident.h. What is opened in one order is freed in the other; the backend's part
 * (weights, pages) is by far the largest.
 */
#include "engine/resident.h"
#include "base/digest.h"
#include "base/mem.h"
#include "engine/engine_metrics.h"
#include "engine/sched.h"

#include <stdlib.h>

void cp_resident_free(cp_engine *e, cp_resident *m)
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

static int max_out(const cp_engine_model *cfg)
{
    return cfg->max_seqs > 64 ? cfg->max_seqs : 64;
}

cp_prepare_config cp_resident_prepare_config(const cp_engine_model *cfg, const cp_engine_desc *d,
                                             int page_positions)
{
    return (cp_prepare_config){.max_rows = cfg->max_batch_rows,
                               .max_out = max_out(cfg),
                               .max_seqs = cfg->max_seqs,
                               .page_positions = page_positions,
                               .n_pages = 1,
                               .n_state_slots = 1,
                               .kv_type = cfg->kv_type,
                               .cache_read_dir = d->cache_read_dir,
                               .cache_dir = d->cache_dir,
                               .cache_key = d->digest,
                               .cache_check = cfg->cache_check,
                               .cancel = cfg->cancel};
}

static cp_code open_parts(cp_engine *e, cp_resident *m, const cp_engine_model *cfg,
                          const cp_engine_desc *d, cp_err *err)
{
    cp_backend *b = cp_engine_backend_of(e, cfg);
    int P = e->backend->page_positions(b);
    cp_kv_config kv = {.groups = d->program->groups,
                       .n_groups = d->program->n_groups,
                       .page_positions = P,
                       .depth = e->backend->depth(b),
                       .max_seqs = cfg->max_seqs,
                       .prefix_cache = cfg->prefix_cache};
    cp_code code = cp_memory_plan_make(&m->mem, cfg, d, &kv, err);
    if (code != CP_OK)
        return code;
    cp_prepare_config prepare = cp_resident_prepare_config(cfg, d, P);
    prepare.n_pages = m->mem.n_pages ? m->mem.n_pages : 1;
    prepare.n_state_slots = m->mem.n_states ? m->mem.n_states : 1;
    code = e->backend->prepare(b, d->program, &prepare, &m->prepared, err);
    if (code != CP_OK)
        return code;
    kv.n_pages = m->mem.n_pages;
    kv.n_state_slots = m->mem.n_states;
    kv.max_positions = m->mem.ctx;
    identity(kv.identity, cfg, d, P);
    code = cp_kv_open(&m->kv, &kv, err);
    if (code != CP_OK)
        return code;
    cp_sched_config sc = {.kv = m->kv,
                          .page_positions = P,
                          .ctx = m->mem.ctx,
                          .max_seqs = cfg->max_seqs,
                          .prefill_chunk = cfg->prefill_chunk,
                          .max_out = max_out(cfg),
                          .max_tasks = atomic_load(&e->max_queue) + 2 * cfg->max_seqs,
                          .in_order = kv.depth > 1, /* see cp_backend_depth */
                          .prefix_cache = cfg->prefix_cache,
                          .checkpoint_every = m->mem.checkpoint_every,
                          .state_bytes = d->state_bytes,
                          .queue = &e->queue,
                          .metrics = cfg->metrics};
    code = cp_sched_open(&m->sched, &sc, err);
    if (code != CP_OK)
        return code;
    cp_metrics_opened(cfg->metrics, m->sched, m->mem.n_pages, cp_dtype_info(cfg->kv_type)->name);
    return cp_step_init(&m->step, cfg->max_batch_rows, max_out(cfg), cfg->max_seqs, err);
}

cp_code cp_resident_open(cp_engine *e, cp_resident **out, const cp_engine_model *cfg,
                         const cp_engine_desc *d, cp_err *err)
{
    cp_resident *m = cp_xcalloc(1, sizeof(*m));
    m->name = cp_xstrdup(cfg->name);
    m->file = cfg->file;
    m->metrics = cfg->metrics;
    m->n_vocab = d->program->n_vocab;
    m->max_batch_rows = cfg->max_batch_rows;
    m->max_seqs = cfg->max_seqs;
    cp_mpsc_init(&m->late);
    cp_pace_init(&m->pace, cfg->step_ms * INT64_C(1000000), cfg->max_batch_rows);
    atomic_init(&m->step_ns, m->pace.target_ns);
    m->profile.since_ns = e->backend->now_ns();
    cp_code code = open_parts(e, m, cfg, d, err);
    if (code == CP_OK)
        *out = m;
    else
        cp_resident_free(e, m);
    return code;
}
