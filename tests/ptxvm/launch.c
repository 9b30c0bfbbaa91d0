/*
 * Launches: blocks one after another, the warps of a block in turns. Without shuffle each warp runs
 * to its next barrier in order; with it blocks and warps take turns by seed, a warp sometimes for a
 * few instructions only, so that what leans on an order of warps shows.
 */
#include "tests/ptxvm/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *const ptx_special_names[PTX_SPECIALS] = {
    "%tid.x",       "%tid.y",       "%tid.z",       "%ntid.x",     "%ntid.y",
    "%ntid.z",      "%ctaid.x",     "%ctaid.y",     "%ctaid.z",    "%nctaid.x",
    "%nctaid.y",    "%nctaid.z",    "%laneid",      "%warpid",     "%lanemask_eq",
    "%lanemask_lt", "%lanemask_le", "%lanemask_gt", "%lanemask_ge"};

static void special_values(const ptx_block *b, unsigned warp, unsigned lane,
                           uint32_t v[PTX_SPECIALS])
{
    unsigned t = warp * 32 + lane;
    v[0] = t % b->dim[0];
    v[1] = t / b->dim[0] % b->dim[1];
    v[2] = t / b->dim[0] / b->dim[1];
    for (int d = 0; d < 3; d++) {
        v[3 + d] = b->dim[d];
        v[6 + d] = b->id[d];
        v[9 + d] = b->grid[d];
    }
    v[12] = lane;
    v[13] = warp;
    v[14] = 1u << lane;
    v[15] = v[14] - 1;
    v[16] = v[14] | v[15];
    v[17] = ~v[16];
    v[18] = ~v[15];
}

static void start_warp(ptx_block *b, unsigned number)
{
    ptx_state *s = &b->warps[number];
    unsigned left = b->n_threads - number * 32;
    s->status = PTX_RUNS;
    s->full = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    s->mask = s->w.live = s->full;
    s->pc = 0;
    s->meet = INT32_MAX;
    s->n_others = 0;
    s->syncs = s->full_sync = 0;
    s->n_copies = 0;
    memset(s->committed, 0, sizeof s->committed);
    for (unsigned lane = 0; lane < 32; lane++) {
        uint32_t v[PTX_SPECIALS];
        special_values(b, number, lane, v);
        for (int k = 0; k < PTX_SPECIALS; k++) {
            if (b->kernel->special[k])
                memcpy(s->w.regs + b->kernel->special[k] + 4 * lane, &v[k], 4);
        }
    }
}

static uint32_t draw(ptx_block *b, uint32_t n)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return (uint32_t)(b->random >> 32) % n;
}

/* Every warp waits: the barrier opens, if the whole block stands there. */
static void open_barrier(ptx_block *b, unsigned n_done)
{
    if (n_done > 0) {
        const ptx_state *s = b->warps;
        while (s->status != PTX_WAITS)
            s++;
        ptx_fault(&b->warps[s - b->warps].w, &b->kernel->code[s->pc - 1],
                  "divergent barrier: %u warps of the block have returned", n_done);
        return;
    }
    for (unsigned i = 0; i < b->n_warps; i++)
        b->warps[i].status = PTX_RUNS;
    b->epoch++;
    b->stats.barriers++;
}

static void run_block(ptx_block *b)
{
    unsigned runnable[32], n_done = 0;
    for (unsigned i = 0; i < b->n_warps; i++)
        start_warp(b, i);
    while (!b->failed && n_done < b->n_warps) {
        unsigned n = 0;
        for (unsigned i = 0; i < b->n_warps; i++) {
            if (b->warps[i].status == PTX_RUNS)
                runnable[n++] = i;
        }
        if (n == 0) {
            open_barrier(b, n_done);
            continue;
        }
        bool shuffle = b->options.shuffle;
        ptx_state *s = &b->warps[runnable[shuffle ? draw(b, n) : 0]];
        s->status = ptx_run(s, shuffle && draw(b, 4) == 0 ? 1 + draw(b, 200) : UINT64_MAX);
        n_done += s->status == PTX_DONE;
    }
    b->epoch++; /* nothing that another block did to shared memory counts */
    b->stats.blocks++;
}

void ptx_fault(ptx_warp *w, const ptx_inst *i, const char *format, ...)
{
    ptx_block *b = w->block;
    if (b->failed)
        return;
    b->failed = true;
    char what[320];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    int n;
    const char *text = ptx_line_text(b->kernel->module->text, i->line, &n);
    snprintf(b->err, b->n_err, "%s block (%u,%u,%u) warp %u lanes %08x PTX line %d: %s: %.*s",
             b->kernel->name, b->id[0], b->id[1], b->id[2], ptx_state_of(w)->number, w->mask,
             i->line, what, n, text);
}

/* Registers: what no instruction has written is NaN, constants are there. */
static void fill_registers(const ptx_kernel *k, unsigned char *regs)
{
    memset(regs, 0xff, k->reg_bytes);
    for (size_t c = 0; c < k->n_constants; c++) {
        const ptx_constant *v = &k->constants[c];
        if (v->width == 0) /* a predicate */
            memcpy(regs + v->at, &v->value, 4);
        for (size_t l = 0; l < 32; l++)
            memcpy(regs + v->at + l * v->width, &v->value, v->width); /* little-endian */
    }
}

static unsigned char *aligned_bytes(size_t n)
{
    unsigned char *p = aligned_alloc(64, (n + 127) / 64 * 64);
    if (!p)
        abort();
    return p;
}

static void take_block(ptx_block *b)
{
    ptx_kernel *k = b->kernel;
    size_t regs = (k->reg_bytes + 63) / 64 * 64, shared = b->shared_bytes;
    b->n_warps = (b->n_threads + 31) / 32;
    b->warps = ptx_zeroed(b->n_warps, sizeof *b->warps);
    unsigned char *all = aligned_bytes(regs * b->n_warps);
    fill_registers(k, all);
    for (unsigned i = 0; i < b->n_warps; i++) {
        b->warps[i].number = i;
        b->warps[i].w.block = b;
        b->warps[i].w.regs = all + regs * i;
        if (i > 0)
            memcpy(all + regs * i, all, k->reg_bytes);
    }
    b->shared = aligned_bytes(shared);
    b->local = aligned_bytes(k->local_bytes * b->n_warps * 32);
    b->pending = ptx_zeroed(shared / 4 + 1, 1);
    b->cells = b->options.race ? ptx_zeroed(shared + 4, sizeof *b->cells) : NULL;
}

static void give_block(ptx_block *b)
{
    for (unsigned i = 0; i < b->n_warps; i++)
        free(b->warps[i].copies);
    free(b->warps[0].w.regs);
    free(b->warps);
    free(b->shared);
    free(b->local);
    free(b->pending);
    free(b->cells);
    free(b->spreads);
    free(b->traces);
}

static void run_blocks(ptx_block *b)
{
    static uint32_t launches; /* under the lock; no two launches have one number */
    uint64_t total = (uint64_t)b->grid[0] * b->grid[1] * b->grid[2];
    uint64_t at = b->options.shuffle ? draw(b, (uint32_t)total) : 0;
    b->launch = ++launches;
    b->epoch = 1;
    for (uint64_t n = 0; n < total && !b->failed; n++, at = at + 1 == total ? 0 : at + 1) {
        b->number = (uint32_t)at;
        b->id[0] = (unsigned)(at % b->grid[0]);
        b->id[1] = (unsigned)(at / b->grid[0] % b->grid[1]);
        b->id[2] = (unsigned)(at / b->grid[0] / b->grid[1]);
        b->executed = 0;
        b->n_traces = 0;
        int fill = b->options.shuffle && draw(b, 2) ? 0x7f : 0xff; /* numbers, or NaNs */
        memset(b->shared, fill, b->shared_bytes);
        memset(b->local, fill, b->kernel->local_bytes * b->n_warps * 32);
        run_block(b);
    }
}

static void add_stats(ptx_stats *to, const ptx_stats *from)
{
    uint64_t sum[sizeof *to / sizeof(uint64_t)], more[sizeof *to / sizeof(uint64_t)];
    memcpy(sum, to, sizeof sum);
    memcpy(more, from, sizeof more);
    for (size_t i = 0; i < sizeof sum / sizeof *sum; i++)
        sum[i] += more[i];
    memcpy(to, sum, sizeof sum);
}

static bool refused(const ptx_kernel *k, char *err, size_t n_err, const char *what,
                    unsigned long long is, unsigned long long wanted)
{
    snprintf(err, n_err, "%s: %s is %llu; %llu is right, or the most", k->name, what, is, wanted);
    return true;
}

static bool refuse_launch(const ptx_kernel *k, const unsigned grid[3], const unsigned dim[3],
                          size_t shared, size_t n_params, char *err, size_t n_err)
{
    uint64_t threads = 1, blocks = 1;
    for (int d = 0; d < 3; d++) {
        if (dim[d] == 0 || dim[d] > 1024)
            return refused(k, err, n_err, "a dimension of the block", dim[d], 1024);
        if (grid[d] == 0 || grid[d] > INT32_MAX || (d > 0 && grid[d] > 65535))
            return refused(k, err, n_err, "a dimension of the grid", grid[d],
                           d > 0 ? 65535 : INT32_MAX);
        threads *= dim[d];
        blocks *= grid[d];
    }
    if (threads > k->max_threads)
        return refused(k, err, n_err, "the number of threads", threads, k->max_threads);
    if (blocks >= UINT32_MAX - 2)
        return refused(k, err, n_err, "the number of blocks", blocks, UINT32_MAX - 3);
    if (shared > 232448 || shared + k->shared_bytes > 232448)
        return refused(k, err, n_err, "the dynamic shared memory", shared, 232448);
    if (n_params != k->param_bytes)
        return refused(k, err, n_err, "the size of the parameters", n_params, k->param_bytes);
    return false;
}

bool ptx_launch(ptx_kernel *k, const unsigned grid[3], const unsigned block[3], size_t shared,
                const void *params, size_t n_params, const ptx_options *o, ptx_stats *s, char *err,
                size_t n_err)
{
    if (refuse_launch(k, grid, block, shared, n_params, err, n_err))
        return false;
    ptx_block b = {.kernel = k,
                   .options = o ? *o : (ptx_options){0},
                   .params = params,
                   .shared_bytes = k->shared_bytes + shared,
                   .n_threads = block[0] * block[1] * block[2],
                   .err = err,
                   .n_err = n_err};
    memcpy(b.grid, grid, sizeof b.grid);
    memcpy(b.dim, block, sizeof b.dim);
    b.random = (b.options.seed + 1) * 0x9e3779b97f4a7c15u | 1;
    if (b.options.limit == 0)
        b.options.limit = (uint64_t)1 << 33;
    take_block(&b);
    ptx_memory_lock();
    run_blocks(&b);
    ptx_memory_unlock();
    if (s)
        add_stats(s, &b.stats);
    give_block(&b);
    return !b.failed;
}
