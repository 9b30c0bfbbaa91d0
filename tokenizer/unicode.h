/*
 * Unicode, as far as tokenizers need it: strict UTF-8 decoding, the classes that pre-tokenizer
 * patterns name, and NFC. The tables are generated (scripts/gen_unicode.py); everything here is
 * pure and may be called by any thread.
 */
#ifndef CP_TOKENIZER_UNICODE_H
#define CP_TOKENIZER_UNICODE_H

#include "base/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bits of cp_uni_class. */
enum { CP_UNI_LETTER = 1, CP_UNI_NUMBER = 2, CP_UNI_SPACE = 4, CP_UNI_NFC_CHECK = 8 };

/* What cp_uni_decode gives for a byte that begins no valid sequence; it has class 0. */
#define CP_UNI_INVALID 0xFFFFFFFFu

/*
 * Decode the code point at s[0], n >= 1 bytes left. Strict: overlong forms, surrogates and values
 * above U+10FFFF are invalid, and an invalid byte is one unit of length 1. Returns the length in
 * bytes, 1..4.
 */
size_t cp_uni_decode(const uint8_t *s, size_t n, uint32_t *cp);
/* Class bits of a code point; 0 for unassigned ones and CP_UNI_INVALID. */
unsigned cp_uni_class(uint32_t cp);
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
