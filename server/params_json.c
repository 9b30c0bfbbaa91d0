/*
 * This file interprets the tables of request fields (fields.h). The API reads by hand what is more
 * than a number or a flag (stop, logit_bias, prompt ...). A field that would change the output and
 * is not built is refused, except for the values that are no use of it. null means "not given"
 * everywhere.
 */
#include "server/api/api.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <string.h>

static cp_code out_of_range(const cp_field *f, const json_t *v, cp_err *err)
{
    char say[64];
    cp_json_say(v, say, sizeof(say));
    if (f->kind == CP_FIELD_BOOL)
        return cp_fail_param(err, CP_INVALID_VALUE, f->name, "'%s' is %s; allowed: true or false",
                             f->name, say);
    if (f->kind == CP_FIELD_INT && f->max >= CP_FIELD_INT64_TOP)
        return cp_fail_param(err, CP_INVALID_VALUE, f->name,
                             "'%s' is %s; allowed: an integer of 64 bits", f->name, say);
    return cp_fail_param(
        err, CP_INVALID_VALUE, f->name, "'%s' is %s; allowed: %s %.15g to %.15g", f->name, say,
        f->kind == CP_FIELD_INT ? "an integer from" : "a number from", f->min, f->max);
}

static cp_code read_field(const cp_field *f, const json_t *v, cp_params *p, cp_err *err)
{
    char *to = (char *)p + f->to;
    if (f->has)
        *((bool *)((char *)p + f->has)) = true;
    if (f->kind == CP_FIELD_BOOL) {
        if (!json_is_boolean(v))
            return out_of_range(f, v, err);
        *(bool *)to = json_is_true(v);
        return CP_OK;
    }
    if (f->kind == CP_FIELD_INT) {
        int64_t i;
        if (!cp_json_integer(v, &i))
            return out_of_range(f, v, err);
        if (f->max < CP_FIELD_INT64_TOP && ((double)i < f->min || (double)i > f->max))
            return out_of_range(f, v, err);
        *(int64_t *)(void *)to = i;
        return CP_OK;
    }
    double d = cp_json_number(v);
    if (!(d >= f->min && d <= f->max))
        return out_of_range(f, v, err);
    *(double *)(void *)to = d;
    return CP_OK;
}

/* ---- fields that are not built ---- */

static bool literal_matches(const char *lit, size_t n, const json_t *v, int64_t n_choices)
{
    if (n == 6 && memcmp(lit, "[text]", 6) == 0)
        return json_array_size(v) == 1 && cp_json_is(json_array_get(v, 0), "text");
    if (n == 4 && memcmp(lit, "text", 4) == 0)
        return cp_json_is(json_object_get(v, "type"), "text");
    if (n == 4 && memcmp(lit, "true", 4) == 0)
        return json_is_true(v);
    if (n == 5 && memcmp(lit, "false", 5) == 0)
        return json_is_false(v);
    if (lit[0] == '"')
        return json_is_string(v) && json_string_length(v) == n - 2 &&
               memcmp(json_string_value(v), lit + 1, n - 2) == 0;
    int64_t count;
    if (n == 3 && memcmp(lit, "<=n", 3) == 0)
        return cp_json_integer(v, &count) && count >= 1 && count <= n_choices;
    bool at_most = n > 2 && memcmp(lit, "<=", 2) == 0;
    double want = strtod(lit + (at_most ? 2 : 0), NULL);
    double got = cp_json_number(v);
    return got <= want && (at_most || got >= want);
}

static bool is_empty(const json_t *v)
{
    return json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

static bool no_use(const cp_parser *ps, const char *list, const json_t *v)
{
    const json_t *n = cp_parser_get(ps, "n");
    int64_t n_choices = 1;
    if (n)
        (void)cp_json_integer(n, &n_choices);
    while (*list) {
        size_t len = strcspn(list, " ");
        if (literal_matches(list, len, v, n_choices))
            return true;
        list += len + (list[len] == ' ');
    }
    return is_empty(v);
}

static void note_unknown(cp_parser *ps, const char *name)
{
    cp_params *p = ps->out;
    if (p->n_unknown == CP_UNKNOWN_MAX)
        return;
    char shown[41];
    size_t n = 0;
    for (; name[n] && n < sizeof(shown) - 1; n++)
        shown[n] = name[n] > 32 && name[n] < 127 && name[n] != '"' ? name[n] : '?';
    const char *copy = cp_arena_strndup(ps->arena, shown, n);
    if (copy)
        p->unknown[p->n_unknown++] = copy;
}

static cp_code refuse(const cp_parser *ps, const cp_field *f, const json_t *v, cp_err *err)
{
    char say[64];
    if (no_use(ps, f->no_use, v))
        return CP_OK;
    return cp_fail_param(err, CP_UNSUPPORTED_FIELD, f->name,
                         "'%s' (%s) is not supported by this server; leave it out", f->name,
                         cp_json_say(v, say, sizeof(say)));
}

/* Every key of the body against the table. A field that has no say at this route may hold what it
 * likes. */
static cp_code read_keys(cp_parser *ps, cp_err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)ps->body, key, v)
    {
        const cp_field *f = cp_field_find(ps->api->fields, key, ps->api->at);
        if (!f)
            note_unknown(ps, key);
        if (!f || !(f->at & ps->api->at) || f->kind == CP_FIELD_HAND || json_is_null(v))
            continue;
        cp_code code =
            f->kind == CP_FIELD_REFUSED ? refuse(ps, f, v, err) : read_field(f, v, ps->out, err);
        if (code != CP_OK)
            return code;
    }
    /* -1 is how vLLM and llama-server spell out a random seed. */
    if (cp_parser_get(ps, "seed") && ps->out->seed == -1)
        ps->out->has_seed = false;
    if (ps->out->max_completion >= 0)
        ps->out->max_tokens = ps->out->max_completion;
    return CP_OK;
}

cp_code cp_parser_read(cp_parser *ps, cp_err *err)
{
    cp_code code = read_keys(ps, err);
    return code == CP_OK ? ps->api->parse(ps, err) : code;
}

static cp_code read_of(cp_parser *ps, const cp_params_model *m, cp_err *err)
{
    cp_params_init(ps->out, m->defaults);
    ps->out->model = m->handle;
    ps->out->api = ps->api;
    ps->n_vocab = m->n_vocab;
    ps->defaults = m->defaults;
    return cp_parser_read(ps, err);
}

static cp_code parse_body(cp_parser *ps, const cp_params_env *env, cp_err *err)
{
    if (ps->api->no_model) {
        const cp_sampling_defaults off = cp_sampling_defaults_off();
        return read_of(ps, &(cp_params_model){.defaults = &off}, err);
    }
    const json_t *name = env->model.p ? NULL : cp_parser_get(ps, "model");
    char say[64];
    if (name && !json_is_string(name))
        return cp_fail_param(err, CP_INVALID_VALUE, "model", "'model' is %s; allowed: a string",
                             cp_json_say(name, say, sizeof(say)));
    /* "" is what front ends send before anybody chose a model. */
    cp_str want = env->model;
    if (json_string_length(name) > 0)
        want = (cp_str){json_string_value(name), json_string_length(name)};
    cp_params_model m = {0};
    cp_code code = env->find_model(env->arg, want, &m, err);
    return code == CP_OK ? read_of(ps, &m, err) : code;
}

cp_code cp_params_parse(char *body, size_t n, const cp_params_env *env, cp_arena *arena,
                        cp_arena *render, cp_params *out, cp_err *err)
{
    memset(out, 0, sizeof(*out));
    cp_json_left left = {.values = CP_JSON_VALUES, .account = env->account};
    cp_json doc;
    size_t n_json = env->api->binary && env->n_json < n ? env->n_json : n;
    cp_code code = cp_json_load(body, n_json, NULL, env->api->texts, &left, &doc, err);
    if (code != CP_OK)
        return code;
    cp_parser ps = {.api = env->api,
                    .arena = arena,
                    .render = render,
                    .body = doc.root,
                    .tail = {body + n_json, n - n_json},
                    .out = out,
                    .left = &left};
    if (ps.api->other && cp_parser_get(&ps, ps.api->other_if))
        ps.api = ps.api->other;
    code = parse_body(&ps, env, err);
    cp_json_free(&doc, &left);
    return code;
}
