/*
 * What some file systems cannot do: locks (flock) and reaching the disk on demand (fsync, of
 * folders above all). Work goes on there without, after one warning a process and kind. Any thread.
 */
#ifndef CP_LOADER_OCI_STORE_FSYS_H
#define CP_LOADER_OCI_STORE_FSYS_H

#include <stdbool.h>

typedef enum cp_flock_state {
    CP_FLOCK_HELD,
    CP_FLOCK_BUSY,   /* another process has it; only with LOCK_NB */
    CP_FLOCK_NONE,   /* this file system has no locks: who else uses the file cannot be known */
    CP_FLOCK_FAILED, /* errno says why */
} cp_flock_state;
/* flock(2), tried again after signals. */
cp_flock_state cp_fs_flock(int fd, int operation);

/* Make folder `name` of dir unless it is there, and open it, not through a link. -1 with errno: why
 * it could not be made, where it is not there. */
int cp_fs_folder(int dir, const char *name, unsigned mode);

/* Open file `name` of dir to lock it; made (what the umask leaves of 0666) if `make`. For writing
 * where that may be: NFS grants an exclusive lock on nothing else. -1 with errno. */
int cp_fs_lock_file(int dir, const char *name, bool make);

/* fsync(2) of a file or a folder. True also where the file system has none. */
bool cp_fs_sync(int fd);

#endif
