/* Rows of control flow, and what functions ask of the warp. */
#include "tests/ptxvm/run.h"

bool ptx_aligned(ptx_warp *w, const ptx_inst *i)
{
    if (w->mask == 0xffffffffu)
        return true;
    ptx_fault(w, i, "divergent warp: lanes %08x are here, and all 32 are wanted", w->mask);
    return false;
}

bool ptx_together(ptx_warp *w, const ptx_inst *i, int op_members)
{
    const ptx_u32 *members = ptx_src(ptx_u32, op_members);
    for (uint32_t left = w->mask; left; left &= left - 1) {
        unsigned l = (unsigned)__builtin_ctz(left);
        uint32_t m = members[l] & w->live; /* who has left is not waited for */
        if ((m & w->mask) != m || !(m >> l & 1)) {
            ptx_fault(w, i, "divergent warp: lane %u names lanes %08x; lanes %08x are here", l,
                      members[l], w->mask);
            return false;
        }
        for (; m; m &= m - 1) {
            unsigned other = (unsigned)__builtin_ctz(m);
            if (members[other] == members[l])
                continue;
            ptx_fault(w, i, "divergent warp: lane %u names lanes %08x, and lane %u of them %08x", l,
                      members[l], other, members[other]);
            return false;
        }
    }
    return true;
}

void ptx_read(const ptx_warp *w, const ptx_inst *i, int n, uint64_t values[32])
{
    size_t width = i->width[n];
    PTX_LANES
    {
        values[l] = 0;
        memcpy(&values[l], w->regs + i->op[n] + (size_t)l * width, width);
    }
}

void ptx_write(ptx_warp *w, const ptx_inst *i, int n, const uint64_t values[32])
{
    size_t width = i->width[n];
    for (uint32_t left = w->mask; left; left &= left - 1) {
        size_t l = (size_t)__builtin_ctz(left);
        memcpy(w->regs + i->op[n] + l * width, &values[l], width);
    }
}

static void warp_sync(ptx_warp *w, const ptx_inst *i)
{
    ptx_state *s = ptx_state_of(w);
    if (!ptx_together(w, i, 0))
        return;
    s->syncs++;
    s->sync_mask[s->syncs % PTX_SYNCS] = w->mask;
    if (w->mask == w->live)
        s->full_sync = s->syncs;
}

/* griddepcontrol: a launch here starts when the one before has ended. */
static void nothing(ptx_warp *w, const ptx_inst *i)
{
    (void)w;
    (void)i;
}

/* What has a flow never comes to its function. */
static void flow(ptx_warp *w, const ptx_inst *i)
{
    ptx_fault(w, i, "a row without a function");
}

const ptx_row ptx_rows_flow[] = {{"bra", flow, "t", 0, PTX_BRANCH},
                                 {"bra.uni", flow, "t", 0, PTX_BRANCH_UNI},
                                 {"ret", flow, "", 0, PTX_EXIT},
                                 {"exit", flow, "", 0, PTX_EXIT},
                                 {"bar.sync", flow, "0", 0, PTX_BARRIER},
                                 {"trap", flow, "", 0, PTX_TRAP},
                                 {"bar.warp.sync", warp_sync, "w", 0, PTX_PLAIN},
                                 {"griddepcontrol.wait", nothing, "", 0, PTX_PLAIN},
                                 {"griddepcontrol.launch_dependents", nothing, "", 0, PTX_PLAIN},
                                 {NULL, NULL, NULL, 0, PTX_PLAIN}};
