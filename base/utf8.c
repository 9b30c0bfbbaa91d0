/* This file decodes UTF-8: see utf8.h. */
#include "base/utf8.h"

size_t cp_utf8_len(const char *s, size_t n)
{
    uint32_t cp;
    return n ? cp_utf8_decode(s, n, &cp) : 0;
}

size_t cp_utf8_valid_n(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = cp_utf8_len(s + i, n - i);
        if (len == 0)
            return i;
        i += len;
    }
    return n;
}

bool cp_utf8_valid(const char *s, size_t n)
{
    return cp_utf8_valid_n(s, n) == n;
}

size_t cp_utf8_count(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((uint8_t)s[i] & 0xC0) != 0x80;
    return count;
}

size_t cp_utf8_encode(uint32_t cp, char out[4])
{
    static const uint8_t lead[] = {0, 0x00, 0xC0, 0xE0, 0xF0};
    size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (cp & 0x3F));
        cp >>= 6;
    }
    out[0] = (char)(lead[n] | cp);
    return n;
}
