/*
 * TOML: values of every form with their positions, the table rules of TOML 1.0, errors at exact
 * places, limits.
 */
#include "tests/unit/base/suites.h"

#include "base/mem.h"
#include "base/toml.h"

#include <math.h>
#include <string.h>

static cp_toml *parse(const char *text)
{
    cp_toml *t = NULL;
    cp_err err;
    if (cp_toml_parse(&t, "f", text, strlen(text), &err))
        fail_msg("%s\n%s", text, err.msg);
    return t;
}

/* The value at a path of keys separated by '/'; a number is an array index. */
static const cp_toml_value *at(const cp_toml *t, const char *path)
{
    const cp_toml_value *v = cp_toml_root(t);
    char part[64];
    while (*path) {
        size_t n = strcspn(path, "/");
        cp_snprintf(part, sizeof(part), "%.*s", (int)n, path);
        if (v->type == CP_TOML_ARRAY) {
            v = v->v.array.first;
            for (int i = part[0] - '0'; i > 0; i--)
                v = v->next;
        } else {
            const cp_toml_entry *e = cp_toml_find(v, part);
            if (!e)
                fail_msg("no key %s", part);
            v = e->value;
        }
        path += n + (path[n] == '/');
    }
    return v;
}

static void values_of_every_form(void **state)
{
    (void)state;
    cp_toml *t = parse(
        "# comment\r\n"
        "a = +1_000 # c\r\nb=-7\nc = 0xDEAD_beef\n"
        "d = 0o17\ne = 0b101\nf = 1.5e3\ng = -0.25\nh = inf\ni = -inf\nj = nan\n"
        "k = true\nl = false\nm = \"q\\\"\\\\\\t\\u00e9\\U0001F600\"\nn = 'a\\b'\n"
        "o = \"\"\"\nx\n  y \\\n   z\"\"\"\np = '''\nl'l\n'''\nq = [1, [2.0, 'x'],\n# c\n]\n"
        "r = {a = 1, b.c = \"d\"}\n\"quo ted\" = 9\nmin = -9223372036854775808\n"
        "max = 9223372036854775807\ns.t.u = 3\nzero = 0\nmz = -0\nlong = \"\"\"a\"\"\"\"\"\n");
    assert_int_equal(at(t, "a")->v.i, 1000);
    assert_int_equal(at(t, "b")->v.i, -7);
    assert_int_equal(at(t, "c")->v.i, 0xDEADBEEF);
    assert_int_equal(at(t, "d")->v.i, 15);
    assert_int_equal(at(t, "e")->v.i, 5);
    assert_true(at(t, "f")->v.f == 1500.0);
    assert_true(at(t, "g")->v.f == -0.25);
    assert_true(isinf(at(t, "h")->v.f) && at(t, "h")->v.f > 0);
    assert_true(isinf(at(t, "i")->v.f) && at(t, "i")->v.f < 0);
    assert_true(isnan(at(t, "j")->v.f));
    assert_true(at(t, "k")->type == CP_TOML_BOOL && at(t, "k")->v.b);
    assert_true(at(t, "l")->type == CP_TOML_BOOL && !at(t, "l")->v.b);
    assert_string_equal(at(t, "m")->v.s, "q\"\\\t\xC3\xA9\xF0\x9F\x98\x80");
    assert_string_equal(at(t, "n")->v.s, "a\\b");
    assert_string_equal(at(t, "o")->v.s, "x\n  y z");
    assert_string_equal(at(t, "p")->v.s, "l'l\n");
    assert_int_equal(at(t, "q")->v.array.n, 2);
    assert_string_equal(at(t, "q/1/1")->v.s, "x");
    assert_string_equal(at(t, "r/b/c")->v.s, "d");
    assert_int_equal(at(t, "quo ted")->v.i, 9);
    assert_true(at(t, "min")->v.i == INT64_MIN && at(t, "max")->v.i == INT64_MAX);
    assert_int_equal(at(t, "s/t/u")->v.i, 3);
    assert_int_equal(at(t, "mz")->v.i, 0);
    assert_string_equal(at(t, "long")->v.s, "a\"\"");
    cp_toml_free(t);
}

static void tables_and_arrays_of_tables(void **state)
{
    (void)state;
    cp_toml *t = parse("\xEF\xBB\xBFtop = 1\n[a.b]\nx = 1\n[a]\ny = 2\n[[m]]\nr = 'one'\n"
                       "[m.s]\nt = 0.5\n[[m]]\nr = 'two'\n[[m.k]]\nz=1\n[[m.k]]\nz=2\n"
                       "[ d . \"e f\" ]\nq.r = 1\nq.s = 2\n[d.\"e f\".q.sub]\nv = 1\n");
    assert_int_equal(at(t, "a/b/x")->v.i, 1);
    assert_int_equal(at(t, "a/y")->v.i, 2);
    assert_int_equal(at(t, "m")->v.array.n, 2);
    assert_string_equal(at(t, "m/0/r")->v.s, "one");
    assert_true(at(t, "m/0/s/t")->v.f == 0.5);
    assert_null(cp_toml_find(at(t, "m/1"), "s"));
    assert_int_equal(at(t, "m/1/k/1/z")->v.i, 2);
    assert_int_equal(at(t, "d/e f/q/s")->v.i, 2);
    assert_int_equal(at(t, "d/e f/q/sub/v")->v.i, 1);
    assert_null(cp_toml_find(at(t, "top"), "x"));
    cp_toml_free(t);
}

static void positions_count_characters(void **state)
{
    (void)state;
    cp_toml *t = parse("\n  a = '\xC3\xA9'\n\"\xC3\xA9\" = [ 1,\n 2]\nt = {'\xC3\xA9' = 3}\n");
    const cp_toml_entry *a = cp_toml_root(t)->v.table.first, *e = a->next, *u = e->next;
    assert_int_equal(a->line, 2);
    assert_int_equal(a->column, 3);
    assert_int_equal(a->value->column, 7);
    assert_int_equal(e->line, 3);
    assert_int_equal(e->value->column, 7);
    assert_int_equal(e->value->v.array.first->column, 9);
    assert_int_equal(e->value->v.array.first->next->line, 4);
    assert_int_equal(e->value->v.array.first->next->column, 2);
    assert_int_equal(u->value->v.table.first->column, 6);
    assert_int_equal(u->value->v.table.first->value->column, 12);
    cp_toml_free(t);
}

/* text -> the exact message */
static const struct {
    const char *text, *message;
} errors[] = {
    {"a = \n", "f:1:5: got the end of the line; expected a value"},
    {"a 1\n", "f:1:3: got '1'; expected '=' after key 'a'"},
    {"a = 1 b = 2", "f:1:7: got 'b'; expected the end of the line"},
    {"a = 1\na = 2\n", "f:2:1: key 'a' is already set at 1:5"},
    {"= 1", "f:1:1: got '='; expected a key"},
    {"a. = 1", "f:1:4: got '='; expected a key"},
    {"a = \"x\n", "f:1:5: string without its closing \""},
    {"a = '''x\n", "f:1:5: string without its closing '''"},
    {"a = \"\\q\"", "f:1:6: unknown escape: 'q' after '\\'"},
    {"a = \"\\u00g0\"", "f:1:10: got 'g'; \\u takes 4 hex digits"},
    {"a = \"\\ud800\"", "f:1:6: U+D800 is not a Unicode character"},
    {"a = \"\\u0000\"", "f:1:6: U+0000 is not accepted in a string"},
    {"a = \"\x01\"", "f:1:6: control character 0x01 in a string; write it as \\u0001"},
    {"a = 1 # \x02\n", "f:1:9: control character 0x02 in a comment"},
    {"\xC3\xA9 = 1", "f:1:1: got '\xC3\xA9'; expected a key"},
    {"x='\xC3\xA9' y", "f:1:7: got 'y'; expected the end of the line"},
    {"a = 'x\xFF'", "f:1:7: byte 0xff is not UTF-8"},
    {"\n a = '\xED\xA0\x80'", "f:2:7: byte 0xed is not UTF-8"},
    {"a = 01", "f:1:5: '01' is no value (a number, true or false; text needs quotes)"},
    {"a = 1__0", "f:1:5: '1__0' is no value (a number, true or false; text needs quotes)"},
    {"a = _1", "f:1:5: '_1' is no value (a number, true or false; text needs quotes)"},
    {"a = 1.", "f:1:5: '1.' is no value (a number, true or false; text needs quotes)"},
    {"a = .5", "f:1:5: '.5' is no value (a number, true or false; text needs quotes)"},
    {"a = 1e", "f:1:5: '1e' is no value (a number, true or false; text needs quotes)"},
    {"a = +0x1", "f:1:5: '+0x1' is no value (a number, true or false; text needs quotes)"},
    {"a = 0x", "f:1:5: '0x' is no value (a number, true or false; text needs quotes)"},
    {"a = True", "f:1:5: 'True' is no value (a number, true or false; text needs quotes)"},
    {"a = 9223372036854775808",
     "f:1:5: '9223372036854775808' is no value (a number, true or false; text needs quotes)"},
    {"a = 0x8000000000000000",
     "f:1:5: '0x8000000000000000' is no value (a number, true or false; text needs quotes)"},
    {"a = 1979-05-27",
     "f:1:5: '1979-05-27': dates and times are not accepted; write it as a string"},
    {"a = 07:32:00", "f:1:5: '07:32:00': dates and times are not accepted; write it as a string"},
    {"a = [1 2]", "f:1:8: got '2'; expected ',' or ']' in the array that begins at 1:5"},
    {"a = [1,\n", "f:2:1: got the end of the file; expected a value"},
    {"a = {b = 1,}", "f:1:12: got '}'; expected a key"},
    {"a = {b = 1\n}", "f:1:11: got the end of the line; expected ',' or '}' in the inline table at "
                      "1:5"},
    {"a = {b = 1, b = 2}", "f:1:13: key 'b' is already set at 1:10"},
    {"a = {b = 1}\na.c = 2", "f:2:1: key 'a' is already set at 1:5"},
    {"a = {b.c = 1}\n[a.b]\n", "f:2:2: key 'a' is already set at 1:5"},
    {"[a]\n[a]\n", "f:2:2: key 'a' is already set at 1:2"},
    {"a.b = 1\n[a]\n", "f:2:2: key 'a' is already set at 1:1"},
    {"[a.b.c]\n[a]\nb.d = 1", "f:3:1: key 'b' is already set at 1:4"},
    {"a = 1\n[a.b]\n", "f:2:2: key 'a' is already set at 1:5"},
    {"a = [1]\n[[a]]\n", "f:2:3: key 'a' is already set at 1:5"},
    {"[a]\n[[a]]\n", "f:2:3: key 'a' is already set at 1:2"},
    {"[[a]]\n[a]\n", "f:2:2: key 'a' is already set at 1:3"},
    {"[a", "f:1:3: got the end of the file; expected ']'"},
    {"[[a]\n", "f:1:4: got ']'; expected ']]'"},
    {"[]\n", "f:1:2: got ']'; expected a key"},
    {"a = 1\rb = 2", "f:1:6: got the end of the line; expected the end of the line"},
    {"a = \"\"\"x\"\"\" 1", "f:1:13: got '1'; expected the end of the line"},
    {"\"\"\"a\"\"\" = 1", "f:1:3: got '\"'; expected '=' after key ''"},
};

static void errors_name_the_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        cp_toml *t = NULL;
        cp_err err;
        assert_int_equal(cp_toml_parse(&t, "f", errors[i].text, strlen(errors[i].text), &err),
                         CP_USAGE);
        assert_string_equal(err.msg, errors[i].message);
        assert_null(t);
    }
}

static void expect_error(const cp_buf *text, const char *part)
{
    cp_toml *t = NULL;
    cp_err err;
    assert_false(text->failed);
    assert_int_equal(cp_toml_parse(&t, "f", text->p, text->n, &err), CP_USAGE);
    if (!strstr(err.msg, part))
        fail_msg("%s", err.msg);
}

static void limits_hold(void **state)
{
    (void)state;
    cp_buf b = {0};
    cp_toml *t = NULL;
    cp_buf_adds(&b, "a = ");
    for (int i = 0; i < 100000; i++)
        cp_buf_addc(&b, '[');
    expect_error(&b, "nested deeper than 32");
    cp_buf_clear(&b);
    for (int i = 0; i < 100000; i++)
        cp_buf_adds(&b, "a={");
    expect_error(&b, "nested deeper than 32");
    cp_buf_clear(&b);
    for (int i = 0; i < 40; i++)
        cp_buf_adds(&b, "a.");
    expect_error(&b, "more than 32 parts");
    cp_buf_clear(&b);
    cp_buf_adds(&b, "a = [");
    for (int i = 0; i < 70000; i++)
        cp_buf_adds(&b, "1,");
    expect_error(&b, "more than 65536 values");
    cp_buf_clear(&b);
    for (int i = 0; i < 1025; i++)
        cp_buf_printf(&b, "k%d = 1\n", i);
    expect_error(&b, "more than 1024 keys");
    cp_buf_clear(&b);
    for (int i = 0; i < 65; i++)
        cp_buf_adds(&b, i ? "1" : "a = ");
    cp_buf_adds(&b, "1");
    expect_error(&b, "more than 64 characters");
    cp_buf_clear(&b);
    for (int i = 0; i < (1 << 20) + 1; i++)
        cp_buf_addc(&b, '\n');
    expect_error(&b, "1048577 bytes");
    b.n--;
    assert_int_equal(cp_toml_parse(&t, "f", b.p, b.n, NULL), CP_OK);
    cp_toml_free(t);
    cp_buf_fini(&b);
}

int suite_toml(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_form),
        cmocka_unit_test(tables_and_arrays_of_tables),
        cmocka_unit_test(positions_count_characters),
        cmocka_unit_test(errors_name_the_place),
        cmocka_unit_test(limits_hold),
    };
    return cmocka_run_group_tests_name("toml", tests, NULL, NULL);
}
