/*
 * The scanners. Each is the family's regular expression compiled by hand: alternatives in order,
 * the first that matches wins, its quantifiers greedy. The expressions are
 * those of the models' tokenizer.json files, as llama.cpp names them (tokenizer.ggml.pre).
 *
 *   gpt-2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   cl100k   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,k}|
 * ?[^\s\p{L}\p{N}]+[\r\n]*| \s*[\r\n]+|\s+(?!\S)|\s+                                        k = 3:
 * Llama 3, k = 1: Qwen 2
 *
 * Each piece is found in one pass over its own bytes plus at most one run of white space, so a text
 * costs O(n).
 */
#include "tokenizer/pretok.h"

#include "base/mem.h"
#include "tokenizer/unicode.h"

#include <string.h>

enum { LETTER = CP_UNI_LETTER, NUMBER = CP_UNI_NUMBER, SPACE = CP_UNI_SPACE };
#define LNS (LETTER | NUMBER | SPACE)

/* Class of the character at i (i < n) and its length. */
static unsigned class_at(const uint8_t *s, size_t i, size_t n, size_t *len)
{
    uint32_t cp;
    *len = cp_uni_decode(s + i, n - i, &cp);
    return cp_uni_class(cp) & LNS;
}

/* Skip characters of class `want` from i on. */
static size_t run_of(const uint8_t *s, size_t i, size_t n, unsigned want)
{
    size_t len;
    while (i < n && (class_at(s, i, n, &len) & want))
        i += len;
    return i;
}

/* Skip characters that are neither letter, number nor white space. */
static size_t run_of_other(const uint8_t *s, size_t i, size_t n)
{
    size_t len;
    while (i < n && class_at(s, i, n, &len) == 0)
        i += len;
    return i;
}

/* The length of an English contraction at s[i] == '\'', or 0. */
static size_t contraction(const uint8_t *s, size_t i, size_t n, bool fold)
{
    uint8_t lower =
        fold ? 0x20
             : 0; /* maps 'A'..'Z' onto 'a'..'z' and no other byte onto the letters looked for */
    if (n - i >= 2) {
        uint8_t a = s[i + 1] | lower;
        if (a == 's' || a == 't' || a == 'm' || a == 'd')
            return 2;
        if (n - i >= 3) {
            uint8_t b = s[i + 2] | lower;
            if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
                return 3;
        }
    }
    return 0;
}

/* \s+(?!\S)|\s+ where s[i] is white space: the whole run at the end of the text, else all but its
 * last character. */
static size_t white_run(const uint8_t *s, size_t i, size_t n)
{
    size_t end = i, last = i, len;
    while (end < n && (class_at(s, end, n, &len) & SPACE)) {
        last = end;
        end += len;
    }
    return end == n || last == i ? end : last;
}

static size_t scan_gpt2(const uint8_t *s, size_t i, size_t n)
{
    if (s[i] == '\'') {
        size_t k = contraction(s, i, n, false);
        if (k)
            return i + k;
    }
    size_t at = i, len;
    unsigned c = class_at(s, i, n, &len);
    if (s[i] == ' ' && i + 1 < n) { /* the optional space in front of a word */
        at = i + 1;
        c = class_at(s, at, n, &len);
    }
    if (c & LETTER)
        return run_of(s, at + len, n, LETTER);
    if (c & NUMBER)
        return run_of(s, at + len, n, NUMBER);
    if (c == 0)
        return run_of_other(s, at + len, n);
    return white_run(s, i, n);
}

/* [\r\n]* from i on. */
static size_t run_of_newlines(const uint8_t *s, size_t i, size_t n)
{
    while (i < n && (s[i] == '\r' || s[i] == '\n'))
        i++;
    return i;
}

/* \s*[\r\n]+ where s[i] is white space: up to and with the run's last line break, or i when it has
 * none. */
static size_t white_to_newline(const uint8_t *s, size_t i, size_t n)
{
    size_t end = i, len;
    for (size_t p = i; p < n && (class_at(s, p, n, &len) & SPACE); p += len)
        if (s[p] == '\r' || s[p] == '\n')
            end = p + 1;
    return end;
}

static size_t scan_cl100k(const uint8_t *s, size_t i, size_t n, int digits)
{
    if (s[i] == '\'') {
        size_t k = contraction(s, i, n, true);
        if (k)
            return i + k;
    }
    size_t len;
    unsigned c = class_at(s, i, n, &len);
    if (c & LETTER)
        return run_of(s, i + len, n, LETTER);
    if (!(c & NUMBER) && s[i] != '\r' && s[i] != '\n' && i + len < n) {
        size_t next;
        if (class_at(s, i + len, n, &next) & LETTER)
            return run_of(s, i + len + next, n, LETTER);
    }
    if (c & NUMBER) {
        size_t end = i + len;
        for (int k = 1; k < digits && end < n && (class_at(s, end, n, &len) & NUMBER); k++)
            end += len;
        return end;
    }
    size_t at = i;
    if (s[i] == ' ' && i + 1 < n) {
        at = i + 1;
        c = class_at(s, at, n, &len);
    }
    if (c == 0)
        return run_of_newlines(s, run_of_other(s, at + len, n), n);
    size_t end = white_to_newline(s, i, n);
    return end > i ? end : white_run(s, i, n);
}

static size_t scan_llama3(const uint8_t *s, size_t i, size_t n)
{
    return scan_cl100k(s, i, n, 3);
}

static size_t scan_qwen2(const uint8_t *s, size_t i, size_t n)
{
    return scan_cl100k(s, i, n, 1);
}

/* clang-format off */
static const cp_pretok ROWS[] = {
    /* name         scan       split_numbers ignore_merges add_bos nfc */
    {"gpt-2",     scan_gpt2,   false,        false,        false,  false},
    {"smollm",    scan_gpt2,   true,         false,        false,  false},
    {"llama-bpe", scan_llama3, false,        true,         true,   false},
    {"llama3",    scan_llama3, false,        true,         true,   false},
    {"llama-v3",  scan_llama3, false,        true,         true,   false},
    {"qwen2",     scan_qwen2,  false,        false,        false,  true},
};
/* clang-format on */

const cp_pretok *cp_pretok_find(cp_str name)
{
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++)
        if (strlen(ROWS[i].name) == name.n && memcmp(ROWS[i].name, name.p, name.n) == 0)
            return &ROWS[i];
    return NULL;
}

void cp_pretok_list(char *dst, size_t cap)
{
    size_t at = 0;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0] && at < cap; i++)
        at += cp_snprintf(dst + at, cap - at, "%s%s", i ? ", " : "", ROWS[i].name);
}

size_t cp_pretok_next(const cp_pretok *p, const uint8_t *s, size_t i, size_t n, size_t *stop)
{
    if (!p->split_numbers)
        return p->scan(s, i, n);
    if (i >= *stop) {
        size_t len;
        if (class_at(s, i, n, &len) & NUMBER)
            return i + len;
        size_t end = i;
        while (end < n && !(class_at(s, end, n, &len) & NUMBER))
            end += len;
        *stop = end;
    }
    return p->scan(s, i, *stop);
}
