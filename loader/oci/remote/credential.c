/*
 * A credential, and the names that registries have in files of credentials. Keys there are hosts,
 * hosts with a path, or URLs, in any letter case. Docker's config.json calls Docker Hub by a URL
 * of its first API. For example,
 *
 *     "https://index.docker.io/v1/"     is the key "docker.io"
 *     "GHCR.io/Team/"                   is the key "ghcr.io/Team"
 */
#include "loader/oci/remote/credential.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* See credential.h. */
void cp_secret_free(char **s)
{
    if (*s)
        explicit_bzero(*s, strlen(*s));
    free(*s);
    *s = NULL;
}

void cp_credential_fini(cp_credential *c)
{
    cp_secret_free(&c->user);
    cp_secret_free(&c->password);
    cp_secret_free(&c->identity_token);
    cp_secret_free(&c->registry_token);
}

bool cp_credential_any(const cp_credential *c)
{
    return (c->user && c->password) || c->identity_token || c->registry_token;
}

/* See credential.h. */
bool cp_credential_key(const char *key, char *out, size_t cap)
{
    const char *s = key;
    if (strncasecmp(s, "https://", 8) == 0)
        s += 8;
    else if (strncasecmp(s, "http://", 7) == 0)
        s += 7;
    if (!cp_strcopy(out, cap, s))
        return false;
    size_t n = strlen(out);
    while (n > 0 && out[n - 1] == '/')
        out[--n] = '\0';
    if (n > 3 && (strcmp(out + n - 3, "/v1") == 0 || strcmp(out + n - 3, "/v2") == 0))
        out[n -= 3] = '\0';
    size_t host = strcspn(out, "/");
    for (size_t i = 0; i < host; i++)
        out[i] = cp_lower(out[i]);
    static const char *const hub[] = {"index.docker.io", "registry-1.docker.io"};
    for (size_t i = 0; i < 2; i++)
        if (host == strlen(hub[i]) && strncmp(out, hub[i], host) == 0) {
            memmove(out + strlen("docker.io"), out + host, n - host + 1);
            memcpy(out, "docker.io", strlen("docker.io"));
            break;
        }
    return out[0] != '\0';
}
