/*
 * References: every row of the grammar, and what it refuses.
 */
#include "loader/oci/reference.h"
#include "tests/unit/loader/suites.h"

#include <string.h>

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static bool exists_dir_model(const char *path)
{
    return strcmp(path, "dir/model") == 0;
}

static void paths_and_layouts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        cp_ref_kind kind;
        const char *path, *ref_name;
    } rows[] = {
        {"/a/b", CP_REF_PATH, "/a/b", ""},
        {"./x", CP_REF_PATH, "./x", ""},
        {"../x:y", CP_REF_PATH, "../x:y", ""},
        {"file:rel/x", CP_REF_PATH, "rel/x", ""},
        {"file:/abs/x", CP_REF_PATH, "/abs/x", ""},
        {"file:///abs/x", CP_REF_PATH, "/abs/x", ""},
        {"Some Model.gguf", CP_REF_PATH, "Some Model.gguf", ""},
        {"ghcr.io/org/model.gguf", CP_REF_PATH, "ghcr.io/org/model.gguf", ""},
        {"dir/model", CP_REF_PATH, "dir/model", ""},
        {"oci:dir", CP_REF_LAYOUT, "dir", ""},
        {"oci:/a/b:name:tag", CP_REF_LAYOUT, "/a/b", "name:tag"},
        {"oci:/a/b:x.gguf", CP_REF_LAYOUT, "/a/b", "x.gguf"},
        {"oci:d@sha256:ab", CP_REF_LAYOUT, "d@sha256", "ab"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_ref r;
        assert_int_equal(cp_ref_parse(&r, rows[i].text, NULL, exists_dir_model, NULL), CP_OK);
        assert_int_equal(r.kind, rows[i].kind);
        assert_string_equal(r.path, rows[i].path);
        assert_string_equal(r.ref_name, rows[i].ref_name);
    }
}

static void names(void **state)
{
    (void)state;
    static const struct {
        const char *text, *default_registry, *typed, *canonical, *digest;
    } rows[] = {
        {"smollm2", NULL, "smollm2:latest", "docker.io/ai/smollm2:latest", ""},
        {"smollm2:135M-Q4_1", NULL, "smollm2:135M-Q4_1", "docker.io/ai/smollm2:135M-Q4_1", ""},
        {"ai/smollm2", NULL, "ai/smollm2:latest", "docker.io/ai/smollm2:latest", ""},
        {"docker.io/ai/smollm2:x", NULL, "docker.io/ai/smollm2:x", "docker.io/ai/smollm2:x", ""},
        {"index.docker.io/ai/a", NULL, "index.docker.io/ai/a:latest", "docker.io/ai/a:latest", ""},
        {"docker://ai/a:b", NULL, "ai/a:b", "docker.io/ai/a:b", ""},
        {"oci://ghcr.io/o/m:1", NULL, "ghcr.io/o/m:1", "ghcr.io/o/m:1", ""},
        {"localhost/m", NULL, "localhost/m:latest", "localhost/m:latest", ""},
        {"localhost:5000/m:t", NULL, "localhost:5000/m:t", "localhost:5000/m:t", ""},
        {"host:5000/m", NULL, "host:5000/m:latest", "host:5000/m:latest", ""},
        {"[::1]:5000/a/b", NULL, "[::1]:5000/a/b:latest", "[::1]:5000/a/b:latest", ""},
        {"org/m", "reg.example:443", "org/m:latest", "reg.example:443/org/m:latest", ""},
        {"m", "ghcr.io", "m:latest", "ghcr.io/ai/m:latest", ""},
        {"m@sha256:" HEX, NULL, "m:latest", "docker.io/ai/m:latest", "sha256:" HEX},
        {"a/m:t@sha256:" HEX, NULL, "a/m:t", "docker.io/a/m:t", "sha256:" HEX},
        {"m:5000", NULL, "m:5000", "docker.io/ai/m:5000", ""},
        {"a.b/c__d/e--f_g.h:_T.-", NULL, "a.b/c__d/e--f_g.h:_T.-", "a.b/c__d/e--f_g.h:_T.-", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_ref r;
        cp_err err = {0};
        if (cp_ref_parse(&r, rows[i].text, rows[i].default_registry, exists_dir_model, &err))
            fail_msg("%s: %s", rows[i].text, err.msg);
        assert_int_equal(r.kind, CP_REF_NAME);
        assert_string_equal(r.typed, rows[i].typed);
        assert_string_equal(r.canonical, rows[i].canonical);
        assert_string_equal(r.digest, rows[i].digest);
    }
}

static void refusals(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "",
        ":tag",
        "@sha256:" HEX,
        "m:",
        "m:-t",
        "m:.t",
        "m:a b",
        "M",
        "a/B",
        "a//b",
        "/",
        "a/",
        "m@sha256:12",
        "m@sha256:" HEX "0",
        "m@md5:00",
        "m@",
        "m..x",
        "m-",
        "_m",
        "a/.b",
        "x___y",
        "oci:",
        "oci:dir:",
        "file:",
        "oci://",
        "docker://A/b",
        "h.:5/x",
        "-h.io/x",
        "h.io:/x",
        "h.io:123456/x",
        "h.io:x/y",
        "[::1/x",
        "[]/x",
        ".io/x",
        "a.b-/c",
        "m\n",
        "m:t\n",
        "m m",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_ref r;
        cp_err err = {0};
        if (strcmp(rows[i], "/") == 0)
            continue; /* a path */
        if (cp_ref_parse(&r, rows[i], NULL, exists_dir_model, &err) != CP_USAGE)
            fail_msg("'%s' was taken", rows[i]);
        assert_true(err.msg[0] != '\0');
    }
    /* Lengths: 256 and more never fit, and never overrun. */
    for (size_t n = 200; n < 5000; n = n < 400 ? n + 1 : n + 997) {
        static char text[5100];
        cp_ref r;
        memset(text, 'a', n);
        text[n] = '\0';
        cp_code code = cp_ref_parse(&r, text, NULL, exists_dir_model, NULL);
        assert_int_equal(code, n <= 255 - strlen("docker.io/ai/:latest") ? CP_OK : CP_USAGE);
        memcpy(text, "oci:d:", 6);
        assert_int_equal(cp_ref_parse(&r, text, NULL, NULL, NULL), n <= 6 + 255 ? CP_OK : CP_USAGE);
        memcpy(text, "./aaaa", 6);
        assert_int_equal(cp_ref_parse(&r, text, NULL, NULL, NULL), n <= 4095 ? CP_OK : CP_USAGE);
    }
}

/* What other tools take: refused, with what to do. */
static void other_tools_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"oci-archive:arch.tar", "oci:DIR"},
        {"oci-archive:arch.tar:m1", "oci:DIR"},
        {"oci-archive:/a/b.gguf", "oci:DIR"},
        {"docker-archive:x.tar", "oci:DIR"},
        {"docker-archive:/x/y.tar:n:t", "oci:DIR"},
        {"dir:/x", "oci:DIR"},
        {"dir:x", "oci:DIR"},
        {"docker-daemon:n:t", "oci:DIR"},
        {"containers-storage:localhost/n", "oci:DIR"},
        {"ollama://llama3.2", "registry.ollama.ai/library/NAME:TAG"},
        {"hf://o/R/x.gguf", "download"},
        {"huggingface://o/R", "download"},
        {"https://huggingface.co/o/R/x.gguf", "download"},
        {"HTTPS://ghcr.io/o/m", "HOST[:PORT]/NAME:TAG"},
        {"http://reg.lan:5000/o/m", "--plain-http"},
        {"s3://bucket/m.gguf", "docker://NAME"},
        {"DOCKER://m", "docker://NAME"},
        {"oras://ghcr.io/o/m:1", "HOST[:PORT]/NAME:TAG"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_ref r;
        cp_err err = {0};
        if (cp_ref_parse(&r, rows[i].text, NULL, exists_dir_model, &err) != CP_USAGE ||
            !strstr(err.msg, rows[i].says))
            fail_msg("'%s': %s", rows[i].text, err.msg);
        err = (cp_err){0};
        if (cp_ref_parse_name(&r, rows[i].text, NULL, &err) != CP_USAGE ||
            !strstr(err.msg, rows[i].says))
            fail_msg("'%s' as a name: %s", rows[i].text, err.msg);
    }
    cp_ref r;
    assert_int_equal(cp_ref_parse(&r, "docker://dir:x", NULL, NULL, NULL), CP_OK);
    assert_string_equal(r.canonical, "docker.io/ai/dir:x");
    assert_int_equal(cp_ref_parse(&r, "./dir:x", NULL, NULL, NULL), CP_OK);
    assert_int_equal(r.kind, CP_REF_PATH);
}

static void pack_names_are_never_paths(void **state)
{
    (void)state;
    cp_ref r;
    assert_int_equal(cp_ref_parse_name(&r, "dir/model", NULL, NULL), CP_OK);
    assert_string_equal(r.typed, "dir/model:latest");
    assert_int_equal(cp_ref_parse_name(&r, "./x", NULL, NULL), CP_USAGE);
    assert_int_equal(cp_ref_parse_name(&r, "oci:x", NULL, NULL), CP_OK); /* name "oci", tag "x" */
}

int cp_suite_reference(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_and_layouts),
        cmocka_unit_test(names),
        cmocka_unit_test(refusals),
        cmocka_unit_test(other_tools_forms),
        cmocka_unit_test(pack_names_are_never_paths),
    };
    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
