/*
 * ROUTE: a warp a row; lane l has experts l, l + 32, ... What is chosen from is a list of ordered
 * keys in registers, 0 for what is taken already: the best is the warp's largest key, and of equals
 * the one with the lowest index.
 */
#include "kernels/cuda/route.h"

#include "kernels/cuda/lanes.cuh"
#include "kernels/math.h"
#include "kernels/program.h"

enum { EACH = CP_EXPERTS_MAX / 32 };

#define TAKEN 0u /* the key of what is not there any more */

/* Below this a sum of weights divides no more. */
#define MIN_WEIGHTS 0x1p-14f

/* What a warp needs beside its registers. */
typedef struct row_room {
    float p[CP_EXPERTS_MAX], score[CP_EXPERTS_MAX], w[CP_EXPERTS_MAX];
    uint8_t kept[CP_EXPERTS_MAX]; /* groups */
} row_room;

/* Ascending order of the key is ascending order of x, NaN counting as -inf; never TAKEN. */
DEV_FN uint32_t order_of(float x)
{
    uint32_t u = cp_f32_bits(x == x ? __fadd_rn(x, 0.0f) : -INFINITY);
    return u >> 31 ? ~u : u | 0x80000000u;
}

DEV_FN float max_of_warp(float x)
{
    for (int h = 16; h; h /= 2)
        x = fmaxf(x, __shfl_xor_sync(CUDA_LANES, x, h));
    return x;
}

/* The index of the largest key, of equals the lowest; it is taken then. */
DEV_FN int take_best(uint32_t (&key)[EACH])
{
    int lane = threadIdx.x % 32, at = CP_EXPERTS_MAX;
    uint32_t best = TAKEN;
#pragma unroll
    for (int e = 0; e < EACH; e++)
        if (key[e] > best) {
            best = key[e];
            at = lane + 32 * e;
        }
    uint32_t most = __reduce_max_sync(CUDA_LANES, best);
    int index = (int)__reduce_min_sync(CUDA_LANES, best == most ? (unsigned)at : CP_EXPERTS_MAX);
#pragma unroll
    for (int e = 0; e < EACH; e++)
        if (index == lane + 32 * e)
            key[e] = TAKEN;
    return index;
}

DEV_FN float probability(int gate, float x)
{
    if (gate == CP_GATE_SIGMOID)
        return cp_sigmoidf(x);
    if (gate == CP_GATE_SQRT_SOFTPLUS)
        return __fsqrt_rn(x > 20.0f ? x : cp_logf(__fadd_rn(1.0f, cp_expf(x))));
    return x;
}

/* Of all experts, into room->p: each lane its own. */
DEV_FN void probabilities(const cuda_route_args &a, const float *x, row_room *room)
{
    int lane = threadIdx.x % 32;
    float max = -INFINITY, low = 0.0f, high = 0.0f;
#pragma unroll 1
    for (int e = lane; e < a.n; e += 32) {
        room->p[e] = probability(a.gate, x[e] == x[e] ? x[e] : -INFINITY);
        max = fmaxf(max, room->p[e]);
    }
    if (a.gate != CP_GATE_SOFTMAX)
        return;
    max = max_of_warp(max);
#pragma unroll 1
    for (int e = lane; e < a.n; e += 32) {
        float p = cp_expf(__fadd_rn(room->p[e], -max));
        room->p[e] = p;
        low = e & 32 ? low : __fadd_rn(low, p);
        high = e & 32 ? __fadd_rn(high, p) : high;
    }
    float sum = cuda_tree(low, high);
#pragma unroll 1
    for (int e = lane; e < a.n; e += 32)
        room->p[e] = __fdiv_rn(room->p[e], sum);
}

/* The worth of group g: its two best scores' sum, or its only one. */
DEV_FN float worth(const float *score, int size)
{
    float first = -INFINITY, second = -INFINITY;
#pragma unroll 1
    for (int i = 0; i < size; i++) {
        float s = score[i];
        second = s > first ? first : s > second ? s : second;
        first = s > first ? s : first;
    }
    return size > 1 ? __fadd_rn(first, second) : first;
}

/* The scores of experts in groups that are not among the best become -inf; each lane its own. */
DEV_FN void keep_groups(const cuda_route_args &a, row_room *room)
{
    int lane = threadIdx.x % 32, size = a.n / a.n_groups;
    uint32_t key[EACH];
#pragma unroll 1
    for (int g = lane; g < a.n_groups; g += 32) {
        room->w[g] = worth(room->score + g * size, size);
        room->kept[g] = 0;
    }
#pragma unroll
    for (int e = 0; e < EACH; e++)
        key[e] = lane + 32 * e < a.n_groups ? order_of(room->w[lane + 32 * e]) : TAKEN;
    __syncwarp();
#pragma unroll 1
    for (int i = 0; i < a.n_groups_used; i++) {
        int g = take_best(key);
        if (lane == 0)
            room->kept[g] = 1;
    }
    __syncwarp();
#pragma unroll 1
    for (int e = lane; e < a.n; e += 32)
        if (!room->kept[e / size])
            room->score[e] = -INFINITY;
}

/* x = x / sum, whose terms are added by ranks ascending; each lane has divided its own then. */
DEV_FN void divide(float *w, int n, bool bounded)
{
    float sum = 0.0f;
#pragma unroll 1
    for (int j = 0; j < n; j++)
        sum = __fadd_rn(sum, w[j]);
    if (bounded)
        sum = sum < MIN_WEIGHTS ? MIN_WEIGHTS : sum;
    __syncwarp();
#pragma unroll 1
    for (int j = threadIdx.x % 32; j < n; j += 32)
        w[j] = __fdiv_rn(w[j], sum);
}

/* room->w: from the probabilities of the ranks to their weights. */
DEV_FN void weigh(const cuda_route_args &a, row_room *room)
{
    int lane = threadIdx.x % 32;
    float max = -INFINITY;
    if (a.gate == CP_GATE_SELECTED) {
#pragma unroll 1
        for (int j = lane; j < a.n_used; j += 32)
            max = room->w[j] > max ? room->w[j] : max;
        max = max_of_warp(max);
#pragma unroll 1
        for (int j = lane; j < a.n_used; j += 32)
            room->w[j] = cp_expf(__fadd_rn(room->w[j], -max));
        __syncwarp();
        divide(room->w, a.n_used, false);
        if (a.normalize)
            __syncwarp();
    }
    if (a.normalize)
        divide(room->w, a.n_used, true);
}

DEV_FN void route(const cuda_route_args &a, int r, row_room *room)
{
    int lane = threadIdx.x % 32;
    float *ids = a.ids + (size_t)r * a.ld_ids, *weights = a.weights + (size_t)r * a.ld_weights;
    probabilities(a, a.in + (size_t)r * a.ld_in, room);
#pragma unroll 1
    for (int e = lane; e < a.n; e += 32) {
        float s = room->p[e];
        s = a.bias ? __fadd_rn(s, a.bias[e]) : s;
        room->score[e] = s == s ? s : -INFINITY;
    }
    __syncwarp();
    if (a.n_groups > 1)
        keep_groups(a, room);
    uint32_t key[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++)
        key[e] = lane + 32 * e < a.n ? order_of(room->score[lane + 32 * e]) : TAKEN;
#pragma unroll 1
    for (int j = 0; j < a.n_used; j++) {
        int e = take_best(key);
        if (lane == 0) {
            ids[j] = (float)e;
            room->w[j] = room->p[e];
        }
    }
    __syncwarp();
    weigh(a, room);
#pragma unroll 1
    for (int j = lane; j < a.n_used; j += 32) {
        float w = room->w[j];
        w = a.scale != 1.0f ? __fmul_rn(w, a.scale) : w;
        weights[j] = a.expert_scale ? __fmul_rn(w, a.expert_scale[(int)ids[j]]) : w;
    }
}

/* grid: rows / CUDA_ROUTE_WARPS */
DEV_KERNEL(CUDA_ROUTE_WARPS * 32) k_route(const __grid_constant__ cuda_route_args a)
{
    __shared__ row_room rooms[CUDA_ROUTE_WARPS];
    int warp = threadIdx.x / 32, r = blockIdx.x * CUDA_ROUTE_WARPS + warp;
    if (r < (a.of_out_rows ? a.step->n_out : a.step->n_rows))
        route(a, r, &rooms[warp]);
}
