/* The vector functions that level amx has from avx512, here avx2's (level.c). */
#define cp_vec_avx2 cp_vec_avx512
#include "kernels/cpu/ops_avx2.c"
