/*
 * The routes, a row each, and what stands before every one of them: framing, keys, scopes, methods,
 * sizes, state. Keys come first, so that without one an unknown path looks like any other. What has
 * no row does not exist. Loop thread.
 */
#include "server/internal.h"

#include "server/auth.h"
#include "server/origin.h"

#include <string.h>
#include <strings.h>

static const char TYPE_JSON[] = "application/json";

static void handle_body(cp_call *c)
{
    cp_call_start(c);
}

/* ---- probes ---- */

/* {"status":"ok|loading|draining","phase":...}; a phase that counts bytes adds them. */
static void probe(cp_call *c, bool good)
{
    const cp_server *s = c->s;
    const char *status = "ok", *phase = "serving";
    if (atomic_load(&s->drain) != CP_RUN) {
        status = phase = "draining";
    } else if (!atomic_load(&s->ready_to_serve)) {
        status = "loading";
        phase = atomic_load(&s->phase);
    }
    cp_buf b = {0};
    cp_buf_printf(&b, "{\"status\":\"%s\",\"phase\":", status);
    cp_emit_str(&b, phase, strlen(phase));
    unsigned long long done = atomic_load(&s->load_done), total = atomic_load(&s->load_total);
    if (strcmp(status, "loading") == 0 && (done || total)) {
        cp_buf_printf(&b, ",\"bytes_done\":%llu,\"bytes_total\":%llu,\"bytes_per_second\":%llu",
                      done, total, (unsigned long long)atomic_load(&s->load_rate));
    }
    cp_buf_addc(&b, '}');
    cp_call_reply(c, good ? 200 : 503, TYPE_JSON, &b);
}

static void handle_ready(cp_call *c)
{
    probe(c, atomic_load(&c->s->ready_to_serve) && atomic_load(&c->s->drain) == CP_RUN);
}

static void handle_live(cp_call *c)
{
    const cp_engine_api *e = &c->s->engine;
    probe(c, !atomic_load(&c->s->ready_to_serve) || !e->alive || e->alive(e->self));
}

static void handle_startup(cp_call *c)
{
    probe(c, atomic_load(&c->s->ready_to_serve));
}

/* ---- what the server says of itself ---- */

static void handle_version(cp_call *c)
{
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"version\":");
    cp_emit_str(&b, c->s->version, strlen(c->s->version));
    cp_buf_addc(&b, '}');
    cp_call_reply(c, 200, TYPE_JSON, &b);
}

static void handle_metrics(cp_call *c)
{
    cp_server *s = c->s;
    cp_metrics *list[CP_SERVED_MAX + 1];
    const cp_served *m;
    int n = 0;
    cp_metric_set(s->metrics, CP_M_CONNECTIONS, cp_http_connections(s->http));
    cp_metric_set(s->metrics, CP_M_BUDGET_BODIES, (int64_t)cp_budget_used(s->budget));
    cp_metric_set(s->metrics, CP_M_BUDGET_LIMIT_BODIES, (int64_t)cp_budget_limit(s->budget));
    if (s->metrics)
        list[n++] = s->metrics;
    for (int i = 0; (m = cp_served_at(&s->models, i)); i++)
        if (m->metrics)
            list[n++] = m->metrics;
    cp_buf b = {0};
    cp_metrics_write(&b, list, n);
    cp_call_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

static void emit_model(const cp_served *m, cp_buf *b)
{
    cp_buf_adds(b, "{\"id\":");
    cp_emit_str(b, m->ids[0], strlen(m->ids[0]));
    cp_buf_printf(b,
                  ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"capstan\","
                  "\"max_model_len\":%d,\"quantization\":",
                  (long long)m->created, m->limits.ctx);
    cp_emit_str(b, m->quantization, strlen(m->quantization));
    cp_buf_adds(b, ",\"digest\":");
    cp_emit_str(b, m->digest, strlen(m->digest));
    cp_buf_addc(b, '}');
}

static void handle_models(cp_call *c)
{
    const cp_served *m;
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; (m = cp_served_at(&c->s->models, i)); i++) {
        if (i > 0)
            cp_buf_addc(&b, ',');
        emit_model(m, &b);
    }
    cp_buf_adds(&b, "]}");
    cp_call_reply(c, 200, TYPE_JSON, &b);
}

static int hex(char ch)
{
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                    : -1;
}

/* The rest of the path, percent-decoded once; NULL: malformed. */
static const char *decode(const char *p, char *out, size_t cap)
{
    size_t n = 0;
    for (; *p; p++) {
        if (n + 1 >= cap)
            return NULL;
        if (*p != '%') {
            out[n++] = *p;
            continue;
        }
        int hi = hex(p[1]), lo = hi < 0 ? -1 : hex(p[2]);
        if (lo < 0 || hi * 16 + lo == 0)
            return NULL;
        out[n++] = (char)(hi * 16 + lo);
        p += 2;
    }
    out[n] = '\0';
    return out;
}

static void handle_model(cp_call *c)
{
    char name[1024];
    const char *rest = cp_http_path(c->q) + strlen(c->route->path);
    const char *id = decode(rest, name, sizeof(name));
    const cp_served *m = id ? cp_served_find(&c->s->models, id, strlen(id)) : NULL;
    if (!m) {
        cp_err err;
        cp_call_error(c, 0,
                      cp_fail_param(&err, CP_MODEL_NOT_FOUND, "model",
                                    "the model '%.200s' does not exist; GET /v1/models lists what "
                                    "does",
                                    id ? id : rest),
                      &err);
        return;
    }
    cp_buf b = {0};
    emit_model(m, &b);
    cp_call_reply(c, 200, TYPE_JSON, &b);
}

/* ---- the table ---- */

enum { ANY = CP_SCOPE_INFERENCE | CP_SCOPE_ADMIN, USE = CP_SCOPE_INFERENCE };

static const cp_route routes[] = {
    {CP_GET, "/health", false, 0, 0, false, handle_ready},
    {CP_GET, "/livez", false, 0, 0, false, handle_live},
    {CP_GET, "/readyz", false, 0, 0, false, handle_ready},
    {CP_GET, "/startupz", false, 0, 0, false, handle_startup},
    {CP_GET, "/version", false, ANY, 0, false, handle_version},
    {CP_GET, "/metrics", false, ANY, 0, false, handle_metrics},
    {CP_GET, "/v1/models", false, ANY, 0, false, handle_models},
    {CP_GET, "/v1/models/", true, ANY, 0, false, handle_model},
    {CP_POST, "/v1/chat/completions", false, USE, CP_AT_CHAT, true, handle_body},
    {CP_POST, "/v1/completions", false, USE, CP_AT_TEXT, true, handle_body},
    {CP_POST, "/tokenize", false, USE, CP_AT_TOKENIZE, false, handle_body},
    {CP_POST, "/detokenize", false, USE, CP_AT_DETOKENIZE, false, handle_body},
    {CP_POST, "/apply-template", false, USE, CP_AT_APPLY, false, handle_body},
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

/* ---- before any route ---- */

static const char *key_of(const cp_http_req *q)
{
    const char *h = cp_http_header(q, "Authorization");
    const char *key = h ? cp_auth_bearer(h) : NULL;
    return key ? key : cp_http_header(q, "X-Api-Key");
}

/* CP_OK, or why this key may not use the route (NULL: a path that has no row). */
static cp_code authorize(const cp_server *s, const cp_http_req *q, const cp_route *route,
                         cp_err *err)
{
    if (s->n_keys == 0 || (route && route->scope == 0))
        return CP_OK;
    const char *key = key_of(q);
    unsigned scopes = key ? cp_auth_scopes(s->keys, s->n_keys, key) : 0;
    if (scopes == 0)
        return cp_fail(err, CP_INVALID_API_KEY,
                       key ? "the API key is not known; send a valid one as 'Authorization: Bearer "
                             "KEY'"
                           : "an API key is needed; send it as 'Authorization: Bearer KEY'");
    if (route && !(scopes & route->scope))
        return cp_fail(err, CP_PERMISSION, "this API key's scopes do not include this route");
    return CP_OK;
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

/* Without keys, loopback is the only lock: a page whose name was rebound to it must stay out. */
static cp_code check_host(const cp_server *s, const cp_http_req *q, cp_err *err)
{
    const char *host = cp_http_authority(q);
    if (s->n_keys > 0 || !cp_http_loopback(s->http) ||
        cp_host_allowed(host, s->allowed_hosts, s->n_allowed_hosts))
        return CP_OK;
    return cp_fail(err, CP_PERMISSION,
                   "this server is for this machine, and Host '%.200s' is neither localhost nor a "
                   "loopback address; --allowed-host NAME lets a name in",
                   host ? host : "");
}

/* A body of a kind that browsers send to other sites without asking them first. */
static cp_code check_origin(const cp_server *s, const cp_http_req *q, const cp_route *route,
                            cp_err *err)
{
    const char *origin = cp_http_header(q, "Origin"), *site = cp_http_header(q, "Sec-Fetch-Site");
    bool foreign = origin ? !cp_origin_same(origin, cp_http_authority(q))
                          : site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0;
    if (route->where == 0 || !foreign ||
        cp_origin_allowed(origin, s->cors_origins, s->n_cors_origins) ||
        cp_type_is_json(cp_http_header(q, "Content-Type")))
        return CP_OK;
    return cp_fail(err, CP_PERMISSION,
                   "a page of origin '%.200s' must send its body as application/json; "
                   "--cors-origin ORIGIN allows an origin",
                   origin ? origin : site);
}

/* Compressed bytes would be told that they are no JSON, which does not help. */
static cp_code check_encoding(const cp_http_req *q, const cp_route *route, cp_err *err)
{
    const char *coding = cp_http_header(q, "Content-Encoding");
    if (route->where == 0 || !coding || !*coding || strcasecmp(coding, "identity") == 0)
        return CP_OK;
    return cp_fail(err, CP_INVALID_VALUE,
                   "the body has Content-Encoding '%.64s'; send it as it is, without the header",
                   coding);
}

/* What a state of the server refuses: CP_OK, or CP_LOADING, CP_OVERLOADED. */
static cp_code check_state(const cp_server *s, const cp_route *route, cp_err *err)
{
    if (route->where == 0)
        return CP_OK;
    if (!atomic_load(&s->ready_to_serve))
        return cp_fail(err, CP_LOADING, "the model is still loading");
    int drain = atomic_load(&s->drain);
    if (drain >= CP_REFUSE)
        return cp_fail(err, CP_OVERLOADED, "the server is shutting down");
    return CP_OK;
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

/* Of one body: what could never be held is refused at its head. */
static uint64_t body_max(const cp_server *s)
{
    uint64_t most = cp_budget_arriving_max(s->budget);
    return most < CP_BODY_MAX ? most : CP_BODY_MAX;
}

/* Everything that stands before a route (NULL: none; other: of the same path), in its order. */
static cp_code admit(const cp_server *s, cp_http_req *q, const cp_route *route,
                     const cp_route *other, cp_err *err)
{
    const char *path = cp_http_path(q);
    cp_code code = authorize(s, q, route ? route : other, err);
    if (code != CP_OK)
        return code;
    if (!other)
        return cp_fail(err, CP_NOT_FOUND, "there is nothing at %.200s", path);
    if (!route) {
        cp_http_add_header(q, "Allow", other->method == CP_GET ? "GET, HEAD" : "POST");
        return cp_fail(err, CP_METHOD, "%.200s takes %s", path,
                       other->method == CP_GET ? "GET" : "POST");
    }
    code = check_origin(s, q, route, err);
    if (code == CP_OK)
        code = check_encoding(q, route, err);
    if (code == CP_OK && cp_http_length(q) > body_max(s))
        code = cp_fail(err, CP_TOO_LARGE, "the body has %llu bytes; allowed: at most %llu",
                       (unsigned long long)cp_http_length(q), (unsigned long long)body_max(s));
    return code ? code : check_state(s, route, err);
}

void cp_route_head(void *arg, cp_http_req *q, int bad)
{
    cp_server *s = arg;
    cp_call *c = cp_call_new(s, q);
    const cp_route *other, *route = find_route(q, &other);
    /* Connections are full: probes alone are answered. */
    bool probe_only = bad == 503 && route && route->scope == 0 && !cp_http_has_body(q);
    if (bad && !probe_only) {
        refuse_framing(c, bad);
        return;
    }
    cp_err err = {0};
    cp_code code = check_host(s, q, &err);
    if (code == CP_OK && cp_http_method(q) == CP_OPTIONS && s->n_cors_origins > 0) {
        preflight(c);
        return;
    }
    if (code == CP_OK)
        code = admit(s, q, route, other, &err);
    if (code != CP_OK) {
        cp_call_error(c, 0, code, &err);
        return;
    }
    c->route = route;
    if (route->where == 0)
        cp_http_ignore_body(q);
    if (route->where != 0) {
        c->counted = true;
        atomic_fetch_add(&s->n_active, 1);
    }
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
                              (unsigned long long)body_max(s)),
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
