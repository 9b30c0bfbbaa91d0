/*
 * isa: the table of instruction levels, which of them this machine and its operating system grant,
 * and the table of defaults.
 *
 * A row says what a level adds to the one it stands on; machine.c says which of that a machine has.
 */
#include "kernels/cpu/isa.h"

#include "base/log.h"
#include "base/mem.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#define X86(x) x
#else
#define X86(x) NULL
#endif

typedef struct level_row {
    const char *name;
    cp_isa parent;
    void (*fill)(cp_gemm_table *t);      /* what its linears do otherwise; NULL: it is not built */
    const cp_vec *vec;                   /* NULL: those of the level it stands on */
    void (*attend)(const cp_attend *a);  /* NULL: that of the vectors */
    void (*enter)(void), (*leave)(void); /* around a worker's use of them; NULL: nothing to do */
} level_row;

static const level_row levels[CP_ISA_COUNT] = {
    [CP_ISA_BASE] = {"base", CP_ISA_BASE, cp_gemm_fill_base, &cp_vec_base, NULL, NULL, NULL},
    [CP_ISA_AVX2] = {"avx2", CP_ISA_BASE, X86(cp_gemm_fill_avx2), X86(&cp_vec_avx2), NULL, NULL,
                     NULL},
    [CP_ISA_AVXVNNI] = {"avxvnni", CP_ISA_AVX2, X86(cp_gemm_fill_avxvnni), NULL, NULL, NULL, NULL},
    [CP_ISA_AVX512] = {"avx512", CP_ISA_AVX2, X86(cp_gemm_fill_avx512), X86(&cp_vec_avx512), NULL,
                       NULL, NULL},
    [CP_ISA_VNNI] = {"vnni", CP_ISA_AVX512, X86(cp_gemm_fill_vnni), NULL, NULL, NULL, NULL},
    [CP_ISA_BF16] = {"bf16", CP_ISA_VNNI, X86(cp_gemm_fill_bf16), NULL, NULL, NULL, NULL},
    [CP_ISA_AMX] = {"amx", CP_ISA_VNNI, X86(cp_gemm_fill_amx), NULL, X86(cp_attend_amx),
                    X86(cp_tiles_enter), X86(cp_tiles_leave)},
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

void (*cp_isa_attend(cp_isa isa))(const cp_attend *a)
{
    return levels[isa].attend;
}

void cp_isa_enter(cp_isa isa)
{
    if (levels[isa].enter)
        levels[isa].enter();
}

void cp_isa_leave(cp_isa isa)
{
    if (levels[isa].leave)
        levels[isa].leave();
}

/* ---- what a machine has ---- */

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
    return cp_isa_on(&cpu, isa) && cp_isa_grant(isa, NULL) == CP_OK;
}

/* The names of the levels that cpu has, or of those that it lacks, with a space before each. */
static size_t list_levels(const cp_cpu *cpu, bool has, char *out, size_t n)
{
    size_t at = 0;
    for (int i = 0; i < CP_ISA_COUNT; i++)
        if (cp_isa_on(cpu, (cp_isa)i) == has)
            at += cp_snprintf(out + at, n - at, " %s", levels[i].name);
    return at;
}

size_t cp_isa_describe_levels(const cp_cpu *cpu, char *out, size_t n)
{
    char has[96], lacks[96];
    list_levels(cpu, true, has, sizeof has);
    bool all = list_levels(cpu, false, lacks, sizeof lacks) == 0;
    return cp_snprintf(out, n, "%s%s%s", has + 1,
                       all ? "" : "; not on this machine:", all ? "" : lacks);
}

/* ---- what it gets ---- */

/* Processors on which levels were measured beside each other, docs/BENCHMARKS.md "Levels". */
static const cp_isa_default_row defaults[] = {
    {"AuthenticAMD", 25, 0x10, 0x1f, CP_ISA_BF16,
     "bf16 dots make BF16 weights 1.3x as fast with one row, 1.9x from 64 rows on", "2026-11-29"},
    /* From Sapphire Rapids to Emerald Rapids; measured on a guest that says 167. */
    {"GenuineIntel", 6, 143, 207, CP_ISA_AMX,
     "tiles make prefill 1.2 to 3.3x as fast, eight sequences of BF16 weights 1.4x", "2026-12-01"},
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
        cp_err why = {0};
        if (cp_isa_grant(*out, &why) != CP_OK) { /* nobody asked for it: what is left will do */
            cpu.adds &= ~(1u << *out);
            cp_isa next = cp_isa_default(&cpu, &row);
            cp_log(CP_LOG_WARN, "CPU level %s in place of %s: %s", levels[next].name,
                   levels[*out].name, why.msg);
            *out = next;
        }
        return CP_OK;
    }
    const char *why = "is unknown";
    for (int i = 0; i < CP_ISA_COUNT; i++) {
        if (strcmp(name, levels[i].name) != 0)
            continue;
        if (cp_isa_on(&cpu, (cp_isa)i)) {
            *out = (cp_isa)i;
            if (cp_isa_grant((cp_isa)i, err) == CP_OK)
                return CP_OK;
            cp_err_prefix(err, "%s '%s'", where, name);
            return CP_USAGE;
        }
        why = levels[i].fill ? cp_isa_lacks((cp_isa)i) : "is not in this build";
    }
    char names[96];
    list_levels(&cpu, true, names, sizeof names);
    return cp_fail(err, CP_USAGE, "%s '%s' %s; take one of:%s", where, name, why, names);
}
