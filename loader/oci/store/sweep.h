/*
 * Sweep: removing blobs, and all that was derived from them, that are not in use (mark.h) and that
 * no process has mapped (lease.h). One thread. The caller holds CP_LOCK_BLOBS exclusively, so that
 * what was not in use when it was marked is not in use when it goes.
 */
#ifndef CP_LOADER_OCI_STORE_SWEEP_H
#define CP_LOADER_OCI_STORE_SWEEP_H

#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/layout.h"

/* Remove a blob, its record, its caches and what was extracted from it, unless a process has it
 * mapped. keep: only count. True: it is (or would be) gone. */
bool cp_sweep_blob(const cp_layout *l, const uint8_t d[32], bool keep, uint64_t *freed);
/* Remove the blobs of blobs/sha512 that are not in `used`, of all or of those in `among`; nothing
 * of ours is derived from them. keep: only count. How many. */
uint64_t cp_sweep_sha512(const cp_layout *l, cp_digest_set *used, cp_digest_set *among, bool keep,
                         uint64_t *freed);
/* Remove the caches of the model whose (first) weights are blob hex: capstan/cache/<hex>/, of which
 * cp_loaded_cache_dir tells. keep: only count. */
void cp_sweep_cache(const cp_layout *l, const char *hex, bool keep, uint64_t *freed);
/* Does a process have a file mapped that was extracted from layer hex? */
bool cp_sweep_keeps_extracted(const cp_layout *l, const char *hex);
/* Remove those of `candidates` that are not in use. The caller holds both locks. */
void cp_sweep_unused(const cp_layout *l, cp_digest_set *candidates, uint64_t *freed);
/* The same of an entry that a new one of the same name has replaced; takes the locks. Failing to
 * costs space only. */
void cp_sweep_replaced(const cp_layout *l, cp_digest_set *old);

#endif
