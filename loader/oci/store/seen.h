/*
 * Which descriptors have been come by: a set of digests with sizes, of any algorithm.
 *
 * A caller-owned value; a zeroed one is empty; one thread. It is a balanced tree, so that hostile
 * digests cost no more than others.
 */
#ifndef CP_LOADER_OCI_STORE_SEEN_H
#define CP_LOADER_OCI_STORE_SEEN_H

#include "loader/oci/store/manifest.h"

typedef struct cp_seen {
    void *root;
    size_t n;
} cp_seen;

/* Add d; false: it is there already. The same digest with another size is another descriptor, and
 * one without a digest is new each time. */
bool cp_seen_add(cp_seen *s, const cp_descriptor *d);
void cp_seen_fini(cp_seen *s);

#endif
