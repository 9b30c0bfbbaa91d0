/* What a file may say of its experts, and what is answered where it cannot be. */
#include "tests/support/cmocka.h"

#include "base/mem.h"
#include "model/hparams.h"

#include <stdlib.h>
#include <string.h>

typedef struct said {
    const char *key; /* without the architecture; NULL: no more */
    double v;
    bool as_bool, as_float;
} said;

static void put(cp_meta *m, const char *arch, const said *s)
{
    static char names[64][96]; /* a meta borrows them */
    static int used;
    char *name = names[used++ % 64];
    cp_snprintf(name, sizeof names[0], "%s.%s", arch, s->key);
    cp_meta_kv kv = {.key = {name, strlen(name)}, .type = CP_META_I64, .count = 1};
    kv.v.i = (int64_t)s->v;
    if (s->as_bool) {
        kv.type = CP_META_BOOL;
        kv.v.u = s->v != 0;
    } else if (s->as_float) {
        kv.type = CP_META_F64;
        kv.v.f = s->v;
    }
    assert_true(cp_meta_put(m, &kv));
}

/* A model of four layers that is whole but for its experts, and what is said of them. */
static cp_code read(cp_model_params *p, const char *arch, const said *experts, cp_err *err)
{
    static const said base[] = {{"block_count", 4, 0, 0},
                                {"embedding_length", 64, 0, 0},
                                {"context_length", 512, 0, 0},
                                {"attention.head_count", 4, 0, 0},
                                {"attention.sliding_window", 16, 0, 0},
                                {"feed_forward_length", 96, 0, 0},
                                {"attention.layer_norm_rms_epsilon", 1e-5, 0, 1}};
    cp_meta *m = cp_meta_new();
    cp_meta_kv name = {.key = {"general.architecture", 20}, .type = CP_META_STRING, .count = 1};
    name.v.s = (cp_str){arch, strlen(arch)};
    assert_true(cp_meta_put(m, &name));
    for (size_t i = 0; i < sizeof base / sizeof *base; i++) {
        put(m, arch, &base[i]);
    }
    for (; experts->key; experts++) {
        put(m, arch, experts);
    }
    memset(err, 0, sizeof *err);
    cp_code rc = cp_params_read(p, m, err);
    cp_meta_free(m);
    return rc;
}

static void what_is_read(void **state)
{
    (void)state;
    static const said few[] = {
        {"expert_count", 8, 0, 0}, {"expert_used_count", 2, 0, 0}, {NULL, 0, 0, 0}};
    static const said all[] = {{"expert_count", 8, 0, 0},
                               {"expert_used_count", 3, 0, 0},
                               {"expert_feed_forward_length", 40, 0, 0},
                               {"expert_shared_count", 2, 0, 0},
                               {"expert_gating_func", 2, 0, 0},
                               {"expert_group_count", 4, 0, 0},
                               {"expert_group_used_count", 2, 0, 0},
                               {"expert_weights_norm", 0, 1, 0},
                               {"expert_weights_scale", 2.5, 0, 1},
                               {"leading_dense_block_count", 1, 0, 0},
                               {"interleave_moe_layer_step", 2, 0, 0},
                               {NULL, 0, 0, 0}};
    cp_model_params *p = cp_xcalloc(1, sizeof *p);
    cp_err err;
    assert_int_equal(read(p, "llama", few, &err), CP_OK);
    assert_true(p->pub.n_experts == 8 && p->pub.n_experts_used == 2);
    assert_int_equal(p->pub.n_experts_shared, 0);
    assert_true(p->experts.gate == CP_GATE_SOFTMAX && p->experts.normalize);
    assert_true(p->experts.d_ff == 96 && p->experts.d_ff_shared == 0);
    assert_true(p->experts.n_groups == 1 && p->experts.n_groups_used == 1);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(p->layer[i].ffn, CP_FFN_EXPERTS);
    }
    assert_int_equal(read(p, "qwen3moe", all, &err), CP_OK);
    assert_true(p->experts.gate == CP_GATE_SIGMOID && !p->experts.normalize);
    assert_true(p->experts.d_ff == 40 && p->experts.d_ff_shared == 80);
    assert_true(p->experts.n_groups == 4 && p->experts.n_groups_used == 2);
    assert_true(p->experts.scale == 2.5f && p->pub.n_experts_shared == 2);
    for (int i = 0; i < 4; i++) { /* the first is dense, then every second has experts */
        assert_int_equal(p->layer[i].ffn, i % 2 ? CP_FFN_EXPERTS : CP_FFN_DENSE);
    }
    free(p);
}

static void what_cannot_be(void **state)
{
    (void)state;
#define COUNT(n, used)                                                                             \
    {"expert_count", n, 0, 0},                                                                     \
    {                                                                                              \
        "expert_used_count", used, 0, 0                                                            \
    }
    static const struct {
        const char *arch;
        said said[6];
        const char *says;
    } rows[] = {
        {"gemma3",
         {COUNT(8, 2)},
         "architecture 'gemma3' with 8 experts is not supported; supported: dense layers"},
        {"llama", {{"expert_count", 8, 0, 0}}, "key 'llama.expert_used_count' is missing"},
        {"llama", {COUNT(513, 2)}, "key 'llama.expert_count' is 513, allowed: 0 to 512"},
        {"llama", {COUNT(-1, 2)}, "key 'llama.expert_count' is -1, allowed: 0 to 512"},
        {"llama", {COUNT(8, 9)}, "key 'llama.expert_used_count' is 9, allowed: 1 to 8"},
        {"llama", {COUNT(8, 0)}, "key 'llama.expert_used_count' is 0, allowed: 1 to 8"},
        {"llama",
         {COUNT(8, 2), {"expert_gating_func", 5, 0, 0}},
         "key 'llama.expert_gating_func' is 5, allowed: 0 to 4"},
        {"llama",
         {COUNT(8, 2), {"expert_weights_norm", 1, 0, 0}},
         "key 'llama.expert_weights_norm' is not true or false"},
        {"llama",
         {COUNT(8, 2), {"expert_feed_forward_length", 0, 0, 0}},
         "key 'llama.expert_feed_forward_length' is 0, allowed: 1 to 1048576"},
        {"llama",
         {COUNT(8, 2), {"expert_group_count", 3, 0, 0}, {"expert_group_used_count", 1, 0, 0}},
         "expert_group_count 3 and expert_group_used_count 1: 8 experts of which 2 are used cannot "
         "be grouped so"},
        {"llama",
         {COUNT(8, 3), {"expert_group_count", 4, 0, 0}, {"expert_group_used_count", 1, 0, 0}},
         "expert_group_count 4 and expert_group_used_count 1: 8 experts of which 3 are used cannot "
         "be grouped so"},
        {"llama",
         {COUNT(8, 3), {"expert_group_count", 2, 0, 0}, {"expert_group_used_count", 3, 0, 0}},
         "expert_group_count 2 and expert_group_used_count 3: 8 experts of which 3 are used cannot "
         "be grouped so"},
    };
#undef COUNT
    cp_model_params *p = cp_xcalloc(1, sizeof *p);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cp_err err;
        assert_true(read(p, rows[i].arch, rows[i].said, &err) != CP_OK);
        assert_string_equal(err.msg, rows[i].says);
    }
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_read),
        cmocka_unit_test(what_cannot_be),
    };
    return cmocka_run_group_tests_name("experts", tests, NULL, NULL);
}
