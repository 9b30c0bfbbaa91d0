/*
 * Races. Shared memory: each byte remembers which thread wrote it and which lanes read it, and
 * between which barriers; two threads' accesses of which one writes need a barrier between them,
 * or, in one warp, a bar.warp.sync of both. Global memory: the blocks of a launch do not
 * communicate, so that a byte that one writes belongs to it.
 */
#include "tests/ptxvm/run.h"

enum { SEVERAL_WARPS = 0xffff, SEVERAL_THREADS = 0xffff };
#define SEVERAL_BLOCKS UINT32_MAX

/* ---- shared memory ---- */

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

static bool race(ptx_warp *w, const ptx_inst *i, int lane, uint32_t at, const char *does,
                 unsigned other, bool other_wrote, bool same_warp)
{
    ptx_fault(w, i,
              "race in shared memory: thread %u %s byte %u, which thread %u%s %s, with no %s "
              "between",
              ptx_state_of(w)->number * 32 + (unsigned)lane, does, at, other,
              same_warp ? " of its warp" : "", other_wrote ? "wrote" : "read",
              same_warp ? "__syncwarp" : "__syncthreads");
    return false;
}

/* The last write of another thread is ordered before this access. */
static bool after_write(ptx_warp *w, const ptx_inst *i, int lane, uint32_t at, const ptx_cell *c,
                        ptx_use use)
{
    const ptx_state *s = ptx_state_of(w);
    unsigned me = s->number * 32 + (unsigned)lane, writer = c->writer;
    if (c->write_epoch != w->block->epoch || (writer == me && !c->mixed) ||
        (c->atomic && use == PTX_ATOMIC))
        return true;
    bool same = writer / 32 == s->number;
    if (same && (c->mixed ? c->write_sync < s->full_sync
                          : synced(s, c->write_sync, 1u << writer % 32 | 1u << lane)))
        return true;
    return race(w, i, lane, at, use == PTX_LOAD ? "reads" : "writes", writer, true, same);
}

static bool after_reads(ptx_warp *w, const ptx_inst *i, int lane, uint32_t at, const ptx_cell *c)
{
    const ptx_state *s = ptx_state_of(w);
    if (c->read_epoch != w->block->epoch)
        return true;
    uint32_t first = (uint32_t)__builtin_ctz(c->read_lanes);
    if (c->read_warp != s->number)
        return race(w, i, lane, at, "writes",
                    (c->read_warp == SEVERAL_WARPS ? 0 : c->read_warp * 32u) + first, false, false);
    for (uint32_t left = c->read_lanes & ~(1u << lane); left; left &= left - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(left);
        if (!synced(s, c->read_sync, 1u << l | 1u << lane))
            return race(w, i, lane, at, "writes", c->read_warp * 32u + l, false, true);
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

static bool touch_cell(ptx_warp *w, const ptx_inst *i, int lane, uint32_t at, ptx_cell *c,
                       ptx_use use)
{
    const ptx_state *s = ptx_state_of(w);
    if (!after_write(w, i, lane, at, c, use))
        return false;
    if (use == PTX_LOAD) {
        note_read(s, lane, c);
        return true;
    }
    if (!after_reads(w, i, lane, at, c))
        return false;
    note_write(s, lane, c, use);
    return true;
}

/* A lane's n bytes, of which no word is known as a whole any more. */
static bool touch_bytes(ptx_warp *w, const ptx_inst *i, int lane, uint32_t at, unsigned n,
                        ptx_use use)
{
    for (uint32_t k = at; k < at + n; k++) {
        ptx_cell *c = &w->block->cells[k & ~3u];
        if (!c->split) {
            c[1] = c[2] = c[3] = *c;
            c->split = true;
        }
        if (!touch_cell(w, i, lane, k, &w->block->cells[k], use))
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

bool ptx_race_shared(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                     unsigned n, ptx_use use)
{
    const ptx_state *s = ptx_state_of(w);
    PTX_EACH(l, mask)
    {
        uint32_t at = (uint32_t)address[l];
        if (n < 4) {
            if (!touch_bytes(w, i, (int)l, at, n, use))
                return false;
            continue;
        }
        for (uint32_t word = at; word < at + n; word += 4) {
            ptx_cell *c = &w->block->cells[word];
            if (use == PTX_LOAD && read_again(s, c))
                c->read_lanes |= 1u << l;
            else if (c->split ? !touch_bytes(w, i, (int)l, word, 4, use)
                              : !touch_cell(w, i, (int)l, word, c, use))
                return false;
        }
    }
    return true;
}

/* ---- global memory ---- */

/* Of a chunk that several blocks touched, one of them writing: per byte who did. 0: nobody. */
typedef struct ptx_spread {
    uint32_t writer[64], reader[64];
} ptx_spread;

static bool conflict(ptx_warp *w, const ptx_inst *i, uint64_t address, const char *does,
                     const char *did, uint32_t other)
{
    ptx_block *b = w->block;
    if (!b->options.race)
        return true;
    if (other == SEVERAL_BLOCKS)
        ptx_fault(w, i, "race between blocks: block %u %s byte %#llx, which other blocks %s",
                  b->number, does, (unsigned long long)address, did);
    else
        ptx_fault(w, i, "race between blocks: block %u %s byte %#llx, which block %u %s", b->number,
                  does, (unsigned long long)address, other - 1, did);
    return false;
}

static void spread_chunk(ptx_block *b, ptx_chunk *c)
{
    b->spreads = ptx_more(b->spreads, &b->cap_spreads, b->n_spreads, sizeof *b->spreads);
    ptx_spread *s = &b->spreads[b->n_spreads++];
    for (int k = 0; k < 64; k++) {
        s->writer[k] = c->written >> k & 1 ? c->owner : 0;
        s->reader[k] = c->read >> k & 1 ? c->owner : 0;
    }
    c->spread = (uint32_t)b->n_spreads;
    c->owner = SEVERAL_BLOCKS;
}

/* The bytes of the chunk at address whose bits are set. */
static bool touch_spread(ptx_warp *w, const ptx_inst *i, ptx_spread *s, uint64_t address,
                         uint64_t bits, bool load)
{
    uint32_t me = w->block->number + 1;
    for (; bits; bits &= bits - 1) {
        unsigned k = (unsigned)__builtin_ctzll(bits);
        uint32_t *writer = &s->writer[k], *reader = &s->reader[k];
        if (*writer && *writer != me &&
            !conflict(w, i, address + k, load ? "reads" : "writes", "wrote", *writer))
            return false;
        if (!load && *reader && *reader != me &&
            !conflict(w, i, address + k, "writes", "read", *reader))
            return false;
        if (!load)
            *writer = me;
        else
            *reader = *reader == 0 || *reader == me ? me : SEVERAL_BLOCKS;
    }
    return true;
}

/* 32-byte sectors that these bits are the first of. */
static uint64_t fresh_sectors(uint64_t before, uint64_t bits)
{
    const uint64_t low = 0xffffffffu, high = low << 32;
    return (uint64_t)((bits & low) && !(before & low)) + ((bits & high) && !(before & high));
}

/* Bytes of the chunk with that number. */
static bool touch_chunk(ptx_warp *w, const ptx_inst *i, ptx_range *r, uint64_t number,
                        uint64_t bits, bool load)
{
    ptx_block *b = w->block;
    ptx_chunk *c = &r->chunks[number - r->device / 64];
    if (c->launch != b->launch)
        *c = (ptx_chunk){.launch = b->launch, .owner = b->number + 1};
    if (c->owner != b->number + 1) {
        if (load && !c->written)
            c->owner = SEVERAL_BLOCKS;
        else {
            if (!c->spread)
                spread_chunk(b, c);
            if (!touch_spread(w, i, &b->spreads[c->spread - 1], number * 64, bits, load))
                return false;
        }
    }
    *(load ? &b->stats.load_sectors_fresh : &b->stats.store_sectors_fresh) +=
        fresh_sectors(load ? c->read : c->written, bits);
    *(load ? &c->read : &c->written) |= bits;
    return true;
}

/* Lanes that follow each other in one chunk are taken together. */
bool ptx_race_global(ptx_warp *w, const ptx_inst *i, ptx_range *r, uint32_t mask,
                     const uint64_t address[32], unsigned n, ptx_use use)
{
    uint64_t chunk = address[__builtin_ctz(mask)] / 64, bits = 0;
    if (!r->chunks)
        r->chunks = ptx_zeroed((size_t)((r->end + 63) / 64 - r->device / 64), sizeof *r->chunks);
    PTX_EACH(l, mask)
    {
        if (address[l] / 64 != chunk) {
            if (!touch_chunk(w, i, r, chunk, bits, use == PTX_LOAD))
                return false;
            chunk = address[l] / 64;
            bits = 0;
        }
        bits |= (((uint64_t)1 << n) - 1) << address[l] % 64;
    }
    return touch_chunk(w, i, r, chunk, bits, use == PTX_LOAD);
}
