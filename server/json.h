/*
 * json: turns text from outside into jansson's tree, which is bounded and paid for before the
 * library sees the text.
 *
 * A cp_json_left goes with one request through all of its parsing. Whoever loads a tree frees it.
 * Any thread may call these functions.
 */
#ifndef CP_SERVER_JSON_H
#define CP_SERVER_JSON_H

#include "base/budget.h"
#include "base/code.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CP_JSON_DEPTH = 512,
    CP_JSON_VALUES = 262144, /* a request, JSON within its strings included */
};

struct json_t;
/* What a text holds, and upper bounds of the memory that it becomes: the library's tree, and values
 * of chat made from that. */
typedef struct cp_json_use {
    int64_t values;    /* keys are none */
    size_t tree, vals; /* bytes */
} cp_json_use;
/* One pass over the text before the library sees it: nesting and number of values are bounded, so
 * that its memory is, too, and what it would not take of valid JSON is spelled anew in place (see
 * scan.c). field names the text in messages; NULL: the request's body. texts: top-level fields
 * whose text is used, up to a NULL; half a surrogate pair in one of them is refused by name, one
 * elsewhere becomes U+FFFD. CP_INVALID_VALUE. */
cp_code cp_json_scan(char *p, size_t n, const char *field, int64_t max_values,
                     const char *const *texts, cp_json_use *use, cp_err *err);
/* What one request may still parse, carried through all of it. */
typedef struct cp_json_left {
    int64_t values;
    cp_account *account; /* pays for trees; may be NULL */
} cp_json_left;
typedef struct cp_json {
    struct json_t *root;
    size_t bytes; /* taken from the account */
} cp_json;
/* Scan, pay for and parse; p is changed. The body (field NULL) is an object, a byte-order mark
 * before it is skipped. CP_INVALID_JSON with the position, CP_INVALID_VALUE above the request's
 * values and depth, CP_NO_MEMORY when the account cannot pay. */
cp_code cp_json_load(char *p, size_t n, const char *field, const char *const *texts,
                     cp_json_left *left, cp_json *out, cp_err *err);
void cp_json_free(cp_json *j, cp_json_left *left);
/* Once a process, before threads parse. */
void cp_json_setup(void);
/* v (NULL: nothing) is this string, and not one that goes on behind a NUL. */
bool cp_json_is(const struct json_t *v, const char *word);
/* "a string", "an object" ... or the number itself; for messages. */
const char *cp_json_say(const struct json_t *v, char *buf, size_t cap);

#endif
