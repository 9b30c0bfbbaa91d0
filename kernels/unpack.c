/*
 * unpack: weight types as unpack functions into 16-output panels.
 *
 * A fast row moves 4-byte units: the file's nibble order (elements j and j + 16 in one byte) is the
 * panel's, so Q4_0, Q4_1, Q5_0, MXFP4 and IQ4 are dword transposes, and the K types need a few
 * masks on whole dwords. Every other quantized type goes through cp_unquant_block into an 8-bit
 * panel with f32 scales. Both spellings give the same integers and scales, hence the same bits.
 * Missing lanes of the last panel are zero: their outputs are computed and dropped.
 */
#include "kernels/unpack.h"

#include "kernels/dequant.h"

#include "base/mem.h"

#define LOW4 0x0f0f0f0fu

static const struct panel_row {
    uint16_t block_bytes, head_bytes;
} panel_rows[CP_PANEL_COUNT] = {
#define X(n, bits, codes, form, off, bytes, head) [CP_PANEL_##n] = {bytes, head},
    CP_INT_PANELS(X)
#undef X
        [CP_PANEL_F32] = {64 * 32, 0},
    [CP_PANEL_F16] = {32 * 32, 0},
    [CP_PANEL_BF16] = {32 * 32, 0},
};

size_t cp_panel_bytes(cp_panel_kind kind, int64_t k)
{
    size_t n = 0, heads = 0;
    CP_ASSERT((unsigned)kind < CP_PANEL_COUNT && k > 0);
    if (kind == CP_PANEL_F32 || kind == CP_PANEL_F16 || kind == CP_PANEL_BF16) {
        size_t per_k = kind == CP_PANEL_F32 ? 64 : 32, kk = (size_t)k;
        if (kind == CP_PANEL_BF16)
            kk += kk & 1;
        if (!cp_mul(kk, per_k, &n) || !cp_add(n, 63, &n))
            return 0;
        return n & ~(size_t)63;
    }
    size_t nb = (size_t)k / CP_QBLOCK;
    if (!cp_mul(nb, panel_rows[kind].block_bytes, &n) ||
        !cp_mul(nb / CP_SUPER, panel_rows[kind].head_bytes, &heads) || !cp_add(n, heads, &n) ||
        !cp_add(n, 63, &n))
        return 0;
    return n & ~(size_t)63;
}

static const uint8_t *row_at(const cp_tensor *t, int64_t row)
{
    return (const uint8_t *)t->data + (size_t)row * cp_tensor_row_bytes(t);
}

static void wr32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static void copy_half(uint8_t *dst, const uint8_t *src)
{
    memcpy(dst, src, 2);
}

/* Panels of fewer than 16 rows start from zeroes. */
static void clear_missing(cp_panel_kind kind, const cp_tensor *t, int rows, uint8_t *panel)
{
    if (rows < CP_LANES)
        memset(panel, 0, cp_panel_bytes(kind, t->ne[0]));
}

/* ---- 32-element file blocks ---- */

/* Blocks of 16 bytes of nibbles behind `head` bytes of scales: those of q4_0, q4_1, iq4_nl, mxfp4.
 */
static void unpack_q4(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel,
                      cp_panel_kind kind, size_t head)
{
    size_t block = panel_rows[kind].block_bytes;
    int64_t nb = t->ne[0] / CP_QBLOCK;
    clear_missing(kind, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        uint8_t *dst = panel;
        for (int64_t b = 0; b < nb; b++, src += head + 16, dst += block) {
            for (int j = 0; j < 4; j++)
                wr32(dst + 64 * j + 4 * r, cp_rd32(src + head + 4 * j));
            if (head == 1)
                dst[256 + r] = src[0];
            else
                copy_half(dst + 256 + 2 * r, src);
            if (head == 4)
                copy_half(dst + 288 + 2 * r, src + 2);
        }
    }
}

static void unpack_q4_0(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    unpack_q4(t, row0, rows, panel, CP_PANEL_N4H, 2);
}

static void unpack_q4_1(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    unpack_q4(t, row0, rows, panel, CP_PANEL_N4HM, 4);
}

static void unpack_iq4_nl(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    unpack_q4(t, row0, rows, panel, CP_PANEL_I4H, 2);
}

static void unpack_mxfp4(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    unpack_q4(t, row0, rows, panel, CP_PANEL_F4E, 1);
}

/* Bits kk, kk + 4, ... kk + 28 of x, gathered into a byte. */
static uint32_t every_fourth(uint32_t x, int kk)
{
    x = x >> kk & 0x11111111u;
    x = (x | x >> 3) & 0x03030303u;
    x = (x | x >> 6) & 0x000f000fu;
    return (x | x >> 12) & 0xffu;
}

static void unpack_q5(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel, bool min)
{
    size_t file = min ? 24 : 22, head = min ? 4 : 2, block = min ? 384 : 352;
    int64_t nb = t->ne[0] / CP_QBLOCK;
    clear_missing(min ? CP_PANEL_N5HM : CP_PANEL_N5H, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        uint8_t *dst = panel;
        for (int64_t b = 0; b < nb; b++, src += file, dst += block) {
            uint32_t qh = cp_rd32(src + head);
            for (int j = 0; j < 4; j++)
                wr32(dst + 64 * j + 4 * r, cp_rd32(src + head + 4 + 4 * j));
            wr32(dst + 256 + 4 * r, every_fourth(qh, 0) | every_fourth(qh, 1) << 8 |
                                        every_fourth(qh, 2) << 16 | every_fourth(qh, 3) << 24);
            copy_half(dst + 320 + 2 * r, src);
            if (min)
                copy_half(dst + 352 + 2 * r, src + 2);
        }
    }
}

static void unpack_q5_0(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    unpack_q5(t, row0, rows, panel, false);
}

static void unpack_q5_1(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    unpack_q5(t, row0, rows, panel, true);
}

static void unpack_q8_0(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    int64_t nb = t->ne[0] / CP_QBLOCK;
    clear_missing(CP_PANEL_N8H, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        uint8_t *dst = panel;
        for (int64_t b = 0; b < nb; b++, src += 34, dst += 544) {
            for (int j = 0; j < 8; j++)
                wr32(dst + 64 * j + 4 * r, cp_rd32(src + 2 + 4 * j) ^ 0x80808080u);
            copy_half(dst + 512 + 2 * r, src);
        }
    }
}

/* ---- blocks of 64 and super-blocks of 256 ---- */

/* Codes of 16-groups: elements j and j + 8 of a group share a byte of its eight. A scale that ggml
 * takes for 0 becomes one. */
static void unpack_nvfp4(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    int64_t nb = t->ne[0] / CP_QBLOCK;
    clear_missing(CP_PANEL_F4G, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        uint8_t *dst = panel;
        for (int64_t b = 0; b < nb; b++, dst += 288) {
            const uint8_t *file = src + 36 * (b / 2), *sc = file + 2 * (b % 2);
            const uint8_t *qs = file + 4 + 16 * (b % 2);
            for (int j = 0; j < 4; j++) {
                uint32_t x = cp_rd32(qs + 4 * (j % 2)), y = cp_rd32(qs + 8 + 4 * (j % 2));
                uint32_t v = j < 2 ? (x & LOW4) | (y & LOW4) << 4 : (x >> 4 & LOW4) | (y & ~LOW4);
                wr32(dst + 64 * j + 4 * r, v);
            }
            for (int g = 0; g < 2; g++)
                dst[256 + 16 * g + r] = sc[g] == 0x7f ? 0 : sc[g] & 0x7f;
        }
    }
}

static void unpack_iq4_xs(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    int64_t ns = t->ne[0] / 256;
    clear_missing(CP_PANEL_I4K, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        uint8_t *dst = panel;
        for (int64_t s = 0; s < ns; s++, src += 136) {
            copy_half(dst + 2 * r, src);
            dst += 32;
            for (int part = 0; part < 8; part++, dst += 272) {
                for (int j = 0; j < 4; j++)
                    wr32(dst + 64 * j + 4 * r, cp_rd32(src + 8 + 16 * part + 4 * j));
                dst[256 + r] = (uint8_t)cp_iq4_scale(src, part);
            }
        }
    }
}

/* Nibbles of the 32-element part whose bytes lie at qs, in the low (shift 0) or high nibbles. */
static void part_nibbles(const uint8_t *qs, bool high, uint8_t *dst, int r)
{
    for (int j = 0; j < 4; j++) {
        uint32_t x = cp_rd32(qs + 4 * j), y = cp_rd32(qs + 16 + 4 * j);
        uint32_t v = high ? (x >> 4 & LOW4) | (y & ~LOW4) : (x & LOW4) | (y & LOW4) << 4;
        wr32(dst + 64 * j + 4 * r, v);
    }
}

static void unpack_k4(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel, bool five)
{
    size_t file = five ? 176 : 144, block = five ? 352 : 288, scales = block - 32;
    int64_t ns = t->ne[0] / 256;
    clear_missing(five ? CP_PANEL_N5K : CP_PANEL_N4K, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        uint8_t *dst = panel;
        for (int64_t s = 0; s < ns; s++, src += file) {
            const uint8_t *qs = src + (five ? 48 : 16), *qh = src + 16;
            copy_half(dst + 2 * r, src);
            copy_half(dst + 32 + 2 * r, src + 2);
            dst += 64;
            for (int part = 0; part < 8; part++, dst += block) {
                int sc, mn;
                cp_k4_scale(src + 4, part, &sc, &mn);
                dst[scales + (size_t)r] = (uint8_t)sc;
                dst[scales + 16 + (size_t)r] = (uint8_t)mn;
                part_nibbles(qs + 32 * (part / 2), part & 1, dst, r);
                if (!five)
                    continue;
                uint32_t plane = 0;
                for (int g = 0; g < 8; g++)
                    plane |= (cp_rd32(qh + 4 * g) >> part & 0x01010101u) << g;
                wr32(dst + 256 + 4 * r, plane);
            }
        }
    }
}

static void unpack_q4_k(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    unpack_k4(t, row0, rows, panel, false);
}

static void unpack_q5_k(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    unpack_k4(t, row0, rows, panel, true);
}

static void unpack_q6_k(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    int64_t ns = t->ne[0] / 256;
    clear_missing(CP_PANEL_N6K, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        uint8_t *dst = panel;
        for (int64_t s = 0; s < ns; s++, src += 210) {
            copy_half(dst + 2 * r, src + 208);
            dst += 32;
            for (int part = 0; part < 8; part++, dst += 416) {
                int half = part / 4, q = part % 4;
                const uint8_t *ql = src + 64 * half + 32 * (q & 1), *qh = src + 128 + 32 * half;
                part_nibbles(ql, q >> 1, dst, r);
                for (int p = 0; p < 2; p++) {
                    uint32_t plane = 0;
                    for (int g = 0; g < 4; g++)
                        plane |= (cp_rd32(qh + 16 * p + 4 * g) >> (2 * q) & 0x03030303u) << 2 * g;
                    wr32(dst + 256 + 64 * p + 4 * r, plane);
                }
                dst[384 + r] = src[192 + 2 * part];
                dst[400 + r] = src[192 + 2 * part + 1];
            }
        }
    }
}

/* ---- every other quantized type ---- */

static void unpack_generic(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    cp_quant_traits tr = cp_quant_info(t->type);
    cp_panel_kind kind = tr.has_min ? CP_PANEL_N8GM : tr.group16 ? CP_PANEL_N8G : CP_PANEL_N8F;
    int64_t nb = t->ne[0] / CP_QBLOCK;
    size_t block = panel_rows[kind].block_bytes;
    clear_missing(kind, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        uint8_t *dst = panel;
        for (int64_t b = 0; b < nb; b++, dst += block) {
            cp_qblock q;
            cp_unquant_block(t->type, src, b, &q);
            for (int j = 0; j < 8; j++) {
                uint32_t v;
                memcpy(&v, q.q + 4 * j, sizeof v);
                wr32(dst + 64 * j + 4 * r, v ^ 0x80808080u);
            }
            memcpy(dst + 512 + 4 * r, &q.wd[0], 4);
            if (kind == CP_PANEL_N8F)
                continue;
            memcpy(dst + 576 + 4 * r, &q.wd[1], 4);
            if (kind == CP_PANEL_N8GM) {
                memcpy(dst + 640 + 4 * r, &q.wm[0], 4);
                memcpy(dst + 704 + 4 * r, &q.wm[1], 4);
            }
        }
    }
}

/* ---- float types ---- */

static void unpack_f32(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    clear_missing(CP_PANEL_F32, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        for (int64_t k = 0; k < t->ne[0]; k++)
            memcpy(panel + 64 * k + 4 * r, src + 4 * k, 4);
    }
}

static void unpack_f16(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    clear_missing(CP_PANEL_F16, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        for (int64_t k = 0; k < t->ne[0]; k++)
            memcpy(panel + 32 * k + 2 * r, src + 2 * k, 2);
    }
}

static void unpack_bf16(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel)
{
    int64_t pairs = t->ne[0] / 2;
    clear_missing(CP_PANEL_BF16, t, rows, panel);
    for (int r = 0; r < rows; r++) {
        const uint8_t *src = row_at(t, row0 + r);
        for (int64_t k = 0; k < pairs; k++)
            memcpy(panel + 64 * k + 4 * r, src + 4 * k, 4);
        if (t->ne[0] & 1) {
            memcpy(panel + 64 * pairs + 4 * r, src + 4 * pairs, 2);
            memset(panel + 64 * pairs + 4 * r + 2, 0, 2);
        }
    }
}

/* ---- the table ---- */

static const struct unpack_row {
    cp_unpack_fn *fn;
    cp_panel_kind kind;
} unpacks[CP_DTYPE_LIMIT] = {
    [CP_DTYPE_F32] = {unpack_f32, CP_PANEL_F32},
    [CP_DTYPE_F16] = {unpack_f16, CP_PANEL_F16},
    [CP_DTYPE_BF16] = {unpack_bf16, CP_PANEL_BF16},
    [CP_DTYPE_Q4_0] = {unpack_q4_0, CP_PANEL_N4H},
    [CP_DTYPE_Q4_1] = {unpack_q4_1, CP_PANEL_N4HM},
    [CP_DTYPE_Q5_0] = {unpack_q5_0, CP_PANEL_N5H},
    [CP_DTYPE_Q5_1] = {unpack_q5_1, CP_PANEL_N5HM},
    [CP_DTYPE_Q8_0] = {unpack_q8_0, CP_PANEL_N8H},
    [CP_DTYPE_Q4_K] = {unpack_q4_k, CP_PANEL_N4K},
    [CP_DTYPE_Q5_K] = {unpack_q5_k, CP_PANEL_N5K},
    [CP_DTYPE_Q6_K] = {unpack_q6_k, CP_PANEL_N6K},
    [CP_DTYPE_MXFP4] = {unpack_mxfp4, CP_PANEL_F4E},
    [CP_DTYPE_NVFP4] = {unpack_nvfp4, CP_PANEL_F4G},
    [CP_DTYPE_IQ4_NL] = {unpack_iq4_nl, CP_PANEL_I4H},
    [CP_DTYPE_IQ4_XS] = {unpack_iq4_xs, CP_PANEL_I4K},
};

cp_panel_kind cp_panel_kind_of(cp_dtype t)
{
    if ((unsigned)t >= CP_DTYPE_LIMIT)
        return CP_PANEL_COUNT;
    if (unpacks[t].fn)
        return unpacks[t].kind;
    cp_quant_traits tr = cp_quant_info(t);
    if (!tr.quantized)
        return CP_PANEL_COUNT;
    return tr.has_min ? CP_PANEL_N8GM : tr.group16 ? CP_PANEL_N8G : CP_PANEL_N8F;
}

cp_unpack_fn *cp_unpack_of(cp_dtype t)
{
    return unpacks[t].fn ? unpacks[t].fn : unpack_generic;
}
