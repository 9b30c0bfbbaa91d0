/*
 * origin: tells whom a request is for, and which page sent it.
 *
 * These checks stand against pages of other sites that drive a server through somebody's browser
 * (which sends simple bodies without a preflight), and against names that are rebound to loopback.
 * The functions are pure, and any thread may call them.
 */
#ifndef CP_SERVER_ORIGIN_H
#define CP_SERVER_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>

/* Is the host of HOST[:PORT] (NULL: none) localhost, a loopback address or one of the names? Case,
 * one final dot, the port and brackets do not count. */
bool cp_host_allowed(const char *authority, char *const *names, size_t n_names);
/* The entry that allows this Origin ("*" allows each); NULL: none, or no origin. */
const char *cp_origin_allowed(const char *origin, char *const *origins, size_t n_origins);
/* What a preflight answers to Access-Control-Request-Headers: those names (up to 200 bytes), or a
 * value that allows each, where none, too many or no names are asked for. */
const char *cp_origin_headers(const char *asked);
/* Is SCHEME://HOST[:PORT] the origin of what is asked for at this authority? */
bool cp_origin_same(const char *origin, const char *authority);
/* Is a Content-Type (NULL: none) application/json, or any type with +json? */
bool cp_type_is_json(const char *type);

#endif
