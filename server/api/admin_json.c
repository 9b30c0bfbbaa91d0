/*
 * These APIs change which models are served. Bodies are read on Jobs, as all are; what they ask for
 * is done on a thread of its own, and answered when it is done:
 *
 *   POST /admin/models/load {"ref":"ai/smollm2","alias":"small"}
 *   {"id":"small","object":"model",...}        its row, as in GET /admin/models
 *   POST /admin/models/unload {"model":"small","drain_ms":5000}
 *   {"id":"small",...}
 *
 * load takes the keys of [[model]] in models.toml, read by the same rows (base/options.def).
 */
#include "server/admin.h"
#include "server/api/openai.h"
#include "server/emit.h"
#include "server/prepare.h"

#include "base/toml.h"

#include <jansson.h>
#include <string.h>

enum { DRAIN_MS_MAX = 86400000 };

static const cp_field fields[] = {
    {.name = "Models at run time", .kind = CP_FIELD_FAMILY},
#define CP_MODEL_KEY(key, ...) {.name = #key, .at = CP_AT_LOAD, .kind = CP_FIELD_HAND},
#include "base/options.def"
    {.name = "sampling", .at = CP_AT_LOAD, .kind = CP_FIELD_HAND},
    {.name = "model", .at = CP_AT_UNLOAD, .kind = CP_FIELD_HAND},
    {.name = "drain_ms", .at = CP_AT_UNLOAD, .kind = CP_FIELD_HAND},
};
static const cp_field_table table = {fields, sizeof(fields) / sizeof(fields[0])};

/* ---- bodies ---- */

static cp_code missing(const char *field, const char *what, cp_err *err)
{
    return cp_fail_param(err, CP_MISSING_FIELD, field, "'%s' is missing; give %s", field, what);
}

static cp_code not_a(const json_t *v, const char *field, const char *allowed, cp_err *err)
{
    char say[64];
    return cp_fail_param(err, CP_INVALID_VALUE, field, "'%s' is %s; allowed: %s", field,
                         cp_json_say(v, say, sizeof(say)), allowed);
}

/* A scalar as a file would have it. False: it is none, or a text with a NUL in it. */
static bool scalar(const json_t *v, cp_toml_value *out)
{
    *out = (cp_toml_value){0};
    if (json_is_string(v)) {
        out->type = CP_TOML_STRING;
        out->v.s = json_string_value(v);
        return strlen(out->v.s) == json_string_length(v);
    }
    if (json_is_boolean(v)) {
        out->type = CP_TOML_BOOL;
        out->v.b = json_is_true(v);
        return true;
    }
    if (cp_json_integer(v, &out->v.i)) {
        out->type = CP_TOML_INT;
        return true;
    }
    out->type = CP_TOML_FLOAT;
    out->v.f = json_is_real(v) ? json_real_value(v) : 0;
    return json_is_real(v);
}

/* The value of a key, or a list of them, under the name by which the rows know it. */
static cp_code set_key(cp_parser *ps, cp_model_options *mo, const char *key, const json_t *v,
                       cp_err *err)
{
    static const char allowed[] = "a string without NUL, a number, a boolean, or a list of them";
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    cp_toml_value *items = cp_arena_alloc(ps->arena, (n + 1) * sizeof(*items));
    if (!items)
        return cp_parser_full(err);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_is_array(v) ? json_array_get(v, i) : v;
        if (!scalar(item, &items[i]))
            return not_a(item, key, allowed, err);
        items[i].next = i + 1 < n ? &items[i + 1] : NULL;
    }
    cp_toml_value list = {.type = CP_TOML_ARRAY,
                          .v.array = {.first = n > 0 ? items : NULL, .n = (int)n}};
    return cp_model_option_set(mo, key, json_is_array(v) ? &list : items, ps->arena, err);
}

static cp_code read_sampling(cp_parser *ps, cp_model_options *mo, cp_err *err)
{
    const json_t *sampling = cp_parser_get(ps, "sampling");
    const char *key;
    json_t *v;
    if (sampling && !json_is_object(sampling))
        return not_a(sampling, "sampling", "an object", err);
    json_object_foreach((json_t *)(uintptr_t)sampling, key, v)
    {
        char name[64];
        cp_snprintf(name, sizeof(name), "sampling.%.50s", key);
        cp_code code = json_is_null(v) ? CP_OK : set_key(ps, mo, name, v, err);
        if (code != CP_OK)
            return code;
    }
    return CP_OK;
}

static cp_code parse_load(cp_parser *ps, cp_err *err)
{
    static const char *const keys[] = {
#define CP_MODEL_KEY(key, ...) #key,
#include "base/options.def"
    };
    cp_model_options *mo = cp_arena_alloc(ps->arena, sizeof(*mo));
    if (!mo)
        return cp_parser_full(err);
    *mo = (cp_model_options){0};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const json_t *v = cp_parser_get(ps, keys[i]);
        cp_code code = v ? set_key(ps, mo, keys[i], v, err) : CP_OK;
        if (code != CP_OK)
            return code;
    }
    ps->out->order = mo;
    if (!mo->ref)
        return missing("ref", "a file, a layout or a name in the store or of a registry", err);
    return read_sampling(ps, mo, err);
}

typedef struct unload {
    const char *model;
    int64_t drain_ms;
} unload;

static cp_code parse_unload(cp_parser *ps, cp_err *err)
{
    const json_t *model = cp_parser_get(ps, "model"), *drain = cp_parser_get(ps, "drain_ms");
    unload *u = cp_arena_alloc(ps->arena, sizeof(*u));
    if (!u)
        return cp_parser_full(err);
    *u = (unload){0};
    ps->out->order = u;
    if (!model || json_string_length(model) == 0)
        return model && !json_is_string(model) ? not_a(model, "model", "a string", err)
                                               : missing("model", "a model's name", err);
    if (drain &&
        (!cp_json_integer(drain, &u->drain_ms) || u->drain_ms < 0 || u->drain_ms > DRAIN_MS_MAX))
        return not_a(drain, "drain_ms", "an integer from 0 (no limit) to 86400000", err);
    u->model = cp_arena_strndup(ps->arena, json_string_value(model), json_string_length(model));
    return u->model ? CP_OK : cp_parser_full(err);
}

/* ---- acts ---- */

static cp_code act_load(cp_call *c, cp_err *err)
{
    const cp_model_options *mo = c->p.order;
    const char *id = mo->alias.n ? mo->alias.p[0] : mo->ref;
    cp_code code = cp_admin_load(c->s, mo, err);
    if (code == CP_OK && !cp_admin_emit(c->s, id, &c->reply))
        code = cp_fail_param(err, CP_MODEL_NOT_FOUND, "ref", "%.200s was unloaded again", id);
    return code;
}

static cp_code act_unload(cp_call *c, cp_err *err)
{
    const unload *u = c->p.order;
    cp_code code = cp_admin_unload(c->s, u->model, u->drain_ms, err);
    cp_buf_adds(&c->reply, "{\"id\":");
    cp_emit_str(&c->reply, u->model, strlen(u->model));
    cp_buf_adds(&c->reply, ",\"object\":\"model\",\"state\":\"unloaded\"}");
    return code;
}

/* ---- the tables ---- */

static const char *const load_texts[] = {"ref", "alias", "chat_template_file", NULL};
static const char *const unload_texts[] = {"model", NULL};

const cp_api cp_api_load = {
    .name = "load",
    .fields = &table,
    .at = CP_AT_LOAD,
    .texts = load_texts,
    .parse = parse_load,
    .prompt_field = "ref",
    .no_model = true,
    .act = act_load,
    .error = cp_openai_error,
};

const cp_api cp_api_unload = {
    .name = "unload",
    .fields = &table,
    .at = CP_AT_UNLOAD,
    .texts = unload_texts,
    .parse = parse_unload,
    .prompt_field = "model",
    .no_model = true,
    .act = act_unload,
    .error = cp_openai_error,
};
