/*
 * Splits: steps that cut runs of one set of characters out of a text. Each match is a piece, and so
 * is what lies between two matches. Whether a match begins at a character is known after three
 * characters at most, and a match is walked once to end the gap before it and once as a piece, so a
 * text costs O(n).
 */
#include "tokenizer/steps.h"

#include "tokenizer/unicode.h"

#include <stdbool.h>

typedef struct range {
    uint32_t first, last;
} range;

/* Whether a code point of these classes is in the set. */
typedef bool in_set(uint32_t cp, unsigned c);

#define INLINE static inline __attribute__((always_inline))

INLINE size_t decode(const uint8_t *s, size_t i, size_t n, uint32_t *cp, unsigned *c)
{
    size_t len = cp_uni_decode(s + i, n - i, cp);
    *c = cp_uni_class(*cp);
    return len;
}

/* The end of a match at i, or i: least to most characters of the set, behind white space when
 * `spaced`. */
INLINE size_t match(const uint8_t *s, size_t i, size_t n, in_set *in, size_t least, size_t most,
                    bool spaced)
{
    uint32_t cp;
    unsigned c;
    size_t at = i, count = 0, len = decode(s, i, n, &cp, &c);
    if (spaced && (c & CP_UNI_SPACE) && !in(cp, c))
        at = i + len;
    for (; at < n && count < most; at += len, count++) {
        len = decode(s, at, n, &cp, &c);
        if (!in(cp, c))
            break;
    }
    return count >= least ? at : i;
}

INLINE size_t split(const uint8_t *s, size_t i, size_t n, in_set *in, size_t least, size_t most,
                    bool spaced)
{
    for (size_t at = i, len; at < n; at += len) {
        size_t end = match(s, at, n, in, least, most, spaced);
        if (end > at)
            return at > i ? at : end;
        cp_uni_at(s, at, n, &len);
    }
    return n;
}

static bool in_ranges(const range *r, size_t n, uint32_t cp)
{
    for (size_t lo = 0, hi = n; lo < hi;) {
        size_t mid = (lo + hi) / 2;
        if (cp < r[mid].first)
            hi = mid;
        else if (cp > r[mid].last)
            lo = mid + 1;
        else
            return true;
    }
    return false;
}

#define IN_RANGES(r, cp) in_ranges(r, sizeof(r) / sizeof(r)[0], cp)

INLINE bool in_number(uint32_t cp, unsigned c)
{
    (void)cp;
    return c & CP_UNI_NUMBER;
}

INLINE bool in_digit(uint32_t cp, unsigned c)
{
    (void)c;
    return cp - '0' < 10;
}

INLINE bool in_newline(uint32_t cp, unsigned c)
{
    (void)c;
    return cp == '\r' || cp == '\n';
}

INLINE bool in_letter(uint32_t cp, unsigned c)
{
    (void)cp;
    return c & CP_UNI_LETTER;
}

INLINE bool in_punct(uint32_t cp, unsigned c)
{
    (void)cp;
    return c & CP_UNI_PUNCT;
}

/* \p{P} and all ASCII signs, which are $+<=>^`|~ beside it. */
INLINE bool in_sign(uint32_t cp, unsigned c)
{
    return (c & CP_UNI_PUNCT) || (cp < 0x80 && (c & CP_UNI_SYMBOL));
}

/* [一-龥぀-ゟ゠-ヿ] */
INLINE bool in_cjk(uint32_t cp, unsigned c)
{
    (void)c;
    return (cp >= 0x4E00 && cp <= 0x9FA5) || (cp >= 0x3040 && cp <= 0x30FF);
}

/* [一-龥ࠀ-一가-퟿] */
INLINE bool in_cjk1(uint32_t cp, unsigned c)
{
    (void)c;
    return (cp >= 0x0800 && cp <= 0x9FA5) || (cp >= 0xAC00 && cp <= 0xD7FF);
}

/* [!-/:-~！-／：-～‘-‟　-。], letters between ':' and '~' included */
static bool in_punct1(uint32_t cp, unsigned c)
{
    static const range R[] = {{0x21, 0x2F},     {0x3A, 0x7E},     {0x2018, 0x201F},
                              {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E}};
    (void)c;
    return IN_RANGES(R, cp);
}

/* The letters with case of the Unicode version that the expression was written from; some scripts
 * (Georgian, half of Armenian) and all newer letters are missing. */
static bool in_cased1(uint32_t cp, unsigned c)
{
    static const range R[] = {
        {0x41, 0x5A},       {0x61, 0x7A},       {0xB5, 0xB5},       {0xC0, 0xD6},
        {0xD8, 0xF6},       {0xF8, 0x1BA},      {0x1BC, 0x1BF},     {0x1C4, 0x293},
        {0x295, 0x2AF},     {0x370, 0x373},     {0x376, 0x377},     {0x37B, 0x37D},
        {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},     {0x38C, 0x38C},
        {0x38E, 0x3A1},     {0x3A3, 0x3F5},     {0x3F7, 0x481},     {0x48A, 0x52F},
        {0x531, 0x556},     {0x10A0, 0x10C5},   {0x13A0, 0x13F5},   {0x13F8, 0x13FD},
        {0x1C90, 0x1CBA},   {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},   {0x1D6B, 0x1D77},
        {0x1D79, 0x1D9A},   {0x1E00, 0x1F15},   {0x1F18, 0x1F1D},   {0x1F20, 0x1F45},
        {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},   {0x1F5B, 0x1F5B},
        {0x1F5D, 0x1F5D},   {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},   {0x1FB6, 0x1FBC},
        {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},   {0x1FC6, 0x1FCC},   {0x1FD0, 0x1FD3},
        {0x1FD6, 0x1FDB},   {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},   {0x1FF6, 0x1FFC},
        {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210A, 0x2113},   {0x2115, 0x2115},
        {0x2119, 0x211D},   {0x2124, 0x2124},   {0x2126, 0x2126},   {0x2128, 0x2128},
        {0x212A, 0x212D},   {0x212F, 0x2134},   {0x2139, 0x2139},   {0x213C, 0x213F},
        {0x2145, 0x2149},   {0x214E, 0x214E},   {0x2183, 0x2184},   {0x2C00, 0x2C7B},
        {0x2C7E, 0x2CE4},   {0x2CEB, 0x2CEE},   {0x2CF2, 0x2CF3},   {0xA640, 0xA66D},
        {0xA680, 0xA69B},   {0xA722, 0xA76F},   {0xA771, 0xA787},   {0xA78B, 0xA78E},
        {0xAB70, 0xABBF},   {0xFB00, 0xFB06},   {0xFB13, 0xFB17},   {0xFF21, 0xFF3A},
        {0xFF41, 0xFF5A},   {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB},
        {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
    };
    return (c & CP_UNI_LETTER) && IN_RANGES(R, cp);
}

/* A step: runs of least to most characters of a set, `spaced` with one white space in front. */
#define SPLIT(name, in, least, most, spaced)                                                       \
    size_t name(const uint8_t *s, size_t i, size_t n)                                              \
    {                                                                                              \
        return split(s, i, n, in, least, most, spaced);                                            \
    }

SPLIT(cp_split_number, in_number, 1, 1, false)
SPLIT(cp_split_numbers3, in_number, 1, 3, false)
SPLIT(cp_split_digits3, in_digit, 3, 3, false)
SPLIT(cp_split_newline, in_newline, 1, 1, false)
SPLIT(cp_split_signs, in_sign, 1, SIZE_MAX, false)
SPLIT(cp_split_letters, in_letter, 1, SIZE_MAX, true)
SPLIT(cp_split_puncts, in_punct, 1, SIZE_MAX, true)
SPLIT(cp_split_cjk, in_cjk, 1, SIZE_MAX, false)
SPLIT(cp_split_cjk1, in_cjk1, 1, SIZE_MAX, false)
SPLIT(cp_split_cased1, in_cased1, 1, SIZE_MAX, true)
SPLIT(cp_split_puncts1, in_punct1, 1, SIZE_MAX, true)
SPLIT(cp_split_numbers, in_number, 1, SIZE_MAX, false)

/* Runs of line feeds, and what lies between. */
size_t cp_split_lines(const uint8_t *s, size_t i, size_t n)
{
    bool newline = s[i] == '\n';
    while (i < n && (s[i] == '\n') == newline)
        i++;
    return i;
}

/* White space at the end of the text is a piece. */
size_t cp_split_tail(const uint8_t *s, size_t i, size_t n)
{
    size_t tail = n;
    for (size_t at = i, len; at < n; at += len) {
        if (!(cp_uni_at(s, at, n, &len) & CP_UNI_SPACE))
            tail = n;
        else if (tail == n)
            tail = at;
    }
    return tail > i ? tail : n;
}
