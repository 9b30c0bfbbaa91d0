/*
 * gate: decides who may use which route, and with which body. All functions run on the loop thread.
 */
#ifndef CP_SERVER_GATE_H
#define CP_SERVER_GATE_H

#include "server/core.h"
#include "server/route.h"

/* Is the request for this machine? Without keys loopback is the only lock, and a page whose name
 * was rebound to it must stay out: CP_PERMISSION. */
cp_code cp_gate_host(const cp_server *s, const cp_http_req *q, cp_err *err);
/* Everything else that stands before a route (NULL: none; other: any of the same path), in its
 * order. CP_OK, or what the request is refused with; may add headers to the answer. */
cp_code cp_gate_check(const cp_server *s, cp_http_req *q, const cp_route *route,
                      const cp_route *other, cp_err *err);
/* Bytes of one body: what could never be held is refused at its head. */
uint64_t cp_gate_body_max(const cp_server *s);

#endif
