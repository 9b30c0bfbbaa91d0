/*
 * test_cuda_linear: LINEAR and EXPERTS of the cuda backend, on the PTX machine behind the
 * fake driver. With numerics exact every kind of panel and float, at every row count of a kernel's
 * widths and lengths of K on both sides of a segment's end, has the bits of ref; in default mode
 * float weights are near it, and a row alone has the bits that it has among others.
 */
#include "tests/kernels/pair.h"

#include "base/mem.h"
#include "kernels/math.h"
#include "kernels/unpack.h"
#include "tests/kernels/weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { OUTS = 8 };

static bool is_float(cp_dtype t)
{
    return cp_panel_is_float(cp_panel_kind_of(t));
}

/* k, or for types of larger blocks the next whole number of these. */
static int whole_blocks(cp_dtype t, int k)
{
    int block = cp_dtype_info((uint32_t)t)->block;
    return (k + block - 1) / block * block;
}

/* ---- LINEAR ---- */

static const int row_counts[] = {1, 5, 8, 12, 17, 32, 64};
static const int lengths[] = {32, 480, 512, 544, 2592};
enum { N_ROWS = sizeof row_counts / sizeof *row_counts, N_K = sizeof lengths / sizeof *lengths };
/* A length at which each warp of a block has a second segment, for rows of each kernel width; one
 * row of the widest is alone in its block. */
enum { LONG = 4640, N_LONG = 3 };
static const int long_row_counts[N_LONG] = {5, 12, 33};

/* Weight i of op, of a type and m outputs, with a bias if wanted. */
static void add_weight(rig *r, cp_op *op, cp_dtype t, int k, int m, bool bias)
{
    int i = op->u.linear.n_w++;
    op->u.linear.w[i].w = rig_weight(r, t, k, m, CP_ROLE_LINEAR);
    op->u.linear.w[i].bias = bias ? rig_vector(r, m, 1) : (cp_wref)-1;
    op->u.linear.w[i].out = -1;
}

/* If there is such a vector. */
static void set_vector(const rig *r, cp_wref w, int i, float x)
{
    if (w >= 0)
        ((float *)(uintptr_t)r->tensors[w].data)[i] = x;
}

/* What record number i does with its inputs and outputs beside the product: all of it in turn. Of
 * three that add, two norm what they add, and one of these the sum as well. */
static void vary(rig *r, cp_op *op, int k, int m, cp_dtype t, int i, cp_mat *outs)
{
    int n_outs = 0;
    cp_rows rows = op->rows;
    cp_act act = (cp_act)(i % 4);
    bool mul = act != CP_ACT_NONE && i / 4 % 2;
    op->u.linear.n_w = 0;
    add_weight(r, op, t, k, m, i % 3);
    outs[n_outs++] = op->u.linear.w[0].out = rig_mat(r, m, rows);
    op->u.linear.act = act;
    if (mul) {
        op->u.linear.mul_at = i % 5;
        op->u.linear.mul = rig_mat(r, m + i % 5 + 1, rows);
    } else if (act != CP_ACT_NONE) {
        add_weight(r, op, i % 3 ? t : CP_DTYPE_F32, k, m, i % 2);
    }
    if (!mul && i % 5 == 0)
        op->u.linear.scale = 0.37f;
    if (!mul && (i % 5 == 2 || i % 7 == 0))
        op->u.linear.softcap = 2.0f; /* so that both branches of its tanh are taken */
    if (i % 2)
        op->u.linear.norm = rig_vector(r, k, 1);
    if (i % 3 == 0)
        op->u.linear.add = rig_mat(r, k, rows);
    if (i % 6 == 0 || i % 12 == 3)
        op->u.linear.add_norm = rig_vector(r, k, 1);
    if (i % 4 == 1)
        outs[n_outs++] = op->u.linear.x_out = rig_mat(r, k, rows);
    if (i % 5 == 1)
        op->u.linear.in_scale = 0.83f;
    outs[n_outs] = -1;
}

/* One record of a type, K, number and at most m outputs, at each of the row counts. */
static void one_record(cp_dtype t, int k, int number, int most, const int *rows, int n_rows)
{
    rig r;
    char what[96];
    cp_mat outs[OUTS];
    rig_init(&r, (uint64_t)(number + 7 * k));
    int m = 1 + (int)rig_random(&r, (uint64_t)most);
    cp_op *op = rig_linear(&r, rig_mat(&r, k, CP_ROWS_ALL), 0, 0, CP_ROWS_ALL);
    vary(&r, op, k, m, t, number, outs);
    pair p = pair_open(&r, true);
    for (int i = 0; i < n_rows; i++) {
        snprintf(what, sizeof what, "%s, k %d, m %d, %d rows, number %d",
                 cp_dtype_info((uint32_t)t)->name, k, m, rows[i], number);
        pair_step(&p, rows[i], NULL);
        pair_equal(&p, rows[i], outs, what);
    }
    pair_close(&p);
    rig_fini(&r);
}

static void linears(void **state)
{
    (void)state;
    cp_dtype types[CP_PANEL_COUNT];
    int n = cp_test_kinds(types), number = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < N_K; j++, number++) {
            int k = whole_blocks(types[i], lengths[j]);
            one_record(types[i], is_float(types[i]) && number % 2 ? k - 3 : k, number, 70,
                       row_counts, N_ROWS);
        }
    for (int i = 0; i < n; i++)
        one_record(types[i], whole_blocks(types[i], LONG), number + i, 20, long_row_counts, N_LONG);
}

/* Up to four weights of several kinds, each with an output of its own. */
static void several_weights(void **state)
{
    (void)state;
    cp_dtype types[CP_PANEL_COUNT];
    int n = cp_test_kinds(types);
    for (int seed = 0; seed < 12; seed++) {
        rig r;
        cp_mat outs[OUTS];
        rig_init(&r, (uint64_t)seed);
        cp_op *op = rig_linear(&r, rig_mat(&r, 768, CP_ROWS_ALL), 0, 0, CP_ROWS_ALL);
        int n_w = 2 + seed % 3, pool = 1 + (int)rig_random(&r, 4), from = (int)rig_random(&r, 99);
        op->u.linear.n_w = 0;
        for (int i = 0; i < n_w; i++) {
            int m = 1 + (int)rig_random(&r, 70);
            cp_dtype t = types[(from + (int)rig_random(&r, (uint64_t)pool)) % n];
            add_weight(&r, op, t, 768, m, rig_random(&r, 2));
            outs[i] = op->u.linear.w[i].out = rig_mat(&r, m, CP_ROWS_ALL);
        }
        outs[n_w] = -1;
        pair p = pair_open(&r, true);
        for (int i = seed % 2; i < N_ROWS; i += 2) {
            pair_step(&p, row_counts[i], NULL);
            pair_equal(&p, row_counts[i], outs, "several weights");
        }
        pair_close(&p);
        rig_fini(&r);
    }
}

/* Kinds of panels that follow one another, in one launch up to 64 rows: up to four products, or
 * gate and up; of k inputs, or as many more as make whole blocks of each. */
static void mix(const cp_dtype *types, int n, int from, int k, bool gated, const int *rows,
                int n_rows)
{
    rig r;
    cp_mat outs[OUTS];
    rig_init(&r, (uint64_t)(from + 11 * k));
    r.cfg.max_rows = r.cfg.max_out = 80;
    cp_rows rows_of = from % 5 == 3 ? CP_ROWS_OUT : CP_ROWS_ALL;
    int n_w = gated ? 2 : 2 + from % 3, n_outs = 0, m = 1 + (int)rig_random(&r, 70);
    for (int i = 0; i < n_w; i++)
        k = whole_blocks(types[(from + i) % n], k);
    cp_op *op = rig_linear(&r, rig_mat(&r, k, rows_of), 0, 0, rows_of);
    op->u.linear.act = gated ? (cp_act)(1 + from % 3) : CP_ACT_NONE;
    op->u.linear.n_w = 0;
    for (int i = 0; i < n_w; i++) {
        int outputs = gated ? m : 1 + (int)rig_random(&r, 70);
        add_weight(&r, op, types[(from + i) % n], k, outputs, (i + k / 32) % 2);
        if (!gated || i == 0)
            outs[n_outs++] = op->u.linear.w[i].out = rig_mat(&r, outputs, rows_of);
    }
    outs[n_outs] = -1;
    pair p = pair_open(&r, true);
    for (int i = 0; i < n_rows; i++) {
        if (rows_of == CP_ROWS_OUT)
            pair_step_out(&p, rows[i], outs);
        else
            pair_step(&p, rows[i], NULL);
        pair_equal(&p, rows[i], outs, "a mix");
    }
    pair_close(&p);
    rig_fini(&r);
}

/* Those of short blocks first, so that neighbours have lengths that are no whole number of long
 * ones.
 */
static int integer_types(cp_dtype types[CP_PANEL_COUNT])
{
    cp_dtype all[CP_PANEL_COUNT];
    int n = cp_test_kinds(all), n_ints = 0;
    for (int block = 32; block <= 256; block *= 2)
        for (int i = 0; i < n; i++)
            if (!is_float(all[i]) && (int)cp_dtype_info((uint32_t)all[i])->block == block)
                types[n_ints++] = all[i];
    return n_ints;
}

static void mixes(void **state)
{
    (void)state;
    static const int rows[] = {5, 30, 33, 65}; /* all tiles of a block; of the next one, one row */
    static const int ks[] = {608, 544, 576};   /* the last super-block has 3 blocks, 1, 2 */
    static const int many[] = {2080, 2592, 3104, 3616, LONG}; /* five to eight segments, and ten */
    cp_dtype types[CP_PANEL_COUNT];
    int n = integer_types(types);
    for (int j = 0; j < 3; j++)
        for (int i = 0; i < 2 * n; i++)
            mix(types, n, i / 2, ks[j], i % 2, rows, sizeof rows / sizeof *rows);
    for (int i = 0; i < 5; i++)
        mix(types, n, 6, many[i], i % 2, rows, 3);
}

/* Blocks whose largest value is 0, infinite, a NaN or beyond what int8 takes in one step. */
static void odd_inputs(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, 5);
    float *x = cp_xcalloc(8 * 256, sizeof *x);
    for (int i = 0; i < 8 * 256; i++)
        x[i] = rig_uniform(&r);
    for (int i = 0; i < 32; i++) {
        x[i] = 0.0f;
        x[256 + i] *= 0x1p-140f;
        x[512 + i] *= 0x1p+120f;
    }
    uint32_t odd[] = {0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f7fffffu};
    for (int i = 0; i < 4; i++)
        memcpy(&x[256 * (3 + i) + 37 * i], &odd[i], sizeof *odd);
    static const cp_dtype types[] = {CP_DTYPE_Q8_0, CP_DTYPE_Q4_K, CP_DTYPE_Q2_K, CP_DTYPE_Q6_K};
    cp_mat in = rig_mat(&r, 256, CP_ROWS_ALL), outs[6];
    cp_op *op = rig_linear(&r, in, 0, 0, CP_ROWS_ALL);
    op->u.linear.n_w = 0;
    for (int i = 0; i < 4; i++) {
        add_weight(&r, op, types[i], 256, 20, false);
        outs[i] = op->u.linear.w[i].out = rig_mat(&r, 20, CP_ROWS_ALL);
    }
    outs[4] = rig_mat(&r, 20, CP_ROWS_ALL);
    rig_linear(&r, in, rig_weight(&r, CP_DTYPE_BF16, 256, 20, CP_ROLE_LINEAR), outs[4],
               CP_ROWS_ALL);
    outs[5] = -1;
    pair p = pair_open(&r, true);
    given g = {in, 8, 256, x};
    pair_step(&p, 8, &g);
    for (int row = 0; row < 8; row++) {
        for (int i = 0; outs[i] >= 0; i++) {
            float *a = machine_row(&p.ref, outs[i], row), *b = machine_row(&p.cuda, outs[i], row);
            for (int o = 0; o < 20; o++) /* which NaN is not said anywhere */
                if (memcmp(&a[o], &b[o], 4) != 0 && (a[o] == a[o] || b[o] == b[o]))
                    fail_msg("row %d of %d: %a, ref %a", row, i, (double)b[o], (double)a[o]);
            free(a);
            free(b);
        }
    }
    pair_close(&p);
    free(x);
    rig_fini(&r);
}

/* Rows beside which others begin with infinities: lengths that end at each place of a turn. */
static void infinite_neighbours(void **state)
{
    (void)state;
    static const int ks[] = {4, 8, 12, 16, 20, 24, 32, 516};
    static const cp_dtype types[] = {CP_DTYPE_F32, CP_DTYPE_F16, CP_DTYPE_BF16};
    enum { ROWS = 5, M = 33 };
    for (int i = 0; i < 24; i++) {
        rig r;
        rig_init(&r, (uint64_t)i + 60);
        int k = ks[i / 3];
        cp_mat in = rig_mat(&r, k, CP_ROWS_ALL), out = rig_mat(&r, M, CP_ROWS_ALL);
        cp_op *op = rig_linear(&r, in, rig_weight(&r, types[i % 3], k, M, CP_ROLE_LINEAR), out,
                               CP_ROWS_ALL);
        op->u.linear.in_scale = 2.0f; /* so that rows are as near as they can be */
        given g = {in, ROWS, k, cp_xcalloc((size_t)(ROWS * k), sizeof(float))};
        for (int j = 0; j < ROWS * k; j++)
            g.x[j] = j / k % 2 && j % k < 4 ? INFINITY : rig_uniform(&r);
        pair p = pair_open(&r, true);
        pair_step(&p, ROWS, &g);
        for (int row = 0; row < ROWS; row += 2) {
            float *a = machine_row(&p.ref, out, row), *b = machine_row(&p.cuda, out, row);
            if (memcmp(a, b, M * sizeof *a) != 0)
                fail_msg("%s, k %d, row %d", cp_dtype_info((uint32_t)types[i % 3])->name, k, row);
            free(a);
            free(b);
        }
        pair_close(&p);
        rig_fini(&r);
        free(g.x);
    }
}

/* ---- what follows a sum, where kernels/math.h changes its way ---- */

enum { NEAR = 93 }; /* each odd value with its neighbours, of both signs; and a gate of SWIGLU */

/* What times `scale` is such a value. */
static void put_near_odd(const rig *r, cp_wref bias, int from, float scale)
{
    float *b = (float *)(uintptr_t)r->tensors[bias].data;
    for (int o = 0; o < NEAR; o++) {
        int i = (o + from) % NEAR;
        float x = i < NEAR - 3 ? rig_odd((uint64_t)(i / 3)) : CP_EXP_MAX / -CP_SWIGLU_ALPHA;
        b[o] = (i % 3 ? nextafterf(x, i % 3 == 1 ? INFINITY : -INFINITY) : x) / scale;
    }
}

/* An activation of gate and up; or tanh of two products; or tanh of gate and up before a SILU. */
enum { TANH = CP_ACT_NONE, TANH_SILU = CP_ACT_SWIGLU_CLAMP + 1, WAYS };

static void at_thresholds(cp_dtype gate, cp_dtype up, int way, bool exact, const int *rows, int n)
{
    rig r;
    rig_init(&r, 77);
    r.gemm = rows[0] >= 64 && !exact ? CP_GEMM_CUBLAS : CP_GEMM_OWN;
    int k = whole_blocks(up, whole_blocks(gate, 32));
    bool gated = way != TANH, capped = way == TANH || way == TANH_SILU;
    cp_mat in = rig_mat(&r, k, CP_ROWS_ALL), outs[] = {rig_mat(&r, NEAR, CP_ROWS_ALL), -1, -1};
    cp_op *op = rig_linear(&r, in, 0, 0, CP_ROWS_ALL);
    op->u.linear.act = way == TANH_SILU ? CP_ACT_SILU : (cp_act)way;
    op->u.linear.scale = capped ? 1.0f : 0.5f;
    op->u.linear.softcap = capped ? 1.0f : 0.0f;
    op->u.linear.n_w = 0;
    add_weight(&r, op, gate, k, NEAR, true);
    add_weight(&r, op, up, k, NEAR, true);
    op->u.linear.w[0].out = outs[0];
    if (!gated)
        op->u.linear.w[1].out = outs[1] = rig_mat(&r, NEAR, CP_ROWS_ALL);
    for (int i = 0; i < 2; i++)
        put_near_odd(&r, op->u.linear.w[i].bias, 26 * i, op->u.linear.scale);
    pair p = pair_open(&r, exact);
    for (int i = 0; i < n; i++) {
        given zeroes = {in, rows[i], k, cp_xcalloc((size_t)(rows[i] * k), sizeof(float))};
        pair_step(&p, rows[i], &zeroes);
        pair_equal(&p, rows[i], outs, cp_dtype_info((uint32_t)gate)->name);
        free(zeroes.x);
    }
    pair_close(&p);
    rig_fini(&r);
}

/* Inputs are zeroes, so that sums are the biases; then float weights have ref's bits by default,
 * too, and by cuBLAS. */
static void thresholds(void **state)
{
    (void)state;
    /* rows of one tile, two, four: some and all; and of a block of one */
    static const int some[] = {1, 9, 33}, all[] = {8, 16, 32}, many = 64;
    cp_dtype types[CP_PANEL_COUNT], ints[CP_PANEL_COUNT];
    int n = cp_test_kinds(types), n_ints = integer_types(ints);
    for (int way = 0; way < WAYS; way++) {
        const int *rows = way == TANH ? all : some;
        for (int i = 0; i < n; i++)
            at_thresholds(types[i], types[i], way, true, rows, 3);
        at_thresholds(CP_DTYPE_BF16, CP_DTYPE_BF16, way, false, rows, 3);
        at_thresholds(CP_DTYPE_F16, CP_DTYPE_F16, way, false, rows, 3);
        at_thresholds(CP_DTYPE_BF16, CP_DTYPE_BF16, way, false, &many, 1);
        at_thresholds(CP_DTYPE_F16, CP_DTYPE_F16, way, false, &many, 1);
        at_thresholds(ints[0], ints[n_ints - 1], way, true, rows, 3);
    }
}

/* ---- what is handed on in 16 bits ---- */

/* The last block of 32 ends in zeroes, but not that of eight. */
enum { HANDED = 152, MANY_HANDED = 17 };

/* Rows of identity(): what is read behind the end of the row before shows there. Each of a lane's
 * four outputs has such rows and others. */
static bool begins_with_nan(int row)
{
    return row % 5 == 0;
}

/* A weight of F16 or BF16 that gives what it takes, but for rows that begin with a NaN. */
static cp_wref identity(rig *r, cp_dtype t, int n)
{
    cp_wref w = rig_weight(r, t, n, n, CP_ROLE_LINEAR);
    uint16_t *x = (uint16_t *)(uintptr_t)r->tensors[w].data;
    memset(x, 0, (size_t)(n * n) * sizeof *x);
    for (int i = 0; i < n; i++) {
        x[i * n + i] = t == CP_DTYPE_F16 ? cp_f16_from_f32(1.0f) : cp_bf16_from_f32(1.0f);
        if (begins_with_nan(i))
            x[i * n] = t == CP_DTYPE_F16 ? cp_f16_from_f32(NAN) : cp_bf16_from_f32(NAN);
    }
    return w;
}

/* x[i] as f16, when its block of 32 was multiplied by the power of two that brings its largest to
 * [2^14, 2^15). */
static float as_scaled_f16(const float *x, int n, int i)
{
    float most = 0.0f;
    for (int j = i / 32 * 32; j < n && j < i / 32 * 32 + 32; j++)
        most = fmaxf(most, fabsf(x[j]));
    int e = most > 0.0f && most < INFINITY ? 15 - (ilogbf(most) + 1) : 0;
    return ldexpf(cp_f32_from_f16(cp_f16_from_f32(ldexpf(x[i], e))), -e);
}

/* At each place of four, of some length; of a row that has no NaN. */
static int infinite_at(int n)
{
    return n / 3 + begins_with_nan(n / 3);
}

/* Of many sizes, some halfway between two 16-bit numbers. */
static void put_sizes(float *x, int n, bool infinite)
{
    for (int i = 0; i < n; i++) {
        int bits = i % 5 < 3 ? 13 : 16; /* of a float's that are zero: a tie of f16, of bf16 */
        x[i] = cp_f32_from_bits((cp_f32_bits(x[i]) >> bits << bits) | 1u << (bits - 1));
        x[i] = ldexpf(x[i], 60 * (i / 32) - 120 + i % 7);
    }
    if (infinite)
        x[infinite_at(n)] = INFINITY;
}

/* Rows of out are x as weights of type `to` take it, times identity(). */
static void check_halves(const pair *p, cp_mat out, int rows, const float *x, int n, cp_dtype to)
{
    bool infinite = isinf(x[infinite_at(n)]);
    for (int row = 0; row < rows; row++) {
        float *got = machine_row(&p->cuda, out, row);
        for (int o = 0; o < n; o++) {
            bool lost =
                begins_with_nan(o) || (infinite && o != infinite_at(n)); /* 0 times infinity */
            float want = to == CP_DTYPE_F16 ? as_scaled_f16(x, n, o)
                                            : cp_f32_from_bf16(cp_bf16_from_f32(x[o]));
            if (lost ? got[o] == got[o] : got[o] != want)
                fail_msg("%s, row %d of %d, output %d: %a, not %a",
                         cp_dtype_info((uint32_t)to)->name, row, rows, o, (double)got[o],
                         (double)want);
        }
        free(got);
    }
}

/* Steps with given rows, by which a product of type `to` takes x, n values. */
static void check_taken(rig *r, bool exact, given g, cp_mat out, const float *x, int n, cp_dtype to)
{
    static const int rows[] = {1, 5, 9, MANY_HANDED};
    pair p = pair_open(r, exact);
    for (int i = 0; i < 4; i++) {
        g.n = rows[i];
        pair_step(&p, rows[i], &g);
        check_halves(&p, out, rows[i], x, n, to);
    }
    pair_close(&p);
    rig_fini(r);
    free(g.x);
}

/* The outputs of a product of type t, which are its biases, go to one of type `to` alone. Of gate
 * and up, where up has another type, they are up's biases times SILU of 32, which is 32. */
static void hand_on_halves(cp_dtype t, cp_dtype up, cp_dtype to, bool exact, bool infinite)
{
    rig r;
    rig_init(&r, 78);
    int k = whole_blocks(t, 32);
    cp_mat in = rig_mat(&r, k, CP_ROWS_ALL), mid = rig_mat(&r, HANDED, CP_ROWS_ALL),
           out = rig_mat(&r, HANDED, CP_ROWS_ALL);
    cp_op *op = rig_linear(&r, in, 0, 0, CP_ROWS_ALL);
    op->u.linear.n_w = 0;
    add_weight(&r, op, t, k, HANDED, true);
    op->u.linear.w[0].out = mid;
    float *bias = (float *)(uintptr_t)r.tensors[op->u.linear.w[0].bias].data, x[HANDED];
    put_sizes(bias, HANDED, infinite);
    memcpy(x, bias, sizeof x);
    if (up != t) {
        op->u.linear.act = CP_ACT_SILU;
        add_weight(&r, op, up, k, HANDED, true);
        float *of_up = (float *)(uintptr_t)r.tensors[op->u.linear.w[1].bias].data;
        for (int i = 0; i < HANDED; i++) {
            of_up[i] = bias[i] / 32.0f;
            bias[i] = 32.0f;
            x[i] = of_up[i] * 32.0f;
        }
    }
    rig_linear(&r, mid, identity(&r, to, HANDED), out, CP_ROWS_ALL);
    given zeroes = {in, 0, k, cp_xcalloc((size_t)(MANY_HANDED * k), sizeof(float))};
    check_taken(&r, exact, zeroes, out, x, HANDED, to);
}

/* Up is a matrix, whose rows go on behind the last output: with an infinity, for which the next
 * product has no weights, and so has to find nothing. */
static void hand_on_wide(cp_dtype t, cp_dtype to)
{
    enum { WIDTH = HANDED + 1 };
    rig r;
    float x[HANDED];
    rig_init(&r, 81);
    int k = whole_blocks(t, 32);
    cp_mat mul = rig_mat(&r, WIDTH, CP_ROWS_ALL), mid = rig_mat(&r, HANDED, CP_ROWS_ALL),
           out = rig_mat(&r, HANDED, CP_ROWS_ALL);
    cp_op *op = rig_linear(&r, rig_mat(&r, k, CP_ROWS_ALL), 0, 0, CP_ROWS_ALL);
    op->u.linear.n_w = 0;
    add_weight(&r, op, t, k, HANDED, true);
    op->u.linear.w[0].out = mid;
    op->u.linear.in_scale = 0.0f;
    op->u.linear.act = CP_ACT_SILU;
    op->u.linear.mul = mul;
    given ups = {mul, 0, WIDTH, cp_xcalloc(MANY_HANDED * WIDTH, sizeof(float))};
    for (int i = 0; i < HANDED; i++) {
        set_vector(&r, op->u.linear.w[0].bias, i, 32.0f);
        x[i] = 32.0f * (ups.x[i] = rig_uniform(&r));
    }
    ups.x[HANDED] = INFINITY;
    for (int row = 1; row < MANY_HANDED; row++)
        memcpy(ups.x + row * WIDTH, ups.x, WIDTH * sizeof(float));
    rig_linear(&r, mid, identity(&r, to, HANDED), out, CP_ROWS_ALL);
    check_taken(&r, false, ups, out, x, HANDED, to);
}

/* Of outputs that end with the first panel of two, lanes behind them have that panel once more.
 * Biases make gates so low that SILU of them is 0; what has none is infinite. */
static void hand_on_one_panel(cp_dtype to)
{
    enum { K = 32, M = 144 };
    rig r;
    float zeroes[M] = {0.0f};
    rig_init(&r, 82);
    cp_mat in = rig_mat(&r, K, CP_ROWS_ALL), mid = rig_mat(&r, M, CP_ROWS_ALL),
           out = rig_mat(&r, M, CP_ROWS_ALL);
    cp_op *op = rig_linear(&r, in, 0, 0, CP_ROWS_ALL);
    op->u.linear.n_w = 0;
    op->u.linear.act = CP_ACT_SILU;
    add_weight(&r, op, CP_DTYPE_Q4_0, K, M, true);
    add_weight(&r, op, CP_DTYPE_Q8_0, K, M, false);
    op->u.linear.w[0].out = mid;
    for (int i = 0; i < M; i++)
        set_vector(&r, op->u.linear.w[0].bias, i, -0x1p120f);
    given g = {in, 0, K, cp_xcalloc(MANY_HANDED * K, sizeof(float))};
    for (int i = 0; i < MANY_HANDED * K; i++)
        g.x[i] = i / K % 2 ? -0x1p90f : 0x1p90f;
    rig_linear(&r, mid, identity(&r, to, M), out, CP_ROWS_ALL);
    check_taken(&r, false, g, out, zeroes, M, to);
}

static void handed_halves(void **state)
{
    (void)state;
    cp_dtype types[CP_PANEL_COUNT];
    int n = cp_test_kinds(types);
    for (int i = 0; i < 4 * n + 4; i++) {
        cp_dtype t = i < 4 * n ? types[i / 4] : CP_DTYPE_Q4_0, up = i < 4 * n ? t : CP_DTYPE_Q8_0;
        hand_on_halves(t, up, CP_DTYPE_BF16, i & 1, i & 2);
        if (i & 1)
            hand_on_halves(t, up, CP_DTYPE_F16, false, i & 2);
    }
    for (int i = 0; i < 2 * n; i++)
        hand_on_wide(types[i / 2], i % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16);
    hand_on_one_panel(CP_DTYPE_BF16);
    hand_on_one_panel(CP_DTYPE_F16);
}

/* Rows that a prologue makes 16-bit numbers of, without a norm; of lengths that end in each place
 * of a turn of the loops over them, some of which no four divides. */
static void prologue_halves(void **state)
{
    (void)state;
    static const int lengths_of[] = {24, 32, 33, 56, 64, 65, 88, 96, HANDED - 2, HANDED};
    for (int i = 0; i < 40; i++) {
        rig r;
        rig_init(&r, 79);
        int n = lengths_of[i / 4];
        cp_dtype to = i & 1 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        cp_mat in = rig_mat(&r, n, CP_ROWS_ALL), out = rig_mat(&r, n, CP_ROWS_ALL);
        rig_linear(&r, in, identity(&r, to, n), out, CP_ROWS_ALL);
        given g = {in, 0, n, cp_xcalloc((size_t)(MANY_HANDED * n), sizeof(float))};
        for (int j = 0; j < n; j++)
            g.x[j] = rig_uniform(&r);
        put_sizes(g.x, n, i & 2);
        for (int row = 1; row < MANY_HANDED; row++)
            memcpy(g.x + row * n, g.x, (size_t)n * sizeof(float));
        check_taken(&r, false, g, out, g.x, n, to);
    }
}

/* A chain of LINEARs; each of its first n - 1 hands int8 blocks to the next, unless another reads
 * what it wrote: then that is there in f32. */
static void chains(void **state)
{
    (void)state;
    static const cp_dtype types[] = {CP_DTYPE_Q4_K, CP_DTYPE_Q8_0, CP_DTYPE_F32, CP_DTYPE_Q6_K};
    for (int number = 0; number < 8; number++) {
        rig r;
        cp_mat mats[6];
        rig_init(&r, (uint64_t)number + 40);
        int n = 2 + number % 3;
        bool read = number % 4 == 3;
        mats[0] = rig_mat(&r, 512, CP_ROWS_ALL);
        for (int i = 0; i < n; i++) {
            int k = r.mats[mats[i]].width, m = i < n - 1 ? 256 * (1 + (int)rig_random(&r, 3)) : 45;
            cp_op *op = rig_linear(&r, mats[i], 0, 0, CP_ROWS_ALL);
            op->u.linear.n_w = 0;
            op->u.linear.act = (cp_act)((number + i) % 4);
            cp_dtype t = types[(number + i) % 4];
            add_weight(&r, op, i && t == CP_DTYPE_F32 ? CP_DTYPE_Q4_K : t, k, m, i % 2);
            if (op->u.linear.act != CP_ACT_NONE)
                add_weight(&r, op, i && number % 2 ? CP_DTYPE_Q5_K : CP_DTYPE_Q4_K, k, m, false);
            op->u.linear.w[0].out = mats[i + 1] = rig_mat(&r, m, CP_ROWS_ALL);
        }
        cp_mat outs[] = {mats[n], read ? mats[1] : (cp_mat)-1, -1};
        if (read) {
            cp_op *op = rig_op(&r, CP_OP_LINEAR, CP_ROWS_ALL);
            *op = *rig_linear(&r, mats[1], 0, 0, CP_ROWS_ALL);
            r.prog.n_ops--;
            int k = r.mats[mats[1]].width;
            op->u.linear.w[0].w = rig_weight(&r, CP_DTYPE_Q8_0, k, 7, CP_ROLE_LINEAR);
            op->u.linear.w[0].out = rig_mat(&r, 7, CP_ROWS_ALL);
        }
        pair p = pair_open(&r, true);
        for (int i = number % 2; i < N_ROWS; i += 2) {
            pair_step(&p, row_counts[i], NULL);
            pair_equal(&p, row_counts[i], outs, "a chain");
            float *a = machine_row(&p.ref, mats[1], 0), *b = machine_row(&p.cuda, mats[1], 0);
            if (!read && memcmp(a, b, (size_t)r.mats[mats[1]].width * sizeof *a) == 0)
                fail_msg("number %d: the first record's rows are there", number);
            free(a);
            free(b);
        }
        pair_close(&p);
        rig_fini(&r);
    }
}

/* ---- EXPERTS ---- */

/* n_used different experts a row: any, the same for all, few, or one after another. */
static given some_ids(rig *r, cp_mat m, int n, int n_expert, int n_used, int how)
{
    given g = {m, n, n_used, cp_xcalloc((size_t)(n * n_used), sizeof(float))};
    int *deck = cp_xcalloc((size_t)n_expert, sizeof *deck);
    for (int e = 0; e < n_expert; e++)
        deck[e] = e;
    for (int row = 0; row < n; row++) {
        for (int j = 0; how == 3 && j < n_used; j++)
            g.x[row * n_used + j] = (float)((row * n_used + j) % n_expert);
        int from = how == 2 && n_used + 1 < n_expert ? n_used + 1 : n_expert;
        for (int j = 0; how != 3 && j < n_used; j++) {
            int i = j + (how == 1 && row ? 0 : (int)rig_random(r, (uint64_t)(from - j)));
            int e = deck[i];
            deck[i] = deck[j];
            deck[j] = e;
            g.x[row * n_used + j] = (float)e;
        }
    }
    free(deck);
    return g;
}

static cp_op *experts_record(rig *r, cp_dtype t, int n_expert, int n_used, int number)
{
    bool gated = number % 2, fused = gated && number / 2 % 2;
    int k = whole_blocks(t, 32 + (int)rig_random(r, 700)) - (is_float(t) ? number % 3 : 0);
    int m = fused ? 16 * (1 + (int)rig_random(r, 3)) : 1 + (int)rig_random(r, 70);
    cp_op *op = rig_op(r, CP_OP_EXPERTS, CP_ROWS_ALL);
    op->u.experts.by_rank = !gated && number / 2 % 2;
    op->u.experts.in = rig_mat(r, k * (op->u.experts.by_rank ? n_used : 1), CP_ROWS_ALL);
    op->u.experts.ids = rig_mat(r, n_used, CP_ROWS_ALL);
    op->u.experts.out = rig_mat(r, m * n_used, CP_ROWS_ALL);
    op->u.experts.norm = op->u.experts.by_rank || number % 3 ? (cp_wref)-1 : rig_vector(r, k, 1);
    op->u.experts.eps = 1e-5f;
    op->u.experts.act = gated ? (cp_act)(1 + number / 4 % 3) : CP_ACT_NONE;
    for (int i = 0; i < (gated ? 2 : 1); i++) {
        int outputs = fused ? 2 * m : m;
        cp_dtype type = i && number % 5 == 0 ? CP_DTYPE_F32 : t;
        op->u.experts.w[i].first = fused && i ? m : 0;
        op->u.experts.w[i].w =
            fused && i ? op->u.experts.w[0].w : rig_experts(r, type, k, outputs, n_expert);
        op->u.experts.w[i].bias = rig_random(r, 2) ? (cp_wref)-1 : rig_vector(r, outputs, n_expert);
    }
    return op;
}

static void experts(void **state)
{
    (void)state;
    cp_dtype types[CP_PANEL_COUNT];
    int n = cp_test_kinds(types);
    for (int number = 0; number < 2 * n; number++) {
        rig r;
        rig_init(&r, (uint64_t)number + 900);
        int n_expert = number == 7 ? 300 : number % 7 == 0 ? 70 : 1 + (int)rig_random(&r, 12);
        int n_used = 1 + (int)rig_random(&r, (uint64_t)(n_expert < 4 ? n_expert : 4));
        cp_op *op = experts_record(&r, types[number % n], n_expert, n_used, number);
        cp_mat outs[] = {op->u.experts.out, -1};
        pair p = pair_open(&r, true);
        for (int i = number % 3; i < N_ROWS; i += 3) {
            given ids =
                some_ids(&r, op->u.experts.ids, row_counts[i], n_expert, n_used, (number + i) % 3);
            pair_step(&p, row_counts[i], &ids);
            pair_equal(&p, row_counts[i], outs, cp_dtype_info((uint32_t)types[number % n])->name);
            free(ids.x);
        }
        pair_close(&p);
        rig_fini(&r);
    }
}

/* Many experts, so that each warp of those that sort has some, of few values; at last as many
 * places as there may be. */
static void many_experts(void **state)
{
    (void)state;
    static const int counts[] = {1, 2, 31, 33, 64, 96, 97, 130, 200, 511, 512};
    enum { K = 32, M = 2 };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        rig r;
        rig_init(&r, i + 980);
        int most = i % 2 ? 12 : 8, n_used = counts[i] < most ? counts[i] : most;
        cp_op *op = rig_op(&r, CP_OP_EXPERTS, CP_ROWS_ALL);
        op->u.experts.in = rig_mat(&r, K, CP_ROWS_ALL);
        op->u.experts.ids = rig_mat(&r, n_used, CP_ROWS_ALL);
        op->u.experts.out = rig_mat(&r, M * n_used, CP_ROWS_ALL);
        op->u.experts.norm = -1;
        op->u.experts.w[0].w = rig_experts(&r, CP_DTYPE_Q8_0, K, M, counts[i]);
        op->u.experts.w[0].bias = -1;
        cp_mat outs[] = {op->u.experts.out, -1};
        pair p = pair_open(&r, true);
        for (int rows = 1; rows <= 64; rows += 21) {
            given ids = some_ids(&r, op->u.experts.ids, rows, counts[i], n_used,
                                 rows == 64 ? 3 : rows == 1);
            pair_step(&p, rows, &ids);
            pair_equal(&p, rows, outs, "many experts");
            free(ids.x);
        }
        pair_close(&p);
        rig_fini(&r);
    }
}

/* ---- default numerics ---- */

/* What the cuda machine makes of the first rows is what it makes of each alone. */
static void assert_rows_alone(pair *p, cp_mat in, cp_mat out, int n)
{
    int width = p->r->mats[in].width, m = p->r->mats[out].width;
    for (int row = 0; row < n; row += 1 + n / 4) {
        float *want = machine_row(&p->cuda, out, row), *x = machine_row(&p->cuda, in, row);
        machine alone = machine_open_on(p->r, "cuda", NULL, 1);
        given g = {in, 1, width, x};
        rig_seq q = {.n_rows = 1};
        rig_batch b;
        rig_batch_init(&b, p->r, &q, 1, false);
        given_fill(&alone, 1, &g);
        machine_step(&alone, &b.b);
        float *got = machine_row(&alone, out, 0);
        for (int o = 0; o < m; o++)
            if (memcmp(&got[o], &want[o], sizeof *got) != 0)
                fail_msg("row %d of %d, output %d: %a, alone %a", row, n, o, (double)want[o],
                         (double)got[o]);
        rig_batch_fini(&b);
        machine_close(&alone);
        free(want);
        free(got);
        free(x);
    }
}

static void halves(void **state)
{
    (void)state;
    for (int number = 0; number < 2 * N_K + 2; number++) {
        rig r;
        cp_dtype t = number % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        rig_init(&r, (uint64_t)number + 70);
        bool is_long = number >= 2 * N_K;
        const int *rows = is_long ? long_row_counts : row_counts;
        int k = (is_long ? LONG : lengths[number / 2]) - number % 3;
        int m = 1 + (int)rig_random(&r, 70);
        cp_mat in = rig_mat(&r, k, CP_ROWS_ALL), out = rig_mat(&r, m, CP_ROWS_ALL);
        cp_op *op = rig_linear(&r, in, rig_weight(&r, t, k, m, CP_ROLE_LINEAR), out, CP_ROWS_ALL);
        if (number % 4 < 2)
            op->u.linear.norm = rig_vector(&r, k, 1);
        else
            op->u.linear.in_scale = number % 4 == 2 ? 1e6f : 1e-6f; /* beyond what f16 holds */
        pair p = pair_open(&r, false);
        for (int i = 0; i < (is_long ? N_LONG : N_ROWS); i++) {
            pair_step(&p, rows[i], NULL);
            double d = pair_distance(&p, out, rows[i]);
            if (!(d <= 1e-5))
                fail_msg("%s, k %d, %d rows: NMSE %g", cp_dtype_info((uint32_t)t)->name, k, rows[i],
                         d);
            assert_rows_alone(&p, in, out, rows[i]);
        }
        pair_close(&p);
        rig_fini(&r);
    }
}

/* By cuBLAS from 64 rows on, with what comes before and behind. */
static void gemms(void **state)
{
    (void)state;
    for (int number = 0; number < 24; number++) {
        rig r;
        cp_mat outs[OUTS];
        cp_dtype t = number % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
        rig_init(&r, (uint64_t)number + 300);
        r.gemm = CP_GEMM_CUBLAS;
        int k = lengths[number % N_K] - number % 3, m = 1 + (int)rig_random(&r, 300);
        cp_op *op = rig_linear(&r, rig_mat(&r, k, CP_ROWS_ALL), 0, 0, CP_ROWS_ALL);
        vary(&r, op, k, m, t, number, outs);
        if (number % 8 == 0) { /* a second weight of the kind */
            add_weight(&r, op, t, k, 20, true);
            op->u.linear.w[1].out = rig_mat(&r, 20, CP_ROWS_ALL);
        }
        pair p = pair_open(&r, false);
        for (int n = 63; n <= 64; n++) {
            pair_step(&p, n, NULL);
            double d = pair_distance(&p, outs[0], n);
            if (number % 8 == 0)
                d += pair_distance(&p, op->u.linear.w[1].out, n);
            if (!(d <= 1e-5))
                fail_msg("number %d, k %d, m %d, %d rows: NMSE %g", number, k, m, n, d);
        }
        pair_close(&p);
        rig_fini(&r);
    }
}

/* ---- every branch of every kernel (label cuda-long, with CP_EVERY) ---- */

static const int widths[] = {3, 12, 24}; /* one tile of rows, two, four */
enum { N_WIDTHS = sizeof widths / sizeof *widths, VARIANTS = 28, EXPERT_VARIANTS = 24 };

static void every_variant(cp_dtype t, int number, bool exact)
{
    rig r;
    cp_mat outs[OUTS];
    rig_init(&r, (uint64_t)number + 4000);
    static const int ks[] = {64, 3616, 64, 1056, 64, 64, 64, 3104, 64}; /* 1, 8, 3, 7 segments */
    cp_rows rows = number % 5 == 2 ? CP_ROWS_OUT : CP_ROWS_ALL;
    int k = whole_blocks(t, ks[number % 9]) - (is_float(t) && number % 2 ? 3 : 0);
    int m = 1 + (int)rig_random(&r, 70);
    cp_op *op = rig_linear(&r, rig_mat(&r, k, rows), 0, 0, rows);
    vary(&r, op, k, m, t, number, outs);
    for (int i = 1; op->u.linear.act == CP_ACT_NONE && i < 3; i++) {
        add_weight(&r, op, t, k, m + i, i % 2);
        op->u.linear.w[i].out = rig_mat(&r, m + i, rows);
    }
    pair p = pair_open(&r, exact);
    for (int i = 0; i < N_WIDTHS; i++) {
        if (rows == CP_ROWS_OUT)
            pair_step_out(&p, widths[i], outs);
        else
            pair_step(&p, widths[i], NULL);
        if (exact)
            pair_equal(&p, widths[i], outs, cp_dtype_info((uint32_t)t)->name);
        else if (!(pair_distance(&p, outs[0], widths[i]) <= 1e-4))
            fail_msg("%s number %d, %d rows: NMSE %g", cp_dtype_info((uint32_t)t)->name, number,
                     widths[i], pair_distance(&p, outs[0], widths[i]));
    }
    pair_close(&p);
    rig_fini(&r);
}

/* What gate and up give goes to one other linear alone, of type `to`: it is left as that one's
 * inputs where it is made. */
static void every_chain(cp_dtype gate, cp_dtype up, cp_dtype to, bool exact)
{
    rig r;
    rig_init(&r, 6000);
    int k = whole_blocks(up, whole_blocks(gate, 64));
    int m = is_float(to) ? 150 : whole_blocks(to, 160); /* floats' last block ends in zeroes */
    cp_mat outs[] = {rig_mat(&r, 40, CP_ROWS_ALL), -1}, mid = rig_mat(&r, m, CP_ROWS_ALL);
    cp_op *op = rig_linear(&r, rig_mat(&r, k, CP_ROWS_ALL), 0, 0, CP_ROWS_ALL);
    op->u.linear.n_w = 0;
    op->u.linear.act = CP_ACT_SILU;
    add_weight(&r, op, gate, k, m, false);
    add_weight(&r, op, up, k, m, true);
    op->u.linear.w[0].out = mid;
    rig_linear(&r, mid, rig_weight(&r, to, m, 40, CP_ROLE_LINEAR), outs[0], CP_ROWS_ALL);
    pair p = pair_open(&r, exact);
    for (int i = 0; i < N_WIDTHS; i++) {
        pair_step(&p, widths[i], NULL);
        if (exact)
            pair_equal(&p, widths[i], outs, cp_dtype_info((uint32_t)gate)->name);
        else
            assert_true(pair_distance(&p, outs[0], widths[i]) <= 1e-3);
    }
    pair_close(&p);
    rig_fini(&r);
}

static void every_experts(cp_dtype t, int number, bool exact)
{
    rig r;
    rig_init(&r, (uint64_t)number + 5000);
    int n_expert = 1 + number % 5, n_used = 1 + number % (n_expert < 3 ? n_expert : 3);
    cp_op *op = experts_record(&r, t, n_expert, n_used, number);
    cp_mat outs[] = {op->u.experts.out, -1};
    pair p = pair_open(&r, exact);
    for (int i = 0; i < N_WIDTHS; i++) {
        given ids = some_ids(&r, op->u.experts.ids, widths[i], n_expert, n_used, (number + i) % 3);
        pair_step(&p, widths[i], &ids);
        if (exact)
            pair_equal(&p, widths[i], outs, cp_dtype_info((uint32_t)t)->name);
        else
            assert_true(pair_distance(&p, outs[0], widths[i]) <= 1e-4);
        free(ids.x);
    }
    pair_close(&p);
    rig_fini(&r);
}

/* A length, whose last segment and turn of a loop are as short as that makes them. */
static void every_length(cp_dtype t, int k, bool exact)
{
    rig r;
    rig_init(&r, (uint64_t)k + 7000);
    cp_mat in = rig_mat(&r, k, CP_ROWS_ALL), outs[] = {rig_mat(&r, 33, CP_ROWS_ALL), -1};
    rig_linear(&r, in, rig_weight(&r, t, k, 33, CP_ROLE_LINEAR), outs[0], CP_ROWS_ALL);
    pair p = pair_open(&r, exact);
    for (int i = 0; i < N_WIDTHS; i++) {
        pair_step(&p, widths[i], NULL);
        if (exact)
            pair_equal(&p, widths[i], outs, cp_dtype_info((uint32_t)t)->name);
        else
            assert_true(pair_distance(&p, outs[0], widths[i]) <= 1e-5);
    }
    pair_close(&p);
    rig_fini(&r);
}

/* Lengths of one to all blocks of a segment, and of one to eight segments. */
static void every_length_of(cp_dtype t)
{
    int block = is_float(t) ? 1 : (int)cp_dtype_info((uint32_t)t)->block;
    for (int k = block; k <= (is_float(t) ? 70 : 544); k += block) {
        every_length(t, k, true);
        if (t == CP_DTYPE_BF16 || t == CP_DTYPE_F16)
            every_length(t, k, false);
    }
    for (int segments = 2; segments <= 8; segments++) {
        every_length(t, whole_blocks(t, segments * 512 - 256), true);
        if (t == CP_DTYPE_BF16 || t == CP_DTYPE_F16)
            every_length(t, segments * 512 - 256, false);
    }
}

/* Of two experts one has an item of a single row behind whole ones; or both have as few items as
 * may be, so that one more is left of the step before. */
static void lopsided(cp_dtype t, bool exact)
{
    /* four tiles a block, two, one */
    static const int rows[] = {40, 40, 24, 24, 10, 10}, first[] = {33, 32, 17, 16, 9, 8};
    rig r;
    rig_init(&r, 81);
    int k = whole_blocks(t, 1056);
    cp_op *op = rig_op(&r, CP_OP_EXPERTS, CP_ROWS_ALL);
    op->u.experts.in = rig_mat(&r, k, CP_ROWS_ALL);
    op->u.experts.ids = rig_mat(&r, 1, CP_ROWS_ALL);
    op->u.experts.out = rig_mat(&r, 20, CP_ROWS_ALL);
    op->u.experts.norm = op->u.experts.w[0].bias = -1;
    op->u.experts.w[0].w = rig_experts(&r, t, k, 20, 2);
    cp_mat outs[] = {op->u.experts.out, -1};
    pair p = pair_open(&r, exact);
    for (int i = 0; i < 6; i++) {
        given ids = {op->u.experts.ids, rows[i], 1, cp_xcalloc((size_t)rows[i], sizeof(float))};
        for (int row = first[i]; row < rows[i]; row++)
            ids.x[row] = 1.0f;
        pair_step(&p, rows[i], &ids);
        if (exact)
            pair_equal(&p, rows[i], outs, cp_dtype_info((uint32_t)t)->name);
        else
            assert_true(pair_distance(&p, outs[0], rows[i]) <= 1e-4);
        free(ids.x);
    }
    pair_close(&p);
    rig_fini(&r);
}

/* What is cheap of these for every kernel: lengths at each place of a turn of the loop over a
 * segment, four segments, few items of an expert, and int8 blocks that are handed on, of which the
 * next product takes the sum, the sum times its scale, or the sums of both halves. */
static void each_kernel(void **state)
{
    (void)state;
    static const int ks[] = {64, 96, 128, 1568};
    static const cp_dtype next[] = {CP_DTYPE_Q8_0, CP_DTYPE_Q4_1, CP_DTYPE_NVFP4};
    cp_dtype types[CP_PANEL_COUNT];
    int n = cp_test_kinds(types);
    for (int i = 0; i < n; i++) {
        bool half = types[i] == CP_DTYPE_F16 || types[i] == CP_DTYPE_BF16;
        for (int exact = 1; exact >= !half; exact--) {
            for (size_t j = 0; j < sizeof ks / sizeof *ks; j++)
                every_length(types[i], whole_blocks(types[i], ks[j]), exact);
            lopsided(types[i], exact);
            for (int j = 0; j < 3; j++)
                every_chain(types[i], types[i], next[j], exact);
            for (int k = 1; is_float(types[i]) && k <= 21; k++)
                every_length(types[i], k, exact);
        }
    }
}

static void every_branch(void **state)
{
    (void)state;
    cp_dtype types[CP_PANEL_COUNT];
    int n = getenv("CP_EVERY") ? integer_types(types) : 0;
    static const int ks[] = {32, 96, 160, 224, 256, 544, 1056, 2080, 3616, 4640};
    for (int i = 0; i < 2 * n; i++)
        for (size_t j = 0; j < sizeof ks / sizeof *ks; j++)
            mix(types, n, i / 2, ks[j], i % 2, widths, N_WIDTHS);
    for (int i = 0; i < n; i++) {
        every_chain(types[i], types[(i + 1) % n], CP_DTYPE_F16, false);
        every_chain(types[i], types[(i + 1) % n], i % 2 ? CP_DTYPE_BF16 : CP_DTYPE_Q8_0, true);
    }
    n = getenv("CP_EVERY") ? cp_test_kinds(types) : 0;
    for (int i = 0; i < n; i++) {
        every_length_of(types[i]);
        lopsided(types[i], true);
        bool half = types[i] == CP_DTYPE_F16 || types[i] == CP_DTYPE_BF16;
        if (half)
            lopsided(types[i], false);
        every_chain(types[i], types[i], CP_DTYPE_F16, false);
        for (int exact = 1; exact >= !half; exact--) {
            for (int number = 0; number < VARIANTS; number++)
                every_variant(types[i], number, exact);
            for (int number = 35; number <= 49; number += 7) /* a cap with gate and up */
                every_variant(types[i], number, exact);
            every_chain(types[i], types[i], CP_DTYPE_Q8_0, exact);
            every_chain(types[i], types[i], CP_DTYPE_BF16, exact);
            for (int number = 0; number < EXPERT_VARIANTS; number++)
                every_experts(types[i], number, exact);
        }
    }
}

int main(void)
{
    if (!pair_is_built())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linears),
        cmocka_unit_test(several_weights),
        cmocka_unit_test(odd_inputs),
        cmocka_unit_test(experts),
        cmocka_unit_test(halves),
        cmocka_unit_test(chains),
        cmocka_unit_test(gemms),
        cmocka_unit_test(mixes),
        cmocka_unit_test(infinite_neighbours),
        cmocka_unit_test(thresholds),
        cmocka_unit_test(many_experts),
        cmocka_unit_test(handed_halves),
        cmocka_unit_test(prologue_halves),
        cmocka_unit_test(each_kernel),
        cmocka_unit_test(every_branch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
