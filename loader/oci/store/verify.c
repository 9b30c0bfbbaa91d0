/*
 * Hashing everything behind an entry again that is in the store, and comparing what was derived
 * from the model that a start would take. An index promises no entry but that one (a pull brings
 * one): what lies here of the others is hashed as well, what does not is no fault. For example,
 * with "+" for what is here:
 *
 *     + index -> + manifest (this platform) -> + config, + weights     promised, hashed
 *             -> + manifest (another one)   -> + config, - weights     hashed: manifest and config
 *             -> - manifest                                            nothing to hash
 *
 * What was packed from the weights is the backend's to compare (packed.c).
 */
#include "base/io.h"
#include "base/map.h"
#include "loader/oci/resolve.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/seen.h"
#include "loader/oci/store/walk.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* A blob that is here. */
typedef struct blob {
    cp_descriptor d; /* without its strings, which go with their document */
    bool config;
} blob;

typedef struct gathering {
    const cp_resolved *r;
    cp_seen seen;
    blob *v;
    size_t n;
} gathering;

/* Note d if it is here, or must be. */
static cp_code gather(gathering *g, const cp_descriptor *d, bool needed, bool config, cp_err *err)
{
    const cp_layout *l = &g->r->layout;
    int fd;
    if (!needed && !cp_blob_known(d))
        return CP_OK;
    cp_code code = cp_blob_of(l, d, &fd, err);
    if (code == CP_NOT_FOUND && !needed)
        return CP_OK;
    if (code == CP_NOT_FOUND)
        return cp_fail(err, CP_CORRUPT, "%s lacks the blob %s", l->path, d->digest);
    if (code)
        return code;
    close(fd);
    if (!cp_seen_add(&g->seen, d))
        return CP_OK;
    if ((g->n & (g->n - 1)) == 0)
        g->v = cp_xrealloc(g->v, (g->n ? 2 * g->n : 1) * sizeof(*g->v));
    blob *b = &g->v[g->n++];
    *b = (blob){.d = {.sha256 = d->sha256, .size = d->size}, .config = config};
    memcpy(b->d.digest, d->digest, sizeof(d->digest));
    memcpy(b->d.raw, d->raw, sizeof(d->raw));
    return CP_OK;
}

static cp_code read_here(void *arg, cp_document *doc, cp_err *err)
{
    const gathering *g = arg;
    return cp_document_read(&g->r->layout, doc, err);
}

/* Is a descriptor of this type sure to be an index or a manifest? */
static bool is_document(const char *media_type)
{
    return cp_media_type_is_index(media_type) || strcmp(media_type, CP_MT_OCI_MANIFEST) == 0 ||
           strcmp(media_type, CP_MT_DOCKER_MANIFEST) == 0;
}

/* What is not here was never promised (the entry itself was read before); what is no document is
 * one more blob. */
static cp_code not_read(void *arg, const cp_document *doc, cp_code code, cp_err *err)
{
    if (code == CP_NOT_FOUND || !cp_blob_known(doc->d))
        return CP_OK;
    return is_document(doc->d->media_type) ? code : gather(arg, doc->d, false, false, err);
}

/* A manifest's blobs. The model's own must be here as far as its plan needs them. */
static cp_code gather_blobs(void *arg, cp_document *doc, cp_err *err)
{
    gathering *g = arg;
    const cp_manifest *m = doc->manifest;
    bool own = strcmp(doc->d->digest, g->r->manifest_desc.digest) == 0;
    cp_code code = gather(g, &m->config, own, true, err);
    for (size_t i = 0; !code && i < m->n_layers; i++) {
        bool needed = own && cp_plan_needs(&g->r->plan, i);
        if (needed && !m->layer[i].sha256)
            return cp_fail(err, CP_CORRUPT,
                           "layer %zu: its digest is not sha256, which alone is built", i);
        code = gather(g, &m->layer[i], needed, false, err);
    }
    return code;
}

/* A blob of another algorithm than sha256, which has no record. */
static cp_code hash_sha512(const cp_resolved *r, const cp_descriptor *d, int fd, cp_err *err)
{
    cp_map map = {0};
    if (d->size > SIZE_MAX)
        return cp_fail(err, CP_CORRUPT, "%s: %" PRIu64 " bytes are too many", d->digest, d->size);
    cp_code code = d->size ? cp_map_open(&map, fd, (size_t)d->size, d->digest, err) : CP_OK;
    if (code)
        return code;
    code = cp_blob_check(&r->layout, d, d->size ? map.p : (const uint8_t *)"", map.n, err);
    if (d->size && cp_map_poisoned(&map))
        code = cp_fail(err, CP_CORRUPT, "%s: cut while it was read", d->digest);
    cp_map_close(&map);
    return code;
}

static cp_code hash_blob(const cp_resolved *r, const blob *b, sum *s, cp_err *err)
{
    const cp_descriptor *d = &b->d;
    uint8_t digest[32];
    int fd;
    cp_verify v = {.places = &r->places,
                   .always = true,
                   .what = d->digest,
                   .want = d->raw,
                   .progress = s->progress ? told : NULL,
                   .arg = s};
    if (b->config && d->size <= CP_MANIFEST_MAX_BYTES) { /* too small for a record */
        cp_buf config = {0};
        cp_code code = cp_blob_read(&r->layout, d, &config, err);
        cp_buf_fini(&config);
        s->before += d->size;
        return code;
    }
    cp_code code = cp_blob_of(&r->layout, d, &fd, err);
    if (code)
        return code;
    cp_record_name_blob(v.name, d->raw);
    code = d->sha256 ? cp_verify_file(&v, fd, digest, NULL, err) : hash_sha512(r, d, fd, err);
    close(fd);
    s->before += d->size;
    return code;
}

/* All blobs behind the entry that are here. */
static cp_code verify_blobs(const cp_resolved *r, sum *s, cp_err *err)
{
    gathering g = {.r = r};
    const cp_walk w = {.arg = &g, .read = read_here, .lost = not_read, .manifest = gather_blobs};
    cp_code code = cp_walk_run(&w, &r->index->item[r->entry], err);
    for (size_t i = 0; i < g.n; i++)
        s->total += g.v[i].d.size;
    for (size_t i = 0; !code && i < g.n; i++)
        code = hash_blob(r, &g.v[i], s, err);
    cp_seen_fini(&g.seen);
    free(g.v);
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
    if (bytes)
        *bytes = 0;
    cp_code code = cp_resolve(&r, ref, opt, err);
    if (code)
        return code;
    if (r.bare) {
        code = verify_bare(&r, &s, err);
    } else {
        code = verify_blobs(&r, &s, err);
        if (!code)
            code = verify_extracted(&r, &s, err);
    }
    if (bytes)
        *bytes = s.before;
    cp_resolved_fini(&r);
    return code;
}
