/*
 * cp.async: the copy happens when something waits for it and not before, so that what is read too
 * early is never there by luck. Groups are a lane's own.
 */
#include "tests/ptxvm/run.h"

enum { ANY_LEVEL, L2_ALONE }; /* what passes L1 by comes in 16 bytes */

static void mark(ptx_block *b, uint32_t at, unsigned n, bool under_way)
{
    for (uint32_t word = at / 4; word < (at + n) / 4; word++)
        b->pending[word] = under_way;
    b->n_pending = under_way ? b->n_pending + 1 : b->n_pending - 1;
}

static void copy(ptx_warp *w, const ptx_inst *i)
{
    ptx_state *s = ptx_state_of(w);
    unsigned n = (unsigned)i->literal[2];
    uint64_t dst[32], src[32];
    unsigned char *at[32];
    uint32_t all = w->mask, reading = 0;
    if (n != 16 && (i->row->arg == L2_ALONE || (n != 4 && n != 8))) {
        ptx_fault(w, i, "%s of %u bytes", i->row->text, n);
        return;
    }
    ptx_addresses(w, i, 0, 0, dst);
    ptx_addresses(w, i, 1, 1, src);
    for (unsigned l = 0; l < 32; l++) {
        uint32_t take = i->width[2] ? ptx_src(ptx_u32, 2)[l] : n;
        if (!(all >> l & 1))
            continue;
        if (take != 0 && take != n) {
            ptx_fault(w, i, "cp.async that reads %u of %u bytes", take, n);
            return;
        }
        reading |= (uint32_t)(take != 0) << l;
    }
    w->mask = reading;
    bool good = !reading || ptx_reach(w, i, PTX_GLOBAL, src, n, PTX_LOAD, at);
    w->mask = all;
    if (!good || !ptx_reach(w, i, PTX_SHARED, dst, n, PTX_ASYNC, at))
        return;
    w->block->stats.async_bytes += (uint64_t)n * (unsigned)__builtin_popcount(reading);
    for (unsigned l = 0; l < 32; l++) {
        if (!(all >> l & 1))
            continue;
        s->copies = ptx_more(s->copies, &s->cap_copies, s->n_copies, sizeof *s->copies);
        s->copies[s->n_copies++] =
            (ptx_copy){src[l],     (uint32_t)dst[l], s->committed[l],
                       (uint8_t)l, (uint8_t)n,       (uint8_t)(reading >> l & 1 ? n : 0)};
        if (w->block->pending[dst[l] / 4]) {
            ptx_fault(w, i, "unwaited cp.async: two lanes copy to %llu",
                      (unsigned long long)dst[l]);
            return;
        }
        mark(w->block, (uint32_t)dst[l], n, true);
    }
}

static void commit(ptx_warp *w, const ptx_inst *i)
{
    (void)i;
    for (uint32_t left = w->mask; left; left &= left - 1)
        ptx_state_of(w)->committed[__builtin_ctz(left)]++;
}

static bool arrive(ptx_warp *w, const ptx_inst *i, const ptx_copy *c)
{
    ptx_block *b = w->block;
    ptx_range *r = ptx_range_of(c->src, c->src + c->take);
    mark(b, c->dst, c->n, false);
    uint64_t dst[32] = {0};
    dst[c->lane] = c->dst;
    if (b->cells && !ptx_race_shared(w, i, 1u << c->lane, dst, c->n, PTX_STORE))
        return false;
    if (c->take)
        memcpy(b->shared + c->dst, r->host + (c->src - r->device), c->take);
    else
        memset(b->shared + c->dst, 0, c->n);
    return true;
}

/* The lanes' copies arrive, but for their `newest` last groups. */
static void wait_for(ptx_warp *w, const ptx_inst *i, uint32_t newest)
{
    ptx_state *s = ptx_state_of(w);
    size_t kept = 0;
    for (size_t k = 0; k < s->n_copies; k++) {
        ptx_copy c = s->copies[k];
        bool arrives = (w->mask >> c.lane & 1) && c.group + newest < s->committed[c.lane];
        if (!arrives)
            s->copies[kept++] = c;
        else if (!arrive(w, i, &c))
            return;
    }
    s->n_copies = kept;
}

static void wait_group(ptx_warp *w, const ptx_inst *i)
{
    wait_for(w, i, (uint32_t)i->literal[0]);
}

static void wait_all(ptx_warp *w, const ptx_inst *i)
{
    commit(w, i);
    wait_for(w, i, 0);
}

bool ptx_async_left(ptx_warp *w, const ptx_inst *i, uint32_t lanes)
{
    const ptx_state *s = ptx_state_of(w);
    for (size_t k = 0; k < s->n_copies; k++) {
        if (lanes >> s->copies[k].lane & 1) {
            ptx_fault(w, i, "unwaited cp.async: lane %u returns", s->copies[k].lane);
            return false;
        }
    }
    return true;
}

const ptx_row ptx_rows_async[] = {
    {"cp.async.cg.shared.global", copy, "m m # ?w", L2_ALONE, PTX_PLAIN},
    {"cp.async.ca.shared.global", copy, "m m # ?w", ANY_LEVEL, PTX_PLAIN},
    {"cp.async.commit_group", commit, "", 0, PTX_PLAIN},
    {"cp.async.wait_group", wait_group, "#", 0, PTX_PLAIN},
    {"cp.async.wait_all", wait_all, "", 0, PTX_PLAIN},
    {NULL, NULL, NULL, 0, PTX_PLAIN}};
