/*
 * found: what a reference names, found and verified, and not yet looked into.
 *
 * It is the first half of opening a model: everything that needs paths, folders and locks. The
 * second half (cp_loader_map) needs descriptors alone, and parses. So the halves may run in two
 * processes: a cp_found can be written as bytes, which go with its descriptors, and read again. It
 * belongs to its caller, one thread at a time.
 */
#ifndef CP_LOADER_FOUND_H
#define CP_LOADER_FOUND_H

#include "loader/extras.h"
#include "loader/loader.h"

enum { CP_PARTS_MAX = 512 }; /* files of one model */

/* Bytes [offset, offset + size) of an open file. */
typedef struct cp_found_part {
    int fd; /* locked while it is open: that keeps the file (oci/store/lease.h) */
    uint64_t offset, size;
    uint64_t layer;     /* of the manifest */
    uint8_t digest[32]; /* of the layer, or of a file named by path */
    char *what;         /* its name in messages */
    char *name;         /* of the file in its artifact; "": it has none */
} cp_found_part;

typedef struct cp_found {
    bool bare; /* a file named by path; parts[0] is that file */
    cp_found_part *parts;
    size_t n_parts;
    uint64_t shards; /* of a bare file: how many there are by its name; 0: it is not a shard's */
    cp_err missing;  /* of a bare file: why one of them is not among parts; CP_OK: all are */
    char cache_dir[CP_DIR_MAX], cache_dir_made[CP_DIR_MAX]; /* see loader.h */
    cp_extras extras;
} cp_found;

/* Errors as cp_loader_open, but for what parsing finds; each file begins like a model. */
cp_code cp_loader_find(cp_found **out, const char *ref, const cp_loader_options *opt, cp_err *err);
/* Map and parse. f is given away, whatever comes. */
cp_code cp_loader_map(cp_loaded **out, cp_found *f, cp_err *err);
void cp_found_free(cp_found *f);

/* Everything but the descriptors. False: out of memory. */
bool cp_found_write(const cp_found *f, cp_buf *out);
/* What was written, with a descriptor for each part in order, which are given away where it is
 * CP_OK. CP_INTERNAL: these are not such bytes, or not so many descriptors. */
cp_code cp_found_read(cp_found **out, const char *p, size_t n, const int *fds, size_t n_fds,
                      cp_err *err);

#endif
