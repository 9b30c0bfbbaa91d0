/*
 * embed: rows of a table, by ids, from the panels that a tied head is multiplied with, or from rows
 * of floats. The values are those of cp_dequant_row: panels hold the same integers and scales. What
 * is mixed into a matrix comes in rows that the host gathered. A block has a row.
 */
#include "kernels/cuda/embed.h"

#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/panel.cuh"

enum { F32, F16, BF16 };

DEV_FN int id_of(const cuda_embed_args &a, int row)
{
    int id = a.step->tok[row];
    return id >= 0 ? id : a.last[a.step->seqs[a.step->row_seq[row]].slot];
}

/* ---- from panels ---- */

/* Four bytes of the output's word of a line, or of its planes. */
DEV_FN uint32_t word_at(const uint8_t *line, int lane)
{
    return cuda_load<uint32_t>(line + 4 * lane);
}

DEV_FN float half_at(const uint8_t *p, int lane)
{
    return dev_f32_from_f16(cuda_load<uint16_t>(p + 2 * lane));
}

/* Scale (min: what is added) of output `lane` in the 16-group g. p: the block; head: its header. */
template <class K> DEV_FN float scale_at(const uint8_t *p, const uint8_t *head, int lane, int g)
{
    const uint8_t *s = p + K::scales;
    switch (K::form) {
    case CP_FORM_H:
    case CP_FORM_HM:
        return half_at(s, lane);
    case CP_FORM_K4:
        return __fmul_rn(half_at(head, lane), (float)s[lane]);
    case CP_FORM_K6:
    case CP_FORM_K1:
        return __fmul_rn(half_at(head, lane), (float)(int8_t)s[16 * g + lane]);
    case CP_FORM_E:
        return cp_e8m0_half(s[lane]);
    case CP_FORM_U:
        return __fmul_rn(dev_f32_from_f16((uint16_t)((s[16 * g + lane] & 0x7f) << 7)), 128.0f);
    case CP_FORM_F:
    case CP_FORM_G:
    case CP_FORM_GM:
        return cuda_load<float>(s + 64 * g + 4 * lane);
    }
    return 0.0f;
}

template <class K> DEV_FN float min_at(const uint8_t *p, const uint8_t *head, int lane, int g)
{
    const uint8_t *s = p + K::scales;
    if (K::form == CP_FORM_HM)
        return half_at(s + 32, lane);
    if (K::form == CP_FORM_K4)
        return -__fmul_rn(half_at(head + 32, lane), (float)s[16 + lane]);
    return cuda_load<float>(s + 128 + 64 * g + 4 * lane);
}

/* Values 4 t and on of 16-group g, whose weights are the bytes of w. */
template <class K>
DEV_FN void put_group(const uint8_t *p, const uint8_t *head, int lane, int g, uint32_t w,
                      float scale, float *to)
{
    float wd = scale_at<K>(p, head, lane, g), y[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int q = (int)(w >> 8 * i & 255) - (K::offset < 0 ? 0 : 1 << (K::offset & 31));
        y[i] = __fmul_rn(wd, (float)q);
        if (K::min)
            y[i] = __fadd_rn(y[i], min_at<K>(p, head, lane, g));
        y[i] = __fmul_rn(y[i], scale);
    }
    *(float4 *)to = make_float4(y[0], y[1], y[2], y[3]);
}

template <class K> DEV_FN void embed_panels(const cuda_embed_args &a, int row)
{
    int id = id_of(a, row), lane = id % CP_LANES;
    const uint8_t *panel = a.table + id / CP_LANES * a.weight_bytes;
    for (int u = threadIdx.x; u < a.k / 8; u += CUDA_EMBED_THREADS) {
        int b = u / 4, t = u % 4;
        const uint8_t *head = panel + b / CP_SUPER * (K::head + CP_SUPER * K::block);
        const uint8_t *p = head + K::head + b % CP_SUPER * K::block;
        uint32_t low, high, x = word_at(p + 64 * t, lane), y = 0, plane0 = 0, plane1 = 0;
        if (K::bits == 8)
            y = word_at(p + 64 * (t + 4), lane);
        if (K::bits == 5 || K::bits == 6)
            plane0 = word_at(p + 256, lane);
        if (K::bits == 6)
            plane1 = word_at(p + 320, lane);
        cuda_weights<K>(x, y, plane0, plane1, t, &low, &high);
        float *to = a.out + (int64_t)row * a.ld + b * CUDA_BLOCK + 4 * t;
        put_group<K>(p, head, lane, 0, low, a.scale, to);
        put_group<K>(p, head, lane, K::groups - 1, high, a.scale, to + 16);
    }
}

/* ---- from rows of floats ---- */

template <int KIND> DEV_FN float value_at(const uint8_t *row, int i)
{
    if (KIND == F32)
        return ((const float *)row)[i];
    uint16_t h = ((const uint16_t *)row)[i];
    return KIND == F16 ? dev_f32_from_f16(h) : cp_f32_from_bf16(h);
}

template <int KIND> DEV_FN void embed_rows(const cuda_embed_args &a, int row)
{
    const uint8_t *from = a.table + id_of(a, row) * a.weight_bytes;
    for (int i = threadIdx.x; i < a.k; i += CUDA_EMBED_THREADS)
        a.out[(int64_t)row * a.ld + i] = __fmul_rn(value_at<KIND>(from, i), a.scale);
}

#define KERNEL(name, rows)                                                                         \
    DEV_KERNEL(CUDA_EMBED_THREADS)                                                                 \
    k_embed_##name(const __grid_constant__ cuda_embed_args a)                                      \
    {                                                                                              \
        if ((int)blockIdx.x < a.step->n_rows)                                                      \
            rows(a, blockIdx.x);                                                                   \
    }
#define X(name, bits, codes, form, offset, block, head)                                            \
    KERNEL(name, (embed_panels<cuda_kind<bits, codes, form, offset, block, head>>))
CP_INT_PANELS(X)
#undef X
KERNEL(F32, embed_rows<F32>)
KERNEL(F16, embed_rows<F16>)
KERNEL(BF16, embed_rows<BF16>)

/* ---- mixed ---- */

/* out[i] = (rmsnorm(in)[i] + row[i] * scale) * mix, a span a warp. */
DEV_KERNEL(CUDA_EMBED_THREADS) k_embed_mixed(const __grid_constant__ cuda_mix_args a)
{
    int64_t row = blockIdx.x;
    if (row >= a.step->n_rows)
        return;
    const float *in = a.in + row * a.ld_in;
    const float *table = (const float *)a.step->gathered[a.gathered] + row * a.k;
    float *out = a.out + row * a.ld;
    int lane = threadIdx.x % CUDA_WARP;
    for (int at = (int)threadIdx.x / CUDA_WARP * a.span; at < a.k;
         at += CUDA_EMBED_THREADS / CUDA_WARP * a.span) {
        float low = 0.0f, high = 0.0f;
        for (int i = lane; i < a.span; i += CP_PARTIALS) {
            low = __fmaf_rn(in[at + i], in[at + i], low);
            if (i + CUDA_WARP < a.span)
                high = __fmaf_rn(in[at + i + CUDA_WARP], in[at + i + CUDA_WARP], high);
        }
        float squares = cuda_tree(low, high);
        float r = cuda_rsqrt(__fadd_rn(__fdiv_rn(squares, (float)a.span), a.eps));
        for (int i = lane; i < a.span; i += CUDA_WARP) {
            float y = __fmul_rn(__fmul_rn(in[at + i], r), a.norm[i]);
            out[at + i] = __fmul_rn(__fadd_rn(y, __fmul_rn(table[at + i], a.scale)), a.mix);
        }
    }
}
