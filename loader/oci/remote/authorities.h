/*
 * The certificate authorities that registries' certificates are checked against: the system's, and
 * a file of the user's beside them. A cp_authorities is a caller-owned value of one thread; what it
 * names is borrowed from the environment and from libcurl. It hides where systems keep theirs.
 */
#ifndef CP_LOADER_OCI_REMOTE_AUTHORITIES_H
#define CP_LOADER_OCI_REMOTE_AUTHORITIES_H

#include "base/code.h"
#include "base/mem.h"

#include <stdbool.h>

typedef struct cp_authorities {
    bool given;             /* by the environment; else they are libcurl's own default */
    const char *file, *dir; /* PEM, and folders (':' between) of hashed names; NULL: none */
    const char *file_from;  /* the variable that names the file; NULL: none does */
} cp_authorities;

/* The system's: CURL_CA_BUNDLE, else SSL_CERT_FILE and SSL_CERT_DIR, else what libcurl was built
 * with, else where systems usually have them. A variable that is empty counts as unset. */
void cp_authorities_find(cp_authorities *a);

/* Can those be read that variables name? CP_USAGE, with the variable: the file cannot, or has no
 * PEM certificate in it; there is no file, and none of the folders is one. */
cp_code cp_authorities_check(const cp_authorities *a, cp_err *err);

/* The PEM of the system's file and of file `added`, one behind the other, into `out`. CP_USAGE: one
 * cannot be read, or there is no certificate in `added`. */
cp_code cp_authorities_join(const cp_authorities *a, const char *added, cp_buf *out, cp_err *err);

#endif
