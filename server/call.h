/*
 * call: holds one exchange as it is seen from above HTTP.
 *
 * A cp_call belongs to the loop thread, except that a job has it while it is prepared. A cp_part is
 * one engine request (a prompt with its n choices), a cp_choice one stream of text.
 *
 * A call is in one state, which says what its client still gets:
 *
 *   state      what goes on                                      goes on to
 *   READING    its head is read, its body may arrive             PREPARING TOLD
 *   PREPARING  a job makes engine requests of it, or a reply     RUNNING TOLD LEFT
 *   RUNNING    the engine works; the answer grows or streams     TOLD LEFT
 *   TOLD       all is said: an answer, a refusal, an error       -
 *   LEFT       the client has left before                        TOLD (an error is counted once)
 *
 * In the last two, what still comes for the call is dropped. Three may hold a call, whatever its
 * state: its exchange (q), a job (on_job), the engine (n_open parts). When none does, the loop lets
 * go of it (cp_call_let_go). The loop has one reference (refs), and each part that the engine has
 * is another; with the last one the memory goes, the arena and all that lies in it.
 *
 *   part       NEW -> LIVE -> CANCELLED -> ENDED, each also straight to ENDED
 */
#ifndef CP_SERVER_CALL_H
#define CP_SERVER_CALL_H

#include "server/core.h"
#include "server/params.h"
#include "server/route.h"
#include "server/text.h"
#include "server/trace.h"

enum {
    CP_CALL_ARENA = 96 << 20,    /* bytes of one call: strings and ids */
    CP_RENDER_ARENA = 128 << 20, /* bytes of one rendering */
    CP_ID_BYTES = 48,
    CP_REQUEST_ID_BYTES = 132,
};

typedef struct cp_logprob_record {
    int32_t id;
    float logprob;
    uint32_t n_top;
    size_t start;     /* byte of the choice's text where the token begins */
    size_t start_chr; /* the same in code points */
} cp_logprob_record;  /* followed by n_top struct cp_event_top in the buffer */

typedef struct cp_choice {
    cp_text text;
    cp_buf shown;   /* its whole text, or of a stream what has not been sent */
    cp_buf records; /* of tokens not yet written; records_at is the next */
    size_t records_at;
    int n_tokens;     /* sampled; with the one that ended it, which shows nothing */
    cp_finish finish; /* CP_FINISH_NONE: its text may grow; else STOP or LENGTH */
    bool begun;       /* its first chunk was sent */
    bool cut;         /* by a stop string that is not shown */
} cp_choice;

typedef enum cp_part_state {
    CP_PART_NEW,
    CP_PART_LIVE,      /* the engine has it */
    CP_PART_CANCELLED, /* the engine has it, and has been told that nobody wants the rest */
    CP_PART_ENDED
} cp_part_state;

struct cp_part {
    cp_request r; /* first: the engine's view */
    cp_call *call;
    int first; /* its choices are call->choices[first .. first + r.n) */
    cp_str prompt_text;
    size_t prompt_chr;
    cp_buf prompt_records;
    int n_closed; /* choices whose text is final */
    int n_cached;
    cp_part_state state;
};

typedef enum cp_call_state {
    CP_CALL_READING,
    CP_CALL_PREPARING,
    CP_CALL_RUNNING,
    CP_CALL_TOLD,
    CP_CALL_LEFT,
    CP_CALL_STATES
} cp_call_state;

struct cp_call {
    cp_server *s;
    cp_http_req *q;        /* NULL: the exchange is over */
    const cp_route *route; /* NULL: it was not let in */
    const cp_api *api;     /* whose words errors are; NULL: of a path without an API */
    cp_call *next, *prev;
    _Atomic int refs;  /* the loop's one, and one for each part the engine has */
    _Atomic int state; /* cp_call_state; the loop writes it, a job may look */
    bool on_job;       /* what prepare writes is not the loop's to read */
    bool acted;        /* what its API does was begun */
    char request_id[CP_REQUEST_ID_BYTES];
    char id[CP_ID_BYTES];
    char path[128]; /* for the access line */
    cp_trace_context trace;
    char key[20]; /* "sha256:" and the first digits of the key's hash; "": none was needed */
    int64_t created;
    cp_account account; /* pays for all that follows which grows with the request */
    cp_arena *arena;
    cp_buf body;
    cp_mpsc_node parsed_link;
    /* made by prepare */
    cp_params p;
    cp_served *m;   /* held until its answer is made */
    char *named;    /* the model that the path names; NULL: it names none */
    size_t n_json;  /* of the body; the rest is bytes (api->binary) */
    char *model_id; /* of m, for the access line */
    cp_code told;   /* the error that its client was told; CP_OK: none */
    cp_code code;
    cp_err err;
    int64_t n_prompt_tokens; /* of the prompt that was too long, else of all */
    int64_t n_ctx_shown;     /* > 0: named in the error */
    cp_buf reply;            /* of APIs that do not generate */
    const cp_stops *stops;
    cp_part *parts;
    int n_parts;
    cp_choice *choices;
    int n_choices;
    /* the answer under way */
    int n_open; /* parts the engine has not ended */
    bool streaming;
    int64_t submit_ns; /* cp_now_ns(), when the engine was given its parts; 0: it was not */
    int64_t first_ns;  /* cp_now_ns() when the engine first told of it; 0: it has not */
    int64_t last_write;
    struct cp_meter meter;           /* of its model, when it was submitted */
    double joules;                   /* what it took; 0: it has not ended, or nobody measures */
    struct cp_profile_wait *profile; /* of /debug/profile, while it waits; NULL: none */
    cp_buf chunk_head;               /* a chunk up to its choice's index */
};

static inline cp_call_state cp_call_state_of(const cp_call *c)
{
    return (cp_call_state)atomic_load_explicit(&c->state, memory_order_relaxed);
}
/* Does somebody still wait for what is made of the call? */
static inline bool cp_call_wanted(const cp_call *c)
{
    return cp_call_state_of(c) < CP_CALL_TOLD;
}

/* Does the call want text from a model? What no route has taken does not. */
static inline bool cp_call_generates(const cp_call *c)
{
    const cp_api *api = c->route ? c->route->api : NULL;
    return api && !api->reply && !api->act;
}

/* Loop thread, as all below that says nothing else. */
cp_call *cp_call_new(cp_server *s, cp_http_req *q);
/* To another state of the table above. */
void cp_call_move(cp_call *c, cp_call_state to);
void cp_part_move(cp_part *p, cp_part_state to);
/* A fresh id, the prefix and 24 hex digits. Any thread. */
void cp_call_fresh_id(const char *prefix, char *out, size_t cap);
/* Nobody wants the rest: tell the engine of the parts that it works on. */
void cp_call_cancel(cp_call *c);
/* Where its answer is made (no job, no part is open), its model is let go, however long a client
 * takes to read; where nothing holds the call any more, it leaves the server's list. */
void cp_call_let_go(cp_call *c);
void cp_call_unref(cp_call *c); /* any thread */

#endif
