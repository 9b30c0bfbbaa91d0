/*
 * Rows that compute a lane from a lane: every line of rows.txt on every row that fits it, for each
 * width that a register may have, with all lanes and with every other one (whose registers must not
 * change), and with garbage above the bits that an instruction reads.
 */
#include "tests/ptxvm/rows/rowtest.h"

#include "tests/support/cmocka.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_COLUMNS = 8, MAX_VECTORS = 32, SLOTS = 16 };

typedef struct vector {
    uint64_t in[MAX_COLUMNS], out[MAX_COLUMNS];
    bool ignored[MAX_COLUMNS], nan[MAX_COLUMNS]; /* of out: _ and d:nan */
} vector;

typedef struct section {
    char texts[512];
    int line, n_in, n_out, n_vectors;
    vector vectors[MAX_VECTORS];
} section;

static uint64_t number_of(const char *word, int line)
{
    char *end = NULL;
    uint64_t bits = 0;
    if (word[0] == 'f' && word[1] == ':') {
        const float f = strtof(word + 2, &end);
        memcpy(&bits, &f, 4);
        if (f != f)
            bits = 0x7fffffff;
    } else if (word[0] == 'd' && word[1] == ':') {
        const double d = strtod(word + 2, &end);
        memcpy(&bits, &d, 8);
    } else
        bits = word[0] == '-' ? (uint64_t)strtoll(word, &end, 0) : strtoull(word, &end, 0);
    if (*end)
        fail_msg("rows.txt:%d: '%s' is no number", line, word);
    return bits;
}

static void add_vector(section *s, char *text, int line)
{
    vector *v = &s->vectors[s->n_vectors++];
    int n_in = 0, n_out = 0;
    bool out = false;
    assert_true(s->n_vectors <= MAX_VECTORS);
    memset(v, 0, sizeof *v);
    for (char *save = NULL, *w = strtok_r(text, " \n", &save); w;
         w = strtok_r(NULL, " \n", &save)) {
        if (strcmp(w, "=") == 0) {
            out = true;
        } else if (!out) {
            assert_true(n_in < MAX_COLUMNS);
            v->in[n_in++] = number_of(w, line);
        } else {
            assert_true(n_out < MAX_COLUMNS);
            v->ignored[n_out] = strcmp(w, "_") == 0;
            v->nan[n_out] = strcmp(w, "d:nan") == 0;
            v->out[n_out] = v->ignored[n_out] ? 0 : number_of(w, line);
            n_out++;
        }
    }
    if (s->n_vectors > 1 && (n_in != s->n_in || n_out != s->n_out))
        fail_msg("rows.txt:%d: another number of columns than the line before", line);
    s->n_in = n_in;
    s->n_out = n_out;
}

/* How many values go into and come out of a row; false: it has an operand that only its own test
 * can make. */
static bool columns(const ptx_row *row, int *n_in, int *n_out)
{
    rowtest_operand o[8];
    const int n = rowtest_shape(row->shape, o);
    *n_in = *n_out = 0;
    for (int k = 0; k < n; k++) {
        if (!strchr("bhwlp#", o[k].kind))
            return false;
        *(o[k].written ? n_out : n_in) += o[k].count;
    }
    return true;
}

static bool names_row(const char *texts, const char *text)
{
    const size_t n = strlen(text);
    for (const char *at = texts; (at = strstr(at, text)); at += n) {
        if ((at == texts || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
            return true;
    }
    return false;
}

static int bytes_of(char kind)
{
    return kind == 'b' ? 1 : kind == 'h' ? 2 : kind == 'w' || kind == 'p' ? 4 : 8;
}

/* A row with a width for each operand, and the literals of one vector. */
typedef struct trial {
    const section *s;
    const ptx_row *row;
    rowtest_operand o[8];
    int width[8], n;
    bool half; /* every other lane alone executes it */
} trial;

static const char *register_at(char kind, int width, int n)
{
    static char name[16];
    snprintf(name, sizeof name, "%%%s%d",
             kind == 'p'  ? "p"
             : width == 2 ? "rs"
             : width == 4 ? "r"
                          : "rd",
             n + 8);
    return name;
}

/* Slot n of the lane: a value that comes in, or that a register holds before. */
static void emit_load(rowtest_text *t, char kind, int width, int n)
{
    if (kind == 'p') {
        rowtest_add(t, "ld.global.b32 %%r7, [%%rd2+%d];\nsetp.ne.u32 %%p%d, %%r7, 0;\n", 8 * n,
                    n + 8);
    } else
        rowtest_add(t, "ld.global.b%d %s, [%%rd2+%d];\n", 8 * width, register_at(kind, width, n),
                    8 * n);
}

static void emit_store(rowtest_text *t, char kind, int width, int n)
{
    if (kind == 'p') {
        rowtest_add(t, "selp.b32 %%r7, 1, 0, %%p%d;\nst.global.b32 [%%rd3+%d], %%r7;\n", n + 8,
                    8 * n);
    } else
        rowtest_add(t, "st.global.b%d [%%rd3+%d], %s;\n", 8 * width, 8 * n,
                    register_at(kind, width, n));
}

/* Each register of the shape in turn; literal: the next literal's value. */
static void emit(rowtest_text *t, const trial *r, const vector *v)
{
    int slot = 0, in = 0;
    rowtest_add(t, "shl.b32 %%r1, %%r0, 7;\ncvt.u64.u32 %%rd2, %%r1;\n"
                   "add.s64 %%rd3, %%rd1, %%rd2;\nadd.s64 %%rd2, %%rd0, %%rd2;\n"
                   "and.b32 %%r2, %%r0, 1;\nsetp.eq.u32 %%p1, %%r2, 0;\n");
    for (int k = 0; k < r->n; k++) {
        for (int c = 0; c < r->o[k].count && r->o[k].kind != '#'; c++)
            emit_load(t, r->o[k].kind, r->width[k], slot++);
    }
    rowtest_add(t, "%s%s ", r->half ? "@%p1 " : "", r->row->text);
    slot = 0;
    for (int k = 0; k < r->n; k++) {
        const rowtest_operand *o = &r->o[k];
        rowtest_add(t, "%s%s", k == 0 ? "" : o->after_bar ? "|" : ", ", o->count > 1 ? "{" : "");
        for (int c = 0; c < o->count; c++) {
            rowtest_add(t, "%s", c ? ", " : "");
            if (o->kind == '#')
                rowtest_add(t, "%lld", (long long)v->in[in]);
            else
                rowtest_add(t, "%s", register_at(o->kind, r->width[k], slot++));
            in += !o->written;
        }
        rowtest_add(t, "%s", o->count > 1 ? "}" : "");
    }
    rowtest_add(t, ";\n");
    slot = 0;
    for (int k = 0; k < r->n; k++) {
        for (int c = 0; c < r->o[k].count && r->o[k].kind != '#'; c++, slot++) {
            if (r->o[k].written)
                emit_store(t, r->o[k].kind, r->width[k], slot);
        }
    }
}

static uint64_t cut(uint64_t v, int bytes)
{
    return bytes == 8 ? v : v & (((uint64_t)1 << 8 * bytes) - 1);
}

static bool same(const vector *v, int c, uint64_t got, int width)
{
    double d;
    memcpy(&d, &got, 8);
    return v->ignored[c] || (v->nan[c] && d != d) || got == cut(v->out[c], width);
}

#define GARBAGE 0xa5a5a5a5a5a5a5a5u

static void fill(const trial *r, const vector *v, uint64_t slots[SLOTS])
{
    int slot = 0, in = 0;
    for (int k = 0; k < r->n; k++) {
        for (int c = 0; c < r->o[k].count; c++) {
            const rowtest_operand *o = &r->o[k];
            if (o->kind != '#')
                slots[slot++] = o->written ? (o->kind == 'p' ? c & 1 : GARBAGE)
                                           : (o->kind == 'p' || r->width[k] <= bytes_of(o->kind)
                                                  ? v->in[in]
                                                  : cut(v->in[in], bytes_of(o->kind)) |
                                                        GARBAGE << 8 * bytes_of(o->kind));
            in += !o->written;
        }
    }
}

static size_t n_wrong;

static void check(const trial *r, const vector *v, int lane, const uint64_t *in,
                  const uint64_t *out)
{
    int slot = 0, c_out = 0;
    for (int k = 0; k < r->n; k++) {
        for (int c = 0; c < r->o[k].count && r->o[k].kind != '#'; c++, slot++) {
            if (!r->o[k].written)
                continue;
            const int width = r->width[k];
            const bool kept = r->half && lane % 2;
            if (kept ? out[slot] != cut(in[slot], width) : !same(v, c_out, out[slot], width)) {
                print_error("rows.txt:%d: %s (%s), width %d, lane %d%s: output %d is %#llx, not "
                            "%#llx\n",
                            r->s->line, r->row->text, r->row->shape, width, lane,
                            kept ? " that does not take part" : "", c_out,
                            (unsigned long long)out[slot],
                            (unsigned long long)cut(kept ? in[slot] : v->out[c_out], width));
                n_wrong++;
            }
            c_out++;
        }
    }
}

/* Vectors first..: those that share the literals of the first one, a lane each. */
static void run(const trial *r, const vector *vectors, int n)
{
    static uint64_t in[32][SLOTS], out[32][SLOTS];
    rowtest_text t = {0};
    memset(in, 0, sizeof in);
    memset(out, 0, sizeof out);
    for (int l = 0; l < 32; l++)
        fill(r, &vectors[l % n], in[l]);
    emit(&t, r, vectors);
    const char *err = rowtest_run(t.at, in, sizeof in, out, sizeof out);
    if (err) {
        print_error("rows.txt:%d: %s (%s): %s\n", r->s->line, r->row->text, r->row->shape, err);
        n_wrong++;
    }
    for (int l = 0; l < 32 && !err; l++)
        check(r, &vectors[l % n], l, in[l], out[l]);
    free(t.at);
}

static void run_all(trial *r)
{
    const bool literal = strchr(r->row->shape, '#') != NULL;
    for (int half = 0; half < 2; half++) {
        r->half = half;
        if (!literal)
            run(r, r->s->vectors, r->s->n_vectors);
        for (int k = 0; literal && k < r->s->n_vectors; k++)
            run(r, &r->s->vectors[k], 1);
    }
}

/* Every width of the operands from k on. */
static void widths(trial *r, int k)
{
    if (k == r->n) {
        run_all(r);
        return;
    }
    const int least = bytes_of(r->o[k].kind) == 1 ? 2 : bytes_of(r->o[k].kind);
    r->width[k] = least;
    widths(r, k + 1);
    if (r->o[k].wider || r->o[k].kind == 'b') {
        for (int w = 2 * least; w <= 8; w *= 2) {
            r->width[k] = w;
            widths(r, k + 1);
        }
    }
}

static void run_section(const section *s)
{
    int used = 0;
    for (size_t n = 0; n < rowtest_n_rows(); n++) {
        const ptx_row *row = rowtest_row(n);
        int n_in = 0, n_out = 0;
        if (!names_row(s->texts, row->text) || !columns(row, &n_in, &n_out) || n_in != s->n_in ||
            n_out != s->n_out)
            continue;
        trial r = {.s = s, .row = row};
        r.n = rowtest_shape(row->shape, r.o);
        widths(&r, 0);
        rowtest_tried(row);
        used++;
    }
    if (used == 0)
        fail_msg("rows.txt:%d: no row has these columns: %s", s->line, s->texts);
}

void rowtest_values(void **state)
{
    static section s;
    char line[512];
    int number = 0;
    (void)state;
    FILE *f = fopen(CP_SOURCE_DIR "/tests/ptxvm/rows/rows.txt", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        number++;
        if (line[0] == '#' || line[0] == '\n')
            continue;
        if (line[0] == ' ') {
            add_vector(&s, line, number);
            continue;
        }
        if (s.n_vectors)
            run_section(&s);
        s = (section){.line = number};
        line[strcspn(line, "\n")] = '\0';
        snprintf(s.texts, sizeof s.texts, "%s", line);
    }
    run_section(&s);
    fclose(f);
    assert_int_equal(n_wrong, 0);
}
