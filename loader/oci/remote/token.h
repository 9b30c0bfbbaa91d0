/*
 * Fetching a token for an endpoint, with redirects and retries. One request to its token service
 * runs at a time, however many jobs wait for it. Owned by the thread of the cp_client that it
 * uses.
 */
#ifndef CP_LOADER_OCI_REMOTE_TOKEN_H
#define CP_LOADER_OCI_REMOTE_TOKEN_H

#include "loader/oci/remote/client.h"
#include "loader/oci/remote/endpoint.h"

typedef struct cp_token_fetch cp_token_fetch;

typedef struct cp_token_options {
    int max_retries;
    int64_t backoff_ms;
    const char *client_cert, *client_key; /* shown when the token service is the registry's host */
    /* The end of a fetch, inside cp_client_step or cp_token_want: CP_OK, the source has a token. */
    void (*done)(void *arg, cp_endpoint *e, cp_code code, const cp_err *err);
    void *arg;
} cp_token_options;

cp_token_fetch *cp_token_fetch_new(cp_client *http, cp_endpoint *e, const cp_token_options *opt);
void cp_token_fetch_free(cp_token_fetch *t);
/* Call again and again while a token is wanted: starts a fetch, or the next try of one. *wait_ms
 * shrinks to the time until the next try. */
void cp_token_want(cp_token_fetch *t, int64_t now_ms, int *wait_ms);

#endif
