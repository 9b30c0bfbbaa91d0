/*
 * This file holds the rows of fields.def as data, looks them up by name and route, and tells what
 * each row says to the values that docs/API.md shows and the tests send.
 *
 * The verdict is told from the row alone, so that the tests hold the parser to it.
 */
#include "server/fields.h"

#include "base/sampling.h"
#include "engine/engine.h"
#include "server/params.h"

#include <string.h>

enum {
    O = CP_OF_OPENAI,
    V = CP_OF_VLLM,
    L = CP_OF_LLAMA,
    S = CP_OF_SGLANG,
    A = CP_OF_AGENTS,
    CHAT = CP_AT_CHAT,
    TEXT = CP_AT_TEXT,
    APPLY = CP_AT_APPLY,
    COUNT = CP_AT_COUNT,
    TOK = CP_AT_TOKENIZE,
    DETOK = CP_AT_DETOKENIZE,
    NONE = 0,
    GEN = CHAT | TEXT,
    TPL = CHAT | APPLY | COUNT,
    PROMPT = TPL | TEXT,
    ANY = PROMPT | TOK | DETOK,
};

#define INT_TOP   2147483647.0
#define INT64_TOP CP_FIELD_INT64_TOP

#define AT(field) offsetof(cp_params, field)
#define NUM(...)  NUM_(__VA_ARGS__) /* a range may be a CP_RANGE_x */
#define NUM_(lo, hi, field)                                                                        \
    CP_FIELD_NUM, .min = (lo), .max = (hi), .to = AT(field), .empty = "!\"\""
#define INT(...) INT_(__VA_ARGS__)
#define INT_(lo, hi, field)                                                                        \
    CP_FIELD_INT, .min = (lo), .max = (hi), .to = AT(field), .empty = "!\"\""
#define BOOL_true          .dflt = "true", .change = "false"
#define BOOL_false         .dflt = "false", .change = "true"
#define BOOL(field, value) CP_FIELD_BOOL, .to = AT(field), .empty = "!\"\"", BOOL_##value
#define HAND               CP_FIELD_HAND
#define REFUSED(idle, usual, use)                                                                  \
    CP_FIELD_REFUSED, .no_use = (idle), .dflt = (usual), .empty = "[]", .change = (use)
#define TOLERATED                                                                                  \
    CP_FIELD_TOLERATED, .empty = "{}", .good = "\"x\"", .change = "{\"a\":[\"b\",1.5]}"

static const cp_field fields[] = {
#define CP_FAMILY(title)               {.name = (title), .kind = CP_FIELD_FAMILY},
#define CP_FIELD(field, from, at, ...) {(field), (from), (at), __VA_ARGS__},
#include "server/fields.def"
};
const cp_field_table cp_fields_openai = {fields, sizeof(fields) / sizeof(fields[0])};

static bool named(const cp_field *f, const char *name)
{
    if (f->kind == CP_FIELD_FAMILY || f->name[0] != name[0])
        return false; /* most rows end here: a body may have 262,144 keys */
    size_t n = strlen(f->name);
    return f->name[n - 1] == '*' ? strncmp(f->name, name, n - 1) == 0 : strcmp(f->name, name) == 0;
}

const cp_field *cp_field_find(const cp_field_table *t, const char *name, unsigned at)
{
    const cp_field *other = NULL;
    for (int i = 0; i < t->n; i++) {
        if (!named(&t->row[i], name))
            continue;
        if (t->row[i].at & at)
            return &t->row[i];
        other = &t->row[i];
    }
    return other;
}

const char *cp_field_sample(const cp_field *f, unsigned at, cp_sample which, const char **beside,
                            const char **verdict)
{
    const char *const samples[CP_SAMPLES] = {"null", f->dflt, f->empty, f->good, f->change};
    const char *value = samples[which];
    bool bad = value && value[0] == '!', says = f->at & at;
    if (bad)
        value++;
    *beside = says && which == CP_SAMPLE_CHANGING ? f->beside : NULL;
    if (!says || f->kind == CP_FIELD_TOLERATED)
        *verdict = "ignored";
    else if (which == CP_SAMPLE_NULL)
        *verdict = f->required & at ? "missing_field" : "ignored";
    else if (f->kind == CP_FIELD_REFUSED)
        *verdict = which == CP_SAMPLE_CHANGING ? "unsupported_field" : "ignored";
    else if (bad)
        *verdict = f->code && which == CP_SAMPLE_CHANGING ? f->code : "invalid_value";
    else
        *verdict = "accepted";
    return value;
}
