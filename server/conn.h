/*
 * conn: one connection decides what is read, what is sent, and when it ends.
 *
 * A connection is pumped whenever something happened to it: it reads what is there, reads heads and
 * bodies strictly (head.h), calls the hooks, writes what there is to write, and begins again with
 * the next request. Connections without a request in flight stand in a list, the longest idle
 * first. All functions run on the loop thread.
 */
#ifndef CP_SERVER_CONN_H
#define CP_SERVER_CONN_H

#include "server/http_types.h"

/* Take fd over, into a free slot and the epoll; it stands on the list to pump. */
void cp_conn_open(cp_http *h, int fd, const struct sockaddr_in6 *peer, int64_t now);
/* The exchange in flight ends, the slot is free. The memory goes when it has left the list. */
void cp_conn_close(cp_http *h, cp_conn *c);
/* Pump all that are on the list. */
void cp_conn_pump(cp_http *h, int64_t now);

#endif
