/*
 * params: a request's JSON becomes typed parameters, ranges checked.
 *
 * cp_params_parse is a pure function of the body, the model's facts and its defaults; everything it
 * returns lies in the caller's arena (and the chat tree in the render arena). Any thread. Fields
 * are rows of fields.def; a field that would change the output and is not built is refused by name,
 * an unknown one is listed for the log.
 */
#ifndef CP_SERVER_PARAMS_H
#define CP_SERVER_PARAMS_H

#include "server/server.h"

/* Where a field may stand: the body of which route. */
enum {
    CP_AT_CHAT = 1,
    CP_AT_TEXT = 2,
    CP_AT_TOKENIZE = 4,
    CP_AT_DETOKENIZE = 8,
    CP_AT_APPLY = 16, /* /apply-template: as chat, rendered only */
    CP_AT_COUNT = 32, /* /tokenize with messages; no route's own, the parser tells them apart */
};

/* Limits of the outside, in one place. */
enum {
    CP_JSON_DEPTH = 512,
    CP_JSON_VALUES = 262144, /* a request, JSON within its strings included */
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
    void *model; /* what find_model gave */
    double temperature, top_p, min_p;
    double repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, n, seed, max_tokens, min_tokens; /* max_tokens -1: not given */
    int64_t max_completion;                         /* wins over max_tokens; -1: not given */
    int64_t default_max_tokens;                     /* the model's; -1: none */
    int64_t top_logprobs;                           /* chat; -1: not given */
    int64_t logprobs;                               /* text: alternatives; -1: none */
    bool has_seed, stream, include_usage, continuous_usage, echo, ignore_eos, include_stop,
        skip_special;
    bool want_logprobs; /* chat */
    bool add_generation_prompt, add_special, parse_special;
    bool with_pieces, token_strs; /* /tokenize: texts beside the ids */
    const cp_str *stop;
    int n_stop;
    const int32_t *stop_ids;
    int n_stop_ids;
    const struct cp_logit_bias *bias;
    int n_bias;
    const cp_prompt *prompts; /* text, tokenize (content), detokenize (tokens) */
    int n_prompts;
    cp_val *messages; /* list of dicts; NULL: none */
    cp_val *vars;     /* dict: chat_template_kwargs, enable_thinking, reasoning_effort */
    cp_str cache_salt;
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
    unsigned where; /* one of CP_AT_* */
    /* Pays for the body's tree, and begins the work with it (cp_account_begin); may be NULL. */
    cp_account *account;
    void *arg;
    /* name p == NULL: not given, the first model. CP_MODEL_NOT_FOUND otherwise. */
    cp_code (*find_model)(void *arg, cp_str name, cp_params_model *out, cp_err *err);
} cp_params_env;

/* arena keeps what `out` points to; render holds the tree of messages (may be the same). The body's
 * bytes are changed (cp_json_scan). */
cp_code cp_params_parse(char *body, size_t n, const cp_params_env *env, cp_arena *arena,
                        cp_arena *render, cp_params *out, cp_err *err);

/* ---- inside the parser ---- */
struct json_t;
/* What a text holds, and upper bounds of the memory that it becomes: the library's tree, and values
 * of chat made from that. */
typedef struct cp_json_use {
    int64_t values;    /* keys are none */
    size_t tree, vals; /* bytes */
} cp_json_use;
/* One pass over the text before the library sees it: nesting and number of values are bounded, so
 * that its memory is, too, and what it would not take of valid JSON is spelled anew in place (see
 * scan.c). field names the text in messages; NULL: the request's body. texts: top-level fields
 * whose text is used, up to a NULL; half a surrogate pair in one of them is refused by name, one
 * elsewhere becomes U+FFFD. CP_INVALID_VALUE. */
cp_code cp_json_scan(char *p, size_t n, const char *field, int64_t max_values,
                     const char *const *texts, cp_json_use *use, cp_err *err);
/* What one request may still parse, carried through all of it. */
typedef struct cp_json_left {
    int64_t values;
    cp_account *account; /* pays for trees; may be NULL */
} cp_json_left;
typedef struct cp_json {
    struct json_t *root;
    size_t bytes; /* taken from the account */
} cp_json;
/* Scan, pay for and parse; p is changed. The body (field NULL) is an object, a byte-order mark
 * before it is skipped. CP_INVALID_JSON with the position, CP_INVALID_VALUE above the request's
 * values and depth, CP_NO_MEMORY when the account cannot pay. */
cp_code cp_json_load(char *p, size_t n, const char *field, const char *const *texts,
                     cp_json_left *left, cp_json *out, cp_err *err);
void cp_json_free(cp_json *j, cp_json_left *left);
/* Once a process, before threads parse. */
void cp_json_setup(void);
/* v (NULL: nothing) is this string, and not one that goes on behind a NUL. */
bool cp_json_is(const struct json_t *v, const char *word);
/* "a string", "an object" ... or the number itself; for messages. */
const char *cp_json_say(const struct json_t *v, char *buf, size_t cap);

/* messages -> list of dicts for the template. Strings of the request are marked as input; roles are
 * checked and are not. */
cp_code cp_messages_parse(const struct json_t *v, cp_json_left *left, cp_arena *a, cp_val **out,
                          cp_err *err);
/* JSON as a template's value, its strings marked as input. NULL: the arena is exhausted. */
cp_val *cp_val_of_json(cp_arena *a, const struct json_t *v);
/* Put the keys of chat_template_kwargs into vars. */
cp_code cp_kwargs_parse(const struct json_t *v, cp_arena *a, cp_val *vars, cp_err *err);

/* ---- the table of fields (fields.def, which says what the members mean) ---- */
enum { CP_OF_OPENAI = 1, CP_OF_VLLM = 2, CP_OF_LLAMA = 4, CP_OF_SGLANG = 8, CP_OF_AGENTS = 16 };
typedef enum cp_field_kind {
    CP_FIELD_FAMILY, /* no field: name is the title of those below it */
    CP_FIELD_NUM,
    CP_FIELD_INT,
    CP_FIELD_BOOL,
    CP_FIELD_HAND,
    CP_FIELD_REFUSED,
    CP_FIELD_TOLERATED,
} cp_field_kind;
/* The max of an INT row that takes all of 64 bits. */
#define CP_FIELD_INT64_TOP 9223372036854775807.0
typedef struct cp_field {
    const char *name;
    unsigned from, at; /* CP_OF_*, CP_AT_* */
    cp_field_kind kind;
    double min, max;
    size_t to;          /* NUM double, INT int64_t, BOOL bool: offset in cp_params */
    size_t has;         /* bool set when the field is given; 0: none (offset 0 is `model`) */
    const char *no_use; /* REFUSED */
    const char *dflt, *empty, *good, *change, *beside, *code;
    unsigned required; /* CP_AT_* */
} cp_field;
/* Row i, NULL past the end. */
const cp_field *cp_field_at(int i);
/* The row of a field that has a say at the route (one of CP_AT_*), else any row of that name, else
 * NULL: unknown. */
const cp_field *cp_field_find(const char *name, unsigned at);
typedef enum cp_sample {
    CP_SAMPLE_NULL,
    CP_SAMPLE_DEFAULT,
    CP_SAMPLE_EMPTY,
    CP_SAMPLE_BENIGN,
    CP_SAMPLE_CHANGING,
    CP_SAMPLES
} cp_sample;
/* A value of the field as JSON and what the route says to it: "accepted", "ignored" or the error's
 * code; *beside: a member that stands with it, or NULL. NULL: the field has no such value. */
const char *cp_field_sample(const cp_field *f, unsigned at, cp_sample which, const char **beside,
                            const char **verdict);

#endif
