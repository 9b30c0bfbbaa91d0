/*
 * test_check: what a program is refused for before any backend runs it, field by field: one that
 * passes, and each of its fields spoilt alone.
 */
#include "tests/kernels/rig.h"

#include "tests/support/cmocka.h"

#include <stdlib.h>
#include <string.h>

enum { HEADS = 4, KV = 2, HEAD = 16, VOCAB = 20, WIDTH = 48 };

/* A LINEAR into an EMBED that takes it in, a gate times columns of that, and two ATTENTIONs, of
 * which the second reads the first's K and V. */
enum { PROJ, EMBED, GATE, WRITER, READER };

static void build(rig *r)
{
    rig_init(r, 1);
    cp_mat x = rig_mat(r, 32, CP_ROWS_ALL), proj = rig_mat(r, WIDTH, CP_ROWS_ALL);
    rig_linear(r, x, rig_weight(r, CP_DTYPE_F32, 32, WIDTH, CP_ROLE_LINEAR), proj, CP_ROWS_ALL);
    cp_op *op = rig_op(r, CP_OP_EMBED, CP_ROWS_ALL);
    op->u.embed.out = rig_mat(r, WIDTH, CP_ROWS_ALL);
    op->u.embed.table = rig_weight(r, CP_DTYPE_F32, WIDTH, VOCAB, CP_ROLE_EMBED);
    op->u.embed.in = proj;
    op->u.embed.norm = rig_vector(r, 12, 1);
    cp_mat mul = op->u.embed.out;
    op = rig_linear(r, x, rig_weight(r, CP_DTYPE_F32, 32, 12, CP_ROLE_LINEAR),
                    rig_mat(r, 12, CP_ROWS_ALL), CP_ROWS_ALL);
    op->u.linear.act = CP_ACT_GELU_TANH;
    op->u.linear.mul = mul;
    op->u.linear.mul_at = 24;
    int group = rig_group(r, (cp_kv_group){CP_GROUP_FULL, 2, KV, HEAD, HEAD, 0, 0});
    rig_group(r, (cp_kv_group){CP_GROUP_WINDOW, 1, KV, 2 * HEAD, HEAD, 24, 0});
    for (int i = 0; i < 2; i++) {
        op = rig_op(r, CP_OP_ATTENTION, CP_ROWS_ALL);
        op->u.attention.q = rig_mat(r, HEADS * HEAD, CP_ROWS_ALL);
        op->u.attention.k = op->u.attention.v = i ? (cp_mat)-1 : rig_mat(r, KV * HEAD, CP_ROWS_ALL);
        op->u.attention.out = rig_mat(r, HEADS * HEAD, CP_ROWS_ALL);
        op->u.attention.q_norm = op->u.attention.k_norm = op->u.attention.sinks = -1;
        op->u.attention.rope = -1;
        op->u.attention.v_norm = i == 0;
        op->u.attention.n_heads = HEADS;
        op->u.attention.n_kv = KV;
        op->u.attention.k_dim = op->u.attention.v_dim = HEAD;
        op->u.attention.group = group;
        op->u.attention.layer_in_group = 1;
    }
}

static cp_backend *backend;

static cp_code checked(const rig *r, cp_err *err)
{
    return cp_program_check(backend, &r->prog, &r->cfg, err);
}

/* The error begins with the record and names the field. */
static void refused(const rig *r, const char *record, const char *what)
{
    cp_err err = {0};
    assert_int_equal(checked(r, &err), CP_UNSUPPORTED);
    if (!strstr(err.msg, record) || !strstr(err.msg, what))
        fail_msg("'%s' says nothing of '%s' in '%s'", err.msg, what, record);
}

/* One field spoilt in a program of its own. */
#define SPOIL(record, field, value, what)                                                          \
    do {                                                                                           \
        rig r_;                                                                                    \
        build(&r_);                                                                                \
        r_.ops[record].u.field = (value);                                                          \
        refused(&r_,                                                                               \
                #record[0] == 'E'   ? "embed"                                                      \
                : #record[0] == 'G' ? "linear"                                                     \
                                    : "attention",                                                 \
                what);                                                                             \
        rig_fini(&r_);                                                                             \
    } while (0)

static void each_field_is_looked_at(void **state)
{
    (void)state;
    rig r;
    cp_err err = {0};
    build(&r);
    if (checked(&r, &err) != CP_OK)
        fail_msg("%s", err.msg);
    cp_mat out = r.ops[GATE].u.linear.w[0].out, table = r.ops[EMBED].u.embed.out;
    rig_fini(&r);
    SPOIL(EMBED, embed.in, RIG_MATS, "in");
    SPOIL(EMBED, embed.in, out, "in");
    SPOIL(EMBED, embed.in, table, "aliases in");
    SPOIL(EMBED, embed.norm, -1, "norm");
    SPOIL(EMBED, embed.norm, RIG_WEIGHTS, "norm");
    SPOIL(EMBED, embed.norm, r.ops[EMBED].u.embed.table, "norm");
    SPOIL(GATE, linear.mul, RIG_MATS, "mul");
    SPOIL(GATE, linear.mul, out, "aliases out");
    SPOIL(GATE, linear.mul_at, -1, "mul_at");
    SPOIL(GATE, linear.mul_at, WIDTH - 11, "mul_at");
    SPOIL(GATE, linear.act, CP_ACT_NONE, "n_w");
    SPOIL(GATE, linear.n_w, 2, "n_w");
    SPOIL(GATE, linear.mul, -1, "n_w");
    SPOIL(GATE, linear.scale, 2.0f, "scale");
    SPOIL(GATE, linear.w[0].out, -1, "out");
    SPOIL(WRITER, attention.k, -1, "k is");
    SPOIL(WRITER, attention.v, -1, "v is");
    SPOIL(READER, attention.k, r.ops[WRITER].u.attention.k, "v is");
    SPOIL(READER, attention.v_norm, true, "v_norm");
    SPOIL(READER, attention.k_norm, 0, "k_norm");
    SPOIL(READER, attention.layer_in_group, 0, "nothing writes it");
    SPOIL(READER, attention.group, 1, "n_kv");
    SPOIL(READER, attention.n_kv, 1, "n_kv");
    SPOIL(READER, attention.q, r.ops[WRITER].u.attention.k, "q");
}

/* ---- experts ---- */

enum { N_EXPERT = 6, N_USED = 2, D = 32, FF = 16 };
enum { ROUTE, GATE_UP, DOWN, SUM };

/* ROUTE in groups of three, EXPERTS with gate and up in one tensor, EXPERTS down, SUM with a gate.
 */
static void build_experts(rig *r)
{
    rig_init(r, 2);
    cp_mat x = rig_mat(r, D, CP_ROWS_ALL), one = rig_mat(r, 1, CP_ROWS_ALL);
    cp_op *op = rig_op(r, CP_OP_ROUTE, CP_ROWS_ALL);
    cp_mat ids = op->u.route.ids = rig_mat(r, N_USED, CP_ROWS_ALL);
    op->u.route.in = rig_mat(r, N_EXPERT, CP_ROWS_ALL);
    op->u.route.weights = rig_mat(r, N_USED, CP_ROWS_ALL);
    op->u.route.bias = op->u.route.expert_scale = rig_vector(r, N_EXPERT, 1);
    op->u.route.gate = CP_GATE_SIGMOID;
    op->u.route.n_groups = 2;
    op->u.route.n_groups_used = 1;
    op->u.route.scale = 1.0f;
    for (int down = 0; down < 2; down++) {
        op = rig_op(r, CP_OP_EXPERTS, CP_ROWS_ALL);
        op->u.experts.in = down ? r->ops[GATE_UP].u.experts.out : x;
        op->u.experts.ids = ids;
        op->u.experts.out = rig_mat(r, N_USED * (down ? D : FF), CP_ROWS_ALL);
        op->u.experts.by_rank = down;
        op->u.experts.norm = down ? (cp_wref)-1 : rig_vector(r, D, 1);
        op->u.experts.act = down ? CP_ACT_NONE : CP_ACT_SILU;
        op->u.experts.w[0].w = down ? rig_experts(r, CP_DTYPE_F32, FF, D, N_EXPERT)
                                    : rig_experts(r, CP_DTYPE_F32, D, 2 * FF, N_EXPERT);
        op->u.experts.w[0].bias = down ? (cp_wref)-1 : rig_vector(r, 2 * FF, N_EXPERT);
        op->u.experts.w[1] = op->u.experts.w[0];
        op->u.experts.w[1].first = FF;
    }
    op = rig_op(r, CP_OP_SUM, CP_ROWS_ALL);
    op->u.sum.in = r->ops[DOWN].u.experts.out;
    op->u.sum.weights = r->ops[ROUTE].u.route.weights;
    op->u.sum.out = rig_mat(r, D, CP_ROWS_ALL);
    op->u.sum.shared = x;
    op->u.sum.gate = one;
    op->u.sum.norm = op->u.sum.shared_norm = -1;
}

#define SPOIL_EXPERTS(kind, record, field, value, what)                                            \
    do {                                                                                           \
        rig r_;                                                                                    \
        build_experts(&r_);                                                                        \
        r_.ops[record].u.kind.field = (value);                                                     \
        refused(&r_, "(" #kind ",", what);                                                         \
        rig_fini(&r_);                                                                             \
    } while (0)

static void each_field_of_experts_is_looked_at(void **state)
{
    (void)state;
    rig r;
    cp_err err = {0};
    build_experts(&r);
    if (checked(&r, &err) != CP_OK)
        fail_msg("%s", err.msg);
    cp_mat ids = r.ops[ROUTE].u.route.ids, logits = r.ops[ROUTE].u.route.in;
    cp_mat out = r.ops[SUM].u.sum.out, ff = r.ops[GATE_UP].u.experts.out;
    cp_wref down = r.ops[DOWN].u.experts.w[0].w, norm = r.ops[GATE_UP].u.experts.norm;
    rig_fini(&r);
    SPOIL_EXPERTS(route, ROUTE, in, RIG_MATS, "in");
    SPOIL_EXPERTS(route, ROUTE, in, out, "bias");
    SPOIL_EXPERTS(route, ROUTE, ids, logits, "weights");
    SPOIL_EXPERTS(route, ROUTE, weights, ids, "alias");
    SPOIL_EXPERTS(route, ROUTE, n_groups, 0, "groups");
    SPOIL_EXPERTS(route, ROUTE, n_groups, 4, "left over");
    SPOIL_EXPERTS(route, ROUTE, n_groups, 6, "experts used");
    SPOIL_EXPERTS(route, ROUTE, n_groups_used, 0, "groups used");
    SPOIL_EXPERTS(route, ROUTE, n_groups_used, 3, "groups used");
    SPOIL_EXPERTS(route, ROUTE, gate, (cp_gate)0, "gate");
    SPOIL_EXPERTS(route, ROUTE, gate, (cp_gate)5, "gate");
    SPOIL_EXPERTS(route, ROUTE, bias, norm, "bias");
    SPOIL_EXPERTS(route, ROUTE, expert_scale, down, "expert_scale");
    SPOIL_EXPERTS(experts, GATE_UP, in, ids, "norm");
    SPOIL_EXPERTS(experts, GATE_UP, ids, RIG_MATS, "ids");
    SPOIL_EXPERTS(experts, GATE_UP, ids, logits, "left over");
    SPOIL_EXPERTS(experts, GATE_UP, out, ids, "aliases");
    SPOIL_EXPERTS(experts, GATE_UP, out, r.ops[GATE_UP].u.experts.in, "aliases");
    SPOIL_EXPERTS(experts, GATE_UP, by_rank, true, "norm");
    SPOIL_EXPERTS(experts, GATE_UP, norm, down, "norm");
    SPOIL_EXPERTS(experts, GATE_UP, w[0].w, -1, "weight");
    SPOIL_EXPERTS(experts, GATE_UP, w[0].w, norm, "role");
    SPOIL_EXPERTS(experts, GATE_UP, w[1].w, down, "weight inputs");
    SPOIL_EXPERTS(experts, GATE_UP, w[1].first, FF + 16, "outputs");
    SPOIL_EXPERTS(experts, GATE_UP, w[1].first, 8, "outputs");
    SPOIL_EXPERTS(experts, GATE_UP, w[1].first, -16, "outputs");
    SPOIL_EXPERTS(experts, GATE_UP, w[0].bias, norm, "bias");
    SPOIL_EXPERTS(experts, DOWN, by_rank, false, "weight inputs");
    SPOIL_EXPERTS(experts, DOWN, out, ff, "aliases");
    SPOIL_EXPERTS(sum, SUM, in, ff, "in");
    SPOIL_EXPERTS(sum, SUM, weights, logits, "in");
    SPOIL_EXPERTS(sum, SUM, out, r.ops[SUM].u.sum.shared, "aliases");
    SPOIL_EXPERTS(sum, SUM, shared, -1, "shared");
    SPOIL_EXPERTS(sum, SUM, shared, ids, "shared");
    SPOIL_EXPERTS(sum, SUM, gate, ids, "gate");
}

/* Gate and up, and the ids, of unequal numbers of experts; more than a ROUTE may have; a LINEAR of
 * several matrices. */
static void numbers_of_experts_meet(void **state)
{
    (void)state;
    rig r;
    build_experts(&r);
    r.ops[GATE_UP].u.experts.w[1].w = rig_experts(&r, CP_DTYPE_F32, D, 2 * FF, N_EXPERT + 1);
    r.ops[GATE_UP].u.experts.w[1].bias = -1;
    refused(&r, "experts", "experts of a weight");
    rig_fini(&r);
    build_experts(&r);
    r.ops[DOWN].u.experts.w[0].w = rig_experts(&r, CP_DTYPE_F32, FF, D, N_USED - 1);
    refused(&r, "experts", "experts of a weight");
    rig_fini(&r);
    build_experts(&r);
    r.ops[ROUTE].u.route.in = rig_mat(&r, CP_EXPERTS_MAX + 2, CP_ROWS_ALL);
    refused(&r, "route", "experts is 514");
    rig_fini(&r);
    build(&r);
    r.ops[PROJ].u.linear.w[0].w = rig_experts(&r, CP_DTYPE_F32, 32, WIDTH, 2);
    refused(&r, "linear", "matrices");
    rig_fini(&r);
}

/* A norm that no whole number of spans fits. */
static void spans_fit(void **state)
{
    (void)state;
    rig r;
    build(&r);
    r.ops[EMBED].u.embed.norm = rig_vector(&r, 13, 1);
    refused(&r, "embed", "spans");
    rig_fini(&r);
}

/* Pages are as large as the largest group's contents. */
static void pages_of_unequal_groups(void **state)
{
    (void)state;
    rig r;
    build(&r);
    assert_int_equal(cp_program_page_bytes(&r.prog, 32), 2 * KV * 2 * HEAD * 32 * 2);
    r.prog.groups[0].n_layers = 1;
    assert_int_equal(cp_program_page_bytes(&r.prog, 32), KV * 3 * HEAD * 32 * 2);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_field_is_looked_at),
        cmocka_unit_test(each_field_of_experts_is_looked_at),
        cmocka_unit_test(numbers_of_experts_meet),
        cmocka_unit_test(spans_fit),
        cmocka_unit_test(pages_of_unequal_groups),
    };
    cp_err err;
    if (cp_backend_open(&backend, &(cp_backend_config){.device = "ref"}, &err))
        return 1;
    int failed = cmocka_run_group_tests_name("check", tests, NULL, NULL);
    cp_backend_close(backend);
    return failed;
}
