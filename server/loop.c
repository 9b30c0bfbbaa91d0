/*
 * The loop waits at an epoll that holds the listening socket, an eventfd, a timerfd and every
 * connection (edge-triggered; named by slot and generation, so that a stale event finds nobody).
 *
 * Requests are read here and nowhere else (conn.c, exchange.c); what is beyond doubt goes on to
 * libmicrohttpd, which keeps the header table and writes the answers (mhd.c says why it sits behind
 * this loop). Nothing but the pump, the sweep and the reaper ends a connection, and none of them
 * runs below a hook: what the front end does to an exchange is noted, and the connection is pumped
 * in this turn, so a step of the engine costs each stream one send.
 *
 * When connections are full, the one that has been idle the longest makes room; where all are in
 * flight, a small reserve still takes connections in for probes, so that a healthy server is not
 * restarted because it is busy.
 *
 * Bodies are paid as they arrive, whatever length was announced. While the budget's part for them
 * is full, newcomers are refused, and at each tick one of those that hold it: of the bodies that
 * brought less than SLOW_BODY bytes in a second the largest.
 */
#include "server/http.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/signals.h"
#include "server/conn.h"
#include "server/exchange.h"
#include "server/server.h"

#include <errno.h>
#include <signal.h>
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

static void client_event(cp_http *h, uint64_t tag, uint32_t events)
{
    uint32_t slot = (uint32_t)tag;
    if (slot >= h->n_slots || h->generation[slot] != (uint32_t)(tag >> 32) || !h->slots[slot])
        return;
    cp_conn *c = h->slots[slot];
    c->readable = c->readable || (events & (EPOLLIN | EPOLLRDHUP)) != 0;
    c->eof = c->eof || (events & EPOLLRDHUP) != 0;
    c->broken = c->broken || (events & (EPOLLHUP | EPOLLERR)) != 0;
    cp_conn_list(h, c);
}

/* ---- accepting ---- */

static void set_listening(cp_http *h, bool on)
{
    if (on == h->listening)
        return;
    struct epoll_event ev = {.events = EPOLLIN};
    ev.data.u64 = SLOT_LISTEN;
    if (epoll_ctl(h->ep, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, h->listener.fd, &ev) == 0)
        h->listening = on;
}

/* Close the connection that has been idle the longest and is past its youth; of the reserve, or of
 * the others. */
static bool reap(cp_http *h, bool reserve, int64_t now)
{
    for (cp_conn *c = h->idle_first; c && now - c->idle_since >= MS(YOUNG_MS); c = c->idle_next) {
        if (c->reserve != reserve || c->listed)
            continue;
        cp_conn_close(h, c);
        return true;
    }
    return false;
}

static void accept_some(cp_http *h, int64_t now)
{
    for (int i = 0; i < ACCEPTS; i++) {
        bool full = h->n_free == 0;
        if (full && !reap(h, false, now) && !reap(h, true, now)) {
            h->full_at = now;
            return;
        }
        struct sockaddr_in6 peer = {0}; /* or one of IPv4, which is shorter */
        socklen_t n = sizeof(peer);
        int fd =
            accept4(h->listener.fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) { /* only now is somebody in need of room */
            if (!full && atomic_load(&h->n_conns) >= h->max_conns)
                reap(h, false, now);
            cp_conn_open(h, fd, &peer, now);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            cp_log(CP_LOG_WARN, "http: accept: %s", strerror(errno));
            if (!reap(h, false, now) && !reap(h, true, now)) {
                h->full_at = now;
                return;
            }
        }
    }
}

/* ---- the loop ---- */

static bool is_late(const cp_http *h, const cp_conn *c, int64_t now)
{
    const cp_http_req *q = c->req;
    if (c->lingers)
        return now - c->first_byte > MS(LINGER_MS);
    if (!q)
        return c->first_byte ? now - c->first_byte > h->head_ns : now - c->idle_since > h->idle_ns;
    if (q->body_state != CP_BODY_OVER)
        return now - q->since > h->body_ns;
    return !cp_exchange_waits(q) && now - q->moved > h->idle_ns;
}

/* Called every tick: true while the body that arrives brings too little. */
static bool is_slow(cp_http_req *q, int64_t now)
{
    if (q->body_state != CP_BODY_WANTED || q->body.n == 0)
        return false;
    if (now - q->pace.at >= MS(1000)) {
        q->pace.slow = q->pace.at != 0 && q->body.n - q->pace.n < SLOW_BODY;
        q->pace.at = now;
        q->pace.n = q->body.n;
    }
    return q->pace.slow;
}

static void sweep(cp_http *h, int64_t now)
{
    cp_conn *victim = NULL; /* of the slow bodies the largest */
    for (cp_conn *c = h->conns, *next; c; c = next) {
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
            cp_conn_close(h, c);
        }
    }
    bool pressed = h->pressed;
    h->pressed = false;
    if (pressed && victim) {
        victim->req->account.refused = true;
        cp_exchange_spoil(h, victim, 503);
        cp_conn_list(h, victim);
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
    cp_conn_pump(h, now);
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
    cp_conn_pump(h, cp_now_ns()); /* the last words */
    while (h->conns) {
        shutdown(h->conns->fd, SHUT_WR);
        cp_conn_close(h, h->conns);
    }
    cp_conn_pump(h, cp_now_ns()); /* frees those that were listed */
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
    h->slots = cp_xcalloc(h->n_slots, sizeof(cp_conn *));
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
    h->budget = cfg->budget;
    h->scratch = cp_xmalloc(CP_READ_BYTES);
    h->ep = h->wake_fd = h->timer_fd = -1;
    h->listener = cfg->listener ? *cfg->listener : (cp_listener){.fd = -1};
    size_tables(h, cfg->max_connections);
    cp_code code = cp_mhd_open(&h->mhd, h->n_slots, err);
    if (code != CP_OK)
        goto failed;
    if (!cfg->listener)
        code = cp_listen(&h->listener, cfg->host, cfg->port, cfg->uds, err);
    if (code != CP_OK)
        goto failed;
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
    return h->listener.url;
}

int cp_http_port(const cp_http *h)
{
    return h->listener.port;
}

int cp_http_connections(const cp_http *h)
{
    return atomic_load_explicit(&h->n_conns, memory_order_relaxed);
}

bool cp_http_loopback(const cp_http *h)
{
    return h->listener.loopback;
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
    cp_listener_close(&h->listener);
    cp_mhd_close(h->mhd);
    close_fd(h->ep);
    close_fd(h->wake_fd);
    close_fd(h->timer_fd);
    free(h->scratch);
    free(h->slots);
    free(h->generation);
    free(h->free_slots);
    free(h);
}
