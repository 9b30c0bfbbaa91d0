/*
 * What one event of a stream says, read in a single pass that allocates nothing: a chunk of a chat
 * or text completion, or an error. Pure function; any thread. What it points at lies in the event.
 */
#ifndef CP_BENCH_LOAD_CHUNK_H
#define CP_BENCH_LOAD_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A JSON string as it stands in the text, escapes and all, without its quotes. */
typedef struct cp_load_text {
    const char *p; /* NULL: none */
    size_t n;
} cp_load_text;

typedef struct cp_load_chunk {
    bool choice;  /* there is a choice */
    bool content; /* it carries tokens: content, text, reasoning, a refusal, parts of a tool call */
    bool finished; /* it has a finish_reason */
    bool error;    /* an error event */
    bool usage;
    uint64_t prompt_tokens, completion_tokens, cached_tokens; /* of the usage */
    cp_load_text answer;                                      /* content or text, as it stands */
    cp_load_text message;                                     /* of the error */
} cp_load_chunk;

/* False: the event is no JSON object, or nested too deep. */
bool cp_load_chunk_read(const char *p, size_t n, cp_load_chunk *out);

#endif
