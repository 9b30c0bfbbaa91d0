/*
 * This file holds the table of routes and finds the row of a request; what has no row does not
 * exist. It runs on the loop thread.
 */
#include "server/routes.h"

#include "server/api/oip.h"
#include "server/gate.h"
#include "server/handlers.h"
#include "server/head.h"
#include "server/life.h"
#include "server/origin.h"
#include "server/query.h"
#include "server/reply.h"

#include <stdlib.h>
#include <string.h>

enum {
    OPEN = 0,
    ANY = CP_SCOPE_INFERENCE | CP_SCOPE_ADMIN,
    WATCH = ANY | CP_SCOPE_METRICS,
    USE = CP_SCOPE_INFERENCE,
    ADMIN = CP_SCOPE_ADMIN
};

static const cp_route routes[] = {
#define CP_ROUTE(method, path, scope, handler)                                                     \
    {CP_##method, path, scope, NULL, NULL, cp_handle_##handler},
#define CP_ROUTE_OF(api, method, path, scope, handler)                                             \
    {CP_##method, path, scope, NULL, &cp_api_##api, cp_handle_##handler},
#define CP_ROUTE_API(path, scope, api)                                                             \
    {CP_POST, path, scope, &cp_api_##api, &cp_api_##api, cp_call_start},
#include "server/routes.def"
#ifdef CP_ROUTES_MORE /* a test's own API: tests/unit/server/toy.def */
#include CP_ROUTES_MORE
#endif
#undef CP_ROUTE
#undef CP_ROUTE_OF
#undef CP_ROUTE_API
};
enum { N_ROUTES = sizeof(routes) / sizeof(routes[0]) };

const cp_route *cp_route_at(size_t i)
{
    return i < N_ROUTES ? &routes[i] : NULL;
}

/* What clients of KServe's own servers put in front of OpenAI's paths. */
static const char *without_prefix(const char *path)
{
    static const char prefix[] = "/openai";
    size_t n = sizeof(prefix) - 1;
    return strncmp(path, prefix, n) == 0 && strncmp(path + n, "/v1/", 4) == 0 ? path + n : path;
}

/* The name in path where the row has {model}: *n bytes, 1 or more. NULL: the row is of another
 * path, or (*n 0) of this very one. */
static const char *name_in(const cp_route *r, const char *path, size_t *n)
{
    const char *mark = strstr(r->path, CP_ROUTE_MODEL);
    *n = 1;
    if (!mark) {
        *n = strcmp(path, r->path) != 0;
        return NULL;
    }
    const char *after = mark + strlen(CP_ROUTE_MODEL);
    size_t front = (size_t)(mark - r->path), back = strlen(after), all = strlen(path);
    if (all <= front + back || strncmp(path, r->path, front) != 0 ||
        strcmp(path + all - back, after) != 0)
        return NULL;
    *n = all - front - back;
    return path + front;
}

static bool path_matches(const cp_route *r, const char *path)
{
    size_t n;
    return name_in(r, path, &n) || n == 0;
}

/* The name that path has where r's has {model}, decoded once, into out (at least as long as path,
 * and a byte). NULL, and words: it is malformed. */
static const char *model_of(const cp_route *r, const char *path, char *out, cp_err *err)
{
    size_t n, k;
    const char *name = name_in(r, without_prefix(path), &n);
    CP_ASSERT(name);
    if (!cp_percent_decode(name, n, out, n + 1)) {
        cp_fail_param(err, CP_MODEL_NOT_FOUND, "model",
                      "'%.*s' is no model's name: a byte after %% is two hexadecimal digits, "
                      "and not 00",
                      (int)(n < 200 ? n : 200), name);
        return NULL;
    }
    k = strlen(out);
    /* the one version that each model has there may be named */
    static const char version[] = "/versions/" CP_OIP_VERSION;
    size_t tail = sizeof(version) - 1;
    if (r->words == &cp_api_infer && k > tail && strcmp(out + k - tail, version) == 0)
        out[k - tail] = '\0';
    return out;
}

/* *other: a row of the same path, whatever its method. */
static const cp_route *find_route(const cp_http_req *q, const cp_route **other)
{
    const char *path = without_prefix(cp_http_path(q));
    cp_method method = cp_http_method(q) == CP_HEAD ? CP_GET : cp_http_method(q);
    *other = NULL;
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (!path_matches(&routes[i], path))
            continue;
        *other = &routes[i];
        if (routes[i].method == method)
            return &routes[i];
    }
    return NULL;
}

static void refuse_framing(cp_call *c, int status)
{
    static const struct {
        int status;
        cp_code code;
        const char *words;
    } rows[] = {
        {414, CP_INVALID_VALUE, "the request's target is too long; allowed: at most 8192 bytes"},
        {417, CP_INVALID_VALUE, "this expectation is not met; allowed: Expect: 100-continue"},
        {431, CP_INVALID_VALUE,
         "the request's head is too large; allowed: at most 100 headers and 32768 bytes"},
        {501, CP_INVALID_VALUE, "this method or transfer coding is not implemented"},
        {503, CP_OVERLOADED, "too many connections"},
        {505, CP_INVALID_VALUE, "this HTTP version is not supported; allowed: 1.1, 1.0"},
        {0, CP_INVALID_VALUE,
         "the request's head, or its body's framing, is malformed or ambiguous"}};
    size_t i = 0;
    while (rows[i].status && rows[i].status != status)
        i++;
    cp_err err;
    cp_fail(&err, rows[i].code, "%s", rows[i].words);
    cp_call_error(c, status, rows[i].code, &err);
}

/* The header names that are asked for, or all that there are. The answer is the same at every path,
 * so that it tells nothing of which exist. */
static void preflight(cp_call *c)
{
    const char *asked = cp_http_header(c->q, "Access-Control-Request-Headers");
    cp_http_add_header(c->q, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    cp_http_add_header(c->q, "Access-Control-Allow-Headers", cp_origin_headers(asked));
    cp_http_add_header(c->q, "Vary", "Access-Control-Request-Headers");
    cp_http_add_header(c->q, "Access-Control-Max-Age", "600");
    cp_call_reply(c, 204, NULL, NULL);
}

/* What path and headers say of the model and of a body to come. */
static cp_code read_head(cp_call *c, const cp_route *r, cp_err *err)
{
    if (strstr(r->path, CP_ROUTE_MODEL)) {
        char name[CP_TARGET_MAX + 1];
        if (!model_of(r, cp_http_path(c->q), name, err))
            return CP_MODEL_NOT_FOUND;
        c->named = cp_xstrdup(name);
    }
    c->n_json = SIZE_MAX;
    const char *length = cp_http_header(c->q, "Inference-Header-Content-Length");
    if (!r->api || !r->api->binary || !length)
        return CP_OK;
    size_t digits = strspn(length, "0123456789");
    c->n_json = (size_t)strtoull(length, NULL, 10);
    if (digits > 0 && digits < 10 && !length[digits])
        return CP_OK;
    return cp_fail_param(err, CP_INVALID_VALUE, "Inference-Header-Content-Length",
                         "the header Inference-Header-Content-Length is '%.32s'; allowed: the "
                         "bytes of the body's JSON",
                         length);
}

void cp_route_head(void *arg, cp_http_req *q, int bad)
{
    cp_server *s = arg;
    cp_call *c = cp_call_new(s, q);
    const cp_route *other, *route = find_route(q, &other);
    c->api = other ? other->words : NULL;
    /* Connections are full: probes alone are answered. */
    bool probe_only = bad == 503 && route && route->scope == 0 && !cp_http_has_body(q);
    if (bad && !probe_only) {
        if (bad == 503)
            cp_call_count_rejected(c, CP_M_REJECTED_CONNECTIONS);
        refuse_framing(c, bad);
        return;
    }
    cp_err err = {0};
    cp_code code = cp_gate_host(s, q, &err);
    if (code == CP_OK && cp_http_method(q) == CP_OPTIONS && s->rules->n_cors_origins > 0) {
        preflight(c);
        return;
    }
    if (code == CP_OK)
        code = cp_gate_check(s, q, route, other, &err);
    code = code ? code : read_head(c, route, &err);
    if (code != CP_OK) {
        cp_call_error(c, 0, code, &err);
        return;
    }
    c->route = route;
    if (cp_route_counts(route))
        atomic_fetch_add(&s->n_active, 1);
    if (!route->api)
        cp_http_ignore_body(q);
}

void cp_route_request(void *arg, cp_http_req *q, int bad)
{
    const cp_server *s = arg;
    cp_call *c = cp_http_user(q);
    cp_err err;
    if (bad == 413)
        cp_call_error(c, 0,
                      cp_fail(&err, CP_TOO_LARGE,
                              "the body is too long; allowed: at most %llu bytes",
                              (unsigned long long)cp_gate_body_max(s)),
                      &err);
    else if (bad == 503)
        cp_call_error(c, 0,
                      cp_fail(&err, CP_OVERLOADED,
                              "the memory for requests (--body-bytes, %llu bytes) is in use",
                              (unsigned long long)cp_budget_limit(s->budget)),
                      &err);
    else if (bad)
        refuse_framing(c, bad);
    else
        c->route->handle(c);
}
