/*
 * Ollama models: an image manifest whose layers' types say what they are. The template is Go's
 * text/template, which a Jinja engine cannot run; the GGUF file carries the same in Jinja. Several
 * `model` layers do not occur (multi-part files are merged before a push). Source: ollama
 * server/images.go, types/model/config.go.
 * Fixtures: written from that source.
 */
#include "loader/packagings/packaging.h"

#include <string.h>

#define OLLAMA "application/vnd.ollama.image."

static cp_match matches(const cp_manifest *m)
{
    /* Its config has the type of any Docker image's: it must not lose to images by that. */
    for (size_t i = 0; i < m->n_layers; i++)
        if (cp_has_prefix(m->layer[i].media_type, OLLAMA))
            return CP_MATCH_CONFIG;
    return CP_MATCH_NONE;
}

/* Layer types, without OLLAMA. */
static const cp_type_row types[] = {
    {"model", CP_ROLE_WEIGHTS, false, NULL},
    {"params", CP_ROLE_PARAMS, false, NULL},
    {"template", CP_ROLE_IGNORED, false, "a Go template; the GGUF file's own is used"},
    {"prompt", CP_ROLE_IGNORED, false, "a Go template; the GGUF file's own is used"},
    {"system", CP_ROLE_IGNORED, false, "a system prompt; requests bring their own"},
    {"messages", CP_ROLE_IGNORED, false, "example messages; requests bring their own"},
    {"license", CP_ROLE_IGNORED, false, "data that running the model does not need"},
    {"json", CP_ROLE_IGNORED, false, "the GGUF file carries its own configuration"},
    {"adapter", CP_ROLE_IGNORED, false, "an adapter; adapters are not built"},
    {"projector", CP_ROLE_IGNORED, false, "a projector; images are not built"},
    {"draft", CP_ROLE_IGNORED, false, "a draft model; speculation is not built"},
    {"embed", CP_ROLE_IGNORED, false, "embeddings; nobody uses them any more"},
    {"tensor", CP_ROLE_IGNORED, true, "single tensors are not built"},
};

static cp_code plan(const cp_manifest *m, cp_plan *out, cp_err *err)
{
    const char *unbuilt = NULL;
    for (size_t i = 0; i < m->n_layers; i++)
        cp_plan_by_type(OLLAMA, types, sizeof(types) / sizeof(types[0]), &m->layer[i],
                        &out->layer[i], &unbuilt);
    return cp_plan_check(out, unbuilt, err);
}

const cp_packaging cp_packaging_ollama = {.name = "ollama", .matches = matches, .plan = plan};
