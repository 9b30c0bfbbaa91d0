/*
 * This file makes texts of the rows: --help, the manual page (docs/capstan.1) and
 * docs/CONFIGURATION.md. The generator program gen_docs writes the files, and a lint test fails
 * when they are stale.
 */
#include "base/metrics.h"
#include "base/options_rows.h"

#include <ctype.h>
#include <string.h>

enum { HELP_COLUMN = 30, HELP_WIDTH = 90 };

/* Append text from column `at`, broken at blanks so that no line passes HELP_WIDTH; later lines
 * start at HELP_COLUMN. */
static void add_wrapped(cp_buf *out, const char *text, size_t at)
{
    while (*text) {
        size_t n = strcspn(text, " ");
        if (at > HELP_COLUMN && at + 1 + n > HELP_WIDTH) {
            cp_buf_printf(out, "\n%*s", HELP_COLUMN, "");
            at = HELP_COLUMN;
        } else if (at > HELP_COLUMN) {
            cp_buf_addc(out, ' ');
            at++;
        }
        cp_buf_add(out, text, n);
        at += n;
        text += n + (text[n] == ' ');
    }
    cp_buf_addc(out, '\n');
}

/* "-p, --prompt TEXT|-" */
static void option_head(const cp_opt_row *row, const char *gap, char *out, size_t cap)
{
    char flag[CP_OPT_NAME_MAX], letter[8] = "";
    cp_opt_flag_name(row, flag);
    if (row->letter)
        cp_snprintf(letter, sizeof(letter), "-%c, ", row->letter);
    cp_snprintf(out, cap, "%s%s%s%s", row->letter ? letter : gap, flag, *row->metavar ? " " : "",
                row->metavar);
}

static void help_option(cp_buf *out, const cp_opt_row *row)
{
    char head[80], env[CP_OPT_NAME_MAX], text[600];
    option_head(row, "    ", head, sizeof(head));
    cp_opt_env_name(row, env);
    cp_buf_printf(out, "  %-*s", HELP_COLUMN - 2, head);
    if (strlen(head) + 3 > HELP_COLUMN)
        cp_buf_printf(out, "\n%*s", HELP_COLUMN, "");
    size_t n = cp_snprintf(text, sizeof(text), "%s", row->doc);
    if (*row->range && row->type != CP_OPT_TYPE_ONOFF && row->type != CP_OPT_TYPE_SWITCH &&
        strlen(row->range) < 32)
        n += cp_snprintf(text + n, sizeof(text) - n, " (%s)", row->range);
    if (*row->def && row->type != CP_OPT_TYPE_SWITCH)
        n += cp_snprintf(text + n, sizeof(text) - n, " [default: %s]", row->def);
    cp_snprintf(text + n, sizeof(text) - n, " [%s]", env);
    add_wrapped(out, text, HELP_COLUMN);
}

static void help_commands(cp_buf *out, const char *group)
{
    size_t n = group ? strlen(group) : 0;
    for (int c = 0; c < CP_CMD_COUNT; c++) {
        const char *words = cp_command_rows[c].words;
        if (n == 0 || (strncmp(words, group, n) == 0 && words[n] == ' '))
            cp_buf_printf(out, "  %-18s %s\n", words, cp_command_rows[c].summary);
    }
}

void cp_options_help(cp_buf *out, cp_command command, const char *group)
{
    if (command >= CP_CMD_COUNT && group) {
        cp_buf_printf(out, "Usage: capstan %s PART [OPTION]...\n\nParts:\n", group);
        help_commands(out, group);
        cp_buf_printf(out, "\n`capstan %s PART --help` shows the options of a part.\n", group);
        return;
    }
    if (command >= CP_CMD_COUNT) {
        cp_buf_adds(out, "capstan serves large language models.\n\n"
                         "Usage: capstan COMMAND [OPTION]... [ARGUMENT]...\n\nCommands:\n");
        help_commands(out, NULL);
        cp_buf_adds(
            out,
            "\n`capstan COMMAND --help` shows the options of a command. Each option --a-b is also\n"
            "the environment's CAPSTAN_A_B and the key a_b of the file that --config names;\n"
            "a flag wins over the environment, that over the file, that over the default.\n\n"
            "Example:\n  capstan serve ./model.gguf --port 8080\n");
        return;
    }
    const cp_command_row *c = &cp_command_rows[command];
    cp_buf_printf(out, "Usage: capstan %s [OPTION]...%s%s\n\n%s.\n\nOptions:\n", c->words,
                  *c->synopsis ? " " : "", c->synopsis, c->summary);
    for (int i = 0; i < CP_OPT_COUNT; i++) {
        if (cp_opt_rows[i].commands & 1u << command)
            help_option(out, &cp_opt_rows[i]);
    }
    cp_buf_printf(out, "  %-*s%s\n", HELP_COLUMN - 2, "-h, --help", "This text");
    cp_buf_printf(out, "\nExample:\n  %s\n", c->example);
}

/* ---- manual page ---- */

/* Text for troff: a leading dot or quote and every backslash and hyphen are escaped. */
static void add_roff(cp_buf *out, const char *s)
{
    if (*s == '.' || *s == '\'')
        cp_buf_adds(out, "\\&");
    for (; *s; s++) {
        if (*s == '\\')
            cp_buf_adds(out, "\\e");
        else if (*s == '-')
            cp_buf_adds(out, "\\-");
        else
            cp_buf_addc(out, *s);
    }
}

static void manual_option(cp_buf *out, const cp_opt_row *row)
{
    char head[80];
    option_head(row, "", head, sizeof(head));
    cp_buf_adds(out, ".TP\n.B ");
    add_roff(out, head);
    cp_buf_addc(out, '\n');
    add_roff(out, row->doc);
    if (*row->range && row->type != CP_OPT_TYPE_SWITCH && row->type != CP_OPT_TYPE_ONOFF) {
        cp_buf_adds(out, " (");
        add_roff(out, row->range);
        cp_buf_addc(out, ')');
    }
    cp_buf_addc(out, '.');
    if (*row->def && row->type != CP_OPT_TYPE_SWITCH) {
        cp_buf_adds(out, " Default: ");
        add_roff(out, row->def);
        cp_buf_addc(out, '.');
    }
    cp_buf_addc(out, '\n');
}

void cp_docs_manual(cp_buf *out, const char *version)
{
    cp_buf_printf(out,
                  ".\\\" Generated from base/options.def by gen_docs; do not edit.\n"
                  ".TH CAPSTAN 1 \"\" \"capstan %s\" \"User Commands\"\n"
                  ".SH NAME\ncapstan \\- serve large language models\n.SH SYNOPSIS\n",
                  version);
    for (int c = 0; c < CP_CMD_COUNT; c++) {
        cp_buf_printf(out, "%s.B capstan %s\n.RI [ OPTION ]...\n", c ? ".br\n" : "",
                      cp_command_rows[c].words);
        if (*cp_command_rows[c].synopsis) {
            add_roff(out, cp_command_rows[c].synopsis);
            cp_buf_addc(out, '\n');
        }
    }
    cp_buf_adds(out, ".SH DESCRIPTION\n"
                     "An inference server: it maps model weights from an OCI store or a file and "
                     "serves them through OpenAI\\-compatible HTTP.\n"
                     "Each option \\-\\-a\\-b is also the environment's CAPSTAN_A_B and the key "
                     "a_b of the TOML file that \\-\\-config names.\n"
                     "A flag wins over the environment, that over the file, that over the "
                     "default.\n");
    for (int c = 0; c < CP_CMD_COUNT; c++) {
        cp_buf_adds(out, ".SH ");
        for (const char *p = cp_command_rows[c].words; *p; p++)
            cp_buf_addc(out, (char)toupper((unsigned char)*p));
        cp_buf_addc(out, '\n');
        add_roff(out, cp_command_rows[c].summary);
        cp_buf_adds(out, ".\n.PP\nExample:\n.PP\n.nf\n");
        add_roff(out, cp_command_rows[c].example);
        cp_buf_adds(out, "\n.fi\n");
        for (int i = 0; i < CP_OPT_COUNT; i++) {
            if (cp_opt_rows[i].commands & 1u << c)
                manual_option(out, &cp_opt_rows[i]);
        }
    }
    cp_buf_adds(out, ".SH EXIT STATUS\n"
                     "0 success; 1 any other error; 2 usage or configuration; 3 not found; 4 wrong "
                     "digest or size, malformed file; 5 unreachable or not authorized.\n");
}

/* ---- docs/CONFIGURATION.md ---- */

/* Table cells: a bar is escaped. */
static void add_cell(cp_buf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '|')
            cp_buf_addc(out, '\\');
        cp_buf_addc(out, *s);
    }
}

static void add_code_cell(cp_buf *out, const char *s)
{
    if (!*s)
        return;
    cp_buf_addc(out, '`');
    add_cell(out, s);
    cp_buf_addc(out, '`');
}

static const char *type_name(cp_opt_type type)
{
    static const char *const names[] = {"text",   "text", "integer",      "number",
                                        "size",   "time", "choice",       "on\\|off",
                                        "switch", "list", "list, commas", "integers"};
    return names[type];
}

static void markdown_option(cp_buf *out, const cp_opt_row *row)
{
    char flag[CP_OPT_NAME_MAX];
    cp_opt_flag_name(row, flag);
    cp_buf_printf(out, "| `%s`", flag);
    if (row->letter)
        cp_buf_printf(out, " `-%c`", row->letter);
    cp_buf_printf(out, " | %s | ", type_name(row->type));
    add_code_cell(out, row->type == CP_OPT_TYPE_SWITCH ? "" : row->def);
    cp_buf_adds(out, " | ");
    add_code_cell(out, row->range);
    cp_buf_printf(out, "%s%s | ", *row->unit && *row->range ? " " : "", row->unit);
    if (row->commands == ~0u) {
        cp_buf_adds(out, "all");
    } else {
        const char *sep = "";
        for (int c = 0; c < CP_CMD_COUNT; c++) {
            if (row->commands & 1u << c) {
                cp_buf_printf(out, "%s%s", sep, cp_command_rows[c].words);
                sep = ", ";
            }
        }
    }
    static const char *const reloads[] = {
        [CP_RELOAD_false] = "", [CP_RELOAD_true] = "yes", [CP_RELOAD_anew] = "models anew"};
    cp_buf_printf(out, " | %s | ",
                  row->commands & 1u << CP_CMD_SERVE ? reloads[row->reloadable] : "");
    add_cell(out, row->doc);
    cp_buf_adds(out, " |\n");
}

static void markdown_keys(cp_buf *out, const cp_opt_row *rows, int n)
{
    cp_buf_adds(out, "\n| key | type | range | meaning |\n|---|---|---|---|\n");
    for (int i = 0; i < n; i++) {
        cp_buf_printf(out, "| `%s` | %s | ", rows[i].name, type_name(rows[i].type));
        add_code_cell(out, rows[i].range);
        cp_buf_printf(out, "%s%s | ", *rows[i].unit ? " " : "", rows[i].unit);
        add_cell(out, rows[i].doc);
        cp_buf_adds(out, " |\n");
    }
}

static void markdown_errors(cp_buf *out)
{
    cp_buf_adds(out,
                "\n## Errors\n\nWhat clients see as `error.code` and `error.type`, and the exit "
                "code of a command that ends with it. Such a command says why in one line on "
                "stderr,\n`capstan: ...`, and prints no object on stdout, with `--json` "
                "either.\n\n"
                "| name | HTTP status | code | type | exit code |\n|---|---|---|---|---|\n");
    for (int c = CP_OK + 1; c < CP_CODE_COUNT; c++) {
        const cp_code_row *r = cp_code_info((cp_code)c);
        cp_buf_printf(out, "| %s | %d | `%s` | `%s` | %d |\n", r->name, r->http, r->slug, r->type,
                      r->exit);
    }
}

/* Rows [i, ...) of one family, as a line of the table; returns the next row. `row` gives row i, or
 * false behind the last one. */
static int markdown_family(cp_buf *out, int i, bool (*row)(int i, cp_metric_row *out),
                           const char *labels)
{
    cp_metric_row first, r;
    row(i, &first);
    if (!*first.name)
        return i + 1;
    cp_buf_printf(out, "| `%s` | %s | %s", first.name, first.type, first.per_model ? labels : "");
    bool listed = false;
    for (; row(i, &r) && strcmp(r.name, first.name) == 0; i++) {
        if (!*r.label)
            continue;
        cp_buf_adds(out, listed ? " " : first.per_model ? ", " : "");
        add_code_cell(out, r.label);
        listed = true;
    }
    cp_buf_adds(out, " | ");
    add_cell(out, first.doc);
    cp_buf_adds(out, " |\n");
    return i;
}

static bool own_row(int i, cp_metric_row *out)
{
    if (i >= CP_METRIC_COUNT)
        return false;
    *out = *cp_metric_info((cp_metric)i);
    return true;
}

static void markdown_metrics(cp_buf *out)
{
    cp_metric_row r;
    const char *head = "\n| metric | type | labels | meaning |\n|---|---|---|---|\n";
    cp_buf_adds(out, "\n## Metrics\n\nAt `/metrics`, in Prometheus text format. "
                     "`/metrics?name[]=F` (repeatable) gives the families named, `F*` those that "
                     "begin so.\n");
    cp_buf_adds(out, head);
    for (int i = 0; own_row(i, &r);)
        i = markdown_family(out, i, own_row, "`model`");
    cp_buf_adds(out,
                "\n### The names of vLLM\n\nThe same counts as vLLM calls them, with its labels "
                "and buckets, for gateways, autoscalers and dashboards that know these names.\n");
    cp_buf_adds(out, head);
    for (int i = 0; cp_metric_second(i, &r);)
        i = markdown_family(out, i, cp_metric_second, "`engine=\"0\"`, `model_name`");
}

void cp_docs_configuration(cp_buf *out)
{
    cp_buf_adds(
        out,
        "<!-- Generated from base/options.def, base/code.h and base/metrics.def by gen_docs; do "
        "not edit. -->\n# Configuration\n\n"
        "Each option `--a-b` is also the environment's `CAPSTAN_A_B` and the key `a_b` of the TOML "
        "file that `--config` names.\nA flag wins over the environment, that over the file, that "
        "over the default. An empty variable counts as unset.\nOther `CAPSTAN_` variables are "
        "ignored. So is, with one line in the log, `CAPSTAN_PORT` where Kubernetes sets it to "
        "the address of a\nService called capstan (`tcp://10.96.12.3:8080`).\n\n"
        "Sizes take `KiB`, `MiB`, `GiB`; times need `ms`, `s` or `m`; on|off is also true|false. A "
        "list is a TOML array, a comma list in the\nenvironment, and a repeated flag. A wrong name "
        "or value ends the program with exit code 2 and names the place, the value and what is "
        "allowed.\n\n"
        "One variable is no option: `CAPSTAN_CPU=base|avx2|avxvnni|avx512|vnni|bf16|amx` is the "
        "instruction level that kernels use, in place of the\nmachine's default, which "
        "`capstan version -v` names with its reason. A level that this build or machine lacks "
        "is exit code 2, with the list\nof those that are there.\n\n"
        "## Options\n\n"
        "SIGHUP reads the file again: `yes` counts from then on, `models anew` loads the models "
        "that "
        "take it anew beside those that serve, and swaps\nthem; another value of what is neither "
        "waits for a restart (docs/OPERATIONS.md, Reload).\n\n"
        "| option | type | default | range | commands | SIGHUP | meaning |\n"
        "|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < CP_OPT_COUNT; i++)
        markdown_option(out, &cp_opt_rows[i]);
    cp_buf_adds(out, "\n## models.toml\n\nThe top table takes any option. Each `[[model]]` is one "
                     "model to serve, after the REFs of the command line.\n\n"
                     "```toml\nport = 8080\nkv_bytes = \"4GiB\"\n\n[[model]]\nref = "
                     "\"ai/smollm2\"\nalias = [\"smollm2\", \"default\"]\nctx = 8192\n\n"
                     "[model.sampling]\ntemperature = 0.7\ntop_p = 0.9\n```\n\n### [[model]]\n");
    markdown_keys(out, cp_model_rows, CP_MODEL_KEY_COUNT);
    cp_buf_adds(out, "\n### [model.sampling]\n\nDefaults of requests to this model that do not say "
                     "otherwise, and of `run` with the same ref. A request wins over them, they "
                     "over\nwhat the packaging brings, that over the file's `general.sampling.*`, "
                     "that over `--sampling-defaults`, which for `run` are llama.cpp's.\n");
    markdown_keys(out, cp_sampling_rows, CP_SAMPLING_COUNT);
    markdown_errors(out);
    markdown_metrics(out);
}
