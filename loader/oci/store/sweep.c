/* Removing what nobody uses; see sweep.h. */
#include "loader/oci/store/sweep.h"
#include "base/io.h"
#include "loader/oci/content/extract.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/lease.h"
#include "loader/oci/store/mark.h"

#include <unistd.h>

/* See sweep.h. */
bool cp_sweep_keeps_extracted(const cp_layout *l, const char *hex)
{
    int root = cp_layout_own(l, "extracted", false);
    cp_fs_list list = cp_fs_list_take(cp_fs_open_folder(root, hex));
    bool mapped = false;
    cp_io_close(root);
    for (const char *name; !mapped && (name = cp_fs_list_next(&list));) {
        int fd = name[0] == '.' ? -1 : cp_fs_open(list.dir, name);
        mapped = fd >= 0 && cp_lease_is_held(fd);
        cp_io_close(fd);
    }
    cp_fs_list_close(&list);
    return mapped;
}

/* See sweep.h. */
void cp_sweep_cache(const cp_layout *l, const char *hex, bool keep, uint64_t *freed)
{
    int dir = cp_layout_own(l, "cache", false);
    if (dir >= 0) {
        cp_dir_remove(dir, hex, keep, freed);
        close(dir);
    }
}

/* See sweep.h. */
bool cp_sweep_blob(const cp_layout *l, const uint8_t d[32], bool keep, uint64_t *freed)
{
    char path[CP_DIR_MAX + 16], hex[CP_HEX_STR];
    uint64_t size = 0, folders = 0;
    int fd;
    cp_digest_hex(d, hex);
    if (cp_blob_open(l, d, &fd, &size, NULL) != CP_OK)
        fd = -1;
    if ((fd >= 0 && cp_lease_is_held(fd)) || cp_sweep_keeps_extracted(l, hex)) {
        cp_io_close(fd);
        return false;
    }
    cp_sweep_cache(l, hex, keep, freed);
    bool gone = cp_blob_remove(l, d, keep, freed);
    if (!keep) {
        cp_snprintf(path, sizeof(path), "%s/capstan", l->path);
        cp_extract_remove(path, hex, false, &folders, freed, NULL);
        int records = cp_layout_own(l, "records", false);
        if (records >= 0) {
            unlinkat(records, hex, 0);
            close(records);
        }
    }
    cp_io_close(fd);
    return gone;
}

/* See sweep.h. */
void cp_sweep_unused(const cp_layout *l, const cp_digest_set *candidates, uint64_t *freed)
{
    cp_digest_set used = {0};
    if (cp_mark_used(l, false, &used, NULL, NULL) == CP_OK)
        for (size_t i = 0; !used.incomplete && i < candidates->n; i++)
            if (!cp_digest_set_has(&used, candidates->d[i]))
                cp_sweep_blob(l, candidates->d[i], false, freed);
    cp_digest_set_fini(&used);
}

/* See sweep.h. */
void cp_sweep_replaced(const cp_layout *l, const cp_digest_set *old)
{
    int blobs, index;
    uint64_t freed = 0;
    if (old->n == 0 || cp_layout_lock_take(l, CP_LOCK_BLOBS, true, &blobs, NULL) != CP_OK)
        return;
    if (cp_layout_lock_take(l, CP_LOCK_INDEX, true, &index, NULL) == CP_OK) {
        cp_sweep_unused(l, old, &freed);
        close(index);
    }
    close(blobs);
}
