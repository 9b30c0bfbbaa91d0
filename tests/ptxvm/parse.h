/*
 * parse: PTX text to kernels. Internal to tests/ptxvm. lex.c cuts words, parse.c reads modules and
 * declarations, statement.c instructions; each refuses with line and text, and nothing that a text
 * says (sizes, counts, depths) is used before it is checked against the limits here.
 */
#ifndef CP_PTXVM_PARSE_H
#define CP_PTXVM_PARSE_H

#include "tests/ptxvm/run.h"

enum {
    PTX_MAX_TEXT = 1 << 28,
    PTX_MAX_CODE = 1 << 20,
    PTX_MAX_REG_BYTES = 1 << 26, /* of a warp */
    PTX_MAX_PARAM_BYTES = 32764,
    PTX_MAX_SHARED_BYTES = 232448,
    PTX_MAX_LOCAL_BYTES = 512 << 10,
    PTX_MAX_DATA_BYTES = 64 << 20, /* of a variable of a module */
    PTX_MAX_DEPTH = 64,
    PTX_MAX_ARGS = 8
};

typedef struct ptx_word {
    const char *at;
    size_t n; /* 0: the end of the text */
    int line;
} ptx_word;

typedef enum ptx_symbol_kind {
    PTX_SYM_REGS,   /* name<count>, or one register (count 0) */
    PTX_SYM_VALUE,  /* a variable: an address */
    PTX_SYM_DYNAMIC /* the start of dynamic shared memory */
} ptx_symbol_kind;

typedef struct ptx_symbol {
    const char *name;
    size_t n;
    ptx_symbol_kind kind;
    uint64_t value; /* address, or the first register's place */
    uint32_t count;
    uint8_t width; /* of a register; 0: predicate */
} ptx_symbol;

typedef struct ptx_label {
    ptx_word name;
    int32_t at;
} ptx_label;

typedef struct ptx_parser {
    ptx_module *module;
    ptx_kernel *kernel;
    const char *at;
    int line;
    ptx_word peeked;
    bool has_peeked;
    ptx_symbol *symbols; /* innermost scope last */
    size_t n_symbols, cap_symbols;
    size_t scopes[PTX_MAX_DEPTH]; /* n_symbols when each was opened */
    int depth;
    ptx_label *labels, *jumps; /* of the kernel; jumps: where a branch stands */
    size_t n_labels, cap_labels, n_jumps, cap_jumps;
    size_t shared_bytes; /* of the module's variables */
    char *err;
    size_t n_err;
} ptx_parser;

/* lex.c */
ptx_word ptx_next(ptx_parser *p);
ptx_word ptx_peek(ptx_parser *p);
bool ptx_is(ptx_word w, const char *text);
bool ptx_take(ptx_parser *p, const char *text);   /* if it comes next */
bool ptx_expect(ptx_parser *p, const char *text); /* or refuse */
/* Always false. */
bool ptx_refuse(ptx_parser *p, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* An integer (decimal, 0x, 0b, octal), a float's bits (0f, 0d). *bits: 0 integer, 32, 64. */
bool ptx_number(ptx_word w, uint64_t *value, int *bits);
/* "u32": 4; "pred": 0; -1: no type. */
int ptx_type_bytes(const char *at, size_t n);
bool ptx_integer(ptx_parser *p, uint64_t limit, uint64_t *out);

/* statement.c */
bool ptx_parse_statement(ptx_parser *p);
const ptx_symbol *ptx_symbol_of(const ptx_parser *p, ptx_word w);
bool ptx_add_registers(ptx_parser *p, int line, size_t width, uint64_t count, uint32_t *at);

#endif
