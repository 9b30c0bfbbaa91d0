// deps: loader base
/*
 * Fuzz target: WWW-Authenticate. Whatever the bytes, what is kept is bounded, terminated, free of
 * control characters, and a second line never changes what the first one gave.
 */
#include "base/code.h"
#include "loader/oci/remote/challenge.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *s, size_t cap)
{
    size_t n = strnlen(s, cap);
    CP_ASSERT(n < cap);
    for (size_t i = 0; i < n; i++)
        CP_ASSERT((unsigned char)s[i] >= 0x20 && s[i] != 0x7f);
}

/* Lines are cut at '\n', as header lines come. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static cp_challenges c;
    c.n = 0;
    const char *p = (const char *)data, *end = p + size;
    while (p < end) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((stop ? stop : end) - p), before = c.n;
        cp_challenge first = c.item[0];
        bool whole = cp_challenge_parse(&c, p, n);
        CP_ASSERT(c.n >= before && c.n <= CP_CHALLENGES_MAX);
        CP_ASSERT(whole || n > 0);
        CP_ASSERT(before == 0 || memcmp(&first, &c.item[0], sizeof(first)) == 0);
        p += n + (stop != NULL);
    }
    for (size_t i = 0; i < c.n; i++) {
        const cp_challenge *x = &c.item[i];
        CP_ASSERT(x->scheme[0]);
        check(x->scheme, sizeof(x->scheme));
        check(x->realm, sizeof(x->realm));
        check(x->service, sizeof(x->service));
        check(x->scope, sizeof(x->scope));
        check(x->error, sizeof(x->error));
        CP_ASSERT(cp_challenge_find(&c, x->scheme) <= x);
    }
    return 0;
}
