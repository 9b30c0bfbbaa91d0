/*
 * fibers: the words of CUDA for g++, so that the .cu files run on the host as they are written. It
 * is put before each of them (-include). A thread of a block is a fiber (fibers.cpp): it runs
 * until it waits for its block or its warp. Another compiler and another runtime than the machine
 * of tests/ptxvm, over the same source, with sanitizers: what one of them hides the other shows.
 *
 * Shared memory is static memory of the library of kernels, as blocks run one after another; that
 * library has no other variables, and all of them hold NaNs when a block begins.
 */
#ifndef CP_FIBERS_CUH
#define CP_FIBERS_CUH
#define CP_FIBERS 1

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/math.h"

#define __global__
#define __device__
#define __host__
#define __shared__      static
#define __constant__    static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

/* ---- what device.cuh says in PTX ---- */

#define DEV_FN                               static inline
#define DEV_KERNEL(threads)                  extern "C" void
#define DEV_KERNEL_RESIDENT(threads, blocks) extern "C" void
#define DEV_DYNAMIC_SHARED(type, name)       type *const name = (type *)fibers_dynamic_shared

/* ---- types ---- */

#define FIBERS_VECTOR(type, name)                                                                  \
    struct alignas(2 * sizeof(type)) name##2                                                       \
    {                                                                                              \
        type x, y;                                                                                 \
    };                                                                                             \
    struct alignas(sizeof(type) == 8 ? 16 : 4 * sizeof(type)) name##4                              \
    {                                                                                              \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    static inline name##2 make_##name##2(type x, type y)                                           \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    static inline name##4 make_##name##4(type x, type y, type z, type w)                           \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
FIBERS_VECTOR(signed char, char)
FIBERS_VECTOR(unsigned char, uchar)
FIBERS_VECTOR(short, short)
FIBERS_VECTOR(unsigned short, ushort)
FIBERS_VECTOR(int, int)
FIBERS_VECTOR(unsigned, uint)
FIBERS_VECTOR(long long, longlong)
FIBERS_VECTOR(unsigned long long, ulonglong)
FIBERS_VECTOR(float, float)
FIBERS_VECTOR(double, double)
struct uint3 {
    unsigned x, y, z;
};

/* ---- threads ---- */

typedef struct fiber fiber;
struct fiber {
    uint3 thread;
    int lane, warp;
    void *slot; /* what it brought to the warp operation that it waits in */
};
extern fiber *fibers_now;
extern uint3 fibers_block, fibers_block_dim, fibers_grid_dim;
extern char *fibers_dynamic_shared;
#define threadIdx (fibers_now->thread)
#define blockIdx  fibers_block
#define blockDim  fibers_block_dim
#define gridDim   fibers_grid_dim

/* Ends the launch with a message. */
[[noreturn]] void fibers_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fibers_syncthreads(const char *file, int line);
/* Lanes of mask bring slots; the last one to arrive calls fn over lane[32] for all of them. */
typedef void fibers_warp_fn(fiber *const *lane, uint32_t mask);
void fibers_warp(uint32_t mask, void *slot, fibers_warp_fn *fn, const char *file, int line);
void fibers_async(void *to, const void *from, unsigned n);
void fibers_async_commit(void);
void fibers_async_wait(unsigned pending);

#define FIBERS_HERE     const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define __syncthreads() fibers_syncthreads(__builtin_FILE(), __builtin_LINE())

static inline void __syncwarp(uint32_t mask = ~0u, FIBERS_HERE)
{
    fibers_warp(
        mask, NULL, [](fiber *const *, uint32_t) {}, file, line);
}

typedef struct fibers_shfl {
    uint64_t value;
    int from; /* lane; outside 0..31: its own value */
} fibers_shfl;

static inline void fibers_shuffle(fiber *const *lane, uint32_t mask)
{
    uint64_t in[32] = {0};
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            in[i] = ((fibers_shfl *)lane[i]->slot)->value;
    for (int i = 0; i < 32; i++) {
        fibers_shfl *s = mask >> i & 1 ? (fibers_shfl *)lane[i]->slot : NULL;
        if (!s || s->from < 0 || s->from > 31)
            continue;
        if (!(mask >> s->from & 1))
            fibers_fail("lane %d reads lane %d, which mask %08x leaves out", i, s->from, mask);
        s->value = in[s->from];
    }
}

template <class T>
static inline T fibers_exchange(uint32_t mask, T v, int from, const char *file, int line)
{
    fibers_shfl s = {0, from};
    memcpy(&s.value, &v, sizeof(v));
    fibers_warp(mask, &s, fibers_shuffle, file, line);
    memcpy(&v, &s.value, sizeof(v));
    return v;
}

/* width (a power of two) parts the warp; beyond its part a lane keeps its own value */
template <class T>
static inline T __shfl_sync(uint32_t m, T v, int src, int width = 32, FIBERS_HERE)
{
    int first = fibers_now->lane & ~(width - 1);
    return fibers_exchange(m, v, first + (src & (width - 1)), file, line);
}
template <class T>
static inline T __shfl_xor_sync(uint32_t m, T v, int x, int width = 32, FIBERS_HERE)
{
    int last = fibers_now->lane | (width - 1), from = fibers_now->lane ^ x;
    return fibers_exchange(m, v, from > last ? -1 : from, file, line);
}
template <class T>
static inline T __shfl_up_sync(uint32_t m, T v, unsigned n, int width = 32, FIBERS_HERE)
{
    int first = fibers_now->lane & ~(width - 1), from = fibers_now->lane - (int)n;
    return fibers_exchange(m, v, from < first ? -1 : from, file, line);
}
template <class T>
static inline T __shfl_down_sync(uint32_t m, T v, unsigned n, int width = 32, FIBERS_HERE)
{
    int last = fibers_now->lane | (width - 1), from = fibers_now->lane + (int)n;
    return fibers_exchange(m, v, from > last ? -1 : from, file, line);
}

/* One value of all lanes' values, which every lane gets. */
#define FIBERS_REDUCE(name, type, first, op)                                                       \
    static inline type name(uint32_t mask, type v, FIBERS_HERE)                                    \
    {                                                                                              \
        auto fn = [](fiber *const *lane, uint32_t among) {                                         \
            type r = first;                                                                        \
            for (int i = 0; i < 32; i++)                                                           \
                if (among >> i & 1) {                                                              \
                    type x = *(type *)lane[i]->slot;                                               \
                    r = (type)(op);                                                                \
                }                                                                                  \
            for (int i = 0; i < 32; i++)                                                           \
                if (among >> i & 1)                                                                \
                    *(type *)lane[i]->slot = r;                                                    \
        };                                                                                         \
        fibers_warp(mask, &v, fn, file, line);                                                     \
        return v;                                                                                  \
    }
FIBERS_REDUCE(fibers_add_u32, uint32_t, 0, r + x)
FIBERS_REDUCE(fibers_min_u32, uint32_t, UINT32_MAX, x < r ? x : r)
FIBERS_REDUCE(fibers_max_u32, uint32_t, 0, x > r ? x : r)
FIBERS_REDUCE(fibers_min_i32, int32_t, INT32_MAX, x < r ? x : r)
FIBERS_REDUCE(fibers_max_i32, int32_t, INT32_MIN, x > r ? x : r)
FIBERS_REDUCE(__reduce_or_sync, uint32_t, 0, r | x)
FIBERS_REDUCE(__reduce_and_sync, uint32_t, ~0u, r &x)
template <class T> static inline T __reduce_add_sync(uint32_t m, T v, FIBERS_HERE)
{
    return (T)fibers_add_u32(m, (uint32_t)v, file, line);
}
template <class T> static inline T __reduce_min_sync(uint32_t m, T v, FIBERS_HERE)
{
    return (T)-1 < 0 ? (T)fibers_min_i32(m, (int32_t)v, file, line)
                     : (T)fibers_min_u32(m, (uint32_t)v, file, line);
}
template <class T> static inline T __reduce_max_sync(uint32_t m, T v, FIBERS_HERE)
{
    return (T)-1 < 0 ? (T)fibers_max_i32(m, (int32_t)v, file, line)
                     : (T)fibers_max_u32(m, (uint32_t)v, file, line);
}
static inline uint32_t __ballot_sync(uint32_t mask, int p, FIBERS_HERE)
{
    return __reduce_or_sync(mask, p ? 1u << fibers_now->lane : 0, file, line);
}
static inline int __any_sync(uint32_t mask, int p, FIBERS_HERE)
{
    return __ballot_sync(mask, p, file, line) != 0;
}
static inline int __all_sync(uint32_t mask, int p, FIBERS_HERE)
{
    return __ballot_sync(mask, p, file, line) == mask;
}

/* ---- arithmetic; the build says -ffp-contract=off ---- */

#define FIBERS_FN(type, name, parameters, value)                                                   \
    static inline type name parameters                                                             \
    {                                                                                              \
        return value;                                                                              \
    }

FIBERS_FN(float, __fmaf_rn, (float a, float b, float c), fmaf(a, b, c))
FIBERS_FN(float, __fadd_rn, (float a, float b), a + b)
FIBERS_FN(float, __fsub_rn, (float a, float b), a - b)
FIBERS_FN(float, __fmul_rn, (float a, float b), a *b)
FIBERS_FN(float, __fdiv_rn, (float a, float b), a / b)
FIBERS_FN(float, __fsqrt_rn, (float a), sqrtf(a))
FIBERS_FN(double, __fma_rn, (double a, double b, double c), fma(a, b, c))
FIBERS_FN(double, __dadd_rn, (double a, double b), a + b)
FIBERS_FN(double, __dsub_rn, (double a, double b), a - b)
FIBERS_FN(double, __dmul_rn, (double a, double b), a *b)
FIBERS_FN(float, __double2float_rn, (double a), (float)a)
FIBERS_FN(float, __int2float_rn, (int a), (float)a)
FIBERS_FN(float, __uint2float_rn, (unsigned a), (float)a)
FIBERS_FN(int, __float2int_rn, (float a), (int)nearbyintf(a))
FIBERS_FN(int, __double2int_rn, (double a), (int)nearbyint(a))
FIBERS_FN(long long, __double2ll_rn, (double a), (long long)nearbyint(a))
FIBERS_FN(unsigned long long, __float2ull_rz, (float a), (unsigned long long)a)
FIBERS_FN(uint32_t, __float_as_uint, (float a), cp_f32_bits(a))
FIBERS_FN(float, __uint_as_float, (uint32_t a), cp_f32_from_bits(a))
FIBERS_FN(int, __float_as_int, (float a), (int)cp_f32_bits(a))
FIBERS_FN(float, __int_as_float, (int a), cp_f32_from_bits((uint32_t)a))
FIBERS_FN(int, __popc, (uint32_t a), __builtin_popcount(a))
FIBERS_FN(int, __popcll, (uint64_t a), __builtin_popcountll(a))
FIBERS_FN(int, __clz, (int a), a ? __builtin_clz((uint32_t)a) : 32)
FIBERS_FN(int, __clzll, (long long a), a ? __builtin_clzll((uint64_t)a) : 64)
FIBERS_FN(int, __ffs, (int a), __builtin_ffs(a))
FIBERS_FN(uint32_t, __umulhi, (uint32_t a, uint32_t b), (uint32_t)((uint64_t)a *b >> 32))
FIBERS_FN(uint64_t, __umul64hi, (uint64_t a, uint64_t b), (uint64_t)((unsigned __int128)a *b >> 64))
static inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t s)
{
    uint64_t both = a | (uint64_t)b << 32;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++)
        r |= (uint32_t)(both >> 8 * (s >> 4 * i & 7) & 0xff) << 8 * i;
    return r;
}
FIBERS_FN(uint32_t, __funnelshift_l, (uint32_t low, uint32_t high, uint32_t n),
          (uint32_t)(((uint64_t)high << 32 | low) << (n & 31) >> 32))
FIBERS_FN(uint32_t, __funnelshift_r, (uint32_t low, uint32_t high, uint32_t n),
          (uint32_t)(((uint64_t)high << 32 | low) >> (n & 31)))
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++)
        c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}
template <class T>
FIBERS_FN(T, __ldg, (const T *p), *p)
template <class A, class B>
FIBERS_FN(auto, min, (A a, B b), a < b ? a : b)
template <class A, class B>
FIBERS_FN(auto, max, (A a, B b), a > b ? a : b)
[[noreturn]] static inline void __trap(void)
{
    fibers_fail("trap");
}

/* Fibers do not interrupt one another. */
#define FIBERS_ATOMIC(name, op)                                                                    \
    template <class T, class V> static inline T name(T *p, V value)                                \
    {                                                                                              \
        T old = *p, v = (T)value;                                                                  \
        *p = (T)(op);                                                                              \
        return old;                                                                                \
    }
FIBERS_ATOMIC(atomicAdd, old + v)
FIBERS_ATOMIC(atomicOr, old | v)
FIBERS_ATOMIC(atomicMax, old > v ? old : v)
FIBERS_ATOMIC(atomicMin, old < v ? old : v)

/* ---- the functions of device.cuh ---- */

DEV_FN void dev_cp_async16(void *shared, const void *global, unsigned n)
{
    fibers_async(shared, global, n);
}
DEV_FN void dev_cp_async_commit(void)
{
    fibers_async_commit();
}
template <int PENDING> DEV_FN void dev_cp_async_wait(void)
{
    fibers_async_wait(PENDING);
}
FIBERS_FN(float, dev_ex2_approx, (float x), exp2f(x))
FIBERS_FN(float, dev_f32_from_f16, (uint16_t h), cp_f32_from_f16(h))
FIBERS_FN(uint16_t, dev_f16_from_f32, (float x), cp_f16_from_f32(x))
FIBERS_FN(uint32_t, dev_bf16x2, (float low, float high),
          cp_bf16_from_f32(low) | (uint32_t)cp_bf16_from_f32(high) << 16)

/* One mma of a warp by its definition: A [16][k], B [k][8] of 8- or 16-bit values. */
typedef struct fibers_mma {
    void *d;
    const uint32_t *a, *b;
    int c[4];
} fibers_mma;
typedef float fibers_value_fn(uint32_t bits);

template <int BYTES, int K, class T, fibers_value_fn *A_OF, fibers_value_fn *B_OF>
static void fibers_matrix(fiber *const *lane, uint32_t)
{
    enum { PER = 4 / BYTES }; /* values of a word */
    float a[16][K], b[K][8];
    for (int l = 0; l < 32; l++) {
        const fibers_mma *m = (const fibers_mma *)lane[l]->slot;
        int g = l / 4, t = l % 4;
        for (int v = 0; v < K / 2; v++) { /* of A; the first half of them in B's order */
            int word = v / PER, shift = v % PER * 8 * BYTES;
            int k = t * PER + v % PER + word / 2 * 4 * PER;
            a[g + 8 * (word & 1)][k] = A_OF(m->a[word] >> shift);
        }
        for (int v = 0; v < K / 4; v++)
            b[t * PER + v % PER + v / PER * 4 * PER][g] =
                B_OF(m->b[v / PER] >> v % PER * 8 * BYTES);
    }
    for (int l = 0; l < 32; l++) {
        const fibers_mma *m = (const fibers_mma *)lane[l]->slot;
        for (int i = 0; i < 4; i++) {
            int row = l / 4 + 8 * (i / 2), column = l % 4 * 2 + i % 2;
            T sum = __is_same(T, int) ? (T)m->c[i] : ((T *)m->d)[i];
            for (int k = 0; k < K; k++)
                sum = (T)(sum + (T)(a[row][k] * b[k][column]));
            ((T *)m->d)[i] = sum;
        }
    }
}

FIBERS_FN(float, fibers_u8, (uint32_t w), (float)(uint8_t)w)
FIBERS_FN(float, fibers_s8, (uint32_t w), (float)(int8_t)w)
FIBERS_FN(float, fibers_bf16, (uint32_t w), cp_f32_from_bf16((uint16_t)w))
FIBERS_FN(float, fibers_f16, (uint32_t w), cp_f32_from_f16((uint16_t)w))

#define FIBERS_MMA_INT(name, k, a_of, a_words, b_words, ...)                                       \
    static inline void name(int d[4], const uint32_t a[a_words], __VA_ARGS__, int c0, int c1,      \
                            int c2, int c3, FIBERS_HERE)                                           \
    {                                                                                              \
        const uint32_t b[] = b_words;                                                              \
        fibers_mma m = {d, a, b, {c0, c1, c2, c3}};                                                \
        fibers_warp(~0u, &m, fibers_matrix<1, k, int, a_of, fibers_s8>, file, line);               \
    }
#define FIBERS_2                                                                                   \
    {                                                                                              \
        b0, b1                                                                                     \
    }
#define FIBERS_1                                                                                   \
    {                                                                                              \
        b0                                                                                         \
    }
FIBERS_MMA_INT(dev_mma_u8s8_k32, 32, fibers_u8, 4, FIBERS_2, uint32_t b0, uint32_t b1)
FIBERS_MMA_INT(dev_mma_s8s8_k32, 32, fibers_s8, 4, FIBERS_2, uint32_t b0, uint32_t b1)
FIBERS_MMA_INT(dev_mma_u8s8_k16, 16, fibers_u8, 2, FIBERS_1, uint32_t b0)
FIBERS_MMA_INT(dev_mma_s8s8_k16, 16, fibers_s8, 2, FIBERS_1, uint32_t b0)
#define FIBERS_MMA_FLOAT(name, of)                                                                 \
    static inline void name(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1,             \
                            FIBERS_HERE)                                                           \
    {                                                                                              \
        const uint32_t b[] = {b0, b1};                                                             \
        fibers_mma m = {d, a, b, {0, 0, 0, 0}};                                                    \
        fibers_warp(~0u, &m, fibers_matrix<2, 16, float, of, of>, file, line);                     \
    }
FIBERS_MMA_FLOAT(dev_mma_bf16_k16, fibers_bf16)
FIBERS_MMA_FLOAT(dev_mma_f16_k16, fibers_f16)

#endif
