/*
 * Attention of the level amx over the tile unit of tiles.h, with AVX2's vectors: stands in for
 * attend_amx.c's object (level.c).
 */
#include "kernels/cpu/vec.h"
#include "kernels/math.h"
#include "kernels/pages.h"
#include "tests/kernels/amx/tiles.h"

#include <string.h>

#include "kernels/cpu/v16_avx2.h"
#include "kernels/cpu/v16_math.h"

#include "kernels/cpu/sums.inc"

#include "kernels/cpu/attend_tiles.inc"
