/*
 * Links, ids and what else may stand in the place of blobs/. Where `blobs` is no folder, messages
 * say what it is and what to do. Folders are opened one after another and never through a link
 * that was not looked at, so that nothing can be exchanged in between.
 */
#include "loader/oci/store/blobs_dir.h"
#include "base/io.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/tempfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

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

static int algorithm_open(const cp_layout *l, const char *name)
{
    int blobs = blobs_open(l);
    if (blobs < 0)
        return -1;
    int dir = cp_fs_open_folder(blobs, name);
    cp_io_close(blobs);
    return dir;
}

/* See blobs_dir.h. */
int cp_blobs_dir(const cp_layout *l)
{
    return algorithm_open(l, "sha256");
}

/* See blobs_dir.h. */
int cp_blobs_dir_sha512(const cp_layout *l)
{
    return algorithm_open(l, "sha512");
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

/* See blobs_dir.h. */
cp_code cp_blobs_failed(const cp_layout *l, int why, cp_err *err)
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
                           CP_LINKS_NOT_FOLLOWED);
        if (!S_ISDIR(st.st_mode))
            return cp_fail(err, CP_CORRUPT, "%s/%s is no folder, so there are no blobs", l->path,
                           names[i]);
    }
    return cp_fail(err, CP_IO, "%s/blobs/sha256: %s", l->path, strerror(why));
}

/* See blobs_dir.h. */
cp_code cp_blobs_check(const cp_layout *l, cp_err *err)
{
    int fd = cp_blobs_dir(l), why = errno;
    cp_io_close(fd);
    if (fd >= 0 || (why == ENOENT && !is_linked(l)))
        return CP_OK;
    if (why == ENOENT) { /* a link to an empty folder will do */
        fd = linked_blobs(l);
        cp_io_close(fd);
    }
    return fd >= 0 ? CP_OK : cp_blobs_failed(l, why, err);
}

/* ---- whose they are ---- */

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
    cp_code code = cp_temp_write(dir, name, text, strlen(text), false)
                       ? CP_OK
                       : cp_layout_failed(l, name, "write", err);
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
        return cp_layout_failed(l, "blobs/sha256", "mkdir", err);
    if (getrandom(rnd, sizeof(rnd), 0) != sizeof(rnd))
        return cp_layout_failed(l, "capstan/blobs.id", "getrandom", err);
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
    int own = cp_layout_own(l, ".", true);
    cp_code code = own < 0 ? cp_layout_failed(l, "capstan", "open", err) : CP_OK;
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

/* See blobs_dir.h. */
cp_code cp_blobs_make(const cp_layout *l, cp_err *err)
{
    bool made = mkdirat(l->dir, "blobs", 0777) == 0 || errno == EEXIST;
    int blobs = made ? blobs_open(l) : -1;
    cp_code code = CP_OK;
    if (blobs < 0)
        return made ? cp_blobs_failed(l, errno, err) : cp_layout_failed(l, "blobs", "mkdir", err);
    if (is_linked(l))
        code = claim(l, blobs, err);
    if (!code && mkdirat(blobs, "sha256", 0777) != 0 && errno != EEXIST)
        code = cp_layout_failed(l, "blobs/sha256", "mkdir", err);
    close(blobs);
    return code ? code : cp_blobs_check(l, err);
}

/* See blobs_dir.h. */
int cp_blobs_partial(const cp_layout *l, bool make)
{
    if (!is_linked(l))
        return cp_layout_own(l, "partial", make);
    int blobs = linked_blobs(l);
    if (blobs < 0)
        return -1;
    if (make)
        mkdirat(blobs, ".capstan-partial", 0777);
    int dir = cp_fs_open_folder(blobs, ".capstan-partial");
    cp_io_close(blobs);
    return dir;
}

/* See blobs_dir.h. */
int cp_blobs_partial_left(const cp_layout *l)
{
    if (is_linked(l))
        return cp_layout_own(l, "partial", false);
    int blobs = blobs_open(l);
    int dir = cp_fs_open_folder(blobs, ".capstan-partial");
    cp_io_close(blobs);
    return dir;
}
