/*
 * memory: how many pages and state slots a model's KV bytes give, and what context they allow.
 *
 * State slots come first, since every running sequence needs one (and a second while it leaves a
 * shared one): up to six a sequence, so that checkpoints have room, but at most a quarter of the
 * bytes when there are pages too. The rest is pages. Refusals carry the arithmetic.
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

static cp_code count_units(cp_memory_plan *p, const cp_engine_model *m, const cp_engine_desc *d,
                           cp_err *err)
{
    uint64_t left = m->kv_bytes;
    if (d->state_bytes > 0) {
        uint64_t share = d->page_bytes ? left / 4 : left;
        uint64_t want = 6 * (uint64_t)m->max_seqs, slots = share / d->state_bytes;
        slots = slots < want ? slots : want;
        if (slots < 2)
            return cp_fail(err, CP_NO_MEMORY,
                           "%s: %" PRIu64 " KV bytes give %" PRIu64
                           " state slots of %zu bytes (of at most %" PRIu64
                           " bytes), and a sequence needs 2",
                           m->name, m->kv_bytes, slots, d->state_bytes, share);
        p->n_states = (uint32_t)slots + 1;
        left -= slots * d->state_bytes;
    }
    if (d->page_bytes > 0) {
        uint64_t pages = left / d->page_bytes;
        if (pages > (UINT64_C(1) << 30) - 2)
            pages = (UINT64_C(1) << 30) - 2;
        p->n_pages = (uint32_t)pages + 1;
    }
    uint64_t slots = p->n_states ? p->n_states - 1 : 0, pages = p->n_pages ? p->n_pages - 1 : 0;
    p->kv_bytes = slots * d->state_bytes + pages * d->page_bytes;
    return CP_OK;
}

cp_code cp_memory_plan_make(cp_memory_plan *out, const cp_engine_model *m,
                            const cp_engine_desc *desc, const cp_kv_config *kv, cp_err *err)
{
    cp_memory_plan p = {0};
    int chunk = m->prefill_chunk;
    cp_code code = count_units(&p, m, desc, err);
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
