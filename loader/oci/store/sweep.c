/*
 * Removing what nobody uses. What was derived from a blob goes with it: its record, its caches,
 * what was extracted from it. A blob or an extracted file that a process has mapped stays with all
 * of that until another gc, however few names it has.
 */
#include "loader/oci/store/sweep.h"
#include "base/io.h"
#include "loader/oci/content/extract.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/blobs_dir.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/lease.h"
#include "loader/oci/store/mark.h"

#include <fcntl.h>
#include <sys/stat.h>
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
uint64_t cp_sweep_sha512(const cp_layout *l, cp_digest_set *used, cp_digest_set *among, bool keep,
                         uint64_t *freed)
{
    uint64_t n = 0;
    cp_fs_list list = cp_fs_list_take(cp_blobs_dir_sha512(l));
    for (const char *name; (name = cp_fs_list_next(&list));) {
        char text[CP_DIGEST_ANY];
        uint8_t raw[64], key[32];
        struct stat st;
        cp_snprintf(text, sizeof(text), "sha512:%s", name);
        if (!cp_sha512_parse(text, raw))
            continue;
        cp_digest_set_key(text, key);
        if (cp_digest_set_has(used, key) || (among && !cp_digest_set_has(among, key)) ||
            fstatat(list.dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || S_ISDIR(st.st_mode) ||
            (!keep && unlinkat(list.dir, name, 0) != 0))
            continue;
        *freed += (uint64_t)st.st_size;
        n++;
    }
    cp_fs_list_close(&list);
    return n;
}

/* See sweep.h. */
void cp_sweep_unused(const cp_layout *l, cp_digest_set *candidates, uint64_t *freed)
{
    cp_digest_set used = {0};
    if (cp_mark_used(l, false, &used, NULL, NULL) == CP_OK && !used.incomplete) {
        for (size_t i = 0; i < candidates->n; i++)
            if (!cp_digest_set_has(&used, candidates->d[i]))
                cp_sweep_blob(l, candidates->d[i], false, freed);
        cp_sweep_sha512(l, &used, candidates, false, freed);
    }
    cp_digest_set_fini(&used);
}

/* See sweep.h. */
void cp_sweep_replaced(const cp_layout *l, cp_digest_set *old)
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
