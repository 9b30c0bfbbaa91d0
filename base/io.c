/*
 * These functions are the loops around read and write. A write of 0 bytes where some were asked for
 * would loop for ever, so it counts as an error of the device (EIO).
 */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { READ_CHUNK = 65536 };

ssize_t cp_io_read(int fd, void *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t k = read(fd, (char *)p + done, n - done);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        if (k == 0)
            break;
        done += (size_t)k;
    }
    return (ssize_t)done;
}

ssize_t cp_io_pread(int fd, void *p, size_t n, uint64_t at)
{
    size_t done = 0;
    while (done < n) {
        ssize_t k = pread(fd, (char *)p + done, n - done, (off_t)(at + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        if (k == 0)
            break;
        done += (size_t)k;
    }
    return (ssize_t)done;
}

/* May a write that returned k be repeated with what is left? Sets errno where it may not. */
static bool goes_on(ssize_t k)
{
    if (k == 0)
        errno = EIO;
    return k > 0 || (k < 0 && errno == EINTR);
}

bool cp_io_write(int fd, const void *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = write(fd, (const char *)p + done, n - done);
        if (!goes_on(k))
            return false;
        done += k > 0 ? (size_t)k : 0;
    }
    return true;
}

bool cp_io_pwrite(int fd, const void *p, size_t n, uint64_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = pwrite(fd, (const char *)p + done, n - done, (off_t)(at + done));
        if (!goes_on(k))
            return false;
        done += k > 0 ? (size_t)k : 0;
    }
    return true;
}

void cp_io_close(int fd)
{
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
}

cp_code cp_fd_read(int fd, const char *name, size_t max, cp_buf *out, cp_err *err)
{
    for (size_t total = 0;;) {
        if (!cp_buf_reserve(out, READ_CHUNK))
            return cp_fail(err, CP_NO_MEMORY, "%s: no memory after %zu bytes", name, total);
        ssize_t n = cp_io_read(fd, out->p + out->n, READ_CHUNK);
        if (n < 0)
            return cp_fail(err, CP_IO, "%s: %s after %zu bytes", name, strerror(errno), total);
        total += (size_t)n;
        if (total > max)
            return cp_fail(err, CP_TOO_LARGE, "%s: larger than %zu bytes", name, max);
        out->n += (size_t)n;
        out->p[out->n] = '\0';
        if (n < READ_CHUNK)
            return CP_OK;
    }
}

cp_code cp_file_read(const char *path, size_t max, cp_buf *out, cp_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cp_fail(err, errno == ENOENT ? CP_NOT_FOUND : CP_IO, "%s: %s", path,
                       strerror(errno));
    cp_code code = cp_fd_read(fd, path, max, out, err);
    close(fd);
    return code;
}
