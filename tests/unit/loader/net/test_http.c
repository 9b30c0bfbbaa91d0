/*
 * Whom a transfer may connect to, with proxies for some hosts and not for others. Addresses that
 * must not be asked are never connected to, so nothing has to listen there.
 */
#include "base/mem.h"
#include "loader/oci/remote/client.h"
#include "loader/oci/remote/proxy.h"
#include "tests/unit/loader/net/suites.h"
#include "tests/unit/loader/net/wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const char *const variables[] = {"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY",
                                        "all_proxy",  "ALL_PROXY",  "no_proxy",    "NO_PROXY"};

static int forget_proxies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        unsetenv(variables[i]);
    return 0;
}

static void hosts_without_a_proxy(void **state)
{
    (void)state;
    static const struct {
        const char *list, *host;
        bool excepted;
    } rows[] = {
        {"*", "a.io", true},
        {"a.io,*", "b.io", true},
        {"*.corp", "x.corp", true},
        {"*.corp", "x.y.corp", true},
        {"*.corp", "corp", true},
        {"*.corp", "xcorp", false},
        {"x.*.corp", "x.y.corp", false},
        {"*.", "a.io", false},
        {"a.io:443", "a.io", true},
        {"a.io:444", "a.io", false},
        {"*.corp:443", "x.corp", true},
        {"a.io:", "a.io", false},
        {"a.io:443x", "a.io", false},
        {"10.0.0.1:443", "10.0.0.1", true},
        {"10.0.0.1:80", "10.0.0.1", false},
        {"[fd00::1]:443", "fd00::1", true},
        {"[fd00::1]:80", "fd00::1", false},
        {"[fd00::1]", "fd00::1", true},
        {"fd00::443", "fd00::", false},
        {"", "a.io", false},
        {"a.io", "a.io", true},
        {"a.io", "b.a.io", true},
        {"a.io", "ba.io", false},
        {"a.io", "a.io.evil", false},
        {".corp", "x.corp", true},
        {".corp", "corp", true},
        {".corp", "xcorp", false},
        {"a.io, .corp", "x.y.corp", true},
        {"a.io .corp", "x.corp", true},
        {" ,, A.IO.,", "a.io", true},
        {"a.io", "a.io.", true},
        {".", "a.io", false},
        {"10.0.0.1", "10.0.0.1", true},
        {"10.0.0.1", "10.0.0.10", false},
        {"0.0.1", "10.0.0.1", false},
        {"10.0.0.0/8", "10.9.8.7", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/31", "10.0.0.1", true},
        {"10.0.0.0/32", "10.0.0.1", false},
        {"10.0.0.0/33", "10.0.0.0", false},
        {"10.0.0.0/0", "11.0.0.1", true},
        {"10.0.0.0/", "10.0.0.0", false},
        {"10.0.0.0/8x", "10.0.0.0", false},
        {"fd00::/8", "fd12::1", true},
        {"fd00::/8", "fe00::1", false},
        {"fd00::1", "fd00:0::1", true},
        {"10.0.0.0/8", "ten.example", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (cp_proxy_excepts(rows[i].list, rows[i].host, 443) != rows[i].excepted)
            fail_msg("no_proxy=%s, %s", rows[i].list, rows[i].host);
}

static void proxies_of_origins(void **state)
{
    (void)state;
    static const struct {
        const char *name[3], *value[3], *url, *proxy;
    } rows[] = {
        {{"HTTPS_PROXY"}, {"P"}, "https://a.io/", "P"},
        {{"HTTPS_PROXY"}, {"P"}, "http://a.io/", ""},
        {{"HTTPS_PROXY", "https_proxy"}, {"P", "Q"}, "https://a.io/", "Q"},
        {{"HTTPS_PROXY", "https_proxy"}, {"P", ""}, "https://a.io/", "P"},
        {{"HTTP_PROXY"}, {"P"}, "http://a.io/", ""},
        {{"http_proxy"}, {"P"}, "http://a.io/", "P"},
        {{"ALL_PROXY", "http_proxy"}, {"P", "Q"}, "https://a.io/", "P"},
        {{"ALL_PROXY", "http_proxy"}, {"P", "Q"}, "http://a.io/", "Q"},
        {{"all_proxy", "NO_PROXY"}, {"P", ".corp"}, "https://x.corp/", ""},
        {{"all_proxy", "NO_PROXY"}, {"P", ".corp"}, "https://a.io/", "P"},
        {{"all_proxy", "NO_PROXY", "no_proxy"}, {"P", ".corp", "a.io"}, "https://x.corp/", "P"},
        {{"all_proxy", "NO_PROXY"}, {"P", "*.corp"}, "https://x.corp/", ""},
        {{"all_proxy", "no_proxy"}, {"P", "x.corp:80"}, "http://x.corp/", ""},
        {{"all_proxy", "no_proxy"}, {"P", "x.corp:80"}, "https://x.corp/", "P"},
        {{"all_proxy", "no_proxy"}, {"P", " a.io , *.corp "}, "https://x.corp/", ""},
        {{"all_proxy"}, {"P"}, "http://127.0.0.1:5000/", ""},
        {{"all_proxy"}, {"P"}, "https://localhost/", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_origin o;
        forget_proxies(NULL);
        for (size_t k = 0; k < 3 && rows[i].name[k]; k++)
            setenv(rows[i].name[k], rows[i].value[k], 1);
        assert_true(cp_url_origin(rows[i].url, &o));
        if (strcmp(cp_proxy_for(&o), rows[i].proxy) != 0)
            fail_msg("row %zu, %s: '%s'", i, rows[i].url, cp_proxy_for(&o));
    }
}

static void hello(void *arg, const wire_request *q)
{
    (void)arg;
    wire_answer(q, 200, "", "hello", 5);
}

static bool take(cp_exchange *x, const void *p, size_t n)
{
    (void)x, (void)p, (void)n;
    return true;
}

static void done(cp_exchange *x)
{
    *(bool *)x->arg = true;
}

/* One exchange, to its end. */
static void ask(cp_client *h, cp_exchange *x, const char *url, bool private_ok)
{
    bool over = false;
    int running;
    *x = (cp_exchange){.url = url,
                       .private_ok = private_ok,
                       .connect_timeout_ms = 2000,
                       .body = take,
                       .done = done,
                       .arg = &over};
    assert_int_equal(cp_client_start(h, x, NULL), CP_OK);
    while (!over) {
        assert_int_equal(cp_client_step(h, &running, NULL), CP_OK);
        if (!over)
            assert_int_equal(cp_client_wait(h, 50, NULL), CP_OK);
    }
    cp_exchange_fini(x);
}

static void a_proxy_for_others_guards_nobody_less(void **state)
{
    (void)state;
    wire *w = wire_start(hello, NULL);
    char here[64], log[WIRE_LOG];
    cp_client *h;
    cp_exchange *x = cp_xcalloc(1, sizeof(*x));
    const cp_client_options opt = {.stall_ms = 5000, .connections = 2};
    cp_snprintf(here, sizeof(here), "http://127.0.0.1:%d", wire_port(w));
    setenv("http_proxy", here, 1);
    setenv("HTTPS_PROXY", here, 1);
    setenv("NO_PROXY", ".corp,10.0.0.0/8,192.168.0.1", 1);
    assert_int_equal(cp_client_open(&h, &opt, NULL), CP_OK);
    static const char *const direct[] = {"http://10.0.0.1/", "https://10.0.0.1/v2/",
                                         "http://192.168.0.1:5000/", "http://10.1.2.3/token"};
    for (size_t i = 0; i < sizeof(direct) / sizeof(direct[0]); i++) {
        ask(h, x, direct[i], false);
        if (x->end != CP_CLIENT_REFUSED || !strstr(x->problem, "private"))
            fail_msg("%s: end %d, '%s'", direct[i], x->end, x->problem);
    }
    ask(h, x, here, false); /* loopback has no proxy */
    assert_int_equal(x->end, CP_CLIENT_REFUSED);
    assert_int_equal(wire_count(w), 0);
    /* What does go through the proxy, on loopback, is answered, and says nothing about its host. */
    ask(h, x, "http://registry.example/v2/", false);
    assert_int_equal(x->end, CP_CLIENT_ANSWERED);
    assert_int_equal(x->status, 200);
    assert_false(x->private_peer);
    wire_log(w, log);
    assert_string_equal(log, "GET http://registry.example/v2/||\n");
    ask(h, x, "http://172.16.0.1/v2/", false); /* that one is private by its name */
    assert_int_equal(x->end, CP_CLIENT_ANSWERED);
    assert_true(x->private_peer);
    /* An address of the metadata kind is no proxy either. */
    setenv("http_proxy", "http://169.254.169.254:80", 1);
    ask(h, x, "http://registry.example/v2/", true);
    assert_int_equal(x->end, CP_CLIENT_REFUSED);
    cp_client_close(h);
    wire_stop(w);
    free(x);
}

/* Answers and keeps the connection for one more request, which it answers too. */
static void hello_twice(void *arg, const wire_request *q)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    char more[1024];
    (void)arg;
    wire_raw(q, answer, sizeof(answer) - 1);
    if (recv(q->fd, more, sizeof(more), 0) > 0)
        wire_raw(q, answer, sizeof(answer) - 1);
}

static void a_kept_connection_is_no_way_around(void **state)
{
    (void)state;
    wire *w = wire_start(hello_twice, NULL);
    char url[64];
    cp_client *h;
    cp_exchange *x = cp_xcalloc(1, sizeof(*x));
    const cp_client_options opt = {.stall_ms = 5000, .connections = 2};
    cp_snprintf(url, sizeof(url), "http://127.0.0.1:%d/", wire_port(w));
    assert_int_equal(cp_client_open(&h, &opt, NULL), CP_OK);
    ask(h, x, url, true);
    assert_int_equal(x->status, 200);
    ask(h, x, url, false);
    assert_int_equal(x->status, 0);
    assert_int_equal(x->end, CP_CLIENT_REFUSED);
    cp_client_close(h);
    wire_stop(w);
    free(x);
}

int cp_suite_http(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hosts_without_a_proxy, forget_proxies, forget_proxies),
        cmocka_unit_test_setup_teardown(proxies_of_origins, forget_proxies, forget_proxies),
        cmocka_unit_test_setup_teardown(a_proxy_for_others_guards_nobody_less, forget_proxies,
                                        forget_proxies),
        cmocka_unit_test_setup_teardown(a_kept_connection_is_no_way_around, forget_proxies,
                                        forget_proxies),
    };
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
