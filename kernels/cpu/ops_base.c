/*
 * The walker's vector functions at base level: plain C, fmaf where the machine has no FMA.
 * Everything in here is static but the table; the arithmetic stands in the shared sources.
 */
#include "kernels/cpu/vec.h"
#include "kernels/math.h"
#include "kernels/pages.h"

#include <string.h>

/* After kernels/math.h, which they repeat lane by lane. */
#include "kernels/cpu/v16_base.h"
#include "kernels/cpu/v16_math.h"

#include "kernels/cpu/ops.inc"

#include "kernels/cpu/attend.inc"

#include "kernels/cpu/delta.inc"

#include "kernels/cpu/experts.inc"

#include "kernels/cpu/logits.inc"

#include "kernels/cpu/vec_table.inc"

const cp_vec cp_vec_base = VEC_TABLE;
