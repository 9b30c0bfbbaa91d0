/*
 * dtype: a row describes each tensor type of GGUF; the enum values are GGUF's own ids.
 *
 * A row states how many weights a block has and how many bytes it takes. A tensor takes rows *
 * (ne[0] / block) * bytes: one of 4096 x 2 in Q4_0 (blocks of 32 in 18 bytes) takes 2 * 128 * 18 =
 * 4608. The source is ggml.h, enum ggml_type, and its block structures. Any thread may read the
 * rows.
 */
#ifndef CP_BASE_DTYPE_H
#define CP_BASE_DTYPE_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(NAME, gguf id, elements a block, bytes a block) */
#define CP_DTYPES(X)                                                                               \
    X(F32, 0, 1, 4)                                                                                \
    X(F16, 1, 1, 2)                                                                                \
    X(Q4_0, 2, 32, 18)                                                                             \
    X(Q4_1, 3, 32, 20)                                                                             \
    X(Q5_0, 6, 32, 22)                                                                             \
    X(Q5_1, 7, 32, 24)                                                                             \
    X(Q8_0, 8, 32, 34)                                                                             \
    X(Q8_1, 9, 32, 36)                                                                             \
    X(Q2_K, 10, 256, 84)                                                                           \
    X(Q3_K, 11, 256, 110)                                                                          \
    X(Q4_K, 12, 256, 144)                                                                          \
    X(Q5_K, 13, 256, 176)                                                                          \
    X(Q6_K, 14, 256, 210)                                                                          \
    X(Q8_K, 15, 256, 292)                                                                          \
    X(IQ2_XXS, 16, 256, 66)                                                                        \
    X(IQ2_XS, 17, 256, 74)                                                                         \
    X(IQ3_XXS, 18, 256, 98)                                                                        \
    X(IQ1_S, 19, 256, 50)                                                                          \
    X(IQ4_NL, 20, 32, 18)                                                                          \
    X(IQ3_S, 21, 256, 110)                                                                         \
    X(IQ2_S, 22, 256, 82)                                                                          \
    X(IQ4_XS, 23, 256, 136)                                                                        \
    X(I8, 24, 1, 1)                                                                                \
    X(I16, 25, 1, 2)                                                                               \
    X(I32, 26, 1, 4)                                                                               \
    X(I64, 27, 1, 8)                                                                               \
    X(F64, 28, 1, 8)                                                                               \
    X(IQ1_M, 29, 256, 56)                                                                          \
    X(BF16, 30, 1, 2)                                                                              \
    X(TQ1_0, 34, 256, 54)                                                                          \
    X(TQ2_0, 35, 256, 66)                                                                          \
    X(MXFP4, 39, 32, 17)                                                                           \
    X(NVFP4, 40, 64, 36)                                                                           \
    X(Q1_0, 41, 128, 18)                                                                           \
    X(Q2_0, 42, 64, 18)

typedef enum cp_dtype {
#define X(name, id, elems, bytes) CP_DTYPE_##name = id,
    CP_DTYPES(X)
#undef X
        CP_DTYPE_LIMIT = 64
} cp_dtype;

typedef struct cp_dtype_row {
    const char *name; /* "Q4_K"; NULL for an id that does not exist */
    int block;        /* elements a block */
    int bytes;        /* bytes a block */
} cp_dtype_row;

/* The row of a type id, or NULL when the id is unknown or removed. Any thread. */
const cp_dtype_row *cp_dtype_info(uint32_t id);

/*
 * A tensor as it lies in a model file: GGUF dimension order, ne[0] is the contiguous one (a weight
 * matrix [out, in] has ne = {in, out}). data points into the mapped file and is not owned. Unused
 * dimensions are 1.
 */
typedef struct cp_tensor {
    const char *name;
    cp_dtype type;
    int n_dims;
    int64_t ne[4];
    size_t bytes;
    const void *data;
} cp_tensor;

static inline size_t cp_tensor_row_bytes(const cp_tensor *t)
{
    const cp_dtype_row *r = cp_dtype_info((uint32_t)t->type);
    return (size_t)(t->ne[0] / r->block) * (size_t)r->bytes;
}

#endif
