/*
 * act.cuh: how 32 inputs become a block of int8 (dequant.c's cp_quantize_act_row, bit for bit), of
 * bf16 or of f16: by a warp, a lane each; by four lanes, eight each; or by eight, four each.
 */
#ifndef CP_KERNELS_CUDA_ACT_CUH
#define CP_KERNELS_CUDA_ACT_CUH

#include "kernels/cuda/act.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/lanes.cuh"
#include "kernels/math.h"

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

DEV_FN uint32_t cuda_int8x4(const float v[4], float inverse, int32_t *sum)
{
    uint32_t q = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int32_t x = cuda_round_int8(__fmul_rn(v[i], inverse));
        q |= (uint32_t)(x & 255) << 8 * i;
        *sum += x;
    }
    return q;
}

/* Four lanes, lane t with inputs 8 t and on, all of the warp's being here; written where `there`.
 */
DEV_FN void cuda_act8_put(cuda_act *a, int row, bool there, const float v[8], float amax)
{
    int t = threadIdx.x & 3;
    float inverse = cuda_act_inverse(amax);
    int32_t sum = 0;
    uint32_t first = cuda_int8x4(v, inverse, &sum), second = cuda_int8x4(v + 4, inverse, &sum);
    sum += __shfl_xor_sync(CUDA_LANES, sum, 1);
    int32_t other = __shfl_xor_sync(CUDA_LANES, sum, 2);
    if (!there)
        return;
    a->q[row][t % 2 * 2][t / 2] = first;
    a->q[row][t % 2 * 2 + 1][t / 2] = second;
    if (t == 0)
        cuda_act_put_scales(a, row, amax, sum, other);
}

/* ---- sixteen bits ---- */

/* A power of two that brings the largest of some values to [2^14, 2^15), so that f16 holds them. */
DEV_FN float cuda_f16_factor(float most)
{
    int e = (int)(__float_as_uint(most) >> 23) - 127;
    if (most == 0.0f || e == 128)
        return 1.0f;
    return __uint_as_float((uint32_t)(cuda_min(14 - e, 126) + 127) << 23);
}

/* Where the power of a block of a row lies. */
DEV_FN int64_t cuda_scale_at(int row, int block, int n_blocks)
{
    return ((int64_t)(row / CUDA_TILE) * n_blocks + block) * CUDA_TILE + row % CUDA_TILE;
}

DEV_FN uint32_t cuda_bf16_pair(float low, float high)
{
    return cp_bf16_from_f32(low) | (uint32_t)cp_bf16_from_f32(high) << 16;
}

DEV_FN uint32_t cuda_16_pair(int form, float low, float high, float factor)
{
    return form == CUDA_F16 ? dev_f16x2(__fmul_rn(low, factor), __fmul_rn(high, factor))
                            : cuda_bf16_pair(low, high);
}

/* ---- what a record hands on ---- */

DEV_FN cuda_act *cuda_handed_act(const cuda_handed &h, int row, int block)
{
    return (cuda_act *)h.at + (int64_t)(row / CUDA_TILE) * h.n_blocks + block;
}

DEV_FN uint16_t *cuda_handed_16(const cuda_handed &h, int row, int block)
{
    return (uint16_t *)h.at + ((int64_t)row * h.n_blocks + block) * CUDA_BLOCK;
}

/* A warp, whose lane i has value i of the block (0 where there is none). TO_F16: it may be asked
 * for f16. */
template <bool TO_F16 = true>
DEV_FN void cuda_hand_on(const cuda_handed &h, int row, int block, float v)
{
    int lane = threadIdx.x % CUDA_WARP;
    if (h.form == CUDA_INT8) {
        cuda_act_put(cuda_handed_act(h, row, block), row % CUDA_TILE, v);
        return;
    }
    float factor = 1.0f;
    if (TO_F16 && h.form == CUDA_F16) {
        float most = fabsf(v);
        for (int i = CUDA_WARP / 2; i; i /= 2)
            most = fmaxf(most, __shfl_xor_sync(CUDA_LANES, most, i));
        factor = cuda_f16_factor(most);
        if (lane == 0)
            h.scales[cuda_scale_at(row, block, h.n_blocks)] = __fdiv_rn(1.0f, factor);
    }
    cuda_handed_16(h, row, block)[lane] =
        TO_F16 && h.form == CUDA_F16 ? dev_f16_from_f32(__fmul_rn(v, factor)) : cp_bf16_from_f32(v);
}

/* Four lanes, lane t with values 8 t and on of a block, all of the warp's being here; four that are
 * not `there` write nothing. */
DEV_FN void cuda_hand_on8(const cuda_handed &h, bool there, int row, int block, const float v[8])
{
    int t = threadIdx.x & 3;
    float most = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++)
        most = fmaxf(most, fabsf(v[i]));
    most = fmaxf(most, __shfl_xor_sync(CUDA_LANES, most, 1));
    most = fmaxf(most, __shfl_xor_sync(CUDA_LANES, most, 2));
    if (h.form == CUDA_INT8) {
        cuda_act8_put(cuda_handed_act(h, row, block), row % CUDA_TILE, there, v, most);
        return;
    }
    if (!there)
        return;
    float factor = cuda_f16_factor(most);
    if (h.form == CUDA_F16 && t == 0)
        h.scales[cuda_scale_at(row, block, h.n_blocks)] = __fdiv_rn(1.0f, factor);
    ((uint4 *)cuda_handed_16(h, row, block))[t] = make_uint4(
        cuda_16_pair(h.form, v[0], v[1], factor), cuda_16_pair(h.form, v[2], v[3], factor),
        cuda_16_pair(h.form, v[4], v[5], factor), cuda_16_pair(h.form, v[6], v[7], factor));
}

#endif
