/*
 * Tests (`x is defined`, `x is divisibleby 3`): a row each.
 */
#include "chat/jinja/interp.h"

#define TEST(name)                                                                                 \
    static const cp_val *name(jj_ctx *x, const cp_val *v, const cp_val **arg, const jj_args *rest)
#define SIMPLE(name, cond)                                                                         \
    TEST(name)                                                                                     \
    {                                                                                              \
        (void)x, (void)v, (void)arg, (void)rest;                                                   \
        return cp_jj_bool(cond);                                                                   \
    }

SIMPLE(t_defined, v->type != JJ_UNDEF)
SIMPLE(t_undefined, v->type == JJ_UNDEF)
SIMPLE(t_none, v->type == JJ_NONE)
SIMPLE(t_boolean, v->type == JJ_BOOL)
SIMPLE(t_true, v->type == JJ_BOOL && v->u.b)
SIMPLE(t_false, v->type == JJ_BOOL && !v->u.b)
SIMPLE(t_integer, v->type == JJ_INT)
SIMPLE(t_float, v->type == JJ_FLOAT)
SIMPLE(t_number, v->type == JJ_INT || v->type == JJ_FLOAT || v->type == JJ_BOOL)
SIMPLE(t_string, v->type == JJ_STR)
SIMPLE(t_mapping, v->type == JJ_DICT)
SIMPLE(t_iterable, cp_jj_is_iterable(v))
/* Python's undefined and loop objects have a __call__, which then fails. */
SIMPLE(t_callable,
       v->type == JJ_FUNC || v->type == JJ_MACRO || v->type == JJ_UNDEF || v->type == JJ_LOOP)
SIMPLE(t_escaped, false)
/* Has a length and can be subscribed. */
SIMPLE(t_sequence, v->type == JJ_STR || v->type == JJ_LIST || v->type == JJ_TUPLE ||
                       v->type == JJ_DICT || v->type == JJ_RANGE || v->type == JJ_UNDEF)

static const cp_val *remainder_is(jj_ctx *x, const cp_val *v, const cp_val *by, bool want_zero)
{
    const cp_val *m = cp_jj_arith(x, JJ_MOD, v, by);
    return m ? cp_jj_bool(cp_jj_truth(m) != want_zero) : NULL;
}

TEST(t_odd)
{
    const cp_val two = {.type = JJ_INT, .u.i = 2};
    (void)arg, (void)rest;
    const cp_val *m = v->type == JJ_STR ? NULL : cp_jj_arith(x, JJ_MOD, v, &two);
    if (!m)
        cp_jj_fail(x, "odd works on a number, not %s", cp_jj_type_name(v));
    const cp_val one = {.type = JJ_INT, .u.i = 1};
    return m ? cp_jj_bool(cp_jj_equal(x, m, &one)) : NULL;
}

TEST(t_even)
{
    const cp_val two = {.type = JJ_INT, .u.i = 2};
    (void)arg, (void)rest;
    if (v->type == JJ_STR)
        cp_jj_fail(x, "even works on a number, not str");
    return v->type == JJ_STR ? NULL : remainder_is(x, v, &two, true);
}

static bool has_arg(jj_ctx *x, const cp_val *a)
{
    if (!a)
        cp_jj_fail(x, "the test wants an argument");
    return a != NULL;
}

TEST(t_divisibleby)
{
    (void)rest;
    return has_arg(x, arg[0]) ? remainder_is(x, v, arg[0], true) : NULL;
}

static const cp_val *relation(jj_ctx *x, jj_op op, const cp_val *v, const cp_val *arg)
{
    bool r;
    return has_arg(x, arg) && cp_jj_relation(x, op, v, arg, &r) ? cp_jj_bool(r) : NULL;
}

#define RELATION(name, op)                                                                         \
    TEST(name)                                                                                     \
    {                                                                                              \
        (void)rest;                                                                                \
        return relation(x, op, v, arg[0]);                                                         \
    }

RELATION(t_eq, JJ_EQ)
RELATION(t_ne, JJ_NE)
RELATION(t_lt, JJ_LT)
RELATION(t_le, JJ_LE)
RELATION(t_gt, JJ_GT)
RELATION(t_ge, JJ_GE)
RELATION(t_in, JJ_IN)

/* Identity; values that Python keeps once (none, bools) by value, small texts and numbers too. */
TEST(t_sameas)
{
    (void)rest;
    if (!has_arg(x, arg[0]))
        return NULL;
    if (v == arg[0] || v->type != arg[0]->type)
        return cp_jj_bool(v == arg[0]);
    bool scalar =
        v->type == JJ_NONE || v->type == JJ_BOOL || v->type == JJ_INT || v->type == JJ_STR;
    return cp_jj_bool(scalar ? cp_jj_equal(x, v, arg[0]) : v->u.list == arg[0]->u.list);
}

/* Some character has case, and none has the other one. */
static const cp_val *all_case(jj_ctx *x, const cp_val *v, bool upper)
{
    bool some = false;
    v = cp_jj_to_str(x, v);
    if (!v || !cp_jj_work(x, v->u.s.n, JJ_MAP))
        return NULL;
    for (size_t off = 0; off < v->u.s.n;) {
        uint32_t cp;
        off += cp_jj_utf8_next(v->u.s.p, v->u.s.n, off, &cp);
        bool is_up = cp_jj_is_upper(cp), is_low = cp_jj_is_lower(cp);
        if (cp_jj_is_title(cp) || (upper ? is_low : is_up))
            return &cp_jj_false;
        some = some || is_up || is_low;
    }
    return cp_jj_bool(some);
}

TEST(t_upper)
{
    (void)arg, (void)rest;
    return all_case(x, v, true);
}
TEST(t_lower)
{
    (void)arg, (void)rest;
    return all_case(x, v, false);
}
TEST(t_filter)
{
    (void)x, (void)arg, (void)rest;
    return cp_jj_bool(v->type == JJ_STR && cp_jj_filter_find(&v->u.s));
}
TEST(t_test)
{
    (void)x, (void)arg, (void)rest;
    return cp_jj_bool(v->type == JJ_STR && cp_jj_test_find(&v->u.s));
}

const jj_fn_row *cp_jj_test_find(const jj_str *name)
{
    static const jj_fn_row rows[] = {
        {"!=", "other", t_ne},
        {"<", "other", t_lt},
        {"<=", "other", t_le},
        {"==", "other", t_eq},
        {">", "other", t_gt},
        {">=", "other", t_ge},
        {"boolean", "", t_boolean},
        {"callable", "", t_callable},
        {"defined", "", t_defined},
        {"divisibleby", "num", t_divisibleby},
        {"eq", "other", t_eq},
        {"equalto", "other", t_eq},
        {"escaped", "", t_escaped},
        {"even", "", t_even},
        {"false", "", t_false},
        {"filter", "", t_filter},
        {"float", "", t_float},
        {"ge", "other", t_ge},
        {"greaterthan", "other", t_gt},
        {"gt", "other", t_gt},
        {"in", "seq", t_in},
        {"integer", "", t_integer},
        {"iterable", "", t_iterable},
        {"le", "other", t_le},
        {"lessthan", "other", t_lt},
        {"lower", "", t_lower},
        {"lt", "other", t_lt},
        {"mapping", "", t_mapping},
        {"ne", "other", t_ne},
        {"none", "", t_none},
        {"number", "", t_number},
        {"odd", "", t_odd},
        {"sameas", "other", t_sameas},
        {"sequence", "", t_sequence},
        {"string", "", t_string},
        {"test", "", t_test},
        {"true", "", t_true},
        {"undefined", "", t_undefined},
        {"upper", "", t_upper},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (cp_jj_str_is(name, rows[i].name))
            return &rows[i];
    }
    return NULL;
}
