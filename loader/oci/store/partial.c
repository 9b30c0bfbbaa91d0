/*
 * Partial blobs on disk. Beside the data, <hex>: <hex>.map, a header and two bitmaps of units, and
 * <hex>.lock, held by flock while a process works on it (a file of its own: the data is renamed,
 * and a lock on a renamed inode would guard another name).
 *
 * Bitmap `live` is written when a unit is: the page cache survives a killed process, so it is true
 * until the machine reboots, which the boot id in the header tells. Bitmap `synced` gets a copy of
 * it after each fdatasync of the data, so its bits are true at any time, whatever order the disk
 * wrote things in. A blob of one unit has no map: there is nothing to resume.
 *
 * What another user began is begun anew: he may still write into it, and his map says what he
 * likes. Where the file system has no locks a process works under a name of its own,
 * <hex>.<random>, and leaves nothing to resume.
 */
#include "loader/oci/store/partial.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/trust.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/blobs_dir.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_MAX_BYTES = CP_DIGEST_STR + 32, LOCK_TRIES = 16 };

typedef struct map_header {
    char magic[8];
    char boot[40]; /* the kernel's boot id when `live` was begun */
    uint8_t digest[32];
    uint64_t size;
    uint64_t inode; /* of the data file */
} map_header;

static const char map_magic[8] = "CPMAP1\n";

struct cp_partial {
    const cp_layout *l;
    cp_descriptor d; /* digest and size only */
    char hex[CP_HEX_STR];
    char name[NAME_MAX_BYTES]; /* of the data file; hex, unless it cannot be locked */
    int dir, lock, fd, map;    /* map: -1 for a blob of one unit; lock: -1 without locks */
    uint64_t n_units, n_bytes_map;
    pthread_mutex_t mutex; /* guards what follows, written by the marking and the syncing thread */
    uint8_t *live, *synced;
    uint64_t n_live;
    bool dir_synced;
};

static cp_code io(cp_err *err, const cp_partial *p, const char *call)
{
    return cp_fail(err, CP_IO, "%s/capstan/partial/%s: %s: %s", p->l->path, p->hex, call,
                   strerror(errno));
}

static void file_name(char out[NAME_MAX_BYTES], const char *base, const char *suffix)
{
    cp_snprintf(out, NAME_MAX_BYTES, "%s%s", base, suffix);
}

static bool bit(const uint8_t *map, uint64_t i)
{
    return map[i / 8] >> (i % 8) & 1;
}

static uint64_t unit_bytes(const cp_partial *p, uint64_t unit)
{
    return unit + 1 < p->n_units ? CP_UNIT : p->d.size - unit * CP_UNIT;
}

static void boot_id(char out[40])
{
    memset(out, 0, 40);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : cp_io_read(fd, out, 36);
    cp_io_close(fd);
    if (n != 36) /* unknown: equal to no other, so nothing but `synced` is trusted */
        cp_snprintf(out, 40, "unknown-%ld", (long)getpid());
}

/*
 * The lock file, locked: *fd >= 0 with CP_FLOCK_HELD alone. CP_FLOCK_FAILED with ENOENT: not there
 * and !make. Who removes the files removes the lock file first and lets go then, so a lock counts
 * only while its file is the one that the name means.
 */
static cp_flock_state lock_try(int dir, const char *hex, bool make, int *fd)
{
    char name[NAME_MAX_BYTES];
    file_name(name, hex, ".lock");
    *fd = -1;
    for (int i = 0; i < LOCK_TRIES; i++) {
        struct stat mine, named;
        int lock = cp_fs_lock_file(dir, name, make);
        if (lock < 0)
            return CP_FLOCK_FAILED;
        cp_flock_state state = cp_fs_flock(lock, LOCK_EX | LOCK_NB);
        if (state == CP_FLOCK_HELD && fstat(lock, &mine) == 0 &&
            fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && mine.st_ino == named.st_ino) {
            *fd = lock;
            return CP_FLOCK_HELD;
        }
        int saved = errno;
        close(lock);
        if (state == CP_FLOCK_NONE && make)
            unlinkat(dir, name, 0); /* of no use to anybody */
        errno = saved;
        if (state != CP_FLOCK_HELD)
            return state;
    }
    return CP_FLOCK_BUSY;
}

/* With `lock` the lock file goes too: the caller holds it and is done. */
static void unlink_files(int dir, const char *base, bool lock)
{
    static const char *const suffixes[] = {"", ".map", ".map.tmp", ".lock"};
    char name[NAME_MAX_BYTES];
    for (size_t i = 0; i < (lock ? 4u : 3u); i++) {
        file_name(name, base, suffixes[i]);
        unlinkat(dir, name, 0);
    }
}

/* A new sidecar from the bitmaps as they are; durable: an older one must not come back. */
static cp_code map_create(cp_partial *p, bool durable, cp_err *err)
{
    char temp[NAME_MAX_BYTES], name[NAME_MAX_BYTES];
    map_header h = {.size = p->d.size};
    struct stat st;
    if (p->n_units <= 1)
        return CP_OK;
    file_name(temp, p->name, ".map.tmp");
    file_name(name, p->name, ".map");
    if (fstat(p->fd, &st) != 0)
        return io(err, p, "fstat");
    memcpy(h.magic, map_magic, sizeof(h.magic));
    memcpy(h.digest, p->d.raw, 32);
    boot_id(h.boot);
    h.inode = st.st_ino;
    unlinkat(p->dir, temp, 0);
    /* Nobody else's to write, whatever the umask: its bits are believed. */
    int fd = openat(p->dir, temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return io(err, p, "create map");
    if (!cp_io_pwrite(fd, &h, sizeof(h), 0) ||
        !cp_io_pwrite(fd, p->live, p->n_bytes_map, sizeof(h)) ||
        !cp_io_pwrite(fd, p->synced, p->n_bytes_map, sizeof(h) + p->n_bytes_map) ||
        (durable && !cp_fs_sync(fd)) || renameat(p->dir, temp, p->dir, name) != 0 ||
        (durable && !cp_fs_sync(p->dir))) {
        cp_code code = io(err, p, "write map");
        close(fd);
        return code;
    }
    cp_io_close(p->map);
    p->map = fd;
    return CP_OK;
}

/* A bitmap of n bytes at byte `at` of the sidecar. */
static bool read_bits(int fd, uint8_t *bits, uint64_t n, uint64_t at)
{
    return cp_io_pread(fd, bits, n, at) == (ssize_t)n;
}

/* Read the sidecar into the bitmaps. False: there is none that fits; *was says whether any is
 * there, *rebooted whether `live` was replaced by `synced`. */
static bool map_load(cp_partial *p, const struct stat *data, bool *was, bool *rebooted)
{
    char name[NAME_MAX_BYTES], boot[40];
    map_header h;
    struct stat st;
    file_name(name, p->name, ".map");
    *rebooted = false;
    p->map = openat(p->dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    *was = p->map >= 0 || errno != ENOENT;
    if (p->map < 0)
        return false;
    bool ok = cp_fd_trusted(p->map) && data->st_uid == geteuid() && fstat(p->map, &st) == 0 &&
              (uint64_t)st.st_size == sizeof(h) + 2 * p->n_bytes_map &&
              cp_io_pread(p->map, &h, sizeof(h), 0) == sizeof(h) &&
              memcmp(h.magic, map_magic, sizeof(h.magic)) == 0 &&
              memcmp(h.digest, p->d.raw, 32) == 0 && h.size == p->d.size &&
              h.inode == data->st_ino && (uint64_t)data->st_size == p->d.size &&
              read_bits(p->map, p->live, p->n_bytes_map, sizeof(h)) &&
              read_bits(p->map, p->synced, p->n_bytes_map, sizeof(h) + p->n_bytes_map);
    if (!ok) {
        close(p->map);
        p->map = -1;
        return false;
    }
    boot_id(boot);
    *rebooted = memcmp(boot, h.boot, sizeof(boot)) != 0;
    if (*rebooted)
        memcpy(p->live, p->synced, p->n_bytes_map);
    return true;
}

/* The data file: opened or made, of the right size, its space reserved. */
static cp_code data_open(cp_partial *p, struct stat *st, cp_err *err)
{
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    p->fd = openat(p->dir, p->name, flags, 0666);
    bool stranger = p->fd < 0
                        ? errno == EACCES
                        : fstat(p->fd, st) == 0 && S_ISREG(st->st_mode) && st->st_uid != geteuid();
    if (stranger) { /* begun anew; what we make may still not be ours, on some network mounts */
        cp_io_close(p->fd);
        unlink_files(p->dir, p->name, false);
        p->fd = openat(p->dir, p->name, flags | O_EXCL, 0666);
    }
    if (p->fd < 0)
        return io(err, p, "open");
    if (fstat(p->fd, st) != 0 || !S_ISREG(st->st_mode))
        return cp_fail(err, CP_CORRUPT, "%s/capstan/partial/%s is no regular file", p->l->path,
                       p->name);
    return CP_OK;
}

static cp_code data_reserve(cp_partial *p, cp_err *err)
{
    off_t size = (off_t)p->d.size;
    if (ftruncate(p->fd, size) != 0)
        return io(err, p, "ftruncate");
    if (size == 0 || fallocate(p->fd, 0, 0, size) == 0)
        return CP_OK;
    if (errno == ENOSPC || errno == EDQUOT)
        return cp_fail(err, CP_IO, "%s: no space for %" PRIu64 " bytes of %s: %s", p->l->path,
                       p->d.size, p->d.digest, strerror(errno));
    return CP_OK; /* a file system that cannot reserve */
}

static cp_code open_locked(cp_partial *p, cp_err *err)
{
    struct stat st;
    bool was = false, rebooted = false, loaded = false;
    cp_code code = data_open(p, &st, err);
    if (code)
        return code;
    if (p->n_units > 1)
        loaded = map_load(p, &st, &was, &rebooted);
    if (!loaded) {
        memset(p->live, 0, p->n_bytes_map);
        memset(p->synced, 0, p->n_bytes_map);
    }
    code = data_reserve(p, err);
    if (code && !loaded)
        unlink_files(p->dir, p->name, p->lock >= 0);
    if (!code && (!loaded || rebooted))
        code = map_create(p, was, err);
    for (uint64_t i = 0; i < p->n_units; i++)
        p->n_live += bit(p->live, i);
    return code;
}

/* The lock, or a name of our own where there are none. */
static cp_code take(cp_partial *p, bool *busy, cp_err *err)
{
    uint64_t rnd = 0;
    switch (lock_try(p->dir, p->hex, true, &p->lock)) {
    case CP_FLOCK_HELD:
        return CP_OK;
    case CP_FLOCK_BUSY:
        *busy = true;
        return CP_OK;
    case CP_FLOCK_NONE:
        if (getrandom(&rnd, sizeof(rnd), 0) != sizeof(rnd))
            return io(err, p, "getrandom");
        cp_snprintf(p->name, sizeof(p->name), "%s.%016" PRIx64, p->hex, rnd);
        return CP_OK;
    case CP_FLOCK_FAILED:
        break;
    }
    return io(err, p, "lock");
}

/* See partial.h. */
cp_code cp_partial_open(cp_partial **out, const cp_layout *l, const cp_descriptor *d, bool *busy,
                        cp_err *err)
{
    *out = NULL;
    *busy = false;
    CP_ASSERT(d->sha256);
    if (d->size > CP_BLOB_MAX)
        return cp_fail(err, CP_CORRUPT, "%s claims %" PRIu64 " bytes, the limit is %" PRIu64,
                       d->digest, d->size, (uint64_t)CP_BLOB_MAX);
    cp_partial *p = cp_xcalloc(1, sizeof(*p));
    pthread_mutex_init(&p->mutex, NULL);
    p->l = l;
    p->lock = p->fd = p->map = -1;
    memcpy(p->d.digest, d->digest, sizeof(p->d.digest));
    memcpy(p->d.raw, d->raw, sizeof(p->d.raw));
    p->d.sha256 = true;
    p->d.size = d->size;
    cp_digest_hex(d->raw, p->hex);
    p->n_units = (d->size + CP_UNIT - 1) / CP_UNIT;
    p->n_bytes_map = (p->n_units + 7) / 8;
    p->live = cp_xcalloc(p->n_bytes_map + 1, 1);
    p->synced = cp_xcalloc(p->n_bytes_map + 1, 1);
    cp_strcopy(p->name, sizeof(p->name), p->hex);
    p->dir = cp_blobs_partial(l, true);
    cp_code code = p->dir >= 0
                       ? take(p, busy, err)
                       : cp_fail(err, CP_IO, "%s/capstan/partial: %s", l->path, strerror(errno));
    if (!code && !*busy)
        code = open_locked(p, err);
    if (code || *busy)
        cp_partial_close(p);
    else
        *out = p;
    return code;
}

/* See partial.h. */
void cp_partial_close(cp_partial *p)
{
    if (!p)
        return;
    if (p->fd >= 0 && p->lock < 0) /* nobody could take it up; published, the name is gone */
        unlink_files(p->dir, p->name, false);
    const int fds[] = {p->map, p->fd, p->lock, p->dir}; /* the lock after what it guards */
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        cp_io_close(fds[i]);
    pthread_mutex_destroy(&p->mutex);
    free(p->live);
    free(p->synced);
    free(p);
}

/* See partial.h. */
void cp_partial_remove(cp_partial *p)
{
    if (p)
        unlink_files(p->dir, p->name, p->lock >= 0);
    cp_partial_close(p);
}

/* See partial.h. */
int cp_partial_fd(const cp_partial *p)
{
    return p->fd;
}

/* See partial.h. */
uint64_t cp_partial_units(const cp_partial *p)
{
    return p->n_units;
}

/* See partial.h. */
bool cp_partial_has(const cp_partial *p, uint64_t unit)
{
    CP_ASSERT(unit < p->n_units);
    return bit(p->live, unit);
}

/* See partial.h. */
uint64_t cp_partial_done(const cp_partial *p)
{
    if (p->n_units == 0)
        return 0;
    uint64_t last = p->n_units - 1;
    return p->n_live * CP_UNIT - (bit(p->live, last) ? CP_UNIT - unit_bytes(p, last) : 0);
}

/* See partial.h. */
cp_code cp_partial_write(cp_partial *p, uint64_t at, const void *bytes, size_t n, cp_err *err)
{
    CP_ASSERT(at <= p->d.size && n <= p->d.size - at);
    return cp_io_pwrite(p->fd, bytes, n, at) ? CP_OK : io(err, p, "write");
}

/* See partial.h. */
cp_code cp_partial_mark(cp_partial *p, uint64_t unit, cp_err *err)
{
    CP_ASSERT(unit < p->n_units);
    if (bit(p->live, unit))
        return CP_OK;
    pthread_mutex_lock(&p->mutex);
    p->live[unit / 8] = (uint8_t)(p->live[unit / 8] | 1u << (unit % 8));
    p->n_live++;
    uint8_t byte = p->live[unit / 8];
    pthread_mutex_unlock(&p->mutex);
    if (p->map >= 0 && !cp_io_pwrite(p->map, &byte, 1, sizeof(map_header) + unit / 8))
        return io(err, p, "write map");
    return CP_OK;
}

/* See partial.h. */
cp_code cp_partial_sync(cp_partial *p, cp_err *err)
{
    if (p->map < 0)
        return CP_OK;
    uint8_t *now = malloc(p->n_bytes_map);
    if (!now)
        return cp_fail(err, CP_NO_MEMORY, "%s: no memory for its map", p->d.digest);
    pthread_mutex_lock(&p->mutex);
    memcpy(now, p->live, p->n_bytes_map);
    pthread_mutex_unlock(&p->mutex);
    cp_code code = CP_OK;
    if (fdatasync(p->fd) != 0 || (!p->dir_synced && !cp_fs_sync(p->dir)))
        code = io(err, p, "fdatasync");
    else if (!cp_io_pwrite(p->map, now, p->n_bytes_map, sizeof(map_header) + p->n_bytes_map) ||
             fdatasync(p->map) != 0)
        code = io(err, p, "write map");
    if (!code) {
        p->dir_synced = true;
        memcpy(p->synced, now, p->n_bytes_map);
    }
    free(now);
    return code;
}

/* See partial.h. */
cp_code cp_partial_reset(cp_partial *p, cp_err *err)
{
    pthread_mutex_lock(&p->mutex);
    memset(p->live, 0, p->n_bytes_map);
    memset(p->synced, 0, p->n_bytes_map);
    p->n_live = 0;
    pthread_mutex_unlock(&p->mutex);
    return map_create(p, true, err);
}

/* See partial.h. */
cp_code cp_partial_publish(cp_partial *p, const cp_places *places, cp_err *err)
{
    int blobs = cp_blobs_dir(p->l);
    if (blobs < 0)
        return cp_fail(err, CP_IO, "%s/blobs/sha256: %s", p->l->path, strerror(errno));
    cp_code code = CP_OK;
    bool kept = false;
    cp_fault_point("fsync");
    if (!cp_fs_sync(p->fd))
        code = io(err, p, "fsync");
    if (!code) {
        cp_fault_point("rename");
        bool renamed = renameat2(p->dir, p->name, blobs, p->hex, RENAME_NOREPLACE) == 0;
        /* There is one already, or the file system cannot tell: a verified one stays, any other
         * gives way to bytes that are known to be right. */
        if (!renamed && (errno == EEXIST || errno == EINVAL || errno == ENOSYS)) {
            kept = cp_blob_recorded(p->l, &p->d, places);
            renamed = kept || renameat(p->dir, p->name, blobs, p->hex) == 0;
        }
        if (!renamed || !cp_fs_sync(blobs))
            code = io(err, p, "rename");
    }
    close(blobs);
    if (code)
        return code;
    cp_fault_point("renamed");
    if (!kept) {
        char name[CP_RECORD_NAME];
        cp_record_name_blob(name, p->d.raw);
        cp_record_write(places, name, p->fd, p->d.raw);
    }
    unlink_files(p->dir, p->name, p->lock >= 0);
    return CP_OK;
}

/* See partial.h. */
void cp_partial_peek(const cp_layout *l, const cp_descriptor *d, uint64_t *done,
                     uint64_t *allocated)
{
    char hex[CP_HEX_STR], name[NAME_MAX_BYTES];
    struct stat st;
    *done = *allocated = 0;
    int dir = cp_blobs_partial(l, false);
    if (dir < 0)
        return;
    cp_digest_hex(d->raw, hex);
    if (fstatat(dir, hex, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
        *allocated = (uint64_t)st.st_blocks * 512;
    file_name(name, hex, ".map");
    int map = cp_fs_open(dir, name);
    uint64_t n_units = (d->size + CP_UNIT - 1) / CP_UNIT, n = 0;
    for (uint64_t at = 0; map >= 0 && at < (n_units + 7) / 8;) {
        uint8_t chunk[4096];
        size_t want = (n_units + 7) / 8 - at < sizeof(chunk) ? (size_t)((n_units + 7) / 8 - at)
                                                             : sizeof(chunk);
        if (cp_io_pread(map, chunk, want, sizeof(map_header) + at) != (ssize_t)want)
            break;
        for (size_t i = 0; i < want; i++)
            n += (uint64_t)__builtin_popcount(chunk[i]);
        at += want;
    }
    cp_io_close(map);
    close(dir);
    *done = n * CP_UNIT < d->size ? n * CP_UNIT : d->size;
}

/* See partial.h. */
bool cp_partial_sweep(int dir, const char *hex, bool keep, uint64_t *bytes)
{
    struct stat st;
    if (dir < 0)
        return false;
    int lock;
    cp_flock_state state = lock_try(dir, hex, !keep, &lock);
    bool mine = state == CP_FLOCK_HELD || (state == CP_FLOCK_FAILED && errno == ENOENT);
    if (mine && fstatat(dir, hex, &st, AT_SYMLINK_NOFOLLOW) == 0)
        *bytes += (uint64_t)st.st_blocks * 512;
    if (mine && !keep)
        unlink_files(dir, hex, true);
    cp_io_close(lock);
    return mine;
}
