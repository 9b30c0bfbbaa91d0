/*
 * gen_api FILE: rewrites the table of fields between the markers of docs/API.md from the rows.
 * `gen_api --check FILE` writes nothing and exits 1 when the table there differs. `gen_api --json`
 * prints a line for each value of each field at each route, with what the row says to it.
 */
#include "base/code.h"
#include "base/io.h"
#include "base/map.h"
#include "server/emit.h"
#include "server/params.h"

#include <stdio.h>
#include <string.h>

static const struct {
    unsigned at;
    const char *path, *head; /* of --json, and of the table's column */
} routes[] = {
    {CP_AT_CHAT, "/v1/chat/completions", "chat"},
    {CP_AT_TEXT, "/v1/completions", "completions"},
    {CP_AT_APPLY, "/apply-template", "apply"},
    {CP_AT_COUNT, "/tokenize messages", "tokenize, messages"},
    {CP_AT_TOKENIZE, "/tokenize", "tokenize, text"},
    {CP_AT_DETOKENIZE, "/detokenize", "detokenize"},
};
enum { N_ROUTES = sizeof(routes) / sizeof(routes[0]) };

static const char *const kinds[CP_SAMPLES] = {"null", "default", "empty", "benign", "changing"};

static void origins(cp_buf *b, unsigned from)
{
    static const char letters[] = "OVLSA";
    for (int i = 0; letters[i]; i++)
        if (from & (1u << i))
            cp_buf_addc(b, letters[i]);
}

/* The values of one row; its verdict is the same at all routes where the field has a say. */
static void value_cell(cp_buf *b, const cp_field *f, cp_sample s)
{
    unsigned at = f->at & -f->at;
    const char *beside, *verdict, *value = cp_field_sample(f, at, s, &beside, &verdict);
    bool plain = strcmp(verdict, "accepted") == 0 || strcmp(verdict, "ignored") == 0;
    if (s == CP_SAMPLE_NULL && f->required)
        verdict = "missing_field", plain = false;
    if (!value) {
        cp_buf_adds(b, " |");
        return;
    }
    cp_buf_adds(b, " ");
    if (s != CP_SAMPLE_NULL)
        cp_buf_printf(b, "`%s` ", value);
    if (beside)
        cp_buf_printf(b, "with `%s` ", beside);
    cp_buf_printf(b, plain ? "%s |" : "**%s** |", verdict);
}

static void family(cp_buf *b, const char *title)
{
    cp_buf_printf(b, "\n### %s\n\n| field | of |", title);
    for (int s = 0; s < CP_SAMPLES; s++)
        cp_buf_printf(b, " %s |", kinds[s]);
    for (int i = 0; i < N_ROUTES; i++)
        cp_buf_printf(b, " %s |", routes[i].head);
    cp_buf_adds(b, "\n|");
    for (int i = 0; i < 2 + CP_SAMPLES + N_ROUTES; i++)
        cp_buf_adds(b, "---|");
    cp_buf_addc(b, '\n');
}

static void field(cp_buf *b, const cp_field *f)
{
    cp_buf_printf(b, "| `%s`", f->name);
    if (f->kind == CP_FIELD_NUM || (f->kind == CP_FIELD_INT && f->max < CP_FIELD_INT64_TOP))
        cp_buf_printf(b, " %.15g..%.15g", f->min, f->max);
    cp_buf_adds(b, " | ");
    origins(b, f->from);
    cp_buf_adds(b, " |");
    if (f->kind == CP_FIELD_TOLERATED)
        cp_buf_adds(b, " ignored | | ignored | ignored | ignored |");
    else
        for (int s = 0; s < CP_SAMPLES; s++)
            value_cell(b, f, (cp_sample)s);
    for (int i = 0; i < N_ROUTES; i++)
        cp_buf_adds(b, f->at & routes[i].at ? " x |" : " |");
    cp_buf_addc(b, '\n');
}

static void table(cp_buf *b)
{
    for (int i = 0; cp_field_at(i); i++) {
        const cp_field *f = cp_field_at(i);
        if (f->kind == CP_FIELD_FAMILY)
            family(b, f->name);
        else
            field(b, f);
    }
    cp_buf_addc(b, '\n');
}

/* A line of the sample that f has at route r; nothing where it has none. */
static void json_line(cp_buf *b, const cp_field *f, int r, cp_sample s)
{
    const char *beside, *verdict;
    const char *value = cp_field_sample(f, routes[r].at, s, &beside, &verdict);
    const char *const members[][2] = {
        {"field", f->name}, {"route", routes[r].path},        {"kind", kinds[s]},
        {"value", value},   {"beside", beside ? beside : ""}, {"verdict", verdict}};
    for (size_t i = 0; value && i < sizeof(members) / sizeof(members[0]); i++) {
        cp_buf_printf(b, "%s\"%s\":", i ? "," : "{", members[i][0]);
        cp_emit_str(b, members[i][1], strlen(members[i][1]));
    }
    cp_buf_adds(b, value ? "}\n" : "");
}

static void json(cp_buf *b)
{
    for (int i = 0; cp_field_at(i); i++) {
        const cp_field *f = cp_field_at(i);
        for (int r = 0; r < N_ROUTES && f->kind != CP_FIELD_FAMILY; r++) {
            if (!(f->at & routes[r].at) &&
                (cp_field_find(f->name, routes[r].at)->at & routes[r].at))
                continue; /* another row of the name speaks there */
            for (cp_sample s = 0; s < CP_SAMPLES; s++)
                json_line(b, f, r, s);
        }
    }
}

/* The document with the table between its markers; false: it has none. */
static bool spliced(const cp_buf *old, cp_buf *out)
{
    static const char begin[] = "<!-- fields: written by gen_api -->\n",
                      end[] = "<!-- fields end -->";
    const char *a = memmem(old->p, old->n, begin, sizeof(begin) - 1);
    const char *z = memmem(old->p, old->n, end, sizeof(end) - 1);
    if (!a || !z || z < a)
        return false;
    cp_buf_add(out, old->p, (size_t)(a - old->p) + sizeof(begin) - 1);
    table(out);
    cp_buf_add(out, z, old->n - (size_t)(z - old->p));
    return true;
}

static int put(FILE *f, const char *name, const cp_buf *b)
{
    if (f && !b->failed && fwrite(b->p, 1, b->n, f) == b->n && fflush(f) == 0)
        return 0;
    perror(name);
    return 1;
}

static int rewrite(const char *path, bool check)
{
    cp_buf old = {0}, text = {0};
    cp_err err;
    int bad = 1;
    if (cp_file_read(path, (size_t)16 << 20, &old, &err) != CP_OK)
        fprintf(stderr, "%s\n", err.msg);
    else if (!spliced(&old, &text))
        fprintf(stderr, "%s has no markers for the table of fields\n", path);
    else if (!text.failed && text.n == old.n && memcmp(text.p, old.p, old.n) == 0)
        bad = 0;
    else if (check)
        fprintf(stderr, "%s is stale: build the target `docs` and commit it\n", path);
    else {
        FILE *f = fopen(path, "w");
        bad = put(f, path, &text);
        if (f && fclose(f) != 0)
            bad = 1;
    }
    cp_buf_fini(&old);
    cp_buf_fini(&text);
    return bad;
}

int main(int argc, char **argv)
{
    bool check = argc == 3 && strcmp(argv[1], "--check") == 0;
    if (argc == 2 && strcmp(argv[1], "--json") == 0) {
        cp_buf b = {0};
        json(&b);
        int bad = put(stdout, "stdout", &b);
        cp_buf_fini(&b);
        return bad;
    }
    if (argc != 2 && !check) {
        fprintf(stderr, "usage: gen_api [--check] FILE | --json\n");
        return 2;
    }
    return rewrite(argv[argc - 1], check);
}
