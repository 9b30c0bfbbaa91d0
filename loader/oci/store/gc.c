/*
 * Collecting garbage by mark and sweep: what entries and leases reach is marked (mark.h), and what
 * is not marked is swept (sweep.h). gc holds both locks throughout, so that nobody adds or names a
 * blob meanwhile; pulls under way are known by their leases. Where an entry cannot be read, blobs
 * stay and only what no entry could need goes.
 */
#include "base/io.h"
#include "loader/oci/content/extract.h"
#include "loader/oci/resolve.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/blobs_dir.h"
#include "loader/oci/store/cache_gc.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/folder.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/lease.h"
#include "loader/oci/store/mark.h"
#include "loader/oci/store/partial.h"
#include "loader/oci/store/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Beginnings of pulls. That nobody works on one now does not mean that no pull is about to. */
static void gc_partials(const cp_layout *l, bool dry_run, cp_gc_result *out)
{
    cp_digest_set leased = {0};
    char hex[CP_HEX_STR];
    cp_lease_mark(l, dry_run, &leased);
    for (int left = 0; !leased.incomplete && left < 2; left++) {
        int dir = left ? cp_blobs_partial_left(l) : cp_blobs_partial(l, false);
        cp_digest_set have = {0};
        if (dir < 0)
            continue;
        cp_digest_set_list(&have, cp_fs_open_folder(dir, "."), false);
        for (size_t i = 0; i < have.n; i++) {
            cp_digest_hex(have.d[i], hex);
            if (!cp_digest_set_has(&leased, have.d[i]))
                out->partials += cp_partial_sweep(dir, hex, dry_run, &out->bytes);
        }
        close(dir);
        cp_digest_set_fini(&have);
    }
    cp_digest_set_fini(&leased);
}

/* Caches whose blob is not there; the others go with their blob. */
static void gc_caches(const cp_layout *l, cp_digest_set *blobs, bool dry_run, cp_gc_result *out)
{
    cp_digest_set have = {0};
    char hex[CP_HEX_STR];
    cp_digest_set_list(&have, cp_layout_own(l, "cache", false), true);
    for (size_t i = 0; i < have.n; i++) {
        cp_digest_hex(have.d[i], hex);
        if (!cp_digest_set_has(blobs, have.d[i]))
            cp_sweep_cache(l, hex, dry_run, &out->bytes);
    }
    cp_digest_set_fini(&have);
}

static void add_key(void *arg, const char *hex, int number)
{
    char key[CP_HEX_STR];
    uint8_t raw[32];
    cp_record_key_extracted(key, hex, number);
    if (cp_digest_of_hex(key, raw))
        cp_digest_set_add(arg, raw);
}

/* The keys of the records of what was extracted, and the blobs that there are. */
static void recorded_files(const cp_layout *l, cp_digest_set *keys)
{
    cp_digest_set layers = {0};
    char hex[CP_HEX_STR];
    int extracted = cp_layout_own(l, "extracted", false);
    cp_digest_set_list(&layers, cp_layout_own(l, "extracted", false), true);
    for (size_t i = 0; i < layers.n; i++) {
        cp_digest_hex(layers.d[i], hex);
        cp_extract_each(extracted, hex, add_key, keys);
    }
    cp_io_close(extracted);
    cp_digest_set_list(keys, cp_blobs_dir(l), true);
    cp_digest_set_fini(&layers);
}

/* Records of files that are gone, and what writers of records left that were killed. Listed before
 * what they are of: a record is written after its file has its name. */
static void gc_records(const cp_layout *l, cp_digest_set *used)
{
    cp_digest_set have = {0}, keys = {0};
    char key[CP_HEX_STR];
    int dir = cp_layout_own(l, "records", false);
    cp_digest_set_list(&have, cp_layout_own(l, "records", false), true);
    recorded_files(l, &keys);
    for (size_t i = 0; dir >= 0 && i < have.n; i++) {
        cp_digest_hex(have.d[i], key);
        if (!cp_digest_set_has(&keys, have.d[i]) && !cp_digest_set_has(used, have.d[i]))
            unlinkat(dir, key, 0);
    }
    if (dir >= 0)
        cp_record_temps_sweep(dir);
    cp_digest_set_fini(&have);
    cp_digest_set_fini(&keys);
}

static cp_code gc_locked(const cp_layout *l, bool dry_run, cp_gc_result *out, cp_err *err)
{
    cp_digest_set used = {0}, have = {0};
    char broken[256] = "", hex[CP_HEX_STR], own[CP_DIR_MAX + 16];
    cp_code code = cp_mark_used(l, dry_run, &used, broken, err);
    if (!code) {
        gc_partials(l, dry_run, out);
        cp_blobs_sweep_temps(l, dry_run, &out->bytes);
    }
    if (!code && used.incomplete)
        code = cp_fail(err, CP_CORRUPT,
                       "%s: '%s' cannot be read, so no blob is known to be unused; remove that "
                       "name or pull it again",
                       l->path, broken[0] ? broken : "a lease");
    if (!code) {
        cp_snprintf(own, sizeof(own), "%s/capstan", l->path);
        cp_digest_set_list(&have, cp_layout_own(l, "extracted", false), true);
        for (size_t i = 0; i < have.n; i++) {
            cp_digest_hex(have.d[i], hex);
            if (!cp_digest_set_has(&used, have.d[i]) && !cp_sweep_keeps_extracted(l, hex))
                cp_extract_remove(own, hex, dry_run, &out->extracted, &out->bytes, NULL);
        }
        cp_digest_set_fini(&have);
        cp_digest_set_list(&have, cp_blobs_dir(l), true);
        for (size_t i = 0; i < have.n; i++)
            if (!cp_digest_set_has(&used, have.d[i]))
                out->blobs += cp_sweep_blob(l, have.d[i], dry_run, &out->bytes);
        out->blobs += cp_sweep_sha512(l, &used, NULL, dry_run, &out->bytes);
        gc_caches(l, &have, dry_run, out);
        cp_cache_gc_store(l, dry_run, out);
        if (!dry_run)
            gc_records(l, &used);
    }
    cp_digest_set_fini(&have);
    cp_digest_set_fini(&used);
    return code;
}

/* Both locks; a dry run takes those that are there and makes none. */
static cp_code gc_locks(const cp_layout *l, bool dry_run, int fd[2], cp_err *err)
{
    static const cp_layout_lock order[2] = {CP_LOCK_BLOBS, CP_LOCK_INDEX};
    cp_code code = CP_OK;
    for (int i = 0; !code && i < 2; i++)
        code = dry_run ? cp_layout_lock_look(l, order[i], &fd[i], err)
                       : cp_layout_lock_take(l, order[i], true, &fd[i], err);
    return code;
}

static cp_code gc_store(const char *path, bool dry_run, cp_gc_result *out, cp_err *err)
{
    cp_layout l = {.dir = -1};
    int lock[2] = {-1, -1};
    bool fresh;
    cp_code code = dry_run ? cp_folder_open(&l, path, &fresh, err)
                           : cp_folder_open_writable(&l, path, &fresh, err);
    if (code || fresh)
        return code; /* no store, no garbage */
    if (!dry_run) {  /* the lock files' folder, in a store that another tool made */
        cp_layout_close(&l);
        code = cp_folder_make(&l, path, err);
    }
    if (!code)
        code = gc_locks(&l, dry_run, lock, err);
    if (!code)
        code = gc_locked(&l, dry_run, out, err);
    for (int i = 1; i >= 0; i--)
        cp_io_close(lock[i]);
    cp_layout_close(&l);
    return code;
}

/* See loader.h. */
cp_code cp_store_gc(const cp_loader_options *opt, bool dry_run, cp_gc_result *out, cp_err *err)
{
    char path[CP_DIR_MAX];
    *out = (cp_gc_result){0};
    cp_code code = cp_dir_store(path, opt ? opt->store : NULL, err);
    if (!code)
        code = gc_store(path, dry_run, out, err);
    if (!code)
        cp_cache_gc(dry_run, out);
    return code;
}
