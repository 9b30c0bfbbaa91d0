/* What of a file's architecture is said where it is not one that is built. */
#include "tests/support/cmocka.h"

#include "base/mem.h"
#include "model/arch.h"

#include <string.h>

/* The code for a file with these keys (type may be NULL), and the message. */
static cp_code found(const char *arch, const char *type, const cp_arch **row, cp_err *err)
{
    static const char *const keys[] = {"general.architecture", "general.type"};
    const char *const values[] = {arch, type};
    cp_meta *m = cp_meta_new();
    for (size_t i = 0; i < 2; i++) {
        if (values[i]) {
            cp_meta_kv kv = {.key = {keys[i], strlen(keys[i])}, .type = CP_META_STRING, .count = 1};
            kv.v.s = (cp_str){values[i], strlen(values[i])};
            assert_true(cp_meta_put(m, &kv));
        }
    }
    *row = NULL;
    memset(err, 0, sizeof *err);
    cp_code rc = cp_arch_find(row, m, err);
    cp_meta_free(m);
    return rc;
}

static void every_row_is_found(void **state)
{
    (void)state;
    for (const cp_arch *const *a = cp_archs; *a; a++) {
        const cp_arch *row;
        cp_err err;
        assert_int_equal(found((*a)->name, "model", &row, &err), CP_OK);
        assert_ptr_equal(row, *a);
        assert_int_equal(found((*a)->name, NULL, &row, &err), CP_OK);
    }
}

/* A family whose row is built has no place in the list of those that are not. */
static void what_is_not_built_is_named_with_what_is(void **state)
{
    (void)state;
    int n = 0;
    for (const char *arch; (arch = cp_arch_unbuilt(n)); n++) {
        const cp_arch *row;
        cp_err err;
        char quoted[80];
        assert_int_equal(found(arch, "model", &row, &err), CP_UNSUPPORTED);
        cp_snprintf(quoted, sizeof quoted, " models (architecture '%s') are not built; ", arch);
        if (!strstr(err.msg, quoted)) {
            fail_msg("%s: %s", arch, err.msg);
        }
        for (const cp_arch *const *a = cp_archs; *a; a++) {
            assert_non_null(strstr(strstr(err.msg, "supported: "), (*a)->name));
            assert_string_not_equal((*a)->name, arch);
        }
    }
    assert_true(n > 50);
}

static void messages_say_it_in_words(void **state)
{
    (void)state;
    static const struct {
        const char *arch, *type;
        cp_code rc;
        const char *says;
    } rows[] = {
        {"lfm2moe", NULL, CP_UNSUPPORTED, "LFM2 MoE models (architecture 'lfm2moe') are not built"},
        {"qwen3next", NULL, CP_UNSUPPORTED, "Qwen3-Next models"},
        {"muse-glimmer", NULL, CP_UNSUPPORTED, "Muse Glimmer models"},
        {"laguna", NULL, CP_UNSUPPORTED, "Laguna models"},
        {"frobnicate", NULL, CP_UNSUPPORTED,
         "architecture 'frobnicate' is not supported; supported: "},
        {"", NULL, CP_UNSUPPORTED, "architecture '' is not supported"},
        {"llam", NULL, CP_UNSUPPORTED, "architecture 'llam' is not supported"},
        {NULL, NULL, CP_CORRUPT, "key 'general.architecture' is missing"},
        {"clip", NULL, CP_UNSUPPORTED, "'general.architecture' is 'clip': the file is an encoder"},
        {"clip", "mmproj", CP_UNSUPPORTED, "which lies beside a model, not a model"},
        {"dflash", "model", CP_UNSUPPORTED, "a drafter (DFlash)"},
        {"eagle3", NULL, CP_UNSUPPORTED, "a drafter (EAGLE-3)"},
        {"llama", "adapter", CP_UNSUPPORTED, "'general.type' is 'adapter': the file is an adapter"},
        {"llama", "mmproj", CP_UNSUPPORTED, "give the model's own file"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const cp_arch *row;
        cp_err err;
        assert_int_equal(found(rows[i].arch, rows[i].type, &row, &err), rows[i].rc);
        if (!strstr(err.msg, rows[i].says)) {
            fail_msg("row %zu: %s", i, err.msg);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_found),
        cmocka_unit_test(what_is_not_built_is_named_with_what_is),
        cmocka_unit_test(messages_say_it_in_words),
    };
    return cmocka_run_group_tests_name("known", tests, NULL, NULL);
}
