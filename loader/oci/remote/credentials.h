/*
 * Credentials for a registry, from the files and helpers that docker and podman keep.
 *
 * A cp_credential is owned by its caller; cp_credential_fini wipes it. Looked for: --authfile alone
 * when given, else $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json,
 * $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json, ~/.docker/config.json,
 * ~/.dockercfg; the first that knows the registry wins. Within a file the most specific key wins
 * (registry/namespace/repository before registry/namespace before registry), `auths` before a
 * helper. Helpers (docker-credential-NAME get) run without a shell and under a time limit. Reads
 * the environment; any thread, but it may block for CP_CREDENTIAL_HELPER_MS.
 */
#ifndef CP_LOADER_OCI_REMOTE_CREDENTIALS_H
#define CP_LOADER_OCI_REMOTE_CREDENTIALS_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    CP_CREDENTIAL_TEXT_MAX = 32 << 10, /* of one user name, password or token */
    CP_CREDENTIAL_FILE_MAX = 4 << 20,
    CP_CREDENTIAL_HELPER_MS = 30000,
};

typedef struct cp_credential {
    char *user, *password; /* NULL: none */
    char *identity_token;  /* an OAuth2 refresh token */
    char *registry_token;  /* a bearer token as it is */
    char from[512];        /* where they are from, or why there are none; for messages */
} cp_credential;

void cp_credential_fini(cp_credential *c);
bool cp_credential_any(const cp_credential *c);

/* For a repository of a registry ("docker.io" for Docker Hub). None is no error: all NULL, `from`
 * says where was looked. CP_USAGE: a file that was named is not there, or a file is malformed. */
cp_code cp_credential_find(const char *authfile, const char *registry, const char *repository,
                           cp_credential *out, cp_err *err);

/* Can the file that the user names for certain (authfile, else $REGISTRY_AUTH_FILE) be read? Asked
 * before a registry is, so that a mistyped one is not found out at the first 401 only. CP_OK also
 * when none is named; CP_USAGE, with option or variable and path. */
cp_code cp_credential_named(const char *authfile, cp_err *err);

/* ---- parts of it, here for credentials_json.c and for tests ---- */

/* What a file says: a credential, or the helper to ask ("" none) and under which name. CP_USAGE:
 * malformed. name: the file, for messages. */
cp_code cp_credential_parse(const char *name, const char *json, size_t n, const char *registry,
                            const char *repository, cp_credential *out, char helper[64],
                            char server[512], cp_err *err);
/* A helper's answer; false: it is none. */
bool cp_credential_parse_helper(const char *json, size_t n, cp_credential *out);
/* docker-credential-<helper> get, `server` on its standard input. False: out->from says why. */
bool cp_credential_helper(const char *helper, const char *server, int timeout_ms,
                          cp_credential *out);
/* "https://index.docker.io/v1/" -> "docker.io", "HTTPS://Host:1/v2/" -> "host:1"; false: too long.
 */
bool cp_credential_key(const char *key, char *out, size_t cap);
/* Standard base64, NUL-terminated (malloc). Decoding: NULL for anything malformed, *n bytes. */
char *cp_base64_encode(const void *p, size_t n);
char *cp_base64_decode(const char *s, size_t *n);

#endif
