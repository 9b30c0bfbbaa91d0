/*
 * The vector functions of level avx2 with lane trees of 16 partial sums in place of CP_PARTIALS,
 * for bench_lanes.
 */
#define TREE_VECTORS 1
#define cp_vec_avx2  lanes16_avx2
#include "kernels/cpu/ops_avx2.c"
