/*
 * Lease files and locks on mapped ones. A lease's name is the process and a random number; its
 * lock says whether that process lives, and not its number, which another may have by now. Its
 * text has a line of 64 hex digits a blob, for example
 *
 *     capstan/leases/4711-6f1ee3a9c2d40b57
 *     ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
 *
 * A lease that cannot be read keeps every blob.
 */
#include "loader/oci/store/lease.h"
#include "base/io.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/fsys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

enum { MAX_LEASES = 4096 };

/* Add the digests of one lease file, a line of hex each; void ones are removed, unless keep. */
static void collect_lease(int dir, const char *name, bool keep, cp_digest_set *s)
{
    char text[64 * 65];
    int fd = cp_fs_lock_file(dir, name, false);
    if (fd < 0) {
        s->incomplete = s->incomplete || errno != ENOENT;
        return;
    }
    if (cp_fs_flock(fd, LOCK_EX | LOCK_NB) == CP_FLOCK_HELD) {
        if (!keep)
            unlinkat(dir, name, 0);
        close(fd);
        return;
    }
    for (size_t round = 0; round < CP_DIGEST_SET_MAX / 64; round++) {
        ssize_t n = cp_io_read(fd, text, sizeof(text));
        if (n == 0)
            break;
        if (n < 0 || n % 65 != 0) {
            s->incomplete = true;
            break;
        }
        for (ssize_t i = 0; i < n; i += 65) {
            uint8_t raw[32];
            if (cp_digest_of_hex(text + i, raw))
                cp_digest_set_add(s, raw);
            else
                s->incomplete = true;
        }
    }
    close(fd);
}

/* See lease.h. */
void cp_lease_mark(const cp_layout *l, bool keep, cp_digest_set *s)
{
    int dir = cp_layout_own(l, "leases", false);
    if (dir < 0 && errno == ENOENT)
        return;
    cp_fs_list list = cp_fs_list_take(dir);
    s->incomplete = s->incomplete || !list.d;
    for (const char *name; (name = cp_fs_list_next(&list));) {
        if (list.n > MAX_LEASES) {
            s->incomplete = true;
            break;
        }
        if (name[0] != '.')
            collect_lease(list.dir, name, keep, s);
    }
    cp_fs_list_close(&list);
}

/* See lease.h. */
cp_code cp_lease_take(cp_lease *out, const cp_layout *l, const cp_digest_set *digests, cp_err *err)
{
    uint64_t rnd = 0;
    cp_buf text = {0};
    *out = (cp_lease){.fd = -1};
    out->dir = cp_layout_own(l, "leases", true);
    for (size_t i = 0; i < digests->n; i++) {
        char hex[CP_HEX_STR];
        cp_digest_hex(digests->d[i], hex);
        cp_buf_printf(&text, "%s\n", hex);
    }
    bool ok = out->dir >= 0 && !text.failed && getrandom(&rnd, sizeof(rnd), 0) == sizeof(rnd);
    cp_snprintf(out->name, sizeof(out->name), "%d-%016" PRIx64, (int)getpid(), rnd);
    if (ok)
        out->fd = openat(out->dir, out->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    ok = ok && out->fd >= 0 && cp_fs_flock(out->fd, LOCK_EX) != CP_FLOCK_FAILED &&
         cp_io_write(out->fd, text.p, text.n);
    cp_buf_fini(&text);
    if (ok)
        return CP_OK;
    cp_code code =
        cp_fail(err, CP_IO, "%s/capstan/leases/%s: %s", l->path, out->name, strerror(errno));
    cp_lease_drop(out);
    return code;
}

/* See lease.h. */
void cp_lease_drop(cp_lease *lease)
{
    if (lease->fd >= 0) {
        unlinkat(lease->dir, lease->name, 0);
        close(lease->fd);
    }
    cp_io_close(lease->dir);
    lease->fd = lease->dir = -1;
}

/* See lease.h. */
void cp_lease_hold(int fd)
{
    flock(fd, LOCK_SH | LOCK_NB);
}

/* See lease.h. */
bool cp_lease_is_held(int fd)
{
    char path[64];
    cp_flock_state state = cp_fs_flock(fd, LOCK_EX | LOCK_NB);
    if (state == CP_FLOCK_FAILED && errno == EBADF) { /* NFS: only on what is open for writing */
        cp_snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int again = open(path, O_RDWR | O_CLOEXEC);
        state = again < 0 ? CP_FLOCK_FAILED : cp_fs_flock(again, LOCK_EX | LOCK_NB);
        cp_io_close(again);
    }
    return state != CP_FLOCK_HELD;
}
