/*
 * Interpreter: walks the immutable tree with a chain of scopes.
 *
 * Scoping is Jinja's: `if` makes no scope; the body of a loop (anew each round), of a macro, a set
 * or filter block, a call block, `with` and `generation` does; `set` writes to the innermost one; a
 * macro sees the scope that it was defined in, as it is when called. Names fall back to the
 * caller's variables, then to the global functions. One quirk of Jinja's compiler is not copied:
 * there, a variable that a scope assigns further down reads as undefined in inner scopes above that
 * line, even if the caller gave it a value. Every node evaluated is a step; nested evaluation is
 * bounded by JJ_MAX_EVAL, macros by JJ_MAX_DEPTH.
 */
#include "chat/jinja/interp.h"

#include <string.h>

enum { FLOW_NONE, FLOW_BREAK, FLOW_CONTINUE };
enum { INDEX_FROM = 8 };

typedef struct jj_var {
    const cp_val *name; /* interned */
    const cp_val *val;
} jj_var;

/* Few variables are searched one by one; from INDEX_FROM on through a table of them. */
typedef struct jj_scope {
    struct jj_scope *parent;
    jj_var *v;
    uint32_t n, cap;
    uint32_t *index; /* open addressing over v, 0 = free; n_index places of it are in use */
    uint32_t n_index, cap_index;
    bool captured; /* a macro holds on to it */
} jj_scope;

typedef struct jj_loop {
    const cp_val *self;
    const jj_node *node;
    jj_scope *outer;
    const jj_list *src;
    size_t pos;
    jj_list *ahead; /* items already fetched for last, nextitem, length */
    size_t ahead_pos;
    const cp_val *cur, *prev, *seen;
    int64_t index0, length;
} jj_loop;

static const cp_val *eval(jj_ctx *x, const jj_node *n);
static bool exec(jj_ctx *x, const jj_node *n);

/* ---- scopes ---- */

static jj_scope *scope_new(jj_ctx *x, jj_scope *parent)
{
    jj_scope *s = cp_jj_alloc(x, sizeof(*s));
    if (s)
        s->parent = parent;
    return s;
}

/* Names are interned, so equal ones are one pointer. */
static uint32_t name_hash(const cp_val *name)
{
    return (uint32_t)cp_jj_spread((uint64_t)(uintptr_t)name);
}

static jj_var *scope_find(const jj_scope *s, const cp_val *name)
{
    for (uint32_t i = 0; !s->n_index && i < s->n; i++) {
        if (s->v[i].name == name)
            return &s->v[i];
    }
    for (uint32_t i = name_hash(name); s->n_index; i++) {
        uint32_t at = s->index[i & (s->n_index - 1)];
        if (!at || s->v[at - 1].name == name)
            return at ? &s->v[at - 1] : NULL;
    }
    return NULL;
}

static void index_add(jj_scope *s, uint32_t var)
{
    uint32_t i = name_hash(s->v[var].name);
    while (s->index[i & (s->n_index - 1)])
        i++;
    s->index[i & (s->n_index - 1)] = var + 1;
}

/* A table with four places a variable, so that it serves until there are twice as many. */
static bool scope_index(jj_ctx *x, jj_scope *s)
{
    uint32_t n_index = 4 * INDEX_FROM;
    while (n_index < 4 * s->n)
        n_index *= 2;
    if (n_index > s->cap_index) {
        s->index = cp_jj_alloc(x, n_index * sizeof(*s->index));
        if (!s->index)
            return false;
        s->cap_index = n_index;
    }
    memset(s->index, 0, n_index * sizeof(*s->index));
    s->n_index = n_index;
    for (uint32_t i = 0; i < s->n; i++)
        index_add(s, i);
    return true;
}

/* Forget the variables and keep the room. */
static void scope_clear(jj_scope *s)
{
    s->n = s->n_index = 0;
}

static bool scope_set(jj_ctx *x, jj_scope *s, const cp_val *name, const cp_val *val)
{
    if (!val)
        return false;
    jj_var *known = scope_find(s, name);
    if (known) {
        known->val = val;
        return true;
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 4;
        jj_var *v = cp_jj_alloc(x, cap * sizeof(*v));
        if (!v)
            return false;
        if (s->n)
            memcpy(v, s->v, s->n * sizeof(*v));
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = (jj_var){name, val};
    if (s->n < INDEX_FROM)
        return true;
    if (2 * s->n > s->n_index)
        return scope_index(x, s);
    index_add(s, s->n - 1);
    return true;
}

static const cp_val *lookup(jj_ctx *x, const cp_val *name)
{
    size_t passed = 0;
    for (const jj_scope *s = x->scope; s; s = s->parent, passed++) {
        const jj_var *v = scope_find(s, name);
        if (v)
            return cp_jj_work(x, passed, JJ_PIECE) ? v->val : NULL;
    }
    const cp_val *v = NULL;
    if (cp_jj_work(x, passed, JJ_PIECE))
        v = cp_jj_dict_gets(x, x->vars->u.dict, name->u.s.p, name->u.s.n);
    if (v || x->code != CP_OK)
        return v;
    const jj_fn_row *row = cp_jj_global_find(&name->u.s);
    if (row) {
        cp_val *f = cp_jj_alloc(x, sizeof(*f));
        if (!f)
            return NULL;
        f->type = JJ_FUNC;
        f->u.func.row = row;
        return f;
    }
    return cp_jj_undefined(x, "'%.*s' is undefined", (int)(name->u.s.n < 100 ? name->u.s.n : 100),
                           name->u.s.p);
}

static bool assign(jj_ctx *x, const jj_node *target, const cp_val *val)
{
    if (!val)
        return false;
    if (target->kind == JJ_N_NAME)
        return scope_set(x, x->scope, target->val, val);
    if (target->kind == JJ_N_NSREF) {
        const cp_val *ns = lookup(x, target->val);
        if (ns && ns->type != JJ_NS)
            cp_jj_fail(x, "cannot assign an attribute of a %s, only of a namespace",
                       cp_jj_type_name(ns));
        return ns && cp_jj_dict_set(x, ns->u.dict, target->a->val, val);
    }
    jj_list *l = cp_jj_items(x, val);
    if (!l)
        return false;
    if (l->n != target->n_list) {
        cp_jj_fail(x, "cannot unpack %zu values into %u names", l->n, target->n_list);
        return false;
    }
    for (uint32_t i = 0; i < target->n_list; i++) {
        if (!assign(x, target->list[i], l->v[i]))
            return false;
    }
    return true;
}

/* ---- calls ---- */

/* Does the word [p, p + n) equal the name? */
static bool word_is(const char *p, size_t n, const jj_str *name)
{
    return name->n == n && memcmp(name->p, p, n) == 0;
}

const cp_val *cp_jj_invoke(jj_ctx *x, const jj_fn_row *row, const cp_val *self, const jj_args *args)
{
    const cp_val *bound[JJ_MAX_PARAMS] = {0};
    bool used[JJ_MAX_ARGS + 2] = {0};
    jj_args rest = *args;
    size_t n = 0;
    bool star = false;
    if (!cp_jj_work(x, args->n_kw, JJ_MAX_PARAMS * JJ_PIECE))
        return NULL;
    for (const char *p = row->params; *p;) {
        size_t len = strcspn(p, " ");
        if (*p == '*') {
            star = true;
            break;
        }
        CP_ASSERT(n < JJ_MAX_PARAMS);
        if (n < args->n_pos)
            bound[n] = args->pos[n];
        for (size_t k = 0; k < args->n_kw && k < sizeof(used); k++) {
            if (!word_is(p, len, &args->kw[k].name->u.s))
                continue;
            if (bound[n]) {
                cp_jj_fail(x, "%s() got two values for '%.*s'", row->name, (int)len, p);
                return NULL;
            }
            bound[n] = args->kw[k].val;
            used[k] = true;
        }
        n++;
        p += len + (p[len] == ' ');
    }
    if (star) {
        size_t skip = n < args->n_pos ? n : args->n_pos;
        rest.pos = args->pos + skip;
        rest.n_pos = args->n_pos - skip;
        if (n) { /* keywords that were bound do not count twice */
            size_t kept = 0;
            rest.kw = cp_jj_alloc(x, (args->n_kw + 1) * sizeof(*rest.kw));
            for (size_t k = 0; rest.kw && k < args->n_kw && k < sizeof(used); k++) {
                if (!used[k])
                    rest.kw[kept++] = args->kw[k];
            }
            rest.n_kw = kept;
        }
        return rest.kw || !args->n_kw ? row->fn(x, self, bound, &rest) : NULL;
    }
    if (args->n_pos > n) {
        cp_jj_fail(x, "%s() takes at most %zu arguments, got %zu", row->name, n, args->n_pos);
        return NULL;
    }
    for (size_t k = 0; k < args->n_kw; k++) {
        if (k >= sizeof(used) || !used[k]) {
            const jj_str *s = &args->kw[k].name->u.s;
            cp_jj_fail(x, "%s() takes no argument '%.*s'", row->name, (int)(s->n < 60 ? s->n : 60),
                       s->p);
            return NULL;
        }
    }
    return row->fn(x, self, bound, &rest);
}

/* The keyword argument of that name, marked as used; NULL: not given (or a failure). Names out of
 * a ** are not interned. */
static const cp_val *take_kw(jj_ctx *x, const jj_args *args, bool *used, const cp_val *name)
{
    if (!cp_jj_work(x, args->n_kw, JJ_PIECE))
        return NULL;
    for (size_t k = 0; k < args->n_kw; k++) {
        const jj_str *s = &args->kw[k].name->u.s, *t = &name->u.s;
        if (used[k] || s->n != t->n || (args->kw[k].name != name && !cp_jj_work(x, s->n, JJ_COPY)))
            continue;
        if (args->kw[k].name == name || memcmp(s->p, t->p, s->n) == 0) {
            used[k] = true;
            return args->kw[k].val;
        }
    }
    return NULL;
}

/* Put varargs, kwargs and caller where the macro's body looks for them; what nobody takes is an
 * error. */
static bool bind_extra(jj_ctx *x, const jj_node *m, const jj_args *args, bool *used)
{
    jj_scope *s = x->scope;
    if (m->flags & JJ_USES_CALLER) {
        const cp_val *c = take_kw(x, args, used, &cp_jj_name_caller);
        c = c ? c : cp_jj_undefined(x, "no caller defined");
        if (!scope_set(x, s, &cp_jj_name_caller, c))
            return false;
    }
    if (m->flags & JJ_USES_VARARGS) {
        jj_list *l = cp_jj_list_new(x, 0);
        for (size_t i = m->n_list; l && i < args->n_pos; i++) {
            if (!cp_jj_list_push(x, l, args->pos[i]))
                return false;
        }
        if (!scope_set(x, s, &cp_jj_name_varargs, cp_jj_list(x, JJ_TUPLE, l)))
            return false;
    } else if (args->n_pos > m->n_list) {
        cp_jj_fail(x, "macro '%.*s' takes at most %u arguments, got %zu", (int)m->val->u.s.n,
                   m->val->u.s.p, m->n_list, args->n_pos);
        return false;
    }
    jj_dict *d = m->flags & JJ_USES_KWARGS ? cp_jj_dict_new(x) : NULL;
    for (size_t k = 0; k < args->n_kw; k++) {
        const jj_str *name = &args->kw[k].name->u.s;
        if (used[k])
            continue;
        if (d && cp_jj_dict_set(x, d, args->kw[k].name, args->kw[k].val))
            continue;
        cp_jj_fail(x, "macro '%.*s' takes no keyword argument '%.*s'", (int)m->val->u.s.n,
                   m->val->u.s.p, (int)name->n, name->p);
        return false;
    }
    return !d || scope_set(x, s, &cp_jj_name_kwargs, cp_jj_dict(x, JJ_DICT, d));
}

static bool bind_macro(jj_ctx *x, const jj_node *m, const jj_args *args)
{
    bool *used = cp_jj_alloc(x, args->n_kw + 1);
    uint32_t first_default = m->n_list - m->n_list2;
    if (!used)
        return false;
    for (uint32_t i = 0; i < m->n_list; i++) {
        const cp_val *name = m->list[i]->val;
        const cp_val *v = i < args->n_pos ? args->pos[i] : NULL, *kw = take_kw(x, args, used, name);
        if (v && kw) {
            cp_jj_fail(x, "macro '%.*s' got two values for '%.*s'", (int)m->val->u.s.n,
                       m->val->u.s.p, (int)name->u.s.n, name->u.s.p);
            return false;
        }
        v = v ? v : kw;
        if (!v)
            v = i >= first_default ? eval(x, m->list2[i - first_default])
                                   : cp_jj_undefined(x, "parameter '%.*s' was not provided",
                                                     (int)name->u.s.n, name->u.s.p);
        if (!scope_set(x, x->scope, name, v))
            return false;
    }
    return bind_extra(x, m, args, used);
}

static const cp_val *call_macro(jj_ctx *x, const cp_val *v, const jj_args *args)
{
    const jj_node *m = v->u.macro.node;
    jj_scope *scope = x->scope;
    jj_sb *out = x->out, text = {.a = x->a};
    if (x->n_macro == JJ_MAX_DEPTH) {
        cp_jj_fail(x, "macros call each other too deeply (limit %d)", JJ_MAX_DEPTH);
        return NULL;
    }
    x->n_macro++;
    x->scope = scope_new(x, v->u.macro.scope);
    x->out = &text;
    bool ok = x->scope && bind_macro(x, m, args) && exec(x, m->d);
    x->scope = scope;
    x->out = out;
    x->n_macro--;
    return ok ? cp_jj_sb_take(x, &text) : NULL;
}

const cp_val *cp_jj_call(jj_ctx *x, const cp_val *callee, const jj_args *args)
{
    if (callee->type == JJ_FUNC)
        return cp_jj_invoke(x, callee->u.func.row, callee->u.func.self, args);
    if (callee->type == JJ_MACRO)
        return call_macro(x, callee, args);
    if (callee->type == JJ_UNDEF)
        cp_jj_fail(x, "%.*s", (int)(callee->u.s.n < 300 ? callee->u.s.n : 300), callee->u.s.p);
    else
        cp_jj_fail(x, "a %s cannot be called", cp_jj_type_name(callee));
    return NULL;
}

/* *args and **kwargs appended to what is there; the arrays have room for `cap` each. */
static bool eval_stars(jj_ctx *x, const jj_argnodes *a, jj_args *out)
{
    if (a->star) {
        const cp_val *v = eval(x, a->star);
        jj_list *l = v ? cp_jj_items(x, v) : NULL;
        for (size_t i = 0; l && i < l->n; i++) {
            if (out->n_pos == 2 * JJ_MAX_ARGS) {
                cp_jj_fail(x, "too many arguments in a call");
                return false;
            }
            out->pos[out->n_pos++] = l->v[i];
        }
        if (!l)
            return false;
    }
    if (a->star2) {
        const cp_val *v = eval(x, a->star2);
        if (v && v->type != JJ_DICT)
            cp_jj_fail(x, "** wants a dict, not %s", cp_jj_type_name(v));
        for (size_t i = 0; v && v->type == JJ_DICT && i < v->u.dict->n; i++) {
            const jj_entry *e = &v->u.dict->e[i];
            if (out->n_kw == 2 * JJ_MAX_ARGS || e->key->type != JJ_STR) {
                cp_jj_fail(x, "bad keyword arguments in a call");
                return false;
            }
            out->kw[out->n_kw++] = (jj_kwarg){e->key, e->val};
        }
    }
    return x->code == CP_OK;
}

/* Evaluate the arguments of a call; caller (or NULL) is added as the keyword of a call block. */
static bool eval_args(jj_ctx *x, const jj_argnodes *a, const cp_val *caller,
                      const cp_val *caller_name, jj_args *out)
{
    static const jj_argnodes none;
    *out = (jj_args){0};
    a = a ? a : &none;
    size_t extra = a->star || a->star2 ? 2 * JJ_MAX_ARGS : 0;
    out->pos = cp_jj_alloc(x, (a->n_list + extra + 1) * sizeof(*out->pos));
    out->kw = cp_jj_alloc(x, (a->n_kw + extra + 2) * sizeof(*out->kw));
    if (!out->pos || !out->kw)
        return false;
    for (uint32_t i = 0; i < a->n_list; i++) {
        if (!(out->pos[out->n_pos++] = eval(x, a->list[i])))
            return false;
    }
    for (uint32_t i = 0; i < a->n_kw; i++) {
        const cp_val *v = eval(x, a->kw[i]);
        if (!v)
            return false;
        out->kw[out->n_kw++] = (jj_kwarg){a->kw_names[i], v};
    }
    if (extra && !eval_stars(x, a, out))
        return false;
    if (caller)
        out->kw[out->n_kw++] = (jj_kwarg){caller_name, caller};
    return true;
}

/* ---- loop ---- */

/* The next item that passes the loop's filter; NULL at the end or on failure. */
static const cp_val *loop_fetch(jj_ctx *x, jj_loop *l)
{
    while (l->pos < l->src->n) {
        const cp_val *v = l->src->v[l->pos++];
        if (!cp_jj_step(x, 1))
            return NULL;
        if (!l->node->c)
            return v;
        jj_scope *saved = x->scope;
        x->scope = scope_new(x, l->outer);
        const cp_val *ok = x->scope && assign(x, l->node->a, v) ? eval(x, l->node->c) : NULL;
        x->scope = saved;
        if (!ok)
            return NULL;
        if (cp_jj_truth(ok))
            return v;
    }
    return NULL;
}

/* The item after the current one without moving on; NULL: none (or a failure). */
static const cp_val *loop_peek(jj_ctx *x, jj_loop *l)
{
    if (l->ahead_pos == l->ahead->n) {
        const cp_val *v = loop_fetch(x, l);
        if (!v || !cp_jj_list_push(x, l->ahead, v))
            return NULL;
    }
    return l->ahead->v[l->ahead_pos];
}

static const cp_val *loop_next(jj_ctx *x, jj_loop *l)
{
    const cp_val *v = l->ahead_pos < l->ahead->n ? l->ahead->v[l->ahead_pos++] : loop_fetch(x, l);
    if (v) {
        l->prev = l->cur;
        l->cur = v;
        l->index0++;
    }
    return v;
}

static int64_t loop_length(jj_ctx *x, jj_loop *l)
{
    if (l->length < 0 && !l->node->c)
        l->length = (int64_t)l->src->n;
    if (l->length < 0) {
        const cp_val *v;
        while ((v = loop_fetch(x, l)) != NULL && cp_jj_list_push(x, l->ahead, v))
            continue;
        l->length = l->index0 + 1 + (int64_t)(l->ahead->n - l->ahead_pos);
    }
    return l->length;
}

static const cp_val *loop_cycle(jj_ctx *x, const cp_val *self, const cp_val **arg,
                                const jj_args *rest)
{
    (void)arg;
    if (!rest->n_pos) {
        cp_jj_fail(x, "no items for cycling given");
        return NULL;
    }
    return rest->pos[(size_t)self->u.loop->index0 % rest->n_pos];
}

static const cp_val *loop_changed(jj_ctx *x, const cp_val *self, const cp_val **arg,
                                  const jj_args *rest)
{
    jj_list *l = cp_jj_list_new(x, 0);
    (void)arg;
    for (size_t i = 0; l && i < rest->n_pos; i++)
        cp_jj_list_push(x, l, rest->pos[i]);
    const cp_val *now = cp_jj_list(x, JJ_TUPLE, l), *seen = self->u.loop->seen;
    if (!now)
        return NULL;
    self->u.loop->seen = now;
    bool same = seen && cp_jj_equal(x, seen, now);
    return x->code == CP_OK ? cp_jj_bool(!same) : NULL;
}

static const jj_fn_row loop_cycle_row = {"cycle", "*", loop_cycle};
static const jj_fn_row loop_changed_row = {"changed", "*", loop_changed};

const cp_val *cp_jj_loop_attr(jj_ctx *x, jj_loop *l, const jj_str *name)
{
    const cp_val *v;
    if (cp_jj_str_is(name, "index0"))
        return cp_jj_int(x, l->index0);
    if (cp_jj_str_is(name, "index"))
        return cp_jj_int(x, l->index0 + 1);
    if (cp_jj_str_is(name, "first"))
        return cp_jj_bool(l->index0 == 0);
    if (cp_jj_str_is(name, "last")) {
        v = loop_peek(x, l);
        return x->code == CP_OK ? cp_jj_bool(!v) : NULL;
    }
    if (cp_jj_str_is(name, "length") || cp_jj_str_is(name, "revindex") ||
        cp_jj_str_is(name, "revindex0")) {
        int64_t n = loop_length(x, l);
        if (x->code != CP_OK)
            return NULL;
        return cp_jj_int(x, name->p[0] == 'l' ? n : n - l->index0 - (name->n == 9));
    }
    if (cp_jj_str_is(name, "previtem"))
        return l->index0 > 0 ? l->prev : cp_jj_undefined(x, "there is no previous item");
    if (cp_jj_str_is(name, "nextitem")) {
        v = loop_peek(x, l);
        return v || x->code != CP_OK ? v : cp_jj_undefined(x, "there is no next item");
    }
    if (cp_jj_str_is(name, "depth") || cp_jj_str_is(name, "depth0"))
        return cp_jj_int(x, name->n == 5);
    bool cycle = cp_jj_str_is(name, "cycle");
    if (!cycle && !cp_jj_str_is(name, "changed"))
        return NULL;
    cp_val *f = cp_jj_alloc(x, sizeof(*f));
    if (!f)
        return NULL;
    f->type = JJ_FUNC;
    f->u.func.row = cycle ? &loop_cycle_row : &loop_changed_row;
    f->u.func.self = l->self;
    return f;
}

static jj_loop *loop_open(jj_ctx *x, const jj_node *n, const cp_val *seq)
{
    jj_loop *l = cp_jj_alloc(x, sizeof(*l));
    cp_val *self = cp_jj_alloc(x, sizeof(*self));
    if (!l || !self)
        return NULL;
    *l = (jj_loop){.self = self, .node = n, .outer = x->scope, .index0 = -1, .length = -1};
    self->type = JJ_LOOP;
    self->u.loop = l;
    l->src = seq->type == JJ_LIST || seq->type == JJ_TUPLE ? seq->u.list : cp_jj_items(x, seq);
    l->ahead = cp_jj_list_new(x, 0);
    return l->src && l->ahead ? l : NULL;
}

static bool exec_for(jj_ctx *x, const jj_node *n)
{
    const cp_val *seq = eval(x, n->b), *item;
    jj_loop *l = seq ? loop_open(x, n, seq) : NULL;
    jj_scope *outer = x->scope, *s = NULL;
    bool ok = l != NULL, whole = false; /* whole: some round ran to its end */
    while (ok && (item = loop_next(x, l)) != NULL) {
        if (!s || s->captured)
            s = scope_new(x, outer);
        if (!s)
            return false;
        scope_clear(s);
        x->scope = s;
        ok = scope_set(x, s, &cp_jj_name_loop, l->self) && assign(x, n->a, item) && exec(x, n->d);
        x->scope = outer;
        bool stop = x->flow == FLOW_BREAK;
        whole = whole || x->flow == FLOW_NONE;
        x->flow = FLOW_NONE;
        if (stop)
            break;
    }
    if (!ok || x->code != CP_OK)
        return false;
    if (whole || !n->e) /* as Jinja: break or continue in every round leads to else too */
        return true;
    x->scope = scope_new(x, outer);
    ok = x->scope && exec(x, n->e);
    x->scope = outer;
    return ok;
}

/* ---- statements ---- */

/* Run a body in a scope of its own and take its output as a string. NULL on failure. */
static const cp_val *capture(jj_ctx *x, const jj_node *body)
{
    jj_sb *out = x->out, text = {.a = x->a};
    jj_scope *scope = x->scope;
    x->out = &text;
    x->scope = scope_new(x, scope);
    bool ok = x->scope && exec(x, body);
    x->out = out;
    x->scope = scope;
    return ok ? cp_jj_sb_take(x, &text) : NULL;
}

/* capture, then the block's filters. */
static const cp_val *capture_filtered(jj_ctx *x, const jj_node *n)
{
    const cp_val *v = capture(x, n->d), *hole = x->hole;
    if (!v || !n->b || x->flow)
        return v;
    x->hole = v;
    v = eval(x, n->b);
    x->hole = hole;
    return v;
}

static bool print(jj_ctx *x, const cp_val *v)
{
    return v && cp_jj_sb_str(x, x->out, v) && x->code == CP_OK;
}

static bool exec_with(jj_ctx *x, const jj_node *n)
{
    jj_scope *outer = x->scope, *s = scope_new(x, outer);
    if (!s)
        return false;
    for (uint32_t i = 0; i + 1 < n->n_list; i += 2) {
        const cp_val *v = eval(x, n->list[i + 1]);
        x->scope = s;
        bool ok = assign(x, n->list[i], v);
        x->scope = outer;
        if (!ok)
            return false;
    }
    x->scope = s;
    bool ok = exec(x, n->d);
    x->scope = outer;
    return ok;
}

static const cp_val *macro_value(jj_ctx *x, const jj_node *n)
{
    cp_val *m = cp_jj_alloc(x, sizeof(*m));
    if (!m)
        return NULL;
    m->type = JJ_MACRO;
    m->u.macro = (jj_macro){n, x->scope};
    for (jj_scope *s = x->scope; s && !s->captured; s = s->parent)
        s->captured = true;
    return m;
}

static bool exec_call(jj_ctx *x, const jj_node *n)
{
    const cp_val *caller = macro_value(x, n), *callee = caller ? eval(x, n->a->a) : NULL;
    jj_args args;
    return callee && eval_args(x, n->a->args, caller, n->val, &args) &&
           print(x, cp_jj_call(x, callee, &args));
}

static bool exec_if(jj_ctx *x, const jj_node *n)
{
    for (uint32_t i = 0; i + 1 < n->n_list; i += 2) {
        const cp_val *c = eval(x, n->list[i]);
        if (!c)
            return false;
        if (cp_jj_truth(c))
            return exec(x, n->list[i + 1]);
    }
    return !n->b || exec(x, n->b);
}

static bool exec_body(jj_ctx *x, const jj_node *n)
{
    for (uint32_t i = 0; i < n->n_list && !x->flow; i++) {
        if (!exec(x, n->list[i]))
            return false;
    }
    return true;
}

static bool exec_kind(jj_ctx *x, const jj_node *n)
{
    const cp_val *v;
    jj_scope *scope = x->scope;
    bool ok;
    switch (n->kind) {
    case JJ_N_BODY:
        return exec_body(x, n);
    case JJ_N_DATA:
        return print(x, n->val);
    case JJ_N_PRINT:
        return print(x, eval(x, n->a));
    case JJ_N_IF:
        return exec_if(x, n);
    case JJ_N_FOR:
        return exec_for(x, n);
    case JJ_N_SET:
        return assign(x, n->a, eval(x, n->b));
    case JJ_N_SETBLOCK:
        v = capture_filtered(x, n);
        return v && (x->flow || assign(x, n->a, v));
    case JJ_N_FILTERBLOCK:
        v = capture_filtered(x, n);
        return v && (x->flow || print(x, v));
    case JJ_N_WITH:
        return exec_with(x, n);
    case JJ_N_MACRO:
        return scope_set(x, x->scope, n->val, macro_value(x, n));
    case JJ_N_CALL:
        return exec_call(x, n);
    case JJ_N_SCOPE:
        x->scope = scope_new(x, scope);
        ok = x->scope && exec(x, n->d);
        x->scope = scope;
        return ok;
    default:
        CP_ASSERT(n->kind == JJ_N_BREAK || n->kind == JJ_N_CONTINUE);
        x->flow = n->kind == JJ_N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
        return true;
    }
}

static bool enter(jj_ctx *x, const jj_node *n)
{
    x->line = n->line;
    if (x->n_eval >= JJ_MAX_EVAL) {
        cp_jj_fail(x, "evaluation is nested too deeply (limit %d)", JJ_MAX_EVAL);
        return false;
    }
    x->n_eval++;
    return cp_jj_step(x, 1);
}

static bool exec(jj_ctx *x, const jj_node *n)
{
    bool ok = enter(x, n) && exec_kind(x, n) && x->code == CP_OK;
    x->n_eval -= x->code == CP_OK;
    return ok;
}

/* ---- expressions ---- */

static const cp_val *eval_list(jj_ctx *x, const jj_node *n)
{
    jj_list *l = cp_jj_list_new(x, n->n_list);
    for (uint32_t i = 0; l && i < n->n_list; i++) {
        if (!cp_jj_list_push(x, l, eval(x, n->list[i])))
            return NULL;
    }
    return cp_jj_list(x, n->kind == JJ_N_LIST ? JJ_LIST : JJ_TUPLE, l);
}

static const cp_val *eval_dict(jj_ctx *x, const jj_node *n)
{
    jj_dict *d = cp_jj_dict_new(x);
    for (uint32_t i = 0; d && i + 1 < n->n_list; i += 2) {
        const cp_val *k = eval(x, n->list[i]), *v = k ? eval(x, n->list[i + 1]) : NULL;
        if (!cp_jj_dict_set(x, d, k, v))
            return NULL;
    }
    return cp_jj_dict(x, JJ_DICT, d);
}

static const cp_val *eval_arith(jj_ctx *x, const jj_node *n)
{
    const cp_val *v = eval(x, n->list[0]);
    for (uint32_t i = 1; v && i < n->n_list; i++) {
        const cp_val *r = eval(x, n->list[i]);
        x->line = n->line;
        v = r ? cp_jj_arith(x, (jj_op)n->ops[i - 1], v, r) : NULL;
    }
    return v;
}

static const cp_val *eval_concat(jj_ctx *x, const jj_node *n)
{
    const cp_val *v = &cp_jj_empty;
    for (uint32_t i = 0; v && i < n->n_list; i++) {
        const cp_val *r = eval(x, n->list[i]);
        r = r ? cp_jj_to_str(x, r) : NULL;
        v = r ? cp_jj_concat(x, v, r) : NULL;
    }
    return v;
}

static const cp_val *eval_compare(jj_ctx *x, const jj_node *n)
{
    const cp_val *a = eval(x, n->list[0]);
    bool result = true;
    for (uint32_t i = 1; a && result && i < n->n_list; i++) {
        const cp_val *b = eval(x, n->list[i]);
        x->line = n->line;
        if (!b || !cp_jj_relation(x, (jj_op)n->ops[i - 1], a, b, &result))
            return NULL;
        a = b;
    }
    return a ? cp_jj_bool(result) : NULL;
}

static const cp_val *eval_logic(jj_ctx *x, const jj_node *n)
{
    const cp_val *v = NULL;
    for (uint32_t i = 0; i < n->n_list; i++) {
        v = eval(x, n->list[i]);
        if (!v || cp_jj_truth(v) == (n->kind == JJ_N_OR))
            return v;
    }
    return v;
}

static const cp_val *eval_cond(jj_ctx *x, const jj_node *n)
{
    const cp_val *c = eval(x, n->b);
    if (!c)
        return NULL;
    if (cp_jj_truth(c))
        return eval(x, n->a);
    return n->c ? eval(x, n->c)
                : cp_jj_undefined(x, "the inline if-expression was false and has no else");
}

static const cp_val *eval_slice(jj_ctx *x, const jj_node *n)
{
    const cp_val *v = eval(x, n->a);
    const cp_val *b = v && n->b ? eval(x, n->b) : &cp_jj_none;
    const cp_val *c = b && n->c ? eval(x, n->c) : &cp_jj_none;
    const cp_val *d = c && n->d ? eval(x, n->d) : &cp_jj_none;
    return x->code == CP_OK ? cp_jj_slice(x, v, b, c, d) : NULL;
}

static const cp_val *eval_invoke(jj_ctx *x, const jj_node *n)
{
    const cp_val *callee = eval(x, n->a);
    jj_args args;
    if (!callee || !eval_args(x, n->args, NULL, NULL, &args))
        return NULL;
    x->line = n->line;
    return cp_jj_call(x, callee, &args);
}

static const cp_val *eval_row(jj_ctx *x, const jj_node *n)
{
    bool filter = n->kind == JJ_N_FILTER;
    const jj_fn_row *row = n->row;
    const cp_val *v = eval(x, n->a);
    jj_args args;
    if (!row)
        cp_jj_fail(x, "no %s named '%.*s'", filter ? "filter" : "test",
                   (int)(n->val->u.s.n < 60 ? n->val->u.s.n : 60), n->val->u.s.p);
    if (!row || !v || !eval_args(x, n->args, NULL, NULL, &args))
        return NULL;
    x->line = n->line;
    return cp_jj_invoke(x, row, v, &args);
}

static const cp_val *eval_kind(jj_ctx *x, const jj_node *n)
{
    const cp_val *v, *k;
    switch (n->kind) {
    case JJ_N_CONST:
        return n->val;
    case JJ_N_NAME:
        return lookup(x, n->val);
    case JJ_N_HOLE:
        return x->hole;
    case JJ_N_LIST:
    case JJ_N_TUPLE:
        return eval_list(x, n);
    case JJ_N_DICT:
        return eval_dict(x, n);
    case JJ_N_ARITH:
        return eval_arith(x, n);
    case JJ_N_CONCAT:
        return eval_concat(x, n);
    case JJ_N_COMPARE:
        return eval_compare(x, n);
    case JJ_N_AND:
    case JJ_N_OR:
        return eval_logic(x, n);
    case JJ_N_NOT:
        v = eval(x, n->a);
        return v ? cp_jj_bool(!cp_jj_truth(v)) : NULL;
    case JJ_N_NEG:
    case JJ_N_POS:
        v = eval(x, n->a);
        return v ? cp_jj_negate(x, v, n->kind == JJ_N_NEG) : NULL;
    case JJ_N_COND:
        return eval_cond(x, n);
    case JJ_N_GETATTR:
        v = eval(x, n->a);
        x->line = n->line;
        return v ? cp_jj_getattr(x, v, n->val) : NULL;
    case JJ_N_GETITEM:
        v = eval(x, n->a);
        k = v ? eval(x, n->b) : NULL;
        x->line = n->line;
        return k ? cp_jj_getitem(x, v, k) : NULL;
    case JJ_N_SLICE:
        return eval_slice(x, n);
    case JJ_N_INVOKE:
        return eval_invoke(x, n);
    default:
        CP_ASSERT(n->kind == JJ_N_FILTER || n->kind == JJ_N_TEST);
        return eval_row(x, n);
    }
}

static const cp_val *eval(jj_ctx *x, const jj_node *n)
{
    const cp_val *v = enter(x, n) ? eval_kind(x, n) : NULL;
    x->n_eval -= x->code == CP_OK;
    return x->code == CP_OK ? v : NULL;
}

bool cp_jj_run(jj_ctx *x, const jj_node *root)
{
    x->scope = scope_new(x, NULL);
    return x->scope && exec(x, root);
}
