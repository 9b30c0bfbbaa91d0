/*
 * Origins (RFC 6454 §4), redirect policy and kinds of addresses. Parsing is libcurl's own, so that
 * what is judged here is what libcurl would connect to: no second parser disagrees with it.
 * Addresses are told by value and not by how they are written. For example, all of these are link-
 * local and never asked:
 *
 *     http://169.254.169.254/   http://2852039166/   http://[::ffff:a9fe:a9fe]/
 */
#include "loader/oci/remote/url.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool part(CURLU *u, CURLUPart what, char *out, size_t cap)
{
    char *s = NULL;
    if (curl_url_get(u, what, &s, CURLU_DEFAULT_PORT) != CURLUE_OK)
        return false;
    bool fits = cp_strcopy(out, cap, s);
    curl_free(s);
    return fits;
}

static bool origin_of(CURLU *u, cp_origin *o)
{
    *o = (cp_origin){.port = 0};
    char scheme[16], host[CP_HOST_MAX + 2], port[8], *user = NULL;
    if (curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_NO_USER) {
        curl_free(user);
        return false;
    }
    if (!part(u, CURLUPART_SCHEME, scheme, sizeof(scheme)) ||
        !part(u, CURLUPART_HOST, host, sizeof(host)) ||
        !part(u, CURLUPART_PORT, port, sizeof(port)))
        return false;
    o->https = strcasecmp(scheme, "https") == 0;
    if (!o->https && strcasecmp(scheme, "http") != 0)
        return false;
    size_t n = strlen(host);
    const char *h = host;
    if (n >= 2 && h[0] == '[' && h[n - 1] == ']') {
        host[n - 1] = '\0';
        h++;
    }
    if (*h == '\0' || !cp_strcopy(o->host, sizeof(o->host), h))
        return false;
    for (char *p = o->host; *p; p++)
        *p = cp_lower(*p);
    long value = strtol(port, NULL, 10);
    if (value < 1 || value > 65535)
        return false;
    o->port = (int)value;
    return true;
}

/* See url.h. */
bool cp_url_origin(const char *url, cp_origin *out)
{
    CURLU *u = curl_url();
    bool ok = u && strlen(url) < CP_URL_MAX &&
              curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
              origin_of(u, out);
    curl_url_cleanup(u);
    return ok;
}

bool cp_origin_equal(const cp_origin *a, const cp_origin *b)
{
    return a->https == b->https && a->port == b->port && strcmp(a->host, b->host) == 0;
}

static cp_address_kind classify4(uint32_t a) /* host order */
{
    if (a >> 24 == 127 || a >> 24 == 0)
        return CP_ADDRESS_LOOPBACK;
    if (a >> 16 == 0xA9FE)
        return CP_ADDRESS_METADATA;
    if (a >> 24 == 10 || a >> 20 == 0xAC1 || a >> 16 == 0xC0A8 || a >> 22 == 0x64400000 >> 22)
        return CP_ADDRESS_PRIVATE;
    return CP_ADDRESS_PUBLIC;
}

static cp_address_kind classify6(const uint8_t a[16])
{
    static const uint8_t zero[15],
        mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, nat64[12] = {0, 0x64, 0xff, 0x9b},
        aws[16] = {0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54};
    if (memcmp(a, mapped, 12) == 0 || memcmp(a, nat64, 12) == 0)
        return classify4((uint32_t)a[12] << 24 | (uint32_t)a[13] << 16 | (uint32_t)a[14] << 8 |
                         a[15]);
    if (memcmp(a, zero, 15) == 0 && a[15] <= 1)
        return CP_ADDRESS_LOOPBACK;
    if ((a[0] == 0xfe && (a[1] & 0xc0) == 0x80) || memcmp(a, aws, 16) == 0)
        return CP_ADDRESS_METADATA;
    if ((a[0] & 0xfe) == 0xfc)
        return CP_ADDRESS_PRIVATE;
    return CP_ADDRESS_PUBLIC;
}

/* See url.h. */
cp_address_kind cp_address_classify(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof(in));
        return classify4(ntohl(in.sin_addr.s_addr));
    }
    if (a->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, a, sizeof(in6));
        return classify6(in6.sin6_addr.s6_addr);
    }
    return CP_ADDRESS_PUBLIC;
}

/* See url.h. */
cp_address_kind cp_host_classify(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    size_t n = strlen(host);
    if (strcasecmp(host, "localhost") == 0 ||
        (n > 10 && strcasecmp(host + n - 10, ".localhost") == 0))
        return CP_ADDRESS_LOOPBACK;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return classify4(ntohl(v4.s_addr));
    char plain[CP_HOST_MAX];
    if (n < sizeof(plain)) {
        memcpy(plain, host, n + 1);
        plain[strcspn(plain, "%")] = '\0'; /* a zone id */
        if (inet_pton(AF_INET6, plain, &v6) == 1)
            return classify6(v6.s6_addr);
    }
    return CP_ADDRESS_PUBLIC;
}

/* What a Location may not have raw and has all the same, blanks and bytes of other alphabets, as
 * %XX. False: it does not fit, or a control character is in it. */
static bool escape_raw(char out[CP_URL_MAX], const char *s)
{
    size_t n = 0;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 0x20 || c == 0x7f || n + 4 > CP_URL_MAX)
            return false;
        if (c == 0x20 || c >= 0x80)
            n += cp_snprintf(out + n, CP_URL_MAX - n, "%%%02X", c);
        else
            out[n++] = *s;
    }
    out[n] = '\0';
    return true;
}

/* See url.h. */
cp_code cp_url_redirect(const char *from, const char *location, bool private_ok,
                        char out[CP_URL_MAX], bool *same, cp_err *err)
{
    *same = false;
    CURLU *u = curl_url();
    char *absolute = NULL, to[CP_URL_MAX];
    cp_origin a, b;
    bool plain = escape_raw(to, location);
    cp_code code = CP_OK;
    if (!u)
        return cp_fail(err, CP_NO_MEMORY, "no memory for a URL");
    if (!cp_url_origin(from, &a) || *location == '\0' || !plain ||
        curl_url_set(u, CURLUPART_URL, from, 0) != CURLUE_OK ||
        curl_url_set(u, CURLUPART_URL, to, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
        curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_URL, &absolute, 0) != CURLUE_OK || !origin_of(u, &b) ||
        !cp_strcopy(out, CP_URL_MAX, absolute))
        code = cp_fail(err, CP_NETWORK, "a redirect to '%.200s', which is no usable http(s) URL",
                       plain ? to : "(unprintable)");
    else if (a.https && !b.https)
        code = cp_fail(err, CP_NETWORK, "a redirect from https to http (%s:%d), refused", b.host,
                       b.port);
    else if (cp_host_classify(b.host) == CP_ADDRESS_METADATA)
        code = cp_fail(err, CP_NETWORK, "a redirect to the link-local address %s, refused", b.host);
    else if (!private_ok && cp_host_classify(b.host) != CP_ADDRESS_PUBLIC)
        code = cp_fail(err, CP_NETWORK, "a redirect of a public registry to %s, refused", b.host);
    else
        *same = cp_origin_equal(&a, &b);
    curl_free(absolute);
    curl_url_cleanup(u);
    return code;
}

/* See url.h. */
bool cp_url_escape(char *out, size_t cap, const char *s)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = strlen(out);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-._~", c);
        if (n + (plain ? 1 : 3) >= cap)
            return false;
        if (plain) {
            out[n++] = (char)c;
        } else {
            out[n++] = '%';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        }
        out[n] = '\0';
    }
    return true;
}
