/*
 * Hosts, schemes, mirrors. Docker Hub is known as docker.io and answers at another name. Plain
 * HTTP is for hosts that the user named, and for loopback, where TLS is tried when HTTP makes no
 * sense. A mirror's URL may have a path, which goes in front of the repository. For example,
 *
 *     --mirror docker.io=https://cache.example/hub
 *
 * asks for docker.io/ai/smollm2 at https://cache.example/v2/hub/ai/smollm2/...?ns=docker.io; ns is
 * containerd's, by which a mirror of several registries knows which one is meant.
 */
#include "loader/oci/remote/endpoint.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define HUB      "docker.io"
#define HUB_HOST "registry-1.docker.io"

/* "host", "host:port", "[v6]:port" of an option or reference; false: none of them. */
static bool host_origin(const char *s, cp_origin *out)
{
    char url[CP_HOST_MAX + 32];
    size_t n = strlen(s);
    if (n == 0 || n > CP_HOST_MAX || strpbrk(s, "/?#@\\ ") || s[n - 1] == ':')
        return false;
    cp_snprintf(url, sizeof(url), "https://%s/", s);
    return cp_url_origin(url, out);
}

static bool host_ok(const char *s)
{
    cp_origin o;
    return host_origin(s, &o);
}

/* As cp_origin_equal for host[:port] texts; a flag without a port covers every port. */
static bool flag_covers(const char *flag, const char *host)
{
    size_t n = strlen(flag);
    return strncasecmp(flag, host, n) == 0 && (host[n] == '\0' || host[n] == ':');
}

static cp_code choose_scheme(cp_endpoint *e, const cp_registry_options *opt, cp_err *err)
{
    cp_origin o;
    if (!host_origin(e->host, &o))
        return cp_fail(err, CP_USAGE, "'%s' is no registry host", e->host);
    if (cp_host_classify(o.host) == CP_ADDRESS_METADATA)
        return cp_fail(err, CP_NETWORK, "registry %s: link-local addresses are never asked",
                       e->host);
    e->https = true;
    for (int i = 0; i < opt->n_plain_http; i++) {
        if (!host_ok(opt->plain_http[i]))
            return cp_fail(err, CP_USAGE, "plain-http: '%s' is not HOST or HOST:PORT",
                           opt->plain_http[i]);
        if (flag_covers(opt->plain_http[i], e->shown))
            e->https = false;
        e->scheme_named = !e->https;
    }
    if (e->https && cp_host_classify(o.host) == CP_ADDRESS_LOOPBACK) {
        e->https = false;
        e->scheme_open = true;
    }
    return CP_OK;
}

/* Folders that docker and podman read: certs.d/<host:port>/{ca.crt,client.cert,client.key}. */
static void certs_folder(cp_endpoint *e)
{
    static const char *const folders[] = {"/etc/containers/certs.d", "/etc/docker/certs.d"};
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        const struct {
            const char *name;
            char *out;
        } files[] = {
            {"ca.crt", e->ca_file}, {"client.cert", e->client_cert}, {"client.key", e->client_key}};
        for (size_t k = 0; k < 3; k++) {
            char path[sizeof(e->ca_file)];
            size_t n =
                cp_snprintf(path, sizeof(path), "%s/%s/%s", folders[i], e->shown, files[k].name);
            if (n + 1 < sizeof(path) && !files[k].out[0] && access(path, R_OK) == 0)
                cp_strcopy(files[k].out, sizeof(e->ca_file), path);
        }
    }
    if (!e->client_cert[0] || !e->client_key[0])
        e->client_cert[0] = e->client_key[0] = '\0';
}

/* See endpoint.h. */
cp_code cp_endpoint_upstream(cp_endpoint *e, const cp_ref *ref, const cp_registry_options *opt,
                             cp_err *err)
{
    *e = (cp_endpoint){.https = true};
    bool hub = strcmp(ref->registry, HUB) == 0;
    if (!cp_strcopy(e->host, sizeof(e->host), hub ? HUB_HOST : ref->registry) ||
        !cp_strcopy(e->shown, sizeof(e->shown), ref->registry))
        return cp_fail(err, CP_USAGE, "the registry's name is longer than %zu bytes",
                       sizeof(e->host) - 1);
    cp_strcopy(e->repository, sizeof(e->repository), ref->repository);
    certs_folder(e);
    return choose_scheme(e, opt, err);
}

/* HOST[:PORT][/PATH] of a mirror's URL: its host, and the prefix of repositories there. "/v2",
 * which some people write, is every registry's own. */
static cp_code set_address(cp_endpoint *e, const char *address, const char *url, cp_err *err)
{
    size_t n = strcspn(address, "/");
    char path[sizeof(e->prefix)];
    cp_ref parsed;
    if (n >= sizeof(e->host) || !cp_strcopy(path, sizeof(path), address[n] ? address + n + 1 : ""))
        return cp_fail(err, CP_USAGE, "mirror: the URL '%.200s' is too long", url);
    memcpy(e->host, address, n);
    e->host[n] = '\0';
    while (*path && path[strlen(path) - 1] == '/')
        path[strlen(path) - 1] = '\0';
    if (strcmp(path, "v2") == 0)
        path[0] = '\0';
    if (strncmp(path, "v2/", 3) == 0)
        memmove(path, path + 3, strlen(path) - 2);
    if (!host_ok(e->host) ||
        (*path && (cp_ref_parse_name(&parsed, path, "x", NULL) != CP_OK || strpbrk(path, ":@"))))
        return cp_fail(err, CP_USAGE, "mirror: '%s' is not http[s]://HOST[:PORT][/PATH]", url);
    cp_strcopy(e->prefix, sizeof(e->prefix), path);
    return CP_OK;
}

/* Does a mirror's HOST mean this registry? Docker Hub has three names. */
static bool stands_for(const char *host, const char *registry)
{
    bool hub = strcmp(registry, HUB) == 0;
    return strcasecmp(host, registry) == 0 ||
           (hub && (strcmp(host, HUB_HOST) == 0 || strcmp(host, "index." HUB) == 0));
}

/* See endpoint.h. */
cp_code cp_endpoint_mirror(cp_endpoint *e, const char *mirror, const cp_ref *ref,
                           const cp_registry_options *opt, bool *applies, cp_err *err)
{
    *applies = false;
    *e = (cp_endpoint){.https = true};
    const char *equals = strchr(mirror, '=');
    char host[sizeof(e->upstream)] = "";
    if (equals && (size_t)(equals - mirror) < sizeof(host)) {
        memcpy(host, mirror, (size_t)(equals - mirror));
        host[equals - mirror] = '\0';
    }
    if (!host_ok(host))
        return cp_fail(err, CP_USAGE,
                       "mirror: '%s' is not HOST=URL, e.g. docker.io=https://mirror.example",
                       mirror);
    const char *url = equals + 1;
    bool http = strncasecmp(url, "http://", 7) == 0, https = strncasecmp(url, "https://", 8) == 0;
    cp_code code = set_address(e, url + (https ? 8 : http ? 7 : 0), url, err);
    if (code != CP_OK)
        return code;
    cp_strcopy(e->shown, sizeof(e->shown), e->host);
    cp_strcopy(e->upstream, sizeof(e->upstream), ref->registry);
    cp_snprintf(e->repository, sizeof(e->repository), "%s%s%s", e->prefix, *e->prefix ? "/" : "",
                ref->repository);
    certs_folder(e);
    code = choose_scheme(e, opt, err);
    if (code == CP_OK && (http || https)) { /* spelled out: that counts */
        e->https = https;
        e->scheme_open = false;
        e->scheme_named = true;
    }
    *applies = stands_for(host, ref->registry);
    return code;
}

/* See endpoint.h. */
bool cp_endpoint_url(const cp_endpoint *e, const char *kind, const char *what, char out[CP_URL_MAX])
{
    size_t n = cp_snprintf(out, CP_URL_MAX, "%s://%s/v2/%s/%s/%s", e->https ? "https" : "http",
                           e->host, e->repository, kind, what);
    if (e->upstream[0]) {
        n += cp_snprintf(out + n, CP_URL_MAX - n, "?ns=");
        return cp_url_escape(out, CP_URL_MAX, e->upstream);
    }
    return n + 1 < CP_URL_MAX;
}

/* See endpoint.h. */
bool cp_endpoint_has_host(const cp_endpoint *e, const cp_origin *o)
{
    cp_origin own;
    return host_origin(e->host, &own) && strcmp(own.host, o->host) == 0;
}

void cp_endpoint_fini(cp_endpoint *e)
{
    cp_credential_fini(&e->credential);
    cp_secret_free(&e->token);
}
