/*
 * This file is the wall of system calls: a seccomp filter, which libseccomp writes.
 *
 * What the filter does not let through raises SIGSYS in the thread that called; the handler logs
 * it and the call returns EPERM. A filter sees numbers and no text, so calls that take a path come
 * to the handler, too: it looks at the path, and where that is one of the few that serving reads
 * it makes the call again with LOOKED_AT for the folder, which an absolute path makes meaningless
 * and the filter lets through. That is for the log and for clear errors; who has taken the process
 * over can say LOOKED_AT himself, and meets Landlock.
 *
 * A thread that blocks SIGSYS would be killed, so none does (base/signals.h); where glibc blocks
 * every signal, around fork and posix_spawn, the filter answers without one, and what it may ask at
 * the end of a thread is asked before (read_early).
 */
#include "base/sandbox.h"

#include "base/digest.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#define LOOKED_AT 0x9a7c10cdu /* no descriptor: those are not negative */

enum { ARGS_MAX = 2, OPTIMIZE_TREE = 2, PATH_BYTES = 4096 };

/* The handler has no argument of ours: this is the one place that needs globals. */
static struct {
    const char *socket; /* a path; this and its folder are set before the filter */
    int folder;
    _Atomic uint64_t refused;
} wall = {.folder = -1};

/* ---- the handler ---- */

typedef struct call {
    long number;
    uint64_t arg[4];
} call;

#if defined(__x86_64__)
enum { HAS_HANDLER = 1 };
static call call_of(const ucontext_t *u)
{
    const greg_t *g = u->uc_mcontext.gregs;
    return (call){.number = (long)g[REG_RAX],
                  .arg = {(uint64_t)g[REG_RDI], (uint64_t)g[REG_RSI], (uint64_t)g[REG_RDX],
                          (uint64_t)g[REG_R10]}};
}

static void answer(ucontext_t *u, long value)
{
    u->uc_mcontext.gregs[REG_RAX] = value;
}
#elif defined(__aarch64__)
enum { HAS_HANDLER = 1 };
static call call_of(const ucontext_t *u)
{
    const mcontext_t *m = &u->uc_mcontext;
    return (call){.number = (long)m->regs[8],
                  .arg = {m->regs[0], m->regs[1], m->regs[2], m->regs[3]}};
}

static void answer(ucontext_t *u, long value)
{
    u->uc_mcontext.regs[0] = (unsigned long long)value;
}
#else
enum { HAS_HANDLER = 0 };
static call call_of(const ucontext_t *u)
{
    (void)u;
    return (call){0};
}

static void answer(ucontext_t *u, long value)
{
    (void)u;
    (void)value;
}
#endif

static const char *name_of(long number)
{
    static const struct {
        long number;
        const char *name;
    } names[] = {
#define CP_REFUSED(name) {SYS_##name, #name},
#include "base/syscalls.def"
        {SYS_openat, "openat"},
        {SYS_newfstatat, "stat"},
        {SYS_unlinkat, "unlink"},
        {SYS_socket, "socket"},
        {SYS_kill, "kill"},
        {SYS_mprotect, "mprotect"},
        {SYS_mmap, "mmap"},
        {SYS_prctl, "prctl"},
        {SYS_ioctl, "ioctl"},
        {SYS_memfd_create, "memfd_create"},
#if defined(__x86_64__)
        {SYS_open, "open"},
        {SYS_stat, "stat"},
        {SYS_unlink, "unlink"},
        {SYS_access, "access"},
        {SYS_readlink, "readlink"},
#endif
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].number == number)
            return names[i].name;
    return NULL;
}

/* The path that a call names; NULL: it is none of those that are looked at. */
static const char *path_of(const call *c)
{
#ifdef SYS_unlink
    if (c->number == SYS_unlink)
        return (const char *)(uintptr_t)c->arg[0];
#endif
    bool names =
        c->number == SYS_openat || c->number == SYS_newfstatat || c->number == SYS_unlinkat;
    return names ? (const char *)(uintptr_t)c->arg[1] : NULL;
}

/* A file that may be read is opened or looked at; the socket's path is looked at or removed. False:
 * the call may not be made. *rc: what it returns, -errno where it fails. */
static bool make(const call *c, const char *path, long *rc)
{
    bool ours = wall.socket && strcmp(path, wall.socket) == 0;
    bool reads = (c->arg[2] & (O_ACCMODE | O_CREAT | O_TRUNC)) == O_RDONLY;
    unsigned long folder = (unsigned)wall.folder, at = LOOKED_AT;
    if (c->number == SYS_openat && reads && cp_sandbox_may_read(path))
        *rc = syscall(SYS_openat, at, path, c->arg[2], 0);
    else if (c->number == SYS_newfstatat && cp_sandbox_may_read(path))
        *rc = syscall(SYS_newfstatat, at, path, c->arg[2], c->arg[3]);
    else if (c->number == SYS_newfstatat && ours)
        *rc = syscall(SYS_newfstatat, folder, cp_path_base(path), c->arg[2], c->arg[3]);
    else if (c->number != SYS_openat && c->number != SYS_newfstatat && ours)
        *rc = syscall(SYS_unlinkat, folder, cp_path_base(path), 0);
    else
        return false;
    *rc = *rc < 0 ? -errno : *rc;
    return true;
}

static void refuse(const call *c)
{
    const char *name = name_of(c->number);
    char number[32], path[128] = "";
    atomic_fetch_add_explicit(&wall.refused, 1, memory_order_relaxed); /* a statistic */
    cp_snprintf(number, sizeof(number), "number %ld", c->number);
    if (path_of(c))
        cp_snprintf(path, sizeof(path), " of %.100s", path_of(c));
    cp_log(CP_LOG_WARN, "sandbox: refused the system call %s%s", name ? name : number, path);
}

/* It comes in the thread that called, between two of its instructions: the log may be used where
 * what it uses makes no call that is refused. */
static void on_refused(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    ucontext_t *u = context;
    call c = call_of(u);
    (void)number;
    c.number = info->si_syscall;
    const char *path = path_of(&c);
    long rc = -EPERM;
    if (!path || !make(&c, path, &rc))
        refuse(&c);
    answer(u, rc);
    errno = saved;
}

/* ---- the filter ---- */

typedef struct rule {
    const char *name;
    unsigned n;
    struct scmp_arg_cmp arg[ARGS_MAX];
} rule;

/* Conditions on argument n; int arguments come with the upper half zero. */
#define ARG(n, o, a, b)                                                                            \
    {                                                                                              \
        .arg = (n), .op = (o), .datum_a = (a), .datum_b = (b)                                      \
    }
#define ARG_IS(n, value)           ARG(n, SCMP_CMP_EQ, (uint32_t)(value), 0)
#define ARG_IS_NOT(n, value)       ARG(n, SCMP_CMP_NE, (uint32_t)(value), 0)
#define ARG_MASKED(n, mask, value) ARG(n, SCMP_CMP_MASKED_EQ, (mask), (value))

/* A call that this kernel's architecture does not have needs no rule. */
static int add(scmp_filter_ctx f, uint32_t action, const rule *r)
{
    int number = seccomp_syscall_resolve_name(r->name);
    return number == __NR_SCMP_ERROR ? 0 : seccomp_rule_add_array(f, action, number, r->n, r->arg);
}

static int allow_serving(scmp_filter_ctx f)
{
#define N_ARGS(...) (sizeof((struct scmp_arg_cmp[]){__VA_ARGS__}) / sizeof(struct scmp_arg_cmp))
    const rule rules[] = {
#define CP_CALL(call)         {.name = #call},
#define CP_CALL_IF(call, ...) {.name = #call, .n = N_ARGS(__VA_ARGS__), .arg = {__VA_ARGS__}},
#include "base/syscalls.def"
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof(rules) / sizeof(rules[0]); i++)
        rc = add(f, SCMP_ACT_ALLOW, &rules[i]);
    const rule process = {"clone", 1, {ARG_MASKED(0, CLONE_THREAD, 0)}};
    rc = rc ? rc : add(f, SCMP_ACT_ERRNO(ENOSYS), &(rule){.name = "clone3"});
    return rc ? rc : add(f, SCMP_ACT_ERRNO(EPERM), &process);
}

/* Beside a GPU's driver: what is forbidden; sockets of the machine itself stay, and files. A rule
 * has one condition an argument, so families of sockets are rules of their own. */
static int forbid(scmp_filter_ctx f)
{
    const rule rules[] = {
#define CP_REFUSED(call) {.name = #call},
#include "base/syscalls.def"
        {"socket", 1, {ARG(0, SCMP_CMP_GT, AF_NETLINK, 0)}},
        {"kill", 1, {ARG_IS_NOT(0, getpid())}},
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof(rules) / sizeof(rules[0]); i++)
        rc = add(f, SCMP_ACT_TRAP, &rules[i]);
    for (int family = AF_UNIX + 1; rc == 0 && family < AF_NETLINK; family++)
        rc = add(f, SCMP_ACT_TRAP, &(rule){"socket", 1, {ARG_IS(0, family)}});
    return rc;
}

/* The folder stays open: by it alone the path can be named afterwards. */
static void set_socket(const char *path)
{
    char folder[PATH_BYTES] = ".";
    size_t n = path ? (size_t)(cp_path_base(path) - path) : 0;
    if (!path || n >= sizeof(folder))
        return;
    if (n > 0) {
        memcpy(folder, path, n);
        folder[n] = '\0';
    }
    wall.folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    wall.socket = wall.folder < 0 ? NULL : path;
}

static int load(bool device)
{
    scmp_filter_ctx f = seccomp_init(device ? SCMP_ACT_ALLOW : SCMP_ACT_TRAP);
    if (!f)
        return -ENOMEM;
    int rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
    /* Calls by other numbers than this architecture's: nothing here makes one. */
    rc = rc ? rc : seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(EPERM));
    rc = rc ? rc : seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, OPTIMIZE_TREE);
    rc = rc ? rc : device ? forbid(f) : allow_serving(f);
    rc = rc ? rc : seccomp_load(f); /* sets no_new_privs first */
    seccomp_release(f);
    return rc;
}

/*
 * When the heap of a thread's arena shrinks for the first time, glibc's malloc reads whether memory
 * may be given back (/proc/sys/vm/overcommit_memory). That can be a free() of glibc's own at the
 * end of a detached thread, when every signal is blocked: no handler would look at the path, and
 * the process would be killed. So a heap shrinks here.
 */
static void *shrink_heap(void *arg)
{
    enum { BLOCKS = 8, BYTES = 100 << 10 /* less than what malloc maps */ };
    void *block[BLOCKS];
    (void)arg;
    for (int i = 0; i < BLOCKS; i++)
        block[i] = cp_xcalloc(1, BYTES);
    for (int i = 0; i < BLOCKS; i++)
        free(block[i]);
    return NULL;
}

/* What reads a file at its first use does so now: times in the log, under a lock that the handler
 * would wait for, libcrypto, and malloc. */
static void read_early(void)
{
    uint8_t digest[32];
    pthread_t thread;
    tzset();
    cp_sha256_of("", 0, digest);
    if (pthread_create(&thread, NULL, shrink_heap, NULL) == 0)
        pthread_join(thread, NULL);
}

/* See sandbox.h. */
cp_code cp_sandbox_calls(const cp_sandbox_config *cfg, cp_err *why)
{
    struct sigaction ours = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (!HAS_HANDLER)
        return cp_fail(why, CP_UNSUPPORTED, "no filter of system calls for this processor");
    if (CP_INSTRUMENTED)
        return cp_fail(why, CP_UNSUPPORTED,
                       "this build is instrumented, and makes calls of its own");
    if (cp_fault_fails("seccomp"))
        return cp_fail(why, CP_UNSUPPORTED, "the kernel has no seccomp filters");
    sigemptyset(&ours.sa_mask);
    read_early();
    set_socket(cfg->socket);
    int rc = sigaction(SIGSYS, &ours, NULL) == 0 ? load(cfg->device) : -errno;
    return rc == 0 ? CP_OK
                   : cp_fail(why, CP_UNSUPPORTED, "no filter of system calls: %s", strerror(-rc));
}

/* See sandbox.h. */
uint64_t cp_sandbox_refused(void)
{
    return atomic_load_explicit(&wall.refused, memory_order_relaxed);
}
