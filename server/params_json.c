/*
 * The table of request fields and its interpreter. A row says a field's name, where it may stand,
 * type, range and the place in cp_params; what is more than a number or a flag is read by hand
 * (stop, logit_bias, prompt ...). Three more lists follow: fields that are known and would change
 * the output but are not built, each with the values that are no use of it; fields that are known
 * and change nothing; and everything else, which is ignored and named to the log. null is "not
 * given" everywhere.
 */
#include "server/params.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <string.h>

enum { CT = CP_AT_CHAT | CP_AT_TEXT, CHAT = CP_AT_CHAT | CP_AT_APPLY };

typedef enum row_type { ROW_NUM, ROW_INT, ROW_BOOL } row_type;

typedef struct row {
    const char *name;
    unsigned where;
    row_type type;
    bool above_min; /* the minimum itself is not allowed */
    double min, max;
    size_t at;  /* double, int64_t or bool in cp_params */
    size_t has; /* bool that is set when the field is given; 0: none (offset 0 is `model`) */
} row;

#define AT(field) offsetof(cp_params, field)
#define INT_TOP   2147483647.0
#define INT64_TOP 9223372036854775807.0

static const row rows[] = {
    {"temperature", CT, ROW_NUM, false, 0, 2, AT(temperature), 0},
    {"top_p", CT, ROW_NUM, false, 0, 1, AT(top_p), 0},
    {"min_p", CT, ROW_NUM, false, 0, 1, AT(min_p), 0},
    {"presence_penalty", CT, ROW_NUM, false, -2, 2, AT(presence_penalty), 0},
    {"frequency_penalty", CT, ROW_NUM, false, -2, 2, AT(frequency_penalty), 0},
    {"repetition_penalty", CT, ROW_NUM, true, 0, 100, AT(repetition_penalty), 0},
    {"top_k", CT, ROW_INT, false, -1, INT_TOP, AT(top_k), 0},
    {"n", CT, ROW_INT, false, 1, CP_N_MAX, AT(n), 0},
    {"seed", CT, ROW_INT, false, -INT64_TOP, INT64_TOP, AT(seed), AT(has_seed)},
    {"max_tokens", CP_AT_CHAT, ROW_INT, false, 1, INT_TOP, AT(max_tokens), 0},
    {"max_tokens", CP_AT_TEXT, ROW_INT, false, 0, INT_TOP, AT(max_tokens), 0},
    {"min_tokens", CT, ROW_INT, false, 0, INT_TOP, AT(min_tokens), 0},
    {"top_logprobs", CP_AT_CHAT, ROW_INT, false, 0, CP_MAX_TOP, AT(top_logprobs), 0},
    {"logprobs", CP_AT_TEXT, ROW_INT, false, 0, CP_MAX_TOP, AT(logprobs), 0},
    {"logprobs", CP_AT_CHAT, ROW_BOOL, false, 0, 0, AT(want_logprobs), 0},
    {"stream", CT, ROW_BOOL, false, 0, 0, AT(stream), 0},
    {"echo", CP_AT_TEXT, ROW_BOOL, false, 0, 0, AT(echo), 0},
    {"ignore_eos", CT, ROW_BOOL, false, 0, 0, AT(ignore_eos), 0},
    {"include_stop_str_in_output", CT, ROW_BOOL, false, 0, 0, AT(include_stop), 0},
    {"skip_special_tokens", CT, ROW_BOOL, false, 0, 0, AT(skip_special), 0},
    {"add_generation_prompt", CHAT | CP_AT_TOKENIZE, ROW_BOOL, false, 0, 0,
     AT(add_generation_prompt), 0},
    {"add_special_tokens", CP_AT_TEXT | CP_AT_TOKENIZE, ROW_BOOL, false, 0, 0, AT(add_special), 0},
    {"add_special", CP_AT_TOKENIZE, ROW_BOOL, false, 0, 0, AT(add_special), 0},
    {"parse_special", CP_AT_TOKENIZE, ROW_BOOL, false, 0, 0, AT(parse_special), 0},
};
enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };

/* Read before the table, because it wins over max_tokens. */
static const row row_max_completion = {
    "max_completion_tokens", CP_AT_CHAT, ROW_INT, false, 1, INT_TOP, AT(max_tokens), 0};

/* Not built. harmless: values that are no use of the field, besides null: JSON scalars, [] and {},
 * `<=0`, `<=n` (not above the request's n), `text` (an object of type text). */
typedef struct refused {
    const char *name;
    unsigned where;
    const char *harmless;
} refused;

static const refused not_built[] = {
    /* OpenAI */
    {"tools", CT, "[]"},
    {"tool_choice", CT, "\"none\" \"auto\""},
    {"functions", CT, "[]"},
    {"function_call", CT, "\"none\" \"auto\""},
    {"response_format", CT, "text"},
    {"best_of", CT, "<=n"},
    {"suffix", CT, "\"\""},
    {"modalities", CT, "[] [text]"},
    {"audio", CT, ""},
    {"web_search_options", CT, ""},
    {"reasoning_effort", CT, ""},
    {"reasoning", CT, ""},
    {"verbosity", CT, "\"medium\""},
    /* vLLM and SGLang */
    {"echo", CP_AT_CHAT, "false"},
    {"add_special_tokens", CP_AT_CHAT, "false"},
    {"continue_final_message", CHAT, "false"},
    {"chat_template", CHAT, "\"\""},
    {"documents", CHAT, "[]"},
    {"guided_json", CT, ""},
    {"guided_regex", CT, "\"\""},
    {"guided_choice", CT, "[]"},
    {"guided_grammar", CT, "\"\""},
    {"structured_outputs", CT, "{}"},
    {"structural_tag", CT, ""},
    {"regex", CT, "\"\""},
    {"ebnf", CT, "\"\""},
    {"allowed_token_ids", CT, ""},
    {"bad_words", CT, "[]"},
    {"logits_processors", CT, "[]"},
    {"logprob_token_ids", CT, "[]"},
    {"use_beam_search", CT, "false"},
    {"prompt_logprobs", CT, ""},
    {"truncate_prompt_tokens", CT, ""},
    {"spaces_between_special_tokens", CT, "true"},
    {"return_token_ids", CT, "false"},
    {"return_tokens_as_token_ids", CT, "false"},
    {"prompt_embeds", CT, "\"\""},
    {"repetition_detection", CT, "false"},
    {"thinking_token_budget", CT, ""},
    {"priority", CT, "0"},
    {"stop_regex", CT, "\"\" []"},
    {"no_stop_trim", CT, "false"},
    {"kv_transfer_params", CT, "{}"},
    {"lora_path", CT, "\"\""},
    /* llama-server */
    {"grammar", CT, "\"\""},
    {"json_schema", CT, ""},
    {"typical_p", CT, "1"},
    {"top_n_sigma", CT, "<=0"},
    {"xtc_probability", CT, "0"},
    {"dynatemp_range", CT, "0"},
    {"mirostat", CT, "0"},
    {"adaptive_target", CT, "<=-1"},
    {"dry_multiplier", CT, "0"},
    {"repeat_penalty", CT, "1"},
    {"samplers", CT, ""},
    {"min_keep", CT, "0"},
    {"n_predict", CT, "<=-1"},
    {"n_probs", CT, "0"},
    {"n_indent", CT, "0"},
    {"post_sampling_probs", CT, "false"},
    {"t_max_predict_ms", CT, "<=0"},
    {"timings_per_token", CT, "false"},
    {"return_progress", CT, "false"},
    {"return_tokens", CT, "false"},
    {"response_fields", CT, "[]"},
    {"reasoning_budget_tokens", CT, "-1"},
    {"thinking_budget_tokens", CT, "-1"},
    {"input_extra", CT, "[]"},
    {"lora", CT, "[]"},
};
enum { N_NOT_BUILT = sizeof(not_built) / sizeof(not_built[0]) };

/* Known and without a say in the output, or read by hand below. */
static const char *const quiet[] = {"model",
                                    "messages",
                                    "prompt",
                                    "content",
                                    "tokens",
                                    "stop",
                                    "stop_token_ids",
                                    "logit_bias",
                                    "stream_options",
                                    "chat_template_kwargs",
                                    "enable_thinking",
                                    "cache_salt",
                                    "max_completion_tokens",
                                    "user",
                                    "metadata",
                                    "store",
                                    "service_tier",
                                    "safety_identifier",
                                    "prompt_cache_key",
                                    "prompt_cache_retention",
                                    "prediction",
                                    "parallel_tool_calls",
                                    "include_reasoning",
                                    "separate_reasoning",
                                    "request_id",
                                    "session_id",
                                    "id_slot",
                                    "cache_prompt",
                                    "n_cache_reuse",
                                    "n_keep",
                                    "stream_interval",
                                    "repeat_last_n",
                                    "xtc_threshold",
                                    "dynatemp_exponent",
                                    "mirostat_tau",
                                    "mirostat_eta",
                                    "adaptive_decay",
                                    "dry_base",
                                    "dry_allowed_length",
                                    "dry_penalty_last_n",
                                    "dry_sequence_breakers",
                                    "length_penalty",
                                    "early_stopping",
                                    "add_special",
                                    "parse_special",
                                    "with_pieces"};
enum { N_QUIET = sizeof(quiet) / sizeof(quiet[0]) };

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

static cp_code out_of_range(const row *r, const json_t *v, cp_err *err)
{
    char say[64];
    cp_json_say(v, say, sizeof(say));
    if (r->type == ROW_BOOL)
        return cp_fail_param(err, CP_INVALID_VALUE, r->name, "'%s' is %s; allowed: true or false",
                             r->name, say);
    if (r->type == ROW_INT && r->max >= INT64_TOP)
        return cp_fail_param(err, CP_INVALID_VALUE, r->name,
                             "'%s' is %s; allowed: an integer of 64 bits", r->name, say);
    return cp_fail_param(err, CP_INVALID_VALUE, r->name, "'%s' is %s; allowed: %s %s%.15g to %.15g",
                         r->name, say, r->type == ROW_INT ? "an integer from" : "a number from",
                         r->above_min ? "above " : "", r->min, r->max);
}

static cp_code read_row(const row *r, const json_t *v, cp_params *p, cp_err *err)
{
    char *at = (char *)p + r->at;
    if (r->has)
        *((bool *)((char *)p + r->has)) = true;
    if (r->type == ROW_BOOL) {
        if (!json_is_boolean(v))
            return out_of_range(r, v, err);
        *(bool *)at = json_is_true(v);
        return CP_OK;
    }
    if (r->type == ROW_INT) {
        int64_t i;
        if (!get_integer(v, &i))
            return out_of_range(r, v, err);
        if (r->max < INT64_TOP && ((double)i < r->min || (double)i > r->max))
            return out_of_range(r, v, err);
        *(int64_t *)(void *)at = i;
        return CP_OK;
    }
    double d = number(v);
    if (!(d >= r->min && d <= r->max) || (r->above_min && d <= r->min))
        return out_of_range(r, v, err);
    *(double *)(void *)at = d;
    return CP_OK;
}

/* ---- fields that are not built ---- */

static bool literal_matches(const char *lit, size_t n, const json_t *v, int64_t n_choices)
{
    if (n == 2 && memcmp(lit, "[]", 2) == 0)
        return json_is_array(v) && json_array_size(v) == 0;
    if (n == 2 && memcmp(lit, "{}", 2) == 0)
        return json_is_object(v) && json_object_size(v) == 0;
    if (n == 6 && memcmp(lit, "[text]", 6) == 0) {
        const char *s = json_string_value(json_array_get(v, 0));
        return json_array_size(v) == 1 && s && strcmp(s, "text") == 0;
    }
    if (n == 4 && memcmp(lit, "text", 4) == 0) {
        const char *s = json_string_value(json_object_get(v, "type"));
        return s && strcmp(s, "text") == 0;
    }
    if (n == 4 && memcmp(lit, "true", 4) == 0)
        return json_is_true(v);
    if (n == 5 && memcmp(lit, "false", 5) == 0)
        return json_is_false(v);
    if (lit[0] == '"')
        return json_is_string(v) && json_string_length(v) == n - 2 &&
               memcmp(json_string_value(v), lit + 1, n - 2) == 0;
    if (n == 3 && memcmp(lit, "<=n", 3) == 0)
        return json_is_integer(v) && json_integer_value(v) >= 1 &&
               json_integer_value(v) <= n_choices;
    bool at_most = n > 2 && memcmp(lit, "<=", 2) == 0;
    double want = strtod(lit + (at_most ? 2 : 0), NULL);
    double got = number(v);
    return got <= want && (at_most || got >= want);
}

static bool harmless(const char *list, const json_t *v, int64_t n_choices)
{
    while (*list) {
        size_t n = strcspn(list, " ");
        if (literal_matches(list, n, v, n_choices))
            return true;
        list += n + (list[n] == ' ');
    }
    return false;
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

/* Every key of the body against the lists. */
static cp_code read_keys(parser *ps, cp_err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)ps->body, key, v)
    {
        bool known = false;
        for (int i = 0; i < N_ROWS && !known; i++) {
            if (!(rows[i].where & ps->where) || strcmp(key, rows[i].name) != 0)
                continue;
            known = true;
            cp_code code = json_is_null(v) ? CP_OK : read_row(&rows[i], v, ps->out, err);
            if (code != CP_OK)
                return code;
        }
        for (int i = 0; i < N_NOT_BUILT && !known; i++) {
            if (!(not_built[i].where & ps->where) || strcmp(key, not_built[i].name) != 0)
                continue;
            known = true;
            const json_t *n = get(ps->body, "n");
            int64_t n_choices = 1;
            if (n)
                (void)get_integer(n, &n_choices);
            if (json_is_null(v) || harmless(not_built[i].harmless, v, n_choices))
                continue;
            char say[64];
            return cp_fail_param(err, CP_UNSUPPORTED_FIELD, key,
                                 "'%s' (%s) is not supported by this server; leave it out", key,
                                 cp_json_say(v, say, sizeof(say)));
        }
        for (int i = 0; i < N_QUIET && !known; i++)
            known = strcmp(key, quiet[i]) == 0;
        if (!known)
            note_unknown(ps, key);
    }
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
        int64_t id = json_is_integer(e) ? json_integer_value(e) : -1;
        char say[64];
        if (id < 0 || id >= ps->n_vocab)
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
        char *end = NULL;
        long id = key[0] >= '0' && key[0] <= '9' ? strtol(key, &end, 10) : -1;
        if (id < 0 || *end || id >= ps->n_vocab)
            return cp_fail_param(err, CP_INVALID_VALUE, "logit_bias",
                                 "'logit_bias' has the key '%.24s'; allowed: token ids from \"0\" "
                                 "to \"%d\"",
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
    if (!ps->out->stream)
        return cp_fail_param(err, CP_INVALID_VALUE, "stream_options",
                             "'stream_options' needs 'stream': true");
    const json_t *u = get(v, "include_usage");
    if (u && !json_is_boolean(u))
        return cp_fail_param(err, CP_INVALID_VALUE, "stream_options.include_usage",
                             "'stream_options.include_usage' is %s; allowed: true or false",
                             cp_json_say(u, say, sizeof(say)));
    ps->out->include_usage = u && json_is_true(u);
    const json_t *c = get(v, "continuous_usage_stats");
    if (c && !json_is_false(c))
        return cp_fail_param(err, CP_UNSUPPORTED_FIELD, "stream_options.continuous_usage_stats",
                             "'stream_options.continuous_usage_stats' is not supported by this "
                             "server; leave it out");
    return CP_OK;
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
    const json_t *think = get(ps->body, "enable_thinking");
    if (code != CP_OK || !think)
        return code;
    char say[64];
    if (!json_is_boolean(think))
        return cp_fail_param(err, CP_INVALID_VALUE, "enable_thinking",
                             "'enable_thinking' is %s; allowed: true or false",
                             cp_json_say(think, say, sizeof(say)));
    cp_val *b = cp_val_bool(ps->render, json_is_true(think));
    return b && cp_val_set(ps->render, p->vars, "enable_thinking", b) ? CP_OK : out_of_memory(err);
}

/* What one field alone cannot say. */
static cp_code check_together(const cp_params *p, unsigned where, cp_err *err)
{
    if (where == CP_AT_CHAT && p->top_logprobs >= 0 && !p->want_logprobs)
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
    p->max_tokens = d->max_tokens;
    p->has_seed = d->has_seed;
    p->seed = d->seed;
    p->n = 1;
    p->top_logprobs = p->logprobs = -1;
    p->skip_special = p->add_generation_prompt = p->add_special = true;
}

static cp_code parse_body(parser *ps, const cp_params_env *env, cp_err *err)
{
    const json_t *name = get(ps->body, "model");
    char say[64];
    if (name && !json_is_string(name))
        return cp_fail_param(err, CP_INVALID_VALUE, "model", "'model' is %s; allowed: a string",
                             cp_json_say(name, say, sizeof(say)));
    cp_str want = {json_string_value(name), json_string_length(name)};
    cp_params_model m = {0};
    cp_code code = env->find_model(env->arg, want, &m, err);
    if (code != CP_OK)
        return code;
    set_defaults(ps->out, &m);
    ps->n_vocab = m.n_vocab;
    code = read_keys(ps, err);
    const json_t *completion = get(ps->body, row_max_completion.name);
    if (code == CP_OK && completion && (ps->where & row_max_completion.where))
        code = read_row(&row_max_completion, completion, ps->out, err);
    if (code == CP_OK && (ps->where & CT)) {
        code = read_stop(ps, m.defaults, err);
        if (code == CP_OK)
            code = read_stop_ids(ps, err);
        if (code == CP_OK)
            code = read_bias(ps, err);
        if (code == CP_OK)
            code = read_stream_options(ps, err);
        const json_t *salt = get(ps->body, "cache_salt");
        if (code == CP_OK && salt && !json_is_string(salt))
            code = cp_fail_param(err, CP_INVALID_VALUE, "cache_salt",
                                 "'cache_salt' is %s; allowed: a string",
                                 cp_json_say(salt, say, sizeof(say)));
        else if (code == CP_OK && salt)
            code = copy_string(ps, salt, &ps->out->cache_salt, err);
    }
    if (code != CP_OK)
        return code;
    bool chat = (ps->where & CHAT) || (ps->where == CP_AT_TOKENIZE && get(ps->body, "messages"));
    if (chat)
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
    static const char *const chat[] = {"messages", "model", "stop", "cache_salt", NULL};
    static const char *const text[] = {"prompt", "model", "stop", "cache_salt", NULL};
    static const char *const tokenize[] = {"messages", "content", "prompt", "model", NULL};
    return where & CHAT ? chat : where == CP_AT_TEXT ? text : tokenize;
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
    code = parse_body(&ps, env, err);
    cp_json_free(&doc, &left);
    return code;
}

int cp_param_ranges(int i, cp_param_range *out)
{
    int n = 0;
    for (int r = 0; r <= N_ROWS; r++) {
        const row *x = r < N_ROWS ? &rows[r] : &row_max_completion;
        if (x->type == ROW_BOOL || n++ != i)
            continue;
        *out = (cp_param_range){.name = x->name,
                                .where = x->where,
                                .is_int = x->type == ROW_INT,
                                .above_min = x->above_min,
                                .min = x->min,
                                .max = x->max};
    }
    return n;
}

const char *cp_param_unsupported(int i, unsigned *where)
{
    if (i < 0 || i >= N_NOT_BUILT)
        return NULL;
    *where = not_built[i].where;
    return not_built[i].name;
}
