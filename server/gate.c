/*
 * The gate checks what stands before every route: keys, scopes, sites, sizes, the state of the
 * server. It looks at keys first, so that without one an unknown path looks like any other.
 */
#include "server/gate.h"

#include "server/auth.h"
#include "server/call.h"
#include "server/origin.h"

#include <string.h>
#include <strings.h>

static const char *key_of(const cp_http_req *q)
{
    const char *h = cp_http_header(q, "Authorization");
    const char *key = h ? cp_auth_bearer(h) : NULL;
    return key ? key : cp_http_header(q, "X-Api-Key");
}

/* What lies here changes the server or looks into it, so loopback is no lock for it. */
static bool is_admin(const char *path)
{
    return strncmp(path, "/admin/", 7) == 0 || strncmp(path, "/debug/", 7) == 0;
}

/* Scopes of which a key needs one (0: none is needed), 0 where nothing is known of the path. */
static unsigned scopes_for(const cp_http_req *q, const cp_route *route)
{
    return is_admin(cp_http_path(q)) ? CP_SCOPE_ADMIN : route ? route->scope : 0;
}

/* CP_OK, or why this key may not use the route (NULL: a path that has no row). */
static cp_code authorize(const cp_server *s, const cp_http_req *q, const cp_route *route,
                         cp_err *err)
{
    unsigned needed = scopes_for(q, route);
    if (s->rules->n_keys == 0 && needed == CP_SCOPE_ADMIN)
        return cp_fail(err, CP_PERMISSION,
                       "%.200s needs a key of scope admin, and this server has no keys; give it "
                       "one with --api-key-file (a line: KEY scopes=admin)",
                       cp_http_path(q));
    if (s->rules->n_keys == 0 || (route && needed == 0))
        return CP_OK;
    const char *key = key_of(q);
    if (key && s->audit)
        cp_auth_name(key, ((cp_call *)cp_http_user(q))->key);
    unsigned scopes = key ? cp_auth_scopes(s->rules->keys, s->rules->n_keys, key) : 0;
    if (scopes == 0)
        return cp_fail(err, CP_INVALID_API_KEY,
                       key ? "the API key is not known; send a valid one as 'Authorization: Bearer "
                             "KEY'"
                           : "an API key is needed; send it as 'Authorization: Bearer KEY'");
    if (needed && !(scopes & needed))
        return cp_fail(err, CP_PERMISSION, "this API key's scopes do not include this route");
    return CP_OK;
}

cp_code cp_gate_host(const cp_server *s, const cp_http_req *q, cp_err *err)
{
    const char *host = cp_http_authority(q);
    if (s->rules->n_keys > 0 || !cp_http_loopback(s->http) ||
        cp_host_allowed(host, s->rules->allowed_hosts, s->rules->n_allowed_hosts))
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
    if (!route->api || !foreign ||
        cp_origin_allowed(origin, s->rules->cors_origins, s->rules->n_cors_origins) ||
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
    if (!route->api || !coding || !*coding || strcasecmp(coding, "identity") == 0)
        return CP_OK;
    return cp_fail(err, CP_INVALID_VALUE,
                   "the body has Content-Encoding '%.64s'; send it as it is, without the header",
                   coding);
}

/* What a state of the server refuses: CP_OK, or CP_LOADING, CP_OVERLOADED. */
static cp_code check_state(const cp_server *s, const cp_route *route, cp_err *err)
{
    if (!route->api)
        return CP_OK;
    if (!atomic_load(&s->ready_to_serve))
        return cp_fail(err, CP_LOADING, "the model is still loading");
    int drain = atomic_load(&s->drain);
    if (drain < CP_REFUSE)
        return CP_OK;
    cp_metric_add(s->metrics, CP_M_REJECTED_DRAINING, 1);
    return cp_fail(err, CP_OVERLOADED, "the server is shutting down");
}

uint64_t cp_gate_body_max(const cp_server *s)
{
    uint64_t most = cp_budget_arriving_max(s->budget);
    return most < CP_BODY_MAX ? most : CP_BODY_MAX;
}

cp_code cp_gate_check(const cp_server *s, cp_http_req *q, const cp_route *route,
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
    if (code == CP_OK && cp_http_length(q) > cp_gate_body_max(s))
        code =
            cp_fail(err, CP_TOO_LARGE, "the body has %llu bytes; allowed: at most %llu",
                    (unsigned long long)cp_http_length(q), (unsigned long long)cp_gate_body_max(s));
    return code ? code : check_state(s, route, err);
}
