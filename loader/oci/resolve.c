/*
 * Resolving a reference. A name is looked up in the store as typed, then in canonical form; with a
 * digest, by the digest alone (the tag is a label then). An entry without a name has its digest for
 * one: "sha256:HEX" reads as a name and a tag. Nested indexes are descended at most three
 * levels, each entry chosen by variant.c.
 */
#include "loader/oci/resolve.h"

#include "loader/oci/content/choice.h"
#include "loader/oci/content/model_folder.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/folder.h"
#include "loader/oci/store/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SIZED = 64 };

/* See resolve.h. */
bool cp_resolve_unnamed(const cp_descriptor *d, const char *name)
{
    return !d->ref_name[0] && d->digest[0] && strcmp(d->digest, name) == 0;
}

/* See resolve.h. */
int64_t cp_resolve_name(const cp_index *x, const cp_ref *ref)
{
    if (ref->digest[0]) {
        for (size_t i = 0; i < x->n; i++)
            if (strcmp(x->item[i].digest, ref->digest) == 0)
                return (int64_t)i;
        return -1;
    }
    const char *const names[] = {ref->typed, ref->canonical};
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < x->n; i++)
            if (strcmp(x->item[i].ref_name, names[k]) == 0)
                return (int64_t)i;
    for (size_t i = 0; i < x->n; i++)
        if (cp_resolve_unnamed(&x->item[i], ref->typed))
            return (int64_t)i;
    return -1;
}

/* Tell the entries' models' sizes, where the choice goes by them and their manifests are here. */
static void set_sizes(const cp_layout *l, cp_index *x, const cp_variant_wish *w)
{
    for (size_t i = 0, read = 0; i < x->n && read < MAX_SIZED; i++) {
        cp_descriptor *d = &x->item[i];
        cp_buf json = {0};
        cp_manifest *m = NULL;
        if (cp_media_type_is_index(d->media_type) || !cp_variant_needs_bytes(x, w, i))
            continue;
        read++;
        if (cp_blob_read(l, d, &json, NULL) == CP_OK &&
            cp_manifest_parse(&m, json.p ? json.p : "", json.n, NULL) == CP_OK)
            d->model_bytes = m->bytes;
        cp_manifest_free(m);
        cp_buf_fini(&json);
    }
}

/*
 * A pull brings one entry's model, so most entries of an index may be missing here (image-layout
 * allows it). Without a wish for one, the choice is among those that are here; with none here it is
 * among all, so that the message names what was looked for.
 */
static void keep_present(const cp_layout *l, cp_index *x, const cp_variant_wish *w)
{
    size_t n = 0;
    if (w && (w->variant || w->os))
        return;
    for (size_t i = 0; i < x->n; i++) {
        if (cp_blob_here(l, &x->item[i]))
            x->item[n++] = x->item[i];
    }
    if (n > 0)
        x->n = n;
}

/* The walk to the manifest that is meant. */
typedef struct choosing {
    const cp_layout *l;
    const cp_variant_wish *w;
    cp_manifest **out;
    cp_descriptor *out_desc;
    char *why; /* [256] */
} choosing;

static cp_code read_here(void *arg, cp_document *doc, cp_err *err)
{
    const choosing *k = arg;
    return cp_document_read(k->l, doc, err);
}

/* What index.json names should be here, what a nested index names may be missing. */
static cp_code not_here(void *arg, const cp_document *doc, cp_code code, cp_err *err)
{
    (void)arg;
    if (code == CP_NOT_FOUND && doc->depth == 0)
        code = err ? (err->code = CP_CORRUPT) : CP_CORRUPT;
    return code;
}

static cp_code choose_entry(void *arg, const cp_document *doc, bool *enter, cp_err *err)
{
    const choosing *k = arg;
    size_t next = 0;
    keep_present(k->l, doc->index, k->w);
    set_sizes(k->l, doc->index, k->w);
    cp_code code = cp_variant_choose(doc->index, k->w, &next, k->why, err);
    if (!code)
        enter[next] = true;
    return code;
}

static cp_code take_manifest(void *arg, cp_document *doc, cp_err *err)
{
    const choosing *k = arg;
    if (cp_media_type_is_index(doc->manifest->media_type))
        return cp_fail(err, CP_CORRUPT, "%s: a manifest says that it is an index", doc->d->digest);
    memcpy(k->out_desc->digest, doc->d->digest, sizeof(doc->d->digest));
    memcpy(k->out_desc->raw, doc->d->raw, sizeof(doc->d->raw));
    k->out_desc->sha256 = doc->d->sha256;
    k->out_desc->size = doc->d->size;
    *k->out = doc->manifest;
    doc->manifest = NULL;
    return CP_OK;
}

/* See resolve.h. */
cp_code cp_resolve_manifest(const cp_layout *l, const cp_descriptor *d, const cp_variant_wish *w,
                            cp_manifest **out, cp_descriptor *out_desc, char why[256], cp_err *err)
{
    *out = NULL;
    *out_desc = (cp_descriptor){.media_type = "",
                                .artifact_type = "",
                                .ref_name = "",
                                .filepath = "",
                                .os = "",
                                .arch = "",
                                .cpu = ""};
    why[0] = '\0';
    choosing k = {.l = l, .w = w, .out = out, .out_desc = out_desc, .why = why};
    const cp_walk walk = {.arg = &k,
                          .read = read_here,
                          .lost = not_here,
                          .index = choose_entry,
                          .manifest = take_manifest};
    return cp_walk_run(&walk, d, err);
}

/* The real path. A link of /proc into another process' root (KServe's modelcars are mounted so)
 * leads to the file, while its text names one of this root: then the path as it was given. */
static bool absolute_path(const char *path, char *out, size_t cap)
{
    struct stat given, found;
    char cwd[CP_DIR_MAX] = "";
    char *real = realpath(path, NULL);
    bool same = real && stat(path, &given) == 0 && stat(real, &found) == 0 &&
                given.st_dev == found.st_dev && given.st_ino == found.st_ino;
    bool fits = same && cp_strcopy(out, cap, real);
    free(real);
    if (same || access(path, F_OK) != 0 || (path[0] != '/' && !getcwd(cwd, sizeof(cwd))))
        return fits;
    if (strlen(cwd) + 1 + strlen(path) >= cap)
        return false;
    cp_snprintf(out, cap, "%s%s%s", cwd, cwd[0] ? "/" : "", path);
    return true;
}

static cp_code resolve_path(cp_resolved *r, cp_err *err)
{
    if (!absolute_path(r->ref.path, r->absolute, sizeof(r->absolute)))
        return cp_fail(err, CP_IO, "%s: its real path cannot be had: %s", r->ref.path,
                       strerror(errno));
    r->bare = true;
    cp_places_of(&r->places, NULL, -1, false, true);
    return CP_OK;
}

/* Up to eight names of an index, for a message. */
static void list_names(const cp_index *x, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < x->n && i < 8; i++)
        n += cp_snprintf(out + n, cap - n, "%s%s", i ? ", " : "",
                         x->item[i].ref_name[0] ? x->item[i].ref_name
                         : x->item[i].digest[0] ? x->item[i].digest
                                                : "(no name, a digest that is too long)");
    if (x->n > 8)
        cp_snprintf(out + n, cap - n, ", ...");
}

/* Which entry of an oci: layout. */
static cp_code pick_in_layout(cp_resolved *r, cp_err *err)
{
    const cp_index *x = r->index;
    const char *want = r->ref.ref_name;
    char names[900];
    list_names(x, names, sizeof(names));
    if (x->n == 0)
        return cp_fail(err, CP_NOT_FOUND, "%s: the layout is empty", r->layout.path);
    if (!want[0]) {
        if (x->n > 1)
            return cp_fail(err, CP_USAGE, "%s holds %zu entries; name one as oci:DIR:NAME: %s",
                           r->layout.path, x->n, names);
        r->entry = 0;
        return CP_OK;
    }
    size_t found = 0;
    for (size_t i = 0; i < x->n; i++) {
        if (strcmp(x->item[i].ref_name, want) != 0 && !cp_resolve_unnamed(&x->item[i], want))
            continue;
        if (found && strcmp(x->item[i].digest, x->item[r->entry].digest) != 0)
            return cp_fail(err, CP_USAGE, "%s has several entries named '%s'", r->layout.path,
                           want);
        if (!found++)
            r->entry = i;
    }
    if (!found)
        return cp_fail(err, CP_NOT_FOUND, "%s has no entry '%s'; it has: %s", r->layout.path, want,
                       names);
    return CP_OK;
}

/* Open the store or the layout, and find the entry that is meant. */
static cp_code find_entry(cp_resolved *r, const char *path, bool is_store, cp_err *err)
{
    bool fresh = false;
    cp_code code = is_store ? cp_folder_open(&r->layout, path, &fresh, err)
                            : cp_layout_open(&r->layout, path, err);
    if (!code && fresh)
        code = cp_fail(err, CP_NOT_FOUND, "'%s' is not in the store %s (which is empty)",
                       r->ref.typed, path);
    if (!code)
        code = cp_layout_index(&r->layout, &r->index, NULL, err);
    if (code || !is_store)
        return code ? code : pick_in_layout(r, err);
    int64_t i = cp_resolve_name(r->index, &r->ref);
    if (i < 0)
        return cp_fail(err, CP_NOT_FOUND, "'%s%s%s' is not in the store %s", r->ref.typed,
                       r->ref.digest[0] ? "@" : "", r->ref.digest, path);
    r->entry = (size_t)i;
    return CP_OK;
}

/* The model that the entry means here: its manifest, its packaging, which of its layers. */
static cp_code choose_model(cp_resolved *r, const cp_loader_options *opt, cp_err *err)
{
    const cp_descriptor *entry = &r->index->item[r->entry];
    cp_variant_wish wish = {0};
    char platform[64], why[256];
    cp_code code = CP_OK;
    if (opt) {
        wish.variant = opt->variant;
        wish.memory_budget = opt->memory_budget;
        code = cp_variant_platform(&wish, platform, opt->platform, err);
    }
    if (!code)
        code = cp_resolve_manifest(&r->layout, entry, &wish, &r->manifest, &r->manifest_desc,
                                   r->why, err);
    if (!code)
        code = cp_packaging_plan(r->manifest, &r->packaging, &r->plan, err);
    if (code)
        return code;
    if (strcmp(r->manifest_desc.digest, entry->digest) != 0)
        wish.variant = NULL; /* an index's entry was chosen by it */
    code = cp_choice_of_layers(&r->plan, r->manifest, &r->layout, &wish, why, err);
    if (why[0])
        cp_strcopy(r->why, sizeof(r->why), why);
    return code;
}

static cp_code resolve_layout(cp_resolved *r, const cp_loader_options *opt, cp_err *err)
{
    bool is_store = r->ref.kind == CP_REF_NAME;
    char path[CP_DIR_MAX];
    cp_code code = CP_OK;
    if (is_store)
        code = cp_dir_store(path, opt ? opt->store : NULL, err);
    else
        cp_strcopy(path, sizeof(path), r->ref.path);
    if (!code)
        code = find_entry(r, path, is_store, err);
    if (!code)
        code = choose_model(r, opt, err);
    if (!code)
        cp_places_of(&r->places, path, r->layout.dir, is_store, true);
    return code;
}

/* A folder becomes what lies in it. */
static cp_code look_at_path(cp_ref *ref, cp_err *err)
{
    struct stat st;
    if (stat(ref->path, &st) != 0)
        return cp_fail(err, errno == ENOENT || errno == ENOTDIR ? CP_NOT_FOUND : CP_IO, "%s: %s",
                       ref->path, strerror(errno));
    return S_ISDIR(st.st_mode) ? cp_model_folder(ref, err) : CP_OK;
}

/* See resolve.h. */
cp_code cp_resolve(cp_resolved *out, const char *ref, const cp_loader_options *opt, cp_err *err)
{
    *out = (cp_resolved){.layout.dir = -1,
                         .progress = opt ? opt->progress : NULL,
                         .progress_arg = opt ? opt->progress_arg : NULL};
    cp_code code = cp_ref_parse(&out->ref, ref, opt ? opt->default_registry : NULL, NULL, err);
    if (!code && out->ref.kind == CP_REF_PATH)
        code = look_at_path(&out->ref, err);
    if (!code)
        code =
            out->ref.kind == CP_REF_PATH ? resolve_path(out, err) : resolve_layout(out, opt, err);
    if (code)
        cp_resolved_fini(out);
    return code;
}

/* See resolve.h. */
void cp_resolved_fini(cp_resolved *r)
{
    cp_plan_fini(&r->plan);
    cp_files_free(r->files);
    cp_buf_fini(&r->config);
    free(r->state);
    r->files = NULL;
    r->state = NULL;
    cp_manifest_free(r->manifest);
    cp_index_free(r->index);
    if (r->layout.dir >= 0)
        cp_layout_close(&r->layout);
    r->manifest = NULL;
    r->index = NULL;
}

static int64_t ns(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool state_of(int fd, cp_file_state *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return false;
    *out = (cp_file_state){.device = (uint64_t)st.st_dev,
                           .inode = (uint64_t)st.st_ino,
                           .size = (uint64_t)st.st_size,
                           .mtime_ns = ns(st.st_mtim),
                           .ctime_ns = ns(st.st_ctim)};
    return true;
}

/* Open layer i's blob; its size is the descriptor's. */
static cp_code open_blob(const cp_resolved *r, size_t i, int *fd, cp_err *err)
{
    const cp_descriptor *d = &r->manifest->layer[i];
    *fd = -1;
    if (!d->sha256)
        return cp_fail(err, CP_CORRUPT, "layer %zu: its digest is not sha256, which alone is built",
                       i);
    cp_code code = cp_blob_of(&r->layout, d, fd, err);
    if (code == CP_NOT_FOUND)
        return cp_fail(err, CP_CORRUPT, "%s lacks the blob %s", r->layout.path, d->digest);
    return code;
}

static cp_code verify_layer(cp_resolved *r, size_t i, bool always, cp_err *err)
{
    const cp_descriptor *d = &r->manifest->layer[i];
    uint8_t digest[32];
    int fd;
    cp_verify v = {.places = &r->places,
                   .always = always,
                   .what = d->digest,
                   .want = d->raw,
                   .progress = r->progress,
                   .arg = r->progress_arg};
    cp_code code = open_blob(r, i, &fd, err);
    if (code)
        return code;
    cp_record_name_blob(v.name, d->raw);
    code = cp_verify_file(&v, fd, digest, NULL, err);
    if (!code && !state_of(fd, &r->state[i]))
        code = cp_fail(err, CP_IO, "%s: fstat: %s", d->digest, strerror(errno));
    close(fd);
    return code;
}

/* A bare file is a model of one file. */
static cp_code prepare_bare(cp_resolved *r)
{
    static const cp_file whole = {
        .path = "", .role = CP_ROLE_WEIGHTS, .number = CP_MEMBER_IN_PLACE};
    r->files = cp_xcalloc(1, sizeof(*r->files));
    r->files->arena = cp_arena_new(1);
    r->files->v = cp_xcalloc(1, sizeof(whole));
    r->files->v[0] = whole;
    r->files->n = 1;
    return CP_OK;
}

/* See resolve.h. */
cp_code cp_resolved_prepare(cp_resolved *r, bool verify_always, cp_err *err)
{
    CP_ASSERT(!r->files);
    if (r->bare)
        return prepare_bare(r);
    const cp_manifest *m = r->manifest;
    r->state = cp_xcalloc(m->n_layers ? m->n_layers : 1, sizeof(*r->state));
    cp_code code = cp_blob_read(&r->layout, &m->config, &r->config, err);
    if (code == CP_NOT_FOUND)
        code = cp_fail(err, CP_CORRUPT, "%s lacks the blob %s", r->layout.path, m->config.digest);
    for (size_t i = 0; !code && i < m->n_layers; i++)
        if (cp_plan_needs(&r->plan, i))
            code = verify_layer(r, i, verify_always, err);
    if (!code && verify_always)
        code =
            cp_files_check(&r->layout, m, &r->plan, &r->places, r->progress, r->progress_arg, err);
    /* Twice: `gc` may remove what was extracted between the two. */
    for (int i = 0; !code && !r->files && i < 2; i++) {
        code = cp_files_prepare(&r->layout, m, &r->plan, &r->places, r->progress, r->progress_arg,
                                err);
        if (!code)
            code = cp_files_list(&r->files, &r->layout, m, &r->plan, &r->places, err);
        if (code == CP_NOT_FOUND && i == 0)
            code = CP_OK;
    }
    return code;
}

/* An extracted file, against the digest that its folder's list gives. */
static cp_code open_extracted(const cp_resolved *r, const cp_file *f, bool always, int *fd,
                              cp_err *err)
{
    char hex[CP_HEX_STR], what[CP_DIGEST_STR + 64];
    uint8_t digest[32];
    cp_digest_hex(r->manifest->layer[f->layer].raw, hex);
    cp_snprintf(what, sizeof(what), "extracted/%s/%d", hex, f->number);
    cp_verify v = {.always = always,
                   .what = what,
                   .want = f->digest,
                   .places = &r->places,
                   .progress = r->progress,
                   .arg = r->progress_arg};
    cp_record_name_extracted(v.name, hex, f->number);
    cp_code code = cp_extracted_open(&r->places, f->place, hex, f->number, fd, err);
    if (code)
        return code;
    code = cp_verify_file(&v, *fd, digest, NULL, err);
    if (code == CP_CORRUPT && err && strlen(err->msg) < sizeof(err->msg) - 60)
        cp_err_prefix(err, "%s (remove that folder to extract it again)", r->places.dir[f->place]);
    return code;
}

static cp_code open_bare(const cp_resolved *r, bool always, int *fd, uint64_t *size,
                         uint8_t digest[32], cp_err *err)
{
    cp_verify v = {.places = &r->places,
                   .always = always,
                   .what = r->ref.path,
                   .progress = r->progress,
                   .arg = r->progress_arg};
    struct stat st;
    *fd = open(r->absolute, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0 || fstat(*fd, &st) != 0)
        return cp_fail(err, errno == ENOENT ? CP_NOT_FOUND : CP_IO, "%s: %s", v.what,
                       strerror(errno));
    if (!S_ISREG(st.st_mode))
        return cp_fail(err, CP_CORRUPT, "%s is no regular file", v.what);
    *size = (uint64_t)st.st_size;
    cp_strcopy(v.name, sizeof(v.name), r->absolute);
    return cp_verify_file(&v, *fd, digest, NULL, err);
}

/* See resolve.h. */
cp_code cp_resolved_file(const cp_resolved *r, size_t i, bool verify_always, int *fd,
                         uint64_t *offset, uint64_t *size, uint8_t digest[32], cp_err *err)
{
    CP_ASSERT(r->files && i < r->files->n);
    const cp_file *f = &r->files->v[i];
    cp_code code;
    *fd = -1;
    *offset = f->offset;
    *size = f->size;
    if (r->bare) {
        code = open_bare(r, verify_always, fd, size, digest, err);
    } else {
        const cp_descriptor *d = &r->manifest->layer[f->layer];
        cp_file_state now = {0};
        memcpy(digest, d->raw, 32);
        if (f->number >= 0) {
            *offset = 0;
            code = open_extracted(r, f, verify_always, fd, err);
        } else {
            CP_ASSERT(f->number == CP_MEMBER_IN_PLACE);
            code = open_blob(r, f->layer, fd, err);
            if (!code &&
                (!state_of(*fd, &now) || memcmp(&now, &r->state[f->layer], sizeof(now)) != 0))
                code = cp_fail(err, CP_CORRUPT, "%s: changed after it was verified", d->digest);
        }
    }
    if (code && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return code;
}
