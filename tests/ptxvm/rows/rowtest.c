/* rowtest: kernels made of text, and the rows that were tried. */
#include "tests/ptxvm/rows/rowtest.h"

#include "tests/support/cmocka.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void grow(rowtest_text *t, size_t more)
{
    if (t->cap - t->n > more)
        return;
    t->cap = 2 * t->cap + more + 256;
    t->at = realloc(t->at, t->cap);
    assert_non_null(t->at);
}

void rowtest_add(rowtest_text *t, const char *format, ...)
{
    va_list args;
    grow(t, 1024);
    va_start(args, format);
    const int n = vsnprintf(t->at + t->n, t->cap - t->n, format, args);
    va_end(args);
    assert_true(n >= 0);
    if ((size_t)n >= t->cap - t->n) {
        grow(t, (size_t)n);
        va_start(args, format);
        vsnprintf(t->at + t->n, t->cap - t->n, format, args);
        va_end(args);
    }
    t->n += (size_t)n;
}

static const char head[] = ".version 9.0\n.target sm_80\n.address_size 64\n"
                           ".visible .entry k(.param .u64 k_in, .param .u64 k_out)\n{\n"
                           ".reg .pred %p<16>; .reg .b16 %rs<40>; .reg .b32 %r<40>; "
                           ".reg .b64 %rd<40>;\n"
                           ".shared .align 16 .b8 sh[1024]; .local .align 16 .b8 lo[64];\n"
                           "ld.param.u64 %rd0, [k_in]; ld.param.u64 %rd1, [k_out];\n"
                           "mov.u32 %r0, %tid.x;\n";

const char *rowtest_run(const char *body, void *in, size_t n_in, void *out, size_t n_out)
{
    static char err[512];
    rowtest_text t = {0};
    ptx_module *m = NULL;
    const unsigned one[3] = {1, 1, 1}, warp[3] = {32, 1, 1};
    const uint64_t params[2] = {ROWTEST_IN, ROWTEST_OUT};
    bool good = true;
    rowtest_add(&t, "%s%sret;\n}\n", head, body);
    if (!ptx_load(&m, t.at, err, sizeof err)) {
        free(t.at);
        return err;
    }
    assert_true(ptx_memory_add(ROWTEST_IN, in, n_in));
    assert_true(ptx_memory_add(ROWTEST_OUT, out, n_out));
    good = ptx_launch(ptx_find(m, "k"), one, warp, 0, params, sizeof params, NULL, NULL, err,
                      sizeof err);
    ptx_memory_remove(ROWTEST_IN);
    ptx_memory_remove(ROWTEST_OUT);
    ptx_unload(m);
    free(t.at);
    return good ? NULL : err;
}

enum { MAX_ROWS = 4096 };
static const ptx_row *rows[MAX_ROWS]; /* of all tables */
static bool tried[MAX_ROWS];

size_t rowtest_n_rows(void)
{
    static size_t n;
    if (n > 0)
        return n;
    for (const ptx_row *const *t = ptx_tables(); *t; t++) {
        for (const ptx_row *r = *t; r->text; r++) {
            assert_true(n < MAX_ROWS);
            rows[n++] = r;
        }
    }
    return n;
}

const ptx_row *rowtest_row(size_t index)
{
    return index < rowtest_n_rows() ? rows[index] : NULL;
}

void rowtest_tried(const ptx_row *row)
{
    for (size_t n = 0; n < rowtest_n_rows(); n++) {
        if (rows[n] == row)
            tried[n] = true;
    }
}

bool rowtest_is_tried(size_t index)
{
    return tried[index];
}

int rowtest_shape(const char *shape, rowtest_operand operands[8])
{
    int n = 0;
    while (*shape) {
        rowtest_operand o = {.count = 1};
        assert_true(n < 8);
        for (; strchr("=|?", *shape); shape++) {
            o.written |= *shape == '=';
            o.after_bar |= *shape == '|';
            o.optional |= *shape != '=';
        }
        if (*shape >= '1' && *shape <= '9')
            o.count = *shape++ - '0';
        o.kind = *shape++;
        o.wider = *shape == '+';
        shape += o.wider;
        assert_true(*shape == '\0' || *shape == ' ');
        shape += *shape == ' ';
        operands[n++] = o;
    }
    return n;
}
