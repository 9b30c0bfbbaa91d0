/*
 * Where blobs were had after redirects: the blob's next range is asked for there at once.
 *
 * A registry that keeps its blobs elsewhere answers each GET with a redirect to a URL that is good
 * for a while (distribution-spec, Pulling blobs). A cp_redirects is a caller-owned value that
 * remembers a few of them; one thread. A zeroed one is empty.
 */
#ifndef CP_LOADER_OCI_REMOTE_REDIRECTS_H
#define CP_LOADER_OCI_REMOTE_REDIRECTS_H

#include "base/digest.h"

enum { CP_REDIRECTS_MAX = 8 };

typedef struct cp_redirects {
    struct {
        char digest[CP_DIGEST_STR];
        size_t endpoint; /* which one redirected */
        char *url;       /* owned; NULL: the row is free */
    } row[CP_REDIRECTS_MAX];
    size_t n; /* remembered so far; the oldest makes room */
} cp_redirects;

/* The URL where a blob of that endpoint was had last; NULL: none is known. */
const char *cp_redirects_find(const cp_redirects *r, const char *digest, size_t endpoint);
void cp_redirects_put(cp_redirects *r, const char *digest, size_t endpoint, const char *url);
void cp_redirects_fini(cp_redirects *r);

#endif
