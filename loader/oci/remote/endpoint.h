/*
 * Where a repository can be had: its registry (the upstream) or a mirror of it, with the tokens and
 * the manners (waits) of that host. Owned by the cp_registry that made it. Hides credentials,
 * challenges and token lifetimes; makes no connection itself.
 */
#ifndef CP_LOADER_OCI_REMOTE_ENDPOINT_H
#define CP_LOADER_OCI_REMOTE_ENDPOINT_H

#include "loader/oci/reference.h"
#include "loader/oci/remote/credential.h"
#include "loader/oci/remote/request.h"
#include "loader/oci/remote/url.h"

/* How it wants to be asked. */
typedef enum cp_endpoint_auth { CP_AUTH_NONE, CP_AUTH_BASIC, CP_AUTH_BEARER } cp_endpoint_auth;

enum {
    CP_ENDPOINTS_MAX = 16,
    CP_BASE_MAX = 600,
};

typedef struct cp_endpoint {
    char host[CP_HOST_MAX + 8];   /* host[:port] as asked */
    char shown[CP_HOST_MAX + 8];  /* as people know it: "docker.io" */
    char prefix[CP_REF_NAME_MAX]; /* of a mirror's URL: a path in front of the repository, or "" */
    char repository[2 * CP_REF_NAME_MAX]; /* with that prefix */
    char upstream[CP_HOST_MAX + 8];       /* a mirror's ?ns=, "" for the upstream itself */
    bool https;
    bool scheme_open;      /* loopback without a flag: http, unless that proves wrong */
    bool scheme_named;     /* https or not by a flag or a mirror's URL */
    bool contacted;        /* it answered once */
    bool private_net;      /* it has a private or loopback address */
    int64_t not_before_ms; /* it asked for patience (Retry-After) */
    char ca_file[256], client_cert[256], client_key[256]; /* of a certs.d folder, "" none */

    /* auth.c's: */
    cp_endpoint_auth auth;
    bool looked_up; /* the credential was looked for */
    cp_credential credential;
    char realm[1024], service[512], scope[2048]; /* where and how a token is to be had */
    char *token;
    int64_t token_due_ms; /* fetch another one from then on */
    unsigned generation;  /* counts the tokens */
    bool form_refused;    /* the token service does not take POST */
} cp_endpoint;

/* Wipes what is secret. */
void cp_endpoint_fini(cp_endpoint *e);

/* The registry of ref. */
cp_code cp_endpoint_upstream(cp_endpoint *e, const cp_ref *ref, const cp_registry_options *opt,
                             cp_err *err);
/* One "HOST=URL". *applies: HOST is ref's registry; only then s is filled. CP_USAGE: malformed. */
cp_code cp_endpoint_mirror(cp_endpoint *e, const char *mirror, const cp_ref *ref,
                           const cp_registry_options *opt, bool *applies, cp_err *err);
/* Is that the host of the endpoint itself, whatever the port? */
bool cp_endpoint_has_host(const cp_endpoint *e, const cp_origin *o);
/* "https://host/v2/<repository>/<kind>/<what>[?ns=...]"; false: too long. */
bool cp_endpoint_url(const cp_endpoint *e, const char *kind, const char *what,
                     char out[CP_URL_MAX]);

#endif
