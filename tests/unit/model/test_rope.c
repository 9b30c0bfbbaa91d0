/*
 * Frequencies of rotary positions against transformers' (ROPE_INIT_FUNCTIONS["yarn"], f32), and
 * what of a file's keys is refused.
 */
#include "tests/support/cmocka.h"

#include "base/mem.h"
#include "model/hparams.h"
#include "model/rope.h"

#include <math.h>
#include <string.h>

typedef struct row {
    const char *what;
    int n_rot;
    double base;
    cp_yarn yarn;
    int at[6]; /* some of the frequencies */
    double want[6];
} row;

static const row rows[] = {
    {"gpt-oss",
     64,
     150000.0,
     {32, 1, 1, 32, 1, 4096, true},
     {0, 8, 9, 13, 17, 31},
     {1.0, 0.0508132726, 0.0317056961, 0.00386035908, 0.000129318694, 3.0235114e-07}},
    {"the same, rounded",
     64,
     150000.0,
     {32, 1, 1, 32, 1, 4096, false},
     {0, 8, 9, 13, 17, 18},
     {1.0, 0.0508132726, 0.0316207521, 0.00406955462, 0.000227947836, 3.83088118e-05}},
    {"qwen's",
     20,
     1000000.0,
     {4, 1, 1, 32, 1, 32768, false},
     {0, 3, 4, 5, 6, 9},
     {1.0, 0.0158489291, 0.00323462067, 0.000625000044, 0.000109894994, 9.95268238e-07}},
    {"a short context",
     20,
     10000.0,
     {8, 1, 1, 16, 2, 64, false},
     {0, 1, 2, 3, 8, 9},
     {1.0, 0.223935276, 0.0198111646, 0.00788696576, 7.88696634e-05, 3.13985875e-05}},
};

static void yarn_is_as_in_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float inv[64];
        cp_rope_frequencies(inv, rows[i].n_rot, rows[i].base, 1.0, NULL, &rows[i].yarn);
        for (int j = 0; j < 6; j++) {
            double got = (double)inv[rows[i].at[j]], want = rows[i].want[j];
            if (!(fabs(got - want) <= 1e-6 * want)) {
                fail_msg("%s: frequency %d is %.9g, in transformers %.9g", rows[i].what,
                         rows[i].at[j], got, want);
            }
        }
    }
}

/* No share of the unscaled frequencies is linear scaling. */
static void without_a_share_all_is_slowed_down(void **state)
{
    (void)state;
    static const cp_yarn none = {0}, linear = {4, 0, 1, 32, 1, 4096, false};
    float a[10], b[10];
    cp_rope_frequencies(a, 20, 10000.0, 0.25, NULL, &none);
    cp_rope_frequencies(b, 20, 10000.0, 1.0, NULL, &linear);
    for (int i = 0; i < 10; i++) {
        assert_true(fabsf(a[i] - b[i]) <= 1e-7f * a[i]);
    }
    assert_true(cp_rope_mscale(&none) == 1.0f);
}

/* ---- keys ---- */

static cp_str str(const char *s)
{
    return (cp_str){s, strlen(s)};
}

static void put_number(cp_meta *m, const char *key, double v)
{
    cp_meta_kv kv = {.key = str(key), .type = CP_META_F64, .count = 1, .v.f = v};
    if (v == floor(v)) {
        kv.type = CP_META_I64;
        kv.v.i = (int64_t)v;
    }
    assert_true(cp_meta_put(m, &kv));
}

static void put_text(cp_meta *m, const char *key, const char *v)
{
    cp_meta_kv kv = {.key = str(key), .type = CP_META_STRING, .count = 1, .v.s = str(v)};
    assert_true(cp_meta_put(m, &kv));
}

/* What a llama file with these keys of rope.scaling gives; type NULL: the number 1. NULL ends the
 * keys. */
static cp_code read_keys(cp_model_params *p, const char *type, const char *const *keys,
                         const double *values, cp_err *err)
{
    cp_meta *m = cp_meta_new();
    put_text(m, "general.architecture", "llama");
    put_number(m, "llama.block_count", 1);
    put_number(m, "llama.embedding_length", 64);
    put_number(m, "llama.context_length", 8192);
    put_number(m, "llama.feed_forward_length", 64);
    put_number(m, "llama.attention.head_count", 2);
    put_number(m, "llama.attention.layer_norm_rms_epsilon", 1e-5);
    if (type) {
        put_text(m, "llama.rope.scaling.type", type);
    } else {
        put_number(m, "llama.rope.scaling.type", 1);
    }
    for (int i = 0; keys[i]; i++) {
        put_number(m, keys[i], values[i]);
    }
    cp_code rc = cp_params_read(p, m, err);
    cp_meta_free(m);
    return rc;
}

#define KEY "llama.rope.scaling."

static void keys_of_yarn(void **state)
{
    (void)state;
    static cp_model_params p;
    cp_err err = {0};
    static const char *const few[] = {KEY "factor", NULL};
    assert_int_equal(read_keys(&p, "yarn", few, (double[]){4}, &err), CP_OK);
    assert_true(p.yarn.factor == 4.0 && p.yarn.ext == 1.0 && p.yarn.beta_fast == 32.0 &&
                p.yarn.beta_slow == 1.0 && p.yarn.old_ctx == 8192 && !p.yarn.exact);
    assert_true(fabsf(cp_rope_mscale(&p.yarn) - 1.138629436f) < 1e-6f);
    static const char *const all[] = {KEY "factor",          KEY "original_context_length",
                                      KEY "yarn_ext_factor", KEY "yarn_attn_factor",
                                      KEY "attn_factor",     KEY "yarn_beta_fast",
                                      KEY "yarn_beta_slow",  NULL};
    assert_int_equal(read_keys(&p, "yarn", all, (double[]){8, 64, 0.5, 1.5, 2, 16, 2}, &err),
                     CP_OK);
    assert_true(p.yarn.old_ctx == 64 && p.yarn.ext == 0.5 && p.yarn.beta_fast == 16.0 &&
                p.yarn.beta_slow == 2.0 && cp_rope_mscale(&p.yarn) == 3.0f);
    assert_int_equal(read_keys(&p, "linear", few, (double[]){4}, &err), CP_OK);
    assert_true(p.yarn.factor == 0.0 && p.freq_scale == 0.25 && cp_rope_mscale(&p.yarn) == 1.0f);
}

static void odd_keys_are_refused(void **state)
{
    (void)state;
    static cp_model_params p;
    static const struct {
        const char *type, *key;
        double value;
        cp_code code;
        const char *says;
    } odd[] = {
        {"yarn", KEY "factor", 0.5, CP_CORRUPT, "factor 0.5"},
        {"yarn", KEY "yarn_ext_factor", 2, CP_CORRUPT, "yarn_ext_factor 2"},
        {"yarn", KEY "yarn_beta_slow", 64, CP_CORRUPT, "yarn_beta_slow 64"},
        {"yarn", KEY "yarn_beta_slow", 0, CP_CORRUPT, "yarn_beta_slow 0"},
        {"yarn", KEY "attn_factor", -1, CP_CORRUPT, "attn_factor -1"},
        {"yarn", "llama.rope.freq_base", 1, CP_CORRUPT, "freq_base 1"},
        {"yarn", KEY "original_context_length", 0, CP_CORRUPT, "original_context_length"},
        {"yarn", KEY "yarn_log_multiplier", 0.1, CP_UNSUPPORTED, "yarn_log_multiplier"},
        {"longrope", KEY "attn_factor", 1, CP_UNSUPPORTED, "none, linear, yarn"},
        {NULL, KEY "factor", 4, CP_CORRUPT, "key 'llama.rope.scaling.type' is not a text"},
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        cp_err err = {0};
        const char *keys[] = {odd[i].key, NULL};
        assert_int_equal(read_keys(&p, odd[i].type, keys, &odd[i].value, &err), odd[i].code);
        if (!strstr(err.msg, odd[i].says)) {
            fail_msg("'%s' does not say '%s'", err.msg, odd[i].says);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yarn_is_as_in_transformers),
        cmocka_unit_test(without_a_share_all_is_slowed_down),
        cmocka_unit_test(keys_of_yarn),
        cmocka_unit_test(odd_keys_are_refused),
    };
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
