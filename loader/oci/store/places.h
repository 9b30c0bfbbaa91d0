/*
 * Where what is derived from a layout lies: records, extracted files, packed weights.
 *
 * A start believes these without deriving them again, so they are read only from folders that
 * nobody but this user and root could have filled: the layout's own capstan/ where it is a store
 * (named by --store or the default) of this user's or root's, and the user's cache. Never from
 * below a path that `oci:` names: what lies there came from somewhere else, even if tar made this
 * user its owner. A cp_places is a caller-owned value without resources; any thread. Nothing below
 * such a folder is reached through a symbolic link.
 */
#ifndef CP_LOADER_OCI_STORE_PLACES_H
#define CP_LOADER_OCI_STORE_PLACES_H

#include "loader/oci/store/dirs.h"

enum { CP_PLACES_MAX = 2 };

typedef struct cp_places {
    char dir[CP_PLACES_MAX][CP_DIR_MAX]; /* where to look, in this order */
    bool own[CP_PLACES_MAX];             /* it is the layout's capstan/, else the user's cache */
    int n;
    int write;               /* which of them takes what is new; -1: none can be written */
    char layout[CP_DIR_MAX]; /* the layout's path without links; "": none */
    char why[256];           /* why the layout's own folder is passed over; "": it is not */
} cp_places;

/*
 * The places of the layout at `path`, open as dir; path NULL: of a file that is no layout's.
 * `store`: it was named as a store, not by `oci:`. make: a store's capstan/ and the user's cache
 * are made where they are needed.
 */
void cp_places_of(cp_places *out, const char *path, int dir, bool store, bool make);

/* The folder `below` ("records", "extracted/<hex>") of place i, every part of it this user's or
 * root's and nobody else's to write; made if wanted. -1: errno, EPERM where it is not. */
int cp_places_open(const cp_places *p, int i, const char *below, bool make);
/* File `name` of such a folder, for reading, if its owner and mode let it be believed
 * (base/trust.h). -1 with errno. */
int cp_places_file(int dir, const char *name);
/* Note that a file or folder of ours was used now, by its mtime, which nothing compares; `gc` goes
 * by that (atime may be off, and a use of a mapped file does not set it). Failing is fine. */
void cp_places_used(int fd);

#endif
