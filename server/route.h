/*
 * route: one row describes a path and a method, and what has no row does not exist. Rows are
 * constant, and any thread may read them.
 */
#ifndef CP_SERVER_ROUTE_H
#define CP_SERVER_ROUTE_H

#include "server/api/api.h"
#include "server/http.h"

typedef struct cp_route {
    cp_method method;
    const char *path;
    unsigned scope;             /* mask of scopes of which one is needed; 0: open */
    const cp_api *api;          /* whose bodies it takes; NULL: none */
    const cp_api *words;        /* whose words its errors are; NULL: OpenAI's */
    void (*handle)(cp_call *c); /* called when the body, if any, is there; loop thread */
} cp_route;

/* Does a drain wait for its calls? Not for those that change the server. */
static inline bool cp_route_counts(const cp_route *r)
{
    return r->api && !r->api->act;
}

#endif
