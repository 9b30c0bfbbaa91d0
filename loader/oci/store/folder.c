/*
 * Fresh, store or foreign; see folder.h. A store begins with its index, then oci-layout, then the
 * folders; both files appear whole and replace nothing. So a folder that has oci-layout has had an
 * index, and a creation that was killed leaves dot files, or an index that is still as it began.
 */
#include "loader/oci/store/folder.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/trust.h"
#include "loader/oci/store/blobs_dir.h"
#include "loader/oci/store/fsys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_MAX_BYTES = 256 };
static const char empty_index[] =
    "{\"schemaVersion\":2,\"mediaType\":\"" CP_MT_OCI_INDEX "\",\"manifests\":[]}";
static const char layout_version[] = "{\"imageLayoutVersion\":\"1.0.0\"}";

/* Is this index.json as cp_folder_make begins it? */
static bool is_begun(int dir)
{
    char have[sizeof(empty_index)];
    int fd = cp_fs_open(dir, "index.json");
    ssize_t n = fd < 0 ? -1 : cp_io_read(fd, have, sizeof(have));
    cp_io_close(fd);
    return n == (ssize_t)strlen(empty_index) && memcmp(have, empty_index, (size_t)n) == 0;
}

/* The first name, in byte order, that a fresh folder does not have; "" none. */
static cp_code first_strange(const cp_layout *l, char name[NAME_MAX_BYTES], cp_err *err)
{
    cp_fs_list list = cp_fs_list_of(l->dir);
    name[0] = '\0';
    if (!list.d)
        return cp_fail(err, CP_IO, "%s: %s", l->path, strerror(errno));
    for (const char *s; (s = cp_fs_list_next(&list));) {
        bool plain = s[0] == '.' || strcmp(s, "lost+found") == 0 ||
                     (strcmp(s, "index.json") == 0 && is_begun(l->dir));
        if (!plain && (!name[0] || strcmp(s, name) < 0))
            cp_strcopy(name, NAME_MAX_BYTES, s);
    }
    cp_fs_list_close(&list);
    return CP_OK;
}

static bool is_layout(const cp_layout *l)
{
    struct stat st;
    return fstatat(l->dir, "oci-layout", &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static cp_code open_dir(cp_layout *l, const char *path, bool *fresh, cp_err *err)
{
    if (!cp_strcopy(l->path, sizeof(l->path), path))
        return cp_fail(err, CP_USAGE, "path is longer than %d bytes", CP_DIR_MAX - 1);
    l->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *fresh = l->dir < 0 && errno == ENOENT;
    l->owned = l->dir >= 0 && cp_dir_fd_owned(l->dir);
    if (l->dir >= 0 || *fresh)
        return CP_OK;
    return errno == ENOTDIR ? cp_fail(err, CP_CORRUPT, "%s is no directory, so no store", path)
                            : cp_fail(err, CP_IO, "%s: %s", path, strerror(errno));
}

/* A layout counts as a store when its index can be read. */
static cp_code check_layout(const cp_layout *l, cp_err *err)
{
    cp_index *x = NULL;
    cp_code code = cp_layout_check(l, err);
    if (!code)
        code = cp_layout_index(l, &x, NULL, err);
    cp_index_free(x);
    return code ? code : cp_blobs_check(l, err);
}

/* See folder.h. */
cp_code cp_folder_open(cp_layout *l, const char *path, bool *fresh, cp_err *err)
{
    char strange[NAME_MAX_BYTES];
    l->dir = -1;
    *fresh = false;
    cp_code code = open_dir(l, path, fresh, err);
    if (code || *fresh)
        return code;
    if (!is_layout(l)) {
        code = first_strange(l, strange, err);
        *fresh = !code && !strange[0];
    }
    /* Asked again: another process may have made it a store meanwhile. */
    if (!code && !*fresh)
        code = is_layout(l)
                   ? check_layout(l, err)
                   : cp_fail(err, CP_CORRUPT,
                             "%s is no store: it has no oci-layout, and '%s' is in it; name an "
                             "empty or a new folder with --store",
                             path, strange);
    if (code || *fresh)
        cp_layout_close(l);
    return code;
}

static cp_code check_writable(const cp_layout *l, cp_err *err)
{
    if (faccessat(l->dir, ".", W_OK | X_OK, AT_EACCESS) == 0)
        return CP_OK;
    return cp_fail(err, CP_IO, "%s: the store cannot be written: %s", l->path, strerror(errno));
}

/* See folder.h. */
cp_code cp_folder_open_writable(cp_layout *l, const char *path, bool *fresh, cp_err *err)
{
    cp_code code = cp_folder_open(l, path, fresh, err);
    if (!code && !*fresh && (code = check_writable(l, err)))
        cp_layout_close(l);
    return code;
}

static cp_code begin(cp_layout *l, const char *path, cp_err *err)
{
    if (!cp_dir_make(path, 0777))
        return cp_fail(err, CP_IO, "cannot make %s: %s; --store names another folder", path,
                       strerror(errno));
    l->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (l->dir < 0)
        return cp_fail(err, CP_IO, "%s: %s", path, strerror(errno));
    l->owned = cp_dir_fd_owned(l->dir);
    cp_code code = cp_layout_file_new(l, "index.json", empty_index, strlen(empty_index), err);
    cp_fault_point("layout");
    if (!code)
        code = cp_layout_file_new(l, "oci-layout", layout_version, strlen(layout_version), err);
    return code;
}

static cp_code make_folders(const cp_layout *l, cp_err *err)
{
    if (mkdirat(l->dir, "capstan", 0777) != 0 && errno != EEXIST)
        return cp_fail(err, CP_IO, "%s: cannot make its folders: %s", l->path, strerror(errno));
    return cp_blobs_make(l, err);
}

/* See folder.h. */
cp_code cp_folder_make(cp_layout *l, const char *path, cp_err *err)
{
    bool fresh;
    cp_code code = cp_folder_open_writable(l, path, &fresh, err);
    if (!code && fresh)
        code = begin(l, path, err);
    if (!code)
        code = make_folders(l, err);
    if (code)
        cp_layout_close(l);
    return code;
}

/* See folder.h. */
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
        code = cp_blobs_check(l, err);
    if (code)
        cp_layout_close(l);
    return code;
}
