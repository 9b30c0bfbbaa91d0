/*
 * Which proxy a request goes through. The environment is read as curl reads it, but here, so that
 * it is known before a connection is made whether the address that it is made to is the proxy's or
 * the host's own. Pure but for the environment; any thread.
 */
#ifndef CP_LOADER_OCI_REMOTE_PROXY_H
#define CP_LOADER_OCI_REMOTE_PROXY_H

#include "loader/oci/remote/url.h"

/*
 * The proxy for an origin, "" for none: http_proxy for http (in capitals it may come from a CGI
 * request), https_proxy or HTTPS_PROXY for https, else all_proxy or ALL_PROXY; never for loopback,
 * nor for what no_proxy or NO_PROXY names. Borrowed from the environment.
 */
const char *cp_proxy_for(const cp_origin *o);

/* Does a no_proxy list name this host and port (as in cp_origin)? Entries with commas or blanks
 * between: a host and all below it (a leading "." or "*." changes nothing), an address,
 * ADDRESS/BITS, each with or without :PORT (IPv6 then in brackets), or "*" for everything. That is
 * what curl takes and what Go takes; where they differ, the one that spares the proxy. */
bool cp_proxy_excepts(const char *list, const char *host, int port);

#endif
