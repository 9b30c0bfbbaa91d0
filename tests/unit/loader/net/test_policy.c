/*
 * The arithmetic of waiting, the grammars behind it, and where a redirect may lead.
 */
#include "base/mem.h"
#include "loader/oci/remote/endpoint.h"
#include "loader/oci/remote/reply.h"
#include "loader/oci/remote/retry.h"
#include "loader/oci/remote/url.h"
#include "tests/unit/loader/net/suites.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static void backoff(void **state)
{
    (void)state;
    static const uint32_t random[] = {0, 1, 0x7fffffff, 0xffffffff};
    for (size_t i = 0; i < 4; i++) {
        int64_t expect = 250;
        for (int attempt = 0; attempt < 40; attempt++) {
            int64_t wait = cp_backoff_ms(250, attempt, -1, random[i]);
            assert_in_range(wait, expect / 2, expect);
            expect = expect * 2 < CP_BACKOFF_MAX_MS ? expect * 2 : CP_BACKOFF_MAX_MS;
        }
        assert_in_range(cp_backoff_ms(250, 0, 7, random[i]), 7000, 7250);
        assert_in_range(cp_backoff_ms(250, 9, 1, random[i]), CP_BACKOFF_MAX_MS / 2,
                        CP_BACKOFF_MAX_MS);
        assert_in_range(cp_backoff_ms(250, 0, INT64_MAX, random[i]), CP_RETRY_AFTER_MAX_S * 1000,
                        CP_RETRY_AFTER_MAX_S * 1000 + 250);
        assert_in_range(cp_backoff_ms(1, 0, 0, random[i]), 0, 1);
    }
}

static void retry_after(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        int64_t seconds;
    } rows[] = {
        {"0", 0},
        {"120", 120},
        {"2147483647", 2147483647},
        {"2147483648", -1},
        {"99999999999999999999", -1},
        {"-1", -1},
        {"1.5", -1},
        {"", -1},
        {"soon", -1},
        {"Sun, 06 Nov 1994 08:49:37 GMT", 37},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 37},
        {"Sun, 06 Nov 1994 08:48:37 GMT", 0}, /* over */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (cp_retry_after(rows[i].value, 784111740) != rows[i].seconds)
            fail_msg("'%s': %lld", rows[i].value,
                     (long long)cp_retry_after(rows[i].value, 784111740));
    for (int status = 100; status < 600; status++) {
        bool expect = status == 408 || status == 425 || status == 429 ||
                      (status >= 500 && status <= 504 && status != 501);
        assert_int_equal(cp_retry_status(status), expect);
    }
}

static void content_range(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        bool ok, has_total;
        uint64_t first, last, total;
    } rows[] = {
        {"bytes 0-0/1", true, true, 0, 0, 1},
        {"bytes 5-9/10", true, true, 5, 9, 10},
        {"bytes 5-9/*", true, false, 5, 9, 0},
        {"bytes 0-18446744073709551614/18446744073709551615", true, true, 0, UINT64_MAX - 1,
         UINT64_MAX},
        {"bytes 0-18446744073709551616/5", false, false, 0, 0, 0},
        {"bytes 5-4/10", false, false, 0, 0, 0},
        {"bytes 5-10/10", false, false, 0, 0, 0},
        {"bytes */10", false, false, 0, 0, 0},
        {"bytes 0-1/10 ", false, false, 0, 0, 0},
        {"bytes 0-1", false, false, 0, 0, 0},
        {"bytes -1/10", false, false, 0, 0, 0},
        {"items 0-1/10", false, false, 0, 0, 0},
        {"", false, false, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t first, last, total;
        bool has_total;
        bool ok = cp_content_range(rows[i].value, &first, &last, &has_total, &total);
        if (ok != rows[i].ok || (ok && (first != rows[i].first || last != rows[i].last ||
                                        has_total != rows[i].has_total || total != rows[i].total)))
            fail_msg("'%s'", rows[i].value);
    }
}

static void addresses(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        cp_address_kind kind;
    } rows[] = {
        {"127.0.0.1", CP_ADDRESS_LOOPBACK},
        {"127.255.0.1", CP_ADDRESS_LOOPBACK},
        {"0.0.0.0", CP_ADDRESS_LOOPBACK},
        {"::1", CP_ADDRESS_LOOPBACK},
        {"::", CP_ADDRESS_LOOPBACK},
        {"LOCALHOST", CP_ADDRESS_LOOPBACK},
        {"x.localhost", CP_ADDRESS_LOOPBACK},
        {"::ffff:127.0.0.1", CP_ADDRESS_LOOPBACK},
        {"localhost.evil", CP_ADDRESS_PUBLIC},
        {"10.0.0.1", CP_ADDRESS_PRIVATE},
        {"172.16.0.1", CP_ADDRESS_PRIVATE},
        {"172.31.255.255", CP_ADDRESS_PRIVATE},
        {"172.32.0.1", CP_ADDRESS_PUBLIC},
        {"192.168.1.1", CP_ADDRESS_PRIVATE},
        {"100.64.0.1", CP_ADDRESS_PRIVATE},
        {"100.127.0.1", CP_ADDRESS_PRIVATE},
        {"100.128.0.1", CP_ADDRESS_PUBLIC},
        {"fd12::1", CP_ADDRESS_PRIVATE},
        {"::ffff:10.1.1.1", CP_ADDRESS_PRIVATE},
        {"169.254.169.254", CP_ADDRESS_METADATA},
        {"fe80::1%eth0", CP_ADDRESS_METADATA},
        {"febf::1", CP_ADDRESS_METADATA},
        {"fd00:ec2::254", CP_ADDRESS_METADATA},
        {"::ffff:169.254.169.254", CP_ADDRESS_METADATA},
        {"64:ff9b::169.254.169.254", CP_ADDRESS_METADATA},
        {"8.8.8.8", CP_ADDRESS_PUBLIC},
        {"2606:4700::1", CP_ADDRESS_PUBLIC},
        {"ghcr.io", CP_ADDRESS_PUBLIC},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (cp_host_classify(rows[i].host) != rows[i].kind)
            fail_msg("%s: %d", rows[i].host, cp_host_classify(rows[i].host));
    struct sockaddr_in in = {.sin_family = AF_INET};
    inet_pton(AF_INET, "169.254.0.1", &in.sin_addr);
    assert_int_equal(cp_address_classify((struct sockaddr *)&in), CP_ADDRESS_METADATA);
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    inet_pton(AF_INET6, "fe80::1", &in6.sin6_addr);
    assert_int_equal(cp_address_classify((struct sockaddr *)&in6), CP_ADDRESS_METADATA);
}

static void redirects(void **state)
{
    (void)state;
    static const struct {
        const char *from, *location, *to; /* to NULL: refused */
        bool private_ok, same;
    } rows[] = {
        {"https://a.io/v2/x", "/y?z=1", "https://a.io/y?z=1", false, true},
        {"https://a.io/v2/x", "https://A.io:443/y", "https://A.io:443/y", false, true},
        {"https://a.io/v2/x", "https://a.io:444/y", "https://a.io:444/y", false, false},
        {"https://a.io/v2/x", "https://b.io/y#f", "https://b.io/y", false, false},
        {"https://a.io/v2/x", "https://a.io.evil/y", "https://a.io.evil/y", false, false},
        {"https://a.io/v2/x", "//b.io/y", "https://b.io/y", false, false},
        {"http://a.io/v2/x", "https://a.io/y", "https://a.io/y", false, false},
        {"http://127.0.0.1:1/v2/x", "http://127.0.0.1:2/y", "http://127.0.0.1:2/y", true, false},
        {"https://a.io/v2/x", "http://a.io/y", NULL, false, false},
        {"https://a.io/v2/x", "file:///etc/passwd", NULL, false, false},
        {"https://a.io/v2/x", "gopher://a.io/", NULL, false, false},
        {"https://a.io/v2/x", "https://user@b.io/y", NULL, false, false},
        {"https://a.io/v2/x", "https://a.io@b.io/y", NULL, false, false},
        {"https://a.io/v2/x", "https://169.254.169.254/latest", NULL, true, false},
        {"https://a.io/v2/x", "https://0xA9FEA9FE/latest", NULL, true, false},
        {"https://a.io/v2/x", "https://2852039166/latest", NULL, true, false},
        {"https://a.io/v2/x", "https://[fe80::1]/", NULL, true, false},
        {"https://a.io/v2/x", "https://[::ffff:169.254.1.1]/", NULL, true, false},
        {"https://a.io/v2/x", "https://10.0.0.1/y", NULL, false, false},
        {"https://a.io/v2/x", "https://localhost/y", NULL, false, false},
        {"https://a.io/v2/x", "https://10.0.0.1/y", "https://10.0.0.1/y", true, false},
        {"https://a.io/v2/x", "", NULL, false, false},
        {"https://a.io/v2/x", "https://", NULL, false, false},
        {"https://a.io/v2/x", "https://b.io/a b", "https://b.io/a%20b", false, false},
        {"https://a.io/v2/x", "/y?name=my model.gguf", "https://a.io/y?name=my%20model.gguf", false,
         true},
        {"https://a.io/v2/x", "/\xc3\xa9?n=\xe6\xa8\xa1", "https://a.io/%C3%A9?n=%E6%A8%A1", false,
         true},
        {"https://a.io/v2/x", "/a%20b", "https://a.io/a%20b", false, true},
        {"https://a.io/v2/x", "https://b io/y", NULL, false, false},
        {"https://a.io/v2/x", "/a\tb", NULL, false, false},
        {"https://a.io/v2/x", "/a\x7f", NULL, false, false},
        {"https://a.io/v2/x", "/a\nb", NULL, false, false},
        {"https://a.io/v2/x", "https://b.io:99999/", NULL, false, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static char out[CP_URL_MAX];
        bool same;
        cp_err err;
        cp_code code =
            cp_url_redirect(rows[i].from, rows[i].location, rows[i].private_ok, out, &same, &err);
        bool as_wanted = rows[i].to ? code == CP_OK && strcmp(out, rows[i].to) == 0
                                    : code == CP_NETWORK && strstr(err.msg, "redirect");
        if (!as_wanted || same != rows[i].same)
            fail_msg("%s -> '%s': %d '%s' same %d", rows[i].from, rows[i].location, code,
                     code ? err.msg : out, same);
    }
    static char far[2 * CP_URL_MAX] = "https://b.io/", out[CP_URL_MAX];
    memset(far + 13, 'x', sizeof(far) - 14);
    bool same;
    assert_int_equal(cp_url_redirect("https://a.io/", far, true, out, &same, NULL), CP_NETWORK);
}

static void sources(void **state)
{
    (void)state;
    static const char *const plain[] = {"plain.lan", "other.lan:8080"};
    const cp_registry_options opt = {.plain_http = plain, .n_plain_http = 2};
    static const struct {
        const char *ref, *url;
        bool open;
    } upstream[] = {
        {"smollm2", "https://registry-1.docker.io/v2/ai/smollm2/blobs/d", false},
        {"ghcr.io/a/b", "https://ghcr.io/v2/a/b/blobs/d", false},
        {"plain.lan/a", "http://plain.lan/v2/a/blobs/d", false},
        {"plain.lan:99/a", "http://plain.lan:99/v2/a/blobs/d", false},
        {"plain.lander/a", "https://plain.lander/v2/a/blobs/d", false},
        {"other.lan:8080/a", "http://other.lan:8080/v2/a/blobs/d", false},
        {"other.lan/a", "https://other.lan/v2/a/blobs/d", false},
        {"localhost:5000/a", "http://localhost:5000/v2/a/blobs/d", true},
        {"127.0.0.1:5000/a", "http://127.0.0.1:5000/v2/a/blobs/d", true},
        {"[::1]:5000/a", "http://[::1]:5000/v2/a/blobs/d", true},
        {"10.0.0.1:5000/a", "https://10.0.0.1:5000/v2/a/blobs/d", false},
    };
    static char url[CP_URL_MAX];
    static cp_endpoint s;
    cp_ref ref;
    for (size_t i = 0; i < sizeof(upstream) / sizeof(upstream[0]); i++) {
        assert_int_equal(cp_ref_parse_name(&ref, upstream[i].ref, NULL, NULL), CP_OK);
        assert_int_equal(cp_endpoint_upstream(&s, &ref, &opt, NULL), CP_OK);
        assert_true(cp_endpoint_url(&s, "blobs", "d", url));
        assert_string_equal(url, upstream[i].url);
        assert_int_equal(s.scheme_open, upstream[i].open);
    }
    static const struct {
        const char *ref, *mirror, *url; /* url NULL: of another registry */
    } mirrors[] = {
        {"ai/x", "docker.io=https://m.lan", "https://m.lan/v2/ai/x/blobs/d?ns=docker.io"},
        {"ai/x", "registry-1.docker.io=m.lan:5", "https://m.lan:5/v2/ai/x/blobs/d?ns=docker.io"},
        {"ai/x", "docker.io=http://m.lan/", "http://m.lan/v2/ai/x/blobs/d?ns=docker.io"},
        {"ai/x", "docker.io=https://m.lan/v2/", "https://m.lan/v2/ai/x/blobs/d?ns=docker.io"},
        {"ai/x", "docker.io=https://m.lan/v2/hub/",
         "https://m.lan/v2/hub/ai/x/blobs/d?ns=docker.io"},
        {"q.io:1/x", "q.io:1=localhost:2", "http://localhost:2/v2/x/blobs/d?ns=q.io%3A1"},
        {"q.io:1/x", "q.io=localhost:2", NULL},
        {"ai/x", "ghcr.io=https://m.lan", NULL},
    };
    bool applies;
    for (size_t i = 0; i < sizeof(mirrors) / sizeof(mirrors[0]); i++) {
        assert_int_equal(cp_ref_parse_name(&ref, mirrors[i].ref, NULL, NULL), CP_OK);
        assert_int_equal(cp_endpoint_mirror(&s, mirrors[i].mirror, &ref, &opt, &applies, NULL),
                         CP_OK);
        assert_int_equal(applies, mirrors[i].url != NULL);
        if (!applies)
            continue;
        assert_true(cp_endpoint_url(&s, "blobs", "d", url));
        assert_string_equal(url, mirrors[i].url);
    }
    static const char *const bad[] = {"",
                                      "x",
                                      "=https://m",
                                      "a.io=",
                                      "a.io=ftp:",
                                      "a/b=m.io",
                                      "a.io=https://m/A B",
                                      "a.io=m/x:y",
                                      "a.io=m/../x",
                                      "a.io=https://u@m.io"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (cp_endpoint_mirror(&s, bad[i], &ref, &opt, &applies, NULL) != CP_USAGE)
            fail_msg("'%s' passed", bad[i]);
}

static void answers(void **state)
{
    (void)state;
    static const struct {
        const char *body, *text;
    } errors[] = {
        {"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no \\u001b[31m way\\n\",\"detail\":1}]}",
         "DENIED: no [31m way"},
        {"{\"errors\":[{\"message\":\"m\"}]}", "m"},
        {"{\"errors\":[{\"code\":\"C\"}]}", "C"},
        {"{\"details\":\"incorrect username or password\"}", "incorrect username or password"},
        {"{\"errors\":[{\"code\":\"\xc2\x9b\xc3\xa9\xc2\xa0\"}]}", "\xc3\xa9\xc2\xa0"},
        {"{\"errors\":[]}", ""},
        {"{\"errors\":[7]}", ""},
        {"404 page not found\n", "404 page not found"},
        {"<html>", ""},
        {"<html><title>400 No\xe9 \x1b[2J cert</title>", "400 No [2J cert"},
        {"<html><title>", ""},
        {"<html><title></title>", ""},
        {"\x01\x02", ""},
        {"", ""},
    };
    char text[CP_REPLY_TEXT_MAX];
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        cp_reply_error(errors[i].body, strlen(errors[i].body), text);
        assert_string_equal(text, errors[i].text);
    }
    static const struct {
        const char *body, *token;
        int64_t lifetime;
    } tokens[] = {
        {"{\"token\":\"t\"}", "t", 60},
        {"{\"access_token\":\"a\",\"expires_in\":300}", "a", 300},
        {"{\"token\":\"\",\"access_token\":\"a\",\"expires_in\":1e300}", "a", 30 * 24 * 3600},
        {"{\"token\":\"t\",\"access_token\":\"a\",\"expires_in\":-5}", "t", 60},
        {"{\"token\":\"t\\r\\nX: y\"}", NULL, 60},
        {"{\"token\":\"t u\"}", NULL, 60},
        {"{\"token\":7}", NULL, 60},
        {"[]", NULL, 60},
        {"", NULL, 60},
    };
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
        int64_t lifetime;
        char *token = cp_reply_token(tokens[i].body, strlen(tokens[i].body), &lifetime);
        if (tokens[i].token)
            assert_string_equal(token, tokens[i].token);
        else
            assert_null(token);
        assert_int_equal(lifetime, tokens[i].lifetime);
        free(token);
    }
}

int cp_suite_policy(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backoff),   cmocka_unit_test(retry_after), cmocka_unit_test(content_range),
        cmocka_unit_test(addresses), cmocka_unit_test(redirects),   cmocka_unit_test(sources),
        cmocka_unit_test(answers),
    };
    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
