/*
 * Error bodies (distribution-spec, Error Codes) and token answers (distribution, "Token
 * Authentication Specification"). What a server says is shown to people, so control characters
 * never pass and the length is bounded. For example, these become "DENIED: no access" and a token
 * that is good for 300 s:
 *
 *     {"errors":[{"code":"DENIED","message":"no\naccess","detail":null}]}
 *     {"token":"eyJhbGciOi...","expires_in":300}
 *
 * Of a page the title is taken, of plain text all, and of anything else nothing.
 */
#include "base/mem.h"
#include "loader/oci/remote/reply.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { LIFETIME_DEFAULT_S = 60, LIFETIME_MAX_S = 30 * 24 * 3600 };

static void clean(char *s)
{
    size_t n = 0;
    for (const char *p = s; *p; p++) {
        unsigned char c = (unsigned char)*p;
        bool blank = c <= 0x20 || c == 0x7f;
        if (c == 0xc2 && (unsigned char)p[1] >= 0x80 && (unsigned char)p[1] < 0xa0) {
            p++; /* U+0080 to U+009F are controls too */
            blank = true;
        }
        if (blank && (n == 0 || s[n - 1] == ' '))
            continue;
        s[n++] = blank ? ' ' : (char)c;
    }
    while (n > 0 && s[n - 1] == ' ')
        n--;
    s[n] = '\0';
}

/* What stands between <title> and </title>: proxies and log-in pages say it there. */
static void title(const char *body, size_t n, char out[CP_REPLY_TEXT_MAX])
{
    static const char open[] = "<title>", close[] = "</title>";
    const char *from = memmem(body, n, open, strlen(open));
    if (!from)
        return;
    from += strlen(open);
    const char *to = memmem(from, (size_t)(body + n - from), close, strlen(close));
    size_t k = to ? (size_t)(to - from) : 0;
    if (k == 0 || k >= CP_REPLY_TEXT_MAX)
        return;
    memcpy(out, from, k);
    out[k] = '\0';
    for (size_t i = 0; i < k; i++) /* a page's encoding is not known */
        if ((unsigned char)out[i] < 0x20 || (unsigned char)out[i] >= 0x7f)
            out[i] = ' ';
}

/* See reply.h. */
void cp_reply_error(const char *body, size_t n, char out[CP_REPLY_TEXT_MAX])
{
    out[0] = '\0';
    json_t *root = n ? json_loadb(body, n, 0, NULL) : NULL;
    const json_t *errors = json_object_get(root, "errors");
    const json_t *first = json_is_array(errors) ? json_array_get(errors, 0) : NULL;
    const char *code = json_string_value(json_object_get(first, "code"));
    const char *message = json_string_value(json_object_get(first, "message"));
    if (!code && !message) /* token services: {"details":...} or {"error":..., "message":...} */
        for (size_t i = 0; i < 3 && !message; i++)
            message = json_string_value(json_object_get(
                root, (const char *const[]){"details", "message", "error_description"}[i]));
    if (code || message)
        cp_snprintf(out, CP_REPLY_TEXT_MAX, "%s%s%s", code ? code : "", code && message ? ": " : "",
                    message ? message : "");
    json_decref(root);
    if (!out[0] && n > 0 && body[0] == '<')
        title(body, n, out);
    if (!out[0] && n > 0 && n < CP_REPLY_TEXT_MAX && body[0] != '<' && body[0] != '{') {
        for (size_t i = 0; i < n; i++) {
            unsigned char c = (unsigned char)body[i];
            if ((c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c >= 0x7f)
                return;
        }
        memcpy(out, body, n);
        out[n] = '\0';
    }
    clean(out);
}

/* See reply.h. */
char *cp_reply_token(const char *body, size_t n, int64_t *lifetime_s)
{
    json_t *root = n ? json_loadb(body, n, 0, NULL) : NULL;
    const json_t *token = json_object_get(root, "token");
    if (!json_is_string(token) || json_string_length(token) == 0)
        token = json_object_get(root, "access_token");
    const json_t *expires = json_object_get(root, "expires_in");
    int64_t lifetime = LIFETIME_DEFAULT_S;
    if (json_is_number(expires)) {
        double v = json_number_value(expires);
        lifetime = v > LIFETIME_MAX_S ? LIFETIME_MAX_S : v >= 1 ? (int64_t)v : LIFETIME_DEFAULT_S;
    }
    *lifetime_s = lifetime;
    char *out = NULL;
    size_t k = json_is_string(token) ? json_string_length(token) : 0;
    if (k > 0 && k <= CP_TOKEN_MAX) {
        out = cp_xstrdup(json_string_value(token));
        for (const char *p = out; *p; p++)
            if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f) {
                free(out);
                out = NULL;
                break;
            }
    }
    json_decref(root);
    return out;
}
