/*
 * Parser, statements: tokens to the syntax tree. Expressions are in expr.c.
 *
 * Follows jinja2/parser.py. Template inheritance and includes (include, import, from, extends,
 * block), autoescape and recursive loops are not built: a template that uses them is refused by
 * name. Nesting is bounded by JJ_MAX_DEPTH, so neither this recursion nor the interpreter's over
 * the tree can run away.
 */
#include "chat/jinja/interp.h"

#include <string.h>

jj_node *cp_jj_node(jj_parser *p, jj_kind kind)
{
    jj_node *n = cp_jj_alloc(p->x, sizeof(*n));
    if (n) {
        n->kind = kind;
        n->line = p->t->line;
        n->height = 1;
    }
    return n;
}

const cp_val cp_jj_name_loop = {.type = JJ_STR, .u.s = {.p = "loop", .n = 4}};
const cp_val cp_jj_name_varargs = {.type = JJ_STR, .u.s = {.p = "varargs", .n = 7}};
const cp_val cp_jj_name_kwargs = {.type = JJ_STR, .u.s = {.p = "kwargs", .n = 6}};
const cp_val cp_jj_name_caller = {.type = JJ_STR, .u.s = {.p = "caller", .n = 6}};

/* Where the name stands, or the free place where it belongs. */
static size_t name_slot(const cp_val *const *names, size_t cap, const char *s, size_t n)
{
    size_t i = (size_t)cp_jj_hash_bytes(s, n, cp_jj_secret()) & (cap - 1);
    while (names[i] && !(names[i]->u.s.n == n && memcmp(names[i]->u.s.p, s, n) == 0))
        i = (i + 1) & (cap - 1);
    return i;
}

/* Twice the room, at least FIRST_NAMES; the interpreter's own names are in it from the start. */
static bool names_grow(jj_parser *p)
{
    enum { FIRST_NAMES = 64 };
    static const cp_val *const own[] = {&cp_jj_name_loop, &cp_jj_name_varargs, &cp_jj_name_kwargs,
                                        &cp_jj_name_caller};
    size_t n_own = p->cap_names ? 0 : sizeof(own) / sizeof(own[0]);
    size_t cap = p->cap_names ? p->cap_names * 2 : FIRST_NAMES;
    const cp_val **names = cp_jj_alloc(p->x, cap * sizeof(*names));
    if (!names)
        return false;
    for (size_t i = 0; i < n_own; i++)
        names[name_slot(names, cap, own[i]->u.s.p, own[i]->u.s.n)] = own[i];
    for (size_t i = 0; i < p->cap_names; i++) {
        const cp_val *v = p->names[i];
        if (v)
            names[name_slot(names, cap, v->u.s.p, v->u.s.n)] = v;
    }
    p->names = names;
    p->cap_names = cap;
    p->n_names += n_own;
    return true;
}

const cp_val *cp_jj_intern(jj_parser *p, const char *s, size_t n)
{
    if (2 * p->n_names >= p->cap_names && !names_grow(p))
        return NULL;
    size_t i = name_slot(p->names, p->cap_names, s, n);
    if (p->names[i])
        return p->names[i];
    const cp_val *v = cp_jj_str(p->x, s, n);
    if (v) {
        p->names[i] = v;
        p->n_names++;
    }
    return v;
}

bool cp_jj_nodes_push(jj_parser *p, jj_nodes *l, jj_node *n)
{
    if (!n)
        return false;
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 4;
        jj_node **v = cp_jj_alloc(p->x, cap * sizeof(*v));
        if (!v)
            return false;
        if (l->n)
            memcpy(v, l->v, l->n * sizeof(*v));
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = n;
    return true;
}

jj_node *cp_jj_unexpected(jj_parser *p, const char *expected)
{
    static const char *const names[] = {"the end of the template",
                                        "text",
                                        "{{",
                                        "}}",
                                        "{%",
                                        "%}",
                                        "",
                                        "a string",
                                        "a number",
                                        "a number",
                                        ""};
    const jj_token *t = p->t;
    p->x->line = t->line;
    if (t->type == JJ_T_NAME)
        cp_jj_fail(p->x, "expected %s, got '%.*s'", expected, (int)(t->n < 60 ? t->n : 60), t->p);
    else if (t->type == JJ_T_OP)
        cp_jj_fail(p->x, "expected %s, got '%c%.1s'", expected, t->op & 0xff,
                   t->op >> 8 ? (const char[]){(char)(t->op >> 8), '\0'} : "");
    else
        cp_jj_fail(p->x, "expected %s, got %s", expected, names[t->type]);
    return NULL;
}

bool cp_jj_enter(jj_parser *p)
{
    if (p->depth == JJ_MAX_DEPTH) {
        p->x->line = p->t->line;
        cp_jj_fail(p->x, "nested too deeply (limit %d)", JJ_MAX_DEPTH);
        return false;
    }
    p->depth++;
    return true;
}

void cp_jj_leave(jj_parser *p)
{
    p->depth--;
}

bool cp_jj_at_op(const jj_parser *p, uint16_t op)
{
    return p->t->type == JJ_T_OP && p->t->op == op;
}

bool cp_jj_at_name(const jj_parser *p, const char *name)
{
    return p->t->type == JJ_T_NAME && p->t->n == strlen(name) &&
           memcmp(p->t->p, name, p->t->n) == 0;
}

bool cp_jj_skip_op(jj_parser *p, uint16_t op)
{
    bool is = cp_jj_at_op(p, op);
    p->t += is;
    return is;
}

bool cp_jj_skip_name(jj_parser *p, const char *name)
{
    bool is = cp_jj_at_name(p, name);
    p->t += is;
    return is;
}

bool cp_jj_expect_op(jj_parser *p, uint16_t op)
{
    if (cp_jj_skip_op(p, op))
        return true;
    char text[] = {'\'', (char)(op & 0xff), '\'', '\0'};
    cp_jj_unexpected(p, text);
    return false;
}

static bool expect_block_end(jj_parser *p)
{
    if (p->t->type != JJ_T_BLOCK_END) {
        cp_jj_unexpected(p, "%}");
        return false;
    }
    p->t++;
    return true;
}

static jj_node *parse_statement(jj_parser *p);

/* Statements up to a block that starts with one of the `ends` (at most 3, NULL-terminated); that
 * name is current then. ends NULL: up to the end of the template. */
static jj_node *parse_until(jj_parser *p, const char *const *ends)
{
    jj_node *body = cp_jj_node(p, JJ_N_BODY);
    jj_nodes list = {0};
    if (!body || !cp_jj_enter(p))
        return NULL;
    for (;;) {
        const jj_token *t = p->t;
        jj_node *n = NULL;
        if (t->type == JJ_T_EOF) {
            if (ends)
                return cp_jj_unexpected(p, ends[0]);
            break;
        }
        if (t->type == JJ_T_DATA) {
            n = cp_jj_node(p, JJ_N_DATA);
            if (n)
                n->val = cp_jj_str(p->x, t->p, t->n);
            if (!n || !n->val)
                return NULL;
            p->t++;
        } else if (t->type == JJ_T_VAR_BEGIN) {
            n = cp_jj_node(p, JJ_N_PRINT);
            p->t++;
            if (!n || !(n->a = cp_jj_parse_tuple(p, JJ_TUPLE_PLAIN, NULL)))
                return NULL;
            if (p->t->type != JJ_T_VAR_END)
                return cp_jj_unexpected(p, "}}");
            p->t++;
        } else {
            p->t++; /* the lexer gives nothing else here than {% */
            bool end = false;
            for (size_t i = 0; ends && i < 3 && ends[i]; i++)
                end = end || cp_jj_at_name(p, ends[i]);
            if (end)
                break;
            n = parse_statement(p);
            if (!n || !expect_block_end(p))
                return NULL;
        }
        if (!cp_jj_nodes_push(p, &list, n))
            return NULL;
    }
    cp_jj_leave(p);
    body->list = list.v;
    body->n_list = list.n;
    return body;
}

/* The rest of an opening tag, then the body up to one of ends. */
static jj_node *parse_body(jj_parser *p, const char *const *ends)
{
    cp_jj_skip_op(p, JJ_OP1(':'));
    return expect_block_end(p) ? parse_until(p, ends) : NULL;
}

/* A body up to {% end %}, whose name is consumed. */
static jj_node *parse_closed(jj_parser *p, const char *end)
{
    jj_node *body = parse_body(p, (const char *const[]){end, NULL});
    if (body)
        p->t++;
    return body;
}

static jj_node *parse_if(jj_parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif"};
    jj_node *n = cp_jj_node(p, JJ_N_IF);
    jj_nodes list = {0};
    if (!n)
        return NULL;
    p->soft++;
    do {
        p->t++; /* if, elif */
        if (!cp_jj_nodes_push(p, &list, cp_jj_parse_tuple(p, JJ_TUPLE_NO_COND, NULL)) ||
            !cp_jj_nodes_push(p, &list, parse_body(p, ends)))
            return NULL;
    } while (cp_jj_at_name(p, "elif"));
    if (cp_jj_skip_name(p, "else")) {
        if (!(n->b = parse_closed(p, "endif")))
            return NULL;
    } else {
        p->t++;
    }
    p->soft--;
    n->list = list.v;
    n->n_list = list.n;
    return n;
}

static jj_node *parse_for(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, JJ_N_FOR);
    p->t++;
    if (!n || !(n->a = cp_jj_parse_tuple(p, JJ_TUPLE_TARGET, "in")))
        return NULL;
    if (!cp_jj_skip_name(p, "in"))
        return cp_jj_unexpected(p, "'in'");
    if (!(n->b = cp_jj_parse_tuple(p, JJ_TUPLE_NO_COND, "recursive")))
        return NULL;
    if (cp_jj_skip_name(p, "if") && !(n->c = cp_jj_parse_expr(p, true)))
        return NULL;
    if (cp_jj_at_name(p, "recursive")) {
        p->x->line = p->t->line;
        cp_jj_fail(p->x, "recursive loops are not built");
        return NULL;
    }
    p->loops++;
    n->d = parse_body(p, (const char *const[]){"endfor", "else", NULL});
    p->loops--;
    if (!n->d)
        return NULL;
    if (cp_jj_skip_name(p, "else"))
        return (n->e = parse_closed(p, "endfor")) ? n : NULL;
    p->t++;
    return n;
}

static jj_node *parse_set(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, JJ_N_SET);
    p->t++;
    if (!n || !(n->a = cp_jj_parse_tuple(p, JJ_TUPLE_TARGET | JJ_TUPLE_NS, NULL)))
        return NULL;
    if (cp_jj_skip_op(p, JJ_OP1('=')))
        return (n->b = cp_jj_parse_tuple(p, JJ_TUPLE_PLAIN, NULL)) ? n : NULL;
    n->kind = JJ_N_SETBLOCK;
    if (cp_jj_at_op(p, JJ_OP1('|')) && !(n->b = cp_jj_parse_filters(p, false)))
        return NULL;
    return (n->d = parse_closed(p, "endset")) ? n : NULL;
}

static jj_node *parse_with(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, JJ_N_WITH);
    jj_nodes list = {0};
    p->t++;
    if (!n)
        return NULL;
    while (p->t->type != JJ_T_BLOCK_END) {
        if (list.n && !cp_jj_expect_op(p, JJ_OP1(',')))
            return NULL;
        if (!cp_jj_nodes_push(p, &list, cp_jj_parse_tuple(p, JJ_TUPLE_TARGET, NULL)) ||
            !cp_jj_expect_op(p, JJ_OP1('=')) ||
            !cp_jj_nodes_push(p, &list, cp_jj_parse_expr(p, true)))
            return NULL;
    }
    n->list = list.v;
    n->n_list = list.n;
    return (n->d = parse_closed(p, "endwith")) ? n : NULL;
}

/* (a, b=1): parameter names into list, defaults of the last ones into list2. */
static bool parse_signature(jj_parser *p, jj_node *n)
{
    jj_nodes params = {0}, defaults = {0};
    if (!cp_jj_expect_op(p, JJ_OP1('(')))
        return false;
    while (!cp_jj_skip_op(p, JJ_OP1(')'))) {
        if (params.n && !cp_jj_expect_op(p, JJ_OP1(',')))
            return false;
        if (p->t->type != JJ_T_NAME || params.n == JJ_MAX_ARGS) {
            cp_jj_unexpected(p, params.n == JJ_MAX_ARGS ? "at most 64 parameters" : "a name");
            return false;
        }
        jj_node *name = cp_jj_node(p, JJ_N_NAME);
        if (!name || !(name->val = cp_jj_intern(p, p->t->p, p->t->n)) ||
            !cp_jj_nodes_push(p, &params, name))
            return false;
        p->t++;
        if (cp_jj_skip_op(p, JJ_OP1('='))) {
            if (!cp_jj_nodes_push(p, &defaults, cp_jj_parse_expr(p, true)))
                return false;
        } else if (defaults.n) {
            cp_jj_unexpected(p, "a default, as the parameter before has one");
            return false;
        }
    }
    n->list = params.v;
    n->n_list = params.n;
    n->list2 = defaults.v;
    n->n_list2 = defaults.n;
    return true;
}

/* The body of a macro or call block: what it uses is counted for it alone. */
static bool parse_macro_body(jj_parser *p, jj_node *n, const char *end)
{
    uint32_t loops = p->loops;
    p->loops = 0;
    n->d = parse_closed(p, end);
    p->loops = loops;
    n->flags = p->uses;
    return n->d != NULL;
}

static jj_node *parse_macro(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, JJ_N_MACRO);
    uint8_t uses = p->uses;
    p->t++;
    if (!n)
        return NULL;
    if (p->t->type != JJ_T_NAME)
        return cp_jj_unexpected(p, "a macro name");
    n->val = cp_jj_intern(p, p->t->p, p->t->n);
    p->t++;
    p->uses = 0;
    if (!n->val || !parse_signature(p, n) || !parse_macro_body(p, n, "endmacro"))
        return NULL;
    p->uses = uses;
    return n;
}

static jj_node *parse_call(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, JJ_N_CALL);
    uint8_t uses = p->uses;
    p->t++;
    if (!n || !(n->val = cp_jj_intern(p, "caller", 6)))
        return NULL;
    if (cp_jj_at_op(p, JJ_OP1('(')) && !parse_signature(p, n))
        return NULL;
    if (!(n->a = cp_jj_parse_expr(p, true)))
        return NULL;
    if (n->a->kind != JJ_N_INVOKE)
        return cp_jj_unexpected(p, "a call");
    uses |= p->uses;
    p->uses = 0;
    if (!parse_macro_body(p, n, "endcall"))
        return NULL;
    p->uses = uses;
    return n;
}

static jj_node *parse_print(jj_parser *p)
{
    jj_node *body = cp_jj_node(p, JJ_N_BODY);
    jj_nodes list = {0};
    p->t++;
    if (!body)
        return NULL;
    while (p->t->type != JJ_T_BLOCK_END) {
        if (list.n && !cp_jj_expect_op(p, JJ_OP1(',')))
            return NULL;
        jj_node *n = cp_jj_node(p, JJ_N_PRINT);
        if (!n || !(n->a = cp_jj_parse_expr(p, true)) || !cp_jj_nodes_push(p, &list, n))
            return NULL;
    }
    body->list = list.v;
    body->n_list = list.n;
    return body;
}

static jj_node *parse_jump(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, cp_jj_at_name(p, "break") ? JJ_N_BREAK : JJ_N_CONTINUE);
    if (!p->loops) {
        p->x->line = p->t->line;
        cp_jj_fail(p->x, "'%.*s' outside a loop", (int)p->t->n, p->t->p);
        return NULL;
    }
    p->t++;
    return n;
}

static jj_node *parse_filter_block(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, JJ_N_FILTERBLOCK);
    p->t++;
    if (!n || !(n->b = cp_jj_parse_filters(p, true)))
        return NULL;
    return (n->d = parse_closed(p, "endfilter")) ? n : NULL;
}

static jj_node *parse_generation(jj_parser *p)
{
    jj_node *n = cp_jj_node(p, JJ_N_SCOPE);
    p->t++;
    /* In transformers the body is a call block: break cannot leave it. */
    uint32_t loops = p->loops;
    p->loops = 0;
    if (n)
        n->d = parse_closed(p, "endgeneration");
    p->loops = loops;
    return n && n->d ? n : NULL;
}

static jj_node *parse_statement(jj_parser *p)
{
    static const struct {
        const char *tag;
        jj_node *(*parse)(jj_parser *);
    } tags[] = {
        {"if", parse_if},       {"for", parse_for},       {"set", parse_set},
        {"macro", parse_macro}, {"call", parse_call},     {"filter", parse_filter_block},
        {"with", parse_with},   {"print", parse_print},   {"generation", parse_generation},
        {"break", parse_jump},  {"continue", parse_jump},
    };
    static const char *const refused[] = {"include", "import", "from",       "extends",
                                          "block",   "do",     "autoescape", "trans"};
    if (p->t->type != JJ_T_NAME)
        return cp_jj_unexpected(p, "a tag name");
    p->x->line = p->t->line;
    for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
        if (cp_jj_at_name(p, tags[i].tag))
            return tags[i].parse(p);
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (cp_jj_at_name(p, refused[i])) {
            cp_jj_fail(p->x, "the tag '%s' is not built", refused[i]);
            return NULL;
        }
    }
    cp_jj_fail(p->x, "unknown tag '%.*s'", (int)(p->t->n < 60 ? p->t->n : 60), p->t->p);
    return NULL;
}

jj_node *cp_jj_parse(jj_ctx *x, const jj_tokens *toks)
{
    jj_parser p = {.x = x, .t = toks->t};
    return parse_until(&p, NULL);
}
