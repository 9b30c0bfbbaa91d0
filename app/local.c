/*
 * This file is the front end inside the process: see local.h. The engine wakes it by a condition
 * variable; ready requests come through its queue and are drained one event a call.
 */
#include "app/local.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct cp_local {
    const cp_engine_api *api;
    cp_mpsc ready;
    pthread_mutex_t lock; /* guards signalled */
    pthread_cond_t cond;
    bool signalled;
    cp_request *current; /* being drained */
};

typedef struct local_request {
    cp_request r;
    bool ended; /* its last event was taken while the engine may still queue it: released when that
                   link comes */
} local_request;

static void wake(void *arg)
{
    cp_local *l = arg;
    pthread_mutex_lock(&l->lock);
    l->signalled = true;
    pthread_cond_signal(&l->cond);
    pthread_mutex_unlock(&l->lock);
}

/* A request with news; NULL: none. Those that come back for the last time after their end go. */
static cp_request *pop_ready(cp_local *l)
{
    for (cp_mpsc_node *n; (n = cp_mpsc_pop(&l->ready));) {
        cp_request *r = (cp_request *)((char *)n - offsetof(cp_request, ready_link));
        bool ended = ((local_request *)r)->ended;
        if (cp_request_popped(r)) { /* before the ring is drained */
            l->api->release(l->api->self, r);
        }
        if (!ended) {
            return r;
        }
    }
    return NULL;
}

cp_local *cp_local_open(const cp_engine_api *api)
{
    cp_local *l = cp_xcalloc(1, sizeof *l);
    l->api = api;
    cp_mpsc_init(&l->ready);
    pthread_mutex_init(&l->lock, NULL);
    cp_clock_cond_init(&l->cond);
    api->set_front(api->self, &l->ready, wake, l);
    return l;
}

void cp_local_close(cp_local *l)
{
    if (l) {
        l->api->set_front(l->api->self, NULL, NULL, NULL);
        for (cp_request *r; (r = pop_ready(l));) {
        }
        pthread_mutex_destroy(&l->lock);
        pthread_cond_destroy(&l->cond);
        free(l);
    }
}

static void free_request(cp_request *r)
{
    free(r->ring.mem);
    free(r);
}

cp_request *cp_local_request(cp_local *l, uint32_t cap, int n_top, int n_prompt_top)
{
    (void)l;
    int top = n_top > n_prompt_top ? n_top : n_prompt_top;
    uint32_t record = (uint32_t)CP_EVENT_BYTES(top);
    cp_request *r = &((local_request *)cp_xcalloc(1, sizeof(local_request)))->r;
    cp_ring_init(&r->ring, cp_xcalloc(cap, record), record, cap);
    r->n = 1;
    r->sampling.top_p = 1.0f;
    r->sampling.repetition = 1.0f;
    r->sampling.n_top = n_top;
    r->n_prompt_top = n_prompt_top;
    r->no_prefix_reads = n_prompt_top >= 0;
    r->free_fn = free_request;
    return r;
}

cp_code cp_local_submit(cp_local *l, cp_request *r, cp_err *err)
{
    cp_code rc = l->api->submit(l->api->self, r, err);
    if (rc) {
        free_request(r);
    }
    return rc;
}

void cp_local_cancel(cp_local *l, cp_request *r)
{
    l->api->cancel(l->api->self, r);
}

/* Wait for a wake; false: the deadline passed. */
static bool wait_wake(cp_local *l, int timeout_ms)
{
    struct timespec until = cp_clock_after(timeout_ms);
    int rc = 0;
    pthread_mutex_lock(&l->lock);
    while (!l->signalled && rc == 0) {
        rc = timeout_ms < 0 ? pthread_cond_wait(&l->cond, &l->lock)
                            : pthread_cond_timedwait(&l->cond, &l->lock, &until);
    }
    l->signalled = false;
    pthread_mutex_unlock(&l->lock);
    return rc == 0;
}

/* The last event was taken: see release in engine.h. */
static void ended(cp_local *l, cp_request *r)
{
    ((local_request *)r)->ended = true;
    l->api->release(l->api->self, r);
}

bool cp_local_next(cp_local *l, int timeout_ms, cp_request **r, cp_event *ev)
{
    for (;;) {
        if (l->current && cp_ring_pop(&l->current->ring, ev)) {
            *r = l->current;
            if (ev->type == CP_EV_END || ev->type == CP_EV_ERROR) {
                l->current = NULL;
                ended(l, *r);
            }
            return true;
        }
        l->current = pop_ready(l);
        if (!l->current && !wait_wake(l, timeout_ms)) {
            return false;
        }
    }
}
