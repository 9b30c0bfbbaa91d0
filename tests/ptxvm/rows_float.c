/*
 * rows_float: floating point. PTX ISA: Floating Point Instructions, setp, testp.
 *
 * Only what is rounded once, to nearest, and keeps denormals has a row: .rn is written out, as
 * `add.f32` without it may be contracted to an fma by what compiles the PTX. ex2.approx is the one
 * approximation; its bits are not those of a device.
 */
#include "tests/ptxvm/half.h"
#include "tests/ptxvm/rows.h"

#include <math.h>

#define FLOAT(n, T, made)                                                                          \
    PTX_FN2(add_##n, T, T, T, made(a + b))                                                         \
    PTX_FN2(sub_##n, T, T, T, made(a - b))                                                         \
    PTX_FN2(mul_##n, T, T, T, made(a *b))                                                          \
    PTX_FN2(div_##n, T, T, T, made(a / b))                                                         \
    PTX_FN1(rcp_##n, T, T, made(1 / a))                                                            \
    PTX_SETP(eq_##n, T, a == b)                                                                    \
    PTX_SETP(ne_##n, T, a<b || a> b)                                                               \
    PTX_SETP(lt_##n, T, a < b)                                                                     \
    PTX_SETP(le_##n, T, a <= b)                                                                    \
    PTX_SETP(gt_##n, T, a > b)                                                                     \
    PTX_SETP(ge_##n, T, a >= b)                                                                    \
    PTX_SETP(equ_##n, T, !(a < b || a > b))                                                        \
    PTX_SETP(neu_##n, T, a != b)                                                                   \
    PTX_SETP(ltu_##n, T, !(a >= b))                                                                \
    PTX_SETP(leu_##n, T, !(a > b))                                                                 \
    PTX_SETP(gtu_##n, T, !(a <= b))                                                                \
    PTX_SETP(geu_##n, T, !(a < b))                                                                 \
    PTX_SETP(num_##n, T, a == a && b == b)                                                         \
    PTX_SETP(nan_##n, T, a != a || b != b)
#define AS_IT_IS(v) (v)
FLOAT(f32, ptx_f32, ptx_canonical)
FLOAT(f64, ptx_f64, AS_IT_IS)
PTX_FN3(fma_f32, ptx_f32, ptx_f32, ptx_f32, ptx_f32, ptx_canonical(fmaf(a, b, c)))
PTX_FN3(fma_f64, ptx_f64, ptx_f64, ptx_f64, ptx_f64, fma(a, b, c))
PTX_FN1(sqrt_f32, ptx_f32, ptx_f32, ptx_canonical(sqrtf(a)))
PTX_FN1(sqrt_f64, ptx_f64, ptx_f64, sqrt(a))

/* Of bits: the sign of a NaN changes as any other. */
PTX_FN1(neg_f32, ptx_u32, ptx_u32, a ^ 0x80000000u)
PTX_FN1(abs_f32, ptx_u32, ptx_u32, a & 0x7fffffffu)
PTX_FN1(neg_f64, ptx_u64, ptx_u64, a ^ (uint64_t)1 << 63)
PTX_FN1(abs_f64, ptx_u64, ptx_u64, a & ~((uint64_t)1 << 63))
PTX_FN2(copysign_f32, ptx_u32, ptx_u32, ptx_u32, (b & 0x7fffffffu) | (a & 0x80000000u))
PTX_FN2(copysign_f64, ptx_u64, ptx_u64, ptx_u64,
        (b & ~((uint64_t)1 << 63)) | (a & (uint64_t)1 << 63))

/* A NaN loses against a number; -0 is less than +0, so equal values are joined by their bits. */
#define EXTREME(name, T, U, less, join, made)                                                      \
    static inline T name##_of(T a, T b)                                                            \
    {                                                                                              \
        U x, y;                                                                                    \
        memcpy(&x, &a, sizeof x);                                                                  \
        memcpy(&y, &b, sizeof y);                                                                  \
        const U both = x join y;                                                                   \
        T equal;                                                                                   \
        memcpy(&equal, &both, sizeof equal);                                                       \
        T r = a less b ? a : b;                                                                    \
        r = a == b ? equal : r;                                                                    \
        r = a != a ? b : r;                                                                        \
        r = b != b ? a : r;                                                                        \
        return made(r);                                                                            \
    }                                                                                              \
    PTX_FN2(name, T, T, T, name##_of(a, b))
EXTREME(min_f32, ptx_f32, uint32_t, <, |, ptx_canonical)
EXTREME(max_f32, ptx_f32, uint32_t, >, &, ptx_canonical)
EXTREME(min_f64, ptx_f64, uint64_t, <, |, AS_IT_IS)
EXTREME(max_f64, ptx_f64, uint64_t, >, &, AS_IT_IS)

/* Both zeros count as normal. */
#define TESTP(name, T, value)                                                                      \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const T *as = ptx_src(T, 1);                                                               \
        uint32_t m = 0;                                                                            \
        PTX_LANES                                                                                  \
        {                                                                                          \
            const T a = as[l];                                                                     \
            m |= (value) ? 1u << l : 0;                                                            \
        }                                                                                          \
        ptx_put_pred(w, i, 0, m);                                                                  \
    }
#define TESTPS(n, T)                                                                               \
    TESTP(finite_##n, T, isfinite(a))                                                              \
    TESTP(infinite_##n, T, isinf(a))                                                               \
    TESTP(number_##n, T, a == a)                                                                   \
    TESTP(notanumber_##n, T, a != a)                                                               \
    TESTP(normal_##n, T, isnormal(a) || a == 0)                                                    \
    TESTP(subnormal_##n, T, fpclassify(a) == FP_SUBNORMAL)
TESTPS(f32, ptx_f32)
TESTPS(f64, ptx_f64)

static inline float flushed(float v)
{
    return fabsf(v) < 0x1p-126f ? copysignf(0.0f, v) : v;
}
PTX_FN1(ex2_f32, ptx_f32, ptx_f32, ptx_canonical(exp2f(a)))
PTX_FN1(ex2_ftz_f32, ptx_f32, ptx_f32, ptx_canonical(flushed(exp2f(flushed(a)))))

#define BOTH(text, name, shape32, shape64)                                                         \
    PTX_ROW(text ".f32", name##_f32, shape32), PTX_ROW(text ".f64", name##_f64, shape64)
#define ONE(text, name) BOTH(text, name, "=w w", "=l l")
#define TWO(text, name) BOTH(text, name, "=w w w", "=l l l")
#define TEST(name)      BOTH("testp." #name, name, "=p w", "=p l")
#define COMPARE(cmp)                                                                               \
    PTX_SETP_ROWS(#cmp, "f32", cmp##_f32, "w"), PTX_SETP_ROWS(#cmp, "f64", cmp##_f64, "l")

const ptx_row PTX_TABLE(ptx_rows_float)[] = {
    TWO("add.rn", add),
    TWO("sub.rn", sub),
    TWO("mul.rn", mul),
    TWO("div.rn", div),
    BOTH("fma.rn", fma, "=w w w w", "=l l l l"),
    ONE("sqrt.rn", sqrt),
    ONE("rcp.rn", rcp),
    TWO("min", min),
    TWO("max", max),
    ONE("abs", abs),
    ONE("neg", neg),
    TWO("copysign", copysign),
    TEST(finite),
    TEST(infinite),
    TEST(number),
    TEST(notanumber),
    TEST(normal),
    TEST(subnormal),
    PTX_ROW("ex2.approx.f32", ex2_f32, "=w w"),
    PTX_ROW("ex2.approx.ftz.f32", ex2_ftz_f32, "=w w"),
    COMPARE(eq),
    COMPARE(ne),
    COMPARE(lt),
    COMPARE(le),
    COMPARE(gt),
    COMPARE(ge),
    COMPARE(equ),
    COMPARE(neu),
    COMPARE(ltu),
    COMPARE(leu),
    COMPARE(gtu),
    COMPARE(geu),
    COMPARE(num),
    COMPARE(nan),
    PTX_END,
};
