/*
 * linear_f: linears of float weights by the law: one FMA an input, K ascending in segments. A lane
 * has an output, whose row it reads in file order, and eight rows of inputs; a warp takes a
 * segment. For F32, and for F16 and BF16 where bits are asked for: linear_h is faster.
 */
#include "kernels/cuda/linear.cuh"

enum { F32, F16, BF16 };

/* Four values of a row from i on, or one. */
template <int KIND> DEV_FN float4 four(const void *row, int i)
{
    if (KIND == F32)
        return *(const float4 *)((const float *)row + i);
    uint2 v = *(const uint2 *)((const uint16_t *)row + i);
    if (KIND == F16)
        return make_float4(dev_f16_low(v.x), dev_f16_high(v.x), dev_f16_low(v.y),
                           dev_f16_high(v.y));
    return make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u),
                       __uint_as_float(v.y << 16), __uint_as_float(v.y & 0xffff0000u));
}

template <int KIND> DEV_FN float one(const void *row, int i)
{
    if (KIND == F32)
        return ((const float *)row)[i];
    uint16_t h = ((const uint16_t *)row)[i];
    return KIND == F16 ? dev_f32_from_f16(h) : cp_f32_from_bf16(h);
}

/* x[r]: rows of inputs, which are bf16 where weights are and else f32. */
template <int KIND>
DEV_FN void segment(const uint8_t *w, const void *const x[CUDA_TILE], int k0, int k1,
                    float acc[CUDA_TILE])
{
    enum { INPUT = KIND == BF16 ? BF16 : F32 };
    int k = k0;
#pragma unroll 4
    for (; k + 4 <= k1; k += 4) {
        float4 v = four<KIND>(w, k);
#pragma unroll
        for (int r = 0; r < CUDA_TILE; r++) {
            float4 y = four<INPUT>(x[r], k);
            acc[r] = __fmaf_rn(v.x, y.x, acc[r]);
            acc[r] = __fmaf_rn(v.y, y.y, acc[r]);
            acc[r] = __fmaf_rn(v.z, y.z, acc[r]);
            acc[r] = __fmaf_rn(v.w, y.w, acc[r]);
        }
    }
#pragma unroll 1
    for (; k < k1; k++) { /* three at most */
        float v = one<KIND>(w, k);
#pragma unroll
        for (int r = 0; r < CUDA_TILE; r++)
            acc[r] = __fmaf_rn(v, one<INPUT>(x[r], k), acc[r]);
    }
}

template <int KIND> struct linear_f {
    typedef const uint8_t *weights;

    static DEV_MEMBER weights weights_of(const cuda_linear_args &a, const cuda_share &s, int i)
    {
        int o = s.o0 + (int)threadIdx.x % CUDA_WARP;
        return cuda_weight_at(a, s, i) +
               cuda_min(o, a.parts[s.part].m - 1) * a.parts[s.part].w[i].row_bytes;
    }

    static DEV_MEMBER void results(const cuda_linear_args &a, const cuda_share &s, weights w,
                                   int number, float *results)
    {
        const void *x[CUDA_TILE];
        float acc[CUDA_TILE];
        int k0 = number * CP_SEGMENT;
#pragma unroll
        for (int r = 0; r < CUDA_TILE; r++) {
            int64_t at = (int64_t)(s.row0 + cuda_min(r, s.n - 1)) * a.act_ld;
            x[r] = (const uint8_t *)a.act + at * (KIND == BF16 ? 2 : 4);
            acc[r] = 0.0f;
        }
        segment<KIND>(w, x, k0, cuda_min(k0 + CP_SEGMENT, a.k), acc);
#pragma unroll
        for (int r = 0; r < CUDA_TILE; r++)
            results[cuda_result_at(r, threadIdx.x % CUDA_WARP)] = acc[r];
    }
};

/* Where weights are F16 or BF16 bits are asked for, and then nothing is handed on as f16. */
#define X(name, what)                                                                              \
    DEV_KERNEL_RESIDENT(CUDA_SEGMENT_WARPS *CUDA_WARP, 2)                                          \
    k_linear_f_##name(const __grid_constant__ cuda_linear_args a)                                  \
    {                                                                                              \
        cuda_linear<linear_f<name>, 1, what>(a);                                                   \
    }
X(F32, CUDA_FOR_ALL)
X(F16, CUDA_FOR_ALL & ~CUDA_FOR_F16)
X(BF16, CUDA_FOR_ALL & ~CUDA_FOR_F16)
#undef X
