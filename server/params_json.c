/*
 * The interpreter of the table of request fields (fields.def). What is more than a number or a flag
 * is read by hand (stop, logit_bias, prompt ...). A field that would change the output and is not
 * built is refused, but for the values that are no use of it. null is "not given" everywhere.
 */
#include "server/params.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <string.h>

enum { GENERATE = CP_AT_CHAT | CP_AT_TEXT, CHAT = CP_AT_CHAT | CP_AT_APPLY | CP_AT_COUNT };

typedef struct parser {
    unsigned where;
    cp_arena *arena, *render;
    const json_t *body;
    cp_params *out;
    cp_json_left *left;
    int32_t n_vocab;
} parser;

static cp_code out_of_memory(cp_err *err)
{
    return cp_fail(err, CP_NO_MEMORY, "the request needs more memory than one request may have");
}

/* The field, or NULL when it is absent or null. */
static const json_t *get(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return v && !json_is_null(v) ? v : NULL;
}

/* NaN, which is in no range, for what is not a number. */
static double number(const json_t *v)
{
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

/* An integer, also when spelled 5.0. */
static bool get_integer(const json_t *v, int64_t *out)
{
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    double d = json_is_real(v) ? number(v) : (double)NAN;
    if (!(fabs(d) <= 9007199254740992.0) || d != floor(d))
        return false;
    *out = (int64_t)d;
    return true;
}

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
        if (!get_integer(v, &i))
            return out_of_range(f, v, err);
        if (f->max < CP_FIELD_INT64_TOP && ((double)i < f->min || (double)i > f->max))
            return out_of_range(f, v, err);
        *(int64_t *)(void *)to = i;
        return CP_OK;
    }
    double d = number(v);
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
        return get_integer(v, &count) && count >= 1 && count <= n_choices;
    bool at_most = n > 2 && memcmp(lit, "<=", 2) == 0;
    double want = strtod(lit + (at_most ? 2 : 0), NULL);
    double got = number(v);
    return got <= want && (at_most || got >= want);
}

static bool is_empty(const json_t *v)
{
    return json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

static bool no_use(const parser *ps, const char *list, const json_t *v)
{
    const json_t *n = get(ps->body, "n");
    int64_t n_choices = 1;
    if (n)
        (void)get_integer(n, &n_choices);
    while (*list) {
        size_t len = strcspn(list, " ");
        if (literal_matches(list, len, v, n_choices))
            return true;
        list += len + (list[len] == ' ');
    }
    return is_empty(v);
}

static void note_unknown(parser *ps, const char *name)
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

static cp_code refuse(const parser *ps, const cp_field *f, const json_t *v, cp_err *err)
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
static cp_code read_keys(parser *ps, cp_err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)ps->body, key, v)
    {
        const cp_field *f = cp_field_find(key, ps->where);
        if (!f)
            note_unknown(ps, key);
        if (!f || !(f->at & ps->where) || f->kind == CP_FIELD_HAND || json_is_null(v))
            continue;
        cp_code code =
            f->kind == CP_FIELD_REFUSED ? refuse(ps, f, v, err) : read_field(f, v, ps->out, err);
        if (code != CP_OK)
            return code;
    }
    /* -1 is how vLLM and llama-server spell out a random seed. */
    if (get(ps->body, "seed") && ps->out->seed == -1)
        ps->out->has_seed = false;
    if (ps->out->max_completion >= 0)
        ps->out->max_tokens = ps->out->max_completion;
    return CP_OK;
}

/* ---- fields read by hand ---- */

static cp_code copy_string(parser *ps, const json_t *v, cp_str *out, cp_err *err)
{
    out->n = json_string_length(v);
    out->p = cp_arena_strndup(ps->arena, json_string_value(v), out->n);
    return out->p ? CP_OK : out_of_memory(err);
}

/* The model's own, of a request that says nothing; [] says none. */
static cp_code default_stops(parser *ps, const cp_sampling_defaults *d, cp_err *err)
{
    if (d->n_stop == 0)
        return CP_OK;
    _Static_assert((int)CP_DEFAULT_STOPS <= (int)CP_STOP_MAX, "as many as a request may have");
    cp_str *list = cp_arena_alloc(ps->arena, CP_DEFAULT_STOPS * sizeof(*list));
    if (!list)
        return out_of_memory(err);
    for (int i = 0; i < d->n_stop; i++)
        list[i] = (cp_str){d->stop[i], strlen(d->stop[i])}; /* the model outlives its calls */
    ps->out->stop = list;
    ps->out->n_stop = d->n_stop;
    return CP_OK;
}

static cp_code read_stop(parser *ps, const cp_sampling_defaults *d, cp_err *err)
{
    const json_t *v = get(ps->body, "stop");
    if (!v)
        return default_stops(ps, d, err);
    bool one = json_is_string(v);
    size_t n = one ? 1 : json_array_size(v);
    char say[64];
    if ((!one && !json_is_array(v)) || n > CP_STOP_MAX)
        return cp_fail_param(err, CP_INVALID_VALUE, "stop",
                             "'stop' is %s; allowed: a string or a list of at most %d strings",
                             cp_json_say(v, say, sizeof(say)), CP_STOP_MAX);
    cp_str *list = cp_arena_alloc(ps->arena, (n + 1) * sizeof(*list));
    if (!list)
        return out_of_memory(err);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = one ? v : json_array_get(v, i);
        size_t len = json_string_length(s);
        if (!json_is_string(s) || len == 0 || len > CP_STOP_BYTES)
            return cp_fail_param(err, CP_INVALID_VALUE, "stop",
                                 "'stop' holds %s; allowed: strings of 1 to %d bytes",
                                 cp_json_say(s, say, sizeof(say)), CP_STOP_BYTES);
        cp_code code = copy_string(ps, s, &list[i], err);
        if (code != CP_OK)
            return code;
    }
    ps->out->stop = list;
    ps->out->n_stop = (int)n;
    return CP_OK;
}

/* A list of ids in [0, n_vocab) into the arena. */
static cp_code read_ids(parser *ps, const json_t *v, const char *field, const int32_t **out, int *n,
                        cp_err *err)
{
    size_t count = json_array_size(v);
    int32_t *ids = cp_arena_alloc(ps->arena, (count + 1) * sizeof(*ids));
    if (!ids)
        return out_of_memory(err);
    for (size_t i = 0; i < count; i++) {
        const json_t *e = json_array_get(v, i);
        int64_t id;
        char say[64];
        if (!get_integer(e, &id) || id < 0 || id >= ps->n_vocab)
            return cp_fail_param(err, CP_INVALID_VALUE, field,
                                 "'%s[%zu]' is %s; allowed: token ids from 0 to %d", field, i,
                                 cp_json_say(e, say, sizeof(say)), ps->n_vocab - 1);
        ids[i] = (int32_t)id;
    }
    *out = ids;
    *n = (int)count;
    return CP_OK;
}

static cp_code read_stop_ids(parser *ps, cp_err *err)
{
    const json_t *v = get(ps->body, "stop_token_ids");
    if (!v)
        return CP_OK;
    char say[64];
    if (!json_is_array(v) || json_array_size(v) > CP_STOP_IDS_MAX)
        return cp_fail_param(err, CP_INVALID_VALUE, "stop_token_ids",
                             "'stop_token_ids' is %s; allowed: a list of at most %d token ids",
                             cp_json_say(v, say, sizeof(say)), CP_STOP_IDS_MAX);
    return read_ids(ps, v, "stop_token_ids", &ps->out->stop_ids, &ps->out->n_stop_ids, err);
}

static cp_code read_bias(parser *ps, cp_err *err)
{
    const json_t *v = get(ps->body, "logit_bias");
    if (!v)
        return CP_OK;
    char say[64];
    size_t n = json_object_size(v);
    if (!json_is_object(v) || n > CP_BIAS_MAX)
        return cp_fail_param(err, CP_INVALID_VALUE, "logit_bias",
                             "'logit_bias' is %s; allowed: an object of at most %d token ids",
                             cp_json_say(v, say, sizeof(say)), CP_BIAS_MAX);
    struct cp_logit_bias *bias = cp_arena_alloc(ps->arena, (n + 1) * sizeof(*bias));
    if (!bias)
        return out_of_memory(err);
    int count = 0;
    const char *key;
    json_t *e;
    json_object_foreach((json_t *)(uintptr_t)v, key, e)
    {
        /* One spelling an id, so that none stands there twice. */
        char *end = NULL;
        long id = key[0] >= '0' && key[0] <= '9' ? strtol(key, &end, 10) : -1;
        if (id < 0 || *end || id >= ps->n_vocab || (key[0] == '0' && key[1]))
            return cp_fail_param(err, CP_INVALID_VALUE, "logit_bias",
                                 "'logit_bias' has the key '%.24s'; allowed: token ids from \"0\" "
                                 "to \"%d\", without leading zeros",
                                 key, ps->n_vocab - 1);
        double d = number(e);
        if (!(d >= -100 && d <= 100))
            return cp_fail_param(err, CP_INVALID_VALUE, "logit_bias",
                                 "'logit_bias.%ld' is %s; allowed: a number from -100 to 100", id,
                                 cp_json_say(e, say, sizeof(say)));
        bias[count].id = (int32_t)id;
        bias[count++].bias = (float)d;
    }
    ps->out->bias = bias;
    ps->out->n_bias = count;
    return CP_OK;
}

static cp_code read_stream_options(parser *ps, cp_err *err)
{
    const json_t *v = get(ps->body, "stream_options");
    if (!v)
        return CP_OK;
    char say[64];
    if (!json_is_object(v))
        return cp_fail_param(err, CP_INVALID_VALUE, "stream_options",
                             "'stream_options' is %s; allowed: an object",
                             cp_json_say(v, say, sizeof(say)));
    static const char *const names[] = {"include_usage", "continuous_usage_stats"};
    bool on[2] = {false, false};
    for (int i = 0; i < 2; i++) {
        const json_t *flag = get(v, names[i]);
        char param[64];
        cp_snprintf(param, sizeof(param), "stream_options.%s", names[i]);
        if (flag && !json_is_boolean(flag))
            return cp_fail_param(err, CP_INVALID_VALUE, param, "'%s' is %s; allowed: true or false",
                                 param, cp_json_say(flag, say, sizeof(say)));
        on[i] = json_is_true(flag);
    }
    if ((on[0] || on[1]) && !ps->out->stream)
        return cp_fail_param(err, CP_INVALID_VALUE, "stream_options",
                             "'stream_options' needs 'stream': true");
    /* As in vLLM the one is a way of the other. */
    ps->out->include_usage = on[0];
    ps->out->continuous_usage = on[0] && on[1];
    return CP_OK;
}

/* An empty salt would share what its sender meant to keep apart. */
static cp_code read_salt(parser *ps, cp_err *err)
{
    const json_t *v = get(ps->body, "cache_salt");
    char say[64];
    if (!v)
        return CP_OK;
    if (!json_is_string(v) || json_string_length(v) == 0)
        return cp_fail_param(err, CP_INVALID_VALUE, "cache_salt",
                             "'cache_salt' is %s; allowed: a string of at least one byte",
                             json_is_string(v) ? "empty" : cp_json_say(v, say, sizeof(say)));
    return copy_string(ps, v, &ps->out->cache_salt, err);
}

static cp_code one_prompt(parser *ps, const json_t *v, const char *field, cp_prompt *out,
                          cp_err *err)
{
    if (json_is_string(v))
        return copy_string(ps, v, &out->text, err);
    return read_ids(ps, v, field, &out->ids, &out->n_ids, err);
}

/* string, [string], [ids], [[ids]], and lists that mix strings and lists of ids. */
static cp_code read_prompt(parser *ps, cp_err *err)
{
    const json_t *v = get(ps->body, "prompt");
    if (!v)
        return cp_fail_param(err, CP_MISSING_FIELD, "prompt",
                             "'prompt' is missing; give a string, a list of strings, token ids or "
                             "a list of lists of token ids");
    size_t n = json_array_size(v);
    bool many = json_is_array(v) && n > 0 && !json_is_number(json_array_get(v, 0));
    char say[64];
    if ((!json_is_string(v) && !json_is_array(v)) || (json_is_array(v) && n == 0) ||
        (many && n > CP_PROMPTS_MAX))
        return cp_fail_param(err, CP_INVALID_VALUE, "prompt",
                             "'prompt' is %s; allowed: a string, token ids, or a list of 1 to %d "
                             "of these",
                             cp_json_say(v, say, sizeof(say)), CP_PROMPTS_MAX);
    if (!many)
        n = 1;
    cp_prompt *list = cp_arena_alloc(ps->arena, n * sizeof(*list));
    if (!list)
        return out_of_memory(err);
    for (size_t i = 0; i < n; i++) {
        const json_t *e = many ? json_array_get(v, i) : v;
        char field[32];
        cp_snprintf(field, sizeof(field), many ? "prompt[%zu]" : "prompt", i);
        if (!json_is_string(e) && !(json_is_array(e) && json_array_size(e) > 0))
            return cp_fail_param(err, CP_INVALID_VALUE, field,
                                 "'%s' is %s; allowed: a string or a list of token ids", field,
                                 cp_json_say(e, say, sizeof(say)));
        cp_code code = one_prompt(ps, e, field, &list[i], err);
        if (code != CP_OK)
            return code;
    }
    ps->out->prompts = list;
    ps->out->n_prompts = (int)n;
    return CP_OK;
}

/* /tokenize: content, prompt or messages; /detokenize: tokens. */
static cp_code read_text(parser *ps, cp_err *err)
{
    bool ids = ps->where == CP_AT_DETOKENIZE;
    const char *field = ids ? "tokens" : get(ps->body, "content") ? "content" : "prompt";
    const json_t *v = get(ps->body, field);
    if (!v)
        return cp_fail_param(err, CP_MISSING_FIELD, ids ? "tokens" : "content",
                             ids ? "'tokens' is missing; give a list of token ids"
                                 : "'content' is missing; give a string, or 'messages'");
    char say[64];
    if (ids ? !json_is_array(v) : !json_is_string(v))
        return cp_fail_param(err, CP_INVALID_VALUE, field, "'%s' is %s; allowed: %s", field,
                             cp_json_say(v, say, sizeof(say)),
                             ids ? "a list of token ids" : "a string");
    cp_prompt *p = cp_arena_alloc(ps->arena, sizeof(*p));
    if (!p)
        return out_of_memory(err);
    cp_code code = one_prompt(ps, v, field, p, err);
    ps->out->prompts = p;
    ps->out->n_prompts = 1;
    return code;
}

/* As vLLM: reasoning_effort is a variable of the template, and where the request does not say it
 * itself, also enable_thinking, false for "none". A template that reads neither ignores both. */
static cp_code read_thinking(parser *ps, const json_t *kwargs, cp_err *err)
{
    const json_t *think = get(ps->body, "enable_thinking");
    const json_t *effort = get(ps->body, "reasoning_effort");
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
            return out_of_memory(err);
    }
    if (effort) {
        cp_val *v = cp_val_of_json(a, effort);
        if (!v || !cp_val_set(a, vars, "reasoning_effort", v))
            return out_of_memory(err);
    }
    return CP_OK;
}

static cp_code read_chat(parser *ps, cp_err *err)
{
    const json_t *m = get(ps->body, "messages");
    if (!m)
        return cp_fail_param(err, CP_MISSING_FIELD, "messages",
                             "'messages' is missing; give a list of {\"role\", \"content\"}");
    cp_params *p = ps->out;
    p->vars = cp_val_dict(ps->render);
    if (!p->vars)
        return out_of_memory(err);
    cp_code code = cp_messages_parse(m, ps->left, ps->render, &p->messages, err);
    const json_t *kwargs = get(ps->body, "chat_template_kwargs");
    if (code == CP_OK && kwargs)
        code = cp_kwargs_parse(kwargs, ps->render, p->vars, err);
    return code == CP_OK ? read_thinking(ps, kwargs, err) : code;
}

/* What one field alone cannot say. */
static cp_code check_together(const cp_params *p, unsigned where, cp_err *err)
{
    if (where == CP_AT_CHAT && p->top_logprobs > 0 && !p->want_logprobs)
        return cp_fail_param(err, CP_INVALID_VALUE, "top_logprobs",
                             "'top_logprobs' needs 'logprobs': true");
    if (where == CP_AT_TEXT && p->max_tokens == 0 && !p->echo)
        return cp_fail_param(err, CP_INVALID_VALUE, "max_tokens",
                             "'max_tokens' is 0; allowed: 1 and more, 0 only with 'echo': true");
    if (p->max_tokens >= 0 && p->min_tokens > p->max_tokens)
        return cp_fail_param(err, CP_INVALID_VALUE, "min_tokens",
                             "'min_tokens' is %lld; allowed: at most max_tokens, %lld",
                             (long long)p->min_tokens, (long long)p->max_tokens);
    if (p->n_prompts > 0 && p->n * p->n_prompts > CP_CHOICES_MAX)
        return cp_fail_param(err, CP_INVALID_VALUE, "n",
                             "%d prompts with 'n' %lld are %lld choices; allowed: at most %d",
                             p->n_prompts, (long long)p->n, (long long)p->n * p->n_prompts,
                             CP_CHOICES_MAX);
    return CP_OK;
}

static void set_defaults(cp_params *p, const cp_params_model *m)
{
    const cp_sampling_defaults *d = m->defaults;
    p->model = m->handle;
    p->temperature = d->temperature;
    p->top_p = d->top_p;
    p->min_p = d->min_p;
    p->repetition_penalty = d->repetition_penalty;
    p->presence_penalty = d->presence_penalty;
    p->frequency_penalty = d->frequency_penalty;
    p->top_k = d->top_k;
    p->max_tokens = -1;
    p->default_max_tokens = d->max_tokens;
    p->has_seed = d->has_seed;
    p->seed = d->seed;
    p->n = 1;
    p->top_logprobs = p->logprobs = p->max_completion = -1;
    p->skip_special = p->add_generation_prompt = p->add_special = true;
}

static cp_code parse_body(parser *ps, const cp_params_env *env, cp_err *err)
{
    const json_t *name = get(ps->body, "model");
    char say[64];
    if (name && !json_is_string(name))
        return cp_fail_param(err, CP_INVALID_VALUE, "model", "'model' is %s; allowed: a string",
                             cp_json_say(name, say, sizeof(say)));
    /* "" is what front ends send before anybody chose a model. */
    cp_str want = {0};
    if (json_string_length(name) > 0)
        want = (cp_str){json_string_value(name), json_string_length(name)};
    cp_params_model m = {0};
    cp_code code = env->find_model(env->arg, want, &m, err);
    if (code != CP_OK)
        return code;
    set_defaults(ps->out, &m);
    ps->n_vocab = m.n_vocab;
    code = read_keys(ps, err);
    if (code == CP_OK && (ps->where & GENERATE)) {
        code = read_stop(ps, m.defaults, err);
        if (code == CP_OK)
            code = read_stop_ids(ps, err);
        if (code == CP_OK)
            code = read_bias(ps, err);
        if (code == CP_OK)
            code = read_stream_options(ps, err);
    }
    if (code == CP_OK && (ps->where & (GENERATE | CHAT)))
        code = read_salt(ps, err);
    if (code != CP_OK)
        return code;
    if (ps->where & CHAT)
        code = read_chat(ps, err);
    else if (ps->where == CP_AT_TEXT)
        code = read_prompt(ps, err);
    else
        code = read_text(ps, err);
    return code == CP_OK ? check_together(ps->out, ps->where, err) : code;
}

/* The fields whose text is used, NULL behind the last. */
static const char *const *texts_of(unsigned where)
{
    static const char *const chat[] = {"messages", "model", "cache_salt", "stop", NULL};
    static const char *const apply[] = {"messages", "model", "cache_salt", NULL};
    static const char *const text[] = {"prompt", "model", "stop", "cache_salt", NULL};
    static const char *const tokenize[] = {"messages", "content", "prompt", "model", NULL};
    static const char *const detokenize[] = {"model", NULL};
    switch (where) {
    case CP_AT_CHAT:
        return chat;
    case CP_AT_APPLY:
        return apply;
    case CP_AT_TEXT:
        return text;
    default: /* COUNT is told from TOKENIZE after the scan */
        return where == CP_AT_DETOKENIZE ? detokenize : tokenize;
    }
}

cp_code cp_params_parse(char *body, size_t n, const cp_params_env *env, cp_arena *arena,
                        cp_arena *render, cp_params *out, cp_err *err)
{
    memset(out, 0, sizeof(*out));
    cp_json_left left = {.values = CP_JSON_VALUES, .account = env->account};
    cp_json doc;
    cp_code code = cp_json_load(body, n, NULL, texts_of(env->where), &left, &doc, err);
    if (code != CP_OK)
        return code;
    parser ps = {.where = env->where,
                 .arena = arena,
                 .render = render,
                 .body = doc.root,
                 .out = out,
                 .left = &left};
    if (ps.where == CP_AT_TOKENIZE && get(ps.body, "messages"))
        ps.where = CP_AT_COUNT;
    code = parse_body(&ps, env, err);
    cp_json_free(&doc, &left);
    return code;
}
