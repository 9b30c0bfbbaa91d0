/* This file fills in what a request has where it says nothing: see params.h. */
#include "server/params.h"

#include <string.h>

void cp_params_init(cp_params *p, const cp_sampling_defaults *d)
{
    *p = (cp_params){
        .temperature = d->temperature,
        .top_p = d->top_p,
        .min_p = d->min_p,
        .repetition_penalty = d->repetition_penalty,
        .presence_penalty = d->presence_penalty,
        .frequency_penalty = d->frequency_penalty,
        .top_k = d->top_k,
        .max_tokens = -1,
        .default_max_tokens = d->max_tokens,
        .has_seed = d->has_seed,
        .seed = d->seed,
        .n = 1,
        .top_logprobs = -1,
        .logprobs = -1,
        .n_top = -1,
        .max_completion = -1,
        .skip_special = true,
        .add_generation_prompt = true,
        .add_special = true,
    };
}

bool cp_params_default_stops(cp_params *p, const cp_sampling_defaults *d, cp_arena *arena)
{
    if (d->n_stop == 0)
        return true;
    _Static_assert((int)CP_DEFAULT_STOPS <= (int)CP_STOP_MAX, "as many as a request may have");
    cp_str *list = cp_arena_alloc(arena, CP_DEFAULT_STOPS * sizeof(*list));
    if (!list)
        return false;
    for (int i = 0; i < d->n_stop; i++)
        list[i] = (cp_str){d->stop[i], strlen(d->stop[i])};
    p->stop = list;
    p->n_stop = d->n_stop;
    return true;
}
