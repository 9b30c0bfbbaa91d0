/*
 * The store: listing, inspecting, removing and packing. Order of writing: weights, config,
 * manifest, index; a crash leaves only blobs that nothing names. Removing takes the blobs' lock
 * exclusively, so that it never takes away a blob that a pack in another process has written and
 * not yet named.
 */
#include "base/io.h"
#include "base/log.h"
#include "base/map.h"
#include "loader/formats/foreign.h"
#include "loader/formats/format.h"
#include "loader/loader.h"
#include "loader/oci/content/choice.h"
#include "loader/oci/resolve.h"
#include "loader/oci/store/folder.h"
#include "loader/oci/store/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one entry's description ---- */

/* Architecture and quantization from the file itself. CP_CORRUPT, CP_UNSUPPORTED: its format's
 * parser refuses it; the fields stay empty. */
static cp_code peek(int fd, uint64_t offset, uint64_t size, const char *what, cp_store_entry *e,
                    cp_err *err)
{
    cp_map map;
    cp_weights *w = NULL;
    if (size == 0 || size > SIZE_MAX)
        return cp_fail(err, CP_CORRUPT, "%s: %" PRIu64 " bytes is no model", what, size);
    cp_code code = cp_map_open_at(&map, fd, offset, (size_t)size, what, err);
    if (code)
        return code;
    const cp_format *format = cp_format_of(map.p, map.n);
    code = format ? format->parse(&w, map.p, map.n, err) : cp_foreign_file(map.p, map.n, err);
    if (code)
        cp_err_prefix(err, "%s", what);
    if (cp_map_poisoned(&map))
        code = cp_fail(err, CP_CORRUPT, "%s: cut while it was read", what);
    if (!code) {
        cp_str arch = {0};
        if (cp_meta_str(w->meta, "general.architecture", &arch))
            cp_snprintf(e->arch, sizeof(e->arch), "%.*s", arch.n < 47 ? (int)arch.n : 47, arch.p);
        cp_printable(e->arch);
        cp_strcopy(e->quant, sizeof(e->quant), cp_weights_quant(w));
    }
    cp_weights_free(w);
    cp_map_close(&map);
    return code;
}

static void fill_layers(cp_store_entry *e, const cp_manifest *m)
{
    e->bytes = m->bytes;
    e->n_layers = m->n_layers;
    e->layers = cp_xcalloc(m->n_layers ? m->n_layers : 1, sizeof(*e->layers));
    for (size_t i = 0; i < m->n_layers; i++) {
        cp_store_layer *o = &e->layers[i];
        cp_strcopy(o->digest, sizeof(o->digest), m->layer[i].digest);
        o->bytes = m->layer[i].size;
        cp_strcopy(o->media_type, sizeof(o->media_type), m->layer[i].media_type);
        cp_strcopy(o->filepath, sizeof(o->filepath), m->layer[i].filepath);
    }
}

/* Describe a manifest of layout l. An error is peek's; all but what the weights say is told
 * all the same. */
static cp_code describe(const cp_layout *l, const cp_places *places, const cp_manifest *m,
                        const cp_packaging *row, const cp_plan *plan, cp_store_entry *e,
                        cp_err *err)
{
    cp_strcopy(e->format, sizeof(e->format), row ? row->name : "unknown");
    fill_layers(e, m);
    cp_code code = CP_OK;
    cp_files *files = NULL;
    if (!row)
        return CP_OK;
    if (cp_files_list(&files, l, m, plan, places, NULL) != CP_OK)
        return CP_OK; /* not extracted yet, or broken: the layers are told all the same */
    for (size_t i = 0; i < files->n; i++) {
        const cp_file *f = &files->v[i];
        int fd;
        uint64_t offset;
        if (f->role != CP_ROLE_WEIGHTS)
            continue;
        if (cp_file_open(l, m, places, f, &fd, &offset, NULL) == CP_OK) {
            code = peek(fd, offset, f->size, m->layer[f->layer].digest, e, err);
            close(fd);
        }
        break;
    }
    cp_files_free(files);
    return code;
}

/* Describe an index's entry; what is broken is listed as "corrupt", so that it can be seen and
 * removed. */
static void describe_entry(const cp_layout *l, const cp_places *places, const cp_descriptor *d,
                           cp_store_entry *e)
{
    cp_manifest *m;
    cp_descriptor desc;
    char why[256];
    cp_plan plan = {0};
    const cp_packaging *row = NULL;
    cp_strcopy(e->digest, sizeof(e->digest), d->digest);
    cp_strcopy(e->name, sizeof(e->name), d->ref_name[0] ? d->ref_name : d->digest);
    cp_strcopy(e->format, sizeof(e->format), "corrupt");
    if (!d->sha256 || cp_resolve_manifest(l, d, NULL, &m, &desc, why, NULL) != CP_OK)
        return;
    cp_strcopy(e->digest, sizeof(e->digest), desc.digest);
    /* None, or none of several: the layers are listed all the same. */
    if (cp_packaging_plan(m, &row, &plan, NULL) == CP_OK)
        cp_choice_of_layers(&plan, m, l, NULL, why, NULL);
    (void)describe(l, places, m, row, &plan, e, NULL);
    cp_plan_fini(&plan);
    cp_manifest_free(m);
}

static int by_name(const void *a, const void *b)
{
    const cp_store_entry *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c ? c : strcmp(x->digest, y->digest);
}

/* See loader.h. */
cp_code cp_store_list(const cp_loader_options *opt, cp_store_entry **out, size_t *n, cp_err *err)
{
    char path[CP_DIR_MAX];
    cp_layout l;
    cp_index *x;
    bool fresh;
    *out = NULL;
    *n = 0;
    cp_code code = cp_dir_store(path, opt ? opt->store : NULL, err);
    if (code)
        return code;
    code = cp_folder_open(&l, path, &fresh, err);
    if (code || fresh)
        return code;
    code = cp_layout_index(&l, &x, NULL, err);
    if (!code) {
        cp_places places;
        cp_places_of(&places, path, l.dir, true, false);
        *n = x->n;
        *out = cp_xcalloc(x->n ? x->n : 1, sizeof(**out));
        for (size_t i = 0; i < x->n; i++)
            describe_entry(&l, &places, &x->item[i], &(*out)[i]);
        qsort(*out, *n, sizeof(**out), by_name);
        cp_index_free(x);
    }
    cp_layout_close(&l);
    return code;
}

/* A file by path: format "gguf", one layer, digest of the file. */
static cp_code describe_file(cp_resolved *r, bool verify_always, cp_store_entry *e, cp_err *err)
{
    int fd;
    uint64_t offset, size;
    uint8_t digest[32];
    cp_code code = cp_resolved_prepare(r, verify_always, err);
    if (!code)
        code = cp_resolved_file(r, 0, verify_always, &fd, &offset, &size, digest, err);
    if (code)
        return code;
    const char *base = cp_path_base(r->ref.path);
    cp_strcopy(e->name, sizeof(e->name), r->ref.path);
    cp_strcopy(e->format, sizeof(e->format), "gguf");
    cp_digest_format(digest, e->digest);
    e->bytes = size;
    e->n_layers = 1;
    e->layers = cp_xcalloc(1, sizeof(*e->layers));
    cp_strcopy(e->layers[0].digest, sizeof(e->layers[0].digest), e->digest);
    e->layers[0].bytes = size;
    cp_strcopy(e->layers[0].media_type, sizeof(e->layers[0].media_type),
               "application/octet-stream");
    cp_strcopy(e->layers[0].filepath, sizeof(e->layers[0].filepath), base);
    code = peek(fd, offset, size, r->ref.path, e, err);
    close(fd);
    return code;
}

/* See loader.h. */
cp_code cp_store_inspect(const cp_loader_options *opt, const char *ref, cp_store_entry **out,
                         cp_err *err)
{
    cp_resolved r;
    *out = NULL;
    cp_code code = cp_resolve(&r, ref, opt, err);
    if (code)
        return code;
    cp_store_entry *e = cp_xcalloc(1, sizeof(*e));
    if (r.bare) {
        code = describe_file(&r, opt && opt->verify_always, e, err);
    } else {
        const cp_descriptor *d = &r.index->item[r.entry];
        cp_strcopy(e->name, sizeof(e->name), d->ref_name[0] ? d->ref_name : d->digest);
        cp_strcopy(e->digest, sizeof(e->digest), r.manifest_desc.digest);
        code = describe(&r.layout, &r.places, r.manifest, r.packaging, &r.plan, e, err);
        if (code)
            cp_err_prefix(err, "%s", e->name);
    }
    cp_resolved_fini(&r);
    if (code)
        cp_store_entries_free(e, 1);
    else
        *out = e;
    return code;
}

/* See loader.h. */
void cp_store_entries_free(cp_store_entry *e, size_t n)
{
    for (size_t i = 0; e && i < n; i++)
        free(e[i].layers);
    free(e);
}

/* ---- rm ---- */

/* Is `name` the same as `other` but for what follows the repository, a tag or a digest? */
static bool same_repository(const char *name, const char *other)
{
    const char *tag = strrchr(other, ':');
    size_t n = tag ? (size_t)(tag - other) : strlen(other);
    return strncmp(name, other, n) == 0 && (name[n] == ':' || name[n] == '@' || !name[n]);
}

/* Does NAME@DIGEST mean this entry? Other names that have the digest, too, are none of its
 * business. */
static bool is_meant(const cp_descriptor *d, const cp_ref *ref)
{
    return strcmp(d->digest, ref->digest) == 0 && d->ref_name[0] &&
           (same_repository(d->ref_name, ref->typed) ||
            same_repository(d->ref_name, ref->canonical));
}

/* Which entries of x the reference means; false: none. */
static bool mark_entries(const cp_index *x, const cp_ref *ref, bool *drop)
{
    int64_t first = cp_resolve_name(x, ref);
    bool any = false;
    for (size_t i = 0; first >= 0 && i < x->n; i++) {
        const cp_descriptor *d = &x->item[first];
        drop[i] = ref->digest[0]    ? is_meant(&x->item[i], ref)
                  : !d->ref_name[0] ? cp_resolve_unnamed(&x->item[i], d->digest)
                                    : strcmp(x->item[i].ref_name, d->ref_name) == 0;
        any = any || drop[i];
    }
    return any;
}

/* sweep: blobs may go too. */
static cp_code rm_locked(const cp_layout *l, const cp_ref *ref, bool sweep, uint64_t *freed,
                         cp_err *err)
{
    cp_buf raw = {0}, json = {0};
    cp_index *x = NULL;
    cp_digest_set gone = {0};
    cp_code code = cp_layout_index(l, &x, &raw, err);
    bool *drop = code ? NULL : cp_xcalloc(x->n ? x->n : 1, sizeof(*drop));
    if (!code && !mark_entries(x, ref, drop))
        code = cp_fail(err, CP_NOT_FOUND, "'%s%s%s' is not in the store %s", ref->typed,
                       ref->digest[0] ? "@" : "", ref->digest, l->path);
    for (size_t i = 0; !code && i < x->n; i++)
        if (drop[i])
            cp_store_reach(l, &x->item[i], &gone);
    if (!code)
        code = cp_index_drop(&json, raw.p, raw.n, drop, err);
    if (!code)
        code = cp_layout_index_write(l, json.p, json.n, err);
    if (!code && sweep)
        cp_store_sweep(l, &gone, freed);
    cp_digest_set_fini(&gone);
    free(drop);
    cp_index_free(x);
    cp_buf_fini(&raw);
    cp_buf_fini(&json);
    return code;
}

/* See loader.h. */
cp_code cp_store_rm(const cp_loader_options *opt, const char *ref, uint64_t *freed, cp_err *err)
{
    char path[CP_DIR_MAX];
    cp_ref parsed;
    cp_layout l = {.dir = -1};
    int blobs = -1, index = -1;
    bool fresh;
    uint64_t bytes = 0;
    cp_code code = cp_ref_parse_name(&parsed, ref, opt ? opt->default_registry : NULL, err);
    if (!code)
        code = cp_dir_store(path, opt ? opt->store : NULL, err);
    if (!code)
        code = cp_folder_open_writable(&l, path, &fresh, err);
    if (!code && fresh)
        code = cp_fail(err, CP_NOT_FOUND, "'%s' is not in the store %s (which is empty)",
                       parsed.typed, path);
    if (!code) { /* makes the lock files' folder, in a store that another tool made */
        cp_layout_close(&l);
        code = cp_folder_make(&l, path, err);
    }
    if (!code)
        code = cp_layout_lock_take(&l, CP_LOCK_BLOBS, true, &blobs, err);
    bool locked = !code;
    if (code == CP_UNSUPPORTED) { /* the name can go all the same */
        cp_log(CP_LOG_WARN, "%s: its name goes, its blobs stay", parsed.typed);
        code = CP_OK;
    }
    if (!code)
        code = cp_layout_lock_take(&l, CP_LOCK_INDEX, true, &index, err);
    if (!code)
        code = rm_locked(&l, &parsed, locked, &bytes, err);
    cp_io_close(index);
    cp_io_close(blobs);
    cp_layout_close(&l);
    if (freed)
        *freed = bytes;
    return code;
}

/* ---- pack ---- */

/* The file's name for the layer's annotation; "model.gguf" when it cannot stand in one. */
static const char *layer_name(const char *file)
{
    const char *base = cp_path_base(file);
    cp_buf quoted = {0};
    size_t n = strlen(base);
    bool ok = n > 0 && n < 150 && cp_json_quote(&quoted, base, n) && quoted.n > 2 &&
              strcmp(base, "..") != 0;
    cp_buf_fini(&quoted);
    for (const char *p = base; ok && *p; p++)
        ok = !cp_control(p) && *p != '\\';
    return ok ? base : "model.gguf";
}

/* What the config says, from the file's metadata. Strings point into w and the map. */
static cp_code read_facts(const cp_weights *w, const char *file, cp_pack_facts *f, cp_buf *arch,
                          cp_err *err)
{
    uint64_t shards;
    cp_str s;
    if (cp_meta_u64(w->meta, "split.count", &shards) && shards > 1)
        return cp_fail(err, CP_UNSUPPORTED,
                       "%s is one of %" PRIu64 " shards; pack takes a whole file", file, shards);
    if (cp_meta_str(w->meta, "general.architecture", &s))
        cp_buf_add(arch, s.p, s.n);
    f->arch = arch->p ? arch->p : "";
    f->quant = cp_weights_quant(w);
    f->n_params = w->n_params;
    cp_meta_str(w->meta, "general.name", &f->name);
    cp_meta_str(w->meta, "general.license", &f->license);
    cp_meta_str(w->meta, "general.size_label", &f->size_label);
    return CP_OK;
}

/* Weights, config, manifest, name; facts->digest is filled in on the way. */
static cp_code pack_into(const cp_layout *l, const cp_packaging *row, const char *name,
                         const char *file, int fd, cp_pack_facts *facts, cp_progress_fn *progress,
                         void *arg, char digest_out[72], cp_err *err)
{
    cp_places places;
    cp_descriptor weights = {.media_type = row->weight_type, .filepath = layer_name(file)};
    cp_descriptor config = {.media_type = row->config_type};
    cp_descriptor manifest = {.media_type = CP_MT_OCI_MANIFEST,
                              .artifact_type = row->artifact_type};
    cp_buf config_json = {0}, manifest_json = {0};
    cp_digest_set old = {0};
    int lock;
    cp_code code = cp_layout_lock_take(l, CP_LOCK_BLOBS, false, &lock, err);
    if (code)
        return code;
    cp_places_of(&places, l->path, l->dir, true, true);
    code = cp_layout_blob_import(l, fd, facts->bytes, &places, progress, arg, &weights, err);
    if (!code) {
        facts->digest = weights.digest;
        row->config(&config_json, facts);
        code = config_json.failed
                   ? cp_fail(err, CP_NO_MEMORY, "no memory for the config")
                   : cp_layout_blob_put(l, config_json.p, config_json.n, &config, err);
    }
    if (!code)
        code = cp_manifest_write(&manifest_json, row->artifact_type, &config, &weights, 1, err);
    if (!code)
        code = cp_layout_blob_put(l, manifest_json.p, manifest_json.n, &manifest, err);
    if (!code)
        code = cp_store_name(l, name, &manifest, &old, err);
    close(lock);
    if (!code) {
        cp_store_sweep_replaced(l, &old);
        cp_strcopy(digest_out, 72, manifest.digest);
    }
    cp_digest_set_fini(&old);
    cp_buf_fini(&config_json);
    cp_buf_fini(&manifest_json);
    return code;
}

/* See loader.h. */
cp_code cp_store_pack(const cp_loader_options *opt, const char *file, const char *name,
                      const char *format, cp_progress_fn *progress, void *arg, char digest_out[72],
                      cp_err *err)
{
    char path[CP_DIR_MAX], formats[128];
    cp_ref ref;
    cp_layout l = {.dir = -1};
    cp_map map = {0};
    cp_weights *w = NULL;
    cp_buf arch = {0};
    cp_pack_facts facts = {0};
    struct stat st;
    int fd = -1;
    const cp_packaging *row = cp_packaging_named(format ? format : "modelpack");
    cp_packaging_names(true, formats, sizeof(formats));
    cp_code code =
        row ? CP_OK : cp_fail(err, CP_USAGE, "format '%s'; allowed: %s", format, formats);
    if (!code)
        code = cp_ref_parse_name(&ref, name, opt ? opt->default_registry : NULL, err);
    if (!code && ref.digest[0])
        code = cp_fail(err, CP_USAGE, "'%s': a name to pack under has no digest", name);
    if (!code)
        code = cp_dir_store(path, opt ? opt->store : NULL, err);
    if (!code && ((fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0 || fstat(fd, &st) != 0))
        code = cp_fail(err, errno == ENOENT || errno == ENOTDIR ? CP_NOT_FOUND : CP_IO, "%s: %s",
                       file, strerror(errno));
    if (!code && S_ISDIR(st.st_mode))
        code = cp_foreign_folder(file, CP_CORRUPT, err);
    if (!code && (!S_ISREG(st.st_mode) || st.st_size == 0))
        code = cp_fail(err, CP_CORRUPT, "%s is no regular file, or empty", file);
    if (!code)
        code = cp_map_open(&map, fd, (size_t)st.st_size, file, err);
    if (!code && (code = cp_gguf_read(&w, map.p, map.n, err)))
        cp_err_prefix(err, "%s", file);
    if (!code)
        code = read_facts(w, file, &facts, &arch, err);
    if (!code)
        code = cp_folder_make(&l, path, err);
    if (!code) {
        facts.bytes = (uint64_t)st.st_size;
        code = pack_into(&l, row, ref.typed, file, fd, &facts, progress, arg, digest_out, err);
    }
    cp_layout_close(&l);
    cp_buf_fini(&arch);
    cp_weights_free(w);
    cp_map_close(&map);
    cp_io_close(fd);
    return code;
}
