/*
 * A browser sends text/plain, forms and bodies without a type to any site without asking, and names
 * the page's origin in Origin; everything else it asks leave for first (Fetch, CORS-safelisted
 * request headers). So a body that is not JSON from a foreign origin is what a preflight never saw.
 */
#include "server/origin.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

/* The host of HOST[:PORT], without brackets and one final dot; false: it does not fit. */
static bool host_of(const char *authority, char *out, size_t cap)
{
    size_t n = strcspn(authority, ":");
    if (authority[0] == '[') {
        n = strcspn(++authority, "]");
        if (authority[n] != ']')
            return false;
    } else if (n > 1 && authority[n - 1] == '.') {
        n--;
    }
    if (n == 0 || n >= cap)
        return false;
    memcpy(out, authority, n);
    out[n] = '\0';
    return true;
}

/* Numbers in the forms that browsers and resolvers take (127.0.0.1, 127.1), and IPv6. */
static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (isdigit((unsigned char)host[0]) &&
        strspn(host, "0123456789abcdefABCDEFxX.") == strlen(host))
        return inet_aton(host, &v4) && ntohl(v4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, host, &v6) != 1)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

bool cp_host_allowed(const char *authority, char *const *names, size_t n_names)
{
    char host[256], name[256];
    if (!authority || !host_of(authority, host, sizeof(host)))
        return false;
    if (strcasecmp(host, "localhost") == 0 || is_loopback(host))
        return true;
    for (size_t i = 0; i < n_names; i++)
        if (host_of(names[i], name, sizeof(name)) && strcasecmp(host, name) == 0)
            return true;
    return false;
}

const char *cp_origin_allowed(const char *origin, char *const *origins, size_t n_origins)
{
    for (size_t i = 0; origin && i < n_origins; i++)
        if (strcmp(origins[i], "*") == 0 || strcasecmp(origins[i], origin) == 0)
            return origins[i];
    return NULL;
}

const char *cp_origin_headers(const char *asked)
{
    /* The wildcard leaves Authorization out (Fetch, CORS-unsafe request-header names). */
    static const char every[] = "*, authorization";
    bool name = false; /* the last element has begun */
    size_t n = asked ? strlen(asked) : 0;
    for (size_t i = 0; i < n; i++) {
        if (isalnum((unsigned char)asked[i]) || strchr("!#$%&'*+-.^_`|~", asked[i]))
            name = true;
        else if (asked[i] == ',' && name)
            name = false;
        else if (asked[i] != ' ' && asked[i] != '\t')
            return every;
    }
    return name && n <= 200 ? asked : every;
}

bool cp_origin_same(const char *origin, const char *authority)
{
    const char *host = strstr(origin, "://");
    return host && authority && strcasecmp(host + 3, authority) == 0;
}

bool cp_type_is_json(const char *type)
{
    static const char json[] = "application/json", suffix[] = "+json";
    size_t n = type ? strcspn(type, ";") : 0, n_suffix = sizeof(suffix) - 1;
    while (n > 0 && (type[n - 1] == ' ' || type[n - 1] == '\t'))
        n--;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)type[i]) && !strchr("!#$&-^_.+/", type[i]))
            return false;
    if (n == sizeof(json) - 1 && strncasecmp(type, json, n) == 0)
        return true;
    return n > n_suffix && memchr(type, '/', n) &&
           strncasecmp(type + n - n_suffix, suffix, n_suffix) == 0;
}
