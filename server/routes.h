/*
 * routes: decide where a request goes. All functions run on the loop thread; the first two are
 * hooks of http.h.
 */
#ifndef CP_SERVER_ROUTES_H
#define CP_SERVER_ROUTES_H

#include "server/route.h"

/* Stands for a model's name in the path of a route. */
#define CP_ROUTE_MODEL "{model}"

void cp_route_head(void *arg, cp_http_req *q, int bad);
void cp_route_request(void *arg, cp_http_req *q, int bad);
/* Row i of the table, NULL past the end. Any thread. */
const cp_route *cp_route_at(size_t i);

#endif
