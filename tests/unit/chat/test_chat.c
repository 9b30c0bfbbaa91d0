/*
 * Chat templates: the goldens of tests/golden/jinja (outputs of Python's jinja2), the marks of what
 * came from the request, every limit, and the public functions.
 */
#include "base/io.h"
#include "chat/chat.h"
#include "tests/unit/chat/vals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int run_cost_tests(void); /* test_cost.c */

enum { NOW = 1764068645, ARENA = 64 << 20 };

/* One rendering with everything that belongs to it. */
typedef struct run {
    cp_arena *a;
    cp_err err;
    cp_code code;
    cp_rendered out;
} run;

static run render_in(const char *src, size_t n, const char *vars, size_t n_vars, bool mark,
                     size_t arena)
{
    run r = {.a = cp_arena_new(arena)};
    cp_template *t = NULL;
    r.code = cp_template_open(&t, src, n, &r.err);
    cp_val *v = cp_test_vals(r.a, vars, n_vars, mark);
    if (r.code == CP_OK && v)
        r.code = cp_template_render(t, r.a, v, NOW, &r.out, &r.err);
    else if (r.code == CP_OK)
        r.code = CP_NO_MEMORY;
    cp_template_close(t);
    return r;
}

static run render(const char *src, const char *vars)
{
    return render_in(src, strlen(src), vars, strlen(vars), true, ARENA);
}

static void run_fini(run *r)
{
    cp_rendered_fini(&r->out);
    cp_arena_free(r->a);
}

/* ---- goldens ---- */

/* The text between two marker lines; *at moves behind the second. */
static char *section(char **at, const char *begin, const char *end)
{
    char *b = strstr(*at, begin);
    if (!b)
        return NULL;
    b += strlen(begin);
    char *e = strstr(b, end);
    assert_non_null(e);
    *e = '\0';
    *at = e + strlen(end);
    return b;
}

/* One case: the text behind "### case ", up to its end marker. False: it failed. */
static bool golden_case(const char *file, char *text)
{
    static const char *const kinds[] = {"\n### expect\n", "\n### raise\n", "\n### error\n"};
    char *name = text, *body = strchr(text, '\n'), *vars = NULL, *want = NULL;
    size_t kind = 0;
    *body++ = '\0';
    if (strncmp(body, "### vars ", 9) == 0) {
        vars = body + 9;
        body = strchr(body, '\n');
        *body++ = '\0';
    }
    for (; kind < 3 && !want; kind++)
        want = strstr(body, kinds[kind]);
    assert_non_null(want);
    kind--;
    *want = '\0';
    want += strlen(kinds[kind]);
    run r = render(body, vars ? vars : "{}");
    const char *got = r.code == CP_OK ? (r.out.text.p ? r.out.text.p : "") : r.err.msg;
    bool ok = kind == 0   ? r.code == CP_OK && strcmp(got, want) == 0
              : kind == 1 ? r.code == CP_TEMPLATE && strcmp(got, want) == 0
                          : r.code == CP_TEMPLATE;
    if (!ok)
        print_error("%s / %s:\n  want %s\n  got  %s\n", file, name, want, got);
    run_fini(&r);
    return ok;
}

static void goldens_render_as_python_does(void **state)
{
    (void)state;
    char dir[1024], path[2048];
    int n_cases = 0, n_bad = 0;
    cp_snprintf(dir, sizeof(dir), "%s/tests/golden/jinja", CP_SOURCE_DIR);
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        size_t n = strlen(e->d_name);
        cp_buf file = {0};
        if (n < 4 || strcmp(e->d_name + n - 4, ".txt") != 0)
            continue;
        cp_snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        assert_int_equal(cp_file_read(path, 1 << 20, &file, NULL), CP_OK);
        char *at = file.p, *text;
        while ((text = section(&at, "### case ", "\n### end\n")) != NULL) {
            n_cases++;
            n_bad += !golden_case(e->d_name, text);
        }
        cp_buf_fini(&file);
    }
    closedir(d);
    print_message("%d golden cases\n", n_cases);
    assert_true(n_cases >= 300);
    assert_int_equal(n_bad, 0);
}

/* ---- marks ---- */

/* The output with marked ranges in [ ]. */
static void marked(run r, const char *src, const char *want)
{
    char got[512];
    size_t o = 0, k = 0;
    if (r.code != CP_OK)
        fail_msg("%s: %s", src, r.err.msg);
    for (size_t i = 0; i <= r.out.text.n; i++) {
        if (k < r.out.n_input && r.out.input[k].end == i) {
            got[o++] = ']';
            k++;
        }
        if (k < r.out.n_input && r.out.input[k].begin == i)
            got[o++] = '[';
        if (i < r.out.text.n)
            got[o++] = r.out.text.p[i];
    }
    got[o] = '\0';
    assert_string_equal(got, want);
    for (size_t i = 0; i < r.out.n_input; i++) {
        assert_true(r.out.input[i].begin < r.out.input[i].end);
        assert_true(!i || r.out.input[i - 1].end < r.out.input[i].begin);
    }
    run_fini(&r);
}

static void marks(const char *src, const char *vars, const char *want)
{
    marked(render(src, vars), src, want);
}

static void input_is_marked_through_concatenation(void **state)
{
    (void)state;
    const char *v = "{\"c\": \"user\", \"role\": \"R\"}";
    marks("<{{ c }}>", v, "<[user]>");
    marks("{{ '<' + c + '>' }}", v, "<[user]>");
    marks("{{ '<' ~ c ~ c ~ '>' }}", v, "<[useruser]>");
    marks("{{ role }}{{ c }}", v, "R[user]");
    marks("{% set x = '' %}{% set ns = namespace(t='') %}{% for i in range(3) %}"
          "{% set ns.t = ns.t + '|' + c %}{% endfor %}{{ ns.t }}",
          v, "|[user]|[user]|[user]");
    marks("{% set a = 'x' + c %}{% set b = a + '1' %}{% set d = a + c %}{{ a }} {{ b }} {{ d }}", v,
          "x[user] x[user]1 x[useruser]");
    marks("{{ c * 2 }}{{ (c ~ '-') * 2 }}", v, "[useruseruser]-[user]-");
    marks(
        "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(c) }}{% set s %}({{ c }}){% endset %}{{ s }}",
        v, "<[user]>([user])");
    marks("{% filter upper %}a{{ c }}b{% endfilter %}", v, "A[USER]B");
}

static void input_is_marked_through_filters_and_methods(void **state)
{
    (void)state;
    const char *v =
        "{\"c\": \" a,b \", \"n\": \"x\", \"d\": {\"k\": \"v\"}, \"l\": [\"p\", \"q\"], \"i\": 7}";
    marks("{{ c|trim }}|{{ c.strip() }}|{{ ('-' ~ n ~ '-')[1:] }}", v, "[a,b]|[a,b]|[x]-");
    marks("{{ c.split(',') }}", v, "['[ a]', '[b ]']");
    marks("{{ c.split(',')|join('+') }}", v, "[ a]+[b ]");
    marks("{{ n|replace('x', 'y') }}{{ '<a>'|replace('a', n) }}{{ 'axb'.replace(n, '-') }}", v,
          "y<[x]>a-b");
    marks("{{ ('a' ~ n ~ 'b')|upper }}{{ ('a' ~ n)|title }}{{ n|capitalize }}", v, "A[X]BA[xX]");
    marks("{{ d|tojson }}", v, "{\"[k]\": \"[v]\"}");
    marks("{{ l|tojson(indent=1) }}", v, "[\n \"[p]\",\n \"[q]\"\n]");
    marks("{{ l }}{{ d }}", v, "['[p]', '[q]']{'[k]': '[v]'}");
    marks("{{ '%s=%s' % (n, i) }}{{ '<{}>'.format(n) }}{{ '%-3s|'|format(n) }}", v,
          "[x]=7<[x]>[x]  |");
    marks("{{ ('ab' ~ n ~ 'c')[::-1] }}{% for ch in 'a' ~ n %}{{ ch }}.{% endfor %}", v,
          "c[x]baa.[x].");
    marks("{{ (n ~ '\\n' ~ n)|indent(2) }}{{ n|center(3) }}{{ n.ljust(2) }}", v,
          "[x]\n  [x] [x] [x] ");
    marks("{{ ('{\"a\": \"' ~ n ~ '\"}')|from_json }}", v, "{'a': '[x]'}");
    marks("{{ l|first }}{{ l|join }}{{ l|map('upper')|join('-') }}{{ l|sort(reverse=true)|join }}",
          v, "[ppqP]-[Qqp]");
    marks("{% for k, x in d.items() %}{{ k }}:{{ x }}{% endfor %}", v, "[k]:[v]");
    marks("{{ ('a' ~ n).partition(n)|join('|') }}{{ ('a' ~ n ~ 'b').removeprefix('a') }}", v,
          "a|[x]|[x]b");
}

static void touching_marks_are_merged_and_unmarked_stay_out(void **state)
{
    (void)state;
    run r =
        render("{{ a }}{{ b }}{{ a ~ b }}-{{ e }}", "{\"a\": \"1\", \"b\": \"2\", \"e\": \"\"}");
    assert_int_equal(r.code, CP_OK);
    assert_int_equal(r.out.n_input, 1);
    assert_int_equal(r.out.input[0].begin, 0);
    assert_int_equal(r.out.input[0].end, 4);
    run_fini(&r);
    r = render("<|im_start|>{{ 'x'|upper }}", "{\"a\": \"1\"}");
    assert_int_equal(r.code, CP_OK);
    assert_int_equal(r.out.n_input, 0);
    run_fini(&r);
}

/* What is cut away takes its marks along, and what stays keeps them. */
static void a_continued_text_keeps_its_marks(void **state)
{
    (void)state;
    static const struct {
        const char *src, *content, *want;
    } rows[] = {
        {"<{{ messages[0].content }}|>{{ x }}", "ab ", "<[ab ]"},
        {"<{{ messages[0].content|trim }}|>", " ab ", "<[ab]"},
        {"{{ messages[0].content }}{{ x }}", "ab", "[ab]"},
        {"{{ x ~ messages[0].content ~ x }}", "ab", "[zab]"},
        {"{{ x }}|{{ messages[0].content }}|{{ x }}", "", "[z]|"},
        {"[{{ messages[0].content }}", "", "["},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        run r = {.a = cp_arena_new(ARENA)};
        char vars[256];
        size_t n =
            cp_snprintf(vars, sizeof(vars), "{\"x\": \"z\", \"messages\": [{\"content\": \"%s\"}]}",
                        rows[i].content);
        cp_template *t;
        assert_int_equal(cp_template_open(&t, rows[i].src, strlen(rows[i].src), &r.err), CP_OK);
        r.code =
            cp_template_continue(t, r.a, cp_test_vals(r.a, vars, n, true), NOW, &r.out, &r.err);
        cp_template_close(t);
        marked(r, rows[i].src, rows[i].want);
    }
}

/* ---- limits ---- */

static void fails(const char *src, const char *vars, const char *word)
{
    run r = render(src, vars);
    if (r.code != CP_TEMPLATE || !strstr(r.err.msg, word))
        fail_msg("%.80s: code %d, '%s', wanted '%s'", src, (int)r.code, r.err.msg, word);
    run_fini(&r);
}

static void steps_are_bounded(void **state)
{
    (void)state;
    fails("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "{}",
          "steps");
    fails("{% for i in range(100000) %}{{ i }}{{ i }}{{ i }}{{ i }}{{ i }}{% endfor %}", "{}",
          "steps");
    fails("{% set s = 'a' * 8000000 %}{% for i in range(1000) %}{{ s|length }}{% endfor %}", "{}",
          "steps");
    fails("{% set l = [0] * 100000 %}{% for i in range(100) %}{{ 1 in l }}{% endfor %}", "{}",
          "steps");
    fails("{% set l = range(100000)|list %}{{ l|sort(reverse=true)|length }}{{ l|sort|length }}",
          "{}", "steps");
    fails("{% set s = 'ab' * 1000000 %}{{ s.replace('a', 'c')|length }}", "{}", "steps");
    fails("{% for i in [] if true %}{% endfor %}{% for i in range(100000) if i is odd and i is "
          "even or i is string "
          "or i is none %}{% endfor %}",
          "{}", "steps");
}

static void output_and_strings_are_bounded(void **state)
{
    (void)state;
    fails("{{ 'a' * 9000000 }}", "{}", "repetition");
    fails("{{ [1] * 100001 }}", "{}", "repetition");
    fails("{% set s = 'a' * 8000000 %}{{ s }}{{ s }}", "{}", "8 MiB");
    fails("{% set s = 'a' * 8000000 %}{{ (s ~ s)|length }}", "{}", "8 MiB");
    fails("{{ '%1000000d' % 1 }}", "{}", "large");
    fails("{{ '{:1000000}'.format(1) }}", "{}", "large");
    fails("{{ ''|center(99999999) }}", "{}", "8 MiB");
    fails("{{ 'a'|indent(99999999, true) }}", "{}", "8 MiB");
    fails("{{ range(100001) }}", "{}", "larger");
    fails("{{ 9223372036854775807 + 1 }}", "{}", "overflow");
    fails("{{ 10 ** 30 }}", "{}", "overflow");
    run r = render("{{ 'a' * 8000000 }}", "{}");
    assert_int_equal(r.code, CP_OK);
    assert_int_equal(r.out.text.n, 8000000);
    run_fini(&r);
}

/* head, then n times open, middle, n times close, tail. */
static char *nest(const char *head, const char *open, size_t n, const char *middle,
                  const char *close, const char *tail)
{
    cp_buf b = {0};
    cp_buf_adds(&b, head);
    for (size_t i = 0; i < n; i++)
        cp_buf_adds(&b, open);
    cp_buf_adds(&b, middle);
    for (size_t i = 0; i < n; i++)
        cp_buf_adds(&b, close);
    cp_buf_adds(&b, tail);
    assert_false(b.failed);
    return b.p;
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    const struct {
        const char *head, *open, *middle, *close, *tail, *word;
    } rows[] = {
        {"{{ ", "(", "1", ")", " }}", "nested too deeply"},
        {"{{ ", "[", "", "]", " }}", "nested too deeply"},
        {"{{ ", "{'a': ", "1", "}", " }}", "nested too deeply"},
        {"{{ ", "f(", "1", ")", " }}", "nested too deeply"},
        {"{{ ", "-", "1", "", " }}", "nested too deeply"},
        {"{{ ", "1 if 1 else ", "1", "", " }}", "nested too deeply"},
        {"{{ x", "[x", "", "]", " }}", "nested too deeply"},
        {"{{ x", "|f(x", "", ")", " }}", "nested too deeply"},
        {"", "{% if 1 %}", "", "{% endif %}", "", "nested too deeply"},
        {"", "{% for i in x %}", "", "{% endfor %}", "", "nested too deeply"},
        {"{% set ", "(", "a", ")", " = 1 %}", "nested too deeply"},
        {"{{ x", ".a", "", "", " }}", "an expression is nested too deeply"},
        {"{{ x", "|upper", "", "", " }}", "an expression is nested too deeply"},
        {"{{ x", "[0]", "", "", " }}", "an expression is nested too deeply"},
        {"{{ x", "()", "", "", " }}", "an expression is nested too deeply"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *src =
            nest(rows[i].head, rows[i].open, 20000, rows[i].middle, rows[i].close, rows[i].tail);
        fails(src, "{}", rows[i].word);
        free(src);
    }
    fails("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "{}", "macros call each other");
    fails("{% macro f(x) %}{{ caller() }}{% call f(1) %}{{ caller }}{% endcall %}{% endmacro %}"
          "{% call f(1) %}{% endcall %}",
          "{}", "deeply");
    fails("{% set ns = namespace(l=[]) %}{% for i in range(100) %}{% set ns.l = [ns.l] %}{% endfor "
          "%}{{ ns.l }}",
          "{}", "deeply");
    fails(
        "{% set ns = namespace(l=[]) %}{% for i in range(100) %}{% set ns.l = [ns.l] %}{% endfor %}"
        "{{ ns.l|tojson }}",
        "{}", "deeply");
    fails("{% set n = namespace(l=[], m=[]) %}{% for i in range(100) %}{% set n.l = [n.l] %}"
          "{% set n.m = [n.m] %}{% endfor %}{{ n.l == n.m }}",
          "{}", "deeply");
    fails("{% set n = namespace(l=[], m=[]) %}{% for i in range(100) %}{% set n.l = [n.l] %}"
          "{% set n.m = [n.m] %}{% endfor %}{{ n.l < n.m }}",
          "{}", "deeply");
    fails("{{ ('[' * 100)|from_json }}", "{}", "deeply");
}

/* Flat chains do not nest: long ones are fine. */
static void long_chains_are_not_nesting(void **state)
{
    (void)state;
    const char *const rows[][3] = {{"{{ ", "1 + ", "5001"},
                                   {"{{ ", "0 or ", "1"},
                                   {"{{ ", "'' ~ ", "1"},
                                   {"{{ ", "not not ", "True"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *src = nest(rows[i][0], rows[i][1], 5000, "1", "", " }}");
        run r = render(src, "{}");
        assert_int_equal(r.code, CP_OK);
        assert_string_equal(r.out.text.p, rows[i][2]);
        run_fini(&r);
        free(src);
    }
    char *src = nest("{% if 0 %}", "{% elif 0 %}", 2000, "{% else %}x{% endif %}", "", "");
    run r = render(src, "{}");
    assert_int_equal(r.code, CP_OK);
    assert_string_equal(r.out.text.p, "x");
    run_fini(&r);
    free(src);
}

/* Every arena size gives either the text or CP_NO_MEMORY. */
static void a_full_arena_is_an_error_at_every_size(void **state)
{
    (void)state;
    const char *src =
        "{% macro m(a) %}<{{ a }}>{% endmacro %}{% for k, v in d|dictsort %}{{ m(k) }}"
        "{{ v|tojson(indent=1) }}{{ '%s' % v }}{{ loop.last }}{% endfor %}{{ d }}{{ "
        "x.split(',')|join }}";
    const char *vars = "{\"d\": {\"b\": [1, 2.5, \"x\"], \"a\": {\"k\": null}}, \"x\": \"a,b\"}";
    size_t ok = 0, full = 0;
    for (size_t size = 0; size < 40000; size += 112) {
        run r = render_in(src, strlen(src), vars, strlen(vars), true, size);
        assert_true(r.code == CP_OK || r.code == CP_NO_MEMORY);
        ok += r.code == CP_OK;
        full += r.code == CP_NO_MEMORY;
        run_fini(&r);
    }
    assert_true(ok > 10 && full > 10);
}

/* A long object stays linear: it has an index, and a look-up takes few probes. */
static void a_long_object_is_not_quadratic(void **state)
{
    (void)state;
    cp_arena *a = cp_arena_new((size_t)1 << 28);
    cp_val *d = cp_val_dict(a);
    char key[32];
    for (int i = 0; i < 200000; i++) {
        size_t n = cp_snprintf(key, sizeof(key), "key%d", i);
        assert_true(cp_val_setn(a, d, key, n, true, cp_val_int(a, i)));
    }
    assert_true(cp_val_set(a, d, "key77", cp_val_str(a, "new", 3, false)));
    const jj_dict *in = d->u.dict;
    size_t probes = 0;
    assert_non_null(in->index);
    for (size_t i = 0; i < in->n; i++) {
        for (size_t k = in->e[i].hash & (in->n_index - 1); in->index[k] != i + 1;
             k = (k + 1) & (in->n_index - 1))
            probes++;
    }
    assert_true(probes < 2 * in->n);
    cp_val *vars = cp_val_dict(a);
    assert_true(cp_val_set(a, vars, "d", d));
    cp_template *t;
    cp_rendered out;
    assert_int_equal(
        cp_template_open(&t, "{{ d|length }} {{ d.key77 }} {{ d.key199999 }}", 46, NULL), CP_OK);
    assert_int_equal(cp_template_render(t, a, vars, 0, &out, NULL), CP_OK);
    assert_string_equal(out.text.p, "200000 new 199999");
    cp_rendered_fini(&out);
    cp_template_close(t);
    cp_arena_free(a);
}

/* ---- the public functions ---- */

static void values_of_every_kind(void **state)
{
    (void)state;
    cp_arena *a = cp_arena_new(1 << 20);
    cp_val *d = cp_val_dict(a), *l = cp_val_list(a);
    assert_true(cp_val_push(a, l, cp_val_none(a)) && cp_val_push(a, l, cp_val_bool(a, true)));
    assert_true(cp_val_push(a, l, cp_val_int(a, -5)) && cp_val_push(a, l, cp_val_float(a, 0.5)));
    assert_true(cp_val_push(a, l, cp_val_str(a, "a\0b", 3, false)));
    assert_true(cp_val_set(a, d, "l", l));
    cp_template *t;
    cp_rendered out;
    assert_int_equal(cp_template_open(&t, "{{ l }}", 7, NULL), CP_OK);
    for (int i = 0; i < 2; i++) { /* a template renders any number of times */
        assert_int_equal(cp_template_render(t, a, d, 0, &out, NULL), CP_OK);
        assert_string_equal(out.text.p, "[None, True, -5, 0.5, 'a\\x00b']");
        cp_rendered_fini(&out);
    }
    cp_template_close(t);
    cp_template_close(NULL);
    cp_arena_free(a);
}

static void constructors_report_a_full_arena(void **state)
{
    (void)state;
    cp_arena *a = cp_arena_new(8);
    assert_null(cp_val_none(a));
    assert_null(cp_val_bool(a, true));
    assert_null(cp_val_int(a, 1));
    assert_null(cp_val_float(a, 1.0));
    assert_null(cp_val_str(a, "x", 1, true));
    assert_null(cp_val_list(a));
    assert_null(cp_val_dict(a));
    cp_arena_free(a);
    a = cp_arena_new(4096);
    cp_val *d = cp_val_dict(a), *l = cp_val_list(a), *one = cp_val_int(a, 1);
    bool ok = true;
    for (int i = 0; i < 1000 && ok; i++)
        ok = cp_val_push(a, l, one);
    assert_false(ok);
    assert_false(cp_val_set(a, d,
                            "a key that is longer than what the arena has left over, by some margin"
                            "................................................................",
                            one) &&
                 cp_val_set(a, d, "b", NULL));
    cp_arena_free(a);
}

static void lists_and_dicts_are_read_only(void **state)
{
    (void)state;
    fails("{{ l.append(1) }}", "{\"l\": []}", "'append' of 'list' object is unsafe");
    fails("{{ d.x.clear() }}", "{\"d\": {\"x\": [1]}}", "'clear' of 'list' object is unsafe");
    fails("{{ d.update(a=1) }}", "{\"d\": {}}", "'update' of 'dict' object is unsafe");
    fails("{% set l = [] %}{% set _ = l.append(1) %}", "{}", "unsafe");
}

static void errors_name_the_line(void **state)
{
    (void)state;
    fails("a\n{{ 1 }}\n{{ x.y }}", "{}", "line 3: 'x' is undefined");
    fails("a\n\n{% if %}", "{}", "line 3: expected an expression, got %}");
    fails("{% include 'x' %}", "{}", "the tag 'include' is not built");
    fails("{{ raise_exception('exactly this') }}", "{}", "exactly this");
    run r = render("\n\n{{ raise_exception('exactly ' ~ m) }}", "{\"m\": \"this\"}");
    assert_int_equal(r.code, CP_TEMPLATE);
    assert_string_equal(r.err.msg, "exactly this");
    run_fini(&r);
    r = render("{{ raise_exception('\xc3\xa9' * 1000) }}", "{}"); /* cut between characters */
    assert_int_equal(strlen(r.err.msg), 510);
    run_fini(&r);
    cp_template *t;
    assert_int_equal(cp_template_open(&t, "{{", 2, NULL), CP_TEMPLATE);
    assert_null(t);
}

/* Bytes that are not UTF-8 pass through and never break an operation. */
static void invalid_utf8_passes_through(void **state)
{
    (void)state;
    cp_arena *a = cp_arena_new(1 << 20);
    const char bad[] = "\xff"
                       "a\xc3"
                       "\xe6\x97"
                       "\xf8\x88\x80\x80\x80"
                       "b\x80 \xed\xa0\x80";
    cp_val *d = cp_val_dict(a);
    assert_true(cp_val_set(a, d, "s", cp_val_str(a, bad, sizeof(bad) - 1, true)));
    cp_template *t;
    cp_rendered out;
    const char *src = "{{ s }}|{{ s|upper|lower }}|{{ s[::-1][::-1] }}|{{ s|list|join }}|{{ "
                      "s.strip('\xff') }}{{ s|tojson|length }}"
                      "{{ [s]|string|length }}{{ s|title|length }}{{ s.split()|length }}";
    assert_int_equal(cp_template_open(&t, src, strlen(src), NULL), CP_OK);
    assert_int_equal(cp_template_render(t, a, d, 0, &out, NULL), CP_OK);
    size_t n = sizeof(bad) - 1;
    for (size_t i = 0; i < 4; i++)
        assert_memory_equal(out.text.p + i * (n + 1), bad, n);
    cp_rendered_fini(&out);
    cp_template_close(t);
    cp_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens_render_as_python_does),
        cmocka_unit_test(input_is_marked_through_concatenation),
        cmocka_unit_test(input_is_marked_through_filters_and_methods),
        cmocka_unit_test(touching_marks_are_merged_and_unmarked_stay_out),
        cmocka_unit_test(a_continued_text_keeps_its_marks),
        cmocka_unit_test(steps_are_bounded),
        cmocka_unit_test(output_and_strings_are_bounded),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(long_chains_are_not_nesting),
        cmocka_unit_test(a_full_arena_is_an_error_at_every_size),
        cmocka_unit_test(a_long_object_is_not_quadratic),
        cmocka_unit_test(values_of_every_kind),
        cmocka_unit_test(constructors_report_a_full_arena),
        cmocka_unit_test(lists_and_dicts_are_read_only),
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(invalid_utf8_passes_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) + run_cost_tests();
}
