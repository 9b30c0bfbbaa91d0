/*
 * request: what the front end asks of the engine, and what it is told.
 *
 * A cp_request is memory of the front end, filled before submit and not touched by it afterwards,
 * except that it pops the ring and sets the cancel flag. Both sides hold a reference, and both go
 * on the front end's thread: the engine hands its own back through the ready queue, so that the
 * step loop frees nothing.
 */
#ifndef CP_ENGINE_REQUEST_H
#define CP_ENGINE_REQUEST_H

#include "base/code.h"
#include "base/queue.h"
#include "kernels/kernels.h"

typedef struct cp_sampling {
    float temperature, top_p, min_p;
    int top_k;
    float repetition, presence, frequency;
    uint64_t seed;
    const struct cp_logit_bias *bias;
    int n_bias;
    const int32_t
        *stop_ids; /* end the choice, reason STOP; the model's eog ids are given here too */
    int n_stop_ids;
    const int32_t *eog_ids; /* banned while ignore_eos or below min_tokens (as are stop_ids below
                               min_tokens) */
    int n_eog_ids;
    int min_tokens;
    bool ignore_eos;
    int n_top; /* -1: no log-probabilities; 0..20 alternatives */
} cp_sampling;

typedef enum cp_event_type {
    CP_EV_TOKEN,  /* one generated id of a choice */
    CP_EV_PROMPT, /* log-probability of prompt position `pos` (pos >= 1), in order; only when asked
                   */
    CP_EV_FINISH, /* a choice ended: reason; n_cached valid. STOP: by a token that has no record */
    CP_EV_ERROR,  /* the whole request ended: code; the last event */
    CP_EV_END     /* all choices have finished: the last event */
} cp_event_type;
typedef enum cp_finish {
    CP_FINISH_NONE,
    CP_FINISH_STOP,
    CP_FINISH_LENGTH,
    CP_FINISH_CANCELLED
} cp_finish;

/* A record of the ring: this head followed by n_top pairs (as many as the request asked for are
 * always there). */
typedef struct cp_event {
    uint8_t type;   /* cp_event_type */
    uint8_t reason; /* cp_finish; for TOKEN that ends its choice a FINISH record follows */
    uint16_t choice;
    int32_t id;
    float logprob;
    int32_t pos;      /* PROMPT: position; TOKEN: index of the token in its choice */
    int32_t n_cached; /* FINISH: prompt positions that came from the prefix cache; ERROR: the same,
                         or -1: nothing was computed */
    int32_t code;     /* ERROR: cp_code */
    int32_t n_top;
    struct cp_event_top {
        int32_t id;
        float logprob;
    } top[CP_MAX_TOP];
} cp_event;
#define CP_EVENT_BYTES(n_top) (offsetof(cp_event, top) + 8u * (unsigned)((n_top) > 0 ? (n_top) : 0))

typedef struct cp_resident cp_resident; /* a model in the engine */
typedef struct cp_request cp_request;
struct cp_request {
    /* filled by the front end before submit */
    cp_resident *model; /* the front end keeps it until the request has ended */
    const int32_t *prompt;
    int n_prompt;   /* >= 1 */
    int max_tokens; /* 0: score the prompt only */
    int n;          /* choices, 1..128; choice i samples with (seed, i) */
    cp_sampling sampling;
    int n_prompt_top;     /* -1: no prompt log-probabilities; 0..20 */
    bool no_prefix_reads; /* set with prompt log-probabilities */
    bool no_overlap;      /* the host must have seen a token before the next is sampled (masks) */
    uint8_t salt[32];     /* tenant */
    int64_t deadline_ns;  /* cp_now_ns() time; 0: none */
    cp_ring ring; /* records of CP_EVENT_BYTES(max(n_top, n_prompt_top)); engine produces; full =
                     the request is not scheduled until there is room */
    void *user;   /* front end's own */
    void (*free_fn)(cp_request *r); /* called once, on the front end's thread: see release */
    /* shared */
    /* cp_now_ns() times of the step in which it was admitted, and of its first token; 0: not yet.
     * The engine writes, the front end may read. */
    _Atomic int64_t admitted_ns, first_token_ns;
    _Atomic bool cancel; /* front end sets (client gone, stop string met); read once a step */
    _Atomic int refs;    /* set to 2 by submit */
    _Atomic int ready;   /* CP_READY_x: see cp_request_announce and cp_request_popped */
    cp_mpsc_node ready_link;
    /* engine's own */
    cp_mpsc_node submit_link;
    void *state;
};

enum {
    CP_READY_QUEUED = 1, /* ready_link is on the ready queue */
    CP_READY_LAST = 2    /* for the last time: the engine is done with the request */
};
/* Engine: r has news, or (last) the engine is done with it and touches it no more. */
static inline void cp_request_announce(cp_request *r, cp_mpsc *ready, bool last)
{
    int mark = last ? CP_READY_QUEUED | CP_READY_LAST : CP_READY_QUEUED;
    /* acq_rel: the front clears the mark before it drains the ring, and frees after LAST */
    if (!(atomic_exchange_explicit(&r->ready, mark, memory_order_acq_rel) & CP_READY_QUEUED))
        cp_mpsc_push(ready, &r->ready_link);
}
/* Front end, when it has popped ready_link and before it drains the ring: what comes later queues r
 * anew. True: r came for the last time, and the engine's reference is the front end's to release.
 */
static inline bool cp_request_popped(cp_request *r)
{
    return atomic_exchange_explicit(&r->ready, 0, memory_order_acq_rel) & CP_READY_LAST;
}

#endif
