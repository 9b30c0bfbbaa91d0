/*
 * Values of the template engine: the data model that every file of chat/jinja shares (internal to
 * chat).
 *
 * A value lives in an arena, is created once and never changes, but for the attributes of a
 * namespace: as in the immutable sandbox of transformers, a template cannot change a list or a
 * dict. A string is a run of UTF-8 bytes with the ranges that came from the request (spans).
 * Everything that can fail takes a jj_ctx, returns NULL or false, and leaves the first failure in
 * the ctx.
 */
#ifndef CP_CHAT_JINJA_VALUE_H
#define CP_CHAT_JINJA_VALUE_H

#include "chat/chat.h"

/* Every limit of the engine stands here. */
enum {
    JJ_MAX_STEPS = 1000000, /* nodes evaluated + items touched + work / JJ_STEP_BYTES */
    /* Templates that look through all messages at each of them are common: so many steps more for
     * each pair of messages, up to a limit. */
    JJ_PAIR_STEPS = 16,
    JJ_MAX_PAIR_STEPS = 15000000,
    JJ_STEP_BYTES = 256,
    JJ_MAX_OUTPUT = 8 << 20, /* bytes of the result, and of any single string */
    JJ_MAX_RANGE = 100000,   /* items of range(), and of a list made by repetition */
    JJ_MAX_DEPTH = 64,       /* nesting of source, of macro calls, of printed values */
    JJ_MAX_EVAL = 1000,      /* nested evaluations, all kinds together */
    JJ_MAX_HEIGHT = 200,     /* of one expression tree (long chains of filters, members) */
    JJ_MAX_ARGS = 64,        /* positional or keyword arguments of one call; macro parameters */
    JJ_MAX_SOURCE = 4 << 20, /* bytes of template source */
};

/*
 * Work is counted in bytes that are copied; bytes that cost more are counted several times. A step
 * is then some hundred nanoseconds whatever does it. Who does the work charges it, before or while
 * it is done; a search charges what it has passed over.
 */
enum {
    JJ_COPY = 1,  /* copied or compared */
    JJ_COUNT = 2, /* counted as characters, or searched for a short text */
    JJ_SCAN = 4,  /* taken apart into characters, or searched for a long text */
    JJ_WRITE = 8, /* written anew character by character, or looked up in a table */
    JJ_MAP = 32,  /* looked up in several tables */
    JJ_PIECE = 32 /* bytes that a piece of a text costs beyond its own, and an escape */
};
/* Steps that a number's text costs beyond a step: decimal digits of a double are long work. */
enum { JJ_FLOAT_STEPS = 16 };

typedef enum jj_type {
    JJ_UNDEF,
    JJ_NONE,
    JJ_BOOL,
    JJ_INT,
    JJ_FLOAT,
    JJ_STR,
    JJ_LIST,
    JJ_TUPLE,
    JJ_DICT,
    JJ_VIEW, /* dict.keys(), .values(), .items() */
    JJ_GEN,  /* what map, select, unique, ... give: iterable once, no length, always true */
    JJ_RANGE,
    JJ_NS, /* namespace() */
    JJ_MACRO,
    JJ_FUNC, /* a global function or a bound method */
    JJ_LOOP,
} jj_type;

typedef struct jj_span {
    size_t begin, end;
} jj_span;

/* Growable backing of a string built by concatenation; strings share it as prefixes. */
typedef struct jj_block {
    char *data;
    size_t used, cap;
    jj_span *spans;
    size_t n_spans, cap_spans;
} jj_block;

typedef struct jj_str {
    const char *p;
    size_t n;             /* bytes */
    const jj_span *spans; /* marked ranges, ascending, disjoint (may touch); unused when all */
    uint32_t n_spans;
    bool all;      /* every byte is marked */
    jj_block *blk; /* may be NULL */
} jj_str;

typedef struct jj_list {
    const cp_val **v;
    size_t n, cap;
} jj_list;

typedef struct jj_entry {
    const cp_val *key, *val;
    uint64_t hash;
} jj_entry;

typedef struct jj_dict {
    jj_entry *e; /* insertion order */
    size_t n, cap;
    uint32_t *index; /* open addressing over e, 0 = free; NULL below 8 entries */
    size_t n_index;
} jj_dict;

typedef struct jj_gen {
    jj_list *items;
    size_t pos;
    const char *why; /* not NULL: computing the items failed, which shows when they are asked for */
} jj_gen;

typedef enum jj_view_kind { JJ_KEYS, JJ_VALUES, JJ_ITEMS } jj_view_kind;

struct jj_node;
struct jj_scope;
struct jj_loop;
struct jj_fn_row;

typedef struct jj_macro {
    const struct jj_node *node; /* JJ_N_MACRO or JJ_N_CALL */
    struct jj_scope *scope;     /* where it was defined */
} jj_macro;

struct cp_val {
    jj_type type;
    union {
        bool b;
        int64_t i;
        double f;
        jj_str s; /* STR; UNDEF: why, for the message */
        jj_list *list;
        jj_dict *dict; /* DICT, NS */
        struct {
            jj_dict *dict;
            jj_view_kind kind;
        } view;
        jj_gen *gen;
        struct {
            int64_t start, stop, step, n;
        } range;
        jj_macro macro;
        struct {
            const struct jj_fn_row *row;
            const cp_val *self; /* NULL for a global function */
        } func;
        struct jj_loop *loop;
    } u;
};

/* A growing byte string with marks; in an arena, or on the heap when a is NULL (then jj_sb_fini).
 */
typedef struct jj_sb {
    cp_arena *a;
    char *p;
    size_t n, cap;
    jj_span *spans;
    size_t n_spans, cap_spans;
    cp_account *account; /* pays for what lies on the heap */
} jj_sb;

/* One rendering. */
typedef struct jj_ctx {
    cp_arena *a;
    cp_err *err;
    cp_code code;               /* CP_OK until the first failure */
    uint32_t line;              /* of the node in work */
    uint64_t steps, more_steps; /* more than JJ_MAX_STEPS that may be taken */
    size_t work;                /* bytes that make no whole step yet */
    uint32_t n_eval, n_macro;
    int flow; /* JJ_FLOW_*: break or continue under way */
    jj_sb *out;
    struct jj_scope *scope;
    const cp_val *hole; /* the text that a filter block works on */
    const cp_val *vars;
    int64_t now;
} jj_ctx;

/* ---- failures and budget (value.c); the first failure is kept ---- */
void cp_jj_fail(jj_ctx *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cp_jj_fail_memory(jj_ctx *x);
/* n more steps; false (and a failure) above the limit, which then stays reached. */
bool cp_jj_step(jj_ctx *x, size_t n);
/* n bytes of work of a weight (JJ_COPY, ...); remainders add up. */
bool cp_jj_work(jj_ctx *x, size_t n, size_t weight);
/* The work of copying n pointers or spans. */
bool cp_jj_work_items(jj_ctx *x, size_t n);
void *cp_jj_alloc(jj_ctx *x, size_t n);

/* ---- constructors (value.c): NULL on failure ---- */
extern const cp_val cp_jj_none, cp_jj_true, cp_jj_false, cp_jj_undef, cp_jj_empty;
const cp_val *cp_jj_undefined(jj_ctx *x, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
const cp_val *cp_jj_bool(bool b);
const cp_val *cp_jj_int(jj_ctx *x, int64_t i);
const cp_val *cp_jj_float(jj_ctx *x, double f);
const cp_val *cp_jj_str(jj_ctx *x, const char *s, size_t n);      /* copies; unmarked */
const cp_val *cp_jj_list(jj_ctx *x, jj_type type, jj_list *list); /* LIST or TUPLE over list */
const cp_val *cp_jj_pair(jj_ctx *x, const cp_val *a, const cp_val *b);
const cp_val *cp_jj_gen(jj_ctx *x, jj_list *items);
const cp_val *cp_jj_dict(jj_ctx *x, jj_type type, jj_dict *dict);
const char *cp_jj_type_name(const cp_val *v); /* Python's name of the type */

jj_list *cp_jj_list_new(jj_ctx *x, size_t cap);
bool cp_jj_list_push(jj_ctx *x, jj_list *l, const cp_val *v);
jj_dict *cp_jj_dict_new(jj_ctx *x);
/* Keys are any hashable value (strings, numbers, bools, none, tuples of them). */
bool cp_jj_dict_set(jj_ctx *x, jj_dict *d, const cp_val *key, const cp_val *v);
const cp_val *cp_jj_dict_get(jj_ctx *x, const jj_dict *d,
                             const cp_val *key); /* NULL: absent or failed */
/* By string; NULL: absent or failed. */
const cp_val *cp_jj_dict_gets(jj_ctx *x, const jj_dict *d, const char *key, size_t n);
/* The entries' keys, values or pairs as a fresh list. */
jj_list *cp_jj_dict_list(jj_ctx *x, const jj_dict *d, jj_view_kind kind);

/* ---- marked strings (str.c). Offsets are bytes unless a name says cp (code points). ---- */
/* Is byte off marked, and up to where does that hold (end <= s->n)? */
bool cp_jj_str_mark(const jj_str *s, size_t off, size_t *end);
/* These two charge what they walk over. */
size_t cp_jj_str_len_cp(jj_ctx *x, const jj_str *s);
/* Byte offset of code point number i; the end of the text where it has no more than i. */
size_t cp_jj_str_off_cp(jj_ctx *x, const jj_str *s, size_t i);
const cp_val *cp_jj_sub(jj_ctx *x, const cp_val *s, size_t begin, size_t end);
const cp_val *cp_jj_concat(jj_ctx *x, const cp_val *a, const cp_val *b);
/* First occurrence of needle at or after from, hay->n: not there (or a failure). Linear, and
 * charged by what it passes over. */
size_t cp_jj_find(jj_ctx *x, const jj_str *hay, size_t from, const jj_str *needle);
/* The last one wholly before end; the same. */
size_t cp_jj_rfind(jj_ctx *x, const jj_str *hay, size_t end, const jj_str *needle);
bool cp_jj_str_is(const jj_str *s, const char *lit);
/* Bounds of s without leading (1) and trailing (2) characters of set; set NULL: Unicode white
 * space. Charges what it takes away. */
void cp_jj_strip(jj_ctx *x, const jj_str *s, const jj_str *set, int sides, size_t *begin,
                 size_t *end);

bool cp_jj_sb_add(jj_ctx *x, jj_sb *b, const char *p, size_t n, bool marked);
bool cp_jj_sb_adds(jj_ctx *x, jj_sb *b, const char *lit); /* unmarked */
bool cp_jj_sb_add_str(jj_ctx *x, jj_sb *b, const jj_str *s, size_t begin, size_t end);
bool cp_jj_sb_add_cp(jj_ctx *x, jj_sb *b, uint32_t cp, bool marked);
bool cp_jj_sb_pad(jj_ctx *x, jj_sb *b, const char *fill, size_t n_fill, size_t times);
/* The bytes so far as a value; b is empty afterwards. Arena builders only. */
const cp_val *cp_jj_sb_take(jj_ctx *x, jj_sb *b);
void cp_jj_sb_fini(jj_sb *b);

/* ---- Unicode (unicode.c) ---- */
/* Decode at s[off] (off < n); invalid bytes decode as themselves, one at a time, with *cp >=
 * 0x110000. */
size_t cp_jj_utf8_next(const char *s, size_t n, size_t off, uint32_t *cp);
size_t cp_jj_utf8_put(uint32_t cp, char out[4]);
bool cp_jj_is_space(uint32_t cp);     /* str.isspace */
bool cp_jj_is_linebreak(uint32_t cp); /* str.splitlines */
bool cp_jj_is_printable(uint32_t cp); /* str.isprintable */
bool cp_jj_is_lower(uint32_t cp);
bool cp_jj_is_upper(uint32_t cp);
bool cp_jj_is_title(uint32_t cp);
bool cp_jj_is_digit(uint32_t cp); /* str.isdigit */
/* Full case mapping; writes 1 to 3 code points. */
size_t cp_jj_upper(uint32_t cp, uint32_t out[3]);
size_t cp_jj_lower(uint32_t cp, uint32_t out[3]);
size_t cp_jj_title(uint32_t cp, uint32_t out[3]);
typedef enum jj_case { JJ_UPPER, JJ_LOWER, JJ_TITLE, JJ_CAPITALIZE, JJ_SWAPCASE } jj_case;
const cp_val *cp_jj_case(jj_ctx *x, const cp_val *s, jj_case how);

/* ---- text of values (repr.c, json.c, format.c) ---- */
size_t cp_jj_float_repr(double f, char out[40]);
/* str(v): strings are themselves, undefined is ''. */
const cp_val *cp_jj_to_str(jj_ctx *x, const cp_val *v);
bool cp_jj_sb_str(jj_ctx *x, jj_sb *b, const cp_val *v);  /* append str(v) */
bool cp_jj_sb_repr(jj_ctx *x, jj_sb *b, const cp_val *v); /* append repr(v) */
typedef struct jj_json_opts {
    bool ensure_ascii, sort_keys;
    const jj_str *indent;             /* NULL: one line */
    const jj_str *item_sep, *key_sep; /* NULL: Python's defaults */
} jj_json_opts;
bool cp_jj_sb_json(jj_ctx *x, jj_sb *b, const cp_val *v, const jj_json_opts *o);
/* Parse JSON; strings keep the marks of the text. NULL on failure. */
const cp_val *cp_jj_json_parse(jj_ctx *x, const jj_str *text);
/* "..." % args and "...".format(...). */
const cp_val *cp_jj_printf(jj_ctx *x, const jj_str *fmt, const cp_val *args);
struct jj_args;
const cp_val *cp_jj_format(jj_ctx *x, const jj_str *fmt, const struct jj_args *args);

/* ---- operations (ops.c) ---- */
typedef enum jj_op {
    JJ_ADD,
    JJ_SUB,
    JJ_MUL,
    JJ_DIV,
    JJ_FLOORDIV,
    JJ_MOD,
    JJ_POW,
    JJ_EQ,
    JJ_NE,
    JJ_LT,
    JJ_LE,
    JJ_GT,
    JJ_GE,
    JJ_IN,
    JJ_NOTIN
} jj_op;
bool cp_jj_truth(const cp_val *v);
const cp_val *cp_jj_arith(jj_ctx *x, jj_op op, const cp_val *a, const cp_val *b);
const cp_val *cp_jj_negate(jj_ctx *x, const cp_val *v, bool minus);
bool cp_jj_equal(jj_ctx *x, const cp_val *a, const cp_val *b); /* failure: x->code */
/* *cmp -1, 0, 1, or 2 (unordered: NaN); false: not comparable (a failure naming op). */
bool cp_jj_compare(jj_ctx *x, const char *op, const cp_val *a, const cp_val *b, int *cmp);
bool cp_jj_contains(jj_ctx *x, const cp_val *seq, const cp_val *item, bool *found);
/* a op b for the comparisons. */
bool cp_jj_relation(jj_ctx *x, jj_op op, const cp_val *a, const cp_val *b, bool *result);
uint64_t cp_jj_hash(jj_ctx *x, const cp_val *v); /* fails on what Python cannot hash */
/* What hashes are mixed with: an address of the running process. The functions below take it as an
 * argument, so that a test can walk many. */
uint64_t cp_jj_secret(void);
uint64_t cp_jj_hash_int(uint64_t i, uint64_t secret);
uint64_t cp_jj_hash_bytes(const char *p, size_t n, uint64_t secret);
/* Every bit of the result depends on every bit of h (the finalizer of MurmurHash3). */
static inline uint64_t cp_jj_spread(uint64_t h)
{
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}
/* x[key] and x.name with Jinja's fall-backs; undefined when absent. */
const cp_val *cp_jj_getitem(jj_ctx *x, const cp_val *v, const cp_val *key);
const cp_val *cp_jj_getattr(jj_ctx *x, const cp_val *v, const cp_val *name);
/* Any of begin, end, step may be NULL. */
const cp_val *cp_jj_slice(jj_ctx *x, const cp_val *v, const cp_val *begin, const cp_val *end,
                          const cp_val *step);
/* All items of an iterable as a list that the caller may change; NULL: not iterable (a failure).
 * Consumes a JJ_GEN. */
jj_list *cp_jj_items(jj_ctx *x, const cp_val *v);
bool cp_jj_is_iterable(const cp_val *v);
/* len(); false: has none (no failure). Charges the length of a text. */
bool cp_jj_len(jj_ctx *x, const cp_val *v, size_t *n);

#endif
