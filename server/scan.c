/*
 * The structural pre-scan of JSON knows no grammar, only brackets, strings and separators. It
 * counts values, how deep the library would recurse, and what the trees made of the text would
 * take, at about a byte a cycle, and leaves every other error to the real parser, which stops at
 * the first one. A key is no value: it is counted as a string and taken back at its ':', so that
 * {"a":[1]} has three values.
 *
 * What RFC 8259 allows and the library does not take is spelled anew in place, at the same length,
 * so that the parser's positions stay true: integers beyond 64 bits lose their last two digits to
 * an exponent, numbers beyond 1e308 become that, halves of surrogate pairs U+FFFD, and so does
 * NUL in a key. A field of ours that holds such a number is out of its range; one that takes text
 * and holds half a pair is refused here, by its name.
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
#include "server/json.h"

#include <string.h>

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

typedef struct name {
    const char *p;
    size_t n;
} name;

typedef struct scan {
    cp_json_use *use;
    size_t depth, longest;
    name top, sub, part;                 /* the keys open at depths 1, 3 and 5 */
    size_t item;                         /* commas so far at depth 2: an index where it is a list */
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

/* The closing quote, n where there is none; *escaped: there is a \u on the way. */
static size_t string_end(const char *p, size_t n, size_t i, bool *escaped)
{
    for (; i < n && p[i] != '"'; i++)
        if (p[i] == '\\' && ++i < n && p[i] == 'u')
            *escaped = true;
    return i < n ? i : n;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The four hexadecimal digits at p, or -1. */
static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int c = p[i], low = c | 0x20;
        if (!is_digit(p[i]) && (low < 'a' || low > 'f'))
            return -1;
        v = v * 16 + (is_digit(p[i]) ? c - '0' : low - 'a' + 10);
    }
    return v;
}

/* Code unit of the escape at p[i], or -1. */
static int unit_at(const char *p, size_t i, size_t end)
{
    return i + 6 <= end && p[i] == '\\' && p[i + 1] == 'u' ? hex4(p + i + 2) : -1;
}

/* Escapes that stand for no character, in the string p[i, end), become U+FFFD. Returns where the
 * first half of a pair was, or end. */
static size_t fix_escapes(char *p, size_t i, size_t end, bool key)
{
    size_t lone = end;
    while (i < end) {
        int unit = unit_at(p, i, end);
        if (unit < 0) {
            i += p[i] == '\\' ? 2 : 1;
            continue;
        }
        bool high = unit >= 0xD800 && unit < 0xDC00, low = unit >= 0xDC00 && unit < 0xE000;
        int next = high ? unit_at(p, i + 6, end) : -1;
        if (next >= 0xDC00 && next < 0xE000) {
            i += 12;
            continue;
        }
        if ((high || low) && lone == end)
            lone = i;
        if (high || low || (key && unit == 0))
            memcpy(p + i + 2, "fffd", 4);
        i += 6;
    }
    return lone;
}

/* More than a 64-bit integer holds; p[n] digits, the first one not 0 but in "0". */
static bool too_wide(const char *p, size_t n, bool negative)
{
    const char *most = negative ? "9223372036854775808" : "9223372036854775807";
    return n > 19 || (n == 19 && memcmp(p, most, 19) > 0);
}

static size_t digits(const char *p, size_t n, size_t i)
{
    size_t from = i;
    while (i < n && is_digit(p[i]))
        i++;
    return i - from;
}

/* A whole number token by the grammar of RFC 8259; what is not one is the parser's to refuse. */
static void fix_number(char *p, size_t n)
{
    size_t sign = p[0] == '-', i = sign, whole = digits(p, n, i);
    if (whole == 0 || (whole > 1 && p[i] == '0'))
        return;
    /* The value is 0.d... x 10^power, its first digit d above 0. */
    bool zero = p[i] == '0', real = false;
    int64_t power = zero ? 0 : (int64_t)whole, exponent = 0;
    i += whole;
    if (i < n && p[i] == '.') {
        size_t m = digits(p, n, ++i), zeros = 0;
        while (zero && zeros < m && p[i + zeros] == '0')
            zeros++;
        if (m == 0)
            return;
        power -= (int64_t)zeros;
        zero = zero && zeros == m;
        real = true;
        i += m;
    }
    if (i < n && (p[i] | 0x20) == 'e') {
        bool down = ++i < n && p[i] == '-';
        i += i < n && (p[i] == '-' || p[i] == '+');
        size_t m = digits(p, n, i);
        if (m == 0)
            return;
        for (size_t k = 0; k < m && exponent < INT32_MAX; k++)
            exponent = exponent * 10 + (p[i + k] - '0');
        power += down ? -exponent : exponent;
        real = true;
        i += m;
    }
    if (i != n || zero)
        return;
    if (power >= 309) {
        memset(p + sign, ' ', n - sign);
        memcpy(p + sign, "1e308", 5);
    } else if (!real && too_wide(p + sign, whole, sign)) {
        memcpy(p + n - 2, "e2", 2);
    }
}

static bool is_scalar(char ch)
{
    return ch > ' ' && ch != '"' && ch != ',' && ch != ':' && ch != '[' && ch != ']' && ch != '{' &&
           ch != '}';
}

/* A key and a word of ASCII; characters of the key may be spelled \uXXXX. */
static bool is(name key, const char *word)
{
    size_t i = 0;
    for (; i < key.n && *word; word++) {
        int unit = unit_at(key.p, i, key.n);
        if ((unit < 0 ? key.p[i] : unit) != *word)
            return false;
        i += unit < 0 ? 1 : 6;
    }
    return i == key.n && !*word;
}

/* Of messages the role is text, the content, each string of its list and the text of each part. */
static const char *text_of_message(const scan *s)
{
    if (is(s->sub, "role"))
        return "role";
    bool part = s->depth == 5 && (is(s->part, "text") || is(s->part, "refusal"));
    return is(s->sub, "content") && (s->depth < 5 || part) ? "content" : NULL;
}

/* The name of the field of ours whose text stands here, "" where it is none. */
static void text_field(const scan *s, const char *const *texts, char *out, size_t cap)
{
    *out = '\0';
    while (texts && *texts && !is(s->top, *texts))
        texts++;
    if (!texts || !*texts)
        return;
    bool messages = strcmp(*texts, "messages") == 0;
    const char *sub = messages ? text_of_message(s) : NULL;
    if (sub)
        cp_snprintf(out, cap, "messages[%zu].%s", s->item, sub);
    else if (!messages)
        cp_snprintf(out, cap, "%s", *texts);
}

static cp_code half_a_pair(const char *param, size_t at, cp_err *err)
{
    return cp_fail_param(err, CP_INVALID_VALUE, param,
                         "'%s' has half of a surrogate pair at byte %zu, which is no character; "
                         "send whole characters",
                         param, at);
}

/* The string whose quotes are at p[i] and p[end]. A key is remembered at its depth. */
static cp_code on_string(scan *s, char *p, size_t n, size_t i, size_t end, bool escaped,
                         const char *const *texts, cp_err *err)
{
    if (end - i > s->longest)
        s->longest = end - i;
    add_value(s, TREE_SCALAR, VALS_SCALAR);
    if (!escaped && s->depth != 1 && s->depth != 3 && s->depth != 5)
        return CP_OK;
    size_t after = end + (end < n);
    while (after < n && (p[after] == ' ' || (p[after] >= '\t' && p[after] <= '\r')))
        after++;
    bool key = after < n && p[after] == ':';
    if (escaped) {
        size_t lone = fix_escapes(p, i + 1, end, key);
        char param[64] = "";
        if (lone < end && !key)
            text_field(s, texts, param, sizeof(param));
        if (*param)
            return half_a_pair(param, lone, err);
    }
    if (key && s->depth == 1) {
        s->top = (name){p + i + 1, end - i - 1};
        s->sub = (name){0};
        s->item = 0;
    } else if (key && (s->depth == 3 || s->depth == 5)) {
        *(s->depth == 3 ? &s->sub : &s->part) = (name){p + i + 1, end - i - 1};
    }
    return CP_OK;
}

static cp_code too_deep(const scan *s, const char *field, size_t at, cp_err *err)
{
    char top[64];
    cp_snprintf(top, sizeof(top), "%.*s", (int)(s->top.n < 63 ? s->top.n : 63),
                s->top.p ? s->top.p : "");
    const char *param = field ? field : top;
    return cp_fail_param(err, CP_INVALID_VALUE, param, "%s nests deeper than %d levels at byte %zu",
                         *param ? param : "the body", CP_JSON_DEPTH, at);
}

cp_code cp_json_scan(char *p, size_t n, const char *field, int64_t max_values,
                     const char *const *texts, cp_json_use *use, cp_err *err)
{
    *use = (cp_json_use){.tree = TREE_FIXED};
    scan s = {.use = use};
    for (size_t i = 0; i < n; i++) {
        switch (p[i]) {
        case '"': {
            bool escaped = false;
            size_t end = string_end(p, n, i + 1, &escaped);
            cp_code code = on_string(&s, p, n, i, end, escaped, texts, err);
            if (code != CP_OK)
                return code;
            i = end;
            break;
        }
        case '[':
        case '{':
            if (++s.depth > CP_JSON_DEPTH)
                return too_deep(&s, field, i, err);
            s.members[s.depth] = 0;
            if (s.depth == 3)
                s.sub = (name){0};
            if (s.depth == 5)
                s.part = (name){0};
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
        default: {
            if (p[i] == ',' && s.depth == 2)
                s.item++;
            if (!is_scalar(p[i]))
                break;
            size_t from = i;
            while (i + 1 < n && is_scalar(p[i + 1]))
                i++;
            if (p[from] == '-' || is_digit(p[from]))
                fix_number(p + from, i + 1 - from);
            add_value(&s, TREE_SCALAR, VALS_SCALAR);
        }
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
