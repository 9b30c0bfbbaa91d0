/*
 * weights.h: random weight tensors of every type, with finite scales, for the kernel tests. A
 * deterministic generator, so that a failure can be repeated from its seed.
 */
#ifndef CP_TESTS_KERNELS_WEIGHTS_H
#define CP_TESTS_KERNELS_WEIGHTS_H

#include "kernels/cpu/linear.h"

/* Types that a LINEAR accepts, ended by -1. */
extern const int cp_test_types[];
/* The first type of each kind of panel, and how many there are. */
int cp_test_kinds(cp_dtype types[CP_PANEL_COUNT]);

/* xorshift64; *s must not be 0. */
uint64_t cp_test_random(uint64_t *s);
/* Uniform in [-1, 1). */
float cp_test_uniform(uint64_t *s);
/* A [k, m] tensor of type t with random content; data is allocated (free with cp_test_free). */
cp_tensor cp_test_tensor(cp_dtype t, int64_t k, int64_t m, uint64_t seed);
/* The same of n_matrices matrices, [k, m, n_matrices]. */
cp_tensor cp_test_matrices(cp_dtype t, int64_t k, int64_t m, int64_t n_matrices, uint64_t seed);
void cp_test_free(cp_tensor *t);
/* Packs the weights of one LINEAR. */
cp_code cp_test_pack(cp_linear *l, cp_panels *panels, cp_pool *pool, cp_err *err);

#endif
