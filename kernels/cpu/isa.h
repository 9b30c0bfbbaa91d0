/*
 * isa: the instruction levels of the cpu backend, which of them a machine has and which it gets.
 *
 * A level is what its row in isa.c adds to the level it stands on: cpuid bits with the operating
 * system's consent (xgetbv), and functions. avxvnni and avx512 both stand on avx2, so levels are no
 * ascending number: ask cp_isa_over(). Any thread.
 */
#ifndef CP_KERNELS_CPU_ISA_H
#define CP_KERNELS_CPU_ISA_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>

/* A level comes after the one it stands on. */
typedef enum cp_isa {
    CP_ISA_BASE,
    CP_ISA_AVX2,
    CP_ISA_AVXVNNI,
    CP_ISA_AVX512,
    CP_ISA_VNNI,
    CP_ISA_BF16,
    CP_ISA_AMX,
    CP_ISA_COUNT
} cp_isa;

struct cp_gemm_table;
struct cp_vec;
struct cp_attend;

/* A machine as cpuid shows it. */
typedef struct cp_cpu {
    char vendor[13];   /* "AuthenticAMD" */
    int family, model; /* extended fields added in */
    unsigned adds;     /* bit 1 << level: what the level adds to those below is there */
} cp_cpu;

/* A row of the table of defaults: a processor on which levels were measured. */
typedef struct cp_isa_default_row {
    const char *vendor;
    int family, model_first, model_last;
    cp_isa level;
    const char *reason, *date;
} cp_isa_default_row;

const char *cp_isa_name(cp_isa isa);
/* The level that isa stands on; of base itself. */
cp_isa cp_isa_parent(cp_isa isa);
/* Whether isa is `below` or stands on it. */
bool cp_isa_over(cp_isa isa, cp_isa below);
/* The functions of a level, its own and those of all that it stands on: its linears (gemm.h), and
 * its vector functions (vec.h). */
void cp_isa_gemm(struct cp_gemm_table *t, cp_isa isa);
const struct cp_vec *cp_isa_vec(cp_isa isa);
/* A level's own attention in place of its vectors'; NULL: it has none. */
void (*cp_isa_attend(cp_isa isa))(const struct cp_attend *a);
/* A thread enters a level before it calls its linears and leaves it when it has done with them: amx
 * keeps a tile configuration in between, which slows a thread's switches. */
void cp_isa_enter(cp_isa isa);
void cp_isa_leave(cp_isa isa);
/* Whether this build has the level and cpu has its bits and those of all it stands on. */
bool cp_isa_on(const cp_cpu *cpu, cp_isa isa);
/* The same for this machine, and it may be used: what cp_isa_grant asks for is granted. */
bool cp_isa_there(cp_isa isa);
/* The level that a machine gets when nobody asks for one: that of its row in the table of defaults
 * (*row; NULL: it has none, or lacks the row's level), else the highest that it has of base, avx2,
 * avxvnni, avx512 and vnni: cpuid does not say whether bf16 dots pay, and they change bits. Pure.
 */
cp_isa cp_isa_default(const cp_cpu *cpu, const cp_isa_default_row **row);
/* The level to use: that of a name (NULL: CAPSTAN_CPU; unset or empty: the default, or what is the
 * default without it where the kernel does not grant it), granted. CP_USAGE for a name that is
 * unknown, not built or not on this machine, with those that are, and for one that the kernel does
 * not grant. */
cp_code cp_isa_detect(const char *name, cp_isa *out, cp_err *err);
/* cpu's default in words: "vnni (no row for GenuineIntel ...)". Returns the length, as snprintf. */
size_t cp_isa_describe_default(const cp_cpu *cpu, char *out, size_t n);
/* "base avx2; not on this machine: ..." The same way. */
size_t cp_isa_describe_levels(const cp_cpu *cpu, char *out, size_t n);

/* machine.c: this machine. A level without the register state that the operating system saves for
 * it is not there. */
cp_cpu cp_isa_this_cpu(void);
/* Why a level is not there: "is not on this machine", for amx with what it takes. */
const char *cp_isa_lacks(cp_isa isa);
/* Asks the kernel for what a level that is there needs: for amx the tiles' registers, which are
 * granted to the whole process, its running threads included, for good. CP_USAGE: they are not.
 * Before a sandbox, which lets nobody ask. */
cp_code cp_isa_grant(cp_isa isa, cp_err *err);

#endif
