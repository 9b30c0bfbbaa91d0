/* Words of a PTX text: names, directives and opcodes with their dots, numbers, single signs. */
#include "tests/ptxvm/parse.h"

#include <stdarg.h>
#include <stdio.h>

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || c == '%' || c == '.';
}

/* Blanks and comments; lines are counted. */
static void skip(ptx_parser *p)
{
    for (;; p->at++) {
        if (*p->at == '\n')
            p->line++;
        else if (p->at[0] == '/' && p->at[1] == '/') {
            while (p->at[1] && p->at[1] != '\n')
                p->at++;
        } else if (p->at[0] == '/' && p->at[1] == '*') {
            p->at += 2;
            while (p->at[0] && !(p->at[0] == '*' && p->at[1] == '/'))
                p->line += *p->at++ == '\n';
            if (!*p->at)
                return;
            p->at++;
        } else if (*p->at != ' ' && *p->at != '\t' && *p->at != '\r')
            return;
    }
}

ptx_word ptx_next(ptx_parser *p)
{
    if (p->has_peeked) {
        p->has_peeked = false;
        return p->peeked;
    }
    skip(p);
    const char *s = p->at;
    if (*s == '"') {
        do
            s++;
        while (*s && *s != '"' && *s != '\n');
        s += *s == '"';
    } else if (name_char(*s)) {
        while (name_char(*s) || (s[0] == ':' && s[1] == ':' && name_char(s[2])) ||
               (s[0] == ':' && s[-1] == ':' && name_char(s[1])))
            s++;
    } else if (*s)
        s++;
    ptx_word w = {p->at, (size_t)(s - p->at), p->line};
    p->at = s;
    return w;
}

ptx_word ptx_peek(ptx_parser *p)
{
    if (!p->has_peeked) {
        p->peeked = ptx_next(p);
        p->has_peeked = true;
    }
    return p->peeked;
}

bool ptx_is(ptx_word w, const char *text)
{
    return w.n > 0 && *w.at == *text && strlen(text) == w.n && memcmp(w.at, text, w.n) == 0;
}

bool ptx_take(ptx_parser *p, const char *text)
{
    if (!p->has_peeked)
        ptx_peek(p);
    return ptx_is(p->peeked, text) && ptx_next(p).n > 0;
}

bool ptx_expect(ptx_parser *p, const char *text)
{
    ptx_word w = ptx_next(p);
    if (ptx_is(w, text))
        return true;
    if (w.n == 0)
        return ptx_refuse(p, w.line, "the text ends where '%s' is wanted", text);
    return ptx_refuse(p, w.line, "'%.*s' where '%s' is wanted", (int)w.n, w.at, text);
}

const char *ptx_line_text(const char *text, int line, int *n)
{
    for (; line > 1 && *text; text++)
        line -= *text == '\n';
    while (*text == ' ' || *text == '\t')
        text++;
    *n = (int)strcspn(text, "\r\n");
    if (*n > 100)
        *n = 100;
    return text;
}

bool ptx_refuse(ptx_parser *p, int line, const char *format, ...)
{
    if (p->err[0])
        return false;
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    int n;
    const char *text = ptx_line_text(p->module->text, line, &n);
    snprintf(p->err, p->n_err, "PTX line %d: %s: %.*s", line, what, n, text);
    return false;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

static bool digits(const char *at, size_t n, unsigned base, uint64_t *value)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned d = (unsigned)digit(at[i]);
        if (d >= base || v > (UINT64_MAX - d) / base)
            return false;
        v = v * base + d;
    }
    *value = v;
    return n > 0;
}

bool ptx_number(ptx_word w, uint64_t *value, int *bits)
{
    if (w.n == 0 || w.at[0] < '0' || w.at[0] > '9')
        return false;
    char kind = w.n > 2 && w.at[0] == '0' ? w.at[1] : ' ';
    *bits = kind == 'f' || kind == 'F' ? 32 : kind == 'd' || kind == 'D' ? 64 : 0;
    if (*bits)
        return w.n == 2 + (size_t)*bits / 4 && digits(w.at + 2, w.n - 2, 16, value);
    if (w.at[w.n - 1] == 'U')
        w.n--;
    if (kind == 'x' || kind == 'X')
        return digits(w.at + 2, w.n - 2, 16, value);
    if (kind == 'b' || kind == 'B')
        return digits(w.at + 2, w.n - 2, 2, value);
    return digits(w.at, w.n, w.at[0] == '0' && w.n > 1 ? 8 : 10, value);
}

bool ptx_integer(ptx_parser *p, uint64_t limit, uint64_t *out)
{
    ptx_word w = ptx_next(p);
    int bits;
    if (!ptx_number(w, out, &bits) || bits)
        return ptx_refuse(p, w.line, "'%.*s' where an integer is wanted", (int)w.n, w.at);
    if (*out > limit)
        return ptx_refuse(p, w.line, "%llu is more than the machine takes (%llu)",
                          (unsigned long long)*out, (unsigned long long)limit);
    return true;
}

int ptx_type_bytes(const char *at, size_t n)
{
    static const struct {
        const char *name;
        int bytes;
    } types[] = {{"pred", 0},   {"b8", 1},  {"u8", 1},  {"s8", 1},   {"b16", 2},
                 {"u16", 2},    {"s16", 2}, {"f16", 2}, {"bf16", 2}, {"b32", 4},
                 {"u32", 4},    {"s32", 4}, {"f32", 4}, {"b64", 8},  {"f16x2", 4},
                 {"bf16x2", 4}, {"u64", 8}, {"s64", 8}, {"f64", 8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strlen(types[i].name) == n && memcmp(types[i].name, at, n) == 0)
            return types[i].bytes;
    }
    return -1;
}
