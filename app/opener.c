/*
 * The server's side: see opener.h. A question and its answer hold a socket's lock, so one that
 * takes long (a model that is pulled) has a socket of its own. Without an opener each function does
 * the work here, by the functions that the opener calls.
 */
#include "app/opener.h"

#include "app/child.h"
#include "app/fetch.h"
#include "app/opener_wire.h"
#include "app/progress.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { END_MS = 1000 };

/* A socket of the opener's, and whose turn it is. */
typedef struct line {
    pthread_mutex_t lock;
    int fd;
} line;

struct cp_opener {
    cp_child child;
    line files, models;
    cp_panel_door panels;
};

/* An answer. */
typedef struct answer {
    cp_say say;
    int fds[CP_PARTS_MAX + 1];
    size_t n_fds;
    cp_progress_fn *progress;
    void *arg;
} answer;

static void drop_fds(answer *a)
{
    while (a->n_fds > 0) {
        cp_io_close(a->fds[--a->n_fds]);
    }
}

static cp_code gone(cp_err *err)
{
    return cp_fail(err, CP_IO,
                   "the process that opens files for this server has ended: nothing can be loaded "
                   "or read again until the server is started anew (what is loaded is served)");
}

/* True: the answer is whole. Otherwise the socket is of no use any more. */
static bool hear(line *l, answer *a)
{
    for (;;) {
        size_t n = CP_PARTS_MAX + 1 - a->n_fds;
        if (!cp_wire_receive(l->fd, &a->say, sizeof a->say, a->fds + a->n_fds, &n)) {
            return false;
        }
        a->n_fds += n;
        a->say.text[sizeof a->say.text - 1] = '\0';
        if (a->say.what == CP_SAY_DONE) {
            return true;
        }
        const char *phase = cp_progress_phase(a->say.text, strlen(a->say.text));
        if (a->say.what == CP_SAY_PROGRESS && a->progress && phase) {
            a->progress(a->arg, phase, a->say.done, a->say.total);
        }
    }
}

/* Ask, and hear the answer; its descriptors are the caller's where it is CP_OK. */
static cp_code call(line *l, const cp_ask *ask, answer *a, cp_err *err)
{
    pthread_mutex_lock(&l->lock);
    bool whole = l->fd >= 0 && cp_wire_send(l->fd, ask, sizeof *ask, NULL, 0) && hear(l, a);
    if (!whole && l->fd >= 0) {
        cp_log(CP_LOG_ERROR, "the process that opens files has ended");
        close(l->fd);
        l->fd = -1;
    }
    pthread_mutex_unlock(&l->lock);
    if (!whole) {
        drop_fds(a);
        return gone(err);
    }
    if (a->say.code != CP_OK) {
        drop_fds(a);
        return cp_fail(err, (cp_code)a->say.code, "%s", a->say.text);
    }
    return CP_OK;
}

/* False: it is too long for a message, and no file or reference either. */
static bool set_path(cp_ask *ask, const char *path)
{
    return cp_strcopy(ask->path, sizeof ask->path, path);
}

static cp_code too_long(const char *what, size_t cap, cp_err *err)
{
    return cp_fail(err, CP_USAGE, "%.80s...: longer than %zu bytes", what, cap - 1);
}

/* ---- files that are read ---- */

static cp_code read_by(cp_opener *op, const cp_ask *ask, const char *path, cp_buf *out, cp_err *err)
{
    answer a = {0};
    cp_code rc = call(&op->files, ask, &a, err);
    if (rc) {
        return rc;
    }
    rc = a.n_fds == 1 ? cp_fd_read(a.fds[0], path, CP_WIRE_FILE_BYTES, out, err)
                      : cp_fail(err, CP_INTERNAL, "%s: %zu files came", path, a.n_fds);
    drop_fds(&a);
    return rc;
}

cp_code cp_opener_read(cp_opener *op, cp_opener_file which, const char *path, cp_buf *out,
                       cp_err *err)
{
    const cp_ask ask = {.what = CP_ASK_FILE, .number = which};
    return op ? read_by(op, &ask, path, out, err)
              : cp_file_read(path, CP_WIRE_FILE_BYTES, out, err);
}

cp_code cp_opener_audit(void *opener, const char *path, int *fd, cp_err *err)
{
    cp_opener *op = opener;
    const cp_ask ask = {.what = CP_ASK_AUDIT};
    answer a = {0};
    cp_code rc = call(&op->files, &ask, &a, err);
    if (rc == CP_OK && a.n_fds != 1) {
        rc = cp_fail(err, CP_INTERNAL, "%s: %zu files came", path, a.n_fds);
        drop_fds(&a);
    }
    *fd = rc ? -1 : a.fds[0];
    return rc;
}

cp_code cp_opener_template(cp_opener *op, const char *path, cp_buf *out, cp_err *err)
{
    cp_ask ask = {.what = CP_ASK_TEMPLATE};
    if (!op) {
        return cp_file_read(path, CP_WIRE_FILE_BYTES, out, err);
    }
    return set_path(&ask, path) ? read_by(op, &ask, path, out, err)
                                : too_long(path, sizeof ask.path, err);
}

/* ---- models ---- */

/* The last descriptor holds what goes with the others: it may be longer than a packet. */
static cp_code take_found(cp_found **out, answer *a, cp_err *err)
{
    cp_buf b = {0};
    cp_code rc = a->n_fds > 0 ? cp_fd_read(a->fds[a->n_fds - 1], "a model", SIZE_MAX / 2, &b, err)
                              : cp_fail(err, CP_INTERNAL, "no files came");
    if (rc == CP_OK) {
        rc = cp_found_read(out, b.p ? b.p : "", b.n, a->fds, a->n_fds - 1, err);
    }
    if (rc == CP_OK) {
        close(a->fds[a->n_fds - 1]);
    } else {
        drop_fds(a);
    }
    cp_buf_fini(&b);
    return rc;
}

cp_code cp_opener_find(cp_opener *op, cp_found **out, const char *ref, const cp_options *o,
                       cp_progress_fn *progress, void *arg, cp_err *err)
{
    cp_ask ask = {.what = CP_ASK_MODEL};
    answer a = {.progress = progress, .arg = arg};
    if (!op) {
        return cp_app_file_find(out, ref, o, progress, arg, err);
    }
    if (!set_path(&ask, ref)) {
        return too_long(ref, sizeof ask.path, err);
    }
    if (!cp_strcopy(ask.name, sizeof ask.name, o->variant ? o->variant : "")) {
        return too_long(o->variant, sizeof ask.name, err);
    }
    if (!cp_strcopy(ask.word, sizeof ask.word, o->platform ? o->platform : "")) {
        return too_long(o->platform, sizeof ask.word, err);
    }
    cp_code rc = call(&op->models, &ask, &a, err);
    return rc ? rc : take_found(out, &a, err);
}

/* ---- packed weights ---- */

static int panel_call(cp_opener *op, cp_ask_what what, const char *dir, const char *name,
                      size_t bytes, cp_err *err)
{
    cp_ask ask = {.what = what, .bytes = bytes};
    answer a = {0};
    if (!set_path(&ask, dir) || !cp_strcopy(ask.name, sizeof ask.name, name)) {
        too_long(dir, sizeof ask.path, err);
        return -1;
    }
    if (call(&op->files, &ask, &a, err)) {
        return -1;
    }
    if (a.n_fds != 1) {
        drop_fds(&a);
        cp_fail(err, CP_INTERNAL, "%s/%s: no file came", dir, name);
        return -1;
    }
    return a.fds[0];
}

static int panel_open(void *arg, const char *dir, const char *name, size_t bytes, cp_err *err)
{
    return panel_call(arg, CP_ASK_PANEL_OPEN, dir, name, bytes, err);
}

static cp_code panel_create(void *arg, cp_panel_new *f, const char *dir, const char *name,
                            size_t bytes, cp_err *err)
{
    cp_err why = {0};
    *f = (cp_panel_new){.path = dir, .dir = -1};
    cp_strcopy(f->name, sizeof f->name, name);
    f->fd = panel_call(arg, CP_ASK_PANEL_CREATE, dir, name, bytes, &why);
    return f->fd >= 0 ? CP_OK : cp_fail(err, why.code, "%s", why.msg);
}

static int panel_place(void *arg, cp_panel_new *f, bool replace)
{
    cp_opener *op = arg;
    const cp_ask ask = {.what = CP_ASK_PANEL_PLACE, .number = replace};
    answer a = {0};
    (void)f;
    return call(&op->files, &ask, &a, NULL) ? EPIPE : (int)a.say.number;
}

static void panel_close(void *arg, cp_panel_new *f)
{
    cp_opener *op = arg;
    const cp_ask ask = {.what = CP_ASK_PANEL_CLOSE};
    answer a = {0};
    (void)call(&op->files, &ask, &a, NULL); /* an opener that is gone has none any more */
    cp_io_close(f->fd);
    f->fd = -1;
}

static void panel_sweep(void *arg, const char *dir)
{
    cp_opener *op = arg;
    cp_ask ask = {.what = CP_ASK_PANEL_SWEEP};
    answer a = {0};
    if (set_path(&ask, dir)) {
        (void)call(&op->files, &ask, &a, NULL); /* whoever comes next sweeps */
    }
}

const cp_panel_door *cp_opener_panels(cp_opener *op)
{
    return op ? &op->panels : NULL;
}

/* ---- life ---- */

cp_code cp_opener_start(cp_opener **out, const cp_options *o, cp_err *err)
{
    int ends[2];
    cp_opener *op = cp_xcalloc(1, sizeof *op);
    cp_code rc = cp_child_start(&op->child, "opener", SOCK_SEQPACKET, cp_opener_live,
                                (void *)(uintptr_t)o, err);
    if (rc) {
        free(op);
        return rc;
    }
    const char hello = 0;
    bool done = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0;
    op->files = (line){.lock = PTHREAD_MUTEX_INITIALIZER, .fd = op->child.fd};
    op->models = (line){.lock = PTHREAD_MUTEX_INITIALIZER, .fd = done ? ends[0] : -1};
    op->panels = (cp_panel_door){.arg = op,
                                 .open = panel_open,
                                 .create = panel_create,
                                 .place = panel_place,
                                 .close = panel_close,
                                 .sweep = panel_sweep};
    int failed = errno;
    if (done) {
        done = cp_wire_send(op->files.fd, &hello, sizeof hello, &ends[1], 1);
        failed = errno;
        close(ends[1]);
    }
    if (!done) {
        cp_opener_stop(op);
        return cp_fail(err, CP_IO, "the process that opens files did not start: %s",
                       strerror(failed));
    }
    *out = op;
    return CP_OK;
}

void cp_opener_stop(cp_opener *op)
{
    if (!op) {
        return;
    }
    cp_io_close(op->models.fd);
    op->child.fd = op->files.fd; /* -1: it was closed when the opener was found gone */
    cp_child_stop(&op->child, END_MS);
    pthread_mutex_destroy(&op->files.lock);
    pthread_mutex_destroy(&op->models.lock);
    free(op);
}
