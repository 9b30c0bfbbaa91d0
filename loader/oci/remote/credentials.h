/*
 * Finding credentials for a registry, where docker and podman keep them.
 *
 * Looked for: --authfile alone when given, else $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json,
 * $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json, ~/.docker/config.json,
 * ~/.dockercfg; the first that knows the registry wins. Within a file the most specific key wins
 * (registry/namespace/repository before registry/namespace before registry), `auths` before a
 * helper (helper.h). Reads the environment; any thread, but it may block for
 * CP_CREDENTIAL_HELPER_MS.
 */
#ifndef CP_LOADER_OCI_REMOTE_CREDENTIALS_H
#define CP_LOADER_OCI_REMOTE_CREDENTIALS_H

#include "loader/oci/remote/credential.h"

enum { CP_CREDENTIAL_FILE_MAX = 4 << 20, CP_CREDENTIAL_HELPER_MS = 30000 };

/* For a repository of a registry ("docker.io" for Docker Hub). None is no error: all NULL, `from`
 * says where was looked. CP_USAGE: a file that was named is not there, or a file is malformed. */
cp_code cp_credential_find(const char *authfile, const char *registry, const char *repository,
                           cp_credential *out, cp_err *err);

/* Can the file that the user names for certain (authfile, else $REGISTRY_AUTH_FILE) be read? Asked
 * before a registry is, so that a mistyped one is not found out at the first 401 only. CP_OK also
 * when none is named; CP_USAGE, with option or variable and path. */
cp_code cp_credential_named(const char *authfile, cp_err *err);

#endif
