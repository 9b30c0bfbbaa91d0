/*
 * quant: the exact integer form of every quantized weight type, and the int8 activations that meet
 * them. Internal to kernels; stateless, any thread.
 *
 * A quantized row is a sequence of 32-element blocks. In each, value[i] = wd[g] * q[i] (+ wm[g]),
 * with int8 q and g = i / 16 for types that scale groups of 16, else 0. Types that are not written
 * so in the file (offsets, codebooks, fractional scales) are brought to this form by exact powers
 * of two. This is what `ref` multiplies with and what panels are packed from; the
 * arithmetic around it stands at the top of program.h.
 */
#ifndef CP_KERNELS_QUANT_H
#define CP_KERNELS_QUANT_H

#include "base/dtype.h"
#include "kernels/panel_kinds.h"

#define CP_QBLOCK 32

static const int8_t cp_code_values[][16] = {
    [CP_CODES_E2M1] = {CP_CODES_E2M1_VALUES},
    [CP_CODES_IQ4] = {CP_CODES_IQ4_VALUES},
};

/* One 32-element block of a quantized row. */
typedef struct cp_qblock {
    int8_t q[CP_QBLOCK];
    float wd[2]; /* scale of elements 0-15 and 16-31; equal when !group16 */
    float wm[2]; /* added to every element; 0 when !has_min */
    bool group16;
    bool has_min;
} cp_qblock;

/* How a quantized type scales: a function of the type alone. */
typedef struct cp_quant_traits {
    bool quantized; /* false: float, integer or unknown type; the rest is then false */
    bool group16;
    bool has_min;
} cp_quant_traits;

/* One block of 32 int8 activations with its scale and what offsets and minima need. sum is that of
 * q, sum16[g] that of elements 16 g to 16 g + 15. A dot with weights that are stored unsigned
 * starts at minus the offset times the sum: shifted here once, for every output of every weight. */
typedef struct cp_act8 {
    int8_t q[CP_QBLOCK];
    float d;                  /* amax / 127 */
    float dsum;               /* d * (float)sum */
    int32_t minus8, minus128; /* -8 * sum, -128 * sum */
    int32_t minus32[2];       /* -32 * sum16[g] */
    float dsum16[2];          /* d * (float)sum16[g] */
} cp_act8;

/* What follows from out->d and the sums of each half of out->q. */
static inline void cp_act8_set_sums(cp_act8 *out, const int32_t sum16[2])
{
    int32_t sum = sum16[0] + sum16[1];
    out->dsum = out->d * (float)sum;
    out->minus8 = -8 * sum;
    out->minus128 = -128 * sum;
    for (int g = 0; g < 2; g++) {
        out->minus32[g] = -32 * sum16[g];
        out->dsum16[g] = out->d * (float)sum16[g];
    }
}

/* Traits of a type; all false for types without quantized blocks. */
cp_quant_traits cp_quant_info(cp_dtype t);

/* Block `block` (elements [32 block, 32 block + 32)) of a row of quantized type t. The caller
 * guarantees that the row is long enough. */
void cp_unquant_block(cp_dtype t, const void *row, int64_t block, cp_qblock *out);

/* x[ne0] f32 = row `row` of t, which is of any type that base/dtype.h lists (an embedding's
 * look-up, vectors that are not f32). */
void cp_dequant_row(const cp_tensor *t, int64_t row, float *x);

/* x[k] f32 -> out[k / 32]; k a multiple of 32. q = RNE(x * (127 / amax)), 0 when amax is 0; what
 * does not fit int8 (infinite or NaN products) becomes -128. */
void cp_quantize_act_row(const float *x, int64_t k, cp_act8 *out);

#endif
