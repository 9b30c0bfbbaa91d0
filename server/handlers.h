/*
 * handlers: routes without a body, answered at once from what the server knows. Loop thread; each
 * function is named in routes.def.
 */
#ifndef CP_SERVER_HANDLERS_H
#define CP_SERVER_HANDLERS_H

#include "server/call.h"

#define CP_ROUTE(method, path, prefix, scope, handler) void cp_handle_##handler(cp_call *c);
#define CP_ROUTE_API(...)
#include "server/routes.def"
#undef CP_ROUTE
#undef CP_ROUTE_API

#endif
