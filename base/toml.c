/*
 * This file parses TOML 1.0 (toml.io, v1.0.0) in one pass over the text, by recursive descent with
 * a depth limit and without backtracking.
 *
 * Nodes carry private marks behind the public value (`node`): how a table came to be (header,
 * dotted key, inline), because TOML forbids to reopen some. Lookups walk the table's list; the
 * limits keep the product of keys and walks small (a hostile megabyte parses in well under a
 * second).
 */
#include "base/toml.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOML_BYTES_MAX = 1 << 20,
    TOML_VALUES_MAX = 65536,
    TOML_KEYS_MAX = 1024, /* a table */
    TOML_DEPTH_MAX = 32,
    TOML_NUMBER_MAX = 64, /* characters */
    TOML_ARENA_BYTES = 64 << 20
};

typedef struct node {
    cp_toml_value value; /* first: a node is a value */
    bool header;         /* table: named by its own [header] */
    bool dotted;         /* table: made by a dotted key; only dotted keys may extend it */
    bool frozen;         /* inline table, or array written with brackets: complete */
    struct node *tail;   /* array: last element */
    cp_toml_entry *last; /* table: last entry */
} node;

struct cp_toml {
    cp_arena *arena;
    node *root;
};

typedef struct parser {
    const char *name;
    const unsigned char *p, *end;
    int line, column;
    int values, depth;
    cp_toml *doc;
    cp_err *err;
} parser;

typedef struct place {
    int line, column;
} place;

static place here(const parser *ps)
{
    return (place){ps->line, ps->column};
}

#define fail(ps, at, ...) fail(ps, at, __VA_ARGS__)
__attribute__((format(printf, 3, 4))) static bool fail(parser *ps, place at, const char *fmt, ...)
{
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    cp_fail(ps->err, CP_USAGE, "%s:%d:%d: %s", ps->name, at.line, at.column, msg);
    return false;
}

static bool no_memory(parser *ps)
{
    return fail(ps, here(ps), "out of memory");
}

/* ---- characters ---- */

static int peek(const parser *ps)
{
    return ps->p < ps->end ? *ps->p : -1;
}

static bool at_text(const parser *ps, const char *s)
{
    size_t n = strlen(s);
    return (size_t)(ps->end - ps->p) >= n && memcmp(ps->p, s, n) == 0;
}

/* One byte further; the text is valid UTF-8, so columns count lead bytes. */
static void advance(parser *ps)
{
    unsigned char c = *ps->p++;
    if (c == '\n') {
        ps->line++;
        ps->column = 1;
    } else if ((c & 0xC0) != 0x80) {
        ps->column++;
    }
}

static void skip(parser *ps, int n)
{
    while (n-- > 0)
        advance(ps);
}

static void skip_blank(parser *ps)
{
    while (peek(ps) == ' ' || peek(ps) == '\t')
        advance(ps);
}

static bool is_newline(const parser *ps)
{
    return peek(ps) == '\n' || at_text(ps, "\r\n");
}

static void skip_newline(parser *ps)
{
    if (peek(ps) == '\r')
        advance(ps);
    advance(ps);
}

static bool is_control(int c)
{
    return (c >= 0 && c < 0x20 && c != '\t') || c == 0x7F;
}

/* A readable form of the next character for messages. */
static const char *show(const parser *ps, char buf[16])
{
    int c = peek(ps);
    if (c < 0)
        return "the end of the file";
    if (c == '\n' || c == '\r')
        return "the end of the line";
    if (c < 0x20 || c == 0x7F)
        cp_snprintf(buf, 16, "byte 0x%02x", (unsigned)c);
    else
        cp_snprintf(buf, 16, "'%.*s'", (int)cp_utf8_need((uint8_t)c), (const char *)ps->p);
    return buf;
}

static bool skip_comment(parser *ps)
{
    if (peek(ps) != '#')
        return true;
    while (peek(ps) >= 0 && !is_newline(ps)) {
        if (is_control(peek(ps)))
            return fail(ps, here(ps), "control character 0x%02x in a comment", (unsigned)peek(ps));
        advance(ps);
    }
    return true;
}

/* Blanks, comments and line ends. */
static bool skip_space(parser *ps)
{
    for (;;) {
        skip_blank(ps);
        if (!skip_comment(ps))
            return false;
        if (!is_newline(ps))
            return true;
        skip_newline(ps);
    }
}

/* ---- nodes ---- */

static node *node_new(parser *ps, cp_toml_type type, place at)
{
    if (++ps->values > TOML_VALUES_MAX) {
        fail(ps, at, "more than %d values", TOML_VALUES_MAX);
        return NULL;
    }
    node *n = cp_arena_alloc(ps->doc->arena, sizeof(*n));
    if (!n) {
        no_memory(ps);
        return NULL;
    }
    n->value.type = type;
    n->value.line = at.line;
    n->value.column = at.column;
    return n;
}

static node *as_node(const cp_toml_value *v)
{
    return (node *)(uintptr_t)v; /* every value is the first member of a node of this parser */
}

static node *table_get(const node *t, const char *key)
{
    const cp_toml_entry *e = cp_toml_find(&t->value, key);
    return e ? as_node(e->value) : NULL;
}

static bool table_put(parser *ps, node *t, const char *key, place at, node *value)
{
    if (t->value.v.table.n >= TOML_KEYS_MAX)
        return fail(ps, at, "more than %d keys in one table", TOML_KEYS_MAX);
    cp_toml_entry *e = cp_arena_alloc(ps->doc->arena, sizeof(*e));
    if (!e)
        return no_memory(ps);
    *e = (cp_toml_entry){key, at.line, at.column, &value->value, NULL};
    if (t->last)
        t->last->next = e;
    else
        t->value.v.table.first = e;
    t->last = e;
    t->value.v.table.n++;
    return true;
}

static void array_put(node *a, node *item)
{
    if (a->tail)
        a->tail->value.next = &item->value;
    else
        a->value.v.array.first = &item->value;
    a->tail = item;
    a->value.v.array.n++;
}

/* ---- strings ---- */

static int hex_digit(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static void add_utf8(cp_buf *b, uint32_t c)
{
    char bytes[4];
    cp_buf_add(b, bytes, cp_utf8_encode(c, bytes));
}

/* After a backslash in a basic string. */
static bool parse_escape(parser *ps, place at, cp_buf *b)
{
    static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
    char shown[16];
    int c = peek(ps);
    const char *known = c > 0 ? strchr(from, c) : NULL;
    if (known) {
        cp_buf_addc(b, to[known - from]);
        advance(ps);
        return true;
    }
    if (c != 'u' && c != 'U')
        return fail(ps, at, "unknown escape: %s after '\\'", show(ps, shown));
    advance(ps);
    uint32_t code = 0;
    int digits = c == 'u' ? 4 : 8;
    for (int i = 0; i < digits; i++) {
        int d = hex_digit(peek(ps));
        if (d < 0)
            return fail(ps, here(ps), "got %s; \\%c takes %d hex digits", show(ps, shown), c,
                        digits);
        code = code << 4 | (uint32_t)d;
        advance(ps);
    }
    if (code == 0)
        return fail(ps, at, "U+0000 is not accepted in a string");
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        return fail(ps, at, "U+%04X is not a Unicode character", (unsigned)code);
    add_utf8(b, code);
    return true;
}

/* A backslash at a line's end: skips white space up to the next character. False: it is no such
 * backslash. */
static bool line_continuation(parser *ps)
{
    const unsigned char *q = ps->p;
    while (q < ps->end && (*q == ' ' || *q == '\t'))
        q++;
    if (q < ps->end && *q == '\r')
        q++;
    if (q >= ps->end || *q != '\n')
        return false;
    for (int c = peek(ps); c == ' ' || c == '\t' || is_newline(ps); c = peek(ps))
        advance(ps);
    return true;
}

/* The inside of a string up to and with its closing quotes. quote is " or '; long strings have
 * three of them. */
static bool string_body(parser *ps, int quote, bool is_long, place start, cp_buf *b)
{
    const char *close = is_long ? (quote == '"' ? "\"\"\"" : "'''") : (quote == '"' ? "\"" : "'");
    if (is_long && is_newline(ps))
        skip_newline(ps);
    for (;;) {
        int c = peek(ps);
        place at = here(ps);
        if (c < 0 || (!is_long && is_newline(ps)))
            return fail(ps, start, "string without its closing %s", close);
        if (at_text(ps, close)) {
            skip(ps, (int)strlen(close));
            /* Up to two more quotes belong to the content of a long string. */
            for (int i = 0; is_long && i < 2 && peek(ps) == quote; i++) {
                cp_buf_addc(b, (char)quote);
                advance(ps);
            }
            return true;
        }
        if (is_newline(ps)) {
            skip_newline(ps);
            cp_buf_addc(b, '\n');
        } else if (is_control(c)) {
            return fail(ps, at, "control character 0x%02x in a string; write it as \\u%04X",
                        (unsigned)c, (unsigned)c);
        } else if (c == '\\' && quote == '"') {
            advance(ps);
            if (!(is_long && line_continuation(ps)) && !parse_escape(ps, at, b))
                return false;
        } else {
            cp_buf_addc(b, (char)c);
            advance(ps);
        }
    }
}

/* Any of the four strings; keys take only the short ones. NULL: failed. */
static const char *parse_string(parser *ps, bool key)
{
    int quote = peek(ps);
    place start = here(ps);
    bool is_long = !key && at_text(ps, quote == '"' ? "\"\"\"" : "'''");
    skip(ps, is_long ? 3 : 1);
    cp_buf b = {0};
    const char *s = NULL;
    if (string_body(ps, quote, is_long, start, &b)) {
        if (!b.failed)
            s = cp_arena_strndup(ps->doc->arena, b.p ? b.p : "", b.n);
        if (!s)
            no_memory(ps);
    }
    cp_buf_fini(&b);
    return s;
}

/* ---- numbers and words ---- */

static bool is_bare(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '-';
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

/* Copies digits of a base without underscores, which must stand between digits. Returns the end, or
 * NULL. */
static const char *take_digits(const char *s, int base, char **out)
{
    const char *start = s;
    for (;; s++) {
        int d = hex_digit((unsigned char)*s);
        if (d >= 0 && d < base) {
            *(*out)++ = *s;
            continue;
        }
        if (*s != '_')
            break;
        int before = s > start ? hex_digit((unsigned char)s[-1]) : -1;
        int after = hex_digit((unsigned char)s[1]);
        if (before < 0 || before >= base || after < 0 || after >= base)
            return NULL;
    }
    return s > start ? s : NULL;
}

/* 0x, 0o and 0b integers. */
static bool radix_number(const char *word, int64_t *i)
{
    int base = word[1] == 'x' ? 16 : word[1] == 'o' ? 8 : 2;
    char digits[TOML_NUMBER_MAX + 1], *out = digits;
    const char *end = take_digits(word + 2, base, &out);
    if (!end || *end)
        return false;
    *out = '\0';
    uint64_t v = 0;
    for (const char *d = digits; *d; d++) {
        if (v > (uint64_t)INT64_MAX / (unsigned)base)
            return false;
        v = v * (unsigned)base + (unsigned)hex_digit((unsigned char)*d);
    }
    *i = (int64_t)v;
    return v <= INT64_MAX;
}

/* Decimal integer or float. Fills v and returns true when the whole word is one. */
static bool decimal_number(const char *word, cp_toml_value *v)
{
    char digits[TOML_NUMBER_MAX + 8], *out = digits;
    const char *s = word;
    if (*s == '+' || *s == '-')
        *out++ = *s++;
    if (strcmp(s, "inf") == 0 || strcmp(s, "nan") == 0) {
        v->type = CP_TOML_FLOAT;
        v->v.f = *s == 'i' ? (double)INFINITY : (double)NAN;
        if (*word == '-')
            v->v.f = -v->v.f;
        return true;
    }
    const char *whole = s;
    s = take_digits(s, 10, &out);
    if (!s || (*whole == '0' && s - whole > 1))
        return false;
    bool is_float = false;
    if (*s == '.') {
        is_float = true;
        *out++ = *s++;
        s = take_digits(s, 10, &out);
        if (!s)
            return false;
    }
    if (*s == 'e' || *s == 'E') {
        is_float = true;
        *out++ = *s++;
        if (*s == '+' || *s == '-')
            *out++ = *s++;
        s = take_digits(s, 10, &out);
        if (!s)
            return false;
    }
    if (*s)
        return false;
    *out = '\0';
    if (is_float) {
        v->type = CP_TOML_FLOAT;
        v->v.f = strtod(digits, NULL);
        return true;
    }
    bool minus = *digits == '-';
    uint64_t n = 0, limit = (uint64_t)INT64_MAX + minus;
    for (const char *d = digits + (*digits == '-' || *digits == '+'); *d; d++) {
        unsigned x = (unsigned)(*d - '0');
        if (n > (limit - x) / 10)
            return false;
        n = n * 10 + x;
    }
    v->type = CP_TOML_INT;
    v->v.i = minus ? (int64_t)(0 - n) : (int64_t)n;
    return true;
}

/* true, false, numbers; names dates as what they are. */
static node *parse_word(parser *ps)
{
    place at = here(ps);
    char word[TOML_NUMBER_MAX + 1], shown[16];
    size_t n = 0;
    for (int c = peek(ps); is_bare(c) || c == '+' || c == '.' || c == ':'; c = peek(ps)) {
        if (n == TOML_NUMBER_MAX) {
            fail(ps, at, "a value of more than %d characters; text needs quotes", TOML_NUMBER_MAX);
            return NULL;
        }
        word[n++] = (char)c;
        advance(ps);
    }
    word[n] = '\0';
    if (n == 0) {
        fail(ps, at, "got %s; expected a value", show(ps, shown));
        return NULL;
    }
    node *v = node_new(ps, CP_TOML_BOOL, at);
    if (!v)
        return NULL;
    if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0) {
        v->value.v.b = *word == 't';
        return v;
    }
    if (word[0] == '0' && n > 1 && strchr("xob", word[1])) {
        v->value.type = CP_TOML_INT;
        if (radix_number(word, &v->value.v.i))
            return v;
    } else if (decimal_number(word, &v->value)) {
        return v;
    }
    if (n >= 8 && is_digit(word[0]) && (word[2] == ':' || (n >= 10 && word[4] == '-')))
        fail(ps, at, "'%s': dates and times are not accepted; write it as a string", word);
    else
        fail(ps, at, "'%s' is no value (a number, true or false; text needs quotes)", word);
    return NULL;
}

/* ---- keys ---- */

typedef struct key_path {
    const char *part[TOML_DEPTH_MAX];
    place at[TOML_DEPTH_MAX];
    int n;
} key_path;

static bool parse_key(parser *ps, key_path *k)
{
    char shown[16];
    k->n = 0;
    for (;;) {
        skip_blank(ps);
        if (k->n == TOML_DEPTH_MAX)
            return fail(ps, here(ps), "a key of more than %d parts", TOML_DEPTH_MAX);
        place at = here(ps);
        const char *part;
        if (peek(ps) == '"' || peek(ps) == '\'') {
            part = parse_string(ps, true);
            if (!part)
                return false;
        } else {
            const unsigned char *start = ps->p;
            while (is_bare(peek(ps)))
                advance(ps);
            if (ps->p == start)
                return fail(ps, at, "got %s; expected a key", show(ps, shown));
            part = cp_arena_strndup(ps->doc->arena, (const char *)start, (size_t)(ps->p - start));
            if (!part)
                return no_memory(ps);
        }
        k->part[k->n] = part;
        k->at[k->n++] = at;
        skip_blank(ps);
        if (peek(ps) != '.')
            return true;
        advance(ps);
    }
}

/* ---- values ---- */

static node *parse_value(parser *ps);
static bool parse_pair(parser *ps, node *table);

static node *parse_array(parser *ps)
{
    char shown[16];
    node *a = node_new(ps, CP_TOML_ARRAY, here(ps));
    if (!a)
        return NULL;
    advance(ps);
    for (;;) {
        if (!skip_space(ps))
            return NULL;
        if (peek(ps) == ']')
            break;
        node *item = parse_value(ps);
        if (!item)
            return NULL;
        array_put(a, item);
        if (!skip_space(ps))
            return NULL;
        if (peek(ps) == ',') {
            advance(ps);
        } else if (peek(ps) != ']') {
            fail(ps, here(ps), "got %s; expected ',' or ']' in the array that begins at %d:%d",
                 show(ps, shown), a->value.line, a->value.column);
            return NULL;
        }
    }
    advance(ps);
    a->frozen = true;
    return a;
}

/* Everything below an inline table is complete: nothing may be added later. */
static void freeze(node *t)
{
    t->frozen = true;
    for (const cp_toml_entry *e = t->value.v.table.first; e; e = e->next) {
        node *child = as_node(e->value);
        if (child->value.type == CP_TOML_TABLE && !child->frozen)
            freeze(child); /* at most TOML_DEPTH_MAX deep: made by one dotted key */
    }
}

static node *parse_inline_table(parser *ps)
{
    char shown[16];
    node *t = node_new(ps, CP_TOML_TABLE, here(ps));
    if (!t)
        return NULL;
    advance(ps);
    skip_blank(ps);
    if (peek(ps) != '}') {
        for (;;) {
            if (!parse_pair(ps, t))
                return NULL;
            skip_blank(ps);
            if (peek(ps) == '}')
                break;
            if (peek(ps) != ',') {
                fail(ps, here(ps), "got %s; expected ',' or '}' in the inline table at %d:%d",
                     show(ps, shown), t->value.line, t->value.column);
                return NULL;
            }
            advance(ps);
        }
    }
    advance(ps);
    freeze(t);
    return t;
}

static node *parse_value(parser *ps)
{
    place at = here(ps);
    if (ps->depth >= TOML_DEPTH_MAX) {
        fail(ps, at, "arrays and tables nested deeper than %d", TOML_DEPTH_MAX);
        return NULL;
    }
    ps->depth++;
    node *v = NULL;
    int c = peek(ps);
    if (c == '"' || c == '\'') {
        const char *s = parse_string(ps, false);
        v = s ? node_new(ps, CP_TOML_STRING, at) : NULL;
        if (v)
            v->value.v.s = s;
    } else if (c == '[') {
        v = parse_array(ps);
    } else if (c == '{') {
        v = parse_inline_table(ps);
    } else {
        v = parse_word(ps);
    }
    ps->depth--;
    return v;
}

/* The table that a dotted key's leading parts name, made on the way. */
static node *dotted_parent(parser *ps, node *t, const key_path *k)
{
    for (int i = 0; i + 1 < k->n; i++) {
        node *next = table_get(t, k->part[i]);
        if (!next) {
            next = node_new(ps, CP_TOML_TABLE, k->at[i]);
            if (!next || !table_put(ps, t, k->part[i], k->at[i], next))
                return NULL;
            next->dotted = true;
        } else if (next->value.type != CP_TOML_TABLE || next->frozen || !next->dotted) {
            fail(ps, k->at[i], "key '%s' is already set at %d:%d", k->part[i], next->value.line,
                 next->value.column);
            return NULL;
        }
        t = next;
    }
    return t;
}

/* key = value */
static bool parse_pair(parser *ps, node *table)
{
    char shown[16];
    key_path k;
    if (!parse_key(ps, &k))
        return false;
    if (peek(ps) != '=')
        return fail(ps, here(ps), "got %s; expected '=' after key '%s'", show(ps, shown),
                    k.part[k.n - 1]);
    advance(ps);
    skip_blank(ps);
    node *parent = dotted_parent(ps, table, &k);
    if (!parent)
        return false;
    const char *key = k.part[k.n - 1];
    place at = k.at[k.n - 1];
    const node *old = table_get(parent, key);
    if (old)
        return fail(ps, at, "key '%s' is already set at %d:%d", key, old->value.line,
                    old->value.column);
    node *value = parse_value(ps);
    return value && table_put(ps, parent, key, at, value);
}

/* [a.b] or [[a.b]]: the table that the following pairs belong to. NULL: failed. */
static node *open_header(parser *ps, const key_path *k, bool array)
{
    node *t = ps->doc->root;
    for (int i = 0; i < k->n; i++) {
        bool last = i == k->n - 1;
        place at = k->at[i];
        node *next = table_get(t, k->part[i]);
        bool fresh = !next;
        if (fresh) {
            next = node_new(ps, last && array ? CP_TOML_ARRAY : CP_TOML_TABLE, at);
            if (!next || !table_put(ps, t, k->part[i], at, next))
                return NULL;
        }
        bool is_array = next->value.type == CP_TOML_ARRAY;
        bool is_table = next->value.type == CP_TOML_TABLE;
        bool clash = next->frozen || (!is_array && !is_table);
        if (last)
            clash |= array ? !is_array : (!fresh && (!is_table || next->header || next->dotted));
        if (clash) {
            fail(ps, at, "key '%s' is already set at %d:%d", k->part[i], next->value.line,
                 next->value.column);
            return NULL;
        }
        if (is_array && last) {
            node *item = node_new(ps, CP_TOML_TABLE, at);
            if (!item)
                return NULL;
            array_put(next, item);
            next = item;
        } else if (is_array) {
            next = next->tail;
        }
        if (last)
            next->header = true;
        t = next;
    }
    return t;
}

static bool parse_header(parser *ps, node **current)
{
    char shown[16];
    bool array = at_text(ps, "[[");
    skip(ps, array ? 2 : 1);
    key_path k;
    if (!parse_key(ps, &k))
        return false;
    if (!at_text(ps, array ? "]]" : "]"))
        return fail(ps, here(ps), "got %s; expected '%s'", show(ps, shown), array ? "]]" : "]");
    skip(ps, array ? 2 : 1);
    *current = open_header(ps, &k, array);
    return *current != NULL;
}

static bool parse_document(parser *ps)
{
    char shown[16];
    node *current = ps->doc->root;
    for (;;) {
        if (!skip_space(ps))
            return false;
        if (peek(ps) < 0)
            return true;
        if (peek(ps) == '[' ? !parse_header(ps, &current) : !parse_pair(ps, current))
            return false;
        skip_blank(ps);
        if (!skip_comment(ps))
            return false;
        if (peek(ps) >= 0 && !is_newline(ps))
            return fail(ps, here(ps), "got %s; expected the end of the line", show(ps, shown));
    }
}

cp_code cp_toml_parse(cp_toml **out, const char *name, const char *text, size_t n, cp_err *err)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + n;
    if (n > TOML_BYTES_MAX)
        return cp_fail(err, CP_USAGE, "%s:1:1: %zu bytes; allowed: up to %d", name, n,
                       TOML_BYTES_MAX);
    if (n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
        p += 3;
    cp_toml *doc = cp_xcalloc(1, sizeof(*doc));
    doc->arena = cp_arena_new(TOML_ARENA_BYTES);
    parser ps = {.name = name, .p = p, .end = end, .line = 1, .column = 1, .doc = doc, .err = err};
    size_t left = (size_t)(end - p), valid = cp_utf8_valid_n((const char *)p, left);
    const unsigned char *bad = p + valid;
    bool ok;
    if (valid < left) {
        while (ps.p < bad)
            advance(&ps);
        ok = fail(&ps, here(&ps), "byte 0x%02x is not UTF-8", *bad);
    } else {
        doc->root = node_new(&ps, CP_TOML_TABLE, here(&ps));
        ok = doc->root && parse_document(&ps);
    }
    if (!ok) {
        cp_toml_free(doc);
        return CP_USAGE;
    }
    *out = doc;
    return CP_OK;
}

void cp_toml_free(cp_toml *t)
{
    if (!t)
        return;
    cp_arena_free(t->arena);
    free(t);
}

const cp_toml_value *cp_toml_root(const cp_toml *t)
{
    return &t->root->value;
}

const cp_toml_entry *cp_toml_find(const cp_toml_value *table, const char *key)
{
    if (table->type != CP_TOML_TABLE)
        return NULL;
    const cp_toml_entry *e = table->v.table.first;
    while (e && strcmp(e->key, key) != 0)
        e = e->next;
    return e;
}

const char *cp_toml_type_name(cp_toml_type type)
{
    static const char *const names[] = {"string",     "integer", "float",
                                        "true|false", "array",   "table"};
    return names[type];
}
