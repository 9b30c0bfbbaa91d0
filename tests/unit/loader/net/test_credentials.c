/*
 * Files of credentials, their keys, helpers and the order of places.
 */
#include "base/mem.h"
#include "loader/oci/remote/base64.h"
#include "loader/oci/remote/credentials.h"
#include "loader/oci/remote/helper.h"
#include "tests/unit/loader/net/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* "-" stands for NULL. */
static bool same(const char *s, const char *expect)
{
    return strcmp(expect, "-") == 0 ? s == NULL : s && strcmp(s, expect) == 0;
}

/* YTpi = a:b, YzpkOmU= = c:d:e, dTo= = u: */
static void files(void **state)
{
    (void)state;
    static const struct {
        const char *json, *registry, *repository;
        const char *user, *password, *identity, *registry_token, *helper, *server;
    } row[] = {
        {"{\"auths\":{\"q.io\":{\"auth\":\"YTpi\"}}}", "q.io", "x", "a", "b", "-", "-", "", ""},
        {"{\"auths\":{\"q.io\":{\"auth\":\"YzpkOmU=\"}}}", "q.io", "x", "c", "d:e", "-", "-", "",
         ""},
        {"{\"auths\":{\"https://q.io/v2/\":{\"auth\":\"YTpi\"}}}", "q.io", "x", "a", "b", "-", "-",
         "", ""},
        {"{\"auths\":{\"HTTPS://Q.io\":{\"username\":\"a\",\"password\":\"b\"}}}", "q.io", "x", "a",
         "b", "-", "-", "", ""},
        {"{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"YTpi\"}}}", "docker.io", "ai/x",
         "a", "b", "-", "-", "", ""},
        {"{\"auths\":{\"registry-1.docker.io\":{\"auth\":\"YTpi\"}}}", "docker.io", "ai/x", "a",
         "b", "-", "-", "", ""},
        /* another port, another host, a longer name */
        {"{\"auths\":{\"q.io:5\":{\"auth\":\"YTpi\"}}}", "q.io", "x", "-", "-", "-", "-", "",
         "q.io"},
        {"{\"auths\":{\"q.io\":{\"auth\":\"YTpi\"}}}", "q.io:5", "x", "-", "-", "-", "-", "",
         "q.io:5"},
        {"{\"auths\":{\"q.i\":{\"auth\":\"YTpi\"}}}", "q.io", "x", "-", "-", "-", "-", "", "q.io"},
        /* the most specific path */
        {"{\"auths\":{\"q.io\":{\"auth\":\"YTpi\"},\"q.io/ns/r\":{\"auth\":\"YzpkOmU=\"}}}", "q.io",
         "ns/r", "c", "d:e", "-", "-", "", ""},
        {"{\"auths\":{\"q.io/ns\":{\"auth\":\"YzpkOmU=\"},\"q.io\":{\"auth\":\"YTpi\"}}}", "q.io",
         "ns/r/s", "c", "d:e", "-", "-", "", ""},
        {"{\"auths\":{\"q.io/ns\":{\"auth\":\"YzpkOmU=\"},\"q.io\":{\"auth\":\"YTpi\"}}}", "q.io",
         "nss/r", "a", "b", "-", "-", "", ""},
        /* tokens */
        {"{\"auths\":{\"q.io\":{\"auth\":\"dTo=\",\"identitytoken\":\"i\"}}}", "q.io", "x", "u", "",
         "i", "-", "", ""},
        {"{\"auths\":{\"q.io\":{\"registrytoken\":\"r\"}}}", "q.io", "x", "-", "-", "-", "r", "",
         ""},
        /* helpers */
        {"{\"credsStore\":\"desktop\",\"auths\":{\"q.io\":{}}}", "q.io", "x", "-", "-", "-", "-",
         "desktop", "q.io"},
        {"{\"credsStore\":\"desktop\",\"auths\":{\"q.io\":{\"auth\":\"YTpi\"}}}", "q.io", "x", "a",
         "b", "-", "-", "", ""},
        {"{\"credsStore\":\"d\",\"credHelpers\":{\"q.io\":\"ecr-login\"}}", "q.io", "x", "-", "-",
         "-", "-", "ecr-login", "q.io"},
        {"{\"credHelpers\":{\"docker.io\":\"h\"}}", "docker.io", "x", "-", "-", "-", "-", "h",
         "https://index.docker.io/v1/"},
        {"{\"credHelpers\":{\"other.io\":\"h\"}}", "q.io", "x", "-", "-", "-", "-", "", "q.io"},
        /* .dockercfg */
        {"{\"https://q.io/v1/\":{\"auth\":\"YTpi\",\"email\":\"e\"}}", "q.io", "x", "a", "b", "-",
         "-", "", ""},
        /* nothing of use */
        {"{}", "q.io", "x", "-", "-", "-", "-", "", "q.io"},
        {"{\"auths\":[]}", "q.io", "x", "-", "-", "-", "-", "", "q.io"},
        {"{\"auths\":{\"q.io\":7}}", "q.io", "x", "-", "-", "-", "-", "", "q.io"},
        {"{\"auths\":{\"q.io\":{\"username\":\"a\"}}}", "q.io", "x", "a", "-", "-", "-", "",
         "q.io"},
    };
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        cp_credential c;
        char helper[64], server[512];
        assert_int_equal(cp_credential_parse("f", row[i].json, strlen(row[i].json), row[i].registry,
                                             row[i].repository, &c, helper, server, NULL),
                         CP_OK);
        if (!same(c.user, row[i].user) || !same(c.password, row[i].password) ||
            !same(c.identity_token, row[i].identity) ||
            !same(c.registry_token, row[i].registry_token) || strcmp(helper, row[i].helper) != 0 ||
            strcmp(server, row[i].server) != 0)
            fail_msg("%s: user %s password %s identity %s registry %s helper '%s' server '%s'",
                     row[i].json, c.user, c.password, c.identity_token, c.registry_token, helper,
                     server);
        cp_credential_fini(&c);
    }
    static const char *const bad[] = {"",
                                      "[]",
                                      "{",
                                      "{\"auths\":{\"q.io\":{\"auth\":\"?\"}}}",
                                      "{\"auths\":{\"q.io\":{\"auth\":\"YWI=\"}}}", /* no colon */
                                      "{\"auths\":{\"q.io\":{\"auth\":\"YTpi YTpi\"}}}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cp_credential c;
        char helper[64], server[512];
        cp_err err;
        assert_int_equal(cp_credential_parse("the-file", bad[i], strlen(bad[i]), "q.io", "x", &c,
                                             helper, server, &err),
                         CP_USAGE);
        assert_non_null(strstr(err.msg, "the-file"));
    }
}

static void base64(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
        {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe\xfd", "//79"}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        size_t n;
        char *encoded = cp_base64_encode(pairs[i][0], strlen(pairs[i][0]));
        char *decoded = cp_base64_decode(pairs[i][1], &n);
        assert_string_equal(encoded, pairs[i][1]);
        assert_int_equal(n, strlen(pairs[i][0]));
        assert_memory_equal(decoded, pairs[i][0], n + 1);
        free(encoded);
        free(decoded);
    }
    static const char *const bad[] = {"Z", "Zg=a", "Zg===", "Zm 9v", "Zm9v\n", "Zm9-"};
    size_t n;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_null(cp_base64_decode(bad[i], &n));
}

/* ---- a folder with a home and helpers in it ---- */

typedef struct place {
    char dir[256], old_path[4096];
} place;

static void put(const place *p, const char *name, const char *text, bool executable)
{
    char path[512];
    cp_snprintf(path, sizeof(path), "%s/%s", p->dir, name);
    for (char *s = path + strlen(p->dir) + 1; *s; s++)
        if (*s == '/') {
            *s = '\0';
            mkdir(path, 0700);
            *s = '/';
        }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    fclose(f);
    assert_int_equal(chmod(path, executable ? 0700 : 0600), 0);
}

static int enter(void **state)
{
    place *p = cp_xcalloc(1, sizeof(*p));
    cp_strcopy(p->dir, sizeof(p->dir), "/tmp/capstan-cred-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    cp_strcopy(p->old_path, sizeof(p->old_path), getenv("PATH"));
    char path[5000];
    cp_snprintf(path, sizeof(path), "%s/bin:%s", p->dir, p->old_path);
    setenv("PATH", path, 1);
    setenv("HOME", p->dir, 1);
    unsetenv("REGISTRY_AUTH_FILE");
    unsetenv("DOCKER_CONFIG");
    unsetenv("XDG_RUNTIME_DIR");
    unsetenv("XDG_CONFIG_HOME");
    *state = p;
    return 0;
}

static int leave(void **state)
{
    place *p = *state;
    static const char *const files[] = {"bin/docker-credential-good",
                                        "bin/docker-credential-token",
                                        "bin/docker-credential-miss",
                                        "bin/docker-credential-slow",
                                        "bin/docker-credential-flood",
                                        "bin/docker-credential-empty",
                                        "docker/config.json",
                                        "run/containers/auth.json",
                                        ".config/containers/auth.json",
                                        ".docker/config.json",
                                        ".dockercfg",
                                        "named.json",
                                        "child",
                                        "bin",
                                        "docker",
                                        "run/containers",
                                        "run",
                                        ".config/containers",
                                        ".config",
                                        ".docker",
                                        ""};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[512];
        cp_snprintf(path, sizeof(path), "%s/%s", p->dir, files[i]);
        if (unlink(path) != 0)
            rmdir(path);
    }
    setenv("PATH", p->old_path, 1);
    unsetenv("REGISTRY_AUTH_FILE");
    unsetenv("DOCKER_CONFIG");
    unsetenv("XDG_RUNTIME_DIR");
    free(p);
    return 0;
}

/* The process whose id is in the file `child` is no more (or not yet buried). */
static bool ended(const place *p)
{
    char path[512], line[64] = "";
    cp_snprintf(path, sizeof(path), "%s/child", p->dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    fclose(f);
    cp_snprintf(path, sizeof(path), "/proc/%ld/cmdline", strtol(line, NULL, 10));
    for (int i = 0; i < 5000; i++) {
        f = fopen(path, "r");
        bool alive = f && fgetc(f) != EOF;
        if (f)
            fclose(f);
        if (!alive)
            return true;
        usleep(1000);
    }
    return false;
}

static void helpers(void **state)
{
    const place *p = *state;
    put(p, "bin/docker-credential-good",
        "#!/bin/sh\nread -r s\n[ \"$1\" = get ] && [ \"$s\" = q.io ] || exit 1\n"
        "[ -e /proc/$$/fd/77 ] && exit 9\n"
        "echo '{\"ServerURL\":\"q.io\",\"Username\":\"a\",\"Secret\":\"b\"}'\n",
        true);
    put(p, "bin/docker-credential-token",
        "#!/bin/sh\necho '{\"Username\":\"<token>\",\"Secret\":\"i\"}'\n", true);
    put(p, "bin/docker-credential-miss",
        "#!/bin/sh\necho 'credentials not found in native keychain'\nexit 1\n", true);
    put(p, "bin/docker-credential-slow",
        "#!/bin/sh\nsleep 600 & echo $! >\"$HOME/child\"\nsleep 600\n", true);
    put(p, "bin/docker-credential-flood", "#!/bin/sh\nexec cat /dev/zero\n", true);
    put(p, "bin/docker-credential-empty", "#!/bin/sh\ncat >/dev/null\necho '{}'\n", true);
    static const struct {
        const char *name;
        int timeout_ms;
        bool ok;
        const char *user, *password, *identity, *from;
    } row[] = {
        {"good", 20000, true, "a", "b", "-", "docker-credential-good"},
        {"token", 20000, true, "-", "-", "i", "docker-credential-token"},
        {"miss", 20000, false, "-", "-", "-", "not found in native keychain"},
        {"empty", 20000, false, "-", "-", "-", "no credentials"},
        {"slow", 1000, false, "-", "-", "-", "in time"},
        {"flood", 20000, false, "-", "-", "-", "too much"},
        {"absent", 20000, false, "-", "-", "-", "No such file"},
        {"../good", 20000, false, "-", "-", "-", "name"},
        {"", 20000, false, "-", "-", "-", "name"},
    };
    assert_true(dup2(0, 77) == 77); /* a helper must not see it */
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        cp_credential c = {.user = NULL};
        bool ok = cp_credential_helper(row[i].name, "q.io", row[i].timeout_ms, &c);
        if (ok != row[i].ok || !same(c.user, row[i].user) || !same(c.password, row[i].password) ||
            !same(c.identity_token, row[i].identity) || !strstr(c.from, row[i].from))
            fail_msg("%s: %d user %s password %s identity %s from '%s'", row[i].name, ok, c.user,
                     c.password, c.identity_token, c.from);
        cp_credential_fini(&c);
    }
    close(77);
    assert_true(ended(p)); /* what a helper started goes with it */
}

static const char *asked(const char *authfile, char user[64])
{
    cp_credential c;
    cp_err err;
    cp_code code = cp_credential_find(authfile, "q.io", "x", &c, &err);
    cp_snprintf(user, 64, "%s", code == CP_USAGE ? "usage" : code ? "?" : c.user ? c.user : "none");
    if (code == CP_OK)
        cp_credential_fini(&c);
    return user;
}

static void order(void **state)
{
    const place *p = *state;
    char user[64], path[512];
    assert_string_equal(asked(NULL, user), "none");
    static const char *const home[] = {".dockercfg", ".docker/config.json",
                                       ".config/containers/auth.json"};
    static const char *const text[] = {
        "{\"auths\":{\"q.io\":{\"username\":\"0\",\"password\":\"p\"}}}",
        "{\"auths\":{\"q.io\":{\"username\":\"1\",\"password\":\"p\"}}}",
        "{\"auths\":{\"q.io\":{\"username\":\"2\",\"password\":\"p\"}}}",
        "{\"auths\":{\"q.io\":{\"username\":\"3\",\"password\":\"p\"}}}",
        "{\"auths\":{\"q.io\":{\"username\":\"4\",\"password\":\"p\"}}}",
        "{\"auths\":{\"q.io\":{\"username\":\"5\",\"password\":\"p\"}}}"};
    for (size_t i = 0; i < 3; i++) { /* each place comes before the ones above it */
        put(p, home[i], text[i], false);
        assert_int_equal(asked(NULL, user)[0], '0' + (int)i);
    }
    put(p, "run/containers/auth.json", text[3], false);
    cp_snprintf(path, sizeof(path), "%s/run", p->dir);
    setenv("XDG_RUNTIME_DIR", path, 1);
    assert_string_equal(asked(NULL, user), "3");
    put(p, "docker/config.json", text[4], false);
    cp_snprintf(path, sizeof(path), "%s/docker", p->dir);
    setenv("DOCKER_CONFIG", path, 1);
    assert_string_equal(asked(NULL, user), "4");
    put(p, "named.json", text[5], false);
    cp_snprintf(path, sizeof(path), "%s/named.json", p->dir);
    setenv("REGISTRY_AUTH_FILE", path, 1);
    assert_string_equal(asked(NULL, user), "5");
    put(p, "named.json", "{}", false); /* has none: the next place */
    assert_string_equal(asked(NULL, user), "4");
    assert_string_equal(asked(path, user), "none"); /* --authfile alone counts */
    put(p, "named.json", "{", false);
    assert_string_equal(asked(NULL, user), "usage");
    unlink(path);
    assert_string_equal(asked(NULL, user), "usage"); /* named and not there */
    assert_string_equal(asked(path, user), "usage");
}

int cp_suite_credentials(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),
        cmocka_unit_test(base64),
        cmocka_unit_test_setup_teardown(helpers, enter, leave),
        cmocka_unit_test_setup_teardown(order, enter, leave),
    };
    return cmocka_run_group_tests_name("credentials", tests, NULL, NULL);
}
