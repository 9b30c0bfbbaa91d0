/*
 * Base64 (RFC 4648 §4) of credentials: "Aladdin:open sesame" is "QWxhZGRpbjpvcGVuIHNlc2FtZQ==".
 * Pure functions, any thread. What they return is a secret: its caller wipes it before he frees it.
 */
#ifndef CP_LOADER_OCI_REMOTE_BASE64_H
#define CP_LOADER_OCI_REMOTE_BASE64_H

#include <stddef.h>

/* NUL-terminated (malloc). */
char *cp_base64_encode(const void *p, size_t n);
/* *n bytes and a NUL (malloc); NULL: s is malformed. Padding may be left out, as some writers do;
 * blanks and line ends may not stand in it. */
char *cp_base64_decode(const char *s, size_t *n);

#endif
