/*
 * fake_engine: a cp_engine_api without a model, for measuring and testing the server.
 *
 * A cp_fake owns one thread that plays the engine: it takes requests, gives every running choice
 * its next token a step, honours cancel flags and full rings, and announces news as the real one
 * does. Deadlines pass unheeded. Its clock, its script and the point at which it holds requests
 * back are the caller's. Any thread may call it; the script runs on its thread.
 */
#ifndef CP_BENCH_SSE_FAKE_ENGINE_H
#define CP_BENCH_SSE_FAKE_ENGINE_H

#include "base/meta.h"
#include "engine/engine.h"

/* The fake vocabulary: ids 0 to 255 are the bytes, then these. */
enum {
    CP_FAKE_BOS = 256,   /* <|bos|>, control */
    CP_FAKE_EOS = 257,   /* <|eos|>, control, ends a generation */
    CP_FAKE_START = 258, /* <|im_start|>, control */
    CP_FAKE_END = 259,   /* <|im_end|>, control, ends a generation */
    CP_FAKE_TOK = 260,   /* " tok" */
    CP_FAKE_THINK = 261, /* <think>, user-defined */
    CP_FAKE_VOCAB = 262
};
/* Metadata of a byte-level vocabulary as above; free with cp_fake_meta_free. */
typedef struct cp_fake_meta cp_fake_meta;
cp_fake_meta *cp_fake_meta_new(void);
/* Before its tokenizer is opened: add_special puts BOS in front. */
void cp_fake_meta_add_bos(cp_fake_meta *m);
const cp_meta *cp_fake_meta_view(const cp_fake_meta *m);
void cp_fake_meta_free(cp_fake_meta *m);

/* Where requests are kept waiting. */
typedef enum cp_fake_hold {
    CP_FAKE_RUN,
    CP_FAKE_QUEUE,   /* none is admitted */
    CP_FAKE_PREFILL, /* admitted, but no token comes */
    CP_FAKE_STUCK /* a step has begun and does not end, whoever asks: cancels wait, so does stop */
} cp_fake_hold;

/* Token number `index` of a choice; below 0: the choice stops. */
typedef int32_t cp_fake_script(void *arg, const cp_request *r, int choice, int index);

typedef struct cp_fake_config {
    int ctx, max_queue;
    int64_t step_ns; /* time between steps; 0: as fast as it can */
    int hold_after;  /* tokens a choice gets before it is held; 0: no limit */
    cp_fake_script *script;
    void *arg;
} cp_fake_config;

typedef struct cp_fake_stats {
    long submitted, cancelled, ended, steps, tokens;
    int live;             /* requests that the engine refers to */
    int64_t deadline_ns;  /* of the request that came last */
    bool stuck, stopping; /* inside a step that does not end (CP_FAKE_STUCK) */
} cp_fake_stats;

typedef struct cp_fake cp_fake;
cp_fake *cp_fake_open(const cp_fake_config *cfg);
/* Everything ends with CP_OVERLOADED, the thread is joined; the table still works (it refuses). */
void cp_fake_stop(cp_fake *f);
void cp_fake_close(cp_fake *f);
const cp_engine_api *cp_fake_api(cp_fake *f);
void cp_fake_set_hold(cp_fake *f, cp_fake_hold hold);
void cp_fake_set_hold_after(cp_fake *f, int tokens);
/* Every running request ends with this code at the next step. */
void cp_fake_fail(cp_fake *f, cp_code code);
cp_fake_stats cp_fake_read(cp_fake *f);

#endif
