/*
 * shape: models of a given shape with random weights, as programs. Internal to bench/selftest.
 *
 * A decoder of equal layers: rmsnorm, attention with grouped heads and rope, rmsnorm, gated FFN.
 * What weights stand for is of no matter, only that their numbers are ordinary. Tensors lie over
 * one another, a little apart, and far enough in a program begin again: a model of 70 B parameters
 * takes no more of the host than its largest matrix, of a device some hundred MiB, and no cache
 * holds it.
 */
#ifndef CP_BENCH_SELFTEST_SHAPE_H
#define CP_BENCH_SELFTEST_SHAPE_H

#include "kernels/kernels.h"

typedef struct self_shape {
    const char *name;
    int d, n_heads, n_kv, head, ff, n_layers, vocab;
} self_shape;

typedef struct self_model {
    cp_program prog;
    self_shape shape;
    cp_tensor *tensors; /* [prog.n_weights] */
    void *bytes, *floats;
    int place;   /* of the next weight among `bytes` */
    size_t laid; /* bytes of weights since place 0 */
    float inv_freq[256];
} self_model;

/* Free with cp_self_model_free, also after an error. */
cp_code cp_self_model_new(self_model *m, const self_shape *s, cp_dtype type, uint64_t seed,
                          cp_err *err);
/* n linears over one input, each with a weight of its own; n records that do next to nothing. */
cp_code cp_self_linears_new(self_model *m, cp_dtype type, int k, int outputs, int n, uint64_t seed,
                            cp_err *err);
void cp_self_ropes_new(self_model *m, int n);
void cp_self_model_free(self_model *m);

#endif
