/*
 * isa: which instruction level this machine and its operating system grant.
 *
 * A level is a set of cpuid bits together with the register state the OS saves (xgetbv): AVX2
 * without ymm state, or AVX-512 without zmm state, is not there. Levels ascend; each contains the
 * ones below. `amx` keeps its place in the list but has no kernels in this build.
 */
#include "kernels/cpu/linear.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[CP_ISA_COUNT] = {
    [CP_ISA_BASE] = "base", [CP_ISA_AVX2] = "avx2", [CP_ISA_AVX512] = "avx512",
    [CP_ISA_VNNI] = "vnni", [CP_ISA_BF16] = "bf16", [CP_ISA_AMX] = "amx",
};

const char *cp_isa_name(cp_isa isa)
{
    CP_ASSERT((unsigned)isa < CP_ISA_COUNT);
    return names[isa];
}

#if defined(__x86_64__)
static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool has(uint32_t reg, uint32_t bits)
{
    return (reg & bits) == bits;
}

static cp_isa machine_level(void)
{
    uint32_t a, b, c, d, b7, c7, d7, a71 = 0, max7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C))
        return CP_ISA_BASE;
    uint64_t state = xcr0();
    if ((state & 6) != 6 || !__get_cpuid_count(7, 0, &max7, &b7, &c7, &d7))
        return CP_ISA_BASE;
    if (!has(b7, bit_AVX2 | bit_BMI2))
        return CP_ISA_BASE;
    if ((state & 0xe6) != 0xe6 ||
        !has(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL))
        return CP_ISA_AVX2;
    if (!has(c7, bit_AVX512VNNI))
        return CP_ISA_AVX512;
    if (max7 >= 1)
        __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    return has(a71, bit_AVX512BF16) ? CP_ISA_BF16 : CP_ISA_VNNI;
}
#else
static cp_isa machine_level(void)
{
    return CP_ISA_BASE;
}
#endif

cp_code cp_isa_detect(const char *cap, cp_isa *out, cp_err *err)
{
    cp_isa best = machine_level();
    if (!cap)
        cap = getenv("CAPSTAN_CPU");
    if (!cap || !*cap) {
        *out = best;
        return CP_OK;
    }
    for (int i = 0; i < CP_ISA_COUNT; i++) {
        if (strcmp(cap, names[i]) != 0)
            continue;
        if (i == CP_ISA_AMX)
            return cp_fail(err, CP_USAGE, "CPU level '%s' is not built", cap);
        if (i > (int)best)
            return cp_fail(err, CP_USAGE, "CPU level '%s' is not there: this machine has '%s'", cap,
                           names[best]);
        *out = (cp_isa)i;
        return CP_OK;
    }
    return cp_fail(err, CP_USAGE, "CPU level '%s' is unknown; allowed: base avx2 avx512 vnni bf16",
                   cap);
}
