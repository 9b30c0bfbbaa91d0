/*
 * Leases: what keeps a blob although no index names it yet, or although its name goes.
 *
 * A pull names the blobs that it will need, before it looks which are there, in a file under
 * capstan/leases/ that it holds locked; a lease whose process has died is void. A process that maps
 * a file holds a shared lock on that file itself, which needs no writing and so works in a
 * read-only store too. One thread a lease; any number of processes.
 */
#ifndef CP_LOADER_OCI_STORE_LEASE_H
#define CP_LOADER_OCI_STORE_LEASE_H

#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/layout.h"

typedef struct cp_lease {
    int dir, fd;
    char name[64];
} cp_lease;
cp_code cp_lease_take(cp_lease *out, const cp_layout *l, const cp_digest_set *digests, cp_err *err);
void cp_lease_drop(cp_lease *lease); /* one with dir = fd = -1 is fine */

/* Add what living leases name; void leases are removed, unless keep. The caller holds
 * CP_LOCK_BLOBS. */
void cp_lease_mark(const cp_layout *l, bool keep, cp_digest_set *s);

/* File fd is mapped from now on, until it is closed; failing is fine: the mapping outlives a
 * removed file. */
void cp_lease_hold(int fd);
/* Does a process have this file mapped? Where that cannot be told, it has. */
bool cp_lease_is_held(int fd);

#endif
