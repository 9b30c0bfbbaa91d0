/*
 * This file finds models, and pulls them by a child process where they are not here: see fetch.h.
 *
 * The child writes its progress into a pipe, and everything that a person should read to stderr,
 * which it shares; its exit code says what kind of failure it was. A line of the pipe is "PHASE
 * DONE TOTAL", such as "pulling 1048576 138412032".
 */
#include "app/fetch.h"

#include "app/command.h"
#include "app/progress.h"
#include "base/log.h"
#include "loader/oci/reference.h"
#include "loader/oci/remote/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child's descriptors: 0 and 1 are /dev/null, 2 is ours, everything from 4 on is closed. */
enum { PROGRESS_FD = 3, LINE_MAX_BYTES = 128, CHILD_BYTES_MAX = 8 << 20 };

static const char child_program[] = "/proc/self/exe";

/* What each exit code of `pull` means here, and what to do about it. */
static const struct {
    int exit;
    cp_code code;
    const char *remedy;
} outcomes[] = {
    {2, CP_USAGE, "its options or the reference are wrong"},
    {3, CP_NOT_FOUND,
     "neither the store nor the registry has it; check name and tag (`capstan list` shows the "
     "store; a file's path begins with / or ./)"},
    {4, CP_CORRUPT,
     "what the registry sent is not what the digest names, or malformed; pull again, or from "
     "another registry or --mirror"},
    {5, CP_NETWORK,
     "it is not in the store and the registry cannot be used; check the network, --authfile, "
     "--ca-file, --mirror, or bring the model as a layout (oci:DIR)"},
};

/* One line of the child: "PHASE DONE TOTAL". Anything else is passed over. */
static void take_line(char *line, cp_progress_fn *progress, void *arg)
{
    char *space = strchr(line, ' '), *end;
    const char *phase = space ? cp_progress_phase(line, (uint64_t)(space - line)) : NULL;
    if (!phase) {
        return;
    }
    unsigned long long done = strtoull(space + 1, &end, 10);
    if (end == space + 1 || *end != ' ') {
        return;
    }
    unsigned long long total = strtoull(end + 1, NULL, 10);
    progress(arg, phase, done, total);
}

/* Until the child closes its end. */
static void follow(int fd, cp_progress_fn *progress, void *arg)
{
    char line[LINE_MAX_BYTES], piece[4096];
    size_t n = 0;
    for (;;) {
        ssize_t got = read(fd, piece, sizeof piece);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return;
        }
        for (ssize_t i = 0; i < got; i++) {
            if (piece[i] != '\n') {
                line[n] = piece[i];
                n += n + 1 < sizeof line;
                continue;
            }
            line[n] = '\0';
            n = 0;
            take_line(line, progress, arg);
        }
    }
}

static char *copy(cp_arena *a, const char *s)
{
    return cp_arena_strndup(a, s, strlen(s));
}

/* "capstan pull --progress-fd=3 ... -- REF", NULL-terminated; NULL: out of memory. */
static char **child_words(const cp_options *o, const char *ref, cp_arena *a)
{
    cp_strings flags = {0};
    if (cp_options_forward(o, CP_CMD_PULL, a, &flags, NULL)) {
        return NULL;
    }
    size_t n = 0, cap = (size_t)flags.n + 6;
    char **words = cp_arena_alloc(a, cap * sizeof *words);
    if (!words) {
        return NULL;
    }
    words[n++] = copy(a, "capstan");
    words[n++] = copy(a, "pull");
    words[n++] = cp_arena_printf(a, "--progress-fd=%d", PROGRESS_FD);
    for (int i = 0; i < flags.n; i++) {
        words[n++] = copy(a, flags.p[i]);
    }
    words[n++] = copy(a, "--");
    words[n++] = copy(a, ref);
    for (size_t i = 0; i < n; i++) {
        if (!words[i]) {
            return NULL;
        }
    }
    return words; /* the arena's memory is zero: words[n] is NULL */
}

/* The environment but CAPSTAN_CONFIG: what the file says is among the flags. NULL: out of memory.
 */
static char **child_environment(cp_arena *a)
{
    extern char **environ;
    size_t n = 0, k = 0;
    while (environ[n]) {
        n++;
    }
    char **e = cp_arena_alloc(a, (n + 1) * sizeof *e);
    for (size_t i = 0; e && i < n; i++) {
        if (strncmp(environ[i], "CAPSTAN_CONFIG=", 15) != 0) {
            e[k++] = environ[i];
        }
    }
    return e;
}

/* Default signals and an empty mask: this process blocks some and ignores SIGPIPE. */
static int spawn_attributes(posix_spawnattr_t *a)
{
    sigset_t none, standard;
    sigemptyset(&none);
    sigemptyset(&standard);
    for (size_t i = 0; i < 5; i++) {
        sigaddset(&standard, (const int[]){SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGUSR1}[i]);
    }
    int rc = posix_spawnattr_init(a);
    rc = rc ? rc : posix_spawnattr_setsigmask(a, &none);
    rc = rc ? rc : posix_spawnattr_setsigdefault(a, &standard);
    return rc ? rc : posix_spawnattr_setflags(a, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

static int spawn_files(posix_spawn_file_actions_t *f, int progress)
{
    int rc = posix_spawn_file_actions_init(f);
    rc = rc ? rc : posix_spawn_file_actions_adddup2(f, progress, PROGRESS_FD);
    rc = rc ? rc : posix_spawn_file_actions_addopen(f, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    rc = rc ? rc : posix_spawn_file_actions_addopen(f, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    return rc ? rc : posix_spawn_file_actions_addclosefrom_np(f, PROGRESS_FD + 1);
}

static cp_code spawn_pull(const cp_options *o, const char *ref, int progress, pid_t *pid,
                          cp_err *err)
{
    cp_arena *a = cp_arena_new(CHILD_BYTES_MAX);
    char **words = child_words(o, ref, a), **environment = child_environment(a);
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t files;
    int e = words && environment ? spawn_attributes(&attributes) : ENOMEM;
    if (e == 0) {
        e = spawn_files(&files, progress);
        e = e ? e : posix_spawn(pid, child_program, &files, &attributes, words, environment);
        posix_spawn_file_actions_destroy(&files);
        posix_spawnattr_destroy(&attributes);
    }
    cp_arena_free(a);
    return e ? cp_fail(err, CP_IO, "cannot start %s pull: %s", child_program, strerror(e)) : CP_OK;
}

static cp_code outcome(int status, cp_err *err)
{
    if (WIFSIGNALED(status)) {
        return cp_fail(err, CP_IO, "its pull was ended by signal %d", WTERMSIG(status));
    }
    for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++) {
        if (WEXITSTATUS(status) == outcomes[i].exit) {
            return cp_fail(err, outcomes[i].code, "could not be pulled: %s", outcomes[i].remedy);
        }
    }
    return WEXITSTATUS(status)
               ? cp_fail(err, CP_IO, "could not be pulled: exit code %d", WEXITSTATUS(status))
               : CP_OK;
}

/* Run `capstan pull ref` to its end. */
static cp_code pull(const cp_options *o, const char *ref, cp_progress_fn *progress, void *arg,
                    cp_err *err)
{
    int ends[2], status;
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return cp_fail(err, CP_IO, "no pipe for a pull: %s", strerror(errno));
    }
    cp_log(CP_LOG_INFO, "%s is not in the store, pulling it", ref);
    cp_code rc = spawn_pull(o, ref, ends[1], &pid, err);
    close(ends[1]);
    if (rc == CP_OK) {
        follow(ends[0], progress, arg);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        rc = outcome(status, err);
    }
    close(ends[0]);
    return rc;
}

cp_code cp_app_file_find(cp_found **out, const char *ref, const cp_options *o,
                         cp_progress_fn *progress, void *arg, cp_err *err)
{
    cp_loader_options lo = cp_app_loader_options(o);
    cp_ref parsed;
    cp_code rc = o->authfile && *o->authfile ? cp_credential_named(o->authfile, err) : CP_OK;
    if (rc) {
        return rc;
    }
    lo.progress = progress;
    lo.progress_arg = arg;
    progress(arg, "mapping", 0, 0);
    rc = cp_loader_find(out, ref, &lo, err);
    if (rc == CP_NOT_FOUND && !cp_ref_parse(&parsed, ref, lo.default_registry, NULL, NULL) &&
        parsed.kind == CP_REF_NAME) {
        rc = pull(o, ref, progress, arg, err);
        if (rc == CP_OK) {
            progress(arg, "mapping", 0, 0);
            rc = cp_loader_find(out, ref, &lo, err);
        }
    }
    if (rc) {
        cp_app_err_ref(err, ref);
    }
    return rc;
}

cp_code cp_app_file_open(cp_loaded **out, const char *ref, const cp_options *o,
                         cp_progress_fn *progress, void *arg, cp_err *err)
{
    cp_found *f;
    cp_code rc = cp_app_file_find(&f, ref, o, progress, arg, err);
    if (rc) {
        return rc;
    }
    rc = cp_loader_map(out, f, err);
    if (rc) {
        cp_app_err_ref(err, ref);
    }
    return rc;
}
