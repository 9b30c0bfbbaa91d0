/*
 * cp_load_trace: recorded conversations out of a file, for prompts.
 *
 * The file is a JSON array or lines of JSON, of objects with `conversations` (ShareGPT: from,
 * value) or `messages` (OpenAI: role, content, tool_calls, tool_call_id, name), and `tools`. Other
 * keys are left out. What it owns does not change after cp_load_trace_open; any thread may read. It
 * hides jansson.
 */
#ifndef CP_BENCH_LOAD_TRACE_H
#define CP_BENCH_LOAD_TRACE_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CP_LOAD_TALKS_MAX = 1 << 20,   /* conversations that are kept, the first of the file */
    CP_LOAD_MESSAGES_MAX = 4096,   /* of a conversation; a longer one is refused */
    CP_LOAD_MESSAGE_MAX = 8 << 20, /* bytes */
};

typedef struct cp_load_message {
    char *json;     /* the whole message as an object: {"role":"user","content":"..."} */
    char *text;     /* its content between the quotes of a JSON string; "" where it is no string */
    uint32_t bytes; /* of what a model reads of it */
    bool assistant; /* a model said it */
    bool asked;     /* ... to what somebody else did: a request ends in front of it */
    bool calls;     /* ... with tool calls, which no other answer can stand for */
} cp_load_message;

typedef struct cp_load_talk {
    cp_load_message *messages;
    uint32_t n_messages;
    uint32_t turns; /* messages that were asked for */
    char *tools;    /* their schemas, a JSON array; NULL: none */
} cp_load_talk;

typedef struct cp_load_trace {
    cp_load_talk *talks;
    size_t n_talks;
    uint64_t skipped; /* records without an answer to ask for */
} cp_load_trace;

/* CP_NOT_FOUND, CP_IO, CP_TOO_LARGE; CP_USAGE: the file is not of that form (with its line), or no
 * record in it has an answer to ask for. */
cp_code cp_load_trace_open(cp_load_trace **out, const char *path, cp_err *err);
void cp_load_trace_close(cp_load_trace *t);

#endif
