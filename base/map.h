/*
 * map: maps files read-only, and survives a file which shrinks or fails under us.
 *
 * A cp_map belongs to its owner; any thread may read the bytes. A SIGBUS within one of our mappings
 * replaces the rest of that mapping by zero pages and marks it poisoned; at any other address the
 * previous action is restored, so that the process dies as it would have. The table of mappings
 * that the signal handler reads is hidden.
 */
#ifndef CP_BASE_MAP_H
#define CP_BASE_MAP_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cp_map {
    const uint8_t *p;
    size_t n;
    size_t lead; /* bytes before p in its page */
    int slot;    /* in the handler's table */
} cp_map;

/* Map the first n > 0 bytes of fd (which may be closed afterwards). `what` names the file in
 * messages. CP_IO, CP_NO_MEMORY: more than 1024 mappings. */
cp_code cp_map_open(cp_map *m, int fd, size_t n, const char *what, cp_err *err);
/* Map bytes [offset, offset + n) of fd; offset need not be a page's. */
cp_code cp_map_open_at(cp_map *m, int fd, uint64_t offset, size_t n, const char *what, cp_err *err);
/* Unmap. Nothing may read the bytes any more. A zeroed cp_map is fine. */
void cp_map_close(cp_map *m);
/* The mapping lost bytes: what was read since may be zeroes. Any thread. */
bool cp_map_poisoned(const cp_map *m);
/* The same of the mapping that holds address p, whoever made it; false: none does. Any thread. */
bool cp_map_lost(const void *p);
/* Ask the kernel to read bytes [off, n) ahead; returns at once. */
void cp_map_willneed(const cp_map *m, size_t off);
/* Have the kernel read it by huge pages, where its file system has such: for what is read whole and
 * again and again, as a miss may read 2 MiB. */
void cp_map_want_huge(const cp_map *m);
/* Give back what is resident of the mapping; what is read again comes from the page cache. Any
 * thread, beside readers too. */
void cp_map_forget(const cp_map *m);

#endif
