/*
 * Two buffers take turns: lines are added to one under the lock while the thread writes the other
 * without it, in one write(2) where the kernel takes it whole.
 */
#include "base/append.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REST_MS = 20 };

typedef struct waiting {
    char *p; /* [bytes] */
    size_t n;
    uint64_t lines;
} waiting;

struct cp_append {
    char *path;
    size_t bytes;
    cp_code (*open)(void *arg, const char *path, int *fd, cp_err *err);
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows, but for the buffer that is being written */
    pthread_cond_t more, over;
    waiting buffer[2];
    int filling; /* the one that lines are added to */
    bool reopen, closing, ended;
    bool rests; /* has just written; a line alone does not wake it */
    bool left;  /* nobody waits for the thread any more: it frees all this */
    uint64_t lines, dropped;
    int fd;    /* the thread's, as is the next */
    bool torn; /* the file ends in the middle of a line */
};

/* O_NONBLOCK is for the opening alone: a pipe without a reader would hold it up for good. */
cp_code cp_append_open_path(void *arg, const char *path, int *fd, cp_err *err)
{
    (void)arg;
    *fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640);
    if (*fd >= 0 && fcntl(*fd, F_SETFL, O_APPEND) == 0)
        return CP_OK;
    cp_code code = cp_fail(err, CP_IO, "%s cannot be opened: %s", path, strerror(errno));
    cp_io_close(*fd);
    *fd = -1;
    return code;
}

static void open_anew(cp_append *a)
{
    int fd;
    cp_err err;
    if (a->open(a->arg, a->path, &fd, &err) != CP_OK) {
        cp_log(CP_LOG_ERROR, "%s; lines go on to the old file", err.msg);
        return;
    }
    cp_io_close(a->fd);
    a->fd = fd;
    a->torn = false;
}

/* How many of the bytes the file has taken; errno says why not all. */
static size_t write_some(cp_append *a, const char *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t k = write(a->fd, p + done, n - done);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            errno = k ? errno : EIO;
            break;
        }
        done += (size_t)k;
    }
    if (done > 0)
        a->torn = p[done - 1] != '\n';
    return done;
}

/* How many of b's lines the file has, each of them whole. */
static uint64_t write_out(cp_append *a, const waiting *b)
{
    if (b->n == 0)
        return 0;
    size_t n = a->torn && write_some(a, "\n", 1) == 0 ? 0 : write_some(a, b->p, b->n);
    if (n == b->n)
        return b->lines;
    uint64_t lines = 0;
    const char *why = strerror(errno);
    for (const char *at = b->p; (at = memchr(at, '\n', (size_t)(b->p + n - at))); at++)
        lines++;
    cp_log(CP_LOG_ERROR, "%s cannot be written: %s; %llu lines are lost", a->path, why,
           (unsigned long long)(b->lines - lines));
    return lines;
}

static bool is_half_full(const cp_append *a)
{
    return a->buffer[a->filling].n >= a->bytes / 2;
}

/* A thread that wrote each line by itself would cost a busy server more than the lines do: the next
 * ones wait for each other for a moment. With the lock. */
static void rest(cp_append *a)
{
    const struct timespec until = cp_clock_after(REST_MS);
    int rc = 0;
    a->rests = true;
    while (!a->reopen && !a->closing && !is_half_full(a) && rc == 0)
        rc = pthread_cond_timedwait(&a->more, &a->lock, &until);
    a->rests = false;
}

/* Write the filled buffer and act on what else was asked for. With the lock, which is open
 * meanwhile. */
static void turn(cp_append *a)
{
    waiting *b = &a->buffer[a->filling];
    bool reopen = a->reopen;
    a->filling ^= 1;
    a->reopen = false;
    pthread_mutex_unlock(&a->lock);
    if (reopen)
        open_anew(a);
    uint64_t written = write_out(a, b);
    pthread_mutex_lock(&a->lock);
    a->lines += written;
    a->dropped += b->lines - written;
    b->n = 0;
    b->lines = 0;
}

static void free_parts(cp_append *a)
{
    cp_io_close(a->fd);
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->more);
    pthread_cond_destroy(&a->over);
    free(a->buffer[0].p);
    free(a->buffer[1].p);
    free(a->path);
    free(a);
}

static void *work(void *arg)
{
    cp_append *a = arg;
    pthread_setname_np(pthread_self(), "append");
    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (a->buffer[a->filling].n == 0 && !a->reopen && !a->closing)
            pthread_cond_wait(&a->more, &a->lock);
        if (a->buffer[a->filling].n == 0 && !a->reopen)
            break;
        turn(a);
        rest(a);
    }
    a->ended = true;
    bool left = a->left;
    pthread_cond_signal(&a->over);
    pthread_mutex_unlock(&a->lock);
    if (left)
        free_parts(a);
    return NULL;
}

static cp_append *new_parts(const cp_append_config *cfg)
{
    cp_append *a = cp_xcalloc(1, sizeof(*a));
    a->path = cp_xstrdup(cfg->path);
    a->bytes = cfg->bytes;
    a->open = cfg->open ? cfg->open : cp_append_open_path;
    a->arg = cfg->arg;
    a->buffer[0].p = cp_xcalloc(1, a->bytes);
    a->buffer[1].p = cp_xcalloc(1, a->bytes);
    pthread_mutex_init(&a->lock, NULL);
    cp_clock_cond_init(&a->more);
    cp_clock_cond_init(&a->over);
    a->fd = -1;
    return a;
}

cp_code cp_append_open(cp_append **out, const cp_append_config *cfg, cp_err *err)
{
    cp_append *a = new_parts(cfg);
    cp_code code = a->open(a->arg, a->path, &a->fd, err);
    if (code == CP_OK) {
        sigset_t old;
        cp_signals_block(&old);
        int rc = pthread_create(&a->thread, NULL, work, a);
        cp_signals_restore(&old);
        if (rc)
            code = cp_fail(err, CP_NO_MEMORY, "%s: no thread: %s", a->path, strerror(rc));
    }
    if (code != CP_OK) {
        free_parts(a);
        return code;
    }
    *out = a;
    return CP_OK;
}

void cp_append_line(cp_append *a, const char *line, size_t n)
{
    pthread_mutex_lock(&a->lock);
    waiting *b = &a->buffer[a->filling];
    if (n + 1 > a->bytes - b->n) {
        a->dropped++;
    } else {
        memcpy(b->p + b->n, line, n);
        b->p[b->n + n] = '\n';
        b->n += n + 1;
        b->lines++;
        if (a->rests ? is_half_full(a) : b->lines == 1)
            pthread_cond_signal(&a->more);
    }
    pthread_mutex_unlock(&a->lock);
}

void cp_append_reopen(cp_append *a)
{
    pthread_mutex_lock(&a->lock);
    a->reopen = true;
    pthread_cond_signal(&a->more);
    pthread_mutex_unlock(&a->lock);
}

uint64_t cp_append_lines(cp_append *a)
{
    pthread_mutex_lock(&a->lock);
    uint64_t n = a->lines;
    pthread_mutex_unlock(&a->lock);
    return n;
}

uint64_t cp_append_dropped(cp_append *a)
{
    pthread_mutex_lock(&a->lock);
    uint64_t n = a->dropped;
    pthread_mutex_unlock(&a->lock);
    return n;
}

bool cp_append_close(cp_append *a, int timeout_ms)
{
    const struct timespec until = cp_clock_after(timeout_ms);
    int rc = 0;
    if (!a)
        return true;
    pthread_mutex_lock(&a->lock);
    a->closing = true;
    pthread_cond_signal(&a->more);
    while (!a->ended && rc == 0)
        rc = pthread_cond_timedwait(&a->over, &a->lock, &until);
    if (!a->ended) { /* it hangs at the file, and nothing could make it leave */
        a->left = true;
        pthread_detach(a->thread);
        pthread_mutex_unlock(&a->lock);
        return false;
    }
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    free_parts(a);
    return true;
}
