/*
 * Filters over sequences: list, join, first, sort, map, select, unique, groupby, ... What is a
 * generator in Jinja is a generator value here as well (always true, no length, iterable once),
 * computed at once.
 */
#include "chat/jinja/interp.h"

#include <math.h>
#include <string.h>

#define FILTER(name)                                                                               \
    static const cp_val *name(jj_ctx *x, const cp_val *v, const cp_val **arg, const jj_args *rest)

static const cp_val *to_list(jj_ctx *x, jj_list *l)
{
    return cp_jj_list(x, JJ_LIST, l);
}

/*
 * What a generator function of Jinja gives: it runs when it is iterated, so a failure inside it is
 * kept for then (limits stay reached, and fail again at once).
 */
static const cp_val *lazy(jj_ctx *x, const cp_val *v)
{
    if (v || x->code != CP_TEMPLATE)
        return v;
    const char *why = x->err ? strstr(x->err->msg, ": ") : NULL; /* behind "line N" */
    x->code = CP_OK;
    v = cp_jj_gen(x, cp_jj_list_new(x, 0));
    if (v && !(v->u.gen->why = cp_arena_printf(x->a, "%s", why ? why + 2 : "the items failed")))
        cp_jj_fail_memory(x);
    return x->code == CP_OK ? v : NULL;
}

/* ---- attributes by path: "a.b.0" or a number, as Jinja's make_attrgetter ---- */

static const cp_val *attr_step(jj_ctx *x, const cp_val *v, const cp_val *key, const cp_val *def)
{
    v = v ? cp_jj_getitem(x, v, key) : NULL;
    return v && v->type == JJ_UNDEF && def ? def : v;
}

static const cp_val *attr_path(jj_ctx *x, const cp_val *v, const cp_val *path, const cp_val *def)
{
    if (!path || path->type == JJ_NONE)
        return v;
    if (path->type != JJ_STR)
        return attr_step(x, v, path, def);
    const jj_str *s = &path->u.s;
    for (size_t begin = 0; v && begin <= s->n;) {
        size_t end = begin;
        int64_t index = 0;
        bool number = true;
        for (; end < s->n && s->p[end] != '.'; end++) {
            number = number && s->p[end] >= '0' && s->p[end] <= '9' && end - begin < 9;
            index = number ? index * 10 + (s->p[end] - '0') : 0;
        }
        if (!cp_jj_step(x, 1) || !cp_jj_work(x, end - begin, JJ_SCAN))
            return NULL;
        const cp_val *key =
            number && end > begin ? cp_jj_int(x, index) : cp_jj_sub(x, path, begin, end);
        v = key ? attr_step(x, v, key, def) : NULL;
        begin = end + 1;
    }
    return v;
}

/* The key that sort, unique, min, max and groupby compare: the attribute, in lower case unless case
 * counts. */
static const cp_val *fold_key(jj_ctx *x, const cp_val *v, const cp_val *attr, bool case_sensitive)
{
    v = attr_path(x, v, attr, NULL);
    return v && v->type == JJ_STR && !case_sensitive ? cp_jj_case(x, v, JJ_LOWER) : v;
}

/* ---- sorting ---- */

typedef struct pair {
    const cp_val *key, *item;
} pair;

bool cp_jj_sort(jj_ctx *x, const cp_val **keys, const cp_val **items, size_t n, bool reverse)
{
    pair *a = cp_jj_alloc(x, (n + 1) * sizeof(*a)), *b = cp_jj_alloc(x, (n + 1) * sizeof(*b));
    if (!a || !b)
        return false;
    for (size_t i = 0; i < n; i++)
        a[i] = (pair){keys[i], items[i]};
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n, hi = mid + width < n ? mid + width : n;
            size_t i = lo, j = mid, o = lo;
            while (i < mid && j < hi) {
                int c;
                if (!cp_jj_compare(x, "<", a[j].key, a[i].key, &c))
                    return false;
                bool take_right = reverse ? c == 1 : c == -1;
                b[o++] = take_right ? a[j++] : a[i++];
            }
            while (i < mid)
                b[o++] = a[i++];
            while (j < hi)
                b[o++] = a[j++];
        }
        pair *t = a;
        a = b;
        b = t;
    }
    for (size_t i = 0; i < n; i++) {
        keys[i] = a[i].key;
        items[i] = a[i].item;
    }
    return true;
}

/* The list of keys that sort compares: one, or one for each part of "name,age". Keys that are equal
 * are never ordered, so that undefined ones do no harm, as in Python. */
static const cp_val *multi_key(jj_ctx *x, const cp_val *v, const cp_val *attr, bool case_sensitive)
{
    jj_list *l = cp_jj_list_new(x, 0);
    if (!attr || attr->type != JJ_STR)
        return l && cp_jj_list_push(x, l, fold_key(x, v, attr, case_sensitive))
                   ? cp_jj_list(x, JJ_LIST, l)
                   : NULL;
    const jj_str *s = &attr->u.s;
    for (size_t begin = 0; l && begin <= s->n;) {
        const char *comma = memchr(s->p + begin, ',', s->n - begin);
        size_t end = comma ? (size_t)(comma - s->p) : s->n;
        if (!cp_jj_step(x, 1) || !cp_jj_work(x, end - begin, JJ_COPY))
            return NULL;
        const cp_val *part = cp_jj_sub(x, attr, begin, end);
        if (!part || !cp_jj_list_push(x, l, fold_key(x, v, part, case_sensitive)))
            return NULL;
        begin = end + 1;
    }
    return cp_jj_list(x, JJ_LIST, l);
}

static jj_list *sorted(jj_ctx *x, const cp_val *v, const cp_val *attr, bool case_sensitive,
                       bool reverse)
{
    jj_list *l = cp_jj_items(x, v), *keys = l ? cp_jj_list_new(x, l->n) : NULL;
    for (size_t i = 0; keys && i < l->n; i++) {
        if (!cp_jj_list_push(x, keys, multi_key(x, l->v[i], attr, case_sensitive)))
            return NULL;
    }
    return keys && cp_jj_sort(x, keys->v, l->v, l->n, reverse) ? l : NULL;
}

FILTER(f_sort)
{
    (void)rest;
    return to_list(
        x, sorted(x, v, arg[2], cp_jj_arg_bool(arg[1], false), cp_jj_arg_bool(arg[0], false)));
}

FILTER(f_dictsort)
{
    (void)rest;
    bool case_sensitive = cp_jj_arg_bool(arg[0], false), reverse = cp_jj_arg_bool(arg[2], false);
    bool by_value = arg[1] && arg[1]->type == JJ_STR && cp_jj_str_is(&arg[1]->u.s, "value");
    if (arg[1] && !by_value && !(arg[1]->type == JJ_STR && cp_jj_str_is(&arg[1]->u.s, "key"))) {
        cp_jj_fail(x, "dictsort: by is 'key' or 'value'");
        return NULL;
    }
    if (v->type != JJ_DICT) {
        cp_jj_fail(x, "dictsort works on a dict, not %s", cp_jj_type_name(v));
        return NULL;
    }
    jj_list *items = cp_jj_dict_list(x, v->u.dict, JJ_ITEMS);
    jj_list *keys = items ? cp_jj_list_new(x, items->n) : NULL;
    for (size_t i = 0; keys && i < items->n; i++) {
        const cp_val *k = items->v[i]->u.list->v[by_value];
        if (!cp_jj_list_push(x, keys, fold_key(x, k, NULL, case_sensitive)))
            return NULL;
    }
    if (!keys || !cp_jj_sort(x, keys->v, items->v, items->n, reverse))
        return NULL;
    return to_list(x, items);
}

static const cp_val *extreme(jj_ctx *x, const cp_val *v, const cp_val **arg, bool want_max)
{
    jj_list *l = cp_jj_items(x, v);
    const cp_val *best = NULL, *best_key = NULL;
    for (size_t i = 0; l && i < l->n; i++) {
        const cp_val *k = fold_key(x, l->v[i], arg[1], cp_jj_arg_bool(arg[0], false));
        int c = 0;
        if (!k || !cp_jj_step(x, 1) ||
            (best && !cp_jj_compare(x, want_max ? ">" : "<", k, best_key, &c)))
            return NULL;
        if (!best || (c != 2 && (want_max ? c > 0 : c < 0))) {
            best = l->v[i];
            best_key = k;
        }
    }
    return best || !l ? best : cp_jj_undefined(x, "no aggregated item, sequence was empty");
}

FILTER(f_min)
{
    (void)rest;
    return extreme(x, v, arg, false);
}
FILTER(f_max)
{
    (void)rest;
    return extreme(x, v, arg, true);
}

FILTER(f_sum)
{
    (void)rest;
    jj_list *l = cp_jj_items(x, v);
    const cp_val *total = arg[1] ? arg[1] : cp_jj_int(x, 0);
    if (total && total->type == JJ_STR) {
        cp_jj_fail(x, "sum does not join strings");
        return NULL;
    }
    for (size_t i = 0; l && total && i < l->n; i++) {
        const cp_val *item = attr_path(x, l->v[i], arg[0], NULL);
        total = item && cp_jj_step(x, 1) ? cp_jj_arith(x, JJ_ADD, total, item) : NULL;
    }
    return l ? total : NULL;
}

/* ---- plain conversions and picks ---- */

FILTER(f_list)
{
    (void)arg, (void)rest;
    return to_list(x, cp_jj_items(x, v));
}

static const cp_val *pairs(jj_ctx *x, const cp_val *v)
{
    if (v->type == JJ_UNDEF)
        return cp_jj_gen(x, cp_jj_list_new(x, 0));
    if (v->type != JJ_DICT) {
        cp_jj_fail(x, "items works on a mapping, not %s", cp_jj_type_name(v));
        return NULL;
    }
    return cp_jj_gen(x, cp_jj_dict_list(x, v->u.dict, JJ_ITEMS));
}

FILTER(f_items)
{
    (void)arg, (void)rest;
    return lazy(x, pairs(x, v));
}

FILTER(f_join)
{
    (void)rest;
    jj_list *l = cp_jj_items(x, v);
    for (size_t i = 0; l && arg[1] && i < l->n; i++) {
        if (!(l->v[i] = attr_path(x, l->v[i], arg[1], NULL)))
            return NULL;
    }
    return l ? cp_jj_join(x, l, arg[0], true) : NULL;
}

FILTER(f_first)
{
    (void)arg, (void)rest;
    if (v->type == JJ_GEN && !v->u.gen->why && v->u.gen->pos < v->u.gen->items->n)
        return v->u.gen->items->v[v->u.gen->pos++];
    const cp_val zero = {.type = JJ_INT};
    if (v->type == JJ_STR && v->u.s.n)
        return cp_jj_getitem(x, v, &zero);
    jj_list *l = cp_jj_items(x, v);
    if (!l)
        return NULL;
    return l->n ? l->v[0] : cp_jj_undefined(x, "no first item, sequence was empty");
}

FILTER(f_last)
{
    (void)arg, (void)rest;
    if (v->type == JJ_GEN) {
        cp_jj_fail(x, "last does not work on a generator");
        return NULL;
    }
    const cp_val minus = {.type = JJ_INT, .u.i = -1};
    if (v->type == JJ_STR && v->u.s.n)
        return cp_jj_getitem(x, v, &minus);
    jj_list *l = cp_jj_items(x, v);
    if (!l)
        return NULL;
    return l->n ? l->v[l->n - 1] : cp_jj_undefined(x, "no last item, sequence was empty");
}

FILTER(f_reverse)
{
    (void)arg, (void)rest;
    if (v->type == JJ_STR) {
        cp_val minus = {.type = JJ_INT, .u.i = -1};
        return cp_jj_slice(x, v, NULL, NULL, &minus);
    }
    bool list = v->type == JJ_GEN; /* Python falls back to a list there */
    jj_list *l = cp_jj_items(x, v);
    for (size_t i = 0; l && i < l->n / 2; i++) {
        const cp_val *t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
    return list ? to_list(x, l) : cp_jj_gen(x, l);
}

static const cp_val *unique_items(jj_ctx *x, const cp_val *v, const cp_val **arg)
{
    jj_list *l = cp_jj_items(x, v), *out = cp_jj_list_new(x, 0);
    jj_dict *seen = cp_jj_dict_new(x);
    for (size_t i = 0; l && out && seen && i < l->n; i++) {
        const cp_val *k = fold_key(x, l->v[i], arg[1], cp_jj_arg_bool(arg[0], false));
        if (!k || !cp_jj_step(x, 1))
            return NULL;
        if (cp_jj_dict_get(x, seen, k))
            continue;
        if (!cp_jj_dict_set(x, seen, k, &cp_jj_true) || !cp_jj_list_push(x, out, l->v[i]))
            return NULL;
    }
    return l ? cp_jj_gen(x, out) : NULL;
}

FILTER(f_unique)
{
    (void)rest;
    return lazy(x, unique_items(x, v, arg));
}

/* batch: rows of n items, the last filled up with fill (if given). */
static const cp_val *batch_items(jj_ctx *x, const cp_val *v, const cp_val **arg)
{
    int64_t n;
    jj_list *l = cp_jj_items(x, v), *rows = cp_jj_list_new(x, 0), *row = NULL;
    if (!l || !cp_jj_arg_int(x, arg[0], 0, &n))
        return NULL;
    if (n < 1 || n > JJ_MAX_RANGE) {
        cp_jj_fail(x, "batch: a row has 1 to %d items", JJ_MAX_RANGE);
        return NULL;
    }
    for (size_t i = 0; i < l->n; i++) {
        if (i % (size_t)n == 0) {
            row = cp_jj_list_new(x, 0);
            if (!cp_jj_list_push(x, rows, cp_jj_list(x, JJ_LIST, row)))
                return NULL;
        }
        if (!cp_jj_step(x, 1) || !cp_jj_list_push(x, row, l->v[i]))
            return NULL;
    }
    while (row && arg[1] && arg[1]->type != JJ_NONE && row->n < (size_t)n) {
        if (!cp_jj_step(x, 1) || !cp_jj_list_push(x, row, arg[1]))
            return NULL;
    }
    return cp_jj_gen(x, rows);
}

FILTER(f_batch)
{
    (void)rest;
    if (!arg[0])
        cp_jj_fail(x, "batch wants a count");
    return arg[0] ? lazy(x, batch_items(x, v, arg)) : NULL;
}

static const cp_val *slice_items(jj_ctx *x, const cp_val *v, const cp_val **arg)
{
    int64_t n;
    jj_list *l = cp_jj_items(x, v), *cols = cp_jj_list_new(x, 0);
    if (!l || !cp_jj_arg_int(x, arg[0], 0, &n))
        return NULL;
    if (n < 1 || n > JJ_MAX_RANGE) {
        cp_jj_fail(x, "slice: 1 to %d slices", JJ_MAX_RANGE);
        return NULL;
    }
    size_t k = (size_t)n, per = l->n / k, more = l->n % k, at = 0;
    for (size_t c = 0; c < k; c++) {
        jj_list *col = cp_jj_list_new(x, 0);
        for (size_t end = at + per + (c < more); col && at < end; at++)
            cp_jj_list_push(x, col, l->v[at]);
        if (col && arg[1] && arg[1]->type != JJ_NONE && c >= more)
            cp_jj_list_push(x, col, arg[1]);
        if (!cp_jj_step(x, 1) || !cp_jj_list_push(x, cols, cp_jj_list(x, JJ_LIST, col)))
            return NULL;
    }
    return cp_jj_gen(x, cols);
}

FILTER(f_slice)
{
    (void)rest;
    if (!arg[0])
        cp_jj_fail(x, "slice wants a count");
    return arg[0] ? lazy(x, slice_items(x, v, arg)) : NULL;
}

/* ---- groupby ---- */

FILTER(f_groupby)
{
    (void)rest;
    bool case_sensitive = cp_jj_arg_bool(arg[2], false);
    if (!arg[0]) {
        cp_jj_fail(x, "groupby wants an attribute");
        return NULL;
    }
    jj_list *l = cp_jj_items(x, v), *keys = l ? cp_jj_list_new(x, l->n) : NULL;
    jj_list *out = cp_jj_list_new(x, 0), *group = NULL;
    for (size_t i = 0; keys && i < l->n; i++) {
        const cp_val *k = attr_path(x, l->v[i], arg[0], arg[1]);
        if (k && k->type == JJ_STR && !case_sensitive)
            k = cp_jj_case(x, k, JJ_LOWER);
        if (!cp_jj_list_push(x, keys, k))
            return NULL;
    }
    if (!keys || !out || !cp_jj_sort(x, keys->v, l->v, l->n, false))
        return NULL;
    for (size_t i = 0; i < l->n; i++) {
        if (!i || !cp_jj_equal(x, keys->v[i - 1], keys->v[i])) {
            group = cp_jj_list_new(x, 0);
            const cp_val *name = attr_path(x, l->v[i], arg[0], arg[1]);
            const cp_val *items = cp_jj_list(x, JJ_LIST, group);
            if (!name || !items || !cp_jj_list_push(x, out, cp_jj_pair(x, name, items)))
                return NULL;
        }
        if (!cp_jj_list_push(x, group, l->v[i]))
            return NULL;
    }
    return to_list(x, out);
}

/* ---- map, select, reject and their attr forms ---- */

/* Positional arguments from number `from` on, keywords kept. */
static jj_args args_from(const jj_args *a, size_t from)
{
    jj_args r = *a;
    size_t skip = from < a->n_pos ? from : a->n_pos;
    r.pos += skip;
    r.n_pos -= skip;
    return r;
}

static const cp_val *kw_value(const jj_args *a, const char *name)
{
    for (size_t i = 0; i < a->n_kw; i++) {
        if (cp_jj_str_is(&a->kw[i].name->u.s, name))
            return a->kw[i].val;
    }
    return NULL;
}

static const cp_val *mapped(jj_ctx *x, const cp_val *v, const jj_args *rest)
{
    jj_list *l = cp_jj_truth(v) ? cp_jj_items(x, v) : cp_jj_list_new(x, 0);
    const cp_val *attr = rest->n_pos ? NULL : kw_value(rest, "attribute"),
                 *def = kw_value(rest, "default");
    const jj_fn_row *row = NULL;
    jj_args args = args_from(rest, 1);
    if (!attr && l && l->n) {
        if (rest->n_pos && rest->pos[0]->type == JJ_STR)
            row = cp_jj_filter_find(&rest->pos[0]->u.s);
        if (!row) {
            cp_jj_fail(x, "map wants the name of a filter or attribute=");
            return NULL;
        }
    }
    for (size_t i = 0; l && i < l->n; i++) {
        if (!cp_jj_step(x, 1))
            return NULL;
        l->v[i] = attr ? attr_path(x, l->v[i], attr, def) : cp_jj_invoke(x, row, l->v[i], &args);
        if (!l->v[i])
            return NULL;
    }
    return cp_jj_gen(x, l);
}

FILTER(f_map)
{
    (void)arg;
    return lazy(x, mapped(x, v, rest));
}

/* Keep the items whose test (by default their truth) is `want`; by_attr: the first argument names
 * an attribute. */
static const cp_val *pick(jj_ctx *x, const cp_val *v, const jj_args *rest, bool by_attr, bool want)
{
    jj_list *out = cp_jj_list_new(x, 0), *l = cp_jj_truth(v) ? cp_jj_items(x, v) : out;
    const jj_fn_row *row = NULL;
    jj_args args = args_from(rest, by_attr ? 2 : 1);
    if (!l || (l == out && x->code == CP_OK)) /* nothing there: whatever it is, it gives nothing */
        return l ? cp_jj_gen(x, out) : NULL;
    if (by_attr && !rest->n_pos) {
        cp_jj_fail(x, "selectattr and rejectattr want an attribute");
        return NULL;
    }
    if (rest->n_pos > by_attr) {
        const cp_val *name = rest->pos[by_attr];
        row = name->type == JJ_STR ? cp_jj_test_find(&name->u.s) : NULL;
        if (!row) {
            cp_jj_fail(x, "no test of that name");
            return NULL;
        }
    }
    for (size_t i = 0; l && out && i < l->n; i++) {
        const cp_val *t = by_attr ? attr_path(x, l->v[i], rest->pos[0], NULL) : l->v[i];
        t = t && row ? cp_jj_invoke(x, row, t, &args) : t;
        if (!t || !cp_jj_step(x, 1))
            return NULL;
        if (cp_jj_truth(t) == want && !cp_jj_list_push(x, out, l->v[i]))
            return NULL;
    }
    return l ? cp_jj_gen(x, out) : NULL;
}

FILTER(f_select)
{
    (void)arg;
    return lazy(x, pick(x, v, rest, false, true));
}
FILTER(f_reject)
{
    (void)arg;
    return lazy(x, pick(x, v, rest, false, false));
}
FILTER(f_selectattr)
{
    (void)arg;
    return lazy(x, pick(x, v, rest, true, true));
}
FILTER(f_rejectattr)
{
    (void)arg;
    return lazy(x, pick(x, v, rest, true, false));
}

const jj_fn_row *cp_jj_seq_find(const jj_str *name)
{
    static const jj_fn_row rows[] = {
        {"batch", "linecount fill_with", f_batch},
        {"dictsort", "case_sensitive by reverse", f_dictsort},
        {"first", "", f_first},
        {"groupby", "attribute default case_sensitive", f_groupby},
        {"items", "", f_items},
        {"join", "d attribute", f_join},
        {"last", "", f_last},
        {"list", "", f_list},
        {"map", "*", f_map},
        {"max", "case_sensitive attribute", f_max},
        {"min", "case_sensitive attribute", f_min},
        {"reject", "*", f_reject},
        {"rejectattr", "*", f_rejectattr},
        {"reverse", "", f_reverse},
        {"select", "*", f_select},
        {"selectattr", "*", f_selectattr},
        {"slice", "slices fill_with", f_slice},
        {"sort", "reverse case_sensitive attribute", f_sort},
        {"sum", "attribute start", f_sum},
        {"unique", "case_sensitive attribute", f_unique},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (cp_jj_str_is(name, rows[i].name))
            return &rows[i];
    }
    return NULL;
}
