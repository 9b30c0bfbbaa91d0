/*
 * The loop: an epoll that holds the listening socket, an eventfd, a timerfd and every connection
 * (edge-triggered; named by slot and generation, so that a stale event finds nobody).
 *
 * Requests are read here and nowhere else; what is beyond doubt goes on to libmicrohttpd, which
 * keeps the header table and writes the answers (mhd.c says why it sits behind this loop).
 *
 * A connection is pumped whenever something happened to it: read what is there, read heads and
 * bodies strictly (head.c), call the hooks, write what there is to write, begin again with the next
 * request. Nothing but the pump, the sweep and the reaper ends a connection, and none of them runs
 * below a hook: what the front end does to an exchange is noted, and the connection is put on the
 * list of those to pump in this turn, so a step of the engine costs each stream one send.
 *
 * Connections without a request in flight stand in a list, the longest idle first. When connections
 * are full, that one makes room; where all are in flight, a small reserve still takes connections
 * in for probes, so that a healthy server is not restarted because it is busy.
 *
 * Bodies are paid as they arrive, whatever length was announced. While the budget's part for them
 * is full, newcomers are refused, and at each tick one of those that hold it: of the bodies that
 * brought less than SLOW_BODY bytes in a second the largest.
 */
#include "server/http.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/signals.h"
#include "server/head.h"
#include "server/listen.h"
#include "server/mhd.h"
#include "server/server.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    TICK_NS = 250000000,
    READ_BYTES = 64 << 10,  /* one recv */
    READS = 16,             /* of one connection in a turn */
    EXCHANGES = 32,         /* of one connection in a turn */
    AHEAD_MAX = 16 << 10,   /* bytes read beyond the request in flight */
    PIECE_BYTES = 16 << 10, /* of a stream in one chunk */
    KEEP_BYTES = 16 << 10,  /* a buffer of an idle connection */
    DROP_MAX = 64 << 20,    /* bytes read and dropped before a connection is closed */
    REPLY_HEADERS = 12,     /* cp_http_add_header */
    RESERVE_MIN = 16,
    RESERVE_MAX = 64,
    SLOW_BODY = 64 << 10, /* bytes a second */
    SPARE_FDS = 128,      /* for the store, models, a pull's pipe, the log */
    ACCEPTS = 64,         /* in a turn */
    YOUNG_MS = 20,        /* a connection is not closed for room before its head can have come */
    UNLINK_MS = 500,      /* an idle connection then gives its link back: 100 KiB, two files */
    LINGER_MS = 2000      /* after the last answer, for the client to read it */
};

#define SLOT_LISTEN 0xFFFFFFFFu
#define SLOT_WAKE   0xFFFFFFFEu
#define SLOT_TIMER  0xFFFFFFFDu
#define MS(x)       ((int64_t)(x)*1000000)

typedef enum exchange_state {
    X_BODY, /* head seen, body arriving */
    X_DROP, /* refused; body arriving and dropped, then the answer */
    X_WAIT, /* the front end has it, or it is being answered */
} exchange_state;

typedef struct conn {
    uint32_t slot;
    int fd;             /* -1: closed, waits to be taken from the list of the pumped */
    bool listed;        /* in the list of those to pump */
    bool readable;      /* the socket may hold more */
    bool eof;           /* the client has closed its side */
    bool broken;        /* reset, or a send has failed */
    bool reserve;       /* taken in when connections were full: probes only */
    bool last;          /* closes after the exchange in flight */
    bool lingers;       /* answered for the last time; what still comes is dropped */
    int64_t first_byte; /* of a head that is not complete, or the accept; 0: none */
    int64_t idle_since; /* beginning of the time without an exchange */
    uint64_t dropped;   /* bytes */
    cp_buf in;          /* read and not yet used */
    cp_buf wire;        /* to be sent from wire_off on */
    size_t wire_off;
    cp_mhd_link *link; /* from a head on until the connection has been idle for a while */
    cp_head head;      /* under way */
    cp_http_req *req;  /* exchange in flight */
    struct conn *next, *prev;
    struct conn *idle_next, *idle_prev; /* req == NULL */
    struct conn *pump_next;
} conn;

struct cp_http_req {
    cp_http *h;
    conn *c;
    void *user;
    cp_head head;
    bool malformed;  /* its head says nothing that may be used */
    char *path;      /* "-" where it is malformed */
    char *authority; /* of the absolute form; NULL: none */
    int64_t since;
    uint64_t body_left; /* of Content-Length */
    cp_chunks chunks;
    cp_account account; /* of body and out */
    cp_buf body;
    bool ignore;    /* the body is not wanted */
    bool slow;      /* brought less than SLOW_BODY bytes in the last second */
    int64_t paced;  /* when that was looked at */
    size_t n_paced; /* bytes there were then */
    exchange_state state;
    bool answered, dead, streaming, ended, aborted;
    bool begun;    /* the answer is libmicrohttpd's */
    bool sent_all; /* a stream's last byte is in the wire; what follows is libmicrohttpd's */
    int status;
    const char *content_type;
    cp_mhd_header *headers;
    int n_headers;
    cp_buf out; /* whole answer, or a stream's bytes, from off on */
    size_t off;
    bool was_full; /* above CP_STREAM_MAX since hooks.drained */
    int64_t moved;
    uint64_t sent;
};

struct cp_http {
    cp_http_hooks hooks;
    int64_t head_ns, body_ns, idle_ns;
    int max_conns, reserve;
    unsigned n_slots;
    conn **slots; /* by slot; NULL: free */
    uint32_t *generation;
    uint32_t *free_slots;
    unsigned n_free;
    conn *conns;
    conn *idle_first, *idle_last;
    conn *pump_first, *pump_last;
    _Atomic int n_conns;
    int listen_fd, ep, wake_fd, timer_fd, port;
    bool uds, loopback;
    cp_path_id socket_id; /* of uds, when it was bound */
    bool listening;       /* the listening socket is in the epoll */
    int64_t full_at;      /* 0: accepting; else since when there is no room */
    char url[300];
    cp_mhd *mhd;
    char *scratch; /* [READ_BYTES] */
    pthread_t thread;
    bool started;
    pthread_t self; /* the loop thread's own view, for assertions */
    bool looping;
    _Atomic bool stop, draining;
    cp_budget *budget;
    bool pressed; /* a body was refused since the last tick */
};

#define ASSERT_LOOP(h) CP_ASSERT((h)->looping &&pthread_equal(pthread_self(), (h)->self))

static void list_for_pump(conn *c, cp_http *h)
{
    if (c->listed)
        return;
    c->listed = true;
    c->pump_next = NULL;
    if (h->pump_last)
        h->pump_last->pump_next = c;
    else
        h->pump_first = c;
    h->pump_last = c;
}

/* ---- idle connections, the longest idle first ---- */

static void idle_add(cp_http *h, conn *c, bool first)
{
    c->idle_since = first ? 0 : cp_now_ns();
    c->idle_prev = first ? NULL : h->idle_last;
    c->idle_next = first ? h->idle_first : NULL;
    *(c->idle_next ? &c->idle_next->idle_prev : &h->idle_last) = c;
    *(c->idle_prev ? &c->idle_prev->idle_next : &h->idle_first) = c;
}

static void idle_remove(cp_http *h, conn *c)
{
    *(c->idle_next ? &c->idle_next->idle_prev : &h->idle_last) = c->idle_prev;
    *(c->idle_prev ? &c->idle_prev->idle_next : &h->idle_first) = c->idle_next;
    c->idle_next = c->idle_prev = NULL;
}

/* ---- exchanges ---- */

static char *text_of(const char *p, cp_head_span s)
{
    char *text = cp_xcalloc((size_t)s.n + 1, 1);
    memcpy(text, p + s.at, s.n);
    return text;
}

/* A head of n_head bytes (0: it is malformed) becomes an exchange. False: there is no room. Where
 * the library does not take it the connection is broken. */
static bool exchange_begin(cp_http *h, conn *c, size_t n_head)
{
    if (!c->link && !(c->link = cp_mhd_link_open(h->mhd)))
        return false;
    cp_http_req *q = cp_xcalloc(1, sizeof(*q));
    q->h = h;
    q->c = c;
    q->head = c->head;
    q->since = q->moved = cp_now_ns();
    q->account = (cp_account){.budget = h->budget, .arriving = true};
    q->body.account = q->out.account = &q->account;
    q->body_left = q->head.length;
    q->body.max = q->body_left > 0 && q->body_left < CP_BODY_MAX ? q->body_left : CP_BODY_MAX;
    q->malformed = n_head == 0;
    q->path = q->malformed         ? cp_xstrdup("-")
              : q->head.path.n > 0 ? text_of(c->in.p, q->head.path)
                                   : cp_xstrdup("/");
    if (!q->malformed && q->head.authority.n > 0)
        q->authority = text_of(c->in.p, q->head.authority);
    cp_buf canonical = {0};
    cp_head_canonical(&q->head, q->malformed ? NULL : c->in.p, &canonical);
    bool taken = !canonical.failed && cp_mhd_request(c->link, canonical.p, canonical.n);
    if (!taken)
        CP_LOG_LIMITED(CP_LOG_WARN, 1, "http: libmicrohttpd refuses a head of %zu bytes",
                       canonical.n);
    cp_buf_fini(&canonical);
    cp_buf_consume(&c->in, n_head);
    memset(&c->head, 0, sizeof(c->head));
    c->first_byte = 0;
    c->req = q;
    c->broken = c->broken || !taken;
    idle_remove(h, c);
    return true;
}

static void exchange_end(cp_http *h, conn *c)
{
    cp_http_req *q = c->req;
    h->hooks.done(h->hooks.arg, q);
    c->req = NULL;
    cp_buf_fini(&q->body);
    cp_buf_fini(&q->out);
    cp_account_close(&q->account);
    free(q->headers);
    free(q->path);
    free(q->authority);
    free(q);
    idle_add(h, c, c->last);
    c->first_byte = c->in.n > 0 ? c->idle_since : 0;
    if (c->wire.cap > KEEP_BYTES)
        cp_buf_fini(&c->wire);
}

/* The client is not there any more: the front end hears of it when it still works on the answer. */
static void hang_up(cp_http_req *q)
{
    if (q->dead)
        return;
    q->dead = true;
    if ((q->state == X_WAIT && !q->answered) || (q->streaming && !q->ended))
        q->h->hooks.gone(q->h->hooks.arg, q);
}

/* ---- connections ---- */

static void conn_close(cp_http *h, conn *c)
{
    if (c->req)
        hang_up(c->req);
    cp_mhd_link_close(c->link);
    c->link = NULL;
    if (c->req)
        exchange_end(h, c);
    idle_remove(h, c);
    *(c->prev ? &c->prev->next : &h->conns) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    close(c->fd); /* and out of the epoll */
    c->fd = -1;
    h->slots[c->slot] = NULL;
    h->generation[c->slot]++;
    h->free_slots[h->n_free++] = c->slot;
    atomic_fetch_sub(&h->n_conns, 1);
    h->full_at = 0;
    cp_buf_fini(&c->in);
    cp_buf_fini(&c->wire);
    if (!c->listed)
        free(c);
}

/* ---- reading ---- */

/* How many bytes may be read now: of a body much, beyond the request in flight little. */
static size_t wanted(const conn *c)
{
    if (c->lingers || (c->req && c->req->state != X_WAIT))
        return READ_BYTES;
    return c->in.n < AHEAD_MAX ? AHEAD_MAX - c->in.n : c->req ? 0 : AHEAD_MAX;
}

/* False: the connection is of no use any more. */
static bool read_some(cp_http *h, conn *c, int64_t now)
{
    for (int i = 0; i < READS && c->readable && wanted(c) > 0; i++) {
        ssize_t n = recv(c->fd, h->scratch, wanted(c), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            c->readable = false;
        } else if (n < 0) {
            return false;
        } else if (n == 0) {
            c->eof = true;
            c->readable = false;
        } else if (c->lingers) {
            c->dropped += (uint64_t)n;
            if (c->dropped > DROP_MAX)
                return false;
        } else {
            if (!c->req && c->first_byte == 0)
                c->first_byte = now;
            if (!cp_buf_add(&c->in, h->scratch, (size_t)n))
                return false;
            if (c->in.n >= AHEAD_MAX)
                break; /* use it first */
        }
    }
    if (c->readable && wanted(c) > 0)
        list_for_pump(c, h);
    return true;
}

/* Nothing more is read of the body: it is answered now, and the connection closes. */
static void stop_body(conn *c)
{
    cp_http_req *q = c->req;
    c->last = true;
    q->state = X_WAIT;
    q->sent = q->out.n;
    cp_buf_fini(&q->body);
}

/* The body cannot go on: refuse what is not refused yet. */
static void spoil_body(cp_http *h, conn *c, int status)
{
    cp_http_req *q = c->req;
    bool refused = q->state == X_DROP;
    stop_body(c);
    h->pressed = h->pressed || status == 503;
    if (!refused)
        h->hooks.request(h->hooks.arg, q, status);
}

/* Bytes of a body: its one door. Returns how many were used; *status: what it must be refused with.
 */
static size_t take_body(cp_http_req *q, const char *p, size_t n, int *status)
{
    const char *data = p;
    size_t used, n_data;
    if (q->head.chunked) {
        used = cp_chunks_take(&q->chunks, p, n, &data, &n_data);
        if (q->chunks.state == CP_CHUNK_BAD)
            *status = 400;
    } else {
        used = n_data = n < q->body_left ? n : (size_t)q->body_left;
        q->body_left -= used;
    }
    if (q->state == X_DROP || q->ignore) {
        q->sent += n_data; /* of a body that is dropped: counted against the limit */
        if (q->sent > CP_BODY_MAX)
            *status = 413;
    } else if (!cp_buf_add(&q->body, data, n_data)) {
        *status = q->account.refused && !q->account.never ? 503 : 413;
    }
    return used;
}

static bool body_complete(const cp_http_req *q)
{
    return q->head.chunked ? q->chunks.state == CP_CHUNK_END : q->body_left == 0;
}

static void read_body(cp_http *h, conn *c)
{
    cp_http_req *q = c->req;
    size_t at = 0;
    int status = 0;
    while (at < c->in.n && !status && !body_complete(q))
        at += take_body(q, c->in.p + at, c->in.n - at, &status);
    cp_buf_consume(&c->in, at);
    if (status) {
        spoil_body(h, c, status);
    } else if (body_complete(q)) {
        bool refused = q->state == X_DROP;
        q->state = X_WAIT;
        q->sent = q->out.n;
        if (!refused)
            h->hooks.request(h->hooks.arg, q, 0);
    }
}

static void send_continue(conn *c)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    cp_buf_add(&c->wire, line, sizeof(line) - 1);
}

/* A head has come to its end (n_head bytes), or cannot (bad). */
static void take_head(cp_http *h, conn *c, size_t n_head, int bad)
{
    if (!exchange_begin(h, c, n_head)) {
        c->broken = true;
        return;
    }
    cp_http_req *q = c->req;
    if (atomic_load(&h->n_conns) <= h->max_conns)
        c->reserve = false;
    if (bad || c->reserve || q->head.close || (!q->head.v11 && !q->head.keep_alive))
        c->last = true;
    h->hooks.head(h->hooks.arg, q, bad ? bad : c->reserve ? 503 : 0);
    q->state = X_BODY;
    if (!q->answered) {
        if (q->head.expect_continue && !body_complete(q) && c->in.n == 0)
            send_continue(c);
        return;
    }
    /* Reading a refused body keeps the connection. One that is too long to be worth it, or that
     * waits for leave to come, does not come. */
    bool keep = !c->last && !q->head.expect_continue && q->head.length <= CP_BODY_MAX;
    if (keep && cp_http_has_body(q)) {
        q->state = X_DROP;
        q->sent = 0;
        return;
    }
    c->last = c->last || cp_http_has_body(q);
    q->state = X_WAIT;
}

/* Go on with what has been read: true when an exchange was begun or moved. */
static void advance(cp_http *h, conn *c)
{
    if (!c->req && c->in.n > 0 && !c->lingers) {
        int n = cp_head_read(&c->head, c->in.p, c->in.n);
        if (n != 0)
            take_head(h, c, n > 0 ? (size_t)n : 0, n > 0 ? 0 : -n);
    }
    if (c->req && c->req->state != X_WAIT)
        read_body(h, c);
}

/* ---- writing ---- */

/* The answer's head and a plain one's body are libmicrohttpd's from here on. */
static bool begin_answer(cp_http *h, conn *c)
{
    cp_http_req *q = c->req;
    q->begun = true;
    if (atomic_load(&h->draining) || c->eof || (q->streaming && !q->head.v11))
        c->last = true;
    const cp_mhd_answer a = {.status = q->status,
                             .content_type = q->content_type,
                             .headers = q->headers,
                             .n_headers = q->n_headers,
                             .body = q->streaming ? NULL : q->out.p,
                             .n_body = q->streaming ? 0 : q->out.n,
                             .stream = q->streaming,
                             .close = c->last};
    return cp_mhd_answer_begin(c->link, &a);
}

/* A piece of a stream into the wire, behind its head. */
static void write_piece(conn *c)
{
    cp_http_req *q = c->req;
    size_t n = q->out.n - q->off;
    if (n > PIECE_BYTES)
        n = PIECE_BYTES;
    if (n > 0) {
        if (q->head.v11)
            cp_buf_printf(&c->wire, "%zx\r\n", n);
        cp_buf_add(&c->wire, q->out.p + q->off, n);
        if (q->head.v11)
            cp_buf_adds(&c->wire, "\r\n");
        q->off += n;
        q->sent += n;
    }
    if (q->off == q->out.n) {
        cp_buf_clear(&q->out);
        q->off = 0;
        if (q->ended) {
            q->sent_all = true;
            cp_mhd_stream_end(c->link);
        }
    }
    if (q->was_full && q->out.n - q->off <= CP_STREAM_MAX / 2) {
        q->was_full = false;
        q->h->hooks.drained(q->h->hooks.arg, q);
    }
}

/* What the client gets next, into the wire: as much as is there, about a piece at most. */
static void fill(cp_http *h, conn *c)
{
    cp_http_req *q = c->req;
    for (size_t before = SIZE_MAX; c->wire.n != before && c->wire.n < PIECE_BYTES;) {
        before = c->wire.n;
        if (!q->streaming || !cp_mhd_at_body(c->link) || q->sent_all)
            cp_buf_add(&c->wire, h->scratch, cp_mhd_read(c->link, h->scratch, PIECE_BYTES));
        else
            write_piece(c);
    }
}

typedef enum flushed { F_DONE, F_MORE, F_FAILED } flushed;

static flushed flush(cp_http *h, conn *c)
{
    cp_http_req *q = c->req;
    if (q && q->answered && q->state == X_WAIT && !q->begun && !begin_answer(h, c))
        return F_FAILED;
    for (;;) {
        if (c->wire_off == c->wire.n) {
            cp_buf_clear(&c->wire);
            c->wire_off = 0;
        }
        if (q && q->begun && c->wire_off == 0)
            fill(h, c);
        if (c->wire.failed)
            return F_FAILED;
        if (c->wire_off == c->wire.n)
            return F_DONE;
        ssize_t k = send(c->fd, c->wire.p + c->wire_off, c->wire.n - c->wire_off, MSG_NOSIGNAL);
        if (k < 0 && errno != EINTR)
            return errno == EAGAIN ? F_MORE : F_FAILED;
        if (k > 0) {
            c->wire_off += (size_t)k;
            if (q)
                q->moved = cp_now_ns();
        }
    }
}

/* ---- the pump ---- */

static bool exchange_over(const conn *c)
{
    return c->req && c->req->begun && cp_mhd_answer_over(c->link);
}

/* Answered for the last time. What still comes is read and dropped for a while: closing on unread
 * bytes would reset the connection, and the client could lose the answer. */
static bool linger(conn *c)
{
    c->lingers = true;
    cp_buf_fini(&c->in);
    return !c->eof && shutdown(c->fd, SHUT_WR) == 0;
}

/* False: close it. */
static bool pump_on(cp_http *h, conn *c, int64_t now)
{
    for (int i = 0; i < EXCHANGES; i++) {
        if (!read_some(h, c, now) || c->broken)
            return false;
        advance(h, c);
        if (c->broken)
            return false; /* the library has not taken the head: there is nobody to answer */
        if (c->in.n == 0 && c->in.cap > KEEP_BYTES)
            cp_buf_fini(&c->in); /* thousands may wait for the rest of a body */
        cp_http_req *q = c->req;
        if (q && q->answered &&
            (q->state == X_BODY || (q->state == X_DROP && c->eof && !c->readable)))
            stop_body(c); /* it was cut off, or the rest will not come */
        bool waits = q && (!q->answered || (q->streaming && !q->ended));
        if (q && (q->aborted || q->dead))
            return false;
        if (c->eof && waits && (q->state == X_WAIT || !c->readable))
            return false;
        flushed f = flush(h, c);
        if (f == F_FAILED)
            return false;
        if (f == F_MORE)
            return true;
        if (exchange_over(c)) {
            exchange_end(h, c);
            if (c->last && !linger(c))
                return false;
            continue; /* what was pipelined, or has been left unread */
        }
        return c->req || !c->eof || c->readable;
    }
    list_for_pump(c, h);
    return true;
}

static void pump(cp_http *h, int64_t now)
{
    /* What is put on the list meanwhile has its turn in the next turn. */
    conn *c = h->pump_first;
    h->pump_first = h->pump_last = NULL;
    for (conn *next; c; c = next) {
        next = c->pump_next;
        c->listed = false;
        if (c->fd < 0)
            free(c);
        else if (!pump_on(h, c, now))
            conn_close(h, c);
    }
}

static void client_event(cp_http *h, uint64_t tag, uint32_t events)
{
    uint32_t slot = (uint32_t)tag;
    if (slot >= h->n_slots || h->generation[slot] != (uint32_t)(tag >> 32) || !h->slots[slot])
        return;
    conn *c = h->slots[slot];
    c->readable = c->readable || (events & (EPOLLIN | EPOLLRDHUP)) != 0;
    c->eof = c->eof || (events & EPOLLRDHUP) != 0;
    c->broken = c->broken || (events & (EPOLLHUP | EPOLLERR)) != 0;
    list_for_pump(c, h);
}

/* ---- accepting ---- */

static void set_listening(cp_http *h, bool on)
{
    if (on == h->listening)
        return;
    struct epoll_event ev = {.events = EPOLLIN};
    ev.data.u64 = SLOT_LISTEN;
    if (epoll_ctl(h->ep, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, h->listen_fd, &ev) == 0)
        h->listening = on;
}

/* Close the connection that has been idle the longest and is past its youth; of the reserve, or of
 * the others. */
static bool reap(cp_http *h, bool reserve, int64_t now)
{
    for (conn *c = h->idle_first; c && now - c->idle_since >= MS(YOUNG_MS); c = c->idle_next) {
        if (c->reserve != reserve || c->listed)
            continue;
        conn_close(h, c);
        return true;
    }
    return false;
}

static void conn_open(cp_http *h, int fd, int64_t now)
{
    conn *c = cp_xcalloc(1, sizeof(*c));
    c->fd = fd;
    c->slot = h->free_slots[--h->n_free];
    c->first_byte = now;
    c->readable = true;
    c->next = h->conns;
    if (c->next)
        c->next->prev = c;
    h->conns = c;
    h->slots[c->slot] = c;
    c->reserve = atomic_fetch_add(&h->n_conns, 1) >= h->max_conns;
    idle_add(h, c, false);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    ev.data.u64 = ((uint64_t)h->generation[c->slot] << 32) | c->slot;
    if (epoll_ctl(h->ep, EPOLL_CTL_ADD, fd, &ev) != 0) {
        CP_LOG_LIMITED(CP_LOG_WARN, 1, "http: epoll_ctl: %s", strerror(errno));
        c->broken = true;
    }
    list_for_pump(c, h);
}

static void accept_some(cp_http *h, int64_t now)
{
    for (int i = 0; i < ACCEPTS; i++) {
        bool full = h->n_free == 0;
        if (full && !reap(h, false, now) && !reap(h, true, now)) {
            h->full_at = now;
            return;
        }
        int fd = accept4(h->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) { /* only now is somebody in need of room */
            if (!full && atomic_load(&h->n_conns) >= h->max_conns)
                reap(h, false, now);
            conn_open(h, fd, now);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            CP_LOG_LIMITED(CP_LOG_WARN, 1, "http: accept: %s", strerror(errno));
            if (!reap(h, false, now) && !reap(h, true, now)) {
                h->full_at = now;
                return;
            }
        }
    }
}

/* ---- the loop ---- */

static bool is_late(const cp_http *h, const conn *c, int64_t now)
{
    const cp_http_req *q = c->req;
    if (c->lingers)
        return now - c->first_byte > MS(LINGER_MS);
    if (!q)
        return c->first_byte ? now - c->first_byte > h->head_ns : now - c->idle_since > h->idle_ns;
    if (q->state != X_WAIT)
        return now - q->since > h->body_ns;
    return q->answered && (!q->streaming || q->ended) && now - q->moved > h->idle_ns;
}

/* Called every tick: true while the body that arrives brings too little. */
static bool is_slow(cp_http_req *q, int64_t now)
{
    if (q->state != X_BODY || q->body.n == 0)
        return false;
    if (now - q->paced >= MS(1000)) {
        q->slow = q->paced != 0 && q->body.n - q->n_paced < SLOW_BODY;
        q->paced = now;
        q->n_paced = q->body.n;
    }
    return q->slow;
}

static void sweep(cp_http *h, int64_t now)
{
    conn *victim = NULL; /* of the slow bodies the largest */
    for (conn *c = h->conns, *next; c; c = next) {
        next = c->next;
        if (c->req && is_slow(c->req, now) && (!victim || c->req->body.n > victim->req->body.n))
            victim = c;
        if (c->lingers && c->first_byte == 0)
            c->first_byte = now;
        if (!c->req && now - c->idle_since > MS(UNLINK_MS)) {
            cp_mhd_link_close(c->link);
            c->link = NULL;
        }
        if (is_late(h, c, now)) {
            victim = victim == c ? NULL : victim;
            conn_close(h, c);
        }
    }
    bool pressed = h->pressed;
    h->pressed = false;
    if (pressed && victim) {
        victim->req->account.refused = true;
        spoil_body(h, victim, 503);
        list_for_pump(victim, h);
        h->pressed = false;
    }
}

static void turn(cp_http *h)
{
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(h->ep, ev, EVENTS, h->pump_first ? 0 : h->full_at ? YOUNG_MS : -1);
    bool woken = false, ticked = false, arrived = false;
    int64_t now = cp_now_ns();
    for (int i = 0; i < n; i++) {
        uint64_t v;
        switch ((uint32_t)ev[i].data.u64) {
        case SLOT_LISTEN:
            arrived = true;
            break;
        case SLOT_WAKE:
            woken = read(h->wake_fd, &v, sizeof(v)) == (ssize_t)sizeof(v) || woken;
            break;
        case SLOT_TIMER:
            ticked = read(h->timer_fd, &v, sizeof(v)) == (ssize_t)sizeof(v) || ticked;
            break;
        default:
            client_event(h, ev[i].data.u64, ev[i].events);
        }
    }
    if (woken)
        h->hooks.wake(h->hooks.arg);
    if (ticked) {
        sweep(h, now);
        h->hooks.tick(h->hooks.arg, now);
    }
    pump(h, now);
    if (arrived)
        accept_some(h, now);
    if (h->full_at && now - h->full_at >= MS(YOUNG_MS))
        h->full_at = 0;
    set_listening(h, h->full_at == 0);
}

static void *loop(void *arg)
{
    cp_http *h = arg;
    h->self = pthread_self();
    h->looping = true;
    while (!atomic_load_explicit(&h->stop, memory_order_acquire))
        turn(h);
    pump(h, cp_now_ns()); /* the last words */
    while (h->conns) {
        shutdown(h->conns->fd, SHUT_WR);
        conn_close(h, h->conns);
    }
    pump(h, cp_now_ns()); /* frees those that were listed */
    return NULL;
}

static bool watch(int ep, int fd, uint32_t slot)
{
    struct epoll_event ev = {.events = EPOLLIN};
    ev.data.u64 = slot;
    return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0;
}

/* Descriptors decide how many connections there can be, beside what else the process opens. */
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
    long most = (fds > 2 * SPARE_FDS ? fds - SPARE_FDS : fds / 2) / (1 + CP_MHD_LINK_FDS);
    long room = wanted, reserve = (room < most ? room : most) / 8;
    reserve = reserve < RESERVE_MIN ? RESERVE_MIN : reserve > RESERVE_MAX ? RESERVE_MAX : reserve;
    if (room > most - reserve) {
        room = most - reserve > 1 ? most - reserve : 1;
        /* nobody asked for as many as the default */
        cp_log(wanted == CP_SERVER_CONNECTIONS ? CP_LOG_DEBUG : CP_LOG_WARN,
               "max_connections %d is lowered to %ld: %ld files may be open", wanted, room, fds);
    }
    h->max_conns = (int)room;
    h->reserve = (int)reserve;
    h->n_slots = (unsigned)(room + reserve);
    h->slots = cp_xcalloc(h->n_slots, sizeof(conn *));
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
    h->idle_ns = MS(cfg->idle_ms);
    h->uds = cfg->uds != NULL;
    h->budget = cfg->budget;
    h->scratch = cp_xmalloc(READ_BYTES);
    h->ep = h->wake_fd = h->timer_fd = h->listen_fd = -1;
    size_tables(h, cfg->max_connections);
    cp_code code = cp_mhd_open(&h->mhd, h->n_slots, err);
    if (code != CP_OK)
        goto failed;
    code = cp_listen(cfg->host, cfg->port, cfg->uds, &h->listen_fd, &h->port, &h->loopback, h->url,
                     sizeof(h->url), err);
    if (code != CP_OK)
        goto failed;
    if (h->uds)
        h->socket_id = cp_path_id_of(cfg->uds);
    h->ep = epoll_create1(EPOLL_CLOEXEC);
    h->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    h->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec every = {.it_interval = {.tv_nsec = TICK_NS},
                               .it_value = {.tv_nsec = TICK_NS}};
    if (h->ep >= 0)
        set_listening(h, true);
    if (h->ep < 0 || h->wake_fd < 0 || h->timer_fd < 0 || !h->listening ||
        timerfd_settime(h->timer_fd, 0, &every, NULL) != 0 ||
        !watch(h->ep, h->wake_fd, SLOT_WAKE) || !watch(h->ep, h->timer_fd, SLOT_TIMER)) {
        code = cp_fail(err, CP_IO, "event loop: %s", strerror(errno));
        goto failed;
    }
    (void)signal(SIGPIPE, SIG_IGN);
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

bool cp_http_loopback(const cp_http *h)
{
    return h->loopback;
}

void cp_http_drain(cp_http *h)
{
    atomic_store(&h->draining, true);
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

void cp_http_close(cp_http *h)
{
    if (!h)
        return;
    if (h->started) {
        atomic_store_explicit(&h->stop, true, memory_order_release);
        cp_http_wake(h);
        pthread_join(h->thread, NULL);
    }
    if (h->uds && h->url[0])
        cp_path_remove(h->url + strlen("unix:"), h->socket_id);
    cp_mhd_close(h->mhd);
    close_fd(h->listen_fd);
    close_fd(h->ep);
    close_fd(h->wake_fd);
    close_fd(h->timer_fd);
    free(h->scratch);
    free(h->slots);
    free(h->generation);
    free(h->free_slots);
    free(h);
}

/* ---- an exchange ---- */

cp_method cp_http_method(const cp_http_req *q)
{
    return q->head.method;
}

const char *cp_http_path(const cp_http_req *q)
{
    return q->path;
}

const char *cp_http_header(const cp_http_req *q, const char *name)
{
    return q->malformed ? NULL : cp_mhd_request_header(q->c->link, name);
}

const char *cp_http_authority(const cp_http_req *q)
{
    return q->authority ? q->authority : cp_http_header(q, "Host");
}

uint64_t cp_http_length(const cp_http_req *q)
{
    return q->head.length;
}

bool cp_http_has_body(const cp_http_req *q)
{
    return q->head.chunked || q->head.length > 0;
}

cp_buf *cp_http_body(cp_http_req *q)
{
    return &q->body;
}

cp_account *cp_http_account(cp_http_req *q)
{
    return &q->account;
}

void cp_http_ignore_body(cp_http_req *q)
{
    q->ignore = true;
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
    cp_mhd_header *r = &q->headers[q->n_headers++];
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
        q->out.account = NULL; /* paid by whoever made it, until hooks.done */
        memset(body, 0, sizeof(*body));
    }
    q->sent = q->out.n;
    q->moved = cp_now_ns();
    list_for_pump(q->c, q->h);
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
    list_for_pump(q->c, q->h);
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
    if (n > 0)
        list_for_pump(q->c, q->h);
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
    list_for_pump(q->c, q->h);
}
