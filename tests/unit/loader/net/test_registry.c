/*
 * The registry client against a scripted server: what it asks, how often, with which credentials,
 * and that every byte comes once, in order, from inside the range.
 */
#include "base/digest.h"
#include "base/mem.h"
#include "loader/oci/remote/registry.h"
#include "loader/oci/store/manifest.h"
#include "tests/unit/loader/net/suites.h"
#include "tests/unit/loader/net/wire.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOB = 300000 };
#define SECRET "YWxpY2U6czNjcmV0" /* alice:s3cret */

typedef struct scene {
    wire *server, *other; /* other: a mirror, a redirect's target */
    int other_port;       /* for the server's handler */
    uint8_t blob[BLOB];
    char digest[CP_DIGEST_STR], host[64], other_host[64];
    char authfile[64];
    _Atomic int knob;
    _Atomic bool cut;
    /* the client's side */
    cp_registry_options opt;
    const char *mirror[1];
    char mirror_text[128];
} scene;

static int enter(void **state)
{
    scene *s = cp_xcalloc(1, sizeof(*s));
    uint8_t raw[32];
    for (size_t i = 0; i < BLOB; i++)
        s->blob[i] = (uint8_t)(i * 2654435761u >> 13);
    cp_sha256_of(s->blob, BLOB, raw);
    cp_digest_format(raw, s->digest);
    s->opt = (cp_registry_options){.backoff_ms = 1, .max_retries = 3, .stall_ms = 20000};
    setenv("HOME", "/nonexistent", 1);
    *state = s;
    return 0;
}

static int leave(void **state)
{
    scene *s = *state;
    if (s->server)
        wire_stop(s->server);
    if (s->other)
        wire_stop(s->other);
    if (s->authfile[0])
        unlink(s->authfile);
    free(s);
    return 0;
}

static void serve(scene *s, wire_handler *handler, wire_handler *other)
{
    if (other) {
        s->other = wire_start(other, s);
        s->other_port = wire_port(s->other);
        cp_snprintf(s->other_host, sizeof(s->other_host), "127.0.0.1:%d", s->other_port);
    }
    s->server = wire_start(handler, s);
    cp_snprintf(s->host, sizeof(s->host), "127.0.0.1:%d", wire_port(s->server));
}

/* alice:s3cret for the server, in a file. */
static void log_in(scene *s, const char *more)
{
    cp_strcopy(s->authfile, sizeof(s->authfile), "/tmp/capstan-auth-XXXXXX");
    int fd = mkstemp(s->authfile);
    assert_true(fd >= 0);
    assert_true(dprintf(fd, "{\"auths\":{\"%s\":{\"auth\":\"" SECRET "\"%s}}}", s->host, more) > 0);
    close(fd);
    s->opt.authfile = s->authfile;
}

static void use_mirror(scene *s)
{
    cp_snprintf(s->mirror_text, sizeof(s->mirror_text), "%s=http://%s", s->host, s->other_host);
    s->mirror[0] = s->mirror_text;
    s->opt.mirrors = s->mirror;
    s->opt.n_mirrors = 1;
}

static cp_registry *open_registry(scene *s)
{
    char name[128];
    cp_ref ref;
    cp_registry *r;
    cp_snprintf(name, sizeof(name), "%s/a/b:v1", s->host);
    assert_int_equal(cp_ref_parse_name(&ref, name, NULL, NULL), CP_OK);
    assert_int_equal(cp_registry_open(&r, &ref, &s->opt, NULL), CP_OK);
    return r;
}

/* One fetch and what came of it. */
typedef struct take {
    scene *s;
    cp_fetch f;
    uint64_t next; /* offset that must come next */
    bool wrong;    /* out of order, out of range, other bytes */
    bool done;
    cp_code refuse; /* what `data` says */
    cp_code code;
    cp_err err;
} take;

static cp_code on_data(void *arg, uint64_t at, const void *p, size_t n, cp_err *err)
{
    take *t = arg;
    if (t->refuse)
        return cp_fail(err, t->refuse, "no more");
    if (at != t->next || at + n > t->f.from + t->f.n || memcmp(p, t->s->blob + at, n) != 0)
        t->wrong = true;
    t->next = at + n;
    return CP_OK;
}

static void on_done(void *arg, cp_code code, const cp_err *err)
{
    take *t = arg;
    assert_false(t->done);
    t->done = true;
    t->code = code;
    if (err)
        t->err = *err;
}

static void start(scene *s, cp_registry *r, take *t, uint64_t from, uint64_t n)
{
    t->s = s;
    t->next = from;
    t->f.digest = s->digest;
    t->f.total = BLOB;
    t->f.from = from;
    t->f.n = n;
    t->f.data = on_data;
    t->f.done = on_done;
    t->f.arg = t;
    assert_int_equal(cp_registry_fetch(r, &t->f, NULL), CP_OK);
}

static void drive(cp_registry *r)
{
    int running = 1;
    while (running)
        assert_int_equal(cp_registry_step(r, 1000, &running, NULL), CP_OK);
}

static void fetch(scene *s, cp_registry *r, take *t, uint64_t from, uint64_t n)
{
    *t = (take){.done = false};
    start(s, r, t, from, n);
    drive(r);
    assert_true(t->done);
    assert_false(t->wrong);
    if (t->code == CP_OK)
        assert_int_equal(t->next, from + n);
}

#define assert_message(t, text)                                                                    \
    do {                                                                                           \
        if (!strstr((t).err.msg, text))                                                            \
            fail_msg("'%s' is not in '%s'", text, (t).err.msg);                                    \
    } while (0)

/* Serve the blob, by Range where there is one. */
static void honest(void *arg, const wire_request *q)
{
    scene *s = arg;
    size_t first, last;
    char header[128];
    if (strstr(q->path, "/manifests/")) {
        wire_answer(q, 200, "Content-Type: application/x; charset=utf-8\r\n", "{}", 2);
    } else if (wire_range(q, &first, &last)) {
        cp_snprintf(header, sizeof(header), "Content-Range: bytes %zu-%zu/%d\r\n", first, last,
                    BLOB);
        wire_answer(q, 206, header, s->blob + first, last - first + 1);
    } else {
        wire_answer(q, 200, "", s->blob, BLOB);
    }
}

static void ranges(void **state)
{
    scene *s = *state;
    static take t[9];
    serve(s, honest, NULL);
    cp_registry *r = open_registry(s);
    fetch(s, r, &t[0], 0, BLOB);
    assert_int_equal(t[0].code, CP_OK);
    fetch(s, r, &t[0], 1000, 1);
    assert_int_equal(t[0].code, CP_OK);
    fetch(s, r, &t[0], 5, 0); /* nothing to ask */
    assert_int_equal(t[0].code, CP_OK);
    assert_int_equal(wire_count(s->server), 2);
    for (size_t i = 0; i < 9; i++) {
        t[i] = (take){.done = false};
        start(s, r, &t[i], i * 30000, 30000);
    }
    cp_registry_cancel(r, &t[7].f);
    drive(r);
    for (size_t i = 0; i < 9; i++) {
        assert_int_equal(t[i].done, i != 7);
        assert_true(i == 7 || (!t[i].wrong && t[i].next == (i + 1) * 30000));
    }
    cp_fetch bad = t[0].f;
    cp_err err;
    bad.from = BLOB - 5;
    bad.n = 6;
    assert_int_equal(cp_registry_fetch(r, &bad, &err), CP_USAGE);
    bad.digest = "sha256:../../x";
    assert_int_equal(cp_registry_fetch(r, &bad, &err), CP_USAGE);
    char log[WIRE_LOG];
    wire_log(s->server, log);
    char first[200];
    cp_snprintf(first, sizeof(first),
                "GET /v2/a/b/blobs/%s||\nGET /v2/a/b/blobs/%s|bytes=1000-1000|\n", s->digest,
                s->digest);
    assert_true(strncmp(log, first, strlen(first)) == 0);
    static take running;
    running = (take){.done = false};
    start(s, r, &running, 0, BLOB); /* closed with the registry, without its `done` */
    cp_registry_close(r);
    assert_false(running.done);
    assert_null(running.f.impl);
}

static void data_refuses(void **state)
{
    scene *s = *state;
    serve(s, honest, NULL);
    cp_registry *r = open_registry(s);
    take t = {.refuse = CP_IO};
    start(s, r, &t, 0, BLOB);
    drive(r);
    assert_int_equal(t.code, CP_IO);
    assert_string_equal(t.err.msg, "no more");
    assert_int_equal(wire_count(s->server), 1);
    cp_registry_close(r);
}

/* Every answer ends after 70,000 bytes. */
static void cutting(void *arg, const wire_request *q)
{
    scene *s = arg;
    size_t first = 0, last = BLOB - 1;
    char header[128] = "";
    bool ranged = wire_range(q, &first, &last);
    size_t n = last - first + 1;
    if (ranged)
        cp_snprintf(header, sizeof(header), "Content-Range: bytes %zu-%zu/%d\r\n", first, last,
                    BLOB);
    if (s->knob == 1 && ranged) { /* ranges are ignored */
        wire_answer(q, 200, "", s->blob, BLOB);
        return;
    }
    wire_cut(q, ranged ? 206 : 200, header, s->blob + first, n, n < 70000 ? n : 70000);
}

static void resume(void **state)
{
    scene *s = *state;
    take t;
    char log[WIRE_LOG];
    serve(s, cutting, NULL);
    s->opt.max_retries = 5;
    cp_registry *r = open_registry(s);
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_OK);
    assert_int_equal(wire_count(s->server), 5);
    wire_log(s->server, log);
    assert_non_null(strstr(log, "|bytes=70000-299999|"));
    assert_non_null(strstr(log, "|bytes=280000-299999|"));
    s->knob = 1; /* the whole again: what was delivered is passed by */
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_OK);
    assert_int_equal(wire_count(s->server), 7);
    fetch(s, r, &t, 100, BLOB - 100); /* a part: the caller must know */
    assert_int_equal(t.code, CP_UNSUPPORTED);
    cp_registry_close(r);
}

/* knob: the fault. */
static void crooked(void *arg, const wire_request *q)
{
    scene *s = arg;
    static const char head[] = "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n";
    char chunk[32];
    switch ((int)s->knob) {
    case 0: /* shorter, and says so */
        wire_answer(q, 200, "", s->blob, BLOB - 1);
        break;
    case 1: /* longer, and says so */
        wire_cut(q, 200, "", s->blob, BLOB + 1, BLOB);
        break;
    case 2: /* without end and length */
        wire_raw(q, head, strlen(head));
        for (int i = 0; i < 40; i++) {
            wire_raw(q, chunk, cp_snprintf(chunk, sizeof(chunk), "%x\r\n", 30000));
            wire_raw(q, s->blob + (size_t)(i % 10) * 30000, 30000);
            wire_raw(q, "\r\n", 2);
        }
        break;
    case 3: /* another size of the whole */
        wire_answer(q, 206, "Content-Range: bytes 10-19/300001\r\n", s->blob + 10, 10);
        break;
    case 4: /* another place */
        wire_answer(q, 206, "Content-Range: bytes 9-18/300000\r\n", s->blob + 10, 10);
        break;
    case 5: /* no place */
        wire_answer(q, 206, "", s->blob + 10, 10);
        break;
    case 6: /* a range longer than asked for */
        wire_answer(q, 206, "Content-Range: bytes 10-20/300000\r\n", s->blob + 10, 11);
        break;
    case 7: /* the right place, more bytes than it says */
        wire_answer(q, 206, "Content-Range: bytes 10-19/300000\r\n", s->blob + 10, 11);
        break;
    case 8:
        wire_answer(q, 200, "Content-Encoding: gzip\r\n", s->blob, BLOB);
        break;
    case 9: /* whose length is not to be read */
        wire_cut(q, 416, "", "xxxx", 300000, 4);
        break;
    case 10:
        wire_answer(q, 204, "", "", 0);
        break;
    default: /* a complaint without end */
        wire_raw(q, "HTTP/1.1 403 X\r\n\r\nno:", 21);
        for (int i = 0; i < 20; i++)
            wire_raw(q, s->blob, BLOB);
    }
}

static void refused_answers(void **state)
{
    scene *s = *state;
    static const struct {
        bool part;
        cp_code code;
        const char *text;
        uint64_t delivered;
    } rows[] = {
        {false, CP_CORRUPT, "299999 bytes, its descriptor says 300000", 0},
        {false, CP_CORRUPT, "300001 bytes, its descriptor says 300000", 0},
        {false, CP_CORRUPT, "more than the 300000 bytes", BLOB},
        {true, CP_CORRUPT, "300001 bytes, its descriptor says 300000", 0},
        {true, CP_UNSUPPORTED, "another range", 0},
        {true, CP_UNSUPPORTED, "another range", 0},
        {true, CP_UNSUPPORTED, "another range", 0},
        {true, CP_CORRUPT, "more than the 10 bytes", 0},
        {false, CP_CORRUPT, "gzip", 0},
        {true, CP_UNSUPPORTED, "416", 0},
        {false, CP_NETWORK, "204", 0},
        {false, CP_NETWORK, "403", 0},
    };
    serve(s, crooked, NULL);
    cp_registry *r = open_registry(s);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        take t;
        int before = wire_count(s->server);
        uint64_t received = cp_registry_received(r);
        s->knob = (int)i;
        if (rows[i].part)
            fetch(s, r, &t, 10, 10);
        else
            fetch(s, r, &t, 0, BLOB);
        if (t.code != rows[i].code || t.next - t.f.from > rows[i].delivered)
            fail_msg("%zu: %d %s, %llu bytes", i, t.code, t.err.msg,
                     (unsigned long long)(t.next - t.f.from));
        assert_message(t, rows[i].text);
        assert_message(t, s->digest);
        assert_int_equal(wire_count(s->server), before + 1); /* no use in asking again */
        assert_true(cp_registry_received(r) - received < 2 * BLOB);
    }
    cp_registry_close(r);
}

static void failing(void *arg, const wire_request *q)
{
    scene *s = arg;
    static const char body[] = "{\"errors\":[{\"code\":\"BUSY\",\"message\":\"later\"}]}";
    if (s->knob-- > 0)
        wire_answer(q, q->count % 2 ? 429 : 503,
                    q->count % 2 ? "Retry-After: 0\r\n" : "Retry-After: tomorrow\r\n", body,
                    sizeof(body) - 1);
    else
        honest(arg, q);
}

static void back_off(void **state)
{
    scene *s = *state;
    take t;
    serve(s, failing, NULL);
    cp_registry *r = open_registry(s);
    s->knob = 3;
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_OK);
    assert_int_equal(wire_count(s->server), 4);
    s->knob = 1000;
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_NETWORK);
    assert_int_equal(wire_count(s->server), 8);
    assert_message(t, "BUSY: later");
    assert_message(t, "4 tries");
    assert_message(t, s->host);
    cp_registry_close(r);
}

static void tomorrow(void *arg, const wire_request *q)
{
    (void)arg;
    wire_answer(q, 429, "Retry-After: 86400\r\n", "", 0);
}

/* More patience than anybody has is not waited for. */
static void retry_after_too_long(void **state)
{
    scene *s = *state;
    take t;
    serve(s, tomorrow, NULL);
    cp_registry *r = open_registry(s);
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_NETWORK);
    assert_message(t, "86400");
    assert_int_equal(wire_count(s->server), 1);
    cp_registry_close(r);
}

/* A registry with tokens: each is good for `knob` requests. */
static void with_tokens(void *arg, const wire_request *q)
{
    scene *s = arg;
    static _Atomic int issued, used;
    char want[64], got[256], header[512], body[128];
    if (q->count == 0)
        issued = used = 0;
    if (strncmp(q->path, "/token", 6) == 0) {
        wire_header(q, "Authorization", got, sizeof(got));
        if (strcmp(got, "Basic " SECRET) != 0) {
            wire_answer(q, 401, "", "{\"details\":\"wrong\"}", 19);
            return;
        }
        used = 0;
        size_t n =
            cp_snprintf(body, sizeof(body), "{\"token\":\"T%d\",\"expires_in\":600}", ++issued);
        wire_answer(q, 200, "", body, n);
        return;
    }
    cp_snprintf(want, sizeof(want), "Bearer T%d", issued);
    wire_header(q, "Authorization", got, sizeof(got));
    if (strcmp(got, want) != 0 || used++ >= s->knob) {
        cp_snprintf(header, sizeof(header),
                    "WWW-Authenticate: Negotiate\r\nWWW-Authenticate: Bearer "
                    "realm=\"http://%s/token?x=1\",service=\"the service\","
                    "scope=\"repository:a/b:pull,push\",error=\"invalid_token\"\r\n",
                    s->host);
        wire_answer(q, 401, header, "", 0);
        return;
    }
    (s->cut ? cutting : honest)(arg, q);
}

static void tokens(void **state)
{
    scene *s = *state;
    take t;
    char log[WIRE_LOG];
    serve(s, with_tokens, NULL);
    log_in(s, "");
    s->knob = 3;
    cp_registry *r = open_registry(s);
    for (uint64_t i = 0; i < 10; i++) { /* expires in between: asked for again, unnoticed */
        fetch(s, r, &t, i * 1000, 1000);
        if (t.code != CP_OK)
            fail_msg("%llu: %s", (unsigned long long)i, t.err.msg);
    }
    wire_log(s->server, log);
    assert_non_null(strstr(log, "GET /token?x=1&service=the%20service&scope=repository%3Aa%2Fb%"
                                "3Apull%2Cpush||Basic " SECRET "\n"));
    s->knob = 2; /* tokens that do not last for one blob, connections neither */
    s->cut = true;
    s->opt.max_retries = 5;
    cp_registry_close(r);
    r = open_registry(s);
    fetch(s, r, &t, 0, BLOB);
    if (t.code != CP_OK)
        fail_msg("%s", t.err.msg);
    s->cut = false;
    s->knob = 0; /* refused whatever the token */
    int before = wire_count(s->server);
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_NETWORK);
    assert_message(t, "invalid_token");
    assert_message(t, s->authfile);
    assert_int_equal(wire_count(s->server), before + 3);
    cp_registry_close(r);
    s->opt.authfile = NULL; /* the token service refuses */
    r = open_registry(s);
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_NETWORK);
    assert_message(t, "token service");
    assert_message(t, "wrong");
    cp_registry_close(r);
}

/* Identity tokens: POST first, GET where the service does not know it. */
static void post_tokens(void *arg, const wire_request *q)
{
    scene *s = arg;
    char got[256], header[256];
    wire_header(q, "Authorization", got, sizeof(got));
    if (strncmp(q->path, "/token", 6) == 0) {
        bool form = strcmp(q->method, "POST") == 0;
        bool right =
            strstr(q->body, "grant_type=refresh_token&service=svc&scope=repository%3Aa%2Fb%"
                            "3Apull&client_id=capstan&refresh_token=id%2Btoken") != NULL;
        if (form && (s->knob == 1 || !right))
            wire_answer(q, s->knob == 1 ? 405 : 400, "", "", 0);
        else
            wire_answer(q, 200, "", "{\"access_token\":\"good\"}", 23);
    } else if (strcmp(got, "Bearer good") == 0) {
        honest(arg, q);
    } else {
        cp_snprintf(header, sizeof(header),
                    "WWW-Authenticate: Bearer realm=\"http://%s/token\",service=\"svc\"\r\n",
                    s->host);
        wire_answer(q, 401, header, "", 0);
    }
}

static void identity_tokens(void **state)
{
    scene *s = *state;
    take t;
    char log[WIRE_LOG];
    serve(s, post_tokens, NULL);
    log_in(s, ",\"identitytoken\":\"id+token\"");
    for (int knob = 0; knob < 2; knob++) {
        s->knob = knob;
        cp_registry *r = open_registry(s);
        fetch(s, r, &t, 0, BLOB);
        if (t.code != CP_OK)
            fail_msg("%s", t.err.msg);
        cp_registry_close(r);
    }
    wire_log(s->server, log);
    assert_non_null(strstr(log, "POST /token||\n"));
    assert_non_null(strstr(log, "GET /token?service=svc&scope=repository%3Aa%2Fb%3Apull||Basic"));
}

static void with_basic(void *arg, const wire_request *q)
{
    char got[256];
    wire_header(q, "Authorization", got, sizeof(got));
    if (strcmp(got, "Basic " SECRET) == 0)
        honest(arg, q);
    else
        wire_answer(q, 401, "WWW-Authenticate: Basic realm=\"r\"\r\n", "", 0);
}

static void basic(void **state)
{
    scene *s = *state;
    take t;
    serve(s, with_basic, NULL);
    cp_registry *r = open_registry(s);
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_NETWORK);
    assert_message(t, "no file with credentials");
    assert_message(t, "401");
    cp_registry_close(r);
    log_in(s, "");
    r = open_registry(s);
    int before = wire_count(s->server);
    for (int i = 0; i < 3; i++) { /* asked once for all */
        fetch(s, r, &t, 0, BLOB);
        assert_int_equal(t.code, CP_OK);
    }
    assert_int_equal(wire_count(s->server), before + 4);
    cp_registry_close(r);
}

/* Token services that must not see the password. */
static void bad_realm(void *arg, const wire_request *q)
{
    scene *s = arg;
    char header[256];
    static const char *const realm[] = {"http://localhost:%d/token", "http://169.254.169.254/%d",
                                        "file:///etc/passwd?%d", "http://u:p@127.0.0.1:%d/", "%d"};
    char url[128];
    const char *format = realm[s->knob];
    const char *at = strstr(format, "%d");
    cp_snprintf(url, sizeof(url), "%.*s%d%s", (int)(at - format), format, s->other_port, at + 2);
    cp_snprintf(header, sizeof(header), "WWW-Authenticate: Bearer realm=\"%s\"\r\n", url);
    wire_answer(q, 401, header, "", 0);
}

static void realms(void **state)
{
    scene *s = *state;
    take t;
    serve(s, bad_realm, honest);
    log_in(s, "");
    for (int i = 0; i < 5; i++) {
        s->knob = i;
        cp_registry *r = open_registry(s);
        fetch(s, r, &t, 0, BLOB);
        assert_int_equal(t.code, CP_NETWORK);
        assert_message(t, "token service");
        cp_registry_close(r);
    }
    assert_int_equal(wire_count(s->other), 0);
    s->opt.authfile = NULL; /* nothing to lose, yet not asked */
    s->knob = 1;
    cp_registry *r = open_registry(s);
    fetch(s, r, &t, 0, BLOB);
    assert_message(t, "has the link-local address");
    cp_registry_close(r);
}

/* Blobs lie elsewhere; knob: how often that place says 403. */
static void redirecting(void *arg, const wire_request *q)
{
    scene *s = arg;
    char got[256], header[256];
    wire_header(q, "Authorization", got, sizeof(got));
    if (strcmp(got, "Basic " SECRET) != 0) {
        wire_answer(q, 401, "WWW-Authenticate: Basic realm=\"r\"\r\n", "", 0);
        return;
    }
    cp_snprintf(header, sizeof(header), "Location: http://127.0.0.1:%d/cdn?sig=%d\r\n",
                s->other_port, q->count);
    wire_answer(q, 307, header, "see there", 9);
}

static void presigned(void *arg, const wire_request *q)
{
    scene *s = arg;
    if (s->knob-- > 0)
        wire_answer(q, 403, "", "<xml>expired</xml>", 18);
    else
        honest(arg, q);
}

static void redirects(void **state)
{
    scene *s = *state;
    take t;
    char log[WIRE_LOG];
    serve(s, redirecting, presigned);
    log_in(s, "");
    cp_registry *r = open_registry(s);
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_OK);
    s->knob = 1; /* an URL that expired: another one is asked for */
    fetch(s, r, &t, 500, 1000);
    assert_int_equal(t.code, CP_OK);
    wire_log(s->other, log);
    assert_null(strstr(log, "Basic"));
    assert_non_null(strstr(log, "/cdn?sig=1||\n"));
    assert_non_null(strstr(log, "/cdn?sig=2|bytes=500-1499|\n"));
    /* The next range begins where the last one was had; the registry is not asked. */
    assert_int_equal(wire_count(s->server), 3); /* without, with credentials, after the 403 */
    fetch(s, r, &t, 1500, 1000);
    assert_int_equal(t.code, CP_OK);
    wire_log(s->other, log);
    assert_non_null(strstr(log, "/cdn?sig=2|bytes=1500-2499|\n"));
    assert_null(strstr(log, "Basic"));
    assert_int_equal(wire_count(s->server), 3);
    s->knob = 1000;
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_NETWORK);
    assert_message(t, "403");
    cp_registry_close(r);
}

static void circle(void *arg, const wire_request *q)
{
    (void)arg;
    wire_answer(q, 302, "Location: /v2/round\r\n", "", 0);
}

static void redirect_loop(void **state)
{
    scene *s = *state;
    take t;
    serve(s, circle, NULL);
    cp_registry *r = open_registry(s);
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_NETWORK);
    assert_message(t, "redirects");
    assert_int_equal(wire_count(s->server), 11);
    cp_registry_close(r);
}

/* knob: what the mirror does. */
static void mirroring(void *arg, const wire_request *q)
{
    scene *s = arg;
    switch ((int)s->knob) {
    case 0:
        honest(arg, q);
        break;
    case 1:
        wire_answer(q, 404, "", "", 0);
        break;
    case 2:
        wire_answer(q, 401, "WWW-Authenticate: Basic realm=\"r\"\r\n", "", 0);
        break;
    case 3:
        wire_answer(q, 500, "", "", 0);
        break;
    case 4: /* ends in the middle: the upstream sends the rest */
        wire_cut(q, 200, "", s->blob, BLOB, q->count == 0 || s->knob == 4 ? 1000 : 0);
        break;
    default:
        wire_answer(q, 200, "", s->blob, BLOB - 1);
    }
}

static void mirrors(void **state)
{
    scene *s = *state;
    serve(s, with_basic, mirroring);
    log_in(s, "");
    use_mirror(s);
    for (int i = 0; i < 6; i++) {
        take t;
        cp_registry *r = open_registry(s);
        int before = wire_count(s->server);
        s->knob = i;
        fetch(s, r, &t, 0, BLOB);
        if (t.code != CP_OK || (i == 0) != (wire_count(s->server) == before))
            fail_msg("%d: %s", i, t.err.msg);
        before = wire_count(s->other);
        t = (take){.f.upstream_only = true};
        start(s, r, &t, 0, BLOB);
        drive(r);
        assert_int_equal(t.code, CP_OK);
        cp_buf body = {0};
        char type[128];
        assert_int_equal(cp_registry_manifest(r, "v1", &body, type, NULL), CP_OK);
        assert_int_equal(wire_count(s->other), before); /* tags are the upstream's */
        assert_string_equal(type, "application/x");
        cp_buf_fini(&body);
        cp_registry_close(r);
    }
    char log[WIRE_LOG], query[128];
    wire_log(s->other, log);
    cp_snprintf(query, sizeof(query), "?ns=127.0.0.1%%3A%d||\n", wire_port(s->server));
    assert_non_null(strstr(log, query));
    assert_null(strstr(log, "Basic"));
}

/* A mirror or a registry that gives no ranges, by knob and bit: 1 the mirror ignores them, 2 it
 * refuses them, 4 the registry refuses them, 8 it lacks the blob. */
static void rangeless_mirror(void *arg, const wire_request *q)
{
    const scene *s = arg;
    size_t first, last;
    if (!wire_range(q, &first, &last) || !(s->knob & 3))
        honest(arg, q);
    else if (s->knob & 1)
        wire_answer(q, 200, "", s->blob, BLOB);
    else
        wire_answer(q, 501, "", "", 0);
}

static void rangeless_upstream(void *arg, const wire_request *q)
{
    const scene *s = arg;
    size_t first, last;
    if (s->knob & 8)
        wire_answer(q, 404, "", "", 0);
    else if ((s->knob & 4) && wire_range(q, &first, &last))
        wire_answer(q, 416, "", "", 0);
    else
        honest(arg, q);
}

/* A part of a blob comes from who gives ranges, and who does not is asked once; where nobody does,
 * the caller is told to ask for the whole, which comes from the mirror. */
static void ranges_and_mirrors(void **state)
{
    scene *s = *state;
    static const struct {
        int knob;
        cp_code part;
    } rows[] = {
        {0, CP_OK},          {1, CP_OK},          {2, CP_OK},           {5, CP_UNSUPPORTED},
        {6, CP_UNSUPPORTED}, {9, CP_UNSUPPORTED}, {10, CP_UNSUPPORTED}, {8, CP_OK},
    };
    serve(s, rangeless_upstream, rangeless_mirror);
    use_mirror(s);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        take t;
        cp_registry *r = open_registry(s);
        s->knob = rows[i].knob;
        int mirror = wire_count(s->other), upstream = wire_count(s->server);
        for (int k = 0; k < 3; k++) {
            fetch(s, r, &t, 1000, 5000);
            if (t.code != rows[i].part)
                fail_msg("%d: code %d %s", rows[i].knob, t.code, t.err.msg);
        }
        bool refuses = (s->knob & 3) != 0;
        if (rows[i].part == CP_OK)
            assert_int_equal(wire_count(s->other) - mirror, refuses ? 1 : 3);
        assert_true(refuses || wire_count(s->server) == upstream);
        upstream = wire_count(s->server);
        fetch(s, r, &t, 0, BLOB);
        assert_int_equal(t.code, CP_OK);
        assert_int_equal(wire_count(s->server), upstream);
        cp_registry_close(r);
    }
}

static void mirror_is_down(void **state)
{
    scene *s = *state;
    take t;
    serve(s, honest, honest);
    wire_stop(s->other);
    s->other = NULL;
    use_mirror(s);
    cp_registry *r = open_registry(s);
    for (int i = 0; i < 3; i++) {
        fetch(s, r, &t, 0, BLOB);
        assert_int_equal(t.code, CP_OK);
    }
    cp_registry_close(r);
}

/* knob: 0 right, 1 absent, 2 too long without a length, 3 a wrong Docker-Content-Digest. */
static void with_manifests(void *arg, const wire_request *q)
{
    scene *s = arg;
    static const char gone[] =
        "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}";
    char header[256], accept[512];
    wire_header(q, "Accept", accept, sizeof(accept));
    if (!strstr(accept, CP_MT_OCI_MANIFEST) || !strstr(accept, CP_MT_OCI_INDEX) ||
        !strstr(accept, CP_MT_DOCKER_MANIFEST) || !strstr(accept, CP_MT_DOCKER_LIST))
        s->knob = 1;
    switch ((int)s->knob) {
    case 0:
        wire_answer(q, 200, "Content-Type: Application/X ;a=b\r\n", "abc", 3);
        break;
    case 1:
        wire_answer(q, 404, "", gone, sizeof(gone) - 1);
        break;
    case 2:
        wire_raw(q, "HTTP/1.1 200 X\r\n\r\n", 18);
        for (int i = 0; i < 20; i++)
            wire_raw(q, s->blob, BLOB);
        break;
    default:
        cp_snprintf(header, sizeof(header), "Docker-Content-Digest: %s\r\n", s->digest);
        wire_answer(q, 200, header, "abc", 3);
    }
}

static void manifests(void **state)
{
    static const char abc[] =
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    scene *s = *state;
    take t; /* for assert_message */
    static const struct {
        int knob;
        const char *reference; /* NULL: another digest than the body has */
        cp_code code;
        const char *text;
    } rows[] = {
        {0, "v1", CP_OK, ""},
        {0, abc, CP_OK, ""},
        {0, NULL, CP_CORRUPT, "its digest is sha256:ba7816bf"},
        {1, "v1", CP_NOT_FOUND, "MANIFEST_UNKNOWN: manifest unknown"},
        {2, "v1", CP_CORRUPT, "4194304"},
        {3, "v1", CP_CORRUPT, "the registry says"},
        {3, abc, CP_OK, ""},
        {0, "a/b", CP_USAGE, "neither a tag"},
        {0, "v1\r\nX: y", CP_USAGE, "neither a tag"},
        {0, "", CP_USAGE, "neither a tag"},
    };
    serve(s, with_manifests, NULL);
    cp_registry *r = open_registry(s);
    assert_string_equal(cp_registry_name(r) + strlen(s->host), "/a/b");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_buf body = {0};
        char type[128];
        s->knob = rows[i].knob;
        cp_code code = cp_registry_manifest(r, rows[i].reference ? rows[i].reference : s->digest,
                                            &body, type, &t.err);
        if (code != rows[i].code)
            fail_msg("%zu: %d %s", i, code, t.err.msg);
        if (code == CP_OK) {
            assert_int_equal(body.n, 3);
            assert_string_equal(type, rows[i].knob ? "" : "application/x");
        } else {
            assert_message(t, rows[i].text);
        }
        cp_buf_fini(&body);
    }
    cp_registry_close(r);
}

static void garbage(void *arg, const wire_request *q)
{
    (void)arg;
    wire_raw(q, "SSH-2.0-x\r\n", 11);
}

static void not_http(void **state)
{
    scene *s = *state;
    take t;
    serve(s, garbage, NULL);
    cp_registry *r = open_registry(s);
    fetch(s, r, &t, 0, BLOB);
    assert_int_equal(t.code, CP_NETWORK);
    assert_message(t, "HTTP");
    cp_registry_close(r);
}

int cp_suite_registry(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, enter, leave)
    const struct CMUnitTest tests[] = {
        TEST(ranges),    TEST(data_refuses),
        TEST(resume),    TEST(refused_answers),
        TEST(back_off),  TEST(retry_after_too_long),
        TEST(tokens),    TEST(identity_tokens),
        TEST(basic),     TEST(realms),
        TEST(redirects), TEST(redirect_loop),
        TEST(mirrors),   TEST(mirror_is_down),
        TEST(manifests), TEST(ranges_and_mirrors),
        TEST(not_http),
    };
#undef TEST
    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
