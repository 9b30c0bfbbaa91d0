/*
 * ATTENTION by mma on 16-bit K and V, as they lie in pages: 128-bit loads of both are fragments
 * already, and the weights of the softmax go from the scores' fragments to those of the product
 * with V. One form at every row count: what a row's bits depend on is its own queries and keys.
 *
 * A block takes a tile of 16 queries of a kv head through a unit's splits of 512 keys, in tiles of
 * 32. Scores: a warp has every fourth tile, and keeps its scores in registers until the split's
 * maximum is known. Values: a warp has every fourth group of 32 dims, over all keys of the split.
 * Queries are two 16-bit numbers, upper and lower half, so that scores lose nothing by them.
 *
 * Lane l, of g = l / 4 and t = l % 4. K: the word of dims 2i, 2i + 1 at four neighbouring keys is
 * b0 or b1 of four products; column g of product j is key 16 (g / 4) + 4 (g % 4) + j, so that the
 * score c of a lane is of key 8t + 4 (c % 2) + j. V: the word of two neighbouring keys at dims
 * 4g + j; its row 2t, 2t + 1 of step s is keys 8t + 4s, 8t + 4s + 1, as those scores lie.
 */
#include "kernels/cuda/attention.cuh"

enum {
    WARPS = CUDA_ATTENTION_THREADS / 32,
    KEY_TILES = CUDA_SPLIT / CUDA_KEY_TILE,
    OWN_TILES = KEY_TILES / WARPS,
    QUERIES = CUDA_ATTEND_QUERIES,
    BLOCKS = 3 /* of a multiprocessor, by registers */
};

typedef struct attend_memory {
    uint4 *q;  /* [step of 16 dims][upper, lower][lane] queries */
    uint4 *p;  /* [tile][step of 16 keys][lane] exp(s - m) */
    float4 *o; /* [group of 32 dims][c][lane] of the splits so far; x, y, z, w: j */
    float (*top)[QUERIES], (*sum)[QUERIES]; /* [warp][query] of a split */
} attend_memory;

/* Of the two queries that a lane's scores belong to. */
typedef struct attend_rows {
    key_range keys[2];
    split_sum sum[2], split[2];
    split_weights join[2];
} attend_rows;

/* d += A B */
template <bool F16> DEV_FN void mma_16(float (&d)[4], const uint4 &a, uint32_t b0, uint32_t b1)
{
    const uint32_t w[4] = {a.x, a.y, a.z, a.w};
    if (F16)
        dev_mma_f16_k16(d, w, b0, b1);
    else
        dev_mma_bf16_k16(d, w, b0, b1);
}

/* ---- queries ---- */

/* A warp: query i into its fragments; x[k_dim] in shared memory, NULL: no query, zeroes. */
template <bool F16>
DEV_FN void put_query(const cuda_attention_args &a, const attend_memory &m, int i, const float *x,
                      float scale)
{
    uint32_t *q = (uint32_t *)m.q;
    int pairs = a.k_dim / 2, all = (a.k_dim + 15) / 16 * 8;
#pragma unroll 1
    for (int n = threadIdx.x & 31; n < all; n += 32) {
        float x0 = 0.0f, x1 = 0.0f;
        if (x && n < pairs) {
            x0 = __fmul_rn(x[2 * n], scale);
            x1 = __fmul_rn(x[2 * n + 1], scale);
        }
        uint32_t upper = pack_16<F16>(x0, x1);
        uint32_t lower =
            pack_16<F16>(__fsub_rn(x0, low_16<F16>(upper)), __fsub_rn(x1, high_16<F16>(upper)));
        int lane = i % 8 * 4 + n % 4, word = i / 8 + n / 4 % 2 * 2;
        q[(n / 8 * 64 + lane) * 4 + word] = upper;
        q[(n / 8 * 64 + 32 + lane) * 4 + word] = lower;
    }
}

template <bool F16>
DEV_FN void load_queries(const cuda_attention_args &a, const cuda_plan &plan,
                         const attention_unit &u, const attend_memory &m)
{
    int warp = threadIdx.x / 32;
    float *x = (float *)m.p + warp * max(a.k_dim, a.v_dim);
    float scale =
        a.softcap != 0.0f ? __fdiv_rn(a.scale, a.softcap) : __fmul_rn(a.scale, CP_EXP_LOG2E);
    for (int i = warp; i < QUERIES; i += WARPS) {
        bool there = i < u.n_queries;
        if (there) {
            int row = unit_row(a, u, i);
            __syncwarp(); /* the query before was read */
            load_head(a, x, a.q + (int64_t)row * a.ld_q + (int64_t)unit_head(a, u, i) * a.q_width,
                      a.q_norm, row);
            __syncwarp();
        }
        put_query<F16>(a, m, i, there ? x : 0, scale);
    }
    if (warp == WARPS - 1 && unit_writes(a, plan, u)) {
        __syncwarp();
        write_kv<F16>(a, x, u.item.row0, u.kv);
    }
}

/* ---- scores ---- */

/* s[j] += 16 dims of a tile of keys. */
template <bool F16> DEV_FN void score_step(const uint4 *q, uint4 b0, uint4 b1, float (&s)[4][4])
{
    uint4 upper = q[0], lower = q[32];
    mma_16<F16>(s[0], upper, b0.x, b1.x);
    mma_16<F16>(s[1], upper, b0.y, b1.y);
    mma_16<F16>(s[2], upper, b0.z, b1.z);
    mma_16<F16>(s[3], upper, b0.w, b1.w);
    mma_16<F16>(s[0], lower, b0.x, b1.x);
    mma_16<F16>(s[1], lower, b0.y, b1.y);
    mma_16<F16>(s[2], lower, b0.z, b1.z);
    mma_16<F16>(s[3], lower, b0.w, b1.w);
}

/* s[j] of a tile of keys; k: the lane's 16 keys of it. */
template <bool F16>
DEV_FN void score_tile(const uint4 *q, const uint8_t *k, int k_dim, float (&s)[4][4])
{
    int lane = threadIdx.x & 31, pair = lane & 3;
    k += (lane / 4 % 4) * 16 + pair * 64;
    q += lane;
#pragma unroll 2
    for (int i = 0; i < k_dim / 16; i++, k += 512, q += 64)
        score_step<F16>(q, *(const uint4 *)k, *(const uint4 *)(k + 256), s);
    if (k_dim % 16) { /* dims that are not there are zeroes on both sides */
        uint4 none = make_uint4(0, 0, 0, 0);
        uint4 b0 = 2 * pair < k_dim % 16 ? *(const uint4 *)k : none;
        uint4 b1 = 2 * pair + 8 < k_dim % 16 ? *(const uint4 *)(k + 256) : none;
        score_step<F16>(q, b0, b1, s);
    }
}

/* Scores of a tile in units of log 2. */
DEV_FN void cap_scores(float softcap, float (&s)[4][4])
{
    float unit = __fmul_rn(softcap, CP_EXP_LOG2E);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            s[j][c] = __fmul_rn(cp_tanhf(s[j][c]), unit);
}

/* -inf where a query does not see the key. */
DEV_FN void hide_scores(const attend_rows &r, int tile, float (&s)[4][4])
{
    int key0 = tile * CUDA_KEY_TILE + (threadIdx.x & 3) * 8;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            int key = key0 + 4 * (c % 2) + j;
            bool seen = key >= r.keys[c / 2].lo && key < r.keys[c / 2].hi;
            s[j][c] = seen ? s[j][c] : -INFINITY;
        }
}

/* The maxima of both queries over the whole split; the first of two barriers of it. */
DEV_FN void find_top(const attend_memory &m, const float (&s)[OWN_TILES][4][4], float (&top)[2])
{
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float x = -INFINITY;
#pragma unroll
        for (int i = 0; i < OWN_TILES; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                x = fmaxf(x, fmaxf(s[i][j][2 * r], s[i][j][2 * r + 1]));
        x = fmaxf(x, __shfl_xor_sync(CUDA_LANES, x, 1));
        x = fmaxf(x, __shfl_xor_sync(CUDA_LANES, x, 2));
        if (lane % 4 == 0)
            m.top[warp][lane / 4 + 8 * r] = x;
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int i = lane / 4 + 8 * r;
        top[r] = fmaxf(fmaxf(m.top[0][i], m.top[1][i]), fmaxf(m.top[2][i], m.top[3][i]));
    }
}

/* p of the warp's tiles [lo, hi) into shared memory, and the sums of both queries; the second. */
template <bool F16>
DEV_FN void put_weights(const attend_memory &m, int lo, int hi, float (&s)[OWN_TILES][4][4],
                        const float (&top)[2], float (&sum)[2])
{
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    sum[0] = sum[1] = 0.0f;
#pragma unroll
    for (int i = 0; i < OWN_TILES; i++) {
        int tile = warp + WARPS * i;
        if (tile < lo || tile >= hi)
            continue;
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float x = s[i][j][c];
                x = x == -INFINITY ? 0.0f : dev_ex2_approx(__fsub_rn(x, top[c / 2]));
                sum[c / 2] = __fadd_rn(sum[c / 2], x);
                s[i][j][c] = x;
            }
#pragma unroll
        for (int c = 0; c < 2; c++)
            m.p[(2 * tile + c) * 32 + lane] = make_uint4(
                pack_16<F16>(s[i][0][c], s[i][1][c]), pack_16<F16>(s[i][0][2 + c], s[i][1][2 + c]),
                pack_16<F16>(s[i][2][c], s[i][3][c]), pack_16<F16>(s[i][2][2 + c], s[i][3][2 + c]));
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sum[r] = __fadd_rn(sum[r], __shfl_xor_sync(CUDA_LANES, sum[r], 1));
        sum[r] = __fadd_rn(sum[r], __shfl_xor_sync(CUDA_LANES, sum[r], 2));
        if (lane % 4 == 0)
            m.sum[warp][lane / 4 + 8 * r] = sum[r];
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int i = lane / 4 + 8 * r;
        sum[r] =
            __fadd_rn(__fadd_rn(__fadd_rn(m.sum[0][i], m.sum[1][i]), m.sum[2][i]), m.sum[3][i]);
    }
}

/* Key tiles [lo, hi) of a split; [all_lo, all_hi) of them are seen whole by every query. */
typedef struct tile_range {
    int lo, hi, all_lo, all_hi;
} tile_range;

DEV_FN tile_range tiles_of(const cuda_attention_args &a, const attention_unit &u, key_range keys,
                           int split)
{
    tile_range t;
    t.lo = keys.lo / CUDA_KEY_TILE;
    t.hi = (keys.hi + CUDA_KEY_TILE - 1) / CUDA_KEY_TILE;
    int first = unit_pos(a, u, 0), last = unit_pos(a, u, u.n_queries - 1);
    t.all_lo = (keys_of(a, last, split).lo + CUDA_KEY_TILE - 1) / CUDA_KEY_TILE;
    t.all_hi = max(keys_of(a, first, split).hi, 0) / CUDA_KEY_TILE;
    return t;
}

/* The softmax of a split: p in shared memory, and what it does to the queries. */
template <bool F16>
DEV_FN void do_scores(const cuda_attention_args &a, const attend_memory &m,
                      const key_places &places, tile_range t, attend_rows *r)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    float s[OWN_TILES][4][4] = {}, top[2], sum[2];
#pragma unroll
    for (int i = 0; i < OWN_TILES; i++) {
        int tile = warp + WARPS * i;
        if (tile >= t.lo && tile < t.hi) {
            score_tile<F16>(m.q, places.k[2 * tile + lane / 16], a.k_dim, s[i]);
            if (a.softcap != 0.0f)
                cap_scores(a.softcap, s[i]);
        }
        if (tile < t.all_lo || tile >= t.all_hi)
            hide_scores(*r, tile, s[i]);
    }
    find_top(m, s, top);
    put_weights<F16>(m, t.lo, t.hi, s, top, sum);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r->split[i].m = __fmul_rn(top[i], a.unit);
        r->split[i].l = sum[i];
        r->join[i].before = 1.0f;
        r->join[i].split = 0.0f;
        if (r->keys[i].lo < r->keys[i].hi)
            r->join[i] = join(&r->sum[i], r->split[i].m, sum[i]);
    }
}

/* ---- values ---- */

/* Zeroes in the place of keys that nobody of the unit sees: what lies there is not looked at. */
DEV_FN uint4 hide_values(uint4 w, int key, key_range keys)
{
    uint32_t m = (key >= keys.lo && key < keys.hi ? 0xffffu : 0u) |
                 (key + 1 >= keys.lo && key + 1 < keys.hi ? 0xffff0000u : 0u);
    return make_uint4(w.x & m, w.y & m, w.z & m, w.w & m);
}

/* o += p V of a tile of keys; EDGE: nobody sees some of them. v: the lane's four keys, first dim.
 */
template <bool F16, bool EDGE>
DEV_FN void value_tile(const uint4 *p, const uint8_t *v, int64_t row, int tile, key_range keys,
                       float (&o)[4][4])
{
    int key = tile * CUDA_KEY_TILE + 8 * (threadIdx.x & 3);
#pragma unroll
    for (int s = 0; s < 2; s++, key += 4) {
        uint4 b0 = *(const uint4 *)(v + 2 * s * row);
        uint4 b1 = *(const uint4 *)(v + (2 * s + 1) * row);
        if (EDGE) {
            b0 = hide_values(b0, key, keys);
            b1 = hide_values(b1, key + 2, keys);
        }
        uint4 w = p[(2 * tile + s) * 32];
        mma_16<F16>(o[0], w, b0.x, b1.x);
        mma_16<F16>(o[1], w, b0.y, b1.y);
        mma_16<F16>(o[2], w, b0.z, b1.z);
        mma_16<F16>(o[3], w, b0.w, b1.w);
    }
}

/* o of dims [d, d + 4) of the lane's column: p V over the keys of the split. */
template <bool F16>
DEV_FN void value_tiles(const uint4 *p, const key_places &places, key_range keys, int d, int v_dim,
                        float (&o)[4][4])
{
    int t = threadIdx.x & 3, tile = keys.lo / CUDA_KEY_TILE;
    int64_t row = (int64_t)v_dim * 4, at = (int64_t)(t % 2 * 4) * row + 4 * d;
    const uint8_t *const *v = places.v + t / 2;
    p += threadIdx.x & 31;
    if (keys.lo % CUDA_KEY_TILE) {
        value_tile<F16, true>(p, v[2 * tile] + at, row, tile, keys, o);
        tile++;
    }
#pragma unroll 2
    for (; (tile + 1) * CUDA_KEY_TILE <= keys.hi; tile++)
        value_tile<F16, false>(p, v[2 * tile] + at, row, tile, keys, o);
    if (tile * CUDA_KEY_TILE < keys.hi)
        value_tile<F16, true>(p, v[2 * tile] + at, row, tile, keys, o);
}

/* Score c of a group of dims: dims [d, d + 4) of one of the lane's two queries. */
DEV_FN void put_result(const cuda_attention_args &a, const attention_unit &u, const attend_rows &r,
                       int i, int c, int d, float4 o)
{
    float *to = result_at(a, u.item.result, unit_head(a, u, i));
    *(float4 *)&to[d] = o;
    if (d == 0)
        *(float2 *)&to[a.v_dim] = make_float2(r.split[c / 2].m, r.split[c / 2].l);
}

/* The lane's scores of a group of dims end, eight dims from d on of each of its queries; with those
 * of its three neighbours they are 32 of a row. */
DEV_FN void put_outputs(const cuda_attention_args &a, const attention_unit &u, const attend_rows &r,
                        int d, const float4 (&o)[4])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int query = (threadIdx.x & 31) / 4 + 8 * i, row = 0, head = 0;
        bool there = query < u.n_queries && d < a.v_dim;
        float y[8] = {};
        if (there) {
            row = unit_row(a, u, query);
            head = unit_head(a, u, query);
            head_end e = end_head(a, r.sum[i], row, head);
#pragma unroll
            for (int c = 0; c < 2 && d + 4 * c < a.v_dim; c++) {
                float4 v = o[2 * i + c];
                y[4 * c] = end_value(e, v.x, d + 4 * c);
                y[4 * c + 1] = end_value(e, v.y, d + 4 * c + 1);
                y[4 * c + 2] = end_value(e, v.z, d + 4 * c + 2);
                y[4 * c + 3] = end_value(e, v.w, d + 4 * c + 3);
                if (!a.handed.at)
                    *(float4 *)&e.out[d + 4 * c] =
                        make_float4(y[4 * c], y[4 * c + 1], y[4 * c + 2], y[4 * c + 3]);
            }
        }
        if (a.handed.at)
            cuda_hand_on8(a.handed, there, row, end_block(a, head, d), y);
    }
}

/* The split's o joins what was before; the last one's is kept. */
DEV_FN void join_outputs(const attention_unit &u, const attend_memory &m, int n, int split,
                         const attend_rows &r, float4 (&o)[4])
{
#pragma unroll
    for (int c = 0; c < 4; c++) {
        float4 *sum = &m.o[(n * 4 + c) * 32 + (threadIdx.x & 31)];
        float4 was = split == u.item.split0 ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : *sum;
        split_weights w = r.join[c / 2];
        o[c] = make_float4(joined(was.x, o[c].x, w), joined(was.y, o[c].y, w),
                           joined(was.z, o[c].z, w), joined(was.w, o[c].w, w));
        if (split < u.item.split1 - 1)
            *sum = o[c];
    }
}

/* p V of the split, and where it belongs. */
template <bool F16>
DEV_FN void do_values(const cuda_attention_args &a, const attention_unit &u, const attend_memory &m,
                      const key_places &places, key_range keys, int split, const attend_rows &r)
{
    int lane = threadIdx.x & 31, g = lane / 4, t = lane & 3;
    for (int n = threadIdx.x / 32; 32 * n < a.v_dim; n += WARPS) {
        float o[4][4] = {};
        int column = 32 * n + 4 * g; /* one that is not there is not written either */
        value_tiles<F16>(m.p, places, keys, column < a.v_dim ? column : 0, a.v_dim, o);
        float4 now[4];
#pragma unroll
        for (int c = 0; c < 4; c++) {
            int i = g + c / 2 * 8, d = 32 * n + 8 * t + c % 2 * 4;
            now[c] = make_float4(o[0][c], o[1][c], o[2][c], o[3][c]);
            if (u.item.merge >= 0 && i < u.n_queries && d < a.v_dim)
                put_result(a, u, r, i, c, d, now[c]);
        }
        if (u.item.merge >= 0)
            continue;
        join_outputs(u, m, n, split, r, now);
        if (split == u.item.split1 - 1)
            put_outputs(a, u, r, 32 * n + 8 * t, now);
    }
}

/* ---- blocks ---- */

template <bool F16>
DEV_FN void do_unit(const cuda_attention_args &a, const cuda_plan &plan, const attention_unit &u,
                    const attend_memory &m, key_places *places)
{
    attend_rows r;
    int g = (threadIdx.x & 31) / 4;
    load_queries<F16>(a, plan, u, m);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r.sum[i].m = -INFINITY;
        r.sum[i].l = 0.0f;
    }
    for (int split = u.item.split0; split < u.item.split1; split++) {
        key_range keys = unit_keys(a, u, split);
        __syncthreads(); /* queries are there, and the split before is done */
        if (threadIdx.x < 32)
            find_keys(a, u, split, keys, places);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            r.keys[i] = keys_of(a, unit_pos(a, u, g + 8 * i), split);
            if (g + 8 * i >= u.n_queries)
                r.keys[i].hi = r.keys[i].lo; /* sees nothing */
        }
        __syncthreads();
        do_scores<F16>(a, m, *places, tiles_of(a, u, keys, split), &r);
        do_values<F16>(a, u, m, *places, keys, split, r);
    }
    __syncthreads();
}

template <bool F16> DEV_FN void attend(const cuda_attention_args &a)
{
    __shared__ key_places places;
    __shared__ float top[WARPS][QUERIES], sum[WARPS][QUERIES];
    attend_memory m;
    DEV_DYNAMIC_SHARED(uint4, memory);
    m.p = memory;
    m.q = m.p + KEY_TILES * 2 * 32;
    m.o = (float4 *)(m.q + (a.k_dim + 15) / 16 * 64);
    m.top = top;
    m.sum = sum;
    cuda_plan plan = a.step->plans[a.plan];
    int units = plan.n_items * a.n_kv * a.tiles;
    for (int number = blockIdx.x; number < units; number += gridDim.x) {
        attention_unit u = unit_at(a, plan, number, QUERIES);
        do_unit<F16>(a, plan, u, m, &places);
    }
}

DEV_KERNEL_RESIDENT(CUDA_ATTENTION_THREADS, BLOCKS)
k_attend_bf16(const __grid_constant__ cuda_attention_args a)
{
    attend<false>(a);
}

DEV_KERNEL_RESIDENT(CUDA_ATTENTION_THREADS, BLOCKS)
k_attend_f16(const __grid_constant__ cuda_attention_args a)
{
    attend<true>(a);
}
