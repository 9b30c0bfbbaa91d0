/*
 * unpack: panels, the one layout in which backends read weights, and how a weight type becomes one.
 * Internal to kernels; stateless, any thread.
 *
 * A panel holds 16 outputs (lanes) for all of K. Quantized panels are a sequence of blocks of 32 k;
 * kinds with super-scales put a header of half-precision super-scales before every 8 blocks. In a
 * block, element (lane l, k) is byte [k / 4][l][k % 4] of eight 64-byte lines; 4-bit kinds fold
 * lines g and g + 4 into the low and high nibbles of one, kinds of 5 and 6 bits add planes of high
 * bits in the same byte positions. Weights are unsigned, the offset (8, 16, 32, 128) is taken off
 * through the activations' sums. Kinds with codes keep the file's 4-bit codes; a kernel looks up
 * what they stand for (cp_code_values), plus the offset. One layout serves every ISA and a GPU: a
 * word of line g < 4 is register a0 (in nibble kinds its low nibbles, the high ones are a2), one of
 * line g + 4 register a2 of a row of mma.m16n8k32's A fragment, in thread g of the row's four.
 */
#ifndef CP_KERNELS_UNPACK_H
#define CP_KERNELS_UNPACK_H

#include "kernels/panel_kinds.h"
#include "kernels/quant.h"

/* Files of panels hold these numbers: new ones come last. */
typedef enum cp_panel_kind {
#define X(name, bits, codes, form, off, bytes, head) CP_PANEL_##name,
    CP_PLAIN_PANELS(X) CP_PANEL_F32, /* [k][16] f32 */
    CP_PANEL_F16,                    /* [k][16] f16 */
    CP_PANEL_BF16,                   /* [k / 2][16][2] bf16, odd k padded with zero */
    CP_CODE_PANELS(X)
#undef X
        CP_PANEL_COUNT
} cp_panel_kind;

static inline bool cp_panel_is_float(cp_panel_kind kind)
{
    return kind >= CP_PANEL_F32 && kind <= CP_PANEL_BF16;
}

/* Writes the panel of rows [row0, row0 + rows) of t, rows <= 16; missing lanes become zero. */
typedef void cp_unpack_fn(const cp_tensor *t, int64_t row0, int rows, uint8_t *panel);

/* The panel kind of a weight type; CP_PANEL_COUNT: not usable as a matrix. */
cp_panel_kind cp_panel_kind_of(cp_dtype t);
/* Bytes of one panel with k inputs, a multiple of 64; 0 on overflow. */
size_t cp_panel_bytes(cp_panel_kind kind, int64_t k);
/* The unpack row of a type: a fast one, or the generic one through cp_unquant_block. */
cp_unpack_fn *cp_unpack_of(cp_dtype t);

#endif
