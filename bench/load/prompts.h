/*
 * cp_load_prompts: what is asked, by index. A *talk* is one request, or of --dataset turns several,
 * each of which waits for the answer of the one before and has it in front of it. The same seed and
 * index give the same text whatever was asked before. Immutable but for cp_load_prompts_rate; one
 * thread.
 */
#ifndef CP_BENCH_LOAD_PROMPTS_H
#define CP_BENCH_LOAD_PROMPTS_H

#include "base/mem.h"
#include "bench/load/load.h"
#include "bench/load/spec.h"

typedef struct cp_load_prompts cp_load_prompts;

/* What a turn asks for. */
typedef struct cp_load_ask {
    uint32_t max_tokens;
    uint32_t input_tokens; /* of what the turn adds, as far as this program can tell */
    const char *tools;     /* of chats: a JSON array that is the recording's; NULL: none */
    bool exact;            /* max_tokens is the length wanted: the end token is to be ignored */
} cp_load_ask;

cp_code cp_load_prompts_open(cp_load_prompts **out, const cp_load_config *cfg, cp_err *err);
void cp_load_prompts_close(cp_load_prompts *p);

/* Tokens of a word, as the server counts them; 1 until this is called. */
void cp_load_prompts_rate(cp_load_prompts *p, double tokens_per_word);
/* Does the length of a synthetic word matter to it? */
bool cp_load_prompts_synthetic(const cp_load_prompts *p);

/* Requests of a talk, at least 1. */
uint32_t cp_load_prompts_turns(const cp_load_prompts *p, uint64_t talk);
/* Append what turn 0, 1, ... adds to the history: messages as JSON objects with commas between, or
 * of text completions the prompt between the quotes of a JSON string. */
void cp_load_prompts_turn(const cp_load_prompts *p, uint64_t talk, uint32_t turn, cp_buf *history,
                          cp_load_ask *ask);
/* Append the answer of that turn: what the server said (as in JSON between the quotes), or what was
 * recorded where that called tools. */
void cp_load_prompts_answer(const cp_load_prompts *p, uint64_t talk, uint32_t turn,
                            const cp_buf *said, cp_buf *history);

#endif
