/*
 * Tables and calls between the interpreter and its built-in filters, tests, methods and functions
 * (internal to chat).
 *
 * A built-in is one table row: its name, its parameters in order ("sep maxsplit", a trailing *
 * takes the rest), its function. The dispatcher binds positional and keyword arguments to
 * parameters; a missing one is NULL.
 */
#ifndef CP_CHAT_JINJA_INTERP_H
#define CP_CHAT_JINJA_INTERP_H

#include "chat/jinja/ast.h"
#include "chat/jinja/value.h"

typedef struct jj_kwarg {
    const cp_val *name; /* a string */
    const cp_val *val;
} jj_kwarg;

typedef struct jj_args {
    const cp_val **pos;
    size_t n_pos;
    jj_kwarg *kw;
    size_t n_kw;
} jj_args;

enum { JJ_MAX_PARAMS = 6 };

/* self: the filtered value, the tested value, the object of a method; NULL for a function. arg:
 * bound parameters; rest: what the * took, positional and keyword (all arguments for a row of
 * params "*"). */
typedef const cp_val *jj_fn(jj_ctx *x, const cp_val *self, const cp_val **arg, const jj_args *rest);

typedef struct jj_fn_row {
    const char *name;
    const char *params; /* "a b", "a *", "" */
    jj_fn *fn;
} jj_fn_row;

const jj_fn_row *cp_jj_filter_find(const jj_str *name); /* filters.c; NULL: no such filter */
const jj_fn_row *
cp_jj_test_find(const jj_str *name); /* tests.c; the functions return a bool value */
/* methods.c; a row without fn: the method changes its object, which no template may. */
const jj_fn_row *cp_jj_method_find(jj_type type, const jj_str *name);
const jj_fn_row *cp_jj_global_find(const jj_str *name); /* globals.c */

/* Bind args to the row's parameters and call it. */
const cp_val *cp_jj_invoke(jj_ctx *x, const jj_fn_row *row, const cp_val *self,
                           const jj_args *args);
/* Call any callable value: function, method, macro. */
const cp_val *cp_jj_call(jj_ctx *x, const cp_val *callee, const jj_args *args);
/* loop.name; NULL: no such attribute (or a failure). */
const cp_val *cp_jj_loop_attr(jj_ctx *x, struct jj_loop *l, const jj_str *name);
/* As cp_template_render; *steps (may be NULL) receives what was charged, failed or not. */
cp_code cp_jj_render(const cp_template *t, cp_arena *a, const cp_val *vars, int64_t now,
                     cp_rendered *out, uint64_t *steps, cp_err *err);
/* Run a template: its output goes to x->out. */
bool cp_jj_run(jj_ctx *x, const jj_node *root);

/* Argument helpers: def when v is NULL; false and a failure when the value is of another kind. */
bool cp_jj_arg_int(jj_ctx *x, const cp_val *v, int64_t def, int64_t *out);
bool cp_jj_arg_bool(const cp_val *v, bool def);

/* ---- shared by filters.c, seq.c and methods.c ---- */
/* The rows of seq.c, filters over sequences; NULL: no such filter. */
const jj_fn_row *cp_jj_seq_find(const jj_str *name);
/* Stable merge sort of n items by their keys (both arrays are permuted). */
bool cp_jj_sort(jj_ctx *x, const cp_val **keys, const cp_val **items, size_t n, bool reverse);
/* s without characters of set (NULL or none: white space); sides as in cp_jj_strip. */
const cp_val *cp_jj_strip_val(jj_ctx *x, const cp_val *s, const cp_val *set, int sides);
const cp_val *cp_jj_replace(jj_ctx *x, const cp_val *s, const cp_val *from, const cp_val *to,
                            int64_t count);
/* Items joined by sep, each as str() gives it when any is true, else all must be strings. */
const cp_val *cp_jj_join(jj_ctx *x, const jj_list *l, const cp_val *sep, bool any);
/* Merge a dict or an iterable of pairs (or NULL), then the keyword arguments, into d. */
bool cp_jj_dict_update(jj_ctx *x, jj_dict *d, const cp_val *from, const jj_args *kw);
/* str.splitlines: a list. */
jj_list *cp_jj_lines(jj_ctx *x, const cp_val *s, bool keep_ends);
/* int() and float() of a value; false: not a number (no failure). */
bool cp_jj_parse_int(jj_ctx *x, const jj_str *s, int base, int64_t *out);
bool cp_jj_parse_float(jj_ctx *x, const jj_str *s, double *out);

#endif
