/* Rows of memory: ld, st, atom, red, cvta. The argument of a row packs space, element and count. */
#include "tests/ptxvm/run.h"

enum { SIGNED = 1 << 12, CONSTANT = 1 << 13 };
#define FORM(space, bytes, count) ((space) | (bytes) << 4 | (count) << 8)
#define SPACE(i)                  ((ptx_space)((i)->row->arg & 15))
#define BYTES(i)                  ((unsigned)(i)->row->arg >> 4 & 15)
#define COUNT(i)                  ((int)((unsigned)(i)->row->arg >> 8 & 15))

/* For constant bytes and width: without a call for each lane. */
static inline void take_as(uint32_t mask, unsigned char *d, unsigned char *const at[32],
                           unsigned from, unsigned bytes, unsigned width, bool is_signed)
{
    PTX_EACH(l, mask)
    {
        uint64_t v = 0; /* little-endian */
        memcpy(&v, at[l] + from, bytes);
        if (is_signed)
            v = (uint64_t)((int64_t)(v << (64 - 8 * bytes)) >> (64 - 8 * bytes));
        memcpy(d + l * width, &v, width);
    }
}

/* Element k of every lane's vector into operand k. */
static void take(ptx_warp *w, const ptx_inst *i, int k, unsigned char *const at[32])
{
    unsigned bytes = BYTES(i), from = (unsigned)k * bytes, width = i->width[k];
    bool is_signed = i->row->arg & SIGNED;
    unsigned char *d = w->regs + i->op[k];
    switch (is_signed && bytes < width ? 0 : bytes * 16 + width) {
    case 1 * 16 + 2:
        take_as(w->mask, d, at, from, 1, 2, false);
        break;
    case 2 * 16 + 2:
        take_as(w->mask, d, at, from, 2, 2, false);
        break;
    case 4 * 16 + 4:
        take_as(w->mask, d, at, from, 4, 4, false);
        break;
    case 8 * 16 + 8:
        take_as(w->mask, d, at, from, 8, 8, false);
        break;
    default:
        take_as(w->mask, d, at, from, bytes, width, is_signed);
    }
}

/* All of them are registers of 32 bits. */
static bool words(const ptx_inst *i)
{
    return i->width[0] + i->width[1] + i->width[2] + i->width[3] == 16 && i->op[0] && i->op[1] &&
           i->op[2] && i->op[3];
}

/* Four lanes' four words at a time, turned. */
static void take_quads(ptx_warp *w, const ptx_inst *i, unsigned char *const at[32])
{
    typedef uint32_t quad __attribute__((vector_size(16)));
    for (size_t l = 0; l < 32; l += 4) {
        quad a, b, c, d, out[4];
        memcpy(&a, at[l], 16);
        memcpy(&b, at[l + 1], 16);
        memcpy(&c, at[l + 2], 16);
        memcpy(&d, at[l + 3], 16);
        quad low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
        quad low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
        quad high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        quad high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        out[0] = __builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5);
        out[1] = __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7);
        out[2] = __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5);
        out[3] = __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7);
        for (int k = 0; k < 4; k++)
            memcpy(w->regs + i->op[k] + 4 * l, &out[k], 16);
    }
}

static void ld(ptx_warp *w, const ptx_inst *i)
{
    uint64_t address[32];
    unsigned char *at[32];
    int count = COUNT(i);
    ptx_addresses(w, i, count, 0, address);
    if (!ptx_reach(w, i, SPACE(i), address, BYTES(i) * (unsigned)count,
                   i->row->arg & CONSTANT ? PTX_CONSTANT : PTX_LOAD, at))
        return;
    if (BYTES(i) == 4 && count == 4 && w->mask == 0xffffffffu && words(i)) {
        take_quads(w, i, at);
        return;
    }
    for (int k = 0; k < count; k++) {
        if (i->op[k] != 0) /* _ */
            take(w, i, k, at);
    }
}

static void st(ptx_warp *w, const ptx_inst *i)
{
    uint64_t address[32];
    unsigned char *at[32];
    unsigned bytes = BYTES(i);
    int count = COUNT(i);
    ptx_addresses(w, i, 0, 0, address);
    if (!ptx_reach(w, i, SPACE(i), address, bytes * (unsigned)count, PTX_STORE, at))
        return;
    for (int k = 0; k < count; k++) {
        const unsigned char *v = w->regs + i->op[1 + k];
        unsigned width = i->width[1 + k], to = (unsigned)k * bytes;
        if (bytes == 4 && width == 4) {
            PTX_EACH(l, w->mask)
            {
                memcpy(at[l] + to, v + 4 * l, 4);
            }
            continue;
        }
        PTX_EACH(l, w->mask) /* little-endian: the low bytes of a wider register */
        {
            memcpy(at[l] + to, v + l * width, bytes);
        }
    }
}

/* ---- atomics ---- */

enum { ADD, MIN, MAX, AND, OR, XOR, EXCH, CAS };
#define ATOM(op, space, bytes) (FORM(space, bytes, 1) | (op) << 16)

static uint64_t combine(int op, bool is_signed, uint64_t old, uint64_t v, uint64_t new)
{
    bool less = is_signed ? (int64_t)v < (int64_t)old : v < old;
    switch (op) {
    case ADD:
        return old + v;
    case MIN:
        return less ? v : old;
    case MAX:
        return less ? old : v;
    case AND:
        return old & v;
    case OR:
        return old | v;
    case XOR:
        return old ^ v;
    case CAS:
        return old == v ? new : old;
    default: /* EXCH */
        return v;
    }
}

static uint64_t lane_value(const ptx_warp *w, const ptx_inst *i, int n, unsigned l, unsigned bytes)
{
    uint64_t v = 0;
    memcpy(&v, w->regs + i->op[n] + l * bytes, bytes);
    return bytes == 4 && (i->row->arg & SIGNED) ? (uint64_t)(int64_t)(int32_t)v : v;
}

/* Lanes one after another, ascending: the hardware's order is open, so that only what no order
 * changes may be used of the results. */
static void update(ptx_warp *w, const ptx_inst *i, int at_address, uint64_t before[32])
{
    uint64_t address[32];
    unsigned char *at[32];
    unsigned bytes = BYTES(i);
    int op = i->row->arg >> 16;
    bool is_signed = i->row->arg & SIGNED;
    ptx_addresses(w, i, at_address, 0, address);
    if (!ptx_reach(w, i, SPACE(i), address, bytes, PTX_ATOMIC, at))
        return;
    for (uint32_t left = w->mask; left; left &= left - 1) {
        unsigned l = (unsigned)__builtin_ctz(left);
        uint64_t old = 0, v = lane_value(w, i, at_address + 1, l, bytes);
        memcpy(&old, at[l], bytes);
        before[l] = old;
        if (bytes == 4 && is_signed)
            old = (uint64_t)(int64_t)(int32_t)old;
        uint64_t new = op == CAS ? lane_value(w, i, at_address + 2, l, bytes) : 0;
        new = combine(op, is_signed, old, v, new);
        memcpy(at[l], &new, bytes);
    }
}

static void atom(ptx_warp *w, const ptx_inst *i)
{
    uint64_t before[32] = {0};
    update(w, i, 1, before);
    ptx_write(w, i, 0, before);
}

static void red(ptx_warp *w, const ptx_inst *i)
{
    uint64_t before[32];
    update(w, i, 0, before);
}

/* ---- addresses ---- */

static void cvta(ptx_warp *w, const ptx_inst *i)
{
    uint64_t v[32], base = ptx_window(SPACE(i));
    PTX_LANES v[l] = ptx_src(ptx_u64, 1)[l] + base;
    ptx_put(w, i, 0, v, 8);
}

static void cvta_to(ptx_warp *w, const ptx_inst *i)
{
    uint64_t v[32], base = ptx_window(SPACE(i));
    PTX_LANES v[l] = ptx_src(ptx_u64, 1)[l] - base;
    ptx_put(w, i, 0, v, 8);
}

/* Fences order what race detection treats as unordered anyhow. */
static void fence(ptx_warp *w, const ptx_inst *i)
{
    (void)w;
    (void)i;
}

#define TYPES(X, fn, op, at, space)                                                                \
    X(fn, op, at, space, ".b8", "b", 1, 0)                                                         \
    X(fn, op, at, space, ".u8", "b", 1, 0)                                                         \
    X(fn, op, at, space, ".s8", "b", 1, SIGNED)                                                    \
    X(fn, op, at, space, ".b16", "h", 2, 0)                                                        \
    X(fn, op, at, space, ".u16", "h", 2, 0)                                                        \
    X(fn, op, at, space, ".s16", "h", 2, SIGNED)                                                   \
    X(fn, op, at, space, ".b32", "w", 4, 0)                                                        \
    X(fn, op, at, space, ".u32", "w", 4, 0)                                                        \
    X(fn, op, at, space, ".s32", "w", 4, SIGNED)                                                   \
    X(fn, op, at, space, ".f32", "w", 4, 0)                                                        \
    X(fn, op, at, space, ".b64", "l", 8, 0)                                                        \
    X(fn, op, at, space, ".u64", "l", 8, 0)                                                        \
    X(fn, op, at, space, ".s64", "l", 8, 0)                                                        \
    X(fn, op, at, space, ".f64", "l", 8, 0)
#define TYPES_16(X, fn, op, at, space) /* four of them are 16 bytes at most */                     \
    X(fn, op, at, space, ".b8", "b", 1, 0)                                                         \
    X(fn, op, at, space, ".u8", "b", 1, 0)                                                         \
    X(fn, op, at, space, ".s8", "b", 1, SIGNED)                                                    \
    X(fn, op, at, space, ".b16", "h", 2, 0)                                                        \
    X(fn, op, at, space, ".u16", "h", 2, 0)                                                        \
    X(fn, op, at, space, ".s16", "h", 2, SIGNED)                                                   \
    X(fn, op, at, space, ".b32", "w", 4, 0)                                                        \
    X(fn, op, at, space, ".u32", "w", 4, 0)                                                        \
    X(fn, op, at, space, ".s32", "w", 4, SIGNED)                                                   \
    X(fn, op, at, space, ".f32", "w", 4, 0)

#define LD1(fn, op, at, space, type, kind, bytes, sign)                                            \
    {op at type, fn, "=" kind "+ m", FORM(space, bytes, 1) | (sign), PTX_PLAIN},
#define LD2(fn, op, at, space, type, kind, bytes, sign)                                            \
    {op at ".v2" type, fn, "=2" kind "+ m", FORM(space, bytes, 2) | (sign), PTX_PLAIN},
#define LD4(fn, op, at, space, type, kind, bytes, sign)                                            \
    {op at ".v4" type, fn, "=4" kind "+ m", FORM(space, bytes, 4) | (sign), PTX_PLAIN},
#define ST1(fn, op, at, space, type, kind, bytes, sign)                                            \
    {op at type, fn, "m " kind "+", FORM(space, bytes, 1), PTX_PLAIN},
#define ST2(fn, op, at, space, type, kind, bytes, sign)                                            \
    {op at ".v2" type, fn, "m 2" kind "+", FORM(space, bytes, 2), PTX_PLAIN},
#define ST4(fn, op, at, space, type, kind, bytes, sign)                                            \
    {op at ".v4" type, fn, "m 4" kind "+", FORM(space, bytes, 4), PTX_PLAIN},
#define LOADS(at, space)                                                                           \
    TYPES(LD1, ld, "ld", at, space)                                                                \
    TYPES(LD2, ld, "ld", at, space)                                                                \
    TYPES_16(LD4, ld, "ld", at, space)
#define STORES(at, space)                                                                          \
    TYPES(ST1, st, "st", at, space)                                                                \
    TYPES(ST2, st, "st", at, space)                                                                \
    TYPES_16(ST4, st, "st", at, space)

#define ATOMIC(op_text, op, space_text, space, type, kind, bytes, sign)                            \
    {"atom." space_text "." op_text type, atom, "=" kind " m " kind,                               \
     ATOM(op, space, bytes) | (sign), PTX_PLAIN},                                                  \
        {"red." space_text "." op_text type, red, "m " kind, ATOM(op, space, bytes) | sign,        \
         PTX_PLAIN},
#define ATOMICS(text, space)                                                                       \
    ATOMIC("add", ADD, text, space, ".u32", "w", 4, 0)                                             \
    ATOMIC("add", ADD, text, space, ".s32", "w", 4, SIGNED)                                        \
    ATOMIC("add", ADD, text, space, ".u64", "l", 8, 0)                                             \
    ATOMIC("min", MIN, text, space, ".u32", "w", 4, 0)                                             \
    ATOMIC("min", MIN, text, space, ".s32", "w", 4, SIGNED)                                        \
    ATOMIC("min", MIN, text, space, ".u64", "l", 8, 0)                                             \
    ATOMIC("max", MAX, text, space, ".u32", "w", 4, 0)                                             \
    ATOMIC("max", MAX, text, space, ".s32", "w", 4, SIGNED)                                        \
    ATOMIC("max", MAX, text, space, ".u64", "l", 8, 0)                                             \
    ATOMIC("and", AND, text, space, ".b32", "w", 4, 0)                                             \
    ATOMIC("or", OR, text, space, ".b32", "w", 4, 0)                                               \
    ATOMIC("xor", XOR, text, space, ".b32", "w", 4, 0)
#define EXCHANGES(text, space)                                                                     \
    {"atom." text ".exch.b32", atom, "=w m w", ATOM(EXCH, space, 4), PTX_PLAIN},                   \
        {"atom." text ".exch.b64", atom, "=l m l", ATOM(EXCH, space, 8), PTX_PLAIN},               \
        {"atom." text ".cas.b32", atom, "=w m w w", ATOM(CAS, space, 4), PTX_PLAIN},               \
        {"atom." text ".cas.b64", atom, "=l m l l", ATOM(CAS, space, 8), PTX_PLAIN},

const ptx_row ptx_rows_memory[] = {
    LOADS("", PTX_GENERIC) LOADS(".global", PTX_GLOBAL) LOADS(".global.nc", PTX_GLOBAL | CONSTANT)
        LOADS(".global.L1::no_allocate", PTX_GLOBAL) LOADS(
            ".global.nc.L1::no_allocate", PTX_GLOBAL | CONSTANT) LOADS(".global.cg", PTX_GLOBAL)
            LOADS(".global.cs", PTX_GLOBAL) LOADS(".const", PTX_GLOBAL | CONSTANT)
                LOADS(".shared", PTX_SHARED) LOADS(".local", PTX_LOCAL) LOADS(".param", PTX_PARAM)
                    STORES("", PTX_GENERIC) STORES(".global", PTX_GLOBAL)
                        STORES(".global.cg", PTX_GLOBAL) STORES(".global.cs", PTX_GLOBAL)
                            STORES(".shared", PTX_SHARED) STORES(".local", PTX_LOCAL)
                                ATOMICS("shared", PTX_SHARED) ATOMICS("global", PTX_GLOBAL)
                                    EXCHANGES("shared", PTX_SHARED) EXCHANGES("global", PTX_GLOBAL){
                                        "cvta.global.u64", cvta, "=l l", PTX_GLOBAL, PTX_PLAIN},
    {"cvta.const.u64", cvta, "=l l", PTX_GLOBAL, PTX_PLAIN},
    {"cvta.shared.u64", cvta, "=l l", PTX_SHARED, PTX_PLAIN},
    {"cvta.local.u64", cvta, "=l l", PTX_LOCAL, PTX_PLAIN},
    {"cvta.param.u64", cvta, "=l l", PTX_PARAM, PTX_PLAIN},
    {"cvta.to.global.u64", cvta_to, "=l l", PTX_GLOBAL, PTX_PLAIN},
    {"cvta.to.const.u64", cvta_to, "=l l", PTX_GLOBAL, PTX_PLAIN},
    {"cvta.to.shared.u64", cvta_to, "=l l", PTX_SHARED, PTX_PLAIN},
    {"cvta.to.local.u64", cvta_to, "=l l", PTX_LOCAL, PTX_PLAIN},
    {"cvta.to.param.u64", cvta_to, "=l l", PTX_PARAM, PTX_PLAIN},
    {"membar.cta", fence, "", 0, PTX_PLAIN},
    {"fence.acq_rel.cta", fence, "", 0, PTX_PLAIN},
    {NULL, NULL, NULL, 0, PTX_PLAIN}};
