/*
 * utf8: decodes UTF-8 as RFC 3629 has it: it takes no overlong forms, no surrogates, nothing above
 * U+10FFFF. The tree has no other decoder. The functions are pure, and any thread may call them.
 *
 * U+20AC is E2 82 AC. Which bytes may stand where is table 3-7 of the Unicode Standard, section
 * 3.9: the first says how many there are, and narrows the range of the second.
 */
#ifndef CP_BASE_UTF8_H
#define CP_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many bytes a character has that begins with b; 0: none begins so. */
static inline size_t cp_utf8_need(uint8_t b)
{
    return b < 0x80 ? 1 : b < 0xC2 ? 0 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : b < 0xF5 ? 4 : 0;
}

/* May b be byte i (1 to 3) of a character that begins with `first`? */
static inline bool cp_utf8_follows(uint8_t first, size_t i, uint8_t b)
{
    if (i == 1 && (first == 0xE0 || first == 0xED || first == 0xF0 || first == 0xF4))
        return first == 0xE0   ? b >= 0xA0 && b < 0xC0
               : first == 0xED ? b >= 0x80 && b < 0xA0
               : first == 0xF0 ? b >= 0x90 && b < 0xC0
                               : b >= 0x80 && b < 0x90;
    return (b & 0xC0) == 0x80;
}

/* The character at s (n >= 1 bytes left) into *cp; returns its bytes, 1 to 4. 0: there is none, and
 * *cp is left alone. Bytes behind the first that does not belong are not read. */
static inline size_t cp_utf8_decode(const char *s, size_t n, uint32_t *cp)
{
    const uint8_t *p = (const uint8_t *)s;
    if (p[0] < 0x80) {
        *cp = p[0];
        return 1;
    }
    size_t need = cp_utf8_need(p[0]);
    if (need == 0 || need > n)
        return 0;
    uint32_t c = p[0] & (0x7Fu >> need);
    for (size_t i = 1; i < need; i++) {
        if (!cp_utf8_follows(p[0], i, p[i]))
            return 0;
        c = c << 6 | (p[i] & 0x3Fu);
    }
    *cp = c;
    return need;
}

/* Its length alone; 0: there is none, or nothing is left. */
size_t cp_utf8_len(const char *s, size_t n);
/* Bytes of s[n] in front of the first that belongs to no character; n: all do. */
size_t cp_utf8_valid_n(const char *s, size_t n);
bool cp_utf8_valid(const char *s, size_t n);
/* Code points in valid UTF-8. */
size_t cp_utf8_count(const char *s, size_t n);
/* Encode up to U+10FFFF; returns its bytes, 1 to 4. A surrogate becomes what no decoder takes. */
size_t cp_utf8_encode(uint32_t cp, char out[4]);

#endif
