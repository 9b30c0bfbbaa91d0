/*
 * This file reads by hand what all APIs that generate have in common: stop strings and ids, biases,
 * the options of streams, and the salt of the cache.
 */
#include "server/parser.h"

#include <jansson.h>
#include <string.h>

static cp_code read_stop(cp_parser *ps, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, "stop");
    if (!v)
        /* the model's own; [] says none. The model outlives its calls. */
        return cp_params_default_stops(ps->out, ps->defaults, ps->arena) ? CP_OK
                                                                         : cp_parser_full(err);
    bool one = json_is_string(v);
    size_t n = one ? 1 : json_array_size(v);
    char say[64];
    if ((!one && !json_is_array(v)) || n > CP_STOP_MAX)
        return cp_fail_param(err, CP_INVALID_VALUE, "stop",
                             "'stop' is %s; allowed: a string or a list of at most %d strings",
                             cp_json_say(v, say, sizeof(say)), CP_STOP_MAX);
    cp_str *list = cp_arena_alloc(ps->arena, (n + 1) * sizeof(*list));
    if (!list)
        return cp_parser_full(err);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = one ? v : json_array_get(v, i);
        size_t len = json_string_length(s);
        if (!json_is_string(s) || len == 0 || len > CP_STOP_BYTES)
            return cp_fail_param(err, CP_INVALID_VALUE, "stop",
                                 "'stop' holds %s; allowed: strings of 1 to %d bytes",
                                 cp_json_say(s, say, sizeof(say)), CP_STOP_BYTES);
        cp_code code = cp_parser_string(ps, s, &list[i], err);
        if (code != CP_OK)
            return code;
    }
    ps->out->stop = list;
    ps->out->n_stop = (int)n;
    return CP_OK;
}

static cp_code read_stop_ids(cp_parser *ps, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, "stop_token_ids");
    if (!v)
        return CP_OK;
    char say[64];
    if (!json_is_array(v) || json_array_size(v) > CP_STOP_IDS_MAX)
        return cp_fail_param(err, CP_INVALID_VALUE, "stop_token_ids",
                             "'stop_token_ids' is %s; allowed: a list of at most %d token ids",
                             cp_json_say(v, say, sizeof(say)), CP_STOP_IDS_MAX);
    return cp_parser_ids(ps, v, "stop_token_ids", &ps->out->stop_ids, &ps->out->n_stop_ids, err);
}

static cp_code read_bias(cp_parser *ps, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, "logit_bias");
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
        return cp_parser_full(err);
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
        double d = cp_json_number(e);
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

static cp_code read_stream_options(cp_parser *ps, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, "stream_options");
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
        const json_t *flag = json_object_get(v, names[i]);
        char param[64];
        cp_snprintf(param, sizeof(param), "stream_options.%s", names[i]);
        if (flag && !json_is_null(flag) && !json_is_boolean(flag))
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
cp_code cp_read_salt(cp_parser *ps, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, "cache_salt");
    char say[64];
    if (!v)
        return CP_OK;
    if (!json_is_string(v) || json_string_length(v) == 0)
        return cp_fail_param(err, CP_INVALID_VALUE, "cache_salt",
                             "'cache_salt' is %s; allowed: a string of at least one byte",
                             json_is_string(v) ? "empty" : cp_json_say(v, say, sizeof(say)));
    return cp_parser_string(ps, v, &ps->out->cache_salt, err);
}

cp_code cp_read_generation(cp_parser *ps, cp_err *err)
{
    cp_code code = read_stop(ps, err);
    if (code == CP_OK)
        code = read_stop_ids(ps, err);
    if (code == CP_OK)
        code = read_bias(ps, err);
    return code == CP_OK ? read_stream_options(ps, err) : code;
}

cp_code cp_check_generation(const cp_params *p, cp_err *err)
{
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
