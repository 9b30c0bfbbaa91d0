/*
 * Races within a block: each byte remembers which thread wrote it and which lanes read it, and
 * between which barriers; two threads' accesses of which one writes need a barrier between them,
 * or, in one warp, a bar.warp.sync of both. So in shared memory and in global memory
 * (race_global.c), alike.
 */
#include "tests/ptxvm/run.h"

#include <stdio.h>

enum { SEVERAL_WARPS = 0xffff, SEVERAL_THREADS = 0xffff };

/* A bar.warp.sync after number `since` had both lanes. */
static bool synced(const ptx_state *s, uint32_t since, uint32_t lanes)
{
    if (since < s->full_sync || s->syncs - since > PTX_SYNCS)
        return true;
    for (uint32_t n = since + 1; n <= s->syncs; n++) {
        if ((s->sync_mask[n % PTX_SYNCS] & lanes) == lanes)
            return true;
    }
    return false;
}

/* One lane's access to the bytes of a place. */
typedef struct access {
    ptx_warp *w;
    const ptx_inst *i;
    const ptx_place *place;
    int lane;
    ptx_use use;
} access;

static bool race(const access *a, uint32_t at, unsigned other, bool other_wrote, bool same_warp)
{
    char byte[32];
    snprintf(byte, sizeof byte, a->place->base ? "%#llx" : "%llu",
             (unsigned long long)(a->place->base + at));
    ptx_fault(a->w, a->i,
              "race in %s memory: thread %u %s byte %s, which thread %u%s %s, with no %s between",
              a->place->base ? "global" : "shared",
              ptx_state_of(a->w)->number * 32 + (unsigned)a->lane,
              a->use == PTX_LOAD ? "reads" : "writes", byte, other, same_warp ? " of its warp" : "",
              other_wrote ? "wrote" : "read", same_warp ? "__syncwarp" : "__syncthreads");
    return false;
}

/* The last write of another thread is ordered before this access. */
static inline bool after_write(const access *a, uint32_t at, const ptx_cell *c)
{
    const ptx_state *s = ptx_state_of(a->w);
    unsigned me = s->number * 32 + (unsigned)a->lane, writer = c->writer;
    if (c->write_epoch != a->w->block->epoch || (writer == me && !c->mixed) ||
        (c->atomic && a->use == PTX_ATOMIC))
        return true;
    bool same = writer / 32 == s->number;
    if (same && (c->mixed ? c->write_sync < s->full_sync
                          : synced(s, c->write_sync, 1u << writer % 32 | 1u << a->lane)))
        return true;
    return race(a, at, writer, true, same);
}

static inline bool after_reads(const access *a, uint32_t at, const ptx_cell *c)
{
    const ptx_state *s = ptx_state_of(a->w);
    if (c->read_epoch != a->w->block->epoch)
        return true;
    uint32_t first = (uint32_t)__builtin_ctz(c->read_lanes);
    if (c->read_warp != s->number)
        return race(a, at, (c->read_warp == SEVERAL_WARPS ? 0 : c->read_warp * 32u) + first, false,
                    false);
    for (uint32_t left = c->read_lanes & ~(1u << a->lane); left; left &= left - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(left);
        if (!synced(s, c->read_sync, 1u << l | 1u << a->lane))
            return race(a, at, c->read_warp * 32u + l, false, true);
    }
    return true;
}

static void note_read(const ptx_state *s, int lane, ptx_cell *c)
{
    uint32_t epoch = s->w.block->epoch;
    bool fresh = c->read_epoch != epoch;
    if (!fresh && c->read_warp != s->number) {
        c->read_warp = SEVERAL_WARPS;
        return;
    }
    /* a full sync orders the reads before it before all that the warp will write */
    if (fresh || c->read_sync < s->full_sync)
        c->read_lanes = 0;
    c->read_epoch = epoch;
    c->read_warp = (uint16_t)s->number;
    c->read_lanes |= 1u << lane;
    c->read_sync = s->syncs;
}

static void note_write(const ptx_state *s, int lane, ptx_cell *c, ptx_use use)
{
    uint32_t epoch = s->w.block->epoch;
    unsigned me = s->number * 32 + (unsigned)lane;
    bool joins = c->write_epoch == epoch && c->atomic && use == PTX_ATOMIC && c->writer != me;
    bool apart = joins && c->writer / 32 != s->number;
    c->mixed = use == PTX_ATOMIC && c->write_epoch == epoch && (c->mixed || joins) && !apart;
    c->writer = (uint16_t)(apart ? SEVERAL_THREADS : me);
    c->write_epoch = epoch;
    c->write_sync = s->syncs;
    c->atomic = use == PTX_ATOMIC;
    c->read_epoch = 0;
}

static inline bool touch_cell(const access *a, uint32_t at, ptx_cell *c)
{
    const ptx_state *s = ptx_state_of(a->w);
    if (!after_write(a, at, c))
        return false;
    if (a->use == PTX_LOAD) {
        note_read(s, a->lane, c);
        return true;
    }
    if (!after_reads(a, at, c))
        return false;
    note_write(s, a->lane, c, a->use);
    return true;
}

/* n bytes, of which no word is known as a whole any more. */
static bool touch_bytes(const access *a, uint32_t at, unsigned n)
{
    for (uint32_t k = at; k < at + n; k++) {
        ptx_cell *c = &a->place->cells[k & ~3u];
        if (!c->split) {
            c[1] = c[2] = c[3] = *c;
            c->split = true;
        }
        if (!touch_cell(a, k, &a->place->cells[k]))
            return false;
    }
    return true;
}

/* Most reads: of a whole word that nobody has written since the barrier, and that this warp alone
 * has read, since its last sync. */
static inline bool read_again(const ptx_state *s, const ptx_cell *c)
{
    uint32_t epoch = s->w.block->epoch;
    return !c->split && c->write_epoch != epoch && c->read_epoch == epoch &&
           c->read_warp == s->number && c->read_sync == s->syncs;
}

static inline bool touch(const access *a, uint32_t at, unsigned n)
{
    if (n < 4)
        return touch_bytes(a, at, n);
    for (uint32_t word = at; word < at + n; word += 4) {
        ptx_cell *c = &a->place->cells[word];
        if (a->use == PTX_LOAD && read_again(ptx_state_of(a->w), c))
            c->read_lanes |= 1u << a->lane;
        else if (c->split ? !touch_bytes(a, word, 4) : !touch_cell(a, word, c))
            return false;
    }
    return true;
}

bool ptx_race_lane(ptx_warp *w, const ptx_inst *i, const ptx_place *place, int lane, uint32_t at,
                   unsigned n, ptx_use use)
{
    return touch(&(access){w, i, place, lane, use}, at, n);
}

bool ptx_race_shared(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                     unsigned n, ptx_use use)
{
    const ptx_place shared = {.cells = w->block->cells};
    PTX_EACH(l, mask)
    {
        if (!touch(&(access){w, i, &shared, (int)l, use}, (uint32_t)address[l], n))
            return false;
    }
    return true;
}
