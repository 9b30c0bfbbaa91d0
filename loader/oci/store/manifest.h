/*
 * OCI indexes, manifests and descriptors as values; parsing and writing their JSON.
 *
 * A cp_manifest or cp_index owns all strings that it points to; it is immutable once parsed and
 * belongs to its caller. The JSON is hostile: at most 4 MiB, no duplicate keys, bounded lists,
 * digests by grammar, sizes that are not negative, file names without `..`. Hidden: jansson.
 */
#ifndef CP_LOADER_OCI_STORE_MANIFEST_H
#define CP_LOADER_OCI_STORE_MANIFEST_H

#include "base/code.h"
#include "base/digest.h"
#include "base/mem.h"

enum {
    CP_MANIFEST_MAX_BYTES = 4 << 20,
    CP_MANIFEST_MAX_ITEMS = 16384,
    CP_TRAITS_MAX = 32, /* of one index entry; more are dropped */
};

#define CP_MT_OCI_MANIFEST    "application/vnd.oci.image.manifest.v1+json"
#define CP_MT_OCI_INDEX       "application/vnd.oci.image.index.v1+json"
#define CP_MT_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define CP_MT_DOCKER_LIST     "application/vnd.docker.distribution.manifest.list.v2+json"
#define CP_ANNOTATION_NAME    "org.opencontainers.image.ref.name"

/* What an index says about an entry: an annotation, or a member of KitOps' "modelMetadata". */
typedef struct cp_trait {
    const char *key, *value;
    bool metadata;
} cp_trait;

typedef struct cp_descriptor {
    const char *media_type; /* "" when absent; strings are never NULL */
    const char *artifact_type;
    const char *ref_name;  /* annotation org.opencontainers.image.ref.name */
    const char *filepath;  /* annotation org.cncf.model.filepath, org.cnai..., or image.title;
                              relative, no `..` */
    const char *os, *arch; /* platform */
    const char *cpu;       /* its variant, "v8" */
    const cp_trait *trait; /* [n_traits], of an index's entry */
    size_t n_traits;
    uint64_t model_bytes; /* 0, until someone who has read the entry's manifest sets it */
    bool link;            /* the packer says that the layer stands for a symbolic link */
    bool untested;        /* org.cncf.model.file.mediatype.untested: the layer's class is a guess */
    char digest[CP_DIGEST_ANY]; /* as written; "": longer than fits */
    uint8_t raw[32];            /* a sha256 digest's bytes: paths are made from these alone */
    bool sha256; /* false: another algorithm; layers of such digests cannot be used, documents of
                    sha512 can be read */
    uint64_t size;
} cp_descriptor;

typedef struct cp_index {
    cp_arena *arena;
    cp_descriptor *item;
    size_t n;
} cp_index;

typedef struct cp_manifest {
    cp_arena *arena;
    const char *media_type, *artifact_type;
    cp_descriptor config;
    cp_descriptor *layer;
    size_t n_layers;
    uint64_t bytes; /* config and layers together; checked for overflow */
} cp_manifest;

/* All parsers: CP_CORRUPT names what is wrong. *out is NULL on failure. */
cp_code cp_index_parse(cp_index **out, const char *json, size_t n, cp_err *err);
void cp_index_free(cp_index *x);
cp_code cp_manifest_parse(cp_manifest **out, const char *json, size_t n, cp_err *err);
void cp_manifest_free(cp_manifest *m);
bool cp_media_type_is_index(const char *media_type);

/* The index `json` with ref_name pointing to d (any older entry of that name is replaced),
 * everything else kept. */
cp_code cp_index_put(cp_buf *out, const char *json, size_t n, const char *ref_name,
                     const cp_descriptor *d, cp_err *err);
/* The index `json` without the entries i for which drop[i]. */
cp_code cp_index_drop(cp_buf *out, const char *json, size_t n, const bool *drop, cp_err *err);
/* A manifest's JSON, the same bytes for the same values. Layers carry their filepath as
 * annotations. */
cp_code cp_manifest_write(cp_buf *out, const char *artifact_type, const cp_descriptor *config,
                          const cp_descriptor *layer, size_t n_layers, cp_err *err);
/* Append s as a JSON string with its quotes; invalid UTF-8 becomes "". */
bool cp_json_quote(cp_buf *out, const char *s, size_t n);
/*
 * The integer obj[outer][inner] (outer NULL: obj[inner]) of the JSON object `json`, if it is there
 * and > 0; else *out stays. CP_CORRUPT: no JSON object, or it is no integer below 2^31.
 */
cp_code cp_json_positive(const char *json, size_t n, const char *outer, const char *inner,
                         int64_t *out, cp_err *err);
/* Check an oci-layout file: an object whose imageLayoutVersion is 1.x. */
cp_code cp_layout_version_check(const char *json, size_t n, cp_err *err);

#endif
