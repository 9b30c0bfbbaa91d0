/*
 * File systems that lack something. NFS without its lock daemon says ENOLCK, FUSE and some network
 * file systems EOPNOTSUPP or ENOSYS. A folder's fsync is refused with EINVAL by several. Each kind
 * of lack is said once a process.
 */
#include "loader/oci/store/fsys.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NO_LOCKS = 1, NO_SYNC = 2 };

static void warn_once(unsigned what, const char *text)
{
    static _Atomic unsigned told;
    if (!(atomic_fetch_or(&told, what) & what))
        cp_log(CP_LOG_WARN, "%s", text);
}

/* See fsys.h. */
cp_flock_state cp_fs_flock(int fd, int operation)
{
    while (flock(fd, operation) != 0) {
        if (errno == EINTR)
            continue;
        if (errno == EWOULDBLOCK)
            return CP_FLOCK_BUSY;
        if (errno != ENOLCK && errno != EOPNOTSUPP && errno != ENOSYS)
            return CP_FLOCK_FAILED;
        warn_once(NO_LOCKS, "a file system has no locks (flock): what other processes use there "
                            "cannot be known, so nothing is deleted; let one process at a time "
                            "write to the store");
        return CP_FLOCK_NONE;
    }
    return CP_FLOCK_HELD;
}

/* See fsys.h. */
int cp_fs_open(int dir, const char *name)
{
    return dir < 0 ? -1 : openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* See fsys.h. */
int cp_fs_open_folder(int dir, const char *name)
{
    return dir < 0 ? -1 : openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

/* See fsys.h. */
cp_fs_list cp_fs_list_take(int dir)
{
    cp_fs_list l = {.d = dir < 0 ? NULL : fdopendir(dir), .dir = dir};
    if (!l.d) {
        cp_io_close(dir);
        l.dir = -1;
    }
    return l;
}

/* See fsys.h. */
cp_fs_list cp_fs_list_of(int dir)
{
    return cp_fs_list_take(cp_fs_open_folder(dir, "."));
}

/* See fsys.h. */
const char *cp_fs_list_next(cp_fs_list *l)
{
    const struct dirent *e;
    while (l->d && l->n < CP_FS_LISTED_MAX && (e = readdir(l->d))) {
        l->n++;
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            return e->d_name;
    }
    return NULL;
}

/* See fsys.h. */
void cp_fs_list_close(cp_fs_list *l)
{
    if (l->d)
        closedir(l->d);
    *l = (cp_fs_list){.dir = -1};
}

/* See fsys.h. */
int cp_fs_make_folder(int dir, const char *name, unsigned mode)
{
    int why = mkdirat(dir, name, mode) == 0 ? 0 : errno;
    int fd = cp_fs_open_folder(dir, name);
    if (fd < 0 && errno == ENOENT && why)
        errno = why;
    return fd;
}

/* See fsys.h. */
int cp_fs_lock_file(int dir, const char *name, bool make)
{
    const int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int fd = openat(dir, name, O_RDWR | flags | (make ? O_CREAT : 0), 0666);
    if (fd < 0 && (errno == EACCES || (errno == EROFS && !make))) { /* another user's */
        int why = errno; /* also why it cannot be made, where it is not there */
        fd = openat(dir, name, O_RDONLY | flags);
        if (fd < 0 && errno == ENOENT && make)
            errno = why;
    }
    return fd;
}

/* See fsys.h. */
bool cp_fs_sync(int fd)
{
    if (fsync(fd) == 0)
        return true;
    if (errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
        return false;
    warn_once(NO_SYNC, "a file system cannot be told to bring a folder to the disk (fsync): a "
                       "power cut may lose what was stored last");
    return true;
}
