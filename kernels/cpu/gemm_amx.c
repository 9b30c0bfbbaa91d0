/*
 * gemm_amx: AMX tiles with vectors of 512 bits beside them.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include "kernels/cpu/v16_avx512.h"

#include "kernels/cpu/gemm_wide.inc"

#include "kernels/cpu/gemm_tiles.inc"
