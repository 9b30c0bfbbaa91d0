// deps: base
/*
 * Fuzz target: the TOML parser. Whatever the bytes, it ends with a tree that can be walked or an
 * error with a place.
 */
#include "base/code.h"
#include "base/toml.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Depth is limited by the parser: recursion is safe. Returns the bytes of all strings, to touch
 * each. */
static size_t walk(const cp_toml_value *v, int depth)
{
    size_t n = 0;
    CP_ASSERT(depth < 1000 && v->line >= 1 && v->column >= 1);
    if (v->type == CP_TOML_STRING)
        return strlen(v->v.s);
    if (v->type == CP_TOML_ARRAY) {
        for (const cp_toml_value *e = v->v.array.first; e; e = e->next)
            n += walk(e, depth + 1);
    } else if (v->type == CP_TOML_TABLE) {
        for (const cp_toml_entry *e = v->v.table.first; e; e = e->next) {
            CP_ASSERT(e->line >= 1 && e->column >= 1);
            n += strlen(e->key) + walk(e->value, depth + 1);
        }
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cp_toml *t = NULL;
    cp_err err;
    cp_code code = cp_toml_parse(&t, "fuzz", (const char *)data, size, &err);
    if (code == CP_OK)
        walk(cp_toml_root(t), 0);
    else
        CP_ASSERT(err.code == code && strncmp(err.msg, "fuzz:", 5) == 0);
    cp_toml_free(t);
    return 0;
}
