/*
 * Packagings: how a model's files are laid into an OCI manifest, one row each.
 *
 * A row says whether a manifest is of its kind (matches), which layers are the weights (plan), and
 * how a GGUF file is wrapped (the media types and config). Rows are pure: they see a parsed
 * manifest and no file. Adding one: a file beside modelpack.c, its row declared here and listed in
 * packaging.c.
 */
#ifndef CP_LOADER_PACKAGINGS_PACKAGING_H
#define CP_LOADER_PACKAGINGS_PACKAGING_H

#include "base/meta.h"
#include "loader/oci/manifest.h"

enum { CP_PLAN_MAX = 512 };

/* The layers that hold the weights, in manifest order; several are the shards of one split model.
 */
typedef struct cp_plan {
    size_t n;
    size_t layer[CP_PLAN_MAX];
} cp_plan;

/* What a config can say about the file that is being packed. Strings are never NULL. */
typedef struct cp_pack_facts {
    const char *digest; /* of the weights */
    uint64_t bytes;
    uint64_t n_params;
    const char *arch, *quant;
    cp_str name, license, size_label; /* general.*; n = 0: absent */
} cp_pack_facts;

typedef struct cp_packaging {
    const char *name;
    bool (*matches)(const cp_manifest *m);
    /* CP_UNSUPPORTED: weights of a kind that is not built; CP_CORRUPT: no weights. */
    cp_code (*plan)(const cp_manifest *m, cp_plan *out, cp_err *err);
    const char *artifact_type; /* "" = none */
    const char *config_type, *weight_type;
    void (*config)(cp_buf *out,
                   const cp_pack_facts *f); /* the config blob, the same bytes for the same facts */
} cp_packaging;

extern const cp_packaging cp_packaging_modelpack;
extern const cp_packaging cp_packaging_docker;

/* The first row that matches, or NULL. */
const cp_packaging *cp_packaging_of(const cp_manifest *m);
/* The row of that name, or NULL. */
const cp_packaging *cp_packaging_named(const char *name);
/* "modelpack, docker": for messages. */
void cp_packaging_names(char *out, size_t cap);
/* Is s's beginning or end this? Shared by the rows. */
bool cp_has_prefix(const char *s, const char *prefix);
bool cp_has_suffix(const char *s, const char *suffix);

#endif
