/*
 * Hostile JSON of manifests, edits of an index, and the configs that packing writes.
 */
#include "loader/oci/store/manifest.h"
#include "loader/packagings/packaging.h"
#include "tests/unit/loader/suites.h"

#include <string.h>

#define DIGEST(c) "sha256:" c c c c c c c c c c c c c c c c
#define DA        DIGEST("aaaa")
#define DB        DIGEST("0bbb")
#define CONFIG(t) "\"config\":{\"mediaType\":\"" t "\",\"digest\":\"" DA "\",\"size\":2}"
#define HEAD      "{\"schemaVersion\":2,\"mediaType\":\"" CP_MT_OCI_MANIFEST "\","
#define LAYER(type, notes)                                                                         \
    "{\"mediaType\":\"" type "\",\"digest\":\"" DB "\",\"size\":100" notes "}"
#define PATH(key, value) ",\"annotations\":{\"" key "\":\"" value "\"}"

static void hostile_manifests(void **state)
{
    (void)state;
#define ONE(layer)  HEAD CONFIG("c") ",\"layers\":[" layer "]}"
#define SIZED(s)    ONE("{\"mediaType\":\"t\",\"digest\":\"" DB "\",\"size\":" s "}")
#define DIGESTED(d) ONE("{\"mediaType\":\"t\",\"digest\":\"" d "\",\"size\":1}")
#define NAMED(p)    ONE(LAYER("t", PATH("org.cncf.model.filepath", p)))
    static const struct {
        const char *json, *text;
    } rows[] = {
        {"", "no JSON"},
        {"[]", "no JSON object"},
        {"{\"schemaVersion\":2", "no JSON: line 1"},
        {"{\"schemaVersion\":1}", "'schemaVersion' is not 2"},
        {HEAD CONFIG("c") "}", "'layers' is no array"},
        {HEAD "\"layers\":[]}", "config: a descriptor is no object"},
        {HEAD CONFIG("c") "," CONFIG("c") ",\"layers\":[]}", "duplicate object key"},
        {HEAD CONFIG("c") ",\"layers\":[],\"manifests\":[]}", "'manifests' as well"},
        {ONE("7"), "layers[0]: a descriptor is no object"},
        {SIZED("-1"), "'size' is no integer"},
        {SIZED("1.5"), "'size' is no integer"},
        {SIZED("\"1\""), "'size' is no integer"},
        {SIZED("99999999999999999999"), "too big"},
        {SIZED("9223372036854775807},{\"mediaType\":\"t\",\"digest\":\"" DB
               "\",\"size\":9223372036854775807"),
         "overflow"},
        {DIGESTED("sha256:00"), "digest is not"},
        {DIGESTED("sha256:../../../../../../etc/passwd"), "digest is not"},
        {DIGESTED("sha256:"
                  "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
         "digest is not"},
        {DIGESTED("nonsense"), "digest is not"},
        {DIGESTED("../x:y"), "digest is not"},
        {ONE("{\"mediaType\":\"t\",\"size\":1}"), "digest is not"},
        {NAMED("/etc/passwd"), "is absolute"},
        {NAMED("a/../../x"), "leaves its folder"},
        {NAMED("a/.."), "leaves its folder"},
        {NAMED("a\\\\b"), "backslash"},
        {NAMED("a\\u0007b"), "control character"},
        {NAMED("a\\u009bb"), "control character 0x9b"},
        {NAMED("a\\u0000b"), "no JSON"},
        {ONE("{\"mediaType\":7,\"digest\":\"" DB "\",\"size\":1}"), "'mediaType' is no string"},
        {ONE("{\"mediaType\":\"t\",\"digest\":\"" DB "\",\"size\":1,\"annotations\":[]}"),
         "'annotations' is no object"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_manifest *m;
        cp_err err = {0};
        cp_code code = cp_manifest_parse(&m, rows[i].json, strlen(rows[i].json), &err);
        if (code != CP_CORRUPT || !strstr(err.msg, rows[i].text))
            fail_msg("row %zu: code %d '%s', wanted '%s'", i, code, err.msg, rows[i].text);
        assert_null(m);
    }
    /* Deep nesting and too many layers. */
    cp_buf b = {0};
    cp_manifest *m;
    for (int i = 0; i < 100000; i++)
        cp_buf_addc(&b, '[');
    assert_int_equal(cp_manifest_parse(&m, b.p, b.n, NULL), CP_CORRUPT);
    cp_buf_clear(&b);
    cp_buf_adds(&b, HEAD CONFIG("c") ",\"layers\":[");
    for (int i = 0; i < CP_MANIFEST_MAX_ITEMS; i++)
        cp_buf_adds(&b, LAYER("t", "") ",");
    cp_buf_adds(&b, LAYER("t", "") "]}");
    cp_err err = {0};
    assert_int_equal(cp_manifest_parse(&m, b.p, b.n, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "16385 entries"));
    cp_buf_clear(&b);
    for (int i = 0; i <= CP_MANIFEST_MAX_BYTES; i++)
        cp_buf_addc(&b, ' ');
    assert_int_equal(cp_manifest_parse(&m, b.p, b.n, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "the limit is"));
    cp_buf_fini(&b);
}

/* Another algorithm is not an error of the list, but such a descriptor says so. */
static void other_digest_algorithms(void **state)
{
    (void)state;
    static const char json[] =
        "{\"manifests\":[{\"mediaType\":\"t\",\"digest\":\"sha512:abcd\",\"size\":1},"
        "{\"mediaType\":\"t\",\"digest\":\"" DA "\",\"size\":1}]}";
    cp_index *x;
    assert_int_equal(cp_index_parse(&x, json, strlen(json), NULL), CP_OK);
    assert_false(x->item[0].sha256);
    assert_string_equal(x->item[0].digest, "sha512:abcd");
    assert_true(x->item[1].sha256 && x->item[1].raw[0] == 0xaa);
    cp_index_free(x);
}

static void index_edits_keep_the_rest(void **state)
{
    (void)state;
    static const char json[] =
        "{\"schemaVersion\":2,\"x-other\":{\"k\":[1,2.5]},\"manifests\":["
        "{\"mediaType\":\"t\",\"digest\":\"" DA
        "\",\"size\":1,\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"},"
        "\"annotations\":{\"org.opencontainers.image.ref.name\":\"a:1\",\"extra\":\"e\"}},"
        "{\"mediaType\":\"t\",\"digest\":\"" DA
        "\",\"size\":1,\"annotations\":{\"org.opencontainers.image.ref.name\":\"b:1\"}}]}";
    cp_buf put = {0}, drop = {0};
    cp_descriptor d = {.media_type = "m", .artifact_type = "", .digest = DB, .size = 9};
    assert_int_equal(cp_index_put(&put, json, strlen(json), "b:1", &d, NULL), CP_OK);
    assert_non_null(strstr(put.p, "\"x-other\":{\"k\":[1,2.5]}"));
    assert_non_null(strstr(put.p, "\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"}"));
    assert_non_null(strstr(put.p, "\"extra\":\"e\""));
    cp_index *x;
    assert_int_equal(cp_index_parse(&x, put.p, put.n, NULL), CP_OK);
    assert_int_equal(x->n, 2);
    assert_string_equal(x->item[1].ref_name, "b:1");
    assert_string_equal(x->item[1].digest, DB);
    assert_string_equal(x->item[0].arch, "arm64");
    cp_index_free(x);
    assert_int_equal(cp_index_drop(&drop, put.p, put.n, (const bool[]){true, false}, NULL), CP_OK);
    assert_null(strstr(drop.p, "a:1"));
    assert_non_null(strstr(drop.p, "b:1"));
    cp_buf_fini(&put);
    cp_buf_fini(&drop);
}

/* The config blobs, byte for byte: their digests are part of what users pin. */
static void configs_are_fixed(void **state)
{
    (void)state;
    cp_pack_facts f = {.digest = DA,
                       .bytes = 98362432,
                       .n_params = 134515008,
                       .arch = "llama",
                       .quant = "Q4_1",
                       .name = {"A \"b\"", 5},
                       .license = {"mit", 3}};
    cp_buf b = {0};
    cp_packaging_modelpack.config(&b, &f);
    assert_string_equal(
        b.p,
        "{\"descriptor\":{\"family\":\"llama\",\"name\":\"A \\\"b\\\"\",\"licenses\":[\"mit\"]},"
        "\"config\":{\"architecture\":\"transformer\",\"format\":\"gguf\",\"paramSize\":\"135m\","
        "\"quantization\":\"Q4_1\"},\"modelfs\":{\"type\":\"layers\",\"diffIds\":[\"" DA "\"]}}");
    cp_buf_clear(&b);
    cp_packaging_docker.config(&b, &f);
    assert_string_equal(
        b.p,
        "{\"config\":{\"format\":\"gguf\",\"quantization\":\"Q4_1\",\"parameters\":\"134.51 M\","
        "\"architecture\":\"llama\",\"size\":\"93.80 MiB\"},\"descriptor\":{},"
        "\"rootfs\":{\"type\":\"rootfs\",\"diff_ids\":[\"" DA "\"]}}");
    cp_buf_clear(&b);
    f.n_params = 6999999999;
    f.bytes = (uint64_t)5 << 30;
    cp_packaging_docker.config(&b, &f);
    assert_non_null(strstr(b.p, "\"6.99 B\""));
    assert_non_null(strstr(b.p, "\"5.00 GiB\""));
    cp_buf_clear(&b);
    cp_packaging_modelpack.config(&b, &f);
    assert_non_null(strstr(b.p, "\"7.0b\""));
    cp_buf_fini(&b);
}

int cp_suite_packagings(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_manifests),
        cmocka_unit_test(other_digest_algorithms),
        cmocka_unit_test(index_edits_keep_the_rest),
        cmocka_unit_test(configs_are_fixed),
    };
    return cmocka_run_group_tests_name("packagings", tests, NULL, NULL);
}
