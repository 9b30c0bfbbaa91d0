/*
 * parser: the readers of a body share the parser's state, the readers of single values, and what
 * several APIs read by hand.
 *
 * Every reader takes a field that is absent or null as not given, and names the field in its error.
 * A parser belongs to one thread, one of Jobs.
 */
#ifndef CP_SERVER_PARSER_H
#define CP_SERVER_PARSER_H

#include "server/fields.h"
#include "server/json.h"
#include "server/params.h"

typedef struct cp_parser {
    const struct cp_api *api;
    cp_arena *arena, *render; /* what stays; the chat's tree */
    const struct json_t *body;
    cp_str tail; /* bytes that follow the body's JSON, of an API with binary */
    cp_params *out;
    cp_json_left *left;
    const cp_sampling_defaults *defaults;
    int32_t n_vocab;
} cp_parser;

/* ---- params_json.c ---- */
/* The body's fields by the API's rows, and what it reads by hand. */
cp_code cp_parser_read(cp_parser *ps, cp_err *err);

/* ---- parser_json.c: single values ---- */
/* The field, or NULL when it is absent or null. */
const struct json_t *cp_parser_get(const cp_parser *ps, const char *name);
/* NaN, which is in no range, for what is not a number. */
double cp_json_number(const struct json_t *v);
/* An integer, also when spelled 5.0. */
bool cp_json_integer(const struct json_t *v, int64_t *out);
/* A string's copy in the arena. */
cp_code cp_parser_string(cp_parser *ps, const struct json_t *v, cp_str *out, cp_err *err);
/* A list of ids in [0, n_vocab) into the arena; `field` names it. */
cp_code cp_parser_ids(cp_parser *ps, const struct json_t *v, const char *field, const int32_t **out,
                      int *n, cp_err *err);
/* A string, or a list of ids. */
cp_code cp_parser_prompt(cp_parser *ps, const struct json_t *v, const char *field, cp_prompt *out,
                         cp_err *err);
/* CP_NO_MEMORY: the arena is exhausted. */
cp_code cp_parser_full(cp_err *err);

/* ---- generation_json.c ---- */
/* stop, stop_token_ids, logit_bias, stream_options. */
cp_code cp_read_generation(cp_parser *ps, cp_err *err);
cp_code cp_read_salt(cp_parser *ps, cp_err *err);
/* The number of choices against their limit, min_tokens against max_tokens. */
cp_code cp_check_generation(const cp_params *p, cp_err *err);

/* ---- chat_json.c ---- */
/* Any JSON value as a template's, all of it marked as input; its depth was bounded by the scan.
 * NULL: the arena is exhausted. */
cp_val *cp_parser_value(cp_arena *a, const struct json_t *v);
cp_code cp_read_messages(cp_parser *ps, cp_err *err);

/* ---- variables_json.c: into the render arena ---- */
/* messages, chat_template_kwargs, enable_thinking, reasoning_effort, continue_final_message. */
cp_code cp_read_chat(cp_parser *ps, cp_err *err);
/* tools, documents. */
cp_code cp_read_attached(cp_parser *ps, cp_err *err);

#endif
