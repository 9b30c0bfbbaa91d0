/*
 * Where lanes' addresses lie on the host. All lanes are checked at once; only if that fails are
 * they walked one by one for the message.
 */
#include "tests/ptxvm/run.h"

#include <stdio.h>

static const char *const space_names[PTX_SPACES] = {"generic", "global", "shared", "local",
                                                    "parameter"};
static const char *const use_names[] = {"load", "store", "atomic", "cp.async"};

#define EACH_LANE(l, mask)                                                                         \
    for (uint32_t l##_left = (mask), l = 0;                                                        \
         l##_left && ((l = (uint32_t)__builtin_ctz(l##_left)), true); l##_left &= l##_left - 1)

void ptx_addresses(const ptx_warp *w, const ptx_inst *i, int n, int k, uint64_t address[32])
{
    uint64_t offset = (uint64_t)i->literal[k];
    if (i->width[n] == 4) {
        PTX_LANES address[l] = (uint32_t)(ptx_src(ptx_u32, n)[l] + offset);
    } else {
        PTX_LANES address[l] = ptx_src(ptx_u64, n)[l] + offset;
    }
}

/* Lowest and highest address of the lanes, and all low bits or-ed. */
static void extent(uint32_t mask, const uint64_t address[32], uint64_t *low, uint64_t *high,
                   uint64_t *bits)
{
    *low = UINT64_MAX;
    *high = *bits = 0;
    PTX_LANES
    {
        uint64_t a = address[l], on = 0 - (uint64_t)(mask >> l & 1);
        uint64_t for_low = a | ~on, for_high = a & on;
        *low = for_low < *low ? for_low : *low;
        *high = for_high > *high ? for_high : *high;
        *bits |= for_high;
    }
}

/* One lane's address is out of place: say which. */
static bool astray(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                   ptx_space space, unsigned n, ptx_use use, uint64_t size)
{
    EACH_LANE(l, mask)
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

static bool reach_global(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                         unsigned n, ptx_use use, unsigned char *at[32])
{
    ptx_block *b = w->block;
    uint64_t low, high, bits;
    extent(mask, address, &low, &high, &bits);
    ptx_range *r = b->range;
    if (!r || low < r->device || high + n > r->end)
        r = ptx_range_of(low, high + n);
    if ((bits & (n - 1)) || !r || high > UINT64_MAX - n) {
        if (!astray(w, i, mask, address, PTX_GLOBAL, n, use, 0))
            return false;
        r = NULL; /* lanes in several allocations */
    }
    if (r)
        b->range = r;
    if (b->options.count)
        ptx_count_global(b, mask, address, n, use);
    EACH_LANE(l, mask)
    {
        ptx_range *own = r ? r : ptx_range_of(address[l], address[l] + n);
        if ((b->options.race || b->options.count) &&
            !ptx_race_global(w, i, own, address[l], n, use))
            return false;
        at[l] = own->host + (address[l] - own->device);
    }
    return true;
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
    uint64_t low, high, bits;
    extent(mask, address, &low, &high, &bits);
    if (((bits & (n - 1)) || b->shared_bytes < n || high > b->shared_bytes - n) &&
        !astray(w, i, mask, address, PTX_SHARED, n, use, b->shared_bytes))
        return false;
    if (b->options.count)
        ptx_count_shared(b, mask, address, n);
    EACH_LANE(l, mask)
    {
        if (b->n_pending && unwaited(w, i, l, address[l], n, use))
            return false;
        if (b->cells && !ptx_race_shared(w, i, (int)l, (uint32_t)address[l], n, use))
            return false;
        at[l] = b->shared + address[l];
    }
    return true;
}

/* Local memory, of which each thread has its own, and parameters. */
static bool reach_own(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                      ptx_space space, unsigned n, ptx_use use, unsigned char *at[32])
{
    ptx_block *b = w->block;
    const ptx_kernel *k = b->kernel;
    size_t size = space == PTX_LOCAL ? k->local_bytes : k->param_bytes;
    uint64_t low, high, bits;
    extent(mask, address, &low, &high, &bits);
    if (((bits & (n - 1)) || size < n || high > size - n) &&
        !astray(w, i, mask, address, space, n, use, size))
        return false;
    if (space == PTX_PARAM && use != PTX_LOAD) {
        ptx_fault(w, i, "%s to a parameter", use_names[use]);
        return false;
    }
    size_t thread = (size_t)ptx_state_of(w)->number * 32;
    EACH_LANE(l, mask)
    {
        at[l] = space == PTX_LOCAL ? b->local + (thread + l) * size + address[l]
                                   : (unsigned char *)(uintptr_t)b->params + address[l];
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
