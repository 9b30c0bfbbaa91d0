/* Kernels that are right, and kernels that are wrong in one way each, for test_fibers.c. */
#include "kernels/cuda/device.cuh"

typedef struct try_args {
    int32_t *out;
    const int32_t *in;
    int32_t n;
} try_args;

/* out[i] = the sum of in[0..i], by shuffles and shared memory; 128 threads */
DEV_KERNEL(128) k_scan(const __grid_constant__ try_args a)
{
    __shared__ int32_t sums[4];
    int i = (int)threadIdx.x, lane = i % 32;
    int32_t v = i < a.n ? a.in[i] : 0;
    for (int step = 1; step < 32; step *= 2) {
        int32_t left = __shfl_up_sync(~0u, v, step);
        v += lane >= step ? left : 0;
    }
    if (lane == 31)
        sums[i / 32] = v;
    __syncthreads();
    for (int w = 0; w < i / 32; w++)
        v += sums[w];
    if (i < a.n)
        a.out[i] = v;
}

/* As k_scan's last part, without its barrier. */
DEV_KERNEL(64) k_no_barrier(const __grid_constant__ try_args a)
{
    __shared__ int32_t one[2];
    if (threadIdx.x % 32 == 0)
        one[threadIdx.x / 32] = 1;
    __syncwarp();
    a.out[threadIdx.x] = one[0] + one[1];
}

DEV_KERNEL(64) k_divergent(const __grid_constant__ try_args a)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    a.out[threadIdx.x] = 1;
}

DEV_KERNEL(64) k_early(const __grid_constant__ try_args a)
{
    if (threadIdx.x >= (unsigned)a.n)
        return;
    __syncthreads();
    a.out[threadIdx.x] = 1;
}

DEV_KERNEL(32) k_mask(const __grid_constant__ try_args a)
{
    if (threadIdx.x < 16)
        a.out[threadIdx.x] = __shfl_xor_sync(~0u, 1, 1);
}

/* A value that another lane wrote, without __syncwarp. */
DEV_KERNEL(32) k_no_syncwarp(const __grid_constant__ try_args a)
{
    __shared__ int32_t x[32];
    x[threadIdx.x] = (int)threadIdx.x;
    if (a.n)
        __syncwarp();
    a.out[threadIdx.x] = x[31 - threadIdx.x];
}

/* Behind the end of an array where n is not below 4. */
DEV_KERNEL(32) k_behind(const __grid_constant__ try_args a)
{
    __shared__ int32_t x[4];
    x[a.n] = 1;
    a.out[0] = x[a.n];
}

/* out = what cp.async brought; n: whether it is waited for */
DEV_KERNEL(32) k_async(const __grid_constant__ try_args a)
{
    DEV_DYNAMIC_SHARED(int32_t, x);
    int i = (int)threadIdx.x;
    dev_cp_async16(x + 4 * i, a.in + 4 * i, i == 31 ? 0 : 16);
    dev_cp_async_commit();
    if (a.n)
        dev_cp_async_wait<0>();
    for (int k = 0; k < 4; k++)
        a.out[4 * i + k] = x[4 * i + k];
    dev_cp_async_wait<0>();
}

/* out[16][8] = A B for 8-bit A [16][32], B [32][8] that lie in `in` as A, then B by columns. */
DEV_KERNEL(32) k_mma(const __grid_constant__ try_args a)
{
    const uint32_t *A = (const uint32_t *)a.in, *B = A + 16 * 8;
    int g = (int)threadIdx.x / 4, t = (int)threadIdx.x % 4, d[4];
    const uint32_t f[4] = {A[g * 8 + t], A[(g + 8) * 8 + t], A[g * 8 + t + 4],
                           A[(g + 8) * 8 + t + 4]};
    dev_mma_u8s8_k32(d, f, B[g * 8 + t], B[g * 8 + t + 4], 0, 0, 0, 1);
    for (int i = 0; i < 4; i++)
        a.out[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i];
}
