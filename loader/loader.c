/*
 * Opening a model: find its files (found.h), map them, parse. A model is one file, or the shards of
 * a split one; shards are put in order by their own split.no, and only the first one's metadata
 * counts. Everything is checked before the caller sees it.
 */
#include "loader/loader.h"
#include "base/io.h"
#include "base/map.h"
#include "loader/formats/foreign.h"
#include "loader/formats/format.h"
#include "loader/found.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

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

/* Map and parse what was found as part p, whose descriptor becomes ours. */
static cp_code open_part(part *p, cp_found_part *f, cp_err *err)
{
    p->layer = (size_t)f->layer;
    memcpy(p->digest, f->digest, sizeof(p->digest));
    p->fd = f->fd;
    f->fd = -1;
    cp_code code = cp_map_open_at(&p->map, p->fd, f->offset, (size_t)f->size, f->what, err);
    if (code)
        return code;
    const cp_format *format = cp_format_of(p->map.p, p->map.n);
    code = format ? format->parse(&p->w, p->map.p, p->map.n, err)
                  : cp_foreign_file(p->map.p, p->map.n, err);
    if (code) {
        cp_err_prefix(err, "%s", f->what);
        return code;
    }
    cp_map_willneed(&p->map, (size_t)p->w->data_offset);
    cp_meta_u64(p->w->meta, "split.no", &p->no);
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
static cp_code several(const cp_found *f, cp_err *err)
{
    char names[300];
    size_t at = 0;
    names[0] = '\0';
    for (size_t i = 0; i < f->n_parts && at < 200; i++)
        at += cp_snprintf(names + at, sizeof(names) - at, "%s%.80s", at ? ", " : "",
                          f->parts[i].name[0] ? f->parts[i].name : "(unnamed)");
    return cp_fail(err, CP_USAGE,
                   "the artifact holds %zu separate GGUF files; name one as variant: %s",
                   f->n_parts, names);
}

/* Of a file by path the rest was found by names, which may promise what the file does not. */
static cp_code open_siblings(cp_loaded *m, cp_found *f, uint64_t count, cp_err *err)
{
    if (f->shards != count)
        return cp_fail(err, CP_CORRUPT,
                       "%s: one of %" PRIu64 " shards, but not named NAME-00001-of-%05" PRIu64
                       ".gguf",
                       f->parts[0].what, count, count);
    if (f->missing.code) {
        if (err)
            *err = f->missing;
        return f->missing.code;
    }
    cp_code code = CP_OK;
    for (size_t i = 1; !code && i < f->n_parts; i++)
        code = open_part(&m->parts[m->n_parts++], &f->parts[i], err);
    return code;
}

static cp_code open_all(cp_loaded *m, cp_found *f, cp_err *err)
{
    uint64_t count = 1;
    size_t sure = f->bare ? 1 : f->n_parts; /* are weights of this model */
    cp_code code = CP_OK;
    m->parts = cp_xcalloc(CP_PARTS_MAX, sizeof(*m->parts));
    for (size_t i = 0; i < CP_PARTS_MAX; i++)
        m->parts[i].fd = -1;
    for (size_t i = 0; !code && i < sure; i++)
        code = open_part(&m->parts[m->n_parts++], &f->parts[i], err);
    if (code)
        return code;
    const part *first = &m->parts[0];
    if (cp_meta_u64(first->w->meta, "split.count", &count) && (count == 0 || count > CP_PARTS_MAX))
        return cp_fail(err, CP_CORRUPT, "split.count is %" PRIu64 "; allowed: 1 to %d", count,
                       CP_PARTS_MAX);
    if (count == 1 && sure > 1)
        return several(f, err);
    if (count == 1) {
        m->tensors = first->w->tensors;
        m->n_tensors = first->w->n_tensors;
        m->index = &first->w->index;
    } else {
        if (f->bare)
            code = open_siblings(m, f, count, err);
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
        set_digest(m, f->bare);
    return code;
}

/* See found.h. */
cp_code cp_loader_map(cp_loaded **out, cp_found *f, cp_err *err)
{
    cp_loaded *m = cp_xcalloc(1, sizeof(*m));
    *out = NULL;
    cp_code code = open_all(m, f, err);
    memcpy(m->cache_dir, f->cache_dir, sizeof(m->cache_dir));
    memcpy(m->cache_dir_made, f->cache_dir_made, sizeof(m->cache_dir_made));
    m->extras = f->extras;
    f->extras = (cp_extras){0};
    cp_found_free(f);
    if (code)
        cp_loaded_close(m);
    else
        *out = m;
    return code;
}

/* See loader.h. */
cp_code cp_loader_open(cp_loaded **out, const char *ref, const cp_loader_options *opt, cp_err *err)
{
    cp_found *f;
    *out = NULL;
    cp_code code = cp_loader_find(&f, ref, opt, err);
    return code ? code : cp_loader_map(out, f, err);
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
