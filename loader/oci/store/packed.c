/*
 * Whether packed weights of a model lie in a store. The kernels write and read them
 * (kernels/panels.c), in the folder cache/<hex of the first weights' blob>/ of a place (places.h).
 * Here only their names are looked at, for example
 *
 *     capstan/cache/6f1e...9c/sha256-6f1e...9c-0.v7-00c2d3e41f905a77.panels
 *
 * Whether they are right is the backend's to compare.
 */
#include "loader/oci/resolve.h"
#include "loader/oci/store/fsys.h"

#include <string.h>
#include <unistd.h>

static bool holds_panels(const cp_places *p, const uint8_t digest[32])
{
    char hex[CP_HEX_STR], below[CP_DIGEST_STR + 16];
    bool found = false;
    cp_digest_hex(digest, hex);
    cp_snprintf(below, sizeof(below), "cache/%s", hex);
    for (int i = 0; i < p->n && !found; i++) {
        cp_fs_list list = cp_fs_list_take(cp_places_open(p, i, below, false));
        for (const char *name; !found && (name = cp_fs_list_next(&list));)
            found = strstr(name, ".panels") != NULL;
        cp_fs_list_close(&list);
    }
    return found;
}

/* See loader.h. */
bool cp_store_has_packed(const cp_loader_options *opt, const char *ref)
{
    cp_resolved r;
    bool found = false;
    if (cp_resolve(&r, ref, opt, NULL) != CP_OK)
        return false;
    if (r.bare) {
        uint8_t digest[32];
        uint64_t offset, size;
        int fd;
        if (cp_resolved_prepare(&r, false, NULL) == CP_OK &&
            cp_resolved_file(&r, 0, false, &fd, &offset, &size, digest, NULL) == CP_OK) {
            found = holds_panels(&r.places, digest);
            close(fd);
        }
    }
    for (size_t i = 0; !r.bare && !found && i < r.manifest->n_layers; i++)
        found = cp_plan_needs(&r.plan, i) && holds_panels(&r.places, r.manifest->layer[i].raw);
    cp_resolved_fini(&r);
    return found;
}
