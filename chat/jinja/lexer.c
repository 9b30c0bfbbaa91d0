/*
 * Lexer: template source to tokens, with Jinja 3.1's rules for trim_blocks and lstrip_blocks.
 *
 * White space is settled here, so the parser never sees it: `-` strips up to the neighbouring text,
 * `+` switches the automatic stripping off, a newline after a block or comment tag goes
 * (trim_blocks), and blanks between the start of a line and a block or comment tag go
 * (lstrip_blocks). One newline at the end of the source is dropped, and \r\n and \r become \n, as
 * Jinja does. Semantics follow jinja2/lexer.py.
 */
#include "chat/jinja/ast.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPEN = 4 * JJ_MAX_DEPTH, MAX_NUMBER = 64 };

typedef struct lexer {
    jj_ctx *x;
    const char *s;
    size_t n, pos;
    uint32_t line;
    bool line_starting; /* the last tag ended with a newline */
    jj_tokens *out;
    char open[MAX_OPEN]; /* closing brackets that are due */
    size_t n_open;
} lexer;

static bool fail_at(lexer *l, const char *what)
{
    l->x->line = l->line;
    cp_jj_fail(l->x, "%s", what);
    return false;
}

static jj_token *push(lexer *l, jj_tok_type type)
{
    jj_tokens *o = l->out;
    if (o->n == o->cap) {
        size_t cap = o->cap ? o->cap * 2 : 128;
        jj_token *t = cp_jj_alloc(l->x, cap * sizeof(*t));
        if (!t)
            return NULL;
        if (o->n)
            memcpy(t, o->t, o->n * sizeof(*t));
        o->t = t;
        o->cap = cap;
    }
    jj_token *t = &o->t[o->n++];
    *t = (jj_token){.type = type, .line = l->line};
    return t;
}

static bool at(const lexer *l, size_t pos, const char *lit)
{
    size_t n = strlen(lit);
    return l->n - pos >= n && memcmp(l->s + pos, lit, n) == 0;
}

/* Byte length of the white space character at pos; 0: none there. */
static size_t space_at(const lexer *l, size_t pos)
{
    uint32_t cp;
    if (pos >= l->n)
        return 0;
    size_t k = cp_jj_utf8_next(l->s, l->n, pos, &cp);
    return cp_jj_is_space(cp) ? k : 0;
}

static size_t skip_space(const lexer *l, size_t pos)
{
    for (size_t k; (k = space_at(l, pos)) > 0;)
        pos += k;
    return pos;
}

/* Move to pos, counting lines. */
static void advance(lexer *l, size_t pos)
{
    for (size_t i = l->pos; i < pos; i++)
        l->line += l->s[i] == '\n';
    if (pos > l->pos)
        l->line_starting = l->s[pos - 1] == '\n';
    l->pos = pos;
}

/* If a block or comment end ("%}", "#}") with its optional sign stands at pos: where the tag ends,
 * trims included. 0: no. */
static size_t tag_end(const lexer *l, size_t pos, const char *close)
{
    if (pos < l->n && l->s[pos] == '+' && at(l, pos + 1, close))
        return pos + 3;
    if (pos < l->n && l->s[pos] == '-' && at(l, pos + 1, close))
        return skip_space(l, pos + 3);
    if (!at(l, pos, close))
        return 0;
    pos += 2;
    return pos < l->n && l->s[pos] == '\n' ? pos + 1 : pos;
}

/* Emit text [l->pos, end) that stands before a tag with the given sign ('-', '+' or 0). */
static bool emit_data(lexer *l, size_t end, char sign, bool strip_line)
{
    size_t begin = l->pos, stop = end;
    if (sign == '-') {
        jj_str s = {.p = l->s + begin, .n = end - begin};
        size_t b, e;
        cp_jj_strip(l->x, &s, NULL, 2, &b, &e);
        stop = begin + e;
    } else if (sign != '+' && strip_line) {
        size_t nl = end;
        while (nl > begin && l->s[nl - 1] != '\n')
            nl--;
        if ((nl > begin || l->line_starting) && skip_space(l, nl) >= end)
            stop = nl;
    }
    if (stop > begin) {
        jj_token *t = push(l, JJ_T_DATA);
        if (!t)
            return false;
        t->p = l->s + begin;
        t->n = stop - begin;
    }
    advance(l, end);
    return true;
}

/* The sign behind a two-byte opening; *after is set behind it. */
static char read_sign(const lexer *l, size_t open, size_t *after)
{
    char c = open + 2 < l->n ? l->s[open + 2] : '\0';
    if (c != '-' && c != '+')
        c = '\0';
    *after = open + 2 + (c != '\0');
    return c;
}

/* {% raw %}: where the tag at open ends; 0: it is another tag. */
static size_t raw_begin(const lexer *l, size_t open)
{
    size_t pos;
    read_sign(l, open, &pos);
    pos = skip_space(l, pos);
    if (!at(l, pos, "raw"))
        return 0;
    pos = skip_space(l, pos + 3);
    if (at(l, pos, "-%}"))
        return skip_space(l, pos + 3);
    return at(l, pos, "%}") ? pos + 2 : 0;
}

/* Text up to {% endraw %}. */
static bool lex_raw(lexer *l)
{
    for (size_t pos = l->pos; pos + 1 < l->n; pos++) {
        size_t p, end;
        if (!at(l, pos, "{%"))
            continue;
        char sign = read_sign(l, pos, &p);
        p = skip_space(l, p);
        if (!at(l, p, "endraw"))
            continue;
        p = skip_space(l, p + 6);
        if ((end = tag_end(l, p, "%}")) == 0)
            continue;
        if (!emit_data(l, pos, sign, true))
            return false;
        advance(l, end);
        return true;
    }
    return fail_at(l, "missing {% endraw %}");
}

static bool lex_comment(lexer *l, size_t pos)
{
    for (; pos < l->n; pos++) {
        size_t end = tag_end(l, pos, "#}");
        if (end) {
            advance(l, end);
            return true;
        }
    }
    return fail_at(l, "missing end of comment");
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static bool is_word(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

/* Length of (\d+_)*\d+ at pos. */
static size_t digits_at(const lexer *l, size_t pos)
{
    size_t p = pos;
    while (p < l->n && (is_digit(l->s[p]) || (l->s[p] == '_' && p > pos && is_digit(l->s[p - 1]) &&
                                              p + 1 < l->n && is_digit(l->s[p + 1]))))
        p++;
    return p - pos;
}

static int digit_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

/* 0x, 0o and 0b integers. */
static bool lex_prefixed(lexer *l, int base)
{
    size_t p = l->pos + 2, begin = p;
    uint64_t v = 0;
    for (; p < l->n; p++) {
        if (l->s[p] == '_' && p + 1 < l->n && digit_value(l->s[p + 1]) < base)
            continue;
        int d = digit_value(l->s[p]);
        if (d >= base)
            break;
        if (v > ((uint64_t)INT64_MAX - (uint64_t)d) / (uint64_t)base)
            return fail_at(l, "integer literal is too large");
        v = v * (uint64_t)base + (uint64_t)d;
    }
    if (p == begin)
        return fail_at(l, "malformed integer literal");
    jj_token *t = push(l, JJ_T_INT);
    if (!t)
        return false;
    t->i = (int64_t)v;
    advance(l, p);
    return true;
}

static bool lex_number(lexer *l)
{
    const char *s = l->s;
    if (s[l->pos] == '0' && l->pos + 1 < l->n) {
        char c = (char)(s[l->pos + 1] | 0x20);
        int base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (base)
            return lex_prefixed(l, base);
    }
    size_t p = l->pos + digits_at(l, l->pos), k;
    bool is_float = false, after_dot = l->pos > 0 && s[l->pos - 1] == '.';
    if (!after_dot) {
        if (p + 1 < l->n && s[p] == '.' && (k = digits_at(l, p + 1)) > 0) {
            is_float = true;
            p += 1 + k;
        }
        if (p < l->n && (s[p] | 0x20) == 'e') {
            size_t e = p + 1;
            if (e < l->n && (s[e] == '+' || s[e] == '-'))
                e++;
            if ((k = digits_at(l, e)) > 0) {
                is_float = true;
                p = e + k;
            }
        }
    }
    if (!is_float && s[l->pos] == '0') { /* zeros only: 007 is 00, then 7 */
        for (p = l->pos + 1;
             p < l->n && (s[p] == '0' || (s[p] == '_' && p + 1 < l->n && s[p + 1] == '0'));)
            p++;
    }
    char text[MAX_NUMBER];
    size_t n = 0;
    for (size_t i = l->pos; i < p; i++) {
        if (s[i] == '_')
            continue;
        if (n + 1 >= sizeof(text))
            return fail_at(l, "number literal is too long");
        text[n++] = s[i];
    }
    text[n] = '\0';
    jj_token *t = push(l, is_float ? JJ_T_FLOAT : JJ_T_INT);
    if (!t)
        return false;
    errno = 0;
    if (is_float)
        t->f = strtod(text, NULL);
    else
        t->i = strtoll(text, NULL, 10);
    if (!is_float && errno == ERANGE)
        return fail_at(l, "integer literal is too large");
    advance(l, p);
    return true;
}

/* Read up to `count` hex digits at p; false unless all are there. */
static bool hex(const char *s, size_t n, size_t p, size_t count, uint32_t *out)
{
    uint32_t v = 0;
    if (n - p < count)
        return false;
    for (size_t i = 0; i < count; i++) {
        int d = digit_value(s[p + i]);
        if (d > 15)
            return false;
        v = v << 4 | (uint32_t)d;
    }
    *out = v;
    return true;
}

/* \xHH, \uXXXX and \UXXXXXXXX at s[*p] (behind the backslash). Surrogate pairs are joined. */
static bool unescape_hex(const char *s, size_t n, size_t *p, uint32_t *cp)
{
    size_t count = s[*p] == 'x' ? 2 : s[*p] == 'u' ? 4 : 8;
    if (!hex(s, n, *p + 1, count, cp))
        return false;
    *p += 1 + count;
    uint32_t low;
    if (*cp >= 0xd800 && *cp < 0xdc00 && n - *p >= 6 && s[*p] == '\\' && s[*p + 1] == 'u' &&
        hex(s, n, *p + 2, 4, &low) && low >= 0xdc00 && low < 0xe000) {
        *cp = 0x10000 + ((*cp - 0xd800) << 10) + (low - 0xdc00);
        *p += 6;
    }
    if (*cp >= 0xd800 && *cp < 0xe000)
        *cp = 0xfffd;
    return *cp <= 0x10ffff;
}

/* Python's unicode-escape over s; writes at most n bytes to out (an escape is never shorter than
 * what it stands for). */
static bool unescape(const char *s, size_t n, char *out, size_t *n_out)
{
    static const char plain[] = "abfnrtv\\'\"", value[] = "\a\b\f\n\r\t\v\\'\"";
    size_t o = 0;
    for (size_t p = 0; p < n;) {
        if (s[p] != '\\' || p + 1 >= n) {
            out[o++] = s[p++];
            continue;
        }
        char c = s[++p];
        const char *q = c ? strchr(plain, c) : NULL;
        uint32_t cp;
        if (c == '\n') {
            p++;
        } else if (q) {
            out[o++] = value[q - plain];
            p++;
        } else if (c >= '0' && c <= '7') {
            cp = 0;
            for (int i = 0; i < 3 && p < n && s[p] >= '0' && s[p] <= '7'; i++, p++)
                cp = cp << 3 | (uint32_t)(s[p] - '0');
            o += cp_jj_utf8_put(cp, out + o);
        } else if (c == 'x' || c == 'u' || c == 'U') {
            if (!unescape_hex(s, n, &p, &cp))
                return false;
            o += cp_jj_utf8_put(cp, out + o);
        } else if (c == 'N') {
            return false; /* \N{NAME} is not built */
        } else {
            out[o++] = '\\';
        }
    }
    *n_out = o;
    return true;
}

static bool lex_string(lexer *l)
{
    char quote = l->s[l->pos];
    size_t p = l->pos + 1;
    while (p < l->n && l->s[p] != quote)
        p += l->s[p] == '\\' ? 2 : 1;
    if (p >= l->n)
        return fail_at(l, "unterminated string");
    jj_token *t = push(l, JJ_T_STR);
    size_t n = p - l->pos - 1;
    char *buf = t ? cp_jj_alloc(l->x, n + 1) : NULL;
    if (!buf)
        return false;
    if (!unescape(l->s + l->pos + 1, n, buf, &t->n))
        return fail_at(l, "malformed escape in a string");
    t->p = buf;
    advance(l, p + 1);
    return true;
}

static bool lex_operator(lexer *l)
{
    static const char two[][3] = {"//", "**", "==", "!=", ">=", "<="};
    static const char one[] = "+-/*%~[](){}><=.:|,;";
    char c = l->s[l->pos];
    for (size_t i = 0; i < sizeof(two) / sizeof(two[0]); i++) {
        if (at(l, l->pos, two[i])) {
            jj_token *t = push(l, JJ_T_OP);
            if (!t)
                return false;
            t->op = JJ_OP2((unsigned char)two[i][0], (unsigned char)two[i][1]);
            advance(l, l->pos + 2);
            return true;
        }
    }
    if (!c || !strchr(one, c)) {
        l->x->line = l->line;
        if (c > 0x20 && c < 0x7f)
            cp_jj_fail(l->x, "unexpected character '%c'", c);
        else
            cp_jj_fail(l->x, "unexpected character 0x%02x", (unsigned)(unsigned char)c);
        return false;
    }
    if (c == '(' || c == '[' || c == '{') {
        if (l->n_open == MAX_OPEN)
            return fail_at(l, "brackets are nested too deeply");
        l->open[l->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (!l->n_open || l->open[l->n_open - 1] != c) {
            l->x->line = l->line;
            cp_jj_fail(l->x, "unexpected '%c'", c);
            return false;
        }
        l->n_open--;
    }
    jj_token *t = push(l, JJ_T_OP);
    if (!t)
        return false;
    t->op = JJ_OP1((unsigned char)c);
    advance(l, l->pos + 1);
    return true;
}

/* Tokens of one {{ }} or {% %} tag, the end included. */
static bool lex_tag(lexer *l, bool is_var)
{
    l->n_open = 0;
    while (l->pos < l->n) {
        if (!l->n_open) {
            size_t end = 0;
            if (!is_var)
                end = tag_end(l, l->pos, "%}");
            else if (at(l, l->pos, "-}}"))
                end = skip_space(l, l->pos + 3);
            else if (at(l, l->pos, "}}"))
                end = l->pos + 2;
            if (end) {
                if (!push(l, is_var ? JJ_T_VAR_END : JJ_T_BLOCK_END))
                    return false;
                advance(l, end);
                return true;
            }
        }
        size_t after = skip_space(l, l->pos);
        char c = l->s[l->pos];
        if (after > l->pos) {
            advance(l, after);
        } else if (is_digit(c)) {
            if (!lex_number(l))
                return false;
        } else if (is_word(c)) {
            size_t p = l->pos;
            while (p < l->n && is_word(l->s[p]))
                p++;
            jj_token *t = push(l, JJ_T_NAME);
            if (!t)
                return false;
            t->p = l->s + l->pos;
            t->n = p - l->pos;
            advance(l, p);
        } else if (c == '\'' || c == '"') {
            if (!lex_string(l))
                return false;
        } else if (!lex_operator(l)) {
            return false;
        }
    }
    return fail_at(l, is_var ? "missing }}" : "missing %}");
}

/* Copy with \n line ends and without one newline at the end. */
static bool normalize(lexer *l, const char *src, size_t n)
{
    char *s = cp_jj_alloc(l->x, n + 1);
    if (!s)
        return false;
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        if (src[i] == '\r') {
            s[o++] = '\n';
            i += i + 1 < n && src[i + 1] == '\n';
        } else {
            s[o++] = src[i];
        }
    }
    l->s = s;
    l->n = o && s[o - 1] == '\n' ? o - 1 : o;
    return true;
}

bool cp_jj_lex(jj_ctx *x, const char *src, size_t n, jj_tokens *out)
{
    lexer l = {.x = x, .line = 1, .line_starting = true, .out = out};
    *out = (jj_tokens){0};
    if (n > JJ_MAX_SOURCE)
        return fail_at(&l, "the template is larger than 4 MiB");
    if (!normalize(&l, src, n))
        return false;
    while (l.pos < l.n) {
        size_t open = l.pos, after;
        const char *brace;
        while ((brace = memchr(l.s + open, '{', l.n - open)) != NULL) {
            open = (size_t)(brace - l.s);
            if (open + 1 < l.n && strchr("{%#", l.s[open + 1]) && l.s[open + 1])
                break;
            open++;
        }
        if (!brace) {
            if (!emit_data(&l, l.n, '+', false))
                return false;
            break;
        }
        char kind = l.s[open + 1], sign = read_sign(&l, open, &after);
        if (!emit_data(&l, open, sign, kind != '{'))
            return false;
        size_t raw = kind == '%' ? raw_begin(&l, open) : 0;
        bool ok;
        if (raw) {
            advance(&l, raw);
            ok = lex_raw(&l);
        } else if (kind == '#') {
            ok = lex_comment(&l, after);
        } else {
            ok = push(&l, kind == '{' ? JJ_T_VAR_BEGIN : JJ_T_BLOCK_BEGIN) != NULL;
            advance(&l, after);
            ok = ok && lex_tag(&l, kind == '{');
        }
        if (!ok)
            return false;
    }
    return push(&l, JJ_T_EOF) != NULL;
}
