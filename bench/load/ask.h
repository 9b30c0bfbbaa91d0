/*
 * What is asked of a server before anything is measured: does it answer, does it know the model,
 * which fields of a request does it take, and how many tokens are our words? Two or three short
 * requests. And the bodies of requests, which follow from it. One thread.
 */
#ifndef CP_BENCH_LOAD_ASK_H
#define CP_BENCH_LOAD_ASK_H

#include "bench/load/client.h"
#include "bench/load/load.h"
#include "bench/load/prompts.h"

/* What it takes. */
typedef struct cp_load_shape {
    bool ignore_eos;    /* to generate on behind the end token */
    bool include_usage; /* stream_options.include_usage */
    bool usage;         /* and it then says what it counted */
    bool calibrated;    /* tokens_per_word was counted by the server */
    double tokens_per_word;
    char server[64]; /* its Server header */
} cp_load_shape;

const char *cp_load_path(const cp_load_config *cfg);
/* The body of a request for what `history` (cp_load_prompts_turn) and `ask` say. */
void cp_load_body(cp_buf *out, const cp_load_config *cfg, const cp_load_shape *shape,
                  const cp_buf *history, const cp_load_ask *ask);

/* Errors as cp_load_measure; CP_CANCELLED: the interrupt came. */
cp_code cp_load_ask_server(cp_load_client *client, const cp_load_config *cfg, bool want_rate,
                           cp_load_shape *out, cp_err *err);

/* Make one exchange and wait for it; the body of the answer goes to out (at most 8 MiB). False: the
 * interrupt came. */
bool cp_load_fetch(cp_load_client *client, cp_load_call *call, cp_buf *out, cp_load_ending *how);

/* Tokens in an answer of /tokenize; 0: it says none. (tokens_json.c) */
uint64_t cp_load_tokens_read(const char *json, size_t n);

#endif
