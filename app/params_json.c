/*
 * This file reads the sampling options that a packaging brought, in Ollama's names. Rows say which
 * are honoured and in what range; every other key is named in the log.
 * {"temperature":0.2,"mirostat":1} sets one default, and the log names mirostat.
 */
#include "app/defaults.h"
#include "base/log.h"
#include "base/sampling.h"

#include <jansson.h>
#include <stddef.h>
#include <string.h>

enum { PARAMS_BYTES_MAX = 64 << 10, KEYS_SHOWN = 512 };

typedef struct row {
    const char *key;
    double min, max;
    bool whole;
    size_t offset; /* in cp_sampling_defaults */
} row;

#define F(...) F_(__VA_ARGS__)
#define F_(key, min, max, field)                                                                   \
    {                                                                                              \
        key, min, max, false, offsetof(cp_sampling_defaults, field)                                \
    }
#define I(...) I_(__VA_ARGS__)
#define I_(key, min, max, field)                                                                   \
    {                                                                                              \
        key, min, max, true, offsetof(cp_sampling_defaults, field)                                 \
    }
static const row rows[] = {
    F("temperature", CP_RANGE_TEMPERATURE, temperature),
    F("top_p", CP_RANGE_TOP_P, top_p),
    F("min_p", CP_RANGE_MIN_P, min_p),
    F("repeat_penalty", CP_RANGE_REPETITION, repetition_penalty),
    F("presence_penalty", CP_RANGE_PRESENCE, presence_penalty),
    F("frequency_penalty", CP_RANGE_FREQUENCY, frequency_penalty),
    I("top_k", CP_RANGE_TOP_K, top_k),
    I("num_predict", -1, 16777216, max_tokens), /* -1: as much as there is room for */
    I("seed", -9007199254740992.0, 9007199254740992.0, seed),
};
#undef F
#undef F_
#undef I
#undef I_

static const row *find(const char *key)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].key, key) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

/* False: no number in range. */
static bool apply(const row *r, const json_t *v, cp_sampling_defaults *d)
{
    double x = json_number_value(v);
    void *field = (char *)d + r->offset;
    if (!json_is_number(v) || !(x >= r->min && x <= r->max) ||
        (r->whole && x != (double)(int64_t)x)) {
        return false;
    }
    if (r->whole) {
        *(int64_t *)field = (int64_t)x;
    } else {
        *(double *)field = x;
    }
    d->has_seed = d->has_seed || strcmp(r->key, "seed") == 0;
    return true;
}

/* "stop": a string or several. False: anything else, too many or too long; d stays. */
static bool apply_stop(const json_t *v, cp_sampling_defaults *d)
{
    bool one = json_is_string(v);
    size_t n = one ? 1 : json_array_size(v);
    if ((!one && !json_is_array(v)) || n > CP_DEFAULT_STOPS) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *s = one ? v : json_array_get(v, i);
        size_t len = json_string_length(s);
        if (!json_is_string(s) || len == 0 || len >= CP_DEFAULT_STOP_BYTES ||
            strlen(json_string_value(s)) != len) {
            return false;
        }
    }
    for (size_t i = 0; i < n; i++) {
        cp_strcopy(d->stop[i], sizeof d->stop[i],
                   json_string_value(one ? v : json_array_get(v, i)));
    }
    d->n_stop = (int)n;
    return true;
}

static bool honoured(const char *key, const json_t *v, cp_sampling_defaults *d)
{
    const row *r = find(key);
    return strcmp(key, "num_ctx") == 0 || /* the loader's */
           (strcmp(key, "stop") == 0 ? apply_stop(v, d) : r && apply(r, v, d));
}

void cp_app_params_apply(const char *json, const char *name, cp_sampling_defaults *d)
{
    size_t n = strlen(json), shown = 0;
    json_error_t e;
    json_t *o = n <= PARAMS_BYTES_MAX ? json_loadb(json, n, 0, &e) : NULL;
    char ignored[KEYS_SHOWN] = "";
    const char *key;
    json_t *v;
    if (!json_is_object(o)) {
        cp_log(CP_LOG_WARN,
               "%s: the packaging's sampling options are no JSON object of up to %d "
               "bytes: ignored",
               name, PARAMS_BYTES_MAX);
        json_decref(o);
        return;
    }
    json_object_foreach(o, key, v)
    {
        if (!honoured(key, v, d)) {
            shown += cp_snprintf(ignored + shown, sizeof ignored - shown, "%s%.40s",
                                 shown ? ", " : "", key);
        }
    }
    if (shown) {
        cp_log(CP_LOG_INFO, "%s: ignored of the packaging's sampling options: %s", name, ignored);
    }
    json_decref(o);
}
