/*
 * Sets of sha256 digests. A cp_digest_set is a caller-owned value; one thread; a zeroed one is
 * empty. It is made for adding many and then asking many, as asking sorts.
 */
#ifndef CP_LOADER_OCI_STORE_DIGEST_SET_H
#define CP_LOADER_OCI_STORE_DIGEST_SET_H

#include "base/digest.h"

enum { CP_DIGEST_SET_MAX = 1 << 20 };

typedef struct cp_digest_set {
    uint8_t (*d)[32];
    size_t n, cap;
    bool sorted;
    bool incomplete; /* something could not be read: nothing may be concluded from absence */
} cp_digest_set;

/* What stands in a set for a digest of another algorithm: the sha256 of its text. */
void cp_digest_set_key(const char *digest, uint8_t key[32]);
/* Beyond CP_DIGEST_SET_MAX the set is incomplete instead. */
void cp_digest_set_add(cp_digest_set *s, const uint8_t d[32]);
void cp_digest_set_sort(cp_digest_set *s); /* and each once */
bool cp_digest_set_has(cp_digest_set *s, const uint8_t d[32]);
/* Add the digests that names in folder dir are (64 digits), or, unless whole, begin with; closes
 * dir, -1 is fine. */
void cp_digest_set_list(cp_digest_set *s, int dir, bool whole);
void cp_digest_set_fini(cp_digest_set *s);

#endif
