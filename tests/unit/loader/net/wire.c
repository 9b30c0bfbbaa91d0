/* One accept loop; each answer closes its connection. See wire.h. */
#include "tests/unit/loader/net/wire.h"
#include "base/code.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct wire {
    int fd, port;
    wire_handler *handler;
    void *arg;
    pthread_t thread;
    _Atomic bool over;
    pthread_mutex_t lock; /* count, log */
    int count;
    char log[WIRE_LOG];
};

void wire_raw(const wire_request *q, const void *p, size_t n)
{
    const char *s = p;
    while (n > 0) {
        ssize_t k = send(q->fd, s, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return;
        s += k;
        n -= (size_t)k;
    }
}

void wire_cut(const wire_request *q, int status, const char *headers, const void *body, size_t n,
              size_t k)
{
    char head[WIRE_HEAD];
    size_t used = cp_snprintf(head, sizeof(head),
                              "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\nConnection: close\r\n\r\n",
                              status, headers, n);
    wire_raw(q, head, used);
    wire_raw(q, body, k);
}

void wire_answer(const wire_request *q, int status, const char *headers, const void *body, size_t n)
{
    wire_cut(q, status, headers, body, n, n);
}

void wire_header(const wire_request *q, const char *name, char *out, size_t cap)
{
    size_t n = strlen(name);
    out[0] = '\0';
    for (const char *p = q->head; *p;) {
        size_t k = strcspn(p, "\r\n");
        if (k > n + 1 && strncasecmp(p, name, n) == 0 && p[n] == ':') {
            size_t from = n + 1 + strspn(p + n + 1, " ");
            cp_snprintf(out, cap, "%.*s", (int)(k - from), p + from);
            return;
        }
        p += k + strspn(p + k, "\r\n");
    }
}

bool wire_range(const wire_request *q, size_t *first, size_t *last)
{
    char v[64];
    wire_header(q, "Range", v, sizeof(v));
    return sscanf(v, "bytes=%zu-%zu", first, last) == 2;
}

/* Read the head and, by its Content-Length, the body. */
static bool read_request(int fd, wire_request *q)
{
    char buffer[WIRE_HEAD + WIRE_BODY];
    size_t n = 0;
    char *end = NULL;
    while (!end && n + 1 < WIRE_HEAD) {
        ssize_t k = recv(fd, buffer + n, WIRE_HEAD - 1 - n, 0);
        if (k <= 0)
            return false;
        n += (size_t)k;
        buffer[n] = '\0';
        if ((unsigned char)buffer[0] == 0x16)
            return false; /* TLS */
        end = strstr(buffer, "\r\n\r\n");
    }
    if (!end)
        return false;
    *end = '\0';
    const char *line = strstr(buffer, "\r\n");
    cp_snprintf(q->head, sizeof(q->head), "%s", line ? line + 2 : "");
    if (sscanf(buffer, "%7s %2047s", q->method, q->path) != 2)
        return false;
    char v[32];
    wire_header(q, "Content-Length", v, sizeof(v));
    size_t want = strtoul(v, NULL, 10), have = n - (size_t)(end + 4 - buffer);
    if (want >= WIRE_BODY)
        return false;
    memcpy(q->body, end + 4, have);
    while (have < want) {
        ssize_t k = recv(fd, q->body + have, want - have, 0);
        if (k <= 0)
            return false;
        have += (size_t)k;
    }
    q->body[want] = '\0';
    return true;
}

static void *serve(void *arg)
{
    wire *w = arg;
    wire_request *q = cp_xmalloc(sizeof(*q));
    while (!w->over) {
        int fd = accept(w->fd, NULL, NULL);
        if (fd < 0)
            continue;
        memset(q, 0, sizeof(*q));
        if (read_request(fd, q)) {
            char range[64], authorization[256];
            wire_header(q, "Range", range, sizeof(range));
            wire_header(q, "Authorization", authorization, sizeof(authorization));
            pthread_mutex_lock(&w->lock);
            q->count = w->count++;
            size_t n = strlen(w->log);
            cp_snprintf(w->log + n, WIRE_LOG - n, "%s %s|%s|%s\n", q->method, q->path, range,
                        authorization);
            pthread_mutex_unlock(&w->lock);
            q->fd = fd;
            w->handler(w->arg, q);
        }
        shutdown(fd, SHUT_WR);
        close(fd);
    }
    free(q);
    return NULL;
}

wire *wire_start(wire_handler *handler, void *arg)
{
    wire *w = cp_xcalloc(1, sizeof(*w));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    w->handler = handler;
    w->arg = arg;
    pthread_mutex_init(&w->lock, NULL);
    w->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CP_ASSERT(bind(w->fd, (struct sockaddr *)&a, n) == 0 && listen(w->fd, 64) == 0);
    CP_ASSERT(getsockname(w->fd, (struct sockaddr *)&a, &n) == 0);
    w->port = ntohs(a.sin_port);
    CP_ASSERT(pthread_create(&w->thread, NULL, serve, w) == 0);
    return w;
}

void wire_stop(wire *w)
{
    w->over = true;
    shutdown(w->fd, SHUT_RDWR); /* wakes accept */
    pthread_join(w->thread, NULL);
    close(w->fd);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

int wire_port(const wire *w)
{
    return w->port;
}

int wire_count(wire *w)
{
    pthread_mutex_lock(&w->lock);
    int n = w->count;
    pthread_mutex_unlock(&w->lock);
    return n;
}

void wire_log(wire *w, char out[WIRE_LOG])
{
    pthread_mutex_lock(&w->lock);
    memcpy(out, w->log, WIRE_LOG);
    pthread_mutex_unlock(&w->lock);
}
