/*
 * panel_file: files of packed weights in a folder: finding one that may be used, making a new one,
 * sweeping what killed packings left. Internal to kernels (panels.c) and to who
 * stands in for it; it knows no layout.
 *
 * A new file has no name until it is whole (O_TMPFILE), so that a kill leaves nothing; where the
 * file system has no such thing it has a temporary name and is held locked, and a temporary file
 * that nobody holds is removed by whoever comes next. Any thread, any number of processes at once.
 */
#ifndef CP_KERNELS_PANEL_FILE_H
#define CP_KERNELS_PANEL_FILE_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CP_PANEL_NAME = 256 };

/*
 * Open dir/name to be read, if both belong to this user or root, nobody else can write them and the
 * file has `bytes` bytes. The descriptor, with a shared lock on it where the file system has locks:
 * as long as it is open nobody who looks for unused files takes it away. A file of this user is
 * marked as used now (its times; nothing depends on them here). -1: err says why, CP_NOT_FOUND: it
 * is absent.
 */
int cp_panel_file_open(const char *dir, const char *name, size_t bytes, cp_err *err);

/* A file being made; caller-owned. */
typedef struct cp_panel_new {
    const char *path; /* of the folder; the caller's */
    int dir, fd;      /* fd: to be written */
    char name[CP_PANEL_NAME];
    char temp[CP_PANEL_NAME + 16]; /* "": it has no name yet */
} cp_panel_new;

/* A file of `bytes` bytes, reserved where the file system can, for dir/name (dir is made, not its
 * parents). Mode 0644 less umask. CP_IO: with file and reason. */
cp_code cp_panel_new_open(cp_panel_new *f, const char *dir, const char *name, size_t bytes,
                          cp_err *err);
/* Give it its name. 0, or errno; EEXIST (replace false): there is one already. The data need not
 * have reached the disk: who opens the file later knows holes by their sums. */
int cp_panel_new_place(cp_panel_new *f, bool replace);
/* Close; what has no name yet is gone. */
void cp_panel_new_close(cp_panel_new *f);

/* Remove what killed packings left in dir, those of earlier releases too. */
void cp_panel_files_sweep(const char *dir);

/*
 * Who does these five: this process, or another one that hands over descriptors, where this one has
 * no right to files any more. Then of a cp_panel_new only path, name and fd mean something here.
 */
typedef struct cp_panel_door {
    void *arg;
    int (*open)(void *arg, const char *dir, const char *name, size_t bytes, cp_err *err);
    cp_code (*create)(void *arg, cp_panel_new *f, const char *dir, const char *name, size_t bytes,
                      cp_err *err);
    int (*place)(void *arg, cp_panel_new *f, bool replace);
    void (*close)(void *arg, cp_panel_new *f);
    void (*sweep)(void *arg, const char *dir);
} cp_panel_door;

extern const cp_panel_door cp_panel_door_here; /* the functions above */

#endif
