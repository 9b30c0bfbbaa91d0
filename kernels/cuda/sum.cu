/*
 * SUM: k_sum has four columns a thread; k_sum_norm, whose summands are normed, a block a row.
 */
#include "kernels/cuda/sum.h"

#include "kernels/cuda/lanes.cuh"
#include "kernels/math.h"
#include "kernels/program.h"

DEV_FN float sigmoid_of(const cuda_sum_args &a, size_t r)
{
    return cp_sigmoidf(a.gate[r * a.ld_gate]);
}

DEV_FN float parts(const cuda_sum_args &a, size_t r, int i)
{
    float y = 0.0f;
    int j = 0;
#pragma unroll 1
    do
        y = __fmaf_rn(a.weights[r * a.ld_weights + j], a.in[r * a.ld_in + (size_t)j * a.n + i], y);
    while (++j < a.n_used);
    return y;
}

/* The same of columns i to i + 3, of which each part begins at a whole number of fours. */
DEV_FN float4 parts4(const cuda_sum_args &a, size_t r, int i)
{
    float4 y = {0.0f, 0.0f, 0.0f, 0.0f};
    int j = 0;
    do {
        float w = a.weights[r * a.ld_weights + j];
        float4 x = *(const float4 *)(a.in + r * a.ld_in + (size_t)j * a.n + i);
        y.x = __fmaf_rn(w, x.x, y.x);
        y.y = __fmaf_rn(w, x.y, y.y);
        y.z = __fmaf_rn(w, x.z, y.z);
        y.w = __fmaf_rn(w, x.w, y.w);
    } while (++j < a.n_used);
    return y;
}

DEV_FN float with_shared(const cuda_sum_args &a, float g, float s, float y)
{
    return a.gate ? __fmaf_rn(g, s, y) : __fadd_rn(y, s);
}

DEV_FN int rows_of(const cuda_sum_args &a)
{
    return a.of_out_rows ? a.step->n_out : a.step->n_rows;
}

/* grid: rows, columns / (4 * CUDA_SUM_THREADS) */
DEV_KERNEL(CUDA_SUM_THREADS) k_sum(const __grid_constant__ cuda_sum_args a)
{
    size_t r = blockIdx.x;
    int at = 4 * (blockIdx.y * CUDA_SUM_THREADS + threadIdx.x);
    if ((int)r >= rows_of(a) || at >= a.n)
        return;
    float *out = a.out + r * a.ld_out;
    const float *shared = a.shared + r * a.ld_shared;
    float g = a.gate ? sigmoid_of(a, r) : 1.0f;
    if (a.n % 4) {
        for (int i = at; i < min(at + 4, a.n); i++) {
            float y = parts(a, r, i);
            out[i] = a.shared ? with_shared(a, g, shared[i], y) : y;
        }
        return;
    }
    float4 y = parts4(a, r, at);
    if (a.shared) {
        float4 s = *(const float4 *)(shared + at);
        y.x = with_shared(a, g, s.x, y.x);
        y.y = with_shared(a, g, s.y, y.y);
        y.z = with_shared(a, g, s.z, y.z);
        y.w = with_shared(a, g, s.w, y.w);
    }
    *(float4 *)(out + at) = y;
}

/* 1 / sqrt(mean of squares + eps) of x[n], for all of a warp. */
DEV_FN float rms(const float *x, int n, float eps)
{
    float low = 0.0f, high = 0.0f;
    for (int i = threadIdx.x % 32; i < n; i += CP_PARTIALS) {
        low = __fmaf_rn(x[i], x[i], low);
        if (i + 32 < n)
            high = __fmaf_rn(x[i + 32], x[i + 32], high);
    }
    return cuda_rsqrt(__fadd_rn(__fdiv_rn(cuda_tree(low, high), (float)n), eps));
}

/* rmsnorm(y) + rmsnorm(shared); grid: rows */
DEV_KERNEL(CUDA_SUM_THREADS) k_sum_norm(const __grid_constant__ cuda_sum_args a)
{
    __shared__ float scale[2]; /* of y, of shared */
    size_t r = blockIdx.x;
    if ((int)r >= rows_of(a))
        return;
    float *out = a.out + r * a.ld_out;
    const float *shared = a.shared + r * a.ld_shared;
    int warp = threadIdx.x / 32;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.n; i += CUDA_SUM_THREADS)
        out[i] = parts(a, r, i);
    __syncthreads();
    if (warp < 2) {
        float s = rms(warp ? shared : out, a.n, a.eps);
        if (threadIdx.x % 32 == 0)
            scale[warp] = s;
    }
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < a.n; i += CUDA_SUM_THREADS)
        out[i] = __fadd_rn(__fmul_rn(__fmul_rn(out[i], scale[0]), a.norm[i]),
                           __fmul_rn(__fmul_rn(shared[i], scale[1]), a.shared_norm[i]));
}
