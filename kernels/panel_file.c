/*
 * Files of packed weights; see panel_file.h.
 */
#include "kernels/panel_file.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/trust.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LISTED = 4096, MAX_TRIES = 16, UNLOCKED_STALE_S = 3600 };

static int lock(int fd, int how)
{
    if (cp_fault_fails("flock")) {
        errno = ENOTSUP;
        return -1;
    }
    return flock(fd, how | LOCK_NB);
}

/* The folder, if still nobody else can put files into it: its path was looked at before, and may
 * mean another one by now. -1 with errno. */
static int open_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && !cp_dir_fd_trusted(fd)) {
        close(fd);
        fd = -1;
        errno = EPERM;
    }
    return fd;
}

/* ---- reading ---- */

/* See panel_file.h. */
int cp_panel_file_open(const char *dir, const char *name, size_t bytes, cp_err *err)
{
    struct stat st;
    char path[4096];
    cp_snprintf(path, sizeof path, "%s/%s", dir, name);
    int in = open_dir(dir);
    int fd = in < 0 ? -1 : openat(in, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int failed = errno;
    if (in >= 0)
        close(in);
    if (fd < 0) {
        cp_fail(err, failed == ENOENT ? CP_NOT_FOUND : CP_IO, "%s: %s", path, strerror(failed));
        return -1;
    }
    if (fstat(fd, &st) != 0)
        cp_fail(err, CP_IO, "%s: %s", path, strerror(errno));
    else if (!cp_fd_trusted(fd))
        cp_fail(err, CP_IO,
                "%s: is not a plain file of this user or root that nobody else can write (owner "
                "%" PRIu64 ", mode %o)",
                path, (uint64_t)st.st_uid, (unsigned)st.st_mode);
    else if ((uint64_t)st.st_size != bytes)
        cp_fail(err, CP_IO, "%s: has %" PRId64 " bytes, not %zu", path, (int64_t)st.st_size, bytes);
    else {
        lock(fd, LOCK_SH);
        if (st.st_uid == geteuid())
            futimens(fd, NULL);
        return fd;
    }
    close(fd);
    return -1;
}

/* ---- sweeping ---- */

/* "….panels.….tmp": ours, and that of releases which wrote their pid there. */
static bool is_temp(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".tmp") == 0 && strstr(name, ".panels.");
}

/* Nobody writes it: its lock is free. Without locks, nobody wrote it for an hour; taking it away
 * from someone who does costs him its name only. */
static bool is_stale(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    if (lock(fd, LOCK_EX) == 0)
        return true;
    return errno != EWOULDBLOCK && time(NULL) - st.st_mtime > UNLOCKED_STALE_S;
}

/* See panel_file.h. */
void cp_panel_files_sweep(const char *dir)
{
    const struct dirent *e;
    DIR *d = opendir(dir);
    for (int i = 0; d && i < MAX_LISTED && (e = readdir(d)); i++) {
        if (!is_temp(e->d_name))
            continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd >= 0 && is_stale(fd) && unlinkat(dirfd(d), e->d_name, 0) == 0)
            cp_log(CP_LOG_INFO, "panels: removed %s/%s, left by a packing that was killed", dir,
                   e->d_name);
        if (fd >= 0)
            close(fd);
    }
    if (d)
        closedir(d);
}

/* ---- writing ---- */

/* A file with a temporary name, and its lock. Whoever sweeps may catch it between the two: then
 * another one. */
static int open_named(cp_panel_new *f)
{
    for (int i = 0; i < MAX_TRIES; i++) {
        struct stat st;
        uint32_t random = 0;
        if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
            random = (uint32_t)time(NULL) ^ (uint32_t)getpid();
        cp_snprintf(f->temp, sizeof f->temp, "%s.%08" PRIx32 ".tmp", f->name, random);
        int fd = openat(f->dir, f->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0 && errno == EEXIST)
            continue;
        if (fd < 0)
            return -1;
        cp_fault_point("named");
        bool locked = lock(fd, LOCK_EX) == 0, swept = !locked && errno == EWOULDBLOCK;
        if (!locked && !swept)
            cp_log(CP_LOG_WARN,
                   "panels: %s has no file locks: what a killed packing leaves there is removed "
                   "after an hour",
                   f->path);
        if (!swept && fstat(fd, &st) == 0 && st.st_nlink > 0)
            return fd;
        close(fd);
    }
    errno = EEXIST;
    return -1;
}

/* All blocks now, so that a full disk says so before the work; some file systems cannot. */
static int reserve(int fd, size_t bytes)
{
    struct rlimit limit;
    if (bytes > INT64_MAX ||
        (getrlimit(RLIMIT_FSIZE, &limit) == 0 && (uint64_t)bytes > (uint64_t)limit.rlim_cur))
        return EFBIG; /* writing on would be a signal */
    if (ftruncate(fd, (off_t)bytes) != 0)
        return errno;
    if (fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP && errno != ENOSYS &&
        errno != EINTR)
        return errno;
    return 0;
}

/* See panel_file.h. */
cp_code cp_panel_new_open(cp_panel_new *f, const char *dir, const char *name, size_t bytes,
                          cp_err *err)
{
    *f = (cp_panel_new){.path = dir, .dir = -1, .fd = -1};
    cp_strcopy(f->name, sizeof f->name, name);
    if (mkdir(dir, 0755) != 0 && errno != EEXIST)
        return cp_fail(err, CP_IO, "%s: cannot be made: %s", dir, strerror(errno));
    f->dir = open_dir(dir);
    if (f->dir < 0)
        return cp_fail(err, CP_IO, "%s: %s", dir, strerror(errno));
    if (!cp_fault_fails("tmpfile"))
        f->fd = openat(f->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
    if (f->fd < 0)
        f->fd = open_named(f);
    if (f->fd < 0) {
        f->temp[0] = '\0';
        cp_fail(err, CP_IO, "%s/%s: cannot be created: %s", dir, name, strerror(errno));
        cp_panel_new_close(f);
        return CP_IO;
    }
    cp_fault_point("created");
    int failed = reserve(f->fd, bytes);
    if (failed) {
        cp_fail(err, CP_IO, "%s/%s: cannot have %zu bytes: %s", dir, name, bytes, strerror(failed));
        cp_panel_new_close(f);
        return CP_IO;
    }
    cp_fault_point("reserved");
    return CP_OK;
}

/* A file without a name gets one. The first way needs a privilege, the second /proc. */
static int link_fd(const cp_panel_new *f)
{
    char proc[64];
    if (linkat(f->fd, "", f->dir, f->name, AT_EMPTY_PATH) == 0)
        return 0;
    if (errno == EEXIST)
        return EEXIST;
    cp_snprintf(proc, sizeof proc, "/proc/self/fd/%d", f->fd);
    return linkat(AT_FDCWD, proc, f->dir, f->name, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
}

/*
 * See panel_file.h. Links do not replace: the old name goes first. A kill in between leaves none,
 * which costs a packing, and so does a process that looks just then. A rename where somebody else
 * has just put his file replaces it by an equal one.
 */
int cp_panel_new_place(cp_panel_new *f, bool replace)
{
    int failed = EEXIST;
    if (f->temp[0]) {
        if (!replace && faccessat(f->dir, f->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            return EEXIST;
        if (renameat(f->dir, f->temp, f->dir, f->name) != 0)
            return errno;
        f->temp[0] = '\0';
        failed = 0;
    }
    lock(f->fd, LOCK_SH); /* it is in use from its first moment */
    for (int i = 0; failed == EEXIST && i < MAX_TRIES; i++) {
        failed = link_fd(f);
        if (failed != EEXIST || !replace)
            break;
        if (unlinkat(f->dir, f->name, 0) != 0 && errno != ENOENT)
            return errno;
        cp_fault_point("unlinked");
    }
    if (!failed)
        cp_fault_point("placed");
    return failed;
}

/* See panel_file.h. */
void cp_panel_new_close(cp_panel_new *f)
{
    if (f->temp[0])
        unlinkat(f->dir, f->temp, 0);
    if (f->fd >= 0)
        close(f->fd);
    if (f->dir >= 0)
        close(f->dir);
    f->temp[0] = '\0';
    f->dir = f->fd = -1;
}

/* ---- in this process ---- */

static int here_open(void *arg, const char *dir, const char *name, size_t bytes, cp_err *err)
{
    (void)arg;
    return cp_panel_file_open(dir, name, bytes, err);
}

static cp_code here_create(void *arg, cp_panel_new *f, const char *dir, const char *name,
                           size_t bytes, cp_err *err)
{
    (void)arg;
    return cp_panel_new_open(f, dir, name, bytes, err);
}

static int here_place(void *arg, cp_panel_new *f, bool replace)
{
    (void)arg;
    return cp_panel_new_place(f, replace);
}

static void here_close(void *arg, cp_panel_new *f)
{
    (void)arg;
    cp_panel_new_close(f);
}

static void here_sweep(void *arg, const char *dir)
{
    (void)arg;
    cp_panel_files_sweep(dir);
}

/* See panel_file.h. */
const cp_panel_door cp_panel_door_here = {.open = here_open,
                                          .create = here_create,
                                          .place = here_place,
                                          .close = here_close,
                                          .sweep = here_sweep};
