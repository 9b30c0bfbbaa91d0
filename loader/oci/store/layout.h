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

/* What messages add where a link is found that is not followed. */
#define CP_LINKS_NOT_FOLLOWED                                                                      \
    "links are not followed there: put what it leads to in its place (`cp -rL` copies a layout "   \
    "so)"

void cp_layout_close(cp_layout *l);
/* Is its oci-layout file there, and of a version that we know? CP_CORRUPT: no. */
cp_code cp_layout_check(const cp_layout *l, cp_err *err);

/* index.json parsed, and its bytes when raw is given. */
cp_code cp_layout_index(const cp_layout *l, cp_index **out, cp_buf *raw, cp_err *err);
/* Replace index.json. The caller holds CP_LOCK_INDEX. */
cp_code cp_layout_index_write(const cp_layout *l, const char *json, size_t n, cp_err *err);
/* Write file `name` of the layout, whole, unless there is one. */
cp_code cp_layout_file_new(const cp_layout *l, const char *name, const char *text, size_t n,
                           cp_err *err);

/* The folder capstan/<name> ("." the folder itself); -1 with errno. make: made if it is not there.
 */
int cp_layout_own(const cp_layout *l, const char *name, bool make);
/* CP_IO: `call` on file `name` of the layout has failed, with errno. */
cp_code cp_layout_failed(const cp_layout *l, const char *name, const char *call, cp_err *err);

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
