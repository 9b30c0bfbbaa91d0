/*
 * weights: random weight tensors of every type. Blocks are random bytes; the fields that hold a
 * scale are then set to something finite and of natural size, so that sums neither overflow nor
 * vanish.
 */
#include "tests/kernels/weights.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

const int cp_test_types[] = {CP_DTYPE_F32,
                             CP_DTYPE_F16,
                             CP_DTYPE_BF16,
                             CP_DTYPE_Q4_0,
                             CP_DTYPE_Q4_1,
                             CP_DTYPE_Q5_0,
                             CP_DTYPE_Q5_1,
                             CP_DTYPE_Q8_0,
                             CP_DTYPE_Q8_1,
                             CP_DTYPE_Q2_K,
                             CP_DTYPE_Q3_K,
                             CP_DTYPE_Q4_K,
                             CP_DTYPE_Q5_K,
                             CP_DTYPE_Q6_K,
                             CP_DTYPE_Q8_K,
                             CP_DTYPE_IQ1_S,
                             CP_DTYPE_IQ1_M,
                             CP_DTYPE_IQ2_XXS,
                             CP_DTYPE_IQ2_XS,
                             CP_DTYPE_IQ2_S,
                             CP_DTYPE_IQ3_XXS,
                             CP_DTYPE_IQ3_S,
                             CP_DTYPE_IQ4_NL,
                             CP_DTYPE_IQ4_XS,
                             CP_DTYPE_TQ1_0,
                             CP_DTYPE_TQ2_0,
                             CP_DTYPE_MXFP4,
                             CP_DTYPE_NVFP4,
                             CP_DTYPE_Q1_0,
                             CP_DTYPE_Q2_0,
                             -1};

/* Byte offsets of the half-precision scales in a block; -1: none. */
static const struct half_fields {
    int type, at[2];
} half_fields[] = {
    {CP_DTYPE_Q4_0, {0, -1}},    {CP_DTYPE_Q4_1, {0, 2}},    {CP_DTYPE_Q5_0, {0, -1}},
    {CP_DTYPE_Q5_1, {0, 2}},     {CP_DTYPE_Q8_0, {0, -1}},   {CP_DTYPE_Q8_1, {0, 2}},
    {CP_DTYPE_Q2_K, {80, 82}},   {CP_DTYPE_Q3_K, {108, -1}}, {CP_DTYPE_Q4_K, {0, 2}},
    {CP_DTYPE_Q5_K, {0, 2}},     {CP_DTYPE_Q6_K, {208, -1}}, {CP_DTYPE_IQ1_S, {0, -1}},
    {CP_DTYPE_IQ2_XXS, {0, -1}}, {CP_DTYPE_IQ2_XS, {0, -1}}, {CP_DTYPE_IQ2_S, {0, -1}},
    {CP_DTYPE_IQ3_XXS, {0, -1}}, {CP_DTYPE_IQ3_S, {0, -1}},  {CP_DTYPE_IQ4_NL, {0, -1}},
    {CP_DTYPE_IQ4_XS, {0, -1}},  {CP_DTYPE_TQ1_0, {52, -1}}, {CP_DTYPE_TQ2_0, {64, -1}},
    {CP_DTYPE_Q1_0, {0, -1}},    {CP_DTYPE_Q2_0, {0, -1}},
};

uint64_t cp_test_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

float cp_test_uniform(uint64_t *s)
{
    return (float)(cp_test_random(s) >> 40) * 0x1p-23f - 1.0f;
}

/* A half in +-[2^-7, 2^-5). */
static void set_half(uint8_t *p, uint64_t *s)
{
    uint64_t r = cp_test_random(s);
    uint16_t h = (uint16_t)((r & 0x8000) | (0x2000 + (r >> 20) % 0x800));
    memcpy(p, &h, sizeof h);
}

static void fix_block(cp_dtype t, uint8_t *b, size_t row, uint64_t *s)
{
    for (size_t i = 0; i < sizeof half_fields / sizeof *half_fields; i++)
        if (half_fields[i].type == (int)t)
            for (int j = 0; j < 2; j++)
                if (half_fields[i].at[j] >= 0)
                    set_half(b + half_fields[i].at[j], s);
    if (t == CP_DTYPE_Q8_K) {
        float d = cp_test_uniform(s) * 0.01f;
        memcpy(b, &d, sizeof d);
    }
    if (t == CP_DTYPE_IQ1_M)
        b[55] = (uint8_t)((b[55] & 0x8f) | 0x20); /* exponent of the spread scale */
    if (t == CP_DTYPE_MXFP4)
        b[0] = (uint8_t)(row % 4 == 3 ? b[0] % 5 : 118 + b[0] % 8); /* denormal ones too */
    if (t == CP_DTYPE_NVFP4)
        for (int i = 0; i < 4; i++)
            b[i] &= 0x3f;
}

cp_tensor cp_test_tensor(cp_dtype t, int64_t k, int64_t m, uint64_t seed)
{
    cp_tensor x = {.name = "test", .type = t, .n_dims = 2, .ne = {k, m, 1, 1}};
    const cp_dtype_row *info = cp_dtype_info((uint32_t)t);
    uint64_t s = seed * 0x9e3779b97f4a7c15u + 1;
    x.bytes = (size_t)m * cp_tensor_row_bytes(&x);
    uint8_t *p = cp_alloc_aligned(x.bytes);
    CP_ASSERT(p && k % info->block == 0);
    for (size_t i = 0; i < x.bytes; i++)
        p[i] = (uint8_t)(cp_test_random(&s) >> 32);
    for (size_t at = 0; at < x.bytes; at += (size_t)info->bytes) {
        float f = cp_test_uniform(&s);
        if (t == CP_DTYPE_F32)
            memcpy(p + at, &f, 4);
        else if (t == CP_DTYPE_BF16)
            memcpy(p + at, (uint8_t *)&f + 2, 2);
        else if (t == CP_DTYPE_F16)
            set_half(p + at, &s);
        else
            fix_block(t, p + at, at / cp_tensor_row_bytes(&x), &s);
    }
    x.data = p;
    return x;
}

cp_tensor cp_test_matrices(cp_dtype t, int64_t k, int64_t m, int64_t n_matrices, uint64_t seed)
{
    cp_tensor x = cp_test_tensor(t, k, m * n_matrices, seed);
    x.n_dims = 3;
    x.ne[1] = m;
    x.ne[2] = n_matrices;
    return x;
}

cp_code cp_test_pack(cp_linear *l, cp_panels *panels, cp_pool *pool, cp_err *err)
{
    cp_gemm_weight *w[4];
    return cp_gemm_weights_pack(w, cp_linear_weights(l, w), panels, pool, err);
}

void cp_test_free(cp_tensor *t)
{
    union {
        const void *c;
        void *p;
    } u = {.c = t->data};
    free(u.p);
    t->data = NULL;
}

int cp_test_kinds(cp_dtype types[CP_PANEL_COUNT])
{
    bool seen[CP_PANEL_COUNT] = {false};
    int n = 0;
    for (const int *t = cp_test_types; *t >= 0; t++) {
        cp_panel_kind kind = cp_panel_kind_of((cp_dtype)*t);
        if (!seen[kind])
            types[n++] = (cp_dtype)*t;
        seen[kind] = true;
    }
    return n;
}
