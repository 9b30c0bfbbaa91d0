/*
 * What lies at a store's path, decided in one place for every command. Nothing may be deleted in a
 * folder that these functions did not open.
 *
 * Fresh: absent, empty, or only lost+found, names that begin with a dot and what a killed
 * cp_folder_make left; a store can be made of it. Store: an image-layout (oci-layout) with an index
 * that can be read. Everything else is foreign, or a store that lost its index: CP_CORRUPT, and
 * nobody touches it. One thread; any number of processes.
 */
#ifndef CP_LOADER_OCI_STORE_FOLDER_H
#define CP_LOADER_OCI_STORE_FOLDER_H

#include "loader/oci/store/layout.h"

/* Open the store at path for reading. *fresh: there is none yet, and l->dir is -1. CP_CORRUPT:
 * foreign (names its first strange entry), or oci-layout or index.json are missing, malformed or
 * not to be read. */
cp_code cp_folder_open(cp_layout *l, const char *path, bool *fresh, cp_err *err);
/* The same, and where this process may write: CP_IO if not. For commands that will change it. */
cp_code cp_folder_open_writable(cp_layout *l, const char *path, bool *fresh, cp_err *err);
/* Open the store at path for writing; made of a fresh folder, with an empty index. */
cp_code cp_folder_make(cp_layout *l, const char *path, cp_err *err);

/* Open any image-layout for reading, not as a store: what `oci:` names. CP_NOT_FOUND: no such
 * folder. CP_CORRUPT: no (valid) oci-layout file in it. */
cp_code cp_layout_open(cp_layout *l, const char *path, cp_err *err);

#endif
