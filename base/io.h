/*
 * io: reads and writes whole files, and whole counts of bytes.
 *
 * read(2) and write(2) may do less than they were asked for, and a signal may end them before they
 * have done anything (EINTR). What stands here goes on until all is done, the file ends, or a real
 * error comes, which errno then says. It is for blocking descriptors, keeps no state, and any
 * thread may call it.
 */
#ifndef CP_BASE_IO_H
#define CP_BASE_IO_H

#include "base/code.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes read: n, fewer where the file or stream ends before, -1 with errno. */
ssize_t cp_io_read(int fd, void *p, size_t n);
/* The same from byte `at` of the file on. */
ssize_t cp_io_pread(int fd, void *p, size_t n, uint64_t at);
/* All n bytes, also where it takes several calls. False: errno says why. */
bool cp_io_write(int fd, const void *p, size_t n);
bool cp_io_pwrite(int fd, const void *p, size_t n, uint64_t at);
/* close(2), unless fd is -1. errno stays as it is, so that a caller can report what failed. */
void cp_io_close(int fd);

/* Append a whole file (at most max bytes) to out. CP_NOT_FOUND, CP_IO, CP_TOO_LARGE. */
cp_code cp_file_read(const char *path, size_t max, cp_buf *out, cp_err *err);
/* The same from an open descriptor to its end; errors begin with `name`. */
cp_code cp_fd_read(int fd, const char *name, size_t max, cp_buf *out, cp_err *err);

#endif
