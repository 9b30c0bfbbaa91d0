/*
 * WWW-Authenticate: what servers really send, what the grammar allows, and garbage.
 */
#include "loader/oci/remote/challenge.h"
#include "tests/unit/loader/net/suites.h"

#include <string.h>

#define HUB                                                                                        \
    "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope="          \
    "\"repository:a/b:pull,push\",error=\"insufficient_scope\""

static void rows(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        bool whole;
        size_t n;
        size_t at; /* which challenge the rest speaks of */
        const char *scheme, *realm, *service, *scope, *error;
    } row[] = {
        {HUB, true, 1, 0, "bearer", "https://auth.docker.io/token", "registry.docker.io",
         "repository:a/b:pull,push", "insufficient_scope"},
        {"Basic realm=\"x\"", true, 1, 0, "basic", "x", "", "", ""},
        {"BASIC REALM = \"x\" , charset=\"UTF-8\"", true, 1, 0, "basic", "x", "", "", ""},
        {"Basic realm=token-form", true, 1, 0, "basic", "token-form", "", "", ""},
        {"Negotiate", true, 1, 0, "negotiate", "", "", "", ""},
        {"Negotiate, " HUB, true, 2, 1, "bearer", "https://auth.docker.io/token",
         "registry.docker.io", "repository:a/b:pull,push", "insufficient_scope"},
        {"NTLM TlRMTVNTUAAB==, Basic realm=\"b\"", true, 2, 1, "basic", "b", "", "", ""},
        {"Digest realm=\"d\", qop=\"auth, auth-int\", Bearer realm=\"r\",scope=\"s\"", true, 2, 1,
         "bearer", "r", "", "s", ""},
        {"Digest realm=\"d\", qop=\"auth, auth-int\", Bearer realm=\"r\"", true, 2, 0, "digest",
         "d", "", "", ""},
        {"Bearer realm=\"a\\\"b\\\\c,d\"", true, 1, 0, "bearer", "a\"b\\c,d", "", "", ""},
        {",, ,Bearer realm=\"x\",, ,service=\"y\",,", true, 1, 0, "bearer", "x", "y", "", ""},
        {"\tBearer\trealm=\"x\"", true, 1, 0, "bearer", "x", "", "", ""},
        {"Bearer realm=\"\"", true, 1, 0, "bearer", "", "", "", ""},
        {"", true, 0, 0, "", "", "", "", ""},
        {"Newauth realm=\"a\", type=1, title=\"T \\\"l\\\"\", Basic realm=\"simple\"", true, 2, 1,
         "basic", "simple", "", "", ""},
        /* malformed: what stands before the place is kept */
        {"Bearer realm=\"open", false, 0, 0, "", "", "", "", ""},
        {"Bearer realm=\"open\\", false, 0, 0, "", "", "", "", ""},
        {"Basic realm=\"x\", Bearer realm=\"y", false, 1, 0, "basic", "x", "", "", ""},
        {"Negotiate, Bearer realm=\"open", false, 1, 0, "negotiate", "", "", "", ""},
        {"Bearer realm=\"x\" service=\"y\"", false, 0, 0, "", "", "", "", ""},
        {"Bearer realm=\"x\", realm=\"y\"", false, 0, 0, "", "", "", "", ""},
        {"Bearer realm=", true, 1, 0, "bearer", "", "", "", ""}, /* token68 */
        {"Bearer realm=,service=\"x\"", false, 1, 0, "bearer", "", "", "", ""},
        {"Bearer =x", false, 0, 0, "", "", "", "", ""},
        {"Bearer a b", false, 0, 0, "", "", "", "", ""},
        {"Bearer realm=\"a\tb\"", false, 0, 0, "", "", "", "", ""},
        {"Bearer realm=\"a\x7f\"", false, 0, 0, "", "", "", "", ""},
        {"Basic/abc", false, 0, 0, "", "", "", "", ""},
        {"=", false, 0, 0, "", "", "", "", ""},
        {"\"Bearer\"", false, 0, 0, "", "", "", "", ""},
        {"<html>", false, 0, 0, "", "", "", "", ""},
    };
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        static cp_challenges c;
        c.n = 0;
        bool whole = cp_challenge_parse(&c, row[i].line, strlen(row[i].line));
        if (whole != row[i].whole || c.n != row[i].n)
            fail_msg("'%s': whole %d, %zu challenges", row[i].line, whole, c.n);
        if (c.n == 0)
            continue;
        const cp_challenge *x = &c.item[row[i].at];
        if (strcmp(x->scheme, row[i].scheme) != 0 || strcmp(x->realm, row[i].realm) != 0 ||
            strcmp(x->service, row[i].service) != 0 || strcmp(x->scope, row[i].scope) != 0 ||
            strcmp(x->error, row[i].error) != 0)
            fail_msg("'%s': scheme '%s' realm '%s' service '%s' scope '%s' error '%s'", row[i].line,
                     x->scheme, x->realm, x->service, x->scope, x->error);
    }
}

static void several_lines(void **state)
{
    (void)state;
    static cp_challenges c;
    c.n = 0;
    assert_true(cp_challenge_parse(&c, "Negotiate", 9));
    assert_true(cp_challenge_parse(&c, HUB, strlen(HUB)));
    assert_int_equal(c.n, 2);
    assert_ptr_equal(cp_challenge_find(&c, "bearer"), &c.item[1]);
    assert_null(cp_challenge_find(&c, "basic"));
}

/* More than there is room for: challenges, parameters, bytes of a value. */
static void limits(void **state)
{
    (void)state;
    static cp_challenges c;
    static char line[20000];
    c.n = 0;
    for (int i = 0; i < CP_CHALLENGES_MAX; i++)
        assert_true(cp_challenge_parse(&c, "Basic", 5));
    assert_false(cp_challenge_parse(&c, "Basic", 5));
    assert_int_equal(c.n, CP_CHALLENGES_MAX);

    for (size_t bytes = 1; bytes < 9000; bytes = bytes * 3 / 2 + 1) {
        c.n = 0;
        size_t n = 0;
        memcpy(line, "Bearer realm=\"", n = 14);
        memset(line + n, 'x', bytes);
        n += bytes;
        line[n++] = '"';
        bool whole = cp_challenge_parse(&c, line, n);
        assert_int_equal(whole, bytes < sizeof(c.item[0].realm));
        assert_int_equal(c.n, whole);
    }
    c.n = 0;
    size_t n = 6;
    memcpy(line, "Bearer", 6);
    for (int i = 0; i < 100; i++, n += 5)
        memcpy(line + n, i ? ",a=b " : " a=b ", 5);
    assert_false(cp_challenge_parse(&c, line, n));
    c.n = 0;
    memset(line, 'x', 64); /* a scheme */
    assert_false(cp_challenge_parse(&c, line, 64));
}

int cp_suite_challenge(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows),
        cmocka_unit_test(several_lines),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests_name("challenge", tests, NULL, NULL);
}
