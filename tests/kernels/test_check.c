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
