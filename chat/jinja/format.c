/*
 * Python's two formatting languages: "%-5s|%03d" % args and "{:>5} {0.name!r}".format(...). Marks
 * of string arguments and of the format text are kept; digits are unmarked. Widths count code
 * points and are bounded.
 */
#include "chat/jinja/interp.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WIDTH = 100000, MAX_PREC = 100, MAX_NUMBER_TEXT = 512 };

typedef struct spec {
    char fill[4];
    size_t n_fill;
    char align; /* '<' '>' '^' '=' or 0 */
    char sign;  /* '+' ' ' '-' */
    bool alt;
    char grouping; /* ',' '_' or 0 */
    int64_t width; /* 0: none */
    int prec;      /* -1: none */
    char type;     /* 0: none */
} spec;

static bool bad(jj_ctx *x, const char *what)
{
    cp_jj_fail(x, "format: %s", what);
    return false;
}

/* Append body (n_cp code points) padded to the width; zero padding goes behind the first `head`
 * bytes. */
static bool put_padded(jj_ctx *x, jj_sb *out, const jj_str *body, const spec *s, char align,
                       size_t head)
{
    size_t n = cp_jj_str_len_cp(x, body);
    size_t pad = s->width > (int64_t)n ? (size_t)s->width - n : 0;
    const char *fill = s->n_fill ? s->fill : " ";
    size_t n_fill = s->n_fill ? s->n_fill : 1;
    size_t left = align == '>' || align == '=' ? pad : align == '^' ? pad / 2 : 0;
    if (align != '=')
        head = 0;
    return cp_jj_sb_add_str(x, out, body, 0, head) && cp_jj_sb_pad(x, out, fill, n_fill, left) &&
           cp_jj_sb_add_str(x, out, body, head, body->n) &&
           cp_jj_sb_pad(x, out, fill, n_fill, pad - left);
}

static bool put_str(jj_ctx *x, jj_sb *out, const jj_str *s, const spec *f, char def_align)
{
    jj_str cut = *s;
    if (f->prec >= 0) {
        cut.n = cp_jj_str_off_cp(x, s, (size_t)f->prec);
        cut.blk = NULL;
    }
    return put_padded(x, out, &cut, f, f->align ? f->align : def_align, 0);
}

/* Digits of v in a base, backwards into the end of buf; returns where they begin. */
static char *int_digits(char *end, uint64_t v, unsigned base, bool upper)
{
    const char *set = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    do {
        *--end = set[v % base];
        v /= base;
    } while (v);
    return end;
}

/* Copy digits with a separator every `every` of them, counted from the end of the integer part. */
static size_t group_digits(const char *d, size_t n, char sep, size_t every, char *out)
{
    size_t whole = 0, o = 0;
    while (whole < n && isxdigit((unsigned char)d[whole]))
        whole++;
    for (size_t i = 0; i < n; i++) {
        if (i && i < whole && (whole - i) % every == 0)
            out[o++] = sep;
        out[o++] = d[i];
    }
    return o;
}

/* sign + prefix + digits, padded. digits: [d, d + n). */
static bool put_number(jj_ctx *x, jj_sb *out, bool neg, const char *prefix, const char *d, size_t n,
                       const spec *f)
{
    char text[2 * MAX_NUMBER_TEXT + 8];
    size_t head = 0;
    if (neg || f->sign == '+' || f->sign == ' ')
        text[head++] = neg ? '-' : f->sign;
    for (; *prefix; prefix++)
        text[head++] = *prefix;
    size_t total = head;
    if (n > MAX_NUMBER_TEXT)
        return bad(x, "a number is too long");
    if (f->grouping) {
        total += group_digits(d, n, f->grouping, strchr("xXob", f->type) && f->type ? 4 : 3,
                              text + head);
    } else {
        memcpy(text + head, d, n);
        total += n;
    }
    jj_str s = {.p = text, .n = total};
    return put_padded(x, out, &s, f, f->align ? f->align : '>', head);
}

static bool put_int(jj_ctx *x, jj_sb *out, int64_t v, const spec *f)
{
    char buf[MAX_NUMBER_TEXT], *end = buf + sizeof(buf);
    unsigned base = f->type == 'x' || f->type == 'X' ? 16
                    : f->type == 'o'                 ? 8
                    : f->type == 'b'                 ? 2
                                                     : 10;
    const char *prefix = "";
    if (f->alt && base != 10)
        prefix = f->type == 'x' ? "0x" : f->type == 'X' ? "0X" : f->type == 'o' ? "0o" : "0b";
    uint64_t mag = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    char *d = int_digits(end, mag, base, f->type == 'X');
    while (f->prec >= 0 && end - d < f->prec)
        *--d = '0';
    return put_number(x, out, v < 0, prefix, d, (size_t)(end - d), f);
}

/* Precision without a type: significant digits, with a digit behind the point unless an exponent is
 * shown. */
static size_t general(char *buf, size_t cap, double mag, int prec)
{
    size_t n = cp_snprintf(buf, cap, "%.*e", prec - 1, mag);
    char *e = strchr(buf, 'e');
    if (!e)
        return n; /* inf, nan */
    long exp = strtol(e + 1, NULL, 10);
    if (exp >= -4 && exp < prec - 1) {
        n = cp_snprintf(buf, cap, "%.*g", prec, mag);
        return strchr(buf, '.') ? n : n + cp_snprintf(buf + n, cap - n, ".0");
    }
    char *last = e;
    while (last > buf + 1 && last[-1] == '0' && strchr(buf, '.'))
        last--;
    if (last[-1] == '.')
        last--;
    memmove(last, e, strlen(e) + 1);
    return strlen(buf);
}

static bool put_float(jj_ctx *x, jj_sb *out, double v, const spec *f)
{
    char buf[MAX_NUMBER_TEXT];
    char type = (char)tolower((unsigned char)f->type);
    int prec = f->prec >= 0 ? f->prec : 6;
    bool neg = signbit(v) != 0;
    double mag = fabs(v) * (type == '%' ? 100.0 : 1.0);
    size_t n;
    if (!cp_jj_step(x, JJ_FLOAT_STEPS))
        return false;
    if (isnan(v))
        neg = false;
    if (type == 'f' || type == '%')
        n = cp_snprintf(buf, sizeof(buf) - 2, "%.*f", prec, mag);
    else if (type == 'e')
        n = cp_snprintf(buf, sizeof(buf) - 2, "%.*e", prec, mag);
    else if (type == 'g')
        n = cp_snprintf(buf, sizeof(buf) - 2, "%.*g", prec ? prec : 1, mag);
    else if (f->prec >= 0)
        n = general(buf, sizeof(buf) - 2, mag, prec ? prec : 1);
    else
        n = cp_jj_float_repr(mag, buf);
    if (type == '%')
        buf[n++] = '%';
    if (isupper((unsigned char)f->type)) {
        for (size_t i = 0; i < n; i++)
            buf[i] = (char)toupper((unsigned char)buf[i]);
    }
    return put_number(x, out, neg, "", buf, n, f);
}

/* ---- % ---- */

typedef struct printf_args {
    const cp_val *all;
    const cp_val *const *v;
    size_t n, next;
} printf_args;

static const cp_val *next_arg(jj_ctx *x, printf_args *a)
{
    if (a->next < a->n)
        return a->v[a->next++];
    bad(x, "not enough arguments for the format string");
    return NULL;
}

/* A decimal number at *p or, for '*', the next argument. */
static bool printf_count(jj_ctx *x, const jj_str *fmt, size_t *p, printf_args *a, int64_t max,
                         int64_t *out)
{
    int64_t v = 0;
    if (*p < fmt->n && fmt->p[*p] == '*') {
        const cp_val *arg = next_arg(x, a);
        ++*p;
        if (!arg || arg->type != JJ_INT)
            return bad(x, "* wants an int");
        v = arg->u.i;
    } else {
        for (; *p < fmt->n && isdigit((unsigned char)fmt->p[*p]) && v <= max; ++*p)
            v = v * 10 + (fmt->p[*p] - '0');
    }
    if (v > max || v < -max)
        return bad(x, "a width or precision is too large");
    *out = v;
    return true;
}

static bool printf_number(jj_ctx *x, jj_sb *out, const cp_val *v, const spec *f)
{
    bool is_int = strchr("diuoxX", f->type) != NULL;
    double d = 0.0;
    int64_t i = 0;
    if (v->type == JJ_FLOAT) {
        d = v->u.f;
        if (is_int && !(fabs(d) < 9.2e18))
            return bad(x, "the number does not fit an int");
        i = is_int ? (int64_t)d : 0;
        if (is_int && strchr("oxX", f->type))
            return bad(x, "an int is required");
    } else if (v->type == JJ_INT || v->type == JJ_BOOL) {
        i = v->type == JJ_INT ? v->u.i : v->u.b;
        d = (double)i;
    } else {
        cp_jj_fail(x, "format: %%%c wants a number, not %s", f->type, cp_jj_type_name(v));
        return false;
    }
    return is_int ? put_int(x, out, i, f) : put_float(x, out, d, f);
}

static bool printf_one(jj_ctx *x, jj_sb *out, const cp_val *v, spec *f)
{
    if (strchr("diuoxXeEfFgG", f->type)) {
        if (f->type == 'i' || f->type == 'u')
            f->type = 'd';
        return printf_number(x, out, v, f);
    }
    if (f->align == '=') { /* zero padding is for numbers */
        f->align = '>';
        f->n_fill = 0;
    }
    jj_sb b = {.a = x->a};
    bool ok;
    if (f->type == 'c' && v->type == JJ_INT && v->u.i >= 0 && v->u.i < 0x110000)
        ok = cp_jj_sb_add_cp(x, &b, (uint32_t)v->u.i, false);
    else if (f->type == 'c' && (v->type != JJ_STR || cp_jj_str_len_cp(x, &v->u.s) != 1))
        return bad(x, "%c wants a character");
    else
        ok = f->type == 'r' || f->type == 'a' ? cp_jj_sb_repr(x, &b, v) : cp_jj_sb_str(x, &b, v);
    const cp_val *s = ok ? cp_jj_sb_take(x, &b) : NULL;
    return s && put_str(x, out, &s->u.s, f, '>');
}

/* One conversion at *p (behind the %). */
static bool printf_spec(jj_ctx *x, jj_sb *out, const jj_str *fmt, size_t *p, printf_args *a)
{
    spec f = {.prec = -1, .sign = '-'};
    const cp_val *named = NULL;
    int64_t n;
    if (*p < fmt->n && fmt->p[*p] == '(') {
        const char *close = memchr(fmt->p + *p, ')', fmt->n - *p);
        if (!close || a->all->type != JJ_DICT)
            return bad(x, close ? "%(name) needs a mapping" : "%( without )");
        size_t key = *p + 1, len = (size_t)(close - fmt->p) - key;
        named = cp_jj_dict_gets(x, a->all->u.dict, fmt->p + key, len);
        if (!named)
            return x->code == CP_OK && bad(x, "a named argument is missing");
        *p = key + len + 1;
        a->next = a->n;
    }
    bool left = false;
    for (; *p < fmt->n && fmt->p[*p] && strchr("-+ #0", fmt->p[*p]); ++*p) {
        char c = fmt->p[*p];
        left = left || c == '-';
        f.alt = f.alt || c == '#';
        if (c == '+' || (c == ' ' && f.sign != '+'))
            f.sign = c;
        if (c == '0') {
            f.align = '=';
            f.fill[0] = '0';
            f.n_fill = 1;
        }
    }
    if (!printf_count(x, fmt, p, a, MAX_WIDTH, &f.width))
        return false;
    left = left || f.width < 0;
    f.width = f.width < 0 ? -f.width : f.width;
    if (left) {
        f.align = '<';
        f.n_fill = 0;
    }
    if (*p < fmt->n && fmt->p[*p] == '.') {
        ++*p;
        if (!printf_count(x, fmt, p, a, MAX_PREC, &n))
            return false;
        f.prec = n < 0 ? 0 : (int)n;
    }
    while (*p < fmt->n && fmt->p[*p] && strchr("hlL", fmt->p[*p]))
        ++*p;
    f.type = *p < fmt->n ? fmt->p[(*p)++] : '\0';
    if (f.type == '%')
        return cp_jj_sb_adds(x, out, "%");
    if (!f.type || !strchr("diuoxXeEfFgGcrsa", f.type))
        return bad(x, "unsupported conversion");
    const cp_val *v = named ? named : next_arg(x, a);
    return v && printf_one(x, out, v, &f);
}

const cp_val *cp_jj_printf(jj_ctx *x, const jj_str *fmt, const cp_val *args)
{
    printf_args a = {.all = args, .v = &args, .n = 1};
    jj_sb out = {.a = x->a};
    if (args->type == JJ_TUPLE) {
        a.v = args->u.list->v;
        a.n = args->u.list->n;
    }
    if (!cp_jj_work(x, fmt->n,
                    JJ_SCAN)) /* names, flags and widths; what is copied pays for itself */
        return NULL;
    for (size_t p = 0; p < fmt->n;) {
        const char *pct = memchr(fmt->p + p, '%', fmt->n - p);
        size_t end = pct ? (size_t)(pct - fmt->p) : fmt->n;
        if (!cp_jj_step(x, 1) || !cp_jj_sb_add_str(x, &out, fmt, p, end))
            return NULL;
        p = end + 1;
        if (pct && !printf_spec(x, &out, fmt, &p, &a))
            return NULL;
    }
    bool subscript = args->type == JJ_DICT || args->type == JJ_LIST || args->type == JJ_RANGE ||
                     args->type == JJ_UNDEF; /* counts as a mapping, which may go unused */
    if (a.next < a.n && !subscript) {
        bad(x, "not all arguments converted");
        return NULL;
    }
    return cp_jj_sb_take(x, &out);
}

/* ---- str.format ---- */

typedef struct fields {
    jj_ctx *x;
    const jj_args *args;
    size_t next;
} fields;

static bool parse_spec(jj_ctx *x, const jj_str *t, spec *f)
{
    size_t p = 0;
    uint32_t cp;
    *f = (spec){.prec = -1, .sign = '-'};
    size_t k = t->n ? cp_jj_utf8_next(t->p, t->n, 0, &cp) : 0;
    if (k && k < t->n && t->p[k] && strchr("<>^=", t->p[k])) {
        memcpy(f->fill, t->p, k);
        f->n_fill = k;
        f->align = t->p[k];
        p = k + 1;
    } else if (t->n && t->p[0] && strchr("<>^=", t->p[0])) {
        f->align = t->p[0];
        p = 1;
    }
    if (p < t->n && t->p[p] && strchr("+- ", t->p[p]))
        f->sign = t->p[p++];
    if (p < t->n && t->p[p] == '#') {
        f->alt = true;
        p++;
    }
    if (p < t->n && t->p[p] == '0') {
        if (!f->align)
            f->align = '=';
        if (!f->n_fill) {
            f->fill[0] = '0';
            f->n_fill = 1;
        }
        p++;
    }
    for (; p < t->n && isdigit((unsigned char)t->p[p]) && f->width <= MAX_WIDTH; p++)
        f->width = f->width * 10 + (t->p[p] - '0');
    if (p < t->n && (t->p[p] == ',' || t->p[p] == '_'))
        f->grouping = t->p[p++];
    if (p < t->n && t->p[p] == '.') {
        size_t from = ++p;
        f->prec = 0;
        for (; p < t->n && isdigit((unsigned char)t->p[p]) && f->prec <= MAX_PREC; p++)
            f->prec = f->prec * 10 + (t->p[p] - '0');
        if (p == from)
            return bad(x, "precision missing");
    }
    if (p < t->n)
        f->type = t->p[p++];
    if (p != t->n)
        return bad(x, "invalid format specifier");
    if (f->width > MAX_WIDTH || f->prec > MAX_PREC)
        return bad(x, "a width or precision is too large");
    return true;
}

/* format(v, spec) */
static bool format_value(jj_ctx *x, jj_sb *out, const cp_val *v, const jj_str *text)
{
    spec f;
    if (!text->n)
        return cp_jj_sb_str(x, out, v);
    if (!parse_spec(x, text, &f))
        return false;
    bool is_int = v->type == JJ_INT || v->type == JJ_BOOL;
    if (v->type == JJ_STR) {
        if ((f.type && f.type != 's') || f.sign != '-' || f.grouping || f.alt ||
            (f.align == '=' && f.fill[0] != '0'))
            return bad(x, "the specifier does not fit a str");
        if (f.align == '=') /* {:05} of a string pads on the right */
            f.align = '<';
        return put_str(x, out, &v->u.s, &f, '<');
    }
    if (is_int && (!f.type || strchr("dboxXn", f.type))) {
        if (f.prec >= 0)
            return bad(x, "precision is not allowed for an int");
        return put_int(x, out, v->type == JJ_INT ? v->u.i : v->u.b, &f);
    }
    if ((is_int && strchr("eEfFgG%", f.type)) ||
        (v->type == JJ_FLOAT && (!f.type || strchr("eEfFgGn%", f.type)))) {
        double d = v->type == JJ_FLOAT ? v->u.f
                   : v->type == JJ_INT ? (double)v->u.i
                                       : (double)v->u.b;
        if (f.type == 'n')
            f.type = 'g';
        return put_float(x, out, d, &f);
    }
    cp_jj_fail(x, "format: unsupported specifier for %s", cp_jj_type_name(v));
    return false;
}

/* The value that "0.name[key]" means. */
static const cp_val *field_value(fields *fs, const jj_str *fmt, size_t begin, size_t end)
{
    jj_ctx *x = fs->x;
    size_t p = begin;
    while (p < end && fmt->p[p] != '.' && fmt->p[p] != '[')
        p++;
    const char *name = fmt->p + begin;
    size_t n = p - begin;
    const cp_val *v = NULL;
    bool digits = true;
    size_t index = 0;
    for (size_t i = 0; i < n; i++) {
        digits = digits && isdigit((unsigned char)name[i]) && i < 6;
        index = digits ? index * 10 + (size_t)(name[i] - '0') : 0;
    }
    if (digits) {
        if (!n)
            index = fs->next++;
        v = index < fs->args->n_pos ? fs->args->pos[index] : NULL;
    }
    for (size_t i = 0; !digits && i < fs->args->n_kw; i++) {
        const jj_str *k = &fs->args->kw[i].name->u.s;
        if (k->n == n && cp_jj_work(x, n, JJ_COPY) && memcmp(k->p, name, n) == 0)
            v = fs->args->kw[i].val;
    }
    if (!v)
        bad(x, "an argument is missing");
    while (v && p < end) {
        size_t from = ++p;
        bool attr = fmt->p[from - 1] == '.';
        while (p < end && (attr ? fmt->p[p] != '.' && fmt->p[p] != '[' : fmt->p[p] != ']'))
            p++;
        if (!attr && (p == end || (p + 1 < end && fmt->p[p + 1] != '.' && fmt->p[p + 1] != '['))) {
            bad(x, "[ and ] in a field do not match up");
            return NULL;
        }
        const cp_val *key = cp_jj_step(x, 1) ? cp_jj_str(x, fmt->p + from, p - from) : NULL;
        bool number = p > from;
        for (size_t i = from; i < p; i++)
            number = number && isdigit((unsigned char)fmt->p[i]) && p - from < 10;
        if (key && number && !attr)
            key = cp_jj_int(x, strtoll(key->u.s.p, NULL, 10));
        if (!key)
            return NULL;
        v = attr ? cp_jj_getattr(x, v, key) : cp_jj_getitem(x, v, key);
        p += !attr;
    }
    return v;
}

static bool format_text(fields *fs, jj_sb *out, const jj_str *fmt, size_t begin, size_t end,
                        int depth);

/* One {field} whose inside is [begin, end). */
static bool format_field(fields *fs, jj_sb *out, const jj_str *fmt, size_t begin, size_t end,
                         int depth)
{
    jj_ctx *x = fs->x;
    size_t name_end = begin, spec_begin = end;
    char conv = 0;
    while (name_end < end && fmt->p[name_end] != '!' && fmt->p[name_end] != ':') {
        if (fmt->p[name_end] == '[') { /* a key may hold anything but ] */
            while (name_end < end && fmt->p[name_end] != ']')
                name_end++;
        }
        name_end += name_end < end;
    }
    size_t p = name_end;
    if (p < end && fmt->p[p] == '!') {
        conv = p + 1 < end ? fmt->p[p + 1] : '\0';
        p += 2;
        if (!conv || !strchr("rsa", conv) || (p < end && fmt->p[p] != ':'))
            return bad(x, "bad conversion after !");
    }
    if (p < end)
        spec_begin = p + 1;
    const cp_val *v = field_value(fs, fmt, begin, name_end);
    jj_sb b = {.a = x->a};
    if (v && conv == 's')
        v = cp_jj_to_str(x, v);
    else if (v && conv)
        v = cp_jj_sb_repr(x, &b, v) ? cp_jj_sb_take(x, &b) : NULL;
    jj_sb spec_text = {.a = x->a};
    if (!v || (spec_begin < end && !format_text(fs, &spec_text, fmt, spec_begin, end, depth + 1)))
        return false;
    const cp_val *s = cp_jj_sb_take(x, &spec_text);
    return s && format_value(x, out, v, &s->u.s);
}

static bool format_text(fields *fs, jj_sb *out, const jj_str *fmt, size_t begin, size_t end,
                        int depth)
{
    jj_ctx *x = fs->x;
    if (depth > 2)
        return bad(x, "fields are nested too deeply");
    for (size_t p = begin; p < end;) {
        size_t q = p;
        while (q < end && fmt->p[q] != '{' && fmt->p[q] != '}')
            q++;
        if (!cp_jj_step(x, 1) || !cp_jj_sb_add_str(x, out, fmt, p, q))
            return false;
        if (q == end)
            break;
        if (q + 1 < end && fmt->p[q + 1] == fmt->p[q]) {
            if (!cp_jj_sb_add_str(x, out, fmt, q, q + 1))
                return false;
            p = q + 2;
            continue;
        }
        size_t close = q + 1, open = 1;
        for (; fmt->p[q] == '{' && close < end; close++) {
            open += fmt->p[close] == '{';
            open -= fmt->p[close] == '}';
            if (!open)
                break;
        }
        if (fmt->p[q] == '}' || close >= end)
            return bad(x, "unbalanced braces");
        if (!format_field(fs, out, fmt, q + 1, close, depth))
            return false;
        p = close + 1;
    }
    return true;
}

const cp_val *cp_jj_format(jj_ctx *x, const jj_str *fmt, const jj_args *args)
{
    fields fs = {.x = x, .args = args};
    jj_sb out = {.a = x->a};
    /* Braces are looked for at two depths, then names and specifiers. */
    return cp_jj_work(x, fmt->n, JJ_WRITE) && format_text(&fs, &out, fmt, 0, fmt->n, 0)
               ? cp_jj_sb_take(x, &out)
               : NULL;
}
