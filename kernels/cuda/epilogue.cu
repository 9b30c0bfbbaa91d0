/*
 * epilogue: what becomes of sums that a library left where outputs belong (program.h's LINEAR);
 * up's lie elsewhere. A block has up to 256 outputs of a row, a thread one.
 */
#include "kernels/cuda/linear.cuh"

DEV_KERNEL(CUDA_EPILOGUE_THREADS)
k_epilogue(const __grid_constant__ cuda_linear_args a)
{
    const cuda_part &part = a.parts[blockIdx.z];
    int row = blockIdx.x, o = blockIdx.y * CUDA_EPILOGUE_THREADS + threadIdx.x;
    if (row >= cuda_rows(a.step, a.out_rows) || o >= part.m)
        return;
    float *out = part.out + (int64_t)row * part.ld + o;
    float up = part.up_sums ? part.up_sums[(int64_t)row * part.ld + o] : 0.0f;
    int n_blocks = (a.k + CUDA_BLOCK - 1) / CUDA_BLOCK; /* a row of f16 has one power in all */
    float scale = a.scales ? a.scales[cuda_scale_at(row, 0, n_blocks)] : 1.0f;
    *out = cuda_output<true>(a, part, 0, row, o, o, __fmul_rn(*out, scale), __fmul_rn(up, scale));
}
