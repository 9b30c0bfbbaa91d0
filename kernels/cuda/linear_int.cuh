/*
 * linear_int.cuh: linears of quantized weights by integer mma over the CPU's panels.
 *
 * The law (program.h) to the bit: exact sums of products a block of 32 (or 16), one FMA with the
 * product of both scales, blocks ascending within a segment of 512; a warp takes a segment, and the
 * segments add up in order. At few rows the columns of the mma that no row has are wasted, which
 * costs nothing: what such a launch waits for is weights.
 */
#ifndef CP_KERNELS_CUDA_LINEAR_INT_CUH
#define CP_KERNELS_CUDA_LINEAR_INT_CUH

#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/panel.cuh"

/* Results start here, so that they come out as floats with the weights' offset taken off. */
template <class K> DEV_FN int32_t cuda_dot_start(int32_t sum)
{
    return CUDA_MAGIC_BITS - (K::offset < 0 ? 0 : sum * (1 << (K::offset < 0 ? 0 : K::offset)));
}

/* The sums of a group of 16 for two rows. */
DEV_FN int2 cuda_sums_of(int2 sum16, int g)
{
    return g ? make_int2(sum16.x >> 16, sum16.y >> 16)
             : make_int2((int16_t)sum16.x, (int16_t)sum16.y);
}

/* acc[v] for one tile: dots of a block or of a group of it, times scales, and minima. */
template <class K>
DEV_FN void cuda_accumulate(const int32_t dot[2][4], const float wd[4], const float wm[4], float2 d,
                            float2 dsum, float acc[8])
{
#pragma unroll
    for (int v = 0; v < 8; v++) {
        int o = v >> 1;
        float x = __fadd_rn(__int_as_float(dot[v >> 2][v & 3]), -CUDA_MAGIC);
        acc[v] = __fmaf_rn(x, __fmul_rn(wd[o], v & 1 ? d.y : d.x), acc[v]);
        if (K::min)
            acc[v] = __fmaf_rn(wm[o], v & 1 ? dsum.y : dsum.x, acc[v]);
    }
}

/* Group g of one block of K on one tile of rows. */
template <class K>
DEV_FN void cuda_group_tile(const uint32_t a[2][4], const float wd[4], const float wm[4], int g,
                            const cuda_act *x, int lane, float acc[8])
{
    int t = lane & 3;
    uint2 q = ((const uint2 *)x->q)[lane];
    float2 d = ((const float2 *)x->d)[t], dsum = make_float2(0.0f, 0.0f);
    int2 sum = make_int2(0, 0);
    int32_t dot[2][4];
    if (K::groups == 2)
        sum = cuda_sums_of(((const int2 *)x->sum16)[t], g);
    else if (K::offset >= 0)
        sum = ((const int2 *)x->sum)[t];
    if (K::min && K::groups == 2)
        dsum = make_float2(__fmul_rn(d.x, (float)sum.x), __fmul_rn(d.y, (float)sum.y));
    else if (K::min)
        dsum = ((const float2 *)x->dsum)[t];
    int32_t c0 = cuda_dot_start<K>(sum.x), c1 = cuda_dot_start<K>(sum.y);
#pragma unroll
    for (int j = 0; j < 2; j++) {
        if (K::groups == 2)
            dev_mma_u8s8_k16(dot[j], a[j] + 2 * g, g ? q.y : q.x, c0, c1, c0, c1);
        else
            dev_mma_u8s8_k32(dot[j], a[j], q.x, q.y, c0, c1, c0, c1);
    }
    cuda_accumulate<K>(dot, wd, wm, d, dsum, acc);
}

template <class K, int NT>
DEV_FN void cuda_block(const uint8_t *p, const cuda_head &head, const cuda_act *x, const int at[NT],
                       int b, int lane, float acc[NT][8])
{
    int quad = lane >> 2 & 3, t = lane & 3;
    cuda_raw<K> raw = cuda_load_block<K>(p, quad, t);
    uint32_t a[2][4];
    cuda_fragments<K>(raw, t, a);
#pragma unroll
    for (int g = 0; g < K::groups; g++) {
        float wd[4], wm[4];
        cuda_scales<K>(raw, head, g, wd);
        cuda_minima<K>(raw, head, g, wm);
#pragma unroll
        for (int n = 0; n < NT; n++)
            cuda_group_tile<K>(a, wd, wm, g, x + (at[n] + b), lane, acc[n]);
    }
}

/* How many blocks' loads are under way at a time. */
template <class K> DEV_FN constexpr int cuda_unroll(int tiles)
{
    return tiles == 1 ? K::unroll : tiles == 2 && K::form != CP_FORM_GM ? 2 : 1;
}

/* Blocks [b0, b1) of a segment; b0 is a multiple of CP_SUPER. */
template <class K, int NT, int UNROLL>
DEV_FN void cuda_segment(const uint8_t *panel, const cuda_act *x, const int at[NT], int b0, int b1,
                         int lane, float acc[NT][8])
{
    for (int b = b0; b < b1; b += CP_SUPER) {
        const uint8_t *p = panel + b / CP_SUPER * (K::head + CP_SUPER * K::block);
        cuda_head head = cuda_load_head<K>(p, lane >> 2 & 3);
        int n = K::together == CP_SUPER ? CP_SUPER : cuda_min(b1 - b, CP_SUPER);
        p += K::head;
#pragma unroll UNROLL
        for (int i = 0; i < (n & -K::together); i++)
            cuda_block<K, NT>(p + i * K::block, head, x, at, b + i, lane, acc);
    }
}

template <class K, int NT> struct cuda_linear_q {
    typedef const uint8_t *weights;

    /* Of the block's two panels that which this lane's outputs are in; the last may be alone. */
    static DEV_MEMBER weights weights_of(const cuda_linear_args &a, const cuda_share &s, int i)
    {
        int panel = s.o0 / CP_LANES + (threadIdx.x % CUDA_WARP >> 4);
        panel = cuda_min(panel, (a.parts[s.part].m - 1) / CP_LANES);
        return cuda_weight_at(a, s, i) + panel * a.parts[s.part].w[i].row_bytes;
    }

    /* Of tiles [first, first + NT) of the share. */
    template <int UNROLL>
    static DEV_MEMBER void sums(const cuda_linear_args &a, const cuda_share &s, weights w,
                                int segment, int first, float acc[NT][8])
    {
        enum { BLOCKS = CP_SEGMENT / CUDA_BLOCK };
        int n_blocks = a.k / CUDA_BLOCK, b0 = segment * BLOCKS;
        int at[NT]; /* where each tile's blocks begin */
#pragma unroll
        for (int n = 0; n < NT; n++)
            at[n] = (s.row0 / CUDA_TILE + cuda_min(first + n, s.n_tiles - 1)) * n_blocks;
        cuda_segment<K, NT, UNROLL>(w, (const cuda_act *)a.act, at, b0,
                                    cuda_min(b0 + BLOCKS, n_blocks), threadIdx.x % CUDA_WARP, acc);
    }

    static DEV_MEMBER void results(const cuda_linear_args &a, const cuda_share &s, weights w,
                                   int segment, float *results)
    {
        float acc[NT][8];
        cuda_clear<NT>(acc);
        sums<cuda_unroll<K>(NT)>(a, s, w, segment, 0, acc);
        cuda_put_results<NT>(acc, threadIdx.x % CUDA_WARP, results);
    }
};

#define X(name, bits, codes, form, offset, block, head)                                            \
    typedef cuda_kind<bits, codes, form, offset, block, head> cuda_##name;
CP_INT_PANELS(X)
#undef X

#endif
