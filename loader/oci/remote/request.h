/*
 * What is asked of a registry: how to talk to it, and ranges of blobs. These are plain values that
 * their caller owns. They stand apart from registry.h so that what answers a request need not know
 * the whole client.
 */
#ifndef CP_LOADER_OCI_REMOTE_REQUEST_H
#define CP_LOADER_OCI_REMOTE_REQUEST_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CP_CONNECTIONS_DEFAULT = 4, CP_CONNECTIONS_MAX = 32 };

/* All strings are borrowed until cp_registry_close; NULL or 0 = not given. */
typedef struct cp_registry_options {
    const char *const *mirrors; /* "HOST=URL": URL stands in for the registry HOST */
    int n_mirrors;
    const char *const *plain_http; /* "HOST[:PORT]"; loopback needs none */
    int n_plain_http;
    const char *ca_file;                  /* PEM, beside the system's */
    const char *client_cert, *client_key; /* PEM, shown to the registry and its mirrors only */
    const char *authfile; /* docker's config.json; NULL: looked for where docker and podman do */
    int connections;      /* transfers at once, 1..CP_CONNECTIONS_MAX; 0: the default */
    int64_t stall_ms;     /* give up a connection that moves next to nothing for so long; 0: 30 s */
    int max_retries;      /* of one request, progress starts the count again; 0: 6 */
    int64_t backoff_ms;   /* first wait before a retry, doubled each time; 0: 250 ms */
} cp_registry_options;

typedef struct cp_registry cp_registry;

/*
 * A range of a blob. `data` gets consecutive bytes; after a lost connection the registry goes on
 * where it stopped, so no byte comes twice and none from outside [from, from + n). `done` comes
 * once. Both run inside cp_registry_step or cp_registry_manifest; `done` may start or cancel other
 * fetches, `data` may not. What `done` says: CP_OK (n bytes were delivered), what `data` returned,
 * CP_UNSUPPORTED (no endpoint gives the range: ask for the whole, from = 0 and n = total),
 * CP_CORRUPT (the blob's size is not total), CP_NOT_FOUND, CP_NETWORK.
 */
typedef struct cp_fetch {
    const char *digest;      /* "sha256:..." */
    uint64_t total, from, n; /* the blob's size by its descriptor, the range */
    bool upstream_only;      /* pass mirrors by (one of them served bytes of another digest) */
    cp_code (*data)(void *arg, uint64_t at, const void *p, size_t n, cp_err *err);
    void (*done)(void *arg, cp_code code, const cp_err *err);
    void *arg;
    void *impl; /* the registry's own; NULL while the fetch does not run */
} cp_fetch;

#endif
