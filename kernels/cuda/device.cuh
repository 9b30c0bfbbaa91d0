/*
 * device: the instructions that kernels use and that C++ has no word for. Internal to kernels/cuda.
 *
 * All inline PTX of the kernels is in this file, and so are the two things that CUDA writes in a
 * way of its own and another compiler cannot read (dynamic shared memory, the entry): tests/fibers
 * defines the same names for g++, so that the same source also runs there, under its sanitizers.
 * Everything else is said by CUDA's intrinsics (__fmaf_rn, __shfl_xor_sync, __ldg ...).
 *
 * Fragments of an mma, with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix fragments for mma"):
 * D and C hold rows g, g + 8 and columns 2t, 2t + 1: d[0] (g, 2t), d[1] (g, 2t+1), d[2] (g+8, 2t),
 * d[3] (g+8, 2t+1). 8-bit K 32: a[0] is A (g, 4t..4t+3), a[1] (g+8, same), a[2] (g, 4t+16..),
 * a[3] (g+8, same); b[0] is B (4t..4t+3, g), b[1] (4t+16.., g). K 16 of 8 bits: the first half of
 * those. 16-bit K 16: a[0] (g, 2t..2t+1), a[1] (g+8, same), a[2] (g, 2t+8..), a[3]; b likewise.
 */
#ifndef CP_KERNELS_CUDA_DEVICE_CUH
#define CP_KERNELS_CUDA_DEVICE_CUH

#include <stdint.h>

#ifndef CP_FIBERS

/* A kernel: DEV_KERNEL(256) k_embed(const __grid_constant__ cuda_embed_args a) { ... } */
#define DEV_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
/* And so many blocks of it are resident on a multiprocessor: registers are shared out for that. */
#define DEV_KERNEL_RESIDENT(threads, blocks)                                                       \
    extern "C" __global__ void __launch_bounds__(threads, blocks)
/* The launch's dynamic shared memory as an array of type, aligned to 16. */
#define DEV_DYNAMIC_SHARED(type, name)                                                             \
    extern __shared__ uint4 dev_dynamic_shared[];                                                  \
    type *const name = reinterpret_cast<type *>(dev_dynamic_shared)

#define DEV_FN static __device__ __forceinline__

/* d = a b + c, integers: exact, modulo 2^32. */
DEV_FN void dev_mma_u8s8_k32(int d[4], const uint32_t a[4], uint32_t b0, uint32_t b1, int c0,
                             int c1, int c2, int c3)
{
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%11,%12,%13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c0), "r"(c1), "r"(c2),
          "r"(c3));
}

DEV_FN void dev_mma_s8s8_k32(int d[4], const uint32_t a[4], uint32_t b0, uint32_t b1, int c0,
                             int c1, int c2, int c3)
{
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%11,%12,%13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c0), "r"(c1), "r"(c2),
          "r"(c3));
}

DEV_FN void dev_mma_u8s8_k16(int d[4], const uint32_t a[2], uint32_t b, int c0, int c1, int c2,
                             int c3)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
                 "{%7,%8,%9,%10};"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b), "r"(c0), "r"(c1), "r"(c2), "r"(c3));
}

DEV_FN void dev_mma_s8s8_k16(int d[4], const uint32_t a[2], uint32_t b, int c0, int c1, int c2,
                             int c3)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
                 "{%7,%8,%9,%10};"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b), "r"(c0), "r"(c1), "r"(c2), "r"(c3));
}

/* d += a b, 16-bit inputs and f32 sums, which the device rounds in its own way. */
DEV_FN void dev_mma_bf16_k16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEV_FN void dev_mma_f16_k16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 16 bytes from global to shared memory, both aligned, there once they were waited for; zeroes
 * where n is 0 (n is 0 or 16). */
DEV_FN void dev_cp_async16(void *shared, const void *global, unsigned n)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (unsigned)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(n)
                 : "memory");
}

DEV_FN void dev_cp_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most PENDING of this thread's groups are under way. */
template <int PENDING> DEV_FN void dev_cp_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* About 2^x; not in anything that is to have ref's bits. */
DEV_FN float dev_ex2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Half precision by its bits; all exact but the last two, nearest even. */
DEV_FN float dev_f32_from_f16(uint16_t h)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}

DEV_FN uint16_t dev_f16_from_f32(float x)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}

/* Two of them in a word, low in its low half. */
DEV_FN uint32_t dev_bf16x2(float low, float high)
{
    uint32_t w;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(high), "f"(low));
    return w;
}

#endif

DEV_FN uint32_t dev_f16x2(float low, float high)
{
    return dev_f16_from_f32(low) | (uint32_t)dev_f16_from_f32(high) << 16;
}

DEV_FN float dev_f16_low(uint32_t w)
{
    return dev_f32_from_f16((uint16_t)w);
}

DEV_FN float dev_f16_high(uint32_t w)
{
    return dev_f32_from_f16((uint16_t)(w >> 16));
}

#endif
