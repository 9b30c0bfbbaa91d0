/*
 * The server to compare with: the same two threads and the same bytes a token, and nothing else.
 * The engine thread appends an event to every stream's buffer and posts one eventfd a step; the
 * loop sends what each stream has. Requests are read and not looked at.
 */
#include "bench/sse/bench_sse.h"

#include "base/clock.h"
#include "base/mem.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256 };

typedef struct bare_stream {
    int fd;
    pthread_mutex_t lock; /* guards buf */
    cp_buf buf;
} bare_stream;

typedef struct bare {
    const cp_sse_load *load;
    bare_stream *streams;
    _Atomic int opened;
    _Atomic bool over;
    int wake_fd;
    int64_t cpu_start;
} bare;

static void sleep_until(int64_t t)
{
    int64_t d = t - cp_now_ns();
    struct timespec ts = {.tv_sec = d / 1000000000, .tv_nsec = d % 1000000000};
    if (d > 0)
        nanosleep(&ts, NULL);
}

static void *engine(void *arg)
{
    bare *b = arg;
    const cp_sse_load *load = b->load;
    while (atomic_load(&b->opened) < load->streams)
        sleep_until(cp_now_ns() + 1000000);
    b->cpu_start = cp_sse_cpu_ns();
    char *event = cp_xcalloc((size_t)load->event_bytes + 1, 1), head[16];
    memset(event, 'x', (size_t)load->event_bytes);
    memcpy(event, "data: ", 6);
    memcpy(event + load->event_bytes - 2, "\n\n", 2);
    size_t n_head = cp_snprintf(head, sizeof(head), "%x\r\n", (unsigned)load->event_bytes);
    int64_t next = cp_now_ns();
    uint64_t one = 1;
    for (int t = 0; t < load->tokens; t++) {
        next += load->step_ns;
        sleep_until(next);
        for (int i = 0; i < load->streams; i++) {
            bare_stream *s = &b->streams[i];
            pthread_mutex_lock(&s->lock);
            cp_buf_add(&s->buf, head, n_head);
            cp_buf_add(&s->buf, event, (size_t)load->event_bytes);
            cp_buf_add(&s->buf, "\r\n", 2);
            pthread_mutex_unlock(&s->lock);
        }
        atomic_store(&b->over, t + 1 == load->tokens);
        if (write(b->wake_fd, &one, sizeof(one)) < 0)
            break;
    }
    free(event);
    return NULL;
}

/* Send what each stream has; true: all is sent. */
static bool send_all(bare *b)
{
    bool empty = true;
    for (int i = 0; i < b->load->streams; i++) {
        bare_stream *s = &b->streams[i];
        pthread_mutex_lock(&s->lock);
        if (s->buf.n > 0) {
            ssize_t n = send(s->fd, s->buf.p, s->buf.n, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n > 0)
                cp_buf_consume(&s->buf, (size_t)n);
            empty = empty && s->buf.n == 0;
        }
        pthread_mutex_unlock(&s->lock);
    }
    return empty;
}

static int listen_any(int *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof(sa);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 ||
        listen(fd, 4096) != 0 || getsockname(fd, (struct sockaddr *)&sa, &len) != 0)
        return -1;
    *port = ntohs(sa.sin_port);
    return fd;
}

static bool take_stream(bare *b, int fd)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    char junk[4096];
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    bare_stream *s = &b->streams[atomic_load(&b->opened)];
    s->fd = fd;
    if (recv(fd, junk, sizeof(junk), 0) <= 0 ||
        send(fd, head, sizeof(head) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(head) - 1)
        return false;
    atomic_fetch_add(&b->opened, 1);
    return true;
}

int64_t cp_sse_bare(const cp_sse_load *load, cp_sse_ready *ready, void *arg)
{
    int port = 0, ls = listen_any(&port);
    if (ls < 0)
        return -1;
    bare b = {.load = load, .wake_fd = eventfd(0, EFD_CLOEXEC)};
    b.streams = cp_xcalloc((size_t)load->streams, sizeof(*b.streams));
    for (int i = 0; i < load->streams; i++)
        pthread_mutex_init(&b.streams[i].lock, NULL);
    pthread_t t;
    if (pthread_create(&t, NULL, engine, &b) != 0)
        return -1;
    ready(arg, port);
    while (atomic_load(&b.opened) < load->streams) {
        int fd = accept4(ls, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 || !take_stream(&b, fd))
            return -1;
    }
    for (bool done = false; !done;) {
        uint64_t v;
        if (read(b.wake_fd, &v, sizeof(v)) < 0)
            return -1;
        bool over = atomic_load(&b.over);
        while (!send_all(&b) && over)
            continue;
        done = over;
    }
    int64_t cpu = cp_sse_cpu_ns() - b.cpu_start;
    pthread_join(t, NULL);
    for (int i = 0; i < load->streams; i++) {
        (void)!send(b.streams[i].fd, "0\r\n\r\n", 5, MSG_NOSIGNAL);
        close(b.streams[i].fd);
    }
    return cpu;
}
