/* A file with Gated DeltaNet layers: which layers are what, what is skipped, and what is refused.
 */
#include "tests/support/cmocka.h"

#include "base/mem.h"
#include "model/builder.h"

#include <string.h>

typedef struct key {
    const char *name;
    int64_t value;
} key;

static const key sound[] = {{"block_count", 9},
                            {"nextn_predict_layers", 1},
                            {"embedding_length", 64},
                            {"context_length", 512},
                            {"feed_forward_length", 96},
                            {"attention.head_count", 4},
                            {"attention.head_count_kv", 2},
                            {"attention.key_length", 32},
                            {"rope.dimension_count", 8},
                            {"ssm.conv_kernel", 4},
                            {"ssm.state_size", 24},
                            {"ssm.group_count", 2},
                            {"ssm.time_step_rank", 6},
                            {"ssm.inner_size", 6 * 40}};
enum { N_KEYS = sizeof sound / sizeof sound[0] };

static void put(cp_meta *m, char *buf, const char *name, cp_meta_kv kv)
{
    size_t n = cp_snprintf(buf, 64, "qwen35.%s", name);
    kv.key = (cp_str){buf, n};
    assert_true(cp_meta_put(m, &kv));
}

/* The file with one key changed (value < 0: left out), and layers[n] said one by one where there
 * are any. */
static cp_code read_file(cp_model_params *p, key other, const uint8_t *layers, uint64_t n,
                         cp_err *err)
{
    static char names[N_KEYS + 3][64];
    cp_meta *m = cp_meta_new();
    cp_meta_kv kv = {.key = {"general.architecture", 20}, .type = CP_META_STRING, .count = 1};
    kv.v.s = (cp_str){"qwen35", 6};
    assert_true(cp_meta_put(m, &kv));
    bool found = false;
    for (size_t i = 0; i < N_KEYS; i++) {
        bool this = other.name && !strcmp(sound[i].name, other.name);
        found = found || this;
        kv = (cp_meta_kv){.type = CP_META_I64, .count = 1};
        kv.v.i = this ? other.value : sound[i].value;
        if (kv.v.i >= 0)
            put(m, names[i], sound[i].name, kv);
    }
    if (other.name && !found) {
        kv = (cp_meta_kv){.type = CP_META_I64, .count = 1};
        kv.v.i = other.value;
        put(m, names[N_KEYS], other.name, kv);
    }
    kv = (cp_meta_kv){.type = CP_META_F64, .count = 1};
    kv.v.f = 1e-6;
    put(m, names[N_KEYS + 1], "attention.layer_norm_rms_epsilon", kv);
    if (layers) {
        kv = (cp_meta_kv){.type = CP_META_ARRAY, .elem = CP_META_BOOL, .count = n};
        kv.v.a = layers;
        put(m, names[N_KEYS + 2], "attention.recurrent_layers", kv);
    }
    memset(err, 0, sizeof *err);
    cp_code rc = cp_params_read(p, m, err);
    cp_meta_free(m);
    return rc;
}

static void layers_are(const cp_model_params *p, const char *want)
{
    assert_int_equal(p->pub.n_layers, strlen(want));
    for (int i = 0; i < p->pub.n_layers; i++)
        assert_int_equal(p->layer[i].mixer,
                         want[i] == 'r' ? CP_MIXER_DELTANET : CP_MIXER_ATTENTION);
}

static void layers_and_shapes(void **state)
{
    (void)state;
    static cp_model_params p;
    static const uint8_t said[9] = {0, 1, 1, 0, 0, 1, 1, 1, 0};
    cp_err err;
    assert_int_equal(read_file(&p, (key){0}, NULL, 0, &err), CP_OK);
    layers_are(&p, "rrrfrrrf"); /* the ninth block predicts */
    assert_int_equal(p.pub.n_mtp, 1);
    assert_int_equal(p.delta.n_k, 2);
    assert_int_equal(p.delta.n_v, 6);
    assert_int_equal(p.delta.k_dim, 24);
    assert_int_equal(p.delta.v_dim, 40);
    assert_int_equal(p.delta.taps, 4);
    assert_int_equal(read_file(&p, (key){"full_attention_interval", 3}, NULL, 0, &err), CP_OK);
    layers_are(&p, "rrfrrfrr");
    assert_int_equal(read_file(&p, (key){0}, said, 9, &err), CP_OK);
    layers_are(&p, "frrffrrr");

    /* The state of a layer: three rows of 2 x 2 x 24 + 6 x 40 channels, then 6 heads of 24 x 48. */
    cp_program g = {.n_groups = 0};
    int place[CP_MAX_LAYERS][2];
    assert_int_equal(cp_layer_groups(&g, &p, place, &err), CP_OK);
    const cp_kv_group *grp = &g.groups[g.n_groups - 1];
    assert_int_equal(grp->kind, CP_GROUP_STATE);
    assert_int_equal(grp->n_layers, 5);
    assert_int_equal(grp->state_bytes, (3 * (96 + 240) * 4 + 63) / 64 * 64 + 6 * 24 * 48 * 4);
}

static void what_is_refused(void **state)
{
    (void)state;
    static const struct {
        key k;
        const char *says;
    } rows[] = {
        {{"ssm.conv_kernel", -1}, "qwen35.ssm.conv_kernel' is missing"},
        {{"ssm.conv_kernel", 1}, "qwen35.ssm.conv_kernel' is 1, allowed: 2 to 16"},
        {{"ssm.conv_kernel", 17}, "allowed: 2 to 16"},
        {{"ssm.state_size", 257}, "qwen35.ssm.state_size' is 257, allowed: 1 to 256"},
        {{"ssm.group_count", 0}, "qwen35.ssm.group_count' is 0"},
        {{"ssm.group_count", 4}, "6 v heads (a multiple of 4 k heads)"},
        {{"ssm.time_step_rank", INT64_MAX}, "qwen35.ssm.time_step_rank'"},
        {{"ssm.inner_size", 241}, "inner size of 241"},
        {{"ssm.inner_size", 6 * 257}, "1 to 256 a head"},
        {{"ssm.inner_size", 5}, "inner size of 5"},
        {{"full_attention_interval", 0}, "qwen35.full_attention_interval' is 0"},
        {{"nextn_predict_layers", 9}, "9 of 9 blocks are prediction layers"},
        {{"attention.head_count_kv", 0}, "layer 3 is attention and has no KV heads"},
    };
    static cp_model_params p;
    static const uint8_t said[7] = {0};
    cp_err err;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(read_file(&p, rows[i].k, NULL, 0, &err), CP_CORRUPT);
        if (!strstr(err.msg, rows[i].says))
            fail_msg("%s %lld: %s", rows[i].k.name, (long long)rows[i].k.value, err.msg);
    }
    assert_int_equal(read_file(&p, (key){0}, said, 7, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "recurrent_layers' has no element for each of 8 layers"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_and_shapes),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests_name("recurrent", tests, NULL, NULL);
}
