/*
 * Plain files in an artifact (oras push, oras-py, OMLMD, podman artifact add): a title names each
 * layer, media types mean little (oras calls a file a tar by default). A layer is weights if its
 * title ends in .gguf; where the title is silent, its first bytes decide. Folders are tars with
 * compression. Source: oras-go content/file, oras-py, omlmd.
 * Fixtures: oras-py and omlmd.
 */
#include "loader/packagings/packaging.h"

#include <string.h>

/* Configs of images belong to images, unless a layer is named as a GGUF file. */
static bool named_gguf(const cp_manifest *m)
{
    for (size_t i = 0; i < m->n_layers; i++) {
        const char *note;
        if (cp_name_kind_of(m->layer[i].filepath, &note) == CP_NAME_GGUF)
            return true;
    }
    return false;
}

static cp_match matches(const cp_manifest *m)
{
    return named_gguf(m) ? CP_MATCH_NAME : CP_MATCH_ANYTHING;
}

static cp_code plan(const cp_manifest *m, cp_plan *out, cp_err *err)
{
    const char *unbuilt = NULL;
    for (size_t i = 0; i < m->n_layers; i++) {
        /* By the bytes even where the title says GGUF: a folder may have such a name. */
        cp_plan_by_name(&m->layer[i], CP_FORM_ANY, &out->layer[i], &unbuilt);
    }
    return cp_plan_check(out, unbuilt, err);
}

const cp_packaging cp_packaging_oras = {.name = "oras", .matches = matches, .plan = plan};
