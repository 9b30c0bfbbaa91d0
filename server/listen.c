/*
 * This file opens the listening socket. Accepted connections inherit what is set on it: a send
 * buffer of 64 KiB, so that a client that does not read is noticed after hundreds of tokens and not
 * after tens of thousands, and keep-alive probes with a user timeout, so that a dead peer is
 * noticed while a stream is silent.
 */
#include "server/listen.h"

#include "base/mem.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKLOG = 4096,
    SEND_BUFFER = 64 << 10,
    KEEP_IDLE_S = 30,
    KEEP_INTERVAL_S = 10,
    KEEP_PROBES = 3,
    USER_TIMEOUT_MS = 60000
};

static void set_int(int fd, int level, int name, int value)
{
    /* Best effort: a kernel without one of these still serves. */
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

static cp_code listen_unix(cp_listener *l, const char *path, cp_err *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (!cp_strcopy(sa.sun_path, sizeof(sa.sun_path), path))
        return cp_fail(err, CP_USAGE, "uds: '%s' is longer than %zu bytes", path,
                       sizeof(sa.sun_path) - 1);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return cp_fail(err, CP_IO, "unix socket: %s", strerror(errno));
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        /* Left by a process that died: nobody answers. One that answers keeps the path. */
        if (connect(s, (const struct sockaddr *)&sa, sizeof(sa)) != 0 && errno == ECONNREFUSED)
            unlink(path);
        close(s);
        s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (s < 0)
            return cp_fail(err, CP_IO, "unix socket: %s", strerror(errno));
    }
    set_int(s, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER);
    if (bind(s, (const struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(s, BACKLOG) != 0) {
        int e = errno;
        close(s);
        return cp_fail(err, CP_IO, "cannot listen on unix:%s: %s", path, strerror(e));
    }
    cp_snprintf(l->url, sizeof(l->url), "unix:%s", path);
    l->socket = cp_path_id_of(path);
    l->fd = s;
    return CP_OK;
}

cp_path_id cp_path_id_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? (cp_path_id){st.st_dev, st.st_ino} : (cp_path_id){0};
}

void cp_path_remove(const char *path, cp_path_id id)
{
    cp_path_id now = cp_path_id_of(path);
    if (now.ino != 0 && now.ino == id.ino && now.dev == id.dev)
        unlink(path);
}

static cp_code bind_tcp(const struct addrinfo *ai, const char *host, int port, int *fd, cp_err *err)
{
    int s = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return cp_fail(err, CP_IO, "socket: %s", strerror(errno));
    set_int(s, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(s, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER);
    set_int(s, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(s, IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S);
    set_int(s, IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S);
    set_int(s, IPPROTO_TCP, TCP_KEEPCNT, KEEP_PROBES);
    set_int(s, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
    set_int(s, IPPROTO_TCP, TCP_NODELAY, 1);
    if (bind(s, ai->ai_addr, ai->ai_addrlen) != 0 || listen(s, BACKLOG) != 0) {
        int e = errno;
        close(s);
        return cp_fail(err, CP_IO, "cannot listen on %s:%d: %s", host, port, strerror(e));
    }
    *fd = s;
    return CP_OK;
}

static bool is_loopback(const struct sockaddr_storage *sa)
{
    if (sa->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)sa;
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
}

cp_code cp_listen(cp_listener *l, const char *host, int port, const char *uds, cp_err *err)
{
    *l = (cp_listener){.fd = -1};
    if (uds)
        return listen_unix(l, uds, err);
    char bare[256];
    size_t n = host ? strlen(host) : 0;
    if (!host) {
        host = "127.0.0.1";
    } else if (n > 2 && n < sizeof(bare) && host[0] == '[' && host[n - 1] == ']') {
        cp_snprintf(bare, sizeof(bare), "%.*s", (int)(n - 2), host + 1);
        host = bare;
    }
    if (port < 0 || port > 65535)
        return cp_fail(err, CP_USAGE, "port %d; allowed: 0 to 65535", port);
    char service[16];
    cp_snprintf(service, sizeof(service), "%d", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0 || !list)
        return cp_fail(err, CP_USAGE, "host '%s': %s", host, gai_strerror(rc));
    cp_code code = bind_tcp(list, host, port, &l->fd, err);
    bool v6 = list->ai_family == AF_INET6;
    freeaddrinfo(list);
    if (code != CP_OK)
        return code;
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);
    if (getsockname(l->fd, (struct sockaddr *)&sa, &len) != 0) {
        code = cp_fail(err, CP_IO, "getsockname: %s", strerror(errno));
        cp_listener_close(l);
        return code;
    }
    in_port_t p = v6 ? ((const struct sockaddr_in6 *)&sa)->sin6_port
                     : ((const struct sockaddr_in *)&sa)->sin_port;
    l->port = ntohs(p);
    l->loopback = is_loopback(&sa);
    bool bracket = v6 && strchr(host, ':');
    cp_snprintf(l->url, sizeof(l->url), "http://%s%s%s:%d", bracket ? "[" : "", host,
                bracket ? "]" : "", l->port);
    return CP_OK;
}

void cp_listener_close(cp_listener *l)
{
    if (l->fd < 0)
        return;
    if (l->socket.ino != 0)
        cp_path_remove(l->url + strlen("unix:"), l->socket);
    close(l->fd);
    *l = (cp_listener){.fd = -1};
}
