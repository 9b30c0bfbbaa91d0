/*
 * toml: a parsed TOML 1.0 document is a read-only tree in which every key and value knows its line
 * and column.
 *
 * Whoever opened the tree owns it; it lives in one arena until cp_toml_free(), and its strings are
 * NUL-terminated UTF-8 without inner NULs. It does not change after parsing, so any thread may read
 * it. Dates, times and U+0000 in strings are refused with a message. The limits are 1 MiB of text,
 * 65,536 values, 1,024 keys a table, and depth 32 of nesting and dotted keys. The text "[a]\nb = 1"
 * is a table `a`, whose key `b` stands at line 2, column 1.
 */
#ifndef CP_BASE_TOML_H
#define CP_BASE_TOML_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cp_toml_type {
    CP_TOML_STRING,
    CP_TOML_INT,
    CP_TOML_FLOAT,
    CP_TOML_BOOL,
    CP_TOML_ARRAY,
    CP_TOML_TABLE
} cp_toml_type;

typedef struct cp_toml_value cp_toml_value;
typedef struct cp_toml_entry cp_toml_entry;

struct cp_toml_value {
    cp_toml_type type;
    int line, column; /* of its first character, from 1; columns count characters */
    union {
        const char *s;
        int64_t i;
        double f;
        bool b;
        struct {
            cp_toml_value *first; /* elements, chained by next */
            int n;
        } array;
        struct {
            cp_toml_entry *first; /* in file order */
            int n;
        } table;
    } v;
    cp_toml_value *next; /* in an array */
};

struct cp_toml_entry {
    const char *key;
    int line, column; /* of the key */
    cp_toml_value *value;
    cp_toml_entry *next;
};

typedef struct cp_toml cp_toml;
/* Parse n bytes. `name` stands in messages: "NAME:LINE:COLUMN: ..."; CP_USAGE on any error. */
cp_code cp_toml_parse(cp_toml **out, const char *name, const char *text, size_t n, cp_err *err);
void cp_toml_free(cp_toml *t);
const cp_toml_value *cp_toml_root(const cp_toml *t); /* a table; never NULL */
/* The entry of a key in a table; NULL when absent or `table` is not a table. */
const cp_toml_entry *cp_toml_find(const cp_toml_value *table, const char *key);
/* "string", "integer", ... for messages. */
const char *cp_toml_type_name(cp_toml_type type);

#endif
