/*
 * orca: says in a header of an answer how loaded its model is, to balancers that ask for it (ORCA,
 * the Open Request Cost Aggregation of Envoy and gRPC). Loop thread.
 */
#ifndef CP_SERVER_ORCA_H
#define CP_SERVER_ORCA_H

#include "server/call.h"

/* Where the request has endpoint-load-metrics-format, TEXT or JSON, and its model is known: the
 * header endpoint-load-metrics, with the two figures that vLLM gives there, under its names. */
void cp_orca_header(cp_call *c);

#endif
