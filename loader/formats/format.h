/*
 * Weight file formats: one row each, all of which turn a file's bytes into cp_weights.
 *
 * A cp_weights is immutable once parsed and belongs to whoever parsed it; its tensors' data and its
 * metadata's strings point into the bytes that were given, which must outlive it. Adding a format:
 * a file beside gguf.c and a row in format.c.
 */
#ifndef CP_LOADER_FORMATS_FORMAT_H
#define CP_LOADER_FORMATS_FORMAT_H

#include "base/code.h"
#include "base/dtype.h"
#include "base/meta.h"

/* Name → position, open addressing under a random seed, so that chosen names cannot make it slow.
 */
typedef struct cp_name_index {
    uint32_t *slot; /* position + 1; 0 = free */
    size_t mask;    /* slots - 1, a power of two */
    uint64_t seed;
} cp_name_index;

typedef struct cp_weights {
    cp_meta *meta;
    cp_tensor *tensors; /* [n_tensors], file order */
    size_t n_tensors;
    uint64_t data_offset; /* where tensor data begins in the file */
    uint64_t n_params;    /* elements of all tensors */
    cp_name_index index;
    char (*names)[64]; /* [n_tensors], what tensors[i].name points to */
    void **owned;      /* string arrays of the metadata */
    size_t n_owned, cap_owned;
} cp_weights;

typedef struct cp_format {
    const char *name;
    const char *magic; /* the file's first bytes */
    size_t n_magic;
    /* Parse p[n]; *out is NULL on failure. CP_CORRUPT, CP_UNSUPPORTED, CP_NO_MEMORY. */
    cp_code (*parse)(cp_weights **out, const uint8_t *p, size_t n, cp_err *err);
} cp_format;

/* The row whose magic p[n] begins with, or NULL. */
const cp_format *cp_format_of(const uint8_t *p, size_t n);

cp_code cp_gguf_read(cp_weights **out, const uint8_t *p, size_t n, cp_err *err);
void cp_weights_free(cp_weights *w);

/* Room for n names. False: out of memory. */
bool cp_name_index_init(cp_name_index *x, size_t n);
void cp_name_index_fini(cp_name_index *x);
/* The position that was stored for `name`, or -1. `t` is the array that positions count in. */
int64_t cp_name_index_find(const cp_name_index *x, const cp_tensor *t, const char *name);
/* Store position i for t[i].name; false when the name is there already. */
bool cp_name_index_add(cp_name_index *x, const cp_tensor *t, size_t i);

/* "Q4_K_M": general.file_type's name, else the type that holds most bytes, else "". Never NULL. */
const char *cp_weights_quant(const cp_weights *w);

#endif
