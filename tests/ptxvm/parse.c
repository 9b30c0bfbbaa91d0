/* Modules: directives, variables, entries and their parameters, registers and scopes. */
#include "tests/ptxvm/parse.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t aligned(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static bool add_symbol(ptx_parser *p, ptx_symbol s)
{
    p->symbols = ptx_more(p->symbols, &p->cap_symbols, p->n_symbols, sizeof *p->symbols);
    p->symbols[p->n_symbols++] = s;
    return true;
}

static bool open_scope(ptx_parser *p)
{
    if (p->depth == PTX_MAX_DEPTH)
        return ptx_refuse(p, p->line, "scopes deeper than %d", PTX_MAX_DEPTH);
    p->scopes[p->depth++] = p->n_symbols;
    return true;
}

static void close_scope(ptx_parser *p)
{
    p->n_symbols = p->scopes[--p->depth];
}

/* [.align n] .type [.ptr .space .align n] name [n]: a parameter or a variable. */
typedef struct variable {
    ptx_word name;
    uint64_t bytes, align;
    int element;  /* bytes */
    bool is_open; /* [] */
} variable;

static bool read_extent(ptx_parser *p, variable *v, uint64_t limit)
{
    while (ptx_take(p, "[")) {
        uint64_t n = 0;
        if (ptx_take(p, "]")) {
            v->is_open = true;
            continue;
        }
        if (!ptx_integer(p, limit, &n) || !ptx_expect(p, "]"))
            return false;
        v->bytes *= n; /* both are below 2^28: no overflow before the check */
        if (v->bytes > limit)
            return ptx_refuse(p, v->name.line,
                              "'%.*s' is larger than the machine takes (%llu bytes)",
                              (int)v->name.n, v->name.at, (unsigned long long)limit);
    }
    return true;
}

static bool read_align(ptx_parser *p, uint64_t *out)
{
    uint64_t n;
    if (!ptx_integer(p, 4096, &n))
        return false;
    if (n == 0 || (n & (n - 1)))
        return ptx_refuse(p, p->line, "an alignment of %llu", (unsigned long long)n);
    *out = n;
    return true;
}

static bool read_variable(ptx_parser *p, variable *v, uint64_t limit)
{
    uint64_t align = 0, vector = 1;
    *v = (variable){.element = -1};
    for (;;) {
        ptx_word w = ptx_next(p);
        if (w.n == 0)
            return ptx_refuse(p, w.line, "the text ends in a declaration");
        if (ptx_is(w, ".align")) {
            if (!read_align(p, &align))
                return false;
        } else if (ptx_is(w, ".ptr")) { /* what it says of where the pointer points is not used */
            uint64_t unused;
            while (ptx_take(p, ".global") || ptx_take(p, ".const") || ptx_take(p, ".shared"))
                ;
            if (ptx_take(p, ".align") && !read_align(p, &unused))
                return false;
        } else if (ptx_is(w, ".v2") || ptx_is(w, ".v4")) {
            vector = ptx_is(w, ".v2") ? 2 : 4;
        } else if (w.at[0] == '.' && ptx_type_bytes(w.at + 1, w.n - 1) > 0) {
            v->element = ptx_type_bytes(w.at + 1, w.n - 1);
        } else {
            v->name = w;
            break;
        }
    }
    if (v->element < 0 || v->name.at[0] == '.')
        return ptx_refuse(p, v->name.line, "'%.*s' in a declaration", (int)v->name.n, v->name.at);
    v->bytes = (uint64_t)v->element * vector;
    v->align = align ? align : v->bytes;
    return read_extent(p, v, limit);
}

/* A variable of *top bytes so far: its place, and the top after it. */
static bool place(ptx_parser *p, const variable *v, size_t *top, uint64_t limit, const char *what)
{
    uint64_t at = aligned(*top, v->align);
    if (at + v->bytes > limit)
        return ptx_refuse(p, v->name.line, "%s memory of more than %llu bytes", what,
                          (unsigned long long)limit);
    *top = (size_t)(at + v->bytes);
    return add_symbol(p, (ptx_symbol){v->name.at, v->name.n, PTX_SYM_VALUE, at, 0, 8});
}

static bool read_shared(ptx_parser *p, bool is_extern)
{
    variable v;
    if (!read_variable(p, &v, PTX_MAX_SHARED_BYTES) || !ptx_expect(p, ";"))
        return false;
    if (is_extern || v.is_open)
        return add_symbol(p, (ptx_symbol){v.name.at, v.name.n, PTX_SYM_DYNAMIC, 0, 0, 8});
    return place(p, &v, p->kernel ? &p->kernel->shared_bytes : &p->shared_bytes,
                 PTX_MAX_SHARED_BYTES, "shared");
}

static bool read_local(ptx_parser *p)
{
    variable v;
    return read_variable(p, &v, PTX_MAX_LOCAL_BYTES) && ptx_expect(p, ";") &&
           place(p, &v, &p->kernel->local_bytes, PTX_MAX_LOCAL_BYTES, "local");
}

static bool read_value(ptx_parser *p, const variable *v, unsigned char *out)
{
    bool minus = ptx_take(p, "-");
    ptx_word w = ptx_next(p);
    uint64_t value;
    int bits;
    if (!ptx_number(w, &value, &bits) || (bits && (minus || bits != v->element * 8)))
        return ptx_refuse(p, w.line, "'%.*s' in an initialiser: only numbers are", (int)w.n, w.at);
    if (minus)
        value = 0 - value;
    memcpy(out, &value, (size_t)v->element); /* little-endian */
    return true;
}

static bool read_values(ptx_parser *p, const variable *v, unsigned char *out)
{
    if (!ptx_take(p, "{"))
        return read_value(p, v, out);
    for (uint64_t at = 0; !ptx_take(p, "}"); at += (uint64_t)v->element) {
        if (at + (uint64_t)v->element > v->bytes)
            return ptx_refuse(p, p->line, "more values than '%.*s' has", (int)v->name.n,
                              v->name.at);
        if (!read_value(p, v, out + at))
            return false;
        if (!ptx_take(p, ",") && !ptx_is(ptx_peek(p), "}"))
            return ptx_refuse(p, p->line, "no ',' in an initialiser");
    }
    return true;
}

/* A variable of the module in global or constant memory, at an address nobody else has. */
static bool read_data(ptx_parser *p)
{
    static uint64_t next = (uint64_t)1 << 55;
    variable v;
    if (!read_variable(p, &v, PTX_MAX_DATA_BYTES))
        return false;
    if (v.is_open || v.bytes == 0)
        return ptx_refuse(p, v.name.line, "'%.*s' has no size", (int)v.name.n, v.name.at);
    ptx_module *m = p->module;
    m->data = ptx_more(m->data, &m->cap_data, m->n_data, sizeof *m->data);
    ptx_memory_lock();
    ptx_data d = {next, ptx_zeroed((size_t)v.bytes, 1)};
    next += aligned(v.bytes, 4096) + 4096;
    ptx_memory_unlock();
    m->data[m->n_data++] = d;
    ptx_memory_add(d.device, d.host, (size_t)v.bytes);
    if (ptx_take(p, "=") && !read_values(p, &v, d.host))
        return false;
    add_symbol(p, (ptx_symbol){v.name.at, v.name.n, PTX_SYM_VALUE, d.device, 0, 8});
    return ptx_expect(p, ";");
}

/* .reg .type name<n>, name, ...; */
static bool read_registers(ptx_parser *p)
{
    ptx_word type = ptx_next(p);
    int width = type.n > 1 ? ptx_type_bytes(type.at + 1, type.n - 1) : -1;
    if (width < 0 || width == 1)
        return ptx_refuse(p, type.line, "registers of type '%.*s'", (int)type.n, type.at);
    do {
        ptx_word name = ptx_next(p);
        uint64_t count = 0;
        uint32_t at;
        if (name.n == 0 || name.at[0] == '.')
            return ptx_refuse(p, name.line, "a register without a name");
        if (ptx_take(p, "<") && (!ptx_integer(p, PTX_MAX_REG_BYTES, &count) || !ptx_expect(p, ">")))
            return false;
        if (!ptx_add_registers(p, name.line, (size_t)width, count ? count : 1, &at))
            return false;
        add_symbol(
            p, (ptx_symbol){name.at, name.n, PTX_SYM_REGS, at, (uint32_t)count, (uint8_t)width});
    } while (ptx_take(p, ","));
    return ptx_expect(p, ";");
}

/* To the end of the line: .loc, .file. */
static void skip_line(ptx_parser *p)
{
    p->has_peeked = false;
    while (*p->at && *p->at != '\n')
        p->at++;
}

static bool skip_section(ptx_parser *p)
{
    for (int depth = 0;;) {
        ptx_word w = ptx_next(p);
        if (w.n == 0)
            return ptx_refuse(p, w.line, "the text ends in a section");
        if (ptx_is(w, "{"))
            depth++;
        else if (ptx_is(w, "}") && --depth <= 0)
            return true;
    }
}

static bool read_body(ptx_parser *p)
{
    int outer = p->depth;
    if (!ptx_expect(p, "{") || !open_scope(p))
        return false;
    while (p->depth > outer) {
        ptx_word w = ptx_peek(p);
        if (w.n == 0)
            return ptx_refuse(p, w.line, "the text ends in a function");
        if (ptx_take(p, ";"))
            continue;
        if (ptx_take(p, "{")) {
            if (!open_scope(p))
                return false;
        } else if (ptx_take(p, "}"))
            close_scope(p);
        else if (ptx_is(w, ".loc") || ptx_is(w, ".file"))
            skip_line(p);
        else if (ptx_take(p, ".pragma")) {
            if (ptx_next(p).n == 0 || !ptx_expect(p, ";"))
                return ptx_refuse(p, w.line, "a pragma without an end");
        } else if (ptx_take(p, ".reg")      ? !read_registers(p)
                   : ptx_take(p, ".shared") ? !read_shared(p, false)
                   : ptx_take(p, ".local")  ? !read_local(p)
                                            : !ptx_parse_statement(p))
            return false;
    }
    return true;
}

static bool read_params(ptx_parser *p)
{
    if (!ptx_take(p, "("))
        return true;
    while (!ptx_take(p, ")")) {
        variable v;
        if (!ptx_expect(p, ".param") || !read_variable(p, &v, PTX_MAX_PARAM_BYTES) ||
            !place(p, &v, &p->kernel->param_bytes, PTX_MAX_PARAM_BYTES, "parameter"))
            return false;
        if (!ptx_take(p, ",") && !ptx_is(ptx_peek(p), ")"))
            return ptx_expect(p, ",");
    }
    return true;
}

/* .maxntid and what else stands between parameters and body. */
static bool read_bounds(ptx_parser *p)
{
    while (!ptx_is(ptx_peek(p), "{")) {
        ptx_word w = ptx_next(p);
        uint64_t n, threads = 1;
        if (!ptx_is(w, ".maxntid") && !ptx_is(w, ".minnctapersm") && !ptx_is(w, ".maxnreg"))
            return ptx_refuse(p, w.line, "'%.*s' is not known before a body", (int)w.n, w.at);
        do {
            if (!ptx_integer(p, 65536, &n))
                return false;
            threads = threads * n > 1024 ? 1024 : threads * n;
        } while (ptx_take(p, ","));
        if (ptx_is(w, ".maxntid"))
            p->kernel->max_threads = (unsigned)threads;
    }
    return true;
}

/* Branches get their targets, and none leads out of the body. */
static bool find_labels(ptx_parser *p)
{
    ptx_kernel *k = p->kernel;
    if (k->n_code == 0 || k->code[k->n_code - 1].guarded ||
        k->code[k->n_code - 1].flow == PTX_PLAIN || k->code[k->n_code - 1].flow == PTX_BARRIER)
        return ptx_refuse(p, p->line, "'%s' does not end in ret, exit or a branch", k->name);
    for (size_t j = 0; j < p->n_jumps; j++) {
        ptx_word w = p->jumps[j].name;
        size_t l = 0;
        while (l < p->n_labels &&
               !(p->labels[l].name.n == w.n && memcmp(p->labels[l].name.at, w.at, w.n) == 0))
            l++;
        if (l == p->n_labels)
            return ptx_refuse(p, w.line, "no label '%.*s'", (int)w.n, w.at);
        if (p->labels[l].at == (int32_t)k->n_code)
            return ptx_refuse(p, w.line, "label '%.*s' has no instruction", (int)w.n, w.at);
        k->code[p->jumps[j].at].target = p->labels[l].at;
    }
    return true;
}

static ptx_kernel *new_kernel(ptx_parser *p, ptx_word name)
{
    ptx_module *m = p->module;
    ptx_kernel *k = ptx_zeroed(1, sizeof *k);
    m->kernels = ptx_more(m->kernels, &m->cap_kernels, m->n_kernels, sizeof *m->kernels);
    m->kernels[m->n_kernels++] = k;
    k->module = m;
    k->name = ptx_zeroed(name.n + 1, 1);
    memcpy(k->name, name.at, name.n);
    k->reg_bytes = PTX_SINK_BYTES;
    k->shared_bytes = p->shared_bytes;
    k->max_threads = 1024;
    for (int b = 0; b < PTX_BUCKETS; b++)
        k->buckets[b] = -1;
    return k;
}

static bool read_entry(ptx_parser *p)
{
    ptx_word name = ptx_next(p);
    if (name.n == 0)
        return ptx_refuse(p, name.line, "an entry without a name");
    p->kernel = new_kernel(p, name);
    if (ptx_find(p->module, p->kernel->name) != p->kernel)
        return ptx_refuse(p, name.line, "a second entry '%s'", p->kernel->name);
    p->n_labels = p->n_jumps = 0;
    if (!open_scope(p) || !read_params(p) || !read_bounds(p) || !read_body(p) || !find_labels(p))
        return false;
    close_scope(p);
    ptx_kernel *k = p->kernel;
    k->shared_bytes = aligned(k->shared_bytes, 128);
    for (size_t c = 0; c < k->n_constants; c++) {
        if (k->constants[c].dynamic)
            k->constants[c].value = k->shared_bytes;
    }
    k->executed = ptx_zeroed(k->n_code + 1, sizeof *k->executed);
    p->kernel = NULL;
    return true;
}

static bool read_target(ptx_parser *p)
{
    do {
        if (ptx_next(p).n == 0)
            return ptx_refuse(p, p->line, "the text ends in a directive");
    } while (ptx_take(p, ","));
    return true;
}

static bool read_module(ptx_parser *p)
{
    for (;;) {
        ptx_word w = ptx_next(p);
        bool is_extern = false;
        if (w.n == 0)
            return true;
        while (ptx_is(w, ".visible") || ptx_is(w, ".weak") || ptx_is(w, ".extern")) {
            is_extern |= ptx_is(w, ".extern");
            w = ptx_next(p);
        }
        bool good;
        if (ptx_is(w, ".version") || ptx_is(w, ".target") || ptx_is(w, ".address_size"))
            good = read_target(p);
        else if (ptx_is(w, ".shared"))
            good = read_shared(p, is_extern);
        else if ((ptx_is(w, ".global") || ptx_is(w, ".const")) && !is_extern)
            good = read_data(p);
        else if (ptx_is(w, ".entry") && !is_extern)
            good = read_entry(p);
        else if (ptx_is(w, ".section"))
            good = skip_section(p);
        else if (ptx_is(w, ".file") || ptx_is(w, ".loc")) {
            skip_line(p);
            good = true;
        } else
            good = ptx_refuse(p, w.line, "'%.*s' is not known in a module", (int)w.n, w.at);
        if (!good)
            return false;
    }
}

bool ptx_load(ptx_module **out, const char *text, char *err, size_t n_err)
{
    size_t n = strlen(text);
    *out = NULL;
    err[0] = '\0';
    if (n > PTX_MAX_TEXT) {
        snprintf(err, n_err, "a PTX text of %zu bytes; the machine takes %d", n, PTX_MAX_TEXT);
        return false;
    }
    ptx_module *m = ptx_zeroed(1, sizeof *m);
    m->text = ptx_zeroed(n + 1, 1);
    memcpy(m->text, text, n);
    ptx_parser p = {.module = m, .at = m->text, .line = 1, .err = err, .n_err = n_err};
    bool good = read_module(&p);
    free(p.symbols);
    free(p.labels);
    free(p.jumps);
    if (!good) {
        ptx_unload(m);
        return false;
    }
    *out = m;
    return true;
}
