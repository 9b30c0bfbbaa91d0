/*
 * Operations on values: truth, arithmetic, equality, order, membership, subscripts, attributes,
 * slices, iteration.
 *
 * Python's meanings, with 64-bit integers (an overflow is an error) and Jinja's fall-backs: a
 * missing member is undefined, and anything done with undefined but printing, testing and iterating
 * it is an error.
 */
#include "chat/jinja/interp.h"

#include <math.h>
#include <string.h>

static const cp_val *undefined_error(jj_ctx *x, const cp_val *v)
{
    cp_jj_fail(x, "%.*s", (int)(v->u.s.n < 300 ? v->u.s.n : 300), v->u.s.p);
    return NULL;
}

bool cp_jj_truth(const cp_val *v)
{
    size_t n;
    switch (v->type) {
    case JJ_UNDEF:
    case JJ_NONE:
        return false;
    case JJ_BOOL:
        return v->u.b;
    case JJ_INT:
        return v->u.i != 0;
    case JJ_FLOAT:
        return v->u.f < 0.0 || v->u.f > 0.0 || isnan(v->u.f);
    default:
        if (v->type == JJ_STR)
            return v->u.s.n > 0;
        return !cp_jj_len(NULL, v, &n) || n > 0; /* only a text's length is work */
    }
}

bool cp_jj_len(jj_ctx *x, const cp_val *v, size_t *n)
{
    switch (v->type) {
    case JJ_UNDEF:
        *n = 0;
        return true;
    case JJ_STR:
        *n = cp_jj_str_len_cp(x, &v->u.s);
        return true;
    case JJ_LIST:
    case JJ_TUPLE:
        *n = v->u.list->n;
        return true;
    case JJ_DICT:
        *n = v->u.dict->n;
        return true;
    case JJ_VIEW:
        *n = v->u.view.dict->n;
        return true;
    case JJ_RANGE:
        *n = (size_t)v->u.range.n;
        return true;
    default:
        return false;
    }
}

/* ---- arithmetic ---- */

static bool is_num(const cp_val *v)
{
    return v->type == JJ_INT || v->type == JJ_BOOL || v->type == JJ_FLOAT;
}
static int64_t as_int(const cp_val *v)
{
    return v->type == JJ_BOOL ? v->u.b : v->u.i;
}
static double as_float(const cp_val *v)
{
    return v->type == JJ_FLOAT ? v->u.f : (double)as_int(v);
}

static const char *op_name(jj_op op)
{
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "**"};
    return names[op];
}

static const cp_val *int_overflow(jj_ctx *x)
{
    cp_jj_fail(x, "integer overflow (64 bits)");
    return NULL;
}

static const cp_val *div_zero(jj_ctx *x)
{
    cp_jj_fail(x, "division by zero");
    return NULL;
}

static const cp_val *int_pow(jj_ctx *x, int64_t a, int64_t b)
{
    int64_t r = 1;
    if (b < 0)
        return a ? cp_jj_float(x, pow((double)a, (double)b)) : div_zero(x);
    while (b) {
        if ((b & 1) && __builtin_mul_overflow(r, a, &r))
            return int_overflow(x);
        b >>= 1;
        if (b && __builtin_mul_overflow(a, a, &a))
            return int_overflow(x);
    }
    return cp_jj_int(x, r);
}

static const cp_val *int_arith(jj_ctx *x, jj_op op, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case JJ_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case JJ_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case JJ_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case JJ_DIV:
        return b ? cp_jj_float(x, (double)a / (double)b) : div_zero(x);
    case JJ_POW:
        return int_pow(x, a, b);
    default: /* // and % round towards minus infinity */
        if (!b)
            return div_zero(x);
        if (b == -1) {
            over = op == JJ_FLOORDIV && __builtin_sub_overflow(0, a, &r);
            break;
        }
        r = op == JJ_FLOORDIV ? a / b : a % b;
        if (a % b != 0 && (a < 0) != (b < 0))
            r += op == JJ_FLOORDIV ? -1 : b;
        break;
    }
    return over ? int_overflow(x) : cp_jj_int(x, r);
}

static const cp_val *float_arith(jj_ctx *x, jj_op op, double a, double b)
{
    double m;
    switch (op) {
    case JJ_ADD:
        return cp_jj_float(x, a + b);
    case JJ_SUB:
        return cp_jj_float(x, a - b);
    case JJ_MUL:
        return cp_jj_float(x, a * b);
    case JJ_POW:
        m = pow(a, b);
        if (isinf(m) && isfinite(a) && isfinite(b)) {
            cp_jj_fail(x, "numeric result out of range");
            return NULL;
        }
        if (isnan(m) && !isnan(a) && !isnan(b)) {
            cp_jj_fail(x, "a complex number results, which is not built");
            return NULL;
        }
        return cp_jj_float(x, m);
    default:
        break;
    }
    if (!(b < 0.0 || b > 0.0 || isnan(b)))
        return div_zero(x);
    if (op == JJ_DIV)
        return cp_jj_float(x, a / b);
    if (!cp_jj_step(x, JJ_FLOAT_STEPS)) /* fmod takes a step a bit that the exponents differ in */
        return NULL;
    m = fmod(a, b);
    if ((m < 0.0 || m > 0.0) && (m < 0.0) != (b < 0.0))
        m += b;
    else if (!(m < 0.0 || m > 0.0))
        m = copysign(0.0, b);
    if (op == JJ_MOD)
        return cp_jj_float(x, m);
    double q = (a - m) / b, f = floor(q);
    return cp_jj_float(x, q - f > 0.5 ? f + 1.0 : f);
}

static const cp_val *type_error(jj_ctx *x, const char *op, const cp_val *a, const cp_val *b)
{
    if (a->type == JJ_UNDEF || b->type == JJ_UNDEF)
        return undefined_error(x, a->type == JJ_UNDEF ? a : b);
    cp_jj_fail(x, "%s does not work on %s and %s", op, cp_jj_type_name(a), cp_jj_type_name(b));
    return NULL;
}

/* total bytes of s over and over; all of s is marked or nothing. Doubles what is there. */
static const cp_val *repeat_plain(jj_ctx *x, const jj_str *s, size_t total)
{
    char *p = total && cp_jj_work(x, total, JJ_COPY) ? cp_jj_alloc(x, total + 1) : NULL;
    cp_val *v = p ? cp_jj_alloc(x, sizeof(*v)) : NULL;
    if (!v)
        return x->code == CP_OK ? &cp_jj_empty : NULL;
    memcpy(p, s->p, s->n);
    for (size_t n = s->n, more; n < total; n += more) {
        more = n < total - n ? n : total - n;
        memcpy(p + n, p, more);
    }
    v->type = JJ_STR;
    v->u.s = (jj_str){.p = p, .n = total, .all = s->all};
    return v;
}

static const cp_val *repeat(jj_ctx *x, const cp_val *seq, int64_t times)
{
    size_t n = seq->type == JJ_STR ? seq->u.s.n : seq->u.list->n, total;
    size_t limit = seq->type == JJ_STR ? JJ_MAX_OUTPUT : JJ_MAX_RANGE;
    size_t k = times < 0 ? 0 : (size_t)times;
    if (!n)
        k = 0;
    if (!cp_mul(n, k, &total) || total > limit) {
        cp_jj_fail(x, "a repetition is larger than %zu", limit);
        return NULL;
    }
    if (seq->type == JJ_STR && !seq->u.s.n_spans)
        return repeat_plain(x, &seq->u.s, total);
    if (seq->type == JJ_STR) {
        jj_sb b = {.a = x->a};
        for (; k; k--) {
            if (!cp_jj_sb_add_str(x, &b, &seq->u.s, 0, n))
                return NULL;
        }
        return cp_jj_sb_take(x, &b);
    }
    jj_list *l = cp_jj_work_items(x, total) ? cp_jj_list_new(x, total) : NULL;
    for (size_t i = 0; l && i < total; i++)
        cp_jj_list_push(x, l, seq->u.list->v[i % n]);
    return cp_jj_list(x, seq->type, l);
}

static bool is_seq(const cp_val *v)
{
    return v->type == JJ_STR || v->type == JJ_LIST || v->type == JJ_TUPLE;
}

const cp_val *cp_jj_arith(jj_ctx *x, jj_op op, const cp_val *a, const cp_val *b)
{
    if (is_num(a) && is_num(b)) {
        if (a->type != JJ_FLOAT && b->type != JJ_FLOAT)
            return int_arith(x, op, as_int(a), as_int(b));
        return float_arith(x, op, as_float(a), as_float(b));
    }
    if (op == JJ_ADD && a->type == JJ_STR && b->type == JJ_STR)
        return cp_jj_concat(x, a, b);
    if (op == JJ_ADD && a->type == b->type && (a->type == JJ_LIST || a->type == JJ_TUPLE)) {
        size_t n = a->u.list->n + b->u.list->n;
        jj_list *l = cp_jj_work_items(x, n) ? cp_jj_list_new(x, n) : NULL;
        if (!l)
            return NULL;
        for (size_t i = 0; i < a->u.list->n; i++)
            cp_jj_list_push(x, l, a->u.list->v[i]);
        for (size_t i = 0; i < b->u.list->n; i++)
            cp_jj_list_push(x, l, b->u.list->v[i]);
        return cp_jj_list(x, a->type, l);
    }
    if (op == JJ_MUL && is_seq(a) && (b->type == JJ_INT || b->type == JJ_BOOL))
        return repeat(x, a, as_int(b));
    if (op == JJ_MUL && is_seq(b) && (a->type == JJ_INT || a->type == JJ_BOOL))
        return repeat(x, b, as_int(a));
    if (op == JJ_MOD && a->type == JJ_STR)
        return cp_jj_printf(x, &a->u.s, b);
    return type_error(x, op_name(op), a, b);
}

const cp_val *cp_jj_negate(jj_ctx *x, const cp_val *v, bool minus)
{
    int64_t r;
    if (v->type == JJ_UNDEF)
        return undefined_error(x, v);
    if (v->type == JJ_FLOAT)
        return cp_jj_float(x, minus ? -v->u.f : v->u.f);
    if (!is_num(v)) {
        cp_jj_fail(x, "unary %c does not work on %s", minus ? '-' : '+', cp_jj_type_name(v));
        return NULL;
    }
    if (!minus)
        return cp_jj_int(x, as_int(v));
    return __builtin_sub_overflow(0, as_int(v), &r) ? int_overflow(x) : cp_jj_int(x, r);
}

/* ---- equality and order ---- */

static int cmp_str(const jj_str *a, const jj_str *b)
{
    size_t n = a->n < b->n ? a->n : b->n;
    int c = n ? memcmp(a->p, b->p, n) : 0;
    return c ? (c > 0) - (c < 0) : (a->n > b->n) - (a->n < b->n);
}

/* Exact comparison of numbers; *cmp 2 when unordered (NaN). */
static int cmp_num(const cp_val *a, const cp_val *b)
{
    if (a->type != JJ_FLOAT && b->type != JJ_FLOAT) {
        int64_t i = as_int(a), j = as_int(b);
        return (i > j) - (i < j);
    }
    double f = as_float(a), g = as_float(b);
    if (isnan(f) || isnan(g))
        return 2;
    return (f > g) - (f < g);
}

static bool equal_at(jj_ctx *x, const cp_val *a, const cp_val *b, int depth)
{
    if (!cp_jj_step(x, 1))
        return false;
    if (a == b && a->type != JJ_FLOAT)
        return true;
    if (depth > JJ_MAX_DEPTH) {
        cp_jj_fail(x, "compared values are nested too deeply (limit %d)", JJ_MAX_DEPTH);
        return false;
    }
    if (is_num(a) && is_num(b))
        return cmp_num(a, b) == 0;
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case JJ_UNDEF:
    case JJ_NONE:
        return true;
    case JJ_STR:
        return a->u.s.n == b->u.s.n && cp_jj_work(x, a->u.s.n, JJ_COPY) &&
               cmp_str(&a->u.s, &b->u.s) == 0;
    case JJ_LIST:
    case JJ_TUPLE:
        if (a->u.list->n != b->u.list->n)
            return false;
        for (size_t i = 0; i < a->u.list->n; i++) {
            if (!equal_at(x, a->u.list->v[i], b->u.list->v[i], depth + 1))
                return false;
        }
        return true;
    case JJ_DICT:
        if (a->u.dict->n != b->u.dict->n || !cp_jj_work_items(x, a->u.dict->n))
            return false;
        for (size_t i = 0; i < a->u.dict->n; i++) {
            const jj_entry *e = &a->u.dict->e[i];
            const cp_val *o = cp_jj_dict_get(x, b->u.dict, e->key);
            if (!o || !equal_at(x, e->val, o, depth + 1))
                return false;
        }
        return true;
    case JJ_FUNC:
        return a->u.func.row == b->u.func.row && a->u.func.self == b->u.func.self;
    case JJ_RANGE:
        return a->u.range.n == b->u.range.n &&
               (a->u.range.n == 0 || (a->u.range.start == b->u.range.start &&
                                      (a->u.range.n == 1 || a->u.range.step == b->u.range.step)));
    default:
        return false;
    }
}

bool cp_jj_equal(jj_ctx *x, const cp_val *a, const cp_val *b)
{
    return equal_at(x, a, b, 0);
}

static bool compare_at(jj_ctx *x, const char *op, const cp_val *a, const cp_val *b, int *cmp,
                       int depth)
{
    if (!cp_jj_step(x, 1))
        return false;
    if (depth > JJ_MAX_DEPTH) {
        cp_jj_fail(x, "compared values are nested too deeply (limit %d)", JJ_MAX_DEPTH);
        return false;
    }
    if (is_num(a) && is_num(b)) {
        *cmp = cmp_num(a, b);
        return true;
    }
    if (a->type == JJ_STR && b->type == JJ_STR) {
        *cmp = cmp_str(&a->u.s, &b->u.s);
        return cp_jj_work(x, a->u.s.n < b->u.s.n ? a->u.s.n : b->u.s.n, JJ_COPY);
    }
    if (a->type == b->type && (a->type == JJ_LIST || a->type == JJ_TUPLE)) {
        const jj_list *l = a->u.list, *m = b->u.list;
        for (size_t i = 0; i < l->n && i < m->n; i++) {
            if (!equal_at(x, l->v[i], m->v[i], depth + 1))
                return x->code == CP_OK && compare_at(x, op, l->v[i], m->v[i], cmp, depth + 1);
        }
        *cmp = (l->n > m->n) - (l->n < m->n);
        return x->code == CP_OK;
    }
    type_error(x, op, a, b);
    return false;
}

bool cp_jj_compare(jj_ctx *x, const char *op, const cp_val *a, const cp_val *b, int *cmp)
{
    return compare_at(x, op, a, b, cmp, 0);
}

bool cp_jj_contains(jj_ctx *x, const cp_val *seq, const cp_val *item, bool *found)
{
    *found = false;
    switch (seq->type) {
    case JJ_STR:
        if (item->type != JJ_STR) {
            cp_jj_fail(x, "'in <str>' wants a str on the left, not %s", cp_jj_type_name(item));
            return false;
        }
        *found = !item->u.s.n || cp_jj_find(x, &seq->u.s, 0, &item->u.s) < seq->u.s.n;
        return x->code == CP_OK;
    case JJ_DICT:
        *found = cp_jj_dict_get(x, seq->u.dict, item) != NULL;
        return x->code == CP_OK;
    case JJ_VIEW:
        if (seq->u.view.kind == JJ_KEYS) {
            *found = cp_jj_dict_get(x, seq->u.view.dict, item) != NULL;
            return x->code == CP_OK;
        }
        break;
    default:
        break;
    }
    if (!cp_jj_is_iterable(seq)) {
        cp_jj_fail(x, "'in' does not work on a %s", cp_jj_type_name(seq));
        return false;
    }
    bool direct = seq->type == JJ_LIST || seq->type == JJ_TUPLE;
    jj_list *l = direct ? seq->u.list : cp_jj_items(x, seq);
    for (size_t i = 0; l && i < l->n && !*found && x->code == CP_OK; i++)
        *found = cp_jj_equal(x, l->v[i], item);
    return x->code == CP_OK;
}

bool cp_jj_relation(jj_ctx *x, jj_op op, const cp_val *a, const cp_val *b, bool *result)
{
    static const char *const names[] = {"<", "<=", ">", ">="};
    int c = 0;
    switch (op) {
    case JJ_EQ:
    case JJ_NE:
        *result = cp_jj_equal(x, a, b) == (op == JJ_EQ);
        return x->code == CP_OK;
    case JJ_IN:
    case JJ_NOTIN:
        if (!cp_jj_contains(x, b, a, result))
            return false;
        *result = *result == (op == JJ_IN);
        return true;
    default:
        if (!cp_jj_compare(x, names[op - JJ_LT], a, b, &c))
            return false;
        *result = c != 2 && (op == JJ_LT   ? c < 0
                             : op == JJ_LE ? c <= 0
                             : op == JJ_GT ? c > 0
                                           : c >= 0);
        return true;
    }
}

/* ---- members ---- */

/* Item i (i < n), which fits although i * step may not. */
static const cp_val *range_at(jj_ctx *x, const cp_val *r, int64_t i)
{
    uint64_t v = (uint64_t)r->u.range.start + (uint64_t)i * (uint64_t)r->u.range.step;
    return cp_jj_int(x, (int64_t)v);
}

static const cp_val *no_item(jj_ctx *x, const cp_val *v, const cp_val *key)
{
    if (key->type == JJ_STR)
        return cp_jj_undefined(x, "'%s object' has no attribute '%.*s'", cp_jj_type_name(v),
                               (int)(key->u.s.n < 60 ? key->u.s.n : 60), key->u.s.p);
    if (key->type == JJ_INT)
        return cp_jj_undefined(x, "'%s object' has no element %lld", cp_jj_type_name(v),
                               (long long)key->u.i);
    return cp_jj_undefined(x, "'%s object' has no such element", cp_jj_type_name(v));
}

/* An attribute proper: a method, a member of a namespace, a value of loop. NULL: none (or a
 * failure). */
static const cp_val *attribute(jj_ctx *x, const cp_val *v, const cp_val *name)
{
    if (v->type == JJ_NS)
        return cp_jj_dict_get(x, v->u.dict, name);
    if (v->type == JJ_LOOP)
        return cp_jj_loop_attr(x, v->u.loop, &name->u.s);
    if (v->type == JJ_MACRO)
        return cp_jj_str_is(&name->u.s, "name") ? v->u.macro.node->val : NULL;
    const jj_fn_row *row = cp_jj_method_find(v->type, &name->u.s);
    if (row && !row->fn)
        return cp_jj_undefined(x, "access to attribute '%s' of '%s' object is unsafe", row->name,
                               cp_jj_type_name(v));
    cp_val *f = row ? cp_jj_alloc(x, sizeof(*f)) : NULL;
    if (!f)
        return NULL;
    f->type = JJ_FUNC;
    f->u.func.row = row;
    f->u.func.self = v;
    return f;
}

/* v[key] proper; NULL: none (or a failure). */
static const cp_val *element(jj_ctx *x, const cp_val *v, const cp_val *key)
{
    size_t n;
    if (v->type == JJ_DICT) {
        if (key->type == JJ_LIST || key->type == JJ_DICT)
            return NULL;
        return cp_jj_dict_get(x, v->u.dict, key);
    }
    bool indexed = is_seq(v) || v->type == JJ_RANGE;
    if (!indexed || (key->type != JJ_INT && key->type != JJ_BOOL))
        return NULL;
    int64_t i = as_int(key);
    if (v->type == JJ_STR && i >= 0) { /* the text's length is not asked for */
        n = (size_t)i < v->u.s.n ? SIZE_MAX : 0;
    } else if (!cp_jj_len(x, v, &n)) {
        return NULL;
    }
    if (i < 0)
        i += (int64_t)n;
    if (i < 0 || (size_t)i >= n)
        return NULL;
    if (v->type == JJ_RANGE)
        return range_at(x, v, i);
    if (v->type != JJ_STR)
        return v->u.list->v[i];
    size_t off = cp_jj_str_off_cp(x, &v->u.s, (size_t)i);
    uint32_t cp;
    if (off >= v->u.s.n)
        return NULL;
    return cp_jj_sub(x, v, off, off + cp_jj_utf8_next(v->u.s.p, v->u.s.n, off, &cp));
}

const cp_val *cp_jj_getitem(jj_ctx *x, const cp_val *v, const cp_val *key)
{
    if (v->type == JJ_UNDEF)
        return undefined_error(x, v);
    const cp_val *r = element(x, v, key);
    if (!r && x->code == CP_OK && key->type == JJ_STR)
        r = attribute(x, v, key);
    return r || x->code != CP_OK ? r : no_item(x, v, key);
}

const cp_val *cp_jj_getattr(jj_ctx *x, const cp_val *v, const cp_val *name)
{
    if (v->type == JJ_UNDEF)
        return undefined_error(x, v);
    const cp_val *r = attribute(x, v, name);
    if (!r && x->code == CP_OK && v->type == JJ_DICT)
        r = cp_jj_dict_get(x, v->u.dict, name);
    return r || x->code != CP_OK ? r : no_item(x, v, name);
}

/* ---- slices ---- */

/* One bound as Python's slice.indices gives it; false: not an int. */
static bool slice_bound(const cp_val *v, int64_t n, int64_t step, int64_t def, int64_t *out)
{
    *out = def;
    if (!v || v->type == JJ_NONE)
        return true;
    if (v->type != JJ_INT && v->type != JJ_BOOL)
        return false;
    int64_t i = as_int(v), low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    if (i < 0)
        i = i < -n ? -1 - n : i; /* keeps i + n in range */
    if (i < 0)
        i += n;
    *out = i < low ? low : i > high ? high : i;
    return true;
}

static const cp_val *slice_str(jj_ctx *x, const cp_val *v, int64_t b, int64_t step, int64_t count)
{
    const jj_str *s = &v->u.s;
    if (count == 0)
        return &cp_jj_empty;
    if (step == 1) {
        size_t from = cp_jj_str_off_cp(x, s, (size_t)b);
        jj_str rest = {.p = s->p + from, .n = s->n - from};
        return cp_jj_sub(x, v, from, from + cp_jj_str_off_cp(x, &rest, (size_t)count));
    }
    /* Offsets of all code points, then the chosen ones. */
    size_t n = cp_jj_str_len_cp(x, s), off = 0;
    bool paid = cp_jj_work(x, s->n, JJ_SCAN);
    size_t *at = paid ? cp_jj_alloc(x, (n + 1) * sizeof(*at)) : NULL;
    jj_sb out = {.a = x->a};
    if (!at)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        uint32_t cp;
        at[i] = off;
        off += cp_jj_utf8_next(s->p, s->n, off, &cp);
    }
    at[n] = s->n;
    for (int64_t i = b; count; i += step, count--) {
        if (!cp_jj_sb_add_str(x, &out, s, at[i], at[i + 1]))
            return NULL;
    }
    return cp_jj_sb_take(x, &out);
}

const cp_val *cp_jj_slice(jj_ctx *x, const cp_val *v, const cp_val *begin, const cp_val *end,
                          const cp_val *step)
{
    size_t len;
    int64_t by = 1, b, e;
    if (v->type == JJ_UNDEF)
        return undefined_error(x, v);
    if (!is_seq(v) && v->type != JJ_RANGE) {
        cp_jj_fail(x, "a %s cannot be sliced", cp_jj_type_name(v));
        return NULL;
    }
    if (!cp_jj_len(x, v, &len))
        return NULL;
    int64_t n = (int64_t)len;
    bool ok = true;
    if (step && step->type != JJ_NONE) {
        ok = step->type == JJ_INT || step->type == JJ_BOOL;
        by = ok ? as_int(step) : 1;
    }
    if (ok && !by) {
        cp_jj_fail(x, "a slice step cannot be zero");
        return NULL;
    }
    by = by < -JJ_MAX_OUTPUT ? -JJ_MAX_OUTPUT : by > JJ_MAX_OUTPUT ? JJ_MAX_OUTPUT : by;
    if (!ok || !slice_bound(begin, n, by, by < 0 ? n - 1 : 0, &b) ||
        !slice_bound(end, n, by, by < 0 ? -1 : n, &e)) {
        cp_jj_fail(x, "slice indices must be integers");
        return NULL;
    }
    int64_t count =
        by > 0 ? (e > b ? (e - b + by - 1) / by : 0) : (b > e ? (b - e - by - 1) / -by : 0);
    if (v->type == JJ_STR)
        return slice_str(x, v, b, by, count);
    if (v->type == JJ_RANGE) {
        int64_t first = v->u.range.start, each = v->u.range.step, from, to;
        cp_val *r = cp_jj_alloc(x, sizeof(*r));
        if (!r)
            return NULL;
        if (__builtin_mul_overflow(b, each, &from) || __builtin_add_overflow(from, first, &from) ||
            __builtin_mul_overflow(e, each, &to) || __builtin_add_overflow(to, first, &to) ||
            __builtin_mul_overflow(each, by, &each))
            return int_overflow(x);
        r->type = JJ_RANGE;
        r->u.range.start = from;
        r->u.range.stop = to;
        r->u.range.step = each;
        r->u.range.n = count;
        return r;
    }
    bool paid = cp_jj_work_items(x, (size_t)count);
    jj_list *l = paid ? cp_jj_list_new(x, (size_t)count) : NULL;
    for (int64_t i = b; l && count; i += by, count--)
        cp_jj_list_push(x, l, v->u.list->v[i]);
    return cp_jj_list(x, v->type, l);
}

/* ---- iteration ---- */

bool cp_jj_is_iterable(const cp_val *v)
{
    switch (v->type) {
    case JJ_UNDEF:
    case JJ_STR:
    case JJ_LIST:
    case JJ_TUPLE:
    case JJ_DICT:
    case JJ_VIEW:
    case JJ_GEN:
    case JJ_RANGE:
        return true;
    default:
        return false;
    }
}

static jj_list *chars(jj_ctx *x, const cp_val *v)
{
    const jj_str *s = &v->u.s;
    jj_list *l = cp_jj_list_new(x, 0);
    for (size_t off = 0; l && off < s->n;) {
        uint32_t cp;
        size_t k = cp_jj_utf8_next(s->p, s->n, off, &cp);
        if (!cp_jj_step(x, 1) || !cp_jj_list_push(x, l, cp_jj_sub(x, v, off, off + k)))
            return NULL;
        off += k;
    }
    return l;
}

jj_list *cp_jj_items(jj_ctx *x, const cp_val *v)
{
    jj_list *l;
    size_t n;
    switch (v->type) {
    case JJ_UNDEF:
        return cp_jj_list_new(x, 0);
    case JJ_STR:
        return chars(x, v);
    case JJ_LIST:
    case JJ_TUPLE:
        n = v->u.list->n;
        l = cp_jj_work_items(x, n) ? cp_jj_list_new(x, n) : NULL;
        if (l && n)
            memcpy(l->v, v->u.list->v, n * sizeof(*l->v));
        if (l)
            l->n = n;
        return l;
    case JJ_DICT:
        return cp_jj_dict_list(x, v->u.dict, JJ_KEYS);
    case JJ_VIEW:
        return cp_jj_dict_list(x, v->u.view.dict, v->u.view.kind);
    case JJ_GEN:
        if (v->u.gen->why) {
            cp_jj_fail(x, "%s", v->u.gen->why);
            return NULL;
        }
        n = v->u.gen->items->n - v->u.gen->pos;
        l = cp_jj_work_items(x, n) ? cp_jj_list_new(x, n) : NULL;
        if (l && n)
            memcpy(l->v, v->u.gen->items->v + v->u.gen->pos, n * sizeof(*l->v));
        if (l)
            l->n = n;
        v->u.gen->pos = v->u.gen->items->n;
        return l;
    case JJ_RANGE:
        l = cp_jj_list_new(x, 0);
        for (int64_t i = 0; l && i < v->u.range.n; i++) {
            if (!cp_jj_step(x, 1) || !cp_jj_list_push(x, l, range_at(x, v, i)))
                return NULL;
        }
        return l;
    default:
        cp_jj_fail(x, "a %s cannot be iterated", cp_jj_type_name(v));
        return NULL;
    }
}
