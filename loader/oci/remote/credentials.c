/*
 * Where credentials lie, helpers, base64. A helper is a program of the user's: it gets no
 * descriptors of ours, is killed with its children when its time is over, and what it says on
 * failure is shown (it goes to standard output by docker's protocol), never what it says on
 * success.
 */
#include "loader/oci/remote/credentials.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { HELPER_BYTES = 64 << 10, PATH_BYTES = 4096, SERVER_BYTES = 512 };

static void wipe(char **s)
{
    if (*s)
        explicit_bzero(*s, strlen(*s));
    free(*s);
    *s = NULL;
}

void cp_credential_fini(cp_credential *c)
{
    wipe(&c->user);
    wipe(&c->password);
    wipe(&c->identity_token);
    wipe(&c->registry_token);
}

bool cp_credential_any(const cp_credential *c)
{
    return (c->user && c->password) || c->identity_token || c->registry_token;
}

/* ---- keys and base64 ---- */

/* See credentials.h. */
bool cp_credential_key(const char *key, char *out, size_t cap)
{
    const char *s = key;
    if (strncasecmp(s, "https://", 8) == 0)
        s += 8;
    else if (strncasecmp(s, "http://", 7) == 0)
        s += 7;
    if (!cp_strcopy(out, cap, s))
        return false;
    size_t n = strlen(out);
    while (n > 0 && out[n - 1] == '/')
        out[--n] = '\0';
    if (n > 3 && (strcmp(out + n - 3, "/v1") == 0 || strcmp(out + n - 3, "/v2") == 0))
        out[n -= 3] = '\0';
    size_t host = strcspn(out, "/");
    for (size_t i = 0; i < host; i++)
        out[i] = cp_lower(out[i]);
    static const char *const hub[] = {"index.docker.io", "registry-1.docker.io"};
    for (size_t i = 0; i < 2; i++)
        if (host == strlen(hub[i]) && strncmp(out, hub[i], host) == 0) {
            memmove(out + strlen("docker.io"), out + host, n - host + 1);
            memcpy(out, "docker.io", strlen("docker.io"));
            break;
        }
    return out[0] != '\0';
}

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *cp_base64_encode(const void *p, size_t n)
{
    const uint8_t *b = p;
    char *out = cp_xmalloc(n / 3 * 4 + 5), *o = out;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)b[i] << 16 | (i + 1 < n ? (uint32_t)b[i + 1] << 8 : 0) |
                     (i + 2 < n ? b[i + 2] : 0);
        *o++ = ALPHABET[v >> 18];
        *o++ = ALPHABET[v >> 12 & 63];
        *o++ = i + 1 < n ? ALPHABET[v >> 6 & 63] : '=';
        *o++ = i + 2 < n ? ALPHABET[v & 63] : '=';
    }
    *o = '\0';
    return out;
}

/* See credentials.h. Padding may be left out; blanks and anything behind it may not. */
char *cp_base64_decode(const char *s, size_t *n)
{
    size_t len = strlen(s);
    while (len > 0 && s[len - 1] == '=')
        len--;
    if (len % 4 == 1 || strlen(s) - len > 2)
        return NULL;
    char *out = cp_xmalloc(len / 4 * 3 + 4);
    uint32_t v = 0;
    *n = 0;
    for (size_t i = 0; i < len; i++) {
        const char *at = memchr(ALPHABET, s[i], 64);
        if (!at) {
            free(out);
            return NULL;
        }
        v = v << 6 | (uint32_t)(at - ALPHABET);
        if (i % 4 != 0)
            out[(*n)++] = (char)(v >> (6 - 2 * (i % 4)) & 0xff);
    }
    out[*n] = '\0';
    return out;
}

/* ---- helpers ---- */

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

/* See credentials.h. */
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
    if (b.p)
        explicit_bzero(b.p, b.n);
    cp_buf_fini(&b);
    return ok;
}

/* ---- files ---- */

/* $variable and a tail; false: not set, a folder that is not absolute, too long. */
static bool join(char out[PATH_BYTES], const char *variable, const char *tail)
{
    const char *base = getenv(variable);
    if (!base || !*base || (*tail && base[0] != '/'))
        return false;
    return cp_snprintf(out, PATH_BYTES, "%s%s", base, tail) < PATH_BYTES - 1;
}

/* named: the user names this file, it must be there. *known: it has something for the registry. */
static cp_code ask_file(const char *path, bool named, const char *registry, const char *repository,
                        cp_credential *out, bool *known, cp_err *err)
{
    *known = false;
    if (access(path, R_OK) != 0) {
        if (named)
            return cp_fail(err, CP_USAGE, "credentials: %.300s: %s", path, strerror(errno));
        return CP_OK;
    }
    cp_buf b = {0};
    char helper[64], server[SERVER_BYTES];
    cp_code code = cp_file_read(path, CP_CREDENTIAL_FILE_MAX, &b, err);
    if (code != CP_OK)
        cp_fail(err, code = CP_USAGE, "credentials: %.300s cannot be read", path);
    else
        code = cp_credential_parse(path, b.p ? b.p : "", b.n, registry, repository, out, helper,
                                   server, err);
    if (b.p)
        explicit_bzero(b.p, b.n);
    cp_buf_fini(&b);
    if (code != CP_OK)
        return code;
    if (helper[0] && !cp_credential_helper(helper, server, CP_CREDENTIAL_HELPER_MS, out))
        cp_log(CP_LOG_INFO, "no credentials for %s: %s", registry, out->from);
    *known = cp_credential_any(out);
    return CP_OK;
}

/* See credentials.h. */
cp_code cp_credential_named(const char *authfile, cp_err *err)
{
    const char *path = authfile ? authfile : getenv("REGISTRY_AUTH_FILE");
    if (!path || (!authfile && !*path) || access(path, R_OK) == 0)
        return CP_OK;
    return cp_fail(err, CP_USAGE, "%s: %.300s: %s", authfile ? "authfile" : "REGISTRY_AUTH_FILE",
                   path, strerror(errno));
}

/* See credentials.h. */
cp_code cp_credential_find(const char *authfile, const char *registry, const char *repository,
                           cp_credential *out, cp_err *err)
{
    static const struct {
        const char *variable, *tail;
        bool named;
    } rows[] = {
        {"REGISTRY_AUTH_FILE", "", true},
        {"DOCKER_CONFIG", "/config.json", false},
        {"XDG_RUNTIME_DIR", "/containers/auth.json", false},
        {"XDG_CONFIG_HOME", "/containers/auth.json", false},
        {"HOME", "/.config/containers/auth.json", false},
        {"HOME", "/.docker/config.json", false},
        {"HOME", "/.dockercfg", false},
    };
    *out = (cp_credential){.user = NULL};
    bool known = false;
    if (authfile) {
        cp_code code = ask_file(authfile, true, registry, repository, out, &known, err);
        if (code == CP_OK && !known && !out->from[0])
            cp_snprintf(out->from, sizeof(out->from), "%s", authfile);
        return code;
    }
    char looked[512] = "";
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[PATH_BYTES];
        if (!join(path, rows[i].variable, rows[i].tail))
            continue;
        cp_code code = ask_file(path, rows[i].named, registry, repository, out, &known, err);
        if (code != CP_OK || known)
            return code;
        if (out->from[0]) { /* it was there and has none */
            size_t n = strlen(looked);
            cp_snprintf(looked + n, sizeof(looked) - n, "%s%s", n ? ", " : "", out->from);
        }
        cp_credential_fini(out);
        out->from[0] = '\0';
    }
    cp_snprintf(out->from, sizeof(out->from), "%s",
                looked[0] ? looked : "no file with credentials");
    return CP_OK;
}
