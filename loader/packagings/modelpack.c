/*
 * ModelPack (CNCF model-spec), new names (cncf) and old (cnai). Weights are layers of type
 * ...weight.v1.{raw,tar,tar+gzip,tar+zstd}; some packers write .v1.gguf, others (RamaLama, podman)
 * keep only the artifact type and octet-stream layers that a title names. A projector ("mmproj" in
 * its file name) has no type of its own and is left out. Source: model-spec docs/spec.md,
 * config.md.
 * Fixtures: a tar from olot, the rest written from the spec and the packers' sources.
 */
#include "loader/packagings/packaging.h"

#include <inttypes.h>
#include <string.h>

static bool any_prefix(const char *s, const char *tail)
{
    static const char *const roots[] = {"application/vnd.cncf.model.",
                                        "application/vnd.cnai.model."};
    for (size_t i = 0; i < 2; i++)
        if (cp_has_prefix(s, roots[i]) && cp_has_prefix(s + strlen(roots[i]), tail))
            return true;
    return false;
}

static cp_match matches(const cp_manifest *m)
{
    if (any_prefix(m->config.media_type, "config.v1"))
        return CP_MATCH_CONFIG;
    if (any_prefix(m->artifact_type, "manifest.v1"))
        return CP_MATCH_ARTIFACT;
    for (size_t i = 0; i < m->n_layers; i++)
        if (any_prefix(m->layer[i].media_type, "weight."))
            return CP_MATCH_LAYER;
    return CP_MATCH_NONE;
}

/* The form that a media type ends in; modelpack's own "gguf" is a raw file. */
static cp_layer_form form_of(const char *type)
{
    return cp_has_suffix(type, ".tar")        ? CP_FORM_TAR
           : cp_has_suffix(type, ".tar+gzip") ? CP_FORM_TAR_GZIP
           : cp_has_suffix(type, ".tar+zstd") ? CP_FORM_TAR_ZSTD
                                              : CP_FORM_RAW;
}

static void plan_layer(const cp_descriptor *d, cp_plan_layer *out, const char **unbuilt)
{
    const char *type = d->media_type, *ignored = NULL;
    bool config = any_prefix(type, "weight.config"), weight = any_prefix(type, "weight.");
    cp_layer_form form = form_of(type);
    if (d->link) {
        out->note = "a symbolic link";
    } else if (any_prefix(type, "weight.v1.gguf")) {
        cp_plan_by_name(d, form, out, &ignored);
        if (out->role != CP_ROLE_IGNORED) { /* a projector is, by its name */
            out->role = CP_ROLE_WEIGHTS;
            out->form = CP_FORM_RAW;
        }
    } else if (config && form != CP_FORM_RAW) { /* a folder's worth; a template may be in it */
        out->role = CP_ROLE_TEMPLATE;
        out->form = form;
    } else if (!weight && any_prefix(type, "") && !d->untested) {
        out->note = "not needed to run the model"; /* doc, code, dataset */
    } else {
        bool vouched = weight && !config; /* called weights by its type */
        const char *note;
        cp_plan_by_name(d, form, out, vouched ? unbuilt : &ignored);
        if (out->role == CP_ROLE_WEIGHTS && !vouched &&
            cp_name_kind_of(d->filepath, &note) != CP_NAME_GGUF &&
            strcmp(type, "application/octet-stream") != 0) {
            out->role = CP_ROLE_IGNORED;
            out->note = "not needed to run the model";
        }
    }
}

static cp_code plan(const cp_manifest *m, cp_plan *out, cp_err *err)
{
    const char *unbuilt = NULL;
    for (size_t i = 0; i < m->n_layers; i++)
        plan_layer(&m->layer[i], &out->layer[i], &unbuilt);
    return cp_plan_check(out, unbuilt, err);
}

static void member(cp_buf *out, const char *key, const char *s, size_t n)
{
    cp_buf_printf(out, "\"%s\":", key);
    cp_json_quote(out, s, n);
}

static void config(cp_buf *out, const cp_pack_facts *f)
{
    cp_buf_adds(out, "{\"descriptor\":{");
    member(out, "family", f->arch, strlen(f->arch));
    if (f->name.n) {
        cp_buf_addc(out, ',');
        member(out, "name", f->name.p, f->name.n);
    }
    if (f->license.n) {
        cp_buf_adds(out, ",\"licenses\":[");
        cp_json_quote(out, f->license.p, f->license.n);
        cp_buf_addc(out, ']');
    }
    cp_buf_adds(
        out, "},\"config\":{\"architecture\":\"transformer\",\"format\":\"gguf\",\"paramSize\":");
    char params[32];
    if (f->n_params < 1000000000)
        cp_snprintf(params, sizeof(params), "%" PRIu64 "m", (f->n_params + 500000) / 1000000);
    else
        cp_snprintf(params, sizeof(params), "%" PRIu64 ".%" PRIu64 "b",
                    (f->n_params + 50000000) / 1000000000,
                    (f->n_params + 50000000) % 1000000000 / 100000000);
    if (f->size_label.n)
        cp_json_quote(out, f->size_label.p, f->size_label.n);
    else
        cp_json_quote(out, params, strlen(params));
    cp_buf_addc(out, ',');
    member(out, "quantization", f->quant, strlen(f->quant));
    cp_buf_printf(out, "},\"modelfs\":{\"type\":\"layers\",\"diffIds\":[\"%s\"]}}", f->digest);
}

const cp_packaging cp_packaging_modelpack = {
    .name = "modelpack",
    .matches = matches,
    .plan = plan,
    .artifact_type = "application/vnd.cncf.model.manifest.v1+json",
    .config_type = "application/vnd.cncf.model.config.v1+json",
    .weight_type = "application/vnd.cncf.model.weight.v1.raw",
    .config = config,
};
