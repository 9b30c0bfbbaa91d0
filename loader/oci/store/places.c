/*
 * Places: see places.h. A store's folder, its blobs/ and its capstan/ may be writable for a group
 * (shared stores, a volume's fsGroup): whoever writes there decides what its names mean anyway. The
 * folders that hold what is derived may not: a blob of ours, whose bytes somebody else chose, could
 * be renamed to be a record. Folders can only be renamed into another one by who may write them.
 */
#include "loader/oci/store/places.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/trust.h"
#include "loader/oci/store/fsys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void add(cp_places *p, const char *dir, bool own, bool writable)
{
    if (!cp_strcopy(p->dir[p->n], CP_DIR_MAX, dir))
        return;
    if (writable && p->write < 0)
        p->write = p->n;
    p->own[p->n++] = own;
}

/* Could records, extracted files and panels be made in a store's capstan/, and would they be
 * believed? Made at once: some file systems make everything writable for all. */
static bool takes_new(cp_places *p, int capstan, bool make)
{
    static const char *const folders[] = {"records", "extracted", "cache"};
    bool all = true;
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        if (make)
            mkdirat(capstan, folders[i], 0755);
        int fd = cp_fs_open_folder(capstan, folders[i]);
        all = all && fd >= 0 && faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) == 0;
        if (fd < 0)
            continue;
        if (!cp_dir_fd_trusted(fd)) {
            cp_snprintf(p->why, sizeof(p->why), "others than uid %ld and root can write capstan/%s",
                        (long)geteuid(), folders[i]);
            all = false;
        }
        close(fd);
    }
    return all;
}

/* A store's capstan/, if the store is to be believed. */
static void add_own(cp_places *p, const char *path, int dir, bool make)
{
    char own[CP_DIR_MAX + 16];
    struct stat st;
    if (fstat(dir, &st) != 0 || !cp_dir_fd_owned(dir)) {
        cp_snprintf(p->why, sizeof(p->why), "the store belongs to uid %ld", (long)st.st_uid);
        return;
    }
    int fd = cp_fs_open_folder(dir, "capstan");
    if (fd < 0 && errno == ENOENT && make && mkdirat(dir, "capstan", 0777) == 0)
        fd = cp_fs_open_folder(dir, "capstan");
    if (fd < 0) {
        if (errno != ENOENT)
            cp_snprintf(p->why, sizeof(p->why), "its folder capstan: %s", strerror(errno));
        return;
    }
    cp_snprintf(own, sizeof(own), "%s/capstan", path);
    add(p, own, true, takes_new(p, fd, make));
    close(fd);
}

/* See places.h. */
void cp_places_of(cp_places *out, const char *path, int dir, bool store, bool make)
{
    char cache[CP_DIR_MAX];
    *out = (cp_places){.write = -1};
    char *real = path ? realpath(path, NULL) : NULL;
    cp_strcopy(out->layout, sizeof(out->layout), real ? real : path ? path : "");
    free(real);
    if (path && store)
        add_own(out, path, dir, make);
    else if (path)
        cp_strcopy(out->why, sizeof(out->why), "what came with a layout is not believed");
    if (cp_dir_cache(cache, make && out->write < 0))
        add(out, cache, false, cp_dir_writable(cache));
}

/* See places.h. */
int cp_places_open(const cp_places *p, int i, const char *below, bool make)
{
    char part[CP_DIR_MAX];
    if (i < 0 || i >= p->n || !cp_strcopy(part, sizeof(part), below)) {
        errno = EROFS;
        return -1;
    }
    int dir = open(p->dir[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    for (char *name = part, *next; dir >= 0 && name; name = next) {
        next = strchr(name, '/');
        if (next)
            *next++ = '\0';
        if (make && mkdirat(dir, name, 0755) != 0 && errno != EEXIST) {
            cp_io_close(dir);
            return -1;
        }
        int fd = cp_fs_open_folder(dir, name);
        cp_io_close(dir);
        dir = fd;
        if (dir >= 0 && !cp_dir_fd_trusted(dir)) {
            close(dir);
            dir = -1;
            errno = EPERM;
        }
    }
    return dir;
}

/* See places.h. */
int cp_places_file(int dir, const char *name)
{
    int fd = cp_fs_open(dir, name);
    if (fd >= 0 && !cp_fd_trusted(fd)) {
        close(fd);
        fd = -1;
        errno = EPERM;
    }
    return fd;
}

/* See places.h. */
void cp_places_used(int fd)
{
    futimens(fd, NULL);
}
