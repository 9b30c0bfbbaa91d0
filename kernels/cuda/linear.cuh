/*
 * linear.cuh: what the kernels of linears share: which outputs and rows a block has, the ordered
 * sum of its warps' segments, and what becomes of a sum (program.h's LINEAR).
 */
#ifndef CP_KERNELS_CUDA_LINEAR_CUH
#define CP_KERNELS_CUDA_LINEAR_CUH

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/linear_args.h"
#include "kernels/math.h"
#include "kernels/program.h"

/* A function within a struct: DEV_FN without its own static. */
#define DEV_MEMBER __device__ __forceinline__

/* What a kernel of linears may be launched for, beside a record of weights alone. */
enum {
    CUDA_FOR_EXPERTS = 1,
    CUDA_FOR_MUL = 2, /* up is a matrix, or has had a launch of its own */
    CUDA_FOR_F16 = 4, /* outputs are handed on as f16 */
    CUDA_FOR_ALL = 7
};

/* A block's share of a launch. */
typedef struct cuda_share {
    int part, o0; /* outputs [o0, o0 + CUDA_OUTPUTS) of this part */
    int row0, n;  /* rows, or places; row0 is the first of a tile */
    int n_tiles;  /* that they are in */
    int expert;   /* 0 where there are none */
} cuda_share;

/* False: nothing is left for this block. */
template <int NT, int FOR> DEV_FN bool cuda_share_of(const cuda_linear_args &a, cuda_share *s)
{
    int y = blockIdx.y, x = blockIdx.x;
    s->part = 0;
    while (s->part + 1 < a.n_parts && y >= a.parts[s->part + 1].block0)
        s->part++;
    s->o0 = (y - a.parts[s->part].block0) * CUDA_OUTPUTS;
    s->expert = 0;
    if ((FOR & CUDA_FOR_EXPERTS) && a.places.n_used) {
        constexpr int width = NT == 1 ? 0 : NT == 2 ? 1 : 2;
        if (x >= a.places.n_items[width])
            return false;
        const cuda_expert_item *item = a.places.items + width * a.places.max_items + x;
        s->expert = item->expert;
        s->row0 = item->place;
        s->n = item->n;
    } else {
        s->row0 = x * NT * CUDA_TILE;
        s->n = cuda_min(cuda_rows(a.step, a.out_rows) - s->row0, NT * CUDA_TILE);
    }
    s->n_tiles = (s->n + CUDA_TILE - 1) / CUDA_TILE;
    return s->n > 0;
}

/* Weight i of the share's part, from the block's first output on. */
DEV_FN const uint8_t *cuda_weight_at(const cuda_linear_args &a, const cuda_share &s, int i)
{
    const cuda_matrix *m = &a.parts[s.part].w[i];
    return m->w + s.expert * m->matrix_bytes;
}

/* The lane's outputs and rows in an mma's result, of which v = 4 j + i is value i of mma j. */
DEV_FN int cuda_output_of(int v, int g)
{
    return 4 * g + 2 * (v >> 2) + (v >> 1 & 1);
}

DEV_FN int cuda_row_of(int v, int t)
{
    return 2 * t + (v & 1);
}

/* Where the sum of row r and output o lies in a warp's results: neither a warp that writes eight
 * outputs of four rows nor one that reads a row meets a bank twice. */
DEV_FN int cuda_result_at(int r, int o)
{
    return r * CUDA_OUTPUTS + (o ^ (r >> 1 & 3));
}

template <int NT> DEV_FN void cuda_clear(float acc[NT][8])
{
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int v = 0; v < 8; v++)
            acc[n][v] = 0.0f;
    }
}

/* What mmas left of a segment. */
template <int NT> DEV_FN void cuda_put_results(const float acc[NT][8], int lane, float *results)
{
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int v = 0; v < 8; v++)
            results[cuda_result_at(n * CUDA_TILE + cuda_row_of(v, lane & 3),
                                   cuda_output_of(v, lane >> 2))] = acc[n][v];
    }
}

/* The results of a round of segments, one a warp, on top of the sums of those before it. */
template <int NT>
DEV_FN void cuda_add_segments(const float *results, int n_segments, bool first, int n, float *sums)
{
    enum { SIZE = NT * CUDA_TILE * CUDA_OUTPUTS };
    for (int e = threadIdx.x; e < n * CUDA_OUTPUTS; e += blockDim.x) {
        const float *r = results + cuda_result_at(e / CUDA_OUTPUTS, e % CUDA_OUTPUTS);
        float sum = first ? r[0] : __fadd_rn(sums[e], r[0]);
        for (int i = 1; i < n_segments; i++)
            sum = __fadd_rn(sum, r[i * SIZE]);
        sums[e] = sum;
    }
}

/* ---- the epilogue ---- */

DEV_FN float cuda_activate(int activation, float gate, float up)
{
    if (activation == CP_ACT_SWIGLU_CLAMP)
        return cp_swiglu_clampf(gate, up);
    return __fmul_rn(activation == CP_ACT_SILU ? cp_siluf(gate) : cp_gelu_tanhf(gate), up);
}

DEV_FN float cuda_finish(const cuda_linear_args &a, const cuda_matrix &m, int expert, int o,
                         float y)
{
    if (m.bias)
        y = __fadd_rn(y, m.bias[expert * m.matrix_bias + o]);
    if (a.scale != 1.0f)
        y = __fmul_rn(y, a.scale);
    if (a.softcap != 0.0f)
        y = __fmul_rn(a.softcap, cp_tanhf(__fdiv_rn(y, a.softcap)));
    return y;
}

/* The output o of a row, whose own part of matrices is at (to, at). */
template <bool MUL>
DEV_FN float cuda_output(const cuda_linear_args &a, const cuda_part &part, int expert, int64_t to,
                         int at, int o, float sum, float up)
{
    float y = cuda_finish(a, part.w[0], expert, o, sum);
    if (a.activation == CP_ACT_NONE)
        return y;
    up = MUL && part.mul ? part.mul[to * part.ld_mul + at]
                         : cuda_finish(a, part.w[1], expert, o, up);
    return cuda_activate(a.activation, y, up);
}

/* Sums become outputs; a warp has a row, which of experts is a place. sums: of the part's weight,
 * then of up. */
template <int NT, int FOR>
DEV_FN void cuda_put_outputs(const cuda_linear_args &a, const cuda_share &s, const float *sums)
{
    enum { SIZE = NT * CUDA_TILE * CUDA_OUTPUTS };
    const cuda_part &part = a.parts[s.part];
    int n_used = FOR & CUDA_FOR_EXPERTS ? a.places.n_used : 0;
    for (int e = threadIdx.x; e < s.n * CUDA_OUTPUTS; e += blockDim.x) {
        int row = s.row0 + e / CUDA_OUTPUTS, o = s.o0 + e % CUDA_OUTPUTS;
        int pair = n_used ? a.places.pair[row] : row, at = o;
        int64_t to = n_used ? pair / n_used : row;
        if (n_used)
            at += pair % n_used * part.m;
        float y = 0.0f, up = part.w[1].w ? sums[SIZE + e] : 0.0f;
        if (o < part.m)
            y = cuda_output<(FOR & CUDA_FOR_MUL) != 0>(a, part, s.expert, to, at, o, sums[e], up);
        if (a.handed.at)
            cuda_hand_on<(FOR & CUDA_FOR_F16) != 0>(a.handed, row, s.o0 / CUDA_BLOCK, y);
        else if (o < part.m)
            part.out[to * part.ld + at] = y;
    }
}

/*
 * A kernel of linears. L says what it has of its own: where a lane reads weight i of its share
 * (L::weights), and a warp's results of one segment (L::results). FOR: of CUDA_FOR_ALL.
 */
template <class L, int NT, int FOR = CUDA_FOR_ALL>
DEV_FN void cuda_linear(const cuda_linear_args &a)
{
    DEV_DYNAMIC_SHARED(float, shared);
    enum { SIZE = NT * CUDA_TILE * CUDA_OUTPUTS };
    cuda_share s;
    if (!cuda_share_of<NT, FOR>(a, &s))
        return;
    int warp = threadIdx.x / CUDA_WARP, warps = blockDim.x / CUDA_WARP;
    int segments = (a.k + CP_SEGMENT - 1) / CP_SEGMENT;
    float *sums = shared + warps * SIZE;
    for (int i = 0; i < 2 && a.parts[s.part].w[i].w; i++) {
        typename L::weights w = L::weights_of(a, s, i);
        for (int s0 = 0; s0 < segments; s0 += warps) {
            if (i || s0)
                __syncthreads(); /* the results before these were read */
            if (s0 + warp < segments)
                L::results(a, s, w, s0 + warp, shared + warp * SIZE);
            __syncthreads();
            cuda_add_segments<NT>(shared, cuda_min(warps, segments - s0), s0 == 0, s.n,
                                  sums + i * SIZE);
        }
    }
    cuda_put_outputs<NT, FOR>(a, s, sums);
}

#endif
