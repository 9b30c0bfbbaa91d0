/*
 * Opening a model: resolve, verify, map, parse. A model is one file, or the shards of a split one;
 * shards are put in order by their own split.no, and only the first one's metadata counts.
 * Everything is checked before the caller sees it.
 */
#include "loader/loader.h"
#include "base/io.h"
#include "base/log.h"
#include "base/map.h"
#include "loader/extras.h"
#include "loader/formats/foreign.h"
#include "loader/formats/format.h"
#include "loader/oci/resolve.h"
#include "loader/oci/store/lease.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARTS_MAX = 512, MAX_TOLD = 16 };

typedef struct part {
    cp_map map;
    int fd; /* open as long as the map: that keeps the file (oci/store/lease.h) */
    cp_weights *w;
    uint8_t digest[32];
    uint64_t no;  /* split.no */
    size_t layer; /* of the manifest */
} part;

struct cp_loaded {
    part *parts;
    size_t n_parts;
    const cp_tensor *tensors; /* the only part's, or merged */
    size_t n_tensors;
    const cp_name_index *index;
    cp_tensor *merged; /* owned; NULL for one part */
    cp_name_index merged_index;
    size_t bytes;
    char digest[CP_DIGEST_STR];
    char cache_dir[CP_DIR_MAX], cache_dir_made[CP_DIR_MAX]; /* see loader.h */
    cp_extras extras;
};

/* Open file i of r as part p. */
static cp_code open_part(part *p, const cp_resolved *r, size_t i, bool verify_always, cp_err *err)
{
    int fd;
    uint64_t offset, size;
    char what[CP_DIR_MAX];
    const cp_file *f = &r->files->v[i];
    if (r->bare)
        cp_strcopy(what, sizeof(what), r->ref.path);
    else
        cp_snprintf(what, sizeof(what), "%s%s%s", r->manifest->layer[f->layer].digest,
                    f->in_tar ? ": " : "", f->in_tar ? f->path : "");
    cp_code code = cp_resolved_file(r, i, verify_always, &fd, &offset, &size, p->digest, err);
    if (code)
        return code;
    p->layer = f->layer;
    if (size == 0 || size > SIZE_MAX)
        code = cp_fail(err, CP_CORRUPT, "%s: %" PRIu64 " bytes is no model", what, size);
    else
        code = cp_map_open_at(&p->map, fd, offset, (size_t)size, what, err);
    if (!r->bare)
        cp_lease_hold(fd);
    p->fd = fd;
    if (code)
        return code;
    const cp_format *format = cp_format_of(p->map.p, p->map.n);
    code = format ? format->parse(&p->w, p->map.p, p->map.n, err)
                  : cp_foreign_file(p->map.p, p->map.n, err);
    if (code) {
        cp_err_prefix(err, "%s", what);
        return code;
    }
    cp_map_willneed(&p->map, (size_t)p->w->data_offset);
    cp_meta_u64(p->w->meta, "split.no", &p->no);
    return CP_OK;
}

/*
 * Path of shard `no` (0-based) of `count`, from the path of any shard: PREFIX-%05d-of-%05d.gguf.
 * False: the path is not of that form.
 */
static bool shard_path(char out[CP_DIR_MAX], const char *path, uint64_t no, uint64_t count)
{
    char tail[40];
    size_t n = strlen(path),
           k = cp_snprintf(tail, sizeof(tail), "-00000-of-%05" PRIu64 ".gguf", count);
    if (n <= k || n >= CP_DIR_MAX)
        return false;
    const char *have = path + n - k;
    if (have[0] != '-' || strspn(have + 1, "0123456789") < 5 || strcmp(have + 6, tail + 6) != 0)
        return false;
    memcpy(out, path, n - k);
    cp_snprintf(out + n - k, CP_DIR_MAX - (n - k), "-%05" PRIu64 "-of-%05" PRIu64 ".gguf", no + 1,
                count);
    return true;
}

/* The other shards of a file given by path: parts[1..]. */
static cp_code open_siblings(cp_loaded *m, const char *path, uint64_t count,
                             const cp_loader_options *opt, cp_err *err)
{
    uint64_t first = m->parts[0].no;
    for (uint64_t no = 0; no < count; no++) {
        char sibling[CP_DIR_MAX];
        cp_resolved r;
        if (no == first)
            continue;
        if (m->n_parts == count || !shard_path(sibling, path, no, count))
            return cp_fail(err, CP_CORRUPT,
                           "%s: one of %" PRIu64 " shards, but not named NAME-00001-of-%05" PRIu64
                           ".gguf",
                           path, count, count);
        cp_code code = cp_resolve(&r, sibling, opt, err);
        if (code)
            return code;
        code = cp_resolved_prepare(&r, false, err);
        if (!code)
            code = open_part(&m->parts[m->n_parts++], &r, 0, opt && opt->verify_always, err);
        cp_resolved_fini(&r);
        if (code)
            return code;
    }
    return CP_OK;
}

static int by_number(const void *a, const void *b)
{
    const part *x = a, *y = b;
    return (x->no > y->no) - (x->no < y->no);
}

/* Shards in order, their counts checked, their tensors in one list. */
static cp_code merge(cp_loaded *m, uint64_t count, cp_err *err)
{
    uint64_t total = 0, claimed, n;
    qsort(m->parts, m->n_parts, sizeof(*m->parts), by_number);
    for (size_t i = 0; i < m->n_parts; i++) {
        const part *p = &m->parts[i];
        if (p->no != i || !cp_meta_u64(p->w->meta, "split.count", &n) || n != count)
            return cp_fail(err, CP_CORRUPT,
                           "shard %zu of %" PRIu64 " is missing, twice there or of another model",
                           i, count);
        total += p->w->n_tensors;
    }
    if (cp_meta_u64(m->parts[0].w->meta, "split.tensors.count", &claimed) && claimed != total)
        return cp_fail(err, CP_CORRUPT,
                       "shards hold %" PRIu64 " tensors, the first one says %" PRIu64, total,
                       claimed);
    m->merged = calloc(total ? (size_t)total : 1, sizeof(*m->merged));
    if (!m->merged || !cp_name_index_init(&m->merged_index, (size_t)total))
        return cp_fail(err, CP_NO_MEMORY, "no memory for %" PRIu64 " tensors", total);
    size_t k = 0;
    for (size_t i = 0; i < m->n_parts; i++)
        for (size_t j = 0; j < m->parts[i].w->n_tensors; j++, k++) {
            m->merged[k] = m->parts[i].w->tensors[j];
            if (!cp_name_index_add(&m->merged_index, m->merged, k))
                return cp_fail(err, CP_CORRUPT, "tensor '%s' is in two shards", m->merged[k].name);
        }
    m->tensors = m->merged;
    m->n_tensors = (size_t)total;
    m->index = &m->merged_index;
    return CP_OK;
}

/* One file's digest is its own, or that of the layer that it lies in; so is that of all shards in
 * one layer. Of shards in several it is the digest of their digests in order. */
static void set_digest(cp_loaded *m, bool bare)
{
    uint8_t all[32];
    bool one = true;
    for (size_t i = 1; i < m->n_parts; i++)
        one = one && !bare && m->parts[i].layer == m->parts[0].layer;
    if (one) {
        cp_digest_format(m->parts[0].digest, m->digest);
        return;
    }
    cp_sha256 *h = cp_sha256_new();
    for (size_t i = 0; i < m->n_parts; i++)
        cp_sha256_add(h, m->parts[i].digest, 32);
    cp_sha256_done(h, all);
    cp_digest_format(all, m->digest);
}

/* Complete models side by side, with names that no rule tells apart. */
static cp_code several(const cp_resolved *r, size_t n, cp_err *err)
{
    char names[300];
    size_t at = 0;
    names[0] = '\0';
    for (size_t i = 0; i < r->files->n && at < 200; i++)
        if (r->files->v[i].role == CP_ROLE_WEIGHTS)
            at += cp_snprintf(names + at, sizeof(names) - at, "%s%.80s", at ? ", " : "",
                              r->files->v[i].path[0] ? r->files->v[i].path : "(unnamed)");
    return cp_fail(err, CP_USAGE,
                   "the artifact holds %zu separate GGUF files; name one as variant: %s", n, names);
}

static cp_code open_all(cp_loaded *m, const cp_resolved *r, const cp_loader_options *opt,
                        cp_err *err)
{
    uint64_t count = 1;
    cp_code code = CP_OK;
    m->parts = cp_xcalloc(PARTS_MAX, sizeof(*m->parts));
    for (size_t i = 0; i < PARTS_MAX; i++)
        m->parts[i].fd = -1;
    for (size_t i = 0; !code && i < r->files->n; i++) {
        if (r->files->v[i].role != CP_ROLE_WEIGHTS)
            continue;
        if (m->n_parts == PARTS_MAX)
            return cp_fail(err, CP_CORRUPT, "more than %d weight files", PARTS_MAX);
        code = open_part(&m->parts[m->n_parts++], r, i, opt && opt->verify_always, err);
    }
    if (code)
        return code;
    size_t n = m->n_parts;
    const part *first = &m->parts[0];
    if (cp_meta_u64(first->w->meta, "split.count", &count) && (count == 0 || count > PARTS_MAX))
        return cp_fail(err, CP_CORRUPT, "split.count is %" PRIu64 "; allowed: 1 to %d", count,
                       PARTS_MAX);
    if (count == 1 && n > 1)
        return several(r, n, err);
    if (count == 1) {
        m->tensors = first->w->tensors;
        m->n_tensors = first->w->n_tensors;
        m->index = &first->w->index;
    } else {
        if (r->bare)
            code = open_siblings(m, r->ref.path, count, opt, err);
        if (!code)
            code = m->n_parts == count
                       ? merge(m, count, err)
                       : cp_fail(err, CP_CORRUPT, "%zu of %" PRIu64 " shards are there", m->n_parts,
                                 count);
    }
    if (!code && cp_loaded_poisoned(m))
        code = cp_fail(err, CP_CORRUPT, "a file shrank while it was opened");
    for (size_t i = 0; !code && i < m->n_parts; i++)
        m->bytes += m->parts[i].map.n;
    if (!code)
        set_digest(m, r->bare);
    return code;
}

/* Folders by the blob of the first weights, with which the store removes its own. */
static void set_cache_dirs(cp_loaded *m, const cp_resolved *r)
{
    const part *first = &m->parts[0];
    const cp_places *p = &r->places;
    char hex[CP_HEX_STR], below[CP_DIGEST_STR + 16];
    cp_digest_hex(r->bare ? first->digest : r->manifest->layer[first->layer].raw, hex);
    cp_snprintf(below, sizeof(below), "cache/%s", hex);
    for (int i = 0; i < p->n; i++) {
        char *out = i == p->write ? m->cache_dir : m->cache_dir_made;
        int dir = cp_places_open(p, i, below, i == p->write);
        if (dir < 0)
            continue;
        if (cp_snprintf(out, CP_DIR_MAX, "%s/%s", p->dir[i], below) >= CP_DIR_MAX)
            out[0] = '\0';
        cp_places_used(dir);
        close(dir);
    }
}

/* Say once a process and layout that what lies in it is not believed. */
static void tell_places(const cp_places *p)
{
    static _Atomic uint64_t told[MAX_TOLD];
    uint8_t digest[32];
    uint64_t key;
    if (!p->why[0])
        return;
    cp_sha256_of(p->layout, strlen(p->layout), digest);
    memcpy(&key, digest, sizeof(key));
    for (size_t i = 0; i < MAX_TOLD; i++) {
        uint64_t none = 0; /* relaxed would do: nothing else is read by it */
        if (atomic_compare_exchange_strong(&told[i], &none, key)) {
            cp_log(CP_LOG_INFO, "%s: %s: records, extracted files and packed weights are %s%s",
                   p->layout, p->why, p->write < 0 ? "kept nowhere" : "this user's own, in ",
                   p->write < 0 ? "" : p->dir[p->write]);
            return;
        }
        if (none == key)
            return;
    }
}

/* See loader.h. */
cp_code cp_loader_open(cp_loaded **out, const char *ref, const cp_loader_options *opt, cp_err *err)
{
    cp_resolved r;
    *out = NULL;
    cp_code code = cp_resolve(&r, ref, opt, err);
    if (code)
        return code;
    cp_loaded *m = cp_xcalloc(1, sizeof(*m));
    tell_places(&r.places);
    code = cp_resolved_prepare(&r, opt && opt->verify_always, err);
    if (!code)
        code = open_all(m, &r, opt, err);
    if (!code)
        code = cp_extras_read(&m->extras, &r, opt && opt->verify_always, err);
    if (!code)
        set_cache_dirs(m, &r);
    cp_resolved_fini(&r);
    if (code)
        cp_loaded_close(m);
    else
        *out = m;
    return code;
}

/* See loader.h. */
void cp_loaded_close(cp_loaded *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_parts; i++) {
        cp_weights_free(m->parts[i].w);
        cp_map_close(&m->parts[i].map);
        cp_io_close(m->parts[i].fd);
    }
    cp_name_index_fini(&m->merged_index);
    cp_extras_fini(&m->extras);
    free(m->merged);
    free(m->parts);
    free(m);
}

/* See loader.h. */
const cp_meta *cp_loaded_meta(const cp_loaded *m)
{
    return m->parts[0].w->meta;
}

/* See loader.h. */
size_t cp_loaded_n_tensors(const cp_loaded *m)
{
    return m->n_tensors;
}

/* See loader.h. */
const cp_tensor *cp_loaded_tensor(const cp_loaded *m, size_t i)
{
    CP_ASSERT(i < m->n_tensors);
    return &m->tensors[i];
}

/* See loader.h. */
const cp_tensor *cp_loaded_find(const cp_loaded *m, const char *name)
{
    int64_t i = cp_name_index_find(m->index, m->tensors, name);
    return i < 0 ? NULL : &m->tensors[i];
}

/* See loader.h. */
const char *cp_loaded_digest(const cp_loaded *m)
{
    return m->digest;
}

/* See loader.h. */
const char *cp_loaded_quant(const cp_loaded *m)
{
    return cp_weights_quant(m->parts[0].w);
}

/* See loader.h. */
size_t cp_loaded_bytes(const cp_loaded *m)
{
    return m->bytes;
}

/* See loader.h. */
bool cp_loaded_poisoned(const cp_loaded *m)
{
    for (size_t i = 0; i < m->n_parts; i++)
        if (cp_map_poisoned(&m->parts[i].map))
            return true;
    return false;
}

/* See loader.h. */
void cp_loaded_forget(const cp_loaded *m)
{
    for (size_t i = 0; i < m->n_parts; i++)
        cp_map_forget(&m->parts[i].map);
}

/* See loader.h. */
const char *cp_loaded_cache_dir(const cp_loaded *m)
{
    return m->cache_dir;
}

/* See loader.h. */
const char *cp_loaded_cache_dir_made(const cp_loaded *m)
{
    return m->cache_dir_made;
}

/* See loader.h. */
cp_str cp_loaded_template(const cp_loaded *m)
{
    return (cp_str){m->extras.chat_template.n ? m->extras.chat_template.p : "",
                    m->extras.chat_template.n};
}

/* See loader.h. */
const char *cp_loaded_params(const cp_loaded *m)
{
    return m->extras.params.n ? m->extras.params.p : NULL;
}

/* See loader.h. */
int64_t cp_loaded_context_size(const cp_loaded *m)
{
    return m->extras.context_size;
}

/* See loader.h. */
size_t cp_loaded_n_notes(const cp_loaded *m)
{
    return m->extras.n_notes;
}

/* See loader.h. */
const char *cp_loaded_note(const cp_loaded *m, size_t i)
{
    CP_ASSERT(i < m->extras.n_notes);
    return m->extras.notes[i];
}
