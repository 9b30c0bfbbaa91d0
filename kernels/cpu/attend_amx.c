/*
 * attend_amx: attention by AMX tiles, with vectors of 512 bits for the softmax.
 */
#include "kernels/cpu/vec.h"
#include "kernels/math.h"
#include "kernels/pages.h"

#include <string.h>

#include "kernels/cpu/v16_avx512.h"
#include "kernels/cpu/v16_math.h"

#include "kernels/cpu/sums.inc"

#include "kernels/cpu/tiles.h"

#include "kernels/cpu/attend_tiles.inc"
