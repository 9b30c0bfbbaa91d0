/*
 * linear_h: linears of BF16 and F16 weights by mma, from rows in file order. Lane t of four takes
 * inputs 8 t to 8 t + 7 of every 32, sixteen bytes of weights and of inputs alike: which inputs an
 * mma takes together is of no matter, as long as both sides agree. A row's bits depend on no other
 * row: the order of sums is that of 16 inputs an mma, ascending in a segment of 512, and of
 * segments. Inputs are rounded to the weights' type; 32 of F16 were scaled by a power of two, and
 * their product is before it is added.
 */
#include "kernels/cuda/linear.cuh"

/* Eight values of a row from i on; rows are zeroes from k to a multiple of 8. */
DEV_FN uint4 load8(const uint8_t *row, int i, int k)
{
    return i < k ? cuda_load<uint4>(row + 2 * i) : make_uint4(0, 0, 0, 0);
}

template <bool F16>
DEV_FN void mma(float acc[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                uint32_t b1)
{
    const uint32_t a[4] = {a0, a1, a2, a3};
    if (F16)
        dev_mma_f16_k16(acc, a, b0, b1);
    else
        dev_mma_bf16_k16(acc, a, b0, b1);
}

/* sum += 32 inputs of a row times four outputs. */
template <bool F16> DEV_FN void product_of_32(const uint4 a[4], uint4 b, float sum[8])
{
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const uint4 &low = a[2 * j], &high = a[2 * j + 1];
        mma<F16>(sum + 4 * j, low.x, high.x, low.y, high.y, b.x, b.y);
        mma<F16>(sum + 4 * j, low.z, high.z, low.w, high.w, b.z, b.w);
    }
}

/* The same by the powers of two that the rows of the product were divided by. */
DEV_FN void scaled_product_of_32(const uint4 a[4], uint4 b, float2 scale, float sum[8])
{
    float product[8] = {};
    product_of_32<true>(a, b, product);
#pragma unroll
    for (int v = 0; v < 8; v++)
        sum[v] = __fmaf_rn(product[v], v & 1 ? scale.y : scale.x, sum[v]);
}

/* Where a lane's inputs lie, in units of eight, and the scales of its tiles' rows, in pairs. */
template <int NT> struct places {
    const uint4 *x;
    const float2 *scales;
    int row[NT], tile[NT];
};

/* w: the lane's four outputs, 2 j and 2 j + 1 in mma j, each from its 8 t on. */
template <bool F16, int NT>
DEV_FN void segment(const uint8_t *const w[4], const places<NT> &p, int k0, int k1, int t,
                    float acc[NT][8])
{
    enum { UNROLL = NT == 1 ? 3 - F16 : NT == 2 ? 2 - F16 : 1 + F16 };
#pragma unroll UNROLL
    for (int k = k0; k < k1; k += 32) {
        uint4 a[4];
#pragma unroll
        for (int o = 0; o < 4; o++)
            a[o] = load8(w[o], k + 8 * t, k1);
#pragma unroll
        for (int n = 0; n < NT; n++) {
            uint4 b = p.x[p.row[n] + k / 8 + t];
            if (F16)
                scaled_product_of_32(a, b, p.scales[p.tile[n] + k / 8 + t], acc[n]);
            else
                product_of_32<false>(a, b, acc[n]);
        }
    }
}

template <bool F16, int NT> struct linear_h {
    typedef struct weights {
        const uint8_t *row[4];
    } weights;

    static DEV_MEMBER weights weights_of(const cuda_linear_args &a, const cuda_share &s, int i)
    {
        weights w;
#pragma unroll
        for (int o = 0; o < 4; o++) {
            int output = s.o0 + cuda_output_of(2 * o, threadIdx.x % CUDA_WARP >> 2);
            output = cuda_min(output, a.parts[s.part].m - 1);
            w.row[o] = cuda_weight_at(a, s, i) + output * a.parts[s.part].w[i].row_bytes;
        }
        return w;
    }

    static DEV_MEMBER void results(const cuda_linear_args &a, const cuda_share &s, const weights &w,
                                   int number, float *results)
    {
        int lane = threadIdx.x % CUDA_WARP, k0 = number * CP_SEGMENT;
        places<NT> p = {(const uint4 *)a.act, (const float2 *)a.scales};
        float acc[NT][8];
#pragma unroll
        for (int n = 0; n < NT; n++) {
            p.row[n] = (s.row0 + cuda_min(n * CUDA_TILE + (lane >> 2), s.n - 1)) * (a.act_ld / 8);
            p.tile[n] = (s.row0 / CUDA_TILE + cuda_min(n, s.n_tiles - 1)) * (a.act_ld / 8);
        }
        cuda_clear<NT>(acc);
        segment<F16, NT>(w.row, p, k0, cuda_min(k0 + CP_SEGMENT, a.k), lane & 3, acc);
        cuda_put_results<NT>(acc, lane, results);
    }
};

#define X(n)                                                                                       \
    DEV_KERNEL_RESIDENT(CUDA_SEGMENT_WARPS *CUDA_WARP, 2)                                          \
    k_linear_h##n##_BF16(const __grid_constant__ cuda_linear_args a)                               \
    {                                                                                              \
        cuda_linear<linear_h<false, n>, n>(a);                                                     \
    }                                                                                              \
    DEV_KERNEL_RESIDENT(CUDA_SEGMENT_WARPS *CUDA_WARP, n == 4 ? 1 : 2) /* sums of 32, too */       \
    k_linear_h##n##_F16(const __grid_constant__ cuda_linear_args a)                                \
    {                                                                                              \
        cuda_linear<linear_h<true, n>, n>(a);                                                      \
    }
X(1) X(2) X(4)
#undef X
