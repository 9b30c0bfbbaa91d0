/*
 * test_ops_avx512: the avx512 vector functions of the walker on any x86-64 machine, emulated by
 * SIMDe (Debian: libsimde-dev): the bits of the base level for every entry of cp_vec. Skips, aloud,
 * without SIMDe or gcc.
 */
#include "tests/kernels/emulated.h"

#include "kernels/cpu/vec.h"
#include "tests/kernels/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef WIDE

/* What SIMDe lacks. */
static simde__m256 emulated_half(simde__m512 v, int i)
{
    simde__m256 half;
    memcpy(&half, (const char *)&v + 32 * i, sizeof(half));
    return half;
}

static simde__m512i emulated_cvtps(simde__m512 v)
{
    float in[16];
    int32_t out[16];
    memcpy(in, &v, sizeof(in));
    for (int i = 0; i < 16; i++)
        out[i] = (int32_t)cp_sample_weight(in[i] * 0x1p-30f); /* nearest even */
    return simde_mm512_loadu_si512(out);
}

static int64_t emulated_sum(simde__m512i v)
{
    int64_t in[8], sum = 0;
    memcpy(in, &v, sizeof(in));
    for (int i = 0; i < 8; i++)
        sum += in[i];
    return sum;
}
#define _mm512_extractf32x8_ps(v, i) emulated_half(v, i)
#define _mm512_cvtps_epi32(v)        emulated_cvtps(v)
#define _mm512_reduce_add_epi64(v)   emulated_sum(v)

#define cp_vec_avx512 cp_vec_emulated
#include "kernels/cpu/ops_avx512.c"

enum { MAX = 5000 };

static uint64_t seed = 12345;

static void fill(float *x, int n, float scale)
{
    for (int i = 0; i < n; i++)
        x[i] = scale * cp_test_uniform(&seed);
}

static int below(int n)
{
    return (int)(cp_test_random(&seed) >> 33) % n;
}

static void elementwise(void **state)
{
    (void)state;
    static float a[MAX], b[MAX], w[MAX], want[MAX], got[MAX];
    for (int round = 0; round < 60; round++) {
        int n = 1 + below(150), half = 1 + below(70);
        fill(a, MAX, 3.0f);
        fill(b, MAX, 3.0f);
        fill(w, MAX, 1.0f);
        cp_vec_base.add(want, a, b, n);
        cp_vec_emulated.add(got, a, b, n);
        assert_memory_equal(want, got, (size_t)n * sizeof(float));
        cp_vec_base.rmsnorm(want, a, w, round % 2 ? b : NULL, n, 1e-5f);
        cp_vec_emulated.rmsnorm(got, a, w, round % 2 ? b : NULL, n, 1e-5f);
        assert_memory_equal(want, got, (size_t)n * sizeof(float));
        cp_vec_base.gate_out(want, a, n);
        cp_vec_emulated.gate_out(got, a, n);
        assert_memory_equal(want, got, (size_t)n * sizeof(float));
        cp_vec_base.scale(want, 1.7f, n);
        cp_vec_emulated.scale(got, 1.7f, n);
        assert_memory_equal(want, got, (size_t)n * sizeof(float));
        cp_vec_base.rope_row(a, w, half, below(1 << 20), 1.1f);
        memcpy(b, a, sizeof(a));
        fill(want, MAX, 1.0f);
        memcpy(got, want, sizeof(want));
        for (int kind = CP_ROPE_NORM; kind <= CP_ROPE_NEOX; kind++) {
            cp_vec_base.rotate(want, a, 2 * half, (cp_rope_kind)kind);
            cp_vec_emulated.rotate(got, b, 2 * half, (cp_rope_kind)kind);
            assert_memory_equal(want, got, sizeof(want));
        }
    }
}

static void convolution(void **state)
{
    (void)state;
    static float x[3 * 200 * 6], w[200 * 5], in[4 * 200], y[2][200 * 6], out[2][4 * 200];
    for (int round = 0; round < 20; round++) {
        cp_conv c = {.d = 65 + below(130), .taps = 1 + below(5), .n_rows = 1 + below(6)};
        c.c0 = 64 * below(c.d / 64);
        c.n = 1 + below(c.d - c.c0 < 64 ? c.d - c.c0 : 64);
        c.w = w;
        c.x = x;
        c.ld_x = 3 * (size_t)c.d;
        c.ld_y = (size_t)c.d;
        c.in = round % 2 ? in : NULL;
        fill(x, 3600, 1.0f);
        fill(w, 1000, 1.0f);
        fill(in, 800, 1.0f);
        memset(y, 0, sizeof(y));
        memset(out, 0, sizeof(out));
        for (int i = 0; i < 2; i++) {
            c.y = y[i];
            c.out = out[i];
            (i ? &cp_vec_emulated : &cp_vec_base)->conv(&c);
        }
        assert_memory_equal(y[0], y[1], sizeof(y[0]));
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
    }
}

/* A head's rows through the convolution, then the delta rule over as many columns. */
static void deltas(void **state)
{
    (void)state;
    enum { ROWS = 5, D = 80 };
    static float x[ROWS * D], w[D * 4], in[3 * D], gates[2][2 * ROWS], s0[D * 32];
    static float y[2][ROWS * D], out[2][3 * D], s[2][D * 32], o[2][ROWS * 32];
    for (int round = 0; round < 20; round++) {
        int n = 1 + below(D), kd = 1 + below(D), cols = 1 + below(32);
        fill(x, ROWS * D, 1.0f);
        fill(w, D * 4, 1.0f);
        fill(in, 3 * D, 1.0f);
        fill(s0, D * 32, 1.0f);
        memset(y, 0, sizeof(y));
        memset(o, 0, sizeof(o));
        for (int i = 0; i < 2; i++) {
            const cp_vec *t = i ? &cp_vec_emulated : &cp_vec_base;
            t->delta_prep(&(cp_delta_prep){.d = D,
                                           .taps = 4,
                                           .n_rows = ROWS,
                                           .c0 = (D - n) / 2,
                                           .n = n,
                                           .w = w,
                                           .x = x,
                                           .y = y[i],
                                           .ld = D,
                                           .unit = round % 2,
                                           .eps = 1e-6f,
                                           .scale = 0.3f,
                                           .in = round % 3 ? in : NULL,
                                           .out = out[i]});
            t->delta_gates(gates[i], x, x + ROWS, in, w, ROWS);
            memcpy(s[i], s0, sizeof(s0));
            t->delta_rows(&(cp_delta){.k_dim = kd,
                                      .n_rows = ROWS,
                                      .n = cols,
                                      .q = x,
                                      .k = y[i],
                                      .v = x,
                                      .ld = D,
                                      .decay = gates[i],
                                      .beta = gates[i] + ROWS,
                                      .ld_g = 1,
                                      .s = s[i],
                                      .o = o[i],
                                      .ld_o = 32});
            t->delta_finish(o[i], w, x, cols, 1e-6f);
        }
        assert_memory_equal(y[0], y[1], sizeof(y[0]));
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
        assert_memory_equal(gates[0], gates[1], sizeof(gates[0]));
        assert_memory_equal(s[0], s[1], sizeof(s[0]));
        assert_memory_equal(o[0], o[1], sizeof(o[0]));
    }
}

/* Queries that see overlapping, disjoint and single keys of one split. */
static void attention(void **state)
{
    (void)state;
    enum { Q = 24, DIM = 72, P = 32, PAGES = CP_SPLIT / P };
    static float q[Q * DIM], s[Q * CP_SPLIT], k[DIM], v[DIM], o[2][Q * DIM], m[2][Q], l[2][Q];
    static uint16_t pages[2][PAGES + 1][2 * DIM * P];
    uint32_t table[2 * PAGES];
    int lo[Q], hi[Q];
    for (int round = 0; round < 24; round++) {
        int kd = 2 * (1 + below(DIM / 2)), vd = 2 * (1 + below(DIM / 2)), n = 1 + below(Q);
        bool f16 = round % 2;
        for (int i = 0; i < 2 * PAGES; i++)
            table[i] = (uint32_t)(1 + (i * 7 + round) % PAGES);
        for (int j = 0; j < PAGES * P; j++) {
            fill(k, DIM, 1.0f);
            fill(v, DIM, 1.0f);
            cp_vec_base.store_kv(pages[0][1 + j / P], k, v, kd, vd, P, j % P, f16);
            cp_vec_emulated.store_kv(pages[1][1 + j / P], k, v, kd, vd, P, j % P, f16);
        }
        assert_memory_equal(pages[0], pages[1], sizeof(pages[0]));
        fill(q, Q * DIM, 1.0f);
        int at = CP_SPLIT + below(CP_SPLIT - Q), window = round % 3 ? 1 + below(60) : 4 * CP_SPLIT;
        for (int i = 0; i < n; i++) {
            hi[i] = at + i / 3 + 1;
            lo[i] = hi[i] - window < CP_SPLIT ? CP_SPLIT : hi[i] - window;
        }
        cp_attend a = {.q = q,
                       .n = n,
                       .k_dim = kd,
                       .v_dim = vd,
                       .lo = lo,
                       .hi = hi,
                       .scale = 0.4f,
                       .softcap = round % 4 ? 0.0f : 3.0f,
                       .f16 = f16,
                       .pages = (const uint8_t *)pages,
                       .page_bytes = sizeof(pages[0][0]),
                       .table = table,
                       .positions = P,
                       .s = s};
        for (int i = 0; i < 2; i++) {
            const cp_vec *t = i ? &cp_vec_emulated : &cp_vec_base;
            a.o = o[i];
            a.m = m[i];
            a.l = l[i];
            t->attend(&a);
            for (int j = 1; j < n; j++)
                t->merge(&m[i][0], &l[i][0], o[i], m[i][j], l[i][j], o[i] + j * vd, vd);
            t->finish(o[i] + (n - 1) * vd, o[i], m[i][0], l[i][0], round % 5 ? NULL : &q[0], vd);
        }
        assert_memory_equal(o[0], o[1], (size_t)(n * vd) * sizeof(float));
        assert_memory_equal(m[0], m[1], (size_t)n * sizeof(float));
        assert_memory_equal(l[0], l[1], (size_t)n * sizeof(float));
    }
}

static void logits(void **state)
{
    (void)state;
    static float x[MAX], max[2][MAX / CPU_BLOCK + 1];
    static uint32_t weight[2][MAX];
    static int32_t ids[2][MAX];
    for (int round = 0; round < 40; round++) {
        int n = 1 + below(round % 2 ? MAX : 100);
        fill(x, n, 15.0f);
        x[below(n)] = -INFINITY;
        if (round % 8 == 7)
            x[below(n)] = NAN;
        assert_int_equal(cp_vec_base.block_max(x, n, max[0]),
                         cp_vec_emulated.block_max(x, n, max[1]));
        assert_memory_equal(max[0], max[1], (size_t)((n + CPU_BLOCK - 1) / CPU_BLOCK) * 4);
        if (round % 8 == 7)
            continue;
        float a = cp_vec_base.exp_sum(x, n, 15.0f), b = cp_vec_emulated.exp_sum(x, n, 15.0f);
        assert_memory_equal(&a, &b, sizeof(a));
        cp_weigh w = {.max = 15.0f, .inv_t = 0.8f, .z_min = round % 3 ? -INFINITY : -4.0f};
        assert_int_equal(cp_vec_base.weigh_sum(x, n, &w), cp_vec_emulated.weigh_sum(x, n, &w));
        cp_vec_base.weigh(x, n, &w, weight[0]);
        cp_vec_emulated.weigh(x, n, &w, weight[1]);
        assert_memory_equal(weight[0], weight[1], (size_t)n * sizeof(weight[0][0]));
        int found = cp_vec_base.collect(x, n, 3.0f, 10, ids[0]);
        assert_int_equal(found, cp_vec_emulated.collect(x, n, 3.0f, 10, ids[1]));
        assert_memory_equal(ids[0], ids[1], (size_t)found * sizeof(ids[0][0]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise), cmocka_unit_test(convolution), cmocka_unit_test(deltas),
        cmocka_unit_test(attention),   cmocka_unit_test(logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void skipped(void **state)
{
    (void)state;
    print_message("SKIPPED: needs gcc, x86-64 and SIMDe (libsimde-dev)\n");
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(skipped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
