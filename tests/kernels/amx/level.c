/*
 * The level amx on any x86-64 machine with AVX2: gemm_tiles.inc over the tile unit of tiles.h, and
 * a machine that says it has the level. Its vectors are AVX-512's where emulated.h can emulate
 * them, else AVX2's. What amx stands on, avx512 and vnni, is avx2's here, whose bits theirs are.
 * Linked before the kernels' library, these objects stand in for that library's.
 */
#include "tests/kernels/emulated.h"

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "kernels/math.h"
#include "tests/kernels/amx/tiles.h"

#ifdef WIDE

#include "kernels/cpu/v16_avx512.h"

#include "kernels/cpu/gemm_wide.inc"

#else

#include "kernels/cpu/v16_avx2.h"

#include "kernels/cpu/gemm_narrow.inc"

#endif

#include "kernels/cpu/gemm_tiles.inc"

/* amx stands on these, and has this; what is below them does. */
void cp_gemm_fill_avx512(cp_gemm_table *t)
{
    (void)t;
}

void cp_gemm_fill_vnni(cp_gemm_table *t)
{
    (void)t;
}

void cp_gemm_fill_few_amx(cp_gemm_table *t)
{
    (void)t;
}

/* AVX2 has to be there for all of it. */
cp_cpu cp_isa_this_cpu(void)
{
    cp_cpu cpu = {.vendor = "emulated", .adds = 1u << CP_ISA_BASE};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        cpu.adds |= 1u << CP_ISA_AVX2 | 1u << CP_ISA_AVX512 | 1u << CP_ISA_VNNI | 1u << CP_ISA_AMX;
    return cpu;
}

const char *cp_isa_lacks(cp_isa isa)
{
    (void)isa;
    return "is not emulated on this machine";
}

cp_code cp_isa_grant(cp_isa isa, cp_err *err)
{
    (void)isa;
    (void)err;
    return CP_OK;
}
