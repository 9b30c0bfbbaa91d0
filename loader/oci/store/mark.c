/*
 * Marking walks from every entry of index.json. What a nested index names may be missing, because a
 * pull brings one of its entries; but what index.json names has been here, and one entry of it:
 * what that needed is unknown then, so every blob stays. For example, an index of two models:
 *
 *     index.json -> index -> manifest A -> config, layers     pulled: all of it is here
 *                         -> manifest B                       left out: nothing of it is
 */
#include "loader/oci/store/mark.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/lease.h"
#include "loader/oci/store/walk.h"

typedef struct marking {
    const cp_layout *l;
    cp_digest_set *s;
    bool entries, entry_here; /* the first document is an index with some, and one is here */
} marking;

static void mark(cp_digest_set *s, const cp_descriptor *d)
{
    uint8_t key[32];
    if (d->sha256) {
        cp_digest_set_add(s, d->raw);
    } else if (cp_blob_known(d)) {
        cp_digest_set_key(d->digest, key);
        cp_digest_set_add(s, key);
    }
}

static cp_code mark_document(void *arg, cp_document *doc, cp_err *err)
{
    marking *k = arg;
    mark(k->s, doc->d);
    cp_code code = cp_document_read(k->l, doc, err);
    k->entry_here = k->entry_here || (doc->depth == 1 && code != CP_NOT_FOUND);
    k->entries = k->entries || (doc->depth == 0 && doc->index && doc->index->n > 0);
    return code;
}

static cp_code pass_by(void *arg, const cp_document *doc, cp_code code, cp_err *err)
{
    marking *k = arg;
    (void)err;
    if (code != CP_NOT_FOUND || doc->depth == 0)
        k->s->incomplete = true;
    return CP_OK;
}

static cp_code mark_blobs(void *arg, cp_document *doc, cp_err *err)
{
    marking *k = arg;
    const cp_manifest *m = doc->manifest;
    (void)err;
    mark(k->s, &m->config);
    for (size_t i = 0; i < m->n_layers; i++)
        mark(k->s, &m->layer[i]);
    return CP_OK;
}

/* See mark.h. */
void cp_mark_reachable(const cp_layout *l, const cp_descriptor *d, cp_digest_set *s)
{
    marking k = {.l = l, .s = s};
    const cp_walk w = {.arg = &k, .read = mark_document, .lost = pass_by, .manifest = mark_blobs};
    if (cp_walk_run(&w, d, NULL) || (k.entries && !k.entry_here))
        s->incomplete = true;
}

/* See mark.h. */
cp_code cp_mark_used(const cp_layout *l, bool keep, cp_digest_set *s, char broken[256], cp_err *err)
{
    cp_index *x;
    cp_code code = cp_layout_index(l, &x, NULL, err);
    if (code)
        return code;
    for (size_t i = 0; i < x->n; i++) {
        bool before = s->incomplete;
        cp_mark_reachable(l, &x->item[i], s);
        if (broken && s->incomplete && !before)
            cp_strcopy(broken, 256,
                       x->item[i].ref_name[0] ? x->item[i].ref_name
                       : x->item[i].digest[0]
                           ? x->item[i].digest
                           : "an entry that has no name, and a digest that is too long");
    }
    cp_index_free(x);
    cp_lease_mark(l, keep, s);
    return CP_OK;
}
