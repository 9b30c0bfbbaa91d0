/*
 * The folder blobs/ of a layout, and blobs/sha256 in it.
 *
 * In a store of this user's or root's (cp_layout.owned) `blobs` may be a symbolic link, made by one
 * of the two, to a folder on another disk; everywhere else no link is followed. What gc and rm
 * remove there must be the store's own, so the folder behind a link belongs to one store: an id in
 * it (.capstan-id) and the same in the store (capstan/blobs.id) say which. One thread; any number
 * of processes.
 */
#ifndef CP_LOADER_OCI_STORE_BLOBS_DIR_H
#define CP_LOADER_OCI_STORE_BLOBS_DIR_H

#include "loader/oci/store/layout.h"

/* The folder blobs/sha256; -1 with errno. */
int cp_blobs_dir(const cp_layout *l);
/* The folder blobs/sha512, which other tools fill; -1 with errno. */
int cp_blobs_dir_sha512(const cp_layout *l);
/* Why it could not be opened with errno `why`: names what is in its place. Never CP_OK. */
cp_code cp_blobs_failed(const cp_layout *l, int why, cp_err *err);
/* Is `blobs` a folder, or a link that may be followed, and blobs/sha256 a folder, or are they
 * absent? CP_CORRUPT or CP_IO says what else there is, and what to do. */
cp_code cp_blobs_check(const cp_layout *l, cp_err *err);
/* Make blobs/sha256, and where `blobs` is a link claim what it leads to. CP_CORRUPT: another store
 * has. */
cp_code cp_blobs_make(const cp_layout *l, cp_err *err);

/* The folder of pulls under way, on the file system of the blobs; -1 with errno. */
int cp_blobs_partial(const cp_layout *l, bool make);
/* The folder that pulls had for them before `blobs` became a link, or before it was none any more;
 * -1: there is none. */
int cp_blobs_partial_left(const cp_layout *l);

#endif
