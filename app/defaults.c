/* This file puts the sampling defaults of a model together: see defaults.h. */
#include "app/defaults.h"

#include "base/log.h"
#include "base/sampling.h"

/* The file's keys, as llama.cpp's converter writes them from generation_config. */
static void from_file(const cp_meta *meta, cp_sampling_defaults *d)
{
    const struct {
        const char *key;
        double min, max;
        double *f;
        int64_t *i;
    } rows[] = {
        {"general.sampling.temp", CP_RANGE_TEMPERATURE, &d->temperature, NULL},
        {"general.sampling.top_p", CP_RANGE_TOP_P, &d->top_p, NULL},
        {"general.sampling.top_k", CP_RANGE_TOP_K, NULL, &d->top_k},
        {"general.sampling.min_p", CP_RANGE_MIN_P, &d->min_p, NULL},
        {"general.sampling.penalty_repeat", CP_RANGE_REPETITION, &d->repetition_penalty, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double v;
        if (!cp_meta_f64(meta, rows[i].key, &v)) {
            continue;
        }
        if (!(v >= rows[i].min && v <= rows[i].max)) {
            cp_log(CP_LOG_WARN, "ignored %s = %g of the model file; allowed: %g to %g", rows[i].key,
                   v, rows[i].min, rows[i].max);
        } else if (rows[i].f) {
            *rows[i].f = v;
        } else {
            *rows[i].i = (int64_t)v;
        }
    }
}

cp_sampling_defaults cp_app_sampling_defaults(const cp_loaded *file, const char *name, int whose,
                                              const cp_sampling_options *toml)
{
    cp_sampling_defaults d = cp_sampling_defaults_off();
    if (whose == CP_DEFAULTS_LLAMA_CPP) { /* common/common.h of llama.cpp, its penalties are off */
        d.temperature = 0.8;
        d.top_k = 40;
        d.top_p = 0.95;
        d.min_p = 0.05;
    }
    from_file(cp_loaded_meta(file), &d);
    if (cp_loaded_params(file)) {
        cp_app_params_apply(cp_loaded_params(file), name, &d);
    }
    if (!toml) {
        return d;
    }
#define TAKE(ID, field, to)                                                                        \
    if (toml->given & (1u << CP_SAMPLING_##ID)) {                                                  \
        d.to = toml->field;                                                                        \
    }
    TAKE(temperature, temperature, temperature)
    TAKE(top_p, top_p, top_p)
    TAKE(top_k, top_k, top_k)
    TAKE(min_p, min_p, min_p)
    TAKE(repetition_penalty, repetition_penalty, repetition_penalty)
    TAKE(presence_penalty, presence_penalty, presence_penalty)
    TAKE(frequency_penalty, frequency_penalty, frequency_penalty)
    TAKE(seed, seed, seed)
    TAKE(max_tokens, max_tokens, max_tokens)
#undef TAKE
    d.has_seed = d.has_seed || (toml->given & (1u << CP_SAMPLING_seed)) != 0;
    return d;
}
