/*
 * Giving names. The index is read and replaced under its lock, so that names which other processes
 * give meanwhile stay. The name is the whole annotation org.opencontainers.image.ref.name
 * (image-spec, image-layout.md): "docker.io/ai/smollm2:latest".
 */
#include "loader/oci/store/naming.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/mark.h"

#include <string.h>
#include <unistd.h>

/* See naming.h. */
cp_code cp_store_name(const cp_layout *l, const char *name, const cp_descriptor *d,
                      cp_digest_set *old, cp_err *err)
{
    int lock;
    cp_buf raw = {0}, json = {0};
    cp_index *x = NULL;
    bool named = false;
    cp_code code = cp_layout_lock_take(l, CP_LOCK_INDEX, true, &lock, err);
    if (code)
        return code;
    code = cp_layout_index(l, &x, &raw, err);
    for (size_t i = 0; !code && i < x->n; i++) {
        const cp_descriptor *e = &x->item[i];
        if (strcmp(e->ref_name, name) != 0)
            continue;
        if (strcmp(e->digest, d->digest) != 0)
            cp_mark_reachable(l, e, old);
        else
            named = e->size == d->size && strcmp(e->media_type, d->media_type) == 0;
    }
    if (!code && !(named && old->n == 0)) {
        code = cp_index_put(&json, raw.p, raw.n, name, d, err);
        if (!code)
            code = cp_layout_index_write(l, json.p, json.n, err);
    }
    close(lock);
    cp_index_free(x);
    cp_buf_fini(&raw);
    cp_buf_fini(&json);
    return code;
}
