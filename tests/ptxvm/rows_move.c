/*
 * rows_move: data that moves and changes its form: mov, selp, prmt, shf, cvt. PTX ISA: Data
 * Movement and Conversion, and for rounding, saturation and NaN the notes of cvt.
 */
#include "tests/ptxvm/half.h"
#include "tests/ptxvm/rows.h"

#include <math.h>

PTX_FN1(mov16, ptx_u16, ptx_u16, a)
PTX_FN1(mov32, ptx_u32, ptx_u32, a)
PTX_FN1(mov64, ptx_u64, ptx_u64, a)

static void mov_pred(ptx_warp *w, const ptx_inst *i)
{
    ptx_put_pred(w, i, 0, ptx_pred(w, i, 1));
}

/* Parts to a whole and back; the first part is the lowest. */
PTX_FN2(pack_2h, ptx_u32, ptx_u16, ptx_u16, (uint32_t)b << 16 | a)
PTX_FN2(pack_2w, ptx_u64, ptx_u32, ptx_u32, (uint64_t)b << 32 | a)
#define UNPACK(name, Whole, Part, parts)                                                           \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const Whole *v = ptx_src(Whole, parts);                                                    \
        Part t[parts][32];                                                                         \
        for (int n = 0; n < parts; n++) {                                                          \
            PTX_LANES                                                                              \
            t[n][l] = (Part)(v[l] >> (n * 8 * (int)sizeof(Part)));                                 \
        }                                                                                          \
        for (int n = 0; n < parts; n++)                                                            \
            ptx_put(w, i, n, t[n], sizeof(Part));                                                  \
    }
UNPACK(unpack_2h, ptx_u32, ptx_u16, 2)
UNPACK(unpack_2w, ptx_u64, ptx_u32, 2)
UNPACK(unpack_4h, ptx_u64, ptx_u16, 4)
static void pack_4h(ptx_warp *w, const ptx_inst *i)
{
    uint64_t t[32] = {0};
    for (int n = 0; n < 4; n++) {
        const ptx_u16 *v = ptx_src(ptx_u16, 1 + n);
        PTX_LANES
        t[l] |= (uint64_t)v[l] << 16 * n;
    }
    ptx_put(w, i, 0, t, 8);
}

#define SELP(name, T)                                                                              \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const T *as = ptx_src(T, 1), *bs = ptx_src(T, 2);                                          \
        const uint32_t p = ptx_pred(w, i, 3);                                                      \
        T t[32];                                                                                   \
        PTX_LANES                                                                                  \
        t[l] = p >> l & 1 ? as[l] : bs[l];                                                         \
        ptx_put(w, i, 0, t, sizeof(T));                                                            \
    }
SELP(selp16, ptx_u16)
SELP(selp32, ptx_u32)
SELP(selp64, ptx_u64)

/* The byte of the eight in b:a that a selector of four bits names; its top bit: that byte's sign,
 * eight times. */
static inline uint32_t permuted(uint32_t a, uint32_t b, uint32_t selectors)
{
    const uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t d = 0;
    for (uint32_t n = 0; n < 4; n++) {
        const uint32_t s = selectors >> 4 * n;
        const uint32_t byte = (uint32_t)(bytes >> 8 * (s & 7)) & 0xff;
        d |= (s & 8 ? (byte >> 7) * 0xff : byte) << 8 * n;
    }
    return d;
}
/* The selectors of prmt's modes f4e, b4e, rc8, ecl, ecr, rc16 by the two low bits of c. */
static const uint16_t prmt_modes[6][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
    {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
    {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232},
};
PTX_FN3(prmt, ptx_u32, ptx_u32, ptx_u32, ptx_u32, permuted(a, b, c))
PTX_FN3(prmt_mode, ptx_u32, ptx_u32, ptx_u32, ptx_u32,
        permuted(a, b, prmt_modes[i->row->arg][c & 3]))

/* Funnel shifts of b:a; clamp: by 32 at most. */
#define CLAMPED(c) ((c) < 32 ? (c) : 32)
PTX_FN3(shf_l_wrap, ptx_u32, ptx_u32, ptx_u32, ptx_u32, ((uint64_t)b << 32 | a) << (c & 31) >> 32)
PTX_FN3(shf_r_wrap, ptx_u32, ptx_u32, ptx_u32, ptx_u32, ((uint64_t)b << 32 | a) >> (c & 31))
PTX_FN3(shf_l_clamp, ptx_u32, ptx_u32, ptx_u32, ptx_u32,
        ((uint64_t)b << 32 | a) << CLAMPED(c) >> 32)
PTX_FN3(shf_r_clamp, ptx_u32, ptx_u32, ptx_u32, ptx_u32, ((uint64_t)b << 32 | a) >> CLAMPED(c))

/* ---- cvt between integers: cut or extended; the frequent ones again for registers of just their
 * width ---- */
#define CVT_INTEGER(name, D, S)                                                                    \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        uint64_t v[32];                                                                            \
        ptx_read(w, i, 1, v);                                                                      \
        PTX_LANES                                                                                  \
        v[l] = (uint64_t)(D)(S)v[l];                                                               \
        ptx_write(w, i, 0, v);                                                                     \
    }
#define CVT_INTEGERS(n, D)                                                                         \
    CVT_INTEGER(cvt_##n##_u8, D, uint8_t)                                                          \
    CVT_INTEGER(cvt_##n##_s8, D, int8_t)                                                           \
    CVT_INTEGER(cvt_##n##_u16, D, uint16_t)                                                        \
    CVT_INTEGER(cvt_##n##_s16, D, int16_t)                                                         \
    CVT_INTEGER(cvt_##n##_u32, D, uint32_t)                                                        \
    CVT_INTEGER(cvt_##n##_s32, D, int32_t)                                                         \
    CVT_INTEGER(cvt_##n##_u64, D, uint64_t)                                                        \
    CVT_INTEGER(cvt_##n##_s64, D, int64_t)
CVT_INTEGERS(u8, uint8_t)
CVT_INTEGERS(s8, int8_t)
CVT_INTEGERS(u16, uint16_t)
CVT_INTEGERS(s16, int16_t)
CVT_INTEGERS(u32, uint32_t)
CVT_INTEGERS(s32, int32_t)
CVT_INTEGERS(u64, uint64_t)
CVT_INTEGERS(s64, int64_t)
PTX_FN1(extend_s16_s8, ptx_s16, ptx_u16, (int8_t)a)
PTX_FN1(extend_s32_s16, ptx_s32, ptx_s16, a)
PTX_FN1(extend_u32_u16, ptx_u32, ptx_u16, a)
PTX_FN1(extend_s64_s32, ptx_s64, ptx_s32, a)
PTX_FN1(extend_u64_u32, ptx_u64, ptx_u32, a)
PTX_FN1(cut_32_64, ptx_u32, ptx_u64, a)
PTX_FN1(cut_16_32, ptx_u16, ptx_u32, a)

/* ---- integer to float ---- */
#define CVT_FLOAT(name, D, S)                                                                      \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        uint64_t v[32];                                                                            \
        ptx_read(w, i, 1, v);                                                                      \
        D t[32];                                                                                   \
        PTX_LANES                                                                                  \
        t[l] = (D)(S)v[l];                                                                         \
        ptx_put(w, i, 0, t, sizeof(D));                                                            \
    }
#define CVT_FLOATS(n, S) CVT_FLOAT(f32_##n, ptx_f32, S) CVT_FLOAT(f64_##n, ptx_f64, S)
CVT_FLOATS(u8, uint8_t)
CVT_FLOATS(s8, int8_t)
CVT_FLOATS(u16, uint16_t)
CVT_FLOATS(s16, int16_t)
CVT_FLOATS(u32, uint32_t)
CVT_FLOATS(s32, int32_t)
CVT_FLOATS(u64, uint64_t)
CVT_FLOATS(s64, int64_t)
PTX_FN1(f32_exactly_s16, ptx_f32, ptx_s16, a)
PTX_FN1(f32_exactly_u16, ptx_f32, ptx_u16, a)
PTX_FN1(f32_exactly_s32, ptx_f32, ptx_s32, a)

/* Toward zero: without the bits below the 24 (53) that fit. */
static inline uint64_t cut_to(uint64_t a, int bits)
{
    const int over = a ? 64 - bits - __builtin_clzll(a) : 0;
    return over > 0 ? a >> over << over : a;
}
static inline float f32_rz_of(uint64_t magnitude, bool negative)
{
    const float f = (float)cut_to(magnitude, 24);
    return negative ? -f : f;
}
static inline double f64_rz_of(uint64_t magnitude, bool negative)
{
    const double f = (double)cut_to(magnitude, 53);
    return negative ? -f : f;
}
#define SIGNED(a) a < 0 ? 0 - (uint64_t)a : (uint64_t)a, a < 0
PTX_FN1(f32_rz_u32, ptx_f32, ptx_u32, f32_rz_of(a, false))
PTX_FN1(f32_rz_s32, ptx_f32, ptx_s32, f32_rz_of(SIGNED(a)))
PTX_FN1(f32_rz_u64, ptx_f32, ptx_u64, f32_rz_of(a, false))
PTX_FN1(f32_rz_s64, ptx_f32, ptx_s64, f32_rz_of(SIGNED(a)))
PTX_FN1(f64_rz_u64, ptx_f64, ptx_u64, f64_rz_of(a, false))
PTX_FN1(f64_rz_s64, ptx_f64, ptx_s64, f64_rz_of(SIGNED(a)))

/* ---- float to integer: rounded, then clamped to what the integer holds ----
 * NaN: 0 where neither side has 64 bits, the pattern of the top bit alone otherwise. */
enum { RNI, RZI, RMI, RPI };
static inline double integral(double v, int mode)
{
    switch (mode) {
    case RNI:
        return rint(v);
    case RZI:
        return trunc(v);
    case RMI:
        return floor(v);
    default:
        return ceil(v);
    }
}
#define CVT_CLAMPED(name, D, S, mode, low, high, nan)                                              \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const S *as = ptx_src(S, 1);                                                               \
        uint64_t t[32];                                                                            \
        PTX_LANES                                                                                  \
        {                                                                                          \
            const double v = integral((double)as[l], mode);                                        \
            D d = 0;                                                                               \
            if (v != v)                                                                            \
                d = (D)(nan);                                                                      \
            else if (v <= (double)(low))                                                           \
                d = (low);                                                                         \
            else if (v >= (double)(high))                                                          \
                d = (high);                                                                        \
            else                                                                                   \
                d = (D)v;                                                                          \
            t[l] = (uint64_t)d;                                                                    \
        }                                                                                          \
        ptx_write(w, i, 0, t);                                                                     \
    }
#define CVT_MODES(n, D, S, low, high, nan)                                                         \
    CVT_CLAMPED(rni_##n, D, S, RNI, low, high, nan)                                                \
    CVT_CLAMPED(rzi_##n, D, S, RZI, low, high, nan)                                                \
    CVT_CLAMPED(rmi_##n, D, S, RMI, low, high, nan)                                                \
    CVT_CLAMPED(rpi_##n, D, S, RPI, low, high, nan)
CVT_MODES(u8_f32, uint8_t, ptx_f32, 0, UINT8_MAX, 0)
CVT_MODES(s8_f32, int8_t, ptx_f32, INT8_MIN, INT8_MAX, 0)
CVT_MODES(u16_f32, uint16_t, ptx_f32, 0, UINT16_MAX, 0)
CVT_MODES(s16_f32, int16_t, ptx_f32, INT16_MIN, INT16_MAX, 0)
CVT_MODES(u32_f32, uint32_t, ptx_f32, 0, UINT32_MAX, 0)
CVT_MODES(s32_f32, int32_t, ptx_f32, INT32_MIN, INT32_MAX, 0)
CVT_MODES(u64_f32, uint64_t, ptx_f32, 0, UINT64_MAX, (uint64_t)1 << 63)
CVT_MODES(s64_f32, int64_t, ptx_f32, INT64_MIN, INT64_MAX, INT64_MIN)
CVT_MODES(u32_f64, uint32_t, ptx_f64, 0, UINT32_MAX, 1u << 31)
CVT_MODES(s32_f64, int32_t, ptx_f64, INT32_MIN, INT32_MAX, INT32_MIN)
CVT_MODES(u64_f64, uint64_t, ptx_f64, 0, UINT64_MAX, (uint64_t)1 << 63)
CVT_MODES(s64_f64, int64_t, ptx_f64, INT64_MIN, INT64_MAX, INT64_MIN)

/* ---- float to float. A NaN comes out as the one of its type. ---- */
PTX_FN1(f32_f16, ptx_f32, ptx_u16, f32_of_f16(a))
PTX_FN1(f32_bf16, ptx_f32, ptx_u16, f32_of_bf16(a))
PTX_FN1(f64_f32, ptx_f64, ptx_f32, (double)a)
PTX_FN1(f32_f64, ptx_f32, ptx_f64, ptx_canonical((float)a))
PTX_FN1(f16_f32, ptx_u16, ptx_f32, f16_of_f64((double)a, false))
PTX_FN1(f16_rz_f32, ptx_u16, ptx_f32, f16_of_f64((double)a, true))
PTX_FN1(f16_f64, ptx_u16, ptx_f64, f16_of_f64(a, false))
PTX_FN1(f16_u32, ptx_u16, ptx_u32, f16_of_f64((double)a, false))
PTX_FN1(f16_s32, ptx_u16, ptx_s32, f16_of_f64((double)a, false))
PTX_FN1(f16_u16, ptx_u16, ptx_u16, f16_of_f64((double)a, false))
PTX_FN1(f16_s16, ptx_u16, ptx_s16, f16_of_f64((double)a, false))
PTX_FN1(bf16_f32, ptx_u16, ptx_f32, bf16_of_f32(a, false))
PTX_FN1(bf16_rz_f32, ptx_u16, ptx_f32, bf16_of_f32(a, true))
/* The first source goes to the upper half. */
PTX_FN2(f16x2, ptx_u32, ptx_f32, ptx_f32,
        (uint32_t)f16_of_f64((double)a, false) << 16 | f16_of_f64((double)b, false))
PTX_FN2(f16x2_rz, ptx_u32, ptx_f32, ptx_f32,
        (uint32_t)f16_of_f64((double)a, true) << 16 | f16_of_f64((double)b, true))
PTX_FN2(bf16x2, ptx_u32, ptx_f32, ptx_f32,
        (uint32_t)bf16_of_f32(a, false) << 16 | bf16_of_f32(b, false))
PTX_FN2(bf16x2_rz, ptx_u32, ptx_f32, ptx_f32,
        (uint32_t)bf16_of_f32(a, true) << 16 | bf16_of_f32(b, true))

static inline float f32_toward_zero(double v)
{
    float f = (float)v;
    if (isfinite(v) && fabs((double)f) > fabs(v)) {
        uint32_t bits;
        memcpy(&bits, &f, 4);
        bits--;
        memcpy(&f, &bits, 4);
    }
    return ptx_canonical(f);
}
PTX_FN1(f32_rz_f64, ptx_f32, ptx_f64, f32_toward_zero(a))

PTX_FN1(rni_f32, ptx_f32, ptx_f32, ptx_canonical(rintf(a)))
PTX_FN1(rzi_f32, ptx_f32, ptx_f32, ptx_canonical(truncf(a)))
PTX_FN1(rmi_f32, ptx_f32, ptx_f32, ptx_canonical(floorf(a)))
PTX_FN1(rpi_f32, ptx_f32, ptx_f32, ptx_canonical(ceilf(a)))
PTX_FN1(rni_f64, ptx_f64, ptx_f64, rint(a))
PTX_FN1(rzi_f64, ptx_f64, ptx_f64, trunc(a))
PTX_FN1(rmi_f64, ptx_f64, ptx_f64, floor(a))
PTX_FN1(rpi_f64, ptx_f64, ptx_f64, ceil(a))

/* No f16 lies outside of s32 but the infinities, which are clamped. */
static inline int32_t s32_of_half(float v, int mode)
{
    const double n = integral((double)v, mode);
    return n != n ? 0 : n < -65536 ? INT32_MIN : n > 65536 ? INT32_MAX : (int32_t)n;
}
PTX_FN1(rni_s32_f16, ptx_s32, ptx_u16, s32_of_half(f32_of_f16(a), RNI))
PTX_FN1(rzi_s32_f16, ptx_s32, ptx_u16, s32_of_half(f32_of_f16(a), RZI))

#define INTEGER(d, dkind, s, skind) PTX_ROW("cvt." #d "." #s, cvt_##d##_##s, "=" dkind " " skind)
#define INTEGERS(d, kind)                                                                          \
    INTEGER(d, kind, u8, "b"), INTEGER(d, kind, s8, "b"), INTEGER(d, kind, u16, "h+"),             \
        INTEGER(d, kind, s16, "h+"), INTEGER(d, kind, u32, "w+"), INTEGER(d, kind, s32, "w+"),     \
        INTEGER(d, kind, u64, "l"), INTEGER(d, kind, s64, "l")
#define FLOATS(s, kind)                                                                            \
    PTX_ROW("cvt.rn.f32." #s, f32_##s, "=w " kind), PTX_ROW("cvt.rn.f64." #s, f64_##s, "=l " kind)
#define MODES(d, dkind, s, skind)                                                                  \
    PTX_ROW("cvt.rni." #d "." #s, rni_##d##_##s, "=" dkind " " skind),                             \
        PTX_ROW("cvt.rzi." #d "." #s, rzi_##d##_##s, "=" dkind " " skind),                         \
        PTX_ROW("cvt.rmi." #d "." #s, rmi_##d##_##s, "=" dkind " " skind),                         \
        PTX_ROW("cvt.rpi." #d "." #s, rpi_##d##_##s, "=" dkind " " skind)
#define MOVES(type, n, kind)                                                                       \
    PTX_ROW("mov." #type, mov##n, "=" kind " " kind),                                              \
        PTX_ROW("selp." #type, selp##n, "=" kind " " kind " " kind " p")

const ptx_row PTX_TABLE(ptx_rows_move)[] = {
    PTX_ROW("mov.pred", mov_pred, "=p p"),
    MOVES(b16, 16, "h"),
    MOVES(u16, 16, "h"),
    MOVES(s16, 16, "h"),
    MOVES(b32, 32, "w"),
    MOVES(u32, 32, "w"),
    MOVES(s32, 32, "w"),
    MOVES(f32, 32, "w"),
    MOVES(b64, 64, "l"),
    MOVES(u64, 64, "l"),
    MOVES(s64, 64, "l"),
    MOVES(f64, 64, "l"),
    PTX_ROW("mov.b32", pack_2h, "=w 2h"),
    PTX_ROW("mov.b32", unpack_2h, "=2h w"),
    PTX_ROW("mov.b64", pack_2w, "=l 2w"),
    PTX_ROW("mov.b64", unpack_2w, "=2w l"),
    PTX_ROW("mov.b64", pack_4h, "=l 4h"),
    PTX_ROW("mov.b64", unpack_4h, "=4h l"),
    PTX_ROW("prmt.b32", prmt, "=w w w w"),
    PTX_ARG("prmt.b32.f4e", prmt_mode, "=w w w w", 0),
    PTX_ARG("prmt.b32.b4e", prmt_mode, "=w w w w", 1),
    PTX_ARG("prmt.b32.rc8", prmt_mode, "=w w w w", 2),
    PTX_ARG("prmt.b32.ecl", prmt_mode, "=w w w w", 3),
    PTX_ARG("prmt.b32.ecr", prmt_mode, "=w w w w", 4),
    PTX_ARG("prmt.b32.rc16", prmt_mode, "=w w w w", 5),
    PTX_ROW("shf.l.wrap.b32", shf_l_wrap, "=w w w w"),
    PTX_ROW("shf.r.wrap.b32", shf_r_wrap, "=w w w w"),
    PTX_ROW("shf.l.clamp.b32", shf_l_clamp, "=w w w w"),
    PTX_ROW("shf.r.clamp.b32", shf_r_clamp, "=w w w w"),
    PTX_ROW("cvt.s16.s8", extend_s16_s8, "=h h"),
    PTX_ROW("cvt.s32.s16", extend_s32_s16, "=w h"),
    PTX_ROW("cvt.u32.u16", extend_u32_u16, "=w h"),
    PTX_ROW("cvt.s64.s32", extend_s64_s32, "=l w"),
    PTX_ROW("cvt.u64.u32", extend_u64_u32, "=l w"),
    PTX_ROW("cvt.u32.u64", cut_32_64, "=w l"),
    PTX_ROW("cvt.u16.u32", cut_16_32, "=h w"),
    INTEGERS(u8, "b"),
    INTEGERS(s8, "b"),
    INTEGERS(u16, "h+"),
    INTEGERS(s16, "h+"),
    INTEGERS(u32, "w+"),
    INTEGERS(s32, "w+"),
    INTEGERS(u64, "l"),
    INTEGERS(s64, "l"),
    PTX_ROW("cvt.rn.f32.s16", f32_exactly_s16, "=w h"),
    PTX_ROW("cvt.rn.f32.u16", f32_exactly_u16, "=w h"),
    PTX_ROW("cvt.rn.f32.s32", f32_exactly_s32, "=w w"),
    FLOATS(u8, "b"),
    FLOATS(s8, "b"),
    FLOATS(u16, "h+"),
    FLOATS(s16, "h+"),
    FLOATS(u32, "w+"),
    FLOATS(s32, "w+"),
    FLOATS(u64, "l"),
    FLOATS(s64, "l"),
    PTX_ROW("cvt.rz.f32.u32", f32_rz_u32, "=w w"),
    PTX_ROW("cvt.rz.f32.s32", f32_rz_s32, "=w w"),
    PTX_ROW("cvt.rz.f32.u64", f32_rz_u64, "=w l"),
    PTX_ROW("cvt.rz.f32.s64", f32_rz_s64, "=w l"),
    PTX_ROW("cvt.rz.f64.u64", f64_rz_u64, "=l l"),
    PTX_ROW("cvt.rz.f64.s64", f64_rz_s64, "=l l"),
    MODES(u8, "b", f32, "w"),
    MODES(s8, "b", f32, "w"),
    MODES(u16, "h+", f32, "w"),
    MODES(s16, "h+", f32, "w"),
    MODES(u32, "w+", f32, "w"),
    MODES(s32, "w+", f32, "w"),
    MODES(u64, "l", f32, "w"),
    MODES(s64, "l", f32, "w"),
    MODES(u32, "w+", f64, "l"),
    MODES(s32, "w+", f64, "l"),
    MODES(u64, "l", f64, "l"),
    MODES(s64, "l", f64, "l"),
    PTX_ROW("cvt.rni.s32.f16", rni_s32_f16, "=w h"),
    PTX_ROW("cvt.rzi.s32.f16", rzi_s32_f16, "=w h"),
    PTX_ROW("cvt.f32.f16", f32_f16, "=w h"),
    PTX_ROW("cvt.f32.bf16", f32_bf16, "=w h"),
    PTX_ROW("cvt.f64.f32", f64_f32, "=l w"),
    PTX_ROW("cvt.rn.f32.f64", f32_f64, "=w l"),
    PTX_ROW("cvt.rz.f32.f64", f32_rz_f64, "=w l"),
    PTX_ROW("cvt.rn.f16.f32", f16_f32, "=h w"),
    PTX_ROW("cvt.rz.f16.f32", f16_rz_f32, "=h w"),
    PTX_ROW("cvt.rn.f16.f64", f16_f64, "=h l"),
    PTX_ROW("cvt.rn.f16.u32", f16_u32, "=h w"),
    PTX_ROW("cvt.rn.f16.s32", f16_s32, "=h w"),
    PTX_ROW("cvt.rn.f16.u16", f16_u16, "=h h"),
    PTX_ROW("cvt.rn.f16.s16", f16_s16, "=h h"),
    PTX_ROW("cvt.rn.bf16.f32", bf16_f32, "=h w"),
    PTX_ROW("cvt.rz.bf16.f32", bf16_rz_f32, "=h w"),
    PTX_ROW("cvt.rn.f16x2.f32", f16x2, "=w w w"),
    PTX_ROW("cvt.rz.f16x2.f32", f16x2_rz, "=w w w"),
    PTX_ROW("cvt.rn.bf16x2.f32", bf16x2, "=w w w"),
    PTX_ROW("cvt.rz.bf16x2.f32", bf16x2_rz, "=w w w"),
    PTX_ROW("cvt.rni.f32.f32", rni_f32, "=w w"),
    PTX_ROW("cvt.rzi.f32.f32", rzi_f32, "=w w"),
    PTX_ROW("cvt.rmi.f32.f32", rmi_f32, "=w w"),
    PTX_ROW("cvt.rpi.f32.f32", rpi_f32, "=w w"),
    PTX_ROW("cvt.rni.f64.f64", rni_f64, "=l l"),
    PTX_ROW("cvt.rzi.f64.f64", rzi_f64, "=l l"),
    PTX_ROW("cvt.rmi.f64.f64", rmi_f64, "=l l"),
    PTX_ROW("cvt.rpi.f64.f64", rpi_f64, "=l l"),
    PTX_END,
};
