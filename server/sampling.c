/* This file turns parameters into the engine's sampling: see sampling.h. */
#include "server/sampling.h"

#include "base/clock.h"
#include "server/stops.h"

#include <string.h>
#include <sys/random.h>

static bool stop_ids(const cp_params *p, const cp_tokenizer *tok, cp_arena *a, cp_sampling *out)
{
    size_t n_eog = 0;
    const int32_t *eog = cp_tokenizer_eogs(tok, &n_eog);
    size_t n = n_eog, most = n_eog + (size_t)p->n_stop_ids + (size_t)p->n_stop;
    int32_t *ids = cp_arena_alloc(a, (most + 1) * sizeof(*ids));
    if (!ids)
        return false;
    if (n_eog > 0)
        memcpy(ids, eog, n_eog * sizeof(*ids));
    for (int i = 0; i < p->n_stop_ids; i++)
        ids[n++] = p->stop_ids[i];
    if (p->skip_special)
        n += (size_t)cp_stops_special(tok, p->stop, p->n_stop, ids + n);
    out->stop_ids = ids;
    out->n_stop_ids = (int)n;
    out->eog_ids = ids;
    out->n_eog_ids = (int)n_eog;
    return true;
}

cp_code cp_sampling_make(const cp_params *p, const cp_tokenizer *tok, cp_arena *a, cp_sampling *out,
                         cp_err *err)
{
    /* Below this a temperature only makes infinities; it is greedy. 0 of top_p keeps the first. */
    const double coldest = 1e-4, least_mass = 1e-6;
    *out = (cp_sampling){
        .temperature = p->temperature < coldest ? 0.0f : (float)p->temperature,
        .top_p = (float)(p->top_p < least_mass ? least_mass : p->top_p),
        .min_p = (float)p->min_p,
        .top_k = p->top_k > 0 ? (int)p->top_k : 0,
        .repetition = (float)p->repetition_penalty,
        .presence = (float)p->presence_penalty,
        .frequency = (float)p->frequency_penalty,
        .seed = (uint64_t)p->seed,
        .bias = p->bias,
        .n_bias = p->n_bias,
        .min_tokens = (int)p->min_tokens,
        .ignore_eos = p->ignore_eos,
        .n_top = p->n_top,
    };
    if (!p->has_seed && getrandom(&out->seed, sizeof(out->seed), 0) != (ssize_t)sizeof(out->seed))
        out->seed = (uint64_t)cp_now_ns();
    return stop_ids(p, tok, a, out) ? CP_OK : cp_fail(err, CP_NO_MEMORY, "out of memory");
}
