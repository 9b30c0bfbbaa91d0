/* Packets with descriptors: see opener_wire.h and unix(7), SCM_RIGHTS. */
#include "app/opener_wire.h"

#include "base/io.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Aligned as the kernel wants it. */
typedef union control {
    struct cmsghdr head;
    char room[CMSG_SPACE(CP_WIRE_FDS * sizeof(int))];
} control;

bool cp_wire_send(int socket, const void *message, size_t n, const int *fds, size_t n_fds)
{
    struct iovec bytes = {.iov_base = (void *)(uintptr_t)message, .iov_len = n};
    control c = {0};
    struct msghdr m = {.msg_iov = &bytes, .msg_iovlen = 1};
    CP_ASSERT(n_fds <= CP_WIRE_FDS);
    if (n_fds > 0) {
        m.msg_control = &c;
        m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        *h = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS,
                              .cmsg_len = CMSG_LEN(n_fds * sizeof(int))};
        memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &m, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)n;
}

/* Those that came, room or not: what finds none is closed. */
static void take_fds(struct msghdr *m, int *fds, size_t *n_fds)
{
    size_t room = *n_fds;
    *n_fds = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (*n_fds < room) {
                fds[(*n_fds)++] = fd;
            } else {
                cp_io_close(fd);
            }
        }
    }
}

bool cp_wire_receive(int socket, void *message, size_t n, int *fds, size_t *n_fds)
{
    struct iovec bytes = {.iov_base = message, .iov_len = n};
    control c;
    struct msghdr m = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    ssize_t got;
    do {
        got = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        *n_fds = 0;
        return false;
    }
    take_fds(&m, fds, n_fds);
    if (got == (ssize_t)n && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        return true;
    }
    while (*n_fds > 0) {
        cp_io_close(fds[--*n_fds]);
    }
    return false;
}
