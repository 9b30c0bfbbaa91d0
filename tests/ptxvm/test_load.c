/*
 * test_load: texts that no machine takes give an error with line and text, and never a crash:
 * unknown opcodes and modifiers, operands of the wrong kind, sizes that overflow, and a good text
 * cut at every place and with any byte changed.
 */
#include "tests/ptxvm/harness.h"

typedef struct refusal {
    const char *body, *says;
} refusal;

static const refusal bodies[] = {
    {"add.s32.sat %r3, %r0, %r1;", "unknown opcode 'add.s32.sat': add.s32.sat %r3"},
    {"frobnicate.b32 %r3, %r0;", "unknown opcode 'frobnicate.b32'"},
    {"ld.global.v3.u32 {%r3,%r4,%r5}, [%d0];", "unknown opcode"},
    {"ld.weak.global.u32 %r3, [%d0];", "unknown opcode"},
    {"ld.global.u32.u8 %r3, [%d0];", "unknown opcode"},
    {"bar.sync 1;", "operand '1': only 0 is known"},
    {"bar.sync 0, 64;", "more operands"},
    {"call.uni f, (%r3);", "unknown opcode 'call.uni'"},
    {"ret (%r3);", "'%r3' where ';' is wanted"},
    {"cp.async.bulk.shared.global [%r3], [%d0], 16;", "unknown opcode"},
    {"ld.global.u32 %r99, [%d0];", "operand '%r99': no such register"},
    {"ld.global.u32 %r3, [%d99];", "operand '%d99': no such register"},
    {"ld.global.u32 %r03, [%d0];", "no such register"},
    {"ld.global.u32 %h1, [%d0];", "operand '%h1': a register of the wrong width"},
    {"add.u32 %r3, %r0, %d1;", "operand '%d1': a register of the wrong width"},
    {"ld.global.u32 %p1, [%d0];", "operand '%p1': a predicate"},
    {"ld.global.u32 %r3, %d0;", "operand '%d0': no address"},
    {"ld.global.u32 %r3, [%h1];", "too narrow"},
    {"ld.global.u32 %r3;", "fewer operands"},
    {"ld.global.u32 %r3, [%d0], %r4;", "more operands"},
    {"ld.global.v2.u32 {%r3,%r4,%r5}, [%d0];", "another form"},
    {"ld.global.u32 {%r3,%r4}, [%d0];", "another form"},
    {"ld.global.u32 4, [%d0];", "operand '4': no such register"},
    {"ld.global.u32 %tid.x, [%d0];", "no such register"},
    {"ld.global.u32 %r3, [%d0+99999999999];", "is more than the machine takes"},
    {"ld.global.u32 %r3, [%d0+%r1];", "where an integer is wanted"},
    {"st.global.u32 [%d0], 0f3F8;", "operand '0f3F8': no such register"},
    {"st.global.u64 [%d0], 0f3F800000;", "a float of the wrong size"},
    {"st.global.u16 [%d0], 65536;", "too large a number"},
    {"st.global.u32 [%d0], 0x1FFFFFFFF;", "too large a number"},
    {"st.global.u32 [%d0], 0xFFFFFFFFFFFFFFFFFF;", "no such register"},
    {"st.global.u32 [%d0], -%r1;", "a sign before a register"},
    {"st.global.u32 [%d0], !%r1;", "a sign before a register"},
    {"st.global.u32 [%d0], %clock;", "no such register"},
    {"st.global.u16 [%d0], s;", "too narrow"},
    {"cp.async.cg.shared.global [%r3], [%d0], %r4;", "no integer literal"},
    {"{ .reg .b32 t; }\nst.global.u32 [%d0], t;", "operand 't': no such register"},
    {"@%r1 ret;", "'%r1' is no predicate"},
    {"@q ret;", "'q' is no predicate"},
    {"bra NOWHERE;", "no label 'NOWHERE'"},
    {"A:\nA:", "a second label 'A'"},
    {"bra 17;", "no label '17'"},
    {".reg .b32 %x<999999999999>;", "more than the machine takes"},
    {".reg .b64 %x<262144>;", "registers of more than"},
    {".reg .b128 %x<4>;", "registers of type '.b128'"},
    {".reg .b8 %x<4>;", "registers of type '.b8'"},
    {".shared .align 4 .b8 x[232449];", "more than the machine takes"},
    {".shared .align 4 .b8 x[65536][65536][65536][65536];", "larger than the machine takes"},
    {".shared .align 4 .b8 x[232000];", "shared memory of more than"},
    {".shared .align 3 .b8 x[4];", "an alignment of 3"},
    {".local .align 4 .b8 x[99999999];", "more than the machine takes"},
    {"ret", "operand 'ret': more operands"},
    {"ld.global.v4.u32 {%r1,%r2,%r3,%r4,%r5,%r6,%r7,%r8,%r9}, [%d0];", "more than 8 registers"},
    {"st.global.u32 1, 2, 3, 4, 5, 6, 7, 8, 9;", "more than 8 operands"},
    {"/* no end", "the text ends in a function"},
    {"\"", "unknown opcode '\"'"},
    {"ret; }", "'ret' is not known in a module"},
    {"{", "the text ends in a function"},
};

static void each_body_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        harness h = {.err = ""};
        if (harness_load(&h, bodies[i].body))
            fail_msg("'%s' was loaded", bodies[i].body);
        if (!strstr(h.err, bodies[i].says) || strncmp(h.err, "PTX line ", 9) != 0)
            fail_msg("'%s': wanted '%s', got '%s'", bodies[i].body, bodies[i].says, h.err);
    }
}

static const refusal modules[] = {
    {".visible .entry k() { ret; } .visible .entry k() { ret; }", "a second entry 'k'"},
    {".visible .entry k() { }", "does not end in ret"},
    {".visible .entry k() { membar.cta; }", "does not end in ret"},
    {".visible .entry k() { .reg .pred p; @p ret; }", "does not end in ret"},
    {".visible .entry k() { bra A; A: }", "label 'A' has no instruction"},
    {".visible .entry k(.param .b8 p[40000]) { ret; }", "more than the machine takes"},
    {".visible .entry k(.param .b8 p[32000], .param .b8 q[32000]) { ret; }", "parameter memory"},
    {".visible .entry k(.param .u32 p .param .u32 q) { ret; }", "where ',' is wanted"},
    {".visible .entry k() .maxclusterrank 4 { ret; }", "not known before a body"},
    {".visible .entry", "an entry without a name"},
    {".visible .entry k(", "the text ends where '.param'"},
    {".func f() { ret; }", "'.func' is not known in a module"},
    {".extern .func f();", "'.func' is not known in a module"},
    {".tex .u64 t;", "'.tex' is not known"},
    {".global .u32 g[];", "'g' has no size"},
    {".global .u32 g[2] = {1, 2, 3};", "more values than 'g' has"},
    {".global .u64 g = h;", "only numbers are"},
    {".global .f32 g = 0d0000000000000000;", "only numbers are"},
    {".global .u32 g[4294967296];", "more than the machine takes"},
    {".global .u32", "the text ends in a declaration"},
    {".section .debug {", "the text ends in a section"},
    {"junk", "'junk' is not known in a module"},
};

static void each_module_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        char err[400];
        ptx_module *m;
        if (ptx_load(&m, modules[i].body, err, sizeof err))
            fail_msg("'%s' was loaded", modules[i].body);
        if (!strstr(err, modules[i].says))
            fail_msg("'%s': wanted '%s', got '%s'", modules[i].body, modules[i].says, err);
    }
}

static void scopes_have_a_depth(void **state)
{
    (void)state;
    char deep[4000];
    memset(deep, '{', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    harness h = {.err = ""};
    assert_false(harness_load(&h, deep));
    assert_non_null(strstr(h.err, "scopes deeper than 64"));
}

static void the_line_is_the_texts(void **state)
{
    (void)state;
    char err[400];
    ptx_module *m;
    assert_false(
        ptx_load(&m, ".version 9.0\n// one\n/* two\n three */\n.entry k()\n{\n\tret;\n  x.y;\n}",
                 err, sizeof err));
    assert_string_equal(err, "PTX line 8: unknown opcode 'x.y': x.y;");
}

static const char good[] =
    "{ .reg .b32 t, u<3>; ld.global.nc.v4.u32 {%r3, t, u2, _}, [%d0+16];\n"
    "st.shared.v2.u32 [s+8], {t, 0x1F}; }\n@!%p1 bra $L__A;\n"
    "cp.async.cg.shared.global [s], [%d0+-16], 16, %r3;\ncp.async.wait_group 0;\n$L__A:\n"
    ".pragma \"nounroll\";\nred.shared.add.u32 [dyn], 1; // end\n";

static void a_cut_text_is_refused(void **state)
{
    (void)state;
    char *text = kernel_text(good), err[400];
    size_t n = strlen(text);
    ptx_module *m;
    assert_true(ptx_load(&m, text, err, sizeof err));
    ptx_unload(m);
    size_t body = (size_t)(strstr(text, ".visible") - text) + 9;
    for (size_t at = n - 2; at > body; at--) {
        char *cut = malloc(at + 1); /* its own block: a read past the end is seen */
        assert_non_null(cut);
        memcpy(cut, text, at);
        cut[at] = '\0';
        assert_false(ptx_load(&m, cut, err, sizeof err));
        assert_true(err[0]);
        free(cut);
    }
    free(text);
}

static void a_changed_text_never_crashes(void **state)
{
    (void)state;
    static const char with[] = "{}[]();,:.@!|%<>-+0x9\"/*\n\xff ";
    char *text = kernel_text(good), err[400];
    ptx_module *m;
    for (size_t at = 0; text[at]; at++) {
        for (size_t c = 0; with[c]; c++) {
            char was = text[at];
            text[at] = with[c];
            if (ptx_load(&m, text, err, sizeof err))
                ptx_unload(m);
            else
                assert_true(err[0]);
            text[at] = was;
        }
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_body_is_refused),  cmocka_unit_test(each_module_is_refused),
        cmocka_unit_test(scopes_have_a_depth),   cmocka_unit_test(the_line_is_the_texts),
        cmocka_unit_test(a_cut_text_is_refused), cmocka_unit_test(a_changed_text_never_crashes),
    };
    return cmocka_run_group_tests_name("ptx_load", tests, NULL, NULL);
}
