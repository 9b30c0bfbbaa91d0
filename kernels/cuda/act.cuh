/*
 * act.cuh: how 32 inputs become a block of int8 (dequant.c's cp_quantize_act_row, bit for bit).
 */
#ifndef CP_KERNELS_CUDA_ACT_CUH
#define CP_KERNELS_CUDA_ACT_CUH

#include "kernels/cuda/act.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/lanes.cuh"

enum { CUDA_WARP = 32 };

/* What no launch writes while a kernel reads it: weights. p is a multiple of its size. */
template <typename T> DEV_FN T cuda_load(const void *p)
{
    return __ldg((const T *)p);
}

DEV_FN int cuda_min(int a, int b)
{
    return a < b ? a : b;
}

/* The rows that a record runs over. */
DEV_FN int cuda_rows(const cuda_step *step, int out)
{
    return out ? step->n_out : step->n_rows;
}

/* Nearest even; what does not fit int8 becomes -128. */
DEV_FN int32_t cuda_round_int8(float v)
{
    bool fits = v >= -128.5f && v <= 127.5f;
    float r = __fadd_rn(__fadd_rn(v, 0x1.8p23f), -0x1.8p23f);
    return fits && r <= 127.0f ? (int32_t)r : -128;
}

DEV_FN float cuda_act_inverse(float amax)
{
    return amax > 0.0f ? __fdiv_rn(127.0f, amax) : 0.0f;
}

/* Where byte `i` of a row's 32 lies among them. */
DEV_FN int cuda_act_byte(int i)
{
    return (i & 12) * 2 + (i >> 4) * 4 + (i & 3);
}

DEV_FN void cuda_act_put_scales(cuda_act *a, int row, float amax, int32_t low, int32_t high)
{
    float d = __fdiv_rn(amax, 127.0f);
    a->d[row] = d;
    a->sum[row] = low + high;
    a->dsum[row] = __fmul_rn(d, (float)(low + high));
    a->sum16[row] = (int32_t)((uint32_t)low & 0xffffu) | (int32_t)((uint32_t)high << 16);
}

/* A warp, whose lane i has input i of the block (0 where there is none). */
DEV_FN void cuda_act_put(cuda_act *a, int row, float v)
{
    int lane = threadIdx.x % CUDA_WARP;
    float amax = fabsf(v);
    for (int h = CUDA_WARP / 2; h; h /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(CUDA_LANES, amax, h));
    amax = fmaxf(amax, 0.0f);
    int32_t q = cuda_round_int8(__fmul_rn(v, cuda_act_inverse(amax))), sum = q;
    for (int h = CUDA_BLOCK / 4; h; h /= 2)
        sum += __shfl_xor_sync(CUDA_LANES, sum, h);
    int32_t high = __shfl_sync(CUDA_LANES, sum, CUDA_WARP - 1);
    ((int8_t *)a->q[row])[cuda_act_byte(lane)] = (int8_t)q;
    if (lane == 0)
        cuda_act_put_scales(a, row, amax, sum, high);
}

/* Eight lanes of a warp, lane i (of 8) with inputs 4 i to 4 i + 3 of the block, all of the warp's
 * lanes being here; n places are written, at to(j). */
typedef struct cuda_act4 {
    uint32_t q;
    float amax;
    int32_t low, high; /* sums of the block's halves */
} cuda_act4;

DEV_FN cuda_act4 cuda_act4_of(float4 v)
{
    cuda_act4 o;
    o.amax = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
    for (int h = 4; h; h /= 2)
        o.amax = fmaxf(o.amax, __shfl_xor_sync(CUDA_LANES, o.amax, h));
    o.amax = fmaxf(o.amax, 0.0f);
    float inverse = cuda_act_inverse(o.amax);
    int32_t x = cuda_round_int8(__fmul_rn(v.x, inverse)),
            y = cuda_round_int8(__fmul_rn(v.y, inverse)),
            z = cuda_round_int8(__fmul_rn(v.z, inverse)),
            w = cuda_round_int8(__fmul_rn(v.w, inverse));
    o.q = (uint32_t)(x & 255) | (uint32_t)(y & 255) << 8 | (uint32_t)(z & 255) << 16 |
          (uint32_t)w << 24;
    int32_t sum = x + y + z + w;
    for (int h = 2; h; h /= 2)
        sum += __shfl_xor_sync(CUDA_LANES, sum, h);
    int32_t other = __shfl_xor_sync(CUDA_LANES, sum, 4);
    bool first = threadIdx.x % 8 < 4;
    o.low = first ? sum : other;
    o.high = first ? other : sum;
    return o;
}

DEV_FN void cuda_act4_put(cuda_act *a, int row, const cuda_act4 &v)
{
    int i = threadIdx.x % 8;
    a->q[row][i & 3][i >> 2] = v.q;
    if (i == 0)
        cuda_act_put_scales(a, row, v.amax, v.low, v.high);
}

#endif
