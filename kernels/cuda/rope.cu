/*
 * ROPE and GATHER: a block a row.
 */
#include "kernels/cuda/rope.h"

#include "kernels/cuda/device.cuh"
#include "kernels/math.h"

/* cos and sin of the f32 angle, each rounded to f32, then times mscale. */
DEV_KERNEL(CUDA_ROPE_THREADS) k_rope(const __grid_constant__ cuda_rope_args a)
{
    int row = blockIdx.x;
    if (row >= a.step->n_rows)
        return;
    float pos = (float)a.step->pos[row], *x = a.out + (int64_t)row * a.ld;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.half; i += CUDA_ROPE_THREADS) {
        float sine, cosine;
        cp_sincosf(__fmul_rn(pos, a.inv_freq[i]), &sine, &cosine);
        x[i] = __fmul_rn(cosine, a.mscale);
        x[a.half + i] = __fmul_rn(sine, a.mscale);
    }
}

/* out[i] = in[out_rows[i]]; rows end in zeroes up to a multiple of 16, so quads are whole. */
DEV_KERNEL(CUDA_GATHER_THREADS) k_gather(const __grid_constant__ cuda_gather_args a)
{
    int row = blockIdx.x;
    if (row >= a.step->n_out)
        return;
    const float4 *in = (const float4 *)(a.in + (int64_t)a.step->out_rows[row] * a.ld_in);
    float4 *out = (float4 *)(a.out + (int64_t)row * a.ld_out);
#pragma unroll 1
    for (int i = threadIdx.x; i < a.quads; i += CUDA_GATHER_THREADS)
        out[i] = in[i];
}
