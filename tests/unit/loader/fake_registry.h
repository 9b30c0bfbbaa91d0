/*
 * A registry in memory that stands in for loader/oci/remote/registry.c in test_loader_pull: the
 * same functions, no network, faults on request. One at a time; a test sets cp_fake and fills it.
 */
#ifndef CP_TESTS_LOADER_FAKE_REGISTRY_H
#define CP_TESTS_LOADER_FAKE_REGISTRY_H

#include "base/digest.h"
#include "loader/oci/remote/registry.h"

enum { CP_FAKE_ITEMS = 64, CP_FAKE_RUNNING = 64 };

typedef struct cp_fake_item {
    char name[128]; /* of a blob its digest, of a manifest a tag or digest */
    char media_type[128];
    uint8_t *p;
    size_t n;
} cp_fake_item;

typedef struct cp_fake {
    cp_fake_item blob[CP_FAKE_ITEMS], manifest[CP_FAKE_ITEMS];
    size_t n_blobs, n_manifests;
    /* moods */
    size_t chunk;        /* bytes a `data` call; 0: 64 KiB */
    bool no_ranges;      /* CP_UNSUPPORTED to any part */
    bool short_body;     /* the last byte of each fetch does not come, and `done` says CP_OK */
    bool long_body;      /* one byte more than asked for is delivered */
    bool reversed;       /* the youngest fetch is served first */
    uint64_t wrong_at;   /* the byte at this offset of each blob is wrong ... */
    uint64_t wrong_left; /* ... for so many more fetches that hold it */
    uint64_t fail_after; /* after so many bytes everything fails with CP_NETWORK; 0: never */
    /* what was seen */
    uint64_t sent, n_fetches, n_ranged, n_manifest_gets, longest, n_upstream;
    int most_running;
    cp_fetch *running[CP_FAKE_RUNNING];
    uint64_t at[CP_FAKE_RUNNING];
    int n_running;
} cp_fake;

extern cp_fake *cp_fake_now;

cp_fake *cp_fake_new(void); /* becomes cp_fake_now */
void cp_fake_free(cp_fake *f);
/* n bytes from `salt` as a blob; digest gets its name. */
const cp_fake_item *cp_fake_blob(cp_fake *f, size_t n, uint32_t salt, char digest[CP_DIGEST_STR]);
const cp_fake_item *cp_fake_blob_of(cp_fake *f, const void *p, size_t n,
                                    char digest[CP_DIGEST_STR]);
/* A manifest by its digest and by tag (NULL: none); replaces the tag. */
void cp_fake_manifest(cp_fake *f, const char *tag, const char *media_type, const void *p, size_t n,
                      char digest[CP_DIGEST_STR]);

#endif
