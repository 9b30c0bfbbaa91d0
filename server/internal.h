/*
 * What the files of this room share: the server, its models, and a call.
 *
 * A cp_call is one exchange seen from above HTTP. It lives on the loop thread, except between its
 * hand-over to a job and its return through `parsed`. It dies when its HTTP exchange is over, no
 * job works on it and the engine has dropped every request of it; its arena goes with it. A
 * cp_part is one engine request (a prompt with its n choices), a cp_choice one stream of text.
 * Flow: routes.c (head, keys) -> prepare.c (JSON, template, ids) -> call.c (submit, events, end)
 * with stream.c (ids to text) and answer.c (text to JSON and SSE).
 */
#ifndef CP_SERVER_INTERNAL_H
#define CP_SERVER_INTERNAL_H

#include "server/emit.h"
#include "server/http.h"
#include "server/params.h"
#include "server/served.h"
#include "server/stops.h"

enum {
    CP_CALL_ARENA = 96 << 20,    /* bytes of one call: strings and ids */
    CP_RENDER_ARENA = 128 << 20, /* bytes of one rendering */
    CP_ID_BYTES = 48,
    CP_REQUEST_ID_BYTES = 132,
    CP_UNKNOWN_LOGGED = 64 /* unknown fields logged once each */
};

typedef struct cp_call cp_call;
typedef struct cp_part cp_part;

/* One row a route; default deny: what has no row is 404. */
typedef struct cp_route {
    cp_method method;
    const char *path;
    bool prefix;    /* path is the beginning; the rest names something */
    unsigned scope; /* mask of scopes of which one is needed; 0: open */
    unsigned where; /* CP_AT_* of its body; 0: none */
    bool generates; /* occupies the engine: drained, refused while loading */
    void (*handle)(cp_call *c);
} cp_route;

typedef enum cp_drain { CP_RUN, CP_GRACE, CP_REFUSE, CP_CUT, CP_DRAINED } cp_drain;

struct cp_server {
    cp_http *http;
    cp_engine_api engine;
    cp_jobs *jobs;
    cp_api_key *keys;
    size_t n_keys;
    char **cors_origins, **allowed_hosts;
    size_t n_cors_origins, n_allowed_hosts;
    char *version;
    int64_t deadline_ns, grace_ns, timeout_ns, comment_ns, slow_ns;
    cp_metrics *metrics;
    cp_budget *budget; /* bodies, trees, and what calls hold */
    cp_served_table models;
    _Atomic bool ready_to_serve;
    _Atomic(const char *) phase;
    _Atomic uint64_t load_done, load_total, load_rate; /* bytes; see cp_server_phase */
    _Atomic int drain; /* cp_drain; the loop moves it on, drain_begin and drain_now start it */
    _Atomic bool cut_asked, clean;
    _Atomic int n_active; /* calls of routes that take a body; a drain waits for them */
    _Atomic int n_jobs;   /* jobs that will still touch the server */
    _Atomic bool closing;
    cp_mpsc ready;  /* requests with events, from the engine */
    cp_mpsc parsed; /* calls back from jobs */
    /* loop thread */
    cp_call *calls;
    int64_t drain_since, cut_since;
    char *unknown[CP_UNKNOWN_LOGGED];
    int n_unknown;
    cp_buf scratch; /* one token's text */
};

typedef struct cp_logprob_record {
    int32_t id;
    float logprob;
    uint32_t n_top;
    size_t start;     /* byte of the choice's text where the token begins */
    size_t start_chr; /* the same in code points */
} cp_logprob_record;  /* followed by n_top struct cp_event_top in the buffer */

typedef struct cp_choice {
    cp_detok detok;
    cp_stop_state stop;
    cp_buf text;    /* whole text, or of a stream what has not been sent */
    cp_buf records; /* of tokens not yet written; records_at is the next */
    size_t records_at;
    size_t n_shown;     /* bytes that have passed the stop strings, sent or not */
    size_t n_raw;       /* bytes before the stop strings */
    size_t n_raw_chr;   /* code points of those */
    int n_tokens;       /* sampled; with the one that ended it, which shows nothing */
    bool begun;         /* its first chunk was sent */
    bool closed;        /* text is final: a stop string met, or the engine ended it */
    bool cut;           /* by a stop string */
    const char *finish; /* finish_reason */
} cp_choice;

struct cp_part {
    cp_request r; /* first: the engine's view */
    cp_call *call;
    int first; /* its choices are call->choices[first .. first + r.n) */
    cp_str prompt_text;
    size_t prompt_chr;
    cp_buf prompt_records;
    int n_closed; /* choices whose text is final */
    int n_cached;
    bool submitted, cancelled, ended;
};

struct cp_call {
    cp_server *s;
    cp_http_req *q; /* NULL: the exchange is over */
    const cp_route *route;
    cp_call *next, *prev;
    _Atomic int refs; /* the loop's one, and one for each part the engine has */
    char request_id[CP_REQUEST_ID_BYTES];
    char id[CP_ID_BYTES];
    char path[128]; /* for the access line */
    int64_t created;
    cp_account account; /* pays for all that follows which grows with the request */
    cp_arena *arena;
    cp_buf body;
    cp_mpsc_node parsed_link;
    bool in_job, failed, counted;
    _Atomic bool gone; /* the client left; a job that has not begun then does nothing */
    /* made by prepare */
    cp_params p;
    cp_served *m;
    cp_code code;
    cp_err err;
    int64_t n_prompt_tokens; /* of the prompt that was too long, else of all */
    int64_t n_ctx_shown;     /* > 0: named in the error */
    cp_buf reply;            /* of routes that do not generate */
    const cp_stops *stops;
    cp_part *parts;
    int n_parts;
    cp_choice *choices;
    int n_choices;
    /* the answer under way */
    int n_open; /* parts the engine has not ended */
    bool streaming;
    int64_t last_write;
    cp_buf chunk_head; /* a chunk up to its choice's index */
    int n_completion, n_cached;
};

/* ---- routes.c ---- */
void cp_route_head(void *arg, cp_http_req *q, int bad);
void cp_route_request(void *arg, cp_http_req *q, int bad);
/* Row i of the table, NULL past the end. */
const cp_route *cp_route_at(size_t i);

/* ---- prepare.c: Jobs ---- */
/* Body to ids or to a reply; fills c->code and c->err. */
void cp_call_prepare(cp_call *c);
/* The call ran out of memory; full: of an arena that the template had. Says what that means to the
 * client: CP_OVERLOADED where trying again helps, else an error that names what was too much. */
cp_code cp_call_no_memory(const cp_call *c, bool full, cp_err *err);

/* ---- call.c: loop thread ---- */
cp_call *cp_call_new(cp_server *s, cp_http_req *q);
/* Prepare on Jobs, however small the body is; then go on: submit or reply. */
void cp_call_start(cp_call *c);
void cp_call_parsed(cp_call *c); /* back from a job */
void cp_call_drain(cp_call *c);  /* take what the engine has put */
void cp_call_cancel(cp_call *c); /* nobody wants the rest */
void cp_call_tick(cp_call *c, int64_t now_ns);
/* End with an error: an HTTP status, or an error event when the stream has begun. */
void cp_call_fail(cp_call *c, cp_code code, const cp_err *err);
/* The exchange is over; the call goes when the engine is done with it, too. */
void cp_call_done(cp_call *c);
void cp_call_ready(cp_request *r); /* popped from the ready queue */
void cp_call_unref(cp_call *c);    /* any thread */
void cp_call_reply(cp_call *c, int status, const char *type, cp_buf *body);
void cp_call_error(cp_call *c, int status, cp_code code, const cp_err *err);

/* ---- stream.c: loop thread ---- */
/* A token, or the end, of a choice. */
void cp_choice_token(cp_part *p, cp_choice *ch, const cp_event *ev);
void cp_choice_end(cp_part *p, cp_choice *ch, const char *finish);
/* The log-probability of a prompt position. */
void cp_prompt_record(cp_part *p, const cp_event *ev);

/* ---- answer.c ---- */
/* Bytes of a stream for one choice: what is new in its text; with `last`, its finish reason. */
void cp_answer_chunk(cp_call *c, cp_part *p, int index, bool last, cp_buf *out);
void cp_answer_stream_end(cp_call *c, cp_buf *out);
void cp_answer_whole(cp_call *c, cp_buf *out);
void cp_answer_prepare(cp_call *c);

#endif
