/*
 * This file loads JSON text into jansson's tree. Messages to clients come from our own words, never
 * from the library's text, and carry the position. NUL characters are allowed in strings, because
 * ours have lengths. Of duplicate keys the last value counts, as it does elsewhere (RFC 8259 §4
 * leaves it open).
 */
#include "server/json.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sys/random.h>

void cp_json_setup(void)
{
    size_t seed = 0; /* jansson opens a file for one, and takes the time where it cannot */
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = 0;
    json_object_seed(seed);
}

static const char *words(enum json_error_code code)
{
    switch (code) {
    case json_error_premature_end_of_input:
        return "it ends too early";
    case json_error_end_of_input_expected:
        return "something follows its end";
    case json_error_invalid_utf8:
        return "it is not valid UTF-8";
    case json_error_numeric_overflow:
        return "a number is too large";
    case json_error_stack_overflow:
        return "it nests too deep";
    case json_error_null_byte_in_key:
        return "a key holds a NUL character";
    case json_error_out_of_memory:
        return "out of memory";
    default:
        return "syntax error";
    }
}

/* The body reserves what all of its parsing will take, so that it cannot fail half way; JSON within
 * it takes what it needs on top. */
static bool pay(const cp_json_use *use, size_t n, bool body, cp_account *a)
{
    if (!a)
        return true;
    return (!body || cp_account_begin(a, use->tree + use->vals + n)) &&
           cp_account_take(a, use->tree);
}

cp_code cp_json_load(char *p, size_t n, const char *field, const char *const *texts,
                     cp_json_left *left, cp_json *out, cp_err *err)
{
    *out = (cp_json){0};
    const char *what = field ? field : "the body", *param = field ? field : "";
    if (!field && n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0) {
        p += 3;
        n -= 3;
    }
    if (n == 0)
        return cp_fail_param(err, CP_INVALID_JSON, param, "%s is empty; a JSON object is expected",
                             what);
    cp_json_use use;
    cp_code code = cp_json_scan(p, n, field, left->values, texts, &use, err);
    if (code != CP_OK)
        return code;
    left->values -= use.values;
    if (!pay(&use, n, !field, left->account))
        return cp_fail(err, CP_NO_MEMORY, "no memory for %zu bytes of JSON", n);
    out->bytes = use.tree;
    json_error_t e;
    json_t *v = json_loadb(p, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &e);
    if (!v)
        code = cp_fail_param(err, CP_INVALID_JSON, param,
                             "%s is not valid JSON: %s at line %d, column %d (byte %d)", what,
                             words(json_error_code(&e)), e.line, e.column, e.position);
    out->root = v;
    if (v && !field && !json_is_object(v)) {
        char buf[64];
        code = cp_fail_param(err, CP_INVALID_JSON, param, "%s is %s; a JSON object is expected",
                             what, cp_json_say(v, buf, sizeof(buf)));
    }
    if (code != CP_OK)
        cp_json_free(out, left);
    return code;
}

void cp_json_free(cp_json *j, cp_json_left *left)
{
    json_decref(j->root);
    if (left->account)
        cp_account_give(left->account, j->bytes);
    *j = (cp_json){0};
}

bool cp_json_is(const struct json_t *v, const char *word)
{
    size_t n = strlen(word);
    return json_is_string(v) && json_string_length(v) == n &&
           memcmp(json_string_value(v), word, n) == 0;
}

const char *cp_json_say(const struct json_t *v, char *buf, size_t cap)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        cp_snprintf(buf, cap, "an object");
        break;
    case JSON_ARRAY:
        cp_snprintf(buf, cap, "a list of %zu", json_array_size(v));
        break;
    case JSON_STRING:
        cp_snprintf(buf, cap, "a string of %zu bytes", json_string_length(v));
        break;
    case JSON_INTEGER:
        cp_snprintf(buf, cap, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL:
        if (fabs(json_real_value(v)) >= 1e308) /* the scan's word for what is beyond it */
            cp_snprintf(buf, cap, "a number beyond 1e308");
        else
            cp_snprintf(buf, cap, "%.17g", json_real_value(v));
        break;
    case JSON_TRUE:
        cp_snprintf(buf, cap, "true");
        break;
    case JSON_FALSE:
        cp_snprintf(buf, cap, "false");
        break;
    default:
        cp_snprintf(buf, cap, "null");
    }
    return buf;
}
