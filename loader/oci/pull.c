/*
 * The pull of one model. It resolves the reference to a manifest, lists the blobs which that
 * needs, looks which of them are here and whether the others fit on the disk, transfers those, and
 * publishes the name. A lease names the blobs from before the look to the end, so that no gc takes
 * one meanwhile (store/lease.h). What is specified is distribution-spec, Pulling manifests and
 * Pulling blobs; digests and sizes are the descriptors' (image-spec, descriptor.md).
 */
#include "loader/oci/pull.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "loader/oci/content/choice.h"
#include "loader/oci/content/extract.h"
#include "loader/oci/content/whole.h"
#include "loader/oci/resolve.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/blobs_dir.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/folder.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/lease.h"
#include "loader/oci/store/naming.h"
#include "loader/oci/store/partial.h"
#include "loader/oci/store/sweep.h"
#include "loader/oci/store/walk.h"
#include "loader/oci/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { MAX_SIZED = 64, TICK_NS = 100000000 };
#define HEADROOM (UINT64_C(64) << 20) /* bytes of the file system that a pull leaves alone */

/* A manifest, or an index on the way to it, as it came. */
typedef struct document {
    cp_buf json;
    char media_type[128];
    cp_descriptor d;
} document;

typedef struct need {
    const cp_descriptor *d;
    size_t order;
    bool here;
} need;

typedef struct pull {
    const cp_pull_options *opt;
    cp_ref ref;
    char name[CP_REF_NAME_MAX]; /* in the index */
    cp_layout l;
    cp_registry *registry;
    char cache[CP_DIR_MAX]; /* the store's capstan/, whose bytes count */
    cp_places places;
    document doc[CP_WALK_NESTING + 1]; /* indexes from the outside in, the manifest last */
    size_t n_docs;
    cp_manifest *m;
    cp_plan plan;
    need *needs; /* each blob once: weights, other layers, config */
    size_t n_needs;
    uint64_t total, here;
    cp_lease lease;
    cp_digest_set old; /* what the name meant before */

    cp_progress_fn *progress;
    void *arg;
    uint64_t base;   /* added to what a part of the work says */
    int64_t told_at; /* ns */
    char phase[16];
} pull;

/* Pass progress on, at most ten times a second, and at each change of phase. */
static void tell(pull *p, const char *phase, uint64_t done, uint64_t total)
{
    int64_t now = cp_now_ns();
    if (!p->progress || (strcmp(phase, p->phase) == 0 && now - p->told_at < TICK_NS))
        return;
    p->told_at = now;
    cp_strcopy(p->phase, sizeof(p->phase), phase);
    p->progress(p->arg, phase, done, total);
}

static void told(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    tell(arg, phase, done, total);
}

/* Of one file that is verified. */
static void told_verifying(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    pull *p = arg;
    (void)phase, (void)total;
    tell(p, "verifying", p->base + done, p->total);
}

/* ---- resolving ---- */

/* Does the text after the scheme name a tag? */
static bool has_tag(const char *ref)
{
    const char *scheme = strstr(ref, "://"), *s = scheme ? scheme + 3 : ref;
    size_t n = strcspn(s, "@");
    bool colon = false;
    for (size_t i = 0; i < n; i++)
        colon = s[i] == ':' || (colon && s[i] != '/');
    return colon;
}

/* What the entry will be called. */
static cp_code set_name(pull *p, const char *ref, cp_err *err)
{
    if (!p->ref.digest[0] || has_tag(ref)) {
        cp_strcopy(p->name, sizeof(p->name), p->ref.canonical);
        return CP_OK;
    }
    if (strlen(p->ref.registry) + strlen(p->ref.repository) + strlen(p->ref.digest) + 2 >=
        sizeof(p->name))
        return cp_fail(err, CP_USAGE, "reference is longer than %d characters with its registry",
                       CP_REF_NAME_MAX - 1);
    cp_snprintf(p->name, sizeof(p->name), "%s/%s@%s", p->ref.registry, p->ref.repository,
                p->ref.digest);
    return CP_OK;
}

/* The bytes of a manifest or index: pinned (NULL: nothing) is what they must hash to. */
static cp_code fetch_document(pull *p, const char *reference, const cp_descriptor *expected,
                              const char *pinned, cp_err *err)
{
    document *doc = &p->doc[p->n_docs++];
    cp_code code = cp_registry_manifest(p->registry, reference, &doc->json, doc->media_type, err);
    if (code)
        return code;
    cp_descriptor *d = &doc->d;
    cp_sha256_of(doc->json.p ? doc->json.p : "", doc->json.n, d->raw);
    cp_digest_format(d->raw, d->digest);
    d->sha256 = true;
    d->size = doc->json.n;
    if (pinned && strcmp(pinned, d->digest) != 0)
        return cp_fail(err, CP_CORRUPT, "%s: what the registry sent has digest %s", pinned,
                       d->digest);
    if (expected && expected->size != d->size)
        return cp_fail(err, CP_CORRUPT,
                       "%s: the registry sent %" PRIu64 " bytes, its descriptor says %" PRIu64,
                       d->digest, d->size, expected->size);
    return CP_OK;
}

/* Is the document an index or a manifest? By its Content-Type, else by what parses. Sets the media
 * type that its descriptor gets. */
static cp_code parse_document(document *doc, cp_document *out, cp_err *err)
{
    const char *json = doc->json.p ? doc->json.p : "";
    bool known = strcmp(doc->media_type, CP_MT_OCI_MANIFEST) == 0 ||
                 strcmp(doc->media_type, CP_MT_DOCKER_MANIFEST) == 0;
    bool index = cp_media_type_is_index(doc->media_type);
    cp_code code = CP_OK;
    if (!known && !index) {
        index = cp_manifest_parse(&out->manifest, json, doc->json.n, err) != CP_OK &&
                cp_index_parse(&out->index, json, doc->json.n, NULL) == CP_OK;
        code = out->manifest || out->index ? CP_OK : err ? err->code : CP_CORRUPT;
    } else if (index) {
        code = cp_index_parse(&out->index, json, doc->json.n, err);
    } else {
        code = cp_manifest_parse(&out->manifest, json, doc->json.n, err);
    }
    if (code) {
        cp_err_prefix(err, "%s", doc->d.digest);
        return code;
    }
    const char *says = out->manifest ? out->manifest->media_type : "";
    if (says[0] && (cp_media_type_is_index(says) || (known && strcmp(says, doc->media_type) != 0)))
        return cp_fail(err, CP_CORRUPT, "%s: was sent as '%s' and says that it is '%s'",
                       doc->d.digest, doc->media_type, says);
    if (!known && !cp_media_type_is_index(doc->media_type))
        cp_strcopy(doc->media_type, sizeof(doc->media_type),
                   index     ? CP_MT_OCI_INDEX
                   : says[0] ? says
                             : CP_MT_OCI_MANIFEST);
    doc->d.media_type = doc->media_type;
    return CP_OK;
}

/* The first document is what the reference says, the others what an index has named. */
static cp_code read_document(void *arg, cp_document *doc, cp_err *err)
{
    pull *p = arg;
    const char *pinned = doc->depth > 0 ? doc->d->digest : p->ref.digest[0] ? p->ref.digest : NULL;
    cp_code code = fetch_document(p, pinned ? pinned : p->ref.tag, doc->depth > 0 ? doc->d : NULL,
                                  pinned, err);
    return code ? code : parse_document(&p->doc[p->n_docs - 1], doc, err);
}

/* Sizes of the models behind entries, where the choice goes by them. What cannot be had stays
 * unknown. */
static cp_code set_sizes(pull *p, cp_index *x, const cp_variant_wish *w, cp_err *err)
{
    for (size_t i = 0, asked = 0; i < x->n && asked < MAX_SIZED; i++) {
        cp_descriptor *d = &x->item[i];
        cp_buf json = {0};
        cp_manifest *m = NULL;
        char media_type[128];
        if (!d->sha256 || cp_media_type_is_index(d->media_type) || !cp_variant_needs_bytes(x, w, i))
            continue;
        asked++;
        cp_code code = cp_registry_manifest(p->registry, d->digest, &json, media_type, err);
        if (!code && cp_manifest_parse(&m, json.p ? json.p : "", json.n, NULL) == CP_OK)
            d->model_bytes = m->bytes;
        cp_manifest_free(m);
        cp_buf_fini(&json);
        if (code && code != CP_NOT_FOUND)
            return code;
    }
    return CP_OK;
}

/* The entry of an index to go on with. */
static cp_code choose_entry(void *arg, const cp_document *doc, bool *enter, cp_err *err)
{
    pull *p = arg;
    cp_index *x = doc->index;
    const cp_loader_options *o = &p->opt->loader;
    cp_variant_wish wish = {.variant = o->variant, .memory_budget = o->memory_budget};
    char platform[64], why[256] = "";
    size_t i = 0;
    cp_code code = cp_variant_platform(&wish, platform, o->platform, err);
    if (!code)
        code = set_sizes(p, x, &wish, err);
    if (!code)
        code = cp_variant_choose(x, &wish, &i, why, err);
    if (code)
        return code;
    if (!x->item[i].sha256)
        return cp_fail(err, CP_CORRUPT, "index: its entry %zu has no sha256 digest", i);
    if (why[0])
        cp_log(CP_LOG_INFO, "%s: %s", p->name, why);
    enter[i] = true;
    return CP_OK;
}

static cp_code take_manifest(void *arg, cp_document *doc, cp_err *err)
{
    pull *p = arg;
    (void)err;
    p->m = doc->manifest;
    doc->manifest = NULL;
    return CP_OK;
}

/* From the reference to a manifest and its plan. */
static cp_code resolve(pull *p, cp_err *err)
{
    const cp_packaging *row;
    const cp_descriptor first = {.media_type = ""}; /* nobody has described it yet */
    const cp_walk walk = {
        .arg = p, .read = read_document, .index = choose_entry, .manifest = take_manifest};
    cp_code code = cp_walk_run(&walk, &first, err);
    if (!code)
        code = cp_packaging_plan(p->m, &row, &p->plan, err);
    if (!code) {
        const cp_loader_options *o = &p->opt->loader;
        const cp_variant_wish wish = {
            .variant = p->n_docs > 1 ? NULL : o->variant, /* an index's entry was chosen by it */
            .memory_budget = o->memory_budget};
        char why[256];
        code = cp_choice_of_layers(&p->plan, p->m, NULL, &wish, why, err);
        if (why[0])
            cp_log(CP_LOG_INFO, "%s: %s", p->name, why);
    }
    return code ? code : cp_whole_layers(&p->plan, p->m, err);
}

/* ---- what is needed, what is here, what fits ---- */

static int by_digest(const void *a, const void *b)
{
    const need *x = a, *y = b;
    int c = memcmp(x->d->raw, y->d->raw, 32);
    return c ? c : (x->order > y->order) - (x->order < y->order);
}

static int by_order(const void *a, const void *b)
{
    const need *x = a, *y = b;
    return (x->order > y->order) - (x->order < y->order);
}

/* List each blob once. */
static cp_code list_needs(pull *p, cp_err *err)
{
    const cp_manifest *m = p->m;
    size_t n = 0;
    p->needs = cp_xcalloc(m->n_layers + 1, sizeof(*p->needs));
    for (int weights = 1; weights >= 0; weights--)
        for (size_t i = 0; i < m->n_layers; i++)
            if (cp_plan_brings(&p->plan, m, i) &&
                (p->plan.layer[i].role == CP_ROLE_WEIGHTS) == (weights == 1))
                p->needs[n++].d = &m->layer[i];
    for (size_t i = 0; i < m->n_layers; i++)
        if (!cp_plan_brings(&p->plan, m, i))
            cp_log(CP_LOG_INFO, "%s: layer %zu (%s, %" PRIu64 " bytes) is left out: %s", p->name, i,
                   m->layer[i].media_type, m->layer[i].size,
                   p->plan.layer[i].note ? p->plan.layer[i].note : "it is not needed");
    p->needs[n++].d = &m->config;
    for (size_t i = 0; i < n; i++) {
        p->needs[i].order = i;
        if (!p->needs[i].d->sha256)
            return cp_fail(err, CP_UNSUPPORTED,
                           "a layer's or the config's digest is not sha256, which alone is built");
        if (p->needs[i].d->size > CP_BLOB_MAX)
            return cp_fail(err, CP_CORRUPT, "%s claims %" PRIu64 " bytes, the limit is %" PRIu64,
                           p->needs[i].d->digest, p->needs[i].d->size, (uint64_t)CP_BLOB_MAX);
    }
    if (m->config.size > CP_MANIFEST_MAX_BYTES)
        return cp_fail(err, CP_CORRUPT, "the config claims %" PRIu64 " bytes, the limit is %d",
                       m->config.size, CP_MANIFEST_MAX_BYTES);
    qsort(p->needs, n, sizeof(*p->needs), by_digest);
    for (size_t i = 0; i < n; i++) {
        need *last = p->n_needs ? &p->needs[p->n_needs - 1] : NULL;
        if (last && memcmp(last->d->raw, p->needs[i].d->raw, 32) == 0) {
            if (last->d->size != p->needs[i].d->size)
                return cp_fail(err, CP_CORRUPT,
                               "%s has two sizes in one manifest, %" PRIu64 " and %" PRIu64,
                               last->d->digest, last->d->size, p->needs[i].d->size);
            continue;
        }
        p->needs[p->n_needs++] = p->needs[i];
    }
    qsort(p->needs, p->n_needs, sizeof(*p->needs), by_order);
    for (size_t i = 0; i < p->n_needs; i++)
        p->total += p->needs[i].d->size; /* a part of m->bytes, which was checked */
    return CP_OK;
}

/* From here on nobody removes what this pull needs. */
static cp_code take_lease(pull *p, cp_err *err)
{
    cp_digest_set s = {0};
    int lock;
    for (size_t i = 0; i < p->n_docs; i++)
        cp_digest_set_add(&s, p->doc[i].d.raw);
    for (size_t i = 0; i < p->n_needs; i++)
        cp_digest_set_add(&s, p->needs[i].d->raw);
    cp_code code = cp_layout_lock_take(&p->l, CP_LOCK_BLOBS, false, &lock, err);
    if (!code) {
        code = cp_lease_take(&p->lease, &p->l, &s, err);
        close(lock);
    }
    cp_digest_set_fini(&s);
    return code;
}

/* Which blobs are here, and right? One without a matching record is hashed. */
static cp_code look(pull *p, cp_err *err)
{
    bool always = p->opt->loader.verify_always;
    for (size_t i = 0; i < p->n_needs; i++) {
        need *k = &p->needs[i];
        uint8_t digest[32];
        uint64_t size = 0, swept = 0;
        bool hashed = false;
        int fd;
        cp_verify v = {.places = &p->places,
                       .what = k->d->digest,
                       .want = k->d->raw,
                       .always = always,
                       .progress = told_verifying,
                       .arg = p};
        cp_code code = cp_blob_open(&p->l, k->d->raw, &fd, &size, NULL);
        if (code == CP_OK) {
            cp_record_name_blob(v.name, k->d->raw);
            p->base = p->here;
            code = size == k->d->size ? cp_verify_file(&v, fd, digest, &hashed, err) : CP_CORRUPT;
            close(fd);
        }
        if (code != CP_OK && code != CP_NOT_FOUND && code != CP_CORRUPT)
            return code;
        k->here = code == CP_OK; /* a wrong one will be replaced */
        p->here += k->here ? size : 0;
        if (k->here && hashed) { /* a pull died between its rename and its record */
            char hex[CP_HEX_STR];
            int dir = cp_blobs_partial(&p->l, false);
            cp_digest_hex(k->d->raw, hex);
            cp_partial_sweep(dir, hex, false, &swept);
            cp_io_close(dir);
        }
    }
    return CP_OK;
}

/* Bytes in the files of a folder of the store; blocks: as they lie on the disk. Closes dir. */
static uint64_t folder_bytes(int dir, bool blocks)
{
    cp_fs_list list = cp_fs_list_take(dir);
    uint64_t sum = 0;
    for (const char *name; (name = cp_fs_list_next(&list));) {
        struct stat st;
        if (fstatat(list.dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            sum += blocks ? (uint64_t)st.st_blocks * 512 : (uint64_t)st.st_size;
    }
    cp_fs_list_close(&list);
    return sum;
}

/* Bytes of the models' caches. */
static uint64_t cache_bytes(const cp_layout *l)
{
    cp_digest_set have = {0};
    uint64_t sum = 0;
    char hex[CP_HEX_STR];
    cp_digest_set_list(&have, cp_layout_own(l, "cache", false), true);
    for (size_t i = 0; i < have.n; i++) {
        cp_digest_hex(have.d[i], hex);
        cp_sweep_cache(l, hex, true, &sum);
    }
    cp_digest_set_fini(&have);
    return sum;
}

/* Is there room on the disk, and under the quota? */
static cp_code check_room(const pull *p, cp_err *err)
{
    uint64_t missing = 0, reserved = 0;
    struct statvfs fs;
    int blobs = cp_blobs_dir(&p->l);
    bool known = blobs >= 0 && fstatvfs(blobs, &fs) == 0; /* maybe on another disk */
    cp_io_close(blobs);
    for (size_t i = 0; i < p->n_needs; i++) {
        uint64_t done, allocated;
        if (p->needs[i].here)
            continue;
        cp_partial_peek(&p->l, p->needs[i].d, &done, &allocated);
        missing += p->needs[i].d->size;
        reserved += allocated < p->needs[i].d->size ? allocated : p->needs[i].d->size;
    }
    if (missing == 0)
        return CP_OK;
    if (known) {
        uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (missing - reserved > free_bytes || free_bytes - (missing - reserved) < HEADROOM)
            return cp_fail(err, CP_IO,
                           "%s: no space: %" PRIu64 " bytes are missing of this model, %" PRIu64
                           " of them reserved already; %" PRIu64 " bytes are free and %" PRIu64
                           " of them must stay free",
                           p->l.path, missing, reserved, free_bytes, HEADROOM);
    }
    if (p->opt->store_quota == 0)
        return CP_OK;
    uint64_t folders = 0, extracted = 0;
    cp_extract_remove(p->cache, NULL, true, &folders, &extracted, NULL);
    uint64_t held = folder_bytes(cp_blobs_dir(&p->l), false) + extracted + cache_bytes(&p->l) +
                    folder_bytes(cp_blobs_partial(&p->l, false), true) - reserved;
    if (held > p->opt->store_quota || missing > p->opt->store_quota - held)
        return cp_fail(err, CP_IO,
                       "%s: over the quota: the store holds %" PRIu64 " bytes and this model needs "
                       "%" PRIu64 " more, the quota is %" PRIu64
                       "; `capstan gc` and `capstan rm NAME` make room",
                       p->l.path, held, missing, p->opt->store_quota);
    return CP_OK;
}

/* ---- moving and publishing ---- */

static cp_code transfer(pull *p, cp_err *err)
{
    const cp_descriptor **list = cp_xcalloc(p->n_needs, sizeof(*list));
    cp_transfer t = {.layout = &p->l,
                     .registry = p->registry,
                     .places = &p->places,
                     .blob = list,
                     .connections = p->opt->registry.connections,
                     .mirrored = p->opt->registry.n_mirrors > 0,
                     .progress = told,
                     .arg = p,
                     .done = p->here,
                     .total = p->total};
    for (size_t i = 0; i < p->n_needs; i++)
        if (!p->needs[i].here)
            list[t.n++] = p->needs[i].d;
    cp_code code = t.n ? cp_transfer_run(&t, err) : CP_OK;
    free(list);
    return code;
}

/* What would not open is not given a name. */
static cp_code check_files(pull *p, cp_err *err)
{
    char left_out[CP_LEFT_OUT_MAX];
    cp_files *files;
    cp_code code = cp_files_list(&files, &p->l, p->m, &p->plan, &p->places, err);
    if (code)
        return code;
    cp_files_left_out(files, left_out);
    if (left_out[0])
        cp_log(CP_LOG_INFO, "%s: %s", p->name, left_out);
    code = cp_whole_files(&p->l, p->m, &p->places, files, err);
    cp_files_free(files);
    return code;
}

/* Manifest first, then the indexes around it, then the name. */
static cp_code publish(pull *p, cp_err *err)
{
    cp_code code = CP_OK;
    cp_fault_point("manifest");
    for (size_t i = p->n_docs; !code && i-- > 0;) {
        cp_buf have = {0};
        cp_descriptor d;
        if (cp_blob_read(&p->l, &p->doc[i].d, &have, NULL) != CP_OK)
            code = cp_blob_put(&p->l, p->doc[i].json.p, p->doc[i].json.n, &d, err);
        cp_buf_fini(&have);
    }
    if (!code)
        code = cp_files_prepare(&p->l, p->m, &p->plan, &p->places, told, p, err);
    if (!code)
        code = check_files(p, err);
    cp_fault_point("index");
    if (!code)
        code = cp_store_name(&p->l, p->name, &p->doc[0].d, &p->old, err);
    cp_fault_point("indexed");
    return code;
}

/* A digest, also one that was cut, as tables show them: no tag of Docker Hub's ai/sha256. */
static bool is_digest(const char *typed)
{
    const char *hex = typed + strlen("sha256:");
    return (cp_has_prefix(typed, "sha256:") || cp_has_prefix(typed, "sha512:")) &&
           strlen(hex) >= 7 && hex[strspn(hex, "0123456789abcdefABCDEF")] == '\0';
}

static cp_code run(pull *p, const char *ref, cp_err *err)
{
    char path[CP_DIR_MAX];
    bool fresh;
    if (!p->ref.digest[0] && is_digest(p->ref.typed)) /* of an unnamed entry */
        return cp_fail(err, CP_NOT_FOUND,
                       "'%s' is not in the store, and a digest alone names no repository to pull "
                       "it from: NAME@%s does",
                       p->ref.typed, p->ref.typed);
    cp_code code = set_name(p, ref, err);
    if (!code)
        code = cp_dir_store(path, p->opt->loader.store, err);
    if (!code) /* before anybody is asked for anything */
        code = cp_folder_open_writable(&p->l, path, &fresh, err);
    if (!code && !fresh)
        cp_layout_close(&p->l);
    tell(p, "resolving", 0, 0);
    if (!code)
        code = cp_registry_open(&p->registry, &p->ref, &p->opt->registry, err);
    if (!code)
        code = resolve(p, err);
    if (!code)
        code = list_needs(p, err);
    if (!code)
        code = cp_folder_make(&p->l, path, err);
    if (code)
        return code;
    cp_snprintf(p->cache, sizeof(p->cache), "%.*s/capstan", CP_DIR_MAX - 16, p->l.path);
    cp_places_of(&p->places, p->l.path, p->l.dir, true, true);
    code = take_lease(p, err);
    if (!code)
        code = look(p, err);
    if (!code)
        code = check_room(p, err);
    if (!code)
        code = transfer(p, err);
    if (!code)
        code = publish(p, err);
    cp_lease_drop(&p->lease);
    if (!code)
        cp_sweep_replaced(&p->l, &p->old);
    if (!code)
        tell(p, "done", p->total, p->total);
    return code;
}

/* See pull.h. */
cp_code cp_pull(const cp_pull_options *opt, const char *ref, cp_progress_fn *progress, void *arg,
                char digest_out[72], cp_err *err)
{
    pull *p = cp_xcalloc(1, sizeof(*p));
    cp_err own = {0};
    p->opt = opt;
    p->progress = progress;
    p->arg = arg;
    p->l.dir = p->lease.dir = p->lease.fd = -1;
    cp_code code = cp_ref_parse(&p->ref, ref, opt->loader.default_registry, NULL, &own);
    if (!code && p->ref.kind != CP_REF_NAME)
        code = cp_fail(&own, CP_USAGE, "'%s' is no name on a registry", ref);
    if (!code)
        code = run(p, ref, &own);
    if (!code)
        cp_strcopy(digest_out, 72, p->doc[0].d.digest);
    else if (err)
        *err = own;
    cp_registry_close(p->registry);
    if (p->l.dir >= 0)
        cp_layout_close(&p->l);
    for (size_t i = 0; i < p->n_docs; i++)
        cp_buf_fini(&p->doc[i].json);
    cp_plan_fini(&p->plan);
    cp_manifest_free(p->m);
    cp_digest_set_fini(&p->old);
    free(p->needs);
    free(p);
    return code;
}
