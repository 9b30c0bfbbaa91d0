/*
 * Proxies from the environment, as curl(1) has them under "ENVIRONMENT". The grammar of NO_PROXY
 * is written out here, so that it is known before a connection whether it goes to a proxy. An
 * entry names a host and all below it, an address, or a range of addresses. For example, with
 *
 *     NO_PROXY=example.com,10.0.0.0/8,[::1]:5000
 *
 * registry.example.com, 10.1.2.3 and port 5000 of ::1 are asked directly.
 */
#include "loader/oci/remote/proxy.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { ENTRY_MAX = 256 };

/* The first `bits` of two addresses of n bytes are equal. */
static bool same_net(const uint8_t *a, const uint8_t *b, size_t n, unsigned long bits)
{
    size_t whole = bits / 8, rest = bits % 8;
    return bits <= 8 * n && memcmp(a, b, whole) == 0 &&
           (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

/* Does entry, an address with or without /BITS, name the address of `family`? */
static bool names_address(const char *entry, int family, const uint8_t *address, size_t n)
{
    char text[ENTRY_MAX], *end;
    uint8_t net[16];
    size_t k = strcspn(entry, "/");
    unsigned long bits = 8 * n;
    memcpy(text, entry, k);
    text[k] = '\0';
    if (entry[k] == '/') {
        bits = strtoul(entry + k + 1, &end, 10);
        if (entry[k + 1] < '0' || entry[k + 1] > '9' || *end)
            return false;
    }
    return inet_pton(family, text, net) == 1 && same_net(net, address, n, bits);
}

/* Take :PORT off entry, and the brackets of an IPv6 address. With another port it stays as it is,
 * and so names no host. */
static void take_port(char *entry, int port)
{
    char *last = strrchr(entry, ':'), *close = strrchr(entry, ']'), *end;
    bool v6 = strchr(entry, ':') != last && !close;
    if (last && !v6 && (!close || last > close)) {
        unsigned long of = strtoul(last + 1, &end, 10);
        if (last[1] < '0' || last[1] > '9' || *end || of != (unsigned long)port)
            return;
        *last = '\0';
    }
    if (entry[0] == '[' && close && close[1] == '\0') {
        *close = '\0';
        memmove(entry, entry + 1, strlen(entry));
    }
}

/* Is host (of n characters) the entry, or below it? */
static bool names_host(const char *entry, const char *host, size_t n)
{
    if (strncmp(entry, "*.", 2) == 0)
        entry++;
    size_t k = strlen(entry);
    if (k > 0 && entry[k - 1] == '.')
        k--;
    if (k > 0 && entry[0] == '.') {
        entry++;
        k--;
    }
    return k > 0 && k <= n && strncasecmp(host + n - k, entry, k) == 0 &&
           (k == n || host[n - k - 1] == '.');
}

/* See proxy.h. */
bool cp_proxy_excepts(const char *list, const char *host, int port)
{
    uint8_t address[16];
    size_t n = strlen(host), bytes = 0;
    int family = AF_UNSPEC;
    if (inet_pton(AF_INET, host, address) == 1) {
        family = AF_INET;
        bytes = 4;
    } else if (inet_pton(AF_INET6, host, address) == 1) {
        family = AF_INET6;
        bytes = 16;
    }
    if (n > 0 && host[n - 1] == '.')
        n--;
    for (const char *p = list; *p;) {
        char entry[ENTRY_MAX];
        size_t k = strcspn(p, ", \t");
        if (k > 0 && k < sizeof(entry)) {
            memcpy(entry, p, k);
            entry[k] = '\0';
            if (strcmp(entry, "*") == 0)
                return true;
            take_port(entry, port);
            if (bytes ? names_address(entry, family, address, bytes) : names_host(entry, host, n))
                return true;
        }
        p += k;
        p += strspn(p, ", \t");
    }
    return false;
}

/* The first of the variables that is set to something; "" none. */
static const char *first_of(const char *const *names)
{
    for (; *names; names++) {
        const char *v = getenv(*names);
        if (v && *v)
            return v;
    }
    return "";
}

/* See proxy.h. */
const char *cp_proxy_for(const cp_origin *o)
{
    static const char *const http[] = {"http_proxy", "all_proxy", "ALL_PROXY", NULL},
                             *const https[] = {"https_proxy", "HTTPS_PROXY", "all_proxy",
                                               "ALL_PROXY", NULL},
                             *const none[] = {"no_proxy", "NO_PROXY", NULL};
    const char *proxy = first_of(o->https ? https : http);
    if (!*proxy || cp_host_classify(o->host) == CP_ADDRESS_LOOPBACK ||
        cp_proxy_excepts(first_of(none), o->host, o->port))
        return "";
    return proxy;
}
