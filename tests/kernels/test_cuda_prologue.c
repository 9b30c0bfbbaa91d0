/*
 * test_cuda_prologue: what LINEARs of the cuda backend take, on the PTX machine behind the fake
 * driver: rows of every length after sums, norms and scales, in every form, and those of f16 that
 * cuBLAS takes to the bit.
 */
#include "tests/kernels/pair.h"

#include "base/mem.h"
#include "kernels/math.h"
#include "tests/kernels/weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* If there is such a vector. */
static void set_vector(const rig *r, cp_wref w, int i, float x)
{
    if (w >= 0)
        ((float *)(uintptr_t)r->tensors[w].data)[i] = x;
}

/* The column of row, and output, i below. First those at the ends of what the threads of a block
 * take in one turn, then some of every warp. */
static int peak(int i, int k)
{
    return i < 2 ? 1023 - 768 * i : i < 12 ? 256 * (i - 2) % k : (i * 37 + 5) % k;
}

/* What a prologue may do before it rounds, by the bits of number. */
static void put_prologue(rig *r, cp_op *op, int k, int number)
{
    if (number & 1)
        op->u.linear.norm = rig_vector(r, k, 1);
    if (number & 2)
        op->u.linear.add = rig_mat(r, k, CP_ROWS_ALL);
    if ((number & 6) == 6)
        op->u.linear.add_norm = rig_vector(r, k, 1);
    if (number & 8)
        op->u.linear.in_scale = 0.0625f;
}

/* A weight that gives the columns of peak() as they are. */
static cp_wref peaks(rig *r, cp_dtype t, int k, int n)
{
    cp_wref w = rig_weight(r, t, k, n, CP_ROLE_LINEAR);
    void *x = (void *)(uintptr_t)r->tensors[w].data;
    memset(x, 0, r->tensors[w].bytes);
    for (int i = 0; i < n; i++) {
        if (t == CP_DTYPE_F32)
            ((float *)x)[i * k + peak(i, k)] = 1.0f;
        else
            ((uint16_t *)x)[i * k + peak(i, k)] = cp_f16_from_f32(1.0f);
    }
    return w;
}

/* Rows of f16 that are multiplied by one power of two each, which brings its largest number, at
 * peak(), to [2^14, 2^15), whatever a prologue does before. */
static void gemm_inputs(void **state)
{
    (void)state;
    enum { ROWS = 64 };
    for (int number = 0; number < 32; number++) {
        rig r;
        rig_init(&r, (uint64_t)number + 350);
        r.gemm = CP_GEMM_CUBLAS;
        int k = number % 2 ? 1024 : 2592;
        cp_mat in = rig_mat(&r, k, CP_ROWS_ALL), outs[] = {rig_mat(&r, ROWS, CP_ROWS_ALL), -1},
               halves_out = rig_mat(&r, ROWS, CP_ROWS_ALL);
        cp_op *op = rig_linear(&r, in, peaks(&r, CP_DTYPE_F32, k, ROWS), outs[0], CP_ROWS_ALL);
        op->u.linear.w[op->u.linear.n_w++].out = halves_out;
        op->u.linear.w[1].w = peaks(&r, CP_DTYPE_F16, k, ROWS);
        op->u.linear.w[1].bias = -1;
        put_prologue(&r, op, k, number / 2);
        cp_mat to = number & 4 && number >= 16 ? op->u.linear.add : in;
        given g = {to, ROWS, k, cp_xcalloc((size_t)(ROWS * k), sizeof(float))};
        for (int i = 0; i < ROWS * k; i++)
            g.x[i] = rig_uniform(&r);
        for (int i = 0; i < ROWS; i++) {
            g.x[i * k + peak(i, k)] = 0x1p20f;
            set_vector(&r, op->u.linear.norm, peak(i, k), 0x1p10f);
            set_vector(&r, op->u.linear.add_norm, peak(i, k), 0x1p10f);
        }
        pair p = pair_open(&r, false);
        pair_step(&p, ROWS, &g);
        pair_equal(&p, ROWS, outs, "rows of f32");
        for (int row = 0; row < ROWS; row++) {
            float *x = machine_row(&p.ref, outs[0], row),
                  *got = machine_row(&p.cuda, halves_out, row);
            int e = 14 - ilogbf(x[row]);
            for (int i = 0; i < ROWS; i++) {
                float want = ldexpf(cp_f32_from_f16(cp_f16_from_f32(ldexpf(x[i], e))), -e);
                if (got[i] != want)
                    fail_msg("number %d, row %d, column %d: %a, not %a", number, row, peak(i, k),
                             (double)got[i], (double)want);
            }
            free(x);
            free(got);
        }
        pair_close(&p);
        rig_fini(&r);
        free(g.x);
    }
}

/* Rows of lengths that no four divides, for products of floats of all forms. */
static void ragged_inputs(void **state)
{
    (void)state;
    static const int ks[] = {5, 30, 63, 127, 130, 1029};
    static const cp_dtype types[] = {CP_DTYPE_F32, CP_DTYPE_BF16, CP_DTYPE_F16};
    for (int number = 0; number < 36; number++) {
        rig r;
        rig_init(&r, (uint64_t)number + 390);
        int k = ks[number % 6];
        cp_mat outs[5] = {-1, -1, -1, -1, -1};
        cp_op *op = rig_linear(&r, rig_mat(&r, k, CP_ROWS_ALL), 0, 0, CP_ROWS_ALL);
        op->u.linear.n_w = 3;
        for (int i = 0; i < 3; i++) {
            op->u.linear.w[i].w = rig_weight(&r, types[i], k, 20, CP_ROLE_LINEAR);
            op->u.linear.w[i].bias = -1;
            outs[i] = op->u.linear.w[i].out = rig_mat(&r, 20, CP_ROWS_ALL);
        }
        put_prologue(&r, op, k, number);
        op->u.linear.x_out = number % 5 < 3 ? rig_mat(&r, k, CP_ROWS_ALL) : -1;
        pair p = pair_open(&r, false);
        pair_step(&p, 5, NULL);
        pair_equal(&p, 5, (cp_mat[]){outs[0], op->u.linear.x_out, -1}, "ragged rows");
        for (int i = 1; i < 3; i++)
            assert_true(pair_distance(&p, outs[i], 5) <= 1e-5);
        pair_close(&p);
        rig_fini(&r);
    }
}

int main(void)
{
    if (!pair_is_built())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_inputs),
        cmocka_unit_test(ragged_inputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
