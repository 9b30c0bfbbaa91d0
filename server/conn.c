/* This file pumps connections: it reads, calls the hooks and writes. See conn.h. */
#include "server/conn.h"

#include "base/clock.h"
#include "base/log.h"
#include "server/exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READS = 16,             /* of one connection in a turn */
    EXCHANGES = 32,         /* of one connection in a turn */
    AHEAD_MAX = 16 << 10,   /* bytes read beyond the request in flight */
    PIECE_BYTES = 16 << 10, /* of a stream in one chunk */
    DROP_MAX = 64 << 20,    /* bytes read and dropped before a connection is closed */
};

/* ---- the idle, the longest first ---- */

static void idle_add(cp_http *h, cp_conn *c, bool first)
{
    c->idle_since = first ? 0 : cp_now_ns();
    c->idle_prev = first ? NULL : h->idle_last;
    c->idle_next = first ? h->idle_first : NULL;
    *(c->idle_next ? &c->idle_next->idle_prev : &h->idle_last) = c;
    *(c->idle_prev ? &c->idle_prev->idle_next : &h->idle_first) = c;
}

static void idle_remove(cp_http *h, cp_conn *c)
{
    *(c->idle_next ? &c->idle_next->idle_prev : &h->idle_last) = c->idle_prev;
    *(c->idle_prev ? &c->idle_prev->idle_next : &h->idle_first) = c->idle_next;
    c->idle_next = c->idle_prev = NULL;
}

/* ---- open and close ---- */

void cp_conn_open(cp_http *h, int fd, const struct sockaddr_in6 *peer, int64_t now)
{
    cp_conn *c = cp_xcalloc(1, sizeof(*c));
    c->fd = fd;
    c->peer = *peer;
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
        cp_log(CP_LOG_WARN, "http: epoll_ctl: %s", strerror(errno));
        c->broken = true;
    }
    cp_conn_list(h, c);
}

/* The exchange in flight is over; the connection is idle. */
static void end_exchange(cp_http *h, cp_conn *c)
{
    cp_exchange_end(h, c);
    idle_add(h, c, c->last);
    c->first_byte = c->in.n > 0 ? c->idle_since : 0;
    if (c->wire.cap > CP_KEEP_BYTES)
        cp_buf_fini(&c->wire);
}

void cp_conn_close(cp_http *h, cp_conn *c)
{
    if (c->req)
        cp_exchange_left(c->req);
    cp_mhd_link_close(c->link);
    c->link = NULL;
    if (c->req)
        end_exchange(h, c);
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
static size_t wanted(const cp_conn *c)
{
    if (c->lingers || (c->req && c->req->body_state != CP_BODY_OVER))
        return CP_READ_BYTES;
    return c->in.n < AHEAD_MAX ? AHEAD_MAX - c->in.n : c->req ? 0 : AHEAD_MAX;
}

/* False: the connection is of no use any more. */
static bool read_some(cp_http *h, cp_conn *c, int64_t now)
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
        cp_conn_list(h, c);
    return true;
}

static void send_continue(cp_conn *c)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    cp_buf_add(&c->wire, line, sizeof(line) - 1);
}

/* A head has come to its end (n_head bytes), or cannot (bad). */
static void take_head(cp_http *h, cp_conn *c, size_t n_head, int bad)
{
    cp_http_req *q = cp_exchange_begin(h, c, n_head);
    if (!q) {
        c->broken = true;
        return;
    }
    idle_remove(h, c);
    if (atomic_load(&h->n_conns) <= h->max_conns)
        c->reserve = false;
    if (bad || c->reserve || q->head.close || (!q->head.v11 && !q->head.keep_alive))
        c->last = true;
    h->hooks.head(h->hooks.arg, q, bad ? bad : c->reserve ? 503 : 0);
    if (q->answer == CP_ANSWER_NONE) {
        if (q->head.expect_continue && !cp_exchange_complete(q) && c->in.n == 0)
            send_continue(c);
        return;
    }
    /* Reading a refused body keeps the connection. One that is too long to be worth it, or that
     * waits for leave to come, does not come. */
    bool keep = !c->last && !q->head.expect_continue && q->head.length <= CP_BODY_MAX;
    if (keep && cp_http_has_body(q)) {
        cp_exchange_refuse(q);
        return;
    }
    c->last = c->last || cp_http_has_body(q);
    cp_exchange_over(q);
}

/* Go on with what has been read: true when an exchange was begun or moved. */
static void advance(cp_http *h, cp_conn *c)
{
    if (!c->req && c->in.n > 0 && !c->lingers) {
        int n = cp_head_read(&c->head, c->in.p, c->in.n);
        if (n != 0)
            take_head(h, c, n > 0 ? (size_t)n : 0, n > 0 ? 0 : -n);
    }
    if (c->req && c->req->body_state != CP_BODY_OVER)
        cp_exchange_read(h, c);
}

/* ---- writing ---- */

/* The answer's head and a plain one's body are libmicrohttpd's from here on. */
static bool begin_answer(cp_http *h, cp_conn *c)
{
    cp_http_req *q = c->req;
    q->begun = true;
    bool stream = q->answer != CP_ANSWER_WHOLE;
    if (atomic_load(&h->draining) || c->eof || (stream && !q->head.v11))
        c->last = true;
    const cp_mhd_answer a = {.status = q->status,
                             .content_type = q->content_type,
                             .headers = q->headers,
                             .n_headers = q->n_headers,
                             .body = stream ? NULL : q->out.p,
                             .n_body = stream ? 0 : q->out.n,
                             .stream = stream,
                             .close = c->last};
    return cp_mhd_answer_begin(c->link, &a);
}

/* The size of a chunk (RFC 9112 §7.1) in hexadecimal, and its line's end. Every event of every
 * stream has one: printf would be a tenth of the event's cost. */
static void add_chunk_size(cp_buf *b, size_t n)
{
    char line[2 * sizeof(n) + 2];
    size_t at = sizeof(line);
    line[--at] = '\n';
    line[--at] = '\r';
    do {
        line[--at] = "0123456789abcdef"[n % 16];
        n /= 16;
    } while (n);
    cp_buf_add(b, line + at, sizeof(line) - at);
}

/* A piece of a stream into the wire, behind its head. */
static void write_piece(cp_conn *c)
{
    cp_http_req *q = c->req;
    size_t n = q->out.n - q->off;
    if (n > PIECE_BYTES)
        n = PIECE_BYTES;
    if (n > 0) {
        if (q->head.v11)
            add_chunk_size(&c->wire, n);
        cp_buf_add(&c->wire, q->out.p + q->off, n);
        if (q->head.v11)
            cp_buf_adds(&c->wire, "\r\n");
        q->off += n;
        q->sent += n;
    }
    if (q->off == q->out.n) {
        cp_buf_clear(&q->out);
        q->off = 0;
        if (q->answer == CP_ANSWER_ENDED)
            cp_exchange_sent(q);
    }
    if (q->was_full && q->out.n - q->off <= CP_STREAM_MAX / 2) {
        q->was_full = false;
        q->h->hooks.drained(q->h->hooks.arg, q);
    }
}

/* What the client gets next, into the wire: as much as is there, about a piece at most. */
static void fill(cp_http *h, cp_conn *c)
{
    cp_http_req *q = c->req;
    for (size_t before = SIZE_MAX; c->wire.n != before && c->wire.n < PIECE_BYTES;) {
        before = c->wire.n;
        bool own = q->answer == CP_ANSWER_STREAM || q->answer == CP_ANSWER_ENDED;
        if (!own || !cp_mhd_at_body(c->link))
            cp_buf_add(&c->wire, h->scratch, cp_mhd_read(c->link, h->scratch, PIECE_BYTES));
        else
            write_piece(c);
    }
}

typedef enum flushed { F_DONE, F_MORE, F_FAILED } flushed;

static flushed flush(cp_http *h, cp_conn *c)
{
    cp_http_req *q = c->req;
    if (q && q->answer != CP_ANSWER_NONE && q->body_state == CP_BODY_OVER && !q->begun &&
        !begin_answer(h, c))
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

static bool exchange_over(const cp_conn *c)
{
    return c->req && c->req->begun && cp_mhd_answer_over(c->link);
}

/* Answered for the last time. What still comes is read and dropped for a while: closing on unread
 * bytes would reset the connection, and the client could lose the answer. */
static bool linger(cp_conn *c)
{
    c->lingers = true;
    cp_buf_fini(&c->in);
    return !c->eof && shutdown(c->fd, SHUT_WR) == 0;
}

/* Of what has its answer: was it cut off in its body, or will the rest not come? */
static bool body_is_over(const cp_conn *c, const cp_http_req *q)
{
    return q->body_state == CP_BODY_REFUSED ? c->eof && !c->readable
                                            : q->body_state != CP_BODY_OVER;
}

/* False: close it. */
static bool pump_on(cp_http *h, cp_conn *c, int64_t now)
{
    for (int i = 0; i < EXCHANGES; i++) {
        if (!read_some(h, c, now) || c->broken)
            return false;
        advance(h, c);
        if (c->broken)
            return false; /* the library has not taken the head: there is nobody to answer */
        if (c->in.n == 0 && c->in.cap > CP_KEEP_BYTES)
            cp_buf_fini(&c->in); /* thousands may wait for the rest of a body */
        cp_http_req *q = c->req;
        if (q && q->answer != CP_ANSWER_NONE && body_is_over(c, q))
            cp_exchange_cut(c);
        if (q && (q->answer == CP_ANSWER_ABORTED || q->answer == CP_ANSWER_LEFT))
            return false;
        if (c->eof && q && cp_exchange_waits(q) && (q->body_state == CP_BODY_OVER || !c->readable))
            return false;
        flushed f = flush(h, c);
        if (f == F_FAILED)
            return false;
        if (f == F_MORE)
            return true;
        if (exchange_over(c)) {
            end_exchange(h, c);
            if (c->last && !linger(c))
                return false;
            continue; /* what was pipelined, or has been left unread */
        }
        return c->req || !c->eof || c->readable;
    }
    cp_conn_list(h, c);
    return true;
}

/* Asks the caches for connections that follow in the list, each a step further: of a thousand that
 * have something to say hardly any is still there. */
static void ask_ahead(const cp_conn *c)
{
    const cp_conn *soon = c->pump_next, *later = soon ? soon->pump_next : NULL;
    if (later && later->pump_next) {
        __builtin_prefetch(later->pump_next);
        __builtin_prefetch(&later->pump_next->wire);
        __builtin_prefetch(&later->pump_next->req);
    }
    if (later && later->fd >= 0 && later->req) {
        __builtin_prefetch(&later->req->body_state);
        __builtin_prefetch(&later->req->out);
        __builtin_prefetch(&later->req->moved);
    }
    if (soon && soon->fd >= 0 && soon->req) {
        __builtin_prefetch(soon->req->out.p);
        __builtin_prefetch(soon->wire.p);
    }
}

void cp_conn_pump(cp_http *h, int64_t now)
{
    /* What is put on the list meanwhile has its turn in the next turn. */
    cp_conn *c = h->pump_first;
    h->pump_first = h->pump_last = NULL;
    for (cp_conn *next; c; c = next) {
        next = c->pump_next;
        ask_ahead(c);
        c->listed = false;
        if (c->fd < 0)
            free(c);
        else if (!pump_on(h, c, now))
            cp_conn_close(h, c);
    }
}
