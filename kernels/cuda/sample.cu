/*
 * SAMPLE in three launches; its law stands at the top of kernels/ref/sample.c.
 *
 * k_sample_history brings the histories of slots up to date. k_sample_scan has a chunk of a row's
 * logits a block: of the raw logits NaN, maxima and the chunk's log-sum-exp, then penalties,
 * biases, bans and mask into a copy, and the maxima of blocks of 64 as they are then.
 * k_sample_pick has a row a block. It never sorts: a bound is found digit by digit in a histogram
 * of order numbers, and blocks whose maximum lies below the bound are not read again. Weights are
 * integers, so their sums are exact, and neither the order of threads nor the way of selecting
 * shows in the result.
 */
#include "kernels/cuda/sampling.h"

#include "kernels/cuda/lanes.cuh"
#include "kernels/program.h"

#include <limits.h>

/* ---- histories ---- */

DEV_FN void see(uint32_t *count, int32_t change)
{
    if (change == 0)
        atomicOr(count, CUDA_SEEN_IN_PROMPT);
    else
        atomicAdd(count, (uint32_t)change);
}

DEV_FN const cuda_samples *samples_of(const cuda_sample_args &a)
{
    return (const cuda_samples *)a.step->samples;
}

/* grid: slots whose histories change */
DEV_KERNEL(CUDA_HISTORY_THREADS) k_sample_history(const __grid_constant__ cuda_sample_args a)
{
    const cuda_samples *all = samples_of(a);
    if ((int)blockIdx.x >= all->n_histories)
        return;
    const cuda_history h = all->histories[blockIdx.x];
    uint32_t *counts = a.counts + (size_t)h.slot * a.ld_counts;
    if (h.clear)
        for (int i = 4 * threadIdx.x; i < a.ld_counts; i += 4 * CUDA_HISTORY_THREADS)
            *(uint4 *)(counts + i) = uint4{0, 0, 0, 0};
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < h.n; i += CUDA_HISTORY_THREADS)
        see(&counts[h.seen[i].id], h.seen[i].change);
}

/* ---- scan ---- */

enum {
    CHUNK = CP_SAMPLE_CHUNK,
    BLOCK = CUDA_SAMPLE_BLOCK,
    FOURS = CHUNK / (4 * CUDA_SCAN_THREADS), /* float4 a thread */
    SCAN_WARPS = CUDA_SCAN_THREADS / 32
};

typedef struct chunk_room {
    float x[CHUNK];
    uint32_t count[CHUNK];
    float max[SCAN_WARPS];
} chunk_room;

/* Where four number f of the thread lies in a chunk. */
DEV_FN int four_at(int f)
{
    return 4 * (f * CUDA_SCAN_THREADS + threadIdx.x);
}

/* Four of x[len] from i on, -inf behind its end; fours lie in it, or in what a row ends with. */
DEV_FN float4 load4(const float *x, int i, int len)
{
    if (i >= len)
        return {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    float4 v = *(const float4 *)(x + i);
    return {v.x, i + 1 < len ? v.y : -INFINITY, i + 2 < len ? v.z : -INFINITY,
            i + 3 < len ? v.w : -INFINITY};
}

DEV_FN float max4(float4 v)
{
    return fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
}

/* The maximum of 64 logits, which 16 lanes have in fours, to where it belongs. */
DEV_FN void put_block_max(float *to, float m, int i, int len)
{
    for (int h = 8; h; h /= 2)
        m = fmaxf(m, __shfl_xor_sync(CUDA_LANES, m, h));
    if (i % BLOCK == 0 && i < len)
        to[i / BLOCK] = m;
}

/* The maximum of all threads' x, for all of them. Nobody reads the room of an earlier call. */
DEV_FN float max_of_block(float x, float *room, int warps)
{
    for (int h = 16; h; h /= 2)
        x = fmaxf(x, __shfl_xor_sync(CUDA_LANES, x, h));
    if (threadIdx.x % 32 == 0)
        room[threadIdx.x / 32] = x;
    __syncthreads();
    x = room[0];
    for (int i = 1; i < warps; i++)
        x = fmaxf(x, room[i]);
    return x;
}

/* The lane tree of exp(x - m) over the chunk, whose logits are v: -inf, so 0, behind its end. NaN
 * where all are -inf. */
DEV_FN void exp_sum(const float4 (&v)[FOURS], float m, chunk_room *room, float *to)
{
#pragma unroll
    for (int f = 0; f < FOURS; f++)
        *(float4 *)(room->x +
                    four_at(f)) = {cp_expf(__fadd_rn(v[f].x, -m)), cp_expf(__fadd_rn(v[f].y, -m)),
                                   cp_expf(__fadd_rn(v[f].z, -m)), cp_expf(__fadd_rn(v[f].w, -m))};
    __syncthreads();
    if (threadIdx.x < 32) {
        float low = 0.0f, high = 0.0f;
        const float *x = room->x + threadIdx.x;
#pragma unroll 4
        for (int i = 0; i < CHUNK; i += CP_PARTIALS) {
            low = __fadd_rn(low, x[i]);
            high = __fadd_rn(high, x[i + 32]);
        }
        float sum = cuda_tree(low, high);
        if (threadIdx.x == 0)
            *to = sum;
    }
    __syncthreads();
}

DEV_FN float penalized(const cuda_sample &s, float x, uint32_t count)
{
    uint32_t n = count & ~CUDA_SEEN_IN_PROMPT;
    if (count && s.repetition != 1.0f)
        x = x > 0.0f ? __fdiv_rn(x, s.repetition) : __fmul_rn(x, s.repetition);
    if (n) {
        x = __fadd_rn(x, -__fmul_rn(s.frequency, (float)n));
        x = __fadd_rn(x, -s.presence);
    }
    return x;
}

/* Penalties of the chunk's logits at `at`, which lie in room->x. */
DEV_FN void penalize(const cuda_sample_args &a, const cuda_sample &s, int at, int len,
                     chunk_room *room)
{
    const uint32_t *counts = a.counts + (size_t)s.slot * a.ld_counts + at;
    for (int i = threadIdx.x; i < len; i += CUDA_SCAN_THREADS)
        room->count[i] = s.of_slot ? counts[i] : 0;
    __syncthreads();
    for (int i = threadIdx.x; i < s.n_seen; i += CUDA_SCAN_THREADS) {
        int id = s.seen[i].id == CP_TOK_PREV ? a.last[s.slot] : s.seen[i].id;
        if (id >= at && id < at + len)
            see(&room->count[id - at], s.seen[i].change);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < len; i += CUDA_SCAN_THREADS)
        room->x[i] = penalized(s, room->x[i], room->count[i]);
    __syncthreads();
}

/* The first of the row's changes whose id is not below. */
DEV_FN int first_change(const cuda_sample &s, int id)
{
    int lo = 0, hi = s.n_changes;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (s.changes[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Biases and bans: who has the first of an id has them all. */
DEV_FN void change(const cuda_sample &s, int at, int len, chunk_room *room)
{
    int from = first_change(s, at), to = first_change(s, at + len);
    for (int i = from + threadIdx.x; i < to; i += CUDA_SCAN_THREADS) {
        int id = s.changes[i].id;
        if (i > from && s.changes[i - 1].id == id)
            continue;
        float x = room->x[id - at];
        for (int j = i; j < to && s.changes[j].id == id; j++)
            x = s.changes[j].add == -INFINITY ? -INFINITY : __fadd_rn(x, s.changes[j].add);
        room->x[id - at] = x;
    }
    __syncthreads();
}

/* A copy of the chunk as it is picked from. Behind its end the room has -inf. */
DEV_FN void put_changed(const cuda_sample_args &a, const cuda_sample &s, size_t row, int at,
                        int len, const chunk_room *room)
{
    float *x = a.changed + row * a.ld + at;
    float *max = a.changed_max + row * a.n_blocks + at / BLOCK;
#pragma unroll
    for (int f = 0; f < FOURS; f++) {
        int i = four_at(f);
        float4 v = *(const float4 *)(room->x + i);
        if (s.mask && i < len) {
            uint32_t bits = s.mask[(at + i) / 32] >> (i % 32);
            v = {bits & 1 ? v.x : -INFINITY, bits & 2 ? v.y : -INFINITY, bits & 4 ? v.z : -INFINITY,
                 bits & 8 ? v.w : -INFINITY};
        }
        if (i < len)
            *(float4 *)(x + i) = v;
        put_block_max(max, max4(v), i, len);
    }
}

/* Never of a row with a target: it comes without any of them. */
DEV_FN bool is_changed(const cuda_sample &s)
{
    return s.penalties || s.n_changes || s.mask;
}

/* grid: chunks, output rows */
DEV_KERNEL(CUDA_SCAN_THREADS) k_sample_scan(const __grid_constant__ cuda_sample_args a)
{
    __shared__ __align__(16) chunk_room room;
    const cuda_samples *all = samples_of(a);
    size_t row = blockIdx.y;
    int at = blockIdx.x * CHUNK, len = min(CHUNK, a.n_vocab - at);
    if ((int)row >= all->n_rows)
        return;
    const cuda_sample &s = all->rows[row];
    const float *logits = a.logits + row * a.ld + at;
    float *block_max = a.raw_max + row * a.n_blocks + at / BLOCK;
    float4 v[FOURS];
    float m = -INFINITY;
#pragma unroll
    for (int f = 0; f < FOURS; f++) {
        v[f] = load4(logits, four_at(f), len);
        bool nan = v[f].x != v[f].x || v[f].y != v[f].y || v[f].z != v[f].z || v[f].w != v[f].w;
        m = nan ? INFINITY : fmaxf(m, max4(v[f]));
        put_block_max(block_max, max4(v[f]), four_at(f), len);
    }
    m = max_of_block(m, room.max, SCAN_WARPS);
    size_t chunk = row * a.n_chunks + blockIdx.x;
    if (threadIdx.x == 0)
        a.chunk_max[chunk] = m;
    if (s.n_top >= 0)
        exp_sum(v, m, &room, &a.chunk_sum[chunk]);
    if (!is_changed(s))
        return;
#pragma unroll
    for (int f = 0; f < FOURS; f++)
        *(float4 *)(room.x + four_at(f)) = v[f];
    __syncthreads();
    if (s.penalties)
        penalize(a, s, at, len, &room);
    if (s.n_changes)
        change(s, at, len, &room);
    put_changed(a, s, row, at, len, &room);
}

/* ---- pick ---- */

enum { PICK_WARPS = CUDA_PICK_THREADS / 32, BINS = 4 * CUDA_PICK_THREADS, BATCH = 4 };

typedef struct pick_room {
    unsigned long long bins[BINS]; /* counts or weights by digit */
    unsigned long long sums[PICK_WARPS];
    unsigned long long rest;
    float max[PICK_WARPS];
    int bin, id, n_top;
    float max_logit, log_l;
    int32_t top[CP_MAX_TOP + CUDA_PICK_THREADS]; /* and a place for what a thread has not kept */
} pick_room;

/* A row of logits, or the maxima of its blocks (then block_max is none). */
typedef struct list {
    const float *x, *block_max;
    int n;
} list;

/* What is kept of a list: order numbers above `order`, and of those equal to it ids up to `id`.
 * Never -inf: `order` is above its number. */
typedef struct kept {
    uint32_t order;
    int id;
} kept;

/* How logits become weights. on: something is weighed at all. */
typedef struct weighing {
    bool on;
    float max, inv_t, z_min;
} weighing;

/* Ascending order of the number is ascending order of x (no NaN); -0 and 0 are one. */
DEV_FN uint32_t order_of(float x)
{
    uint32_t u = cp_f32_bits(__fadd_rn(x, 0.0f));
    return u >> 31 ? ~u : u | 0x80000000u;
}

DEV_FN float logit_of(uint32_t order)
{
    return cp_f32_from_bits(order >> 31 ? order & 0x7fffffffu : ~order);
}

/* All but -inf. */
DEV_FN kept all_kept(void)
{
    return {order_of(-INFINITY) + 1, INT_MAX};
}

/* Is x as likely as min_p wants? No branch: lanes of a walk stay together. */
DEV_FN bool allows(const weighing &w, float x)
{
    bool likely = __fmul_rn(__fadd_rn(x, -w.max), w.inv_t) >= w.z_min;
    return likely | !w.on;
}

DEV_FN unsigned long long weight_of(const weighing &w, float x)
{
    return cp_sample_weight(cp_expf(__fmul_rn(__fadd_rn(x, -w.max), w.inv_t)));
}

DEV_FN bool keeps(kept k, float x, int id)
{
    uint32_t o = order_of(x);
    return (o > k.order) | ((o == k.order) & (id <= k.id));
}

/* A warp's walk over its share of a list, in ascending order, past blocks that lie below a bound:
 * each step gives a lane up to 2 BATCH elements, number e before number e + 1, and in a number
 * lanes in order. Shares of warps are in order, too. */
typedef struct walk {
    int block, end;  /* of the share, what is not looked at yet */
    int base;        /* `blocks` are of 32 from here on */
    uint32_t blocks; /* that are to be visited */
} walk;

DEV_FN walk walk_begin(const list &l)
{
    int blocks = (l.n + BLOCK - 1) / BLOCK, each = (blocks + PICK_WARPS - 1) / PICK_WARPS;
    int first = min(blocks, (int)threadIdx.x / 32 * each);
    return {first, min(blocks, first + each), 0, 0};
}

/* False: at the end. x -inf: no element, or one that is never picked. */
DEV_FN bool walk_next(walk *w, const list &l, float at_least, int (&id)[2 * BATCH],
                      float (&x)[2 * BATCH])
{
    int lane = threadIdx.x % 32;
    while (!w->blocks) {
        if (w->block >= w->end)
            return false;
        int b = w->block + lane;
        bool visit = b < w->end && (!l.block_max || l.block_max[b] >= at_least);
        w->blocks = __ballot_sync(CUDA_LANES, visit);
        w->base = w->block;
        w->block += 32;
    }
#pragma unroll
    for (int e = 0; e < 2 * BATCH; e++) {
        if (e % 2 == 0) {
            id[e] = w->blocks ? (w->base + __ffs(w->blocks) - 1) * BLOCK + lane : l.n;
            w->blocks &= w->blocks - 1;
        } else {
            id[e] = id[e - 1] + 32;
        }
        x[e] = l.x[min(id[e], l.n - 1)];
        x[e] = id[e] < l.n ? x[e] : -INFINITY;
    }
    return true;
}

/* ---- a bound, digit by digit ---- */

/*
 * In room->bins, from the highest: the bin in which the sum reaches `need` (room->bin, -1 when none
 * does), and what it needs then of this bin (room->rest). need 0: what holds top_p of the whole.
 */
DEV_FN void find_bin(pick_room *room, unsigned long long need, float top_p)
{
    enum { EACH = BINS / CUDA_PICK_THREADS };
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int top = BINS - 1 - EACH * (int)threadIdx.x; /* the thread's bins, downwards */
    unsigned long long own = 0, sum, before = 0, total = 0;
    for (int i = 0; i < EACH; i++)
        own += room->bins[top - i];
    sum = own;
    for (int h = 1; h < 32; h *= 2) {
        unsigned long long up = __shfl_up_sync(CUDA_LANES, sum, h);
        sum += lane >= h ? up : 0;
    }
    if (lane == 31)
        room->sums[warp] = sum;
    if (threadIdx.x == 0)
        room->bin = -1;
    __syncthreads();
    for (int i = 0; i < PICK_WARPS; i++) {
        before += i < warp ? room->sums[i] : 0;
        total += room->sums[i];
    }
    before += sum - own;
    if (need == 0)
        need = cp_sample_target(total, top_p);
    need = need ? need : 1; /* the best stays, however little is wanted */
    if (before < need && before + own >= need) {
        int i = 0;
        for (; before + room->bins[top - i] < need; i++)
            before += room->bins[top - i];
        room->bin = top - i;
        room->rest = need - before;
    }
    __syncthreads();
}

/* The histogram of what is kept and has order numbers [lo, hi]; by weight, or each counts 1. */
DEV_FN void count_digits(const list &l, const weighing &w, bool by_weight, kept k, uint32_t lo,
                         uint32_t hi, int shift, pick_room *room)
{
    int id[2 * BATCH];
    float x[2 * BATCH];
    for (int i = 0; i < BINS / CUDA_PICK_THREADS; i++)
        room->bins[threadIdx.x + i * CUDA_PICK_THREADS] = 0;
    __syncthreads();
    for (walk at = walk_begin(l); walk_next(&at, l, logit_of(lo), id, x);)
#pragma unroll
        for (int e = 0; e < 2 * BATCH; e++) {
            uint32_t o = order_of(x[e]);
            bool counts = (o >= lo) & (o <= hi) & allows(w, x[e]) & keeps(k, x[e], id[e]);
            unsigned long long each = by_weight ? weight_of(w, x[e]) : 1;
            /* what does not count adds nothing to a bin of the lane's own */
            atomicAdd(&room->bins[counts ? (o - lo) >> shift : threadIdx.x % 32],
                      counts ? each : 0);
        }
    __syncthreads();
}

/*
 * Of what k keeps, the order number at which the shortest prefix ends, larger logits first, that
 * has `need` elements, or (need 0) holds top_p of the weight; need: of those that are equal there.
 * False: there is less. top: the list's largest.
 */
DEV_FN bool find_order(const list &l, const weighing &w, kept k, float top, float top_p,
                       unsigned long long *need, uint32_t *order, pick_room *room)
{
    bool by_weight = *need == 0;
    uint32_t lo = k.order, hi = order_of(top);
    for (int shift = 32; shift > 0;) {
        shift = max(0, 32 - __clz(hi - lo) - 11); /* (hi - lo) >> shift < BINS */
        count_digits(l, w, by_weight, k, lo, hi, shift, room);
        find_bin(room, *need, top_p);
        if (room->bin < 0)
            return false;
        *need = room->rest;
        lo += (uint32_t)room->bin << shift;
        hi = min(hi, lo + ((1u << shift) - 1));
    }
    *order = lo;
    return true;
}

/* Worth of an element in an ordered sum: its weight, or `each` when it has this order number. */
typedef struct worth {
    bool weighed;
    weighing w;
    uint32_t order;
    unsigned long long each;
    kept k;
} worth;

DEV_FN unsigned long long worth_of(const worth &v, float x, int id)
{
    bool counts = allows(v.w, x) & keeps(v.k, x, id) & (v.weighed | (order_of(x) == v.order));
    unsigned long long value = v.weighed ? weight_of(v.w, x) : v.each;
    return counts ? value : 0;
}

DEV_FN unsigned long long sum_of_warp(unsigned long long x)
{
    for (int h = 16; h; h /= 2)
        x += __shfl_xor_sync(CUDA_LANES, x, h);
    return x;
}

/* Worth of a warp's share, in each of its lanes. */
DEV_FN unsigned long long share(const list &l, const worth &v, float at_least)
{
    int id[2 * BATCH];
    float x[2 * BATCH];
    unsigned long long sum = 0;
    for (walk at = walk_begin(l); walk_next(&at, l, at_least, id, x);)
#pragma unroll
        for (int e = 0; e < 2 * BATCH; e++)
            sum += worth_of(v, x[e], id[e]);
    return sum_of_warp(sum);
}

/* Of elements in order, by number and then by lane, the id of the one at which their sum passes
 * `rest`; it does. */
DEV_FN int find_in_batch(const int (&id)[2 * BATCH], const unsigned long long (&value)[2 * BATCH],
                         unsigned long long rest)
{
    int lane = threadIdx.x % 32, found = -1;
#pragma unroll
    for (int e = 0; e < 2 * BATCH; e++) {
        unsigned long long sum = value[e];
        for (int h = 1; h < 32; h *= 2) {
            unsigned long long up = __shfl_up_sync(CUDA_LANES, sum, h);
            sum += lane >= h ? up : 0;
        }
        uint32_t passed = __ballot_sync(CUDA_LANES, sum > rest);
        if (passed)
            found = __shfl_sync(CUDA_LANES, id[e], __ffs(passed) - 1);
        rest -= __shfl_sync(CUDA_LANES, sum, 31); /* once it is found, more than all sums */
    }
    return found;
}

/* In the warp's share, the element in which the sum passes `rest`; it does. */
DEV_FN int find_in_share(const list &l, const worth &v, float at_least, unsigned long long rest)
{
    int id[2 * BATCH];
    float x[2 * BATCH];
    unsigned long long value[2 * BATCH];
    for (walk at = walk_begin(l); walk_next(&at, l, at_least, id, x);) {
        unsigned long long sum = 0;
#pragma unroll
        for (int e = 0; e < 2 * BATCH; e++) {
            value[e] = worth_of(v, x[e], id[e]);
            sum += value[e];
        }
        sum = sum_of_warp(sum);
        if (rest < sum)
            return find_in_batch(id, value, rest);
        rest -= sum;
    }
    return -1;
}

/* The id, ascending, at which the sum of worth passes `at`; drawn: passes that share of 2^64 of the
 * whole. */
DEV_FN int find_id(const list &l, const worth &v, float at_least, unsigned long long at, bool drawn,
                   pick_room *room)
{
    int warp = threadIdx.x / 32;
    unsigned long long sum = share(l, v, at_least), before = 0, total = 0;
    if (threadIdx.x % 32 == 0)
        room->sums[warp] = sum;
    __syncthreads();
    for (int i = 0; i < PICK_WARPS; i++) {
        before += i < warp ? room->sums[i] : 0;
        total += room->sums[i];
    }
    if (drawn)
        at = cp_sample_scale(at, total);
    if (before <= at && at < before + sum) {
        int id = find_in_share(l, v, at_least, at - before);
        if (threadIdx.x % 32 == 0)
            room->id = id;
    }
    __syncthreads();
    return room->id;
}

/* ---- pick ---- */

/* What is done of a row, one after another; each but the last cuts down what is kept. A bound is an
 * order number that enough elements reach, as so many blocks have one: then few blocks are read. */
enum stage { TOP_BOUND, TOP, COUNT_BOUND, COUNT, WEIGHT, PICK, STAGES };

/* A row as it is at a stage. */
typedef struct picking {
    list l;
    weighing w;
    kept k;
    float top; /* the largest of l */
} picking;

DEV_FN bool wants(const cuda_sample &s, int stage, const list &l)
{
    int blocks = (l.n + BLOCK - 1) / BLOCK;
    bool draws = s.target < 0 && !s.greedy, counts = draws && s.top_k > 0 && s.top_k < l.n;
    if (stage <= TOP)
        return s.n_top > 0 && (stage == TOP || s.n_top < blocks);
    if (stage <= COUNT)
        return counts && (stage == COUNT || s.top_k < blocks);
    return stage == WEIGHT ? draws && s.top_p < 1.0f : s.target < 0;
}

/* The maximum of the chunks and (summed) their log-sum-exp, ascending, by one warp. */
DEV_FN void merge_chunks(const float *max, const float *sum, int n, bool summed, pick_room *room)
{
    int lane = threadIdx.x % 32;
    float m = -INFINITY, l = 0.0f;
    for (int base = 0; base < n; base += 32) {
        bool is_chunk = base + lane < n;
        float mc = is_chunk ? max[base + lane] : -INFINITY, run = mc;
        float lc = is_chunk ? sum[base + lane] : 0.0f;
        for (int h = 1; h < 32; h *= 2) {
            float up = __shfl_up_sync(CUDA_LANES, run, h);
            run = lane >= h ? fmaxf(run, up) : run;
        }
        run = fmaxf(run, m);
        float before = __shfl_up_sync(CUDA_LANES, run, 1);
        float f = cp_expf(__fadd_rn(lane ? before : m, -run)), g = cp_expf(__fadd_rn(mc, -run));
#pragma unroll 1
        for (int i = 0; summed && i < 32; i++) {
            float fi = __shfl_sync(CUDA_LANES, f, i), gi = __shfl_sync(CUDA_LANES, g, i);
            float li = __shfl_sync(CUDA_LANES, lc, i);
            if (__shfl_sync(CUDA_LANES, mc, i) > -INFINITY)
                l = __fadd_rn(__fmul_rn(l, fi), __fmul_rn(li, gi));
        }
        m = __shfl_sync(CUDA_LANES, run, 31);
    }
    if (lane == 0) {
        room->max_logit = m;
        room->log_l = cp_logf(l);
    }
}

DEV_FN float log_probability(const pick_room *room, float x)
{
    return __fadd_rn(__fadd_rn(x, -room->max_logit), -room->log_l);
}

/* What is kept, best first. */
DEV_FN void put_top(const picking &p, pick_room *room, cuda_sample_out *out)
{
    int id[2 * BATCH], rank = 0, t = threadIdx.x, lane = t % 32;
    float x[2 * BATCH];
    const list &l = p.l;
    if (t == 0)
        room->n_top = 0;
    __syncthreads();
    for (walk at = walk_begin(l); walk_next(&at, l, logit_of(p.k.order), id, x);)
#pragma unroll
        for (int e = 0; e < 2 * BATCH; e++) {
            bool kept = keeps(p.k, x[e], id[e]);
            uint32_t lanes = __ballot_sync(CUDA_LANES, kept);
            int at = atomicAdd(&room->n_top, lane ? 0 : __popc(lanes));
            at = __shfl_sync(CUDA_LANES, at, 0) + __popc(lanes & ((1u << lane) - 1));
            room->top[kept ? at : CP_MAX_TOP + threadIdx.x] = id[e];
        }
    __syncthreads();
    if (t == 0)
        out->n_top = room->n_top;
    if (t >= room->n_top)
        return;
    kept own = {order_of(l.x[room->top[t]]), room->top[t]};
    for (int i = 0; i < room->n_top; i++)
        rank += i != t && keeps(own, l.x[room->top[i]], room->top[i]);
    out->top_id[rank] = own.id;
    out->top_logprob[rank] = log_probability(room, l.x[own.id]);
}

/* The largest of n numbers, for all threads. */
DEV_FN float max_of_list(const float *x, int n, pick_room *room)
{
    float m = -INFINITY;
#pragma unroll 1
    for (int i = threadIdx.x; i < n; i += CUDA_PICK_THREADS)
        m = fmaxf(m, x[i]);
    return max_of_block(m, room->max, PICK_WARPS);
}

DEV_FN bool is_finite(float x)
{
    return x > -INFINITY && x < INFINITY;
}

/* Nothing below that order number is wanted. */
DEV_FN void raise_bound(picking *p, uint32_t order)
{
    p->k.order = order > p->k.order ? order : p->k.order;
}

/* From raw logits to those that are picked from. */
DEV_FN void turn_to_changed(const cuda_sample_args &a, const cuda_sample &s, size_t row, picking *p,
                            pick_room *room)
{
    if (is_changed(s)) {
        p->l.x = a.changed + row * a.ld;
        p->l.block_max = a.changed_max + row * a.n_blocks;
    }
    p->top = max_of_list(p->l.block_max, a.n_blocks, room);
    p->w = {!s.greedy, p->top, s.inv_t, s.z_min};
    float nothing = __fadd_rn(p->top, -__fmul_rn(CP_SAMPLE_NOTHING, s.temperature));
    p->k = all_kept();
    raise_bound(p, order_of(s.greedy ? p->top : nothing));
}

/* The id, or -1 where there is nothing to pick from (or a target); puts the alternatives. */
DEV_FN int pick(const cuda_sample_args &a, const cuda_sample &s, size_t row, float top,
                pick_room *room, cuda_sample_out *out)
{
    const list raw = {a.logits + row * a.ld, a.raw_max + row * a.n_blocks, a.n_vocab};
    picking p = {raw, {false, 0.0f, 0.0f, 0.0f}, all_kept(), top};
    int id = -1;
#pragma unroll 1
    for (int stage = TOP_BOUND; stage < STAGES; stage++) {
        if (stage == COUNT_BOUND) {
            turn_to_changed(a, s, row, &p, room);
            if (!is_finite(p.top))
                return -1;
        }
        if (!wants(s, stage, p.l))
            continue;
        bool bound = stage == TOP_BOUND || stage == COUNT_BOUND, last = stage == PICK;
        list l = p.l;
        weighing w = p.w;
        kept k = p.k;
        if (bound) {
            l = {p.l.block_max, nullptr, a.n_blocks};
            w.on = false;
            k = all_kept();
        }
        unsigned long long need = stage <= TOP ? s.n_top : stage <= COUNT ? s.top_k : 0;
        uint32_t order = p.k.order;
        bool less = !last && !find_order(l, w, k, p.top, s.top_p, &need, &order, room);
        if (bound && !less)
            raise_bound(&p, order);
        if (!bound && !less) {
            bool weighed = last && !s.greedy;
            unsigned long long each = stage == WEIGHT ? weight_of(w, logit_of(order)) : 1;
            worth v = {weighed, w, order, each, k};
            id = find_id(l, v, logit_of(order), last ? s.random : need - 1, weighed, room);
            p.k = {order, id};
        }
        if (stage == TOP)
            put_top(p, room, out);
    }
    return s.target < 0 ? id : s.target;
}

/* grid: output rows */
DEV_KERNEL(CUDA_PICK_THREADS) k_sample_pick(const __grid_constant__ cuda_sample_args a)
{
    __shared__ pick_room room;
    const cuda_samples *all = samples_of(a);
    size_t row = blockIdx.x;
    if ((int)row >= all->n_rows)
        return;
    const cuda_sample &s = all->rows[row];
    cuda_sample_out *out = a.results + row;
    const float *chunk_max = a.chunk_max + row * a.n_chunks;
    int id = -1;
    if (threadIdx.x == 0)
        out->n_top = 0;
    if (threadIdx.x < 32)
        merge_chunks(chunk_max, a.chunk_sum + row * a.n_chunks, a.n_chunks, s.n_top >= 0, &room);
    __syncthreads();
    if (is_finite(room.max_logit))
        id = pick(a, s, row, room.max_logit, &room, out);
    if (threadIdx.x > 0)
        return;
    float x = a.logits[row * a.ld + (id >= 0 ? id : 0)];
    out->finite = id >= 0;
    out->logprob = id >= 0 && s.n_top >= 0 ? log_probability(&room, x) : 0.0f;
    out->id = id >= 0 ? id : s.target >= 0 ? s.target : 0;
    if (s.keeps)
        a.last[s.slot] = out->id;
}
