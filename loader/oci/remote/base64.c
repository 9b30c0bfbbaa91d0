/*
 * Base64 by table, by RFC 4648 §4. The decoder takes the alphabet and up to two "=" at the end,
 * which may be missing, as some writers of credentials leave them out; anything else is malformed.
 * Both directions return fresh memory, which holds a secret.
 */
#include "loader/oci/remote/base64.h"
#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* See base64.h. */
char *cp_base64_encode(const void *p, size_t n)
{
    const uint8_t *b = p;
    char *out = cp_xmalloc(n / 3 * 4 + 5), *o = out;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)b[i] << 16 | (i + 1 < n ? (uint32_t)b[i + 1] << 8 : 0) |
                     (i + 2 < n ? b[i + 2] : 0);
        *o++ = ALPHABET[v >> 18];
        *o++ = ALPHABET[v >> 12 & 63];
        *o++ = i + 1 < n ? ALPHABET[v >> 6 & 63] : '=';
        *o++ = i + 2 < n ? ALPHABET[v & 63] : '=';
    }
    *o = '\0';
    return out;
}

/* See base64.h. */
char *cp_base64_decode(const char *s, size_t *n)
{
    size_t len = strlen(s);
    while (len > 0 && s[len - 1] == '=')
        len--;
    if (len % 4 == 1 || strlen(s) - len > 2)
        return NULL;
    char *out = cp_xmalloc(len / 4 * 3 + 4);
    uint32_t v = 0;
    *n = 0;
    for (size_t i = 0; i < len; i++) {
        const char *at = memchr(ALPHABET, s[i], 64);
        if (!at) {
            free(out);
            return NULL;
        }
        v = v << 6 | (uint32_t)(at - ALPHABET);
        if (i % 4 != 0)
            out[(*n)++] = (char)(v >> (6 - 2 * (i % 4)) & 0xff);
    }
    out[*n] = '\0';
    return out;
}
