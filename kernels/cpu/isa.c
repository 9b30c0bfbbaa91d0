/*
 * isa: the table of instruction levels, which of them this machine and its operating system grant,
 * and the table of defaults.
 *
 * A level is a set of cpuid bits together with the register state the OS saves (xgetbv): AVX2
 * without ymm state, or AVX-512 without zmm state, is not there. A row says what a level adds to
 * the one it stands on. `amx` keeps its place in the table but has no kernels in this build.
 */
#include "kernels/cpu/isa.h"

#include "base/mem.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#define X86(x) x
#else
#define X86(x) NULL
#endif

typedef struct level_row {
    const char *name;
    cp_isa parent;
    void (*fill)(cp_gemm_table *t); /* what its linears do otherwise; NULL: it is not built */
    const cp_vec *vec;              /* NULL: those of the level it stands on */
} level_row;

static const level_row levels[CP_ISA_COUNT] = {
    [CP_ISA_BASE] = {"base", CP_ISA_BASE, cp_gemm_fill_base, &cp_vec_base},
    [CP_ISA_AVX2] = {"avx2", CP_ISA_BASE, X86(cp_gemm_fill_avx2), X86(&cp_vec_avx2)},
    [CP_ISA_AVXVNNI] = {"avxvnni", CP_ISA_AVX2, X86(cp_gemm_fill_avxvnni), NULL},
    [CP_ISA_AVX512] = {"avx512", CP_ISA_AVX2, X86(cp_gemm_fill_avx512), X86(&cp_vec_avx512)},
    [CP_ISA_VNNI] = {"vnni", CP_ISA_AVX512, X86(cp_gemm_fill_vnni), NULL},
    [CP_ISA_BF16] = {"bf16", CP_ISA_VNNI, X86(cp_gemm_fill_bf16), NULL},
    [CP_ISA_AMX] = {"amx", CP_ISA_VNNI, NULL, NULL},
};

const char *cp_isa_name(cp_isa isa)
{
    CP_ASSERT((unsigned)isa < CP_ISA_COUNT);
    return levels[isa].name;
}

cp_isa cp_isa_parent(cp_isa isa)
{
    CP_ASSERT((unsigned)isa < CP_ISA_COUNT);
    return levels[isa].parent;
}

bool cp_isa_over(cp_isa isa, cp_isa below)
{
    while (isa != below && isa != CP_ISA_BASE)
        isa = levels[isa].parent;
    return isa == below;
}

/* ---- what a level's functions are ---- */

static void fill(cp_gemm_table *t, cp_isa isa)
{
    if (isa != CP_ISA_BASE)
        fill(t, levels[isa].parent);
    if (levels[isa].fill)
        levels[isa].fill(t);
}

void cp_isa_gemm(cp_gemm_table *t, cp_isa isa)
{
    memset(t, 0, sizeof *t);
    fill(t, isa);
}

const cp_vec *cp_isa_vec(cp_isa isa)
{
    while (!levels[isa].vec)
        isa = levels[isa].parent;
    return levels[isa].vec;
}

/* ---- what a machine has ---- */

#if defined(__x86_64__)
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

cp_cpu cp_isa_this_cpu(void)
{
    enum { YMM = 6, ZMM = 0xe6 }; /* register state in xcr0 */
    enum { AVX_VNNI = 1 << 4 };   /* leaf 7.1 eax */
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
    return cpu;
}
#else
cp_cpu cp_isa_this_cpu(void)
{
    return (cp_cpu){.adds = 1u << CP_ISA_BASE};
}
#endif

bool cp_isa_on(const cp_cpu *cpu, cp_isa isa)
{
    for (cp_isa i = isa;; i = levels[i].parent) {
        if (!levels[i].fill || !(cpu->adds >> i & 1))
            return false;
        if (i == CP_ISA_BASE)
            return true;
    }
}

bool cp_isa_there(cp_isa isa)
{
    cp_cpu cpu = cp_isa_this_cpu();
    return cp_isa_on(&cpu, isa);
}

/* The names of the levels that cpu has, with a space before each. */
static void list_levels(const cp_cpu *cpu, char *out, size_t n)
{
    size_t at = 0;
    for (int i = 0; i < CP_ISA_COUNT; i++)
        if (cp_isa_on(cpu, (cp_isa)i))
            at += cp_snprintf(out + at, n - at, " %s", levels[i].name);
}

/* ---- what it gets ---- */

/* Processors on which levels were measured beside each other, docs/BENCHMARKS.md "Levels". */
static const cp_isa_default_row defaults[] = {
    {"AuthenticAMD", 25, 0x10, 0x1f, CP_ISA_BF16,
     "bf16 dots make BF16 weights 1.3x as fast with one row, 1.9x from 64 rows on", "2026-11-29"},
};

cp_isa cp_isa_default(const cp_cpu *cpu, const cp_isa_default_row **row)
{
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++) {
        const cp_isa_default_row *r = &defaults[i];
        *row = r;
        if (!strcmp(cpu->vendor, r->vendor) && cpu->family == r->family &&
            cpu->model >= r->model_first && cpu->model <= r->model_last && cp_isa_on(cpu, r->level))
            return r->level;
    }
    *row = NULL;
    cp_isa best = CP_ISA_BASE;
    for (int i = 0; i <= CP_ISA_VNNI; i++)
        best = cp_isa_on(cpu, (cp_isa)i) ? (cp_isa)i : best;
    return best;
}

size_t cp_isa_describe_default(const cp_cpu *cpu, char *out, size_t n)
{
    const cp_isa_default_row *r;
    const char *level = levels[cp_isa_default(cpu, &r)].name;
    if (r)
        return cp_snprintf(out, n, "%s (row %s family %d models %d to %d, %s: %s)", level,
                           r->vendor, r->family, r->model_first, r->model_last, r->date, r->reason);
    return cp_snprintf(out, n,
                       "%s (no row for %s family %d model %d: the highest of base avx2 avxvnni "
                       "avx512 vnni)",
                       level, *cpu->vendor ? cpu->vendor : "this processor", cpu->family,
                       cpu->model);
}

cp_code cp_isa_detect(const char *name, cp_isa *out, cp_err *err)
{
    const char *where = name ? "CPU level" : "CAPSTAN_CPU";
    cp_cpu cpu = cp_isa_this_cpu();
    if (!name)
        name = getenv("CAPSTAN_CPU");
    if (!name || !*name) {
        const cp_isa_default_row *row;
        *out = cp_isa_default(&cpu, &row);
        return CP_OK;
    }
    const char *why = "is unknown";
    for (int i = 0; i < CP_ISA_COUNT; i++) {
        if (strcmp(name, levels[i].name) != 0)
            continue;
        if (cp_isa_on(&cpu, (cp_isa)i)) {
            *out = (cp_isa)i;
            return CP_OK;
        }
        why = levels[i].fill ? "is not on this machine" : "is not in this build";
    }
    char names[96];
    list_levels(&cpu, names, sizeof names);
    return cp_fail(err, CP_USAGE, "%s '%s' %s; take one of:%s", where, name, why, names);
}
