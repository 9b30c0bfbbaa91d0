/*
 * The structural pre-scan of JSON: no grammar, only brackets, strings and separators. It counts
 * values, how deep the library would recurse, and what the trees made of the text would take, at
 * about a byte a cycle, and leaves every other error to the real parser, which stops at the first
 * one. A key is no value: it is counted as a string and taken back at its ':'.
 *
 * The costs are those of jansson 2.14 and of chat's values on 64 bits, malloc's rounding included,
 * and each is an upper bound (test_params weighs both with an allocator that counts):
 *   object  80 and 8 buckets of 16       value 48, dict 64, 4 entries of 24
 *   member  pair of 57 and its key       key 48 and its bytes
 *   past 8  buckets double: 3 x 16       past 4: entries and index double, nothing is freed
 *   array   48 and 8 pointers            value 48, list 32, 4 pointers
 *   item    8, doubling                  8, doubling, nothing is freed
 *   string  48, and its bytes and 32     48, and its bytes and 16
 */
#include "server/params.h"

enum {
    TREE_OBJECT = 224,
    TREE_MEMBER = 80,
    TREE_MORE = 48, /* a member of an object that has more than TREE_FEW */
    TREE_FEW = 8,
    TREE_ARRAY = 128,
    TREE_ITEM = 24,
    TREE_SCALAR = 80,
    VALS_OBJECT = 208,
    VALS_MEMBER = 64,
    VALS_MORE = 160,
    VALS_FEW = 4,
    VALS_ARRAY = 112,
    VALS_ITEM = 32,
    VALS_SCALAR = 64,
    TREE_FIXED = 4096
};

typedef struct scan {
    cp_json_use *use;
    size_t depth, longest;
    uint32_t members[CP_JSON_DEPTH + 1]; /* of the object open at each depth */
} scan;

static void add_value(scan *s, size_t tree, size_t vals)
{
    s->use->values++;
    s->use->tree += tree + TREE_ITEM;
    s->use->vals += vals + VALS_ITEM;
}

/* The string before this ':' was a key, and what follows is a member, not an item. */
static void add_member(scan *s)
{
    cp_json_use *u = s->use;
    uint32_t n = ++s->members[s->depth];
    u->values -= u->values > 0;
    u->tree += TREE_MEMBER;
    u->vals += VALS_MEMBER;
    if (n > TREE_FEW)
        u->tree += n == TREE_FEW + 1 ? (TREE_FEW + 1) * TREE_MORE : TREE_MORE;
    if (n > VALS_FEW)
        u->vals += n == VALS_FEW + 1 ? (VALS_FEW + 1) * VALS_MORE : VALS_MORE;
    u->tree -= u->tree >= TREE_SCALAR + 2 * TREE_ITEM ? TREE_SCALAR + 2 * TREE_ITEM : 0;
    u->vals -= u->vals >= VALS_SCALAR + 2 * VALS_ITEM ? VALS_SCALAR + 2 * VALS_ITEM : 0;
}

static size_t string_end(const char *p, size_t n, size_t i)
{
    while (i < n && p[i] != '"')
        i += p[i] == '\\' ? 2 : 1;
    return i < n ? i : n;
}

static bool is_scalar(char ch)
{
    return ch > ' ' && ch != '"' && ch != ',' && ch != ':' && ch != '[' && ch != ']' && ch != '{' &&
           ch != '}';
}

cp_code cp_json_scan(const char *p, size_t n, const char *field, int64_t max_values,
                     cp_json_use *use, cp_err *err)
{
    const char *what = field ? field : "the body";
    *use = (cp_json_use){.tree = TREE_FIXED};
    scan s = {.use = use};
    for (size_t i = 0; i < n; i++) {
        switch (p[i]) {
        case '"': {
            size_t end = string_end(p, n, i + 1);
            if (end - i > s.longest)
                s.longest = end - i;
            i = end;
            add_value(&s, TREE_SCALAR, VALS_SCALAR);
            break;
        }
        case '[':
        case '{':
            if (++s.depth > CP_JSON_DEPTH)
                return cp_fail_param(err, CP_INVALID_JSON, field ? field : "",
                                     "%s nests deeper than %d levels at byte %zu", what,
                                     CP_JSON_DEPTH, i);
            s.members[s.depth] = 0;
            if (p[i] == '[')
                add_value(&s, TREE_ARRAY, VALS_ARRAY);
            else
                add_value(&s, TREE_OBJECT, VALS_OBJECT);
            break;
        case ']':
        case '}':
            s.depth -= s.depth > 0;
            break;
        case ':':
            add_member(&s);
            break;
        default:
            if (!is_scalar(p[i]))
                break;
            while (i + 1 < n && is_scalar(p[i + 1]))
                i++;
            add_value(&s, TREE_SCALAR, VALS_SCALAR);
        }
        if (use->values > max_values + 1) /* the last one may still turn out to be a key */
            break;
    }
    if (use->values > max_values)
        return cp_fail_param(err, CP_INVALID_VALUE, field ? field : "",
                             "the request has more than %d JSON values, those in documents within "
                             "strings included (the last one is in %s)",
                             CP_JSON_VALUES, field ? field : "the body itself");
    /* Texts; the lexer's copy of one of them doubles while it grows. Large blocks are whole pages.
     */
    use->tree += n + n / 16 + 3 * s.longest;
    use->vals += n + n / 16;
    return CP_OK;
}
