/*
 * Races in global memory. The blocks of a launch do not communicate, so that a byte that one writes
 * belongs to it; within a block threads are watched as in shared memory (race.c), byte by byte.
 * What an instruction reads as constant (ld.global.nc, ld.const) nobody may write in the launch.
 */
#include "tests/ptxvm/run.h"

#define SEVERAL_BLOCKS UINT32_MAX
enum { CHUNK = 64 };

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

/* Constant memory is what no thread writes: a device may have read it before the launch began. */
static bool stays_constant(ptx_warp *w, const ptx_inst *i, const ptx_chunk *c, uint64_t number,
                           uint64_t bits, ptx_use use)
{
    uint64_t both = use == PTX_CONSTANT ? c->written & bits
                    : use == PTX_LOAD   ? 0
                                        : c->constant & bits;
    if (!both || !w->block->options.race)
        return true;
    ptx_fault(w, i, "constant memory: byte %#llx is %s, and was %s in this launch",
              (unsigned long long)(number * CHUNK + (unsigned)__builtin_ctzll(both)),
              use == PTX_CONSTANT ? "read as constant" : "written",
              use == PTX_CONSTANT ? "written" : "read as constant");
    return false;
}

/* 32-byte sectors that these bits are the first of. */
static uint64_t fresh_sectors(uint64_t before, uint64_t bits)
{
    const uint64_t low = 0xffffffffu, high = low << 32;
    return (uint64_t)((bits & low) && !(before & low)) + ((bits & high) && !(before & high));
}

static ptx_chunk *chunk_of(const ptx_range *r, uint64_t number)
{
    return &r->chunks[number - r->device / CHUNK];
}

/* Bytes of the chunk with that number. */
static bool touch_chunk(ptx_warp *w, const ptx_inst *i, ptx_range *r, uint64_t number,
                        uint64_t bits, ptx_use use)
{
    ptx_block *b = w->block;
    ptx_chunk *c = chunk_of(r, number);
    bool load = ptx_reads(use);
    if (c->launch != b->launch)
        *c = (ptx_chunk){.launch = b->launch, .owner = b->number + 1};
    if (c->owner != b->number + 1) {
        if (load && !c->written)
            c->owner = SEVERAL_BLOCKS;
        else {
            if (!c->spread)
                spread_chunk(b, c);
            if (!touch_spread(w, i, &b->spreads[c->spread - 1], number * CHUNK, bits, load))
                return false;
        }
    }
    if (!stays_constant(w, i, c, number, bits, use))
        return false;
    c->constant |= use == PTX_CONSTANT ? bits : 0;
    *(load ? &b->stats.load_sectors_fresh : &b->stats.store_sectors_fresh) +=
        fresh_sectors(load ? c->read : c->written, bits);
    *(load ? &c->read : &c->written) |= bits;
    return true;
}

/* What the threads of this block did to a chunk that it has touched. */
static ptx_cell *cells_of(ptx_block *b, ptx_chunk *c)
{
    if (c->traced != b->number + 1) {
        b->traces = ptx_more(b->traces, &b->cap_traces, b->n_traces, sizeof *b->traces);
        c->traced = b->number + 1;
        c->trace = (uint32_t)b->n_traces++;
        ptx_cell *cells = b->traces[c->trace].cells;
        for (int word = 0; word < CHUNK; word += 4)
            cells[word] = (ptx_cell){0}; /* the others begin as copies */
    }
    return b->traces[c->trace].cells;
}

static bool race_threads(ptx_warp *w, const ptx_inst *i, const ptx_range *r, uint32_t mask,
                         const uint64_t address[32], unsigned n, ptx_use use)
{
    PTX_EACH(l, mask)
    {
        uint64_t number = address[l] / CHUNK;
        ptx_place place = {cells_of(w->block, chunk_of(r, number)), number * CHUNK};
        if (!ptx_race_lane(w, i, &place, (int)l, (uint32_t)(address[l] % CHUNK), n, use))
            return false;
    }
    return true;
}

/* Lanes that follow each other in one chunk are taken together. */
static bool race_blocks(ptx_warp *w, const ptx_inst *i, ptx_range *r, uint32_t mask,
                        const uint64_t address[32], unsigned n, ptx_use use)
{
    uint64_t chunk = address[__builtin_ctz(mask)] / CHUNK, bits = 0;
    PTX_EACH(l, mask)
    {
        if (address[l] / CHUNK != chunk) {
            if (!touch_chunk(w, i, r, chunk, bits, use))
                return false;
            chunk = address[l] / CHUNK;
            bits = 0;
        }
        bits |= (((uint64_t)1 << n) - 1) << address[l] % CHUNK;
    }
    return touch_chunk(w, i, r, chunk, bits, use);
}

bool ptx_race_global(ptx_warp *w, const ptx_inst *i, ptx_range *r, uint32_t mask,
                     const uint64_t address[32], unsigned n, ptx_use use)
{
    if (!r->chunks)
        r->chunks =
            ptx_zeroed((size_t)((r->end + 63) / CHUNK - r->device / CHUNK), sizeof *r->chunks);
    return race_blocks(w, i, r, mask, address, n, use) &&
           (!w->block->options.race || use == PTX_CONSTANT ||
            race_threads(w, i, r, mask, address, n, use));
}
