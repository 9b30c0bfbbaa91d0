/*
 * The vector functions of level base with lane trees of 16 partial sums in place of CP_PARTIALS,
 * for bench_lanes.
 */
#define TREE_VECTORS 1
#define cp_vec_base  lanes16_base
#include "kernels/cpu/ops_base.c"
