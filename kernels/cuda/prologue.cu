/*
 * prologue: rows become what linears take: add, norms, x_out, then each format that the record's
 * weights want. A block has a row (of experts by rank, a part of one) and reads it as often as it
 * has something to sum before the next step: rows lie in the caches, and nothing is kept.
 */
#include "kernels/cuda/linear.cuh"

typedef struct cuda_input {
    const float *in, *add, *add_norm, *norm;
    float add_rms, rms, scale;
    int k;
} cuda_input;

/* Input i before the norm. */
DEV_FN float input_at(const cuda_input &x, int i)
{
    float v = x.in[i];
    if (x.add) {
        float y = x.add[i];
        if (x.add_norm)
            y = __fmul_rn(__fmul_rn(y, x.add_rms), x.add_norm[i]);
        v = __fadd_rn(v, y);
    }
    return x.scale == 1.0f ? v : __fmul_rn(v, x.scale);
}

DEV_FN float normed(const cuda_input &x, int i, float v)
{
    return x.norm ? __fmul_rn(__fmul_rn(v, x.rms), x.norm[i]) : v;
}

/* Four values from i on, zeroes behind the last. whole: k is a multiple of 4. */
DEV_FN float4 load4(const float *x, int i, int k, bool whole)
{
    if (whole)
        return i < k ? *(const float4 *)(x + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return make_float4(i < k ? x[i] : 0.0f, i + 1 < k ? x[i + 1] : 0.0f,
                       i + 2 < k ? x[i + 2] : 0.0f, i + 3 < k ? x[i + 3] : 0.0f);
}

DEV_FN float4 scaled4(float4 v, float r, float4 w)
{
    return make_float4(__fmul_rn(__fmul_rn(v.x, r), w.x), __fmul_rn(__fmul_rn(v.y, r), w.y),
                       __fmul_rn(__fmul_rn(v.z, r), w.z), __fmul_rn(__fmul_rn(v.w, r), w.w));
}

/* The same as input_at, four at a time. */
DEV_FN float4 input4(const cuda_input &x, int i, bool whole)
{
    float4 v = load4(x.in, i, x.k, whole);
    if (x.add) {
        float4 y = load4(x.add, i, x.k, whole);
        if (x.add_norm)
            y = scaled4(y, x.add_rms, load4(x.add_norm, i, x.k, whole));
        v = make_float4(__fadd_rn(v.x, y.x), __fadd_rn(v.y, y.y), __fadd_rn(v.z, y.z),
                        __fadd_rn(v.w, y.w));
    }
    if (x.scale != 1.0f)
        v = make_float4(__fmul_rn(v.x, x.scale), __fmul_rn(v.y, x.scale), __fmul_rn(v.z, x.scale),
                        __fmul_rn(v.w, x.scale));
    return v;
}

/* ---- sums over the row ---- */

/* The lane tree of 64 partial sums, one a thread of the first two warps; all threads of the block
 * are here, and get it. shared: [33], the same at each call. */
DEV_FN float block_tree(float partial, float *shared)
{
    int i = threadIdx.x;
    if (i >= CUDA_WARP && i < 2 * CUDA_WARP)
        shared[i - CUDA_WARP] = partial;
    __syncthreads();
    if (i < CUDA_WARP) {
        partial = cuda_tree(partial, shared[i]);
        if (i == 0)
            shared[CUDA_WARP] = partial;
    }
    __syncthreads();
    return shared[CUDA_WARP];
}

DEV_FN float rms_of(float squares, int n, float eps)
{
    return cuda_rsqrt(__fadd_rn(__fdiv_rn(squares, (float)n), eps));
}

/* What the norms divide by. */
DEV_FN void measure(cuda_input *x, float eps, float *shared)
{
    float sum = 0.0f;
    if (x->add_norm) {
        if (threadIdx.x < CP_PARTIALS) {
#pragma unroll 8
            for (int i = threadIdx.x; i < x->k; i += CP_PARTIALS)
                sum = __fmaf_rn(x->add[i], x->add[i], sum);
        }
        x->add_rms = rms_of(block_tree(sum, shared), x->k, eps);
    }
    if (x->norm) {
        sum = 0.0f;
        if (threadIdx.x < CP_PARTIALS) {
#pragma unroll 8
            for (int i = threadIdx.x; i < x->k; i += CP_PARTIALS) {
                float v = input_at(*x, i);
                sum = __fmaf_rn(v, v, sum);
            }
        }
        x->rms = rms_of(block_tree(sum, shared), x->k, eps);
    }
}

/* What f16 is multiplied with in all of a row. Where it writes, block_tree was read before that
 * one's last barrier. */
DEV_FN float row_factor(const cuda_input &x, float *shared)
{
    float most = 0.0f;
    for (int i = threadIdx.x; i < x.k; i += CUDA_PROLOGUE_THREADS)
        most = fmaxf(most, fabsf(normed(x, i, input_at(x, i))));
    for (int h = CUDA_WARP / 2; h; h /= 2)
        most = fmaxf(most, __shfl_xor_sync(CUDA_LANES, most, h));
    if (threadIdx.x % CUDA_WARP == 0)
        shared[threadIdx.x / CUDA_WARP] = most;
    __syncthreads();
    for (int w = 0; w < CUDA_PROLOGUE_THREADS / CUDA_WARP; w++)
        most = fmaxf(most, shared[w]);
    return cuda_f16_factor(most);
}

/* And in a block, which eight lanes have. */
DEV_FN float block_factor(float4 v)
{
    float most = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
    for (int h = 4; h; h /= 2)
        most = fmaxf(most, __shfl_xor_sync(CUDA_LANES, most, h));
    return cuda_f16_factor(most);
}

/* ---- what is written ---- */

DEV_FN void store4(float *to, int i, int k, bool whole, float4 v)
{
    if (whole) {
        if (i < k)
            *(float4 *)(to + i) = v;
        return;
    }
    float w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (i + j < k)
            to[i + j] = w[j];
}

/* Four inputs from i on go to place `to` in every format; q: as int8. */
DEV_FN void put4(const cuda_prologue_args &a, int to, int i, float4 v, const cuda_act4 &q,
                 float factor)
{
    if (a.act && i < a.k)
        cuda_act4_put(a.act + (int64_t)(to / CUDA_TILE) * (a.k / CUDA_BLOCK) + i / CUDA_BLOCK,
                      to % CUDA_TILE, q);
    if (a.f32 && i < a.ld32)
        *(float4 *)(a.f32 + (int64_t)to * a.ld32 + i) = v;
    if (a.bf16 && i < a.ld16)
        *(uint2 *)(a.bf16 + (int64_t)to * a.ld16 + i) =
            make_uint2(cuda_bf16_pair(v.x, v.y), cuda_bf16_pair(v.z, v.w));
    if (a.f16 && i < a.ld16)
        *(uint2 *)(a.f16 + (int64_t)to * a.ld16 + i) =
            make_uint2(dev_f16x2(__fmul_rn(v.x, factor), __fmul_rn(v.y, factor)),
                       dev_f16x2(__fmul_rn(v.z, factor), __fmul_rn(v.w, factor)));
    if (a.f16 && i < a.ld16 && i % CUDA_BLOCK == 0)
        a.f16_scales[cuda_scale_at(to, i / CUDA_BLOCK, a.ld16 / CUDA_BLOCK)] =
            __fdiv_rn(1.0f, factor);
}

/* All threads of a warp are in every turn, since eight lanes make a block of int8 together. */
DEV_FN void write_row(const cuda_prologue_args &a, const cuda_input &x, int row, float of_row)
{
    bool whole = x.k % 4 == 0;
    int n_places = a.place && !a.by_rank ? a.n_used : 1;
    const int32_t *place =
        a.place ? a.place + row * a.n_used + (a.by_rank ? (int)blockIdx.y : 0) : nullptr;
    for (int u = threadIdx.x; u * 4 < (x.k + 127) / 128 * 128; u += CUDA_PROLOGUE_THREADS) {
        float4 v = input4(x, 4 * u, whole);
        cuda_act4 q = {};
        if (a.x_out)
            store4(a.x_out + (int64_t)row * a.ld_x_out, 4 * u, x.k, whole, v);
        if (x.norm)
            v = scaled4(v, x.rms, load4(x.norm, 4 * u, x.k, whole));
        if (a.act)
            q = cuda_act4_of(v);
        float factor = a.f16 && !a.f16_by_row ? block_factor(v) : of_row;
        for (int j = 0; j < n_places; j++)
            put4(a, place ? place[j] : row, 4 * u, v, q, factor);
    }
}

DEV_KERNEL_RESIDENT(CUDA_PROLOGUE_THREADS, 4)
k_prologue(const __grid_constant__ cuda_prologue_args a)
{
    __shared__ float shared[CUDA_WARP + 1];
    int row = blockIdx.x;
    if (row >= cuda_rows(a.step, a.out_rows))
        return;
    cuda_input x = {};
    x.in = a.in + (int64_t)row * a.ld + (a.by_rank ? blockIdx.y * a.k : 0);
    x.add = a.add ? a.add + (int64_t)row * a.ld_add : nullptr;
    x.add_norm = a.add_norm;
    x.norm = a.norm;
    x.scale = a.in_scale;
    x.k = a.k;
    measure(&x, a.eps, shared);
    float factor = 1.0f;
    if (a.f16 && a.f16_by_row)
        factor = row_factor(x, shared);
    write_row(a, x, row, factor);
}
