/*
 * Moving blobs from a registry into a layout: ranges over several connections straight into their
 * final place, hashed on the way, taken up where an earlier process left off.
 *
 * A cp_transfer is a caller-owned value that says what to move; cp_transfer_run blocks until all of
 * it is there and verified, or until the first failure (what was written then stays for the next
 * run). Registry and callbacks are used on the calling thread; each blob under way has one more,
 * which reads back what was written, hashes it and publishes the blob. Memory: a buffer of 256 KiB
 * a blob under way, at most connections + 4 of them.
 */
#ifndef CP_LOADER_OCI_TRANSFER_H
#define CP_LOADER_OCI_TRANSFER_H

#include "loader/oci/remote/registry.h"
#include "loader/oci/store/layout.h"

enum { CP_RANGE_UNITS = 16 }; /* a range asked for at once: at most 16 MiB */

typedef struct cp_transfer {
    const cp_layout *layout;
    cp_registry *registry;
    const cp_places *places;          /* for records of verified blobs */
    const cp_descriptor *const *blob; /* [n] in the order they are wanted, no digest twice */
    size_t n;
    int connections; /* 0: the default */
    bool mirrored;   /* wrong bytes may be a mirror's fault: ask upstream once */
    cp_progress_fn *progress;
    void *arg;
    uint64_t done, total; /* bytes of the whole model: there already, and in all */
} cp_transfer;

/* CP_CORRUPT: a blob's bytes or size are not what its descriptor says. Else the registry's codes,
 * CP_IO. */
cp_code cp_transfer_run(const cp_transfer *t, cp_err *err);

#endif
