/*
 * gc and verify. gc holds both locks throughout, so that nobody adds or names a blob meanwhile;
 * pulls under way are known by their leases.
 */
#include "base/io.h"
#include "loader/oci/content/extract.h"
#include "loader/oci/resolve.h"
#include "loader/oci/store/cache_gc.h"
#include "loader/oci/store/folder.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/partial.h"
#include "loader/oci/store/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- gc ---- */

/* Beginnings of pulls. That nobody works on one now does not mean that no pull is about to. */
static void gc_partials(const cp_layout *l, bool dry_run, cp_gc_result *out)
{
    cp_digest_set leased = {0};
    char hex[CP_HEX_STR];
    cp_store_leased(l, dry_run, &leased);
    for (int left = 0; !leased.incomplete && left < 2; left++) {
        int dir = left ? cp_layout_partial_left(l) : cp_layout_partial_dir(l, false);
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
    cp_digest_set_list(&have, cp_layout_own_dir(l, "cache"), true);
    for (size_t i = 0; i < have.n; i++) {
        cp_digest_hex(have.d[i], hex);
        if (!cp_digest_set_has(blobs, have.d[i]))
            cp_store_cache_drop(l, hex, dry_run, &out->bytes);
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
    int extracted = cp_layout_own_dir(l, "extracted");
    cp_digest_set_list(&layers, cp_layout_own_dir(l, "extracted"), true);
    for (size_t i = 0; i < layers.n; i++) {
        cp_digest_hex(layers.d[i], hex);
        cp_extract_each(extracted, hex, add_key, keys);
    }
    cp_io_close(extracted);
    cp_digest_set_list(keys, cp_layout_blobs_dir(l), true);
    cp_digest_set_fini(&layers);
}

/* Records of files that are gone, and what writers of records left that were killed. Listed before
 * what they are of: a record is written after its file has its name. */
static void gc_records(const cp_layout *l, cp_digest_set *used)
{
    cp_digest_set have = {0}, keys = {0};
    char key[CP_HEX_STR];
    int dir = cp_layout_own_dir(l, "records");
    cp_digest_set_list(&have, cp_layout_own_dir(l, "records"), true);
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
    cp_code code = cp_store_used(l, dry_run, &used, broken, err);
    if (!code) {
        gc_partials(l, dry_run, out);
        cp_layout_temps_sweep(l, dry_run, &out->bytes);
    }
    if (!code && used.incomplete)
        code = cp_fail(err, CP_CORRUPT,
                       "%s: '%s' cannot be read, so no blob is known to be unused; remove that "
                       "name or pull it again",
                       l->path, broken[0] ? broken : "a lease");
    if (!code) {
        cp_snprintf(own, sizeof(own), "%s/capstan", l->path);
        cp_digest_set_list(&have, cp_layout_own_dir(l, "extracted"), true);
        for (size_t i = 0; i < have.n; i++) {
            cp_digest_hex(have.d[i], hex);
            if (!cp_digest_set_has(&used, have.d[i]) && !cp_store_extracted_mapped(l, hex))
                cp_extract_remove(own, hex, dry_run, &out->extracted, &out->bytes, NULL);
        }
        cp_digest_set_fini(&have);
        cp_digest_set_list(&have, cp_layout_blobs_dir(l), true);
        for (size_t i = 0; i < have.n; i++)
            if (!cp_digest_set_has(&used, have.d[i]))
                out->blobs += cp_store_blob_drop(l, have.d[i], dry_run, &out->bytes);
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

/* ---- verify ---- */

typedef struct sum {
    cp_progress_fn *progress;
    void *arg;
    uint64_t before, total;
} sum;

static void told(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    const sum *s = arg;
    (void)phase, (void)total;
    s->progress(s->arg, "verifying", s->before + done, s->total);
}

/* Is layer i hashed? A large one is left out by pulls, but other tools bring it. */
static bool is_hashed(const cp_resolved *r, size_t i)
{
    const cp_descriptor *d = &r->manifest->layer[i];
    uint64_t size;
    int fd;
    if (cp_plan_needs(&r->plan, i))
        return true;
    if (!d->sha256 || cp_layout_blob_open(&r->layout, d->raw, &fd, &size, NULL) == CP_NOT_FOUND)
        return false;
    cp_io_close(fd);
    return true;
}

static cp_code verify_layer(const cp_resolved *r, size_t i, sum *s, cp_err *err)
{
    const cp_descriptor *d = &r->manifest->layer[i];
    uint8_t digest[32];
    uint64_t size;
    int fd;
    cp_verify v = {.always = true,
                   .what = d->digest,
                   .want = d->raw,
                   .progress = s->progress ? told : NULL,
                   .arg = s};
    if (!d->sha256)
        return cp_fail(err, CP_CORRUPT, "layer %zu: its digest is not sha256, which alone is built",
                       i);
    cp_code code = cp_layout_blob_open(&r->layout, d->raw, &fd, &size, err);
    if (code == CP_NOT_FOUND)
        return cp_fail(err, CP_CORRUPT, "%s lacks the blob %s", r->layout.path, d->digest);
    if (code)
        return code;
    if (size != d->size)
        code =
            cp_fail(err, CP_CORRUPT, "%s: blob has %" PRIu64 " bytes, the manifest says %" PRIu64,
                    d->digest, size, d->size);
    cp_resolved_record(r, i, &v);
    if (!code)
        code = cp_verify_file(&v, fd, digest, NULL, err);
    close(fd);
    s->before += d->size;
    return code;
}

/* What was extracted, if anything was: its lists against the layers, its files against the lists.
 */
static cp_code verify_extracted(cp_resolved *r, sum *s, cp_err *err)
{
    cp_code code = cp_files_check(&r->layout, r->manifest, &r->plan, &r->places, NULL, NULL, err);
    if (code)
        return code;
    if (cp_files_list(&r->files, &r->layout, r->manifest, &r->plan, &r->places, NULL) != CP_OK)
        return CP_OK;
    for (size_t i = 0; !code && i < r->files->n; i++) {
        int fd;
        uint64_t offset, size;
        uint8_t digest[32];
        if (r->files->v[i].number < 0)
            continue;
        code = cp_resolved_file(r, i, true, &fd, &offset, &size, digest, err);
        if (!code)
            close(fd);
        s->before += r->files->v[i].size;
    }
    return code;
}

static cp_code verify_bare(cp_resolved *r, sum *s, cp_err *err)
{
    int fd;
    uint64_t offset;
    uint8_t digest[32];
    cp_code code = cp_resolved_prepare(r, false, err);
    if (!code)
        code = cp_resolved_file(r, 0, true, &fd, &offset, &s->before, digest, err);
    if (!code)
        close(fd);
    return code;
}

/* See loader.h. */
cp_code cp_store_verify(const cp_loader_options *opt, const char *ref, cp_progress_fn *progress,
                        void *arg, uint64_t *bytes, cp_err *err)
{
    cp_resolved r;
    sum s = {.progress = progress, .arg = arg};
    cp_buf config = {0};
    if (bytes)
        *bytes = 0;
    cp_code code = cp_resolve(&r, ref, opt, err); /* manifests are hashed here, always */
    if (code)
        return code;
    if (r.bare) {
        code = verify_bare(&r, &s, err);
    } else {
        const cp_manifest *m = r.manifest;
        s.total = m->config.size;
        for (size_t i = 0; i < m->n_layers; i++)
            s.total += is_hashed(&r, i) ? m->layer[i].size : 0;
        code = cp_layout_blob_read(&r.layout, &m->config, &config, err);
        if (code == CP_NOT_FOUND)
            code =
                cp_fail(err, CP_CORRUPT, "%s lacks the blob %s", r.layout.path, m->config.digest);
        s.before = m->config.size;
        for (size_t i = 0; !code && i < m->n_layers; i++)
            if (is_hashed(&r, i))
                code = verify_layer(&r, i, &s, err);
        if (!code)
            code = verify_extracted(&r, &s, err);
        cp_buf_fini(&config);
    }
    if (bytes)
        *bytes = s.before;
    cp_resolved_fini(&r);
    return code;
}

static bool holds_panels(const cp_places *p, const uint8_t digest[32])
{
    char hex[CP_HEX_STR], below[CP_DIGEST_STR + 16];
    bool found = false;
    cp_digest_hex(digest, hex);
    cp_snprintf(below, sizeof(below), "cache/%s", hex);
    for (int i = 0; i < p->n && !found; i++) {
        cp_fs_list list = cp_fs_list_take(cp_places_open(p, i, below, false));
        for (const char *name; !found && (name = cp_fs_list_next(&list));)
            found = strstr(name, ".panels") != NULL;
        cp_fs_list_close(&list);
    }
    return found;
}

/* See loader.h. */
bool cp_store_has_packed(const cp_loader_options *opt, const char *ref)
{
    cp_resolved r;
    bool found = false;
    if (cp_resolve(&r, ref, opt, NULL) != CP_OK)
        return false;
    if (r.bare) {
        uint8_t digest[32];
        uint64_t offset, size;
        int fd;
        if (cp_resolved_prepare(&r, false, NULL) == CP_OK &&
            cp_resolved_file(&r, 0, false, &fd, &offset, &size, digest, NULL) == CP_OK) {
            found = holds_panels(&r.places, digest);
            close(fd);
        }
    }
    for (size_t i = 0; !r.bare && !found && i < r.manifest->n_layers; i++)
        found = cp_plan_needs(&r.plan, i) && holds_panels(&r.places, r.manifest->layer[i].raw);
    cp_resolved_fini(&r);
    return found;
}
