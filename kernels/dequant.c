/*
 * dequant: blocks of the common quantized types in exact integer form, whole rows of every type,
 * and the int8 activations. The codebook types (IQ) stand in dequant_iq.c.
 *
 * Layouts are ggml's (ggml-common.h). File blocks are read through bytes, so no alignment is asked
 * of the mapped file.
 */
#include "kernels/dequant.h"

#include "base/mem.h"

/* ---- 32-element types: low nibbles are elements 0-15, high nibbles 16-31 ---- */

static void nibbles(const uint8_t *qs, int8_t *q)
{
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)(qs[i] & 15);
        q[i + 16] = (int8_t)(qs[i] >> 4);
    }
}

static void offset(int8_t *q, int by)
{
    for (int i = 0; i < CP_QBLOCK; i++)
        q[i] = (int8_t)(q[i] - by);
}

static void fifth_bit(const uint8_t *qh, int8_t *q)
{
    uint32_t bits = cp_rd32(qh);
    for (int i = 0; i < CP_QBLOCK; i++)
        q[i] = (int8_t)(q[i] | (int)(bits >> i & 1u) << 4);
}

static void scale1(cp_qblock *o, float wd)
{
    o->wd[0] = o->wd[1] = wd;
}

static void unquant_q4_0(const uint8_t *b, int part, cp_qblock *o)
{
    (void)part;
    scale1(o, cp_rdh(b));
    nibbles(b + 2, o->q);
    offset(o->q, 8);
}

static void unquant_q4_1(const uint8_t *b, int part, cp_qblock *o)
{
    (void)part;
    scale1(o, cp_rdh(b));
    o->wm[0] = o->wm[1] = cp_rdh(b + 2);
    nibbles(b + 4, o->q);
}

static void unquant_q5_0(const uint8_t *b, int part, cp_qblock *o)
{
    (void)part;
    scale1(o, cp_rdh(b));
    nibbles(b + 6, o->q);
    fifth_bit(b + 2, o->q);
    offset(o->q, 16);
}

static void unquant_q5_1(const uint8_t *b, int part, cp_qblock *o)
{
    (void)part;
    scale1(o, cp_rdh(b));
    o->wm[0] = o->wm[1] = cp_rdh(b + 2);
    nibbles(b + 8, o->q);
    fifth_bit(b + 4, o->q);
}

static void unquant_q8_0(const uint8_t *b, int part, cp_qblock *o)
{
    (void)part;
    scale1(o, cp_rdh(b));
    memcpy(o->q, b + 2, CP_QBLOCK);
}

static void unquant_q8_1(const uint8_t *b, int part, cp_qblock *o)
{
    (void)part;
    scale1(o, cp_rdh(b));
    memcpy(o->q, b + 4, CP_QBLOCK);
}

/* ---- super-blocks of 256; part = which 32 ---- */

static void unquant_q2_k(const uint8_t *b, int part, cp_qblock *o)
{
    float d = cp_rdh(b + 80), dmin = cp_rdh(b + 82);
    const uint8_t *qs = b + 16 + 32 * (part / 4);
    for (int i = 0; i < CP_QBLOCK; i++)
        o->q[i] = (int8_t)(qs[i] >> (2 * (part % 4)) & 3);
    for (int g = 0; g < 2; g++) {
        int s = b[2 * part + g];
        o->wd[g] = d * (float)(s & 15);
        o->wm[g] = -(dmin * (float)(s >> 4));
    }
}

static void unquant_q3_k(const uint8_t *b, int part, cp_qblock *o)
{
    const uint8_t *hmask = b, *qs = b + 32 + 32 * (part / 4), *sc = b + 96;
    float d = cp_rdh(b + 108);
    for (int i = 0; i < CP_QBLOCK; i++) {
        int low = qs[i] >> (2 * (part % 4)) & 3;
        o->q[i] = (int8_t)(low - ((hmask[i] >> part & 1) ? 0 : 4));
    }
    for (int g = 0; g < 2; g++) {
        int i = 2 * part + g;
        int lo = i < 8 ? sc[i] & 15 : sc[i - 8] >> 4, hi = sc[8 + i % 4] >> (2 * (i / 4)) & 3;
        o->wd[g] = d * (float)((lo | hi << 4) - 32);
    }
}

/* 6-bit scale and minimum j of Q4_K and Q5_K. */
void cp_k4_scale(const uint8_t *s, int j, int *sc, int *mn)
{
    if (j < 4) {
        *sc = s[j] & 63;
        *mn = s[j + 4] & 63;
    } else {
        *sc = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *mn = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

static void k4_scales(const uint8_t *b, int part, cp_qblock *o)
{
    int sc, mn;
    cp_k4_scale(b + 4, part, &sc, &mn);
    scale1(o, cp_rdh(b) * (float)sc);
    o->wm[0] = o->wm[1] = -(cp_rdh(b + 2) * (float)mn);
}

static void unquant_q4_k(const uint8_t *b, int part, cp_qblock *o)
{
    const uint8_t *qs = b + 16 + 32 * (part / 2);
    k4_scales(b, part, o);
    for (int i = 0; i < CP_QBLOCK; i++)
        o->q[i] = (int8_t)(qs[i] >> (4 * (part % 2)) & 15);
}

static void unquant_q5_k(const uint8_t *b, int part, cp_qblock *o)
{
    const uint8_t *qh = b + 16, *qs = b + 48 + 32 * (part / 2);
    k4_scales(b, part, o);
    for (int i = 0; i < CP_QBLOCK; i++)
        o->q[i] = (int8_t)((qs[i] >> (4 * (part % 2)) & 15) | (qh[i] >> part & 1) << 4);
}

static void unquant_q6_k(const uint8_t *b, int part, cp_qblock *o)
{
    int half = part / 4, s = part % 4;
    const uint8_t *ql = b + 64 * half + 32 * (s & 1), *qh = b + 128 + 32 * half;
    float d = cp_rdh(b + 208);
    for (int i = 0; i < CP_QBLOCK; i++)
        o->q[i] = (int8_t)(((ql[i] >> (4 * (s >> 1)) & 15) | (qh[i] >> (2 * s) & 3) << 4) - 32);
    for (int g = 0; g < 2; g++)
        o->wd[g] = d * (float)(int8_t)b[192 + 2 * part + g];
}

static void unquant_q8_k(const uint8_t *b, int part, cp_qblock *o)
{
    float d;
    memcpy(&d, b, sizeof d);
    scale1(o, d);
    memcpy(o->q, b + 4 + CP_QBLOCK * part, CP_QBLOCK);
}

/* Trit n of a TQ1_0 byte: the bytes hold base-3 fractions of 256. */
static int trit(unsigned byte, int n)
{
    static const uint8_t pow3[5] = {1, 3, 9, 27, 81};
    return (int)((byte * pow3[n] & 255u) * 3u >> 8);
}

static void unquant_tq1_0(const uint8_t *b, int part, cp_qblock *o)
{
    scale1(o, cp_rdh(b + 52));
    for (int i = 0; i < CP_QBLOCK; i++) {
        int e = CP_QBLOCK * part + i, t;
        if (e < 160)
            t = trit(b[e % 32], e / 32);
        else if (e < 240)
            t = trit(b[32 + (e - 160) % 16], (e - 160) / 16);
        else
            t = trit(b[48 + (e - 240) % 4], (e - 240) / 4);
        o->q[i] = (int8_t)(t - 1);
    }
}

static void unquant_tq2_0(const uint8_t *b, int part, cp_qblock *o)
{
    scale1(o, cp_rdh(b + 64));
    for (int i = 0; i < CP_QBLOCK; i++)
        o->q[i] = (int8_t)((b[32 * (part / 4) + i] >> (2 * (part % 4)) & 3) - 1);
}

/* ---- floats of 4 bits ---- */

static void unquant_mxfp4(const uint8_t *b, int part, cp_qblock *o)
{
    (void)part;
    scale1(o, cp_e8m0_half(b[0]));
    nibbles(b + 1, o->q);
    for (int i = 0; i < CP_QBLOCK; i++)
        o->q[i] = cp_code_values[CP_CODES_E2M1][o->q[i]];
}

static void unquant_nvfp4(const uint8_t *b, int part, cp_qblock *o)
{
    for (int g = 0; g < 2; g++) {
        const uint8_t *qs = b + 4 + 8 * (2 * part + g);
        o->wd[g] = b[2 * part + g] == 0x7f ? 0.0f : cp_ue4m3_half(b[2 * part + g]); /* as ggml */
        for (int i = 0; i < 8; i++) {
            o->q[16 * g + i] = cp_code_values[CP_CODES_E2M1][qs[i] & 15];
            o->q[16 * g + i + 8] = cp_code_values[CP_CODES_E2M1][qs[i] >> 4];
        }
    }
}

static void unquant_q1_0(const uint8_t *b, int part, cp_qblock *o)
{
    uint32_t bits = cp_rd32(b + 2 + 4 * part);
    scale1(o, cp_rdh(b));
    for (int i = 0; i < CP_QBLOCK; i++)
        o->q[i] = (bits >> i & 1u) ? 1 : -1;
}

static void unquant_q2_0(const uint8_t *b, int part, cp_qblock *o)
{
    scale1(o, cp_rdh(b));
    for (int i = 0; i < CP_QBLOCK; i++)
        o->q[i] = (int8_t)((b[2 + 8 * part + i / 4] >> (2 * (i % 4)) & 3) - 1);
}

/* ---- the table: one row a quantized type ---- */
typedef void unquant_fn(const uint8_t *block, int part, cp_qblock *out);

/* X(NAME, function, scales groups of 16, has a minimum) */
#define QUANTS(X)                                                                                  \
    X(Q4_0, unquant_q4_0, false, false)                                                            \
    X(Q4_1, unquant_q4_1, false, true)                                                             \
    X(Q5_0, unquant_q5_0, false, false)                                                            \
    X(Q5_1, unquant_q5_1, false, true)                                                             \
    X(Q8_0, unquant_q8_0, false, false)                                                            \
    X(Q8_1, unquant_q8_1, false, false)                                                            \
    X(Q2_K, unquant_q2_k, true, true)                                                              \
    X(Q3_K, unquant_q3_k, true, false)                                                             \
    X(Q4_K, unquant_q4_k, false, true)                                                             \
    X(Q5_K, unquant_q5_k, false, true)                                                             \
    X(Q6_K, unquant_q6_k, true, false)                                                             \
    X(Q8_K, unquant_q8_k, false, false)                                                            \
    X(IQ2_XXS, cp_unquant_iq2_xxs, false, false)                                                   \
    X(IQ2_XS, cp_unquant_iq2_xs, true, false)                                                      \
    X(IQ3_XXS, cp_unquant_iq3_xxs, false, false)                                                   \
    X(IQ1_S, cp_unquant_iq1_s, false, false)                                                       \
    X(IQ4_NL, cp_unquant_iq4_nl, false, false)                                                     \
    X(IQ3_S, cp_unquant_iq3_s, false, false)                                                       \
    X(IQ2_S, cp_unquant_iq2_s, true, false)                                                        \
    X(IQ4_XS, cp_unquant_iq4_xs, false, false)                                                     \
    X(IQ1_M, cp_unquant_iq1_m, true, false)                                                        \
    X(TQ1_0, unquant_tq1_0, false, false)                                                          \
    X(TQ2_0, unquant_tq2_0, false, false)                                                          \
    X(MXFP4, unquant_mxfp4, false, false)                                                          \
    X(NVFP4, unquant_nvfp4, true, false)                                                           \
    X(Q1_0, unquant_q1_0, false, false)                                                            \
    X(Q2_0, unquant_q2_0, false, false)

static const struct quant_row {
    unquant_fn *fn;
    cp_quant_traits traits;
} quants[CP_DTYPE_LIMIT] = {
#define X(name, f, g16, min) [CP_DTYPE_##name] = {f, {true, g16, min}},
    QUANTS(X)
#undef X
};

cp_quant_traits cp_quant_info(cp_dtype t)
{
    cp_quant_traits none = {false, false, false};
    return (unsigned)t < CP_DTYPE_LIMIT ? quants[t].traits : none;
}

void cp_unquant_block(cp_dtype t, const void *row, int64_t block, cp_qblock *out)
{
    const cp_dtype_row *info = cp_dtype_info((uint32_t)t);
    CP_ASSERT(info && quants[t].fn);
    int parts = info->block / CP_QBLOCK;
    const uint8_t *b = (const uint8_t *)row + (block / parts) * info->bytes;
    out->group16 = quants[t].traits.group16;
    out->has_min = quants[t].traits.has_min;
    out->wm[0] = out->wm[1] = 0.0f;
    quants[t].fn(b, (int)(block % parts), out);
}

/* ---- whole rows ---- */

static void dequant_quantized(cp_dtype t, const uint8_t *row, int64_t n, float *x)
{
    for (int64_t b = 0; b < n / CP_QBLOCK; b++) {
        cp_qblock o;
        cp_unquant_block(t, row, b, &o);
        for (int i = 0; i < CP_QBLOCK; i++) {
            float v = o.wd[i / 16] * (float)o.q[i];
            x[b * CP_QBLOCK + i] = o.has_min ? v + o.wm[i / 16] : v;
        }
    }
}

static float load_i64(const uint8_t *p)
{
    int64_t v;
    memcpy(&v, p, sizeof v);
    return (float)v;
}

static float load_f64(const uint8_t *p)
{
    double v;
    memcpy(&v, p, sizeof v);
    return (float)v;
}

void cp_dequant_row(const cp_tensor *t, int64_t row, float *x)
{
    const uint8_t *p = (const uint8_t *)t->data + (size_t)row * cp_tensor_row_bytes(t);
    int64_t n = t->ne[0];
    switch (t->type) {
    case CP_DTYPE_F32:
        memcpy(x, p, (size_t)n * sizeof *x);
        break;
    case CP_DTYPE_F16:
        for (int64_t i = 0; i < n; i++)
            x[i] = cp_rdh(p + 2 * i);
        break;
    case CP_DTYPE_BF16:
        for (int64_t i = 0; i < n; i++)
            x[i] = cp_f32_from_bf16(cp_rd16(p + 2 * i));
        break;
    case CP_DTYPE_I8:
        for (int64_t i = 0; i < n; i++)
            x[i] = (float)(int8_t)p[i];
        break;
    case CP_DTYPE_I16:
        for (int64_t i = 0; i < n; i++)
            x[i] = (float)(int16_t)cp_rd16(p + 2 * i);
        break;
    case CP_DTYPE_I32:
        for (int64_t i = 0; i < n; i++)
            x[i] = (float)(int32_t)cp_rd32(p + 4 * i);
        break;
    case CP_DTYPE_I64:
        for (int64_t i = 0; i < n; i++)
            x[i] = load_i64(p + 8 * i);
        break;
    case CP_DTYPE_F64:
        for (int64_t i = 0; i < n; i++)
            x[i] = load_f64(p + 8 * i);
        break;
    default:
        dequant_quantized(t->type, p, n, x);
    }
}

/* ---- activations ---- */

/* Round to nearest even without libm: exact for |v| <= 2^22. */
static int8_t round_int8(float v)
{
    if (!(v >= -128.5f && v <= 127.5f))
        return -128;
    float r = (v + 0x1.8p23f) - 0x1.8p23f;
    return r > 127.0f ? (int8_t)-128 : (int8_t)r;
}

void cp_quantize_act_row(const float *x, int64_t k, cp_act8 *out)
{
    for (int64_t b = 0; b < k / CP_QBLOCK; b++, x += CP_QBLOCK, out++) {
        float amax = 0.0f;
        for (int i = 0; i < CP_QBLOCK; i++) {
            float a = fabsf(x[i]);
            amax = a > amax ? a : amax;
        }
        float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
        out->d = amax / 127.0f;
        int32_t sum16[2] = {0, 0};
        for (int i = 0; i < CP_QBLOCK; i++) {
            out->q[i] = round_int8(x[i] * inv);
            sum16[i / 16] += out->q[i];
        }
        cp_act8_set_sums(out, sum16);
    }
}
