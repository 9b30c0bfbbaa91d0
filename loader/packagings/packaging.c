/*
 * The list of packagings, the choice among them, and what file names mean in all of them. The row
 * that knows a manifest most surely has it, by its config type before a layer's (packaging.h,
 * cp_match). What is nobody's model (signatures, charts, attestations) is refused before any row
 * is asked. Of file names the first row of the table that fits decides: "mmproj-m.gguf" is a
 * projector and no weights.
 */
#include "loader/packagings/packaging.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const cp_packaging *const rows[] = {
    &cp_packaging_modelpack, &cp_packaging_docker, &cp_packaging_ollama,
    &cp_packaging_oras,      &cp_packaging_image,
};
enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };

/* Artifacts of other kinds, which nobody means as a model. */
static bool foreign(const char *type)
{
    static const char *const prefixes[] = {
        "application/vnd.dev.cosign.",
        "application/vnd.dev.sigstore.",
        "application/vnd.cncf.helm.",
        "application/vnd.cncf.notary.",
        "application/vnd.in-toto",
        "application/vnd.kitops.",
        "application/vnd.docker.attestation",
    };
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (cp_has_prefix(type, prefixes[i]))
            return true;
    return false;
}

static bool any_foreign(const cp_manifest *m)
{
    bool any = foreign(m->config.media_type) || foreign(m->artifact_type);
    for (size_t i = 0; !any && i < m->n_layers; i++)
        any = foreign(m->layer[i].media_type);
    return any;
}

/* See packaging.h. */
const cp_packaging *cp_packaging_of(const cp_manifest *m)
{
    if (any_foreign(m))
        return NULL;
    const cp_packaging *best = NULL;
    cp_match how = CP_MATCH_NONE;
    for (size_t i = 0; i < N_ROWS; i++) {
        cp_match k = rows[i]->matches(m);
        if (k > how) {
            how = k;
            best = rows[i];
        }
    }
    return best;
}

/* See packaging.h. */
const cp_packaging *cp_packaging_named(const char *name)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i]->config && strcmp(rows[i]->name, name) == 0)
            return rows[i];
    return NULL;
}

/* See packaging.h. */
void cp_packaging_names(bool writable, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < N_ROWS; i++)
        if (!writable || rows[i]->config)
            n += cp_snprintf(out + n, cap - n, "%s%s", n ? ", " : "", rows[i]->name);
}

/* See packaging.h. */
cp_code cp_packaging_plan(const cp_manifest *m, const cp_packaging **row, cp_plan *out, cp_err *err)
{
    *out = (cp_plan){0};
    *row = cp_packaging_of(m);
    if (!*row) {
        char names[128];
        cp_packaging_names(false, names, sizeof(names));
        return cp_fail(err, CP_UNSUPPORTED, "packaging with config '%s'; supported: %s",
                       m->config.media_type, names);
    }
    out->n = m->n_layers;
    out->layer = calloc(m->n_layers ? m->n_layers : 1, sizeof(*out->layer));
    if (!out->layer)
        return cp_fail(err, CP_NO_MEMORY, "no memory for %zu layers", m->n_layers);
    for (size_t i = 0; i < out->n; i++)
        out->layer[i].layer = i;
    cp_code code = (*row)->plan(m, out, err);
    if (code)
        cp_plan_fini(out);
    return code;
}

/* See packaging.h. */
void cp_plan_fini(cp_plan *p)
{
    free(p->layer);
    *p = (cp_plan){0};
}

/* See packaging.h. */
bool cp_plan_needs(const cp_plan *p, size_t manifest_layer)
{
    return manifest_layer < p->n && p->layer[manifest_layer].role != CP_ROLE_IGNORED;
}

/* See packaging.h. */
bool cp_plan_brings(const cp_plan *p, const cp_manifest *m, size_t i)
{
    return cp_plan_needs(p, i) ||
           (!p->layer[i].other && m->layer[i].sha256 && m->layer[i].size <= CP_PLAN_EXTRA_MAX);
}

/* See packaging.h. */
cp_code cp_plan_check(const cp_plan *p, const char *unbuilt, cp_err *err)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->layer[i].role == CP_ROLE_WEIGHTS)
            return CP_OK;
    if (unbuilt)
        return cp_fail(err, CP_UNSUPPORTED, "weights in '%s'; supported: GGUF", unbuilt);
    for (size_t i = 0; i < p->n; i++)
        if (p->layer[i].note)
            return cp_fail(err, CP_CORRUPT, "manifest has no weight layer (layer %zu: %s)", i,
                           p->layer[i].note);
    return cp_fail(err, CP_CORRUPT, "manifest has no weight layer");
}

/* File names and what becomes of them; the first row that fits decides. */
static const struct {
    const char *part;
    enum { AT_END, AT_FRONT, ANYWHERE } where; /* in the file's name */
    cp_name_kind kind;
    const char *note;
} names[] = {
    {"mmproj", ANYWHERE, CP_NAME_DATA, "a projector; images are not built"},
    {"mtp-", AT_FRONT, CP_NAME_DATA, "a drafter (MTP); speculation is not built"},
    {"dflash-", AT_FRONT, CP_NAME_DATA, "a drafter (DFlash); speculation is not built"},
    {"eagle3-", AT_FRONT, CP_NAME_DATA, "a drafter (EAGLE-3); speculation is not built"},
    {".gguf", AT_END, CP_NAME_GGUF, NULL},
    {".jinja", AT_END, CP_NAME_TEMPLATE, NULL},
    {".safetensors", AT_END, CP_NAME_UNBUILT, "safetensors weights are not built"},
    {".dduf", AT_END, CP_NAME_UNBUILT, "dduf weights are not built"},
    {".onnx", AT_END, CP_NAME_UNBUILT, "ONNX weights are not built"},
    {".pt", AT_END, CP_NAME_UNBUILT, "PyTorch weights are not built"},
    {".pth", AT_END, CP_NAME_UNBUILT, "PyTorch weights are not built"},
    {".json", AT_END, CP_NAME_DATA, "the GGUF file carries its own configuration"},
    {".jsonl", AT_END, CP_NAME_DATA, "data that running the model does not need"},
    {".txt", AT_END, CP_NAME_DATA, "data that running the model does not need"},
    {".yaml", AT_END, CP_NAME_DATA, "data that running the model does not need"},
    {".yml", AT_END, CP_NAME_DATA, "data that running the model does not need"},
    {".md", AT_END, CP_NAME_DATA, "data that running the model does not need"},
    {".py", AT_END, CP_NAME_DATA, "code is never run"},
    {".model", AT_END, CP_NAME_DATA, "the GGUF file carries its own tokenizer"},
    {"license", ANYWHERE, CP_NAME_DATA, "data that running the model does not need"},
    {"", AT_END, CP_NAME_OTHER, "neither GGUF by its name nor by its first bytes"},
};

/* See packaging.h. */
cp_name_kind cp_name_kind_of(const char *path, const char **note)
{
    const char *base = cp_path_base(path);
    size_t n = strlen(base), i = 0;
    for (;; i++) { /* the last row fits everything */
        size_t k = strlen(names[i].part);
        if (names[i].where == ANYWHERE ? strcasestr(base, names[i].part) != NULL
            : n < k                    ? false
            : names[i].where == AT_END ? strcasecmp(base + n - k, names[i].part) == 0
                                       : strncasecmp(base, names[i].part, k) == 0)
            break;
    }
    *note = names[i].note;
    return names[i].kind;
}

/* See packaging.h. */
void cp_plan_by_name(const cp_descriptor *d, cp_layer_form form, cp_plan_layer *out,
                     const char **unbuilt)
{
    const char *note;
    cp_name_kind kind = cp_name_kind_of(d->filepath, &note);
    out->form = form;
    switch (kind) {
    case CP_NAME_GGUF:
        out->role = CP_ROLE_WEIGHTS;
        break;
    case CP_NAME_OTHER:
        out->role = CP_ROLE_WEIGHTS;
        if (form == CP_FORM_RAW)
            out->form = CP_FORM_ANY;
        break;
    case CP_NAME_TEMPLATE:
        out->role = CP_ROLE_TEMPLATE;
        break;
    case CP_NAME_UNBUILT:
        *unbuilt = d->filepath;
        out->note = note;
        break;
    case CP_NAME_DATA:
        out->note = note;
        break;
    }
}

/* See packaging.h. */
bool cp_plan_by_type(const char *prefix, const cp_type_row *types, size_t n, const cp_descriptor *d,
                     cp_plan_layer *out, const char **unbuilt)
{
    for (size_t i = 0; cp_has_prefix(d->media_type, prefix) && i < n; i++)
        if (strcmp(d->media_type + strlen(prefix), types[i].type) == 0) {
            out->role = types[i].role;
            out->note = types[i].note;
            if (types[i].unbuilt)
                *unbuilt = d->filepath[0] ? d->filepath : d->media_type;
            return true;
        }
    out->note = "a layer type that is not known";
    return false;
}
