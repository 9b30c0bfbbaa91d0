/*
 * Finding a model's files: resolve, verify, open. A model is one file, or the shards of a split
 * one: of an artifact all of its weights, of a file named by path those beside it whose names go
 * with its own ("m-00002-of-00003.gguf" has two others). Whether they fit together is seen when
 * they are parsed. See found.h.
 */
#include "loader/found.h"

#include "base/io.h"
#include "base/log.h"
#include "loader/formats/foreign.h"
#include "loader/formats/format.h"
#include "loader/oci/store/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TOLD = 16, HEAD_BYTES = 512 };

/* A file that does not begin like a model goes no further: whoever asks for it by path shall not
 * have it. */
static cp_code check_head(const cp_found_part *p, cp_err *err)
{
    uint8_t head[HEAD_BYTES];
    if (p->size == 0 || p->size > SIZE_MAX)
        return cp_fail(err, CP_CORRUPT, "%s: %" PRIu64 " bytes is no model", p->what, p->size);
    size_t want = p->size < sizeof(head) ? (size_t)p->size : sizeof(head);
    ssize_t n = cp_io_pread(p->fd, head, want, p->offset);
    if (n < 0)
        return cp_fail(err, CP_IO, "%s: read: %s", p->what, strerror(errno));
    if (cp_format_of(head, (size_t)n))
        return CP_OK;
    cp_code code = cp_foreign_file(head, (size_t)n, err);
    return err ? cp_err_prefix(err, "%s", p->what) : code;
}

/* Open file i of r. */
static cp_code open_part(cp_found *f, const cp_resolved *r, size_t i, bool verify_always,
                         cp_err *err)
{
    char what[CP_DIR_MAX];
    const cp_file *file = &r->files->v[i];
    if (f->n_parts == CP_PARTS_MAX)
        return cp_fail(err, CP_CORRUPT, "more than %d weight files", CP_PARTS_MAX);
    if (r->bare)
        cp_strcopy(what, sizeof(what), r->ref.path);
    else
        cp_snprintf(what, sizeof(what), "%s%s%s", r->manifest->layer[file->layer].digest,
                    file->in_tar ? ": " : "", file->in_tar ? file->path : "");
    cp_found_part *p = &f->parts[f->n_parts++];
    *p = (cp_found_part){
        .fd = -1, .layer = file->layer, .what = cp_xstrdup(what), .name = cp_xstrdup(file->path)};
    cp_code code =
        cp_resolved_file(r, i, verify_always, &p->fd, &p->offset, &p->size, p->digest, err);
    if (code)
        return code;
    if (!r->bare)
        cp_lease_hold(p->fd);
    return check_head(p, err);
}

/* PREFIX-%05d-of-%05d.gguf: where the first number stands in path, and both; 0: it is not such a
 * name. */
static size_t shard_name(const char *path, uint64_t *number, uint64_t *count)
{
    static const char form[] = "-00000-of-00000.gguf";
    size_t n = strlen(path), k = sizeof(form) - 1;
    if (n <= k || n >= CP_DIR_MAX)
        return 0;
    const char *have = path + n - k;
    for (size_t i = 0; i < k; i++)
        if (form[i] == '0' ? have[i] < '0' || have[i] > '9' : have[i] != form[i])
            return 0;
    *number = strtoull(have + 1, NULL, 10);
    *count = strtoull(have + 10, NULL, 10);
    bool real = *number >= 1 && *number <= *count && *count >= 2 && *count <= CP_PARTS_MAX;
    return real ? n - k + 1 : 0;
}

static void drop_parts(cp_found *f, size_t keep)
{
    while (f->n_parts > keep) {
        const cp_found_part *p = &f->parts[--f->n_parts];
        cp_io_close(p->fd);
        free(p->what);
        free(p->name);
    }
}

/* The other shards of a file given by path: parts[1..]. Whether they are needed is not known yet,
 * so one that is missing is an error later. */
static void open_siblings(cp_found *f, const char *path, const cp_loader_options *opt)
{
    uint64_t own = 0, count = 0;
    size_t at = shard_name(path, &own, &count);
    if (at == 0)
        return;
    f->shards = count;
    for (uint64_t no = 1; no <= count && !f->missing.code; no++) {
        char sibling[CP_DIR_MAX], number[8];
        cp_resolved r;
        if (no == own)
            continue;
        cp_strcopy(sibling, sizeof(sibling), path);
        cp_snprintf(number, sizeof(number), "%05" PRIu64, no);
        memcpy(sibling + at, number, 5);
        if (cp_resolve(&r, sibling, opt, &f->missing))
            break;
        if (!cp_resolved_prepare(&r, false, &f->missing))
            open_part(f, &r, 0, opt && opt->verify_always, &f->missing);
        cp_resolved_fini(&r);
    }
    if (f->missing.code)
        drop_parts(f, 1);
}

static cp_code open_parts(cp_found *f, const cp_resolved *r, const cp_loader_options *opt,
                          cp_err *err)
{
    cp_code code = CP_OK;
    f->bare = r->bare;
    for (size_t i = 0; !code && i < r->files->n; i++)
        if (r->files->v[i].role == CP_ROLE_WEIGHTS)
            code = open_part(f, r, i, opt && opt->verify_always, err);
    if (!code && f->n_parts == 0)
        code = cp_fail(err, CP_CORRUPT, "it holds no weights");
    if (!code && r->bare)
        open_siblings(f, r->ref.path, opt);
    return code;
}

/* The part whose blob gives its name to the folders of what is derived: the first, of shards named
 * by path the one numbered so. */
static const cp_found_part *first_part(const cp_found *f, const char *path)
{
    uint64_t own = 0, count = 0;
    bool later = f->bare && shard_name(path, &own, &count) && own != 1 && f->n_parts > 1;
    return &f->parts[later ? 1 : 0];
}

/* Folders by the blob of the first weights, with which the store removes its own. */
static void set_cache_dirs(cp_found *f, const cp_resolved *r)
{
    const cp_found_part *first = first_part(f, r->ref.path);
    const cp_places *p = &r->places;
    char hex[CP_HEX_STR], below[CP_DIGEST_STR + 16];
    cp_digest_hex(r->bare ? first->digest : r->manifest->layer[first->layer].raw, hex);
    cp_snprintf(below, sizeof(below), "cache/%s", hex);
    for (int i = 0; i < p->n; i++) {
        char *out = i == p->write ? f->cache_dir : f->cache_dir_made;
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

/* See found.h. */
cp_code cp_loader_find(cp_found **out, const char *ref, const cp_loader_options *opt, cp_err *err)
{
    cp_resolved r;
    *out = NULL;
    cp_code code = cp_resolve(&r, ref, opt, err);
    if (code)
        return code;
    cp_found *f = cp_xcalloc(1, sizeof(*f));
    f->parts = cp_xcalloc(CP_PARTS_MAX, sizeof(*f->parts));
    tell_places(&r.places);
    code = cp_resolved_prepare(&r, opt && opt->verify_always, err);
    if (!code)
        code = open_parts(f, &r, opt, err);
    if (!code)
        code = cp_extras_read(&f->extras, &r, opt && opt->verify_always, err);
    if (!code)
        set_cache_dirs(f, &r);
    cp_resolved_fini(&r);
    if (code)
        cp_found_free(f);
    else
        *out = f;
    return code;
}

/* See found.h. */
void cp_found_free(cp_found *f)
{
    if (!f)
        return;
    drop_parts(f, 0);
    cp_extras_fini(&f->extras);
    free(f->parts);
    free(f);
}
