/*
 * query: reads what stands behind the question mark of a request's target. Any thread.
 */
#ifndef CP_SERVER_QUERY_H
#define CP_SERVER_QUERY_H

#include <stdbool.h>
#include <stddef.h>

enum { CP_QUERY_TEXT = 256 };

/* p[n], percent-decoded once, NUL-terminated, at most cap - 1 bytes. False: it is malformed (a byte
 * after % is two hexadecimal digits, and not 00) or too long. */
bool cp_percent_decode(const char *p, size_t n, char *out, size_t cap);
/* The next NAME=VALUE of the query at *at, decoded, which moves on; false: there is none. A value
 * that is malformed or too long is "", so that it is not taken for one that was not given; such a
 * name is passed over. name[]=x and name=x have the name "name[]" and "name". */
bool cp_query_next(const char **at, char name[CP_QUERY_TEXT], char value[CP_QUERY_TEXT]);

#endif
