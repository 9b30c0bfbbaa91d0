/*
 * mma.sync and ldmatrix: matrices of numbers, laid out in registers by layouts.txt (CuTe's strides,
 * layouts.py), against the product written down as three loops.
 */
#include "tests/ptxvm/rows/rowtest.h"

#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>

enum { VALUES = 16 };

/* element[lane][value]: row * columns + column. */
typedef struct layout {
    int rows, columns, values;
    int element[32][VALUES];
} layout;

static layout layout_of(const char *text, char operand)
{
    layout l = {0};
    char line[256], name[128], which;
    FILE *f = fopen(CP_SOURCE_DIR "/tests/ptxvm/rows/layouts.txt", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%127s %c %d %d", name, &which, &l.rows, &l.columns) == 4 &&
            which == operand && strcmp(name, text) == 0)
            break;
        l.rows = 0;
    }
    if (l.rows == 0)
        fail_msg("%s %c: not in layouts.txt", text, operand);
    for (int lane = 0; lane < 32; lane++) {
        assert_non_null(fgets(line, sizeof line, f));
        l.values = 0;
        for (char *save = NULL, *w = strtok_r(line, " \n", &save); w;
             w = strtok_r(NULL, " \n", &save)) {
            assert_true(l.values < VALUES);
            l.element[lane][l.values++] = (int)strtol(w, NULL, 10);
        }
    }
    fclose(f);
    return l;
}

static uint32_t state_of_random = 1;
static uint32_t random_bits(void)
{
    state_of_random = state_of_random * 1664525u + 1013904223u;
    return state_of_random >> 8;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* What the elements are: bits in a register, and how they count. */
typedef struct element_kind {
    const char *name;
    int bytes;
} element_kind;
static const element_kind kinds[] = {{"bf16", 2}, {"f16", 2}, {"u8", 1}, {"s8", 1}};

/* f16 by its definition: 1 sign, 5 exponent, 10 fraction bits. */
static float value_f16(uint32_t bits)
{
    const int exponent = (int)(bits >> 10 & 31), fraction = (int)(bits & 0x3ff);
    float v = exponent ? (float)(0x400 | fraction) : (float)fraction;
    for (int e = exponent ? exponent : 1; e < 25; e++)
        v *= 0.5f;
    for (int e = 25; e < exponent; e++)
        v *= 2.0f;
    return bits >> 15 ? -v : v;
}

static float value_float(const element_kind *kind, uint32_t bits)
{
    return strcmp(kind->name, "bf16") == 0 ? float_of(bits << 16) : value_f16(bits);
}
static int32_t value_int(const element_kind *kind, uint32_t bits)
{
    return kind->name[0] == 's' ? (int8_t)bits : (int32_t)bits;
}

static const element_kind *kind_of(const char *text, int from_end)
{
    char copy[64], *words[16], *save = NULL;
    int n = 0;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, ".", &save); w && n < 16; w = strtok_r(NULL, ".", &save))
        words[n++] = w;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (strcmp(kinds[k].name, words[n - from_end]) == 0)
            return &kinds[k];
    }
    fail_msg("%s: elements that the test does not know", text);
    return NULL;
}

/* A random element: of floats, with an exponent near 1, denormals, zeros; of integers, all bits. */
static uint32_t random_element(const element_kind *kind)
{
    const uint32_t r = random_bits();
    if (kind->bytes == 1)
        return r & 0xff;
    if (r % 16 == 0)
        return r >> 4 & 0x8003; /* a denormal or a zero */
    if (strcmp(kind->name, "bf16") == 0)
        return (r & 0x8000) | (120 + (r >> 16) % 16) << 7 | (r & 0x7f);
    return (r & 0x8000) | (8 + (r >> 16) % 16) << 10 | (r & 0x3ff);
}

typedef struct product {
    const ptx_row *row;
    const element_kind *ka, *kb;
    layout a, b, c;
    uint32_t va[512], vb[256], vc[128]; /* matrices, row-major */
    bool floats;
} product;

/* Sums in the order of k: exact products, each sum rounded to f32; or modulo 2^32. */
static uint32_t expected(const product *p, int m, int n)
{
    uint32_t sum = p->vc[m * 8 + n];
    for (int k = 0; k < p->a.columns; k++) {
        const uint32_t a = p->va[m * p->a.columns + k], b = p->vb[k * 8 + n];
        if (p->floats) {
            const float t = value_float(p->ka, a) * value_float(p->kb, b);
            sum = bits_of(float_of(sum) + t);
        } else
            sum += (uint32_t)(value_int(p->ka, a) * value_int(p->kb, b));
    }
    return sum;
}

/* Registers of a lane from the matrix, lowest value first. */
static int pack(const layout *l, const element_kind *kind, const uint32_t *matrix, int lane,
                uint32_t *out)
{
    const int bytes = kind ? kind->bytes : 4, per = 4 / bytes;
    memset(out, 0, sizeof *out * (size_t)(l->values / per));
    for (int v = 0; v < l->values; v++)
        out[v / per] |= matrix[l->element[lane][v]] << 8 * bytes * (v % per);
    return l->values / per;
}

static void registers(rowtest_text *t, const char *separator, int *next, int n)
{
    rowtest_add(t, "%s{", separator);
    for (int k = 0; k < n; k++)
        rowtest_add(t, "%s%%r%d", k ? ", " : "", (*next)++);
    rowtest_add(t, "}");
}

static void run_product(const product *p)
{
    static uint32_t in[32][16], out[32][4];
    rowtest_text t = {0};
    int na = 0, nb = 0, n = 0, next = 8;
    for (int lane = 0; lane < 32; lane++) {
        na = pack(&p->a, p->ka, p->va, lane, in[lane]);
        nb = pack(&p->b, p->kb, p->vb, lane, in[lane] + na);
        n = na + nb + pack(&p->c, NULL, p->vc, lane, in[lane] + na + nb);
    }
    rowtest_add(&t, "mul.wide.u32 %%rd2, %%r0, 64;\nadd.s64 %%rd2, %%rd0, %%rd2;\n"
                    "mul.wide.u32 %%rd3, %%r0, 16;\nadd.s64 %%rd3, %%rd1, %%rd3;\n");
    for (int k = 0; k < n; k++)
        rowtest_add(&t, "ld.global.b32 %%r%d, [%%rd2+%d];\n", 8 + k, 4 * k);
    rowtest_add(&t, "%s {%%r24, %%r25, %%r26, %%r27}", p->row->text);
    registers(&t, ", ", &next, na);
    registers(&t, ", ", &next, nb);
    registers(&t, ", ", &next, 4);
    rowtest_add(&t, ";\nst.global.v4.b32 [%%rd3], {%%r24, %%r25, %%r26, %%r27};\n");
    const char *err = rowtest_run(t.at, in, sizeof in, out, sizeof out);
    free(t.at);
    if (err)
        fail_msg("%s: %s", p->row->text, err);
    for (int lane = 0; lane < 32; lane++) {
        for (int v = 0; v < 4; v++) {
            const int at = p->c.element[lane][v];
            const uint32_t want = expected(p, at / 8, at % 8);
            if (out[lane][v] != want)
                fail_msg("%s: row %d, column %d (lane %d, value %d) is %#x, not %#x", p->row->text,
                         at / 8, at % 8, lane, v, out[lane][v], want);
        }
    }
}

static void test_product(const ptx_row *row)
{
    static product p;
    p = (product){.row = row, .ka = kind_of(row->text, 3), .kb = kind_of(row->text, 2)};
    p.a = layout_of(row->text, 'A');
    p.b = layout_of(row->text, 'B');
    p.c = layout_of(row->text, 'C');
    p.floats = p.ka->bytes == 2;
    for (int round = 0; round < 8; round++) {
        for (int k = 0; k < 16 * p.a.columns; k++)
            p.va[k] = random_element(p.ka);
        for (int k = 0; k < p.b.rows * 8; k++)
            p.vb[k] = random_element(p.kb);
        for (int k = 0; k < 128; k++)
            p.vc[k] = p.floats ? bits_of((float)(int)(random_bits() % 2001) - 1000.0f)
                               : random_bits() << 8;
        run_product(&p);
    }
    rowtest_tried(row);
}

/* Rows at 16-byte steps that are out of order, so that each lane's address counts. */
static void test_ldmatrix(const ptx_row *row)
{
    static uint16_t in[32][8], out[32][8];
    const layout l = layout_of(row->text, 'D');
    rowtest_text t = {0};
    for (int k = 0; k < 32 * 8; k++)
        in[k / 8][k % 8] = (uint16_t)random_bits();
    rowtest_add(&t,
                "mul.wide.u32 %%rd2, %%r0, 16;\nadd.s64 %%rd3, %%rd0, %%rd2;\n"
                "add.s64 %%rd4, %%rd1, %%rd2;\n"
                "ld.global.v4.b32 {%%r8, %%r9, %%r10, %%r11}, [%%rd3];\n"
                "mov.u32 %%r1, sh;\nmad.lo.u32 %%r1, %%r0, 16, %%r1;\n"
                "st.shared.v4.b32 [%%r1], {%%r8, %%r9, %%r10, %%r11};\nbar.sync 0;\n"
                "xor.b32 %%r2, %%r0, 5;\nmov.u32 %%r1, sh;\n"
                "mad.lo.u32 %%r1, %%r2, 16, %%r1;\n"
                "mov.b32 %%r8, 0;\nmov.b32 %%r9, 0;\nmov.b32 %%r10, 0;\nmov.b32 %%r11, 0;\n"
                "%s {",
                row->text);
    for (int k = 0; k < l.values / 2; k++)
        rowtest_add(&t, "%s%%r%d", k ? ", " : "", 8 + k);
    rowtest_add(&t, "}, [%%r1];\nst.global.v4.b32 [%%rd4], {%%r8, %%r9, %%r10, %%r11};\n");
    const char *err = rowtest_run(t.at, in, sizeof in, out, sizeof out);
    free(t.at);
    if (err)
        fail_msg("%s: %s", row->text, err);
    for (int lane = 0; lane < 32; lane++) {
        for (int v = 0; v < l.values; v++) {
            const int at = l.element[lane][v];
            if (out[lane][v] != in[at / 8 ^ 5][at % 8])
                fail_msg("%s: lane %d, value %d is %#x, not %#x", row->text, lane, v, out[lane][v],
                         in[at / 8 ^ 5][at % 8]);
        }
    }
    rowtest_tried(row);
}

void rowtest_matrices(void **state)
{
    (void)state;
    for (size_t n = 0; n < rowtest_n_rows(); n++) {
        const ptx_row *row = rowtest_row(n);
        if (strncmp(row->text, "mma.", 4) == 0)
            test_product(row);
        else if (strncmp(row->text, "ldmatrix.", 9) == 0)
            test_ldmatrix(row);
    }
}
