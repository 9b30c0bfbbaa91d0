/*
 * Unicode as Python's str methods see it: UTF-8 steps, white space, line breaks, printability, full
 * case mapping.
 *
 * The tables are generated from Python itself (make_unicode.py). One difference is kept: a capital
 * sigma at the end of a word becomes a plain small sigma, as case mapping here looks at one
 * character at a time.
 */
#include "chat/jinja/value.h"

#include "base/utf8.h"

#include <string.h>

typedef struct jj_range {
    uint32_t lo, hi;
} jj_range;

typedef struct jj_case_range {
    uint32_t lo, hi;
    uint32_t stride;
    int32_t delta;
} jj_case_range;

typedef struct jj_case_special {
    uint32_t cp;
    uint32_t to[3];
} jj_case_special;

#include "chat/jinja/unicode_tables.inc"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool in_ranges(const jj_range *r, size_t n, uint32_t cp)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp > r[mid].hi)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && cp >= r[lo].lo;
}

bool cp_jj_is_printable(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= ' ' && cp < 0x7f;
    return cp < 0x110000 && !in_ranges(not_printable, COUNT(not_printable), cp);
}
bool cp_jj_is_lower(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= 'a' && cp <= 'z';
    return in_ranges(lower_chars, COUNT(lower_chars), cp);
}
bool cp_jj_is_upper(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= 'A' && cp <= 'Z';
    return in_ranges(upper_chars, COUNT(upper_chars), cp);
}
bool cp_jj_is_title(uint32_t cp)
{
    return cp >= 0x80 && in_ranges(title_chars, COUNT(title_chars), cp);
}
bool cp_jj_is_digit(uint32_t cp)
{
    return in_ranges(digit_chars, COUNT(digit_chars), cp);
}

bool cp_jj_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x1f);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

bool cp_jj_is_linebreak(uint32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

size_t cp_jj_utf8_next(const char *s, size_t n, size_t off, uint32_t *cp)
{
    *cp = 0x110000u + (unsigned char)s[off];
    size_t len = cp_utf8_decode(s + off, n - off, cp);
    return len ? len : 1;
}

size_t cp_jj_utf8_put(uint32_t cp, char out[4])
{
    if (cp < 0x110000)
        return cp_utf8_encode(cp, out);
    out[0] = (char)(cp - 0x110000); /* an invalid byte, kept as it was */
    return 1;
}

static size_t map_case(const jj_case_range *r, size_t n, const jj_case_special *sp, size_t n_sp,
                       uint32_t cp, uint32_t out[3])
{
    size_t lo = 0, hi = n;
    out[0] = cp;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp > r[mid].hi)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < n && cp >= r[lo].lo && (cp - r[lo].lo) % r[lo].stride == 0) {
        out[0] = (uint32_t)((int32_t)cp + r[lo].delta);
        return 1;
    }
    for (size_t i = 0; cp >= 0x80 && i < n_sp; i++) {
        if (sp[i].cp == cp) {
            memcpy(out, sp[i].to, sizeof(sp[i].to));
            return out[2] ? 3 : out[1] ? 2 : 1;
        }
    }
    return 1;
}

size_t cp_jj_upper(uint32_t cp, uint32_t out[3])
{
    if (cp < 0x80) {
        out[0] = cp >= 'a' && cp <= 'z' ? cp - 32 : cp;
        return 1;
    }
    return map_case(to_upper, COUNT(to_upper), to_upper_special, COUNT(to_upper_special), cp, out);
}

size_t cp_jj_lower(uint32_t cp, uint32_t out[3])
{
    if (cp < 0x80) {
        out[0] = cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
        return 1;
    }
    return map_case(to_lower, COUNT(to_lower), to_lower_special, COUNT(to_lower_special), cp, out);
}

size_t cp_jj_title(uint32_t cp, uint32_t out[3])
{
    if (cp < 0x80) {
        out[0] = cp >= 'a' && cp <= 'z' ? cp - 32 : cp;
        return 1;
    }
    return map_case(to_title, COUNT(to_title), to_title_special, COUNT(to_title_special), cp, out);
}

const cp_val *cp_jj_case(jj_ctx *x, const cp_val *s, jj_case how)
{
    const jj_str *t = &s->u.s;
    jj_sb b = {.a = x->a};
    bool marked = false, cased = false; /* cased: the character before has case */
    for (size_t off = 0, end = 0; off < t->n;) {
        uint32_t cp, to[3];
        size_t k;
        if (off >= end)
            marked = cp_jj_str_mark(t, off, &end);
        size_t len = cp_jj_utf8_next(t->p, t->n, off, &cp);
        if (!cp_jj_work(x, len, cp < 0x80 ? JJ_WRITE : JJ_MAP))
            return NULL;
        bool first = how == JJ_CAPITALIZE ? off == 0 : !cased;
        if (how == JJ_UPPER || (how == JJ_SWAPCASE && cp_jj_is_lower(cp)))
            k = cp_jj_upper(cp, to);
        else if ((how == JJ_TITLE || how == JJ_CAPITALIZE) && first)
            k = cp_jj_title(cp, to);
        else
            k = how == JJ_SWAPCASE && !cp_jj_is_upper(cp) ? (to[0] = cp, 1u) : cp_jj_lower(cp, to);
        for (size_t i = 0; i < k; i++) {
            if (!cp_jj_sb_add_cp(x, &b, to[i], marked))
                return NULL;
        }
        if (how == JJ_TITLE)
            cased = cp_jj_is_lower(cp) || cp_jj_is_upper(cp) || cp_jj_is_title(cp);
        off += len;
    }
    return cp_jj_sb_take(x, &b);
}
