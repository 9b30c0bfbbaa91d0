/* A table of attempts: see sandbox_try.h. Each is what taking a server over would be good for. */
#include "base/sandbox_try.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static long try_socket(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long try_connect(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(STDERR_FILENO, (const struct sockaddr *)&to, sizeof(to));
}

static long try_execve(void)
{
    char *const words[] = {(char[]){"true"}, NULL}, *const none[] = {NULL};
    return execve("/bin/true", words, none);
}

static long try_fork(void)
{
    long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return pid;
}

static long try_read(void)
{
    return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static long try_climb(void)
{
    return open("/proc/self/../1/environ", O_RDONLY | O_CLOEXEC);
}

static long try_write(void)
{
    return open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
}

static long try_create(void)
{
    return open("capstan-sandbox-try", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static long try_unlink(void)
{
    return unlink("/etc/capstan-sandbox-try");
}

static long try_ptrace(void)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static long try_kill(void)
{
    return kill(getppid(), 0);
}

static long try_code(void)
{
    const void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? -1 : 0;
}

/* What the kernel's second wall has to stop: the first is told that the path was looked at. */
static long try_around(void)
{
    return syscall(SYS_openat, 0x9a7c10cdul, "/etc/passwd", O_RDONLY | O_CLOEXEC, 0);
}

static const struct {
    const char *name;
    long (*attempt)(void);
} attempts[] = {
    {"socket", try_socket}, {"connect", try_connect}, {"execve", try_execve},
    {"fork", try_fork},     {"read", try_read},       {"climb", try_climb},
    {"write", try_write},   {"create", try_create},   {"unlink", try_unlink},
    {"ptrace", try_ptrace}, {"kill", try_kill},       {"code", try_code},
    {"around", try_around},
};

/* See sandbox_try.h. */
void cp_sandbox_try(const char *who)
{
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
        errno = 0;
        bool refused = attempts[i].attempt() < 0;
        cp_log(CP_LOG_WARN, "sandbox: tried %s on %s: %s", attempts[i].name, who,
               refused ? strerror(errno) : "DONE");
    }
}
