/*
 * The walk from a descriptor down through image indexes to the manifests behind it: one entry of an
 * index.json, or what a tag means on a registry (image-spec, image-index.md: an entry of an index
 * may be an index again).
 *
 *     entry -> index -> index -> manifest -> config, layers
 *
 * A cp_walk is a caller-owned value of functions, the visitor; they are called one after another on
 * the caller's thread, from the outside in, each entry's whole subtree before the next entry. The
 * visitor brings the documents and says which entries to go on with: one of each index where a
 * model is chosen, all of them where blobs are counted. The walk bounds depth and number, hands
 * each document out once (a digest that comes again is not read again, so that what indexes share
 * cannot multiply) and frees what it was given.
 */
#ifndef CP_LOADER_OCI_STORE_WALK_H
#define CP_LOADER_OCI_STORE_WALK_H

#include "loader/oci/store/layout.h"
#include "loader/oci/store/manifest.h"

enum {
    CP_WALK_NESTING = 3,         /* indexes, one in another */
    CP_WALK_DOCUMENTS = 1 << 15, /* of one walk, those that are missing included */
};

/* An index or a manifest on the way. */
typedef struct cp_document {
    const cp_descriptor *d; /* what names it */
    int depth;              /* 0: the first one */
    cp_index *index;        /* one of the two */
    cp_manifest *manifest;
} cp_document;

typedef struct cp_walk {
    void *arg;
    /* Bring doc->d's bytes and parse them into doc->index or doc->manifest, which the walk frees.
     */
    cp_code (*read)(void *arg, cp_document *doc, cp_err *err);
    /* A document could not be read, or is an index too deep: CP_OK goes on with the next entry,
     * else the walk ends with that code. NULL: it ends with `code`. */
    cp_code (*lost)(void *arg, const cp_document *doc, cp_code code, cp_err *err);
    /* An index: its entries may be changed or made fewer, and enter[i] is set for those to go on
     * with. NULL: with all. */
    cp_code (*index)(void *arg, const cp_document *doc, bool *enter, cp_err *err);
    /* A manifest; who sets doc->manifest to NULL keeps it. */
    cp_code (*manifest)(void *arg, cp_document *doc, cp_err *err);
} cp_walk;

/* Walk from d. CP_CORRUPT: indexes nested too deep, or too many documents; else what the visitor
 * returned. */
cp_code cp_walk_run(const cp_walk *w, const cp_descriptor *d, cp_err *err);

/* What `read` does in a layout: the blob, its digest checked, parsed as what its media type says.
 * CP_NOT_FOUND: it is not here. */
cp_code cp_document_read(const cp_layout *l, cp_document *doc, cp_err *err);

#endif
