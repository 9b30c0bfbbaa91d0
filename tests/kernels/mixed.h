/*
 * mixed: a small model with every operation of a forward (full and window attention, a short
 * convolution, gated FFN, experts, several weight types, two embeddings) as a rig's program.
 */
#ifndef CP_TESTS_KERNELS_MIXED_H
#define CP_TESTS_KERNELS_MIXED_H

#include "tests/kernels/rig.h"

enum { MIXED_VOCAB = 130, MIXED_WINDOW = 24 };

/* Groups: full, window, state. dense > 0: that many attention + FFN layers, a FULL group each,
 * and nothing else. */
void mixed_build(rig *r, int dense);

#endif
