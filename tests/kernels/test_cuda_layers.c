/*
 * test_cuda_layers: dense layers as models and files have them, on the cuda backend. How many
 * launches a further layer of a decode step takes in default numerics, with rows that are cut into
 * splits: eight, of which one is the merge. And what its records hand to each other in the place of
 * f32 rows is right: the bits of ref with numerics exact; by default near them, and the bits that
 * come of f32 rows.
 */
#include "tests/kernels/rig.h"

#include "tests/fakes/libcuda/libcuda_fake.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAUNCHES = 8, D = 256, KV_HEADS = 2, FF = 512, PER_LAYER = 32 };

typedef struct arrangement {
    const char *name;
    cp_dtype q, k, v, o, gate, up, down;
    int heads, head; /* heads * head: a multiple of the block of o's type */
    bool norms;      /* of q and k, and behind each branch */
    bool gated;      /* attention's output by a part of q */
    bool per_layer;  /* an embedding of the layer's own, which is a third branch */
    int more;        /* launches beyond LAUNCHES, as docs/GPU.md has them */
} arrangement;

#define ALL(t)                                                                                     \
    CP_DTYPE_##t, CP_DTYPE_##t, CP_DTYPE_##t, CP_DTYPE_##t, CP_DTYPE_##t, CP_DTYPE_##t, CP_DTYPE_##t
#define T(t) CP_DTYPE_##t

static const arrangement arrangements[] = {
    {"Q4_0", ALL(Q4_0), 4, 64, false, false, false, 0},
    {"Q8_0, norms", ALL(Q8_0), 4, 64, true, false, false, 0},
    {"Q4_K_M", T(Q4_K), T(Q4_K), T(Q6_K), T(Q4_K), T(Q4_K), T(Q4_K), T(Q6_K), 4, 64, false, false,
     false, 0},
    {"Q2_K", T(Q2_K), T(Q2_K), T(Q4_K), T(Q3_K), T(Q2_K), T(Q2_K), T(Q3_K), 2, 128, true, false,
     false, 0},
    {"three kinds", T(Q4_K), T(Q5_K), T(Q6_K), T(Q5_0), T(Q4_K), T(Q5_K), T(Q8_0), 8, 32, false,
     false, false, 0},
    {"gated", T(IQ4_XS), T(IQ4_XS), T(Q5_K), T(IQ4_XS), T(MXFP4), T(Q8_0), T(NVFP4), 8, 96, true,
     true, false, 0},
    {"BF16", ALL(BF16), 4, 64, false, false, false, 0},
    {"BF16, gated", ALL(BF16), 4, 64, true, true, false, 0},
    {"F16", ALL(F16), 4, 64, false, false, false, 0},
    {"F16, norms", ALL(F16), 2, 128, true, false, false, 0},
    {"F32", ALL(F32), 4, 64, false, false, false, 0},
    {"heads of 80", ALL(Q4_0), 4, 80, false, false, false, 1},
    {"heads of 672", ALL(F16), 2, 672, false, false, false, 0},
    {"integers and a float", T(Q8_0), T(Q8_0), T(BF16), T(BF16), T(F16), T(Q8_0), T(Q4_0), 4, 64,
     false, false, false, 2},
    {"per-layer inputs", ALL(Q4_0), 4, 64, true, false, true, 3},
};
enum { N = sizeof(arrangements) / sizeof(arrangements[0]) };

/* ---- a model of nothing but layers ---- */

static const float inv_freq[8] = {1.0f, 0.3f, 0.1f, 0.03f, 0.01f, 0.003f, 0.001f, 0.0003f};

typedef struct model {
    const arrangement *a;
    cp_mat x[2], y, rope, q, k, v, att, ff, gate, per_layer;
    int cur;
    bool has_y;
} model;

static void add_weight(rig *r, cp_op *op, cp_dtype t, int k, int m, cp_mat out)
{
    int i = op->u.linear.n_w++;
    op->u.linear.w[i].w = rig_weight(r, t, k, m, CP_ROLE_LINEAR);
    op->u.linear.w[i].bias = -1;
    op->u.linear.w[i].out = out;
}

static cp_op *linear(rig *r, cp_mat in)
{
    cp_op *op = rig_linear(r, in, 0, 0, CP_ROWS_ALL);
    op->u.linear.n_w = 0;
    return op;
}

/* Of the stream, to which the branch before is added. */
static cp_op *stream_linear(rig *r, model *m, bool norm)
{
    cp_op *op = linear(r, m->x[m->cur]);
    op->u.linear.norm = norm ? rig_vector(r, D, 1) : (cp_wref)-1;
    if (m->has_y) {
        op->u.linear.add = m->y;
        op->u.linear.x_out = m->x[1 - m->cur];
        op->u.linear.add_norm = m->a->norms ? rig_vector(r, D, 1) : (cp_wref)-1;
        m->cur = 1 - m->cur;
    }
    m->has_y = true;
    return op;
}

static void attention(rig *r, model *m)
{
    const arrangement *a = m->a;
    cp_op *op = rig_op(r, CP_OP_ATTENTION, CP_ROWS_ALL);
    op->u.attention.q = m->q;
    op->u.attention.k = m->k;
    op->u.attention.v = m->v;
    op->u.attention.out = m->att;
    op->u.attention.rope = m->rope;
    op->u.attention.rope_kind = CP_ROPE_NEOX;
    op->u.attention.n_rot = 16;
    op->u.attention.gated = a->gated;
    op->u.attention.q_norm = a->norms ? rig_vector(r, a->head, 1) : (cp_wref)-1;
    op->u.attention.k_norm = a->norms ? rig_vector(r, a->head, 1) : (cp_wref)-1;
    op->u.attention.sinks = -1;
    op->u.attention.eps = 1e-5f;
    op->u.attention.scale = 1.0f / sqrtf((float)a->head);
    op->u.attention.n_heads = a->heads;
    op->u.attention.n_kv = KV_HEADS;
    op->u.attention.k_dim = op->u.attention.v_dim = a->head;
    op->u.attention.group =
        rig_group(r, (cp_kv_group){CP_GROUP_FULL, 1, KV_HEADS, a->head, a->head, 0, 0});
}

static void layer(rig *r, model *m)
{
    const arrangement *a = m->a;
    int width = a->heads * a->head;
    cp_op *op = stream_linear(r, m, true);
    add_weight(r, op, a->q, D, width * (a->gated ? 2 : 1), m->q);
    add_weight(r, op, a->k, D, KV_HEADS * a->head, m->k);
    add_weight(r, op, a->v, D, KV_HEADS * a->head, m->v);
    attention(r, m);
    add_weight(r, linear(r, m->att), a->o, width, D, m->y);
    op = stream_linear(r, m, true);
    op->u.linear.act = CP_ACT_SILU;
    add_weight(r, op, a->gate, D, FF, m->ff);
    add_weight(r, op, a->up, D, FF, -1);
    add_weight(r, linear(r, m->ff), a->down, FF, D, m->y);
    if (!a->per_layer)
        return;
    op = stream_linear(r, m, false);
    op->u.linear.act = CP_ACT_GELU_TANH;
    op->u.linear.mul = m->per_layer;
    add_weight(r, op, a->gate, D, PER_LAYER, m->gate);
    add_weight(r, linear(r, m->gate), a->gate, PER_LAYER, D, m->y);
}

enum { READERS = 2 };

/* Records that read what is handed on otherwise, so that it is there as f32. */
static void add_readers(rig *r, const model *m)
{
    const cp_mat read[READERS] = {m->att, m->ff};
    for (int i = 0; i < READERS; i++)
        add_weight(r, linear(r, read[i]), CP_DTYPE_F32, r->mats[read[i]].width, 1,
                   rig_mat(r, 1, CP_ROWS_ALL));
}

/* Layers, and READERS at the end of their records. Returns what the last leaves: its branch. */
static cp_mat build(rig *r, const arrangement *a, int layers)
{
    model m = {.a = a};
    int width = a->heads * a->head;
    for (int i = 0; i < 2; i++)
        m.x[i] = rig_mat(r, D, CP_ROWS_ALL);
    m.y = rig_mat(r, D, CP_ROWS_ALL);
    m.rope = rig_mat(r, 16, CP_ROWS_ALL);
    m.q = rig_mat(r, width * (a->gated ? 2 : 1), CP_ROWS_ALL);
    m.k = rig_mat(r, KV_HEADS * a->head, CP_ROWS_ALL);
    m.v = rig_mat(r, KV_HEADS * a->head, CP_ROWS_ALL);
    m.att = rig_mat(r, width, CP_ROWS_ALL);
    m.ff = rig_mat(r, FF, CP_ROWS_ALL);
    m.gate = rig_mat(r, PER_LAYER, CP_ROWS_ALL);
    m.per_layer = rig_mat(r, PER_LAYER, CP_ROWS_ALL);
    cp_op *op = rig_op(r, CP_OP_ROPE, CP_ROWS_ALL);
    op->u.rope.out = m.rope;
    op->u.rope.n_rot = 16;
    op->u.rope.inv_freq = inv_freq;
    op->u.rope.mscale = 1.0f;
    for (int i = 0; i < layers; i++)
        layer(r, &m);
    add_readers(r, &m);
    r->prog.n_ops -= READERS;
    r->cfg.n_pages = 600;
    return m.y;
}

/* ---- launches ---- */

static uint64_t launches(void)
{
    const char *path = getenv("CAPSTAN_LIBCUDA");
    void *driver = path ? dlopen(path, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    union {
        void *p;
        uint64_t (*fn)(const char *);
    } u = {.p = driver ? dlsym(driver, "fake_count") : NULL};
    if (!u.p)
        fail_msg("no driver with fake_count at CAPSTAN_LIBCUDA");
    uint64_t n = u.fn("launches");
    dlclose(driver);
    return n;
}

/* Sequences of a row each, of which two are long enough for several splits. */
static void decode_batch(rig *r, int n, rig_batch *b)
{
    rig_seq seqs[16] = {{1040, 1, 0, 0, 0}, {530, 1, 0, 0, 0}};
    for (int i = 2; i < n; i++)
        seqs[i] = (rig_seq){.pos0 = 5 * i, .n_rows = 1};
    rig_batch_init(b, r, seqs, n, true);
}

/* Of a decode step. */
static int launches_of_step(const arrangement *a, int layers, int rows)
{
    rig r;
    rig_batch b;
    rig_init(&r, 3);
    build(&r, a, layers);
    machine m = machine_open_on(&r, "cuda", NULL, 1);
    decode_batch(&r, rows, &b);
    machine_fill(&m, 1);
    uint64_t before = launches();
    machine_step(&m, &b.b);
    int n = (int)(launches() - before);
    rig_batch_fini(&b);
    machine_close(&m);
    rig_fini(&r);
    return n;
}

static void a_layer_takes_few_launches(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) {
        const arrangement *a = &arrangements[i];
        for (int rows = 2; rows <= 11; rows += 9) {
            int further = launches_of_step(a, 2, rows) - launches_of_step(a, 1, rows);
            if (rows == 2)
                printf("%-22s %d launches a layer\n", a->name, further);
            if (further > LAUNCHES + a->more)
                fail_msg("%s, %d rows: %d launches a layer", a->name, rows, further);
        }
    }
}

/* ---- what is handed on ---- */

static double error_of(const machine *a, const machine *b, cp_mat m, int rows)
{
    double error = 0.0, all = 0.0;
    for (int row = 0; row < rows; row++) {
        float *x = machine_row(a, m, row), *y = machine_row(b, m, row);
        for (int i = 0; i < D; i++) {
            double e = (double)x[i] - (double)y[i];
            error += e * e;
            all += (double)x[i] * (double)x[i];
        }
        free(x);
        free(y);
    }
    return error / all;
}

/* A step of b on both, which begin alike. */
static void step(machine *ref, machine *m, const rig_batch *b)
{
    machine_fill(ref, 7);
    machine_fill(m, 7);
    machine_step(ref, &b->b);
    machine_step(m, &b->b);
}

/* Rows of sequences that go on alone, few and many; and chunks. */
static void some_batch(rig *r, int number, rig_batch *b)
{
    static const rig_seq chunks[] = {{40, 7, 0, 0, 0}, {509, 12, 0, 0, 0}, {3, 1, 0, 0, 0}};
    if (number == 2)
        rig_batch_init(b, r, chunks, 3, true);
    else
        decode_batch(r, number ? 11 : 2, b);
}
enum { BATCHES = 3 };

static cp_dtype page_type(int number)
{
    return number % 2 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
}

static void check_layers(int number, bool exact)
{
    const arrangement *a = &arrangements[number];
    rig r;
    rig_init(&r, (uint64_t)number + 1);
    r.cfg.kv_type = page_type(number);
    cp_mat out = build(&r, a, exact ? 2 : 1);
    r.exact = exact;
    machine ref = machine_open(&r, NULL, 1), m = machine_open_on(&r, "cuda", NULL, 1);
    for (int i = 0; i < BATCHES; i++) {
        rig_batch b;
        some_batch(&r, i, &b);
        step(&ref, &m, &b);
        double e = error_of(&ref, &m, out, b.b.n_rows);
        if (exact)
            machines_equal(&ref, &m, out, b.b.n_rows, a->name);
        else if (!(e <= 1e-3)) /* some of int8 inputs are rounded the other way */
            fail_msg("%s, %d rows: NMSE %g", a->name, b.b.n_rows, e);
        rig_batch_fini(&b);
    }
    machine_close(&m);
    machine_close(&ref);
    rig_fini(&r);
}

static void exact_as_ref(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++)
        check_layers(i, true);
}

static void close_to_ref(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++)
        check_layers(i, false);
}

static void handed_on_as_in_rows(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) {
        rig r;
        rig_init(&r, (uint64_t)i + 50);
        r.cfg.kv_type = page_type(i + 1);
        cp_mat out = build(&r, &arrangements[i], 1);
        machine handed = machine_open_on(&r, "cuda", NULL, 1);
        r.prog.n_ops += READERS;
        machine rows = machine_open_on(&r, "cuda", NULL, 1);
        for (int j = 0; j < BATCHES; j++) {
            rig_batch b;
            some_batch(&r, j, &b);
            step(&rows, &handed, &b);
            machines_equal(&rows, &handed, out, b.b.n_rows, arrangements[i].name);
            rig_batch_fini(&b);
        }
        machine_close(&rows);
        machine_close(&handed);
        rig_fini(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_layer_takes_few_launches),
        cmocka_unit_test(exact_as_ref),
        cmocka_unit_test(close_to_ref),
        cmocka_unit_test(handed_on_as_in_rows),
    };
    if (!rig_has("cuda")) {
        puts("skipped: no cuda backend, or no driver in CAPSTAN_LIBCUDA");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
