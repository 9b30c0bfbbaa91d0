/*
 * engine: requests -> steps -> tokens. Numbers only: no text, no JSON.
 *
 * A cp_engine owns one engine thread, sole writer of the schedulers, pages and sequences of all its
 * models; models take turns, a step each. The front end talks to it through a cp_engine_api table
 * (bench/sse and tests put a fake behind it); what it asks for is in request.h. A model comes and
 * goes while others serve: cp_engine_load, then cp_engine_unload and cp_engine_forget.
 */
#ifndef CP_ENGINE_ENGINE_H
#define CP_ENGINE_ENGINE_H

#include "base/metrics.h"
#include "engine/request.h"
#include "kernels/kernels.h"
#include "model/model.h"

typedef struct cp_engine_limits {
    int ctx; /* positions a sequence may have */
    int n_vocab;
    int max_seqs;             /* choices that can run at once */
    int max_queue;            /* requests that can wait; 0: not told */
    int64_t max_queue_tokens; /* prompt tokens that can wait in all; 0: not told */
} cp_engine_limits;

/* What a model's steps took since it was loaded, and their operations: those of which there were
 * any, as the engine's thread saw them. */
typedef struct cp_engine_profile {
    int64_t since_ns; /* cp_now_ns() of the load: it tells models apart that had one address */
    uint64_t steps, step_ns;
    int n; /* 0: the backend tells of no operations */
    struct cp_engine_op {
        const char *name; /* "linear" */
        uint64_t ns, records;
    } op[CP_OP_COUNT];
} cp_engine_profile;

/* What the front end sees of an engine. self is the first argument of each. */
typedef struct cp_engine_api {
    void *self;
    /* Never blocks, allocates nothing. CP_OVERLOADED (queue full by requests or tokens),
     * CP_MODEL_FAILED, CP_DEVICE_FAILED, CP_CONTEXT_LENGTH, CP_MODEL_NOT_FOUND (it is being
     * unloaded). On an error the engine holds no reference. Any thread. */
    cp_code (*submit)(void *self, cp_request *r, cp_err *err);
    void (*cancel)(void *self, cp_request *r); /* set the flag and wake the engine; any thread */
    /*
     * One reference goes; with the second one free_fn is called. On the front end's thread: once
     * when END or ERROR was taken from the ring, and once when cp_request_popped says so, in either
     * order.
     */
    void (*release)(void *self, cp_request *r);
    bool (*limits)(void *self, const cp_resident *model, cp_engine_limits *out);
    /* Asks nobody and waits for nobody. Any thread; NULL: the engine keeps no times. */
    void (*profile)(void *self, const cp_resident *model, cp_engine_profile *out);
    /* The heart beat within the last 30 s, or has not been started. It beats in each turn, and
     * between and within the operations of a step, however long that is. False for good when the
     * device has failed. */
    bool (*alive)(void *self);
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
    /* Called once when the backend's device has failed (CP_DEVICE_FAILED): nothing runs any more,
     * and the process had better end. On the engine's or a loader's thread; may be NULL. */
    void (*device_failed)(void *arg);
    void *device_failed_arg;
} cp_engine_config;
typedef struct cp_engine_model {
    const char *name;
    const cp_model *model;
    cp_backend *backend;   /* NULL: cp_engine_config's */
    const cp_loaded *file; /* for the poisoned flag, cache dir, digest; may be NULL in tests */
    int ctx;               /* 0: min(the model's, ctx_wish, what one sequence can hold) */
    int ctx_wish;          /* of the packaging; 0: none */
    uint64_t kv_bytes;
    int kv_sharers; /* cp_engine_default_kv: models, this one too, that are to have equal parts */
    int max_seqs;   /* 1..4096 */
    int max_batch_rows; /* >= max_seqs */
    int prefill_chunk;  /* rows of a prompt in a step in which others decode; >= 1 */
    cp_dtype kv_type;
    bool prefix_cache;
    cp_cache_check cache_check; /* of packed weights that are found; see kernels.h */
    cp_metrics *metrics;        /* may be NULL */
    /* A step is to take so long: prompts get the rows that there is time for, as steps of late were
     * measured, the first ones before the model is READY. 0: rows alone limit a step, and nothing
     * is warmed up. */
    int step_ms;
    const _Atomic bool *cancel; /* true: the load ends at its next stop, CP_CANCELLED; or NULL */
} cp_engine_model;

typedef enum cp_model_state {
    CP_MODEL_LOADING,
    CP_MODEL_READY,
    CP_MODEL_DRAINING,
    CP_MODEL_GONE
} cp_model_state;

typedef struct cp_engine cp_engine;
cp_code cp_engine_open(cp_engine **out, const cp_engine_config *cfg, cp_err *err);
/* What m may spend on pages and state slots where nobody says it, beside what the model itself
 * takes; how: the same in words, at most n bytes (cp_backend_kv_bytes). m->kv_bytes is not read. */
cp_code cp_engine_default_kv(cp_engine *e, const cp_engine_model *m, uint64_t *bytes, char *how,
                             size_t n, cp_err *err);
/* Open, prepare and warm up a model on the calling thread, beside whatever runs; then it is READY,
 * and the engine thread has it from its next turn on. CP_NO_MEMORY with the arithmetic when not
 * even one sequence fits. On an error nothing is left. Any thread but the engine's, before or after
 * start. */
cp_code cp_engine_load(cp_engine *e, const cp_engine_model *m, cp_resident **out, cp_err *err);
cp_model_state cp_engine_state(const cp_resident *m);
/* DRAINING: new requests are refused with CP_MODEL_NOT_FOUND; what has come may go on until end_ns
 * (cp_now_ns() time; 0: to its end), then ends with the same code. Returns at once; may be called
 * again to set another end. Any thread. */
void cp_engine_unload(cp_engine *e, cp_resident *m, int64_t end_ns);
/* After cp_engine_unload: waits until no request refers to m any more, and frees it: memory, pages,
 * packed weights. What `m` of cp_engine_load borrowed is free then. One caller; neither the
 * engine's thread nor the front's. */
void cp_engine_forget(cp_engine *e, cp_resident *m);
cp_code cp_engine_start(cp_engine *e, cp_err *err); /* starts the engine thread */
/* Other bounds of the queue; what waits already stays. Any thread. */
void cp_engine_set_queue(cp_engine *e, int max_queue, int64_t max_queue_tokens);
/* Another time for a model's steps, as cp_engine_model.step_ms; not 0. Any thread, while m is. */
void cp_engine_set_pace(cp_resident *m, int step_ms);
const cp_engine_api *cp_engine_front(cp_engine *e);
/* For the start-up line. Any thread, between a load and the model's end. */
typedef struct cp_engine_memory {
    int ctx;
    uint64_t kv_bytes;    /* of pages and state slots */
    int full_seqs;        /* full-length sequences that fit */
    uint32_t state_slots; /* for running sequences and checkpoints; 0: no recurrent layers */
    size_t state_bytes;   /* of a slot */
    int checkpoint_every; /* positions */
} cp_engine_memory;
void cp_engine_describe(const cp_resident *m, cp_engine_memory *out);
/* Fail what runs (CP_OVERLOADED), stop the thread, join. Whoever opened e; loads and, where the
 * thread ran, cp_engine_forget may be under way on other threads. */
void cp_engine_stop(cp_engine *e);
/* Frees the models that are left, too. After cp_engine_stop, when no other call is under way. */
void cp_engine_close(cp_engine *e);

/* Tests and oracles: called on the engine thread after each step with the step's output rows,
 * before commit. logits is [n_out, n_vocab] f32 (raw). Costs a copy; never set in serving. Set
 * while no request runs. */
typedef void cp_step_probe(void *arg, const cp_resident *model, const cp_batch *batch,
                           cp_request *const *row_request, const int32_t *row_choice,
                           const float *logits);
void cp_engine_set_probe(cp_engine *e, cp_step_probe *fn, void *arg);

#endif
