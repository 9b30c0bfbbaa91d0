/*
 * tojson and from_json: json.dumps and json.loads of Python, without HTML escaping, marks kept.
 */
#include "chat/jinja/interp.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---- */

static bool json_str(jj_ctx *x, jj_sb *b, const jj_str *s, bool ascii)
{
    static const char plain[] = "\"\\\n\r\t\f\b", letter[] = "\"\\nrtfb";
    bool ok = cp_jj_work(x, s->n, JJ_WRITE) && cp_jj_sb_adds(x, b, "\""), marked = false;
    for (size_t off = 0, end = 0; ok && off < s->n;) {
        uint32_t cp;
        char esc[16];
        size_t k = 0;
        if (off >= end)
            marked = cp_jj_str_mark(s, off, &end);
        size_t len = cp_jj_utf8_next(s->p, s->n, off, &cp);
        const char *q = cp && cp < 0x80 ? strchr(plain, (int)cp) : NULL;
        if (q)
            k = cp_snprintf(esc, sizeof(esc), "\\%c", letter[q - plain]);
        else if (cp < 0x20 || (ascii && cp >= 0x7f && cp < 0x10000))
            k = cp_snprintf(esc, sizeof(esc), "\\u%04x", cp);
        else if (ascii && cp >= 0x10000 && cp < 0x110000)
            k = cp_snprintf(esc, sizeof(esc), "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10),
                            0xdc00 + (cp & 0x3ff));
        ok = k ? cp_jj_work(x, 2, JJ_PIECE) && cp_jj_sb_add(x, b, esc, k, marked)
               : cp_jj_sb_add(x, b, s->p + off, len, marked);
        off += len;
    }
    return ok && cp_jj_sb_adds(x, b, "\"");
}

static bool json_at(jj_ctx *x, jj_sb *b, const cp_val *v, const jj_json_opts *o, int depth);

static bool newline(jj_ctx *x, jj_sb *b, const jj_json_opts *o, int depth)
{
    if (!o->indent)
        return true;
    bool ok = cp_jj_sb_adds(x, b, "\n");
    for (int i = 0; ok && i < depth; i++)
        ok = cp_jj_sb_add_str(x, b, o->indent, 0, o->indent->n);
    return ok;
}

static bool separator(jj_ctx *x, jj_sb *b, const jj_json_opts *o)
{
    if (o->item_sep)
        return cp_jj_sb_add_str(x, b, o->item_sep, 0, o->item_sep->n);
    return cp_jj_sb_adds(x, b, o->indent ? "," : ", ");
}

static bool json_list(jj_ctx *x, jj_sb *b, const cp_val *const *v, size_t n, const jj_json_opts *o,
                      int depth)
{
    if (!n)
        return cp_jj_sb_adds(x, b, "[]");
    bool ok = cp_jj_sb_adds(x, b, "[");
    for (size_t i = 0; ok && i < n; i++)
        ok = (!i || separator(x, b, o)) && newline(x, b, o, depth + 1) &&
             json_at(x, b, v[i], o, depth + 1);
    return ok && newline(x, b, o, depth) && cp_jj_sb_adds(x, b, "]");
}

static bool json_key(jj_ctx *x, jj_sb *b, const cp_val *k, const jj_json_opts *o)
{
    switch (k->type) {
    case JJ_STR:
        return json_str(x, b, &k->u.s, o->ensure_ascii);
    case JJ_NONE:
    case JJ_BOOL:
    case JJ_INT:
    case JJ_FLOAT:
        return cp_jj_sb_adds(x, b, "\"") && json_at(x, b, k, o, 0) && cp_jj_sb_adds(x, b, "\"");
    default:
        cp_jj_fail(x, "a key of type %s has no JSON form", cp_jj_type_name(k));
        return false;
    }
}

/* The entries as parallel arrays, sorted by key when asked for. */
static bool json_entries(jj_ctx *x, const jj_dict *d, bool sort, const cp_val ***keys,
                         const cp_val ***vals)
{
    jj_list *k = cp_jj_dict_list(x, d, JJ_KEYS), *v = k ? cp_jj_dict_list(x, d, JJ_VALUES) : NULL;
    if (!v)
        return false;
    *keys = k->v;
    *vals = v->v;
    return !sort || cp_jj_sort(x, k->v, v->v, v->n, false);
}

static bool json_dict(jj_ctx *x, jj_sb *b, const jj_dict *d, const jj_json_opts *o, int depth)
{
    if (!d->n)
        return cp_jj_sb_adds(x, b, "{}");
    const cp_val **keys, **vals;
    bool ok = json_entries(x, d, o->sort_keys, &keys, &vals) && cp_jj_sb_adds(x, b, "{");
    for (size_t i = 0; ok && i < d->n; i++) {
        ok =
            (!i || separator(x, b, o)) && newline(x, b, o, depth + 1) && json_key(x, b, keys[i], o);
        ok = ok && (o->key_sep ? cp_jj_sb_add_str(x, b, o->key_sep, 0, o->key_sep->n)
                               : cp_jj_sb_adds(x, b, ": "));
        ok = ok && json_at(x, b, vals[i], o, depth + 1);
    }
    return ok && newline(x, b, o, depth) && cp_jj_sb_adds(x, b, "}");
}

static bool json_at(jj_ctx *x, jj_sb *b, const cp_val *v, const jj_json_opts *o, int depth)
{
    if (!cp_jj_step(x, 1))
        return false;
    if (depth > JJ_MAX_DEPTH) {
        cp_jj_fail(x, "a value for tojson is nested too deeply (limit %d)", JJ_MAX_DEPTH);
        return false;
    }
    switch (v->type) {
    case JJ_NONE:
        return cp_jj_sb_adds(x, b, "null");
    case JJ_BOOL:
        return cp_jj_sb_adds(x, b, v->u.b ? "true" : "false");
    case JJ_FLOAT:
        if (isnan(v->u.f))
            return cp_jj_sb_adds(x, b, "NaN");
        if (isinf(v->u.f))
            return cp_jj_sb_adds(x, b, v->u.f < 0 ? "-Infinity" : "Infinity");
        return cp_jj_sb_repr(x, b, v);
    case JJ_INT:
        return cp_jj_sb_repr(x, b, v);
    case JJ_STR:
        return json_str(x, b, &v->u.s, o->ensure_ascii);
    case JJ_LIST:
    case JJ_TUPLE:
        return json_list(x, b, v->u.list->v, v->u.list->n, o, depth);
    case JJ_DICT:
        return json_dict(x, b, v->u.dict, o, depth);
    default:
        cp_jj_fail(x, "a value of type %s has no JSON form", cp_jj_type_name(v));
        return false;
    }
}

bool cp_jj_sb_json(jj_ctx *x, jj_sb *b, const cp_val *v, const jj_json_opts *o)
{
    return json_at(x, b, v, o, 0);
}

/* ---- reading ---- */

typedef struct reader {
    jj_ctx *x;
    const jj_str *s;
    size_t off;
} reader;

static const cp_val *read_value(reader *r, int depth);

static const cp_val *bad_json(reader *r)
{
    cp_jj_fail(r->x, "malformed JSON at byte %zu", r->off);
    return NULL;
}

static char peek(reader *r)
{
    while (r->off < r->s->n && strchr(" \t\r\n", r->s->p[r->off]) && r->s->p[r->off])
        r->off++;
    return r->off < r->s->n ? r->s->p[r->off] : '\0';
}

static bool hex4(reader *r, size_t off, uint32_t *out)
{
    uint32_t v = 0;
    for (size_t i = 0; i < 4; i++) {
        char c = off + i < r->s->n ? r->s->p[off + i] : '\0';
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return false;
        v = v << 4 | (uint32_t)d;
    }
    *out = v;
    return true;
}

/* One escape at r->off (behind the backslash). */
static bool read_escape(reader *r, uint32_t *cp)
{
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = r->off < r->s->n ? r->s->p[r->off] : '\0';
    const char *q = c ? strchr(letters, c) : NULL;
    if (q) {
        *cp = (unsigned char)values[q - letters];
        r->off++;
        return true;
    }
    uint32_t low;
    if (c != 'u' || !hex4(r, r->off + 1, cp))
        return false;
    r->off += 5;
    if (*cp >= 0xd800 && *cp < 0xdc00 && r->off + 1 < r->s->n && r->s->p[r->off] == '\\' &&
        r->s->p[r->off + 1] == 'u' && hex4(r, r->off + 2, &low) && low >= 0xdc00 && low < 0xe000) {
        *cp = 0x10000 + ((*cp - 0xd800) << 10) + (low - 0xdc00);
        r->off += 6;
    }
    if (*cp >= 0xd800 && *cp < 0xe000)
        *cp = 0xfffd;
    return true;
}

static const cp_val *read_string(reader *r)
{
    jj_sb b = {.a = r->x->a};
    const jj_str *s = r->s;
    r->off++;
    for (;;) {
        size_t begin = r->off, end;
        while (r->off < s->n && s->p[r->off] != '"' && s->p[r->off] != '\\' &&
               (unsigned char)s->p[r->off] >= 0x20)
            r->off++;
        if (!cp_jj_sb_add_str(r->x, &b, s, begin, r->off))
            return NULL;
        if (r->off >= s->n || (unsigned char)s->p[r->off] < 0x20)
            return bad_json(r);
        if (s->p[r->off] == '"') {
            r->off++;
            return cp_jj_sb_take(r->x, &b);
        }
        bool marked = cp_jj_str_mark(s, r->off, &end);
        uint32_t cp;
        r->off++;
        if (!read_escape(r, &cp))
            return bad_json(r);
        if (!cp_jj_sb_add_cp(r->x, &b, cp, marked))
            return NULL;
    }
}

static const cp_val *read_number(reader *r)
{
    char text[400];
    size_t n = 0, p = r->off;
    bool is_float = false;
    const char *s = r->s->p;
    for (; p < r->s->n && n + 1 < sizeof(text); p++) {
        char c = s[p];
        if (c == '.' || c == 'e' || c == 'E')
            is_float = true;
        else if (!(c >= '0' && c <= '9') && c != '-' && c != '+')
            break;
        text[n++] = c;
    }
    text[n] = '\0';
    const char *digits = text + (text[0] == '-');
    char *end = NULL;
    if (!(digits[0] >= '0' && digits[0] <= '9') ||
        (digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9'))
        return bad_json(r);
    errno = 0;
    const cp_val *v = NULL;
    if (!is_float) {
        long long i = strtoll(text, &end, 10);
        if (errno == ERANGE)
            is_float = true; /* beyond 64 bits: the nearest double */
        else
            v = cp_jj_int(r->x, i);
    }
    if (is_float)
        v = cp_jj_float(r->x, strtod(text, &end));
    if (!end || *end || end[-1] == '.')
        return bad_json(r);
    r->off = p;
    return v;
}

static const cp_val *read_list(reader *r, int depth)
{
    jj_list *l = cp_jj_list_new(r->x, 0);
    r->off++;
    if (peek(r) == ']') {
        r->off++;
        return cp_jj_list(r->x, JJ_LIST, l);
    }
    for (;;) {
        if (!cp_jj_list_push(r->x, l, read_value(r, depth + 1)))
            return NULL;
        char c = peek(r);
        if (c != ',' && c != ']')
            return bad_json(r);
        r->off++;
        if (c == ']')
            return cp_jj_list(r->x, JJ_LIST, l);
    }
}

static const cp_val *read_dict(reader *r, int depth)
{
    jj_dict *d = cp_jj_dict_new(r->x);
    r->off++;
    if (peek(r) == '}') {
        r->off++;
        return cp_jj_dict(r->x, JJ_DICT, d);
    }
    for (;;) {
        if (peek(r) != '"')
            return bad_json(r);
        const cp_val *key = read_string(r);
        if (!key)
            return NULL;
        if (peek(r) != ':')
            return bad_json(r);
        r->off++;
        if (!cp_jj_dict_set(r->x, d, key, read_value(r, depth + 1)))
            return NULL;
        char c = peek(r);
        if (c != ',' && c != '}')
            return bad_json(r);
        r->off++;
        if (c == '}')
            return cp_jj_dict(r->x, JJ_DICT, d);
    }
}

static const cp_val *read_value(reader *r, int depth)
{
    static const struct {
        const char *word;
        const cp_val *v;
    } words[] = {{"true", &cp_jj_true}, {"false", &cp_jj_false}, {"null", &cp_jj_none}};
    char c = peek(r);
    if (!cp_jj_step(r->x, 1))
        return NULL;
    if (depth > JJ_MAX_DEPTH) {
        cp_jj_fail(r->x, "JSON is nested too deeply (limit %d)", JJ_MAX_DEPTH);
        return NULL;
    }
    if (c == '"')
        return read_string(r);
    if (c == '[')
        return read_list(r, depth);
    if (c == '{')
        return read_dict(r, depth);
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i].word);
        if (r->s->n - r->off >= n && memcmp(r->s->p + r->off, words[i].word, n) == 0) {
            r->off += n;
            return words[i].v;
        }
    }
    return read_number(r);
}

const cp_val *cp_jj_json_parse(jj_ctx *x, const jj_str *text)
{
    reader r = {.x = x, .s = text};
    const cp_val *v = cp_jj_work(x, text->n, JJ_SCAN) ? read_value(&r, 0) : NULL;
    if (v && (peek(&r) != '\0' || r.off < text->n))
        return bad_json(&r);
    return v;
}
