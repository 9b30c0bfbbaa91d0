/*
 * append: lines go to the end of a file, and whoever has one never waits for the disk.
 *
 * A line is written at once, or within 20 ms where one has just been; half a buffer does not wait.
 * A cp_append owns the file and a thread that writes; lines wait in a bounded buffer. One that
 * finds it full, or that cannot be written, is dropped and counted. Any thread adds lines, which
 * keep the order of their adding. A line is whole or not there, but for the last one before a disk
 * was full: it may be cut, and the next one still begins a line of its own.
 */
#ifndef CP_BASE_APPEND_H
#define CP_BASE_APPEND_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cp_append cp_append;

typedef struct cp_append_config {
    const char *path; /* copied; made where it is not there, for its owner and group alone */
    size_t bytes;     /* of lines that wait */
    /* Opens path for appending, where this process may not do so itself: *fd. NULL: open(2). On the
     * writing thread, but for the first time. */
    cp_code (*open)(void *arg, const char *path, int *fd, cp_err *err);
    void *arg;
} cp_append_config;

/* What open is where it is NULL, for whoever does it for another process. */
cp_code cp_append_open_path(void *arg, const char *path, int *fd, cp_err *err);
/* Opens the file and starts the thread. CP_IO with the path. */
cp_code cp_append_open(cp_append **out, const cp_append_config *cfg, cp_err *err);
/* n bytes, a line feed behind them. Any thread, as all below. */
void cp_append_line(cp_append *a, const char *line, size_t n);
/* The next line goes to what then has the file's name: it was moved away. What cannot be opened is
 * logged, and lines go on to the old file. */
void cp_append_reopen(cp_append *a);
uint64_t cp_append_lines(cp_append *a);   /* written */
uint64_t cp_append_dropped(cp_append *a); /* not written, and never will be */
/* Write what waits, end the thread, close; NULL is fine. False: the file (a pipe that nobody reads,
 * a disk that hangs) has not taken it within so many ms. Then the thread stays behind, and frees a
 * should it ever get on; arg must live until then. */
bool cp_append_close(cp_append *a, int timeout_ms);

#endif
