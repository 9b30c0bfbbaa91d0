/*
 * ATTENTION by the law, bit for bit (kernels/ref/attention.c), on CUDA cores: K and V of rows into
 * their pages, the attention of a unit of up to eight queries, and the merge of what splits left.
 *
 * A block of k_attend_exact takes a unit's splits one after another. Scores: a thread has four
 * keys, and their dots over ascending dims. Softmax: a warp has a query. Values: a thread has two
 * dims of four queries, and takes the keys of the split in order.
 */
#include "kernels/cuda/attention.cuh"

enum { WARPS = CUDA_ATTENTION_THREADS / 32, GROUP = 4, EXACT_BLOCKS = 5 };

/* ---- K and V ---- */

/* A warp a row and kv head. */
template <bool F16> DEV_FN void kv_append(const cuda_attention_args &a)
{
    int warp = threadIdx.x / 32, number = blockIdx.x * WARPS + warp;
    int row = number / a.n_kv, wide = max(a.k_dim, a.v_dim);
    DEV_DYNAMIC_SHARED(float, memory);
    if (row < a.step->n_rows)
        write_kv<F16>(a, memory + warp * wide, row, number % a.n_kv);
}

DEV_KERNEL(CUDA_ATTENTION_THREADS) k_kv_append_bf16(const __grid_constant__ cuda_attention_args a)
{
    kv_append<false>(a);
}

DEV_KERNEL(CUDA_ATTENTION_THREADS) k_kv_append_f16(const __grid_constant__ cuda_attention_args a)
{
    kv_append<true>(a);
}

/* ---- exact ---- */

/* Dynamic shared memory, of CUDA_EXACT_QUERIES queries. */
typedef struct exact_memory {
    float *q; /* [k_dim] a query */
    float *o; /* [v_dim] of the splits so far */
    float *p; /* [CUDA_SPLIT] scores, then exp(s - m) */
} exact_memory;

/* What there is of each query. */
typedef struct exact_queries {
    split_sum sum, split;
    split_weights join;
    key_range keys; /* of this split */
} exact_queries;

/* Scores of queries [i0, i0 + n) for the thread's keys [key, key + 4). */
template <bool F16>
DEV_FN void score_keys(const cuda_attention_args &a, const exact_memory &m, const uint8_t *k,
                       int key, int i0, int n)
{
    float s[GROUP][4] = {};
    k += (key & 12) * 4;
#pragma unroll 2
    for (int d = 0; d < a.k_dim; d += 2, k += 64) {
        uint4 w = *(const uint4 *)k;
        float lo[4] = {low_16<F16>(w.x), low_16<F16>(w.y), low_16<F16>(w.z), low_16<F16>(w.w)};
        float hi[4] = {high_16<F16>(w.x), high_16<F16>(w.y), high_16<F16>(w.z), high_16<F16>(w.w)};
#pragma unroll
        for (int h = 0; h < GROUP; h++)
            if (h < n) {
                float2 q = *(const float2 *)&m.q[(i0 + h) * a.k_dim + d];
#pragma unroll
                for (int j = 0; j < 4; j++)
                    s[h][j] = __fmaf_rn(q.y, hi[j], __fmaf_rn(q.x, lo[j], s[h][j]));
            }
    }
#pragma unroll
    for (int h = 0; h < GROUP; h++)
        if (h < n) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[h][j] = __fmul_rn(s[h][j], a.scale);
                if (a.softcap != 0.0f)
                    s[h][j] = __fmul_rn(a.softcap, cp_tanhf(__fdiv_rn(s[h][j], a.softcap)));
            }
            *(float4 *)&m.p[(i0 + h) * CUDA_SPLIT + key] =
                make_float4(s[h][0], s[h][1], s[h][2], s[h][3]);
        }
}

/* A warp: p = exp(s - m) of query i, 0 for keys that it does not see; its maximum and sum. */
DEV_FN void softmax(const exact_memory &m, int i, exact_queries *q)
{
    enum { EACH = CUDA_SPLIT / 32 };
    int lane = threadIdx.x & 31;
    key_range keys = q[i].keys;
    float *p = m.p + i * CUDA_SPLIT + lane, s[EACH], top = -INFINITY, sums[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        int key = 32 * n + lane;
        s[n] = key >= keys.lo && key < keys.hi ? p[32 * n] : -INFINITY;
        top = s[n] > top ? s[n] : top;
    }
#pragma unroll
    for (int h = 16; h; h /= 2) {
        float other = __shfl_xor_sync(CUDA_LANES, top, h);
        top = other > top ? other : top;
    }
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        int key = 32 * n + lane;
        float e = key >= keys.lo && key < keys.hi ? cp_expf(__fsub_rn(s[n], top)) : 0.0f;
        sums[n % 2] = __fadd_rn(sums[n % 2], e);
        p[32 * n] = e;
    }
    float l = cuda_tree(sums[0], sums[1]);
    if (lane == 0 && keys.lo < keys.hi) {
        q[i].split.m = top;
        q[i].split.l = l;
        q[i].join = join(&q[i].sum, top, l);
    }
}

/* o[n][2] of dims [d, d + 2) += p V over the keys of half-tile `half`; some of the n queries may
 * see some of them only. */
template <bool F16>
DEV_FN void value_keys(const cuda_attention_args &a, const float *p, const uint8_t *v, int half,
                       bool all, const exact_queries *q, int n, float (&o)[GROUP][2])
{
#pragma unroll 4
    for (int pair = 0; pair < 8; pair++) {
        int key = 16 * half + 2 * pair;
        uint2 w = *(const uint2 *)(v + (int64_t)pair * 4 * a.v_dim);
#pragma unroll
        for (int h = 0; h < GROUP; h++)
            if (h < n) {
                float2 e = *(const float2 *)&p[h * CUDA_SPLIT + key];
                if (all || (key >= q[h].keys.lo && key < q[h].keys.hi)) {
                    o[h][0] = __fmaf_rn(e.x, low_16<F16>(w.x), o[h][0]);
                    o[h][1] = __fmaf_rn(e.x, low_16<F16>(w.y), o[h][1]);
                }
                if (all || (key + 1 >= q[h].keys.lo && key + 1 < q[h].keys.hi)) {
                    o[h][0] = __fmaf_rn(e.y, high_16<F16>(w.x), o[h][0]);
                    o[h][1] = __fmaf_rn(e.y, high_16<F16>(w.y), o[h][1]);
                }
            }
    }
}

/* Dims [d, d + 2) of queries [i0, i0 + n): the split's o joins what was before, or is left as a
 * result. */
DEV_FN void join_values(const cuda_attention_args &a, const attention_unit &u,
                        const exact_memory &m, const exact_queries *q, int i0, int n, int d,
                        const float (&o)[GROUP][2])
{
#pragma unroll
    for (int h = 0; h < GROUP; h++) {
        int i = i0 + h;
        if (h >= n || q[i].keys.lo >= q[i].keys.hi)
            continue;
        if (u.item.merge >= 0) {
            float *r = result_at(a, u.item.result, unit_head(a, u, i));
            *(float2 *)&r[d] = make_float2(o[h][0], o[h][1]);
            if (d == 0)
                *(float2 *)&r[a.v_dim] = make_float2(q[i].split.m, q[i].split.l);
            continue;
        }
        float *sum = &m.o[i * a.v_dim + d];
        sum[0] = joined(sum[0], o[h][0], q[i].join);
        sum[1] = joined(sum[1], o[h][1], q[i].join);
    }
}

/* p V of the split, a thread two dims of four queries. */
template <bool F16>
DEV_FN void values(const cuda_attention_args &a, const attention_unit &u, const exact_memory &m,
                   const exact_queries *q, const key_places &places)
{
    int pairs = a.v_dim / 2, groups = (u.n_queries + GROUP - 1) / GROUP;
    for (int w = threadIdx.x; w < pairs * groups; w += CUDA_ATTENTION_THREADS) {
        int d = w % pairs * 2, i0 = w / pairs * GROUP, n = min(u.n_queries - i0, (int)GROUP);
        key_range some = q[i0].keys, all = q[i0].keys;
#pragma unroll 1
        for (int h = 1; h < n; h++) {
            all.lo = max(all.lo, q[i0 + h].keys.lo);
            all.hi = min(all.hi, q[i0 + h].keys.hi);
        }
        some.hi = q[i0 + n - 1].keys.hi;
        float o[GROUP][2] = {};
        for (int half = some.lo / 16; 16 * half < some.hi; half++)
            value_keys<F16>(a, m.p + i0 * CUDA_SPLIT, places.v[half] + 4 * d, half,
                            16 * half >= all.lo && 16 * half + 16 <= all.hi, q + i0, n, o);
        join_values(a, u, m, q, i0, n, d, o);
    }
}

/* Queries into shared memory, and nothing before the first split. */
template <bool F16>
DEV_FN void begin_unit(const cuda_attention_args &a, const cuda_plan &plan, const attention_unit &u,
                       const exact_memory &m, exact_queries *q)
{
    int warp = threadIdx.x / 32;
    for (int i = warp; i < u.n_queries; i += WARPS) {
        int row = unit_row(a, u, i);
        load_head(a, m.q + i * a.k_dim,
                  a.q + (int64_t)row * a.ld_q + (int64_t)unit_head(a, u, i) * a.q_width, a.q_norm,
                  row);
    }
    if (warp == WARPS - 1 && unit_writes(a, plan, u))
        write_kv<F16>(a, m.p, u.item.row0, u.kv);
#pragma unroll 1
    for (int i = threadIdx.x; i < u.n_queries * a.v_dim; i += CUDA_ATTENTION_THREADS)
        m.o[i] = 0.0f;
    if (threadIdx.x < u.n_queries) {
        q[threadIdx.x].sum.m = -INFINITY;
        q[threadIdx.x].sum.l = 0.0f;
    }
}

template <bool F16>
DEV_FN void do_split(const cuda_attention_args &a, const attention_unit &u, const exact_memory &m,
                     exact_queries *q, key_places *places, int split)
{
    key_range keys = unit_keys(a, u, split);
    __syncthreads(); /* queries are there, and the split before is done */
    if (threadIdx.x < 32)
        find_keys(a, u, split, keys, places);
    if (threadIdx.x < u.n_queries)
        q[threadIdx.x].keys = keys_of(a, unit_pos(a, u, threadIdx.x), split);
    __syncthreads();
    int key = 4 * threadIdx.x;
    if (key + 4 > keys.lo && key < keys.hi)
        for (int i = 0; i < u.n_queries; i += GROUP)
            score_keys<F16>(a, m, places->k[key / 16], key, i, min(u.n_queries - i, (int)GROUP));
    __syncthreads();
    for (int i = threadIdx.x / 32; i < u.n_queries; i += WARPS)
        softmax(m, i, q);
    __syncthreads();
    values<F16>(a, u, m, q, *places);
}

DEV_FN void end_unit(const cuda_attention_args &a, const attention_unit &u, const exact_memory &m,
                     const exact_queries *q)
{
    if (u.item.merge < 0) {
        __syncthreads(); /* other threads' o */
        for (int i = threadIdx.x / 32; i < u.n_queries; i += WARPS) {
            int row = unit_row(a, u, i), head = unit_head(a, u, i), lane = threadIdx.x & 31;
            head_end e = end_head(a, q[i].sum, row, head);
#pragma unroll 1
            for (int d = lane; d - lane < a.v_dim; d += 32)
                put_end(a, e, row, head, d < a.v_dim ? m.o[i * a.v_dim + d] : 0.0f, d);
        }
    }
    __syncthreads();
}

template <bool F16> DEV_FN void attend_exact(const cuda_attention_args &a)
{
    __shared__ exact_queries q[CUDA_EXACT_QUERIES];
    __shared__ key_places places;
    exact_memory m;
    DEV_DYNAMIC_SHARED(float, memory);
    m.p = memory;
    m.q = m.p + CUDA_EXACT_QUERIES * CUDA_SPLIT;
    m.o = m.q + CUDA_EXACT_QUERIES * a.k_dim;
    cuda_plan plan = a.step->plans[a.plan];
    int units = plan.n_items * a.n_kv * a.tiles;
    for (int number = blockIdx.x; number < units; number += gridDim.x) {
        attention_unit u = unit_at(a, plan, number, CUDA_EXACT_QUERIES);
        begin_unit<F16>(a, plan, u, m, q);
        for (int split = u.item.split0; split < u.item.split1; split++)
            do_split<F16>(a, u, m, q, &places, split);
        end_unit(a, u, m, q);
    }
}

DEV_KERNEL_RESIDENT(CUDA_ATTENTION_THREADS, EXACT_BLOCKS)
k_attend_exact_bf16(const __grid_constant__ cuda_attention_args a)
{
    attend_exact<false>(a);
}

DEV_KERNEL_RESIDENT(CUDA_ATTENTION_THREADS, EXACT_BLOCKS)
k_attend_exact_f16(const __grid_constant__ cuda_attention_args a)
{
    attend_exact<true>(a);
}

/* ---- merge ---- */

/* A warp a row and head: its splits' results, ascending. */
DEV_KERNEL(CUDA_ATTENTION_THREADS) k_merge(const __grid_constant__ cuda_attention_args a)
{
    cuda_plan plan = a.step->plans[a.plan];
    int units = plan.n_merges * a.n_heads;
    for (int n = blockIdx.x * WARPS + threadIdx.x / 32; n < units; n += gridDim.x * WARPS) {
        cuda_item it = plan.items[plan.n_items + n / a.n_heads];
        int head = n % a.n_heads, lane = threadIdx.x & 31;
        for (int d = lane; d - lane < a.v_dim; d += 64) {
            split_sum sum = {-INFINITY, 0.0f};
            float o[2] = {0.0f, 0.0f};
#pragma unroll 1
            for (int i = 0; i < it.n_results; i++) {
                const float *r = result_at(a, it.result0 + i, head);
                float2 ml = *(const float2 *)&r[a.v_dim];
                split_weights w = join(&sum, ml.x, ml.y);
                o[0] = joined(o[0], d < a.v_dim ? r[d] : 0.0f, w);
                o[1] = joined(o[1], d + 32 < a.v_dim ? r[d + 32] : 0.0f, w);
            }
            head_end e = end_head(a, sum, it.row0, head);
            put_end(a, e, it.row0, head, o[0], d);
            if (d - lane + 32 < a.v_dim)
                put_end(a, e, it.row0, head, o[1], d + 32);
        }
    }
}
