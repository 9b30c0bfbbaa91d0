/*
 * test_unpack: panels as a table by hand, kind by kind: where in a block each element's bits lie
 * (the registers of a GPU's matrix product, which reads panels as they are) and what they and the
 * scales stand for. Nothing here is taken from kernels/unpack.c.
 */
#include "kernels/math.h"
#include "kernels/unpack.h"
#include "tests/kernels/weights.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define K    512
#define ROWS 13 /* of 16 lanes; the others are zero */

static const int8_t e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113};

/* Where a scale is: bytes from the end of the integers, and its format. */
typedef enum format { ABSENT, HALF, FLOAT, HALF_X_S8, HALF_X_U8, E8M0, UE4M3 } format;
typedef struct kind_row {
    cp_dtype type;
    cp_panel_kind kind;
    int bits, offset, block, head;
    const int8_t *values; /* of codes; NULL: integers, with the offset added */
    format wd, wm;
    int wd_at[2], wm_at[2]; /* of the two 16-groups */
    int head_wm;            /* of the header's second half */
} kind_row;

/* clang-format off */
static const kind_row kinds[] = {
    {CP_DTYPE_Q4_0,   CP_PANEL_N4H,  4,   8, 288,  0, NULL, HALF, ABSENT, {0, 0}, {0}, 0},
    {CP_DTYPE_Q4_1,   CP_PANEL_N4HM, 4,   0, 320,  0, NULL, HALF, HALF, {0, 0}, {32, 32}, 0},
    {CP_DTYPE_Q4_K,   CP_PANEL_N4K,  4,   0, 288, 64, NULL, HALF_X_U8, HALF_X_U8, {0, 0}, {16, 16}, 32},
    {CP_DTYPE_Q5_0,   CP_PANEL_N5H,  5,  16, 352,  0, NULL, HALF, ABSENT, {0, 0}, {0}, 0},
    {CP_DTYPE_Q5_1,   CP_PANEL_N5HM, 5,   0, 384,  0, NULL, HALF, HALF, {0, 0}, {32, 32}, 0},
    {CP_DTYPE_Q5_K,   CP_PANEL_N5K,  5,   0, 352, 64, NULL, HALF_X_U8, HALF_X_U8, {0, 0}, {16, 16}, 32},
    {CP_DTYPE_Q6_K,   CP_PANEL_N6K,  6,  32, 416, 32, NULL, HALF_X_S8, ABSENT, {0, 16}, {0}, 0},
    {CP_DTYPE_MXFP4,  CP_PANEL_F4E,  4,   0, 272,  0, e2m1, E8M0, ABSENT, {0, 0}, {0}, 0},
    {CP_DTYPE_NVFP4,  CP_PANEL_F4G,  4,   0, 288,  0, e2m1, UE4M3, ABSENT, {0, 16}, {0}, 0},
    {CP_DTYPE_IQ4_NL, CP_PANEL_I4H,  4,   0, 288,  0, iq4, HALF, ABSENT, {0, 0}, {0}, 0},
    {CP_DTYPE_IQ4_XS, CP_PANEL_I4K,  4,   0, 272, 32, iq4, HALF_X_S8, ABSENT, {0, 0}, {0}, 0},
    {CP_DTYPE_Q8_0,   CP_PANEL_N8H,  8, 128, 544,  0, NULL, HALF, ABSENT, {0, 0}, {0}, 0},
    {CP_DTYPE_IQ3_S,  CP_PANEL_N8F,  8, 128, 576,  0, NULL, FLOAT, ABSENT, {0, 0}, {0}, 0},
    {CP_DTYPE_Q3_K,   CP_PANEL_N8G,  8, 128, 640,  0, NULL, FLOAT, ABSENT, {0, 64}, {0}, 0},
    {CP_DTYPE_Q2_K,   CP_PANEL_N8GM, 8, 128, 768,  0, NULL, FLOAT, FLOAT, {0, 64}, {128, 192}, 0},
};
/* clang-format on */
#define N_KINDS (sizeof kinds / sizeof *kinds)

/* Bytes of a block before its scales. */
static int integer_bytes(int bits)
{
    return bits == 8 ? 512 : bits == 6 ? 384 : bits == 5 ? 320 : 256;
}

/*
 * The A fragment of mma.m16n8k32 with 8-bit elements (PTX ISA): of row `row`, thread t of the row's
 * four has a0 = columns 4 t to 4 t + 3, a2 = those 16 further. Here a row is an output, a column an
 * input of the block, and byte i of a register comes out of the word (t, output) of the panel.
 */
static int fragment(const kind_row *r, const uint8_t *block, int output, int t, int reg, int i)
{
    const uint8_t *word = block + 64 * t + 4 * output;
    int high = reg == 2, line = t + 4 * high;
    if (r->bits == 8)
        return word[256 * high + i];
    int v = word[i] >> (4 * high) & 15;
    const uint8_t *plane = block + 256 + 4 * output;
    if (r->bits == 5)
        v |= (plane[i] >> line & 1) << 4;
    if (r->bits == 6)
        v |= (plane[64 * high + i] >> 2 * t & 3) << 4;
    return v;
}

static float half_at(const uint8_t *p, int lane)
{
    uint16_t h;
    memcpy(&h, p + 2 * lane, sizeof h);
    return cp_f32_from_f16(h);
}

static float scale(format f, const uint8_t *head, const uint8_t *p, int lane)
{
    float x = 0.0f;
    switch (f) {
    case HALF:
        return half_at(p, lane);
    case FLOAT:
        memcpy(&x, p + 4 * lane, sizeof x);
        return x;
    case HALF_X_S8:
        return half_at(head, lane) * (float)(int8_t)p[lane];
    case HALF_X_U8:
        return half_at(head, lane) * (float)p[lane];
    case E8M0:
        return ldexpf(1.0f, p[lane] - 128);
    case UE4M3:
        return p[lane] >> 3 ? ldexpf((float)(8 + (p[lane] & 7)), (p[lane] >> 3) - 7 - 3 - 1)
                            : ldexpf((float)(p[lane] & 7), -6 - 3 - 1);
    default:
        return x;
    }
}

static void check_block(const kind_row *r, const cp_tensor *t, const uint8_t *head,
                        const uint8_t *block, int b, int output)
{
    const uint8_t *scales = block + integer_bytes(r->bits);
    cp_qblock q = {0};
    if (output < ROWS)
        cp_unquant_block(r->type,
                         (const uint8_t *)t->data + (size_t)output * cp_tensor_row_bytes(t), b, &q);
    for (int i = 0; i < CP_QBLOCK; i++) {
        int v = fragment(r, block, output, i % 16 / 4, i / 16 * 2, i % 4);
        int stands = r->values ? r->values[v] : v - r->offset;
        if (output < ROWS ? stands != q.q[i] : v != 0)
            fail_msg("%s: block %d, output %d, input %d is %d for %d",
                     cp_dtype_info((uint32_t)r->type)->name, b, output, i, stands, q.q[i]);
    }
    for (int g = 0; g < 2 && output < ROWS; g++) {
        float wd = scale(r->wd, head, scales + r->wd_at[g], output);
        float wm = scale(r->wm, head + r->head_wm, scales + r->wm_at[g], output);
        wm = r->wm == HALF_X_U8 ? -wm : wm;
        if (wd != q.wd[g] || wm != q.wm[g])
            fail_msg("%s: block %d, output %d has the scales %a, %a for %a, %a",
                     cp_dtype_info((uint32_t)r->type)->name, b, output, (double)wd, (double)wm,
                     (double)q.wd[g], (double)q.wm[g]);
    }
}

static void check_tensor(const kind_row *r, const cp_tensor *t)
{
    size_t bytes = cp_panel_bytes(r->kind, K);
    uint8_t *panel = cp_alloc_aligned(bytes);
    const uint8_t *head = panel, *block = panel;
    memset(panel, 0xee, bytes);
    cp_unpack_of(r->type)(t, 0, ROWS, panel);
    for (int b = 0; b < K / CP_QBLOCK; b++, block += r->block) {
        if (r->head && b % 8 == 0) {
            head = block;
            block += r->head;
        }
        for (int output = 0; output < CP_LANES; output++)
            check_block(r, t, head, block, b, output);
    }
    assert_true((size_t)(block - panel) <= bytes && (size_t)(block - panel) + 64 > bytes);
    free(panel);
}

static void test_every_kind(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        assert_int_equal(cp_panel_kind_of(kinds[i].type), kinds[i].kind);
        cp_tensor t = cp_test_tensor(kinds[i].type, K, ROWS, i + 3);
        check_tensor(&kinds[i], &t);
        cp_test_free(&t);
    }
}

/* The kinds of quantized weights are these and no others. */
static void test_none_is_missing(void **state)
{
    (void)state;
    for (int kind = 0; kind < CP_PANEL_COUNT; kind++) {
        int rows = 0;
        for (size_t i = 0; i < N_KINDS; i++)
            rows += (int)kinds[i].kind == kind;
        assert_int_equal(rows, !cp_panel_is_float((cp_panel_kind)kind));
    }
}

/* K of each type is a whole number of the blocks that a kernel takes of its kind at a time. */
static void test_blocks_come_together(void **state)
{
    (void)state;
    static const struct {
        int kind, blocks;
    } rows[] = {
#define X(name, bits, codes, form, offset, block, head) {CP_PANEL_##name, CP_FORM_BLOCKS(form)},
        CP_INT_PANELS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (const int *t = cp_test_types; *t >= 0; t++)
            if ((int)cp_panel_kind_of((cp_dtype)*t) == rows[i].kind)
                assert_int_equal(cp_dtype_info((uint32_t)*t)->block % (rows[i].blocks * CP_QBLOCK),
                                 0);
}

/* Every byte that a scale of one byte can be. */
static void test_every_scale(void **state)
{
    (void)state;
    static const struct {
        cp_dtype type;
        int n, bytes; /* scales, at the block's begin */
    } rows[] = {{CP_DTYPE_MXFP4, 1, 17}, {CP_DTYPE_NVFP4, 4, 36}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < N_KINDS; k++) {
            if (kinds[k].type != rows[i].type)
                continue;
            cp_tensor t = cp_test_tensor(rows[i].type, K, ROWS, 9);
            uint8_t *p = cp_alloc_aligned(t.bytes);
            cp_tensor all = t;
            all.data = p;
            memcpy(p, t.data, t.bytes);
            for (int from = 0; from < 256; from += 128) { /* each time at least half of them */
                uint8_t next = (uint8_t)from;
                for (size_t at = 0; at < t.bytes; at += (size_t)rows[i].bytes)
                    for (int j = 0; j < rows[i].n; j++)
                        p[at + (size_t)j] = next++;
                check_tensor(&kinds[k], &all);
            }
            free(p);
            cp_test_free(&t);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_none_is_missing),
        cmocka_unit_test(test_every_scale),
        cmocka_unit_test(test_blocks_come_together),
    };
    return cmocka_run_group_tests_name("unpack", tests, NULL, NULL);
}
