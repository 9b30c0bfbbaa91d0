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

/*
 * Bind and listen. host: numeric or a name (the first address is taken); port 0: any; uds: a path
 * instead (a socket that nobody listens on any more is replaced). An IPv6 address may stand in
 * brackets. url receives "http://HOST:PORT" or "unix:PATH", *bound_port the port (0 for uds),
 * *loopback whether the address bound is one that only this machine reaches. Small send buffers and
 * dead peer detection are set here and inherited by every accepted connection.
 */
cp_code cp_listen(const char *host, int port, const char *uds, int *fd, int *bound_port,
                  bool *loopback, char *url, size_t url_cap, cp_err *err);

/* Which file a path named: that of the socket, while nobody has put another one there. */
typedef struct cp_path_id {
    uint64_t dev, ino; /* ino 0: none */
} cp_path_id;

cp_path_id cp_path_id_of(const char *path);
/* Remove a Unix socket's path where it still names that file: what another process has bound since
 * stays. */
void cp_path_remove(const char *path, cp_path_id id);

#endif
