/*
 * ModelPack (CNCF model-spec), new names (cncf) and old (cnai). Weights are layers of type
 * ...weight.v1.raw, each one file; some packers write .v1.gguf, others (RamaLama, podman) keep only
 * the artifact type and octet-stream layers that a title names. Tar layers are another matter and
 * refused by name. A projector ("mmproj" in its file name) has no type of its own and is left out.
 * Source: model-spec docs/spec.md, config.md.
 */
#include "loader/packagings/packaging.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>

static bool any_prefix(const char *s, const char *tail)
{
    static const char *const roots[] = {"application/vnd.cncf.model.",
                                        "application/vnd.cnai.model."};
    for (size_t i = 0; i < 2; i++)
        if (cp_has_prefix(s, roots[i]) && cp_has_prefix(s + strlen(roots[i]), tail))
            return true;
    return false;
}

static bool matches(const cp_manifest *m)
{
    return any_prefix(m->config.media_type, "config.v1") ||
           any_prefix(m->artifact_type, "manifest.v1");
}

static bool is_projector(const char *path)
{
    const char *base = strrchr(path, '/');
    return strcasestr(base ? base + 1 : path, "mmproj") != NULL;
}

static cp_code plan(const cp_manifest *m, cp_plan *out, cp_err *err)
{
    const char *unbuilt = NULL;
    out->n = 0;
    for (size_t i = 0; i < m->n_layers; i++) {
        const cp_descriptor *d = &m->layer[i];
        const char *type = d->media_type;
        bool gguf_name = cp_has_suffix(d->filepath, ".gguf");
        bool raw = any_prefix(type, "weight.v1.gguf") ||
                   ((any_prefix(type, "weight.v1.raw") || any_prefix(type, "weight.raw")) &&
                    (gguf_name || d->filepath[0] == '\0')) ||
                   (strcmp(type, "application/octet-stream") == 0 && gguf_name);
        if (raw && is_projector(d->filepath))
            continue;
        if (!raw) {
            if (any_prefix(type, "weight.") && !any_prefix(type, "weight.config"))
                unbuilt = d->filepath[0] ? d->filepath : type;
            continue;
        }
        if (out->n == CP_PLAN_MAX)
            return cp_fail(err, CP_CORRUPT, "manifest has more than %d weight layers", CP_PLAN_MAX);
        out->layer[out->n++] = i;
    }
    if (out->n)
        return CP_OK;
    if (unbuilt)
        return cp_fail(err, CP_UNSUPPORTED, "weights in '%s'; supported: raw GGUF layers", unbuilt);
    return cp_fail(err, CP_CORRUPT, "manifest has no weight layer");
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
