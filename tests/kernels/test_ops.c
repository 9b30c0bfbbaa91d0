/*
 * test_ops: every operation of CP_OPS, one record a program, random shapes: the cpu backend at each
 * level of this machine and on 1 to 3 workers against ref, bit for bit, pages and states included.
 * An operation without a test here does not compile.
 */
#include "tests/kernels/attention.h"

#include "base/mem.h"
#include "tests/kernels/weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a machine needs beside random inputs, such as ids. */
typedef void put_inputs(machine *m, const void *arg);

/* What a machine starts from, and its one step. */
typedef struct step {
    const cp_batch *batch;
    uint64_t seed;
    put_inputs *put; /* NULL: inputs are as machine_fill leaves them */
    const void *arg;
} step;

static machine stepped(machine m, const step *s)
{
    machine_fill(&m, s->seed);
    if (s->put)
        s->put(&m, s->arg);
    machine_step(&m, s->batch);
    return m;
}

/* Run the rig's program on ref and on every level; compare the matrices in `outs` (ends with -1).
 */
static void compare_with(rig *r, const cp_batch *b, const cp_mat *outs, const char *what,
                         put_inputs *put, const void *arg)
{
    uint64_t seed = rig_random(r, 1u << 30);
    /* the gates of DELTANET are logarithms of decays: odd ones make its state overflow */
    r->odd = seed % 2 && r->ops[0].kind != CP_OP_DELTANET;
    step s = {b, seed, put, arg};
    machine ref = stepped(machine_open(r, NULL, 1), &s);
    for (const char *const *level = rig_levels(); *level; level++) {
        bool own = strcmp(*level, "amx") == 0; /* a law of its own, which ref has as well */
        machine law = own ? stepped(machine_open_on(r, "ref", *level, 1), &s) : ref;
        for (int threads = 1; threads <= rig_threads(); threads++) {
            machine m = stepped(machine_open(r, *level, threads), &s);
            for (int i = 0; outs[i] >= 0; i++) {
                bool out = r->mats[outs[i]].rows == CP_ROWS_OUT;
                machines_equal(&law, &m, outs[i], out ? b->n_out : b->n_rows, what);
            }
            machines_equal_memory(&law, &m, what);
            machine_close(&m);
        }
        if (own)
            machine_close(&law);
    }
    machine_close(&ref);
}

static void compare(rig *r, const cp_batch *b, const cp_mat *outs, const char *what)
{
    compare_with(r, b, outs, what, NULL, NULL);
}

/* A few sequences; the rows fit 64. */
static int some_seqs(rig *r, rig_seq *q, int max_pos)
{
    int n = 1 + (int)rig_random(r, 4);
    for (int i = 0; i < n; i++)
        q[i] = (rig_seq){.pos0 = (int)rig_random(r, (uint64_t)max_pos),
                         .n_rows = rig_random(r, 2) ? 1 : 1 + (int)rig_random(r, 12)};
    if (rig_random(r, 3) == 0) { /* more than a block may take, and beside it as many as it takes */
        int i = (int)rig_random(r, (uint64_t)n);
        q[i].n_rows = 17 + (int)rig_random(r, 8);
        q[(i + 1) % n].n_rows = n > 1 && rig_random(r, 2) ? 16 : q[(i + 1) % n].n_rows;
    }
    return n;
}

/* The first outputs are wanted alone, perhaps none: rows are computed all the same. */
static void fewer_outputs(rig *r, rig_batch *b)
{
    b->b.n_out = (int)rig_random(r, (uint64_t)b->b.n_out + 1);
}

static void test_embed(uint64_t seed)
{
    rig r;
    rig_init(&r, seed);
    int n_types = 0;
    while (cp_test_types[n_types] >= 0)
        n_types++;
    cp_dtype t = (cp_dtype)cp_test_types[seed % (uint64_t)n_types];
    int width = 256 * (1 + (int)rig_random(&r, 3)), n_vocab = 40;
    cp_op *op = rig_op(&r, CP_OP_EMBED, CP_ROWS_ALL);
    op->u.embed.out = rig_mat(&r, width, CP_ROWS_ALL);
    op->u.embed.table = rig_weight(&r, t, width, n_vocab, CP_ROLE_EMBED);
    op->u.embed.scale = seed % 2 ? 1.0f : 25.298f;
    if (rig_random(&r, 2)) { /* spans of 16, of 24 and of odd lengths */
        static const int spans[] = {16, 64, 48, 24, 6, 256};
        int span = spans[rig_random(&r, 6)];
        op->u.embed.in = rig_mat(&r, width, CP_ROWS_ALL);
        op->u.embed.norm = rig_vector(&r, width % span ? width / 2 : span, 1);
        op->u.embed.eps = 1e-6f;
        op->u.embed.mix = 0.70710678f;
    }
    rig_seq q[4];
    rig_batch b;
    rig_batch_init(&b, &r, q, some_seqs(&r, q, 100), false);
    for (int i = 0; i < b.b.n_rows; i++)
        b.tok[i] %= n_vocab;
    cp_mat outs[] = {op->u.embed.out, -1};
    compare(&r, &b.b, outs, "embed");
    rig_batch_fini(&b);
    rig_fini(&r);
}

static void test_rope(uint64_t seed)
{
    rig r;
    float freq[64];
    rig_init(&r, seed);
    int n_rot = 2 * (1 + (int)rig_random(&r, 64));
    for (int i = 0; i < n_rot / 2; i++)
        freq[i] = powf(seed % 2 ? 10000.0f : 1e6f, -2.0f * (float)i / (float)n_rot);
    cp_op *op = rig_op(&r, CP_OP_ROPE, CP_ROWS_ALL);
    op->u.rope.out = rig_mat(&r, n_rot, CP_ROWS_ALL);
    op->u.rope.n_rot = n_rot;
    op->u.rope.inv_freq = freq;
    op->u.rope.mscale = seed % 3 ? 1.0f : 1.19f;
    rig_seq q[4];
    rig_batch b;
    rig_batch_init(&b, &r, q, some_seqs(&r, q, 1 << 20), false);
    cp_mat outs[] = {op->u.rope.out, -1};
    compare(&r, &b.b, outs, "rope");
    rig_batch_fini(&b);
    rig_fini(&r);
}

static void test_gather(uint64_t seed)
{
    rig r;
    rig_init(&r, seed);
    int width = seed % 5 ? 1 + (int)rig_random(&r, 200) : 1040; /* the row after has no gap then */
    cp_op *op = rig_op(&r, CP_OP_GATHER, CP_ROWS_OUT);
    op->u.gather.in = rig_mat(&r, width, CP_ROWS_ALL);
    op->u.gather.out = rig_mat(&r, width, CP_ROWS_OUT);
    rig_seq q[4];
    rig_batch b;
    rig_batch_init(&b, &r, q, some_seqs(&r, q, 100), seed % 2);
    cp_mat outs[] = {op->u.gather.out, -1};
    compare(&r, &b.b, outs, "gather");
    rig_batch_fini(&b);
    rig_fini(&r);
}

/* Prologue and epilogue in all combinations; the products themselves: test_linear. */
static void test_linear(uint64_t seed)
{
    static const cp_dtype types[] = {CP_DTYPE_Q4_1, CP_DTYPE_Q5_0, CP_DTYPE_Q8_0, CP_DTYPE_Q4_K,
                                     CP_DTYPE_Q6_K, CP_DTYPE_F32,  CP_DTYPE_F16};
    rig r;
    rig_init(&r, seed);
    int k = 256 * (1 + (int)rig_random(&r, 5)), gated = (int)rig_random(&r, 3);
    bool mul = gated && rig_random(&r, 2); /* by a matrix's columns instead of up */
    int n_w = mul ? 1 : gated ? 2 : 1 + (int)rig_random(&r, 4), n_outs = 0;
    int m = 1 + (int)rig_random(&r, 50);
    cp_op *op = rig_linear(&r, rig_mat(&r, k, CP_ROWS_ALL), 0, 0, CP_ROWS_ALL);
    cp_mat outs[8];
    op->u.linear.act = (cp_act)gated;
    op->u.linear.n_w = n_w;
    for (int i = 0; i < n_w; i++) {
        cp_dtype t = types[rig_random(&r, 7)];
        if (!gated)
            m = 1 + (int)rig_random(&r, 50);
        op->u.linear.w[i].w = rig_weight(&r, t, k, m, CP_ROLE_LINEAR);
        op->u.linear.w[i].bias = rig_random(&r, 2) ? rig_vector(&r, m, 1) : (cp_wref)-1;
        op->u.linear.w[i].out = -1;
        if (!gated || i == 0)
            outs[n_outs++] = op->u.linear.w[i].out = rig_mat(&r, m, CP_ROWS_ALL);
    }
    if (rig_random(&r, 2)) {
        op->u.linear.add = rig_mat(&r, k, CP_ROWS_ALL);
        if (rig_random(&r, 2))
            op->u.linear.add_norm = rig_vector(&r, k, 1);
    }
    if (rig_random(&r, 2))
        outs[n_outs++] = op->u.linear.x_out = rig_mat(&r, k, CP_ROWS_ALL);
    if (rig_random(&r, 2))
        op->u.linear.norm = rig_vector(&r, k, 1);
    if (rig_random(&r, 3) == 0)
        op->u.linear.in_scale = 0.83f;
    if (rig_random(&r, 3) == 0 && !mul)
        op->u.linear.scale = 0.37f;
    if (rig_random(&r, 3) == 0 && !mul)
        op->u.linear.softcap = 30.0f;
    if (mul) {
        op->u.linear.mul_at = (int)rig_random(&r, 20);
        op->u.linear.mul = rig_mat(&r, m + op->u.linear.mul_at + 3, CP_ROWS_ALL);
    }
    outs[n_outs] = -1;
    /* From one row (every worker prepares alone) to many (rows are shared). */
    rig_seq q = {.n_rows = 1 + (int)rig_random(&r, seed % 2 ? 3 : 60)};
    rig_batch b;
    rig_batch_init(&b, &r, &q, 1, false);
    compare(&r, &b.b, outs, "linear");
    rig_batch_fini(&b);
    rig_fini(&r);
}

static void test_attention(uint64_t seed)
{
    attention_case c;
    attention_case_random(&c, seed);
    compare(&c.r, &c.b.b, c.outs, "attention");
    attention_case_fini(&c);
}

static void test_shortconv(uint64_t seed)
{
    rig r;
    rig_init(&r, seed);
    int d = 16 * (1 + (int)rig_random(&r, 12)) - (int)(seed % 2), taps = 1 + (int)rig_random(&r, 5);
    size_t state = ((size_t)(taps - 1) * (size_t)d * sizeof(float) + 63) / 64 * 64;
    cp_op *op = rig_op(&r, CP_OP_SHORTCONV, CP_ROWS_ALL);
    op->u.shortconv.in = rig_mat(&r, 3 * d, CP_ROWS_ALL);
    op->u.shortconv.out = rig_mat(&r, d, CP_ROWS_ALL);
    op->u.shortconv.conv = rig_vector(&r, taps, d);
    op->u.shortconv.d = d;
    op->u.shortconv.l_cache = taps;
    op->u.shortconv.layer_in_group = 1;
    op->u.shortconv.group = rig_group(
        &r, (cp_kv_group){.kind = CP_GROUP_STATE, .n_layers = 2, .state_bytes = state + 64});
    rig_seq q[4];
    int n = some_seqs(&r, q, 100);
    for (int i = 0; i < n; i++) {
        q[i].state_in = rig_random(&r, 3) ? (uint32_t)(1 + i) : 0;
        q[i].state_out = rig_random(&r, 2) ? (uint32_t)(1 + i) : (uint32_t)(5 + i);
        q[i].state_save = rig_random(&r, 2) ? (uint32_t)(10 + i) : 0;
    }
    rig_batch b;
    rig_batch_init(&b, &r, q, n, false);
    fewer_outputs(&r, &b);
    cp_mat outs[] = {op->u.shortconv.out, -1};
    compare(&r, &b.b, outs, "shortconv");
    rig_batch_fini(&b);
    rig_fini(&r);
}

/* ---- experts ---- */

/* Rows of a matrix, put as they are. */
typedef struct some_rows {
    cp_mat mat;
    int n, width;
    float *x; /* [n][width] */
} some_rows;

static void put_rows(machine *m, const void *arg)
{
    const some_rows *s = arg;
    for (int i = 0; i < s->n; i++)
        machine_put_row(m, s->mat, i, s->x + (size_t)i * (size_t)s->width);
}

/* Router logits with equal ones, some that are no number, some that are -inf, and odd rows. */
static void random_logits(rig *r, some_rows *s)
{
    uint64_t first = rig_random(r, 10);
    s->x = cp_xcalloc((size_t)s->n * (size_t)s->width, sizeof(*s->x));
    for (int i = 0; i < s->n * s->width; i++) {
        uint64_t kind = (first + (uint64_t)(i / s->width)) % 10;
        s->x[i] = 4.0f * rig_uniform(r);
        if (kind % 2)
            s->x[i] = 0.5f * rintf(s->x[i]);
        if (rig_random(r, 40) == 0)
            s->x[i] = rig_random(r, 2) ? NAN : -INFINITY;
        if (kind % 5 == 4)
            s->x[i] = rig_odd(rig_random(r, 1024));
        if (kind == 4)
            s->x[i] = -fabsf(s->x[i]); /* of which 0 is the largest */
        if (i % s->width == 0)
            s->x[i] = kind == 4 ? 0.0f : 25.0f * rig_uniform(r); /* never all -inf */
    }
}

static cp_op *route_record(rig *r, int n_expert, int n_used)
{
    cp_op *op = rig_op(r, CP_OP_ROUTE, CP_ROWS_ALL);
    op->u.route.in = rig_mat(r, n_expert, CP_ROWS_ALL);
    op->u.route.ids = rig_mat(r, n_used, CP_ROWS_ALL);
    op->u.route.weights = rig_mat(r, n_used, CP_ROWS_ALL);
    op->u.route.bias = op->u.route.expert_scale = -1;
    op->u.route.gate = CP_GATE_SOFTMAX;
    op->u.route.n_groups = op->u.route.n_groups_used = 1;
    op->u.route.scale = 1.0f;
    return op;
}

static void test_route(uint64_t seed)
{
    rig r;
    rig_init(&r, seed);
    int groups = seed % 3 ? 1 : 1 + (int)rig_random(&r, 8);
    int size = 1 + (int)rig_random(&r, seed % 5 ? 40 : CP_EXPERTS_MAX / 8);
    if (seed >= 32 && seed < 36) { /* of two, and all of a row in one lane's reach */
        groups = 17 + (int)rig_random(&r, 40);
        size = 2;
    }
    bool all_places = seed >= 36; /* the last one in each of a lane's */
    if (all_places) {
        int place = seed < 66 ? (int)(seed - 34) / 2 : 15;
        groups = 32 * place + 1 + (int)rig_random(&r, 31);
        size = 1 + (2 * groups <= CP_EXPERTS_MAX && seed % 2);
    }
    if (seed >= 30 && seed < 32) { /* as many as there may be */
        groups = seed % 2 ? 1 : CP_EXPERTS_MAX;
        size = CP_EXPERTS_MAX / groups;
    }
    int n = groups * size;
    int kept = 1 + (int)rig_random(&r, (uint64_t)groups);
    int used = 1 + (int)rig_random(&r, (uint64_t)(kept * size));
    bool one = seed == 7; /* whose weight is 1 */
    cp_op *op = route_record(&r, n, all_places ? kept * size : one ? 1 : used);
    op->u.route.gate = (cp_gate)(1 + seed % 4);
    op->u.route.n_groups = groups;
    op->u.route.n_groups_used = kept;
    op->u.route.normalize = rig_random(&r, 2) || one;
    op->u.route.scale = rig_random(&r, 2) ? 1.0f : 2.5f;
    if (rig_random(&r, 2))
        op->u.route.bias = rig_vector(&r, n, 1);
    if (rig_random(&r, 2))
        op->u.route.expert_scale = rig_vector(&r, n, 1);
    rig_seq q[4];
    rig_batch b;
    rig_batch_init(&b, &r, q, some_seqs(&r, q, 100), false);
    some_rows logits = {op->u.route.in, b.b.n_rows, n, NULL};
    random_logits(&r, &logits);
    cp_mat outs[] = {op->u.route.ids, op->u.route.weights, -1};
    compare_with(&r, &b.b, outs, "route", put_rows, &logits);
    free(logits.x);
    rig_batch_fini(&b);
    rig_fini(&r);
}

/* How the rows of a batch choose: each as it likes, all the same, or a few of the experts. */
typedef enum choice { ANY, ONE, FEW, CHOICES } choice;

/* n_used ids of n_expert, all different, for each row. */
static void random_ids(rig *r, some_rows *s, int n_expert, choice how)
{
    int *deck = cp_xcalloc((size_t)n_expert, sizeof(*deck));
    s->x = cp_xcalloc((size_t)s->n * (size_t)s->width, sizeof(*s->x));
    for (int e = 0; e < n_expert; e++)
        deck[e] = e;
    for (int row = 0; row < s->n; row++) {
        int from = how == FEW && s->width + 1 < n_expert ? s->width + 1 : n_expert;
        for (int j = 0; j < s->width && (how != ONE || row == 0); j++) {
            int i = j + (int)rig_random(r, (uint64_t)(from - j)), t = deck[j];
            deck[j] = deck[i];
            deck[i] = t;
        }
        for (int j = 0; j < s->width; j++)
            s->x[row * s->width + j] = (float)deck[j];
    }
    free(deck);
}

/* An EXPERTS record of type t and its ids' matrix; gated: gate and up, in one tensor when fused. */
static cp_op *experts_record(rig *r, cp_dtype t, int n_expert, int n_used, bool gated)
{
    bool whole = t == CP_DTYPE_F32 || t == CP_DTYPE_F16 || t == CP_DTYPE_BF16;
    int k = whole ? 1 + (int)rig_random(r, 600) : 256 * (1 + (int)rig_random(r, 3));
    bool fused = gated && rig_random(r, 2);
    int m = fused ? 16 * (1 + (int)rig_random(r, 2)) : 1 + (int)rig_random(r, 40);
    cp_op *op = rig_op(r, CP_OP_EXPERTS, CP_ROWS_ALL);
    op->u.experts.by_rank = !gated && rig_random(r, 2);
    op->u.experts.in = rig_mat(r, k * (op->u.experts.by_rank ? n_used : 1), CP_ROWS_ALL);
    op->u.experts.ids = rig_mat(r, n_used, CP_ROWS_ALL);
    op->u.experts.out = rig_mat(r, m * n_used, CP_ROWS_ALL);
    op->u.experts.norm =
        op->u.experts.by_rank || rig_random(r, 2) ? (cp_wref)-1 : rig_vector(r, k, 1);
    op->u.experts.eps = 1e-5f;
    op->u.experts.act = gated ? (cp_act)(1 + rig_random(r, 2)) : CP_ACT_NONE;
    for (int i = 0; i < (gated ? 2 : 1); i++) {
        int outputs = fused ? 2 * m : m;
        op->u.experts.w[i].first = fused && i ? m : 0;
        op->u.experts.w[i].w =
            fused && i ? op->u.experts.w[0].w : rig_experts(r, t, k, outputs, n_expert);
        op->u.experts.w[i].bias = rig_random(r, 2) ? (cp_wref)-1 : rig_vector(r, outputs, n_expert);
    }
    return op;
}

/* Every weight type in turn. At level bf16 products of BF16 weights are its own: see a_row_alone.
 */
static void test_experts(uint64_t seed)
{
    rig r;
    rig_init(&r, seed);
    int n_types = 0;
    while (cp_test_types[n_types] >= 0)
        n_types++;
    cp_dtype t = (cp_dtype)cp_test_types[seed % (uint64_t)n_types];
    if (t == CP_DTYPE_BF16)
        t = CP_DTYPE_F32;
    int n_expert = 1 + (int)rig_random(&r, 12);
    int n_used = 1 + (int)rig_random(&r, (uint64_t)(n_expert < 4 ? n_expert : 4));
    cp_op *op = experts_record(&r, t, n_expert, n_used, rig_random(&r, 2));
    /* More rows than an item takes, a few, one. */
    r.cfg.max_rows = 150;
    rig_seq q = {.n_rows = seed % 8 == 0 ? 150 : seed % 3 == 0 ? 1 : 1 + (int)rig_random(&r, 40)};
    rig_batch b;
    rig_batch_init(&b, &r, &q, 1, false);
    some_rows ids = {op->u.experts.ids, q.n_rows, n_used, NULL};
    random_ids(&r, &ids, n_expert, (choice)rig_random(&r, CHOICES));
    cp_mat outs[] = {op->u.experts.out, -1};
    compare_with(&r, &b.b, outs, "experts", put_rows, &ids);
    free(ids.x);
    rig_batch_fini(&b);
    rig_fini(&r);
}

static void test_sum(uint64_t seed)
{
    rig r;
    rig_init(&r, seed);
    int n_used = 1 + (int)rig_random(&r, 9), width = 1 + (int)rig_random(&r, seed % 4 ? 80 : 1200);
    width = seed % 4 < 2 ? 4 * width : width | 1;
    if (seed % 12 == 4) /* the norm's last turn has one element a lane for some */
        width = 292 + 16 * ((int)seed - 4) / 3;
    if (seed == 10 || seed == 22)
        width = seed == 10 ? 203 : 260;
    cp_op *op = rig_op(&r, CP_OP_SUM, CP_ROWS_ALL);
    op->u.sum.in = rig_mat(&r, n_used * width, CP_ROWS_ALL);
    op->u.sum.weights = rig_mat(&r, n_used, CP_ROWS_ALL);
    op->u.sum.out = rig_mat(&r, width, CP_ROWS_ALL);
    op->u.sum.shared = seed % 3 ? rig_mat(&r, width, CP_ROWS_ALL) : (cp_mat)-1;
    op->u.sum.gate = seed % 3 == 2 ? rig_mat(&r, 1, CP_ROWS_ALL) : (cp_mat)-1;
    if (seed % 6 == 4) {
        op->u.sum.norm = rig_vector(&r, width, 1);
        op->u.sum.shared_norm = rig_vector(&r, width, 1);
        op->u.sum.eps = 1e-6f;
    }
    rig_seq q[4];
    rig_batch b;
    rig_batch_init(&b, &r, q, some_seqs(&r, q, 100), false);
    cp_mat outs[] = {op->u.sum.out, -1};
    some_rows gates = {op->u.sum.gate, b.b.n_rows, 1,
                       cp_xcalloc((size_t)b.b.n_rows, sizeof(float))};
    for (int i = 0; i < b.b.n_rows; i++)
        gates.x[i] = seed % 2 ? 4.0f * rig_uniform(&r) : rig_odd(7 * seed + (uint64_t)i);
    compare_with(&r, &b.b, outs, "sum", op->u.sum.gate >= 0 ? put_rows : NULL, &gates);
    free(gates.x);
    rig_batch_fini(&b);
    rig_fini(&r);
}

/* Ids, log-probabilities and alternatives: test_sample; here the record in a program. */
static void test_sample(uint64_t seed)
{
    rig r;
    rig_init(&r, seed);
    r.prog.n_vocab = 1 + (int)rig_random(&r, 20000);
    r.prog.logits = rig_mat(&r, r.prog.n_vocab, CP_ROWS_OUT);
    rig_seq q[4];
    rig_batch b;
    rig_batch_init(&b, &r, q, some_seqs(&r, q, 100), true);
    cp_sample_in *in = cp_xcalloc((size_t)b.b.n_out, sizeof(*in));
    for (int i = 0; i < b.b.n_out; i++)
        in[i] = (cp_sample_in){.temperature = i % 2 ? 0.8f : 0.0f,
                               .top_p = i % 3 ? 0.9f : 1.0f,
                               .repetition = 1.0f,
                               .seed = seed,
                               .position = (uint64_t)i,
                               .target = -1,
                               .n_top = i % 4 - 1};
    b.b.samples = in;
    size_t bytes = (size_t)b.b.n_out * sizeof(cp_sample_out);
    size_t logits = (size_t)b.b.n_out * (size_t)r.prog.n_vocab * sizeof(float);
    cp_sample_out *want = cp_xcalloc(1, bytes), *got = cp_xcalloc(1, bytes);
    float *raw = cp_xcalloc(1, logits), *copy = cp_xcalloc(1, logits);
    machine ref = machine_open(&r, NULL, 1);
    machine_fill(&ref, seed);
    b.b.results = want;
    b.b.logits_copy = raw;
    machine_step(&ref, &b.b);
    machine_close(&ref);
    for (const char *const *level = rig_levels(); *level; level++)
        for (int threads = 1; threads <= rig_threads(); threads++) {
            machine m = machine_open(&r, *level, threads);
            machine_fill(&m, seed);
            b.b.results = got;
            b.b.logits_copy = copy;
            machine_step(&m, &b.b);
            assert_memory_equal(raw, copy, logits);
            for (int i = 0; i < b.b.n_out; i++) {
                assert_int_equal(want[i].id, got[i].id);
                assert_int_equal(want[i].n_top, got[i].n_top);
                assert_true(want[i].finite && got[i].finite);
                assert_memory_equal(&want[i].logprob, &got[i].logprob, sizeof(float));
                assert_memory_equal(want[i].top, got[i].top,
                                    (size_t)want[i].n_top * sizeof(want[i].top[0]));
            }
            machine_close(&m);
        }
    free(copy);
    free(raw);
    free(want);
    free(got);
    free(in);
    rig_batch_fini(&b);
    rig_fini(&r);
}

/* A DeltaNet layer of random shape, the second of its group. */
static cp_delta_shape some_delta(rig *r, int *group)
{
    static const int wide[] = {CP_DELTA_DIM_MAX, 128};
    cp_delta_shape s = {.n_k = 1 + (int)rig_random(r, 3),
                        .k_dim = 1 + (int)rig_random(r, rig_random(r, 4) ? 40 : 256),
                        .v_dim = 1 + (int)rig_random(r, rig_random(r, 4) ? 40 : 256),
                        .taps = 1 + (int)rig_random(r, 5)};
    if (rig_random(r, 3) == 0)
        s.k_dim = wide[rig_random(r, 2)];
    s.n_v = s.n_k * (1 + (int)rig_random(r, 3));
    *group = rig_group(r, (cp_kv_group){.kind = CP_GROUP_STATE,
                                        .n_layers = 2,
                                        .state_bytes = cp_delta_state_bytes(&s) + 64});
    return s;
}

static int some_states(rig *r, rig_seq *q)
{
    int n = some_seqs(r, q, 100);
    for (int i = 0; i < n; i++) {
        q[i].state_in = rig_random(r, 3) ? (uint32_t)(1 + i) : 0;
        q[i].state_out =
            rig_random(r, 5) ? rig_random(r, 2) ? (uint32_t)(1 + i) : (uint32_t)(5 + i) : 0;
        q[i].state_save = rig_random(r, 2) ? (uint32_t)(10 + i) : 0;
    }
    return n;
}

static cp_op *prep(rig *r, cp_delta_shape s, int group)
{
    int d = (int)cp_delta_channels(&s);
    cp_op *op = rig_op(r, CP_OP_DELTAPREP, CP_ROWS_ALL);
    op->u.deltaprep.in = rig_mat(r, d, CP_ROWS_ALL);
    op->u.deltaprep.alpha = rig_mat(r, s.n_v, CP_ROWS_ALL);
    op->u.deltaprep.beta = rig_mat(r, s.n_v, CP_ROWS_ALL);
    op->u.deltaprep.out = rig_mat(r, d, CP_ROWS_ALL);
    op->u.deltaprep.gates = rig_mat(r, 2 * s.n_v, CP_ROWS_ALL);
    op->u.deltaprep.conv = rig_vector(r, s.taps, d);
    op->u.deltaprep.a = rig_vector_around(r, s.n_v, 1, -2.0f);
    op->u.deltaprep.dt = rig_vector(r, s.n_v, 1);
    op->u.deltaprep.eps = 1e-6f;
    op->u.deltaprep.scale = 0.0884f;
    op->u.deltaprep.shape = s;
    op->u.deltaprep.group = group;
    op->u.deltaprep.layer_in_group = 1;
    return op;
}

static some_rows odd_rows(rig *r, cp_mat mat, int n)
{
    some_rows s = {mat, n, r->mats[mat].width, NULL};
    s.x = cp_xcalloc((size_t)s.n * (size_t)s.width, sizeof(*s.x));
    for (int i = 0; i < s.n * s.width; i++)
        s.x[i] = rig_odd(rig_random(r, 1024));
    return s;
}

static void check_deltaprep(rig *r, const cp_op *op, bool odd)
{
    rig_seq q[4];
    rig_batch b;
    rig_batch_init(&b, r, q, some_states(r, q), false);
    fewer_outputs(r, &b);
    cp_mat outs[] = {op->u.deltaprep.out, op->u.deltaprep.gates, -1};
    some_rows alpha = odd_rows(r, op->u.deltaprep.alpha, b.b.n_rows);
    compare_with(r, &b.b, outs, "deltaprep", odd ? put_rows : NULL, &alpha);
    free(alpha.x);
    rig_batch_fini(&b);
}

static void test_deltaprep(uint64_t seed)
{
    rig r;
    int group;
    rig_init(&r, seed);
    cp_delta_shape s = some_delta(&r, &group);
    check_deltaprep(&r, prep(&r, s, group), false);
    rig_fini(&r);
}

static void set_all(rig *r, cp_wref w, size_t n, float x)
{
    for (size_t i = 0; i < n; i++)
        ((float *)(uintptr_t)r->tensors[w].data)[i] = x;
}

/* Sums of one input, and gates of a log that is the input's softplus, or its negative: odd inputs
 * arrive as they are. */
static void op_deltaprep_odd(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        rig r;
        int group;
        rig_init(&r, seed);
        cp_delta_shape s = some_delta(&r, &group);
        s.taps = 1;
        cp_op *op = prep(&r, s, group);
        set_all(&r, op->u.deltaprep.conv, cp_delta_channels(&s), 1.0f);
        set_all(&r, op->u.deltaprep.a, (size_t)s.n_v, seed % 2 ? 1.0f : -1.0f);
        set_all(&r, op->u.deltaprep.dt, (size_t)s.n_v, 0.0f);
        check_deltaprep(&r, op, true);
        rig_fini(&r);
    }
}

static void check_deltanet(rig *r, cp_delta_shape s, int group, bool wide)
{
    cp_op *op = rig_op(r, CP_OP_DELTANET, CP_ROWS_ALL);
    op->u.deltanet.in = rig_mat(r, (int)cp_delta_channels(&s), CP_ROWS_ALL);
    op->u.deltanet.gates = rig_mat(r, 2 * s.n_v, CP_ROWS_ALL);
    op->u.deltanet.z = rig_mat(r, s.n_v * s.v_dim, CP_ROWS_ALL);
    op->u.deltanet.out = rig_mat(r, s.n_v * s.v_dim, CP_ROWS_ALL);
    op->u.deltanet.norm = rig_vector(r, s.v_dim, 1);
    op->u.deltanet.eps = 1e-6f;
    op->u.deltanet.shape = s;
    op->u.deltanet.group = group;
    op->u.deltanet.layer_in_group = 1;
    rig_seq q[4];
    rig_batch b;
    int n = some_states(r, q);
    for (int i = 0; wide && i < n; i++) {
        q[i].state_in = (uint32_t)(1 + i);
        q[i].state_out = (uint32_t)(5 + i);
        q[i].state_save = (uint32_t)(10 + i);
    }
    rig_batch_init(&b, r, q, n, false);
    fewer_outputs(r, &b);
    cp_mat outs[] = {op->u.deltanet.out, -1};
    some_rows z = odd_rows(r, op->u.deltanet.z, b.b.n_rows);
    compare_with(r, &b.b, outs, "deltanet", wide ? put_rows : NULL, &z);
    free(z.x);
    rig_batch_fini(&b);
}

static void test_deltanet(uint64_t seed)
{
    rig r;
    int group;
    rig_init(&r, seed);
    cp_delta_shape s = some_delta(&r, &group);
    check_deltanet(&r, s, group, false);
    rig_fini(&r);
}

/* Where a head ends: in each four rows of a column, and around warps and blocks of columns. All
 * states are there, and z has the values at which something changes. */
static void op_deltanet_widths(void **state)
{
    static const int columns[] = {16, 128, 33, 64, 256, 200, 96, 32, 127};
    enum { N = sizeof(columns) / sizeof(columns[0]), FOURS = CP_DELTA_DIM_MAX / 4 };
    (void)state;
    for (int n = 0; n < 2 * (FOURS + N); n++) {
        rig r;
        rig_init(&r, (uint64_t)n);
        int i = n / 2;
        cp_delta_shape s = {.n_k = 1, .n_v = 2, .k_dim = n % 2 ? 128 : 6, .taps = 1};
        s.v_dim = i < FOURS ? 1 + i % 3 : columns[i - FOURS];
        if (i < FOURS)
            s.k_dim = 4 * i + 2;
        int group = rig_group(&r, (cp_kv_group){.kind = CP_GROUP_STATE,
                                                .n_layers = 2,
                                                .state_bytes = cp_delta_state_bytes(&s) + 64});
        check_deltanet(&r, s, group, true);
        rig_fini(&r);
    }
}

/* One cmocka test an operation, from the list itself. */
#define X(kind, name)                                                                              \
    static void op_##name(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        for (uint64_t seed = 0; seed < rounds[CP_OP_##kind]; seed++)                               \
            test_##name(seed);                                                                     \
    }
static const uint64_t rounds[CP_OP_COUNT] = {
    [CP_OP_EMBED] = 30,     [CP_OP_ROPE] = 20,      [CP_OP_GATHER] = 10,    [CP_OP_LINEAR] = 40,
    [CP_OP_ATTENTION] = 60, [CP_OP_SHORTCONV] = 30, [CP_OP_SAMPLE] = 6,     [CP_OP_ROUTE] = 80,
    [CP_OP_EXPERTS] = 62,   [CP_OP_SUM] = 48,       [CP_OP_DELTAPREP] = 20, [CP_OP_DELTANET] = 20,
};
CP_OPS(X)
#undef X

/* Zeroes come before copies, and a chain of copies in one list acts in list order, on every worker
 * count. */
static void pages_come_first(void **state)
{
    (void)state;
    attention_case c;
    attention_case_init(&c, 5, &(attention_shape){2, 1, 16, 16, 0});
    rig_group(&c.r, (cp_kv_group){.kind = CP_GROUP_STATE, .n_layers = 1, .state_bytes = 192});
    c.r.cfg.page_positions = 16;
    c.r.cfg.n_pages = 256;
    rig_seq q = {.pos0 = 40, .n_rows = 1};
    rig_batch_init(&c.b, &c.r, &q, 1, false);
    uint32_t zeroes[] = {c.b.tables[0][0], 203};
    cp_page_copy copies[] = {
        {200, c.b.tables[0][1]}, {c.b.tables[0][1], 201}, {201, 202}, {203, 204}};
    cp_page_copy states[] = {{3, 4}, {4, 5}};
    c.b.b.zero_pages = zeroes;
    c.b.b.copies = copies;
    c.b.b.state_copies = states;
    c.b.b.n_zero_pages = c.b.b.n_copies = c.b.b.n_state_copies = 1;
    compare(&c.r, &c.b.b, c.outs, "one of each");
    c.b.b.n_zero_pages = 2;
    c.b.b.n_copies = 4;
    c.b.b.n_state_copies = 2;
    compare(&c.r, &c.b.b, c.outs, "pages first");
    machine m = machine_open(&c.r, NULL, 1); /* ref itself: what the lists say, and nothing else */
    machine_fill(&m, 1);
    machine_step(&m, &c.b.b);
    uint8_t *p[3] = {machine_page(&m, 200), machine_page(&m, 202), machine_page(&m, 204)};
    for (size_t i = 0; i < m.p->page_bytes; i++)
        assert_int_equal(p[2][i], 0);
    assert_memory_equal(p[0], p[1], m.p->page_bytes);
    for (int i = 0; i < 3; i++)
        free(p[i]);
    machine_close(&m);
    attention_case_fini(&c);
}

/* ---- experts, beyond ref's bits ---- */

/* A case of ROUTE by hand: what comes of the logits 2, 1, 1, 0, -1, 1. */
typedef struct routed {
    cp_gate gate;
    int groups, kept;
    bool biased, normalize, scaled;
    int ids[3];
    double w[3];
} routed;

static void check_routed(const routed *c)
{
    static const float x[6] = {2.0f, 1.0f, 1.0f, 0.0f, -1.0f, 1.0f};
    static const float bias[6] = {-0.9f, 0.0f, 0.0f, 0.3f, 0.9f, 0.0f};
    static const float scale[6] = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
    rig r;
    rig_init(&r, 3);
    cp_op *op = route_record(&r, 6, 3);
    op->u.route.gate = c->gate;
    op->u.route.n_groups = c->groups;
    op->u.route.n_groups_used = c->kept;
    op->u.route.normalize = c->normalize;
    if (c->biased)
        op->u.route.bias = rig_vector(&r, 6, 1);
    if (c->scaled)
        op->u.route.expert_scale = rig_vector(&r, 6, 1);
    for (int i = 0; i < r.prog.n_weights; i++)
        memcpy((void *)(uintptr_t)r.tensors[i].data, i == op->u.route.bias ? bias : scale,
               sizeof(bias));
    rig_seq q = {.n_rows = 1};
    rig_batch b;
    rig_batch_init(&b, &r, &q, 1, false);
    machine m = machine_open(&r, NULL, 1);
    machine_fill(&m, 1);
    machine_put_row(&m, op->u.route.in, 0, x);
    machine_step(&m, &b.b);
    float *ids = machine_row(&m, op->u.route.ids, 0), *w = machine_row(&m, op->u.route.weights, 0);
    for (int j = 0; j < 3; j++) {
        assert_int_equal((int)ids[j], c->ids[j]);
        assert_true(fabs((double)w[j] - c->w[j]) <= 1e-6 * fabs(c->w[j]));
    }
    free(ids);
    free(w);
    machine_close(&m);
    rig_batch_fini(&b);
    rig_fini(&r);
}

static void routes_by_hand(void **state)
{
    (void)state;
    const double e = 2.718281828459045, s = e * e + 3 * e + 1 + 1 / e, t = e * e + 2 * e;
    const double g2 = 1 / (1 + exp(-2.0)), g1 = 1 / (1 + exp(-1.0)), g0 = 0.5;
    const double l2 = sqrt(log1p(exp(2.0))), l1 = sqrt(log1p(exp(1.0)));
    const routed cases[] = {
        {CP_GATE_SOFTMAX, 1, 1, 0, 0, 0, {0, 1, 2}, {e * e / s, e / s, e / s}},
        {CP_GATE_SOFTMAX, 1, 1, 0, 1, 0, {0, 1, 2}, {e * e / t, e / t, e / t}},
        {CP_GATE_SOFTMAX, 1, 1, 0, 1, 1, {0, 1, 2}, {e * e / t, 2 * e / t, 3 * e / t}},
        {CP_GATE_SELECTED, 1, 1, 0, 0, 0, {0, 1, 2}, {e * e / t, e / t, e / t}},
        {CP_GATE_SIGMOID, 1, 1, 0, 0, 0, {0, 1, 2}, {g2, g1, g1}},
        {CP_GATE_SQRT_SOFTPLUS, 1, 1, 0, 0, 0, {0, 1, 2}, {l2, l1, l1}},
        /* the bias chooses, and does not weigh: scores -0.02, 0.73, 0.73, 0.8, 1.17, 0.73 */
        {CP_GATE_SIGMOID, 1, 1, 1, 0, 0, {4, 3, 1}, {1 - g1, g0, g1}},
        /* groups of two: 0.71, 1.53, 1.9, of which two stay; of three: 1.46, 1.97 */
        {CP_GATE_SIGMOID, 3, 2, 1, 0, 0, {4, 3, 2}, {1 - g1, g0, g1}},
        {CP_GATE_SIGMOID, 2, 1, 1, 0, 0, {4, 3, 5}, {1 - g1, g0, g1}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_routed(&cases[i]);
}

/* Bits of a row alone, at each level, are its bits among others, BF16 weights at bf16 included. */
static void a_row_alone(void **state)
{
    (void)state;
    enum { N = 41, N_EXPERT = 5, N_USED = 2 };
    for (int i = 0; cp_test_types[i] >= 0; i++) {
        rig r;
        rig_init(&r, (uint64_t)i + 70);
        cp_op *op = experts_record(&r, (cp_dtype)cp_test_types[i], N_EXPERT, N_USED, i % 2);
        rig_seq many = {.n_rows = N}, one = {.n_rows = 1};
        rig_batch all, alone;
        rig_batch_init(&all, &r, &many, 1, false);
        rig_batch_init(&alone, &r, &one, 1, false);
        some_rows ids = {op->u.experts.ids, N, N_USED, NULL};
        random_ids(&r, &ids, N_EXPERT, ANY);
        for (const char *const *level = rig_levels(); *level; level++) {
            machine m = machine_open(&r, *level, 2);
            machine_fill(&m, 9);
            put_rows(&m, &ids);
            machine_step(&m, &all.b);
            for (int row = 0; row < N; row += 20) {
                float *want = machine_row(&m, op->u.experts.out, row);
                float *in = machine_row(&m, op->u.experts.in, row);
                machine a = machine_open(&r, *level, 1);
                machine_put_row(&a, op->u.experts.in, 0, in);
                machine_put_row(&a, op->u.experts.ids, 0, ids.x + row * N_USED);
                machine_step(&a, &alone.b);
                float *got = machine_row(&a, op->u.experts.out, 0);
                size_t width = (size_t)r.mats[op->u.experts.out].width;
                assert_memory_equal(got, want, width * sizeof(*got));
                machine_close(&a);
                free(got);
                free(in);
                free(want);
            }
            machine_close(&m);
        }
        free(ids.x);
        rig_batch_fini(&all);
        rig_batch_fini(&alone);
        rig_fini(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(kind, name) cmocka_unit_test(op_##name),
        CP_OPS(X)
#undef X
            cmocka_unit_test(pages_come_first),
        cmocka_unit_test(routes_by_hand),
        cmocka_unit_test(op_deltaprep_odd),
        cmocka_unit_test(op_deltanet_widths),
        cmocka_unit_test(a_row_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
