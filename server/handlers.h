/*
 * handlers: answer routes without a body, at once and from what the server knows. Each function is
 * named in routes.def and runs on the loop thread.
 */
#ifndef CP_SERVER_HANDLERS_H
#define CP_SERVER_HANDLERS_H

#include "server/call.h"

#define CP_ROUTE(method, path, scope, handler)         void cp_handle_##handler(cp_call *c);
#define CP_ROUTE_OF(api, method, path, scope, handler) void cp_handle_##handler(cp_call *c);
#define CP_ROUTE_API(...)
#include "server/routes.def"
#undef CP_ROUTE
#undef CP_ROUTE_OF
#undef CP_ROUTE_API

#endif
