/*
 * Packaging rows against manifests as the known producers write them, and hostile JSON.
 */
#include "loader/oci/manifest.h"
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
#define CNCF             "application/vnd.cncf.model."
#define CNAI             "application/vnd.cnai.model."
#define DOCKER           "application/vnd.docker.ai."

static void producers(void **state)
{
    (void)state;
    static const struct {
        const char *json, *row;
        cp_code code;
        size_t n, first;
    } rows[] = {
        {HEAD CONFIG(CNCF "config.v1+json") ",\"layers\":[" LAYER(
             CNCF "doc.v1.raw",
             PATH("org.cncf.model.filepath",
                  "README.md")) "," LAYER(CNCF "weight.v1.raw",
                                          PATH("org.cncf.model.filepath",
                                               "m.gguf")) "," LAYER(CNCF "weight.config.v1.raw",
                                                                    PATH("org.cncf.model.filepath",
                                                                         "config.json")) "]}",
         "modelpack", CP_OK, 1, 1},
        {HEAD "\"artifactType\":\"" CNAI
              "manifest.v1+json\"," CONFIG(CNAI "config.v1+json") ",\"layers\":[" LAYER(
                  CNAI "weight.v1.raw", PATH("org.cnai.model.filepath", "../../m.gguf")) "]}",
         "modelpack", CP_OK, 1, 0},
        {HEAD CONFIG(CNCF "config.v1+json") ",\"layers\":[" LAYER(CNCF "weight.v1.gguf", "") "]}",
         "modelpack", CP_OK, 1, 0},
        {HEAD CONFIG(CNCF "config.v1+json") ",\"layers\":[" LAYER(CNCF "weight.v1.raw", "") "]}",
         "modelpack", CP_OK, 1, 0},
        /* RamaLama: the artifact type alone, octet-stream layers. */
        {HEAD
         "\"artifactType\":\"" CNCF
         "manifest.v1+json\"," CONFIG("application/vnd.oci.empty.v1+json") ",\"layers\":[" LAYER(
             "text/plain; charset=utf-8",
             PATH("org.opencontainers.image.title",
                  "t.json")) "," LAYER("application/octet-stream",
                                       PATH("org.opencontainers.image.title", "x.gguf")) "]}",
         "modelpack", CP_OK, 1, 1},
        /* A projector beside the model. */
        {HEAD CONFIG(CNCF "config.v1+json") ",\"layers\":[" LAYER(
             CNCF "weight.v1.raw",
             PATH("org.cncf.model.filepath",
                  "a/mmproj-F16.gguf")) "," LAYER(CNCF "weight.v1.raw",
                                                  PATH("org.cncf.model.filepath", "a/m.gguf")) "]}",
         "modelpack", CP_OK, 1, 1},
        {HEAD CONFIG(CNCF "config.v1+json") ",\"layers\":[" LAYER(
             CNCF "weight.v1.tar", PATH("org.cncf.model.filepath", "m.gguf")) "]}",
         "modelpack", CP_OK, 1, 0},
        {HEAD CONFIG(CNCF "config.v1+json") ",\"layers\":[" LAYER(
             CNCF "weight.v1.raw", PATH("org.cncf.model.filepath", "m.safetensors")) "]}",
         "modelpack", CP_UNSUPPORTED, 0, 0},
        {HEAD CONFIG(CNCF "config.v1+json") ",\"layers\":[]}", "modelpack", CP_CORRUPT, 0, 0},
        {HEAD CONFIG(DOCKER "model.config.v0.1+json") ",\"layers\":[" LAYER(
             DOCKER "license", "") "," LAYER(DOCKER "gguf.v3",
                                             "") "," LAYER(DOCKER "mmproj",
                                                           "") "," LAYER(DOCKER "gguf.v3", "") "]}",
         "docker", CP_OK, 2, 1},
        {"{\"schemaVersion\":2," CONFIG(DOCKER "model.config.v1+json") ",\"layers\":[" LAYER(
             DOCKER "model.file.v1+gguf", "") "]}",
         "docker", CP_OK, 1, 0},
        {HEAD CONFIG(DOCKER "model.config.v0.2+json") ",\"layers\":[" LAYER(DOCKER "safetensors",
                                                                            "") "]}",
         "docker", CP_UNSUPPORTED, 0, 0},
        {HEAD CONFIG("application/vnd.oci.image.config.v1+json") ",\"layers\":[" LAYER(
             "application/vnd.oci.image.layer.v1.tar", "") "]}",
         "image", CP_OK, 1, 0},
        {HEAD CONFIG("application/vnd.cncf.helm.config.v1+json") ",\"layers\":[" LAYER("t",
                                                                                       "") "]}",
         NULL, CP_OK, 0, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_manifest *m;
        cp_err err = {0};
        cp_plan plan;
        if (cp_manifest_parse(&m, rows[i].json, strlen(rows[i].json), &err))
            fail_msg("row %zu: %s", i, err.msg);
        const cp_packaging *row = cp_packaging_of(m);
        if (rows[i].row) {
            assert_non_null(row);
            assert_string_equal(row->name, rows[i].row);
            const cp_packaging *chosen;
            assert_int_equal(cp_packaging_plan(m, &chosen, &plan, &err), rows[i].code);
            size_t n = 0, first = 0;
            for (size_t k = plan.n; k-- > 0;)
                if (plan.layer[k].role == CP_ROLE_WEIGHTS) {
                    n++;
                    first = k;
                }
            if (rows[i].code == CP_OK)
                assert_true(n == rows[i].n && first == rows[i].first);
            cp_plan_fini(&plan);
        } else {
            assert_null(row);
        }
        cp_manifest_free(m);
    }
}

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
    assert_string_equal(x->item[0].digest, "");
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
        cmocka_unit_test(producers),
        cmocka_unit_test(hostile_manifests),
        cmocka_unit_test(other_digest_algorithms),
        cmocka_unit_test(index_edits_keep_the_rest),
        cmocka_unit_test(configs_are_fixed),
    };
    return cmocka_run_group_tests_name("packagings", tests, NULL, NULL);
}
