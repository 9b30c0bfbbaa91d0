/*
 * rows_warp: lanes that exchange values. PTX ISA: shfl.sync, vote.sync, match.sync, redux.sync,
 * activemask, ldmatrix. The lanes of the member mask must be here together (ptx_together); a value
 * that a lane takes from one that is not is undefined by the ISA, and a fault here.
 */
#include "tests/ptxvm/rows.h"
#include "tests/ptxvm/run.h"

/* Of a lane's member mask, the lanes that are here (one that has left counts no more). */
static inline uint32_t members(const ptx_warp *w, const ptx_inst *i, int op, int lane)
{
    return ptx_src(ptx_u32, op)[lane] & w->mask;
}

enum { UP, DOWN, BFLY, IDX };

/* The lane that `lane` takes its value from, and whether it lies within the segment. b: lane or
 * distance; c: clamp in bits 0..4, mask of the segment in bits 8..12. */
static inline int source_lane(int mode, int lane, uint32_t b, uint32_t c, bool *inside)
{
    const int distance = (int)(b & 31), mask = (int)(c >> 8 & 31);
    const int first = lane & mask, limit = first | ((int)(c & 31) & ~mask);
    int j = 0;
    switch (mode) {
    case UP:
        j = lane - distance;
        *inside = j >= limit;
        break;
    case DOWN:
        j = lane + distance;
        *inside = j <= limit;
        break;
    case BFLY:
        j = lane ^ distance;
        *inside = j <= limit;
        break;
    default:
        j = first | (distance & ~mask);
        *inside = j <= limit;
    }
    return *inside ? j : lane;
}

static void shfl(ptx_warp *w, const ptx_inst *i)
{
    if (!ptx_together(w, i, 5))
        return;
    const ptx_u32 *a = ptx_src(ptx_u32, 2), *b = ptx_src(ptx_u32, 3), *c = ptx_src(ptx_u32, 4);
    uint32_t t[32], p = 0;
    PTX_LANES
    {
        bool inside = false;
        const int j = source_lane(i->row->arg, l, b[l], c[l], &inside) & 31;
        if ((w->mask >> l & 1) && !(members(w, i, 5, l) >> j & 1)) {
            ptx_fault(
                w, i,
                "divergent warp: lane %d takes the value of lane %d, which is not here or not "
                "in its mask",
                l, j);
            return;
        }
        t[l] = a[j];
        p |= inside ? 1u << l : 0;
    }
    ptx_put(w, i, 0, t, 4);
    ptx_put_pred(w, i, 1, p);
}

enum { ALL, ANY, UNI };
static void vote(ptx_warp *w, const ptx_inst *i)
{
    if (!ptx_together(w, i, 2))
        return;
    const uint32_t p = ptx_pred(w, i, 1);
    uint32_t out = 0;
    PTX_LANES
    {
        const uint32_t m = members(w, i, 2, l);
        const bool all = (p & m) == m, any = (p & m) != 0;
        const bool result = i->row->arg == ALL ? all : i->row->arg == ANY ? any : all || !any;
        out |= result ? 1u << l : 0;
    }
    ptx_put_pred(w, i, 0, out);
}
static void ballot(ptx_warp *w, const ptx_inst *i)
{
    if (!ptx_together(w, i, 2))
        return;
    const uint32_t p = ptx_pred(w, i, 1);
    uint32_t t[32];
    PTX_LANES
    t[l] = p & members(w, i, 2, l);
    ptx_put(w, i, 0, t, 4);
}

enum { ADD, MIN, MAX, MIN_S, MAX_S, AND, OR, XOR };
static inline uint32_t joined(int op, uint32_t x, uint32_t v)
{
    switch (op) {
    case ADD:
        return x + v;
    case MIN:
        return v < x ? v : x;
    case MAX:
        return v > x ? v : x;
    case MIN_S:
        return (int32_t)v < (int32_t)x ? v : x;
    case MAX_S:
        return (int32_t)v > (int32_t)x ? v : x;
    case AND:
        return x & v;
    case OR:
        return x | v;
    default:
        return x ^ v;
    }
}
static void redux(ptx_warp *w, const ptx_inst *i)
{
    if (!ptx_together(w, i, 2))
        return;
    const ptx_u32 *a = ptx_src(ptx_u32, 1);
    uint32_t t[32] = {0}, m;
    for (uint32_t left = w->mask; left; left &= ~m) {
        m = members(w, i, 2, __builtin_ctz(left));
        uint32_t x = a[__builtin_ctz(m)];
        for (uint32_t rest = m & (m - 1); rest; rest &= rest - 1)
            x = joined(i->row->arg, x, a[__builtin_ctz(rest)]);
        for (uint32_t rest = m; rest; rest &= rest - 1)
            t[__builtin_ctz(rest)] = x;
    }
    ptx_put(w, i, 0, t, 4);
}

/* The members that have this lane's value; of all: the members, if all have one value. */
static void match_any(ptx_warp *w, const ptx_inst *i)
{
    if (!ptx_together(w, i, 2))
        return;
    uint64_t v[32];
    uint32_t t[32] = {0};
    ptx_read(w, i, 1, v);
    PTX_LANES
    {
        for (int j = 0; j < 32; j++)
            t[l] |= v[j] == v[l] ? 1u << j : 0;
        t[l] &= members(w, i, 2, l);
    }
    ptx_put(w, i, 0, t, 4);
}
static void match_all(ptx_warp *w, const ptx_inst *i)
{
    if (!ptx_together(w, i, 3))
        return;
    uint64_t v[32];
    uint32_t t[32], same = 0;
    ptx_read(w, i, 2, v);
    PTX_LANES
    {
        const uint32_t m = members(w, i, 3, l);
        bool alike = true;
        for (int j = 0; j < 32; j++)
            alike = alike && (!(m >> j & 1) || v[j] == v[l]);
        t[l] = alike ? m : 0;
        same |= alike ? 1u << l : 0;
    }
    ptx_put(w, i, 0, t, 4);
    ptx_put_pred(w, i, 1, same);
}

static void activemask(ptx_warp *w, const ptx_inst *i)
{
    uint32_t t[32];
    PTX_LANES
    t[l] = w->mask;
    ptx_put(w, i, 0, t, 4);
}

/* Matrices of 8 rows of 8 numbers of 16 bits; eight lanes give the addresses of a matrix's rows.
 * Lane l gets the pair 2 (l % 4) of row l / 4, or of that column (arg: trans). */
static void ldmatrix(ptx_warp *w, const ptx_inst *i)
{
    const int count = i->n_op - 1;
    uint64_t address[32];
    unsigned char *at[32];
    if (!ptx_aligned(w, i))
        return;
    ptx_addresses(w, i, count, 0, address);
    w->mask = 0xffffffffu >> (32 - 8 * count);
    const bool good = ptx_reach(w, i, PTX_SHARED, address, 16, PTX_LOAD, at);
    w->mask = 0xffffffffu;
    for (int m = 0; m < count && good; m++) {
        uint32_t t[32] = {0};
        PTX_LANES
        {
            for (int half = 0; half < 2; half++) {
                const int across = l / 4, along = 2 * (l % 4) + half;
                uint16_t v;
                if (i->row->arg)
                    memcpy(&v, at[8 * m + along] + 2 * across, 2);
                else
                    memcpy(&v, at[8 * m + across] + 2 * along, 2);
                t[l] |= (uint32_t)v << 16 * half;
            }
        }
        ptx_put(w, i, m, t, 4);
    }
}

#define SHFL(mode, arg) PTX_ARG("shfl.sync." mode ".b32", shfl, "=w =|p w w w w", arg)
#define REDUX(op, arg)  PTX_ARG("redux.sync." op, redux, "=w w w", arg)
#define LDMATRIX(n)                                                                                \
    PTX_ARG("ldmatrix.sync.aligned.m8n8.x" n ".shared.b16", ldmatrix, "=" n "w m", 0),             \
        PTX_ARG("ldmatrix.sync.aligned.m8n8.x" n ".trans.shared.b16", ldmatrix, "=" n "w m", 1)
const ptx_row ptx_rows_warp[] = {
    SHFL("up", UP),
    SHFL("down", DOWN),
    SHFL("bfly", BFLY),
    SHFL("idx", IDX),
    PTX_ARG("vote.sync.all.pred", vote, "=p p w", ALL),
    PTX_ARG("vote.sync.any.pred", vote, "=p p w", ANY),
    PTX_ARG("vote.sync.uni.pred", vote, "=p p w", UNI),
    PTX_ROW("vote.sync.ballot.b32", ballot, "=w p w"),
    REDUX("add.u32", ADD),
    REDUX("add.s32", ADD),
    REDUX("min.u32", MIN),
    REDUX("max.u32", MAX),
    REDUX("min.s32", MIN_S),
    REDUX("max.s32", MAX_S),
    REDUX("and.b32", AND),
    REDUX("or.b32", OR),
    REDUX("xor.b32", XOR),
    PTX_ROW("match.any.sync.b32", match_any, "=w w w"),
    PTX_ROW("match.any.sync.b64", match_any, "=w l w"),
    PTX_ROW("match.all.sync.b32", match_all, "=w =|p w w"),
    PTX_ROW("match.all.sync.b64", match_all, "=w =|p l w"),
    PTX_ROW("activemask.b32", activemask, "=w"),
    LDMATRIX("1"),
    LDMATRIX("2"),
    LDMATRIX("4"),
    PTX_END,
};
