/*
 * This file is the wall of files and of TCP: Landlock, by its bare system calls (glibc has none for
 * it). What the kernel's version of it cannot restrict is left out of the ruleset: a kernel that
 * knows version 3, for example, is asked for everything about files, and for nothing about TCP.
 * See landlock(7).
 *
 * Files below /proc exist while somebody has them open: a rule about one would be forgotten with
 * it. So what the rules name is kept open, by descriptors that can do nothing but name (O_PATH).
 */
#include "base/sandbox.h"

#include "base/fault.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's header ends at version 2. */
#define FS_TRUNCATE      (UINT64_C(1) << 14)
#define FS_IOCTL_DEV     (UINT64_C(1) << 15)
#define NET_TCP          UINT64_C(3) /* bind, connect */
#define SCOPE_ABSTRACT   UINT64_C(1) /* abstract Unix sockets of processes outside */
#define ALL_OF_VERSION_1 ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)
#define OF_FILES                                                                                   \
    (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |   \
     FS_TRUNCATE | FS_IOCTL_DEV)
#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE                                                                                      \
    (READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |                          \
     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | FS_TRUNCATE | FS_IOCTL_DEV)

enum { TCP_VERSION = 4, SCOPES_VERSION = 6, DIR_MAX_BYTES = 4096 };

/* What landlock_create_ruleset takes, as of version 6; older kernels are given its beginning. */
typedef struct ruleset_attr {
    uint64_t files, net, scoped;
} ruleset_attr;

/* What serving reads again and again: nothing in them is of another process. */
static const char *const kernel_files[] = {
    "/proc/self",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/pressure",
    "/proc/sys/vm/overcommit_memory", /* malloc, once: may it give memory back? */
    "/sys/fs/cgroup",
    "/sys/devices/system",
    "/sys/kernel/mm/transparent_hugepage",
};
enum { N_KERNEL_FILES = sizeof(kernel_files) / sizeof(kernel_files[0]) };

/* What a GPU's driver opens beside its devices. */
static const struct {
    const char *path;
    uint64_t rights;
} driver_files[] = {
    {"/usr", READ},
    {"/lib", READ},
    {"/lib64", READ},
    {"/opt", READ},
    {"/etc", READ},
    {"/proc", READ},
    {"/sys", READ},
    {"/run/nvidia-persistenced", WRITE},
    {"/tmp/nvidia-mps", WRITE},
    {"/dev/shm", WRITE},
    {"/dev/dri", WRITE},
    {"/dev/dxg", WRITE},
    {"/dev/null", WRITE},
    {"/dev/zero", WRITE},
    {"/dev/urandom", READ},
};

static uint64_t files_of(int version)
{
    static const uint64_t added[] = {
        [2] = LANDLOCK_ACCESS_FS_REFER, [3] = FS_TRUNCATE, [4] = 0, [5] = FS_IOCTL_DEV};
    uint64_t all = ALL_OF_VERSION_1;
    for (size_t i = 2; i < sizeof(added) / sizeof(added[0]) && (int)i <= version; i++)
        all |= added[i];
    return all;
}

/* A ruleset that is being filled. */
typedef struct rules {
    int fd;
    uint64_t handled;
} rules;

/* What is not there needs no rule; what lies below it later is not allowed. */
static void allow(const rules *r, const char *path, uint64_t rights)
{
    struct stat st;
    int fd = path && *path ? open(path, O_PATH | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
        rights &= OF_FILES;
    struct landlock_path_beneath_attr beneath = {.allowed_access = rights & r->handled,
                                                 .parent_fd = fd};
    (void)syscall(SYS_landlock_add_rule, r->fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
    /* The descriptor stays open: see above. */
}

/* Each folder of a list with colons between. */
static void allow_each(const rules *r, const char *list)
{
    char part[DIR_MAX_BYTES];
    while (list && *list) {
        size_t n = strcspn(list, ":");
        if (n < sizeof(part)) {
            memcpy(part, list, n);
            part[n] = '\0';
            allow(r, part, READ);
        }
        list += n + (list[n] != '\0');
    }
}

/* The folder that a path lies in, ".", where it names none. False: it is too long. */
static bool folder_of(const char *path, char out[DIR_MAX_BYTES])
{
    const char *slash = strrchr(path, '/');
    size_t n = !slash ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (n >= DIR_MAX_BYTES)
        return false;
    memcpy(out, n ? path : ".", n ? n : 1);
    out[n ? n : 1] = '\0';
    return true;
}

static void allow_folder_of(const rules *r, const char *path, uint64_t rights)
{
    char folder[DIR_MAX_BYTES];
    if (path && *path && folder_of(path, folder))
        allow(r, folder, rights);
}

/* /dev/nvidia0, /dev/nvidiactl, /dev/nvidia-uvm, /dev/nvidia-caps/ ... */
static void allow_devices(const rules *r)
{
    char path[sizeof("/dev/") + 256];
    DIR *d = opendir("/dev");
    for (struct dirent *e; d && (e = readdir(d));)
        if (strncmp(e->d_name, "nvidia", 6) == 0) {
            cp_snprintf(path, sizeof(path), "/dev/%s", e->d_name);
            allow(r, path, WRITE);
        }
    if (d)
        closedir(d);
}

static void allow_driver(const rules *r)
{
    char cache[DIR_MAX_BYTES];
    const char *home = getenv("HOME");
    for (size_t i = 0; i < sizeof(driver_files) / sizeof(driver_files[0]); i++)
        allow(r, driver_files[i].path, driver_files[i].rights);
    allow_devices(r);
    allow_each(r, getenv("LD_LIBRARY_PATH"));
    allow_folder_of(r, getenv("CAPSTAN_LIBCUDA"), READ);
    allow_folder_of(r, getenv("CAPSTAN_LIBCUBLAS"), READ);
    allow(r, getenv("CUDA_CACHE_PATH"), WRITE);
    if (home && cp_snprintf(cache, sizeof(cache), "%s/.nv", home) < sizeof(cache))
        allow(r, cache, WRITE);
}

/* See sandbox.h. */
int cp_sandbox_files(const cp_sandbox_config *cfg, cp_err *why)
{
    if (CP_INSTRUMENTED) {
        cp_fail(why, CP_UNSUPPORTED, "this build is instrumented, and opens files of its own");
        return 0;
    }
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1 || cp_fault_fails("landlock")) {
        cp_fail(why, CP_UNSUPPORTED,
                "the kernel has no Landlock (Linux 5.13 and newer, and its "
                "list of security modules must name it)");
        return 0;
    }
    rules r = {.handled = files_of((int)version)};
    ruleset_attr attr = {.files = r.handled,
                         .net = version >= TCP_VERSION ? NET_TCP : 0,
                         .scoped = version >= SCOPES_VERSION ? SCOPE_ABSTRACT : 0};
    size_t bytes = version >= SCOPES_VERSION ? sizeof(attr)
                   : version >= TCP_VERSION  ? offsetof(ruleset_attr, scoped)
                                             : offsetof(ruleset_attr, net);
    r.fd = (int)syscall(SYS_landlock_create_ruleset, &attr, bytes, 0);
    if (r.fd < 0) {
        cp_fail(why, CP_UNSUPPORTED, "Landlock %ld: no ruleset: %s", version, strerror(errno));
        return 0;
    }
    for (size_t i = 0; i < N_KERNEL_FILES; i++)
        allow(&r, kernel_files[i], READ);
    if (cfg->device)
        allow_driver(&r);
    allow_folder_of(&r, cfg->socket, LANDLOCK_ACCESS_FS_REMOVE_FILE);
    bool done = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                syscall(SYS_landlock_restrict_self, r.fd, 0) == 0;
    if (!done)
        cp_fail(why, CP_UNSUPPORTED, "Landlock %ld: %s", version, strerror(errno));
    close(r.fd);
    return done ? (int)version : 0;
}

/* See sandbox.h. */
bool cp_sandbox_may_read(const char *path)
{
    if (strstr(path, "/.."))
        return false;
    for (size_t i = 0; i < N_KERNEL_FILES; i++) {
        size_t n = strlen(kernel_files[i]);
        if (strncmp(path, kernel_files[i], n) == 0 && (path[n] == '\0' || path[n] == '/'))
            return true;
    }
    return false;
}

/* See sandbox.h. Bit 4 alone: the first page of mapped ELF files, which names their build. */
bool cp_sandbox_bare_cores(void)
{
    static const char filter[] = "0x10\n";
    int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, filter, sizeof(filter) - 1) == sizeof(filter) - 1;
    if (fd >= 0)
        close(fd);
    return done;
}
