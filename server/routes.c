/*
 * This file holds the table of routes and finds the row of a request; what has no row does not
 * exist. It runs on the loop thread.
 */
#include "server/routes.h"

#include "server/gate.h"
#include "server/handlers.h"
#include "server/life.h"
#include "server/origin.h"
#include "server/reply.h"

#include <string.h>

enum { OPEN = 0, ANY = CP_SCOPE_INFERENCE | CP_SCOPE_ADMIN, USE = CP_SCOPE_INFERENCE };

static const cp_route routes[] = {
#define CP_ROUTE(method, path, prefix, scope, handler)                                             \
    {CP_##method, path, prefix, scope, NULL, cp_handle_##handler},
#define CP_ROUTE_API(path, scope, api) {CP_POST, path, false, scope, &cp_api_##api, cp_call_start},
#include "server/routes.def"
#ifdef CP_ROUTES_MORE /* a test's own API: tests/unit/server/toy.def */
#include CP_ROUTES_MORE
#endif
#undef CP_ROUTE
#undef CP_ROUTE_API
};
enum { N_ROUTES = sizeof(routes) / sizeof(routes[0]) };

const cp_route *cp_route_at(size_t i)
{
    return i < N_ROUTES ? &routes[i] : NULL;
}

static bool path_matches(const cp_route *r, const char *path)
{
    if (!r->prefix)
        return strcmp(path, r->path) == 0;
    size_t n = strlen(r->path);
    return strncmp(path, r->path, n) == 0 && path[n];
}

/* *other: a row of the same path, whatever its method. */
static const cp_route *find_route(const cp_http_req *q, const cp_route **other)
{
    const char *path = cp_http_path(q);
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

void cp_route_head(void *arg, cp_http_req *q, int bad)
{
    cp_server *s = arg;
    cp_call *c = cp_call_new(s, q);
    const cp_route *other, *route = find_route(q, &other);
    c->api = other ? other->api : NULL;
    /* Connections are full: probes alone are answered. */
    bool probe_only = bad == 503 && route && route->scope == 0 && !cp_http_has_body(q);
    if (bad && !probe_only) {
        refuse_framing(c, bad);
        return;
    }
    cp_err err = {0};
    cp_code code = cp_gate_host(s, q, &err);
    if (code == CP_OK && cp_http_method(q) == CP_OPTIONS && s->n_cors_origins > 0) {
        preflight(c);
        return;
    }
    if (code == CP_OK)
        code = cp_gate_check(s, q, route, other, &err);
    if (code != CP_OK) {
        cp_call_error(c, 0, code, &err);
        return;
    }
    c->route = route;
    if (route->api)
        atomic_fetch_add(&s->n_active, 1);
    else
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
