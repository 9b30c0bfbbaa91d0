// deps: server chat tokenizer base
/*
 * Fuzz target: a request's JSON becomes typed parameters. The first byte picks the route's body,
 * the rest is the body; of tensors, a byte before it says how many of its last bytes are no JSON.
 * Whatever the bytes, it ends with parameters in their ranges or a client's
 * error, never an internal one.
 */
#include "base/code.h"
#include "server/api/api.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static cp_code find_model(void *arg, cp_str name, cp_params_model *out, cp_err *err)
{
    const cp_sampling_defaults *d = arg;
    if (name.p && !(name.n == 1 && *name.p == 'm'))
        return cp_fail_param(err, CP_MODEL_NOT_FOUND, "model", "no model of that name");
    *out = (cp_params_model){.handle = arg, .defaults = d, .n_vocab = 1000};
    return CP_OK;
}

static const cp_api *api_of(uint8_t first)
{
    static const cp_api *const apis[] = {&cp_api_chat, &cp_api_text, &cp_api_tokenize,
                                         &cp_api_detokenize, &cp_api_apply};
    static const cp_api *const later[] = {&cp_api_infer, &cp_api_load, &cp_api_unload};
    enum { LATER = 250 }; /* what a seed from before means does not change */
    return first < LATER ? apis[first % 5] : later[first % 3];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    cp_json_setup();
    cp_sampling_defaults d = cp_sampling_defaults_off();
    cp_params_env env = {.api = api_of(data[0]), .arg = &d, .find_model = find_model};
    if (env.api->binary && size > 1) {
        size_t tail = data[1];
        data++, size--;
        env.model = (cp_str){"m", 1};
        env.n_json = tail < size - 1 ? size - 1 - tail : size - 1;
    }
    cp_arena *arena = cp_arena_new((size_t)16 << 20), *render = cp_arena_new((size_t)16 << 20);
    cp_params p = {0};
    cp_err err = {0};
    char *body = malloc(size > 1 ? size - 1 : 1); /* no byte more: a step over its end shows */
    CP_ASSERT(body);
    memcpy(body, data + 1, size - 1);
    cp_code rc = cp_params_parse(body, size - 1, &env, arena, render, &p, &err);
    free(body);
    if (rc == CP_OK) {
        CP_ASSERT(p.temperature >= 0 && p.temperature <= 2 && p.top_p >= 0 && p.top_p <= 1);
        CP_ASSERT(p.n >= 1 && p.n <= CP_N_MAX && p.n_stop <= CP_STOP_MAX &&
                  p.n_bias <= CP_BIAS_MAX);
        for (int i = 0; i < p.n_prompts; i++) {
            for (int k = 0; k < p.prompts[i].n_ids; k++)
                CP_ASSERT(p.prompts[i].ids[k] >= 0 && p.prompts[i].ids[k] < 1000);
        }
    } else {
        CP_ASSERT(cp_code_info(rc)->http < 500 || rc == CP_NO_MEMORY);
        CP_ASSERT(err.msg[0]);
    }
    cp_arena_free(arena);
    cp_arena_free(render);
    return 0;
}
