/*
 * The tree is the C library's (tsearch, a red-black tree). A node's key is the digest and the size
 * as one text, "sha256:6f1e...9c 612" for example. Whoever sends indexes cannot make it slow by
 * choosing digests, as he could with a hash table.
 */
#include "loader/oci/store/seen.h"

#include <inttypes.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* See seen.h. */
bool cp_seen_add(cp_seen *s, const cp_descriptor *d)
{
    size_t cap = sizeof(d->digest) + 24;
    if (!d->digest[0]) {
        s->n++;
        return true;
    }
    char *key = cp_xmalloc(cap);
    cp_snprintf(key, cap, "%s %" PRIu64, d->digest, d->size);
    char *const *node = tsearch(key, &s->root, by_text);
    CP_ASSERT(node); /* else out of memory, as cp_xmalloc */
    if (*node != key) {
        free(key);
        return false;
    }
    s->n++;
    return true;
}

/* See seen.h. */
void cp_seen_fini(cp_seen *s)
{
    tdestroy(s->root, free);
    *s = (cp_seen){0};
}
