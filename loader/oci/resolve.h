/*
 * From a reference to the weight files that it names: a path, an image-layout, or an entry of the
 * store.
 *
 * A cp_resolved is a caller-owned value that holds an open layout and a parsed manifest until
 * cp_resolved_fini; one thread. cp_resolve hashes nothing beyond manifests; cp_resolved_prepare
 * verifies blobs and finds the files in them.
 */
#ifndef CP_LOADER_OCI_RESOLVE_H
#define CP_LOADER_OCI_RESOLVE_H

#include "loader/loader.h"
#include "loader/oci/content/files.h"
#include "loader/oci/content/variant.h"
#include "loader/oci/reference.h"
#include "loader/oci/store/layout.h"
#include "loader/oci/store/manifest.h"
#include "loader/oci/store/places.h"
#include "loader/oci/store/record.h"
#include "loader/packagings/packaging.h"

/* A file's identity and state, to see that it is still the one that was verified. */
typedef struct cp_file_state {
    uint64_t device, inode, size;
    int64_t mtime_ns, ctime_ns;
} cp_file_state;

typedef struct cp_resolved {
    cp_ref ref;
    bool bare; /* a file by path: no layout, index or manifest */
    cp_layout layout;
    cp_index *index;
    size_t entry; /* in index */
    cp_manifest *manifest;
    cp_descriptor manifest_desc; /* after descending through nested indexes */
    const cp_packaging *packaging;
    cp_plan plan;
    char why[256];            /* which variant was chosen */
    cp_buf config;            /* the config blob, after cp_resolved_prepare */
    cp_files *files;          /* likewise; of a bare file just that one */
    cp_file_state *state;     /* likewise: [layers], of each verified blob */
    cp_progress_fn *progress; /* of the options */
    void *progress_arg;
    cp_places places;          /* for records, extracted files and caches */
    char absolute[CP_DIR_MAX]; /* the bare file's real path, or one that leads to it */
} cp_resolved;

/* Errors as cp_loader_open. On failure nothing is held. */
cp_code cp_resolve(cp_resolved *out, const char *ref, const cp_loader_options *opt, cp_err *err);
void cp_resolved_fini(cp_resolved *r);

/*
 * Verify the config and every layer that the plan needs (by matching record, or by hashing),
 * extract what is compressed, find the files: fills r->config, r->files, r->state.
 */
cp_code cp_resolved_prepare(cp_resolved *r, bool verify_always, cp_err *err);
/*
 * The i-th of r->files, opened and verified: its bytes are [offset, offset + size) of *fd. digest
 * is the layer's that it lies in, or the bare file's own.
 */
cp_code cp_resolved_file(const cp_resolved *r, size_t i, bool verify_always, int *fd,
                         uint64_t *offset, uint64_t *size, uint8_t digest[32], cp_err *err);

/* Is d an entry without a name, and its digest this name? */
bool cp_resolve_unnamed(const cp_descriptor *d, const char *name);
/* Position in x of the entry that a name reference means: its digest, else typed, else canonical,
 * else an unnamed entry whose digest was typed. -1: none. */
int64_t cp_resolve_name(const cp_index *x, const cp_ref *ref);
/* The manifest behind entry d, through nested indexes (at most 3); *out_desc is the manifest's own
 * descriptor, why says what was chosen ("": there was no choice). w may be NULL. */
cp_code cp_resolve_manifest(const cp_layout *l, const cp_descriptor *d, const cp_variant_wish *w,
                            cp_manifest **out, cp_descriptor *out_desc, char why[256], cp_err *err);

#endif
