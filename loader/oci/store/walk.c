/*
 * The walk calls itself once a level of nesting, so it is never deeper than CP_WALK_NESTING + 1.
 * Digests make circles impossible, as an index would have to hold its own hash. They do not make
 * sharing impossible: an index that lists another one a thousand times, which does the same, would
 * be a million documents. So each document is read once, and their number is bounded.
 */
#include "loader/oci/store/walk.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/seen.h"

#include <stdlib.h>

typedef struct run {
    const cp_walk *w;
    cp_seen seen;
} run;

static cp_code visit(run *r, const cp_descriptor *d, int depth, cp_err *err);

/* The entries of an index that the visitor wants. */
static cp_code visit_entries(run *r, const cp_document *doc, cp_err *err)
{
    const cp_walk *w = r->w;
    const cp_index *x = doc->index;
    bool *enter = cp_xcalloc(x->n ? x->n : 1, sizeof(*enter));
    cp_code code = w->index ? w->index(w->arg, doc, enter, err) : CP_OK;
    for (size_t i = 0; !code && i < x->n; i++)
        if (enter[i] || !w->index)
            code = visit(r, &x->item[i], doc->depth + 1, err);
    free(enter);
    return code;
}

static cp_code read_document(const run *r, cp_document *doc, cp_err *err)
{
    cp_code code = r->w->read(r->w->arg, doc, err);
    if (!code && doc->index && doc->depth >= CP_WALK_NESTING)
        code = cp_fail(err, CP_CORRUPT, "indexes are nested more than %d deep", CP_WALK_NESTING);
    return code;
}

static cp_code visit(run *r, const cp_descriptor *d, int depth, cp_err *err)
{
    const cp_walk *w = r->w;
    cp_document doc = {.d = d, .depth = depth};
    if (!cp_seen_add(&r->seen, d))
        return CP_OK;
    if (r->seen.n > CP_WALK_DOCUMENTS)
        return cp_fail(err, CP_CORRUPT, "an index reaches more than %d manifests",
                       CP_WALK_DOCUMENTS);
    cp_code code = read_document(r, &doc, err);
    if (code)
        code = w->lost ? w->lost(w->arg, &doc, code, err) : code;
    else if (doc.index)
        code = visit_entries(r, &doc, err);
    else
        code = w->manifest(w->arg, &doc, err);
    cp_index_free(doc.index);
    cp_manifest_free(doc.manifest);
    return code;
}

/* See walk.h. */
cp_code cp_walk_run(const cp_walk *w, const cp_descriptor *d, cp_err *err)
{
    run r = {.w = w};
    cp_code code = visit(&r, d, 0, err);
    cp_seen_fini(&r.seen);
    return code;
}

/* See walk.h. */
cp_code cp_document_read(const cp_layout *l, cp_document *doc, cp_err *err)
{
    cp_buf json = {0};
    cp_code code = cp_blob_read(l, doc->d, &json, err);
    const char *text = json.p ? json.p : "";
    if (!code)
        code = cp_media_type_is_index(doc->d->media_type)
                   ? cp_index_parse(&doc->index, text, json.n, err)
                   : cp_manifest_parse(&doc->manifest, text, json.n, err);
    cp_buf_fini(&json);
    return code;
}
