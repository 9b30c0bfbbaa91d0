/*
 * Requests of the fake server: a plain HTTP/1.1 parser, and the few fields of a body that matter.
 *
 * Pure functions over bytes; no state. What is larger than the limits below is an error.
 */
#ifndef CP_TESTS_FAKES_LLM_HTTP_H
#define CP_TESTS_FAKES_LLM_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FAKE_HEAD = 16 << 10, FAKE_BODY = 8 << 20 };

typedef struct fake_head {
    char method[8], path[128]; /* the path without its query */
    char key[128];             /* of `Authorization: Bearer` */
    size_t head_bytes, body_bytes;
    bool close; /* the client wants the connection closed */
} fake_head;

typedef enum fake_parse { FAKE_MORE, FAKE_READY, FAKE_BAD } fake_parse;

/* FAKE_READY: the head is whole (the body may not be). */
fake_parse fake_parse_head(const char *p, size_t n, fake_head *h);

typedef struct fake_body {
    bool stream, usage;
    int max_tokens;    /* 0: not said */
    int prompt_tokens; /* words, or ids of a prompt that consists of them */
} fake_body;

/* False: no JSON object. */
bool fake_parse_body(const char *p, size_t n, fake_body *b);

#endif
