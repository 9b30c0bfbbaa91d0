/*
 * Walking from index entries to blobs. For example, an index of two models:
 *
 *     index.json -> index -> manifest A -> config, layers     pulled: all of it is here
 *                         -> manifest B                       left out: nothing of it is
 */
#include "loader/oci/store/mark.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/lease.h"

enum { MAX_NESTING = 3 };

/*
 * Depth is bounded by MAX_NESTING. True: d's own blob is there. What a nested index names may be
 * missing, pulls bring one of its entries; but what index.json names has been here, and one entry
 * of it: what that needed is unknown then, so every blob stays.
 */
static bool reach(const cp_layout *l, const cp_descriptor *d, int depth, cp_digest_set *s)
{
    cp_buf json = {0};
    if (!d->sha256 || depth > MAX_NESTING) {
        s->incomplete = true;
        return false;
    }
    cp_digest_set_add(s, d->raw);
    cp_code code = cp_blob_read(l, d, &json, NULL);
    bool here = code != CP_NOT_FOUND, child = false;
    cp_index *x = NULL;
    cp_manifest *m = NULL;
    if (code == CP_OK && cp_media_type_is_index(d->media_type))
        code = cp_index_parse(&x, json.p ? json.p : "", json.n, NULL);
    else if (code == CP_OK)
        code = cp_manifest_parse(&m, json.p ? json.p : "", json.n, NULL);
    for (size_t i = 0; x && i < x->n; i++)
        child = reach(l, &x->item[i], depth + 1, s) || child;
    if (here ? code != CP_OK : depth == 0)
        s->incomplete = true;
    if (depth == 0 && x && x->n > 0 && !child)
        s->incomplete = true;
    if (m && m->config.sha256)
        cp_digest_set_add(s, m->config.raw);
    for (size_t i = 0; m && i < m->n_layers; i++)
        if (m->layer[i].sha256)
            cp_digest_set_add(s, m->layer[i].raw);
    cp_index_free(x);
    cp_manifest_free(m);
    cp_buf_fini(&json);
    return here;
}

/* See mark.h. */
void cp_mark_reachable(const cp_layout *l, const cp_descriptor *d, cp_digest_set *s)
{
    reach(l, d, 0, s);
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
                       : x->item[i].digest[0] ? x->item[i].digest
                                              : "an entry that has no name and no sha256 digest");
    }
    cp_index_free(x);
    cp_lease_mark(l, keep, s);
    return CP_OK;
}
