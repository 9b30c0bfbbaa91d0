/*
 * exporter: the process that sends a server's spans to a collector, so that the server itself opens
 * no connection.
 *
 * It is a child of the server (child.h) at the other end of the socket of server/trace.h, holds
 * what it has read within a bound, and sends it as OTLP over HTTP, in JSON, a batch a second or as
 * soon as there is much. When the server ends it has a few seconds to send the rest.
 */
#ifndef CP_APP_EXPORTER_H
#define CP_APP_EXPORTER_H

#include "app/child.h"

enum { CP_EXPORTER_END_MS = 6000 }; /* what cp_child_stop should wait */

/* Start it for this endpoint (http or https; the path /v1/traces is added where it does not end in
 * it). CP_USAGE: it is no such URL. */
cp_code cp_exporter_start(cp_child *c, const char *endpoint, const char *version, cp_err *err);

#endif
