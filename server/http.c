/*
 * libmicrohttpd in external mode: our epoll holds its epoll descriptor, an eventfd, a timerfd and
 * every client socket (edge-triggered, for hang-ups that a suspended connection would not see and
 * for the first byte of a head). Sockets are named by slot and generation, never by pointer, so a
 * stale event finds nobody. A waiting exchange is suspended; answering resumes it, and MHD calls
 * back for the answer in the same turn of the loop. MHD is never stopped while a connection is
 * suspended, because it would abort the process. Its own idle timeout does not stop a client that
 * drips a byte a second, so the tick sweeps heads and bodies by total time.
 */
#include "server/http.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/signals.h"
#include "server/listen.h"

#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    TICK_NS = 250000000,
    POOL_BYTES = 32 << 10, /* MHD's memory of a connection: bounds head and URL */
    BLOCK_BYTES = 4096,    /* a stream's chunk */
    DROP_MAX = 64 << 20,   /* a refused body up to this size is read and dropped */
    REPLY_HEADERS = 12,    /* cp_http_add_header */
    SPARE_FDS = 128,
    STOP_MS = 1000
};

#define SLOT_MHD   0xFFFFFFFFu
#define SLOT_WAKE  0xFFFFFFFEu
#define SLOT_TIMER 0xFFFFFFFDu
#define MS(x)      ((int64_t)(x)*1000000)

typedef enum exchange_state {
    X_BODY,  /* head seen, body arriving */
    X_DROP,  /* refused; body arriving and dropped */
    X_WAIT,  /* the front end has it */
    X_QUEUED /* MHD has the answer, or the beginning of a stream */
} exchange_state;

typedef struct conn {
    uint32_t slot;
    int fd;
    bool hung_up;       /* RDHUP, HUP or ERR was seen */
    int64_t first_byte; /* of a head that is not complete; 0: none */
    cp_http_req *req;   /* exchange in flight */
    struct conn *next, *prev;
} conn;

typedef struct reply_header {
    char name[40];
    char value[216];
} reply_header;

struct cp_http_req {
    cp_http *h;
    conn *c;
    struct MHD_Connection *mhd;
    void *user;
    cp_method method;
    char *path;
    uint64_t length;
    int64_t since;
    cp_buf body;
    bool cut; /* body too long */
    exchange_state state;
    bool answered, suspended, dead, streaming, ended, aborted, close_after;
    int status;
    const char *content_type;
    reply_header *headers;
    int n_headers;
    cp_buf out; /* whole answer, or a stream's bytes from off on */
    size_t off;
    bool was_full; /* above CP_STREAM_MAX since hooks.drained */
    int64_t moved;
    uint64_t sent;
};

struct cp_http {
    cp_http_hooks hooks;
    int64_t head_ns, body_ns;
    unsigned idle_s;
    int max_conns;
    unsigned n_slots;
    conn **slots; /* by slot; NULL: free */
    uint32_t *generation;
    uint32_t *free_slots;
    unsigned n_free;
    conn *conns;
    _Atomic int n_conns;
    struct MHD_Daemon *daemon;
    int listen_fd, ep, wake_fd, timer_fd, port;
    bool uds;
    char url[300];
    pthread_t thread;
    bool started;
    pthread_t self; /* the loop thread's own view, for assertions */
    bool looping;
    _Atomic bool stop;
};

static const char *const method_names[CP_METHOD_COUNT] = {"GET",   "HEAD",   "POST",   "PUT",
                                                          "PATCH", "DELETE", "OPTIONS"};

#define ASSERT_LOOP(h) CP_ASSERT((h)->looping &&pthread_equal(pthread_self(), (h)->self))

/* ---- what an application can refuse that 0.9.75 lets through ---- */

typedef struct head_scan {
    bool bad;
    int headers, host, length, coding, chunked;
} head_scan;

static bool is_token(const char *p, size_t n)
{
    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)p[i];
        if (ch <= 32 || ch >= 127 || strchr("()<>@,;:\\\"/[]?={}", ch))
            return false;
    }
    return true;
}

static bool name_is(const char *p, size_t n, const char *name)
{
    return n == strlen(name) && strncasecmp(p, name, n) == 0;
}

static enum MHD_Result scan_header(void *arg, enum MHD_ValueKind kind, const char *name, size_t n,
                                   const char *value, size_t n_value)
{
    (void)kind;
    head_scan *s = arg;
    s->headers++;
    if (!is_token(name, n))
        s->bad = true;
    if (!value)
        n_value = 0;
    for (size_t i = 0; i < n_value; i++) {
        unsigned char ch = (unsigned char)value[i];
        if ((ch < 32 && ch != '\t') || ch == 127)
            s->bad = true;
    }
    s->host += name_is(name, n, "Host");
    s->length += name_is(name, n, "Content-Length");
    if (name_is(name, n, "Transfer-Encoding")) {
        s->coding++;
        s->chunked += value && name_is(value, n_value, "chunked");
    }
    return MHD_YES;
}

/* 0, or the status to refuse with: framing that two parsers could read in two ways (RFC 9112
 * §6.3), control characters, a second Host, too many headers. */
static int guard(struct MHD_Connection *mhd, const char *url, const char *version, head_scan *s)
{
    bool v11 = strcmp(version, "HTTP/1.1") == 0;
    if (!v11 && strcmp(version, "HTTP/1.0") != 0)
        return 505;
    MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, scan_header, s);
    if (s->headers > CP_HEADERS_MAX)
        return 431;
    if (s->bad || (v11 ? s->host != 1 : s->host > 1))
        return 400;
    if (s->length > 1 || s->coding > 1 || (s->length && s->coding))
        return 400;
    if (s->coding && !s->chunked)
        return 501;
    if (s->coding && !v11)
        return 400;
    if (url[0] != '/' && strcmp(url, "*") != 0)
        return 400;
    for (const char *p = url; *p; p++)
        if ((unsigned char)*p <= 32 || (unsigned char)*p >= 127)
            return 400;
    return strstr(url, "%00") ? 400 : 0;
}

/* ---- exchanges ---- */

static void hang_up(cp_http_req *q)
{
    if (q->dead)
        return;
    q->dead = true;
    if (q->state == X_WAIT || (q->streaming && !q->ended))
        q->h->hooks.gone(q->h->hooks.arg, q);
}

static void resume(cp_http_req *q)
{
    if (!q->suspended)
        return;
    q->suspended = false;
    MHD_resume_connection(q->mhd);
}

static ssize_t pull(void *arg, uint64_t pos, char *dst, size_t max)
{
    (void)pos;
    cp_http_req *q = arg;
    if (q->dead || q->aborted)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = q->out.n - q->off;
    if (n == 0) {
        if (q->ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (q->c->hung_up) {
            hang_up(q);
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        q->suspended = true;
        MHD_suspend_connection(q->mhd);
        return 0;
    }
    if (n > max)
        n = max;
    memcpy(dst, q->out.p + q->off, n);
    q->off += n;
    q->sent += n;
    q->moved = cp_now_ns();
    if (q->off == q->out.n) {
        cp_buf_clear(&q->out);
        q->off = 0;
    }
    if (q->was_full && q->out.n - q->off <= CP_STREAM_MAX / 2) {
        q->was_full = false;
        q->h->hooks.drained(q->h->hooks.arg, q);
    }
    return (ssize_t)n;
}

static enum MHD_Result queue_answer(cp_http_req *q)
{
    struct MHD_Response *r;
    if (q->streaming) {
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, pull, q, NULL);
    } else {
        /* MHD frees the memory of a body; an empty one has none. */
        size_t n = q->out.n;
        char *p = q->out.p;
        q->sent = n;
        r = MHD_create_response_from_buffer(n, p,
                                            p ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
        if (r)
            memset(&q->out, 0, sizeof(q->out));
    }
    q->state = X_QUEUED;
    if (!r)
        return MHD_NO;
    if (q->content_type)
        MHD_add_response_header(r, "Content-Type", q->content_type);
    for (int i = 0; i < q->n_headers; i++)
        MHD_add_response_header(r, q->headers[i].name, q->headers[i].value);
    if (q->close_after)
        MHD_add_response_header(r, "Connection", "close");
    enum MHD_Result ok = MHD_queue_response(q->mhd, (unsigned)q->status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result take_head(cp_http *h, struct MHD_Connection *mhd, const char *url,
                                 const char *method, const char *version, void **ctx)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    conn *c = info ? info->socket_context : NULL;
    if (!c)
        return MHD_NO;
    cp_http_req *q = cp_xcalloc(1, sizeof(*q));
    q->h = h;
    q->c = c;
    q->mhd = mhd;
    q->path = cp_xstrdup(url);
    q->since = cp_now_ns();
    q->moved = q->since;
    q->body.max = CP_BODY_MAX;
    c->req = q;
    c->first_byte = 0;
    *ctx = q;
    head_scan s = {0};
    int bad = guard(mhd, url, version, &s);
    int m = 0;
    while (m < CP_METHOD_COUNT && strcmp(method, method_names[m]) != 0)
        m++;
    if (m == CP_METHOD_COUNT && !bad)
        bad = 501;
    q->method = m == CP_METHOD_COUNT ? CP_GET : (cp_method)m;
    const char *length = cp_http_header(q, "Content-Length");
    if (length)
        q->length = strtoull(length, NULL, 10);
    if (!bad && atomic_load(&h->n_conns) > h->max_conns)
        bad = 503;
    h->hooks.head(h->hooks.arg, q, bad);
    if (!q->answered)
        return MHD_YES;
    bool has_body = q->length > 0 || s.coding > 0;
    if (bad || (has_body && (q->length > DROP_MAX || cp_http_header(q, "Expect")))) {
        q->close_after = true;
        return queue_answer(q);
    }
    if (!has_body)
        return queue_answer(q);
    /* Reading a refused body keeps the connection, and keeps the answer from being lost to a reset
     * while the client is still writing. */
    q->state = X_DROP;
    return MHD_YES;
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *mhd, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *n_data, void **ctx)
{
    cp_http *h = arg;
    ASSERT_LOOP(h);
    cp_http_req *q = *ctx;
    if (!q)
        return take_head(h, mhd, url, method, version, ctx);
    if (q->dead)
        return MHD_NO;
    if (*n_data > 0) {
        q->sent += *n_data; /* reused as a count of what arrived, until the answer */
        if (q->sent > DROP_MAX)
            return MHD_NO;
        if (q->state == X_BODY && !q->cut && !cp_buf_add(&q->body, data, *n_data)) {
            q->cut = true;
            cp_buf_fini(&q->body);
        }
        *n_data = 0;
        return MHD_YES;
    }
    if (q->state == X_QUEUED)
        return MHD_YES;
    if (q->state == X_BODY) {
        q->state = X_WAIT;
        q->sent = 0;
        h->hooks.request(h->hooks.arg, q, q->cut);
    }
    if (q->answered)
        return queue_answer(q);
    if (q->c->hung_up) {
        hang_up(q);
        return MHD_NO;
    }
    q->suspended = true;
    MHD_suspend_connection(mhd);
    return MHD_YES;
}

static void completed(void *arg, struct MHD_Connection *mhd, void **ctx,
                      enum MHD_RequestTerminationCode why)
{
    (void)mhd;
    cp_http *h = arg;
    cp_http_req *q = *ctx;
    if (!q)
        return;
    *ctx = NULL;
    if (why != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        hang_up(q);
    h->hooks.done(h->hooks.arg, q);
    if (q->c->req == q)
        q->c->req = NULL;
    q->c->first_byte = 0;
    cp_buf_fini(&q->body);
    cp_buf_fini(&q->out);
    free(q->headers);
    free(q->path);
    free(q);
}

/* ---- connections ---- */

static void connection(void *arg, struct MHD_Connection *mhd, void **context,
                       enum MHD_ConnectionNotificationCode what)
{
    cp_http *h = arg;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        conn *c = *context;
        if (!c)
            return;
        *context = NULL;
        (void)epoll_ctl(h->ep, EPOLL_CTL_DEL, c->fd, NULL);
        if (c->next)
            c->next->prev = c->prev;
        if (c->prev)
            c->prev->next = c->next;
        else
            h->conns = c->next;
        h->slots[c->slot] = NULL;
        h->generation[c->slot]++;
        h->free_slots[h->n_free++] = c->slot;
        atomic_fetch_sub(&h->n_conns, 1);
        free(c);
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!info || h->n_free == 0)
        return; /* no context: take_head refuses it */
    conn *c = cp_xcalloc(1, sizeof(*c));
    c->fd = info->connect_fd;
    c->slot = h->free_slots[--h->n_free];
    c->first_byte = cp_now_ns();
    c->next = h->conns;
    if (c->next)
        c->next->prev = c;
    h->conns = c;
    h->slots[c->slot] = c;
    atomic_fetch_add(&h->n_conns, 1);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
    ev.data.u64 = ((uint64_t)h->generation[c->slot] << 32) | c->slot;
    if (epoll_ctl(h->ep, EPOLL_CTL_ADD, c->fd, &ev) != 0)
        CP_LOG_LIMITED(CP_LOG_WARN, 1, "http: epoll_ctl: %s", strerror(errno));
    *context = c;
}

static void client_event(cp_http *h, uint64_t tag, uint32_t events, int64_t now)
{
    uint32_t slot = (uint32_t)tag;
    if (slot >= h->n_slots || h->generation[slot] != (uint32_t)(tag >> 32) || !h->slots[slot])
        return;
    conn *c = h->slots[slot];
    if ((events & EPOLLIN) && !c->req && c->first_byte == 0)
        c->first_byte = now;
    if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        return;
    c->hung_up = true;
    cp_http_req *q = c->req;
    if (!q || !(q->state == X_WAIT || (q->streaming && !q->ended)))
        return; /* MHD notices by itself */
    hang_up(q);
    resume(q);
}

/* A connection is cut by shutting its socket down: MHD then sees the end and cleans up. */
static void sweep(cp_http *h, int64_t now)
{
    for (conn *c = h->conns; c; c = c->next) {
        const cp_http_req *q = c->req;
        bool late = false;
        if (!q)
            late = c->first_byte != 0 && now - c->first_byte > h->head_ns;
        else if (q->state == X_BODY || q->state == X_DROP)
            late = now - q->since > h->body_ns;
        if (late) {
            shutdown(c->fd, SHUT_RDWR);
            c->first_byte = 0;
        }
    }
}

/* ---- the loop ---- */

static void turn(cp_http *h, int max_ms)
{
    MHD_UNSIGNED_LONG_LONG wait = 0;
    int ms = max_ms;
    if (MHD_get_timeout(h->daemon, &wait) == MHD_YES && wait < (unsigned)ms)
        ms = (int)wait;
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(h->ep, ev, EVENTS, ms);
    bool woken = false, ticked = false;
    int64_t now = cp_now_ns();
    for (int i = 0; i < n; i++) {
        uint64_t v;
        switch ((uint32_t)ev[i].data.u64) {
        case SLOT_MHD:
            break;
        case SLOT_WAKE:
            woken = read(h->wake_fd, &v, sizeof(v)) == (ssize_t)sizeof(v) || woken;
            break;
        case SLOT_TIMER:
            ticked = read(h->timer_fd, &v, sizeof(v)) == (ssize_t)sizeof(v) || ticked;
            break;
        default:
            client_event(h, ev[i].data.u64, ev[i].events, now);
        }
    }
    if (woken)
        h->hooks.wake(h->hooks.arg);
    if (ticked) {
        sweep(h, now);
        h->hooks.tick(h->hooks.arg, now);
    }
    MHD_run(h->daemon);
}

static void *loop(void *arg)
{
    cp_http *h = arg;
    h->self = pthread_self();
    h->looping = true;
    while (!atomic_load_explicit(&h->stop, memory_order_acquire))
        turn(h, 1000);
    /* Nothing may be suspended when MHD stops. */
    int64_t end = cp_now_ns() + MS(STOP_MS);
    while (h->conns && cp_now_ns() < end) {
        for (conn *c = h->conns; c; c = c->next) {
            if (c->req) {
                hang_up(c->req);
                resume(c->req);
            }
            shutdown(c->fd, SHUT_RDWR);
        }
        turn(h, 10);
    }
    return NULL;
}

static void log_line(void *arg, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void log_line(void *arg, const char *fmt, va_list ap)
{
    (void)arg;
    char line[256];
    if (vsnprintf(line, sizeof(line), fmt, ap) < 0)
        return;
    line[strcspn(line, "\r\n")] = '\0';
    CP_LOG_LIMITED(CP_LOG_DEBUG, 5, "http: %s", line);
}

/* The path reaches the front end as it was sent: a decoded %00 would cut it short. */
static size_t keep_escapes(void *arg, struct MHD_Connection *mhd, char *s)
{
    (void)arg;
    (void)mhd;
    return strlen(s);
}

static bool watch(int ep, int fd, uint32_t slot)
{
    struct epoll_event ev = {.events = EPOLLIN};
    ev.data.u64 = slot;
    return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0;
}

/* Descriptors decide how many connections there can be. */
static void size_tables(cp_http *h, int wanted)
{
    struct rlimit rl;
    long fds = 1024;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
        if (getrlimit(RLIMIT_NOFILE, &rl) == 0)
            fds = rl.rlim_cur > 1 << 20 ? 1 << 20 : (long)rl.rlim_cur;
    }
    long most = fds > 2 * SPARE_FDS ? (fds - SPARE_FDS) / 2 : fds / 4;
    h->max_conns = wanted; /* MHD's limit is twice that, so that we can answer 503 */
    if (h->max_conns > most)
        h->max_conns = most > 1 ? (int)most : 1;
    h->n_slots = 2 * (unsigned)h->max_conns;
    h->slots = cp_xcalloc(h->n_slots, sizeof(*h->slots));
    h->generation = cp_xcalloc(h->n_slots, sizeof(*h->generation));
    h->free_slots = cp_xcalloc(h->n_slots, sizeof(*h->free_slots));
    for (unsigned i = 0; i < h->n_slots; i++)
        h->free_slots[h->n_free++] = h->n_slots - 1 - i;
}

cp_code cp_http_open(cp_http **out, const cp_http_config *cfg, cp_err *err)
{
    *out = NULL;
    cp_http *h = cp_xcalloc(1, sizeof(*h));
    h->hooks = cfg->hooks;
    h->head_ns = MS(cfg->header_deadline_ms);
    h->body_ns = MS(cfg->body_deadline_ms);
    h->idle_s = (unsigned)((cfg->idle_ms + 999) / 1000);
    h->uds = cfg->uds != NULL;
    h->ep = h->wake_fd = h->timer_fd = h->listen_fd = -1;
    size_tables(h, cfg->max_connections);
    cp_code code = cp_listen(cfg->host, cfg->port, cfg->uds, &h->listen_fd, &h->port, h->url,
                             sizeof(h->url), err);
    if (code != CP_OK)
        goto failed;
    h->ep = epoll_create1(EPOLL_CLOEXEC);
    h->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    h->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec every = {.it_interval = {.tv_nsec = TICK_NS},
                               .it_value = {.tv_nsec = TICK_NS}};
    if (h->ep < 0 || h->wake_fd < 0 || h->timer_fd < 0 ||
        timerfd_settime(h->timer_fd, 0, &every, NULL) != 0 ||
        !watch(h->ep, h->wake_fd, SLOT_WAKE) || !watch(h->ep, h->timer_fd, SLOT_TIMER)) {
        code = cp_fail(err, CP_IO, "event loop: %s", strerror(errno));
        goto failed;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, handle, h,
        MHD_OPTION_EXTERNAL_LOGGER, log_line, (void *)NULL, MHD_OPTION_LISTEN_SOCKET, h->listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, h->n_slots, MHD_OPTION_CONNECTION_TIMEOUT, h->idle_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES, MHD_OPTION_NOTIFY_CONNECTION,
        connection, (void *)h, MHD_OPTION_NOTIFY_COMPLETED, completed, (void *)h,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, (void *)NULL, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        h->daemon ? MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info || !watch(h->ep, info->epoll_fd, SLOT_MHD)) {
        code = cp_fail(err, CP_IO, "the HTTP library did not start");
        goto failed;
    }
    *out = h;
    return CP_OK;
failed:
    cp_http_close(h);
    return code;
}

cp_code cp_http_start(cp_http *h, cp_err *err)
{
    sigset_t old;
    cp_signals_block(&old);
    int rc = pthread_create(&h->thread, NULL, loop, h);
    cp_signals_restore(&old);
    if (rc != 0)
        return cp_fail(err, CP_IO, "HTTP thread: %s", strerror(rc));
    h->started = true;
    return CP_OK;
}

const char *cp_http_url(const cp_http *h)
{
    return h->url;
}

int cp_http_port(const cp_http *h)
{
    return h->port;
}

int cp_http_connections(const cp_http *h)
{
    return atomic_load_explicit(&h->n_conns, memory_order_relaxed);
}

void cp_http_wake(cp_http *h)
{
    uint64_t one = 1;
    /* EAGAIN: the counter is full, so the loop is awake already. */
    if (write(h->wake_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        return;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

bool cp_http_close(cp_http *h)
{
    if (!h)
        return true;
    if (h->started) {
        atomic_store_explicit(&h->stop, true, memory_order_release);
        cp_http_wake(h);
        pthread_join(h->thread, NULL);
        h->started = false;
    }
    bool suspended = false;
    for (conn *c = h->conns; c; c = c->next)
        suspended = suspended || (c->req && c->req->suspended);
    if (suspended)
        return false; /* stopping would abort the process: leave everything as it is */
    if (h->daemon) {
        MHD_stop_daemon(h->daemon); /* closes the listening socket, too */
        h->listen_fd = -1;
    }
    if (h->uds && h->url[0])
        unlink(h->url + strlen("unix:"));
    close_fd(h->listen_fd);
    close_fd(h->ep);
    close_fd(h->wake_fd);
    close_fd(h->timer_fd);
    free(h->slots);
    free(h->generation);
    free(h->free_slots);
    free(h);
    return true;
}

/* ---- an exchange ---- */

cp_method cp_http_method(const cp_http_req *q)
{
    return q->method;
}

const char *cp_http_path(const cp_http_req *q)
{
    return q->path;
}

const char *cp_http_header(const cp_http_req *q, const char *name)
{
    return MHD_lookup_connection_value(q->mhd, MHD_HEADER_KIND, name);
}

uint64_t cp_http_length(const cp_http_req *q)
{
    return q->length;
}

cp_buf *cp_http_body(cp_http_req *q)
{
    return &q->body;
}

void *cp_http_user(const cp_http_req *q)
{
    return q->user;
}

void cp_http_set_user(cp_http_req *q, void *user)
{
    q->user = user;
}

int64_t cp_http_since(const cp_http_req *q)
{
    return q->since;
}

int cp_http_status(const cp_http_req *q)
{
    return q->status;
}

uint64_t cp_http_sent(const cp_http_req *q)
{
    return q->sent;
}

bool cp_http_answered(const cp_http_req *q)
{
    return q->answered;
}

void cp_http_add_header(cp_http_req *q, const char *name, const char *value)
{
    ASSERT_LOOP(q->h);
    CP_ASSERT(!q->answered && q->n_headers < REPLY_HEADERS);
    if (!q->headers)
        q->headers = cp_xcalloc(REPLY_HEADERS, sizeof(*q->headers));
    reply_header *r = &q->headers[q->n_headers++];
    cp_strcopy(r->name, sizeof(r->name), name);
    cp_strcopy(r->value, sizeof(r->value), value);
}

void cp_http_reply(cp_http_req *q, int status, const char *content_type, cp_buf *body)
{
    ASSERT_LOOP(q->h);
    CP_ASSERT(!q->answered);
    q->answered = true;
    q->status = status;
    q->content_type = content_type;
    cp_buf_fini(&q->out);
    if (body) {
        q->out = *body;
        memset(body, 0, sizeof(*body));
    }
    resume(q);
}

void cp_http_stream_begin(cp_http_req *q, int status, const char *content_type)
{
    ASSERT_LOOP(q->h);
    CP_ASSERT(!q->answered);
    q->answered = q->streaming = true;
    q->status = status;
    q->content_type = content_type;
    q->sent = 0;
    q->moved = cp_now_ns();
    resume(q);
}

cp_buf *cp_http_stream(cp_http_req *q)
{
    if (q->dead || q->ended)
        return NULL;
    if (q->off > CP_STREAM_MAX) {
        cp_buf_consume(&q->out, q->off);
        q->off = 0;
    }
    return &q->out;
}

void cp_http_stream_kick(cp_http_req *q)
{
    ASSERT_LOOP(q->h);
    size_t n = q->out.n - q->off;
    if (n > CP_STREAM_MAX)
        q->was_full = true;
    if (n > 0 && q->state == X_QUEUED)
        resume(q);
}

size_t cp_http_stream_pending(const cp_http_req *q)
{
    return q->out.n - q->off;
}

int64_t cp_http_stream_moved(const cp_http_req *q)
{
    return q->moved;
}

void cp_http_stream_end(cp_http_req *q, bool abort_it)
{
    ASSERT_LOOP(q->h);
    q->ended = true;
    q->aborted = abort_it;
    resume(q);
}
