/*
 * test_delta: a Gated DeltaNet layer (DELTAPREP, then DELTANET) as a sequence sees it: the rows of
 * a sequence give the same bits in one step, one by one and in chunks, alone and beside others, at
 * every level; what a step saves is what it leaves; and the rule itself, against plain doubles.
 */
#include "tests/kernels/rig.h"

#include "base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 64, SEQS = 3 };

typedef struct layer {
    rig r;
    cp_delta_shape s;
    cp_mat in, alpha, beta, z, out;
    int d, width;
    float *x, *a, *b, *gate; /* [SEQS * ROWS] of in, alpha, beta, z */
} layer;

static float *some(rig *r, int width)
{
    float *x = cp_xcalloc((size_t)(SEQS * ROWS * width), sizeof(*x));
    for (int i = 0; i < SEQS * ROWS * width; i++)
        x[i] = 2.0f * rig_uniform(r);
    return x;
}

static void layer_init(layer *l, uint64_t seed, cp_delta_shape s)
{
    rig *r = &l->r;
    rig_init(r, seed);
    r->cfg.max_rows = SEQS * ROWS;
    l->s = s;
    l->d = (int)cp_delta_channels(&s);
    l->width = s.n_v * s.v_dim;
    int group = rig_group(r, (cp_kv_group){.kind = CP_GROUP_STATE,
                                           .n_layers = 1,
                                           .state_bytes = cp_delta_state_bytes(&s)});
    cp_mat gates = rig_mat(r, 2 * s.n_v, CP_ROWS_ALL), mixed = rig_mat(r, l->d, CP_ROWS_ALL);
    l->in = rig_mat(r, l->d, CP_ROWS_ALL);
    l->alpha = rig_mat(r, s.n_v, CP_ROWS_ALL);
    l->beta = rig_mat(r, s.n_v, CP_ROWS_ALL);
    l->z = rig_mat(r, l->width, CP_ROWS_ALL);
    l->out = rig_mat(r, l->width, CP_ROWS_ALL);
    cp_op *op = rig_op(r, CP_OP_DELTAPREP, CP_ROWS_ALL);
    op->u.deltaprep.in = l->in;
    op->u.deltaprep.alpha = l->alpha;
    op->u.deltaprep.beta = l->beta;
    op->u.deltaprep.out = mixed;
    op->u.deltaprep.gates = gates;
    op->u.deltaprep.conv = rig_vector(r, s.taps, l->d);
    op->u.deltaprep.a = rig_vector_around(r, s.n_v, 1, -0.2f);
    op->u.deltaprep.dt = rig_vector(r, s.n_v, 1);
    op->u.deltaprep.eps = 1e-6f;
    op->u.deltaprep.scale = 1.0f / sqrtf((float)s.k_dim);
    op->u.deltaprep.shape = s;
    op->u.deltaprep.group = group;
    op = rig_op(r, CP_OP_DELTANET, CP_ROWS_ALL);
    op->u.deltanet.in = mixed;
    op->u.deltanet.gates = gates;
    op->u.deltanet.z = l->z;
    op->u.deltanet.out = l->out;
    op->u.deltanet.norm = rig_vector(r, s.v_dim, 1);
    op->u.deltanet.eps = 1e-6f;
    op->u.deltanet.shape = s;
    op->u.deltanet.group = group;
    l->x = some(r, l->d);
    l->a = some(r, s.n_v);
    l->b = some(r, s.n_v);
    l->gate = some(r, l->width);
}

static void layer_fini(layer *l)
{
    free(l->x);
    free(l->a);
    free(l->b);
    free(l->gate);
    rig_fini(&l->r);
}

/* Rows [from, from + n) of sequences [0, n_seqs) in one step; states in slots 1 to n_seqs, saved to
 * slots 9 on; out [SEQS * ROWS][width] receives them. */
static void step(layer *l, machine *m, int from, int n, int n_seqs, float *out)
{
    rig_seq q[SEQS];
    rig_batch b;
    for (int i = 0; i < n_seqs; i++) {
        uint32_t slot = (uint32_t)(1 + i);
        q[i] = (rig_seq){.pos0 = from,
                         .n_rows = n,
                         .state_in = from ? slot : 0,
                         .state_out = slot,
                         .state_save = slot + 8};
        for (int r = 0; r < n; r++) {
            size_t at = (size_t)(i * ROWS + from + r);
            machine_put_row(m, l->in, i * n + r, l->x + at * (size_t)l->d);
            machine_put_row(m, l->alpha, i * n + r, l->a + at * (size_t)l->s.n_v);
            machine_put_row(m, l->beta, i * n + r, l->b + at * (size_t)l->s.n_v);
            machine_put_row(m, l->z, i * n + r, l->gate + at * (size_t)l->width);
        }
    }
    rig_batch_init(&b, &l->r, q, n_seqs, false);
    machine_step(m, &b.b);
    for (int i = 0; i < n_seqs; i++)
        for (int r = 0; r < n; r++)
            machine_get_row(m, l->out, i * n + r,
                            out + (size_t)(i * ROWS + from + r) * (size_t)l->width);
    rig_batch_fini(&b);
}

/* A copy of a slot, zeroes where nobody writes: behind the convolution's rows. */
static void *slot_of(const layer *l, const machine *m, uint32_t slot)
{
    cp_err err = {0};
    const cp_prepared *p = m->p;
    void *s = cp_xmalloc(p->state_bytes);
    assert_int_equal(
        m->b->row->get(m->b, s, p->states.at + (size_t)slot * p->state_bytes, p->state_bytes, &err),
        CP_OK);
    size_t from = (size_t)((l->s.taps - 1) * l->d) * sizeof(float);
    memset((uint8_t *)s + from, 0, cp_delta_state_at(&l->s) - from);
    return s;
}

/* The rows in steps of `chunk`, garbage in every state before. */
static float *run(layer *l, const char *level, int threads, int chunk, int n_seqs, void **state)
{
    machine m = machine_open(&l->r, level, threads);
    float *out = cp_xcalloc((size_t)(SEQS * ROWS * l->width), sizeof(*out));
    machine_fill(&m, (uint64_t)chunk);
    for (int at = 0; at < ROWS; at += chunk)
        step(l, &m, at, ROWS - at < chunk ? ROWS - at : chunk, n_seqs, out);
    *state = slot_of(l, &m, 1);
    void *saved = slot_of(l, &m, 9);
    assert_memory_equal(*state, saved, m.p->state_bytes);
    free(saved);
    machine_close(&m);
    return out;
}

static const cp_delta_shape shapes[] = {{2, 4, 16, 32, 4}, {3, 3, 13, 21, 3}, {1, 2, 128, 128, 4}};
enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static void same_bits_however_cut(void **unused)
{
    (void)unused;
    static const struct way {
        int threads, chunk, n_seqs;
    } ways[] = {{1, 64, 1}, {2, 7, 1}, {3, 1, 1}, {2, 64, 3}, {3, 1, 3}, {2, 7, 3}};
    for (size_t i = 0; i < N_SHAPES; i++) {
        layer l;
        void *want_state, *state;
        layer_init(&l, i, shapes[i]);
        float *want = run(&l, NULL, 1, 64, 1, &want_state);
        size_t bytes = (size_t)(ROWS * l.width) * sizeof(float);
        for (int j = 0; j < ROWS * l.width; j++)
            assert_true(isfinite(want[j]));
        for (const char *const *level = rig_levels(); *level; level++)
            for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
                float *got =
                    run(&l, *level, ways[w].threads, ways[w].chunk, ways[w].n_seqs, &state);
                assert_memory_equal(got, want, bytes);
                assert_memory_equal(state, want_state, cp_delta_state_bytes(&l.s));
                free(state);
                free(got);
            }
        float *got = run(&l, NULL, 1, 7, 3, &state);
        assert_memory_equal(got, want, bytes);
        free(state);
        free(got);
        free(want_state);
        free(want);
        layer_fini(&l);
    }
}

/* ---- the rule in doubles, as the paper writes it ---- */

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static double dot(const double *a, const double *b, int n, int stride)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i * stride];
    return sum;
}

/* q | k | v of row r of the first sequence: convolved, q and k of length 1. */
static void mixed_row(const layer *l, int r, double *y)
{
    const cp_delta_shape *s = &l->s;
    const float *w = l->r.tensors[l->r.ops[0].u.deltaprep.conv].data;
    for (int c = 0; c < l->d; c++) {
        double sum = 0;
        for (int t = 0; t < s->taps; t++)
            if (r - (s->taps - 1) + t >= 0)
                sum +=
                    (double)w[c * s->taps + t] * (double)l->x[(r - (s->taps - 1) + t) * l->d + c];
        y[c] = silu(sum);
    }
    for (int h = 0; h < 2 * s->n_k; h++) {
        double *x = y + h * s->k_dim, len = sqrt(dot(x, x, s->k_dim, 1) + 1e-6);
        for (int i = 0; i < s->k_dim; i++)
            x[i] /= len * (h < s->n_k ? sqrt(s->k_dim) : 1.0);
    }
}

/* Row r through S[k_dim][v_dim] of v head h: o = S'^T q. */
static void rule(const layer *l, int r, int h, const double *y, double *S, double *o)
{
    const cp_delta_shape *s = &l->s;
    const float *a = l->r.tensors[l->r.ops[0].u.deltaprep.a].data;
    const float *dt = l->r.tensors[l->r.ops[0].u.deltaprep.dt].data;
    const double *q = y + h % s->n_k * s->k_dim, *k = q + s->n_k * s->k_dim;
    const double *v = y + 2 * s->n_k * s->k_dim + h * s->v_dim;
    double alpha = (double)l->a[r * s->n_v + h] + (double)dt[h];
    double decay = exp((double)a[h] * log1p(exp(alpha)));
    double beta = 1.0 / (1.0 + exp(-(double)l->b[r * s->n_v + h]));
    for (int i = 0; i < s->k_dim * s->v_dim; i++)
        S[i] *= decay;
    for (int j = 0; j < s->v_dim; j++) {
        double d = beta * (v[j] - dot(k, S + j, s->k_dim, s->v_dim));
        for (int i = 0; i < s->k_dim; i++)
            S[i * s->v_dim + j] += k[i] * d;
        o[j] = dot(q, S + j, s->k_dim, s->v_dim);
    }
}

static void the_rule_in_doubles(void **unused)
{
    (void)unused;
    for (size_t n = 0; n < N_SHAPES; n++) {
        layer l;
        void *state;
        layer_init(&l, n + 10, shapes[n]);
        const cp_delta_shape *s = &l.s;
        const float *norm = l.r.tensors[l.r.ops[1].u.deltanet.norm].data;
        float *got = run(&l, NULL, 1, 64, 1, &state);
        double *y = cp_xcalloc((size_t)l.d, sizeof(*y)), o[CP_DELTA_DIM_MAX];
        size_t size = (size_t)(s->k_dim * s->v_dim);
        double *S = cp_xcalloc((size_t)s->n_v * size, sizeof(*S)), worst = 0;
        for (int r = 0; r < ROWS; r++) {
            mixed_row(&l, r, y);
            for (int h = 0; h < s->n_v; h++) {
                rule(&l, r, h, y, S + (size_t)h * size, o);
                double rms = sqrt(dot(o, o, s->v_dim, 1) / s->v_dim + 1e-6);
                for (int j = 0; j < s->v_dim; j++) {
                    int at = r * l.width + h * s->v_dim + j;
                    double want = o[j] / rms * (double)norm[j] * silu((double)l.gate[at]);
                    worst = fmax(worst, fabs(want - (double)got[at]) / (1.0 + fabs(want)));
                }
            }
        }
        if (worst > 2e-5)
            fail_msg("shape %zu: off by %g", n, worst);
        free(S);
        free(y);
        free(state);
        free(got);
        layer_fini(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_however_cut),
        cmocka_unit_test(the_rule_in_doubles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
