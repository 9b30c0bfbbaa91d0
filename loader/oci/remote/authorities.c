/*
 * libcurl takes one file of authorities, which replaces its default. So that the user's file adds
 * to the system's, both are read and given as one piece of memory (CURLOPT_CAINFO_BLOB). A folder
 * of the system's is left to libcurl, which looks into it besides.
 */
#include "loader/oci/remote/authorities.h"
#include "base/io.h"

#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX_BYTES = 16 << 20 };

static const char *variable(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* See authorities.h. */
void cp_authorities_find(cp_authorities *a)
{
    static const char *const usual[] = {"/etc/ssl/certs/ca-certificates.crt",
                                        "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem",
                                        "/etc/ssl/ca-bundle.pem"};
    *a = (cp_authorities){.file = variable("CURL_CA_BUNDLE"), .file_from = "CURL_CA_BUNDLE"};
    if (!a->file) {
        a->file = variable("SSL_CERT_FILE");
        a->file_from = a->file ? "SSL_CERT_FILE" : NULL;
        a->dir = variable("SSL_CERT_DIR");
    }
    a->given = a->file || a->dir;
    if (a->given)
        return;
    const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);
    if (v && v->age >= CURLVERSION_SEVENTH) {
        a->file = v->cainfo;
        a->dir = v->capath;
    }
    for (size_t i = 0; !a->file && !a->dir && i < sizeof(usual) / sizeof(usual[0]); i++)
        if (access(usual[i], R_OK) == 0)
            a->file = usual[i];
}

/* File `path` of option or variable `from`, appended to out. */
static cp_code add_file(const char *from, const char *path, cp_buf *out, cp_err *err)
{
    size_t before = out->n;
    if (access(path, R_OK) != 0)
        return cp_fail(err, CP_USAGE, "%s: %.300s cannot be read: %s", from, path, strerror(errno));
    if (cp_file_read(path, FILE_MAX_BYTES, out, NULL) != CP_OK || !cp_buf_add(out, "\n", 1))
        return cp_fail(err, CP_USAGE, "%s: %.300s cannot be read, or is longer than %d bytes", from,
                       path, FILE_MAX_BYTES);
    if (!memmem(out->p + before, out->n - before, "-----BEGIN ", strlen("-----BEGIN ")))
        return cp_fail(err, CP_USAGE, "%s: %.300s has no PEM certificate in it", from, path);
    return CP_OK;
}

/* Is one of a list of folders (as OpenSSL reads it) there? */
static bool any_folder(const char *list)
{
    struct stat st;
    char path[PATH_MAX];
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ":");
        if (n > 0 && n < sizeof(path)) {
            memcpy(path, p, n);
            path[n] = '\0';
            if (stat(path, &st) == 0 && S_ISDIR(st.st_mode) && access(path, R_OK | X_OK) == 0)
                return true;
        }
        p += n + (p[n] == ':');
    }
    return false;
}

/* See authorities.h. */
cp_code cp_authorities_check(const cp_authorities *a, cp_err *err)
{
    cp_buf pem = {0};
    cp_code code = CP_OK;
    if (a->file_from)
        code = add_file(a->file_from, a->file, &pem, err);
    else if (a->given && !any_folder(a->dir))
        code = cp_fail(err, CP_USAGE, "SSL_CERT_DIR: %.300s is no folder that can be read", a->dir);
    cp_buf_fini(&pem);
    return code;
}

/* See authorities.h. */
cp_code cp_authorities_join(const cp_authorities *a, const char *added, cp_buf *out, cp_err *err)
{
    cp_buf_clear(out);
    cp_code code = add_file("ca-file", added, out, err);
    if (code || !a->file || (!a->given && access(a->file, R_OK) != 0))
        return code; /* a default that is not there adds nothing */
    return add_file(a->given ? a->file_from : "the system's authorities", a->file, out, err);
}
