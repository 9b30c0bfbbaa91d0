/*
 * weights.h: random weight tensors of every type, with finite scales, for the kernel tests. A
 * deterministic generator, so that a failure can be repeated from its seed.
 */
#ifndef CP_TESTS_KERNELS_WEIGHTS_H
#define CP_TESTS_KERNELS_WEIGHTS_H

#include "base/dtype.h"

/* Types that a LINEAR accepts, ended by -1. */
extern const int cp_test_types[];

/* xorshift64; *s must not be 0. */
uint64_t cp_test_random(uint64_t *s);
/* Uniform in [-1, 1). */
float cp_test_uniform(uint64_t *s);
/* A [k, m] tensor of type t with random content; data is allocated (free with cp_test_free). */
cp_tensor cp_test_tensor(cp_dtype t, int64_t k, int64_t m, uint64_t seed);
void cp_test_free(cp_tensor *t);

#endif
