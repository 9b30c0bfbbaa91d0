/*
 * Default places by the XDG Base Directory Specification. A variable counts only when it holds an
 * absolute path, else the default under $HOME does. For example, with XDG_DATA_HOME unset and
 * HOME=/home/a the store is /home/a/.local/share/capstan/store.
 */
#include "loader/oci/store/dirs.h"
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

enum { MAX_DEPTH = 8 };

/* The length of s without slashes at its end: "/" is "". */
static int trimmed(const char *s)
{
    size_t n = strlen(s);
    while (n > 0 && s[n - 1] == '/')
        n--;
    return (int)n;
}

/* $variable/tail, or $HOME/fallback/tail; false when neither is there or it is too long. */
static bool xdg(char out[CP_DIR_MAX], const char *variable, const char *fallback, const char *tail)
{
    const char *base = getenv(variable), *home = getenv("HOME");
    char path[2 * CP_DIR_MAX];
    size_t n;
    if (base && base[0] == '/')
        n = cp_snprintf(path, sizeof(path), "%.*s/%s", trimmed(base), base, tail);
    else if (home && home[0] == '/')
        n = cp_snprintf(path, sizeof(path), "%.*s/%s/%s", trimmed(home), home, fallback, tail);
    else
        return false;
    return n < CP_DIR_MAX && cp_strcopy(out, CP_DIR_MAX, path);
}

/* See dirs.h. */
cp_code cp_dir_store(char out[CP_DIR_MAX], const char *store, cp_err *err)
{
    if (store && *store) {
        if (!cp_strcopy(out, CP_DIR_MAX, store))
            return cp_fail(err, CP_USAGE, "store: path is longer than %d bytes", CP_DIR_MAX - 1);
        return CP_OK;
    }
    if (!xdg(out, "XDG_DATA_HOME", ".local/share", "capstan/store"))
        return cp_fail(err, CP_USAGE,
                       "no store: neither --store nor XDG_DATA_HOME nor HOME is set");
    return CP_OK;
}

/* mkdir; true also where `path` is there already, whatever mkdir says then. errno is mkdir's. */
static bool make_one(const char *path, unsigned mode)
{
    if (mkdir(path, mode) == 0 || errno == EEXIST)
        return true;
    int saved = errno;
    bool there = access(path, F_OK) == 0;
    errno = saved;
    return there;
}

/* See dirs.h. */
bool cp_dir_make(const char *path, unsigned mode)
{
    char part[CP_DIR_MAX];
    if (!cp_strcopy(part, sizeof(part), path)) {
        errno = ENAMETOOLONG;
        return false;
    }
    for (char *p = part + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (!make_one(part, mode))
            return false;
        *p = '/';
    }
    struct stat st;
    if (!make_one(part, mode) || stat(part, &st) != 0)
        return false;
    if (!S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return false;
    }
    return true;
}

/* See dirs.h. */
bool cp_dir_writable(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && access(path, W_OK | X_OK) == 0;
}

/* See dirs.h. */
bool cp_dir_cache(char out[CP_DIR_MAX], bool make)
{
    out[0] = '\0';
    char path[CP_DIR_MAX];
    struct stat st;
    if (!xdg(path, "XDG_CACHE_HOME", ".cache", "capstan") || (make && !cp_dir_make(path, 0700)))
        return false;
    /* It may be a link to a larger disk; one that somebody else made leads to what he likes. */
    bool mine = lstat(path, &st) == 0 && (st.st_uid == geteuid() || st.st_uid == 0);
    char *real = mine ? realpath(path, NULL) : NULL;
    int fd = real ? open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;
    bool ok = cp_dir_fd_trusted(fd) && cp_strcopy(out, CP_DIR_MAX, real);
    cp_io_close(fd);
    free(real);
    return ok;
}

/* Entry `name` of dir, depth folders below the one that goes: a folder with all in it, anything
 * else by itself. What another file system is mounted on stays. */
static bool remove_at(int dir, const char *name, int depth, bool dry_run, uint64_t *bytes)
{
    struct stat st, parent;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT;
    if (!S_ISDIR(st.st_mode)) {
        if (!dry_run && unlinkat(dir, name, 0) != 0)
            return false;
        *bytes += (uint64_t)st.st_size;
        return true;
    }
    if (depth == MAX_DEPTH || fstat(dir, &parent) != 0 || parent.st_dev != st.st_dev)
        return false;
    cp_fs_list list = cp_fs_list_take(cp_fs_open_folder(dir, name));
    if (!list.d)
        return false;
    bool all = true;
    for (const char *below; (below = cp_fs_list_next(&list));)
        all = remove_at(list.dir, below, depth + 1, dry_run, bytes) && all;
    cp_fs_list_close(&list);
    return dry_run ? all : unlinkat(dir, name, AT_REMOVEDIR) == 0;
}

/* See dirs.h. */
bool cp_dir_remove(int dir, const char *name, bool dry_run, uint64_t *bytes)
{
    return remove_at(dir, name, 0, dry_run, bytes);
}
