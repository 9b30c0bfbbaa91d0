/*
 * Docker model artifacts (Docker Model Runner), config v0.1 and v0.2: weights are the gguf.v3
 * layers in manifest order; the first pushes used model.file.v1+gguf. LoRA, projector, licence and
 * template layers are not weights. Source: model-runner
 * pkg/distribution/types/config.go.
 */
#include "loader/packagings/packaging.h"

#include <inttypes.h>
#include <string.h>

#define DOCKER_AI "application/vnd.docker.ai."

static bool matches(const cp_manifest *m)
{
    return cp_has_prefix(m->config.media_type, DOCKER_AI "model.config.");
}

static cp_code plan(const cp_manifest *m, cp_plan *out, cp_err *err)
{
    const char *unbuilt = NULL;
    out->n = 0;
    for (size_t i = 0; i < m->n_layers; i++) {
        const char *type = m->layer[i].media_type;
        if (strcmp(type, DOCKER_AI "safetensors") == 0 || strcmp(type, DOCKER_AI "dduf") == 0)
            unbuilt = type;
        if (strcmp(type, DOCKER_AI "gguf.v3") != 0 &&
            strcmp(type, DOCKER_AI "model.file.v1+gguf") != 0)
            continue;
        if (out->n == CP_PLAN_MAX)
            return cp_fail(err, CP_CORRUPT, "manifest has more than %d weight layers", CP_PLAN_MAX);
        out->layer[out->n++] = i;
    }
    if (out->n)
        return CP_OK;
    if (unbuilt)
        return cp_fail(err, CP_UNSUPPORTED, "weights of type %s; supported: " DOCKER_AI "gguf.v3",
                       unbuilt);
    return cp_fail(err, CP_CORRUPT, "manifest has no weight layer");
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
    .artifact_type = "",
    .config_type = DOCKER_AI "model.config.v0.1+json",
    .weight_type = DOCKER_AI "gguf.v3",
    .config = config,
};
