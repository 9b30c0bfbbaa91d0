/*
 * engine: the engine thread, its models, and the front end's table of functions.
 *
 * One thread runs everything: it takes requests from the submit queue, then gives each model a step
 * (sweep, plan, batch, submit, collect, commit, announce). With nothing to do it sleeps on a futex:
 * producers bump `wakes` and wake it if it said that it sleeps. It never spins: full rings are
 * looked at every 2 ms, and otherwise it sleeps up to a second. Its heart beats once a turn, and in
 * a step after each operation (cp_batch.beat).
 * Models are added under a mutex and published by a release store of their count.
 */
#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/engine_internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_MODELS = 64, BLOCKED_SLEEP_NS = 2000000, IDLE_SLEEP_NS = 1000000000 };
/* Silence for so long is a dead engine. The heart beats between the operations of a step too, so
 * how long a step takes does not count. */
#define ALIVE_NS INT64_C(30000000000)
/* Heart beats that are no times. Before its start the engine counts as alive. */
enum { NOT_STARTED = 0, STOPPED = -1 };

/* One loaded model. Immutable but for what the engine thread owns and `failed`. */
typedef struct model {
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
    uint64_t seen_evictions;
    _Atomic bool
        failed; /* weights were lost: refuse from now on; relaxed, a late look is harmless */
} model;

struct cp_engine {
    cp_engine_config cfg;
    const cp_engine_backend *backend;
    cp_engine_api api;
    pthread_mutex_t add_lock; /* guards adding models */
    model *models[MAX_MODELS];
    _Atomic int n_models; /* release: the model is complete */

    cp_mpsc inbox;
    cp_queue_count queue;
    cp_request *held;       /* taken from the inbox, but its scheduler was full */
    _Atomic int submitting; /* threads inside submit: stop waits for them */
    _Atomic bool stopping;

    _Atomic uint32_t wakes; /* futex word */
    _Atomic bool asleep;
    _Atomic int64_t beat_ns;
    pthread_t thread;
    bool started;

    pthread_mutex_t front_lock; /* guards the three below; taken once a step */
    cp_mpsc *ready;
    void (*wake)(void *arg);
    void *wake_arg;

    cp_step_probe *probe;
    void *probe_arg;
};

/* ---- sleeping and waking ---- */

static void wake_engine(cp_engine *e)
{
    /* seq_cst pairs with the sleeper: either it sees the bump, or we see it asleep */
    atomic_fetch_add(&e->wakes, 1);
    if (atomic_load(&e->asleep))
        syscall(SYS_futex, &e->wakes, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void sleep_engine(cp_engine *e, uint32_t seen, int64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    atomic_store(&e->asleep, true);
    if (atomic_load(&e->wakes) == seen)
        syscall(SYS_futex, &e->wakes, FUTEX_WAIT_PRIVATE, seen, &ts, NULL, 0);
    atomic_store(&e->asleep, false);
}

/* ---- one model's step ---- */

/* Runs the plan's batch. Anything but CP_OK: no result may be used. */
static cp_code run_batch(cp_engine *e, model *m, cp_err *err)
{
    cp_step_build(&m->step, m->sched);
    cp_batch *batch = &m->step.batch;
    uint32_t n_fresh;
    const uint32_t *fresh = cp_kv_fresh(m->kv, &n_fresh);
    for (uint32_t i = 0; i < n_fresh; i++)
        e->backend->zero_page(m->prepared, fresh[i]);
    if (e->probe && !m->probe_logits)
        m->probe_logits = malloc(sizeof(float) * (size_t)m->step.max_out * (size_t)m->n_vocab);
    batch->logits_copy = e->probe ? m->probe_logits : NULL;
    batch->beat = &e->beat_ns;
    cp_code code = e->backend->submit(m->prepared, batch, err);
    if (code == CP_OK)
        code = e->backend->collect(m->prepared, err);
    if (code == CP_OK && m->file && e->backend->poisoned(m->file))
        code =
            cp_fail(err, CP_MODEL_FAILED, "%s: the mapped file changed under the server", m->name);
    if (code == CP_MODEL_FAILED)
        atomic_store_explicit(&m->failed, true, memory_order_relaxed);
    cp_kv_step_done(m->kv);
    if (code == CP_OK && batch->logits_copy && batch->n_out > 0)
        e->probe(e->probe_arg, m->sched->cfg.model_index, batch, m->step.out_request,
                 m->step.out_choice, batch->logits_copy);
    return code;
}

/* Announce what happened, counted first. */
static void announce(cp_engine *e, model *m)
{
    cp_metrics_publish(m->sched, &m->seen, &m->seen_evictions);
    if (!m->sched->touched)
        return;
    pthread_mutex_lock(&e->front_lock);
    int n = cp_sched_flush(m->sched, e->ready);
    if (n > 0 && e->wake)
        e->wake(e->wake_arg);
    pthread_mutex_unlock(&e->front_lock);
    if (m->sched->n_lives == 0)
        cp_sched_check_idle(m->sched);
}

/* True: a step ran. *deadline: the earliest of the model's requests, if earlier. */
static bool step_model(cp_engine *e, model *m, int64_t *deadline)
{
    int64_t start = cp_now_ns(), first = cp_sched_sweep(m->sched, start);
    if (first && (*deadline == 0 || first < *deadline))
        *deadline = first;
    bool failed = atomic_load_explicit(&m->failed, memory_order_relaxed);
    if (failed)
        cp_sched_fail_all(m->sched, CP_MODEL_FAILED);
    bool ran = !failed && cp_sched_plan(m->sched, m->max_batch_rows) > 0;
    if (ran) {
        cp_err err = {0};
        cp_code code = run_batch(e, m, &err);
        int64_t now = cp_now_ns();
        if (code == CP_OK) {
            cp_sched_commit(m->sched, m->step.results, now);
        } else {
            cp_log(CP_LOG_ERROR, "step failed model=%s error=\"%s\"", m->name, err.msg);
            cp_sched_fail_plan(m->sched, CP_MODEL_FAILED);
            if (atomic_load_explicit(&m->failed, memory_order_relaxed))
                cp_sched_fail_all(m->sched, CP_MODEL_FAILED);
        }
        cp_metrics_step(m->metrics, now - start);
    }
    announce(e, m);
    return ran;
}

/* ---- the thread ---- */

static cp_request *next_request(cp_engine *e)
{
    cp_request *r = e->held;
    e->held = NULL;
    if (r)
        return r;
    cp_mpsc_node *n = cp_mpsc_pop(&e->inbox);
    return n ? (cp_request *)(void *)((char *)n - offsetof(cp_request, submit_link)) : NULL;
}

static void take_requests(cp_engine *e)
{
    int64_t now = cp_now_ns();
    for (cp_request *r; (r = next_request(e)) != NULL;) {
        if (!cp_sched_submit(e->models[r->model]->sched, r, now)) {
            e->held = r; /* order is kept: nothing behind it is taken either */
            return;
        }
    }
}

static void *engine_main(void *arg)
{
    cp_engine *e = arg;
    while (!atomic_load(&e->stopping)) {
        uint32_t seen = atomic_load(&e->wakes);
        int64_t deadline = 0;
        bool ran = false, busy = false;
        take_requests(e);
        int n = atomic_load_explicit(&e->n_models, memory_order_acquire);
        for (int i = 0; i < n; i++) {
            ran |= step_model(e, e->models[i], &deadline);
            busy |= cp_sched_busy(e->models[i]->sched);
        }
        int64_t now = cp_now_ns();
        /* relaxed: a time to look at, it orders nothing */
        atomic_store_explicit(&e->beat_ns, now, memory_order_relaxed);
        if (ran)
            continue;
        int64_t ns = busy ? BLOCKED_SLEEP_NS : IDLE_SLEEP_NS;
        if (deadline && deadline - now < ns)
            ns = deadline > now ? deadline - now : 1;
        sleep_engine(e, seen, ns);
    }
    return NULL;
}

/* ---- the front end's side ---- */

static cp_code check_request(const model *m, const cp_request *r, cp_err *err)
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
    if (before < e->cfg.max_queue && (tokens == 0 || tokens + n_prompt <= e->cfg.max_queue_tokens))
        return true;
    atomic_fetch_sub(&q->requests, 1);
    atomic_fetch_sub(&q->tokens, n_prompt);
    return false;
}

static cp_code submit_open(cp_engine *e, cp_request *r, cp_err *err)
{
    int n = atomic_load_explicit(&e->n_models, memory_order_acquire);
    if (atomic_load(&e->stopping))
        return cp_fail(err, CP_OVERLOADED, "the server is shutting down");
    if (r->model < 0 || r->model >= n)
        return cp_fail(err, CP_MODEL_NOT_FOUND, "no model %d", r->model);
    const model *m = e->models[r->model];
    if (atomic_load_explicit(&m->failed, memory_order_relaxed))
        return cp_fail(err, CP_MODEL_FAILED, "%s has failed", m->name);
    cp_code code = check_request(m, r, err);
    if (code != CP_OK)
        return code;
    if (!queue_enter(e, r->n_prompt))
        return cp_fail(err, CP_OVERLOADED, "%d requests or %lld tokens are waiting already",
                       e->cfg.max_queue, (long long)e->cfg.max_queue_tokens);
    /* relaxed: the push releases it */
    atomic_store_explicit(&r->refs, 2, memory_order_relaxed);
    atomic_store_explicit(&r->ready, 0, memory_order_relaxed);
    cp_mpsc_push(&e->inbox, &r->submit_link);
    wake_engine(e);
    return CP_OK;
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
    wake_engine(self);
}

static void api_release(void *self, cp_request *r)
{
    (void)self;
    cp_request_drop(r);
}

static bool api_limits(void *self, int index, cp_engine_limits *out)
{
    cp_engine *e = self;
    if (index < 0 || index >= atomic_load_explicit(&e->n_models, memory_order_acquire))
        return false;
    const model *m = e->models[index];
    *out = (cp_engine_limits){.ctx = m->mem.ctx,
                              .n_vocab = m->n_vocab,
                              .max_seqs = m->max_seqs,
                              .max_queue = e->cfg.max_queue,
                              .max_queue_tokens = e->cfg.max_queue_tokens};
    return true;
}

static bool api_alive(void *self)
{
    cp_engine *e = self;
    int64_t beat = atomic_load_explicit(&e->beat_ns, memory_order_relaxed);
    return beat == NOT_STARTED || (beat != STOPPED && cp_now_ns() - beat < ALIVE_NS);
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

/* ---- models ---- */

int cp_engine_page_positions(const cp_engine *e)
{
    return e->backend->page_positions(e->cfg.backend);
}

static void model_free(cp_engine *e, model *m)
{
    if (!m)
        return;
    cp_step_fini(&m->step);
    cp_sched_close(m->sched);
    cp_kv_close(m->kv);
    if (m->prepared)
        e->backend->prepared_free(m->prepared);
    free(m->probe_logits);
    free(m->name);
    free(m);
}

/* The root of every page key: what else than tokens decides a page's bytes. */
static void identity(uint8_t out[32], const cp_engine_model *m, const cp_engine_desc *d, int P)
{
    char text[256];
    size_t n =
        cp_snprintf(text, sizeof(text), "capstan-kv-1 %s kv=%d P=%d groups=%d",
                    d->digest ? d->digest : m->name, (int)m->kv_type, P, d->program->n_groups);
    cp_sha256_of(text, n, out);
}

static cp_code model_open(cp_engine *e, model *m, const cp_engine_model *cfg,
                          const cp_engine_desc *d, cp_err *err)
{
    int P = cp_engine_page_positions(e);
    int max_out = cfg->max_seqs > 64 ? cfg->max_seqs : 64;
    cp_code code = cp_memory_plan_make(&m->mem, cfg, d, P, err);
    if (code != CP_OK)
        return code;
    cp_prepare_config prepare = {.max_rows = cfg->max_batch_rows,
                                 .max_out = max_out,
                                 .max_seqs = cfg->max_seqs,
                                 .page_positions = P,
                                 .n_pages = m->mem.n_pages ? m->mem.n_pages : 1,
                                 .n_state_slots = m->mem.n_states ? m->mem.n_states : 1,
                                 .kv_type = cfg->kv_type,
                                 .cache_read_dir = d->cache_read_dir,
                                 .cache_dir = d->cache_dir,
                                 .cache_key = d->digest,
                                 .cache_check = cfg->cache_check};
    code = e->backend->prepare(e->cfg.backend, d->program, &prepare, &m->prepared, err);
    if (code != CP_OK)
        return code;
    cp_kv_config kv = {.groups = d->program->groups,
                       .n_groups = d->program->n_groups,
                       .page_positions = P,
                       .n_pages = m->mem.n_pages,
                       .n_state_slots = m->mem.n_states,
                       .max_seqs = cfg->max_seqs,
                       .max_positions = m->mem.ctx,
                       .prefix_cache = cfg->prefix_cache};
    identity(kv.identity, cfg, d, P);
    code = cp_kv_open(&m->kv, &kv, err);
    if (code != CP_OK)
        return code;
    cp_sched_config sc = {.kv = m->kv,
                          .groups = d->program->groups,
                          .n_groups = d->program->n_groups,
                          .page_positions = P,
                          .ctx = m->mem.ctx,
                          .max_seqs = cfg->max_seqs,
                          .prefill_chunk = cfg->prefill_chunk,
                          .max_out = max_out,
                          .max_lives = e->cfg.max_queue + 2 * cfg->max_seqs,
                          .prefix_cache = cfg->prefix_cache,
                          .queue = &e->queue,
                          .metrics = cfg->metrics};
    code = cp_sched_open(&m->sched, &sc, err);
    if (code != CP_OK)
        return code;
    return cp_step_init(&m->step, cfg->max_batch_rows, max_out, cfg->max_seqs, err);
}

cp_code cp_engine_add_program(cp_engine *e, const cp_engine_model *cfg, const cp_engine_desc *d,
                              int *index, cp_err *err)
{
    if (cfg->max_seqs < 1 || cfg->max_seqs > 4096 || cfg->max_batch_rows < cfg->max_seqs ||
        cfg->prefill_chunk < 1)
        return cp_fail(err, CP_INVALID_VALUE,
                       "%s: max_seqs %d (1..4096), max_batch_rows %d (>= max_seqs), "
                       "prefill_chunk %d (>= 1)",
                       cfg->name, cfg->max_seqs, cfg->max_batch_rows, cfg->prefill_chunk);
    model *m = cp_xcalloc(1, sizeof(*m));
    m->name = cp_xstrdup(cfg->name);
    m->file = cfg->file;
    m->metrics = cfg->metrics;
    m->n_vocab = d->program->n_vocab;
    m->max_batch_rows = cfg->max_batch_rows;
    m->max_seqs = cfg->max_seqs;
    cp_code code = model_open(e, m, cfg, d, err);
    if (code != CP_OK) {
        model_free(e, m);
        return code;
    }
    cp_metrics_publish(m->sched, &m->seen, &m->seen_evictions);
    pthread_mutex_lock(&e->add_lock);
    int n = atomic_load_explicit(&e->n_models, memory_order_relaxed);
    if (n < MAX_MODELS) {
        m->sched->cfg.model_index = n;
        e->models[n] = m;
        atomic_store_explicit(&e->n_models, n + 1, memory_order_release);
    }
    pthread_mutex_unlock(&e->add_lock);
    if (n == MAX_MODELS) {
        model_free(e, m);
        return cp_fail(err, CP_INVALID_VALUE, "%d models are loaded already", MAX_MODELS);
    }
    *index = n;
    return CP_OK;
}

void cp_engine_describe(cp_engine *e, int index, int *ctx, uint64_t *kv_bytes, int *full_seqs)
{
    CP_ASSERT(index >= 0 && index < atomic_load_explicit(&e->n_models, memory_order_acquire));
    const model *m = e->models[index];
    *ctx = m->mem.ctx;
    *kv_bytes = m->mem.kv_bytes;
    *full_seqs = m->mem.full_seqs;
}

/* ---- life ---- */

cp_code cp_engine_open_with(cp_engine **out, const cp_engine_config *cfg,
                            const cp_engine_backend *backend, cp_err *err)
{
    if (cfg->max_queue < 1 || cfg->max_queue_tokens < 1)
        return cp_fail(err, CP_INVALID_VALUE, "max_queue %d and max_queue_tokens %lld must be >= 1",
                       cfg->max_queue, (long long)cfg->max_queue_tokens);
    cp_engine *e = cp_xcalloc(1, sizeof(*e));
    e->cfg = *cfg;
    e->backend = backend;
    e->api = (cp_engine_api){.self = e,
                             .submit = api_submit,
                             .cancel = api_cancel,
                             .release = api_release,
                             .limits = api_limits,
                             .alive = api_alive,
                             .set_front = api_set_front};
    cp_mpsc_init(&e->inbox);
    pthread_mutex_init(&e->add_lock, NULL);
    pthread_mutex_init(&e->front_lock, NULL);
    *out = e;
    return CP_OK;
}

cp_code cp_engine_start(cp_engine *e, cp_err *err)
{
    CP_ASSERT(!e->started);
    atomic_store_explicit(&e->beat_ns, cp_now_ns(), memory_order_relaxed);
    int rc = pthread_create(&e->thread, NULL, engine_main, e);
    if (rc != 0)
        return cp_fail(err, CP_IO, "the engine thread did not start: %s", strerror(rc));
    e->started = true;
    return CP_OK;
}

const cp_engine_api *cp_engine_front(cp_engine *e)
{
    return &e->api;
}

void cp_engine_set_probe(cp_engine *e, cp_step_probe *fn, void *arg)
{
    e->probe = fn;
    e->probe_arg = arg;
}

void cp_engine_stop(cp_engine *e)
{
    atomic_store(&e->stopping, true);
    while (atomic_load(&e->submitting) > 0)
        sched_yield(); /* submit is a few hundred instructions */
    wake_engine(e);
    if (e->started)
        pthread_join(e->thread, NULL);
    e->started = false;
    atomic_store_explicit(&e->beat_ns, STOPPED, memory_order_relaxed);
    int n = atomic_load_explicit(&e->n_models, memory_order_acquire);
    do { /* what a scheduler had no room for comes after what it lets go */
        take_requests(e);
        for (int i = 0; i < n; i++) {
            cp_sched_fail_all(e->models[i]->sched, CP_OVERLOADED);
            announce(e, e->models[i]);
        }
    } while (e->held);
}

void cp_engine_close(cp_engine *e)
{
    if (!e)
        return;
    CP_ASSERT(!e->started);
    int n = atomic_load_explicit(&e->n_models, memory_order_acquire);
    for (int i = 0; i < n; i++)
        model_free(e, e->models[i]);
    pthread_mutex_destroy(&e->add_lock);
    pthread_mutex_destroy(&e->front_lock);
    free(e);
}
