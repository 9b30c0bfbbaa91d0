/*
 * This file keeps libmicrohttpd behind socket pairs.
 *
 * Release 0.9.75 (Debian 12) repairs malformed framing instead of refusing it, answers its own
 * errors as HTML, and reads ahead of any guard on its socket. So it never gets a client's socket:
 * the loop (conn.c) reads heads strictly, and hands those that are beyond doubt to the library
 * through an AF_UNIX pair. Bodies do not come this way (they are counted and bounded where they
 * arrive), nor do the events of a stream (each would be sent and received once more on its way).
 * What is left is the library's own trade: a request's header table, status lines, Date,
 * Connection and Content-Length, HEAD, the coding of streams, and plain answers with backpressure.
 *
 * The library runs only inside the functions below, until it has nothing to do: a connection whose
 * answer is not there yet, or whose stream is being sent by the loop, is suspended meanwhile. One
 * that is suspended when the daemon stops would abort the process, so closing a link resumes it
 * first and sees it closed.
 */
#include "server/mhd.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    POOL_BYTES = 96 << 10, /* of a connection in the library: a head, its table, an answer's head */
    RUNS = 32              /* of the library in a row; it needs three */
};

struct cp_mhd {
    struct MHD_Daemon *daemon;
    cp_mhd_link *opening; /* between MHD_add_connection and its notification */
};

struct cp_mhd_link {
    cp_mhd *m;
    int fd;                      /* our end */
    struct MHD_Connection *mhd;  /* NULL: closed */
    struct MHD_Response *answer; /* to be queued with `status` */
    unsigned status;
    bool requested; /* a request is under way */
    bool suspended;
    bool at_body, ended; /* of a stream */
    bool dead;           /* the link is being closed */
    bool drained;        /* nothing was left to be read at the last look */
};

/* ---- what the library calls ---- */

static void suspend(cp_mhd_link *l)
{
    l->suspended = true;
    MHD_suspend_connection(l->mhd);
}

static void resume(cp_mhd_link *l)
{
    if (!l->suspended)
        return;
    l->suspended = false;
    MHD_resume_connection(l->mhd);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n_data, void **context)
{
    (void)arg, (void)url, (void)method, (void)version, (void)data, (void)n_data;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    cp_mhd_link *l = info ? info->socket_context : NULL;
    if (!l || l->dead)
        return MHD_NO;
    if (!*context) { /* the head is complete; called again at once for the body's end */
        *context = l;
        l->requested = true;
        return MHD_YES;
    }
    if (!l->answer) {
        suspend(l);
        return MHD_YES;
    }
    struct MHD_Response *r = l->answer;
    l->answer = NULL;
    enum MHD_Result ok = MHD_queue_response(mhd, l->status, r);
    MHD_destroy_response(r);
    return ok;
}

/* The reader of a stream's content: its place comes, and later its end. */
static ssize_t on_stream(void *arg, uint64_t at, char *p, size_t n)
{
    (void)at, (void)p, (void)n;
    cp_mhd_link *l = arg;
    /* Of a dead link, too: writing the end fails, and the library cleans up. It would keep a
     * connection whose reader fails until something else happens to it. */
    if (l->ended || l->dead)
        return MHD_CONTENT_READER_END_OF_STREAM;
    l->at_body = true;
    suspend(l);
    return 0;
}

static void on_completed(void *arg, struct MHD_Connection *mhd, void **context,
                         enum MHD_RequestTerminationCode why)
{
    (void)arg, (void)mhd, (void)why;
    cp_mhd_link *l = *context;
    *context = NULL;
    if (l)
        l->requested = false;
}

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    cp_mhd *m = arg;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = m->opening;
        if (m->opening)
            m->opening->mhd = mhd;
    } else if (*context) {
        cp_mhd_link *l = *context;
        *context = NULL;
        l->mhd = NULL;
    }
}

static void log_line(void *arg, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void log_line(void *arg, const char *fmt, va_list ap)
{
    (void)arg;
    char line[256];
    if (vsnprintf(line, sizeof(line), fmt, ap) < 0)
        return;
    line[strcspn(line, "\r\n")] = '\0';
    cp_log(CP_LOG_DEBUG, "libmicrohttpd: %s", line);
}

/* A path stays as it was sent: a decoded %00 would cut it short. */
static size_t keep_escapes(void *arg, struct MHD_Connection *mhd, char *s)
{
    (void)arg, (void)mhd;
    return strlen(s);
}

/* ---- the daemon ---- */

cp_code cp_mhd_open(cp_mhd **out, unsigned max_links, cp_err *err)
{
    cp_mhd *m = cp_xcalloc(1, sizeof(*m));
    m->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
        NULL, NULL, on_request, m, MHD_OPTION_EXTERNAL_LOGGER, log_line, (void *)NULL,
        MHD_OPTION_CONNECTION_LIMIT, max_links, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)POOL_BYTES, MHD_OPTION_NOTIFY_CONNECTION, on_connection, (void *)m,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, (void *)m, MHD_OPTION_UNESCAPE_CALLBACK,
        keep_escapes, (void *)NULL, MHD_OPTION_END);
    if (!m->daemon) {
        free(m);
        return cp_fail(err, CP_IO, "libmicrohttpd did not start: %s", strerror(errno));
    }
    *out = m;
    return CP_OK;
}

void cp_mhd_close(cp_mhd *m)
{
    if (!m)
        return;
    MHD_stop_daemon(m->daemon);
    free(m);
}

/* Until the library has nothing left to do at once. */
static void run(cp_mhd *m)
{
    MHD_UNSIGNED_LONG_LONG wait = 1;
    for (int i = 0; i < RUNS; i++) {
        MHD_run(m->daemon);
        if (MHD_get_timeout(m->daemon, &wait) != MHD_YES || wait > 0)
            return;
    }
}

/* ---- links ---- */

cp_mhd_link *cp_mhd_link_open(cp_mhd *m)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
        cp_log(CP_LOG_WARN, "http: socketpair: %s", strerror(errno));
        return NULL;
    }
    cp_mhd_link *l = cp_xcalloc(1, sizeof(*l));
    l->m = m;
    l->fd = fds[0];
    const struct sockaddr address = {.sa_family = AF_UNIX};
    m->opening = l;
    /* The library owns its end from now on, also where it says no. */
    if (MHD_add_connection(m->daemon, fds[1], &address, sizeof(address)) == MHD_YES)
        run(m);
    m->opening = NULL;
    if (!l->mhd) {
        cp_log(CP_LOG_WARN, "http: libmicrohttpd takes no connection");
        close(l->fd);
        free(l);
        return NULL;
    }
    return l;
}

void cp_mhd_link_close(cp_mhd_link *l)
{
    if (!l)
        return;
    l->dead = true;
    close(l->fd);
    /* A stream of HTTP/1.0 that has ended leaves the library's connection closed, but out of its
     * epoll and with nobody to clean it up; one that is resumed is always looked at again. */
    for (int i = 0; i < RUNS && l->mhd; i++) {
        if (!l->suspended)
            suspend(l);
        resume(l);
        run(l->m);
    }
    if (l->answer)
        MHD_destroy_response(l->answer);
    CP_ASSERT(!l->mhd);
    free(l);
}

/* ---- a request ---- */

bool cp_mhd_request(cp_mhd_link *l, const char *head, size_t n)
{
    CP_ASSERT(!l->requested);
    l->at_body = l->ended = l->drained = false;
    if (!l->mhd || send(l->fd, head, n, MSG_NOSIGNAL) != (ssize_t)n)
        return false;
    run(l->m);
    return l->mhd && l->requested;
}

const char *cp_mhd_request_header(const cp_mhd_link *l, const char *name)
{
    return l->mhd && l->requested ? MHD_lookup_connection_value(l->mhd, MHD_HEADER_KIND, name)
                                  : NULL;
}

static bool add_headers(struct MHD_Response *r, const cp_mhd_answer *a)
{
    bool ok = !a->content_type ||
              MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, a->content_type) == MHD_YES;
    for (int i = 0; i < a->n_headers; i++)
        ok = MHD_add_response_header(r, a->headers[i].name, a->headers[i].value) == MHD_YES && ok;
    if (a->close)
        ok = MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_YES && ok;
    return ok;
}

bool cp_mhd_answer_begin(cp_mhd_link *l, const cp_mhd_answer *a)
{
    CP_ASSERT(!l->answer);
    if (!l->requested) /* the library has the last word on what a client sent: no invariant */
        return false;
    struct MHD_Response *r =
        a->stream ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 1024, on_stream, l, NULL)
                  : MHD_create_response_from_buffer(a->n_body, (void *)(uintptr_t)a->body,
                                                    MHD_RESPMEM_PERSISTENT);
    if (!r)
        return false;
    if (!add_headers(r, a)) {
        MHD_destroy_response(r);
        return false;
    }
    l->answer = r;
    l->status = (unsigned)a->status;
    l->drained = false;
    resume(l);
    run(l->m);
    return true;
}

size_t cp_mhd_read(cp_mhd_link *l, char *p, size_t n)
{
    for (bool ran = false; !l->drained;) {
        ssize_t k = recv(l->fd, p, n, 0);
        if (k > 0)
            return (size_t)k;
        if (k < 0 && errno == EINTR)
            continue;
        if (!l->mhd || !l->requested || l->suspended)
            l->drained = true;
        else if (!ran)
            run(l->m); /* it has waited for room */
        else
            return 0;
        ran = true;
    }
    return 0;
}

bool cp_mhd_at_body(const cp_mhd_link *l)
{
    return l->at_body && l->drained;
}

void cp_mhd_stream_end(cp_mhd_link *l)
{
    CP_ASSERT(cp_mhd_at_body(l) && !l->ended);
    l->ended = true;
    l->drained = false;
    resume(l);
    run(l->m);
}

bool cp_mhd_answer_over(const cp_mhd_link *l)
{
    return l->drained && !l->requested;
}
