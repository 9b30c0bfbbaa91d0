/*
 * test_linear: every weight type x level x row count x packed or not gives the bits of a plain
 * loop over cp_unquant_block or cp_dequant_row (program.h's law), whatever the order of items, the
 * rows beside a row and the fusion.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/linear.h"
#include "kernels/math.h"
#include "tests/kernels/weights.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MAX_ROWS 33
#define SEGMENT  512 /* of K, as program.h has it: a change there must be seen here */

/* A program of one LINEAR over up to 4 tensors. */
typedef struct one {
    cp_program prog;
    cp_op op;
    cp_weight weights[8];
} one;

static void one_init(one *o, const cp_tensor *w, int n_w)
{
    memset(o, 0, sizeof *o);
    o->prog.weights = o->weights;
    o->op.kind = CP_OP_LINEAR;
    o->op.u.linear.scale = 1.0f;
    o->op.u.linear.mul = -1;
    o->op.u.linear.n_w = n_w;
    for (int i = 0; i < n_w; i++) {
        o->weights[i].t = &w[i];
        o->op.u.linear.w[i].w = (cp_wref)i;
        o->op.u.linear.w[i].bias = -1;
    }
    o->prog.n_weights = n_w;
}

/* The next level after isa that this machine has, entered; CP_ISA_COUNT: none. isa is left.
 * CAPSTAN_TEST_LEVEL names the only one that is wanted. */
static cp_isa next_level(int isa)
{
    const char *only = getenv("CAPSTAN_TEST_LEVEL");
    if (isa >= 0)
        cp_isa_leave((cp_isa)isa);
    do
        isa++;
    while (isa < CP_ISA_COUNT &&
           (!cp_isa_there((cp_isa)isa) || (only && strcmp(only, cp_isa_name((cp_isa)isa)) != 0)));
    if (isa < CP_ISA_COUNT)
        cp_isa_enter((cp_isa)isa);
    return (cp_isa)isa;
}

/* Ends a segment of K: the first starts the sum, the others are added to it. */
static void end_segment(int64_t segment, float *acc, float *sum)
{
    *sum = segment ? *sum + *acc : *acc;
    *acc = 0.0f;
}

static float no_subnormal(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}

static float as_bf16(float x)
{
    return no_subnormal(cp_f32_from_bf16(cp_bf16_from_f32(x)));
}

/* y[m] = W x for BF16 and F16 at level amx: a pair a step, sixteen pairs from 0, then their sums.
 */
static void plain_tiles(const cp_tensor *t, const float *x, float *y)
{
    int64_t k = t->ne[0];
    float *w = cp_xcalloc((size_t)k + 64, sizeof *w), *b = cp_xcalloc((size_t)k + 64, sizeof *b);
    for (int64_t i = 0; i < k; i++)
        b[i] = as_bf16(x[i]);
    for (int64_t r = 0; r < t->ne[1]; r++) {
        float acc = 0.0f, sum = 0.0f;
        cp_dequant_row(t, r, w);
        for (int64_t at = 0; at < k; at += 32) {
            float even = 0.0f, odd = 0.0f;
            if (at && at % SEGMENT == 0)
                end_segment(at / SEGMENT - 1, &acc, &sum);
            for (int64_t i = at; i < at + 32; i += 2) {
                even = no_subnormal(fmaf(as_bf16(w[i]), b[i], even));
                odd = no_subnormal(fmaf(as_bf16(w[i + 1]), b[i + 1], odd));
            }
            acc = no_subnormal(acc + no_subnormal(even + odd));
        }
        end_segment((k - 1) / SEGMENT, &acc, &sum);
        y[r] = sum;
    }
    free(b);
    free(w);
}

/* y[m] = W x by the definition. */
static void plain(const cp_tensor *t, cp_isa isa, const float *x, float *y)
{
    if (isa == CP_ISA_AMX && (t->type == CP_DTYPE_BF16 || t->type == CP_DTYPE_F16)) {
        plain_tiles(t, x, y);
        return;
    }
    int64_t k = t->ne[0];
    float *w = cp_xcalloc((size_t)k, sizeof *w);
    cp_act8 *a = cp_alloc_aligned((size_t)(k / CP_QBLOCK + 1) * sizeof *a);
    bool quantized = cp_quant_info(t->type).quantized;
    if (quantized)
        cp_quantize_act_row(x, k, a);
    for (int64_t r = 0; r < t->ne[1]; r++) {
        float acc = 0.0f, sum = 0.0f;
        if (!quantized) {
            cp_dequant_row(t, r, w);
            for (int64_t i = 0; i < k; i++) {
                float xi = x[i];
                if (i && i % SEGMENT == 0)
                    end_segment(i / SEGMENT - 1, &acc, &sum);
                if (t->type == CP_DTYPE_BF16)
                    xi = cp_f32_from_bf16(cp_bf16_from_f32(xi));
                acc = fmaf(w[i], xi, acc);
            }
        }
        for (int64_t b = 0; quantized && b < k / CP_QBLOCK; b++) {
            cp_qblock q;
            if (b && b * CP_QBLOCK % SEGMENT == 0)
                end_segment(b * CP_QBLOCK / SEGMENT - 1, &acc, &sum);
            cp_unquant_block(t->type, (const uint8_t *)t->data + (size_t)r * cp_tensor_row_bytes(t),
                             b, &q);
            int len = q.group16 ? 16 : 32;
            for (int g = 0; g < CP_QBLOCK / len; g++) {
                int32_t dot = 0, sum_q = 0;
                for (int i = g * len; i < (g + 1) * len; i++) {
                    dot += q.q[i] * a[b].q[i];
                    sum_q += a[b].q[i];
                }
                acc = fmaf((float)dot, q.wd[g] * a[b].d, acc);
                if (q.has_min)
                    acc = fmaf(q.wm[g], a[b].d * (float)sum_q, acc);
            }
        }
        end_segment((k - 1) / SEGMENT, &acc, &sum);
        y[r] = sum;
    }
    free(a);
    free(w);
}

/* Runs all items in an order drawn from seed; outputs of weight i at out[i], rows m_i apart. */
static void run_linear(const cp_linear *l, const float *x, int n, float *const out[4],
                       const size_t ld[4], uint64_t seed)
{
    int k = cp_linear_k(l);
    void *act = cp_alloc_aligned(cp_linear_act_bytes(l, n));
    void *scratch = cp_alloc_aligned(cp_linear_scratch_bytes(l));
    cp_gemm_scratch_begin(scratch);
    int64_t items = cp_linear_items(l, n);
    int64_t *order = cp_xcalloc((size_t)items, sizeof *order);
    for (int r = n - 1; r >= 0; r--)
        cp_linear_prep_row(l, x + (size_t)r * (size_t)k, r, n, act);
    for (int64_t i = 0; i < items; i++) {
        int64_t j = (int64_t)(cp_test_random(&seed) % (uint64_t)(i + 1));
        order[i] = order[j];
        order[j] = i;
    }
    for (int64_t i = 0; i < items; i++)
        cp_linear_item(l, order[i], n, act, scratch, out, ld, NULL, 0);
    free(order);
    free(scratch);
    free(act);
}

static float *random_rows(int64_t k, int n, uint64_t seed)
{
    float *x = cp_xcalloc((size_t)k * (size_t)n, sizeof *x);
    uint64_t s = seed + 77;
    for (int64_t i = 0; i < k * n; i++)
        x[i] = cp_test_uniform(&s) * (i % 97 == 5 ? 20.0f : 1.0f);
    for (int64_t i = 0; i < 32; i++)
        x[i] = n > 2 ? 0.0f : x[i]; /* a block whose amax is 0 */
    return x;
}

static void assert_bits(const float *got, const float *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s: output %zu is %a, by definition %a", what, i, (double)got[i],
                     (double)want[i]);
}

/* One tensor at one level for several row counts, unpacked, then packed. */
static void check_tensor(const cp_tensor *t, cp_isa isa, uint64_t seed)
{
    static const int rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 19, MAX_ROWS};
    int64_t k = t->ne[0], m = t->ne[1];
    float *x = random_rows(k, MAX_ROWS, seed);
    float *want = cp_xcalloc((size_t)m * MAX_ROWS, sizeof *want);
    float *got = cp_xcalloc((size_t)(m + 3) * MAX_ROWS, sizeof *got);
    one o;
    cp_linear *l;
    cp_panels *panels;
    cp_err err = {0};
    for (int r = 0; r < MAX_ROWS; r++)
        plain(t, isa, x + r * k, want + r * m);
    one_init(&o, t, 1);
    assert_int_equal(cp_linear_open(&l, &o.prog, &o.op, isa, MAX_ROWS, &err), CP_OK);
    cp_panels_open(&panels, NULL);
    for (int packed = 0; packed < 2; packed++) {
        if (packed)
            assert_int_equal(cp_test_pack(l, panels, NULL, &err), CP_OK);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            float *out[4] = {got};
            size_t ld[4] = {(size_t)m + 3};
            char what[96];
            memset(got, 0xff, (size_t)(m + 3) * MAX_ROWS * sizeof *got);
            run_linear(l, x, rows[i], out, ld, seed + i + 1);
            for (int r = 0; r < rows[i]; r++) {
                snprintf(what, sizeof what, "%s %s %s rows %d row %d",
                         cp_dtype_info((uint32_t)t->type)->name, cp_isa_name(isa),
                         packed ? "packed" : "unpacked", rows[i], r);
                assert_bits(got + (size_t)r * ld[0], want + r * m, (size_t)m, what);
                for (int j = 0; j < 3; j++)
                    assert_true(isnan(got[(size_t)r * ld[0] + (size_t)(m + j)]));
            }
        }
    }
    cp_panels_close(panels);
    cp_linear_close(l);
    free(got);
    free(want);
    free(x);
}

/* K below, at and beside multiples of a segment; in whole blocks, and ragged for floats. */
static void test_segments(void **state)
{
    static const int64_t blocks[] = {32, 480, 512, 544, 992, 1024, 1056, 2592};
    static const int64_t supers[] = {256, 512, 768, 1024, 1280, 2304};
    static const int64_t floats[] = {1, 511, 512, 513, 514, 1023, 1025, 1600};
    (void)state;
    for (cp_isa isa = next_level(-1); isa < CP_ISA_COUNT; isa = next_level((int)isa))
        for (int i = 0; cp_test_types[i] >= 0; i++) {
            cp_dtype type = (cp_dtype)cp_test_types[i];
            int block = cp_dtype_info((uint32_t)type)->block;
            const int64_t *ks = block == 256 ? supers : block >= 32 ? blocks : floats;
            int n = block == 256 ? 6 : 8;
            if (type == CP_DTYPE_BF16 && cp_isa_over(isa, CP_ISA_BF16))
                continue; /* other bits by design; test_segments_add */
            for (int j = 0; j < n; j++) {
                if (ks[j] % block)
                    continue;
                cp_tensor t = cp_test_tensor(type, ks[j], 18, (uint64_t)(i + 3 * j) + 1);
                check_tensor(&t, isa, (uint64_t)i * 31 + (uint64_t)j);
                cp_test_free(&t);
            }
        }
}

/* What holds for dots of any order too: a panel's result is the sum of its segments' results. */
static void check_sum(const cp_gemm_table *table, cp_dtype type, int k, const char *what)
{
    enum { N = 15 };
    cp_panel_kind kind = cp_panel_kind_of(type);
    cp_tensor t = cp_test_tensor(type, k, 16, (uint64_t)k);
    uint8_t *panel = cp_alloc_aligned(cp_panel_bytes(kind, k));
    bool narrow =
        kind == CP_PANEL_BF16 ? table->bf16_pairs : kind == CP_PANEL_F16 && table->f16_pairs;
    int row = (k / table->pair_inputs + 1) * table->pair_inputs, n_rows = N + table->rows_beyond;
    uint16_t *pairs = cp_alloc_aligned((size_t)row * (size_t)n_rows * sizeof *pairs);
    float *rows = cp_xcalloc((size_t)row * (size_t)n_rows, sizeof *rows);
    uint64_t s = 5;
    for (int i = 0; i < row * n_rows; i++) {
        pairs[i] = i % row < k ? cp_bf16_from_f32(cp_test_uniform(&s)) : 0;
        rows[i] = cp_f32_from_bf16(pairs[i]);
    }
    size_t width = narrow ? sizeof *pairs : sizeof *rows, stride = (size_t)row * width;
    const uint8_t *act = narrow ? (const uint8_t *)pairs : (const uint8_t *)rows;
    float all[N * 16], want[N * 16], part[N * 16];
    cp_unpack_of(type)(&t, 0, 16, panel);
    for (int n = 1; n <= N; n++) {
        table->gemm[kind](panel, k, act, stride, n, all);
        for (int at = 0; at < k; at += SEGMENT) {
            int len = k - at < SEGMENT ? k - at : SEGMENT;
            const uint8_t *from = panel + (at ? cp_panel_bytes(kind, at) : 0);
            table->gemm[kind](from, len, act + (size_t)at * width, stride, n, at ? part : want);
            for (int i = 0; at && i < n * 16; i++)
                want[i] = want[i] + part[i];
        }
        assert_bits(all, want, (size_t)n * 16, what);
    }
    free(rows);
    free(pairs);
    free(panel);
    cp_test_free(&t);
}

static void test_segments_add(void **state)
{
    static const cp_dtype types[] = {CP_DTYPE_F32, CP_DTYPE_F16, CP_DTYPE_BF16};
    static const int ks[] = {75, 512, 513, 1024, 1100, 1535, 2049};
    (void)state;
    for (cp_isa isa = next_level(-1); isa < CP_ISA_COUNT; isa = next_level((int)isa)) {
        cp_gemm_table table;
        cp_isa_gemm(&table, isa);
        for (int i = 0; i < 3 * 7; i++)
            check_sum(&table, types[i / 7], ks[i % 7], cp_isa_name(isa));
    }
}

static void test_types_and_levels(void **state)
{
    (void)state;
    for (cp_isa isa = next_level(-1); isa < CP_ISA_COUNT; isa = next_level((int)isa))
        for (int i = 0; cp_test_types[i] >= 0; i++) {
            cp_dtype type = (cp_dtype)cp_test_types[i];
            int block = cp_dtype_info((uint32_t)type)->block;
            if (type == CP_DTYPE_BF16 && cp_isa_over(isa, CP_ISA_BF16))
                continue; /* other bits by design */
            int64_t k = block == 256 ? 512 : block >= 32 ? 384 : 97;
            cp_tensor t = cp_test_tensor(type, k, 53, (uint64_t)i + 1);
            check_tensor(&t, isa, (uint64_t)i * 31 + 7);
            cp_test_free(&t);
        }
}

/* Extreme integers: every weight and activation at its bound, where int16 sums would saturate. */
static void test_extremes(void **state)
{
    (void)state;
    static const uint8_t fills[] = {0x00, 0xff, 0x80, 0x7f, 0xf0, 0x0f, 0x77};
    for (cp_isa isa = next_level(-1); isa < CP_ISA_COUNT; isa = next_level((int)isa))
        for (int i = 0; cp_test_types[i] >= 0; i++) {
            cp_dtype type = (cp_dtype)cp_test_types[i];
            const cp_dtype_row *info = cp_dtype_info((uint32_t)type);
            if (!cp_quant_info(type).quantized)
                continue;
            cp_tensor t = cp_test_tensor(type, 256, 16, 5);
            for (size_t f = 0; f < sizeof fills; f++) {
                uint8_t *p = cp_alloc_aligned(t.bytes);
                memcpy(p, t.data, t.bytes);
                /* keep the first and last 4 bytes of a block, where most scales are */
                for (size_t at = 0; at < t.bytes; at += (size_t)info->bytes)
                    memset(p + at + 4, fills[f], (size_t)info->bytes - 8);
                if (type == CP_DTYPE_IQ1_M || type == CP_DTYPE_TQ1_0 || type == CP_DTYPE_TQ2_0)
                    memcpy(p, t.data, t.bytes);
                cp_tensor e = t;
                e.data = p;
                float x[256], want[16], got[16];
                float *out[4] = {got};
                size_t ld[4] = {16};
                for (int j = 0; j < 256; j++)
                    x[j] = f % 2 ? 3.0f : -3.0f;
                one o;
                cp_linear *l;
                cp_err err;
                one_init(&o, &e, 1);
                assert_int_equal(cp_linear_open(&l, &o.prog, &o.op, isa, 1, &err), CP_OK);
                plain(&e, isa, x, want);
                run_linear(l, x, 1, out, ld, 1);
                assert_bits(got, want, 16, info->name);
                cp_linear_close(l);
                free(p);
            }
            cp_test_free(&t);
        }
}

/* Several weights of mixed types with biases; scale and soft cap; gate and up fused. */
static void check_epilogue(cp_isa isa, cp_act act, float scale, float softcap)
{
    enum { K = 256, N = 9 };
    cp_tensor w[6] = {
        cp_test_tensor(CP_DTYPE_Q4_1, K, 40, 1), cp_test_tensor(CP_DTYPE_Q8_0, K, 40, 2),
        cp_test_tensor(CP_DTYPE_BF16, K, 19, 3), cp_test_tensor(CP_DTYPE_F32, K, 64, 4),
        cp_test_tensor(CP_DTYPE_F32, 40, 1, 5),  cp_test_tensor(CP_DTYPE_F32, 19, 1, 6)};
    int n_w = act == CP_ACT_NONE ? 4 : 2;
    static const int bias_of[4] = {4, -1, 5, -1};
    if (cp_isa_over(isa, CP_ISA_BF16))
        w[2].type = CP_DTYPE_F16;
    float *x = random_rows(K, N, 9), *got[4] = {0}, *want[4] = {0};
    size_t ld[4];
    one o;
    one_init(&o, w, n_w);
    o.weights[4].t = &w[4];
    o.weights[5].t = &w[5];
    o.op.u.linear.act = act;
    o.op.u.linear.scale = scale;
    o.op.u.linear.softcap = softcap;
    for (int i = 0; i < n_w; i++) {
        o.op.u.linear.w[i].bias = (cp_wref)bias_of[i];
        ld[i] = (size_t)w[i].ne[1];
        got[i] = cp_xcalloc(ld[i] * N, sizeof(float));
        want[i] = cp_xcalloc(ld[i] * N, sizeof(float));
        for (int r = 0; r < N; r++) {
            plain(&w[i], isa, x + r * K, want[i] + (size_t)r * ld[i]);
            for (size_t j = 0; j < ld[i]; j++) {
                float *y = &want[i][(size_t)r * ld[i] + j];
                if (bias_of[i] >= 0)
                    *y = *y + ((const float *)w[bias_of[i]].data)[j];
                if (scale != 1.0f)
                    *y = *y * scale;
                if (softcap != 0.0f)
                    *y = softcap * cp_tanhf(*y / softcap);
            }
        }
    }
    cp_linear *l;
    cp_err err;
    assert_int_equal(cp_linear_open(&l, &o.prog, &o.op, isa, N, &err), CP_OK);
    run_linear(l, x, N, got, ld, 3);
    if (act != CP_ACT_NONE) {
        for (size_t j = 0; j < ld[0] * N; j++) {
            float g = want[0][j], u = want[1][j];
            want[0][j] = act == CP_ACT_SILU        ? cp_siluf(g) * u
                         : act == CP_ACT_GELU_TANH ? cp_gelu_tanhf(g) * u
                                                   : cp_swiglu_clampf(g, u);
        }
        n_w = 1;
    }
    for (int i = 0; i < n_w; i++)
        assert_bits(got[i], want[i], ld[i] * N, "epilogue");
    cp_linear_close(l);
    for (int i = 0; i < 4; i++) {
        free(got[i]);
        free(want[i]);
    }
    for (int i = 0; i < 6; i++)
        cp_test_free(&w[i]);
    free(x);
}

static void test_epilogues(void **state)
{
    (void)state;
    for (cp_isa isa = next_level(-1); isa < CP_ISA_COUNT; isa = next_level((int)isa)) {
        check_epilogue(isa, CP_ACT_NONE, 1.0f, 0.0f);
        check_epilogue(isa, CP_ACT_NONE, 0.37f, 30.0f);
        check_epilogue(isa, CP_ACT_SILU, 1.0f, 0.0f);
        check_epilogue(isa, CP_ACT_GELU_TANH, 1.0f, 0.0f);
        check_epilogue(isa, CP_ACT_SWIGLU_CLAMP, 1.0f, 0.0f);
    }
}

/* Two panels of every quantized kind at a time, each as alone; K ends within a segment. */
static void check_pair(const cp_gemm_table *table, cp_dtype type, const char *level)
{
    cp_panel_kind kind = cp_panel_kind_of(type);
    int k = cp_dtype_info((uint32_t)type)->block == 256 ? 1280 : 1152;
    uint8_t *panel[2];
    float *x = random_rows(k, 1, 8), got[2][16], want[16];
    cp_act8 *act = cp_alloc_aligned((size_t)k / CP_QBLOCK * sizeof *act);
    table->quantize(x, k, act);
    for (int i = 0; i < 2; i++) {
        cp_tensor t = cp_test_tensor(type, k, 16, (uint64_t)i + 1);
        panel[i] = cp_alloc_aligned(cp_panel_bytes(kind, k));
        cp_unpack_of(type)(&t, 0, 16, panel[i]);
        cp_test_free(&t);
    }
    table->pair[kind]((const uint8_t *const[]){panel[0], panel[1]}, k, (const uint8_t *)act,
                      (float *const[]){got[0], got[1]});
    for (int i = 0; i < 2; i++) {
        table->gemm[kind](panel[i], k, (const uint8_t *)act, 0, 1, want);
        assert_bits(got[i], want, 16, level);
        free(panel[i]);
    }
    free(act);
    free(x);
}

/* One row of packed gate and up of one kind, and of a tensor whose items have several panels, the
 * last one fewer. */
static void check_pairs_of_panels(cp_isa isa)
{
    enum { K = 1056, M = 40 };
    cp_tensor w[2] = {cp_test_tensor(CP_DTYPE_Q4_0, K, M, 1),
                      cp_test_tensor(CP_DTYPE_Q4_0, K, M, 2)};
    float *x = random_rows(K, 1, 3), gate[M], up[M], got[M], *out[4] = {got};
    size_t ld[4] = {M};
    one o;
    cp_linear *l;
    cp_panels *panels;
    cp_err err;
    one_init(&o, w, 2);
    o.op.u.linear.act = CP_ACT_SILU;
    assert_int_equal(cp_linear_open(&l, &o.prog, &o.op, isa, 1, &err), CP_OK);
    cp_panels_open(&panels, NULL);
    assert_int_equal(cp_test_pack(l, panels, NULL, &err), CP_OK);
    run_linear(l, x, 1, out, ld, 3);
    plain(&w[0], isa, x, gate);
    plain(&w[1], isa, x, up);
    for (int i = 0; i < M; i++)
        gate[i] = cp_siluf(gate[i]) * up[i];
    assert_bits(got, gate, M, "gate and up");
    cp_panels_close(panels);
    cp_linear_close(l);
    cp_test_free(&w[1]);
    cp_test_free(&w[0]);
    free(x);
    w[0] = cp_test_tensor(CP_DTYPE_Q4_0, K, 16 * (3 * CPU_MIN_ITEMS + 1) - 3, 5);
    check_tensor(&w[0], isa, 6);
    cp_test_free(&w[0]);
}

static void test_pairs_of_panels(void **state)
{
    (void)state;
    for (cp_isa isa = next_level(-1); isa < CP_ISA_COUNT; isa = next_level((int)isa)) {
        cp_gemm_table table;
        cp_isa_gemm(&table, isa);
        if (!table.pair[cp_panel_kind_of(CP_DTYPE_Q4_0)])
            continue;
        for (int i = 0; cp_test_types[i] >= 0; i++)
            if (cp_quant_info((cp_dtype)cp_test_types[i]).quantized)
                check_pair(&table, (cp_dtype)cp_test_types[i], cp_isa_name(isa));
        check_pairs_of_panels(isa);
    }
}

/* A row's bits do not depend on how many rows are beside it, across row chunks too. */
static void check_row_counts(cp_isa isa)
{
    enum { K = 288, N = 300, M = 40 };
    cp_tensor t = cp_test_tensor(CP_DTYPE_Q5_0, K, M, 11);
    float *x = random_rows(K, N, 4), *all = cp_xcalloc(N * M, sizeof *all), *part;
    part = cp_xcalloc(N * M, sizeof *part);
    one o;
    cp_linear *l;
    cp_err err;
    one_init(&o, &t, 1);
    assert_int_equal(cp_linear_open(&l, &o.prog, &o.op, isa, N, &err), CP_OK);
    float *out[4] = {all};
    size_t ld[4] = {M};
    run_linear(l, x, N, out, ld, 1);
    for (int r = 0, n = 1; r < N; r += n, n = n * 2 + 1) {
        n = n < N - r ? n : N - r;
        out[0] = part + r * M;
        run_linear(l, x + r * K, n, out, ld, 2);
    }
    assert_bits(part, all, N * M, "rows in pieces");
    cp_linear_close(l);
    cp_test_free(&t);
    free(part);
    free(all);
    free(x);
}

static void test_row_counts(void **state)
{
    (void)state;
    for (cp_isa isa = next_level(-1); isa < CP_ISA_COUNT; isa = next_level((int)isa))
        check_row_counts(isa);
}

/* The vector quantizer of a level writes the bytes of the plain one, odd values included. */
static void test_quantizers(void **state)
{
    (void)state;
    enum { K = 32 * 400 };
    float *x = cp_xcalloc(K, sizeof *x);
    cp_act8 *a = cp_alloc_aligned(K / 32 * sizeof *a), *b = cp_alloc_aligned(K / 32 * sizeof *b);
    uint64_t s = 3;
    for (int i = 0; i < K; i++) {
        uint64_t r = cp_test_random(&s);
        int block = i / 32;
        x[i] = cp_test_uniform(&s) * cp_f32_from_bits((uint32_t)(20 + block % 200) << 23);
        if (block % 7 == 3) /* ties of the rounding */
            x[i] = (float)((int)(r % 255) - 127) * (r & 256 ? 0.5f : 1.0f);
        if (block % 50 == 9)
            x[i] = 0.0f;
        if (block % 50 == 19)
            x[i] = x[i] * 0x1p-130f; /* denormal blocks */
        if (block % 50 == 29 && r % 16 == 0)
            x[i] = r & 16 ? INFINITY : NAN;
    }
    for (cp_isa isa = next_level(-1); isa < CP_ISA_COUNT; isa = next_level((int)isa)) {
        cp_gemm_table t;
        cp_isa_gemm(&t, isa);
        cp_quantize_act_row(x, K, a);
        t.quantize(x, K, b);
        for (int i = 0; i < K / 32; i++) {
            assert_memory_equal(a[i].q, b[i].q, sizeof a[i].q);
            assert_true(a[i].minus8 == b[i].minus8 && a[i].minus128 == b[i].minus128 &&
                        a[i].minus32[0] == b[i].minus32[0] && a[i].minus32[1] == b[i].minus32[1]);
            if (a[i].d == a[i].d && a[i].d < INFINITY)
                assert_memory_equal(&a[i], &b[i], sizeof a[i]);
        }
    }
    free(b);
    free(a);
    free(x);
}

static void test_refusals(void **state)
{
    (void)state;
    cp_tensor w[2] = {cp_test_tensor(CP_DTYPE_Q4_0, 64, 16, 1),
                      cp_test_tensor(CP_DTYPE_Q4_0, 96, 16, 1)};
    one o;
    cp_linear *l = NULL;
    cp_err err = {0};
    one_init(&o, w, 2);
    assert_int_equal(cp_linear_open(&l, &o.prog, &o.op, CP_ISA_BASE, 1, &err), CP_UNSUPPORTED);
    w[1].ne[0] = 64;
    w[1].ne[2] = 2;
    assert_int_equal(cp_linear_open(&l, &o.prog, &o.op, CP_ISA_BASE, 1, &err), CP_UNSUPPORTED);
    w[1].ne[2] = 1;
    w[1].type = CP_DTYPE_I32;
    assert_int_equal(cp_linear_open(&l, &o.prog, &o.op, CP_ISA_BASE, 1, &err), CP_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "I32"));
    assert_int_equal(cp_panel_kind_of(CP_DTYPE_I8), CP_PANEL_COUNT);
    assert_int_equal(cp_panel_kind_of((cp_dtype)63), CP_PANEL_COUNT);
    assert_int_equal(cp_panel_kind_of(CP_DTYPE_Q4_K), CP_PANEL_N4K);
    cp_test_free(&w[0]);
    cp_test_free(&w[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_and_levels), cmocka_unit_test(test_segments),
        cmocka_unit_test(test_pairs_of_panels),  cmocka_unit_test(test_segments_add),
        cmocka_unit_test(test_extremes),         cmocka_unit_test(test_epilogues),
        cmocka_unit_test(test_row_counts),       cmocka_unit_test(test_quantizers),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
