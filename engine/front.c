/*
 * front: see front.h. Submit checks a request against its model and the queue's bounds, and pushes
 * it; nothing here waits or allocates.
 */
#include "engine/front.h"
#include "engine/tasks.h"
#include "engine/wake.h"

/* Silence for so long is a dead engine. The heart beats between the operations of a step too, so
 * how long a step takes does not count. */
#define ALIVE_NS INT64_C(30000000000)

static cp_code check_request(const cp_resident *m, const cp_request *r, cp_err *err)
{
    const cp_sampling *p = &r->sampling;
    int n_top = p->n_top > r->n_prompt_top ? p->n_top : r->n_prompt_top;
    if (r->n_prompt < 1 || r->n < 1 || r->n > CP_MAX_CHOICES || r->max_tokens < 0 ||
        n_top > CP_MAX_TOP)
        return cp_fail(err, CP_INVALID_VALUE,
                       "n_prompt %d (>= 1), n %d (1..%d), max_tokens %d (>= 0), top %d (<= %d)",
                       r->n_prompt, r->n, CP_MAX_CHOICES, r->max_tokens, n_top, CP_MAX_TOP);
    if (p->n_stop_ids < 0 || p->n_eog_ids < 0 || p->n_stop_ids + p->n_eog_ids > CP_MAX_BANNED)
        return cp_fail(err, CP_INVALID_VALUE, "%d stop and %d end-of-generation ids, at most %d",
                       p->n_stop_ids, p->n_eog_ids, CP_MAX_BANNED);
    if (r->n_prompt > m->mem.ctx || r->max_tokens > m->mem.ctx - r->n_prompt)
        return cp_fail(err, CP_CONTEXT_LENGTH,
                       "%d prompt tokens and max_tokens %d exceed the context of %d", r->n_prompt,
                       r->max_tokens, m->mem.ctx);
    if (r->ring.record < CP_EVENT_BYTES(n_top) || r->ring.cap < 4 ||
        (r->max_tokens == 0 && r->ring.cap < (uint32_t)r->n + 4))
        return cp_fail(err, CP_INVALID_VALUE, "the ring is too small: %u records of %u bytes",
                       r->ring.cap, r->ring.record);
    for (int i = 0; i < r->n_prompt; i++) {
        if (r->prompt[i] < 0 || r->prompt[i] >= m->n_vocab)
            return cp_fail(err, CP_INVALID_VALUE, "token %d at %d is not in [0, %d)", r->prompt[i],
                           i, m->n_vocab);
    }
    for (int i = 0; i < p->n_bias; i++) {
        if (p->bias[i].id < 0 || p->bias[i].id >= m->n_vocab)
            return cp_fail(err, CP_INVALID_VALUE, "logit_bias of token %d, which is not in [0, %d)",
                           p->bias[i].id, m->n_vocab);
    }
    return CP_OK;
}

/* Room in the queue by requests and tokens; a single request larger than the bound may still queue
 * when nothing else does. */
static bool queue_enter(cp_engine *e, int n_prompt)
{
    cp_queue_count *q = &e->queue;
    int before = atomic_fetch_add(&q->requests, 1);
    int64_t tokens = atomic_fetch_add(&q->tokens, n_prompt);
    int most = atomic_load_explicit(&e->max_queue, memory_order_relaxed);
    int64_t most_tokens = atomic_load_explicit(&e->max_queue_tokens, memory_order_relaxed);
    if (before < most && (tokens == 0 || tokens + n_prompt <= most_tokens))
        return true;
    atomic_fetch_sub(&q->requests, 1);
    atomic_fetch_sub(&q->tokens, n_prompt);
    return false;
}

/* Of a request that is counted in m->entering. */
static cp_code submit_counted(cp_engine *e, cp_request *r, cp_err *err)
{
    const cp_resident *m = r->model;
    if (atomic_load(&m->state) != CP_MODEL_READY)
        return cp_fail(err, CP_MODEL_NOT_FOUND, "the model '%s' is being unloaded", m->name);
    if (atomic_load_explicit(&e->device_failed, memory_order_relaxed))
        return cp_fail(err, CP_DEVICE_FAILED, "the device has failed");
    if (atomic_load_explicit(&m->failed, memory_order_relaxed))
        return cp_fail(err, CP_MODEL_FAILED, "%s has failed", m->name);
    cp_code code = check_request(m, r, err);
    if (code != CP_OK)
        return code;
    if (!queue_enter(e, r->n_prompt))
        return cp_fail(err, CP_OVERLOADED, "%d requests or %lld tokens are waiting already",
                       atomic_load(&e->max_queue), (long long)atomic_load(&e->max_queue_tokens));
    /* relaxed: the push releases it */
    atomic_store_explicit(&r->refs, 2, memory_order_relaxed);
    atomic_store_explicit(&r->ready, 0, memory_order_relaxed);
    cp_mpsc_push(&e->inbox, &r->submit_link);
    return CP_OK;
}

static cp_code submit_open(cp_engine *e, cp_request *r, cp_err *err)
{
    cp_resident *m = r->model;
    if (atomic_load(&e->stopping))
        return cp_fail(err, CP_OVERLOADED, "the server is shutting down");
    if (!m)
        return cp_fail(err, CP_MODEL_NOT_FOUND, "the request names no model");
    atomic_fetch_add(&m->entering, 1);
    cp_code code = submit_counted(e, r, err);
    if (code != CP_OK)
        atomic_fetch_sub(&m->entering, 1);
    cp_engine_wake(e); /* for r, or for whoever waits that none enters */
    return code;
}

static cp_code api_submit(void *self, cp_request *r, cp_err *err)
{
    cp_engine *e = self;
    atomic_fetch_add(&e->submitting, 1);
    cp_code code = submit_open(e, r, err);
    atomic_fetch_sub(&e->submitting, 1);
    return code;
}

static void api_cancel(void *self, cp_request *r)
{
    atomic_store_explicit(&r->cancel, true, memory_order_relaxed);
    cp_engine_wake(self);
}

static void api_release(void *self, cp_request *r)
{
    (void)self;
    cp_request_drop(r);
}

static bool api_limits(void *self, const cp_resident *m, cp_engine_limits *out)
{
    cp_engine *e = self;
    if (!m)
        return false;
    *out = (cp_engine_limits){.ctx = m->mem.ctx,
                              .n_vocab = m->n_vocab,
                              .max_seqs = m->max_seqs,
                              .max_queue = atomic_load(&e->max_queue),
                              .max_queue_tokens = atomic_load(&e->max_queue_tokens)};
    return true;
}

static void api_profile(void *self, const cp_resident *m, cp_engine_profile *out)
{
    (void)self;
    cp_profile_read(&m->profile, out);
}

static bool api_alive(void *self)
{
    cp_engine *e = self;
    /* acquire: its start has stored the first beat */
    int life = atomic_load_explicit(&e->life, memory_order_acquire);
    int64_t beat = atomic_load_explicit(&e->beat_ns, memory_order_relaxed);
    if (atomic_load_explicit(&e->device_failed, memory_order_relaxed))
        return false;
    return life == CP_ENGINE_NEW ||
           (life == CP_ENGINE_STARTED && e->backend->now_ns() - beat < ALIVE_NS);
}

static void api_set_front(void *self, cp_mpsc *ready, void (*wake)(void *arg), void *arg)
{
    cp_engine *e = self;
    pthread_mutex_lock(&e->front_lock);
    e->ready = ready;
    e->wake = wake;
    e->wake_arg = arg;
    pthread_mutex_unlock(&e->front_lock);
}

cp_engine_api cp_front_table(cp_engine *e)
{
    return (cp_engine_api){.self = e,
                           .submit = api_submit,
                           .cancel = api_cancel,
                           .release = api_release,
                           .limits = api_limits,
                           .profile = api_profile,
                           .alive = api_alive,
                           .set_front = api_set_front};
}
