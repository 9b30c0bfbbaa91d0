/*
 * Container images that carry a model under /models (KServe modelcars, AIKit, olot, RamaLama). All
 * layers are needed: only reading them tells which ones have something under /models. Source:
 * kserve docs and kserve_storage.py; image-spec layer.md for stacking and whiteouts.
 * Fixtures: umoci and olot; zstd and Docker's types written from the spec.
 */
#include "loader/packagings/packaging.h"

#include <string.h>

static const char *const config_types[] = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
};
static const char *const layer_types[] = {
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
};

static bool is_layer(const char *type)
{
    for (size_t i = 0; i < sizeof(layer_types) / sizeof(layer_types[0]); i++)
        if (cp_has_prefix(type, layer_types[i]))
            return true;
    return false;
}

static cp_match matches(const cp_manifest *m)
{
    for (size_t i = 0; i < sizeof(config_types) / sizeof(config_types[0]); i++)
        if (strcmp(m->config.media_type, config_types[i]) == 0)
            return CP_MATCH_CONFIG;
    return CP_MATCH_NONE;
}

static cp_code plan(const cp_manifest *m, cp_plan *out, cp_err *err)
{
    const char *unbuilt = NULL;
    out->image = true;
    for (size_t i = 0; i < m->n_layers; i++) {
        const char *type = m->layer[i].media_type;
        cp_plan_layer *p = &out->layer[i];
        if (!is_layer(type)) { /* somebody gave files an image's config */
            cp_plan_by_name(&m->layer[i], CP_FORM_ANY, p, &unbuilt);
            continue;
        }
        p->role = CP_ROLE_WEIGHTS;
        p->form = strstr(type, "zstd")   ? CP_FORM_TAR_ZSTD
                  : strstr(type, "gzip") ? CP_FORM_TAR_GZIP
                                         : CP_FORM_TAR;
    }
    return cp_plan_check(out, unbuilt, err);
}

const cp_packaging cp_packaging_image = {.name = "image", .matches = matches, .plan = plan};
