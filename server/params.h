/*
 * params: a request's JSON becomes typed parameters whose ranges are checked.
 *
 * cp_params_parse is a pure function of the body, the model's facts and its defaults, and any
 * thread may call it. Everything it returns lies in the caller's arena (and the chat tree in the
 * render arena). Fields are rows of the API's table. A field that would change the output and is
 * not built is refused by name; an unknown one is listed for the log.
 */
#ifndef CP_SERVER_PARAMS_H
#define CP_SERVER_PARAMS_H

#include "server/server.h"

/* Limits of the outside, in one place. */
enum {
    CP_STOP_MAX = 16,
    CP_STOP_BYTES = 1024,
    CP_STOP_IDS_MAX = 128,
    CP_BIAS_MAX = 1024,
    CP_N_MAX = 128,
    CP_PROMPTS_MAX = 1024,
    CP_CHOICES_MAX = 2048, /* prompts x n */
    CP_UNKNOWN_MAX = 8     /* unknown fields listed a request */
};

typedef struct cp_prompt {
    cp_str text;        /* p != NULL: a string */
    const int32_t *ids; /* else ids, each in [0, n_vocab) */
    int n_ids;
} cp_prompt;

typedef struct cp_params {
    void *model;              /* what find_model gave */
    const struct cp_api *api; /* whose body it was */
    double temperature, top_p, min_p;
    double repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, n, seed, max_tokens, min_tokens; /* max_tokens -1: not given */
    int64_t max_completion;                         /* wins over max_tokens; -1: not given */
    int64_t default_max_tokens;                     /* the model's; -1: none */
    int64_t top_logprobs;                           /* chat; -1: not given */
    int64_t logprobs;                               /* text: alternatives; -1: none */
    int n_top; /* alternatives that each token's log-probability comes with; -1: it has none */
    bool has_seed, stream, include_usage, continuous_usage, echo, ignore_eos, include_stop,
        skip_special;
    bool want_logprobs; /* chat */
    bool add_generation_prompt, continue_final, add_special, parse_special;
    bool with_pieces, token_strs; /* /tokenize: texts beside the ids */
    const cp_str *stop;
    int n_stop;
    const int32_t *stop_ids;
    int n_stop_ids;
    const struct cp_logit_bias *bias;
    int n_bias;
    const cp_prompt *prompts; /* text, tokenize (content), detokenize (tokens) */
    int n_prompts;
    cp_val *messages, *tools, *documents; /* lists of dicts; NULL: none */
    cp_val *vars; /* dict: chat_template_kwargs, enable_thinking, reasoning_effort */
    cp_str cache_salt;
    cp_str given_id;                     /* infer: what the answer repeats; p NULL: none */
    unsigned outputs;                    /* infer: the tensors that the answer has, 1 << n */
    const void *order;                   /* what an API that acts is to do: its own */
    const char *unknown[CP_UNKNOWN_MAX]; /* printable, shortened */
    int n_unknown;
} cp_params;

/* What the parser must know of a model. */
typedef struct cp_params_model {
    void *handle;
    const cp_sampling_defaults *defaults;
    int32_t n_vocab;
} cp_params_model;

typedef struct cp_params_env {
    const struct cp_api *api; /* whose body it is */
    cp_str model;             /* that the path names: the body's has no say; p NULL: none */
    size_t n_json; /* of an API with binary: bytes of the body that are JSON; others follow */
    /* Pays for the body's tree, and begins the work with it (cp_account_begin); may be NULL. */
    cp_account *account;
    void *arg;
    /* name p == NULL: not given, the first model. CP_MODEL_NOT_FOUND otherwise. */
    cp_code (*find_model)(void *arg, cp_str name, cp_params_model *out, cp_err *err);
} cp_params_env;

/* What a body that says nothing has: the model's defaults, one choice, no log-probabilities. */
void cp_params_init(cp_params *p, const cp_sampling_defaults *d);
/* The model's stop strings, into a list of the arena; the strings are d's. False: it is full. */
bool cp_params_default_stops(cp_params *p, const cp_sampling_defaults *d, cp_arena *arena);
/* arena keeps what `out` points to; render holds the tree of messages (may be the same). The body's
 * bytes are changed (cp_json_scan). */
cp_code cp_params_parse(char *body, size_t n, const cp_params_env *env, cp_arena *arena,
                        cp_arena *render, cp_params *out, cp_err *err);

#endif
