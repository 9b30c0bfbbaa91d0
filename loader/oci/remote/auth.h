/*
 * What a 401 means and what to answer to it: Basic, Bearer with a token service, and which of them
 * may have the credentials. Works on a cp_endpoint, makes no connection; owned by the source's
 * thread. May block while a credential helper runs.
 */
#ifndef CP_LOADER_OCI_REMOTE_AUTH_H
#define CP_LOADER_OCI_REMOTE_AUTH_H

#include "base/mem.h"
#include "loader/oci/remote/endpoint.h"

/*
 * The source answered 401 with these WWW-Authenticate lines ('\n' behind each). CP_OK: ask again,
 * after a token was fetched if cp_auth_stale says so. CP_NETWORK: there is nothing better to answer
 * (says what was wanted and where credentials were looked for). CP_USAGE: a malformed file of
 * credentials.
 */
cp_code cp_auth_denied(cp_endpoint *e, const char *challenges, const char *authfile, cp_err *err);
/* ", error 'insufficient_scope'" when a challenge says so, else "". */
enum { CP_AUTH_REASON_MAX = 80 };
void cp_auth_reason(const char *challenges, char out[CP_AUTH_REASON_MAX]);
/* A token must be fetched before the source is asked (none yet, or 80 % of its life is over). */
bool cp_auth_stale(const cp_endpoint *e, int64_t now_ms);
/* The Authorization header's value for the source, appended; nothing when it needs none. */
bool cp_auth_header(const cp_endpoint *e, cp_buf *out);

/* How to ask the token service: url, form (empty: GET), authorization (empty: none). */
cp_code cp_auth_token_request(const cp_endpoint *e, char url[CP_URL_MAX], cp_buf *form,
                              cp_buf *authorization, cp_err *err);
/* Its answer of status 200. */
cp_code cp_auth_token_reply(cp_endpoint *e, const char *body, size_t n, int64_t now_ms,
                            cp_err *err);

#endif
