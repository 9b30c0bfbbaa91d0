/*
 * machine: what this machine adds to each level, by cpuid and the operating system's consent: the
 * register state that it saves (xgetbv), and for tiles a permission of the process's own. AVX2
 * without ymm state, or AVX-512 without zmm state, is not there.
 */
#include "kernels/cpu/isa.h"

#include <string.h>

#if defined(__x86_64__)

#include <cpuid.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux's arch_prctl, as of 5.16; Debian 12 has no header of these for programs. */
enum { GET_XCOMP_SUPP = 0x1021, REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
enum { YMM = 6, ZMM = 0xe6, TILES = 0x60000 };             /* register state in xcr0 */
enum { AVX_VNNI = 1 << 4 };                                /* leaf 7.1 eax */
enum { AMX = 1 << 22 | 1 << 24 | 1 << 25 };                /* leaf 7.0 edx: bf16, tile, int8 */
enum { TILE_ROWS = 16, TILE_ROW_BYTES = 64, N_TILES = 8 }; /* of palette 1, in leaf 1d.1 */

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static unsigned add_if(cp_isa isa, uint32_t reg, uint32_t bits)
{
    return (reg & bits) == bits ? 1u << isa : 0;
}

/* Tiles as large as the kernels want them, which the kernel would save. */
static bool has_tiles(uint64_t state)
{
    uint32_t a, b, c, d;
    uint64_t saved = 0;
    return (state & TILES) == TILES && __get_cpuid_count(0x1d, 1, &a, &b, &c, &d) &&
           (b & 0xffff) >= TILE_ROW_BYTES && b >> 16 >= N_TILES && (c & 0xffff) >= TILE_ROWS &&
           syscall(SYS_arch_prctl, GET_XCOMP_SUPP, &saved) == 0 && (saved >> TILE_DATA & 1);
}

cp_cpu cp_isa_this_cpu(void)
{
    enum { BASICS = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C };
    cp_cpu cpu = {.adds = 1u << CP_ISA_BASE};
    uint32_t a, b, c, d, max7, b7, c7, d7, a71 = 0;
    if (!__get_cpuid(0, &a, &b, &c, &d))
        return cpu;
    memcpy(cpu.vendor, (uint32_t[3]){b, d, c}, 12);
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return cpu;
    cpu.family = (int)(a >> 8 & 15);
    cpu.model = (int)(a >> 4 & 15);
    if (cpu.family == 6 || cpu.family == 15)
        cpu.model += (int)(a >> 16 & 15) << 4;
    if (cpu.family == 15)
        cpu.family += (int)(a >> 20 & 255);
    if ((c & BASICS) != BASICS)
        return cpu;
    uint64_t state = xcr0();
    if ((state & YMM) != YMM || !__get_cpuid_count(7, 0, &max7, &b7, &c7, &d7))
        return cpu;
    if (max7 >= 1)
        __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    cpu.adds |= add_if(CP_ISA_AVX2, b7, bit_AVX2 | bit_BMI | bit_BMI2);
    cpu.adds |= add_if(CP_ISA_AVXVNNI, a71, AVX_VNNI);
    if ((state & ZMM) != ZMM)
        return cpu;
    cpu.adds |= add_if(CP_ISA_AVX512, b7, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL);
    cpu.adds |= add_if(CP_ISA_VNNI, c7, bit_AVX512VNNI);
    cpu.adds |= add_if(CP_ISA_BF16, a71, bit_AVX512BF16);
    if (add_if(CP_ISA_AMX, d7, AMX) && a71 & bit_AVX512BF16 && has_tiles(state))
        cpu.adds |= 1u << CP_ISA_AMX;
    return cpu;
}

cp_code cp_isa_grant(cp_isa isa, cp_err *err)
{
    if (isa != CP_ISA_AMX || syscall(SYS_arch_prctl, REQ_XCOMP_PERM, TILE_DATA) == 0)
        return CP_OK;
    return cp_fail(err, CP_USAGE,
                   "the kernel does not grant this process the registers of tiles (arch_prctl: "
                   "%s); another level needs none",
                   strerror(errno));
}

#else

cp_cpu cp_isa_this_cpu(void)
{
    return (cp_cpu){.adds = 1u << CP_ISA_BASE};
}

cp_code cp_isa_grant(cp_isa isa, cp_err *err)
{
    (void)isa;
    (void)err;
    return CP_OK;
}

#endif

const char *cp_isa_lacks(cp_isa isa)
{
    return isa == CP_ISA_AMX ? "is not on this machine: it takes AVX-512 VNNI and BF16, AMX-INT8, "
                               "AMX-BF16 and a kernel that saves tiles (Linux 5.16 and newer)"
                             : "is not on this machine";
}
