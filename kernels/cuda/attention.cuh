/*
 * attention: what the kernels of ATTENTION have in common: units of work, heads after norm and
 * rope, K and V in pages, the merge of splits and the end of a row. Internal to kernels/cuda.
 *
 * Everything here has the bits of kernels/ref/attention.c, in the fast form too: that one differs
 * in what is between a head and its split result alone.
 */
#ifndef CP_KERNELS_CUDA_ATTENTION_CUH
#define CP_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/attention.h"
#include "kernels/math.h"

/* ---- 16-bit numbers: bf16 or f16 ---- */

/* Two in a word, each rounded to nearest even; and the two of a word. */
template <bool F16> DEV_FN uint32_t pack_16(float low, float high)
{
    return F16 ? dev_f16x2(low, high) : dev_bf16x2(low, high);
}

template <bool F16> DEV_FN float low_16(uint32_t w)
{
    return F16 ? dev_f16_low(w) : __uint_as_float(w << 16);
}

template <bool F16> DEV_FN float high_16(uint32_t w)
{
    return F16 ? dev_f16_high(w) : __uint_as_float(w & 0xffff0000u);
}

/* ---- heads ---- */

/* One warp: x[n] = rmsnorm(x) * w; w NULL: no weight. A lane touches elements lane, lane + 32, ...
 */
DEV_FN void head_norm(float *x, const float *w, int n, float eps)
{
    int lane = threadIdx.x & 31;
    float p[2] = {0.0f, 0.0f};
#pragma unroll 1
    for (int i = lane; i < n; i += 64) {
        p[0] = __fmaf_rn(x[i], x[i], p[0]);
        if (i + 32 < n)
            p[1] = __fmaf_rn(x[i + 32], x[i + 32], p[1]);
    }
    float r = cuda_rsqrt(__fadd_rn(__fdiv_rn(cuda_tree(p[0], p[1]), (float)n), eps));
#pragma unroll 1
    for (int i = lane; i < n; i += 32) {
        float y = __fmul_rn(x[i], r);
        x[i] = w ? __fmul_rn(y, w[i]) : y;
    }
}

/* One warp: rotate pairs of x by the row cs, cos | sin. */
DEV_FN void head_rope(float *x, const float *cs, int n_rot, int kind)
{
    int half = n_rot / 2;
#pragma unroll 1
    for (int i = threadIdx.x & 31; i < half; i += 32) {
        float *a = kind == CUDA_ROPE_NEOX ? &x[i] : &x[2 * i];
        float *b = kind == CUDA_ROPE_NEOX ? &x[half + i] : &x[2 * i + 1];
        float x0 = *a, x1 = *b, c = cs[i], s = cs[half + i];
        *a = __fsub_rn(__fmul_rn(x0, c), __fmul_rn(x1, s));
        *b = __fadd_rn(__fmul_rn(x0, s), __fmul_rn(x1, c));
    }
}

/* One warp: x[k_dim] in shared memory = a head of Q or K of a row, after norm and rope. Whoever has
 * read x before is done, and lanes see each other's elements after a barrier: both are the
 * caller's. */
DEV_FN void load_head(const cuda_attention_args &a, float *x, const float *from, const float *norm,
                      int row)
{
#pragma unroll 2
    for (int i = threadIdx.x & 31; i < a.k_dim; i += 32)
        x[i] = from[i];
    if (norm)
        head_norm(x, norm, a.k_dim, a.eps);
    __syncwarp();
    if (a.rope_kind != CUDA_ROPE_NONE)
        head_rope(x, a.rope + (int64_t)row * a.ld_rope, a.n_rot, a.rope_kind);
}

/* kv head h of the page that holds position pos of a sequence. */
DEV_FN uint8_t *head_page(const cuda_attention_args &a, int seq, int h, int pos)
{
    const cuda_step *s = a.step;
    cuda_table t = s->tables[a.group * s->n_seqs + seq];
    uint64_t page = s->entries[t.at + (pos >> a.page_shift) - t.page0];
    return a.pages + page * a.page_bytes + (uint64_t)h * a.head_bytes;
}

/* One warp: K and V of a row, kv head h into its page; x[max(k_dim, v_dim)] in shared memory, which
 * nobody reads any more. */
template <bool F16> DEV_FN void write_kv(const cuda_attention_args &a, float *x, int row, int h)
{
    int lane = threadIdx.x & 31, pos = a.step->pos[row], in = pos & ((1 << a.page_shift) - 1);
    uint8_t *page = head_page(a, a.step->row_seq[row], h, pos);
    load_head(a, x, a.k + (int64_t)row * a.ld_k + (int64_t)h * a.k_dim, a.k_norm, row);
    __syncwarp();
    uint32_t *k = (uint32_t *)(page + (int64_t)(in / 16) * 32 * a.k_dim) + in % 16;
#pragma unroll 1
    for (int i = lane; i < a.k_dim / 2; i += 32)
        k[16 * i] = pack_16<F16>(x[2 * i], x[2 * i + 1]);
    __syncwarp();
    const float *from = a.v + (int64_t)row * a.ld_v + (int64_t)h * a.v_dim;
#pragma unroll 2
    for (int i = lane; i < a.v_dim; i += 32)
        x[i] = from[i];
    if (a.v_norm)
        head_norm(x, 0, a.v_dim, a.eps);
    uint16_t *v = (uint16_t *)(page + ((int64_t)a.k_dim << (a.page_shift + 1)) +
                               (int64_t)(in / 2) * 4 * a.v_dim) +
                  in % 2;
#pragma unroll 1
    for (int i = lane; i < a.v_dim; i += 32)
        v[2 * i] = (uint16_t)pack_16<F16>(x[i], 0.0f);
}

/* ---- units ---- */

/* What a block works on. */
typedef struct attention_unit {
    cuda_item item;
    int kv, query0, n_queries; /* queries [query0, query0 + n_queries) of the item, of kv head kv */
    int pos0;                  /* of the item's first row */
    int seq;
} attention_unit;

DEV_FN int first_visible(int window, int pos)
{
    return window && pos >= window ? pos - window + 1 : 0;
}

DEV_FN attention_unit unit_at(const cuda_attention_args &a, const cuda_plan &plan, int number,
                              int queries)
{
    attention_unit u;
    int per_item = a.n_kv * a.tiles, rest = number % per_item;
    u.item = plan.items[number / per_item];
    u.kv = rest / a.tiles;
    u.query0 = rest % a.tiles * queries;
    u.n_queries = min(u.item.n_rows * a.q_heads - u.query0, queries);
    int row = a.rows_out ? a.step->out_rows[u.item.row0] : u.item.row0;
    u.pos0 = a.step->pos[row];
    u.seq = u.item.seq;
    return u;
}

/* Position of query i of the unit, its row (of q and out) and its head. */
DEV_FN int unit_pos(const cuda_attention_args &a, const attention_unit &u, int i)
{
    return u.pos0 + (u.query0 + i) / a.q_heads;
}

DEV_FN int unit_row(const cuda_attention_args &a, const attention_unit &u, int i)
{
    return u.item.row0 + (u.query0 + i) / a.q_heads;
}

DEV_FN int unit_head(const cuda_attention_args &a, const attention_unit &u, int i)
{
    return u.kv * a.q_heads + (u.query0 + i) % a.q_heads;
}

/* Does the unit write the row's K and V itself? Its last split is here, and nobody else reads it.
 */
DEV_FN bool unit_writes(const cuda_attention_args &a, const cuda_plan &plan,
                        const attention_unit &u)
{
    return plan.fused && a.k &&
           (u.item.merge < 0 || u.item.result == u.item.result0 + u.item.n_results - 1);
}

/* Keys [lo, hi) of a split, from its first on, that queries [query0, query0 + n) of the unit see:
 * each of them some. */
typedef struct key_range {
    int lo, hi;
} key_range;

DEV_FN key_range keys_of(const cuda_attention_args &a, int pos, int split)
{
    key_range k;
    int base = split * CUDA_SPLIT;
    k.lo = max(first_visible(a.window, pos) - base, 0);
    k.hi = min(pos + 1 - base, (int)CUDA_SPLIT);
    return k;
}

/* Of all queries of the unit. */
DEV_FN key_range unit_keys(const cuda_attention_args &a, const attention_unit &u, int split)
{
    key_range k = keys_of(a, unit_pos(a, u, 0), split);
    k.hi = keys_of(a, unit_pos(a, u, u.n_queries - 1), split).hi;
    return k;
}

/* Where 16 keys of a split lie: K [k_dim / 2][16][2], V [8][v_dim][2]. */
typedef struct key_places {
    const uint8_t *k[CUDA_SPLIT / 16], *v[CUDA_SPLIT / 16];
} key_places;

/* One warp: the places of a split's keys. Those that nobody sees have a place that can be read. */
DEV_FN void find_keys(const cuda_attention_args &a, const attention_unit &u, int split,
                      key_range keys, key_places *places)
{
    int lane = threadIdx.x & 31, i = min(max(lane, keys.lo / 16), (keys.hi - 1) / 16);
    int pos = split * CUDA_SPLIT + 16 * i, in = pos & ((1 << a.page_shift) - 1);
    const uint8_t *page = head_page(a, u.seq, u.kv, pos);
    places->k[lane] = page + (int64_t)in * 2 * a.k_dim;
    places->v[lane] = page + ((int64_t)a.k_dim << (a.page_shift + 1)) + (int64_t)in * 2 * a.v_dim;
}

/* ---- splits ---- */

/* The softmax of the splits so far, in units of e. */
typedef struct split_sum {
    float m, l;
} split_sum;

/* What o of before and of the split are multiplied with where they join. */
typedef struct split_weights {
    float before, split;
} split_weights;

DEV_FN split_weights join(split_sum *sum, float m, float l)
{
    float top = sum->m > m ? sum->m : m;
    split_weights w;
    w.before = cp_expf(__fsub_rn(sum->m, top));
    w.split = cp_expf(__fsub_rn(m, top));
    sum->l = __fadd_rn(__fmul_rn(sum->l, w.before), __fmul_rn(l, w.split));
    sum->m = top;
    return w;
}

DEV_FN float joined(float o, float split, split_weights w)
{
    return __fadd_rn(__fmul_rn(o, w.before), __fmul_rn(split, w.split));
}

/* Row and head of a result or of an output. */
DEV_FN float *result_at(const cuda_attention_args &a, int result, int head)
{
    return a.results + ((int64_t)result * a.n_heads + head) * (a.v_dim + CUDA_RESULT_PAD);
}

/* What the end of a head divides by, after its sink. */
typedef struct head_end {
    float scale, l;
    float *out;
    const float *gate; /* NULL: none */
} head_end;

DEV_FN head_end end_head(const cuda_attention_args &a, split_sum sum, int row, int head)
{
    head_end e;
    e.scale = 1.0f;
    e.l = sum.l;
    if (a.sinks) {
        float sink = a.sinks[head], top = sum.m > sink ? sum.m : sink;
        e.scale = cp_expf(__fsub_rn(sum.m, top));
        e.l = __fadd_rn(__fmul_rn(sum.l, e.scale), cp_expf(__fsub_rn(sink, top)));
    }
    e.out = a.out + (int64_t)row * a.ld_out + (int64_t)head * a.v_dim;
    e.gate = a.gated ? a.q + (int64_t)row * a.ld_q + (int64_t)head * a.q_width + a.k_dim : 0;
    return e;
}

/* Element d of the output; the addition leaves no negative zero. */
DEV_FN float end_value(const head_end &e, float o, int d)
{
    float y = __fadd_rn(__fdiv_rn(__fmul_rn(o, e.scale), e.l), 0.0f);
    return e.gate ? __fmul_rn(y, cp_sigmoidf(e.gate[d])) : y;
}

/* Its place among the 32 of the row's output that are handed on together. */
DEV_FN int end_block(const cuda_attention_args &a, int head, int d)
{
    return (head * a.v_dim + d) / CUDA_BLOCK;
}

/* A warp, whose lane has element d: 32 neighbours, of which those below v_dim are there. */
DEV_FN void put_end(const cuda_attention_args &a, const head_end &e, int row, int head, float o,
                    int d)
{
    float y = d < a.v_dim ? end_value(e, o, d) : 0.0f;
    if (a.handed.at) /* v_dim is a multiple of 32 */
        cuda_hand_on(a.handed, row, end_block(a, head, d), y);
    else if (d < a.v_dim)
        e.out[d] = y;
}

#endif
