/*
 * This file compares options and copies them, row by row: what a reload has to do is what differs.
 * Values are compared as they are, not as they were typed: "1GiB" and "1024MiB" are the same.
 */
#include "base/options_rows.h"

#include <string.h>

static const size_t sizes[] = {
    [CP_OPT_TYPE_STR] = sizeof(const char *), [CP_OPT_TYPE_TEXT] = sizeof(const char *),
    [CP_OPT_TYPE_INT] = sizeof(int64_t),      [CP_OPT_TYPE_FLOAT] = sizeof(double),
    [CP_OPT_TYPE_SIZE] = sizeof(uint64_t),    [CP_OPT_TYPE_TIME] = sizeof(int64_t),
    [CP_OPT_TYPE_ENUM] = sizeof(int),         [CP_OPT_TYPE_ONOFF] = sizeof(bool),
    [CP_OPT_TYPE_SWITCH] = sizeof(bool),      [CP_OPT_TYPE_LIST] = sizeof(cp_strings),
    [CP_OPT_TYPE_CSV] = sizeof(cp_strings),   [CP_OPT_TYPE_INTS] = sizeof(cp_ints),
};

static const void *field(const cp_opt_row *row, const void *base)
{
    return (const char *)base + row->offset;
}

/* NULL and "" are both: not given. */
static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool same_list(const cp_strings *a, const cp_strings *b)
{
    int i = 0;
    while (i < a->n && i < b->n && strcmp(a->p[i], b->p[i]) == 0)
        i++;
    return i == a->n && i == b->n;
}

static bool same(const cp_opt_row *row, const void *a, const void *b)
{
    const void *x = field(row, a), *y = field(row, b);
    switch (row->type) {
    case CP_OPT_TYPE_STR:
    case CP_OPT_TYPE_TEXT:
        return same_text(*(const char *const *)x, *(const char *const *)y);
    case CP_OPT_TYPE_LIST:
    case CP_OPT_TYPE_CSV:
        return same_list(x, y);
    case CP_OPT_TYPE_INTS: {
        const cp_ints *i = x, *k = y;
        return i->n == k->n && (i->n == 0 || memcmp(i->p, k->p, (size_t)i->n * sizeof(*i->p)) == 0);
    }
    default:
        return memcmp(x, y, sizes[row->type]) == 0;
    }
}

const char *cp_option_name(cp_option id)
{
    return cp_opt_rows[id].name;
}

cp_reloadable cp_option_reloadable(cp_option id, cp_command command)
{
    const cp_opt_row *row = &cp_opt_rows[id];
    return row->commands & 1u << command ? row->reloadable : CP_RELOAD_true;
}

bool cp_option_same(const cp_options *a, const cp_options *b, cp_option id)
{
    return same(&cp_opt_rows[id], a, b);
}

void cp_option_keep(cp_options *o, cp_option id, const cp_options *from)
{
    const cp_opt_row *row = &cp_opt_rows[id];
    memcpy((char *)o + row->offset, field(row, from), sizes[row->type]);
    o->source[id] = from->source[id];
}

bool cp_model_options_same(const cp_model_options *a, const cp_model_options *b, uint32_t but)
{
    for (int i = 0; i < CP_MODEL_KEY_COUNT; i++) {
        if (!(but & 1u << i) && !same(&cp_model_rows[i], a, b))
            return false;
    }
    return true;
}

bool cp_sampling_options_same(const cp_sampling_options *a, const cp_sampling_options *b)
{
    for (int i = 0; i < CP_SAMPLING_COUNT; i++) {
        bool given = a->given & 1u << i;
        if (given != (bool)(b->given & 1u << i) || (given && !same(&cp_sampling_rows[i], a, b)))
            return false;
    }
    return true;
}

/* ---- copies ---- */

static bool copy_text(const char **text, cp_arena *arena)
{
    const char *copy = *text ? cp_arena_strndup(arena, *text, strlen(*text)) : NULL;
    bool whole = copy || !*text;
    *text = copy;
    return whole;
}

static bool copy_list(cp_strings *list, cp_arena *arena)
{
    const char **p = list->n ? cp_arena_alloc(arena, (size_t)list->n * sizeof(*p)) : NULL;
    bool whole = p || list->n == 0;
    for (int i = 0; p && i < list->n; i++) {
        p[i] = list->p[i];
        whole = copy_text(&p[i], arena) && whole;
    }
    list->p = p;
    return whole;
}

bool cp_model_options_copy(cp_model_options *out, const cp_model_options *m, cp_arena *arena)
{
    bool whole = true;
    *out = *m;
    for (int i = 0; i < CP_MODEL_KEY_COUNT; i++) {
        const cp_opt_row *row = &cp_model_rows[i];
        void *at = (char *)out + row->offset;
        if (row->type == CP_OPT_TYPE_STR)
            whole = copy_text(at, arena) && whole;
        else if (row->type == CP_OPT_TYPE_CSV)
            whole = copy_list(at, arena) && whole;
    }
    return whole;
}
