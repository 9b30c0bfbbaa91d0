/*
 * A body's messages become the values that a template reads.
 *
 * A message keeps all its keys, since templates read more than role and content (name, tool_calls,
 * reasoning_content). What came from the request is marked as input, so that a special token
 * spelled in it is never parsed; only the role, one of five words, is trusted. Text parts are
 * joined with a newline. An assistant's content may be absent: it is empty then, as templates put
 * it together with text. The arguments of a tool call are JSON in a string, and templates want the
 * value; what a model left empty or broke off becomes an empty object, or the conversation could
 * never go on.
 */
#include "server/parser.h"

#include <jansson.h>
#include <string.h>

/* jansson's iterators take a mutable object, and do not change it. */
static json_t *mutable(const json_t *v)
{
    return (json_t *)(uintptr_t)v;
}

static cp_val *convert(cp_arena *a, const json_t *v, int depth)
{
    if (depth > CP_JSON_DEPTH)
        return NULL;
    switch (json_typeof(v)) {
    case JSON_OBJECT: {
        cp_val *d = cp_val_dict(a);
        const char *key;
        json_t *item;
        json_object_foreach(mutable(v), key, item)
        {
            cp_val *x = convert(a, item, depth + 1);
            if (!d || !x || !cp_val_setn(a, d, key, strlen(key), true, x))
                return NULL;
        }
        return d;
    }
    case JSON_ARRAY: {
        cp_val *l = cp_val_list(a);
        for (size_t i = 0; i < json_array_size(v); i++) {
            cp_val *x = convert(a, json_array_get(v, i), depth + 1);
            if (!l || !x || !cp_val_push(a, l, x))
                return NULL;
        }
        return l;
    }
    case JSON_STRING:
        return cp_val_str(a, json_string_value(v), json_string_length(v), true);
    case JSON_INTEGER:
        return cp_val_int(a, json_integer_value(v));
    case JSON_REAL:
        return cp_val_float(a, json_real_value(v));
    case JSON_TRUE:
    case JSON_FALSE:
        return cp_val_bool(a, json_is_true(v));
    default:
        return cp_val_none(a);
    }
}

cp_val *cp_parser_value(cp_arena *a, const json_t *v)
{
    return convert(a, v, 0);
}

static bool role_known(const json_t *role)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (cp_json_is(role, roles[i]))
            return true;
    return false;
}

/* Types of parts that are text, and the key that holds it. */
static const struct {
    const char *type, *key;
} text_parts[] = {
    {"text", "text"},
    {"input_text", "text"},
    {"output_text", "text"},
    {"refusal", "refusal"},
};
enum { N_TEXT_PARTS = sizeof(text_parts) / sizeof(text_parts[0]) };

/* The text of one part, a string or an object of a type above. */
static cp_code part_text(const json_t *part, const char *param, const json_t **out, cp_err *err)
{
    char say[64];
    *out = part;
    if (json_is_string(part))
        return CP_OK;
    if (!json_is_object(part))
        return cp_fail_param(err, CP_INVALID_VALUE, param,
                             "'%s' is %s; allowed: a string or {\"type\": \"text\", \"text\": ...}",
                             param, cp_json_say(part, say, sizeof(say)));
    const json_t *t = json_object_get(part, "type");
    const char *type = json_string_value(t);
    if (!type)
        return cp_fail_param(err, t ? CP_INVALID_VALUE : CP_MISSING_FIELD, param,
                             t ? "'%s.type' must be a string" : "'%s.type' is missing", param);
    size_t i = 0;
    while (i < N_TEXT_PARTS && !cp_json_is(t, text_parts[i].type))
        i++;
    if (i == N_TEXT_PARTS)
        return cp_fail_param(err, CP_UNSUPPORTED_FIELD, param,
                             "'%s.type' is '%.32s'; this model takes text parts only: text, "
                             "input_text, output_text, refusal",
                             param, type);
    *out = json_object_get(part, text_parts[i].key);
    if (!json_is_string(*out))
        return cp_fail_param(err, *out ? CP_INVALID_VALUE : CP_MISSING_FIELD, param,
                             "'%s.%s' must be a string", param, text_parts[i].key);
    return CP_OK;
}

/* The texts of a list of parts, a newline between. */
static cp_code join_parts(const json_t *parts, size_t m, cp_buf *text, cp_err *err)
{
    char param[64];
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *s;
        cp_snprintf(param, sizeof(param), "messages[%zu].content[%zu]", m, i);
        cp_code code = part_text(json_array_get(parts, i), param, &s, err);
        if (code != CP_OK)
            return code;
        if (i > 0)
            cp_buf_addc(text, '\n');
        cp_buf_add(text, json_string_value(s), json_string_length(s));
    }
    return text->failed ? cp_parser_full(err) : CP_OK;
}

static cp_code content_value(const json_t *c, size_t m, bool may_lack, cp_arena *a, cp_val **out,
                             cp_err *err)
{
    char param[64], say[64];
    cp_snprintf(param, sizeof(param), "messages[%zu].content", m);
    if (!c || json_is_null(c)) {
        if (!may_lack)
            return cp_fail_param(err, CP_MISSING_FIELD, param,
                                 "'%s' is missing; give a string or a list of text parts", param);
        *out = cp_val_str(a, "", 0, true);
    } else if (json_is_string(c)) {
        *out = cp_val_str(a, json_string_value(c), json_string_length(c), true);
    } else if (json_is_array(c)) {
        cp_buf text = {0};
        cp_code code = join_parts(c, m, &text, err);
        if (code == CP_OK)
            *out = cp_val_str(a, text.p ? text.p : "", text.n, true);
        cp_buf_fini(&text);
        if (code != CP_OK)
            return code;
    } else {
        return cp_fail_param(err, CP_INVALID_VALUE, param,
                             "'%s' is %s; allowed: a string or a list of text parts", param,
                             cp_json_say(c, say, sizeof(say)));
    }
    return *out ? CP_OK : cp_parser_full(err);
}

/* An object as it is, but for the value of one key, which it has then. */
static cp_val *convert_but(cp_arena *a, const json_t *o, const char *but, cp_val *instead)
{
    cp_val *d = cp_val_dict(a);
    const char *key;
    json_t *item;
    json_object_foreach(mutable(o), key, item)
    {
        cp_val *x = strcmp(key, but) == 0 ? instead : convert(a, item, 0);
        if (!d || !x || !cp_val_setn(a, d, key, strlen(key), true, x))
            return NULL;
    }
    return d && cp_val_set(a, d, but, instead) ? d : NULL;
}

/* What a call's arguments say: JSON in a string, or the value itself; nothing, or no JSON, is an
 * empty object. Values in the string count against the request's. */
static cp_code arguments_value(const json_t *args, const char *field, cp_json_left *left,
                               cp_arena *a, cp_val **out, cp_err *err)
{
    if (!args || json_is_null(args)) {
        *out = cp_val_dict(a);
    } else if (!json_is_string(args)) {
        *out = convert(a, args, 0);
    } else {
        cp_json doc;
        /* the tree's own copy, of no use afterwards: the scan may change it */
        cp_code code = cp_json_load((char *)(uintptr_t)json_string_value(args),
                                    json_string_length(args), field, NULL, left, &doc, err);
        if (code != CP_OK && code != CP_INVALID_JSON)
            return code;
        *out = code == CP_OK ? convert(a, doc.root, 0) : cp_val_dict(a);
        if (code == CP_OK)
            cp_json_free(&doc, left);
    }
    return *out ? CP_OK : cp_parser_full(err);
}

static cp_code tool_call_value(const json_t *call, size_t m, size_t i, cp_json_left *left,
                               cp_arena *a, cp_val **out, cp_err *err)
{
    char field[64], say[64];
    const json_t *f = json_object_get(call, "function");
    if (json_is_null(f))
        f = NULL;
    cp_snprintf(field, sizeof(field), "messages[%zu].tool_calls[%zu]%s", m, i,
                json_is_object(call) ? ".function" : "");
    if (!json_is_object(call) || (f && !json_is_object(f)))
        return cp_fail_param(err, CP_INVALID_VALUE, field, "'%s' is %s; allowed: an object", field,
                             cp_json_say(json_is_object(call) ? f : call, say, sizeof(say)));
    if (!f) { /* a call of another kind */
        *out = convert(a, call, 0);
        return *out ? CP_OK : cp_parser_full(err);
    }
    cp_snprintf(field, sizeof(field), "messages[%zu].tool_calls[%zu].function.arguments", m, i);
    cp_val *v = NULL;
    cp_code code = arguments_value(json_object_get(f, "arguments"), field, left, a, &v, err);
    if (code != CP_OK)
        return code;
    v = convert_but(a, f, "arguments", v);
    *out = v ? convert_but(a, call, "function", v) : NULL;
    return *out ? CP_OK : cp_parser_full(err);
}

static cp_code tool_calls_value(const json_t *calls, size_t m, cp_json_left *left, cp_arena *a,
                                cp_val **out, cp_err *err)
{
    char field[64];
    cp_snprintf(field, sizeof(field), "messages[%zu].tool_calls", m);
    if (!json_is_array(calls))
        return cp_fail_param(err, CP_INVALID_VALUE, field, "'%s' must be a list", field);
    *out = cp_val_list(a);
    cp_code code = *out ? CP_OK : cp_parser_full(err);
    for (size_t i = 0; code == CP_OK && i < json_array_size(calls); i++) {
        cp_val *call = NULL;
        code = tool_call_value(json_array_get(calls, i), m, i, left, a, &call, err);
        if (code == CP_OK && !cp_val_push(a, *out, call))
            code = cp_parser_full(err);
    }
    return code;
}

/* As transformers: a thought has several names, and templates read one of them. */
static bool name_thought(const json_t *msg, cp_arena *a, cp_val *d)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const json_t *v = NULL;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && (!v || json_is_null(v)); i++)
        v = json_object_get(msg, names[i]);
    if (!v || json_is_null(v))
        return true;
    const json_t *thinking = json_object_get(msg, "thinking");
    cp_val *x = convert(a, v, 0);
    return x && cp_val_set(a, d, "reasoning_content", x) &&
           ((thinking && !json_is_null(thinking)) || cp_val_set(a, d, "thinking", x));
}

static cp_code message_parse(json_t *msg, size_t m, cp_json_left *left, cp_arena *a, cp_val *list,
                             cp_err *err)
{
    char param[64], say[64];
    cp_snprintf(param, sizeof(param), "messages[%zu]", m);
    if (!json_is_object(msg))
        return cp_fail_param(err, CP_INVALID_VALUE, param, "'%s' is %s; allowed: an object", param,
                             cp_json_say(msg, say, sizeof(say)));
    cp_snprintf(param, sizeof(param), "messages[%zu].role", m);
    const json_t *role = json_object_get(msg, "role");
    if (!role)
        return cp_fail_param(err, CP_MISSING_FIELD, param, "'%s' is missing", param);
    const char *role_s = json_string_value(role);
    if (!role_known(role))
        return cp_fail_param(err, CP_INVALID_VALUE, param,
                             "'%s' is %s%.32s%s; allowed: system, developer, user, assistant, tool",
                             param, role_s ? "'" : "",
                             role_s ? role_s : cp_json_say(role, say, sizeof(say)),
                             role_s ? "'" : "");
    const json_t *calls = json_object_get(msg, "tool_calls");
    bool has_calls = calls && !json_is_null(calls) && json_array_size(calls) > 0;
    cp_val *d = cp_val_dict(a);
    cp_val *v = cp_val_str(a, role_s, strlen(role_s), false);
    if (!d || !v || !cp_val_set(a, d, "role", v))
        return cp_parser_full(err);
    bool assistant = strcmp(role_s, "assistant") == 0;
    cp_code code = content_value(json_object_get(msg, "content"), m, assistant, a, &v, err);
    if (code != CP_OK)
        return code;
    if (!cp_val_set(a, d, "content", v))
        return cp_parser_full(err);
    const char *key;
    json_t *item;
    json_object_foreach(msg, key, item)
    {
        if (strcmp(key, "role") == 0 || strcmp(key, "content") == 0 || json_is_null(item))
            continue;
        if (strcmp(key, "tool_calls") == 0) {
            if (!has_calls && json_is_array(item))
                continue;
            code = tool_calls_value(item, m, left, a, &v, err);
            if (code != CP_OK)
                return code;
        } else {
            v = convert(a, item, 0);
        }
        if (!v || !cp_val_setn(a, d, key, strlen(key), true, v))
            return cp_parser_full(err);
    }
    return name_thought(msg, a, d) && cp_val_push(a, list, d) ? CP_OK : cp_parser_full(err);
}

cp_code cp_read_messages(cp_parser *ps, cp_err *err)
{
    char say[64];
    const json_t *v = cp_parser_get(ps, "messages");
    if (!v)
        return cp_fail_param(err, CP_MISSING_FIELD, "messages",
                             "'messages' is missing; give a list of {\"role\", \"content\"}");
    if (!json_is_array(v) || json_array_size(v) == 0)
        return cp_fail_param(err, CP_INVALID_VALUE, "messages",
                             "'messages' is %s; allowed: a list of at least one message",
                             cp_json_say(v, say, sizeof(say)));
    cp_val *list = cp_val_list(ps->render);
    if (!list)
        return cp_parser_full(err);
    for (size_t i = 0; i < json_array_size(v); i++) {
        cp_code code = message_parse(json_array_get(v, i), i, ps->left, ps->render, list, err);
        if (code != CP_OK)
            return code;
    }
    ps->out->messages = list;
    return CP_OK;
}
