/*
 * Pulling: a reference on a registry becomes an entry of the store, whole and verified.
 *
 * cp_pull blocks until done; it belongs to one thread, and any number of processes may pull, load
 * and remove at the same time. A tag is resolved once and everything after that goes by digest.
 * What is there already is not fetched again, whichever packaging brought it. Order: layers,
 * config, manifest, what must be extracted, name: a crash leaves no name without its blobs, and the
 * next pull goes on where this one ended. It hides the registry's protocol, partial files and
 * leases.
 */
#ifndef CP_LOADER_OCI_PULL_H
#define CP_LOADER_OCI_PULL_H

#include "loader/loader.h"
#include "loader/oci/remote/registry.h"

typedef struct cp_pull_options {
    cp_loader_options loader; /* store, default registry, verify_always (what is there), platform,
                                 variant, memory budget */
    cp_registry_options registry;
    uint64_t store_quota; /* bytes that the store may hold; 0: no limit */
} cp_pull_options;

/*
 * Pull ref (a name; CP_USAGE: a path or layout). The entry is called registry/repository:tag, or
 * registry/repository@sha256:... when ref has a digest and no tag. digest_out: what the name means
 * now, an index's digest where there is one. progress: phases "resolving" "verifying" "pulling"
 * "extracting" "done" with bytes of the whole model (0, 0: unknown), at most ten times a second.
 * Errors: the registry's (CP_NOT_FOUND, CP_NETWORK), CP_CORRUPT (a digest or size that does not
 * match, a malformed manifest, also a pinned digest), CP_UNSUPPORTED (packaging), CP_IO (no space,
 * over the quota: says the numbers).
 */
cp_code cp_pull(const cp_pull_options *opt, const char *ref, cp_progress_fn *progress, void *arg,
                char digest_out[72], cp_err *err);

#endif
