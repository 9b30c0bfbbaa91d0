/*
 * listen: opens the server's listening socket, TCP or Unix. Any thread may call it, and the caller
 * owns the descriptor.
 */
#ifndef CP_SERVER_LISTEN_H
#define CP_SERVER_LISTEN_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Which file a path named: that of the socket, while nobody has put another one there. */
typedef struct cp_path_id {
    uint64_t dev, ino; /* ino 0: none */
} cp_path_id;

cp_path_id cp_path_id_of(const char *path);
/* Remove a Unix socket's path where it still names that file: what another process has bound since
 * stays. */
void cp_path_remove(const char *path, cp_path_id id);

/* A socket that listens; a value of its owner's. */
typedef struct cp_listener {
    int fd;            /* -1: none */
    int port;          /* 0: a Unix socket */
    bool loopback;     /* only this machine reaches the address */
    cp_path_id socket; /* the Unix socket's file */
    char url[300];     /* "http://HOST:PORT" or "unix:PATH" */
} cp_listener;

/*
 * Bind and listen. host: numeric or a name (the first address is taken); port 0: any; uds: a path
 * instead (a socket that nobody listens on any more is replaced). An IPv6 address may stand in
 * brackets. Small send buffers and dead peer detection are set here and inherited by every accepted
 * connection.
 */
cp_code cp_listen(cp_listener *out, const char *host, int port, const char *uds, cp_err *err);
/* Close it and remove a Unix socket's path. A listener without a descriptor is fine. */
void cp_listener_close(cp_listener *l);

#endif
