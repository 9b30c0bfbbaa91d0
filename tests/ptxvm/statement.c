/*
 * Statements: a label, or [@[!]p] opcode operands;. The operands are read as they are written, then
 * tried against the rows that have the opcode's full text; the first row whose shape they fit is
 * the instruction.
 */
#include "tests/ptxvm/parse.h"

#include <stdio.h>

enum { MAX_VECTOR = 8 };

typedef enum arg_form { ARG_PLAIN, ARG_VECTOR, ARG_MEMORY } arg_form;

typedef struct arg {
    arg_form form;
    int n;
    ptx_word word[MAX_VECTOR]; /* the one, those in braces, or the base */
    bool minus, negated, after_bar;
    int64_t offset;
} arg;

/* Why the operands do not fit a shape; the first row's reason is reported. */
typedef struct binding {
    ptx_parser *p;
    ptx_inst *i;
    const arg *args;
    int n_args, n_literals;
    char why[160];
} binding;

bool ptx_add_registers(ptx_parser *p, int line, size_t width, uint64_t count, uint32_t *at)
{
    size_t bytes = width == 0 ? 4 : (32 * width + 63) / 64 * 64;
    size_t start = width == 0 ? p->kernel->reg_bytes : (p->kernel->reg_bytes + 63) / 64 * 64;
    if (count > (PTX_MAX_REG_BYTES - start) / bytes)
        return ptx_refuse(p, line, "registers of more than %d bytes a warp", PTX_MAX_REG_BYTES);
    *at = (uint32_t)start;
    p->kernel->reg_bytes = start + (size_t)count * bytes;
    return true;
}

/* name, or name<n> and a number below n behind it. */
static bool names(const ptx_symbol *s, ptx_word w, uint32_t *index)
{
    *index = 0;
    if (w.n < s->n || memcmp(s->name, w.at, s->n) != 0)
        return false;
    if (s->count == 0)
        return w.n == s->n;
    uint64_t v = 0;
    for (size_t k = s->n; k < w.n; k++) {
        if (w.at[k] < '0' || w.at[k] > '9' || w.n - s->n > 9 ||
            (w.at[k] == '0' && k == s->n && w.n > s->n + 1))
            return false;
        v = v * 10 + (uint64_t)(w.at[k] - '0');
    }
    *index = (uint32_t)v;
    return w.n > s->n && v < s->count;
}

const ptx_symbol *ptx_symbol_of(const ptx_parser *p, ptx_word w)
{
    uint32_t index;
    for (size_t k = p->n_symbols; k-- > 0;) {
        if (names(&p->symbols[k], w, &index))
            return &p->symbols[k];
    }
    return NULL;
}

static const ptx_symbol *register_of(const ptx_parser *p, ptx_word w, uint32_t *at)
{
    const ptx_symbol *s = ptx_symbol_of(p, w);
    uint32_t index;
    if (!s || s->kind != PTX_SYM_REGS || !names(s, w, &index))
        return NULL;
    *at = (uint32_t)s->value + index * (s->width == 0 ? 4 : (32u * s->width + 63) / 64 * 64);
    return s;
}

/* The place of a register that always holds value in all lanes. dynamic: the value is the start of
 * dynamic shared memory, known at the end of the body. */
static bool constant(ptx_parser *p, int line, uint64_t value, size_t width, bool dynamic,
                     uint32_t *at)
{
    ptx_kernel *k = p->kernel;
    int *bucket = &k->buckets[(value * 0x9e3779b97f4a7c15u) >> 56];
    for (int c = *bucket; c >= 0; c = k->constants[c].next) {
        const ptx_constant *old = &k->constants[c];
        if (old->value == value && old->width == width && old->dynamic == dynamic) {
            *at = old->at;
            return true;
        }
    }
    if (!ptx_add_registers(p, line, width, 1, at))
        return false;
    k->constants = ptx_more(k->constants, &k->cap_constants, k->n_constants, sizeof *k->constants);
    k->constants[k->n_constants] = (ptx_constant){value, *at, (uint8_t)width, dynamic, *bucket};
    *bucket = (int)k->n_constants++;
    return true;
}

static bool misfit(binding *b, const char *what, ptx_word w)
{
    if (!b->why[0])
        snprintf(b->why, sizeof b->why, "operand '%.*s': %s", (int)(w.n > 40 ? 40 : w.n), w.at,
                 what);
    return false;
}

static int width_of(char kind)
{
    return kind == 'b' ? 1 : kind == 'h' ? 2 : kind == 'w' ? 4 : kind == 'l' ? 8 : 0;
}

static bool set_operand(binding *b, uint32_t at, int width, bool negated)
{
    ptx_inst *i = b->i;
    if (negated)
        i->negated |= (uint16_t)(1u << i->n_op);
    i->width[i->n_op] = (uint8_t)width;
    i->op[i->n_op++] = at;
    return true;
}

/* A literal as a source of that many bytes. */
static bool bind_number(binding *b, const arg *a, ptx_word w, uint64_t value, int bits, int width)
{
    uint32_t at;
    if (bits && bits != width * 8)
        return misfit(b, "a float of the wrong size", w);
    if (!bits && width < 8 && value > (uint64_t)UINT32_MAX >> (width == 4 ? 0 : 32 - 8 * width))
        return misfit(b, "too large a number for the operand", w);
    if (a->minus)
        value = bits ? value ^ (uint64_t)1 << (bits - 1) : 0 - value;
    if (width < 8)
        value &= ((uint64_t)1 << (8 * width)) - 1;
    size_t held = width == 1 ? 2 : (size_t)width;
    return constant(b->p, w.line, value, held, false, &at) && set_operand(b, at, (int)held, false);
}

static bool bind_special(binding *b, ptx_word w, char kind)
{
    ptx_kernel *k = b->p->kernel;
    for (int s = 0; s < PTX_SPECIALS; s++) {
        if (!ptx_is(w, ptx_special_names[s]))
            continue;
        if (kind != 'w')
            return misfit(b, "a special register of 32 bits", w);
        if (!k->special[s] && !ptx_add_registers(b->p, w.line, 4, 1, &k->special[s]))
            return false;
        return set_operand(b, k->special[s], 4, false);
    }
    return misfit(b, "no such register or variable", w);
}

/* One register or literal of a shape's word. */
static bool bind_one(binding *b, const arg *a, ptx_word w, char kind, bool wider, bool written)
{
    uint32_t at;
    uint64_t value;
    int bits, width = width_of(kind);
    if (written && ptx_is(w, "_"))
        return set_operand(b, 0, width == 1 ? 2 : width, false);
    const ptx_symbol *s = register_of(b->p, w, &at);
    if (s) {
        if (a->minus || (a->negated && (kind != 'p' || written)))
            return misfit(b, "a sign before a register", w);
        if (kind == 'p' ? s->width != 0 : s->width == 0)
            return misfit(b, "a predicate where none is wanted, or the other way round", w);
        if (kind == 'b' || wider ? s->width < width : s->width != width)
            return misfit(b, "a register of the wrong width", w);
        return set_operand(b, at, s->width, a->negated);
    }
    if (kind == 'p' && !written && ptx_number(w, &value, &bits) && !bits && value <= 1)
        return constant(b->p, w.line, value ? UINT32_MAX : 0, 0, false, &at) &&
               set_operand(b, at, 0, a->negated);
    if (written || kind == 'p' || a->negated)
        return misfit(b, "no such register", w);
    if (ptx_number(w, &value, &bits))
        return bind_number(b, a, w, value, bits, width);
    s = ptx_symbol_of(b->p, w);
    if (!s || a->minus)
        return bind_special(b, w, kind);
    if (width < 4 || (width == 4 && s->value > UINT32_MAX))
        return misfit(b, "an address in a register that is too narrow", w);
    return constant(b->p, w.line, s->value, (size_t)width, s->kind == PTX_SYM_DYNAMIC, &at) &&
           set_operand(b, at, width, false);
}

static bool bind_memory(binding *b, const arg *a)
{
    uint32_t at;
    uint64_t value;
    int bits;
    ptx_word w = a->word[0];
    if (a->form != ARG_MEMORY)
        return misfit(b, "no address in brackets", w);
    b->i->literal[b->n_literals++] = a->offset;
    const ptx_symbol *s = register_of(b->p, w, &at);
    if (s)
        return s->width < 4 ? misfit(b, "an address in a register that is too narrow", w)
                            : set_operand(b, at, s->width, false);
    if (ptx_number(w, &value, &bits) && !bits)
        return constant(b->p, w.line, value, 8, false, &at) && set_operand(b, at, 8, false);
    s = ptx_symbol_of(b->p, w);
    if (!s)
        return misfit(b, "no such register or variable", w);
    return constant(b->p, w.line, s->value, 8, s->kind == PTX_SYM_DYNAMIC, &at) &&
           set_operand(b, at, 8, false);
}

static bool bind_literal(binding *b, const arg *a)
{
    uint64_t value;
    int bits;
    if (a->form != ARG_PLAIN || a->negated || !ptx_number(a->word[0], &value, &bits) || bits ||
        value > INT32_MAX)
        return misfit(b, "no integer literal", a->word[0]);
    b->i->literal[b->n_literals++] = a->minus ? -(int64_t)value : (int64_t)value;
    return true;
}

static bool bind_label(binding *b, const arg *a)
{
    ptx_parser *p = b->p;
    if (a->form != ARG_PLAIN || a->negated || a->minus)
        return misfit(b, "no label", a->word[0]);
    p->jumps = ptx_more(p->jumps, &p->cap_jumps, p->n_jumps, sizeof *p->jumps);
    p->jumps[p->n_jumps++] = (ptx_label){a->word[0], (int32_t)p->kernel->n_code};
    return true;
}

/* One word of a shape against one operand. */
static bool bind_arg(binding *b, const char *word, size_t n, const arg *a)
{
    bool written = *word == '=';
    size_t k = written;
    k += word[k] == '|' || word[k] == '?';
    int count = word[k] >= '1' && word[k] <= '8' ? word[k++] - '0' : 0;
    char kind = word[k];
    bool wider = k + 1 < n && word[k + 1] == '+';
    if (kind == 'm')
        return bind_memory(b, a);
    if (kind == '#')
        return bind_literal(b, a);
    if (kind == '0')
        return bind_literal(b, a) &&
               (b->i->literal[--b->n_literals] == 0 || misfit(b, "only 0 is known", a->word[0]));
    if (kind == 't')
        return bind_label(b, a);
    if (a->form == ARG_MEMORY || (count == 0 && a->form == ARG_VECTOR) ||
        (count > 1 && (a->form != ARG_VECTOR || a->n != count)) || (count == 1 && a->n != 1))
        return misfit(b, "another form of operand is wanted", a->word[0]);
    for (int v = 0; v < a->n; v++) {
        if (!bind_one(b, a, a->word[v], kind, wider, written))
            return false;
    }
    return true;
}

/* An operand of a shape that the text leaves out. */
static bool bind_absent(binding *b, const char *word, ptx_word opcode)
{
    size_t k = *word == '=';
    if (word[k] != '|' && word[k] != '?')
        return misfit(b, "fewer operands than it has", opcode);
    return set_operand(b, 0, k ? width_of(word[k + 1]) : 0, false);
}

static bool bind_row(binding *b, const ptx_row *row, ptx_word opcode)
{
    ptx_inst *i = b->i;
    int next = 0;
    b->n_literals = 0;
    i->n_op = 0;
    i->negated = 0;
    for (const char *word = row->shape; *word;) {
        size_t n = strcspn(word, " ");
        bool bar = word[*word == '='] == '|';
        const arg *a = next < b->n_args ? &b->args[next] : NULL;
        if (a && a->after_bar == bar) {
            next++;
            if (!bind_arg(b, word, n, a))
                return false;
        } else if (!bind_absent(b, word, opcode))
            return false;
        word += n + (word[n] == ' ');
    }
    if (next < b->n_args)
        return misfit(b, "more operands than it has", opcode);
    i->row = row;
    i->fn = row->fn;
    i->flow = (uint8_t)row->flow;
    return true;
}

static bool read_address(ptx_parser *p, arg *a)
{
    uint64_t value;
    a->form = ARG_MEMORY;
    a->word[0] = ptx_next(p);
    a->n = 1;
    if (ptx_take(p, "+") || ptx_is(ptx_peek(p), "-")) {
        bool minus = ptx_take(p, "-");
        if (!ptx_integer(p, INT32_MAX, &value))
            return false;
        a->offset = minus ? -(int64_t)value : (int64_t)value;
    }
    return ptx_expect(p, "]");
}

static bool read_arg(ptx_parser *p, arg *a)
{
    if (ptx_take(p, "["))
        return read_address(p, a);
    if (!ptx_take(p, "{")) {
        a->negated = ptx_take(p, "!");
        a->minus = ptx_take(p, "-");
        a->word[0] = ptx_next(p);
        a->n = 1;
        return a->word[0].n > 0;
    }
    a->form = ARG_VECTOR;
    do {
        if (a->n == MAX_VECTOR)
            return ptx_refuse(p, p->line, "more than %d registers in braces", MAX_VECTOR);
        a->word[a->n++] = ptx_next(p);
    } while (ptx_take(p, ","));
    return ptx_expect(p, "}");
}

static bool read_args(ptx_parser *p, arg args[PTX_MAX_ARGS], int *n)
{
    bool bar = false;
    for (*n = 0; !ptx_take(p, ";"); (*n)++) {
        if (*n == PTX_MAX_ARGS)
            return ptx_refuse(p, p->line, "more than %d operands", PTX_MAX_ARGS);
        args[*n] = (arg){.after_bar = bar};
        if (!read_arg(p, &args[*n]))
            return ptx_refuse(p, p->line, "the text ends in an instruction");
        bar = ptx_take(p, "|");
        if (!bar && !ptx_take(p, ",") && !ptx_is(ptx_peek(p), ";"))
            return ptx_expect(p, ";");
    }
    return true;
}

static bool read_guard(ptx_parser *p, ptx_inst *i)
{
    if (!ptx_take(p, "@"))
        return true;
    i->guarded = true;
    i->guard_negated = ptx_take(p, "!");
    ptx_word w = ptx_next(p);
    const ptx_symbol *s = register_of(p, w, &i->guard);
    if (!s || s->width != 0)
        return ptx_refuse(p, w.line, "'%.*s' is no predicate", (int)w.n, w.at);
    return true;
}

static bool add_label(ptx_parser *p, ptx_word w)
{
    for (size_t l = 0; l < p->n_labels; l++) {
        if (p->labels[l].name.n == w.n && memcmp(p->labels[l].name.at, w.at, w.n) == 0)
            return ptx_refuse(p, w.line, "a second label '%.*s'", (int)w.n, w.at);
    }
    p->labels = ptx_more(p->labels, &p->cap_labels, p->n_labels, sizeof *p->labels);
    p->labels[p->n_labels++] = (ptx_label){w, (int32_t)p->kernel->n_code};
    return true;
}

static bool read_instruction(ptx_parser *p, ptx_word opcode, ptx_inst *i)
{
    arg args[PTX_MAX_ARGS];
    size_t n_rows, n_jumps = p->n_jumps;
    binding b = {.p = p, .i = i, .args = args};
    i->line = opcode.line;
    const ptx_row *const *rows = ptx_rows_of(opcode.at, opcode.n, &n_rows);
    if (!rows)
        return ptx_refuse(p, opcode.line, "unknown opcode '%.*s'", (int)opcode.n, opcode.at);
    if (!read_args(p, args, &b.n_args))
        return false;
    for (size_t r = 0; r < n_rows; r++) {
        if (bind_row(&b, rows[r], opcode))
            return true;
        p->n_jumps = n_jumps;
    }
    return ptx_refuse(p, opcode.line, "%s", b.why);
}

bool ptx_parse_statement(ptx_parser *p)
{
    ptx_kernel *k = p->kernel;
    ptx_inst i = {.target = -1};
    if (!read_guard(p, &i))
        return false;
    ptx_word w = ptx_next(p);
    if (!i.guarded && ptx_take(p, ":"))
        return add_label(p, w);
    if (w.n == 0 || !read_instruction(p, w, &i))
        return ptx_refuse(p, w.line, "no instruction");
    if (k->n_code == PTX_MAX_CODE)
        return ptx_refuse(p, w.line, "more than %d instructions", PTX_MAX_CODE);
    k->code = ptx_more(k->code, &k->cap_code, k->n_code, sizeof *k->code);
    k->code[k->n_code++] = i;
    return true;
}
