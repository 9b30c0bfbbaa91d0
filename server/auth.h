/*
 * auth: tells which scopes a presented key has. Any thread may ask, because nobody writes the table
 * after the server was opened.
 */
#ifndef CP_SERVER_AUTH_H
#define CP_SERVER_AUTH_H

#include "server/server.h"

/* Scopes of `key` (NUL-terminated), 0 when it is none of them. Takes the same time for every key
 * of one length, right or wrong. */
unsigned cp_auth_scopes(const cp_api_key *keys, size_t n, const char *key);
/* What a key is called where it must not be shown: "sha256:" and the first 12 digits of its hash.
 */
void cp_auth_name(const char *key, char out[20]);
/* The key in "Bearer K" (scheme in any case), or NULL. */
const char *cp_auth_bearer(const char *header);

#endif
