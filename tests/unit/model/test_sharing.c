/* What a file may say of head sizes and of caches that layers share, and what is answered where it
 * cannot be. */
#include "tests/support/cmocka.h"

#include "base/mem.h"
#include "model/hparams.h"

#include <stdlib.h>
#include <string.h>

enum { LAYERS = 8 };

typedef struct said {
    const char *key; /* without the architecture; NULL: no more */
    int v;
} said;

static void put(cp_meta *m, const char *key, int v)
{
    static char names[32][96]; /* a meta borrows them */
    static int used;
    char *name = names[used++ % 32];
    cp_snprintf(name, sizeof names[0], "gemma3.%s", key);
    cp_meta_kv kv = {.key = {name, strlen(name)}, .type = CP_META_I64, .count = 1};
    kv.v.i = v;
    assert_true(cp_meta_put(m, &kv));
}

/* A model of eight layers, every fourth full, that is whole but for what is said. */
static cp_code read(cp_model_params *p, const said *more, cp_err *err)
{
    static const said base[] = {
        {"block_count", LAYERS},          {"embedding_length", 64},
        {"context_length", 512},          {"attention.head_count", 4},
        {"attention.sliding_window", 16}, {"attention.sliding_window_pattern", 4},
        {"feed_forward_length", 96},      {"attention.layer_norm_rms_epsilon", 1}};
    cp_meta *m = cp_meta_new();
    cp_meta_kv name = {.key = {"general.architecture", 20}, .type = CP_META_STRING, .count = 1};
    name.v.s = (cp_str){"gemma3", 6};
    assert_true(cp_meta_put(m, &name));
    for (size_t i = 0; i < sizeof base / sizeof *base; i++) {
        put(m, base[i].key, base[i].v);
    }
    for (; more->key; more++) {
        put(m, more->key, more->v);
    }
    memset(err, 0, sizeof *err);
    cp_code rc = cp_params_read(p, m, err);
    cp_meta_free(m);
    return rc;
}

static void what_is_read(void **state)
{
    (void)state;
    static const said none[] = {{NULL, 0}};
    static const said all[] = {{"attention.key_length", 32},
                               {"attention.value_length", 32},
                               {"attention.key_length_swa", 20},
                               {"attention.value_length_swa", 20},
                               {"rope.dimension_count", 32},
                               {"attention.shared_kv_layers", 3},
                               {"final_logit_softcapping", 30},
                               {"embedding_length_per_layer_input", 12},
                               {NULL, 0}};
    static const int from[LAYERS] = {0, 1, 2, 3, 4, 4, 4, 3};
    cp_model_params *p = cp_xcalloc(1, sizeof *p);
    cp_err err;
    assert_int_equal(read(p, none, &err), CP_OK);
    assert_int_equal(p->first_reader, LAYERS);
    assert_true(p->n_rot == 16 && p->n_rot_window == 16 && p->n_per_layer == 0);
    for (int i = 0; i < LAYERS; i++) {
        assert_int_equal(p->layer[i].kv_from, i);
        assert_true(p->layer[i].k_dim == 16 && p->layer[i].v_dim == 16);
    }
    if (read(p, all, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(p->first_reader, 5);
    assert_true(p->n_rot == 32 && p->n_rot_window == 20 && p->n_per_layer == 12);
    assert_true(p->final_softcap == 30.0f);
    for (int i = 0; i < LAYERS; i++) {
        assert_int_equal(p->layer[i].window, i % 4 != 3);
        assert_int_equal(p->layer[i].kv_from, from[i]);
        assert_int_equal(p->layer[i].k_dim, i % 4 == 3 ? 32 : 20);
    }
    free(p);
}

static void what_cannot_be(void **state)
{
    (void)state;
    static const struct {
        said said[3];
        const char *says;
    } rows[] = {
        {{{"attention.shared_kv_layers", 8}},
         "key 'gemma3.attention.shared_kv_layers' is 8, allowed: 0 to 7"},
        {{{"attention.shared_kv_layers", -1}},
         "key 'gemma3.attention.shared_kv_layers' is -1, allowed: 0 to 7"},
        {{{"attention.shared_kv_layers", 5}},
         "layer 3 shares a cache; no earlier layer of its kind has one for 4 KV heads"},
        {{{"attention.key_length_swa", 21}},
         "head sizes 16 and 16, of windows 21 and 16: only even ones are supported"},
        {{{"attention.key_length_swa", 2048}},
         "key 'gemma3.attention.key_length_swa' is 2048, allowed: 2 to 1024"},
        {{{"rope.dimension_count_swa", 18}},
         "key 'gemma3.rope.dimension_count_swa' is 18, allowed: 0 to 16"},
        {{{"rope.dimension_count_swa", 7}},
         "rope: dimension_count 16 and 7 (even), freq_base 10000 and 10000 (positive)"},
        {{{"embedding_length_per_layer_input", 1 << 20}},
         "key 'gemma3.embedding_length_per_layer_input' is 1048576, allowed: 0 to 65536"},
    };
    cp_model_params *p = cp_xcalloc(1, sizeof *p);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cp_err err;
        assert_true(read(p, rows[i].said, &err) != CP_OK);
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
    return cmocka_run_group_tests_name("sharing", tests, NULL, NULL);
}
