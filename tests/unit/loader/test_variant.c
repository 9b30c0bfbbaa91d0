/*
 * Choosing from an index, over JSON as the known producers write it.
 */
#include "loader/oci/content/choice.h"
#include "tests/unit/loader/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define D(c) "sha256:" c c c c c c c c c c c c c c c c
#define E(c, more)                                                                                 \
    "{\"mediaType\":\"" CP_MT_OCI_MANIFEST "\",\"digest\":\"" D(c) "\",\"size\":9" more "}"
#define ON(os, arch) ",\"platform\":{\"os\":\"" os "\",\"architecture\":\"" arch "\"}"
#define NOTE(k, v)   ",\"annotations\":{\"" k "\":\"" v "\"}"
#define KIT(q, vram) ",\"modelMetadata\":{\"quantization\":\"" q "\",\"vram\":\"" vram "\",\"n\":1}"
#define INDEX(list)  "{\"schemaVersion\":2,\"manifests\":[" list "]}"

static const char kit[] = INDEX(E("0001", KIT("q4_0", "6GB")) "," E(
    "0002", KIT("q8_0", "9.5 GB")) "," E("0003", KIT("f16", "16GiB")));
static const char multi[] =
    INDEX(E("0001", ON("linux", "arm64")) "," E("0002", ON("linux", "amd64")) "," E(
        "0003", ON("unknown", "unknown")
                    NOTE("vnd.docker.reference.type",
                         "attestation-manifest")) "," E("0004", ON("windows", "amd64")));
static const char olot[] = INDEX(E("0001", ON("linux", "amd64")) "," E(
    "0002", ON("unknown", "unknown") NOTE("io.opendatahub.modelcar.manifest.type", "modelpack")));
static const char named[] =
    INDEX(E("0001", NOTE("org.opencontainers.image.ref.name", "small")) "," E(
        "0002", NOTE("org.opencontainers.image.ref.name", "large")));
#define CPU(os, arch, cpu)                                                                         \
    ",\"platform\":{\"os\":\"" os "\",\"architecture\":\"" arch "\",\"variant\":\"" cpu "\"}"
static const char cpus[] =
    INDEX(E("0001", CPU("linux", "arm64", "v8")) "," E("0002", CPU("linux", "arm64", "v9")) "," E(
        "0003", ON("linux", "arm")) "," E("0004", CPU("linux", "arm",
                                                      "v6")) "," E("0005",
                                                                   CPU("linux", "amd64", "v3")));
static const char attested[] = INDEX(E("0001", ON("linux", "riscv64")) "," E(
    "0002", ON("unknown", "unknown") NOTE("vnd.docker.reference.type", "x")));

static void choices(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        cp_variant_wish w;
        cp_code code;
        size_t item;
        const char *text; /* of why, or of the error */
    } rows[] = {
        {kit, {0}, CP_OK, 2, "quantization=f16 taken of 3: the largest (16384 MiB), no limit"},
        {kit,
         {.memory_budget = 10000000000},
         CP_OK,
         1,
         "quantization=q8_0 taken of 3: the largest "
         "(9059 MiB) that fits into 9536 MiB"},
        {kit, {.memory_budget = 6000000000}, CP_OK, 0, "quantization=q4_0"},
        {kit,
         {.memory_budget = 5999999999},
         CP_NO_MEMORY,
         0,
         "none of 3 variants fits into 5722 MiB: quantization=q4_0 (5722 MiB), "},
        {kit, {.variant = "Q8_0"}, CP_OK, 1, "quantization=q8_0 taken of 3: named by --variant"},
        {kit, {.variant = "quantization=q4_0"}, CP_OK, 0, "named by --variant"},
        {kit, {.variant = "vram=16gib", .memory_budget = 1}, CP_OK, 2, "named by --variant"},
        {kit, {.variant = D("0002")}, CP_OK, 1, "named by --variant"},
        {kit, {.variant = "n=1", .memory_budget = 7000000000}, CP_OK, 0, "quantization=q4_0"},
        {kit, {.variant = "q5"}, CP_NOT_FOUND, 0, "no variant 'q5'; there are: quantization=q4_0"},
        {kit, {.variant = "vram=q4_0"}, CP_NOT_FOUND, 0, "no variant"},
        {multi, {.os = "linux", .arch = "amd64"}, CP_OK, 1, "taken of 4: for linux/amd64"},
        {multi, {.os = "linux", .arch = "arm64"}, CP_OK, 0, "linux/arm64 taken of 4"},
        {multi, {.os = "windows", .arch = "amd64"}, CP_OK, 3, "windows/amd64"},
        {multi,
         {.os = "linux", .arch = "s390x"},
         CP_NOT_FOUND,
         0,
         "no entry for linux/s390x; there are: linux/arm64, linux/amd64, windows/amd64"},
        {olot, {.os = "linux", .arch = "amd64"}, CP_OK, 0, "linux/amd64"},
        {olot, {.variant = "modelpack"}, CP_OK, 1, "named by --variant"},
        {olot, {.os = "linux", .arch = "arm64"}, CP_NOT_FOUND, 0, "no entry for linux/arm64"},
        {named,
         {0},
         CP_USAGE,
         0,
         "2 entries match and nothing tells their sizes; name one as "
         "variant: small, large"},
        {named, {.variant = "large"}, CP_OK, 1, "large taken of 2: named by --variant"},
        /* The only one, whatever it is for. */
        {attested, {0}, CP_OK, 0, "linux/riscv64 taken of 2: the only one; it is not for linux/"},
        {INDEX(E("0001", ON("linux", "riscv64"))),
         {0},
         CP_OK,
         0,
         "variant linux/riscv64 taken of 1: the only one; it is not for linux/"},
        {INDEX(E("0001", ON("plan9", "amd64"))), {0}, CP_OK, 0, "the only one; it is not for"},
        {INDEX(E("0001", "") "," E("0002", ON("linux", "riscv64"))),
         {0},
         CP_OK,
         0,
         "taken of 2: the only one for any platform"},
        {INDEX(E("0001", ON("linux", "s390x")) "," E("0002", ON("unknown", "unknown"))),
         {0},
         CP_OK,
         1,
         "taken of 2: the only one for any platform"},
        {INDEX(E("0001", ON("linux", "s390x")) "," E("0002", ON("linux", "riscv64"))),
         {0},
         CP_NOT_FOUND,
         0,
         "no entry for linux/"},
        /* Named and for a platform: both narrowed it. */
        {INDEX(E("0001", ON("linux", "s390x") NOTE("q", "a")) "," E(
             "0002", ON("linux", "amd64") NOTE("q", "a")) "," E("0003", ON("linux", "amd64"))),
         {.variant = "a", .os = "linux", .arch = "amd64"},
         CP_OK,
         1,
         "taken of 3: named by --variant, for linux/amd64"},
        /* A variant of the architecture: v8 is what arm64 means, v7 what arm does, v1 amd64. */
        {cpus,
         {.os = "linux", .arch = "arm64"},
         CP_OK,
         0,
         "linux/arm64/v8 taken of 5: for linux/arm64"},
        {cpus, {.os = "linux", .arch = "arm64", .cpu = "v8"}, CP_OK, 0, "for linux/arm64/v8"},
        {cpus, {.os = "linux", .arch = "arm64", .cpu = "v9"}, CP_OK, 1, "for linux/arm64/v9"},
        {cpus, {.os = "linux", .arch = "arm", .cpu = "v7"}, CP_OK, 2, "for linux/arm/v7"},
        {cpus, {.os = "linux", .arch = "arm"}, CP_OK, 2, "for linux/arm"},
        {cpus, {.os = "linux", .arch = "arm", .cpu = "v6"}, CP_OK, 3, "for linux/arm/v6"},
        /* The model is data: without a wish for one, another variant of the machine is as good. */
        {cpus,
         {.os = "linux", .arch = "amd64"},
         CP_OK,
         4,
         "linux/amd64/v3 taken of 5: for linux/amd64"},
        {cpus,
         {.os = "linux", .arch = "amd64", .cpu = "v2"},
         CP_NOT_FOUND,
         0,
         "no entry for linux/amd64/v2; there are: linux/arm64/v8, linux/arm64/v9, linux/arm, "
         "linux/arm/v6, linux/amd64/v3"},
        {multi, {.os = "linux", .arch = "arm64", .cpu = "v8"}, CP_OK, 0, "for linux/arm64/v8"},
        {multi, {.os = "linux", .arch = "amd64", .cpu = "v1"}, CP_OK, 1, "for linux/amd64/v1"},
        {multi, {.os = "linux", .arch = "arm64", .cpu = "v9"}, CP_NOT_FOUND, 0, "no entry for"},
        {attested, {.os = "linux", .arch = "amd64"}, CP_NOT_FOUND, 0, "linux/riscv64"},
        {INDEX(""), {0}, CP_NOT_FOUND, 0, "nor any other"},
        {INDEX(E("0001", "")), {0}, CP_OK, 0, ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_index *x;
        cp_err err = {0};
        char why[256];
        size_t item = 0;
        assert_int_equal(cp_index_parse(&x, rows[i].json, strlen(rows[i].json), NULL), CP_OK);
        cp_code code = cp_variant_choose(x, &rows[i].w, &item, why, &err);
        const char *text = code ? err.msg : why;
        if (code != rows[i].code || item != rows[i].item || !strstr(text, rows[i].text))
            fail_msg("row %zu: code %d entry %zu '%s'", i, code, item, text);
        cp_index_free(x);
    }
}

/* Without metadata the sizes of the models decide, once somebody has told them. */
static void by_model_bytes(void **state)
{
    (void)state;
    cp_index *x;
    char why[256];
    size_t item;
    const cp_variant_wish tight = {.memory_budget = 150 << 20};
    assert_int_equal(cp_index_parse(&x, named, strlen(named), NULL), CP_OK);
    assert_true(cp_variant_needs_bytes(x, NULL, 0) && cp_variant_needs_bytes(x, NULL, 1));
    x->item[0].model_bytes = 100 << 20;
    assert_false(cp_variant_needs_bytes(x, NULL, 0));
    x->item[1].model_bytes = 200 << 20;
    assert_int_equal(cp_variant_choose(x, NULL, &item, why, NULL), CP_OK);
    assert_int_equal(item, 1);
    assert_int_equal(cp_variant_choose(x, &tight, &item, why, NULL), CP_OK);
    assert_int_equal(item, 0);
    assert_string_equal(why,
                        "variant small taken of 2: the largest (100 MiB) that fits into 150 MiB");
    cp_index_free(x);
    assert_int_equal(cp_index_parse(&x, multi, strlen(multi), NULL), CP_OK);
    const cp_variant_wish arm = {.os = "linux", .arch = "arm64"};
    for (size_t i = 0; i < x->n; i++)
        assert_false(cp_variant_needs_bytes(x, &arm, i));
    cp_index_free(x);
}

/* Files of one artifact: a request, else what is here, else all; the largest that fits. */
static void among_files(void **state)
{
    (void)state;
    static const struct {
        const char *files; /* NAME:SIZE, with ! before what is not here */
        cp_variant_wish w;
        cp_code code;
        const char *kept, *text; /* one of "+-" a file; of why, or of the error */
    } rows[] = {
        {"m-Q4_0.gguf:4 m-Q8_0.gguf:8",
         {0},
         CP_OK,
         "-+",
         "variant m-Q8_0 taken of 2: the largest (0 MiB), no limit is set"},
        {"m-Q4_0.gguf:4 m-Q8_0.gguf:8", {.memory_budget = 7}, CP_OK, "+-", "fits into"},
        {"m-Q4_0.gguf:4 m-Q8_0.gguf:8", {.memory_budget = 3}, CP_NO_MEMORY, "", "none of 2"},
        {"m-Q4_0.gguf:4 m-Q8_0.gguf:8",
         {.variant = "q4_0"},
         CP_OK,
         "+-",
         "variant m-Q4_0 taken of 2: named by --variant"},
        {"m-Q4_0.gguf:4 m-Q8_0.gguf:8",
         {.variant = "quant=Q4_0"},
         CP_OK,
         "+-",
         "named by --variant"},
        {"m-Q4_0.gguf:4 m-Q8_0.gguf:8", {.variant = "m-Q8_0"}, CP_OK, "-+", "named by --variant"},
        {"m-Q4_0.gguf:4 m-Q8_0.gguf:8",
         {.variant = "file=m-q8_0.gguf"},
         CP_OK,
         "-+",
         "named by --variant"},
        {"m-Q4_0.gguf:4 m-Q8_0.gguf:8",
         {.variant = "Q5_0"},
         CP_NOT_FOUND,
         "",
         "no variant 'Q5_0'; there are: m-Q4_0 (0 MiB), m-Q8_0 (0 MiB)"},
        /* In any letters, between any marks, the last one in the name. */
        {"a/x.iq4_xs.gguf:4 a/x_bf16.gguf:8",
         {.variant = "BF16"},
         CP_OK,
         "-+",
         "named by --variant"},
        {"Qwen3-F16-UD-Q2_K_XL.gguf:2 Qwen3-mxfp4.gguf:4",
         {.variant = "Q2_K_XL"},
         CP_OK,
         "+-",
         "named by --variant"},
        /* Shards are one; all of them are taken or none. */
        {"m-Q4_0-00001-of-00002.gguf:4 m-Q4_0-00002-of-00002.gguf:4 m-F16.gguf:7",
         {0},
         CP_OK,
         "++-",
         "variant m-Q4_0 taken of 2"},
        {"m-Q4_0-00001-of-00002.gguf:4 m-Q4_0-00002-of-00002.gguf:4 m-F16.gguf:7",
         {.variant = "f16"},
         CP_OK,
         "--+",
         "named by --variant"},
        {"m-Q4_0-00001-of-00002.gguf:4 m-Q4_0-00002-of-00002.gguf:4", {0}, CP_OK, "++", ""},
        /* What lies here comes first, but for a request. */
        {"m-Q4_0.gguf:4 !m-Q8_0.gguf:8", {0}, CP_OK, "+-", ""},
        {"!m-Q4_0.gguf:4 !m-Q8_0.gguf:8", {0}, CP_OK, "-+", "taken of 2"},
        {"m-Q4_0.gguf:4 !m-Q8_0.gguf:8", {.variant = "q8_0"}, CP_NOT_FOUND, "", "'m-Q8_0' is not"},
        /* Names that do not tell may be shards: all stay, unless one is asked for. */
        {"a.gguf:4 b.gguf:8", {0}, CP_OK, "++", ""},
        {"a.gguf:4 b.gguf:8", {.variant = "c"}, CP_OK, "++", ""},
        {"a.gguf:4 b.gguf:8", {.variant = "b"}, CP_OK, "-+", "named by --variant"},
        {"a-Q4_0.gguf:4 b-Q4_0.gguf:8", {0}, CP_OK, "++", ""},
        {"a-Q4_0.gguf:4 b.gguf:8", {0}, CP_OK, "++", ""},
        /* Other things stay. */
        {"m-Q4_0.gguf:4 weights.tar:9 m-Q8_0.gguf:8",
         {.variant = "Q4_0"},
         CP_OK,
         "++-",
         "named by"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_choice_file f[4];
        char text[200], kept[5] = "", why[256], *rest = NULL;
        cp_err err = {0};
        size_t n = 0;
        cp_strcopy(text, sizeof(text), rows[i].files);
        for (char *p = strtok_r(text, " ", &rest); p; p = strtok_r(NULL, " ", &rest), n++) {
            char *colon = strchr(p, ':');
            *colon = '\0';
            f[n] = (cp_choice_file){
                .path = p + (*p == '!'), .size = strtoul(colon + 1, NULL, 10), .here = *p != '!'};
        }
        cp_code code = cp_choice_among(f, n, &rows[i].w, why, &err);
        for (size_t k = 0; k < n && !code; k++)
            kept[k] = f[k].keep ? '+' : '-';
        kept[code ? 0 : n] = '\0';
        const char *said = code ? err.msg : why;
        if (code != rows[i].code || strcmp(kept, rows[i].kept) != 0 ||
            !strstr(said, rows[i].text) || (!rows[i].text[0] && said[0]))
            fail_msg("row %zu: code %d kept %s '%s'", i, code, kept, said);
    }
}

static void too_many(void **state)
{
    (void)state;
    cp_buf b = {0};
    cp_index *x;
    cp_err err = {0};
    char why[256];
    size_t item;
    cp_buf_adds(&b, "{\"manifests\":[" E("0001", ""));
    for (int i = 0; i < CP_VARIANTS_MAX; i++)
        cp_buf_adds(&b, "," E("0001", ""));
    cp_buf_adds(&b, "]}");
    assert_int_equal(cp_index_parse(&x, b.p, b.n, NULL), CP_OK);
    assert_int_equal(cp_variant_choose(x, NULL, &item, why, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "an index of 1025 entries"));
    assert_false(cp_variant_needs_bytes(x, NULL, 0));
    cp_index_free(x);
    cp_buf_fini(&b);
}

static void platforms(void **state)
{
    (void)state;
    char buf[64];
    cp_variant_wish w = {0};
    assert_int_equal(cp_variant_platform(&w, buf, NULL, NULL), CP_OK);
    assert_null(w.os);
    assert_int_equal(cp_variant_platform(&w, buf, "linux/arm64", NULL), CP_OK);
    assert_string_equal(w.os, "linux");
    assert_string_equal(w.arch, "arm64");
    assert_null(w.cpu);
    assert_int_equal(cp_variant_platform(&w, buf, "linux/arm64/v8", NULL), CP_OK);
    assert_string_equal(w.os, "linux");
    assert_string_equal(w.arch, "arm64");
    assert_string_equal(w.cpu, "v8");
    /* As `uname -m` says it. */
    assert_int_equal(cp_variant_platform(&w, buf, "linux/x86_64", NULL), CP_OK);
    assert_string_equal(w.arch, "amd64");
    assert_int_equal(cp_variant_platform(&w, buf, "linux/aarch64/v9", NULL), CP_OK);
    assert_string_equal(w.arch, "arm64");
    assert_string_equal(w.cpu, "v9");
    static const char *const bad[] = {"linux",     "/arm64",       "linux/",          "/",
                                      "linux//v8", "linux/arm64/", "linux/arm64/v8/x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(cp_variant_platform(&w, buf, bad[i], NULL), CP_USAGE);
}

int cp_suite_variant(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices),  cmocka_unit_test(by_model_bytes), cmocka_unit_test(among_files),
        cmocka_unit_test(too_many), cmocka_unit_test(platforms),
    };
    return cmocka_run_group_tests_name("variant", tests, NULL, NULL);
}
