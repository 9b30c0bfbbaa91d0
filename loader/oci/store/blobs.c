/*
 * Reading, writing and importing blobs. A blob is written under a temporary name, fsynced,
 * renamed, and the folder fsynced. A crash leaves at most a temporary file, which gc removes, and
 * the next import once it is a day old. A blob's path is made from its digest (image-spec, image-
 * layout.md, Blobs):
 *
 *     sha256:6f1e...9c      blobs/sha256/6f1e...9c
 */
#include "loader/oci/store/blobs.h"
#include "base/io.h"
#include "loader/oci/store/blobs_dir.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/record.h"
#include "loader/oci/store/tempfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_CHUNK = 4 << 20 };

/* Blob `hex` of folder dir, blobs/<algorithm>, which is closed (-1 with errno: it could not be
 * opened). */
static cp_code open_named(const cp_layout *l, int dir, const char *algorithm, const char *hex,
                          int *fd, uint64_t *size, cp_err *err)
{
    *size = 0;
    *fd = cp_fs_open(dir, hex);
    int saved = errno;
    cp_io_close(dir);
    if (dir < 0 && saved != ENOENT)
        return cp_blobs_failed(l, saved, err);
    if (*fd < 0)
        return saved == ENOENT ? cp_fail(err, CP_NOT_FOUND, "%s: blob %s:%s is missing", l->path,
                                         algorithm, hex)
               : saved == ELOOP
                   ? cp_fail(err, CP_CORRUPT, "%s/blobs/%s/%s is a symbolic link, and %s", l->path,
                             algorithm, hex, CP_LINKS_NOT_FOLLOWED)
                   : cp_fail(err, CP_IO, "%s: blob %s:%s: %s", l->path, algorithm, hex,
                             strerror(saved));
    struct stat st;
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        *fd = -1;
        return cp_fail(err, CP_CORRUPT, "%s: blob %s:%s is no regular file", l->path, algorithm,
                       hex);
    }
    *size = (uint64_t)st.st_size;
    return CP_OK;
}

/* See blobs.h. */
cp_code cp_blob_open(const cp_layout *l, const uint8_t digest[32], int *fd, uint64_t *size,
                     cp_err *err)
{
    char hex[CP_HEX_STR];
    cp_digest_hex(digest, hex);
    return open_named(l, cp_blobs_dir(l), "sha256", hex, fd, size, err);
}

/* Whatever its algorithm. */
static cp_code open_any(const cp_layout *l, const cp_descriptor *d, int *fd, uint64_t *size,
                        cp_err *err)
{
    uint8_t raw[64];
    if (d->sha256)
        return cp_blob_open(l, d->raw, fd, size, err);
    if (cp_sha512_parse(d->digest, raw))
        return open_named(l, cp_blobs_dir_sha512(l), "sha512", d->digest + strlen("sha512:"), fd,
                          size, err);
    *fd = -1;
    return cp_fail(err, CP_CORRUPT, "%s: a digest is neither sha256 nor sha512, which are built",
                   l->path);
}

/* See blobs.h. */
bool cp_blob_known(const cp_descriptor *d)
{
    uint8_t raw[64];
    return d->sha256 || cp_sha512_parse(d->digest, raw);
}

/* See blobs.h. */
bool cp_blob_here(const cp_layout *l, const cp_descriptor *d)
{
    uint64_t size;
    int fd;
    cp_code code = open_any(l, d, &fd, &size, NULL);
    cp_io_close(fd);
    return code == CP_OK;
}

/* See blobs.h. */
cp_code cp_blob_of(const cp_layout *l, const cp_descriptor *d, int *fd, cp_err *err)
{
    uint64_t size;
    cp_code code = open_any(l, d, fd, &size, err);
    if (!code && size != d->size) {
        close(*fd);
        *fd = -1;
        code =
            cp_fail(err, CP_CORRUPT, "%s: %s has %" PRIu64 " bytes, its descriptor says %" PRIu64,
                    l->path, d->digest, size, d->size);
    }
    return code;
}

/* See blobs.h. */
cp_code cp_blob_check(const cp_layout *l, const cp_descriptor *d, const void *p, size_t n,
                      cp_err *err)
{
    uint8_t have[64], want[64];
    if (cp_sha512_parse(d->digest, want)) {
        cp_sha512_of(p, n, have);
        return memcmp(have, want, 64) == 0
                   ? CP_OK
                   : cp_fail(err, CP_CORRUPT, "%s: blob is not what its digest %s says", l->path,
                             d->digest);
    }
    cp_sha256_of(p, n, have);
    if (memcmp(have, d->raw, 32) == 0)
        return CP_OK;
    char text[CP_DIGEST_STR];
    cp_digest_format(have, text);
    return cp_fail(err, CP_CORRUPT, "%s: blob has digest %s, expected %s", l->path, text,
                   d->digest);
}

/* See blobs.h. */
cp_code cp_blob_read(const cp_layout *l, const cp_descriptor *d, cp_buf *out, cp_err *err)
{
    if (d->size > CP_MANIFEST_MAX_BYTES)
        return cp_fail(err, CP_CORRUPT, "%s: %s claims %" PRIu64 " bytes, the limit is %d", l->path,
                       d->digest, d->size, CP_MANIFEST_MAX_BYTES);
    int fd;
    cp_code code = cp_blob_of(l, d, &fd, err);
    if (code)
        return code;
    size_t start = out->n;
    code = cp_fd_read(fd, d->digest, (size_t)d->size, out, err);
    if (code == CP_TOO_LARGE)
        code = cp_fail(err, CP_CORRUPT, "%s: %s grew while it was read", l->path, d->digest);
    else if (code)
        cp_err_prefix(err, "%s", l->path);
    close(fd);
    return code ? code : cp_blob_check(l, d, out->p ? out->p + start : "", out->n - start, err);
}

static void describe(cp_descriptor *d, const uint8_t raw[32], uint64_t size)
{
    memcpy(d->raw, raw, 32);
    cp_digest_format(raw, d->digest);
    d->sha256 = true;
    d->size = size;
}

/* See blobs.h. */
cp_code cp_blob_put(const cp_layout *l, const void *p, size_t n, cp_descriptor *d, cp_err *err)
{
    uint8_t raw[32];
    char hex[CP_HEX_STR];
    cp_sha256_of(p, n, raw);
    describe(d, raw, n);
    cp_digest_hex(raw, hex);
    int dir = cp_blobs_dir(l);
    if (dir < 0)
        return cp_layout_failed(l, "blobs/sha256", "open", err);
    cp_code code =
        cp_temp_write(dir, hex, p, n, true) ? CP_OK : cp_layout_failed(l, hex, "write", err);
    close(dir);
    return code;
}

/* See blobs.h. */
void cp_blobs_sweep_temps(const cp_layout *l, bool dry_run, uint64_t *bytes)
{
    int dir = cp_blobs_dir(l);
    if (dir < 0)
        return;
    cp_temp_sweep(dir, CP_TEMP_LEFT_SECONDS, false, dry_run, bytes);
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

/* See blobs.h. */
cp_code cp_blob_import(const cp_layout *l, int fd, uint64_t size, const cp_places *places,
                       cp_progress_fn *progress, void *arg, cp_descriptor *d, cp_err *err)
{
    char temp[CP_TEMP_NAME], hex[CP_HEX_STR];
    uint8_t raw[32];
    int dir = cp_blobs_dir(l), out = -1;
    if (dir < 0)
        return cp_layout_failed(l, "blobs/sha256", "open", err);
    uint64_t ignored = 0;
    cp_temp_sweep(dir, CP_TEMP_STALE_SECONDS, true, false, &ignored);
    cp_temp_sweep(l->dir, CP_TEMP_STALE_SECONDS, true, false, &ignored);
    if (!cp_temp_open(dir, temp, &out)) {
        cp_code code = cp_layout_failed(l, "blobs/sha256", "create", err);
        close(dir);
        return code;
    }
    cp_code code = copy_hashed(l, fd, out, size, progress, arg, raw, err);
    if (!code) {
        describe(d, raw, size);
        cp_digest_hex(raw, hex);
        bool keep = cp_blob_recorded(l, d, places);
        if (keep)
            unlinkat(dir, temp, 0);
        else if (!cp_temp_publish(dir, temp, hex, out, true))
            code = cp_layout_failed(l, hex, "publish", err);
        else
            write_record(places, out, raw);
    }
    if (code)
        unlinkat(dir, temp, 0);
    close(out);
    close(dir);
    return code;
}

/* See blobs.h. */
bool cp_blob_recorded(const cp_layout *l, const cp_descriptor *d, const cp_places *places)
{
    uint8_t recorded[32];
    char name[CP_RECORD_NAME];
    int fd;
    uint64_t size;
    if (cp_blob_open(l, d->raw, &fd, &size, NULL) != CP_OK)
        return false;
    cp_record_name_blob(name, d->raw);
    bool yes = size == d->size && cp_record_match(places, name, fd, recorded) &&
               memcmp(recorded, d->raw, 32) == 0;
    close(fd);
    return yes;
}

/* See blobs.h. */
bool cp_blob_remove(const cp_layout *l, const uint8_t digest[32], bool keep, uint64_t *freed)
{
    char hex[CP_HEX_STR];
    cp_digest_hex(digest, hex);
    int dir = cp_blobs_dir(l);
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
