/* This file reads single values of a body: see parser.h. */
#include "server/parser.h"

#include <jansson.h>
#include <math.h>

cp_code cp_parser_full(cp_err *err)
{
    return cp_fail(err, CP_NO_MEMORY, "the request needs more memory than one request may have");
}

const json_t *cp_parser_get(const cp_parser *ps, const char *name)
{
    const json_t *v = json_object_get(ps->body, name);
    return v && !json_is_null(v) ? v : NULL;
}

double cp_json_number(const json_t *v)
{
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

bool cp_json_integer(const json_t *v, int64_t *out)
{
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    double d = json_is_real(v) ? cp_json_number(v) : (double)NAN;
    if (!(fabs(d) <= 9007199254740992.0) || d != floor(d))
        return false;
    *out = (int64_t)d;
    return true;
}

cp_code cp_parser_string(cp_parser *ps, const json_t *v, cp_str *out, cp_err *err)
{
    out->n = json_string_length(v);
    out->p = cp_arena_strndup(ps->arena, json_string_value(v), out->n);
    return out->p ? CP_OK : cp_parser_full(err);
}

cp_code cp_parser_ids(cp_parser *ps, const json_t *v, const char *field, const int32_t **out,
                      int *n, cp_err *err)
{
    size_t count = json_array_size(v);
    int32_t *ids = cp_arena_alloc(ps->arena, (count + 1) * sizeof(*ids));
    if (!ids)
        return cp_parser_full(err);
    for (size_t i = 0; i < count; i++) {
        const json_t *e = json_array_get(v, i);
        int64_t id;
        char say[64];
        if (!cp_json_integer(e, &id) || id < 0 || id >= ps->n_vocab)
            return cp_fail_param(err, CP_INVALID_VALUE, field,
                                 "'%s[%zu]' is %s; allowed: token ids from 0 to %d", field, i,
                                 cp_json_say(e, say, sizeof(say)), ps->n_vocab - 1);
        ids[i] = (int32_t)id;
    }
    *out = ids;
    *n = (int)count;
    return CP_OK;
}

cp_code cp_parser_prompt(cp_parser *ps, const json_t *v, const char *field, cp_prompt *out,
                         cp_err *err)
{
    if (json_is_string(v))
        return cp_parser_string(ps, v, &out->text, err);
    return cp_parser_ids(ps, v, field, &out->ids, &out->n_ids, err);
}
