/*
 * engine_internal: the engine as data, and the seam for tests: an engine opened with its own table
 * of backend functions and models given as bare programs runs without kernels/ and model/.
 *
 * Floors: wake, pace, profile · resident (open, free) · step · models (load, unload) · loop (the
 * engine thread) · front (the table of functions) · engine (open, start, stop, close) · backend
 * (the real table). They stand on sched.h's.
 */
#ifndef CP_ENGINE_ENGINE_INTERNAL_H
#define CP_ENGINE_ENGINE_INTERNAL_H

#include "engine/batch.h"
#include "engine/memory.h"
#include "engine/pace.h"
#include "engine/profile.h"
#include "engine/state.h"

#include <pthread.h>

/* Of the engine thread. Before its start the engine counts as alive, whatever takes long. */
typedef enum cp_engine_life { CP_ENGINE_NEW, CP_ENGINE_STARTED, CP_ENGINE_STOPPED } cp_engine_life;

/* The functions of kernels.h (and the loader's flag) that the engine calls. */
typedef struct cp_engine_backend {
    int (*page_positions)(const cp_backend *b);
    int (*depth)(const cp_backend *b);
    cp_code (*prepare)(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                       cp_prepared **out, cp_err *err);
    void (*prepared_free)(cp_prepared *p);
    cp_code (*submit)(cp_prepared *p, const cp_batch *batch, cp_err *err);
    cp_code (*collect)(cp_prepared *p, cp_err *err);
    cp_op_time (*op_time)(const cp_prepared *p, cp_op_kind kind); /* NULL: it knows no times */
    bool (*poisoned)(const cp_loaded *file);
    int64_t (*now_ns)(void); /* the engine's clock: cp_now_ns, but in tests */
} cp_engine_backend;

/* One model. Immutable once it is READY, but for what the engine thread owns and what is atomic. */
struct cp_resident {
    char *name;
    const cp_loaded *file;
    cp_metrics *metrics;
    int n_vocab, max_batch_rows, max_seqs;
    cp_memory_plan mem;
    cp_prepared *prepared;
    cp_kv *kv;
    cp_sched *sched;
    cp_step step;
    float *probe_logits; /* [max_out, n_vocab], taken with the first probed step */
    cp_sched_stats seen; /* what metrics know already */
    cp_kv_stats seen_kv;
    /* of the step at hand */
    bool stepping; /* a batch was submitted */
    cp_code code;  /* what became of it, and why */
    cp_err err;
    int64_t begin_ns;        /* how long its beginning took */
    int64_t waited_ns;       /* while others had the device, of a warm-up */
    int64_t took_ns;         /* and all of it, when it is over; without waited_ns */
    cp_pace pace;            /* of all steps so far */
    _Atomic int64_t step_ns; /* its target from the next step on; relaxed */
    cp_profile profile;
    /* life */
    cp_resident *next; /* of e->arrivals, then of e->models */
    _Atomic int state; /* cp_model_state */
    /* Requests from submit until they are tasks. seq_cst with `state`: a submitter raises it and
     * then looks at the state, the engine thread looks at the state and then at it; so one of them
     * sees the other. */
    _Atomic int entering;
    /* Of them, what the engine thread took from the inbox when the scheduler had no room, in order;
     * its own, and nobody else waits behind them. */
    cp_mpsc late;
    int n_late;
    _Atomic int64_t drain_end_ns; /* cp_now_ns() time; 0: none. Relaxed: a time to look at */
    _Atomic bool
        failed; /* weights were lost: refuse from now on; relaxed, a late look is harmless */
};

struct cp_engine {
    cp_engine_config cfg;
    const cp_engine_backend *backend;
    cp_engine_api api;
    _Atomic(cp_resident *) arrivals; /* a stack: loaded, and not seen by the engine thread yet */
    cp_resident *models;             /* the engine thread's, the oldest first */
    pthread_mutex_t gone_lock;       /* guards `running` and turns to GONE */
    pthread_cond_t gone;
    bool running; /* the engine thread retires models; else cp_engine_forget does */

    cp_mpsc inbox;
    cp_queue_count queue;
    _Atomic int max_queue; /* relaxed, both: a submitter may see the bound of a moment ago */
    _Atomic int64_t max_queue_tokens;
    _Atomic int submitting; /* threads inside submit: stop waits for them */
    _Atomic bool stopping;
    _Atomic bool device_failed; /* for good; relaxed, a late look is harmless */

    _Atomic uint32_t wakes; /* futex word */
    _Atomic bool asleep;
    _Atomic int life;        /* cp_engine_life; relaxed, a late look is harmless */
    _Atomic int64_t beat_ns; /* relaxed: a time to look at, it orders nothing */
    pthread_t thread;
    bool started;

    pthread_mutex_t front_lock; /* guards the three below; taken once a step */
    cp_mpsc *ready;
    void (*wake)(void *arg);
    void *wake_arg;

    cp_step_probe *probe;
    void *probe_arg;
};

cp_code cp_engine_open_with(cp_engine **out, const cp_engine_config *cfg,
                            const cp_engine_backend *backend, cp_err *err);

static inline cp_backend *cp_engine_backend_of(const cp_engine *e, const cp_engine_model *m)
{
    return m->backend ? m->backend : e->cfg.backend;
}

#endif
