/*
 * Jobs stand in a bounded FIFO under one mutex, and a few threads drain it. Jobs take tens of
 * microseconds and more, so a lock and a condition variable cost nothing that matters. The queue's
 * memory is taken once at open.
 */
#include "base/jobs.h"

#include "base/mem.h"
#include "base/signals.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    cp_job_fn *fn;
    void *arg;
} job;

struct cp_jobs {
    pthread_mutex_t lock; /* guards queue, first, count, closing */
    pthread_cond_t more;
    job *queue;
    int cap, first, count;
    bool closing;
    int threads;
    pthread_t *ids;
};

enum { JOBS_THREADS_MAX = 256, JOBS_QUEUED_MAX = 1 << 20 };

static void *worker(void *arg)
{
    cp_jobs *j = arg;
    pthread_mutex_lock(&j->lock);
    for (;;) {
        while (j->count == 0 && !j->closing)
            pthread_cond_wait(&j->more, &j->lock);
        if (j->count == 0)
            break;
        job next = j->queue[j->first];
        j->first = (j->first + 1) % j->cap;
        j->count--;
        pthread_mutex_unlock(&j->lock);
        next.fn(next.arg);
        pthread_mutex_lock(&j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

cp_code cp_jobs_open(cp_jobs **out, int threads, int max_queued, cp_err *err)
{
    if (threads < 1 || threads > JOBS_THREADS_MAX)
        return cp_fail(err, CP_INVALID_VALUE, "jobs: %d threads; allowed: 1 to %d", threads,
                       JOBS_THREADS_MAX);
    if (max_queued < 1 || max_queued > JOBS_QUEUED_MAX)
        return cp_fail(err, CP_INVALID_VALUE, "jobs: a queue of %d; allowed: 1 to %d", max_queued,
                       JOBS_QUEUED_MAX);
    cp_jobs *j = cp_xcalloc(1, sizeof(*j));
    j->queue = cp_xcalloc((size_t)max_queued, sizeof(*j->queue));
    j->ids = cp_xcalloc((size_t)threads, sizeof(*j->ids));
    j->cap = max_queued;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->more, NULL);
    sigset_t old;
    cp_signals_block(&old);
    int rc = 0;
    while (j->threads < threads && !rc) {
        rc = pthread_create(&j->ids[j->threads], NULL, worker, j);
        if (!rc)
            j->threads++;
    }
    cp_signals_restore(&old);
    if (rc) {
        int made = j->threads;
        cp_jobs_close(j);
        return cp_fail(err, CP_NO_MEMORY, "jobs: thread %d of %d: %s", made + 1, threads,
                       strerror(rc));
    }
    *out = j;
    return CP_OK;
}

void cp_jobs_close(cp_jobs *j)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->closing = true;
    pthread_cond_broadcast(&j->more);
    pthread_mutex_unlock(&j->lock);
    for (int i = 0; i < j->threads; i++)
        pthread_join(j->ids[i], NULL);
    pthread_cond_destroy(&j->more);
    pthread_mutex_destroy(&j->lock);
    free(j->queue);
    free(j->ids);
    free(j);
}

bool cp_jobs_submit(cp_jobs *j, cp_job_fn *fn, void *arg)
{
    pthread_mutex_lock(&j->lock);
    bool fits = j->count < j->cap && !j->closing;
    if (fits) {
        j->queue[(j->first + j->count) % j->cap] = (job){fn, arg};
        j->count++;
        pthread_cond_signal(&j->more);
    }
    pthread_mutex_unlock(&j->lock);
    return fits;
}
