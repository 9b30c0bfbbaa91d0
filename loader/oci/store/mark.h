/*
 * Mark: which blobs of a store are in use, by what its index reaches and what leases name.
 *
 * What cannot be read keeps every blob: the set is incomplete then, and absence from it proves
 * nothing. One thread; who goes on to remove (sweep.h) holds CP_LOCK_BLOBS exclusively, so that
 * nothing is added meanwhile.
 */
#ifndef CP_LOADER_OCI_STORE_MARK_H
#define CP_LOADER_OCI_STORE_MARK_H

#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/layout.h"

/* Add what descriptor d reaches: its own blob, children, config, layers. */
void cp_mark_reachable(const cp_layout *l, const cp_descriptor *d, cp_digest_set *s);
/* Add all that is in use by entries and leases (void ones are removed, unless keep); broken (may be
 * NULL) gets the name of an entry that made it incomplete. CP_CORRUPT: the index. */
cp_code cp_mark_used(const cp_layout *l, bool keep, cp_digest_set *s, char broken[256],
                     cp_err *err);

#endif
