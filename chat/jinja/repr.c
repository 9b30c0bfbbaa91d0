/*
 * str() and repr() of every value, as Python prints them: True, None, 1.0, 1e-05, ['a', 1], {'k':
 * (1,)}.
 */
#include "chat/jinja/interp.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Shortest digits that read back as f; scientific below 1e-4 and from 1e16 on, as Python's repr
 * does. */
size_t cp_jj_float_repr(double f, char out[40])
{
    if (isnan(f))
        return cp_snprintf(out, 40, "nan");
    if (isinf(f))
        return cp_snprintf(out, 40, f < 0 ? "-inf" : "inf");
    char text[40];
    /* 15 digits of a normal number survive the way there and back, so what is shorter shows as
     * zeros at the end. */
    for (int prec = fabs(f) < DBL_MIN ? 0 : 14; prec < 17; prec++) {
        cp_snprintf(text, sizeof(text), "%.*e", prec, f);
        if (strtod(text, NULL) == f)
            break;
    }
    /* text is [-]d[.ddd]e[+-]xx: take it apart. */
    bool neg = text[0] == '-';
    char digits[20];
    size_t n = 0;
    const char *p = text + neg;
    for (; *p && *p != 'e'; p++) {
        if (*p != '.' && n < sizeof(digits) - 1)
            digits[n++] = *p;
    }
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    int exp = (int)strtol(p + 1, NULL, 10);
    const char *sign = neg ? "-" : "";
    if (exp < -4 || exp >= 16)
        return cp_snprintf(out, 40, "%s%c%s%se%c%02d", sign, digits[0], n > 1 ? "." : "",
                           digits + 1, exp < 0 ? '-' : '+', abs(exp));
    if (exp < 0)
        return cp_snprintf(out, 40, "%s0.%.*s%s", sign, -exp - 1, "0000", digits);
    if ((size_t)exp + 1 >= n)
        return cp_snprintf(out, 40, "%s%s%.*s.0", sign, digits, exp + 1 - (int)n,
                           "0000000000000000");
    return cp_snprintf(out, 40, "%s%.*s.%s", sign, exp + 1, digits, digits + exp + 1);
}

/* repr of a string: single quotes unless it holds one and no double; escapes what is not printable.
 */
static bool repr_str(jj_ctx *x, jj_sb *b, const jj_str *s)
{
    bool single = s->n && memchr(s->p, '\'', s->n), dbl = s->n && memchr(s->p, '"', s->n);
    char quote = single && !dbl ? '"' : '\'';
    bool ok = cp_jj_work(x, s->n, JJ_WRITE) && cp_jj_sb_add(x, b, &quote, 1, false), marked = false;
    for (size_t off = 0, end = 0; ok && off < s->n;) {
        uint32_t cp;
        char esc[16];
        size_t k = 0;
        if (off >= end)
            marked = cp_jj_str_mark(s, off, &end);
        size_t len = cp_jj_utf8_next(s->p, s->n, off, &cp);
        if (cp == '\\' || cp == (unsigned char)quote)
            k = cp_snprintf(esc, sizeof(esc), "\\%c", (int)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            k = cp_snprintf(esc, sizeof(esc), "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (cp < 0x110000 && !cp_jj_is_printable(cp))
            k = cp_snprintf(esc, sizeof(esc),
                            cp < 0x100     ? "\\x%02x"
                            : cp < 0x10000 ? "\\u%04x"
                                           : "\\U%08x",
                            cp);
        ok = k ? cp_jj_work(x, 2, JJ_PIECE) && cp_jj_sb_add(x, b, esc, k, marked)
               : cp_jj_sb_add(x, b, s->p + off, len, marked);
        off += len;
    }
    return ok && cp_jj_sb_add(x, b, &quote, 1, false);
}

static bool repr_at(jj_ctx *x, jj_sb *b, const cp_val *v, int depth);

static bool repr_items(jj_ctx *x, jj_sb *b, const jj_list *l, const char *open, const char *close,
                       int depth)
{
    bool ok = cp_jj_sb_adds(x, b, open);
    for (size_t i = 0; ok && i < l->n; i++)
        ok = (!i || cp_jj_sb_adds(x, b, ", ")) && repr_at(x, b, l->v[i], depth + 1);
    return ok && cp_jj_sb_adds(x, b, close);
}

static bool repr_dict(jj_ctx *x, jj_sb *b, const jj_dict *d, int depth)
{
    bool ok = cp_jj_work_items(x, d->n) && cp_jj_sb_adds(x, b, "{");
    for (size_t i = 0; ok && i < d->n; i++) {
        const jj_entry *e = &d->e[i];
        ok = (!i || cp_jj_sb_adds(x, b, ", ")) && repr_at(x, b, e->key, depth + 1) &&
             cp_jj_sb_adds(x, b, ": ") && repr_at(x, b, e->val, depth + 1);
    }
    return ok && cp_jj_sb_adds(x, b, "}");
}

static bool repr_view(jj_ctx *x, jj_sb *b, const cp_val *v, int depth)
{
    jj_list *l = cp_jj_dict_list(x, v->u.view.dict, v->u.view.kind);
    return l && cp_jj_sb_adds(x, b, cp_jj_type_name(v)) && repr_items(x, b, l, "([", "])", depth);
}

static bool repr_at(jj_ctx *x, jj_sb *b, const cp_val *v, int depth)
{
    char text[120];
    if (!cp_jj_step(x, 1))
        return false;
    if (depth > JJ_MAX_DEPTH) {
        cp_jj_fail(x, "a printed value is nested too deeply (limit %d)", JJ_MAX_DEPTH);
        return false;
    }
    switch (v->type) {
    case JJ_UNDEF:
        return cp_jj_sb_adds(x, b, "Undefined");
    case JJ_NONE:
        return cp_jj_sb_adds(x, b, "None");
    case JJ_BOOL:
        return cp_jj_sb_adds(x, b, v->u.b ? "True" : "False");
    case JJ_INT:
        return cp_jj_sb_add(x, b, text, cp_snprintf(text, sizeof(text), "%lld", (long long)v->u.i),
                            false);
    case JJ_FLOAT:
        return cp_jj_step(x, JJ_FLOAT_STEPS) &&
               cp_jj_sb_add(x, b, text, cp_jj_float_repr(v->u.f, text), false);
    case JJ_STR:
        return repr_str(x, b, &v->u.s);
    case JJ_LIST:
        return repr_items(x, b, v->u.list, "[", "]", depth);
    case JJ_TUPLE:
        return repr_items(x, b, v->u.list, "(", v->u.list->n == 1 ? ",)" : ")", depth);
    case JJ_DICT:
        return repr_dict(x, b, v->u.dict, depth);
    case JJ_NS:
        return cp_jj_sb_adds(x, b, "<Namespace ") && repr_dict(x, b, v->u.dict, depth) &&
               cp_jj_sb_adds(x, b, ">");
    case JJ_VIEW:
        return repr_view(x, b, v, depth);
    case JJ_RANGE: {
        long long start = v->u.range.start, stop = v->u.range.stop, step = v->u.range.step;
        size_t k = step == 1 ? cp_snprintf(text, sizeof(text), "range(%lld, %lld)", start, stop)
                             : cp_snprintf(text, sizeof(text), "range(%lld, %lld, %lld)", start,
                                           stop, step);
        return cp_jj_sb_add(x, b, text, k, false);
    }
    case JJ_MACRO:
        return cp_jj_sb_adds(x, b, "<Macro ") && repr_str(x, b, &v->u.macro.node->val->u.s) &&
               cp_jj_sb_adds(x, b, ">");
    default:
        return cp_jj_sb_add(x, b, text, cp_snprintf(text, sizeof(text), "<%s>", cp_jj_type_name(v)),
                            false);
    }
}

bool cp_jj_sb_repr(jj_ctx *x, jj_sb *b, const cp_val *v)
{
    return repr_at(x, b, v, 0);
}

bool cp_jj_sb_str(jj_ctx *x, jj_sb *b, const cp_val *v)
{
    if (v->type == JJ_STR)
        return cp_jj_sb_add_str(x, b, &v->u.s, 0, v->u.s.n);
    return v->type == JJ_UNDEF || repr_at(x, b, v, 0);
}

const cp_val *cp_jj_to_str(jj_ctx *x, const cp_val *v)
{
    if (v->type == JJ_STR)
        return v;
    jj_sb b = {.a = x->a};
    return cp_jj_sb_str(x, &b, v) ? cp_jj_sb_take(x, &b) : NULL;
}
