/*
 * The files of credentials are asked in the order of their search (credentials.h): a file that is
 * named, then those of docker and podman (containers-auth.json(5)). A file that the user has named
 * must be there; the others may be missing. A file that is there and cannot be read is an error,
 * as going on without it would ask the registry as nobody.
 */
#include "loader/oci/remote/credentials.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "loader/oci/remote/helper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, SERVER_BYTES = 512 };

/* $variable and a tail; false: not set, a folder that is not absolute, too long. */
static bool join(char out[PATH_BYTES], const char *variable, const char *tail)
{
    const char *base = getenv(variable);
    if (!base || !*base || (*tail && base[0] != '/'))
        return false;
    return cp_snprintf(out, PATH_BYTES, "%s%s", base, tail) < PATH_BYTES - 1;
}

/* named: the user names this file, it must be there. *known: it has something for the registry. */
static cp_code ask_file(const char *path, bool named, const char *registry, const char *repository,
                        cp_credential *out, bool *known, cp_err *err)
{
    *known = false;
    if (access(path, R_OK) != 0) {
        if (named)
            return cp_fail(err, CP_USAGE, "credentials: %.300s: %s", path, strerror(errno));
        return CP_OK;
    }
    cp_buf b = {0};
    char helper[64], server[SERVER_BYTES];
    cp_code code = cp_file_read(path, CP_CREDENTIAL_FILE_MAX, &b, err);
    if (code != CP_OK)
        cp_fail(err, code = CP_USAGE, "credentials: %.300s cannot be read", path);
    else
        code = cp_credential_parse(path, b.p ? b.p : "", b.n, registry, repository, out, helper,
                                   server, err);
    cp_buf_wipe(&b);
    cp_buf_fini(&b);
    if (code != CP_OK)
        return code;
    if (helper[0] && !cp_credential_helper(helper, server, CP_CREDENTIAL_HELPER_MS, out))
        cp_log(CP_LOG_INFO, "no credentials for %s: %s", registry, out->from);
    *known = cp_credential_any(out);
    return CP_OK;
}

/* See credentials.h. */
cp_code cp_credential_named(const char *authfile, cp_err *err)
{
    const char *path = authfile ? authfile : getenv("REGISTRY_AUTH_FILE");
    if (!path || (!authfile && !*path) || access(path, R_OK) == 0)
        return CP_OK;
    return cp_fail(err, CP_USAGE, "%s: %.300s: %s", authfile ? "authfile" : "REGISTRY_AUTH_FILE",
                   path, strerror(errno));
}

/* See credentials.h. */
cp_code cp_credential_find(const char *authfile, const char *registry, const char *repository,
                           cp_credential *out, cp_err *err)
{
    static const struct {
        const char *variable, *tail;
        bool named;
    } rows[] = {
        {"REGISTRY_AUTH_FILE", "", true},
        {"DOCKER_CONFIG", "/config.json", false},
        {"XDG_RUNTIME_DIR", "/containers/auth.json", false},
        {"XDG_CONFIG_HOME", "/containers/auth.json", false},
        {"HOME", "/.config/containers/auth.json", false},
        {"HOME", "/.docker/config.json", false},
        {"HOME", "/.dockercfg", false},
    };
    *out = (cp_credential){.user = NULL};
    bool known = false;
    if (authfile) {
        cp_code code = ask_file(authfile, true, registry, repository, out, &known, err);
        if (code == CP_OK && !known && !out->from[0])
            cp_snprintf(out->from, sizeof(out->from), "%s", authfile);
        return code;
    }
    char looked[512] = "";
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[PATH_BYTES];
        if (!join(path, rows[i].variable, rows[i].tail))
            continue;
        cp_code code = ask_file(path, rows[i].named, registry, repository, out, &known, err);
        if (code != CP_OK || known)
            return code;
        if (out->from[0]) { /* it was there and has none */
            size_t n = strlen(looked);
            cp_snprintf(looked + n, sizeof(looked) - n, "%s%s", n ? ", " : "", out->from);
        }
        cp_credential_fini(out);
        out->from[0] = '\0';
    }
    cp_snprintf(out->from, sizeof(out->from), "%s",
                looked[0] ? looked : "no file with credentials");
    return CP_OK;
}
