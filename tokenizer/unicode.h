/*
 * Unicode, as far as tokenizers need it: strict UTF-8 decoding, the classes that pre-tokenizer
 * patterns name, and NFC. The tables are generated (scripts/gen_unicode.py); everything here is
 * pure and may be called by any thread.
 */
#ifndef CP_TOKENIZER_UNICODE_H
#define CP_TOKENIZER_UNICODE_H

#include "base/mem.h"
#include "base/utf8.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Bits of cp_uni_class, general categories but for the last two: UPPER is Lu and Lt, LOWER is Ll,
 * and a letter without case (Lm, Lo) has both; MARK is M, NUMBER N, PUNCT P, SYMBOL S. SPACE is the
 * property White_Space. NFC_CHECK: may change under NFC.
 */
enum {
    CP_UNI_UPPER = 1,
    CP_UNI_LOWER = 2,
    CP_UNI_LETTER = CP_UNI_UPPER | CP_UNI_LOWER,
    CP_UNI_MARK = 4,
    CP_UNI_NUMBER = 8,
    CP_UNI_SPACE = 16,
    CP_UNI_PUNCT = 32,
    CP_UNI_SYMBOL = 64,
    CP_UNI_NFC_CHECK = 128
};

/* What cp_uni_decode gives for a byte that begins no valid sequence; it has class 0. */
#define CP_UNI_INVALID 0xFFFFFFFFu

/* Classes in two stages: blocks of 256 code points, equal ones shared; block 0 holds the first. */
extern const uint8_t cp_uni_class_index[], cp_uni_class_block[];

/*
 * Decode the code point at s[0], n >= 1 bytes left. Strict: overlong forms, surrogates and values
 * above U+10FFFF are invalid, and an invalid byte is one unit of length 1. Returns the length in
 * bytes, 1..4.
 */
static inline size_t cp_uni_decode(const uint8_t *s, size_t n, uint32_t *cp)
{
    *cp = CP_UNI_INVALID;
    size_t len = cp_utf8_decode((const char *)s, n, cp);
    return len ? len : 1;
}

/* Class bits of a code point; 0 for unassigned ones and CP_UNI_INVALID. */
static inline unsigned cp_uni_class(uint32_t cp)
{
    if (cp > 0x10FFFF)
        return 0;
    return cp_uni_class_block[(size_t)cp_uni_class_index[cp >> 8] << 8 | (cp & 0xFF)];
}

/* Class bits of the character at s[i], i < n, and its length. */
static inline unsigned cp_uni_at(const uint8_t *s, size_t i, size_t n, size_t *len)
{
    *len = 1;
    if (s[i] < 0x80)
        return cp_uni_class_block[s[i]];
    uint32_t cp;
    *len = cp_uni_decode(s + i, n - i, &cp);
    return cp_uni_class(cp);
}

/* The version of the Unicode Character Database behind the tables, such as "15.1.0". */
const char *cp_uni_version(void);

/* True when s[0, n) surely is in NFC already (a quick check: false means "maybe not"). */
bool cp_uni_is_nfc(const uint8_t *s, size_t n);
/*
 * Append the NFC form of s[0, n) to out. Invalid bytes pass through and separate what stands around
 * them. Linear in n whatever the combining marks. False: out of memory.
 */
bool cp_uni_nfc(const uint8_t *s, size_t n, cp_buf *out);

#endif
