/*
 * URLs as policy sees them: who is asked (origin), where a redirect may lead, what kind of address
 * answers. Pure functions over caller-owned values, any thread. Hides libcurl's URL parser.
 */
#ifndef CP_LOADER_OCI_REMOTE_URL_H
#define CP_LOADER_OCI_REMOTE_URL_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>

enum { CP_URL_MAX = 8192, CP_HOST_MAX = 256 };

typedef struct cp_origin {
    bool https;
    char host[CP_HOST_MAX]; /* lower case, IPv6 without brackets */
    int port;
} cp_origin;

/* False: no http(s) URL, too long, or one that carries user information. */
bool cp_url_origin(const char *url, cp_origin *out);
bool cp_origin_equal(const cp_origin *a, const cp_origin *b);

typedef enum cp_address_kind {
    CP_ADDRESS_PUBLIC,
    CP_ADDRESS_LOOPBACK,
    CP_ADDRESS_PRIVATE,  /* RFC 1918, RFC 6598, fc00::/7 */
    CP_ADDRESS_METADATA, /* link-local: cloud metadata services live there; never asked */
} cp_address_kind;
struct sockaddr;
/* Of a socket address; IPv4 inside IPv6 (mapped, NAT64) counts as IPv4. */
cp_address_kind cp_address_classify(const struct sockaddr *a);
/* Of a host as it stands in a URL: literal addresses and localhost; other names are public. */
cp_address_kind cp_host_classify(const char *host);

/*
 * Where `location`, sent by `from`, leads: *out absolute, *same whether host, port and scheme stay.
 * Blanks and bytes above 0x7f are taken as %XX.
 * CP_NETWORK: malformed, a control character, not http(s), from https to http, user information, a
 * metadata address, or a private address although the registry has none (private_ok false).
 */
cp_code cp_url_redirect(const char *from, const char *location, bool private_ok,
                        char out[CP_URL_MAX], bool *same, cp_err *err);
/* `s` percent-encoded for a query or form value, appended; false: it did not fit into cap. */
bool cp_url_escape(char *out, size_t cap, const char *s);

#endif
