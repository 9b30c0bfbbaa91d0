/*
 * Packagings: how a model's files are laid into an OCI manifest, one row each.
 *
 * A row says how surely a manifest is of its kind (matches), what each layer is (plan), and, where
 * `capstan pack` can write it, how a GGUF file is wrapped (the media types and config). Rows are
 * pure: they see a parsed manifest and no file; what a tar holds, or a layer of no telling type, is
 * decided where files are found (oci/content/files.h) by the same names (cp_name_kind_of). Adding
 * one: a file beside modelpack.c, its row declared here and listed in packaging.c.
 */
#ifndef CP_LOADER_PACKAGINGS_PACKAGING_H
#define CP_LOADER_PACKAGINGS_PACKAGING_H

#include "base/meta.h"
#include "loader/oci/store/manifest.h"

typedef enum cp_layer_role {
    CP_ROLE_IGNORED,
    CP_ROLE_WEIGHTS,  /* GGUF, one of its shards, or a tar that may hold some */
    CP_ROLE_TEMPLATE, /* a Jinja chat template */
    CP_ROLE_PARAMS,   /* JSON object of sampling options (Ollama's names) */
} cp_layer_role;

typedef enum cp_layer_form {
    CP_FORM_RAW, /* the layer is the file */
    CP_FORM_TAR,
    CP_FORM_TAR_GZIP,
    CP_FORM_TAR_ZSTD,
    CP_FORM_ANY, /* told by its first bytes: GGUF, or a tar of any kind */
} cp_layer_form;

typedef struct cp_plan_layer {
    size_t layer; /* in the manifest */
    cp_layer_role role;
    cp_layer_form form;
    const char *note; /* why it is ignored, for the log; NULL: it is not. Static text */
    bool other;       /* weights of a model that was not chosen (oci/content/choice.h): IGNORED */
} cp_plan_layer;

/* Every layer of the manifest, in its order. Free with cp_plan_fini; a zeroed one is empty. */
typedef struct cp_plan {
    size_t n;
    cp_plan_layer *layer; /* [n], owned */
    bool image; /* layers stack: later wins, whiteouts apply, only members under models/ count */
    /* Of several models in the artifact: cp_variant_wish. Borrowed. */
    const char *variant;
    uint64_t memory_budget;
} cp_plan;

/* What a config can say about the file that is being packed. Strings are never NULL. */
typedef struct cp_pack_facts {
    const char *digest; /* of the weights */
    uint64_t bytes;
    uint64_t n_params;
    const char *arch, *quant;
    cp_str name, license, size_label; /* general.*; n = 0: absent */
} cp_pack_facts;

/* By what a row knows a manifest, weakest first; the strongest row has it. */
typedef enum cp_match {
    CP_MATCH_NONE,
    CP_MATCH_ANYTHING, /* it takes what nobody else does */
    CP_MATCH_NAME,     /* a layer's file name */
    CP_MATCH_LAYER,    /* a layer's media type */
    CP_MATCH_ARTIFACT, /* artifactType */
    CP_MATCH_CONFIG,   /* config.mediaType */
} cp_match;

typedef struct cp_packaging {
    const char *name;
    cp_match (*matches)(const cp_manifest *m);
    /* out comes with n layers, each IGNORED without a note. CP_UNSUPPORTED: weights of a kind that
     * is not built; CP_CORRUPT: no weights. */
    cp_code (*plan)(const cp_manifest *m, cp_plan *out, cp_err *err);
    const char *context_key;   /* of the config's "config" object: a context length; NULL: none */
    const char *artifact_type; /* "" = none */
    const char *config_type, *weight_type;
    /* The config blob, the same bytes for the same facts. NULL: `pack` does not write this one. */
    void (*config)(cp_buf *out, const cp_pack_facts *f);
} cp_packaging;

extern const cp_packaging cp_packaging_modelpack;
extern const cp_packaging cp_packaging_docker;
extern const cp_packaging cp_packaging_ollama;
extern const cp_packaging cp_packaging_image;
extern const cp_packaging cp_packaging_oras;

/* The row that matches best (of equals the first), or NULL. */
const cp_packaging *cp_packaging_of(const cp_manifest *m);
/* The row of that name that `pack` can write, or NULL. */
const cp_packaging *cp_packaging_named(const char *name);
/* Names for messages, "modelpack, docker": all, or those that `pack` can write. */
void cp_packaging_names(bool writable, char *out, size_t cap);

/* The plan of m by its row. CP_UNSUPPORTED: no row; else as cp_packaging.plan. *row is set first.
 * On failure the plan is empty. */
cp_code cp_packaging_plan(const cp_manifest *m, const cp_packaging **row, cp_plan *out,
                          cp_err *err);
void cp_plan_fini(cp_plan *p);
/* Must this layer of the manifest be present to load the model? */
bool cp_plan_needs(const cp_plan *p, size_t manifest_layer);
/* Does a pull bring layer i of m? What is needed, and of the rest what is small: licences and the
 * like, so that other tools find the artifact whole in the store. */
enum { CP_PLAN_EXTRA_MAX = 64 << 20 };
bool cp_plan_brings(const cp_plan *p, const cp_manifest *m, size_t i);

/* What a file is, by its name. */
typedef enum cp_name_kind {
    CP_NAME_OTHER, /* the name says nothing */
    CP_NAME_GGUF,
    CP_NAME_TEMPLATE, /* *.jinja */
    CP_NAME_UNBUILT,  /* weights in a format that is not built */
    CP_NAME_DATA,     /* beside the weights, and not needed */
} cp_name_kind;
/* *note (static): why such a file is ignored; NULL for GGUF and TEMPLATE. */
cp_name_kind cp_name_kind_of(const char *path, const char **note);
/* The plan of a layer that may be weights: GGUF by name as `form`, others by name, and where the
 * name says nothing by the first bytes. *unbuilt becomes the path of weights that are not built. */
void cp_plan_by_name(const cp_descriptor *d, cp_layer_form form, cp_plan_layer *out,
                     const char **unbuilt);
/* A row's table of layer types: what a media type says of its layer. */
typedef struct cp_type_row {
    const char *type; /* without the row's prefix */
    cp_layer_role role;
    bool unbuilt;     /* weights of a kind that is not built */
    const char *note; /* as cp_plan_layer.note */
} cp_type_row;
/* The plan of a layer by its media type, prefix and a row's type; false: no row has it, and a note
 * says so. *unbuilt as in cp_plan_by_name; the type stands in for a path that is not there. */
bool cp_plan_by_type(const char *prefix, const cp_type_row *types, size_t n, const cp_descriptor *d,
                     cp_plan_layer *out, const char **unbuilt);
/* CP_OK when the plan has weights, else the row's error: `unbuilt` names weights that were seen but
 * cannot be read, NULL when there were none. */
cp_code cp_plan_check(const cp_plan *p, const char *unbuilt, cp_err *err);

#endif
