/*
 * Which blobs of a store are in use, and removing those that are not. Internal to the store's
 * functions.
 *
 * In use is what an entry of the index reaches, what a lease names (a pull is about to need it) and
 * what a process has mapped. A cp_digest_set is a caller-owned value; one thread. What removes
 * holds CP_LOCK_BLOBS exclusively.
 */
#ifndef CP_LOADER_OCI_STORE_REACH_H
#define CP_LOADER_OCI_STORE_REACH_H

#include "loader/oci/store/layout.h"

typedef struct cp_digest_set {
    uint8_t (*d)[32];
    size_t n, cap;
    bool sorted;
    bool incomplete; /* something could not be read: nothing may be concluded from absence */
} cp_digest_set;

void cp_digest_set_add(cp_digest_set *s, const uint8_t d[32]);
void cp_digest_set_sort(cp_digest_set *s); /* and each once */
bool cp_digest_set_has(cp_digest_set *s, const uint8_t d[32]);
void cp_digest_set_fini(cp_digest_set *s);

/* Add what descriptor d reaches: its own blob, children, config, layers. */
void cp_store_reach(const cp_layout *l, const cp_descriptor *d, cp_digest_set *s);
/* Add what living leases name; void leases are removed, unless keep. The caller holds
 * CP_LOCK_BLOBS. */
void cp_store_leased(const cp_layout *l, bool keep, cp_digest_set *s);
/* Add all that is in use by entries and leases; broken (may be NULL) gets the name of an entry that
 * made it incomplete. CP_CORRUPT: the index. */
cp_code cp_store_used(const cp_layout *l, bool keep, cp_digest_set *s, char broken[256],
                      cp_err *err);
/* Add the digests that names in folder dir are, or, unless whole, begin with; closes dir, -1 is
 * fine. */
void cp_digest_set_list(cp_digest_set *s, int dir, bool whole);
/* Remove a blob, its record, its caches and what was extracted from it, unless a process has it
 * mapped. keep: only count. True: it is (or would be) gone. */
bool cp_store_blob_drop(const cp_layout *l, const uint8_t d[32], bool keep, uint64_t *freed);
/* Remove the caches of the model whose (first) weights are blob hex: capstan/cache/<hex>/, of which
 * cp_loaded_cache_dir tells. keep: only count. */
void cp_store_cache_drop(const cp_layout *l, const char *hex, bool keep, uint64_t *freed);
/* Does a process have a file mapped that was extracted from layer hex? */
bool cp_store_extracted_mapped(const cp_layout *l, const char *hex);
/* Remove those of `candidates` that are not in use. The caller holds both locks. */
void cp_store_sweep(const cp_layout *l, const cp_digest_set *candidates, uint64_t *freed);

/* Let name mean d in the index; *old gets what it meant before, if anything else. */
cp_code cp_store_name(const cp_layout *l, const char *name, const cp_descriptor *d,
                      cp_digest_set *old, cp_err *err);
/* Sweep blobs of an entry that a new one of the same name has replaced. Failing to lock costs
 * space only. */
void cp_store_sweep_replaced(const cp_layout *l, const cp_digest_set *old);

/*
 * Leases. A pull names the blobs that it will need, before it looks which are there, in a file
 * under capstan/leases/ that it holds locked; a lease whose process has died is void. A process
 * that maps a file holds a shared lock on that file itself, which needs no writing and so works in
 * a read-only store too; fd must stay open as long.
 */
typedef struct cp_lease {
    int dir, fd;
    char name[64];
} cp_lease;
cp_code cp_lease_take(cp_lease *out, const cp_layout *l, const cp_digest_set *digests, cp_err *err);
void cp_lease_drop(cp_lease *lease); /* one with dir = fd = -1 is fine */
void cp_lease_map(int fd);           /* failing is fine: the mapping outlives a removed file */

#endif
