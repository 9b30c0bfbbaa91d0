/*
 * tables: all rows that the machine has, those of the opcode files at the level of this processor.
 * PTXVM_PLAIN in the environment takes the plain ones: the row tests run on both.
 */
#include "tests/ptxvm/machine.h"

#include <stdlib.h>
#ifdef PTX_HAS_V3
#include <cpuid.h>
#endif

static const ptx_row *const plain[] = {
    ptx_rows_memory,  ptx_rows_async, ptx_rows_flow,   ptx_rows_warp, ptx_rows_move,
    ptx_rows_integer, ptx_rows_float, ptx_rows_matrix, NULL,
};

#ifdef PTX_HAS_V3
extern const ptx_row ptx_rows_move_v3[], ptx_rows_integer_v3[], ptx_rows_float_v3[],
    ptx_rows_matrix_v3[];
static const ptx_row *const v3[] = {
    ptx_rows_memory,     ptx_rows_async,    ptx_rows_flow,      ptx_rows_warp, ptx_rows_move_v3,
    ptx_rows_integer_v3, ptx_rows_float_v3, ptx_rows_matrix_v3, NULL,
};

/* clang 14 has no name for it. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

const ptx_row *const *ptx_tables(void)
{
    const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                     has_f16c() && __builtin_cpu_supports("bmi2");
    return has && !getenv("PTXVM_PLAIN") ? v3 : plain;
}
#else
const ptx_row *const *ptx_tables(void)
{
    return plain;
}
#endif
