/*
 * fake: see fake.h. Locks are plain; nothing here is fast.
 */
#include "tests/unit/engine/fake.h"

#include "base/clock.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

fake *fake_now;

struct cp_prepared {
    int n_vocab;
    const cp_batch *batch;
    uint32_t n_pages;
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

int32_t fake_token(const int32_t *prompt, int n_prompt, const int32_t *output, int n_output,
                   uint64_t seed, int choice)
{
    uint64_t h = 1;
    for (int i = 0; i < n_prompt; i++)
        h = mix(h * 31 + (uint64_t)prompt[i]);
    for (int i = 0; i < n_output; i++)
        h = mix(h * 31 + (uint64_t)output[i]);
    h = mix(h ^ seed * 77 ^ (uint64_t)choice << 20);
    return (int32_t)(10 + h % (FAKE_VOCAB - 10)); /* ids below 10 are never drawn */
}

/* ---- backend ---- */

static int page_positions(const cp_backend *b)
{
    (void)b;
    return FAKE_P;
}

static cp_code prepare(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                       cp_prepared **out, cp_err *err)
{
    fake *f = fake_now;
    (void)b;
    pthread_mutex_lock(&f->lock);
    f->at_prepare++;
    f->cancel = cfg->cancel;
    pthread_cond_broadcast(&f->cond);
    while (f->prepare_held)
        pthread_cond_wait(&f->cond, &f->lock);
    f->at_prepare--;
    cp_code code = f->prepare_fails;
    f->n_prepared += code == CP_OK;
    pthread_mutex_unlock(&f->lock);
    if (code != CP_OK)
        return cp_fail(err, code, "preparing fails by order");
    *out = cp_xcalloc(1, sizeof(**out));
    (*out)->n_vocab = prog->n_vocab;
    (*out)->n_pages = cfg->n_pages;
    return CP_OK;
}

static void prepared_free(cp_prepared *p)
{
    pthread_mutex_lock(&fake_now->lock);
    fake_now->n_prepared--;
    pthread_mutex_unlock(&fake_now->lock);
    free(p);
}

static int64_t now_ns(void)
{
    int64_t ns = atomic_load(&fake_now->clock_ns);
    return ns ? ns : cp_now_ns();
}

/* The step is one operation: its heart beats before it, and after it. */
static void pass_time(fake *f, const cp_batch *batch)
{
    int64_t ns = f->row_ns * batch->n_rows;
    if (!f->row_ns)
        return;
    atomic_store(batch->beat, now_ns());
    atomic_fetch_add(&f->clock_ns, ns);
    f->longest_ns = ns > f->longest_ns ? ns : f->longest_ns;
    f->dead += f->api && !f->api->alive(f->api->self);
    atomic_store(batch->beat, now_ns());
}

static cp_code submit(cp_prepared *p, const cp_batch *batch, cp_err *err)
{
    fake *f = fake_now;
    pthread_mutex_lock(&f->lock);
    while (f->gated && f->passes == 0) {
        f->at_gate = 1;
        f->beat = batch->beat;
        pthread_cond_broadcast(&f->cond);
        pthread_cond_wait(&f->cond, &f->lock);
    }
    f->at_gate = 0;
    f->passes -= f->gated;
    if (f->n_steps < 64)
        f->order[f->n_steps] = p->n_vocab;
    f->n_steps++;
    f->n_rows += batch->n_rows;
    f->n_zeroed += batch->n_zero_pages;
    for (int i = 0; i < batch->n_zero_pages; i++)
        assert_in_range(batch->zero_pages[i], 1, p->n_pages - 1);
    f->most_rows = batch->n_rows > f->most_rows ? batch->n_rows : f->most_rows;
    pass_time(f, batch);
    bool dead = f->device_in_submit && f->device_at && f->n_steps >= f->device_at;
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->lock);
    p->batch = batch;
    return dead ? cp_fail(err, CP_DEVICE_FAILED, "no device from here on") : CP_OK;
}

static cp_code collect(cp_prepared *p, cp_err *err)
{
    fake *f = fake_now;
    const cp_batch *b = p->batch;
    pthread_mutex_lock(&f->lock);
    int step = f->n_steps;
    for (int o = 0; o < b->n_out; o++) {
        const cp_sample_in *in = &b->samples[o];
        cp_sample_out *res = &b->results[o];
        *res = (cp_sample_out){.id = in->target, .logprob = -1.5f, .finite = step != f->nan_at};
        if (in->n_top > 0) {
            res->n_top = in->n_top;
            res->top[0].id = 7;
        }
        if (b->logits_copy)
            b->logits_copy[(size_t)o * (size_t)p->n_vocab] = 42.0f;
        f->banned_seen = in->n_banned > f->banned_seen ? in->n_banned : f->banned_seen;
        if (in->target >= 0)
            continue;
        f->last_position = in->position;
        res->id = fake_token(in->tokens, in->n_prompt, in->tokens + in->n_prompt,
                             in->n_tokens - in->n_prompt, in->seed, (int)in->choice);
    }
    pthread_mutex_unlock(&f->lock);
    if (f->device_at && step >= f->device_at)
        return cp_fail(err, CP_DEVICE_FAILED, "no device from here on");
    if (step == f->lost_at)
        return cp_fail(err, CP_MODEL_FAILED, "step %d loses by order", step);
    return step == f->fail_at ? cp_fail(err, CP_IO, "step %d fails by order", step) : CP_OK;
}

static bool poisoned(const cp_loaded *file)
{
    (void)file;
    return fake_now->poison_at && fake_steps(fake_now) >= fake_now->poison_at;
}

static int depth(const cp_backend *b)
{
    (void)b;
    return 1;
}

const cp_engine_backend fake_backend = {.page_positions = page_positions,
                                        .depth = depth,
                                        .prepare = prepare,
                                        .prepared_free = prepared_free,
                                        .submit = submit,
                                        .collect = collect,
                                        .poisoned = poisoned,
                                        .now_ns = now_ns};

void fake_init(fake *f)
{
    *f = (fake){0};
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->cond, NULL);
    f->thread = pthread_self();
    fake_now = f;
}

void fake_clock(fake *f, int64_t row_ns)
{
    atomic_store(&f->clock_ns, row_ns ? INT64_C(1000000000) : 0);
    f->row_ns = row_ns;
}

void fake_gate(fake *f, bool closed)
{
    pthread_mutex_lock(&f->lock);
    f->gated = closed;
    f->passes = 0;
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->lock);
}

void fake_await_gate(fake *f)
{
    pthread_mutex_lock(&f->lock);
    while (!f->at_gate || f->passes > 0)
        pthread_cond_wait(&f->cond, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

void fake_hold_prepare(fake *f, bool held)
{
    pthread_mutex_lock(&f->lock);
    f->prepare_held = held;
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->lock);
}

void fake_await_prepare(fake *f)
{
    pthread_mutex_lock(&f->lock);
    while (f->at_prepare == 0)
        pthread_cond_wait(&f->cond, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

void fake_pass(fake *f, int steps)
{
    pthread_mutex_lock(&f->lock);
    f->passes += steps;
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->lock);
}

int fake_steps(fake *f)
{
    pthread_mutex_lock(&f->lock);
    int n = f->n_steps;
    pthread_mutex_unlock(&f->lock);
    return n;
}

/* ---- front end ---- */

static void on_wake(void *arg)
{
    front *f = arg;
    pthread_mutex_lock(&f->lock);
    f->wakes++;
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->lock);
}

void front_open(front *f, const cp_engine_api *api)
{
    *f = (front){.api = api};
    cp_mpsc_init(&f->ready);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->cond, NULL);
    api->set_front(api->self, &f->ready, on_wake, f);
}

void front_close(front *f)
{
    f->api->set_front(f->api->self, NULL, NULL, NULL);
}

static void on_free(cp_request *r)
{
    fake_req *q = r->user;
    if (!pthread_equal(pthread_self(), fake_now->thread))
        atomic_fetch_add(&fake_now->freed_elsewhere, 1);
    atomic_fetch_add(&q->freed, 1);
}

void fake_req_init(fake_req *q, int n_prompt, int32_t first, int max_tokens, uint32_t ring)
{
    memset(q, 0, sizeof(*q));
    for (int i = 0; i < n_prompt; i++)
        q->prompt[i] = first + i;
    q->next_prompt_pos = 1;
    q->r = (cp_request){.model = fake_now->model,
                        .prompt = q->prompt,
                        .n_prompt = n_prompt,
                        .max_tokens = max_tokens,
                        .n = 1,
                        .n_prompt_top = -1,
                        .user = q,
                        .free_fn = on_free};
    q->r.sampling =
        (cp_sampling){.top_p = 1, .repetition = 1, .n_top = -1, .stop_ids = q->stop_ids};
    cp_ring_init(&q->r.ring, q->ring_mem, sizeof(cp_event), ring);
}

static void on_event(fake_req *q, const cp_event *ev)
{
    assert_false(q->ended);
    switch ((cp_event_type)ev->type) {
    case CP_EV_TOKEN:
        assert_int_equal(ev->pos, q->n_tokens[ev->choice]);
        assert_int_equal(q->finish[ev->choice], CP_FINISH_NONE);
        q->tokens[ev->choice][q->n_tokens[ev->choice]++] = ev->id;
        break;
    case CP_EV_PROMPT:
        assert_int_equal(ev->pos, q->next_prompt_pos++);
        assert_int_equal(ev->id, q->prompt[ev->pos]);
        q->n_prompt_events++;
        break;
    case CP_EV_FINISH:
        q->finish[ev->choice] = ev->reason;
        q->n_cached = ev->n_cached;
        break;
    case CP_EV_ERROR:
        q->code = ev->code;
        q->ended = true;
        break;
    case CP_EV_END:
        q->ended = true;
        break;
    }
}

void front_read(fake_req *q, front *f)
{
    cp_event ev;
    while (!q->ended && cp_ring_pop(&q->r.ring, &ev))
        on_event(q, &ev);
    if (q->ended)
        f->api->release(f->api->self, &q->r);
}

static void take_ready(front *f)
{
    for (cp_mpsc_node *n; (n = cp_mpsc_pop(&f->ready)) != NULL;) {
        cp_request *r = (cp_request *)(void *)((char *)n - offsetof(cp_request, ready_link));
        fake_req *q = r->user;
        bool last = cp_request_popped(r);
        if (!q->lazy && !q->ended)
            front_read(q, f);
        if (last)
            f->api->release(f->api->self, r);
    }
}

void front_wait(front *f, fake_req *q)
{
    for (;;) {
        take_ready(f);
        if (q->ended && atomic_load(&q->freed))
            return;
        pthread_mutex_lock(&f->lock);
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 20000000; /* an ended request is let go after its last wake */
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (f->wakes == f->seen)
            pthread_cond_timedwait(&f->cond, &f->lock, &until);
        f->seen = f->wakes;
        pthread_mutex_unlock(&f->lock);
    }
}
