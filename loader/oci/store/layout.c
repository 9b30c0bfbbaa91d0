/*
 * The image-layout's files. Crash safety: a blob or an index is written under a temporary name,
 * fsynced, renamed, and the folder fsynced; a crash leaves at most a temporary file, which gc
 * removes, and the next import once it is a day old.
 */
#include "loader/oci/store/layout.h"
#include "base/io.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    COPY_CHUNK = 4 << 20,
    TEMP_NAME = 64,
    STALE_SECONDS = 24 * 3600,
    LEFT_SECONDS = 60, /* longer than between a file's making and its lock */
};
static const char temp_prefix[] = ".capstan-tmp-";
static const char not_followed[] = "links are not followed there: put what it leads to in its "
                                   "place (`cp -rL` copies a layout so)";

static cp_code io(cp_err *err, const cp_layout *l, const char *name, const char *call)
{
    return cp_fail(err, CP_IO, "%s/%s: %s: %s", l->path, name, call, strerror(errno));
}

/* A regular file of the layout, at most max bytes, whole. */
static cp_code read_small(const cp_layout *l, int dir, const char *name, size_t max, cp_buf *out,
                          cp_err *err)
{
    int fd = cp_fs_open(dir, name);
    if (fd < 0)
        return errno == ENOENT  ? cp_fail(err, CP_NOT_FOUND, "%s has no %s", l->path, name)
               : errno == ELOOP ? cp_fail(err, CP_CORRUPT, "%s/%s is a symbolic link, and %s",
                                          l->path, name, not_followed)
               : errno == EACCES || errno == EPERM
                   ? cp_fail(err, CP_CORRUPT, "%s/%s cannot be read: %s", l->path, name,
                             strerror(errno))
                   : io(err, l, name, "open");
    struct stat st;
    cp_code code = CP_OK;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        code = cp_fail(err, CP_CORRUPT, "%s/%s is no regular file", l->path, name);
    else if ((uint64_t)st.st_size > max)
        code = cp_fail(err, CP_CORRUPT, "%s/%s has %lld bytes, the limit is %zu", l->path, name,
                       (long long)st.st_size, max);
    else if ((code = cp_fd_read(fd, name, max, out, err)) == CP_TOO_LARGE)
        code = cp_fail(err, CP_CORRUPT, "%s/%s grew while it was read", l->path, name);
    else if (code)
        cp_err_prefix(err, "%s", l->path);
    close(fd);
    return code;
}

/* A file that is renamed into place later; its mode is what the umask leaves of 0666. */
static bool temp_open(int dir, char name[TEMP_NAME], int *fd)
{
    uint64_t rnd = 0;
    if (getrandom(&rnd, sizeof(rnd), 0) != sizeof(rnd))
        return false;
    cp_snprintf(name, TEMP_NAME, "%s%d-%016" PRIx64, temp_prefix, (int)getpid(), rnd);
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

/* fsync and rename a temporary file into place, then fsync its folder. errno on failure. */
static bool temp_publish(int dir, const char *temp, const char *name, int fd, bool replace)
{
    return cp_fs_sync(fd) &&
           (replace ? renameat(dir, temp, dir, name) == 0 : rename_new(dir, temp, name)) &&
           cp_fs_sync(dir);
}

static cp_code write_atomic(const cp_layout *l, int dir, const char *name, const void *p, size_t n,
                            bool replace, cp_err *err)
{
    char temp[TEMP_NAME];
    int fd;
    if (!temp_open(dir, temp, &fd))
        return io(err, l, name, "create");
    cp_code code = CP_OK;
    if (!cp_io_write(fd, p, n) || !temp_publish(dir, temp, name, fd, replace)) {
        code = io(err, l, name, "write");
        unlinkat(dir, temp, 0);
    }
    close(fd);
    return code;
}

/* See layout.h. */
cp_code cp_layout_check(const cp_layout *l, cp_err *err)
{
    cp_buf b = {0};
    cp_code code = read_small(l, l->dir, "oci-layout", 4096, &b, err);
    if (code == CP_NOT_FOUND)
        code = cp_fail(err, CP_CORRUPT, "%s is no OCI image-layout: it has no oci-layout file",
                       l->path);
    else if (!code && (code = cp_layout_version_check(b.p ? b.p : "", b.n, err)))
        cp_err_prefix(err, "%s", l->path);
    cp_buf_fini(&b);
    return code;
}

/* See layout.h. */
cp_code cp_layout_open(cp_layout *l, const char *path, cp_err *err)
{
    l->dir = -1;
    l->owned = false;
    if (!cp_strcopy(l->path, sizeof(l->path), path))
        return cp_fail(err, CP_USAGE, "path is longer than %d bytes", CP_DIR_MAX - 1);
    l->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (l->dir < 0)
        return errno == ENOENT ? cp_fail(err, CP_NOT_FOUND, "%s: no such directory", path)
               : errno == ENOTDIR
                   ? cp_fail(err, CP_CORRUPT, "%s is no directory, so no OCI image-layout", path)
                   : cp_fail(err, CP_IO, "%s: %s", path, strerror(errno));
    cp_code code = cp_layout_check(l, err);
    if (!code)
        code = cp_layout_blobs_check(l, err);
    if (code)
        cp_layout_close(l);
    return code;
}

/* See layout.h. */
void cp_layout_close(cp_layout *l)
{
    cp_io_close(l->dir);
    l->dir = -1;
}

/* See layout.h. */
cp_code cp_layout_index(const cp_layout *l, cp_index **out, cp_buf *raw, cp_err *err)
{
    cp_buf own = {0}, *b = raw ? raw : &own;
    *out = NULL;
    cp_code code = read_small(l, l->dir, "index.json", CP_MANIFEST_MAX_BYTES, b, err);
    if (code == CP_NOT_FOUND)
        code =
            cp_fail(err, CP_CORRUPT,
                    "%s has no index.json, so what its blobs belong to is unknown; nothing in it "
                    "is touched",
                    l->path);
    else if (!code && (code = cp_index_parse(out, b->p ? b->p : "", b->n, err)))
        cp_err_prefix(err, "%s/index.json", l->path);
    cp_buf_fini(&own);
    return code;
}

/* See layout.h. */
cp_code cp_layout_index_write(const cp_layout *l, const char *json, size_t n, cp_err *err)
{
    return write_atomic(l, l->dir, "index.json", json, n, true, err);
}

/* See layout.h. */
cp_code cp_layout_file_new(const cp_layout *l, const char *name, const char *text, size_t n,
                           cp_err *err)
{
    return write_atomic(l, l->dir, name, text, n, false, err);
}

static bool is_link(int dir, const char *name)
{
    struct stat st;
    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

/* Does the `blobs` of a store lead elsewhere? */
static bool is_linked(const cp_layout *l)
{
    return l->owned && is_link(l->dir, "blobs");
}

/* What the link `blobs` leads to; -1 with errno, EPERM for a link that anybody else has made, EXDEV
 * where it leads into another layout, whose blobs they are. */
static int linked_blobs(const cp_layout *l)
{
    struct stat st, above, own;
    if (fstatat(l->dir, "blobs", &st, AT_SYMLINK_NOFOLLOW) != 0)
        return -1;
    if (st.st_uid != geteuid() && st.st_uid != 0) {
        errno = EPERM;
        return -1;
    }
    int fd = openat(l->dir, "blobs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstatat(fd, "../oci-layout", &st, AT_SYMLINK_NOFOLLOW) != 0)
        return fd;
    if (fstatat(fd, "..", &above, 0) == 0 && fstat(l->dir, &own) == 0 &&
        above.st_dev == own.st_dev && above.st_ino == own.st_ino)
        return fd; /* a folder beside it, in this very store */
    close(fd);
    errno = EXDEV;
    return -1;
}

/* The folder blobs; -1 with errno. */
static int blobs_open(const cp_layout *l)
{
    int fd = cp_fs_open_folder(l->dir, "blobs");
    return fd < 0 && errno != ENOENT && is_linked(l) ? linked_blobs(l) : fd;
}

/* See layout.h. */
int cp_layout_blobs_dir(const cp_layout *l)
{
    int blobs = blobs_open(l);
    if (blobs < 0)
        return -1;
    int dir = cp_fs_open_folder(blobs, "sha256");
    cp_io_close(blobs);
    return dir;
}

/* Why the link `blobs` of a store is not followed, or cannot be. */
static cp_code link_failed(const cp_layout *l, int why, cp_err *err)
{
    char to[200] = "";
    ssize_t n = readlinkat(l->dir, "blobs", to, sizeof(to) - 1);
    to[n > 0 ? n : 0] = '\0';
    return why == EPERM
               ? cp_fail(err, CP_CORRUPT,
                         "%s/blobs is a symbolic link that neither this user nor root made",
                         l->path)
           : why == EXDEV
               ? cp_fail(
                     err, CP_CORRUPT,
                     "%s/blobs is a symbolic link into another layout, '%s', whose blobs gc and "
                     "rm would remove; let it lead to a folder of this store's own",
                     l->path, to)
               : cp_fail(err, CP_IO, "%s/blobs is a symbolic link to '%s': %s%s", l->path, to,
                         strerror(why), why == ENOENT ? " (is its disk mounted?)" : "");
}

/* Why blobs/sha256 could not be opened: what is in its place. */
static cp_code blobs_failed(const cp_layout *l, int why, cp_err *err)
{
    static const char *const names[] = {"blobs", "blobs/sha256"};
    if (is_linked(l)) {
        int fd = linked_blobs(l);
        if (fd < 0)
            return link_failed(l, errno, err);
        close(fd);
    }
    for (size_t i = is_linked(l) ? 1 : 0; i < 2; i++) {
        struct stat st;
        if (fstatat(l->dir, names[i], &st, AT_SYMLINK_NOFOLLOW) != 0)
            break;
        if (S_ISLNK(st.st_mode))
            return cp_fail(err, CP_CORRUPT, "%s/%s is a symbolic link, and %s", l->path, names[i],
                           not_followed);
        if (!S_ISDIR(st.st_mode))
            return cp_fail(err, CP_CORRUPT, "%s/%s is no folder, so there are no blobs", l->path,
                           names[i]);
    }
    return cp_fail(err, CP_IO, "%s/blobs/sha256: %s", l->path, strerror(why));
}

/* See layout.h. */
cp_code cp_layout_blobs_check(const cp_layout *l, cp_err *err)
{
    int fd = cp_layout_blobs_dir(l), why = errno;
    cp_io_close(fd);
    if (fd >= 0 || (why == ENOENT && !is_linked(l)))
        return CP_OK;
    if (why == ENOENT) { /* a link to an empty folder will do */
        fd = linked_blobs(l);
        cp_io_close(fd);
    }
    return fd >= 0 ? CP_OK : blobs_failed(l, why, err);
}

static int own_dir(const cp_layout *l, const char *name, bool make)
{
    int own =
        make ? cp_fs_make_folder(l->dir, "capstan", 0777) : cp_fs_open_folder(l->dir, "capstan");
    if (own < 0)
        return -1;
    int dir = make ? cp_fs_make_folder(own, name, 0777) : cp_fs_open_folder(own, name);
    cp_io_close(own);
    return dir;
}

/* See layout.h. */
int cp_layout_own_dir(const cp_layout *l, const char *name)
{
    return own_dir(l, name, false);
}

/* See layout.h. */
int cp_layout_own_make(const cp_layout *l, const char *name)
{
    return own_dir(l, name, true);
}

/* ---- blobs behind a link ---- */

enum { ID_DIGITS = 32, ID_BYTES = ID_DIGITS + 1 + CP_DIR_MAX };

/* The first cap-1 bytes of a file of dir; "" when there is none. */
static void read_id(int dir, const char *name, char *text, size_t cap)
{
    int fd = cp_fs_open(dir, name);
    ssize_t n = fd < 0 ? 0 : cp_io_read(fd, text, cap - 1);
    text[n > 0 ? n : 0] = '\0';
    cp_io_close(fd);
}

/* Write an id, and what follows it, unless one is there, and read what is there then. */
static cp_code write_id(const cp_layout *l, int dir, const char *name, char *text, size_t cap,
                        cp_err *err)
{
    cp_code code = write_atomic(l, dir, name, text, strlen(text), false, err);
    read_id(dir, name, text, cap);
    return code;
}

/* Is the store at `path` another one than l, whose `blobs` leads to the same folder? */
static bool shares_blobs(const cp_layout *l, int blobs, const char *path)
{
    struct stat mine, its, folder, its_folder;
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool yes = dir >= 0 && fstat(dir, &its) == 0 && fstat(l->dir, &mine) == 0 &&
               (its.st_dev != mine.st_dev || its.st_ino != mine.st_ino) &&
               fstat(blobs, &folder) == 0 && fstatat(dir, "blobs", &its_folder, 0) == 0 &&
               its_folder.st_dev == folder.st_dev && its_folder.st_ino == folder.st_ino;
    cp_io_close(dir);
    return yes;
}

/* A folder that has no id: write ours to both places. *theirs becomes what stands there then. */
static cp_code claim_new(const cp_layout *l, int own, int blobs, char mine[ID_DIGITS + 1],
                         char theirs[ID_BYTES], cp_err *err)
{
    uint64_t rnd[2];
    if (mine[0] && faccessat(blobs, "sha256", F_OK, AT_SYMLINK_NOFOLLOW) != 0)
        return cp_fail(err, CP_IO,
                       "%s/blobs leads to a folder without blobs, and it led to others (is its "
                       "disk mounted?); to begin anew there, remove capstan/blobs.id",
                       l->path);
    /* Before our own id, which says that it is there. */
    if (mkdirat(blobs, "sha256", 0777) != 0 && errno != EEXIST)
        return io(err, l, "blobs/sha256", "mkdir");
    if (getrandom(rnd, sizeof(rnd), 0) != sizeof(rnd))
        return io(err, l, "capstan/blobs.id", "getrandom");
    cp_snprintf(mine, ID_DIGITS + 1, "%016" PRIx64 "%016" PRIx64, rnd[0], rnd[1]);
    cp_code code = write_id(l, own, "blobs.id", mine, ID_DIGITS + 1, err);
    char *path = realpath(l->path, NULL);
    cp_snprintf(theirs, ID_BYTES, "%s%s%s", mine, path ? "\n" : "", path ? path : "");
    free(path);
    return code ? code : write_id(l, blobs, ".capstan-id", theirs, ID_BYTES, err);
}

/*
 * The folder behind the link belongs to one store: gc and rm of a second one would remove the
 * first one's blobs. An id in it, and the same in capstan/, tell whose it is, wherever the two are
 * mounted. A copy of a store has its id, too; so the path of the one that came first stands behind
 * it.
 */
static cp_code claim(const cp_layout *l, int blobs, cp_err *err)
{
    char theirs[ID_BYTES], mine[ID_DIGITS + 1];
    int own = own_dir(l, ".", true);
    cp_code code = own < 0 ? io(err, l, "capstan", "open") : CP_OK;
    read_id(blobs, ".capstan-id", theirs, sizeof(theirs));
    read_id(own, "blobs.id", mine, sizeof(mine));
    if (!code && !theirs[0])
        code = claim_new(l, own, blobs, mine, theirs, err);
    cp_io_close(own);
    char *path = strchr(theirs, '\n');
    if (path)
        *path++ = '\0';
    if (!code && strcmp(mine, theirs) != 0)
        code = cp_fail(err, CP_CORRUPT,
                       "%s/blobs is a symbolic link to the blobs of another store, which gc and rm "
                       "would remove (.capstan-id there is not capstan/blobs.id here); let it lead "
                       "to a folder of this store's own",
                       l->path);
    else if (!code && path && shares_blobs(l, blobs, path))
        code =
            cp_fail(err, CP_CORRUPT,
                    "%s/blobs is a symbolic link to the blobs of %s, of which this is a copy: gc "
                    "and rm would remove them; `cp -aL` copies a store with its blobs",
                    l->path, path);
    return code;
}

/* See layout.h. */
cp_code cp_layout_blobs_make(const cp_layout *l, cp_err *err)
{
    bool made = mkdirat(l->dir, "blobs", 0777) == 0 || errno == EEXIST;
    int blobs = made ? blobs_open(l) : -1;
    cp_code code = CP_OK;
    if (blobs < 0)
        return made ? blobs_failed(l, errno, err) : io(err, l, "blobs", "mkdir");
    if (is_linked(l))
        code = claim(l, blobs, err);
    if (!code && mkdirat(blobs, "sha256", 0777) != 0 && errno != EEXIST)
        code = io(err, l, "blobs/sha256", "mkdir");
    close(blobs);
    return code ? code : cp_layout_blobs_check(l, err);
}

/* See layout.h. */
int cp_layout_partial_dir(const cp_layout *l, bool make)
{
    if (!is_linked(l))
        return own_dir(l, "partial", make);
    int blobs = linked_blobs(l);
    if (blobs < 0)
        return -1;
    if (make)
        mkdirat(blobs, ".capstan-partial", 0777);
    int dir = cp_fs_open_folder(blobs, ".capstan-partial");
    cp_io_close(blobs);
    return dir;
}

/* See layout.h. */
int cp_layout_partial_left(const cp_layout *l)
{
    if (is_linked(l))
        return own_dir(l, "partial", false);
    int blobs = blobs_open(l);
    int dir = cp_fs_open_folder(blobs, ".capstan-partial");
    cp_io_close(blobs);
    return dir;
}

/* See layout.h. */
cp_code cp_layout_blob_open(const cp_layout *l, const uint8_t digest[32], int *fd, uint64_t *size,
                            cp_err *err)
{
    char hex[CP_HEX_STR];
    cp_digest_hex(digest, hex);
    *size = 0;
    int dir = cp_layout_blobs_dir(l);
    *fd = cp_fs_open(dir, hex);
    int saved = errno;
    cp_io_close(dir);
    if (dir < 0 && saved != ENOENT)
        return blobs_failed(l, saved, err);
    if (*fd < 0)
        return saved == ENOENT
                   ? cp_fail(err, CP_NOT_FOUND, "%s: blob sha256:%s is missing", l->path, hex)
               : saved == ELOOP
                   ? cp_fail(err, CP_CORRUPT, "%s/blobs/sha256/%s is a symbolic link, and %s",
                             l->path, hex, not_followed)
                   : cp_fail(err, CP_IO, "%s: blob sha256:%s: %s", l->path, hex, strerror(saved));
    struct stat st;
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        *fd = -1;
        return cp_fail(err, CP_CORRUPT, "%s: blob sha256:%s is no regular file", l->path, hex);
    }
    *size = (uint64_t)st.st_size;
    return CP_OK;
}

/* See layout.h. */
cp_code cp_layout_blob_of(const cp_layout *l, const cp_descriptor *d, int *fd, cp_err *err)
{
    uint64_t size;
    cp_code code = cp_layout_blob_open(l, d->raw, fd, &size, err);
    if (!code && size != d->size) {
        close(*fd);
        *fd = -1;
        code =
            cp_fail(err, CP_CORRUPT, "%s: %s has %" PRIu64 " bytes, its descriptor says %" PRIu64,
                    l->path, d->digest, size, d->size);
    }
    return code;
}

/* See layout.h. */
cp_code cp_layout_blob_read(const cp_layout *l, const cp_descriptor *d, cp_buf *out, cp_err *err)
{
    if (!d->sha256)
        return cp_fail(err, CP_CORRUPT, "%s: a digest is not sha256, which alone is built",
                       l->path);
    if (d->size > CP_MANIFEST_MAX_BYTES)
        return cp_fail(err, CP_CORRUPT, "%s: %s claims %" PRIu64 " bytes, the limit is %d", l->path,
                       d->digest, d->size, CP_MANIFEST_MAX_BYTES);
    int fd;
    cp_code code = cp_layout_blob_of(l, d, &fd, err);
    if (code)
        return code;
    size_t start = out->n;
    code = cp_fd_read(fd, d->digest, (size_t)d->size, out, err);
    if (code == CP_TOO_LARGE)
        code = cp_fail(err, CP_CORRUPT, "%s: %s grew while it was read", l->path, d->digest);
    else if (code)
        cp_err_prefix(err, "%s", l->path);
    close(fd);
    uint8_t have[32];
    cp_sha256_of(out->p ? out->p + start : "", out->n - start, have);
    if (!code && memcmp(have, d->raw, 32) != 0) {
        char text[CP_DIGEST_STR];
        cp_digest_format(have, text);
        code = cp_fail(err, CP_CORRUPT, "%s: blob has digest %s, expected %s", l->path, text,
                       d->digest);
    }
    return code;
}

static void describe(cp_descriptor *d, const uint8_t raw[32], uint64_t size)
{
    memcpy(d->raw, raw, 32);
    cp_digest_format(raw, d->digest);
    d->sha256 = true;
    d->size = size;
}

/* See layout.h. */
cp_code cp_layout_blob_put(const cp_layout *l, const void *p, size_t n, cp_descriptor *d,
                           cp_err *err)
{
    uint8_t raw[32];
    char hex[CP_HEX_STR];
    cp_sha256_of(p, n, raw);
    describe(d, raw, n);
    cp_digest_hex(raw, hex);
    int dir = cp_layout_blobs_dir(l);
    if (dir < 0)
        return io(err, l, "blobs/sha256", "open");
    cp_code code = write_atomic(l, dir, hex, p, n, true, err);
    close(dir);
    return code;
}

/* Nobody writes it: its lock is free. Where there are no locks, `unsure` says. */
static bool is_left(int dir, const char *name, bool unsure)
{
    int fd = cp_fs_open(dir, name);
    bool left = fd >= 0 && (flock(fd, LOCK_EX | LOCK_NB) == 0 || (errno != EWOULDBLOCK && unsure));
    cp_io_close(fd);
    return left;
}

/* Temporary files of writers that died, `seconds` ago or more. */
static void sweep_temps(int dir, int seconds, bool unsure, bool dry_run, uint64_t *bytes)
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

/* See layout.h. */
void cp_layout_temps_sweep(const cp_layout *l, bool dry_run, uint64_t *bytes)
{
    int dir = cp_layout_blobs_dir(l);
    if (dir < 0)
        return;
    sweep_temps(dir, LEFT_SECONDS, false, dry_run, bytes);
    close(dir);
}

/* Bytes [at, at + n) from src to dst: in the kernel while *ranges holds, else through buf. Returns
 * bytes, 0 at the end, -1 with errno. */
static ssize_t copy_chunk(int src, int dst, uint64_t at, size_t n, bool *ranges, uint8_t *buf)
{
    loff_t from = (loff_t)at, to = (loff_t)at;
    if (*ranges) {
        ssize_t k = copy_file_range(src, &from, dst, &to, n, 0);
        if (k > 0 ||
            (k < 0 && errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP))
            return k;
        *ranges = false; /* not between these file systems; some return 0 for that */
    }
    ssize_t k = cp_io_pread(src, buf, n, at);
    return k > 0 && !cp_io_pwrite(dst, buf, (size_t)k, at) ? -1 : k;
}

/* Fill dst with src's size bytes and hash what arrived in dst. */
static cp_code copy_hashed(const cp_layout *l, int src, int dst, uint64_t size,
                           cp_progress_fn *progress, void *arg, uint8_t digest[32], cp_err *err)
{
    uint8_t *buf = malloc(COPY_CHUNK);
    if (!buf)
        return cp_fail(err, CP_NO_MEMORY, "%s: no memory to copy", l->path);
    bool cloned = ioctl(dst, FICLONE, src) == 0, ranges = true;
    cp_code code = CP_OK;
    if (!cloned && fallocate(dst, 0, 0, (off_t)size) != 0 && (errno == ENOSPC || errno == EDQUOT))
        code = cp_fail(err, CP_IO, "%s: no space for %" PRIu64 " bytes", l->path, size);
    cp_sha256 *h = cp_sha256_new();
    for (uint64_t at = 0; !code && at < size;) {
        size_t want = size - at < COPY_CHUNK ? (size_t)(size - at) : COPY_CHUNK;
        ssize_t n = cloned ? (ssize_t)want : copy_chunk(src, dst, at, want, &ranges, buf);
        if (n < 0 && errno == EINTR)
            continue;
        if (n > 0)
            n = cp_io_pread(dst, buf, (size_t)n, at);
        if (n < 0) {
            code = cp_fail(err, CP_IO, "%s: copy at %" PRIu64 ": %s", l->path, at, strerror(errno));
        } else if (n == 0) {
            code = cp_fail(err, CP_CORRUPT,
                           "file shrank to %" PRIu64 " of %" PRIu64 " bytes while it was copied",
                           at, size);
        } else {
            cp_sha256_add(h, buf, (size_t)n);
            at += (uint64_t)n;
            if (progress)
                progress(arg, "packing", at, size);
        }
    }
    cp_sha256_done(h, digest);
    free(buf);
    struct stat st;
    if (!code && (fstat(dst, &st) != 0 || (uint64_t)st.st_size != size))
        code = cp_fail(err, CP_CORRUPT, "file changed its size while it was copied");
    return code;
}

static void write_record(const cp_places *places, int fd, const uint8_t raw[32])
{
    char name[CP_RECORD_NAME];
    cp_record_name_blob(name, raw);
    cp_record_write(places, name, fd, raw);
}

/* See layout.h. */
cp_code cp_layout_blob_import(const cp_layout *l, int fd, uint64_t size, const cp_places *places,
                              cp_progress_fn *progress, void *arg, cp_descriptor *d, cp_err *err)
{
    char temp[TEMP_NAME], hex[CP_HEX_STR];
    uint8_t raw[32];
    int dir = cp_layout_blobs_dir(l), out = -1;
    if (dir < 0)
        return io(err, l, "blobs/sha256", "open");
    uint64_t ignored = 0;
    sweep_temps(dir, STALE_SECONDS, true, false, &ignored);
    sweep_temps(l->dir, STALE_SECONDS, true, false, &ignored);
    if (!temp_open(dir, temp, &out)) {
        cp_code code = io(err, l, "blobs/sha256", "create");
        close(dir);
        return code;
    }
    cp_code code = copy_hashed(l, fd, out, size, progress, arg, raw, err);
    if (!code) {
        describe(d, raw, size);
        cp_digest_hex(raw, hex);
        bool keep = cp_layout_blob_recorded(l, d, places);
        if (keep)
            unlinkat(dir, temp, 0);
        else if (!temp_publish(dir, temp, hex, out, true))
            code = io(err, l, hex, "publish");
        else
            write_record(places, out, raw);
    }
    if (code)
        unlinkat(dir, temp, 0);
    close(out);
    close(dir);
    return code;
}

/* See layout.h. */
bool cp_layout_blob_recorded(const cp_layout *l, const cp_descriptor *d, const cp_places *places)
{
    uint8_t recorded[32];
    char name[CP_RECORD_NAME];
    int fd;
    uint64_t size;
    if (cp_layout_blob_open(l, d->raw, &fd, &size, NULL) != CP_OK)
        return false;
    cp_record_name_blob(name, d->raw);
    bool yes = size == d->size && cp_record_match(places, name, fd, recorded) &&
               memcmp(recorded, d->raw, 32) == 0;
    close(fd);
    return yes;
}

/* See layout.h. */
bool cp_layout_blob_remove(const cp_layout *l, const uint8_t digest[32], bool keep, uint64_t *freed)
{
    char hex[CP_HEX_STR];
    cp_digest_hex(digest, hex);
    int dir = cp_layout_blobs_dir(l);
    struct stat st;
    if (dir < 0)
        return errno == ENOENT;
    bool there = fstatat(dir, hex, &st, AT_SYMLINK_NOFOLLOW) == 0;
    bool gone = keep ? !there || !S_ISDIR(st.st_mode) : unlinkat(dir, hex, 0) == 0;
    if (there && gone)
        *freed += (uint64_t)st.st_size;
    gone = gone || (!keep && errno == ENOENT);
    close(dir);
    return gone;
}

static const char *lock_name(cp_layout_lock which)
{
    return which == CP_LOCK_BLOBS ? "capstan/blobs.lock" : "capstan/index.lock";
}

/* Not through a link: one that another user made of capstan/ leads anywhere. -1 with errno. */
static int lock_file(const cp_layout *l, cp_layout_lock which, bool make)
{
    int own = own_dir(l, ".", make);
    int fd = own < 0 ? -1 : cp_fs_lock_file(own, cp_path_base(lock_name(which)), make);
    cp_io_close(own);
    return fd;
}

/* flock an open lock file; closed, and *fd -1, on failure. */
static cp_code lock(const cp_layout *l, cp_layout_lock which, bool exclusive, int *fd, cp_err *err)
{
    cp_flock_state state = cp_fs_flock(*fd, exclusive ? LOCK_EX : LOCK_SH);
    bool removes = exclusive && which == CP_LOCK_BLOBS;
    if (state == CP_FLOCK_HELD || (state == CP_FLOCK_NONE && !removes))
        return CP_OK;
    cp_code code = state == CP_FLOCK_NONE
                       ? cp_fail(err, CP_UNSUPPORTED,
                                 "%s: its file system has no locks (flock), so which blobs other "
                                 "processes use cannot be known; no blob is deleted",
                                 l->path)
                       : io(err, l, lock_name(which), "flock");
    close(*fd);
    *fd = -1;
    return code;
}

/* See layout.h. */
cp_code cp_layout_lock_take(const cp_layout *l, cp_layout_lock which, bool exclusive, int *fd,
                            cp_err *err)
{
    *fd = lock_file(l, which, true);
    return *fd < 0 ? io(err, l, lock_name(which), "open") : lock(l, which, exclusive, fd, err);
}

/* See layout.h. */
cp_code cp_layout_lock_look(const cp_layout *l, cp_layout_lock which, int *fd, cp_err *err)
{
    *fd = lock_file(l, which, false);
    if (*fd < 0)
        return errno == ENOENT ? CP_OK : io(err, l, lock_name(which), "open");
    return lock(l, which, true, fd, err);
}
