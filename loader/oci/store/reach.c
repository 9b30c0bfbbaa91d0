/*
 * Reachability, leases and sweeping. What cannot be read keeps every blob: absence proves nothing
 * then.
 */
#include "loader/oci/store/reach.h"
#include "base/io.h"
#include "loader/oci/content/extract.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_NESTING = 3, MAX_REACHED = 1 << 20, MAX_LEASES = 4096 };

/* ---- sets ---- */

/* See reach.h. */
void cp_digest_set_add(cp_digest_set *s, const uint8_t d[32])
{
    if (s->n == MAX_REACHED) {
        s->incomplete = true;
        return;
    }
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->d = cp_xrealloc(s->d, s->cap * sizeof(*s->d));
    }
    memcpy(s->d[s->n++], d, 32);
    s->sorted = false;
}

static int by_digest(const void *a, const void *b)
{
    return memcmp(a, b, 32);
}

/* See reach.h. */
void cp_digest_set_sort(cp_digest_set *s)
{
    size_t n = 0;
    if (s->sorted || s->n == 0)
        return;
    qsort(s->d, s->n, sizeof(*s->d), by_digest);
    for (size_t i = 0; i < s->n; i++)
        if (n == 0 || memcmp(s->d[n - 1], s->d[i], 32) != 0)
            memmove(s->d[n++], s->d[i], 32);
    s->n = n;
    s->sorted = true;
}

/* See reach.h. */
bool cp_digest_set_has(cp_digest_set *s, const uint8_t d[32])
{
    cp_digest_set_sort(s);
    return s->n > 0 && bsearch(d, s->d, s->n, sizeof(*s->d), by_digest);
}

/* See reach.h. */
void cp_digest_set_fini(cp_digest_set *s)
{
    free(s->d);
    *s = (cp_digest_set){0};
}

/* See reach.h. */
void cp_digest_set_list(cp_digest_set *s, int dir, bool whole)
{
    cp_fs_list list = cp_fs_list_take(dir);
    for (const char *name; (name = cp_fs_list_next(&list));) {
        uint8_t raw[32];
        if (cp_digest_of_hex(name, raw) && (!whole || strlen(name) == 64))
            cp_digest_set_add(s, raw);
    }
    cp_fs_list_close(&list);
    cp_digest_set_sort(s);
}

/* ---- what is in use ---- */

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
    cp_code code = cp_layout_blob_read(l, d, &json, NULL);
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

/* See reach.h. */
void cp_store_reach(const cp_layout *l, const cp_descriptor *d, cp_digest_set *s)
{
    reach(l, d, 0, s);
}

/* Add the digests of one lease file, a line of hex each; void ones are removed, unless keep. */
static void collect_lease(int dir, const char *name, bool keep, cp_digest_set *s)
{
    char text[64 * 65];
    int fd = cp_fs_lock_file(dir, name, false);
    if (fd < 0) {
        s->incomplete = s->incomplete || errno != ENOENT;
        return;
    }
    if (cp_fs_flock(fd, LOCK_EX | LOCK_NB) == CP_FLOCK_HELD) {
        if (!keep)
            unlinkat(dir, name, 0);
        close(fd);
        return;
    }
    for (size_t round = 0; round < MAX_REACHED / 64; round++) {
        ssize_t n = cp_io_read(fd, text, sizeof(text));
        if (n == 0)
            break;
        if (n < 0 || n % 65 != 0) {
            s->incomplete = true;
            break;
        }
        for (ssize_t i = 0; i < n; i += 65) {
            uint8_t raw[32];
            if (cp_digest_of_hex(text + i, raw))
                cp_digest_set_add(s, raw);
            else
                s->incomplete = true;
        }
    }
    close(fd);
}

/* See reach.h. */
void cp_store_leased(const cp_layout *l, bool keep, cp_digest_set *s)
{
    int dir = cp_layout_own_dir(l, "leases");
    if (dir < 0 && errno == ENOENT)
        return;
    cp_fs_list list = cp_fs_list_take(dir);
    s->incomplete = s->incomplete || !list.d;
    for (const char *name; (name = cp_fs_list_next(&list));) {
        if (list.n > MAX_LEASES) {
            s->incomplete = true;
            break;
        }
        if (name[0] != '.')
            collect_lease(list.dir, name, keep, s);
    }
    cp_fs_list_close(&list);
}

/* See reach.h. */
cp_code cp_store_used(const cp_layout *l, bool keep, cp_digest_set *s, char broken[256],
                      cp_err *err)
{
    cp_index *x;
    cp_code code = cp_layout_index(l, &x, NULL, err);
    if (code)
        return code;
    for (size_t i = 0; i < x->n; i++) {
        bool before = s->incomplete;
        cp_store_reach(l, &x->item[i], s);
        if (broken && s->incomplete && !before)
            cp_strcopy(broken, 256,
                       x->item[i].ref_name[0] ? x->item[i].ref_name
                       : x->item[i].digest[0] ? x->item[i].digest
                                              : "an entry that has no name and no sha256 digest");
    }
    cp_index_free(x);
    cp_store_leased(l, keep, s);
    return CP_OK;
}

/* ---- leases ---- */

/* See reach.h. */
cp_code cp_lease_take(cp_lease *out, const cp_layout *l, const cp_digest_set *digests, cp_err *err)
{
    uint64_t rnd = 0;
    cp_buf text = {0};
    *out = (cp_lease){.fd = -1};
    out->dir = cp_layout_own_make(l, "leases");
    for (size_t i = 0; i < digests->n; i++) {
        char hex[CP_HEX_STR];
        cp_digest_hex(digests->d[i], hex);
        cp_buf_printf(&text, "%s\n", hex);
    }
    bool ok = out->dir >= 0 && !text.failed && getrandom(&rnd, sizeof(rnd), 0) == sizeof(rnd);
    cp_snprintf(out->name, sizeof(out->name), "%d-%016" PRIx64, (int)getpid(), rnd);
    if (ok)
        out->fd = openat(out->dir, out->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    ok = ok && out->fd >= 0 && cp_fs_flock(out->fd, LOCK_EX) != CP_FLOCK_FAILED &&
         cp_io_write(out->fd, text.p, text.n);
    cp_buf_fini(&text);
    if (ok)
        return CP_OK;
    cp_code code =
        cp_fail(err, CP_IO, "%s/capstan/leases/%s: %s", l->path, out->name, strerror(errno));
    cp_lease_drop(out);
    return code;
}

/* See reach.h. */
void cp_lease_drop(cp_lease *lease)
{
    if (lease->fd >= 0) {
        unlinkat(lease->dir, lease->name, 0);
        close(lease->fd);
    }
    cp_io_close(lease->dir);
    lease->fd = lease->dir = -1;
}

/* See reach.h. */
void cp_lease_map(int fd)
{
    flock(fd, LOCK_SH | LOCK_NB);
}

/* ---- sweeping ---- */

/* Does a process have this file mapped (cp_lease_map)? Where that cannot be told, it has. */
static bool is_mapped(int fd)
{
    char path[64];
    cp_flock_state state = cp_fs_flock(fd, LOCK_EX | LOCK_NB);
    if (state == CP_FLOCK_FAILED && errno == EBADF) { /* NFS: only on what is open for writing */
        cp_snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int again = open(path, O_RDWR | O_CLOEXEC);
        state = again < 0 ? CP_FLOCK_FAILED : cp_fs_flock(again, LOCK_EX | LOCK_NB);
        cp_io_close(again);
    }
    return state != CP_FLOCK_HELD;
}

/* See reach.h. */
bool cp_store_extracted_mapped(const cp_layout *l, const char *hex)
{
    int root = cp_layout_own_dir(l, "extracted");
    cp_fs_list list = cp_fs_list_take(cp_fs_open_folder(root, hex));
    bool mapped = false;
    cp_io_close(root);
    for (const char *name; !mapped && (name = cp_fs_list_next(&list));) {
        int fd = name[0] == '.' ? -1 : cp_fs_open(list.dir, name);
        mapped = fd >= 0 && is_mapped(fd);
        cp_io_close(fd);
    }
    cp_fs_list_close(&list);
    return mapped;
}

/* See reach.h. */
void cp_store_cache_drop(const cp_layout *l, const char *hex, bool keep, uint64_t *freed)
{
    int dir = cp_layout_own_dir(l, "cache");
    if (dir >= 0) {
        cp_dir_remove(dir, hex, keep, freed);
        close(dir);
    }
}

/* See reach.h. */
bool cp_store_blob_drop(const cp_layout *l, const uint8_t d[32], bool keep, uint64_t *freed)
{
    char path[CP_DIR_MAX + 16], hex[CP_HEX_STR];
    uint64_t size = 0, folders = 0;
    int fd;
    cp_digest_hex(d, hex);
    if (cp_layout_blob_open(l, d, &fd, &size, NULL) != CP_OK)
        fd = -1;
    if ((fd >= 0 && is_mapped(fd)) || cp_store_extracted_mapped(l, hex)) {
        cp_io_close(fd);
        return false;
    }
    cp_store_cache_drop(l, hex, keep, freed);
    bool gone = cp_layout_blob_remove(l, d, keep, freed);
    if (!keep) {
        cp_snprintf(path, sizeof(path), "%s/capstan", l->path);
        cp_extract_remove(path, hex, false, &folders, freed, NULL);
        int records = cp_layout_own_dir(l, "records");
        if (records >= 0) {
            unlinkat(records, hex, 0);
            close(records);
        }
    }
    cp_io_close(fd);
    return gone;
}

/* See reach.h. */
void cp_store_sweep(const cp_layout *l, const cp_digest_set *candidates, uint64_t *freed)
{
    cp_digest_set used = {0};
    if (cp_store_used(l, false, &used, NULL, NULL) == CP_OK)
        for (size_t i = 0; !used.incomplete && i < candidates->n; i++)
            if (!cp_digest_set_has(&used, candidates->d[i]))
                cp_store_blob_drop(l, candidates->d[i], false, freed);
    cp_digest_set_fini(&used);
}

/* ---- naming ---- */

/* See reach.h. */
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
            cp_store_reach(l, e, old);
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

/* See reach.h. */
void cp_store_sweep_replaced(const cp_layout *l, const cp_digest_set *old)
{
    int blobs, index;
    uint64_t freed = 0;
    if (old->n == 0 || cp_layout_lock_take(l, CP_LOCK_BLOBS, true, &blobs, NULL) != CP_OK)
        return;
    if (cp_layout_lock_take(l, CP_LOCK_INDEX, true, &index, NULL) == CP_OK) {
        cp_store_sweep(l, old, &freed);
        close(index);
    }
    close(blobs);
}
