/*
 * Hashing a model's blobs again, and comparing what was derived from them; what was packed from its
 * weights is the backend's to compare, which asks here whether there is any.
 */
#include "base/io.h"
#include "loader/oci/resolve.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/fsys.h"

#include <inttypes.h>
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

/* Is layer i hashed? A large one is left out by pulls, but other tools bring it. */
static bool is_hashed(const cp_resolved *r, size_t i)
{
    const cp_descriptor *d = &r->manifest->layer[i];
    uint64_t size;
    int fd;
    if (cp_plan_needs(&r->plan, i))
        return true;
    if (!d->sha256 || cp_blob_open(&r->layout, d->raw, &fd, &size, NULL) == CP_NOT_FOUND)
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
    cp_code code = cp_blob_open(&r->layout, d->raw, &fd, &size, err);
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
        code = cp_blob_read(&r.layout, &m->config, &config, err);
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
