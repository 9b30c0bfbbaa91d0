/*
 * This file makes tables of options.def and reads typed values: strict decimal integers, finite
 * numbers, sizes with KiB MiB GiB, times with ms s m, on|off, choices, lists. A range is the row's
 * own text and is read by the same code: "1KiB..4MiB" lets 65536 and 64KiB in.
 */
#include "base/options_rows.h"

#include "base/sampling.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum {
#define CP_COMMAND(id, ...) id = 1u << CP_CMD_##id,
#include "base/options.def"
};

const cp_command_row cp_command_rows[CP_CMD_COUNT] = {
#define CP_COMMAND(id, words, synopsis, args_min, args_max, summary, example)                      \
    {words, synopsis, args_min, args_max, summary, example},
#include "base/options.def"
};

const cp_opt_row cp_opt_rows[CP_OPT_COUNT] = {
#define CP_OPTION(name, letter, type, def, range, unit, metavar, reloadable, commands, required,   \
                  doc)                                                                             \
    {#name,                                                                                        \
     letter,                                                                                       \
     CP_OPT_TYPE_##type,                                                                           \
     def,                                                                                          \
     range,                                                                                        \
     unit,                                                                                         \
     metavar,                                                                                      \
     CP_RELOAD_##reloadable,                                                                       \
     commands,                                                                                     \
     required,                                                                                     \
     doc,                                                                                          \
     offsetof(cp_options, name)},
#include "base/options.def"
};

const cp_opt_row cp_model_rows[CP_MODEL_KEY_COUNT] = {
#define CP_MODEL_KEY(name, type, range, unit, doc)                                                 \
    {#name, 0,     CP_OPT_TYPE_##type,                                                             \
     "",    range, unit,                                                                           \
     "",    0,     0,                                                                              \
     0,     doc,   offsetof(cp_model_options, name)},
#include "base/options.def"
};

const cp_opt_row cp_sampling_rows[CP_SAMPLING_COUNT] = {
#define CP_SAMPLING_KEY(name, type, range, unit, doc)                                              \
    {#name, 0,     CP_OPT_TYPE_##type,                                                             \
     "",    range, unit,                                                                           \
     "",    0,     0,                                                                              \
     0,     doc,   offsetof(cp_sampling_options, name)},
#include "base/options.def"
};

void cp_opt_flag_name(const cp_opt_row *row, char out[CP_OPT_NAME_MAX])
{
    cp_snprintf(out, CP_OPT_NAME_MAX, "--%s", row->name);
    for (char *p = out; *p; p++)
        *p = *p == '_' ? '-' : *p;
}

void cp_opt_env_name(const cp_opt_row *row, char out[CP_OPT_NAME_MAX])
{
    cp_snprintf(out, CP_OPT_NAME_MAX, "CAPSTAN_%s", row->name);
    for (char *p = out; *p; p++)
        *p = *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
}

bool cp_opt_is_list(cp_opt_type type)
{
    return type == CP_OPT_TYPE_LIST || type == CP_OPT_TYPE_CSV || type == CP_OPT_TYPE_INTS;
}

/* ---- scalars ---- */

/* Digits with an optional minus, all of text[0..n). */
static bool read_int(const char *text, size_t n, int64_t *out)
{
    char digits[24];
    if (n == 0 || n >= sizeof(digits))
        return false;
    memcpy(digits, text, n);
    digits[n] = '\0';
    const char *d = digits + (digits[0] == '-');
    if (!*d || strspn(d, "0123456789") != strlen(d))
        return false;
    errno = 0;
    long long v = strtoll(digits, NULL, 10);
    *out = v;
    return errno == 0;
}

typedef struct suffix {
    const char *text;
    int64_t scale;
} suffix;

/* A non-negative integer with one of the suffixes; a bare number only where suffix "" is listed. 0
 * needs none. */
static bool read_scaled(const char *text, size_t n, const suffix *list, int64_t *out)
{
    size_t digits = 0;
    while (digits < n && text[digits] >= '0' && text[digits] <= '9')
        digits++;
    int64_t v;
    if (!read_int(text, digits, &v))
        return false;
    if (v == 0 && digits == n) {
        *out = 0;
        return true;
    }
    for (const suffix *s = list; s->text; s++) {
        if (strlen(s->text) == n - digits && memcmp(s->text, text + digits, n - digits) == 0)
            return !__builtin_mul_overflow(v, s->scale, out);
    }
    return false;
}

static const suffix size_suffixes[] = {
    {"", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {NULL, 0}};
static const suffix time_suffixes[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {NULL, 0}};

static bool read_float(const char *text, size_t n, double *out)
{
    char copy[64], *end;
    if (n == 0 || n >= sizeof(copy))
        return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    if (strspn(copy, "0123456789+-.eE") != n)
        return false;
    *out = strtod(copy, &end);
    return *end == '\0' && isfinite(*out);
}

/* Integer, size or time, by type. */
static bool read_whole(cp_opt_type type, const char *text, size_t n, int64_t *out)
{
    if (type == CP_OPT_TYPE_SIZE)
        return read_scaled(text, n, size_suffixes, out);
    if (type == CP_OPT_TYPE_TIME)
        return read_scaled(text, n, time_suffixes, out);
    return read_int(text, n, out);
}

static bool in_range(const cp_opt_row *row, int64_t v)
{
    const char *dots = strstr(row->range, "..");
    if (!dots)
        return true;
    int64_t lo, hi;
    CP_ASSERT(read_whole(row->type, row->range, (size_t)(dots - row->range), &lo));
    CP_ASSERT(read_whole(row->type, dots + 2, strlen(dots + 2), &hi));
    return v >= lo && v <= hi;
}

static bool in_float_range(const cp_opt_row *row, double v)
{
    const char *dots = strstr(row->range, "..");
    double lo, hi;
    if (!dots)
        return true;
    CP_ASSERT(read_float(row->range, (size_t)(dots - row->range), &lo));
    CP_ASSERT(read_float(dots + 2, strlen(dots + 2), &hi));
    return v >= lo && v <= hi;
}

/* Index of text among "a|b|c", or -1. */
static int choice_index(const char *choices, const char *text)
{
    size_t n = strlen(text);
    int i = 0;
    for (const char *c = choices;; i++) {
        size_t len = strcspn(c, "|");
        if (len == n && memcmp(c, text, n) == 0)
            return i;
        if (!c[len])
            return -1;
        c += len + 1;
    }
}

/* ---- lists ---- */

static bool append_string(cp_strings *list, cp_arena *arena, const char *s, size_t n)
{
    if (n == 0 || list->n >= CP_OPT_LIST_MAX)
        return false;
    const char **p = cp_arena_alloc(arena, ((size_t)list->n + 1) * sizeof(*p));
    char *copy = cp_arena_strndup(arena, s, n);
    if (!p || !copy)
        return false;
    if (list->n)
        memcpy(p, list->p, (size_t)list->n * sizeof(*p));
    p[list->n] = copy;
    list->p = p;
    list->n++;
    return true;
}

static bool append_int(const cp_opt_row *row, cp_ints *list, cp_arena *arena, const char *s,
                       size_t n)
{
    int64_t v;
    if (!read_int(s, n, &v) || !in_range(row, v) || list->n >= CP_OPT_LIST_MAX)
        return false;
    int64_t *p = cp_arena_alloc(arena, ((size_t)list->n + 1) * sizeof(*p));
    if (!p)
        return false;
    if (list->n)
        memcpy(p, list->p, (size_t)list->n * sizeof(*p));
    p[list->n] = v;
    list->p = p;
    list->n++;
    return true;
}

static bool set_list(const cp_opt_row *row, void *field, cp_arena *arena, const char *text,
                     bool split)
{
    split = split || row->type != CP_OPT_TYPE_LIST;
    for (;;) {
        size_t n = split ? strcspn(text, ",") : strlen(text);
        bool ok = row->type == CP_OPT_TYPE_INTS ? append_int(row, field, arena, text, n)
                                                : append_string(field, arena, text, n);
        if (!ok)
            return false;
        if (!text[n])
            return true;
        text += n + 1;
    }
}

bool cp_opt_set(const cp_opt_row *row, void *base, cp_arena *arena, const char *text, bool split)
{
    void *field = (char *)base + row->offset;
    int64_t whole;
    switch (row->type) {
    case CP_OPT_TYPE_STR:
    case CP_OPT_TYPE_TEXT:
        if (row->type == CP_OPT_TYPE_STR && !*text)
            return false;
        *(const char **)field = cp_arena_strndup(arena, text, strlen(text));
        return *(const char **)field != NULL;
    case CP_OPT_TYPE_INT:
    case CP_OPT_TYPE_SIZE:
    case CP_OPT_TYPE_TIME:
        if (!read_whole(row->type, text, strlen(text), &whole) || !in_range(row, whole))
            return false;
        if (row->type == CP_OPT_TYPE_SIZE)
            *(uint64_t *)field = (uint64_t)whole;
        else
            *(int64_t *)field = whole;
        return true;
    case CP_OPT_TYPE_FLOAT: {
        double v;
        if (!read_float(text, strlen(text), &v) || !in_float_range(row, v))
            return false;
        *(double *)field = v;
        return true;
    }
    case CP_OPT_TYPE_ENUM: {
        int i = choice_index(row->range, text);
        if (i >= 0)
            *(int *)field = i;
        return i >= 0;
    }
    case CP_OPT_TYPE_ONOFF:
    case CP_OPT_TYPE_SWITCH: {
        bool on = strcmp(text, "on") == 0 || strcmp(text, "true") == 0;
        *(bool *)field = on;
        return on || strcmp(text, "off") == 0 || strcmp(text, "false") == 0;
    }
    case CP_OPT_TYPE_LIST:
    case CP_OPT_TYPE_CSV:
    case CP_OPT_TYPE_INTS:
        return set_list(row, field, arena, text, split);
    }
    return false;
}

void cp_opt_clear(const cp_opt_row *row, void *base)
{
    void *field = (char *)base + row->offset;
    if (row->type == CP_OPT_TYPE_INTS)
        *(cp_ints *)field = (cp_ints){0};
    else if (cp_opt_is_list(row->type))
        *(cp_strings *)field = (cp_strings){0};
}

/* ---- values back to flags ---- */

/* Choice i of "a|b|c". */
static char *choice_text(const char *choices, int i, cp_arena *arena)
{
    while (i-- > 0)
        choices += strcspn(choices, "|") + 1;
    return cp_arena_strndup(arena, choices, strcspn(choices, "|"));
}

/* The text of a scalar; NULL: out of memory. */
static const char *scalar_text(const cp_opt_row *row, const void *field, cp_arena *arena)
{
    switch (row->type) {
    case CP_OPT_TYPE_STR:
    case CP_OPT_TYPE_TEXT:
        return *(const char *const *)field;
    case CP_OPT_TYPE_INT:
        return cp_arena_printf(arena, "%lld", (long long)*(const int64_t *)field);
    case CP_OPT_TYPE_SIZE:
        return cp_arena_printf(arena, "%llu", (unsigned long long)*(const uint64_t *)field);
    case CP_OPT_TYPE_TIME:
        return cp_arena_printf(arena, "%lldms", (long long)*(const int64_t *)field);
    case CP_OPT_TYPE_FLOAT:
        return cp_arena_printf(arena, "%.17g", *(const double *)field);
    case CP_OPT_TYPE_ENUM:
        return choice_text(row->range, *(const int *)field, arena);
    default:
        return *(const bool *)field ? "on" : "off";
    }
}

bool cp_opt_flags(const cp_opt_row *row, const void *base, cp_arena *arena, cp_strings *out)
{
    const void *field = (const char *)base + row->offset;
    char name[CP_OPT_NAME_MAX];
    bool list = cp_opt_is_list(row->type), ints = row->type == CP_OPT_TYPE_INTS;
    const cp_strings *strings = field;
    const cp_ints *numbers = field;
    int n = !list ? 1 : ints ? numbers->n : strings->n;
    cp_opt_flag_name(row, name);
    for (int i = 0; i < n; i++) {
        const char *value = !list  ? scalar_text(row, field, arena)
                            : ints ? cp_arena_printf(arena, "%lld", (long long)numbers->p[i])
                                   : strings->p[i];
        /* one word, so that a value may begin with a dash; a switch takes a value this way, too */
        char *word = value ? cp_arena_printf(arena, "%s=%s", name, value) : NULL;
        if (!word || !append_string(out, arena, word, strlen(word)))
            return false;
    }
    return true;
}

void cp_opt_allowed(const cp_opt_row *row, char *out, size_t cap)
{
    static const char *const kind[] = {
        [CP_OPT_TYPE_STR] = "text, not empty",
        [CP_OPT_TYPE_TEXT] = "text",
        [CP_OPT_TYPE_INT] = "an integer",
        [CP_OPT_TYPE_FLOAT] = "a number",
        [CP_OPT_TYPE_SIZE] = "a size in bytes or with KiB, MiB, GiB",
        [CP_OPT_TYPE_TIME] = "a time with ms, s or m",
        [CP_OPT_TYPE_ENUM] = "",
        [CP_OPT_TYPE_ONOFF] = "on, off, true, false",
        [CP_OPT_TYPE_SWITCH] = "on, off, true, false",
        [CP_OPT_TYPE_LIST] = "up to 1024 texts, none empty",
        [CP_OPT_TYPE_CSV] = "up to 1024 texts between commas, none empty",
        [CP_OPT_TYPE_INTS] = "integers between commas",
    };
    size_t n = cp_snprintf(out, cap, "%s", kind[row->type]);
    if (row->type == CP_OPT_TYPE_ENUM) {
        for (const char *c = row->range; *c && n + 3 < cap; c++) {
            if (*c == '|')
                n += cp_snprintf(out + n, cap - n, ", ");
            else
                n += cp_snprintf(out + n, cap - n, "%c", *c);
        }
    } else if (strstr(row->range, "..")) {
        n += cp_snprintf(out + n, cap - n, ", %s", row->range);
    }
    if (*row->unit && n < cap)
        cp_snprintf(out + n, cap - n, " %s", row->unit);
}
