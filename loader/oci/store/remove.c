/*
 * Removing a name, and what nothing else needs. The blobs' lock is held exclusively, so that no
 * blob goes which a pack in another process has written and not yet named. What the entry reached
 * is noted before the name goes and asked for afterwards: a blob that another entry, a lease or a
 * mapping needs stays.
 */
#include "base/io.h"
#include "base/log.h"
#include "loader/loader.h"
#include "loader/oci/resolve.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/folder.h"
#include "loader/oci/store/mark.h"
#include "loader/oci/store/sweep.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Is `name` the same as `other` but for what follows the repository, a tag or a digest? */
static bool same_repository(const char *name, const char *other)
{
    const char *tag = strrchr(other, ':');
    size_t n = tag ? (size_t)(tag - other) : strlen(other);
    return strncmp(name, other, n) == 0 && (name[n] == ':' || name[n] == '@' || !name[n]);
}

/* Does NAME@DIGEST mean this entry? Other names that have the digest, too, are none of its
 * business. */
static bool is_meant(const cp_descriptor *d, const cp_ref *ref)
{
    return strcmp(d->digest, ref->digest) == 0 && d->ref_name[0] &&
           (same_repository(d->ref_name, ref->typed) ||
            same_repository(d->ref_name, ref->canonical));
}

/* Which entries of x the reference means; false: none. */
static bool mark_entries(const cp_index *x, const cp_ref *ref, bool *drop)
{
    int64_t first = cp_resolve_name(x, ref);
    bool any = false;
    for (size_t i = 0; first >= 0 && i < x->n; i++) {
        const cp_descriptor *d = &x->item[first];
        drop[i] = ref->digest[0]    ? is_meant(&x->item[i], ref)
                  : !d->ref_name[0] ? cp_resolve_unnamed(&x->item[i], d->digest)
                                    : strcmp(x->item[i].ref_name, d->ref_name) == 0;
        any = any || drop[i];
    }
    return any;
}

/* sweep: blobs may go too. */
static cp_code rm_locked(const cp_layout *l, const cp_ref *ref, bool sweep, uint64_t *freed,
                         cp_err *err)
{
    cp_buf raw = {0}, json = {0};
    cp_index *x = NULL;
    cp_digest_set gone = {0};
    cp_code code = cp_layout_index(l, &x, &raw, err);
    bool *drop = code ? NULL : cp_xcalloc(x->n ? x->n : 1, sizeof(*drop));
    if (!code && !mark_entries(x, ref, drop))
        code = cp_fail(err, CP_NOT_FOUND, "'%s%s%s' is not in the store %s", ref->typed,
                       ref->digest[0] ? "@" : "", ref->digest, l->path);
    for (size_t i = 0; !code && i < x->n; i++)
        if (drop[i])
            cp_mark_reachable(l, &x->item[i], &gone);
    if (!code)
        code = cp_index_drop(&json, raw.p, raw.n, drop, err);
    if (!code)
        code = cp_layout_index_write(l, json.p, json.n, err);
    if (!code && sweep)
        cp_sweep_unused(l, &gone, freed);
    cp_digest_set_fini(&gone);
    free(drop);
    cp_index_free(x);
    cp_buf_fini(&raw);
    cp_buf_fini(&json);
    return code;
}

/* See loader.h. */
cp_code cp_store_rm(const cp_loader_options *opt, const char *ref, uint64_t *freed, cp_err *err)
{
    char path[CP_DIR_MAX];
    cp_ref parsed;
    cp_layout l = {.dir = -1};
    int blobs = -1, index = -1;
    bool fresh;
    uint64_t bytes = 0;
    cp_code code = cp_ref_parse_name(&parsed, ref, opt ? opt->default_registry : NULL, err);
    if (!code)
        code = cp_dir_store(path, opt ? opt->store : NULL, err);
    if (!code)
        code = cp_folder_open_writable(&l, path, &fresh, err);
    if (!code && fresh)
        code = cp_fail(err, CP_NOT_FOUND, "'%s' is not in the store %s (which is empty)",
                       parsed.typed, path);
    if (!code) { /* makes the lock files' folder, in a store that another tool made */
        cp_layout_close(&l);
        code = cp_folder_make(&l, path, err);
    }
    if (!code)
        code = cp_layout_lock_take(&l, CP_LOCK_BLOBS, true, &blobs, err);
    bool locked = !code;
    if (code == CP_UNSUPPORTED) { /* the name can go all the same */
        cp_log(CP_LOG_WARN, "%s: its name goes, its blobs stay", parsed.typed);
        code = CP_OK;
    }
    if (!code)
        code = cp_layout_lock_take(&l, CP_LOCK_INDEX, true, &index, err);
    if (!code)
        code = rm_locked(&l, &parsed, locked, &bytes, err);
    cp_io_close(index);
    cp_io_close(blobs);
    cp_layout_close(&l);
    if (freed)
        *freed = bytes;
    return code;
}
