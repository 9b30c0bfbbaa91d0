/*
 * Listing and inspecting: what entries say of themselves, and what their weights do. `list`
 * describes whatever is there, what is broken as "corrupt", so that it can be seen and removed.
 * `inspect` fails where what is here cannot be a model. Of weights only the head is read, through
 * a mapping.
 */
#include "base/map.h"
#include "loader/extras.h"
#include "loader/formats/foreign.h"
#include "loader/formats/format.h"
#include "loader/loader.h"
#include "loader/oci/content/choice.h"
#include "loader/oci/resolve.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/folder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Architecture and quantization from the file itself, which opt's look is shown. CP_CORRUPT,
 * CP_UNSUPPORTED: its format's parser refuses it; the fields stay empty. */
static cp_code peek(int fd, uint64_t offset, uint64_t size, const char *what,
                    const cp_loader_options *opt, cp_store_entry *e, cp_err *err)
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
        if (opt && opt->look)
            opt->look(opt->look_arg, w->meta);
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

static void add_ignored(void *arg, const char *line)
{
    cp_store_entry *e = arg;
    if (e->n_ignored == CP_NOTES_MAX)
        return;
    if (!e->ignored)
        e->ignored = cp_xcalloc(CP_NOTES_MAX, sizeof(*e->ignored));
    e->ignored[e->n_ignored++] = cp_xstrdup(line);
}

/* Files could not be listed: is that the contents' fault? What is not extracted is looked into, and
 * of what is not here, or by another digest than sha256, nothing is known. */
static cp_code judge(const cp_layout *l, const cp_places *places, const cp_manifest *m,
                     const cp_plan *plan, cp_code code, cp_err *err)
{
    for (size_t i = 0; i < m->n_layers; i++)
        if (cp_plan_needs(plan, i) && !(m->layer[i].sha256 && cp_blob_here(l, &m->layer[i])))
            return CP_OK;
    if (code == CP_NOT_FOUND)
        code = cp_files_look(l, m, plan, places, err);
    return code == CP_UNSUPPORTED ? CP_OK : code; /* no model, and nothing wrong with it */
}

/* Describe a manifest of layout l. An error, which is found out if err is given, says that it is
 * here and cannot be a model: peek's, or that its layers hold no file of weights but links, say. */
static cp_code describe(const cp_layout *l, const cp_places *places, const cp_manifest *m,
                        const cp_packaging *row, const cp_plan *plan, const cp_loader_options *opt,
                        cp_store_entry *e, cp_err *err)
{
    cp_strcopy(e->format, sizeof(e->format), row ? row->name : "unknown");
    fill_layers(e, m);
    cp_code code = CP_OK;
    cp_files *files = NULL;
    if (!row)
        return CP_OK;
    code = cp_files_list(&files, l, m, plan, places, err);
    if (code)
        return err ? judge(l, places, m, plan, code, err) : code;
    for (size_t i = 0; opt && i < files->n; i++)
        if (files->v[i].role == CP_ROLE_IGNORED && files->v[i].note && !files->v[i].left_out)
            cp_ignored_file(m, &files->v[i], files->v[i].note, add_ignored, e);
    for (size_t i = 0; i < files->n; i++) {
        const cp_file *f = &files->v[i];
        int fd;
        uint64_t offset;
        if (f->role != CP_ROLE_WEIGHTS)
            continue;
        if (cp_file_open(l, m, places, f, &fd, &offset, NULL) == CP_OK) {
            code = peek(fd, offset, f->size, m->layer[f->layer].digest, opt, e, err);
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
    if (cp_resolve_manifest(l, d, NULL, &m, &desc, why, NULL) != CP_OK)
        return;
    cp_strcopy(e->digest, sizeof(e->digest), desc.digest);
    /* None, or none of several: the layers are listed all the same. */
    if (cp_packaging_plan(m, &row, &plan, NULL) == CP_OK)
        cp_choice_of_layers(&plan, m, l, NULL, why, NULL);
    (void)describe(l, places, m, row, &plan, NULL, e, NULL);
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
static cp_code describe_file(cp_resolved *r, const cp_loader_options *opt, cp_store_entry *e,
                             cp_err *err)
{
    bool verify_always = opt && opt->verify_always;
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
    code = peek(fd, offset, size, r->ref.path, opt, e, err);
    close(fd);
    cp_ignored_neighbours(r->ref.path, add_ignored, e);
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
        code = describe_file(&r, opt, e, err);
    } else {
        const cp_descriptor *d = &r.index->item[r.entry];
        cp_strcopy(e->name, sizeof(e->name), d->ref_name[0] ? d->ref_name : d->digest);
        cp_strcopy(e->digest, sizeof(e->digest), r.manifest_desc.digest);
        code = describe(&r.layout, &r.places, r.manifest, r.packaging, &r.plan, opt, e, err);
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
    for (size_t i = 0; e && i < n; i++) {
        for (size_t k = 0; k < e[i].n_ignored; k++)
            free(e[i].ignored[k]);
        free(e[i].ignored);
        free(e[i].layers);
    }
    free(e);
}
