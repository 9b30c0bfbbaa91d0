/*
 * Tokens and the syntax tree of a template (internal to chat). The tree lives in the template's own
 * arena and never changes after parsing, so any number of threads may interpret it at once. Names
 * that templates use as variables are interned: equal names are the same pointer.
 */
#ifndef CP_CHAT_JINJA_AST_H
#define CP_CHAT_JINJA_AST_H

#include "chat/jinja/value.h"

typedef enum jj_tok_type {
    JJ_T_EOF,
    JJ_T_DATA,
    JJ_T_VAR_BEGIN,
    JJ_T_VAR_END,
    JJ_T_BLOCK_BEGIN,
    JJ_T_BLOCK_END,
    JJ_T_NAME,
    JJ_T_STR,
    JJ_T_INT,
    JJ_T_FLOAT,
    JJ_T_OP, /* value.op */
} jj_tok_type;

/* Operators carry their spelling: one or two characters, the second in the high byte. */
#define JJ_OP2(a, b) ((uint16_t)((unsigned)(a) | (unsigned)(b) << 8))
#define JJ_OP1(a)    ((uint16_t)(a))

typedef struct jj_token {
    jj_tok_type type;
    uint32_t line;
    uint16_t op;
    const char *p; /* DATA: text; NAME: spelling; STR: unescaped */
    size_t n;
    int64_t i;
    double f;
} jj_token;

typedef struct jj_tokens {
    jj_token *t; /* ends with JJ_T_EOF */
    size_t n, cap;
} jj_tokens;

/* Cut a source into tokens (lexer.c). Everything in the arena of x. */
bool cp_jj_lex(jj_ctx *x, const char *src, size_t n, jj_tokens *out);

typedef enum jj_kind {
    /* statements */
    JJ_N_BODY,        /* list */
    JJ_N_DATA,        /* val */
    JJ_N_PRINT,       /* a */
    JJ_N_IF,          /* list: cond, body, cond, body ...; b: else body or NULL */
    JJ_N_FOR,         /* a target, b iterable, c filter or NULL, d body, e else or NULL */
    JJ_N_SET,         /* a target, b value */
    JJ_N_SETBLOCK,    /* a target, d body, b filter chain over a JJ_N_HOLE or NULL */
    JJ_N_FILTERBLOCK, /* d body, b filter chain over a JJ_N_HOLE */
    JJ_N_WITH,        /* list: target, value ...; d body */
    JJ_N_MACRO, /* val name; list: params; list2: defaults of the last n_list2; d body; flags */
    JJ_N_CALL,  /* a call block: as MACRO, and a = the call */
    JJ_N_SCOPE, /* d body in a scope of its own (generation) */
    JJ_N_BREAK,
    JJ_N_CONTINUE,
    /* expressions */
    JJ_N_CONST,   /* val */
    JJ_N_NAME,    /* val, interned */
    JJ_N_HOLE,    /* the text that a block filter works on */
    JJ_N_NSREF,   /* val name, a = JJ_N_CONST attribute: target only */
    JJ_N_LIST,    /* list */
    JJ_N_TUPLE,   /* list */
    JJ_N_DICT,    /* list: key, value ... */
    JJ_N_ARITH,   /* list operands, ops[n - 1]: a left-associative chain of one level */
    JJ_N_CONCAT,  /* list */
    JJ_N_COMPARE, /* list operands, ops */
    JJ_N_AND,     /* list */
    JJ_N_OR,      /* list */
    JJ_N_NOT,     /* a */
    JJ_N_NEG,     /* a */
    JJ_N_POS,     /* a */
    JJ_N_COND,    /* a value, b condition, c else or NULL */
    JJ_N_GETATTR, /* a, val name */
    JJ_N_GETITEM, /* a, b */
    JJ_N_SLICE,   /* a; b, c, d begin, end, step or NULL */
    JJ_N_INVOKE,  /* a callee; arguments */
    JJ_N_FILTER,  /* a value; val name; arguments */
    JJ_N_TEST,    /* a value; val name; arguments */
} jj_kind;

enum { JJ_USES_VARARGS = 1, JJ_USES_KWARGS = 2, JJ_USES_CALLER = 4 };

typedef struct jj_node jj_node;

/* list holds positional arguments; one of them may be *args, and **kwargs may follow. */
typedef struct jj_argnodes {
    jj_node **list;
    uint32_t n_list;
    const cp_val **kw_names;
    jj_node **kw;
    uint32_t n_kw;
    jj_node *star, *star2;
} jj_argnodes;

struct jj_node {
    jj_kind kind;
    uint32_t line;
    uint16_t height; /* of an expression tree */
    uint8_t flags;   /* JJ_USES_* */
    const cp_val *val;
    jj_node *a, *b, *c, *d, *e;
    jj_node **list;
    uint32_t n_list;
    jj_node **list2;
    uint32_t n_list2;
    uint8_t *ops;                /* jj_op */
    const struct jj_fn_row *row; /* FILTER, TEST: NULL when there is none of that name */
    jj_argnodes *args;
};

/* Parse a whole template (parser.c). NULL and a failure with its line on a syntax error. */
jj_node *cp_jj_parse(jj_ctx *x, const jj_tokens *toks);

/* ---- between parser.c (statements) and expr.c (expressions) ---- */
typedef struct jj_parser {
    jj_ctx *x;
    const jj_token *t; /* current */
    uint32_t depth;
    uint32_t soft;  /* > 0: under a condition, unknown filters and tests fail only when reached */
    uint32_t loops; /* for bodies around this place, inside the current macro */
    uint8_t uses;   /* JJ_USES_* seen since the innermost macro began */
    const cp_val **names; /* interned: open addressing, NULL = free */
    size_t n_names, cap_names;
} jj_parser;

jj_node *cp_jj_node(jj_parser *p, jj_kind kind);
const cp_val *cp_jj_intern(jj_parser *p, const char *s, size_t n);
/* Names that the interpreter itself binds; what the parser interns are these very values. */
extern const cp_val cp_jj_name_loop, cp_jj_name_varargs, cp_jj_name_kwargs, cp_jj_name_caller;
/* A failure at the current token: "expected X, got Y". NULL. */
jj_node *cp_jj_unexpected(jj_parser *p, const char *expected);
bool cp_jj_enter(jj_parser *p);
void cp_jj_leave(jj_parser *p);
bool cp_jj_at_op(const jj_parser *p, uint16_t op);
bool cp_jj_at_name(const jj_parser *p, const char *name);
bool cp_jj_skip_op(jj_parser *p, uint16_t op);
bool cp_jj_skip_name(jj_parser *p, const char *name);
bool cp_jj_expect_op(jj_parser *p, uint16_t op);

/* A pending list of nodes while it is being read. */
typedef struct jj_nodes {
    jj_node **v;
    uint32_t n, cap;
} jj_nodes;
bool cp_jj_nodes_push(jj_parser *p, jj_nodes *l, jj_node *n);

enum {
    JJ_TUPLE_PLAIN = 0,
    JJ_TUPLE_NO_COND = 1,
    JJ_TUPLE_PARENS = 2,
    JJ_TUPLE_TARGET = 4,
    JJ_TUPLE_NS = 8
};
jj_node *cp_jj_parse_expr(jj_parser *p, bool with_cond);
/* One expression or a bare tuple; end_name stops a tuple ("in", "recursive") and may be NULL. */
jj_node *cp_jj_parse_tuple(jj_parser *p, unsigned mode, const char *end_name);
/* Filters after nothing: {% filter f|g(1) %} and {% set x | f %}; the chain works on a JJ_N_HOLE.
 */
jj_node *cp_jj_parse_filters(jj_parser *p, bool inline_start);

#endif
