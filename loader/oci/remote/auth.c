/*
 * Answers to challenges (RFC 9110 §11; distribution's "Token Authentication Specification"). A
 * registry names its token service itself, so a hostile one names any host. Credentials therefore
 * never go over plain HTTP when the registry is asked over TLS, and otherwise over plain HTTP only
 * to the registry's own host. They never go to link-local addresses, and to private ones only when
 * the registry has such an address itself.
 */
#include "loader/oci/remote/auth.h"
#include "loader/oci/remote/base64.h"
#include "loader/oci/remote/challenge.h"
#include "loader/oci/remote/credentials.h"
#include "loader/oci/remote/reply.h"

#include <stdlib.h>
#include <string.h>

enum { REFRESH_PERCENT = 80, SCOPES_MAX = 16 };

static cp_code judge_realm(const cp_endpoint *e, const char *realm, cp_err *err)
{
    cp_origin o;
    if (!cp_url_origin(realm, &o))
        return cp_fail(err, CP_NETWORK, "its token service '%.160s' is no usable http(s) URL",
                       realm);
    cp_address_kind kind = cp_host_classify(o.host);
    bool own = cp_endpoint_has_host(e, &o);
    if (kind == CP_ADDRESS_METADATA)
        return cp_fail(err, CP_NETWORK, "its token service has the link-local address %s, refused",
                       o.host);
    if (e->https && !o.https)
        return cp_fail(err, CP_NETWORK, "its token service http://%s:%d is not https, refused",
                       o.host, o.port);
    if (!own && !o.https && cp_credential_any(&e->credential))
        return cp_fail(err, CP_NETWORK,
                       "its token service is another host, http://%s:%d: the credentials from "
                       "%.120s do not go there in the clear",
                       o.host, o.port, e->credential.from);
    if (!own && kind != CP_ADDRESS_PUBLIC && !e->private_net)
        return cp_fail(err, CP_NETWORK,
                       "its token service has the private address %s, the registry a public one: "
                       "refused",
                       o.host);
    return CP_OK;
}

static void forget_token(cp_endpoint *e)
{
    cp_secret_free(&e->token);
    e->token_due_ms = 0;
}

static cp_code answer_bearer(cp_endpoint *e, const cp_challenge *c, cp_err *err)
{
    if (e->credential.registry_token) {
        if (e->auth == CP_AUTH_BEARER)
            return cp_fail(err, CP_NETWORK, "the registry token from %.200s is refused",
                           e->credential.from);
        e->auth = CP_AUTH_BEARER;
        e->token = cp_xstrdup(e->credential.registry_token);
        e->token_due_ms = INT64_MAX;
        e->generation++;
        return CP_OK;
    }
    cp_code code = judge_realm(e, c->realm, err);
    if (code != CP_OK)
        return code;
    cp_strcopy(e->realm, sizeof(e->realm), c->realm);
    cp_strcopy(e->service, sizeof(e->service), c->service);
    if (c->scope[0])
        cp_strcopy(e->scope, sizeof(e->scope), c->scope);
    else
        cp_snprintf(e->scope, sizeof(e->scope), "repository:%s:pull", e->repository);
    e->auth = CP_AUTH_BEARER;
    forget_token(e);
    return CP_OK;
}

static cp_code answer_basic(cp_endpoint *e, cp_err *err)
{
    const cp_credential *c = &e->credential;
    if (!c->user || !c->password)
        return cp_fail(err, CP_NETWORK, "it wants credentials and there are none for %s (%.300s)",
                       e->shown, c->from);
    if (e->auth == CP_AUTH_BASIC)
        return cp_fail(err, CP_NETWORK, "the credentials from %.300s are refused", c->from);
    e->auth = CP_AUTH_BASIC;
    e->generation++;
    return CP_OK;
}

/* The challenges of all lines (free()). *whole: none of them is malformed. */
static cp_challenges *parse_lines(const char *lines, bool *whole)
{
    cp_challenges *c = cp_xcalloc(1, sizeof(*c));
    *whole = true;
    for (const char *line = lines; *line;) {
        size_t n = strcspn(line, "\n");
        *whole = cp_challenge_parse(c, line, n) && *whole;
        line += n + (line[n] == '\n');
    }
    return c;
}

/* See auth.h. */
void cp_auth_reason(const char *challenges, char out[CP_AUTH_REASON_MAX])
{
    bool whole;
    cp_challenges *c = parse_lines(challenges, &whole);
    const cp_challenge *bearer = cp_challenge_find(c, "bearer");
    out[0] = '\0';
    if (bearer && bearer->error[0])
        cp_snprintf(out, CP_AUTH_REASON_MAX, ", error '%s'", bearer->error);
    free(c);
}

/* See auth.h. */
cp_code cp_auth_denied(cp_endpoint *e, const char *challenges, const char *authfile, cp_err *err)
{
    if (!e->looked_up) {
        e->looked_up = true;
        cp_code code = cp_credential_find(authfile, e->shown, e->repository, &e->credential, err);
        if (code != CP_OK)
            return code;
    }
    bool whole;
    cp_challenges *c = parse_lines(challenges, &whole);
    const cp_challenge *bearer = cp_challenge_find(c, "bearer");
    cp_code code;
    if (bearer && (bearer->realm[0] || e->credential.registry_token))
        code = answer_bearer(e, bearer, err);
    else if (cp_challenge_find(c, "basic"))
        code = answer_basic(e, err);
    else if (c->n > 0)
        code = cp_fail(err, CP_NETWORK,
                       "it wants the authentication scheme '%s', which is not "
                       "known here",
                       c->item[0].scheme);
    else
        code = cp_fail(err, CP_NETWORK, "it does not say how to authenticate%s",
                       whole ? "" : " (its WWW-Authenticate header is malformed)");
    free(c);
    return code;
}

/* See auth.h. */
bool cp_auth_stale(const cp_endpoint *e, int64_t now_ms)
{
    return e->auth == CP_AUTH_BEARER && (!e->token || now_ms >= e->token_due_ms);
}

static bool add_basic(const cp_credential *c, cp_buf *out)
{
    cp_buf plain = {0};
    bool ok = cp_buf_printf(&plain, "%s:%s", c->user, c->password);
    char *encoded = ok ? cp_base64_encode(plain.p, plain.n) : NULL;
    ok = ok && cp_buf_printf(out, "Basic %s", encoded);
    cp_secret_free(&encoded);
    cp_buf_wipe(&plain);
    cp_buf_fini(&plain);
    return ok;
}

/* See auth.h. */
bool cp_auth_header(const cp_endpoint *e, cp_buf *out)
{
    if (e->auth == CP_AUTH_BASIC)
        return add_basic(&e->credential, out);
    if (e->auth == CP_AUTH_BEARER && e->token)
        return cp_buf_printf(out, "Bearer %s", e->token);
    return true;
}

/* "name=value" with what joins it to the one before; false: no room. */
static bool add_pair(char *out, size_t cap, const char *name, const char *value)
{
    size_t n = strlen(out);
    char last = n ? out[n - 1] : '\0';
    const char *join = n == 0 || last == '?' || last == '&' ? "" : "&";
    if (n + strlen(join) + strlen(name) + 2 > cap)
        return false;
    cp_snprintf(out + n, cap - n, "%s%s=", join, name);
    return cp_url_escape(out, cap, value);
}

/* service and scopes, one `scope` each. */
static bool add_what(const cp_endpoint *e, bool one_scope, char *out, size_t cap)
{
    if (e->service[0] && !add_pair(out, cap, "service", e->service))
        return false;
    if (one_scope)
        return add_pair(out, cap, "scope", e->scope);
    char scope[sizeof(e->scope)];
    const char *p = e->scope + strspn(e->scope, " ");
    for (int i = 0; *p && i < SCOPES_MAX; i++) {
        size_t n = strcspn(p, " ");
        memcpy(scope, p, n);
        scope[n] = '\0';
        if (!add_pair(out, cap, "scope", scope))
            return false;
        p += n + strspn(p + n, " ");
    }
    return true;
}

/* See auth.h. */
cp_code cp_auth_token_request(const cp_endpoint *e, char url[CP_URL_MAX], cp_buf *form,
                              cp_buf *authorization, cp_err *err)
{
    const cp_credential *c = &e->credential;
    bool ok;
    cp_buf_clear(form);
    cp_buf_clear(authorization);
    cp_strcopy(url, CP_URL_MAX, e->realm);
    url[strcspn(url, "#")] = '\0';
    if (c->identity_token && !e->form_refused) {
        size_t cap = CP_URL_MAX + 3 * strlen(c->identity_token);
        char *text = cp_xcalloc(1, cap);
        ok = add_pair(text, cap, "grant_type", "refresh_token") && add_what(e, true, text, cap) &&
             add_pair(text, cap, "client_id", "capstan") &&
             add_pair(text, cap, "refresh_token", c->identity_token) && cp_buf_adds(form, text);
        explicit_bzero(text, cap);
        free(text);
    } else {
        ok = strchr(url, '?') || strlen(url) + 2 < CP_URL_MAX;
        if (ok && !strchr(url, '?'))
            memcpy(url + strlen(url), "?", 2);
        ok = ok && add_what(e, false, url, CP_URL_MAX) &&
             (!c->user || !c->password || add_basic(c, authorization));
    }
    return ok ? CP_OK
              : cp_fail(err, CP_NETWORK, "the request to its token service is longer than %d bytes",
                        CP_URL_MAX - 1);
}

/* See auth.h. */
cp_code cp_auth_token_reply(cp_endpoint *e, const char *body, size_t n, int64_t now_ms, cp_err *err)
{
    int64_t lifetime_s;
    char *token = cp_reply_token(body, n, &lifetime_s);
    if (!token)
        return cp_fail(err, CP_NETWORK, "its token service answers without a usable token");
    forget_token(e);
    e->token = token;
    e->token_due_ms = now_ms + lifetime_s * 1000 * REFRESH_PERCENT / 100;
    e->generation++;
    return CP_OK;
}
