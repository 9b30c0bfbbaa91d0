/*
 * The files of a model: where in the blobs of a layout, or in what was extracted from them, they
 * lie.
 *
 * A cp_files owns its strings and is immutable. Everything here works on blobs that are already
 * verified. One thread; several processes may prepare the same model at once, they lock. Hidden:
 * tar, gzip, zstd, stacking of image layers.
 */
#ifndef CP_LOADER_OCI_CONTENT_FILES_H
#define CP_LOADER_OCI_CONTENT_FILES_H

#include "loader/oci/content/extract.h"
#include "loader/oci/store/layout.h"
#include "loader/packagings/packaging.h"

enum { CP_FILES_MAX = CP_MANIFEST_MAX_ITEMS };

typedef struct cp_file {
    const char *path; /* within the model; "" when nothing names it */
    cp_layer_role role;
    const char *note; /* why it is ignored; static */
    size_t layer;     /* of the manifest */
    uint64_t offset, size;
    bool in_tar;        /* or the layer is the file */
    bool left_out;      /* a link or a special file: IGNORED, and note says which */
    int number;         /* extracted: cp_extracted_open's; else CP_MEMBER_IN_PLACE: in the blob */
    int place;          /* extracted: of the places */
    uint8_t digest[32]; /* of an extracted file */
} cp_file;

typedef struct cp_files {
    cp_arena *arena;
    cp_file *v; /* in the manifest's order, an image's by layer */
    size_t n;
    char why[256]; /* which of several models was taken; "": there was no choice */
} cp_files;

/*
 * Make the files of a model readable: raw layers and uncompressed tars are where they are, gzip and
 * zstd tars are extracted into a place's extracted/<layer hex>/ (atomically, recorded). The blobs
 * that the plan needs are there and verified. Idempotent. phase: "extracting". CP_CORRUPT: a tar
 * that is none, a bomb. CP_IO: no space.
 */
cp_code cp_files_prepare(const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                         const cp_places *places, cp_progress_fn *progress, void *arg, cp_err *err);
/* Unpack again what is extracted, and compare its lists (cp_extract_check). What is not extracted
 * is fine. */
cp_code cp_files_check(const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                       const cp_places *places, cp_progress_fn *progress, void *arg, cp_err *err);

/*
 * All files of a prepared model, image layers stacked. CP_NOT_FOUND: something is not extracted
 * (any more). CP_CORRUPT: two layers hold different files of one path, or a link stands where
 * weights should. CP_UNSUPPORTED: no weights among them, or only kinds that are not built. Of
 * several models that differ by the quantization in their names one stays, by the plan's wish
 * (choice.h); errors of cp_choice_among.
 */
cp_code cp_files_list(cp_files **out, const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                      const cp_places *places, cp_err *err);
/*
 * What cp_files_list would say once everything is extracted, found out by unpacking the layers that
 * are not, up to 16 MiB each, and keeping nothing. CP_OK also where a larger one may decide. Errors
 * as cp_files_list.
 */
cp_code cp_files_look(const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                      const cp_places *places, cp_err *err);
void cp_files_free(cp_files *f);
/* Open the bytes of file f: size bytes from *offset. The blob has the size that m gives it; its
 * digest is not compared. */
cp_code cp_file_open(const cp_layout *l, const cp_manifest *m, const cp_places *places,
                     const cp_file *f, int *fd, uint64_t *offset, cp_err *err);
/* One line that names the members which were left out, "" when there are none. */
enum { CP_LEFT_OUT_MAX = 400 };
void cp_files_left_out(const cp_files *f, char out[CP_LEFT_OUT_MAX]);

#endif
