/*
 * The files of a model: where in the blobs of a layout, or in what was extracted from them, they
 * lie.
 *
 * Everything here works on blobs that are already verified. One thread; several processes may
 * prepare the same model at once, they lock. Hidden: tar, gzip, zstd, stacking of image layers.
 */
#ifndef CP_LOADER_OCI_FILES_H
#define CP_LOADER_OCI_FILES_H

#include "loader/oci/layout.h"
#include "loader/packagings/packaging.h"

/*
 * Make the files of a model readable: raw layers and uncompressed tars are where they are, gzip and
 * zstd tars are extracted into CACHE_DIR/extracted/<layer hex>/ (atomically, recorded). The blobs
 * that the plan needs are there and verified. Idempotent. phase: "extracting". CP_CORRUPT: a tar
 * that is none, links in it, a bomb. CP_IO: no space.
 */
cp_code cp_files_prepare(const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                         const char *cache_dir, cp_progress_fn *progress, void *arg, cp_err *err);

#endif
