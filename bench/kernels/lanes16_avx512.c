/*
 * The vector functions of level avx512 with lane trees of 16 partial sums in place of CP_PARTIALS,
 * for bench_lanes.
 */
#define TREE_VECTORS  1
#define cp_vec_avx512 lanes16_avx512
#include "kernels/cpu/ops_avx512.c"
