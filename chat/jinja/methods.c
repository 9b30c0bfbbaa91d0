/*
 * Methods of strings, lists, tuples and dicts under Python's names. Those that change a list or a
 * dict are rows without a function: transformers' sandbox lets no template change one.
 */
#include "chat/jinja/interp.h"

#include <string.h>

#define METHOD(name)                                                                               \
    static const cp_val *name(jj_ctx *x, const cp_val *v, const cp_val **arg, const jj_args *rest)

/* ---- strings ---- */

static bool want_str(jj_ctx *x, const cp_val *v, const char *what)
{
    if (v && v->type == JJ_STR)
        return true;
    cp_jj_fail(x, "%s wants a str, not %s", what, v ? cp_jj_type_name(v) : "nothing");
    return false;
}

METHOD(s_strip)
{
    (void)rest;
    return cp_jj_strip_val(x, v, arg[0], 3);
}
METHOD(s_lstrip)
{
    (void)rest;
    return cp_jj_strip_val(x, v, arg[0], 1);
}
METHOD(s_rstrip)
{
    (void)rest;
    return cp_jj_strip_val(x, v, arg[0], 2);
}
METHOD(s_upper)
{
    (void)arg, (void)rest;
    return cp_jj_case(x, v, JJ_UPPER);
}
METHOD(s_lower)
{
    (void)arg, (void)rest;
    return cp_jj_case(x, v, JJ_LOWER);
}
METHOD(s_title)
{
    (void)arg, (void)rest;
    return cp_jj_case(x, v, JJ_TITLE);
}
METHOD(s_capitalize)
{
    (void)arg, (void)rest;
    return cp_jj_case(x, v, JJ_CAPITALIZE);
}
METHOD(s_swapcase)
{
    (void)arg, (void)rest;
    return cp_jj_case(x, v, JJ_SWAPCASE);
}

METHOD(s_replace)
{
    int64_t count;
    (void)rest;
    if (!want_str(x, arg[0], "replace") || !want_str(x, arg[1], "replace") ||
        !cp_jj_arg_int(x, arg[2], -1, &count))
        return NULL;
    return cp_jj_replace(x, v, arg[0], arg[1], count);
}

/* Python's [start:end] of a search, in bytes; false: start lies behind the end of the text (or a
 * failure). */
static bool search_window(jj_ctx *x, const jj_str *s, const cp_val *start, const cp_val *end,
                          size_t *b, size_t *e)
{
    *b = 0;
    *e = s->n;
    if (!start && !end)
        return true;
    int64_t n = (int64_t)cp_jj_str_len_cp(x, s), from, to;
    if (!cp_jj_arg_int(x, start, 0, &from) || !cp_jj_arg_int(x, end, n, &to))
        return false;
    from = from < -n ? 0 : from < 0 ? from + n : from;
    to = to < -n ? 0 : to < 0 ? to + n : to > n ? n : to;
    if (from > to || from > n)
        return false;
    *b = cp_jj_str_off_cp(x, s, (size_t)from);
    *e = cp_jj_str_off_cp(x, s, (size_t)to);
    return true;
}

static const cp_val *affix(jj_ctx *x, const cp_val *v, const cp_val **arg, bool at_end)
{
    size_t b, e;
    const cp_val *one[1] = {arg[0]};
    const cp_val *const *set = one;
    size_t n = 1;
    if (arg[0] && arg[0]->type == JJ_TUPLE) {
        set = arg[0]->u.list->v;
        n = arg[0]->u.list->n;
    }
    bool inside = search_window(x, &v->u.s, arg[1], arg[2], &b, &e), hit = false;
    for (size_t i = 0; i < n && !hit; i++) {
        if (!want_str(x, set[i], at_end ? "endswith" : "startswith") || !cp_jj_step(x, 1))
            return NULL;
        const jj_str *t = &set[i]->u.s;
        hit = inside && t->n <= e - b &&
              (!t->n || memcmp(v->u.s.p + (at_end ? e - t->n : b), t->p, t->n) == 0);
        if (!cp_jj_work(x, t->n <= v->u.s.n ? t->n : 0, JJ_COPY))
            return NULL;
    }
    return x->code == CP_OK ? cp_jj_bool(hit) : NULL;
}

METHOD(s_startswith)
{
    (void)rest;
    return affix(x, v, arg, false);
}
METHOD(s_endswith)
{
    (void)rest;
    return affix(x, v, arg, true);
}

/* Code point index of the first or last occurrence, -1: none. */
static const cp_val *find(jj_ctx *x, const cp_val *v, const cp_val **arg, bool last, bool must)
{
    size_t b, e, at;
    if (!want_str(x, arg[0], "find"))
        return NULL;
    const jj_str *s = &v->u.s, *t = &arg[0]->u.s;
    bool found = search_window(x, s, arg[1], arg[2], &b, &e);
    if (found) {
        jj_str hay = {.p = s->p, .n = e};
        at = last ? cp_jj_rfind(x, &hay, e, t) : cp_jj_find(x, &hay, b, t);
        found = t->n ? at < e && at >= b : true;
        if (!t->n)
            at = last ? e : b;
    }
    if (x->code != CP_OK)
        return NULL;
    if (!found && must) {
        cp_jj_fail(x, "substring not found");
        return NULL;
    }
    if (!found)
        return cp_jj_int(x, -1);
    jj_str head = {.p = s->p, .n = at};
    return cp_jj_int(x, (int64_t)cp_jj_str_len_cp(x, &head));
}

METHOD(s_find)
{
    (void)rest;
    return find(x, v, arg, false, false);
}
METHOD(s_rfind)
{
    (void)rest;
    return find(x, v, arg, true, false);
}
METHOD(s_index)
{
    (void)rest;
    return find(x, v, arg, false, true);
}

METHOD(s_count)
{
    (void)rest;
    int64_t n = 0;
    if (!want_str(x, arg[0], "count"))
        return NULL;
    const jj_str *s = &v->u.s, *t = &arg[0]->u.s;
    if (!t->n)
        return cp_jj_int(x, (int64_t)cp_jj_str_len_cp(x, s) + 1);
    for (size_t at = 0; (at = cp_jj_find(x, s, at, t)) < s->n && cp_jj_work(x, JJ_PIECE, JJ_COPY);
         at += t->n)
        n++;
    return cp_jj_int(x, n);
}

METHOD(s_removeprefix)
{
    (void)rest;
    if (!want_str(x, arg[0], "removeprefix"))
        return NULL;
    const jj_str *s = &v->u.s, *t = &arg[0]->u.s;
    if (!cp_jj_work(x, t->n <= s->n ? t->n : 0, JJ_COPY))
        return NULL;
    bool has = t->n && t->n <= s->n && memcmp(s->p, t->p, t->n) == 0;
    return has ? cp_jj_sub(x, v, t->n, s->n) : v;
}

METHOD(s_removesuffix)
{
    (void)rest;
    if (!want_str(x, arg[0], "removesuffix"))
        return NULL;
    const jj_str *s = &v->u.s, *t = &arg[0]->u.s;
    if (!cp_jj_work(x, t->n <= s->n ? t->n : 0, JJ_COPY))
        return NULL;
    bool has = t->n && t->n <= s->n && memcmp(s->p + s->n - t->n, t->p, t->n) == 0;
    return has ? cp_jj_sub(x, v, 0, s->n - t->n) : v;
}

/* Split at white space, at most max times; the last part keeps the space inside and behind it. */
static jj_list *split_space(jj_ctx *x, const cp_val *v, int64_t max)
{
    const jj_str *s = &v->u.s;
    jj_list *l = cp_jj_work(x, s->n, JJ_SCAN) ? cp_jj_list_new(x, 0) : NULL;
    size_t off = 0;
    while (l) {
        uint32_t cp;
        size_t k;
        while (off < s->n && (k = cp_jj_utf8_next(s->p, s->n, off, &cp), cp_jj_is_space(cp)))
            off += k;
        if (off >= s->n)
            break;
        size_t begin = off;
        if (max == 0)
            return cp_jj_list_push(x, l, cp_jj_sub(x, v, begin, s->n)) ? l : NULL;
        while (off < s->n && (k = cp_jj_utf8_next(s->p, s->n, off, &cp), !cp_jj_is_space(cp)))
            off += k;
        if (!cp_jj_step(x, 1) || !cp_jj_list_push(x, l, cp_jj_sub(x, v, begin, off)))
            return NULL;
        max -= max > 0;
    }
    return l;
}

METHOD(s_split)
{
    int64_t max;
    (void)rest;
    if (!cp_jj_arg_int(x, arg[1], -1, &max))
        return NULL;
    if (!arg[0] || arg[0]->type == JJ_NONE)
        return cp_jj_list(x, JJ_LIST, split_space(x, v, max));
    if (!want_str(x, arg[0], "split"))
        return NULL;
    const jj_str *s = &v->u.s, *t = &arg[0]->u.s;
    if (!t->n) {
        cp_jj_fail(x, "split: empty separator");
        return NULL;
    }
    jj_list *l = cp_jj_list_new(x, 0);
    size_t begin = 0, at;
    while (l && max && (at = cp_jj_find(x, s, begin, t)) < s->n) {
        if (!cp_jj_step(x, 1) || !cp_jj_list_push(x, l, cp_jj_sub(x, v, begin, at)))
            return NULL;
        begin = at + t->n;
        max -= max > 0;
    }
    return l && cp_jj_list_push(x, l, cp_jj_sub(x, v, begin, s->n)) ? cp_jj_list(x, JJ_LIST, l)
                                                                    : NULL;
}

static void reverse_list(jj_list *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        const cp_val *t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
}

/* As split_space, from the right. */
static jj_list *rsplit_space(jj_ctx *x, const cp_val *v, int64_t max)
{
    jj_list *l = cp_jj_work(x, v->u.s.n, JJ_WRITE) ? cp_jj_list_new(x, 0) : NULL;
    size_t b, e;
    cp_jj_strip(x, &v->u.s, NULL, 3, &b, &e);
    while (l && e > b) {
        jj_str head = {.p = v->u.s.p, .n = e};
        size_t begin = e, skip;
        while (max && begin > b) { /* back over what is not space */
            head.n = begin;
            cp_jj_strip(x, &head, NULL, 2, &skip, &head.n);
            if (head.n < begin)
                break;
            begin--;
            while (begin > b && ((unsigned char)v->u.s.p[begin] & 0xc0) == 0x80)
                begin--;
        }
        if (!max)
            begin = 0;
        if (!cp_jj_step(x, 1) || !cp_jj_list_push(x, l, cp_jj_sub(x, v, begin, e)))
            return NULL;
        head.n = begin;
        cp_jj_strip(x, &head, NULL, 2, &skip, &e);
        max -= max > 0;
    }
    if (l)
        reverse_list(l);
    return l;
}

METHOD(s_rsplit)
{
    int64_t max;
    (void)rest;
    if (!cp_jj_arg_int(x, arg[1], -1, &max))
        return NULL;
    if (!arg[0] || arg[0]->type == JJ_NONE)
        return cp_jj_list(x, JJ_LIST, rsplit_space(x, v, max));
    if (!want_str(x, arg[0], "rsplit"))
        return NULL;
    const jj_str *s = &v->u.s, *t = &arg[0]->u.s;
    if (!t->n) {
        cp_jj_fail(x, "rsplit: empty separator");
        return NULL;
    }
    jj_list *l = cp_jj_list_new(x, 0);
    size_t end = s->n, at;
    while (l && max && (at = cp_jj_rfind(x, s, end, t)) < s->n) {
        if (!cp_jj_step(x, 1) || !cp_jj_list_push(x, l, cp_jj_sub(x, v, at + t->n, end)))
            return NULL;
        end = at;
        max -= max > 0;
    }
    if (!l || !cp_jj_list_push(x, l, cp_jj_sub(x, v, 0, end)))
        return NULL;
    reverse_list(l);
    return cp_jj_list(x, JJ_LIST, l);
}

static const cp_val *partition(jj_ctx *x, const cp_val *v, const cp_val *sep, bool last)
{
    if (!want_str(x, sep, "partition"))
        return NULL;
    const jj_str *s = &v->u.s;
    if (!sep->u.s.n) {
        cp_jj_fail(x, "partition: empty separator");
        return NULL;
    }
    size_t at = last ? cp_jj_rfind(x, s, s->n, &sep->u.s) : cp_jj_find(x, s, 0, &sep->u.s);
    jj_list *l = cp_jj_list_new(x, 3);
    if (!l)
        return NULL;
    bool found = at < s->n;
    const cp_val *head = found ? cp_jj_sub(x, v, 0, at) : last ? &cp_jj_empty : v;
    const cp_val *tail = found ? cp_jj_sub(x, v, at + sep->u.s.n, s->n) : last ? v : &cp_jj_empty;
    return cp_jj_list_push(x, l, head) && cp_jj_list_push(x, l, found ? sep : &cp_jj_empty) &&
                   cp_jj_list_push(x, l, tail)
               ? cp_jj_list(x, JJ_TUPLE, l)
               : NULL;
}

METHOD(s_partition)
{
    (void)rest;
    return partition(x, v, arg[0], false);
}
METHOD(s_rpartition)
{
    (void)rest;
    return partition(x, v, arg[0], true);
}

METHOD(s_splitlines)
{
    (void)rest;
    return cp_jj_list(x, JJ_LIST, cp_jj_lines(x, v, cp_jj_arg_bool(arg[0], false)));
}

METHOD(s_join)
{
    (void)rest;
    if (!arg[0]) {
        cp_jj_fail(x, "join wants an iterable");
        return NULL;
    }
    jj_list *l = cp_jj_items(x, arg[0]);
    return l ? cp_jj_join(x, l, v, false) : NULL;
}

METHOD(s_format)
{
    (void)arg;
    return cp_jj_format(x, &v->u.s, rest);
}

static const cp_val *just(jj_ctx *x, const cp_val *v, const cp_val **arg, bool left)
{
    int64_t width;
    if (!cp_jj_arg_int(x, arg[0], 0, &width) || (arg[1] && !want_str(x, arg[1], "ljust")))
        return NULL;
    int64_t pad = width - (int64_t)cp_jj_str_len_cp(x, &v->u.s);
    const char *fill = arg[1] ? arg[1]->u.s.p : " ";
    size_t n_fill = arg[1] ? arg[1]->u.s.n : 1;
    jj_sb b = {.a = x->a};
    if (pad <= 0)
        return v;
    bool ok = (left || cp_jj_sb_pad(x, &b, fill, n_fill, (size_t)pad)) &&
              cp_jj_sb_add_str(x, &b, &v->u.s, 0, v->u.s.n) &&
              (!left || cp_jj_sb_pad(x, &b, fill, n_fill, (size_t)pad));
    return ok ? cp_jj_sb_take(x, &b) : NULL;
}

METHOD(s_ljust)
{
    (void)rest;
    return just(x, v, arg, true);
}
METHOD(s_rjust)
{
    (void)rest;
    return just(x, v, arg, false);
}

METHOD(s_zfill)
{
    int64_t width;
    (void)rest;
    if (!cp_jj_arg_int(x, arg[0], 0, &width))
        return NULL;
    const jj_str *s = &v->u.s;
    int64_t pad = width - (int64_t)cp_jj_str_len_cp(x, s);
    size_t sign = s->n && (s->p[0] == '-' || s->p[0] == '+');
    jj_sb b = {.a = x->a};
    if (pad <= 0)
        return v;
    bool ok = cp_jj_sb_add_str(x, &b, s, 0, sign) && cp_jj_sb_pad(x, &b, "0", 1, (size_t)pad) &&
              cp_jj_sb_add_str(x, &b, s, sign, s->n);
    return ok ? cp_jj_sb_take(x, &b) : NULL;
}

METHOD(s_isdigit)
{
    (void)arg, (void)rest;
    if (!cp_jj_work(x, v->u.s.n, JJ_WRITE))
        return NULL;
    for (size_t off = 0; off < v->u.s.n;) {
        uint32_t cp;
        off += cp_jj_utf8_next(v->u.s.p, v->u.s.n, off, &cp);
        if (!cp_jj_is_digit(cp))
            return &cp_jj_false;
    }
    return cp_jj_bool(v->u.s.n > 0);
}

METHOD(s_isspace)
{
    size_t b, e;
    (void)arg, (void)rest;
    cp_jj_strip(x, &v->u.s, NULL, 1, &b, &e);
    return cp_jj_bool(v->u.s.n && b == e);
}

static const cp_val *run_test(jj_ctx *x, const cp_val *v, const char *name)
{
    jj_str s = {.p = name, .n = strlen(name)};
    jj_args none = {0};
    return cp_jj_invoke(x, cp_jj_test_find(&s), v, &none);
}

METHOD(s_isupper)
{
    (void)arg, (void)rest;
    return run_test(x, v, "upper");
}
METHOD(s_islower)
{
    (void)arg, (void)rest;
    return run_test(x, v, "lower");
}

/* ---- lists ---- */

/* Index of an equal item, n: none. */
static size_t position(jj_ctx *x, const jj_list *l, const cp_val *item)
{
    for (size_t i = 0; item && i < l->n && x->code == CP_OK; i++) {
        if (cp_jj_equal(x, l->v[i], item))
            return i;
    }
    return l->n;
}

METHOD(l_copy)
{
    (void)arg, (void)rest;
    return cp_jj_list(x, JJ_LIST, cp_jj_items(x, v));
}

METHOD(l_index)
{
    (void)rest;
    const jj_list *l = v->type == JJ_RANGE ? cp_jj_items(x, v) : v->u.list;
    size_t at = l ? position(x, l, arg[0]) : 0;
    if (l && at < l->n)
        return cp_jj_int(x, (int64_t)at);
    cp_jj_fail(x, "index: the item is not in the list");
    return NULL;
}

METHOD(l_count)
{
    int64_t n = 0;
    (void)rest;
    const jj_list *l = v->type == JJ_RANGE ? cp_jj_items(x, v) : v->u.list;
    for (size_t i = 0; l && arg[0] && i < l->n && x->code == CP_OK; i++)
        n += cp_jj_equal(x, l->v[i], arg[0]);
    return cp_jj_int(x, n);
}

/* ---- dicts ---- */

METHOD(d_get)
{
    (void)rest;
    if (!arg[0]) {
        cp_jj_fail(x, "get wants a key");
        return NULL;
    }
    const cp_val *r = cp_jj_dict_get(x, v->u.dict, arg[0]);
    if (r || x->code != CP_OK)
        return r;
    return arg[1] ? arg[1] : &cp_jj_none;
}

static const cp_val *view(jj_ctx *x, const cp_val *v, jj_view_kind kind)
{
    cp_val *r = cp_jj_alloc(x, sizeof(*r));
    if (!r)
        return NULL;
    r->type = JJ_VIEW;
    r->u.view.dict = v->u.dict;
    r->u.view.kind = kind;
    return r;
}

METHOD(d_keys)
{
    (void)arg, (void)rest;
    return view(x, v, JJ_KEYS);
}
METHOD(d_values)
{
    (void)arg, (void)rest;
    return view(x, v, JJ_VALUES);
}
METHOD(d_items)
{
    (void)arg, (void)rest;
    return view(x, v, JJ_ITEMS);
}

/* Merge a dict, or an iterable of pairs, into d. */
static bool merge(jj_ctx *x, jj_dict *d, const cp_val *from)
{
    if (from->type != JJ_DICT) {
        jj_list *l = cp_jj_items(x, from);
        for (size_t i = 0; l && i < l->n; i++) {
            jj_list *pair = cp_jj_step(x, 1) ? cp_jj_items(x, l->v[i]) : NULL;
            if (pair && pair->n != 2)
                cp_jj_fail(x, "a dict is made of pairs");
            if (x->code != CP_OK || !cp_jj_dict_set(x, d, pair->v[0], pair->v[1]))
                return false;
        }
        return l != NULL;
    }
    if (!cp_jj_work_items(x, from->u.dict->n))
        return false;
    for (size_t i = 0; i < from->u.dict->n; i++) {
        const jj_entry *e = &from->u.dict->e[i];
        if (!cp_jj_step(x, 1) || !cp_jj_dict_set(x, d, e->key, e->val))
            return false;
    }
    return true;
}

bool cp_jj_dict_update(jj_ctx *x, jj_dict *d, const cp_val *from, const jj_args *kw)
{
    if (from && !merge(x, d, from))
        return false;
    for (size_t i = 0; i < kw->n_kw; i++) {
        if (!cp_jj_dict_set(x, d, kw->kw[i].name, kw->kw[i].val))
            return false;
    }
    return true;
}

METHOD(d_copy)
{
    (void)arg, (void)rest;
    jj_dict *d = cp_jj_dict_new(x);
    return d && merge(x, d, v) ? cp_jj_dict(x, JJ_DICT, d) : NULL;
}

static const jj_fn_row *find_row(const jj_fn_row *rows, size_t n, const jj_str *name)
{
    for (size_t i = 0; i < n; i++) {
        if (cp_jj_str_is(name, rows[i].name))
            return &rows[i];
    }
    return NULL;
}

const jj_fn_row *cp_jj_method_find(jj_type type, const jj_str *name)
{
    static const jj_fn_row str_rows[] = {
        {"capitalize", "", s_capitalize},
        {"casefold", "", s_lower},
        {"count", "sub", s_count},
        {"endswith", "suffix start end", s_endswith},
        {"find", "sub start end", s_find},
        {"format", "*", s_format},
        {"index", "sub start end", s_index},
        {"isdigit", "", s_isdigit},
        {"islower", "", s_islower},
        {"isspace", "", s_isspace},
        {"isupper", "", s_isupper},
        {"join", "iterable", s_join},
        {"ljust", "width fillchar", s_ljust},
        {"lower", "", s_lower},
        {"lstrip", "chars", s_lstrip},
        {"partition", "sep", s_partition},
        {"removeprefix", "prefix", s_removeprefix},
        {"removesuffix", "suffix", s_removesuffix},
        {"replace", "old new count", s_replace},
        {"rfind", "sub start end", s_rfind},
        {"rjust", "width fillchar", s_rjust},
        {"rpartition", "sep", s_rpartition},
        {"rsplit", "sep maxsplit", s_rsplit},
        {"rstrip", "chars", s_rstrip},
        {"split", "sep maxsplit", s_split},
        {"splitlines", "keepends", s_splitlines},
        {"startswith", "prefix start end", s_startswith},
        {"strip", "chars", s_strip},
        {"swapcase", "", s_swapcase},
        {"title", "", s_title},
        {"upper", "", s_upper},
        {"zfill", "width", s_zfill},
    };
    static const jj_fn_row list_rows[] = {
        {"count", "value", l_count}, /* these two are a tuple's and a range's as well */
        {"index", "value", l_index}, {"append", "", NULL}, {"clear", "", NULL},
        {"copy", "", l_copy},        {"extend", "", NULL}, {"insert", "", NULL},
        {"pop", "", NULL},           {"remove", "", NULL}, {"reverse", "", NULL},
        {"sort", "", NULL},
    };
    static const jj_fn_row dict_rows[] = {
        {"clear", "", NULL},      {"copy", "", d_copy},     {"get", "key default", d_get},
        {"items", "", d_items},   {"keys", "", d_keys},     {"pop", "", NULL},
        {"popitem", "", NULL},    {"setdefault", "", NULL}, {"update", "", NULL},
        {"values", "", d_values},
    };
    switch (type) {
    case JJ_STR:
        return find_row(str_rows, sizeof(str_rows) / sizeof(str_rows[0]), name);
    case JJ_LIST:
        return find_row(list_rows, sizeof(list_rows) / sizeof(list_rows[0]), name);
    case JJ_TUPLE:
    case JJ_RANGE:
        return find_row(list_rows, 2, name);
    case JJ_DICT:
        return find_row(dict_rows, sizeof(dict_rows) / sizeof(dict_rows[0]), name);
    default:
        return NULL;
    }
}
