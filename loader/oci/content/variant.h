/*
 * Which entry of an image index is meant: by platform, by request, or by what fits into memory.
 *
 * Pure functions over a parsed index; any thread. An index gives its entries' manifests' sizes, not
 * the models': where the choice goes by size, the caller reads those manifests first and sets
 * cp_descriptor.model_bytes (cp_variant_needs_bytes says of which).
 */
#ifndef CP_LOADER_OCI_CONTENT_VARIANT_H
#define CP_LOADER_OCI_CONTENT_VARIANT_H

#include "loader/oci/store/manifest.h"

enum { CP_VARIANTS_MAX = 1024 }; /* entries of an index to choose from */

typedef struct cp_variant_wish {
    const char *os, *arch; /* NULL: linux and this machine's */
    const char *cpu;       /* a variant of the architecture, "v8"; NULL: any, the plain one first */
    /* NULL: what fits memory_budget best. VALUE: of any metadata or annotation, the ref.name or the
     * digest; KEY=VALUE: of that one. Letter case does not matter. */
    const char *variant;
    uint64_t memory_budget; /* bytes; 0: no limit */
} cp_variant_wish;

/*
 * Choose an entry. w NULL: no wishes. Attestations never; what the request names; of entries with a
 * platform the wanted one; one that is left is taken; of several the largest that fits. why: one
 * line for the log, "" when there was no choice. CP_NOT_FOUND: nothing matches; CP_NO_MEMORY: none
 * fits; CP_USAGE: several match and no size decides (messages list what there is).
 */
cp_code cp_variant_choose(const cp_index *x, const cp_variant_wish *w, size_t *item, char why[256],
                          cp_err *err);
/* Would cp_variant_choose need the model_bytes of entry i, which are 0? */
bool cp_variant_needs_bytes(const cp_index *x, const cp_variant_wish *w, size_t i);
/* Is entry d what a request for this variant names? */
bool cp_variant_asked(const cp_descriptor *d, const char *variant);
/* "linux/arm64" or "linux/arm64/v8" into a wish; the parts point into buf, or are static. CP_USAGE.
 * platform NULL: nothing is set. */
cp_code cp_variant_platform(cp_variant_wish *w, char buf[64], const char *platform, cp_err *err);

#endif
