/* This file looks into a folder for the one model in it: see model_folder.h. */
#include "loader/oci/content/model_folder.h"

#include "base/mem.h"
#include "loader/formats/foreign.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

enum { LISTED_MAX = 4096, NAME_BYTES = 256 };

/* "-00002-of-00003.gguf": a shard, and not the first. */
static bool is_later_shard(const char *name)
{
    static const char form[] = "-00001-of-00001.gguf";
    size_t n = strlen(name), k = sizeof(form) - 1;
    unsigned of, all;
    return n > k && sscanf(name + n - k, "-%5u-of-%5u.gguf", &of, &all) == 2 && of > 1;
}

static bool is_model(const char *name)
{
    return name[0] != '.' && cp_has_suffix(name, ".gguf") && !cp_has_prefix(name, "mmproj") &&
           !is_later_shard(name);
}

cp_code cp_model_folder(cp_ref *ref, cp_err *err)
{
    char name[NAME_BYTES] = "";
    int models = 0, layout = 0;
    DIR *d = opendir(ref->path);
    struct dirent *e;
    for (int i = 0; d && i < LISTED_MAX && (e = readdir(d)); i++) {
        layout += strcmp(e->d_name, "oci-layout") == 0 || strcmp(e->d_name, "index.json") == 0;
        if (is_model(e->d_name)) {
            models++;
            cp_strcopy(name, sizeof(name), e->d_name);
        }
    }
    if (d)
        closedir(d);
    if (layout == 2 && models == 0) {
        ref->kind = CP_REF_LAYOUT;
        return CP_OK;
    }
    size_t n = strlen(ref->path);
    if (models != 1 || n + 1 + strlen(name) >= sizeof(ref->path))
        return cp_foreign_folder(ref->path, CP_UNSUPPORTED, err);
    cp_snprintf(ref->path + n, sizeof(ref->path) - n, "/%s", name);
    return CP_OK;
}
