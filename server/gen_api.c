/*
 * gen_api FILE: rewrites the table of fields between the markers of docs/API.md from the rows.
 * `gen_api --check FILE` writes nothing and exits 1 when the table there differs. `gen_api --json`
 * prints a line for each value of each field at each route, with what the row says to it.
 */
#include "base/code.h"
#include "base/map.h"
#include "base/region.h"
#include "server/emit.h"
#include "server/routes.h"

#include <stdio.h>
#include <string.h>

/* The APIs of the routes, in their order, with the one that some bodies make of another in front.
 */
typedef struct column {
    const cp_api *api;
    const char *path, *more; /* of --json */
    bool admin;              /* its tests are its own: what it takes changes the server */
} column;
enum { COLUMNS_MAX = 64 };

static int columns(column out[COLUMNS_MAX])
{
    int n = 0;
    const cp_route *r;
    for (size_t i = 0; (r = cp_route_at(i)); i++) {
        CP_ASSERT(n + 2 <= COLUMNS_MAX);
        if (r->api && r->api->other)
            out[n++] = (column){r->api->other, r->path, r->api->other_if, false};
        if (r->api)
            out[n++] = (column){r->api, r->path, NULL, r->scope == CP_SCOPE_ADMIN};
    }
    return n;
}

static const char *const kinds[CP_SAMPLES] = {"null", "default", "empty", "benign", "changing"};

static void origins(cp_buf *b, unsigned from)
{
    static const char letters[] = "OVLSAK";
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

static void family(cp_buf *b, const char *title, const column *col, int n)
{
    cp_buf_printf(b, "\n### %s\n\n| field | of |", title);
    for (int s = 0; s < CP_SAMPLES; s++)
        cp_buf_printf(b, " %s |", kinds[s]);
    for (int i = 0; i < n; i++)
        cp_buf_printf(b, " %s |", col[i].api->name);
    cp_buf_adds(b, "\n|");
    for (int i = 0; i < 2 + CP_SAMPLES + n; i++)
        cp_buf_adds(b, "---|");
    cp_buf_addc(b, '\n');
}

static void field(cp_buf *b, const cp_field *f, const column *col, int n)
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
    for (int i = 0; i < n; i++)
        cp_buf_adds(b, f->at & col[i].api->at ? " x |" : " |");
    cp_buf_addc(b, '\n');
}

/* Of the columns from `from` on those with the table of the first, moved together; their number. */
static int same_table(column *col, int from, int n)
{
    int k = from;
    for (int i = from; i < n; i++) {
        column c = col[i];
        if (c.api->fields != col[from].api->fields)
            continue;
        memmove(&col[k + 1], &col[k], (size_t)(i - k) * sizeof(*col));
        col[k++] = c;
    }
    return k - from;
}

/* A table of fields after the other, each with the APIs that read it. */
static void tables(cp_buf *b)
{
    column col[COLUMNS_MAX];
    int n = columns(col);
    for (int from = 0, k; from < n; from += k) {
        const cp_field_table *t = col[from].api->fields;
        k = same_table(col, from, n);
        for (int i = 0; i < t->n; i++)
            if (t->row[i].kind == CP_FIELD_FAMILY)
                family(b, t->row[i].name, col + from, k);
            else
                field(b, &t->row[i], col + from, k);
    }
    cp_buf_addc(b, '\n');
}

/* A line of the sample that f has in a column; nothing where it has none. */
static void json_line(cp_buf *b, const cp_field *f, const column *col, cp_sample s)
{
    const char *beside, *verdict;
    const char *value = cp_field_sample(f, col->api->at, s, &beside, &verdict);
    char route[128];
    cp_snprintf(route, sizeof(route), "%s%s%s", col->path, col->more ? " " : "",
                col->more ? col->more : "");
    const char *const members[][2] = {{"field", f->name},
                                      {"route", route},
                                      {"kind", kinds[s]},
                                      {"value", value},
                                      {"beside", beside ? beside : ""},
                                      {"verdict", verdict}};
    for (size_t i = 0; value && i < sizeof(members) / sizeof(members[0]); i++) {
        cp_buf_printf(b, "%s\"%s\":", i ? "," : "{", members[i][0]);
        cp_emit_str(b, members[i][1], strlen(members[i][1]));
    }
    cp_buf_adds(b, value ? "}\n" : "");
}

static void json(cp_buf *b)
{
    column col[COLUMNS_MAX];
    int n = columns(col);
    for (int c = 0; c < n; c++) {
        const cp_field_table *t = col[c].api->fields;
        unsigned at = col[c].api->at;
        for (int i = 0; i < t->n && !col[c].admin; i++) {
            const cp_field *f = &t->row[i];
            /* where another row of the name speaks, this one does not */
            if (f->kind == CP_FIELD_FAMILY ||
                (!(f->at & at) && (cp_field_find(t, f->name, at)->at & at)))
                continue;
            for (cp_sample s = 0; s < CP_SAMPLES; s++)
                json_line(b, f, &col[c], s);
        }
    }
}

static int put(FILE *f, const char *name, const cp_buf *b)
{
    if (f && !b->failed && fwrite(b->p, 1, b->n, f) == b->n && fflush(f) == 0)
        return 0;
    perror(name);
    return 1;
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
    cp_buf b = {0};
    tables(&b);
    int bad = cp_region_write(argv[argc - 1], "fields", "gen_api", &b, check);
    cp_buf_fini(&b);
    return bad;
}
