/*
 * DELTAPREP and DELTANET.
 *
 * DELTAPREP: a block has a head of q, k or v (the last one decays and betas) of up to
 * CUDA_PREP_ROWS rows of a sequence, a warp a row. Taps read rows and state again and again: they
 * lie in L1.
 *
 * DELTANET: a block has a v head of a sequence, a warp a tile of 16 columns of its S, which lies in
 * the warp's registers while all rows of the step pass. The four partial sums of a column are four
 * lanes: lane 4 c + p holds rows i = p (mod 4) of columns 2 c and 2 c + 1. What comes out is kept
 * in `out`, and normed and gated when all columns are there.
 */
#include "kernels/cuda/delta.h"

#include "kernels/cuda/lanes.cuh"
#include "kernels/math.h"
#include "kernels/program.h"

/* ---- DELTAPREP ---- */

/* Channel c of row i of the sequence; below 0 what its state holds. */
DEV_FN float earlier(const cuda_deltaprep_args &a, const cuda_seq &q, const float *state, int i,
                     int c)
{
    if (i < 0)
        return state ? state[(size_t)(a.taps - 1 + i) * a.channels + c] : 0.0f;
    return a.in[(size_t)(q.row0 + i) * a.ld + c];
}

DEV_FN float convolved(const cuda_deltaprep_args &a, const cuda_seq &q, const float *state, int i,
                       int c)
{
    float y = 0.0f;
    int t = 0;
#pragma unroll 1
    do
        y = __fmaf_rn(a.conv[c * a.taps + t], earlier(a, q, state, i - (a.taps - 1) + t, c), y);
    while (++t < a.taps);
    return cp_siluf(y);
}

/* Channels [c0, c0 + n) of row i, a lane every 32nd of them; unit: divided by their length, then
 * times scale. */
DEV_FN void prep_row(const cuda_deltaprep_args &a, const cuda_seq &q, const float *state, int i,
                     int c0, int n, bool unit, float scale)
{
    int lane = threadIdx.x % 32;
    float low = 0.0f, high = 0.0f;
    float *out = a.out + (size_t)(q.row0 + i) * a.ld + c0;
#pragma unroll 1
    for (int c = lane; c < n; c += 32) {
        float y = convolved(a, q, state, i, c0 + c);
        out[c] = y;
        low = c & 32 ? low : __fmaf_rn(y, y, low);
        high = c & 32 ? __fmaf_rn(y, y, high) : high;
    }
    if (!unit)
        return;
    float r = cuda_rsqrt(__fadd_rn(cuda_tree(low, high), a.eps));
#pragma unroll 1
    for (int c = lane; c < n; c += 32)
        out[c] = __fmul_rn(__fmul_rn(out[c], r), scale);
}

DEV_FN void prep_gates(const cuda_deltaprep_args &a, const cuda_seq &q, int from, int to)
{
    for (int j = threadIdx.x; j < (to - from) * a.n_v; j += blockDim.x) {
        size_t row = q.row0 + from + j / a.n_v;
        int h = j % a.n_v;
        float x = __fadd_rn(a.alpha[row * a.ld_alpha + h], a.dt[h]);
        float *gates = a.gates + row * a.ld_gates;
        gates[h] = cp_expf(__fmul_rn(a.a[h], cp_softplusf(x)));
        gates[a.n_v + h] = cp_sigmoidf(a.beta[row * a.ld_beta + h]);
    }
}

DEV_FN float *prep_state(const cuda_deltaprep_args &a, uint32_t slot)
{
    return slot ? (float *)(a.states + slot * a.state_bytes) : nullptr;
}

/* Ascending: entry t of a state that is shifted in place was read before it is overwritten. */
DEV_FN void leave(const cuda_deltaprep_args &a, const cuda_seq &q, const float *state, int c)
{
    float *out = prep_state(a, q.state_out), *save = prep_state(a, q.state_save);
#pragma unroll 1
    for (int t = 0; t < a.taps - 1; t++) {
        float v = earlier(a, q, state, q.n_rows - (a.taps - 1) + t, c);
        if (out)
            out[(size_t)t * a.channels + c] = v;
        if (save)
            save[(size_t)t * a.channels + c] = v;
    }
}

/* grid: heads of q, k and v, and one; sequences; rows of one / CUDA_PREP_ROWS */
DEV_KERNEL(CUDA_PREP_THREADS) k_deltaprep(const __grid_constant__ cuda_deltaprep_args a)
{
    int h = blockIdx.x, qk = 2 * a.n_k, from = blockIdx.z * CUDA_PREP_ROWS;
    if ((int)blockIdx.y >= a.step->n_seqs)
        return;
    const cuda_seq q = a.step->seqs[blockIdx.y];
    if (from >= q.n_rows)
        return;
    int to = min(from + CUDA_PREP_ROWS, q.n_rows);
    if (h == qk + a.n_v) {
        prep_gates(a, q, from, to);
        return;
    }
    const float *state = prep_state(a, q.state_in);
    int c0 = h < qk ? h * a.k_dim : qk * a.k_dim + (h - qk) * a.v_dim;
    int n = h < qk ? a.k_dim : a.v_dim;
    for (int i = from + threadIdx.x / 32; i < to; i += CUDA_PREP_THREADS / 32)
        prep_row(a, q, state, i, c0, n, h < qk, h < a.n_k ? a.scale : 1.0f);
    if (from > 0)
        return;
    __syncthreads(); /* all rows have read the state */
    for (int c = threadIdx.x; c < n; c += CUDA_PREP_THREADS)
        leave(a, q, state, c0 + c);
}

/* ---- DELTANET ---- */

enum { COLUMNS = CUDA_DELTA_WARPS * CP_DELTA_COLUMNS };

/* What the rows at hand bring: entry i of a head at [i % 4][i / 4], so that a lane reads its own in
 * fours. N: at most, of a partial sum. */
template <int N> struct alignas(16) staged {
    float k[CUDA_DELTA_ROWS][CP_DELTA_PARTIALS][N + 8]; /* + 8: no two lanes in one bank */
    float q[CUDA_DELTA_ROWS][CP_DELTA_PARTIALS][N + 8];
    float v[CUDA_DELTA_ROWS][COLUMNS];
    float decay[CUDA_DELTA_ROWS], beta[CUDA_DELTA_ROWS];
};

/* Rows [row, row + n) of head h, columns from j0 on; behind v_dim v is 0. */
template <int N>
DEV_FN void stage(staged<N> &st, const cuda_deltanet_args &a, size_t row, int n, int h, int j0)
{
    int hk = h % a.n_k;
    for (int r = 0; r < n; r++) {
        const float *x = a.in + (row + r) * a.ld;
        const float *v = x + 2 * a.n_k * a.k_dim + h * a.v_dim + j0;
        for (int i = threadIdx.x; i < a.k_dim; i += blockDim.x) {
            st.q[r][i % CP_DELTA_PARTIALS][i / CP_DELTA_PARTIALS] = x[hk * a.k_dim + i];
            st.k[r][i % CP_DELTA_PARTIALS][i / CP_DELTA_PARTIALS] = x[(a.n_k + hk) * a.k_dim + i];
        }
        for (int j = threadIdx.x; j < COLUMNS; j += blockDim.x)
            st.v[r][j] = j0 + j < a.v_dim ? v[j] : 0.0f;
    }
    if ((int)threadIdx.x < n) {
        const float *gates = a.gates + (row + threadIdx.x) * a.ld_gates;
        st.decay[threadIdx.x] = gates[h];
        st.beta[threadIdx.x] = gates[a.n_v + h];
    }
}

/* Four partial sums in four neighbouring lanes to one, in each of them. */
DEV_FN float four(float p)
{
    p = __fadd_rn(p, __shfl_xor_sync(CUDA_LANES, p, 2));
    return __fadd_rn(p, __shfl_xor_sync(CUDA_LANES, p, 1));
}

/* Row r of those staged through the warp's columns; what comes out of columns 2 c, 2 c + 1. FULL:
 * there are N rows of S in each partial sum. */
template <int N, bool FULL>
DEV_FN float2 through(float2 (&s)[N], const staged<N> &st, int r, int k_dim)
{
    int lane = threadIdx.x % 32, p = lane % 4;
    float2 m = {0.0f, 0.0f}, o = {0.0f, 0.0f};
    float decay = st.decay[r];
#pragma unroll
    for (int n = 0; n < N; n++)
        if (FULL || 4 * n + p < k_dim) {
            m.x = __fmaf_rn(st.k[r][p][n], s[n].x, m.x);
            m.y = __fmaf_rn(st.k[r][p][n], s[n].y, m.y);
        }
    const float *v = st.v[r] + threadIdx.x / 32 * CP_DELTA_COLUMNS + lane / 4 * 2;
    float dx = __fmul_rn(st.beta[r], __fmaf_rn(-decay, four(m.x), v[0]));
    float dy = __fmul_rn(st.beta[r], __fmaf_rn(-decay, four(m.y), v[1]));
    __syncwarp(); /* k is read again, not kept in N registers */
#pragma unroll
    for (int n = 0; n < N; n++)
        if (FULL || 4 * n + p < k_dim) {
            s[n].x = __fmaf_rn(st.k[r][p][n], dx, __fmul_rn(decay, s[n].x));
            s[n].y = __fmaf_rn(st.k[r][p][n], dy, __fmul_rn(decay, s[n].y));
            o.x = __fmaf_rn(st.q[r][p][n], s[n].x, o.x);
            o.y = __fmaf_rn(st.q[r][p][n], s[n].y, o.y);
        }
    return {four(o.x), four(o.y)};
}

/* Where the lane's part of a tile begins in a slot: rows of S follow at 4 * CP_DELTA_COLUMNS. */
DEV_FN float *tile_of(const cuda_deltanet_args &a, uint32_t slot, int h, int tile)
{
    int lane = threadIdx.x % 32;
    if (!slot || tile >= a.tiles)
        return nullptr;
    float *s = (float *)(a.states + slot * a.state_bytes);
    return s + ((size_t)(h * a.tiles + tile) * a.k_dim + lane % 4) * CP_DELTA_COLUMNS +
           lane / 4 * 2;
}

template <int N, bool FULL>
DEV_FN void leave(const cuda_deltanet_args &a, uint32_t slot, int h, int tile, const float2 (&s)[N])
{
    float *to = tile_of(a, slot, h, tile);
#pragma unroll
    for (int n = 0; n < N; n++)
        if (to && (FULL || 4 * n + (int)threadIdx.x % 4 < a.k_dim))
            *(float2 *)(to + 4 * n * CP_DELTA_COLUMNS) = s[n];
}

/* All rows of the sequence through the tiles [first, first + CUDA_DELTA_WARPS). */
template <int N, bool FULL>
DEV_FN void pass(staged<N> &st, const cuda_deltanet_args &a, const cuda_seq &q, int h, int first)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, tile = first + warp;
    int j = tile * CP_DELTA_COLUMNS + lane / 4 * 2 + lane % 4; /* of lanes that write: p < 2 */
    const float *from = tile_of(a, q.state_in, h, tile);
    float2 s[N];
#pragma unroll
    for (int n = 0; n < N; n++)
        s[n] = from && (FULL || 4 * n + lane % 4 < a.k_dim)
                   ? *(const float2 *)(from + 4 * n * CP_DELTA_COLUMNS)
                   : float2{0.0f, 0.0f};
    for (int r0 = 0; r0 < q.n_rows; r0 += CUDA_DELTA_ROWS) {
        int rows = min(CUDA_DELTA_ROWS, q.n_rows - r0);
        __syncthreads(); /* the rows before have been read */
        stage<N>(st, a, q.row0 + r0, rows, h, first * CP_DELTA_COLUMNS);
        __syncthreads();
        if (tile >= a.tiles)
            continue;
        for (int r = 0; r < rows; r++) {
            float2 o = through<N, FULL>(s, st, r, a.k_dim);
            if (lane % 4 < 2 && j < a.v_dim)
                a.out[(size_t)(q.row0 + r0 + r) * a.ld_out + h * a.v_dim + j] =
                    lane % 4 ? o.y : o.x;
        }
    }
    leave<N, FULL>(a, q.state_out, h, tile, s);
    leave<N, FULL>(a, q.state_save, h, tile, s);
}

/* A row of a head: rmsnorm(o) * silu(z). A warp. */
DEV_FN void finish(const cuda_deltanet_args &a, size_t row, int h)
{
    int lane = threadIdx.x % 32;
    float *o = a.out + row * a.ld_out + h * a.v_dim;
    const float *z = a.z + row * a.ld_z + h * a.v_dim;
    float low = 0.0f, high = 0.0f;
#pragma unroll 1
    for (int j = lane; j < a.v_dim; j += 64) {
        low = __fmaf_rn(o[j], o[j], low);
        high = j + 32 < a.v_dim ? __fmaf_rn(o[j + 32], o[j + 32], high) : high;
    }
    float mean = __fdiv_rn(cuda_tree(low, high), (float)a.v_dim);
    float r = cuda_rsqrt(__fadd_rn(mean, a.eps));
#pragma unroll 1
    for (int j = lane; j < a.v_dim; j += 32)
        o[j] = __fmul_rn(__fmul_rn(__fmul_rn(o[j], r), a.norm[j]), cp_siluf(z[j]));
}

template <int N, bool FULL> DEV_FN void deltanet(const cuda_deltanet_args &a)
{
    __shared__ staged<N> st;
    int h = blockIdx.x;
    if ((int)blockIdx.y >= a.step->n_seqs)
        return;
    const cuda_seq q = a.step->seqs[blockIdx.y];
    int tile = 0;
    do
        pass<N, FULL>(st, a, q, h, tile);
    while ((tile += CUDA_DELTA_WARPS) < a.tiles);
    __syncthreads(); /* all columns are in `out` */
    for (int i = threadIdx.x / 32; i < q.n_rows; i += CUDA_DELTA_WARPS)
        finish(a, q.row0 + i, h);
}

/* grid: v heads, sequences */
DEV_KERNEL(CUDA_DELTA_WARPS * 32) k_deltanet_128(const __grid_constant__ cuda_deltanet_args a)
{
    deltanet<CUDA_DELTA_USUAL / CP_DELTA_PARTIALS, true>(a);
}

DEV_KERNEL(CUDA_DELTA_WARPS * 32) k_deltanet(const __grid_constant__ cuda_deltanet_args a)
{
    deltanet<CP_DELTA_DIM_MAX / CP_DELTA_PARTIALS, false>(a);
}
