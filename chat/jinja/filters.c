/*
 * Filters on single values: text, numbers, JSON. Filters on sequences are in seq.c. A row per
 * filter; parameters carry the names that Jinja gives them, as templates pass them by keyword.
 */
#include "chat/jinja/interp.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTER(name)                                                                               \
    static const cp_val *name(jj_ctx *x, const cp_val *v, const cp_val **arg, const jj_args *rest)

bool cp_jj_arg_int(jj_ctx *x, const cp_val *v, int64_t def, int64_t *out)
{
    *out = def;
    if (!v || v->type == JJ_NONE)
        return true;
    if (v->type != JJ_INT && v->type != JJ_BOOL) {
        cp_jj_fail(x, "an int is wanted, not %s", cp_jj_type_name(v));
        return false;
    }
    *out = v->type == JJ_INT ? v->u.i : v->u.b;
    return true;
}

bool cp_jj_arg_bool(const cp_val *v, bool def)
{
    return v ? cp_jj_truth(v) : def;
}

/* ---- text ---- */

const cp_val *cp_jj_strip_val(jj_ctx *x, const cp_val *s, const cp_val *set, int sides)
{
    size_t b, e;
    if (set && set->type == JJ_NONE)
        set = NULL;
    if (set && set->type != JJ_STR) {
        cp_jj_fail(x, "strip wants a str, not %s", cp_jj_type_name(set));
        return NULL;
    }
    cp_jj_strip(x, &s->u.s, set ? &set->u.s : NULL, sides, &b, &e);
    return cp_jj_sub(x, s, b, e);
}

const cp_val *cp_jj_replace(jj_ctx *x, const cp_val *s, const cp_val *from, const cp_val *to,
                            int64_t count)
{
    const jj_str *t = &s->u.s;
    jj_sb b = {.a = x->a};
    size_t pos = 0;
    if (from->type != JJ_STR || to->type != JJ_STR) {
        cp_jj_fail(x, "replace wants two strings");
        return NULL;
    }
    if (!from->u.s.n) { /* between all characters */
        for (; count; count -= count > 0) {
            uint32_t cp;
            if (!cp_jj_step(x, 1) || !cp_jj_sb_add_str(x, &b, &to->u.s, 0, to->u.s.n))
                return NULL;
            if (pos >= t->n)
                return cp_jj_sb_take(x, &b);
            size_t k = cp_jj_utf8_next(t->p, t->n, pos, &cp);
            if (!cp_jj_sb_add_str(x, &b, t, pos, pos + k))
                return NULL;
            pos += k;
        }
    }
    for (; from->u.s.n && count; count -= count > 0) {
        size_t at = cp_jj_find(x, t, pos, &from->u.s);
        if (at == t->n)
            break;
        if (!cp_jj_step(x, 1) || !cp_jj_sb_add_str(x, &b, t, pos, at) ||
            !cp_jj_sb_add_str(x, &b, &to->u.s, 0, to->u.s.n))
            return NULL;
        pos = at + from->u.s.n;
    }
    if (!pos && !b.n)
        return s;
    return cp_jj_sb_add_str(x, &b, t, pos, t->n) ? cp_jj_sb_take(x, &b) : NULL;
}

jj_list *cp_jj_lines(jj_ctx *x, const cp_val *s, bool keep_ends)
{
    const jj_str *t = &s->u.s;
    jj_list *l = cp_jj_list_new(x, 0);
    if (!cp_jj_work(x, t->n, JJ_SCAN))
        return NULL;
    for (size_t begin = 0, off = 0; l && off < t->n;) {
        uint32_t cp;
        size_t k = cp_jj_utf8_next(t->p, t->n, off, &cp), end = off;
        off += k;
        if (!cp_jj_is_linebreak(cp) && off < t->n)
            continue;
        if (!cp_jj_is_linebreak(cp))
            end = off;
        if (cp == '\r' && off < t->n && t->p[off] == '\n')
            off++;
        if (!cp_jj_step(x, 1) ||
            !cp_jj_list_push(x, l, cp_jj_sub(x, s, begin, keep_ends ? off : end)))
            return NULL;
        begin = off;
    }
    return l;
}

const cp_val *cp_jj_join(jj_ctx *x, const jj_list *l, const cp_val *sep, bool any)
{
    jj_sb b = {.a = x->a};
    for (size_t i = 0; i < l->n; i++) {
        if (!any && l->v[i]->type != JJ_STR) {
            cp_jj_fail(x, "join wants strings, item %zu is a %s", i, cp_jj_type_name(l->v[i]));
            return NULL;
        }
        if (!cp_jj_step(x, 1) || (i && sep && !cp_jj_sb_str(x, &b, sep)) ||
            !cp_jj_sb_str(x, &b, l->v[i]))
            return NULL;
    }
    return cp_jj_sb_take(x, &b);
}

static const cp_val *cased(jj_ctx *x, const cp_val *v, jj_case how)
{
    v = cp_jj_to_str(x, v);
    return v ? cp_jj_case(x, v, how) : NULL;
}

FILTER(f_upper)
{
    (void)arg, (void)rest;
    return cased(x, v, JJ_UPPER);
}
FILTER(f_lower)
{
    (void)arg, (void)rest;
    return cased(x, v, JJ_LOWER);
}
FILTER(f_capitalize)
{
    (void)arg, (void)rest;
    return cased(x, v, JJ_CAPITALIZE);
}

/* Jinja's title: a word begins behind white space and -({[< only. */
FILTER(f_title)
{
    (void)arg, (void)rest;
    v = cp_jj_to_str(x, v);
    if (!v)
        return NULL;
    const jj_str *s = &v->u.s;
    jj_sb b = {.a = x->a};
    bool first = true, marked = false;
    for (size_t off = 0, end = 0; off < s->n;) {
        uint32_t cp, to[3];
        if (off >= end)
            marked = cp_jj_str_mark(s, off, &end);
        size_t len = cp_jj_utf8_next(s->p, s->n, off, &cp);
        off += len;
        if (!cp_jj_work(x, len, cp < 0x80 ? JJ_WRITE : JJ_MAP))
            return NULL;
        bool gap = cp_jj_is_space(cp) || (cp && cp < 0x80 && strchr("-({[<", (int)cp));
        size_t k = gap ? (to[0] = cp, 1u) : first ? cp_jj_upper(cp, to) : cp_jj_lower(cp, to);
        for (size_t i = 0; i < k; i++) {
            if (!cp_jj_sb_add_cp(x, &b, to[i], marked))
                return NULL;
        }
        first = gap;
    }
    return cp_jj_sb_take(x, &b);
}

FILTER(f_trim)
{
    (void)rest;
    v = cp_jj_to_str(x, v);
    return v ? cp_jj_strip_val(x, v, arg[0], 3) : NULL;
}

FILTER(f_string)
{
    (void)arg, (void)rest;
    return cp_jj_to_str(x, v);
}

FILTER(f_replace)
{
    int64_t count;
    (void)rest;
    v = cp_jj_to_str(x, v);
    const cp_val *from = v && arg[0] ? cp_jj_to_str(x, arg[0]) : NULL;
    const cp_val *to = v && arg[1] ? cp_jj_to_str(x, arg[1]) : NULL;
    if (!v || !cp_jj_arg_int(x, arg[2], -1, &count))
        return NULL;
    if (!from || !to) {
        cp_jj_fail(x, "replace wants what and by what");
        return NULL;
    }
    return cp_jj_replace(x, v, from, to, count);
}

FILTER(f_indent)
{
    (void)rest;
    int64_t width;
    bool first = cp_jj_arg_bool(arg[1], false), blank = cp_jj_arg_bool(arg[2], false);
    const cp_val *pad = arg[0];
    if (v->type != JJ_STR) {
        cp_jj_fail(x, "indent works on a str, not %s", cp_jj_type_name(v));
        return NULL;
    }
    if (!pad || pad->type != JJ_STR) {
        jj_sb spaces = {.a = x->a};
        if (!cp_jj_arg_int(x, pad, 4, &width) ||
            !cp_jj_sb_pad(x, &spaces, " ", 1, width < 0 ? 0 : (size_t)width) ||
            !(pad = cp_jj_sb_take(x, &spaces)))
            return NULL;
    }
    const cp_val *newline = cp_jj_str(x, "\n", 1);
    v = newline ? cp_jj_concat(x, v, newline) : NULL;
    jj_list *lines = v ? cp_jj_lines(x, v, false) : NULL;
    jj_sb b = {.a = x->a};
    bool ok = lines != NULL;
    for (size_t i = 0; ok && i < lines->n; i++) {
        const jj_str *line = &lines->v[i]->u.s;
        ok = (!i || cp_jj_sb_adds(x, &b, "\n")) && cp_jj_step(x, 1);
        if (i ? blank || line->n : first)
            ok = ok && cp_jj_sb_add_str(x, &b, &pad->u.s, 0, pad->u.s.n);
        ok = ok && cp_jj_sb_add_str(x, &b, line, 0, line->n);
    }
    return ok ? cp_jj_sb_take(x, &b) : NULL;
}

FILTER(f_center)
{
    int64_t width;
    (void)rest;
    v = cp_jj_to_str(x, v);
    if (!v || !cp_jj_arg_int(x, arg[0], 80, &width))
        return NULL;
    int64_t pad = width - (int64_t)cp_jj_str_len_cp(x, &v->u.s);
    if (pad <= 0)
        return v;
    size_t left = (size_t)(pad / 2 + (pad & width & 1));
    jj_sb b = {.a = x->a};
    bool ok = cp_jj_sb_pad(x, &b, " ", 1, left) && cp_jj_sb_add_str(x, &b, &v->u.s, 0, v->u.s.n) &&
              cp_jj_sb_pad(x, &b, " ", 1, (size_t)pad - left);
    return ok ? cp_jj_sb_take(x, &b) : NULL;
}

FILTER(f_format)
{
    (void)arg;
    v = cp_jj_to_str(x, v);
    if (!v)
        return NULL;
    if (rest->n_pos && rest->n_kw) {
        cp_jj_fail(x, "format takes positional or keyword arguments, not both");
        return NULL;
    }
    if (rest->n_kw) {
        jj_dict *d = cp_jj_dict_new(x);
        for (size_t i = 0; d && i < rest->n_kw; i++)
            cp_jj_dict_set(x, d, rest->kw[i].name, rest->kw[i].val);
        const cp_val *args = cp_jj_dict(x, JJ_DICT, d);
        return args ? cp_jj_printf(x, &v->u.s, args) : NULL;
    }
    jj_list *l = cp_jj_list_new(x, rest->n_pos);
    for (size_t i = 0; l && i < rest->n_pos; i++)
        cp_jj_list_push(x, l, rest->pos[i]);
    const cp_val *args = cp_jj_list(x, JJ_TUPLE, l);
    return args ? cp_jj_printf(x, &v->u.s, args) : NULL;
}

FILTER(f_escape)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    (void)arg, (void)rest;
    v = cp_jj_to_str(x, v);
    if (!v || !cp_jj_work(x, v->u.s.n, JJ_SCAN))
        return NULL;
    const jj_str *s = &v->u.s;
    jj_sb b = {.a = x->a};
    size_t begin = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *q = s->p[i] ? strchr(from, s->p[i]) : NULL;
        size_t end;
        if (!q)
            continue;
        bool marked = cp_jj_str_mark(s, i, &end);
        if (!cp_jj_sb_add_str(x, &b, s, begin, i) ||
            !cp_jj_sb_add(x, &b, to[q - from], strlen(to[q - from]), marked))
            return NULL;
        begin = i + 1;
    }
    return cp_jj_sb_add_str(x, &b, s, begin, s->n) ? cp_jj_sb_take(x, &b) : NULL;
}

/* ---- numbers ---- */

/* Digits with single underscores between them, as Python's int() and float() read text;
 * NUL-terminated in out. */
static bool clean_number(jj_ctx *x, const jj_str *s, char *out, size_t cap)
{
    size_t b, e, n = 0;
    cp_jj_strip(x, s, NULL, 3, &b, &e);
    if (x->code != CP_OK || e - b + 1 > cap || b == e)
        return false;
    for (size_t i = b; i < e; i++) {
        char c = s->p[i];
        if (c == '_') {
            if (i == b || i + 1 == e || !isalnum((unsigned char)s->p[i - 1]) ||
                !isalnum((unsigned char)s->p[i + 1]))
                return false;
            continue;
        }
        if (!c || isspace((unsigned char)c))
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

bool cp_jj_parse_int(jj_ctx *x, const jj_str *s, int base, int64_t *out)
{
    char text[80], *end;
    if (!clean_number(x, s, text, sizeof(text)))
        return false;
    char *digits = text + (text[0] == '-' || text[0] == '+');
    if (!isalnum((unsigned char)*digits))
        return false;
    if (digits[0] == '0' && isalpha((unsigned char)digits[1])) {
        char p = (char)tolower((unsigned char)digits[1]);
        int has = p == 'x' ? 16 : p == 'o' ? 8 : p == 'b' ? 2 : 0;
        if (has && (base == has || base == 0)) {
            memmove(digits, digits + 2, strlen(digits + 2) + 1);
            base = has;
        }
    } else if (base == 0) {
        base = 10;
    }
    if (base < 2 || base > 36 || !isalnum((unsigned char)*digits) ||
        (base == 16 && tolower((unsigned char)digits[1]) == 'x'))
        return false;
    errno = 0;
    long long v = strtoll(text, &end, base);
    *out = v;
    return !*end && errno == 0;
}

bool cp_jj_parse_float(jj_ctx *x, const jj_str *s, double *out)
{
    char text[400], *end;
    if (!clean_number(x, s, text, sizeof(text)) || strpbrk(text, "xXpP(") ||
        !cp_jj_step(x, JJ_FLOAT_STEPS))
        return false;
    *out = strtod(text, &end);
    return !*end;
}

FILTER(f_int)
{
    int64_t def, base, i;
    double f;
    (void)rest;
    if (!cp_jj_arg_int(x, arg[0], 0, &def) || !cp_jj_arg_int(x, arg[1], 10, &base))
        return NULL;
    const cp_val *fallback = arg[0] ? arg[0] : cp_jj_int(x, 0);
    if (v->type == JJ_INT)
        return v;
    if (v->type == JJ_BOOL)
        return cp_jj_int(x, v->u.b);
    if (v->type == JJ_STR &&
        cp_jj_parse_int(x, &v->u.s, base >= 0 && base <= 36 ? (int)base : -1, &i))
        return cp_jj_int(x, i);
    if (v->type == JJ_STR ? cp_jj_parse_float(x, &v->u.s, &f)
                          : v->type == JJ_FLOAT && ((f = v->u.f), true)) {
        if (isnan(f) || (v->type == JJ_STR && isinf(f)))
            return fallback;
        if (!(fabs(f) < 9.2e18)) {
            cp_jj_fail(x, "integer overflow (64 bits)");
            return NULL;
        }
        return cp_jj_int(x, (int64_t)f);
    }
    if (v->type == JJ_UNDEF) {
        cp_jj_fail(x, "%.*s", (int)v->u.s.n, v->u.s.p);
        return NULL;
    }
    return fallback;
}

FILTER(f_float)
{
    double f;
    (void)rest;
    if (v->type == JJ_FLOAT)
        return v;
    if (v->type == JJ_INT || v->type == JJ_BOOL)
        return cp_jj_float(x, v->type == JJ_INT ? (double)v->u.i : (double)v->u.b);
    if (v->type == JJ_STR && cp_jj_parse_float(x, &v->u.s, &f))
        return cp_jj_float(x, f);
    if (v->type == JJ_UNDEF) {
        cp_jj_fail(x, "%.*s", (int)v->u.s.n, v->u.s.p);
        return NULL;
    }
    return arg[0] ? arg[0] : cp_jj_float(x, 0.0);
}

FILTER(f_abs)
{
    (void)arg, (void)rest;
    if (v->type == JJ_FLOAT)
        return cp_jj_float(x, fabs(v->u.f));
    if (v->type == JJ_BOOL || (v->type == JJ_INT && v->u.i >= 0))
        return cp_jj_negate(x, v, false);
    return cp_jj_negate(x, v, true);
}

/* An int to tens, hundreds, ...: ties to even. */
static const cp_val *round_tens(jj_ctx *x, int64_t v, int64_t digits)
{
    int64_t p = 1, r;
    for (; digits < 0; digits++) {
        if (__builtin_mul_overflow(p, 10, &p))
            return cp_jj_int(x, 0);
    }
    int64_t q = v / p, rest = v % p, mag = rest < 0 ? -rest : rest;
    if (mag > p - mag || (mag == p - mag && q % 2 != 0))
        q += v < 0 ? -1 : 1;
    if (__builtin_mul_overflow(q, p, &r)) {
        cp_jj_fail(x, "integer overflow (64 bits)");
        return NULL;
    }
    return cp_jj_int(x, r);
}

/* Correct rounding of the decimal form, ties to even, as Python's round(). */
static const cp_val *round_common(jj_ctx *x, const cp_val *v, int64_t digits)
{
    char text[400];
    if (v->type != JJ_FLOAT && digits >= 0)
        return cp_jj_negate(x, v, false);
    if (v->type != JJ_FLOAT)
        return round_tens(x, v->type == JJ_INT ? v->u.i : v->u.b, digits);
    if (!isfinite(v->u.f) || digits > 40)
        return v;
    if (!cp_jj_step(x, JJ_FLOAT_STEPS))
        return NULL;
    if (digits < 0) {
        double p = pow(10.0, (double)-digits);
        return cp_jj_float(x, isfinite(p) ? nearbyint(v->u.f / p) * p : 0.0);
    }
    cp_snprintf(text, sizeof(text), "%.*f", (int)digits, v->u.f);
    return cp_jj_float(x, strtod(text, NULL));
}

FILTER(f_round)
{
    int64_t digits;
    (void)rest;
    if (v->type != JJ_FLOAT && v->type != JJ_INT && v->type != JJ_BOOL)
        return cp_jj_negate(x, v, false); /* says what is wrong */
    if (!cp_jj_arg_int(x, arg[0], 0, &digits))
        return NULL;
    if (!arg[1] || (arg[1]->type == JJ_STR && cp_jj_str_is(&arg[1]->u.s, "common")))
        return round_common(x, v, digits);
    bool ceiling = arg[1]->type == JJ_STR && cp_jj_str_is(&arg[1]->u.s, "ceil");
    if (!ceiling && !(arg[1]->type == JJ_STR && cp_jj_str_is(&arg[1]->u.s, "floor"))) {
        cp_jj_fail(x, "round: the method is common, ceil or floor");
        return NULL;
    }
    double f = v->type == JJ_FLOAT ? v->u.f : v->type == JJ_INT ? (double)v->u.i : (double)v->u.b;
    double p = pow(10.0, (double)digits), g = f * p;
    if (!isfinite(g)) {
        cp_jj_fail(x, "round: out of range");
        return NULL;
    }
    return cp_jj_float(x, (ceiling ? ceil(g) : floor(g)) / p);
}

/* ---- the rest ---- */

FILTER(f_default)
{
    (void)x, (void)rest;
    if (v->type == JJ_UNDEF || (cp_jj_arg_bool(arg[1], false) && !cp_jj_truth(v)))
        return arg[0] ? arg[0] : &cp_jj_empty;
    return v;
}

FILTER(f_safe)
{
    (void)arg, (void)rest;
    return cp_jj_to_str(x, v);
}

FILTER(f_attr)
{
    (void)rest;
    if (!arg[0] || arg[0]->type != JJ_STR) {
        cp_jj_fail(x, "attr wants a name");
        return NULL;
    }
    if (v->type == JJ_DICT) /* attributes only, no items */
        return cp_jj_method_find(JJ_DICT, &arg[0]->u.s) ? cp_jj_getattr(x, v, arg[0])
                                                        : cp_jj_undefined(x, "no such attribute");
    return cp_jj_getattr(x, v, arg[0]);
}

FILTER(f_length)
{
    size_t n;
    (void)arg, (void)rest;
    if (cp_jj_len(x, v, &n))
        return cp_jj_int(x, (int64_t)n);
    cp_jj_fail(x, "a %s has no length", cp_jj_type_name(v));
    return NULL;
}

FILTER(f_tojson)
{
    jj_json_opts o = {.ensure_ascii = cp_jj_arg_bool(arg[0], false),
                      .sort_keys = cp_jj_arg_bool(arg[3], false)};
    jj_sb b = {.a = x->a};
    const cp_val *indent = arg[1];
    int64_t n;
    (void)rest;
    if (indent && indent->type != JJ_NONE && indent->type != JJ_STR) {
        jj_sb spaces = {.a = x->a};
        if (!cp_jj_arg_int(x, indent, 0, &n) ||
            !cp_jj_sb_pad(x, &spaces, " ", 1, n < 0 ? 0 : (size_t)n) ||
            !(indent = cp_jj_sb_take(x, &spaces)))
            return NULL;
    }
    if (indent && indent->type == JJ_STR)
        o.indent = &indent->u.s;
    if (arg[2] && arg[2]->type != JJ_NONE) {
        jj_list *l = cp_jj_items(x, arg[2]);
        if (l && (l->n != 2 || l->v[0]->type != JJ_STR || l->v[1]->type != JJ_STR))
            cp_jj_fail(x, "tojson: separators are two strings");
        if (x->code != CP_OK)
            return NULL;
        o.item_sep = &l->v[0]->u.s;
        o.key_sep = &l->v[1]->u.s;
    }
    return cp_jj_sb_json(x, &b, v, &o) ? cp_jj_sb_take(x, &b) : NULL;
}

FILTER(f_from_json)
{
    (void)arg, (void)rest;
    if (v->type != JJ_STR) {
        cp_jj_fail(x, "from_json works on a str, not %s", cp_jj_type_name(v));
        return NULL;
    }
    return cp_jj_json_parse(x, &v->u.s);
}

const jj_fn_row *cp_jj_filter_find(const jj_str *name)
{
    static const jj_fn_row rows[] = {
        {"abs", "", f_abs},
        {"attr", "name", f_attr},
        {"capitalize", "", f_capitalize},
        {"center", "width", f_center},
        {"count", "", f_length},
        {"d", "default_value boolean", f_default},
        {"default", "default_value boolean", f_default},
        {"e", "", f_escape},
        {"escape", "", f_escape},
        {"float", "default", f_float},
        {"forceescape", "", f_escape},
        {"format", "*", f_format},
        {"from_json", "", f_from_json},
        {"fromjson", "", f_from_json},
        {"indent", "width first blank", f_indent},
        {"int", "default base", f_int},
        {"length", "", f_length},
        {"lower", "", f_lower},
        {"replace", "old new count", f_replace},
        {"round", "precision method", f_round},
        {"safe", "", f_safe},
        {"string", "", f_string},
        {"title", "", f_title},
        {"tojson", "ensure_ascii indent separators sort_keys", f_tojson},
        {"trim", "chars", f_trim},
        {"upper", "", f_upper},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (cp_jj_str_is(name, rows[i].name))
            return &rows[i];
    }
    return cp_jj_seq_find(name);
}
