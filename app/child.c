/*
 * This file forks children: see child.h. A fork copies the calling thread alone, with locks as
 * others hold them, so it happens while there is one thread. That thread must live as long as the
 * process does: the kernel's death signal goes by it.
 */
#include "app/child.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_FD = STDERR_FILENO + 1, WAIT_MS = 5 };

/* Of this process; 0: it cannot be told. */
static int threads(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; d && (e = readdir(d));) {
        n += e->d_name[0] != '.';
    }
    if (d) {
        closedir(d);
    }
    return n;
}

static void set_signals(void)
{
    static const int outside[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
    sigset_t none;
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        signal(outside[i], SIG_IGN);
    }
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The child's life. The parent's end among its descriptors would keep it from seeing the end. */
static _Noreturn void live(const char *name, int fd, pid_t parent, cp_child_fn *run, void *arg)
{
    set_signals();
    prctl(PR_SET_NAME, name);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || (fd != CHILD_FD && dup2(fd, CHILD_FD) != CHILD_FD) ||
        close_range(CHILD_FD + 1, ~0u, 0) != 0) {
        _exit(1); /* the parent died before the signal was asked for, or there is no descriptor */
    }
    _exit(run(CHILD_FD, arg));
}

cp_code cp_child_start(cp_child *c, const char *name, int socket_type, cp_child_fn *run, void *arg,
                       cp_err *err)
{
    int ends[2];
    pid_t parent = getpid();
    *c = (cp_child){.fd = -1};
    CP_ASSERT(threads() <= 1);
    if (socketpair(AF_UNIX, socket_type | SOCK_CLOEXEC, 0, ends) != 0) {
        return cp_fail(err, CP_IO, "no socket for the process '%s': %s", name, strerror(errno));
    }
    fflush(NULL); /* what is buffered is written once */
    pid_t pid = fork();
    if (pid == 0) {
        live(name, ends[1], parent, run, arg);
    }
    int failed = errno;
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return cp_fail(err, CP_IO, "cannot start the process '%s': %s", name, strerror(failed));
    }
    *c = (cp_child){.pid = pid, .fd = ends[0]};
    return CP_OK;
}

void cp_child_stop(cp_child *c, int timeout_ms)
{
    if (c->pid <= 0) {
        return;
    }
    cp_io_close(c->fd);
    int64_t end = cp_now_ns() + (int64_t)timeout_ms * 1000000;
    while (waitpid(c->pid, NULL, WNOHANG) == 0 && cp_now_ns() < end) {
        (void)poll(NULL, 0, WAIT_MS);
    }
    *c = (cp_child){.fd = -1};
}
