/*
 * What to show a registry: a user and a password, or a token. A cp_credential is owned by its
 * caller; any thread. Its texts are secrets, so cp_credential_fini wipes them, and messages show
 * where a credential is from and never what it is.
 */
#ifndef CP_LOADER_OCI_REMOTE_CREDENTIAL_H
#define CP_LOADER_OCI_REMOTE_CREDENTIAL_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>

enum { CP_CREDENTIAL_TEXT_MAX = 32 << 10 }; /* of one user name, password or token */

typedef struct cp_credential {
    char *user, *password; /* NULL: none */
    char *identity_token;  /* an OAuth2 refresh token */
    char *registry_token;  /* a bearer token as it is */
    char from[512];        /* where they are from, or why there are none; for messages */
} cp_credential;

void cp_credential_fini(cp_credential *c);
bool cp_credential_any(const cp_credential *c);
/* Wipe and free a secret text, and forget it; NULL is fine. */
void cp_secret_free(char **s);

/* A registry as files of credentials name it, in plain form: "https://index.docker.io/v1/" ->
 * "docker.io", "HTTPS://Host:1/v2/" -> "host:1"; false: too long. */
bool cp_credential_key(const char *key, char *out, size_t cap);

/* What a file says: a credential, or the helper to ask ("" none) and under which name. CP_USAGE:
 * malformed. name: the file, for messages. */
cp_code cp_credential_parse(const char *name, const char *json, size_t n, const char *registry,
                            const char *repository, cp_credential *out, char helper[64],
                            char server[512], cp_err *err);
/* A helper's answer; false: it is none. */
bool cp_credential_parse_helper(const char *json, size_t n, cp_credential *out);

#endif
