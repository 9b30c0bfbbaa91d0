/*
 * Running a credential helper. It is a program of the user's: it gets no descriptors of ours and
 * is killed with its children when its time is over. What it says on failure is shown (it goes to
 * standard output by docker's protocol). What it says on success is a secret, is never shown, and
 * is wiped.
 */
#include "loader/oci/remote/helper.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { HELPER_BYTES = 64 << 10, SERVER_BYTES = 512 };

static bool helper_name_ok(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n < 64 && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* A descriptor whose content is `server` and a newline; a file in memory, so that a helper that
 * does not read it cannot block or signal us. */
static int input_of(const char *server)
{
    int fd = memfd_create("capstan-credential", MFD_CLOEXEC);
    char line[SERVER_BYTES + 2];
    size_t n = cp_snprintf(line, sizeof(line), "%s\n", server);
    if (fd >= 0 && (!cp_io_write(fd, line, n) || lseek(fd, 0, SEEK_SET) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static int64_t left_ms(int64_t deadline_ns)
{
    int64_t left = (deadline_ns - cp_now_ns()) / 1000000;
    return left > 0 ? left : 0;
}

/* Read until the end of the stream; false: time is over or it is too much. */
static bool read_all(int fd, cp_buf *out, int64_t deadline_ns)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int r = poll(&p, 1, (int)left_ms(deadline_ns));
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return false;
        char chunk[4096];
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0;
        bool ok = cp_buf_add(out, chunk, (size_t)n);
        explicit_bzero(chunk, sizeof(chunk));
        if (!ok)
            return false;
    }
}

/* Exit status; -1: it did not end by itself in time (its group is killed). */
static int await(pid_t pid, bool patient, int64_t deadline_ns)
{
    int status;
    for (;;) {
        pid_t r = waitpid(pid, &status, WNOHANG);
        if (r == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        if (r < 0 && errno != EINTR)
            return -1;
        if (!patient || left_ms(deadline_ns) == 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return -1;
}

/* 0 and a process, or errno. */
static int spawn(pid_t *pid, const char *program, int in, int out)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    char name[96], get[] = "get";
    cp_strcopy(name, sizeof(name), program);
    char *argv[] = {name, get, NULL};
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETSIGMASK);
    sigset_t none, pipe_signal;
    sigemptyset(&none);
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &pipe_signal);
    int rc = posix_spawnp(pid, program, &actions, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* One printable line of a helper's complaint. */
static void complaint(const cp_buf *b, char out[160])
{
    size_t n = 0;
    for (size_t i = 0; i < b->n && n < 159 && b->p[i] != '\n'; i++)
        out[n++] = b->p[i] >= 0x20 && b->p[i] < 0x7f ? b->p[i] : ' ';
    out[n] = '\0';
}

/* See helper.h. */
bool cp_credential_helper(const char *helper, const char *server, int timeout_ms,
                          cp_credential *out)
{
    char program[96], text[160] = "";
    int fds[2] = {-1, -1};
    pid_t pid;
    if (!helper_name_ok(helper)) {
        cp_snprintf(out->from, sizeof(out->from),
                    "the credential helper's name is not of a-z 0-9 -");
        return false;
    }
    cp_snprintf(program, sizeof(program), "docker-credential-%s", helper);
    int in = input_of(server);
    if (in < 0 || pipe2(fds, O_CLOEXEC) != 0) {
        cp_snprintf(out->from, sizeof(out->from), "%s: %s", program, strerror(errno));
        cp_io_close(in);
        return false;
    }
    int rc = spawn(&pid, program, in, fds[1]);
    close(in);
    close(fds[1]);
    if (rc != 0) {
        close(fds[0]);
        cp_snprintf(out->from, sizeof(out->from), "%s: %s", program, strerror(rc));
        return false;
    }
    cp_buf b = {.max = HELPER_BYTES};
    int64_t deadline = cp_now_ns() + (int64_t)timeout_ms * 1000000;
    bool whole = read_all(fds[0], &b, deadline);
    close(fds[0]);
    int status = await(pid, whole, deadline);
    bool ok = whole && status == 0 && cp_credential_parse_helper(b.p, b.n, out);
    if (ok)
        cp_snprintf(out->from, sizeof(out->from), "%s", program);
    else if (status > 0) {
        complaint(&b, text);
        cp_snprintf(out->from, sizeof(out->from), "%s: %s", program, text);
    } else {
        cp_snprintf(out->from, sizeof(out->from), "%s %s", program,
                    status == 0 ? "gave no credentials"
                    : whole     ? "did not end well"
                    : b.failed  ? "talks too much"
                                : "gave no answer in time");
    }
    cp_buf_wipe(&b);
    cp_buf_fini(&b);
    return ok;
}
