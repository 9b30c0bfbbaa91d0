/*
 * Hosts, schemes, mirrors. Docker Hub is known as docker.io and answers at another name; plain HTTP
 * is for hosts that the user named, and for loopback, where TLS is tried when HTTP makes no sense.
 */
#include "loader/oci/remote/source.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define HUB      "docker.io"
#define HUB_HOST "registry-1.docker.io"

/* "host", "host:port", "[v6]:port" of an option or reference; false: none of them. */
static bool host_ok(const char *s)
{
    char url[CP_HOST_MAX + 32];
    cp_origin o;
    size_t n = strlen(s);
    if (n == 0 || n > CP_HOST_MAX || strpbrk(s, "/?#@\\ ") || s[n - 1] == ':')
        return false;
    cp_snprintf(url, sizeof(url), "https://%s/", s);
    return cp_url_origin(url, &o);
}

/* As cp_origin_equal for host[:port] texts; a flag without a port covers every port. */
static bool flag_covers(const char *flag, const char *host)
{
    size_t n = strlen(flag);
    return strncasecmp(flag, host, n) == 0 && (host[n] == '\0' || host[n] == ':');
}

static cp_code choose_scheme(cp_source *s, const cp_registry_options *opt, cp_err *err)
{
    char url[CP_HOST_MAX + 32];
    cp_origin o;
    cp_snprintf(url, sizeof(url), "https://%s/", s->host);
    if (!host_ok(s->host) || !cp_url_origin(url, &o))
        return cp_fail(err, CP_USAGE, "'%s' is no registry host", s->host);
    if (cp_host_classify(o.host) == CP_ADDRESS_METADATA)
        return cp_fail(err, CP_NETWORK, "registry %s: link-local addresses are never asked",
                       s->host);
    s->https = true;
    for (int i = 0; i < opt->n_plain_http; i++) {
        if (!host_ok(opt->plain_http[i]))
            return cp_fail(err, CP_USAGE, "plain-http: '%s' is not HOST or HOST:PORT",
                           opt->plain_http[i]);
        if (flag_covers(opt->plain_http[i], s->shown))
            s->https = false;
        s->scheme_named = !s->https;
    }
    if (s->https && cp_host_classify(o.host) == CP_ADDRESS_LOOPBACK) {
        s->https = false;
        s->scheme_open = true;
    }
    return CP_OK;
}

/* Folders that docker and podman read: certs.d/<host:port>/{ca.crt,client.cert,client.key}. */
static void certs_folder(cp_source *s)
{
    static const char *const folders[] = {"/etc/containers/certs.d", "/etc/docker/certs.d"};
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        const struct {
            const char *name;
            char *out;
        } files[] = {
            {"ca.crt", s->ca_file}, {"client.cert", s->client_cert}, {"client.key", s->client_key}};
        for (size_t k = 0; k < 3; k++) {
            char path[sizeof(s->ca_file)];
            size_t n =
                cp_snprintf(path, sizeof(path), "%s/%s/%s", folders[i], s->shown, files[k].name);
            if (n + 1 < sizeof(path) && !files[k].out[0] && access(path, R_OK) == 0)
                cp_strcopy(files[k].out, sizeof(s->ca_file), path);
        }
    }
    if (!s->client_cert[0] || !s->client_key[0])
        s->client_cert[0] = s->client_key[0] = '\0';
}

/* See source.h. */
cp_code cp_source_upstream(cp_source *s, const cp_ref *ref, const cp_registry_options *opt,
                           cp_err *err)
{
    *s = (cp_source){.https = true};
    bool hub = strcmp(ref->registry, HUB) == 0;
    if (!cp_strcopy(s->host, sizeof(s->host), hub ? HUB_HOST : ref->registry) ||
        !cp_strcopy(s->shown, sizeof(s->shown), ref->registry))
        return cp_fail(err, CP_USAGE, "the registry's name is longer than %zu bytes",
                       sizeof(s->host) - 1);
    cp_strcopy(s->repository, sizeof(s->repository), ref->repository);
    certs_folder(s);
    return choose_scheme(s, opt, err);
}

/* See source.h. */
cp_code cp_source_mirror(cp_source *s, const char *mirror, const cp_ref *ref,
                         const cp_registry_options *opt, bool *applies, cp_err *err)
{
    *applies = false;
    *s = (cp_source){.https = true};
    const char *equals = strchr(mirror, '=');
    char upstream[sizeof(s->upstream)] = "";
    if (equals && (size_t)(equals - mirror) < sizeof(upstream)) {
        memcpy(upstream, mirror, (size_t)(equals - mirror));
        upstream[equals - mirror] = '\0';
    }
    if (!host_ok(upstream))
        return cp_fail(err, CP_USAGE,
                       "mirror: '%s' is not HOST=URL, e.g. docker.io=https://mirror.example",
                       mirror);
    const char *url = equals + 1;
    bool http = strncasecmp(url, "http://", 7) == 0, https = strncasecmp(url, "https://", 8) == 0;
    const char *rest = url + (https ? 8 : http ? 7 : 0);
    size_t n = strcspn(rest, "/");
    char path[sizeof(s->prefix)];
    if (n >= sizeof(s->host) || !cp_strcopy(path, sizeof(path), rest[n] ? rest + n + 1 : ""))
        return cp_fail(err, CP_USAGE, "mirror: the URL of '%s' is too long", upstream);
    memcpy(s->host, rest, n);
    s->host[n] = '\0';
    while (*path && path[strlen(path) - 1] == '/')
        path[strlen(path) - 1] = '\0';
    if (strcmp(path, "v2") == 0)
        path[0] = '\0';
    if (strncmp(path, "v2/", 3) == 0)
        memmove(path, path + 3, strlen(path) - 2);
    cp_ref parsed;
    if (!host_ok(s->host) ||
        (*path && (cp_ref_parse_name(&parsed, path, "x", NULL) != CP_OK || strpbrk(path, ":@"))))
        return cp_fail(err, CP_USAGE, "mirror: '%s' is not http[s]://HOST[:PORT][/PATH]", url);
    cp_strcopy(s->shown, sizeof(s->shown), s->host);
    cp_strcopy(s->upstream, sizeof(s->upstream), ref->registry);
    cp_strcopy(s->prefix, sizeof(s->prefix), path);
    cp_snprintf(s->repository, sizeof(s->repository), "%s%s%s", path, *path ? "/" : "",
                ref->repository);
    certs_folder(s);
    cp_code code = choose_scheme(s, opt, err);
    if (code == CP_OK && (http || https)) { /* spelled out: that counts */
        s->https = https;
        s->scheme_open = false;
        s->scheme_named = true;
    }
    bool hub = strcmp(ref->registry, HUB) == 0;
    *applies = strcasecmp(upstream, ref->registry) == 0 ||
               (hub && (strcmp(upstream, HUB_HOST) == 0 || strcmp(upstream, "index." HUB) == 0));
    return code;
}

/* See source.h. */
bool cp_source_url(const cp_source *s, const char *kind, const char *what, char out[CP_URL_MAX])
{
    size_t n = cp_snprintf(out, CP_URL_MAX, "%s://%s/v2/%s/%s/%s", s->https ? "https" : "http",
                           s->host, s->repository, kind, what);
    if (s->upstream[0]) {
        n += cp_snprintf(out + n, CP_URL_MAX - n, "?ns=");
        return cp_url_escape(out, CP_URL_MAX, s->upstream);
    }
    return n + 1 < CP_URL_MAX;
}

void cp_source_fini(cp_source *s)
{
    cp_credential_fini(&s->credential);
    if (s->token)
        explicit_bzero(s->token, strlen(s->token));
    free(s->token);
    s->token = NULL;
}
