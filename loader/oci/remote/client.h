/*
 * HTTP exchanges: one request and its one answer, many at a time, over libcurl's multi interface.
 *
 * A cp_client and its exchanges are owned by one thread. An exchange is a caller-owned value that
 * stays in place while it runs. There is no policy here: redirects, tokens and retries are
 * answers like others, the caller starts the next exchange. Fixed here: http and https only,
 * HTTP/1.1 (a connection each makes ranges parallel; over TLS it also costs less CPU than HTTP/2),
 * no content encoding, proxies from the environment (never for loopback), certificates always
 * checked, metadata addresses never connected to, stalled connections given up.
 */
#ifndef CP_LOADER_OCI_REMOTE_CLIENT_H
#define CP_LOADER_OCI_REMOTE_CLIENT_H

#include "base/code.h"
#include "base/mem.h"
#include "loader/oci/remote/url.h"

enum {
    CP_CLIENT_TEXT_MAX = 8192,       /* bytes kept of an answer that is no success */
    CP_CLIENT_CHALLENGES_MAX = 8192, /* bytes of WWW-Authenticate lines */
    CP_CLIENT_CONNECT_TIMEOUT_MS = 15000,
    CP_CLIENT_SPEED_MIN = 256, /* bytes a second, below it a connection counts as stalled */
};

typedef struct cp_client cp_client;
typedef struct cp_client_options {
    const char *ca_file; /* beside the system's; borrowed until close; NULL: those alone */
    int64_t stall_ms;
    int connections;
} cp_client_options;

/* Why an exchange ended without an answer. */
typedef enum cp_client_end {
    CP_CLIENT_ANSWERED,  /* an answer came, whole or as far as it was wanted */
    CP_CLIENT_STOPPED,   /* `body` returned false */
    CP_CLIENT_LOST,      /* the connection; another try may do better */
    CP_CLIENT_UNREACHED, /* no connection came about */
    CP_CLIENT_GARBLED,   /* what answered does not speak HTTP (or speaks TLS) */
    CP_CLIENT_REFUSED,   /* by us or for good: certificate, address, protocol */
} cp_client_end;

/* Does who answered seem to speak the other scheme than the URL says? */
typedef enum cp_client_other {
    CP_CLIENT_AS_ASKED,
    CP_CLIENT_SPEAKS_PLAIN, /* and the URL says https */
    CP_CLIENT_SPEAKS_TLS,   /* and the URL says http */
} cp_client_other;

typedef struct cp_exchange cp_exchange;
struct cp_exchange {
    /* request; strings are read by cp_client_start only */
    const char *url, *accept, *authorization; /* NULL: header left out */
    const char *form;                         /* not NULL: POST this */
    bool ranged;
    uint64_t first, last;
    const char *client_cert, *client_key, *ca_file; /* override the cp_client's; NULL: none */
    bool private_ok;            /* may connect to private and loopback addresses; a proxy may have
                                   any, then the host's own is the proxy's affair */
    int64_t timeout_ms;         /* of the whole exchange; 0: none */
    int64_t connect_timeout_ms; /* 0: the default */
    /* Bytes of an answer of status 200..299, headers below are set; false stops. */
    bool (*body)(cp_exchange *x, const void *p, size_t n);
    void (*done)(cp_exchange *x); /* once, inside cp_client_step */
    void *arg;

    /* answer */
    cp_client_end end;
    int status; /* 0: none */
    bool has_length, has_range, has_total;
    uint64_t length, range_first, range_last, range_total;
    int64_t retry_after_s; /* -1: none */
    char content_type[128], content_encoding[32], content_digest[128];
    char location[CP_URL_MAX];                 /* "" none; too long a one is answered as none */
    char challenges[CP_CLIENT_CHALLENGES_MAX]; /* WWW-Authenticate lines, '\n' behind each */
    cp_buf text;       /* body of an answer that is no success, cut at CP_CLIENT_TEXT_MAX */
    bool private_peer; /* who answered (not a proxy in between) has a private or loopback address */
    cp_client_other other;
    char problem[256]; /* what went wrong, when end is not CP_CLIENT_ANSWERED */

    void *impl; /* client.c's own; NULL while it does not run */
};

cp_code cp_client_open(cp_client **out, const cp_client_options *opt, cp_err *err);
void cp_client_close(cp_client *h); /* exchanges that still run are cancelled */
cp_code cp_client_start(cp_client *h, cp_exchange *x, cp_err *err);
void cp_client_cancel(cp_client *h, cp_exchange *x);
void cp_exchange_fini(cp_exchange *x);
/* Move bytes and call `done`s; *n_running afterwards. cp_client_wait waits for something to do. */
cp_code cp_client_step(cp_client *h, int *n_running, cp_err *err);
cp_code cp_client_wait(cp_client *h, int timeout_ms, cp_err *err);
uint64_t cp_client_received(const cp_client *h); /* body bytes */

#endif
