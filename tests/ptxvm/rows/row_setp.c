/*
 * setp: each comparison against each relation that two values can have (PTX ISA, setp: integers,
 * ordered and unordered floats), each Boolean operator with c and !c, both destinations.
 */
#include "tests/ptxvm/rows/rowtest.h"

#include "tests/support/cmocka.h"

#include <stdio.h>

enum { LESS = 1, EQUAL = 2, GREATER = 4, UNORDERED = 8 };

/* The relations for which a comparison holds. */
static const struct comparison {
    const char *name;
    int holds;
} comparisons[] = {
    {"eq", EQUAL},
    {"ne", LESS | GREATER},
    {"lt", LESS},
    {"le", LESS | EQUAL},
    {"gt", GREATER},
    {"ge", GREATER | EQUAL},
    {"lo", LESS},
    {"ls", LESS | EQUAL},
    {"hi", GREATER},
    {"hs", GREATER | EQUAL},
    {"equ", EQUAL | UNORDERED},
    {"neu", LESS | GREATER | UNORDERED},
    {"ltu", LESS | UNORDERED},
    {"leu", LESS | EQUAL | UNORDERED},
    {"gtu", GREATER | UNORDERED},
    {"geu", GREATER | EQUAL | UNORDERED},
    {"num", LESS | EQUAL | GREATER},
    {"nan", UNORDERED},
};

/* Pairs by type; of what is unsigned and of bits (b) alike. */
static const struct pair {
    const char *types;
    uint64_t a, b;
    int relation;
} pairs[] = {
    {"s16 u16 b16", 5, 5, EQUAL},
    {"s16 u16 b16", 3, 4, LESS},
    {"s16 u16 b16", 4, 3, GREATER},
    {"s16", 0xffff, 1, LESS},
    {"s16", 0x7fff, 0x8000, GREATER},
    {"u16 b16", 0xffff, 1, GREATER},
    {"u16 b16", 0x7fff, 0x8000, LESS},
    {"s32 u32 b32", 5, 5, EQUAL},
    {"s32 u32 b32", 3, 4, LESS},
    {"s32 u32 b32", 4, 3, GREATER},
    {"s32", 0xffffffff, 1, LESS},
    {"s32", 0x7fffffff, 0x80000000, GREATER},
    {"u32 b32", 0xffffffff, 1, GREATER},
    {"u32 b32", 0x7fffffff, 0x80000000, LESS},
    {"s64 u64 b64", 5, 5, EQUAL},
    {"s64 u64 b64", 0x100000000, 0x200000000, LESS},
    {"s64 u64 b64", 0x200000001, 0x100000001, GREATER},
    {"s64", UINT64_MAX, 1, LESS},
    {"s64", INT64_MAX, (uint64_t)1 << 63, GREATER},
    {"u64 b64", UINT64_MAX, 1, GREATER},
    {"u64 b64", INT64_MAX, (uint64_t)1 << 63, LESS},
    {"f32", 0x3f800000, 0x3f800000, EQUAL},
    {"f32", 0x80000000, 0x00000000, EQUAL},   /* -0, 0 */
    {"f32", 0x00000000, 0x00000001, LESS},    /* a denormal is no zero */
    {"f32", 0xff800000, 0xff7fffff, LESS},    /* -inf */
    {"f32", 0x3f800000, 0xbf800000, GREATER}, /* 1, -1 */
    {"f32", 0x7fc00000, 0x3f800000, UNORDERED},
    {"f32", 0x3f800000, 0xff800001, UNORDERED},
    {"f32", 0x7fffffff, 0x7fffffff, UNORDERED},
    {"f64", 0x3ff0000000000000, 0x3ff0000000000000, EQUAL},
    {"f64", 0x8000000000000000, 0, EQUAL},
    {"f64", 0, 1, LESS},
    {"f64", 0xbff0000000000000, 0x3ff0000000000000, LESS},
    {"f64", 0x7ff0000000000000, 0x7fefffffffffffff, GREATER},
    {"f64", 0x7ff8000000000000, 0x3ff0000000000000, UNORDERED},
    {"f64", 0x3ff0000000000000, 0xfff8000000000000, UNORDERED},
};

static int holds_for(const char *name)
{
    for (size_t n = 0; n < sizeof comparisons / sizeof *comparisons; n++) {
        if (strcmp(comparisons[n].name, name) == 0)
            return comparisons[n].holds;
    }
    fail_msg("setp.%s: no such comparison in the test", name);
    return 0;
}

static int combined(const char *op, int t, int c)
{
    return strcmp(op, "and") == 0   ? (t & c)
           : strcmp(op, "or") == 0  ? (t | c)
           : strcmp(op, "xor") == 0 ? (t ^ c)
                                    : t;
}

/* Lanes: pairs of the type; bits 8.. of a lane's pair are c. q: with the second destination. */
static void try_row(const ptx_row *row, const char *cmp, const char *op, const char *type,
                    bool negated)
{
    static uint64_t in[32][4], out[32][2];
    int relation[32], n = 0;
    char body[1024], name[24];
    const char *size = type + 1, *reg = strcmp(size, "16") == 0   ? "rs"
                                        : strcmp(size, "32") == 0 ? "r"
                                                                  : "rd";
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++) {
        for (uint64_t c = 0; c < 2 && strstr(pairs[k].types, type); c++, n++) {
            assert_true(n < 32);
            in[n][0] = pairs[k].a;
            in[n][1] = pairs[k].b;
            in[n][2] = c;
            relation[n] = pairs[k].relation;
        }
    }
    assert_true(n > 0);
    snprintf(name, sizeof name, ", %s%%p4", negated ? "!" : "");
    snprintf(body, sizeof body,
             "mul.wide.u32 %%rd2, %%r0, 32;\nadd.s64 %%rd2, %%rd0, %%rd2;\n"
             "mul.wide.u32 %%rd3, %%r0, 16;\nadd.s64 %%rd3, %%rd1, %%rd3;\n"
             "ld.global.b%s %%%s8, [%%rd2];\nld.global.b%s %%%s9, [%%rd2+8];\n"
             "ld.global.b32 %%r7, [%%rd2+16];\nsetp.ne.u32 %%p4, %%r7, 0;\n"
             "%s %%p5|%%p6, %%%s8, %%%s9%s;\n%s %%p7, %%%s8, %%%s9%s;\n"
             "selp.b32 %%r1, 1, 0, %%p5;\nselp.b32 %%r2, 1, 0, %%p6;\nselp.b32 %%r3, 1, 0, %%p7;\n"
             "st.global.v2.b32 [%%rd3], {%%r1, %%r2};\nst.global.b32 [%%rd3+8], %%r3;\n",
             size, reg, size, reg, row->text, reg, reg, *op ? name : "", row->text, reg, reg,
             *op ? name : "");
    const char *err = rowtest_run(body, in, sizeof in, out, sizeof out);
    if (err)
        fail_msg("%s: %s", row->text, err);
    for (int l = 0; l < n; l++) {
        const int t = (holds_for(cmp) & relation[l]) != 0, c = (int)in[l][2] ^ negated;
        const uint64_t p = (uint64_t)combined(op, t, c), q = (uint64_t)combined(op, !t, c);
        if (out[l][0] != (p | q << 32) || (out[l][1] & 0xffffffff) != p)
            fail_msg("%s of %#llx, %#llx, %d: p|q %#llx, p %llu; not p %llu, q %llu", row->text,
                     (unsigned long long)in[l][0], (unsigned long long)in[l][1], c,
                     (unsigned long long)out[l][0], (unsigned long long)out[l][1],
                     (unsigned long long)p, (unsigned long long)q);
    }
}

void rowtest_setp(void **state)
{
    (void)state;
    for (size_t n = 0; n < rowtest_n_rows(); n++) {
        const ptx_row *row = rowtest_row(n);
        char text[64], *save = NULL;
        if (strncmp(row->text, "setp.", 5) != 0)
            continue;
        snprintf(text, sizeof text, "%s", row->text + 5);
        const char *cmp = strtok_r(text, ".", &save), *op = strtok_r(NULL, ".", &save);
        const char *type = strtok_r(NULL, ".", &save);
        try_row(row, cmp, type ? op : "", type ? type : op, false);
        if (type)
            try_row(row, cmp, op, type, true);
        rowtest_tried(row);
    }
}
