/*
 * Blobs of a layout: blobs/sha256/<hex>, each named by what it holds (image-spec, image-layout.md).
 * Those of blobs/sha512, which other tools put there, are read and collected, and never written.
 *
 * Paths are made from decoded digests alone, no link is followed, and a blob appears whole.
 * Readers need no lock; who adds blobs that no index names yet holds CP_LOCK_BLOBS shared, who
 * removes some holds it exclusively. One thread a layout; any number of processes.
 */
#ifndef CP_LOADER_OCI_STORE_BLOBS_H
#define CP_LOADER_OCI_STORE_BLOBS_H

#include "loader/oci/store/layout.h"

/* A blob for reading; it is a regular file of *size bytes. CP_NOT_FOUND, CP_CORRUPT (a link, a
 * folder). */
cp_code cp_blob_open(const cp_layout *l, const uint8_t digest[32], int *fd, uint64_t *size,
                     cp_err *err);
/* The blob of a descriptor, of sha256 or sha512. CP_CORRUPT also: its size is not d's, or its
 * digest is of another algorithm. */
cp_code cp_blob_of(const cp_layout *l, const cp_descriptor *d, int *fd, cp_err *err);
/* Is its digest of one of the two algorithms? */
bool cp_blob_known(const cp_descriptor *d);
/* Can it be opened, whatever its size? */
bool cp_blob_here(const cp_layout *l, const cp_descriptor *d);
/* CP_CORRUPT unless the bytes p[n] have d's digest, which is of one of the two algorithms. */
cp_code cp_blob_check(const cp_layout *l, const cp_descriptor *d, const void *p, size_t n,
                      cp_err *err);
/* A small blob (<= 4 MiB) whole, its size and digest checked against d. */
cp_code cp_blob_read(const cp_layout *l, const cp_descriptor *d, cp_buf *out, cp_err *err);
/* Store bytes as a blob; d gets digest, raw, sha256 and size. */
cp_code cp_blob_put(const cp_layout *l, const void *p, size_t n, cp_descriptor *d, cp_err *err);
/*
 * Copy the `size` bytes of file fd into a blob, hashed on the way: reflink, else copy_file_range,
 * else read and write. A blob that is there with a matching record in `places` is kept. Writes the
 * record.
 */
cp_code cp_blob_import(const cp_layout *l, int fd, uint64_t size, const cp_places *places,
                       cp_progress_fn *progress, void *arg, cp_descriptor *d, cp_err *err);
/* Remove what imports that were killed left among the blobs, where locks tell that nobody writes it
 * and nobody did for a minute; dry_run only counts. *bytes grows by what went. */
void cp_blobs_sweep_temps(const cp_layout *l, bool dry_run, uint64_t *bytes);
/* Remove a blob (keep: only look); its size is added to *freed. An absent one is fine. False: it is
 * still there, or it is a folder, which is no blob. */
bool cp_blob_remove(const cp_layout *l, const uint8_t digest[32], bool keep, uint64_t *freed);

/* Is the blob there, of d's size and with a matching record in `places`? */
bool cp_blob_recorded(const cp_layout *l, const cp_descriptor *d, const cp_places *places);

#endif
