/*
 * Scanners: regular expressions compiled by hand. Alternatives in order, the first that matches
 * wins, quantifiers are greedy. The expressions are those of the models' own tokenizer.json files:
 *
 *   C         (?i:'s|'t|'re|'ve|'m|'ll|'d)
 *   T         \s*[\r\n]+|\s+(?!\S)|\s+
 *   gpt2      's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   cl100k    C|[^\r\n\p{L}\p{N}]?W+|\p{N}{1,k}| ?[^\s W\p{N}]+[\r\n]*|T
 *             W = \p{L}, with marks [\p{L}\p{M}]
 *   o200k     X U*L+ C?|X U+L* C?|\p{N}{1,k}| ?[^\s\p{L}\p{N}]+[\r\n/]*|T
 *             X = [^\r\n\p{L}\p{N}]?  U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
 *             L = [\p{Ll}\p{Lm}\p{Lo}\p{M}]
 *   deepseek3 [!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|
 * ?[\p{P}\p{S}]+[\r\n]*|T
 *
 * A piece is found in one pass over its own bytes and at most one run behind them, and that run is
 * the next piece or a part of it; so a text costs O(n).
 */
#include "tokenizer/steps.h"

#include "tokenizer/unicode.h"

#include <limits.h>
#include <stdbool.h>

enum {
    UPPER = CP_UNI_UPPER,
    LOWER = CP_UNI_LOWER,
    LETTER = CP_UNI_LETTER,
    MARK = CP_UNI_MARK,
    NUMBER = CP_UNI_NUMBER,
    SPACE = CP_UNI_SPACE,
    SIGN = CP_UNI_PUNCT | CP_UNI_SYMBOL
};

/* What differs between expressions of one form; always constant, so that each step is compiled for
 * its own. */
typedef struct form {
    int digits;        /* in one piece at most */
    bool contractions; /* C is there */
    bool marks;        /* cl100k: W has marks */
    bool tail;         /* [\r\n]* or [\r\n/]* behind signs */
} form;

#define INLINE static inline __attribute__((always_inline))

/* Skip characters that have a class of `want` from i on. */
INLINE size_t run_of(const uint8_t *s, size_t i, size_t n, unsigned want)
{
    size_t len;
    while (i < n && (cp_uni_at(s, i, n, &len) & want))
        i += len;
    return i;
}

/* Skip characters that have no class of `stop` from i on. */
INLINE size_t run_without(const uint8_t *s, size_t i, size_t n, unsigned stop)
{
    size_t len;
    while (i < n && !(cp_uni_at(s, i, n, &len) & stop))
        i += len;
    return i;
}

static bool is_newline(uint8_t b)
{
    return b == '\r' || b == '\n';
}

/* The length of an English contraction at s[i] == '\'', or 0. `fold`: in any case; the long s
 * (U+017F, C5 BF) is an s then. */
static size_t contraction(const uint8_t *s, size_t i, size_t n, bool fold)
{
    const uint8_t lower = fold ? 0x20 : 0; /* maps 'A'..'Z' onto 'a'..'z' and no other byte there */
    if (n - i < 2)
        return 0;
    uint8_t a = s[i + 1] | lower;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (n - i < 3)
        return 0;
    uint8_t b = s[i + 2] | lower;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return 3;
    return fold && s[i + 1] == 0xC5 && s[i + 2] == 0xBF ? 3 : 0;
}

/* \s+(?!\S)|\s+ where s[i] is white space: the whole run at the end of the text, else all but its
 * last character. */
static size_t white_run(const uint8_t *s, size_t i, size_t n)
{
    size_t end = i, last = i, len;
    while (end < n && (cp_uni_at(s, end, n, &len) & SPACE)) {
        last = end;
        end += len;
    }
    return end == n || last == i ? end : last;
}

/* T where s[i] is white space: up to and with the run's last line break, or white_run. */
static size_t white(const uint8_t *s, size_t i, size_t n)
{
    size_t end = i, len;
    for (size_t p = i; p < n && (cp_uni_at(s, p, n, &len) & SPACE); p += len)
        if (is_newline(s[p]))
            end = p + 1;
    return end > i ? end : white_run(s, i, n);
}

/* \p{N}{1,digits} where a number of `len` bytes stands at i. */
INLINE size_t number(const uint8_t *s, size_t i, size_t n, size_t len, int digits)
{
    size_t end = i + len;
    for (int k = 1; k < digits && end < n && (cp_uni_at(s, end, n, &len) & NUMBER); k++)
        end += len;
    return end;
}

/* [\r\n]*, with `slash` [\r\n/]*. */
INLINE size_t run_of_newlines(const uint8_t *s, size_t i, size_t n, bool slash)
{
    while (i < n && (is_newline(s[i]) || (slash && s[i] == '/')))
        i++;
    return i;
}

size_t cp_scan_gpt2(const uint8_t *s, size_t i, size_t n)
{
    if (s[i] == '\'') {
        size_t k = contraction(s, i, n, false);
        if (k)
            return i + k;
    }
    size_t at = i, len;
    unsigned c = cp_uni_at(s, i, n, &len);
    if (s[i] == ' ' && i + 1 < n) { /* the optional space in front of a word */
        at = i + 1;
        c = cp_uni_at(s, at, n, &len);
    }
    if (c & LETTER)
        return run_of(s, at + len, n, LETTER);
    if (c & NUMBER)
        return run_of(s, at + len, n, NUMBER);
    if (!(c & SPACE))
        return run_without(s, at + len, n, LETTER | NUMBER | SPACE);
    return white_run(s, i, n);
}

INLINE size_t cl100k(const uint8_t *s, size_t i, size_t n, form f)
{
    const unsigned word = f.marks ? LETTER | MARK : LETTER;
    if (f.contractions && s[i] == '\'') {
        size_t k = contraction(s, i, n, true);
        if (k)
            return i + k;
    }
    size_t len;
    unsigned c = cp_uni_at(s, i, n, &len);
    if (c & word)
        return run_of(s, i + len, n, word);
    if (!(c & NUMBER) && !is_newline(s[i]) && i + len < n) {
        size_t next;
        if (cp_uni_at(s, i + len, n, &next) & word)
            return run_of(s, i + len + next, n, word);
    }
    if (c & NUMBER)
        return number(s, i, n, len, f.digits);
    size_t at = i;
    if (s[i] == ' ' && i + 1 < n) {
        at = i + 1;
        c = cp_uni_at(s, at, n, &len);
    }
    if (!(c & (word | NUMBER | SPACE))) {
        size_t end = run_without(s, at + len, n, word | NUMBER | SPACE);
        return f.tail ? run_of_newlines(s, end, n, false) : end;
    }
    return white(s, i, n);
}

/*
 * U*L+ from i on, else U+L*; i when neither matches. A run of U that ends before a lower-case
 * letter takes all of L behind it. Any other gives back what follows its last caseless letter or
 * mark, as L+ needs one character; what is given back, upper case alone, is the next piece.
 */
INLINE size_t cased_word(const uint8_t *s, size_t i, size_t n, bool *has_lower)
{
    size_t at = i, caseless = i, len;
    *has_lower = true;
    while (at < n) {
        unsigned c = cp_uni_at(s, at, n, &len);
        if (!(c & (UPPER | MARK))) {
            if (c & LOWER)
                return run_of(s, at + len, n, LOWER | MARK);
            break;
        }
        at += len;
        if (c & (LOWER | MARK))
            caseless = at;
    }
    if (caseless > i)
        return caseless;
    *has_lower = false;
    return at;
}

INLINE size_t o200k(const uint8_t *s, size_t i, size_t n, form f)
{
    size_t len, end = i;
    unsigned c = cp_uni_at(s, i, n, &len);
    bool has_lower;
    if (c & LETTER) {
        end = cased_word(s, i, n, &has_lower);
    } else if (!(c & NUMBER) && !is_newline(s[i])) {
        end = cased_word(s, i + len, n, &has_lower);
        if (end == i + len || (!has_lower && (c & MARK)))
            end = c & MARK ? i + len : i; /* a mark is U*L+ itself, tried before U+L* behind it */
    }
    if (end > i)
        return f.contractions && end < n && s[end] == '\'' ? end + contraction(s, end, n, true)
                                                           : end;
    if (c & NUMBER)
        return number(s, i, n, len, f.digits);
    size_t at = i;
    if (s[i] == ' ' && i + 1 < n) {
        at = i + 1;
        c = cp_uni_at(s, at, n, &len);
    }
    if (!(c & (LETTER | NUMBER | SPACE)))
        return run_of_newlines(s, run_without(s, at + len, n, LETTER | NUMBER | SPACE), n, true);
    return white(s, i, n);
}

static bool is_ascii_letter(uint8_t b)
{
    return (uint8_t)((b | 0x20) - 'a') < 26;
}

/* The end of a match of deepseek3 at i, or i. */
static size_t deepseek3(const uint8_t *s, size_t i, size_t n)
{
    size_t len, next;
    unsigned c = cp_uni_at(s, i, n, &len);
    if (c & (LETTER | MARK))
        return run_of(s, i + len, n, LETTER | MARK);
    if (s[i] < 0x80 && (c & SIGN) && i + 1 < n && is_ascii_letter(s[i + 1])) {
        for (i++; i < n && is_ascii_letter(s[i]);)
            i++;
        return i;
    }
    if (!(c & SIGN) && !is_newline(s[i]) && i + len < n &&
        (cp_uni_at(s, i + len, n, &next) & (LETTER | MARK)))
        return run_of(s, i + len + next, n, LETTER | MARK);
    size_t at = i;
    unsigned first = c;
    if (s[i] == ' ' && i + 1 < n) {
        at = i + 1;
        c = cp_uni_at(s, at, n, &len);
    }
    if (c & SIGN)
        return run_of_newlines(s, run_of(s, at + len, n, SIGN), n, false);
    return first & SPACE ? white(s, i, n) : i;
}

size_t cp_scan_deepseek3(const uint8_t *s, size_t i, size_t n)
{
    for (size_t at = i, len; at < n; at += len) {
        size_t end = deepseek3(s, at, n);
        if (end > at)
            return at > i ? at : end;
        cp_uni_at(s, at, n, &len);
    }
    return n;
}

size_t cp_scan_llama3(const uint8_t *s, size_t i, size_t n)
{
    return cl100k(s, i, n, (form){.digits = 3, .contractions = true, .tail = true});
}

size_t cp_scan_qwen2(const uint8_t *s, size_t i, size_t n)
{
    return cl100k(s, i, n, (form){.digits = 1, .contractions = true, .tail = true});
}

size_t cp_scan_qwen35(const uint8_t *s, size_t i, size_t n)
{
    return cl100k(s, i, n, (form){.digits = 1, .contractions = true, .marks = true, .tail = true});
}

size_t cp_scan_minicpm5(const uint8_t *s, size_t i, size_t n)
{
    return cl100k(s, i, n, (form){.digits = INT_MAX, .contractions = true, .tail = true});
}

size_t cp_scan_seed_coder(const uint8_t *s, size_t i, size_t n)
{
    return cl100k(s, i, n, (form){.digits = 1, .contractions = true});
}

size_t cp_scan_o200k(const uint8_t *s, size_t i, size_t n)
{
    return o200k(s, i, n, (form){.digits = 3, .contractions = true});
}

size_t cp_scan_tekken(const uint8_t *s, size_t i, size_t n)
{
    return o200k(s, i, n, (form){.digits = 1});
}
