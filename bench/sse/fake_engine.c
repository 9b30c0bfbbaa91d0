/*
 * The fake engine's thread: one mutex, one condition variable, a list of requests. It keeps the
 * real engine's protocol towards the front (records, ready flag, references, one wake a step) and
 * nothing else of it. A token's log-probability is a fixed function of its id.
 */
#include "bench/sse/fake_engine.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { IDLE_NS = 1000000 };

typedef struct live {
    cp_request *r;
    struct live *next;
    int index[128]; /* tokens given, by choice */
    bool done[128];
    int n_done, scored;
    bool admitted, touched, over;
} live;

struct cp_fake {
    cp_fake_config cfg;
    cp_engine_api api;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t more;
    live *list;
    cp_fake_hold hold;
    cp_code fail;
    bool stop, joined;
    cp_fake_stats stats;
    cp_mpsc *ready;
    void (*wake)(void *arg);
    void *wake_arg;
};

/* ---- the vocabulary ---- */

struct cp_fake_meta {
    cp_meta *meta;
    char text[CP_FAKE_VOCAB][16];
    cp_str tokens[CP_FAKE_VOCAB];
    int32_t types[CP_FAKE_VOCAB];
    cp_str merges[1];
};

/* GPT-2 writes each byte as a printable code point: itself, or 256 and up in order. */
static void byte_name(int byte, char *out)
{
    int code = 256;
    for (int b = 0; b <= byte; b++) {
        bool plain = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        if (b == byte && plain)
            code = b;
        else if (b < byte && !plain)
            code++;
    }
    if (code < 0x80) {
        out[0] = (char)code;
    } else {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
    }
}

static void put_str(cp_meta *m, const char *key, const char *value)
{
    cp_meta_kv kv = {.key = {key, strlen(key)}, .type = CP_META_STRING, .count = 1};
    kv.v.s = (cp_str){value, strlen(value)};
    CP_ASSERT(cp_meta_put(m, &kv));
}

static void put_u32(cp_meta *m, const char *key, uint32_t value)
{
    cp_meta_kv kv = {.key = {key, strlen(key)}, .type = CP_META_U32, .count = 1};
    kv.v.u = value;
    CP_ASSERT(cp_meta_put(m, &kv));
}

static void put_array(cp_meta *m, const char *key, cp_meta_type elem, const void *a, uint64_t n)
{
    cp_meta_kv kv = {.key = {key, strlen(key)}, .type = CP_META_ARRAY, .elem = elem, .count = n};
    kv.v.a = a;
    CP_ASSERT(cp_meta_put(m, &kv));
}

cp_fake_meta *cp_fake_meta_new(void)
{
    static const char *const named[] = {"<|bos|>",    "<|eos|>",     "<|im_start|>",
                                        "<|im_end|>", "\xC4\xA0tok", "<think>"};
    cp_fake_meta *f = cp_xcalloc(1, sizeof(*f));
    for (int i = 0; i < CP_FAKE_VOCAB; i++) {
        if (i < 256)
            byte_name(i, f->text[i]);
        else
            cp_strcopy(f->text[i], sizeof(f->text[i]), named[i - 256]);
        f->tokens[i] = (cp_str){f->text[i], strlen(f->text[i])};
        f->types[i] = i == CP_FAKE_THINK ? 4 : i >= 256 && i < CP_FAKE_TOK ? 3 : 1;
    }
    f->merges[0] = (cp_str){"\xC4\xA0 t", 4};
    f->meta = cp_meta_new();
    put_str(f->meta, "tokenizer.ggml.model", "gpt2");
    put_str(f->meta, "tokenizer.ggml.pre", "gpt-2");
    put_array(f->meta, "tokenizer.ggml.tokens", CP_META_STRING, f->tokens, CP_FAKE_VOCAB);
    put_array(f->meta, "tokenizer.ggml.token_type", CP_META_I32, f->types, CP_FAKE_VOCAB);
    put_array(f->meta, "tokenizer.ggml.merges", CP_META_STRING, f->merges, 1);
    put_u32(f->meta, "tokenizer.ggml.bos_token_id", CP_FAKE_BOS);
    put_u32(f->meta, "tokenizer.ggml.eos_token_id", CP_FAKE_EOS);
    put_u32(f->meta, "tokenizer.ggml.eot_token_id", CP_FAKE_END);
    return f;
}

void cp_fake_meta_add_bos(cp_fake_meta *m)
{
    static const char key[] = "tokenizer.ggml.add_bos_token";
    cp_meta_kv kv = {.key = {key, sizeof(key) - 1}, .type = CP_META_BOOL, .count = 1};
    kv.v.u = 1;
    CP_ASSERT(cp_meta_put(m->meta, &kv));
}

const cp_meta *cp_fake_meta_view(const cp_fake_meta *m)
{
    return m->meta;
}

void cp_fake_meta_free(cp_fake_meta *m)
{
    if (!m)
        return;
    cp_meta_free(m->meta);
    free(m);
}

/* ---- events ---- */

static void push(live *l, const cp_event *ev)
{
    CP_ASSERT(cp_ring_push(&l->r->ring, ev));
    l->touched = true;
}

static uint32_t room(const live *l)
{
    return l->r->ring.cap - cp_ring_count(&l->r->ring);
}

static void score(cp_event *ev, int32_t id, int n_top)
{
    ev->id = id;
    ev->logprob = -0.25f - (float)(id % 8) * 0.125f;
    ev->n_top = n_top > 0 ? n_top : 0;
    for (int i = 0; i < ev->n_top && i < CP_MAX_TOP; i++) {
        ev->top[i].id = (id + i) % CP_FAKE_VOCAB;
        ev->top[i].logprob = ev->logprob - (float)i;
    }
}

static void finish(live *l, int choice, cp_finish reason)
{
    cp_event ev = {.type = CP_EV_FINISH, .reason = (uint8_t)reason, .choice = (uint16_t)choice};
    ev.n_cached = l->r->n_prompt / 2;
    push(l, &ev);
    l->done[choice] = true;
    l->n_done++;
}

static void end(live *l)
{
    cp_event ev = {.type = CP_EV_END};
    push(l, &ev);
    l->over = true;
}

static void cancel_live(cp_fake *f, live *l)
{
    for (int c = 0; c < l->r->n && room(l) > 1; c++)
        if (!l->done[c])
            finish(l, c, CP_FINISH_CANCELLED);
    f->stats.cancelled++;
    end(l);
}

static void fail_live(live *l, cp_code code)
{
    cp_event ev = {.type = CP_EV_ERROR, .code = (int32_t)code};
    push(l, &ev);
    l->over = true;
}

static void next_tokens(cp_fake *f, live *l)
{
    cp_request *r = l->r;
    while (r->n_prompt_top >= 0 && l->scored < r->n_prompt - 1) {
        if (room(l) < 2u * (unsigned)r->n + 2)
            return;
        cp_event ev = {.type = CP_EV_PROMPT, .pos = ++l->scored};
        score(&ev, r->prompt[l->scored], r->n_prompt_top);
        push(l, &ev);
    }
    if (room(l) < 2u * (unsigned)r->n + 2)
        return;
    for (int c = 0; c < r->n; c++) {
        if (l->done[c] || (f->cfg.hold_after > 0 && l->index[c] >= f->cfg.hold_after))
            continue;
        int32_t id = r->max_tokens > 0 ? f->cfg.script(f->cfg.arg, r, c, l->index[c]) : 0;
        bool stop = id < 0;
        for (int i = 0; i < r->sampling.n_stop_ids && !stop; i++)
            stop = r->sampling.stop_ids[i] == id && r->max_tokens > 0;
        if (stop) {
            finish(l, c, CP_FINISH_STOP);
            continue;
        }
        if (r->max_tokens > 0) {
            cp_event ev = {.type = CP_EV_TOKEN, .choice = (uint16_t)c, .pos = l->index[c]++};
            score(&ev, id, r->sampling.n_top);
            push(l, &ev);
            f->stats.tokens++;
        }
        if (l->index[c] >= r->max_tokens)
            finish(l, c, CP_FINISH_LENGTH);
    }
    if (l->n_done == r->n)
        end(l);
}

/* ---- the thread ---- */

static void drop(cp_request *r)
{
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
        r->free_fn(r);
}

static void step(cp_fake *f)
{
    int news = 0;
    f->stats.steps++;
    for (live **at = &f->list; *at;) {
        live *l = *at;
        cp_request *r = l->r;
        if (atomic_load_explicit(&r->cancel, memory_order_relaxed))
            cancel_live(f, l);
        else if (f->fail != CP_OK)
            fail_live(l, f->fail);
        else if (l->admitted || f->hold != CP_FAKE_QUEUE) {
            l->admitted = true;
            if (f->hold == CP_FAKE_RUN)
                next_tokens(f, l);
        }
        bool over = l->over; /* then l has news, and r may be gone when it is announced */
        if (l->touched && f->ready) {
            news++;
            cp_request_announce(r, f->ready, over);
        }
        l->touched = false;
        if (!over) {
            at = &l->next;
            continue;
        }
        *at = l->next;
        free(l);
        f->stats.ended++;
        f->stats.live--;
        if (!f->ready)
            drop(r);
    }
    f->fail = CP_OK;
    if (news > 0 && f->wake)
        f->wake(f->wake_arg);
}

static void *run(void *arg)
{
    cp_fake *f = arg;
    int64_t next = cp_now_ns();
    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        if (!f->list) {
            pthread_cond_wait(&f->more, &f->lock);
            continue;
        }
        f->stats.stuck = f->hold == CP_FAKE_STUCK;
        while (f->hold == CP_FAKE_STUCK)
            pthread_cond_wait(&f->more, &f->lock);
        f->stats.stuck = false;
        step(f);
        int64_t now = cp_now_ns();
        next += f->cfg.step_ns > 0 ? f->cfg.step_ns : 0;
        if (f->cfg.step_ns == 0 || next < now - 10 * f->cfg.step_ns)
            next = now + (f->cfg.step_ns > 0 ? 0 : IDLE_NS / 10);
        pthread_mutex_unlock(&f->lock);
        if (next > now) {
            int64_t d = next - now;
            struct timespec ts = {.tv_sec = d / 1000000000, .tv_nsec = d % 1000000000};
            nanosleep(&ts, NULL);
        }
        pthread_mutex_lock(&f->lock);
    }
    f->fail = CP_OVERLOADED;
    step(f);
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- the table ---- */

static cp_code api_submit(void *self, cp_request *r, cp_err *err)
{
    cp_fake *f = self;
    cp_code code = CP_OK;
    pthread_mutex_lock(&f->lock);
    if (f->stop || f->stats.live >= f->cfg.max_queue) {
        code = cp_fail(err, CP_OVERLOADED, "%d requests are waiting; allowed: %d", f->stats.live,
                       f->cfg.max_queue);
    } else {
        atomic_store(&r->refs, 2);
        live *l = cp_xcalloc(1, sizeof(*l));
        l->r = r;
        live **at = &f->list;
        while (*at)
            at = &(*at)->next;
        *at = l;
        f->stats.live++;
        f->stats.submitted++;
        f->stats.deadline_ns = r->deadline_ns;
        pthread_cond_signal(&f->more);
    }
    pthread_mutex_unlock(&f->lock);
    return code;
}

static void api_cancel(void *self, cp_request *r)
{
    cp_fake *f = self;
    atomic_store_explicit(&r->cancel, true, memory_order_relaxed);
    pthread_cond_signal(&f->more);
}

static void api_release(void *self, cp_request *r)
{
    (void)self;
    drop(r);
}

static bool api_limits(void *self, const cp_resident *model, cp_engine_limits *out)
{
    const cp_fake *f = self;
    *out = (cp_engine_limits){
        .ctx = f->cfg.ctx, .n_vocab = CP_FAKE_VOCAB, .max_seqs = 64, .max_queue = f->cfg.max_queue};
    return model == NULL; /* it has one, and needs no name for it */
}

static bool api_alive(void *self)
{
    (void)self;
    return true;
}

static void api_set_front(void *self, cp_mpsc *ready, void (*wake)(void *arg), void *arg)
{
    cp_fake *f = self;
    pthread_mutex_lock(&f->lock);
    f->ready = ready;
    f->wake = wake;
    f->wake_arg = arg;
    pthread_mutex_unlock(&f->lock);
}

cp_fake *cp_fake_open(const cp_fake_config *cfg)
{
    cp_fake *f = cp_xcalloc(1, sizeof(*f));
    f->cfg = *cfg;
    f->api = (cp_engine_api){.self = f,
                             .submit = api_submit,
                             .cancel = api_cancel,
                             .release = api_release,
                             .limits = api_limits,
                             .alive = api_alive,
                             .set_front = api_set_front};
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->more, NULL);
    CP_ASSERT(pthread_create(&f->thread, NULL, run, f) == 0);
    return f;
}

void cp_fake_stop(cp_fake *f)
{
    if (f->joined)
        return;
    pthread_mutex_lock(&f->lock);
    f->stop = f->stats.stopping = true;
    pthread_cond_signal(&f->more);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    f->joined = true;
}

void cp_fake_close(cp_fake *f)
{
    cp_fake_stop(f);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->more);
    free(f);
}

const cp_engine_api *cp_fake_api(cp_fake *f)
{
    return &f->api;
}

void cp_fake_set_hold(cp_fake *f, cp_fake_hold hold)
{
    pthread_mutex_lock(&f->lock);
    f->hold = hold;
    pthread_cond_signal(&f->more);
    pthread_mutex_unlock(&f->lock);
}

void cp_fake_set_hold_after(cp_fake *f, int tokens)
{
    pthread_mutex_lock(&f->lock);
    f->cfg.hold_after = tokens;
    pthread_mutex_unlock(&f->lock);
}

void cp_fake_fail(cp_fake *f, cp_code code)
{
    pthread_mutex_lock(&f->lock);
    f->fail = code;
    pthread_mutex_unlock(&f->lock);
}

cp_fake_stats cp_fake_read(cp_fake *f)
{
    pthread_mutex_lock(&f->lock);
    cp_fake_stats s = f->stats;
    pthread_mutex_unlock(&f->lock);
    return s;
}
