/*
 * loader: a reference becomes verified bytes, and those become mapped tensors plus metadata.
 *
 * A cp_loaded is one opened model: immutable after cp_loader_open, so any thread may read it; its
 * owner closes it when nothing points into it any more. Tensor data points straight into the mapped
 * file, layer or member of a layer (no copy). It hides where the file came from (path, store,
 * image-layout), which packaging and which format it is. A store is a folder, an OCI
 * image-layout; functions on it may be called from any process at once, they lock. Nothing here
 * makes a network connection.
 */
#ifndef CP_LOADER_LOADER_H
#define CP_LOADER_LOADER_H

#include "base/code.h"
#include "base/digest.h"
#include "base/dtype.h"
#include "base/mem.h"
#include "base/meta.h"

typedef void cp_progress_fn(void *arg, const char *phase, uint64_t done, uint64_t total);

typedef struct cp_loader_options {
    const char *store;            /* NULL: the default, $XDG_DATA_HOME/capstan/store */
    const char *default_registry; /* NULL: docker.io */
    bool verify_always;           /* re-hash blobs although a matching record exists */
    const char *platform;     /* "os/arch" to take from an index; NULL: linux and this machine */
    const char *variant;      /* which entry of an index; NULL: what fits memory_budget */
    uint64_t memory_budget;   /* bytes for weights; 0: no limit */
    cp_progress_fn *progress; /* of cp_loader_open, told of "verifying" and "extracting" with bytes
                                 of one file; may be NULL */
    void *progress_arg;
    /* Shown by cp_store_inspect what the weights say of themselves, for the call; may be NULL. */
    void (*look)(void *arg, const cp_meta *meta);
    void *look_arg;
} cp_loader_options;

typedef struct cp_loaded cp_loaded;

/*
 * Open what REF names (docs/MODELS.md, References: a path, oci:DIR[:REFNAME], or
 * name[:tag][@digest] in the store), verify it and map it. Errors: CP_NOT_FOUND (exit 3),
 * CP_CORRUPT (exit 4: digest, size, malformed manifest, layout or GGUF), CP_UNSUPPORTED (a removed
 * tensor type, big-endian file), CP_USAGE (ambiguous oci: layout).
 */
cp_code cp_loader_open(cp_loaded **out, const char *ref, const cp_loader_options *opt, cp_err *err);
void cp_loaded_close(cp_loaded *m);

const cp_meta *cp_loaded_meta(const cp_loaded *m);
size_t cp_loaded_n_tensors(const cp_loaded *m);
const cp_tensor *cp_loaded_tensor(const cp_loaded *m, size_t i);       /* file order */
const cp_tensor *cp_loaded_find(const cp_loaded *m, const char *name); /* NULL: absent; hashed */
/* "sha256:..." of the weights' bytes; of weights in a tar, of its layer; of shards in several
 * layers or files, of their digests in order. */
const char *cp_loaded_digest(const cp_loaded *m);
const char *cp_loaded_quant(
    const cp_loaded *m); /* "Q4_K_M": general.file_type's name, else the commonest type */
size_t cp_loaded_bytes(const cp_loaded *m);
/* A mapped file shrank or failed under us: its pages were replaced by zeroes and this turned true.
 * Checked by the engine after every step, before sampling. Relaxed atomic; any thread. */
bool cp_loaded_poisoned(const cp_loaded *m);
/* The weights were copied into another form: give back what is resident of the mapping. It stays
 * readable, from the page cache. Any thread. */
void cp_loaded_forget(const cp_loaded *m);
/* Folder for caches that belong to this model alone (created), removed with its weights from the
 * store; "" when nothing is writable. */
const char *cp_loaded_cache_dir(const cp_loaded *m);
/* Another such folder, to be read before that one but not written (a store that root made for its
 * readers); "": none. In both only this user and root could put files. */
const char *cp_loaded_cache_dir_made(const cp_loaded *m);

/* What the packaging brought beyond weights. A chat template ("", n = 0: none), sampling options (a
 * JSON object in Ollama's names; NULL: none), a context length (0: none), and lines for the log:
 * which variant was chosen and what is ignored, why. All live as long as m. */
cp_str cp_loaded_template(const cp_loaded *m);
const char *cp_loaded_params(const cp_loaded *m);
int64_t cp_loaded_context_size(const cp_loaded *m);
size_t cp_loaded_n_notes(const cp_loaded *m);
const char *cp_loaded_note(const cp_loaded *m, size_t i);

/* ---- the store ---- */
typedef struct cp_store_layer {
    char digest[CP_DIGEST_ANY];
    uint64_t bytes;
    char media_type[96];
    char filepath[160];
} cp_store_layer;

typedef struct cp_store_entry {
    char name[256];             /* whole "name:tag" */
    char digest[CP_DIGEST_ANY]; /* of the manifest */
    uint64_t bytes;             /* sum of config and layers */
    char format[32];            /* packaging row: "modelpack", "docker" ... */
    char arch[48];
    char quant[32];
    size_t n_layers;
    cp_store_layer *layers;
    size_t n_ignored;
    char **ignored; /* of cp_store_inspect: what lies beside the weights and is not read, and why */
} cp_store_entry;

/* All entries, sorted by name. Free with cp_store_entries_free. A fresh folder (oci/store/folder.h)
 * is an empty list. Here and below CP_CORRUPT also says that the folder is no store, or lost its
 * index; then nothing in it is touched. */
cp_code cp_store_list(const cp_loader_options *opt, cp_store_entry **out, size_t *n, cp_err *err);
/* One entry: by name in the store, or any REF form that cp_loader_open takes (format "gguf" for a
 * bare file). */
cp_code cp_store_inspect(const cp_loader_options *opt, const char *ref, cp_store_entry **out,
                         cp_err *err);
void cp_store_entries_free(cp_store_entry *e, size_t n);
/* Delete the name, and blobs that nothing else uses (none where the file system has no locks).
 * CP_NOT_FOUND when absent. freed may be NULL. */
cp_code cp_store_rm(const cp_loader_options *opt, const char *ref, uint64_t *freed, cp_err *err);

/*
 * Wrap a GGUF file as an OCI artifact and put it into the store under `name` (":latest" is added
 * when there is no tag). format: "modelpack" or "docker". Reproducible: the same file, name and
 * format give the same digest. The blob is hashed while it is copied (reflink or copy_file_range
 * where possible). digest_out receives the manifest's digest.
 */
cp_code cp_store_pack(const cp_loader_options *opt, const char *file, const char *name,
                      const char *format, cp_progress_fn *progress, void *arg, char digest_out[72],
                      cp_err *err);

/*
 * Hash again, whatever records say, every blob behind the entry that is in the store: indexes,
 * manifests, configs, layers, of other platforms and variants too; and compare what was extracted
 * for the model with what its layer unpacks to. *bytes (may be NULL): how many, of configs and
 * layers. phase: "verifying". CP_CORRUPT: a blob is wrong, one that loading needs is missing, or
 * what was extracted is wrong.
 */
cp_code cp_store_verify(const cp_loader_options *opt, const char *ref, cp_progress_fn *progress,
                        void *arg, uint64_t *bytes, cp_err *err);

/* Do packed weights of the model lie in a folder that a start would look into (cp_loaded_cache_dir
 * and _made)? Whether they are right is not looked at. */
bool cp_store_has_packed(const cp_loader_options *opt, const char *ref);

typedef struct cp_gc_result {
    uint64_t extracted, partials, blobs; /* how many */
    uint64_t cached; /* of the user's cache, and panels of the store: unused for 30 days */
    uint64_t bytes;  /* of all of them */
} cp_gc_result;
/*
 * Remove what nothing names and no process uses (has mapped, is pulling): files extracted from such
 * layers, beginnings of pulls that have died, blobs. dry_run: only count, nothing is written.
 * CP_CORRUPT: an entry cannot be read, so its blobs are unknown; then no blob goes. CP_UNSUPPORTED:
 * the file system has no locks. And from the user's cache what nobody used for 30 days.
 */
cp_code cp_store_gc(const cp_loader_options *opt, bool dry_run, cp_gc_result *out, cp_err *err);

/* Fuzz and test entry: parse GGUF bytes (not a file) into meta + tensors; tensors' data point into
 * p. */
typedef struct cp_gguf cp_gguf;
cp_code cp_gguf_parse(cp_gguf **out, const uint8_t *p, size_t n, cp_err *err);
void cp_gguf_free(cp_gguf *g);

#endif
