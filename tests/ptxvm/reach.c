/*
 * Where lanes' addresses lie on the host. All lanes are checked at once; only if that fails are
 * they walked one by one for the message.
 */
#include "tests/ptxvm/run.h"

#include <stdio.h>

static const char *const space_names[PTX_SPACES] = {"generic", "global", "shared", "local",
                                                    "parameter"};
static const char *const use_names[] = {"load", "store", "atomic", "cp.async", "load"};

void ptx_addresses(const ptx_warp *w, const ptx_inst *i, int n, int k, uint64_t address[32])
{
    uint64_t offset = (uint64_t)i->literal[k];
    if (i->width[n] == 4) {
        PTX_LANES address[l] = (uint32_t)(ptx_src(ptx_u32, n)[l] + offset);
    } else {
        PTX_LANES address[l] = ptx_src(ptx_u64, n)[l] + offset;
    }
}

/* Every lane's n bytes lie aligned in the size bytes at host, which have the address base. */
static bool inside(uint32_t mask, const uint64_t address[32], unsigned n, uint64_t base,
                   uint64_t size, unsigned char *host, unsigned char *at[32])
{
    uint64_t bad = size < n, most = size - n;
    PTX_EACH(l, mask)
    {
        uint64_t offset = address[l] - base;
        bad |= (offset > most) | (address[l] & (n - 1));
        at[l] = host + (offset > most ? 0 : offset);
    }
    return !bad;
}

/* One lane's address is out of place: say which. */
static bool astray(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                   ptx_space space, unsigned n, ptx_use use, uint64_t size)
{
    PTX_EACH(l, mask)
    {
        uint64_t a = address[l];
        unsigned long long shown = a;
        if (a & (n - 1))
            ptx_fault(w, i, "misaligned %s of %u bytes at %#llx by lane %u", use_names[use], n,
                      shown, l);
        if (space != PTX_GLOBAL && (size < n || a > size - n))
            ptx_fault(w, i,
                      "out of bounds: %s of %u bytes at %llu of %llu bytes of %s memory by "
                      "lane %u",
                      use_names[use], n, shown, (unsigned long long)size, space_names[space], l);
        if (space == PTX_GLOBAL && !ptx_range_of(a, a + n)) {
            char near[64] = "";
            uint64_t gap = ptx_range_of(a, a) ? 0 : ptx_range_gap(a);
            if (gap < 1 << 20)
                snprintf(near, sizeof near, ", %llu bytes past the end of one",
                         (unsigned long long)gap);
            ptx_fault(w, i,
                      "out of bounds: %s of %u bytes at %#llx by lane %u: in no allocation that is "
                      "alive%s",
                      use_names[use], n, shown, l, near);
        }
    }
    return !w->block->failed;
}

static bool inside_range(ptx_range *r, uint32_t mask, const uint64_t address[32], unsigned n,
                         unsigned char *at[32])
{
    return r && inside(mask, address, n, r->device, r->end - r->device, r->host, at);
}

/* Lanes in several allocations. */
static bool reach_apart(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                        unsigned n, ptx_use use, unsigned char *at[32])
{
    ptx_block *b = w->block;
    if (!astray(w, i, mask, address, PTX_GLOBAL, n, use, 0))
        return false;
    PTX_EACH(l, mask)
    {
        ptx_range *r = ptx_range_of(address[l], address[l] + n);
        if ((b->options.race || b->options.count) &&
            !ptx_race_global(w, i, r, 1u << l, address, n, use))
            return false;
        at[l] = r->host + (address[l] - r->device);
    }
    return true;
}

static bool reach_global(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                         unsigned n, ptx_use use, unsigned char *at[32])
{
    ptx_block *b = w->block;
    if (b->options.count)
        ptx_count_global(b, mask, address, n, use);
    if (b->options.watch && (ptx_reads(use) || use == PTX_ASYNC))
        b->options.watch(b->options.watch_arg, mask, address, n);
    if (!inside_range(b->range, mask, address, n, at)) {
        uint64_t first = address[__builtin_ctz(mask)];
        ptx_range *r = first <= UINT64_MAX - n ? ptx_range_of(first, first + n) : NULL;
        if (!inside_range(r, mask, address, n, at))
            return reach_apart(w, i, mask, address, n, use, at);
        b->range = r;
    }
    return !(b->options.race || b->options.count) ||
           ptx_race_global(w, i, b->range, mask, address, n, use);
}

/* A copy of cp.async is under way into what the lane touches. */
static bool unwaited(ptx_warp *w, const ptx_inst *i, uint32_t lane, uint64_t address, unsigned n,
                     ptx_use use)
{
    for (uint64_t word = address / 4; word <= (address + n - 1) / 4; word++) {
        if (w->block->pending[word]) {
            ptx_fault(w, i, "unwaited cp.async: %s of %u bytes at %llu of shared memory by lane %u",
                      use_names[use], n, (unsigned long long)address, lane);
            return true;
        }
    }
    return false;
}

static bool reach_shared(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                         unsigned n, ptx_use use, unsigned char *at[32])
{
    ptx_block *b = w->block;
    if (!inside(mask, address, n, 0, b->shared_bytes, b->shared, at) &&
        !astray(w, i, mask, address, PTX_SHARED, n, use, b->shared_bytes))
        return false;
    if (b->options.count)
        ptx_count_shared(b, mask, address, n);
    if (b->n_pending) {
        PTX_EACH(l, mask)
        {
            if (unwaited(w, i, l, address[l], n, use))
                return false;
        }
    }
    return !b->cells || ptx_race_shared(w, i, mask, address, n, use);
}

/* Local memory, of which each thread has its own, and parameters. */
static bool reach_own(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                      ptx_space space, unsigned n, ptx_use use, unsigned char *at[32])
{
    ptx_block *b = w->block;
    const ptx_kernel *k = b->kernel;
    size_t size = space == PTX_LOCAL ? k->local_bytes : k->param_bytes;
    unsigned char *start = space == PTX_LOCAL ? b->local : (unsigned char *)(uintptr_t)b->params;
    if (!inside(mask, address, n, 0, size, start, at) &&
        !astray(w, i, mask, address, space, n, use, size))
        return false;
    if (space == PTX_PARAM && !ptx_reads(use)) {
        ptx_fault(w, i, "%s to a parameter", use_names[use]);
        return false;
    }
    size_t thread = (size_t)ptx_state_of(w)->number * 32;
    for (uint32_t l = 0; l < 32 && space == PTX_LOCAL; l++) {
        if (mask >> l & 1)
            at[l] += (thread + l) * size;
    }
    return true;
}

static bool reach(ptx_warp *w, const ptx_inst *i, uint32_t mask, ptx_space space,
                  const uint64_t address[32], unsigned n, ptx_use use, unsigned char *at[32])
{
    if (space == PTX_GLOBAL)
        return reach_global(w, i, mask, address, n, use, at);
    if (space == PTX_SHARED)
        return reach_shared(w, i, mask, address, n, use, at);
    return reach_own(w, i, mask, address, space, n, use, at);
}

bool ptx_reach(ptx_warp *w, const ptx_inst *i, ptx_space space, const uint64_t address[32],
               unsigned n, ptx_use use, unsigned char *at[32])
{
    if (space != PTX_GENERIC)
        return reach(w, i, w->mask, space, address, n, use, at);
    uint32_t rest = w->mask;
    for (int s = PTX_SHARED; s < PTX_SPACES; s++) {
        uint64_t base = ptx_window((ptx_space)s), inside[32];
        uint32_t mask = 0;
        PTX_LANES
        {
            inside[l] = address[l] - base;
            mask |= (uint32_t)(address[l] >> PTX_WINDOW_SHIFT == base >> PTX_WINDOW_SHIFT) << l;
        }
        mask &= rest;
        rest &= ~mask;
        if (mask && !reach(w, i, mask, (ptx_space)s, inside, n, use, at))
            return false;
    }
    return !rest || reach(w, i, rest, PTX_GLOBAL, address, n, use, at);
}
