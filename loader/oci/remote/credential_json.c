/*
 * Files of credentials. docker's config.json, containers' auth.json and Kubernetes'
 * .dockerconfigjson have one format; the older .dockercfg is the inside of "auths" alone. The most
 * specific key that fits the repository decides. For example, with this file ghcr.io/team/m is
 * asked for as user "a" with password "b" ("YTpi" is base64 of "a:b"), and for quay.io the program
 * docker-credential-pass is run:
 *
 *     {"auths":{"ghcr.io/team":{"auth":"YTpi"}},"credHelpers":{"quay.io":"pass"}}
 *
 * Answers of credential helpers (helper.h) are read here as well.
 */
#include "base/mem.h"
#include "loader/oci/remote/base64.h"
#include "loader/oci/remote/credential.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_MAX = 4096, KEY_MAX_BYTES = 512 };

#define HUB        "docker.io"
#define HUB_SERVER "https://index.docker.io/v1/"

/* A string member as a copy; NULL absent, empty or over-long. */
static char *text(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    size_t n = json_is_string(v) ? json_string_length(v) : 0;
    if (n == 0 || n > CP_CREDENTIAL_TEXT_MAX || strlen(json_string_value(v)) != n)
        return NULL;
    return cp_xstrdup(json_string_value(v));
}

/* "auth": base64 of user:password. False: malformed. */
static bool split_auth(const json_t *entry, cp_credential *out)
{
    char *auth = text(entry, "auth");
    if (!auth)
        return true;
    size_t n;
    char *plain = cp_base64_decode(auth, &n);
    cp_secret_free(&auth);
    while (plain && n > 0 && plain[n - 1] == '\0')
        n--; /* some writers pad the password */
    char *colon = plain ? memchr(plain, ':', n) : NULL;
    bool ok = colon && !memchr(plain, '\0', n);
    if (ok) {
        *colon = '\0';
        free(out->user);
        free(out->password);
        out->user = cp_xstrdup(plain);
        out->password = cp_xstrdup(colon + 1);
    }
    if (plain)
        explicit_bzero(plain, n);
    free(plain);
    return ok;
}

/* How well a key of the file suits: 0 not at all, else the longer the more specific. */
static size_t suits(const char *key, const char *registry, const char *repository)
{
    char norm[KEY_MAX_BYTES], host[KEY_MAX_BYTES], whole[2 * KEY_MAX_BYTES];
    if (!cp_credential_key(key, norm, sizeof(norm)) ||
        !cp_credential_key(registry, host, sizeof(host)))
        return 0;
    cp_snprintf(whole, sizeof(whole), "%s/%s", host, repository);
    size_t n = strlen(norm);
    if (n < strlen(host) || strncmp(norm, whole, n) != 0 || (whole[n] != '\0' && whole[n] != '/'))
        return 0;
    return n;
}

/* The best entry of an object keyed by registries; NULL none. */
static const json_t *best(const json_t *map, const char *registry, const char *repository)
{
    const json_t *found = NULL;
    size_t longest = 0, count = 0;
    const char *key;
    json_t *value;
    if (!json_is_object(map))
        return NULL;
    for (void *i = json_object_iter((json_t *)(uintptr_t)map); i && count < KEYS_MAX; count++) {
        key = json_object_iter_key(i);
        value = json_object_iter_value(i);
        size_t n = suits(key, registry, repository);
        if (n > longest) {
            longest = n;
            found = value;
        }
        i = json_object_iter_next((json_t *)(uintptr_t)map, i);
    }
    return found;
}

static void choose_helper(const json_t *root, const char *registry, const char *repository,
                          char helper[64], char server[512])
{
    const json_t *name = best(json_object_get(root, "credHelpers"), registry, repository);
    if (!json_is_string(name))
        name = json_object_get(root, "credsStore");
    if (!json_is_string(name) || !cp_strcopy(helper, 64, json_string_value(name)))
        helper[0] = '\0';
    cp_strcopy(server, 512, strcmp(registry, HUB) == 0 ? HUB_SERVER : registry);
}

/* See credential.h. */
cp_code cp_credential_parse(const char *name, const char *json, size_t n, const char *registry,
                            const char *repository, cp_credential *out, char helper[64],
                            char server[512], cp_err *err)
{
    *out = (cp_credential){.user = NULL};
    helper[0] = server[0] = '\0';
    json_error_t e;
    json_t *root = json_loadb(json, n, 0, &e);
    if (!json_is_object(root)) {
        json_decref(root);
        return cp_fail(err, CP_USAGE, "credentials: %.300s is no JSON object (line %d: %.80s)",
                       name, root ? 1 : e.line, root ? "another type" : e.text);
    }
    const json_t *auths = json_object_get(root, "auths");
    if (!auths && !json_object_get(root, "credHelpers") && !json_object_get(root, "credsStore"))
        auths = root; /* .dockercfg */
    const json_t *entry = best(auths, registry, repository);
    cp_code code = CP_OK;
    if (json_is_object(entry)) {
        out->user = text(entry, "username");
        out->password = text(entry, "password");
        out->identity_token = text(entry, "identitytoken");
        out->registry_token = text(entry, "registrytoken");
        if (!split_auth(entry, out))
            code = cp_fail(err, CP_USAGE,
                           "credentials: %.300s: 'auth' of %.80s is no base64 of user:password",
                           name, registry);
    }
    if (code == CP_OK && !cp_credential_any(out))
        choose_helper(root, registry, repository, helper, server);
    cp_snprintf(out->from, sizeof(out->from), "%s", name);
    json_decref(root);
    if (code != CP_OK)
        cp_credential_fini(out);
    return code;
}

/* See credential.h. */
bool cp_credential_parse_helper(const char *json, size_t n, cp_credential *out)
{
    json_t *root = n ? json_loadb(json, n, 0, NULL) : NULL;
    char *user = text(root, "Username"), *secret = text(root, "Secret");
    json_decref(root);
    if (!secret || !user) {
        free(user);
        cp_secret_free(&secret);
        return false;
    }
    if (strcmp(user, "<token>") == 0) {
        free(user);
        out->identity_token = secret;
    } else {
        out->user = user;
        out->password = secret;
    }
    return true;
}
