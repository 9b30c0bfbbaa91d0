/*
 * A layout's own files (image-spec, image-layout.md). oci-layout and index.json are read whole and
 * replaced whole; the locks and folders that this program keeps lie beside them in capstan/. For
 * example, a layout with one model:
 *
 *     oci-layout      {"imageLayoutVersion":"1.0.0"}
 *     index.json      {"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.
 *                     manifest.v1+json","digest":"sha256:6f1e...","size":612,"annotations":
 *                     {"org.opencontainers.image.ref.name":"docker.io/ai/smollm2:latest"}}]}
 */
#include "loader/oci/store/layout.h"
#include "base/io.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/tempfile.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* See layout.h. */
cp_code cp_layout_failed(const cp_layout *l, const char *name, const char *call, cp_err *err)
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
                                          l->path, name, CP_LINKS_NOT_FOLLOWED)
               : errno == EACCES || errno == EPERM
                   ? cp_fail(err, CP_CORRUPT, "%s/%s cannot be read: %s", l->path, name,
                             strerror(errno))
                   : cp_layout_failed(l, name, "open", err);
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
    return cp_temp_write(l->dir, "index.json", json, n, true)
               ? CP_OK
               : cp_layout_failed(l, "index.json", "write", err);
}

/* See layout.h. */
cp_code cp_layout_file_new(const cp_layout *l, const char *name, const char *text, size_t n,
                           cp_err *err)
{
    return cp_temp_write(l->dir, name, text, n, false) ? CP_OK
                                                       : cp_layout_failed(l, name, "write", err);
}

/* See layout.h. */
int cp_layout_own(const cp_layout *l, const char *name, bool make)
{
    int own =
        make ? cp_fs_make_folder(l->dir, "capstan", 0777) : cp_fs_open_folder(l->dir, "capstan");
    if (own < 0)
        return -1;
    int dir = make ? cp_fs_make_folder(own, name, 0777) : cp_fs_open_folder(own, name);
    cp_io_close(own);
    return dir;
}

static const char *lock_name(cp_layout_lock which)
{
    return which == CP_LOCK_BLOBS ? "capstan/blobs.lock" : "capstan/index.lock";
}

/* Not through a link: one that another user made of capstan/ leads anywhere. -1 with errno. */
static int lock_file(const cp_layout *l, cp_layout_lock which, bool make)
{
    int own = cp_layout_own(l, ".", make);
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
                       : cp_layout_failed(l, lock_name(which), "flock", err);
    close(*fd);
    *fd = -1;
    return code;
}

/* See layout.h. */
cp_code cp_layout_lock_take(const cp_layout *l, cp_layout_lock which, bool exclusive, int *fd,
                            cp_err *err)
{
    *fd = lock_file(l, which, true);
    return *fd < 0 ? cp_layout_failed(l, lock_name(which), "open", err)
                   : lock(l, which, exclusive, fd, err);
}

/* See layout.h. */
cp_code cp_layout_lock_look(const cp_layout *l, cp_layout_lock which, int *fd, cp_err *err)
{
    *fd = lock_file(l, which, false);
    if (*fd < 0)
        return errno == ENOENT ? CP_OK : cp_layout_failed(l, lock_name(which), "open", err);
    return lock(l, which, true, fd, err);
}
