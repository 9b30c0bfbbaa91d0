/*
 * Packing a GGUF file as an artifact (image-spec, manifest.md, Guidelines for Artifact Usage). The
 * packaging row makes the config (packagings/packaging.h). Weights are written first, then the
 * config, the manifest and the name, so a crash leaves only blobs that nothing names. The same
 * file, name and format give the same bytes.
 */
#include "base/io.h"
#include "base/map.h"
#include "loader/formats/foreign.h"
#include "loader/formats/format.h"
#include "loader/loader.h"
#include "loader/oci/reference.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/folder.h"
#include "loader/oci/store/naming.h"
#include "loader/oci/store/sweep.h"
#include "loader/packagings/packaging.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    code = cp_blob_import(l, fd, facts->bytes, &places, progress, arg, &weights, err);
    if (!code) {
        facts->digest = weights.digest;
        row->config(&config_json, facts);
        code = config_json.failed ? cp_fail(err, CP_NO_MEMORY, "no memory for the config")
                                  : cp_blob_put(l, config_json.p, config_json.n, &config, err);
    }
    if (!code)
        code = cp_manifest_write(&manifest_json, row->artifact_type, &config, &weights, 1, err);
    if (!code)
        code = cp_blob_put(l, manifest_json.p, manifest_json.n, &manifest, err);
    if (!code)
        code = cp_store_name(l, name, &manifest, &old, err);
    close(lock);
    if (!code) {
        cp_sweep_replaced(l, &old);
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
