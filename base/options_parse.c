/*
 * The command line, the environment and models.toml become a cp_options (base/options.h).
 *
 * The command line is first split into (row, text) pairs and arguments, because --config decides
 * which file is read; then the sources are applied in rising order: defaults, file, environment,
 * flags. A list that a higher source sets replaces the lower one's. Values from all three go
 * through one reader (cp_opt_set), so they obey the same rules.
 */
#include "base/options.h"

#include "base/io.h"
#include "base/meta.h"
#include "base/options_rows.h"
#include "base/toml.h"

#include <stdlib.h>
#include <string.h>

enum { ARENA_BYTES = 64 << 20, ARGS_MAX = 4096, NAME_SHOWN = 64, VALUE_SHOWN = 120 };

typedef struct flag {
    const cp_opt_row *row;
    const char *spelled; /* as typed: "--port", "-p" */
    const char *value;
} flag;

typedef struct parse {
    cp_options *o;
    flag *flags;
    int n_flags;
    const char *file;   /* of --config; NULL: none */
    const cp_str *text; /* what it holds; NULL: it is read */
    cp_err *err;
} parse;

/* ---- nearest names ---- */

/* Edit distance of two short names; large when either is long. */
static int distance(const char *a, const char *b)
{
    enum { MAX = 48 };
    int row[MAX + 1], n = (int)strlen(a), m = (int)strlen(b);
    if (n > MAX || m > MAX)
        return MAX;
    for (int j = 0; j <= m; j++)
        row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int above = row[j];
            int best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[m];
}

typedef struct nearest {
    const char *wanted;
    const char *name; /* the best so far, or NULL */
    int distance;
} nearest;

static nearest nearest_to(const char *wanted)
{
    /* Up to 2 edits (a swapped pair is 2), 3 in long names, but never all of it. */
    int n = (int)strlen(wanted), far = n < 3 ? n - 1 : n < 9 ? 2 : 3;
    return (nearest){wanted, NULL, far + 1};
}

static void consider(nearest *n, const char *name)
{
    int d = distance(n->wanted, name);
    if (d < n->distance) {
        n->distance = d;
        n->name = name;
    }
}

/* "; did you mean 'x'?" or "". */
static const char *hint(const nearest *n, const char *dashes, char out[80])
{
    out[0] = '\0';
    if (n->name)
        cp_snprintf(out, 80, "; did you mean '%s%s'?", dashes, n->name);
    return out;
}

/* ---- setting one option ---- */

static uint32_t command_bit(cp_command c)
{
    return c < CP_CMD_COUNT ? 1u << c : 0;
}

const char *cp_command_name(cp_command command)
{
    return command < CP_CMD_COUNT ? cp_command_rows[command].words : "";
}

/* Set a row from text; `where` names the place in a message ("--port", "CAPSTAN_PORT", "f:1:2: key
 * 'port'"). */
static cp_code set_from(parse *ps, const cp_opt_row *row, void *base, const char *text, bool split,
                        const char *where)
{
    char allowed[200];
    if (cp_opt_set(row, base, ps->o->arena, text, split))
        return CP_OK;
    cp_opt_allowed(row, allowed, sizeof(allowed));
    return cp_fail(ps->err, CP_USAGE, "%s: got '%.*s'; allowed: %s", where, VALUE_SHOWN, text,
                   allowed);
}

/* The first value of a higher source empties a list. */
static void raise_source(parse *ps, const cp_opt_row *row, cp_source source)
{
    uint8_t *have = &ps->o->source[row - cp_opt_rows];
    if (*have != source)
        cp_opt_clear(row, ps->o);
    *have = (uint8_t)source;
}

static void apply_defaults(parse *ps)
{
    for (int i = 0; i < CP_OPT_COUNT; i++) {
        if (*cp_opt_rows[i].def)
            CP_ASSERT(cp_opt_set(&cp_opt_rows[i], ps->o, ps->o->arena, cp_opt_rows[i].def, true));
    }
}

/*
 * Kubernetes and docker set NAME_PORT=tcp://ADDRESS:PORT for a service called NAME, so that one
 * called like the program would spell an option. The variable says where others listen.
 */
static bool is_service_link(const cp_opt_row *row, const char *text)
{
    static const char *const schemes[] = {"tcp://", "udp://", "sctp://"};
    if (row != &cp_opt_rows[CP_OPT_port])
        return false;
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t n = strlen(schemes[i]);
        const char *colon = strrchr(text, ':'), *digits = colon ? colon + 1 : "";
        if (strncmp(text, schemes[i], n) == 0 && colon > text + n && !strchr(text + n, '/') &&
            *digits && !digits[strspn(digits, "0123456789")])
            return true;
    }
    return false;
}

static cp_code apply_environment(parse *ps, char *const *environment)
{
    for (int i = 0; i < CP_OPT_COUNT && environment; i++) {
        const cp_opt_row *row = &cp_opt_rows[i];
        char name[CP_OPT_NAME_MAX];
        if (!(row->commands & command_bit(ps->o->command)))
            continue;
        cp_opt_env_name(row, name);
        size_t n = strlen(name);
        for (char *const *e = environment; *e; e++) {
            /* An empty variable is an unset one. */
            if (strncmp(*e, name, n) != 0 || (*e)[n] != '=' || !(*e)[n + 1])
                continue;
            if (is_service_link(row, *e + n + 1)) {
                ps->o->service_link = cp_arena_strndup(ps->o->arena, *e, strlen(*e));
                continue;
            }
            raise_source(ps, row, CP_FROM_ENV);
            cp_code code = set_from(ps, row, ps->o, *e + n + 1, true, name);
            if (code)
                return code;
        }
    }
    return CP_OK;
}

static cp_code apply_flags(parse *ps)
{
    for (int i = 0; i < ps->n_flags; i++) {
        const flag *f = &ps->flags[i];
        raise_source(ps, f->row, CP_FROM_FLAG);
        cp_code code = set_from(ps, f->row, ps->o, f->value, false, f->spelled);
        if (code)
            return code;
    }
    return CP_OK;
}

/* ---- file ---- */

typedef struct key_place {
    char text[400]; /* "FILE:LINE:COLUMN: key 'k'" */
} key_place;

static const char *place_of(const parse *ps, const cp_toml_entry *e, key_place *out)
{
    cp_snprintf(out->text, sizeof(out->text), "%.256s:%d:%d: key '%.*s'", ps->file, e->line,
                e->column, NAME_SHOWN, e->key);
    return out->text;
}

/* The text of a scalar where the type takes it from this kind of TOML value, else NULL. */
static const char *scalar_text(cp_opt_type type, const cp_toml_value *v, char buf[48])
{
    bool words = type != CP_OPT_TYPE_INT && type != CP_OPT_TYPE_FLOAT && type != CP_OPT_TYPE_INTS;
    switch (v->type) {
    case CP_TOML_STRING:
        return words ? v->v.s : NULL;
    case CP_TOML_INT:
        cp_snprintf(buf, 48, "%lld", (long long)v->v.i);
        return type == CP_OPT_TYPE_INT || type == CP_OPT_TYPE_FLOAT || type == CP_OPT_TYPE_SIZE ||
                       type == CP_OPT_TYPE_INTS || type == CP_OPT_TYPE_TIME
                   ? buf
                   : NULL;
    case CP_TOML_FLOAT:
        cp_snprintf(buf, 48, "%.17g", v->v.f);
        return type == CP_OPT_TYPE_FLOAT ? buf : NULL;
    case CP_TOML_BOOL:
        return type == CP_OPT_TYPE_ONOFF || type == CP_OPT_TYPE_SWITCH ? (v->v.b ? "on" : "off")
                                                                       : NULL;
    case CP_TOML_ARRAY:
    case CP_TOML_TABLE:
        break;
    }
    return NULL;
}

static cp_code wrong_kind(parse *ps, const cp_opt_row *row, const cp_toml_value *v,
                          const char *where)
{
    char allowed[200], buf[64] = "";
    cp_opt_allowed(row, allowed, sizeof(allowed));
    if (v->type == CP_TOML_STRING)
        cp_snprintf(buf, sizeof(buf), " '%.40s'", v->v.s);
    else if (v->type == CP_TOML_INT)
        cp_snprintf(buf, sizeof(buf), " %lld", (long long)v->v.i);
    else if (v->type == CP_TOML_FLOAT)
        cp_snprintf(buf, sizeof(buf), " %g", v->v.f);
    return cp_fail(ps->err, CP_USAGE, "%s: got the %s%s; allowed: %s%s", where,
                   cp_toml_type_name(v->type), buf, cp_opt_is_list(row->type) ? "an array of " : "",
                   allowed);
}

/* Set a row from a value of a file or a request: scalars, and arrays of scalars for lists. */
static cp_code set_from_value(parse *ps, const cp_opt_row *row, void *base, const cp_toml_value *v,
                              const char *where)
{
    char buf[48];
    bool array = v->type == CP_TOML_ARRAY && cp_opt_is_list(row->type);
    for (const cp_toml_value *item = array ? v->v.array.first : v; item;
         item = array ? item->next : NULL) {
        const char *text = scalar_text(row->type, item, buf);
        if (!text)
            return wrong_kind(ps, row, item, where);
        cp_code code = set_from(ps, row, base, text, false, where);
        if (code)
            return code;
    }
    return CP_OK;
}

static cp_code set_from_toml(parse *ps, const cp_opt_row *row, void *base, const cp_toml_entry *e)
{
    key_place place;
    return set_from_value(ps, row, base, e->value, place_of(ps, e, &place));
}

static const cp_opt_row *find_row(const cp_opt_row *rows, int n, const char *name)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

static cp_code unknown_key(parse *ps, const cp_opt_row *rows, int n, const char *table,
                           const cp_toml_entry *e)
{
    key_place place;
    char text[80];
    nearest near = nearest_to(e->key);
    for (int i = 0; i < n; i++)
        consider(&near, rows[i].name);
    return cp_fail(ps->err, CP_USAGE, "%s: unknown in %s%s", place_of(ps, e, &place), table,
                   hint(&near, "", text));
}

/* All keys of a table into a struct with a `given` mask, but `skip`. */
static cp_code apply_keys(parse *ps, const cp_opt_row *rows, int n, void *base, uint32_t *given,
                          const cp_toml_value *table, const char *name, const char *skip)
{
    for (const cp_toml_entry *e = table->v.table.first; e; e = e->next) {
        if (skip && strcmp(e->key, skip) == 0)
            continue;
        const cp_opt_row *row = find_row(rows, n, e->key);
        if (!row)
            return unknown_key(ps, rows, n, name, e);
        cp_code code = set_from_toml(ps, row, base, e);
        if (code)
            return code;
        *given |= 1u << (row - rows);
    }
    return CP_OK;
}

static cp_code apply_model(parse *ps, const cp_toml_value *table, cp_model_options *m)
{
    cp_code code = apply_keys(ps, cp_model_rows, CP_MODEL_KEY_COUNT, m, &m->given, table,
                              "[[model]]", "sampling");
    if (code)
        return code;
    if (!m->ref)
        return cp_fail(ps->err, CP_USAGE, "%s:%d:%d: [[model]] without its key 'ref'", ps->file,
                       table->line, table->column);
    const cp_toml_entry *e = cp_toml_find(table, "sampling");
    if (!e)
        return CP_OK;
    key_place place;
    if (e->value->type != CP_TOML_TABLE)
        return cp_fail(ps->err, CP_USAGE, "%s: got the %s; allowed: a table [model.sampling]",
                       place_of(ps, e, &place), cp_toml_type_name(e->value->type));
    return apply_keys(ps, cp_sampling_rows, CP_SAMPLING_COUNT, &m->sampling, &m->sampling.given,
                      e->value, "[model.sampling]", NULL);
}

/* The [[model]] entries, checked for every command, kept by the caller for serve. */
static cp_code apply_models(parse *ps, const cp_toml_entry *e)
{
    const cp_toml_value *array = e->value;
    int n = array->v.array.n;
    if (n > cp_command_rows[CP_CMD_SERVE].args_max) {
        key_place place;
        return cp_fail(ps->err, CP_USAGE, "%s: got %d entries; allowed: up to %d",
                       place_of(ps, e, &place), n, cp_command_rows[CP_CMD_SERVE].args_max);
    }
    cp_model_options *models = cp_arena_alloc(ps->o->arena, (size_t)n * sizeof(*models));
    if (!models)
        return cp_fail(ps->err, CP_NO_MEMORY, "%s: %d models: out of memory", ps->file, n);
    int i = 0;
    for (const cp_toml_value *t = array->v.array.first; t; t = t->next, i++) {
        cp_code code = apply_model(ps, t, &models[i]);
        if (code)
            return code;
    }
    ps->o->models = models;
    ps->o->n_models = n;
    return CP_OK;
}

/* Is the value an array of tables, not empty? */
static bool is_tables(const cp_toml_value *v)
{
    if (v->type != CP_TOML_ARRAY || v->v.array.n == 0)
        return false;
    for (const cp_toml_value *t = v->v.array.first; t; t = t->next) {
        if (t->type != CP_TOML_TABLE)
            return false;
    }
    return true;
}

static cp_code apply_file(parse *ps)
{
    cp_buf text = {0};
    cp_toml *doc = NULL;
    cp_err why;
    cp_code code = ps->text ? CP_OK : cp_file_read(ps->file, CP_CONFIG_BYTES, &text, &why);
    if (code) {
        code = cp_fail(ps->err, CP_USAGE, "--config: %s", why.msg);
        goto done;
    }
    cp_str whole = ps->text ? *ps->text : (cp_str){text.p ? text.p : "", text.n};
    code = cp_toml_parse(&doc, ps->file, whole.p, whole.n, ps->err);
    if (code)
        goto done;
    for (const cp_toml_entry *e = cp_toml_root(doc)->v.table.first; e && !code; e = e->next) {
        key_place place;
        const cp_opt_row *row = find_row(cp_opt_rows, CP_OPT_COUNT, e->key);
        if (strcmp(e->key, "model") == 0 && is_tables(e->value)) {
            code = apply_models(ps, e);
        } else if (strcmp(e->key, "model") == 0 && e->value->type == CP_TOML_TABLE) {
            code = cp_fail(ps->err, CP_USAGE, "%s: got a table; allowed: [[model]]",
                           place_of(ps, e, &place));
        } else if (!row) {
            code = unknown_key(ps, cp_opt_rows, CP_OPT_COUNT, "the top table", e);
        } else if (row == &cp_opt_rows[CP_OPT_config]) {
            code = cp_fail(ps->err, CP_USAGE, "%s: a file cannot name another one",
                           place_of(ps, e, &place));
        } else {
            raise_source(ps, row, CP_FROM_FILE);
            code = set_from_toml(ps, row, ps->o, e);
        }
    }
done:
    cp_toml_free(doc);
    cp_buf_fini(&text);
    return code;
}

/* ---- command line ---- */

/* The command whose words begin at argv[1]; CP_CMD_NONE: none. *group: argv[1] where it is the
 * first of two words, else NULL. */
static cp_command match_command(int argc, char *const *argv, const char **group)
{
    *group = NULL;
    for (int c = 0; c < CP_CMD_COUNT; c++) {
        const char *words = cp_command_rows[c].words, *space = strchr(words, ' ');
        size_t n = space ? (size_t)(space - words) : strlen(words);
        if (strlen(argv[1]) != n || memcmp(argv[1], words, n) != 0)
            continue;
        if (!space || (argc > 2 && strcmp(argv[2], space + 1) == 0))
            return (cp_command)c;
        *group = argv[1];
    }
    return CP_CMD_NONE;
}

static bool is_help(const char *word)
{
    return strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0;
}

/* "bench nonsense" where there are bench engine and bench perplexity. */
static cp_code unknown_part(parse *ps, const char *group, const char *word)
{
    char allowed[200];
    size_t n = 0, k = strlen(group);
    for (int c = 0; c < CP_CMD_COUNT; c++) {
        const char *words = cp_command_rows[c].words;
        if (strncmp(words, group, k) == 0 && words[k] == ' ')
            n +=
                cp_snprintf(allowed + n, sizeof(allowed) - n, "%s%s", n ? ", " : "", words + k + 1);
    }
    return cp_fail(ps->err, CP_USAGE, "%s: got '%.*s'; allowed: %s", group, NAME_SHOWN, word,
                   allowed);
}

/* Sets o->command and *next, the first argument after its words; CP_CMD_NONE with o->help, or
 * where there is no command to name. */
static cp_code find_command(parse *ps, int argc, char *const *argv, int *next)
{
    cp_options *o = ps->o;
    char text[80];
    const char *group;
    o->command = CP_CMD_NONE;
    o->help = argc > 1 && (is_help(argv[1]) || strcmp(argv[1], "help") == 0);
    if (argc < 2 || (o->help && (argc == 2 || is_help(argv[1]))))
        return CP_OK;
    if (o->help) { /* help COMMAND */
        argc--;
        argv++;
    } else if (strcmp(argv[1], "--version") == 0) {
        o->command = CP_CMD_VERSION;
        *next = 2;
        return CP_OK;
    }
    o->command = match_command(argc, argv, &group);
    if (o->command != CP_CMD_NONE) {
        *next = strchr(cp_command_rows[o->command].words, ' ') ? 3 : 2;
        return CP_OK;
    }
    if (group) {
        o->help = o->help || (argc > 2 && is_help(argv[2]));
        o->group = cp_arena_strndup(o->arena, group, strlen(group));
        return argc == 2 || is_help(argv[2]) ? CP_OK : unknown_part(ps, group, argv[2]);
    }
    char wanted[NAME_SHOWN + 1];
    cp_strcopy(wanted, sizeof(wanted), argv[1]);
    nearest near = nearest_to(wanted);
    for (int c = 0; c < CP_CMD_COUNT; c++)
        consider(&near, cp_command_rows[c].words);
    return cp_fail(ps->err, CP_USAGE, "unknown command '%s'%s; `capstan --help` lists them", wanted,
                   hint(&near, "", text));
}

static cp_code unknown_flag(parse *ps, const char *spelled, const cp_opt_row *elsewhere)
{
    cp_command c = ps->o->command;
    char name[CP_OPT_NAME_MAX], shown[NAME_SHOWN + 1], text[80], names[CP_OPT_COUNT][48];
    cp_strcopy(shown, sizeof(shown), spelled);
    shown[strcspn(shown, "=")] = '\0';
    if (elsewhere) {
        char commands[200];
        size_t n = 0;
        for (int i = 0; i < CP_CMD_COUNT; i++) {
            if (elsewhere->commands & 1u << i)
                n += cp_snprintf(commands + n, sizeof(commands) - n, "%s%s", n ? ", " : "",
                                 cp_command_rows[i].words);
        }
        return cp_fail(ps->err, CP_USAGE, "'%s' is no option of %s, but of: %s", shown,
                       cp_command_name(c), commands);
    }
    const char *bare = shown + strspn(shown, "-");
    nearest near = nearest_to(bare);
    for (int i = 0; i < CP_OPT_COUNT; i++) {
        if (!(cp_opt_rows[i].commands & command_bit(c)))
            continue;
        cp_opt_flag_name(&cp_opt_rows[i], name);
        cp_strcopy(names[i], sizeof(names[i]), name + 2);
        consider(&near, names[i]);
    }
    return cp_fail(ps->err, CP_USAGE, "unknown option '%s'%s; `capstan %s --help` lists them",
                   shown, hint(&near, "--", text), cp_command_name(c));
}

/* The row of "--name", "--name=value" or "-x" for this command; *elsewhere when only others have
 * it. */
static const cp_opt_row *flag_row(cp_command command, const char *arg, const cp_opt_row **elsewhere)
{
    size_t n = strcspn(arg, "=");
    *elsewhere = NULL;
    for (int i = 0; i < CP_OPT_COUNT; i++) {
        const cp_opt_row *row = &cp_opt_rows[i];
        char name[CP_OPT_NAME_MAX];
        bool match;
        if (arg[1] == '-') {
            cp_opt_flag_name(row, name);
            match = strlen(name) == n && memcmp(name, arg, n) == 0;
        } else {
            match = row->letter && arg[1] == row->letter;
        }
        if (match && (row->commands & command_bit(command)))
            return row;
        if (match)
            *elsewhere = row;
    }
    return NULL;
}

/* One flag at argv[*i]; moves *i past its value. */
static cp_code take_flag(parse *ps, int argc, char *const *argv, int *i)
{
    const char *arg = argv[*i], *value = NULL;
    const cp_opt_row *elsewhere, *row = flag_row(ps->o->command, arg, &elsewhere);
    if (!row)
        return unknown_flag(ps, arg, elsewhere);
    char *spelled = cp_arena_strndup(ps->o->arena, arg, arg[1] == '-' ? strcspn(arg, "=") : 2);
    if (!spelled)
        return cp_fail(ps->err, CP_NO_MEMORY, "out of memory");
    if (arg[1] == '-' && strchr(arg, '='))
        value = strchr(arg, '=') + 1;
    else if (arg[1] != '-' && arg[2])
        value = arg + 2 + (arg[2] == '=');
    else if (row->type == CP_OPT_TYPE_SWITCH)
        value = "on";
    else if (*i + 1 < argc)
        value = argv[++*i];
    if (!value) {
        char allowed[200];
        cp_opt_allowed(row, allowed, sizeof(allowed));
        return cp_fail(ps->err, CP_USAGE, "%s: takes a value; allowed: %s", spelled, allowed);
    }
    ps->flags[ps->n_flags++] = (flag){row, spelled, value};
    ++*i;
    return CP_OK;
}

static cp_code take_arguments(parse *ps, int argc, char *const *argv, int i)
{
    cp_options *o = ps->o;
    const cp_command_row *c = &cp_command_rows[o->command];
    bool flags_end = false;
    const char **args = cp_arena_alloc(o->arena, (size_t)argc * sizeof(*args));
    ps->flags = cp_arena_alloc(o->arena, (size_t)argc * sizeof(*ps->flags));
    if (!args || !ps->flags)
        return cp_fail(ps->err, CP_NO_MEMORY, "%d arguments: out of memory", argc);
    o->args.p = args;
    while (i < argc) {
        const char *arg = argv[i];
        if (!flags_end && strcmp(arg, "--") == 0) {
            flags_end = true;
            i++;
        } else if (!flags_end && is_help(arg)) {
            o->help = true;
            return CP_OK;
        } else if (!flags_end && arg[0] == '-' && arg[1]) {
            cp_code code = take_flag(ps, argc, argv, &i);
            if (code)
                return code;
        } else {
            char *copy = cp_arena_strndup(o->arena, arg, strlen(arg));
            if (!copy)
                return cp_fail(ps->err, CP_NO_MEMORY, "out of memory");
            args[o->args.n++] = copy;
            i++;
        }
    }
    if (o->args.n < c->args_min)
        return cp_fail(ps->err, CP_USAGE, "%s: takes %s; `capstan %s --help` shows how", c->words,
                       c->synopsis, c->words);
    if (o->args.n > c->args_max)
        return cp_fail(ps->err, CP_USAGE, "%s: got '%.*s'; allowed: %d argument%s", c->words,
                       NAME_SHOWN, args[c->args_max], c->args_max, c->args_max == 1 ? "" : "s");
    return CP_OK;
}

static void find_config(parse *ps, char *const *environment)
{
    const cp_opt_row *row = &cp_opt_rows[CP_OPT_config];
    char name[CP_OPT_NAME_MAX];
    cp_opt_env_name(row, name);
    size_t n = strlen(name);
    for (char *const *e = environment; e && *e; e++) {
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=' && (*e)[n + 1])
            ps->file = *e + n + 1;
    }
    for (int i = 0; i < ps->n_flags; i++) {
        if (ps->flags[i].row == row)
            ps->file = ps->flags[i].value;
    }
}

/* ---- rules across options ---- */

/*
 * A step has a row for each sequence that runs, the choices of a request included: with fewer, the
 * youngest would hold a slot and pages and never get a row while the others decode.
 */
static cp_code rows_for_seqs(const cp_model_options *m, cp_err *err)
{
    if (m->max_batch_rows >= m->max_seqs)
        return CP_OK;
    return cp_fail(err, CP_USAGE,
                   "%.200s: key 'max_batch_rows': got %lld, with max_seqs %lld; allowed: as many "
                   "rows as sequences, or more",
                   m->ref, (long long)m->max_batch_rows, (long long)m->max_seqs);
}

cp_code cp_model_options_fill(cp_model_options *m, const cp_options *o, cp_err *err)
{
#define FILL(key) m->key = m->given & 1u << CP_MODEL_##key ? m->key : o->key
    FILL(ctx);
    FILL(kv_type);
    FILL(chat_template_file);
    FILL(device);
    FILL(platform);
    FILL(variant);
    FILL(max_seqs);
    FILL(max_batch_rows);
#undef FILL
    /* Where an entry says one of the two, what the options say of the other follows. */
    if (!(m->given & 1u << CP_MODEL_max_seqs) && m->max_seqs > m->max_batch_rows)
        m->max_seqs = m->max_batch_rows;
    if (!(m->given & 1u << CP_MODEL_max_batch_rows) && m->max_batch_rows < m->max_seqs)
        m->max_batch_rows = m->max_seqs;
    return rows_for_seqs(m, err);
}

/* serve: REFs, then the file's entries; what an entry leaves open comes from the options. */
static cp_code resolve_models(parse *ps)
{
    cp_options *o = ps->o;
    int n_refs = o->args.n, n = n_refs + o->n_models;
    if (n == 0)
        return cp_fail(ps->err, CP_USAGE, "serve: no REF and no [[model]] in a --config file");
    if (o->alias.n && (n_refs > 1 || (n_refs == 0 && n > 1)))
        return cp_fail(ps->err, CP_USAGE, "--alias: got it with %d models; allowed: one REF", n);
    cp_model_options *all = cp_arena_alloc(o->arena, (size_t)n * sizeof(*all));
    if (!all)
        return cp_fail(ps->err, CP_NO_MEMORY, "%d models: out of memory", n);
    for (int i = 0; i < n_refs; i++)
        all[i].ref = o->args.p[i];
    if (o->n_models)
        memcpy(all + n_refs, o->models, (size_t)o->n_models * sizeof(*all));
    if (o->alias.n)
        all[0].alias = o->alias;
    o->models = all;
    o->n_models = n;
    cp_code code = CP_OK;
    for (cp_model_options *m = all; m < all + n && code == CP_OK; m++)
        code = cp_model_options_fill(m, o, ps->err);
    return code;
}

static cp_code check_required(parse *ps)
{
    for (int i = 0; i < CP_OPT_COUNT; i++) {
        const cp_opt_row *row = &cp_opt_rows[i];
        char name[CP_OPT_NAME_MAX];
        if (!(row->required & command_bit(ps->o->command)) || ps->o->source[i])
            continue;
        cp_opt_flag_name(row, name);
        return cp_fail(ps->err, CP_USAGE, "%s: needs %s %s", cp_command_name(ps->o->command), name,
                       row->metavar);
    }
    return CP_OK;
}

/* As rows_for_seqs, of the options; where only one of the two is given, the other one follows. */
static cp_code relate_rows(parse *ps)
{
    cp_options *o = ps->o;
    bool bench = o->command == CP_CMD_BENCH_ENGINE;
    cp_option id = bench ? CP_OPT_batch : CP_OPT_max_seqs;
    int64_t seqs = bench ? 1 : o->max_seqs;
    for (int i = 0; i < o->batch.n && bench; i++)
        seqs = o->batch.p[i] > seqs ? o->batch.p[i] : seqs;
    if ((!bench && o->command != CP_CMD_SERVE) || o->max_batch_rows >= seqs)
        return CP_OK;
    if (cp_option_given(o, CP_OPT_max_batch_rows) && cp_option_given(o, id))
        return cp_fail(ps->err, CP_USAGE,
                       "--max-batch-rows: got %lld, with --%s %lld; allowed: as many rows as "
                       "sequences, or more",
                       (long long)o->max_batch_rows, bench ? "batch" : "max-seqs", (long long)seqs);
    if (cp_option_given(o, CP_OPT_max_batch_rows)) {
        o->max_seqs = o->max_batch_rows;
        o->source[CP_OPT_max_seqs] = CP_FROM_OTHER;
    } else {
        o->max_batch_rows = seqs;
        o->source[CP_OPT_max_batch_rows] = CP_FROM_OTHER;
    }
    return CP_OK;
}

static cp_code parse_with(const cp_str *text, cp_options **out, int argc, char *const *argv,
                          char *const *environment, cp_err *err)
{
    if (argc > ARGS_MAX)
        return cp_fail(err, CP_USAGE, "%d arguments; allowed: up to %d", argc, ARGS_MAX);
    cp_options *o = cp_xcalloc(1, sizeof(*o));
    o->arena = cp_arena_new(ARENA_BYTES);
    parse ps = {.o = o, .err = err, .text = text};
    o->argc = argc;
    o->argv = argv;
    o->environment = environment;
    int next = argc;
    cp_code code = find_command(&ps, argc, argv, &next);
    if (!code && !o->help && o->command != CP_CMD_NONE)
        code = take_arguments(&ps, argc, argv, next);
    if (code || o->help || o->command == CP_CMD_NONE)
        goto done;
    apply_defaults(&ps);
    find_config(&ps, environment);
    if (ps.file)
        code = apply_file(&ps);
    if (!code)
        code = apply_environment(&ps, environment);
    if (!code)
        code = apply_flags(&ps);
    if (!code)
        code = check_required(&ps);
    if (!code)
        code = relate_rows(&ps);
    if (!code && o->command == CP_CMD_SERVE)
        code = resolve_models(&ps);
done:
    if (code)
        cp_options_free(o);
    else
        *out = o;
    return code;
}

cp_code cp_options_parse(cp_options **out, int argc, char *const *argv, char *const *environment,
                         cp_err *err)
{
    return parse_with(NULL, out, argc, argv, environment, err);
}

cp_code cp_options_again(const cp_options *o, const char *text, size_t n, cp_options **out,
                         cp_err *err)
{
    return parse_with(&(cp_str){text, n}, out, o->argc, o->argv, o->environment, err);
}

cp_code cp_model_option_set(cp_model_options *m, const char *key, const cp_toml_value *v,
                            cp_arena *arena, cp_err *err)
{
    static const char prefix[] = "sampling.";
    cp_options o = {.arena = arena};
    parse ps = {.o = &o, .err = err};
    char where[80], param[sizeof(err->param)];
    bool sampling = strncmp(key, prefix, sizeof(prefix) - 1) == 0;
    const cp_opt_row *rows = sampling ? cp_sampling_rows : cp_model_rows;
    int n = sampling ? CP_SAMPLING_COUNT : CP_MODEL_KEY_COUNT;
    const cp_opt_row *row = find_row(rows, n, sampling ? key + sizeof(prefix) - 1 : key);
    if (!row)
        return cp_fail_param(err, CP_UNSUPPORTED_FIELD, key, "'%.40s' is no key of a model", key);
    cp_snprintf(where, sizeof(where), "'%.60s'", key);
    cp_snprintf(param, sizeof(param), "%s", key);
    cp_code code = set_from_value(&ps, row, sampling ? (void *)&m->sampling : (void *)m, v, where);
    if (code == CP_USAGE) {
        err->code = code = CP_INVALID_VALUE;
        cp_strcopy(err->param, sizeof(err->param), param);
    } else if (code == CP_OK) {
        *(sampling ? &m->sampling.given : &m->given) |= 1u << (row - rows);
    }
    return code;
}

cp_code cp_options_forward(const cp_options *o, cp_command to, cp_arena *arena, cp_strings *out,
                           cp_err *err)
{
    uint32_t both = command_bit(o->command) | command_bit(to);
    for (int i = 0; i < CP_OPT_COUNT; i++) {
        const cp_opt_row *row = &cp_opt_rows[i];
        if ((row->commands & both) != both || i == CP_OPT_config || i == CP_OPT_json ||
            !cp_option_given(o, (cp_option)i))
            continue;
        if (!cp_opt_flags(row, o, arena, out))
            return cp_fail(err, CP_NO_MEMORY, "--%s: out of memory", row->name);
    }
    return CP_OK;
}

void cp_options_free(cp_options *o)
{
    if (!o)
        return;
    cp_arena_free(o->arena);
    free(o);
}
