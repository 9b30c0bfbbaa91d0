/*
 * messages and chat_template_kwargs: JSON to the template's values. A message keeps all its keys,
 * since templates read more than role and content (name, tool_calls, reasoning_content). What came
 * from the request is marked as input, so that a special token spelled in it is never parsed; only
 * the role, one of five words, is trusted. Text parts are joined with a newline. The arguments of a
 * tool call are JSON in a string; templates want the object.
 */
#include "server/params.h"

#include <jansson.h>
#include <string.h>

static cp_code out_of_memory(cp_err *err)
{
    return cp_fail(err, CP_NO_MEMORY, "the request needs more memory than one request may have");
}

/* jansson's iterators take a mutable object, and do not change it. */
static json_t *mutable(const json_t *v)
{
    return (json_t *)(uintptr_t)v;
}

/* Any JSON value; its depth was bounded by the scan. NULL: the arena is exhausted. */
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

static bool role_known(const char *role)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(role, roles[i]) == 0)
            return true;
    return false;
}

/* A list of {"type": "text", "text": "..."}: the texts, a newline between. */
static cp_code join_parts(const json_t *parts, size_t m, cp_buf *text, cp_err *err)
{
    char param[64], say[64];
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        cp_snprintf(param, sizeof(param), "messages[%zu].content[%zu]", m, i);
        if (!json_is_object(part))
            return cp_fail_param(err, CP_INVALID_VALUE, param,
                                 "'%s' is %s; allowed: {\"type\": \"text\", \"text\": ...}", param,
                                 cp_json_say(part, say, sizeof(say)));
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type)
            return cp_fail_param(err, CP_MISSING_FIELD, param, "'%s.type' is missing", param);
        if (strcmp(type, "text") != 0)
            return cp_fail_param(err, CP_UNSUPPORTED_FIELD, param,
                                 "'%s.type' is '%.32s'; this model takes text parts only", param,
                                 type);
        const json_t *s = json_object_get(part, "text");
        if (!json_is_string(s))
            return cp_fail_param(err, s ? CP_INVALID_VALUE : CP_MISSING_FIELD, param,
                                 "'%s.text' must be a string", param);
        if (i > 0)
            cp_buf_addc(text, '\n');
        cp_buf_add(text, json_string_value(s), json_string_length(s));
    }
    return text->failed ? out_of_memory(err) : CP_OK;
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
        *out = cp_val_none(a);
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
    return *out ? CP_OK : out_of_memory(err);
}

/* An object as it is, but for the value of one key. */
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
    return d;
}

/* One call, its arguments' JSON text parsed. Values count against the request's. */
static cp_code tool_call_value(const json_t *call, const char *field, cp_json_left *left,
                               cp_arena *a, cp_val **out, cp_err *err)
{
    const json_t *f = json_object_get(call, "function");
    const json_t *args = json_object_get(f, "arguments");
    if (!json_is_string(args)) {
        *out = convert(a, call, 0);
        return *out ? CP_OK : out_of_memory(err);
    }
    cp_json doc;
    cp_code code =
        cp_json_load(json_string_value(args), json_string_length(args), field, left, &doc, err);
    if (code == CP_INVALID_JSON)
        return cp_fail_param(err, CP_INVALID_VALUE, field,
                             "'%s' must hold a JSON object in a string", field);
    if (code != CP_OK)
        return code;
    cp_val *v = convert(a, doc.root, 0);
    cp_json_free(&doc, left);
    v = v ? convert_but(a, f, "arguments", v) : NULL;
    *out = v ? convert_but(a, call, "function", v) : NULL;
    return *out ? CP_OK : out_of_memory(err);
}

static cp_code tool_calls_value(const json_t *calls, size_t m, cp_json_left *left, cp_arena *a,
                                cp_val **out, cp_err *err)
{
    char field[64];
    cp_snprintf(field, sizeof(field), "messages[%zu].tool_calls", m);
    if (!json_is_array(calls))
        return cp_fail_param(err, CP_INVALID_VALUE, field, "'%s' must be a list", field);
    *out = cp_val_list(a);
    cp_code code = *out ? CP_OK : out_of_memory(err);
    for (size_t i = 0; code == CP_OK && i < json_array_size(calls); i++) {
        cp_val *call = NULL;
        cp_snprintf(field, sizeof(field), "messages[%zu].tool_calls[%zu].function.arguments", m, i);
        code = tool_call_value(json_array_get(calls, i), field, left, a, &call, err);
        if (code == CP_OK && !cp_val_push(a, *out, call))
            code = out_of_memory(err);
    }
    return code;
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
    if (!role_s || !role_known(role_s))
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
        return out_of_memory(err);
    bool may_lack = has_calls && strcmp(role_s, "assistant") == 0;
    cp_code code = content_value(json_object_get(msg, "content"), m, may_lack, a, &v, err);
    if (code != CP_OK)
        return code;
    if (!cp_val_set(a, d, "content", v))
        return out_of_memory(err);
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
            return out_of_memory(err);
    }
    return cp_val_push(a, list, d) ? CP_OK : out_of_memory(err);
}

cp_code cp_messages_parse(const struct json_t *v, cp_json_left *left, cp_arena *a, cp_val **out,
                          cp_err *err)
{
    char say[64];
    if (!json_is_array(v) || json_array_size(v) == 0)
        return cp_fail_param(err, CP_INVALID_VALUE, "messages",
                             "'messages' is %s; allowed: a list of at least one message",
                             cp_json_say(v, say, sizeof(say)));
    cp_val *list = cp_val_list(a);
    if (!list)
        return out_of_memory(err);
    for (size_t i = 0; i < json_array_size(v); i++) {
        cp_code code = message_parse(json_array_get(v, i), i, left, a, list, err);
        if (code != CP_OK)
            return code;
    }
    *out = list;
    return CP_OK;
}

cp_code cp_kwargs_parse(const struct json_t *v, cp_arena *a, cp_val *vars, cp_err *err)
{
    /* The server's own variables; a request must not replace the trusted ones. */
    static const char *const own[] = {"messages",  "tools",     "documents",
                                      "bos_token", "eos_token", "add_generation_prompt"};
    char say[64];
    if (!json_is_object(v))
        return cp_fail_param(err, CP_INVALID_VALUE, "chat_template_kwargs",
                             "'chat_template_kwargs' is %s; allowed: an object",
                             cp_json_say(v, say, sizeof(say)));
    const char *key;
    json_t *item;
    json_object_foreach(mutable(v), key, item)
    {
        for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
            if (strcmp(key, own[i]) == 0)
                return cp_fail_param(err, CP_INVALID_VALUE, "chat_template_kwargs",
                                     "'chat_template_kwargs.%s' is set by the server", key);
        cp_val *x = convert(a, item, 0);
        if (!x || !cp_val_setn(a, vars, key, strlen(key), true, x))
            return out_of_memory(err);
    }
    return CP_OK;
}
