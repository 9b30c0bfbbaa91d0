/*
 * SHORTCONV: a block has CUDA_CONV_CHANNELS channels of up to CUDA_CONV_ROWS rows of a sequence, a
 * thread one channel. What a tap needs of earlier rows is multiplied again: it is cheaper than to
 * pass it on.
 */
#include "kernels/cuda/shortconv.h"

#include "kernels/cuda/lanes.cuh"

/* b * x of row i of the sequence; below 0 what its state holds. */
DEV_FN float product(const cuda_shortconv_args &a, const cuda_seq &q, const float *state, int i,
                     int c)
{
    if (i < 0)
        return state ? state[(size_t)(a.taps - 1 + i) * a.d + c] : 0.0f;
    const float *x = a.in + (size_t)(q.row0 + i) * a.ld_in;
    return __fmul_rn(x[c], x[2 * a.d + c]);
}

DEV_FN float *state_of(const cuda_shortconv_args &a, uint32_t slot)
{
    return slot ? (float *)(a.states + slot * a.state_bytes) : nullptr;
}

/* Ascending: entry t of a state that is shifted in place was read before it is overwritten. */
DEV_FN void leave(const cuda_shortconv_args &a, const cuda_seq &q, const float *state, int c)
{
    float *out = state_of(a, q.state_out), *save = state_of(a, q.state_save);
#pragma unroll 1
    for (int t = 0; t < a.taps - 1; t++) {
        float v = product(a, q, state, q.n_rows - (a.taps - 1) + t, c);
        if (out)
            out[(size_t)t * a.d + c] = v;
        if (save)
            save[(size_t)t * a.d + c] = v;
    }
}

/* grid: channels / CUDA_CONV_CHANNELS, sequences, rows of one / CUDA_CONV_ROWS */
DEV_KERNEL(CUDA_CONV_CHANNELS) k_shortconv(const __grid_constant__ cuda_shortconv_args a)
{
    int c = blockIdx.x * CUDA_CONV_CHANNELS + threadIdx.x, from = blockIdx.z * CUDA_CONV_ROWS;
    if ((int)blockIdx.y >= a.step->n_seqs || c >= a.d)
        return;
    const cuda_seq q = a.step->seqs[blockIdx.y];
    const float *state = state_of(a, q.state_in);
    for (int i = from; i < min(from + CUDA_CONV_ROWS, q.n_rows); i++) {
        float y = 0.0f;
        int t = 0;
#pragma unroll 1
        do
            y = __fmaf_rn(a.conv[c * a.taps + t], product(a, q, state, i - (a.taps - 1) + t, c), y);
        while (++t < a.taps);
        size_t row = q.row0 + i;
        a.out[row * a.ld_out + c] = __fmul_rn(a.in[row * a.ld_in + a.d + c], y);
    }
    if (from == 0)
        leave(a, q, state, c);
}
