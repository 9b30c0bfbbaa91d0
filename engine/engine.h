/*
 * engine: requests -> steps -> tokens. Numbers only: no text, no JSON.
 *
 * A cp_engine owns one engine thread, sole writer of the schedulers, pages and sequences of all its
 * models; models take turns, a step each. The front end talks to it through a cp_engine_api table
 * (bench/sse and tests put a fake behind it). A cp_request is memory of the front end, filled
 * before submit and not touched by it afterwards, except that it pops the ring and sets the cancel
 * flag. Both sides hold a reference, and both go on the front end's thread: the engine hands its
 * own back through the ready queue, so that the step loop frees nothing.
 */
#ifndef CP_ENGINE_ENGINE_H
#define CP_ENGINE_ENGINE_H

#include "base/code.h"
#include "base/metrics.h"
#include "base/queue.h"
#include "kernels/kernels.h"
#include "model/model.h"

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
    int32_t n_cached; /* FINISH: prompt positions that came from the prefix cache */
    int32_t code;     /* ERROR: cp_code */
    int32_t n_top;
    struct cp_event_top {
        int32_t id;
        float logprob;
    } top[CP_MAX_TOP];
} cp_event;
#define CP_EVENT_BYTES(n_top) (offsetof(cp_event, top) + 8u * (unsigned)((n_top) > 0 ? (n_top) : 0))

typedef struct cp_request cp_request;
struct cp_request {
    /* filled by the front end before submit */
    int model; /* index given by cp_engine_add_model */
    const int32_t *prompt;
    int n_prompt;   /* >= 1 */
    int max_tokens; /* 0: score the prompt only */
    int n;          /* choices, 1..128; choice i samples with (seed, i) */
    cp_sampling sampling;
    int n_prompt_top;     /* -1: no prompt log-probabilities; 0..20 */
    bool no_prefix_reads; /* set with prompt log-probabilities */
    uint8_t salt[32];     /* tenant */
    int64_t deadline_ns;  /* cp_now_ns() time; 0: none */
    cp_ring ring; /* records of CP_EVENT_BYTES(max(n_top, n_prompt_top)); engine produces; full =
                     the request is not scheduled until there is room */
    void *user;   /* front end's own */
    void (*free_fn)(cp_request *r); /* called once, on the front end's thread: see release */
    /* shared */
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

typedef struct cp_engine_limits {
    int ctx; /* positions a sequence may have */
    int n_vocab;
    int max_seqs;             /* choices that can run at once */
    int max_queue;            /* requests that can wait; 0: not told */
    int64_t max_queue_tokens; /* prompt tokens that can wait in all; 0: not told */
} cp_engine_limits;

/* What the front end sees of an engine. self is the first argument of each. */
typedef struct cp_engine_api {
    void *self;
    /* Never blocks, allocates nothing. CP_OVERLOADED (queue full by requests or tokens),
     * CP_MODEL_FAILED, CP_CONTEXT_LENGTH. On an error the engine holds no reference. Any thread. */
    cp_code (*submit)(void *self, cp_request *r, cp_err *err);
    void (*cancel)(void *self, cp_request *r); /* set the flag and wake the engine; any thread */
    /*
     * One reference goes; with the second one free_fn is called. On the front end's thread: once
     * when END or ERROR was taken from the ring, and once when cp_request_popped says so, in either
     * order.
     */
    void (*release)(void *self, cp_request *r);
    bool (*limits)(void *self, int model, cp_engine_limits *out);
    bool (*alive)(void *self); /* the heart beat within the last 30 s, or has not been started; it
                                  beats between the operations of a step, however long that is */
    /* Ready requests: the engine pushes ready_link when it has put events, and when it is done, and
     * calls the wake function once a step. The front end is the queue's consumer. NULL: there is no
     * front end any more; when this returns the queue is not touched, and the engine drops its
     * references itself. */
    void (*set_front)(void *self, cp_mpsc *ready, void (*wake)(void *arg), void *arg);
} cp_engine_api;

typedef struct cp_engine_config {
    cp_backend *backend;
    int max_queue; /* requests waiting */
    int64_t max_queue_tokens;
} cp_engine_config;
typedef struct cp_engine_model {
    const char *name;
    const cp_model *model;
    const cp_loaded *file; /* for the poisoned flag, cache dir, digest; may be NULL in tests */
    int ctx;               /* 0: min(the model's, ctx_wish, what one sequence can hold) */
    int ctx_wish;          /* of the packaging; 0: none */
    uint64_t kv_bytes;
    int max_seqs, max_batch_rows; /* 1..4096; >= max_seqs */
    int prefill_chunk;            /* rows of a prompt in a step in which others decode; >= 1 */
    cp_dtype kv_type;
    bool prefix_cache;
    cp_cache_check cache_check; /* of packed weights that are found; see kernels.h */
    cp_metrics *metrics;        /* may be NULL */
} cp_engine_model;

typedef struct cp_engine cp_engine;
cp_code cp_engine_open(cp_engine **out, const cp_engine_config *cfg, cp_err *err);
/* Prepare a model and make it schedulable; returns its index in *index. CP_NO_MEMORY with the
 * arithmetic when not even one sequence fits. Any thread, before or after start. */
cp_code cp_engine_add_model(cp_engine *e, const cp_engine_model *m, int *index, cp_err *err);
cp_code cp_engine_start(cp_engine *e, cp_err *err); /* starts the engine thread */
const cp_engine_api *cp_engine_front(cp_engine *e);
/* Full-length sequences that fit, page count, state slots: for the start-up line. */
void cp_engine_describe(cp_engine *e, int index, int *ctx, uint64_t *kv_bytes, int *full_seqs);
/* Fail what runs (CP_OVERLOADED), stop the thread, join. */
void cp_engine_stop(cp_engine *e);
void cp_engine_close(cp_engine *e);

/* Tests and oracles: called on the engine thread after each step with the step's output rows,
 * before commit. logits is [n_out, n_vocab] f32 (raw). Costs a copy; never set in serving. */
typedef void cp_step_probe(void *arg, int model, const cp_batch *batch,
                           cp_request *const *row_request, const int32_t *row_choice,
                           const float *logits);
void cp_engine_set_probe(cp_engine *e, cp_step_probe *fn, void *arg);

#endif
