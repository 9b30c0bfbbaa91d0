/*
 * The reader: opens every stream, reads to the end of each, counts bytes and events. One thread,
 * epoll. It runs in a process of its own, so that its CPU time is nobody's cost.
 */
#include "bench/sse/bench_sse.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 65536, EVENTS = 256, WAIT_MS = 60000 };

static int open_stream(int port, const char *request, size_t n)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 ||
                    send(fd, request, n, MSG_NOSIGNAL) != (ssize_t)n)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Events end with an empty line; `last` carries a newline over to the next read. */
static int64_t count_events(const char *p, size_t n, bool *last)
{
    int64_t events = 0;
    for (size_t i = 0; i < n; i++) {
        bool newline = p[i] == '\n';
        events += newline && *last;
        *last = newline && !*last;
    }
    return events;
}

cp_sse_read cp_sse_client(const cp_sse_load *load, int port)
{
    cp_sse_read r = {0};
    char body[256], request[512];
    size_t n_body = cp_snprintf(body, sizeof(body),
                                "{\"messages\":[{\"role\":\"user\",\"content\":\"go\"}],"
                                "\"stream\":true,\"max_tokens\":%d}",
                                load->tokens);
    size_t n =
        cp_snprintf(request, sizeof(request),
                    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close"
                    "\r\nContent-Length: %zu\r\n\r\n%s",
                    n_body, body);
    int ep = epoll_create1(EPOLL_CLOEXEC), open_now = 0;
    bool *last = cp_xcalloc((size_t)load->streams, sizeof(*last));
    int *fds = cp_xcalloc((size_t)load->streams, sizeof(*fds));
    for (int i = 0; i < load->streams; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        fds[i] = open_stream(port, request, n);
        if (fds[i] >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &ev) == 0)
            open_now++;
        else
            r.failed++;
    }
    char *buf = cp_xmalloc(READ_BYTES);
    while (open_now > 0) {
        struct epoll_event ev[EVENTS];
        int k = epoll_wait(ep, ev, EVENTS, WAIT_MS);
        if (k == 0 || (k < 0 && errno != EINTR)) {
            r.failed += open_now;
            break;
        }
        for (int e = 0; e < k; e++) {
            uint32_t i = ev[e].data.u32;
            ssize_t got = recv(fds[i], buf, READ_BYTES, 0);
            if (got > 0) {
                r.bytes += got;
                r.events += count_events(buf, (size_t)got, &last[i]);
                continue;
            }
            r.failed += got < 0;
            close(fds[i]);
            open_now--;
        }
    }
    return r;
}
