/*
 * The JSON that registries and token services answer with: error bodies and tokens. Hostile input,
 * pure functions, any thread. Hides jansson.
 */
#ifndef CP_LOADER_OCI_REMOTE_REPLY_H
#define CP_LOADER_OCI_REMOTE_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CP_REPLY_TEXT_MAX = 240, CP_TOKEN_MAX = 32 << 10 };

/* An error body as one printable line: "CODE: message" of {"errors":[...]}, a page's title, its
 * text when that is short and plain, else "". */
void cp_reply_error(const char *body, size_t n, char out[CP_REPLY_TEXT_MAX]);
/* A token service's answer: token or access_token (malloc, NULL: none that is usable), lifetime in
 * seconds (expires_in; 60 when absent). */
char *cp_reply_token(const char *body, size_t n, int64_t *lifetime_s);

#endif
