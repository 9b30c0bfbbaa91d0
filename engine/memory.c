/*
 * memory: how many pages and state slots a model's KV bytes give, and what context they allow.
 *
 * State slots come first, since every running sequence needs one (a second while it leaves a shared
 * one, a third for its passing checkpoint, a fourth while that is replaced). Then checkpoints: one
 * to as many positions in pages as take the bytes of a state, so that neither is evicted long
 * before the other; a state may be large (of qwen35 0.8B as 1,644 positions) or small, but never
 * more than one to 256 positions. All slots together have a quarter of the bytes at most when there
 * are pages too, the rest is pages. Refusals carry the arithmetic.
 */
#include "engine/memory.h"

#include <inttypes.h>

/* The longest context that `pages` pages hold. */
static int longest(const cp_kv_config *kv, uint32_t pages, int limit, int chunk)
{
    int lo = 0, hi = limit;
    while (lo < hi) { /* the pages never fall with n */
        int mid = lo + (hi - lo + 1) / 2;
        if (cp_kv_pages_for(kv, mid, chunk) <= pages)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

enum {
    SLOTS_A_SEQUENCE = 6,
    LEAST_BETWEEN = 256,
    MOST_BETWEEN = 1 << 20,
    MOST_SLOTS = (1 << 24) - 2 /* cp_kv_open takes as many */
};

/* Bytes of P positions in all paged groups. */
static uint64_t block_bytes(const cp_engine_desc *d, const cp_kv_config *kv)
{
    uint64_t bytes = 0;
    for (int g = 0; g < kv->n_groups; g++)
        bytes += kv->groups[g].kind == CP_GROUP_STATE ? 0 : d->page_bytes;
    return bytes;
}

/* Positions from one checkpoint of a sequence to the next. */
static int between(uint64_t state_bytes, uint64_t block, uint64_t P)
{
    uint64_t n = block > 0 ? state_bytes / block * P + state_bytes % block * P / block : 0;
    n = n < LEAST_BETWEEN ? LEAST_BETWEEN : n < MOST_BETWEEN ? n : MOST_BETWEEN;
    return (int)((n + P - 1) / P * P);
}

static cp_code count_states(cp_memory_plan *p, const cp_engine_model *m, const cp_engine_desc *d,
                            const cp_kv_config *kv, cp_err *err)
{
    uint64_t P = (uint64_t)kv->page_positions, block = block_bytes(d, kv);
    uint64_t share = block ? m->kv_bytes / 4 : m->kv_bytes;
    p->state_bytes = d->state_bytes;
    p->checkpoint_every = between(d->state_bytes, block, P);
    uint64_t want = SLOTS_A_SEQUENCE * (uint64_t)m->max_seqs, slots = share / d->state_bytes;
    if (block > 0)
        want += m->kv_bytes / (block * ((uint64_t)p->checkpoint_every / P));
    if (want > MOST_SLOTS)
        want = MOST_SLOTS;
    slots = slots < want ? slots : want;
    if (slots < 2)
        return cp_fail(err, CP_NO_MEMORY,
                       "%s: %" PRIu64 " KV bytes give %" PRIu64
                       " state slots of %zu bytes (of at most %" PRIu64
                       " bytes), and a sequence needs 2",
                       m->name, m->kv_bytes, slots, d->state_bytes, share);
    p->n_states = (uint32_t)slots + 1;
    return CP_OK;
}

static cp_code count_units(cp_memory_plan *p, const cp_engine_model *m, const cp_engine_desc *d,
                           const cp_kv_config *kv, cp_err *err)
{
    cp_code code = d->state_bytes > 0 ? count_states(p, m, d, kv, err) : CP_OK;
    if (code != CP_OK)
        return code;
    uint64_t slots = p->n_states ? p->n_states - 1 : 0;
    uint64_t left = m->kv_bytes - slots * d->state_bytes;
    if (d->page_bytes > 0) {
        uint64_t pages = left / d->page_bytes;
        if (pages > (UINT64_C(1) << 30) - 2)
            pages = (UINT64_C(1) << 30) - 2;
        p->n_pages = (uint32_t)pages + 1;
    }
    uint64_t pages = p->n_pages ? p->n_pages - 1 : 0;
    p->kv_bytes = slots * d->state_bytes + pages * d->page_bytes;
    return CP_OK;
}

cp_code cp_memory_plan_make(cp_memory_plan *out, const cp_engine_model *m,
                            const cp_engine_desc *desc, const cp_kv_config *kv, cp_err *err)
{
    cp_memory_plan p = {0};
    int chunk = m->prefill_chunk;
    cp_code code = count_units(&p, m, desc, kv, err);
    if (code != CP_OK)
        return code;
    p.ctx = m->ctx > 0 ? m->ctx : desc->ctx_train;
    if (m->ctx <= 0 && m->ctx_wish > 0 && m->ctx_wish < p.ctx)
        p.ctx = m->ctx_wish;
    uint32_t pages = p.n_pages ? p.n_pages - 1 : 0;
    if (desc->page_bytes > 0) {
        int fit = longest(kv, pages, p.ctx, chunk);
        if (fit < 2 || (m->ctx > 0 && fit < m->ctx))
            return cp_fail(err, CP_NO_MEMORY,
                           "%s: a context of %d positions takes %u pages of %zu bytes (%d "
                           "positions each), and %" PRIu64 " KV bytes give %u; they hold %d "
                           "positions",
                           m->name, p.ctx, cp_kv_pages_for(kv, p.ctx, chunk), desc->page_bytes,
                           kv->page_positions, m->kv_bytes, pages, fit);
        p.ctx = fit;
        uint32_t one = cp_kv_pages_for(kv, p.ctx, chunk);
        p.full_seqs = (int)(pages / (one ? one : 1));
    } else {
        p.full_seqs = m->max_seqs;
    }
    if (p.n_states && p.full_seqs > (int)(p.n_states - 1))
        p.full_seqs = (int)(p.n_states - 1);
    *out = p;
    return CP_OK;
}
