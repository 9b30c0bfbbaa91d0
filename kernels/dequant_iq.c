/*
 * dequant_iq: the codebook types in exact integer form. Grid values are 8-bit already; fractional
 * scales are dyadic, so d * (0.5 + s) / 4 and the like are exact in f32. IQ1's values g +- 1/8 are
 * brought to integers 8 g +- 1 with an eighth of the scale.
 *
 * Layouts are ggml's (ggml-common.h); tables: kernels/generated/iq_grids.inc.
 */
#include "kernels/dequant.h"

#include "kernels/generated/iq_grids.inc"

static void grid8(unsigned code, const int8_t *values, int8_t *q)
{
    for (int i = 0; i < 8; i++)
        q[i] = values[code >> (2 * i) & 3];
}

static void grid4(unsigned code, const int8_t *values, int8_t *q)
{
    for (int i = 0; i < 4; i++)
        q[i] = values[code >> (3 * i) & 7];
}

static void apply_signs(unsigned signs, int8_t *q)
{
    for (int i = 0; i < 8; i++)
        if (signs >> i & 1)
            q[i] = (int8_t)-q[i];
}

/* 7 sign bits; the eighth makes their parity even. */
static unsigned signs7(unsigned s)
{
    s &= 127;
    unsigned p = s ^ s >> 4;
    p ^= p >> 2;
    return s | ((p ^ p >> 1) & 1) << 7;
}

static const int8_t iq2_values[4] = {8, 25, 43, 0};
static const int8_t iq3xxs_values[8] = {4, 12, 20, 28, 36, 44, 52, 62};
static const int8_t iq3s_values[8] = {1, 3, 5, 7, 9, 11, 13, 15};

void cp_unquant_iq2_xxs(const uint8_t *b, int part, cp_qblock *o)
{
    const uint8_t *p = b + 2 + 8 * part;
    uint32_t aux = cp_rd32(p + 4);
    o->wd[0] = o->wd[1] = cp_rdh(b) * (0.5f + (float)(aux >> 28)) * 0.25f;
    for (int l = 0; l < 4; l++) {
        grid8(iq2xxs_grid[p[l]], iq2_values, o->q + 8 * l);
        apply_signs(signs7(aux >> (7 * l)), o->q + 8 * l);
    }
}

void cp_unquant_iq2_xs(const uint8_t *b, int part, cp_qblock *o)
{
    int s = b[66 + part];
    o->wd[0] = cp_rdh(b) * (0.5f + (float)(s & 15)) * 0.25f;
    o->wd[1] = cp_rdh(b) * (0.5f + (float)(s >> 4)) * 0.25f;
    for (int l = 0; l < 4; l++) {
        unsigned v = cp_rd16(b + 2 + 2 * (4 * part + l));
        grid8(iq2xs_grid[v & 511], iq2_values, o->q + 8 * l);
        apply_signs(signs7(v >> 9), o->q + 8 * l);
    }
}

void cp_unquant_iq2_s(const uint8_t *b, int part, cp_qblock *o)
{
    int s = b[74 + part];
    unsigned qh = b[66 + part];
    o->wd[0] = cp_rdh(b) * (0.5f + (float)(s & 15)) * 0.25f;
    o->wd[1] = cp_rdh(b) * (0.5f + (float)(s >> 4)) * 0.25f;
    for (int l = 0; l < 4; l++) {
        unsigned v = b[2 + 4 * part + l] | (qh >> (2 * l) & 3) << 8;
        grid8(iq2s_grid[v], iq2_values, o->q + 8 * l);
        apply_signs(b[34 + 4 * part + l], o->q + 8 * l);
    }
}

void cp_unquant_iq3_xxs(const uint8_t *b, int part, cp_qblock *o)
{
    const uint8_t *qs = b + 2 + 8 * part;
    uint32_t aux = cp_rd32(b + 66 + 4 * part);
    o->wd[0] = o->wd[1] = cp_rdh(b) * (0.5f + (float)(aux >> 28)) * 0.5f;
    for (int l = 0; l < 4; l++) {
        grid4(iq3xxs_grid[qs[2 * l]], iq3xxs_values, o->q + 8 * l);
        grid4(iq3xxs_grid[qs[2 * l + 1]], iq3xxs_values, o->q + 8 * l + 4);
        apply_signs(signs7(aux >> (7 * l)), o->q + 8 * l);
    }
}

void cp_unquant_iq3_s(const uint8_t *b, int part, cp_qblock *o)
{
    const uint8_t *qs = b + 2 + 8 * part;
    unsigned qh = b[66 + part];
    int s = b[106 + part / 2] >> (4 * (part & 1)) & 15;
    o->wd[0] = o->wd[1] = cp_rdh(b) * (float)(1 + 2 * s);
    for (int l = 0; l < 8; l++)
        grid4(iq3s_grid[qs[l] | (qh >> l & 1) << 8], iq3s_values, o->q + 4 * l);
    for (int l = 0; l < 4; l++)
        apply_signs(b[74 + 4 * part + l], o->q + 8 * l);
}

/* 8 elements of IQ1: 8 g - 1, 8 g + 1 as the delta's sign says. */
static void iq1_eight(unsigned index, bool negative, int8_t *q)
{
    static const int8_t values[4] = {-8, 0, 8, 0};
    grid8(iq1s_grid[index], values, q);
    for (int i = 0; i < 8; i++)
        q[i] = (int8_t)(q[i] + (negative ? -1 : 1));
}

void cp_unquant_iq1_s(const uint8_t *b, int part, cp_qblock *o)
{
    unsigned qh = cp_rd16(b + 34 + 2 * part);
    o->wd[0] = o->wd[1] = cp_rdh(b) * (float)(2 * (qh >> 12 & 7) + 1) * 0.125f;
    for (int l = 0; l < 4; l++)
        iq1_eight(b[2 + 4 * part + l] | (qh >> (3 * l) & 7) << 8, qh >> 15, o->q + 8 * l);
}

void cp_unquant_iq1_m(const uint8_t *b, int part, cp_qblock *o)
{
    const uint8_t *sc = b + 48;
    unsigned dbits = 0;
    for (int i = 0; i < 4; i++)
        dbits |= (unsigned)(cp_rd16(sc + 2 * i) >> 12) << (4 * i);
    float d = cp_f32_from_f16((uint16_t)dbits);
    for (int g = 0; g < 2; g++) {
        int i = 2 * part + g;
        unsigned s = (unsigned)cp_rd16(sc + 2 * (i / 4)) >> (3 * (i % 4)) & 7, qh = b[32 + i];
        o->wd[g] = d * (float)(2 * s + 1) * 0.125f;
        iq1_eight(b[2 * i] | (qh & 7) << 8, qh & 8, o->q + 16 * g);
        iq1_eight(b[2 * i + 1] | (qh >> 4 & 7) << 8, qh & 128, o->q + 16 * g + 8);
    }
}

static void iq4_nibbles(const uint8_t *qs, int8_t *q)
{
    for (int i = 0; i < 16; i++) {
        q[i] = cp_code_values[CP_CODES_IQ4][qs[i] & 15];
        q[i + 16] = cp_code_values[CP_CODES_IQ4][qs[i] >> 4];
    }
}

void cp_unquant_iq4_nl(const uint8_t *b, int part, cp_qblock *o)
{
    (void)part;
    o->wd[0] = o->wd[1] = cp_rdh(b);
    iq4_nibbles(b + 2, o->q);
}

int cp_iq4_scale(const uint8_t *b, int part)
{
    int lo = b[4 + part / 2] >> (4 * (part & 1)) & 15, hi = cp_rd16(b + 2) >> (2 * part) & 3;
    return (lo | hi << 4) - 32;
}

void cp_unquant_iq4_xs(const uint8_t *b, int part, cp_qblock *o)
{
    o->wd[0] = o->wd[1] = cp_rdh(b) * (float)cp_iq4_scale(b, part);
    iq4_nibbles(b + 8 + 16 * part, o->q);
}
