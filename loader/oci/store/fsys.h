/*
 * Files and folders of a store, opened one name at a time and never through a symbolic link; and
 * what some file systems cannot do: locks (flock) and reaching the disk on demand (fsync, of
 * folders above all). Work goes on there without, after one warning a process and kind. Any thread.
 */
#ifndef CP_LOADER_OCI_STORE_FSYS_H
#define CP_LOADER_OCI_STORE_FSYS_H

#include <dirent.h>
#include <stdbool.h>

/* Names of one folder that are looked at, as it may be anybody's. */
enum { CP_FS_LISTED_MAX = 1 << 20 };

typedef enum cp_flock_state {
    CP_FLOCK_HELD,
    CP_FLOCK_BUSY,   /* another process has it; only with LOCK_NB */
    CP_FLOCK_NONE,   /* this file system has no locks: who else uses the file cannot be known */
    CP_FLOCK_FAILED, /* errno says why */
} cp_flock_state;
/* flock(2), tried again after signals. */
cp_flock_state cp_fs_flock(int fd, int operation);

/* Entry `name` (one component) of folder dir for reading, whatever it is but a link; it does not
 * block on a pipe. -1 with errno. dir -1: -1, and errno stays. */
int cp_fs_open(int dir, const char *name);
/* The same, of a folder. */
int cp_fs_open_folder(int dir, const char *name);
/* Make folder `name` of dir unless it is there, and open it. -1 with errno: why it could not be
 * made, where it is not there. */
int cp_fs_make_folder(int dir, const char *name, unsigned mode);

/*
 * The names in a folder, "." and ".." left out, CP_FS_LISTED_MAX at most:
 *
 *     cp_fs_list list = cp_fs_list_of(dir);
 *     for (const char *name; (name = cp_fs_list_next(&list));)
 *         ...
 *     cp_fs_list_close(&list);
 */
typedef struct cp_fs_list {
    DIR *d;  /* NULL: the folder could not be read, errno said why; then it is empty */
    int dir; /* for the *at functions, while it is open; -1 */
    int n;
} cp_fs_list;
cp_fs_list cp_fs_list_of(int dir);   /* dir stays open, and its own position as it is */
cp_fs_list cp_fs_list_take(int dir); /* dir is the list's now, also on failure; -1 is fine */
const char *cp_fs_list_next(cp_fs_list *l);
void cp_fs_list_close(cp_fs_list *l);

/* Open file `name` of dir to lock it; made (what the umask leaves of 0666) if `make`. For writing
 * where that may be: NFS grants an exclusive lock on nothing else. -1 with errno. */
int cp_fs_lock_file(int dir, const char *name, bool make);

/* fsync(2) of a file or a folder. True also where the file system has none. */
bool cp_fs_sync(int fd);

#endif
