/*
 * gemm_base: panel micro-kernels in plain C, the level below every other. Lanes are the inner loop,
 * so that a compiler may vectorize them; bits are those of every level.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include "kernels/cpu/v16_base.h"

#include "kernels/cpu/v16_math.h"

#define FLOAT_COLS 4

static inline uint16_t half_at(const uint8_t *p, int l)
{
    uint16_t h;
    memcpy(&h, p + 2 * l, sizeof h);
    return h;
}

static inline v16 v16_f16(const uint8_t *p)
{
    V16_EACH(cp_f32_from_f16(half_at(p, i)));
}

static inline v16 v16_pair_lo(const uint8_t *p)
{
    V16_EACH(cp_f32_from_bf16(half_at(p, 2 * i)));
}

static inline v16 v16_pair_hi(const uint8_t *p)
{
    V16_EACH(cp_f32_from_bf16(half_at(p, 2 * i + 1)));
}

#include "kernels/cpu/gemm_float.inc"

/* What the two codes of a byte stand for. */
typedef struct pair {
    int16_t low, high;
} pair;

static void fill_pairs(cp_codes codes, pair pairs[256])
{
    for (int i = 0; i < 256; i++)
        pairs[i] = (pair){cp_code_values[codes][i & 15], cp_code_values[codes][i >> 4]};
}

/* One block of a panel: integers with the offset taken off, and scales. */
typedef struct block {
    int16_t q[8][64];
    float wd[2][CP_LANES], wm[2][CP_LANES];
} block;

static void block_ints(int bits, int off, const uint8_t *p, block *o)
{
    int minus = off < 0 ? 0 : 1 << off;
    for (int g = 0; g < 8; g++)
        for (int i = 0; i < 64; i++) {
            int v = bits == 8 ? p[64 * g + i] : p[64 * (g % 4) + i] >> (4 * (g / 4)) & 15;
            if (bits == 5)
                v |= (p[256 + i] >> g & 1) << 4;
            if (bits == 6)
                v |= (p[256 + 64 * (g / 4) + i] >> (2 * (g % 4)) & 3) << 4;
            o->q[g][i] = (int16_t)(v - minus);
        }
}

static void block_codes(const pair pairs[256], const uint8_t *p, block *o)
{
    for (int g = 0; g < 4; g++)
        for (int i = 0; i < 64; i++) {
            pair v = pairs[p[64 * g + i]];
            o->q[g][i] = v.low;
            o->q[g + 4][i] = v.high;
        }
}

static void block_scales(cp_form form, const uint8_t *p, const uint8_t *head, block *o)
{
    for (int l = 0; l < CP_LANES; l++) {
        switch (form) {
        case CP_FORM_H:
        case CP_FORM_HM:
            o->wd[0][l] = cp_f32_from_f16(half_at(p, l));
            if (form == CP_FORM_HM)
                o->wm[0][l] = cp_f32_from_f16(half_at(p + 32, l));
            break;
        case CP_FORM_K4:
            o->wd[0][l] = cp_f32_from_f16(half_at(head, l)) * (float)p[l];
            o->wm[0][l] = -(cp_f32_from_f16(half_at(head + 32, l)) * (float)p[16 + l]);
            break;
        case CP_FORM_K6:
            o->wd[0][l] = cp_f32_from_f16(half_at(head, l)) * (float)(int8_t)p[l];
            o->wd[1][l] = cp_f32_from_f16(half_at(head, l)) * (float)(int8_t)p[16 + l];
            break;
        case CP_FORM_K1:
            o->wd[0][l] = cp_f32_from_f16(half_at(head, l)) * (float)(int8_t)p[l];
            break;
        case CP_FORM_E:
            o->wd[0][l] = cp_e8m0_half(p[l]);
            break;
        case CP_FORM_U:
            o->wd[0][l] = cp_ue4m3_half(p[l]);
            o->wd[1][l] = cp_ue4m3_half(p[16 + l]);
            break;
        case CP_FORM_F:
        case CP_FORM_G:
        case CP_FORM_GM:
            memcpy(&o->wd[0][l], p + 4 * l, 4);
            if (form != CP_FORM_F)
                memcpy(&o->wd[1][l], p + 64 + 4 * l, 4);
            if (form == CP_FORM_GM) {
                memcpy(&o->wm[0][l], p + 128 + 4 * l, 4);
                memcpy(&o->wm[1][l], p + 192 + 4 * l, 4);
            }
            break;
        }
    }
}

static void block_column(const block *o, bool two, bool min, const cp_act8 *a, float *acc)
{
    int groups = two ? 2 : 1, per = 8 / groups;
    for (int g = 0; g < groups; g++) {
        int32_t dot[CP_LANES] = {0};
        for (int j = per * g; j < per * (g + 1); j++)
            for (int l = 0; l < CP_LANES; l++)
                for (int i = 0; i < 4; i++)
                    dot[l] += o->q[j][4 * l + i] * a->q[4 * j + i];
        for (int l = 0; l < CP_LANES; l++) {
            acc[l] = fmaf((float)dot[l], o->wd[g][l] * a->d, acc[l]);
            if (min)
                acc[l] = fmaf(o->wm[g][l], two ? a->dsum16[g] : a->dsum, acc[l]);
        }
    }
}

/* One segment of nb blocks for n columns: stored in tile, or added to it. */
static void int_segment(int bits, const pair *pairs, cp_form form, int off, int block_bytes,
                        int head_bytes, const uint8_t *panel, int nb, const uint8_t *act,
                        size_t stride, int n, bool first, float *tile)
{
    int at = bits == 8 ? 512 : bits == 6 ? 384 : bits == 5 ? 320 : 256;
    bool two = form == CP_FORM_K6 || form == CP_FORM_U || form == CP_FORM_G || form == CP_FORM_GM;
    bool min = form == CP_FORM_HM || form == CP_FORM_K4 || form == CP_FORM_GM;
    const uint8_t *head = panel;
    block o[CP_SEGMENT / CP_QBLOCK];
    for (int b = 0; b < nb; b++, panel += block_bytes) {
        if (head_bytes && b % CP_SUPER == 0) {
            head = panel;
            panel += head_bytes;
        }
        if (pairs)
            block_codes(pairs, panel, &o[b]);
        else
            block_ints(bits, off, panel, &o[b]);
        block_scales(form, panel + at, head, &o[b]);
    }
    for (int c = 0; c < n; c++, act += stride, tile += CP_LANES) {
        float acc[CP_LANES] = {0};
        for (int b = 0; b < nb; b++)
            block_column(&o[b], two, min, (const cp_act8 *)(const void *)act + b, acc);
        for (int l = 0; l < CP_LANES; l++)
            tile[l] = first ? acc[l] : tile[l] + acc[l];
    }
}

static void int_gemm(int bits, cp_codes codes, cp_form form, int off, int block_bytes,
                     int head_bytes, const uint8_t *panel, int k, const uint8_t *act, size_t stride,
                     int n, float *tile)
{
    enum { SEGMENT = CP_SEGMENT / CP_QBLOCK, SUPERS = SEGMENT / CP_SUPER };
    pair pairs[256];
    if (codes != CP_CODES_NONE)
        fill_pairs(codes, pairs);
    int nb = k / CP_QBLOCK, bytes = SEGMENT * block_bytes + SUPERS * head_bytes;
    for (int b = 0; b < nb; b += SEGMENT, panel += bytes, act += SEGMENT * sizeof(cp_act8))
        int_segment(bits, codes == CP_CODES_NONE ? NULL : pairs, form, off, block_bytes, head_bytes,
                    panel, nb - b < SEGMENT ? nb - b : SEGMENT, act, stride, n, b == 0, tile);
}

#define X(name, bits, codes, form, off, bytes, head)                                               \
    static void gemm_##name(const uint8_t *panel, int k, const uint8_t *act, size_t stride, int n, \
                            float *tile)                                                           \
    {                                                                                              \
        int_gemm(bits, codes, form, off, bytes, head, panel, k, act, stride, n, tile);             \
    }
CP_INT_PANELS(X)
#undef X

void cp_gemm_fill_base(cp_gemm_table *t)
{
#define X(name, bits, codes, form, off, bytes, head) t->gemm[CP_PANEL_##name] = gemm_##name;
    CP_INT_PANELS(X)
#undef X
    t->gemm[CP_PANEL_F32] = gemm_f32;
    t->gemm[CP_PANEL_F16] = gemm_f16;
    t->gemm[CP_PANEL_BF16] = gemm_bf16;
    t->quantize = cp_quantize_act_row;
    t->finish = finish;
    t->pair_inputs = 2;
    t->chunk_rows = 12; /* whole tiles of every level up to bf16 */
}
