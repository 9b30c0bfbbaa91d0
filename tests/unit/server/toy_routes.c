/* The server's routes with a row more (toy.def), whose API is toy_api_json.c. */
#include "server/api/api.h"

extern const cp_api cp_api_toy;

#define CP_ROUTES_MORE "tests/unit/server/toy.def"
#include "server/routes.c"
