/*
 * What a template reads beside the messages: the request's own variables, tools, documents, and how
 * the prompt is to end.
 *
 * All of it is marked as input, as messages are, the names of tools and the keys of schemas
 * included: no special token that is spelled in them is parsed.
 */
#include "server/parser.h"

#include <jansson.h>
#include <string.h>

static cp_code read_kwargs(const json_t *v, cp_arena *a, cp_val *vars, cp_err *err)
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
    json_object_foreach((json_t *)(uintptr_t)v, key, item)
    {
        for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
            if (strcmp(key, own[i]) == 0)
                return cp_fail_param(err, CP_INVALID_VALUE, "chat_template_kwargs",
                                     "'chat_template_kwargs.%s' is set by the server", key);
        cp_val *x = cp_parser_value(a, item);
        if (!x || !cp_val_setn(a, vars, key, strlen(key), true, x))
            return cp_parser_full(err);
    }
    return CP_OK;
}

/* As vLLM: reasoning_effort is a variable of the template, and where the request does not say it
 * itself, also enable_thinking, false for "none". A template that reads neither ignores both. */
static cp_code read_thinking(cp_parser *ps, const json_t *kwargs, cp_err *err)
{
    const json_t *think = cp_parser_get(ps, "enable_thinking");
    const json_t *effort = cp_parser_get(ps, "reasoning_effort");
    cp_arena *a = ps->render;
    cp_val *vars = ps->out->vars;
    char say[64];
    if (think && !json_is_boolean(think))
        return cp_fail_param(err, CP_INVALID_VALUE, "enable_thinking",
                             "'enable_thinking' is %s; allowed: true or false",
                             cp_json_say(think, say, sizeof(say)));
    if (effort && !json_is_string(effort) && !json_is_number(effort))
        return cp_fail_param(err, CP_INVALID_VALUE, "reasoning_effort",
                             "'reasoning_effort' is %s; allowed: a string or a number",
                             cp_json_say(effort, say, sizeof(say)));
    if (cp_json_is(effort, ""))
        effort = NULL;
    bool on = think ? json_is_true(think) : effort && !cp_json_is(effort, "none");
    if (think || (effort && !json_object_get(kwargs, "enable_thinking"))) {
        cp_val *v = cp_val_bool(a, on);
        if (!v || !cp_val_set(a, vars, "enable_thinking", v))
            return cp_parser_full(err);
    }
    if (effort) {
        cp_val *v = cp_parser_value(a, effort);
        if (!v || !cp_val_set(a, vars, "reasoning_effort", v))
            return cp_parser_full(err);
    }
    return CP_OK;
}

/* A list of objects; NULL for an empty one, and for none. */
static cp_code read_objects(cp_parser *ps, const char *field, cp_val **out, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, field);
    char param[64], say[64];
    if (v && !json_is_array(v))
        return cp_fail_param(err, CP_INVALID_VALUE, field, "'%s' is %s; allowed: a list of objects",
                             field, cp_json_say(v, say, sizeof(say)));
    size_t n = json_array_size(v);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(v, i);
        cp_snprintf(param, sizeof(param), "%s[%zu]", field, i);
        if (!json_is_object(item))
            return cp_fail_param(err, CP_INVALID_VALUE, param, "'%s' is %s; allowed: an object",
                                 param, cp_json_say(item, say, sizeof(say)));
    }
    *out = n ? cp_parser_value(ps->render, v) : NULL;
    return n && !*out ? cp_parser_full(err) : CP_OK;
}

/* A tool of the type "function" has a description under that name; templates take it apart. */
static cp_code check_tools(const cp_parser *ps, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, "tools");
    char param[64], say[64];
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *tool = json_array_get(v, i), *f = json_object_get(tool, "function");
        bool wants = cp_json_is(json_object_get(tool, "type"), "function");
        if (json_is_object(f) || (!f && !wants))
            continue;
        cp_snprintf(param, sizeof(param), "tools[%zu].function", i);
        return f ? cp_fail_param(err, CP_INVALID_VALUE, param, "'%s' is %s; allowed: an object",
                                 param, cp_json_say(f, say, sizeof(say)))
                 : cp_fail_param(err, CP_MISSING_FIELD, param, "'%s' is missing", param);
    }
    return CP_OK;
}

/* The last message is gone on with, so nothing begins behind it. */
static cp_code check_continue(cp_parser *ps, cp_err *err)
{
    static const char field[] = "continue_final_message";
    cp_params *p = ps->out;
    if (!p->continue_final)
        return CP_OK;
    if (json_is_true(cp_parser_get(ps, "add_generation_prompt")))
        return cp_fail_param(err, CP_INVALID_VALUE, field,
                             "'%s' and 'add_generation_prompt' are both true; allowed: one of them",
                             field);
    p->add_generation_prompt = false;
    const json_t *m = cp_parser_get(ps, "messages");
    size_t last = json_array_size(m) - 1;
    const json_t *content = json_object_get(json_array_get(m, last), "content");
    if (content && !json_is_null(content))
        return CP_OK;
    char param[64];
    cp_snprintf(param, sizeof(param), "messages[%zu].content", last);
    return cp_fail_param(err, CP_MISSING_FIELD, param,
                         "'%s' is missing; '%s' goes on with the content of the last message",
                         param, field);
}

cp_code cp_read_chat(cp_parser *ps, cp_err *err)
{
    cp_params *p = ps->out;
    const json_t *kwargs = cp_parser_get(ps, "chat_template_kwargs");
    p->vars = cp_val_dict(ps->render);
    if (!p->vars)
        return cp_parser_full(err);
    cp_code code = cp_read_messages(ps, err);
    if (code == CP_OK && kwargs)
        code = read_kwargs(kwargs, ps->render, p->vars, err);
    if (code == CP_OK)
        code = read_thinking(ps, kwargs, err);
    return code == CP_OK ? check_continue(ps, err) : code;
}

cp_code cp_read_attached(cp_parser *ps, cp_err *err)
{
    cp_code code = read_objects(ps, "tools", &ps->out->tools, err);
    if (code == CP_OK)
        code = check_tools(ps, err);
    return code == CP_OK ? read_objects(ps, "documents", &ps->out->documents, err) : code;
}
