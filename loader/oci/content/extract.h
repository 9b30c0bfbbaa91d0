/*
 * Extraction: the wanted members of a compressed tar become files in a place's (places.h)
 * extracted/<layer hex>/.
 *
 * An extracted folder holds the files under numbers (a path from an archive never becomes a file
 * name) and `list`, which names the layer, them and their digests (members.h). It appears whole, by
 * rename, under the lock extracted/lock. Losing it costs an extraction. One thread; any number of
 * processes. Hidden: libarchive, which only decompresses.
 */
#ifndef CP_LOADER_OCI_CONTENT_EXTRACT_H
#define CP_LOADER_OCI_CONTENT_EXTRACT_H

#include "loader/loader.h"
#include "loader/oci/content/members.h"
#include "loader/oci/store/places.h"

enum {
    CP_EXTRACT_RATIO = 32,           /* a layer may unpack to this times its size ... */
    CP_EXTRACT_SLACK = 64 << 20,     /* ... and this */
    CP_EXTRACT_HEADROOM = 64 << 20,  /* bytes left free on the file system */
    CP_TEMPLATE_MAX_BYTES = 1 << 20, /* of a chat template */
};

/* What was extracted from this layer, read from its folder's list, in the first place that has it
 * whole. CP_NOT_FOUND: none. */
cp_code cp_members_extracted(cp_members **out, const cp_places *places, const char *hex, bool image,
                             int *place, cp_err *err);
/* Extracted file `number` of that place: opened. CP_NOT_FOUND. */
cp_code cp_extracted_open(const cp_places *places, int place, const char *hex, int number, int *fd,
                          cp_err *err);

typedef struct cp_extract_progress {
    cp_progress_fn *fn; /* NULL: nobody asks */
    void *arg;
    uint64_t base, total; /* compressed bytes before this layer, and of all layers */
} cp_extract_progress;

/*
 * Extract the compressed tar fd of `size` bytes, unless that has been done meanwhile. CP_CORRUPT:
 * as above, or it unpacks to more than the caps allow. CP_IO: no space, no writable folder.
 */
cp_code cp_extract(const cp_places *places, const char *hex, int fd, uint64_t size, bool image,
                   const cp_extract_progress *progress, cp_err *err);
/* The members of such a tar, unpacked and not kept: which files there would be. Their numbers open
 * nothing. */
cp_code cp_extract_look(cp_members **out, int fd, uint64_t size, bool image, cp_err *err);
/* Unpack it once more, keeping nothing, and compare with the list that cp_members_extracted reads,
 * if there is one. CP_CORRUPT: that is another's, or changed. */
cp_code cp_extract_check(const cp_places *places, const char *hex, int fd, uint64_t size,
                         bool image, const cp_extract_progress *progress, cp_err *err);

/* For gc and rm: remove what was extracted from layer hex, NULL: from every layer, and the records
 * of its files. Counts folders and bytes; dry_run only counts. CP_OK when there is nothing. */
cp_code cp_extract_remove(const char *cache_dir, const char *hex, bool dry_run, uint64_t *folders,
                          uint64_t *bytes, cp_err *err);

/* Call f with the number of each file that lies in the folder of layer hex, in the folder `root` of
 * extracted layers. */
void cp_extract_each(int root, const char *hex, void (*f)(void *arg, const char *hex, int number),
                     void *arg);

#endif
