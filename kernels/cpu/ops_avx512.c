/*
 * The walker's vector functions at AVX-512 F/BW/DQ/VL. Everything in here is static but the
 * table; the arithmetic stands in the shared sources.
 */
#include "kernels/cpu/vec.h"
#include "kernels/math.h"
#include "kernels/pages.h"

#include <string.h>

/* After kernels/math.h, which they repeat lane by lane. */
#include "kernels/cpu/v16_avx512.h"
#include "kernels/cpu/v16_math.h"

#include "kernels/cpu/ops.inc"

#include "kernels/cpu/attend.inc"

#include "kernels/cpu/delta.inc"

#include "kernels/cpu/experts.inc"

#include "kernels/cpu/logits.inc"

#include "kernels/cpu/vec_table.inc"

const cp_vec cp_vec_avx512 = VEC_TABLE;
