/*
 * Temporary files, their locks and their end. A file is locked right after it is made, so one
 * without a lock that is a minute old has lost its writer. Where the file system has no locks a
 * day must pass. Names hold the process and a random number, ".capstan-tmp-4711-1f9c03aa" for
 * example.
 */
#include "loader/oci/store/tempfile.h"
#include "base/io.h"
#include "base/mem.h"
#include "loader/oci/store/fsys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char temp_prefix[] = ".capstan-tmp-";

/* See tempfile.h. */
bool cp_temp_open(int dir, char name[CP_TEMP_NAME], int *fd)
{
    uint64_t rnd = 0;
    if (getrandom(&rnd, sizeof(rnd), 0) != sizeof(rnd))
        return false;
    cp_snprintf(name, CP_TEMP_NAME, "%s%d-%016" PRIx64, temp_prefix, (int)getpid(), rnd);
    *fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*fd >= 0)
        flock(*fd, LOCK_EX | LOCK_NB); /* as long as it is open: see is_left */
    return *fd >= 0;
}

/* Rename unless there is a file of that name: then the temporary one goes, and that is fine. Where
 * the file system cannot do both at once, it is looked up before. */
static bool rename_new(int dir, const char *temp, const char *name)
{
    if (renameat2(dir, temp, dir, name, RENAME_NOREPLACE) == 0)
        return true;
    bool lacks = errno == EINVAL || errno == ENOSYS;
    if (errno == EEXIST || (lacks && faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0))
        return unlinkat(dir, temp, 0) == 0;
    return lacks && renameat(dir, temp, dir, name) == 0;
}

/* See tempfile.h. */
bool cp_temp_publish(int dir, const char *temp, const char *name, int fd, bool replace)
{
    return cp_fs_sync(fd) &&
           (replace ? renameat(dir, temp, dir, name) == 0 : rename_new(dir, temp, name)) &&
           cp_fs_sync(dir);
}

/* See tempfile.h. */
bool cp_temp_write(int dir, const char *name, const void *p, size_t n, bool replace)
{
    char temp[CP_TEMP_NAME];
    int fd;
    if (!cp_temp_open(dir, temp, &fd))
        return false;
    bool ok = cp_io_write(fd, p, n) && cp_temp_publish(dir, temp, name, fd, replace);
    int saved = errno;
    if (!ok)
        unlinkat(dir, temp, 0);
    close(fd);
    errno = saved;
    return ok;
}

/* Nobody writes it: its lock is free. Where there are no locks, `unsure` says. */
static bool is_left(int dir, const char *name, bool unsure)
{
    int fd = cp_fs_open(dir, name);
    bool left = fd >= 0 && (flock(fd, LOCK_EX | LOCK_NB) == 0 || (errno != EWOULDBLOCK && unsure));
    cp_io_close(fd);
    return left;
}

/* See tempfile.h. */
void cp_temp_sweep(int dir, int seconds, bool unsure, bool dry_run, uint64_t *bytes)
{
    cp_fs_list list = cp_fs_list_of(dir);
    time_t now = time(NULL);
    for (const char *name; (name = cp_fs_list_next(&list));) {
        struct stat st;
        if (strncmp(name, temp_prefix, strlen(temp_prefix)) == 0 &&
            fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            now - st.st_mtime > seconds && is_left(dir, name, unsure) &&
            (dry_run || unlinkat(dir, name, 0) == 0))
            *bytes += (uint64_t)st.st_size;
    }
    cp_fs_list_close(&list);
}
