/*
 * Where the loader keeps things: the default store, the cache for what may not be written
 * elsewhere, and making folders. Paths go into caller-owned buffers; nothing is remembered. Any
 * thread.
 */
#ifndef CP_LOADER_OCI_STORE_DIRS_H
#define CP_LOADER_OCI_STORE_DIRS_H

#include "base/code.h"

#include <stdbool.h>
#include <stdint.h>

enum { CP_DIR_MAX = 4096 }; /* bytes of a path */

/* `store` if given, else $XDG_DATA_HOME/capstan/store, else ~/.local/share/capstan/store. CP_USAGE:
 * no home. */
cp_code cp_dir_store(char out[CP_DIR_MAX], const char *store, cp_err *err);
/* $XDG_CACHE_HOME/capstan or ~/.cache/capstan without links, made if wanted. False: it cannot be
 * had, or others can write it. */
bool cp_dir_cache(char out[CP_DIR_MAX], bool make);
/* mkdir -p. False: errno says why. */
bool cp_dir_make(const char *path, unsigned mode);
/* Remove folder `name` (one component) of dir with all in it, eight folders deep at most, or the
 * file or link (not what it leads to) of that name; what is mounted there stays. *bytes grows by
 * their sizes; dry_run only counts. True: it is (or would be) gone, or was not there. */
bool cp_dir_remove(int dir, const char *name, bool dry_run, uint64_t *bytes);
/* Is it a folder in which this process may make files? */
bool cp_dir_writable(const char *path);

#endif
