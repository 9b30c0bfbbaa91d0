/*
 * api: a table of functions says what one API of the server makes of bodies, events and errors.
 *
 * A route names its API (server/routes.def), and nothing else of the server tells APIs apart. An
 * API that generates has begin, event, end and whole; one that only answers has reply, one that
 * changes the server has act. What the engine says reaches an API as a stream of cp_said, whose
 * order within a choice is
 *
 *   (CONTENT | REASONING | TOOL_BEGIN ARGUMENTS* TOOL_END)* FINISH
 *
 * so a model's answer "Hi" of two tokens is CONTENT "H", CONTENT "i", FINISH. Only CONTENT and
 * FINISH are made so far (server/stream.c). docs/ADDING.md says how an API is added.
 *
 * The table stands below the calls that it is of: it names them, and what they hold is known to the
 * files that fill it (server/call.h).
 */
#ifndef CP_SERVER_API_API_H
#define CP_SERVER_API_API_H

#include "server/parser.h"

typedef struct cp_call cp_call;
typedef struct cp_part cp_part;

typedef enum cp_said_kind {
    CP_SAID_CONTENT,    /* text[n]: what the choice's text goes on with */
    CP_SAID_REASONING,  /* text[n] of a thought, apart from the content */
    CP_SAID_TOOL_BEGIN, /* text[n]: the name of the tool that call number `tool` is of */
    CP_SAID_ARGUMENTS,  /* text[n]: what its arguments, JSON, go on with */
    CP_SAID_TOOL_END,
    CP_SAID_FINISH /* the choice is over; its `finish` says why */
} cp_said_kind;

typedef struct cp_said {
    cp_said_kind kind;
    const char *text; /* [n], UTF-8, cut anywhere between characters; valid during the call */
    size_t n;
    int tool; /* of the choice, from 0 */
} cp_said;

typedef struct cp_told {
    cp_code code;
    const cp_err *err; /* may be NULL */
    const char *request_id;
    int64_t n_prompt_tokens, n_ctx; /* of a prompt that is too long; n_ctx 0: not told */
    bool streamed;                  /* inside of a stream that has begun */
} cp_told;

typedef struct cp_api {
    const char *name; /* its column in docs/API.md */
    /* ---- bodies: Jobs ---- */
    const cp_field_table *fields;
    unsigned at; /* the bit of the rows that have a say here (cp_field.at) */
    /* Fields whose text is used, up to a NULL: the only ones in which half a surrogate pair is an
     * error. */
    const char *const *texts;
    bool binary;                /* bytes may follow the JSON, whose length a header then tells */
    const char *other_if;       /* a body with this field is ... */
    const struct cp_api *other; /* ... of this API; NULL: there is none */
    /* Read by hand what rows cannot say, and check fields together. Errors name the field. */
    cp_code (*parse)(cp_parser *ps, cp_err *err);
    const char *prompt_field; /* that errors about the prompt name */
    /* Write c->reply. `render` holds the chat's tree and is given back afterwards. NULL: the API
     * generates. */
    cp_code (*reply)(cp_call *c, cp_arena *render, cp_err *err);
    /* ---- of an API that is about the server ---- */
    bool no_model; /* its bodies name none, and need none */
    /* In the place of reply; may take long, and a client that leaves does not end it. Not on Jobs:
     * on a thread that the server's host gives. */
    cp_code (*act)(cp_call *c, cp_err *err);
    /* ---- of an API that generates ---- */
    const char *id_prefix;
    const char *operation;      /* gen_ai.operation.name of its spans; NULL: none */
    const char *top_field;      /* that asks for log-probabilities */
    int max_tokens;             /* where nothing says how many; 0: the rest of the context */
    int token_bytes, top_bytes; /* JSON of a token's log-probability, and of each alternative */
    const char *stream_type;    /* Content-Type of a stream */
    /* ---- answers: loop thread; they append to out, which may turn failed ---- */
    void (*begin)(cp_call *c); /* once, before anything is said: what each chunk begins with */
    void (*event)(cp_call *c, cp_part *p, int choice, const cp_said *said, cp_buf *out);
    void (*end)(cp_call *c, cp_buf *out);   /* of a stream */
    void (*whole)(cp_call *c, cp_buf *out); /* an answer that is no stream */
    /* ---- errors: loop thread ---- */
    void (*error)(const cp_told *told, cp_buf *out);
} cp_api;

#define CP_ROUTE(...)
#define CP_ROUTE_OF(...)
#define CP_ROUTE_API(path, scope, api) extern const cp_api cp_api_##api;
#include "server/routes.def"
#undef CP_ROUTE
#undef CP_ROUTE_OF
#undef CP_ROUTE_API

#endif
