/*
 * What templates are charged, without a clock: for every operation whose work grows with its
 * operand the charge grows with it, between a text of N and one of 2N; every built-in stands in the
 * table or in the list of those whose work does not grow; and long conversations stay inside the
 * budget.
 */
#include "base/io.h"
#include "chat/jinja/interp.h"
#include "tests/unit/chat/vals.h"

#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int run_cost_tests(void);

enum { ARENA = 256 << 20 };

/* Steps of a rendering; the code must be `want`. */
static uint64_t steps_of(const char *src, cp_val *vars, cp_arena *a, cp_code want)
{
    cp_template *t;
    cp_rendered out;
    cp_err err = {0};
    uint64_t steps = 0;
    if (cp_template_open(&t, src, strlen(src), &err) != CP_OK)
        fail_msg("%.200s: %s", src, err.msg);
    cp_code code = cp_jj_render(t, a, vars, 0, &out, &steps, &err);
    if (code != want)
        fail_msg("%.200s: code %d: %s", src, (int)code, code == CP_OK ? "" : err.msg);
    cp_rendered_fini(&out);
    cp_template_close(t);
    return steps;
}

static uint64_t steps_alone(const char *src, cp_code want)
{
    cp_arena *a = cp_arena_new(ARENA);
    uint64_t steps = steps_of(src, cp_test_vals(a, "{\"m\": \"x\"}", 10, true), a, want);
    cp_arena_free(a);
    return steps;
}

/* `make` with @ for a number, then an expression: what the expression adds. */
static uint64_t charge(const char *make, const char *op, size_t n)
{
    cp_buf b = {0};
    for (; *make; make++) {
        if (*make == '@')
            cp_buf_printf(&b, "%zu", n);
        else
            cp_buf_addc(&b, *make);
    }
    uint64_t before = steps_alone(b.p, CP_OK);
    cp_buf_printf(&b, "{%% set z = %s %%}", op);
    uint64_t after = steps_alone(b.p, CP_OK);
    cp_buf_fini(&b);
    return after - before;
}

/* Operands. Every one is N (or so) of something. */
#define TEXT  "{% set s = 'ab' * @ %}{% set t = 'ab' * @ ~ 'c' %}"
#define WORDS "{% set s = 'ab ' * @ %}"
#define WIDE  "{% set s = '\xc3\xa9' * @ %}{% set t = s ~ 'x' %}"
#define BLANK "{% set s = ' ' * @ %}{% set t = s ~ '1' %}"
#define LINES "{% set s = 'a\\n' * @ %}"
#define LIST  "{% set l = range(@)|list %}{% set k = range(@)|list %}{% set w = ['ab'] * @ %}"
#define DICTS "{% set l = [{'a': 'b'}] * @ %}"
#define DICT  "{% set d = dict(range(2 * @)|batch(2)) %}{% set e = d.copy() %}"
/* @ marked pieces in one text */
#define MARKS "{% set s = ('a' ~ m) * @ %}"
#define TUPLE "{% set u = ('x',) * @ %}"

typedef struct row {
    const char *make, *op;
} row;

static const row rows[] = {
    /* operators */
    {TEXT, "s + t"},
    {TEXT, "s ~ t"},
    {TEXT, "'ab' * (s|length)"},
    {MARKS, "s * 2"},
    {TEXT, "s == s[:-2] ~ 'ab'"},
    {TEXT, "s < t"},
    {TEXT, "'c' in s"},
    {TEXT, "'abac' in s"},
    {TEXT, "(t[:101] ~ 'x') in s"},
    {TEXT, "s[1:]"},
    {TEXT, "s[::-1]"},
    {TEXT, "s[-1]"},
    {TEXT, "s[(s|length) - 1]"},
    {MARKS, "s[1:-1]"},
    {TEXT, "'%s' % s"},
    {TEXT, "s % 1 if false else (s % {})"},
    {TEXT, "('%' ~ '-' * (s|length) ~ 'd') % 1"},
    {TEXT, "{s: 1}"},
    {TEXT, "{}[s]"},
    {TEXT, "{}.get(s)"},
    {LIST, "l + k"},
    {LIST, "[0] * (l|length)"},
    {LIST, "l == k"},
    {LIST, "l < k"},
    {LIST, "l[1:]"},
    {LIST, "-1 in l"},
    {LIST, "l == l[:-1] + [l[-1]]"},
    {DICT, "d == e"},
    {DICT, "d|string"},
    {DICT, "d|list"},
    {DICT, "dict(d)"},
    {TUPLE, "{u: 1}"},
    /* filters on a value */
    {WIDE, "s|upper"},
    {WIDE, "s|lower"},
    {TEXT, "s|title"},
    {WIDE, "s|title"},
    {TEXT, "s|capitalize"},
    {TEXT, "s|center(5)"},
    {TEXT, "'a'|center(s|length)"},
    {TEXT, "s|count"},
    {TEXT, "s|length"},
    {TEXT, "s|e"},
    {TEXT, "s|escape"},
    {TEXT, "s|forceescape"},
    {TEXT, "'%s'|format(s)"},
    {TEXT, "('\"' ~ s ~ '\"')|from_json"},
    {TEXT, "('\"' ~ s ~ '\"')|fromjson"},
    {BLANK, "t|from_json"},
    {TEXT, "s|indent"},
    {LINES, "s|indent"},
    {BLANK, "s|int"},
    {BLANK, "s|float"},
    {TEXT, "s|replace('a', 'c')"},
    {TEXT, "s|replace('c', 'd')"},
    {TEXT, "s|replace('', 'd')"},
    {LIST, "l|string"},
    {LIST, "l|safe"},
    {TEXT, "s|tojson"},
    {LINES, "s|tojson"},
    {LIST, "l|tojson(indent=2)"},
    {DICT, "d|tojson(sort_keys=true)"},
    {BLANK, "s|trim"},
    {TEXT, "s|trim('xyzba')"},
    {TEXT, "'a'|trim(s)"},
    /* filters on sequences */
    {LIST, "l|batch(3)|list"},
    {DICT, "d|dictsort"},
    {TEXT, "s|first if false else (s|last)"},
    {LIST, "l|first"},
    {DICTS, "l|groupby('a')"},
    {DICT, "d|items|list"},
    {LIST, "w|join"},
    {DICTS, "l|join('-', 'a')"},
    {LIST, "l|last"},
    {LIST, "l|list"},
    {TEXT, "s|list"},
    {LIST, "l|map('string')|list"},
    {DICTS, "l|map(attribute='a')|list"},
    {LIST, "l|max"},
    {LIST, "l|min"},
    {LIST, "l|reject('odd')|list"},
    {DICTS, "l|rejectattr('a')|list"},
    {LIST, "l|reverse|list"},
    {TEXT, "s|reverse"},
    {LIST, "l|select|list"},
    {DICTS, "l|selectattr('a', 'eq', 'b')|list"},
    {LIST, "l|slice(3)|list"},
    {LIST, "[1]|slice(l|length)|list"},
    {LIST, "l|sort"},
    {DICTS, "l|sort(attribute='a')"},
    {LIST, "l|sum"},
    {LIST, "l|unique|list"},
    {TEXT, "[{}]|map(attribute=s)|list"},
    {DICTS, "[{}]|map(attribute='a.' * (l|length), default={})|list"},
    /* methods of text */
    {TEXT, "s.upper()"},
    {TEXT, "s.lower()"},
    {TEXT, "s.casefold()"},
    {TEXT, "s.title()"},
    {TEXT, "s.capitalize()"},
    {TEXT, "s.swapcase()"},
    {TEXT, "s.count('a')"},
    {TEXT, "s.count('c')"},
    {TEXT, "s.endswith(s)"},
    {TEXT, "s.startswith(s)"},
    {TEXT, "s.startswith('a', 1)"},
    {TUPLE, "'y'.startswith(u)"},
    {TUPLE, "'y'.endswith(u)"},
    {TEXT, "s.find('c')"},
    {TEXT, "t.find('c')"},
    {TEXT, "s.rfind('c')"},
    {TEXT, "s.rfind('bb')"},
    {TEXT, "s.rfind('a' ~ s[:-2])"},
    {TEXT, "t.index('c')"},
    {TEXT, "s.format()"},
    {TEXT, "'{}'.format(s)"},
    {TEXT, "('{0:' ~ ' ' * 0 ~ '}' ~ s).format(1)"},
    {"{% set s = '1' * @ %}", "s.isdigit()"},
    {TEXT, "s.islower()"},
    {BLANK, "s.isspace()"},
    {"{% set s = 'A' * @ %}", "s.isupper()"},
    {LIST, "','.join(w)"},
    {TEXT, "s.ljust(5)"},
    {TEXT, "'a'.ljust(s|length)"},
    {TEXT, "'a'.rjust(s|length)"},
    {TEXT, "'a'.zfill(s|length)"},
    {BLANK, "s.lstrip()"},
    {BLANK, "s.rstrip()"},
    {BLANK, "s.strip()"},
    {TEXT, "s.strip('ba')"},
    {TEXT, "t.partition('c')"},
    {TEXT, "s.rpartition('c')"},
    {TEXT, "s.removeprefix(s)"},
    {TEXT, "s.removesuffix(s)"},
    {TEXT, "s.replace('a', 'c')"},
    {WORDS, "s.rsplit()"},
    {WORDS, "s.rsplit(' ')"},
    {WORDS, "s.split()"},
    {WORDS, "s.split(' ')"},
    {LINES, "s.splitlines()"},
    /* methods of lists and dicts */
    {LIST, "l.count(1)"},
    {LIST, "w.count(w[0])"},
    {LIST, "l.index(l[-1])"},
    {LIST, "l.copy()"},
    {LIST, "range(l|length).index(l[-1])"},
    {DICT, "d.copy()"},
    {DICT, "d.keys()|list"},
    {DICT, "d.values()|list"},
    {DICT, "d.items()|list"},
    /* tests */
    {TEXT, "s is eq(s[:-2] ~ 'ab')"},
    {TEXT, "s is equalto(s[:-2] ~ 'ab')"},
    {TEXT, "s is ne(s[:-2] ~ 'ab')"},
    {TEXT, "s is lt(s)"},
    {TEXT, "s is lessthan(s)"},
    {TEXT, "s is le(s)"},
    {TEXT, "s is gt(s)"},
    {TEXT, "s is greaterthan(s)"},
    {TEXT, "s is ge(s)"},
    {TEXT, "'c' is in(s)"},
    {TEXT, "s is lower"},
    {"{% set s = 'A' * @ %}", "s is upper"},
    /* functions */
    {LIST, "dict(l|batch(2))"},
    {DICT, "namespace(d)"},
    {LIST, "range(l|length)|list"},
    {TEXT, "strftime_now(s)"},
};

/* Built-ins whose work is bounded whatever they are given (or is what printing their argument is),
 * and methods that are refused. */
static const char constant[] =
    " abs attr d default round boolean callable defined divisibleby escaped even false filter "
    "float integer iterable mapping none number odd sameas sequence string test true undefined "
    "get raise_exception != < <= == > >= cycle changed "
    "append clear extend insert pop popitem remove setdefault update ";

static void charges_grow_with_the_work(void **state)
{
    (void)state;
    enum { N = 4000, LEAST = 8 };
    int n_bad = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t one = charge(rows[i].make, rows[i].op, N);
        uint64_t two = charge(rows[i].make, rows[i].op, 2 * N);
        if (one >= LEAST && 2 * two >= 3 * one && 2 * two <= 9 * one)
            continue;
        print_error("%s: %llu steps for %d, %llu for %d\n", rows[i].op, (unsigned long long)one, N,
                    (unsigned long long)two, 2 * N);
        n_bad++;
    }
    assert_int_equal(n_bad, 0);
}

/* Does a row's expression name the built-in? */
static bool has_row(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (const char *p = rows[i].op; (p = strstr(p, name)); p++) {
            bool begins = p > rows[i].op && strchr("|. (", p[-1]),
                 ends = !p[n] || strchr("|( ),", p[n]);
            if ((begins || p == rows[i].op) && ends)
                return true;
        }
    }
    return false;
}

/* Every {"name", "params", function} of the tables in the sources. */
static void every_builtin_is_known(void **state)
{
    (void)state;
    static const char *const files[] = {"filters.c", "seq.c", "methods.c", "tests.c", "globals.c"};
    int n_names = 0, n_bad = 0;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[1024], name[64], word[66];
        cp_buf src = {0};
        cp_snprintf(path, sizeof(path), "%s/chat/jinja/%s", CP_SOURCE_DIR, files[i]);
        assert_int_equal(cp_file_read(path, 1 << 20, &src, NULL), CP_OK);
        for (const char *p = src.p; (p = strstr(p, "{\"")) != NULL; p += 2) {
            const char *end = strchr(p + 2, '"');
            if (!end || strncmp(end, "\", \"", 4) != 0 || p[2] == '&' ||
                end - p - 2 >= (long)sizeof(name))
                continue;
            cp_snprintf(name, sizeof(name), "%.*s", (int)(end - p - 2), p + 2);
            cp_snprintf(word, sizeof(word), " %s ", name);
            n_names++;
            if (has_row(name) || strstr(constant, word))
                continue;
            print_error("%s: '%s' has no row in the table of costs\n", files[i], name);
            n_bad++;
        }
        cp_buf_fini(&src);
    }
    assert_true(n_names > 120);
    assert_int_equal(n_bad, 0);
}

/* Neither the number of variables nor that of names makes a look-up longer. */
static void scopes_and_names_are_not_linear(void **state)
{
    (void)state;
    enum { N = 20000 };
    cp_buf b = {0};
    for (int i = 0; i < N; i++)
        cp_buf_printf(&b, "{%% set v%d = 1 %%}", i);
    cp_buf_printf(&b, "{{ v0 }}{{ v%d }}", N - 1);
    assert_true(steps_alone(b.p, CP_OK) < 4 * N);
    cp_buf_fini(&b);
}

/* The limit stays reached: a generator that failed by it cannot be followed by more work. */
static void a_reached_limit_stays_reached(void **state)
{
    (void)state;
    uint64_t steps = steps_alone("{% set s = 'a' * 8000000 %}{% for i in range(1000) %}"
                                 "{% set z = [s]|map('upper') %}{% endfor %}{{ 1 }}",
                                 CP_TEMPLATE);
    assert_int_equal(steps, JJ_MAX_STEPS);
}

/* Templates that once did work without a charge fail by the limit. */
static void hostile_templates_end(void **state)
{
    (void)state;
    static const char *const hostile[] = {
        "{% set n = namespace(t=(1,)) %}{% for i in range(60) %}{% set n.t = (n.t, n.t) %}"
        "{% endfor %}{{ {n.t: 1}|length }}",
        "{% set s = 'a' * 4000000 %}{% set t = 'a' * 1999999 ~ 'b' %}"
        "{% for i in range(100) %}{{ s.rfind(t) }}{% endfor %}",
        "{% set l = [m] * 100000 %}{% for i in range(1000) %}{{ l.count(m) }}{% endfor %}",
        "{% set t = ('x',) * 100000 %}{% for i in range(1000) %}{{ 'a'.startswith(t) }}"
        "{% endfor %}",
        "{% set l = [1] * 100000 %}{% set k = l + [] %}{% for i in range(1000) %}{{ l == k }}"
        "{% endfor %}",
        "{% set s = ' ' * 8000000 ~ '1' %}{% for i in range(1000) %}{{ s|from_json }}{% endfor %}",
        "{% set s = '%' ~ '-' * 8000000 ~ 'd' %}{% for i in range(1000) %}{{ s % 1 }}{% endfor %}",
        "{% set t = 'a' ~ m %}{% for i in range(100000) %}{% set z = t * 900 %}{% endfor %}",
        "{% for i in range(100000) %}{% set z = 1e308 / (i + 3) ~ '' %}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
        assert_int_equal(steps_alone(hostile[i], CP_TEMPLATE), JJ_MAX_STEPS);
}

/* 2,000 messages of 4 KiB, close to the 8 MiB of output, with room to spare. */
static void long_conversations_render(void **state)
{
    (void)state;
    static const char *const sources[] = {
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
        "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
        "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
        "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}",
        /* looks for the last query, cuts reasoning, joins parts, as templates of thinking models */
        "{% set ns = namespace(last=0) %}{% for message in messages[::-1] %}"
        "{% if message.role == 'user' and not (message.content.startswith('<tool_response>') and "
        "message.content.endswith('</tool_response>')) %}{% set ns.last = loop.index0 %}{% endif %}"
        "{% endfor %}{% for message in messages %}{% set c = message.content %}"
        "{% if '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
        "{{ '<s>' + message.role + '\\n' + c | trim + '</s>' }}{% endfor %}",
    };
    enum { MESSAGES = 2000, BYTES = 4096 - 64 };
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
        cp_arena *a = cp_arena_new(ARENA);
        char *text = calloc(1, BYTES);
        memset(text, 'a', BYTES);
        for (size_t k = 7; k < BYTES; k += 8)
            text[k] = ' ';
        cp_val *vars = cp_val_dict(a), *messages = cp_val_list(a);
        for (int k = 0; k < MESSAGES; k++) {
            cp_val *m = cp_val_dict(a);
            const char *role = k & 1 ? "assistant" : "user";
            cp_val_set(a, m, "role", cp_val_str(a, role, strlen(role), false));
            cp_val_set(a, m, "content", cp_val_str(a, text, BYTES, true));
            assert_true(cp_val_push(a, messages, m));
        }
        cp_val_set(a, vars, "messages", messages);
        cp_val_set(a, vars, "add_generation_prompt", cp_val_bool(a, true));
        cp_val_set(a, vars, "bos_token", cp_val_str(a, "<s>", 3, false));
        uint64_t steps = steps_of(sources[i], vars, a, CP_OK);
        print_message("conversation %zu: %llu steps\n", i, (unsigned long long)steps);
        assert_true(steps < JJ_MAX_STEPS / 2);
        free(text);
        cp_arena_free(a);
    }
}

/* A template that looks through all messages at each of them, as many do: a long conversation
 * renders, and one without an end in sight is still bounded. */
static void messages_may_be_looked_through_at_each(void **state)
{
    (void)state;
    static const char looks[] = "{% for m in messages %}{% set ns = namespace(n=0) %}"
                                "{% for k in messages %}{% if k.role == 'tool' %}"
                                "{% set ns.n = loop.index0 %}{% endif %}{% endfor %}"
                                "{{ m.role }}{{ ns.n }}{% endfor %}";
    static const char spins[] = "{% set l = [0] * 100000 %}{% for i in l %}{% for j in l %}"
                                "{% endfor %}{% endfor %}";
    enum { MESSAGES = 900 };
    cp_arena *a = cp_arena_new(ARENA);
    cp_val *vars = cp_val_dict(a), *messages = cp_val_list(a), *m = cp_val_dict(a);
    cp_val_set(a, m, "role", cp_val_str(a, "user", 4, false));
    for (int i = 0; i < MESSAGES; i++)
        assert_true(cp_val_push(a, messages, m));
    cp_val_set(a, vars, "messages", messages);
    assert_in_range(steps_of(looks, vars, a, CP_OK), JJ_MAX_STEPS, 16 * JJ_MAX_STEPS);
    assert_int_equal(steps_of(spins, vars, a, CP_TEMPLATE),
                     JJ_MAX_STEPS + JJ_PAIR_STEPS * MESSAGES * MESSAGES);
    for (int i = 0; i < MESSAGES; i++)
        assert_true(cp_val_push(a, messages, m));
    assert_int_equal(steps_of(spins, vars, a, CP_TEMPLATE), JJ_MAX_STEPS + JJ_MAX_PAIR_STEPS);
    cp_arena_free(a);
}

/* Steps past taken places when `hashes` go into an open-addressing table of four times as many. */
static size_t crowding(const uint64_t *hashes, size_t n)
{
    enum { PLACES = 16384 };
    static bool taken[PLACES];
    memset(taken, 0, sizeof(taken));
    size_t steps = 0;
    for (size_t k = 0; k < n; k++) {
        size_t i = hashes[k] % PLACES;
        for (; taken[i]; i = (i + 1) % PLACES)
            steps++;
        taken[i] = true;
    }
    return steps;
}

/* Whatever address the process was given, keys that count upwards lie apart. An even spread passes
 * about n / 6 taken places. */
static void keys_spread_with_every_secret(void **state)
{
    (void)state;
    enum { N = 4000, SECRETS = 4096 };
    static uint64_t ints[N], texts[N];
    char text[16];
    for (uint64_t s = 0; s < SECRETS; s++) {
        uint64_t address = 0x550000000000u + s * 0x3517000u, secret = address * 0x9fb21c651e98df25u;
        for (uint64_t i = 0; i < N; i++)
            ints[i] = cp_jj_hash_int(i, secret);
        assert_in_range(crowding(ints, N), 0, N / 2);
        for (uint64_t i = 0; s % 8 == 0 && i < N; i++) {
            int n = snprintf(text, sizeof(text), "k%llu", (unsigned long long)i);
            texts[i] = cp_jj_hash_bytes(text, (size_t)n, secret);
        }
        if (s % 8 == 0)
            assert_in_range(crowding(texts, N), 0, N / 2);
    }
}

int run_cost_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(charges_grow_with_the_work),
        cmocka_unit_test(every_builtin_is_known),
        cmocka_unit_test(keys_spread_with_every_secret),
        cmocka_unit_test(scopes_and_names_are_not_linear),
        cmocka_unit_test(a_reached_limit_stays_reached),
        cmocka_unit_test(hostile_templates_end),
        cmocka_unit_test(long_conversations_render),
        cmocka_unit_test(messages_may_be_looked_through_at_each),
    };
    return cmocka_run_group_tests_name("cost", tests, NULL, NULL);
}
