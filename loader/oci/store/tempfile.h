/*
 * Files that appear whole: written under a temporary name, brought to the disk, renamed, and their
 * folder brought to the disk. A crash leaves at most a temporary file (".capstan-tmp-PID-RANDOM"),
 * which is locked as long as its writer lives, and swept once it does not.
 *
 * Functions on open folders; any thread, any number of processes.
 */
#ifndef CP_LOADER_OCI_STORE_TEMPFILE_H
#define CP_LOADER_OCI_STORE_TEMPFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CP_TEMP_NAME = 64,
    CP_TEMP_STALE_SECONDS = 24 * 3600, /* surely nobody's, also where locks cannot tell */
    CP_TEMP_LEFT_SECONDS = 60,         /* longer than between a file's making and its lock */
};

/* A new file in dir, for writing and reading; its mode is what the umask leaves of 0666. False:
 * errno. */
bool cp_temp_open(int dir, char name[CP_TEMP_NAME], int *fd);
/* Give file fd of that temporary name its own: in place of what has it, or, without `replace`, only
 * if nothing has (then the temporary file goes, and that is fine). False: errno. */
bool cp_temp_publish(int dir, const char *temp, const char *name, int fd, bool replace);
/* All of that for n bytes. False: errno; then nothing is left. */
bool cp_temp_write(int dir, const char *name, const void *p, size_t n, bool replace);

/* Remove temporary files of writers that died `seconds` ago or more; *bytes grows by what went.
 * unsure: also where the file system has no locks to tell. dry_run: only count. dir -1 is fine. */
void cp_temp_sweep(int dir, int seconds, bool unsure, bool dry_run, uint64_t *bytes);

#endif
