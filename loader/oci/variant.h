/*
 * Which entry of an image index is meant: by platform, by request, or by what fits into memory.
 *
 * Pure functions over a parsed index; any thread.
 */
#ifndef CP_LOADER_OCI_VARIANT_H
#define CP_LOADER_OCI_VARIANT_H

#include "loader/oci/manifest.h"

typedef struct cp_variant_wish {
    const char *os, *arch;  /* NULL: linux and this machine's */
    const char *variant;    /* NULL: what fits memory_budget best */
    uint64_t memory_budget; /* bytes; 0: no limit */
} cp_variant_wish;

/*
 * Choose an entry. w NULL: no wishes. why: one line for the log. CP_NOT_FOUND: nothing matches;
 * CP_USAGE: several do and nothing decides (the message lists them).
 */
cp_code cp_variant_choose(const cp_index *x, const cp_variant_wish *w, size_t *item, char why[256],
                          cp_err *err);
/* "linux/arm64" into a wish; the parts point into buf. CP_USAGE. platform NULL: nothing is set. */
cp_code cp_variant_platform(cp_variant_wish *w, char buf[64], const char *platform, cp_err *err);

#endif
