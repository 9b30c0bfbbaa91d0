/*
 * fake: a backend without kernels and a front end without HTTP, for the engine's tests.
 *
 * The backend's answer to an output row is a hash of the row's history, seed, choice and position,
 * so that expected tokens can be computed by fake_token(). Steps can be held at a gate, fail, be
 * not finite or poison the model. A front_t takes events from the engine as the server does.
 */
#ifndef CP_TESTS_UNIT_ENGINE_FAKE_H
#define CP_TESTS_UNIT_ENGINE_FAKE_H

#include "engine/models.h"

#include <pthread.h>

enum { FAKE_VOCAB = 1000, FAKE_P = 4 };

/* What the fake backend does and saw; one for all models of a test. */
typedef struct fake {
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t cond;
    bool gated; /* steps wait for `passes` */
    int passes, at_gate;
    int n_steps, n_rows, n_prepared, n_zeroed;
    bool prepare_held; /* preparing waits until this is false */
    int at_prepare;
    cp_code prepare_fails;      /* CP_OK: it does not */
    const _Atomic bool *cancel; /* what the last prepare was to look at */
    _Atomic int64_t *beat;      /* of the step at the gate */
    int fail_at;                /* this step's collect fails; 0: none */
    int poison_at;              /* from this step's end on the model's file is poisoned */
    int lost_at;                /* this step's collect says that the backend lost its own */
    _Atomic int device_at;      /* from this step on the device has failed; 0: never */
    bool device_in_submit;      /* and submit says so, else collect */
    _Atomic int told;           /* how often the engine said that the device has failed */
    int nan_at;                 /* this step's first row is not finite */
    int order[64];              /* vocabularies of the first steps: which model ran */
    int banned_seen;            /* most banned ids of a row */
    uint64_t last_position;
    cp_resident *model;          /* what fake_req_init asks for */
    _Atomic int64_t clock_ns;    /* what time it is; 0: the real time */
    int64_t row_ns;              /* a step moves it on by so much a row */
    int64_t longest_ns;          /* step */
    int most_rows;               /* of a step */
    const cp_engine_api *api;    /* asked at the end of each step whether it is alive; or NULL */
    int dead;                    /* steps after which it was not */
    pthread_t thread;            /* the front end's: who called fake_init */
    _Atomic int freed_elsewhere; /* requests freed on another one */
} fake;

extern const cp_engine_backend fake_backend;
extern fake *fake_now; /* of the running test */

void fake_init(fake *f);
void fake_clock(fake *f, int64_t row_ns); /* not the real time; steps take it; 0: real */
void fake_gate(fake *f, bool closed);
void fake_hold_prepare(fake *f, bool held);
void fake_await_prepare(fake *f);   /* somebody waits there */
void fake_pass(fake *f, int steps); /* lets so many more steps through */
void fake_await_gate(fake *f);      /* a step waits at the gate */
int fake_steps(fake *f);
int32_t fake_token(const int32_t *prompt, int n_prompt, const int32_t *output, int n_output,
                   uint64_t seed, int choice);

/* The front end of one test: ready queue and wake. */
typedef struct front {
    cp_mpsc ready;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    uint64_t wakes, seen;
    const cp_engine_api *api;
} front;

typedef struct fake_req {
    cp_request r;
    int32_t prompt[600];
    int32_t tokens[4][64];
    int n_tokens[4], finish[4], n_cached;
    int n_prompt_events, next_prompt_pos;
    int code; /* of ERROR; CP_OK */
    bool ended;
    bool lazy; /* its ring is not read */
    uint8_t ring_mem[64 * sizeof(cp_event)];
    _Atomic int freed;
    int32_t stop_ids[2];
} fake_req;

int suite_sched(void); /* test_sched.c */
int suite_pace(void);  /* test_pace.c */

void front_open(front *f, const cp_engine_api *api);
void front_close(front *f);
/* A request of n_prompt tokens first, first + 1, ...; submit it with api->submit. */
void fake_req_init(fake_req *q, int n_prompt, int32_t first, int max_tokens, uint32_t ring);
/* Takes events until q has ended (all requests' events are taken on the way). */
void front_wait(front *f, fake_req *q);
void front_read(fake_req *q, front *f); /* one request's ring, whether announced or not */

#endif
