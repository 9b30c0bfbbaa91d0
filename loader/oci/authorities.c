/*
 * Authorities; see authorities.h. libcurl takes one file of them, which replaces its default: so
 * that the user's file adds to the system's, both are read and given as one piece of memory.
 */
#include "loader/oci/authorities.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
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
    *a = (cp_authorities){.file = variable("CURL_CA_BUNDLE")};
    if (!a->file) {
        a->file = variable("SSL_CERT_FILE");
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

static bool add_file(const char *path, cp_buf *out)
{
    return cp_file_read(path, FILE_MAX_BYTES, out, NULL) == CP_OK && cp_buf_add(out, "\n", 1);
}

/* See authorities.h. */
cp_code cp_authorities_join(const cp_authorities *a, const char *added, cp_buf *out, cp_err *err)
{
    cp_buf_clear(out);
    if (!add_file(added, out))
        return cp_fail(err, CP_USAGE, "ca-file: %s cannot be read", added);
    if (!memmem(out->p, out->n, "-----BEGIN ", strlen("-----BEGIN ")))
        return cp_fail(err, CP_USAGE, "ca-file: %s has no PEM certificate in it", added);
    if (!a->file || (!a->given && access(a->file, R_OK) != 0))
        return CP_OK; /* a default that is not there adds nothing */
    if (!add_file(a->file, out))
        return cp_fail(err, CP_USAGE, "%s of %s cannot be read", a->file,
                       !a->given                    ? "the system"
                       : variable("CURL_CA_BUNDLE") ? "CURL_CA_BUNDLE"
                                                    : "SSL_CERT_FILE");
    return CP_OK;
}
