/*
 * experts: who goes where. The pairs of a row and a rank are sorted by expert, those of one in
 * ascending order: each of a block's warps counts its share of them, then every expert adds up
 * what the warps counted, then each warp puts its pairs where they belong. An expert begins at a
 * whole tile of places.
 */
#include "kernels/cuda/linear.cuh"

enum { WARPS = CUDA_SORT_THREADS / CUDA_WARP };

/* Sum of v of the threads before this one; *total: of all. shared: [WARPS], which nobody reads any
 * more. */
DEV_FN int scan(int v, int *shared, int *total)
{
    int lane = threadIdx.x % CUDA_WARP, warp = threadIdx.x / CUDA_WARP, sum = v;
    for (int h = 1; h < CUDA_WARP; h *= 2) {
        int before = __shfl_up_sync(CUDA_LANES, sum, h);
        sum += lane >= h ? before : 0;
    }
    if (lane == CUDA_WARP - 1)
        shared[warp] = sum;
    __syncthreads();
    int before = 0;
    *total = 0;
    for (int w = 0; w < WARPS; w++) {
        before += w < warp ? shared[w] : 0;
        *total += shared[w];
    }
    return before + sum - v;
}

/* The lanes with the same key, of n keys; key -1: none. */
DEV_FN uint32_t lanes_alike(int key, int n)
{
    uint32_t alike = __ballot_sync(CUDA_LANES, key >= 0);
    for (int bit = 1; bit < n; bit *= 2) {
        uint32_t set = __ballot_sync(CUDA_LANES, key & bit);
        alike &= key & bit ? set : ~set;
    }
    return alike;
}

DEV_FN int expert_at(const cuda_sort_args &a, int pair)
{
    int e = (int)a.ids[(int64_t)(pair / a.places.n_used) * a.ld + pair % a.places.n_used];
    return cuda_min(e < 0 ? 0 : e, a.n_expert - 1);
}

/* The warp's pairs [i0, i1): next[e] moves on by each that chose e; put: that is its place. */
DEV_FN void walk(const cuda_sort_args &a, int i0, int i1, int *next, bool put)
{
    int lane = threadIdx.x % CUDA_WARP;
    for (int at = i0; at < i1; at += CUDA_WARP) {
        int pair = at + lane, e = pair < i1 ? expert_at(a, pair) : -1;
        uint32_t alike = lanes_alike(e, a.n_expert);
        uint32_t before = alike & ((1u << lane) - 1u);
        int first = e < 0 ? 0 : next[e];
        __syncwarp();
        if (e >= 0 && put) {
            int place = first + __popc(before);
            a.places.place[pair] = place;
            a.places.pair[place] = pair;
        }
        if (e >= 0 && before == 0)
            next[e] = first + __popc(alike);
        __syncwarp();
    }
}

/* The items of expert e of each width: n places from `place` on. Every thread has been at a barrier
 * when this is done. */
DEV_FN void list_items(const cuda_sort_args &a, int e, int n, int place, int *shared)
{
    for (int width = 0; width < 3; width++) {
        int each = CUDA_TILE << width, items = (n + each - 1) / each, total;
        __syncthreads(); /* what the scan before this left was read */
        int at = width * a.places.max_items + scan(items, shared, &total);
        for (int i = 0; i < items; i++) {
            cuda_expert_item item = {e, place + i * each, cuda_min(n - i * each, each)};
            a.places.items[at + i] = item;
        }
        if (threadIdx.x == 0)
            a.places.n_items[width] = total;
    }
}

DEV_KERNEL(CUDA_SORT_THREADS)
k_sort_pairs(const __grid_constant__ cuda_sort_args a)
{
    DEV_DYNAMIC_SHARED(int, counts); /* [WARPS][n_expert] */
    __shared__ int shared[WARPS];
    int n = cuda_rows(a.step, a.out_rows) * a.places.n_used, e = threadIdx.x;
    int each = (n + CUDA_SORT_THREADS - 1) / CUDA_SORT_THREADS * CUDA_WARP;
    int i0 = (int)threadIdx.x / CUDA_WARP * each, i1 = cuda_min(i0 + each, n);
    int *mine = counts + threadIdx.x / CUDA_WARP * a.n_expert;
    for (int i = threadIdx.x; i < WARPS * a.n_expert; i += CUDA_SORT_THREADS)
        counts[i] = 0;
    __syncthreads();
    walk(a, i0, i1, mine, false);
    __syncthreads();
    int all = 0, total;
    for (int w = 0; w < WARPS && e < a.n_expert; w++) {
        int c = counts[w * a.n_expert + e];
        counts[w * a.n_expert + e] = all;
        all += c;
    }
    int place = CUDA_TILE * scan((all + CUDA_TILE - 1) / CUDA_TILE, shared, &total);
    for (int w = 0; w < WARPS && e < a.n_expert; w++)
        counts[w * a.n_expert + e] += place;
    list_items(a, e, all, place, shared);
    walk(a, i0, i1, mine, true);
}
