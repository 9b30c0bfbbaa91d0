/*
 * rows_integer: integer and bit instructions. PTX ISA: Integer Arithmetic, Logic and Shift, setp.
 * What the ISA leaves open is a fault where a kernel could lean on it (a division by zero).
 */
#include "tests/ptxvm/rows.h"

/* Both signs alike. */
#define SAME(n, T)                                                                                 \
    PTX_FN2(add##n, T, T, T, (uint64_t)a + b)                                                      \
    PTX_FN2(sub##n, T, T, T, (uint64_t)a - b)                                                      \
    PTX_FN2(mul##n, T, T, T, (uint64_t)a *b)                                                       \
    PTX_FN3(mad##n, T, T, T, T, (uint64_t)a *b + c)                                                \
    PTX_FN2(and##n, T, T, T, a &b)                                                                 \
    PTX_FN2(or ##n, T, T, T, a | b)                                                                \
    PTX_FN2(xor##n, T, T, T, a ^ b)                                                                \
    PTX_FN1(not ##n, T, T, ~a)                                                                     \
    PTX_FN1(neg##n, T, T, 0 - (uint64_t)a)                                                         \
    PTX_FN2(shl##n, T, T, ptx_u32, b < n ? (uint64_t)a << (b & (n - 1)) : 0)                       \
    PTX_SETP(setp_eq##n, T, a == b)                                                                \
    PTX_SETP(setp_ne##n, T, a != b)
SAME(16, ptx_u16)
SAME(32, ptx_u32)
SAME(64, ptx_u64)

#define ORDERED(n, T)                                                                              \
    PTX_FN2(min_##n, T, T, T, a < b ? a : b)                                                       \
    PTX_FN2(max_##n, T, T, T, a > b ? a : b)                                                       \
    PTX_SETP(setp_lt_##n, T, a < b)                                                                \
    PTX_SETP(setp_le_##n, T, a <= b)                                                               \
    PTX_SETP(setp_gt_##n, T, a > b)                                                                \
    PTX_SETP(setp_ge_##n, T, a >= b)
ORDERED(u16, ptx_u16)
ORDERED(u32, ptx_u32)
ORDERED(u64, ptx_u64)
ORDERED(s16, ptx_s16)
ORDERED(s32, ptx_s32)
ORDERED(s64, ptx_s64)

#define SHR(name, T, bits)  PTX_FN2(name, T, T, ptx_u32, a >> (b < bits ? b : bits - 1))
#define SHRU(name, T, bits) PTX_FN2(name, T, T, ptx_u32, b < bits ? a >> (b & (bits - 1)) : 0)
SHRU(shr_u16, ptx_u16, 16)
SHRU(shr_u32, ptx_u32, 32)
SHRU(shr_u64, ptx_u64, 64)
SHR(shr_s16, ptx_s16, 16)
SHR(shr_s32, ptx_s32, 32)
SHR(shr_s64, ptx_s64, 64)

__extension__ typedef __int128 wide_s;
__extension__ typedef unsigned __int128 wide_u;
PTX_FN2(mulhi_u16, ptx_u16, ptx_u16, ptx_u16, (uint32_t)a *b >> 16)
PTX_FN2(mulhi_s16, ptx_s16, ptx_s16, ptx_s16, (int32_t)a *b >> 16)
PTX_FN2(mulhi_u32, ptx_u32, ptx_u32, ptx_u32, (uint64_t)a *b >> 32)
PTX_FN2(mulhi_s32, ptx_s32, ptx_s32, ptx_s32, (int64_t)a *b >> 32)
PTX_FN2(mulhi_u64, ptx_u64, ptx_u64, ptx_u64, (wide_u)a *b >> 64)
PTX_FN2(mulhi_s64, ptx_s64, ptx_s64, ptx_s64, (wide_s)a *b >> 64)
PTX_FN3(madhi_u32, ptx_u32, ptx_u32, ptx_u32, ptx_u32, ((uint64_t)a * b >> 32) + c)
PTX_FN3(madhi_s32, ptx_u32, ptx_s32, ptx_s32, ptx_u32, (uint64_t)((int64_t)a *b >> 32) + c)
PTX_FN3(madhi_u64, ptx_u64, ptx_u64, ptx_u64, ptx_u64, (uint64_t)((wide_u)a *b >> 64) + c)
PTX_FN3(madhi_s64, ptx_u64, ptx_s64, ptx_s64, ptx_u64, (uint64_t)((wide_s)a *b >> 64) + c)
PTX_FN2(mulwide_u16, ptx_u32, ptx_u16, ptx_u16, (uint32_t)a *b)
PTX_FN2(mulwide_s16, ptx_s32, ptx_s16, ptx_s16, (int32_t)a *b)
PTX_FN2(mulwide_u32, ptx_u64, ptx_u32, ptx_u32, (uint64_t)a *b)
PTX_FN2(mulwide_s32, ptx_s64, ptx_s32, ptx_s32, (int64_t)a *b)
PTX_FN3(madwide_u16, ptx_u32, ptx_u16, ptx_u16, ptx_u32, (uint32_t)a *b + c)
PTX_FN3(madwide_s16, ptx_u32, ptx_s16, ptx_s16, ptx_u32, (uint32_t)((int32_t)a *b) + c)
PTX_FN3(madwide_u32, ptx_u64, ptx_u32, ptx_u32, ptx_u64, (uint64_t)a *b + c)
PTX_FN3(madwide_s32, ptx_u64, ptx_s32, ptx_s32, ptx_u64, (uint64_t)((int64_t)a *b) + c)

PTX_FN1(abs_s16, ptx_u16, ptx_s16, a < 0 ? 0u - (uint32_t)a : (uint32_t)a)
PTX_FN1(abs_s32, ptx_u32, ptx_s32, a < 0 ? 0u - (uint32_t)a : (uint32_t)a)
PTX_FN1(abs_s64, ptx_u64, ptx_s64, a < 0 ? 0u - (uint64_t)a : (uint64_t)a)
PTX_FN3(sad_u32, ptx_u32, ptx_u32, ptx_u32, ptx_u32, c + (a < b ? b - a : a - b))
PTX_FN3(sad_s32, ptx_u32, ptx_s32, ptx_s32, ptx_u32,
        c + (a < b ? (uint32_t)b - (uint32_t)a : (uint32_t)a - (uint32_t)b))

/* By zero the ISA gives no value, so a lane that does it is stopped. The quotient that does not fit
 * (least number by -1) wraps. */
#define DIVISION(name, T, U, quotient, remainder)                                                  \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const T *as = ptx_src(T, 1), *bs = ptx_src(T, 2);                                          \
        uint32_t zero = 0;                                                                         \
        T t[32];                                                                                   \
        PTX_LANES                                                                                  \
        {                                                                                          \
            const T a = as[l], b = bs[l];                                                          \
            zero |= b == 0 ? 1u << l : 0;                                                          \
            t[l] = (T)(b == 0 ? 0 : i->row->arg ? (remainder) : (quotient));                       \
        }                                                                                          \
        if (zero & w->mask)                                                                        \
            ptx_fault(w, i, "%s by zero: the ISA leaves the result open", i->row->text);           \
        ptx_put(w, i, 0, t, sizeof(T));                                                            \
    }
#define DIVISION_S(name, T, U)                                                                     \
    DIVISION(name, T, U, b == -1 ? (T)(0 - (U)a) : a / b, b == -1 ? 0 : a % b)
DIVISION(div_u16, ptx_u16, uint32_t, a / b, a % b)
DIVISION(div_u32, ptx_u32, uint32_t, a / b, a % b)
DIVISION(div_u64, ptx_u64, uint64_t, a / b, a % b)
DIVISION_S(div_s16, ptx_s16, uint32_t)
DIVISION_S(div_s32, ptx_s32, uint32_t)
DIVISION_S(div_s64, ptx_s64, uint64_t)

PTX_FN1(popc32, ptx_u32, ptx_u32, __builtin_popcount(a))
PTX_FN1(popc64, ptx_u32, ptx_u64, __builtin_popcountll(a))
PTX_FN1(clz32, ptx_u32, ptx_u32, a ? __builtin_clz(a) : 32)
PTX_FN1(clz64, ptx_u32, ptx_u64, a ? __builtin_clzll(a) : 64)

static inline uint64_t reversed(uint64_t v)
{
    v = (v >> 1 & 0x5555555555555555u) | (v & 0x5555555555555555u) << 1;
    v = (v >> 2 & 0x3333333333333333u) | (v & 0x3333333333333333u) << 2;
    v = (v >> 4 & 0x0f0f0f0f0f0f0f0fu) | (v & 0x0f0f0f0f0f0f0f0fu) << 4;
    return __builtin_bswap64(v);
}
PTX_FN1(brev32, ptx_u32, ptx_u32, reversed(a) >> 32)
PTX_FN1(brev64, ptx_u64, ptx_u64, reversed(a))

/* The place of the highest bit that is not a copy of the sign; arg: the shift that brings it to the
 * top instead. */
static inline uint32_t found(uint64_t a, uint32_t top, int shift)
{
    if (a == 0)
        return 0xffffffffu;
    const uint32_t d = 63 - (uint32_t)__builtin_clzll(a);
    return shift ? top - d : d;
}
PTX_FN1(bfind_u32, ptx_u32, ptx_u32, found(a, 31, i->row->arg))
PTX_FN1(bfind_s32, ptx_u32, ptx_u32, found(a >> 31 ? ~a : a, 31, i->row->arg))
PTX_FN1(bfind_u64, ptx_u32, ptx_u64, found(a, 63, i->row->arg))
PTX_FN1(bfind_s64, ptx_u32, ptx_u64, found(a >> 63 ? ~a : a, 63, i->row->arg))

/* Bit fields: position and length count modulo 256, and may reach past the value's end. */
static inline uint64_t ones(uint32_t n)
{
    return n >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1;
}
static inline uint64_t field_u(uint64_t a, uint32_t pos, uint32_t len)
{
    pos &= 255;
    return pos > 63 ? 0 : a >> pos & ones(len & 255);
}
static inline int64_t field_s(int64_t a, uint32_t pos, uint32_t len, uint32_t top)
{
    pos &= 255;
    len &= 255;
    if (len == 0)
        return 0;
    const int64_t v = a >> (pos < 63 ? pos : 63);
    if (pos + len > top)
        return v;
    return (int64_t)((uint64_t)v << (64 - len)) >> (64 - len);
}
static inline uint64_t inserted(uint64_t a, uint64_t b, uint32_t pos, uint32_t len)
{
    pos &= 255;
    if (pos > 63)
        return b;
    const uint64_t m = ones(len & 255) << pos;
    return (b & ~m) | (a << pos & m);
}
PTX_FN3(bfe_u32, ptx_u32, ptx_u32, ptx_u32, ptx_u32, field_u(a, b, c))
PTX_FN3(bfe_u64, ptx_u64, ptx_u64, ptx_u32, ptx_u32, field_u(a, b, c))
PTX_FN3(bfe_s32, ptx_u32, ptx_s32, ptx_u32, ptx_u32, field_s(a, b, c, 31))
PTX_FN3(bfe_s64, ptx_u64, ptx_s64, ptx_u32, ptx_u32, field_s(a, b, c, 63))

#define BFI(name, T)                                                                               \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const T *as = ptx_src(T, 1), *bs = ptx_src(T, 2);                                          \
        const ptx_u32 *pos = ptx_src(ptx_u32, 3), *len = ptx_src(ptx_u32, 4);                      \
        T t[32];                                                                                   \
        PTX_LANES                                                                                  \
        t[l] = (T)inserted(as[l], bs[l], pos[l], len[l]);                                          \
        ptx_put(w, i, 0, t, sizeof(T));                                                            \
    }
BFI(bfi32, ptx_u32)
BFI(bfi64, ptx_u64)

/* Bit n of the table is the result where a, b and c have the bits of n, a's the highest. */
static void lop3(ptx_warp *w, const ptx_inst *i)
{
    const ptx_u32 *a = ptx_src(ptx_u32, 1), *b = ptx_src(ptx_u32, 2), *c = ptx_src(ptx_u32, 3);
    uint32_t t[32] = {0};
    for (int n = 0; n < 8; n++) {
        if (!(i->literal[0] >> n & 1))
            continue;
        const uint32_t na = n & 4 ? 0 : ~0u, nb = n & 2 ? 0 : ~0u, nc = n & 1 ? 0 : ~0u;
        PTX_LANES
        t[l] |= (a[l] ^ na) & (b[l] ^ nb) & (c[l] ^ nc);
    }
    ptx_put(w, i, 0, t, 4);
}

static void and_pred(ptx_warp *w, const ptx_inst *i)
{
    ptx_put_pred(w, i, 0, ptx_pred(w, i, 1) & ptx_pred(w, i, 2));
}
static void or_pred(ptx_warp *w, const ptx_inst *i)
{
    ptx_put_pred(w, i, 0, ptx_pred(w, i, 1) | ptx_pred(w, i, 2));
}
static void xor_pred(ptx_warp *w, const ptx_inst *i)
{
    ptx_put_pred(w, i, 0, ptx_pred(w, i, 1) ^ ptx_pred(w, i, 2));
}
static void not_pred(ptx_warp *w, const ptx_inst *i)
{
    ptx_put_pred(w, i, 0, ~ptx_pred(w, i, 1));
}

#define EITHER(op, n, k, shape) PTX_ROW(op ".s" #n, k##n, shape), PTX_ROW(op ".u" #n, k##n, shape)
#define BITS(op, k)                                                                                \
    PTX_ROW(op ".b16", k##16, "=h h h"), PTX_ROW(op ".b32", k##32, "=w w w"),                      \
        PTX_ROW(op ".b64", k##64, "=l l l")
#define SIX(op, k, arg)                                                                            \
    PTX_ARG(op ".u16", k##u16, "=h h h", arg), PTX_ARG(op ".s16", k##s16, "=h h h", arg),          \
        PTX_ARG(op ".u32", k##u32, "=w w w", arg), PTX_ARG(op ".s32", k##s32, "=w w w", arg),      \
        PTX_ARG(op ".u64", k##u64, "=l l l", arg), PTX_ARG(op ".s64", k##s64, "=l l l", arg)
#define COMPARE(cmp)                                                                               \
    PTX_SETP_ROWS(#cmp, "u16", setp_##cmp##_u16, "h"),                                             \
        PTX_SETP_ROWS(#cmp, "s16", setp_##cmp##_s16, "h"),                                         \
        PTX_SETP_ROWS(#cmp, "u32", setp_##cmp##_u32, "w"),                                         \
        PTX_SETP_ROWS(#cmp, "s32", setp_##cmp##_s32, "w"),                                         \
        PTX_SETP_ROWS(#cmp, "u64", setp_##cmp##_u64, "l"),                                         \
        PTX_SETP_ROWS(#cmp, "s64", setp_##cmp##_s64, "l")
#define EQUALITY(cmp, type, n, kind) PTX_SETP_ROWS(#cmp, #type, setp_##cmp##n, kind)
#define EQUALITIES(cmp)                                                                            \
    EQUALITY(cmp, b16, 16, "h"), EQUALITY(cmp, u16, 16, "h"), EQUALITY(cmp, s16, 16, "h"),         \
        EQUALITY(cmp, b32, 32, "w"), EQUALITY(cmp, u32, 32, "w"), EQUALITY(cmp, s32, 32, "w"),     \
        EQUALITY(cmp, b64, 64, "l"), EQUALITY(cmp, u64, 64, "l"), EQUALITY(cmp, s64, 64, "l")

const ptx_row PTX_TABLE(ptx_rows_integer)[] = {
    EITHER("add", 16, add, "=h h h"),
    EITHER("add", 32, add, "=w w w"),
    EITHER("add", 64, add, "=l l l"),
    EITHER("sub", 16, sub, "=h h h"),
    EITHER("sub", 32, sub, "=w w w"),
    EITHER("sub", 64, sub, "=l l l"),
    EITHER("mul.lo", 16, mul, "=h h h"),
    EITHER("mul.lo", 32, mul, "=w w w"),
    EITHER("mul.lo", 64, mul, "=l l l"),
    EITHER("mad.lo", 16, mad, "=h h h h"),
    EITHER("mad.lo", 32, mad, "=w w w w"),
    EITHER("mad.lo", 64, mad, "=l l l l"),
    SIX("mul.hi", mulhi_, 0),
    PTX_ROW("mad.hi.u32", madhi_u32, "=w w w w"),
    PTX_ROW("mad.hi.s32", madhi_s32, "=w w w w"),
    PTX_ROW("mad.hi.u64", madhi_u64, "=l l l l"),
    PTX_ROW("mad.hi.s64", madhi_s64, "=l l l l"),
    PTX_ROW("mul.wide.u16", mulwide_u16, "=w h h"),
    PTX_ROW("mul.wide.s16", mulwide_s16, "=w h h"),
    PTX_ROW("mul.wide.u32", mulwide_u32, "=l w w"),
    PTX_ROW("mul.wide.s32", mulwide_s32, "=l w w"),
    PTX_ROW("mad.wide.u16", madwide_u16, "=w h h w"),
    PTX_ROW("mad.wide.s16", madwide_s16, "=w h h w"),
    PTX_ROW("mad.wide.u32", madwide_u32, "=l w w l"),
    PTX_ROW("mad.wide.s32", madwide_s32, "=l w w l"),
    SIX("div", div_, 0),
    SIX("rem", div_, 1),
    SIX("min", min_, 0),
    SIX("max", max_, 0),
    PTX_ROW("abs.s16", abs_s16, "=h h"),
    PTX_ROW("abs.s32", abs_s32, "=w w"),
    PTX_ROW("abs.s64", abs_s64, "=l l"),
    PTX_ROW("neg.s16", neg16, "=h h"),
    PTX_ROW("neg.s32", neg32, "=w w"),
    PTX_ROW("neg.s64", neg64, "=l l"),
    PTX_ROW("sad.u32", sad_u32, "=w w w w"),
    PTX_ROW("sad.s32", sad_s32, "=w w w w"),
    BITS("and", and),
    BITS("or", or),
    BITS("xor", xor),
    PTX_ROW("not.b16", not16, "=h h"),
    PTX_ROW("not.b32", not32, "=w w"),
    PTX_ROW("not.b64", not64, "=l l"),
    PTX_ROW("and.pred", and_pred, "=p p p"),
    PTX_ROW("or.pred", or_pred, "=p p p"),
    PTX_ROW("xor.pred", xor_pred, "=p p p"),
    PTX_ROW("not.pred", not_pred, "=p p"),
    PTX_ROW("shl.b16", shl16, "=h h w"),
    PTX_ROW("shl.b32", shl32, "=w w w"),
    PTX_ROW("shl.b64", shl64, "=l l w"),
    PTX_ROW("shr.b16", shr_u16, "=h h w"),
    PTX_ROW("shr.b32", shr_u32, "=w w w"),
    PTX_ROW("shr.b64", shr_u64, "=l l w"),
    PTX_ROW("shr.u16", shr_u16, "=h h w"),
    PTX_ROW("shr.u32", shr_u32, "=w w w"),
    PTX_ROW("shr.u64", shr_u64, "=l l w"),
    PTX_ROW("shr.s16", shr_s16, "=h h w"),
    PTX_ROW("shr.s32", shr_s32, "=w w w"),
    PTX_ROW("shr.s64", shr_s64, "=l l w"),
    PTX_ROW("popc.b32", popc32, "=w w"),
    PTX_ROW("popc.b64", popc64, "=w l"),
    PTX_ROW("clz.b32", clz32, "=w w"),
    PTX_ROW("clz.b64", clz64, "=w l"),
    PTX_ROW("brev.b32", brev32, "=w w"),
    PTX_ROW("brev.b64", brev64, "=l l"),
    PTX_ROW("bfind.u32", bfind_u32, "=w w"),
    PTX_ROW("bfind.s32", bfind_s32, "=w w"),
    PTX_ROW("bfind.u64", bfind_u64, "=w l"),
    PTX_ROW("bfind.s64", bfind_s64, "=w l"),
    PTX_ARG("bfind.shiftamt.u32", bfind_u32, "=w w", 1),
    PTX_ARG("bfind.shiftamt.s32", bfind_s32, "=w w", 1),
    PTX_ARG("bfind.shiftamt.u64", bfind_u64, "=w l", 1),
    PTX_ARG("bfind.shiftamt.s64", bfind_s64, "=w l", 1),
    PTX_ROW("bfe.u32", bfe_u32, "=w w w w"),
    PTX_ROW("bfe.s32", bfe_s32, "=w w w w"),
    PTX_ROW("bfe.u64", bfe_u64, "=l l w w"),
    PTX_ROW("bfe.s64", bfe_s64, "=l l w w"),
    PTX_ROW("bfi.b32", bfi32, "=w w w w w"),
    PTX_ROW("bfi.b64", bfi64, "=l l l w w"),
    PTX_ROW("lop3.b32", lop3, "=w w w w #"),
    EQUALITIES(eq),
    EQUALITIES(ne),
    COMPARE(lt),
    COMPARE(le),
    COMPARE(gt),
    COMPARE(ge),
    PTX_SETP_ROWS("lo", "u32", setp_lt_u32, "w"),
    PTX_SETP_ROWS("ls", "u32", setp_le_u32, "w"),
    PTX_SETP_ROWS("hi", "u32", setp_gt_u32, "w"),
    PTX_SETP_ROWS("hs", "u32", setp_ge_u32, "w"),
    PTX_END,
};
