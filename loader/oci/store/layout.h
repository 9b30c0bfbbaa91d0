/*
 * An OCI image-layout on disk: oci-layout, index.json, blobs/sha256/<hex>.
 *
 * A cp_layout is a caller-owned value that holds the folder's descriptor; one thread at a time.
 * Everything is opened relative to it, without following links (but for a store's `blobs`, see
 * `owned`), and blob paths are made from decoded digest bytes alone. Files appear whole: temporary
 * name, fsync, rename, fsync of the folder. Modes are what the umask leaves of 0777 and 0666, so
 * that a group can share a store. Readers need no lock; writers take the locks named below.
 */
#ifndef CP_LOADER_OCI_STORE_LAYOUT_H
#define CP_LOADER_OCI_STORE_LAYOUT_H

#include "loader/loader.h"
#include "loader/oci/store/dirs.h"
#include "loader/oci/store/manifest.h"
#include "loader/oci/store/places.h"

typedef struct cp_layout {
    int dir;
    /* A store of this user's or root's (folder.h): its `blobs` may be a link, made by one of the
     * two, to a folder on another disk. */
    bool owned;
    char path[CP_DIR_MAX];
} cp_layout;

/* Open for reading. CP_NOT_FOUND: no such folder. CP_CORRUPT: no (valid) oci-layout file in it. */
cp_code cp_layout_open(cp_layout *l, const char *path, cp_err *err);
void cp_layout_close(cp_layout *l);
/* Is its oci-layout file there, and of a version that we know? As cp_layout_open asks. */
cp_code cp_layout_check(const cp_layout *l, cp_err *err);

/* index.json parsed, and its bytes when raw is given. */
cp_code cp_layout_index(const cp_layout *l, cp_index **out, cp_buf *raw, cp_err *err);
/* Replace index.json. The caller holds CP_LOCK_INDEX. */
cp_code cp_layout_index_write(const cp_layout *l, const char *json, size_t n, cp_err *err);
/* Write file `name` of the layout, whole, unless there is one. */
cp_code cp_layout_file_new(const cp_layout *l, const char *name, const char *text, size_t n,
                           cp_err *err);

/* A blob for reading; it is a regular file of *size bytes. CP_NOT_FOUND, CP_CORRUPT (a link, a
 * folder). */
cp_code cp_layout_blob_open(const cp_layout *l, const uint8_t digest[32], int *fd, uint64_t *size,
                            cp_err *err);
/* The same of a manifest's blob. CP_CORRUPT also: its size is not d's. */
cp_code cp_layout_blob_of(const cp_layout *l, const cp_descriptor *d, int *fd, cp_err *err);
/* A small blob (<= 4 MiB) whole, its size and digest checked against d. */
cp_code cp_layout_blob_read(const cp_layout *l, const cp_descriptor *d, cp_buf *out, cp_err *err);
/* Store bytes as a blob; d gets digest, raw, sha256 and size. */
cp_code cp_layout_blob_put(const cp_layout *l, const void *p, size_t n, cp_descriptor *d,
                           cp_err *err);
/*
 * Copy the `size` bytes of file fd into a blob, hashed on the way: reflink, else copy_file_range,
 * else read and write. A blob that is there with a matching record in `places` is kept. Writes the
 * record.
 */
cp_code cp_layout_blob_import(const cp_layout *l, int fd, uint64_t size, const cp_places *places,
                              cp_progress_fn *progress, void *arg, cp_descriptor *d, cp_err *err);
/* Remove what imports that were killed left among the blobs, where locks tell that nobody writes it
 * and nobody did for a minute; dry_run only counts. *bytes grows by what went. */
void cp_layout_temps_sweep(const cp_layout *l, bool dry_run, uint64_t *bytes);
/* Remove a blob (keep: only look); its size is added to *freed. An absent one is fine. False: it is
 * still there, or it is a folder, which is no blob. */
bool cp_layout_blob_remove(const cp_layout *l, const uint8_t digest[32], bool keep,
                           uint64_t *freed);

/* Is `blobs` a folder, or a link that may be followed, and blobs/sha256 a folder, or are they
 * absent? CP_CORRUPT or CP_IO says what else there is, and what to do. */
cp_code cp_layout_blobs_check(const cp_layout *l, cp_err *err);
/* Make blobs/sha256, and where `blobs` is a link claim what it leads to: one store removes blobs
 * there. CP_CORRUPT: another store has. */
cp_code cp_layout_blobs_make(const cp_layout *l, cp_err *err);
/* The folder of pulls under way, on the file system of the blobs; -1 with errno. */
int cp_layout_partial_dir(const cp_layout *l, bool make);
/* The folder that pulls had for them before `blobs` became a link, or before it was none any more;
 * -1 there is none. */
int cp_layout_partial_left(const cp_layout *l);
/* The folder blobs/sha256, or capstan/<name>; -1 with errno. _make: made if it is not there. */
int cp_layout_blobs_dir(const cp_layout *l);
int cp_layout_own_dir(const cp_layout *l, const char *name);
int cp_layout_own_make(const cp_layout *l, const char *name);
/* Is the blob there, of d's size and with a matching record in `places`? */
bool cp_layout_blob_recorded(const cp_layout *l, const cp_descriptor *d, const cp_places *places);

/*
 * Locks between processes, taken in this order. CP_LOCK_BLOBS shared: blobs are being added that no
 * index names yet; exclusive: unused blobs are being removed. CP_LOCK_INDEX exclusive: index.json
 * is read, changed and replaced.
 */
typedef enum cp_layout_lock { CP_LOCK_BLOBS, CP_LOCK_INDEX } cp_layout_lock;
/* Blocks until granted. *fd >= 0 is the lock; close it to release. Where the file system has no
 * locks everything but removing goes on without: CP_LOCK_BLOBS exclusive is CP_UNSUPPORTED then. */
cp_code cp_layout_lock_take(const cp_layout *l, cp_layout_lock which, bool exclusive, int *fd,
                            cp_err *err);
/* Exclusively, for who only counts: nothing is made, and *fd is -1 where there is no lock yet. */
cp_code cp_layout_lock_look(const cp_layout *l, cp_layout_lock which, int *fd, cp_err *err);

#endif
