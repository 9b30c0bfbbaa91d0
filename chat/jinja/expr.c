/*
 * Parser, expressions. Precedence from loosest: x if c else y, or, and, not, comparisons (chained)
 * and in, + -, ~,
 * * / // %, unary, **, then postfix . [] () and, tight as in Jinja, filters and tests: `a + b|f` is
 * `a + (b|f)`.
 *
 * Chains of one level are flat lists, so their length does not nest; what nests is bounded by
 * JJ_MAX_DEPTH while parsing and by JJ_MAX_HEIGHT for the finished tree (long chains of members and
 * filters).
 */
#include "chat/jinja/interp.h"

#include <string.h>

static jj_node *parse_unary(jj_parser *p, bool with_filter);

static bool is_keyword_value(const jj_parser *p, const char *a, const char *b)
{
    return cp_jj_at_name(p, a) || cp_jj_at_name(p, b);
}

/* Set n's height from a child's; a failure when it grows too high. */
static bool grow(jj_parser *p, jj_node *n, const jj_node *child)
{
    if (!child)
        return p->x->code == CP_OK;
    if (child->height >= n->height)
        n->height = (uint16_t)(child->height + 1);
    if (n->height <= JJ_MAX_HEIGHT)
        return true;
    p->x->line = n->line;
    cp_jj_fail(p->x, "an expression is nested too deeply (limit %d)", JJ_MAX_HEIGHT);
    return false;
}

/* Take a finished list of children; NULL on failure. */
static jj_node *adopt(jj_parser *p, jj_node *n, const jj_nodes *l)
{
    n->list = l->v;
    n->n_list = l->n;
    for (uint32_t i = 0; i < l->n; i++) {
        if (!grow(p, n, l->v[i]))
            return NULL;
    }
    return n;
}

static jj_node *node1(jj_parser *p, jj_kind kind, jj_node *a)
{
    jj_node *n = a ? cp_jj_node(p, kind) : NULL;
    if (!n)
        return NULL;
    n->a = a;
    return grow(p, n, a) ? n : NULL;
}

static jj_node *const_node(jj_parser *p, const cp_val *v)
{
    jj_node *n = v ? cp_jj_node(p, JJ_N_CONST) : NULL;
    if (n)
        n->val = v;
    return n;
}

/* ---- binary chains ---- */

typedef struct ops {
    uint8_t *v;
    uint32_t n, cap;
} ops;

static bool ops_push(jj_parser *p, ops *o, jj_op op)
{
    if (o->n == o->cap) {
        uint32_t cap = o->cap ? o->cap * 2 : 8;
        uint8_t *v = cp_jj_alloc(p->x, cap);
        if (!v)
            return false;
        if (o->n)
            memcpy(v, o->v, o->n);
        o->v = v;
        o->cap = cap;
    }
    o->v[o->n++] = (uint8_t)op;
    return true;
}

typedef jj_node *parse_fn(jj_parser *p);
typedef bool match_fn(jj_parser *p, jj_op *op); /* consumes an operator of the level */

/* operand (op operand)*; a single operand is returned as it is. */
static jj_node *parse_chain(jj_parser *p, jj_kind kind, parse_fn *operand, match_fn *match)
{
    jj_node *first = operand(p);
    jj_op op;
    if (!first || !match(p, &op))
        return first;
    jj_node *n = cp_jj_node(p, kind);
    jj_nodes list = {0};
    ops o = {0};
    if (!n || !cp_jj_nodes_push(p, &list, first))
        return NULL;
    n->line = first->line;
    do {
        if (!ops_push(p, &o, op) || !cp_jj_nodes_push(p, &list, operand(p)))
            return NULL;
    } while (match(p, &op));
    n->ops = o.v;
    return adopt(p, n, &list);
}

static bool match_pow(jj_parser *p, jj_op *op)
{
    *op = JJ_POW;
    return cp_jj_skip_op(p, JJ_OP2('*', '*'));
}

static bool match_mul(jj_parser *p, jj_op *op)
{
    if (cp_jj_skip_op(p, JJ_OP1('*')))
        *op = JJ_MUL;
    else if (cp_jj_skip_op(p, JJ_OP1('/')))
        *op = JJ_DIV;
    else if (cp_jj_skip_op(p, JJ_OP2('/', '/')))
        *op = JJ_FLOORDIV;
    else if (cp_jj_skip_op(p, JJ_OP1('%')))
        *op = JJ_MOD;
    else
        return false;
    return true;
}

static bool match_concat(jj_parser *p, jj_op *op)
{
    *op = JJ_ADD;
    return cp_jj_skip_op(p, JJ_OP1('~'));
}

static bool match_add(jj_parser *p, jj_op *op)
{
    *op = cp_jj_at_op(p, JJ_OP1('-')) ? JJ_SUB : JJ_ADD;
    return cp_jj_skip_op(p, JJ_OP1('+')) || cp_jj_skip_op(p, JJ_OP1('-'));
}

static bool match_compare(jj_parser *p, jj_op *op)
{
    static const struct {
        uint16_t tok;
        jj_op op;
    } rows[] = {{JJ_OP2('=', '='), JJ_EQ}, {JJ_OP2('!', '='), JJ_NE}, {JJ_OP1('<'), JJ_LT},
                {JJ_OP2('<', '='), JJ_LE}, {JJ_OP1('>'), JJ_GT},      {JJ_OP2('>', '='), JJ_GE}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (cp_jj_skip_op(p, rows[i].tok)) {
            *op = rows[i].op;
            return true;
        }
    }
    *op = JJ_IN;
    if (cp_jj_skip_name(p, "in"))
        return true;
    if (!cp_jj_at_name(p, "not"))
        return false;
    p->t++; /* the token after a name exists: the list ends with EOF */
    if (cp_jj_skip_name(p, "in")) {
        *op = JJ_NOTIN;
        return true;
    }
    p->t--;
    return false;
}

static bool match_and(jj_parser *p, jj_op *op)
{
    *op = JJ_EQ;
    return cp_jj_skip_name(p, "and");
}

static bool match_or(jj_parser *p, jj_op *op)
{
    *op = JJ_EQ;
    return cp_jj_skip_name(p, "or");
}

static jj_node *parse_operand(jj_parser *p)
{
    return parse_unary(p, true);
}
static jj_node *parse_pow(jj_parser *p)
{
    return parse_chain(p, JJ_N_ARITH, parse_operand, match_pow);
}
static jj_node *parse_mul(jj_parser *p)
{
    return parse_chain(p, JJ_N_ARITH, parse_pow, match_mul);
}
static jj_node *parse_concat(jj_parser *p)
{
    return parse_chain(p, JJ_N_CONCAT, parse_mul, match_concat);
}
static jj_node *parse_add(jj_parser *p)
{
    return parse_chain(p, JJ_N_ARITH, parse_concat, match_add);
}
static jj_node *parse_compare(jj_parser *p)
{
    return parse_chain(p, JJ_N_COMPARE, parse_add, match_compare);
}

static jj_node *parse_not(jj_parser *p)
{
    if (!cp_jj_at_name(p, "not"))
        return parse_compare(p);
    bool odd = false;
    while (cp_jj_skip_name(p, "not"))
        odd = !odd;
    jj_node *n = node1(p, JJ_N_NOT, parse_compare(p));
    return odd ? n : node1(p, JJ_N_NOT, n);
}

static jj_node *parse_and(jj_parser *p)
{
    return parse_chain(p, JJ_N_AND, parse_not, match_and);
}
static jj_node *parse_or(jj_parser *p)
{
    return parse_chain(p, JJ_N_OR, parse_and, match_or);
}

jj_node *cp_jj_parse_expr(jj_parser *p, bool with_cond)
{
    if (!cp_jj_enter(p))
        return NULL;
    jj_node *e = parse_or(p);
    while (e && with_cond && cp_jj_skip_name(p, "if")) {
        jj_node *n = cp_jj_node(p, JJ_N_COND);
        if (!n)
            return NULL;
        p->soft++;
        n->line = e->line;
        n->a = e;
        n->b = parse_or(p);
        if (n->b && cp_jj_skip_name(p, "else"))
            n->c = cp_jj_parse_expr(p, true);
        p->soft--;
        if (!n->b || !grow(p, n, n->a) || !grow(p, n, n->b) || !grow(p, n, n->c))
            return NULL;
        e = n;
    }
    cp_jj_leave(p);
    return e;
}

/* ---- tuples, primaries ---- */

/* An assignment target: a name, a namespace attribute, or a tuple of them in parentheses. */
static jj_node *parse_target(jj_parser *p, unsigned mode)
{
    if (cp_jj_at_op(p, JJ_OP1('('))) {
        if (!cp_jj_enter(p))
            return NULL;
        p->t++;
        jj_node *n = cp_jj_parse_tuple(p, mode | JJ_TUPLE_PARENS, NULL);
        cp_jj_leave(p);
        return n && cp_jj_expect_op(p, JJ_OP1(')')) ? n : NULL;
    }
    if (p->t->type != JJ_T_NAME || is_keyword_value(p, "true", "True") ||
        is_keyword_value(p, "false", "False") || is_keyword_value(p, "none", "None"))
        return cp_jj_unexpected(p, "a name to assign to");
    jj_node *n = cp_jj_node(p, JJ_N_NAME);
    if (!n || !(n->val = cp_jj_intern(p, p->t->p, p->t->n)))
        return NULL;
    p->t++;
    if ((mode & JJ_TUPLE_NS) && cp_jj_skip_op(p, JJ_OP1('.'))) {
        if (p->t->type != JJ_T_NAME)
            return cp_jj_unexpected(p, "an attribute name");
        n->kind = JJ_N_NSREF;
        n->a = const_node(p, cp_jj_intern(p, p->t->p, p->t->n));
        p->t++;
        return n->a ? n : NULL;
    }
    return n;
}

static bool at_tuple_end(const jj_parser *p, const char *end_name)
{
    return p->t->type == JJ_T_VAR_END || p->t->type == JJ_T_BLOCK_END ||
           cp_jj_at_op(p, JJ_OP1(')')) || (end_name && cp_jj_at_name(p, end_name));
}

jj_node *cp_jj_parse_tuple(jj_parser *p, unsigned mode, const char *end_name)
{
    jj_node *n = cp_jj_node(p, JJ_N_TUPLE);
    jj_nodes list = {0};
    bool is_tuple = false;
    if (!n)
        return NULL;
    while (!at_tuple_end(p, end_name)) {
        jj_node *item = mode & JJ_TUPLE_TARGET ? parse_target(p, mode & ~(unsigned)JJ_TUPLE_PARENS)
                                               : cp_jj_parse_expr(p, !(mode & JJ_TUPLE_NO_COND));
        if (!cp_jj_nodes_push(p, &list, item))
            return NULL;
        if (!cp_jj_skip_op(p, JJ_OP1(',')))
            break;
        is_tuple = true;
    }
    if (!is_tuple && list.n)
        return list.v[0];
    if (!is_tuple && !(mode & JJ_TUPLE_PARENS))
        return cp_jj_unexpected(p, "an expression");
    return adopt(p, n, &list);
}

static jj_node *parse_list(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, JJ_N_LIST);
    jj_nodes list = {0};
    p->t++;
    if (!n)
        return NULL;
    while (!cp_jj_at_op(p, JJ_OP1(']'))) {
        if (!cp_jj_nodes_push(p, &list, cp_jj_parse_expr(p, true)))
            return NULL;
        if (!cp_jj_skip_op(p, JJ_OP1(',')))
            break;
    }
    return cp_jj_expect_op(p, JJ_OP1(']')) ? adopt(p, n, &list) : NULL;
}

static jj_node *parse_dict(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, JJ_N_DICT);
    jj_nodes list = {0};
    p->t++;
    if (!n)
        return NULL;
    while (!cp_jj_at_op(p, JJ_OP1('}'))) {
        if (!cp_jj_nodes_push(p, &list, cp_jj_parse_expr(p, true)) ||
            !cp_jj_expect_op(p, JJ_OP1(':')) ||
            !cp_jj_nodes_push(p, &list, cp_jj_parse_expr(p, true)))
            return NULL;
        if (!cp_jj_skip_op(p, JJ_OP1(',')))
            break;
    }
    return cp_jj_expect_op(p, JJ_OP1('}')) ? adopt(p, n, &list) : NULL;
}

/* One or more adjacent string literals. */
static jj_node *parse_string(jj_parser *p)
{
    jj_sb b = {.a = p->x->a};
    jj_node *n = cp_jj_node(p, JJ_N_CONST);
    if (!n)
        return NULL;
    for (; p->t->type == JJ_T_STR; p->t++) {
        if (!cp_jj_sb_add(p->x, &b, p->t->p, p->t->n, false))
            return NULL;
    }
    n->val = cp_jj_sb_take(p->x, &b);
    return n->val ? n : NULL;
}

static jj_node *parse_name(jj_parser *p)
{
    static const struct {
        const char *name;
        uint8_t use;
    } uses[] = {
        {"varargs", JJ_USES_VARARGS}, {"kwargs", JJ_USES_KWARGS}, {"caller", JJ_USES_CALLER}};
    const cp_val *v = NULL;
    if (is_keyword_value(p, "true", "True"))
        v = &cp_jj_true;
    else if (is_keyword_value(p, "false", "False"))
        v = &cp_jj_false;
    else if (is_keyword_value(p, "none", "None"))
        v = &cp_jj_none;
    jj_node *n = v ? const_node(p, v) : cp_jj_node(p, JJ_N_NAME);
    if (!n)
        return NULL;
    for (size_t i = 0; i < sizeof(uses) / sizeof(uses[0]); i++) {
        if (cp_jj_at_name(p, uses[i].name))
            p->uses |= uses[i].use;
    }
    if (!v && !(n->val = cp_jj_intern(p, p->t->p, p->t->n)))
        return NULL;
    p->t++;
    return n;
}

static jj_node *parse_primary(jj_parser *p)
{
    const jj_token *t = p->t;
    jj_node *n;
    switch (t->type) {
    case JJ_T_NAME:
        return parse_name(p);
    case JJ_T_STR:
        return parse_string(p);
    case JJ_T_INT:
        n = const_node(p, cp_jj_int(p->x, t->i));
        p->t++;
        return n;
    case JJ_T_FLOAT:
        n = const_node(p, cp_jj_float(p->x, t->f));
        p->t++;
        return n;
    default:
        break;
    }
    if (cp_jj_at_op(p, JJ_OP1('('))) {
        p->t++;
        n = cp_jj_parse_tuple(p, JJ_TUPLE_PARENS, NULL);
        return n && cp_jj_expect_op(p, JJ_OP1(')')) ? n : NULL;
    }
    if (cp_jj_at_op(p, JJ_OP1('[')))
        return parse_list(p);
    if (cp_jj_at_op(p, JJ_OP1('{')))
        return parse_dict(p);
    return cp_jj_unexpected(p, "an expression");
}

/* ---- postfix: members, subscripts, calls, filters, tests ---- */

static jj_node *parse_slice(jj_parser *p, jj_node *value)
{
    jj_node *begin = NULL;
    if (!cp_jj_at_op(p, JJ_OP1(':'))) {
        begin = cp_jj_parse_expr(p, true);
        if (!begin)
            return NULL;
        if (!cp_jj_at_op(p, JJ_OP1(':'))) {
            if (cp_jj_at_op(p, JJ_OP1(','))) { /* x[a, b]: a tuple */
                jj_nodes list = {0};
                jj_node *tuple = cp_jj_node(p, JJ_N_TUPLE);
                if (!tuple || !cp_jj_nodes_push(p, &list, begin))
                    return NULL;
                while (cp_jj_skip_op(p, JJ_OP1(',')) && !cp_jj_at_op(p, JJ_OP1(']'))) {
                    if (!cp_jj_nodes_push(p, &list, cp_jj_parse_expr(p, true)))
                        return NULL;
                }
                if (!(begin = adopt(p, tuple, &list)))
                    return NULL;
            }
            jj_node *n = node1(p, JJ_N_GETITEM, value);
            if (!n)
                return NULL;
            n->b = begin;
            return grow(p, n, begin) ? n : NULL;
        }
    }
    jj_node *n = node1(p, JJ_N_SLICE, value);
    if (!n)
        return NULL;
    n->b = begin;
    p->t++;
    if (!cp_jj_at_op(p, JJ_OP1(':')) && !cp_jj_at_op(p, JJ_OP1(']')) &&
        !(n->c = cp_jj_parse_expr(p, true)))
        return NULL;
    if (cp_jj_skip_op(p, JJ_OP1(':')) && !cp_jj_at_op(p, JJ_OP1(']')) &&
        !(n->d = cp_jj_parse_expr(p, true)))
        return NULL;
    return grow(p, n, n->b) && grow(p, n, n->c) && grow(p, n, n->d) ? n : NULL;
}

static jj_node *parse_subscript(jj_parser *p, jj_node *value)
{
    if (cp_jj_skip_op(p, JJ_OP1('['))) {
        jj_node *n = parse_slice(p, value);
        return n && cp_jj_expect_op(p, JJ_OP1(']')) ? n : NULL;
    }
    p->t++; /* . */
    const jj_token *t = p->t;
    if (t->type != JJ_T_NAME && t->type != JJ_T_INT)
        return cp_jj_unexpected(p, "a name or number");
    jj_node *n = node1(p, t->type == JJ_T_NAME ? JJ_N_GETATTR : JJ_N_GETITEM, value);
    if (!n)
        return NULL;
    if (t->type == JJ_T_NAME)
        n->val = cp_jj_intern(p, t->p, t->n);
    else
        n->b = const_node(p, cp_jj_int(p->x, t->i));
    p->t++;
    return n->val || n->b ? n : NULL;
}

static bool push_kwarg(jj_parser *p, jj_nodes *kw, jj_nodes *names)
{
    jj_node *name = const_node(p, cp_jj_intern(p, p->t->p, p->t->n));
    p->t += 2;
    return cp_jj_nodes_push(p, names, name) && cp_jj_nodes_push(p, kw, cp_jj_parse_expr(p, true));
}

/* ( a, b, *c, d=e, **f ) into n->args. */
static bool parse_args(jj_parser *p, jj_node *n)
{
    jj_argnodes *a = cp_jj_alloc(p->x, sizeof(*a));
    jj_nodes pos = {0}, kw = {0}, names = {0};
    if (!a || !cp_jj_expect_op(p, JJ_OP1('(')))
        return false;
    n->args = a;
    while (!cp_jj_at_op(p, JJ_OP1(')'))) {
        bool is_kw = p->t->type == JJ_T_NAME && p->t[1].type == JJ_T_OP && p->t[1].op == '=';
        bool ok = true;
        if (pos.n > JJ_MAX_ARGS || kw.n > JJ_MAX_ARGS)
            ok = cp_jj_unexpected(p, "at most 64 arguments") != NULL;
        else if (!a->star && !a->star2 && cp_jj_skip_op(p, JJ_OP1('*')))
            ok = (a->star = cp_jj_parse_expr(p, true)) != NULL;
        else if (!a->star2 && cp_jj_skip_op(p, JJ_OP2('*', '*')))
            ok = (a->star2 = cp_jj_parse_expr(p, true)) != NULL;
        else if (is_kw && !a->star2)
            ok = push_kwarg(p, &kw, &names);
        else if (!is_kw && !a->star && !a->star2 && !kw.n)
            ok = cp_jj_nodes_push(p, &pos, cp_jj_parse_expr(p, true));
        else
            ok = cp_jj_unexpected(p, "a keyword argument") != NULL;
        if (!ok)
            return false;
        if (!cp_jj_skip_op(p, JJ_OP1(',')))
            break;
    }
    if (!cp_jj_expect_op(p, JJ_OP1(')')))
        return false;
    a->list = pos.v;
    a->n_list = pos.n;
    a->kw = kw.v;
    a->n_kw = kw.n;
    a->kw_names = kw.n ? cp_jj_alloc(p->x, kw.n * sizeof(*a->kw_names)) : NULL;
    for (uint32_t i = 0; i < kw.n; i++) {
        if (!a->kw_names || !grow(p, n, kw.v[i]))
            return false;
        a->kw_names[i] = names.v[i]->val;
    }
    for (uint32_t i = 0; i < pos.n; i++) {
        if (!grow(p, n, pos.v[i]))
            return false;
    }
    return grow(p, n, a->star) && grow(p, n, a->star2);
}

static jj_node *parse_invoke(jj_parser *p, jj_node *callee)
{
    jj_node *n = node1(p, JJ_N_INVOKE, callee);
    return n && parse_args(p, n) ? n : NULL;
}

/* name or name.name of a filter or test, as a string value */
static const cp_val *parse_dotted(jj_parser *p, const char *what)
{
    jj_sb b = {.a = p->x->a};
    for (;;) {
        if (p->t->type != JJ_T_NAME) {
            cp_jj_unexpected(p, what);
            return NULL;
        }
        if (!cp_jj_sb_add(p->x, &b, p->t->p, p->t->n, false))
            return NULL;
        p->t++;
        if (!cp_jj_at_op(p, JJ_OP1('.')))
            return cp_jj_sb_take(p->x, &b);
        p->t++;
        if (!cp_jj_sb_adds(p->x, &b, "."))
            return NULL;
    }
}

static jj_node *parse_filter(jj_parser *p, jj_node *value)
{
    jj_node *n = node1(p, JJ_N_FILTER, value);
    if (!n || !(n->val = parse_dotted(p, "a filter name")))
        return NULL;
    n->row = cp_jj_filter_find(&n->val->u.s);
    if (!p->soft && !n->row) {
        p->x->line = n->line;
        cp_jj_fail(p->x, "no filter named '%.*s'", (int)(n->val->u.s.n < 60 ? n->val->u.s.n : 60),
                   n->val->u.s.p);
        return NULL;
    }
    if (cp_jj_at_op(p, JJ_OP1('(')) && !parse_args(p, n))
        return NULL;
    return n;
}

static jj_node *parse_postfix(jj_parser *p, jj_node *n)
{
    while (n) {
        if (cp_jj_at_op(p, JJ_OP1('.')) || cp_jj_at_op(p, JJ_OP1('[')))
            n = parse_subscript(p, n);
        else if (cp_jj_at_op(p, JJ_OP1('(')))
            n = parse_invoke(p, n);
        else
            break;
    }
    return n;
}

/* Can the current token begin the bare argument of a test (`x is divisibleby 3`)? */
static bool at_test_arg(const jj_parser *p)
{
    switch (p->t->type) {
    case JJ_T_NAME:
        return !is_keyword_value(p, "else", "or") && !cp_jj_at_name(p, "and");
    case JJ_T_STR:
    case JJ_T_INT:
    case JJ_T_FLOAT:
        return true;
    default:
        return cp_jj_at_op(p, JJ_OP1('[')) || cp_jj_at_op(p, JJ_OP1('{'));
    }
}

static jj_node *parse_test(jj_parser *p, jj_node *value)
{
    jj_node *n = node1(p, JJ_N_TEST, value);
    p->t++; /* is */
    bool negated = cp_jj_skip_name(p, "not");
    if (!n || !(n->val = parse_dotted(p, "a test name")))
        return NULL;
    n->row = cp_jj_test_find(&n->val->u.s);
    if (!p->soft && !n->row) {
        p->x->line = n->line;
        cp_jj_fail(p->x, "no test named '%.*s'", (int)(n->val->u.s.n < 60 ? n->val->u.s.n : 60),
                   n->val->u.s.p);
        return NULL;
    }
    if (cp_jj_at_op(p, JJ_OP1('('))) {
        if (!parse_args(p, n))
            return NULL;
    } else if (at_test_arg(p)) {
        if (cp_jj_at_name(p, "is"))
            return cp_jj_unexpected(p, "no second 'is' (tests do not chain)");
        jj_argnodes *a = cp_jj_alloc(p->x, sizeof(*a));
        jj_nodes list = {0};
        if (!a || !cp_jj_nodes_push(p, &list, parse_postfix(p, parse_primary(p))))
            return NULL;
        a->list = list.v;
        a->n_list = list.n;
        n->args = a;
        if (!grow(p, n, list.v[0]))
            return NULL;
    }
    return negated ? node1(p, JJ_N_NOT, n) : n;
}

static jj_node *parse_unary(jj_parser *p, bool with_filter)
{
    jj_node *n;
    bool minus = cp_jj_at_op(p, JJ_OP1('-'));
    if (minus || cp_jj_at_op(p, JJ_OP1('+'))) {
        if (!cp_jj_enter(p))
            return NULL;
        p->t++;
        n = node1(p, minus ? JJ_N_NEG : JJ_N_POS, parse_unary(p, false));
        cp_jj_leave(p);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    while (n && with_filter) {
        if (cp_jj_skip_op(p, JJ_OP1('|')))
            n = parse_filter(p, n);
        else if (cp_jj_at_name(p, "is"))
            n = parse_test(p, n);
        else if (cp_jj_at_op(p, JJ_OP1('(')))
            n = parse_invoke(p, n);
        else
            break;
    }
    return n;
}

jj_node *cp_jj_parse_filters(jj_parser *p, bool inline_start)
{
    jj_node *n = cp_jj_node(p, JJ_N_HOLE);
    while (n && (inline_start || cp_jj_skip_op(p, JJ_OP1('|')))) {
        n = parse_filter(p, n);
        inline_start = false;
    }
    return n;
}
