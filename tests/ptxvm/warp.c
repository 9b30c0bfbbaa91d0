/*
 * A warp's turn. Lanes that part at a branch become groups; the group furthest behind runs, and
 * groups whose pc is one run together again. So lanes that took a shorter way wait for the others
 * at the place where the ways join.
 */
#include "tests/ptxvm/run.h"

#include <limits.h>

/* The group furthest behind runs, with all that stand there. */
static void regroup(ptx_state *s)
{
    if (s->mask)
        s->others[s->n_others++] = (ptx_group){s->mask, s->pc};
    s->mask = 0;
    s->pc = INT32_MAX;
    s->meet = INT32_MAX;
    for (int g = 0; g < s->n_others; g++) {
        if (s->others[g].pc < s->pc)
            s->pc = s->others[g].pc;
    }
    int kept = 0;
    for (int g = 0; g < s->n_others; g++) {
        if (s->others[g].pc == s->pc) {
            s->mask |= s->others[g].mask;
            continue;
        }
        if (s->others[g].pc < s->meet)
            s->meet = s->others[g].pc;
        s->others[kept++] = s->others[g];
    }
    s->n_others = kept;
}

static void branch(ptx_state *s, const ptx_inst *i, uint32_t taking)
{
    if (taking == s->mask) {
        s->pc = i->target;
    } else if (taking == 0) {
        s->pc++;
    } else if (i->flow == PTX_BRANCH_UNI) {
        ptx_fault(&s->w, i, "divergent bra.uni: lanes %08x of %08x take it", taking, s->mask);
        return;
    } else {
        s->w.block->stats.diverged_branches++;
        s->others[s->n_others++] = (ptx_group){taking, i->target};
        s->mask &= ~taking;
        s->pc++;
    }
    if (s->n_others)
        regroup(s);
}

static void leave(ptx_state *s, const ptx_inst *i, uint32_t leaving)
{
    if (!ptx_async_left(&s->w, i, leaving))
        return;
    s->w.live &= ~leaving;
    s->mask &= ~leaving;
    s->pc++;
    if (!s->mask || s->n_others)
        regroup(s);
}

static bool at_barrier(ptx_state *s, const ptx_inst *i, uint32_t here)
{
    s->w.mask = here;
    if (here != s->full) {
        ptx_fault(&s->w, i, "divergent barrier: lanes %08x of %08x are here", here, s->full);
        return false;
    }
    s->pc++;
    return true;
}

/* What is no plain instruction. PTX_RUNS: go on. */
static ptx_status flow(ptx_state *s, const ptx_inst *i, uint32_t lanes)
{
    s->w.mask = lanes;
    switch ((ptx_flow)i->flow) {
    case PTX_BRANCH:
    case PTX_BRANCH_UNI:
        branch(s, i, lanes);
        break;
    case PTX_EXIT:
        leave(s, i, lanes);
        if (!s->mask)
            return s->w.block->failed ? PTX_FAILED : PTX_DONE;
        break;
    case PTX_BARRIER:
        return at_barrier(s, i, lanes) ? PTX_WAITS : PTX_FAILED;
    case PTX_TRAP:
        if (lanes)
            ptx_fault(&s->w, i, "trap");
        else
            s->pc++;
        break;
    case PTX_PLAIN:
        break;
    }
    return s->w.block->failed ? PTX_FAILED : PTX_RUNS;
}

/* Lanes that the guard lets through. */
static inline uint32_t guarded(const ptx_state *s, const ptx_inst *i)
{
    if (!i->guarded)
        return s->mask;
    uint32_t p = *(const ptx_u32 *)(const void *)(s->w.regs + i->guard);
    return s->mask & (i->guard_negated ? ~p : p);
}

ptx_status ptx_run(ptx_state *s, uint64_t quantum)
{
    ptx_block *b = s->w.block;
    const ptx_inst *code = b->kernel->code;
    uint64_t *executed = b->kernel->executed;
    uint64_t left = b->options.limit - b->executed, n = 0, lanes = 0;
    bool hangs = quantum >= left;
    ptx_status status = PTX_RUNS;
    for (quantum = hangs ? left : quantum; n < quantum && status == PTX_RUNS; n++) {
        const ptx_inst *i = &code[s->pc];
        uint32_t act = guarded(s, i);
        lanes += act == 0xffffffffu ? 32 : (uint64_t)__builtin_popcount(act);
        if (i->flow != PTX_PLAIN) {
            executed[s->pc]++;
            status = flow(s, i, act);
            continue;
        }
        if (act) {
            executed[s->pc]++;
            s->w.mask = act;
            i->fn(&s->w, i);
            if (b->failed)
                status = PTX_FAILED;
        }
        if (++s->pc >= s->meet)
            regroup(s);
    }
    b->executed += n;
    b->stats.warp_instructions += n;
    b->stats.lane_instructions += lanes;
    if (hangs && status == PTX_RUNS) {
        ptx_fault(&s->w, &code[s->pc], "no end after %llu warp instructions of the block",
                  (unsigned long long)b->options.limit);
        return PTX_FAILED;
    }
    return status;
}
