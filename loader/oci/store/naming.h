/*
 * Names of a store: which entry of index.json has one. A name belongs to one entry; who gives it
 * anew takes it from the old one. One thread; takes CP_LOCK_INDEX.
 */
#ifndef CP_LOADER_OCI_STORE_NAMING_H
#define CP_LOADER_OCI_STORE_NAMING_H

#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/layout.h"

/* Let name mean d in the index; *old gets what it meant before, if anything else. */
cp_code cp_store_name(const cp_layout *l, const char *name, const cp_descriptor *d,
                      cp_digest_set *old, cp_err *err);

#endif
