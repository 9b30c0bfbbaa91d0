/*
 * Finding out the scheme. A loopback host is asked over plain HTTP first; what sounds like TLS
 * makes it https for good, and if that fails as well it was plain HTTP in trouble. No other host is
 * ever asked in the clear to find out: docs/OPERATIONS.md, Mirrors, TLS, proxies.
 */
#include "loader/oci/remote/scheme.h"

/* See scheme.h. */
bool cp_scheme_find(cp_job *j)
{
    cp_endpoint *e = cp_job_endpoint(j);
    const cp_exchange *x = &j->x;
    bool answered = x->end == CP_CLIENT_ANSWERED || x->end == CP_CLIENT_STOPPED;
    if (!e->scheme_open || j->foreign)
        return false;
    bool other = x->end == CP_CLIENT_GARBLED || (x->end == CP_CLIENT_LOST && x->status == 0) ||
                 (!j->was_https && x->status == 400);
    if (!j->was_https && other) {
        e->https = true;
        cp_job_restart(j, 0);
        return true;
    }
    if (answered || (j->was_https && x->end == CP_CLIENT_REFUSED))
        e->scheme_open = false;
    else if (j->was_https) /* neither: then it is the plain one in trouble */
        e->https = e->scheme_open = false;
    return false;
}

/* See scheme.h. */
void cp_scheme_fail(cp_job *j, const char *why)
{
    const cp_endpoint *e = cp_job_endpoint(j);
    const bool plain = j->x.other == CP_CLIENT_SPEAKS_PLAIN;
    const char *has = plain ? "plain HTTP, not TLS" : "TLS, not plain HTTP";
    cp_origin o;
    if (j->foreign && cp_url_origin(j->url, &o))
        cp_job_fail(j, CP_NETWORK, "it redirects to %s://%s:%d, which seems to speak %s (%.100s)",
                    o.https ? "https" : "http", o.host, o.port, has, why);
    else if (e->upstream[0])
        cp_job_fail(j, CP_NETWORK, "the mirror seems to speak %s: --mirror %s=%s://%s%s%s (%.100s)",
                    has, e->upstream, plain ? "http" : "https", e->host, *e->prefix ? "/" : "",
                    e->prefix, why);
    else if (plain)
        cp_job_fail(j, CP_NETWORK, "it seems to speak %s: --plain-http %s allows that (%.100s)",
                    has, e->shown, why);
    else
        cp_job_fail(j, CP_NETWORK, "it seems to speak %s: leave out --plain-http for %s (%.100s)",
                    has, e->shown, why);
}
