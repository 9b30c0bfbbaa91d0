/*
 * WWW-Authenticate as RFC 9110 §11 has it: several challenges in one line and over several lines,
 * quoted strings with commas and escapes, token68. The parser is a pure function over hostile text
 * and fills a caller-owned value; any thread. Schemes and parameters that registries do not use
 * are read over.
 */
#ifndef CP_LOADER_OCI_REMOTE_CHALLENGE_H
#define CP_LOADER_OCI_REMOTE_CHALLENGE_H

#include <stdbool.h>
#include <stddef.h>

enum { CP_CHALLENGES_MAX = 8 };

typedef struct cp_challenge {
    char scheme[24]; /* lower case: "bearer", "basic" */
    /* The parameters that registries use; "" absent, others are read over. */
    char realm[1024], service[512], scope[2048], error[64];
} cp_challenge;

typedef struct cp_challenges {
    size_t n;
    cp_challenge item[CP_CHALLENGES_MAX];
} cp_challenges;

/*
 * Append the challenges of one header line's value (n bytes). False: the line is malformed (or too
 * much) somewhere; the challenges before that place are kept, the one it cut is not.
 */
bool cp_challenge_parse(cp_challenges *out, const char *value, size_t n);
/* The first challenge of that scheme, or NULL. */
const cp_challenge *cp_challenge_find(const cp_challenges *c, const char *scheme);

#endif
