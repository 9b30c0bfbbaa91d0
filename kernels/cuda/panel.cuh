/*
 * panel.cuh: a block of 32 outputs (of two panels) and 32 inputs as A fragments and scales.
 *
 * A lane is thread t of the four of row g of an mma. It reads sixteen bytes of line t of the panel
 * that half of the rows have: four outputs, 4 (g % 4) and on, of inputs 4 t and on. Outputs 2 j and
 * 2 j + 1 of these are rows g and g + 8 of the mma number j. So no word moves between lanes, and
 * weights are read as panels hold them (unpack.h), scales like codes by sixteen bytes, of which a
 * lane keeps its quad's part; but for those that are less than a tenth of a panel.
 */
#ifndef CP_KERNELS_CUDA_PANEL_CUH
#define CP_KERNELS_CUDA_PANEL_CUH

#include "kernels/cuda/act.cuh"
#include "kernels/panel_kinds.h"

/* Adding n to its bits makes 12582912 + n of it, exactly, for |n| < 2^22: sums of products become
 * floats by one subtraction. */
#define CUDA_MAGIC_BITS 0x4b400000
#define CUDA_MAGIC      12582912.0f
#define CUDA_LOW4       0x0f0f0f0fu

template <int BITS, cp_codes CODES, cp_form FORM, int OFFSET, int BLOCK, int HEAD>
struct cuda_kind {
    static constexpr int bits = BITS, offset = OFFSET, block = BLOCK, head = HEAD;
    static constexpr cp_codes codes = CODES;
    static constexpr cp_form form = FORM;
    static constexpr int scales = BITS == 8   ? 512
                                  : BITS == 6 ? 384
                                  : BITS == 5 ? 320
                                              : 256; /* of a block: where they lie */
    static constexpr int groups =
        FORM == CP_FORM_K6 || FORM == CP_FORM_U || FORM == CP_FORM_G || FORM == CP_FORM_GM ? 2 : 1;
    static constexpr int together = CP_FORM_BLOCKS(FORM);
    /* blocks of K whose loads are under way at a time, as far as 128 registers go */
    static constexpr int unroll = BITS == 8 && FORM != CP_FORM_H    ? 2
                                  : BITS == 5 && FORM == CP_FORM_HM ? 3
                                                                    : 4;
    /* wants more than 128 registers for four tiles */
    static constexpr bool large =
        FORM == CP_FORM_GM || FORM == CP_FORM_G || (FORM == CP_FORM_K4 && BITS == 5);
    /* Blocks of a kernel of so many tiles that a multiprocessor holds: two, where 128 registers do
     * for it on every architecture. */
    static constexpr int resident(int tiles)
    {
        return FORM == CP_FORM_GM || (tiles == 4 && large) ? 1 : 2;
    }
    static constexpr bool min = FORM == CP_FORM_HM || FORM == CP_FORM_K4 || FORM == CP_FORM_GM;
};

/* What a lane reads of a block, as it lies. */
template <class K> struct cuda_raw {
    uint4 low, high, plane[2]; /* lines t and t + 4; planes of high bits */
    uint4 wd[2], wm[2];        /* scales: as many bytes of each as the form has */
};

/* Of a super-block. */
struct cuda_head {
    uint2 d, dmin;
};

/* The quad's eight bytes of the 32, or four of the 16, that a panel has at p. */
DEV_FN uint2 cuda_quad8(const uint8_t *p, int quad)
{
    uint4 v = cuda_load<uint4>(p + 16 * (quad >> 1));
    return quad & 1 ? make_uint2(v.z, v.w) : make_uint2(v.x, v.y);
}

DEV_FN uint32_t cuda_quad4(const uint8_t *p, int quad)
{
    uint4 v = cuda_load<uint4>(p);
    uint2 half = quad & 2 ? make_uint2(v.z, v.w) : make_uint2(v.x, v.y);
    return quad & 1 ? half.y : half.x;
}

template <class K> DEV_FN cuda_head cuda_load_head(const uint8_t *head, int quad)
{
    cuda_head h = {};
    if (K::head)
        h.d = cuda_quad8(head, quad);
    if (K::form == CP_FORM_K4)
        h.dmin = cuda_quad8(head + 32, quad);
    return h;
}

/* p: the block; quad: which four of the panel's outputs. */
template <class K> DEV_FN cuda_raw<K> cuda_load_block(const uint8_t *p, int quad, int t)
{
    cuda_raw<K> r;
    const uint8_t *s = p + K::scales;
    r.low = cuda_load<uint4>(p + 64 * t + 16 * quad);
    if (K::bits == 8)
        r.high = cuda_load<uint4>(p + 64 * (t + 4) + 16 * quad);
    if (K::bits == 5 || K::bits == 6)
        r.plane[0] = cuda_load<uint4>(p + 256 + 16 * quad);
    if (K::bits == 6)
        r.plane[1] = cuda_load<uint4>(p + 320 + 16 * quad);
    switch (K::form) {
    case CP_FORM_HM:
    case CP_FORM_H: {
        uint2 d = cuda_quad8(s, quad);
        r.wd[0].x = d.x;
        r.wd[0].y = d.y;
        if (K::min) {
            uint2 m = cuda_quad8(s + 32, quad);
            r.wm[0].x = m.x;
            r.wm[0].y = m.y;
        }
        break;
    }
    case CP_FORM_K4:
        r.wd[0].x = cuda_quad4(s, quad);
        r.wm[0].x = cuda_quad4(s + 16, quad);
        break;
    case CP_FORM_U:
        r.wd[0].x = cuda_quad4(s, quad);
        r.wd[1].x = cuda_quad4(s + 16, quad);
        break;
    case CP_FORM_K6:
    case CP_FORM_K1:
    case CP_FORM_E:
        r.wd[0].x = cuda_load<uint32_t>(s + 4 * quad);
        if (K::groups == 2)
            r.wd[1].x = cuda_load<uint32_t>(s + 16 + 4 * quad);
        break;
    case CP_FORM_F:
    case CP_FORM_G:
    case CP_FORM_GM:
        for (int g = 0; g < K::groups; g++) {
            r.wd[g] = cuda_load<uint4>(s + 64 * g + 16 * quad);
            if (K::min)
                r.wm[g] = cuda_load<uint4>(s + 128 + 64 * g + 16 * quad);
        }
        break;
    }
    return r;
}

/* ---- weights ---- */

/* Four values of a table of codes, plus the offset, as bytes: n from code 4 n on. */
template <class K> DEV_FN constexpr uint32_t cuda_code_word(int n)
{
    constexpr int e2m1[16] = {CP_CODES_E2M1_VALUES}, iq4[16] = {CP_CODES_IQ4_VALUES};
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) {
        int v = K::codes == CP_CODES_E2M1 ? e2m1[4 * n + i] : iq4[4 * n + i];
        word |= (uint32_t)(v + (1 << (K::offset > 0 ? K::offset : 0))) << 8 * i;
    }
    return word;
}

/* What the four codes in the low (part 0) or high half of x stand for. */
template <class K> DEV_FN uint32_t cuda_look_up4(uint32_t x, int part)
{
    constexpr uint32_t t0 = cuda_code_word<K>(0), t1 = cuda_code_word<K>(1),
                       t2 = cuda_code_word<K>(2), t3 = cuda_code_word<K>(3);
    uint32_t low3 = (x & 0x77777777u) >> 16 * part,
             pick = ((x >> 1 & 0x44444444u) | 0x32103210u) >> 16 * part;
    return __byte_perm(__byte_perm(t0, t1, low3), __byte_perm(t2, t3, low3), pick);
}

/* Codes of a word's low nibbles and of its high ones. */
template <class K> DEV_FN void cuda_look_up(uint32_t x, uint32_t *low, uint32_t *high)
{
    uint32_t a = cuda_look_up4<K>(x, 0), b = cuda_look_up4<K>(x, 1);
    *low = __byte_perm(a, b, 0x6420);
    *high = __byte_perm(a, b, 0x7531);
}

/* Unsigned weights of one output: inputs 4 t and on, and 16 + 4 t and on. */
template <class K>
DEV_FN void cuda_weights(uint32_t x, uint32_t y, uint32_t plane0, uint32_t plane1, int t,
                         uint32_t *low, uint32_t *high)
{
    if (K::bits == 8) {
        *low = x;
        *high = y;
    } else if (K::codes != CP_CODES_NONE) {
        cuda_look_up<K>(x, low, high);
    } else {
        *low = x & CUDA_LOW4;
        *high = x >> 4 & CUDA_LOW4;
    }
    if (K::bits == 5) {
        plane0 >>= t;
        *low |= plane0 << 4 & 0x10101010u;
        *high |= plane0 & 0x10101010u;
    } else if (K::bits == 6) {
        *low |= (plane0 >> 2 * t & 0x03030303u) << 4;
        *high |= (plane1 >> 2 * t & 0x03030303u) << 4;
    }
}

/* a[j]: the fragment of mma j. */
template <class K> DEV_FN void cuda_fragments(const cuda_raw<K> &r, int t, uint32_t a[2][4])
{
    cuda_weights<K>(r.low.x, r.high.x, r.plane[0].x, r.plane[1].x, t, &a[0][0], &a[0][2]);
    cuda_weights<K>(r.low.y, r.high.y, r.plane[0].y, r.plane[1].y, t, &a[0][1], &a[0][3]);
    cuda_weights<K>(r.low.z, r.high.z, r.plane[0].z, r.plane[1].z, t, &a[1][0], &a[1][2]);
    cuda_weights<K>(r.low.w, r.high.w, r.plane[0].w, r.plane[1].w, t, &a[1][1], &a[1][3]);
}

/* ---- scales ---- */

DEV_FN void cuda_halves(uint32_t x, uint32_t y, float w[4])
{
    w[0] = dev_f32_from_f16(x & 0xffffu);
    w[1] = dev_f32_from_f16(x >> 16);
    w[2] = dev_f32_from_f16(y & 0xffffu);
    w[3] = dev_f32_from_f16(y >> 16);
}

/* Byte i as a float: 2^23 + byte, and 2^23 taken off. */
DEV_FN float cuda_f32_from_byte(uint32_t bytes, int i, bool is_signed)
{
    uint32_t x = is_signed ? bytes ^ 0x80808080u : bytes;
    float v = __uint_as_float(__byte_perm(x, 0x4b000000u, 0x7440 | i));
    return __fadd_rn(v, is_signed ? -8388736.0f : -8388608.0f);
}

DEV_FN void cuda_floats(uint4 v, float w[4])
{
    w[0] = __uint_as_float(v.x);
    w[1] = __uint_as_float(v.y);
    w[2] = __uint_as_float(v.z);
    w[3] = __uint_as_float(v.w);
}

/* Scales of four outputs for the 16-group g, or for the block. */
template <class K>
DEV_FN void cuda_scales(const cuda_raw<K> &r, const cuda_head &h, int g, float wd[4])
{
    float d[4];
    switch (K::form) {
    case CP_FORM_H:
    case CP_FORM_HM:
        cuda_halves(r.wd[0].x, r.wd[0].y, wd);
        break;
    case CP_FORM_K4:
    case CP_FORM_K6:
    case CP_FORM_K1:
        cuda_halves(h.d.x, h.d.y, d);
        for (int i = 0; i < 4; i++)
            wd[i] = __fmul_rn(d[i], cuda_f32_from_byte(r.wd[g].x, i, K::form != CP_FORM_K4));
        break;
    case CP_FORM_E:
        for (int i = 0; i < 4; i++)
            wd[i] = cp_e8m0_half((uint8_t)(r.wd[0].x >> 8 * i));
        break;
    case CP_FORM_U:
        for (int i = 0; i < 4; i++)
            wd[i] = __fmul_rn(dev_f32_from_f16((r.wd[g].x >> 8 * i & 0x7fu) << 7), 128.0f);
        break;
    case CP_FORM_F:
    case CP_FORM_G:
    case CP_FORM_GM:
        cuda_floats(r.wd[g], wd);
        break;
    }
}

/* What is added for each input, likewise. */
template <class K>
DEV_FN void cuda_minima(const cuda_raw<K> &r, const cuda_head &h, int g, float wm[4])
{
    if (K::form == CP_FORM_HM) {
        cuda_halves(r.wm[0].x, r.wm[0].y, wm);
    } else if (K::form == CP_FORM_K4) {
        cuda_halves(h.dmin.x, h.dmin.y, wm);
        for (int i = 0; i < 4; i++)
            wm[i] = -__fmul_rn(wm[i], cuda_f32_from_byte(r.wm[0].x, i, false));
    } else if (K::form == CP_FORM_GM) {
        cuda_floats(r.wm[g], wm);
    }
}

#endif
