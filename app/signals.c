/* This file runs the signal thread: see signals.h. */
#include "app/signals.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/signals.h"
#include "server/listen.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/* Of the second that a second signal leaves, the kernel gets a part to take the memory back, and
 * the file system one to remove the socket's path. */
enum { AGAIN_MS = 700, REMOVE_MS = 100, OVERTIME_MS = 2000, POLL_MAX_MS = 60000 };

/* What the guard is told; GUARD_EXIT with an exit code added. */
enum { GUARD_QUIT = 1, GUARD_EXIT = 2 };

struct cp_signals {
    const char *uds; /* borrowed */
    int signal_fd, quit_fd;
    pthread_t thread;
    bool started;

    /* The thread that ends the process where the file system of the path hangs. */
    int guard_fd;
    pthread_t guard;
    bool guarded; /* it runs */

    pthread_mutex_t lock; /* guards all below; nothing that can block happens under it */
    pthread_cond_t come;
    int64_t drain_ms; /* grace and timeout */
    cp_server *server;
    bool bound; /* the path is, or was, the server's */
    cp_path_id socket_id;
    unsigned news;
    int ends; /* SIGTERM and SIGINT so far */
};

static void tell(cp_signals *s, unsigned news)
{
    s->news |= news;
    pthread_cond_signal(&s->come);
}

static void *guard(void *arg)
{
    const cp_signals *s = arg;
    uint64_t what = 0;
    pthread_setname_np(pthread_self(), "guard");
    if (read(s->guard_fd, &what, sizeof what) == (ssize_t)sizeof what && what >= GUARD_EXIT) {
        (void)poll(NULL, 0, REMOVE_MS);
        _exit((int)(what - GUARD_EXIT));
    }
    return NULL;
}

void cp_signals_end(void)
{
    kill(getpid(), SIGTERM); /* blocked everywhere: the signal thread takes it */
}

void cp_signals_leave(cp_signals *s, int exit_code)
{
    uint64_t what = GUARD_EXIT + (uint64_t)exit_code;
    pthread_mutex_lock(&s->lock);
    /* Without a word to the guard the path stays: it could keep the process. */
    if (s->bound && s->guarded && write(s->guard_fd, &what, sizeof what) > 0) {
        cp_path_remove(s->uds, s->socket_id);
    }
    /* A pull that runs for this process dies with it. */
    _exit(exit_code);
}

/* The time at which the thread stops waiting for main; 0: not yet set. */
static int64_t take(cp_signals *s, int sig, int64_t deadline)
{
    int64_t left_ms = -1;
    pthread_mutex_lock(&s->lock);
    if (sig == SIGHUP) {
        tell(s, CP_SIGNAL_RELOAD);
    } else if (++s->ends == 1) {
        left_ms = s->drain_ms + OVERTIME_MS;
        if (s->server) {
            cp_server_drain_begin(s->server);
        }
        tell(s, CP_SIGNAL_END);
    } else if (s->ends == 2) {
        left_ms = AGAIN_MS;
        if (s->server) {
            cp_server_drain_now(s->server);
        }
        tell(s, CP_SIGNAL_AGAIN);
    }
    pthread_mutex_unlock(&s->lock);
    return left_ms < 0 ? deadline : cp_now_ns() + left_ms * 1000000;
}

static int wait_ms(int64_t deadline)
{
    int64_t left = (deadline - cp_now_ns() + 999999) / 1000000;
    return deadline == 0 ? -1 : left < 0 ? 0 : left > POLL_MAX_MS ? POLL_MAX_MS : (int)left;
}

static void *watch(void *arg)
{
    cp_signals *s = arg;
    int64_t deadline = 0;
    pthread_setname_np(pthread_self(), "signals");
    for (;;) {
        struct pollfd p[] = {{.fd = s->signal_fd, .events = POLLIN},
                             {.fd = s->quit_fd, .events = POLLIN}};
        struct signalfd_siginfo info;
        (void)poll(p, 2, wait_ms(deadline));
        if (p[1].revents) {
            return NULL;
        }
        while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
            deadline = take(s, (int)info.ssi_signo, deadline);
        }
        if (deadline && cp_now_ns() >= deadline) {
            cp_signals_leave(s, 1);
        }
    }
}

static sigset_t ours(void)
{
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGTERM);
    sigaddset(&s, SIGINT);
    sigaddset(&s, SIGHUP);
    return s;
}

void cp_signals_hold(void)
{
    const sigset_t s = ours();
    pthread_sigmask(SIG_BLOCK, &s, NULL);
}

cp_code cp_signals_open(cp_signals **out, const char *uds, int64_t drain_ms, cp_err *err)
{
    cp_signals *s = cp_xcalloc(1, sizeof *s);
    const sigset_t taken = ours();
    sigset_t old;
    *out = s;
    s->uds = uds;
    s->drain_ms = drain_ms;
    pthread_mutex_init(&s->lock, NULL);
    cp_clock_cond_init(&s->come);
    cp_signals_hold();
    s->signal_fd = signalfd(-1, &taken, SFD_NONBLOCK | SFD_CLOEXEC);
    s->quit_fd = eventfd(0, EFD_CLOEXEC);
    s->guard_fd = eventfd(0, EFD_CLOEXEC);
    if (s->signal_fd < 0 || s->quit_fd < 0 || s->guard_fd < 0) {
        return cp_fail(err, CP_IO, "signals: %s", strerror(errno));
    }
    cp_signals_block(&old);
    int rc = pthread_create(&s->thread, NULL, watch, s);
    s->started = rc == 0;
    if (rc == 0 && uds) {
        rc = pthread_create(&s->guard, NULL, guard, s);
        s->guarded = rc == 0;
    }
    cp_signals_restore(&old);
    if (rc) {
        return cp_fail(err, CP_IO, "the signal thread did not start: %s", strerror(rc));
    }
    return CP_OK;
}

void cp_signals_drain(cp_signals *s, int64_t drain_ms)
{
    pthread_mutex_lock(&s->lock);
    s->drain_ms = drain_ms;
    pthread_mutex_unlock(&s->lock);
}

void cp_signals_serve(cp_signals *s, cp_server *server)
{
    cp_path_id id = server && s->uds ? cp_path_id_of(s->uds) : (cp_path_id){0};
    pthread_mutex_lock(&s->lock);
    s->server = server;
    s->bound = s->bound || server;
    s->socket_id = server ? id : s->socket_id;
    if (server && s->ends > 0) {
        cp_server_drain_begin(server); /* the signal came first */
    }
    pthread_mutex_unlock(&s->lock);
}

unsigned cp_signals_wait(cp_signals *s, int timeout_ms)
{
    struct timespec until = cp_clock_after(timeout_ms);
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    while (!s->news && rc == 0) {
        rc = timeout_ms < 0 ? pthread_cond_wait(&s->come, &s->lock)
                            : pthread_cond_timedwait(&s->come, &s->lock, &until);
    }
    unsigned news = s->news;
    s->news = 0;
    pthread_mutex_unlock(&s->lock);
    return news;
}

void cp_signals_nudge(cp_signals *s)
{
    pthread_mutex_lock(&s->lock);
    tell(s, CP_SIGNAL_NUDGE);
    pthread_mutex_unlock(&s->lock);
}

bool cp_signals_close(cp_signals *s)
{
    if (!s) {
        return false;
    }
    if (s->started) {
        uint64_t one = 1;
        CP_ASSERT(write(s->quit_fd, &one, sizeof one) == (ssize_t)sizeof one);
        pthread_join(s->thread, NULL);
    }
    if (s->guarded) {
        uint64_t quit = GUARD_QUIT;
        CP_ASSERT(write(s->guard_fd, &quit, sizeof quit) == (ssize_t)sizeof quit);
        pthread_join(s->guard, NULL);
    }
    bool again = s->ends > 1;
    for (size_t i = 0; i < 3; i++) {
        int fd = (const int[]){s->signal_fd, s->quit_fd, s->guard_fd}[i];
        if (fd >= 0) {
            close(fd);
        }
    }
    pthread_cond_destroy(&s->come);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return again;
}
