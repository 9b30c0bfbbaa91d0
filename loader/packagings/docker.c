/*
 * Docker model artifacts (Docker Model Runner), config v0.1 and v0.2: weights are the gguf.v3
 * layers in manifest order; the first pushes used model.file.v1+gguf; v0.2 has files that only
 * their path tells apart. Source: model-runner pkg/distribution/types/config.go.
 * Fixtures: written from that source.
 */
#include "loader/packagings/packaging.h"

#include <inttypes.h>
#include <string.h>

#define DOCKER_AI "application/vnd.docker.ai."

static cp_match matches(const cp_manifest *m)
{
    if (cp_has_prefix(m->config.media_type, DOCKER_AI "model.config."))
        return CP_MATCH_CONFIG;
    for (size_t i = 0; i < m->n_layers; i++)
        if (cp_has_prefix(m->layer[i].media_type, DOCKER_AI))
            return CP_MATCH_LAYER;
    return CP_MATCH_NONE;
}

/* Layer types, without DOCKER_AI; model.file is told by its file name. */
static const cp_type_row types[] = {
    {"gguf.v3", CP_ROLE_WEIGHTS, false, NULL},
    {"model.file.v1+gguf", CP_ROLE_WEIGHTS, false, NULL},
    {"chat.template.jinja", CP_ROLE_TEMPLATE, false, NULL},
    {"gguf.v3.lora", CP_ROLE_IGNORED, false, "an adapter; adapters are not built"},
    {"gguf.v3.mmproj", CP_ROLE_IGNORED, false, "a projector; images are not built"},
    {"mmproj", CP_ROLE_IGNORED, false, "a projector; images are not built"},
    {"license", CP_ROLE_IGNORED, false, "data that running the model does not need"},
    {"safetensors", CP_ROLE_IGNORED, true, "safetensors weights are not built"},
    {"dduf", CP_ROLE_IGNORED, true, "dduf weights are not built"},
    {"vllm.config.tar", CP_ROLE_IGNORED, false, "the GGUF file carries its own configuration"},
    {"dir.tar", CP_ROLE_IGNORED, false, "the GGUF file carries its own configuration"},
};

static cp_code plan(const cp_manifest *m, cp_plan *out, cp_err *err)
{
    const char *unbuilt = NULL;
    for (size_t i = 0; i < m->n_layers; i++) {
        const cp_descriptor *d = &m->layer[i];
        cp_plan_layer *l = &out->layer[i];
        if (strcmp(d->media_type, DOCKER_AI "model.file") == 0 && d->filepath[0])
            cp_plan_by_name(d, CP_FORM_RAW, l, &unbuilt);
        else
            cp_plan_by_type(DOCKER_AI, types, sizeof(types) / sizeof(types[0]), d, l, &unbuilt);
    }
    return cp_plan_check(out, unbuilt, err);
}

/* n with two decimals of `unit`, e.g. 361.82; integers only, so that no locale or rounding mode has
 * a say. */
static void hundredths(cp_buf *out, uint64_t n, uint64_t unit, const char *suffix)
{
    uint64_t whole = n / unit, part = (uint64_t)((n % unit) / ((unit + 99) / 100));
    cp_buf_printf(out, "%" PRIu64 ".%02" PRIu64 " %s", whole, part, suffix);
}

static void config(cp_buf *out, const cp_pack_facts *f)
{
    cp_buf_adds(out, "{\"config\":{\"format\":\"gguf\",\"quantization\":");
    cp_json_quote(out, f->quant, strlen(f->quant));
    cp_buf_adds(out, ",\"parameters\":\"");
    if (f->n_params < 1000000000)
        hundredths(out, f->n_params, 1000000, "M");
    else
        hundredths(out, f->n_params, 1000000000, "B");
    cp_buf_adds(out, "\",\"architecture\":");
    cp_json_quote(out, f->arch, strlen(f->arch));
    cp_buf_adds(out, ",\"size\":\"");
    if (f->bytes < (uint64_t)1 << 30)
        hundredths(out, f->bytes, (uint64_t)1 << 20, "MiB");
    else
        hundredths(out, f->bytes, (uint64_t)1 << 30, "GiB");
    cp_buf_printf(out,
                  "\"},\"descriptor\":{},\"rootfs\":{\"type\":\"rootfs\",\"diff_ids\":[\"%s\"]}}",
                  f->digest);
}

const cp_packaging cp_packaging_docker = {
    .name = "docker",
    .matches = matches,
    .plan = plan,
    .context_key = "context_size",
    .artifact_type = "",
    .config_type = DOCKER_AI "model.config.v0.1+json",
    .weight_type = DOCKER_AI "gguf.v3",
    .config = config,
};
